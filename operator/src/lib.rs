//! The operator: reconciles Functions into bundle objects for the runtime pods and reports what those serve.
//!
//! ```text
//! Function ──> dereference ──> validate ──> build ──> apply ──> bundle ConfigMaps, Secrets ──> agents
//!     ^          (client)       (pure)      (pure)   (client)                                    │
//!     └──────────────── status <── agents (long poll of every runtime pod) <─────────────────────┘
//!
//! controller    the reconcile, and the queue       routes      who holds which host and path
//! watches       Functions, bundles, DaemonSet      agents      runtime pods and what they serve
//! bundles       which bundle objects exist         sweep       bundle objects whose Function is gone
//! leader        Lease                              hosts       allowedHosts
//! ```
//!
//! [`run`] is the whole program; the binary adds the command line, logs and signals, and tests run several of it.

mod agents;
mod apply;
mod build;
mod bundles;
pub mod config;
mod context;
mod controller;
mod dereference;
mod events;
mod hosts;
mod leader;
mod metrics;
mod routes;
mod server;
pub mod signals;
mod status;
mod sweep;
mod triggers;
mod validate;
mod watches;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::config::Config;
use crate::context::Context;
use crate::hosts::{AllowedHosts, AllowedHostsError};
use crate::leader::Candidate;
use crate::metrics::Metrics;

/// The field manager of everything the operator writes, and its name in Events.
pub const FIELD_MANAGER: &str = "isolet-operator";

/// Why the operator ended, where it was not asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A file of the command line cannot be read.
    #[error("failed to read {flag} {path}: {source}")]
    File {
        /// The flag.
        flag: &'static str,
        /// Its value.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file of allowed hosts is no such file.
    #[error(transparent)]
    AllowedHosts(#[from] AllowedHostsError),
    /// The port of the metrics is taken.
    #[error("failed to listen on --metrics-addr {address}: {source}")]
    Listen {
        /// The flag's value.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Another operator leads. The process ends, so that its next start begins with nothing remembered.
    #[error("lost the Lease {0} to another operator, or could not renew it in time")]
    LostLead(String),
}

/// Runs the operator until `stop` resolves; then running reconciles end and the Lease is released.
pub async fn run(
    config: Config,
    client: Client,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), RunError> {
    let hosts_text = read_allowed_hosts(&config)?;
    let hosts = AllowedHosts::parse(&hosts_text, &config.domain)?;
    read("--token-file", &config.token_file)?;
    let address = config.metrics_addr;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| RunError::Listen { address, source })?;

    let (stopping, stopped) = watch::channel(false);
    let context = Arc::new(Context::new(client, config, hosts, Metrics::default()));
    let shown = Arc::new(Shown {
        context: context.clone(),
        leads: AtomicBool::new(false),
    });
    let _server = AbortOnDropHandle::new(tokio::spawn(server::serve(listener, shown.clone())));
    let _signal = AbortOnDropHandle::new(tokio::spawn(async move {
        stop.await;
        stopping.send_replace(true);
    }));

    lead(context, shown, hosts_text, stopped).await
}

/// Waits for the lead, works while it has it, and gives it up.
async fn lead(
    context: Arc<Context>,
    shown: Arc<Shown>,
    hosts_text: String,
    stopped: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let config = &context.config;
    let elected = !config.no_leader_election;
    let mut candidate = Candidate::new(
        context.client.clone(),
        &config.system_namespace,
        &config.lease_name,
        &config.identity,
    );
    if elected {
        tokio::select! {
            () = candidate.acquire() => {}
            () = until(stopped.clone()) => return Ok(()),
        }
    }
    tracing::info!(identity = config.identity, "leading");
    shown.leads.store(true, Ordering::Relaxed);
    context.metrics.leads(true);

    let (lost, was_lost) = watch::channel(false);
    let end = {
        let (stopped, was_lost) = (stopped.clone(), was_lost.clone());
        async move {
            tokio::select! {
                () = until(stopped) => {}
                () = until(was_lost) => {}
            }
        }
    };
    let holding = async {
        if elected {
            candidate.hold().await;
            lost.send_replace(true);
        }
        std::future::pending::<()>().await
    };
    tokio::select! {
        () = work(context.clone(), hosts_text, end) => {}
        () = holding => {}
    }
    context.metrics.leads(false);
    shown.leads.store(false, Ordering::Relaxed);
    if *was_lost.borrow() {
        return Err(RunError::LostLead(config.lease_name.clone()));
    }
    if elected && let Err(error) = candidate.release().await {
        tracing::warn!(%error, "failed to release the Lease; it expires by itself");
    }
    tracing::info!("stopped");
    Ok(())
}

/// All watches, pollers and reconciles, until `end` resolves and the reconciles under way are done.
async fn work(
    context: Arc<Context>,
    hosts_text: String,
    end: impl Future<Output = ()> + Send + 'static,
) {
    let _watches = [
        AbortOnDropHandle::new(tokio::spawn(watches::bundles(context.clone()))),
        AbortOnDropHandle::new(tokio::spawn(watches::owner(context.clone()))),
        AbortOnDropHandle::new(tokio::spawn(watches::hosts(context.clone(), hosts_text))),
        AbortOnDropHandle::new(tokio::spawn(agents::run(context.clone()))),
        AbortOnDropHandle::new(tokio::spawn(sweep::run(context.clone()))),
    ];
    controller::run(context, end).await;
}

async fn until(mut flag: watch::Receiver<bool>) {
    // A sender that is gone can never say so: wait for what ends the whole.
    if flag.wait_for(|set| *set).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn read_allowed_hosts(config: &Config) -> Result<String, RunError> {
    match &config.allowed_hosts_file {
        Some(path) => read("--allowed-hosts-file", path),
        None => Ok(String::new()),
    }
}

fn read(flag: &'static str, path: &std::path::Path) -> Result<String, RunError> {
    std::fs::read_to_string(path).map_err(|source| RunError::File {
        flag,
        path: path.to_owned(),
        source,
    })
}

/// What the server shows.
struct Shown {
    context: Arc<Context>,
    leads: AtomicBool,
}

impl server::Shown for Shown {
    fn metrics(&self) -> String {
        self.context.metrics.encode().unwrap_or_default()
    }

    fn is_ready(&self) -> bool {
        // A stand-by is ready to lead; a leader once it knows the Functions.
        !self.leads.load(Ordering::Relaxed) || self.context.functions.is_synced()
    }
}
