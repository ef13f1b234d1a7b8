//! Tells when something under the given paths changes, once for each burst of changes.
//!
//! Editors write in several steps: into the file, or beside it and rename. So folders are watched, not files, and a burst
//! counts as over when nothing has come for a moment.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::Instant;

const QUIET: Duration = Duration::from_millis(30);
/// A burst that does not end is acted on all the same.
const LONGEST_BURST: Duration = Duration::from_millis(120);

/// A running watch.
pub struct Watch {
    // Watching ends when it is dropped.
    _watcher: RecommendedWatcher,
    events: mpsc::Receiver<()>,
}

impl Watch {
    /// Watches files and folders.
    pub fn start(paths: &[PathBuf]) -> notify::Result<Self> {
        // One event waits; more say nothing new.
        let (sender, events) = mpsc::channel(1);
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                let matters = match &event {
                    Ok(event) => !matches!(event.kind, EventKind::Access(_)),
                    Err(error) => {
                        tracing::warn!(%error, "the watch of files failed");
                        true
                    }
                };
                if matters {
                    // Full: one waits already. Closed: the process ends.
                    let _ = sender.try_send(());
                }
            })?;
        let mut folders = BTreeSet::new();
        for path in paths {
            if path.is_dir() {
                watcher.watch(path, RecursiveMode::Recursive)?;
            } else {
                let parent = path
                    .parent()
                    .filter(|parent| !parent.as_os_str().is_empty());
                folders.insert(parent.unwrap_or(Path::new(".")).to_owned());
            }
        }
        for folder in folders {
            watcher.watch(&folder, RecursiveMode::NonRecursive)?;
        }
        Ok(Self {
            _watcher: watcher,
            events,
        })
    }

    /// Waits for a burst of changes to end.
    pub async fn changed(&mut self) {
        if self.events.recv().await.is_none() {
            return std::future::pending().await;
        }
        let end = Instant::now() + LONGEST_BURST;
        loop {
            let quiet = (Instant::now() + QUIET).min(end);
            match tokio::time::timeout_at(quiet, self.events.recv()).await {
                Ok(Some(())) if Instant::now() < end => {}
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn changed(watch: &mut Watch) {
        tokio::time::timeout(Duration::from_secs(10), watch.changed())
            .await
            .expect("a change is noticed");
    }

    #[tokio::test]
    async fn notices_writes_renames_and_removals() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, "1").unwrap();
        let mut watch = Watch::start(std::slice::from_ref(&file)).unwrap();
        std::fs::write(&file, "2").unwrap();
        changed(&mut watch).await;
        std::fs::write(folder.path().join("a.tmp"), "3").unwrap();
        std::fs::rename(folder.path().join("a.tmp"), &file).unwrap();
        changed(&mut watch).await;
        std::fs::remove_file(&file).unwrap();
        changed(&mut watch).await;
    }
}
