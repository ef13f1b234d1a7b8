//! Deno: one process, `Deno.serve`.

use crate::contestants::packages::{DENO, program, version_of};
use crate::contestants::{Serving, Workload};
use crate::plan::Plan;
use crate::process::{Server, free_port};

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
    let port = free_port()?;
    let command = [
        deno(plan)?,
        "run".into(),
        "--no-config".into(),
        "--allow-net".into(),
        "--allow-read".into(),
        "tests/bench/apps/deno.js".into(),
        port.to_string(),
        workload.name().into(),
    ];
    Ok(Serving {
        server: Server::start(
            Some(plan.server_core),
            &command,
            port,
            &plan.work.join("deno.log"),
        )?,
        path: "/".into(),
    })
}
