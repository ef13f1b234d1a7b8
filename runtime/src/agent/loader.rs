//! Brings the worker to what the source says: orders out, answers into the report log, the cache and the egress table.
//!
//! ```text
//! source ─ SourceEvent ─┐                      ┌─> Control: PUT, DELETE (a few at once)
//! worker ─ WorkerEvent ─┴─> Plan ─ Action ─────┤
//!                            ^                 └─> ReportLog, CacheWriter, EgressTable, readiness
//!                            └──── outcome
//! ```

use std::sync::Arc;

use isolet_crds::report::Refused;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::control::{Control, ControlError};
use super::metrics::Metrics;
use super::plan::{Action, Plan};
use super::report::ReportLog;
use crate::bundle::cache::CacheWriter;
use crate::bundle::{Revision, SourceEvent};
use crate::egress::table::EgressTable;

/// Orders under way at once: enough to keep the worker's threads busy compiling.
const ORDERS_AT_ONCE: usize = 8;

/// What the supervisor says.
pub enum WorkerEvent {
    /// A worker is there and serves nothing yet.
    Started(Control),
    /// It is gone; these Functions ran just then, by UID.
    Lost {
        /// From the breadcrumb.
        running: Vec<String>,
    },
}

/// Where the loader writes to.
pub struct Outputs {
    /// What is served, for the operator or the terminal.
    pub report: Arc<ReportLog>,
    /// Who may send requests where.
    pub egress: Arc<EgressTable>,
    /// The disk cache, in a cluster.
    pub cache: Option<CacheWriter>,
    /// Counters.
    pub metrics: Metrics,
    /// True while all that the source told is served.
    pub ready: watch::Sender<bool>,
    /// The worker to ask for metrics.
    pub worker: watch::Sender<Option<Control>>,
}

struct Outcome {
    action: Action,
    result: Result<(), ControlError>,
    generation: u64,
}

/// Runs until both channels are closed.
pub async fn run(
    mut source: mpsc::Receiver<SourceEvent>,
    mut workers: mpsc::Receiver<WorkerEvent>,
    outputs: Outputs,
) {
    let mut loader = Loader {
        plan: Plan::default(),
        orders: JoinSet::new(),
        control: None,
        generation: 0,
        synced: false,
        outputs,
    };
    loop {
        loader.pump();
        tokio::select! {
            event = workers.recv() => match event {
                Some(event) => loader.worker(event),
                None => return,
            },
            Some(event) = source.recv() => loader.source(event),
            Some(outcome) = loader.orders.join_next() => match outcome {
                Ok(outcome) => loader.finished(outcome),
                Err(error) => tracing::error!(%error, "an order to the worker failed"),
            },
        }
    }
}

struct Loader {
    plan: Plan,
    orders: JoinSet<Outcome>,
    control: Option<Control>,
    /// Counts workers: an answer of one that is gone says nothing of the next.
    generation: u64,
    synced: bool,
    outputs: Outputs,
}

impl Loader {
    fn pump(&mut self) {
        while let Some(control) = self.control.clone().filter(|_| self.orders.len() < ORDERS_AT_ONCE) {
            let Some(action) = self.plan.next() else { break };
            if let Action::Put(revision) = &action {
                let before = self.plan.serving(&revision.identity.uid);
                self.outputs.egress.set(&revision.identity, before.into_iter().chain([revision]));
            }
            let generation = self.generation;
            self.orders.spawn(async move {
                let result = match &action {
                    Action::Put(revision) => control.put(revision).await,
                    Action::Delete(uid) => control.delete(uid).await,
                };
                Outcome {
                    action,
                    result,
                    generation,
                }
            });
        }
        let ready = self.synced && self.plan.settled();
        // Once ready, a worker that restarts or a revision under way does not take the pod out of service.
        if ready {
            self.outputs.ready.send_if_modified(|old| !std::mem::replace(old, true));
        }
        self.outputs.metrics.functions.set(self.plan.serving_count() as i64);
    }

    fn source(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Synced => self.synced = true,
            SourceEvent::Changed(change) => {
                let uid = change.uid.clone();
                self.plan.change(change);
                self.report(&uid);
            }
        }
    }

    fn worker(&mut self, event: WorkerEvent) {
        match event {
            WorkerEvent::Started(control) => {
                self.generation += 1;
                self.control = Some(control.clone());
                self.outputs.worker.send_replace(Some(control));
                self.plan.worker_started();
            }
            WorkerEvent::Lost { running } => {
                self.control = None;
                self.outputs.worker.send_replace(None);
                self.generation += 1;
                for uid in self.plan.worker_lost(&running) {
                    self.outputs.metrics.quarantines.inc();
                    tracing::error!(
                        uid,
                        "quarantined a function: the worker crashed twice while it ran; its next revision will run again"
                    );
                    self.report(&uid);
                }
                for uid in self.plan.gone() {
                    self.report(&uid);
                }
            }
        }
    }

    fn finished(&mut self, outcome: Outcome) {
        if outcome.generation != self.generation {
            return;
        }
        match outcome.action {
            Action::Put(revision) => self.put_finished(&revision, outcome.result),
            Action::Delete(uid) => match outcome.result {
                Ok(()) => {
                    self.plan.delete_done(&uid);
                    self.settle(&uid);
                }
                // The supervisor will tell that the worker is lost.
                Err(error) => tracing::warn!(uid, %error, "failed to remove a function from the worker"),
            },
        }
    }

    fn put_finished(&mut self, revision: &Arc<Revision>, result: Result<(), ControlError>) {
        let identity = &revision.identity;
        let outcome: Result<(), Refused> = match result {
            Ok(()) => {
                tracing::info!(
                    namespace = identity.namespace,
                    function = identity.name,
                    revision = revision.name(),
                    "serving"
                );
                Ok(())
            }
            Err(ControlError::Refused(refused)) => {
                tracing::warn!(
                    namespace = identity.namespace,
                    function = identity.name,
                    revision = revision.name(),
                    reason = refused.message,
                    "refused a revision"
                );
                self.outputs.metrics.refusals.inc();
                Err(refused)
            }
            Err(error @ ControlError::Lost(_)) => {
                tracing::debug!(%error, "an order was lost with the worker");
                return;
            }
        };
        let served = outcome.is_ok();
        self.plan.put_done(revision, outcome);
        if let Some(cache) = self.outputs.cache.as_ref().filter(|_| served) {
            cache.store(revision.clone());
        }
        self.settle(&identity.uid);
    }

    /// After an order: policy, cache and report follow what serves now.
    fn settle(&mut self, uid: &str) {
        match self.plan.serving(uid) {
            Some(revision) => self.outputs.egress.set(&revision.identity, [revision]),
            None => self.outputs.egress.remove(uid),
        }
        self.report(uid);
    }

    fn report(&mut self, uid: &str) {
        match self.plan.report(uid) {
            Some(report) => self.outputs.report.set(report),
            None => {
                self.outputs.report.remove(uid);
                self.outputs.egress.remove(uid);
                if let Some(cache) = &self.outputs.cache {
                    cache.remove(uid);
                }
            }
        }
    }
}
