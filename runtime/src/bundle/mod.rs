//! Bundles on this node: from objects or files to revisions that the worker can load.
//!
//! ```text
//! ConfigMaps, Secrets -> object -> store -+
//! disk cache ----------> cache -----------+-> Change -> agent::loader -> worker
//!                        code: compiled code, beside the bundles
//! manifest files ------> dev -------------+
//! ```
//!
//! A source tells, per Function, which revisions there are, best first, as one [`Change`]; the loader serves the first that
//! the worker accepts. Nothing in here panics on what an object or a file holds.

pub mod cache;
pub mod code;
pub mod object;
pub mod store;

use std::sync::Arc;

use bytes::Bytes;
use isolet_crds::bundle::{Bundle, BundleError, Digest, FunctionIdentity, SecretValues};

/// A checked revision, ready for the worker.
#[derive(Clone, PartialEq)]
pub struct Revision {
    /// Whose code it is.
    pub identity: FunctionIdentity,
    /// Digest of the payload, checked.
    pub digest: Digest,
    /// Order of revisions; the highest is served.
    pub sequence: u64,
    /// The compressed archive.
    pub bundle: Bytes,
    /// The compressed secret values, where the manifest names any.
    pub secrets: Option<Bytes>,
    /// `spec.egress.allow`.
    pub egress: Vec<String>,
}

impl std::fmt::Debug for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Revision")
            .field("identity", &self.identity)
            .field("revision", &self.name())
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

/// Why an archive is no revision that can be served.
#[derive(Debug, thiserror::Error)]
pub enum RevisionError {
    /// It does not decode, or its digest is another.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The manifest names another Function than the object's labels do.
    #[error(
        "the bundle belongs to {actual}, not to {expected}: its object was changed by hand; delete the object and the operator writes it again"
    )]
    OtherFunction {
        /// From the labels.
        expected: String,
        /// From the manifest.
        actual: String,
    },
    /// Secret values are missing.
    #[error("the secret value of env {0} is missing")]
    MissingSecret(String),
}

impl Revision {
    /// The revision's name: 12 hexadecimal digits.
    pub fn name(&self) -> &str {
        self.digest.revision()
    }

    /// The same with `spec.suspend` set and without secret values: for the worker only, its digest is another.
    pub fn suspended(&self) -> Result<Self, BundleError> {
        let mut bundle = Bundle::decode(&self.bundle, Some(&self.digest))?;
        bundle.manifest.suspend = true;
        bundle.manifest.secret_env.clear();
        let encoded = bundle.encode()?;
        Ok(Self {
            digest: encoded.digest,
            bundle: encoded.bytes.into(),
            secrets: None,
            ..self.clone()
        })
    }

    /// Decodes and checks an archive: digest, identity, secret values. `Ok(None)`: it needs secret values and there are none
    /// yet.
    pub fn check(
        identity: FunctionIdentity,
        digest: Digest,
        sequence: u64,
        bundle: Bytes,
        secrets: Option<Bytes>,
    ) -> Result<Option<Self>, RevisionError> {
        let manifest = Bundle::decode(&bundle, Some(&digest))?.manifest;
        if manifest.function != identity {
            let text = |of: &FunctionIdentity| format!("{}/{} ({})", of.namespace, of.name, of.uid);
            return Err(RevisionError::OtherFunction {
                expected: text(&identity),
                actual: text(&manifest.function),
            });
        }
        let secrets = if manifest.secret_env.is_empty() {
            None
        } else {
            let Some(secrets) = secrets else {
                return Ok(None);
            };
            let values = SecretValues::decode(&secrets)?.values;
            if let Some(name) = manifest
                .secret_env
                .keys()
                .find(|name| !values.contains_key(*name))
            {
                return Err(RevisionError::MissingSecret(name.clone()));
            }
            Some(secrets)
        };
        Ok(Some(Self {
            identity,
            digest,
            sequence,
            bundle,
            secrets,
            egress: manifest.egress,
        }))
    }
}

/// What a source knows of one Function.
#[derive(Clone, Debug)]
pub struct Change {
    /// UID of the Function.
    pub uid: String,
    /// Its revisions, the one to serve first; empty where the Function is gone.
    pub candidates: Vec<Arc<Revision>>,
    /// A revision that would come before all of them but cannot be read.
    pub broken: Option<Broken>,
}

/// A revision that is complete but cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its name.
    pub revision: String,
    /// One sentence.
    pub message: String,
}

/// What a source says.
#[derive(Clone, Debug)]
pub enum SourceEvent {
    /// A Function's revisions are new.
    Changed(Change),
    /// Everything that there is has been told once; readiness may follow.
    Synced,
}

#[cfg(test)]
pub(crate) mod testing {
    //! Revisions for tests.

    use super::*;
    use isolet_crds::ResolvedLimits;
    use isolet_crds::bundle::{Encoded, Manifest, ModuleEntry, ModuleKind};
    use std::collections::BTreeMap;

    pub(crate) fn identity(name: &str) -> FunctionIdentity {
        FunctionIdentity {
            namespace: "default".into(),
            name: name.into(),
            uid: format!("uid-{name}"),
        }
    }

    pub(crate) fn bundle(name: &str, source: &str, secret: bool) -> Encoded {
        let contents = vec![source.as_bytes().to_vec()];
        Bundle {
            manifest: Manifest {
                format: Manifest::FORMAT,
                function: identity(name),
                main: "main.js".into(),
                modules: vec![ModuleEntry {
                    path: "main.js".into(),
                    kind: ModuleKind::JavaScript,
                    bytes: source.len() as u64,
                    mappings: None,
                }],
                routes: vec![],
                env: BTreeMap::new(),
                secret_env: if secret {
                    BTreeMap::from([("TOKEN".into(), "v1".into())])
                } else {
                    BTreeMap::new()
                },
                limits: ResolvedLimits::default(),
                egress: vec!["example.com".into()],
                suspend: false,
            },
            contents,
        }
        .encode()
        .unwrap()
    }

    pub(crate) fn secrets() -> Bytes {
        SecretValues {
            values: BTreeMap::from([("TOKEN".into(), "s3cret".into())]),
        }
        .encode()
        .unwrap()
        .into()
    }

    pub(crate) fn revision(name: &str, source: &str, sequence: u64) -> Arc<Revision> {
        let encoded = bundle(name, source, false);
        Arc::new(
            Revision::check(
                identity(name),
                encoded.digest,
                sequence,
                encoded.bytes.into(),
                None,
            )
            .unwrap()
            .unwrap(),
        )
    }
}
