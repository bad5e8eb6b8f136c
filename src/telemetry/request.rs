//! The record of the request that this thread serves, for lines, metrics, spans and `/status`.
//!
//! One thread serves one HTTP request at a time, from its head to its answer, and makes its call
//! itself; so the record is kept with the thread, as OpenTelemetry keeps its context, and no
//! layer in between has to carry it. The record stays with the thread: a request fills it again
//! and allocates nothing. Only the thread takes its lock, and `/status`, which reads the records
//! of requests in work.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::access;
use super::activity::{self, Activity};
use super::ids::RequestName;
use super::metrics;
use super::outcome::{CallOutcome, Door};
use super::rejected::Reason;
use super::trace::{Answered, Trace};
use crate::error::CallError;
use crate::limits::{ACCESS_ERROR_CHARS_MAX, ACCESS_TEXT_CHARS_MAX};
use crate::protocol::call::Outcome;
use crate::protocol::method::Method;
use crate::protocol::raw::RawObject;
use crate::telemetry::redact;

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
    began: Instant,
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
    is_apart: bool,
    pub(super) id: Option<RequestName>,
    pub(super) trace: Trace,
    began: Instant,
    pub(super) http_method: String,
    pub(super) path: String,
    pub(super) peer: Option<IpAddr>,
    pub(super) key: String,
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
    is_hidden: bool,
    /// True if `tool` is the client's own text, which is not put into a span.
    is_tool_as_asked: bool,
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
fn set(text: &mut String, new: &str, chars_max: usize) {
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

    /// The time since the request began.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn begin(&mut self, incoming: Incoming<'_>) -> RequestName {
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

    fn clear_message(&mut self) {
        (self.asked, self.outcome, self.refused) = (None, None, None);
        (self.is_hidden, self.is_tool_as_asked) = (false, false);
        self.tool.clear();
        self.server.clear();
        self.error.clear();
    }

    /// Notes the next message; returns the activity of the message before.
    fn ask(&mut self, door: Door, method: &str, params: Option<&str>) -> Option<Activity> {
        let before = self.flush();
        let method = Method::parse(method);
        self.asked = Some(RequestedMethod { door, method, began: Instant::now(), took: None });
        self.trace.ask(params);
        before
    }

    /// Notes the answer of the message, if it is not noted already.
    fn answer(&mut self, default: CallOutcome) {
        let Some(asked) = self.asked.as_mut().filter(|asked| asked.took.is_none()) else {
            return;
        };
        let took = asked.began.elapsed();
        asked.took = Some(took);
        let outcome = *self.outcome.get_or_insert(default);
        metrics::requests::count(asked.door, asked.method, outcome, took);
        let asked = *asked;
        self.trace.answered(&Answered {
            asked,
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

    /// Writes the line of the message, or of a request that was refused before there was one;
    /// returns the activity to give to the watcher once this record's lock is released.
    fn flush(&mut self) -> Option<Activity> {
        self.answer(CallOutcome::Cancelled);
        let mut told = None;
        if !self.is_apart && (self.asked.is_some() || self.refused.is_some()) {
            access::tell(self);
            told = activity::of(self);
        }
        self.clear_message();
        told
    }
}

/// A thread's record.
type Shared = Arc<Mutex<Record>>;

thread_local! {
    static CURRENT: OnceCell<Shared> = const { OnceCell::new() };
}

/// The records of all threads that have served a request.
static ALL: Mutex<Vec<Weak<Mutex<Record>>>> = Mutex::new(Vec::new());

fn lock(record: &Shared) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

fn registered() -> Shared {
    let record = Shared::default();
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|record| record.strong_count() > 0);
    all.push(Arc::downgrade(&record));
    record
}

/// Calls `change` with this thread's record, if it serves a request. `change` must not log: a log
/// line uses the record itself.
pub(super) fn with<T>(change: impl FnOnce(&mut Record) -> T) -> Option<T> {
    // A thread that ends has no record any more.
    let changed = CURRENT.try_with(|current| {
        let mut record = lock(current.get()?);
        record.is_in_work.then(|| change(&mut record))
    });
    changed.ok().flatten()
}

/// A request in work; dropping this notes its end.
#[derive(Debug)]
#[must_use = "the request ends when this is dropped"]
pub struct Served {
    /// The request's id.
    pub name: RequestName,
}

/// Notes the begin of a request on this thread.
pub fn begin(incoming: Incoming<'_>) -> Served {
    let begun =
        CURRENT.try_with(|current| lock(current.get_or_init(registered)).begin(incoming));
    Served { name: begun.unwrap_or_else(|_| RequestName::random()) }
}

impl Drop for Served {
    fn drop(&mut self) {
        let told = with(|record| {
            let told = record.flush();
            record.is_in_work = false;
            told
        });
        activity::tell(told.flatten());
    }
}

/// Notes the name of the request's key.
pub fn principal(name: Option<&str>) {
    with(|record| set(&mut record.key, name.unwrap_or_default(), ACCESS_TEXT_CHARS_MAX));
}

/// Notes the client's name, as it gives it itself.
pub fn client(name: &str) {
    with(|record| set(&mut record.client, name, ACCESS_TEXT_CHARS_MAX));
}

/// Notes the begin of a message: later notes belong to it. `params` are its parameters, for their
/// `_meta.traceparent`.
pub fn ask(door: Door, method: &str, params: Option<&str>) {
    activity::tell(with(|record| record.ask(door, method, params)).flatten());
}

/// Notes the message's JSON-RPC id, and its session, for the span.
pub fn in_session(rpc_id: &str, session: Option<&str>) {
    with(|record| record.trace.in_session(rpc_id, session));
}

/// Notes the answer of the message; `default` is its outcome if none was noted.
pub fn answered(default: CallOutcome) {
    with(|record| record.answer(default));
}

/// Notes the server of the requested item, and the item's offered name.
pub fn leads_to(server: &str, tool: &str) {
    with(|record| {
        record.is_tool_as_asked = false;
        set(&mut record.server, server, ACCESS_TEXT_CHARS_MAX);
        set(&mut record.tool, tool, ACCESS_TEXT_CHARS_MAX);
    });
}

/// Notes that the client may not see the requested item, or that there is none. The client is
/// told the same in both cases; the operator is told which it is. Where the item exists, `whose`
/// is its server and its full name.
pub fn leads_nowhere(whose: Option<(&str, &str)>, asked: &str) {
    with(|record| {
        (record.is_hidden, record.is_tool_as_asked) = (whose.is_some(), whose.is_none());
        let (server, tool) = whose.unwrap_or(("", asked));
        set(&mut record.server, server, ACCESS_TEXT_CHARS_MAX);
        set(&mut record.tool, tool, ACCESS_TEXT_CHARS_MAX);
    });
}

/// The outcome of a call.
pub fn came_of(method: Option<Method>, answer: &Result<Outcome, CallError>) -> CallOutcome {
    let outcome = match answer {
        Ok(Outcome::Complete(result)) if method == Some(Method::ToolsCall) => {
            if is_error(result.get()) { CallOutcome::ToolError } else { CallOutcome::Ok }
        }
        Ok(Outcome::Complete(_) | Outcome::InputRequired { .. }) => CallOutcome::Ok,
        Ok(Outcome::Error { error, .. }) => CallOutcome::of_answer(error.code),
        Err(error) => CallOutcome::of_failure(error),
    };
    with(|record| {
        record.outcome = Some(outcome);
        if let Ok(Outcome::Error { error, .. }) = answer {
            set(&mut record.error, &error.message, ACCESS_ERROR_CHARS_MAX);
        }
    });
    outcome
}

/// True if the result of a tool is marked as an error.
fn is_error(result: &str) -> bool {
    // A search of the text mostly decides.
    result.contains("\"isError\"")
        && RawObject::parse(result).is_ok_and(|it| it.get("isError") == Some("true"))
}

/// The reason of a refusal of an item that exists, but is hidden from the client. Only operators
/// see it.
const HIDDEN: &str = "hidden";

/// Notes a failed call before its error is put into words. `word` is the reason of the refusal,
/// if the failure is not the upstream's.
pub fn failed(error: &CallError, word: Option<&'static str>) {
    with(|record| {
        record.outcome = Some(CallOutcome::of_failure(error));
        record.is_hidden &=
            matches!(error, CallError::Unknown { .. } | CallError::UnknownServer { .. });
        record.refused = record.refused.or(word);
        set(&mut record.error, &error.to_string(), ACCESS_ERROR_CHARS_MAX);
        if let Some(server) = error.server() {
            set(&mut record.server, server.as_str(), ACCESS_TEXT_CHARS_MAX);
        }
    });
}

/// Notes a refusal for this reason, with `word` where that says more, and with the client's text.
pub(super) fn turned_away(reason: Reason, word: Option<&'static str>, message: &str) {
    with(|record| {
        record.refused = Some(word.unwrap_or(reason.as_str()));
        record.outcome.get_or_insert(match reason {
            Reason::Connections | Reason::Overloaded => CallOutcome::Overloaded,
            Reason::BadRequest
            | Reason::HeadTooLarge
            | Reason::BodyTooLarge
            | Reason::Timeout
            | Reason::NotReading
            | Reason::Origin
            | Reason::Unauthorized
            | Reason::UnknownPath
            | Reason::UnknownSession
            | Reason::Rate => CallOutcome::ClientError,
        });
        set(&mut record.error, message, ACCESS_ERROR_CHARS_MAX);
    });
}

/// Notes the status of an answer whose head is about to be written.
pub fn answers(status: u16) {
    with(|record| record.status = status);
}

/// Notes that bytes of the answer were written.
pub fn wrote(bytes: usize) {
    with(|record| record.bytes_out += bytes);
}

/// The id of this thread's request, and the name of its key.
pub(super) fn named() -> Option<(RequestName, String)> {
    with(|record| record.id.map(|id| (id, record.key.clone()))).flatten()
}

/// Calls `set` with the name and value of each header that tells an upstream the request's id and
/// trace.
pub fn write_headers(mut set: impl FnMut(&'static str, &str)) {
    with(|record| {
        if let Some(id) = &record.id {
            set("x-request-id", id.as_str());
        }
        record.trace.write(&mut set);
    });
}

/// The part of a request's record that goes with a call that outlives the request, to the call's
/// thread.
#[derive(Debug)]
pub struct Carried {
    id: Option<RequestName>,
    key: String,
    asked: Option<RequestedMethod>,
    trace: Trace,
}

/// The part of this thread's record for another thread, see [`Carried`].
pub fn carried() -> Option<Carried> {
    with(|record| Carried {
        id: record.id,
        key: record.key.clone(),
        asked: record.asked,
        trace: record.trace.carried(),
    })
}

impl Carried {
    /// Sets this thread's record.
    pub fn enter(self) -> Option<Served> {
        let name = self.id?;
        let entered = CURRENT.try_with(|current| {
            let mut record = lock(current.get_or_init(registered));
            record.clear_message();
            record.id = Some(name);
            (record.key, record.trace) = (self.key, self.trace);
            // The request itself counts the message.
            record.asked =
                self.asked.map(|asked| RequestedMethod { took: Some(Duration::ZERO), ..asked });
            (record.is_in_work, record.is_apart) = (true, true);
        });
        entered.ok().map(|()| Served { name })
    }
}

/// A request in work, for `/status`.
#[derive(Debug, Clone)]
pub struct InWork {
    /// The request's id.
    pub id: String,
    /// The address of the peer.
    pub peer: String,
    /// The name of the request's key; empty without one.
    pub key: String,
    /// The name that the client gives itself.
    pub client: String,
    /// The door by which the request came in.
    pub door: &'static str,
    /// The method's name.
    pub method: &'static str,
    /// The tool's offered name, or empty.
    pub tool: String,
    /// The server's name, or empty.
    pub server: String,
    /// The time for which the request has been in work.
    pub elapsed: Duration,
}

/// The requests in work, the oldest first, at most `max`, and the number of all of them.
pub fn in_work(max: usize) -> (Vec<InWork>, usize) {
    let all: Vec<Shared> = {
        let all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(Weak::upgrade).collect()
    };
    let mut calls: Vec<InWork> = all
        .iter()
        .filter_map(|record| {
            let record = lock(record);
            let asked = record.asked.filter(|asked| asked.took.is_none())?;
            (record.is_in_work && !record.is_apart).then(|| InWork {
                id: record.id.map(|id| id.as_str().to_owned()).unwrap_or_default(),
                peer: access::peer_text(record.peer),
                key: record.key.clone(),
                client: record.client.clone(),
                door: asked.door.as_str(),
                method: asked.method_text(),
                tool: record.tool.clone(),
                server: record.server.clone(),
                elapsed: record.elapsed(),
            })
        })
        .collect();
    let n = calls.len();
    calls.sort_by_key(|call| std::cmp::Reverse(call.elapsed));
    calls.truncate(max);
    (calls, n)
}

/// The path in a log line.
pub(super) fn path_of(record: &Record) -> String {
    redact::url(&record.path)
}
