//! The process that holds the Kubernetes token.
pub mod breadcrumb;
pub mod control;
pub mod loader;
pub mod metrics;
pub mod plan;
pub mod report;
pub mod worker;
