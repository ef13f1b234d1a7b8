//! workerd: one process, a configuration file with one worker or many.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use crate::contestants::packages::{WORKERD, program, version_of};
use crate::contestants::{Serving, Workload};
use crate::plan::Plan;
use crate::process::{Server, free_port};

/// What its workers' behaviour is frozen at.
const COMPATIBILITY_DATE: &str = "2026-11-01";

fn workerd(plan: &Plan) -> anyhow::Result<String> {
    let platform = match std::env::consts::ARCH {
        "aarch64" => "@cloudflare/workerd-linux-arm64/bin/workerd",
        _ => "@cloudflare/workerd-linux-64/bin/workerd",
    };
    Ok(program(plan, WORKERD, platform)?.display().to_string())
}

pub(crate) fn version(plan: &Plan) -> anyhow::Result<String> {
    version_of(&workerd(plan)?, "--version")
}

pub(crate) fn serve(plan: &Plan, workload: Workload) -> anyhow::Result<Serving> {
    Ok(Serving {
        server: start(plan, &[service("main", workload.name(), "")])?,
        path: "/".into(),
    })
}

/// Many workers, each with its name in NAME, behind one that routes by path; a worker is its name and its module in
/// [`folder`].
pub(crate) fn serve_tenants(plan: &Plan, workers: &[(String, &str)]) -> anyhow::Result<Server> {
    let mut bindings = String::new();
    let mut services = Vec::new();
    for (name, app) in workers {
        let text = format!("(name = \"NAME\", text = \"{name}\")");
        services.push(service(name, app, &text));
        // Writing to a String cannot fail.
        let _ = write!(bindings, "(name = \"{name}\", service = \"{name}\"), ");
    }
    services.insert(0, service("router", "router", &bindings));
    start(plan, &services)
}

/// Where the configuration and its modules are.
pub(crate) fn folder(plan: &Plan) -> anyhow::Result<PathBuf> {
    let folder = plan.work.join("workerd");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn service(name: &str, app: &str, bindings: &str) -> String {
    format!(
        "(name = \"{name}\", worker = (compatibilityDate = \"{COMPATIBILITY_DATE}\", \
         modules = [(name = \"main.js\", esModule = embed \"{app}.js\")], bindings = [{bindings}]))"
    )
}

/// Starts a process whose socket leads to the first of the services.
fn start(plan: &Plan, services: &[String]) -> anyhow::Result<Server> {
    let port = free_port()?;
    let folder = folder(plan)?;
    for app in fs::read_dir("tests/bench/apps")? {
        let app = app?;
        if !app.file_type()?.is_file() {
            continue;
        }
        fs::copy(app.path(), folder.join(app.file_name()))?;
    }
    let main = services
        .first()
        .and_then(|service| service.split('"').nth(1))
        .unwrap_or_default();
    let text = format!(
        "using Workerd = import \"/workerd/workerd.capnp\";\n\
         const config :Workerd.Config = (\n  \
         sockets = [(name = \"http\", address = \"127.0.0.1:{port}\", http = (), service = \"{main}\")],\n  \
         services = [\n    {}\n  ]\n);\n",
        services.join(",\n    ")
    );
    let file = folder.join("config.capnp");
    fs::write(&file, text)?;
    let command = [workerd(plan)?, "serve".into(), file.display().to_string()];
    Server::start(
        Some(plan.server_core),
        &command,
        port,
        &plan.work.join("workerd.log"),
    )
}
