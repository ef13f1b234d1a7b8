//! The command line: `isolet dev | agent | worker | snapshot | compile`.

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
    Snapshot {
        /// Makes it the same each time
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Started by the agent: compiles the bundle on standard input, writes the code to standard output
    #[command(hide = true)]
    Compile {
        /// Inherited file with the startup snapshot
        #[arg(long)]
        snapshot_fd: i32,
    },
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
        // These set up V8 before there is any thread.
        Command::Worker(args) => worker::run(args),
        Command::Snapshot { seed } => snapshot::write_to_stdout(seed),
        Command::Compile { snapshot_fd } => worker::compile::run(snapshot_fd),
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
