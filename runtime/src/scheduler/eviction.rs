//! Which instances go when they use too much together, or nobody has asked for them in a long time.
//!
//! What runs out is in [`memory`]; V8 or the kernel ends the process where it does. So the coldest idle instances go before
//! that; their next request makes new ones. Where it is V8's cage, they are collected first, which may be enough. The thread that
//! does both looks each second, and at once when something becomes tight or a start waits for room.

use std::time::Duration;

use crate::limits::memory::{self, Resource, Usage};

/// Time without a request after which an instance goes in any case.
const IDLE: Duration = Duration::from_secs(600);
/// Time between two looks.
pub(super) const TICK: Duration = Duration::from_secs(1);
/// The same while there may be garbage to collect.
const TIGHT_TICK: Duration = Duration::from_millis(100);
/// Least time between two looks, whoever waits.
pub(super) const PAUSE: Duration = Duration::from_millis(5);

/// For so long garbage is collected at a time, before any instance goes.
pub(super) const SPELL: Duration = Duration::from_millis(20);
/// Where so few were collected in that time, instances go all the same.
pub(super) const LEAST_COLLECTED: usize = 2;
/// Where so many starts wait in line, instances go although collections make room, too.
pub(super) const MOST_WAITING: usize = 64;

/// An instance, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Since its last request began.
    pub(super) unused: Duration,
    pub(super) usage: Usage,
    /// Requests are under way.
    pub(super) busy: bool,
}

/// What there is of instances and memory, all together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) instances: usize,
    pub(super) usage: Usage,
}

/// Why an instance goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Nobody has asked for it in a long time.
    Idle,
    /// There are too many.
    Instances,
    /// Too much of this is used.
    Used(Resource),
}

impl Reason {
    /// Its name in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Instances => "instances",
            Self::Used(resource) => resource.name(),
        }
    }
}

/// What there may be. Once something is above it, more goes than must, so that the next start does not begin it all again.
fn targets(now: Totals, most: Totals) -> Totals {
    let target = |now: usize, most: usize| if now > most { most - most / 16 } else { most };
    let mut usage = Usage::default();
    for it in Resource::ALL {
        usage[it] = target(now.usage[it], most.usage[it]);
    }
    Totals {
        instances: target(now.instances, most.instances),
        usage,
    }
}

/// Indices of the instances that go, the coldest first, and why. `now` is without those that are going already.
pub(super) fn victims(
    candidates: &[Candidate],
    mut now: Totals,
    most: Totals,
) -> Vec<(usize, Reason)> {
    let targets = targets(now, most);
    let mut idle: Vec<usize> = (0..candidates.len())
        .filter(|index| !candidates[*index].busy)
        .collect();
    idle.sort_by_key(|index| std::cmp::Reverse(candidates[*index].unused));
    let mut victims = Vec::new();
    for index in idle {
        let candidate = candidates[index];
        let scarce = Resource::ALL
            .into_iter()
            .find(|it| now.usage[*it] > targets.usage[*it] && candidate.usage[*it] > 0);
        let reason = if candidate.unused >= IDLE {
            Reason::Idle
        } else if now.instances > targets.instances {
            Reason::Instances
        } else if let Some(resource) = scarce {
            Reason::Used(resource)
        } else {
            continue;
        };
        now.instances = now.instances.saturating_sub(1);
        now.usage = now.usage.minus(candidate.usage);
        victims.push((index, reason));
    }
    victims
}

/// Which of those with requests under way go, where all that is idle has gone and more of the cage is needed: the largest, of those
/// with more than `least`. Takes bytes of the cage, gives indices.
pub(super) fn holders(held: &[usize], needed: usize, least: usize) -> Vec<usize> {
    let mut largest: Vec<usize> = (0..held.len())
        .filter(|index| held[*index] > least)
        .collect();
    largest.sort_by_key(|index| std::cmp::Reverse(held[*index]));
    let mut freed = 0;
    largest
        .into_iter()
        .take_while(|index| {
            let is_needed = freed < needed;
            freed += held[*index];
            is_needed
        })
        .collect()
}

/// Longest time until the next look.
pub(super) fn tick() -> Duration {
    if memory::is_cage_tight() {
        TIGHT_TICK
    } else {
        TICK
    }
}

/// What there may be of everything.
pub(super) fn most(most_instances: usize) -> Totals {
    Totals {
        instances: most_instances,
        usage: memory::easy(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn candidate(unused_s: u64, cage_mib: usize, busy: bool) -> Candidate {
        let mut usage = Usage::default();
        usage[Resource::Cage] = cage_mib * MIB;
        Candidate {
            unused: Duration::from_secs(unused_s),
            usage,
            busy,
        }
    }

    fn go(candidates: &[Candidate], most_instances: usize, most_mib: usize) -> Vec<usize> {
        let mut now = Totals::default();
        for candidate in candidates {
            now.instances += 1;
            now.usage = now.usage.plus(candidate.usage);
        }
        let mut most = Totals {
            instances: most_instances,
            usage: Usage::default(),
        };
        most.usage[Resource::Cage] = most_mib * MIB;
        let victims = victims(candidates, now, most);
        victims.into_iter().map(|(index, _)| index).collect()
    }

    #[test]
    fn the_coldest_go_until_the_rest_fits() {
        let large = [
            candidate(1, 950, false),
            candidate(3, 950, false),
            candidate(9, 950, true),
            candidate(2, 950, false),
        ];
        assert_eq!(go(&large, 100, 2048), [1, 3]);
        assert_eq!(go(&large[..2], 100, 2048), Vec::<usize>::new());
        let many: Vec<_> = (0..90).map(|unused| candidate(unused, 0, false)).collect();
        assert_eq!(go(&many, 88, 2048), [89, 88, 87, 86, 85, 84, 83]);
        assert_eq!(go(&many, 90, 2048), Vec::<usize>::new());
    }

    #[test]
    fn an_instance_that_has_nothing_of_what_is_scarce_stays() {
        let mut some = [
            candidate(9, 1, false),
            candidate(8, 1, false),
            candidate(7, 1, false),
        ];
        some[1].usage[Resource::Code] = MIB;
        let mut now = Totals::default();
        now.usage[Resource::Code] = MIB;
        now.usage[Resource::Cage] = 3 * MIB;
        let mut most = now;
        most.instances = 100;
        most.usage[Resource::Code] = MIB / 2;
        assert_eq!(
            victims(&some, now, most),
            [(1, Reason::Used(Resource::Code))]
        );
    }

    #[test]
    fn of_those_that_hold_memory_the_largest_go_until_there_is_enough() {
        let held = [3, 300, 100, 200].map(|mib| mib * MIB);
        let least = 4 * MIB;
        assert_eq!(holders(&held, 0, least), Vec::<usize>::new());
        assert_eq!(holders(&held, 1, least), [1]);
        assert_eq!(holders(&held, 301 * MIB, least), [1, 3]);
        // Not the small ones, however many.
        assert_eq!(holders(&held, usize::MAX, least), [1, 3, 2]);
    }

    #[test]
    fn what_nobody_uses_goes_in_any_case_unless_it_works() {
        let some = [
            candidate(600, 1, false),
            candidate(700, 1, true),
            candidate(599, 1, false),
        ];
        assert_eq!(go(&some, 100, 100), [0]);
        assert_eq!(go(&[], 100, 100), Vec::<usize>::new());
    }
}
