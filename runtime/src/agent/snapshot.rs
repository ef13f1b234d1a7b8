//! The startup snapshot, made once by `isolet snapshot` and kept in memory, sealed: a broken worker cannot change what the
//! next one starts from.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{SealFlags, fcntl_add_seals};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use super::children::{helper, memory_file, output};

const MAX_BYTES: usize = 256 << 20;
const TIMEOUT: Duration = Duration::from_secs(60);

/// The snapshot.
#[derive(Debug)]
pub struct StartupSnapshot {
    file: File,
    digest: String,
}

/// `isolet snapshot` failed.
#[derive(Debug, thiserror::Error)]
#[error("failed to make the startup snapshot: {0}")]
pub struct SnapshotError(String);

impl StartupSnapshot {
    /// Makes it. The same program makes the same one of the same seed.
    pub async fn make(program: &Path, seed: Option<u64>) -> Result<Self, SnapshotError> {
        let failed = |error: io::Error| SnapshotError(error.to_string());
        let mut command = Command::new(program);
        command.arg("snapshot");
        if let Some(seed) = seed {
            command.arg("--seed").arg(seed.to_string());
        }
        let child = helper(&mut command).spawn().map_err(failed)?;
        let blob = output(child, &[], MAX_BYTES, TIMEOUT)
            .await
            .map_err(SnapshotError)?;
        let digest = Sha256::digest(&blob);
        Ok(Self {
            file: sealed(&blob).map_err(failed)?,
            digest: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }

    /// To be lent to a child.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Its SHA-256 in hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

fn sealed(blob: &[u8]) -> io::Result<File> {
    let mut file = memory_file("snapshot")?;
    file.write_all(blob)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    fcntl_add_seals(&file, seals)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_inherits_it_cannot_change_it() {
        let mut copy = sealed(b"blob").unwrap().try_clone().unwrap();
        assert!(copy.write_all(b"x").is_err());
        assert!(copy.set_len(0).is_err());
    }
}
