//! One live isolate that serves one revision: made from the snapshot, entered for one event at a time, thrown away.

use std::sync::Arc;
use std::time::Duration;

use isolet_crds::bundle::Bundle;

use super::ffi::{self, Breadcrumb, HeapWatch, Interrupter};
use super::snapshot::Snapshot;
use super::{Positions, modules, platform};
use crate::control::LoadError;
use crate::limits::cpu::CpuGuard;
use crate::limits::heap::HeapBudget;
use crate::web::host::{Completion, CompletionId, Exception, Host, RequestId, StreamId};
use crate::web::{self, EntryError, Entrypoints, RequestHead, StartError};

/// CPU time that a revision's top level may use.
const START_CPU: Duration = Duration::from_secs(1);
/// Unhandled rejections of one entry that are kept.
const MAX_REJECTIONS: usize = 16;

/// What instances of one revision are made from.
#[derive(Debug)]
pub struct Blueprint {
    /// The Web API layer.
    pub snapshot: Snapshot,
    /// Code and limits.
    pub bundle: Bundle,
    /// `env`, secrets included.
    pub env: Vec<(String, String)>,
    /// Source maps of the bundle.
    pub positions: Positions,
    /// Where to note what runs.
    pub breadcrumb: Option<Arc<Breadcrumb>>,
}

/// A live isolate. Whoever owns it may enter it; it may move between threads.
pub struct Instance {
    // In this order: handles go before the isolate, what its callbacks point at goes after it.
    entrypoints: Entrypoints,
    context: v8::Global<v8::Context>,
    shared: v8::SharedIsolate,
    _watch: Box<HeapWatch>,
    interrupter: Interrupter,
    budget: Arc<HeapBudget>,
    blueprint: Arc<Blueprint>,
}

/// What JavaScript is entered for.
#[derive(Debug)]
pub enum Entry {
    /// A request.
    Dispatch {
        /// Its number in this instance.
        request: RequestId,
        /// Method, URL, headers.
        head: RequestHead,
        /// Its body.
        body: Option<StreamId>,
    },
    /// Something that JavaScript waits for has happened.
    Complete {
        /// The request that it belongs to.
        request: RequestId,
        /// What.
        id: CompletionId,
        /// How it ended.
        completion: Completion,
    },
    /// The caller has gone, or time is up: aborts `request.signal`.
    Abort {
        /// Which request.
        request: RequestId,
        /// Why.
        reason: String,
    },
}

/// How an entry ended.
#[derive(Debug)]
pub enum End {
    /// All that could run has run.
    Done,
    /// Terminated: it used more CPU time than it had.
    CpuExhausted,
    /// Terminated: the instance uses more memory than it may. It must not be entered again.
    HeapExceeded,
    /// An exception reached the entry itself.
    Failed(Exception),
}

/// What an entry did.
#[derive(Debug)]
pub struct Outcome {
    /// CPU time that it used.
    pub cpu: Duration,
    /// Size of V8's heap after it, in bytes.
    pub heap_bytes: usize,
    /// How it ended.
    pub end: End,
    /// Promises rejected in it that nothing handles.
    pub rejections: Vec<Exception>,
}

/// Promises rejected without a handler, in the isolate's slot; nothing while no entry runs.
#[derive(Default)]
struct Rejections(Vec<(v8::Global<v8::Promise>, v8::Global<v8::Value>)>);

impl Instance {
    /// Makes an isolate, loads the bundle's modules and runs their top level.
    pub fn start<H: Host + Send>(
        blueprint: &Arc<Blueprint>,
        host: H,
        budget: Arc<HeapBudget>,
    ) -> Result<Self, LoadError> {
        let internal = |problem: String| blueprint.positions.load_error(&problem, None);
        let params = v8::CreateParams::default()
            .snapshot_blob(blueprint.snapshot.data())
            .external_references(ffi::external_references().into())
            .heap_limits(0, ffi::hard_limit_bytes(&budget))
            .array_buffer_allocator(ffi::metered_allocator(&budget))
            .allow_atomics_wait(false);
        let mut isolate = v8::Isolate::new(params);
        isolate.set_microtasks_policy(v8::MicrotasksPolicy::Explicit);
        isolate.set_promise_reject_callback(on_reject);
        isolate.set_slot(Rejections::default());
        modules::install(&mut isolate);
        let watch = ffi::watch_heap(&mut isolate, &budget);
        let interrupter = Interrupter::new(isolate.thread_safe_handle());
        let shared = ffi::share(isolate, host).map_err(internal)?;

        let mut locker = shared.lock();
        let guard = CpuGuard::enter(interrupter.clone(), START_CPU);
        blueprint.mark(&guard, true);
        let loaded = {
            v8::scope!(let scope, &mut *locker);
            let context = v8::Context::new(scope, v8::ContextOptions::default());
            context.set_allow_generation_from_strings(false);
            let scope = &mut v8::ContextScope::new(scope, context);
            load(scope, blueprint).map(|entrypoints| (entrypoints, v8::Global::new(scope, context)))
        };
        let over = ffi::measure_heap(&mut locker);
        blueprint.mark(&guard, false);
        let exhausted = guard.finish().exhausted;
        interrupter.resume();
        drop(locker);

        if over {
            let limit = budget.limit_bytes() >> 20;
            return Err(internal(format!(
                "the module's top level uses more memory than limits.memory allows ({limit} MiB): move work into the handler, or raise the limit"
            )));
        }
        if exhausted {
            return Err(internal(format!(
                "the module's top level used more than {} ms of CPU time: move work into the handler",
                START_CPU.as_millis()
            )));
        }
        let (entrypoints, context) = loaded?;
        Ok(Self {
            entrypoints,
            context,
            shared,
            _watch: watch,
            interrupter,
            budget,
            blueprint: Arc::clone(blueprint),
        })
    }

    /// Runs JavaScript for one event, and all microtasks that follow from it.
    pub fn run(&mut self, entry: Entry, budget: Duration) -> Outcome {
        let mut locker = self.shared.lock();
        let guard = CpuGuard::enter(self.interrupter.clone(), budget);
        self.blueprint.mark(&guard, true);
        let (result, rejections) = {
            v8::scope_with_context!(scope, &mut *locker, &self.context);
            let request = v8::Integer::new_from_unsigned(scope, entry.request().0);
            scope.set_continuation_preserved_embedder_data(request.into());
            let result = match entry {
                Entry::Dispatch {
                    request,
                    head,
                    body,
                } => self.entrypoints.dispatch(scope, request, &head, body),
                Entry::Complete { id, completion, .. } => {
                    self.entrypoints.complete(scope, id, completion)
                }
                Entry::Abort { request, reason } => self.entrypoints.abort(scope, request, &reason),
            };
            if !matches!(result, Err(EntryError::Terminated)) {
                scope.perform_microtask_checkpoint();
            }
            (result, take_rejections(scope))
        };
        platform::run_foreground_tasks(&locker);
        let over = ffi::measure_heap(&mut locker);
        let heap_bytes = locker.get_heap_statistics().total_heap_size();
        self.blueprint.mark(&guard, false);
        let used = guard.finish();
        let end = match result {
            _ if over => End::HeapExceeded,
            _ if used.exhausted => End::CpuExhausted,
            Ok(()) => End::Done,
            Err(EntryError::Terminated) => End::CpuExhausted,
            Err(EntryError::Exception(exception)) => End::Failed(exception),
        };
        if used.exhausted || over {
            self.interrupter.resume();
        }
        Outcome {
            cpu: used.time,
            heap_bytes,
            end,
            rejections,
        }
    }

    /// The memory of this instance.
    pub fn budget(&self) -> &Arc<HeapBudget> {
        &self.budget
    }
}

impl Entry {
    /// The request that JavaScript is entered for.
    pub fn request(&self) -> RequestId {
        match self {
            Self::Dispatch { request, .. }
            | Self::Complete { request, .. }
            | Self::Abort { request, .. } => *request,
        }
    }
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").finish_non_exhaustive()
    }
}

impl Blueprint {
    fn mark(&self, guard: &CpuGuard, inside: bool) {
        if let Some(breadcrumb) = &self.breadcrumb {
            let uid = if inside {
                self.bundle.manifest.function.uid.as_str()
            } else {
                ""
            };
            breadcrumb.mark(guard.thread_index(), uid);
        }
    }
}

/// Runs the top level of the main module and keeps its default export.
fn load(scope: &mut v8::PinScope<'_, '_>, blueprint: &Blueprint) -> Result<Entrypoints, LoadError> {
    let positions = &blueprint.positions;
    let thrown =
        |exception: Exception| positions.load_error(&exception.message, thrown_at(&exception));
    let entrypoints = Entrypoints::load(scope).map_err(thrown)?;
    let main = modules::link(scope, &blueprint.bundle, positions)?;
    evaluate(scope, main, positions)?;
    let env: Vec<(&str, &str)> = blueprint
        .env
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let main_path = blueprint.bundle.manifest.main.as_str();
    match entrypoints.start(scope, main.get_module_namespace(), &env) {
        Ok(()) => Ok(entrypoints),
        Err(StartError::NoHandler(problem)) => {
            Err(positions.load_error(&format!("{main_path}: {problem}"), None))
        }
        Err(StartError::Thrown(exception)) => Err(thrown(exception)),
        Err(StartError::Terminated) => Err(positions.load_error("the start was ended", None)),
    }
}

fn evaluate(
    scope: &mut v8::PinScope<'_, '_>,
    main: v8::Local<'_, v8::Module>,
    positions: &Positions,
) -> Result<(), LoadError> {
    v8::tc_scope!(let scope, scope);
    let Some(promise) = main.evaluate(scope) else {
        return Err(modules::caught(scope, positions));
    };
    scope.perform_microtask_checkpoint();
    let Ok(promise) = v8::Local::<v8::Promise>::try_from(promise) else {
        return Ok(());
    };
    match promise.state() {
        v8::PromiseState::Fulfilled => {
            take_rejections(scope);
            Ok(())
        }
        v8::PromiseState::Rejected => {
            promise.mark_as_handled();
            let reason = promise.result(scope);
            let exception = web::exception_from(scope, reason);
            Err(positions.load_error(&exception.message, thrown_at(&exception)))
        }
        v8::PromiseState::Pending => {
            let stalled = main.get_stalled_top_level_await_message(scope);
            let place = stalled
                .first()
                .and_then(|(_, message)| modules::place(scope, *message));
            Err(positions.load_error(
                "this top-level await never settles: timers and requests work inside the handler only",
                place.as_ref().map(modules::Place::parts),
            ))
        }
    }
}

/// Where an exception was thrown, if it says so.
fn thrown_at(exception: &Exception) -> Option<(&str, u32, u32)> {
    Some((
        exception.file.as_deref()?,
        exception.line?,
        exception.column?,
    ))
}

fn take_rejections(scope: &mut v8::PinScope<'_, '_>) -> Vec<Exception> {
    let Some(rejections) = scope.get_slot_mut::<Rejections>() else {
        return Vec::new();
    };
    let rejections = std::mem::take(&mut rejections.0);
    rejections
        .into_iter()
        .map(|(_, reason)| {
            let reason = v8::Local::new(scope, reason);
            web::exception_from(scope, reason)
        })
        .collect()
}

/// V8 calls this inside an entry, when a promise is rejected without a handler and when it gets one after that.
extern "C" fn on_reject(message: v8::PromiseRejectMessage<'_>) {
    v8::callback_scope!(unsafe scope, &message);
    let promise = v8::Global::new(scope, message.get_promise());
    let reason = message
        .get_value()
        .map(|reason| v8::Global::new(scope, reason));
    let Some(rejections) = scope.get_slot_mut::<Rejections>() else {
        return;
    };
    match (message.get_event(), reason) {
        (v8::PromiseRejectEvent::PromiseRejectWithNoHandler, Some(reason))
            if rejections.0.len() < MAX_REJECTIONS =>
        {
            rejections.0.push((promise, reason));
        }
        (v8::PromiseRejectEvent::PromiseHandlerAddedAfterReject, _) => {
            rejections.0.retain(|(rejected, _)| *rejected != promise);
        }
        _ => {}
    }
}
