//! What was served, on disk, so that a restart with the API server down serves it again.
//!
//! One file per Function, `UID.bundle` (beside it `UID.code`, see [`super::code`]), mode 0600 because secret values are in it:
//!
//! ```text
//! magic "isolet1\n" | SHA-256 of the rest | u32 LE length of header | header (JSON) | archive | secret values
//! ```
//!
//! A file is written beside its name, flushed and renamed, so it is there whole or not at all. What does not read back is
//! logged and deleted. The directory belongs to one agent.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use isolet_crds::bundle::{Digest, FunctionIdentity, MAX_COMPRESSED_BYTES};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use super::Revision;

const MAGIC: &[u8; 8] = b"isolet1\n";
const SUM_BYTES: usize = 32;
const SUFFIX: &str = ".bundle";
const TEMPORARY: &str = ".new";
const SEED: &str = "seed";
const MAX_FILE_BYTES: u64 = 2 * MAX_COMPRESSED_BYTES as u64 + (64 << 10);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    function: FunctionIdentity,
    digest: String,
    sequence: u64,
    bundle_bytes: usize,
    secrets_bytes: Option<usize>,
}

/// The directory.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// Makes the directory if need be and checks that it can be written.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        let probe = folder.join(format!("probe{TEMPORARY}"));
        create(&probe)?;
        fs::remove_file(&probe)?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// The directory itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A random number that stays the same for as long as the directory does.
    pub fn seed(&self) -> io::Result<u64> {
        let path = self.folder.join(SEED);
        let kept = fs::read(&path).ok();
        if let Some(seed) = kept.and_then(|bytes| <[u8; 8]>::try_from(bytes).ok()) {
            return Ok(u64::from_le_bytes(seed));
        }
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
        create(&path)?.write_all(&seed)?;
        Ok(u64::from_le_bytes(seed))
    }

    /// Everything that reads back whole; the rest is deleted.
    pub fn load(&self) -> Vec<Arc<Revision>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(folder = %self.folder.display(), %error, "failed to read the bundle cache");
                return Vec::new();
            }
        };
        let mut revisions = Vec::new();
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(TEMPORARY) {
                self.discard(&path);
            } else if name.ends_with(SUFFIX) {
                match read(&path) {
                    Ok(revision) => revisions.push(Arc::new(revision)),
                    Err(reason) => {
                        tracing::warn!(file = %path.display(), reason, "a cached bundle is damaged and was deleted");
                        self.discard(&path);
                    }
                }
            }
        }
        revisions
    }

    /// Writes the revision in place of the one before.
    pub fn store(&self, revision: &Revision) -> io::Result<()> {
        let path = self.path(&revision.identity.uid)?;
        let temporary = path.with_extension("new");
        let mut file = create(&temporary)?;
        file.write_all(&encode(revision)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        fs::File::open(&self.folder)?.sync_all()
    }

    /// Forgets a Function.
    pub fn remove(&self, uid: &str) -> io::Result<()> {
        match fs::remove_file(self.path(uid)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, uid: &str) -> io::Result<PathBuf> {
        path(&self.folder, uid, SUFFIX)
    }

    fn discard(&self, path: &Path) {
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!(file = %path.display(), %error, "failed to delete a cached bundle");
        }
    }
}

/// A Function's file.
pub(super) fn path(folder: &Path, uid: &str, suffix: &str) -> io::Result<PathBuf> {
    let sane = (1..=128).contains(&uid.len())
        && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !sane {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the UID is no file name",
        ));
    }
    Ok(folder.join(format!("{uid}{suffix}")))
}

pub(super) fn create(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

fn encode(revision: &Revision) -> io::Result<Vec<u8>> {
    let header = serde_json::to_vec(&Header {
        function: revision.identity.clone(),
        digest: revision.digest.as_str().to_owned(),
        sequence: revision.sequence,
        bundle_bytes: revision.bundle.len(),
        secrets_bytes: revision.secrets.as_ref().map(Bytes::len),
    })?;
    let secrets = revision.secrets.as_deref().unwrap_or_default();
    Ok(seal(MAGIC, &header, &[&revision.bundle, secrets]))
}

/// The bytes of a file: what it is, a checksum of the rest, a header and the content.
pub(super) fn seal(magic: &[u8; 8], header: &[u8], contents: &[&[u8]]) -> Vec<u8> {
    let mut whole = magic.to_vec();
    whole.extend_from_slice(&[0; SUM_BYTES]);
    whole.extend_from_slice(&(header.len() as u32).to_le_bytes());
    whole.extend_from_slice(header);
    for content in contents {
        whole.extend_from_slice(content);
    }
    let (start, rest) = whole.split_at_mut(magic.len() + SUM_BYTES);
    start[magic.len()..].copy_from_slice(&Sha256::digest(rest));
    whole
}

/// Header and content, if the file is what it should be, whole and unchanged.
pub(super) fn unseal<'a>(magic: &[u8; 8], whole: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (sum, rest) = whole
        .strip_prefix(magic)?
        .split_first_chunk::<SUM_BYTES>()?;
    if Sha256::digest(rest).as_slice() != sum {
        return None;
    }
    let (length, rest) = rest.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

fn read(path: &Path) -> Result<Revision, String> {
    let mut whole = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut whole))
        .map_err(|error| error.to_string())?;
    if whole.len() as u64 > MAX_FILE_BYTES {
        return Err("it is too large".into());
    }
    let revision = decode(&whole).ok_or("its checksum or its layout is wrong")??;
    let expected = format!("{}{SUFFIX}", revision.identity.uid);
    if path
        .file_name()
        .is_none_or(|name| name.to_string_lossy() != expected)
    {
        return Err("its name is another Function's".into());
    }
    Ok(revision)
}

/// `None`: it is no file of this layout; `Some(Err)`: it is, but its bundle does not check.
fn decode(whole: &[u8]) -> Option<Result<Revision, String>> {
    let (header, rest) = unseal(MAGIC, whole)?;
    let header: Header = serde_json::from_slice(header).ok()?;
    let (bundle, secrets) = rest.split_at_checked(header.bundle_bytes)?;
    if secrets.len() != header.secrets_bytes.unwrap_or(0) {
        return None;
    }
    let secrets = header
        .secrets_bytes
        .map(|_| Bytes::copy_from_slice(secrets));
    let revision = Revision::check(
        header.function,
        Digest::parse(&header.digest)?,
        header.sequence,
        Bytes::copy_from_slice(bundle),
        secrets,
    );
    Some(match revision {
        Ok(Some(revision)) => Ok(revision),
        Ok(None) => Err("its secret values are missing".into()),
        Err(error) => Err(error.to_string()),
    })
}

/// Writes behind the loader's back: only the latest state of each Function counts, so what waits is bounded by their number.
#[derive(Clone)]
pub struct CacheWriter {
    shared: Arc<Shared>,
}

struct Shared {
    cache: Cache,
    pending: Mutex<HashMap<String, Option<Arc<Revision>>>>,
    /// Held while files are written, so that a flush also waits for the one under way.
    writing: Mutex<()>,
    wake: Notify,
}

impl CacheWriter {
    /// Starts writing, on the current tokio runtime.
    pub fn start(cache: Cache) -> Self {
        let shared = Arc::new(Shared {
            cache,
            pending: Mutex::default(),
            writing: Mutex::default(),
            wake: Notify::new(),
        });
        let writer = Self {
            shared: shared.clone(),
        };
        tokio::spawn(async move {
            loop {
                shared.wake.notified().await;
                let shared = shared.clone();
                if tokio::task::spawn_blocking(move || shared.drain())
                    .await
                    .is_err()
                {
                    tracing::error!("writing the bundle cache failed");
                }
            }
        });
        writer
    }

    /// This revision serves now.
    pub fn store(&self, revision: Arc<Revision>) {
        self.put(revision.identity.uid.clone(), Some(revision));
    }

    /// The Function is gone.
    pub fn remove(&self, uid: &str) {
        self.put(uid.to_owned(), None);
    }

    /// Returns once everything told before is on disk; blocks this thread, for the end of the process.
    pub fn flush(&self) {
        self.shared.drain();
    }

    fn put(&self, uid: String, state: Option<Arc<Revision>>) {
        lock(&self.shared.pending).insert(uid, state);
        self.shared.wake.notify_one();
    }
}

impl Shared {
    fn drain(&self) {
        let _writing = lock(&self.writing);
        loop {
            let next = {
                let mut pending = lock(&self.pending);
                let Some(uid) = pending.keys().next().cloned() else {
                    return;
                };
                pending.remove_entry(&uid)
            };
            let Some((uid, state)) = next else { return };
            let outcome = match &state {
                Some(revision) => self.cache.store(revision),
                None => self.cache.remove(&uid),
            };
            if let Err(error) = outcome {
                tracing::warn!(uid, %error, "failed to write the bundle cache: a restart with the API server down will not serve this revision");
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // No code that can panic runs under it.
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::testing;
    use std::os::unix::fs::PermissionsExt;

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("bundles")).unwrap();
        (folder, cache)
    }

    fn only_file(cache: &Cache) -> PathBuf {
        fs::read_dir(&cache.folder)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path()
    }

    #[test]
    fn gives_back_what_it_got_readable_by_nobody_else() {
        let (_folder, cache) = cache();
        let encoded = testing::bundle("a", "1", true);
        let secret = Revision::check(
            testing::identity("a"),
            encoded.digest,
            4,
            encoded.bytes.into(),
            Some(testing::secrets()),
        )
        .unwrap()
        .unwrap();
        cache.store(&testing::revision("a", "0", 3)).unwrap();
        cache.store(&secret).unwrap();
        assert_eq!(cache.load(), [Arc::new(secret)]);
        let mode = only_file(&cache).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        cache.remove("uid-a").unwrap();
        cache.remove("uid-a").unwrap();
        assert_eq!(cache.load(), []);
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed_and_the_file_deleted() {
        let (_folder, cache) = cache();
        let revision = testing::revision("a", "1", 3);
        cache.store(&revision).unwrap();
        let path = only_file(&cache);
        let whole = fs::read(&path).unwrap();
        for position in (0..whole.len()).step_by(7) {
            let mut damaged = whole.clone();
            damaged[position] ^= 0x10;
            fs::write(&path, damaged).unwrap();
            assert_eq!(cache.load(), [], "bit in byte {position}");
            assert!(!path.exists());
        }
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(cache.load(), [], "{length} bytes");
        }
    }

    #[test]
    fn a_file_under_another_functions_name_and_half_written_ones_are_deleted() {
        let (_folder, cache) = cache();
        cache.store(&testing::revision("a", "1", 3)).unwrap();
        fs::rename(only_file(&cache), cache.folder.join("uid-b.bundle")).unwrap();
        fs::write(cache.folder.join("uid-c.new"), "half").unwrap();
        assert_eq!(cache.load(), []);
        assert_eq!(fs::read_dir(&cache.folder).unwrap().count(), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_flush_leaves_nothing_unwritten() {
        for _ in 0..20 {
            let (_folder, cache) = cache();
            let writer = CacheWriter::start(cache.clone());
            for number in 0..10 {
                writer.store(testing::revision(&format!("f{number}"), "1", 1));
                tokio::task::yield_now().await;
            }
            writer.remove("uid-f3");
            writer.flush();
            assert_eq!(cache.load().len(), 9);
        }
    }

    #[test]
    fn a_seed_lasts_as_long_as_the_folder() {
        let (_folder, first) = cache();
        let (_folder, second) = cache();
        let seed = first.seed().unwrap();
        assert_eq!(first.seed().unwrap(), seed);
        assert_ne!(second.seed().unwrap(), seed);
        fs::write(first.folder.join(SEED), "half").unwrap();
        let again = first.seed().unwrap();
        assert_ne!(again, seed);
        assert_eq!(first.seed().unwrap(), again);
    }

    #[test]
    fn a_uid_cannot_leave_the_folder() {
        let (_folder, cache) = cache();
        for uid in ["", "../x", "a/b", ".", "a.b", "ä"] {
            assert!(cache.remove(uid).is_err(), "{uid}");
        }
    }
}
