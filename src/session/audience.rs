//! Who hears what belongs to no call.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::SessionId;
use crate::config::SessionSharing;
use crate::protocol::call::PrincipalId;
use crate::protocol::log_level::LogLevel;
use crate::protocol::server_name::ServerName;
use crate::protocol::view::ViewId;

/// The session with a server that clients share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// Which server.
    pub server: ServerName,
    /// Which clients those are.
    pub sharing: SessionSharing,
}

/// Who wants a log message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogWish {
    /// Its level; none for what is no log message.
    pub level: Option<LogLevel>,
    /// From which level those want it that have not said; none if they take what comes.
    pub unsaid: Option<LogLevel>,
}

/// Who hears a message that belongs to no call.
#[derive(Debug, Clone)]
pub enum Audience {
    /// Every session that hears of the server.
    Hearing(ServerName),
    /// Those of them that see these lists of it.
    Seeing(ServerName, ViewId),
    /// Those of them that have no session of their own with it, want such a log message, and are
    /// this principal's.
    Of(Shared, LogWish, PrincipalId),
    /// The same of whose all of them are, for what is about no call. Nobody, and that is
    /// counted, where they are several principals', or somebody else may be meant who called.
    Only {
        /// Who share it.
        shared: Shared,
        /// Which of them want it.
        log: LogWish,
        /// The only one who called lately, if anybody did.
        caller: Option<PrincipalId>,
        /// Messages that reached nobody.
        unattributed: Arc<AtomicU64>,
    },
    /// One session, where it still hears of the server.
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
        let (sharing, unattributed) = (SessionSharing::Auto, Arc::new(AtomicU64::new(0)));
        let to = Audience::Only {
            shared: Shared { server, sharing },
            log: LogWish { level: None, unsaid: None },
            caller: None,
            unattributed: unattributed.clone(),
        };
        // Of the one that was there a moment ago it may be.
        table.tell(&to, "{}", begun + ABSENT_SESSION_TIME - Duration::from_secs(1));
        assert_eq!((*sink.0.lock(), unattributed.load(Ordering::Relaxed)), (0, 1));
        table.tell(&to, "{}", begun + ABSENT_SESSION_TIME + Duration::from_secs(1));
        assert_eq!((*sink.0.lock(), unattributed.load(Ordering::Relaxed)), (1, 1));
    }
}
