//! Module paths, kinds by extension, and which module is the main one.

use std::collections::BTreeMap;

use isolet_crds::bundle::{MAX_PAYLOAD_BYTES, ModuleKind};
use isolet_crds::condition::reason;

use crate::invalid::{Invalid, Location, shown};
use crate::sources::INLINE_MODULE;

/// Most modules of one Function.
pub const MAX_MODULES: usize = 512;
/// Largest JavaScript or TypeScript module, in bytes.
pub const MAX_SCRIPT_BYTES: usize = 4 << 20;
const MAX_PATH_BYTES: usize = 253;
const DEFAULT_MAIN: [&str; 4] = ["main.ts", "main.js", "main.mjs", "main.mts"];

/// What a module is before it is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceKind {
    JavaScript,
    TypeScript,
    WebAssembly,
    Json,
    Text,
}

impl SourceKind {
    /// The kind by extension; `None` for a declaration file (`.d.ts`), which has only types.
    fn of_path(path: &str) -> Result<Option<Self>, Invalid> {
        let file = path.rsplit('/').next().unwrap_or(path);
        if file.ends_with(".d.ts") || file.ends_with(".d.mts") {
            return Ok(None);
        }
        let wrong = |remedy: &str| {
            Invalid::new(
                reason::INVALID_SPEC,
                format!("module {}: {remedy}", shown(path)),
            )
        };
        match file.rsplit_once('.').map(|(_, extension)| extension) {
            Some("ts" | "mts") => Ok(Some(Self::TypeScript)),
            Some("js" | "mjs") => Ok(Some(Self::JavaScript)),
            Some("wasm") => Ok(Some(Self::WebAssembly)),
            Some("json") => Ok(Some(Self::Json)),
            Some("txt") => Ok(Some(Self::Text)),
            Some("tsx" | "jsx") => Err(wrong(
                "JSX is not supported: compile it to JavaScript first",
            )),
            Some("cts" | "cjs") => Err(wrong(
                "CommonJS is not supported: write an ECMAScript module (.ts or .js)",
            )),
            _ => Err(wrong(
                "its kind is not known: name it .ts, .mts, .js, .mjs, .wasm, .json or .txt",
            )),
        }
    }

    /// How the runtime loads it.
    pub(crate) fn module_kind(self) -> ModuleKind {
        match self {
            Self::JavaScript | Self::TypeScript => ModuleKind::JavaScript,
            Self::WebAssembly => ModuleKind::WebAssembly,
            Self::Json => ModuleKind::Json,
            Self::Text => ModuleKind::Text,
        }
    }

    pub(crate) fn is_script(self) -> bool {
        matches!(self, Self::JavaScript | Self::TypeScript)
    }
}

/// One module as the user wrote it.
#[derive(Debug)]
pub(crate) struct SourceModule {
    pub(crate) path: String,
    pub(crate) kind: SourceKind,
    pub(crate) content: Vec<u8>,
}

impl SourceModule {
    /// The content of a module that is text.
    pub(crate) fn text(&self) -> Result<&str, Invalid> {
        std::str::from_utf8(&self.content).map_err(|error| {
            let valid = &self.content[..error.valid_up_to()];
            let text = std::str::from_utf8(valid).unwrap_or_default();
            Invalid::at(
                reason::SYNTAX_ERROR,
                Location::of_offset(&self.path, text, text.len()),
                "the module is not UTF-8 text: save it as UTF-8",
            )
        })
    }
}

/// Checks number, sizes and paths, sorts by path, drops declaration files.
pub(crate) fn classify(modules: BTreeMap<String, Vec<u8>>) -> Result<Vec<SourceModule>, Invalid> {
    if modules.len() > MAX_MODULES {
        return Err(Invalid::new(
            reason::BUNDLE_TOO_LARGE,
            format!(
                "the Function has {} modules, more than {MAX_MODULES}: bundle them into fewer (for example with esbuild --bundle)",
                modules.len()
            ),
        ));
    }
    let total: usize = modules.values().map(Vec::len).sum();
    if total > MAX_PAYLOAD_BYTES {
        return Err(Invalid::new(
            reason::BUNDLE_TOO_LARGE,
            format!(
                "the modules have {total} bytes together, more than the {MAX_PAYLOAD_BYTES} that a runtime pod takes"
            ),
        ));
    }
    let mut classified = Vec::with_capacity(modules.len());
    for (path, content) in modules {
        check_path(&path)?;
        let Some(kind) = SourceKind::of_path(&path)? else {
            continue;
        };
        if kind.is_script() && content.len() > MAX_SCRIPT_BYTES {
            return Err(Invalid::new(
                reason::BUNDLE_TOO_LARGE,
                format!(
                    "module {path} has {} bytes, more than {MAX_SCRIPT_BYTES}: split it, or minify it",
                    content.len()
                ),
            ));
        }
        classified.push(SourceModule {
            path,
            kind,
            content,
        });
    }
    Ok(classified)
}

fn check_path(path: &str) -> Result<(), Invalid> {
    let wrong = |why: &str| {
        Err(Invalid::new(
            reason::INVALID_SPEC,
            format!("module path \"{}\": {why}", shown(path)),
        ))
    };
    if path.is_empty() || path.len() > MAX_PATH_BYTES {
        return wrong("a path has 1 to 253 characters");
    }
    if path.starts_with('/')
        || path
            .split('/')
            .any(|segment| matches!(segment, "" | "." | ".."))
    {
        return wrong(
            "write it relative and plain, such as lib/util.ts, without empty, . or .. parts",
        );
    }
    if !path
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._-@+/".contains(&b))
    {
        return wrong("use letters, digits and . _ - @ + / only");
    }
    Ok(())
}

/// Path of the main module: as the spec says, else the only script, else the only one of main.ts, main.js, main.mjs and
/// main.mts.
pub(crate) fn main_module(
    wanted: Option<&str>,
    inline: bool,
    modules: &[SourceModule],
) -> Result<String, Invalid> {
    let scripts: Vec<&str> = modules
        .iter()
        .filter(|module| module.kind.is_script())
        .map(|module| module.path.as_str())
        .collect();
    let missing = |message: String| Err(Invalid::new(reason::MAIN_NOT_FOUND, message));
    if let Some(wanted) = wanted {
        if scripts.contains(&wanted) {
            return Ok(wanted.to_owned());
        }
        let shown_main = shown(wanted);
        if inline {
            return missing(format!(
                "spec.main is {shown_main}, but inline code is {INLINE_MODULE}: leave spec.main out"
            ));
        }
        if modules.iter().any(|module| module.path == wanted) {
            return missing(format!(
                "spec.main is {shown_main}, which is no JavaScript or TypeScript module"
            ));
        }
        return missing(format!(
            "spec.main is {shown_main}, but there is no such module; there is {}",
            listed(&scripts)
        ));
    }
    if let [only] = scripts.as_slice() {
        return Ok((*only).to_owned());
    }
    let candidates: Vec<&str> = DEFAULT_MAIN
        .into_iter()
        .filter(|name| scripts.contains(name))
        .collect();
    match candidates.as_slice() {
        [only] => Ok((*only).to_owned()),
        [] if scripts.is_empty() => {
            missing("the Function has no JavaScript or TypeScript module: add main.ts".into())
        }
        [] => missing(format!(
            "no module is named main.ts, main.js or main.mjs: name one so, or set spec.main to one of {}",
            listed(&scripts)
        )),
        several => missing(format!(
            "{} could all be the main module: set spec.main to the one that is",
            several.join(" and ")
        )),
    }
}

fn listed(paths: &[&str]) -> String {
    match paths {
        [] => "no JavaScript or TypeScript module".into(),
        paths => {
            let shown: Vec<&str> = paths.iter().take(8).copied().collect();
            let more = paths.len() - shown.len();
            let tail = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            format!("{}{tail}", shown.join(", "))
        }
    }
}
