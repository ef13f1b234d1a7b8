//! One instance and its queue.
//!
//! ```text
//! push(event):  instance there -> take it (now owner), run here, give it back; what came meanwhile: a task drains it
//!               instance taken -> the owner runs it
//! ```
//!
//! The instance itself is the owner word: whoever took it out of the slot owns it. An owner runs a few events, then lets the
//! thread's other tasks run.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::event::{Event, Prepared};
use super::footprint::Footprint;
use super::functions::Permit;
use super::gate::{Place, Reservation};
use super::host::InstanceHost;
use super::inbound::Inbound;
use super::lock;
use super::meter::Meter;
use super::revision::Revision;
use super::state::{Answer, SharedState, State};
use crate::control::LoadError;
use crate::isolate::ffi_schedule::{COMPUTING, STARTING, with_slice};
use crate::isolate::{Blank, End, Entry, FINALIZERS_CPU, Instance, Outcome, Uncaught};
use crate::limits::cpu::{self, Terms};
use crate::limits::heap::{Excess, HeapBudget};
use crate::limits::memory::Usage;
use crate::limits::wall_clock::WallClock;
use crate::server::error::RequestError;
use crate::server::outbox;
use crate::web::RequestHead;
use crate::web::host::{ConsoleLevel, RequestId};

/// Events that the thread which brought the first one runs before a task takes over.
const EVENTS_INLINE: usize = 4;
/// Events that wait for an instance above which its Function may have another.
const MANY_EVENTS: usize = 8;
/// Time that one event takes after which its Function may have another instance.
const STALLED: Duration = Duration::from_millis(1);
/// CPU time for telling a request that it is over, where it has none left.
const ABORT_CPU: Duration = Duration::from_millis(5);
/// Wall time, at least, for an entry of a request whose own is over: it fails what JavaScript still waits for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// One instance and its queue.
#[derive(Debug)]
pub(super) struct Cell {
    slot: Mutex<Slot>,
    state: SharedState,
    revision: Arc<Revision>,
    footprint: Footprint,
    /// Until the isolate is gone.
    place: Mutex<Option<Place>>,
    /// Gone with the isolate and what waits to leave it.
    budget: OnceLock<Weak<HeapBudget>>,
}

/// What an instance is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// It would run an event at once.
    Free,
    /// So many events wait, soon to be run.
    Waiting(usize),
    /// So many events wait, and that may take long.
    Stalled(usize),
}

#[derive(Debug)]
struct Slot {
    /// Absent while its owner runs it, and once it is dead.
    instance: Option<Box<Instance>>,
    /// Empty while nobody owns the instance. Bounded by what a request and its completions can bring (`state`), and by the
    /// requests that may be under way.
    queue: VecDeque<Event>,
    /// When the event that runs began.
    turn_began: Option<Instant>,
    /// Set once it is dead: what requests are told that it had not begun.
    dead: Option<RequestError>,
}

impl Cell {
    /// Makes an instance, of this isolate if there is one. Blocks: compiles and runs the top level.
    pub(super) fn start(
        revision: &Arc<Revision>,
        blank: Option<Blank>,
        reservation: Reservation,
    ) -> Result<Arc<Self>, LoadError> {
        let Reservation { place, memory } = reservation;
        let cell = Arc::new(Self {
            slot: Mutex::new(Slot {
                instance: None,
                queue: VecDeque::new(),
                turn_began: None,
                dead: None,
            }),
            state: Arc::new(Mutex::new(State::new())),
            revision: Arc::clone(revision),
            footprint: Footprint::default(),
            place: Mutex::new(Some(place)),
            budget: OnceLock::new(),
        });
        lock(&cell.state).set_clocks(Instant::now());
        revision.services.metrics.started(blank.is_some());
        let blank = match blank {
            Some(blank) => blank,
            None => revision
                .services
                .pool
                .make(revision.memory_bytes())
                .map_err(|problem| revision.blueprint.positions.load_error(&problem, None))?,
        };
        let instance = Instance::start(&revision.blueprint, blank, |budget| {
            cell.budget.get_or_init(|| Arc::downgrade(budget));
            InstanceHost {
                state: Arc::clone(&cell.state),
                cell: Arc::downgrade(&cell),
                revision: Arc::clone(revision),
                budget: Arc::clone(budget),
                acting: None,
            }
        })?;
        // What it uses has been measured.
        drop(memory);
        revision.started_in(instance.start_cpu());
        revision.services.metrics.code_used(instance.code_use());
        lock(&cell.slot).instance = Some(Box::new(instance));
        Ok(cell)
    }

    /// Handles one request.
    pub(super) async fn dispatch(
        self: &Arc<Self>,
        head: Box<RequestHead>,
        body: Option<Inbound>,
        permit: Permit,
        deadline: Instant,
    ) -> Answer {
        let limits = self.revision.limits();
        let meter = Meter::new(permit);
        let (request, stream) = lock(&self.state).begin(limits, body, deadline, meter);
        self.push(Event::Dispatch(request, head, stream));
        let caller = Caller {
            cell: self,
            request,
            answered: false,
        };
        let answer = poll_fn(|context| self.poll_answer(request, deadline, context.waker())).await;
        caller.answered();
        answer
    }

    /// The answer of a request that has begun. Until it has ended, its wall clock runs: most have ended by now.
    fn poll_answer(
        self: &Arc<Self>,
        request: RequestId,
        deadline: Instant,
        waker: &Waker,
    ) -> Poll<Answer> {
        let mut state = lock(&self.state);
        state.arm(request, || {
            let cell = Arc::clone(self);
            WallClock::arm(deadline, async move { cell.expire(request) })
        });
        state.poll_answer(request, waker)
    }

    /// Runs an event here if the instance is idle.
    pub(super) fn push(self: &Arc<Self>, event: Event) {
        let Some((instance, event, now)) = self.begin(event) else {
            return;
        };
        let mut owned = self.run(instance, event, now);
        for _ in 1..EVENTS_INLINE {
            let Some(instance) = owned else {
                return;
            };
            owned = self.turn(instance);
        }
        if let Some(instance) = owned {
            self.drain(instance);
        }
    }

    /// Has a task run an event if the instance is idle; for callers that must not run JavaScript themselves.
    pub(super) fn push_later(self: &Arc<Self>, event: Event) {
        if let Some(instance) = self.enqueue(event) {
            self.drain(instance);
        }
    }

    /// The instance and the event for the caller, its owner now, to run; none where the event waits.
    fn begin(&self, event: Event) -> Option<(Box<Instance>, Event, Instant)> {
        let (mut slot, event) = self.alive(event)?;
        let Some(instance) = slot.instance.take() else {
            slot.queue.push_back(event);
            return None;
        };
        let now = Instant::now();
        slot.turn_began = Some(now);
        Some((instance, event, now))
    }

    /// The instance, if the caller is its owner now.
    fn enqueue(&self, event: Event) -> Option<Box<Instance>> {
        let (mut slot, event) = self.alive(event)?;
        slot.queue.push_back(event);
        slot.instance.take()
    }

    /// The slot, unless the instance is dead: then a request that would begin is told.
    fn alive(&self, event: Event) -> Option<(MutexGuard<'_, Slot>, Event)> {
        let slot = lock(&self.slot);
        let Some(why) = slot.dead else {
            return Some((slot, event));
        };
        drop(slot);
        if let Event::Dispatch(request, ..) = event {
            let mut state = lock(&self.state);
            state.fail(request, why.into());
            state.forget(request);
        }
        None
    }

    fn drain(self: &Arc<Self>, mut instance: Box<Instance>) {
        let cell = Arc::clone(self);
        self.revision.services.runtime.spawn(async move {
            while let Some(owned) = cell.turn(instance) {
                instance = owned;
                tokio::task::yield_now().await;
            }
        });
    }

    /// Runs the next event; gives the instance back to the slot if there is none.
    fn turn(self: &Arc<Self>, instance: Box<Instance>) -> Option<Box<Instance>> {
        let (event, now) = {
            let mut slot = lock(&self.slot);
            match slot.queue.pop_front() {
                Some(event) => {
                    let now = Instant::now();
                    slot.turn_began = Some(now);
                    (event, now)
                }
                None => {
                    slot.turn_began = None;
                    slot.instance = Some(instance);
                    return None;
                }
            }
        };
        self.run(instance, event, now)
    }

    /// Runs an event that begins now. None if the instance is dead.
    fn run(
        self: &Arc<Self>,
        mut instance: Box<Instance>,
        event: Event,
        now: Instant,
    ) -> Option<Box<Instance>> {
        outbox::send_if_due(now);
        let prepared = event.prepare(&mut lock(&self.state), now);
        let Some(Prepared {
            request,
            entry,
            expired,
            time_left: (budget, deadline),
        }) = prepared
        else {
            return Some(instance);
        };
        let is_last_word = matches!(entry, Entry::Abort { .. });
        let is_first = matches!(entry, Entry::Dispatch { .. });
        let outcome = if budget.is_zero() && !is_last_word {
            // An entry before this one used it up to the end.
            Outcome {
                cpu: Duration::ZERO,
                heap_bytes: self.footprint.bytes(),
                end: End::CpuExhausted,
                uncaught: Vec::new(),
            }
        } else {
            let least = if is_last_word {
                ABORT_CPU
            } else {
                Duration::ZERO
            };
            let terms = Terms {
                budget: budget.max(least),
                until: until(deadline, is_first),
                account: Arc::clone(&self.revision.account),
            };
            cpu::aside(&self.revision.account, || instance.run(entry, terms))
        };
        self.conclude(instance, request, outcome, expired)
    }

    /// Books what an entry did. None if the instance is dead.
    fn conclude(
        self: &Arc<Self>,
        instance: Box<Instance>,
        request: RequestId,
        outcome: Outcome,
        expired: bool,
    ) -> Option<Box<Instance>> {
        let revision = &self.revision;
        self.footprint.used(outcome.heap_bytes);
        revision
            .services
            .metrics
            .used_cpu(&revision.metrics, outcome.cpu);
        revision.report_uncaught(outcome.uncaught);
        // Before the callers know: what they ask next shall find another instance.
        if let End::CpuExhausted | End::TimedOut | End::GaveWay = outcome.end {
            revision.replace(self);
        }
        let mut late = Vec::new();
        let mut state = lock(&self.state);
        let is_worn = state.is_worn_out() || state.wasm_bytes > revision.limits().memory_bytes;
        state.use_cpu(request, outcome.cpu);
        match outcome.end {
            End::Done => {}
            End::Failed(exception) => revision.report_uncaught([Uncaught {
                exception,
                in_promise: false,
            }]),
            End::CpuExhausted => {
                late.extend(state.fail(request, RequestError::CpuLimitExceeded.into()));
                state.forget(request);
            }
            End::TimedOut => {
                // An armed clock tells the caller, and the log.
                let is_told = state.is_armed(request);
                let failed = state.fail(request, RequestError::Timeout.into());
                late.extend(failed.filter(|_| !is_told));
                state.forget(request);
            }
            End::GaveWay => {
                late.extend(state.fail(request, RequestError::TooBusy.into()));
                state.forget(request);
            }
            End::HeapExceeded(excess) => {
                drop(state);
                self.die(instance, excess);
                return None;
            }
        }
        let mut orphans = state.settle();
        if expired {
            orphans.extend(state.end(request));
        }
        state.current = None;
        drop(state);
        late.iter().for_each(|late| revision.report(late));
        if is_worn {
            revision.retire(self);
        }
        if !orphans.is_empty() {
            let mut slot = lock(&self.slot);
            slot.queue.extend(orphans.into_iter().map(Event::Orphan));
        }
        Some(instance)
    }

    /// Whether it is time to [`Cell::compact`] an instance that has had no request for so long.
    pub(super) fn should_collect(&self, unused: Duration, is_tight: bool) -> bool {
        self.footprint.is_due(unused, is_tight)
    }

    /// Has an instance that is idle give back memory that it does not need; once between two entries. See [`Instance::compact`].
    pub(super) fn compact(self: &Arc<Self>, thoroughly: bool) {
        if !self.footprint.begin() {
            return;
        }
        let Some(mut instance) = lock(&self.slot).instance.take() else {
            return;
        };
        lock(&self.state).shrink();
        let done = instance.compact(thoroughly);
        self.footprint.collected(done.heap_bytes);
        self.revision.report_uncaught(done.uncaught);
        if done.finalizers_ended {
            let text = format!(
                "Callbacks of a FinalizationRegistry were ended: while no request is under way they may use {} ms of CPU time",
                FINALIZERS_CPU.as_millis()
            );
            self.revision.console.write(ConsoleLevel::Error, text);
        }
        if let Some(excess) = done.exceeded {
            self.die(instance, excess);
            return;
        }
        let mut slot = lock(&self.slot);
        if slot.queue.is_empty() {
            slot.instance = Some(instance);
        } else {
            drop(slot);
            self.drain(instance);
        }
    }

    /// What the instance uses of what the process has; nothing once it is gone.
    pub(super) fn usage(&self) -> Usage {
        let budget = self.budget().upgrade();
        budget.map(|budget| budget.usage()).unwrap_or_default()
    }

    pub(super) fn revision(&self) -> &Revision {
        &self.revision
    }

    /// The instance's memory.
    pub(super) fn budget(&self) -> Weak<HeapBudget> {
        self.budget.get().cloned().unwrap_or_default()
    }

    /// What it is at.
    pub(super) fn load(&self) -> Load {
        let slot = lock(&self.slot);
        if slot.instance.is_some() {
            return Load::Free;
        }
        let waiting = slot.queue.len();
        let is_slow = slot
            .turn_began
            .is_some_and(|began| began.elapsed() >= STALLED);
        if is_slow || waiting >= MANY_EVENTS {
            Load::Stalled(waiting)
        } else {
            Load::Waiting(waiting)
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        !lock(&self.state).is_idle()
    }

    /// Ends an instance with requests that all wait for something, for the memory that it holds. Says whether it did: not if one
    /// runs.
    pub(super) fn make_room(self: &Arc<Self>) -> bool {
        let Some(instance) = lock(&self.slot).instance.take() else {
            return false;
        };
        if let Some(budget) = self.budget().upgrade() {
            budget.exceed(Excess::Share);
        }
        self.die(instance, Excess::Share);
        true
    }

    fn die(self: &Arc<Self>, instance: Box<Instance>, excess: Excess) {
        // Before the callers know: what they ask next shall find another instance.
        self.revision.retire(self);
        let why = RequestError::from(excess);
        let mut slot = lock(&self.slot);
        slot.dead = Some(why);
        let queue = std::mem::take(&mut slot.queue);
        drop(slot);
        drop(queue);
        let late = lock(&self.state).fail_all(why);
        late.iter().for_each(|late| self.revision.report(late));
        let place = lock(&self.place).take();
        // Taking an isolate down takes milliseconds. Others may need its memory, so those that compute do not go first.
        self.revision.services.runtime.spawn_blocking(move || {
            with_slice(STARTING, || drop(instance));
            drop(place);
        });
    }

    /// The caller's time is over, whatever the instance does now.
    fn expire(self: &Arc<Self>, request: RequestId) {
        let late = lock(&self.state).fail(request, RequestError::Timeout.into());
        if let Some(late) = late {
            self.revision.report(&late);
        }
        self.push(Event::Expire(request));
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        let Some(mut instance) = lock(&self.slot).instance.take() else {
            return;
        };
        let place = lock(&self.place).take();
        self.revision.services.runtime.spawn_blocking(move || {
            with_slice(COMPUTING, || {
                instance.leave_code();
                drop(instance);
            });
            drop(place);
        });
    }
}

/// The connection's side of a request; dropped before the answer when the client hangs up.
struct Caller<'c> {
    cell: &'c Arc<Cell>,
    request: RequestId,
    answered: bool,
}

impl Caller<'_> {
    fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        if !self.answered {
            let unsent = lock(&self.cell.state).give_up(self.request);
            drop(unsent);
            self.cell.push_later(Event::Abort(self.request));
        }
    }
}

/// When an entry's wall time ends. A request's first entry has the request's; later ones may be for one that has ended.
fn until(deadline: Instant, is_first: bool) -> std::time::Instant {
    let deadline = deadline.into_std();
    if is_first {
        deadline
    } else {
        deadline.max(std::time::Instant::now() + LAST_WORDS)
    }
}
