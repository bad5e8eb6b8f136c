//! Pure: a server's capabilities, made valid by the schemas of all revisions. Clients on the
//! official SDKs give up a connection whose `capabilities` have a member of a wrong type, and
//! with several servers behind one endpoint that connection would be the one to all of them.
//!
//! | a server writes | the gateway reads |
//! |---|---|
//! | an object for a capability | it stays; of its members only those that fit stay |
//! | `true`, `[]` (an empty object of PHP), or an array (of tools, for instance) for a capability | `{}`: it is declared |
//! | `false`, `null`, a number or a string for a capability | it is not declared |
//! | a flag (`listChanged`, `subscribe`) that is no boolean | the flag is not there |
//! | `capabilities` that are no object | nothing is declared |
//!
//! Valid text passes byte for byte.

use super::raw::{Raw, RawObject};

/// The type of a member and of its own members.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// `true` or `false`.
    Flag,
    /// An object with these members; others may be anything.
    Object(&'static [(&'static str, Shape)]),
    /// An object of which every member is an object.
    ObjectOfObjects,
}

const LIST: Shape = Shape::Object(&[("listChanged", Shape::Flag)]);
const EMPTY: Shape = Shape::Object(&[]);

/// `ServerCapabilities` of all revisions' schemas together.
const CAPABILITIES: Shape = Shape::Object(&[
    ("tools", LIST),
    ("prompts", LIST),
    ("resources", Shape::Object(&[("listChanged", Shape::Flag), ("subscribe", Shape::Flag)])),
    ("logging", EMPTY),
    ("completions", EMPTY),
    ("experimental", Shape::ObjectOfObjects),
    ("extensions", Shape::ObjectOfObjects),
    (
        "tasks",
        Shape::Object(&[
            ("list", EMPTY),
            ("cancel", EMPTY),
            ("requests", Shape::Object(&[("tools", Shape::Object(&[("call", EMPTY)]))])),
        ]),
    ),
]);

/// The capabilities of a server's answer to `initialize` or `server/discover`, made valid.
pub fn read(capabilities: Option<&str>) -> Raw {
    let text = capabilities.unwrap_or("{}");
    Raw::from_valid(mended(text).unwrap_or_else(|| text.to_owned()))
}

/// A server's capabilities made valid; none where they are valid already.
pub fn mended(capabilities: &str) -> Option<String> {
    match fitting(capabilities, CAPABILITIES) {
        Fit::As => None,
        Fit::Mended(text) => Some(text),
        Fit::Absent => Some("{}".to_owned()),
    }
}

enum Fit {
    As,
    Mended(String),
    Absent,
}

fn fitting(text: &str, shape: Shape) -> Fit {
    let members = match shape {
        Shape::Flag if matches!(text, "true" | "false") => return Fit::As,
        Shape::Flag => return Fit::Absent,
        Shape::Object(members) => members,
        Shape::ObjectOfObjects => &[],
    };
    if text == "true" || text.starts_with('[') {
        return Fit::Mended("{}".to_owned());
    }
    let Ok(mut fields) = RawObject::parse(text) else { return Fit::Absent };
    let named: Vec<(String, String)> =
        fields.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut is_mended = false;
    for (name, value) in named {
        let known = members.iter().find(|(known, _)| *known == name).map(|(_, shape)| *shape);
        let wanted = match shape {
            Shape::ObjectOfObjects => Some(EMPTY),
            Shape::Object(_) | Shape::Flag => known,
        };
        let fit = wanted.map_or(Fit::As, |wanted| fitting(&value, wanted));
        is_mended |= !matches!(fit, Fit::As);
        match fit {
            Fit::As => (),
            Fit::Mended(text) => fields.replace(&name, text),
            Fit::Absent => {
                fields.remove(&name);
            }
        }
    }
    if is_mended { Fit::Mended(fields.to_text()) } else { Fit::As }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_passes_byte_for_byte() {
        for text in [
            "{}",
            r#"{ "tools" : {"listChanged":true}, "prompts":{"x":[1]} }"#,
            r#"{"resources":{"subscribe":false,"listChanged":true},"logging":{},"completions":{}}"#,
            r#"{"experimental":{"a":{"b":null}},"extensions":{"io.x/y":{}},"whatever":7}"#,
            r#"{"tasks":{"list":{},"cancel":{},"requests":{"tools":{"call":{}}}}}"#,
        ] {
            assert_eq!(mended(text), None, "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_is_declared_plainly_or_not_at_all() {
        for (text, expected) in [
            (r#"{"tools":[{"name":"a"}],"prompts":false}"#, r#"{"tools":{}}"#),
            (
                r#"{"tools":[],"logging":[],"completions":true}"#,
                r#"{"tools":{},"logging":{},"completions":{}}"#,
            ),
            (r#"{"tools":null,"prompts":0,"resources":"yes"}"#, "{}"),
            (
                r#"{"tools":{"listChanged":"yes"},"resources":{"subscribe":null,"listChanged":true}}"#,
                r#"{"tools":{},"resources":{"listChanged":true}}"#,
            ),
            (
                r#"{"experimental":[],"extensions":{"a":true,"b":null,"c":{}}}"#,
                r#"{"experimental":{},"extensions":{"a":{},"c":{}}}"#,
            ),
            (
                r#"{"tasks":{"list":true,"requests":{"tools":{"call":false}}}}"#,
                r#"{"tasks":{"list":{},"requests":{"tools":{}}}}"#,
            ),
            ("[]", "{}"),
            ("null", "{}"),
            ("7", "{}"),
        ] {
            assert_eq!(mended(text).as_deref(), Some(expected), "{text}");
        }
    }
}
