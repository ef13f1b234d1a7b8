//! Where a start waits until there is room for it.
//!
//! ```text
//! admit -> there is room: it is reserved, the start goes on       (nobody waits)
//!       -> there is none: the start queues up; the first in line has the eviction look, and tries again whenever
//!          an instance is gone; after PATIENCE, or with too many in line: 503 Overloaded
//! ```
//!
//! A reservation holds an instance's place and what a start takes at most; the second part goes back once what the instance
//! really uses has been measured. So any number of starts at once stay below the bounds together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::Services;
use crate::limits::memory;

/// Longest wait for room. Instances that go are gone in milliseconds; where none is idle, more time rarely brings room.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// Starts in line at most.
const MOST_WAITING: usize = 1024;
/// Longest time between two tries of the first in line: memory becomes free in other ways, too.
const TRY_AGAIN: Duration = Duration::from_millis(10);

/// Lets instances start where there is room for them.
#[derive(Debug)]
pub struct Gate {
    /// Instances that live or start.
    instances: AtomicUsize,
    most_instances: usize,
    /// Who has it is first in line; it is fair.
    first: Semaphore,
    waiting: AtomicUsize,
    gone: Notify,
}

/// The right to start one instance.
#[derive(Debug)]
pub(super) struct Reservation {
    pub(super) place: Place,
    /// Until the instance is measured.
    pub(super) memory: memory::Reservation,
}

/// One of the instances that may live. Given back when the isolate is gone.
#[derive(Debug)]
pub(super) struct Place(Arc<Services>);

/// One in line.
struct Waiting<'g>(&'g Gate);

impl Gate {
    /// For at most so many instances.
    pub fn new(most_instances: usize) -> Self {
        Self {
            instances: AtomicUsize::new(0),
            most_instances: most_instances.max(1),
            first: Semaphore::new(1),
            waiting: AtomicUsize::new(0),
            gone: Notify::new(),
        }
    }

    /// Instances that live or start.
    pub(super) fn instances(&self) -> usize {
        self.instances.load(Ordering::Relaxed)
    }

    pub(super) fn most_instances(&self) -> usize {
        self.most_instances
    }

    /// Starts in line.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The first in line tries again.
    pub(super) fn there_is_room(&self) {
        self.gone.notify_one();
    }

    fn wait(&self) -> Option<Waiting<'_>> {
        let waiting = Waiting(self);
        (self.waiting.fetch_add(1, Ordering::Relaxed) < MOST_WAITING).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Services {
    /// Room for a start, once there is some; nothing if that takes too long.
    pub(super) async fn admit(self: &Arc<Self>, deadline: Instant) -> Option<Reservation> {
        let gate = &self.gate;
        if gate.waiting() == 0
            && let Some(reservation) = self.try_admit()
        {
            return Some(reservation);
        }
        let _waiting = gate.wait()?;
        let admitted = async {
            let _first = gate.first.acquire().await.ok()?;
            loop {
                let gone = gate.gone.notified();
                tokio::pin!(gone);
                // From here on an instance that goes is not missed.
                gone.as_mut().enable();
                if let Some(reservation) = self.try_admit() {
                    return Some(reservation);
                }
                memory::raise_alarm();
                // Whichever comes first; both mean another try.
                let _ = timeout(TRY_AGAIN, gone).await;
            }
        };
        timeout_at(deadline, admitted).await.ok().flatten()
    }

    /// Room for a start, if there is some now.
    pub(super) fn try_admit(self: &Arc<Self>) -> Option<Reservation> {
        // In this order: to give a place back has the first in line try again at once.
        let memory = memory::reserve()?;
        let place = self.take_place(self.gate.most_instances)?;
        Some(Reservation { place, memory })
    }

    /// Room for a start that must happen: the trial of a new revision, of which there are few at once.
    pub(super) async fn admit_trial(self: &Arc<Self>) -> Reservation {
        let deadline = Instant::now() + PATIENCE;
        if let Some(reservation) = self.admit(deadline).await {
            return reservation;
        }
        self.gate.instances.fetch_add(1, Ordering::Relaxed);
        self.metrics.instances(1);
        Reservation {
            place: Place(Arc::clone(self)),
            memory: memory::reserve_anyway(),
        }
    }

    fn take_place(self: &Arc<Self>, most: usize) -> Option<Place> {
        let less = |count: usize| (count < most).then_some(count + 1);
        self.gate
            .instances
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .ok()?;
        self.metrics.instances(1);
        Some(Place(Arc::clone(self)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.metrics.instances(-1);
        self.0.gate.instances.fetch_sub(1, Ordering::Relaxed);
        self.0.gate.there_is_room();
    }
}
