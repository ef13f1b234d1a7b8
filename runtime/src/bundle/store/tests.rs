use super::*;
use crate::bundle::testing;
use isolet_crds::bundle::Encoded;

struct Objects(Vec<BundleObject>);

/// The objects of one revision, in chunks of `chunk` bytes.
fn objects(name: &str, encoded: &Encoded, sequence: u64, chunk: usize, secret: bool) -> Objects {
    let digest = encoded.digest.clone();
    let pieces: Vec<_> = encoded.bytes.chunks(chunk).collect();
    let object = |key, part| BundleObject {
        key,
        identity: testing::identity(name),
        digest: digest.clone(),
        sequence,
        part,
    };
    let prefix = format!("fn-{name}-{}", digest.revision());
    let mut all: Vec<_> = pieces
        .iter()
        .enumerate()
        .map(|(index, piece)| {
            object(
                ObjectKey::ConfigMap(format!("{prefix}-{index}")),
                Part::Chunk {
                    index: index as u32,
                    total: pieces.len() as u32,
                    bytes: Bytes::copy_from_slice(piece),
                },
            )
        })
        .collect();
    if secret {
        all.push(object(
            ObjectKey::Secret(format!("{prefix}-env")),
            Part::Secrets(testing::secrets()),
        ));
    }
    Objects(all)
}

impl Objects {
    fn into(self, store: &mut Store) {
        for object in self.0 {
            let key = object.key.clone();
            store.apply(Ok(object), key);
        }
    }
}

fn synced() -> Store {
    let mut store = Store::default();
    for kind in [Kind::ConfigMap, Kind::Secret] {
        store.begin_list(kind);
        store.end_list(kind);
    }
    store
}

fn names(change: &Change) -> Vec<(&str, u64)> {
    change
        .candidates
        .iter()
        .map(|revision| (revision.name(), revision.sequence))
        .collect()
}

#[test]
fn serves_the_highest_complete_sequence_and_offers_the_ones_before() {
    let mut store = synced();
    let (old, new) = (
        testing::bundle("a", "old", false),
        testing::bundle("a", "new", false),
    );
    objects("a", &old, 1, 1 << 20, false).into(&mut store);
    objects("a", &new, 2, 1 << 20, false).into(&mut store);
    let change = store.change("uid-a");
    assert_eq!(
        names(&change),
        [(new.digest.revision(), 2), (old.digest.revision(), 1)]
    );
    // A revert raises the old one's sequence in place.
    objects("a", &old, 3, 1 << 20, false).into(&mut store);
    assert_eq!(
        names(&store.change("uid-a")),
        [(old.digest.revision(), 3), (new.digest.revision(), 2)]
    );
}

#[test]
fn a_revision_waits_for_its_last_chunk_and_its_secret() {
    let mut store = synced();
    let encoded = testing::bundle("a", "x", true);
    let mut parts = objects("a", &encoded, 1, 40, true).0;
    assert!(parts.len() > 3, "the archive must have several chunks");
    parts.reverse();
    while let Some(part) = parts.pop() {
        assert!(store.change("uid-a").candidates.is_empty());
        let key = part.key.clone();
        assert_eq!(store.apply(Ok(part), key), ["uid-a"]);
    }
    let change = store.change("uid-a");
    assert_eq!(change.candidates.len(), 1);
    assert_eq!(change.candidates[0].bundle, encoded.bytes);
    assert!(change.candidates[0].secrets.is_some());
}

#[test]
fn a_damaged_newest_revision_is_reported_and_the_one_before_stays() {
    let mut store = synced();
    let (old, new) = (
        testing::bundle("a", "old", false),
        testing::bundle("a", "new", false),
    );
    objects("a", &old, 1, 1 << 20, false).into(&mut store);
    let mut damaged = new.clone();
    damaged.bytes = old.bytes.clone();
    objects("a", &damaged, 2, 1 << 20, false).into(&mut store);
    let change = store.change("uid-a");
    assert_eq!(names(&change), [(old.digest.revision(), 1)]);
    let broken = change.broken.unwrap();
    assert_eq!(broken.revision, new.digest.revision());
    assert!(broken.message.contains("digest"), "{}", broken.message);
}

#[test]
fn a_bundle_of_another_function_is_refused() {
    let mut store = synced();
    let encoded = testing::bundle("victim", "x", false);
    let mut stolen = objects("victim", &encoded, 1, 1 << 20, false);
    stolen.0[0].identity = testing::identity("thief");
    stolen.into(&mut store);
    let change = store.change("uid-thief");
    assert!(change.candidates.is_empty());
    assert!(change.broken.unwrap().message.contains("default/victim"));
}

#[test]
fn a_malformed_object_is_reported_under_its_function() {
    let mut store = synced();
    let error = ObjectError {
        object: "ConfigMap fn-a-0".into(),
        uid: Some("uid-a".into()),
        revision: Some("abc".into()),
        problem: "annotation is missing".into(),
    };
    let key = ObjectKey::ConfigMap("fn-a-0".into());
    assert_eq!(store.apply(Err(error), key.clone()), ["uid-a"]);
    assert!(
        store
            .change("uid-a")
            .broken
            .unwrap()
            .message
            .contains("annotation is missing")
    );
    assert_eq!(store.remove(&key), ["uid-a"]);
    assert_eq!(store.change("uid-a").broken, None);
}

#[test]
fn too_many_bytes_are_refused_without_joining_them() {
    let mut store = synced();
    let encoded = testing::bundle("a", "x", false);
    let huge = Encoded {
        digest: encoded.digest,
        bytes: vec![0; MAX_COMPRESSED_BYTES + 1],
    };
    objects("a", &huge, 1, 1 << 20, false).into(&mut store);
    assert!(
        store
            .change("uid-a")
            .broken
            .unwrap()
            .message
            .contains("compressed size")
    );
}

#[test]
fn the_cache_stands_in_until_both_lists_are_whole() {
    let mut store = Store::default();
    let (kept, gone) = (
        testing::revision("kept", "1", 1),
        testing::revision("gone", "1", 1),
    );
    store.restore(kept.clone());
    store.restore(gone);
    assert_eq!(names(&store.change("uid-kept")).len(), 1);
    store.begin_list(Kind::ConfigMap);
    let newer = testing::bundle("kept", "2", false);
    objects("kept", &newer, 2, 1 << 20, false).into(&mut store);
    assert_eq!(
        names(&store.change("uid-kept")),
        [(kept.name(), 1)],
        "a list under way does not count"
    );
    assert!(store.end_list(Kind::ConfigMap).is_empty());
    store.begin_list(Kind::Secret);
    let mut dirty = store.end_list(Kind::Secret);
    dirty.sort();
    assert_eq!(dirty, ["uid-gone", "uid-kept"]);
    assert_eq!(
        names(&store.change("uid-kept")),
        [(newer.digest.revision(), 2)]
    );
    assert!(store.change("uid-gone").candidates.is_empty());
}

#[test]
fn a_new_list_drops_what_it_does_not_name() {
    let mut store = synced();
    let (a, b) = (
        testing::bundle("a", "1", false),
        testing::bundle("b", "1", false),
    );
    objects("a", &a, 1, 1 << 20, false).into(&mut store);
    objects("b", &b, 1, 1 << 20, false).into(&mut store);
    store.begin_list(Kind::ConfigMap);
    objects("a", &a, 1, 1 << 20, false).into(&mut store);
    assert_eq!(store.end_list(Kind::ConfigMap), ["uid-b"]);
    assert!(store.change("uid-b").candidates.is_empty());
    assert_eq!(store.change("uid-a").candidates.len(), 1);
}

#[test]
fn an_unchanged_object_changes_nothing() {
    let mut store = synced();
    let encoded = testing::bundle("a", "1", false);
    let object = objects("a", &encoded, 1, 1 << 20, false).0.remove(0);
    let key = object.key.clone();
    assert_eq!(store.apply(Ok(object.clone()), key.clone()), ["uid-a"]);
    assert!(store.apply(Ok(object), key).is_empty());
}
