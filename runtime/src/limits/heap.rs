//! Memory of one instance: V8's heap, array buffers, WebAssembly memory, and bytes that wait to leave.
//!
//! ```text
//! JavaScript heap   V8's own limit; near it, the callback in `isolate::ffi` marks the budget exceeded and terminates
//! array buffers     charged by their allocator: past the limit the allocation fails, a RangeError in JavaScript
//! outgoing bytes    charged by `scheduler::pipe` until the client has taken them
//! the sum of all    measured after every entry and, while JavaScript runs, every few milliseconds
//! ```
//!
//! Once exceeded, a budget stays so: its instance answers what it holds with an error and is thrown away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::memory;

/// Memory that one instance may use.
#[derive(Debug)]
pub struct HeapBudget {
    limit_bytes: AtomicUsize,
    /// Bytes charged outside V8's heap.
    outside_bytes: AtomicUsize,
    /// Size of V8's heap when it was last measured, garbage and free room included.
    heap_bytes: AtomicUsize,
    exceeded: AtomicBool,
}

impl HeapBudget {
    /// A budget of so many bytes.
    pub fn new(limit_bytes: usize) -> Self {
        memory::budgets(1);
        Self {
            limit_bytes: AtomicUsize::new(limit_bytes),
            heap_bytes: AtomicUsize::new(0),
            outside_bytes: AtomicUsize::new(0),
            exceeded: AtomicBool::new(false),
        }
    }

    /// The limit, in bytes.
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes.load(Ordering::Relaxed)
    }

    /// Sets the limit of an instance that is about to run its first code.
    pub fn limit_to(&self, limit_bytes: usize) {
        self.limit_bytes.store(limit_bytes, Ordering::Relaxed);
    }

    /// Takes bytes outside V8's heap, or nothing if they do not fit.
    #[must_use]
    pub fn try_charge(&self, bytes: usize) -> bool {
        if !memory::has_room(bytes) {
            return false;
        }
        let fits = self
            .outside_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |charged| {
                charged
                    .checked_add(bytes)
                    .filter(|sum| *sum <= self.limit_bytes())
            })
            .is_ok();
        if fits {
            memory::add(bytes);
        }
        fits
    }

    /// Gives back bytes that were charged.
    pub fn release(&self, bytes: usize) {
        self.outside_bytes.fetch_sub(bytes, Ordering::Relaxed);
        memory::remove(bytes);
    }

    /// Notes the size of V8's heap.
    pub fn note_heap(&self, bytes: usize) {
        let before = self.heap_bytes.swap(bytes, Ordering::Relaxed);
        if bytes >= before {
            memory::add(bytes - before);
        } else {
            memory::remove(before - bytes);
        }
    }

    /// What the instance uses, in bytes: V8's heap as last measured, and what is charged outside it.
    pub fn bytes(&self) -> usize {
        self.heap_bytes.load(Ordering::Relaxed) + self.outside_bytes.load(Ordering::Relaxed)
    }

    /// Whether the instance must end because all instances together use too much and it uses more than its share.
    pub fn is_too_greedy(&self) -> bool {
        memory::is_too_greedy(self.bytes())
    }

    /// Marks the instance as past its limit.
    pub fn exceed(&self) {
        self.exceeded.store(true, Ordering::Release);
    }

    /// Whether the instance went past its limit.
    pub fn is_exceeded(&self) -> bool {
        self.exceeded.load(Ordering::Acquire)
    }
}

impl Drop for HeapBudget {
    fn drop(&mut self) {
        self.note_heap(0);
        memory::remove(*self.outside_bytes.get_mut());
        memory::budgets(-1);
    }
}

/// Bytes outside V8's heap, given back when dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<HeapBudget>,
    bytes: usize,
}

impl Charge {
    /// Takes the bytes, unless they do not fit.
    pub fn take(budget: &Arc<HeapBudget>, bytes: usize) -> Option<Self> {
        budget.try_charge(bytes).then(|| Self {
            budget: Arc::clone(budget),
            bytes,
        })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_that_does_not_fit_takes_nothing() {
        let budget = HeapBudget::new(100);
        assert!(budget.try_charge(60));
        assert!(!budget.try_charge(41));
        assert!(!budget.try_charge(usize::MAX));
        assert!(budget.try_charge(40));
        budget.release(100);
        assert!(budget.try_charge(100));
        assert!(!budget.is_exceeded());
    }
}
