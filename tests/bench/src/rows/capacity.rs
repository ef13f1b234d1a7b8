//! How many functions are deployed, and alive, in one worker of 4 GiB?

use std::time::Instant;

use serde_json::json;

use super::{PATIENCE, ask, ask_each, names};
use crate::contestants::{Entry, isolet};
use crate::http::Connection;
use crate::plan::Plan;
use crate::row::{Cell, Row, Verdict};

const BUDGET_MB: f64 = 4.0 * 1024.0 * 1.048_576;
/// How often memory is looked at.
const STEP: usize = 50;

pub(crate) fn run(plan: &Plan, _entries: &[Entry]) -> anyhow::Result<Vec<Row>> {
    let (deploy, goal_alive) = if plan.quick {
        (1_000, 400)
    } else {
        (10_000, 4_000)
    };
    let names = names(deploy);
    let started = Instant::now();
    let server = isolet::serve_tenants(plan, &names, &isolet::app("tenant")?)?;
    let took = started.elapsed().as_secs_f64();
    let deployed = server.memory()?;
    // All over the list: each must be there and answer for itself.
    ask_each(server.port, names.iter().step_by(100))?;
    eprintln!(
        "  {deploy} deployed in {took:.1} s, {:.0} MB",
        deployed.resident_mb
    );
    let deployed_row = Row {
        name: "deployed",
        question: "functions deployed in one worker".into(),
        goal: "10,000".into(),
        cells: vec![
            Cell::of("isolet", "functions", vec![deploy as f64]).with_details(vec![json!({
                "seconds": took, "residentMb": deployed.resident_mb, "mappings": deployed.mappings,
            })]),
        ],
        verdict: if plan.quick {
            Verdict::Unknown
        } else {
            Verdict::of(deploy >= 10_000)
        },
        note: format!(
            "Deployed and tried (each PUT makes an instance and drops it) in {took:.1} s on one core; {:.0} MB resident \
             then. Every hundredth was asked and gave its own name.",
            deployed.resident_mb
        ),
        failures: Vec::new(),
    };

    let mut connection = Connection::open(server.port, PATIENCE)?;
    let (mut alive, mut end) = (0, String::from("all were called"));
    for (index, name) in names.iter().enumerate().take(goal_alive + goal_alive / 10) {
        if let Err(error) = ask(&mut connection, name) {
            end = format!("then: {error:#}");
            break;
        }
        if index % STEP == STEP - 1 {
            if !server.is_same() {
                end = "then the worker ended".into();
                break;
            }
            if server.memory()?.resident_mb > BUDGET_MB {
                end = "then it had more than 4 GiB".into();
                break;
            }
        }
        alive = index + 1;
    }
    let memory = server.memory()?;
    eprintln!("  {alive} alive, {end}");
    let alive_row = Row {
        name: "alive",
        question: "functions alive in one worker of 4 GiB".into(),
        goal: "4,000".into(),
        cells: vec![
            Cell::of("isolet", "functions", vec![alive as f64]).with_details(vec![json!({
                "residentMb": memory.resident_mb, "mappings": memory.mappings,
            })]),
        ],
        verdict: if plan.quick {
            Verdict::Unknown
        } else {
            Verdict::of(alive >= 4_000)
        },
        note: format!(
            "Called one after the other, at most {}: {end}; {:.0} MB and {} mappings at the end.",
            goal_alive + goal_alive / 10,
            memory.resident_mb,
            memory.mappings
        ),
        failures: Vec::new(),
    };
    Ok(vec![alive_row, deployed_row])
}
