//! How sessions are opened and whose they are: values.

use std::sync::Arc;

use super::EncodedEvent;
use crate::protocol::call::PrincipalId;
use crate::protocol::capabilities::declare_nothing;
use crate::protocol::jsonrpc::RequestId;
use crate::protocol::listening::Filter;
use crate::protocol::server_name::ServerName;

/// A session's id as clients carry it.
pub type SessionId = Arc<str>;

/// Where a session's messages go: an open stream, whose socket is somebody else's.
pub trait EventSink: Send + Sync {
    /// Queues one encoded event. False once the stream has ended.
    fn send(&self, event: EncodedEvent) -> bool;
    /// Ends the stream after what is queued.
    fn close(&self);
    /// Whether the client is still there.
    fn is_open(&self) -> bool;
}

/// Which transport a session was opened over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// HTTP+SSE: the session lives as long as its stream.
    HttpSse,
    /// Streamable HTTP: the session lives until it is ended or idle.
    StreamableHttp,
    /// Lines of standard input and output: the session lives as long as they do.
    Stdio,
    /// A stateless client's `subscriptions/listen`: what stands for the stream lives as long as
    /// that, and no client knows its id.
    Listen,
}

impl Transport {
    /// Whether a client that declares this may stand for requests that declare anything. Each
    /// stateless request declares for itself, and a client that speaks for several, as a gateway
    /// does, has one stream for all of them.
    pub(super) fn is_for_any_request(self, capabilities: &str) -> bool {
        match self {
            Self::HttpSse | Self::StreamableHttp | Self::Stdio => false,
            Self::Listen => declare_nothing(capabilities),
        }
    }
}

/// What a `subscriptions/listen` stream is for.
#[derive(Debug, Clone)]
pub struct Listening {
    /// The id of the request that opened it.
    pub id: RequestId,
    /// What its client is told.
    pub filter: Filter,
}

/// Whom a session belongs to and what it may see; fixed when it opens, but for what it hears of
/// after a reload.
#[derive(Debug, Clone, PartialEq)]
pub struct Owner {
    /// The name of the key that opened it.
    pub principal: Option<Arc<str>>,
    /// The one server of a per-server endpoint.
    pub only: Option<ServerName>,
    /// The servers of the narrowing header.
    pub narrowed: Option<Arc<[ServerName]>>,
    /// The servers whose changes it hears of at first.
    pub visible_servers: Arc<[ServerName]>,
    /// Which admission, counted from 0, that is of: a later one may say otherwise.
    pub admission: u64,
    /// Whose share of what is bounded it takes; none where nobody else can come.
    pub charged: Option<PrincipalId>,
}

/// Who asks for a session by its id.
#[derive(Debug, Clone)]
pub struct Bearer {
    /// The name of the key that came with the id.
    pub principal: Option<Arc<str>>,
    /// Which admission let it in.
    pub admission: u64,
    /// As [`Owner::charged`], for a session that is revived.
    pub charged: Option<PrincipalId>,
}

/// Why a session does not take a call or a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A call with this id is in flight already.
    IdInUse,
    /// The session's bound on calls in flight, or on subscriptions, is reached.
    TooMany,
    /// The session has ended.
    Ended,
    /// The session does not hear of the server: not any more, or not yet.
    NotHeard,
}

/// How many sessions are open.
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
