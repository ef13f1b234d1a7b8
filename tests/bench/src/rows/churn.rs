//! Does memory stay flat while instances start and are evicted?
//!
//! Twice as many tenants as may be alive are called in turn, so that each call starts an instance; the answer says so.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{IDLE, PATIENCE, ask_counted, names};
use crate::contestants::{Entry, isolet};
use crate::http::Connection;
use crate::plan::Plan;
use crate::process::Memory;
use crate::row::{Cell, Row, Verdict};
use crate::stats::median;

/// Instances that may be alive. Memory would hold more: were it what ends them, they would fill it, however much they leak.
const ALIVE: usize = 2_000;
/// The longest unused goes first, so that it is gone when it is called again.
const TENANTS: usize = 2 * ALIVE;
/// Looks at memory, each after as many starts: from the first on memory must be flat. Compared are the medians of the first and of the
/// last of them. Each waits until the garbage of those that are alive is collected: how many the worker has come to makes 15 %.
const LOOKS: usize = 10;
const COMPARED: usize = 3;
/// After a start was refused for want of room.
const PAUSE: Duration = Duration::from_millis(200);

pub(crate) fn run(plan: &Plan, _entries: &[Entry]) -> anyhow::Result<Vec<Row>> {
    let (looks, compared) = if plan.quick {
        (2, 1)
    } else {
        (LOOKS, COMPARED)
    };
    let step = plan.starts / looks;
    let names = names(TENANTS);
    let server = isolet::serve_with_at_most(ALIVE, plan, &names, &isolet::app("counted")?)?;
    let mut connection = Connection::open(server.port, PATIENCE)?;
    // At least 50 starts a second, or there is something wrong.
    let mut deadline = Instant::now() + Duration::from_millis(20) * plan.starts as u32;
    let (mut starts, mut warm, mut refused) = (0, 0, 0);
    let mut curve: Vec<(usize, Memory)> = Vec::new();
    for name in names.iter().cycle() {
        match ask_counted(&mut connection, name) {
            Ok((1, _)) => starts += 1,
            Ok(_) => {
                warm += 1;
                continue;
            }
            Err(error) if !server.is_same() || Instant::now() > deadline => return Err(error),
            Err(_) => {
                refused += 1;
                std::thread::sleep(PAUSE);
                continue;
            }
        }
        if starts % step == 0 {
            std::thread::sleep(IDLE);
            deadline += IDLE;
            curve.push((starts, server.memory()?));
        }
        if starts >= plan.starts {
            break;
        }
    }
    let resident: Vec<f64> = curve.iter().map(|(_, memory)| memory.resident_mb).collect();
    let early = median(&resident[..compared]);
    let late = median(&resident[looks - compared..]);
    let growth = (late - early) / early * 100.0;
    let details: Vec<_> = curve
        .iter()
        .map(|(starts, memory)| json!({"starts": starts, "residentMb": memory.resident_mb, "mappings": memory.mappings}))
        .collect();
    Ok(vec![Row {
        name: "churn",
        question: format!(
            "memory over {} starts and evictions, once the first {step} are made",
            plan.starts
        ),
        goal: "within 2 %".into(),
        cells: vec![
            Cell::of("isolet, growth", "%", vec![growth]).with_details(details),
            Cell::of(
                format!("isolet, first looks ({compared})"),
                "MB",
                vec![early],
            ),
            Cell::of(format!("isolet, last looks ({compared})"), "MB", vec![late]),
        ],
        verdict: if plan.quick {
            Verdict::Unknown
        } else {
            Verdict::of(growth <= 2.0)
        },
        note: format!(
            "{TENANTS} tenants called in turn by one client, of which {ALIVE} may be alive; medians of the looks, one each {step} starts once the garbage of those that are alive is collected; {warm} calls found an instance alive, {refused} starts were refused \
             for want of room and left out."
        ),
        failures: Vec::new(),
    }])
}
