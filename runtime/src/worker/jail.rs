//! The worker's jail: what a V8 bug could do with the process is bounded by the kernel.
//!
//! ```text
//! no_new_privs, landlock   set before threads are made, hence on all: no file may be opened for writing or run, no TCP
//!                          socket bound or connected; what the kernel cannot enforce is logged
//! seccomp                  set last, on all threads at once: an allow-list; everything else fails with EPERM
//! ```
//!
//! After it: no open, socket, bind, connect, exec, fork, ptrace. Memory, threads, timers, and I/O on the descriptors that
//! are there remain.

use std::collections::BTreeMap;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus,
    Scope,
};

/// Why the jail could not be closed.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// Landlock refused its rules.
    #[error("failed to restrict files and network with landlock")]
    Landlock(#[from] landlock::RulesetError),
    /// The system call filter could not be made or installed.
    #[error("failed to restrict system calls with seccomp: {0}")]
    Seccomp(String),
}

/// Restricts this thread and those made after it. The answer says what the kernel enforces.
pub fn restrict_files_and_network() -> Result<&'static str, JailError> {
    let abi = ABI::V6;
    // V8 and the C library read a few files while they start; opening any is denied by seccomp after that.
    let writes = AccessFs::from_all(abi) & !AccessFs::from_read(abi) | AccessFs::Execute;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(writes)?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => "enforced",
        RulesetStatus::PartiallyEnforced => "partly enforced: the kernel is older",
        RulesetStatus::NotEnforced => "not enforced: the kernel has no landlock",
    })
}

/// Restricts the system calls of all threads.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub fn restrict_system_calls() -> Result<(), JailError> {
    use seccompiler::SeccompAction::{Allow, Errno};
    use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

    const THREAD: u64 = libc::CLONE_THREAD as u64;
    let fail = |error: seccompiler::BackendError| JailError::Seccomp(error.to_string());
    let if_first = |operator: SeccompCmpOp, value: u64| {
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, operator, value)
            .and_then(|condition| SeccompRule::new(vec![condition]))
            .map_err(fail)
    };
    // clone makes threads of this process, never another process.
    let is_thread = if_first(SeccompCmpOp::MaskedEq(THREAD), THREAD)?;
    // A thread says how long it runs at a time: only of itself.
    let is_own = if_first(SeccompCmpOp::Eq, 0)?;
    // A signal goes to this process: abort() raises one, and nobody else shall get any.
    let is_to_itself = if_first(SeccompCmpOp::Eq, std::process::id().into())?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_clone, vec![is_thread]);
    rules.insert(libc::SYS_sched_setattr, vec![is_own]);
    rules.insert(libc::SYS_tgkill, vec![is_to_itself]);
    // A filter cannot read the flags of clone3: told that there is no such call, the C library uses clone.
    let no_clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    install(no_clone3, Allow, Errno(libc::ENOSYS as u32))?;
    install(rules, Errno(libc::EPERM as u32), Allow)
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn install(
    rules: BTreeMap<i64, Vec<seccompiler::SeccompRule>>,
    otherwise: seccompiler::SeccompAction,
    matched: seccompiler::SeccompAction,
) -> Result<(), JailError> {
    use seccompiler::{BackendError, BpfProgram, SeccompFilter, apply_filter_all_threads};

    let fail = |error: BackendError| JailError::Seccomp(error.to_string());
    let arch = std::env::consts::ARCH.try_into().map_err(fail)?;
    let program: BpfProgram = SeccompFilter::new(rules, otherwise, matched, arch)
        .and_then(BpfProgram::try_from)
        .map_err(fail)?;
    apply_filter_all_threads(&program).map_err(|error| JailError::Seccomp(error.to_string()))
}

/// What the worker still does once tenants' code runs.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const ALLOWED: &[libc::c_long] = &[
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_pkey_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_membarrier,
    // Threads of this process. clone3 passes here to be answered by the filter before.
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_getpriority,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_prctl,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // Time and chance.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    // The descriptors that are there, and connections accepted from them.
    libc::SYS_accept4,
    libc::SYS_read,
    // Of /proc/self/statm, opened before.
    libc::SYS_pread64,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
];
