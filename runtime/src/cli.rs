//! The command line: `isolet dev | agent | worker | snapshot`.

use std::future::Future;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::agent::{self, config::AgentArgs, logging};
use crate::dev::{self, DevArgs};
use crate::isolate::snapshot;
use crate::worker::{self, WorkerArgs};

/// Isolet runs JavaScript, TypeScript and WebAssembly functions in V8 isolates.
#[derive(Parser, Debug)]
#[command(name = "isolet", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Dev(DevArgs),
    Agent(Box<AgentArgs>),
    /// Started by the agent: runs functions
    #[command(hide = true)]
    Worker(WorkerArgs),
    /// Started by the agent: writes the startup snapshot to standard output
    #[command(hide = true)]
    Snapshot,
}

/// Parses the command line and runs the command.
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Dev(args) => {
            logging::text();
            block_on(dev::run(args))
        }
        Command::Agent(args) => {
            logging::json();
            block_on(agent::run(*args))
        }
        // Both set up V8 before there is any thread, so they make their own runtime.
        Command::Worker(args) => worker::run(args),
        Command::Snapshot => snapshot::write_to_stdout(),
    }
}

fn block_on(command: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| {
            let outcome = runtime.block_on(command);
            // A name being resolved, or a file being written, must not hold up the end.
            runtime.shutdown_background();
            outcome
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
