//! The Web APIs that JavaScript sees: files in `js/`, in load order, and the native operations behind them.
//!
//! `web` knows V8 and [`host::Host`], nothing of scheduling or HTTP. `isolate` calls [`bootstrap()`] once, in the process
//! that makes the startup snapshot, and [`Entrypoints::load`] in every context made from it.
//!
//! ```text
//!            start, dispatch, complete, abort                 Host: respond, read, write, fetch, timers…
//!  scheduler ────────────────────────────────▶ js/80_dispatch ─────────────────────────────────────────▶ scheduler
//!                                              js/10_completions (what waits: one entry a CompletionId)
//! ```
//!
//! Invariants:
//! - A tenant's code reaches neither `primordials`, `ops` nor `internals`: they are parameters of the files in `js/`.
//! - An operation checks the types and sizes of its arguments; native work between two of V8's own interruption points is
//!   bounded (`op.rs`).
//! - Header fields cross as one string, `name\nvalue\nname\nvalue`, and are split when somebody looks.
//! - A request or a completion that has ended leaves nothing behind ([`Entrypoints::under_way`]).
//!
//! What is missing, and why:
//! - `formData()`, `FormData`, `File`: no multipart parser yet; a form's text goes through `URLSearchParams`.
//! - `crypto.subtle`, `CompressionStream`, `URLPattern`, `WebSocket`: later issues.
//! - `structuredClone` of this layer's own objects (`DOMException`, `Blob` too) and transfer of streams: a DataCloneError.
//! - `TextDecoder` of ISO-2022-JP with `stream: true` gives its text at the end: its shift states outlive a call.
//! - `URL`: what crate `url` does differently, for example `file:///C|/` (see `tests/web/cases/url.js`).
//! - `Request`: `mode`, `credentials`, `cache`, `referrer`, `integrity` have their defaults whatever init says.
//! - `fetch` sends no `accept-encoding`: bodies arrive as they are, and JavaScript could not decode them.
//! - Streams: the published ponyfill (`vendor/web-streams`), with what it leaves out (streams are not transferable).
//! - `WebAssembly.compile`, `instantiate` and `Module` of bytes are refused, shared memory too; `Atomics` and
//!   `SharedArrayBuffer` are not there.

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
mod fields;
mod http;
mod lazy;
mod op;
mod url;
mod wasm;

pub use bootstrap::{bootstrap, external_references};
pub use entry::{EntryError, Entrypoints, RequestHead, StartError};
pub use exception::exception_from;
pub use lazy::{LazyCode, compile_lazy_files, lazy_code};
pub use wasm::set_maximum as set_wasm_maximum;
