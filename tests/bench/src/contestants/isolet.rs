//! Isolet: `isolet dev` on a folder of manifests, that is the real agent and the real worker. Measured is the worker.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use crate::contestants::packages::version_of;
use crate::contestants::{START_PATIENCE, Serving, Workload};
use crate::plan::Plan;
use crate::process::{Server, free_port};

/// What `isolet dev` prints once everything serves.
const READY: &str = "Ready after";

/// A Function to deploy.
pub(crate) struct Deployed<'a> {
    pub(crate) name: String,
    /// Name of its code among those given to [`write()`].
    pub(crate) code: &'a str,
    /// Another value makes another revision.
    pub(crate) version: usize,
}

pub(crate) fn version(plan: &Plan) -> anyhow::Result<String> {
    version_of(&plan.isolet.display().to_string(), "--version")
}

pub(crate) fn serve(plan: &Plan, workload: Workload) -> anyhow::Result<Serving> {
    let name = workload.name();
    let function = Deployed {
        name: name.into(),
        code: name,
        version: 1,
    };
    write(plan, &[(name, app(name)?)], &[function])?;
    Ok(Serving {
        server: start(plan, START_PATIENCE, 0)?,
        path: path(name),
    })
}

/// The Functions `names`, all of one code, each with its own name in NAME.
pub(crate) fn serve_tenants(plan: &Plan, names: &[String], code: &str) -> anyhow::Result<Server> {
    serve_with_at_most(0, plan, names, code)
}

/// The same, of which so many may be alive at once; 0: as many as there is memory for.
pub(crate) fn serve_with_at_most(
    alive: usize,
    plan: &Plan,
    names: &[String],
    code: &str,
) -> anyhow::Result<Server> {
    let functions: Vec<Deployed<'_>> = names
        .iter()
        .map(|name| Deployed {
            name: name.clone(),
            code: "tenant",
            version: 1,
        })
        .collect();
    write(plan, &[("tenant", code.to_owned())], &functions)?;
    // Deploying compiles and tries each: at least 100 a second.
    start(
        plan,
        START_PATIENCE + Duration::from_millis(10) * names.len() as u32,
        alive,
    )
}

/// A module of `apps`.
pub(crate) fn app(name: &str) -> anyhow::Result<String> {
    let path = format!("tests/bench/apps/{name}.js");
    fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))
}

/// Where a Function answers.
pub(crate) fn path(name: &str) -> String {
    format!("/fn/default/{name}/")
}

/// Writes the manifests: a ConfigMap for each code, and the Functions.
pub(crate) fn write(
    plan: &Plan,
    codes: &[(&str, String)],
    functions: &[Deployed<'_>],
) -> anyhow::Result<()> {
    let mut text = String::new();
    for (name, code) in codes {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
            "data": {"main.js": code},
        });
        // Writing to a String cannot fail.
        let _ = writeln!(text, "---\n{map}");
    }
    for function in functions {
        let object = json!({
            "apiVersion": "isolet.dev/v1alpha1", "kind": "Function", "metadata": {"name": function.name},
            "spec": {
                "source": {"configMapRef": {"name": function.code}},
                "env": [
                    {"name": "NAME", "value": function.name},
                    {"name": "VERSION", "value": function.version.to_string()},
                ],
                "limits": {"concurrency": 1000},
            },
        });
        let _ = writeln!(text, "---\n{object}");
    }
    let folder = folder(plan)?;
    // In one step, so that half a file is never read.
    let part = plan.work.join("functions.part");
    fs::write(&part, text)?;
    fs::rename(part, folder.join("functions.yaml"))?;
    Ok(())
}

/// Starts agent and worker on what was written, and waits until all of it serves. Without the line that `isolet dev` prints
/// for each request and the field that it adds to each answer: in a cluster there is neither.
pub(crate) fn start(plan: &Plan, patience: Duration, alive: usize) -> anyhow::Result<Server> {
    let port = free_port()?;
    let command = [
        "env".into(),
        "RUST_LOG=warn".into(),
        plan.isolet.display().to_string(),
        "dev".into(),
        folder(plan)?.display().to_string(),
        "--port".into(),
        port.to_string(),
        format!("--max-instances={alive}"),
        "--no-server-timing".into(),
    ];
    let mut server = Server::start(
        Some(plan.server_core),
        &command,
        port,
        &plan.work.join("isolet.log"),
    )?;
    server.wait_for_log(patience, READY, 1)?;
    server.measure_child()?;
    Ok(server)
}

fn folder(plan: &Plan) -> anyhow::Result<PathBuf> {
    let folder = plan.work.join("functions");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}
