//! The `isolet` binary.

use std::process::ExitCode;

/// Of Rust's part. V8's allocator, which is malloc here, took 0.8 of the 3.8 us of user time of a hello.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    isolet_runtime::cli::run()
}
