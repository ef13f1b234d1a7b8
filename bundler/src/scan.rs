//! A scan over JavaScript or TypeScript text that knows what is bracket, string, template, comment and regular expression.
//!
//! A hostile author must not be able to hide brackets from it, so a slash is the difficulty: `/"/` is a regular expression,
//! or a division and the start of a string, and only a parser knows. Where the token before the slash decides, the scan
//! follows it. Where it does not, and the two readings differ in what they make of the text behind, the place is
//! [`Scan::unclear`], and what the scan says from there on may be wrong.

/// How far the scan looks for the end of a regular expression where there may be none.
const UNCLEAR_BYTES: usize = 1024;

/// What is open at a place in the text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    /// A bracket; for a parenthesis behind `if`, `while`, `for` or `with`, a statement follows its end.
    Bracket { statement_follows: bool },
    /// Template text; a `${` in it opens a bracket.
    Template,
}

/// What the token before a place says of a slash there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// An operator or the like: the slash begins a regular expression.
    Operator,
    /// An operand: the slash divides, unless a line break and an inserted semicolon are between.
    Operand,
    /// It says nothing.
    Unknown,
}

/// The scan, one token or so a step.
pub(crate) struct Scan<'a> {
    text: &'a [u8],
    /// Where the next token begins.
    pub(crate) at: usize,
    open: Vec<Open>,
    /// Of each open one: how many `? (` are in it since the last comma or semicolon. In `a ? (b) : c => d ? (e) : …` each
    /// holds all the rest, without a bracket around it.
    choices_in: Vec<usize>,
    choices: usize,
    before: Before,
    /// A line break or comment came after the token before.
    line_break: bool,
    /// The last byte of the token before, and the word if it was one.
    last_byte: u8,
    last_word: &'a [u8],
    /// The first slash whose meaning is unclear and matters.
    pub(crate) unclear: Option<usize>,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let text = text.as_bytes();
        let mut scan = Self {
            text,
            at: 0,
            open: Vec::new(),
            choices_in: vec![0],
            choices: 0,
            before: Before::Operator,
            line_break: true,
            last_byte: b';',
            last_word: b"",
            unclear: None,
        };
        if text.starts_with(b"#!") {
            scan.skip_line();
        }
        scan
    }

    /// Open brackets and templates.
    pub(crate) fn depth(&self) -> usize {
        self.open.len()
    }

    /// Open brackets, templates and choices.
    pub(crate) fn work(&self) -> usize {
        self.open.len() + self.choices
    }

    /// Takes the next token; gives its offset, or `None` at the end.
    pub(crate) fn step(&mut self) -> Option<usize> {
        let start = self.at;
        let byte = *self.text.get(start)?;
        if self.open.last() == Some(&Open::Template) {
            self.template_text(byte);
            return Some(start);
        }
        self.at += 1;
        match byte {
            b' ' | b'\t' => return Some(start),
            b'\r' | b'\n' => {
                self.line_break = true;
                return Some(start);
            }
            b'/' if matches!(self.text.get(self.at), Some(b'/' | b'*')) => {
                self.comment();
                self.line_break = true;
                return Some(start);
            }
            b'/' => self.slash(start),
            b'"' | b'\'' => {
                self.quoted(byte);
                self.before = Before::Operand;
            }
            b'`' => self.push(Open::Template),
            b'(' | b'[' | b'{' => self.open_bracket(byte),
            b')' | b']' | b'}' => self.close_bracket(byte),
            b',' | b';' => {
                self.end_choices();
                self.before = Before::Operator;
            }
            byte if is_word(byte) => self.word(start),
            byte => self.punctuation(byte),
        }
        if !is_word(byte) {
            self.last_word = b"";
        }
        self.last_byte = self.text[self.at.min(self.text.len()) - 1];
        self.line_break = false;
        Some(start)
    }

    fn push(&mut self, open: Open) {
        self.open.push(open);
        self.choices_in.push(0);
    }

    fn pop(&mut self) -> Option<Open> {
        let open = self.open.pop()?;
        self.end_choices();
        self.choices_in.pop();
        Some(open)
    }

    fn end_choices(&mut self) {
        if let Some(choices) = self.choices_in.last_mut() {
            self.choices -= std::mem::take(choices);
        }
    }

    fn open_bracket(&mut self, byte: u8) {
        if self.last_byte == b'?'
            && let Some(choices) = self.choices_in.last_mut()
        {
            *choices += 1;
            self.choices += 1;
        }
        let statement_follows =
            byte == b'(' && matches!(self.last_word, b"if" | b"while" | b"for" | b"with");
        self.push(Open::Bracket { statement_follows });
        self.before = Before::Operator;
    }

    fn close_bracket(&mut self, byte: u8) {
        let opened = self.pop();
        self.before = match (byte, opened) {
            // Of a block or of an object.
            (b'}', _) => Before::Unknown,
            (
                _,
                Some(Open::Bracket {
                    statement_follows: true,
                }),
            ) => Before::Operator,
            _ => Before::Operand,
        };
    }

    fn template_text(&mut self, byte: u8) {
        self.at += 1;
        match byte {
            b'`' => {
                self.pop();
                self.before = Before::Operand;
                self.last_byte = b'`';
                self.last_word = b"";
            }
            b'\\' => self.at += 1,
            b'$' if self.text.get(self.at) == Some(&b'{') => {
                self.at += 1;
                self.push(Open::Bracket {
                    statement_follows: false,
                });
                self.before = Before::Operator;
                self.last_byte = b'{';
                self.last_word = b"";
            }
            _ => {}
        }
    }

    fn word(&mut self, start: usize) {
        while self.text.get(self.at).is_some_and(|byte| is_word(*byte)) {
            self.at += 1;
        }
        let word = &self.text[start..self.at];
        // After a dot any word is a name.
        let is_name = matches!(self.last_byte, b'.' | b'#');
        let of_for = word == b"await" && self.last_word == b"for";
        self.before = match word {
            _ if is_name => Before::Operand,
            b"return" | b"typeof" | b"case" | b"do" | b"else" | b"in" | b"instanceof" | b"new"
            | b"delete" | b"void" | b"throw" | b"await" | b"extends" => Before::Operator,
            // Names in some places. Text that is not ASCII may be white space.
            b"of" | b"yield" | b"async" | b"let" => Before::Unknown,
            word if !word.is_ascii() => Before::Unknown,
            _ => Before::Operand,
        };
        self.last_word = match word {
            _ if is_name => b"",
            _ if of_for => b"for",
            word => word,
        };
    }

    fn punctuation(&mut self, byte: u8) {
        let after_operand = self.before != Before::Operator && !self.line_break;
        let doubled = self.text.get(self.at) == Some(&byte);
        self.before = match byte {
            // `a!` of TypeScript, `a++`.
            b'!' if after_operand && self.text.get(self.at) != Some(&b'=') => self.before,
            b'+' | b'-' if doubled => {
                self.at += 1;
                if after_operand {
                    self.before
                } else {
                    Before::Operator
                }
            }
            // The end of type arguments or a comparison; `1.` or `...`; an escape in a name.
            b'>' if self.last_byte != b'=' => Before::Unknown,
            b'.' | b'\\' => Before::Unknown,
            _ => Before::Operator,
        };
    }

    fn comment(&mut self) {
        if self.text.get(self.at) == Some(&b'/') {
            self.skip_line();
            return;
        }
        self.at += 1;
        while self.at < self.text.len() && !self.text[self.at..].starts_with(b"*/") {
            self.at += 1;
        }
        self.at += 2;
    }

    fn skip_line(&mut self) {
        while self.at < self.text.len() && !self.at_line_break(self.at) {
            self.at += 1;
        }
    }

    /// Line feed, carriage return, U+2028 and U+2029.
    fn at_line_break(&self, at: usize) -> bool {
        matches!(
            self.text[at..],
            [b'\n' | b'\r', ..] | [0xe2, 0x80, 0xa8 | 0xa9, ..]
        )
    }

    /// To the closing quote, or the end of the line: no string goes over it, unless it is escaped.
    fn quoted(&mut self, quote: u8) {
        while let Some(byte) = self.text.get(self.at) {
            self.at += 1;
            match byte {
                b'\\' if self.text[self.at..].starts_with(b"\r\n") => self.at += 2,
                b'\\' => self.at += 1,
                b'\n' | b'\r' => return,
                byte if *byte == quote => return,
                _ => {}
            }
        }
    }

    fn slash(&mut self, start: usize) {
        match self.before {
            Before::Operand if !self.line_break => self.before = Before::Operator,
            Before::Operator => {
                // Without an end the text is no program, and the parser stops here too.
                let end = self.end_of_regular_expression(usize::MAX);
                self.at = end.map_or(self.text.len(), |end| end + 1);
                self.before = Before::Operand;
            }
            Before::Operand | Before::Unknown => self.unclear_slash(start),
        }
    }

    /// Takes it for a division, and tells where that matters.
    fn unclear_slash(&mut self, start: usize) {
        self.before = Before::Operator;
        let line = &self.text[self.at..];
        let end = self.end_of_regular_expression(UNCLEAR_BYTES);
        let readings_differ = match end {
            Some(end) => self.text[self.at..end]
                .iter()
                .any(|byte| b"\"'`()[]{}/".contains(byte)),
            // There is none on this line, or it is too far to know.
            None => line.len() > UNCLEAR_BYTES && !line[..UNCLEAR_BYTES].contains(&b'\n'),
        };
        if readings_differ {
            self.unclear.get_or_insert(start);
        }
    }

    /// Where the slash is that would end a regular expression; `None` where none ends on this line within `most` bytes.
    fn end_of_regular_expression(&self, most: usize) -> Option<usize> {
        let mut class = false;
        let mut at = self.at;
        let end = self.at.saturating_add(most).min(self.text.len());
        while at < end && !self.at_line_break(at) {
            match self.text[at] {
                b'\\' => at += 1,
                b'[' => class = true,
                b']' => class = false,
                b'/' if !class => return Some(at),
                _ => {}
            }
            at += 1;
        }
        None
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(text: &str) -> (usize, bool) {
        let mut scan = Scan::new(text);
        while scan.step().is_some() {}
        (scan.depth(), scan.unclear.is_some())
    }

    #[test]
    fn brackets_in_literals_and_comments_do_not_count() {
        for text in [
            "f('(', \"[\", `{`)",
            "'\\'('",
            "'\\\r\n(' + '\\\n('",
            "`${a}(`",
            "`${`${b}(`}[`",
            "// (\n/* { */",
            "#!/bin/(\nx",
            "x = /[/(]/.test(y)",
            "return /(/",
            "x(/\\//, '(')",
            "a / b / c",
            "if (a) /[(]/.test(b)",
            "for await (const a of b) /[(]/.test(a)",
            "(a) / '(' / b",
            "a.if(b) / '(' / c",
            "a! / '(' / b",
            "a++ / '(' / b",
            "a.of / '(' / b",
            "x = y => /[(]/",
            "x = a[0] / (b) / 2",
        ] {
            assert_eq!(end(text), (0, false), "{text}");
        }
        assert_eq!(end("f(`${g(["), (5, false));
        assert_eq!(end(")))("), (1, false));
    }

    #[test]
    fn an_unclear_slash_is_told_where_it_matters() {
        for text in [
            "{}/\"/",
            "x = {}/\"/",
            "type A = (b)\n/\"/",
            "type A = B\n/\"/",
            "of /\"/",
            "1. /\"/",
            "x as A<B> /\"/",
            "x =\u{a0}/\"/",
            "a /*\n*/ /(/",
        ] {
            assert!(end(text).1, "{text}");
        }
        for text in ["{}\n/a/.test(b)", "(a)\n / b / c", "{} / 2", "a\n/ '('"] {
            assert!(!end(text).1, "{text}");
        }
    }

    #[test]
    fn a_line_separator_ends_a_comment() {
        assert_eq!(end("// a\u{2028}("), (1, false));
        assert_eq!(end("// a\r("), (1, false));
    }

    #[test]
    fn many_slashes_on_one_line_take_no_time() {
        // Looking for the end of each would take minutes.
        for text in ["{}/[", "(a)/[", "x=/[/]/;"] {
            end(&text.repeat((1 << 18) / text.len()));
        }
    }

    #[test]
    fn truncated_text_ends() {
        for text in [
            "", "'", "\"\\", "'\\\r", "`\\", "`${", "/*", "/*/", "//", "/", "/\\", "/[", "a/",
            "a++", "#!", "é",
        ] {
            end(text);
        }
    }
}
