//! What of a tool is pinned: all that a model is told of it. Pure.

use ring::digest::{SHA256, digest};

use crate::limits::JSON_DEPTH_MAX;
use crate::protocol::raw::{RawObject, elements, push_string};
use crate::state::framed::hex;

/// The members of a tool that make its definition.
const MEMBERS: [&str; 6] =
    ["name", "title", "description", "inputSchema", "outputSchema", "annotations"];

/// SHA-256 of a tool's definition, in hexadecimal: the same however the server writes it (order
/// of keys, space, escapes), and another one for every other definition.
pub(super) fn sha256(tool: &str) -> String {
    let mut text = String::with_capacity(tool.len());
    match RawObject::parse(tool) {
        Ok(fields) => {
            for member in MEMBERS {
                if let Some(value) = fields.get(member) {
                    push_string(&mut text, member);
                    write(&mut text, value, JSON_DEPTH_MAX);
                    text.push('\n');
                }
            }
        }
        // It was read once, so it reads again.
        Err(_) => text.push_str(tool),
    }
    hex(digest(&SHA256, text.as_bytes()).as_ref())
}

/// Appends a value with its keys sorted and without space. Whatever could be read in two ways (a
/// key that stands twice) is appended as it is.
fn write(out: &mut String, value: &str, levels: usize) {
    let value = value.trim();
    let Some(levels) = levels.checked_sub(1) else { return out.push_str(value) };
    match value.as_bytes().first() {
        Some(b'{') => match RawObject::parse(value) {
            Ok(fields) => {
                let mut sorted: Vec<(&str, &str)> = fields.iter().collect();
                sorted.sort_unstable();
                out.push('{');
                for (name, value) in sorted {
                    push_string(out, name);
                    out.push(':');
                    write(out, value, levels);
                    out.push(',');
                }
                out.push('}');
            }
            Err(_) => out.push_str(value),
        },
        Some(b'[') => match elements(value) {
            Ok(items) => {
                out.push('[');
                for item in items {
                    write(out, item, levels);
                    out.push(',');
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
    use super::sha256;

    const TOOL: &str = r#"{"name":"t","description":"does","inputSchema":{"a":[1,{"x":1,"y":2}],"b":"é"},"_meta":{"n":1}}"#;

    #[test]
    fn a_definition_is_the_same_however_it_is_written() {
        for same in [
            "{ \"description\" : \"does\", \"name\":\"t\",\n \"inputSchema\": {\"b\":\"\\u00e9\", \"a\":[1, {\"y\":2,\"x\":1}]}}",
            r#"{"name":"t","description":"d\u006fes","inputSchema":{"a":[1,{"x":1,"y":2}],"b":"é"},"_meta":{"n":2},"icons":[]}"#,
        ] {
            assert_eq!(sha256(same), sha256(TOOL), "{same}");
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
            (r#""name":"t","#, r#""name":"t","title":"T","#),
        ] {
            let changed = TOOL.replacen(old, new, 1);
            assert_ne!(changed, TOOL, "{old}");
            assert_ne!(sha256(&changed), sha256(TOOL), "{changed}");
        }
        // Members do not run into each other.
        assert_ne!(
            sha256(r#"{"name":"a","title":"b"}"#),
            sha256(r#"{"name":"a","description":"b"}"#)
        );
    }

    #[test]
    fn depth_is_bounded() {
        let deep = |n: usize| {
            format!("{{\"name\":\"t\",\"inputSchema\":{}1{}}}", "[".repeat(n), "]".repeat(n))
        };
        assert_ne!(sha256(&deep(400)), sha256(&deep(401)));
    }
}
