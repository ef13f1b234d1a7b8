//! The startup snapshot: a heap with the Web API layer in it, from which every instance starts.
//!
//! One process makes it (`isolet snapshot`, a short-lived helper, so that the worker never holds two different snapshots)
//! and writes it to its standard output; the worker reads it from an inherited file. It fits exactly the binary that made it.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;

use crate::web;

/// A snapshot in memory, for the life of the process.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot(&'static [u8]);

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The Web API layer threw while it was set up.
    #[error("the Web API layer failed to start: {0}")]
    Bootstrap(String),
    /// V8 made no blob.
    #[error("V8 made no snapshot")]
    NoBlob,
    /// The file could not be read.
    #[error("failed to read the snapshot")]
    Read(#[from] std::io::Error),
    /// It comes from another build of this program.
    #[error("the snapshot was made by another version of this program")]
    OtherVersion,
}

impl Snapshot {
    /// Makes a snapshot in this process, which must not use another one.
    pub fn create() -> Result<Vec<u8>, SnapshotError> {
        let mut creator =
            v8::Isolate::snapshot_creator(Some(web::external_references().into()), None);
        let result = {
            v8::scope!(let scope, &mut creator);
            let context = v8::Context::new(scope, v8::ContextOptions::default());
            let scope = &mut v8::ContextScope::new(scope, context);
            let result = web::bootstrap(scope);
            scope.set_default_context(context);
            result
        };
        let blob = creator.create_blob(v8::FunctionCodeHandling::Keep);
        result.map_err(|exception| {
            SnapshotError::Bootstrap(format!("{}\n{}", exception.message, exception.stack))
        })?;
        Ok(blob.ok_or(SnapshotError::NoBlob)?.to_vec())
    }

    /// Reads a snapshot that a process of the same program wrote. The bytes stay for the life of the process.
    pub fn load(file: OwnedFd) -> Result<Self, SnapshotError> {
        let file = File::from(file);
        let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).unwrap_or(0)];
        // Not by the file's position, which processes that start at the same time share.
        file.read_exact_at(&mut bytes, 0)?;
        Self::from_bytes(bytes)
    }

    /// Takes a snapshot for the life of the process.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, SnapshotError> {
        let snapshot = Self(bytes.leak());
        if snapshot.0.is_empty() || !snapshot.data().is_valid() {
            return Err(SnapshotError::OtherVersion);
        }
        Ok(snapshot)
    }

    pub(super) fn data(self) -> v8::StartupData {
        self.0.into()
    }
}

/// `isolet snapshot`: makes the snapshot and writes it to standard output. With a seed the same program makes the same
/// bytes each time.
pub fn write_to_stdout(seed: Option<u64>) -> ExitCode {
    if let Some(seed) = seed {
        super::platform::seed(seed);
    }
    super::platform::initialize(1);
    let written = Snapshot::create()
        .map_err(|error| error.to_string())
        .and_then(|blob| {
            let mut out = std::io::stdout().lock();
            out.write_all(&blob)
                .and_then(|()| out.flush())
                .map_err(|error| format!("failed to write the snapshot: {error}"))
        });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("isolet snapshot: {problem}");
            ExitCode::FAILURE
        }
    }
}
