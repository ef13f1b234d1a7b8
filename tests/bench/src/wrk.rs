//! wrk, the load: one thread on the load core.

use std::process::Command;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::plan::Plan;

/// What wrk measured.
#[derive(Deserialize, Serialize, Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) requests: u64,
    pub(crate) duration_us: u64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) max_us: u64,
    pub(crate) socket_errors: u64,
    pub(crate) bad_status: u64,
    pub(crate) timeouts: u64,
}

/// What wrk sends.
pub(crate) enum Requests<'a> {
    /// GET of the URL's path.
    Plain,
    /// POST of a file.
    Post(&'a str),
    /// GETs of the paths in a file, in turn.
    Rotate(&'a str),
}

impl Load {
    pub(crate) fn per_second(&self) -> f64 {
        self.requests as f64 / (self.duration_us as f64 / 1e6)
    }

    /// Answers that were wrong or did not come.
    pub(crate) fn failures(&self) -> u64 {
        self.socket_errors + self.bad_status + self.timeouts
    }

    /// The same, or an error if any answer was wrong or missing.
    pub(crate) fn all_right(self) -> anyhow::Result<Self> {
        if self.failures() > 0 || self.requests == 0 {
            bail!(
                "{} requests: {} with another status, {} with a broken connection, {} without an answer",
                self.requests,
                self.bad_status,
                self.socket_errors,
                self.timeouts
            );
        }
        Ok(self)
    }
}

/// The command line of a measurement.
pub(crate) fn command(
    plan: &Plan,
    seconds: u64,
    port: u16,
    path: &str,
    requests: &Requests<'_>,
) -> Vec<String> {
    let (script, argument) = match requests {
        Requests::Plain => ("report", None),
        Requests::Post(file) => ("echo", Some(*file)),
        Requests::Rotate(file) => ("rotate", Some(*file)),
    };
    let mut command: Vec<String> = [
        "taskset",
        "-c",
        &plan.load_core.to_string(),
        "wrk",
        "-t1",
        "-c32",
        &format!("-d{seconds}s"),
        "--timeout",
        "5s",
        "-s",
        &format!("tests/bench/lua/{script}.lua"),
    ]
    .map(str::to_owned)
    .to_vec();
    command.push(format!("http://127.0.0.1:{port}{path}"));
    if let Some(argument) = argument {
        command.extend(["--".to_owned(), argument.to_owned()]);
    }
    command
}

/// Runs wrk for some seconds with 32 connections.
pub(crate) fn run(
    plan: &Plan,
    seconds: u64,
    port: u16,
    path: &str,
    requests: &Requests<'_>,
) -> anyhow::Result<Load> {
    let command = command(plan, seconds, port, path, requests);
    let output = Command::new(&command[0])
        .args(&command[1..])
        .output()
        .context("failed to run wrk under taskset; on Debian: apt-get install -y wrk util-linux")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .rev()
        .find_map(|line| serde_json::from_str(line).ok())
        .with_context(|| {
            format!(
                "wrk failed: {text}{}",
                String::from_utf8_lossy(&output.stderr)
            )
        })
}
