//! Who hears what belongs to no call.

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

/// Who hears a message that belongs to no call.
#[derive(Debug, Clone, PartialEq)]
pub enum Audience {
    /// Every session that hears of the server.
    Hearing(ServerName),
    /// Those of them that see these lists of it.
    Seeing(ServerName, ViewId),
    /// Those of them that have no session of their own with it, and want log messages of this
    /// level.
    Sharing(Shared, Option<LogLevel>),
    /// Those of these that are this principal's, too.
    Of(Shared, Option<LogLevel>, PrincipalId),
    /// One session, where it still hears of the server.
    One(SessionId, ServerName),
}
