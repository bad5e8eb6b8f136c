//! Values of a session's opening: its transport, its owner, and refusals.

use std::sync::Arc;

use super::EncodedEvent;
use crate::access::policy::OptionalLease;
use crate::protocol::call::PrincipalId;
use crate::protocol::capabilities::declare_nothing;
use crate::protocol::credentials::UserCredentials;
use crate::protocol::jsonrpc::RequestId;
use crate::protocol::listening::Filter;
use crate::protocol::server_name::ServerName;

/// A session's id as clients carry it.
pub type SessionId = Arc<str>;

/// The receiving end of a session's messages: an open stream, whose socket another thread owns.
pub trait EventSink: Send + Sync {
    /// Queues one encoded event. False once the stream has ended.
    fn send(&self, event: EncodedEvent) -> bool;
    /// Ends the stream after the queued events.
    fn close(&self);
    /// True if the client is still there.
    fn is_open(&self) -> bool;
}

/// The transport over which a session was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// HTTP+SSE: the session lives as long as its stream.
    HttpSse,
    /// Streamable HTTP: the session lives until it is ended or idle.
    StreamableHttp,
    /// Lines of standard input and output: the session lives as long as they do.
    Stdio,
    /// A stateless client's `subscriptions/listen`: the session lives as long as the stream, and
    /// no client knows its id.
    Listen,
}

impl Transport {
    /// True if a client with these capabilities may stand for requests that declare others. Each
    /// stateless request declares for itself, and a client that speaks for several, as a gateway
    /// does, has one stream for all of them.
    pub(super) fn is_for_any_request(self, capabilities: &str) -> bool {
        match self {
            Self::HttpSse | Self::StreamableHttp | Self::Stdio => false,
            Self::Listen => declare_nothing(capabilities),
        }
    }
}

/// A `subscriptions/listen` stream.
#[derive(Debug, Clone)]
pub struct Listening {
    /// The id of the request that opened it.
    pub id: RequestId,
    /// The notifications that the client gets.
    pub filter: Filter,
}

/// A session's owner and rights; fixed when it opens, but for the visible servers, which a reload
/// may change.
#[derive(Debug, Clone)]
pub struct Owner {
    /// The name of the key, or the id of the user, that opened the session.
    pub principal: Option<Arc<str>>,
    /// The one server of a per-server endpoint.
    pub only: Option<ServerName>,
    /// The servers of the narrowing header.
    pub narrowed: Option<Arc<[ServerName]>>,
    /// The servers that the session may see at first.
    pub visible_servers: Arc<[ServerName]>,
    /// The number of the admission, counted from 0, that gave these rights: a later one may
    /// change them.
    pub admission: u64,
    /// The principal in whose share the session counts; none where no other principal can come.
    pub charged: Option<PrincipalId>,
    /// The access token that opened the session. Its end ends no session: the user's next token
    /// is as good, and from then on it decides what the session may see.
    pub lease: OptionalLease,
    /// The credentials with which servers are reached whose credentials are each user's own; those
    /// of the request that opens the session.
    pub user: Option<Arc<UserCredentials>>,
}

/// The sender of a request that names a session by its id.
#[derive(Debug, Clone)]
pub struct Bearer {
    /// The name of the key, or the id of the user, that came with the session's id.
    pub principal: Option<Arc<str>>,
    /// The number of the admission that let the request in.
    pub admission: u64,
    /// As [`Owner::charged`], for a session that is revived.
    pub charged: Option<PrincipalId>,
    /// As [`Owner::lease`], for a session that is revived.
    pub lease: OptionalLease,
    /// As [`Owner::user`], for a session that is revived.
    pub user: Option<Arc<UserCredentials>>,
}

/// The reason why a session does not take a call or a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A call with this id is in flight already.
    IdInUse,
    /// The session's bound on calls in flight, or on subscriptions, is reached.
    TooMany,
    /// The session has ended.
    Ended,
    /// The session may not see the server: not any more, or not yet.
    NotHeard,
}

/// The numbers of open sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Over HTTP+SSE.
    pub http_sse: usize,
    /// Over Streamable HTTP.
    pub streamable_http: usize,
    /// Over standard input and output.
    pub stdio: usize,
    /// Streams of stateless clients.
    pub listening: usize,
}
