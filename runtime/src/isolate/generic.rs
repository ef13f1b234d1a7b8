//! An isolate with the Web API layer in it that belongs to no revision yet. It becomes one instance and is thrown away with
//! it: nothing of a tenant ever comes back here.

use std::sync::Arc;

use super::ffi::{self, HeapWatch, Interrupter};
use super::snapshot::Snapshot;
use super::{ffi_prefault, ffi_tables};
use super::{modules, uncaught};
use crate::limits::heap::HeapBudget;
use crate::limits::memory;
use crate::web::{self, Entrypoints};

/// From which V8 derives the size of the young generation.
const HEAP_BYTES: usize = 320 << 20;

/// A live isolate that has run no tenant's code.
pub(super) struct Generic {
    // In this order: handles go before the isolate, what its callbacks point at goes after it.
    pub(super) entrypoints: Entrypoints,
    pub(super) context: v8::Global<v8::Context>,
    pub(super) shared: v8::SharedIsolate,
    _watch: Arc<HeapWatch>,
    pub(super) interrupter: Interrupter,
    pub(super) budget: Booked,
}

/// The budget of an isolate that is there: once dropped, it holds nothing for the heap. It may live longer, with what waits to
/// leave.
pub(super) struct Booked(Arc<HeapBudget>);

impl std::ops::Deref for Booked {
    type Target = Arc<HeapBudget>;
    fn deref(&self) -> &Arc<HeapBudget> {
        &self.0
    }
}

impl Drop for Booked {
    fn drop(&mut self) {
        self.0.note_end();
    }
}

impl Generic {
    /// Deserialises the snapshot and makes the context, for at most so many bytes of memory.
    pub(super) fn make(snapshot: Snapshot, limit_bytes: usize) -> Result<Self, String> {
        ffi_prefault::making(|| Self::make_here(snapshot, limit_bytes))
    }

    fn make_here(snapshot: Snapshot, limit_bytes: usize) -> Result<Self, String> {
        let budget = Booked(Arc::new(HeapBudget::new(limit_bytes)));
        let params = v8::CreateParams::default()
            .snapshot_blob(snapshot.data())
            .external_references(ffi::external_references().into())
            .heap_limits(0, HEAP_BYTES)
            .set_max_old_generation_size_in_bytes(memory::unasked_bytes())
            .set_code_range_size_in_bytes(memory::CODE_RANGE_BYTES)
            .array_buffer_allocator(ffi::metered_allocator(&budget))
            .allow_atomics_wait(false);
        let mut isolate = v8::Isolate::new(params);
        isolate.set_microtasks_policy(v8::MicrotasksPolicy::Explicit);
        uncaught::listen(&mut isolate);
        modules::install(&mut isolate);
        let watch = ffi::watch_heap(&mut isolate, &budget);
        ffi_tables::learn(&mut isolate);
        ffi_prefault::learn(&mut isolate);
        let interrupter = Interrupter::new(isolate.thread_safe_handle());
        let shared = ffi::share(isolate)?;
        let mut locker = shared.lock();
        let made = {
            v8::scope!(let scope, &mut *locker);
            let context = v8::Context::new(scope, v8::ContextOptions::default());
            context.set_allow_generation_from_strings(false);
            let scope = &mut v8::ContextScope::new(scope, context);
            let context = v8::Global::new(scope, context);
            Entrypoints::load(scope).map(|entrypoints| (entrypoints, context))
        };
        // The texts of the Web API layer lie in the program.
        budget.share(locker.get_heap_statistics().external_memory());
        ffi::measure_heap(&mut locker);
        drop(locker);
        let (entrypoints, context) = made.map_err(|exception| exception.message)?;
        Ok(Self {
            entrypoints,
            context,
            shared,
            _watch: watch,
            interrupter,
            budget,
        })
    }
}

impl Generic {
    /// Has the Web API layer run once, so that the first request of an instance is faster.
    pub(super) fn warm_up(&self) -> Result<(), String> {
        let mut locker = self.shared.lock();
        let warm = {
            v8::scope_with_context!(scope, &mut *locker, &self.context);
            self.entrypoints.warm_up(scope)
        };
        ffi::measure_heap(&mut locker);
        warm.map_err(|error| error.to_string())
    }

    /// Gives back what V8 keeps ready in it and few instances ever use.
    pub(super) fn give_tables_back(&self) {
        ffi_tables::give_back(&mut self.shared.lock());
    }

    /// Has the Web API layer compile, for all instances of the process, what it runs late. The isolate serves nothing else.
    pub(super) fn compile_lazy_files(self) -> Result<(), String> {
        let mut locker = self.shared.lock();
        v8::scope_with_context!(scope, &mut *locker, &self.context);
        web::compile_lazy_files(scope).map_err(|exception| exception.message)
    }
}

impl std::fmt::Debug for Generic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generic").finish_non_exhaustive()
    }
}
