//! Pure: reads a text that is roughly JSON, and notes the places of its fields.

use std::ops::Range;

use super::{Field, Odd, Source};
use crate::config::file::json::pointer;

/// Levels, more than any configuration has; serde_json reads no deeper.
const DEPTH_MAX: usize = 128;
/// Keys whose strings are no secrets.
const SHOWN_KEYS: [&str; 30] = [
    "admin_listen",
    "alias",
    "allowed_hosts",
    "allowed_origins",
    "ca_file",
    "cwd",
    "description",
    "disabled",
    "format",
    "forward_headers",
    "level",
    "listen",
    "name",
    "pin",
    "prefix",
    "prefix_separator",
    "required",
    "servers",
    "session",
    "socket_group",
    "socket_mode",
    "state_dir",
    "timeout_max_ms",
    "timeout_ms",
    "tools",
    "transport",
    "trusted_proxies",
    "type",
    "$schema",
    "watch",
];
/// Keys in whose objects every string may be a secret, under any name.
const HIDING_KEYS: [&str; 5] = ["env", "headers", "http_headers", "inputs", "static_headers"];

/// Reads the text of `source`, and notes its fields, hidden strings and foreign syntax.
pub(crate) fn scan(source: Source<'_>) -> Source<'_> {
    let mut scan = Scan { source, frames: Vec::new() };
    scan.run();
    scan.source
}

/// A container that is open.
struct Frame {
    at: String,
    /// The place of its opening bracket.
    begin: usize,
    /// The key of the container.
    name: String,
    inside: Inside,
    /// True if an element has come since the last comma.
    has_item: bool,
    comma: Option<usize>,
}

enum Inside {
    Object { key: Option<(String, Range<usize>)> },
    Array { index: usize },
}

/// The state of reading a text.
struct Scan<'t> {
    source: Source<'t>,
    frames: Vec<Frame>,
}

impl Scan<'_> {
    fn run(&mut self) {
        let text = self.source.text;
        let mut at = text.len() - text.trim_start_matches('\u{feff}').len();
        while let Some(c) = text.get(at..).and_then(|rest| rest.chars().next()) {
            let end = match c {
                '{' | '[' => self.open(at, c),
                '}' | ']' => self.close(at),
                ',' => self.comma(at),
                '"' | '\'' => self.quoted(at, c),
                '/' | '#' => self.comment(at),
                ':' => at + 1,
                c if c.is_whitespace() => at + c.len_utf8(),
                _ => self.word(at),
            };
            if self.frames.len() > DEPTH_MAX {
                return;
            }
            at = end;
        }
        if let Some(Frame { begin, .. }) = self.frames.last() {
            self.source.odd.push((*begin..*begin + 1, Odd::Unclosed));
        }
    }

    /// The pointer of the value that begins now.
    fn at(&self) -> String {
        match self.frames.last() {
            None => String::new(),
            Some(Frame { at, inside: Inside::Array { index }, .. }) => format!("{at}/{index}"),
            Some(Frame { at, inside: Inside::Object { key }, .. }) => match key {
                Some((key, _)) => pointer(at, key),
                None => at.clone(),
            },
        }
    }

    fn value(&mut self, range: Range<usize>, is_container: bool) {
        if self.frames.last().is_some_and(|frame| frame.has_item) {
            let start = range.start..range.start + 1;
            self.source.odd.push((start, Odd::MissingComma));
        }
        let key = match self.frames.last_mut() {
            Some(frame) => {
                frame.has_item = true;
                frame.comma = None;
                match &frame.inside {
                    Inside::Object { key } => key.as_ref().map(|(_, range)| range.clone()),
                    Inside::Array { .. } => None,
                }
            }
            None => None,
        };
        let at = self.at();
        self.source.fields.push(Field { at, key, value: range, is_container });
    }

    fn open(&mut self, at: usize, c: char) -> usize {
        self.value(at..at + 1, true);
        let pointer = self.at();
        let name = self.key_above().to_owned();
        let inside =
            if c == '{' { Inside::Object { key: None } } else { Inside::Array { index: 0 } };
        self.frames.push(Frame {
            at: pointer,
            begin: at,
            name,
            inside,
            has_item: false,
            comma: None,
        });
        at + 1
    }

    fn close(&mut self, at: usize) -> usize {
        if let Some(Frame { comma: Some(comma), .. }) = self.frames.pop() {
            self.source.odd.push((comma..comma + 1, Odd::TrailingComma));
        }
        at + 1
    }

    fn comma(&mut self, at: usize) -> usize {
        if let Some(frame) = self.frames.last_mut() {
            frame.comma = Some(at).filter(|_| frame.has_item);
            frame.has_item = false;
            match &mut frame.inside {
                Inside::Object { key } => *key = None,
                Inside::Array { index } => *index += 1,
            }
        }
        at + 1
    }

    fn quoted(&mut self, at: usize, quote: char) -> usize {
        let text = self.source.text;
        let mut end = None;
        let mut escaped = false;
        let mut last = at + 1;
        for (offset, c) in text.get(at + 1..).unwrap_or_default().char_indices() {
            last = at + 1 + offset;
            if c == '\n' {
                break;
            }
            if c == quote && !escaped {
                end = Some(last);
                break;
            }
            escaped = c == '\\' && !escaped;
            last += c.len_utf8();
        }
        let inner = at + 1..end.unwrap_or(last);
        if end.is_none() {
            self.source.hidden.push(inner.clone());
            self.source.odd.push((at..inner.end, Odd::LineBreakInText));
            return inner.end.max(at + 1);
        }
        let whole = at..inner.end + 1;
        if quote == '\'' {
            self.source.odd.push((whole.clone(), Odd::SingleQuotes));
        }
        let is_key = text.get(whole.end..).is_some_and(|it| it.trim_start().starts_with(':'));
        if is_key && self.is_key_next() {
            self.key(whole.clone(), inner);
        } else {
            self.hide(inner);
            self.value(whole.clone(), false);
        }
        whole.end
    }

    /// True if an object waits for a key, or has a value already and lacks a comma.
    fn is_key_next(&self) -> bool {
        self.frames.last().is_some_and(|frame| match &frame.inside {
            Inside::Object { key } => key.is_none() || frame.has_item,
            Inside::Array { .. } => false,
        })
    }

    fn key(&mut self, whole: Range<usize>, inner: Range<usize>) {
        let name = self.source.text.get(inner).unwrap_or_default();
        // Pointers use the key without its escapes.
        let name = serde_json::from_str::<String>(&format!("\"{name}\""))
            .unwrap_or_else(|_| name.to_owned());
        let Some(frame) = self.frames.last_mut() else { return };
        if std::mem::take(&mut frame.has_item) {
            let start = whole.start..whole.start + 1;
            self.source.odd.push((start, Odd::MissingComma));
        }
        frame.comma = None;
        frame.inside = Inside::Object { key: Some((name, whole)) };
    }

    fn comment(&mut self, at: usize) -> usize {
        let rest = self.source.text.get(at..).unwrap_or_default();
        let (marker, length) = if rest.starts_with("/*") {
            (2, rest.find("*/").map_or(rest.len(), |end| end + 2))
        } else if rest.starts_with("//") || rest.starts_with('#') {
            let marker = if rest.starts_with('#') { 1 } else { 2 };
            (marker, rest.find('\n').unwrap_or(rest.len()))
        } else {
            return at + 1;
        };
        self.source.odd.push((at..at + length, Odd::Comment));
        self.source.hidden.push(at + marker..at + length);
        at + length
    }

    /// Passes over a number, a literal, or any other word.
    fn word(&mut self, at: usize) -> usize {
        let text = self.source.text;
        let rest = text.get(at..).unwrap_or_default();
        let ends = |c: char| c.is_whitespace() || "{}[],:\"'".contains(c);
        let end = at + rest.find(ends).unwrap_or(rest.len());
        let word = text.get(at..end).unwrap_or_default();
        let is_key = text.get(end..).is_some_and(|it| it.trim_start().starts_with(':'));
        if is_key && self.is_key_next() {
            self.source.odd.push((at..end, Odd::BareKey));
            self.key(at..end, at..end);
            return end;
        }
        let is_literal =
            matches!(word, "true" | "false" | "null" | "yes" | "no" | "on" | "off")
                || matches!(word, "True" | "False" | "None" | "undefined");
        let is_number = word.len() < 12 && word.parse::<f64>().is_ok();
        let is_harmless = is_literal || (is_number && !self.is_in_hiding_key());
        if !is_harmless {
            self.source.hidden.push(at..end);
        }
        self.value(at..end, false);
        end
    }

    /// The key of the present value, across arrays.
    fn key_above(&self) -> &str {
        match self.frames.last() {
            None => "",
            Some(Frame { name, inside: Inside::Array { .. }, .. }) => name,
            Some(Frame { inside: Inside::Object { key }, .. }) => {
                key.as_ref().map_or("", |(key, _)| key)
            }
        }
    }

    fn is_in_hiding_key(&self) -> bool {
        let hides = |name: &str| HIDING_KEYS.contains(&name) || name == "key";
        hides(self.key_above()) || self.frames.iter().any(|frame| hides(&frame.name))
    }

    /// Hides a string, unless it is no secret.
    fn hide(&mut self, inner: Range<usize>) {
        let text = self.source.text.get(inner.clone()).unwrap_or_default();
        let is_shown = !self.is_in_hiding_key() && SHOWN_KEYS.contains(&self.key_above());
        if is_shown || is_only_variables(text) {
            return;
        }
        let is_url = ["url", "endpoint", "public_url"].contains(&self.key_above());
        let keeps = if is_url { origin_bytes(text) } else { 0 };
        self.source.hidden.push(inner.start + keeps..inner.end);
    }
}

/// True if a string consists of references alone.
fn is_only_variables(text: &str) -> bool {
    let rest = text.strip_prefix("Bearer ").unwrap_or(text);
    let inner = rest.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_:/.-".contains(c);
    let variable = inner.is_some_and(|it| it.chars().all(is_name) && !it.contains(":-"));
    let foreign = rest.strip_prefix("os.environ/");
    text.is_empty() || variable || foreign.is_some_and(|it| it.chars().all(is_name))
}

/// Bytes of a URL's beginning that names no more than a server.
fn origin_bytes(url: &str) -> usize {
    let Some(scheme) = url.find("://") else { return 0 };
    let rest = url.get(scheme + 3..).unwrap_or_default();
    let host = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    if rest.get(..host).is_some_and(|host| host.contains('@')) { 0 } else { scheme + 3 + host }
}
