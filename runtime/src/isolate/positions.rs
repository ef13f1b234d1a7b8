//! From positions in the code that runs to positions in what the user wrote.
//!
//! A bundle's modules carry the `mappings` of a source map where the two differ (TypeScript). They are decoded at the first
//! error. Lines and columns count from 1, as users and V8's stacks have them.

use std::collections::HashMap;
use std::sync::OnceLock;

use isolet_crds::bundle::Bundle;

use crate::control::LoadError;
use crate::web::host::Exception;

/// Source maps of one bundle.
#[derive(Debug, Default)]
pub struct Positions {
    modules: HashMap<String, Module>,
}

#[derive(Debug)]
struct Module {
    /// Absent where the code is as the user wrote it.
    mappings: Option<String>,
    decoded: OnceLock<Vec<Segment>>,
}

/// From this position on (until the next segment), counting from 0.
#[derive(Clone, Copy, Debug)]
struct Segment {
    emitted: (u32, u32),
    written: (u32, u32),
}

impl Positions {
    /// Takes the mappings out of a bundle.
    pub fn take(bundle: &mut Bundle) -> Self {
        let modules = bundle.manifest.modules.iter_mut().map(|entry| {
            let module = Module {
                mappings: entry.mappings.take(),
                decoded: OnceLock::new(),
            };
            (entry.path.clone(), module)
        });
        Self {
            modules: modules.collect(),
        }
    }

    /// Where the user wrote what stands at this position of a module.
    pub fn remap(&self, file: &str, line: u32, column: u32) -> (u32, u32) {
        let emitted = (line.saturating_sub(1), column.saturating_sub(1));
        let Some(module) = self.modules.get(file) else {
            return (line, column);
        };
        let Some(mappings) = &module.mappings else {
            return (line, column);
        };
        let segments = module.decoded.get_or_init(|| decode(mappings));
        let after = segments.partition_point(|segment| segment.emitted <= emitted);
        match after.checked_sub(1).and_then(|at| segments.get(at)) {
            Some(segment) => (segment.written.0 + 1, segment.written.1 + 1),
            None => (line, column),
        }
    }

    /// The same stack with the user's positions; frames of other scripts stay as they are.
    pub fn remap_stack(&self, stack: &str) -> String {
        let lines: Vec<String> = stack.lines().map(|line| self.remap_frame(line)).collect();
        lines.join("\n")
    }

    /// The same exception with the user's positions.
    pub fn remap_exception(&self, mut exception: Exception) -> Exception {
        exception.stack = self.remap_stack(&exception.stack);
        if let (Some(file), Some(line), Some(column)) =
            (&exception.file, exception.line, exception.column)
        {
            let (line, column) = self.remap(file, line, column);
            exception.line = Some(line);
            exception.column = Some(column);
        }
        exception
    }

    /// An error that names a position in the code that runs, as the user shall read it.
    pub fn load_error(&self, problem: &str, at: Option<(&str, u32, u32)>) -> LoadError {
        let Some((file, line, column)) = at.filter(|(file, ..)| self.modules.contains_key(*file))
        else {
            return LoadError {
                message: problem.to_owned(),
                file: None,
                line: None,
                column: None,
            };
        };
        let (line, column) = self.remap(file, line, column);
        LoadError {
            message: format!("{file}:{line}:{column}: {problem}"),
            file: Some(file.to_owned()),
            line: Some(line),
            column: Some(column),
        }
    }

    /// `    at name (file:line:column)` or `    at file:line:column`.
    fn remap_frame(&self, frame: &str) -> String {
        let remapped = || {
            let (place, end) = match frame.strip_suffix(')') {
                Some(inside) => (inside, ")"),
                None => (frame, ""),
            };
            let (place, column) = place.rsplit_once(':')?;
            let (place, line) = place.rsplit_once(':')?;
            let start = ["(", "at async ", "at "]
                .iter()
                .find_map(|mark| place.rfind(mark).map(|at| at + mark.len()))?;
            let (before, file) = place.split_at_checked(start)?;
            self.modules.get(file)?;
            let (line, column) = self.remap(file, line.parse().ok()?, column.parse().ok()?);
            Some(format!("{before}{file}:{line}:{column}{end}"))
        };
        remapped().unwrap_or_else(|| frame.to_owned())
    }
}

fn decode(mappings: &str) -> Vec<Segment> {
    let map =
        serde_json::json!({ "version": 3, "sources": [""], "names": [], "mappings": mappings });
    let map = map.to_string();
    // The agent checked the bundle's digest, the operator wrote it: a map that does not decode only costs positions.
    let mut segments: Vec<Segment> = oxc_sourcemap::SourceMap::from_json_string(&map)
        .map(|map| {
            map.get_tokens()
                .filter(|token| token.get_source_id().is_some())
                .map(|token| Segment {
                    emitted: (token.get_dst_line(), token.get_dst_col()),
                    written: (token.get_src_line(), token.get_src_col()),
                })
                .collect()
        })
        .unwrap_or_default();
    segments.sort_by_key(|segment| segment.emitted);
    segments
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Line 1 of the code is line 3 of the source; line 2 column 3 is line 5 column 7.
    fn positions() -> Positions {
        let module = |mappings: Option<&str>| Module {
            mappings: mappings.map(str::to_owned),
            decoded: OnceLock::new(),
        };
        Positions {
            modules: [
                ("main.ts".to_owned(), module(Some("AAEA;EAEM"))),
                ("plain.js".to_owned(), module(None)),
            ]
            .into(),
        }
    }

    #[test]
    fn positions_follow_the_nearest_segment_before() {
        let positions = positions();
        assert_eq!(positions.remap("main.ts", 1, 1), (3, 1));
        assert_eq!(positions.remap("main.ts", 1, 20), (3, 1));
        assert_eq!(positions.remap("main.ts", 2, 3), (5, 7));
        assert_eq!(positions.remap("plain.js", 2, 3), (2, 3));
        assert_eq!(positions.remap("other.js", 2, 3), (2, 3));
    }

    #[test]
    fn every_form_of_frame_is_remapped() {
        let stack = "Error: at (main.ts:2:3\n    at f (main.ts:2:3)\n    at async main.ts:1:4\n    at main.ts:2:3\n    at eval (other:1:1)";
        assert_eq!(
            positions().remap_stack(stack),
            "Error: at (main.ts:5:7\n    at f (main.ts:5:7)\n    at async main.ts:3:1\n    at main.ts:5:7\n    at eval (other:1:1)"
        );
    }

    #[test]
    fn a_load_error_names_the_place_in_the_users_own_file() {
        let error = positions().load_error("SyntaxError: oops", Some(("main.ts", 2, 3)));
        assert_eq!(error.message, "main.ts:5:7: SyntaxError: oops");
        assert_eq!((error.line, error.column), (Some(5), Some(7)));
    }
}
