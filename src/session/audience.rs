//! The audience of a message that belongs to no call.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::SessionId;
use crate::protocol::call::PrincipalId;
use crate::protocol::log_level::LogLevel;
use crate::protocol::server_name::ServerName;
use crate::protocol::view::ViewId;

/// The session with a server that clients share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// The server.
    pub server: ServerName,
    /// The clients that share the session.
    pub by: SharedBy,
}

/// The clients that share the session with a server, among those that keep sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedBy {
    /// All clients.
    EveryClient,
    /// Clients that declare neither sampling nor elicitation nor roots.
    ClientsThatCannotBeAsked,
    /// No client: each has its own session.
    NoClient,
}

/// The level of a log message, by which sessions take it or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogWish {
    /// The message's level; none for a message that is no log message.
    pub level: Option<LogLevel>,
    /// The level that is assumed for sessions whose client has set none; without it they take
    /// every message.
    pub unsaid: Option<LogLevel>,
}

/// The sessions that are told of a message that belongs to no call.
#[derive(Debug, Clone)]
pub enum Audience {
    /// Every session that may see the server.
    Hearing(ServerName),
    /// Sessions that may see the server, and whose lists of it are those of this view.
    Seeing(ServerName, ViewId),
    /// Sessions of this principal that may see the server, have no session of their own with it,
    /// and want such a log message.
    Of(Shared, LogWish, PrincipalId),
    /// As `Of`, for the one principal to which all of these sessions belong, with a message that
    /// names no call. If they belong to several principals, or to another than the one that
    /// called lately, no session is told, and the message is counted.
    Only {
        /// The session that clients share.
        shared: Shared,
        /// The log message's level.
        log: LogWish,
        /// The only principal that has called lately, if any has.
        caller: Option<PrincipalId>,
        /// The number of messages that no session was told.
        unattributed: Arc<AtomicU64>,
    },
    /// One session, if it may still see the server.
    One(SessionId, ServerName),
}

#[cfg(test)]
mod tests {
    use crate::sync::Mutex;
    use std::sync::atomic::Ordering;
    use std::time::{Duration, Instant};

    use super::super::table::{Bounds, Table};
    use super::super::{EncodedEvent, EventSink, Owner, Transport};
    use super::*;
    use crate::limits::ABSENT_SESSION_TIME;
    use crate::protocol::call::Caller;

    #[derive(Default)]
    struct Sink(Mutex<usize>);

    impl EventSink for Sink {
        fn send(&self, _: EncodedEvent) -> bool {
            *self.0.lock() += 1;
            true
        }
        fn close(&self) {}
        fn is_open(&self) -> bool {
            true
        }
    }

    #[test]
    fn a_client_that_went_without_a_word_keeps_nothing_from_the_one_that_is_there() {
        let server = ServerName::parse("a").unwrap();
        let idle = 10 * ABSENT_SESSION_TIME;
        let mut table = Table::new(Bounds { sessions: 3, sessions_per_key: 3, idle });
        let begun = Instant::now();
        for id in ["gone", "here"] {
            let owner = Owner {
                principal: None,
                only: None,
                narrowed: None,
                visible_servers: [server.clone()].into(),
                admission: 0,
                charged: None,
            };
            let (door, caller) = (Transport::StreamableHttp, Some(Caller::plain()));
            table.open(begun, id.into(), door, owner, caller).unwrap();
        }
        let sink = Arc::new(Sink::default());
        assert!(table.attach("here", 1, sink.clone()));
        let (by, unattributed) =
            (SharedBy::ClientsThatCannotBeAsked, Arc::new(AtomicU64::new(0)));
        let to = Audience::Only {
            shared: Shared { server, by },
            log: LogWish { level: None, unsaid: None },
            caller: None,
            unattributed: unattributed.clone(),
        };
        // The message may be about the session that was present a moment ago.
        table.tell(&to, "{}", begun + ABSENT_SESSION_TIME - Duration::from_secs(1));
        assert_eq!((*sink.0.lock(), unattributed.load(Ordering::Relaxed)), (0, 1));
        table.tell(&to, "{}", begun + ABSENT_SESSION_TIME + Duration::from_secs(1));
        assert_eq!((*sink.0.lock(), unattributed.load(Ordering::Relaxed)), (1, 1));
    }
}
