//! The process that holds the Kubernetes token and decides; the worker that it runs has none and obeys.
//!
//! ```text
//! api (watches, cache) ──> loader + plan ──> control ──> worker process
//!                             │                            ^   │
//!                             v                     worker │   │ egress
//! operator <── server <── report                (supervision)  v
//!               auth                                     crate::egress
//! ```
//!
//! `node` is what `isolet agent` and `isolet dev` have in common; `run` is `isolet agent`.

pub mod api;
pub mod auth;
pub mod breadcrumb;
mod children;
pub mod code;
pub mod config;
pub mod control;
pub mod loader;
pub mod logging;
pub mod metrics;
pub mod node;
pub mod plan;
pub mod report;
pub mod server;
pub mod shutdown;
pub mod snapshot;
pub mod worker;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use crate::bundle::cache::Cache;
use auth::Auth;
use config::AgentArgs;
use node::{Node, NodeSettings, bind};
use server::AgentServer;

/// `isolet agent`: runs until SIGTERM or SIGINT.
pub async fn run(args: AgentArgs) -> anyhow::Result<()> {
    let mut signals = shutdown::Signals::new().context("failed to listen for signals")?;
    let client = kube::Client::try_default()
        .await
        .context("failed to find the API server: neither KUBECONFIG nor a ServiceAccount of a pod leads to one")?;
    let cache = args
        .cache_dir
        .as_deref()
        .map(|folder| {
            Cache::open(folder)
                .with_context(|| format!("failed to use --cache-dir {}", folder.display()))
        })
        .transpose()?;
    let listener =
        bind(args.listen).with_context(|| format!("failed to bind --listen {}", args.listen))?;
    let agent_listener = bind(args.agent_listen)
        .and_then(tokio::net::TcpListener::from_std)
        .with_context(|| format!("failed to bind --agent-listen {}", args.agent_listen))?;
    tracing::info!(
        listen = %listener.local_addr()?,
        agent_listen = %agent_listener.local_addr()?,
        namespace = args.namespace,
        "starting"
    );

    let (sender, source) = node::source();
    let settings = NodeSettings {
        listener,
        domain: args.domain.clone(),
        dev: false,
        server_timing: false,
        drain: Duration::from_secs(args.drain_seconds),
        max_instances: args.max_instances,
        policy: args.policy(),
        cache: cache.clone(),
    };
    let node = tokio::select! {
        node = Node::start(settings, source) => node?,
        () = signals.next() => return Ok(()),
    };
    tokio::spawn(api::run(
        client.clone(),
        args.namespace.clone(),
        cache,
        node.metrics.clone(),
        sender,
    ));
    let server = Arc::new(AgentServer {
        report: node.report.clone(),
        auth: Auth::new(client, args.operator_service_account.clone()),
        metrics: node.metrics.clone(),
        ready: node.ready.clone(),
        worker: node.worker.clone(),
        stopping: node.stopping(),
    });
    let stopped = CancellationToken::new();
    let serving = tokio::spawn(server.run(agent_listener, stopped.clone()));

    signals.next().await;
    tracing::info!("stopping; a second signal aborts");
    let abort = node.abort();
    tokio::select! {
        () = node.stop() => {}
        () = async { signals.next().await; abort.cancel(); std::future::pending().await } => {}
    }
    stopped.cancel();
    if serving.await.is_err() {
        tracing::error!("the agent's port failed");
    }
    Ok(())
}
