//! From host and path to a Function. Pure: knows names and routes, nothing of HTTP or V8.
//!
//! ```text
//! 1  explicit route, exact host       longest path prefix, on segment borders
//! 2  explicit route, wildcard host    the same
//! 3  NAME.NAMESPACE, NAME.NAMESPACE.svc[.CLUSTER_DOMAIN], NAME.NAMESPACE.DOMAIN
//! 4  /fn/NAMESPACE/NAME/…             on any host; the prefix is stripped
//! ```

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use isolet_crds::Route;
use isolet_crds::bundle::FunctionIdentity;

/// Routes of all Functions.
#[derive(Debug)]
pub struct Router<T> {
    /// What may follow `NAME.NAMESPACE` in a host name.
    suffixes: Vec<String>,
    /// By namespace, then by name; the last that came holds the name.
    names: HashMap<String, HashMap<String, Vec<Holder<T>>>>,
    /// By host, that of a wildcard without its `*`; longest path first, then the first that came.
    routes: HashMap<String, Vec<(String, Holder<T>)>>,
    /// Where each Function is found, by its UID: to remove one is not to look at all.
    places: HashMap<String, Place>,
}

/// The keys under which one Function is held.
#[derive(Debug)]
struct Place {
    namespace: String,
    name: String,
    hosts: Vec<String>,
}

#[derive(Debug)]
struct Holder<T> {
    uid: String,
    target: T,
}

/// Which Function serves a request, and under which path it sees it.
#[derive(Debug, PartialEq, Eq)]
pub struct Match<'r, 'p, T> {
    /// What was inserted for the Function.
    pub target: &'r T,
    /// The path, without what the runtime strips. Empty stands for `/`.
    pub path: &'p str,
}

impl<T> Router<T> {
    /// A router without Functions. `domain` is the platform's own, such as `fn.example.com`.
    pub fn new(domain: Option<&str>, cluster_domain: &str) -> Self {
        let mut suffixes = vec![
            String::new(),
            ".svc".to_owned(),
            format!(".svc.{cluster_domain}"),
        ];
        suffixes.extend(domain.map(|domain| format!(".{}", normal_host(domain))));
        Self {
            suffixes,
            names: HashMap::new(),
            routes: HashMap::new(),
            places: HashMap::new(),
        }
    }

    /// Adds a Function, or replaces what was inserted for its UID.
    pub fn insert(&mut self, function: &FunctionIdentity, routes: &[Route], target: T)
    where
        T: Clone,
    {
        self.remove(&function.uid);
        let holder = || Holder {
            uid: function.uid.clone(),
            target: target.clone(),
        };
        self.names
            .entry(function.namespace.clone())
            .or_default()
            .entry(function.name.clone())
            .or_default()
            .push(holder());
        let mut hosts = Vec::with_capacity(routes.len());
        for route in routes {
            let host = normal_host(&route.host);
            let key = host.strip_prefix('*').unwrap_or(&host).to_owned();
            hosts.push(key.clone());
            let held = self.routes.entry(key).or_default();
            held.push((route.path.trim_end_matches('/').to_owned(), holder()));
            held.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        }
        let place = Place {
            namespace: function.namespace.clone(),
            name: function.name.clone(),
            hosts,
        };
        self.places.insert(function.uid.clone(), place);
    }

    /// Removes a Function.
    pub fn remove(&mut self, uid: &str) {
        let Some(place) = self.places.remove(uid) else {
            return;
        };
        if let Entry::Occupied(mut names) = self.names.entry(place.namespace) {
            if let Entry::Occupied(mut holders) = names.get_mut().entry(place.name) {
                holders.get_mut().retain(|holder| holder.uid != uid);
                if holders.get().is_empty() {
                    holders.remove();
                }
            }
            if names.get().is_empty() {
                names.remove();
            }
        }
        for host in place.hosts {
            if let Entry::Occupied(mut held) = self.routes.entry(host) {
                held.get_mut().retain(|(_, holder)| holder.uid != uid);
                if held.get().is_empty() {
                    held.remove();
                }
            }
        }
    }

    /// Finds the Function for a `Host` header or authority and a path without query.
    pub fn find<'r, 'p>(&'r self, host: &str, path: &'p str) -> Option<Match<'r, 'p, T>> {
        let host = normal_host(host);
        let target = self
            .explicit(&host, path)
            .or_else(|| {
                // With its dot, as no exact host begins.
                let parent = host.get(host.find('.')?..)?;
                self.explicit(parent, path)
            })
            .or_else(|| self.built_in(&host));
        match target {
            Some(target) => Some(Match { target, path }),
            None => self.by_path(path),
        }
    }

    fn explicit(&self, host: &str, path: &str) -> Option<&T> {
        let (_, holder) = self.routes.get(host)?.iter().find(|(prefix, _)| {
            path.strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })?;
        Some(&holder.target)
    }

    fn built_in(&self, host: &str) -> Option<&T> {
        self.suffixes.iter().find_map(|suffix| {
            let (name, namespace) = host.strip_suffix(suffix.as_str())?.rsplit_once('.')?;
            self.named(namespace, name)
        })
    }

    fn by_path<'p>(&self, path: &'p str) -> Option<Match<'_, 'p, T>> {
        let (namespace, rest) = path.strip_prefix("/fn/")?.split_once('/')?;
        let end = rest.find('/').unwrap_or(rest.len());
        let (name, path) = rest.split_at_checked(end)?;
        let target = self.named(namespace, name)?;
        Some(Match { target, path })
    }

    fn named(&self, namespace: &str, name: &str) -> Option<&T> {
        let holders = self.names.get(namespace)?.get(name)?;
        holders.last().map(|holder| &holder.target)
    }
}

/// Lower case, without port and trailing dot.
fn normal_host(host: &str) -> Cow<'_, str> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

#[cfg(test)]
mod tests;
