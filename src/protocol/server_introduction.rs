//! Pure: a server's introduction of itself, cut to bounds. It is kept as long as the server is
//! well, merged with other servers' and given to every client that asks, so that it costs far
//! more than its bytes; no server needs more than a few kilobytes for it.
//!
//! | over its bound | the kept part |
//! |---|---|
//! | `serverInfo` | the other members without the largest ones (icons, as a rule) |
//! | `capabilities` | each capability, the largest without their largest members |
//! | `instructions` | the beginning, and a note that says so |

use std::collections::HashSet;

use super::raw::{Raw, RawObject, start_of};
use super::revision::Revision;
use super::server_capabilities;
use crate::limits::{
    INSTRUCTIONS_BYTES_MAX, SERVER_CAPABILITIES_BYTES_MAX, SERVER_CAPABILITY_BYTES_MAX,
    SERVER_INFO_BYTES_MAX,
};

/// A server's answer to `initialize`.
#[derive(Debug, Clone, PartialEq)]
pub struct Initialized {
    /// The revision in force from here on.
    pub revision: Revision,
    /// The server's capabilities, an object's text.
    pub capabilities: Raw,
    /// The server's name and version, an object's text.
    pub server_info: Option<Raw>,
    /// The server's instructions.
    pub instructions: Option<String>,
    /// Members that are not as the server wrote them, because they are over a bound.
    pub cut: Vec<&'static str>,
}

/// Makes an introduction of the texts of its members, as the server wrote them.
pub fn read(
    revision: Revision,
    capabilities: Option<&str>,
    server_info: Option<&str>,
    instructions: Option<&str>,
) -> Initialized {
    let mut cut = Vec::new();
    let capabilities = capabilities.map(|text| {
        if text.len() > SERVER_CAPABILITIES_BYTES_MAX {
            cut.push("capabilities");
        }
        bounded_capabilities(text)
    });
    let server_info = server_info.map(|text| {
        if text.len() <= SERVER_INFO_BYTES_MAX {
            return Raw::from_valid(text.to_owned());
        }
        cut.push("serverInfo");
        Raw::from_valid(without_largest(text, SERVER_INFO_BYTES_MAX))
    });
    let instructions: Option<String> =
        instructions.and_then(|text| serde_json::from_str(text).ok());
    let instructions = instructions.map(|text| {
        if text.len() <= INSTRUCTIONS_BYTES_MAX {
            return text;
        }
        cut.push("instructions");
        let start = start_of(&text, INSTRUCTIONS_BYTES_MAX - NOTE_BYTES);
        format!("{start}\u{2026}\n\n(The instructions have more than {INSTRUCTIONS_BYTES_MAX} bytes and are cut.)")
    });
    let capabilities = server_capabilities::read(capabilities.as_deref());
    Initialized { revision, capabilities, server_info, instructions, cut }
}

/// Bytes for the note, so that a cut text is not cut again where it is read from a file.
const NOTE_BYTES: usize = 128;

/// Keeps every capability's name: a server that has tools must go on to be listed with tools,
/// however long its description of them is.
fn bounded_capabilities(text: &str) -> String {
    let max = SERVER_CAPABILITIES_BYTES_MAX;
    if text.len() <= max {
        return text.to_owned();
    }
    let Ok(mut fields) = RawObject::parse(text) else { return text_of_none() };
    let mut n_bytes = n_bytes(&fields);
    for (_, name) in by_size(&fields) {
        if n_bytes <= max {
            return fields.to_text();
        }
        let Some(value) = fields.get(&name) else { continue };
        let less = if value.starts_with('{') {
            without_largest(value, SERVER_CAPABILITY_BYTES_MAX)
        } else if value.len() > SERVER_CAPABILITY_BYTES_MAX {
            text_of_none()
        } else {
            continue;
        };
        n_bytes = n_bytes.saturating_sub(value.len()) + less.len();
        fields.replace(&name, less);
    }
    without_largest(&fields.to_text(), max)
}

fn text_of_none() -> String {
    "{}".to_owned()
}

/// An object's text without its largest members, so that it has at most `bytes_max` bytes.
fn without_largest(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let Ok(fields) = RawObject::parse(text) else { return text_of_none() };
    let mut n_bytes = n_bytes(&fields);
    let mut dropped = HashSet::new();
    for (size, name) in by_size(&fields) {
        if n_bytes <= bytes_max {
            break;
        }
        dropped.insert(name);
        n_bytes = n_bytes.saturating_sub(size);
    }
    let mut kept = RawObject::default();
    for (name, value) in fields.iter().filter(|(name, _)| !dropped.contains(*name)) {
        kept.set(name, value.to_owned());
    }
    kept.to_text()
}

/// The most bytes that a member takes in the text: each byte of its name may be written as an
/// escape.
fn member_bytes(name: &str, value: &str) -> usize {
    6 * name.len() + value.len() + 4
}

fn n_bytes(fields: &RawObject<'_>) -> usize {
    fields.iter().map(|(name, value)| member_bytes(name, value)).sum::<usize>() + 2
}

/// The names of members, the largest first.
fn by_size(fields: &RawObject<'_>) -> Vec<(usize, String)> {
    let sized = fields.iter().map(|(name, value)| (member_bytes(name, value), name.to_owned()));
    let mut sized: Vec<(usize, String)> = sized.collect();
    sized.sort_unstable_by(|a, b| b.cmp(a));
    sized
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::JSON_OBJECT_KEYS_MAX;
    use crate::protocol::raw::string;

    const REVISION: Revision = Revision::LATEST_LEGACY;

    #[test]
    fn what_is_within_bounds_passes_byte_for_byte() {
        let (capabilities, info) = (r#"{ "tools" : {} }"#, r#"{"name":"x", "icons":[]}"#);
        let read = read(REVISION, Some(capabilities), Some(info), Some("\"a\\nb\""));
        assert_eq!(read.capabilities.get(), capabilities);
        assert_eq!(read.server_info.unwrap().get(), info);
        assert_eq!((read.instructions.as_deref(), read.cut.len()), (Some("a\nb"), 0));
    }

    #[test]
    fn of_what_is_too_large_the_rest_is_kept() {
        let large = string(&"x".repeat(1024 * 1024));
        let info = format!(r#"{{"name":"x","icons":[{large}],"title":"T"}}"#);
        let tools = format!(r#"{{"listChanged":true,"x":{large}}}"#);
        let capabilities =
            format!(r#"{{"tools":{tools},"prompts":{{}},"logging":[{large}],"y":{large}}}"#);
        let read = read(REVISION, Some(&capabilities), Some(&info), Some(&large));
        assert_eq!(read.server_info.unwrap().get(), r#"{"name":"x","title":"T"}"#);
        assert_eq!(
            read.capabilities.get(),
            r#"{"tools":{"listChanged":true},"prompts":{},"logging":{},"y":{}}"#
        );
        let instructions = read.instructions.unwrap();
        assert!(instructions.len() <= INSTRUCTIONS_BYTES_MAX);
        assert!(instructions.ends_with("bytes and are cut.)"));
        assert_eq!(read.cut, ["capabilities", "serverInfo", "instructions"]);
    }

    #[test]
    fn nothing_of_any_shape_is_over_the_bounds() {
        let keys = |n: usize, value: &str| {
            let fields: Vec<String> =
                (0..n).map(|n| format!("\"\\u0001{n}\":{value}")).collect();
            format!("{{{}}}", fields.join(","))
        };
        for text in [
            keys(JSON_OBJECT_KEYS_MAX, "{}"),
            keys(JSON_OBJECT_KEYS_MAX + 1, "0"),
            keys(20, &keys(1000, "[]")),
            format!("[{}0]", "0,".repeat(100_000)),
            format!(r#"{{"{}":{{}}}}"#, "k".repeat(100_000)),
            string(&"x".repeat(100_000)),
        ] {
            let read = read(REVISION, Some(&text), Some(&text), Some(&text));
            assert!(read.capabilities.get().len() <= SERVER_CAPABILITIES_BYTES_MAX);
            assert!(read.server_info.unwrap().get().len() <= SERVER_INFO_BYTES_MAX);
        }
    }
}
