//! What all instances together use of what the process has: one ledger, as there is one V8 in a process.
//!
//! ```text
//! cage       V8's pointer cage: 4 GiB of addresses that the heaps of all isolates share
//! code       V8's code range: where machine code lies, 512 MiB for all isolates
//! resident   what the process may keep in memory: the pod's limit, or the machine's memory
//! mappings   memory mappings that the kernel allows (`vm.max_map_count`)
//!
//! > tight      of the cage: garbage of idle instances is collected (`limits::garbage`)
//! > easy       the coldest idle instances go (`scheduler::eviction`), the pool shrinks before them
//! > full       no instance starts: it waits for those that go, else 503 with Retry-After
//! > critical   an instance with more than its share that runs and grows is ended, as if past its own limit;
//!              array buffers fail
//! > last       the same, although enough are about to end and only have to give back what they use
//! ```
//!
//! V8, or the kernel, ends the process where one of them is used up. What is left above `critical` is for those that run, between
//! two measurements. Each heap is measured after each of its garbage collections, after each entry, and before a thread that
//! computes for long waits for its turn; a start reserves what it needs before it begins. What is used of the cage is known exactly:
//! V8 asks for each page ([`cage`]). What is resident is read from the kernel now and then; what was measured since is added to it.

use std::fs::File;
use std::io;
use std::ops::{Index, IndexMut};
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::cage::{self, PAGE_BYTES};
use super::machine;

const MIB: usize = 1 << 20;
/// V8's code range: the most that it can have.
pub const CODE_RANGE_BYTES: usize = 512 * MIB;
/// Heap that one instance may get without asking: what each that runs may grow by between two measurements.
const MOST_UNASKED_BYTES: usize = 64 * MIB;
const LEAST_UNASKED_BYTES: usize = 16 * MIB;
/// What those that run may grow by without asking, all of them; where there are many, each gets less.
const RUNNING_BYTES: usize = 448 * MIB;
/// What those that run may take of the cage before they are measured, and end; past that they wait.
const RUNNING_CAGE_BYTES: usize = 32 * MIB;
/// C++ memory of one isolate: 523 KiB measured.
const ISOLATE_BYTES: usize = 550 << 10;
/// Mappings of one isolate: 1.6 to 3.3 measured, as its four tables and those of others are neighbours or not.
const ISOLATE_MAPPINGS: usize = 6;
/// The same where the kernel refuses to make ranges of addresses accessible as a whole: 13.4 measured, without its heap.
const APART_MAPPINGS: usize = 14;
/// Bytes of a heap that take a mapping there: a large object is 128 KiB at least, and a hole behind it.
const APART_BYTES_A_MAPPING: usize = 64 << 10;
/// Bytes outside the heaps that take a mapping.
const OUTSIDE_BYTES_A_MAPPING: usize = 512 << 10;
/// Bytes to which WebAssembly memories may grow that take a mapping: each counts for 1 MiB at least, and takes three.
const WASM_BYTES_A_MAPPING: usize = MIB / 3;
/// Mappings of the program, its threads, the pages of machine code, and what is not counted.
const MAPPINGS_BESIDE: usize = 6000;
/// What the kernel allows unless told otherwise.
const DEFAULT_MAX_MAPPINGS: usize = 65_530;
/// Memory that is left to the agent and the kernel, unless a quarter is less.
const BESIDE_BYTES: usize = 256 * MIB;
/// Time between two looks at what is resident, while something runs.
const SAMPLE: Duration = Duration::from_millis(5);

/// What runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Addresses in V8's cage, in bytes.
    Cage,
    /// Addresses in V8's code range, in bytes.
    Code,
    /// Memory, in bytes.
    Resident,
    /// Memory mappings.
    Mappings,
}

/// An amount of each [`Resource`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage([usize; Resource::ALL.len()]);

/// Where what happens, for one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bound {
    easy: usize,
    full: usize,
    critical: usize,
    last: usize,
}

/// What the process has.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    bounds: [Bound; Resource::ALL.len()],
    unasked_bytes: usize,
    /// See [`cage::tenants_bytes`].
    tenants_bytes: usize,
}

/// What a V8 heap consists of, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeapSize {
    /// Pages of all its spaces, garbage and free room included.
    pub committed: usize,
    /// Of it: machine code, which lies outside the cage.
    pub code: usize,
}

/// Room for one start, until what it uses has been measured.
#[derive(Debug)]
pub struct Reservation(());

/// See [`lies_apart`].
static LIES_APART: AtomicBool = AtomicBool::new(false);
static USED: [AtomicUsize; Resource::ALL.len()] = [const { AtomicUsize::new(0) }; 4];
/// Of it: what those use that were told to end.
static LEAVING: [AtomicUsize; Resource::ALL.len()] = [const { AtomicUsize::new(0) }; 4];
/// Bytes outside the heaps.
static OUTSIDE: AtomicUsize = AtomicUsize::new(0);
/// To which WebAssembly memories may grow.
static WASM: AtomicUsize = AtomicUsize::new(0);
/// What is resident and not counted, at the last look.
static UNCOUNTED: AtomicIsize = AtomicIsize::new(0);
static BUDGETS: AtomicUsize = AtomicUsize::new(0);
static RESERVATIONS: Mutex<usize> = Mutex::new(0);
static CAPACITY: OnceLock<Capacity> = OnceLock::new();
static STATM: OnceLock<File> = OnceLock::new();
static ALARM: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

/// What a start takes at most until it is measured: an isolate, and what a top level makes.
const START: Usage = Usage([2 * MIB, PAGE_BYTES, 2 * MIB + ISOLATE_BYTES, 16]);
/// What no instance is ended for, however little there is for the others.
pub const LEAST_SHARE: Usage = Usage([4 * MIB, 2 * PAGE_BYTES, 8 * MIB, 64]);

impl Resource {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Cage, Self::Code, Self::Resident, Self::Mappings];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cage => "cage_bytes",
            Self::Code => "code_bytes",
            Self::Resident => "resident_bytes",
            Self::Mappings => "mappings",
        }
    }
}

impl Index<Resource> for Usage {
    type Output = usize;
    fn index(&self, resource: Resource) -> &usize {
        &self.0[resource as usize]
    }
}

impl IndexMut<Resource> for Usage {
    fn index_mut(&mut self, resource: Resource) -> &mut usize {
        &mut self.0[resource as usize]
    }
}

impl Usage {
    /// This and that.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        Self(std::array::from_fn(|at| {
            self.0[at].saturating_add(more.0[at])
        }))
    }

    /// This without that.
    #[must_use]
    pub fn minus(self, less: Self) -> Self {
        Self(std::array::from_fn(|at| {
            self.0[at].saturating_sub(less.0[at])
        }))
    }

    fn times(self, factor: usize) -> Self {
        Self(self.0.map(|amount| amount.saturating_mul(factor)))
    }
}

impl HeapSize {
    /// What an isolate with such a heap uses.
    pub(super) fn usage(self) -> Usage {
        Usage([
            self.committed.saturating_sub(self.code),
            self.code,
            ISOLATE_BYTES + self.committed,
            if LIES_APART.load(Ordering::Relaxed) {
                APART_MAPPINGS + self.committed / APART_BYTES_A_MAPPING
            } else {
                ISOLATE_MAPPINGS
            },
        ])
    }
}

impl Capacity {
    /// What this process has. Reads files: to be asked before the process is locked down. `memory_bytes` overrides the limit
    /// that is found, if it is not 0; `runs` is how many threads are inside V8 at once.
    pub fn read(memory_bytes: usize, runs: usize) -> Self {
        let memory_bytes = match memory_bytes {
            0 => machine::memory_limit(|path| std::fs::read_to_string(path).ok()),
            given => given,
        };
        let mappings = std::fs::read_to_string("/proc/sys/vm/max_map_count")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(DEFAULT_MAX_MAPPINGS);
        Self::of(memory_bytes, mappings, runs)
    }

    fn of(memory_bytes: usize, mappings: usize, runs: usize) -> Self {
        let unasked_bytes =
            (RUNNING_BYTES / runs.max(1)).clamp(LEAST_UNASKED_BYTES, MOST_UNASKED_BYTES);
        let beside_bytes = BESIDE_BYTES.min(memory_bytes / 4);
        let memory_bytes = memory_bytes - beside_bytes;
        let mappings = mappings.saturating_sub(MAPPINGS_BESIDE);
        let tenants_bytes = cage::tenants_bytes(runs);
        let cage = tenants_bytes - RUNNING_CAGE_BYTES;
        Self {
            bounds: [
                Bound::below(cage, 48 * MIB, 48 * MIB).slack(RUNNING_CAGE_BYTES / 2),
                Bound::below(CODE_RANGE_BYTES - 64 * MIB, 32 * MIB, 32 * MIB).slack(16 * MIB),
                Bound::below(memory_bytes, memory_bytes / 16, memory_bytes / 16)
                    .slack(beside_bytes / 4),
                Bound::below(mappings, mappings / 64, mappings / 64),
            ],
            unasked_bytes,
            tenants_bytes,
        }
    }
}

impl Bound {
    fn below(critical: usize, full: usize, easy: usize) -> Self {
        let full = critical.saturating_sub(full);
        Self {
            easy: full.saturating_sub(easy),
            full,
            critical,
            last: critical,
        }
    }

    /// Whether so little is used that what nobody has seen yet cannot fill the rest.
    fn is_far(self, used: usize) -> bool {
        used <= self.full / 2
    }

    /// Whether one must end where so much is used, of it `leaving` by those that were told to end.
    fn is_used_up(self, used: usize, leaving: usize) -> bool {
        used.saturating_sub(leaving) > self.critical || used > self.last
    }

    /// With so much for those that grow while others end.
    fn slack(self, amount: usize) -> Self {
        Self {
            last: self.critical.saturating_add(amount),
            ..self
        }
    }
}

/// Says what the process has, once; without it, what a machine without limits has. Opens a file: to be called before the
/// process is locked down, and V8 initialised.
pub fn begin(capacity: Capacity) -> io::Result<()> {
    let statm = File::open("/proc/self/statm")?;
    cage::begin(capacity.tenants_bytes);
    // Set once, by the process' start.
    let _ = (STATM.set(statm), CAPACITY.set(capacity));
    Ok(())
}

fn capacity() -> &'static Capacity {
    CAPACITY.get_or_init(|| Capacity::of(usize::MAX, DEFAULT_MAX_MAPPINGS, 1))
}

fn bound(resource: Resource) -> Bound {
    capacity().bounds[resource as usize]
}

/// The kernel refuses to make V8's ranges of addresses accessible as a whole, so each part that is used is a mapping.
pub fn lies_apart() {
    LIES_APART.store(true, Ordering::Relaxed);
}

/// What all instances use, those of the pool included.
pub fn used() -> Usage {
    let mut used = Usage(std::array::from_fn(|at| USED[at].load(Ordering::Relaxed)));
    used[Resource::Cage] = cage::used();
    let outside = OUTSIDE.load(Ordering::Relaxed);
    let isolates = BUDGETS.load(Ordering::Relaxed) * ISOLATE_BYTES;
    used[Resource::Resident] = used[Resource::Resident]
        .saturating_add_signed(UNCOUNTED.load(Ordering::Relaxed))
        // Memory that was asked for may not have been touched yet.
        .max(isolates)
        .saturating_add(outside);
    used[Resource::Mappings] +=
        outside / OUTSIDE_BYTES_A_MAPPING + wasm_mappings(WASM.load(Ordering::Relaxed));
    used
}

/// Above this the coldest idle instances go.
pub fn easy() -> Usage {
    Usage(capacity().bounds.map(|bound| bound.easy))
}

/// Above this nothing starts.
pub fn full() -> Usage {
    Usage(capacity().bounds.map(|bound| bound.full))
}

/// Whether so much of the cage is used that idle instances are collected, before any must go.
pub fn is_cage_tight() -> bool {
    cage::used() > tight_bytes()
}

fn tight_bytes() -> usize {
    bound(Resource::Cage).easy / 8 * 7
}

/// Whether the cage has no room for a start.
pub fn is_cage_full() -> bool {
    cage::used() > bound(Resource::Cage).full
}

/// Whether who has more than its share of the cage must end.
pub fn is_cage_critical() -> bool {
    cage::used() > bound(Resource::Cage).critical
}

/// Heap that an instance may get without asking.
pub fn unasked_bytes() -> usize {
    capacity().unasked_bytes
}

/// Whether so many instances fit that nobody has asked for yet.
pub fn has_room_for_more(instances: usize) -> bool {
    let after = used().plus(START.times(instances));
    let easy = easy();
    Resource::ALL.iter().all(|it| after[*it] <= easy[*it])
}

/// Bytes of the cage that heaps have too much for others to start beside them, once those are gone that were told to end.
pub fn heaps_lack() -> usize {
    let leaving = LEAVING[Resource::Cage as usize].load(Ordering::Relaxed);
    let used = cage::used().saturating_sub(leaving);
    used.saturating_sub(bound(Resource::Cage).easy)
}

/// Room for one start, if there is some.
pub fn reserve() -> Option<Reservation> {
    // A look takes a start 10 us.
    if !bound(Resource::Resident).is_far(used()[Resource::Resident]) {
        sample();
    }
    let mut reservations = RESERVATIONS.lock().unwrap_or_else(PoisonError::into_inner);
    let after = used().plus(START.times(*reservations + 1));
    let full = full();
    Resource::ALL
        .iter()
        .all(|it| after[*it] <= full[*it])
        .then(|| {
            *reservations += 1;
            Reservation(())
        })
}

/// Room for one start that must happen, whether there is some or not.
pub fn reserve_anyway() -> Reservation {
    *RESERVATIONS.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    Reservation(())
}

impl Drop for Reservation {
    fn drop(&mut self) {
        *RESERVATIONS.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    }
}

/// Whether an instance that uses so much must end for the others' sake.
pub(super) fn is_too_greedy(own: Usage) -> bool {
    let budgets = BUDGETS.load(Ordering::Relaxed).max(1);
    let used = used();
    Resource::ALL.into_iter().any(|it| {
        let bound = bound(it);
        let leaving = LEAVING[it as usize].load(Ordering::Relaxed);
        bound.is_used_up(used[it], leaving)
            && own[it] > (bound.critical / budgets).max(LEAST_SHARE[it])
    })
}

/// An instance that uses so much was told to end.
pub(super) fn leave(resource: Resource, amount: usize) {
    LEAVING[resource as usize].fetch_add(amount, Ordering::Relaxed);
}

/// It is gone.
pub(super) fn left(resource: Resource, amount: usize) {
    LEAVING[resource as usize].fetch_sub(amount, Ordering::Relaxed);
}

/// Takes bytes outside the heaps, unless there is no room.
pub(super) fn take_outside(bytes: usize) -> bool {
    let used = used();
    let fits = used[Resource::Resident].saturating_add(bytes) <= bound(Resource::Resident).critical
        && used[Resource::Mappings] + bytes / OUTSIDE_BYTES_A_MAPPING
            <= bound(Resource::Mappings).critical;
    if fits {
        OUTSIDE.fetch_add(bytes, Ordering::Relaxed);
        if used[Resource::Resident] + bytes > bound(Resource::Resident).easy {
            raise_alarm();
        }
    }
    fits
}

pub(super) fn release_outside(bytes: usize) {
    OUTSIDE.fetch_sub(bytes, Ordering::Relaxed);
}

/// An instance uses another amount now.
pub(super) fn change(resource: Resource, before: usize, after: usize) {
    let total = &USED[resource as usize];
    if after < before {
        total.fetch_sub(before - after, Ordering::Relaxed);
        return;
    }
    let more = after - before;
    let sum = total.fetch_add(more, Ordering::Relaxed) + more;
    // How much of the cage is used is known better.
    if resource != Resource::Cage && crosses(bound(resource).easy, sum - more, sum) {
        raise_alarm();
    }
}

/// More of the cage is used now.
pub(super) fn cage_changed(before: usize, after: usize) {
    if crosses(tight_bytes(), before, after) || crosses(bound(Resource::Cage).easy, before, after) {
        raise_alarm();
    }
}

fn crosses(bound: usize, before: usize, after: usize) -> bool {
    before <= bound && bound < after
}

pub(super) fn change_wasm(before: usize, after: usize) {
    WASM.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
}

pub(super) fn wasm_mappings(bytes: usize) -> usize {
    bytes / WASM_BYTES_A_MAPPING
}

pub(super) fn budgets(change: isize) {
    BUDGETS.fetch_add(change.cast_unsigned(), Ordering::Relaxed);
}

/// Reads what is resident, unless that was done just before.
pub fn sample() {
    static LAST_NS: AtomicU64 = AtomicU64::new(0);
    static START: OnceLock<Instant> = OnceLock::new();
    let now = START.get_or_init(Instant::now).elapsed().as_nanos() as u64;
    let last = LAST_NS.load(Ordering::Relaxed);
    let is_due = last == 0 || now >= last + SAMPLE.as_nanos() as u64;
    let next = now.max(1);
    if !is_due
        || LAST_NS
            .compare_exchange(last, next, Ordering::Relaxed, Ordering::Relaxed)
            .is_err()
    {
        return;
    }
    let Some(resident) = STATM.get().and_then(machine::resident_bytes) else {
        return;
    };
    let counted =
        USED[Resource::Resident as usize].load(Ordering::Relaxed) + OUTSIDE.load(Ordering::Relaxed);
    UNCOUNTED.store(
        resident.cast_signed() - counted.cast_signed(),
        Ordering::Relaxed,
    );
}

/// Ends [`wait_until_tight`].
pub fn raise_alarm() {
    *ALARM.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
    ALARM.1.notify_all();
}

/// Waits until something becomes tight or somebody raises the alarm, or so long.
pub fn wait_until_tight(at_most: Duration) {
    let alarm = ALARM.0.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut alarm, _) = ALARM
        .1
        .wait_timeout_while(alarm, at_most, |alarm| !*alarm)
        .unwrap_or_else(PoisonError::into_inner);
    *alarm = false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_of_4_gib_holds_4000_instances_of_2_pages() {
        let capacity = Capacity::of(4 << 30, DEFAULT_MAX_MAPPINGS, 6);
        let one = HeapSize {
            committed: 2 * PAGE_BYTES,
            ..HeapSize::default()
        };
        // With 64 in the pool. What is resident is measured, and less than what is committed.
        let all = one.usage().times(4064);
        for it in [Resource::Cage, Resource::Code, Resource::Mappings] {
            assert!(all[it] <= capacity.bounds[it as usize].easy, "{it:?}");
        }
        for bound in capacity.bounds {
            assert!(
                bound.easy < bound.full && bound.full < bound.critical,
                "{bound:?}"
            );
        }
    }

    #[test]
    fn no_more_end_than_must_unless_the_last_is_used() {
        let bound = Bound::below(1000, 50, 50).slack(100);
        assert!(!bound.is_used_up(1000, 0));
        assert!(bound.is_used_up(1001, 0));
        assert!(!bound.is_used_up(1050, 50));
        assert!(bound.is_used_up(1051, 50));
        assert!(!bound.is_used_up(1100, 500));
        assert!(bound.is_used_up(1101, 500));
        // A measurement may be behind.
        assert!(!bound.is_used_up(10, 20));
    }

    #[test]
    fn the_kernel_is_asked_where_half_is_used() {
        let bound = Bound::below(1000, 100, 100);
        assert!(bound.is_far(450));
        assert!(!bound.is_far(451));
    }

    #[test]
    fn machine_code_lies_outside_the_cage() {
        let size = HeapSize {
            committed: 100 * MIB,
            code: PAGE_BYTES,
        };
        let usage = size.usage();
        assert_eq!(usage[Resource::Cage], 100 * MIB - PAGE_BYTES);
        assert_eq!(usage[Resource::Code], PAGE_BYTES);
        assert_eq!(usage[Resource::Mappings], ISOLATE_MAPPINGS);
    }
}
