use super::*;
use serde_json::json;

pub(crate) fn meta(
    uid: &str,
    revision: &str,
    chunk: (usize, usize),
    sequence: u64,
    version: u64,
) -> ObjectMeta {
    serde_json::from_value(json!({
        "name": format!("fn-{uid}-{revision}-{}", chunk.0),
        "uid": format!("object-{revision}-{}", chunk.0),
        "resourceVersion": version.to_string(),
        "labels": {
            labels::FUNCTION_UID: uid, labels::FUNCTION_NAMESPACE: "n", labels::FUNCTION_NAME: "f",
            labels::REVISION: revision,
        },
        "annotations": {
            labels::SEQUENCE: sequence.to_string(), labels::CHUNK: chunk.0.to_string(), labels::CHUNKS: chunk.1.to_string(),
        },
    }))
    .expect("metadata")
}

#[test]
fn a_revision_is_complete_with_all_its_objects() {
    let index = BundleIndex::default();
    index.applied(Kind::ConfigMap, &meta("u", "r", (1, 2), 1, 1));
    assert!(!index.revisions("u")["r"].is_complete(false));
    index.applied(Kind::ConfigMap, &meta("u", "r", (0, 2), 1, 2));
    assert!(index.revisions("u")["r"].is_complete(false));
    assert!(!index.revisions("u")["r"].is_complete(true));
    index.applied(Kind::Secret, &meta("u", "r", (0, 0), 1, 3));
    assert!(index.revisions("u")["r"].is_complete(true));
}

#[test]
fn what_the_watch_brings_late_changes_nothing() {
    let index = BundleIndex::default();
    assert!(
        index
            .applied(Kind::ConfigMap, &meta("u", "r", (0, 1), 7, 20))
            .is_some()
    );
    assert_eq!(
        index.applied(Kind::ConfigMap, &meta("u", "r", (0, 1), 1, 10)),
        None
    );
    assert_eq!(index.revisions("u")["r"].sequence(), 7);
}

#[test]
fn what_a_restarted_watch_does_not_list_is_gone() {
    let index = BundleIndex::default();
    index.listing(Kind::ConfigMap);
    index.applied(Kind::ConfigMap, &meta("a", "r", (0, 1), 1, 1));
    index.applied(Kind::ConfigMap, &meta("b", "s", (0, 1), 1, 2));
    assert!(index.listed(Kind::ConfigMap).is_empty());
    assert!(!index.is_synced());
    index.listing(Kind::Secret);
    index.listed(Kind::Secret);
    assert!(index.is_synced());
    index.listing(Kind::ConfigMap);
    index.applied(Kind::ConfigMap, &meta("b", "s", (0, 1), 1, 2));
    assert_eq!(index.listed(Kind::ConfigMap), ["a"]);
    assert_eq!(index.uids(), ["b"]);
}

#[test]
fn an_object_without_labels_is_nobodys() {
    let index = BundleIndex::default();
    let mut meta = meta("u", "r", (0, 1), 1, 1);
    meta.labels = None;
    assert_eq!(index.applied(Kind::ConfigMap, &meta), None);
    assert!(index.uids().is_empty());
}
