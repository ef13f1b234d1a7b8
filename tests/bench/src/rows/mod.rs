//! The rows of the table, a module each.

mod capacity;
mod churn;
mod cold_start;
mod memory;
mod neighbour;
mod tenants;
mod throughput;
mod zipf;

use std::time::Duration;

use crate::contestants::isolet::path;
use crate::contestants::{Entry, START_PATIENCE, isolet, workerd};
use crate::http::Connection;
use crate::plan::Plan;
use crate::process::Server;
use crate::row::Row;

/// Time that one answer may take where it is only to be right.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between the last request and the measurement, for every contestant: long enough for what they do when nobody asks (Isolet's
/// instances collect their garbage after 5 s).
const IDLE: Duration = Duration::from_secs(10);

type Measure = fn(&Plan, &[Entry]) -> anyhow::Result<Vec<Row>>;

/// Name and measurement of each group of rows, in the order of the table.
pub(crate) const ROWS: &[(&str, Measure)] = &[
    ("cold-start", cold_start::run),
    ("memory", memory::run),
    ("capacity", capacity::run),
    ("throughput", throughput::run),
    ("tenants", tenants::run),
    ("zipf", zipf::run),
    ("neighbour", neighbour::run),
    ("churn", churn::run),
];

/// Names of `count` tenants.
fn names(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("t{index}")).collect()
}

/// Asks each of these tenants once; each must answer with its own name.
fn ask_each<'a>(port: u16, names: impl IntoIterator<Item = &'a String>) -> anyhow::Result<()> {
    let mut connection = Connection::open(port, PATIENCE)?;
    for name in names {
        ask(&mut connection, name)?;
    }
    Ok(())
}

/// Asks a tenant; it must answer with its own name.
fn ask(connection: &mut Connection, name: &str) -> anyhow::Result<Duration> {
    let answer = connection.get(&path(name))?;
    answer.expect(format!("hello {name}").as_bytes())?;
    Ok(answer.took)
}

/// Asks a tenant of the module `counted`; the answer says how often its instance was called: 1 is a start.
fn ask_counted(connection: &mut Connection, name: &str) -> anyhow::Result<(u64, Duration)> {
    let answer = connection.get(&path(name))?;
    let text = String::from_utf8_lossy(&answer.body);
    let calls = text
        .strip_prefix(&format!("hello {name} "))
        .filter(|_| answer.status == 200)
        .and_then(|calls| calls.parse().ok());
    match calls {
        Some(calls) => Ok((calls, answer.took)),
        None => anyhow::bail!("wrong answer: status {}, {text:?}", answer.status),
    }
}

/// How many of these tenants, each called before, still have that instance: asked from the one called last to the one
/// called first, until many in a row are gone.
fn alive(port: u16, names: &[String]) -> anyhow::Result<usize> {
    let mut connection = Connection::open(port, PATIENCE)?;
    let (mut alive, mut gone) = (0, 0);
    for name in names.iter().rev() {
        match ask_counted(&mut connection, name) {
            Ok((calls, _)) if calls > 1 => (alive, gone) = (alive + 1, 0),
            _ => gone += 1,
        }
        if gone > 200 {
            break;
        }
    }
    Ok(alive)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// workerd with these tenants, once the first one gives this answer.
fn workerd_tenants(
    plan: &Plan,
    workers: &[(String, &str)],
    answer: &str,
) -> anyhow::Result<Server> {
    let mut server = workerd::serve_tenants(plan, workers)?;
    let path = isolet::path("t0");
    server.wait_for(
        START_PATIENCE,
        |connection| connection.get(&path),
        answer.as_bytes(),
    )?;
    Ok(server)
}
