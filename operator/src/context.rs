//! What every part of the operator shares. Nothing is global: tests run several operators in one process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use isolet_crds::Function;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::runtime::events::{Recorder, Reporter};
use kube::{Client, ResourceExt as _};
use tokio::sync::watch;

use crate::FIELD_MANAGER;
use crate::agents::{AgentClient, Agents, Changed};
use crate::build::Summary;
use crate::bundles::BundleIndex;
use crate::config::Config;
use crate::hosts::AllowedHosts;
use crate::metrics::Metrics;
use crate::routes::{FunctionIndex, FunctionRef, Granted, Touched};
use crate::triggers::Triggers;
use crate::validate::Rejected;

/// Shared by the watches, the pollers and every reconcile.
pub(crate) struct Context {
    /// The API server.
    pub client: Client,
    /// The command line.
    pub config: Config,
    /// Publishes Events.
    pub recorder: Recorder,
    /// Counters.
    pub metrics: Metrics,
    /// Live Functions and their claims to routes.
    pub functions: FunctionIndex,
    /// Bundle objects that exist.
    pub bundles: BundleIndex,
    /// Runtime pods and what they serve.
    pub agents: Agents,
    /// The HTTP client for the agents.
    pub agent_client: AgentClient,
    /// Functions to reconcile though they did not change.
    pub triggers: Arc<Triggers<FunctionRef>>,
    /// UIDs whose bundle objects may be nobody's.
    pub orphans: Arc<Triggers<String>>,
    /// Verdicts on code that was judged before.
    pub memory: Memory,
    /// Functions as the operator's own writes left them.
    pub written: Written,
    /// The runtime DaemonSet as an owner.
    pub owner: watch::Sender<Owner>,
    /// Failed attempts in a row, by UID.
    pub attempts: Attempts,
    /// Whether bundles and pods were known once.
    pub settled: tokio::sync::OnceCell<()>,
    /// Undecodable Functions that were reported, by UID.
    pub undecodable: Mutex<HashMap<String, String>>,
}

/// The owner that bundle objects get.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Owner {
    /// None was asked for.
    Unwanted,
    /// The DaemonSet is not there (yet, or any more): nothing is written.
    Absent,
    /// The DaemonSet.
    Found(OwnerReference),
}

impl Context {
    /// Fresh: nothing is known.
    pub(crate) fn new(
        client: Client,
        config: Config,
        hosts: AllowedHosts,
        metrics: Metrics,
    ) -> Self {
        let reporter = Reporter {
            controller: FIELD_MANAGER.to_owned(),
            instance: Some(config.identity.clone()),
        };
        let owner = match config.runtime_daemonset {
            Some(_) => Owner::Absent,
            None => Owner::Unwanted,
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            config,
            metrics,
            functions: FunctionIndex::new(hosts),
            bundles: BundleIndex::default(),
            agents: Agents::default(),
            agent_client: AgentClient::default(),
            triggers: Arc::default(),
            orphans: Arc::default(),
            memory: Memory::default(),
            written: Written::default(),
            owner: watch::Sender::new(owner),
            attempts: Attempts::default(),
            settled: tokio::sync::OnceCell::new(),
            undecodable: Mutex::default(),
        }
    }

    /// Reconciles the Functions that a change of the pods concerns.
    pub(crate) fn agents_changed(&self, changed: Changed) {
        match changed {
            Changed::All => self.triggers.extend(self.functions.all()),
            Changed::Functions(uids) => {
                self.triggers
                    .extend(uids.iter().filter_map(|uid| self.functions.find(uid)));
            }
        }
    }

    /// Takes what a change of the Functions touched.
    pub(crate) fn functions_touched(&self, touched: Touched) {
        self.triggers.extend(touched.reconcile);
        for uid in touched.gone {
            self.memory.forget(&uid);
            self.written.forget(&uid);
            self.attempts.succeeded(&uid);
            self.metrics.forget(&uid);
            self.undecodable
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&uid);
            self.orphans.push(uid);
        }
    }

    /// A bundle object changed: its Function is reconciled, or it is nobody's.
    pub(crate) fn bundle_changed(&self, uid: String) {
        match self.functions.find(&uid) {
            Some(function) => self.triggers.push(function),
            None if self.functions.is_synced() => self.orphans.push(uid),
            None => {}
        }
    }

    /// Looks for bundle objects whose Function is gone, once all of both are known.
    pub(crate) fn look_for_orphans(&self) {
        if self.functions.is_synced() && self.bundles.is_synced() {
            let uids = self.bundles.uids().into_iter();
            self.orphans
                .extend(uids.filter(|uid| self.functions.find(uid).is_none()));
        }
    }

    /// Whether bundles and pods are known well enough to judge a Function by them.
    pub(crate) fn is_settled(&self) -> bool {
        self.bundles.is_synced()
            && self.agents.is_settled()
            && *self.owner.borrow() != Owner::Absent
    }
}

/// What a verdict depends on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Inputs {
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// Versions of referenced objects.
    pub versions: String,
    /// Routes granted.
    pub granted: Granted,
}

/// The last verdict on each Function: code that did not change is not compiled again.
#[derive(Default)]
pub(crate) struct Memory(Mutex<HashMap<String, Judged>>);

type Judged = (Inputs, Result<Summary, Rejected>);

impl Memory {
    /// The verdict, if the inputs are the same.
    pub(crate) fn recall(&self, uid: &str, inputs: &Inputs) -> Option<Result<Summary, Rejected>> {
        let memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, verdict) = memory.get(uid)?;
        (known == inputs).then(|| verdict.clone())
    }

    /// Keeps a verdict.
    pub(crate) fn keep(&self, uid: &str, inputs: Inputs, verdict: Result<Summary, Rejected>) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.insert(uid.to_owned(), (inputs, verdict));
    }

    fn forget(&self, uid: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(uid);
    }
}

/// Functions as the API server answered to the operator's own writes, until the watch has caught up: a reconcile that
/// follows closely would otherwise compute from an old status and be refused.
#[derive(Default)]
pub(crate) struct Written(Mutex<HashMap<String, Arc<Function>>>);

impl Written {
    /// The newer of what the watch has and what was written.
    pub(crate) fn newest(&self, watched: &Function) -> Arc<Function> {
        let uid = watched.uid().unwrap_or_default();
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match written.get(&uid) {
            Some(own) if version(own) > version(watched) => own.clone(),
            Some(_) => {
                written.remove(&uid);
                Arc::new(watched.clone())
            }
            None => Arc::new(watched.clone()),
        }
    }

    /// Keeps the answer to a write.
    pub(crate) fn keep(&self, function: Function) {
        let uid = function.uid().unwrap_or_default();
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.insert(uid, Arc::new(function));
    }

    fn forget(&self, uid: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(uid);
    }
}

fn version(function: &Function) -> u64 {
    function
        .resource_version()
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}

/// Counts failed attempts in a row, for the backoff.
#[derive(Default)]
pub(crate) struct Attempts(Mutex<HashMap<String, u32>>);

impl Attempts {
    /// One more; yields how long to wait: `first`, doubling to `last`.
    pub(crate) fn failed(&self, uid: &str, first: Duration, last: Duration) -> Duration {
        let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = attempts.entry(uid.to_owned()).or_default();
        let wait = first.saturating_mul(1 << (*count).min(16)).min(last);
        *count += 1;
        wait
    }

    /// Starts over.
    pub(crate) fn succeeded(&self, uid: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(uid);
    }
}
