//! benchmarks.md and benchmarks.json: everything in them comes from the run.

use std::fmt::Write;
use std::fs;

use serde::Serialize;

use crate::contestants::Workload;
use crate::machine::Machine;
use crate::plan::Plan;
use crate::reasons;
use crate::row::{Row, Verdict};
use crate::wrk::{self, Requests};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    machine: &'a Machine,
    rounds: usize,
    seconds: u64,
    server_core: usize,
    load_core: usize,
    rows: &'a [Row],
}

/// Writes both files; the answer is the Markdown.
pub(crate) fn write(plan: &Plan, machine: &Machine, rows: &[Row]) -> anyhow::Result<String> {
    let text = markdown(plan, machine, rows);
    let report = Report {
        machine,
        rounds: plan.rounds,
        seconds: plan.seconds,
        server_core: plan.server_core,
        load_core: plan.load_core,
        rows,
    };
    fs::create_dir_all(&plan.out)?;
    fs::write(plan.out.join("benchmarks.md"), &text)?;
    fs::write(
        plan.out.join("benchmarks.json"),
        serde_json::to_string_pretty(&report)? + "\n",
    )?;
    Ok(text)
}

fn markdown(plan: &Plan, machine: &Machine, rows: &[Row]) -> String {
    let mut text = String::from(
        "# Benchmarks\n\nWritten by `make bench`; do not edit. Median of the rounds (lowest–highest).\n\n\
         | row | goal | isolet | beside it | holds |\n|---|---|---|---|---|\n",
    );
    for row in rows {
        let _ = writeln!(text, "{}", line(row));
    }
    let with_goal = rows
        .iter()
        .filter(|row| row.verdict != Verdict::Informs)
        .count();
    let holds = rows
        .iter()
        .filter(|row| row.verdict == Verdict::Holds)
        .count();
    let _ = writeln!(text, "\n{holds} of {with_goal} goals hold.");
    text += &missed(rows);
    text += "\n## Notes on the rows\n\n";
    for row in rows.iter().filter(|row| !row.note.is_empty()) {
        let _ = writeln!(text, "- {}: {}", row.question, row.note);
    }
    for failure in rows.iter().flat_map(|row| &row.failures) {
        let _ = writeln!(text, "- failed to run: {}", escaped(failure));
    }
    text + &method(plan, machine)
}

/// Why the goals that are missed are.
fn missed(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut told = Vec::new();
    for row in rows.iter().filter(|row| row.verdict == Verdict::Missed) {
        let Some(found) = reasons::found(row.name).filter(|found| !told.contains(found)) else {
            continue;
        };
        told.push(found);
        let _ = writeln!(text, "- {}: {found}", row.question);
    }
    if text.is_empty() {
        return text;
    }
    format!("\n## Why goals are missed\n\nAs found by profiling.\n\n{text}")
}

fn line(row: &Row) -> String {
    let cell = |mine: bool| {
        row.cells
            .iter()
            .filter(|cell| cell.contestant.starts_with("isolet") == mine)
            .map(|cell| {
                let label = cell
                    .contestant
                    .trim_start_matches("isolet")
                    .trim_start_matches(", ");
                let colon = if label.is_empty() { "" } else { ": " };
                format!("{label}{colon}{}", escaped(&cell.text()))
            })
            .collect::<Vec<_>>()
            .join("<br>")
    };
    format!(
        "| {} | {} | {} | {} | {} |",
        row.question,
        row.goal,
        cell(true),
        cell(false),
        row.verdict.word()
    )
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn method(plan: &Plan, machine: &Machine) -> String {
    let mut text = format!(
        "\n## Method\n\n{}; {}, {} cores, {} GB; {}, {}; TCP congestion control {}; commit {}. Load average before the run: {}.\n\n",
        machine.date,
        machine.cpu,
        machine.cores,
        machine.memory_gb,
        machine.kernel,
        machine.system,
        machine.congestion_control,
        machine.commit,
        machine.load_before
    );
    for (contestant, version) in &machine.contestants {
        let _ = writeln!(text, "- {contestant}: {version}");
    }
    let body = plan.work.join("echo.json").display().to_string();
    let load = |path: &str, requests: &Requests<'_>| {
        wrk::command(plan, plan.seconds, 1234, path, requests).join(" ")
    };
    let _ = write!(
        text,
        "- load: {}\n\n\
         Servers run on core {} (`taskset`), the load on core {}, over loopback. In each of {} rounds every contestant is \
         started, checked (status and body of its answer), warmed for one second, measured and ended, one after the other. \
         isolet is `isolet dev` on a folder of generated manifests: the same agent and worker as \
         in a cluster, with its log level (`RUST_LOG=warn`) and without `Server-Timing`. Memory is Rss in /proc/PID/smaps_rollup of the process that serves, in units \
         of 10^6 bytes. hyper is a thread without JavaScript: what HTTP costs. {} The modules are in tests/bench/apps ({}); Deno \
         and workerd run the same ones as isolet, Node and hyper have their own way to the same answers.\n\n\
         ```\n{}\n{}\n{}\n```\n",
        machine.wrk,
        plan.server_core,
        plan.load_core,
        plan.rounds,
        if machine.is_profiled {
            "isolet and hyper are release builds of `runtime/pgo/build`, optimised with what others were seen to run under such \
             requests and those of the soak."
        } else {
            "isolet and hyper are release builds without a profile (`make profile` records one)."
        },
        [Workload::Hello, Workload::Echo, Workload::Stream]
            .map(Workload::name)
            .join(", "),
        load("/fn/default/hello/", &Requests::Plain),
        load("/fn/default/echo/", &Requests::Post(&body)),
        load("/", &Requests::Rotate("target/bench/paths.txt")),
    );
    text
}
