//! The files that the command line names: found, read, parsed; what does not parse keeps its last good content.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::manifest::{FileContent, MAX_FILE_BYTES, parse};

const MAX_DEPTH: usize = 16;

/// Files by path.
#[derive(Default)]
pub struct Files {
    known: BTreeMap<PathBuf, Known>,
}

struct Known {
    text: String,
    content: FileContent,
    error: Option<String>,
}

impl Files {
    /// Reads everything anew.
    pub fn read(&mut self, paths: &[PathBuf]) {
        let mut found = Vec::new();
        let mut errors = BTreeMap::new();
        for path in paths {
            if let Err(error) = find(path, 0, &mut found) {
                errors.insert(path.clone(), format!("{}: {error}", path.display()));
            }
        }
        found.sort();
        found.dedup();
        self.known.retain(|path, _| found.contains(path));
        for path in found {
            match read(&path) {
                Ok(text) => self.update(path, text),
                // It went while it was being looked for.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.known.remove(&path);
                }
                Err(error) => {
                    let error = format!("{}: {error}", path.display());
                    self.known
                        .entry(path)
                        .or_insert_with(|| Known {
                            text: String::new(),
                            content: FileContent::default(),
                            error: None,
                        })
                        .error = Some(error);
                }
            }
        }
    }

    /// What the files hold; of one that does not parse, what it held before.
    pub fn contents(&self) -> impl Iterator<Item = &FileContent> {
        self.known.values().map(|known| &known.content)
    }

    /// Why files do not parse.
    pub fn errors(&self) -> impl Iterator<Item = &str> {
        self.known
            .values()
            .filter_map(|known| known.error.as_deref())
    }

    fn update(&mut self, path: PathBuf, text: String) {
        let old = self.known.remove(&path);
        if let Some(old) = old
            .as_ref()
            .filter(|old| old.text == text && old.error.is_none())
        {
            let content = old.content.clone();
            self.known.insert(
                path,
                Known {
                    text,
                    content,
                    error: None,
                },
            );
            return;
        }
        let (content, error) = match parse(&path, &text) {
            Ok(content) => (content, None),
            Err(error) => (
                old.map(|old| old.content).unwrap_or_default(),
                Some(error.to_string()),
            ),
        };
        self.known.insert(
            path,
            Known {
                text,
                content,
                error,
            },
        );
    }
}

fn read(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > MAX_FILE_BYTES {
        return Err(io::Error::other(format!(
            "the file is larger than {} MiB",
            MAX_FILE_BYTES >> 20
        )));
    }
    fs::read_to_string(path)
}

/// Manifests under a folder; a path that is no folder, as it is.
fn find(path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        if path.exists() {
            found.push(path.to_owned());
        }
        return Ok(());
    }
    if depth > MAX_DEPTH {
        return Err(io::Error::other("folders are nested too deep"));
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let child = entry.path();
        if name.starts_with('.') || name == "node_modules" {
            continue;
        }
        let is_manifest = matches!(
            child.extension().and_then(|extension| extension.to_str()),
            Some("yaml" | "yml")
        );
        if is_manifest || child.is_dir() {
            find(&child, depth + 1, found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = "apiVersion: isolet.dev/v1alpha1\nkind: Function\nmetadata: { name: hello }\nspec: { source: { inline: x } }\n";

    fn functions(files: &Files) -> usize {
        files
            .contents()
            .map(|content| content.functions.len())
            .sum()
    }

    #[test]
    fn folders_are_searched_and_a_broken_file_keeps_what_it_held() {
        let folder = tempfile::tempdir().unwrap();
        let paths = [folder.path().to_owned()];
        let inner = folder.path().join("deep/er");
        fs::create_dir_all(&inner).unwrap();
        fs::create_dir_all(folder.path().join("node_modules")).unwrap();
        fs::create_dir_all(folder.path().join(".git")).unwrap();
        for (path, text) in [
            ("a.yaml", HELLO),
            ("deep/er/b.yml", HELLO),
            ("node_modules/c.yaml", HELLO),
            (".git/d.yaml", HELLO),
            ("values.txt", "no"),
        ] {
            fs::write(folder.path().join(path), text).unwrap();
        }
        let mut files = Files::default();
        files.read(&paths);
        assert_eq!((functions(&files), files.errors().count()), (2, 0));
        fs::write(folder.path().join("a.yaml"), "kind: [").unwrap();
        files.read(&paths);
        assert_eq!((functions(&files), files.errors().count()), (2, 1));
        fs::remove_file(folder.path().join("a.yaml")).unwrap();
        files.read(&paths);
        assert_eq!((functions(&files), files.errors().count()), (1, 0));
    }
}
