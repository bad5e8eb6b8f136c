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
