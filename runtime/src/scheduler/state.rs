//! What an instance has under way: requests, and for each its timers, bodies and fetches.
//!
//! ```text
//! request   under way -> answered -> ended     ended: answered, its response written, no hold left
//!                     -> failed  -> ended      ended: at once
//! ```
//!
//! Everything that a request began ends with it. Completions that JavaScript still waits for then fail once, so that
//! nothing of an ended request stays in memory; they run on what is left of the request's CPU time.

use std::mem::take;
use std::task::{Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Response;
use isolet_crds::ResolvedLimits;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::inbound::{Inbound, InboundError};
use super::meter::Meter;
use super::pipe::PipeWriter;
use crate::limits::cpu;
use crate::limits::wall_clock::WallClock;
use crate::server::body::Body;
use crate::server::error::RequestError;
use crate::web::host::{CompletionId, Exception, HostError, RequestId, StreamId, WriterId};

/// Completions that one instance may wait for.
const MAX_PENDING: usize = 50_000;

/// Why a request got no answer from its function, with what only its author may see.
#[derive(Clone, Debug)]
pub struct Failure {
    /// For the caller.
    pub error: RequestError,
    /// For the log.
    pub exception: Option<Exception>,
    /// CPU time that the request had used.
    pub cpu: Duration,
}

/// What a function answered.
#[derive(Debug)]
pub struct Answered {
    /// Its response.
    pub response: Response<Body>,
    /// CPU time that the request had used by then; none where nobody wants to know.
    pub cpu: Option<Duration>,
}

/// An answer, or why there is none.
pub(super) type Answer = Result<Answered, Failure>;

/// The state of one instance.
#[derive(Debug)]
pub(super) struct State {
    /// The request whose event runs.
    pub(super) current: Option<RequestId>,
    pub(super) now_ms: f64,
    pub(super) elapsed_ms: f64,
    began: Instant,
    requests: FxHashMap<RequestId, UnderWay>,
    /// Those that their callers have not taken yet.
    answers: FxHashMap<RequestId, Answer>,
    pending: FxHashMap<CompletionId, Pending>,
    inbound: FxHashMap<StreamId, (RequestId, Option<Inbound>)>,
    writers: FxHashMap<WriterId, (RequestId, PipeWriter)>,
    /// Requests that may have ended in this entry.
    touched: Vec<RequestId>,
    /// What WebAssembly memories made so far may grow to; nobody says when they are gone.
    pub(super) wasm_bytes: u64,
    last_id: u32,
}

/// One request.
#[derive(Debug)]
pub(super) struct UnderWay {
    /// None once it is answered.
    caller: Option<Caller>,
    pub(super) cpu_left: Duration,
    meter: Meter,
    deadline: Instant,
    pub(super) subrequests_left: u32,
    holds: u32,
    /// Body of the response, while it is written.
    response: Option<WriterId>,
    ended: bool,
    waits: FxHashSet<CompletionId>,
    /// Its bodies that arrive, some of them gone by now.
    inbound: Vec<StreamId>,
    /// Its bodies that leave, some of them gone by now.
    writers: Vec<WriterId>,
    clock: Option<WallClock>,
}

/// Who waits for an answer.
#[derive(Debug)]
enum Caller {
    /// A task, once it has asked in vain.
    Waits(Option<Waker>),
    /// Nobody any more.
    Gone,
}

/// Something that JavaScript waits for.
#[derive(Debug)]
struct Pending {
    request: RequestId,
    /// The task that will bring it, if one is needed.
    task: Option<AbortHandle>,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            current: None,
            now_ms: 0.0,
            elapsed_ms: 0.0,
            began: Instant::now(),
            requests: FxHashMap::default(),
            answers: FxHashMap::default(),
            pending: FxHashMap::default(),
            inbound: FxHashMap::default(),
            writers: FxHashMap::default(),
            touched: Vec::new(),
            wasm_bytes: 0,
            last_id: 0,
        }
    }

    /// Sets the clocks, which then stand still until the next entry.
    pub(super) fn set_clocks(&mut self, now: Instant) {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.now_ms = since_epoch.as_millis() as f64;
        self.elapsed_ms = ((now - self.began).as_secs_f64() * 10_000.0).floor() / 10.0;
    }

    /// A number never used before in this instance.
    pub(super) fn next_id(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }

    /// Whether numbers run out, so that the instance must be replaced.
    pub(super) fn is_worn_out(&self) -> bool {
        self.last_id > u32::MAX / 2
    }

    pub(super) fn begin(
        &mut self,
        limits: ResolvedLimits,
        body: Option<Inbound>,
        deadline: Instant,
        meter: Meter,
    ) -> (RequestId, Option<StreamId>) {
        let request = RequestId(self.next_id());
        self.requests.insert(
            request,
            UnderWay {
                caller: Some(Caller::Waits(None)),
                cpu_left: Duration::from_millis(limits.cpu_ms),
                meter,
                deadline,
                subrequests_left: limits.subrequests,
                holds: 0,
                response: None,
                ended: false,
                waits: FxHashSet::default(),
                inbound: Vec::new(),
                writers: Vec::new(),
                clock: None,
            },
        );
        (request, body.map(|body| self.add_inbound(request, body)))
    }

    /// A request that has not ended.
    pub(super) fn live(&mut self, request: RequestId) -> Option<&mut UnderWay> {
        self.requests
            .get_mut(&request)
            .filter(|request| !request.ended)
    }

    /// CPU time that a request still has, and when its wall time ends.
    pub(super) fn time_left(&self, request: RequestId) -> (Duration, Instant) {
        match self.requests.get(&request) {
            Some(request) => (request.cpu_left, request.deadline),
            None => (Duration::ZERO, Instant::now()),
        }
    }

    pub(super) fn use_cpu(&mut self, request: RequestId, time: Duration) {
        if let Some(request) = self.requests.get_mut(&request) {
            request.cpu_left = request.cpu_left.saturating_sub(time);
            request.meter.used += time;
        }
    }

    /// Starts the wall clock of a request that is still under way, once.
    pub(super) fn arm(&mut self, request: RequestId, clock: impl FnOnce() -> WallClock) {
        if let Some(request) = self.live(request) {
            request.clock.get_or_insert_with(clock);
        }
    }

    /// Whether the wall clock of a request runs, which tells its caller.
    pub(super) fn is_armed(&self, request: RequestId) -> bool {
        self.requests
            .get(&request)
            .is_some_and(|request| request.ended || request.clock.is_some())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    /// Gives the room back that nothing under way needs.
    pub(super) fn shrink(&mut self) {
        self.requests.shrink_to_fit();
        self.answers.shrink_to_fit();
        self.pending.shrink_to_fit();
        self.inbound.shrink_to_fit();
        self.writers.shrink_to_fit();
        self.touched.shrink_to_fit();
    }

    // Answers.

    /// CPU time that a request has used, with the entry that runs.
    pub(super) fn cpu_used(&self, request: RequestId) -> Duration {
        let used = self.requests.get(&request).map(|it| it.meter.used);
        used.unwrap_or_default() + cpu::used_by_this_entry()
    }

    /// Sends the head of a response. False if the request has ended or was answered before.
    pub(super) fn answer(&mut self, request: RequestId, answered: Answered) -> bool {
        self.touched.push(request);
        let Some(caller) = self.live(request).and_then(|request| request.caller.take()) else {
            return false;
        };
        self.tell(request, caller, Ok(answered));
        true
    }

    /// The caller may have gone: the body is dropped with the response.
    fn tell(&mut self, request: RequestId, caller: Caller, answer: Answer) {
        if let Caller::Waits(waker) = caller {
            self.answers.insert(request, answer);
            waker.into_iter().for_each(Waker::wake);
        }
    }

    /// Takes the answer of a request, for its caller; until there is one, he is woken by this once there is.
    pub(super) fn poll_answer(&mut self, request: RequestId, waker: &Waker) -> Poll<Answer> {
        if let Some(answer) = self.answers.remove(&request) {
            return Poll::Ready(answer);
        }
        let waits = self.requests.get_mut(&request);
        match waits.and_then(|request| request.caller.as_mut()) {
            Some(caller) => {
                *caller = Caller::Waits(Some(waker.clone()));
                Poll::Pending
            }
            // The instance died between its choice and the request's begin.
            None => Poll::Ready(Err(RequestError::StartFailed.into())),
        }
    }

    /// The caller has gone. The answer that he has not taken, to be dropped.
    pub(super) fn give_up(&mut self, request: RequestId) -> Option<Answer> {
        let caller = self.live(request).and_then(|it| it.caller.as_mut());
        if let Some(caller) = caller {
            *caller = Caller::Gone;
        }
        self.answers.remove(&request)
    }

    pub(super) fn is_answered(&mut self, request: RequestId) -> bool {
        self.live(request)
            .is_none_or(|request| request.caller.is_none())
    }

    /// Fails a request; gives the failure back if its caller already has an answer.
    pub(super) fn fail(&mut self, request: RequestId, mut failure: Failure) -> Option<Failure> {
        self.touched.push(request);
        let under_way = self.live(request);
        if let Some(under_way) = &under_way {
            failure.cpu = under_way.meter.used + cpu::used_by_this_entry();
        }
        match under_way.and_then(|under_way| under_way.caller.take()) {
            // Logged by the caller, unless he has gone.
            Some(caller) => {
                self.tell(request, caller, Err(failure));
                None
            }
            None => Some(failure),
        }
    }

    pub(super) fn hold(&mut self, request: RequestId) {
        if let Some(request) = self.live(request) {
            request.holds += 1;
        }
    }

    pub(super) fn release(&mut self, request: RequestId) {
        self.touched.push(request);
        if let Some(request) = self.live(request) {
            request.holds = request.holds.saturating_sub(1);
        }
    }

    // Completions.

    /// A new completion for the request whose JavaScript asks.
    pub(super) fn wait(&mut self, acting: Option<RequestId>) -> Result<CompletionId, HostError> {
        let Some(acting) = acting else {
            return Err(HostError::Type(
                "timers, requests and bodies work inside the handler only, not at the module's top level".into(),
            ));
        };
        self.wait_for(acting)
    }

    /// A new completion for a request.
    pub(super) fn wait_for(&mut self, request: RequestId) -> Result<CompletionId, HostError> {
        let id = self.may_wait(request)?;
        self.expect(request, id);
        Ok(id)
    }

    /// The number of a new completion for a request, which need not be waited for.
    pub(super) fn may_wait(&mut self, request: RequestId) -> Result<CompletionId, HostError> {
        if self.pending.len() >= MAX_PENDING {
            return Err(HostError::Range(
                "too many timers, reads and requests are under way".into(),
            ));
        }
        if self.live(request).is_none() {
            return Err(ended());
        }
        Ok(CompletionId(self.next_id()))
    }

    /// Has a request wait for a completion of a number from [`Self::may_wait`].
    pub(super) fn expect(&mut self, request: RequestId, id: CompletionId) {
        if let Some(under_way) = self.live(request) {
            under_way.waits.insert(id);
            let task = None;
            self.pending.insert(id, Pending { request, task });
        }
    }

    /// Names the task that will bring a completion.
    pub(super) fn brought_by(&mut self, id: CompletionId, task: AbortHandle) {
        if let Some(pending) = self.pending.get_mut(&id) {
            pending.task = Some(task);
        }
    }

    /// Takes a completion that has come, or is no longer wanted; the request it belongs to, unless it was taken before.
    pub(super) fn take(&mut self, id: CompletionId) -> Option<RequestId> {
        let pending = self.pending.remove(&id)?;
        self.touched.push(pending.request);
        if let Some(request) = self.requests.get_mut(&pending.request) {
            request.waits.remove(&id);
        }
        Some(pending.request)
    }

    /// The same, and ends the task that would have brought it.
    pub(super) fn cancel(&mut self, id: CompletionId) {
        if let Some(task) = self.pending.get_mut(&id).and_then(|p| p.task.take()) {
            task.abort();
        }
        self.take(id);
    }

    // Bodies.

    pub(super) fn add_inbound(&mut self, request: RequestId, body: Inbound) -> StreamId {
        let stream = StreamId(self.next_id());
        self.inbound.insert(stream, (request, Some(body)));
        if let Some(request) = self.requests.get_mut(&request) {
            request.inbound.push(stream);
        }
        stream
    }

    /// Takes a body for one read.
    pub(super) fn take_inbound(
        &mut self,
        stream: StreamId,
    ) -> Result<(RequestId, Inbound), HostError> {
        let Some((request, body)) = self.inbound.get_mut(&stream) else {
            return Err(HostError::Type("the body was given up".into()));
        };
        match body.take() {
            Some(body) => Ok((*request, body)),
            None => Err(HostError::Type("a read of this body is under way".into())),
        }
    }

    /// Gives a body back after a read, unless it was given up meanwhile.
    pub(super) fn return_inbound(&mut self, stream: StreamId, inbound: Inbound) {
        if let Some((_, body)) = self.inbound.get_mut(&stream) {
            *body = Some(inbound);
        }
    }

    pub(super) fn drop_inbound(&mut self, stream: StreamId) {
        self.inbound.remove(&stream);
    }

    /// Drops a body that broke; gives what JavaScript gets for it.
    pub(super) fn inbound_failed(
        &mut self,
        request: RequestId,
        stream: StreamId,
        error: &InboundError,
    ) -> HostError {
        self.drop_inbound(stream);
        if matches!(error, InboundError::TooLarge(_)) {
            self.fail(request, RequestError::BodyTooLarge.into());
        }
        HostError::Type(error.to_string())
    }

    pub(super) fn add_writer(
        &mut self,
        request: RequestId,
        writer: PipeWriter,
        of: WriterOf,
    ) -> WriterId {
        let id = WriterId(self.next_id());
        self.writers.insert(id, (request, writer));
        if let Some(request) = self.requests.get_mut(&request) {
            request.writers.push(id);
            if of == WriterOf::Response && !request.ended {
                request.response = Some(id);
            }
        }
        id
    }

    pub(super) fn writer(&self, id: WriterId) -> Option<(RequestId, &PipeWriter)> {
        self.writers
            .get(&id)
            .map(|(request, writer)| (*request, writer))
    }

    pub(super) fn take_writer(&mut self, id: WriterId) -> Option<PipeWriter> {
        let (request, writer) = self.writers.remove(&id)?;
        self.touched.push(request);
        if let Some(under_way) = self.live(request)
            && under_way.response == Some(id)
        {
            under_way.response = None;
        }
        Some(writer)
    }

    // Ends.

    /// Ends the requests that are through. The answer lists completions that JavaScript still waits for.
    pub(super) fn settle(&mut self) -> Vec<CompletionId> {
        let mut touched = take(&mut self.touched);
        touched.extend(self.current);
        let mut orphans = Vec::new();
        for request in touched.drain(..) {
            match self.requests.get(&request) {
                Some(it) if it.ended && it.waits.is_empty() => {
                    self.requests.remove(&request);
                }
                Some(it)
                    if !it.ended
                        && it.caller.is_none()
                        && it.response.is_none()
                        && it.holds == 0 =>
                {
                    orphans.extend(self.end(request));
                }
                _ => {}
            }
        }
        // Its room is used again.
        self.touched = touched;
        orphans
    }

    /// Ends a request now. The answer lists completions that JavaScript still waits for.
    pub(super) fn end(&mut self, request: RequestId) -> Vec<CompletionId> {
        let Some(under_way) = self.live(request) else {
            return Vec::new();
        };
        under_way.ended = true;
        if let Some(Caller::Waits(Some(waker))) = under_way.caller.take() {
            waker.wake();
        }
        under_way.clock = None;
        let orphans: Vec<CompletionId> = under_way.waits.iter().copied().collect();
        let (inbound, writers) = (take(&mut under_way.inbound), take(&mut under_way.writers));
        for id in &orphans {
            if let Some(task) = self.pending.get_mut(id).and_then(|p| p.task.take()) {
                task.abort();
            }
        }
        for stream in inbound {
            self.inbound.remove(&stream);
        }
        for writer in writers {
            self.writers.remove(&writer);
        }
        if orphans.is_empty() {
            self.requests.remove(&request);
        }
        orphans
    }

    /// Forgets a request whose JavaScript must not run again.
    pub(super) fn forget(&mut self, request: RequestId) {
        for id in self.end(request) {
            self.take(id);
        }
        self.requests.remove(&request);
    }

    /// Fails and forgets all requests; gives the failures back of those whose callers already have an answer.
    pub(super) fn fail_all(&mut self, error: RequestError) -> Vec<Failure> {
        let requests: Vec<_> = self.requests.keys().copied().collect();
        let mut late = Vec::new();
        for request in requests {
            late.extend(self.fail(request, error.into()));
            self.forget(request);
        }
        late
    }
}

/// What a writer writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum WriterOf {
    Response,
    Upload,
}

/// What an ended request's operations fail with.
pub(super) fn ended() -> HostError {
    HostError::Abort("the request has ended".into())
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        Self {
            error,
            exception: None,
            cpu: Duration::ZERO,
        }
    }
}

/// Shared by the host in the isolate's slot and the cell.
pub(super) type SharedState = std::sync::Arc<std::sync::Mutex<State>>;
