//! Third step, pure: the bundle of a validated Function, and the objects that carry it.

use std::collections::BTreeMap;

use isolet_bundler::{Built, ValidatedFunction};
use isolet_crds::condition::reason;
use isolet_crds::{Function, labels};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt as _;

use crate::validate::Rejected;

/// What a bundle comes to, small enough to be remembered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Summary {
    /// Name of the revision.
    pub revision: String,
    /// Size as stored, in bytes.
    pub size: usize,
    /// Number of chunks.
    pub chunks: usize,
    /// Whether a Secret belongs to it.
    pub has_secret: bool,
}

impl Summary {
    /// Of a bundle.
    pub(crate) fn of(built: &Built) -> Self {
        Self {
            revision: built.bundle.digest.revision().to_owned(),
            size: built.bundle.bytes.len(),
            chunks: built.bundle.chunks().len(),
            has_secret: built.secrets.is_some(),
        }
    }
}

/// Packs; the only failure is a bundle too large.
pub(crate) fn build(function: &ValidatedFunction) -> Result<Built, Rejected> {
    isolet_bundler::build(function).map_err(|error| Rejected {
        reason: reason::BUNDLE_TOO_LARGE,
        message: format!("{error}; make the code smaller, or split the Function"),
    })
}

/// The objects of one revision.
pub(crate) struct Objects {
    /// Secret values, if any: written first, so that a complete set of chunks is always loadable.
    pub secret: Option<Secret>,
    /// Chunks.
    pub config_maps: Vec<ConfigMap>,
}

/// Where objects go and how they are marked.
pub(crate) struct Placement<'a> {
    /// The system namespace.
    pub namespace: &'a str,
    /// The DaemonSet of the runtime pods.
    pub owner: Option<&'a OwnerReference>,
    /// Order among the Function's revisions.
    pub sequence: u64,
}

/// Name of a chunk's ConfigMap.
pub(crate) fn chunk_name(uid: &str, revision: &str, chunk: usize) -> String {
    match chunk {
        0 => base_name(uid, revision),
        n => format!("{}-{n}", base_name(uid, revision)),
    }
}

/// Name of the Secret.
pub(crate) fn secret_name(uid: &str, revision: &str) -> String {
    format!("{}-env", base_name(uid, revision))
}

fn base_name(uid: &str, revision: &str) -> String {
    let uid8: String = uid.chars().take(8).collect();
    format!("fn-{uid8}-{revision}")
}

/// Lays a bundle out in objects.
pub(crate) fn objects(
    function: &Function,
    built: &Built,
    secrets: Option<Vec<u8>>,
    placement: &Placement<'_>,
) -> Objects {
    let uid = function.uid().unwrap_or_default();
    let revision = built.bundle.digest.revision();
    let chunks = built.bundle.chunks().len();
    let meta = |name: String, chunk: Option<usize>| {
        let mut annotations = BTreeMap::from([
            (
                labels::DIGEST.to_owned(),
                built.bundle.digest.as_str().to_owned(),
            ),
            (labels::SEQUENCE.to_owned(), placement.sequence.to_string()),
        ]);
        if let Some(chunk) = chunk {
            annotations.insert(labels::CHUNK.to_owned(), chunk.to_string());
            annotations.insert(labels::CHUNKS.to_owned(), chunks.to_string());
        }
        ObjectMeta {
            name: Some(name),
            namespace: Some(placement.namespace.to_owned()),
            labels: Some(object_labels(function, &uid, revision)),
            annotations: Some(annotations),
            owner_references: placement.owner.map(|owner| vec![owner.clone()]),
            ..ObjectMeta::default()
        }
    };
    let data =
        |bytes: &[u8]| BTreeMap::from([(labels::DATA_KEY.to_owned(), ByteString(bytes.to_vec()))]);
    Objects {
        secret: secrets.map(|bytes| Secret {
            metadata: meta(secret_name(&uid, revision), None),
            immutable: Some(true),
            data: Some(data(&bytes)),
            ..Secret::default()
        }),
        config_maps: built
            .bundle
            .chunks()
            .enumerate()
            .map(|(n, chunk)| ConfigMap {
                metadata: meta(chunk_name(&uid, revision, n), Some(n)),
                immutable: Some(true),
                binary_data: Some(data(chunk)),
                ..ConfigMap::default()
            })
            .collect(),
    }
}

fn object_labels(function: &Function, uid: &str, revision: &str) -> BTreeMap<String, String> {
    [
        (labels::BUNDLE, labels::BUNDLE_FORMAT.to_owned()),
        (labels::FUNCTION_UID, uid.to_owned()),
        (
            labels::FUNCTION_NAMESPACE,
            function.namespace().unwrap_or_default(),
        ),
        (labels::FUNCTION_NAME, function.name_any()),
        (labels::REVISION, revision.to_owned()),
        (
            "app.kubernetes.io/managed-by",
            crate::FIELD_MANAGER.to_owned(),
        ),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}
