//! What a connection is at: whether a request is under way, or since when the next one is awaited.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The requests of one connection.
#[derive(Debug)]
pub(super) struct Exchanges {
    began: Instant,
    under_way: AtomicU32,
    /// When the last answer ended, in nanoseconds from the connection's begin.
    idle_since: AtomicU64,
}

/// A request, from its head to the end of its answer.
#[derive(Debug)]
pub(super) struct Exchange(Arc<Exchanges>);

impl Exchanges {
    /// Of a connection that begins now.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            under_way: AtomicU32::new(0),
            idle_since: AtomicU64::new(0),
        })
    }

    /// A request's head has come.
    pub(super) fn begin(self: &Arc<Self>) -> Exchange {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Exchange(Arc::clone(self))
    }

    /// Since when the head of a request is awaited; none while a request is under way.
    fn awaits_head_since(&self) -> Option<Instant> {
        let is_idle = self.under_way.load(Ordering::Relaxed) == 0;
        let since = Duration::from_nanos(self.idle_since.load(Ordering::Relaxed));
        is_idle.then(|| self.began + since)
    }

    /// When the head of a request will have been awaited for so long, as far as is known now; none if it has been.
    pub(super) fn idle_until(&self, limit: Duration) -> Option<Instant> {
        let now = Instant::now();
        let until = self.awaits_head_since().unwrap_or(now) + limit;
        (until > now).then_some(until)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let since = self.0.began.elapsed().as_nanos() as u64;
        self.0.idle_since.store(since, Ordering::Relaxed);
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_awaited_from_the_end_of_the_last_answer() {
        let exchanges = Exchanges::new();
        assert_eq!(exchanges.awaits_head_since(), Some(exchanges.began));
        let (first, second) = (exchanges.begin(), exchanges.begin());
        drop(first);
        assert_eq!(exchanges.awaits_head_since(), None);
        let before = Instant::now();
        drop(second);
        let since = exchanges.awaits_head_since().unwrap();
        assert!(since >= before && since <= Instant::now());
    }
}
