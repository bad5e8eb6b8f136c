//! Expands references in strings: `${NAME}` and `${NAME:-default}` to variables of the
//! environment, `${file:/path}` to the content of a file (the path may name variables), and `$$`
//! to a dollar.

use std::io::Read;
use std::path::Path;

use crate::limits::SECRET_FILE_BYTES_MAX;
use crate::protocol::credentials::{names_user, user_reference};

/// The fault of a text that could be taken for a reference to the user.
const MARKED: &str = "must not hold the character U+10FFFF";

/// Returns the value of a variable of the environment. Tests supply their own.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The sources of values outside the file itself.
#[derive(Clone, Copy)]
pub(crate) struct Outside<'a> {
    pub(crate) environment: Environment<'a>,
    /// The folder for relative paths; without one, files cannot be read.
    pub(crate) folder: Option<&'a Path>,
}

/// A string after its expansion.
#[derive(Debug, PartialEq)]
pub(crate) struct Expanded {
    pub(crate) value: String,
    /// A note that a variable or file was empty or has a line break, which may be why the value
    /// is useless.
    pub(crate) unusual: Option<String>,
}

/// Expands the variables and files in `text`. `${user.name}` and `${user.claims.X}`, which are
/// known only where a user calls, become what [`crate::protocol::credentials::UserText`] reads. A dollar before any other character stays as it is.
/// As in a shell, `:-` also replaces an empty variable.
///
/// # Errors
/// The fault, in words that hold no variable's value.
pub(crate) fn expand(text: &str, outside: Outside<'_>) -> Result<Expanded, String> {
    if let Some(what) = litellm(text) {
        return Err(what);
    }
    if names_user(text) {
        return Err(MARKED.to_owned());
    }
    let mut value = String::with_capacity(text.len());
    let mut unusual = None;
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        value.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            value.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let (inside, after) =
                closed(after).ok_or("\"${\" has no \"}\" (\"$$\" is a dollar)")?;
            if let Some(reference) = user_reference(inside) {
                value.push_str(&reference?);
                rest = after;
                continue;
            }
            let (name, content) = match inside.strip_prefix("file:") {
                Some(path) => {
                    let path = file_path(path, outside.environment)?;
                    (format!("the file {path}"), file(&path, outside.folder)?)
                }
                None => {
                    let name = inside.split(":-").next().unwrap_or_default();
                    let content = variable(inside, outside.environment)?;
                    (format!("the environment variable {name}"), content)
                }
            };
            if content.trim().is_empty() && !inside.contains(":-") {
                unusual = Some(format!("{name} is empty"));
            } else if content.contains(['\n', '\r']) {
                unusual = Some(format!("{name} has a line break"));
            }
            if names_user(&content) {
                return Err(MARKED.to_owned());
            }
            value.push_str(&content);
            rest = after;
        } else {
            value.push('$');
            rest = after;
        }
    }
    value.push_str(rest);
    Ok(Expanded { value, unusual })
}

/// The text before the closing brace, and the text after it. The path of a file may name
/// variables, in braces of their own.
fn closed(text: &str) -> Option<(&str, &str)> {
    let mut from = 0;
    if text.starts_with("file:") {
        while let (Some(open), Some(close)) =
            (text.get(from..)?.find("${"), text.get(from..)?.find('}'))
            && open < close
        {
            from += close + 1;
        }
    }
    let end = from + text.get(from..)?.find('}')?;
    Some((text.get(..end)?, text.get(end + 1..)?))
}

/// The path of a file, with its variables expanded: service managers name the folder of
/// credentials by a variable.
fn file_path(text: &str, environment: Environment<'_>) -> Result<String, String> {
    let mut path = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (inside, after) =
            after.split_once('}').ok_or("\"${\" has no \"}\" (\"$$\" is a dollar)")?;
        path.push_str(before);
        path.push_str(&variable(inside, environment)?);
        rest = after;
    }
    path.push_str(rest);
    Ok(path)
}

/// The fault of LiteLLM's `os.environ/NAME`, which would be taken literally: a string that
/// everybody knows.
fn litellm(text: &str) -> Option<String> {
    let name = text.split(' ').find_map(|word| word.strip_prefix("os.environ/"))?;
    let name = if is_name(name) { name } else { "NAME" };
    Some(format!(
        "\"os.environ/…\" is LiteLLM's way to name a variable; here it is \"${{{name}}}\""
    ))
}

fn is_name(name: &str) -> bool {
    let ok = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(ok)
}

fn variable(inside: &str, environment: Environment<'_>) -> Result<String, String> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    if !is_name(name) {
        return Err(no_name(name));
    }
    match (environment(name), default) {
        (Some(value), _) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (Some(empty), None) => Ok(empty),
        (None, None) => Err(format!("the environment variable {name} is not set")),
    }
}

/// The fault of a name that is none; editors have forms of their own.
fn no_name(inside: &str) -> String {
    if let Some(name) = inside.strip_prefix("env:").filter(|name| is_name(name)) {
        return format!("\"${{env:{name}}}\" is \"${{{name}}}\" here");
    }
    if inside.starts_with("input:") {
        return "nobody is asked for input: put it into the environment, and write \"${NAME}\""
            .to_owned();
    }
    "\"${…}\" does not hold the name of a variable (\"$$\" is a dollar)".to_owned()
}

/// The content of a file, without its last line break.
fn file(path: &str, folder: Option<&Path>) -> Result<String, String> {
    let Some(folder) = folder else {
        return Err("\"${file:…}\" is only read in a configuration that is a file".to_owned());
    };
    if path.is_empty() {
        return Err("\"${file:…}\" does not hold a path".to_owned());
    }
    let cannot =
        |what: &dyn std::fmt::Display| format!("the file {path} cannot be read: {what}");
    let full = folder.join(path);
    // Reading a pipe could wait without end.
    let found = std::fs::metadata(&full).map_err(|error| cannot(&error))?;
    if !found.is_file() {
        return Err(cannot(&"it is no file"));
    }
    let opened = std::fs::File::open(&full).map_err(|error| cannot(&error))?;
    let mut bytes = Vec::new();
    let read = opened.take(SECRET_FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    let n_bytes = read.map_err(|error| cannot(&error))?;
    if u64::try_from(n_bytes).is_ok_and(|n| n > SECRET_FILE_BYTES_MAX) {
        return Err(cannot(&format!("it has more than {SECRET_FILE_BYTES_MAX} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| cannot(&"it is not UTF-8"))?;
    let line = text.strip_suffix('\n').map_or(&*text, |it| it.strip_suffix('\r').unwrap_or(it));
    Ok(line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<Expanded, String> {
        let environment = |name: &str| match name {
            "A" => Some("x".to_owned()),
            "EMPTY" => Some(String::new()),
            "BROKEN" => Some("secret\n".to_owned()),
            "NESTED" => Some("${A}".to_owned()),
            _ => None,
        };
        expand(text, Outside { environment: &environment, folder: None })
    }

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        match (expanded(text), expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got.value, expected),
            (Err(got), Err(part)) => assert!(got.contains(part), "{got}"),
            (got, expected) => panic!("{got:?} is not {expected:?}"),
        }
    }

    #[test]
    fn variables_are_replaced_where_they_stand() {
        check("${A}", Ok("x"));
        check("a${A}b${A}c", Ok("axbxc"));
        check("${B:-y}${A:-y}", Ok("yx"));
        check("${B:-}", Ok(""));
        check("${EMPTY}${EMPTY:-z}", Ok("z"));
        // A value is not expanded again: it may look like a reference.
        check("${NESTED}", Ok("${A}"));
    }

    #[test]
    fn two_dollars_are_one_and_a_lone_one_stays() {
        check("$${A}", Ok("${A}"));
        check("$$$$", Ok("$$"));
        check("5$ $x $", Ok("5$ $x $"));
    }

    #[test]
    fn what_cannot_be_replaced_is_a_problem() {
        check("${B}", Err("B is not set"));
        check("${A", Err("has no"));
        check("${}", Err("name"));
        check("${1A}", Err("name"));
        check("${A B}", Err("name"));
        check("${file:/etc/hostname}", Err("only read"));
    }

    #[test]
    fn the_path_of_a_file_may_name_variables() {
        let read = |text: &str| {
            let folder = std::env::temp_dir();
            let environment = |name: &str| match name {
                "HERE" => Some(env!("CARGO_MANIFEST_DIR").to_owned()),
                _ => None,
            };
            let outside = Outside { environment: &environment, folder: Some(&folder) };
            expand(text, outside).map(|it| it.value)
        };
        let makefile =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Makefile"));
        let makefile = makefile.unwrap().trim_end_matches('\n').to_owned();
        assert_eq!(read("${file:${HERE}/Makefile}"), Ok(makefile.clone()));
        assert_eq!(read("${file:${HERE}/${B:-Makefile}}"), Ok(makefile.clone()));
        assert_eq!(read("a ${file:${HERE}/Makefile} b"), Ok(format!("a {makefile} b")));
        for (text, part) in [
            ("${file:${NOWHERE}/x}", "NOWHERE is not set"),
            ("${file:${HERE/x}", "no"),
            ("${file:${HERE}/x", "has no"),
            ("${file:${HERE}/no such file}", "cannot be read"),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.contains(part), "{text}: {told}");
        }
    }

    #[test]
    fn forms_of_other_programs_are_told_how_they_are_written_here() {
        check("os.environ/TOKEN", Err("\"${TOKEN}\""));
        check("Bearer os.environ/TOKEN", Err("\"${TOKEN}\""));
        check("os.environ/", Err("\"${NAME}\""));
        check("${env:TOKEN}", Err("\"${TOKEN}\""));
        check("${input:token}", Err("\"${NAME}\""));
        check("https://h/os.environ/x", Ok("https://h/os.environ/x"));
    }

    #[test]
    fn what_is_unusual_about_a_variable_is_noted() {
        let unusual = |text: &str| expanded(text).unwrap().unusual.unwrap_or_default();
        assert_eq!(unusual("Bearer ${EMPTY}"), "the environment variable EMPTY is empty");
        assert_eq!(unusual("${BROKEN}"), "the environment variable BROKEN has a line break");
        assert_eq!(unusual("${A}${B:-}"), "");
    }
}
