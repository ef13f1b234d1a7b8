//! One file a limit: CPU, memory, wall time, body size, open files.
//!
//! Each limit belongs to a request or to an instance; [`memory`] and [`files`] belong to the process. [`cpu`] and [`heap`] share one monitor thread.

pub mod account;
pub mod body;
pub mod cage;
pub mod cpu;
pub mod files;
pub mod garbage;
pub mod growth;
pub mod heap;
mod machine;
pub mod memory;
mod monitor;
mod stopwatch;
mod turns;
pub mod wall_clock;
