//! Does memory stay flat while instances are started and thrown away?
//!
//! New revisions of 1,000 Functions, again and again: the worker tries each revision in an instance of its own and drops it.

use std::time::Duration;

use serde_json::json;

use super::{ask_each, names};
use crate::contestants::{Entry, isolet};
use crate::plan::Plan;
use crate::row::{Cell, Row, Verdict};

/// Functions that get a new revision at once.
const BATCH: usize = 1_000;
/// From here on memory must be flat.
const SETTLED: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(120);
/// What `isolet dev` prints for each new revision that serves.
const RELOADED: &str = "reloaded default/";

pub(crate) fn run(plan: &Plan, _entries: &[Entry]) -> anyhow::Result<Vec<Row>> {
    let batch = BATCH.min(plan.starts / 4);
    let settled = SETTLED.min(plan.starts / 2);
    let names = names(batch);
    let code = isolet::app("tenant")?;
    let mut server = isolet::serve_tenants(plan, &names, &code)?;
    let mut memory = vec![(batch, server.memory()?)];
    for version in 2..=plan.starts / batch {
        let functions: Vec<isolet::Deployed<'_>> = names
            .iter()
            .map(|name| isolet::Deployed {
                name: name.clone(),
                code: "tenant",
                version,
            })
            .collect();
        isolet::write(plan, &[("tenant", code.clone())], &functions)?;
        server.wait_for_log(PATIENCE, RELOADED, (version - 1) * batch)?;
        memory.push((version * batch, server.memory()?));
        if !server.is_same() {
            anyhow::bail!("the worker ended after {} starts", version * batch);
        }
    }
    ask_each(server.port, names.iter().step_by(10))?;
    let at = |starts: usize| {
        memory
            .iter()
            .find(|(count, _)| *count >= starts)
            .map_or(f64::NAN, |(_, memory)| memory.resident_mb)
    };
    let (first, early, late) = (at(0), at(settled), at(plan.starts / batch * batch));
    let growth = (late - early) / early * 100.0;
    let curve: Vec<_> = memory
        .iter()
        .map(|(starts, memory)| json!({"starts": starts, "residentMb": memory.resident_mb, "mappings": memory.mappings}))
        .collect();
    Ok(vec![Row {
        name: "churn",
        question: format!(
            "memory after {} starts and evictions, against that after the first {settled}",
            plan.starts
        ),
        goal: "100,000 (`--full`): within 2 %".into(),
        cells: vec![
            Cell::of("isolet, growth", "%", vec![growth]).with_details(curve),
            Cell::of(format!("isolet, after {batch}"), "MB", vec![first]),
            Cell::of(format!("isolet, after {settled}"), "MB", vec![early]),
            Cell::of("isolet, at the end", "MB", vec![late]),
        ],
        verdict: if plan.quick {
            Verdict::Unknown
        } else {
            Verdict::of(growth <= 2.0)
        },
        note: "Eviction is not built yet: instances are started and thrown away by new revisions."
            .into(),
        failures: Vec::new(),
    }])
}
