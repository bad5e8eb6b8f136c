//! Names of the headers that the transports use.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The id of a legacy Streamable HTTP session.
pub const SESSION_ID: &str = "Mcp-Session-Id";
/// A proof that the client has the key of its access token (RFC 9449, section 4.1).
pub const DPOP: &str = "dpop";
/// The protocol revision in force.
pub const PROTOCOL_VERSION: &str = "MCP-Protocol-Version";
/// The id of the last event that a client has received of the stream which it wants to resume.
pub const LAST_EVENT_ID: &str = "Last-Event-ID";
/// The servers to which a request or a session is narrowed.
pub const SERVERS: &str = "x-mcp-servers";
/// The request's id for logs.
pub const REQUEST_ID: &str = "X-Request-Id";
/// The trace and the span to which a request belongs (W3C Trace Context).
pub const TRACEPARENT: &str = "traceparent";
/// Additions of tracing systems to `traceparent`.
pub const TRACESTATE: &str = "tracestate";
/// The media type of plain responses.
pub const JSON: &str = "application/json";
/// The media type of streams.
pub const EVENT_STREAM: &str = "text/event-stream";

/// The method of a modern request, mirrored from its body.
pub const METHOD: &str = "Mcp-Method";
/// The name or URI that a modern request is about, mirrored from its body.
pub const NAME: &str = "Mcp-Name";
/// Headers that mirror values of the body of a stateless request.
pub const MIRRORED: [&str; 3] = [PROTOCOL_VERSION, METHOD, NAME];

/// Headers that may stand once in a request (RFC 9110, section 5.3): none of them is a list.
const SINGLE: [&str; 10] = [
    SESSION_ID,
    PROTOCOL_VERSION,
    METHOD,
    NAME,
    LAST_EVENT_ID,
    "Authorization",
    "x-api-key",
    "x-litellm-api-key",
    "Origin",
    "Content-Type",
];

/// The first header that stands again though it may stand once, of a request's field names.
pub fn repeated<'a>(names: impl Iterator<Item = &'a str>) -> Option<&'static str> {
    let mut seen = [false; SINGLE.len()];
    for name in names {
        let known = SINGLE.iter().zip(&mut seen);
        for (single, seen) in known.filter(|(single, _)| single.eq_ignore_ascii_case(name)) {
            if std::mem::replace(seen, true) {
                return Some(single);
            }
        }
    }
    None
}

/// The beginning of the names of headers that mirror tool parameters.
pub const PARAM_PREFIX: &str = "Mcp-Param-";
/// The beginning and the end of an encoded value (2026-07-28, basic/transports/streamable-http,
/// Value Encoding).
const SENTINEL: (&str, &str) = ("=?base64?", "?=");

/// A value as a header carries it: unchanged, or encoded where a header cannot carry it
/// unchanged.
pub fn encode_value(value: &str) -> Cow<'_, str> {
    let is_plain = value.bytes().all(|b| matches!(b, 0x20..=0x7e))
        && !value.is_empty()
        && value.trim_matches(' ').len() == value.len()
        && !(value.starts_with(SENTINEL.0) && value.ends_with(SENTINEL.1));
    if is_plain {
        return Cow::Borrowed(value);
    }
    Cow::Owned(format!("{}{}{}", SENTINEL.0, STANDARD.encode(value), SENTINEL.1))
}

/// The value that a header carries; none where its encoding is broken.
pub fn decode_value(header: &str) -> Option<Cow<'_, str>> {
    let encoded =
        header.strip_prefix(SENTINEL.0).and_then(|rest| rest.strip_suffix(SENTINEL.1));
    match encoded {
        None => Some(Cow::Borrowed(header)),
        Some(encoded) => {
            let bytes = STANDARD.decode(encoded).ok()?;
            String::from_utf8(bytes).ok().map(Cow::Owned)
        }
    }
}

/// True if a `Content-Type` value declares JSON. Parameters are ignored.
pub fn is_json(content_type: &str) -> bool {
    media_type(content_type).eq_ignore_ascii_case(JSON)
}

/// True if a `Content-Type` value declares an event stream. Parameters are ignored.
pub fn is_event_stream(content_type: &str) -> bool {
    media_type(content_type).eq_ignore_ascii_case(EVENT_STREAM)
}

fn media_type(value: &str) -> &str {
    value.split(';').next().unwrap_or("").trim()
}

/// True if an `Accept` value admits `wanted` (`type/subtype`): by name, `type/*` or `*/*`, and
/// not by `q=0`. An absent header admits everything.
pub fn accepts(accept: Option<&str>, wanted: &str) -> bool {
    let Some(accept) = accept else { return true };
    let wanted_kind = wanted.split('/').next().unwrap_or("");
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or("");
        let refused = parts.any(|part| {
            part.strip_prefix("q=")
                .is_some_and(|q| q.trim().parse::<f32>().is_ok_and(|q| q == 0.0))
        });
        let kind = name.strip_suffix("/*");
        !refused
            && (name.eq_ignore_ascii_case(wanted)
                || name == "*/*"
                || kind.is_some_and(|kind| kind.eq_ignore_ascii_case(wanted_kind)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_where_they_must_be_and_read_back() {
        for (value, header) in [
            ("us-west1", "us-west1"),
            ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
            ("", "=?base64??="),
        ] {
            assert_eq!(encode_value(value), header);
            assert_eq!(decode_value(header).as_deref(), Some(value));
        }
        assert_eq!(decode_value("=?base64?%?="), None);
    }

    #[test]
    fn a_field_that_is_no_list_may_stand_once() {
        let of = |names: &[&'static str]| repeated(names.iter().copied());
        assert_eq!(of(&["Host", "Mcp-Method", "Accept", "Accept", "x-mcp-servers"]), None);
        assert_eq!(of(&["Mcp-Method", "Mcp-Name", "MCP-METHOD"]), Some(METHOD));
        assert_eq!(of(&["origin", "Origin"]), Some("Origin"));
    }

    #[test]
    fn accept_is_read_as_http_says() {
        for (accept, ok) in [
            ("application/json, text/event-stream", true),
            ("*/*", true),
            ("text/*;q=0.5", true),
            ("application/json", false),
            ("text/event-stream;q=0", false),
            ("text/event-stream; charset=utf-8", true),
            ("", false),
        ] {
            assert_eq!(accepts(Some(accept), EVENT_STREAM), ok, "{accept:?}");
        }
        assert!(accepts(None, EVENT_STREAM));
    }

    #[test]
    fn content_type_parameters_do_not_matter() {
        assert!(is_json("Application/JSON; charset=utf-8"));
        assert!(!is_json("text/plain"));
    }
}
