//! One ConfigMap or Secret as a part of a revision: labels and annotations read, nothing trusted.

use bytes::Bytes;
use isolet_crds::bundle::{Digest, FunctionIdentity, MAX_CHUNK_BYTES, MAX_COMPRESSED_BYTES};
use isolet_crds::labels;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Most chunks of one revision.
pub const MAX_CHUNKS: u32 = (MAX_COMPRESSED_BYTES.div_ceil(MAX_CHUNK_BYTES)) as u32 * 2;

/// Which object it was.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKey {
    /// A ConfigMap's name.
    ConfigMap(String),
    /// A Secret's name.
    Secret(String),
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ConfigMap(name) => write!(f, "ConfigMap {name}"),
            Self::Secret(name) => write!(f, "Secret {name}"),
        }
    }
}

/// A part of a revision.
#[derive(Clone, Debug, PartialEq)]
pub struct BundleObject {
    /// Which object carried it.
    pub key: ObjectKey,
    /// From its labels.
    pub identity: FunctionIdentity,
    /// From its annotations.
    pub digest: Digest,
    /// From its annotations.
    pub sequence: u64,
    /// What it carries.
    pub part: Part,
}

/// What one object carries.
#[derive(Clone, PartialEq)]
pub enum Part {
    /// A piece of the archive.
    Chunk {
        /// From 0.
        index: u32,
        /// How many there are.
        total: u32,
        /// The piece.
        bytes: Bytes,
    },
    /// The secret values.
    Secrets(Bytes),
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Chunk {
                index,
                total,
                bytes,
            } => {
                write!(f, "chunk {index} of {total}, {} bytes", bytes.len())
            }
            Self::Secrets(bytes) => write!(f, "secrets, {} bytes", bytes.len()),
        }
    }
}

/// Why an object is no part of a revision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{object} carries no readable bundle: {problem}; delete it and the operator writes it again"
)]
pub struct ObjectError {
    /// Which object, as [`ObjectKey`] writes it.
    pub object: String,
    /// The Function, where its label could be read.
    pub uid: Option<String>,
    /// The revision, where its label could be read.
    pub revision: Option<String>,
    /// What is wrong.
    pub problem: String,
}

impl BundleObject {
    /// Reads a ConfigMap.
    pub fn from_config_map(object: &ConfigMap) -> Result<Self, ObjectError> {
        let key = ObjectKey::ConfigMap(object.metadata.name.clone().unwrap_or_default());
        let head = Head::read(&object.metadata)
            .map_err(|problem| error(&key, &object.metadata, problem))?;
        let chunk = || {
            let index = number(&object.metadata, labels::CHUNK)?;
            let total = number(&object.metadata, labels::CHUNKS)?;
            if total == 0 || total > u64::from(MAX_CHUNKS) || index >= total {
                return Err(format!(
                    "chunk {index} of {total} is out of range (at most {MAX_CHUNKS})"
                ));
            }
            let bytes = object
                .binary_data
                .as_ref()
                .and_then(|data| data.get(labels::DATA_KEY))
                .ok_or_else(|| format!("binaryData.{} is missing", labels::DATA_KEY))?;
            Ok(Part::Chunk {
                index: index as u32,
                total: total as u32,
                bytes: bounded(&bytes.0)?,
            })
        };
        let part = chunk().map_err(|problem| error(&key, &object.metadata, problem))?;
        Ok(head.object(key, part))
    }

    /// Reads a Secret.
    pub fn from_secret(object: &Secret) -> Result<Self, ObjectError> {
        let key = ObjectKey::Secret(object.metadata.name.clone().unwrap_or_default());
        let read = || {
            let head = Head::read(&object.metadata)?;
            let bytes = object
                .data
                .as_ref()
                .and_then(|data| data.get(labels::DATA_KEY))
                .ok_or_else(|| format!("data.{} is missing", labels::DATA_KEY))?;
            Ok((head, Part::Secrets(bounded(&bytes.0)?)))
        };
        let (head, part) = read().map_err(|problem| error(&key, &object.metadata, problem))?;
        Ok(head.object(key, part))
    }
}

struct Head {
    identity: FunctionIdentity,
    digest: Digest,
    sequence: u64,
}

impl Head {
    fn read(metadata: &ObjectMeta) -> Result<Self, String> {
        let identity = FunctionIdentity {
            namespace: label(metadata, labels::FUNCTION_NAMESPACE)?,
            name: label(metadata, labels::FUNCTION_NAME)?,
            uid: label(metadata, labels::FUNCTION_UID)?,
        };
        let digest = annotation(metadata, labels::DIGEST)?;
        let digest = Digest::parse(digest)
            .ok_or_else(|| format!("annotation {} is no digest", labels::DIGEST))?;
        let revision = label(metadata, labels::REVISION)?;
        if revision != digest.revision() {
            return Err(format!(
                "label {} does not fit the digest {}",
                labels::REVISION,
                digest.as_str()
            ));
        }
        Ok(Self {
            identity,
            digest,
            sequence: number(metadata, labels::SEQUENCE)?,
        })
    }

    fn object(self, key: ObjectKey, part: Part) -> BundleObject {
        BundleObject {
            key,
            identity: self.identity,
            digest: self.digest,
            sequence: self.sequence,
            part,
        }
    }
}

fn error(key: &ObjectKey, metadata: &ObjectMeta, problem: String) -> ObjectError {
    ObjectError {
        object: key.to_string(),
        uid: label(metadata, labels::FUNCTION_UID).ok(),
        revision: label(metadata, labels::REVISION).ok(),
        problem,
    }
}

fn label(metadata: &ObjectMeta, name: &str) -> Result<String, String> {
    metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(name))
        .filter(|value| !value.is_empty())
        .cloned()
        .ok_or_else(|| format!("label {name} is missing"))
}

fn annotation<'a>(metadata: &'a ObjectMeta, name: &str) -> Result<&'a str, String> {
    metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(name))
        .map(String::as_str)
        .ok_or_else(|| format!("annotation {name} is missing"))
}

fn number(metadata: &ObjectMeta, name: &str) -> Result<u64, String> {
    annotation(metadata, name)?
        .parse()
        .map_err(|_| format!("annotation {name} is no number"))
}

fn bounded(bytes: &[u8]) -> Result<Bytes, String> {
    // An object of the API server is smaller than this anyway; a file or a test server may not be.
    if bytes.len() > 2 << 20 {
        return Err(format!(
            "{} bytes are more than an object holds",
            bytes.len()
        ));
    }
    Ok(Bytes::copy_from_slice(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::testing;
    use k8s_openapi::ByteString;
    use std::collections::BTreeMap;

    fn config_map() -> ConfigMap {
        let encoded = testing::bundle("hello", "1", false);
        let identity = testing::identity("hello");
        let pairs = |pairs: &[(&str, &str)]| {
            Some(
                pairs
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect::<BTreeMap<_, _>>(),
            )
        };
        ConfigMap {
            metadata: ObjectMeta {
                name: Some("fn-x".into()),
                labels: pairs(&[
                    (labels::FUNCTION_NAMESPACE, &identity.namespace),
                    (labels::FUNCTION_NAME, &identity.name),
                    (labels::FUNCTION_UID, &identity.uid),
                    (labels::REVISION, encoded.digest.revision()),
                ]),
                annotations: pairs(&[
                    (labels::DIGEST, encoded.digest.as_str()),
                    (labels::CHUNK, "0"),
                    (labels::CHUNKS, "1"),
                    (labels::SEQUENCE, "7"),
                ]),
                ..Default::default()
            },
            binary_data: Some(BTreeMap::from([(
                labels::DATA_KEY.into(),
                ByteString(encoded.bytes),
            )])),
            ..Default::default()
        }
    }

    fn annotate(name: &str, value: &str) -> ConfigMap {
        let mut object = config_map();
        object
            .metadata
            .annotations
            .as_mut()
            .unwrap()
            .insert(name.into(), value.into());
        object
    }

    #[test]
    fn reads_what_the_operator_writes() {
        let object = BundleObject::from_config_map(&config_map()).unwrap();
        assert_eq!(object.sequence, 7);
        assert_eq!(object.identity, testing::identity("hello"));
        assert!(matches!(
            object.part,
            Part::Chunk {
                index: 0,
                total: 1,
                ..
            }
        ));
    }

    #[test]
    fn every_malformed_object_is_an_error_that_says_what() {
        for (object, part) in [
            (annotate(labels::SEQUENCE, "x"), "sequence is no number"),
            (annotate(labels::SEQUENCE, "-1"), "sequence is no number"),
            (annotate(labels::DIGEST, "sha256:00"), "is no digest"),
            (annotate(labels::CHUNK, "1"), "chunk 1 of 1 is out of range"),
            (
                annotate(labels::CHUNKS, "0"),
                "chunk 0 of 0 is out of range",
            ),
            (annotate(labels::CHUNKS, "99999999999"), "is out of range"),
            (
                ConfigMap {
                    binary_data: None,
                    ..config_map()
                },
                "binaryData.bundle is missing",
            ),
            (
                ConfigMap::default(),
                "label isolet.dev/function-namespace is missing",
            ),
        ] {
            let error = BundleObject::from_config_map(&object)
                .unwrap_err()
                .to_string();
            assert!(error.contains(part), "{error}");
        }
        let error = BundleObject::from_config_map(&annotate(labels::CHUNK, "9")).unwrap_err();
        assert_eq!(error.uid.as_deref(), Some("uid-hello"));
        assert!(BundleObject::from_secret(&Secret::default()).is_err());
    }
}
