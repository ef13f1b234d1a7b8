//! What this node serves, as a log that can be followed: versions, deltas, long poll.
//!
//! A cursor is `EPOCH.N`: the epoch is new at each start, N counts changes. Removals are remembered up to a bound; who asks
//! from before it gets the whole state.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isolet_crds::report::{FunctionReport, FunctionsReport};
use tokio::sync::watch;

const REMEMBERED_REMOVALS: usize = 4096;

/// The log.
pub struct ReportLog {
    epoch: String,
    state: Mutex<State>,
    version: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    version: u64,
    functions: BTreeMap<String, (u64, FunctionReport)>,
    removed: VecDeque<(u64, String)>,
    /// Removals up to this version are forgotten.
    forgotten: u64,
}

impl Default for ReportLog {
    fn default() -> Self {
        Self::new()
    }
}

impl ReportLog {
    /// An empty log of a new epoch.
    pub fn new() -> Self {
        Self {
            epoch: format!(
                "{:016x}",
                getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()))
            ),
            state: Mutex::default(),
            version: watch::Sender::new(0),
        }
    }

    /// A Function's state; nothing happens where it is the old one.
    pub fn set(&self, report: FunctionReport) {
        let mut state = self.lock();
        if state
            .functions
            .get(&report.uid)
            .is_some_and(|(_, old)| *old == report)
        {
            return;
        }
        state.version += 1;
        let version = state.version;
        state
            .functions
            .insert(report.uid.clone(), (version, report));
        drop(state);
        self.version.send_replace(version);
    }

    /// A Function is gone.
    pub fn remove(&self, uid: &str) {
        let mut state = self.lock();
        if state.functions.remove(uid).is_none() {
            return;
        }
        state.version += 1;
        let version = state.version;
        state.removed.push_back((version, uid.to_owned()));
        if state.removed.len() > REMEMBERED_REMOVALS
            && let Some((version, _)) = state.removed.pop_front()
        {
            state.forgotten = version;
        }
        drop(state);
        self.version.send_replace(version);
    }

    /// What is new since the cursor, or everything.
    pub fn since(&self, cursor: Option<&str>) -> FunctionsReport {
        let state = self.lock();
        let since = self
            .parse(cursor)
            .filter(|since| (state.forgotten..=state.version).contains(since));
        let after = since.unwrap_or(0);
        let mut removed: Vec<String> = match since {
            None => Vec::new(),
            Some(_) => state
                .removed
                .iter()
                .filter(|(version, uid)| *version > after && !state.functions.contains_key(uid))
                .map(|(_, uid)| uid.clone())
                .collect(),
        };
        removed.sort();
        removed.dedup();
        FunctionsReport {
            cursor: format!("{}.{}", self.epoch, state.version),
            full: since.is_none(),
            functions: state
                .functions
                .values()
                .filter(|(version, _)| since.is_none() || *version > after)
                .map(|(_, report)| report.clone())
                .collect(),
            removed,
        }
    }

    /// The same, but waits for news if there is none.
    pub async fn wait(&self, cursor: Option<&str>, timeout: Duration) -> FunctionsReport {
        let mut version = self.version.subscribe();
        if let Some(since) = self.parse(cursor) {
            // A timeout answers with an empty delta.
            let news = version.wait_for(|version| *version != since);
            let _ = tokio::time::timeout(timeout, news).await;
        }
        self.since(cursor)
    }

    fn parse(&self, cursor: Option<&str>) -> Option<u64> {
        let (epoch, version) = cursor?.split_once('.')?;
        if epoch == self.epoch {
            version.parse().ok()
        } else {
            None
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isolet_crds::report::Serving;

    fn report(uid: &str, revision: &str) -> FunctionReport {
        FunctionReport {
            uid: uid.into(),
            serving: Some(Serving {
                revision: revision.into(),
            }),
            ..Default::default()
        }
    }

    fn uids(report: &FunctionsReport) -> Vec<&str> {
        report
            .functions
            .iter()
            .map(|function| function.uid.as_str())
            .collect()
    }

    #[test]
    fn first_everything_then_only_news() {
        let log = ReportLog::new();
        log.set(report("a", "1"));
        log.set(report("b", "1"));
        let all = log.since(None);
        assert!(all.full);
        assert_eq!(uids(&all), ["a", "b"]);
        log.set(report("a", "1"));
        let nothing = log.since(Some(&all.cursor));
        assert_eq!(nothing.cursor, all.cursor, "an equal state is no news");
        log.set(report("b", "2"));
        log.remove("a");
        let delta = log.since(Some(&all.cursor));
        assert!(!delta.full);
        assert_eq!(uids(&delta), ["b"]);
        assert_eq!(delta.removed, ["a"]);
        log.set(report("a", "3"));
        let back = log.since(Some(&all.cursor));
        assert_eq!(uids(&back), ["a", "b"]);
        assert!(back.removed.is_empty(), "it came back");
    }

    #[test]
    fn another_epoch_a_future_or_a_forgotten_cursor_get_the_whole_state() {
        let log = ReportLog::new();
        log.set(report("a", "1"));
        let cursor = log.since(None).cursor;
        for other in ["", "x", "0.1", "x.1", &format!("{cursor}9")] {
            assert!(log.since(Some(other)).full, "{other}");
        }
        for number in 0..=REMEMBERED_REMOVALS {
            let uid = format!("n{number}");
            log.set(report(&uid, "1"));
            log.remove(&uid);
        }
        assert!(log.since(Some(&cursor)).full);
    }

    #[tokio::test]
    async fn a_poll_ends_with_news_or_with_an_empty_delta() {
        let log = std::sync::Arc::new(ReportLog::new());
        let cursor = log.since(None).cursor;
        let empty = log.wait(Some(&cursor), Duration::from_millis(1)).await;
        assert_eq!(empty.cursor, cursor);
        assert!(!empty.full && empty.functions.is_empty());
        let waiting = tokio::spawn({
            let (log, cursor) = (log.clone(), cursor.clone());
            async move { log.wait(Some(&cursor), Duration::from_secs(60)).await }
        });
        tokio::task::yield_now().await;
        log.set(report("a", "1"));
        let news = waiting.await.unwrap();
        assert_eq!(uids(&news), ["a"]);
    }
}
