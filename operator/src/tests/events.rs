use super::*;
use serde_json::json;

fn status(
    generation: i64,
    revision: &str,
    conditions: &[(&str, &str, &str, &str)],
) -> FunctionStatus {
    let conditions: Vec<_> = conditions
        .iter()
        .map(|(kind, status, reason, message)| {
            json!({
                "type": kind, "status": status, "reason": reason, "message": message,
                "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        })
        .collect();
    serde_json::from_value(json!({"revision": revision, "conditions": conditions}))
        .expect("a status")
}

fn reasons(before: Option<&FunctionStatus>, after: &FunctionStatus) -> Vec<String> {
    transitions(before, after, 1)
        .into_iter()
        .map(|event| event.reason)
        .collect()
}

#[test]
fn a_revision_that_serves_is_told_once() {
    let going = status(1, "r", &[("Programmed", "False", "Programming", "1 of 2")]);
    let done = status(1, "r", &[("Programmed", "True", "Programmed", "2 of 2")]);
    let more = status(1, "r", &[("Programmed", "True", "Programmed", "3 of 3")]);
    let next = status(2, "s", &[("Programmed", "True", "Programmed", "3 of 3")]);
    assert!(reasons(None, &going).is_empty());
    assert_eq!(reasons(Some(&going), &done), ["Programmed"]);
    assert!(reasons(Some(&done), &done).is_empty());
    assert!(
        reasons(Some(&done), &more).is_empty(),
        "another pod is no news"
    );
    assert_eq!(reasons(Some(&more), &next), ["Programmed"]);
}

#[test]
fn every_new_fault_is_told_once() {
    let rejected = |generation, message| {
        status(
            generation,
            "",
            &[("Accepted", "False", "SyntaxError", message)],
        )
    };
    let first = rejected(1, "main.ts:1:1: a");
    assert_eq!(reasons(None, &first), ["SyntaxError"]);
    assert!(
        reasons(
            Some(&first),
            &rejected(1, "main.ts:1:1: a; revision r goes on serving")
        )
        .is_empty()
    );
    assert!(reasons(Some(&first), &rejected(2, "main.ts:1:1: a")).is_empty());
    assert_eq!(
        reasons(Some(&first), &rejected(2, "main.ts:2:2: b")),
        ["SyntaxError"]
    );
    let unresolved = status(
        1,
        "",
        &[("ResolvedRefs", "False", "RefNotFound", "no Secret")],
    );
    assert_eq!(reasons(None, &unresolved), ["RefNotFound"]);
    let refused = status(
        1,
        "r",
        &[("Programmed", "False", "LoadFailed", "main.ts:1:1: c")],
    );
    assert_eq!(reasons(None, &refused), ["LoadFailed"]);
}

#[test]
fn notes_fit_the_api_servers_limit() {
    let long = "x".repeat(5000);
    let event = transitions(
        None,
        &status(1, "", &[("Accepted", "False", "SyntaxError", &long)]),
        1,
    )
    .remove(0);
    assert!(event.note.expect("a note").len() <= MAX_NOTE_BYTES);
    assert!(event.action.ends_with("Generation1"), "{}", event.action);
}
