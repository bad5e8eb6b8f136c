//! Which session with a server carries a call, as a value: `pipeline/session_route.rs` decides it
//! once for each call, and whatever the call meets on its way reads it.

use super::call::Client;

/// Which session with a server carries a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SessionRoute<'a> {
    /// The session that clients share; with a server that keeps none, the way on which each
    /// request says itself whose it is.
    Shared,
    /// A session of this client's own, which all of its calls share.
    Own(&'a Client),
    /// A session of this client's own that carries one call at a time: several requests of one
    /// principal that are whole in themselves need not be of one client.
    Exclusive(&'a Client),
}

impl<'a> SessionRoute<'a> {
    /// The client whose own the session is; none of the shared one.
    pub fn client(self) -> Option<&'a Client> {
        match self {
            Self::Shared => None,
            Self::Own(client) | Self::Exclusive(client) => Some(client),
        }
    }

    /// The same without the client.
    pub fn kind(self) -> SessionKind {
        match self {
            Self::Shared => SessionKind::Shared,
            Self::Own(_) | Self::Exclusive(_) => SessionKind::Own,
        }
    }

    /// True for the session that clients share.
    pub fn is_shared(self) -> bool {
        self.kind() == SessionKind::Shared
    }
}

/// Whose a session with a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionKind {
    /// Clients share it, and the server's supervisor keeps it open.
    Shared,
    /// One client's own, which opens on demand.
    Own,
}

/// What is known of a server's sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionSupport {
    /// It is of a revision with sessions, or what it is was not found out yet.
    Required,
    /// It is of a revision without sessions; that it keeps none besides was not found.
    Possible,
    /// It is of a revision without sessions, was asked for one and refused.
    Refused,
}
