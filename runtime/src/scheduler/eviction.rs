//! Which instances go when they are too many or too large together, or nobody has asked for them in a long time.
//!
//! All isolates of the process share V8's 4 GiB pointer cage, and an isolate takes about 13 memory mappings of the 65,530
//! that a process may have: V8 aborts the process where either is used up. So the coldest idle instances go before that;
//! their next request makes new ones. The thread that has them go looks each second, and at once when memory becomes tight.

use std::time::Duration;

use crate::limits::memory;

/// Instances that the process holds at most, however many mappings it may have.
const MAX_INSTANCES: usize = 4500;
/// Memory mappings of one isolate: 13.3 measured, and those of what it runs.
const MAPPINGS_EACH: usize = 14;
/// Memory mappings of everything else, the pool included.
const MAPPINGS_BESIDE: usize = 4000;
/// What the kernel allows unless told otherwise.
const DEFAULT_MAX_MAPPINGS: usize = 65_530;
/// Time without a request after which an instance goes in any case.
const IDLE: Duration = Duration::from_secs(600);
/// Time without a request after which an instance gives back what memory it does not need, if that is much: when it is idle
/// for the first time, or has grown to `GROWN_BYTES`.
const QUIET: Duration = Duration::from_secs(5);
const GROWN_BYTES: usize = 4 << 20;
/// The same for all others: a collection takes 0.6 ms of CPU time and brings 20 to 45 KB.
const LONG_QUIET: Duration = Duration::from_secs(60);
/// Time between two looks.
pub(super) const TICK: Duration = Duration::from_secs(1);

/// An instance, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Since its last request began.
    pub(super) unused: Duration,
    pub(super) bytes: usize,
    /// Requests are under way.
    pub(super) busy: bool,
}

/// Whether a collection is worth its time.
pub(super) fn should_collect(unused: Duration, bytes: usize, has_collected: bool) -> bool {
    let much = !has_collected || bytes >= GROWN_BYTES;
    unused >= if much { QUIET } else { LONG_QUIET }
}

/// How many isolates the process can hold, by the kernel's limit of its mappings. To be asked before the process is locked
/// down: it reads a file.
pub fn max_instances() -> usize {
    let mappings = std::fs::read_to_string("/proc/sys/vm/max_map_count")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(DEFAULT_MAX_MAPPINGS);
    by_mappings(mappings)
}

fn by_mappings(mappings: usize) -> usize {
    (mappings.saturating_sub(MAPPINGS_BESIDE) / MAPPINGS_EACH).clamp(1, MAX_INSTANCES)
}

/// From this number of isolates on the coldest go.
pub(super) fn easy_instances(max_instances: usize) -> usize {
    max_instances - max_instances / 8
}

/// Indices of the instances that go. Once there are too many, or memory is tight, more go than must, so that the next
/// start does not begin it all again.
pub(super) fn victims(candidates: &[Candidate], max_instances: usize) -> Vec<usize> {
    let most = |now: usize, easy: usize| if now > easy { easy - easy / 16 } else { easy };
    let mut idle: Vec<usize> = (0..candidates.len())
        .filter(|index| !candidates[*index].busy)
        .collect();
    idle.sort_by_key(|index| std::cmp::Reverse(candidates[*index].unused));
    let mut instances = candidates.len();
    let mut bytes: usize = candidates.iter().map(|it| it.bytes).sum();
    let most_instances = most(instances, easy_instances(max_instances));
    let most_bytes = most(bytes, memory::EASY_BYTES);
    idle.into_iter()
        .take_while(|index| {
            let candidate = candidates[*index];
            let goes = candidate.unused >= IDLE || instances > most_instances || bytes > most_bytes;
            instances -= 1;
            bytes -= candidate.bytes;
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
            bytes: heap_mib << 20,
            busy,
        }
    }

    #[test]
    fn the_coldest_go_until_the_rest_fits() {
        let large = [
            candidate(1, 950, false),
            candidate(3, 950, false),
            candidate(9, 950, true),
            candidate(2, 950, false),
        ];
        assert_eq!(victims(&large, 100), [1, 3]);
        assert_eq!(victims(&large[..2], 100), Vec::<usize>::new());
        let many: Vec<_> = (0..90).map(|unused| candidate(unused, 0, false)).collect();
        assert_eq!(victims(&many, 100), [89, 88, 87, 86, 85, 84, 83]);
        assert_eq!(victims(&many[..88], 100), Vec::<usize>::new());
    }

    #[test]
    fn collections_are_rare_where_they_bring_little() {
        let worth = |unused_s, bytes, has_collected| {
            should_collect(Duration::from_secs(unused_s), bytes, has_collected)
        };
        assert!(worth(5, 1, false) && !worth(4, 1, false));
        assert!(worth(5, 4 << 20, true) && !worth(5, 1 << 20, true));
        assert!(worth(60, 1, true));
    }

    #[test]
    fn isolates_are_bounded_by_the_mappings_that_the_kernel_allows() {
        assert_eq!(by_mappings(65_530), 4395);
        assert_eq!(by_mappings(11_000), 500);
        assert_eq!(by_mappings(0), 1);
        assert_eq!(by_mappings(1 << 30), MAX_INSTANCES);
    }

    #[test]
    fn what_nobody_uses_goes_in_any_case_unless_it_works() {
        let some = [
            candidate(600, 1, false),
            candidate(700, 1, true),
            candidate(599, 1, false),
        ];
        assert_eq!(victims(&some, 100), [0]);
        assert_eq!(victims(&[], 100), Vec::<usize>::new());
    }
}
