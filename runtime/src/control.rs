//! What agent and worker say to each other, HTTP/2 over two inherited Unix sockets.
//!
//! ```text
//! control   agent -> worker   PUT    /functions/UID   bundle archive, secret values, code; headers say how long each is
//!                             DELETE /functions/UID
//!                             GET    /starts          which revisions have started for a request; waits until there are any
//!                             POST   /open            accept tenants' connections from now on, see [`InheritedFds::listener`]
//!                             GET    /metrics         Prometheus text
//! egress    worker -> agent   METHOD absolute URL, header isolet-function: UID; the response is streamed back
//! ```
//!
//! A PUT answers 200 with [`Loaded`] once the revision serves, or 422 with [`LoadError`]; then the revision before it goes on.
//! Sockets, listeners and the snapshot reach the worker as the file descriptors that [`InheritedFds`] numbers.

use serde::{Deserialize, Serialize};

/// Request header of a PUT: how many bytes of the body are the bundle; what follows, if anything, is the secret values.
pub const BUNDLE_BYTES_HEADER: &str = "isolet-bundle-bytes";
/// Request header of a PUT: how many bytes at the end of the body are what `isolet compile` made of the bundle.
pub const CODE_BYTES_HEADER: &str = "isolet-code-bytes";
/// Request header of a PUT: the revision has loaded in an earlier worker of this agent, so it serves without being tried.
pub const CHECKED_HEADER: &str = "isolet-checked";
/// Most code of a revision, in bytes.
pub const MAX_CODE_BYTES: usize = 2 << 20;
/// Path of [`Starts`].
pub const STARTS_PATH: &str = "/starts";
/// Path that opens a worker that was started with `--closed`.
pub const OPEN_PATH: &str = "/open";
/// Request header of an outbound request: the UID of the Function that makes it.
pub const FUNCTION_HEADER: &str = "isolet-function";
/// Request header of an outbound request: `follow`, `error` or `manual`.
pub const REDIRECT_HEADER: &str = "isolet-redirect";
/// Response header of an outbound request: the URL after redirects.
pub const FINAL_URL_HEADER: &str = "isolet-url";
/// Response header: why the agent itself refused or failed the request (the status is then 502); its value is the text
/// that JavaScript sees, percent-encoded.
pub const EGRESS_ERROR_HEADER: &str = "isolet-egress-error";

/// Numbers of the inherited file descriptors, on the worker's command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InheritedFds {
    /// The listening TCP socket for requests. A worker started with `--closed` leaves connections in its backlog until it is
    /// opened, so that nobody is told 404 while the agent still sends bundles.
    pub listener: i32,
    /// The control socket; the worker is the HTTP/2 server.
    pub control: i32,
    /// The egress socket: over it the agent hands out connections on which the worker is the HTTP/2 client.
    pub egress: i32,
    /// The startup snapshot, a file.
    pub snapshot: i32,
    /// The breadcrumb, a file of [`BREADCRUMB_BYTES`] bytes mapped by both sides.
    pub breadcrumb: i32,
}

/// Size of the breadcrumb, in bytes: slots of 64 bytes, one for each thread that runs JavaScript, which is more than one a
/// core where Functions compute for long; the last one names a Function that V8 could not end. While a thread runs
/// it, its slot begins with the Function's UID (at most 63 bytes), followed by a zero; else with a zero.
pub const BREADCRUMB_BYTES: usize = 16 << 10;

/// Answer of a PUT that serves.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Loaded {
    /// The revision that serves now.
    pub revision: String,
}

/// Revisions that have started for a request since the last answer, or taken over from one that had, each once in the life of
/// a worker. Only those are in it of which the agent may keep compiled code.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Starts(pub Vec<Start>);

/// The first start of a revision for a request.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Start {
    /// UID of the Function.
    pub uid: String,
    /// Its name.
    pub revision: String,
    /// The code that came with it.
    pub code: SentCode,
}

/// What became of the code that the agent sent with a revision.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum SentCode {
    /// There was none.
    #[default]
    Missing,
    /// V8 has refused nothing of it so far.
    Good,
    /// V8 has refused some of it.
    Refused,
}

/// Answer of a PUT that was refused.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{message}")]
pub struct LoadError {
    /// One sentence: what is wrong, where, and the remedy.
    pub message: String,
    /// Path of the module, if one is at fault.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<String>,
    /// Line, from 1, in what the user wrote.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<u32>,
    /// Column, from 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub column: Option<u32>,
}
