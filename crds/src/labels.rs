//! Labels and annotations of the ConfigMaps and Secrets that carry bundles, and of runtime pods.

/// Marks a bundle object; its value is the format version.
pub const BUNDLE: &str = "isolet.dev/bundle";
/// The bundle format that this build reads and writes.
pub const BUNDLE_FORMAT: &str = "v1";
/// UID of the Function, by which the operator sweeps.
pub const FUNCTION_UID: &str = "isolet.dev/function-uid";
/// Namespace of the Function.
pub const FUNCTION_NAMESPACE: &str = "isolet.dev/function-namespace";
/// Name of the Function.
pub const FUNCTION_NAME: &str = "isolet.dev/function-name";
/// Revision (the digest's first 12 hexadecimal digits).
pub const REVISION: &str = "isolet.dev/revision";

/// Annotation: the whole digest, `sha256:` and 64 hexadecimal digits.
pub const DIGEST: &str = "isolet.dev/digest";
/// Annotation: number of this chunk, from 0.
pub const CHUNK: &str = "isolet.dev/chunk";
/// Annotation: number of chunks of the revision.
pub const CHUNKS: &str = "isolet.dev/chunks";
/// Annotation: order of revisions; runtime pods serve the highest that loads.
pub const SEQUENCE: &str = "isolet.dev/sequence";

/// The key in `binaryData` (ConfigMap) or `data` (Secret) that holds a chunk.
pub const DATA_KEY: &str = "bundle";

/// Label selector of the objects that carry bundles of this format.
pub fn bundle_selector() -> String {
    format!("{BUNDLE}={BUNDLE_FORMAT}")
}
