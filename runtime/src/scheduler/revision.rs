//! One revision of a Function: its code, its configuration, and the instances that serve it.
//!
//! The instance is made by the first request, by one of them if several come at once. A start that failed is not tried
//! again before a pause that doubles each time.
//!
//! Further instances, up to one a thread, are made by requests that find those there stalled, and go when they are idle.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use isolet_crds::ResolvedLimits;
use isolet_crds::bundle::FunctionIdentity;

use super::cell::{Cell, Load};
use super::console::Console;
use super::gate::{PATIENCE, Reservation};
use super::state::Failure;
use super::{Services, lock};
use crate::control::{LoadError, Start};
use crate::isolate::ffi_schedule::{COMPUTING, STARTING, with_slice};
use crate::isolate::{Blank, Blueprint, Uncaught};
use crate::limits::account::{Account, Pace};
use crate::server::error::RequestError;
use crate::server::outbox;
use crate::web::host::{ConsoleLevel, Exception};
use crate::worker::metrics::FunctionMetrics;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Time without a request after which a further instance goes.
const FURTHER_IDLE: Duration = Duration::from_secs(5);
/// Least time between two replacements of instances in which a request was ended.
const REPLACED_EVERY: Duration = Duration::from_secs(1);
/// CPU time of a start that the thread of the request may do itself, where handing it over would take longer.
const QUICK_CPU: Duration = Duration::from_millis(2);

/// One revision of a Function.
#[derive(Debug)]
pub(super) struct Revision {
    pub(super) name: String,
    pub(super) blueprint: Arc<Blueprint>,
    pub(super) console: Console,
    pub(super) services: Arc<Services>,
    pub(super) metrics: Arc<FunctionMetrics>,
    /// CPU time of the Function, over all its revisions and instances.
    pub(super) account: Arc<Account>,
    /// Requests of the Function, over all its revisions.
    pub(super) under_way: Arc<AtomicU32>,
    current: Mutex<Current>,
    /// Held by the request that makes the instance.
    starting: tokio::sync::Mutex<Option<FailedStart>>,
    /// A start is short enough for the thread that needs it.
    is_quick: AtomicBool,
    /// The agent has been told that it started.
    is_noted: AtomicBool,
}

#[derive(Debug, Default)]
struct Current {
    cell: Option<Arc<Cell>>,
    /// Beside that one; nothing while there is none. With the time when each was last asked for.
    further: Vec<(Arc<Cell>, Instant)>,
    /// When it was last asked for.
    used: Option<Instant>,
    /// When an instance was last replaced because a request was ended in it, and those that are to be replaced next.
    replaced: Option<Instant>,
    to_replace: Vec<Weak<Cell>>,
    /// Another revision serves: no new instance is kept.
    closed: bool,
}

/// Where a request goes.
enum Choice {
    Use(Arc<Cell>),
    /// All are stalled; this is the one with the fewest events.
    Grow(Arc<Cell>),
}

#[derive(Debug)]
struct FailedStart {
    error: LoadError,
    again: Instant,
    pause: Duration,
}

impl Revision {
    pub(super) fn new(
        name: String,
        blueprint: Blueprint,
        metrics: Arc<FunctionMetrics>,
        under_way: Arc<AtomicU32>,
        services: Arc<Services>,
    ) -> Self {
        let identity = &blueprint.manifest.function;
        Self {
            account: services.accounts.of(identity),
            console: Console::new(&identity.namespace, &identity.name, &name),
            name,
            blueprint: Arc::new(blueprint),
            services,
            metrics,
            under_way,
            current: Mutex::default(),
            starting: tokio::sync::Mutex::new(None),
            is_quick: AtomicBool::new(false),
            is_noted: AtomicBool::new(false),
        }
    }

    pub(super) fn identity(&self) -> &FunctionIdentity {
        &self.blueprint.manifest.function
    }

    pub(super) fn limits(&self) -> ResolvedLimits {
        self.blueprint.manifest.limits
    }

    /// An instance, made now if there is none.
    pub(super) async fn cell(self: &Arc<Self>, arrived: Instant) -> Result<Arc<Cell>, Failure> {
        match self.choose(arrived) {
            Some(Choice::Use(cell)) => Ok(cell),
            // Boxed, so that all other requests have a small future.
            Some(Choice::Grow(stalled)) => Ok(Box::pin(self.another()).await.unwrap_or(stalled)),
            None => Box::pin(self.first()).await,
        }
    }

    /// The first instance, made now unless another request has made it.
    async fn first(self: &Arc<Self>) -> Result<Arc<Cell>, Failure> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let overloaded = || Failure::from(RequestError::Overloaded);
        let starting = tokio::time::timeout_at(deadline, self.starting.lock()).await;
        let mut failed = starting.map_err(|_| overloaded())?;
        if let Some(cell) = self.running() {
            return Ok(cell);
        }
        let now = Instant::now();
        if let Some(failed) = failed.as_ref().filter(|failed| failed.again > now) {
            return Err(start_failed(&failed.error));
        }
        let reservation = self.services.admit(deadline).await.ok_or_else(overloaded)?;
        match self.start_soon(reservation).await {
            Ok(cell) => {
                *failed = None;
                self.adopt(&cell);
                Ok(cell)
            }
            Err(error) => {
                let pause = failed
                    .as_ref()
                    .map_or(FIRST_PAUSE, |before| (before.pause * 2).min(LONGEST_PAUSE));
                let failure = start_failed(&error);
                *failed = Some(FailedStart {
                    error,
                    again: now + pause,
                    pause,
                });
                Err(failure)
            }
        }
    }

    /// Tells the agent that this revision is used, if there is code to keep.
    fn note_start(&self) {
        let has_larger_modules = self.blueprint.has_larger_modules();
        if has_larger_modules && !self.is_noted.swap(true, Ordering::Relaxed) {
            self.services.start_log.note(Start {
                uid: self.identity().uid.clone(),
                revision: self.name.clone(),
                code: self.blueprint.sent_code(),
            });
        }
    }

    /// Makes an instance for a request that waits: on this thread if that is quick, of an isolate of the pool if one is
    /// ready (to make one takes a millisecond).
    async fn start_soon(
        self: &Arc<Self>,
        reservation: Reservation,
    ) -> Result<Arc<Cell>, LoadError> {
        let blank = self.services.pool.take(self.memory_bytes());
        if self.account.pace() == Pace::Long {
            // It is started anew each time that it is ended: others shall not wait for that.
            return self.start(blank, reservation, COMPUTING).await;
        }
        if self.is_quick.load(Ordering::Relaxed) {
            outbox::send();
            return Cell::start(self, blank, reservation);
        }
        self.start(blank, reservation, STARTING).await
    }

    /// Makes an instance to see whether that works.
    pub(super) async fn try_out(self: &Arc<Self>) -> Result<Arc<Cell>, LoadError> {
        let reservation = self.services.admit_trial().await;
        self.start(None, reservation, COMPUTING).await
    }

    /// Makes an instance, where it may block, on a thread with this slice.
    async fn start(
        self: &Arc<Self>,
        blank: Option<Blank>,
        reservation: Reservation,
        slice: Duration,
    ) -> Result<Arc<Cell>, LoadError> {
        let ended = |_| LoadError {
            message: "the worker is ending".into(),
            file: None,
            line: None,
            column: None,
        };
        let permit = self.services.starts.acquire().await;
        let revision = Arc::clone(self);
        let cell = self
            .services
            .runtime
            .spawn_blocking(move || {
                with_slice(slice, || Cell::start(&revision, blank, reservation))
            })
            .await
            .map_err(ended)?;
        drop(permit);
        cell
    }

    /// Notes how long a start took.
    pub(super) fn started_in(&self, cpu: Duration) {
        self.is_quick.store(cpu <= QUICK_CPU, Ordering::Relaxed);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        usize::try_from(self.limits().memory_bytes).unwrap_or(usize::MAX)
    }

    /// Has an instance serve this revision, unless another revision serves by now.
    pub(super) fn adopt(&self, cell: &Arc<Cell>) {
        let mut current = lock(&self.current);
        if !current.closed {
            current.cell = Some(Arc::clone(cell));
            current.used = Some(Instant::now());
        }
        drop(current);
        self.note_start();
    }

    fn choose(&self, now: Instant) -> Option<Choice> {
        let mut current = lock(&self.current);
        current.used = Some(now);
        let mut best = current.cell.as_ref()?;
        let mut load = best.load();
        let mut is_further = None;
        for (index, (cell, _)) in current.further.iter().enumerate() {
            if load == Load::Free {
                break;
            }
            let other = cell.load();
            if rank(other) < rank(load) {
                (best, load, is_further) = (cell, other, Some(index));
            }
        }
        let best = Arc::clone(best);
        let may_grow = current.further.len() + 1 < self.services.most_instances;
        if let Some(used) = is_further.and_then(|index| current.further.get_mut(index)) {
            used.1 = now;
        }
        Some(match load {
            Load::Stalled(_) if may_grow => Choice::Grow(best),
            _ => Choice::Use(best),
        })
    }

    /// Makes a further instance, unless one is being made or this fails, which is no news: the one there goes on.
    async fn another(self: &Arc<Self>) -> Option<Arc<Cell>> {
        let _one_at_a_time = self.starting.try_lock().ok()?;
        let reservation = self.services.try_admit()?;
        let cell = self.start_soon(reservation).await.ok()?;
        let mut current = lock(&self.current);
        let has_room = current.further.len() + 1 < self.services.most_instances;
        if current.cell.is_some() && has_room {
            current.further.push((Arc::clone(&cell), Instant::now()));
        }
        Some(cell)
    }

    /// Replaces an instance in which a request was ended: JavaScript may have been in the middle of something.
    ///
    /// Not more than one a second, the others later ([`Self::tidy`]): a Function whose requests are all ended would have each of
    /// them start an instance, which others on the same core notice more than the loop itself.
    pub(super) fn replace(&self, cell: &Arc<Cell>) {
        let mut current = lock(&self.current);
        if current.may_replace() {
            current.replaced = Some(Instant::now());
            drop(current);
            self.retire(cell);
        } else if !current
            .to_replace
            .iter()
            .any(|it| it.as_ptr() == Arc::as_ptr(cell))
        {
            current.to_replace.push(Arc::downgrade(cell));
        }
    }

    /// Once a second: has instances go in which a request was ended, and further ones that nobody has used for a while.
    pub(super) fn tidy(&self) {
        for ended in self.due_for_replacement() {
            self.retire(&ended);
        }
        self.shrink();
    }

    fn due_for_replacement(&self) -> Vec<Arc<Cell>> {
        let mut current = lock(&self.current);
        if current.to_replace.is_empty() || !current.may_replace() {
            return Vec::new();
        }
        current.replaced = Some(Instant::now());
        let ended = current.to_replace.drain(..);
        ended.filter_map(|cell| cell.upgrade()).collect()
    }

    fn shrink(&self) {
        let mut gone = Vec::new();
        lock(&self.current).further.retain(|(cell, used)| {
            let stays = used.elapsed() < FURTHER_IDLE || cell.is_busy();
            if !stays {
                gone.push(Arc::clone(cell));
            }
            stays
        });
    }

    /// The instance and the time since it was last asked for.
    pub(super) fn unused(&self) -> Option<(Arc<Cell>, Duration)> {
        let current = lock(&self.current);
        Some((current.cell.clone()?, current.used?.elapsed()))
    }

    /// All instances that may get requests.
    pub(super) fn cells(&self) -> Vec<Arc<Cell>> {
        let current = lock(&self.current);
        let further = current.further.iter().map(|(cell, _)| cell);
        current.cell.iter().chain(further).cloned().collect()
    }

    pub(super) fn running(&self) -> Option<Arc<Cell>> {
        lock(&self.current).cell.clone()
    }

    /// Gives an instance no new requests; those under way keep it alive.
    pub(super) fn retire(&self, cell: &Arc<Cell>) {
        let mut current = lock(&self.current);
        if current
            .cell
            .as_ref()
            .is_some_and(|it| Arc::ptr_eq(it, cell))
        {
            current.cell = current.further.pop().map(|(cell, _)| cell);
        } else {
            current.further.retain(|(it, _)| !Arc::ptr_eq(it, cell));
        }
    }

    /// Another revision serves now, or none.
    pub(super) fn close(&self) {
        let cells = {
            let mut current = lock(&self.current);
            current.closed = true;
            (current.cell.take(), std::mem::take(&mut current.further))
        };
        drop(cells);
    }

    /// The log line of a request that failed.
    pub(super) fn report(&self, failure: &Failure) {
        let identity = self.identity();
        let none = Exception::default();
        let exception = failure.exception.as_ref().unwrap_or(&none);
        tracing::warn!(
            namespace = identity.namespace,
            function = identity.name,
            revision = self.name,
            reason = failure.error.reason(),
            exception = exception.message,
            stack = exception.stack,
            cpu_ms = milliseconds(failure.cpu),
            "request failed: {}",
            failure.error
        );
    }

    /// Has the Function's console tell what was thrown and nothing caught.
    pub(super) fn report_uncaught(&self, uncaught: impl IntoIterator<Item = Uncaught>) {
        for thrown in uncaught {
            let exception = self.blueprint.positions.remap_exception(thrown.exception);
            let place = if thrown.in_promise {
                " (in promise)"
            } else {
                ""
            };
            let text = format!("Uncaught{place} {}", exception.shown());
            self.console.write(ConsoleLevel::Error, text);
        }
    }
}

impl Current {
    fn may_replace(&self) -> bool {
        self.replaced
            .is_none_or(|at| at.elapsed() >= REPLACED_EVERY)
    }
}

/// In steps of a microsecond.
fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

/// Order in which instances are chosen: the smallest first.
fn rank(load: Load) -> (u8, usize) {
    match load {
        Load::Free => (0, 0),
        Load::Waiting(events) => (1, events),
        Load::Stalled(events) => (2, events),
    }
}

fn start_failed(error: &LoadError) -> Failure {
    Failure {
        error: RequestError::StartFailed,
        cpu: Duration::ZERO,
        exception: Some(Exception {
            message: error.message.clone(),
            file: error.file.clone(),
            line: error.line,
            column: error.column,
            ..Exception::default()
        }),
    }
}
