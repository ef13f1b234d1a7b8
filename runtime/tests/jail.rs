//! What a process can still do inside the worker's jail: a child of this test closes it around itself and tries.
#![cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::File;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;

use isolet_runtime::worker::jail;

#[test]
fn the_jail_leaves_no_way_out() {
    in_a_child("inside");
}

/// As where the kernel's landlock is older than its scopes for signals.
#[test]
fn the_filter_alone_keeps_signals_inside() {
    in_a_child("inside_the_filter");
}

fn in_a_child(test: &str) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && output.contains("all as it should be"),
        "{output}\n{}",
        String::from_utf8_lossy(&child.stderr)
    );
}

/// Runs in the child only.
#[test]
#[ignore = "closes the jail around this process; the_jail_leaves_no_way_out runs it in a child"]
fn inside() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let before = std::thread::spawn(std::thread::park);
    jail::restrict_files_and_network().unwrap();
    jail::restrict_system_calls().unwrap();

    denied("open for reading", File::open("/proc/self/status"));
    denied("open for writing", File::create("/tmp/isolet-jail-test"));
    denied("list a folder", std::fs::read_dir("/"));
    denied("remove", std::fs::remove_file("/tmp/isolet-jail-test"));
    denied("connect", TcpStream::connect(address));
    denied("listen", TcpListener::bind("127.0.0.1:0"));
    denied("pair of sockets", UnixStream::pair());
    denied("pipe", io::pipe());
    denied("another program", Command::new("/bin/true").status());
    let own = rustix::process::getpid();
    denied(
        "signal a process",
        rustix::process::kill_process(own, rustix::process::Signal::USR1).map_err(Into::into),
    );

    // What the worker needs goes on: threads, memory, chance, output.
    before.thread().unpark();
    before.join().unwrap();
    let bytes = std::thread::spawn(|| {
        denied("open in a new thread", File::open("/proc/self/status"));
        vec![1u8; 64 << 20].len()
    });
    assert_eq!(bytes.join().unwrap(), 64 << 20);
    getrandom::fill(&mut [0; 16]).unwrap();
    writeln!(io::stdout(), "all as it should be").unwrap();
}

/// Runs in the child only.
#[test]
#[ignore = "closes the filter around this process; the_filter_alone_keeps_signals_inside runs it in a child"]
fn inside_the_filter() {
    let parent = std::os::unix::process::parent_id();
    tgkill(parent).unwrap();
    jail::restrict_system_calls().unwrap();
    denied("signal another process's thread", tgkill(parent));
    tgkill(std::process::id()).expect("abort() signals its own thread");
    writeln!(io::stdout(), "all as it should be").unwrap();
}

/// Sends no signal to the first thread of a process: only whether that may be.
#[allow(unsafe_code)]
fn tgkill(process: u32) -> io::Result<()> {
    // SAFETY: takes three numbers; signal 0 reaches nobody.
    match unsafe { libc::syscall(libc::SYS_tgkill, process, process, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn denied<T>(what: &str, outcome: io::Result<T>) {
    let error = outcome
        .err()
        .unwrap_or_else(|| panic!("{what} is possible"));
    assert_eq!(
        error.kind(),
        io::ErrorKind::PermissionDenied,
        "{what}: {error}"
    );
}
