//! Reads typed values out of [`Json`] and notes every problem on the way, with its pointer.
//!
//! serde's derive stops at the first problem; an operator wants all of them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::expand::{Outside, expand};
use super::foreign::{nearest, unknown_key};
use super::json::{Json, pointer};
use super::place::Aim;
use crate::config::Problem;
use crate::protocol::credentials::names_user;

/// The context of the reading, and the problems and warnings found.
pub(crate) struct Reader<'a> {
    outside: Outside<'a>,
    problems: RefCell<Vec<(Problem, Aim)>>,
    warnings: RefCell<Vec<Problem>>,
    /// By pointer, a note that may explain why a value is useless.
    unusual: RefCell<HashMap<String, String>>,
}

/// The kind of file that a path should lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    File,
    Folder,
}

/// A string after expansion, and as it is written: a variable's value is never in a message.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    pub(crate) value: String,
    pub(crate) written: String,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(outside: Outside<'a>) -> Reader<'a> {
        let (problems, warnings) = (RefCell::default(), RefCell::default());
        Reader { outside, problems, warnings, unusual: RefCell::default() }
    }

    /// Notes the fault of a value.
    pub(crate) fn problem(&self, at: impl Into<String>, what: impl Into<String>) {
        let (at, mut what) = (at.into(), what.into());
        if let Some(unusual) = self.unusual.borrow().get(&at) {
            what = format!("{what}; {unusual}");
        }
        self.problems.borrow_mut().push((Problem::new(at, what), Aim::Value));
    }

    /// Notes a problem whose place is known.
    pub(crate) fn placed_problem(&self, problem: Problem) {
        self.problems.borrow_mut().push((problem, Aim::Value));
    }

    /// Notes the fault of a key, for any value.
    pub(crate) fn key_problem(&self, at: impl Into<String>, what: impl Into<String>) {
        self.problems.borrow_mut().push((Problem::new(at, what), Aim::Key));
    }

    /// Notes a warning for the operator, which is no error.
    pub(crate) fn warn(&self, at: impl Into<String>, what: impl Into<String>) {
        self.warnings.borrow_mut().push(Problem::new(at, what));
    }

    /// True if a variable or a file in the value there is empty, or has a line break.
    pub(crate) fn has_unusual(&self, at: &str) -> bool {
        self.unusual.borrow().contains_key(at)
    }

    /// The folder of the file, where there is one.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        self.outside.folder.map(PathBuf::from)
    }

    /// The problems, and the warnings.
    pub(crate) fn into_noted(self) -> (Vec<(Problem, Aim)>, Vec<Problem>) {
        (self.problems.into_inner(), self.warnings.into_inner())
    }

    /// A path that should exist by the time it is used; if it does not, that is a warning,
    /// because it may come.
    pub(crate) fn path_of(&self, at: &str, text: &Text, wanted: Wanted) -> PathBuf {
        let path = self.path(at, text);
        let (is_there, noun) = match wanted {
            Wanted::File => (path.is_file(), "file"),
            Wanted::Folder => (path.is_dir(), "folder"),
        };
        // A configuration that is no file may be for another machine.
        if self.outside.folder.is_some() && !is_there {
            self.warn(at, format!("there is no such {noun} at present: {}", path.display()));
        }
        path
    }

    /// A path for use: a relative one is relative to the folder of the file.
    pub(crate) fn path(&self, at: &str, text: &Text) -> PathBuf {
        if text.value == "~" || text.value.starts_with("~/") {
            self.problem(at, "\"~\" is a shell's; here it is \"${HOME}\"");
        }
        match self.outside.folder {
            // The path is without the `.` of `./x`.
            Some(folder) => folder.join(&text.value).components().collect(),
            None => PathBuf::from(&text.value),
        }
    }

    /// Notes that a value is of the wrong kind.
    pub(crate) fn wrong<T>(&self, at: &str, wanted: &str, got: &Json) -> Option<T> {
        self.problem(at, format!("must be {wanted}, not {}", got.kind()));
        None
    }

    /// A variable of the environment.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        (self.outside.environment)(name)
    }

    pub(crate) fn text(&self, at: &str, json: &Json) -> Option<Text> {
        let text = self.text_of_user(at, json)?;
        if names_user(&text.value) {
            self.problem(
                at,
                "\"${user.…}\" is known only in \"headers\" and \"env\" of a server",
            );
            return None;
        }
        Some(text)
    }

    /// As `text`, where the value may name the user who calls.
    fn text_of_user(&self, at: &str, json: &Json) -> Option<Text> {
        let Json::Text(written) = json else { return self.wrong(at, "a string", json) };
        match expand(written, self.outside) {
            Ok(expanded) => {
                if let Some(what) = expanded.unusual {
                    self.unusual.borrow_mut().insert(at.to_owned(), what);
                }
                Some(Text { value: expanded.value, written: written.clone() })
            }
            Err(what) => {
                self.problem(at, what);
                None
            }
        }
    }

    /// The fields of an object with any names; a name that stands twice is a problem.
    pub(crate) fn entries<'j>(&self, at: &str, json: &'j Json) -> Option<&'j [(String, Json)]> {
        let Json::Object(fields) = json else { return self.wrong(at, "an object", json) };
        let mut seen = std::collections::HashSet::new();
        for (name, _) in fields {
            if !seen.insert(name) {
                self.key_problem(pointer(at, name), "stands twice");
            }
        }
        Some(fields)
    }

    /// The fields of an object whose keys are known.
    pub(crate) fn fields<'r>(
        &'r self,
        at: &str,
        json: &'r Json,
        known: &'static [&'static str],
    ) -> Option<Fields<'r>> {
        let fields = self.entries(at, json)?;
        for (name, _) in fields {
            if !known.contains(&name.as_str()) {
                self.key_problem(pointer(at, name), unknown_key(name, known));
            }
        }
        Some(Fields { at: at.to_owned(), fields, known, reader: self })
    }
}

/// One object whose keys are known.
pub(crate) struct Fields<'r> {
    pub(crate) at: String,
    fields: &'r [(String, Json)],
    known: &'static [&'static str],
    pub(crate) reader: &'r Reader<'r>,
}

impl<'r> Fields<'r> {
    pub(crate) fn at(&self, key: &str) -> String {
        pointer(&self.at, key)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'r Json> {
        debug_assert!(self.known.contains(&key), "{key} is read but not in the list of keys");
        self.fields.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub(crate) fn text(&self, key: &str) -> Option<Text> {
        self.reader.text(&self.at(key), self.get(key)?)
    }

    pub(crate) fn string(&self, key: &str) -> Option<String> {
        self.text(key).map(|text| text.value)
    }

    pub(crate) fn flag(&self, key: &str, default: bool) -> bool {
        let Some(json) = self.get(key) else { return default };
        if let Json::Bool(value) = json {
            return *value;
        }
        self.reader.wrong(&self.at(key), "true or false", json).unwrap_or(default)
    }

    pub(crate) fn number(&self, key: &str, range: &RangeInclusive<u64>) -> Option<u64> {
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

    /// A value that is one of these words.
    pub(crate) fn choice<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Option<T> {
        self.choice_with_others(key, words, &[])
    }

    /// A value that is one of these words, or another program's word for one.
    pub(crate) fn choice_with_others<T: Copy>(
        &self,
        key: &str,
        words: &[(&str, T)],
        others: &[(&str, T)],
    ) -> Option<T> {
        let text = self.text(key)?;
        let mut all = words.iter().chain(others);
        let found = all.clone().find(|(word, _)| *word == text.value);
        if found.is_none() {
            let near = nearest(&text.value, all.by_ref().map(|(word, _)| *word));
            let near = near.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
            let words: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            let words = words.join(", ");
            let what = format!("must be one of {words}, not {:?}{near}", text.written);
            self.reader.problem(self.at(key), what);
        }
        found.map(|(_, value)| *value)
    }

    /// The elements of an array with their pointers.
    pub(crate) fn items(&self, key: &str) -> Option<Vec<(String, &'r Json)>> {
        let at = self.at(key);
        let json = self.get(key)?;
        let Json::Array(items) = json else {
            return self.reader.wrong(&at, "an array", json);
        };
        let place = |(index, item)| (format!("{at}/{index}"), item);
        Some(items.iter().enumerate().map(place).collect())
    }

    /// An array of strings with their pointers.
    pub(crate) fn texts(&self, key: &str) -> Option<Vec<(String, Text)>> {
        let items = self.items(key)?;
        let read = |(at, item): (String, &Json)| {
            let text = self.reader.text(&at, item)?;
            Some((at, text))
        };
        Some(items.into_iter().filter_map(read).collect())
    }

    /// An object whose values are strings, which may name the user who calls: pointer, name and
    /// value of each.
    pub(crate) fn string_map(&self, key: &str) -> Option<Vec<(String, String, String)>> {
        let at = self.at(key);
        let entries = self.reader.entries(&at, self.get(key)?)?;
        let read = |(name, value): &(String, Json)| {
            let at = pointer(&at, name);
            let text = self.reader.text_of_user(&at, value)?;
            Some((at, name.clone(), text.value))
        };
        Some(entries.iter().filter_map(read).collect())
    }

    /// An object whose keys are known.
    pub(crate) fn object(
        &self,
        key: &str,
        known: &'static [&'static str],
    ) -> Option<Fields<'r>> {
        self.reader.fields(&self.at(key), self.get(key)?, known)
    }
}
