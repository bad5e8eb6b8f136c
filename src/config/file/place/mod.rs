//! Pure: the place in the file's text to which a pointer leads, and its line for people, without
//! strings that may be secrets.
//!
//! The reader of this file takes any text, which is often no JSON.

mod scan;
#[cfg(test)]
mod tests;

use std::ops::Range;

/// Characters of a line that are shown.
const SHOWN_CHARS_MAX: usize = 96;
/// Characters before the place in a line that is cut.
const SHOWN_CHARS_BEFORE: usize = 40;

/// A place in the file, and its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The line, or the part of it around the place, without possible secrets.
    pub shown: String,
    /// The number of characters of `shown` before the place.
    pub before: usize,
    /// The number of characters of `shown` that are the place.
    pub width: usize,
}

/// The part of a field that is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    Key,
    Value,
}

/// Syntax of other formats that JSON does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Odd {
    Comment,
    TrailingComma,
    SingleQuotes,
    BareKey,
    LineBreakInText,
    MissingComma,
    Unclosed,
}

impl Odd {
    /// A sentence about it without its full stop.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Comment => {
                "is a comment, and JSON has none: take it out (\"description\" is for people)"
            }
            Self::TrailingComma => "is a comma before a closing bracket: take it out",
            Self::SingleQuotes => "strings and keys of JSON stand in double quotes",
            Self::BareKey => "keys of JSON stand in double quotes",
            Self::LineBreakInText => "the string has no closing quote on its line",
            Self::MissingComma => "there is a comma missing before this",
            Self::Unclosed => "this bracket is never closed",
        }
    }

    /// True if the rest can be read as if the syntax were not there.
    pub(crate) fn can_be_left_out(self) -> bool {
        match self {
            Self::Comment | Self::TrailingComma => true,
            Self::SingleQuotes
            | Self::BareKey
            | Self::LineBreakInText
            | Self::MissingComma
            | Self::Unclosed => false,
        }
    }
}

/// A text, with the places of all its fields.
#[derive(Debug)]
pub(crate) struct Source<'t> {
    text: &'t str,
    fields: Vec<Field>,
    /// Ranges of bytes that are not shown.
    hidden: Vec<Range<usize>>,
    /// Foreign syntax, in the order of the text.
    pub(crate) odd: Vec<(Range<usize>, Odd)>,
}

#[derive(Debug)]
struct Field {
    at: String,
    key: Option<Range<usize>>,
    value: Range<usize>,
    is_container: bool,
}

impl<'t> Source<'t> {
    pub(crate) fn new(text: &'t str) -> Source<'t> {
        scan::scan(Source { text, fields: Vec::new(), hidden: Vec::new(), odd: Vec::new() })
    }

    /// The text with comments and trailing commas blanked out: every other byte keeps its place.
    pub(crate) fn without_odd(&self) -> String {
        let mut bytes = self.text.as_bytes().to_vec();
        for (range, odd) in &self.odd {
            let Some(range) = bytes.get_mut(range.clone()).filter(|_| odd.can_be_left_out())
            else {
                continue;
            };
            // A line break stays, so that lines keep their numbers.
            for byte in range.iter_mut().filter(|byte| **byte != b'\n') {
                *byte = b' ';
            }
        }
        // Comments begin and end between characters.
        String::from_utf8(bytes).unwrap_or_default()
    }

    /// A value as it is written, if it exists.
    pub(crate) fn value(&self, at: &str) -> Option<&'t str> {
        let field = self.fields.iter().find(|field| field.at == at)?;
        self.text.get(field.value.clone())
    }

    /// The place to which a pointer leads, or else of the closest value around it.
    pub(crate) fn find(&self, at: &str, aim: Aim) -> Option<Place> {
        let mut at = at;
        loop {
            let mut all = self.fields.iter().filter(|field| field.at == at);
            // A key that stands twice is shown where it stands again.
            let field = match aim {
                Aim::Key => all.next_back(),
                Aim::Value => all.next(),
            };
            if let Some(field) = field {
                let by_key = aim == Aim::Key || field.is_container;
                let key = field.key.clone().filter(|_| by_key);
                return Some(self.place(key.unwrap_or_else(|| field.value.clone())));
            }
            at = at.rsplit_once('/')?.0;
            if at.is_empty() {
                return None;
            }
        }
    }

    /// The byte at which serde_json stopped, which counts columns in bytes.
    pub(crate) fn offset(&self, line: usize, column: usize) -> usize {
        let lines = self.text.split_inclusive('\n').take(line.saturating_sub(1));
        let before: usize = lines.map(str::len).sum();
        let mut at = (before + column.saturating_sub(1)).min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }

    pub(crate) fn place(&self, range: Range<usize>) -> Place {
        let start = range.start.min(self.text.len());
        let before = self.text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let rest = self.text.get(line_start..).unwrap_or_default();
        let line_end = line_start + rest.find('\n').unwrap_or(rest.len());
        let mut shown: Vec<char> = Vec::new();
        let (mut from, mut to, mut was_hidden) = (None, None, false);
        for (offset, c) in
            self.text.get(line_start..line_end).unwrap_or_default().char_indices()
        {
            let at = line_start + offset;
            if at >= start {
                from.get_or_insert(shown.len());
            }
            if at >= range.end {
                to.get_or_insert(shown.len());
            }
            let is_hidden = self.hidden.iter().any(|it| it.contains(&at));
            if !is_hidden {
                shown.push(if c == '\t' || c == '\r' { ' ' } else { visible(c) });
            } else if !was_hidden {
                shown.push('…');
            }
            was_hidden = is_hidden;
        }
        let n_shown = shown.len();
        let from = from.unwrap_or(n_shown);
        let to = to.unwrap_or(n_shown).max(from + 1);
        let (cut, n_before) = window(&shown, from);
        Place {
            line: before.matches('\n').count() + 1,
            column: self.text.get(line_start..start).unwrap_or_default().chars().count() + 1,
            width: (to - from).min(cut.chars().count().saturating_sub(n_before)).max(1),
            shown: cut,
            before: n_before,
        }
    }
}

/// Replaces invisible characters, and those that turn the direction of a line: they could choose
/// what is shown.
fn visible(c: char) -> char {
    let turns = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    if c.is_control() || turns { '?' } else { c }
}

/// The part of a line that is shown, and the number of its characters before the place.
fn window(line: &[char], from: usize) -> (String, usize) {
    if line.len() <= SHOWN_CHARS_MAX {
        return (line.iter().collect::<String>().trim_end().to_owned(), from);
    }
    let begin = from.saturating_sub(SHOWN_CHARS_BEFORE);
    let mut text: String = line.iter().skip(begin).take(SHOWN_CHARS_MAX).collect();
    let mut before = from - begin;
    if begin > 0 {
        text.insert(0, '…');
        before += 1;
    }
    if begin + SHOWN_CHARS_MAX < line.len() {
        text.push('…');
    }
    (text, before)
}
