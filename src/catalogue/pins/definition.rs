//! Pure: the digest of a pinned item, which covers the whole of its definition.

use ring::digest::{SHA256, digest};

use super::subject::Subject;
use crate::limits::JSON_DEPTH_MAX;
use crate::protocol::raw::{RawObject, elements, push_string};
use crate::state::framed::hex;

/// The members of a tool that counted for the digest in files of version 2.
const MEMBERS: [&str; 6] =
    ["name", "title", "description", "inputSchema", "outputSchema", "annotations"];

/// SHA-256 of an item, in hexadecimal: the same in any form of writing (order of keys, space,
/// escapes), and another one for every other item.
pub(super) fn sha256(subject: Subject, item: &str) -> String {
    hex(digest(&SHA256, canonical(subject, item).as_bytes()).as_ref())
}

/// SHA-256 of a tool as in files of version 2, for which only some members counted.
pub(super) fn sha256_of_members(tool: &str) -> String {
    let mut text = String::with_capacity(tool.len());
    match RawObject::parse(tool) {
        Ok(fields) => {
            for member in MEMBERS {
                if let Some(value) = fields.get(member) {
                    push_string(&mut text, member);
                    write(&mut text, value, JSON_DEPTH_MAX, Commas::AfterEach);
                    text.push('\n');
                }
            }
        }
        // The tool was read before, so it reads again.
        Err(_) => text.push_str(tool),
    }
    hex(digest(&SHA256, text.as_bytes()).as_ref())
}

fn canonical(subject: Subject, item: &str) -> String {
    let mut text = String::with_capacity(item.len());
    match subject {
        Subject::Resource | Subject::Template => {
            write(&mut text, &without_state(item), JSON_DEPTH_MAX, Commas::Between);
        }
        Subject::Tool | Subject::Prompt | Subject::Instructions => {
            write(&mut text, item, JSON_DEPTH_MAX, Commas::Between);
        }
    }
    text
}

/// A resource without the members that change with its content (2025-11-25, schema, Resource and
/// Annotations).
fn without_state(item: &str) -> String {
    let Ok(mut fields) = RawObject::parse(item) else { return item.to_owned() };
    fields.remove("size");
    let annotations = fields.get("annotations").map(str::to_owned);
    if let Some(text) = &annotations
        && let Ok(mut annotations) = RawObject::parse(text)
    {
        annotations.remove("lastModified");
        if annotations.is_empty() {
            fields.remove("annotations");
        } else {
            fields.replace("annotations", annotations.to_text());
        }
    }
    fields.to_text()
}

/// A place in which two texts differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Names of members from the outside in, joined by dots; empty for the whole text.
    pub at: String,
    /// The value before.
    pub old: Option<String>,
    /// The value now.
    pub new: Option<String>,
}

/// The differences of two items, each side as JSON on one line.
pub(super) fn differences(old: Option<&str>, new: Option<&str>) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(&mut found, "", old, new, JSON_DEPTH_MAX);
    found
}

fn compare(
    found: &mut Vec<Difference>,
    at: &str,
    old: Option<&str>,
    new: Option<&str>,
    levels: usize,
) {
    let object = |text: Option<&str>| match text {
        Some(text) => RawObject::parse(text.trim()).ok().map(|_| text.trim().to_owned()),
        // A missing object is shown member by member at the top level only.
        None => at.is_empty().then(|| "{}".to_owned()),
    };
    if let (Some(before), Some(after)) = (object(old), object(new))
        && let (Ok(before), Ok(after)) = (RawObject::parse(&before), RawObject::parse(&after))
        && let Some(levels) = levels.checked_sub(1)
    {
        let added = after.iter().filter(|(name, _)| before.get(name).is_none());
        let names: Vec<&str> = before.iter().chain(added).map(|(name, _)| name).collect();
        for name in names {
            let at = if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
            compare(found, &at, before.get(name), after.get(name), levels);
        }
        return;
    }
    let plain = |text: &str| {
        let mut out = String::new();
        write(&mut out, text, JSON_DEPTH_MAX, Commas::Between);
        out
    };
    let (old, new) = (old.map(plain), new.map(plain));
    if old != new {
        found.push(Difference { at: at.to_owned(), old, new });
    }
}

/// The places of commas. Files of version 2 have digests of texts with a comma after each
/// element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Commas {
    AfterEach,
    Between,
}

impl Commas {
    fn before(self, n: usize) -> &'static str {
        if self == Self::Between && n > 0 { "," } else { "" }
    }

    fn after(self) -> &'static str {
        if self == Self::AfterEach { "," } else { "" }
    }
}

/// Appends a value with its keys sorted and without space. An ambiguous object (with a key that
/// stands twice) is appended unchanged.
fn write(out: &mut String, value: &str, levels: usize, commas: Commas) {
    let value = value.trim();
    let Some(levels) = levels.checked_sub(1) else { return out.push_str(value) };
    match value.as_bytes().first() {
        Some(b'{') => match RawObject::parse(value) {
            Ok(fields) => {
                let mut sorted: Vec<(&str, &str)> = fields.iter().collect();
                sorted.sort_unstable();
                out.push('{');
                for (n, (name, value)) in sorted.into_iter().enumerate() {
                    out.push_str(commas.before(n));
                    push_string(out, name);
                    out.push(':');
                    write(out, value, levels, commas);
                    out.push_str(commas.after());
                }
                out.push('}');
            }
            Err(_) => out.push_str(value),
        },
        Some(b'[') => match elements(value) {
            Ok(items) => {
                out.push('[');
                for (n, item) in items.into_iter().enumerate() {
                    out.push_str(commas.before(n));
                    write(out, item, levels, commas);
                    out.push_str(commas.after());
                }
                out.push(']');
            }
            Err(_) => out.push_str(value),
        },
        Some(b'"') => match serde_json::from_str::<String>(value) {
            Ok(text) => push_string(out, &text),
            Err(_) => out.push_str(value),
        },
        Some(_) | None => out.push_str(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOL: &str = r#"{"name":"t","description":"does","inputSchema":{"a":[1,{"x":1,"y":2}],"b":"é"},"_meta":{"n":1}}"#;

    fn of(tool: &str) -> String {
        sha256(Subject::Tool, tool)
    }

    #[test]
    fn a_definition_is_the_same_however_it_is_written() {
        for same in [
            "{ \"description\" : \"does\", \"name\":\"t\",\n \"_meta\":{\"n\":1}, \"inputSchema\": {\"b\":\"\\u00e9\", \"a\":[1, {\"y\":2,\"x\":1}]}}",
            r#"{"name":"t","description":"d\u006fes","_meta":{"n":1},"inputSchema":{"a":[1,{"x":1,"y":2}],"b":"é"}}"#,
        ] {
            assert_eq!(of(same), of(TOOL), "{same}");
        }
    }

    #[test]
    fn every_change_of_it_is_another_one() {
        for (old, new) in [
            ("does", "does!"),
            (r#""x":1"#, r#""x":1.0"#),
            (r#"[1,{"x":1,"y":2}]"#, r#"[{"x":1,"y":2},1]"#),
            (r#""b":"é""#, r#""b":"é","c":null"#),
            (r#""x":1"#, r#""x":0,"x":1"#),
            (r#"},"_meta""#, r#"},"annotations":{"readOnlyHint":true},"_meta""#),
            (r#"},"_meta""#, r#"},"outputSchema":{},"_meta""#),
            (r#"},"_meta""#, r#"},"icons":[],"_meta""#),
            (r#"},"_meta""#, r#"},"execution":{"taskSupport":"optional"},"_meta""#),
            (r#"},"_meta""#, r#"},"nobody/knows":1,"_meta""#),
            (r#""n":1"#, r#""n":2"#),
            (r#""name":"t","#, r#""name":"t","title":"T","#),
        ] {
            let changed = TOOL.replacen(old, new, 1);
            assert_ne!(changed, TOOL, "{old}");
            assert_ne!(of(&changed), of(TOOL), "{changed}");
        }
        // Members do not run into each other.
        assert_ne!(of(r#"{"name":"a","title":"b"}"#), of(r#"{"name":"a","description":"b"}"#));
    }

    #[test]
    fn of_older_files_some_members_count() {
        let other = TOOL.replace(r#""n":1"#, r#""n":2"#);
        assert_eq!(sha256_of_members(&other), sha256_of_members(TOOL));
        let other = TOOL.replace("does", "does!");
        assert_ne!(sha256_of_members(&other), sha256_of_members(TOOL));
    }

    #[test]
    fn the_state_of_a_resource_is_no_change_of_it() {
        let of = |text: &str| sha256(Subject::Resource, text);
        let plain = r#"{"uri":"a:","name":"n"}"#;
        let state = r#"{"uri":"a:","name":"n","size":7,"annotations":{"lastModified":"x"}}"#;
        assert_eq!(of(state), of(plain));
        let told = r#"{"uri":"a:","name":"n","annotations":{"audience":["user"]}}"#;
        assert_ne!(of(told), of(plain));
    }

    #[test]
    fn differences_name_their_place() {
        let new = r#"{"name":"t","inputSchema":{"b":"e","a":[1,{"y":2,"x":1}]},"icons":[ 1 ],"_meta":{"n":1}}"#;
        let one = |at: &str, old: Option<&str>, new: Option<&str>| Difference {
            at: at.to_owned(),
            old: old.map(str::to_owned),
            new: new.map(str::to_owned),
        };
        assert_eq!(
            differences(Some(TOOL), Some(new)),
            [
                one("description", Some("\"does\""), None),
                one("inputSchema.b", Some("\"é\""), Some("\"e\"")),
                one("icons", None, Some("[1]")),
            ]
        );
        assert!(differences(Some(TOOL), Some(TOOL)).is_empty());
        assert_eq!(
            differences(Some("\"a\""), Some("\"b\"")),
            [one("", Some("\"a\""), Some("\"b\""))]
        );
        assert_eq!(
            differences(None, Some(r#"{"name":"t","x":{"y":1}}"#)),
            [one("name", None, Some("\"t\"")), one("x", None, Some("{\"y\":1}"))]
        );
    }

    #[test]
    fn depth_is_bounded() {
        let deep = |n: usize| {
            format!("{{\"name\":\"t\",\"inputSchema\":{}1{}}}", "[".repeat(n), "]".repeat(n))
        };
        assert_ne!(of(&deep(400)), of(&deep(401)));
    }
}
