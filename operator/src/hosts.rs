//! Which hosts the Functions of a namespace may claim: the platform's policy, from a file that a ConfigMap mounts.
//!
//! ```text
//! "*":    ["*.apps.example.com"]              every namespace
//! shop:   ["shop.example.com", "*.shop.example.com"]
//! ```
//!
//! A pattern is a host, `*.` and a host (any depth below it, and that wildcard itself), or `*` alone. Hosts that the
//! built-in routes use can never be claimed, whatever the file says: they would answer for other Functions. Built-in is
//! also `NAME.NAMESPACE`, which no host of two labels can be told from: such a host, or `*.` and one label, is allowed
//! only by a pattern that is the same, letter by letter.

use std::collections::BTreeMap;

/// Namespace -> host patterns.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct AllowedHosts {
    patterns: BTreeMap<String, Vec<String>>,
    /// Domain of the built-in routes.
    domain: String,
}

/// The file is no map of namespaces to lists of patterns.
#[derive(Debug, thiserror::Error)]
#[error(
    "failed to read --allowed-hosts-file as a map from namespaces to lists of host patterns: {0}"
)]
pub struct AllowedHostsError(String);

impl AllowedHosts {
    /// No host for anybody.
    pub(crate) fn none(domain: &str) -> Self {
        Self {
            patterns: BTreeMap::new(),
            domain: domain.to_owned(),
        }
    }

    /// Reads JSON or YAML.
    pub(crate) fn parse(text: &str, domain: &str) -> Result<Self, AllowedHostsError> {
        if text.trim().is_empty() {
            return Ok(Self::none(domain));
        }
        let patterns: BTreeMap<String, Vec<String>> =
            serde_saphyr::from_str(text).map_err(|error| AllowedHostsError(error.to_string()))?;
        for pattern in patterns.values().flatten() {
            let host = pattern.strip_prefix("*.").unwrap_or(pattern);
            if pattern != "*" && (host.is_empty() || host.contains('*')) {
                return Err(AllowedHostsError(format!(
                    "{pattern:?} is no pattern; write a host, *.host, or * alone"
                )));
            }
        }
        Ok(Self {
            patterns,
            domain: domain.to_owned(),
        })
    }

    /// Whether Functions of the namespace may claim the host (which may be a wildcard itself).
    pub(crate) fn allows(&self, namespace: &str, host: &str) -> bool {
        !self.is_builtin(host) && self.of(namespace).any(|pattern| covers(pattern, host))
    }

    /// Why a host is not allowed, and the remedy.
    pub(crate) fn explain(&self, namespace: &str, host: &str) -> String {
        if self.is_builtin(host) {
            return format!(
                "host {host} belongs to the built-in routes, which every Function has without asking; claim another host"
            );
        }
        let note = match is_short(host) {
            true => ", where a host of two parts must be listed by itself",
            false => "",
        };
        let patterns: Vec<_> = self.of(namespace).collect();
        let allowed = if patterns.is_empty() {
            "no hosts".to_owned()
        } else {
            patterns.join(", ")
        };
        format!(
            "namespace {namespace} may not claim host {host}: the platform allows it {allowed}{note}; choose such a host, or ask \
             the platform's administrator to add it to allowedHosts"
        )
    }

    fn of(&self, namespace: &str) -> impl Iterator<Item = &str> {
        ["*", namespace]
            .into_iter()
            .filter_map(|key| self.patterns.get(key))
            .flatten()
            .map(String::as_str)
    }

    fn is_builtin(&self, host: &str) -> bool {
        let host = host.strip_prefix("*.").unwrap_or(host);
        [self.domain.as_str(), "svc", "cluster.local", "localhost"]
            .iter()
            .any(|own| {
                host.strip_suffix(own)
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            })
    }
}

/// Two labels, as in `NAME.NAMESPACE`; the first may be `*`.
fn is_short(host: &str) -> bool {
    host.split('.').count() <= 2
}

fn covers(pattern: &str, host: &str) -> bool {
    if is_short(host) {
        return pattern == host;
    }
    match pattern.strip_prefix('*') {
        Some("") => true,
        // ".example.com" is left; "*.example.com" and "a.example.com" end with it.
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => pattern == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(text: &str) -> AllowedHosts {
        AllowedHosts::parse(text, "isolet.local").expect("parses")
    }

    #[test]
    fn patterns_cover_hosts_below_them() {
        let hosts = hosts(r#"{"*": ["*.apps.example.com"], "shop": ["shop.example.com", "*"]}"#);
        assert!(hosts.allows("any", "a.apps.example.com"));
        assert!(hosts.allows("any", "a.b.apps.example.com"));
        assert!(hosts.allows("any", "*.apps.example.com"));
        assert!(!hosts.allows("any", "apps.example.com"));
        assert!(!hosts.allows("any", "evilapps.example.com"));
        assert!(!hosts.allows("any", "shop.example.com"));
        assert!(hosts.allows("shop", "any.thing.test"));
    }

    #[test]
    fn yaml_is_read_too() {
        assert!(hosts("shop:\n- shop.example.com\n").allows("shop", "shop.example.com"));
        assert!(!hosts("").allows("shop", "shop.example.com"));
    }

    #[test]
    fn built_in_hosts_belong_to_nobody() {
        let hosts = hosts(r#"{"*": ["*"]}"#);
        for host in [
            "a.b.isolet.local",
            "*.b.isolet.local",
            "isolet.local",
            "a.b.svc",
            "a.b.svc.cluster.local",
        ] {
            assert!(!hosts.allows("any", host), "{host}");
            assert!(hosts.explain("any", host).contains("built-in"), "{host}");
        }
        assert!(hosts.allows("any", "a.notisolet.local"));
    }

    #[test]
    fn a_host_that_looks_like_a_function_must_be_listed_by_itself() {
        let hosts = hosts(r#"{"*": ["*", "*.com"], "shop": ["example.com", "*.test"]}"#);
        for host in ["victim.default", "*.default", "example.com", "single"] {
            assert!(!hosts.allows("any", host), "{host}");
            assert!(
                hosts.explain("any", host).contains("listed by itself"),
                "{host}"
            );
        }
        assert!(hosts.allows("shop", "example.com"));
        assert!(hosts.allows("shop", "*.test"));
    }

    #[test]
    fn nonsense_is_an_error_that_names_the_flag() {
        for text in [r#"{"*": ["a.*.com"]}"#, "[1, 2]", r#"{"*": "no list"}"#] {
            let error = AllowedHosts::parse(text, "d").expect_err(text).to_string();
            assert!(error.contains("--allowed-hosts-file"), "{error}");
        }
    }
}
