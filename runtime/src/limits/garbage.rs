//! Garbage of idle instances, collected while tenants' code waits for the pages of V8's cage that this gives back.
//!
//! An instance that had a request has a page of 256 KiB more than after a collection, and a busy second touches thousands of them. So
//! where the cage is nearly used up, idle ones are collected before any must go, and who needs a page waits for that.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::memory;

/// Longest wait for one page. Then the next part of the cage is taken, as if nobody collected.
const PATIENCE: Duration = Duration::from_millis(20);

/// Whether somebody collects garbage that makes room.
static COLLECTING: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

/// Garbage is collected from now on, or no more: there is none left, or it takes too long.
pub fn collect(begins: bool) {
    *collecting() = begins;
    COLLECTING.1.notify_all();
}

/// Some was.
pub fn collected() {
    // Whoever has looked waits by now.
    drop(collecting());
    COLLECTING.1.notify_all();
}

/// Waits while the cage has no room for a start, and garbage is collected that makes some.
pub fn wait() {
    wait_while(PATIENCE, memory::is_cage_full);
}

fn wait_while(patience: Duration, is_full: impl Fn() -> bool) {
    if is_full() {
        // Whatever ends the wait, the caller goes on.
        let _ = COLLECTING
            .1
            .wait_timeout_while(collecting(), patience, |it| *it && is_full())
            .unwrap_or_else(PoisonError::into_inner);
    }
}

fn collecting() -> MutexGuard<'static, bool> {
    COLLECTING.0.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    use super::*;

    #[test]
    fn who_needs_room_waits_only_while_garbage_is_collected() {
        const LONG: Duration = Duration::from_secs(60);
        let begin = Instant::now();
        wait_while(LONG, || true);
        collect(true);
        wait_while(LONG, || false);
        wait_while(Duration::from_millis(1), || true);

        let is_full = &AtomicBool::new(true);
        std::thread::scope(|scope| {
            let (asked, looks) = std::sync::mpsc::channel();
            let waiting = scope.spawn(move || {
                wait_while(LONG, || {
                    let _ = asked.send(());
                    is_full.load(Ordering::SeqCst)
                });
            });
            // The second look is the one that begins the wait.
            looks.recv().unwrap();
            looks.recv().unwrap();
            collected();
            assert!(!waiting.is_finished());
            is_full.store(false, Ordering::SeqCst);
            collected();
            waiting.join().unwrap();

            let waiting = scope.spawn(|| wait_while(LONG, || true));
            collect(false);
            waiting.join().unwrap();
        });
        assert!(begin.elapsed() < LONG, "it waited in vain");
    }
}
