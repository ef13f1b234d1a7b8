//! `isolet dev PATH…`: manifest files as the source of bundles, in place of the API.
//!
//! ```text
//! watch ──> files ──> project ──> source ──> agent::node (loader, worker, egress)
//!           manifest                            │
//! terminal <── errors, what is served <─────────┘ report log
//! ```
//!
//! The same loader and the same worker as in a cluster. Loopback only, unless `--host` says otherwise.

pub mod files;
pub mod log;
pub mod manifest;
pub mod project;
pub mod source;
pub mod terminal;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use isolet_crds::report::FunctionReport;
use tokio::time::Instant;

use crate::agent::node::{self, Node, NodeSettings, SourceSender, bind};
use crate::agent::report::ReportLog;
use crate::agent::shutdown::Signals;
use crate::bundle::SourceEvent;
use crate::egress::policy::PlatformPolicy;
use files::Files;
use project::{Name, Project, uid};
use source::DevSource;
use terminal::{Entry, base_url, complain, elapsed, list, say};
use watch::Watch;

/// Serves the Functions in manifest files, and reloads them when they change.
#[derive(Args, Clone, Debug)]
pub struct DevArgs {
    /// Manifest files, folders of them, or a .ts or .js file as a Function of its name
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Port to listen on; 0 for a free one
    #[arg(long, env = "ISOLET_DEV_PORT", default_value_t = 8787)]
    port: u16,
    /// Address to listen on
    #[arg(long, env = "ISOLET_DEV_HOST", default_value = "127.0.0.1", value_parser = host)]
    host: IpAddr,
    /// Instances that live at once, past which the coldest go; 0: as many as there is memory for
    #[arg(long, env = "ISOLET_MAX_INSTANCES", default_value_t = 0)]
    max_instances: usize,
    /// Answers without `Server-Timing`, which says what CPU time a request took: as in a cluster
    #[arg(long, env = "ISOLET_DEV_NO_SERVER_TIMING")]
    no_server_timing: bool,
}

fn host(text: &str) -> Result<IpAddr, String> {
    if text == "localhost" {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    text.parse()
        .map_err(|_| "write an IP address of this machine, such as 127.0.0.1 or 0.0.0.0".into())
}

/// When each Function was last told to the node: to say how long a reload took.
type Pending = Arc<Mutex<BTreeMap<String, (Name, Instant)>>>;

/// Runs until Ctrl-C.
pub async fn run(args: DevArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut signals = Signals::new().context("failed to listen for signals")?;
    for path in &args.paths {
        if !path.exists() {
            bail!("{}: there is no such file or folder", path.display());
        }
    }
    let watch = Watch::start(&args.paths).context("failed to watch the files for changes")?;
    let listener = listen(SocketAddr::new(args.host, args.port))?;
    let base = base_url(listener.local_addr()?);

    let (sender, events) = node::source();
    let settings = NodeSettings {
        listener,
        domain: Some("localhost".into()),
        dev: true,
        server_timing: !args.no_server_timing,
        drain: Duration::ZERO,
        max_instances: args.max_instances,
        policy: PlatformPolicy {
            loopback_by_rule: true,
            ..Default::default()
        },
        cache: None,
    };
    let node = tokio::select! {
        node = Node::start(settings, events) => node?,
        () = signals.next() => return Ok(()),
    };
    let mut session = Session {
        paths: args.paths,
        files: Files::default(),
        source: DevSource::default(),
        sender,
        pending: Pending::default(),
        told: BTreeSet::new(),
        entries: Vec::new(),
    };
    tokio::spawn(tell_outcomes(node.report.clone(), session.pending.clone()));
    let mut ready = node.ready.clone();
    let serve = async {
        session.reload().await?;
        session.sender.send(SourceEvent::Synced).await?;
        ready.wait_for(|ready| *ready).await?;
        if session.entries.is_empty() {
            say(&none_found(&base, &session.paths));
        } else {
            say(&format!("\n{}", list(&base, &session.entries)));
        }
        say(&format!(
            "Ready after {}. Changes are loaded at once; Ctrl-C stops.",
            elapsed(started.elapsed())
        ));
        session.follow(watch, &base).await
    };
    let outcome: anyhow::Result<()> = tokio::select! {
        outcome = serve => outcome,
        () = signals.next() => Ok(()),
    };
    node.abort().cancel();
    node.stop().await;
    outcome
}

/// What to do where the paths hold no Function.
fn none_found(base: &str, paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    format!(
        "{base}/ has no Function yet: write a manifest (.yaml or .yml) with kind: Function into {}, or name a .ts or .js \
         file itself on the command line",
        paths.join(", ")
    )
}

fn listen(address: SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    bind(address).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "port {} is in use: stop what listens there, or choose another with --port (0 for a free one)",
            address.port()
        ),
        std::io::ErrorKind::PermissionDenied => {
            anyhow::anyhow!("port {} may not be used: choose one above 1023 with --port", address.port())
        }
        std::io::ErrorKind::AddrNotAvailable => {
            anyhow::anyhow!("{} is no address of this machine: choose another with --host", address.ip())
        }
        _ => anyhow::anyhow!("failed to listen on {address}: {error}"),
    })
}

struct Session {
    paths: Vec<PathBuf>,
    files: Files,
    source: DevSource,
    sender: SourceSender,
    pending: Pending,
    /// Errors and notes of the last reload: each is printed once while it lasts.
    told: BTreeSet<String>,
    entries: Vec<Entry>,
}

impl Session {
    async fn follow(&mut self, mut watch: Watch, base: &str) -> anyhow::Result<()> {
        loop {
            watch.changed().await;
            let before: BTreeSet<Name> = self
                .entries
                .iter()
                .map(|entry| entry.name.clone())
                .collect();
            self.reload().await?;
            let new: Vec<Entry> = std::mem::take(&mut self.entries);
            let (added, kept): (Vec<_>, Vec<_>) = new
                .into_iter()
                .partition(|entry| !before.contains(&entry.name));
            if !added.is_empty() {
                say(list(base, &added).trim_end());
            }
            self.entries = kept.into_iter().chain(added).collect();
        }
    }

    async fn reload(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        self.files.read(&self.paths);
        let project = Project::new(self.files.contents());
        let reload = self.source.reload(&project);

        let file_errors = self
            .files
            .errors()
            .map(str::to_owned)
            .chain(project.errors.iter().cloned());
        let errors: BTreeSet<String> = file_errors.collect();
        for error in errors.difference(&self.told) {
            complain(error);
        }
        let notes: BTreeSet<String> = self
            .files
            .contents()
            .flat_map(|content| content.notes.clone())
            .collect();
        for note in notes.difference(&self.told) {
            say(&format!("note: {note}"));
        }
        for error in &reload.errors {
            complain(error);
        }
        self.told = errors.into_iter().chain(notes).collect();
        self.entries = project
            .functions
            .iter()
            .map(|(name, function)| Entry {
                name: name.clone(),
                routes: function.object.spec.routes.clone(),
                served: self.source.has_revision(name),
            })
            .collect();
        let names: BTreeMap<String, Name> = project
            .functions
            .keys()
            .map(|name| (uid(name), name.clone()))
            .collect();
        for change in reload.changes {
            if let Some(name) = names.get(&change.uid) {
                let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
                pending.insert(change.uid.clone(), (name.clone(), started));
            }
            self.sender.send(SourceEvent::Changed(change)).await?;
        }
        Ok(())
    }
}

/// Prints what became of each revision that the node was told.
async fn tell_outcomes(report: Arc<ReportLog>, pending: Pending) {
    let mut cursor = report.since(None).cursor;
    let mut served: BTreeMap<String, (Name, String)> = BTreeMap::new();
    loop {
        let news = report.wait(Some(&cursor), Duration::from_secs(3600)).await;
        cursor = news.cursor;
        for uid in news.removed {
            if let Some(((namespace, name), _)) = served.remove(&uid) {
                say(&format!("removed {namespace}/{name}"));
            }
        }
        for function in news.functions {
            let told = pending
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get(&function.uid)
                .cloned();
            if let Some((name, since)) = told {
                outcome(&mut served, &function, &name, since);
            }
        }
    }
}

fn outcome(
    served: &mut BTreeMap<String, (Name, String)>,
    function: &FunctionReport,
    name: &Name,
    since: Instant,
) {
    let label = format!("{}/{}", name.0, name.1);
    if function.quarantined {
        complain(&format!(
            "{label}: the worker crashed twice while it ran, so it is not run any more: change its code to try again"
        ));
    }
    if let Some(refused) = &function.refused {
        let place = match (&refused.file, refused.line, refused.column) {
            (Some(file), Some(line), Some(column))
                if !refused.message.starts_with(file.as_str()) =>
            {
                format!("{file}:{line}:{column}: ")
            }
            _ => String::new(),
        };
        let goes_on = match &function.serving {
            Some(serving) => format!("revision {} goes on serving", serving.revision),
            None => "it is not served until this is right".into(),
        };
        complain(&format!("{label}: {place}{}\n  {goes_on}", refused.message));
    }
    let Some(serving) = &function.serving else {
        return;
    };
    let before = served.insert(
        function.uid.clone(),
        (name.clone(), serving.revision.clone()),
    );
    if before.is_some_and(|(_, revision)| revision != serving.revision)
        && function.refused.is_none()
    {
        say(&format!(
            "reloaded {label} as revision {} after {}",
            serving.revision,
            elapsed(since.elapsed())
        ));
    }
}
