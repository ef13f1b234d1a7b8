use super::*;
use isolet_crds::report::Serving;
use serde_json::json;

fn pod(name: &str, ready: bool) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "uid": format!("uid-{name}")},
        "status": {
            "podIP": "10.0.0.1", "phase": "Running",
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
        },
    }))
    .expect("a pod")
}

fn apply(agents: &Agents, pod: &Pod) -> bool {
    agents.applied(pod, |_, _, _| {
        AbortOnDropHandle::new(tokio::spawn(std::future::pending()))
    })
}

fn serving(uid: &str, revision: &str) -> FunctionReport {
    FunctionReport {
        uid: uid.into(),
        serving: Some(Serving {
            revision: revision.into(),
        }),
        ..FunctionReport::default()
    }
}

fn report(full: bool, functions: Vec<FunctionReport>) -> FunctionsReport {
    FunctionsReport {
        cursor: "e.1".into(),
        full,
        functions,
        removed: Vec::new(),
    }
}

#[tokio::test]
async fn programmed_when_every_ready_pod_serves() {
    let agents = Agents::default();
    assert!(!agents.is_settled());
    agents.listed(&HashSet::new());
    assert!(agents.is_settled());
    assert!(
        !agents.observe("u", "r").is_programmed(),
        "no pod is not enough"
    );

    assert!(apply(&agents, &pod("a", true)));
    assert!(!apply(&agents, &pod("a", true)), "no news");
    assert!(!agents.is_settled());
    assert_eq!(agents.observe("u", "r").waiting, 1);
    assert_eq!(
        agents.merge("a", "uid-a", report(true, vec![serving("u", "r")])),
        Changed::All
    );
    assert!(agents.is_settled());
    assert!(agents.observe("u", "r").is_programmed());
    assert!(!agents.observe("u", "s").is_programmed());

    apply(&agents, &pod("b", false));
    let seen = agents.observe("u", "r");
    assert_eq!((seen.desired, seen.ready, seen.serving), (2, 1, 1));
    assert!(
        seen.is_programmed(),
        "a pod that is not ready does not count"
    );
    apply(&agents, &pod("b", true));
    assert!(!agents.observe("u", "r").is_programmed());
    assert!(agents.silence("b", "uid-b"));
    assert!(!agents.silence("b", "uid-b"), "told once");
    assert_eq!(agents.observe("u", "r").silent, ["b"]);
    agents.merge("b", "uid-b", report(true, vec![serving("u", "r")]));
    assert!(agents.observe("u", "r").is_programmed());
}

#[tokio::test]
async fn deltas_tell_whose_state_changed() {
    let agents = Agents::default();
    apply(&agents, &pod("a", true));
    agents.merge(
        "a",
        "uid-a",
        report(true, vec![serving("u", "r"), serving("v", "r")]),
    );
    let changed = agents.merge(
        "a",
        "uid-a",
        report(false, vec![serving("u", "s"), serving("v", "r")]),
    );
    assert_eq!(changed, Changed::Functions(vec!["u".into()]));
    let mut removal = report(false, Vec::new());
    removal.removed.push("v".into());
    assert_eq!(
        agents.merge("a", "uid-a", removal),
        Changed::Functions(vec!["v".into()])
    );
    // After a restart of the agent the whole state comes, without what is gone.
    let changed = agents.merge("a", "uid-a", report(true, Vec::new()));
    assert_eq!(changed, Changed::Functions(vec!["u".into()]));
    assert!(agents.observe("u", "s").served.is_empty());
}

#[tokio::test]
async fn a_pod_of_the_same_name_starts_over() {
    let agents = Agents::default();
    apply(&agents, &pod("a", true));
    agents.merge("a", "uid-a", report(true, vec![serving("u", "r")]));
    let mut next = pod("a", true);
    next.metadata.uid = Some("uid-next".into());
    apply(&agents, &next);
    assert_eq!(agents.observe("u", "r").serving, 0);
    let late = agents.merge("a", "uid-a", report(true, vec![serving("u", "r")]));
    assert_eq!(
        late,
        Changed::Functions(Vec::new()),
        "the old pod's answer comes too late"
    );
    assert!(!agents.deleted(&pod("a", true)), "so does its deletion");
    assert!(agents.deleted(&next));
}

#[tokio::test]
async fn a_terminating_pod_does_not_count() {
    let agents = Agents::default();
    let mut going = pod("a", true);
    going.metadata.deletion_timestamp =
        serde_json::from_value(json!("2026-01-01T00:00:00Z")).expect("a time");
    apply(&agents, &going);
    assert_eq!(agents.observe("u", "r").desired, 0);
}
