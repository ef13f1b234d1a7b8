//! CPU time of one request, over all its entries: for the log, the histogram and `Server-Timing`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Services;

/// Counts one request; goes into the histogram when the last handle is dropped.
#[derive(Debug)]
pub(super) struct Meter {
    used_ns: AtomicU64,
    services: Arc<Services>,
}

/// CPU time that a request had used when it gave its response: an extension of the response, where somebody wants to know.
#[derive(Clone, Copy, Debug)]
pub struct CpuTime(pub Duration);

impl Meter {
    pub(super) fn new(services: &Arc<Services>) -> Arc<Self> {
        Arc::new(Self {
            used_ns: AtomicU64::new(0),
            services: Arc::clone(services),
        })
    }

    pub(super) fn add(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.used_ns.fetch_add(ns, Ordering::Relaxed);
    }

    pub(super) fn used(&self) -> Duration {
        Duration::from_nanos(self.used_ns.load(Ordering::Relaxed))
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.services.metrics.request_used_cpu(self.used());
    }
}
