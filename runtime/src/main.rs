//! `isolet`: see the library.

use std::process::ExitCode;

use clap::Parser;
use isolet_runtime::{isolate, worker};

/// The Isolet runtime.
#[derive(Parser)]
#[command(name = "isolet", version)]
enum Command {
    /// Started by the agent: runs functions.
    Worker(worker::WorkerArgs),
    /// Started by the agent: writes the startup snapshot to standard output.
    Snapshot,
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::Worker(args) => worker::run(args),
        Command::Snapshot => isolate::snapshot::write_to_stdout(),
    }
}
