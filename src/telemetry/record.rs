//! The record of one request, and its form for operators.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use super::counters;
use super::ids::RequestName;
use super::outcome::{CallOutcome, Door};
use super::trace::{Answered, Trace};
use crate::limits::ACCESS_TEXT_CHARS_MAX;
use crate::protocol::method::Method;
use crate::telemetry::redact;

/// The reason of a refusal of an item that exists, but is hidden from the client. Only operators
/// see it.
const HIDDEN: &str = "hidden";

/// One request as operators are told of it: in work, answered, or refused.
#[derive(Debug, Clone)]
pub struct ToldRequest {
    /// The time of the report.
    pub at: SystemTime,
    /// The request's id.
    pub id: String,
    /// The address of the peer.
    pub peer: String,
    /// The name of the request's key or user; empty without either.
    pub key: String,
    /// The name of the key or the id of the user, which no two have; empty without either.
    pub whose: String,
    /// The name that the client gives itself.
    pub client: String,
    /// The door by which the request came in; empty before a message was read.
    pub door: &'static str,
    /// The method's name; empty before a message was read.
    pub method: &'static str,
    /// The tool's offered name, or empty.
    pub tool: String,
    /// The server's name, or empty.
    pub server: String,
    /// The outcome's word; empty while the request is in work.
    pub outcome: &'static str,
    /// The HTTP status of the answer; 0 where there was none.
    pub status: u16,
    /// The time that the request took, or has been in work.
    pub took: Duration,
    /// The failure, or empty.
    pub message: String,
    /// The refusal, if the request was refused.
    pub refused: Option<Refused>,
}

/// The refusal of a request.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The reason.
    pub reason: &'static str,
    /// The reason that the client was given, which may say less.
    pub reason_told: &'static str,
    /// The HTTP method and path; empty where they were not read.
    pub request: String,
    /// The number of refusals alike (peer, key and reason) since the last one that was reported.
    pub left_out: u64,
}

/// The head of an HTTP request, as far as telemetry uses it.
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
    /// The HTTP method.
    pub method: &'a str,
    /// The path without the query.
    pub path: &'a str,
    /// The address of the peer; none over a Unix socket.
    pub peer: Option<IpAddr>,
    /// Bytes of the body.
    pub bytes_in: usize,
}

/// One message of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestedMethod {
    pub(super) door: Door,
    /// The method; none if the gateway does not know it.
    pub(super) method: Option<Method>,
    pub(super) began: Instant,
    pub(super) took: Option<Duration>,
}

impl RequestedMethod {
    pub(super) fn method_text(&self) -> &'static str {
        self.method.map_or("other", Method::as_str)
    }
}

/// The known facts about a request.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) is_in_work: bool,
    /// True for a call that outlives its request; its own request is logged instead.
    pub(super) is_apart: bool,
    pub(super) id: Option<RequestName>,
    pub(super) trace: Trace,
    pub(super) began: Instant,
    pub(super) http_method: String,
    pub(super) path: String,
    pub(super) peer: Option<IpAddr>,
    pub(super) key: String,
    pub(super) whose: String,
    pub(super) client: String,
    pub(super) bytes_in: usize,
    pub(super) bytes_out: usize,
    /// The status of the answer; 0 before there is one.
    pub(super) status: u16,
    pub(super) asked: Option<RequestedMethod>,
    pub(super) tool: String,
    pub(super) server: String,
    pub(super) outcome: Option<CallOutcome>,
    /// The reason of a refusal.
    pub(super) refused: Option<&'static str>,
    /// True if the requested item exists, but is hidden from the client.
    pub(super) is_hidden: bool,
    /// True if `tool` is the client's own text, which is not put into a span.
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
            whose: String::new(),
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
    /// The reason of a refusal, for operators.
    pub(super) fn reason(&self) -> Option<&'static str> {
        self.refused.map(|told| if self.is_hidden { HIDDEN } else { told })
    }

    pub(super) fn took(&self) -> Duration {
        let of_message = self.asked.and_then(|asked| asked.took);
        of_message.unwrap_or_else(|| self.began.elapsed())
    }

    /// Fills the record with a new request.
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
        self.whose.clear();
        id
    }

    pub(super) fn clear_message(&mut self) {
        (self.asked, self.outcome, self.refused) = (None, None, None);
        (self.is_hidden, self.is_tool_as_asked) = (false, false);
        self.tool.clear();
        self.server.clear();
        self.error.clear();
    }

    /// Notes the answer of the message, if it is not noted already.
    pub(super) fn answer(&mut self, default: CallOutcome) {
        let Some(asked) = self.asked.as_mut().filter(|asked| asked.took.is_none()) else {
            return;
        };
        let took = asked.began.elapsed();
        asked.took = Some(took);
        let outcome = *self.outcome.get_or_insert(default);
        counters::requests::count(asked.door, asked.method, outcome, took);
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
    /// The id of the request; empty before it has one.
    pub(super) fn id(&self) -> &str {
        self.id.as_ref().map_or("", RequestName::as_str)
    }

    /// The path in a log line, without possible secrets.
    pub(super) fn path(&self) -> String {
        redact::url(&self.path)
    }

    /// The request in the form for operators.
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
            whose: self.whose.clone(),
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

/// The peer's address in log lines.
pub(super) fn peer_text(peer: Option<IpAddr>) -> String {
    peer.map_or_else(|| "unix".to_owned(), |ip| ip.to_string())
}
