use super::*;
use crate::bundles::BundleIndex;
use crate::bundles::tests::meta;

const G: u64 = 1 << GENERATION_SHIFT;

/// Revisions with one chunk each and these sequences.
fn revisions(list: &[(&str, u64)]) -> BTreeMap<String, Revision> {
    let index = BundleIndex::default();
    for (version, (revision, sequence)) in list.iter().enumerate() {
        index.applied(
            Kind::ConfigMap,
            &meta("u", revision, (0, 1), *sequence, version as u64 + 1),
        );
    }
    index.revisions("u")
}

fn wanted(revision: &str) -> Summary {
    Summary {
        revision: revision.into(),
        size: 1,
        chunks: 1,
        has_secret: false,
    }
}

fn plan_for(list: &[(&str, u64)], revision: &str, generation: i64) -> Plan {
    plan(&revisions(list), &wanted(revision), generation, None)
}

#[test]
fn the_same_digest_writes_nothing() {
    assert_eq!(plan_for(&[("a", G)], "a", 1), Plan::Nothing);
    // A later generation of the same content neither.
    assert_eq!(plan_for(&[("a", G)], "a", 7), Plan::Nothing);
}

#[test]
fn a_new_revision_outranks_all_others() {
    assert_eq!(plan_for(&[], "a", 1), Plan::Write(G));
    assert_eq!(plan_for(&[("a", G)], "b", 2), Plan::Write(2 * G));
    // The same generation, other content: a Secret changed.
    assert_eq!(plan_for(&[("a", G)], "b", 1), Plan::Write(G + 1));
}

#[test]
fn a_revert_raises_what_is_there() {
    assert_eq!(
        plan_for(&[("a", G), ("b", 2 * G)], "a", 3),
        Plan::Raise(3 * G)
    );
    assert_eq!(
        plan_for(&[("a", G), ("b", G + 1)], "a", 1),
        Plan::Raise(G + 2)
    );
}

#[test]
fn an_operator_that_lags_behind_leaves_later_bundles_alone() {
    assert_eq!(plan_for(&[("a", G), ("b", 2 * G)], "a", 1), Plan::Stale);
    assert_eq!(plan_for(&[("b", 2 * G)], "a", 1), Plan::Stale);
}

#[test]
fn what_was_cut_short_is_finished_under_the_same_number() {
    let index = BundleIndex::default();
    index.applied(Kind::ConfigMap, &meta("u", "a", (1, 2), 3 * G, 1));
    assert_eq!(
        plan(&index.revisions("u"), &wanted("a"), 3, None),
        Plan::Write(3 * G)
    );

    // A raise that reached one chunk of two.
    index.applied(Kind::ConfigMap, &meta("u", "a", (0, 2), G, 2));
    assert_eq!(
        plan(&index.revisions("u"), &wanted("a"), 3, None),
        Plan::Raise(3 * G)
    );
}

#[test]
fn a_lost_secret_is_written_and_another_owner_is_set() {
    let mut summary = wanted("a");
    summary.has_secret = true;
    assert_eq!(
        plan(&revisions(&[("a", G)]), &summary, 1, None),
        Plan::Write(G)
    );
    let owner = OwnerReference {
        uid: "daemonset".into(),
        ..OwnerReference::default()
    };
    assert_eq!(
        plan(&revisions(&[("a", G)]), &wanted("a"), 1, Some(&owner)),
        Plan::Raise(G)
    );
}

#[test]
fn old_revisions_go_once_the_new_one_serves() {
    let revisions = revisions(&[("a", 1), ("b", 2), ("c", 3), ("d", 4)]);
    assert_eq!(told(&revisions), Some("d"));
    let none = BTreeSet::new();
    assert_eq!(surplus(&revisions, &none, true, 1), ["b", "a"]);
    assert_eq!(surplus(&revisions, &none, true, 0), ["c", "b", "a"]);
    assert!(surplus(&revisions, &none, false, 1).is_empty());
    let served = BTreeSet::from(["a".to_owned()]);
    assert_eq!(surplus(&revisions, &served, true, 1), ["b"]);
}

#[test]
fn a_stream_of_revisions_that_never_load_is_bounded() {
    let names: Vec<String> = (0..20).map(|n| format!("r{n:02}")).collect();
    let list: Vec<(&str, u64)> = names
        .iter()
        .zip(1..)
        .map(|(name, n)| (name.as_str(), n))
        .collect();
    let served = BTreeSet::from(["r00".to_owned()]);
    let surplus = surplus(&revisions(&list), &served, false, 3);
    assert_eq!(surplus.len(), 20 - 1 - 1 - 3 - KEPT_MEANWHILE);
    assert!(
        !surplus.contains(&"r00".to_owned()),
        "the one that serves stays"
    );
}
