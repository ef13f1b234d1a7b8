//! What became of everything that was asked.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::tenants::Kind;
use super::visits::Way;

/// Wrong answers that are kept in full.
const MOST_WRONG: usize = 20;

/// Shared by all clients.
pub(crate) struct Books {
    inner: Mutex<Inner>,
    /// Odd while the worker is being killed; a connection of another epoch may have been to the one before.
    epoch: AtomicU32,
    is_closed: AtomicBool,
}

#[derive(Default)]
struct Inner {
    by_kind: BTreeMap<Kind, Counts>,
    by_way: BTreeMap<Way, Counts>,
    wrong: Vec<String>,
    /// Notes that must arrive, with the epoch of the request.
    notes: HashMap<String, u32>,
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Counts {
    pub(crate) asked: u64,
    pub(crate) right: u64,
    pub(crate) expected_errors: u64,
    pub(crate) too_busy: u64,
    pub(crate) hung_up: u64,
    /// Lost with the worker that was killed on purpose.
    pub(crate) killed: u64,
    pub(crate) wrong: u64,
    /// From the request, or the first of several, to the end of the answer; sum and longest.
    pub(crate) took_ms: f64,
    pub(crate) slowest_ms: f64,
}

/// What became of one request.
pub(crate) enum Fate {
    Right,
    ExpectedError,
    TooBusy,
    HungUp,
    Killed,
    /// With all that is known.
    Wrong(String),
}

impl Books {
    pub(crate) fn new() -> Self {
        Self {
            inner: Mutex::default(),
            epoch: AtomicU32::new(0),
            is_closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn enter(&self, kind: Kind, way: Way, fate: Fate, took: Duration) {
        let mut inner = self.lock();
        inner.by_kind.entry(kind).or_default().count(&fate, took);
        inner.by_way.entry(way).or_default().count(&fate, took);
        if let Fate::Wrong(text) = fate
            && inner.wrong.len() < MOST_WRONG
        {
            eprintln!("wrong: {text}");
            inner.wrong.push(text);
        }
    }

    /// Has the clients stop after what they are at.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Before and after the worker is killed.
    pub(crate) fn next_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether what began in this epoch may have been lost with the worker.
    pub(crate) fn excuses(&self, epoch: u32) -> bool {
        epoch % 2 == 1 || epoch != self.epoch()
    }

    pub(crate) fn expect_note(&self, nonce: &str, epoch: u32) {
        self.lock().notes.insert(nonce.to_owned(), epoch);
    }

    /// Notes that must have arrived: those of the worker that was not killed.
    pub(crate) fn notes(&self) -> Vec<String> {
        let inner = self.lock();
        let notes = inner.notes.iter();
        notes
            .filter(|(_, epoch)| !self.excuses(**epoch))
            .map(|(nonce, _)| nonce.clone())
            .collect()
    }

    pub(crate) fn by_kind(&self) -> BTreeMap<Kind, Counts> {
        self.lock().by_kind.clone()
    }

    pub(crate) fn by_way(&self) -> BTreeMap<Way, Counts> {
        self.lock().by_way.clone()
    }

    /// The first wrong answers.
    pub(crate) fn wrong(&self) -> Vec<String> {
        self.lock().wrong.clone()
    }

    /// Sum over all kinds.
    pub(crate) fn total(&self) -> Counts {
        let mut total = Counts::default();
        for counts in self.lock().by_kind.values() {
            total.add(counts);
        }
        total
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn count(&mut self, fate: &Fate, took: Duration) {
        let took_ms = took.as_secs_f64() * 1000.0;
        self.took_ms += took_ms;
        self.slowest_ms = self.slowest_ms.max(took_ms);
        self.asked += 1;
        *match fate {
            Fate::Right => &mut self.right,
            Fate::ExpectedError => &mut self.expected_errors,
            Fate::TooBusy => &mut self.too_busy,
            Fate::HungUp => &mut self.hung_up,
            Fate::Killed => &mut self.killed,
            Fate::Wrong(_) => &mut self.wrong,
        } += 1;
    }

    /// Mean time that one took.
    pub(crate) fn mean_ms(&self) -> f64 {
        self.took_ms / self.asked.max(1) as f64
    }

    fn add(&mut self, other: &Self) {
        self.took_ms += other.took_ms;
        self.slowest_ms = self.slowest_ms.max(other.slowest_ms);
        self.asked += other.asked;
        self.right += other.right;
        self.expected_errors += other.expected_errors;
        self.too_busy += other.too_busy;
        self.hung_up += other.hung_up;
        self.killed += other.killed;
        self.wrong += other.wrong;
    }
}
