//! Who may grow by a lot at once.
//!
//! A heap that reaches what it may have without asking waits here, on its own thread, until no other is at this, and so does one
//! whose next page finds no room. Then it may have any one object that there is: V8's cage has a [reserve](super::cage) for it.
//! After that step it is measured: it gets a limit that fits what it has become, and gives the right back, if nothing of it lies
//! in the reserve and others can start beside it, or is ended.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{cage, memory};

/// By how much one may grow.
pub const STRIDE_BYTES: usize = cage::RESERVE_BYTES;
/// As many may wait without a seat, each on a thread of its own.
pub const MOST_WAITING: usize = 64;
/// Longest wait for those before, each of which is inside one native of V8. To go on beside another may take the room that it
/// was promised: V8 would end the process.
const TURN: Duration = Duration::from_secs(300);
/// Longest wait for room, while instances go.
const ROOM: Duration = Duration::from_secs(1);
/// Between two looks whether there is room.
const LOOK: Duration = Duration::from_millis(5);
/// For so little, others go first; more is taken from the reserve at once.
const LITTLE_BYTES: usize = 4 << 20;

/// The right to grow, until dropped.
#[derive(Debug)]
pub struct Permit {
    is_mine: bool,
}

static TAKEN: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
static WAITING: AtomicUsize = AtomicUsize::new(0);
/// Bytes that the one that grows waits for.
static LACKS: AtomicUsize = AtomicUsize::new(0);
/// Who has no more bytes than this does not go for it.
static SPARED: AtomicUsize = AtomicUsize::new(0);

/// Waits until the caller may grow. Bounded: then it may in any case, and V8 decides.
pub fn ask() -> Permit {
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
    Permit { is_mine: true }
}

/// Room for so many bytes, which one that may grow takes: in the common part, for which others may go, or in the reserve.
pub fn find_room<T>(
    bytes: usize,
    common: impl Fn() -> Option<T>,
    reserve: impl Fn() -> Option<T>,
) -> Option<T> {
    if bytes > LITTLE_BYTES
        && let Some(found) = reserve()
    {
        return Some(found);
    }
    others_go(0, || common().ok_or(bytes.max(LITTLE_BYTES))).or_else(reserve)
}

/// Called by one that has grown to so many bytes of the cage: what is idle goes, and what waits and is larger, so that others can
/// start. Whether there is room for that then.
pub fn leave_room(bytes: usize) -> bool {
    let look = || match memory::heaps_lack() {
        0 => Ok(()),
        lack => Err(lack),
    };
    others_go(bytes, look).is_some()
}

/// Has others go that have more than `spared` bytes, until `look` finds what it looks for; else it says how many bytes are missing.
fn others_go<T>(spared: usize, look: impl Fn() -> Result<T, usize>) -> Option<T> {
    let until = Instant::now() + ROOM;
    SPARED.store(spared, Ordering::Relaxed);
    let found = loop {
        match look() {
            Ok(found) => break Some(found),
            Err(_) if Instant::now() >= until => break None,
            Err(lack) => LACKS.store(lack, Ordering::Relaxed),
        }
        memory::raise_alarm();
        std::thread::sleep(LOOK);
    };
    LACKS.store(0, Ordering::Relaxed);
    found
}

/// Whether [`MOST_WAITING`] wait.
pub fn is_crowded() -> bool {
    WAITING.load(Ordering::Relaxed) >= MOST_WAITING
}

/// Bytes of the cage that the one that grows waits for; 0: it does not.
pub fn lacks() -> usize {
    LACKS.load(Ordering::Relaxed)
}

/// Who has no more bytes of the cage than this does not go for the one that grows.
pub fn spares() -> usize {
    SPARED.load(Ordering::Relaxed)
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_mine {
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
        let second = std::thread::spawn(|| drop(ask()));
        while WAITING.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        assert!(!second.is_finished());
        drop(first);
        second.join().unwrap();
    }

    #[test]
    fn what_is_large_is_taken_from_the_reserve_and_others_go_for_what_is_small() {
        let found = |bytes, looks| {
            let asked = AtomicUsize::new(0);
            let common = || (asked.fetch_add(1, Ordering::Relaxed) == looks).then(lacks);
            find_room(bytes, common, || Some(0))
        };
        assert_eq!(found(LITTLE_BYTES + 1, 1), Some(0));
        assert_eq!(found(1, 0), Some(0), "there is room");
        assert_eq!(found(1, 1), Some(LITTLE_BYTES), "it lacked so much");
        assert_eq!(found(1, usize::MAX), Some(0), "from the reserve");
        assert_eq!((lacks(), spares()), (0, 0));
    }
}
