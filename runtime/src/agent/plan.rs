//! What the worker is to be told next. Pure: the loader feeds it what happened and carries out what it says.
//!
//! ```text
//! candidates of a Function, best first:  refused? quarantined? -> the next;  already serving -> nothing;  else PUT
//! all quarantined: PUT one suspended, so that callers get 503;  none left: DELETE
//! ```
//!
//! One order per Function at a time, so that an older revision can never overtake a newer one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use isolet_crds::report::{FunctionReport, Refused, Serving};

use crate::bundle::{Change, Revision};

/// After so many crashes of the worker with a revision running, it is not run any more.
const CRASHES_TO_QUARANTINE: u32 = 2;

/// An order for the worker.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Serve this.
    Put(Wanted),
    /// Serve nothing under this UID.
    Delete(String),
}

/// A revision and how it is to be served.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The revision.
    pub revision: Arc<Revision>,
    /// Its code is not to run: it is there so that callers get 503, not 404.
    pub suspended: bool,
    /// It has loaded in an earlier worker.
    pub checked: bool,
}

impl Wanted {
    fn uid(&self) -> &str {
        &self.revision.identity.uid
    }

    fn is(&self, other: &Self) -> bool {
        self.revision.digest == other.revision.digest && self.suspended == other.suspended
    }
}

/// All Functions.
#[derive(Default)]
pub struct Plan {
    functions: BTreeMap<String, FunctionPlan>,
    dirty: BTreeSet<String>,
    /// By UID; with what is being loaded, if that is the order.
    busy: HashMap<String, Option<Arc<Revision>>>,
    worker_up: bool,
}

#[derive(Default)]
struct FunctionPlan {
    change: Option<Change>,
    serving: Option<Wanted>,
    refused: HashMap<String, Refused>,
    /// Digests of revisions that have loaded.
    loaded: HashSet<String>,
    crashes: HashMap<String, u32>,
}

impl FunctionPlan {
    fn candidates(&self) -> &[Arc<Revision>] {
        self.change
            .as_ref()
            .map_or(&[], |change| &change.candidates)
    }

    fn quarantined(&self, digest: &str) -> bool {
        self.crashes
            .get(digest)
            .is_some_and(|crashes| *crashes >= CRASHES_TO_QUARANTINE)
    }

    fn wanted(&self) -> Option<Wanted> {
        let mut not_refused = self
            .candidates()
            .iter()
            .filter(|revision| !self.refused.contains_key(revision.digest.as_str()));
        let runs = not_refused
            .clone()
            .find(|revision| !self.quarantined(revision.digest.as_str()));
        let wanted = |revision: &Arc<Revision>, suspended| Wanted {
            revision: revision.clone(),
            suspended,
            checked: self.loaded.contains(revision.digest.as_str()),
        };
        match runs {
            Some(revision) => Some(wanted(revision, false)),
            None => not_refused.next().map(|revision| wanted(revision, true)),
        }
    }

    fn action(&self, uid: &str) -> Option<Action> {
        match (self.wanted(), &self.serving) {
            (Some(wanted), Some(serving)) if wanted.is(serving) => None,
            (Some(wanted), _) => Some(Action::Put(wanted)),
            (None, Some(_)) => Some(Action::Delete(uid.to_owned())),
            (None, None) => None,
        }
    }

    fn gone(&self) -> bool {
        self.candidates().is_empty()
            && self.serving.is_none()
            && self
                .change
                .as_ref()
                .is_none_or(|change| change.broken.is_none())
    }
}

impl Plan {
    /// A source says what there is of a Function.
    pub fn change(&mut self, change: Change) {
        let uid = change.uid.clone();
        let function = self.functions.entry(uid.clone()).or_default();
        let known: HashSet<&str> = change
            .candidates
            .iter()
            .map(|revision| revision.digest.as_str())
            .collect();
        function
            .refused
            .retain(|digest, _| known.contains(digest.as_str()));
        function
            .loaded
            .retain(|digest| known.contains(digest.as_str()));
        function
            .crashes
            .retain(|digest, _| known.contains(digest.as_str()));
        function.change = Some(change);
        self.dirty.insert(uid);
    }

    /// A worker is there that serves nothing yet.
    pub fn worker_started(&mut self) {
        self.worker_up = true;
        self.dirty.extend(self.functions.keys().cloned());
    }

    /// The worker is gone. `blamed`: the Functions that count as its cause, by UID. Returns those that are quarantined by it.
    pub fn worker_lost(&mut self, blamed: &[String]) -> Vec<String> {
        self.worker_up = false;
        let busy = std::mem::take(&mut self.busy);
        let mut quarantined = Vec::new();
        for uid in blamed {
            let Some(function) = self.functions.get_mut(uid) else {
                continue;
            };
            // What was being loaded is more suspect than what had served for long.
            let loading = busy.get(uid).cloned().flatten();
            let serving = function
                .serving
                .as_ref()
                .map(|serving| serving.revision.clone());
            let Some(revision) = loading.or(serving) else {
                continue;
            };
            let crashes = function
                .crashes
                .entry(revision.digest.as_str().to_owned())
                .or_default();
            *crashes += 1;
            if *crashes == CRASHES_TO_QUARANTINE {
                quarantined.push(uid.clone());
            }
        }
        for function in self.functions.values_mut() {
            function.serving = None;
            // What one worker refused for want of memory another may take.
            function.refused.clear();
        }
        quarantined
    }

    /// The next order, if any; the Function is busy until [`Plan::put_done`], [`Plan::delete_done`] or a lost worker.
    pub fn next_action(&mut self) -> Option<Action> {
        if !self.worker_up {
            return None;
        }
        // Few are busy at once, so this finds one quickly.
        while let Some(uid) = self
            .dirty
            .iter()
            .find(|uid| !self.busy.contains_key(*uid))
            .cloned()
        {
            self.dirty.remove(&uid);
            let Some(function) = self.functions.get(&uid) else {
                continue;
            };
            if let Some(action) = function.action(&uid) {
                let loading = match &action {
                    Action::Put(wanted) if !wanted.suspended => Some(wanted.revision.clone()),
                    _ => None,
                };
                self.busy.insert(uid, loading);
                return Some(action);
            }
        }
        None
    }

    /// The worker answered a PUT: it serves, or it refused.
    pub fn put_done(&mut self, put: &Wanted, outcome: Result<(), Refused>) {
        let uid = put.uid();
        self.busy.remove(uid);
        let Some(function) = self.functions.get_mut(uid) else {
            return;
        };
        match outcome {
            Ok(()) => {
                if !put.suspended {
                    let digest = put.revision.digest.as_str();
                    function.loaded.insert(digest.to_owned());
                }
                function.serving = Some(put.clone());
            }
            Err(refused) => {
                function
                    .refused
                    .insert(put.revision.digest.as_str().to_owned(), refused);
            }
        }
        self.dirty.insert(uid.to_owned());
    }

    /// An order was not answered: it is to be given again.
    pub fn retry(&mut self, uid: &str) {
        self.busy.remove(uid);
        self.dirty.insert(uid.to_owned());
    }

    /// The worker answered a DELETE.
    pub fn delete_done(&mut self, uid: &str) {
        self.busy.remove(uid);
        if let Some(function) = self.functions.get_mut(uid) {
            function.serving = None;
        }
        self.dirty.insert(uid.to_owned());
    }

    /// Nothing is under way and nothing is to be done.
    pub fn settled(&self) -> bool {
        self.worker_up && self.busy.is_empty() && self.dirty.is_empty()
    }

    /// The revision that runs.
    pub fn serving(&self, uid: &str) -> Option<&Arc<Revision>> {
        let serving = self.functions.get(uid)?.serving.as_ref()?;
        (!serving.suspended).then_some(&serving.revision)
    }

    /// Functions that went while their worker did: nobody will answer for them any more.
    pub fn gone(&self) -> Vec<String> {
        self.functions
            .iter()
            .filter(|(_, function)| function.gone())
            .map(|(uid, _)| uid.clone())
            .collect()
    }

    /// How many Functions serve.
    pub fn serving_count(&self) -> usize {
        self.functions
            .values()
            .filter(|function| {
                function
                    .serving
                    .as_ref()
                    .is_some_and(|serving| !serving.suspended)
            })
            .count()
    }

    /// What the operator is told; `None` once the Function is gone, which also forgets it.
    pub fn report(&mut self, uid: &str) -> Option<FunctionReport> {
        let function = self.functions.get(uid)?;
        if function.gone() && !self.busy.contains_key(uid) {
            self.functions.remove(uid);
            self.dirty.remove(uid);
            return None;
        }
        let first = function
            .candidates()
            .first()
            .map(|revision| revision.digest.as_str());
        let broken = function
            .change
            .as_ref()
            .and_then(|change| change.broken.as_ref());
        let refused = match (broken, first) {
            (Some(broken), _) => Some(Refused {
                revision: broken.revision.clone(),
                message: broken.message.clone(),
                ..Default::default()
            }),
            (None, Some(digest)) => function.refused.get(digest).cloned(),
            (None, None) => None,
        };
        Some(FunctionReport {
            uid: uid.to_owned(),
            serving: self.serving(uid).map(|revision| Serving {
                revision: revision.name().to_owned(),
            }),
            refused,
            quarantined: first.is_some_and(|digest| function.quarantined(digest)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{Broken, testing::revision};

    fn offer(plan: &mut Plan, revisions: &[&Arc<Revision>]) {
        plan.change(Change {
            uid: "uid-a".into(),
            candidates: revisions
                .iter()
                .map(|revision| (*revision).clone())
                .collect(),
            broken: None,
        });
    }

    fn started() -> Plan {
        let mut plan = Plan::default();
        plan.worker_started();
        plan
    }

    fn runs(revision: &Arc<Revision>) -> Wanted {
        Wanted {
            revision: revision.clone(),
            suspended: false,
            checked: false,
        }
    }

    /// As it is ordered from a worker after the one that loaded it.
    fn again(revision: &Arc<Revision>) -> Wanted {
        Wanted {
            checked: true,
            ..runs(revision)
        }
    }

    fn no(revision: &Revision) -> Result<(), Refused> {
        Err(Refused {
            revision: revision.name().into(),
            message: "no".into(),
            ..Default::default()
        })
    }

    #[test]
    fn nothing_is_ordered_without_a_worker() {
        let mut plan = Plan::default();
        offer(&mut plan, &[&revision("a", "1", 1)]);
        assert_eq!(plan.next_action(), None);
        assert!(!plan.settled());
        plan.worker_started();
        assert!(matches!(plan.next_action(), Some(Action::Put(_))));
    }

    #[test]
    fn a_refused_revision_falls_back_to_the_one_before() {
        let (old, new) = (revision("a", "old", 1), revision("a", "new", 2));
        let mut plan = started();
        offer(&mut plan, &[&old]);
        assert_eq!(plan.next_action(), Some(Action::Put(runs(&old))));
        assert_eq!(plan.next_action(), None, "one order at a time");
        plan.put_done(&runs(&old), Ok(()));
        offer(&mut plan, &[&new, &old]);
        assert_eq!(plan.next_action(), Some(Action::Put(runs(&new))));
        plan.put_done(&runs(&new), no(&new));
        assert_eq!(plan.next_action(), None, "the old one serves already");
        assert!(plan.settled());
        let report = plan.report("uid-a").unwrap();
        assert_eq!(report.serving.unwrap().revision, old.name());
        assert_eq!(report.refused.unwrap().revision, new.name());
        // A fix takes its place, and the refusal is forgotten with its revision.
        let fixed = revision("a", "fixed", 3);
        offer(&mut plan, &[&fixed, &old]);
        assert_eq!(plan.next_action(), Some(Action::Put(runs(&fixed))));
        plan.put_done(&runs(&fixed), Ok(()));
        assert_eq!(plan.report("uid-a").unwrap().refused, None);
    }

    #[test]
    fn news_during_an_order_is_acted_on_after_it() {
        let (one, two) = (revision("a", "1", 1), revision("a", "2", 2));
        let mut plan = started();
        offer(&mut plan, &[&one]);
        assert_eq!(plan.next_action(), Some(Action::Put(runs(&one))));
        offer(&mut plan, &[&two, &one]);
        assert_eq!(plan.next_action(), None);
        plan.put_done(&runs(&one), Ok(()));
        assert_eq!(plan.next_action(), Some(Action::Put(runs(&two))));
    }

    #[test]
    fn a_function_that_goes_is_deleted_and_forgotten() {
        let one = revision("a", "1", 1);
        let mut plan = started();
        offer(&mut plan, &[&one]);
        plan.next_action();
        plan.put_done(&runs(&one), Ok(()));
        offer(&mut plan, &[]);
        assert_eq!(plan.next_action(), Some(Action::Delete("uid-a".into())));
        assert!(plan.report("uid-a").is_some());
        plan.delete_done("uid-a");
        assert_eq!(plan.report("uid-a"), None);
        assert_eq!(plan.next_action(), None);
        assert!(plan.settled());
    }

    #[test]
    fn two_crashes_quarantine_the_revision_but_not_the_next() {
        let (old, bad) = (revision("a", "old", 1), revision("a", "bad", 2));
        let mut plan = started();
        offer(&mut plan, &[&bad, &old]);
        for order in [runs(&bad), again(&bad)] {
            assert_eq!(plan.next_action(), Some(Action::Put(order.clone())));
            plan.put_done(&order, Ok(()));
            let quarantined = plan.worker_lost(&["uid-a".into(), "unknown".into()]);
            assert_eq!(quarantined.len(), usize::from(order.checked));
            plan.worker_started();
        }
        assert_eq!(
            plan.next_action(),
            Some(Action::Put(runs(&old))),
            "the one before serves"
        );
        plan.put_done(&runs(&old), Ok(()));
        let report = plan.report("uid-a").unwrap();
        assert!(report.quarantined);
        assert_eq!(report.serving.unwrap().revision, old.name());
        let fixed = revision("a", "fixed", 3);
        offer(&mut plan, &[&fixed, &bad, &old]);
        assert_eq!(plan.next_action(), Some(Action::Put(runs(&fixed))));
        assert!(!plan.report("uid-a").unwrap().quarantined);
    }

    #[test]
    fn with_nothing_else_to_serve_a_quarantined_revision_answers_503() {
        let bad = revision("a", "bad", 1);
        let mut plan = started();
        offer(&mut plan, &[&bad]);
        for order in [runs(&bad), again(&bad)] {
            assert_eq!(plan.next_action(), Some(Action::Put(order.clone())));
            plan.put_done(&order, Ok(()));
            plan.worker_lost(&["uid-a".into()]);
            plan.worker_started();
        }
        let suspended = Wanted {
            revision: bad.clone(),
            suspended: true,
            checked: true,
        };
        assert_eq!(plan.next_action(), Some(Action::Put(suspended.clone())));
        plan.put_done(&suspended, Ok(()));
        assert_eq!(plan.next_action(), None);
        let report = plan.report("uid-a").unwrap();
        assert!(report.quarantined);
        assert_eq!(report.serving, None);
        assert_eq!(plan.serving_count(), 0);
        offer(&mut plan, &[]);
        assert_eq!(plan.next_action(), Some(Action::Delete("uid-a".into())));
    }

    #[test]
    fn a_revision_that_crashes_while_it_loads_is_to_blame_not_the_one_that_serves() {
        let (old, bad) = (revision("a", "old", 1), revision("a", "bad", 2));
        let mut plan = started();
        offer(&mut plan, &[&old]);
        plan.next_action();
        plan.put_done(&runs(&old), Ok(()));
        offer(&mut plan, &[&bad, &old]);
        for _ in 1..=2 {
            assert_eq!(plan.next_action(), Some(Action::Put(runs(&bad))));
            plan.worker_lost(&["uid-a".into()]);
            plan.worker_started();
        }
        assert_eq!(plan.next_action(), Some(Action::Put(again(&old))));
    }

    #[test]
    fn an_order_without_an_answer_is_given_again() {
        let one = revision("a", "1", 1);
        let mut plan = started();
        offer(&mut plan, &[&one]);
        plan.next_action();
        assert_eq!(plan.next_action(), None);
        plan.retry("uid-a");
        assert_eq!(plan.next_action(), Some(Action::Put(runs(&one))));
    }

    #[test]
    fn a_crash_with_nothing_running_counts_against_nobody() {
        let one = revision("a", "1", 1);
        let mut plan = started();
        offer(&mut plan, &[&one]);
        for crash in 0..5 {
            let order = if crash == 0 { runs(&one) } else { again(&one) };
            assert_eq!(plan.next_action(), Some(Action::Put(order.clone())));
            plan.put_done(&order, Ok(()));
            assert!(plan.worker_lost(&[]).is_empty());
            assert_eq!(plan.serving_count(), 0);
            plan.worker_started();
        }
    }

    #[test]
    fn an_unreadable_newest_revision_is_reported_beside_what_serves() {
        let one = revision("a", "1", 1);
        let mut plan = started();
        plan.change(Change {
            uid: "uid-a".into(),
            candidates: vec![one.clone()],
            broken: Some(Broken {
                revision: "feed".into(),
                message: "damaged".into(),
            }),
        });
        plan.next_action();
        plan.put_done(&runs(&one), Ok(()));
        let report = plan.report("uid-a").unwrap();
        assert_eq!(report.refused.unwrap().revision, "feed");
        assert_eq!(report.serving.unwrap().revision, one.name());
    }
}
