//! Which revisions have started for a request, for the agent: it keeps what V8 compiles of those that are used.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::sync::Notify;

use super::lock;
use crate::control::{Start, Starts};

/// Starts in one answer, which the agent bounds in size.
const AT_ONCE: usize = 100;

/// What the agent has not been told yet. Bounded by the Functions that it sent.
#[derive(Debug, Default)]
pub struct StartLog {
    by_uid: Mutex<BTreeMap<String, Start>>,
    grown: Notify,
}

impl StartLog {
    /// Notes a start.
    pub(super) fn note(&self, start: Start) {
        lock(&self.by_uid).insert(start.uid.clone(), start);
        self.grown.notify_one();
    }

    /// What was noted since the last call, or the first part of it; waits until there is something. For one caller at a
    /// time.
    pub async fn next(&self) -> Starts {
        loop {
            let starts = self.take();
            if !starts.0.is_empty() {
                return starts;
            }
            self.grown.notified().await;
        }
    }

    fn take(&self) -> Starts {
        let mut by_uid = lock(&self.by_uid);
        let some = std::iter::from_fn(|| by_uid.pop_first());
        Starts(some.take(AT_ONCE).map(|(_, start)| start).collect())
    }
}
