//! What do 10,000 tenants get whose popularity falls as 1/rank, with memory for 2,000 instances?

use std::fs;

use serde_json::json;

use super::names;
use crate::contestants::{Entry, isolet};
use crate::plan::Plan;
use crate::row::{Cell, Row, Verdict};
use crate::wrk::{self, Requests};

/// Requests before they repeat.
const DRAWN: usize = 200_000;

pub(crate) fn run(plan: &Plan, _entries: &[Entry]) -> anyhow::Result<Vec<Row>> {
    let names = names(if plan.quick { 1_000 } else { 10_000 });
    let server = isolet::serve_tenants(plan, &names, &isolet::app("tenant")?)?;
    let draws = draws(names.len(), DRAWN);
    let mut distinct = draws.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let paths: Vec<String> = draws
        .iter()
        .map(|&rank| isolet::path(&names[rank]))
        .collect();
    let file = plan.work.join("paths.txt");
    fs::write(&file, paths.join("\n") + "\n")?;
    let load = wrk::run(
        plan,
        plan.seconds * 5,
        server.port,
        "/",
        &Requests::Rotate(&file.display().to_string()),
    )?;
    let is_same = server.is_same();
    let memory = server.memory().ok();
    let end = match memory {
        Some(memory) if is_same => format!(
            "at the end {:.0} MB resident and {} mappings",
            memory.resident_mb, memory.mappings
        ),
        _ => "the worker ended meanwhile and its agent started another".into(),
    };
    Ok(vec![Row {
        name: "zipf",
        question: format!(
            "Zipf (exponent 1) over {} tenants with a budget for 2,000 alive",
            names.len()
        ),
        goal: "throughput, hit rate, p99".into(),
        cells: vec![
            Cell::of("isolet", "req/s", vec![load.per_second()]).with_details(vec![
                json!({"wrk": load, "workerKept": is_same, "distinct": distinct.len(), "memoryMb": memory.map(|it| it.resident_mb)}),
            ]),
            Cell::of("isolet, p99", "ms", vec![load.p99_us as f64 / 1e3]),
            Cell::of("isolet, requests without a right status", "", vec![load.failures() as f64]),
        ],
        verdict: Verdict::Unknown,
        note: format!(
            "Not built yet: there is no budget and no eviction, every function that was called stays alive ({} distinct ones \
             were drawn), so there is no hit rate. Measured from cold; {end}.",
            distinct.len()
        ),
        failures: Vec::new(),
    }])
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
