//! Code of one revision as its instances share it: source texts, and what V8 compiled of them.
//!
//! ```text
//! the agent's PUT ->  CodeCache.offered: what `isolet compile` made of the same revision for an earlier worker
//! instance ends   ->  CodeCache.keep: what it has compiled of each module, once after a start and once after a request
//! next start      ->  given to the compiler, which refuses what does not fit (another text, V8 version or flags)
//! ```
//!
//! What instances leave lies in the worker's memory only and never goes to the agent: tenants' code has run in this process.
//! V8 trusts compiled code, it checks no more than versions, flags and the text's length. So what the agent offers is made
//! by a process of its own that runs nothing (see `compile`), and checked by its digest before it comes here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::control::{MAX_CODE_BYTES, SentCode};

/// Source of this size is worth a process and a file of its own for what is compiled of it.
const LARGER_SOURCE_BYTES: usize = 4 << 10;
/// Cache of one revision.
const MOST_BYTES: usize = MAX_CODE_BYTES;
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
    /// What the agent sent.
    sent: SentCode,
}

/// How much of the code the instance had run whose work is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// None is kept.
    #[default]
    Nothing,
    /// None, but what compiling alone makes is there.
    Compiled,
    /// Its top level.
    Started,
    /// Its handler.
    Served,
}

impl CodeCache {
    /// Whether a module of so many bytes is one of the larger: the agent keeps its code for the next worker, and V8 compiles
    /// its functions when they are called. Smaller ones take longer to be made so than to be compiled at once.
    pub(super) fn is_larger(source_bytes: usize) -> bool {
        source_bytes >= LARGER_SOURCE_BYTES
    }

    /// What the agent kept of this revision. Something else than [`encode`] made, or for another V8, counts as refused.
    pub(super) fn offered(bytes: &[u8]) -> Self {
        let cache = Self::default();
        let modules = decode(bytes);
        cache.state().sent = match modules {
            Some(_) => SentCode::Good,
            None => SentCode::Refused,
        };
        cache.keep(Stage::Compiled, modules.unwrap_or_default());
        cache
    }

    /// What became of the agent's copy.
    pub(super) fn sent(&self) -> SentCode {
        self.state().sent
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
        if state.sent == SentCode::Good {
            state.sent = SentCode::Refused;
        }
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

/// What the compiled code of this process depends on, beside the text and the snapshot: V8's version, its flags and the
/// CPU's features. Needs V8 to be initialised.
fn version_tag() -> u32 {
    v8::script_compiler::cached_data_version_tag()
}

/// For the agent to keep: `tag | (length of path | path | length of code | code)...`, numbers are u32 LE.
pub(super) fn encode(modules: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = version_tag().to_le_bytes().to_vec();
    for part in modules
        .iter()
        .flat_map(|(path, code)| [path.as_bytes(), code])
    {
        bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

/// What [`encode`] made in a process of the same version tag.
fn decode(bytes: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let mut rest = bytes.strip_prefix(&version_tag().to_le_bytes())?;
    let mut modules = Vec::new();
    while !rest.is_empty() {
        let path = String::from_utf8(part(&mut rest)?.to_vec()).ok()?;
        modules.push((path, part(&mut rest)?.to_vec()));
    }
    Some(modules)
}

fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (part, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = after;
    Some(part)
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

    #[test]
    fn what_was_encoded_decodes_and_nothing_else() {
        let modules = vec![
            ("main.js".to_owned(), vec![1, 2, 3]),
            ("a/b.js".to_owned(), vec![]),
        ];
        let whole = encode(&modules);
        assert_eq!(decode(&whole), Some(modules));
        let mut other_v8 = whole.clone();
        other_v8[0] ^= 1;
        assert_eq!(decode(&other_v8), None);
        let cuts: Vec<usize> = (0..whole.len())
            .filter(|length| decode(&whole[..*length]).is_some())
            .collect();
        // Nothing, or whole modules.
        assert_eq!(cuts, [4, 4 + 4 + 7 + 4 + 3]);
        assert_eq!(CodeCache::offered(&whole).sent(), SentCode::Good);
        assert_eq!(CodeCache::offered(&[]).sent(), SentCode::Refused);
        assert_eq!(CodeCache::default().sent(), SentCode::Missing);
    }
}
