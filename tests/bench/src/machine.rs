//! What a reader needs to judge the numbers: machine, date, versions.

use std::fs;
use std::process::Command;

use serde::Serialize;

use crate::contestants::Entry;

/// Where and when.
#[derive(Serialize, Clone, Debug)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_gb: f64,
    pub(crate) kernel: String,
    /// Of TCP, over loopback too: bbr paces by timers and makes bulk answers slow and uneven on a busy machine.
    pub(crate) congestion_control: String,
    pub(crate) system: String,
    /// Commit of this checkout, with a mark if files differ from it.
    pub(crate) commit: String,
    /// Load average of the last minute before the run: what else ran here.
    pub(crate) load_before: String,
    pub(crate) wrk: String,
    /// Whether `runtime/pgo/build` has a profile that fits, with which isolet and hyper's server are then optimised.
    pub(crate) is_profiled: bool,
    /// Contestants with their versions, or why they are missing.
    pub(crate) contestants: Vec<(String, String)>,
}

impl Machine {
    pub(crate) fn this(entries: &[Entry], cores: usize) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let after = |text: &str, key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key))
                .map(|rest| rest.trim_matches([' ', '\t', ':', '=', '"']).to_owned())
                .unwrap_or_else(|| "unknown".into())
        };
        let memory_kib: f64 = after(&meminfo, "MemTotal")
            .trim_end_matches(" kB")
            .parse()
            .unwrap_or(0.0);
        let dirty = !output("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
        Self {
            date: output("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
            cpu: after(&cpuinfo, "model name"),
            cores,
            memory_gb: (memory_kib * 1024.0 / 1e8).round() / 10.0,
            kernel: output("uname", &["-sr"]),
            congestion_control: fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            system: after(&release, "PRETTY_NAME"),
            commit: output("git", &["rev-parse", "--short=12", "HEAD"])
                + if dirty { ", changed" } else { "" },
            load_before: fs::read_to_string("/proc/loadavg")
                .unwrap_or_default()
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned(),
            wrk: output("wrk", &["-v"])
                .split_whitespace()
                .take(2)
                .collect::<Vec<_>>()
                .join(" "),
            is_profiled: !output("runtime/pgo/profile", &[]).is_empty(),
            contestants: entries
                .iter()
                .map(|entry| {
                    let version = entry.version.clone();
                    let text = version.unwrap_or_else(|reason| format!("missing: {reason}"));
                    (entry.contestant.name().to_owned(), text)
                })
                .collect(),
        }
    }
}

/// Machine, date and commit, for a report without contestants.
pub(crate) fn lines() -> Vec<(String, String)> {
    let machine = Machine::this(
        &[],
        std::thread::available_parallelism().map_or(0, usize::from),
    );
    vec![
        ("date".into(), machine.date),
        ("commit".into(), machine.commit),
        (
            "machine".into(),
            format!(
                "{}, {} cores, {} GB; {}, {}; load {} before",
                machine.cpu,
                machine.cores,
                machine.memory_gb,
                machine.system,
                machine.kernel,
                machine.load_before
            ),
        ),
    ]
}

/// What a program prints, without surrounding blanks; nothing where it cannot run.
fn output(program: &str, arguments: &[&str]) -> String {
    Command::new(program)
        .args(arguments)
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}
