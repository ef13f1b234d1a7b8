//! The monitor thread, which looks at every thread inside JavaScript, and the slots where those threads say what they do.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use isolet_crds::bundle::FunctionIdentity;

use super::account::Account;
use super::cpu::Ended;
use super::growth;
use super::stopwatch::{Anchor, Stopwatch};
use super::turns::Turns;
use crate::isolate::{Interrupter, ThreadClock, ffi_schedule};
use crate::server::outbox::{Round, this_round};

/// Time between two looks while an entry runs.
const TICK: Duration = Duration::from_micros(500);
/// The same where the last look found none: one that began after it is found before it has run for longer. Each look costs the
/// thread that serves 15 us.
const QUIET_TICK: Duration = Duration::from_millis(1);
/// Looks without JavaScript after which the monitor sleeps until it is woken.
const IDLE_TICKS: u32 = 20;
/// Ticks between two measurements of a running instance's memory.
const HEAP_CHECK_TICKS: u32 = 8;
/// CPU time after which an entry hands over: not wall time, as a thread that the kernel does not let run need not. Once more
/// a little later, should nobody have taken over the first time.
const HAND_OVER: [Duration; 2] = [Duration::from_micros(500), Duration::from_millis(3)];
/// CPU time that one that computes for long gets in one go while others wait for their turn.
const SLICE: Duration = Duration::from_millis(10);
/// CPU time after its termination past which an entry is taken to be stuck inside V8. Ordinary natives obey late (JSON.parse of
/// 70 MB after 150 ms, a split of 64 MB after 240 ms), and to replace the worker costs every tenant its instances.
const STUCK: Duration = Duration::from_millis(500);
/// The same inside a collection of garbage, which always ends, after seconds where the heap is large and the machine slow.
const STUCK_COLLECTING: Duration = Duration::from_secs(10);
/// Time that requests get to finish in a process in which one is stuck.
const LAST_REQUESTS: Duration = Duration::from_secs(1);
/// Exit status of a worker that had to end because V8 did not obey or had no memory left.
pub const STUCK_EXIT_STATUS: u8 = 70;
/// While one computes, the monitor wakes up again so soon after a look that may have held up a thread that serves, see
/// [`Monitor::let_others_go_on`]. The kernel's timer adds 50 us.
const NUDGE: Duration = Duration::from_micros(150);
const MOST_NUDGES: usize = 2;
/// Numbers of entries that a thread takes at once.
const NUMBERS: u64 = 1 << 10;
/// Entries that wait for their turn at most, beside two a core.
const MOST_PARKED: usize = 64;

/// Told once, when V8 does not obey or has no memory left: the thread (its [`super::cpu::CpuGuard::thread_index`], or
/// `usize::MAX`) and the Function, if it was there for a request. The process ends soon after.
pub type Stuck = Box<dyn Fn(usize, Option<&FunctionIdentity>) + Send + Sync>;

/// What one thread does.
#[derive(Debug)]
pub(super) struct Slot {
    /// The smallest number that no other living thread has.
    pub(super) index: usize,
    pub(super) clock: ThreadClock,
    pub(super) entry: Mutex<Option<Running>>,
    /// Answers that the thread has made and not sent: it may be held up for long.
    round: Arc<Round>,
}

/// One entry.
#[derive(Debug)]
pub(super) struct Running {
    /// No other entry of the process has it.
    pub(super) number: u64,
    isolate: Interrupter,
    pub(super) watch: Stopwatch,
    /// CPU time that is in the account.
    booked: Duration,
    /// CPU time at the start of its slice.
    slice: Duration,
    budget: Duration,
    pub(super) until: Option<Instant>,
    /// Absent for one that takes no turns.
    pub(super) account: Option<Arc<Account>>,
    pub(super) has_seat: bool,
    /// It was interrupted once: its thread computes, and serves no longer.
    pub(super) is_long: bool,
    /// It waits inside an interrupt, for its turn or for another thread to take over.
    pub(super) is_parked: bool,
    /// An interrupt is under way to it.
    is_asked: bool,
    /// How often it was asked to hand over.
    asked: usize,
    /// Why it was terminated.
    pub(super) ended: Option<Ended>,
    overdue: Overdue,
    ticks: u32,
}

/// What a look at one thread finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// No entry.
    Nothing,
    /// One that waits.
    Parked,
    Running,
    /// One whose thread does nothing else any more.
    Computing,
    /// One that V8 does not end.
    Stuck,
}

/// The monitor and what it looks at.
pub(super) struct Monitor {
    slots: Mutex<Vec<Arc<Slot>>>,
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
    pub(super) turns: Turns,
    stuck: OnceLock<Stuck>,
    /// V8 found no memory.
    is_out_of_memory: AtomicBool,
}

/// This thread's slot; leaves the monitor's list when the thread ends.
#[derive(Debug)]
pub(super) struct Registration {
    slot: Arc<Slot>,
    anchor: Cell<Anchor>,
    /// Number of its next entry; a multiple of [`NUMBERS`] where it has to take others.
    next_number: Cell<u64>,
}

/// There is one for the process, as there is one set of threads.
pub(super) static MONITOR: OnceLock<Monitor> = OnceLock::new();

/// Starts the monitor thread for so many cores. Needs V8 to be initialised; later calls do nothing.
pub fn start_monitor(cores: usize, stuck: Stuck) -> std::io::Result<()> {
    let monitor = MONITOR.get_or_init(|| Monitor::new(cores));
    // Set before the thread that calls it is there.
    let _ = monitor.stuck.set(stuck);
    if monitor.thread.get().is_none() {
        let handle = std::thread::Builder::new()
            .name("monitor".into())
            .spawn(move || monitor.run())?;
        // Another call may have been first; its thread then does the same work, which is harmless.
        let _ = monitor.thread.set(handle.thread().clone());
    }
    Ok(())
}

/// Threads that a worker for so many cores may have in addition to those that serve: one for each entry that waits for its
/// turn, waits to grow or runs, and some for starts.
pub fn extra_threads(cores: usize) -> usize {
    most_parked(cores) + growth::MOST_WAITING + 4 * cores + 32
}

fn most_parked(cores: usize) -> usize {
    MOST_PARKED + 2 * cores
}

impl Default for Registration {
    fn default() -> Self {
        let monitor = MONITOR.get_or_init(|| Monitor::new(1));
        let mut slots = lock(&monitor.slots);
        let index = (0..)
            .find(|index| slots.iter().all(|slot| slot.index != *index))
            .unwrap_or(usize::MAX);
        let clock = ThreadClock::of_this_thread();
        let slot = Arc::new(Slot {
            index,
            clock,
            entry: Mutex::new(None),
            round: this_round(),
        });
        slots.push(Arc::clone(&slot));
        Self {
            slot,
            anchor: Cell::new(Anchor::new(clock)),
            next_number: Cell::new(0),
        }
    }
}

impl Registration {
    pub(super) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    /// Begins to measure an entry.
    pub(super) fn watch(&self) -> Stopwatch {
        let mut anchor = self.anchor.get();
        let watch = anchor.begin(self.slot.clock);
        self.anchor.set(anchor);
        watch
    }

    /// A number that no other entry of the process has.
    pub(super) fn next_number(&self) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut number = self.next_number.get();
        if number.is_multiple_of(NUMBERS) {
            // Many at once, as all threads ask there.
            number = NEXT.fetch_add(NUMBERS, Ordering::Relaxed);
        }
        self.next_number.set(number + 1);
        number
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(monitor) = MONITOR.get() {
            lock(&monitor.slots).retain(|slot| !Arc::ptr_eq(slot, &self.slot));
        }
    }
}

impl Monitor {
    fn new(cores: usize) -> Self {
        Self {
            slots: Mutex::default(),
            asleep: AtomicBool::new(false),
            thread: OnceLock::new(),
            turns: Turns::new(cores, most_parked(cores)),
            stuck: OnceLock::new(),
            is_out_of_memory: AtomicBool::new(false),
        }
    }

    /// Called after an entry was put into its slot. Either the monitor saw it there when it had said that it would sleep, or this
    /// sees that it has: the slot's lock orders the two.
    pub(super) fn entered(&self) {
        if self.asleep.load(Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    pub(super) fn out_of_memory(&self) {
        self.is_out_of_memory.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn run(&self) {
        ffi_schedule::set_slice(ffi_schedule::WATCHING);
        let mut idle_ticks = 0;
        let mut exit_at: Option<Instant> = None;
        let mut served = Duration::ZERO;
        loop {
            let now = Instant::now();
            let mut tick = QUIET_TICK;
            let mut one_computes = false;
            if exit_at.is_some_and(|exit_at| now >= exit_at) {
                std::process::exit(STUCK_EXIT_STATUS.into());
            }
            if exit_at.is_none() && self.is_out_of_memory.load(Ordering::SeqCst) {
                exit_at = Some(now + LAST_REQUESTS);
                self.tell(usize::MAX, None);
                tracing::error!("the worker is replaced");
            }
            let others_wait = self.turns.has_parked();
            idle_ticks += 1;
            for slot in lock(&self.slots).iter() {
                let seen = slot.check(now, others_wait);
                if seen == Seen::Nothing {
                    continue;
                }
                idle_ticks = 0;
                if seen != Seen::Parked {
                    slot.round.send_if_due(now.into());
                }
                match seen {
                    Seen::Nothing | Seen::Parked => {}
                    Seen::Running => tick = TICK,
                    Seen::Computing => {
                        tick = TICK;
                        one_computes = true;
                    }
                    Seen::Stuck if exit_at.is_none() => {
                        exit_at = Some(now + LAST_REQUESTS);
                        self.tell_stuck(slot);
                    }
                    Seen::Stuck => {}
                }
            }
            if idle_ticks > IDLE_TICKS && exit_at.is_none() {
                self.asleep.store(true, Ordering::SeqCst);
                if self.is_unneeded() {
                    std::thread::park();
                }
                self.asleep.store(false, Ordering::SeqCst);
                idle_ticks = 0;
            }
            if one_computes {
                self.let_others_go_on(&mut served);
            }
            std::thread::sleep(tick);
        }
    }

    /// Whether no thread is inside JavaScript, and nothing else is to be done.
    fn is_unneeded(&self) -> bool {
        let is_empty = |slot: &Arc<Slot>| lock(&slot.entry).is_none();
        lock(&self.slots).iter().all(is_empty) && !self.is_out_of_memory.load(Ordering::SeqCst)
    }

    /// Has the kernel choose again soon who goes on, if threads that serve had time (`served`) since the last such moment: the monitor
    /// may have taken the core from one. When it sleeps, the kernel gives the core to the one that computes, to which it owes as much
    /// time as the other has had since it woke up; and it chooses anew only when some thread wakes up. That was the monitor, half
    /// a millisecond later.
    fn let_others_go_on(&self, served: &mut Duration) {
        for _ in 0..MOST_NUDGES {
            let now = self.serving_cpu();
            if std::mem::replace(served, now) == now {
                return;
            }
            std::thread::sleep(NUDGE);
        }
    }

    /// CPU time of all threads that do not compute for long.
    fn serving_cpu(&self) -> Duration {
        let slots = lock(&self.slots);
        let serving = slots.iter().filter(|slot| !slot.computes());
        serving.filter_map(|slot| slot.clock.read()).sum()
    }

    fn tell_stuck(&self, slot: &Slot) {
        let account = lock(&slot.entry)
            .as_ref()
            .and_then(|running| running.account.clone());
        let function = account.as_deref().map(Account::function);
        self.tell(slot.index, function);
        tracing::error!(
            namespace = function.map(|it| it.namespace.as_str()),
            function = function.map(|it| it.name.as_str()),
            "JavaScript does not end on request: the worker is replaced"
        );
    }
}

impl Monitor {
    fn tell(&self, thread: usize, function: Option<&FunctionIdentity>) {
        if let Some(stuck) = self.stuck.get() {
            stuck(thread, function);
        }
    }
}

impl Running {
    pub(super) fn new(
        number: u64,
        isolate: Interrupter,
        watch: Stopwatch,
        budget: Duration,
    ) -> Self {
        Self {
            number,
            isolate,
            watch,
            booked: Duration::ZERO,
            slice: Duration::ZERO,
            budget,
            until: None,
            account: None,
            has_seat: false,
            is_long: false,
            is_parked: false,
            is_asked: false,
            asked: 0,
            ended: None,
            overdue: Overdue::default(),
            ticks: 0,
        }
    }

    /// Books what was used since the last time.
    pub(super) fn charge(&mut self, used: Duration) {
        if let Some(account) = &self.account {
            account.charge(used.saturating_sub(self.booked), Instant::now());
        }
        self.booked = used;
    }

    /// Books what a whole entry used.
    pub(super) fn conclude(&mut self, used: Duration) {
        if let Some(account) = &self.account {
            // Of a short entry this is now: no clock has to be read.
            let now = self.watch.began() + used;
            account.entry_over(used, used.saturating_sub(self.booked), now);
        }
    }

    /// It goes on after an interrupt.
    pub(super) fn came_back(&mut self, used: Duration, has_seat: bool) {
        self.is_parked = false;
        self.is_asked = false;
        self.has_seat = has_seat;
        self.slice = used;
    }

    /// It has no seat any more, and is to ask for one like an entry that begins. Says whether it had one.
    pub(super) fn give_up_seat(&mut self) -> bool {
        let had_seat = std::mem::replace(&mut self.has_seat, false);
        if had_seat {
            self.asked = 0;
        }
        had_seat
    }

    /// V8 begins to collect garbage, or is done with it.
    pub(super) fn collecting(&mut self, begins: bool, used: Duration) {
        self.overdue.collecting(begins, used);
    }

    pub(super) fn is_collecting(&self) -> bool {
        self.overdue.collecting.is_some()
    }

    pub(super) fn end(&mut self, why: Ended, used: Duration) {
        if self.ended.is_none() {
            self.ended = Some(why);
            self.overdue.since = used;
            self.isolate.terminate();
        }
    }
}

/// How long V8 has not obeyed a termination, in CPU time.
#[derive(Clone, Copy, Debug, Default)]
struct Overdue {
    /// CPU time at the termination.
    since: Duration,
    /// CPU time at the end of the last collection of garbage, after which it is given time anew.
    collected: Duration,
    /// CPU time at the begin of the collection that runs.
    collecting: Option<Duration>,
}

impl Overdue {
    fn collecting(&mut self, begins: bool, used: Duration) {
        if begins {
            self.collecting = Some(used);
        } else {
            self.collecting = None;
            self.collected = used;
        }
    }

    /// A loop that never obeys may collect garbage all the time: that helps it for a while only.
    fn is_stuck(&self, used: Duration) -> bool {
        match self.collecting {
            Some(began) => used >= began.max(self.since) + STUCK_COLLECTING,
            None => {
                used >= self.since.max(self.collected) + STUCK
                    || used >= self.since + STUCK_COLLECTING
            }
        }
    }
}

impl Slot {
    /// Whether its thread does nothing else any more.
    fn computes(&self) -> bool {
        lock(&self.entry).as_ref().is_some_and(|it| it.is_long)
    }

    /// Does what is due.
    fn check(&self, now: Instant, others_wait: bool) -> Seen {
        let mut entry = lock(&self.entry);
        let Some(running) = entry.as_mut() else {
            return Seen::Nothing;
        };
        if running.is_parked {
            return Seen::Parked;
        }
        let Some(cpu) = self.clock.read() else {
            return Seen::Nothing;
        };
        let used = running.watch.used_at(cpu);
        running.ticks += 1;
        if running.ended.is_some() {
            return if running.overdue.is_stuck(used) {
                Seen::Stuck
            } else {
                Seen::Running
            };
        }
        if used >= running.budget {
            running.end(Ended::CpuExhausted, used);
        } else if running.until.is_some_and(|until| now >= until) {
            running.end(Ended::TimedOut, used);
        } else {
            let slice_is_over = running.has_seat && others_wait && used >= running.slice + SLICE;
            let hands_over = HAND_OVER
                .get(running.asked)
                .is_some_and(|after| used >= *after);
            if (hands_over || slice_is_over) && !running.is_asked {
                running.is_asked = true;
                running.asked += usize::from(hands_over);
                running.isolate.interrupt(running.number);
            }
            if running.ticks.is_multiple_of(HEAP_CHECK_TICKS) {
                running.isolate.measure_heap();
            }
        }
        if running.is_long {
            Seen::Computing
        } else {
            Seen::Running
        }
    }
}

/// No code panics while it holds one of these locks, so poison carries no news.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[test]
    fn what_does_not_obey_is_stuck_whether_it_collects_garbage_or_not() {
        let mut overdue = Overdue {
            since: milliseconds(50),
            ..Overdue::default()
        };
        assert!(!overdue.is_stuck(milliseconds(549)));
        assert!(overdue.is_stuck(milliseconds(550)));
        // One collection after the other.
        let mut used = milliseconds(50);
        while !overdue.is_stuck(used) {
            overdue.collecting(true, used);
            used += milliseconds(9);
            assert!(!overdue.is_stuck(used));
            overdue.collecting(false, used);
            used += milliseconds(1);
        }
        assert_eq!(used, milliseconds(50 + 10_000));
    }

    #[test]
    fn what_a_thread_that_serves_had_of_the_core_is_seen() {
        let monitor = Monitor::new(1);
        let (told, waits) = std::sync::mpsc::channel::<()>();
        let (tell, clock) = std::sync::mpsc::channel();
        let serving = std::thread::spawn(move || {
            tell.send(ThreadClock::of_this_thread()).unwrap();
            // Until the other end is dropped.
            waits.recv().unwrap_err();
        });
        let clock = clock.recv().unwrap();
        let slot = Slot {
            index: 0,
            clock,
            entry: Mutex::default(),
            round: Arc::default(),
        };
        lock(&monitor.slots).push(Arc::new(slot));
        let mut served = Duration::ZERO;
        let mut before = None;
        // It comes to rest at some time.
        while before.replace(served) != Some(served) || served.is_zero() {
            monitor.let_others_go_on(&mut served);
        }
        drop(told);
        serving.join().unwrap();
        // The kernel takes its clock a moment later.
        while clock.read().is_some() {
            std::thread::yield_now();
        }
        monitor.let_others_go_on(&mut served);
        assert_eq!(served, Duration::ZERO, "it has no clock any more");
    }

    #[test]
    fn a_collection_may_take_seconds() {
        let mut overdue = Overdue::default();
        overdue.collecting(true, milliseconds(20));
        // Terminated amid it.
        overdue.since = milliseconds(50);
        assert!(!overdue.is_stuck(milliseconds(10_049)));
        assert!(overdue.is_stuck(milliseconds(10_050)));
        overdue.collecting(false, milliseconds(3050));
        assert!(!overdue.is_stuck(milliseconds(3549)));
        assert!(overdue.is_stuck(milliseconds(3550)));
    }
}
