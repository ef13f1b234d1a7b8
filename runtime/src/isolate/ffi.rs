//! All unsafe code of the runtime outside the `v8` crate.
//!
//! Each callback says on which thread V8 calls it, whether it may re-enter V8, and how long its pointers live.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_void};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{ffi_crash, ffi_interrupt, texts};
use crate::control::BREADCRUMB_BYTES;
use crate::limits::heap::{Excess, HeapBudget};
use crate::limits::memory::{self, HeapSize, Resource};
use crate::limits::{cage, cpu, growth};

/// Takes ownership of a file descriptor that the parent process passed down by number.
pub fn inherited_fd(number: i32) -> std::io::Result<OwnedFd> {
    // SAFETY: F_GETFD reads a flag; on a number that is no open descriptor it fails with EBADF.
    if number < 0 || unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
        return Err(std::io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the descriptor is open, as just checked. The caller names each inherited number once, at start, before
    // anything else in this process opens files, so nothing else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    // SAFETY: as above; FD_CLOEXEC is this descriptor's own flag.
    unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    Ok(fd)
}

/// Makes an isolate usable from any thread.
///
/// Everything attached to the isolate is attached in `generic` or later in `instance`: the host (`Send` by the bound of
/// `Instance::start`), the heap budget, the module table and the list of what was thrown (`modules`, `uncaught`: of
/// `v8::Global`, which is `Send`), and callbacks that are plain functions. The allocator's budget is an `Arc` of atomics, the
/// external references and snapshot are static.
pub(super) fn share(isolate: v8::OwnedIsolate) -> Result<v8::SharedIsolate, String> {
    // SAFETY: all attached state is `Send`, as listed above; the isolate is on the thread that made it, because
    // `OwnedIsolate` is not `Send`; no reference from `Global::open` exists, because nothing here opens one.
    unsafe { isolate.try_into_shared() }.map_err(|error| error.to_string())
}

/// Reaches into a running isolate from other threads.
#[derive(Clone, Debug)]
pub struct Interrupter(v8::IsolateHandle);

impl Interrupter {
    pub(super) fn new(handle: v8::IsolateHandle) -> Self {
        Self(handle)
    }

    /// Ends the JavaScript that runs, with an exception that it cannot catch.
    pub fn terminate(&self) {
        self.0.terminate_execution();
    }

    /// Takes back [`Interrupter::terminate`].
    pub fn resume(&self) {
        self.0.cancel_terminate_execution();
    }

    /// Has the thread that runs entry number `entry` measure its memory and call `limits::cpu::interrupted` at its next safe
    /// point.
    pub fn interrupt(&self, entry: u64) {
        self.0
            .request_interrupt(ffi_interrupt::callback, ffi_interrupt::data(entry));
    }

    /// Has the isolate measure its memory at its next safe point.
    pub fn measure_heap(&self) {
        self.0
            .request_interrupt(measure_heap_callback, std::ptr::null_mut());
    }
}

/// V8 calls this on the thread that runs the isolate, between two steps of its JavaScript. It runs no JavaScript; it may
/// collect garbage. `isolate` is valid for the call; `data` is unused.
unsafe extern "C" fn measure_heap_callback(isolate: v8::UnsafeRawIsolatePtr, _data: *mut c_void) {
    // SAFETY: V8 passes the isolate that it interrupted.
    unsafe { end_if_over(isolate) };
}

/// Measures an isolate, and terminates what runs there if it uses more than its budget. Says whether it did.
///
/// # Safety
///
/// `isolate` must be the one that V8 has just interrupted on this thread.
pub(super) unsafe fn end_if_over(isolate: v8::UnsafeRawIsolatePtr) -> bool {
    let mut isolate = isolate;
    // SAFETY: it is valid, see above; no other reference to it is used during this call, since the Rust frames below wait for
    // JavaScript to return.
    let isolate = unsafe { v8::Isolate::ref_from_raw_isolate_ptr_mut(&mut isolate) };
    memory::sample();
    let is_over = measure_heap(isolate);
    if is_over {
        isolate.terminate_execution();
    }
    is_over
}

/// Whether the isolate uses more than its budget, garbage not counted. Marks the budget.
pub(super) fn measure_heap(isolate: &mut v8::Isolate) -> bool {
    let Some(watch) = isolate.get_slot::<Arc<HeapWatch>>().cloned() else {
        return false;
    };
    let budget = &watch.budget;
    if !budget.is_exceeded() && excess(isolate, budget).is_some() {
        isolate.low_memory_notification();
        if let Some(excess) = excess(isolate, budget) {
            watch.mark(excess);
        }
    }
    if !budget.is_exceeded() {
        settle(isolate, &watch);
    }
    budget.is_exceeded()
}

/// Bounds V8's own heap: near the limit it asks to grow, or the budget is marked and JavaScript terminated. The answer must
/// outlive the isolate.
#[must_use]
pub(super) fn watch_heap(isolate: &mut v8::Isolate, budget: &Arc<HeapBudget>) -> Arc<HeapWatch> {
    let watch = Arc::new(HeapWatch {
        budget: Arc::clone(budget),
        handle: isolate.thread_safe_handle(),
    });
    isolate.set_slot(Arc::clone(&watch));
    isolate.add_near_heap_limit_callback(near_heap_limit, watch.data());
    isolate.set_oom_error_handler(out_of_memory);
    let kinds = v8::GCType::kGCTypeScavenge | v8::GCType::kGCTypeMarkSweepCompact;
    isolate.add_gc_prologue_callback(before_collection, std::ptr::null_mut(), kinds);
    isolate.add_gc_epilogue_callback(after_collection, std::ptr::null_mut(), kinds);
    watch
}

/// V8 calls this on the thread that runs the isolate, before each collection. It sets a flag and calls nothing of V8.
unsafe extern "C" fn before_collection(
    _isolate: v8::UnsafeRawIsolatePtr,
    _kind: v8::GCType,
    _flags: v8::GCCallbackFlags,
    _data: *mut c_void,
) {
    cpu::collecting(true);
}

/// V8 calls this on the thread that runs the isolate, after each collection, where no JavaScript runs and none is run. It
/// reads statistics and sets flags. `isolate` is valid for the call.
unsafe extern "C" fn after_collection(
    isolate: v8::UnsafeRawIsolatePtr,
    kind: v8::GCType,
    _flags: v8::GCCallbackFlags,
    _data: *mut c_void,
) {
    let mut isolate = isolate;
    // SAFETY: V8 passes the isolate whose heap it collected; the Rust frames below wait for V8 to return.
    let isolate = unsafe { v8::Isolate::ref_from_raw_isolate_ptr_mut(&mut isolate) };
    cpu::collecting(false);
    let Some(watch) = isolate.get_slot::<Arc<HeapWatch>>().cloned() else {
        return;
    };
    let budget = &watch.budget;
    let Some(excess) = excess(isolate, budget).filter(|_| !budget.is_exceeded()) else {
        return;
    };
    if kind.0 & v8::GCType::kGCTypeMarkSweepCompact.0 != 0 {
        watch.end(excess);
    } else {
        // Some of it may be garbage: a full collection at the next safe point tells.
        watch.measure_soon();
    }
}

/// Whether the isolate must end, garbage counted.
fn excess(isolate: &mut v8::Isolate, budget: &HeapBudget) -> Option<Excess> {
    let statistics = isolate.get_heap_statistics();
    let size = HeapSize {
        committed: statistics.total_heap_size(),
        code: statistics.total_heap_size_executable(),
    };
    let live = statistics.used_heap_size() + statistics.external_memory();
    budget.note_heap(size, live);
    budget.excess()
}

/// What the callbacks need.
#[derive(Debug)]
pub(super) struct HeapWatch {
    budget: Arc<HeapBudget>,
    handle: v8::IsolateHandle,
}

impl HeapWatch {
    /// It uses more than it may, and must end.
    fn mark(&self, excess: Excess) {
        self.budget.exceed(excess);
        ffi_crash::suspect();
    }

    /// Ends what runs: it uses more than it may.
    fn end(&self, excess: Excess) {
        self.mark(excess);
        self.handle.terminate_execution();
    }

    /// Has the memory measured at the next safe point.
    fn measure_soon(&self) {
        self.handle
            .request_interrupt(measure_heap_callback, std::ptr::null_mut());
    }
}

impl HeapWatch {
    fn data(&self) -> *mut c_void {
        std::ptr::from_ref(self).cast_mut().cast()
    }

    /// Waits until it may grow by a lot, on the thread that runs the isolate.
    fn ask_to_grow(&self) {
        let budget = &self.budget;
        budget.grow(|| {
            if growth::is_crowded() {
                // There are no more threads that could take over.
                growth::ask()
            } else {
                cpu::without_seat(growth::ask)
            }
        });
        if budget.live_bytes() > budget.limit_bytes() {
            self.end(Excess::Limit);
        } else {
            // What it has become tells whether it may stay.
            self.measure_soon();
        }
    }
}

/// Once a heap that had to ask has grown, it gets a limit of its own, and gives the right to grow back or is marked; once it is small
/// again, the limit that all have. Not called inside V8's callbacks for collections and limits.
fn settle(isolate: &mut v8::Isolate, watch: &HeapWatch) {
    let budget = &watch.budget;
    let has_grown = budget.is_growing();
    if has_grown && !cage::is_reserve_free() {
        // What is garbage there shall not count.
        isolate.low_memory_notification();
    }
    let heap_bytes = isolate.get_heap_statistics().total_heap_size();
    let unasked = memory::unasked_bytes();
    let granted = budget.granted_bytes();
    let is_small = granted > 0 && heap_bytes < unasked / 2;
    if !has_grown && !is_small {
        return;
    }
    let limit = if is_small || heap_bytes < unasked / 2 {
        0
    } else {
        // Half as much again, but not far past the point where it is ended.
        (heap_bytes + heap_bytes / 2).min(budget.limit_bytes().max(heap_bytes)) + unasked / 2
    };
    isolate.remove_near_heap_limit_callback(near_heap_limit, limit.max(unasked));
    isolate.add_near_heap_limit_callback(near_heap_limit, watch.data());
    budget.grant(limit);
    // For the ledger alone.
    let _ = excess(isolate, budget);
    if !has_grown {
        return;
    }
    let bytes = budget.usage()[Resource::Cage];
    let leaves_room = || {
        limit == 0 || memory::heaps_lack() == 0 || cpu::without_seat(|| growth::leave_room(bytes))
    };
    if cage::is_reserve_free() && leaves_room() {
        budget.grown();
    } else {
        // The next one may grow once this one is gone.
        watch.mark(Excess::Share);
    }
}

/// V8 calls this on the thread that runs the isolate, inside an allocation that found no room, before its last collection: it
/// must not allocate in V8 or run JavaScript, and does not. It may wait, as `ffi_interrupt::callback` does and for the same
/// reasons. `data` is the [`HeapWatch`], which `Generic` and the isolate's slot keep alive.
unsafe extern "C" fn near_heap_limit(
    data: *mut c_void,
    current_limit_bytes: usize,
    _initial_limit_bytes: usize,
) -> usize {
    // SAFETY: see above; shared references to it are the only ones.
    unsafe { &*data.cast::<HeapWatch>() }.ask_to_grow();
    current_limit_bytes + growth::STRIDE_BYTES
}

/// Waits until the isolate that this thread runs may grow; false where it is none of a tenant's. To be called in an allocation, on the
/// same terms as [`near_heap_limit`].
pub(super) fn ask_to_grow() -> bool {
    let watch = current_watch();
    watch.inspect(|watch| watch.ask_to_grow()).is_some()
}

/// Ends what this thread runs for the others' sake. To be called in an allocation: it goes on for a while.
pub(super) fn give_way() {
    if let Some(watch) = current_watch() {
        watch.end(Excess::Share);
    }
}

/// Of the isolate that this thread runs.
fn current_watch() -> Option<Arc<HeapWatch>> {
    // SAFETY: it reads a thread-local variable.
    let current = unsafe { v8__Isolate__TryGetCurrent() };
    if current.is_null() {
        return None;
    }
    // SAFETY: this thread has entered that isolate. Only its slot is read, while the frames below wait for V8.
    let isolate = unsafe { v8::Isolate::from_raw_ptr_unchecked(current.cast()) };
    isolate.get_slot::<Arc<HeapWatch>>().cloned()
}

unsafe extern "C" {
    fn v8__Isolate__TryGetCurrent() -> *mut c_void;
}

/// V8 calls this where it finds no memory, on the thread that runs the isolate or on one of its own, and ends the process if
/// it returns. It does not: the others get time to finish, then the process ends.
unsafe extern "C" fn out_of_memory(location: *const c_char, _details: &v8::OomDetails) {
    // SAFETY: V8 passes the name of the place, which ends in a zero byte and lives longer than this call.
    let location = (!location.is_null()).then(|| unsafe { CStr::from_ptr(location) });
    let location = location.map(CStr::to_string_lossy);
    tracing::error!(location = location.as_deref(), "V8 has no memory left");
    cpu::out_of_memory()
}

/// An allocator of array buffers that charges a budget.
pub(super) fn metered_allocator(budget: &Arc<HeapBudget>) -> v8::UniqueRef<v8::Allocator> {
    let handle = Arc::into_raw(Arc::clone(budget));
    // SAFETY: `handle` is what every function of the table expects: a budget of which the allocator owns one count, given
    // back by `drop_allocator`.
    unsafe { v8::new_rust_allocator(handle, &METERED_ALLOCATOR) }
}

/// V8 calls these on any of its threads, also while it collects garbage; none calls back into V8.
static METERED_ALLOCATOR: v8::RustAllocatorVtable<HeapBudget> = v8::RustAllocatorVtable {
    allocate: allocate_zeroed,
    allocate_uninitialized,
    free,
    drop: drop_allocator,
};

unsafe extern "C" fn allocate_zeroed(budget: &HeapBudget, bytes: usize) -> *mut c_void {
    // SAFETY: calloc takes any size.
    charged(budget, bytes, || unsafe { libc::calloc(bytes.max(1), 1) })
}

unsafe extern "C" fn allocate_uninitialized(budget: &HeapBudget, bytes: usize) -> *mut c_void {
    // SAFETY: malloc takes any size.
    charged(budget, bytes, || unsafe { libc::malloc(bytes.max(1)) })
}

fn charged(
    budget: &HeapBudget,
    bytes: usize,
    allocate: impl FnOnce() -> *mut c_void,
) -> *mut c_void {
    if !budget.try_charge(bytes) {
        return std::ptr::null_mut();
    }
    let memory = allocate();
    if memory.is_null() {
        budget.release(bytes);
    }
    memory
}

unsafe extern "C" fn free(budget: &HeapBudget, memory: *mut c_void, bytes: usize) {
    // SAFETY: V8 frees what one of the two functions above returned, once, with the size it asked for.
    unsafe { libc::free(memory) };
    if !memory.is_null() {
        budget.release(bytes);
    }
}

unsafe extern "C" fn drop_allocator(budget: *const HeapBudget) {
    // SAFETY: `metered_allocator` made it with `Arc::into_raw`; V8 drops its allocator once.
    drop(unsafe { Arc::from_raw(budget) });
}

/// A string of text that instances share with the bundle, or a copy.
pub(super) fn shared_text<'s>(
    scope: &v8::PinScope<'s, '_>,
    text: &Arc<str>,
) -> Option<v8::Local<'s, v8::String>> {
    let bytes = text.len();
    if !texts::is_shared(text) {
        return v8::String::new(scope, text);
    }
    let raw = Arc::into_raw(Arc::clone(text)).cast::<u8>();
    // SAFETY: ASCII is Latin-1; V8 only reads it, and owns one count of the text, which `drop_shared_text` gives back with
    // the same pointer and length.
    unsafe {
        v8::String::new_external_onebyte_raw(scope, raw.cast_mut().cast(), bytes, drop_shared_text)
    }
}

/// V8 calls this on any thread that collects or takes down the isolate, once for each string of `shared_text`.
unsafe extern "C" fn drop_shared_text(text: *mut c_char, bytes: usize) {
    let text = std::ptr::slice_from_raw_parts(text.cast::<u8>(), bytes) as *const str;
    // SAFETY: pointer and length come from `Arc::into_raw` of an `Arc<str>`.
    drop(unsafe { Arc::from_raw(text) });
}

/// The natives of the Web API layer, to which the snapshot refers by their place in this list.
pub(super) fn external_references() -> &'static [v8::ExternalReference] {
    static REFERENCES: OnceLock<References> = OnceLock::new();
    &REFERENCES
        .get_or_init(|| References(crate::web::external_references()))
        .0
}

struct References(Vec<v8::ExternalReference>);

// SAFETY: addresses of functions and of static data, never written.
unsafe impl Send for References {}
// SAFETY: as above.
unsafe impl Sync for References {}

/// CPU clock of one thread, readable from others.
#[derive(Clone, Copy, Debug)]
pub struct ThreadClock(libc::clockid_t);

impl ThreadClock {
    /// The clock of the thread that calls.
    pub fn of_this_thread() -> Self {
        let mut clock = 0;
        // SAFETY: pthread_self is always valid for its own thread; `clock` is a place for the answer. It can fail only
        // for threads that have ended.
        unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &mut clock) };
        Self(clock)
    }

    /// CPU time that the thread has used; none once it has ended.
    pub fn read(self) -> Option<Duration> {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `time` is a place for the answer; a clock of a thread that has ended gives an error.
        let outcome = unsafe { libc::clock_gettime(self.0, &mut time) };
        (outcome == 0).then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }
}

/// Memory shared with the agent that says which Function runs on which thread, for the case that the worker crashes.
///
/// `SLOTS` slots of `SLOT_BYTES` bytes, as `control` describes them.
#[derive(Debug)]
pub struct Breadcrumb {
    memory: NonNull<u8>,
}

// SAFETY: the memory is a mapping that lives as long as the process. Each slot is written by one thread (its index is
// handed out once, see `limits::cpu`), and read in this process by the monitor only.
unsafe impl Send for Breadcrumb {}
// SAFETY: as above.
unsafe impl Sync for Breadcrumb {}

impl Breadcrumb {
    /// Bytes of a slot.
    pub const SLOT_BYTES: usize = 64;
    /// The byte of a slot that says what is known of its thread: [`Breadcrumb::CRASHED`], [`Breadcrumb::SUSPECT`] or 0.
    pub const FLAG_AT: usize = Self::SLOT_BYTES - 1;
    /// The thread crashed.
    pub const CRASHED: u8 = 1;
    /// The Function had used up its memory: V8 may crash on a thread of its own for that.
    pub const SUSPECT: u8 = 2;
    /// The slot of no thread: names the Function that V8 could not end.
    const STUCK_SLOT: usize = Self::SLOTS - 1;
    /// Number of slots.
    pub const SLOTS: usize = BREADCRUMB_BYTES / Self::SLOT_BYTES;

    /// Maps the file that the agent passed.
    pub fn map(file: impl AsFd) -> std::io::Result<Self> {
        // SAFETY: a new shared mapping of BREADCRUMB_BYTES of an open file, at an address that the kernel chooses; it is
        // never unmapped. A file that is too short would fault on access, so its size is set first.
        let memory = unsafe {
            libc::ftruncate(file.as_fd().as_raw_fd(), BREADCRUMB_BYTES as libc::off_t);
            libc::mmap(
                std::ptr::null_mut(),
                BREADCRUMB_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_fd().as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        NonNull::new(memory.cast())
            .map(|memory| Self { memory })
            .ok_or_else(std::io::Error::last_os_error)
    }

    /// Has a crash of this process mark the slot of the thread it happens on.
    pub fn mark_crashes(&self) -> std::io::Result<()> {
        ffi_crash::install(self.memory)
    }

    /// Names the Function of a slot as the one for which the process ends. For the monitor thread alone.
    pub fn blame(&self, slot: usize) {
        if slot >= Self::STUCK_SLOT {
            return;
        }
        for at in 0..Self::SLOT_BYTES {
            let byte = if at == Self::FLAG_AT {
                Self::CRASHED
            } else {
                // SAFETY: inside the mapping. The slot's thread, stuck inside JavaScript, does not write it; should it come
                // free just now, bytes of a zeroed name are read, each of which is valid.
                unsafe {
                    self.memory
                        .add(slot * Self::SLOT_BYTES + at)
                        .read_volatile()
                }
            };
            // SAFETY: inside the mapping; no thread but the monitor writes this slot.
            unsafe {
                self.memory
                    .add(Self::STUCK_SLOT * Self::SLOT_BYTES + at)
                    .write_volatile(byte);
            }
        }
    }

    /// Writes whose JavaScript runs in a slot: the first bytes of the UID, zeros for none.
    pub fn mark(&self, slot: usize, uid: &str) {
        if slot >= Self::STUCK_SLOT {
            return;
        }
        ffi_crash::this_thread_uses(slot);
        ffi_crash::flag(0);
        let bytes = &uid.as_bytes()[..uid.len().min(Self::FLAG_AT - 1)];
        for at in 0..=bytes.len() {
            // SAFETY: `slot` and `at` are inside the mapping; no other thread writes this slot. Volatile, because the
            // reader is another process.
            unsafe {
                self.memory
                    .add(slot * Self::SLOT_BYTES + at)
                    .write_volatile(bytes.get(at).copied().unwrap_or(0));
            }
        }
    }
}
