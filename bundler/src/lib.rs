//! From a Function and what it refers to, to a bundle: the one path that operator and `isolet dev` share. Pure, no client.
//!
//! ```text
//! Function + Sources -> validate -> ValidatedFunction -> build -> Built
//!
//! sources     what the caller has fetched: module contents, values of env
//! modules     module paths and kinds, the main module
//! spec        routes, env, egress, limits: what the API server checks by CEL, again for `isolet dev`
//! compile     one module: parse, TypeScript to JavaScript, positions
//! nesting     bounds recursion before a parser sees the text
//! scan        brackets, strings, comments and regular expressions of a text
//! imports     what a module imports, and whether it has a default export
//! enums       bounds the texts that enums would be evaluated to
//! namespaces  a use that the transformer would print wrongly
//! validate    all of the above in order
//! build       manifest, archive, digest
//! invalid     what a user reads when something is wrong
//! ```
//!
//! Tenants wrote everything that comes in here: every size is bounded before work is done on it, and a panic of the
//! compiler is an error of the module that caused it.

mod build;
mod compile;
mod enums;
mod imports;
mod invalid;
mod modules;
mod namespaces;
mod nesting;
mod scan;
mod sources;
mod spec;
mod validate;

pub use build::{Built, build};
pub use invalid::{Invalid, Location};
pub use isolet_crds::bundle::BundleError;
pub use modules::{MAX_MODULES, MAX_SCRIPT_BYTES};
pub use sources::{SecretValue, Sources, inline_modules};
pub use validate::{ValidatedFunction, validate};
