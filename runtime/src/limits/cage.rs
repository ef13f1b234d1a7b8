//! How V8's pointer cage is shared out: 4 GiB of addresses in which the heaps of all isolates lie.
//!
//! ```text
//! 0                                          tenants_bytes                               4 GiB
//! | common: heaps, as far as tenants' code may take | spare | reserve: the largest object that there is |
//! ```
//!
//! V8 ends the process where it finds no room for a page, be it that a string of 1 GiB does not fit because the rest lies in
//! pieces. So `isolate::ffi_cage` has V8 ask here. Tenants' code gets no more than the common part: past it, it waits until it is
//! the one that [grows](super::growth), to which the reserve belongs. What cannot wait, such as a collection amid which a page is
//! needed, or a start, takes what is spare, too.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::memory;

/// All of it. V8's constant `kPtrComprCageReservationSize`.
pub const CAGE_BYTES: usize = 4 << 30;
/// A page of V8's heaps, and what all regions are multiples of. V8's constant `kRegularPageSize`.
pub const PAGE_BYTES: usize = 256 << 10;
/// Kept for the one that grows: the largest object of V8, a string of 2^29 characters of two bytes, and what surrounds it.
pub const RESERVE_BYTES: usize = (1 << 30) + (16 << 20);
/// What one that cannot wait takes: a collection needs as much as survives of a young generation.
const SPARE_BYTES: usize = 16 << 20;
/// As many are counted on at least and at most.
const LEAST_SPARES: usize = 4;
const MOST_SPARES: usize = 32;

/// For what a thread takes pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taker {
    /// Tenants' code, which can wait.
    Tenant,
    /// Tenants' code that was told to end, as too many wait already.
    GivesWay,
    /// Tenants' code that found no room in the common part, and has the right to grow.
    Reserve,
    /// Whatever cannot wait.
    Other,
}

/// Regions of the reserve that are taken: their sizes by where they begin, from its begin.
#[derive(Debug, Default)]
struct Reserve {
    address: usize,
    regions: BTreeMap<usize, usize>,
}

thread_local! {
    static TAKER: Cell<Taker> = const { Cell::new(Taker::Other) };
}

/// All that heaps may have for as long as tenants' code may take more.
static TENANTS_BYTES: AtomicUsize = AtomicUsize::new(tenants_bytes(MOST_SPARES));
/// What is taken beside the reserve.
static USED: AtomicUsize = AtomicUsize::new(0);
/// What is taken of the reserve.
static RESERVE_USED: AtomicUsize = AtomicUsize::new(0);
static RESERVE: Mutex<Reserve> = Mutex::new(Reserve {
    address: usize::MAX,
    regions: BTreeMap::new(),
});

/// Has `take` take pages for this.
pub fn taking<R>(taker: Taker, take: impl FnOnce() -> R) -> R {
    let before = TAKER.replace(taker);
    let taken = take();
    TAKER.set(before);
    taken
}

/// Says how much tenants' code may take, once, before V8 makes its cage.
pub fn begin(tenants_bytes: usize) {
    TENANTS_BYTES.store(tenants_bytes, Ordering::Relaxed);
}

/// What all heaps may have for as long as tenants' code may take more, where so many threads are inside V8 at once.
pub const fn tenants_bytes(runs: usize) -> usize {
    let spares = if runs < LEAST_SPARES {
        LEAST_SPARES
    } else if runs > MOST_SPARES {
        MOST_SPARES
    } else {
        runs
    };
    CAGE_BYTES - RESERVE_BYTES - spares * SPARE_BYTES
}

/// Bytes that all heaps have beside the reserve.
pub fn used() -> usize {
    USED.load(Ordering::Relaxed)
}

/// Whether nothing lies in the reserve.
pub fn is_reserve_free() -> bool {
    RESERVE_USED.load(Ordering::Relaxed) == 0
}

/// V8 has made its cage, from this address on. Gives where the reserve begins, which V8 is to leave out.
pub fn made(address: usize) -> usize {
    let reserve_address = address + (CAGE_BYTES - RESERVE_BYTES);
    reserve().address = reserve_address;
    reserve_address
}

// V8 calls the following under the lock that it has for its cage, so no two of them run at once.

/// A region of so many bytes, for what this thread has said: `common` takes one beside the reserve.
pub fn allocate(bytes: usize, common: impl FnOnce() -> Option<usize>) -> Option<usize> {
    let taker = TAKER.get();
    if taker == Taker::Reserve {
        return reserve().allocate(bytes);
    }
    let tenants = TENANTS_BYTES.load(Ordering::Relaxed);
    let most = match taker {
        Taker::Tenant => tenants,
        Taker::GivesWay => tenants.midpoint(CAGE_BYTES - RESERVE_BYTES),
        Taker::Reserve | Taker::Other => usize::MAX,
    };
    if used().saturating_add(bytes) > most {
        return None;
    }
    let address = common()?;
    taken(bytes);
    Some(address)
}

/// So many bytes were taken where V8 wanted them.
pub fn taken(bytes: usize) {
    let before = USED.fetch_add(bytes, Ordering::Relaxed);
    memory::cage_changed(before, before + bytes);
}

/// Leaves the first bytes of a region to its owner; 0: none. Gives how many became free, 0 where there is no such region.
pub fn trim(address: usize, bytes: usize, common: impl FnOnce() -> usize) -> usize {
    let mut reserve = reserve();
    if let Some(at) = address.checked_sub(reserve.address) {
        return reserve.trim(at, bytes);
    }
    drop(reserve);
    let freed = common();
    // Saturating: what V8 took before it was asked here would be missing.
    let _ = USED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
        Some(used.saturating_sub(freed))
    });
    freed
}

/// Makes a region larger by so many bytes where it lies, if it can be. Not in the reserve, which is given out at once.
pub fn grow(address: usize, more_bytes: usize, common: impl FnOnce() -> bool) -> bool {
    let fits = used().saturating_add(more_bytes) <= TENANTS_BYTES.load(Ordering::Relaxed);
    let grows = fits && address < reserve().address && common();
    if grows {
        taken(more_bytes);
    }
    grows
}

impl Reserve {
    /// The first gap that is large enough.
    fn allocate(&mut self, bytes: usize) -> Option<usize> {
        let mut at = 0;
        for (begin, size) in &self.regions {
            if begin - at >= bytes {
                break;
            }
            at = begin + size;
        }
        if RESERVE_BYTES - at < bytes || self.address == usize::MAX {
            return None;
        }
        self.regions.insert(at, bytes);
        RESERVE_USED.fetch_add(bytes, Ordering::Relaxed);
        Some(self.address + at)
    }

    fn trim(&mut self, at: usize, bytes: usize) -> usize {
        let Some(size) = self.regions.get_mut(&at) else {
            return 0;
        };
        let freed = size.saturating_sub(bytes);
        *size -= freed;
        if bytes == 0 {
            self.regions.remove(&at);
        }
        RESERVE_USED.fetch_sub(freed, Ordering::Relaxed);
        freed
    }
}

/// No code panics while it holds this lock, so poison carries no news.
fn reserve() -> MutexGuard<'static, Reserve> {
    RESERVE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: usize = 1 << 40;

    /// One test, as there is one cage. None of V8's is made here.
    #[test]
    fn tenants_wait_before_all_is_taken_and_the_reserve_is_for_one_that_grows() {
        let address = made(BASE);
        assert_eq!(address, BASE + CAGE_BYTES - RESERVE_BYTES);
        let most = TENANTS_BYTES.load(Ordering::Relaxed);
        let take = |taker, bytes| taking(taker, || allocate(bytes, || Some(BASE)));

        assert_eq!(take(Taker::Tenant, most - PAGE_BYTES), Some(BASE));
        assert_eq!(take(Taker::Tenant, 2 * PAGE_BYTES), None);
        assert!(!grow(BASE, 2 * PAGE_BYTES, || true));
        assert_eq!(take(Taker::Tenant, PAGE_BYTES), Some(BASE));
        assert_eq!(take(Taker::Tenant, PAGE_BYTES), None);
        assert_eq!(take(Taker::GivesWay, SPARE_BYTES * MOST_SPARES), None);
        assert_eq!(take(Taker::Other, PAGE_BYTES), Some(BASE));
        assert_eq!(used(), most + PAGE_BYTES);
        assert_eq!(trim(BASE, 0, || 2 * PAGE_BYTES), 2 * PAGE_BYTES);
        assert!(!grow(BASE, PAGE_BYTES, || false));
        assert!(grow(BASE, PAGE_BYTES, || true));
        assert_eq!(used(), most);

        assert!(is_reserve_free());
        let largest = 1 << 30;
        assert_eq!(take(Taker::Reserve, largest), Some(address));
        assert_eq!(take(Taker::Reserve, largest), None);
        let second = take(Taker::Reserve, 3 * PAGE_BYTES);
        assert_eq!(second, Some(address + largest));
        // A region that became shorter leaves a gap, which is used again.
        assert_eq!(trim(address, PAGE_BYTES, || 1), largest - PAGE_BYTES);
        let third = take(Taker::Reserve, 2 * PAGE_BYTES);
        assert_eq!(third, Some(address + PAGE_BYTES));
        assert!(!grow(address + PAGE_BYTES, PAGE_BYTES, || true));
        assert_eq!(trim(address, 0, || 1), PAGE_BYTES);
        assert_eq!(trim(address, 0, || 1), 0, "it is gone");
        for (region, pages) in [(second, 3), (third, 2)] {
            assert!(!is_reserve_free());
            assert_eq!(trim(region.unwrap(), 0, || 1), pages * PAGE_BYTES);
        }
        assert!(is_reserve_free());
        assert_eq!(used(), most);
    }
}
