//! Which instances go when they are too many or too large together, or nobody has asked for them in a long time.
//!
//! All isolates of the process share V8's 4 GiB pointer cage, and an isolate takes about 13 memory mappings of the 65,530
//! that a process may have: V8 aborts the process where either is used up. So the coldest idle instances go before that;
//! their next request makes new ones.

use std::time::Duration;

/// Instances that the process holds at most: what is past it cannot start.
pub(super) const MAX_INSTANCES: usize = 2500;
/// Instances above which the coldest go.
const EASY_INSTANCES: usize = 2000;
/// Heap of all instances above which the coldest go.
const EASY_HEAP_BYTES: usize = 2 << 30;
/// Time without a request after which an instance goes in any case.
const IDLE: Duration = Duration::from_secs(600);
/// Time between two looks.
pub(super) const TICK: Duration = Duration::from_secs(1);

/// An instance, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Since its last request began.
    pub(super) unused: Duration,
    pub(super) heap_bytes: usize,
    /// Requests are under way.
    pub(super) busy: bool,
}

/// Indices of the instances that go.
pub(super) fn victims(candidates: &[Candidate]) -> Vec<usize> {
    let mut idle: Vec<usize> = (0..candidates.len())
        .filter(|index| !candidates[*index].busy)
        .collect();
    idle.sort_by_key(|index| std::cmp::Reverse(candidates[*index].unused));
    let mut instances = candidates.len();
    let mut heap_bytes: usize = candidates.iter().map(|it| it.heap_bytes).sum();
    idle.into_iter()
        .take_while(|index| {
            let candidate = candidates[*index];
            let goes = candidate.unused >= IDLE
                || instances > EASY_INSTANCES
                || heap_bytes > EASY_HEAP_BYTES;
            instances -= 1;
            heap_bytes -= candidate.heap_bytes;
            goes
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(unused_s: u64, heap_mib: usize, busy: bool) -> Candidate {
        Candidate {
            unused: Duration::from_secs(unused_s),
            heap_bytes: heap_mib << 20,
            busy,
        }
    }

    #[test]
    fn the_coldest_go_until_the_rest_fits() {
        let large = [
            candidate(1, 1000, false),
            candidate(3, 1000, false),
            candidate(9, 1000, true),
            candidate(2, 1000, false),
        ];
        assert_eq!(victims(&large), [1, 3]);
        assert_eq!(victims(&large[..2]), Vec::<usize>::new());
        let many: Vec<_> = (0..EASY_INSTANCES as u64 + 2)
            .map(|unused| candidate(unused.min(500), 0, false))
            .collect();
        assert_eq!(victims(&many).len(), 2);
    }

    #[test]
    fn what_nobody_uses_goes_in_any_case_unless_it_works() {
        let some = [
            candidate(600, 1, false),
            candidate(700, 1, true),
            candidate(599, 1, false),
        ];
        assert_eq!(victims(&some), [0]);
        assert_eq!(victims(&[]), Vec::<usize>::new());
    }
}
