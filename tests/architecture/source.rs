//! Reads a source file the way the architecture's rules need it: without comments, texts and
//! tests.

use std::collections::BTreeSet;
use std::path::Path;

/// One file under `src/`.
#[derive(Debug)]
pub(crate) struct Source {
    /// Relative to `src/`, with `/`.
    pub(crate) path: String,
    /// As it is.
    pub(crate) text: String,
    code: String,
    code_with_strings: String,
}

/// Whether a byte may stand in a name.
pub(crate) fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

impl Source {
    pub(crate) fn read(root: &Path, path: &Path) -> Source {
        let relative = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
        Source::new(&relative, std::fs::read_to_string(path).unwrap())
    }

    pub(crate) fn new(path: &str, text: String) -> Source {
        let (code, code_with_strings) = without_comments(&text);
        let tests = tests_in(&code);
        let cut = |text: &str| {
            let mut out = String::new();
            let mut from = 0;
            for (start, end) in &tests {
                out.push_str(&text[from..*start]);
                from = *end;
            }
            out.push_str(&text[from..]);
            out
        };
        Source {
            path: path.to_owned(),
            code: cut(&code),
            code_with_strings: cut(&code_with_strings),
            text,
        }
    }

    /// The folder under `src/`, or the name of a file that stands there itself.
    pub(crate) fn layer(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// The lines with which the file says what it is for, each without `//! `.
    pub(crate) fn header(&self) -> impl Iterator<Item = &str> {
        self.text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim_start)
    }

    /// Whether the file says that it decides on values alone.
    pub(crate) fn says_pure(&self) -> bool {
        self.text.starts_with("//! Pure: ")
    }

    /// Without comments, texts and tests.
    pub(crate) fn code(&self) -> &str {
        &self.code
    }

    /// Without comments and tests.
    pub(crate) fn code_with_strings(&self) -> &str {
        &self.code_with_strings
    }

    /// Whether the code has this word.
    pub(crate) fn names(&self, word: &str) -> bool {
        self.names_path(word, &self.code)
    }

    /// Whether `code` has this path (or the beginning of one, if it ends in `::`) as whole words.
    #[expect(clippy::unused_self, reason = "reads beside `names` where it is called")]
    pub(crate) fn names_path(&self, path: &str, code: &str) -> bool {
        let bytes = code.as_bytes();
        code.match_indices(path).any(|(at, _)| {
            let before = at.checked_sub(1).and_then(|at| bytes.get(at));
            let after = bytes.get(at + path.len());
            let free = |byte: Option<&u8>| byte.is_none_or(|byte| !is_word_byte(*byte));
            free(before) && (path.ends_with("::") || free(after))
        })
    }

    /// The modules of this crate that the code names.
    pub(crate) fn uses_of_crate(&self) -> BTreeSet<String> {
        let mut used = self.imports_of("crate");
        if self.layer() == "main" {
            used.extend(self.imports_of("trunkline"));
        }
        used
    }

    /// The first names behind `path::`, written out or in braces.
    pub(crate) fn imports_of(&self, path: &str) -> BTreeSet<String> {
        let wanted = format!("{path}::");
        let bytes = self.code.as_bytes();
        let mut found = BTreeSet::new();
        for (at, _) in self.code.match_indices(&wanted) {
            let before = at.checked_sub(1).and_then(|at| bytes.get(at));
            if before.is_some_and(|byte| is_word_byte(*byte) || *byte == b':') {
                continue;
            }
            names_behind(&self.code[at + wanted.len()..], &mut found);
        }
        found
    }

    /// Integers written in decimal, without those that count milliseconds.
    pub(crate) fn integer_literals(&self) -> Vec<u32> {
        let mut found = Vec::new();
        let bytes = self.code.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            if !bytes[at].is_ascii_digit() {
                at += 1;
                continue;
            }
            let start = at;
            while at < bytes.len() && is_word_byte(bytes[at]) {
                at += 1;
            }
            let before = &self.code[..start];
            let inside = before.bytes().last().is_some_and(|b| is_word_byte(b) || b == b'.');
            let is_time = ["from_millis(", "from_micros(", "from_secs("]
                .iter()
                .any(|call| before.ends_with(call));
            if !inside && !is_time {
                found.extend(self.code[start..at].parse::<u32>());
            }
        }
        found
    }
}

/// The first name of each path in `rest`, which follows a `::`.
fn names_behind(rest: &str, found: &mut BTreeSet<String>) {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let Some(list) = rest.strip_prefix('{') else {
        found.insert(name(rest));
        return;
    };
    let mut depth = 0;
    let mut item = String::new();
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.insert(name(&std::mem::take(&mut item)));
                continue;
            }
            _ => (),
        }
        item.push(c);
    }
    found.insert(name(&item));
    found.remove("");
}

/// The code with comments turned to blanks, once with texts blanked too and once with them. Both
/// are as long as the source.
fn without_comments(text: &str) -> (String, String) {
    let bytes = text.as_bytes();
    let (mut code, mut with_strings) = (bytes.to_owned(), bytes.to_owned());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let end = at
            + if rest.starts_with(b"//") {
                rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
            } else if rest.starts_with(b"/*") {
                block_comment(rest)
            } else if let Some(n) = string(bytes, at) {
                blank(&mut code[at..at + n]);
                at += n;
                continue;
            } else {
                at += 1;
                continue;
            };
        blank(&mut code[at..end]);
        blank(&mut with_strings[at..end]);
        at = end;
    }
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(code), text(with_strings))
}

fn blank(bytes: &mut [u8]) {
    bytes.iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The length of the text or character literal that begins at `at`, if one does.
fn string(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let in_word = at.checked_sub(1).is_some_and(|at| is_word_byte(bytes[at]));
    match rest.first()? {
        b'"' => Some(quoted(rest, b'"')),
        b'r' if !in_word || bytes[at - 1] == b'b' => raw_string(rest),
        b'\'' => {
            // A lifetime has no closing quote behind its first character.
            let is_char = rest.get(1) == Some(&b'\\')
                || std::str::from_utf8(&rest[1..rest.len().min(6)])
                    .map_or_else(|error| error.valid_up_to(), str::len)
                    .checked_sub(1)
                    .and_then(|_| char_end(rest))
                    .is_some();
            is_char.then(|| quoted(rest, b'\''))
        }
        _ => None,
    }
}

fn char_end(rest: &[u8]) -> Option<usize> {
    let width = match rest.get(1)? {
        0..0x80 => 1,
        0x80..0xe0 => 2,
        0xe0..0xf0 => 3,
        _ => 4,
    };
    (rest.get(1 + width) == Some(&b'\'')).then_some(2 + width)
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_string(rest: &[u8]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let mut end = vec![b'"'];
    end.extend(std::iter::repeat_n(b'#', hashes));
    let body = &rest[2 + hashes..];
    let length = body.windows(end.len()).position(|window| window == end)?;
    Some(2 + hashes + length + end.len())
}

/// Where modules and items under `#[cfg(test)]` begin and end.
fn tests_in(code: &str) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    for (start, _) in code.match_indices("#[cfg(test)]") {
        if found.last().is_some_and(|(_, end)| start < *end) {
            continue;
        }
        let mut depth = 0;
        let end = code[start..].char_indices().find_map(|(at, c)| {
            match c {
                '{' => depth += 1,
                '}' => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(start + at + 1);
                    }
                }
                ';' if depth == 0 => return Some(start + at + 1),
                _ => (),
            }
            None
        });
        found.push((start, end.unwrap_or(code.len())));
    }
    found
}

#[test]
fn sources_are_read_without_what_does_not_count() {
    let text = r##"//! Says `ureq`.
use crate::{limits::X, protocol::{raw, call}};
use crate::wait;
/* ureq /* nested */ still */
fn f<'a>(x: &'a str) -> char { let s = "ureq 404 \" {"; let c = '"'; let d = '\''; '{' }
const R: &str = r#"crate::upstream "quoted""#;
const N: u16 = 503; const T: Duration = Duration::from_millis(500); const S: [u8; 4] = [0x1f4, a.404, x404, 40_4];
#[cfg(test)]
mod tests { use crate::cli; fn g() { if true { x.unwrap() } } }
fn last() { std::process::Command::new("x"); }
"##;
    let source = Source::new("session/table.rs", text.to_owned());
    assert_eq!(source.layer(), "session");
    assert!(!source.names("ureq") && !source.code().contains("unwrap"));
    assert!(source.code().contains("fn last"));
    let used: Vec<String> = source.uses_of_crate().into_iter().collect();
    assert_eq!(used, ["limits", "protocol", "wait"]);
    assert!(source.code_with_strings().contains("crate::upstream"));
    assert_eq!(source.integer_literals(), [503, 4]);
    assert!(source.imports_of("std::process").contains("Command"));
    assert_eq!(Source::new("main.rs", String::new()).layer(), "main");
}
