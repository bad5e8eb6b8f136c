//! What an HTTP status without success means over Streamable HTTP: the session's end, the era, the
//! transport, or a refusal of this one request.

use std::borrow::Cow;
use std::sync::Arc;

use crate::limits::UPSTREAM_DRAIN_BYTES_MAX;
use crate::protocol::headers::is_event_stream;
use crate::protocol::jsonrpc::{RpcError, code};
use crate::protocol::modern::is_modern_error;
use crate::protocol::raw::{Raw, RawObject};

use super::http::HttpContext;
use crate::upstream::failure::{Failure, FailureKind, Refusal};
use crate::upstream::http_client::HttpResponse;
use crate::upstream::message::{self, Incoming};
use crate::upstream::session::renewal::speaks_of_session;

/// A request that was POSTed.
#[derive(Clone, Copy)]
pub(crate) struct SentRequest {
    pub(crate) id: u64,
    pub(crate) phase: Phase,
    /// It was refused before, on a session that seemed to be lost.
    pub(crate) is_replay: bool,
}

/// Tells a POST that opens a session from one that belongs to a session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Opening,
    WithoutId,
    WithId,
}

/// Whether a status is about who asks, or how often, or about how the server is at present, and
/// says nothing of what it speaks.
pub(crate) fn is_of_the_moment(status: u16) -> bool {
    matches!(status, 401 | 403 | 407 | 408 | 425 | 429 | 500..)
}

/// Whether a status is about the key of a request.
pub(crate) fn is_of_key(status: u16) -> bool {
    matches!(status, 401 | 403)
}

/// What a body without success says to people: of an object the text of its error, else all.
pub(crate) fn said_in(body: &str) -> Cow<'_, str> {
    let text = |object: &RawObject<'_>, key: &str| object.string(key).ok().flatten();
    let Ok(fields) = RawObject::parse(body.trim()) else { return body.into() };
    let nested = fields.get("error").and_then(|error| RawObject::parse(error).ok());
    if let Some(message) = nested.and_then(|error| text(&error, "message")) {
        return message.into();
    }
    // A code and what it means (RFC 6749, 5.2), or one of the usual names.
    let (code, meant) = (text(&fields, "error"), text(&fields, "error_description"));
    let other = || ["message", "detail"].iter().find_map(|key| text(&fields, key));
    match (code, meant.or_else(other)) {
        (Some(code), Some(meant)) => format!("{code}: {meant}").into(),
        (Some(said), None) | (None, Some(said)) => said.into(),
        (None, None) => body.into(),
    }
}

/// Whether a session is gone for certain (2025-11-25, basic/transports, Session Management).
pub(crate) fn is_certain(failure: &Failure) -> bool {
    failure.kind == FailureKind::SessionGone
        && failure.refusal.as_ref().is_some_and(|refusal| refusal.status == 404)
}

/// What an answer to a GET means.
pub(crate) enum Verdict {
    /// It is a stream.
    Stream,
    /// The server has none to offer.
    NoStream,
    /// The session has ended.
    SessionGone,
    /// The server refuses what it gave before: the session may have ended.
    Doubtful,
    /// The server failed or is busy; it may do better later.
    Later,
}

/// `was_open`: the session has an id, and the server has given a stream on it before.
pub(crate) fn verdict(answer: &HttpResponse<'_>, was_open: bool) -> Verdict {
    match answer.status {
        200 if answer.header("content-type").is_some_and(is_event_stream) => Verdict::Stream,
        404 if was_open => Verdict::SessionGone,
        400 | 401 if was_open => Verdict::Doubtful,
        408 | 429 | 500.. => Verdict::Later,
        _ => Verdict::NoStream,
    }
}

pub(crate) fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

/// The beginning of a body that is told in an error.
pub(crate) fn error_text(answer: &mut HttpResponse<'_>) -> String {
    let body = answer.read_to_end(UPSTREAM_DRAIN_BYTES_MAX, "a bound");
    String::from_utf8_lossy(&body.unwrap_or_default()).into_owned()
}

/// Whether only a server without sessions refuses so. It may not look at what it was asked for,
/// and miss the `_meta` that its own requests have.
fn is_other_era(phase: Phase, error: &RpcError) -> bool {
    // What a client must be capable of, those with sessions say too.
    let is_modern =
        is_modern_error(error.code) && error.code != code::MISSING_CLIENT_CAPABILITY;
    is_modern
        || (phase != Phase::Opening
            && error.code == code::INVALID_PARAMS
            && error.message.contains("_meta")
            && error.message.contains("io.modelcontextprotocol/"))
}

/// What an answer without success means: an error response of the server's, or a failure.
pub(crate) fn refusal(
    http: &HttpContext,
    answer: &HttpResponse<'_>,
    text: &str,
    sent: SentRequest,
) -> Result<Result<Raw, RpcError>, Failure> {
    let mut error = None;
    // It is small, and read to its end.
    let read = message::read(&Arc::new(text.to_owned()), &|| true, |incoming| {
        if let Incoming::Answer { id: Some(id), outcome: Err(it) } = incoming
            && id == sent.id
        {
            error = Some(it);
        }
    });
    let error = read.ok().and(error);
    // Only these codes speak of the session where an error is about this very request; and if
    // another session did not cure it, it was not that either.
    let own = error.as_ref().is_some_and(|error| {
        let codes = [code::BAD_REQUEST, code::SESSION_NOT_FOUND, code::INVALID_REQUEST];
        sent.is_replay || !codes.contains(&error.code)
    });
    let speaks_of_session = match &error {
        Some(_) => text.to_ascii_lowercase().contains("session"),
        None => speaks_of_session(text),
    };
    let session_gone = match (answer.status, sent.phase) {
        _ if own => false,
        (404, Phase::WithId) => error
            .as_ref()
            .is_none_or(|e| e.code == code::SESSION_NOT_FOUND || speaks_of_session),
        (400, Phase::WithId | Phase::WithoutId) => speaks_of_session,
        (401, Phase::WithId | Phase::WithoutId) => error.is_none() && speaks_of_session,
        _ => false,
    };
    let is_modern = error.as_ref().is_some_and(|error| is_other_era(sent.phase, error));
    let kind = match (answer.status, sent.phase) {
        _ if session_gone => FailureKind::SessionGone,
        _ if is_modern => FailureKind::Refused(Refusal::OtherEra),
        (400 | 404 | 405, Phase::Opening) => FailureKind::Refused(Refusal::MaybeHttpSse),
        _ => match error {
            // What its head says would be lost.
            Some(error) if answer.refusal().says_more() => {
                let kind = FailureKind::Refused(Refusal::Plain);
                return Err(http.refused(kind, answer, &error.message));
            }
            Some(error) => return Ok(Err(error)),
            None => FailureKind::Refused(Refusal::Plain),
        },
    };
    Err(http.refused(kind, answer, text))
}

#[cfg(test)]
mod tests {
    use super::said_in;

    #[test]
    fn of_a_body_the_words_for_people_are_told() {
        for (body, said) in [
            (r#"{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"no key"}}"#, "no key"),
            (r#"{"error":"invalid_token","error_description":"over"}"#, "invalid_token: over"),
            (r#"{"detail":"Not Found"}"#, "Not Found"),
            (r#"{"error":{"message":7}}"#, r#"{"error":{"message":7}}"#),
            ("no such page", "no such page"),
            ("", ""),
        ] {
            assert_eq!(said_in(body), said, "{body}");
        }
    }
}
