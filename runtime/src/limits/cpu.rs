//! CPU time of a request, over all its entries into JavaScript.
//!
//! ```text
//! thread that runs JavaScript            monitor thread, each millisecond while any thread is inside
//!   CpuGuard::enter  -- slot filled -->    reads that thread's CPU clock
//!     … JavaScript …                       past the deadline: terminate_execution
//!   CpuGuard::finish -- slot emptied -->   every HEAP_CHECK_TICKS: asks V8 to measure its memory
//! ```
//!
//! The slot's lock is never held while JavaScript runs; it makes "empty the slot" and "terminate" exclude each other, so
//! that a termination never reaches the entry after the one it was meant for.

use std::cell::OnceCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use crate::isolate::{Interrupter, ThreadClock};

const TICK: Duration = Duration::from_millis(1);
/// Ticks without JavaScript after which the monitor sleeps until it is woken.
const IDLE_TICKS: u32 = 100;
/// Ticks between two measurements of a running instance's memory.
const HEAP_CHECK_TICKS: u32 = 4;
/// CPU time past its deadline after which an entry is taken to be stuck inside V8.
const STUCK: Duration = Duration::from_secs(10);
/// Exit status of a worker that had to end because V8 did not obey.
pub const STUCK_EXIT_STATUS: i32 = 70;

/// One entry into JavaScript, metered from `enter` to `finish` or drop.
#[derive(Debug)]
pub struct CpuGuard {
    slot: Arc<Slot>,
    start: Duration,
}

/// What an entry used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuUse {
    /// CPU time of this entry.
    pub time: Duration,
    /// Whether it was terminated for it.
    pub exhausted: bool,
}

#[derive(Debug)]
struct Slot {
    /// The smallest number that no other living thread has.
    index: usize,
    clock: ThreadClock,
    entry: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    isolate: Interrupter,
    deadline: Duration,
    terminated: bool,
    ticks: u32,
}

#[derive(Debug, Default)]
struct Monitor {
    slots: Mutex<Vec<Arc<Slot>>>,
    inside: AtomicUsize,
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

/// This thread's slot; leaves the monitor's list when the thread ends.
struct Registration(Arc<Slot>);

thread_local! {
    static SLOT: OnceCell<Registration> = const { OnceCell::new() };
}

/// There is one for the process, as there is one set of threads.
static MONITOR: OnceLock<Monitor> = OnceLock::new();

/// Starts the monitor thread. Needs V8 to be initialised; later calls do nothing.
pub fn start_monitor() -> std::io::Result<()> {
    let monitor = MONITOR.get_or_init(Monitor::default);
    if monitor.thread.get().is_none() {
        let handle = std::thread::Builder::new()
            .name("monitor".into())
            .spawn(move || monitor.run())?;
        // Another call may have been first; its thread then does the same work, which is harmless.
        let _ = monitor.thread.set(handle.thread().clone());
    }
    Ok(())
}

impl CpuGuard {
    /// Begins an entry that may use so much CPU time.
    pub fn enter(isolate: Interrupter, budget: Duration) -> Self {
        let slot = SLOT.with(|slot| Arc::clone(&slot.get_or_init(Registration::new).0));
        let start = slot.clock.read().unwrap_or_default();
        *lock(&slot.entry) = Some(Running {
            isolate,
            deadline: start + budget,
            terminated: false,
            ticks: 0,
        });
        if let Some(monitor) = MONITOR.get() {
            monitor.inside.fetch_add(1, Ordering::SeqCst);
            monitor.wake();
        }
        Self { slot, start }
    }

    /// Ends the entry. A pending termination is taken back: nothing of this entry reaches the next.
    pub fn finish(self) -> CpuUse {
        let time = self
            .slot
            .clock
            .read()
            .map_or(Duration::ZERO, |now| now.saturating_sub(self.start));
        CpuUse {
            time,
            exhausted: self.leave(),
        }
    }

    /// A small number that no other thread inside JavaScript has.
    pub fn thread_index(&self) -> usize {
        self.slot.index
    }

    fn leave(&self) -> bool {
        let Some(running) = lock(&self.slot.entry).take() else {
            return false;
        };
        if let Some(monitor) = MONITOR.get() {
            monitor.inside.fetch_sub(1, Ordering::SeqCst);
        }
        running.terminated
    }
}

impl Drop for CpuGuard {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Registration {
    fn new() -> Self {
        let monitor = MONITOR.get_or_init(Monitor::default);
        let mut slots = lock(&monitor.slots);
        let index = (0..)
            .find(|index| slots.iter().all(|slot| slot.index != *index))
            .unwrap_or(usize::MAX);
        let slot = Arc::new(Slot {
            index,
            clock: ThreadClock::of_this_thread(),
            entry: Mutex::new(None),
        });
        slots.push(Arc::clone(&slot));
        Self(slot)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(monitor) = MONITOR.get() {
            lock(&monitor.slots).retain(|slot| !Arc::ptr_eq(slot, &self.0));
        }
    }
}

impl Monitor {
    fn run(&self) {
        let mut idle_ticks = 0;
        loop {
            if self.inside.load(Ordering::SeqCst) > 0 {
                idle_ticks = 0;
                lock(&self.slots).iter().for_each(|slot| slot.check());
            } else if idle_ticks < IDLE_TICKS {
                idle_ticks += 1;
            } else {
                self.asleep.store(true, Ordering::SeqCst);
                if self.inside.load(Ordering::SeqCst) == 0 {
                    std::thread::park();
                }
                self.asleep.store(false, Ordering::SeqCst);
                idle_ticks = 0;
            }
            std::thread::sleep(TICK);
        }
    }

    fn wake(&self) {
        if self.asleep.load(Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }
}

impl Slot {
    fn check(&self) {
        let mut entry = lock(&self.entry);
        let Some(running) = entry.as_mut() else {
            return;
        };
        let Some(now) = self.clock.read() else {
            return;
        };
        running.ticks += 1;
        if now >= running.deadline {
            if !running.terminated {
                running.terminated = true;
                running.isolate.terminate();
            } else if now >= running.deadline + STUCK {
                tracing::error!("JavaScript does not end on request; the worker exits");
                std::process::exit(STUCK_EXIT_STATUS);
            }
        } else if running.ticks % HEAP_CHECK_TICKS == 0 {
            running.isolate.measure_heap();
        }
    }
}

/// No code panics while it holds one of these locks, so poison carries no news.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
