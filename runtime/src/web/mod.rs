//! The Web APIs that JavaScript sees: files in `js/`, in load order, and the native operations behind them.
//!
//! `web` knows V8 and [`host::Host`], nothing of scheduling or HTTP. `isolate` calls [`bootstrap`] once, in the process
//! that makes the startup snapshot, and [`Entrypoints::load`] in every context made from it.

pub mod host;
