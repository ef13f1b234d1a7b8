//! Code of one revision as its instances share it: source texts, and what V8 compiled of them.
//!
//! ```text
//! instance ends  ->  CodeCache.keep: what it has compiled of each module, once after a start and once after a request
//! next start     ->  offered to the compiler, which refuses what does not fit (another text, V8 version or flags)
//! ```
//!
//! The cache lies in the worker's memory only, beside the revision that it belongs to, so that its key is the revision
//! itself: content, V8 and flags are the same by construction. What V8 refuses all the same is dropped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Source below this size is compiled faster than a cache is read.
const SMALLEST_SOURCE_BYTES: usize = 4 << 10;
/// Cache of one revision.
const MOST_BYTES: usize = 2 << 20;
/// Caches of all revisions of the process.
const MOST_BYTES_TOGETHER: usize = 128 << 20;

static BYTES_TOGETHER: AtomicUsize = AtomicUsize::new(0);

/// What V8 compiled of a revision's modules.
#[derive(Debug, Default)]
pub(super) struct CodeCache {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    by_path: HashMap<String, Arc<[u8]>>,
    bytes: usize,
    stage: Stage,
}

/// How much of the code the instance had run whose work is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// None is kept.
    #[default]
    Nothing,
    /// Its top level.
    Started,
    /// Its handler.
    Served,
}

impl CodeCache {
    /// Whether a module is worth it.
    pub(super) fn suits(source: &[u8]) -> bool {
        source.len() >= SMALLEST_SOURCE_BYTES
    }

    /// What was compiled of a module before.
    pub(super) fn of(&self, path: &str) -> Option<Arc<[u8]>> {
        self.state().by_path.get(path).cloned()
    }

    /// Whether an instance that has come so far knows more than what is kept.
    pub(super) fn wants(&self, stage: Stage) -> bool {
        stage > self.state().stage
    }

    /// Keeps an instance's work, unless it is too much.
    pub(super) fn keep(&self, stage: Stage, modules: Vec<(String, Vec<u8>)>) {
        let bytes: usize = modules.iter().map(|(_, code)| code.len()).sum();
        let mut state = self.state();
        if stage <= state.stage {
            return;
        }
        state.stage = stage;
        if bytes > MOST_BYTES {
            return;
        }
        state.clear();
        let fits = BYTES_TOGETHER
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |together| {
                let sum = together + bytes;
                (sum <= MOST_BYTES_TOGETHER).then_some(sum)
            })
            .is_ok();
        if fits {
            state.bytes = bytes;
            state.by_path = modules
                .into_iter()
                .map(|(path, code)| (path, code.into()))
                .collect();
        }
    }

    /// Gives up what V8 refused.
    pub(super) fn drop_refused(&self, path: &str) {
        let mut state = self.state();
        if let Some(code) = state.by_path.remove(path) {
            state.bytes -= code.len();
            BYTES_TOGETHER.fetch_sub(code.len(), Ordering::Relaxed);
        }
    }

    /// No code panics while it holds this lock, so poison carries no news.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn clear(&mut self) {
        BYTES_TOGETHER.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = 0;
        self.by_path.clear();
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(bytes: usize) -> Vec<(String, Vec<u8>)> {
        vec![("main.js".to_owned(), vec![7; bytes])]
    }

    #[test]
    fn later_work_replaces_earlier_and_too_much_is_not_kept() {
        let cache = CodeCache::default();
        assert!(cache.wants(Stage::Started));
        cache.keep(Stage::Started, code(10));
        assert!(!cache.wants(Stage::Started));
        cache.keep(Stage::Started, code(20));
        assert_eq!(cache.of("main.js").map(|code| code.len()), Some(10));
        cache.keep(Stage::Served, code(30));
        assert_eq!(cache.of("main.js").map(|code| code.len()), Some(30));
        assert!(!cache.wants(Stage::Served));
        cache.drop_refused("main.js");
        assert_eq!(cache.of("main.js"), None);

        let large = CodeCache::default();
        large.keep(Stage::Started, code(MOST_BYTES + 1));
        assert_eq!(large.of("main.js"), None);
        assert!(!large.wants(Stage::Started));
    }

    #[test]
    fn all_caches_together_are_bounded_and_give_back_what_they_took() {
        let count = MOST_BYTES_TOGETHER / MOST_BYTES;
        let caches: Vec<_> = (0..count + 1)
            .map(|_| {
                let cache = CodeCache::default();
                cache.keep(Stage::Served, code(MOST_BYTES));
                cache
            })
            .collect();
        let kept = caches
            .iter()
            .filter(|it| it.of("main.js").is_some())
            .count();
        assert!((count - 1..=count).contains(&kept), "{kept}");
        drop(caches);
        let cache = CodeCache::default();
        cache.keep(Stage::Served, code(MOST_BYTES));
        assert!(cache.of("main.js").is_some());
    }
}
