//! The bounds that an operator may move, and their defaults.

use std::time::Duration;

/// The bounds that `config.json` may move. Defaults are the contract's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at once; each holds one thread of the pool. More get 503.
    pub connections: usize,
    /// Connections open at once from one address. Loopback and Unix peers are exempt.
    pub connections_per_address: usize,
    /// Bytes of all bodies and results held at once. More get 503.
    pub buffered_bytes: usize,
    /// Bytes of one request head. More get 431.
    pub head_bytes: usize,
    /// Header fields of one request. More get 431.
    pub headers: usize,
    /// Bytes of one request body. More get 413.
    pub body_bytes: usize,
    /// From the first byte of a head to its last; 408 past it.
    pub head: Duration,
    /// From the end of the head to the last byte of the body; 408 past it.
    pub body: Duration,
    /// How long a kept-alive connection may stay silent before it is closed.
    pub idle: Duration,
    /// How long one write may stall before the connection is closed.
    pub write: Duration,
    /// Sessions open at once, with those that have ended and are still to be tidied up after.
    /// More get 503.
    pub sessions: usize,
    /// Sessions open at once under one key. More get 503.
    pub sessions_per_key: usize,
    /// A session unused for so long ends.
    pub session_idle: Duration,
    /// How long an upstream's request to a client may stay open.
    pub parked: Duration,
    /// Calls of stateless clients that wait for a retry. More are cancelled and say so.
    pub parked_calls: usize,
    /// Those of one key.
    pub parked_calls_per_key: usize,
    /// Items of one page of a list.
    pub page_items: usize,
    /// Long-lived SSE responses open at once. More get 503.
    pub streams: usize,
    /// Bytes that wait behind the event being written to one stream; its client is dropped past it.
    pub stream_queue_bytes: usize,
    /// Between two comment lines on a silent stream.
    pub heartbeat: Duration,
    /// Events kept of one stream for a client that resumes it; the oldest go. 0 keeps none, and
    /// events have no ids then.
    pub event_log_events: usize,
    /// Bytes of the events kept of one stream; the oldest go. A larger one is not kept.
    pub event_log_bytes: usize,
    /// Bytes of one upstream result. More is a 502 naming this bound. Also bytes of all items of
    /// one list, where [`super::LIST_BYTES_MAX`] is not less; the rest is left out.
    pub upstream_result_bytes: usize,
    /// Bytes of one upstream SSE event, or of one line from a child.
    pub upstream_event_bytes: usize,
    /// Tools taken from one upstream; the rest is left out.
    pub upstream_tools: usize,
    /// Servers' lists as only clients with certain capabilities see them; the one that was not
    /// used for longest goes.
    pub views: usize,
    /// Lines of a child's standard error kept for `/status`.
    pub child_stderr_lines: usize,
    /// How long calls in flight may take to finish at a stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 1024,
            connections_per_address: 512,
            buffered_bytes: 268_435_456,
            head_bytes: 32_768,
            headers: 100,
            body_bytes: 4_194_304,
            head: Duration::from_secs(10),
            body: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            write: Duration::from_secs(20),
            sessions: 10_000,
            sessions_per_key: 1000,
            session_idle: Duration::from_secs(1800),
            parked: Duration::from_secs(300),
            parked_calls: 256,
            parked_calls_per_key: 32,
            page_items: 1000,
            streams: 4096,
            stream_queue_bytes: 262_144,
            heartbeat: Duration::from_secs(15),
            event_log_events: 256,
            event_log_bytes: 1_048_576,
            upstream_result_bytes: 67_108_864,
            upstream_event_bytes: 67_108_864,
            upstream_tools: 20_000,
            views: 256,
            child_stderr_lines: 200,
            drain: Duration::from_secs(10),
        }
    }
}
