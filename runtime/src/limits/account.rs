//! What a Function has used of the processor lately: the measure by which hogs take turns.
//!
//! Kept per Function, not per request or instance: a Function with a hundred loops gets no more than one with one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use isolet_crds::bundle::FunctionIdentity;

/// Time after which CPU time that was used counts half.
const HALF_LIFE: Duration = Duration::from_secs(1);

/// The CPU account of one Function.
#[derive(Debug)]
pub struct Account {
    function: FunctionIdentity,
    used: Mutex<Used>,
}

#[derive(Debug)]
struct Used {
    seconds: f64,
    at: Instant,
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
        }
    }

    /// Whose account it is.
    pub fn function(&self) -> &FunctionIdentity {
        &self.function
    }

    /// Books CPU time used just now.
    pub fn charge(&self, time: Duration) {
        self.book(time, Instant::now());
    }

    /// CPU time used lately, in seconds; what is long ago counts little.
    pub fn lately(&self) -> f64 {
        self.book(Duration::ZERO, Instant::now())
    }

    fn book(&self, time: Duration, now: Instant) -> f64 {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_duration_since(used.at);
        let kept = (-since.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2();
        *used = Used {
            seconds: used.seconds * kept + time.as_secs_f64(),
            at: now.max(used.at),
        };
        used.seconds
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
        account.book(Duration::from_secs(4), start);
        let after = |halves: u32| account.book(Duration::ZERO, start + HALF_LIFE * halves);
        assert!((after(1) - 2.0).abs() < 0.01);
        assert!((after(3) - 0.5).abs() < 0.01);
        assert!(after(60) < 1e-9);
    }
}
