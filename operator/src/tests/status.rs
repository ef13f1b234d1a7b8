use super::*;
use clap::Parser as _;
use std::collections::BTreeSet;

fn config() -> Config {
    Config::try_parse_from(["op", "--system-namespace=sys", "--token-file=/t"]).expect("parses")
}

fn function(status: Option<FunctionStatus>) -> Function {
    let mut function: Function = serde_json::from_value(json!({
        "apiVersion": "isolet.dev/v1alpha1", "kind": "Function",
        "metadata": {"name": "f", "namespace": "n", "uid": "u", "generation": 4},
        "spec": {"source": {"inline": ""}},
    }))
    .expect("a Function");
    function.status = status;
    function
}

fn good() -> Verdict {
    Verdict::Good {
        summary: Summary {
            revision: "new".into(),
            size: 9,
            chunks: 1,
            has_secret: false,
        },
        lost: None,
    }
}

fn rejected() -> Verdict {
    Verdict::Rejected(Rejected {
        reason: reason::SYNTAX_ERROR,
        message: "main.ts:1:2: no".into(),
    })
}

/// Of `ready` pods so many serve the revision "new", the rest "old".
fn pods(serving: usize, ready: usize) -> Observation {
    let old = (serving < ready).then(|| "old".to_owned());
    let new = (serving > 0).then(|| "new".to_owned());
    Observation {
        desired: ready,
        ready,
        serving,
        served: old.into_iter().chain(new).collect(),
        ..Observation::default()
    }
}

fn status_of(
    before: Option<FunctionStatus>,
    verdict: &Verdict,
    told: Option<&str>,
    pods: &Observation,
) -> FunctionStatus {
    at(before, verdict, told, pods, "2026-01-01T00:00:01Z")
}

fn at(
    before: Option<FunctionStatus>,
    verdict: &Verdict,
    told: Option<&str>,
    pods: &Observation,
    now: &str,
) -> FunctionStatus {
    let facts = Facts {
        verdict,
        told,
        pods,
    };
    compute(
        &function(before),
        &config(),
        &facts,
        now.parse().expect("a time"),
    )
}

/// `Type=Status/Reason`, sorted.
fn conditions(status: &FunctionStatus) -> Vec<String> {
    let mut all: Vec<_> = status
        .conditions
        .iter()
        .map(|c| format!("{}={}/{}", c.type_, c.status, c.reason))
        .collect();
    all.sort_unstable();
    all
}

fn message<'a>(status: &'a FunctionStatus, kind: &str) -> &'a str {
    let found = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind);
    &found.expect(kind).message
}

#[test]
fn good_and_served_everywhere() {
    let status = status_of(None, &good(), Some("new"), &pods(2, 2));
    assert_eq!(
        conditions(&status),
        [
            "Accepted=True/Accepted",
            "Programmed=True/Programmed",
            "Ready=True/Ready",
            "ResolvedRefs=True/Resolved"
        ]
    );
    assert_eq!(status.url.as_deref(), Some("http://f.n.isolet.local"));
    assert_eq!(
        status.address.expect("one").url,
        "http://isolet.sys.svc.cluster.local/fn/n/f/"
    );
    assert_eq!(status.nodes.expect("some").summary, "2/2");
    assert_eq!(
        (status.observed_generation, status.size),
        (Some(4), Some(9))
    );
    assert!(
        status
            .conditions
            .iter()
            .all(|condition| condition.observed_generation == Some(4))
    );
}

#[test]
fn on_its_way_it_is_reconciling() {
    let status = status_of(None, &good(), Some("new"), &pods(1, 2));
    assert_eq!(
        conditions(&status),
        [
            "Accepted=True/Accepted",
            "Programmed=False/Programming",
            "Ready=False/Programming",
            "Reconciling=True/Programming",
            "ResolvedRefs=True/Resolved"
        ]
    );
    assert_eq!(
        message(&status, "Ready"),
        "1 of 2 ready runtime pods serve revision new"
    );
    let status = status_of(None, &good(), Some("new"), &pods(0, 0));
    assert!(conditions(&status).contains(&"Reconciling=True/NoRuntime".to_owned()));
}

#[test]
fn a_broken_update_keeps_revision_and_size_and_says_what_serves() {
    let before = FunctionStatus {
        size: Some(5),
        ..FunctionStatus::default()
    };
    let mut seen = pods(2, 2);
    seen.served = BTreeSet::from(["old".to_owned()]);
    let status = status_of(Some(before), &rejected(), Some("old"), &seen);
    assert_eq!(
        conditions(&status),
        [
            "Accepted=False/SyntaxError",
            "Programmed=False/Pending",
            "Ready=False/SyntaxError",
            "ResolvedRefs=True/Resolved",
            "Stalled=True/SyntaxError"
        ]
    );
    assert_eq!(
        (status.revision.as_deref(), status.size),
        (Some("old"), Some(5))
    );
    assert_eq!(
        message(&status, "Ready"),
        "main.ts:1:2: no; revision old goes on serving"
    );
}

#[test]
fn a_missing_reference_is_tried_again() {
    let unresolved = Verdict::Unresolved(Unresolved {
        reason: reason::REF_NOT_FOUND,
        message: "spec.env[0]: there is no Secret n/s".into(),
    });
    let status = status_of(None, &unresolved, None, &pods(0, 2));
    assert_eq!(
        conditions(&status),
        [
            "Accepted=Unknown/Pending",
            "Programmed=False/Pending",
            "Ready=False/RefNotFound",
            "Reconciling=True/RefNotFound",
            "ResolvedRefs=False/RefNotFound"
        ]
    );
}

#[test]
fn a_lost_route_serves_but_is_not_ready() {
    let Verdict::Good { summary, .. } = good() else {
        unreachable!()
    };
    let verdict = Verdict::Good {
        summary,
        lost: Some((reason::ROUTE_CONFLICT, "held by a/b".into())),
    };
    let status = status_of(None, &verdict, Some("new"), &pods(2, 2));
    assert_eq!(
        conditions(&status),
        [
            "Accepted=False/RouteConflict",
            "Programmed=True/Programmed",
            "Ready=False/RouteConflict",
            "ResolvedRefs=True/Resolved",
            "Stalled=True/RouteConflict"
        ]
    );
}

#[test]
fn refusal_and_quarantine_are_told_with_numbers() {
    let mut seen = pods(0, 2);
    seen.refused = 2;
    seen.refusal = Some(Refused {
        revision: "new".into(),
        message: "it throws".into(),
        file: Some("main.ts".into()),
        line: Some(3),
        column: Some(5),
    });
    let status = status_of(None, &good(), Some("new"), &seen);
    assert_eq!(
        message(&status, "Ready"),
        "main.ts:3:5: it throws (2 of 2 runtime pods refused revision new); revision old goes on serving"
    );
    assert!(conditions(&status).contains(&"Stalled=True/LoadFailed".to_owned()));

    let mut seen = pods(2, 2);
    seen.quarantined = 1;
    let status = status_of(None, &good(), Some("new"), &seen);
    assert!(conditions(&status).contains(&"Stalled=True/Quarantined".to_owned()));
    assert!(message(&status, "Ready").contains("on 1 of 2 runtime pods"));
}

#[test]
fn a_new_pod_that_has_not_told_yet_changes_nothing() {
    let ready = status_of(None, &good(), Some("new"), &pods(2, 2));
    let mut seen = pods(2, 2);
    (seen.desired, seen.ready, seen.waiting) = (3, 3, 1);
    let status = status_of(Some(ready), &good(), Some("new"), &seen);
    assert!(conditions(&status).contains(&"Ready=True/Ready".to_owned()));
    let status = status_of(None, &good(), Some("new"), &seen);
    assert!(conditions(&status).contains(&"Ready=False/Programming".to_owned()));
}

#[test]
fn transition_times_move_only_with_the_status() {
    let first = at(
        None,
        &good(),
        Some("new"),
        &pods(1, 2),
        "2026-01-01T00:00:01.5Z",
    );
    let second = at(
        Some(first.clone()),
        &good(),
        Some("new"),
        &pods(2, 2),
        "2026-01-01T00:00:09Z",
    );
    let time = |status: &FunctionStatus, kind: &str| {
        let found = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == kind);
        found.expect(kind).last_transition_time.0.to_string()
    };
    assert_eq!(time(&first, "Accepted"), "2026-01-01T00:00:01Z");
    assert_eq!(time(&second, "Accepted"), "2026-01-01T00:00:01Z");
    assert_eq!(time(&second, "Ready"), "2026-01-01T00:00:09Z");
    let third = at(
        Some(second.clone()),
        &good(),
        Some("new"),
        &pods(2, 2),
        "2026-01-01T00:01:00Z",
    );
    assert_eq!(second, third, "the same facts give the same status");
}

#[test]
fn suspended_is_ready_with_a_reason() {
    let mut function = function(None);
    function.spec.suspend = true;
    let (verdict, pods) = (good(), pods(1, 1));
    let facts = Facts {
        verdict: &verdict,
        told: Some("new"),
        pods: &pods,
    };
    let status = compute(&function, &config(), &facts, Timestamp::UNIX_EPOCH);
    assert!(conditions(&status).contains(&"Ready=True/Suspended".to_owned()));
}

#[test]
fn messages_are_one_bounded_line() {
    assert_eq!(bounded("a\nb\u{1b}c", 10), "a b c");
    let long = bounded(&"ä".repeat(100), 51);
    assert!(long.len() <= 51 && long.ends_with('…'), "{long}");
}
