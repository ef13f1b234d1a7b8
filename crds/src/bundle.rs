//! The bundle: all that a runtime pod needs to serve one revision.
//!
//! An archive is `zstd(payload)` with
//!
//! ```text
//! payload   u32 LE length of manifest | manifest (JSON) | contents of its modules, one after the other
//! digest    SHA-256 of the payload (not of the compressed bytes, which may differ between zstd versions)
//! ```
//!
//! The same content always gives the same payload, hence the same digest and revision. Values of Secrets are not in it:
//! the manifest names them with a version, and they travel as [`SecretValues`] in a Secret.
//!
//! Both sides enforce the size bounds: [`Bundle::encode`] refuses to make what [`Bundle::decode`] refuses to read, and
//! decoding stops at the bound however far a hostile archive would expand.

use std::collections::BTreeMap;
use std::io::Read;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{ResolvedLimits, Route};

/// Largest compressed archive, in bytes.
pub const MAX_COMPRESSED_BYTES: usize = 8 << 20;
/// Largest payload, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 32 << 20;
/// Largest chunk, in bytes: an object of the API server holds 1 MiB, less its metadata and base64.
pub const MAX_CHUNK_BYTES: usize = 700 << 10;
const FORMAT: u32 = 1;
const ZSTD_LEVEL: i32 = 3;

/// A revision: manifest and module contents.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    /// What the runtime needs to know.
    pub manifest: Manifest,
    /// Contents of `manifest.modules`, in the same order.
    pub contents: Vec<Vec<u8>>,
}

/// Everything about a revision but the code.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format.
    pub format: u32,
    /// Whose code it is.
    pub function: FunctionIdentity,
    /// Path of the module whose default export handles requests.
    pub main: String,
    /// Modules, sorted by path.
    pub modules: Vec<ModuleEntry>,
    /// Routes beside the built-in ones, sorted.
    pub routes: Vec<Route>,
    /// Values of `env` that are not secret.
    pub env: BTreeMap<String, String>,
    /// Names of `env` values that come with [`SecretValues`], each with the version of its Secret.
    pub secret_env: BTreeMap<String, String>,
    /// What one request and one instance may use.
    pub limits: ResolvedLimits,
    /// `spec.egress.allow`, as written.
    pub egress: Vec<String>,
    /// Answers 503 instead of running.
    pub suspend: bool,
}

/// Whose code a bundle holds.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FunctionIdentity {
    /// Namespace of the Function.
    pub namespace: String,
    /// Name of the Function.
    pub name: String,
    /// UID of the Function: two Functions of one name, one after the other, are different.
    pub uid: String,
}

/// One module.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModuleEntry {
    /// Path as the user wrote it, such as `lib/util.ts`.
    pub path: String,
    /// How the runtime loads it.
    pub kind: ModuleKind,
    /// Length of its content, in bytes.
    pub bytes: u64,
    /// The `mappings` of a source map (revision 3) from the content to what the user wrote, where the two differ.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mappings: Option<String>,
}

/// How the runtime loads a module.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum ModuleKind {
    /// ECMAScript module; its types, if any, are already gone.
    JavaScript,
    /// WebAssembly; its default export is a `WebAssembly.Module`.
    WebAssembly,
    /// JSON; its default export is the value.
    Json,
    /// Text; its default export is a string.
    Text,
}

/// Secret values of one revision: the content of a Secret, compressed like a bundle.
#[derive(Serialize, Deserialize, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretValues {
    /// Values by env name.
    pub values: BTreeMap<String, String>,
}

impl std::fmt::Debug for SecretValues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretValues")
            .field("names", &self.values.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// A digest of a payload: `sha256:` and 64 hexadecimal digits.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Digest(String);

impl Digest {
    /// Reads the text form.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("sha256:")?;
        (hex.len() == 64
            && hex
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
        .then(|| Self(text.to_owned()))
    }

    fn of(payload: &[u8]) -> Self {
        let hex: String = Sha256::digest(payload)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self(format!("sha256:{hex}"))
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The revision's name: the first 12 hexadecimal digits.
    pub fn revision(&self) -> &str {
        &self.0["sha256:".len()..][..12]
    }
}

/// An encoded bundle.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// Digest of the payload.
    pub digest: Digest,
    /// The compressed archive.
    pub bytes: Vec<u8>,
}

impl Encoded {
    /// The archive in pieces that fit an object of the API server each; at least one.
    pub fn chunks(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.bytes.chunks(MAX_CHUNK_BYTES)
    }
}

/// Why a bundle cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It is larger than [`MAX_COMPRESSED_BYTES`] or [`MAX_PAYLOAD_BYTES`].
    #[error(
        "the bundle has {what} of {bytes} bytes, more than the {limit} that a runtime pod takes"
    )]
    TooLarge {
        /// What was measured.
        what: &'static str,
        /// Its size; where decoding stopped, one past the limit.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// The bytes are no archive of this format.
    #[error("the bundle is damaged: {0}")]
    Damaged(String),
    /// The payload is not what the digest promised.
    #[error("the bundle's digest is {actual}, not {expected}")]
    DigestMismatch {
        /// What the reader was told.
        expected: String,
        /// What the payload has.
        actual: String,
    },
    /// A newer operator wrote it.
    #[error("the bundle has format {0}; this runtime reads format {FORMAT}")]
    Format(u32),
}

impl Manifest {
    /// The format version of this build.
    pub const FORMAT: u32 = FORMAT;
}

impl Bundle {
    /// Packs and digests.
    pub fn encode(&self) -> Result<Encoded, BundleError> {
        let payload = self.payload()?;
        let bytes = compress(&payload)?;
        Ok(Encoded {
            digest: Digest::of(&payload),
            bytes,
        })
    }

    /// The digest that [`Bundle::encode`] gives, without packing.
    pub fn digest(&self) -> Result<Digest, BundleError> {
        Ok(Digest::of(&self.payload()?))
    }

    /// Unpacks, checks the digest where one is expected, and every length.
    pub fn decode(bytes: &[u8], expected: Option<&Digest>) -> Result<Self, BundleError> {
        let payload = decompress(bytes)?;
        let actual = Digest::of(&payload);
        if let Some(expected) = expected.filter(|expected| **expected != actual) {
            return Err(BundleError::DigestMismatch {
                expected: expected.0.clone(),
                actual: actual.0,
            });
        }
        Self::from_payload(&payload)
    }

    /// Module entries with their contents.
    pub fn modules(&self) -> impl Iterator<Item = (&ModuleEntry, &[u8])> {
        self.manifest
            .modules
            .iter()
            .zip(self.contents.iter().map(Vec::as_slice))
    }

    fn payload(&self) -> Result<Vec<u8>, BundleError> {
        let manifest = serde_json::to_vec(&self.manifest)
            .map_err(|error| BundleError::Damaged(error.to_string()))?;
        let bytes = 4 + manifest.len() + self.contents.iter().map(Vec::len).sum::<usize>();
        within("a decompressed size", bytes, MAX_PAYLOAD_BYTES)?;
        let mut payload = Vec::with_capacity(bytes);
        payload.extend_from_slice(&(manifest.len() as u32).to_le_bytes());
        payload.extend_from_slice(&manifest);
        self.contents
            .iter()
            .for_each(|content| payload.extend_from_slice(content));
        Ok(payload)
    }

    fn from_payload(payload: &[u8]) -> Result<Self, BundleError> {
        let damaged = |why: &str| BundleError::Damaged(why.to_owned());
        let (length, rest) = payload
            .split_first_chunk::<4>()
            .ok_or_else(|| damaged("no manifest length"))?;
        let (manifest, mut rest) = rest
            .split_at_checked(u32::from_le_bytes(*length) as usize)
            .ok_or_else(|| damaged("the manifest is cut off"))?;
        let format = serde_json::from_slice::<FormatOnly>(manifest)
            .map_err(|error| damaged(&error.to_string()))?
            .format;
        if format != FORMAT {
            return Err(BundleError::Format(format));
        }
        let manifest: Manifest =
            serde_json::from_slice(manifest).map_err(|error| damaged(&error.to_string()))?;
        let mut contents = Vec::with_capacity(manifest.modules.len());
        for module in &manifest.modules {
            let (content, after) = usize::try_from(module.bytes)
                .ok()
                .and_then(|bytes| rest.split_at_checked(bytes))
                .ok_or_else(|| damaged(&format!("module {} is cut off", module.path)))?;
            contents.push(content.to_vec());
            rest = after;
        }
        if !rest.is_empty() {
            return Err(damaged("bytes after the last module"));
        }
        Ok(Self { manifest, contents })
    }
}

impl SecretValues {
    /// Packs.
    pub fn encode(&self) -> Result<Vec<u8>, BundleError> {
        compress(
            &serde_json::to_vec(self).map_err(|error| BundleError::Damaged(error.to_string()))?,
        )
    }

    /// Unpacks.
    pub fn decode(bytes: &[u8]) -> Result<Self, BundleError> {
        // The error of a parser could quote a secret: only its kind is kept.
        serde_json::from_slice(&decompress(bytes)?)
            .map_err(|_| BundleError::Damaged("secret values do not parse".into()))
    }
}

/// The one field that every format version has.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

fn within(what: &'static str, bytes: usize, limit: usize) -> Result<(), BundleError> {
    if bytes > limit {
        Err(BundleError::TooLarge { what, bytes, limit })
    } else {
        Ok(())
    }
}

fn compress(payload: &[u8]) -> Result<Vec<u8>, BundleError> {
    let bytes = zstd::bulk::compress(payload, ZSTD_LEVEL)
        .map_err(|error| BundleError::Damaged(error.to_string()))?;
    within("a compressed size", bytes.len(), MAX_COMPRESSED_BYTES)?;
    Ok(bytes)
}

fn decompress(bytes: &[u8]) -> Result<Vec<u8>, BundleError> {
    within("a compressed size", bytes.len(), MAX_COMPRESSED_BYTES)?;
    let damaged = |error: std::io::Error| BundleError::Damaged(error.to_string());
    let mut payload = Vec::new();
    let mut decoder = zstd::stream::read::Decoder::new(bytes).map_err(damaged)?;
    // A frame may ask for a window as large as its content; no more than the payload may have.
    decoder
        .window_log_max(MAX_PAYLOAD_BYTES.ilog2())
        .map_err(damaged)?;
    decoder
        .take(MAX_PAYLOAD_BYTES as u64 + 1)
        .read_to_end(&mut payload)
        .map_err(damaged)?;
    within("a decompressed size", payload.len(), MAX_PAYLOAD_BYTES)?;
    Ok(payload)
}
