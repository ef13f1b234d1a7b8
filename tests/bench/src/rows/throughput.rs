//! How many requests does one core answer? wrk with 32 connections, for each workload.

use std::fs;

use serde_json::{Value, json};

use crate::contestants::{Contestant, Entry, Workload, echo_body};
use crate::plan::Plan;
use crate::row::{Cell, Row, Verdict, median_of};
use crate::samples::Samples;
use crate::wrk::{self, Requests};

pub(crate) fn run(plan: &Plan, entries: &[Entry]) -> anyhow::Result<Vec<Row>> {
    let body = plan.work.join("echo.json");
    fs::write(&body, echo_body())?;
    let body = body.display().to_string();
    [
        (
            Workload::Hello,
            "hello",
            "hello requests a second, one core, 32 connections",
        ),
        (
            Workload::Echo,
            "echo",
            "the same: JSON echo of 1 KB, parsed and written again",
        ),
        (
            Workload::Stream,
            "stream",
            "the same: 64 KB as a stream of four chunks",
        ),
    ]
    .into_iter()
    .map(|(workload, name, question)| {
        eprintln!(" {name}");
        let samples = Samples::gather(
            plan.rounds,
            entries,
            "req/s",
            |_| true,
            |entry| measure(plan, entry.contestant, workload, &body),
        );
        let cells = samples.cells();
        Ok(Row {
            name,
            question: question.into(),
            goal: "≥ Deno, ≥ 0.85 × hyper, ≥ 7 × workerd".into(),
            verdict: verdict(&cells),
            note: note(&cells, &samples),
            cells,
            failures: samples.failures,
        })
    })
    .collect()
}

fn measure(
    plan: &Plan,
    contestant: Contestant,
    workload: Workload,
    body: &str,
) -> anyhow::Result<(f64, Value)> {
    let serving = contestant.serve(plan, workload)?;
    let requests = match workload {
        Workload::Echo => Requests::Post(body),
        Workload::Hello | Workload::Stream => Requests::Plain,
    };
    let load = |seconds| wrk::run(plan, seconds, serving.server.port, &serving.path, &requests);
    load(1)?.all_right()?;
    let before = serving.server.cpu_seconds()?;
    let load = load(plan.seconds)?.all_right()?;
    let busy = (serving.server.cpu_seconds()? - before) / (load.duration_us as f64 / 1e6);
    let p99_ms = load.p99_us as f64 / 1e3;
    Ok((
        load.per_second(),
        json!({"wrk": load, "p99Ms": p99_ms, "serverBusy": busy}),
    ))
}

fn verdict(cells: &[Cell]) -> Verdict {
    let of = |contestant: Contestant| median_of(cells, contestant.name());
    let compare = || {
        let isolet = of(Contestant::Isolet)?;
        let deno = of(Contestant::Deno)?;
        let hyper = of(Contestant::Hyper)?;
        let workerd = of(Contestant::Workerd)?;
        Some(isolet >= deno && isolet >= 0.85 * hyper && isolet >= 7.0 * workerd)
    };
    compare().map_or(Verdict::Unknown, Verdict::of)
}

fn note(cells: &[Cell], samples: &Samples) -> String {
    let ratio = |of: Contestant, to: Contestant| {
        let ratio = median_of(cells, of.name())? / median_of(cells, to.name())?;
        Some(format!("{ratio:.2} × {}", to.name()))
    };
    let ratios: Vec<String> = [Contestant::Deno, Contestant::Hyper, Contestant::Workerd]
        .into_iter()
        .filter_map(|to| ratio(Contestant::Isolet, to))
        .collect();
    let without_javascript = ratio(Contestant::Hyper, Contestant::Workerd).unwrap_or_default();
    let each = |key: &str, unit: &'static str| {
        cells
            .iter()
            .filter_map(|cell| {
                let it = samples.detail(&cell.contestant, key, cell.contestant.clone(), unit)?;
                Some(format!("{} {}", it.contestant, it.text()))
            })
            .collect::<Vec<_>>()
            .join(", ")
    };
    format!(
        "isolet is at {}, where hyper, which runs no JavaScript, is at {without_javascript}; p99: {}; share of the core that the server used: {}",
        ratios.join(", "),
        each("p99Ms", "ms"),
        each("serverBusy", "")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_goal_needs_all_three() {
        let cells = |isolet: f64| {
            [
                ("isolet", isolet),
                ("Deno", 100.0),
                ("hyper", 110.0),
                ("workerd", 10.0),
            ]
            .map(|(name, value)| Cell::of(name, "", vec![value]))
        };
        assert_eq!(verdict(&cells(100.0)), Verdict::Holds);
        assert_eq!(verdict(&cells(99.0)), Verdict::Missed);
        assert_eq!(verdict(&cells(100.0)[..2]), Verdict::Unknown);
    }
}
