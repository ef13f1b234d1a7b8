//! V8 asks us where in its cage a page may lie, and tenants' code waits there where there is no room.
//!
//! The linker's `--wrap` (build.rs) has V8's calls of three sets of its functions come here:
//!
//! - `RegionAllocator`, which gives out the addresses of the cage (and of the code range, which is left alone). The reserve of
//!   `limits::cage` is left out of its bookkeeping when the cage is made, and managed there.
//! - `MemoryAllocator::AllocatePage` and `AllocateLargePage`, by which a heap gets a page. V8 gives up where they give none, so
//!   here is the place to wait.
//! - `MemoryAllocator::MemoryAllocator`, which gets no pool. V8 would keep free pages for eight seconds, or until another isolate takes
//!   them, with what was in them; and they would be in nobody's heap size. Its flag `--no-memory-pool` does nothing without its sandbox
//!   (`init/isolate-group.cc`).
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{ffi, ffi_prefault};
use crate::limits::cage::{self, CAGE_BYTES, PAGE_BYTES, Taker};
use crate::limits::{cpu, garbage, growth};

/// `RegionAllocator::kAllocationFailure`
const FAILURE: usize = usize::MAX;
/// `RegionState::kExcluded` and `kAllocated`.
const EXCLUDED: c_int = 1;
const ALLOCATED: c_int = 2;
/// `Executability::EXECUTABLE`
const EXECUTABLE: c_int = 1;

/// The region allocator of the cage, by its address.
static CAGE: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" {
    #[link_name = "__real__ZN2v84base15RegionAllocatorC1Emmm"]
    fn v8_new(this: *mut c_void, address: usize, bytes: usize, page_bytes: usize);

    #[link_name = "__real__ZN2v84base15RegionAllocator14AllocateRegionEmNS1_18AllocationStrategyE"]
    fn v8_allocate(this: *mut c_void, bytes: usize, strategy: c_int) -> usize;

    #[link_name = "__real__ZN2v84base15RegionAllocator16AllocateRegionAtEmmNS1_11RegionStateE"]
    fn v8_allocate_at(this: *mut c_void, address: usize, bytes: usize, state: c_int) -> bool;

    #[link_name = "__real__ZN2v84base15RegionAllocator10TrimRegionEmm"]
    fn v8_trim(this: *mut c_void, address: usize, bytes: usize) -> usize;

    #[link_name = "__real__ZN2v84base15RegionAllocator13TryGrowRegionEmm"]
    fn v8_grow(this: *mut c_void, address: usize, bytes: usize) -> bool;

    #[link_name = "_ZN2v84base15RegionAllocator11CheckRegionEm"]
    fn v8_bytes_at(this: *mut c_void, address: usize) -> usize;

    #[link_name = "__real__ZN2v88internal15MemoryAllocatorC1EPNS0_7IsolateEPNS_13PageAllocatorES5_PNS0_10MemoryPoolEm"]
    fn v8_new_allocator(
        this: *mut c_void,
        isolate: *mut c_void,
        code: *mut c_void,
        trusted: *mut c_void,
        pool: *mut c_void,
        bytes: usize,
    );

    #[link_name = "__real__ZN2v88internal15MemoryAllocator12AllocatePageENS1_14AllocationModeEPNS0_5SpaceENS0_13ExecutabilityE"]
    fn v8_page(
        this: *mut c_void,
        mode: c_int,
        space: *mut c_void,
        executable: c_int,
    ) -> *mut c_void;

    #[link_name = "__real__ZN2v88internal15MemoryAllocator17AllocateLargePageEPNS0_16LargeObjectSpaceEmNS0_13ExecutabilityENS0_14AllocationHintE"]
    fn v8_large_page(
        this: *mut c_void,
        space: *mut c_void,
        bytes: usize,
        executable: c_int,
        may_grow: bool,
    ) -> *mut c_void;
}

// Proof, for all that is unsafe below. V8 is exactly version 15.2 (Cargo.toml: `=152.2.0`), in which these are ordinary methods of
// other object files than their callers. Their arguments are pointers, integers, enums of an int and a class of one bool that C++
// copies as such (`AllocationHint`), so both x86-64's and arm64's C++ pass them as C does, `this` first. What the linker cannot
// find is an error of the build. V8's own functions are called with V8's own arguments, and:
//
// - Regions: V8 holds the lock of its cage meanwhile, as it does for its own, so nothing here calls V8 but these functions, which
//   take no lock, and no lock of ours that is taken here is held while V8 is called or waited for. V8 looks at a region again only by
//   its address, in `TrimRegion` and `TryGrowRegion`, and by what those return (`base/bounded-page-allocator.cc`). For the reserve, whose addresses are the cage's and multiples of a page, `limits::cage`
//   returns the same. V8 never sees it as free, as it excludes it itself.
// - The pool: with none, as with that flag and the sandbox, it frees pages at once (`heap/memory-allocator.cc`).
// - Pages: both may give no page, and then have changed nothing. V8 calls them on the isolate's own thread or on helpers of its
//   own; `cpu::may_wait` is true only on the first, inside an entry of a tenant's and outside a collection. That thread may wait
//   here for the same reasons as in `ffi_interrupt::callback`. What it holds is its isolate's alone (the isolate, and the lock by
//   which its own helpers would extend its heap).
//
// Nothing here panics.

/// Whether this is the cage's.
fn is_cage(this: *mut c_void) -> bool {
    CAGE.load(Ordering::Acquire) == this.addr()
}

/// `RegionAllocator::RegionAllocator(Address, size_t, size_t)`
#[unsafe(export_name = "__wrap__ZN2v84base15RegionAllocatorC1Emmm")]
extern "C" fn new(this: *mut c_void, address: usize, bytes: usize, page_bytes: usize) {
    // SAFETY: see above.
    unsafe {
        v8_new(this, address, bytes, page_bytes);
        if bytes == CAGE_BYTES && page_bytes == PAGE_BYTES {
            let reserve = cage::made(address);
            v8_allocate_at(this, reserve, cage::RESERVE_BYTES, EXCLUDED);
            CAGE.store(this.addr(), Ordering::Release);
        }
    }
}

/// `RegionAllocator::AllocateRegion(size_t, AllocationStrategy)`
#[unsafe(export_name = "__wrap__ZN2v84base15RegionAllocator14AllocateRegionEmNS1_18AllocationStrategyE")]
extern "C" fn allocate(this: *mut c_void, bytes: usize, strategy: c_int) -> usize {
    // SAFETY: see above.
    let common = || unsafe { v8_allocate(this, bytes, strategy) };
    if !is_cage(this) {
        return common();
    }
    let address =
        cage::allocate(bytes, || Some(common()).filter(|it| *it != FAILURE)).unwrap_or(FAILURE);
    if bytes == PAGE_BYTES && address != FAILURE {
        ffi_prefault::took_page(address);
    }
    address
}

/// `RegionAllocator::AllocateRegionAt(Address, size_t, RegionState)`
#[unsafe(export_name = "__wrap__ZN2v84base15RegionAllocator16AllocateRegionAtEmmNS1_11RegionStateE")]
extern "C" fn allocate_at(this: *mut c_void, address: usize, bytes: usize, state: c_int) -> bool {
    // SAFETY: see above.
    let done = unsafe { v8_allocate_at(this, address, bytes, state) };
    if done && state == ALLOCATED && is_cage(this) {
        cage::taken(bytes);
    }
    done
}

/// `RegionAllocator::TrimRegion(Address, size_t)`
#[unsafe(export_name = "__wrap__ZN2v84base15RegionAllocator10TrimRegionEmm")]
extern "C" fn trim(this: *mut c_void, address: usize, bytes: usize) -> usize {
    // SAFETY: see above.
    let common = || unsafe { v8_trim(this, address, bytes) };
    if is_cage(this) {
        cage::trim(address, bytes, common)
    } else {
        common()
    }
}

/// `RegionAllocator::TryGrowRegion(Address, size_t)`
#[unsafe(export_name = "__wrap__ZN2v84base15RegionAllocator13TryGrowRegionEmm")]
extern "C" fn grow(this: *mut c_void, address: usize, bytes: usize) -> bool {
    // SAFETY: see above.
    let common = || unsafe { v8_grow(this, address, bytes) };
    if is_cage(this) {
        // SAFETY: see above; it only looks.
        let more = bytes.saturating_sub(unsafe { v8_bytes_at(this, address) });
        cage::grow(address, more, common)
    } else {
        common()
    }
}

/// `MemoryAllocator::MemoryAllocator(Isolate*, PageAllocator*, PageAllocator*, MemoryPool*, size_t)`
#[unsafe(export_name = "__wrap__ZN2v88internal15MemoryAllocatorC1EPNS0_7IsolateEPNS_13PageAllocatorES5_PNS0_10MemoryPoolEm")]
extern "C" fn new_allocator(
    this: *mut c_void,
    isolate: *mut c_void,
    code: *mut c_void,
    trusted: *mut c_void,
    _pool: *mut c_void,
    bytes: usize,
) {
    // SAFETY: see above.
    unsafe { v8_new_allocator(this, isolate, code, trusted, null_mut(), bytes) }
}

/// `MemoryAllocator::AllocatePage(AllocationMode, Space*, Executability)`
#[unsafe(export_name = "__wrap__ZN2v88internal15MemoryAllocator12AllocatePageENS1_14AllocationModeEPNS0_5SpaceENS0_13ExecutabilityE")]
extern "C" fn page(
    this: *mut c_void,
    mode: c_int,
    space: *mut c_void,
    executable: c_int,
) -> *mut c_void {
    // SAFETY: see above.
    with_room(PAGE_BYTES, executable, || unsafe {
        v8_page(this, mode, space, executable)
    })
}

/// `MemoryAllocator::AllocateLargePage(LargeObjectSpace*, size_t, Executability, AllocationHint)`
#[unsafe(export_name = "__wrap__ZN2v88internal15MemoryAllocator17AllocateLargePageEPNS0_16LargeObjectSpaceEmNS0_13ExecutabilityENS0_14AllocationHintE")]
extern "C" fn large_page(
    this: *mut c_void,
    space: *mut c_void,
    bytes: usize,
    executable: c_int,
    may_grow: bool,
) -> *mut c_void {
    // SAFETY: see above.
    with_room(bytes, executable, || unsafe {
        v8_large_page(this, space, bytes, executable, may_grow)
    })
}

/// A page that V8 makes by `take`, for which tenants' code waits if it must.
fn with_room(bytes: usize, executable: c_int, take: impl Fn() -> *mut c_void) -> *mut c_void {
    // Machine code lies elsewhere.
    if executable == EXECUTABLE || !cpu::may_wait() {
        return take();
    }
    garbage::wait();
    let take_for = |taker| Some(cage::taking(taker, &take)).filter(|page| !page.is_null());
    let page = take_for(Taker::Tenant)
        .or_else(|| {
            if !growth::is_crowded() {
                return None;
            }
            ffi::give_way();
            take_for(Taker::GivesWay)
        })
        .or_else(|| {
            if !ffi::ask_to_grow() {
                return None;
            }
            // Others may have gone while it waited.
            take_for(Taker::Tenant).or_else(|| {
                cpu::without_seat(|| {
                    growth::find_room(
                        bytes,
                        || take_for(Taker::Tenant),
                        || take_for(Taker::Reserve),
                    )
                })
            })
        });
    page.unwrap_or(null_mut())
}
