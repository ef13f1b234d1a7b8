//! The `isolet` binary.

use std::process::ExitCode;

/// V8 brings an allocator of its own for `malloc`. For many small pieces of short life this one takes half the time: a hello
/// request costs 5 % less CPU.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    isolet_runtime::cli::run()
}
