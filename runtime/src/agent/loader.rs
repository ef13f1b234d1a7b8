//! Brings the worker to what the source says: orders out, answers into the report log, the cache and the egress table.
//!
//! ```text
//! source ─ SourceEvent ─┐                      ┌─> Control: PUT, DELETE (a few at once)
//! worker ─ WorkerEvent ─┴─> Plan ─ Action ─────┤
//!                            ^                 └─> ReportLog, CacheWriter, CodeKeeper, EgressTable, readiness
//!                            └──── outcome
//! ```

use std::sync::Arc;
use std::time::Duration;

use isolet_crds::report::Refused;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::code::CodeKeeper;
use super::control::{Control, ControlError};
use super::metrics::Metrics;
use super::plan::{Action, Plan, Wanted};
use super::report::ReportLog;
use crate::bundle::SourceEvent;
use crate::bundle::cache::CacheWriter;
use crate::egress::table::EgressTable;

/// Orders under way at once: enough to keep the worker's threads busy compiling.
const ORDERS_AT_ONCE: usize = 8;
/// Before an order that found no worker is given again: the supervisor is about to tell that it is lost.
const RETRY_DELAY: Duration = Duration::from_millis(50);
/// A worker is opened at the latest after so long, whatever has not loaded by then.
const OPEN_AFTER: Duration = Duration::from_secs(10);
/// After so long without a worker the pod is not ready: one that is replaced at once is nobody's concern.
const UNREADY_AFTER: Duration = Duration::from_secs(3);

/// What the supervisor says.
pub enum WorkerEvent {
    /// A worker is there and serves nothing yet.
    Started(Control),
    /// It is gone.
    Lost {
        /// Functions that count as its cause, by UID, from the breadcrumb.
        blamed: Vec<String>,
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
    /// Compiled code beside it.
    pub code: Option<Arc<CodeKeeper>>,
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
        lost_at: None,
        closed_until: None,
        outputs,
    };
    loop {
        loader.pump();
        let unready_at = loader.lost_at.map(|lost_at| lost_at + UNREADY_AFTER);
        tokio::select! {
            () = tokio::time::sleep_until(unready_at.unwrap_or_else(Instant::now)), if unready_at.is_some() => {
                loader.lost_at = None;
                loader.outputs.ready.send_replace(false);
            }
            () = tokio::time::sleep_until(loader.closed_until.unwrap_or_else(Instant::now)), if loader.closed_until.is_some() => {
                loader.open();
            }
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
    /// When the last worker went, while there is none.
    lost_at: Option<Instant>,
    /// While the worker accepts no connections: when it is opened at the latest.
    closed_until: Option<Instant>,
    outputs: Outputs,
}

impl Loader {
    fn pump(&mut self) {
        while let Some(control) = self
            .control
            .clone()
            .filter(|_| self.orders.len() < ORDERS_AT_ONCE)
        {
            let Some(action) = self.plan.next_action() else {
                break;
            };
            if let Action::Put(wanted) = &action {
                let revision = &wanted.revision;
                let before = self.plan.serving(&revision.identity.uid);
                self.outputs
                    .egress
                    .set(&revision.identity, before.into_iter().chain([revision]));
            }
            let generation = self.generation;
            let code = self.outputs.code.clone();
            self.orders.spawn(async move {
                let result = carry_out(&control, &action, code).await;
                if matches!(result, Err(ControlError::Lost(_))) {
                    tokio::time::sleep(RETRY_DELAY).await;
                }
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
            self.open();
            self.outputs
                .ready
                .send_if_modified(|old| !std::mem::replace(old, true));
        }
        self.outputs
            .metrics
            .functions
            .set(self.plan.serving_count() as i64);
    }

    fn open(&mut self) {
        let Some(control) = self.control.clone() else {
            return;
        };
        if self.closed_until.take().is_none() {
            return;
        }
        tokio::spawn(async move {
            if let Err(error) = control.open().await {
                tracing::debug!(%error, "the worker went before it was opened");
            }
        });
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
                self.lost_at = None;
                self.closed_until = Some(Instant::now() + OPEN_AFTER);
                self.control = Some(control.clone());
                self.outputs.worker.send_replace(Some(control));
                self.plan.worker_started();
            }
            WorkerEvent::Lost { blamed } => {
                self.control = None;
                self.closed_until = None;
                self.lost_at = Some(Instant::now());
                self.outputs.worker.send_replace(None);
                self.generation += 1;
                for uid in self.plan.worker_lost(&blamed) {
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
        let uid = match &outcome.action {
            Action::Put(wanted) => wanted.revision.identity.uid.clone(),
            Action::Delete(uid) => uid.clone(),
        };
        match (&outcome.action, outcome.result) {
            (_, Err(error @ ControlError::Lost(_))) => {
                tracing::warn!(uid, %error, "an order to the worker was not answered; giving it again");
                self.plan.retry(&uid);
                return;
            }
            (Action::Put(wanted), Ok(())) => self.served(wanted),
            (Action::Put(wanted), Err(ControlError::Refused(refused))) => {
                self.refused(wanted, refused)
            }
            // A worker does not refuse this; were it to, there would be nothing else to do.
            (Action::Delete(uid), Ok(()) | Err(ControlError::Refused(_))) => {
                self.plan.delete_done(uid)
            }
        }
        self.settle(&uid);
    }

    fn served(&mut self, wanted: &Wanted) {
        let revision = &wanted.revision;
        tracing::info!(
            namespace = revision.identity.namespace,
            function = revision.identity.name,
            revision = revision.name(),
            suspended = wanted.suspended,
            "serving"
        );
        self.plan.put_done(wanted, Ok(()));
        if let Some(cache) = self.outputs.cache.as_ref().filter(|_| !wanted.suspended) {
            cache.store(revision.clone());
        }
        if let Some(code) = self.outputs.code.as_ref().filter(|_| !wanted.suspended) {
            code.serves(revision);
        }
    }

    fn refused(&mut self, wanted: &Wanted, refused: Refused) {
        let revision = &wanted.revision;
        tracing::warn!(
            namespace = revision.identity.namespace,
            function = revision.identity.name,
            revision = revision.name(),
            reason = refused.message,
            "refused a revision"
        );
        self.outputs.metrics.refusals.inc();
        self.plan.put_done(wanted, Err(refused));
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
                if let Some(code) = &self.outputs.code {
                    code.forget(uid);
                }
            }
        }
    }
}

async fn carry_out(
    control: &Control,
    action: &Action,
    code: Option<Arc<CodeKeeper>>,
) -> Result<(), ControlError> {
    match action {
        Action::Put(Wanted {
            revision,
            suspended: false,
            checked,
        }) => {
            let code = match code {
                Some(keeper) => keeper.code(revision).await,
                None => None,
            };
            control.put(revision, *checked, code).await
        }
        Action::Put(Wanted { revision, .. }) => match revision.suspended() {
            Ok(stand_in) => control.put(&stand_in, false, None).await,
            Err(error) => Err(ControlError::Refused(Refused {
                revision: revision.name().to_owned(),
                message: error.to_string(),
                ..Default::default()
            })),
        },
        Action::Delete(uid) => control.delete(uid).await,
    }
}
