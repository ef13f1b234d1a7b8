//! V8: platform, snapshot, modules, instances. With `web` the only part that names `v8`.
//!
//! ```text
//! platform    flags and initialisation, once, before any thread is made
//! snapshot    the Web API layer, made in a helper process, read by the worker
//! generic     an isolate that belongs to no revision yet
//! pool        such isolates, made in advance
//! instance    one live isolate: bound to a revision, entered for one event at a time, thrown away
//! texts       source texts, once in the process
//! code        what instances of one revision share: texts, compiled code
//! compile     a revision's code for the agent to keep, in a process that runs nothing
//! modules     a bundle's modules: compile, link, evaluate, import()
//! uncaught    what JavaScript throws and nothing catches
//! wasm        bounds of modules' memories
//! positions   from emitted code to what the user wrote
//! ffi         all unsafe code, with ffi_crash: marks the thread that crashes, ffi_interrupt: hands its work over,
//!             ffi_schedule: what the kernel's scheduler is told, ffi_tables: gives empty tables of V8 back, ffi_stub_caches: never
//!             fills others, ffi_ranges: V8's ranges of addresses are one mapping each, ffi_cage: who may take pages of its heaps,
//!             ffi_prefault: a new heap's memory at once, ffi_handles: keeps room for handles between entries, ffi_tiering: how
//!             often V8 looks for a termination, and ffi_allocator: Rust's memory
//! ```
//!
//! There is one entry model: every isolate is shared (`v8::SharedIsolate`) and entered through its lock by whoever owns
//! the [`Instance`]; nobody waits for that lock, because an instance has one owner at a time.

mod code;
pub mod compile;
pub mod ffi;
pub mod ffi_allocator;
mod ffi_cage;
mod ffi_crash;
mod ffi_handles;
mod ffi_interrupt;
mod ffi_prefault;
mod ffi_ranges;
pub mod ffi_schedule;
mod ffi_stub_caches;
pub mod ffi_tables;
pub mod ffi_tiering;
mod generic;
mod instance;
mod modules;
pub mod platform;
pub mod pool;
pub mod positions;
pub mod snapshot;
mod texts;
mod uncaught;
mod wasm;

pub use ffi::{Breadcrumb, Interrupter, ThreadClock};
pub use instance::{Blueprint, CodeUse, End, Entry, FINALIZERS_CPU, Instance, Outcome};
pub use pool::{Blank, Pool};
pub use positions::Positions;
pub use uncaught::Uncaught;
