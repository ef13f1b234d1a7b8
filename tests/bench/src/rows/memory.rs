//! How much resident memory does a function cost that was called and is idle now?
//!
//! The process with so many functions and one, less the process with one, divided by those that are alive: a start shows in
//! the answer. A process a function: the whole process.

use std::fs;

use serde_json::{Value, json};

use super::{IDLE, PATIENCE, alive, ask_counted, names, workerd_tenants};
use crate::contestants::{Contestant, Entry, Workload, isolet, workerd};
use crate::http::Connection;
use crate::plan::Plan;
use crate::process::Server;
use crate::row::{Row, Verdict};
use crate::samples::Samples;

/// Code of this size is the large bundle.
const LARGE_BYTES: usize = 95_000;
/// How often each function is called: once with what a first call compiles, once without.
const CALLS: usize = 2;

pub(crate) fn run(plan: &Plan, entries: &[Entry]) -> anyhow::Result<Vec<Row>> {
    let counts: &[usize] = if plan.quick { &[200] } else { &[1_000, 4_000] };
    let codes = [
        ("hello of 4 lines", isolet::app("counted")?),
        ("a bundle of 100 KB", large_bundle()),
    ];
    let mut rows = Vec::new();
    for (what, code) in &codes {
        for &count in counts {
            eprintln!(" {count} functions, {what}");
            let is_first = Some(&count) == counts.first();
            let samples = Samples::gather(
                plan.rounds,
                entries,
                "MB",
                |entry| {
                    entry.contestant == Contestant::Isolet
                        || (is_first && entry.contestant != Contestant::Hyper)
                },
                |entry| measure(plan, entry.contestant, count, code),
            );
            let cells = samples.cells();
            let isolet = cells.first().and_then(|cell| cell.median);
            let all_alive = samples
                .detail("isolet", "alive", String::new(), "")
                .and_then(|cell| cell.low)
                .is_some_and(|alive| alive >= count as f64);
            rows.push(Row {
                name: "memory",
                question: format!(
                    "resident memory per idle warm function, {count} of them, {what}"
                ),
                goal: "≤ 0.85 MB".into(),
                verdict: isolet.map_or(Verdict::Unknown, |mb| Verdict::of(mb <= 0.85 && all_alive)),
                note: note(count, is_first, code.len() >= LARGE_BYTES, &samples),
                cells,
                failures: samples.failures,
            });
        }
    }
    Ok(rows)
}

fn note(count: usize, has_peers: bool, is_large: bool, samples: &Samples) -> String {
    let mut note = String::new();
    if let Some(mappings) = samples.detail("isolet", "mappingsPerFunction", String::new(), "") {
        note = format!("isolet: {} mappings per function.", mappings.text());
    }
    if let Some(alive) = samples.detail("isolet", "alive", String::new(), "") {
        note += &format!(" Alive when measured: {} of {}.", alive.text(), count + 1);
    }
    if is_large {
        note += " Its functions have the same code and share the text (0.1 MB).";
    }
    if has_peers {
        note += " Deno, Node: one process with the small hello, whatever the row.";
    }
    note.trim().to_owned()
}

fn measure(
    plan: &Plan,
    contestant: Contestant,
    count: usize,
    code: &str,
) -> anyhow::Result<(f64, Value)> {
    let serve = |count: usize| -> anyhow::Result<Server> {
        let names = names(count);
        let server = match contestant {
            Contestant::Isolet => isolet::serve_tenants(plan, &names, code)?,
            _ => workers(plan, &names, code)?,
        };
        let mut connection = Connection::open(server.port, PATIENCE)?;
        for name in &names {
            for _ in 0..CALLS {
                ask_counted(&mut connection, name)?;
            }
        }
        std::thread::sleep(IDLE);
        Ok(server)
    };
    if matches!(contestant, Contestant::Deno | Contestant::Node) {
        let serving = contestant.serve(plan, Workload::Hello)?;
        std::thread::sleep(IDLE);
        let memory = serving.server.memory()?;
        return Ok((memory.resident_mb, json!({"mappings": memory.mappings})));
    }
    let one = serve(1)?.memory()?;
    let server = serve(count + 1)?;
    let many = server.memory()?;
    let alive = alive(server.port, &names(count + 1))?;
    let more = alive as f64 - 1.0;
    Ok((
        (many.resident_mb - one.resident_mb) / more,
        json!({
            "oneMb": one.resident_mb, "manyMb": many.resident_mb, "functions": count + 1, "alive": alive,
            "mappingsPerFunction": (many.mappings as f64 - one.mappings as f64) / more,
        }),
    ))
}

fn workers(plan: &Plan, names: &[String], code: &str) -> anyhow::Result<Server> {
    fs::write(workerd::folder(plan)?.join("measured.js"), code)?;
    let workers: Vec<(String, &str)> = names
        .iter()
        .map(|name| (name.clone(), "measured"))
        .collect();
    workerd_tenants(plan, &workers, "hello t0 1")
}

/// About 100 KB of small functions, of which a request runs a few, as bundlers leave them.
fn large_bundle() -> String {
    let mut code = String::from("let calls = 0;\nconst table = {};\n");
    for index in 0..420 {
        code += &format!(
            "table.step{index} = function step{index}(input) {{\n  const parts = [];\n  for (let i = 0; i < input.length; i++) {{\n    \
             if (input.charCodeAt(i) % {} === 0) parts.push({{ at: i, text: \"part {index}\" }});\n  }}\n  \
             return parts.map((part) => part.text + part.at).join(\"-\");\n}};\n",
            index % 7 + 2
        );
    }
    code + "export default {\n  fetch(request, env) {\n    table.step1(env.NAME);\n    table.step7(env.NAME);\n    \
            return new Response(`hello ${env.NAME} ${++calls}`);\n  },\n};\n"
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_bundle_has_100_kb() {
        let bytes = super::large_bundle().len();
        assert!(
            (super::LARGE_BYTES..110_000).contains(&bytes),
            "{bytes} bytes"
        );
    }
}
