//! Who holds a host and path: the older Function (by creation, then UID), among those that may claim the host at all.
//!
//! [`FunctionIndex`] follows the watch of Functions, before the reconcile of any of them: each change yields the
//! Functions whose right to a route may have changed, which are reconciled at once. A Function that loses a route serves
//! without it; a route that the Function may not have is never in a bundle, so runtime pods see no conflict.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use isolet_crds::{Function, Route, condition::reason};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource as _, ResourceExt as _};

use crate::hosts::AllowedHosts;

/// A Function as the watch and the queue know it.
pub(crate) type Guarded = DeserializeGuard<Function>;
/// Its reference.
pub(crate) type FunctionRef = ObjectRef<Guarded>;

/// Live Functions by UID, and their claims.
pub(crate) struct FunctionIndex {
    inner: Mutex<Inner>,
    hosts: RwLock<AllowedHosts>,
}

#[derive(Default)]
struct Inner {
    functions: HashMap<String, Entry>,
    /// Every claim of every Function, whether it may have the host or not.
    claims: HashMap<Key, BTreeSet<Claim>>,
    /// UIDs seen since the watch (re)started, until it has listed all.
    listing: Option<HashSet<String>>,
    synced: bool,
}

struct Entry {
    reference: FunctionRef,
    routes: BTreeSet<Key>,
    claim: Claim,
}

/// Host and path, in the form in which equal prefixes are equal.
type Key = (String, String);

/// The order of fields is the order of precedence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    /// Seconds since 1970, as the API server keeps it.
    created: i64,
    uid: String,
    namespace: String,
    name: String,
}

/// What a Function gets of the routes it asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Granted {
    /// The routes that it may serve.
    pub routes: Vec<Route>,
    /// The reason and message of the first that it may not.
    pub denied: Option<(&'static str, String)>,
}

/// Functions touched by a change.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Touched {
    /// To be reconciled again.
    pub reconcile: Vec<FunctionRef>,
    /// UIDs that are gone.
    pub gone: Vec<String>,
}

impl FunctionIndex {
    /// Empty, under a policy.
    pub(crate) fn new(hosts: AllowedHosts) -> Self {
        Self {
            inner: Mutex::default(),
            hosts: RwLock::new(hosts),
        }
    }

    /// A new policy. True if it differs from the one before; all Functions are then to be reconciled.
    pub(crate) fn replace_hosts(&self, hosts: AllowedHosts) -> bool {
        let mut current = self.hosts.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *current, hosts.clone()) != hosts
    }

    /// An object was listed, added or changed.
    pub(crate) fn applied(&self, object: &Guarded) -> Touched {
        let Some(uid) = object.meta().uid.clone() else {
            return Touched::default();
        };
        let routes: BTreeSet<Key> = match &object.0 {
            Ok(function) => function.spec.routes.iter().map(key).collect(),
            Err(_) => BTreeSet::new(),
        };
        let claim = Claim {
            created: object
                .meta()
                .creation_timestamp
                .as_ref()
                .map_or(0, |time| time.0.as_second()),
            uid: uid.clone(),
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        };
        let mut inner = self.lock();
        if let Some(listing) = &mut inner.listing {
            listing.insert(uid.clone());
        }
        let entry = Entry {
            reference: ObjectRef::from_obj(object),
            routes,
            claim,
        };
        // The object itself is reconciled by the watch; only others need a trigger.
        let reconcile = inner.replace(&uid, Some(entry));
        Touched {
            reconcile,
            gone: Vec::new(),
        }
    }

    /// An object was deleted.
    pub(crate) fn deleted(&self, object: &Guarded) -> Touched {
        let Some(uid) = object.meta().uid.clone() else {
            return Touched::default();
        };
        Touched {
            reconcile: self.lock().replace(&uid, None),
            gone: vec![uid],
        }
    }

    /// The watch starts to list.
    pub(crate) fn listing(&self) {
        self.lock().listing = Some(HashSet::new());
    }

    /// The watch has listed all: what was not among it was deleted meanwhile.
    pub(crate) fn listed(&self) -> Touched {
        let mut inner = self.lock();
        inner.synced = true;
        let seen = inner.listing.take().unwrap_or_default();
        let gone: Vec<String> = inner
            .functions
            .keys()
            .filter(|uid| !seen.contains(*uid))
            .cloned()
            .collect();
        let reconcile = gone
            .iter()
            .flat_map(|uid| inner.replace(uid, None))
            .collect();
        Touched { reconcile, gone }
    }

    /// Whether all Functions were listed once.
    pub(crate) fn is_synced(&self) -> bool {
        self.lock().synced
    }

    /// The live Function of a UID.
    pub(crate) fn find(&self, uid: &str) -> Option<FunctionRef> {
        Some(self.lock().functions.get(uid)?.reference.clone())
    }

    /// All live Functions.
    pub(crate) fn all(&self) -> Vec<FunctionRef> {
        let inner = self.lock();
        inner
            .functions
            .values()
            .map(|entry| entry.reference.clone())
            .collect()
    }

    /// What the Function gets of the routes in its spec.
    pub(crate) fn grant(&self, function: &Function) -> Granted {
        let namespace = function.namespace().unwrap_or_default();
        let uid = function.uid().unwrap_or_default();
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        let inner = self.lock();
        let mut granted = Granted::default();
        for route in &function.spec.routes {
            let denied = if !hosts.allows(&namespace, &route.host) {
                let why = hosts.explain(&namespace, &route.host);
                Some((reason::HOST_NOT_ALLOWED, format!("spec.routes: {why}")))
            } else {
                inner
                    .holder(route, &hosts)
                    .filter(|holder| holder.uid != uid)
                    .map(|holder| {
                        let why = format!(
                            "spec.routes: host {} path {} is held by Function {}/{}, which is older; choose another host or path",
                            route.host, route.path, holder.namespace, holder.name
                        );
                        (reason::ROUTE_CONFLICT, why)
                    })
            };
            match denied {
                None => granted.routes.push(route.clone()),
                Some(denied) => {
                    granted.denied.get_or_insert(denied);
                }
            }
        }
        granted
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Replaces the entry of a UID and names the other claimants of every route that it gave up or took.
    fn replace(&mut self, uid: &str, entry: Option<Entry>) -> Vec<FunctionRef> {
        let after: BTreeSet<Key> = entry
            .as_ref()
            .map_or_else(BTreeSet::new, |e| e.routes.clone());
        let before = self.functions.remove(uid);
        if let Some(before) = &before {
            for route in before.routes.difference(&after) {
                if let Some(claims) = self.claims.get_mut(route) {
                    claims.remove(&before.claim);
                    if claims.is_empty() {
                        self.claims.remove(route);
                    }
                }
            }
        }
        let before: BTreeSet<Key> = before.map_or_else(BTreeSet::new, |e| e.routes);
        let others: HashSet<String> = before
            .symmetric_difference(&after)
            .filter_map(|route| self.claims.get(route))
            .flatten()
            .map(|claim| claim.uid.clone())
            .filter(|other| other != uid)
            .collect();
        if let Some(entry) = entry {
            for route in &entry.routes {
                self.claims
                    .entry(route.clone())
                    .or_default()
                    .insert(entry.claim.clone());
            }
            self.functions.insert(uid.to_owned(), entry);
        }
        others
            .iter()
            .filter_map(|other| Some(self.functions.get(other)?.reference.clone()))
            .collect()
    }

    fn holder(&self, route: &Route, hosts: &AllowedHosts) -> Option<&Claim> {
        self.claims
            .get(&key(route))?
            .iter()
            .find(|claim| hosts.allows(&claim.namespace, &route.host))
    }
}

/// `/v1` and `/v1/` are the same prefix.
fn key(route: &Route) -> Key {
    let path = route.path.trim_end_matches('/');
    (route.host.clone(), path.to_owned())
}

#[cfg(test)]
#[path = "tests/routes.rs"]
mod tests;
