//! What JavaScript asks for: the [`Host`] of one instance. Its methods run inside an entry, on the owner's thread.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http::header::{CONTENT_LENGTH, Entry};
use http::{Response, StatusCode};

use super::cell::Cell;
use super::event::Event;
use super::lock;
use super::pipe::{PipeEvents, Written, pipe};
use super::revision::Revision;
use super::state::{Answered, Failure, SharedState, State, WriterOf, ended};
use crate::limits::heap::{Charge, HeapBudget};
use crate::server::body::Body;
use crate::server::error::RequestError;
use crate::web::host::{
    CompletionId, ConsoleLevel, Exception, Host, HostError, OutboundHandle, OutboundRequest,
    OutgoingBody, ReadOutcome, RequestId, ResponseHead, StreamId, WriteOutcome, WriterId,
};

/// Bodies up to this size are not worth an entry in the books.
const UNCHARGED_BYTES: usize = 4 << 10;

/// How many times `limits.memory` the WebAssembly memories of one instance may come to before it is replaced: past one time
/// it gets no new requests (see `cell`), past this no more memories.
const WASM_MEMORIES: u64 = 4;
/// What a WebAssembly memory counts for at least: it takes memory mappings and gigabytes of addresses, however small.
const WASM_LEAST_BYTES: u64 = 1 << 20;

/// The process around one instance.
pub(super) struct InstanceHost {
    pub(super) state: SharedState,
    pub(super) cell: Weak<Cell>,
    pub(super) revision: Arc<Revision>,
    pub(super) budget: Arc<HeapBudget>,
    /// The request whose JavaScript makes the next call, where V8 knows it: the one whose event runs, or the one that began a
    /// promise which it settled.
    pub(super) acting: Option<RequestId>,
}

impl InstanceHost {
    fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        act(&mut lock(&self.state))
    }

    fn cell(&self) -> Result<Arc<Cell>, HostError> {
        self.cell.upgrade().ok_or_else(ended)
    }

    /// Has a task bring a completion.
    fn bring(
        &self,
        id: CompletionId,
        event: impl Future<Output = Event> + Send + 'static,
    ) -> Result<(), HostError> {
        let cell = self.cell()?;
        let task = self.revision.services.runtime.spawn(async move {
            let event = event.await;
            cell.push(event);
        });
        self.with(|state| state.brought_by(id, task.abort_handle()));
        Ok(())
    }

    /// A body that leaves, and its writer if it is a stream.
    fn outgoing(
        &self,
        request: RequestId,
        body: OutgoingBody,
        of: WriterOf,
    ) -> Result<(Body, Option<WriterId>), HostError> {
        match body {
            OutgoingBody::Empty => Ok((Body::empty(), None)),
            OutgoingBody::Full(bytes) if bytes.len() <= UNCHARGED_BYTES => {
                Ok((Body::full(bytes), None))
            }
            OutgoingBody::Full(bytes) => {
                let charge = Charge::take(&self.budget, bytes.len()).ok_or_else(too_large)?;
                Ok((Body::charged(bytes, charge), None))
            }
            OutgoingBody::Stream => {
                let events = Events {
                    cell: self.cell.clone(),
                    gone: (of == WriterOf::Response).then_some(request),
                };
                let (writer, reader) = pipe(Arc::clone(&self.budget), Box::new(events));
                let writer = self.with(|state| state.add_writer(request, writer, of));
                Ok((Body::pipe(reader), Some(writer)))
            }
        }
    }
}

impl Host for InstanceHost {
    fn now_ms(&self) -> f64 {
        self.with(|state| state.now_ms)
    }

    fn elapsed_ms(&self) -> f64 {
        self.with(|state| state.elapsed_ms)
    }

    fn current_request(&self) -> Option<RequestId> {
        self.acting.or_else(|| self.with(|state| state.current))
    }

    fn act_for(&mut self, request: Option<RequestId>) {
        self.acting = request;
    }

    fn start_timer(&mut self, delay: Duration) -> Result<CompletionId, HostError> {
        let acting = self.current_request();
        let id = self.with(|state| state.wait(acting))?;
        self.bring(id, async move {
            tokio::time::sleep(delay).await;
            Event::Done(id)
        })?;
        Ok(id)
    }

    fn cancel_timer(&mut self, timer: CompletionId) {
        self.with(|state| state.cancel(timer));
    }

    fn read(&mut self, stream: StreamId) -> Result<ReadOutcome, HostError> {
        let (request, mut inbound) = self.with(|state| state.take_inbound(stream))?;
        match inbound.next().now_or_never() {
            Some(Ok(piece)) => {
                self.with(|state| state.return_inbound(stream, inbound));
                return Ok(ReadOutcome::Ready(piece));
            }
            Some(Err(error)) => {
                return Err(self.with(|state| state.inbound_failed(request, stream, &error)));
            }
            None => {}
        }
        let id = match self.with(|state| state.wait_for(request)) {
            Ok(id) => id,
            Err(error) => {
                self.with(|state| state.return_inbound(stream, inbound));
                return Err(error);
            }
        };
        self.bring(id, async move {
            let outcome = inbound.next().await;
            Event::Read {
                id,
                stream,
                outcome,
                inbound,
            }
        })?;
        Ok(ReadOutcome::Wait(id))
    }

    fn cancel_read(&mut self, stream: StreamId) {
        self.with(|state| state.drop_inbound(stream));
    }

    fn respond(
        &mut self,
        request: RequestId,
        head: ResponseHead,
        body: OutgoingBody,
    ) -> Result<Option<WriterId>, HostError> {
        let streams = matches!(body, OutgoingBody::Stream);
        // Before it has a writer.
        if streams && self.with(|state| state.is_answered(request)) {
            return Err(ended());
        }
        let mut response = response(head, streams)?;
        let (body, writer) = self.outgoing(request, body, WriterOf::Response)?;
        *response.body_mut() = body;
        let shows_cpu = self.revision.services.server_timing
            || tracing::enabled!(target: crate::server::LOG, tracing::Level::DEBUG);
        let is_first = self.with(|state| {
            let cpu = shows_cpu.then(|| state.cpu_used(request));
            state.answer(request, Answered { response, cpu })
        });
        if is_first || streams {
            // A stream of a request that was ended meanwhile finds its reader gone.
            Ok(writer)
        } else {
            Err(ended())
        }
    }

    fn fail(&mut self, request: RequestId, exception: Exception) {
        let failure = Failure {
            error: RequestError::HandlerError,
            exception: Some(self.revision.blueprint.positions.remap_exception(exception)),
            cpu: Duration::ZERO,
        };
        if let Some(late) = self.with(|state| state.fail(request, failure)) {
            self.revision.report(&late);
        }
    }

    fn write(&mut self, writer: WriterId, piece: Bytes) -> Result<WriteOutcome, HostError> {
        self.with(|state| {
            let Some((request, _)) = state.writer(writer) else {
                return Err(ended());
            };
            let id = state.may_wait(request)?;
            let written = match state.writer(writer) {
                Some((_, writer)) => writer.write(piece, id),
                None => Written::Gone,
            };
            match written {
                Written::Accepted => Ok(WriteOutcome::Accepted),
                Written::Wait => {
                    state.expect(request, id);
                    Ok(WriteOutcome::Wait(id))
                }
                Written::Gone => Err(HostError::Type("the other side has gone".into())),
                Written::TooLarge => Err(too_large()),
                Written::Busy => Err(HostError::Type("the write before is not done".into())),
            }
        })
    }

    fn close(&mut self, writer: WriterId, error: Option<String>) {
        if let Some(pipe) = self.with(|state| state.take_writer(writer)) {
            pipe.close(error);
        }
    }

    fn fetch(&mut self, outbound: OutboundRequest) -> Result<OutboundHandle, HostError> {
        let limit = self.revision.limits().subrequests;
        let acting = self.current_request();
        let (request, id) = self.with(|state| {
            let id = state.wait(acting)?;
            let request = acting.ok_or_else(ended)?;
            let left = state
                .live(request)
                .map(|request| &mut request.subrequests_left);
            match left {
                Some(left) if *left > 0 => {
                    *left -= 1;
                    Ok((request, id))
                }
                _ => {
                    state.take(id);
                    Err(HostError::Range(format!(
                        "one request may make {limit} requests of its own: raise limits.subrequests"
                    )))
                }
            }
        })?;
        let mut outbound = outbound;
        let body = std::mem::replace(&mut outbound.body, OutgoingBody::Empty);
        let (body, writer) = self
            .outgoing(request, body, WriterOf::Upload)
            .inspect_err(|_| {
                self.with(|state| state.take(id));
            })?;
        let egress = self.revision.services.egress.clone();
        let uid = self.revision.identity().uid.clone();
        self.bring(id, async move {
            Event::Fetched {
                id,
                outcome: egress.fetch(uid, outbound, body).await,
            }
        })?;
        Ok(OutboundHandle {
            completion: id,
            writer,
        })
    }

    fn abort_fetch(&mut self, fetch: CompletionId) {
        self.with(|state| state.cancel(fetch));
    }

    fn hold(&mut self, request: RequestId) {
        self.with(|state| state.hold(request));
    }

    fn release(&mut self, request: RequestId) {
        self.with(|state| state.release(request));
    }

    fn wasm_memory(&mut self, maximum_bytes: Option<u64>) -> Result<u64, HostError> {
        let limit = self.revision.limits().memory_bytes;
        let bytes = maximum_bytes.map_or(limit, |bytes| bytes.min(limit));
        let budget = Arc::clone(&self.budget);
        self.with(|state| {
            let sum = state.wasm_bytes.saturating_add(bytes.max(WASM_LEAST_BYTES));
            if sum > limit.saturating_mul(WASM_MEMORIES) {
                return Err(HostError::Range(
                    "too many WebAssembly memories for limits.memory: declare a maximum, or make one and use it again".into(),
                ));
            }
            state.wasm_bytes = sum;
            budget.note_wasm(sum);
            Ok(bytes)
        })
    }

    fn console(&mut self, level: ConsoleLevel, text: String) {
        self.revision.console.write(level, text);
    }
}

/// What a pipe tells the cell. Called from tasks of connections: never runs JavaScript itself.
struct Events {
    cell: Weak<Cell>,
    /// The request whose caller reads this body.
    gone: Option<RequestId>,
}

impl PipeEvents for Events {
    fn room(&self, id: CompletionId) {
        if let Some(cell) = self.cell.upgrade() {
            cell.push_later(Event::Done(id));
        }
    }

    fn gone(&self) {
        if let (Some(cell), Some(request)) = (self.cell.upgrade(), self.gone) {
            cell.push_later(Event::Abort(request));
        }
    }
}

fn too_large() -> HostError {
    HostError::Range("the body does not fit limits.memory: stream it in smaller pieces".into())
}

/// Head of a response.
fn response(head: ResponseHead, streams: bool) -> Result<Response<Body>, HostError> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(head.status)
        .map_err(|_| HostError::Type("the response has an invalid status".into()))?;
    *response.headers_mut() = head.headers;
    // Asked first: `entry` makes room for one more.
    if response.headers().contains_key(CONTENT_LENGTH)
        && let Entry::Occupied(mut length) = response.headers_mut().entry(CONTENT_LENGTH)
    {
        // A stream's length is the handler's to say, once; a whole body's is known.
        let said = length.get();
        let is_number = said.to_str().is_ok_and(|said| said.parse::<u64>().is_ok());
        if streams && is_number {
            let said = said.clone();
            length.insert(said);
        } else {
            length.remove();
        }
    }
    Ok(response)
}
