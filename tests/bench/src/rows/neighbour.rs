//! What do 50 quiet tenants notice of an endless loop beside them on the core?
//!
//! Each quiet tenant has a connection and sends 10 requests a second, whatever became of the one before: a late answer
//! counts from when its request was due.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{ask, ask_each, milliseconds, names, workerd_tenants};
use crate::contestants::{Contestant, Entry, START_PATIENCE, isolet};
use crate::http::Connection;
use crate::plan::Plan;
use crate::process::Server;
use crate::row::{Row, Verdict};
use crate::samples::Samples;
use crate::stats::percentile;

const QUIET: usize = 50;
const INTERVAL: Duration = Duration::from_millis(100);
/// After so long a request counts as not answered.
const GIVE_UP: Duration = Duration::from_secs(2);
/// How long the loop runs before the quiet ones are measured.
const HEAD_START: Duration = Duration::from_millis(500);

pub(crate) fn run(plan: &Plan, entries: &[Entry]) -> anyhow::Result<Vec<Row>> {
    let samples = Samples::gather(
        plan.rounds,
        entries,
        "ms",
        |entry| matches!(entry.contestant, Contestant::Isolet | Contestant::Workerd),
        |entry| measure(plan, entry.contestant),
    );
    let mut cells = samples.cells();
    let beside = cells.first().and_then(|cell| cell.median);
    let alone = samples
        .detail("isolet", "aloneMs", String::new(), "ms")
        .and_then(|cell| cell.median);
    for name in [Contestant::Isolet, Contestant::Workerd].map(Contestant::name) {
        cells.extend(samples.detail(name, "aloneMs", format!("{name}, without the loop"), "ms"));
        cells.extend(samples.detail(
            name,
            "unansweredPercent",
            format!("{name}, not answered within 2 s"),
            "%",
        ));
    }
    Ok(vec![Row {
        name: "neighbour",
        question: "p99 of 50 quiet tenants beside one endless loop per core".into(),
        goal: "≤ 2 × unloaded and ≤ 2 ms".into(),
        verdict: match (beside, alone) {
            (Some(beside), Some(alone)) => Verdict::of(beside <= 2.0 * alone && beside <= 2.0),
            _ => Verdict::Unknown,
        },
        note: "The loop is called again as soon as it is stopped: isolet ends it at the CPU limit (50 ms), workerd does not \
               end it; 2,000 ms stand for no answer."
            .into(),
        cells,
        failures: samples.failures,
    }])
}

struct Quiet {
    p99_ms: f64,
    unanswered: f64,
}

fn measure(plan: &Plan, contestant: Contestant) -> anyhow::Result<(f64, Value)> {
    let server = serve(plan, contestant)?;
    let names = names(QUIET);
    ask_each(server.port, &names)?;
    let length = Duration::from_secs(plan.seconds * 2);
    let alone = quiet(server.port, &names, length)?;
    let stop = AtomicBool::new(false);
    let beside = thread::scope(|scope| {
        scope.spawn(|| hog(server.port, &stop));
        thread::sleep(HEAD_START);
        let beside = quiet(server.port, &names, length);
        stop.store(true, Ordering::Relaxed);
        beside
    })?;
    Ok((
        beside.p99_ms,
        json!({
            "aloneMs": alone.p99_ms,
            "unansweredPercent": beside.unanswered * 100.0,
            "unansweredPercentAlone": alone.unanswered * 100.0,
        }),
    ))
}

fn serve(plan: &Plan, contestant: Contestant) -> anyhow::Result<Server> {
    let names = names(QUIET);
    if contestant == Contestant::Isolet {
        let mut functions: Vec<isolet::Deployed<'_>> = names
            .into_iter()
            .map(|name| isolet::Deployed {
                name,
                code: "tenant",
                version: 1,
            })
            .collect();
        functions.push(isolet::Deployed {
            name: "hog".into(),
            code: "hog",
            version: 1,
        });
        let codes = [
            ("tenant", isolet::app("tenant")?),
            ("hog", isolet::app("hog")?),
        ];
        isolet::write(plan, &codes, &functions)?;
        return isolet::start(plan, START_PATIENCE, 0);
    }
    let mut workers: Vec<(String, &str)> = names.into_iter().map(|name| (name, "tenant")).collect();
    workers.push(("hog".into(), "hog"));
    workerd_tenants(plan, &workers, "hello t0")
}

/// Calls the endless loop until told to stop; where it never ends, each call is given up.
fn hog(port: u16, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut connection) = Connection::open(port, GIVE_UP) else {
            continue;
        };
        while !stop.load(Ordering::Relaxed) && connection.get(&isolet::path("hog")).is_ok() {}
    }
}

fn quiet(port: u16, names: &[String], length: Duration) -> anyhow::Result<Quiet> {
    let results: Vec<anyhow::Result<Vec<Option<f64>>>> = thread::scope(|scope| {
        let threads: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(index, name)| {
                let offset = INTERVAL * index as u32 / names.len() as u32;
                scope.spawn(move || one_quiet(port, name, offset, length))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("a client panicked")))
            })
            .collect()
    });
    let mut latencies = Vec::new();
    for result in results {
        latencies.extend(result?);
    }
    let unanswered = latencies.iter().filter(|latency| latency.is_none()).count() as f64
        / latencies.len() as f64;
    let latencies: Vec<f64> = latencies
        .into_iter()
        .map(|latency| latency.unwrap_or_else(|| milliseconds(GIVE_UP)))
        .collect();
    Ok(Quiet {
        p99_ms: percentile(&latencies, 99.0),
        unanswered,
    })
}

/// Latencies in milliseconds; none where there was no answer. A wrong answer is an error.
fn one_quiet(
    port: u16,
    name: &str,
    offset: Duration,
    length: Duration,
) -> anyhow::Result<Vec<Option<f64>>> {
    let mut connection = Connection::open(port, GIVE_UP)?;
    let started = Instant::now();
    let mut due = started + offset;
    let mut latencies = Vec::new();
    while due < started + length {
        let now = Instant::now();
        let mut begun = due;
        if due > now {
            thread::sleep(due - now);
            // What the timer was late by is not the server's. The next is due when it always was: clients that were woken
            // late together would else ask together for good.
            begun = Instant::now();
        }
        match ask(&mut connection, name) {
            Ok(_) => latencies.push(Some(milliseconds(begun.elapsed()))),
            Err(error) if error.downcast_ref::<std::io::Error>().is_some() => {
                latencies.push(None);
                connection = Connection::open(port, GIVE_UP)?;
            }
            Err(error) => return Err(error),
        }
        due += INTERVAL;
    }
    Ok(latencies)
}
