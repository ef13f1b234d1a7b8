//! Who runs when: instances, their queues, requests under way.
//!
//! ```text
//! server -> Functions (table)         which revision of which Function
//!             Revision                code and configuration; its cell is made on the first request
//!               Cell                  one instance: owner word, queue of events
//!                 Event               what it is entered for
//!                 State               its requests, timers, bodies, fetches
//!                 InstanceHost        what JavaScript asks for; lies in the isolate's slot
//!             starts              first starts, for the agent
//!             gate                where a start waits for room
//!             eviction            which instances go when there is little
//!             footprint           when one that is idle collects its garbage
//!           pipe, inbound, outbound   bodies that leave, bodies that arrive, requests to the agent
//!             connections             one to the agent for each Function
//! ```
//!
//! An event runs on the thread that brings it if the instance is idle; else it waits in the cell's queue and the owner runs
//! it. No lock is held while JavaScript runs.

mod cell;
mod connections;
pub mod console;
mod event;
mod eviction;
mod footprint;
mod functions;
mod gate;
mod host;
mod inbound;
mod meter;
mod outbound;
pub mod pipe;
mod revision;
mod starts;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use functions::{Admission, Function, Functions, Offer};
pub use gate::Gate;
pub use inbound::Inbound;
pub use outbound::Egress;
pub use starts::StartLog;
pub use state::{Answered, Failure};

use crate::isolate::{Breadcrumb, Pool};
use crate::limits::account::Accounts;
use crate::worker::metrics::Metrics;

/// What all instances of a worker share.
#[derive(Debug)]
pub struct Services {
    /// Isolates for starts.
    pub pool: Arc<Pool>,
    /// Where instances note what runs.
    pub breadcrumb: Option<Arc<Breadcrumb>>,
    /// The way out.
    pub egress: Egress,
    /// CPU time that each Function has used lately.
    pub accounts: Accounts,
    /// Counters.
    pub metrics: Metrics,
    /// Callers see what CPU time a request took, in `Server-Timing`.
    pub server_timing: bool,
    /// Starts of instances at once.
    pub starts: tokio::sync::Semaphore,
    /// First starts of revisions.
    pub start_log: StartLog,
    /// Instances that one revision may have.
    pub most_instances: usize,
    /// Lets instances start.
    pub gate: Gate,
    /// For tasks that begin outside any.
    pub runtime: tokio::runtime::Handle,
}

/// No code panics while it holds one of the scheduler's locks, so poison carries no news.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
