//! A new isolate gets the memory of its heap at once, not page by page.
//!
//! The first access to each 4 KB of memory is an exception in which the kernel finds a page for it: 2.4 us in a virtual machine, and
//! 50 of them for the heap that comes out of the startup snapshot, which is the same for each isolate. So the first isolate of a
//! process tells how much of each of its pages (of 256 KiB) it has filled from their begin, and the next ones have the kernel
//! fill as much of theirs with one call for each, and a little more: the start of an instance needs that, while a request waits.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::OnceLock;

use super::ffi_ranges;
use crate::limits::cage::PAGE_BYTES;

/// Pages that are looked at: an isolate begins with two to four.
const MOST_PAGES: usize = 16;

thread_local! {
    /// The pages that the isolate which this thread makes has got, in their order.
    static PAGES: RefCell<Option<Vec<usize>>> = const { RefCell::new(None) };
}

/// What the start of a small Function fills of each page: 2 of its 3 exceptions are there.
const START_BYTES: usize = 4 << 10;

/// How many bytes of each page the first isolate filled, in the order in which it got them.
static FILLED: OnceLock<Vec<usize>> = OnceLock::new();

/// Makes an isolate.
pub(super) fn making<R>(make: impl FnOnce() -> R) -> R {
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

/// V8 took a page of the cage.
pub(super) fn took_page(address: usize) {
    // A thread of V8's that ends has none.
    let _ = PAGES.try_with(|pages| {
        if let Some(pages) = pages.borrow_mut().as_mut()
            && pages.len() < MOST_PAGES
        {
            pages.push(address);
        }
    });
}

/// V8 has made a page of a heap of what it took last, and the page has nothing in it.
pub(super) fn made_page() {
    let _ = PAGES.try_with(|pages| {
        let pages = pages.borrow();
        let Some((address, before)) = pages.as_ref().and_then(|pages| pages.split_last()) else {
            return;
        };
        let filled = FILLED.get().and_then(|filled| filled.get(before.len()));
        if let Some(filled) = filled {
            let bytes = (filled + START_BYTES).min(PAGE_BYTES);
            // SAFETY: those bytes are V8's, and nothing changes in them: the kernel finds memory for them before it must. Where
            // it cannot, or knows no such call, it does so at the first access, as ever.
            unsafe { libc::madvise(*address as *mut c_void, bytes, libc::MADV_POPULATE_WRITE) };
        }
    });
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
