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
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::eviction::MAX_INSTANCES;
use super::functions::Permit;
use super::host::InstanceHost;
use super::inbound::{Inbound, InboundError};
use super::lock;
use super::outbound::Fetched;
use super::revision::Revision;
use super::state::{Answer, SharedState, State, ended};
use crate::control::LoadError;
use crate::isolate::{End, Entry, Instance, Outcome};
use crate::limits::heap::HeapBudget;
use crate::limits::wall_clock::WallClock;
use crate::server::error::RequestError;
use crate::web::RequestHead;
use crate::web::host::{
    Completion, CompletionId, ConsoleLevel, HostError, InboundResponse, RequestId, StreamId,
};

/// Events that the thread which brought the first one runs before a task takes over.
const EVENTS_INLINE: usize = 4;
/// CPU time for telling a request that it is over, where it has none left.
const ABORT_CPU: Duration = Duration::from_millis(5);

/// One instance and its queue.
#[derive(Debug)]
pub(super) struct Cell {
    slot: Mutex<Slot>,
    state: SharedState,
    revision: Arc<Revision>,
    /// After the last entry.
    heap_bytes: AtomicUsize,
}

#[derive(Debug)]
struct Slot {
    /// Absent while its owner runs it, and once it is dead.
    instance: Option<Box<Instance>>,
    queue: VecDeque<Event>,
    dead: bool,
}

/// What an instance is entered for.
#[derive(Debug)]
pub(super) enum Event {
    /// A request.
    Dispatch(RequestId, RequestHead, Option<StreamId>),
    /// A timer fired, a pipe has room.
    Done(CompletionId),
    /// A read ended.
    Read {
        id: CompletionId,
        stream: StreamId,
        outcome: Result<Option<Bytes>, InboundError>,
        inbound: Inbound,
    },
    /// A fetch ended.
    Fetched {
        id: CompletionId,
        outcome: Result<Fetched, HostError>,
    },
    /// The caller has gone.
    Abort(RequestId),
    /// `limits.timeout` is over; the caller knows.
    Expire(RequestId),
    /// JavaScript waits for this, but its request has ended.
    Orphan(CompletionId),
}

impl Cell {
    /// Makes an instance. Blocks: compiles and runs the top level.
    pub(super) fn start(revision: &Arc<Revision>) -> Result<Arc<Self>, LoadError> {
        let cell = Arc::new(Self {
            slot: Mutex::new(Slot {
                instance: None,
                queue: VecDeque::new(),
                dead: false,
            }),
            state: Arc::new(Mutex::new(State::new())),
            revision: Arc::clone(revision),
            heap_bytes: AtomicUsize::new(0),
        });
        revision.services.metrics.instances(1);
        let others = revision.services.instances.fetch_add(1, Ordering::Relaxed);
        if others >= MAX_INSTANCES {
            let problem = "this runtime pod has as many live instances as it can hold";
            return Err(revision.blueprint.positions.load_error(problem, None));
        }
        lock(&cell.state).set_clocks();
        let limit = usize::try_from(revision.limits().memory_bytes).unwrap_or(usize::MAX);
        let budget = Arc::new(HeapBudget::new(limit));
        let host = InstanceHost {
            state: Arc::clone(&cell.state),
            cell: Arc::downgrade(&cell),
            revision: Arc::clone(revision),
            budget: Arc::clone(&budget),
        };
        let instance = Instance::start(&revision.blueprint, host, budget)?;
        lock(&cell.slot).instance = Some(Box::new(instance));
        Ok(cell)
    }

    /// Handles one request.
    pub(super) async fn dispatch(
        self: &Arc<Self>,
        head: RequestHead,
        body: Option<Inbound>,
        permit: Permit,
        deadline: Instant,
    ) -> Answer {
        let limits = self.revision.limits();
        let (answer, answered) = oneshot::channel();
        let (request, stream) = lock(&self.state).begin(
            answer,
            Duration::from_millis(limits.cpu_ms),
            limits.subrequests,
            permit,
            body,
        );
        self.push(Event::Dispatch(request, head, stream));
        lock(&self.state).arm(request, || {
            let cell = Arc::clone(self);
            WallClock::arm(deadline, async move { cell.expire(request) })
        });
        let caller = Caller {
            cell: self,
            request,
            answered: false,
        };
        let answer = answered
            .await
            // The instance died between its choice and the dispatch.
            .unwrap_or_else(|_| Err(RequestError::StartFailed.into()));
        caller.answered();
        answer
    }

    /// Runs an event here if the instance is idle.
    pub(super) fn push(self: &Arc<Self>, event: Event) {
        let Some(mut instance) = self.enqueue(event) else {
            return;
        };
        for _ in 0..EVENTS_INLINE {
            instance = match self.turn(instance) {
                Some(instance) => instance,
                None => return,
            };
        }
        self.drain(instance);
    }

    /// Has a task run an event if the instance is idle; for callers that must not run JavaScript themselves.
    pub(super) fn push_later(self: &Arc<Self>, event: Event) {
        if let Some(instance) = self.enqueue(event) {
            self.drain(instance);
        }
    }

    /// The instance, if the caller is its owner now.
    fn enqueue(&self, event: Event) -> Option<Box<Instance>> {
        let mut slot = lock(&self.slot);
        if slot.dead {
            drop(slot);
            if let Event::Dispatch(request, ..) = event {
                let mut state = lock(&self.state);
                state.fail(request, RequestError::MemoryLimitExceeded.into());
                state.forget(request);
            }
            return None;
        }
        slot.queue.push_back(event);
        slot.instance.take()
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
    fn turn(self: &Arc<Self>, mut instance: Box<Instance>) -> Option<Box<Instance>> {
        let event = {
            let mut slot = lock(&self.slot);
            match slot.queue.pop_front() {
                Some(event) => event,
                None => {
                    slot.instance = Some(instance);
                    return None;
                }
            }
        };
        let Some((request, entry, expired)) = self.prepare(event) else {
            return Some(instance);
        };
        let budget = lock(&self.state).cpu_left(request);
        let is_last_word = matches!(entry, Entry::Abort { .. });
        let outcome = if budget.is_zero() && !is_last_word {
            // An entry before this one used it up to the end.
            Outcome {
                cpu: Duration::ZERO,
                heap_bytes: self.heap_bytes.load(Ordering::Relaxed),
                end: End::CpuExhausted,
                rejections: Vec::new(),
            }
        } else if is_last_word {
            instance.run(entry, budget.max(ABORT_CPU))
        } else {
            instance.run(entry, budget)
        };
        self.conclude(instance, request, outcome, expired)
    }

    /// From an event to an entry for a request. None for what nobody waits for any more.
    fn prepare(&self, event: Event) -> Option<(RequestId, Entry, bool)> {
        let mut state = lock(&self.state);
        state.set_clocks();
        let complete = |request, id, completion| {
            let entry = Entry::Complete {
                request,
                id,
                completion,
            };
            (request, entry, false)
        };
        let (request, entry, expired) = match event {
            Event::Dispatch(request, head, body) => {
                state.live(request)?;
                let entry = Entry::Dispatch {
                    request,
                    head,
                    body,
                };
                (request, entry, false)
            }
            Event::Done(id) => complete(state.take(id)?, id, Completion::Done),
            Event::Orphan(id) => complete(state.take(id)?, id, Completion::Failed(ended())),
            Event::Read {
                id,
                stream,
                outcome,
                inbound,
            } => {
                let request = state.take(id)?;
                let completion = match outcome {
                    Ok(piece) => {
                        state.return_inbound(stream, inbound);
                        Completion::Chunk(piece)
                    }
                    Err(error) => {
                        state.drop_inbound(stream);
                        if matches!(error, InboundError::TooLarge(_)) {
                            state.fail(request, RequestError::BodyTooLarge.into());
                        }
                        Completion::Failed(HostError::Type(error.to_string()))
                    }
                };
                complete(request, id, completion)
            }
            Event::Fetched { id, outcome } => {
                let request = state.take(id)?;
                let completion = match outcome {
                    Ok(fetched) => {
                        let body = Inbound::of_response(fetched.body);
                        let body = (!body.is_end()).then(|| state.add_inbound(request, body));
                        Completion::Response(InboundResponse {
                            status: fetched.status,
                            status_text: String::new(),
                            headers: fetched.headers,
                            url: fetched.url,
                            redirected: fetched.redirected,
                            body,
                        })
                    }
                    Err(error) => Completion::Failed(error),
                };
                complete(request, id, completion)
            }
            Event::Abort(request) => {
                state.live(request)?;
                (request, abort(request, "The client has gone"), false)
            }
            Event::Expire(request) => {
                state.live(request)?;
                (request, abort(request, "The request's time is over"), true)
            }
        };
        state.current = Some(request);
        state.acting = Some(request);
        Some((request, entry, expired))
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
        self.heap_bytes.store(outcome.heap_bytes, Ordering::Relaxed);
        revision
            .services
            .metrics
            .used_cpu(revision.identity(), outcome.cpu);
        for rejection in outcome.rejections {
            let rejection = revision.blueprint.positions.remap_exception(rejection);
            revision.console.write(
                ConsoleLevel::Error,
                format!("Uncaught (in promise) {}", described(&rejection)),
            );
        }
        let mut late = Vec::new();
        let mut dead = false;
        let mut state = lock(&self.state);
        let mut retire = state.is_worn_out() || state.wasm_bytes > revision.limits().memory_bytes;
        state.use_cpu(request, outcome.cpu);
        match outcome.end {
            End::Done => {}
            End::Failed(exception) => {
                let exception = revision.blueprint.positions.remap_exception(exception);
                let text = format!("Uncaught {}", described(&exception));
                revision.console.write(ConsoleLevel::Error, text);
            }
            End::CpuExhausted => {
                late.extend(state.fail(request, RequestError::CpuLimitExceeded.into()));
                state.forget(request);
                retire = true;
            }
            End::HeapExceeded => {
                for request in state.all_requests() {
                    late.extend(state.fail(request, RequestError::MemoryLimitExceeded.into()));
                    state.forget(request);
                }
                retire = true;
                dead = true;
            }
        }
        let mut orphans = state.settle();
        if expired {
            orphans.extend(state.end(request));
        }
        state.current = None;
        drop(state);
        late.iter().for_each(|late| revision.report(late));
        if retire {
            revision.retire(self);
        }
        if dead {
            self.die(instance);
            return None;
        }
        let mut slot = lock(&self.slot);
        slot.queue.extend(orphans.into_iter().map(Event::Orphan));
        drop(slot);
        Some(instance)
    }

    /// Size of V8's heap after the last entry, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        self.heap_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn is_busy(&self) -> bool {
        !lock(&self.state).is_idle()
    }

    fn die(&self, instance: Box<Instance>) {
        let queue = {
            let mut slot = lock(&self.slot);
            slot.dead = true;
            std::mem::take(&mut slot.queue)
        };
        drop(queue);
        // Taking an isolate down takes milliseconds.
        self.revision
            .services
            .runtime
            .spawn_blocking(move || drop(instance));
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
        let instance = lock(&self.slot).instance.take();
        let services = &self.revision.services;
        services.metrics.instances(-1);
        services.instances.fetch_sub(1, Ordering::Relaxed);
        if let Some(instance) = instance {
            self.revision
                .services
                .runtime
                .spawn_blocking(move || drop(instance));
        }
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
            self.cell.push_later(Event::Abort(self.request));
        }
    }
}

fn abort(request: RequestId, reason: &str) -> Entry {
    Entry::Abort {
        request,
        reason: reason.to_owned(),
    }
}

/// An exception as the console shows it.
fn described(exception: &crate::web::host::Exception) -> &str {
    if exception.stack.is_empty() {
        &exception.message
    } else {
        &exception.stack
    }
}
