//! The request that this thread serves, as lines, metrics, spans and `/status` tell of it.
//!
//! One thread serves one HTTP request at a time, from its head to its answer, and makes its call
//! itself; so what is known of the request is kept with the thread, as OpenTelemetry keeps its
//! context, and no layer in between has to carry it. The record is the thread's for good: a request
//! fills it again and allocates nothing. Its lock is the thread's own, but for `/status`, which looks
//! at what is in work.

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
    began: Instant,
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
    /// 0 where nothing was answered.
    pub(super) status: u16,
    pub(super) asked: Option<RequestedMethod>,
    pub(super) tool: String,
    pub(super) server: String,
    pub(super) outcome: Option<CallOutcome>,
    /// Why it was turned away.
    pub(super) refused: Option<&'static str>,
    /// What it asks for is there, and not for whoever asks.
    is_hidden: bool,
    /// What stands for the tool is the client's text, of which no span is made.
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
    /// Why it was turned away, as operators are told.
    pub(super) fn reason(&self) -> Option<&'static str> {
        self.refused.map(|told| if self.is_hidden { HIDDEN } else { told })
    }

    pub(super) fn took(&self) -> Duration {
        let of_message = self.asked.and_then(|asked| asked.took);
        of_message.unwrap_or_else(|| self.began.elapsed())
    }

    /// How long it has been in work.
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

    /// Gives what is to be told of the message before.
    fn ask(&mut self, door: Door, method: &str, params: Option<&str>) -> Option<Activity> {
        let before = self.flush();
        let method = Method::parse(method);
        self.asked = Some(RequestedMethod { door, method, began: Instant::now(), took: None });
        self.trace.ask(params);
        before
    }

    /// What was asked for is answered, if it is not already.
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

    /// A line of the message, or of a request that was turned away before there was one; gives
    /// what else is to be told of it, once this record's lock is released.
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

/// Calls `change` with this thread's record, if it serves a request. It must not log: a line asks
/// for the record itself.
pub(super) fn with<T>(change: impl FnOnce(&mut Record) -> T) -> Option<T> {
    // A thread that ends has none any more.
    let changed = CURRENT.try_with(|current| {
        let mut record = lock(current.get()?);
        record.is_in_work.then(|| change(&mut record))
    });
    changed.ok().flatten()
}

/// A request in work; its end is told when this is dropped.
#[derive(Debug)]
#[must_use = "the request ends when this is dropped"]
pub struct Served {
    /// What it is called.
    pub name: RequestName,
}

/// A request begins on this thread.
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

/// Whose key it has.
pub fn principal(name: Option<&str>) {
    with(|record| set(&mut record.key, name.unwrap_or_default(), ACCESS_TEXT_CHARS_MAX));
}

/// The client, by the name that it gives itself.
pub fn client(name: &str) {
    with(|record| set(&mut record.client, name, ACCESS_TEXT_CHARS_MAX));
}

/// A message begins: what comes from here on is of it. `params` are its parameters, for their
/// `_meta.traceparent`.
pub fn ask(door: Door, method: &str, params: Option<&str>) {
    activity::tell(with(|record| record.ask(door, method, params)).flatten());
}

/// What JSON-RPC calls the message, and the session it came in, for its span.
pub fn in_session(rpc_id: &str, session: Option<&str>) {
    with(|record| record.trace.in_session(rpc_id, session));
}

/// The message is answered; `default` is what came of it where nobody has said more.
pub fn answered(default: CallOutcome) {
    with(|record| record.answer(default));
}

/// Whose it is what the message asks for, by its offered name.
pub fn leads_to(server: &str, tool: &str) {
    with(|record| {
        record.is_tool_as_asked = false;
        set(&mut record.server, server, ACCESS_TEXT_CHARS_MAX);
        set(&mut record.tool, tool, ACCESS_TEXT_CHARS_MAX);
    });
}

/// What the message asks for is nothing that whoever asks may know of, whether or not it is there.
/// The client is told the same in both cases; the operator is told which of them it is. Where it is
/// there, `whose` is its server and its full name.
pub fn leads_nowhere(whose: Option<(&str, &str)>, asked: &str) {
    with(|record| {
        (record.is_hidden, record.is_tool_as_asked) = (whose.is_some(), whose.is_none());
        let (server, tool) = whose.unwrap_or(("", asked));
        set(&mut record.server, server, ACCESS_TEXT_CHARS_MAX);
        set(&mut record.tool, tool, ACCESS_TEXT_CHARS_MAX);
    });
}

/// What came of a call.
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

/// Whether the result of a tool says that it is an error.
fn is_error(result: &str) -> bool {
    // A look at the text mostly tells.
    result.contains("\"isError\"")
        && RawObject::parse(result).is_ok_and(|it| it.get("isError") == Some("true"))
}

/// Why something is refused that is there, and not for whoever asks. Only operators are told.
const HIDDEN: &str = "hidden";

/// A call failed, and is about to be put into words. `word` is what it is turned away with, if it is
/// none of the upstream's failures.
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

/// The request is turned away for this reason, of which `word` tells more, and is told so in
/// these words.
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

/// The head of an answer is about to be written.
pub fn answers(status: u16) {
    with(|record| record.status = status);
}

/// So many bytes of the answer are written.
pub fn wrote(bytes: usize) {
    with(|record| record.bytes_out += bytes);
}

/// What this thread's request is called, and whose key it has.
pub(super) fn named() -> Option<(RequestName, String)> {
    with(|record| record.id.map(|id| (id, record.key.clone()))).flatten()
}

/// Calls `set` with the name and value of each header by which a request to an upstream says what
/// it is part of.
pub fn write_headers(mut set: impl FnMut(&'static str, &str)) {
    with(|record| {
        if let Some(id) = &record.id {
            set("x-request-id", id.as_str());
        }
        record.trace.write(&mut set);
    });
}

/// What of a request goes with a call that outlives it, to the thread of that.
#[derive(Debug)]
pub struct Carried {
    id: Option<RequestName>,
    key: String,
    asked: Option<RequestedMethod>,
    trace: Trace,
}

/// See [`Carried`].
pub fn carried() -> Option<Carried> {
    with(|record| Carried {
        id: record.id,
        key: record.key.clone(),
        asked: record.asked,
        trace: record.trace.carried(),
    })
}

impl Carried {
    /// This thread goes on with it.
    pub fn enter(self) -> Option<Served> {
        let name = self.id?;
        let entered = CURRENT.try_with(|current| {
            let mut record = lock(current.get_or_init(registered));
            record.clear_message();
            record.id = Some(name);
            (record.key, record.trace) = (self.key, self.trace);
            // The request itself counts it.
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
    /// What it is called.
    pub id: String,
    /// Who sent it.
    pub peer: String,
    /// Whose key it has; empty without one.
    pub key: String,
    /// The client, as it calls itself.
    pub client: String,
    /// How it came in.
    pub door: &'static str,
    /// What it asks for.
    pub method: &'static str,
    /// The tool's offered name, or empty.
    pub tool: String,
    /// The server's name, or empty.
    pub server: String,
    /// For how long.
    pub elapsed: Duration,
}

/// The requests in work, the oldest first, and how many there are if that is more than `max`.
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

/// The path as a line tells it.
pub(super) fn path_of(record: &Record) -> String {
    redact::url(&record.path)
}
