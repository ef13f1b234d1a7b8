//! `make bench`: Isolet beside its peers on this machine, in one go.
//!
//! ```text
//! plan         how much, where            contestants/  who: each starts its own server
//! rows/        what: a question a module  process, http, wrk   servers and load
//! samples      taking turns, rounds       row, report, machine, reasons  the table
//! ```
//!
//! Results decide nothing: the exit status is 0 unless something could not run.
//!
//! `make soak` is here too (`soak/`), as it starts and watches the same processes; its results do decide.

mod contestants;
mod http;
mod machine;
mod plan;
mod process;
mod reasons;
mod report;
mod row;
mod rows;
mod samples;
mod soak;
mod stats;
mod wrk;

use std::process::{Command, ExitCode};

use anyhow::Context;
use clap::Parser;

use crate::machine::Machine;
use crate::plan::{Plan, RunArgs};

/// Measures Isolet beside workerd, Deno, Node and bare hyper.
#[derive(Parser)]
#[command(name = "isolet-bench")]
enum Cli {
    /// Measures and writes benchmarks.md and benchmarks.json
    Run(RunArgs),
    /// Has hundreds of tenants answer under mixed load for minutes, and checks every answer
    Soak(soak::SoakArgs),
    /// A contestant: a bare hyper server
    Hyper {
        /// Where to listen, on loopback
        port: u16,
        /// hello, echo or stream
        workload: String,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse() {
        Cli::Run(args) => run(args),
        Cli::Soak(args) => soak::run(&args),
        Cli::Hyper { port, workload } => contestants::hyper::run(port, &workload).map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: RunArgs) -> anyhow::Result<bool> {
    let plan = Plan::new(args)?;
    let cores = std::thread::available_parallelism()?.get();
    for (tool, flag) in [("wrk", "-v"), ("taskset", "-V"), ("setpriv", "-V")] {
        Command::new(tool).arg(flag).output().with_context(|| {
            format!("{tool} is missing; on Debian: apt-get install -y wrk util-linux")
        })?;
    }
    let entries = contestants::all(&plan);
    let machine = Machine::this(&entries, cores);
    stay_on(plan.load_core)?;
    let mut rows = Vec::new();
    let mut all_ran = true;
    for (name, measure) in rows::ROWS.iter().filter(|(name, _)| plan.wants(name)) {
        eprintln!("{name}");
        match measure(&plan, &entries) {
            Ok(more) => rows.extend(more),
            Err(error) => {
                all_ran = false;
                eprintln!("  failed: {error:#}");
                rows.push(row::Row::failed(name, &error));
            }
        }
        all_ran &= rows.iter().all(|row| row.failures.is_empty());
        // After each: a run that is broken off leaves what it has.
        report::write(&plan, &machine, &rows)?;
    }
    println!("{}", report::write(&plan, &machine, &rows)?);
    eprintln!(
        "written: {0}/benchmarks.md and {0}/benchmarks.json",
        plan.out.display()
    );
    Ok(all_ran)
}

/// Binds this process, which is part of the load, to a core.
fn stay_on(core: usize) -> anyhow::Result<()> {
    let status = Command::new("taskset")
        .args([
            "-a",
            "-c",
            "-p",
            &core.to_string(),
            &std::process::id().to_string(),
        ])
        .stdout(std::process::Stdio::null())
        .status()?;
    anyhow::ensure!(status.success(), "taskset ended with {status}");
    Ok(())
}
