//! V8: platform, snapshot, modules, instances. With `web` the only part that names `v8`.
//!
//! ```text
//! platform    flags and initialisation, once, before any thread is made
//! snapshot    the Web API layer, made in a helper process, read by the worker
//! instance    one live isolate: made, entered for one event at a time, thrown away
//! modules     a bundle's modules: compile, link, evaluate, import()
//! wasm        bounds of modules' memories
//! positions   from emitted code to what the user wrote
//! ffi         all unsafe code, with ffi_crash: marks the thread that crashes
//! ```
//!
//! There is one entry model: every isolate is shared (`v8::SharedIsolate`) and entered through its lock by whoever owns
//! the [`Instance`]; nobody waits for that lock, because an instance has one owner at a time.

pub mod ffi;
mod ffi_crash;
mod instance;
mod modules;
pub mod platform;
pub mod positions;
pub mod snapshot;
mod wasm;

pub use ffi::{Breadcrumb, Interrupter, ThreadClock};
pub use instance::{Blueprint, End, Entry, Instance, Outcome};
pub use positions::Positions;
