//! The agent's outbound requests in the name of Functions: policy, addresses, TLS, redirects.
//!
//! ```text
//! worker ── HTTP/2, per Function ──> server ──> client ──┬─> policy: the Function's rules AND the platform's
//!                                        │                 ├─> pool, connect: resolve once, check every address, connect to one
//!                                        │                 └─> redirect: the same again for each hop
//!                                        └─ table: rules of what serves, by UID
//! ```
//!
//! A connection serves one Function only; where it waits for the next request it is checked again before that.

pub mod client;
pub mod connect;
pub mod handover;
mod joined;
pub mod policy;
pub mod pool;
pub mod redirect;
pub mod server;
pub mod table;

use policy::Refusal;

/// Bytes of one body that may wait between worker and agent without being read.
pub const STREAM_WINDOW_BYTES: u32 = 16 << 10;
/// The same for all bodies on one connection. It bounds the memory of small pieces too: h2 ends a connection on which the
/// frames that wait, or that came for bodies which were given up, fall short of `SMALL_BYTES` each by more than half of this.
pub const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
// Bodies that nobody reads keep back no others, and one of them may be in pieces of a byte.
const _: () = assert!(
    table::MAX_AT_ONCE * STREAM_WINDOW_BYTES as usize <= CONNECTION_WINDOW_BYTES as usize
        && STREAM_WINDOW_BYTES * (SMALL_BYTES as u32 - 1) < CONNECTION_WINDOW_BYTES / 2
);

/// What h2 takes for a small frame.
const SMALL_BYTES: usize = 256;

/// Small pieces of a body are joined up to this size before they leave.
pub const JOINED_BYTES: usize = 8 << 10;

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
