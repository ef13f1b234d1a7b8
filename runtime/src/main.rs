//! The `isolet` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    isolet_runtime::cli::run()
}
