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

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::growth::Permit;
use super::memory::{self, HeapSize, Resource, Usage};

/// Why an instance must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// It uses more than its own limit.
    Limit,
    /// All instances together use too much, and it more than its share.
    Share,
}

/// Memory that one instance may use.
#[derive(Debug)]
pub struct HeapBudget {
    limit_bytes: AtomicUsize,
    /// Bytes charged outside V8's heap.
    outside_bytes: AtomicUsize,
    /// Size of V8's heap when it was last measured, garbage and free room included.
    heap_bytes: AtomicUsize,
    /// Of V8's heap and what hangs on it: what lives, when it was last measured.
    live_bytes: AtomicUsize,
    /// To which WebAssembly memories may grow; they are counted where they are touched.
    wasm_bytes: AtomicUsize,
    /// Texts outside the heap that all instances share; V8 counts them as this one's.
    shared_bytes: AtomicUsize,
    /// To which V8's heap may grow without asking again; 0: as far as any may.
    granted_bytes: AtomicUsize,
    /// It may grow by more than that just now.
    growth: Mutex<Option<Permit>>,
    is_growing: AtomicBool,
    /// What the process' ledger holds for V8's heap.
    noted: [AtomicUsize; Resource::ALL.len()],
    /// Set once it must end.
    exceeded: OnceLock<Excess>,
    /// What the process' ledger holds as about to be given back: from then on until the isolate is gone.
    leaving: [AtomicUsize; Resource::ALL.len()],
}

impl HeapBudget {
    /// A budget of so many bytes.
    pub fn new(limit_bytes: usize) -> Self {
        memory::budgets(1);
        Self {
            limit_bytes: AtomicUsize::new(limit_bytes),
            heap_bytes: AtomicUsize::new(0),
            outside_bytes: AtomicUsize::new(0),
            live_bytes: AtomicUsize::new(0),
            wasm_bytes: AtomicUsize::new(0),
            shared_bytes: AtomicUsize::new(0),
            granted_bytes: AtomicUsize::new(0),
            growth: Mutex::new(None),
            is_growing: AtomicBool::new(false),
            noted: Default::default(),
            exceeded: OnceLock::new(),
            leaving: Default::default(),
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

    /// Leaves out more texts that all instances share.
    pub fn share(&self, bytes: usize) {
        self.shared_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes bytes outside V8's heap, or nothing if they do not fit.
    #[must_use]
    pub fn try_charge(&self, bytes: usize) -> bool {
        let fits = self
            .outside_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |charged| {
                charged
                    .checked_add(bytes)
                    .filter(|sum| *sum <= self.limit_bytes())
            })
            .is_ok();
        if !fits {
            return false;
        }
        if !memory::take_outside(bytes) {
            self.outside_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// Gives back bytes that were charged.
    pub fn release(&self, bytes: usize) {
        self.outside_bytes.fetch_sub(bytes, Ordering::Relaxed);
        memory::release_outside(bytes);
    }

    /// Notes to how many bytes WebAssembly memories may grow.
    pub fn note_wasm(&self, bytes: u64) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX / 2);
        let before = self.wasm_bytes.swap(bytes, Ordering::Relaxed);
        memory::change_wasm(before, bytes);
    }

    /// Notes the size of V8's heap; of it and of what hangs on it, `live_bytes` are in use.
    pub fn note_heap(&self, size: HeapSize, live_bytes: usize) {
        self.heap_bytes.store(size.committed, Ordering::Relaxed);
        let shared = self.shared_bytes.load(Ordering::Relaxed);
        let live_bytes = live_bytes.saturating_sub(shared);
        self.live_bytes.store(live_bytes, Ordering::Relaxed);
        self.note(size.usage());
    }

    /// The isolate is gone.
    pub fn note_end(&self) {
        self.grown();
        self.note_wasm(0);
        self.heap_bytes.store(0, Ordering::Relaxed);
        self.note(Usage::default());
        for resource in Resource::ALL {
            let leaving = self.leaving[resource as usize].swap(0, Ordering::Relaxed);
            memory::left(resource, leaving);
        }
    }

    /// Whether its isolate is gone. Others may hold the budget for longer, such as bytes that a slow client has not taken.
    pub fn is_gone(&self) -> bool {
        self.noted() == Usage::default()
    }

    fn note(&self, usage: Usage) {
        for resource in Resource::ALL {
            let noted = &self.noted[resource as usize];
            if noted.load(Ordering::Relaxed) != usage[resource] {
                let before = noted.swap(usage[resource], Ordering::Relaxed);
                memory::change(resource, before, usage[resource]);
            }
        }
    }

    /// Lets V8's heap grow by a lot, until [`HeapBudget::grown`].
    pub fn grow(&self, ask: impl FnOnce() -> Permit) {
        if !self.is_growing() {
            let permit = ask();
            *self.growth() = Some(permit);
            self.is_growing.store(true, Ordering::Relaxed);
        }
    }

    /// Whether [`HeapBudget::grow`] is under way.
    pub fn is_growing(&self) -> bool {
        self.is_growing.load(Ordering::Relaxed)
    }

    /// Ends [`HeapBudget::grow`].
    pub fn grown(&self) {
        *self.growth() = None;
        self.is_growing.store(false, Ordering::Relaxed);
    }

    fn growth(&self) -> std::sync::MutexGuard<'_, Option<Permit>> {
        self.growth.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// V8's heap may grow to so many bytes without asking again; 0: as far as any may.
    pub fn grant(&self, bytes: usize) {
        self.granted_bytes.store(bytes, Ordering::Relaxed);
    }

    /// To how many bytes V8's heap may grow without asking again; 0: as far as any may.
    pub fn granted_bytes(&self) -> usize {
        self.granted_bytes.load(Ordering::Relaxed)
    }

    /// What lives of V8's heap and hangs on it, in bytes, as last measured.
    pub fn live_bytes(&self) -> usize {
        self.live_bytes.load(Ordering::Relaxed)
    }

    /// What the instance uses, in bytes: V8's heap as last measured, and what is charged outside it.
    pub fn bytes(&self) -> usize {
        self.heap_bytes.load(Ordering::Relaxed) + self.outside_bytes.load(Ordering::Relaxed)
    }

    /// What the process' ledger holds for V8's heap.
    fn noted(&self) -> Usage {
        let mut usage = Usage::default();
        for resource in Resource::ALL {
            usage[resource] = self.noted[resource as usize].load(Ordering::Relaxed);
        }
        usage
    }

    /// What the instance uses of what the process has.
    pub fn usage(&self) -> Usage {
        let mut usage = self.noted();
        usage[Resource::Resident] += self.outside_bytes.load(Ordering::Relaxed);
        usage[Resource::Mappings] += memory::wasm_mappings(self.wasm_bytes.load(Ordering::Relaxed));
        usage
    }

    /// Whether the instance must end, by what was last noted.
    pub fn excess(&self) -> Option<Excess> {
        if self.live_bytes() > self.limit_bytes() {
            return Some(Excess::Limit);
        }
        let mut usage = self.usage();
        let wasm = self.wasm_bytes.load(Ordering::Relaxed);
        usage[Resource::Resident] += wasm;
        memory::is_too_greedy(usage).then_some(Excess::Share)
    }

    /// Marks the instance as one that must end.
    pub fn exceed(&self, excess: Excess) {
        self.exceeded.get_or_init(|| {
            let noted = self.noted();
            for resource in Resource::ALL {
                self.leaving[resource as usize].store(noted[resource], Ordering::Relaxed);
                memory::leave(resource, noted[resource]);
            }
            excess
        });
    }

    /// Why the instance was marked as one that must end.
    pub fn exceeded(&self) -> Option<Excess> {
        self.exceeded.get().copied()
    }

    /// Whether the instance was marked as one that must end.
    pub fn is_exceeded(&self) -> bool {
        self.exceeded().is_some()
    }
}

impl Drop for HeapBudget {
    fn drop(&mut self) {
        self.note_end();
        memory::release_outside(*self.outside_bytes.get_mut());
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

    #[test]
    fn what_all_instances_share_does_not_count_for_each() {
        let budget = HeapBudget::new(1000);
        budget.share(300);
        budget.note_heap(HeapSize::default(), 1300);
        assert_eq!(budget.excess(), None);
        budget.note_heap(HeapSize::default(), 1301);
        assert_eq!(budget.excess(), Some(Excess::Limit));
        assert_eq!(budget.live_bytes(), 1001);
    }
}
