//! Node: one process, `node:http`.

use crate::contestants::packages::version_of;
use crate::contestants::{Serving, Workload, start};
use crate::plan::Plan;

pub(crate) fn version() -> anyhow::Result<String> {
    version_of("node", "--version")
}

pub(crate) fn serve(plan: &Plan, workload: Workload) -> anyhow::Result<Serving> {
    let program = ["node", "tests/bench/apps/node.mjs"];
    start(plan, "node.log", &program, workload)
}
