//! A new isolate gets the memory of its heap and of its tables at once, not page by page.
//!
//! The first access to each 4 KB of memory is an exception in which the kernel finds a page for it: 2.4 us in a virtual machine, and
//! 50 of them for the heap that comes out of the startup snapshot, which is the same for each isolate. So the first isolate of a
//! process tells how much of each of its pages (of 256 KiB) it has filled from their begin, and the next ones have the kernel
//! fill as much of theirs with one call for each, and a little more: the start of an instance needs that, while a request waits.
//!
//! Outside the heap V8 fills four tables from end to end: of strings, and of code by its address, 46 exceptions more. So the linker's
//! `--wrap` (build.rs) has V8's calls of the two functions that they come from come here; from any thread that makes no isolate
//! they are passed on. The isolate itself, 17 more, comes from `posix_memalign`, which Rust's library calls, too, also in programs
//! without V8. So a piece of its size is made, gets its memory and is freed just before: V8's allocator gives that one again.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::c_void;
use std::ops::RangeInclusive;
use std::sync::OnceLock;

use super::{ffi_ranges, ffi_stub_caches, ffi_tables};
use crate::limits::cage::PAGE_BYTES;

/// Pages that are looked at: an isolate begins with two to four.
const MOST_PAGES: usize = 16;

thread_local! {
    /// The pages that the isolate which this thread makes has got, in their order.
    static PAGES: RefCell<Option<Vec<usize>>> = const { RefCell::new(None) };
}

/// What the start of a small Function fills of each page: 2 of its 3 exceptions are there.
const START_BYTES: usize = 4 << 10;

/// Sizes of pieces that V8 fills as it makes an isolate, but for its stub caches, which stay empty. Smaller ones it frees meanwhile,
/// so that they are made of memory that was touched before.
const TABLE_BYTES: RangeInclusive<usize> = (32 << 10)..=(128 << 10);

unsafe extern "C" {
    #[link_name = "__real__Znwm"]
    fn operator_new(bytes: usize) -> *mut c_void;

    #[link_name = "__real__ZN2v88internal21AlignedAllocWithRetryEmm"]
    fn v8_new_aligned(bytes: usize, align: usize) -> *mut c_void;
}

/// `sizeof(Isolate)`, in whole pages. More would be memory that nobody uses, less exceptions.
const OBJECT_BYTES: usize = 68 << 10;

/// The size of the pieces of malloc in which V8's objects of isolates lie.
static OBJECT_PIECE: OnceLock<usize> = OnceLock::new();

/// How many bytes of each page the first isolate filled, in the order in which it got them.
static FILLED: OnceLock<Vec<usize>> = OnceLock::new();

/// Makes an isolate.
pub(super) fn making<R>(make: impl FnOnce() -> R) -> R {
    if let Some(bytes) = OBJECT_PIECE.get() {
        free_populated_piece(*bytes);
    }
    PAGES.set(Some(Vec::new()));
    let made = make();
    let pages = PAGES.take().filter(|pages| !pages.is_empty());
    if let Some(pages) = pages
        && ffi_ranges::is_cage_accessible()
    {
        // SAFETY: they are pages of the cage, all of which can be read. Nobody but this thread has written to the heap that they were
        // given to, and V8 has given none of them back: it collects no garbage for as little.
        FILLED.get_or_init(|| pages.into_iter().map(|it| unsafe { filled(it) }).collect());
    }
    made
}

/// Learns how large the objects of isolates are, from the first one.
pub(super) fn learn(isolate: &mut v8::Isolate) {
    OBJECT_PIECE.get_or_init(|| ffi_tables::object_piece_bytes(isolate));
}

/// Frees a piece of malloc whose first part has its memory: the next one of that size.
fn free_populated_piece(bytes: usize) {
    // SAFETY: any size can be asked for, null can be freed, and the first part of a piece lies inside it.
    unsafe {
        let piece = libc::malloc(bytes);
        if !piece.is_null() {
            populate(piece.addr(), bytes.min(OBJECT_BYTES));
        }
        libc::free(piece);
    }
}

/// V8 took a page of the cage, and has written nothing to it.
pub(super) fn took_page(address: usize) {
    // A thread of V8's that ends has none.
    let _ = PAGES.try_with(|pages| {
        let mut pages = pages.borrow_mut();
        let Some(pages) = pages.as_mut().filter(|pages| pages.len() < MOST_PAGES) else {
            return;
        };
        if let Some(filled) = FILLED.get().and_then(|filled| filled.get(pages.len())) {
            let bytes = (filled + START_BYTES).min(PAGE_BYTES);
            // SAFETY: those bytes are V8's, and all pages of the cage can be written where it is known what is filled.
            unsafe { populate(address, bytes) };
        }
        pages.push(address);
    });
}

/// `operator new(size_t)`
#[unsafe(export_name = "__wrap__Znwm")]
extern "C" fn new(bytes: usize) -> *mut c_void {
    // SAFETY: it takes any size, and does not return where it has no memory.
    let piece = unsafe { operator_new(bytes) };
    // SAFETY: the piece is that long, and can be written.
    unsafe { made_piece(piece, bytes) };
    piece
}

/// `AlignedAllocWithRetry(size_t, size_t)`
#[unsafe(export_name = "__wrap__ZN2v88internal21AlignedAllocWithRetryEmm")]
extern "C" fn new_aligned(bytes: usize, align: usize) -> *mut c_void {
    // SAFETY: V8 calls it with a power of two, and it does not return where it has no memory.
    let piece = unsafe { v8_new_aligned(bytes, align) };
    // SAFETY: the piece is that long, and can be written.
    unsafe { made_piece(piece, bytes) };
    piece
}

/// There is a new piece of memory: a table that V8 is about to fill, if it is as large as one and V8 makes an isolate.
///
/// # Safety
///
/// It has that many bytes, which can be written.
#[inline]
unsafe fn made_piece(piece: *mut c_void, bytes: usize) {
    if TABLE_BYTES.contains(&bytes) && bytes != ffi_stub_caches::BYTES && is_making() {
        // SAFETY: the caller's promise.
        unsafe { populate(piece.addr(), bytes) };
    }
}

/// Whether this thread makes an isolate.
fn is_making() -> bool {
    PAGES
        .try_with(|pages| pages.try_borrow().is_ok_and(|it| it.is_some()))
        .unwrap_or(false)
}

/// Has the kernel find memory for all pages that these bytes touch, before it must.
///
/// # Safety
///
/// They can be written.
unsafe fn populate(address: usize, bytes: usize) {
    let begin = address / rustix::param::page_size() * rustix::param::page_size();
    let bytes = address + bytes - begin;
    // SAFETY: pages of which a part can be written can be as a whole, and nothing changes in them. Where the kernel has no memory, or
    // knows no such call, it finds some at the first access, as ever.
    unsafe { libc::madvise(begin as *mut c_void, bytes, libc::MADV_POPULATE_WRITE) };
}

/// Bytes up to the last one of a page that is not zero, in whole pages of the system.
///
/// # Safety
///
/// There are [`PAGE_BYTES`] bytes that can be read, and nobody writes to them meanwhile.
unsafe fn filled(address: usize) -> usize {
    // SAFETY: the caller's promise; pages begin at multiples of their size.
    let words = unsafe { std::slice::from_raw_parts(address as *const u64, PAGE_BYTES / 8) };
    let end = words.iter().rposition(|word| *word != 0);
    let bytes = end.map_or(0, |last| (last + 1) * 8);
    bytes.next_multiple_of(rustix::param::page_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether all pages have their memory that begin in these bytes of a piece.
    fn is_resident(piece: *mut c_void, bytes: usize) -> bool {
        let page_bytes = rustix::param::page_size();
        let begin = piece.addr().next_multiple_of(page_bytes);
        let bytes = piece.addr() + bytes - begin;
        let mut states = vec![0_u8; bytes.div_ceil(page_bytes)];
        // SAFETY: the piece has these pages, and there is a byte for each.
        let code = unsafe { libc::mincore(begin as *mut c_void, bytes, states.as_mut_ptr()) };
        assert_eq!(code, 0);
        states.iter().all(|state| state & 1 == 1)
    }

    #[test]
    fn the_object_of_an_isolate_has_its_memory_before_it_is_written() {
        // Of a size that nothing else here has.
        const BYTES: usize = 700 << 10;
        // SAFETY: it is not used without its memory, and freed once.
        let piece = || unsafe { libc::malloc(BYTES) };
        let others: Vec<_> = (0..16).map(|_| piece()).collect();
        assert!(!others.iter().all(|it| is_resident(*it, OBJECT_BYTES)));
        let made: Vec<_> = (0..16)
            .map(|_| {
                free_populated_piece(BYTES);
                piece()
            })
            .collect();
        assert!(made.iter().all(|it| is_resident(*it, OBJECT_BYTES)));
        for piece in made.into_iter().chain(others) {
            // SAFETY: it is the test's own.
            unsafe { libc::free(piece) };
        }
    }

    #[test]
    fn while_an_isolate_is_made_a_table_has_its_memory_before_it_is_written() {
        let table = || {
            let bytes = *TABLE_BYTES.end();
            let piece = new_aligned(bytes, rustix::param::page_size());
            (piece, is_resident(piece, bytes))
        };
        // None has memory that was another one's.
        let made: Vec<_> = making(|| (0..64).map(|_| table()).collect());
        let others: Vec<_> = (0..64).map(|_| table()).collect();
        assert!(made.iter().all(|(_, is_resident)| *is_resident));
        assert!(others.iter().any(|(_, is_resident)| !is_resident));
        for (piece, _) in made.into_iter().chain(others) {
            // SAFETY: it is the test's own.
            unsafe { libc::free(piece) };
        }
    }

    #[test]
    fn what_is_filled_ends_with_the_last_page_that_is_not_zeros() {
        let page_bytes = rustix::param::page_size();
        let mut page = vec![0_u64; PAGE_BYTES / 8];
        // SAFETY: the test's own.
        let mut filled_with = |at: usize| unsafe {
            page[at / 8] = 1;
            filled(page.as_ptr() as usize)
        };
        assert_eq!(filled_with(0), page_bytes);
        assert_eq!(filled_with(page_bytes), 2 * page_bytes);
        assert_eq!(filled_with(PAGE_BYTES - 8), PAGE_BYTES);
        page.fill(0);
        // SAFETY: as above.
        assert_eq!(unsafe { filled(page.as_ptr() as usize) }, 0);
    }
}
