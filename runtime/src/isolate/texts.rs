//! Texts of modules, once in the process: Functions with the same code share its text, as do all instances of one.
//!
//! Equal are texts of the same bytes; no digest is trusted. What nobody has any more goes.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

/// Below this size a text is not worth being looked up.
const SMALLEST_BYTES: usize = 4 << 10;
/// Below this size an instance copies it: V8's record of a string that lies elsewhere costs more.
const SMALLEST_SHARED_BYTES: usize = 1 << 10;
/// Entries from which on those of texts that are gone are looked for, and after that at twice as many as were left.
const LEAST_ENTRIES: usize = 64;

static TEXTS: LazyLock<Mutex<Texts>> = LazyLock::new(Mutex::default);

/// The text, as others have it already.
pub(super) fn share(text: String) -> Arc<str> {
    if text.len() < SMALLEST_BYTES {
        return text.into();
    }
    // No code panics while it holds this lock, so poison carries no news.
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    texts.share(text)
}

/// Whether instances read the text where it lies. V8 takes only ASCII so, else they have copies.
pub(super) fn is_shared(text: &str) -> bool {
    (SMALLEST_SHARED_BYTES..=v8::String::MAX_LENGTH).contains(&text.len()) && text.is_ascii()
}

#[derive(Debug)]
struct Texts {
    hasher: RandomState,
    by_hash: HashMap<u64, Vec<Weak<str>>>,
    entries: usize,
    sweep_at: usize,
}

impl Default for Texts {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            by_hash: HashMap::new(),
            entries: 0,
            sweep_at: LEAST_ENTRIES,
        }
    }
}

impl Texts {
    fn share(&mut self, text: String) -> Arc<str> {
        if self.entries >= self.sweep_at {
            self.sweep();
        }
        let hash = self.hasher.hash_one(text.as_str());
        let equal = self.by_hash.entry(hash).or_default();
        let known = equal
            .iter()
            .filter_map(Weak::upgrade)
            .find(|it| **it == *text);
        if let Some(known) = known {
            return known;
        }
        let text: Arc<str> = text.into();
        equal.push(Arc::downgrade(&text));
        self.entries += 1;
        text
    }

    fn sweep(&mut self) {
        self.by_hash.retain(|_, equal| {
            equal.retain(|it| it.strong_count() > 0);
            !equal.is_empty()
        });
        self.entries = self.by_hash.values().map(Vec::len).sum();
        self.sweep_at = (self.entries * 2).max(LEAST_ENTRIES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(of: char) -> String {
        String::from_iter([of; SMALLEST_BYTES])
    }

    #[test]
    fn equal_texts_are_one() {
        let one = share(text('a'));
        assert!(Arc::ptr_eq(&one, &share(text('a'))));
        assert!(!Arc::ptr_eq(&one, &share(text('b'))));
        let small = share("a".into());
        assert!(!Arc::ptr_eq(&small, &share("a".into())));
    }

    #[test]
    fn what_nobody_has_goes() {
        let mut texts = Texts::default();
        let kept = texts.share(text('k'));
        for index in 0..10_000 {
            texts.share(format!("{index} {}", text('x')));
            assert!(texts.entries <= LEAST_ENTRIES);
        }
        assert!(Arc::ptr_eq(&kept, &texts.share(text('k'))));
        let all: Vec<_> = (0..1000).map(|it| texts.share(format!("{it}"))).collect();
        assert!(texts.entries >= all.len());
    }
}
