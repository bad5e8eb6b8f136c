//! Pure: items of a server's lists as the schemas of all revisions want them.
//!
//! Towards clients the gateway is the server, and the official SDKs refuse a whole list for one
//! item that does not satisfy their schema. So an optional member that is null, or a describing
//! one of a wrong type, is dropped; an item that cannot be made valid without guessing is left
//! out. Valid text stays the very same.
//!
//! The members and their types are those of `Tool`, `Prompt`, `Resource` and `ResourceTemplate`
//! in `schema.json` of the revisions 2024-11-05 to 2026-07-28, which agree wherever they have
//! the same member: one text serves clients of them all.

use std::borrow::Cow;

use super::call::Kind;
use super::listed_schema::{self, Fit};
use super::pieces::Packing;
use super::raw::{Raw, RawObject, elements, start_of};
use crate::limits::{LISTED_ITEM_BYTES_MAX, UNWELL_BEHIND_BYTES_MAX, UPSTREAM_TEXT_CHARS_MAX};

/// The key of `_meta` under which the gateway's lists name servers that are not well.
pub const UPSTREAMS_META: &str = "trunkline/upstreams";

/// The report that a page of another gateway's list gives of servers behind that gateway that are
/// not well: an array's text.
pub fn unwell_behind(page: &RawObject<'_>) -> Option<String> {
    let meta = RawObject::parse(page.get("_meta")?).ok()?;
    let unwell = meta.get(UPSTREAMS_META)?;
    (unwell.len() <= UNWELL_BEHIND_BYTES_MAX).then(|| unwell.to_owned())
}

/// An item that can be listed.
#[derive(Debug, PartialEq)]
pub struct ListedItem {
    /// The name or URI by which clients request the item.
    pub name: String,
    /// The item's text, where it had to be changed.
    pub mended: Option<String>,
}

/// An item that cannot be given to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// The item's name or URI, if it has one.
    pub name: Option<String>,
    /// The reason.
    pub reason: String,
}

/// An item as it was read: its name, and its object's text for clients.
pub type ReadItem = Result<(String, Raw), Malformed>;

#[derive(Clone, Copy)]
enum Shape {
    Text,
    Uri,
    UriTemplate,
    Flag,
    Integer,
    /// A number from 0 to 1.
    Share,
    OneOf(&'static [&'static str]),
    Object,
    Members(&'static [Member]),
    List(&'static Shape),
    /// A prompt's arguments: a prompt that has an unreadable one is left out.
    Arguments,
    InputSchema,
    OutputSchema,
}

struct Member {
    key: &'static str,
    shape: Shape,
    need: Need,
}

#[derive(PartialEq)]
enum Need {
    Required,
    Optional,
}

const fn required(key: &'static str, shape: Shape) -> Member {
    Member { key, shape, need: Need::Required }
}

const fn optional(key: &'static str, shape: Shape) -> Member {
    Member { key, shape, need: Need::Optional }
}

static TOOL: [Member; 9] = [
    required("name", Shape::Text),
    required("inputSchema", Shape::InputSchema),
    optional("outputSchema", Shape::OutputSchema),
    optional("title", Shape::Text),
    optional("description", Shape::Text),
    optional("icons", Shape::List(&Shape::Members(&ICON))),
    optional("annotations", Shape::Members(&HINTS)),
    optional("execution", Shape::Members(&EXECUTION)),
    optional("_meta", Shape::Object),
];
static PROMPT: [Member; 6] = [
    required("name", Shape::Text),
    optional("title", Shape::Text),
    optional("description", Shape::Text),
    optional("icons", Shape::List(&Shape::Members(&ICON))),
    optional("arguments", Shape::Arguments),
    optional("_meta", Shape::Object),
];
static RESOURCE: [Member; 9] = [
    required("uri", Shape::Uri),
    required("name", Shape::Text),
    optional("title", Shape::Text),
    optional("description", Shape::Text),
    optional("icons", Shape::List(&Shape::Members(&ICON))),
    optional("mimeType", Shape::Text),
    optional("size", Shape::Integer),
    optional("annotations", Shape::Members(&ANNOTATIONS)),
    optional("_meta", Shape::Object),
];
static TEMPLATE: [Member; 8] = [
    required("uriTemplate", Shape::UriTemplate),
    required("name", Shape::Text),
    optional("title", Shape::Text),
    optional("description", Shape::Text),
    optional("icons", Shape::List(&Shape::Members(&ICON))),
    optional("mimeType", Shape::Text),
    optional("annotations", Shape::Members(&ANNOTATIONS)),
    optional("_meta", Shape::Object),
];
static ARGUMENT: [Member; 4] = [
    required("name", Shape::Text),
    optional("title", Shape::Text),
    optional("description", Shape::Text),
    optional("required", Shape::Flag),
];
static ICON: [Member; 4] = [
    required("src", Shape::Uri),
    optional("mimeType", Shape::Text),
    optional("sizes", Shape::List(&Shape::Text)),
    optional("theme", Shape::OneOf(&["light", "dark"])),
];
static HINTS: [Member; 5] = [
    optional("title", Shape::Text),
    optional("readOnlyHint", Shape::Flag),
    optional("destructiveHint", Shape::Flag),
    optional("idempotentHint", Shape::Flag),
    optional("openWorldHint", Shape::Flag),
];
static EXECUTION: [Member; 1] =
    [optional("taskSupport", Shape::OneOf(&["forbidden", "optional", "required"]))];
static ANNOTATIONS: [Member; 3] = [
    optional("audience", Shape::List(&Shape::OneOf(&["user", "assistant"]))),
    optional("priority", Shape::Share),
    optional("lastModified", Shape::Text),
];

/// Reads one item of a list.
///
/// # Errors
/// The item cannot be listed.
pub fn read(kind: Kind, text: &str) -> Result<ListedItem, Malformed> {
    let unreadable = |error: serde_json::Error| Malformed {
        name: None,
        reason: format!("it is no acceptable object: {error}"),
    };
    let key = kind.name_key();
    let as_read = RawObject::parse(text).map_err(unreadable)?;
    if text.len() > LISTED_ITEM_BYTES_MAX {
        let name = as_read.string(key).ok().flatten();
        let reason = format!("it has more than {LISTED_ITEM_BYTES_MAX} bytes");
        return Err(Malformed { name, reason });
    }
    // An unpaired surrogate in a name makes a name that no client could request.
    let Ok(Some(name)) = as_read.string(key) else {
        let reason = format!("its {key:?} is missing or no string");
        return Err(Malformed { name: None, reason });
    };
    let whole = with_whole_characters(text);
    let mut fields = match &whole {
        Cow::Borrowed(_) => as_read,
        Cow::Owned(mended) => RawObject::parse(mended).map_err(unreadable)?,
    };
    let members: &[Member] = match kind {
        Kind::Tool => &TOOL,
        Kind::Prompt => &PROMPT,
        Kind::Resource => &RESOURCE,
        Kind::Template => &TEMPLATE,
    };
    match mend(&mut fields, members) {
        Ok(Changed::No) => {
            let mended = matches!(whole, Cow::Owned(_)).then(|| fields.to_text());
            Ok(ListedItem { name, mended })
        }
        Ok(Changed::Yes) => Ok(ListedItem { name, mended: Some(fields.to_text()) }),
        Err(reason) => Err(Malformed { name: Some(name), reason }),
    }
}

/// Items that are taken out of a list, so that the list's text can be dropped.
#[derive(Debug, Default)]
pub struct Taken {
    names: Vec<Result<String, Malformed>>,
    objects: Packing,
}

impl Taken {
    /// Reads one more item. Of an item that cannot be listed, only as much is kept as people are
    /// told.
    pub fn take(&mut self, kind: Kind, text: &str) {
        let told = |text: String| start_of(&text, TOLD_BYTES_MAX).to_owned();
        self.names.push(match read(kind, text) {
            Ok(ListedItem { name, mended }) => {
                self.objects.push(mended.as_deref().unwrap_or(text));
                Ok(name)
            }
            Err(Malformed { name, reason }) => {
                Err(Malformed { name: name.map(told), reason: told(reason) })
            }
        });
    }

    /// The items in the order in which they came.
    pub fn items(self) -> Vec<ReadItem> {
        let mut objects = self.objects.finish().into_iter();
        let item = |name: Result<String, Malformed>| match name {
            Ok(name) => Some(Ok((name, objects.next()?))),
            Err(malformed) => Some(Err(malformed)),
        };
        self.names.into_iter().filter_map(item).collect()
    }
}

/// Bytes that are kept of the name of an item that cannot be listed, and of the reason.
const TOLD_BYTES_MAX: usize = 4 * UPSTREAM_TEXT_CHARS_MAX;

#[derive(Clone, Copy, PartialEq)]
enum Changed {
    No,
    Yes,
}

fn mend(fields: &mut RawObject<'_>, members: &'static [Member]) -> Result<Changed, String> {
    let mut changed = Changed::No;
    for Member { key, shape, need } in members {
        let fit = fields.get(key).map(|text| shape.fit(text));
        match fit {
            Some(Fit::AsItIs) => (),
            Some(Fit::Mended(text)) => {
                fields.set(key, text);
                changed = Changed::Yes;
            }
            Some(Fit::Unfit(why)) => return Err(format!("its {key:?} {why}")),
            None | Some(Fit::Dropped) if *need == Need::Required => {
                let wanted = shape.wanted();
                return Err(format!("its {key:?} is missing or no {wanted}"));
            }
            None => (),
            Some(Fit::Dropped) => {
                fields.remove(key);
                changed = Changed::Yes;
            }
        }
    }
    Ok(changed)
}

impl Shape {
    fn fit(self, text: &str) -> Fit {
        let as_it_is = |is: bool| if is { Fit::AsItIs } else { Fit::Dropped };
        let is = |test: fn(&str) -> bool| {
            as_it_is(serde_json::from_str::<Cow<'_, str>>(text).is_ok_and(|text| test(&text)))
        };
        match self {
            Shape::Text => is(|_| true),
            Shape::Uri => is(has_scheme),
            Shape::UriTemplate => is(has_whole_expressions),
            Shape::Flag => as_it_is(matches!(text, "true" | "false")),
            Shape::Integer => as_it_is(number(text).is_some_and(|n| n.fract() == 0.0)),
            Shape::Share => as_it_is(number(text).is_some_and(|n| (0.0..=1.0).contains(&n))),
            Shape::OneOf(values) => {
                let value = serde_json::from_str::<String>(text);
                as_it_is(value.is_ok_and(|value| values.contains(&value.as_str())))
            }
            Shape::Object => as_it_is(text.starts_with('{')),
            Shape::Members(members) => match RawObject::parse(text) {
                Ok(mut fields) => match mend(&mut fields, members) {
                    Ok(Changed::No) => Fit::AsItIs,
                    Ok(Changed::Yes) => Fit::Mended(fields.to_text()),
                    Err(_) => Fit::Dropped,
                },
                Err(_) => Fit::Dropped,
            },
            Shape::List(of) => list(text, *of),
            Shape::Arguments => match list(text, Shape::Members(&ARGUMENT)) {
                Fit::Dropped if !matches!(text, "null" | "{}") => {
                    Fit::Unfit("are no list".to_owned())
                }
                fit @ (Fit::AsItIs | Fit::Mended(_) | Fit::Dropped | Fit::Unfit(_)) => fit,
            },
            Shape::InputSchema => listed_schema::input(text),
            Shape::OutputSchema => listed_schema::output(text),
        }
    }

    /// The required type in words, for people.
    fn wanted(self) -> &'static str {
        match self {
            Shape::Text | Shape::OneOf(_) => "string",
            Shape::Uri => "absolute URI",
            Shape::UriTemplate => "URI template",
            Shape::Flag => "boolean",
            Shape::Integer | Shape::Share => "number",
            Shape::Object | Shape::Members(_) => "object",
            Shape::List(_) | Shape::Arguments => "list",
            Shape::InputSchema | Shape::OutputSchema => "schema of an object",
        }
    }
}

/// Elements that do not fit are dropped one by one.
fn list(text: &str, of: Shape) -> Fit {
    let Ok(texts) = elements(text) else { return Fit::Dropped };
    let fits: Vec<(&str, Fit)> = texts.into_iter().map(|text| (text, of.fit(text))).collect();
    if fits.iter().all(|(_, fit)| *fit == Fit::AsItIs) {
        return Fit::AsItIs;
    }
    let kept = fits.into_iter().filter_map(|(text, fit)| match fit {
        Fit::AsItIs => Some(text.to_owned()),
        Fit::Mended(text) => Some(text),
        Fit::Dropped | Fit::Unfit(_) => None,
    });
    Fit::Mended(format!("[{}]", kept.collect::<Vec<_>>().join(",")))
}

/// A JSON number, in whatever spelling.
fn number(text: &str) -> Option<f64> {
    serde_json::from_str(text).ok()
}

/// True if a URI is absolute (RFC 3986, 3.1). Blanks and characters beyond ASCII, which that RFC
/// wants encoded, are refused by no client.
fn has_scheme(uri: &str) -> bool {
    let Some((scheme, _)) = uri.split_once(':') else { return false };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// True if the braces of a URI template are paired (RFC 6570, 2).
fn has_whole_expressions(template: &str) -> bool {
    let mut rest = template;
    while let Some((literal, after)) = rest.split_once('{') {
        let Some((expression, after)) = after.split_once('}') else { return false };
        if literal.contains('}') || expression.is_empty() || expression.contains('{') {
            return false;
        }
        rest = after;
    }
    !rest.contains('}')
}

/// The text with U+FFFD where an escape is half of a pair (RFC 8259, 8.2): such a text is JSON,
/// but the Python SDK refuses the message that has it.
fn with_whole_characters(text: &str) -> Cow<'_, str> {
    let mut whole: Option<Vec<u8>> = None;
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('\\')) {
        let start = at + found;
        let half = |at: usize| {
            let digits = text.get(at..).and_then(|rest| rest.strip_prefix("\\u"));
            let code = u16::from_str_radix(digits?.get(..4)?, 16).ok()?;
            (0xd800..=0xdfff).contains(&code).then_some(code)
        };
        at = match (half(start), half(start + 6)) {
            (Some(..=0xdbff), Some(0xdc00..)) => start + 12,
            (Some(_), _) => {
                let whole = whole.get_or_insert_with(|| text.as_bytes().to_vec());
                if let Some(escape) = whole.get_mut(start..start + 6) {
                    escape.copy_from_slice(b"\\ufffd");
                }
                start + 6
            }
            (None, _) => start + 2,
        };
    }
    match whole.map(String::from_utf8) {
        Some(Ok(whole)) => Cow::Owned(whole),
        Some(Err(_)) | None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of the item as it would be listed, or the reason why it would not.
    fn made(kind: Kind, text: &str) -> Result<String, String> {
        match read(kind, text) {
            Ok(item) => Ok(item.mended.unwrap_or_else(|| text.to_owned())),
            Err(malformed) => Err(malformed.reason),
        }
    }

    #[test]
    fn what_is_said_of_servers_behind_another_gateway_is_found() {
        let of = |page: &str| unwell_behind(&RawObject::parse(page).unwrap());
        let page = r#"{"tools":[],"_meta":{"trunkline/upstreams":[1]}}"#;
        assert_eq!(of(page).as_deref(), Some("[1]"));
        assert_eq!(of(r#"{"tools":[],"_meta":7}"#), None);
        let long = "1,".repeat(UNWELL_BEHIND_BYTES_MAX / 2);
        assert_eq!(of(&format!(r#"{{"_meta":{{"trunkline/upstreams":[{long}1]}}}}"#)), None);
    }

    #[test]
    fn what_is_valid_stays_the_very_same_text() {
        for (kind, text) in [
            (
                Kind::Tool,
                r#"{ "x":null, "inputSchema":{"type":"object"},"name":"a\ud83d\ude00\\ud800" }"#,
            ),
            (
                Kind::Tool,
                r#"{"name":"a","inputSchema":{"type":"object"},"annotations":{"x":null,"readOnlyHint":true},"execution":{"taskSupport":"optional"},"icons":[],"_meta":{"a":null}}"#,
            ),
            (Kind::Prompt, r#"{"name":"a","arguments":[{"name":"b","required":false}]}"#),
            (
                Kind::Resource,
                r#"{"uri":"a+b.c-1:x y","name":"","size":1e3,"annotations":{"priority":1.0,"audience":["user"]}}"#,
            ),
            (Kind::Template, r#"{"uriTemplate":"file:///{+a}{?b,c}","name":"n"}"#),
        ] {
            let item = read(kind, text).unwrap();
            assert_eq!(item.mended, None, "{text}");
        }
    }

    #[test]
    fn an_optional_member_that_is_null_or_of_a_wrong_type_is_dropped() {
        let rest = r#""inputSchema":{"type":"object"},"name":"a""#;
        for member in [
            r#""title":null"#,
            r#""description":7"#,
            r#""outputSchema":null"#,
            r#""outputSchema":true"#,
            r#""annotations":null"#,
            r#""annotations":["x"]"#,
            r#""icons":null"#,
            r#""icons":{}"#,
            r#""execution":"task""#,
            r#""_meta":null"#,
            r#""_meta":[]"#,
        ] {
            let text = format!("{{{member},{rest}}}");
            assert_eq!(made(Kind::Tool, &text).unwrap(), format!("{{{rest}}}"), "{member}");
        }
        let rest = r#""uri":"a:","name":"n""#;
        for member in [
            r#""size":null"#,
            r#""size":1.5"#,
            r#""size":"7""#,
            r#""mimeType":null"#,
            r#""annotations":{"a":1,"a":2}"#,
        ] {
            let text = format!("{{{rest},{member}}}");
            assert_eq!(made(Kind::Resource, &text).unwrap(), format!("{{{rest}}}"), "{member}");
        }
        for nothing in ["null", "{}"] {
            let text = format!(r#"{{"name":"p","arguments":{nothing}}}"#);
            assert_eq!(made(Kind::Prompt, &text).unwrap(), r#"{"name":"p"}"#);
        }
    }

    #[test]
    fn of_a_member_only_what_is_wrong_is_dropped() {
        for (kind, read, mended) in [
            (
                Kind::Prompt,
                r#"{"name":"p","arguments":[{"name":"a","required":null},{"title":"b"},7]}"#,
                r#"{"name":"p","arguments":[{"name":"a"}]}"#,
            ),
            (
                Kind::Prompt,
                r#"{"name":"p","icons":[{"src":"x.png"},{"src":"data:,","sizes":"48x48","theme":"pink"}]}"#,
                r#"{"name":"p","icons":[{"src":"data:,"}]}"#,
            ),
            (
                Kind::Template,
                r#"{"uriTemplate":"a:","name":"n","annotations":{"priority":2,"audience":["user","all"]}}"#,
                r#"{"uriTemplate":"a:","name":"n","annotations":{"audience":["user"]}}"#,
            ),
            (
                Kind::Tool,
                r#"{"name":"t","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":"yes","title":"T"}}"#,
                r#"{"name":"t","inputSchema":{"type":"object"},"annotations":{"title":"T"}}"#,
            ),
        ] {
            assert_eq!(made(kind, read).unwrap(), mended);
        }
    }

    #[test]
    fn what_cannot_be_made_valid_is_left_out_with_a_reason() {
        for (kind, text, reason) in [
            (Kind::Tool, "7", "no acceptable object"),
            (Kind::Tool, r#"{"name":"a","name":"b"}"#, "stands twice"),
            (Kind::Tool, r#"{"inputSchema":{"type":"object"}}"#, "its \"name\" is missing"),
            (Kind::Tool, r#"{"name":"a\ud800","inputSchema":{"type":"object"}}"#, "\"name\""),
            (Kind::Tool, r#"{"name":"a"}"#, "its \"inputSchema\" is missing"),
            (
                Kind::Tool,
                r#"{"name":"a","inputSchema":null}"#,
                "its \"inputSchema\" is missing",
            ),
            (
                Kind::Tool,
                r#"{"name":"a","inputSchema":{"type":"string"}}"#,
                "no schema of an object",
            ),
            (Kind::Prompt, r#"{"name":null}"#, "its \"name\" is missing"),
            (Kind::Prompt, r#"{"name":"p","arguments":{"a":"b"}}"#, "are no list"),
            (Kind::Resource, r#"{"uri":"a:","name":null}"#, "its \"name\" is missing"),
            (Kind::Resource, r#"{"uri":"no uri","name":"n"}"#, "no absolute URI"),
            (Kind::Resource, r#"{"uri":"1:a","name":"n"}"#, "no absolute URI"),
            (Kind::Template, r#"{"uriTemplate":"a:{b","name":"n"}"#, "no URI template"),
            (Kind::Template, r#"{"uriTemplate":"a:{}","name":"n"}"#, "no URI template"),
            (Kind::Template, r#"{"uriTemplate":"a:b}","name":"n"}"#, "no URI template"),
        ] {
            let made = made(kind, text).unwrap_err();
            assert!(made.contains(reason), "{text}: {made}");
        }
        let malformed = read(Kind::Resource, r#"{"uri":"a:b"}"#).unwrap_err();
        assert_eq!(malformed.name.as_deref(), Some("a:b"));
    }

    #[test]
    fn half_a_character_is_replaced() {
        for (read, whole) in [
            (r"\ud800", r"\ufffd"),
            (r"\udc00\ud83d\ude00", r"\ufffd\ud83d\ude00"),
            (r"\ud83d\ud83d\ude00x", r"\ufffd\ud83d\ude00x"),
            (r"\\ud800 \uD8", r"\\ud800 \uD8"),
        ] {
            assert_eq!(with_whole_characters(read), whole);
        }
        let text = r#"{"name":"p","description":"\udfff"}"#;
        assert_eq!(made(Kind::Prompt, text).unwrap(), r#"{"name":"p","description":"\ufffd"}"#);
    }
}
