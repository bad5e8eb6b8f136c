//! Whose lists a client sees: what it declares may change what a server lists for it, and clients
//! that declare the same see the same.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ring::digest;
use serde_json::Value;

use super::call::Kind;

/// A digest of what is declared to a server. The order of members does not matter, and neither
/// does who declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewId([u8; 16]);

impl ViewId {
    /// What is declared once, when a session is opened: capabilities, an object's text.
    pub fn of_session(capabilities: &str) -> ViewId {
        ViewId::of(b"session", capabilities)
    }

    /// What every request declares, where there are no sessions.
    pub fn of_request(capabilities: &str) -> ViewId {
        ViewId::of(b"request", capabilities)
    }

    fn of(how: &[u8], capabilities: &str) -> ViewId {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(how);
        match serde_json::from_str::<Value>(capabilities) {
            Ok(mut value) => {
                value.sort_all_objects();
                context.update(value.to_string().as_bytes());
            }
            Err(_) => context.update(capabilities.as_bytes()),
        }
        let mut id = [0; 16];
        // Half of it tells them apart as surely.
        id.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
        ViewId(id)
    }
}

/// Why clients are to be told of lists that were read for them, besides that they have seen others.
#[derive(Debug, Default, PartialEq)]
pub struct Untold {
    /// Somebody was served without them.
    pub is_missed: bool,
    /// What their server said has changed: news, where nobody knows what was seen before.
    pub announced: Vec<Kind>,
}

/// When somebody looked at a view last, for all who keep something of it.
#[derive(Debug)]
pub struct LastUse {
    since: Instant,
    /// So many microseconds after that.
    us: AtomicU64,
}

impl LastUse {
    /// It was used then.
    pub fn new(now: Instant) -> LastUse {
        LastUse { since: now, us: AtomicU64::new(0) }
    }

    /// It was used then, too.
    pub fn note(&self, now: Instant) {
        let us = now.saturating_duration_since(self.since).as_micros();
        self.us.fetch_max(u64::try_from(us).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// When it was used last.
    pub fn at(&self) -> Instant {
        let after = Duration::from_micros(self.us.load(Ordering::Relaxed));
        self.since.checked_add(after).unwrap_or(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_declared_decides_and_not_how_it_is_written() {
        let one = ViewId::of_session(r#"{"roots":{"listChanged":true},"sampling":{}}"#);
        let same = r#"{ "sampling" : {}, "roots": {"listChanged": true} }"#;
        assert_eq!(one, ViewId::of_session(same));
        assert_ne!(one, ViewId::of_request(same));
        assert_ne!(one, ViewId::of_session(r#"{"roots":{},"sampling":{}}"#));
        assert_ne!(ViewId::of_session("{}"), ViewId::of_session("no object"));
    }

    #[test]
    fn the_last_use_is_the_latest_that_was_noted() {
        let now = Instant::now();
        let used = LastUse::new(now);
        used.note(now + Duration::from_secs(2));
        used.note(now + Duration::from_secs(1));
        assert_eq!(used.at(), now + Duration::from_secs(2));
    }
}
