//! Deno: one process, `Deno.serve`.

use crate::contestants::packages::{DENO, program, version_of};
use crate::contestants::{Serving, Workload, start};
use crate::plan::Plan;

fn deno(plan: &Plan) -> anyhow::Result<String> {
    let platform = match std::env::consts::ARCH {
        "aarch64" => "@deno/linux-arm64-glibc/deno",
        _ => "@deno/linux-x64-glibc/deno",
    };
    Ok(program(plan, DENO, platform)?.display().to_string())
}

pub(crate) fn version(plan: &Plan) -> anyhow::Result<String> {
    version_of(&deno(plan)?, "--version")
}

pub(crate) fn serve(plan: &Plan, workload: Workload) -> anyhow::Result<Serving> {
    let program = [
        &deno(plan)?,
        "run",
        "--no-config",
        "--allow-net",
        "--allow-read",
        "tests/bench/apps/deno.js",
    ];
    start(plan, "deno.log", &program, workload)
}
