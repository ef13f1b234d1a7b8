//! One file: the Functions, Secrets and ConfigMaps in it. Pure: text in, objects and errors out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use isolet_crds::{Function, FunctionSpec, Source};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Larger files are no manifests.
pub const MAX_FILE_BYTES: u64 = 16 << 20;

/// An object and where it stands.
#[derive(Clone, Debug)]
pub struct Located<T> {
    /// The object; its namespace is filled in.
    pub object: T,
    /// The file.
    pub file: PathBuf,
    /// Line of its document, from 1.
    pub line: usize,
}

/// What one file holds.
#[derive(Clone, Debug, Default)]
pub struct FileContent {
    /// Functions.
    pub functions: Vec<Located<Function>>,
    /// Secrets.
    pub secrets: Vec<Located<Secret>>,
    /// ConfigMaps.
    pub config_maps: Vec<Located<ConfigMap>>,
    /// Documents of other kinds, which are skipped.
    pub notes: Vec<String>,
}

/// A file that cannot be used. The text has the place and, for terminals, the source line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FileError(pub String);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: Option<String>,
    kind: Option<String>,
}

/// Reads a file by its extension.
pub fn parse(file: &Path, text: &str) -> Result<FileContent, FileError> {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("ts" | "mts" | "js" | "mjs") => Ok(script(file, text)),
        _ => documents(file, text),
    }
}

/// A bare script is a Function named after its file.
fn script(file: &Path, text: &str) -> FileContent {
    let module = file
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let stem = file
        .file_stem()
        .map(|stem| stem.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    let name = stem
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect::<String>();
    let mut function = Function::new(
        name.trim_matches('-'),
        FunctionSpec {
            source: Source {
                modules: Some(BTreeMap::from([(module.clone(), text.to_owned())])),
                ..Default::default()
            },
            main: Some(module),
            routes: Vec::new(),
            env: Vec::new(),
            limits: Default::default(),
            egress: Default::default(),
            suspend: false,
            revision_history_limit: None,
        },
    );
    function.metadata.namespace = Some("default".into());
    FileContent {
        functions: vec![Located {
            object: function,
            file: file.to_owned(),
            line: 1,
        }],
        ..Default::default()
    }
}

fn documents(file: &Path, text: &str) -> Result<FileContent, FileError> {
    let mut content = FileContent::default();
    for (line, document) in split(text) {
        let reader = Reader {
            file,
            text,
            line,
            document,
        };
        let empty = document
            .lines()
            .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
        if empty {
            continue;
        }
        let head: Head = reader.read()?;
        match (head.api_version.as_deref(), head.kind.as_deref()) {
            (Some("isolet.dev/v1alpha1"), Some("Function")) => content.functions.push(reader.object()?),
            (Some("v1"), Some("Secret")) => content.secrets.push(reader.object()?),
            (Some("v1"), Some("ConfigMap")) => content.config_maps.push(reader.object()?),
            (Some(version), Some("Function")) if version.starts_with("isolet.dev/") => {
                return Err(reader.error(&format!(
                    "apiVersion {version} is not known to this build: write isolet.dev/v1alpha1"
                )));
            }
            (Some(version), Some(kind)) => content.notes.push(format!(
                "{}:{line}: skipped {kind} ({version}): isolet dev reads Function, Secret and ConfigMap",
                file.display()
            )),
            _ => {
                return Err(reader.error(
                    "the document has no apiVersion and kind: a Function begins with apiVersion: isolet.dev/v1alpha1 and kind: Function",
                ));
            }
        }
    }
    Ok(content)
}

struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
    line: usize,
    document: &'a str,
}

impl Reader<'_> {
    fn read<T: DeserializeOwned>(&self) -> Result<T, FileError> {
        serde_saphyr::from_str(self.document).map_err(|error| {
            let error = error.without_snippet();
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            match error.location() {
                Some(location) => {
                    let (line, column) = (location.line() as usize, location.column() as usize);
                    let place = format!("at line {line}, column {column}");
                    let message = first.replace(&format!(" {place}"), "");
                    self.error_at(self.line + line.max(1) - 1, column.max(1), &message)
                }
                None => self.error(first),
            }
        })
    }

    fn object<T>(&self) -> Result<Located<T>, FileError>
    where
        T: DeserializeOwned + kube::Resource,
    {
        let mut object: T = self.read()?;
        let metadata = object.meta_mut();
        if metadata.name.as_deref().unwrap_or_default().is_empty() {
            return Err(self.error("metadata.name is missing"));
        }
        metadata.namespace.get_or_insert_with(|| "default".into());
        Ok(Located {
            object,
            file: self.file.to_owned(),
            line: self.line,
        })
    }

    fn error(&self, message: &str) -> FileError {
        FileError(format!("{}:{}: {message}", self.file.display(), self.line))
    }

    fn error_at(&self, line: usize, column: usize, message: &str) -> FileError {
        let mut report = format!("{}:{line}:{column}: {message}", self.file.display());
        if let Some(source) = self.text.lines().nth(line - 1) {
            let number = line.to_string();
            let gutter = " ".repeat(number.len());
            let shown: String = source.chars().take(160).collect();
            let indent: String = shown
                .chars()
                .take(column - 1)
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            report.push_str(&format!(
                "\n {gutter} |\n {number} | {shown}\n {gutter} | {indent}^"
            ));
        }
        FileError(report)
    }
}

/// Documents with the line each begins on. `---` at a line's start is a marker wherever it stands, also in block scalars.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if marker {
            documents.push((start_line, &text[start..offset]));
            // What follows the marker on its line belongs to the document, if it is not a comment.
            let rest = line[3..].trim();
            if rest.is_empty() || rest.starts_with('#') {
                start = offset + line.len();
                start_line = index + 2;
            } else {
                start = offset + 3;
                start_line = index + 1;
            }
        }
        offset += line.len();
    }
    documents.push((start_line, &text[start..]));
    documents
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = "apiVersion: isolet.dev/v1alpha1\nkind: Function\nmetadata: { name: hello }\nspec:\n  source:\n    inline: |\n      export default {}\n";

    fn error(text: &str) -> String {
        parse(Path::new("a.yaml"), text).unwrap_err().to_string()
    }

    #[test]
    fn reads_all_kinds_from_one_file() {
        let text = format!(
            "# a comment\n---\n{HELLO}--- # next\napiVersion: v1\nkind: Secret\nmetadata: {{ name: s, namespace: prod }}\nstringData: {{ a: b }}\ndata: {{ k: dmFsdWU= }}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: c }}\ndata: {{ x: y }}\nbinaryData: {{ z: AAEC }}\n---\napiVersion: apps/v1\nkind: Deployment\n---\n"
        );
        let content = parse(Path::new("a.yaml"), &text).unwrap();
        let function = &content.functions[0];
        assert_eq!(
            function.object.metadata.namespace.as_deref(),
            Some("default")
        );
        assert_eq!(function.line, 3);
        let secret = &content.secrets[0].object;
        assert_eq!(secret.metadata.namespace.as_deref(), Some("prod"));
        assert_eq!(secret.data.as_ref().unwrap()["k"].0, b"value");
        assert_eq!(secret.string_data.as_ref().unwrap()["a"], "b");
        assert_eq!(
            content.config_maps[0].object.binary_data.as_ref().unwrap()["z"].0,
            [0, 1, 2]
        );
        assert_eq!(
            content.notes,
            [
                "a.yaml:23: skipped Deployment (apps/v1): isolet dev reads Function, Secret and ConfigMap"
            ]
        );
    }

    #[test]
    fn errors_have_file_line_and_column_of_the_whole_file() {
        let text = format!("{HELLO}---\n{}", HELLO.replace("source:", "sorce:"));
        let report = error(&text);
        assert!(report.starts_with("a.yaml:13:"), "{report}");
        assert!(report.contains("sorce"), "{report}");
        assert!(report.contains("\n 13 |   sorce:\n"), "{report}");
        let broken = error("apiVersion: v1\nkind: [\n");
        assert!(broken.starts_with("a.yaml:"), "{broken}");
        assert!(error("kind: Function\n").starts_with("a.yaml:1: the document has no apiVersion"));
        let other = error(&HELLO.replace("v1alpha1", "v9"));
        assert!(
            other.contains("apiVersion isolet.dev/v9 is not known"),
            "{other}"
        );
        let nameless = error(&HELLO.replace("{ name: hello }", "{}"));
        assert!(nameless.contains("metadata.name is missing"), "{nameless}");
    }

    #[test]
    fn a_script_is_a_function_named_after_it() {
        let content = parse(Path::new("x/My_Fn.ts"), "export default {}").unwrap();
        let function = &content.functions[0].object;
        assert_eq!(function.metadata.name.as_deref(), Some("my-fn"));
        assert_eq!(function.spec.main.as_deref(), Some("My_Fn.ts"));
    }

    #[test]
    fn a_marker_in_a_block_scalar_needs_column_one() {
        let text = "a: |\n  ---\n  x\n---\nb: 1";
        assert_eq!(split(text), [(1, "a: |\n  ---\n  x\n"), (5, "b: 1")]);
        assert_eq!(split("--- {a: 1}\n"), [(1, ""), (1, " {a: 1}\n")]);
        assert_eq!(split("----\n"), [(1, "----\n")]);
    }
}
