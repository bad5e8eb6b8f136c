//! The bounds that an operator may set, and their defaults.

use std::time::Duration;

/// The bounds that `config.json` may set. The defaults are the contract's.
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
    /// The time from the first byte of a head to its last; 408 past it.
    pub head: Duration,
    /// The time from the end of the head to the last byte of the body; 408 past it.
    pub body: Duration,
    /// The time for which a kept-alive connection may be idle before it is closed.
    pub idle: Duration,
    /// The time for which one write may stall before the connection is closed.
    pub write: Duration,
    /// Sessions open at once, together with ended ones whose remains at servers still wait for
    /// removal. More get 503.
    pub sessions: usize,
    /// Sessions open at once under one key. More get 503.
    pub sessions_per_key: usize,
    /// The time without use after which a session ends.
    pub session_idle: Duration,
    /// The time for which a server's request to a client may stay open.
    pub parked: Duration,
    /// Calls of stateless clients that wait for a retry. Further ones are cancelled, with an
    /// error.
    pub parked_calls: usize,
    /// Parked calls of one key.
    pub parked_calls_per_key: usize,
    /// Items of one page of a list.
    pub page_items: usize,
    /// Long-lived SSE responses open at once. More get 503.
    pub streams: usize,
    /// Bytes that wait behind the event being written to one stream; its client is dropped past it.
    pub stream_queue_bytes: usize,
    /// The time between two comment lines on a silent stream.
    pub heartbeat: Duration,
    /// Events kept of one stream for a client that resumes it; the oldest are dropped. 0 keeps
    /// none, and events have no ids then.
    pub event_log_events: usize,
    /// Bytes of the events kept of one stream; the oldest are dropped. A larger event is not
    /// kept.
    pub event_log_bytes: usize,
    /// Bytes of one upstream result. More is a 502 that names this bound. Also bytes of all items
    /// of one list, where [`super::LIST_BYTES_MAX`] is not less; the rest is left out.
    pub upstream_result_bytes: usize,
    /// Bytes of one upstream SSE event, or of one line from a child.
    pub upstream_event_bytes: usize,
    /// Tools taken from one server; the rest is left out.
    pub upstream_tools: usize,
    /// Views that are kept: servers' lists for clients with certain capabilities; the one that
    /// was not used for longest is dropped.
    pub views: usize,
    /// Lines of a child's standard error kept for `/status`.
    pub child_stderr_lines: usize,
    /// The time for calls in flight to finish at a stop.
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
