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

use crate::contestants::Entry;
use crate::contestants::isolet::path;
use crate::http::Connection;
use crate::plan::Plan;
use crate::row::Row;

/// Time that one answer may take where it is only to be right.
const PATIENCE: Duration = Duration::from_secs(10);

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

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
