//! Isolates made from a real snapshot, with a host that records what it is asked and answers at once or by hand.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use isolet_runtime::web::host::*;
use isolet_runtime::web::{self, EntryError, Entrypoints, RequestHead, StartError};

/// Initialises V8 before any thread that uses it, and makes the snapshot before any other isolate.
pub fn snapshot() -> &'static [u8] {
    static BLOB: OnceLock<Vec<u8>> = OnceLock::new();
    BLOB.get_or_init(|| {
        let platform = v8::new_default_platform(1, false).make_shared();
        v8::V8::initialize_platform(platform);
        v8::V8::initialize();
        std::thread::spawn(|| {
            let mut creator =
                v8::Isolate::snapshot_creator(Some(web::external_references().into()), None);
            {
                v8::scope!(let scope, &mut creator);
                let context = v8::Context::new(scope, v8::ContextOptions::default());
                let scope = &mut v8::ContextScope::new(scope, context);
                web::bootstrap(scope).expect("bootstrap");
                scope.set_default_context(context);
            }
            creator
                .create_blob(v8::FunctionCodeHandling::Keep)
                .expect("blob")
                .to_vec()
        })
        .join()
        .expect("snapshot thread")
    })
}

/// An isolate of the snapshot. All of a process must be of the same one: they share V8's read-only heap, which is laid out by
/// whichever is made while there is no other.
pub fn isolate() -> v8::OwnedIsolate {
    v8::Isolate::new(
        v8::CreateParams::default()
            .snapshot_blob(snapshot().to_vec().into())
            .external_references(web::external_references().into()),
    )
}

/// Runs a test on a thread made after V8 was initialised.
pub fn on_fresh_thread<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    snapshot();
    match std::thread::Builder::new()
        .stack_size(4 << 20)
        .spawn(test)
        .expect("thread")
        .join()
    {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

#[derive(Default, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub pieces: usize,
    pub streamed: bool,
    pub done: bool,
    pub broken: Option<String>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
}

pub type FetchAnswer = Box<dyn FnMut(&OutboundRequest) -> Result<InboundResponse, HostError>>;

#[derive(Default)]
pub struct World {
    pub now_ms: f64,
    /// Reads of bodies give what they read at once, not later.
    pub bodies_are_there: bool,
    pub next: u32,
    /// For which request JavaScript was entered.
    pub current: Option<RequestId>,
    /// For which request it acts, as V8 knows.
    pub acting: Option<RequestId>,
    /// Who waits for a completion.
    pub waiters: BTreeMap<u32, RequestId>,
    pub timers: Vec<(f64, CompletionId)>,
    pub ready: VecDeque<(CompletionId, Completion)>,
    pub streams: BTreeMap<u32, VecDeque<Result<Bytes, HostError>>>,
    pub cancelled_reads: Vec<StreamId>,
    pub answers: BTreeMap<u32, Answer>,
    pub failures: BTreeMap<u32, Exception>,
    pub writers: BTreeMap<u32, Option<RequestId>>,
    pub uploads: BTreeMap<u32, Answer>,
    pub gone: Vec<WriterId>,
    pub slow_writes: bool,
    pub waiting_writes: Vec<CompletionId>,
    pub holds: BTreeMap<u32, i32>,
    pub console: Vec<(ConsoleLevel, String)>,
    pub fetches: Vec<OutboundRequest>,
    pub fetch_answer: Option<FetchAnswer>,
    pub hold_fetches: bool,
    pub held_fetches: Vec<CompletionId>,
    pub aborted_fetches: Vec<CompletionId>,
    /// Told of each line of the console.
    pub on_console: Option<std::sync::mpsc::Sender<()>>,
}

impl World {
    fn id(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn completion(&mut self) -> CompletionId {
        let id = self.id();
        if let Some(request) = self.acting {
            self.waiters.insert(id, request);
        }
        CompletionId(id)
    }
}

pub struct TestHost(pub Rc<RefCell<World>>);

impl Host for TestHost {
    fn now_ms(&self) -> f64 {
        1_700_000_000_000.0 + self.0.borrow().now_ms
    }
    fn elapsed_ms(&self) -> f64 {
        self.0.borrow().now_ms
    }
    fn current_request(&self) -> Option<RequestId> {
        self.0.borrow().acting
    }
    fn act_for(&mut self, request: Option<RequestId>) {
        let mut world = self.0.borrow_mut();
        world.acting = request.or(world.current);
    }
    fn start_timer(&mut self, delay: Duration) -> Result<CompletionId, HostError> {
        let mut world = self.0.borrow_mut();
        let id = world.completion();
        let due = world.now_ms + delay.as_secs_f64() * 1000.0;
        world.timers.push((due, id));
        Ok(id)
    }
    fn cancel_timer(&mut self, timer: CompletionId) {
        self.0.borrow_mut().timers.retain(|(_, id)| *id != timer);
    }
    fn read(&mut self, stream: StreamId) -> Result<ReadOutcome, HostError> {
        let mut world = self.0.borrow_mut();
        let chunks = world.streams.get_mut(&stream.0);
        let chunk = chunks
            .ok_or_else(|| HostError::Type("no such stream".into()))?
            .pop_front()
            .transpose();
        if world.bodies_are_there {
            return Ok(ReadOutcome::Ready(chunk?));
        }
        let id = world.completion();
        let completion = match chunk {
            Ok(chunk) => Completion::Chunk(chunk),
            Err(error) => Completion::Failed(error),
        };
        world.ready.push_back((id, completion));
        Ok(ReadOutcome::Wait(id))
    }
    fn cancel_read(&mut self, stream: StreamId) {
        self.0.borrow_mut().cancelled_reads.push(stream);
    }
    fn respond(
        &mut self,
        request: RequestId,
        head: ResponseHead,
        body: OutgoingBody,
    ) -> Result<Option<WriterId>, HostError> {
        let mut world = self.0.borrow_mut();
        if world.answers.contains_key(&request.0) {
            return Err(HostError::Type("answered twice".into()));
        }
        let mut answer = Answer {
            status: head.status,
            headers: list(&head.headers),
            ..Answer::default()
        };
        let mut writer = None;
        match body {
            OutgoingBody::Empty => answer.done = true,
            OutgoingBody::Full(bytes) => {
                answer.body = bytes.to_vec();
                answer.done = true;
            }
            OutgoingBody::Stream => {
                let id = world.id();
                answer.streamed = true;
                world.writers.insert(id, Some(request));
                writer = Some(WriterId(id));
            }
        }
        world.answers.insert(request.0, answer);
        Ok(writer)
    }
    fn fail(&mut self, request: RequestId, exception: Exception) {
        self.0.borrow_mut().failures.insert(request.0, exception);
    }
    fn write(&mut self, writer: WriterId, piece: Bytes) -> Result<WriteOutcome, HostError> {
        let mut world = self.0.borrow_mut();
        if world.gone.contains(&writer) {
            return Err(HostError::Abort("the other side has gone".into()));
        }
        let Some(target) = world.writers.get(&writer.0).copied() else {
            return Err(HostError::Type("no such writer".into()));
        };
        let answer = match target {
            Some(request) => world.answers.get_mut(&request.0),
            None => world.uploads.get_mut(&writer.0),
        };
        let answer = answer.expect("answer of a writer");
        answer.body.extend_from_slice(&piece);
        answer.pieces += 1;
        if world.slow_writes {
            let id = world.completion();
            world.waiting_writes.push(id);
            return Ok(WriteOutcome::Wait(id));
        }
        Ok(WriteOutcome::Accepted)
    }
    fn close(&mut self, writer: WriterId, error: Option<String>) {
        let mut world = self.0.borrow_mut();
        let target = world.writers.remove(&writer.0);
        let answer = match target {
            Some(Some(request)) => world.answers.get_mut(&request.0),
            Some(None) => world.uploads.get_mut(&writer.0),
            None => None,
        };
        if let Some(answer) = answer {
            answer.done = true;
            answer.broken = error;
        }
    }
    fn fetch(&mut self, request: OutboundRequest) -> Result<OutboundHandle, HostError> {
        let mut world = self.0.borrow_mut();
        let completion = world.completion();
        let mut writer = None;
        if matches!(request.body, OutgoingBody::Stream) {
            let id = world.id();
            world.writers.insert(id, None);
            world.uploads.insert(id, Answer::default());
            writer = Some(WriterId(id));
        }
        if world.hold_fetches {
            world.held_fetches.push(completion);
        } else {
            let mut answer = world.fetch_answer.take();
            let result = match answer.as_mut() {
                Some(answer) => answer(&request),
                None => Err(HostError::Type("network unreachable".into())),
            };
            world.fetch_answer = answer;
            let completed = match result {
                Ok(response) => Completion::Response(response),
                Err(error) => Completion::Failed(error),
            };
            world.ready.push_back((completion, completed));
        }
        world.fetches.push(request);
        Ok(OutboundHandle { completion, writer })
    }
    fn abort_fetch(&mut self, fetch: CompletionId) {
        self.0.borrow_mut().aborted_fetches.push(fetch);
    }
    fn hold(&mut self, request: RequestId) {
        *self.0.borrow_mut().holds.entry(request.0).or_default() += 1;
    }
    fn release(&mut self, request: RequestId) {
        *self.0.borrow_mut().holds.entry(request.0).or_default() -= 1;
    }
    fn wasm_memory(&mut self, maximum_bytes: Option<u64>) -> Result<u64, HostError> {
        Ok(maximum_bytes.unwrap_or(64 << 20))
    }

    fn console(&mut self, level: ConsoleLevel, text: String) {
        let mut world = self.0.borrow_mut();
        world.console.push((level, text));
        if let Some(told) = &world.on_console {
            // Nobody listens any more: only the first line counts.
            let _ = told.send(());
        }
    }
}

thread_local! {
    static UNHANDLED: RefCell<Vec<(i32, Exception)>> = const { RefCell::new(Vec::new()) };
}

extern "C" fn on_reject(message: v8::PromiseRejectMessage<'_>) {
    let (hash, event) = (
        message.get_promise().get_identity_hash().get(),
        message.get_event(),
    );
    v8::callback_scope!(unsafe scope, &message);
    match event {
        v8::PromiseRejectEvent::PromiseRejectWithNoHandler => {
            let exception = match message.get_value() {
                Some(value) => web::exception_from(scope, value),
                None => Exception::default(),
            };
            UNHANDLED.with_borrow_mut(|list| list.push((hash, exception)));
        }
        v8::PromiseRejectEvent::PromiseHandlerAddedAfterReject => {
            UNHANDLED.with_borrow_mut(|list| list.retain(|(other, _)| *other != hash));
        }
        _ => {}
    }
}

pub struct Instance {
    pub world: Rc<RefCell<World>>,
    pub thrown: Vec<Exception>,
    entry: Entrypoints,
    context: v8::Global<v8::Context>,
    isolate: v8::OwnedIsolate,
}

impl Instance {
    pub fn new(source: &str) -> Self {
        Self::try_new(source, &[]).expect("start")
    }

    pub fn try_new(source: &str, env: &[(&str, &str)]) -> Result<Self, StartError> {
        let world = Rc::new(RefCell::new(World::default()));
        let mut isolate = isolate();
        isolet_runtime::isolate::ffi_tables::learn(&mut isolate);
        isolate.set_microtasks_policy(v8::MicrotasksPolicy::Explicit);
        isolate.set_promise_reject_callback(on_reject);
        UNHANDLED.with_borrow_mut(Vec::clear);
        let (entry, context) = {
            v8::scope!(let scope, &mut isolate);
            let context = v8::Context::new(scope, v8::ContextOptions::default());
            context.set_allow_generation_from_strings(false);
            let scope = &mut v8::ContextScope::new(scope, context);
            let entry = Entrypoints::load(scope).expect("load");
            // As in the pool: there is no host yet.
            entry.warm_up(scope).expect("warm up");
            scope.set_slot(HostSlot(Box::new(TestHost(world.clone()))));
            let namespace = evaluate(scope, source);
            scope.perform_microtask_checkpoint();
            entry.start(scope, namespace, env)?;
            (entry, v8::Global::new(scope, context))
        };
        Ok(Self {
            world,
            thrown: Vec::new(),
            entry,
            context,
            isolate,
        })
    }

    pub fn enter<T>(
        &mut self,
        act: impl FnOnce(&Entrypoints, &mut v8::PinScope<'_, '_>) -> T,
    ) -> T {
        let request = self.world.borrow().current.map_or(0, |request| request.0);
        v8::scope_with_context!(scope, &mut self.isolate, &self.context);
        let data = v8::Integer::new_from_unsigned(scope, request);
        scope.set_continuation_preserved_embedder_data(data.into());
        let result = act(&self.entry, scope);
        scope.perform_microtask_checkpoint();
        result
    }

    fn note(&mut self, result: Result<(), EntryError>) {
        match result {
            Ok(()) => {}
            Err(EntryError::Exception(exception)) => self.thrown.push(exception),
            Err(EntryError::Terminated) => panic!("terminated"),
        }
    }

    /// Hands a request over and returns at once.
    pub fn begin(&mut self, head: RequestHead, body: Option<&[&str]>) -> RequestId {
        let (request, stream) = {
            let mut world = self.world.borrow_mut();
            let request = RequestId(world.id());
            let stream = body.map(|chunks| {
                let stream = world.id();
                let chunks = chunks
                    .iter()
                    .map(|chunk| Ok(Bytes::copy_from_slice(chunk.as_bytes())))
                    .collect();
                world.streams.insert(stream, chunks);
                StreamId(stream)
            });
            world.current = Some(request);
            (request, stream)
        };
        let result = self.enter(|entry, scope| entry.dispatch(scope, request, &head, stream));
        self.note(result);
        request
    }

    /// `begin` without a body, with what `dispatch` returned.
    pub fn try_begin(&mut self, head: RequestHead) -> (RequestId, Result<(), EntryError>) {
        let request = RequestId(self.world.borrow_mut().id());
        let result = self.enter(|entry, scope| entry.dispatch(scope, request, &head, None));
        (request, result)
    }

    pub fn handle(&self) -> v8::IsolateHandle {
        self.isolate.thread_safe_handle()
    }

    pub fn complete(&mut self, id: CompletionId, completion: Completion) {
        {
            let mut world = self.world.borrow_mut();
            world.current = world.waiters.remove(&id.0);
        }
        let result = self.enter(|entry, scope| entry.complete(scope, id, completion));
        self.note(result);
    }

    pub fn abort(&mut self, request: RequestId, reason: &str) {
        self.world.borrow_mut().current = Some(request);
        let result = self.enter(|entry, scope| entry.abort(scope, request, reason));
        self.note(result);
    }

    /// Completes what is due until nothing is left to wait for.
    pub fn run(&mut self) {
        for _ in 0..100_000 {
            let next = self.world.borrow_mut().ready.pop_front();
            if let Some((id, completion)) = next {
                self.complete(id, completion);
                continue;
            }
            let due = {
                let mut world = self.world.borrow_mut();
                let first = world
                    .timers
                    .iter()
                    .enumerate()
                    .min_by(|(_, a), (_, b)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
                    .map(|(index, _)| index);
                first.map(|index| {
                    let (due, id) = world.timers.remove(index);
                    world.now_ms = world.now_ms.max(due);
                    id
                })
            };
            match due {
                Some(id) => self.complete(id, Completion::Done),
                None => return,
            }
        }
        panic!("the instance does not come to rest");
    }

    /// GET, run to the end, the answer.
    pub fn get(&mut self, url: &str) -> Answer {
        let request = self.begin(head("GET", url, &[]), None);
        self.run();
        self.answer(request)
    }

    pub fn answer(&mut self, request: RequestId) -> Answer {
        let mut world = self.world.borrow_mut();
        if let Some(failure) = world.failures.get(&request.0) {
            panic!("the handler failed: {failure:?}");
        }
        world.answers.remove(&request.0).expect("no answer")
    }

    pub fn failure(&mut self, request: RequestId) -> Exception {
        let failure = self.world.borrow_mut().failures.remove(&request.0);
        failure.expect("the handler did not fail")
    }

    /// What the heap holds after a full collection.
    pub fn heap_bytes(&mut self) -> usize {
        self.isolate.low_memory_notification();
        let statistics = self.isolate.get_heap_statistics();
        statistics.used_heap_size() + statistics.external_memory()
    }

    /// Gives back what V8's tables take; says how many bytes.
    pub fn give_tables_back(&mut self) -> usize {
        isolet_runtime::isolate::ffi_tables::give_back(&mut self.isolate)
    }

    /// How many bytes of V8's stub caches are in memory.
    pub fn stub_caches(&mut self) -> usize {
        isolet_runtime::isolate::ffi_tables::resident_stub_caches(&mut self.isolate)
            .expect("they are known")
    }

    /// Console texts since the last call.
    pub fn console(&self) -> Vec<String> {
        let lines = std::mem::take(&mut self.world.borrow_mut().console);
        lines.into_iter().map(|(_, text)| text).collect()
    }

    /// Requests that JavaScript still keeps, and what it still waits for.
    pub fn under_way(&mut self) -> (u32, u32) {
        self.enter(|entry, scope| entry.under_way(scope))
    }

    pub fn unhandled(&self) -> Vec<Exception> {
        UNHANDLED.with_borrow_mut(|list| list.drain(..).map(|(_, exception)| exception).collect())
    }
}

pub fn head(method: &str, url: &str, headers: &[(&str, &str)]) -> RequestHead {
    RequestHead {
        method: method.parse().expect("method"),
        url: url.into(),
        headers: map(headers),
    }
}

/// Header fields of names and values.
pub fn map(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name: HeaderName = name.parse().expect("name");
        headers.append(name, value.parse().expect("value"));
    }
    headers
}

/// Names and values of header fields, a character for each byte.
pub fn list(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| value.as_bytes().iter().map(|b| char::from(*b)).collect();
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect()
}

/// Compiles and evaluates a module of its own; a failure is the test's.
fn evaluate<'s>(scope: &mut v8::PinScope<'s, '_>, source: &str) -> v8::Local<'s, v8::Value> {
    let text = v8::String::new(scope, source).expect("source");
    let name = v8::String::new(scope, "main.ts").expect("name");
    let origin = v8::ScriptOrigin::new(
        scope,
        name.into(),
        0,
        0,
        false,
        0,
        None,
        false,
        false,
        true,
        None,
    );
    let mut compiler_source = v8::script_compiler::Source::new(text, Some(&origin));
    v8::tc_scope!(let scope, scope);
    let Some(module) = v8::script_compiler::compile_module(scope, &mut compiler_source) else {
        let message = scope.message().expect("message");
        let text = message.get(scope).to_rust_string_lossy(scope);
        panic!("{text} at line {:?}", message.get_line_number(scope));
    };
    module
        .instantiate_module(scope, |_, _, _, _| None)
        .expect("instantiate");
    module.evaluate(scope).expect("evaluate");
    if module.get_status() == v8::ModuleStatus::Errored {
        let exception = module.get_exception();
        panic!("{:?}", web::exception_from(scope, exception));
    }
    module.get_module_namespace()
}
