//! CPU time of one request, over all its entries: for the log, the histogram and `Server-Timing`.

use std::time::Duration;

use super::functions::Permit;

/// Counts one request; goes into the histogram when it is dropped, and gives its place back.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) used: Duration,
    permit: Permit,
}

impl Meter {
    pub(super) fn new(permit: Permit) -> Self {
        Self {
            used: Duration::ZERO,
            permit,
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let services = &self.permit.revision().services;
        services.metrics.request_used_cpu(self.used);
    }
}
