//! The worker process: started, watched, started again.
//!
//! ```text
//! snapshot (once) -> spawn -> control handshake -> Started ─> … ─> exit -> breadcrumb -> Lost ─┐
//!                      ^──────────────── at once; later and later while it keeps crashing ─────┘
//! ```
//!
//! The listening socket is the agent's and is lent to each worker, so that connections wait in its backlog, and are not
//! refused, while there is none. A worker inherits the descriptors named in [`InheritedFds`] and nothing else: no
//! environment but the log filter, no standard input.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::breadcrumb;
use super::control::Control;
use super::loader::WorkerEvent;
use super::metrics::Metrics;
use crate::control::{BREADCRUMB_BYTES, InheritedFds};
use crate::egress::server::EgressServer;

const MAX_SNAPSHOT_BYTES: u64 = 256 << 20;
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);
/// A worker that lived this long did not crash at once.
const STABLE: Duration = Duration::from_secs(10);
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// Beyond the time it was given to drain.
const EXIT_GRACE: Duration = Duration::from_secs(2);

/// How workers are run.
pub struct WorkerSettings {
    /// The program: this one.
    pub program: PathBuf,
    /// The socket on which tenants' requests arrive.
    pub listener: TcpListener,
    /// Domain of the built-in hosts.
    pub domain: Option<String>,
    /// Text for people instead of JSON lines.
    pub dev: bool,
    /// How long requests may go on after SIGTERM.
    pub drain: Duration,
}

/// Why there is no worker.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The operating system refused.
    #[error("failed to {0}: {1}")]
    Os(&'static str, #[source] io::Error),
    /// `isolet snapshot` failed.
    #[error("failed to make the startup snapshot: {0}")]
    Snapshot(String),
    /// The worker does not speak HTTP/2.
    #[error("failed to speak to the worker: {0}")]
    Handshake(#[from] hyper::Error),
}

/// Path of the running program, also after its file was replaced.
pub fn this_program() -> PathBuf {
    if cfg!(target_os = "linux") {
        PathBuf::from("/proc/self/exe")
    } else {
        std::env::current_exe().unwrap_or_else(|_| PathBuf::from("isolet"))
    }
}

/// Keeps a worker running.
pub struct Supervisor {
    settings: WorkerSettings,
    snapshot: File,
    egress: Arc<EgressServer>,
    events: mpsc::Sender<WorkerEvent>,
    metrics: Metrics,
}

struct Running {
    child: Child,
    breadcrumb: File,
    control: Control,
}

impl Supervisor {
    /// Makes the startup snapshot.
    pub async fn prepare(
        settings: WorkerSettings,
        egress: Arc<EgressServer>,
        events: mpsc::Sender<WorkerEvent>,
        metrics: Metrics,
    ) -> Result<Self, WorkerError> {
        let snapshot = snapshot(&settings.program).await?;
        Ok(Self {
            settings,
            snapshot,
            egress,
            events,
            metrics,
        })
    }

    /// Runs workers, one after the other, until `stop`; then drains the last one. `abort` cuts the draining short.
    pub async fn run(mut self, stop: CancellationToken, abort: CancellationToken) {
        let mut quick_crashes = 0u32;
        loop {
            let started = Instant::now();
            match self.start().await {
                Ok(mut running) => {
                    tracing::info!(pid = running.child.id(), "worker started");
                    self.metrics.worker_starts.inc();
                    if self
                        .events
                        .send(WorkerEvent::Started(running.control.clone()))
                        .await
                        .is_err()
                    {
                        return;
                    }
                    tokio::select! {
                        status = running.child.wait() => self.lost(&running, status).await,
                        () = stop.cancelled() => return self.drain(running, abort).await,
                    }
                }
                Err(error) => tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "failed to start a worker"
                ),
            }
            quick_crashes = if started.elapsed() >= STABLE {
                0
            } else {
                quick_crashes + 1
            };
            tokio::select! {
                () = tokio::time::sleep(delay(quick_crashes)) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn lost(&self, running: &Running, status: io::Result<ExitStatus>) {
        self.metrics.worker_crashes.inc();
        let traces = breadcrumb::read(&running.breadcrumb);
        let status = match status {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(
            status,
            running = traces.running.join(" "),
            blamed = traces.blamed.join(" "),
            "the worker ended unasked"
        );
        let lost = WorkerEvent::Lost {
            blamed: traces.blamed,
        };
        // The loader ends only after this task.
        let _ = self.events.send(lost).await;
    }

    async fn start(&mut self) -> Result<Running, WorkerError> {
        let os = |what| move |error| WorkerError::Os(what, error);
        let (control, control_theirs) =
            StdUnixStream::pair().map_err(os("make the control socket"))?;
        let (egress, egress_theirs) =
            StdUnixStream::pair().map_err(os("make the egress socket"))?;
        let breadcrumb = memory_file("breadcrumb").map_err(os("make the breadcrumb"))?;
        breadcrumb
            .set_len(BREADCRUMB_BYTES as u64)
            .map_err(os("make the breadcrumb"))?;
        let lend = |fd: &dyn AsFd| inheritable(fd).map_err(os("hand a descriptor to the worker"));
        let lent = [
            lend(&self.settings.listener)?,
            lend(&control_theirs)?,
            lend(&egress_theirs)?,
            lend(&self.snapshot)?,
            lend(&breadcrumb)?,
        ];
        // Workers read it from its start, and share its position.
        self.snapshot.rewind().map_err(os("rewind the snapshot"))?;
        let [listener, control_fd, egress_fd, snapshot, crumb] =
            lent.each_ref().map(AsRawFd::as_raw_fd);
        let child = self
            .command(InheritedFds {
                listener,
                control: control_fd,
                egress: egress_fd,
                snapshot,
                breadcrumb: crumb,
            })
            .spawn()
            .map_err(os("start the worker"))?;
        drop((lent, control_theirs, egress_theirs));

        control
            .set_nonblocking(true)
            .map_err(os("use the control socket"))?;
        egress
            .set_nonblocking(true)
            .map_err(os("use the egress socket"))?;
        let egress = UnixStream::from_std(egress).map_err(os("use the egress socket"))?;
        let control = UnixStream::from_std(control).map_err(os("use the control socket"))?;
        tokio::spawn(self.egress.clone().serve(egress));
        let control = Control::connect(control).await?;
        Ok(Running {
            child,
            breadcrumb,
            control,
        })
    }

    fn command(&self, fds: InheritedFds) -> Command {
        let mut command = Command::new(&self.settings.program);
        command.arg("worker");
        for (name, fd) in [
            ("--listener-fd", fds.listener),
            ("--control-fd", fds.control),
            ("--egress-fd", fds.egress),
            ("--snapshot-fd", fds.snapshot),
            ("--breadcrumb-fd", fds.breadcrumb),
        ] {
            command.arg(name).arg(fd.to_string());
        }
        if let Some(domain) = &self.settings.domain {
            command.arg("--domain").arg(domain);
        }
        command
            .arg("--drain-seconds")
            .arg(self.settings.drain.as_secs().to_string());
        command.arg("--closed");
        if self.settings.dev {
            command.arg("--dev");
        }
        command.env_clear().stdin(Stdio::null()).kill_on_drop(true);
        if let Some(filter) = std::env::var_os("RUST_LOG") {
            command.env("RUST_LOG", filter);
        }
        command
    }

    async fn drain(&self, mut running: Running, abort: CancellationToken) {
        tracing::info!("draining the worker");
        if let Some(pid) = running
            .child
            .id()
            .and_then(|pid| rustix::process::Pid::from_raw(pid as i32))
            && let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::TERM)
        {
            tracing::warn!(%error, "failed to tell the worker to drain");
        }
        tokio::select! {
            _ = running.child.wait() => return,
            () = tokio::time::sleep(self.settings.drain + EXIT_GRACE) => {
                tracing::warn!("the worker did not drain in time");
            }
            () = abort.cancelled() => {}
        }
        if let Err(error) = running.child.kill().await {
            tracing::warn!(%error, "failed to end the worker");
        }
    }
}

fn delay(quick_crashes: u32) -> Duration {
    match quick_crashes {
        0 | 1 => Duration::ZERO,
        more => (FIRST_DELAY * 2u32.saturating_pow(more - 2)).min(LONGEST_DELAY),
    }
}

/// A copy that a child inherits, to be closed once it is started. Only the supervisor starts children, one at a time, so no
/// other child gets it.
fn inheritable(fd: &dyn AsFd) -> io::Result<OwnedFd> {
    // Unlike fcntl's F_DUPFD_CLOEXEC, which std uses, dup leaves the copy open across exec.
    Ok(rustix::io::dup(fd.as_fd())?)
}

fn memory_file(name: &str) -> io::Result<File> {
    Ok(File::from(memfd_create(
        name,
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?))
}

/// Runs `isolet snapshot` and keeps what it writes in memory, sealed: a broken worker cannot change what the next one starts
/// from.
async fn snapshot(program: &PathBuf) -> Result<File, WorkerError> {
    let failed = |error: io::Error| WorkerError::Snapshot(error.to_string());
    let mut child = Command::new(program)
        .arg("snapshot")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let mut blob = Vec::new();
    let read = async {
        if let Some(stdout) = child.stdout.take() {
            stdout
                .take(MAX_SNAPSHOT_BYTES)
                .read_to_end(&mut blob)
                .await?;
        }
        child.wait().await
    };
    let status = tokio::time::timeout(SNAPSHOT_TIMEOUT, read)
        .await
        .map_err(|_| WorkerError::Snapshot("it took too long".into()))?
        .map_err(failed)?;
    if !status.success() || blob.is_empty() {
        return Err(WorkerError::Snapshot(format!(
            "`isolet snapshot` ended with {status} after {} bytes",
            blob.len()
        )));
    }
    let mut file = memory_file("snapshot").map_err(failed)?;
    file.write_all(&blob).map_err(failed)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    fcntl_add_seals(&file, seals).map_err(|error| failed(error.into()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_crash_restarts_at_once_a_series_ever_later() {
        let delays: Vec<_> = (0..12).map(|crashes| delay(crashes).as_millis()).collect();
        assert_eq!(delays[..5], [0, 0, 100, 200, 400]);
        assert_eq!(delays[11], 5000);
        assert_eq!(delay(u32::MAX).as_secs(), 5);
    }

    #[test]
    fn the_snapshot_cannot_be_changed_by_who_inherits_it() {
        let mut file = memory_file("test").unwrap();
        file.write_all(b"blob").unwrap();
        fcntl_add_seals(
            &file,
            SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
        )
        .unwrap();
        let mut copy = File::from(inheritable(&file).unwrap());
        assert!(copy.write_all(b"x").is_err());
        assert!(copy.set_len(0).is_err());
    }
}
