//! Pure: what a message from an upstream means.

use std::sync::Arc;

use crate::limits::{JSON_DEPTH_MAX, JSON_PIECE_BYTES, UPSTREAM_BATCH_MESSAGES_MAX};
use crate::protocol::call::{Kind, Notice};
use crate::protocol::from_server::is_understood;
use crate::protocol::jsonrpc::{self, Message, RequestId, RpcError};
use crate::protocol::method::notification;
use crate::protocol::raw::{Keeper, Raw, RawObject, is_deeper_than};
use crate::protocol::scan::{self, GoOn, NotRead};
use crate::wait::Interrupted;

/// One message as far as the gateway cares.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming {
    /// The answer to a request of ours; without an id where the upstream could not read it.
    Answer { id: Option<u64>, outcome: Result<Raw, RpcError> },
    /// How far the call under this id has come.
    Progress { id: u64, params: Raw },
    /// The lists of this kind have changed; [`Kind::Resource`] stands for templates too.
    ListChanged(Kind),
    /// It no longer wants an answer to its request of that id.
    Withdrawn(RequestId),
    /// Any other notification.
    Notice(Notice),
    /// A notification that the specification knows and that is not what its name says.
    Misread { method: String },
    /// A request of the upstream's.
    Ask { id: RequestId, method: String, params: Option<Raw> },
    /// Meant as the answer to a request of ours, and none; the text says why, and quotes nothing
    /// of it.
    Malformed { id: u64, what: String },
    /// No message; the text says why.
    Nonsense(String),
}

/// Nobody waits any more for what was being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stopped;

/// Reads a text that holds a message, or an array of them (2025-03-26 only, but harmless). Costs
/// a few passes over the text, whatever it holds; one that is large is read as long as `go_on`.
///
/// # Errors
/// It did not go on; what stands before was given.
pub(super) fn read(
    text: &Arc<String>,
    go_on: GoOn<'_>,
    mut give: impl FnMut(Incoming),
) -> Result<(), Stopped> {
    if text.trim_start().starts_with('[') {
        match jsonrpc::batch(text, UPSTREAM_BATCH_MESSAGES_MAX, go_on) {
            Ok(parts) => {
                for part in parts {
                    give(read_one(text, part, go_on)?);
                }
            }
            Err(NotRead::Stopped) => return Err(Stopped),
            Err(NotRead::TooDeep) => give(Incoming::Nonsense(too_deep())),
            Err(NotRead::Wrong(what)) => {
                give(Incoming::Nonsense(format!("it is no batch of messages: {what}")));
            }
        }
        return Ok(());
    }
    give(read_one(text, text, go_on)?);
    Ok(())
}

/// [`read`], where `keeper` goes with the memory of `text`.
pub(super) fn read_kept(
    text: &Arc<String>,
    keeper: &Option<Keeper>,
    go_on: GoOn<'_>,
    mut give: impl FnMut(Incoming),
) -> Result<(), Stopped> {
    read(text, go_on, |mut incoming| {
        if let Incoming::Answer { outcome: Ok(raw), .. }
        | Incoming::Progress { params: raw, .. }
        | Incoming::Ask { params: Some(raw), .. }
        | Incoming::Notice(
            Notice::Progress(raw)
            | Notice::Log(raw)
            | Notice::ResourceUpdated(raw)
            | Notice::Other { params: Some(raw), .. },
        ) = &mut incoming
        {
            raw.keep(keeper);
        }
        give(incoming);
    })
}

fn read_one(buffer: &Arc<String>, text: &str, go_on: GoOn<'_>) -> Result<Incoming, Stopped> {
    let fields = if text.len() > JSON_PIECE_BYTES {
        match scan::object(text, go_on) {
            Ok(fields) => fields,
            Err(NotRead::Stopped) => return Err(Stopped),
            Err(NotRead::TooDeep) => return Ok(unreadable(text, too_deep())),
            Err(NotRead::Wrong(what)) => {
                return Ok(unreadable(text, format!("The message is no JSON object: {what}.")));
            }
        }
    } else if is_deeper_than(text, JSON_DEPTH_MAX) {
        return Ok(unreadable(text, too_deep()));
    } else {
        match RawObject::parse(text) {
            Ok(fields) => fields,
            Err(error) => {
                return Ok(unreadable(
                    text,
                    format!("The message is no JSON object: {error}."),
                ));
            }
        }
    };
    let has_method = fields.get("method").is_some();
    Ok(match Message::of(fields) {
        Ok(Message::Response { id, outcome }) => Incoming::Answer {
            id: id.as_ref().and_then(number),
            outcome: outcome.map(|result| Raw::part_of(buffer, &result)),
        },
        Ok(Message::Request { id, method, params }) => {
            let params = params.map(|params| Raw::part_of(buffer, &params));
            Incoming::Ask { id, method, params }
        }
        Ok(Message::Notification { method, params }) => {
            let params = params.map(|params| Raw::part_of(buffer, &params));
            read_notification(method, params)
        }
        Err(malformed) => match malformed.id.as_ref().and_then(number) {
            // Not a request of the upstream's, whose ids are its own.
            Some(id) if !has_method => {
                Incoming::Malformed { id, what: malformed.error.message }
            }
            _ => unreadable(text, malformed.error.message),
        },
    })
}

fn too_deep() -> String {
    format!("it is nested deeper than {JSON_DEPTH_MAX} levels")
}

/// A text that cannot be read as a message.
fn unreadable(text: &str, what: String) -> Incoming {
    match id_of_unreadable(text) {
        Some(id) => Incoming::Malformed { id, what },
        None => Incoming::Nonsense(what),
    }
}

/// The id of what was meant as a response, and is no JSON or is nested too deep: it stands before
/// the result or the error, or behind it, at the very end.
pub(super) fn id_of_unreadable(text: &str) -> Option<u64> {
    let text = text.trim();
    if !text.starts_with('{') || !text.contains("\"jsonrpc\"") {
        return None;
    }
    let at = ["\"result\"", "\"error\""].into_iter().filter_map(|key| text.find(key)).min()?;
    let head = text.get(..at)?;
    if head.contains("\"method\"") {
        return None;
    }
    let digits = |at: usize| -> Option<(u64, &str)> {
        let rest = text.get(at..)?.strip_prefix("\"id\"")?.trim_start().strip_prefix(':')?;
        let rest = rest.trim_start();
        let n = rest.bytes().take_while(u8::is_ascii_digit).count();
        Some((rest.get(..n)?.parse().ok()?, rest.get(n..)?))
    };
    let before = head.find("\"id\"").and_then(digits);
    let behind = || {
        let last = text.rfind("\"id\"").and_then(digits);
        last.filter(|(_, rest)| rest.split_whitespace().eq(["}"]))
    };
    before.or_else(behind).map(|(id, _)| id)
}

fn read_notification(method: String, params: Option<Raw>) -> Incoming {
    let changed = [Kind::Tool, Kind::Prompt, Kind::Resource];
    if let Some(kind) = changed.into_iter().find(|kind| kind.changed() == method) {
        return Incoming::ListChanged(kind);
    }
    // The commonest one is read once.
    if method == notification::PROGRESS {
        let id = params.as_ref().and_then(|params| progress_token(params.get()));
        return match (id, params) {
            (Some(id), Some(params)) => Incoming::Progress { id, params },
            (_, _) => Incoming::Misread { method },
        };
    }
    if !is_understood(&method, params.as_ref().map(Raw::get)) {
        return Incoming::Misread { method };
    }
    let Some(params) = params else {
        return Incoming::Notice(Notice::Other { method, params: None });
    };
    match method.as_str() {
        notification::MESSAGE => Incoming::Notice(Notice::Log(params)),
        notification::RESOURCES_UPDATED => Incoming::Notice(Notice::ResourceUpdated(params)),
        notification::CANCELLED => match withdrawn(params.get()) {
            Some(id) => Incoming::Withdrawn(id),
            None => Incoming::Misread { method },
        },
        _ => Incoming::Notice(Notice::Other { method, params: Some(params) }),
    }
}

/// One of our ids; some servers give a number back as a string.
fn number(id: &RequestId) -> Option<u64> {
    id.as_u64().or_else(|| id.as_json().trim_matches('"').parse().ok())
}

fn progress_token(params: &str) -> Option<u64> {
    let fields = RawObject::parse(params).ok()?;
    number(&RequestId::parse(fields.get("progressToken")?)?)
}

/// The request that the upstream takes back.
fn withdrawn(params: &str) -> Option<RequestId> {
    RequestId::parse(RawObject::parse(params).ok()?.get("requestId")?)
}

/// The id of a response that is too large to be read, from its two ends: it stands near the
/// beginning or near the end, as servers write it.
pub(super) fn id_of_oversized(head: &str, tail: &str) -> Option<u64> {
    let after = |text: &str, at: Option<usize>| -> Option<u64> {
        let rest = text.get(at?..)?.strip_prefix("\"id\"")?.trim_start().strip_prefix(':')?;
        let rest = rest.trim_start();
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        rest.get(..digits)?.parse().ok()
    };
    let result_at = head.find("\"result\"").unwrap_or(head.len());
    let before_result = head.get(..result_at).unwrap_or_default();
    after(before_result, before_result.find("\"id\""))
        .or_else(|| after(tail, tail.rfind("\"id\"")))
}

/// The text that tells an upstream that nobody wants the answer to `id` any more.
pub(crate) fn cancelled(id: u64, reason: Interrupted) -> String {
    let reason = match reason {
        Interrupted::Cancelled => "the client cancelled the request",
        Interrupted::ClientGone => "the client has gone",
        Interrupted::Deadline => "the time for the call is over",
        Interrupted::Stopping => "the gateway is stopping",
        Interrupted::Retired => "the configuration of this server has changed",
    };
    let params = format!("{{\"requestId\":{id},\"reason\":\"{reason}\"}}");
    jsonrpc::notification(notification::CANCELLED, Some(&params))
}

/// The text that ends a `subscriptions/listen` request in whose place another one is.
pub(crate) fn superseded(id: u64) -> String {
    let params = format!("{{\"requestId\":{id},\"reason\":\"another one is in its place\"}}");
    jsonrpc::notification(notification::CANCELLED, Some(&params))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<Incoming> {
        let mut got = Vec::new();
        read(&Arc::new(text.to_owned()), &|| true, |incoming| got.push(incoming)).unwrap();
        got
    }

    #[test]
    fn messages_are_told_apart() {
        let answer = all(r#"{"jsonrpc":"2.0","id":7,"result":{"a":1}}"#);
        let raw = Raw::from_valid(r#"{"a":1}"#.to_owned());
        assert_eq!(answer, [Incoming::Answer { id: Some(7), outcome: Ok(raw) }]);
        let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":7,"progress":1}}"#;
        assert!(matches!(all(progress)[..], [Incoming::Progress { id: 7, .. }]));
        let changed = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
        assert_eq!(all(changed), [Incoming::ListChanged(Kind::Tool)]);
        assert!(matches!(all("hello")[..], [Incoming::Nonsense(_)]));
    }

    #[test]
    fn a_malformed_answer_is_known_by_its_id() {
        let id = |text: &str| match all(text).remove(0) {
            Incoming::Malformed { id, what } => {
                assert!(!what.contains("secret"), "{what}");
                Some(id)
            }
            Incoming::Nonsense(_) => None,
            Incoming::Answer { .. }
            | Incoming::Progress { .. }
            | Incoming::ListChanged(_)
            | Incoming::Withdrawn(_)
            | Incoming::Notice(_)
            | Incoming::Misread { .. }
            | Incoming::Ask { .. } => panic!("{text}"),
        };
        for text in [
            r#"{"jsonrpc":"2.0","id":7,"error":"secret"}"#,
            r#"{"jsonrpc":"2.0","id":"7","error":"secret"}"#,
            r#"{"jsonrpc":"2.0","id":7,"error":{"code":1}}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":{"x":NaN,"y":"secret"}}"#,
            r#"{"jsonrpc":"2.0","result":{"id":9,"y":secret},"id": 7 }"#,
            r#"{"jsonrpc":"2.0","id":7,"result":{"y":"secret"#,
            r#"{"jsonrpc":"2.0","id":7,"result":{},"error":{"code":1,"message":"secret"}}"#,
            r#"{"jsonrpc":"2.0","id":7}"#,
            r#"{"id":7,"result":{}}"#,
            &format!(r#"{{"jsonrpc":"2.0","id":7,"result":{}}}"#, "[".repeat(100_000)),
        ] {
            assert_eq!(id(text), Some(7), "{text:.100}");
        }
        for text in [
            r#"{"jsonrpc":"2.0","id":7,"method":"x","params":[]}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"x","params":{"result":NaN}}"#,
            r#"{"jsonrpc":"2.0","error":{"code":1}}"#,
            r#"{"jsonrpc":"2.0","result":{"x":NaN,"id":7}}"#,
            r#"{"level":"info","id":7,"msg":"#,
            "Listening on 7",
        ] {
            assert_eq!(id(text), None, "{text}");
        }
    }

    #[test]
    fn a_batch_is_read_message_by_message() {
        let text = r#"[{"jsonrpc":"2.0","id":1,"result":{}},{"jsonrpc":"2.0","method":"x"}]"#;
        assert!(matches!(
            all(text)[..],
            [Incoming::Answer { id: Some(1), .. }, Incoming::Notice(Notice::Other { .. })]
        ));
        assert!(matches!(all("[0,0,0]")[..], [Incoming::Nonsense(_)]));
    }

    #[test]
    fn notifications_are_told_apart() {
        let notice = |method: &str, params: &str| {
            let text = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#);
            let first = all(&text).remove(0);
            let Incoming::Notice(notice) = first else { panic!("{first:?}") };
            notice
        };
        assert!(matches!(notice("notifications/message", "{}"), Notice::Log(_)));
        let updated = notice("notifications/resources/updated", r#"{"uri":"a:b"}"#);
        assert!(matches!(updated, Notice::ResourceUpdated(_)));
        let withdrawn = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"q"}}"#;
        assert_eq!(all(withdrawn), [Incoming::Withdrawn(RequestId::parse("\"q\"").unwrap())]);
        assert!(matches!(notice("notifications/x", "{}"), Notice::Other { .. }));
        let changed = r#"{"jsonrpc":"2.0","method":"notifications/resources/list_changed"}"#;
        assert_eq!(all(changed), [Incoming::ListChanged(Kind::Resource)]);
    }

    #[test]
    fn a_request_is_kept_as_it_is() {
        let ask = all(r#"{"jsonrpc":"2.0","id":1,"method":"roots/list","params":{"a":1}}"#);
        let params = Some(Raw::from_valid(r#"{"a":1}"#.to_owned()));
        let (id, method) = (RequestId::from(1), "roots/list".to_owned());
        assert_eq!(ask, [Incoming::Ask { id, method, params }]);
    }

    #[test]
    fn what_is_nested_too_deep_is_no_message() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        let answer =
            |n: usize| format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"x":{}}}}}"#, deep(n));
        assert!(matches!(all(&answer(JSON_DEPTH_MAX - 2))[..], [Incoming::Answer { .. }]));
        assert!(matches!(all(&answer(200_000))[..], [Incoming::Malformed { id: 1, .. }]));
        assert!(matches!(all(&deep(200_000))[..], [Incoming::Nonsense(_)]));
    }

    #[test]
    fn the_id_of_an_oversized_answer_is_found_at_either_end() {
        let head = r#"{"jsonrpc":"2.0","id": 12,"result":{"content":["#;
        assert_eq!(id_of_oversized(head, "x"), Some(12));
        let head = r#"{"result":{"content":[{"id":5"#;
        assert_eq!(id_of_oversized(head, r#"]},"jsonrpc":"2.0","id":13}"#), Some(13));
        assert_eq!(id_of_oversized("xxxx", "yyyy"), None);
    }

    #[test]
    fn a_large_answer_is_read_as_long_as_somebody_waits_for_it() {
        let filling = "0,".repeat(JSON_PIECE_BYTES);
        let answer = format!(r#"{{"jsonrpc":"2.0","id":7,"result":{{"x":[{filling}0]}}}}"#);
        let batch = format!("[{answer}]");
        for text in [&answer, &batch] {
            assert!(matches!(all(text)[..], [Incoming::Answer { id: Some(7), .. }]));
            let text = Arc::new(text.clone());
            let read = read(&text, &|| false, |incoming| panic!("{incoming:?}"));
            assert_eq!(read, Err(Stopped));
        }
        let broken = answer.replace("0]", "nonsense]");
        assert!(matches!(all(&broken)[..], [Incoming::Malformed { id: 7, .. }]));
        let deep = format!("{}{}", "[".repeat(JSON_DEPTH_MAX), "]".repeat(JSON_DEPTH_MAX));
        let deep = answer.replace("0]", &format!("{deep}]"));
        assert!(matches!(all(&deep)[..], [Incoming::Malformed { id: 7, .. }]));
    }
}
