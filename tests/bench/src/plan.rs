//! How much is measured, where, and with which programs. Paths are relative to the root of the repository.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;

use crate::rows::ROWS;

/// `isolet-bench run`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunArgs {
    /// One short round
    #[arg(long)]
    quick: bool,
    /// How often each cell is measured
    #[arg(long)]
    rounds: Option<usize>,
    /// Only these rows, by name
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Folder for benchmarks.md and benchmarks.json; default: docs for a whole run of all rows, else target/bench
    #[arg(long)]
    out: Option<PathBuf>,
    /// The program of Isolet
    #[arg(long, default_value = "target/release/isolet")]
    isolet: PathBuf,
    /// Core of the servers
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core of the load
    #[arg(long, default_value_t = 1)]
    load_core: usize,
}

/// What one run does.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    /// Length of one measurement under load.
    pub(crate) seconds: u64,
    /// Fresh functions a round, for cold starts.
    pub(crate) fresh: usize,
    /// Instances started and thrown away.
    pub(crate) starts: usize,
    only: Vec<String>,
    pub(crate) out: PathBuf,
    /// For logs, configurations and the peers' packages.
    pub(crate) work: PathBuf,
    pub(crate) isolet: PathBuf,
    pub(crate) server_core: usize,
    pub(crate) load_core: usize,
}

impl Plan {
    /// Checks that this machine and this folder can do it.
    pub(crate) fn new(args: RunArgs) -> anyhow::Result<Self> {
        if !PathBuf::from("tests/bench/apps").is_dir() {
            bail!("run it in the root of the repository, or with `make bench`");
        }
        if !args.isolet.is_file() {
            bail!(
                "{} is missing: cargo build --release --locked -p isolet-runtime, or `make bench`",
                args.isolet.display()
            );
        }
        let cores = std::thread::available_parallelism()?.get();
        let highest = args.server_core.max(args.load_core);
        if highest >= cores || args.server_core == args.load_core {
            bail!(
                "server and load need a core each of the {cores} here: --server-core, --load-core"
            );
        }
        let known: Vec<_> = ROWS.iter().map(|(row, _)| *row).collect();
        if let Some(unknown) = args
            .only
            .iter()
            .find(|only| !known.contains(&only.as_str()))
        {
            bail!(
                "--only {unknown}: there is no such row: name some of {}",
                known.join(", ")
            );
        }
        let work = PathBuf::from("target/bench");
        std::fs::create_dir_all(&work).context("failed to make target/bench")?;
        let is_whole = !args.quick && args.only.is_empty();
        Ok(Self {
            quick: args.quick,
            rounds: args.rounds.unwrap_or(if args.quick { 1 } else { 3 }).max(1),
            seconds: if args.quick { 1 } else { 3 },
            fresh: if args.quick { 50 } else { 200 },
            starts: if args.quick { 5_000 } else { 100_000 },
            only: args.only,
            out: args.out.unwrap_or_else(|| {
                if is_whole {
                    "docs".into()
                } else {
                    work.clone()
                }
            }),
            work,
            isolet: args.isolet,
            server_core: args.server_core,
            load_core: args.load_core,
        })
    }

    /// Whether a row is to be measured.
    pub(crate) fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == row)
    }
}
