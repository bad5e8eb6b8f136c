//! Pure: the configuration that an import makes, with notes: on parts that were left out, and on
//! variables to set.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value};

use crate::protocol::server_name::ServerName;

/// Fields of an object of the source, or of the result.
pub(super) type Fields = Map<String, Value>;

/// The folder in which the gateway keeps sign-ins, beside the configuration.
const STATE_DIR: &str = "state";

/// A configuration in the making.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) servers: Fields,
    pub(super) keys: Vec<Value>,
    /// The names of the servers and their aliases, in lower case: all must differ.
    names: HashSet<String>,
    notes: Vec<String>,
    /// The variables to which the result refers, and their descriptions.
    variables: BTreeMap<String, Option<String>>,
}

/// The form of variables in a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writing {
    /// `${NAME}`, `${env:NAME}`, `${input:ID}`: hosts.
    Host,
    /// `os.environ/NAME`, as a whole.
    Litellm,
    /// The source has none: every dollar is a dollar.
    None,
}

/// A name, with a number behind it if it is taken.
fn numbered(wanted: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let further = (2..).map(|n| format!("{wanted}_{n}"));
    let mut names = std::iter::once(wanted.to_owned()).chain(further);
    names.find(|name| !is_taken(name)).unwrap_or_default()
}

impl Draft {
    /// Notes something about a place in the source. No value is ever named: it may be secret.
    pub(super) fn note(&mut self, at: &str, what: &str) {
        self.notes.push(format!("{at}: {what}"));
    }

    /// A valid server name like `wanted`.
    pub(super) fn name(&mut self, at: &str, wanted: &str) -> String {
        let like = ServerName::like(wanted).map_or("server".to_owned(), |it| it.to_string());
        let name = numbered(&like, |name| self.names.contains(&name.to_lowercase()));
        self.names.insert(name.to_lowercase());
        if name != wanted {
            self.note(at, &format!("is called \"{name}\" here"));
        }
        name
    }

    /// True if an alias can be used: it must be a name, and differ from all others.
    pub(super) fn takes_alias(&mut self, alias: &str) -> bool {
        ServerName::parse(alias).is_some() && self.names.insert(alias.to_lowercase())
    }

    /// A name for a key that no other has.
    pub(super) fn key_name(&self, wanted: &str) -> String {
        numbered(wanted, |name| self.keys.iter().any(|key| key["name"] == *name))
    }

    /// A name for a variable that is not used yet.
    pub(super) fn new_variable(&self, wanted: &str) -> String {
        numbered(wanted, |name| self.variables.contains_key(name))
    }

    /// A reference to a variable of the environment, which the notes will name.
    pub(super) fn variable(&mut self, name: &str, about: Option<&str>) -> String {
        let known = self.variables.entry(name.to_owned()).or_default();
        if known.is_none() {
            *known = about.map(str::to_owned);
        }
        format!("${{{name}}}")
    }

    /// A text of the source in the form of `config.json`.
    pub(super) fn text(&mut self, at: &str, text: &str, writing: Writing) -> String {
        match writing {
            Writing::None => escaped(text),
            Writing::Litellm => match text.strip_prefix("os.environ/") {
                Some(name) if is_variable(name) => self.variable(name, None),
                Some(name) => self.variable(&variable_name(name), None),
                None => escaped(text),
            },
            Writing::Host => self.host_text(at, text),
        }
    }

    fn host_text(&mut self, at: &str, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            out.push_str(&escaped(before));
            let Some((inside, after)) = after.split_once('}') else {
                out.push_str("$${");
                rest = after;
                continue;
            };
            out.push_str(&self.reference(at, inside));
            rest = after;
        }
        out.push_str(&escaped(rest));
        out
    }

    /// The value for the text between `${` and `}` in a host's file.
    fn reference(&mut self, at: &str, inside: &str) -> String {
        match inside {
            "userHome" => return "${HOME}".to_owned(),
            "/" | "pathSeparator" => return "/".to_owned(),
            _ => (),
        }
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        if is_variable(name) && !name.starts_with("workspaceFolder") {
            return match default {
                Some(default) => format!("${{{name}:-{default}}}"),
                None => self.variable(name, None),
            };
        }
        match inside.split_once(':') {
            Some(("env", name)) if is_variable(name) => self.variable(name, None),
            Some(("input", id)) => self.variable(&variable_name(id), None),
            Some(("file", _)) => format!("${{{inside}}}"),
            _ => {
                let name = variable_name(inside);
                self.note(at, &format!("${{{inside}}} is the host's: here it is ${{{name}}}"));
                self.variable(&name, Some("what the host puts there"))
            }
        }
    }

    /// The result, and the notes on it.
    pub(super) fn finish(self) -> (Value, Vec<String>) {
        let Draft { servers, keys, mut notes, variables, .. } = self;
        let mut config = Fields::new();
        if !keys.is_empty() {
            config.insert("api_keys".to_owned(), keys.into());
        }
        if servers.values().any(|server| server.get("oauth").is_some()) {
            config.insert("state_dir".to_owned(), STATE_DIR.into());
            notes.push(format!(
                "\"state_dir\": {STATE_DIR:?} is where sign-ins are kept; \"trunkline login\" with a \
                 server's name signs in"
            ));
        }
        config.insert("mcp_servers".to_owned(), servers.into());
        for (name, about) in variables {
            let about = about.map(|about| format!(" ({about})")).unwrap_or_default();
            notes.push(format!("${{{name}}} is to be set in the gateway's environment{about}"));
        }
        (config.into(), notes)
    }
}

/// A text whose dollars begin no variable.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        out.push(c);
        if c == '$' && matches!(chars.peek(), Some('$' | '{') | None) {
            out.push('$');
        }
    }
    out
}

fn is_variable(name: &str) -> bool {
    let ok = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(ok)
}

/// The name of a variable for a text: a text that is no such name is written in capitals.
pub(super) fn variable_name(text: &str) -> String {
    if is_variable(text) && text.chars().all(|c| !c.is_ascii_lowercase()) {
        return text.to_owned();
    }
    let mut name = String::with_capacity(text.len() + 1);
    let mut was_lower = false;
    for c in text.chars() {
        if c.is_ascii_uppercase() && was_lower {
            name.push('_');
        }
        was_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        name.push(if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    }
    if !is_variable(&name) {
        name.insert(0, '_');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, writing: Writing, expected: &str, variables: &[&str]) {
        let mut draft = Draft::default();
        assert_eq!(draft.text("at", text, writing), expected);
        assert_eq!(draft.variables.keys().collect::<Vec<_>>(), variables, "{text}");
    }

    #[test]
    fn variables_become_those_of_the_environment() {
        use Writing::{Host, Litellm};
        check("Bearer ${TOKEN}", Host, "Bearer ${TOKEN}", &["TOKEN"]);
        check("${env:TOKEN}/${userHome}", Host, "${TOKEN}/${HOME}", &["TOKEN"]);
        check("${input:api-key}", Host, "${API_KEY}", &["API_KEY"]);
        check("${input:githubToken}", Host, "${GITHUB_TOKEN}", &["GITHUB_TOKEN"]);
        check("${PORT:-80}${/}", Host, "${PORT:-80}/", &[]);
        check("${file:/run/secrets/x}", Host, "${file:/run/secrets/x}", &[]);
        check("${workspaceFolder}/x", Host, "${WORKSPACE_FOLDER}/x", &["WORKSPACE_FOLDER"]);
        check("os.environ/TOKEN", Litellm, "${TOKEN}", &["TOKEN"]);
        check("Bearer os.environ/TOKEN", Litellm, "Bearer os.environ/TOKEN", &[]);
    }

    #[test]
    fn other_dollars_stay_dollars() {
        use Writing::{Host, Litellm, None};
        check("pa$word", Host, "pa$word", &[]);
        check("a$$b$", Host, "a$$$b$$", &[]);
        check("${open", Host, "$${open", &[]);
        check("${A}", Litellm, "$${A}", &[]);
        check("${A}", None, "$${A}", &[]);
    }

    #[test]
    fn names_are_good_and_differ() {
        let mut draft = Draft::default();
        assert_eq!(draft.name("at", "github"), "github");
        assert!(draft.notes.is_empty());
        assert_eq!(draft.name("at", "My Server"), "My_Server");
        assert_eq!(draft.name("at", "GitHub"), "GitHub_2");
        assert_eq!(draft.name("at", "sse"), "sse_");
        assert_eq!(draft.name("at", "日本"), "server");
        assert_eq!(draft.notes.len(), 4);
    }
}
