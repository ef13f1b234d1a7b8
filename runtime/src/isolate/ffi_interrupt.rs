//! The interrupt by which a thread that computes for long hands over what else it had to do.
//!
//! Unsafe code: one callback of V8.
#![allow(unsafe_code)]

use std::ffi::c_void;

use super::ffi;
use crate::limits::cpu;

/// The data that V8 hands to [`callback`]: a number, not a pointer to anything.
pub(super) fn data(entry: u64) -> *mut c_void {
    std::ptr::without_provenance_mut(entry as usize)
}

/// V8 calls this on the thread that runs the isolate, between two steps of its JavaScript, with none of V8's locks held but
/// that isolate's own. It may stay here for long, and meanwhile other threads run whatever this thread's runtime had to do.
/// What stays here has been measured just before: it is within its memory, and no longer has the right to grow by a lot
/// (`limits::growth`), for which others wait.
///
/// - Thread: this one keeps the isolate's lock and V8's thread-local state; no other thread needs them, since an instance has
///   one owner (`scheduler::cell`) and this is its thread until the entry ends.
/// - Reentrancy: measuring may collect garbage and runs no JavaScript; after it nothing here calls into V8 but
///   `terminate_execution`, which may be called anywhere. The interrupt may come late, in another entry of the same isolate,
///   on another thread: that is measured, but the number does not match the entry that runs there, and it does not wait.
/// - Pointers: `isolate` is the interrupted one, used before the wait only; `data` is a number.
/// - What the Rust frames below hold: the isolate, and borrows of what belongs to it (its slots, the task that polls). No lock:
///   none is held across JavaScript (the mutexes of `scheduler` are taken inside host calls that run none), and
///   hyper, h2 and tokio hold none while they poll a task. The runtime's own state for this thread is what `block_in_place`
///   is made for.
pub(super) unsafe extern "C" fn callback(isolate: v8::UnsafeRawIsolatePtr, data: *mut c_void) {
    // SAFETY: V8 passes the isolate that it interrupted.
    if unsafe { ffi::end_if_over(isolate) } {
        // It ends now, and gives its memory back before others get their turn.
        return;
    }
    cpu::interrupted(data.addr() as u64);
}
