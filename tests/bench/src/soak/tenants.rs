//! The tenants: a few dozen of each kind, each with a secret that its answers must carry.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;
use serde::Serialize;
use serde_json::{Value, json};

use super::random::Random;

/// What a tenant does; `Nobody` and `Malformed` are requests that reach none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Hello,
    Upload,
    Echo,
    Stream,
    Fetch,
    Later,
    Redeployed,
    Hog,
    Bomb,
    Thrower,
    Sleeper,
    Nobody,
    Malformed,
}

/// Kinds, how many tenants of each there are, and how many of a hundred requests go to them.
pub(crate) const KINDS: [(Kind, usize, u64); 13] = [
    (Kind::Hello, 60, 30),
    (Kind::Upload, 30, 10),
    (Kind::Echo, 30, 8),
    (Kind::Stream, 30, 10),
    (Kind::Fetch, 30, 12),
    (Kind::Later, 20, 6),
    (Kind::Redeployed, 30, 10),
    (Kind::Hog, 20, 2),
    (Kind::Bomb, 20, 1),
    (Kind::Thrower, 20, 5),
    (Kind::Sleeper, 20, 2),
    (Kind::Nobody, 0, 2),
    (Kind::Malformed, 0, 2),
];

/// `limits.concurrency` of every tenant: more than the load ever has under way at one of them.
pub(crate) const CONCURRENCY: usize = 64;
/// `limits.body` of the kind `Upload`, in bytes.
pub(crate) const SMALL_BODY: usize = 64 << 10;

/// A tenant.
pub(crate) struct Tenant {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    secret: String,
    /// The latest version that was deployed; it may not be served yet.
    pub(crate) deployed: AtomicU32,
    /// The latest version that answered: an older one must not answer what is asked from now on.
    pub(crate) seen: AtomicU32,
    /// Held while something is asked that may end the instance under others' requests.
    pub(crate) alone: tokio::sync::Mutex<()>,
}

/// All tenants, by kind.
pub(crate) struct Tenants(Vec<Tenant>);

impl Kind {
    pub(crate) fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// Module of the kind, in `apps/soak`.
    fn module(self) -> String {
        match self {
            Self::Redeployed => "hello".into(),
            other => other.name(),
        }
    }

    /// Reasons with which requests of this kind may fail. A client that hangs up amid its upload makes the handler fail.
    pub(crate) fn failures(self) -> &'static [&'static str] {
        match self {
            Self::Upload => &["BodyTooLarge", "HandlerError"],
            Self::Fetch | Self::Thrower => &["HandlerError"],
            Self::Hog => &["CPULimitExceeded", "TooBusy"],
            Self::Bomb => &["MemoryLimitExceeded", "HandlerError"],
            Self::Sleeper => &["Timeout"],
            _ => &[],
        }
    }

    fn limits(self) -> Value {
        let mut limits = json!({"cpu": "5s", "concurrency": CONCURRENCY});
        match self {
            Self::Upload => limits["body"] = "64Ki".into(),
            Self::Hog => limits["cpu"] = "50ms".into(),
            Self::Bomb => limits["memory"] = "32Mi".into(),
            Self::Sleeper => {
                limits["timeout"] = "1s".into();
                limits["cpu"] = "500ms".into();
            }
            _ => {}
        }
        limits
    }
}

impl Tenant {
    /// The secret that goes with a version.
    pub(crate) fn secret(&self, version: u32) -> String {
        format!("{}-{version}", self.secret)
    }

    /// Whether a secret is one of this tenant's, of a version that was deployed.
    pub(crate) fn owns(&self, secret: &str) -> bool {
        let deployed = self.deployed.load(Ordering::SeqCst);
        secret
            .rsplit_once('-')
            .and_then(|(_, version)| version.parse().ok())
            .is_some_and(|version: u32| {
                (1..=deployed).contains(&version) && self.secret(version) == secret
            })
    }

    /// The value of the header `x-proof` that version `version` gives to an answer.
    pub(crate) fn proof(&self, version: u32, nonce: &str) -> String {
        let (name, secret) = (&self.name, self.secret(version));
        format!("{name} {secret} {version} {version} {secret} {secret} {nonce}")
    }

    /// The line that most bodies begin with.
    pub(crate) fn line(&self, version: u32, nonce: &str) -> String {
        format!("{} {} {nonce}\n", self.name, self.secret(version))
    }

    /// Function and Secret, a YAML document each.
    fn manifest(&self, upstream: u16) -> anyhow::Result<String> {
        let version = self.deployed.load(Ordering::SeqCst);
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": self.name},
            "stringData": {"secret": self.secret(version)},
        });
        let function = json!({
            "apiVersion": "isolet.dev/v1alpha1", "kind": "Function", "metadata": {"name": self.name},
            "spec": {
                "source": {"modules": {
                    "main.js": module(&self.kind.module())?,
                    "proof.js": module("proof")?,
                    "version.js": format!("export default {version};\n"),
                }},
                "env": [
                    {"name": "NAME", "value": self.name},
                    {"name": "VERSION", "value": version.to_string()},
                    {"name": "UPSTREAM", "value": format!("http://127.0.0.1:{upstream}")},
                    {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": self.name, "key": "secret"}}},
                ],
                "limits": self.kind.limits(),
                "egress": {"allow": [format!("127.0.0.1:{upstream}")]},
            },
        });
        Ok(format!("---\n{secret}\n---\n{function}\n"))
    }
}

/// A module of `apps/soak`.
fn module(name: &str) -> anyhow::Result<String> {
    let path = format!("tests/bench/apps/soak/{name}.js");
    fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))
}

impl Tenants {
    pub(crate) fn new(random: &mut Random) -> Self {
        let tenants = KINDS.iter().flat_map(|(kind, count, _)| {
            (0..*count).map(|index| (*kind, format!("{}-{index}", kind.name())))
        });
        Self(
            tenants
                .map(|(kind, name)| Tenant {
                    kind,
                    name,
                    secret: format!("{:016x}", random.next()),
                    deployed: AtomicU32::new(1),
                    seen: AtomicU32::new(0),
                    alone: tokio::sync::Mutex::new(()),
                })
                .collect(),
        )
    }

    pub(crate) fn all(&self) -> &[Tenant] {
        &self.0
    }

    pub(crate) fn of(&self, kind: Kind) -> Vec<&Tenant> {
        self.0.iter().filter(|tenant| tenant.kind == kind).collect()
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Tenant> {
        self.0.iter().find(|tenant| tenant.name == name)
    }

    /// Writes the manifests of the tenants that are (or are not) redeployed into one file of `folder`.
    pub(crate) fn write(
        &self,
        folder: &Path,
        redeployed: bool,
        upstream: u16,
    ) -> anyhow::Result<()> {
        let name = if redeployed { "redeployed" } else { "fixed" };
        let texts: anyhow::Result<Vec<String>> = self
            .0
            .iter()
            .filter(|tenant| (tenant.kind == Kind::Redeployed) == redeployed)
            .map(|tenant| tenant.manifest(upstream))
            .collect();
        // In one step, so that half a file is never read.
        let part = folder.with_extension("part");
        fs::write(&part, texts?.concat())?;
        fs::rename(part, folder.join(format!("{name}.yaml")))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_are_percentages() {
        assert_eq!(KINDS.iter().map(|(_, _, weight)| weight).sum::<u64>(), 100);
    }

    #[test]
    fn a_tenant_owns_the_secrets_of_its_versions_only() {
        let tenants = Tenants::new(&mut Random::new(1, 0));
        let [one, two] = [&tenants.all()[0], &tenants.all()[1]];
        one.deployed.store(2, Ordering::SeqCst);
        assert!(one.owns(&one.secret(1)) && one.owns(&one.secret(2)));
        assert!(!one.owns(&one.secret(3)) && !one.owns(&one.secret(0)));
        assert!(!one.owns(&two.secret(1)) && !one.owns(""));
    }
}
