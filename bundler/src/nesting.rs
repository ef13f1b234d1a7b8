//! Bounds what a parser may be made to do, before it sees the text.
//!
//! The parser recurses: deep nesting uses stack, and a stack that overflows ends the process. It also parses some
//! TypeScript twice (is `a < (b` a comparison or a type argument?), and such places inside one another cost time and
//! memory in proportion to text times depth. Two bounds follow.
//!
//! Stack: whatever the text is, no byte of it makes the parser use more than [`STACK_PER_BYTE`], and no bracket more than
//! [`STACK_PER_BRACKET`]; a thread's stack is address space, which costs nothing until it is used. (Measured on 3,000
//! levels of 50 constructs; blocks were the largest with 3.3 KiB.)
//!
//! Work: a scan that knows strings, templates, comments and regular expressions, though not every case in which a slash is
//! ambiguous, refuses text that nests deeper than [`MAX_DEPTH`] or, in TypeScript, has more than [`MAX_WORK`].

use isolet_crds::condition::reason;

use crate::invalid::{Invalid, Location};
use crate::modules::SourceKind;

/// What the author of a module reads that nests too deeply.
pub(crate) const TOO_DEEP: &str =
    "the code nests too deeply: split the expression into statements or functions";
const TOO_COMPLEX: &str = "the TypeScript module is too large for how deeply it nests: split it, or compile it to JavaScript first";

const STACK_BASE: usize = 32 << 20;
const STACK_PER_BYTE: usize = 512;
const STACK_PER_BRACKET: usize = 4 << 10;
const MAX_STACK: usize = 4 << 30;
/// Deepest nesting of brackets.
const MAX_DEPTH: usize = 1000;
/// Largest sum, over the bytes of a TypeScript module, of the brackets around each: 1 MiB at a depth of 4, 100 KiB at 40.
/// Hostile text of that sum made the parser use 200 MiB.
const MAX_WORK: usize = 4 << 20;

/// Checks a module's text; gives the stack, in bytes, on which it can be parsed.
pub(crate) fn check(path: &str, text: &str, kind: SourceKind) -> Result<usize, Invalid> {
    let at = |offset: usize, message: &str| {
        Invalid::at(
            reason::SYNTAX_ERROR,
            Location::of_offset(path, text, offset),
            message,
        )
    };
    let mut scan = Scan::new(text.as_bytes());
    let mut work = 0usize;
    let mut last = 0;
    while let Some(offset) = scan.step() {
        if scan.depth() > MAX_DEPTH {
            return Err(at(offset, TOO_DEEP));
        }
        work = work.saturating_add((scan.depth() + scan.choices) * (scan.at - last));
        last = scan.at;
        if work > MAX_WORK && kind == SourceKind::TypeScript {
            return Err(at(offset, TOO_COMPLEX));
        }
    }
    let brackets = text
        .bytes()
        .filter(|byte| matches!(byte, b'(' | b'[' | b'{' | b'<'))
        .count();
    let stack = STACK_BASE + STACK_PER_BYTE * text.len() + STACK_PER_BRACKET * brackets;
    if stack > MAX_STACK {
        return Err(at(0, TOO_DEEP));
    }
    Ok(stack)
}

/// What is open at a place in the text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Bracket,
    /// Template text; a `${` in it opens [`Open::Substitution`].
    Template,
    Substitution,
}

/// A scan over JavaScript or TypeScript, one token or so a step.
struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    open: Vec<Open>,
    /// Of each open one: how many `? (` are in it since the last comma or semicolon. In `a ? (b) : c => d ? (e) : …` each
    /// holds all the rest, without a bracket around it.
    choices_in: Vec<usize>,
    /// Their sum, and those at top level.
    choices: usize,
    /// The token before was `?`.
    after_question: bool,
    /// Whether a slash here would begin a regular expression, as far as the token before it tells.
    operand_expected: bool,
}

impl<'a> Scan<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            at: 0,
            open: Vec::new(),
            choices_in: vec![0],
            choices: 0,
            after_question: false,
            operand_expected: true,
        }
    }

    fn depth(&self) -> usize {
        self.open.len()
    }

    /// Takes the next token; gives its offset, or `None` at the end.
    fn step(&mut self) -> Option<usize> {
        let start = self.at;
        let byte = *self.text.get(start)?;
        if self.open.last() == Some(&Open::Template) {
            self.template_text(byte);
            return Some(start);
        }
        self.at += 1;
        let after_question = std::mem::replace(&mut self.after_question, byte == b'?');
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => self.after_question = after_question,
            b'/' => self.slash(),
            b'"' | b'\'' => {
                self.quoted(byte);
                self.operand_expected = false;
            }
            b'`' => self.push(Open::Template),
            b'(' | b'[' | b'{' => {
                if after_question && let Some(choices) = self.choices_in.last_mut() {
                    *choices += 1;
                    self.choices += 1;
                }
                self.push(Open::Bracket);
                self.operand_expected = true;
            }
            b',' | b';' => {
                self.end_choices();
                self.operand_expected = true;
            }
            b')' | b']' | b'}' => {
                self.pop();
                // After a block a regular expression may stand, after an object a division: blocks are more common.
                self.operand_expected = byte == b'}';
            }
            byte if is_word(byte) => {
                while self.text.get(self.at).is_some_and(|byte| is_word(*byte)) {
                    self.at += 1;
                }
                self.operand_expected = precedes_operand(&self.text[start..self.at]);
            }
            _ => self.operand_expected = true,
        }
        Some(start)
    }

    fn push(&mut self, open: Open) {
        self.open.push(open);
        self.choices_in.push(0);
    }

    fn pop(&mut self) {
        if self.open.pop().is_some() {
            self.end_choices();
            self.choices_in.pop();
        }
    }

    fn end_choices(&mut self) {
        if let Some(choices) = self.choices_in.last_mut() {
            self.choices -= std::mem::take(choices);
        }
    }

    fn template_text(&mut self, byte: u8) {
        self.at += 1;
        match byte {
            b'`' => {
                self.pop();
                self.operand_expected = false;
            }
            b'\\' => self.at += 1,
            b'$' if self.text.get(self.at) == Some(&b'{') => {
                self.at += 1;
                self.push(Open::Substitution);
                self.operand_expected = true;
            }
            _ => {}
        }
    }

    fn slash(&mut self) {
        match self.text.get(self.at) {
            Some(b'/') => self.skip_until(|rest| matches!(rest[0], b'\n' | b'\r')),
            Some(b'*') => {
                self.at += 1;
                self.skip_until(|rest| rest.starts_with(b"*/"));
                self.at += 2;
            }
            _ if self.operand_expected => self.regular_expression(),
            _ => self.operand_expected = true,
        }
    }

    fn skip_until(&mut self, end: impl Fn(&[u8]) -> bool) {
        while self
            .text
            .get(self.at..)
            .is_some_and(|rest| !rest.is_empty() && !end(rest))
        {
            self.at += 1;
        }
    }

    /// To the closing quote, or the end of the line: no string goes over it.
    fn quoted(&mut self, quote: u8) {
        while let Some(byte) = self.text.get(self.at) {
            self.at += 1;
            match byte {
                b'\\' => self.at += 1,
                b'\n' => return,
                byte if *byte == quote => return,
                _ => {}
            }
        }
    }

    fn regular_expression(&mut self) {
        let mut class = false;
        while let Some(byte) = self.text.get(self.at) {
            self.at += 1;
            match byte {
                b'\\' => self.at += 1,
                b'[' => class = true,
                b']' => class = false,
                b'\n' => break,
                b'/' if !class => break,
                _ => {}
            }
        }
        self.operand_expected = false;
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}

/// Whether an operand follows this word, as after `return`.
fn precedes_operand(word: &[u8]) -> bool {
    matches!(
        word,
        b"return"
            | b"typeof"
            | b"case"
            | b"do"
            | b"else"
            | b"in"
            | b"of"
            | b"instanceof"
            | b"new"
            | b"delete"
            | b"void"
            | b"throw"
            | b"await"
            | b"yield"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth_at_end(text: &str) -> usize {
        let mut scan = Scan::new(text.as_bytes());
        while scan.step().is_some() {}
        scan.depth()
    }

    fn message(text: &str, kind: SourceKind) -> String {
        check("m.ts", text, kind)
            .expect_err("should be refused")
            .message
    }

    #[test]
    fn brackets_in_literals_and_comments_do_not_count() {
        for text in [
            "f('(', \"[\", `{`)",
            "'\\'('",
            "`${a}(`",
            "`${`${b}(`}[`",
            "// (\n/* { */",
            "x = /[/(]/.test(y)",
            "return /(/",
            "a / b / c",
            "if (a) { b() } /[(]/.test(c)",
            "x = a[0] / (b) / 2",
        ] {
            assert_eq!(depth_at_end(text), 0, "{text}");
        }
        assert_eq!(depth_at_end("f(`${g(["), 5);
        assert_eq!(depth_at_end(")))("), 1);
    }

    #[test]
    fn truncated_text_ends() {
        for text in [
            "'", "\"\\", "`\\", "`${", "/*", "/*/", "//", "/", "/\\", "/[", "a/",
        ] {
            depth_at_end(text);
        }
    }

    #[test]
    fn deep_nesting_is_refused_where_it_becomes_too_deep() {
        let text = format!("x =\n{}", "[".repeat(100_000));
        assert_eq!(
            message(&text, SourceKind::JavaScript),
            format!("m.ts:2:1001: {TOO_DEEP}")
        );
    }

    #[test]
    fn typescript_that_is_large_and_deep_is_refused() {
        let line = format!("x = {}1{};\n", "a<(".repeat(200), ")".repeat(200));
        let text = line.repeat(1000);
        assert!(message(&text, SourceKind::TypeScript).contains(TOO_COMPLEX));
        assert!(check("m.js", &text, SourceKind::JavaScript).is_ok());
        let chain = format!("x = {}1;\n", "a ? (b) : c => ".repeat(2000));
        assert!(message(&chain, SourceKind::TypeScript).contains(TOO_COMPLEX));
        let ordinary = "x = [a ? (b) : c, a?.(b), a ?? (c)];\n".repeat(20_000);
        assert!(check("m.ts", &ordinary, SourceKind::TypeScript).is_ok());
        let ordinary = "function f(a) { if (a) { g({ b: [a, (a)] }); } }\n".repeat(6000);
        assert!(check("m.ts", &ordinary, SourceKind::TypeScript).is_ok());
    }
}
