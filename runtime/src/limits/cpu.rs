//! CPU time of a request, over all its entries into JavaScript, and the turns that long entries take.
//!
//! ```text
//! thread that runs JavaScript            monitor thread, each millisecond, each half while any thread is inside
//!   CpuGuard::enter  -- slot filled -->    past its CPU or wall time: terminate_execution
//!     … JavaScript …                       half a millisecond used, or its slice is over: interrupt
//!     interrupted: hand over, take turns
//!   CpuGuard::finish -- slot emptied -->   every HEAP_CHECK_TICKS: asks V8 to measure its memory
//! ```
//!
//! The slot's lock is never held while JavaScript runs; it makes "empty the slot" and "terminate" exclude each other, so
//! that a termination never reaches the entry after the one it was meant for. An interrupt does reach later entries; it
//! carries the number of its own.

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeFlavor};

use super::account::{Account, Pace};
use super::monitor::{MONITOR, Registration, Running, lock};
use super::stopwatch::Stopwatch;
use super::turns::Turn;
use crate::isolate::{Interrupter, ffi_schedule, ffi_tiering};
use crate::server::outbox;

pub use super::monitor::{STUCK_EXIT_STATUS, Stuck, extra_threads, start_monitor};

/// Longest wait for another thread to take over. It is there in microseconds, unless the machine has no thread to give.
const TAKE_OVER: Duration = Duration::from_millis(20);

/// One entry into JavaScript, metered from `enter` to `finish` or drop.
#[derive(Debug)]
pub struct CpuGuard {
    registration: Rc<Registration>,
    watch: Stopwatch,
    is_over: bool,
}

/// What an entry for a request may use.
#[derive(Debug)]
pub struct Terms {
    /// CPU time.
    pub budget: Duration,
    /// Wall time ends then, whether it runs or waits for its turn.
    pub until: Instant,
    /// Whose CPU time it is.
    pub account: Arc<Account>,
}

/// What an entry used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuUse {
    /// CPU time of this entry.
    pub time: Duration,
    /// Whether it was terminated.
    pub exhausted: bool,
    /// Why it was terminated.
    pub ended: Option<Ended>,
}

/// Why an entry was terminated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It used up its CPU time.
    CpuExhausted,
    /// Its wall time was over.
    TimedOut,
    /// More computed for long than the process can hold, and its Function had used most.
    GaveWay,
}

thread_local! {
    static SLOT: OnceCell<Rc<Registration>> = const { OnceCell::new() };
}

impl CpuGuard {
    /// Begins an entry for no request: it may use so much CPU time. If it takes long, it hands over what else its thread had
    /// to do, but takes no turns.
    pub fn enter(isolate: Interrupter, budget: Duration) -> Self {
        Self::begin(|number, watch| Running::new(number, isolate, watch, budget))
    }

    /// Begins an entry for a request. If it takes long, it hands over what else its thread had to do.
    pub fn enter_for(isolate: Interrupter, terms: Terms) -> Self {
        Self::begin(|number, watch| {
            let mut running = Running::new(number, isolate, watch, terms.budget);
            running.until = Some(terms.until);
            running.account = Some(terms.account);
            running
        })
    }

    fn begin(running: impl FnOnce(u64, Stopwatch) -> Running) -> Self {
        let registration = SLOT.with(|slot| Rc::clone(slot.get_or_init(Rc::default)));
        let watch = registration.watch();
        ffi_tiering::entered(watch.began());
        *lock(&registration.slot().entry) = Some(running(registration.next_number(), watch));
        if let Some(monitor) = MONITOR.get() {
            monitor.entered();
        }
        Self {
            registration,
            watch,
            is_over: false,
        }
    }

    /// Ends the entry. A pending termination is taken back: nothing of this entry reaches the next.
    pub fn finish(mut self) -> CpuUse {
        self.leave(None)
    }

    /// The same, for which [`CpuGuard::used`] was asked and nothing ran after that.
    pub fn finish_at(mut self, used: Duration) -> CpuUse {
        self.leave(Some(used))
    }

    /// CPU time of the entry so far.
    pub fn used(&self) -> Duration {
        if let Some(used) = self.watch.used_if_short() {
            return used;
        }
        let slot = self.registration.slot();
        let mut entry = lock(&slot.entry);
        let used = entry.as_mut().map(|running| running.watch.used(slot.clock));
        used.unwrap_or_default()
    }

    /// A small number that no other thread inside JavaScript has.
    pub fn thread_index(&self) -> usize {
        self.registration.slot().index
    }

    fn leave(&mut self, used: Option<Duration>) -> CpuUse {
        self.is_over = true;
        let slot = self.registration.slot();
        let Some(mut running) = lock(&slot.entry).take() else {
            return CpuUse::default();
        };
        let used = used.unwrap_or_else(|| running.watch.used(slot.clock));
        running.conclude(used);
        if running.is_long {
            ffi_schedule::set_slice(ffi_schedule::SERVING);
        }
        if running.has_seat
            && let Some(monitor) = MONITOR.get()
        {
            monitor.turns.release();
        }
        let ended = running.ended;
        CpuUse {
            time: used,
            exhausted: ended.is_some(),
            ended,
        }
    }
}

impl Drop for CpuGuard {
    fn drop(&mut self) {
        if !self.is_over {
            self.leave(None);
        }
    }
}

/// Runs an entry of a Function: where it is likely to compute for long, another thread takes over at once what this one had
/// to do, not only when the monitor has noticed; and threads that serve take the core from it from its first microsecond.
pub fn aside<R>(account: &Account, run: impl FnOnce() -> R) -> R {
    match account.pace() {
        Pace::Brief => run(),
        Pace::Notable => {
            outbox::send();
            run()
        }
        Pace::Long => hand_over(|| ffi_schedule::with_slice(ffi_schedule::COMPUTING, run)),
    }
}

/// Called on a thread that runs JavaScript, at a safe point, on behalf of entry number `entry`. If that one still runs here,
/// another thread takes over what this one had to do, and this one goes on when it is its turn.
pub(crate) fn interrupted(entry: u64) {
    let slot = SLOT.with(|slot| slot.get().map(|it| Arc::clone(it.slot())));
    let (Some(slot), Some(monitor)) = (slot, MONITOR.get()) else {
        return;
    };
    let (account, until, has_seat, is_first) = {
        let mut running = lock(&slot.entry);
        let Some(running) = running.as_mut().filter(|it| it.number == entry) else {
            return;
        };
        if running.ended.is_some() {
            return;
        }
        let used = running.watch.used(slot.clock);
        running.charge(used);
        running.is_parked = true;
        let is_first = !std::mem::replace(&mut running.is_long, true);
        let account = running.account.clone();
        (account, running.until, running.has_seat, is_first)
    };
    if is_first {
        ffi_schedule::set_slice(ffi_schedule::COMPUTING);
    }
    let is_over = || until.is_some_and(|until| Instant::now() >= until);
    let turn = hand_over(|| match &account {
        Some(account) if has_seat => monitor.turns.pass(account, is_over),
        Some(account) => monitor.turns.take(account, is_over),
        None => Turn::Granted,
    });
    let mut running = lock(&slot.entry);
    let Some(running) = running.as_mut() else {
        return;
    };
    let has_seat = account.is_some() && turn == Turn::Granted;
    let used = running.watch.used(slot.clock);
    running.came_back(used, has_seat);
    match turn {
        Turn::Granted => {}
        Turn::GivesWay => running.end(Ended::GaveWay, used),
        Turn::Stopped => running.end(Ended::TimedOut, used),
    }
}

/// CPU time of the entry that runs on this thread, so far; none if none does.
pub(crate) fn used_by_this_entry() -> Duration {
    SLOT.with(|slot| {
        let slot = slot.get().map(|it| it.slot())?;
        let mut entry = lock(&slot.entry);
        Some(entry.as_mut()?.watch.used(slot.clock))
    })
    .unwrap_or_default()
}

/// Whether the entry that runs on this thread was terminated: what it runs after that, nobody ends once more.
pub(crate) fn is_terminated() -> bool {
    this_entry(|running| running.ended.is_some()).unwrap_or_default()
}

/// Whether this thread runs an entry and may wait there: not amid a collection.
pub(crate) fn may_wait() -> bool {
    this_entry(|running| !running.is_collecting()).unwrap_or_default()
}

/// Looks at the entry that runs on this thread.
fn this_entry<R>(look: impl FnOnce(&Running) -> R) -> Option<R> {
    SLOT.with(|slot| {
        let slot = slot.get().map(|it| it.slot())?;
        lock(&slot.entry).as_ref().map(look)
    })
}

/// Called on a thread that begins to collect garbage inside V8, or is done with it: V8 obeys a termination after that.
pub(crate) fn collecting(begins: bool) {
    SLOT.with(|slot| {
        if let Some(slot) = slot.get().map(|it| it.slot())
            && let Some(running) = lock(&slot.entry).as_mut()
        {
            // What was before a termination does not matter, and the clock is not read for it.
            let used = match running.ended {
                Some(_) => running.watch.used(slot.clock),
                None => Duration::ZERO,
            };
            running.collecting(begins, used);
        }
    });
}

/// Called where V8 finds no memory. The process ends soon; this thread does nothing until then.
pub(crate) fn out_of_memory() -> ! {
    if let Some(monitor) = MONITOR.get() {
        monitor.out_of_memory();
    }
    loop {
        std::thread::park();
    }
}

/// Runs `wait`, which may block for what others hold, while another thread does what this one had to do, and another entry has
/// this one's turn. The entry that runs here asks for its next turn at its next safe point.
pub(crate) fn without_seat<R>(wait: impl FnOnce() -> R) -> R {
    let had_seat = SLOT.with(|slot| {
        let Some(slot) = slot.get().map(|it| it.slot()) else {
            return false;
        };
        lock(&slot.entry)
            .as_mut()
            .is_some_and(Running::give_up_seat)
    });
    if had_seat && let Some(monitor) = MONITOR.get() {
        monitor.turns.release();
    }
    hand_over(wait)
}

/// Runs `wait`, which may block, while another thread does what this one had to do. On a thread of no runtime only `wait`.
pub(crate) fn hand_over<R>(wait: impl FnOnce() -> R) -> R {
    match Handle::try_current() {
        Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => {
            outbox::leave();
            tokio::task::block_in_place(|| {
                until_taken_over(&runtime);
                wait()
            })
        }
        _ => wait(),
    }
}

/// Waits until a task has run that no thread but another can run. `block_in_place` takes its work back if it returns before
/// the other thread is there.
fn until_taken_over(runtime: &Handle) {
    let taken_over = Arc::new(AtomicBool::new(false));
    let (told, thread) = (Arc::clone(&taken_over), std::thread::current());
    runtime.spawn(async move {
        told.store(true, Ordering::Release);
        thread.unpark();
    });
    let until = Instant::now() + TAKE_OVER;
    while !taken_over.load(Ordering::Acquire) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Work that only the thread which blocks has in hand: in its queue, and in the slot from which nobody steals.
    #[test]
    fn another_thread_takes_over_all_that_one_had_to_do() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let hog = runtime.spawn(async {
            let (done, came) = mpsc::channel();
            for number in 0..10 {
                let done = done.clone();
                tokio::spawn(async move {
                    tokio::task::yield_now().await;
                    done.send(number).unwrap();
                });
            }
            drop(done);
            let mut came: Vec<i32> = hand_over(|| came.iter().collect());
            came.sort();
            // It goes on as a task like others.
            tokio::spawn(async move { came }).await.unwrap()
        });
        let came = runtime.block_on(hog).unwrap();
        assert_eq!(came, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn where_nothing_can_be_handed_over_only_the_wait_happens() {
        assert_eq!(hand_over(|| 1), 1);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        assert_eq!(runtime.block_on(async { hand_over(|| 2) }), 2);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let blocking = runtime.spawn_blocking(|| hand_over(|| 3));
        assert_eq!(runtime.block_on(blocking).unwrap(), 3);
    }

    #[test]
    fn an_interrupt_that_comes_when_its_entry_is_over_does_nothing() {
        interrupted(u64::MAX);
    }
}
