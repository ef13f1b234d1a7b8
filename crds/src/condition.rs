//! Condition types and reasons of a `Function`, as users read them in `kubectl describe`.
//!
//! The types follow the Gateway API (`Accepted`, `ResolvedRefs`, `Programmed`) and kstatus (`Ready`, `Reconciling`,
//! `Stalled`), so that `kubectl wait --for=condition=Ready` and Helm's `--wait` understand them.

/// The spec is valid and its code parses.
pub const ACCEPTED: &str = "Accepted";
/// Every Secret and ConfigMap that the spec names was found and may be read.
pub const RESOLVED_REFS: &str = "ResolvedRefs";
/// Every runtime pod that is ready serves this revision.
pub const PROGRAMMED: &str = "Programmed";
/// All of the above.
pub const READY: &str = "Ready";
/// Work on this generation goes on (kstatus).
pub const RECONCILING: &str = "Reconciling";
/// Work on this generation has stopped until a person changes something (kstatus).
pub const STALLED: &str = "Stalled";

/// Reasons, one for each way in which a condition comes about.
pub mod reason {
    /// `Accepted` and others are true for the plain reason that nothing is wrong.
    pub const ACCEPTED: &str = "Accepted";
    /// All references were resolved.
    pub const RESOLVED: &str = "Resolved";
    /// All runtime pods serve the revision.
    pub const PROGRAMMED: &str = "Programmed";
    /// Everything is as the spec says.
    pub const READY: &str = "Ready";
    /// `spec.suspend` is true: the function answers 503 until it is resumed.
    pub const SUSPENDED: &str = "Suspended";
    /// A module does not parse; the message has file, line and column.
    pub const SYNTAX_ERROR: &str = "SyntaxError";
    /// An import names no module of the Function.
    pub const UNKNOWN_IMPORT: &str = "UnknownImport";
    /// `spec.main` names no module, or there is none to choose by default.
    pub const MAIN_NOT_FOUND: &str = "MainNotFound";
    /// The main module has no default export.
    pub const NO_HANDLER: &str = "NoHandler";
    /// The spec contradicts itself in a way that the schema cannot say.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// An older Function holds the same host and path.
    pub const ROUTE_CONFLICT: &str = "RouteConflict";
    /// The platform does not let this namespace claim the host.
    pub const HOST_NOT_ALLOWED: &str = "HostNotAllowed";
    /// The bundle is larger than the runtime takes.
    pub const BUNDLE_TOO_LARGE: &str = "BundleTooLarge";
    /// A referenced Secret, ConfigMap or key does not exist.
    pub const REF_NOT_FOUND: &str = "RefNotFound";
    /// The operator may not read a referenced Secret or ConfigMap in this namespace.
    pub const REF_NOT_PERMITTED: &str = "RefNotPermitted";
    /// Runtime pods are still loading the revision.
    pub const PROGRAMMING: &str = "Programming";
    /// A runtime pod refused the revision; the message has its reason.
    pub const LOAD_FAILED: &str = "LoadFailed";
    /// No runtime pod is ready.
    pub const NO_RUNTIME: &str = "NoRuntime";
    /// An earlier condition is false, so this one was not reached.
    pub const PENDING: &str = "Pending";
    /// The function crashed the worker repeatedly and is not run any more.
    pub const QUARANTINED: &str = "Quarantined";
}
