//! What a Function's code and env come from, once the caller has fetched it.

use std::collections::BTreeMap;

use isolet_crds::FunctionSpec;

/// Path of the module that `spec.source.inline` is.
pub(crate) const INLINE_MODULE: &str = "main.ts";

/// Everything a Function refers to, fetched.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Module contents by path.
    pub modules: BTreeMap<String, Vec<u8>>,
    /// Values of `configMapKeyRef`s by env name. Literal values are taken from the spec.
    pub env: BTreeMap<String, String>,
    /// Values of `secretKeyRef`s by env name.
    pub secret_env: BTreeMap<String, SecretValue>,
}

/// One value of a Secret.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue {
    /// The value.
    pub value: String,
    /// Version of the Secret it is from: another version makes another revision. Not derived from the value where others
    /// may read it.
    pub version: String,
}

impl std::fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretValue")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// Modules that the spec itself holds; `None` where they are in a ConfigMap.
pub fn inline_modules(spec: &FunctionSpec) -> Option<BTreeMap<String, Vec<u8>>> {
    let source = &spec.source;
    if let Some(code) = &source.inline {
        return Some(BTreeMap::from([(
            INLINE_MODULE.to_owned(),
            code.clone().into_bytes(),
        )]));
    }
    source.modules.as_ref().map(|modules| {
        modules
            .iter()
            .map(|(path, content)| (path.clone(), content.clone().into_bytes()))
            .collect()
    })
}
