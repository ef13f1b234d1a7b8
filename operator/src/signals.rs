//! SIGTERM and SIGINT: the first asks the operator to stop, the second ends the process.

use std::future::Future;
use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Resolves with the first signal. Must be called inside the runtime.
pub fn stop() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut next = async move || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    Ok(async move {
        next().await;
        tracing::info!("stopping");
        tokio::spawn(async move {
            next().await;
            std::process::exit(130);
        });
    })
}
