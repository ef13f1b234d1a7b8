//! `isolet compile`: a process that compiles one bundle and ends.
//!
//! ```text
//! limits -> landlock -> V8::initialize -> snapshot -> seccomp -> bundle from standard input -> code to standard output
//! ```
//!
//! It reads a tenant's text after the jail is closed, as the worker does. Whoever breaks out of V8's parser here finds his own
//! bundle and nothing else, and can only spoil what is kept of it.

use std::io::{Read, Write};
use std::process::ExitCode;

use anyhow::Context;
use isolet_crds::bundle::{Bundle, MAX_COMPRESSED_BYTES};
use rustix::param::page_size;
use rustix::process::{Resource, Rlimit, setpriority_process, setrlimit};

use super::jail;
use crate::isolate::snapshot::Snapshot;
use crate::isolate::{compile, ffi, platform};

/// CPU time that it may use, in seconds: hundreds of times what 2 MiB of code take.
const CPU_SECONDS: u64 = 10;
/// Memory that it may use, in bytes, beyond what is mapped when it begins: the allocator reserves 1 GiB at once, for Rust's
/// part, whose input is bounded. V8's reservations of address space do not count.
const MEMORY_BYTES: u64 = 768 << 20;
/// Requests go first.
const NICE: i32 = 19;

/// Runs it.
pub fn run(snapshot_fd: i32) -> ExitCode {
    match compiled(snapshot_fd) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("isolet compile: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What counts against `Resource::Data` already, in bytes: the sixth field of proc_pid_statm(5).
fn mapped_bytes() -> anyhow::Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").context("/proc/self/statm")?;
    let pages = statm.split_whitespace().nth(5);
    let pages: u64 = pages.context("/proc/self/statm is short")?.parse()?;
    Ok(pages * page_size() as u64)
}

fn compiled(snapshot_fd: i32) -> anyhow::Result<()> {
    for (resource, most) in [
        (Resource::Cpu, CPU_SECONDS),
        (Resource::Data, mapped_bytes()? + MEMORY_BYTES),
        (Resource::Core, 0),
    ] {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, limit)?;
    }
    setpriority_process(None, NICE)?;
    let snapshot = ffi::inherited_fd(snapshot_fd)?;
    jail::restrict_files_and_network()?;
    platform::initialize(1);
    let snapshot = Snapshot::load(snapshot)?;
    jail::restrict_system_calls()?;

    let mut archive = Vec::new();
    let most = MAX_COMPRESSED_BYTES as u64;
    std::io::stdin().take(most).read_to_end(&mut archive)?;
    let bundle = Bundle::decode(&archive, None)?;
    let code = compile::compile(snapshot, bundle)?;
    let mut out = std::io::stdout().lock();
    out.write_all(&code)?;
    out.flush()?;
    Ok(())
}
