//! From a validated Function to what is stored.

use isolet_crds::bundle::{Bundle, BundleError, Encoded, Manifest, SecretValues};

use crate::validate::ValidatedFunction;

/// What the operator stores and a runtime pod loads.
#[derive(Clone, Debug)]
pub struct Built {
    /// The archive and its digest.
    pub bundle: Encoded,
    /// The manifest in it.
    pub manifest: Manifest,
    /// Secret values that go beside it, where the manifest names any.
    pub secrets: Option<SecretValues>,
}

/// Packs and digests; the same Function gives the same digest. Fails only where the bundle is too large.
pub fn build(function: &ValidatedFunction) -> Result<Built, BundleError> {
    let bundle = Bundle {
        manifest: function.manifest.clone(),
        contents: function.contents.clone(),
    };
    Ok(Built {
        bundle: bundle.encode()?,
        manifest: bundle.manifest,
        secrets: function.secrets.clone(),
    })
}
