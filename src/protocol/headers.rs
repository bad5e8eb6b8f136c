//! Names of the headers that the transports use.

/// The session of a legacy Streamable HTTP request.
pub const SESSION_ID: &str = "Mcp-Session-Id";
/// The revision in force.
pub const PROTOCOL_VERSION: &str = "MCP-Protocol-Version";
/// The last event that a client has of the stream which it wants to resume.
pub const LAST_EVENT_ID: &str = "Last-Event-ID";
/// Narrows one request or session to some servers.
pub const SERVERS: &str = "x-mcp-servers";
/// The media type of plain answers.
pub const JSON: &str = "application/json";
/// The media type of streams.
pub const EVENT_STREAM: &str = "text/event-stream";

/// Whether a `Content-Type` value declares JSON. Parameters are ignored.
pub fn is_json(content_type: &str) -> bool {
    media_type(content_type).eq_ignore_ascii_case(JSON)
}

/// Whether a `Content-Type` value declares an event stream. Parameters are ignored.
pub fn is_event_stream(content_type: &str) -> bool {
    media_type(content_type).eq_ignore_ascii_case(EVENT_STREAM)
}

fn media_type(value: &str) -> &str {
    value.split(';').next().unwrap_or("").trim()
}

/// Whether an `Accept` value admits `wanted` (`type/subtype`): by name, `type/*` or `*/*`, and
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
