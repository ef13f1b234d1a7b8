//! Second step, pure: what a spec and its sources come to. Routes that the Function may not have are taken out first, so
//! that they are in no bundle; the rest is the bundler's, which `isolet dev` shares.

use isolet_bundler::{Sources, ValidatedFunction};
use isolet_crds::Function;

use crate::routes::Granted;

/// A spec that cannot be served: the Accepted condition.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Rejected {
    /// One of the constants of [`isolet_crds::condition::reason`].
    pub reason: &'static str,
    /// One line: file, line and column or field, what is wrong, and the remedy.
    pub message: String,
}

/// Checks spec and code.
pub(crate) fn validate(
    function: &Function,
    granted: &Granted,
    sources: Sources,
) -> Result<ValidatedFunction, Rejected> {
    let mut function = function.clone();
    function.spec.routes.clone_from(&granted.routes);
    isolet_bundler::validate(&function, sources).map_err(|invalid| Rejected {
        reason: invalid.reason,
        message: invalid.message,
    })
}
