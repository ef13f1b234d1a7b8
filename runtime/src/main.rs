//! The `isolet` binary.

use std::process::ExitCode;

use isolet_runtime::isolate::ffi_allocator::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    isolet_runtime::cli::run()
}
