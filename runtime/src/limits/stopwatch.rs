//! CPU time of one entry into JavaScript, without a system call where the entry is short.
//!
//! To ask for a thread's CPU time costs as much as a short request. So a thread asks at most once a millisecond (its
//! anchor), and what an entry used follows from the wall clock, which costs next to nothing and never runs slower:
//!
//! ```text
//! anchor            began                          now
//!   |--- other work --|------ inside JavaScript -----|
//! short entry:   now - began                       (wall time; at most SHORT too much, if the thread was preempted)
//! any other:     min(now - began, CPU since anchor) (at most what the thread did since its anchor too much)
//! ```
//!
//! Nothing is ever counted too low.

use std::time::{Duration, Instant};

use crate::isolate::ThreadClock;

/// An entry that took less wall time counts with that.
const SHORT: Duration = Duration::from_micros(50);
/// Age at which an anchor is renewed.
const ANCHOR_AGE: Duration = Duration::from_millis(1);

/// Both clocks of a thread at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Anchor {
    at: Instant,
    cpu: Duration,
}

/// Measures one entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopwatch {
    began: Instant,
    anchor: Duration,
    /// The thread's CPU clock when the entry began, once somebody had to know.
    start: Option<Duration>,
}

impl Anchor {
    /// Now, on the thread of this clock.
    pub(super) fn new(clock: ThreadClock) -> Self {
        Self {
            at: Instant::now(),
            cpu: clock.read().unwrap_or_default(),
        }
    }

    /// Begins an entry; renews the anchor if it is old.
    pub(super) fn begin(&mut self, clock: ThreadClock) -> Stopwatch {
        let began = Instant::now();
        if began.saturating_duration_since(self.at) >= ANCHOR_AGE {
            *self = Self {
                at: began,
                cpu: clock.read().unwrap_or_default(),
            };
        }
        Stopwatch {
            began,
            anchor: self.cpu,
            start: None,
        }
    }
}

impl Stopwatch {
    /// When the entry began.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// CPU time of the entry until `cpu` on its thread's clock, read just now.
    pub(super) fn used_at(&mut self, cpu: Duration) -> Duration {
        let began = self.began;
        let since_anchor = cpu.saturating_sub(self.anchor);
        let start = *self
            .start
            .get_or_insert_with(|| cpu.saturating_sub(began.elapsed().min(since_anchor)));
        cpu.saturating_sub(start)
    }

    /// Wall time of the entry until now, if that is so short that it counts.
    pub(super) fn used_if_short(&self) -> Option<Duration> {
        let took = self.began.elapsed();
        (took < SHORT).then_some(took)
    }

    /// CPU time of the entry until now. On its own thread.
    pub(super) fn used(&mut self, clock: ThreadClock) -> Duration {
        if self.start.is_none()
            && let Some(used) = self.used_if_short()
        {
            return used;
        }
        self.used_at(clock.read().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compute(cpu: Duration, clock: ThreadClock) {
        let until = clock.read().unwrap() + cpu;
        while clock.read().unwrap() < until {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn computing_counts_and_waiting_does_not() {
        let clock = ThreadClock::of_this_thread();
        let mut anchor = Anchor::new(clock);
        compute(Duration::from_millis(2), clock);
        let before = clock.read().unwrap();
        let mut watch = anchor.begin(clock);
        std::thread::park_timeout(Duration::from_millis(30));
        compute(Duration::from_millis(5), clock);
        let used = watch.used(clock);
        let spent = clock.read().unwrap() - before;
        assert!(used >= Duration::from_millis(5), "{used:?}");
        // The wait is not in it; what the thread did since its anchor may be.
        assert!(used <= spent + ANCHOR_AGE, "{used:?} of {spent:?}");
    }

    #[test]
    fn what_was_seen_once_goes_on_from_there() {
        let clock = ThreadClock::of_this_thread();
        let mut watch = Anchor::new(clock).begin(clock);
        compute(SHORT, clock);
        let first = watch.used_at(clock.read().unwrap());
        let spent = clock.read().unwrap();
        compute(Duration::from_millis(3), clock);
        let second = watch.used(clock);
        let since = clock.read().unwrap() - spent;
        assert!(second >= first + Duration::from_millis(3));
        assert!(second <= first + since + Duration::from_millis(1));
    }

    #[test]
    fn an_entry_never_counts_less_than_it_used() {
        let clock = ThreadClock::of_this_thread();
        let mut anchor = Anchor::new(clock);
        for round in 0..200 {
            let mut watch = anchor.begin(clock);
            let before = clock.read().unwrap();
            compute(Duration::from_micros(round), clock);
            let least = clock.read().unwrap() - before;
            let used = watch.used(clock);
            assert!(used >= least, "{used:?} < {least:?}");
        }
    }
}
