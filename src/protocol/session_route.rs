//! The session with a server that carries a call, as a value: `pipeline/session_route.rs` decides
//! it once for each call, and all parts on the call's way read it.

use super::call::Client;

/// The session with a server that carries a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SessionRoute<'a> {
    /// The session that clients share; with a server that keeps none, the way on which each
    /// request names its caller itself.
    Shared,
    /// A session of this client's own, which all of its calls share.
    Own(&'a Client),
    /// A session of this client's own that carries one call at a time: several requests of one
    /// principal that are whole in themselves need not be of one client.
    Exclusive(&'a Client),
}

impl<'a> SessionRoute<'a> {
    /// The client that owns the session; none for the shared one.
    pub fn client(self) -> Option<&'a Client> {
        match self {
            Self::Shared => None,
            Self::Own(client) | Self::Exclusive(client) => Some(client),
        }
    }

    /// The kind of the session, without the client.
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

/// The owner of a session with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionKind {
    /// Clients share the session, and the server's supervisor keeps it open.
    Shared,
    /// One client owns the session, which opens on demand.
    Own,
}

/// A server's support of sessions, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionSupport {
    /// The server's revision has sessions, or the revision is not known yet.
    Required,
    /// The server's revision has no sessions; it may keep sessions besides.
    Possible,
    /// The server's revision has no sessions, and it has refused one.
    Refused,
}

impl SessionSupport {
    /// True if the client can have a session of its own with the server. A client that keeps a
    /// session is served in its own era where the server may know that era; the requests of a
    /// stateless client need no session where the server needs none.
    pub fn is_for(self, client: &Client) -> bool {
        match (self, client.is_exclusive) {
            (Self::Required, _) | (Self::Possible, false) => true,
            (Self::Possible, true) | (Self::Refused, _) => false,
        }
    }
}
