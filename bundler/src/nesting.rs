//! Bounds what a parser may be made to do, before it sees the text.
//!
//! The parser recurses: deep nesting uses stack, and a stack that overflows ends the process. It also parses some
//! TypeScript twice (is `a < (b` a comparison or a type argument?), and such places inside one another cost time and
//! memory in proportion to text times depth, and more. Two bounds follow.
//!
//! Stack: whatever the text is, no byte of it makes the parser use more than [`STACK_PER_BYTE`], and no bracket more than
//! [`STACK_PER_BRACKET`]; a thread's stack is address space, which costs nothing until it is used. (Measured on 3,000
//! levels of 50 constructs; blocks were the largest with 3.3 KiB.)
//!
//! Work: a [`Scan`] refuses text that nests deeper than [`MAX_DEPTH`] or, in TypeScript, has more than [`MAX_WORK`]. Where
//! the scan is not sure of itself, text with many brackets is refused.

use isolet_crds::condition::reason;

use crate::invalid::{Invalid, Location};
use crate::modules::SourceKind;
use crate::scan::Scan;

/// What the author of a module reads that nests too deeply.
pub(crate) const TOO_DEEP: &str =
    "the code nests too deeply: split the expression into statements or functions";
const TOO_COMPLEX: &str = "the TypeScript module is too large for how deeply it nests: split it, or compile it to JavaScript first";
const UNCLEAR: &str = "it is unclear whether this slash divides or begins a regular expression: put the regular expression or the operand before it into parentheses";

const STACK_BASE: usize = 32 << 20;
const STACK_PER_BYTE: usize = 512;
const STACK_PER_BRACKET: usize = 4 << 10;
const MAX_STACK: usize = 4 << 30;
/// Deepest nesting of brackets.
const MAX_DEPTH: usize = 1000;
/// Largest sum, over the bytes of a TypeScript module, of the brackets around each: 1 MiB at a depth of 4, 100 KiB at 40.
/// Hostile text of that sum made the parser use 200 MiB.
const MAX_WORK: usize = 4 << 20;
/// What one token adds to that sum at most, for each bracket around it: a long text is one token.
const MAX_TOKEN_WORK: usize = 16;
/// Text with so few brackets cannot make the parser work hard, wherever they are.
const FEW_BRACKETS: usize = 500;

/// Checks a module's text; gives the stack, in bytes, on which it can be parsed.
pub(crate) fn check(path: &str, text: &str, kind: SourceKind) -> Result<usize, Invalid> {
    let at = |offset: usize, message: &str| {
        Invalid::at(
            reason::SYNTAX_ERROR,
            Location::of_offset(path, text, offset),
            message,
        )
    };
    let brackets = text
        .bytes()
        .filter(|byte| matches!(byte, b'(' | b'[' | b'{' | b'<' | b'?'))
        .count();
    let mut scan = Scan::new(text);
    let mut work = 0usize;
    let mut last = 0;
    while let Some(offset) = scan.step() {
        if scan.depth() > MAX_DEPTH {
            return Err(at(offset, TOO_DEEP));
        }
        work = work.saturating_add(scan.work() * (scan.at - last).min(MAX_TOKEN_WORK));
        last = scan.at;
        if work > MAX_WORK && kind == SourceKind::TypeScript {
            return Err(at(offset, TOO_COMPLEX));
        }
    }
    if let Some(offset) = scan.unclear.filter(|_| brackets > FEW_BRACKETS) {
        return Err(at(offset, UNCLEAR));
    }
    let stack = STACK_BASE + STACK_PER_BYTE * text.len() + STACK_PER_BRACKET * brackets;
    if stack > MAX_STACK {
        return Err(at(0, TOO_DEEP));
    }
    Ok(stack)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str, kind: SourceKind) -> String {
        check("m.ts", text, kind)
            .expect_err("should be refused")
            .message
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

    #[test]
    fn brackets_cannot_be_hidden() {
        let deep = "a<(".repeat(3000);
        for hide in [
            "if (a) /\"/; x = HERE; if (a) /\"/",
            "x = {} / '\"' / HERE + '\"'",
            "type A = (b)\n/\"/; x = HERE \"",
            "{} /`/; x = HERE /`/",
            "x = 1. /'/ + HERE + '/'",
            "// \u{2028} x = HERE",
            "x = '\\\r\n'; y = HERE",
        ] {
            let text = hide.replace("HERE", &deep);
            assert!(
                check("m.ts", &text, SourceKind::TypeScript).is_err(),
                "{hide}"
            );
        }
        // In a small module an unclear slash is no matter.
        assert!(check("m.ts", "if (a) {}\n/[\"(]/.test(b)", SourceKind::TypeScript).is_ok());
    }
}
