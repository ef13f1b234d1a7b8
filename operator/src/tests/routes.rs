use super::*;
use serde_json::json;

fn function(namespace: &str, name: &str, created: i64, routes: &[(&str, &str)]) -> Guarded {
    let routes: Vec<_> = routes
        .iter()
        .map(|(host, path)| json!({"host": host, "path": path}))
        .collect();
    serde_json::from_value(json!({
        "apiVersion": "isolet.dev/v1alpha1", "kind": "Function",
        "metadata": {
            "namespace": namespace, "name": name, "uid": format!("uid-{name}"),
            "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z"),
        },
        "spec": {"source": {"inline": ""}, "routes": routes},
    }))
    .expect("a Function")
}

fn index(hosts: &str) -> FunctionIndex {
    FunctionIndex::new(AllowedHosts::parse(hosts, "isolet.local").expect("parses"))
}

fn grant(index: &FunctionIndex, object: &Guarded) -> Granted {
    index.grant(object.0.as_ref().expect("decoded"))
}

fn names(references: &[FunctionRef]) -> Vec<&str> {
    let mut names: Vec<_> = references.iter().map(|r| r.name.as_str()).collect();
    names.sort_unstable();
    names
}

#[test]
fn the_older_holds_a_route_and_the_newer_is_told_by_whom() {
    let index = index(r#"{"*": ["*"]}"#);
    let (old, new) = (
        function("a", "old", 1, &[("x.a.test", "/v1")]),
        function("b", "new", 2, &[("x.a.test", "/v1/"), ("x.a.test", "/v2")]),
    );
    index.applied(&new);
    assert_eq!(grant(&index, &new).denied, None);
    let touched = index.applied(&old);
    assert_eq!(names(&touched.reconcile), ["new"]);
    let granted = grant(&index, &new);
    assert_eq!(granted.routes.len(), 1);
    let (reason, message) = granted.denied.expect("denied");
    assert_eq!(reason, reason::ROUTE_CONFLICT);
    assert!(
        message.contains("x.a.test path /v1/ is held by Function a/old"),
        "{message}"
    );
    assert_eq!(grant(&index, &old).denied, None);
}

#[test]
fn a_route_let_go_wakes_the_one_that_waits() {
    let index = index(r#"{"*": ["*"]}"#);
    let holder = function("a", "holder", 1, &[("x.a.test", "/")]);
    let waiting = function("a", "waiting", 2, &[("x.a.test", "/")]);
    index.applied(&holder);
    index.applied(&waiting);
    let touched = index.applied(&function("a", "holder", 1, &[]));
    assert_eq!(names(&touched.reconcile), ["waiting"]);
    assert_eq!(grant(&index, &waiting).denied, None);

    index.applied(&holder);
    let touched = index.deleted(&holder);
    assert_eq!(names(&touched.reconcile), ["waiting"]);
    assert_eq!(touched.gone, ["uid-holder"]);
}

#[test]
fn a_tie_goes_to_the_smaller_uid() {
    let index = index(r#"{"*": ["*"]}"#);
    let (a, b) = (
        function("n", "a", 1, &[("x.a.test", "/")]),
        function("n", "b", 1, &[("x.a.test", "/")]),
    );
    index.applied(&b);
    index.applied(&a);
    assert_eq!(grant(&index, &a).denied, None);
    assert!(grant(&index, &b).denied.is_some());
}

#[test]
fn a_claim_without_permission_blocks_nobody() {
    let index = index(r#"{"shop": ["shop.test"]}"#);
    let squatter = function("evil", "squatter", 1, &[("shop.test", "/")]);
    let owner = function("shop", "owner", 2, &[("shop.test", "/")]);
    index.applied(&squatter);
    index.applied(&owner);
    assert_eq!(grant(&index, &owner).denied, None);
    let (reason, message) = grant(&index, &squatter).denied.expect("denied");
    assert_eq!(reason, reason::HOST_NOT_ALLOWED);
    assert!(
        message.contains("namespace evil may not claim host shop.test"),
        "{message}"
    );
    assert!(index.replace_hosts(AllowedHosts::none("isolet.local")));
    assert!(grant(&index, &owner).denied.is_some());
}

#[test]
fn what_a_restarted_watch_does_not_list_is_gone() {
    let index = index(r#"{"*": ["*"]}"#);
    index.listing();
    index.applied(&function("n", "stays", 2, &[("x.a.test", "/")]));
    index.applied(&function("n", "goes", 1, &[("x.a.test", "/")]));
    assert!(!index.is_synced());
    assert_eq!(index.listed(), Touched::default());
    assert!(index.is_synced());
    index.listing();
    index.applied(&function("n", "stays", 2, &[("x.a.test", "/")]));
    assert!(
        index.find("uid-goes").is_some(),
        "kept until the list is complete"
    );
    let touched = index.listed();
    assert_eq!(touched.gone, ["uid-goes"]);
    assert_eq!(names(&touched.reconcile), ["stays"]);
    assert!(index.find("uid-goes").is_none());
}
