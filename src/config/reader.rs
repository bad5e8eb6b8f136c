//! Reads typed values out of [`Json`] and notes every problem on the way, with its pointer.
//!
//! serde's derive stops at the first problem; an operator wants all of them.

use std::cell::RefCell;
use std::ops::RangeInclusive;

use super::Problem;
use super::expand::{Environment, expand};
use super::json::Json;

/// What reading needs everywhere, and what it finds.
pub(super) struct Reader<'a> {
    environment: Environment<'a>,
    problems: RefCell<Vec<Problem>>,
}

/// A string as it is used, and as it is written: a variable's value is never in a message.
#[derive(Debug, Clone)]
pub(super) struct Text {
    pub(super) value: String,
    pub(super) written: String,
}

impl<'a> Reader<'a> {
    pub(super) fn new(environment: Environment<'a>) -> Reader<'a> {
        Reader { environment, problems: RefCell::new(Vec::new()) }
    }

    /// Notes a problem.
    pub(super) fn problem(&self, at: impl Into<String>, what: impl Into<String>) {
        self.problems.borrow_mut().push(Problem { at: at.into(), what: what.into() });
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    /// Notes that a value is of the wrong kind.
    pub(super) fn wrong<T>(&self, at: &str, wanted: &str, got: &Json) -> Option<T> {
        self.problem(at, format!("must be {wanted}, not {}", got.kind()));
        None
    }

    /// A variable of the environment.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name)
    }

    pub(super) fn text(&self, at: &str, json: &Json) -> Option<Text> {
        let Json::Text(written) = json else { return self.wrong(at, "a string", json) };
        match expand(written, self.environment) {
            Ok(value) => Some(Text { value, written: written.clone() }),
            Err(what) => {
                self.problem(at, what);
                None
            }
        }
    }

    /// The fields of an object, whatever their names; a name that stands twice is a problem.
    pub(super) fn entries<'j>(&self, at: &str, json: &'j Json) -> Option<&'j [(String, Json)]> {
        let Json::Object(fields) = json else { return self.wrong(at, "an object", json) };
        let mut seen = std::collections::HashSet::new();
        for (name, _) in fields {
            if !seen.insert(name) {
                self.problem(pointer(at, name), "stands twice");
            }
        }
        Some(fields)
    }

    /// The fields of an object whose keys are known.
    pub(super) fn fields<'r>(
        &'r self,
        at: &str,
        json: &'r Json,
        known: &'static [&'static str],
    ) -> Option<Fields<'r>> {
        let fields = self.entries(at, json)?;
        for (name, _) in fields {
            if !known.contains(&name.as_str()) {
                self.problem(pointer(at, name), unknown_key(name, known));
            }
        }
        Some(Fields { at: at.to_owned(), fields, known, reader: self })
    }
}

/// One object whose keys are known.
pub(super) struct Fields<'r> {
    pub(super) at: String,
    fields: &'r [(String, Json)],
    known: &'static [&'static str],
    pub(super) reader: &'r Reader<'r>,
}

impl<'r> Fields<'r> {
    pub(super) fn at(&self, key: &str) -> String {
        pointer(&self.at, key)
    }

    pub(super) fn get(&self, key: &str) -> Option<&'r Json> {
        debug_assert!(self.known.contains(&key), "{key} is read but not in the list of keys");
        self.fields.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn text(&self, key: &str) -> Option<Text> {
        self.reader.text(&self.at(key), self.get(key)?)
    }

    pub(super) fn string(&self, key: &str) -> Option<String> {
        self.text(key).map(|text| text.value)
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> bool {
        let Some(json) = self.get(key) else { return default };
        if let Json::Bool(value) = json {
            return *value;
        }
        self.reader.wrong(&self.at(key), "true or false", json).unwrap_or(default)
    }

    pub(super) fn number(&self, key: &str, range: &RangeInclusive<u64>) -> Option<u64> {
        let json = self.get(key)?;
        let (least, most) = (range.start(), range.end());
        let Json::Whole(number) = json else {
            let wanted = format!("a whole number between {least} and {most}");
            return self.reader.wrong(&self.at(key), &wanted, json);
        };
        if !range.contains(number) {
            let what = format!("must be between {least} and {most}, not {number}");
            self.reader.problem(self.at(key), what);
            return None;
        }
        Some(*number)
    }

    /// One of some words.
    pub(super) fn choice<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let found = words.iter().find(|(word, _)| *word == text.value);
        if found.is_none() {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            let what = format!("must be one of {}, not {:?}", words.join(", "), text.written);
            self.reader.problem(self.at(key), what);
        }
        found.map(|(_, value)| *value)
    }

    /// The elements of an array with their pointers.
    pub(super) fn items(&self, key: &str) -> Option<Vec<(String, &'r Json)>> {
        let at = self.at(key);
        let json = self.get(key)?;
        let Json::Array(items) = json else {
            return self.reader.wrong(&at, "an array", json);
        };
        let place = |(index, item)| (format!("{at}/{index}"), item);
        Some(items.iter().enumerate().map(place).collect())
    }

    /// An array of strings with their pointers.
    pub(super) fn texts(&self, key: &str) -> Option<Vec<(String, Text)>> {
        let items = self.items(key)?;
        let read = |(at, item): (String, &Json)| {
            let text = self.reader.text(&at, item)?;
            Some((at, text))
        };
        Some(items.into_iter().filter_map(read).collect())
    }

    /// An object whose values are strings: pointer, name and value of each.
    pub(super) fn string_map(&self, key: &str) -> Option<Vec<(String, String, String)>> {
        let at = self.at(key);
        let entries = self.reader.entries(&at, self.get(key)?)?;
        let read = |(name, value): &(String, Json)| {
            let at = pointer(&at, name);
            let text = self.reader.text(&at, value)?;
            Some((at, name.clone(), text.value))
        };
        Some(entries.iter().filter_map(read).collect())
    }

    /// An object whose keys are known.
    pub(super) fn object(
        &self,
        key: &str,
        known: &'static [&'static str],
    ) -> Option<Fields<'r>> {
        self.reader.fields(&self.at(key), self.get(key)?, known)
    }
}

/// A pointer one level further down (RFC 6901).
pub(super) fn pointer(at: &str, key: &str) -> String {
    format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"))
}

fn unknown_key(name: &str, known: &[&str]) -> String {
    // `timeoutMs`, `max-sessions` and the like are the usual slips.
    let plain = |text: &str| text.replace(['_', '-'], "").to_lowercase();
    let near = known.iter().find(|key| plain(key) == plain(name));
    // What other programs' files call it.
    let near = near.copied().or(match name {
        "type" if known.contains(&"transport") => Some("transport"),
        _ => None,
    });
    match near {
        Some(near) => format!("unknown key; did you mean {near:?}?"),
        None => "unknown key".to_owned(),
    }
}
