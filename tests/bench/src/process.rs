//! Server processes: started on their core, watched, measured through /proc, ended with their handle.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::http::{Answer, Connection};

/// Between two looks at a server that is to answer.
const POLL: Duration = Duration::from_millis(1);
/// Between two looks at a log, which may be long.
const LOG_POLL: Duration = Duration::from_millis(20);
/// Unit of CPU times in /proc: the kernel's USER_HZ, which is 100 on every platform that V8 runs on.
const TICKS_PER_SECOND: f64 = 100.0;
/// Has the kernel end a server with the thread that started it, whatever ends that: one that is left behind would take the core
/// of the next run.
const ENDS_WITH_THREAD: [&str; 3] = ["setpriv", "--pdeathsig", "KILL"];

/// A process that ends when this is dropped.
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
    /// The process that serves, where it is not the child itself.
    worker: Option<u32>,
    pub(crate) port: u16,
}

/// What a process occupies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) resident_mb: f64,
    pub(crate) mappings: usize,
}

/// A port that nothing listens on just now.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

impl Server {
    /// Starts `command`, bound to one core if one is given, its output in `log`. It lives no longer than the calling thread.
    pub(crate) fn start(
        core: Option<usize>,
        command: &[String],
        port: u16,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let output = File::create(log)?;
        let binding = core.map(|core| ["taskset".into(), "-c".into(), core.to_string()]);
        let [program, arguments @ ..] = ENDS_WITH_THREAD;
        let child = Command::new(program)
            .args(arguments)
            .args(binding.iter().flatten())
            .args(command)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("failed to run {program}; it is in Debian's util-linux"))?;
        Ok(Self {
            child,
            log: log.to_owned(),
            worker: None,
            port,
        })
    }

    /// Waits until the answer to `ask` is right.
    pub(crate) fn wait_for(
        &mut self,
        patience: Duration,
        ask: impl Fn(&mut Connection) -> anyhow::Result<Answer>,
        right: &[u8],
    ) -> anyhow::Result<()> {
        let port = self.port;
        self.wait(patience, POLL, "first right answer", || {
            let mut connection = Connection::open(port, patience)?;
            ask(&mut connection)?.expect(right)
        })
    }

    /// Waits until the log has `count` lines with this text.
    pub(crate) fn wait_for_log(
        &mut self,
        patience: Duration,
        text: &str,
        count: usize,
    ) -> anyhow::Result<()> {
        let log = self.log.clone();
        self.wait(patience, LOG_POLL, &format!("{text:?} in its log"), || {
            let found = fs::read_to_string(&log)?.matches(text).count();
            if found < count {
                bail!("the log says so {found} times, not {count}");
            }
            Ok(())
        })
    }

    fn wait(
        &mut self,
        patience: Duration,
        pause: Duration,
        what: &str,
        mut condition: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let Err(error) = condition() else {
                return Ok(());
            };
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "it ended with {status}; its log ends with: {}",
                    self.log_end()
                );
            }
            if Instant::now() > deadline {
                bail!(
                    "no {what} within {} s ({error:#}); its log ends with: {}",
                    patience.as_secs(),
                    self.log_end()
                );
            }
            std::thread::sleep(pause);
        }
    }

    fn log_end(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().rev().take(4).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }

    /// Has measurements look at the child of the process that was started: Isolet's worker.
    pub(crate) fn measure_child(&mut self) -> anyhow::Result<()> {
        let parent = self.child.id();
        self.worker = Some(
            children(parent)?
                .into_iter()
                .next()
                .context("the agent has no worker")?,
        );
        Ok(())
    }

    /// Whether the process that was measured last still runs.
    pub(crate) fn is_same(&self) -> bool {
        match self.worker {
            Some(worker) => children(self.child.id()).is_ok_and(|now| now.contains(&worker)),
            None => Path::new(&format!("/proc/{}/stat", self.child.id())).exists(),
        }
    }

    /// The process that was started.
    pub(crate) fn parent_pid(&self) -> u32 {
        self.child.id()
    }

    /// The process that is measured.
    pub(crate) fn pid(&self) -> u32 {
        self.worker.unwrap_or_else(|| self.child.id())
    }

    /// Resident memory and mappings now.
    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid()))?;
        let kib: f64 = rollup
            .lines()
            .find_map(|line| line.strip_prefix("Rss:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse().ok())
            .context("smaps_rollup has no Rss")?;
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid()))?;
        Ok(Memory {
            resident_mb: kib * 1024.0 / 1e6,
            mappings: maps.lines().count(),
        })
    }

    /// CPU time used so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        cpu_seconds(self.pid())
    }
}

/// CPU time that a process has used so far, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold blanks.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().collect())
        .unwrap_or_default();
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok());
    let (user, system) = ticks(11)
        .zip(ticks(12))
        .context("/proc/PID/stat is short")?;
    Ok((user + system) / TICKS_PER_SECOND)
}

impl Drop for Server {
    fn drop(&mut self) {
        let workers = children(self.child.id()).unwrap_or_default();
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Isolet's worker ends when its agent is gone; its memory must be free before the next measurement.
        let deadline = Instant::now() + Duration::from_secs(20);
        while workers.iter().any(|pid| is_running(*pid)) && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
    }
}

/// Whether a process has not ended.
pub(crate) fn is_running(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('Z'))
    })
}

/// The processes that a process has started and not yet reaped.
pub(crate) fn children(parent: u32) -> anyhow::Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // A process may end meanwhile.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let its_parent = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        if its_parent == Some(parent) {
            children.push(pid);
        }
    }
    Ok(children)
}
