//! The Web APIs that JavaScript sees: files in `js/`, in load order, and the native operations behind them.
//!
//! `web` knows V8 and [`host::Host`], nothing of scheduling or HTTP. `isolate` calls [`bootstrap`] once, in the process
//! that makes the startup snapshot, and [`Entrypoints::load`] in every context made from it.

pub mod host;

mod bootstrap;
mod clock;
mod clone;
mod console;
mod crypto;
mod encoding;
mod entry;
mod exception;
mod fetch;
mod http;
mod op;
mod url;

pub use bootstrap::{bootstrap, external_references};
pub use entry::{EntryError, Entrypoints, RequestHead, StartError};
pub use exception::exception_from;
