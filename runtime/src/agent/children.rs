//! Child processes: the descriptors that they inherit, and the helpers that print one thing and end.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// A broken helper may say anything.
const MAX_REASON_BYTES: u64 = 512;

/// Held while descriptors are lent and the child that they are for is started: any other child would inherit them too.
static STARTING: Mutex<()> = Mutex::new(());

/// Descriptors for the next child, to be dropped once it is started.
pub(super) struct Lender(#[expect(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl Lender {
    /// Waits until no other child is being started. Not to be held across an await.
    pub(super) fn new() -> Self {
        Self(STARTING.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A copy that the child inherits.
    pub(super) fn lend(&self, fd: &dyn AsFd) -> io::Result<OwnedFd> {
        // Unlike fcntl's F_DUPFD_CLOEXEC, which std uses, dup leaves the copy open across exec.
        Ok(rustix::io::dup(fd.as_fd())?)
    }
}

/// An empty file in memory.
pub(super) fn memory_file(name: &str) -> io::Result<File> {
    Ok(File::from(memfd_create(
        name,
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?))
}

/// Sets up a helper: no environment; killed when its handle is dropped.
pub(super) fn helper(command: &mut Command) -> &mut Command {
    command
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
}

/// Gives a helper its input and reads what it prints, up to so many bytes. Anything but success is an error, with the start
/// of what it says of it where its standard error is a pipe.
pub(super) async fn output(
    mut child: Child,
    input: &[u8],
    most_bytes: usize,
    timeout: Duration,
) -> Result<Vec<u8>, String> {
    let mut output = Vec::new();
    let mut reason = Vec::new();
    let talk = async {
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input).await?;
        }
        if let Some(stdout) = child.stdout.take() {
            let most = most_bytes as u64 + 1;
            stdout.take(most).read_to_end(&mut output).await?;
        }
        if let Some(stderr) = child.stderr.take() {
            stderr
                .take(MAX_REASON_BYTES)
                .read_to_end(&mut reason)
                .await?;
        }
        child.wait().await
    };
    let status = tokio::time::timeout(timeout, talk)
        .await
        .map_err(|_| "it took too long".to_owned())?
        .map_err(|error| error.to_string())?;
    if !status.success() || output.is_empty() || output.len() > most_bytes {
        let reason = String::from_utf8_lossy(&reason);
        return Err(format!(
            "it ended with {status} after {} bytes {}",
            output.len(),
            reason.trim()
        ));
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(program: &str, most_bytes: usize, timeout: Duration) -> Result<Vec<u8>, String> {
        let mut command = Command::new("/bin/sh");
        let command = helper(command.arg("-c").arg(program)).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        output(child, b"input", most_bytes, timeout).await
    }

    #[tokio::test]
    async fn a_helper_prints_one_thing_or_has_failed() {
        let long = Duration::from_secs(60);
        assert_eq!(run("cat", 5, long).await.unwrap(), b"input");
        for program in [
            "cat >/dev/null",
            "cat; exit 1",
            "cat; kill -9 $$",
            "cat; echo more",
        ] {
            assert!(run(program, 5, long).await.is_err(), "{program}");
        }
        let problem = run("cat >/dev/null; echo why >&2; exit 3", 5, long).await;
        assert!(problem.unwrap_err().contains("3 after 0 bytes why"));
        let late = run("exec sleep 1000", 5, Duration::from_millis(10)).await;
        assert_eq!(late, Err("it took too long".to_owned()));
    }
}
