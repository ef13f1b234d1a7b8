//! What the Web APIs ask of the process they run in.
//!
//! `web` implements the APIs that JavaScript sees and nothing else: whatever reaches outside the isolate (time, bodies,
//! outbound requests, responses, the console) goes through [`Host`], which `scheduler` implements for each instance. The
//! host of an isolate lies in the isolate's slot of type [`HostSlot`]; operations reach it from there, on the thread that
//! holds the isolate.
//!
//! Every call returns at once. What takes time gets a [`CompletionId`] and ends in one [`super::Entrypoints::complete`].

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

/// A request that this instance handles. Never 0, never used twice in one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u32);

/// Something that JavaScript waits for. Never 0, never used twice in one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CompletionId(pub u32);

/// A body that arrives: of a request or of a fetched response. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u32);

/// A body that leaves: of a response or of an outbound request. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WriterId(pub u32);

/// A body that JavaScript hands over whole, or none, or a stream that it writes to later.
#[derive(Debug)]
pub enum OutgoingBody {
    /// No body.
    Empty,
    /// The whole body.
    Full(Bytes),
    /// Written piece by piece through a [`WriterId`].
    Stream,
}

/// Status and headers of a response.
#[derive(Debug)]
pub struct ResponseHead {
    /// 200 to 599.
    pub status: u16,
    /// Header fields, without those of framing (`transfer-encoding`, `connection`, `host`…) where JavaScript hands them over.
    pub headers: HeaderMap,
}

/// An outbound request.
#[derive(Debug)]
pub struct OutboundRequest {
    /// The request in whose name it is made; none at the module's top level, where hosts refuse it.
    pub request: Option<RequestId>,
    /// Method, in upper case where Fetch normalises it.
    pub method: String,
    /// Absolute http or https URL without fragment.
    pub url: String,
    /// Header fields, without those of framing (`transfer-encoding`, `connection`, `host`…) where JavaScript hands them over.
    pub headers: HeaderMap,
    /// Body.
    pub body: OutgoingBody,
    /// What to do with a redirect.
    pub redirect: Redirect,
}

/// Fetch's redirect mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// Follow up to 20.
    Follow,
    /// A redirect is an error.
    Error,
    /// Hand the redirect response to JavaScript.
    Manual,
}

/// What a read gives.
#[derive(Debug)]
pub enum ReadOutcome {
    /// A piece, or none at the end.
    Ready(Option<Bytes>),
    /// The completion that brings it.
    Wait(CompletionId),
}

/// A fetch under way.
#[derive(Debug)]
pub struct OutboundHandle {
    /// Completed with [`Completion::Response`] or an error.
    pub completion: CompletionId,
    /// Where the body goes, if it is a stream.
    pub writer: Option<WriterId>,
}

/// A fetched response.
#[derive(Debug)]
pub struct InboundResponse {
    /// Status code.
    pub status: u16,
    /// Reason phrase, empty in HTTP/2.
    pub status_text: String,
    /// Header fields, without those of framing (`transfer-encoding`, `connection`, `host`…) where JavaScript hands them over.
    pub headers: HeaderMap,
    /// URL after redirects.
    pub url: String,
    /// Whether there was a redirect.
    pub redirected: bool,
    /// Its body; none for a null body.
    pub body: Option<StreamId>,
}

/// How something ended that JavaScript waited for.
#[derive(Debug)]
pub enum Completion {
    /// A write was taken, a timer fired: nothing to hand over.
    Done,
    /// The next piece of a body; `None` at its end.
    Chunk(Option<Bytes>),
    /// A fetched response.
    Response(InboundResponse),
    /// It failed.
    Failed(HostError),
}

/// Why the host refuses or fails; JavaScript sees an exception of the same kind and message.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum HostError {
    /// A `TypeError`: network failures (Fetch says so), egress that is not allowed, misuse.
    #[error("{0}")]
    Type(String),
    /// A `RangeError`: a limit of the Function is used up.
    #[error("{0}")]
    Range(String),
    /// A `DOMException` named `AbortError`.
    #[error("{0}")]
    Abort(String),
}

/// Whether a written piece was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// There is room for more.
    Accepted,
    /// Taken, but wait for this before the next write.
    Wait(CompletionId),
}

/// `console` methods, by severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleLevel {
    /// `console.debug`, `console.trace`.
    Debug,
    /// `console.log`, `console.info` and the rest.
    Info,
    /// `console.warn`.
    Warn,
    /// `console.error`, a failed `console.assert`.
    Error,
}

/// An exception, as far as it is known outside the isolate. All text is a tenant's: bounded in length, not trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Exception {
    /// `name: message`, as `String(error)` gives it.
    pub message: String,
    /// The stack in V8's format with the user's own files, lines and columns; empty where the value thrown has none.
    pub stack: String,
    /// Path of the user's module where it was thrown, if known.
    pub file: Option<String>,
    /// Line, from 1.
    pub line: Option<u32>,
    /// Column, from 1.
    pub column: Option<u32>,
}

impl Exception {
    /// As the console shows it.
    pub fn shown(&self) -> &str {
        if self.stack.is_empty() {
            &self.message
        } else {
            &self.stack
        }
    }
}

/// The process around an instance, as the Web APIs see it.
pub trait Host: 'static {
    /// Wall clock, in milliseconds since the Unix epoch. Stands still while JavaScript runs.
    fn now_ms(&self) -> f64;
    /// Milliseconds since the instance began. Stands still while JavaScript runs.
    fn elapsed_ms(&self) -> f64;
    /// Says for which request the JavaScript runs that makes the next call; none where V8 does not know it. It may be
    /// another one than that of the event: promises of one request may be resolved by another.
    fn act_for(&mut self, request: Option<RequestId>);
    /// The request for which JavaScript runs now; none during module evaluation.
    fn current_request(&self) -> Option<RequestId>;

    /// Starts a timer; it ends in [`Completion::Done`].
    fn start_timer(&mut self, delay: Duration) -> Result<CompletionId, HostError>;
    /// Forgets a timer; it may still fire if it is already due.
    fn cancel_timer(&mut self, timer: CompletionId);

    /// Reads the next piece: at once if it is there, else it comes as one [`Completion::Chunk`] or an error. One read at a
    /// time a stream.
    fn read(&mut self, stream: StreamId) -> Result<ReadOutcome, HostError>;
    /// No more will be read.
    fn cancel_read(&mut self, stream: StreamId);

    /// Answers a request, once.
    fn respond(
        &mut self,
        request: RequestId,
        head: ResponseHead,
        body: OutgoingBody,
    ) -> Result<Option<WriterId>, HostError>;
    /// Ends a request whose handler threw or gave no Response: the caller gets a 500 without internals.
    fn fail(&mut self, request: RequestId, exception: Exception);
    /// Writes a piece of a body. Fails once the other side has gone.
    fn write(&mut self, writer: WriterId, piece: Bytes) -> Result<WriteOutcome, HostError>;
    /// Ends a body, or breaks it off with the reason.
    fn close(&mut self, writer: WriterId, error: Option<String>);

    /// Begins an outbound request.
    fn fetch(&mut self, request: OutboundRequest) -> Result<OutboundHandle, HostError>;
    /// Breaks off an outbound request whose completion has not come; nothing more will be said of it.
    fn abort_fetch(&mut self, fetch: CompletionId);

    /// `ctx.waitUntil`: the request counts as under way until [`Host::release`].
    fn hold(&mut self, request: RequestId);
    /// Ends one [`Host::hold`].
    fn release(&mut self, request: RequestId);

    /// Charges a new WebAssembly memory at the largest size to which it may grow, in bytes; none for as large as allowed.
    /// Answers that size, which is no more than the instance may have.
    fn wasm_memory(&mut self, maximum_bytes: Option<u64>) -> Result<u64, HostError>;

    /// One line of console output.
    fn console(&mut self, level: ConsoleLevel, text: String);
}

/// The isolate slot in which an instance's host lies.
pub struct HostSlot(pub Box<dyn Host>);
