//! Last step: the status, computed by a pure function from what the steps before found, and written only if it differs.
//!
//! ```text
//!                 ResolvedRefs   Accepted          Programmed                Ready     beside
//! reference bad   False          Unknown Pending   False Pending             False     Reconciling (it is tried again)
//! spec bad        True           False             False Pending             False     Stalled
//! route lost      True           False             as the pods say           False     Stalled
//! good            True           True              as the pods say           the same  Reconciling, or Stalled where
//!                                                                                      pods refused it
//! ```
//!
//! `Reconciling` and `Stalled` are there only while they are true, as kstatus has it.

use isolet_crds::condition::{self, reason};
use isolet_crds::report::Refused;
use isolet_crds::{Address, Function, FunctionStatus, NodesStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::json;

use crate::FIELD_MANAGER;
use crate::agents::Observation;
use crate::build::Summary;
use crate::config::Config;
use crate::context::Context;
use crate::dereference::Unresolved;
use crate::validate::Rejected;

/// Longest message of a condition, in bytes; tenants' code writes parts of it.
const MAX_MESSAGE_BYTES: usize = 2048;

/// What the steps before came to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// A reference cannot be resolved.
    Unresolved(Unresolved),
    /// The spec or the code is bad.
    Rejected(Rejected),
    /// The spec is good; `lost` is the reason and message of a route that the Function serves without.
    Good {
        /// The bundle.
        summary: Summary,
        /// A route denied.
        lost: Option<(&'static str, String)>,
    },
}

/// All that a status is made of.
pub(crate) struct Facts<'a> {
    /// What the steps before came to.
    pub verdict: &'a Verdict,
    /// The revision that runtime pods are told to serve.
    pub told: Option<&'a str>,
    /// What they make of that revision.
    pub pods: &'a Observation,
}

/// The status was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StatusError {
    /// The Function changed meanwhile; its watch brings the change.
    #[error("the Function has changed meanwhile")]
    Conflict,
    /// The API server did not take it.
    #[error("failed to write the status: {0}")]
    Api(#[source] Box<kube::Error>),
}

struct State {
    status: &'static str,
    reason: &'static str,
    message: String,
}

impl State {
    fn new(good: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: if good { "True" } else { "False" },
            reason,
            message: message.into(),
        }
    }

    fn holds(&self) -> bool {
        self.status == "True"
    }
}

/// Computes the status. Pure.
pub(crate) fn compute(
    function: &Function,
    config: &Config,
    facts: &Facts<'_>,
    now: Timestamp,
) -> FunctionStatus {
    let before = function.status.clone().unwrap_or_default();
    let (namespace, name) = (
        function.namespace().unwrap_or_default(),
        function.name_any(),
    );
    let generation = function.metadata.generation;

    let refs = resolved_refs(facts);
    let accepted = accepted(facts);
    let programmed = programmed(&before, facts);
    let ready = ready(function, &refs, &accepted, &programmed);
    let (reconciling, stalled) = progress(facts, &ready, &programmed);

    let states = [
        (condition::READY, Some(ready)),
        (condition::ACCEPTED, Some(accepted)),
        (condition::RESOLVED_REFS, Some(refs)),
        (condition::PROGRAMMED, Some(programmed)),
        (condition::RECONCILING, reconciling),
        (condition::STALLED, stalled),
    ];
    let conditions = states
        .into_iter()
        .filter_map(|(kind, state)| Some(condition_of(kind, state?, generation, &before, now)))
        .collect();
    let size = match facts.verdict {
        Verdict::Good { summary, .. } => i64::try_from(summary.size).ok(),
        _ => before.size,
    };
    FunctionStatus {
        observed_generation: generation,
        conditions,
        url: Some(format!("http://{name}.{namespace}.{}", config.domain)),
        address: Some(Address {
            url: format!(
                "http://{}.{}.svc.cluster.local/fn/{namespace}/{name}/",
                config.runtime_service, config.system_namespace
            ),
        }),
        revision: facts.told.map(str::to_owned),
        nodes: Some(NodesStatus {
            ready: facts.pods.serving as i32,
            desired: facts.pods.desired as i32,
            summary: format!("{}/{}", facts.pods.serving, facts.pods.desired),
        }),
        size,
    }
}

fn resolved_refs(facts: &Facts<'_>) -> State {
    match facts.verdict {
        Verdict::Unresolved(unresolved) => State::new(
            false,
            unresolved.reason,
            goes_on(&unresolved.message, facts),
        ),
        _ => State::new(true, reason::RESOLVED, "all references are resolved"),
    }
}

fn accepted(facts: &Facts<'_>) -> State {
    match facts.verdict {
        Verdict::Unresolved(_) => State {
            status: "Unknown",
            reason: reason::PENDING,
            message: "the spec is judged once ResolvedRefs is true".into(),
        },
        Verdict::Rejected(rejected) => {
            State::new(false, rejected.reason, goes_on(&rejected.message, facts))
        }
        Verdict::Good {
            lost: Some((reason, message)),
            ..
        } => State::new(
            false,
            reason,
            format!("{message}; the Function serves without that route"),
        ),
        Verdict::Good { .. } => State::new(
            true,
            reason::ACCEPTED,
            "the spec is valid and the code parses",
        ),
    }
}

fn programmed(before: &FunctionStatus, facts: &Facts<'_>) -> State {
    let Verdict::Good { summary, .. } = facts.verdict else {
        let message = goes_on("there is no bundle of this generation", facts);
        return State::new(false, reason::PENDING, message);
    };
    let (pods, revision) = (facts.pods, summary.revision.as_str());
    let serves = format!(
        "{} of {} ready runtime pods serve revision {revision}",
        pods.serving, pods.ready
    );
    // New pods that have not told yet change nothing about a revision that serves on all others.
    let known = before.revision.as_deref() == Some(revision)
        && before
            .conditions
            .iter()
            .any(|c| c.type_ == condition::PROGRAMMED && c.status == "True");
    let unchanged = known && pods.waiting > 0 && pods.serving + pods.waiting == pods.ready;
    if pods.quarantined > 0 {
        State::new(
            false,
            reason::QUARANTINED,
            format!(
                "the Function crashed the worker repeatedly on {} of {} runtime pods, which do not run it any more; change \
                 the code, or delete and create the Function again",
                pods.quarantined, pods.ready
            ),
        )
    } else if let Some(refusal) = &pods.refusal {
        let why = format!(
            "{} ({} of {} runtime pods refused revision {revision})",
            located(refusal),
            pods.refused,
            pods.ready
        );
        let old = pods.served.iter().find(|served| *served != revision);
        let message = match old {
            Some(old) => format!("{why}; revision {old} goes on serving"),
            None => why,
        };
        State::new(false, reason::LOAD_FAILED, message)
    } else if pods.is_programmed() || unchanged {
        State::new(true, reason::PROGRAMMED, serves)
    } else if pods.ready == 0 {
        let message = format!(
            "no runtime pod is ready, of {} that there are; look at the pods of the runtime DaemonSet",
            pods.desired
        );
        State::new(false, reason::NO_RUNTIME, message)
    } else if let Some(silent) = pods.silent.first() {
        let message = format!("{serves}; runtime pod {silent} does not answer the operator");
        State::new(false, reason::PROGRAMMING, message)
    } else {
        State::new(false, reason::PROGRAMMING, serves)
    }
}

fn ready(function: &Function, refs: &State, accepted: &State, programmed: &State) -> State {
    // An Unknown Accepted only follows from the references.
    for state in [refs, accepted, programmed] {
        if state.status == "False" {
            return State::new(false, state.reason, state.message.clone());
        }
    }
    if function.spec.suspend {
        return State::new(
            true,
            reason::SUSPENDED,
            "spec.suspend is true: every request is answered 503",
        );
    }
    State::new(true, reason::READY, programmed.message.clone())
}

fn progress(
    facts: &Facts<'_>,
    ready: &State,
    programmed: &State,
) -> (Option<State>, Option<State>) {
    if ready.holds() {
        return (None, None);
    }
    let state = Some(State::new(true, ready.reason, ready.message.clone()));
    let tried_again = match facts.verdict {
        Verdict::Unresolved(_) => true,
        Verdict::Rejected(_) | Verdict::Good { lost: Some(_), .. } => false,
        Verdict::Good { .. } => {
            [reason::PROGRAMMING, reason::NO_RUNTIME].contains(&programmed.reason)
        }
    };
    if tried_again {
        (state, None)
    } else {
        (None, state)
    }
}

fn goes_on(message: &str, facts: &Facts<'_>) -> String {
    let served = &facts.pods.served;
    let told = facts.told.filter(|told| served.contains(*told));
    match told.or_else(|| served.first().map(String::as_str)) {
        Some(revision) => format!("{message}; revision {revision} goes on serving"),
        None => message.to_owned(),
    }
}

fn located(refused: &Refused) -> String {
    let place = match (&refused.file, refused.line, refused.column) {
        (Some(file), Some(line), Some(column)) => format!("{file}:{line}:{column}"),
        (Some(file), Some(line), None) => format!("{file}:{line}"),
        (Some(file), ..) => file.clone(),
        _ => return refused.message.clone(),
    };
    if refused.message.contains(&place) {
        return refused.message.clone();
    }
    format!("{place}: {}", refused.message)
}

fn condition_of(
    kind: &str,
    state: State,
    generation: Option<i64>,
    before: &FunctionStatus,
    now: Timestamp,
) -> Condition {
    let since = before
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind && condition.status == state.status)
        .map(|condition| condition.last_transition_time.clone());
    Condition {
        type_: kind.to_owned(),
        status: state.status.to_owned(),
        reason: state.reason.to_owned(),
        message: bounded(&state.message, MAX_MESSAGE_BYTES),
        observed_generation: generation,
        last_transition_time: since.unwrap_or(Time(whole_seconds(now))),
    }
}

/// The API server keeps whole seconds; anything finer would differ from what is read back.
fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// One line of at most `limit` bytes.
pub(crate) fn bounded(text: &str, limit: usize) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if line.len() <= limit {
        return line;
    }
    let mut end = limit.saturating_sub("…".len());
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &line[..end])
}

/// Writes the status where it differs; yields the Function as it is then, or nothing.
pub(crate) async fn write(
    context: &Context,
    function: &Function,
    status: &FunctionStatus,
) -> Result<Option<Function>, StatusError> {
    if function.status.as_ref() == Some(status) {
        return Ok(None);
    }
    let namespace = function.namespace().unwrap_or_default();
    // The resource version makes it fail where the status was computed from an old state.
    let patch = json!({
        "apiVersion": Function::api_version(&()),
        "kind": Function::kind(&()),
        "metadata": {
            "name": function.name_any(),
            "uid": function.metadata.uid,
            "resourceVersion": function.metadata.resource_version,
        },
        "status": status,
    });
    let functions: Api<Function> = Api::namespaced(context.client.clone(), &namespace);
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match functions
        .patch_status(&function.name_any(), &params, &Patch::Apply(&patch))
        .await
    {
        Ok(written) => Ok(Some(written)),
        Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => {
            Err(StatusError::Conflict)
        }
        Err(error) => Err(StatusError::Api(Box::new(error))),
    }
}

#[cfg(test)]
#[path = "tests/status.rs"]
mod tests;
