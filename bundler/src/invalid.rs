//! What a user reads when a Function is not valid.

use std::fmt::Write as _;

/// Longest source line shown, in characters; of a longer one, the part around the column.
const SHOWN_CHARS: usize = 120;
/// Longest message, in characters: a condition's message must stay readable.
const MESSAGE_CHARS: usize = 1000;

/// Why a Function is not valid: a reason for `Accepted=False` and a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    /// One of [`isolet_crds::condition::reason`].
    pub reason: &'static str,
    /// One line: the field or file:line:column, what is wrong, what to do.
    pub message: String,
    /// Where it is, if it is in a module.
    pub location: Option<Location>,
}

/// A place in a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Path of the module.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// The text of that line, or of the part around the column if it is long.
    pub source_line: String,
    /// Where the column is in `source_line`, in characters from 0.
    pub(crate) caret: usize,
}

impl Invalid {
    pub(crate) fn new(reason: &'static str, message: impl AsRef<str>) -> Self {
        Self {
            reason,
            message: one_line(message.as_ref()),
            location: None,
        }
    }

    pub(crate) fn at(reason: &'static str, location: Location, message: impl AsRef<str>) -> Self {
        let Location {
            file, line, column, ..
        } = &location;
        Self {
            reason,
            message: one_line(&format!("{file}:{line}:{column}: {}", message.as_ref())),
            location: Some(location),
        }
    }

    /// The message, and below it the source line with a caret under the column: for terminals.
    pub fn report(&self) -> String {
        let mut report = self.message.clone();
        if let Some(location) = &self.location {
            let number = location.line.to_string();
            let gutter = " ".repeat(number.len());
            // A tab stays a tab, so that the caret stands under its column whatever the terminal makes of it.
            let indent: String = location
                .source_line
                .chars()
                .take(location.caret)
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            let _ = write!(
                report,
                "\n {gutter} |\n {number} | {}\n {gutter} | {indent}^",
                location.source_line
            );
        }
        report
    }
}

impl Location {
    /// The place `offset` bytes into a module's text.
    pub(crate) fn of_offset(file: &str, text: &str, offset: usize) -> Self {
        let mut offset = offset.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &text[..offset];
        let start = before
            .rfind(['\n', '\r', '\u{2028}', '\u{2029}'])
            .map_or(0, |at| {
                at + before[at..].chars().next().map_or(1, char::len_utf8)
            });
        let line = 1 + line_breaks(before);
        let rest = &text[start..];
        let end = rest
            .find(['\n', '\r', '\u{2028}', '\u{2029}'])
            .unwrap_or(rest.len());
        let column = text[start..offset].chars().count();
        let (source_line, caret) = excerpt(&rest[..end], column);
        Self {
            file: file.to_owned(),
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(column + 1).unwrap_or(u32::MAX),
            source_line,
            caret,
        }
    }

    /// The place at a line and column, both from 1, as other parsers count them.
    pub(crate) fn of_line(file: &str, text: &str, line: usize, column: usize) -> Self {
        let content = text.split('\n').nth(line.saturating_sub(1)).unwrap_or("");
        let content = content.strip_suffix('\r').unwrap_or(content);
        let (source_line, caret) = excerpt(content, column.saturating_sub(1));
        Self {
            file: file.to_owned(),
            line: u32::try_from(line.max(1)).unwrap_or(u32::MAX),
            column: u32::try_from(column.max(1)).unwrap_or(u32::MAX),
            source_line,
            caret,
        }
    }
}

/// Line breaks as ECMAScript counts them: `\r\n` is one.
fn line_breaks(text: &str) -> usize {
    let mut previous = ' ';
    text.chars()
        .filter(|c| {
            let counts =
                matches!(c, '\r' | '\u{2028}' | '\u{2029}') || (*c == '\n' && previous != '\r');
            previous = *c;
            counts
        })
        .count()
}

fn excerpt(line: &str, column: usize) -> (String, usize) {
    let skip = if line.chars().nth(SHOWN_CHARS).is_some() {
        column.saturating_sub(SHOWN_CHARS / 2)
    } else {
        0
    };
    let shown = line
        .chars()
        .skip(skip)
        .take(SHOWN_CHARS)
        // Nothing that a terminal would obey.
        .map(|c| {
            if c.is_control() && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect();
    (shown, column - skip)
}

/// A message without line breaks and other control characters, of bounded length.
fn one_line(message: &str) -> String {
    let mut line: String = message
        .chars()
        .take(MESSAGE_CHARS)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if message.chars().nth(MESSAGE_CHARS).is_some() {
        line.push('…');
    }
    line
}

/// A tenant's name or path in a message: bounded.
pub(crate) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(100).collect();
    if text.chars().nth(100).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, offset: usize) -> (u32, u32, String) {
        let location = Location::of_offset("m.ts", text, offset);
        (location.line, location.column, location.source_line)
    }

    #[test]
    fn lines_and_columns_count_from_one() {
        assert_eq!(place("ab\ncd", 0), (1, 1, "ab".into()));
        assert_eq!(place("ab\ncd", 4), (2, 2, "cd".into()));
        assert_eq!(place("ab\r\ncd\r\n", 5), (2, 2, "cd".into()));
        assert_eq!(place("é\né!", 4), (2, 1, "é!".into()));
        assert_eq!(place("é\né!", 5), (2, 2, "é!".into()));
        assert_eq!(place("", 9), (1, 1, String::new()));
        assert_eq!(place("a\n", 2), (2, 1, String::new()));
        assert_eq!(place("a\u{2028}b", 4), (2, 1, "b".into()));
    }

    #[test]
    fn the_caret_stands_under_the_column() {
        let location = Location::of_offset("lib/m.ts", "a\n\tfoo(;\n", 7);
        let invalid = Invalid::at("SyntaxError", location, "Unexpected token");
        assert_eq!(invalid.to_string(), "lib/m.ts:2:6: Unexpected token");
        assert_eq!(
            invalid.report(),
            "lib/m.ts:2:6: Unexpected token\n   |\n 2 | \tfoo(;\n   | \t    ^"
        );
    }

    #[test]
    fn of_a_long_line_the_part_around_the_column_is_shown() {
        let text = format!("{}X{}", "a".repeat(5000), "b".repeat(5000));
        let location = Location::of_offset("m.js", &text, 5000);
        assert_eq!(location.column, 5001);
        assert_eq!(location.source_line.chars().nth(location.caret), Some('X'));
        assert_eq!(location.source_line.len(), SHOWN_CHARS);
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        let location = Location::of_offset("m.js", "\u{1b}[31m(", 5);
        let report = Invalid::at("SyntaxError", location, "bad \u{1b} \n text").report();
        assert!(!report.contains('\u{1b}'));
        assert_eq!(report.lines().count(), 4);
    }
}
