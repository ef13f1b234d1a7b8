//! `isolet-bench soak`: hundreds of tenants of several kinds on the real agent and worker, under mixed load for minutes.
//!
//! ```text
//! tenants  who there is, manifests      asks    what is asked, and the only right answer
//! visits   clients, ways of asking      http1, http2   their wire       upstream   what tenants fetch from
//! books    what became of it            samples   memory, descriptors, mappings     report   the table
//! ```
//!
//! The load is bounded by a rate and a number of clients, so that what is found is not overload. At a tenth of the time
//! the worker is killed once, and the next one is watched for the rest; every other end of it is a failure. Results decide the
//! exit status.

mod asks;
mod books;
mod ends;
mod http1;
mod http2;
mod random;
mod report;
mod samples;
mod tenants;
mod upstream;
mod visits;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinSet;

use self::books::Books;
use self::random::Random;
use self::report::{Check, Outcome, Report};
use self::samples::{Curve, Usage, Watched, curves};
use self::tenants::{Kind, Tenants};
use self::upstream::Upstream;
use self::visits::Client;
use crate::machine;
use crate::process::{Server, children, free_port, is_running};

/// Time that anything may take that is to happen at all: more than a request may, so that its own error is seen.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at something that is to happen.
const POLL: Duration = Duration::from_millis(20);
/// Between two changes of manifests.
const REDEPLOY_PERIOD: Duration = Duration::from_secs(2);
/// What `isolet dev` prints once everything serves.
const READY: &str = "Ready after";

/// `isolet-bench soak`.
#[derive(Args, Clone, Debug)]
pub(crate) struct SoakArgs {
    /// Length of the load
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// One minute: memory is then not judged
    #[arg(long, conflicts_with = "minutes")]
    quick: bool,
    /// Visits a second in all; one visit asks once or, where it pipelines or multiplexes, a few times
    #[arg(long, default_value_t = 400.0)]
    rate: f64,
    /// Clients at once
    #[arg(long, default_value_t = 48)]
    clients: usize,
    /// For the same requests as in an earlier run; default: another one each time
    #[arg(long)]
    seed: Option<u64>,
    /// The program of Isolet
    #[arg(long, default_value = "target/release/isolet")]
    isolet: PathBuf,
    /// Folder for manifests, logs and results
    #[arg(long, default_value = "target/soak")]
    out: PathBuf,
}

/// Runs it; true if everything held.
pub(crate) fn run(args: &SoakArgs) -> anyhow::Result<bool> {
    if !Path::new("tests/bench/apps/soak").is_dir() {
        bail!("run it in the root of the repository, or with `make soak`");
    }
    if !args.isolet.is_file() {
        bail!(
            "{} is missing: `make soak` builds it",
            args.isolet.display()
        );
    }
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(soak(args))
}

/// The parts of a run.
struct Soak {
    args: SoakArgs,
    seed: u64,
    folder: PathBuf,
    tenants: Arc<Tenants>,
    upstream: Arc<Upstream>,
    upstream_port: u16,
    books: Arc<Books>,
    server: Server,
    watched: Arc<Watched>,
    /// Where and when, and what else ran here.
    machine: Vec<(String, String)>,
    /// Before any load.
    at_rest: (Usage, Usage),
}

async fn soak(args: &SoakArgs) -> anyhow::Result<bool> {
    let mut soak = Soak::start(args).await?;
    let began = Instant::now();
    let length = Duration::from_secs_f64(if args.quick {
        60.0
    } else {
        args.minutes * 60.0
    });
    let mut checks = soak.load(length).await?;
    let seconds = began.elapsed().as_secs_f64();
    eprintln!("the load is over; looking at what it left");
    soak.watched.stop();
    checks.extend(soak.ends().await);
    let samples = soak.watched.samples();
    let curves = curves(&samples);
    checks.extend(flatness(&curves));
    let report = Report {
        args,
        machine: soak.machine.clone(),
        seed: soak.seed,
        seconds,
        tenants: soak.tenants.all().len(),
        books: &soak.books,
        samples: &samples,
        curves: &curves,
        checks: &checks,
    };
    println!("{}", report.write(&soak.args.out)?);
    eprintln!("written: {0}/soak.md and {0}/soak.json", args.out.display());
    Ok(checks.iter().all(|check| check.outcome != Outcome::Failed))
}

/// One check for each worker, and one for the agent.
fn flatness(curves: &[Curve]) -> Vec<Check> {
    let mut processes: Vec<Option<usize>> = curves.iter().map(|curve| curve.stretch).collect();
    processes.dedup();
    let check = |process| {
        let what = format!(
            "memory, descriptors and mappings are flat: {}",
            report::process(process)
        );
        let own = || curves.iter().filter(|curve| curve.stretch == process);
        if own().any(|curve| curve.is_flat.is_none()) {
            return Check::not_judged(what, "it was under load for too short a time");
        }
        let growing: Vec<_> = own()
            .filter(|curve| curve.is_flat == Some(false))
            .map(|curve| format!("{}: {:.1} to {:.1}", curve.name, curve.middle, curve.end))
            .collect();
        Check::new(what, growing.is_empty(), growing.join("; "))
    };
    processes.into_iter().map(check).collect()
}

impl Soak {
    /// Deploys everything and waits until it serves.
    async fn start(args: &SoakArgs) -> anyhow::Result<Self> {
        let seed = args.seed.unwrap_or_else(|| {
            let since_epoch = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap_or_default();
            since_epoch.as_nanos() as u64 % 1_000_000
        });
        eprintln!("seed {seed}");
        let machine_lines = machine::lines();
        let folder = args.out.join("functions");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let tenants = Arc::new(Tenants::new(&mut Random::new(seed, 0)));
        let upstream = Upstream::new(Arc::clone(&tenants));
        let (listener, upstream_port) = Upstream::listen().await?;
        tokio::spawn(Arc::clone(&upstream).serve(listener));
        tenants.write(&folder, false, upstream_port)?;
        tenants.write(&folder, true, upstream_port)?;
        let port = free_port()?;
        // Without the line that `isolet dev` prints for each request: in a cluster there is none.
        let command = [
            "env".into(),
            "RUST_LOG=warn".into(),
            args.isolet.display().to_string(),
            "dev".into(),
            folder.display().to_string(),
            "--port".into(),
            port.to_string(),
        ];
        let log = args.out.join("isolet.log");
        let server = tokio::task::block_in_place(|| -> anyhow::Result<Server> {
            let mut server = Server::start(None, &command, port, &log)?;
            server.wait_for_log(PATIENCE, READY, 1)?;
            server.measure_child()?;
            Ok(server)
        })?;
        let (agent, worker) = (server.parent_pid(), server.pid());
        Ok(Self {
            args: args.clone(),
            seed,
            folder,
            tenants,
            upstream,
            upstream_port,
            books: Arc::new(Books::new()),
            server,
            watched: Arc::new(Watched::new(agent, worker)),
            machine: machine_lines,
            at_rest: (Usage::of(worker)?, Usage::of(agent)?),
        })
    }

    fn client(&self, number: usize) -> Client {
        let pause = self.args.clients as f64 / self.args.rate;
        Client::new(
            number,
            self.server.port,
            Arc::clone(&self.tenants),
            Arc::clone(&self.books),
            self.seed,
            Duration::from_secs_f64(pause),
        )
    }

    /// Asks each tenant once, several at a time. `first` is a number that no client has.
    async fn round(&self, first: usize) {
        const CLIENTS: usize = 16;
        let rounds = (0..CLIENTS).map(|index| async move {
            let mut client = self.client(first + index);
            for tenant in self.tenants.all().iter().skip(index).step_by(CLIENTS) {
                client.ask_one(tenant).await;
            }
        });
        futures::future::join_all(rounds).await;
    }

    /// Load for so long, with the worker killed once.
    async fn load(&mut self, length: Duration) -> anyhow::Result<Vec<Check>> {
        self.round(1_000_000).await;
        let watched = Arc::clone(&self.watched);
        let watching = tokio::spawn(async move { watched.run().await });
        let mut clients = JoinSet::new();
        for number in 1..=self.args.clients {
            clients.spawn(self.client(number).run());
        }
        let redeploying = tokio::spawn(redeploy(
            Arc::clone(&self.tenants),
            Arc::clone(&self.books),
            self.folder.clone(),
            self.upstream_port,
            self.seed,
        ));
        let end = Instant::now() + length;
        tokio::time::sleep(length / 10).await;
        let mut checks = vec![self.kill_worker().await?];
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_secs(10).min(end - Instant::now())).await;
            let total = self.books.total();
            eprintln!(
                "{:>4} s left, {} asked, {} wrong",
                (end - Instant::now()).as_secs(),
                total.asked,
                total.wrong
            );
        }
        self.books.close();
        // A client that panicked would have its requests go missing.
        while let Some(client) = clients.join_next().await {
            client.context("a client failed")?;
        }
        redeploying.await.context("redeploying failed")??;
        self.watched.stop();
        watching.await?;
        checks.extend(self.load_checks());
        Ok(checks)
    }

    /// Kills the worker on purpose and waits for the next one.
    async fn kill_worker(&mut self) -> anyhow::Result<Check> {
        let what = "a killed worker is replaced and serves";
        let Some(worker) = self.watched.worker() else {
            return Ok(Check::new(what, false, "there was none"));
        };
        eprintln!("killing the worker, process {worker}");
        self.watched.leave();
        self.books.next_epoch();
        let killed = Instant::now();
        let pid = i32::try_from(worker).ok().and_then(Pid::from_raw);
        kill_process(pid.context("no process id")?, Signal::KILL)?;
        let next = loop {
            if killed.elapsed() > PATIENCE {
                return Ok(Check::new(what, false, "there is no other one"));
            }
            let now = children(self.watched.agent)?;
            if let Some(next) = now.into_iter().find(|pid| *pid != worker)
                && !is_running(worker)
            {
                break next;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        self.books.next_epoch();
        // Each tenant is asked once; wrong answers are booked.
        self.round(2_000_000).await;
        let took = killed.elapsed().as_secs_f64();
        self.watched.follow(next);
        let detail = format!("every tenant asked again within {took:.1} s");
        Ok(Check::new(what, true, detail))
    }

    fn load_checks(&self) -> Vec<Check> {
        let total = self.books.total();
        let expected = self.watched.worker();
        let now = children(self.watched.agent).unwrap_or_default();
        let is_same = expected.is_some_and(|worker| now.contains(&worker));
        let lost = self.watched.lost();
        vec![
            Check::new(
                "every answer is right: its tenant's name and secret, its request's nonce, its whole body",
                total.wrong == 0,
                format!("{} asked, {} wrong", total.asked, total.wrong),
            ),
            Check::new(
                "the worker never ended save when it was killed",
                is_same && lost.is_none(),
                lost.unwrap_or_else(|| format!("process {expected:?}, {now:?} at the end")),
            ),
        ]
    }
}

/// Deploys new versions of a few tenants again and again.
async fn redeploy(
    tenants: Arc<Tenants>,
    books: Arc<Books>,
    folder: PathBuf,
    upstream: u16,
    seed: u64,
) -> anyhow::Result<()> {
    let mut random = Random::new(seed, u64::MAX);
    while !books.is_closed() {
        tokio::time::sleep(REDEPLOY_PERIOD).await;
        for tenant in tenants.of(Kind::Redeployed) {
            if random.percent(25) {
                // Before it is written: it may answer at once.
                tenant.deployed.fetch_add(1, Ordering::SeqCst);
            }
        }
        tenants.write(&folder, true, upstream)?;
    }
    Ok(())
}
