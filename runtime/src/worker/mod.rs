//! The sandboxed process: V8, the HTTP server, and nothing else.
//!
//! ```text
//! descriptors -> landlock -> V8::initialize -> snapshot -> threads -> seccomp on all threads -> control, HTTP
//! ```
//!
//! V8 must be initialised before threads are made; landlock binds the threads made after it; seccomp, which denies what V8
//! needs at start (opening files), goes last, before any tenant's code.

mod args;
pub mod compile;
mod control_server;
pub mod jail;
pub mod metrics;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use args::WorkerArgs;

use crate::isolate::snapshot::{Snapshot, SnapshotError};
use crate::isolate::{Breadcrumb, Pool, ffi, ffi_schedule, platform};
use crate::limits::cpu;
use crate::limits::files;
use crate::limits::memory::{self, Capacity};
use crate::scheduler::{Egress, Functions, Gate, Services};
use crate::server::ClientLimits;
use crate::server::outbox;

/// Time that requests get to finish in a worker that has no way out any more.
const LAST_REQUESTS: Duration = Duration::from_secs(1);
/// Descriptors of the worker itself.
const OWN_FILES: usize = 64;
/// The part of all descriptors that is left for Functions' connections to the agent: one of so many.
const EGRESS_FILES: u64 = 8;

/// Why the worker cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// An inherited descriptor is not what it should be.
    #[error("failed to take over the inherited {what} (descriptor {number})")]
    Inherited {
        /// Which.
        what: &'static str,
        /// Its number.
        number: i32,
        /// The system's reason.
        source: io::Error,
    },
    /// There is no snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A thread, the runtime or a socket could not be made.
    #[error("failed to start")]
    Start(#[from] io::Error),
    /// The process cannot be locked down.
    #[error(transparent)]
    Jail(#[from] jail::JailError),
}

struct Inherited {
    listener: std::net::TcpListener,
    control: std::os::unix::net::UnixStream,
    egress: std::os::unix::net::UnixStream,
    snapshot: OwnedFd,
    breadcrumb: OwnedFd,
}

/// Runs the worker until it is told to end or the agent is gone.
pub fn run(args: WorkerArgs) -> ExitCode {
    log_to_stdout(args.dev);
    match boot(&args) {
        Ok(status) => status,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(cause, "the worker cannot run: {error}");
            ExitCode::FAILURE
        }
    }
}

fn boot(args: &WorkerArgs) -> Result<ExitCode, WorkerError> {
    let inherited = Inherited::take(args)?;
    let cores = std::thread::available_parallelism()?.get();
    let threads = if args.threads == 0 {
        cores
    } else {
        args.threads
    };
    let client_limits = ClientLimits {
        connections: most_connections(args.max_connections),
        head_timeout: Duration::from_secs(args.head_timeout_seconds),
        stall_timeout: Duration::from_secs(args.stall_timeout_seconds),
    };
    // V8's own threads, made here, collect and compile.
    ffi_schedule::set_slice(ffi_schedule::STARTING);
    // Inside V8 at once: threads that serve, seats of those that compute for long, starts.
    memory::begin(Capacity::read(args.memory_bytes, threads + cores + threads))?;
    let landlock = jail::restrict_files_and_network()?;
    platform::initialize(cores.min(4) as u32);
    ffi_schedule::set_slice(ffi_schedule::SERVING);
    let snapshot = Snapshot::load(inherited.snapshot)?;
    let breadcrumb = Arc::new(Breadcrumb::map(File::from(inherited.breadcrumb))?);
    breadcrumb.mark_crashes()?;
    let stuck = CancellationToken::new();
    let (crumb, told) = (Arc::clone(&breadcrumb), stuck.clone());
    cpu::start_monitor(
        cores,
        Box::new(move |thread, _| {
            crumb.blame(thread);
            told.cancel();
        }),
    )?;
    let is_stuck = stuck.clone();
    let most_instances = match args.max_instances {
        0 => usize::MAX,
        given => given,
    };
    let pool = Pool::start(snapshot)?;
    let filled = Arc::clone(&pool);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(threads + cpu::extra_threads(cores))
        .thread_stack_size(platform::STACK_BYTES)
        .thread_name("worker")
        // One that computes has others made to take over from it, which would have its slice.
        .on_thread_start(|| ffi_schedule::set_slice(ffi_schedule::SERVING))
        .on_thread_park(outbox::rest)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        let listener = TcpListener::from_std(inherited.listener)?;
        let control = UnixStream::from_std(inherited.control)?;
        let egress_lost = CancellationToken::new();
        let egress = UnixStream::from_std(inherited.egress)?;
        let egress = Egress::new(egress, egress_lost.clone());
        let mut terminated = signal(SignalKind::terminate())?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        jail::restrict_system_calls()?;
        tracing::info!(threads, landlock, "worker ready");
        let services = Arc::new(Services {
            pool,
            breadcrumb: Some(breadcrumb),
            egress,
            accounts: Default::default(),
            metrics: metrics::Metrics::new(),
            starts: Semaphore::new(threads),
            start_log: Default::default(),
            server_timing: args.server_timing,
            most_instances: threads,
            gate: Gate::new(most_instances),
            runtime: tokio::runtime::Handle::current(),
        });
        let functions = Arc::new(Functions::new(
            services,
            args.domain.as_deref(),
            &args.cluster_domain,
        ));
        functions.keep_evicting()?;
        functions.keep_compacting()?;
        let (agent_gone, gone) = tokio::sync::oneshot::channel::<()>();
        let opened = CancellationToken::new();
        if !args.closed {
            opened.cancel();
        }
        let control = tokio::spawn(control_server::serve(
            control,
            Arc::clone(&functions),
            opened.clone(),
            agent_gone,
        ));
        let is_lost = egress_lost.clone();
        let shutdown = async move {
            tokio::select! {
                () = is_lost.cancelled() => tracing::error!("no Function can fetch any more: the worker is replaced"),
                _ = terminated.recv() => tracing::info!("told to end: draining"),
                _ = gone => tracing::warn!("the agent is gone: draining"),
                () = is_stuck.cancelled() => {}
                // Ctrl-C reaches the whole foreground group; the agent decides what it means.
                () = async { while interrupted.recv().await.is_some() {} } => {}
            }
        };
        let drain = Duration::from_secs(args.drain_seconds);
        tokio::pin!(shutdown);
        let serves = tokio::select! {
            () = opened.cancelled() => true,
            () = &mut shutdown => false,
        };
        let broken = async {
            egress_lost.cancelled().await;
            tokio::time::sleep(LAST_REQUESTS).await;
            // Without an agent nobody starts another: requests under way have the whole drain.
            if control.is_finished() {
                std::future::pending::<()>().await;
            }
        };
        if serves {
            tokio::select! {
                () = crate::server::serve(listener, functions, client_limits, shutdown, drain) => {}
                () = broken => {}
            }
        }
        let is_cut_off = egress_lost.is_cancelled() && !control.is_finished();
        control.abort();
        Ok(if stuck.is_cancelled() {
            ExitCode::from(cpu::STUCK_EXIT_STATUS)
        } else if is_cut_off {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    });
    filled.close();
    // Isolates and their threads end with the process.
    runtime.shutdown_background();
    outcome
}

/// Connections that the descriptors of this process suffice for; it takes as many of those as it may.
fn most_connections(wanted: usize) -> usize {
    files::raise()
        .map_or(wanted, |files| {
            usize::try_from(files - files / EGRESS_FILES).unwrap_or(usize::MAX)
        })
        .saturating_sub(OWN_FILES)
        .min(wanted)
        .max(1)
}

impl Inherited {
    fn take(args: &WorkerArgs) -> Result<Self, WorkerError> {
        let fds = args.fds();
        let take = |what, number| {
            ffi::inherited_fd(number).map_err(|source| WorkerError::Inherited {
                what,
                number,
                source,
            })
        };
        let inherited = Self {
            listener: take("listener", fds.listener)?.into(),
            control: take("control socket", fds.control)?.into(),
            egress: take("egress socket", fds.egress)?.into(),
            snapshot: take("snapshot", fds.snapshot)?,
            breadcrumb: take("breadcrumb", fds.breadcrumb)?,
        };
        inherited.listener.set_nonblocking(true)?;
        inherited.control.set_nonblocking(true)?;
        inherited.egress.set_nonblocking(true)?;
        Ok(inherited)
    }
}

fn log_to_stdout(dev: bool) {
    use tracing_subscriber::EnvFilter;
    if dev {
        return crate::dev::log::init();
    }
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .from_env_lossy();
    let lines = tracing_subscriber::fmt().with_env_filter(filter);
    // Fails only if a subscriber is there already, which is then as good.
    let _ = lines.json().flatten_event(true).try_init();
}
