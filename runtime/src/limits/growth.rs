//! Who may grow by a lot at once.
//!
//! V8 tells that a heap is at its limit, not what it is about to allocate: that may be a string of 1 GiB, and V8 ends the
//! process where it does not fit. So a heap that reaches what it may have without asking waits here, on its own thread, until
//! no other is at this and the coldest idle instances have made room, or where nothing is idle those that hold most; then it may
//! have any one object that there is.
//! After that step it is measured: it gets a limit that fits what it has become, and leaves as much room for the next one, or is
//! ended.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::memory;

/// By how much one may grow: the largest object of V8, and what surrounds it.
pub const STRIDE_BYTES: usize = (1 << 30) + (64 << 20);
/// As many may wait without a seat, each on a thread of its own.
pub const MOST_WAITING: usize = 64;
/// Longest wait for those before, each of which is inside one native of V8. To go on beside another may take the room that it
/// was promised: V8 would end the process.
const TURN: Duration = Duration::from_secs(300);
/// Longest wait for room, while instances go.
const ROOM: Duration = Duration::from_secs(1);
/// Between two looks whether there is room.
const LOOK: Duration = Duration::from_millis(5);

/// The right to grow, until dropped.
#[derive(Debug)]
pub struct Permit {
    is_mine: bool,
}

static TAKEN: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
static WAITING: AtomicUsize = AtomicUsize::new(0);
static GROWS: AtomicBool = AtomicBool::new(false);
/// Instances that use more bytes of the cage must end: one waits for room, and nothing is idle that could go.
static ENDS_ABOVE: AtomicUsize = AtomicUsize::new(usize::MAX);
static ASKED: AtomicUsize = AtomicUsize::new(0);
/// Looks for instances that can go that found none.
static VAIN: AtomicUsize = AtomicUsize::new(0);

/// Waits until the caller may grow. Bounded: then it may in any case, and V8 decides.
pub fn ask() -> Permit {
    ASKED.fetch_add(1, Ordering::Relaxed);
    WAITING.fetch_add(1, Ordering::Relaxed);
    let taken = TAKEN.0.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut taken, waited) = TAKEN
        .1
        .wait_timeout_while(taken, TURN, |taken| *taken)
        .unwrap_or_else(PoisonError::into_inner);
    WAITING.fetch_sub(1, Ordering::Relaxed);
    if waited.timed_out() && *taken {
        tracing::warn!("a heap grows beside another, which took too long");
        return Permit { is_mine: false };
    }
    *taken = true;
    drop(taken);
    GROWS.store(true, Ordering::Relaxed);
    // What it gets cannot be refused any more, so all others count as larger.
    wait_for_room(0, true);
    Permit { is_mine: true }
}

/// Called by one that has grown to so many bytes of the cage: makes room for the next, by what is idle and by what is larger.
/// Whether there is room then.
pub fn leave_room(bytes: usize) -> bool {
    wait_for_room(bytes, false)
}

/// Waits until one can grow: idle instances go, then those that use more than `bytes`. Where `insists`, also for those to end
/// that run.
fn wait_for_room(bytes: usize, insists: bool) -> bool {
    let until = Instant::now() + ROOM;
    let mut vain = VAIN.load(Ordering::Relaxed);
    let mut is_pressing = false;
    let mut has_room = memory::has_room_to_grow();
    while !has_room && Instant::now() < until {
        // The second look that finds nothing began after this one's alarm.
        if VAIN.load(Ordering::Relaxed) >= vain + 2 {
            if is_pressing && !insists {
                break;
            }
            ENDS_ABOVE.store(bytes, Ordering::Relaxed);
            is_pressing = true;
            vain = VAIN.load(Ordering::Relaxed);
        }
        memory::raise_alarm();
        std::thread::sleep(LOOK);
        has_room = memory::has_room_to_grow();
    }
    ENDS_ABOVE.store(usize::MAX, Ordering::Relaxed);
    has_room
}

/// Whether [`MOST_WAITING`] wait.
pub fn is_crowded() -> bool {
    WAITING.load(Ordering::Relaxed) >= MOST_WAITING
}

/// Nothing is left that could go.
pub fn nothing_goes() {
    VAIN.fetch_add(1, Ordering::Relaxed);
}

/// Instances that use more bytes of the cage must end: one needs room to grow, and nothing is idle that could go.
pub fn ends_above() -> usize {
    ENDS_ABOVE.load(Ordering::Relaxed)
}

/// Whether one grows, or waits for the room to.
pub fn is_under_way() -> bool {
    GROWS.load(Ordering::Relaxed)
}

/// How often one has asked.
pub fn asked() -> usize {
    ASKED.load(Ordering::Relaxed)
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_mine {
            GROWS.store(false, Ordering::Relaxed);
            *TAKEN.0.lock().unwrap_or_else(PoisonError::into_inner) = false;
            TAKEN.1.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_grows() {
        let first = ask();
        let second = std::thread::spawn(|| {
            let permit = ask();
            assert!(is_under_way());
            drop(permit);
        });
        while asked() < 2 {
            std::thread::yield_now();
        }
        assert!(!second.is_finished());
        drop(first);
        second.join().unwrap();
        assert!(!is_under_way());
    }
}
