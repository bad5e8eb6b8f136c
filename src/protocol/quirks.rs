//! Known quirks of clients, a row each: what is seen, which clients have it, and how the gateway
//! reads it. Where `strict_clients` is set, no quirk is tolerated.
//!
//! | quirk | what is seen | who does it | what is made of it |
//! |---|---|---|---|
//! | `revision_header_not_of_body` | `MCP-Protocol-Version` names an earlier revision (2025-11-25) than the body's `_meta` (2026-07-28) | claude.ai's connectors and Claude Code, autumn of 2026 | the body decides; `Mcp-Method`, `Mcp-Name` and `Mcp-Param-*` are held against it as ever |
//! | `revision_header_repeated` | the header stands several times, or as a list, each time with the same value | Claude Code 2.1; proxies that add it again | it counts once |
//! | `stateless_header_in_session` | the header names 2026-07-28 inside a session of an earlier revision | claude.ai's connectors, which send the newest revision that they know | the session's revision counts |
//! | `revision_header_not_of_session` | the header names another revision with sessions than was negotiated | Claude Code, whose header is fixed; clients that send what they asked for | the session's revision counts |
//! | `null_params` | `params: null` | clients whose JSON library writes absent members (older .NET, Java and Go stacks, the same for all nulls) | there are no parameters |
//! | `null_cursor` | `cursor: null` | the same, at the first page of a list | the first page is wanted |
//! | `null_arguments` | `arguments: null`, also in the context of a completion | the same, for tools and prompts without arguments | there are none |
//! | `null_meta` | `_meta: null`, or `progressToken: null` or another optional member in it | the same | it is not there |
//! | `null_member` | another optional parameter that is null (`context`, `task`, `requestState`, `reason` …) | the same | it is not there |
//! | `null_capability` | a capability that is null (`"sampling": null`) | the same, in `initialize` | it is not declared |
//! | `null_id` | a notification with `id: null` | the same | it is a notification |
//! | `null_in_response` | `error: null` beside a result, `result: null` beside an error, or an optional member of a result that is null (`content` of an elicitation that was declined, `stopReason`, a root's `name`) | the same | it is not there |
//!
//! Ambiguous messages stay refused: a header with two values, a revision that nobody knows, a
//! stateless request without the header, a key that stands twice (also with a null). Nulls that
//! have a meaning (below `arguments`, in parameters and results of methods that are not known,
//! but for `_meta`) are left alone, and so is `null` for what a request must have (`name`, `uri`,
//! `level`).

use super::method::{Method, notification};
use super::modern::key;
use super::raw::{RawObject, elements, first_elements, is_deeper_than};
use super::revision::{Era, Revision};
use crate::limits::{BATCH_MESSAGES_MAX, JSON_DEPTH_MAX};

/// A known quirk; the module's table describes each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quirk {
    /// `revision_header_not_of_body`
    HeaderNotOfBody,
    /// `revision_header_repeated`
    HeaderRepeated,
    /// `stateless_header_in_session`
    StatelessHeaderInSession,
    /// `revision_header_not_of_session`
    HeaderNotOfSession,
    /// `null_params`
    NullParams,
    /// `null_cursor`
    NullCursor,
    /// `null_arguments`
    NullArguments,
    /// `null_meta`
    NullMeta,
    /// `null_member`
    NullMember,
    /// `null_capability`
    NullCapability,
    /// `null_id`
    NullId,
    /// `null_in_response`
    NullInResponse,
}

impl Quirk {
    /// Every quirk, in the order of the table.
    pub const ALL: [Quirk; 12] = [
        Self::HeaderNotOfBody,
        Self::HeaderRepeated,
        Self::StatelessHeaderInSession,
        Self::HeaderNotOfSession,
        Self::NullParams,
        Self::NullCursor,
        Self::NullArguments,
        Self::NullMeta,
        Self::NullMember,
        Self::NullCapability,
        Self::NullId,
        Self::NullInResponse,
    ];

    /// The word for it in `/status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HeaderNotOfBody => "revision_header_not_of_body",
            Self::HeaderRepeated => "revision_header_repeated",
            Self::StatelessHeaderInSession => "stateless_header_in_session",
            Self::HeaderNotOfSession => "revision_header_not_of_session",
            Self::NullParams => "null_params",
            Self::NullCursor => "null_cursor",
            Self::NullArguments => "null_arguments",
            Self::NullMeta => "null_meta",
            Self::NullMember => "null_member",
            Self::NullCapability => "null_capability",
            Self::NullId => "null_id",
            Self::NullInResponse => "null_in_response",
        }
    }

    /// The client's behaviour and the gateway's reading of it: a sentence without its subject.
    pub fn told(self) -> &'static str {
        match self {
            Self::HeaderNotOfBody => {
                "names an earlier revision in MCP-Protocol-Version than in the body's _meta; the \
                 body counts"
            }
            Self::HeaderRepeated => "sends MCP-Protocol-Version repeatedly; it counts once",
            Self::StatelessHeaderInSession => {
                "names a revision without sessions in MCP-Protocol-Version inside a session; the \
                 session's counts"
            }
            Self::HeaderNotOfSession => {
                "names another revision in MCP-Protocol-Version than its session's; the \
                 session's counts"
            }
            Self::NullParams => "sends \"params\": null; that is read as none",
            Self::NullCursor => "sends \"cursor\": null; that is read as none",
            Self::NullArguments => "sends \"arguments\": null; that is read as none",
            Self::NullMeta => "sends null for \"_meta\" or in it; that is read as absent",
            Self::NullMember => "sends null for an absent parameter; that is read as absent",
            Self::NullCapability => "sends null for a capability; that is read as not declared",
            Self::NullId => "sends \"id\": null with a notification; that is read as absent",
            Self::NullInResponse => {
                "sends null for absent members of responses; they are read as absent"
            }
        }
    }
}

/// The quirks of clients that are tolerated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tolerance {
    /// The quirks of the table.
    Known,
    /// None.
    Nothing,
}

/// The one value that a header has, however often it stands, alone or in a list; none where it
/// stands once and is no list, or has several values.
pub fn repeated_value<'a>(values: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut all = values.flat_map(|value| value.split(',')).map(str::trim);
    let first = all.next()?;
    let mut is_repeated = false;
    for value in all {
        if value != first {
            return None;
        }
        is_repeated = true;
    }
    (is_repeated && Revision::parse(first).is_some()).then_some(first)
}

/// The quirk of a stateless request whose header names the revision `said` and whose body
/// declares `declared`; none where they differ in another way.
pub fn of_stateless_header(said: &str, declared: &str) -> Option<Quirk> {
    let era = |text: &str| Revision::parse(text).map(Revision::era);
    (era(said) == Some(Era::Legacy) && era(declared) == Some(Era::Modern))
        .then_some(Quirk::HeaderNotOfBody)
}

/// The quirk of a header that names another revision than the session's.
pub fn of_session_header(said: Revision) -> Quirk {
    match said.era() {
        Era::Legacy => Quirk::HeaderNotOfSession,
        Era::Modern => Quirk::StatelessHeaderInSession,
    }
}

/// A body without its nulls for absent members, and the quirks found. None where there are no
/// such nulls, or where the body is ambiguous or no JSON.
pub fn without_nulls(body: &str) -> Option<(String, Vec<Quirk>)> {
    // Most bodies have no null, which a search of the text shows.
    if !body.contains("null") || is_deeper_than(body, JSON_DEPTH_MAX) {
        return None;
    }
    let mut found = Vec::new();
    let mended = if body.trim_start().starts_with('[') {
        let elements = first_elements(body, BATCH_MESSAGES_MAX + 1).ok()?;
        if elements.len() > BATCH_MESSAGES_MAX {
            return None;
        }
        let mended = elements.iter().map(|element| match message(element, &mut found) {
            Some(mended) => mended,
            None => (*element).to_owned(),
        });
        format!("[{}]", mended.collect::<Vec<_>>().join(","))
    } else {
        message(body, &mut found)?
    };
    (!found.is_empty()).then_some((mended, found))
}

/// Optional parameters of the specification's requests and notifications, beside `_meta`: none of
/// them can be null (the revisions' schemas).
const OPTIONAL: [(&str, Quirk); 8] = [
    ("cursor", Quirk::NullCursor),
    ("arguments", Quirk::NullArguments),
    ("context", Quirk::NullMember),
    ("task", Quirk::NullMember),
    ("inputResponses", Quirk::NullMember),
    ("requestState", Quirk::NullMember),
    ("reason", Quirk::NullMember),
    ("total", Quirk::NullMember),
];
/// Optional members of `_meta`.
const OPTIONAL_IN_META: [(&str, Quirk); 3] = [
    ("progressToken", Quirk::NullMeta),
    (key::CLIENT_INFO, Quirk::NullMeta),
    (key::LOG_LEVEL, Quirk::NullMeta),
];
/// Optional members of results to servers.
const OPTIONAL_IN_RESULT: [(&str, Quirk); 3] = [
    ("_meta", Quirk::NullInResponse),
    ("content", Quirk::NullInResponse),
    ("stopReason", Quirk::NullInResponse),
];

/// One message without its nulls; none where it has none.
fn message(text: &str, found: &mut Vec<Quirk>) -> Option<String> {
    let mut fields = RawObject::parse(text).ok()?;
    let before = found.len();
    match fields.string("method").ok()? {
        Some(method) => {
            if method.starts_with("notifications/") {
                remove(&mut fields, &[("id", Quirk::NullId)], found);
            }
            remove(&mut fields, &[("params", Quirk::NullParams)], found);
            let is_known = Method::parse(&method).is_some()
                || notification::ALL.contains(&method.as_str());
            // A null in other parameters of an unknown method may have a meaning.
            let change = if is_known { params } else { of_all_methods };
            within(&mut fields, "params", found, change);
        }
        None => {
            for (absent, other) in [("error", "result"), ("result", "error")] {
                if fields.get(other).is_some_and(|text| text != "null") {
                    remove(&mut fields, &[(absent, Quirk::NullInResponse)], found);
                }
            }
            within(&mut fields, "result", found, |result, found| {
                remove(result, &OPTIONAL_IN_RESULT, found);
                roots(result, found);
            });
        }
    }
    (found.len() > before).then(|| fields.to_text())
}

/// Removes the nulls that any request or notification may have.
fn of_all_methods(params: &mut RawObject<'_>, found: &mut Vec<Quirk>) {
    remove(params, &[("_meta", Quirk::NullMeta)], found);
    within(params, "_meta", found, |meta, found| {
        remove(meta, &OPTIONAL_IN_META, found);
        within(meta, key::CLIENT_CAPABILITIES, found, capabilities);
    });
}

fn params(params: &mut RawObject<'_>, found: &mut Vec<Quirk>) {
    of_all_methods(params, found);
    remove(params, &OPTIONAL, found);
    within(params, "context", found, |context, found| {
        remove(context, &[("arguments", Quirk::NullArguments)], found);
    });
    within(params, "capabilities", found, capabilities);
}

/// Removes nulls of capabilities, which are objects, as are their members, down to flags.
fn capabilities(declared: &mut RawObject<'_>, found: &mut Vec<Quirk>) {
    let names: Vec<String> = declared.iter().map(|(name, _)| name.to_owned()).collect();
    for name in names {
        // The contents of these members have no common schema.
        if name == "experimental" || name == "extensions" {
            continue;
        }
        if declared.get(&name) == Some("null") {
            declared.remove(&name);
            found.push(Quirk::NullCapability);
        } else if let Some(text) = declared.get(&name).filter(|text| text.starts_with('{')) {
            let Ok(mut inner) = RawObject::parse(text) else { continue };
            let before = found.len();
            let nulls: Vec<String> = inner
                .iter()
                .filter(|(_, value)| *value == "null")
                .map(|(name, _)| name.to_owned())
                .collect();
            for null in nulls {
                inner.remove(&null);
                found.push(Quirk::NullCapability);
            }
            if found.len() > before {
                let text = inner.to_text();
                declared.replace(&name, text);
            }
        }
    }
}

/// Removes nulls of the roots that a client lists.
fn roots(result: &mut RawObject<'_>, found: &mut Vec<Quirk>) {
    let Some(text) = result.get("roots").filter(|text| text.contains("null")) else { return };
    let Ok(elements) = elements(text) else { return };
    let all: Result<Vec<RawObject<'_>>, _> =
        elements.into_iter().map(RawObject::parse).collect();
    let Ok(mut all) = all else { return };
    let before = found.len();
    let optional = [("name", Quirk::NullInResponse), ("_meta", Quirk::NullInResponse)];
    all.iter_mut().for_each(|root| remove(root, &optional, found));
    if found.len() > before {
        let mended: Vec<String> = all.iter().map(RawObject::to_text).collect();
        result.set("roots", format!("[{}]", mended.join(",")));
    }
}

fn remove(fields: &mut RawObject<'_>, optional: &[(&str, Quirk)], found: &mut Vec<Quirk>) {
    for (name, quirk) in optional {
        if fields.get(name) == Some("null") {
            fields.remove(name);
            found.push(*quirk);
        }
    }
}

/// Changes the object that is the member `name`.
fn within(
    fields: &mut RawObject<'_>,
    name: &'static str,
    found: &mut Vec<Quirk>,
    change: impl FnOnce(&mut RawObject<'_>, &mut Vec<Quirk>),
) {
    let Some(text) = fields.get(name).filter(|text| text.contains("null")) else { return };
    let Ok(mut inner) = RawObject::parse(text) else { return };
    let before = found.len();
    change(&mut inner, found);
    if found.len() > before {
        let text = inner.to_text();
        fields.set(name, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn mended(body: &str, expected: &str, quirks: &[Quirk]) {
        let (text, found) = without_nulls(body).unwrap_or_else(|| panic!("untouched: {body}"));
        assert_eq!((text.as_str(), found.as_slice()), (expected, quirks));
    }

    #[test]
    fn nulls_for_absent_members_are_taken_out() {
        mended(
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":null}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
            &[Quirk::NullParams],
        );
        mended(
            r#"{"method":"tools/call","params":{"name":"t","arguments":null,"_meta":null,"task":null}}"#,
            r#"{"method":"tools/call","params":{"name":"t"}}"#,
            &[Quirk::NullMeta, Quirk::NullArguments, Quirk::NullMember],
        );
        mended(
            r#"{"method":"tools/list","params":{"_meta":{"progressToken":null,"y":null},"cursor":null}}"#,
            r#"{"method":"tools/list","params":{"_meta":{"y":null}}}"#,
            &[Quirk::NullMeta, Quirk::NullCursor],
        );
        mended(
            r#"{"method":"x/y","params":{"_meta":{"progressToken":null},"cursor":null}}"#,
            r#"{"method":"x/y","params":{"_meta":{},"cursor":null}}"#,
            &[Quirk::NullMeta],
        );
        mended(
            r#"{"method":"notifications/cancelled","params":{"requestId":1,"reason":null}}"#,
            r#"{"method":"notifications/cancelled","params":{"requestId":1}}"#,
            &[Quirk::NullMember],
        );
        mended(
            r#"{"method":"completion/complete","params":{"ref":{},"context":{"arguments":null}}}"#,
            r#"{"method":"completion/complete","params":{"ref":{},"context":{}}}"#,
            &[Quirk::NullArguments],
        );
        mended(
            r#"{"method":"notifications/initialized","id":null}"#,
            r#"{"method":"notifications/initialized"}"#,
            &[Quirk::NullId],
        );
        mended(
            r#"{"method":"initialize","params":{"capabilities":{"sampling":null,"roots":{"listChanged":null},"experimental":{"x":null}}}}"#,
            r#"{"method":"initialize","params":{"capabilities":{"roots":{},"experimental":{"x":null}}}}"#,
            &[Quirk::NullCapability, Quirk::NullCapability],
        );
    }

    #[test]
    fn responses_lose_what_they_do_not_have() {
        mended(
            r#"{"id":1,"result":{"action":"decline","content":null},"error":null}"#,
            r#"{"id":1,"result":{"action":"decline"}}"#,
            &[Quirk::NullInResponse, Quirk::NullInResponse],
        );
        mended(
            r#"{"id":1,"result":null,"error":{"code":1,"message":"m"}}"#,
            r#"{"id":1,"error":{"code":1,"message":"m"}}"#,
            &[Quirk::NullInResponse],
        );
        mended(
            r#"{"id":1,"result":{"roots":[{"uri":"a:b","name":null}]}}"#,
            r#"{"id":1,"result":{"roots":[{"uri":"a:b"}]}}"#,
            &[Quirk::NullInResponse],
        );
    }

    #[test]
    fn a_batch_is_mended_message_by_message() {
        mended(
            r#"[{"method":"ping","params":null}, 7]"#,
            r#"[{"method":"ping"},7]"#,
            &[Quirk::NullParams],
        );
    }

    #[test]
    fn nulls_that_mean_something_or_could_mean_two_things_stay() {
        for body in [
            "null",
            "[null]",
            r#"{"method":"tools/call","id":null}"#,
            r#"{"method":"tools/call","params":{"name":null}}"#,
            r#"{"method":"tools/call","params":{"name":"t","arguments":{"x":null}}}"#,
            r#"{"method":"tools/call","params":{"arguments":null,"arguments":{}}}"#,
            r#"{"method":"ping","params":null,"params":{}}"#,
            r#"{"method":"ping","params":{"uri":null},"x":null}"#,
            r#"{"method":"x/y","params":{"reason":null,"cursor":null,"capabilities":{"z":null}}}"#,
            r#"{"method":"notifications/x","params":{"reason":null}}"#,
            r#"{"id":1,"result":null,"error":null}"#,
            r#"{"method":null,"params":null"#,
        ] {
            assert_eq!(without_nulls(body), None, "{body}");
        }
    }

    #[test]
    fn a_repeated_field_has_one_value_or_none() {
        let of = |values: &[&'static str]| repeated_value(values.iter().copied());
        assert_eq!(of(&["2025-11-25, 2025-11-25"]), Some("2025-11-25"));
        assert_eq!(of(&["2025-11-25", " 2025-11-25"]), Some("2025-11-25"));
        for other in [
            &["2025-11-25"][..],
            &["2025-11-25,"],
            &["2025-11-25", "2026-07-28"],
            &["2025-11-25,2025-06-18"],
            &["x", "x"],
            &[],
        ] {
            assert_eq!(of(other), None, "{other:?}");
        }
    }

    #[test]
    fn each_quirk_has_a_word_and_a_row_of_its_own() {
        let source = include_str!("quirks.rs");
        let rows = source.lines().filter(|line| line.starts_with("//! | `")).count();
        assert_eq!(rows, Quirk::ALL.len());
        for quirk in Quirk::ALL {
            assert!(source.contains(&format!("//! | `{}` |", quirk.as_str())), "{quirk:?}");
            assert!(!quirk.told().is_empty());
        }
    }
}
