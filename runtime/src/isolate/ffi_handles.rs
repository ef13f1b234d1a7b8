//! What an isolate needs for handles stays with it from one entry to the next.
//!
//! V8 keeps handles in blocks of 8 KB, and the contexts that are entered in lists. When the lock of an isolate is released it gives
//! them back (`ThreadManager::FreeThreadResources`), and the next entry, microseconds later, takes others from an allocator that all
//! threads share: four of its five allocations there. So the linker's `--wrap` (build.rs) has that call come here, and only an idle
//! instance that gives back what it does not need gives these back, too ([`freely`]).
//!
//! Why that changes nothing, as read in V8's source (`handles/handle-scope-implementer.cc`): at that moment there is no handle and no
//! context is entered, which V8 asserts. So the block is the spare one, which the next scope takes before it makes another, and the
//! lists have room but no entries, for a collection of garbage, too. They belong to the isolate, not to the thread: whoever enters
//! it next uses them under the same lock, and they go with it.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::c_void;

use super::ffi_tables;

thread_local! {
    static GIVES_BACK: Cell<bool> = const { Cell::new(false) };
}

unsafe extern "C" {
    #[link_name = "__real__ZN2v88internal22HandleScopeImplementer19FreeThreadResourcesEv"]
    fn v8_free_thread_resources(this: *mut c_void);
}

/// `HandleScopeImplementer::FreeThreadResources()`, called where a `v8::Locker` ends that is no inner one.
#[unsafe(export_name = "__wrap__ZN2v88internal22HandleScopeImplementer19FreeThreadResourcesEv")]
extern "C" fn free_thread_resources(this: *mut c_void) {
    if GIVES_BACK.get() || !ffi_tables::is_known_version() {
        // SAFETY: V8 calls this with an object of its own, on the thread that holds the isolate.
        unsafe { v8_free_thread_resources(this) }
    }
}

/// Ends a lock, so that the isolate keeps none of it.
pub(super) fn freely(locker: v8::Locker<'_>) {
    GIVES_BACK.set(true);
    drop(locker);
    GIVES_BACK.set(false);
}
