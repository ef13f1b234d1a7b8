//! Wall time of a request: from its arrival to the end of its response.
//!
//! The clock is armed only for a request that its first entry did not finish: most never need the timer.

use std::future::Future;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Runs something at a request's deadline unless the request ends first.
#[derive(Debug)]
pub struct WallClock(AbortHandle);

impl WallClock {
    /// Starts the clock.
    pub fn arm<F>(deadline: Instant, expire: F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self(
            tokio::spawn(async move {
                tokio::time::sleep_until(deadline).await;
                expire.await;
            })
            .abort_handle(),
        )
    }
}

impl Drop for WallClock {
    fn drop(&mut self) {
        self.0.abort();
    }
}
