//! How long the kernel lets a thread run before others: its slice (EEVDF, Linux 6.12 and later).
//!
//! A thread with a short slice that wakes up takes the core at once from one with a longer slice. Threads that serve have a
//! short one; one that computes for long goes on with a long one, so that an answer does not wait for the timer's tick. One
//! between them is for starts, and for instances that go as they used too much: they give way to those that serve, and need
//! not wait for those that compute.
//!
//! Unsafe code: one system call that the C library has no function for.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::time::Duration;

/// Slice of the thread that looks after the others: the least that the kernel takes. Only who would be chosen before all others takes the
/// core when it wakes up, so it is shorter than that of a thread that may wait for the core already.
pub const WATCHING: Duration = Duration::from_micros(100);
/// Slice of a thread that serves: longer than most requests take, after which one that computes would get the core.
pub const SERVING: Duration = Duration::from_millis(1);
/// Slice of a thread that makes an instance, or takes down one that used too much.
pub const STARTING: Duration = Duration::from_millis(5);
/// Slice of a thread that computes for long: the most that the kernel takes.
pub const COMPUTING: Duration = Duration::from_millis(100);

/// `struct sched_attr` in its first version, sched_setattr(2).
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Sets the slice of this thread; threads that it makes later have the same. Older kernels ignore it, and a kernel or a
/// container that refuses it leaves it as it was: only latencies are longer then. One that stands back keeps its own.
pub fn set_slice(slice: Duration) {
    if IS_BACK.get() {
        return;
    }
    // SAFETY: asks for the priority of this thread; no memory is passed.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    set(slice, nice);
}

/// Does something with another slice on a thread that else has that of those that serve.
pub fn with_slice<R>(slice: Duration, act: impl FnOnce() -> R) -> R {
    set_slice(slice);
    let result = act();
    set_slice(SERVING);
    result
}

/// Priority ("nice") of a thread that nobody waits for.
const STANDS_BACK: i32 = 10;

thread_local! {
    /// Whether this thread stands back.
    static IS_BACK: Cell<bool> = const { Cell::new(false) };
}

/// Has this thread stand back, for the rest of its life: those that serve take the core from it at once, and beside them it gets
/// little.
pub fn stand_back() {
    IS_BACK.set(true);
    if !set(STARTING, STANDS_BACK) {
        tracing::warn!("failed to lower the priority of a thread: requests may wait for it");
    }
}

/// Whether the kernel agreed.
fn set(slice: Duration, nice: i32) -> bool {
    let attributes = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy: libc::SCHED_OTHER as u32,
        flags: 0,
        nice,
        priority: 0,
        runtime: slice.as_nanos() as u64,
        deadline: 0,
        period: 0,
    };
    let attributes: *const SchedAttr = &attributes;
    // SAFETY: 0 is this thread; the kernel reads `size` bytes of the structure, which lives for the call, and keeps nothing.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, attributes, 0) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Priority, nice and policy of this thread: fields 18, 19 and 41 of proc(5)'s stat.
    fn schedule() -> [i64; 3] {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = fields.split_whitespace().collect();
        [18, 19, 41].map(|field| fields[field - 3].parse().unwrap())
    }

    #[test]
    fn the_policy_and_the_priority_stay() {
        let mine = schedule();
        let told = std::thread::spawn(|| {
            set_slice(COMPUTING);
            set_slice(SERVING);
            schedule()
        });
        assert_eq!(told.join().unwrap(), mine);
    }

    /// The slice of this thread in nanoseconds; older kernels say nothing.
    fn slice() -> u64 {
        let size = size_of::<SchedAttr>();
        let mut told = std::mem::MaybeUninit::<SchedAttr>::zeroed();
        // SAFETY: 0 is this thread; the kernel writes `size` bytes at most, which `told` has; every value is a `SchedAttr`.
        unsafe {
            libc::syscall(libc::SYS_sched_getattr, 0, told.as_mut_ptr(), size, 0);
            told.assume_init().runtime
        }
    }

    #[test]
    fn a_thread_that_stands_back_keeps_its_priority_and_its_slice() {
        let told = std::thread::spawn(|| {
            stand_back();
            let before = (schedule(), slice());
            with_slice(COMPUTING, || ());
            set_slice(SERVING);
            (before, (schedule(), slice()))
        });
        let (before, after) = told.join().unwrap();
        assert_eq!(before.0[1], i64::from(STANDS_BACK));
        assert_eq!(after, before);
        assert_eq!(schedule()[1], 0);
    }

    #[test]
    fn a_slice_lasts_as_long_as_what_it_is_for() {
        let told = std::thread::spawn(|| {
            set_slice(SERVING);
            let before = slice();
            let within = with_slice(COMPUTING, slice);
            (before, within, slice())
        });
        let (before, within, after) = told.join().unwrap();
        assert_eq!(after, before);
        assert_eq!(within == before, before == 0, "{before} then {within}");
    }
}
