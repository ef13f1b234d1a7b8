//! Logs of the agent: JSON lines in a cluster, plain text for people in `isolet dev`. `RUST_LOG` filters both.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// The client's own line about a failed request says nothing that ours, with more in it, does not.
const CLIENT: &str = "kube_client::client::builder=off";

/// One JSON line an event, on standard output, from `info` on.
pub fn json() {
    let mut filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    if let Ok(directive) = CLIENT.parse() {
        filter = filter.add_directive(directive);
    }
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(std::io::stdout)
        .finish();
    // Fails only where a test has set one before.
    let _ = subscriber.try_init();
}

/// Warnings and errors of the agent itself, on standard error: what a developer should see is printed by `dev`.
pub fn text() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    let subscriber = tracing_subscriber::fmt()
        .compact()
        .without_time()
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .finish();
    let _ = subscriber.try_init();
}
