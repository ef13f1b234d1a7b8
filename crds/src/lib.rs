//! The `Function` resource, the bundle format, and the names both programs agree on.
//!
//! This crate knows Kubernetes' types but no client: the operator, the runtime and the tests share it.
//!
//! ```text
//! function   spec and status of functions.isolet.dev, with the CEL rules that the API server enforces
//! limits     durations and byte quantities of `spec.limits`, their defaults and ranges
//! condition  condition types and reasons
//! egress     entries of `spec.egress.allow` and what they match
//! resolve    which module an import names
//! report     what an agent tells the operator
//! bundle     what a runtime pod needs to serve one revision: manifest, archive, digest, chunks
//! yaml       the CustomResourceDefinition as files
//! labels     labels and annotations of the objects that carry bundles
//! ```

pub mod bundle;
pub mod condition;
pub mod egress;
mod function;
pub mod labels;
mod limits;
pub mod report;
pub mod resolve;
pub mod yaml;

pub use function::{
    Address, ConfigMapReference, Egress, EnvVar, EnvVarSource, Function, FunctionSpec,
    FunctionStatus, KeySelector, NodesStatus, Route, Source,
};
pub use limits::{Limits, LimitsError, ResolvedLimits, parse_duration, parse_quantity};
