//! Who of those that compute for long runs now: one a core, the Function that has used least CPU time lately goes first.
//!
//! ```text
//! entry past its first half millisecond -> take: a seat is free -> goes on, holding it
//!                                                none is free   -> parked on its own thread until it gets one
//! slice over, somebody waits            -> pass: who waits has used less -> changes places with it
//! entry over                            -> release: the next one gets the seat
//! ```
//!
//! Whoever is parked is no thread of the async runtime any more (see `isolate::ffi_interrupt`), so nothing else waits for it.
//! The number of those parked is bounded: past it, the one whose Function has used most gives way.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use super::account::Account;

/// How often one that is parked looks whether somebody has taken its request back.
const LOOK: Duration = Duration::from_millis(20);

/// The seats and who waits for one.
#[derive(Debug)]
pub(super) struct Turns {
    seats: usize,
    most_parked: usize,
    /// As many as the queue holds, readable without its lock.
    parked: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    taken: usize,
    queue: Vec<Arc<Parked>>,
}

/// One that waits for a seat.
#[derive(Debug)]
struct Parked {
    account: Arc<Account>,
    verdict: AtomicU8,
    thread: Thread,
}

/// How a wait for a seat ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It has a seat.
    Granted,
    /// There are too many, and its Function has used most.
    GivesWay,
    /// Its time was over, or it was taken back.
    Stopped,
}

const WAITING: u8 = 0;
const GRANTED: u8 = 1;
const GIVES_WAY: u8 = 2;

impl Turns {
    pub(super) fn new(seats: usize, most_parked: usize) -> Self {
        Self {
            seats,
            most_parked,
            parked: AtomicUsize::new(0),
            inner: Mutex::default(),
        }
    }

    /// Whether anybody waits.
    pub(super) fn has_parked(&self) -> bool {
        self.parked.load(Ordering::Relaxed) > 0
    }

    /// Waits for a seat, until `stop` says that it is in vain.
    pub(super) fn take(&self, account: &Arc<Account>, stop: impl FnMut() -> bool) -> Turn {
        self.queue_up(self.lock(), account, stop)
    }

    /// Gives a seat to one whose Function has used less, if there is one, and then waits for another.
    pub(super) fn pass(&self, account: &Arc<Account>, stop: impl FnMut() -> bool) -> Turn {
        let mut inner = self.lock();
        let used = account.lately();
        let is_less = |parked: &Arc<Parked>| parked.account.lately() < used;
        if !inner.queue.iter().any(is_less) {
            return Turn::Granted;
        }
        inner.taken -= 1;
        self.queue_up(inner, account, stop)
    }

    /// Gives a seat back.
    pub(super) fn release(&self) {
        let mut inner = self.lock();
        inner.taken -= 1;
        self.grant(&mut inner);
    }

    fn queue_up(
        &self,
        mut inner: MutexGuard<'_, Inner>,
        account: &Arc<Account>,
        mut stop: impl FnMut() -> bool,
    ) -> Turn {
        let me = Arc::new(Parked {
            account: Arc::clone(account),
            verdict: AtomicU8::new(WAITING),
            thread: std::thread::current(),
        });
        inner.queue.push(Arc::clone(&me));
        self.grant(&mut inner);
        if inner.queue.len() > self.most_parked
            && let Some(most) = position(&inner.queue, |a, b| a > b)
        {
            inner.queue.remove(most).tell(GIVES_WAY);
        }
        self.parked.store(inner.queue.len(), Ordering::Relaxed);
        drop(inner);
        loop {
            match me.verdict.load(Ordering::Acquire) {
                GRANTED => return Turn::Granted,
                GIVES_WAY => return Turn::GivesWay,
                _ => {}
            }
            if stop() {
                let mut inner = self.lock();
                // The verdict may have come just before.
                if me.verdict.load(Ordering::Acquire) == WAITING {
                    inner.queue.retain(|other| !Arc::ptr_eq(other, &me));
                    self.parked.store(inner.queue.len(), Ordering::Relaxed);
                    return Turn::Stopped;
                }
                continue;
            }
            std::thread::park_timeout(LOOK);
        }
    }

    fn grant(&self, inner: &mut Inner) {
        while inner.taken < self.seats
            && let Some(least) = position(&inner.queue, |a, b| a < b)
        {
            inner.taken += 1;
            inner.queue.remove(least).tell(GRANTED);
        }
        self.parked.store(inner.queue.len(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code panics while it holds this lock, so poison carries no news.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parked {
    fn tell(&self, verdict: u8) {
        self.verdict.store(verdict, Ordering::Release);
        self.thread.unpark();
    }
}

/// Place of the first one in the queue that goes before all others.
fn position(queue: &[Arc<Parked>], before: impl Fn(f64, f64) -> bool) -> Option<usize> {
    let mut found: Option<(usize, f64)> = None;
    for (index, parked) in queue.iter().enumerate() {
        let used = parked.account.lately();
        if found.is_none_or(|(_, best)| before(used, best)) {
            found = Some((index, used));
        }
    }
    found.map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use isolet_crds::bundle::FunctionIdentity;

    use super::*;

    fn account(name: &str, used_s: u64) -> Arc<Account> {
        let account = Account::new(FunctionIdentity {
            namespace: "n".into(),
            name: name.into(),
            uid: name.into(),
        });
        account.charge(Duration::from_secs(used_s), std::time::Instant::now());
        Arc::new(account)
    }

    /// Waits until so many are parked.
    fn until_parked(turns: &Turns, count: usize) {
        while turns.parked.load(Ordering::Relaxed) != count {
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_one_that_used_least_is_next_and_each_seat_is_taken_once() {
        let turns = Turns::new(1, 10);
        assert_eq!(turns.take(&account("first", 0), || false), Turn::Granted);
        let (order, came) = mpsc::channel();
        std::thread::scope(|scope| {
            for (count, (name, used_s)) in [("much", 30), ("little", 1), ("some", 10)]
                .into_iter()
                .enumerate()
            {
                let (turns, order) = (&turns, order.clone());
                scope.spawn(move || {
                    let turn = turns.take(&account(name, used_s), || false);
                    order.send((name, turn)).unwrap();
                    turns.release();
                });
                until_parked(turns, count + 1);
            }
            turns.release();
        });
        drop(order);
        let names: Vec<_> = came.iter().collect();
        assert_eq!(
            names,
            ["little", "some", "much"].map(|name| (name, Turn::Granted))
        );
        assert_eq!(turns.lock().taken, 0);
    }

    #[test]
    fn a_seat_passes_only_to_one_that_has_used_less() {
        let turns = Turns::new(1, 10);
        let holder = account("holder", 5);
        assert_eq!(turns.take(&holder, || false), Turn::Granted);
        assert_eq!(turns.pass(&holder, || false), Turn::Granted, "nobody waits");
        std::thread::scope(|scope| {
            let more = scope.spawn(|| turns.take(&account("more", 50), || false));
            until_parked(&turns, 1);
            assert_eq!(turns.pass(&holder, || false), Turn::Granted);
            let less = scope.spawn(|| turns.take(&account("less", 1), || false));
            until_parked(&turns, 2);
            // It changes places with the one that used less, and comes before the one that used more.
            let holds_again = scope.spawn(|| turns.pass(&holder, || false));
            assert_eq!(less.join().unwrap(), Turn::Granted);
            turns.release();
            assert_eq!(holds_again.join().unwrap(), Turn::Granted);
            turns.release();
            assert_eq!(more.join().unwrap(), Turn::Granted);
        });
    }

    #[test]
    fn past_the_bound_the_one_that_used_most_gives_way_and_who_is_stopped_leaves_the_queue() {
        let turns = Turns::new(1, 1);
        assert_eq!(turns.take(&account("holder", 0), || false), Turn::Granted);
        std::thread::scope(|scope| {
            let greedy = scope.spawn(|| turns.take(&account("greedy", 9), || false));
            until_parked(&turns, 1);
            assert_eq!(
                turns.take(&account("greedier", 20), || false),
                Turn::GivesWay
            );
            let modest = scope.spawn(|| turns.take(&account("modest", 1), || false));
            assert_eq!(greedy.join().unwrap(), Turn::GivesWay);
            turns.release();
            assert_eq!(modest.join().unwrap(), Turn::Granted);
        });
        assert_eq!(turns.take(&account("late", 0), || true), Turn::Stopped);
        assert!(!turns.has_parked());
    }
}
