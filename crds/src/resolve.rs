//! Which module an import names: the one resolver of bundler (before anything is stored) and runtime (at load).
//!
//! A specifier is a relative path, `./` or `../`, taken from the importing module's folder. The path as written wins;
//! else, as TypeScript users write imports, a missing extension is filled in and `.js` may stand for a `.ts` file. There
//! are no packages, no URLs and no folders with an index: what is not a module of the Function is an error.

/// Extensions that a path without one may have, in order of preference.
const IMPLIED: [&str; 4] = ["ts", "mts", "js", "mjs"];
/// Longest specifier that resolves, in bytes.
const MAX_SPECIFIER_BYTES: usize = 1024;
/// Longest piece of a specifier in a message, in characters.
const MAX_QUOTED_CHARS: usize = 120;

/// Why an import names no module of the Function. The text is for its author; it does not say where the import stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// A package's name.
    #[error(
        "cannot import {specifier}: a Function has no packages. Import its own modules by a relative path such as ./util.ts, or bundle the package into a module (for example with esbuild --bundle)"
    )]
    Bare {
        /// The specifier, quoted.
        specifier: String,
    },
    /// A URL, or a scheme such as `node:`.
    #[error(
        "cannot import {specifier}: a Function imports nothing from {scheme} Add the code to its modules and import it by a relative path such as ./util.ts"
    )]
    Url {
        /// The specifier, quoted.
        specifier: String,
        /// What the scheme stands for, with a full stop.
        scheme: String,
    },
    /// A path from the root.
    #[error("cannot import {specifier}: write a path relative to {referrer}, such as {remedy}")]
    Absolute {
        /// The specifier, quoted.
        specifier: String,
        /// The importing module.
        referrer: String,
        /// A relative path to the same place.
        remedy: String,
    },
    /// A path with more `..` than the importing module has folders.
    #[error("cannot import {specifier} from {referrer}: the path leaves the Function's modules")]
    Outside {
        /// The specifier, quoted.
        specifier: String,
        /// The importing module.
        referrer: String,
    },
    /// A path to no module.
    #[error(
        "cannot import {specifier} from {referrer}: the Function has no module {tried}. Add it, or correct the path"
    )]
    NotFound {
        /// The specifier, quoted.
        specifier: String,
        /// The importing module.
        referrer: String,
        /// The paths that would do.
        tried: String,
    },
}

/// Path of the module that `specifier` names in an import of the module `referrer`. `has` says which paths are modules.
pub fn resolve(
    referrer: &str,
    specifier: &str,
    has: impl Fn(&str) -> bool,
) -> Result<String, ResolveError> {
    let quoted = || quote(specifier);
    let referrer_text = || shorten(referrer);
    if !is_relative(specifier) {
        return Err(refuse(referrer, specifier));
    }
    let path = (specifier.len() <= MAX_SPECIFIER_BYTES)
        .then(|| join(referrer, specifier))
        .flatten()
        .ok_or_else(|| ResolveError::Outside {
            specifier: quoted(),
            referrer: referrer_text(),
        })?;
    let candidates = candidates(&path);
    match candidates.iter().find(|candidate| has(candidate)) {
        Some(found) => Ok(found.clone()),
        None => Err(ResolveError::NotFound {
            specifier: quoted(),
            referrer: referrer_text(),
            tried: one_of(&candidates),
        }),
    }
}

fn is_relative(specifier: &str) -> bool {
    specifier == "."
        || specifier == ".."
        || specifier.starts_with("./")
        || specifier.starts_with("../")
}

fn refuse(referrer: &str, specifier: &str) -> ResolveError {
    let quoted = quote(specifier);
    if let Some(path) = specifier
        .strip_prefix('/')
        .filter(|rest| !rest.starts_with('/'))
    {
        let folders = referrer.matches('/').count();
        let up = if folders == 0 {
            "./".to_owned()
        } else {
            "../".repeat(folders)
        };
        return ResolveError::Absolute {
            specifier: quoted,
            referrer: shorten(referrer),
            remedy: shorten(&format!("{up}{path}")),
        };
    }
    let scheme = specifier
        .split_once(':')
        .map(|(scheme, _)| scheme)
        .filter(|scheme| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        });
    match scheme {
        None if specifier.starts_with("//") => ResolveError::Url {
            specifier: quoted,
            scheme: "the network.".into(),
        },
        None => ResolveError::Bare { specifier: quoted },
        Some("http" | "https") => ResolveError::Url {
            specifier: quoted,
            scheme: "the network.".into(),
        },
        Some("node") => ResolveError::Url {
            specifier: quoted,
            scheme: "Node.js: the Web APIs take its place.".into(),
        },
        Some(scheme) => ResolveError::Url {
            specifier: quoted,
            scheme: format!("{scheme}: addresses."),
        },
    }
}

/// The path from the root, without `.` and `..`; `None` where it leaves the root or names a folder.
fn join(referrer: &str, specifier: &str) -> Option<String> {
    let mut segments: Vec<&str> = referrer.split('/').collect();
    segments.pop();
    for segment in specifier.split('/') {
        match segment {
            "." => {}
            ".." => {
                segments.pop()?;
            }
            segment => segments.push(segment),
        }
    }
    Some(segments.join("/"))
}

/// Paths that `path` may stand for, best first.
fn candidates(path: &str) -> Vec<String> {
    let file = path.rsplit('/').next().unwrap_or(path);
    let mut candidates = Vec::with_capacity(1 + IMPLIED.len());
    if !file.is_empty() {
        candidates.push(path.to_owned());
    }
    if let Some(stem) = path.strip_suffix(".js") {
        candidates.push(format!("{stem}.ts"));
    } else if let Some(stem) = path.strip_suffix(".mjs") {
        candidates.push(format!("{stem}.mts"));
    } else if !file.is_empty() {
        // A dot does not make an extension: `./user.model` is `user.model.ts`.
        candidates.extend(
            IMPLIED
                .iter()
                .filter(|_| !has_known_extension(file))
                .map(|extension| format!("{path}.{extension}")),
        );
    }
    candidates
}

fn has_known_extension(file: &str) -> bool {
    ["ts", "mts", "js", "mjs", "json", "txt", "wasm"]
        .iter()
        .any(|known| {
            file.rsplit_once('.')
                .is_some_and(|(_, extension)| extension == *known)
        })
}

fn one_of(paths: &[String]) -> String {
    let paths: Vec<String> = paths.iter().map(|path| shorten(path)).collect();
    match paths.as_slice() {
        [] => "there".into(),
        [only] => only.clone(),
        [others @ .., last] => format!("{} or {last}", others.join(", ")),
    }
}

/// A tenant's text in quotes, on one line and of bounded length.
fn quote(text: &str) -> String {
    format!("\"{}\"", shorten(text))
}

fn shorten(text: &str) -> String {
    let mut shortened: String = text
        .chars()
        .take(MAX_QUOTED_CHARS)
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect::<Vec<_>>()
            } else {
                vec![c]
            }
        })
        .collect();
    if text.chars().nth(MAX_QUOTED_CHARS).is_some() {
        shortened.push('…');
    }
    shortened
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn among(modules: &[&str], referrer: &str, specifier: &str) -> Result<String, ResolveError> {
        resolve(referrer, specifier, |path| modules.contains(&path))
    }

    #[test]
    fn relative_paths() {
        let modules = ["main.ts", "lib/a.ts", "lib/deep/b.ts", "util.js", "m.wasm"];
        for (referrer, specifier, expected) in [
            ("main.ts", "./util.js", "util.js"),
            ("main.ts", "./lib/a.ts", "lib/a.ts"),
            ("main.ts", "././lib/./a.ts", "lib/a.ts"),
            ("main.ts", "./lib/deep/../a.ts", "lib/a.ts"),
            ("lib/a.ts", "./deep/b.ts", "lib/deep/b.ts"),
            ("lib/a.ts", "../main.ts", "main.ts"),
            ("lib/deep/b.ts", "../../m.wasm", "m.wasm"),
            ("lib/deep/b.ts", "../a.ts", "lib/a.ts"),
        ] {
            assert_eq!(
                among(&modules, referrer, specifier).as_deref(),
                Ok(expected),
                "{specifier}"
            );
        }
    }

    #[test]
    fn extensions_are_filled_in_in_order() {
        let all = ["a.ts", "a.mts", "a.js", "a.mjs"];
        for first in 0..all.len() {
            assert_eq!(
                among(&all[first..], "main.ts", "./a").as_deref(),
                Ok(all[first])
            );
        }
        assert_eq!(among(&["a", "a.ts"], "main.ts", "./a").as_deref(), Ok("a"));
        assert_eq!(
            among(&["user.model.ts"], "main.ts", "./user.model").as_deref(),
            Ok("user.model.ts")
        );
    }

    #[test]
    fn js_may_stand_for_ts() {
        assert_eq!(among(&["a.ts"], "main.ts", "./a.js").as_deref(), Ok("a.ts"));
        assert_eq!(
            among(&["a.js", "a.ts"], "main.ts", "./a.js").as_deref(),
            Ok("a.js")
        );
        assert_eq!(
            among(&["a.mts"], "main.ts", "./a.mjs").as_deref(),
            Ok("a.mts")
        );
        assert!(among(&["a.mts"], "main.ts", "./a.js").is_err());
        assert!(among(&["a.js"], "main.ts", "./a.ts").is_err());
    }

    #[test]
    fn refusals_name_the_remedy() {
        for (referrer, specifier, message) in [
            (
                "main.ts",
                "lodash",
                "cannot import \"lodash\": a Function has no packages. Import its own modules by a relative path such as ./util.ts, or bundle the package into a module (for example with esbuild --bundle)",
            ),
            (
                "main.ts",
                "https://esm.sh/x",
                "cannot import \"https://esm.sh/x\": a Function imports nothing from the network. Add the code to its modules and import it by a relative path such as ./util.ts",
            ),
            (
                "main.ts",
                "node:fs",
                "cannot import \"node:fs\": a Function imports nothing from Node.js: the Web APIs take its place. Add the code to its modules and import it by a relative path such as ./util.ts",
            ),
            (
                "lib/a.ts",
                "/util.ts",
                "cannot import \"/util.ts\": write a path relative to lib/a.ts, such as ../util.ts",
            ),
            (
                "lib/a.ts",
                "../../x.ts",
                "cannot import \"../../x.ts\" from lib/a.ts: the path leaves the Function's modules",
            ),
            (
                "main.ts",
                "./nope",
                "cannot import \"./nope\" from main.ts: the Function has no module nope, nope.ts, nope.mts, nope.js or nope.mjs. Add it, or correct the path",
            ),
            (
                "main.ts",
                "./nope.js",
                "cannot import \"./nope.js\" from main.ts: the Function has no module nope.js or nope.ts. Add it, or correct the path",
            ),
        ] {
            assert_eq!(
                among(&["main.ts"], referrer, specifier)
                    .unwrap_err()
                    .to_string(),
                message
            );
        }
    }

    #[test]
    fn what_looks_like_nothing_is_refused() {
        for specifier in [
            "",
            ".",
            "..",
            "./",
            "../",
            "#internal",
            "//host/x",
            "data:text/javascript,1",
            "@scope/x",
        ] {
            assert!(
                among(&["main.ts"], "main.ts", specifier).is_err(),
                "{specifier}"
            );
        }
        // A folder is no module, even where a predicate says so.
        assert!(resolve("a/b.ts", ".", |path| path.is_empty()).is_err());
    }

    #[test]
    fn hostile_specifiers_give_short_messages() {
        let long = format!("./{}", "x/".repeat(100_000));
        assert!(among(&[], "main.ts", &long).unwrap_err().to_string().len() < 1000);
        let bare = "y".repeat(1 << 20);
        assert!(among(&[], "main.ts", &bare).unwrap_err().to_string().len() < 1000);
        let lines = among(&[], "main.ts", "a\nb\u{1b}[31m")
            .unwrap_err()
            .to_string();
        assert!(!lines.contains(['\n', '\u{1b}']), "{lines}");
    }
}
