//! Rust's memory, of two allocators: small pieces from mimalloc, larger ones from `malloc`, which is V8's PartitionAlloc here.
//!
//! mimalloc is the faster one (`malloc` took 0.8 of the 3.8 us of user time of a hello), but keeps pages for each size and
//! thread: 64 KiB each for small pieces, 512 KiB and 4 MiB for larger ones. A worker has fifty threads where many Functions
//! compute, and what is freed on another thread stays until its own looks again: of 300 MB in a soak 70 were in use, and two
//! thirds of them were for pieces of more than 8 KiB. PartitionAlloc's pages are for all threads.
//!
//! Unsafe code: the allocator's trait.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};

use mimalloc::MiMalloc;

/// The largest piece that is mimalloc's, in bytes: what a request needs for each of its steps, of which hyper's buffer of 8 KiB
/// for what it reads is the largest. Up to there mimalloc's pages are the small ones.
const SMALL_BYTES: usize = 8192;

/// Rust's allocator.
#[derive(Debug)]
pub struct Allocator;

/// Whether a piece is mimalloc's. Who frees it or changes its size says the size that it has, so the answer stays the same.
fn is_small(layout: Layout) -> bool {
    layout.size() <= SMALL_BYTES
}

// SAFETY: each piece comes from one of two allocators that fulfil the trait's contract, and goes back to the same one, because
// its layout decides and the caller passes that one again. A piece that changes its allocator is copied as the trait's own
// `realloc` does it.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the callee's.
        unsafe {
            if is_small(layout) {
                MiMalloc.alloc(layout)
            } else {
                System.alloc(layout)
            }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the callee's.
        unsafe {
            if is_small(layout) {
                MiMalloc.alloc_zeroed(layout)
            } else {
                System.alloc_zeroed(layout)
            }
        }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the callee's, which allocated this piece.
        unsafe {
            if is_small(layout) {
                MiMalloc.dealloc(piece, layout);
            } else {
                System.dealloc(piece, layout);
            }
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: the caller promises that `bytes`, rounded up to the alignment, fits an `isize`.
        let wanted = unsafe { Layout::from_size_align_unchecked(bytes, layout.align()) };
        // SAFETY: the caller's contract is the callee's, which allocated this piece. The copied pieces are both that long and
        // not the same, and the old one is freed once, with the layout it has.
        unsafe {
            match (is_small(layout), is_small(wanted)) {
                (true, true) => MiMalloc.realloc(piece, layout, bytes),
                (false, false) => System.realloc(piece, layout, bytes),
                _ => {
                    let moved = self.alloc(wanted);
                    if !moved.is_null() {
                        moved.copy_from_nonoverlapping(piece, layout.size().min(bytes));
                        self.dealloc(piece, layout);
                    }
                    moved
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes on both sides of the border, and on it.
    const SIZES: [usize; 5] = [1, SMALL_BYTES, SMALL_BYTES + 1, 3 * SMALL_BYTES, 1 << 20];

    #[test]
    fn a_piece_keeps_what_is_in_it_whatever_size_and_alignment_it_gets() {
        for align in [1, 16, 64, 4096] {
            for (from, to) in SIZES.iter().flat_map(|from| SIZES.map(|to| (*from, to))) {
                let layout = Layout::from_size_align(from, align).unwrap();
                // SAFETY: no size is zero; each piece is written and read within its size, and freed with its last layout.
                unsafe {
                    let piece = Allocator.alloc(layout);
                    for at in 0..from {
                        piece.add(at).write(at as u8);
                    }
                    let piece = Allocator.realloc(piece, layout, to);
                    assert!(
                        piece.addr().is_multiple_of(align),
                        "{from} to {to}, {align}"
                    );
                    assert!((0..from.min(to)).all(|at| piece.add(at).read() == at as u8));
                    Allocator.dealloc(piece, Layout::from_size_align(to, align).unwrap());
                }
            }
        }
    }

    #[test]
    fn zeroed_pieces_are_zero_also_where_another_was_before() {
        for size in SIZES {
            let layout = Layout::from_size_align(size, 8).unwrap();
            for _ in 0..3 {
                // SAFETY: no size is zero; the piece is read and written within its size, and freed with its layout.
                unsafe {
                    let piece = Allocator.alloc_zeroed(layout);
                    assert!((0..size).all(|at| piece.add(at).read() == 0));
                    piece.write_bytes(0xff, size);
                    Allocator.dealloc(piece, layout);
                }
            }
        }
    }
}
