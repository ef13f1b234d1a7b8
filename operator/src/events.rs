//! Events on a Function, one function a reason, published when a condition changes and never per loop.

use isolet_crds::condition::{self, reason};
use isolet_crds::{Function, FunctionStatus};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource as _;
use kube::runtime::events::{Event, EventType, Recorder};

use crate::status::bounded;

/// The API server's limit for a note, in bytes.
const MAX_NOTE_BYTES: usize = 1024;

/// Publishes what changed from one status to the next. Failures are logged: an Event is not worth another reconcile.
pub(crate) async fn publish(recorder: &Recorder, function: &Function, after: &FunctionStatus) {
    let object = function.object_ref(&());
    let generation = function.metadata.generation.unwrap_or_default();
    for event in transitions(function.status.as_ref(), after, generation) {
        send(recorder, &object, event).await;
    }
}

/// Tells that an object cannot be decoded.
pub(crate) async fn publish_undecodable(
    recorder: &Recorder,
    object: &ObjectReference,
    error: &str,
) {
    send(recorder, object, undecodable(error)).await;
}

async fn send(recorder: &Recorder, object: &ObjectReference, event: Event) {
    if let Err(error) = recorder.publish(&event, object).await {
        tracing::debug!(%error, reason = event.reason, "failed to publish an Event");
    }
}

/// The Events of a transition. Pure.
pub(crate) fn transitions(
    before: Option<&FunctionStatus>,
    after: &FunctionStatus,
    generation: i64,
) -> Vec<Event> {
    let news = |kind: &str| {
        let new = find(after, kind)?;
        let old = before.and_then(|before| find(before, kind));
        // A message alone (2 of 5 pods, 3 of 5 pods) is no transition, save where it tells of another fault.
        let same = old.is_some_and(|old| {
            old.status == new.status
                && old.reason == new.reason
                && (old.message == new.message
                    || old.observed_generation == new.observed_generation)
        });
        (!same).then_some(new)
    };
    let mut events = Vec::new();
    if let Some(refs) = news(condition::RESOLVED_REFS).filter(|c| c.status == "False") {
        events.push(unresolved(refs));
    }
    if let Some(accepted) = news(condition::ACCEPTED).filter(|c| c.status == "False") {
        events.push(rejected(accepted));
    }
    let revision = after.revision.as_deref().unwrap_or_default();
    let moved = before.and_then(|before| before.revision.as_deref()) != Some(revision);
    if let Some(programmed) = find(after, condition::PROGRAMMED) {
        let changed = news(condition::PROGRAMMED).is_some();
        match programmed.reason.as_str() {
            reason::PROGRAMMED if changed || moved => events.push(serving(programmed)),
            reason::LOAD_FAILED if changed => events.push(load_failed(programmed)),
            reason::QUARANTINED if changed => events.push(quarantined(programmed)),
            reason::NO_RUNTIME if changed => events.push(no_runtime(programmed)),
            _ => {}
        }
    }
    for event in &mut events {
        // Events that differ in nothing but the note are counted as one, with the first note: tell them apart.
        event.action = format!("{}Generation{generation}", event.action);
    }
    events
}

fn find<'a>(status: &'a FunctionStatus, kind: &str) -> Option<&'a Condition> {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind)
}

fn unresolved(condition: &Condition) -> Event {
    warning(&condition.reason, &condition.message, "Resolve")
}

fn rejected(condition: &Condition) -> Event {
    warning(&condition.reason, &condition.message, "Accept")
}

fn serving(condition: &Condition) -> Event {
    Event {
        type_: EventType::Normal,
        ..warning(reason::PROGRAMMED, &condition.message, "Program")
    }
}

fn load_failed(condition: &Condition) -> Event {
    warning(reason::LOAD_FAILED, &condition.message, "Program")
}

fn quarantined(condition: &Condition) -> Event {
    warning(reason::QUARANTINED, &condition.message, "Program")
}

fn no_runtime(condition: &Condition) -> Event {
    warning(reason::NO_RUNTIME, &condition.message, "Program")
}

fn undecodable(error: &str) -> Event {
    let note = format!("the operator cannot read this Function and leaves it as it is: {error}");
    warning("Undecodable", &note, "Decode")
}

fn warning(reason: &str, note: &str, action: &str) -> Event {
    Event {
        type_: EventType::Warning,
        reason: reason.to_owned(),
        note: Some(bounded(note, MAX_NOTE_BYTES)),
        action: action.to_owned(),
        secondary: None,
    }
}

#[cfg(test)]
#[path = "tests/events.rs"]
mod tests;
