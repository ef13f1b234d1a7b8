//! The worker's command line, which only the agent writes.

use clap::Args;

use crate::control::InheritedFds;

/// `isolet worker`: started by the agent, not by hand.
#[derive(Args, Clone, Debug)]
pub struct WorkerArgs {
    /// Inherited listening socket for requests.
    #[arg(long)]
    pub listener_fd: i32,
    /// Inherited socket on which the agent sends bundles.
    #[arg(long)]
    pub control_fd: i32,
    /// Inherited socket for outbound requests.
    #[arg(long)]
    pub egress_fd: i32,
    /// Inherited file with the startup snapshot.
    #[arg(long)]
    pub snapshot_fd: i32,
    /// Inherited file that says what runs.
    #[arg(long)]
    pub breadcrumb_fd: i32,
    /// Domain of built-in hosts NAME.NAMESPACE.DOMAIN.
    #[arg(long)]
    pub domain: Option<String>,
    /// Domain of the cluster's services.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Accept no connection before the agent says so.
    #[arg(long)]
    pub closed: bool,
    /// Log for a person at a terminal.
    #[arg(long)]
    pub dev: bool,
    /// Answer with `Server-Timing`: the CPU time of the request.
    #[arg(long)]
    pub server_timing: bool,
    /// Seconds that requests may take to finish once the worker has been told to end.
    #[arg(long, default_value_t = 30)]
    pub drain_seconds: u64,
    /// Connections from clients at once; more wait to be accepted. Fewer, if the limit of open files is lower.
    #[arg(long, default_value_t = 20_000)]
    pub max_connections: usize,
    /// Seconds that a client may take to send the head of a request.
    #[arg(long, default_value_t = 15)]
    pub head_timeout_seconds: u64,
    /// Seconds after which a client that takes nothing of its answer is let go.
    #[arg(long, default_value_t = 60)]
    pub stall_timeout_seconds: u64,
    /// Memory that this process and its like may have, in bytes; 0: the limit of their control group, or the machine's.
    #[arg(long, default_value_t = 0)]
    pub memory_bytes: usize,
    /// Instances that live at once; 0: as many as there is memory for.
    #[arg(long, default_value_t = 0)]
    pub max_instances: usize,
    /// Threads that run JavaScript; 0: one a core.
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
}

impl WorkerArgs {
    /// The numbers of the inherited descriptors.
    pub fn fds(&self) -> InheritedFds {
        InheritedFds {
            listener: self.listener_fd,
            control: self.control_fd,
            egress: self.egress_fd,
            snapshot: self.snapshot_fd,
            breadcrumb: self.breadcrumb_fd,
        }
    }
}
