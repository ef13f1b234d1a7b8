//! Memory of all instances together: V8's heaps and what is charged outside them.
//!
//! All isolates of a process share V8's 4 GiB pointer cage, and V8 aborts the process where it is used up. So:
//!
//! ```text
//! > EASY_BYTES       the coldest idle instances go (`scheduler::eviction`)
//! > FULL_BYTES       no further instance starts (503, Retry-After), none is made in advance
//! > CRITICAL_BYTES   an instance with more than its share that runs and grows is ended, as if past its own limit;
//!                    array buffers fail
//! ```
//!
//! The rest of the cage is room for what runs between two measurements. Each heap is measured after each of its garbage
//! collections and after each entry.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Above this the coldest idle instances go.
pub const EASY_BYTES: usize = 2 << 30;
/// Above this nothing starts.
const FULL_BYTES: usize = (2 << 30) + (256 << 20);
/// Above this those that grow are ended.
const CRITICAL_BYTES: usize = (2 << 30) + (512 << 20);
/// What no instance is ended for.
const LEAST_SHARE_BYTES: usize = 4 << 20;

/// One for the process, as there is one cage.
static BYTES: AtomicUsize = AtomicUsize::new(0);
static BUDGETS: AtomicUsize = AtomicUsize::new(0);
static ALARM: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

/// Memory of all instances, in bytes.
pub fn bytes() -> usize {
    BYTES.load(Ordering::Relaxed)
}

/// Whether nothing more may start.
pub fn is_full() -> bool {
    bytes() > FULL_BYTES
}

/// Whether an instance that uses so much must end for the others' sake.
pub(super) fn is_too_greedy(own_bytes: usize) -> bool {
    let budgets = BUDGETS.load(Ordering::Relaxed).max(1);
    bytes() > CRITICAL_BYTES && own_bytes > (CRITICAL_BYTES / budgets).max(LEAST_SHARE_BYTES)
}

/// Whether there is room outside the heaps.
pub(super) fn has_room(bytes_more: usize) -> bool {
    bytes().saturating_add(bytes_more) <= CRITICAL_BYTES
}

pub(super) fn add(more: usize) {
    let before = BYTES.fetch_add(more, Ordering::Relaxed);
    if before <= EASY_BYTES && before + more > EASY_BYTES {
        raise_alarm();
    }
}

/// Ends [`wait_until_tight`].
pub fn raise_alarm() {
    *ALARM.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
    ALARM.1.notify_all();
}

pub(super) fn remove(less: usize) {
    BYTES.fetch_sub(less, Ordering::Relaxed);
}

pub(super) fn budgets(change: isize) {
    BUDGETS.fetch_add(change.cast_unsigned(), Ordering::Relaxed);
}

/// Waits until memory becomes tight or somebody raises the alarm, or so long.
pub fn wait_until_tight(at_most: Duration) {
    let alarm = ALARM.0.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut alarm, _) = ALARM
        .1
        .wait_timeout_while(alarm, at_most, |alarm| !*alarm)
        .unwrap_or_else(PoisonError::into_inner);
    *alarm = false;
}
