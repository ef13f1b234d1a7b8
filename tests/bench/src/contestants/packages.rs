//! The peers' npm packages, in fixed versions, below target/bench.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};

use crate::plan::Plan;

/// workerd's package.
pub(crate) const WORKERD: (&str, &str) = ("workerd", "1.20261117.1");
/// Deno's package.
pub(crate) const DENO: (&str, &str) = ("deno", "2.9.6");

/// Installs the package unless it is there, and finds the program in the package for this platform: no script stands
/// between it and the measurement.
pub(crate) fn program(
    plan: &Plan,
    (name, version): (&str, &str),
    path: &str,
) -> anyhow::Result<PathBuf> {
    let modules = plan.work.join("node_modules");
    let manifest = fs::read_to_string(modules.join(name).join("package.json")).unwrap_or_default();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap_or_default();
    if manifest["version"] != version {
        install(plan)?;
    }
    let program = modules.join(path);
    if !program.is_file() {
        bail!("its npm package has no program for this platform");
    }
    Ok(program)
}

fn install(plan: &Plan) -> anyhow::Result<()> {
    let output = Command::new("npm")
        .arg("install")
        .arg("--prefix")
        .arg(&plan.work)
        .args(["--no-fund", "--no-audit", "--no-save", "--ignore-scripts"])
        .args([WORKERD, DENO].map(|(name, version)| format!("{name}@{version}")))
        .output()
        .context("failed to run npm; on Debian: apt-get install -y npm")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!(
            "npm install failed: {}",
            text.lines().next().unwrap_or_default()
        );
    }
    Ok(())
}

/// First line that a program prints for `--version`.
pub(crate) fn version_of(program: &str, argument: &str) -> anyhow::Result<String> {
    let output = Command::new(program)
        .arg(argument)
        .output()
        .with_context(|| format!("failed to run {program}"))?;
    if !output.status.success() {
        bail!("{program} {argument} ended with {}", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}
