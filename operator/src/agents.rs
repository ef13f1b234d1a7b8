//! What the runtime pods serve: a watch of the pods, one long poll a pod (`poll`), and the state that both keep.
//!
//! ```text
//! pod watch ──> pods (ready, terminating, address) ──┐
//! poll ──> GET /v1/functions?since=… ──> reports ────┴─> observe(uid, revision) ──> Programmed
//!                                   └─> triggers the Functions concerned
//! ```
//!
//! A pod is polled as soon as it has an address, so that what it serves is known when it becomes ready. A ready pod that
//! has not answered yet is waited for, at most [`GRACE`]: then it counts as one that does not serve. Without that, every
//! new pod and every start of the operator would make all Functions look broken for a moment.

mod poll;

pub(crate) use poll::AgentClient;
pub(crate) use poll::jitter;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, pin_mut};
use isolet_crds::report::{FunctionReport, FunctionsReport, Refused};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use tokio_util::task::AbortOnDropHandle;

use crate::context::Context;

/// How long a pod may be silent before it counts as not serving.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// The runtime pods by name.
#[derive(Default)]
pub(crate) struct Agents {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    pods: BTreeMap<String, Runtime>,
    listed: bool,
}

/// One runtime pod.
struct Runtime {
    uid: String,
    address: Option<IpAddr>,
    ready: bool,
    terminating: bool,
    hearing: Hearing,
    functions: HashMap<String, FunctionReport>,
    poller: Option<AbortOnDropHandle<()>>,
}

/// What is known of a pod's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hearing {
    /// It has not answered yet, and still may.
    Waiting,
    /// Its state is known.
    Heard,
    /// It has not answered for [`GRACE`].
    Silent,
}

/// What the runtime pods make of one revision of one Function.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Observation {
    /// Pods that are not being deleted.
    pub desired: usize,
    /// Those of them that are ready.
    pub ready: usize,
    /// Ready pods that serve the revision.
    pub serving: usize,
    /// Ready pods that have not told yet.
    pub waiting: usize,
    /// Names of ready pods that do not answer the operator.
    pub silent: Vec<String>,
    /// Pods that refused the revision.
    pub refused: usize,
    /// The first refusal.
    pub refusal: Option<Refused>,
    /// Pods that do not run the Function any more.
    pub quarantined: usize,
    /// All revisions that some pod serves.
    pub served: BTreeSet<String>,
}

impl Observation {
    /// Every ready pod serves the revision, and there is one.
    pub(crate) fn is_programmed(&self) -> bool {
        self.serving > 0 && self.serving == self.ready && self.quarantined == 0
    }
}

/// Whose state changed.
#[derive(Debug, PartialEq)]
pub(crate) enum Changed {
    /// The state of these Functions.
    Functions(Vec<String>),
    /// The number of pods, or what is known of one: every Function's.
    All,
}

impl Agents {
    /// What the pods make of a revision.
    pub(crate) fn observe(&self, uid: &str, revision: &str) -> Observation {
        let inner = self.lock();
        let mut seen = Observation::default();
        for (name, pod) in inner.pods.iter().filter(|(_, pod)| !pod.terminating) {
            seen.desired += 1;
            let report = pod.functions.get(uid);
            let serving = report.and_then(|report| report.serving.as_ref());
            seen.served
                .extend(serving.map(|serving| serving.revision.clone()));
            if !pod.ready {
                continue;
            }
            seen.ready += 1;
            match pod.hearing {
                Hearing::Waiting => seen.waiting += 1,
                Hearing::Silent => seen.silent.push(name.clone()),
                Hearing::Heard => {
                    seen.serving += usize::from(serving.is_some_and(|s| s.revision == revision));
                }
            }
            let Some(report) = report else { continue };
            seen.quarantined += usize::from(report.quarantined);
            if let Some(refused) = report.refused.as_ref().filter(|r| r.revision == revision) {
                seen.refused += 1;
                seen.refusal.get_or_insert_with(|| refused.clone());
            }
        }
        seen
    }

    /// Whether the pods were listed and every ready one has answered or had its time.
    pub(crate) fn is_settled(&self) -> bool {
        let inner = self.lock();
        inner.listed
            && !inner
                .pods
                .values()
                .any(|pod| pod.ready && !pod.terminating && pod.hearing == Hearing::Waiting)
    }

    /// Takes what a pod answered.
    fn merge(&self, pod: &str, uid: &str, report: FunctionsReport) -> Changed {
        let mut inner = self.lock();
        let Some(pod) = inner.pods.get_mut(pod).filter(|pod| pod.uid == uid) else {
            return Changed::Functions(Vec::new());
        };
        let first = pod.hearing != Hearing::Heard;
        pod.hearing = Hearing::Heard;
        let mut changed = Vec::new();
        if report.full {
            let listed: HashSet<&str> = report.functions.iter().map(|f| f.uid.as_str()).collect();
            let gone = pod
                .functions
                .keys()
                .filter(|uid| !listed.contains(uid.as_str()));
            changed.extend(gone.cloned());
            pod.functions.retain(|uid, _| listed.contains(uid.as_str()));
        }
        for uid in report.removed {
            pod.functions.remove(&uid);
            changed.push(uid);
        }
        for function in report.functions {
            let uid = function.uid.clone();
            let before = pod.functions.insert(uid.clone(), function);
            if before.as_ref() != pod.functions.get(&uid) {
                changed.push(uid);
            }
        }
        if first {
            Changed::All
        } else {
            Changed::Functions(changed)
        }
    }

    /// A pod had its time and did not answer. True where that is news.
    fn silence(&self, pod: &str, uid: &str) -> bool {
        let mut inner = self.lock();
        let Some(pod) = inner.pods.get_mut(pod).filter(|pod| pod.uid == uid) else {
            return false;
        };
        std::mem::replace(&mut pod.hearing, Hearing::Silent) != Hearing::Silent
    }

    /// Takes a pod from the watch; `poll` starts its poller where it has a new address. True if Functions are concerned.
    fn applied(
        &self,
        pod: &Pod,
        poll: impl FnOnce(String, String, IpAddr) -> AbortOnDropHandle<()>,
    ) -> bool {
        let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
        let status = pod.status.as_ref();
        let ended = status
            .and_then(|status| status.phase.as_deref())
            .is_some_and(|phase| phase == "Succeeded" || phase == "Failed");
        let terminating = ended || pod.metadata.deletion_timestamp.is_some();
        let ready = status
            .and_then(|status| status.conditions.as_ref())
            .into_iter()
            .flatten()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True");
        let address = status
            .and_then(|status| status.pod_ip.as_deref())
            .and_then(|ip| ip.parse::<IpAddr>().ok());

        let mut inner = self.lock();
        let same = inner.pods.remove(&name).filter(|known| known.uid == uid);
        let before = same.as_ref().map(|known| (known.ready, known.terminating));
        let mut runtime = same.unwrap_or_else(|| Runtime {
            uid: uid.clone(),
            address: None,
            ready: false,
            terminating: false,
            hearing: Hearing::Waiting,
            functions: HashMap::new(),
            poller: None,
        });
        runtime.ready = ready;
        runtime.terminating = terminating;
        if ended {
            runtime.poller = None;
        } else if let Some(new) = address.filter(|new| runtime.address != Some(*new)) {
            runtime.address = Some(new);
            runtime.poller = Some(poll(name.clone(), uid, new));
        }
        inner.pods.insert(name, runtime);
        before != Some((ready, terminating))
    }

    fn deleted(&self, pod: &Pod) -> bool {
        let mut inner = self.lock();
        let name = pod.name_any();
        let known = inner
            .pods
            .get(&name)
            .is_some_and(|known| Some(&known.uid) == pod.uid().as_ref());
        known && inner.pods.remove(&name).is_some()
    }

    /// Forgets pods that a complete list did not name. True if there were any, or it was the first list.
    fn listed(&self, seen: &HashSet<String>) -> bool {
        let mut inner = self.lock();
        let before = inner.pods.len();
        inner.pods.retain(|name, _| seen.contains(name));
        let first = !std::mem::replace(&mut inner.listed, true);
        first || inner.pods.len() != before
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows the runtime pods until dropped.
pub(crate) async fn run(context: Arc<Context>) {
    let config = &context.config;
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &config.system_namespace);
    let events = watcher(
        pods,
        watcher::Config::default().labels(&config.runtime_selector),
    )
    .default_backoff();
    pin_mut!(events);
    let start = |name: String, uid: String, address: IpAddr| {
        AbortOnDropHandle::new(tokio::spawn(poll::run(context.clone(), name, uid, address)))
    };
    let mut seen = HashSet::new();
    while let Some(event) = events.next().await {
        let news = match event {
            Ok(watcher::Event::Init) => {
                seen.clear();
                false
            }
            Ok(watcher::Event::InitApply(pod)) => {
                seen.insert(pod.name_any());
                context.agents.applied(&pod, start)
            }
            Ok(watcher::Event::Apply(pod)) => context.agents.applied(&pod, start),
            Ok(watcher::Event::Delete(pod)) => context.agents.deleted(&pod),
            Ok(watcher::Event::InitDone) => context.agents.listed(&seen),
            Err(error) => {
                tracing::warn!(%error, "failed to watch runtime pods");
                false
            }
        };
        if news {
            context.agents_changed(Changed::All);
        }
    }
}

#[cfg(test)]
#[path = "tests/agents.rs"]
mod tests;
