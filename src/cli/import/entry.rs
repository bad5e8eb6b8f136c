//! Pure: one server of the source: its keys are taken one by one, and the remaining ones were left
//! out.

use serde_json::Value;

use super::draft::{Draft, Fields, Writing, variable_name};

/// Words in the name of a header or variable that suggest a secret value.
const SECRET_WORDS: [&str; 8] =
    ["key", "token", "secret", "password", "passwd", "credential", "authorization", "cookie"];

/// A server in its source's form.
pub(super) struct Entry<'a> {
    /// The place of the server.
    pub(super) at: &'a str,
    fields: Fields,
    writing: Writing,
}

impl<'a> Entry<'a> {
    pub(super) fn new(at: &'a str, fields: &Fields, writing: Writing) -> Entry<'a> {
        Entry { at, fields: fields.clone(), writing }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.fields.contains_key(key)
    }

    /// Takes a key's value; null counts as absent.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.fields.shift_remove(key).filter(|value| !value.is_null())
    }

    pub(super) fn flag(&mut self, key: &str) -> Option<bool> {
        self.take(key)?.as_bool()
    }

    /// Takes a text in the form of `config.json`.
    pub(super) fn text(&mut self, draft: &mut Draft, key: &str) -> Option<String> {
        let text = plain_text(&self.take(key)?)?;
        Some(draft.text(&format!("{}.{key}", self.at), &text, self.writing))
    }

    /// Takes a list of texts, unchanged; one text alone is a list too.
    pub(super) fn words(&mut self, key: &str) -> Vec<String> {
        match self.take(key) {
            Some(Value::Array(words)) => words.iter().filter_map(plain_text).collect(),
            Some(word) => plain_text(&word).into_iter().collect(),
            None => Vec::new(),
        }
    }

    /// Takes a map of texts in the form of `config.json`.
    fn map(&mut self, draft: &mut Draft, key: &str) -> Fields {
        let mut strings = Fields::new();
        let map = match self.take(key) {
            Some(Value::Object(map)) => map,
            Some(Value::Null) | None => return strings,
            Some(_) => {
                let what = "left out: it is no object of names and values";
                draft.note(&format!("{}.{key}", self.at), what);
                return strings;
            }
        };
        for (name, value) in &map {
            // With null, the host removes the variable from its own environment, which is not
            // inherited here.
            let Some(text) = plain_text(value) else { continue };
            let at = format!("{}.{key}.{name}", self.at);
            warn_of_secret(draft, &at, name, &text);
            strings.insert(name.clone(), draft.text(&at, &text, self.writing).into());
        }
        strings
    }

    /// Takes a map of texts, if there is one.
    pub(super) fn strings(&mut self, draft: &mut Draft, key: &str, server: &mut Fields) {
        let strings = self.map(draft, key);
        if !strings.is_empty() {
            server.insert(key.to_owned(), strings.into());
        }
    }

    /// Takes a map of headers, which are added to those of the server; a later one replaces an
    /// earlier one with the same name in any case.
    pub(super) fn headers(&mut self, draft: &mut Draft, key: &str, server: &mut Fields) {
        for (name, value) in self.map(draft, key) {
            add_header(server, &name, value);
        }
    }

    /// Notes that the remaining keys were left out.
    pub(super) fn leave_out(
        self,
        draft: &mut Draft,
        silent: &[&str],
        instead: &[(&str, &str)],
    ) {
        for (key, value) in &self.fields {
            let is_empty = match value {
                Value::Null | Value::Bool(false) => true,
                Value::Array(items) => items.is_empty(),
                Value::Object(fields) => fields.is_empty(),
                Value::String(text) => text.is_empty(),
                Value::Bool(true) | Value::Number(_) => false,
            };
            if is_empty || silent.contains(&key.as_str()) {
                continue;
            }
            let hint = instead.iter().find(|(name, _)| name == key);
            let hint = hint.map(|(_, hint)| format!(": {hint}")).unwrap_or_default();
            draft.note(&format!("{}.{key}", self.at), &format!("left out{hint}"));
        }
    }
}

/// Adds a header, in place of one with the same name.
pub(super) fn add_header(server: &mut Fields, name: &str, value: Value) {
    let headers = server.entry("headers").or_insert_with(|| Fields::new().into());
    if let Some(headers) = headers.as_object_mut() {
        headers.retain(|other, _| !other.eq_ignore_ascii_case(name));
        headers.insert(name.to_owned(), value);
    }
}

/// A text, a number or a boolean as the text of a header or variable.
pub(super) fn plain_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Notes that a secret of the source stands in the result, which is not needed.
pub(super) fn warn_of_secret(draft: &mut Draft, at: &str, name: &str, text: &str) {
    let name = name.to_lowercase();
    let is_secret = SECRET_WORDS.iter().any(|word| name.contains(word));
    let is_reference = text.contains("${") || text.starts_with("os.environ/");
    if is_secret && !is_reference && !text.is_empty() {
        let variable = variable_name(&name);
        draft.note(
            at,
            &format!("is written out; ${{{variable}}} would keep it out of the file"),
        );
    }
}
