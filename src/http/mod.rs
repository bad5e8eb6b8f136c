//! The HTTP/1.1 server of the gateway. No other folder names the engine.
//!
//! One thread of a pool serves a connection: it reads a [`Request`], runs the [`Handler`] and
//! writes the handler's answer through its [`Responder`]. A long-lived response leaves the pool as
//! a [`Stream`]. Reading and writing have deadlines, everything has a bound, and requests that are
//! not plainly well-formed are refused: `framing/` holds those rules.
//!
//! With the feature `tiny_http` the same types are made with that crate instead, for loopback and
//! Unix sockets only.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

#[cfg_attr(feature = "tiny_http", expect(dead_code, reason = "tiny_http takes none over"))]
mod inherited;
#[cfg_attr(feature = "tiny_http", expect(dead_code, reason = "tiny_http writes answers"))]
mod response;
#[cfg_attr(feature = "tiny_http", expect(dead_code, reason = "tiny_http has its sockets"))]
mod socket;
mod socket_file;
#[cfg_attr(feature = "tiny_http", expect(dead_code, reason = "tiny_http lets none go"))]
mod stream;

#[cfg_attr(
    all(feature = "tiny_http", not(test)),
    expect(dead_code, reason = "tiny_http has few bounds")
)]
mod bound;
#[cfg(not(feature = "tiny_http"))]
pub(crate) mod chunked;
#[cfg(not(feature = "tiny_http"))]
mod connection;
#[cfg(not(feature = "tiny_http"))]
pub(crate) mod framing;
#[cfg(not(feature = "tiny_http"))]
mod input;
#[cfg(not(feature = "tiny_http"))]
mod listener;
#[cfg_attr(feature = "tiny_http", expect(dead_code, reason = "tiny_http shows no socket"))]
mod peer_user;
#[cfg(not(feature = "tiny_http"))]
mod pool;
#[cfg(not(feature = "tiny_http"))]
mod responder;
#[cfg(not(feature = "tiny_http"))]
mod server;
#[cfg(not(feature = "tiny_http"))]
mod shared;
#[cfg(feature = "tiny_http")]
mod tiny_http;

pub use crate::budget::{BUFFERED_BYTES_FULL, Budget, Share, room_for_copy};
use crate::protocol::call::PrincipalId;
use crate::protocol::headers::REQUEST_ID;
use crate::telemetry::rejected::Reason;
use crate::telemetry::request::{self, Incoming, Served};
pub use inherited::{Inherited, PassedOn};
pub use peer_user::PeerUser;
#[cfg(not(feature = "tiny_http"))]
pub use responder::{OpenResponse, Responder};
#[cfg(not(feature = "tiny_http"))]
pub use server::{Running, Server};
pub use stream::Stream;
#[cfg(feature = "tiny_http")]
pub use tiny_http::{OpenResponse, Responder, Running, Server};

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// An address; one that IPv6 maps from IPv4 is written as IPv4.
    Ip(IpAddr),
    /// A process of this machine, over a Unix socket.
    Unix,
}

impl Peer {
    /// The IP address, if the peer has one.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Peer::Ip(ip) => Some(ip),
            Peer::Unix => None,
        }
    }

    /// True if the peer is on this machine.
    pub fn is_local(self) -> bool {
        match self {
            Peer::Ip(ip) => ip.is_loopback(),
            Peer::Unix => true,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Ip(ip) => ip.fmt(f),
            Peer::Unix => f.write_str("unix"),
        }
    }
}

/// The ends of one field's name and value, in the text of [`Headers`].
#[derive(Debug, Clone, Copy)]
struct Field {
    name_end: usize,
    value_end: usize,
}

/// The header fields of one request, in the order in which they came.
#[derive(Debug, Clone, Default)]
pub struct Headers {
    /// Names and values without anything between: two allocations for all fields.
    text: String,
    fields: Vec<Field>,
}

impl Headers {
    /// No fields yet, with room for `fields` that are `bytes` long in all.
    #[cfg(not(feature = "tiny_http"))]
    pub(crate) fn with_capacity(fields: usize, bytes: usize) -> Headers {
        Headers { text: String::with_capacity(bytes), fields: Vec::with_capacity(fields) }
    }

    /// Adds a field behind the others.
    pub(crate) fn push(&mut self, name: &str, value: &str) {
        self.text.push_str(name);
        let name_end = self.text.len();
        self.text.push_str(value);
        self.fields.push(Field { name_end, value_end: self.text.len() });
    }

    /// The value of the first field of this name, in any case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.get_all(name).next()
    }

    /// The values of all fields of this name, in any case.
    pub fn get_all<'a, 'n>(
        &'a self,
        name: &'n str,
    ) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        let mut start = 0;
        self.fields.iter().filter_map(move |field| {
            let begins = std::mem::replace(&mut start, field.value_end);
            // A request's fields are searched a dozen times: a name's length is compared before
            // its text.
            if field.name_end.checked_sub(begins) != Some(name.len()) {
                return None;
            }
            let is_named = self.text.get(begins..field.name_end)?.eq_ignore_ascii_case(name);
            is_named.then(|| self.text.get(field.name_end..field.value_end)).flatten()
        })
    }

    /// All fields as name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut start = 0;
        self.fields.iter().filter_map(move |field| {
            let name = self.text.get(start..field.name_end)?;
            let value = self.text.get(field.name_end..field.value_end)?;
            start = field.value_end;
            Some((name, value))
        })
    }

    /// The number of fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// True if there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Headers {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Headers {
        let mut headers = Headers::default();
        for (name, value) in pairs {
            headers.push(name, value);
        }
        headers
    }
}

/// A request without its body.
#[derive(Debug, Clone)]
pub struct Head {
    /// The method as sent: methods are case-sensitive.
    pub method: String,
    /// The target's path without the query, still percent-encoded. `*` for `OPTIONS *`.
    pub path: String,
    /// The query behind the `?`, still percent-encoded.
    pub query: Option<String>,
    /// All header fields.
    pub headers: Headers,
    /// The sender.
    pub peer: Peer,
}

/// One request, received whole.
#[derive(Debug)]
pub struct Request {
    /// Method, target and header fields.
    pub head: Head,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// The body's share of the bytes that may be buffered, given back on drop.
    pub share: Share,
}

impl Request {
    /// A request that did not come over a connection, and counts against no budget.
    pub fn new(head: Head, body: Vec<u8>) -> Request {
        Request { head, body, share: Share::default() }
    }
}

/// The answer to a request that is refused after its head.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Headers beside those that the engine adds: length, date, connection.
    pub headers: Vec<(&'static str, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

/// The receiver of requests. It is called on connections' threads, many at once.
pub trait Handler: Send + Sync + 'static {
    /// Judges a head whose body is not wholly here, before more of the body is read and before
    /// the client is told to send it. Not called for requests that arrived whole. Returns the
    /// principal in whose share of the connections and of the bytes the request counts.
    ///
    /// # Errors
    /// The answer to give instead of reading the body; the connection is closed after it.
    fn admit(&self, head: &Head) -> Result<Option<PrincipalId>, Answer>;

    /// Hears that a request which was admitted ends without its body, on the thread on which it
    /// was admitted. It is neither handled nor, where its client has gone, refused.
    fn aborted(&self) {}

    /// Answers one request through `responder`, on the thread of its connection. A panic is
    /// answered with 500.
    fn handle(&self, request: Request, responder: Responder);

    /// Notes that the engine refuses a request with a known head, with the text `told`. Returns
    /// the request's id; the returned value keeps the request in log lines and `/status` until
    /// the answer is out. Without a `reason` the refusal is due to a bug.
    fn refused(&self, head: &Head, reason: Option<Reason>, told: &str) -> Served {
        let served = request::begin(Incoming {
            id: head.headers.get(REQUEST_ID),
            traceparent: None,
            tracestate: None,
            agent: head.headers.get("user-agent"),
            method: &head.method,
            path: &head.path,
            peer: head.peer.ip(),
            bytes_in: 0,
        });
        if let Some(reason) = reason {
            request::turned_away(reason, None, told);
        }
        served
    }

    /// The JSON body of an answer that the engine itself gives (400, 408, 413, 431, 503, ...).
    fn refusal(&self, status: u16, reason: &str) -> Vec<u8>;
}

/// The address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// An address and port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A socket file.
    Unix {
        /// The file's path.
        path: PathBuf,
        /// The file's permissions, whatever the umask.
        mode: u32,
        /// The file's group, by name or number; without one, the group of the process.
        group: Option<String>,
    },
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The reason as which a refusal of the engine counts. None for a bug, which is no refusal.
fn rejection(status: u16) -> Option<Reason> {
    match status {
        408 => Some(Reason::Timeout),
        413 => Some(Reason::BodyTooLarge),
        431 => Some(Reason::HeadTooLarge),
        500 => None,
        503 => Some(Reason::Overloaded),
        _ => Some(Reason::BadRequest),
    }
}

/// Counts of the server's connections, threads and requests, for `/status` and the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that count against the bound.
    pub open: usize,
    /// Open connections that wait for a request.
    pub idle: usize,
    /// Threads of the pool.
    pub threads: usize,
    /// Bytes of bodies held now.
    pub buffered_bytes: usize,
    /// Connections accepted since the start, refused ones included.
    pub accepted: u64,
    /// Connections answered with 503 because a bound was reached.
    pub refused: u64,
    /// Idle connections closed to make room.
    pub evicted: u64,
    /// Requests that reached the handler.
    pub requests: u64,
    /// Handlers that panicked.
    pub panics: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_whatever_their_case_and_kept_in_order() {
        let headers: Headers = [("A", "1"), ("b", ""), ("a", "2")].into_iter().collect();
        assert_eq!(headers.get("a"), Some("1"));
        assert_eq!(headers.get("B"), Some(""));
        assert_eq!(headers.get("c"), None);
        assert_eq!(headers.get_all("A").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("A", "1"), ("b", ""), ("a", "2")]);
        assert_eq!(headers.len(), 3);
    }
}
