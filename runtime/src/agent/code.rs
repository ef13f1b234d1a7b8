//! Compiled code of the revisions that are used, kept beside the bundles for the next worker.
//!
//! ```text
//! worker: first start for a request ─> Starts ─> is there a file? ─ yes ─> it was used
//!                                                      no, or V8 refused it
//!                                                       v
//!                              isolet compile (one at a time) ─> CodeFiles ─> next PUT of this revision
//! ```
//!
//! The worker only names revisions. No compiled code is taken from it: V8 trusts such code, and a worker that one tenant has
//! broken into could offer some for another's revision and so live on in the next worker. `isolet compile` sees one bundle,
//! inside the jail, and runs nothing of it. Whoever breaks it can spoil only what is kept of his own revision.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::process::Command;
use tokio::sync::watch;

use super::children::{Lender, helper, output};
use super::control::Control;
use super::metrics::Metrics;
use super::snapshot::StartupSnapshot;
use crate::bundle::Revision;
use crate::bundle::code::{self, CodeFiles};
use crate::control::{MAX_CODE_BYTES, SentCode, Start};

/// Wall time of one compilation: it has the lowest priority.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Compilations of one revision in the life of this agent. A broken worker may ask again and again.
const MOST_ATTEMPTS: u8 = 3;
/// Between two questions to the worker.
const PAUSE: Duration = Duration::from_millis(100);

/// Keeps compiled code.
pub struct CodeKeeper {
    program: PathBuf,
    snapshot: Arc<StartupSnapshot>,
    metrics: Metrics,
    state: Mutex<State>,
}

struct State {
    files: CodeFiles,
    by_uid: HashMap<String, Known>,
}

/// What the worker may have started of a Function.
struct Known {
    /// The latest that was sent: the worker may tell of it before it has answered that it serves.
    sent: Arc<Revision>,
    /// The latest that serves.
    serving: Option<Arc<Revision>>,
    /// Compilations of the one that was sent.
    attempts: u8,
}

impl CodeKeeper {
    /// Keeps code in these files, made for this snapshot.
    pub fn new(
        files: CodeFiles,
        program: PathBuf,
        snapshot: Arc<StartupSnapshot>,
        metrics: Metrics,
    ) -> Self {
        metrics.code_bytes.set(files.bytes() as i64);
        Self {
            program,
            snapshot,
            metrics,
            state: Mutex::new(State {
                files,
                by_uid: HashMap::new(),
            }),
        }
    }

    /// This revision serves now: the code of any other of its Function goes.
    pub fn serves(&self, revision: &Arc<Revision>) {
        let uid = &revision.identity.uid;
        let mut state = self.state();
        if let Some(known) = state.by_uid.get_mut(uid) {
            known.serving = Some(revision.clone());
        }
        if state.files.of(revision).is_none() {
            state.files.remove(uid);
        }
        self.measure(&state.files);
    }

    /// The Function is gone.
    pub fn forget(&self, uid: &str) {
        let mut state = self.state();
        state.by_uid.remove(uid);
        state.files.remove(uid);
        self.measure(&state.files);
    }

    /// What is kept of a revision that is about to be sent. A file that is damaged is dropped.
    pub async fn code(&self, revision: &Arc<Revision>) -> Option<Bytes> {
        let (key, path) = {
            let mut state = self.state();
            state.sends(revision);
            let path = state.files.of(revision)?;
            (state.files.key(revision).ok()?, path)
        };
        let code = tokio::task::spawn_blocking(move || code::read(&key, &path))
            .await
            .ok()?;
        let files = &mut self.state().files;
        if code.is_none() && files.of(revision).is_some() {
            self.drop_file(files, revision, "it is damaged");
        }
        code
    }

    /// Follows the workers, one after the other, until the supervisor is gone.
    pub async fn run(self: Arc<Self>, mut workers: watch::Receiver<Option<Control>>) {
        loop {
            let worker = workers.borrow_and_update().clone();
            let starts = match &worker {
                Some(control) => control.starts().await.ok(),
                None => None,
            };
            match starts {
                Some(starts) => {
                    for start in &starts.0 {
                        self.started(start).await;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                // There is none, or it is going.
                None => tokio::select! {
                    changed = workers.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(PAUSE), if worker.is_some() => {}
                },
            }
        }
    }

    async fn started(&self, start: &Start) {
        let Some(revision) = self.to_compile(start) else {
            return;
        };
        match self.make(&revision).await {
            Ok(true) => {
                self.metrics.code_made.inc();
            }
            // Another revision serves by now.
            Ok(false) => {}
            Err(error) => {
                self.metrics.code_failed.inc();
                let identity = &revision.identity;
                tracing::warn!(
                    namespace = identity.namespace,
                    function = identity.name,
                    revision = revision.name(),
                    error,
                    "failed to compile a revision for later workers; each will compile it at its first start"
                );
            }
        }
    }

    /// The revision that started, if it serves still and its code is to be made. If there is code, it was used.
    fn to_compile(&self, start: &Start) -> Option<Arc<Revision>> {
        let state = &mut *self.state();
        let known = state.by_uid.get_mut(&start.uid)?;
        let revision = known
            .revisions()
            .find(|revision| revision.name() == start.revision)?
            .clone();
        if state.files.of(&revision).is_some() {
            if start.code != SentCode::Refused {
                state.files.touch(&start.uid);
                return None;
            }
            self.drop_file(&mut state.files, &revision, "V8 refused it");
        }
        if known.attempts >= MOST_ATTEMPTS {
            return None;
        }
        known.attempts += 1;
        Some(revision)
    }

    async fn make(&self, revision: &Arc<Revision>) -> Result<bool, String> {
        let code = self.compile(revision).await?;
        let failed = |error: std::io::Error| error.to_string();
        let key = self.state().files.key(revision).map_err(failed)?;
        let written = tokio::task::spawn_blocking(move || code::write(&key, &code))
            .await
            .map_err(|error| error.to_string())?
            .map_err(failed)?;
        let mut state = self.state();
        if !state.knows(revision) {
            written.discard();
            return Ok(false);
        }
        state.files.adopt(revision, written).map_err(failed)?;
        self.measure(&state.files);
        Ok(true)
    }

    async fn compile(&self, revision: &Revision) -> Result<Vec<u8>, String> {
        let child = {
            let lender = Lender::new();
            let snapshot = lender
                .lend(self.snapshot.file())
                .map_err(|error| error.to_string())?;
            let mut command = Command::new(&self.program);
            command
                .arg("compile")
                .arg("--snapshot-fd")
                .arg(std::os::fd::AsRawFd::as_raw_fd(&snapshot).to_string())
                .stderr(std::process::Stdio::piped());
            helper(&mut command)
                .spawn()
                .map_err(|error| error.to_string())?
        };
        output(child, &revision.bundle, MAX_CODE_BYTES, TIMEOUT).await
    }

    fn drop_file(&self, files: &mut CodeFiles, revision: &Revision, reason: &str) {
        self.metrics.code_dropped.inc();
        tracing::warn!(
            namespace = revision.identity.namespace,
            function = revision.identity.name,
            revision = revision.name(),
            reason,
            "dropped compiled code of a revision; it will be made again"
        );
        files.remove(&revision.identity.uid);
        self.measure(files);
    }

    fn measure(&self, files: &CodeFiles) {
        self.metrics.code_bytes.set(files.bytes() as i64);
    }

    /// No code panics while it holds this lock, so poison carries no news.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn sends(&mut self, revision: &Arc<Revision>) {
        let known = self.by_uid.entry(revision.identity.uid.clone());
        let known = known.or_insert_with(|| Known {
            sent: revision.clone(),
            serving: None,
            attempts: 0,
        });
        if known.sent.digest != revision.digest {
            known.sent = revision.clone();
            known.attempts = 0;
        }
    }

    fn knows(&self, revision: &Revision) -> bool {
        self.by_uid
            .get(&revision.identity.uid)
            .is_some_and(|known| known.revisions().any(|it| it.digest == revision.digest))
    }
}

impl Known {
    fn revisions(&self) -> impl Iterator<Item = &Arc<Revision>> {
        std::iter::once(&self.sent).chain(&self.serving)
    }
}
