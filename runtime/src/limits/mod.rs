//! One file a limit: CPU, memory, wall time, body size.
//!
//! Each limit belongs to a request or to an instance; [`memory`] alone belongs to the process. [`cpu`] and [`heap`] share one monitor thread.

pub mod account;
pub mod body;
pub mod cpu;
pub mod growth;
pub mod heap;
pub mod memory;
mod monitor;
mod stopwatch;
mod turns;
pub mod wall_clock;
