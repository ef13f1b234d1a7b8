//! The agent's outbound requests in the name of Functions: policy, addresses, TLS, redirects.
//!
//! ```text
//! worker ── egress socket (HTTP/2) ──> server ──> client ──┬─> policy: the Function's rules AND the platform's
//!                                        │                 ├─> pool, connect: resolve once, check every address, connect to one
//!                                        │                 └─> redirect: the same again for each hop
//!                                        └─ table: rules of what serves, by UID
//! ```
//!
//! A connection serves one Function only; where it waits for the next request it is checked again before that.

pub mod client;
pub mod connect;
pub mod policy;
pub mod pool;
pub mod redirect;
pub mod server;
pub mod table;

use policy::Refusal;

/// Why an outbound request failed. The text is what JavaScript sees.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// A policy says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Too much at once, or a request that cannot be sent.
    #[error("{0}")]
    Unsendable(String),
    /// The network, or the server, failed.
    #[error("{0}")]
    Failed(String),
}
