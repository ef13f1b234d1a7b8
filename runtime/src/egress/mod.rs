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
mod joined;
pub mod policy;
pub mod pool;
pub mod redirect;
pub mod server;
pub mod table;

use policy::Refusal;

/// Bytes of one body that may wait between worker and agent without being read.
///
/// The HTTP/2 library ends a connection, and with it the requests of all Functions, once the tiny frames that nobody has
/// read come to half its window, each counted as 171 bytes. All bodies that one Function may have under way
/// ([`table::MAX_AT_ONCE`]), in pieces of a byte, stay below that.
pub const STREAM_WINDOW_BYTES: u32 = 16 << 10;
/// The same for all bodies together: HTTP/2's most. A smaller one lets a Function that does not read keep back the bodies
/// of all others.
pub const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
const _: () = assert!(
    table::MAX_AT_ONCE as u64 * STREAM_WINDOW_BYTES as u64 * 171
        < CONNECTION_WINDOW_BYTES as u64 / 2
);

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
