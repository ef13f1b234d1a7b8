//! CPU time of one request, over all its entries: for the log, the histogram and `Server-Timing`.

use std::sync::Arc;
use std::time::Duration;

use super::Services;

/// Counts one request; goes into the histogram when it is dropped.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) used: Duration,
    services: Arc<Services>,
}

impl Meter {
    pub(super) fn new(services: Arc<Services>) -> Self {
        Self {
            used: Duration::ZERO,
            services,
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.services.metrics.request_used_cpu(self.used);
    }
}
