//! The ranges of addresses that V8 reserves can be read and written as a whole, so that each is one mapping.
//!
//! V8 makes parts of a range accessible as it needs them, by a system call each, and the kernel keeps a mapping for each part. An
//! isolate had 15 mappings, twelve of them for its four tables of pointers, and 60 such calls at its start; the kernel allows a process
//! 65,530 mappings. So the linker's `--wrap` (build.rs) has V8's calls of some of its functions come here:
//!
//! | range | V8's own way | here |
//! |---|---|---|
//! | the cage of all heaps, but for the part that all share and nobody writes | a page that is freed becomes inaccessible | V8's mode for systems that cannot do that: it is discarded |
//! | an isolate's table of pointers | the part that begins with the entry for null is read-only; what was not used, or is freed, is inaccessible | the whole table can be written from its first part on; what is freed is discarded |
//! | holes: 13 parts of what all share that nobody may touch | made inaccessible at the start of each isolate | once |
//!
//! What is lost: code of V8 that goes astray in freed or unused memory, or writes to the entry for null, reads zeros or goes on where it
//! would have crashed. It can reach the heaps of all isolates as well.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::limits::cage::{CAGE_BYTES, PAGE_BYTES};
use crate::limits::memory;

/// `OS::MemoryPermission::kRead` and `kReadWrite`.
const READ: c_int = 1;
const READ_WRITE: c_int = 2;
/// `PageInitializationMode::kRecommitOnly`, `PageFreeingMode::kDiscard`.
const RECOMMIT_ONLY: c_int = 2;
const DISCARD: c_int = 1;
/// `kContiguousReadOnlyReservationSize`: the first part of the cage, for what all isolates share.
const SHARED_BYTES: usize = 16 << 20;
/// `kExternalPointerTableReservationSize`: of the tables that V8 never protects by keys.
const POINTERS_BYTES: usize = 512 << 20;
/// More holes than V8 has.
const MOST_HOLES: usize = 32;

/// Of V8's class `AddressSpaceReservation`.
#[repr(C)]
struct Reservation {
    address: usize,
    bytes: usize,
}

/// The first part of the cage, and what of it was made inaccessible for good.
struct Shared {
    address: usize,
    /// By address and bytes.
    holes: Vec<(usize, usize)>,
}

/// The kernel refused to make a range accessible as a whole: V8's own way is taken from then on.
static REFUSED: AtomicBool = AtomicBool::new(false);
static CAGE_IS_ACCESSIBLE: AtomicBool = AtomicBool::new(false);
static SHARED: Mutex<Shared> = Mutex::new(Shared {
    address: usize::MAX,
    holes: Vec::new(),
});

unsafe extern "C" {
    #[link_name = "__real__ZN2v84base20BoundedPageAllocatorC1EPNS_13PageAllocatorEmmmNS0_22PageInitializationModeENS0_15PageFreeingModeE"]
    fn v8_new_pages(
        this: *mut c_void,
        system: *mut c_void,
        address: usize,
        bytes: usize,
        page_bytes: usize,
        initialization: c_int,
        freeing: c_int,
    );

    #[link_name = "__real__ZN2v84base23AddressSpaceReservation8AllocateEPvmNS0_2OS16MemoryPermissionE"]
    fn v8_allocate(this: *mut Reservation, address: usize, bytes: usize, access: c_int) -> bool;

    #[link_name = "__real__ZN2v84base23AddressSpaceReservation14SetPermissionsEPvmNS0_2OS16MemoryPermissionE"]
    fn v8_protect_part(this: *mut Reservation, address: usize, bytes: usize, access: c_int)
    -> bool;

    #[link_name = "__real__ZN2v84base23AddressSpaceReservation4FreeEPvm"]
    fn v8_free(this: *mut Reservation, address: usize, bytes: usize) -> bool;

    #[link_name = "__real__ZN2v84base2OS14SetPermissionsEPvmNS1_16MemoryPermissionE"]
    fn v8_protect(address: usize, bytes: usize, access: c_int) -> bool;

    #[link_name = "__real__ZN2v84base2OS13DecommitPagesEPvm"]
    fn v8_decommit(address: usize, bytes: usize) -> bool;
}

// Proof, for all that is unsafe below. V8 is exactly version 15.2 (Cargo.toml: `=152.2.0`), in which these are ordinary functions of
// other object files than their callers, and their arguments are pointers, integers and enums of an int, which both x86-64's and
// arm64's C++ pass as C does, `this` first. What the linker cannot find is an error of the build. The system calls are for
// private memory without a file that V8 reserved for the very object that it calls with, and:
//
// - The cage: `BoundedPageAllocator` knows both modes. It wants all its pages to be accessible from the start and free ones discarded
//   (`base/bounded-page-allocator.cc`); they are, but for the part that V8 takes out at once and gives to an allocator of its own
//   (`init/isolate-group.cc`), which has V8's own modes. Where the kernel refuses, V8's own modes stay.
// - Tables: only they are such reservations without V8's sandbox (`common/segmented-table-inl.h`, `sandbox/external-entity-table-inl.h`).
//   Their first part is the one that is asked for as read-only, at their begin. Whoever writes to it has asked for that
//   before, so it is never relied on that it cannot be written. What is freed must be zeros when it is taken again: discarded, it
//   is. Where V8 has protection keys for a table, which is never one of pointers, it makes what is freed inaccessible itself, and
//   accessible when it is taken again.
// - Holes: V8 asks for the same parts each time, and nothing else in the first part of the cage is decommitted. They are
//   inaccessible until V8 sets their access, which it does by `OS::SetPermissions` alone.
//
// Nothing here panics.

/// `BoundedPageAllocator::BoundedPageAllocator(v8::PageAllocator*, Address, size_t, size_t, PageInitializationMode, PageFreeingMode)`
#[unsafe(export_name = "__wrap__ZN2v84base20BoundedPageAllocatorC1EPNS_13PageAllocatorEmmmNS0_22PageInitializationModeENS0_15PageFreeingModeE")]
extern "C" fn new_pages(
    this: *mut c_void,
    system: *mut c_void,
    address: usize,
    bytes: usize,
    page_bytes: usize,
    mut initialization: c_int,
    mut freeing: c_int,
) {
    if bytes == CAGE_BYTES && page_bytes == PAGE_BYTES {
        shared(|shared| shared.address = address);
        if make_writable(address + SHARED_BYTES, bytes - SHARED_BYTES) {
            (initialization, freeing) = (RECOMMIT_ONLY, DISCARD);
            CAGE_IS_ACCESSIBLE.store(true, Ordering::Relaxed);
        }
    }
    // SAFETY: see above.
    unsafe {
        v8_new_pages(
            this,
            system,
            address,
            bytes,
            page_bytes,
            initialization,
            freeing,
        );
    }
}

/// `AddressSpaceReservation::Allocate(void*, size_t, OS::MemoryPermission)`
#[unsafe(export_name = "__wrap__ZN2v84base23AddressSpaceReservation8AllocateEPvmNS0_2OS16MemoryPermissionE")]
extern "C" fn allocate(
    this: *mut Reservation,
    address: usize,
    bytes: usize,
    access: c_int,
) -> bool {
    // SAFETY: see above.
    unsafe {
        let is_done = match access {
            READ => address == (*this).address && make_writable(address, (*this).bytes),
            READ_WRITE => (*this).bytes == POINTERS_BYTES && !REFUSED.load(Ordering::Relaxed),
            _ => false,
        };
        is_done || v8_allocate(this, address, bytes, access)
    }
}

/// `AddressSpaceReservation::SetPermissions(void*, size_t, OS::MemoryPermission)`, of the first part of a table
#[unsafe(export_name = "__wrap__ZN2v84base23AddressSpaceReservation14SetPermissionsEPvmNS0_2OS16MemoryPermissionE")]
extern "C" fn protect_part(
    this: *mut Reservation,
    address: usize,
    bytes: usize,
    access: c_int,
) -> bool {
    let is_done = access == READ || (access == READ_WRITE && !REFUSED.load(Ordering::Relaxed));
    // SAFETY: see above.
    is_done || unsafe { v8_protect_part(this, address, bytes, access) }
}

/// `AddressSpaceReservation::Free(void*, size_t)`
#[unsafe(export_name = "__wrap__ZN2v84base23AddressSpaceReservation4FreeEPvm")]
extern "C" fn free(this: *mut Reservation, address: usize, bytes: usize) -> bool {
    // SAFETY: see above.
    discard(address, bytes) || unsafe { v8_free(this, address, bytes) }
}

/// `OS::SetPermissions(void*, size_t, OS::MemoryPermission)`
#[unsafe(export_name = "__wrap__ZN2v84base2OS14SetPermissionsEPvmNS1_16MemoryPermissionE")]
extern "C" fn protect(address: usize, bytes: usize, access: c_int) -> bool {
    shared(|shared| shared.forget_holes(address, bytes));
    // SAFETY: see above.
    unsafe { v8_protect(address, bytes, access) }
}

/// `OS::DecommitPages(void*, size_t)`
#[unsafe(export_name = "__wrap__ZN2v84base2OS13DecommitPagesEPvm")]
extern "C" fn decommit(address: usize, bytes: usize) -> bool {
    if shared(|shared| shared.holes.contains(&(address, bytes))) {
        return true;
    }
    // SAFETY: see above.
    let done = unsafe { v8_decommit(address, bytes) };
    if done {
        shared(|shared| shared.add_hole(address, bytes));
    }
    done
}

impl Shared {
    fn add_hole(&mut self, address: usize, bytes: usize) {
        let is_here = address
            .checked_sub(self.address)
            .is_some_and(|at| at < SHARED_BYTES);
        if is_here && self.holes.len() < MOST_HOLES {
            self.holes.push((address, bytes));
        }
    }

    /// V8 sets another access here.
    fn forget_holes(&mut self, address: usize, bytes: usize) {
        self.holes.retain(|(hole, hole_bytes)| {
            hole.saturating_add(*hole_bytes) <= address || address.saturating_add(bytes) <= *hole
        });
    }
}

/// No code panics while it holds this lock, so poison carries no news.
fn shared<R>(look: impl FnOnce(&mut Shared) -> R) -> R {
    look(&mut SHARED.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Whether the kernel did. It counts nothing for what is not touched, unless it never lets memory be overcommitted: V8 reserves with
/// `MAP_NORESERVE`.
fn make_writable(address: usize, bytes: usize) -> bool {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: see above.
    let done = unsafe { libc::mprotect(address as *mut c_void, bytes, access) == 0 };
    if !done {
        REFUSED.store(true, Ordering::Relaxed);
        memory::lies_apart();
    }
    done
}

/// Whether all of the cage can be read and written, but for the part that all isolates share.
pub(super) fn is_cage_accessible() -> bool {
    CAGE_IS_ACCESSIBLE.load(Ordering::Relaxed)
}

/// Has zeros there. Whether the kernel did.
fn discard(address: usize, bytes: usize) -> bool {
    // SAFETY: see above.
    unsafe { libc::madvise(address as *mut c_void, bytes, libc::MADV_DONTNEED) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_is_known_until_its_access_changes() {
        let mut shared = Shared {
            address: 1 << 32,
            holes: Vec::new(),
        };
        let hole = |at: usize| ((1 << 32) + at, 1 << 16);
        let (first, second, beside) = (hole(0), hole(2 << 16), hole(SHARED_BYTES));
        for (address, bytes) in [first, second, beside, (1 << 16, 1 << 16)] {
            shared.add_hole(address, bytes);
        }
        assert_eq!(shared.holes, [first, second]);
        shared.forget_holes(first.0 + first.1, 1 << 16);
        assert_eq!(shared.holes, [first, second], "beside both");
        shared.forget_holes(first.0 + first.1 - 1, 1);
        assert_eq!(shared.holes, [second]);
        shared.forget_holes(0, usize::MAX);
        assert!(shared.holes.is_empty());
        for at in 0..2 * MOST_HOLES {
            shared.add_hole(hole(at << 16).0, 1 << 16);
        }
        assert_eq!(shared.holes.len(), MOST_HOLES);
    }
}
