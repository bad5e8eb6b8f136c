//! What is known of one request, and the form in which operators are told of it.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use super::ids::RequestName;
use super::metrics;
use super::outcome::{CallOutcome, Door};
use super::trace::{Answered, Trace};
use crate::limits::ACCESS_TEXT_CHARS_MAX;
use crate::protocol::method::Method;
use crate::telemetry::redact;

/// Why something is refused that is there, and not for whoever asks. Only operators are told.
const HIDDEN: &str = "hidden";

/// One request as operators are told of it: in work, answered, or turned away.
#[derive(Debug, Clone)]
pub struct ToldRequest {
    /// When it was told.
    pub at: SystemTime,
    /// The request's name.
    pub id: String,
    /// Who sent it.
    pub peer: String,
    /// The name of its key; empty without one.
    pub key: String,
    /// The client, as it calls itself.
    pub client: String,
    /// How it came in; empty before a message was read.
    pub door: &'static str,
    /// The method that it asks for; empty before a message was read.
    pub method: &'static str,
    /// The tool's offered name, or empty.
    pub tool: String,
    /// The server's name, or empty.
    pub server: String,
    /// How it ended; empty while it is in work.
    pub outcome: &'static str,
    /// The HTTP status of the answer; 0 where there was none.
    pub status: u16,
    /// How long it took, or has been in work.
    pub took: Duration,
    /// What went wrong, or empty.
    pub message: String,
    /// Why it was turned away, if it was.
    pub refused: Option<Refused>,
}

/// Why a request was turned away.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The reason.
    pub reason: &'static str,
    /// The reason that its client was told, which may say less.
    pub reason_told: &'static str,
    /// The HTTP method and path; empty where they were not read.
    pub request: String,
    /// How many more of its peer, key and reason there were since the last one that was told.
    pub left_out: u64,
}

/// What the head of an HTTP request says to telemetry.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// `X-Request-Id`.
    pub id: Option<&'a str>,
    /// `traceparent`.
    pub traceparent: Option<&'a str>,
    /// `tracestate`.
    pub tracestate: Option<&'a str>,
    /// `User-Agent`.
    pub agent: Option<&'a str>,
    /// HTTP's method.
    pub method: &'a str,
    /// Without the query.
    pub path: &'a str,
    /// Who sent it; none over a Unix socket.
    pub peer: Option<IpAddr>,
    /// Bytes of its body.
    pub bytes_in: usize,
}

/// One message of a request: what is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestedMethod {
    pub(super) door: Door,
    /// None of a method that the gateway does not know.
    pub(super) method: Option<Method>,
    pub(super) began: Instant,
    pub(super) took: Option<Duration>,
}

impl RequestedMethod {
    pub(super) fn method_text(&self) -> &'static str {
        self.method.map_or("other", Method::as_str)
    }
}

/// What is known of a request so far.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) is_in_work: bool,
    /// A call that outlives its request is told of by the request.
    pub(super) is_apart: bool,
    pub(super) id: Option<RequestName>,
    pub(super) trace: Trace,
    pub(super) began: Instant,
    pub(super) http_method: String,
    pub(super) path: String,
    pub(super) peer: Option<IpAddr>,
    pub(super) key: String,
    pub(super) client: String,
    pub(super) bytes_in: usize,
    pub(super) bytes_out: usize,
    /// 0 where nothing was answered.
    pub(super) status: u16,
    pub(super) asked: Option<RequestedMethod>,
    pub(super) tool: String,
    pub(super) server: String,
    pub(super) outcome: Option<CallOutcome>,
    /// Why it was turned away.
    pub(super) refused: Option<&'static str>,
    /// What it asks for is there, and not for whoever asks.
    pub(super) is_hidden: bool,
    /// What stands for the tool is the client's text, of which no span is made.
    pub(super) is_tool_as_asked: bool,
    pub(super) error: String,
}

impl Default for Record {
    fn default() -> Record {
        Record {
            is_in_work: false,
            is_apart: false,
            id: None,
            trace: Trace::default(),
            began: Instant::now(),
            http_method: String::new(),
            path: String::new(),
            peer: None,
            key: String::new(),
            client: String::new(),
            bytes_in: 0,
            bytes_out: 0,
            status: 0,
            asked: None,
            tool: String::new(),
            server: String::new(),
            outcome: None,
            refused: None,
            is_hidden: false,
            is_tool_as_asked: false,
            error: String::new(),
        }
    }
}

/// Replaces a text, cut and without control characters.
pub(super) fn set(text: &mut String, new: &str, chars_max: usize) {
    text.clear();
    text.extend(new.chars().take(chars_max).map(|c| if c.is_control() { ' ' } else { c }));
}

impl Record {
    /// Why it was turned away, as operators are told.
    pub(super) fn reason(&self) -> Option<&'static str> {
        self.refused.map(|told| if self.is_hidden { HIDDEN } else { told })
    }

    pub(super) fn took(&self) -> Duration {
        let of_message = self.asked.and_then(|asked| asked.took);
        of_message.unwrap_or_else(|| self.began.elapsed())
    }

    /// A request begins: the record is filled again.
    pub(super) fn begin(&mut self, incoming: Incoming<'_>) -> RequestName {
        let id = incoming.id.and_then(RequestName::parse).unwrap_or_else(RequestName::random);
        self.clear_message();
        (self.is_in_work, self.is_apart, self.id) = (true, false, Some(id));
        self.began = Instant::now();
        self.trace.begin(incoming.traceparent, incoming.tracestate);
        set(&mut self.http_method, incoming.method, 16);
        set(&mut self.path, incoming.path, ACCESS_TEXT_CHARS_MAX);
        set(&mut self.client, incoming.agent.unwrap_or_default(), ACCESS_TEXT_CHARS_MAX);
        (self.peer, self.bytes_in) = (incoming.peer, incoming.bytes_in);
        (self.bytes_out, self.status) = (0, 0);
        self.key.clear();
        id
    }

    pub(super) fn clear_message(&mut self) {
        (self.asked, self.outcome, self.refused) = (None, None, None);
        (self.is_hidden, self.is_tool_as_asked) = (false, false);
        self.tool.clear();
        self.server.clear();
        self.error.clear();
    }

    /// What was asked for is answered, if it is not already.
    pub(super) fn answer(&mut self, default: CallOutcome) {
        let Some(asked) = self.asked.as_mut().filter(|asked| asked.took.is_none()) else {
            return;
        };
        let took = asked.began.elapsed();
        asked.took = Some(took);
        let outcome = *self.outcome.get_or_insert(default);
        metrics::requests::count(asked.door, asked.method, outcome, took);
        let asked = *asked;
        self.trace.answered(&Answered {
            door: asked.door,
            method: asked.method,
            outcome,
            took,
            server: &self.server,
            tool: if self.is_tool_as_asked { "" } else { &self.tool },
            key: &self.key,
            client: &self.client,
            peer: self.peer,
            id: self.id.as_ref().map_or("", RequestName::as_str),
        });
    }
    /// The name of the request; empty before it has one.
    pub(super) fn id(&self) -> &str {
        self.id.as_ref().map_or("", RequestName::as_str)
    }

    /// The path as a line has it, without what may be secret.
    pub(super) fn path(&self) -> String {
        redact::url(&self.path)
    }

    /// The request as operators are told of it.
    pub(super) fn told(&self) -> ToldRequest {
        let asked = self.asked.as_ref();
        let refused = |reason| Refused {
            reason,
            reason_told: self.refused.unwrap_or(reason),
            request: format!("{} {}", self.http_method, self.path()),
            left_out: 0,
        };
        ToldRequest {
            at: SystemTime::now(),
            id: self.id().to_owned(),
            peer: peer_text(self.peer),
            key: self.key.clone(),
            client: self.client.clone(),
            door: asked.map_or("", |asked| asked.door.as_str()),
            method: asked.map_or("", RequestedMethod::method_text),
            tool: self.tool.clone(),
            server: self.server.clone(),
            outcome: self.outcome.map_or("", CallOutcome::as_str),
            status: self.status,
            took: self.took(),
            message: self.error.clone(),
            refused: self.reason().map(refused),
        }
    }
}

/// Who is at the other end, as lines have it.
pub(super) fn peer_text(peer: Option<IpAddr>) -> String {
    peer.map_or_else(|| "unix".to_owned(), |ip| ip.to_string())
}
