//! What do 10,000 tenants get whose popularity falls as 1/rank, where 2,000 instances may be alive?
//!
//! First wrk for throughput, from cold; then one client that reads in each answer whether an instance was started for it.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{PATIENCE, ask_counted, milliseconds, names};
use crate::contestants::{Entry, isolet};
use crate::http::Connection;
use crate::plan::Plan;
use crate::row::{Cell, Row, Verdict};
use crate::stats::{median, percentile};
use crate::wrk::{self, Requests};

/// Instances that may be alive.
const ALIVE: usize = 2_000;
/// Requests before they repeat.
const DRAWN: usize = 200_000;

pub(crate) fn run(plan: &Plan, _entries: &[Entry]) -> anyhow::Result<Vec<Row>> {
    let names = names(if plan.quick { 1_000 } else { 10_000 });
    let server = isolet::serve_with_at_most(ALIVE, plan, &names, &isolet::app("counted")?)?;
    let drawn: Vec<&String> = draws(names.len(), DRAWN)
        .into_iter()
        .map(|rank| &names[rank])
        .collect();
    let paths: Vec<String> = drawn.iter().map(|name| isolet::path(name)).collect();
    let file = plan.work.join("paths.txt");
    fs::write(&file, paths.join("\n") + "\n")?;
    let requests = Requests::Rotate(&file.display().to_string());
    let load = wrk::run(plan, plan.seconds * 5, server.port, "/", &requests)?;
    let is_same = server.is_same();
    let memory = server.memory().ok();
    let end = match memory {
        Some(memory) if is_same => format!(
            "after wrk the worker had {:.0} MB and {} mappings",
            memory.resident_mb, memory.mappings
        ),
        _ => "the worker ended meanwhile and its agent started another".into(),
    };
    let hits = if is_same {
        hits(server.port, &drawn, plan)?
    } else {
        json!({})
    };
    let number = |key: &str| hits[key].as_f64().into_iter().collect::<Vec<_>>();
    Ok(vec![Row {
        name: "zipf",
        question: format!(
            "Zipf (exponent 1) over {} tenants with a budget for {ALIVE} alive",
            names.len()
        ),
        goal: "throughput, hit rate, p99".into(),
        cells: vec![
            Cell::of("isolet", "req/s", vec![load.per_second()]).with_details(vec![
                json!({"wrk": load, "workerKept": is_same, "oneClient": hits}),
            ]),
            Cell::of("isolet, p99", "ms", vec![load.p99_us as f64 / 1e3]),
            Cell::of(
                "isolet, without a right answer",
                "%",
                vec![load.failures() as f64 / load.requests.max(1) as f64 * 100.0],
            ),
            Cell::of(
                "isolet, hit rate of one client after that",
                "%",
                number("hitPercent"),
            ),
            Cell::of("isolet, its p99", "ms", number("p99Ms")),
        ],
        verdict: Verdict::Informs,
        note: format!(
            "wrk begins with no instance alive; {end}. The one client: {} requests, of which {} were refused; a hit took {} ms, a \
             start {} ms (p50).",
            hits["requests"], hits["refused"], hits["hitMs"], hits["startMs"]
        ),
        failures: Vec::new(),
    }])
}

fn hits(port: u16, drawn: &[&String], plan: &Plan) -> anyhow::Result<Value> {
    let mut connection = Connection::open(port, PATIENCE)?;
    let deadline = Instant::now() + Duration::from_secs(plan.seconds * 3);
    let (mut hits, mut starts, mut refused) = (Vec::new(), Vec::new(), 0);
    // From the end: wrk was there last or not at all.
    for name in drawn.iter().rev().take_while(|_| Instant::now() < deadline) {
        match ask_counted(&mut connection, name) {
            Ok((1, took)) => starts.push(milliseconds(took)),
            Ok((_, took)) => hits.push(milliseconds(took)),
            Err(error) if error.downcast_ref::<std::io::Error>().is_some() => return Err(error),
            Err(_) => refused += 1,
        }
    }
    let all: Vec<f64> = hits.iter().chain(&starts).copied().collect();
    let round = |value: f64| (value * 1e3).round() / 1e3;
    Ok(json!({
        "requests": all.len() + refused, "refused": refused,
        "hitPercent": hits.len() as f64 / all.len() as f64 * 100.0,
        "p99Ms": percentile(&all, 99.0),
        "hitMs": round(median(&hits)), "startMs": round(median(&starts)),
    }))
}

/// Ranks drawn with probability proportional to 1/(rank + 1); the same each time.
fn draws(tenants: usize, count: usize) -> Vec<usize> {
    let mut sums = Vec::with_capacity(tenants);
    let mut sum = 0.0;
    for rank in 0..tenants {
        sum += 1.0 / (rank + 1) as f64;
        sums.push(sum);
    }
    // xorshift64: no dependency, always the same sequence.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let drawn = (state >> 11) as f64 / (1_u64 << 53) as f64 * sum;
            sums.partition_point(|&sum| sum < drawn).min(tenants - 1)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn draws_fall_as_one_over_rank() {
        let draws = super::draws(1_000, 100_000);
        let count = |rank| draws.iter().filter(|&&drawn| drawn == rank).count() as f64;
        // The sum of 1/1 … 1/1000 is 7.485.
        assert!((count(0) / 100_000.0 - 1.0 / 7.485).abs() < 0.01);
        assert!((count(0) / count(9) - 10.0).abs() < 1.5);
    }
}
