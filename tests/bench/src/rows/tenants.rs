//! What is lost when a thousand tenants take turns on the core, against one tenant alone?

use std::fs;

use serde_json::{Value, json};

use super::{ask_each, names, workerd_tenants};
use crate::contestants::{Contestant, Entry, isolet};
use crate::plan::Plan;
use crate::row::{Row, Verdict};
use crate::samples::Samples;
use crate::wrk::{self, Requests};

pub(crate) fn run(plan: &Plan, entries: &[Entry]) -> anyhow::Result<Vec<Row>> {
    let tenants = if plan.quick { 200 } else { 1_000 };
    let samples = Samples::gather(
        plan.rounds,
        entries,
        "",
        |entry| matches!(entry.contestant, Contestant::Isolet | Contestant::Workerd),
        |entry| measure(plan, entry.contestant, tenants),
    );
    let mut cells = samples.cells();
    let ratio = cells.first().and_then(|cell| cell.median);
    for contestant in [Contestant::Isolet, Contestant::Workerd] {
        let name = contestant.name();
        cells.extend(samples.detail(name, "oneRps", format!("{name}, one tenant"), "req/s"));
        cells.extend(samples.detail(
            name,
            "manyRps",
            format!("{name}, {tenants} tenants"),
            "req/s",
        ));
    }
    Ok(vec![Row {
        name: "tenants",
        question: format!("throughput over {tenants} tenants in turn, against one tenant"),
        goal: "≥ 0.85".into(),
        verdict: ratio.map_or(Verdict::Unknown, |ratio| Verdict::of(ratio >= 0.85)),
        note: "The same wrk script both times. workerd: as many workers behind one that routes, in both numbers.".into(),
        cells,
        failures: samples.failures,
    }])
}

fn measure(plan: &Plan, contestant: Contestant, tenants: usize) -> anyhow::Result<(f64, Value)> {
    let names = names(tenants);
    let server = match contestant {
        Contestant::Isolet => isolet::serve_tenants(plan, &names, &isolet::app("tenant")?)?,
        _ => {
            let workers: Vec<(String, &str)> =
                names.iter().map(|name| (name.clone(), "tenant")).collect();
            workerd_tenants(plan, &workers, "hello t0")?
        }
    };
    ask_each(server.port, &names)?;
    let load = |names: &[String]| -> anyhow::Result<f64> {
        let file = plan.work.join("paths.txt");
        let paths: Vec<String> = names.iter().map(|name| isolet::path(name)).collect();
        fs::write(&file, paths.join("\n") + "\n")?;
        let file = file.display().to_string();
        let requests = Requests::Rotate(&file);
        wrk::run(plan, 1, server.port, "/", &requests)?.all_right()?;
        Ok(wrk::run(plan, plan.seconds, server.port, "/", &requests)?
            .all_right()?
            .per_second())
    };
    let (one, many) = (load(&names[..1])?, load(&names)?);
    Ok((
        many / one,
        json!({"oneRps": one, "manyRps": many, "tenants": names.len()}),
    ))
}
