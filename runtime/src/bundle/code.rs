//! What V8 compiled of bundles, on disk beside them, so that a new worker need not compile them again.
//!
//! One file per Function, `UID.code`, laid out and written as [`super::cache`] describes, without its flush: a file that is
//! lost or damaged costs one compilation. It names the revision and the startup snapshot that it was made for; V8's version
//! and flags, which V8 checks again, are in the content.
//!
//! A file goes with its bundle, when another revision serves, when it does not read back whole, and, coldest first, when all
//! together are more than 128 MiB.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Revision;
use super::cache::{Cache, create, path, seal, unseal};
use crate::control::MAX_CODE_BYTES;

const MAGIC: &[u8; 8] = b"isocode1";
const SUFFIX: &str = ".code";
const TEMPORARY: &str = ".code.new";
const BUNDLE: &str = "bundle";
const MAX_HEADER_BYTES: usize = 4 << 10;
const MAX_FILE_BYTES: u64 = (MAX_CODE_BYTES + 2 * MAX_HEADER_BYTES) as u64;
/// All files together, in bytes.
const MOST_BYTES: u64 = 128 << 20;

#[derive(Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Header {
    uid: String,
    digest: String,
    snapshot: String,
}

/// The files of one agent.
#[derive(Debug)]
pub struct CodeFiles {
    folder: PathBuf,
    snapshot: String,
    most_bytes: u64,
    by_uid: HashMap<String, File>,
}

#[derive(Debug)]
struct File {
    /// Of the revision.
    digest: String,
    bytes: u64,
    used: SystemTime,
}

/// A file whose content has been written, but not under its name.
#[derive(Debug)]
pub struct Written {
    temporary: PathBuf,
    bytes: u64,
}

impl CodeFiles {
    /// Finds the files made for this startup snapshot, named by a digest; the others are deleted. Answers also how many
    /// those were. Blocks.
    pub fn open(cache: &Cache, snapshot: &str) -> io::Result<(Self, u64)> {
        Self::open_bounded(cache, snapshot, MOST_BYTES)
    }

    fn open_bounded(cache: &Cache, snapshot: &str, most_bytes: u64) -> io::Result<(Self, u64)> {
        let mut files = Self {
            folder: cache.folder().to_owned(),
            snapshot: snapshot.to_owned(),
            most_bytes,
            by_uid: HashMap::new(),
        };
        let mut dropped = 0;
        for entry in fs::read_dir(&files.folder)?.flatten() {
            let path = entry.path();
            if !entry.file_name().to_string_lossy().ends_with(SUFFIX) {
                continue;
            }
            match files.found(&path) {
                Some((uid, file)) => {
                    files.by_uid.insert(uid, file);
                }
                None => {
                    delete(&path);
                    dropped += 1;
                }
            }
        }
        files.evict();
        Ok((files, dropped))
    }

    /// A file that was there at start. Its checksum is checked when it is used.
    fn found(&self, path: &Path) -> Option<(String, File)> {
        let mut start = Vec::new();
        let file = fs::File::open(path).ok()?;
        let metadata = file.metadata().ok()?;
        file.take(MAX_HEADER_BYTES as u64)
            .read_to_end(&mut start)
            .ok()?;
        let header = header(&start)?;
        let is_ours = header.snapshot == self.snapshot
            && self.path(&header.uid).ok()? == path
            && path.with_extension(BUNDLE).exists();
        is_ours.then_some((
            header.uid,
            File {
                digest: header.digest,
                bytes: metadata.len(),
                used: metadata.modified().ok()?,
            },
        ))
    }

    /// The file with a revision's code, if there is one; [`read`] it.
    pub fn of(&self, revision: &Revision) -> Option<PathBuf> {
        let uid = &revision.identity.uid;
        let kept = self.by_uid.get(uid)?;
        (kept.digest == revision.digest.as_str()).then(|| self.path(uid).ok())?
    }

    /// The code of this revision was used.
    pub fn touch(&mut self, uid: &str) {
        let Ok(path) = self.path(uid) else { return };
        if let Some(kept) = self.by_uid.get_mut(uid) {
            kept.used = SystemTime::now();
            // For the next agent, which would otherwise take it for colder than it is.
            let file = fs::File::options().append(true).open(path);
            let _ = file.and_then(|file| file.set_modified(kept.used));
        }
    }

    /// Takes over what [`write()`] wrote; the coldest go if it is too much.
    pub fn adopt(&mut self, revision: &Revision, written: Written) -> io::Result<()> {
        let uid = &revision.identity.uid;
        fs::rename(&written.temporary, self.path(uid)?)?;
        let file = File {
            digest: revision.digest.as_str().to_owned(),
            bytes: written.bytes,
            used: SystemTime::now(),
        };
        self.by_uid.insert(uid.clone(), file);
        self.touch(uid);
        self.evict();
        Ok(())
    }

    /// Forgets a Function's code.
    pub fn remove(&mut self, uid: &str) {
        if self.by_uid.remove(uid).is_some()
            && let Ok(path) = self.path(uid)
        {
            delete(&path);
        }
    }

    /// Size of all files, in bytes.
    pub fn bytes(&self) -> u64 {
        self.by_uid.values().map(|file| file.bytes).sum()
    }

    /// What to give to [`write()`] and [`read`].
    pub fn key(&self, revision: &Revision) -> io::Result<Key> {
        let uid = &revision.identity.uid;
        Ok(Key {
            temporary: path(&self.folder, uid, TEMPORARY)?,
            header: serde_json::to_vec(&Header {
                uid: uid.clone(),
                digest: revision.digest.as_str().to_owned(),
                snapshot: self.snapshot.clone(),
            })?,
        })
    }

    fn path(&self, uid: &str) -> io::Result<PathBuf> {
        path(&self.folder, uid, SUFFIX)
    }

    fn evict(&mut self) {
        let mut bytes = self.bytes();
        while bytes > self.most_bytes {
            let coldest = self.by_uid.iter().min_by_key(|(_, file)| file.used);
            let Some((uid, file)) = coldest else { return };
            bytes -= file.bytes;
            let uid = uid.clone();
            self.remove(&uid);
        }
    }
}

impl Written {
    /// It is not needed any more.
    pub fn discard(self) {
        delete(&self.temporary);
    }
}

/// What a file is made for.
#[derive(Debug)]
pub struct Key {
    temporary: PathBuf,
    header: Vec<u8>,
}

/// Writes code beside the file it is to become. Blocks.
pub fn write(key: &Key, code: &[u8]) -> io::Result<Written> {
    let whole = seal(MAGIC, &key.header, &[code]);
    create(&key.temporary)?.write_all(&whole)?;
    Ok(Written {
        temporary: key.temporary.clone(),
        bytes: whole.len() as u64,
    })
}

/// The code in a file, if it is whole, unchanged and made for this. Blocks.
pub fn read(key: &Key, path: &Path) -> Option<Bytes> {
    let mut whole = Vec::new();
    let file = fs::File::open(path).ok()?;
    file.take(MAX_FILE_BYTES).read_to_end(&mut whole).ok()?;
    let (header, code) = unseal(MAGIC, &whole)?;
    (header == key.header).then(|| Bytes::copy_from_slice(code))
}

/// What a file says of itself, from its first bytes.
fn header(start: &[u8]) -> Option<Header> {
    let (_sum, rest) = start.strip_prefix(MAGIC)?.split_first_chunk::<32>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (header, _) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    serde_json::from_slice(header).ok()
}

fn delete(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(file = %path.display(), %error, "failed to delete compiled code");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::testing::revision;
    use std::sync::Arc;

    struct Folder {
        _folder: tempfile::TempDir,
        cache: Cache,
    }

    fn folder() -> Folder {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        Folder {
            cache,
            _folder: folder,
        }
    }

    impl Folder {
        fn open(&self, snapshot: &str, most_bytes: u64) -> (CodeFiles, u64) {
            CodeFiles::open_bounded(&self.cache, snapshot, most_bytes).unwrap()
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.cache.folder()).unwrap().flatten();
            let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
            let mut names: Vec<_> = names.filter(|name| name.contains(SUFFIX)).collect();
            names.sort();
            names
        }
    }

    fn keep(files: &mut CodeFiles, revision: &Revision, code: &[u8]) {
        let written = write(&files.key(revision).unwrap(), code).unwrap();
        files.adopt(revision, written).unwrap();
    }

    fn kept(files: &CodeFiles, revision: &Revision) -> Option<Bytes> {
        let key = files.key(revision).unwrap();
        files.of(revision).and_then(|path| read(&key, &path))
    }

    #[test]
    fn the_next_agent_finds_what_was_kept_for_its_snapshot_beside_a_bundle() {
        let folder = folder();
        let (mut files, _) = folder.open("s1", 1 << 20);
        let (a, b) = (revision("a", "1", 1), revision("b", "1", 1));
        for revision in [&a, &b] {
            folder.cache.store(revision).unwrap();
            keep(&mut files, revision, b"code");
        }
        assert_eq!(kept(&files, &a).unwrap(), "code"[..]);
        assert!(kept(&files, &revision("a", "2", 2)).is_none());

        let (files, dropped) = folder.open("s1", 1 << 20);
        assert_eq!((kept(&files, &b).unwrap(), dropped), ("code".into(), 0));
        folder.cache.remove("uid-a").unwrap();
        let (_, dropped) = folder.open("s1", 1 << 20);
        assert_eq!((dropped, folder.names()), (1, vec!["uid-b.code".into()]));
        let (files, dropped) = folder.open("s2", 1 << 20);
        assert_eq!((dropped, files.bytes()), (1, 0));
        assert!(folder.names().is_empty());
    }

    #[test]
    fn a_file_that_was_changed_is_not_read() {
        let folder = folder();
        let (mut files, _) = folder.open("s1", 1 << 20);
        let (a, b) = (revision("a", "1", 1), revision("b", "1", 1));
        folder.cache.store(&a).unwrap();
        keep(&mut files, &a, b"code");
        keep(&mut files, &b, b"code of another");
        let path = files.of(&a).unwrap();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, changed).unwrap();
            assert!(kept(&files, &a).is_none(), "byte {at}");
            folder.open("s1", 1 << 20);
            fs::write(&path, &whole[..at]).unwrap();
            assert!(kept(&files, &a).is_none(), "{at} bytes");
            folder.open("s1", 1 << 20);
        }
        keep(&mut files, &b, b"code of another");
        fs::copy(files.of(&b).unwrap(), &path).unwrap();
        assert!(kept(&files, &a).is_none(), "another Function's");
        assert_eq!(folder.open("s1", 1 << 20).0.bytes(), 0);
        fs::write(&path, &whole).unwrap();
        assert_eq!(kept(&files, &a).unwrap(), "code"[..]);
    }

    #[test]
    fn the_coldest_go_when_all_together_are_too_much() {
        let folder = folder();
        let (mut files, _) = folder.open("s1", 4000);
        let revisions: Vec<Arc<Revision>> = (0..5)
            .map(|index| revision(&format!("f{index}"), "1", 1))
            .collect();
        for revision in &revisions[..3] {
            folder.cache.store(revision).unwrap();
            keep(&mut files, revision, &[7; 1000]);
        }
        files.touch("uid-f0");
        keep(&mut files, &revisions[3], &[7; 1000]);
        assert!(files.bytes() <= 4000, "{}", files.bytes());
        let names = folder.names();
        assert_eq!(names, ["uid-f0.code", "uid-f2.code", "uid-f3.code"]);
        // The next agent knows which were used.
        folder.cache.store(&revisions[3]).unwrap();
        let (mut files, _) = folder.open("s1", 4000);
        files.touch("uid-f2");
        keep(&mut files, &revisions[4], &[7; 1000]);
        let names = folder.names();
        assert_eq!(names, ["uid-f2.code", "uid-f3.code", "uid-f4.code"]);
        files.remove("uid-f4");
        assert_eq!(folder.names().len(), 2);
    }
}
