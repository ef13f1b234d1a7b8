//! How long the kernel lets a thread run before others: its slice (EEVDF, Linux 6.12 and later).
//!
//! A thread with a short slice that wakes up takes the core at once from one with a longer slice. Threads that serve have a
//! short one; one that computes for long goes on with a long one, so that an answer does not wait for the timer's tick.
//!
//! Unsafe code: one system call that the C library has no function for.
#![allow(unsafe_code)]

use std::time::Duration;

/// Slice of a thread that serves: near the least that the kernel takes (0.1 ms).
pub const SERVING: Duration = Duration::from_micros(200);
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
/// container that refuses it leaves it as it was: only latencies are longer then.
pub fn set_slice(slice: Duration) {
    // SAFETY: asks for the priority of this thread; no memory is passed.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
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
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, attributes, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_and_the_priority_stay() {
        let told = std::thread::spawn(|| {
            set_slice(COMPUTING);
            set_slice(SERVING);
            // Fields 18 and 19 of proc(5)'s stat are priority and nice, 41 the policy.
            std::fs::read_to_string("/proc/thread-self/stat").unwrap()
        });
        let stat = told.join().unwrap();
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        let mine = std::fs::read_to_string("/proc/self/stat").unwrap();
        let mine: Vec<&str> = mine
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        for field in [18, 19, 41] {
            assert_eq!(fields[field - 3], mine[field - 3]);
        }
    }
}
