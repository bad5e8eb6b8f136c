//! Views: a server may list different items for clients with different capabilities, and clients
//! that declare the same see the same lists.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ring::digest;
use serde_json::Value;

use super::call::Kind;
use super::credentials_id::CredentialsId;

/// A digest of the capabilities that are declared to a server. Neither the order of members
/// matters nor which client declares them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewId([u8; 16]);

impl ViewId {
    /// The view of capabilities that are declared once, when a session is opened: an object's
    /// text.
    pub fn of_session(capabilities: &str) -> ViewId {
        ViewId::of(b"session", capabilities)
    }

    /// The view of capabilities that every request declares, where there are no sessions.
    pub fn of_request(capabilities: &str) -> ViewId {
        ViewId::of(b"request", capabilities)
    }

    /// The view of one user, where a server's credentials are each user's own.
    pub fn of_user(user: CredentialsId) -> ViewId {
        let mut id = *user.as_bytes();
        set_is_of_user(&mut id, 1);
        ViewId(id)
    }

    /// True for the view of one user, which no other sees.
    pub fn is_of_user(self) -> bool {
        self.0.last().is_some_and(|last| last & 1 == 1)
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
        // Half of the digest distinguishes views as surely.
        id.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
        set_is_of_user(&mut id, 0);
        ViewId(id)
    }
}

/// The last bit of an id tells the views of users from those of capabilities.
fn set_is_of_user(id: &mut [u8; 16], bit: u8) {
    if let Some(last) = id.last_mut() {
        *last = (*last & !1) | bit;
    }
}

/// Reasons to notify clients of lists that were read for them, besides a difference from lists
/// that they have seen.
#[derive(Debug, Default, PartialEq)]
pub struct Untold {
    /// True if a client was served without these lists.
    pub is_missed: bool,
    /// The kinds of lists that the server has announced as changed, for clients of which it is
    /// unknown what they have seen.
    pub announced: Vec<Kind>,
    /// True if clients were shown the gateway's own tool for signing in at the server, which ends
    /// with these lists.
    pub is_sign_in_over: bool,
}

/// The time of a view's last use, shared by all who keep a part of the view.
#[derive(Debug)]
pub struct LastUse {
    since: Instant,
    /// Microseconds from `since` to the last use.
    us: AtomicU64,
}

impl LastUse {
    /// A first use at `now`.
    pub fn new(now: Instant) -> LastUse {
        LastUse { since: now, us: AtomicU64::new(0) }
    }

    /// Notes a use at `now`.
    pub fn note(&self, now: Instant) {
        let us = now.saturating_duration_since(self.since).as_micros();
        self.us.fetch_max(u64::try_from(us).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The time of the last use.
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
