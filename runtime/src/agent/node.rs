//! A node: loader, worker supervision and egress around one source of bundles. `isolet agent` and `isolet dev` are each a
//! source and a face around this.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::code::CodeKeeper;
use super::control::Control;
use super::loader::{self, Outputs};
use super::metrics::Metrics;
use super::report::ReportLog;
use super::snapshot::{SnapshotError, StartupSnapshot};
use super::worker::{Supervisor, WorkerSettings, this_program};
use crate::bundle::SourceEvent;
use crate::bundle::cache::{Cache, CacheWriter};
use crate::bundle::code::CodeFiles;
use crate::egress::connect::Connector;
use crate::egress::policy::PlatformPolicy;
use crate::egress::server::EgressServer;
use crate::egress::table::EgressTable;
use crate::limits::files;

/// Connections that wait while the worker restarts or falls behind; the kernel bounds it by `net.core.somaxconn`.
const BACKLOG: u32 = 4096;
/// What a source may be ahead of the loader.
const SOURCE_QUEUE: usize = 64;

/// How a node is run.
pub struct NodeSettings {
    /// The socket on which tenants' requests arrive, from [`bind`].
    pub listener: TcpListener,
    /// Domain of the built-in hosts.
    pub domain: Option<String>,
    /// Text for people instead of JSON lines.
    pub dev: bool,
    /// Answers say what CPU time their request took.
    pub server_timing: bool,
    /// How long requests may go on at the end.
    pub drain: Duration,
    /// Instances that live at once; 0: as many as there is memory for.
    pub max_instances: usize,
    /// The platform's egress policy.
    pub policy: PlatformPolicy,
    /// Where to keep what is served.
    pub cache: Option<Cache>,
}

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// There is nothing to start workers from.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// TLS cannot be set up.
    #[error("failed to set up TLS for outbound requests: {0}")]
    Tls(#[from] rustls::Error),
}

/// A running node.
pub struct Node {
    /// What it serves.
    pub report: Arc<ReportLog>,
    /// Its counters.
    pub metrics: Metrics,
    /// Whether all that the source told is served.
    pub ready: watch::Receiver<bool>,
    /// The current worker.
    pub worker: watch::Receiver<Option<Control>>,
    stop: CancellationToken,
    abort: CancellationToken,
    cache: Option<CacheWriter>,
    supervisor: JoinHandle<()>,
    loader: JoinHandle<()>,
}

/// The source's end.
pub type SourceSender = mpsc::Sender<SourceEvent>;

/// A channel from a source to a node.
pub fn source() -> (SourceSender, mpsc::Receiver<SourceEvent>) {
    mpsc::channel(SOURCE_QUEUE)
}

/// Binds a listening socket whose backlog outlasts a restart of the worker.
pub fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

impl Node {
    /// Makes the snapshot, starts the first worker and follows the source.
    pub async fn start(
        settings: NodeSettings,
        source: mpsc::Receiver<SourceEvent>,
    ) -> Result<Self, NodeError> {
        // Each outbound request takes some.
        files::raise();
        let metrics = Metrics::default();
        let report = Arc::new(ReportLog::new());
        let table = Arc::new(EgressTable::default());
        let connector = Connector::new(settings.policy)?;
        let egress = Arc::new(EgressServer::new(connector, table.clone(), metrics.clone()));
        let (events, worker_events) = mpsc::channel(4);
        let worker_settings = WorkerSettings {
            program: this_program(),
            listener: settings.listener,
            domain: settings.domain,
            dev: settings.dev,
            server_timing: settings.server_timing,
            drain: settings.drain,
            max_instances: settings.max_instances,
        };
        let seed = settings.cache.as_ref().and_then(seed);
        let snapshot = StartupSnapshot::make(&worker_settings.program, seed).await?;
        let snapshot = Arc::new(snapshot);
        let code = settings
            .cache
            .as_ref()
            .and_then(|cache| code_keeper(cache, &snapshot, &metrics));
        let supervisor =
            Supervisor::new(worker_settings, snapshot, egress, events, metrics.clone());
        let cache = settings.cache.map(CacheWriter::start);
        let (ready, is_ready) = watch::channel(false);
        let (worker, current_worker) = watch::channel(None);
        let outputs = Outputs {
            report: report.clone(),
            egress: table,
            cache: cache.clone(),
            code: code.clone(),
            metrics: metrics.clone(),
            ready,
            worker,
        };
        let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
        if let Some(code) = code {
            let run = code.run(current_worker.clone());
            tokio::spawn(stop.clone().run_until_cancelled_owned(run));
        }
        Ok(Self {
            report,
            metrics,
            ready: is_ready,
            worker: current_worker,
            cache,
            supervisor: tokio::spawn(supervisor.run(stop.clone(), abort.clone())),
            loader: tokio::spawn(loader::run(source, worker_events, outputs)),
            stop,
            abort,
        })
    }

    /// Set when the node begins to stop.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Cuts [`Node::stop`] short.
    pub fn abort(&self) -> CancellationToken {
        self.abort.clone()
    }

    /// Drains the worker and writes what the cache still waits for.
    pub async fn stop(self) {
        self.stop.cancel();
        if self.supervisor.await.is_err() {
            tracing::error!("the supervision of the worker failed");
        }
        // It ended with the supervisor's end of its channel.
        if self.loader.await.is_err() {
            tracing::error!("the loader failed");
        }
        if let Some(cache) = self.cache {
            cache.flush();
        }
    }
}

/// Without one the agent's next process makes another snapshot, which compiled code does not fit.
fn seed(cache: &Cache) -> Option<u64> {
    cache
        .seed()
        .inspect_err(|error| {
            tracing::warn!(%error, "failed to keep the seed of the startup snapshot: compiled code will not outlast this process");
        })
        .ok()
}

fn code_keeper(
    cache: &Cache,
    snapshot: &Arc<StartupSnapshot>,
    metrics: &Metrics,
) -> Option<Arc<CodeKeeper>> {
    let opened = CodeFiles::open(cache, snapshot.digest());
    let (files, dropped) = opened
        .inspect_err(|error| {
            tracing::warn!(%error, "failed to read what is kept of compiled code: each worker compiles afresh");
        })
        .ok()?;
    metrics.code_dropped.inc_by(dropped);
    let keeper = CodeKeeper::new(files, this_program(), snapshot.clone(), metrics.clone());
    Some(Arc::new(keeper))
}
