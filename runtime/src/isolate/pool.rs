//! Generic isolates made in advance, so that a start does not wait for one.
//!
//! ```text
//! a start      take() ──────────────────────> one that is ready, or none: the start makes its own
//!                │ half of the wanted number left: wake
//! "pool"       makes isolates until the wanted number is there; its thread has a low priority, so that requests go first
//! ```
//!
//! The wanted number follows demand: it doubles when the pool was found empty and halves when nothing was taken for a while.
//! Where there is little room for instances, it is the least: before warm ones go, those go that nobody waits for.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::generic::Generic;
use super::snapshot::Snapshot;
use super::{ffi_schedule, platform};
use crate::limits::memory::{self, Usage};

/// `limits.memory` of an isolate that nobody has taken yet.
const DEFAULT_LIMIT_BYTES: usize = 128 << 20;
/// Isolates kept ready at least and at most.
const LEAST: usize = 4;
const MOST: usize = 64;
/// Isolates wanted at start.
const AT_START: usize = 16;
/// Time without a start after which fewer are kept ready.
const CALM: Duration = Duration::from_secs(3);
/// Pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// The start that took an isolate gets so much time before the next one is made.
const GRACE: Duration = Duration::from_millis(2);

/// Isolates that are ready, and the thread that makes them.
#[derive(Debug)]
pub struct Pool {
    snapshot: Snapshot,
    state: Mutex<State>,
    changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct State {
    ready: VecDeque<Generic>,
    wanted: usize,
    /// Some were taken since the last look.
    taken: bool,
    /// No more are made: the process ends.
    closed: bool,
    /// Few are kept: there is little room.
    is_tight: bool,
    /// What instances share is compiled.
    compiled: bool,
}

/// An isolate for one start.
#[derive(Debug)]
pub struct Blank(pub(super) Generic);

impl Pool {
    /// Starts to fill a pool. Needs V8 to be initialised.
    pub fn start(snapshot: Snapshot) -> std::io::Result<Arc<Self>> {
        let pool = Arc::new(Self {
            snapshot,
            state: Mutex::new(State {
                ready: VecDeque::new(),
                wanted: AT_START,
                taken: false,
                closed: false,
                is_tight: false,
                compiled: false,
            }),
            changed: Condvar::new(),
            thread: Mutex::new(None),
        });
        let filled = Arc::clone(&pool);
        let thread = std::thread::Builder::new()
            .name("pool".into())
            .stack_size(platform::STACK_BYTES)
            .spawn(move || {
                ffi_schedule::stand_back();
                filled.fill();
            })?;
        *pool.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(pool)
    }

    /// An isolate that is ready, for this `limits.memory`.
    pub fn take(&self, limit_bytes: usize) -> Option<Blank> {
        let mut state = self.state();
        state.taken = true;
        let taken = state.ready.pop_front();
        if taken.is_none() {
            state.wanted = (state.wanted * 2).min(MOST);
        }
        if state.ready.len() <= state.wanted() / 2 {
            self.changed.notify_one();
        }
        drop(state);
        let blank = taken?;
        blank.budget.limit_to(limit_bytes);
        Some(Blank(blank))
    }

    /// A new isolate, made here and now.
    pub fn make(&self, limit_bytes: usize) -> Result<Blank, String> {
        Generic::make(self.snapshot, limit_bytes).map(Blank)
    }

    /// How many are ready.
    pub fn ready(&self) -> usize {
        self.state().ready.len()
    }

    /// Keeps few ready while there is little room. Says what those use that go for it.
    pub fn tighten(&self, is_tight: bool) -> Usage {
        let mut state = self.state();
        let is_news = state.is_tight != is_tight;
        state.is_tight = is_tight;
        let surplus = state.ready.iter().skip(state.wanted());
        let surplus = surplus.fold(Usage::default(), |sum, it| sum.plus(it.budget.usage()));
        drop(state);
        if is_news {
            self.changed.notify_one();
        }
        surplus
    }

    /// Ends the thread.
    pub fn close(&self) {
        self.state().closed = true;
        self.changed.notify_one();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that makes isolates has panicked");
        }
    }

    fn fill(&self) {
        while let Some(step) = self.next_step() {
            match step {
                Step::Drop(surplus) => drop(surplus),
                Step::Compile => {
                    if let Err(error) = Generic::make(self.snapshot, DEFAULT_LIMIT_BYTES)
                        .and_then(|it| it.compile_lazy_files())
                    {
                        // Each instance that needs them compiles them itself.
                        tracing::error!(error, "failed to compile the files that are run late");
                    }
                }
                Step::Make => match self.make_ready() {
                    Ok(made) => self.state().ready.push_back(made),
                    Err(error) => {
                        tracing::error!(error, "failed to make an isolate");
                        std::thread::sleep(PAUSE);
                    }
                },
            }
        }
    }

    fn make_ready(&self) -> Result<Generic, String> {
        let made = Generic::make(self.snapshot, DEFAULT_LIMIT_BYTES)?;
        made.warm_up()?;
        made.give_tables_back();
        Ok(made)
    }

    /// Waits for something to do. None: the end.
    fn next_step(&self) -> Option<Step> {
        let mut state = self.state();
        while !state.closed {
            if !state.compiled {
                state.compiled = true;
                return Some(Step::Compile);
            }
            let wanted = state.wanted();
            if state.ready.len() < wanted && has_room(state.ready.len()) {
                return Some(Step::Make);
            }
            if state.ready.len() > wanted {
                return state.ready.pop_back().map(Step::Drop);
            }
            let at_most = if state.is_tight { PAUSE } else { CALM };
            let (woken, waited) = self
                .changed
                .wait_timeout(state, at_most)
                .unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if waited.timed_out() {
                if !state.is_tight {
                    state.calm_down();
                }
                continue;
            }
            // On one core the next one would be made in the midst of the start that took this one.
            drop(state);
            std::thread::sleep(GRACE);
            state = self.state();
        }
        None
    }

    /// No code panics while it holds this lock, so poison carries no news.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Step {
    /// What instances share of the Web API layer; first of all.
    Compile,
    Make,
    Drop(Generic),
}

/// Whether there is room for one more: up to the least number for as long as anything may start, beyond it while no instance
/// has to go for it.
fn has_room(ready: usize) -> bool {
    memory::has_room_for_more(1) || (ready < LEAST && memory::reserve().is_some())
}

impl State {
    fn wanted(&self) -> usize {
        if self.is_tight { LEAST } else { self.wanted }
    }

    fn calm_down(&mut self) {
        if !self.taken {
            self.wanted = (self.wanted / 2).max(LEAST);
        }
        self.taken = false;
    }
}
