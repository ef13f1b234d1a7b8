//! The bundle objects that exist, by UID of their Function: followed by two metadata watches (ConfigMaps and Secrets of
//! the system namespace with the bundle label) and by the operator's own writes, so that a reconcile reads no object.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use isolet_crds::labels;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Which of the two kinds an object has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// A chunk.
    ConfigMap,
    /// Secret values.
    Secret,
}

/// Kind and name.
pub(crate) type ObjectKey = (Kind, String);

/// What the labels and annotations of a bundle object say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BundleObject {
    /// UID of the object itself.
    pub uid: String,
    /// Namespace and name of the Function.
    pub function: (String, String),
    /// The revision that it belongs to.
    pub revision: String,
    /// Its place in the order of revisions.
    pub sequence: u64,
    /// Number of the chunk and how many there are; (0, 0) for Secrets.
    pub chunk: (usize, usize),
    /// UID of its owner, if it has one.
    pub owner: Option<String>,
    version: u64,
}

/// One revision, put together from its objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Revision {
    /// Its objects.
    pub objects: BTreeMap<ObjectKey, BundleObject>,
}

impl Revision {
    /// Highest sequence of its objects.
    pub(crate) fn sequence(&self) -> u64 {
        self.objects
            .values()
            .map(|object| object.sequence)
            .max()
            .unwrap_or(0)
    }

    /// Whether all chunks are there, and the Secret if one is needed.
    pub(crate) fn is_complete(&self, needs_secret: bool) -> bool {
        let chunks: BTreeSet<(usize, usize)> = self
            .objects
            .iter()
            .filter(|((kind, _), _)| *kind == Kind::ConfigMap)
            .map(|(_, object)| object.chunk)
            .collect();
        let count = chunks.first().map_or(0, |(_, count)| *count);
        count > 0
            && chunks.len() == count
            && chunks
                .iter()
                .enumerate()
                .all(|(n, chunk)| *chunk == (n, count))
            && (!needs_secret || self.objects.keys().any(|(kind, _)| *kind == Kind::Secret))
    }
}

/// Bundle objects by UID of their Function.
#[derive(Default)]
pub(crate) struct BundleIndex {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    functions: HashMap<String, BTreeMap<ObjectKey, BundleObject>>,
    listing: HashMap<Kind, HashSet<ObjectKey>>,
    synced: HashSet<Kind>,
}

impl BundleIndex {
    /// An object was seen or written. Yields the UID of its Function where that is news.
    pub(crate) fn applied(&self, kind: Kind, meta: &ObjectMeta) -> Option<String> {
        let (uid, name, object) = read(meta)?;
        let key = (kind, name);
        let mut inner = self.lock();
        if let Some(listing) = inner.listing.get_mut(&kind) {
            listing.insert(key.clone());
        }
        let objects = inner.functions.entry(uid.clone()).or_default();
        match objects.get(&key) {
            Some(known) if known.version >= object.version => None,
            _ => {
                objects.insert(key, object);
                Some(uid)
            }
        }
    }

    /// An object was deleted. Yields the UID of its Function where that is news.
    pub(crate) fn deleted(&self, kind: Kind, meta: &ObjectMeta) -> Option<String> {
        let (uid, name, object) = read(meta)?;
        let key = (kind, name);
        let mut inner = self.lock();
        let known = inner.functions.get(&uid)?.get(&key)?;
        if known.uid != object.uid {
            return None; // it was made again meanwhile
        }
        inner.forget(&uid, &key);
        Some(uid)
    }

    /// The operator deleted an object itself.
    pub(crate) fn forget(&self, uid: &str, key: &ObjectKey) {
        self.lock().forget(uid, key);
    }

    /// The watch of a kind starts to list.
    pub(crate) fn listing(&self, kind: Kind) {
        self.lock().listing.insert(kind, HashSet::new());
    }

    /// The watch of a kind has listed all; yields the UIDs of Functions that lost objects meanwhile.
    pub(crate) fn listed(&self, kind: Kind) -> Vec<String> {
        let mut inner = self.lock();
        inner.synced.insert(kind);
        let seen = inner.listing.remove(&kind).unwrap_or_default();
        let lost: Vec<(String, ObjectKey)> = inner
            .functions
            .iter()
            .flat_map(|(uid, objects)| objects.keys().map(move |key| (uid, key)))
            .filter(|(_, key)| key.0 == kind && !seen.contains(*key))
            .map(|(uid, key)| (uid.clone(), key.clone()))
            .collect();
        for (uid, key) in &lost {
            inner.forget(uid, key);
        }
        lost.into_iter().map(|(uid, _)| uid).collect()
    }

    /// Whether both watches have listed once.
    pub(crate) fn is_synced(&self) -> bool {
        self.lock().synced.len() == 2
    }

    /// UIDs of all Functions that have objects.
    pub(crate) fn uids(&self) -> Vec<String> {
        self.lock().functions.keys().cloned().collect()
    }

    /// All objects of a Function.
    pub(crate) fn objects(&self, uid: &str) -> BTreeMap<ObjectKey, BundleObject> {
        self.lock().functions.get(uid).cloned().unwrap_or_default()
    }

    /// The revisions of a Function by name.
    pub(crate) fn revisions(&self, uid: &str) -> BTreeMap<String, Revision> {
        let mut revisions: BTreeMap<String, Revision> = BTreeMap::new();
        for (key, object) in self.objects(uid) {
            let revision = revisions.entry(object.revision.clone()).or_default();
            revision.objects.insert(key, object);
        }
        revisions
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn forget(&mut self, uid: &str, key: &ObjectKey) {
        if let Some(objects) = self.functions.get_mut(uid) {
            objects.remove(key);
            if objects.is_empty() {
                self.functions.remove(uid);
            }
        }
    }
}

/// None for objects that lack a label: nobody's bundle, left alone.
fn read(meta: &ObjectMeta) -> Option<(String, String, BundleObject)> {
    let label = |key: &str| meta.labels.as_ref()?.get(key).cloned();
    let number = |key: &str| meta.annotations.as_ref()?.get(key)?.parse::<u64>().ok();
    let object = BundleObject {
        uid: meta.uid.clone()?,
        function: (
            label(labels::FUNCTION_NAMESPACE)?,
            label(labels::FUNCTION_NAME)?,
        ),
        revision: label(labels::REVISION)?,
        sequence: number(labels::SEQUENCE).unwrap_or(0),
        chunk: (
            number(labels::CHUNK).unwrap_or(0) as usize,
            number(labels::CHUNKS).unwrap_or(0) as usize,
        ),
        owner: meta
            .owner_references
            .as_ref()
            .and_then(|owners| owners.first())
            .map(|owner| owner.uid.clone()),
        version: meta
            .resource_version
            .as_deref()
            .and_then(|v| v.parse().ok())
            .unwrap_or(0),
    };
    Some((label(labels::FUNCTION_UID)?, meta.name.clone()?, object))
}

#[cfg(test)]
#[path = "tests/bundles.rs"]
pub(crate) mod tests;
