//! From objects, as they come and go, to the revisions of each Function. Pure: no client, no clock, no disk.
//!
//! ```text
//! apply / remove / begin_list .. end_list ──> objects by name ──> revisions by (uid, digest) ──> change(uid)
//! restore (disk cache) ──> stands in until the first whole list of both kinds
//! ```
//!
//! A revision is complete when all its chunks are there and, if its manifest names secret values, its Secret. Chunks of
//! one revision may disagree about the sequence while the operator rewrites it: the highest counts.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use isolet_crds::bundle::{FunctionIdentity, MAX_COMPRESSED_BYTES};

use super::object::{BundleObject, ObjectError, ObjectKey, Part};
use super::{Broken, Change, Revision};

/// Which watch an object comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// ConfigMaps.
    ConfigMap,
    /// Secrets.
    Secret,
}

/// Most revisions of one Function; `revisionHistoryLimit` allows 101.
const MAX_REVISIONS: usize = 128;

/// All bundle objects of this node.
#[derive(Default)]
pub struct Store {
    objects: HashMap<ObjectKey, Entry>,
    functions: HashMap<String, BTreeSet<ObjectKey>>,
    checked: HashMap<(String, String), Checked>,
    restored: HashMap<String, Arc<Revision>>,
    listing: HashMap<Kind, HashSet<ObjectKey>>,
    listed: HashSet<Kind>,
}

enum Entry {
    Good(BundleObject),
    Bad {
        uid: String,
        revision: String,
        error: ObjectError,
    },
}

impl Entry {
    fn uid(&self) -> &str {
        match self {
            Self::Good(object) => &object.identity.uid,
            Self::Bad { uid, .. } => uid,
        }
    }
}

/// The outcome of decoding one revision, kept while its objects stay the same.
#[derive(Clone)]
struct Checked {
    parts: Vec<ObjectKey>,
    outcome: Result<Arc<Revision>, String>,
}

struct Parts<'a> {
    identity: &'a FunctionIdentity,
    sequence: u64,
    total: u32,
    chunks: BTreeMap<u32, &'a Bytes>,
    secrets: Option<&'a Bytes>,
    keys: Vec<ObjectKey>,
    problem: Option<String>,
}

impl Store {
    /// A revision of the disk cache. It counts until the first whole lists of ConfigMaps and Secrets are there.
    pub fn restore(&mut self, revision: Arc<Revision>) {
        self.restored
            .insert(revision.identity.uid.clone(), revision);
    }

    /// Whether both kinds were listed whole at least once.
    pub fn synced(&self) -> bool {
        self.listed.len() == 2
    }

    /// An object was added or changed. Returns the UIDs whose revisions may be new.
    pub fn apply(
        &mut self,
        object: Result<BundleObject, ObjectError>,
        key: ObjectKey,
    ) -> Vec<String> {
        if let Some(seen) = self.listing.get_mut(&kind(&key)) {
            seen.insert(key.clone());
        }
        let mut dirty = Vec::new();
        let entry = match object {
            Ok(object) => Some(Entry::Good(object)),
            // Without a UID nobody can be told but the log, which the caller writes.
            Err(error) => error.uid.clone().map(|uid| Entry::Bad {
                uid,
                revision: error.revision.clone().unwrap_or_default(),
                error,
            }),
        };
        let changed = match (self.objects.get(&key), &entry) {
            (Some(Entry::Good(old)), Some(Entry::Good(new))) => old != new,
            _ => true,
        };
        if !changed {
            return dirty;
        }
        let only_sequence = match (self.objects.get(&key), &entry) {
            (Some(Entry::Good(old)), Some(Entry::Good(new))) => {
                old.digest == new.digest && old.identity == new.identity && old.part == new.part
            }
            _ => false,
        };
        if only_sequence {
            if let Some(new) = entry {
                dirty.push(new.uid().to_owned());
                self.objects.insert(key, new);
            }
            return dirty;
        }
        dirty.extend(self.remove(&key));
        if let Some(entry) = entry {
            let uid = entry.uid().to_owned();
            self.functions
                .entry(uid.clone())
                .or_default()
                .insert(key.clone());
            self.objects.insert(key, entry);
            if !dirty.contains(&uid) {
                dirty.push(uid);
            }
        }
        dirty
    }

    /// An object went.
    pub fn remove(&mut self, key: &ObjectKey) -> Vec<String> {
        let Some(entry) = self.objects.remove(key) else {
            return Vec::new();
        };
        let uid = entry.uid().to_owned();
        if let Some(keys) = self.functions.get_mut(&uid) {
            keys.remove(key);
            if keys.is_empty() {
                self.functions.remove(&uid);
            }
        }
        if let Entry::Good(object) = entry {
            self.checked
                .remove(&(uid.clone(), object.digest.as_str().to_owned()));
        }
        vec![uid]
    }

    /// A whole list of one kind begins: what it does not name is gone at its end.
    pub fn begin_list(&mut self, kind: Kind) {
        self.listing.insert(kind, HashSet::new());
    }

    /// The list is whole. Returns the UIDs whose revisions may be new; after the first lists that is every one known.
    pub fn end_list(&mut self, list: Kind) -> Vec<String> {
        let was_synced = self.synced();
        let seen = self.listing.remove(&list).unwrap_or_default();
        let gone: Vec<_> = self
            .objects
            .keys()
            .filter(|key| kind(key) == list && !seen.contains(*key))
            .cloned()
            .collect();
        let mut dirty: BTreeSet<String> = gone.iter().flat_map(|key| self.remove(key)).collect();
        self.listed.insert(list);
        if self.synced() && !was_synced {
            dirty.extend(self.functions.keys().cloned());
            dirty.extend(self.restored.drain().map(|(uid, _)| uid));
        }
        dirty.into_iter().collect()
    }

    /// UIDs of the disk cache's revisions that still count.
    pub fn restored(&self) -> Vec<String> {
        self.restored.keys().cloned().collect()
    }

    /// What there is of one Function now. Before the first lists: what the disk cache had.
    pub fn change(&mut self, uid: &str) -> Change {
        let mut change = Change {
            uid: uid.to_owned(),
            candidates: Vec::new(),
            broken: None,
        };
        if !self.synced() {
            change.candidates.extend(self.restored.get(uid).cloned());
            return change;
        }
        let mut fresh = Vec::new();
        let mut revisions: Vec<(u64, Result<Arc<Revision>, Broken>)> = Vec::new();
        for (digest, parts) in self.parts(uid) {
            let name = short(&digest);
            if let Some(problem) = &parts.problem {
                revisions.push((
                    parts.sequence,
                    Err(Broken {
                        revision: name,
                        message: problem.clone(),
                    }),
                ));
                continue;
            }
            let id = (uid.to_owned(), digest.clone());
            let known = self
                .checked
                .get(&id)
                .filter(|checked| checked.parts == parts.keys);
            let outcome = match known {
                Some(checked) => checked.outcome.clone(),
                None => {
                    let outcome = match check(&digest, &parts) {
                        Ok(Some(revision)) => Ok(Arc::new(revision)),
                        Ok(None) => continue,
                        Err(message) => Err(message),
                    };
                    let parts = parts.keys.clone();
                    fresh.push((
                        id,
                        Checked {
                            parts,
                            outcome: outcome.clone(),
                        },
                    ));
                    outcome
                }
            };
            revisions.push((
                parts.sequence,
                outcome
                    .map(|revision| with_sequence(revision, parts.sequence))
                    .map_err(|message| Broken {
                        revision: name,
                        message,
                    }),
            ));
        }
        self.checked.extend(fresh);
        revisions.sort_by_key(|(sequence, _)| std::cmp::Reverse(*sequence));
        for (index, (_, revision)) in revisions.into_iter().enumerate() {
            match revision {
                Ok(revision) => change.candidates.push(revision),
                Err(broken) if index == 0 => change.broken = Some(broken),
                Err(_) => {}
            }
        }
        change
    }

    /// The revisions whose chunks are all there, and those of which a part is malformed.
    fn parts(&self, uid: &str) -> Vec<(String, Parts<'_>)> {
        let mut all: BTreeMap<String, Parts<'_>> = BTreeMap::new();
        let mut bad: Vec<(String, Parts<'_>)> = Vec::new();
        for key in self.functions.get(uid).into_iter().flatten() {
            match self.objects.get(key) {
                Some(Entry::Good(object)) => {
                    if !all.contains_key(object.digest.as_str()) && all.len() >= MAX_REVISIONS {
                        continue;
                    }
                    let parts = all
                        .entry(object.digest.as_str().to_owned())
                        .or_insert_with(|| Parts::new(&object.identity));
                    parts.add(object);
                }
                Some(Entry::Bad {
                    revision, error, ..
                }) => {
                    let mut parts = Parts::new(no_identity());
                    // It may be the newest: say so rather than hide it behind an older one.
                    parts.sequence = u64::MAX;
                    parts.problem = Some(error.to_string());
                    bad.push((revision.clone(), parts));
                }
                None => {}
            }
        }
        all.into_iter()
            .filter(|(_, parts)| {
                parts.problem.is_some()
                    || (parts.total > 0 && parts.chunks.len() == parts.total as usize)
            })
            .chain(bad)
            .collect()
    }
}

impl<'a> Parts<'a> {
    fn new(identity: &'a FunctionIdentity) -> Self {
        Self {
            identity,
            sequence: 0,
            total: 0,
            chunks: BTreeMap::new(),
            secrets: None,
            keys: Vec::new(),
            problem: None,
        }
    }

    fn add(&mut self, object: &'a BundleObject) {
        self.sequence = self.sequence.max(object.sequence);
        self.keys.push(object.key.clone());
        if *self.identity != object.identity {
            self.problem = Some("its objects disagree about the Function they belong to".into());
        }
        match &object.part {
            Part::Chunk {
                index,
                total,
                bytes,
            } => {
                if self.total != 0 && self.total != *total {
                    self.problem = Some("its objects disagree about the number of chunks".into());
                }
                self.total = *total;
                self.chunks.insert(*index, bytes);
            }
            Part::Secrets(bytes) => self.secrets = Some(bytes),
        }
    }
}

fn check(digest: &str, parts: &Parts<'_>) -> Result<Option<Revision>, String> {
    let digest = isolet_crds::bundle::Digest::parse(digest).ok_or("it has no digest")?;
    let bytes = parts
        .chunks
        .values()
        .map(|chunk| chunk.len())
        .sum::<usize>();
    if bytes > MAX_COMPRESSED_BYTES {
        return Err(format!(
            "the bundle has a compressed size of {bytes} bytes, more than the {MAX_COMPRESSED_BYTES} that a runtime pod takes"
        ));
    }
    let bundle = match parts.chunks.len() {
        1 => parts
            .chunks
            .values()
            .next()
            .map(|only| (*only).clone())
            .unwrap_or_default(),
        _ => {
            let mut whole = BytesMut::with_capacity(bytes);
            parts
                .chunks
                .values()
                .for_each(|chunk| whole.extend_from_slice(chunk));
            whole.freeze()
        }
    };
    Revision::check(
        parts.identity.clone(),
        digest,
        parts.sequence,
        bundle,
        parts.secrets.cloned(),
    )
    .map_err(|error| error.to_string())
}

fn with_sequence(revision: Arc<Revision>, sequence: u64) -> Arc<Revision> {
    if revision.sequence == sequence {
        revision
    } else {
        Arc::new(Revision {
            sequence,
            ..(*revision).clone()
        })
    }
}

fn short(digest: &str) -> String {
    digest
        .trim_start_matches("sha256:")
        .chars()
        .take(12)
        .collect()
}

fn kind(key: &ObjectKey) -> Kind {
    match key {
        ObjectKey::ConfigMap(_) => Kind::ConfigMap,
        ObjectKey::Secret(_) => Kind::Secret,
    }
}

fn no_identity() -> &'static FunctionIdentity {
    static NOBODY: FunctionIdentity = FunctionIdentity {
        namespace: String::new(),
        name: String::new(),
        uid: String::new(),
    };
    &NOBODY
}

#[cfg(test)]
mod tests;
