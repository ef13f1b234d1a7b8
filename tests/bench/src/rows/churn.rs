//! Does memory stay flat while instances start and are evicted?
//!
//! Twice as many tenants as may be alive are called in turn, so that each call starts an instance; the answer says so.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{PATIENCE, ask_counted, names};
use crate::contestants::{Entry, isolet};
use crate::http::Connection;
use crate::plan::Plan;
use crate::process::{Memory, Server};
use crate::row::{Cell, Row, Verdict};
use crate::stats::median;

/// Instances that may be alive. Memory would hold more: were it what ends them, they would fill it, however much they leak.
const ALIVE: usize = 2_000;
/// The longest unused goes first, so that it is gone when it is called again.
const TENANTS: usize = 2 * ALIVE;
/// Looks at memory, one after each tenth of the starts: from the first on memory must be flat. Compared are the medians of the
/// first three and of the last three.
const LOOKS: usize = 10;
const COMPARED: usize = 3;
/// A look waits until the worker has collected the garbage of those that are alive: until then, how many it has come to makes 15 %.
/// That begins after five seconds without a request.
const QUIET: Duration = Duration::from_secs(8);
/// And until memory is the same within a thousandth after so long.
const SETTLE: Duration = Duration::from_secs(2);
const LONGEST_LOOK: Duration = Duration::from_secs(60);
/// After a start was refused for want of room.
const PAUSE: Duration = Duration::from_millis(200);

pub(crate) fn run(plan: &Plan, _entries: &[Entry]) -> anyhow::Result<Vec<Row>> {
    let step = (plan.starts / LOOKS).max(1);
    let names = names(TENANTS);
    let server = isolet::serve_with_at_most(ALIVE, plan, &names, &isolet::app("counted")?)?;
    let mut connection = Connection::open(server.port, PATIENCE)?;
    // At least 50 starts a second, or there is something wrong.
    let deadline = Instant::now() + Duration::from_millis(20) * plan.starts as u32;
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
            curve.push((starts, quiet(&server)?));
        }
        if starts >= plan.starts {
            break;
        }
    }
    let resident: Vec<f64> = curve.iter().map(|(_, memory)| memory.resident_mb).collect();
    let early = median(&resident[..COMPARED.min(resident.len())]);
    let late = median(&resident[resident.len().saturating_sub(COMPARED)..]);
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
                format!("isolet, the first {COMPARED} looks"),
                "MB",
                vec![early],
            ),
            Cell::of(format!("isolet, the last {COMPARED}"), "MB", vec![late]),
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

/// Memory of the worker once it has done what it does in a pause.
fn quiet(server: &Server) -> anyhow::Result<Memory> {
    let deadline = Instant::now() + LONGEST_LOOK;
    std::thread::sleep(QUIET);
    let mut before = server.memory()?;
    loop {
        std::thread::sleep(SETTLE);
        let now = server.memory()?;
        let change = (now.resident_mb - before.resident_mb).abs();
        if change <= before.resident_mb / 1000.0 || Instant::now() > deadline {
            return Ok(now);
        }
        before = now;
    }
}
