//! What a Function has used of the processor lately: the measure by which hogs take turns.
//!
//! Kept per Function, not per request or instance: a Function with a hundred loops gets no more than one with one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use isolet_crds::bundle::FunctionIdentity;

/// Time after which CPU time that was used counts half.
const HALF_LIFE: Duration = Duration::from_secs(1);
/// What is used within such a time counts as used at once.
const AT_ONCE: Duration = Duration::from_millis(1);
/// Mean CPU time of an entry from which a Function computes for long: to move it to another thread costs a tenth of that.
const LONG: f64 = 0.001;
/// The same from which others on its thread would notice that they wait for it, in seconds.
const NOTABLE: f64 = 0.000_05;
/// Weight of the last entry in the mean.
const LAST: f64 = 0.25;

/// The CPU account of one Function.
#[derive(Debug)]
pub struct Account {
    function: FunctionIdentity,
    used: Mutex<Used>,
    /// Mean of the last few entries, in seconds: the bits of an `f64`. Written under the lock above, read without it.
    an_entry: AtomicU64,
}

#[derive(Debug)]
struct Used {
    seconds: f64,
    at: Instant,
}

/// How long entries of a Function are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Nobody notices.
    Brief,
    /// 50 us or more.
    Notable,
    /// A millisecond or more.
    Long,
}

/// The accounts of all Functions that have a revision.
#[derive(Debug, Default)]
pub struct Accounts(Mutex<HashMap<String, Weak<Account>>>);

impl Accounts {
    /// The account of a Function, the same for all its revisions.
    pub fn of(&self, function: &FunctionIdentity) -> Arc<Account> {
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = accounts.get(&function.uid).and_then(Weak::upgrade) {
            return account;
        }
        accounts.retain(|_, account| account.strong_count() > 0);
        let account = Arc::new(Account::new(function.clone()));
        accounts.insert(function.uid.clone(), Arc::downgrade(&account));
        account
    }
}

impl Account {
    /// Nothing used yet.
    pub fn new(function: FunctionIdentity) -> Self {
        let used = Used {
            seconds: 0.0,
            at: Instant::now(),
        };
        Self {
            function,
            used: Mutex::new(used),
            an_entry: AtomicU64::new(0),
        }
    }

    /// Whose account it is.
    pub fn function(&self) -> &FunctionIdentity {
        &self.function
    }

    /// Books CPU time used until now.
    pub fn charge(&self, time: Duration, now: Instant) {
        self.lock().book(time, now);
    }

    /// Notes what a whole entry used, and books the part that was not booked before.
    pub fn entry_over(&self, whole: Duration, rest: Duration, now: Instant) {
        let mut used = self.lock();
        let mean = self.an_entry();
        let mean = mean + (whole.as_secs_f64() - mean) * LAST;
        self.an_entry.store(mean.to_bits(), Ordering::Relaxed);
        used.book(rest, now);
    }

    /// How long an entry of this Function is likely to compute.
    pub fn pace(&self) -> Pace {
        match self.an_entry() {
            LONG.. => Pace::Long,
            NOTABLE.. => Pace::Notable,
            _ => Pace::Brief,
        }
    }

    /// CPU time used lately, in seconds; what is long ago counts little.
    pub fn lately(&self) -> f64 {
        self.lock().book(Duration::ZERO, Instant::now())
    }

    fn an_entry(&self) -> f64 {
        f64::from_bits(self.an_entry.load(Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        // No code panics while it holds this lock, so poison carries no news.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Used {
    fn book(&mut self, time: Duration, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at);
        if since >= AT_ONCE {
            let kept = (-since.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2();
            self.seconds *= kept;
            self.at = now;
        }
        self.seconds += time.as_secs_f64();
        self.seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_ago_counts_little() {
        let account = Account::new(FunctionIdentity {
            namespace: "n".into(),
            name: "f".into(),
            uid: "u".into(),
        });
        let start = Instant::now();
        account.charge(Duration::from_secs(4), start);
        let after = |halves: u32| {
            let mut used = account.lock();
            used.book(Duration::ZERO, start + HALF_LIFE * halves)
        };
        assert!((after(1) - 2.0).abs() < 0.01);
        assert!((after(3) - 0.5).abs() < 0.01);
        assert!(after(60) < 1e-9);
    }

    #[test]
    fn a_function_computes_long_if_its_last_entries_did() {
        let account = Account::new(FunctionIdentity {
            namespace: "n".into(),
            name: "f".into(),
            uid: "u".into(),
        });
        assert_eq!(account.pace(), Pace::Brief);
        let entry_over = |time: Duration| account.entry_over(time, time, Instant::now());
        entry_over(Duration::from_millis(50));
        assert_eq!(account.pace(), Pace::Long);
        for _ in 0..8 {
            entry_over(Duration::from_micros(10));
        }
        assert_eq!(account.pace(), Pace::Long);
        for _ in 0..8 {
            entry_over(Duration::from_micros(10));
        }
        assert_eq!(account.pace(), Pace::Notable);
        for _ in 0..8 {
            entry_over(Duration::from_micros(10));
        }
        assert_eq!(account.pace(), Pace::Brief);
    }
}
