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
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::breadcrumb;
use super::children::{Lender, memory_file};
use super::control::Control;
use super::loader::WorkerEvent;
use super::metrics::Metrics;
use super::snapshot::StartupSnapshot;
use crate::control::{BREADCRUMB_BYTES, InheritedFds};
use crate::egress::server::EgressServer;

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
    /// Answers say what CPU time their request took.
    pub server_timing: bool,
    /// How long requests may go on after SIGTERM.
    pub drain: Duration,
    /// Instances that live at once; 0: as many as there is memory for.
    pub max_instances: usize,
}

/// Why there is no worker.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The operating system refused.
    #[error("failed to {0}: {1}")]
    Os(&'static str, #[source] io::Error),
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
    snapshot: Arc<StartupSnapshot>,
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
    /// Starts nothing yet.
    pub fn new(
        settings: WorkerSettings,
        snapshot: Arc<StartupSnapshot>,
        egress: Arc<EgressServer>,
        events: mpsc::Sender<WorkerEvent>,
        metrics: Metrics,
    ) -> Self {
        Self {
            settings,
            snapshot,
            egress,
            events,
            metrics,
        }
    }

    /// Runs workers, one after the other, until `stop`; then drains the last one. `abort` cuts the draining short.
    pub async fn run(self, stop: CancellationToken, abort: CancellationToken) {
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

    async fn start(&self) -> Result<Running, WorkerError> {
        let os = |what| move |error| WorkerError::Os(what, error);
        let (control, control_theirs) =
            StdUnixStream::pair().map_err(os("make the control socket"))?;
        let (egress, egress_theirs) =
            StdUnixStream::pair().map_err(os("make the egress socket"))?;
        let breadcrumb = memory_file("breadcrumb").map_err(os("make the breadcrumb"))?;
        breadcrumb
            .set_len(BREADCRUMB_BYTES as u64)
            .map_err(os("make the breadcrumb"))?;
        let child = self.spawn(&control_theirs, &egress_theirs, &breadcrumb)?;
        drop((control_theirs, egress_theirs));

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

    fn spawn(
        &self,
        control: &StdUnixStream,
        egress: &StdUnixStream,
        breadcrumb: &File,
    ) -> Result<Child, WorkerError> {
        let lender = Lender::new();
        let lend = |fd: &dyn AsFd| {
            let lent = lender.lend(fd);
            lent.map_err(|error| WorkerError::Os("hand a descriptor to the worker", error))
        };
        let lent = [
            lend(&self.settings.listener)?,
            lend(control)?,
            lend(egress)?,
            lend(self.snapshot.file())?,
            lend(breadcrumb)?,
        ];
        let [listener, control, egress, snapshot, breadcrumb] =
            lent.each_ref().map(AsRawFd::as_raw_fd);
        let mut command = self.command(InheritedFds {
            listener,
            control,
            egress,
            snapshot,
            breadcrumb,
        });
        command
            .spawn()
            .map_err(|error| WorkerError::Os("start the worker", error))
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
            .arg(self.settings.drain.as_secs().to_string())
            .arg("--max-instances")
            .arg(self.settings.max_instances.to_string());
        command.arg("--closed");
        if self.settings.dev {
            command.arg("--dev");
        }
        if self.settings.server_timing {
            command.arg("--server-timing");
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
}
