//! One live isolate that serves one revision: made from the snapshot, entered for one event at a time, thrown away.

use std::sync::Arc;
use std::time::Duration;

use isolet_crds::bundle::{Bundle, Manifest, ModuleEntry, ModuleKind};

use super::code::{CodeCache, Stage};
use super::ffi::{self, Breadcrumb};
use super::generic::Generic;
use super::uncaught::{self, Uncaught};
use super::{Blank, Positions, ffi_handles, ffi_tables, modules, platform, texts};
use crate::control::{LoadError, SentCode};
use crate::limits::cpu::{CpuGuard, Ended, Terms};
use crate::limits::heap::{Excess, HeapBudget};
use crate::web::host::{Completion, CompletionId, Exception, Host, HostSlot, RequestId, StreamId};
use crate::web::{self, EntryError, Entrypoints, RequestHead, StartError};

/// CPU time that a revision's top level may use.
const START_CPU: Duration = Duration::from_secs(1);
/// CPU time that the callbacks of a `FinalizationRegistry` may use which a collection between two entries has V8 call.
pub const FINALIZERS_CPU: Duration = Duration::from_millis(5);

/// What instances of one revision are made from.
#[derive(Debug)]
pub struct Blueprint {
    /// Names, limits, settings.
    pub manifest: Manifest,
    /// Of the manifest's modules, in the same order.
    contents: Vec<Content>,
    code: CodeCache,
    /// `env`, secrets included.
    pub env: Vec<(String, String)>,
    /// Source maps of the bundle.
    pub positions: Positions,
    /// Where to note what runs.
    pub breadcrumb: Option<Arc<Breadcrumb>>,
}

/// What a module consists of.
#[derive(Debug)]
pub(super) enum Content {
    /// UTF-8, which instances share where they can.
    Text(Arc<str>),
    /// Anything else.
    Bytes(Vec<u8>),
}

/// A live isolate. Whoever owns it may enter it; it may move between threads.
pub struct Instance {
    isolate: Generic,
    blueprint: Arc<Blueprint>,
    start_cpu: Duration,
    code_use: CodeUse,
    has_served: bool,
    /// Entries since its memory was measured and V8's own tasks ran.
    unseen_entries: u32,
}

/// Modules of a start for which there was compiled code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodeUse {
    /// V8 took it.
    pub accepted: u32,
    /// V8 refused it.
    pub refused: u32,
}

/// Entries after which the memory of an instance is measured again. V8's own limit holds meanwhile.
const UNSEEN_ENTRIES: u32 = 32;
/// CPU time of an entry after which its memory is measured in any case.
const UNSEEN_TIME: Duration = Duration::from_micros(200);

/// What JavaScript is entered for.
#[derive(Debug)]
pub enum Entry {
    /// A request.
    Dispatch {
        /// Its number in this instance.
        request: RequestId,
        /// Method, URL, headers.
        head: Box<RequestHead>,
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
    /// Terminated: it ran, or waited for its turn, past its wall time.
    TimedOut,
    /// Terminated: too many computed for long at once.
    GaveWay,
    /// Terminated: the instance uses more memory than it may. It must not be entered again.
    HeapExceeded(Excess),
    /// An exception reached the entry itself.
    Failed(Exception),
}

/// What an entry did.
#[derive(Debug)]
pub struct Outcome {
    /// CPU time that it used.
    pub cpu: Duration,
    /// What the instance uses after it, in bytes.
    pub heap_bytes: usize,
    /// How it ended.
    pub end: End,
    /// What was thrown in it and nothing caught.
    pub uncaught: Vec<Uncaught>,
}

/// What a collection between two entries did.
#[derive(Debug)]
pub struct Compacted {
    /// What the instance uses after it, in bytes.
    pub heap_bytes: usize,
    /// Callbacks of a `FinalizationRegistry` were terminated: they used more CPU time than they had.
    pub finalizers_ended: bool,
    /// What they threw and nothing caught.
    pub uncaught: Vec<Uncaught>,
    /// They, or what was there before, use more memory than they may: the instance must not be entered again.
    pub exceeded: Option<Excess>,
}

impl Instance {
    /// Binds an isolate to a revision: loads the bundle's modules and runs their top level.
    pub fn start<H: Host + Send>(
        blueprint: &Arc<Blueprint>,
        blank: Blank,
        host: impl FnOnce(&Arc<HeapBudget>) -> H,
    ) -> Result<Self, LoadError> {
        let internal = |problem: String| blueprint.positions.load_error(&problem, None);
        let isolate = blank.0;
        let budget = &isolate.budget;
        budget.share(blueprint.shared_bytes());
        let mut locker = isolate.shared.lock();
        locker.set_slot(HostSlot(Box::new(host(budget))));
        let guard = CpuGuard::enter(isolate.interrupter.clone(), START_CPU);
        blueprint.mark(&guard, true);
        let loaded = {
            v8::scope_with_context!(scope, &mut *locker, &isolate.context);
            load(scope, &isolate.entrypoints, blueprint)
        };
        ffi::measure_heap(&mut locker);
        let excess = budget.exceeded();
        blueprint.mark(&guard, false);
        let used = guard.finish();
        isolate.interrupter.resume();
        drop(locker);

        if let Some(excess) = excess {
            let limit = budget.limit_bytes() >> 20;
            return Err(internal(match excess {
                Excess::Limit => format!(
                    "the module's top level uses more memory than limits.memory allows ({limit} MiB): move work into the handler, or raise the limit"
                ),
                Excess::Share => "the module's top level uses more memory than its share of what this runtime pod has left: try again, or move work into the handler".into(),
            }));
        }
        if used.exhausted {
            return Err(internal(format!(
                "the module's top level used more than {} ms of CPU time: move work into the handler",
                START_CPU.as_millis()
            )));
        }
        let code_use = loaded?;
        Ok(Self {
            isolate,
            blueprint: Arc::clone(blueprint),
            start_cpu: used.time,
            code_use,
            has_served: false,
            // The first is looked at.
            unseen_entries: UNSEEN_ENTRIES,
        })
    }

    /// Runs JavaScript for one event, and all microtasks that follow from it.
    pub fn run(&mut self, entry: Entry, terms: Terms) -> Outcome {
        let isolate = &self.isolate;
        let mut locker = isolate.shared.lock();
        let guard = CpuGuard::enter_for(isolate.interrupter.clone(), terms);
        self.blueprint.mark(&guard, true);
        let result = {
            v8::scope_with_context!(scope, &mut *locker, &isolate.context);
            let request = v8::Integer::new_from_unsigned(scope, entry.request().0);
            scope.set_continuation_preserved_embedder_data(request.into());
            let result = match entry {
                Entry::Dispatch {
                    request,
                    head,
                    body,
                } => isolate.entrypoints.dispatch(scope, request, &head, body),
                Entry::Complete { id, completion, .. } => {
                    isolate.entrypoints.complete(scope, id, completion)
                }
                Entry::Abort { request, reason } => {
                    isolate.entrypoints.abort(scope, request, &reason)
                }
            };
            self.has_served = true;
            if !matches!(result, Err(EntryError::Terminated)) {
                scope.perform_microtask_checkpoint();
            }
            result
        };
        self.unseen_entries += 1;
        let mut used = guard.used();
        let is_looked_at = self.unseen_entries >= UNSEEN_ENTRIES || used >= UNSEEN_TIME;
        if is_looked_at || isolate.budget.is_growing() {
            self.unseen_entries = 0;
            platform::run_foreground_tasks(&locker);
            ffi::measure_heap(&mut locker);
            used = guard.used();
        }
        let uncaught = uncaught::take(&mut locker, &isolate.context);
        if !uncaught.is_empty() {
            used = guard.used();
        }
        let excess = isolate.budget.exceeded();
        self.blueprint.mark(&guard, false);
        let used = guard.finish_at(used);
        let end = match (result, excess) {
            (_, Some(excess)) => End::HeapExceeded(excess),
            _ if used.ended == Some(Ended::TimedOut) => End::TimedOut,
            _ if used.ended == Some(Ended::GaveWay) => End::GaveWay,
            _ if used.exhausted => End::CpuExhausted,
            (Ok(()), None) => End::Done,
            (Err(EntryError::Terminated), None) => End::CpuExhausted,
            (Err(EntryError::Exception(exception)), None) => End::Failed(exception),
        };
        if used.exhausted || excess.is_some() {
            isolate.interrupter.resume();
        }
        Outcome {
            cpu: used.time,
            heap_bytes: isolate.budget.bytes(),
            end,
            uncaught,
        }
    }

    /// Keeps what this instance has compiled, for the revision's next instance. Takes milliseconds.
    pub fn leave_code(&mut self) {
        let stage = if self.has_served {
            Stage::Served
        } else {
            Stage::Started
        };
        let code = &self.blueprint.code;
        if self.isolate.budget.is_exceeded() || !code.wants(stage) {
            return;
        }
        let mut locker = self.isolate.shared.lock();
        v8::scope_with_context!(scope, &mut *locker, &self.isolate.context);
        code.keep(stage, modules::compiled(scope, &self.blueprint));
    }

    /// Collects garbage and gives free memory back. In a millisecond, with what callbacks of a `FinalizationRegistry` are due left for
    /// one of the next entries; or `thoroughly`.
    pub fn compact(&mut self, thoroughly: bool) -> Compacted {
        let isolate = &self.isolate;
        let mut locker = isolate.shared.lock();
        let (finalizers_ended, uncaught) = if thoroughly {
            // Two collections at least: what the first one left would add up.
            locker.low_memory_notification();
            self.run_callbacks(&mut locker)
        } else {
            // One, after which as few pages are left.
            locker.memory_pressure_notification(v8::MemoryPressureLevel::Critical);
            locker.memory_pressure_notification(v8::MemoryPressureLevel::None);
            (false, Vec::new())
        };
        ffi::measure_heap(&mut locker);
        // Last: a collection takes it again.
        ffi_tables::give_back(&mut locker);
        ffi_handles::freely(locker);
        Compacted {
            heap_bytes: isolate.budget.bytes(),
            finalizers_ended,
            uncaught,
            exceeded: isolate.budget.exceeded(),
        }
    }

    /// Runs what a collection has left to do. Whether it was ended, and what it threw.
    fn run_callbacks(&self, locker: &mut v8::Isolate) -> (bool, Vec<Uncaught>) {
        let isolate = &self.isolate;
        let guard = CpuGuard::enter(isolate.interrupter.clone(), FINALIZERS_CPU);
        self.blueprint.mark(&guard, true);
        platform::run_foreground_tasks(locker);
        let uncaught = uncaught::take(locker, &isolate.context);
        self.blueprint.mark(&guard, false);
        let used = guard.finish();
        if used.exhausted {
            isolate.interrupter.resume();
        }
        (used.exhausted, uncaught)
    }

    /// What compiled code its start used.
    pub fn code_use(&self) -> CodeUse {
        self.code_use
    }

    /// CPU time that its start took, from the first module to the last line of the top level.
    pub fn start_cpu(&self) -> Duration {
        self.start_cpu
    }

    /// The memory of this instance.
    pub fn budget(&self) -> &Arc<HeapBudget> {
        &self.isolate.budget
    }
}

impl Content {
    fn of(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self::Text(texts::share(text)),
            Err(error) => Self::Bytes(error.into_bytes()),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
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
    /// Code, limits, `env` with the values of secrets, and what the agent kept of the code as [`super::compile`] made it.
    pub fn new(
        mut bundle: Bundle,
        env: Vec<(String, String)>,
        breadcrumb: Option<Arc<Breadcrumb>>,
        code: Option<&[u8]>,
    ) -> Self {
        let contents = std::mem::take(&mut bundle.contents);
        Self {
            positions: Positions::take(&mut bundle),
            manifest: bundle.manifest,
            contents: contents.into_iter().map(Content::of).collect(),
            code: code.map(CodeCache::offered).unwrap_or_default(),
            env,
            breadcrumb,
        }
    }

    /// Whether there is code that the agent may keep.
    pub fn has_larger_modules(&self) -> bool {
        self.larger_modules().next().is_some()
    }

    /// What became of the code that the agent sent.
    pub fn sent_code(&self) -> SentCode {
        self.code.sent()
    }

    /// What a start would have said of code that was dropped before it.
    pub fn all_refused(&self) -> CodeUse {
        CodeUse {
            accepted: 0,
            refused: self.larger_modules().count() as u32,
        }
    }

    /// JavaScript of which the agent keeps the code.
    pub(super) fn larger_modules(&self) -> impl Iterator<Item = (&ModuleEntry, &Content)> {
        self.javascript()
            .filter(|(_, content)| CodeCache::is_larger(content.bytes().len()))
    }

    pub(super) fn javascript(&self) -> impl Iterator<Item = (&ModuleEntry, &Content)> {
        self.modules()
            .filter(|(entry, _)| entry.kind == ModuleKind::JavaScript)
    }

    pub(super) fn modules(&self) -> impl Iterator<Item = (&ModuleEntry, &Content)> {
        self.manifest.modules.iter().zip(&self.contents)
    }

    /// Bytes of texts that instances share.
    fn shared_bytes(&self) -> usize {
        let texts = self.contents.iter().filter_map(|content| match content {
            Content::Text(text) if texts::is_shared(text) => Some(text.len()),
            _ => None,
        });
        texts.sum()
    }

    pub(super) fn code(&self) -> &CodeCache {
        &self.code
    }

    fn mark(&self, guard: &CpuGuard, inside: bool) {
        if let Some(breadcrumb) = &self.breadcrumb {
            let uid = if inside {
                self.manifest.function.uid.as_str()
            } else {
                ""
            };
            breadcrumb.mark(guard.thread_index(), uid);
        }
    }
}

/// Runs the top level of the main module and keeps its default export.
fn load(
    scope: &mut v8::PinScope<'_, '_>,
    entrypoints: &Entrypoints,
    blueprint: &Blueprint,
) -> Result<CodeUse, LoadError> {
    let positions = &blueprint.positions;
    let thrown =
        |exception: Exception| positions.load_error(&exception.message, thrown_at(&exception));
    let (main, code_use) = modules::link(scope, blueprint)?;
    evaluate(scope, main, positions)?;
    let env: Vec<(&str, &str)> = blueprint
        .env
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let main_path = blueprint.manifest.main.as_str();
    match entrypoints.start(scope, main.get_module_namespace(), &env) {
        Ok(()) => Ok(code_use),
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
            uncaught::forget(scope);
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
