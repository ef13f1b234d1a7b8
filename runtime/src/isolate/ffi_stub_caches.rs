//! V8's stub caches take memory only where they are used.
//!
//! An isolate has three of them (`StubCache`, for loads, stores and definitions): tables in which generated code looks for
//! what to do where a property access has seen many shapes. Each has 5,120 entries of 12 bytes, all of which V8 writes twice when an
//! isolate is made and once in each full collection. That was a fourth of the page faults of a new isolate, a fifteenth of the time
//! that it takes to make one, and 180 KB resident in each. Most instances never use one.
//!
//! So the linker's `--wrap` (build.rs) has V8's calls of its constructor, `Initialize` and `Clear` come here, and the kernel
//! takes the pages back instead (`MADV_DONTNEED`): it gives pages of zeros where one is touched.
//!
//! Why that changes nothing, as read in V8's source (`ic/stub-cache.cc`, `ic/accessor-assembler.cc`): an entry is empty if its map
//! is Smi 0, so an entry of zeros is empty too, and nothing depends on the rest of an empty entry. `StubCache::Get` and the
//! probe of generated code (`TryProbeStubCacheTable`) find an entry only if its key is the name *and* its map is the object's
//! map, both pointers to heap objects, never 0; `Set` keeps the old entry only if its map is no Smi, and then writes all three words.
//! No collection visits the entries. The constructor writes zeros and the isolate; the two others write empty entries only.
#![allow(unsafe_code)]

use std::ffi::c_void;

use super::ffi_tables;

/// The first part of a stub cache's entries.
pub(super) const FIRST_PART_BYTES: usize = 4096 * 12;
/// Both parts. The address of its isolate follows.
pub(super) const ENTRIES_BYTES: usize = FIRST_PART_BYTES + 1024 * 12;
/// All of it.
pub(super) const BYTES: usize = ENTRIES_BYTES + size_of::<*mut c_void>();

unsafe extern "C" {
    #[link_name = "__real__ZN2v88internal9StubCacheC1EPNS0_7IsolateE"]
    fn v8_new(this: *mut u8, isolate: *mut c_void);

    #[link_name = "__real__ZN2v88internal9StubCache10InitializeEv"]
    fn v8_initialize(this: *mut u8);

    #[link_name = "__real__ZN2v88internal9StubCache5ClearEv"]
    fn v8_clear(this: *mut u8);
}

// Proof, for all that is unsafe below. V8 calls these three with a `StubCache` of its own as `this` (for the constructor: with memory for
// one, of `malloc`), on the thread that holds the isolate, while no generated code of it runs. In the version of V8 that is
// asked for, its entries and its isolate lie as said above. `malloc`'s memory is private and without a file. Nothing here panics.

/// `StubCache::StubCache(Isolate*)`
#[unsafe(export_name = "__wrap__ZN2v88internal9StubCacheC1EPNS0_7IsolateE")]
extern "C" fn new(this: *mut u8, isolate: *mut c_void) {
    // SAFETY: see above.
    unsafe {
        if ffi_tables::is_known_version() {
            empty(this);
            this.add(ENTRIES_BYTES).cast::<*mut c_void>().write(isolate);
        } else {
            v8_new(this, isolate);
        }
    }
}

/// `StubCache::Initialize()`, once for each, some time after the constructor: all entries are empty.
#[unsafe(export_name = "__wrap__ZN2v88internal9StubCache10InitializeEv")]
extern "C" fn initialize(this: *mut u8) {
    if !ffi_tables::is_known_version() {
        // SAFETY: see above.
        unsafe { v8_initialize(this) }
    }
}

/// `StubCache::Clear()`, in each full collection.
#[unsafe(export_name = "__wrap__ZN2v88internal9StubCache5ClearEv")]
extern "C" fn clear(this: *mut u8) {
    // SAFETY: see above.
    unsafe {
        if ffi_tables::is_known_version() {
            empty(this);
        } else {
            v8_clear(this);
        }
    }
}

/// Makes zeros of [`ENTRIES_BYTES`] bytes: whole pages by the kernel, the rest by hand.
///
/// # Safety
///
/// They are private memory without a file, and nobody else uses them meanwhile.
unsafe fn empty(at: *mut u8) {
    let page = rustix::param::page_size();
    let begin = at as usize;
    let end = begin + ENTRIES_BYTES;
    let first = begin.next_multiple_of(page).min(end);
    let last = (end / page * page).max(first);
    let (first, last) = (first - begin, last - begin);
    // SAFETY: all of it is inside those bytes.
    unsafe {
        if libc::madvise(at.add(first).cast(), last - first, libc::MADV_DONTNEED) == 0 {
            at.write_bytes(0, first);
            at.add(last).write_bytes(0, ENTRIES_BYTES - last);
        } else {
            at.write_bytes(0, ENTRIES_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_was_there_is_zeros_and_what_is_beside_it_stays() {
        for offset in [0, 1, 8, 4095, 4096] {
            let mut block = vec![7_u8; offset + ENTRIES_BYTES + 8192];
            // SAFETY: it is the test's own, of malloc.
            unsafe { empty(block.as_mut_ptr().add(offset)) };
            let end = offset + ENTRIES_BYTES;
            assert!(block[offset..end].iter().all(|byte| *byte == 0));
            assert!(block[..offset].iter().all(|byte| *byte == 7));
            assert!(block[end..].iter().all(|byte| *byte == 7));
        }
    }
}
