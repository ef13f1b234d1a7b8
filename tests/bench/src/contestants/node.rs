//! Node: one process, `node:http`.

use crate::contestants::packages::version_of;
use crate::contestants::{Serving, Workload};
use crate::plan::Plan;
use crate::process::{Server, free_port};

pub(crate) fn version() -> anyhow::Result<String> {
    version_of("node", "--version")
}

pub(crate) fn serve(plan: &Plan, workload: Workload) -> anyhow::Result<Serving> {
    let port = free_port()?;
    let command = [
        "node".into(),
        "tests/bench/apps/node.mjs".into(),
        port.to_string(),
        workload.name().into(),
    ];
    Ok(Serving {
        server: Server::start(
            Some(plan.server_core),
            &command,
            port,
            &plan.work.join("node.log"),
        )?,
        path: "/".into(),
    })
}
