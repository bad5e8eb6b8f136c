//! Pure: one session in the table, and the choice of its stream for a message.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::{EncodedEvent, EventSink, Session, Transport};
use crate::limits::ABSENT_SESSION_TIME;
use crate::protocol::call::Caller;
use crate::protocol::for_revision::hears_text;
use crate::protocol::jsonrpc::{Message, notification};
use crate::protocol::listening::with_subscription;
use crate::protocol::method::notification::RESOURCES_UPDATED;
use crate::protocol::sse;

/// A session with its streams.
pub(super) struct Entry {
    pub(super) session: Arc<Session>,
    /// Streams that cannot be resumed: that of HTTP+SSE, and all where no events are kept. They
    /// are ordered by number (`Session::next_stream`), so the oldest is first.
    pub(super) streams: BTreeMap<u64, Arc<dyn EventSink>>,
}

impl Entry {
    /// True if the session's client may still be there. A session that was left behind must not
    /// keep messages that name no call from other clients.
    pub(super) fn is_present(&self, now: Instant) -> bool {
        self.streams.values().any(|stream| stream.is_open())
            || self.session.kept.any_open()
            || now.saturating_duration_since(self.session.last_used()) < ABSENT_SESSION_TIME
    }

    /// Sends a message that belongs to no call; false if no stream takes it. A `subscriptions/listen` stream gets only
    /// messages that pass its filter, marked with its subscription (2026-07-28,
    /// basic/patterns/subscriptions).
    pub(super) fn tell(&mut self, message: &str, event: &EncodedEvent) -> bool {
        if self.session.door != Transport::Listen {
            let caller = self.session.caller();
            let hears = |caller: Arc<Caller>| hears_text(caller.revision, message);
            return caller.is_none_or(hears) && self.send(event);
        }
        let Some(listening) = self.session.listening.get() else { return false };
        let Ok(Message::Notification { method, params }) = Message::parse(message) else {
            return false;
        };
        if method != RESOURCES_UPDATED && !listening.filter.wants(&method) {
            return false;
        }
        let params = with_subscription(params.as_deref(), &listening.id);
        let message = notification(&method, Some(&params));
        self.send(&sse::event("", &message).into())
    }

    /// Sends an event on one stream only (2025-11-25, basic/transports, Multiple Connections):
    /// the newest, a resumable one before others. False where there is none.
    pub(super) fn send(&mut self, event: &EncodedEvent) -> bool {
        if self.session.kept.tell(event) {
            return true;
        }
        while let Some(newest) = self.streams.last_entry() {
            if newest.get().send(event.clone()) {
                return true;
            }
            newest.remove();
        }
        false
    }
}
