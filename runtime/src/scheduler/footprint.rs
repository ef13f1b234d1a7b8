//! What an instance occupied after its last entry, and whether a collection of garbage is worth its time now.
//!
//! V8 lets a heap grow for as long as it is used: at a few hundred requests an instance has two to five times the memory it
//! needs, garbage most of it. A collection in a pause gives that back.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Time without a request after which any instance is collected where memory is tight.
const TIGHT_PAUSE: Duration = Duration::from_millis(100);
/// The same for one that has [grown](GROWN_BYTES) where it is not.
const PAUSE: Duration = Duration::from_secs(1);
/// The same for one that never was: many get one request and then go, and theirs would be in vain.
const QUIET: Duration = Duration::from_secs(5);
/// The same for all others: a collection takes 0.6 ms of CPU time and brings 20 to 45 KB after the first.
const LONG_QUIET: Duration = Duration::from_secs(60);
/// Growth since the last collection that makes the next one worth it, at least; for a large heap, which takes longer to
/// collect, it is half of what that one left.
const GROWN_BYTES: usize = 768 << 10;

/// Of one instance.
#[derive(Debug, Default)]
pub(super) struct Footprint {
    /// After the last entry or collection; 0 before the first.
    bytes: AtomicUsize,
    /// After the first entry, then after each collection; 0 before.
    base_bytes: AtomicUsize,
    /// Nothing ran since the last collection.
    is_compact: AtomicBool,
    was_collected: AtomicBool,
}

impl Footprint {
    /// What it occupies, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// An entry left it with so many bytes.
    pub(super) fn used(&self, bytes: usize) {
        self.bytes.store(bytes, Ordering::Relaxed);
        if self.base_bytes.load(Ordering::Relaxed) == 0 {
            self.base_bytes.store(bytes, Ordering::Relaxed);
        }
        self.is_compact.store(false, Ordering::Relaxed);
    }

    /// Whether it is time to collect an instance that has had no request for so long, where memory is tight or not.
    pub(super) fn is_due(&self, unused: Duration, is_tight: bool) -> bool {
        if self.is_compact.load(Ordering::Relaxed) {
            return false;
        }
        let base = self.base_bytes.load(Ordering::Relaxed);
        let grown = self.bytes().saturating_sub(base);
        let quiet = if is_tight {
            TIGHT_PAUSE
        } else if grown >= GROWN_BYTES.max(base / 2) {
            PAUSE
        } else if self.was_collected.load(Ordering::Relaxed) {
            LONG_QUIET
        } else {
            QUIET
        };
        unused >= quiet
    }

    /// A collection begins, unless nothing ran since the last one.
    pub(super) fn begin(&self) -> bool {
        !self.is_compact.swap(true, Ordering::Relaxed)
    }

    /// A collection left it with so many bytes.
    pub(super) fn collected(&self, bytes: usize) {
        self.was_collected.store(true, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        self.base_bytes.store(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn is_due(footprint: &Footprint, unused_s: u64) -> bool {
        footprint.is_due(Duration::from_secs(unused_s), false)
    }

    #[test]
    fn collections_are_rare_where_they_bring_little() {
        let footprint = Footprint::default();
        footprint.used(MIB);
        assert!(!is_due(&footprint, 4) && is_due(&footprint, 5));
        assert!(footprint.begin() && !footprint.begin());
        footprint.collected(MIB - 1);
        assert!(!is_due(&footprint, 1000), "nothing ran since");
        footprint.used(MIB);
        assert!(!is_due(&footprint, 59) && is_due(&footprint, 60));
    }

    #[test]
    fn collections_are_early_where_memory_is_tight() {
        let footprint = Footprint::default();
        let is_due = |unused_s| footprint.is_due(Duration::from_secs(unused_s), true);
        footprint.used(MIB);
        assert!(!is_due(0) && is_due(1));
        assert!(footprint.begin());
        footprint.collected(MIB);
        assert!(!is_due(1000), "nothing ran since");
        footprint.used(MIB);
        assert!(is_due(1));
    }

    #[test]
    fn one_that_has_grown_is_collected_in_the_first_pause() {
        let footprint = Footprint::default();
        footprint.used(MIB);
        footprint.used(2 * MIB);
        assert!(!is_due(&footprint, 0) && is_due(&footprint, 1));
        assert!(footprint.begin());
        footprint.collected(10 * MIB);
        footprint.used(14 * MIB);
        assert!(!is_due(&footprint, 1), "it took long, for little");
        footprint.used(15 * MIB);
        assert!(is_due(&footprint, 1));
    }
}
