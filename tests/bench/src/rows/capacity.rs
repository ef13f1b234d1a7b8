//! How many functions are deployed, and alive, in one worker of 4 GiB?

use std::time::{Duration, Instant};

use serde_json::json;

use super::{PATIENCE, alive, ask_counted, names};
use crate::contestants::{Entry, isolet};
use crate::http::Connection;
use crate::plan::Plan;
use crate::process::{Memory, Server};
use crate::row::{Cell, Row, Verdict};

const BUDGET_MB: f64 = 4.0 * 1024.0 * 1.048_576;
/// How often memory is looked at.
const STEP: usize = 50;
/// Longer than the worker's own pauses between looking at its memory.
const SETTLE: Duration = Duration::from_secs(2);

pub(crate) fn run(plan: &Plan, _entries: &[Entry]) -> anyhow::Result<Vec<Row>> {
    let (deploy, call) = if plan.quick {
        (1_000, 400)
    } else {
        (10_000, 4_200)
    };
    let names = names(deploy);
    let started = Instant::now();
    let server = isolet::serve_tenants(plan, &names, &isolet::app("counted")?)?;
    let seconds = started.elapsed().as_secs_f64();
    let memory = server.memory()?;
    let mut connection = Connection::open(server.port, PATIENCE)?;
    // All over the list: each must be there and answer for itself.
    for name in names.iter().skip(call).step_by(100) {
        ask_counted(&mut connection, name)?;
    }
    eprintln!(
        "  {deploy} deployed in {seconds:.1} s, {:.0} MB",
        memory.resident_mb
    );
    let deployed = Row {
        name: "deployed",
        question: "functions deployed in one worker".into(),
        goal: "10,000".into(),
        cells: vec![
            Cell::of("isolet", "functions", vec![deploy as f64]).with_details(vec![json!({
                "seconds": seconds, "residentMb": memory.resident_mb, "mappings": memory.mappings,
            })]),
        ],
        verdict: judged(plan, deploy >= 10_000),
        note: format!(
            "Deployed and tried (each PUT makes an instance and drops it) in {seconds:.1} s on one core; {:.0} MB \
             resident then. Every hundredth was asked and gave its own name.",
            memory.resident_mb
        ),
        failures: Vec::new(),
    };
    Ok(vec![living(plan, &server, &names[..call])?, deployed])
}

fn living(plan: &Plan, server: &Server, names: &[String]) -> anyhow::Result<Row> {
    let mut connection = Connection::open(server.port, PATIENCE)?;
    let (mut called, mut end) = (0, String::from("all answered"));
    let mut largest = server.memory()?;
    for (index, name) in names.iter().enumerate() {
        if let Err(error) = ask_counted(&mut connection, name) {
            end = format!("the next one failed: {error:#}");
            break;
        }
        called = index + 1;
        if called % STEP == 0 {
            if !server.is_same() {
                end = "then the worker ended".into();
                break;
            }
            largest = larger(largest, server.memory()?);
            if largest.resident_mb > BUDGET_MB {
                end = "then it had more than 4 GiB".into();
                break;
            }
        }
    }
    std::thread::sleep(SETTLE);
    let memory = server.memory()?;
    let alive = alive(server.port, &names[..called])?;
    eprintln!("  {called} called, {end}; {alive} alive");
    Ok(Row {
        name: "alive",
        question: "functions alive in one worker of 4 GiB".into(),
        goal: "4,000".into(),
        cells: vec![
            Cell::of("isolet", "functions", vec![alive as f64]).with_details(vec![json!({
                "called": called, "residentMb": memory.resident_mb, "mappings": memory.mappings,
                "largestMb": largest.resident_mb, "mostMappings": largest.mappings,
            })]),
        ],
        verdict: judged(plan, alive >= 4_000),
        note: format!(
            "{called} of {} called one after the other: {end}. Two seconds later {alive} were alive, with {:.0} MB and {} \
             mappings; the most was {:.0} MB and {} mappings.",
            names.len(),
            memory.resident_mb,
            memory.mappings,
            largest.resident_mb,
            largest.mappings
        ),
        failures: Vec::new(),
    })
}

fn larger(one: Memory, other: Memory) -> Memory {
    Memory {
        resident_mb: one.resident_mb.max(other.resident_mb),
        mappings: one.mappings.max(other.mappings),
    }
}

fn judged(plan: &Plan, holds: bool) -> Verdict {
    // A short run does not reach the goal's numbers.
    if plan.quick {
        Verdict::Unknown
    } else {
        Verdict::of(holds)
    }
}
