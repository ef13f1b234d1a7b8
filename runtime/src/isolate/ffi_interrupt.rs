//! The interrupt by which a thread that computes for long hands over what else it had to do.
//!
//! Unsafe code: one callback of V8.
#![allow(unsafe_code)]

use std::ffi::c_void;

use crate::limits::cpu;

/// The data that V8 hands to [`callback`]: a number, not a pointer to anything.
pub(super) fn data(entry: u64) -> *mut c_void {
    std::ptr::without_provenance_mut(entry as usize)
}

/// V8 calls this on the thread that runs the isolate, between two steps of its JavaScript, with none of V8's locks held but
/// that isolate's own. It may stay here for long, and meanwhile other threads run whatever this thread's runtime had to do:
///
/// - Thread: this one keeps the isolate's lock and V8's thread-local state; no other thread needs them, since an instance has
///   one owner (`scheduler::cell`) and this is its thread until the entry ends.
/// - Reentrancy: nothing here calls into V8 but `terminate_execution`, which may be called anywhere. The interrupt may come
///   late, in another entry of the same isolate, on another thread: the number does not match the entry that runs
///   there, and nothing happens.
/// - Pointers: `isolate` is not used, `data` is a number.
/// - What the Rust frames below hold: the isolate, and borrows of what belongs to it (its slots, the task that polls). No lock:
///   none is held across JavaScript (the mutexes of `scheduler` are taken inside host calls that run none), and
///   hyper, h2 and tokio hold none while they poll a task. The runtime's own state for this thread is what `block_in_place`
///   is made for.
pub(super) unsafe extern "C" fn callback(_isolate: v8::UnsafeRawIsolatePtr, data: *mut c_void) {
    cpu::interrupted(data.addr() as u64);
}
