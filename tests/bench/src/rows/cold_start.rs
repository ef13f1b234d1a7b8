//! How much longer than a warm request does the first request to a function take, over the same kept connection?
//!
//! Pooled: a pause before each, in which a pool can be filled again. Pool empty: one right after the other.

use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::{Value, json};

use super::{PATIENCE, ask, milliseconds, names};
use crate::contestants::{Contestant, Entry, START_PATIENCE, Workload, isolet, workerd};
use crate::http::Connection;
use crate::plan::Plan;
use crate::row::{Cell, Row, Verdict};
use crate::samples::Samples;
use crate::stats::{median, percentile};

const PAUSE: Duration = Duration::from_millis(20);
/// Requests that make connection, server and client warm.
const WARM_UP: usize = 500;
/// Workers whose common start is compared with that of one.
const WORKERD_WORKERS: usize = 1_000;

pub(crate) fn run(plan: &Plan, entries: &[Entry]) -> anyhow::Result<Vec<Row>> {
    let pooled = row(plan, entries, true);
    let mut empty = row(plan, entries, false);
    let peers = Samples::gather(
        plan.rounds,
        entries,
        "ms",
        |entry| !matches!(entry.contestant, Contestant::Isolet | Contestant::Hyper),
        |entry| peer(plan, entry.contestant),
    );
    empty.cells.extend(peers.cells());
    empty.failures.extend(peers.failures);
    empty.note = format!(
        "{} Deno and Node: from the start of a process to its first answer. workerd starts all workers of its \
         configuration at once: time of {} workers less that of one, divided.",
        empty.note,
        WORKERD_WORKERS + 1
    );
    Ok(vec![pooled, empty])
}

fn row(plan: &Plan, entries: &[Entry], is_pooled: bool) -> Row {
    let samples = Samples::gather(
        plan.rounds,
        entries,
        "ms",
        |entry| entry.contestant == Contestant::Isolet,
        |_| first_requests(plan, is_pooled),
    );
    let name = Contestant::Isolet.name();
    let mut cells = samples.cells();
    let p50 = cells.first().and_then(|cell| cell.median);
    let p99 = samples.detail(name, "p99Ms", "isolet, p99".into(), "ms");
    let p99_median = p99.as_ref().and_then(|cell: &Cell| cell.median);
    cells.extend(p99);
    let verdict = match (p50, p99_median) {
        (Some(p50), Some(p99)) if is_pooled => Verdict::of(p50 <= 0.25 && p99 <= 1.0),
        (Some(p50), _) if !is_pooled => Verdict::of(p50 <= 1.2),
        _ => Verdict::Unknown,
    };
    let (name, question, goal, how) = if is_pooled {
        (
            "cold-start-pooled",
            "cold start to first answer over HTTP, pooled, beyond a warm request",
            "p50 ≤ 0.25 ms, p99 ≤ 1 ms",
            "with a pause of 20 ms and a warm request before each; the pool is filled again meanwhile. The warm requests that they are \
             compared with come at the same place.",
        )
    } else {
        (
            "cold-start-empty",
            "the same with the pool empty",
            "p50 ≤ 1.2 ms",
            "one right after the other: more than the pool holds, so that most are made from the snapshot.",
        )
    };
    Row {
        name,
        question: question.into(),
        goal: goal.into(),
        cells,
        verdict,
        note: format!("{} first requests a round, {how}", plan.fresh),
        failures: samples.failures,
    }
}

fn first_requests(plan: &Plan, is_pooled: bool) -> anyhow::Result<(f64, Value)> {
    let names = names(plan.fresh + 1);
    let server = isolet::serve_tenants(plan, &names, &isolet::app("tenant")?)?;
    let mut connection = Connection::open(server.port, PATIENCE)?;
    let Some((warm, fresh)) = names.split_first() else {
        bail!("no tenants");
    };
    for _ in 0..WARM_UP {
        ask(&mut connection, warm)?;
    }
    // What is warm is asked at the same place: a pause alone makes what comes next slower, for clocks and caches.
    let mut took = |name: &String| {
        if is_pooled {
            std::thread::sleep(PAUSE);
            ask(&mut connection, warm)?;
        }
        Ok::<_, anyhow::Error>(milliseconds(ask(&mut connection, name)?))
    };
    let usual: Vec<f64> = fresh.iter().map(|_| took(warm)).collect::<Result<_, _>>()?;
    let first: Vec<f64> = fresh.iter().map(took).collect::<Result<_, _>>()?;
    let usual = median(&usual);
    let beyond: Vec<f64> = first.iter().map(|first| first - usual).collect();
    Ok((
        median(&beyond),
        json!({"p99Ms": percentile(&beyond, 99.0), "warmMs": usual, "functions": fresh.len()}),
    ))
}

fn peer(plan: &Plan, contestant: Contestant) -> anyhow::Result<(f64, Value)> {
    if contestant == Contestant::Workerd {
        let (one, many) = (
            workerd_start(plan, 1)?,
            workerd_start(plan, WORKERD_WORKERS + 1)?,
        );
        return Ok((
            (many - one) / WORKERD_WORKERS as f64,
            json!({"oneMs": one, "manyMs": many}),
        ));
    }
    let mut starts = Vec::new();
    for _ in 0..if plan.quick { 3 } else { 10 } {
        let started = Instant::now();
        contestant.serve(plan, Workload::Hello)?;
        starts.push(milliseconds(started.elapsed()));
    }
    Ok((median(&starts), json!({"starts": starts})))
}

fn workerd_start(plan: &Plan, workers: usize) -> anyhow::Result<f64> {
    let workers: Vec<(String, &str)> = names(workers)
        .into_iter()
        .map(|name| (name, "tenant"))
        .collect();
    let started = Instant::now();
    let mut server = workerd::serve_tenants(plan, &workers)?;
    let last = workers
        .last()
        .map(|(name, _)| name.clone())
        .unwrap_or_default();
    server.wait_for(
        START_PATIENCE,
        |connection| connection.get(&isolet::path(&last)),
        format!("hello {last}").as_bytes(),
    )?;
    Ok(milliseconds(started.elapsed()))
}
