//! Counts of refused requests and connections, by reason. They are counted where the refusal is
//! put into words, so that a request which is served costs nothing here.

use std::sync::atomic::{AtomicU64, Ordering};

/// The reason of a refusal. The set is fixed: no part of a client's text becomes a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The request is malformed for HTTP, JSON-RPC or its transport.
    BadRequest,
    /// The head is over `limits.head_bytes` or `limits.headers`.
    HeadTooLarge,
    /// The body is over `limits.body_bytes`.
    BodyTooLarge,
    /// The head or body took longer than `limits.head_ms` or `limits.body_ms`.
    Timeout,
    /// The client did not read its answer: nothing for `limits.write_ms`, or more than
    /// `limits.stream_queue_bytes` waited.
    NotReading,
    /// `limits.connections` or `limits.connections_per_address` connections are open.
    Connections,
    /// The `Host` or `Origin` is foreign.
    Origin,
    /// The request has no key, or a wrong one.
    Unauthorized,
    /// Nothing is served at the path.
    UnknownPath,
    /// The session is unknown, has ended, or belongs to another key.
    UnknownSession,
    /// The key's calls for this minute are spent.
    Rate,
    /// Another bound is reached, or the process is stopping.
    Overloaded,
}

impl Reason {
    /// All reasons, in the order in which they are shown.
    pub const ALL: [Reason; 12] = [
        Reason::BadRequest,
        Reason::HeadTooLarge,
        Reason::BodyTooLarge,
        Reason::Timeout,
        Reason::NotReading,
        Reason::Connections,
        Reason::Origin,
        Reason::Unauthorized,
        Reason::UnknownPath,
        Reason::UnknownSession,
        Reason::Rate,
        Reason::Overloaded,
    ];

    /// The reason's word in `/status` and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::BadRequest => "bad_request",
            Reason::HeadTooLarge => "head_too_large",
            Reason::BodyTooLarge => "body_too_large",
            Reason::Timeout => "timeout",
            Reason::NotReading => "not_reading",
            Reason::Connections => "connections",
            Reason::Origin => "origin",
            Reason::Unauthorized => "unauthorized",
            Reason::UnknownPath => "unknown_path",
            Reason::UnknownSession => "unknown_session",
            Reason::Rate => "rate",
            Reason::Overloaded => "overloaded",
        }
    }

    fn counter(self) -> Option<&'static AtomicU64> {
        let at = Reason::ALL.iter().position(|reason| *reason == self)?;
        COUNTERS.get(at)
    }

    /// The number of refusals for this reason since the process began.
    pub fn count(self) -> u64 {
        self.counter().map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}

/// One counter for each of [`Reason::ALL`].
static COUNTERS: [AtomicU64; Reason::ALL.len()] =
    [const { AtomicU64::new(0) }; Reason::ALL.len()];

/// Counts a refusal.
pub fn count(reason: Reason) {
    if let Some(counter) = reason.counter() {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_reason_has_a_word_and_a_counter_of_its_own() {
        let words: HashSet<&str> = Reason::ALL.into_iter().map(Reason::as_str).collect();
        assert_eq!(words.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            // Other tests of this process may count at the same time.
            let before = reason.count();
            count(reason);
            assert!(reason.count() > before, "{reason:?}");
        }
    }
}
