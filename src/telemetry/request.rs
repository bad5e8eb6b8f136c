//! The record of the request that this thread serves, for lines, metrics, spans and `/status`.
//!
//! One thread serves one HTTP request at a time, from its head to its answer, and makes its call
//! itself; so the record is kept with the thread, as OpenTelemetry keeps its context, and no
//! layer in between has to carry it. The record stays with the thread: a request fills it again
//! and allocates nothing. Only the thread takes its lock, and `/status`, which reads the records
//! of requests in work.

use std::cell::OnceCell;
use std::sync::{Arc, MutexGuard, Weak};
use std::time::{Duration, Instant};

use super::access;
use super::activity;
use super::ids::RequestName;
use super::outcome::{CallOutcome, Door};
pub use super::record::Incoming;
use super::record::{Record, RequestedMethod, ToldRequest, set};
use super::rejected::{self, Reason};
use super::trace::{Asking, Trace};
use crate::error::CallError;
use crate::limits::{ACCESS_ERROR_CHARS_MAX, ACCESS_TEXT_CHARS_MAX};
use crate::protocol::call::Outcome;
use crate::protocol::method::Method;
use crate::protocol::raw::RawObject;
use crate::sync::Mutex;

/// A thread's record.
type Shared = Arc<Mutex<Record>>;

thread_local! {
    static CURRENT: OnceCell<Shared> = const { OnceCell::new() };
}

/// The records of all threads that have served a request.
static ALL: Mutex<Vec<Weak<Mutex<Record>>>> = Mutex::new(Vec::new());

fn lock(record: &Shared) -> MutexGuard<'_, Record> {
    record.lock()
}

fn registered() -> Shared {
    let record = Shared::default();
    let mut all = ALL.lock();
    all.retain(|record| record.strong_count() > 0);
    all.push(Arc::downgrade(&record));
    record
}

/// Ends the message of a record: writes its line, or that of a request that was refused before
/// there was a message. Returns the report for watchers, to be given once the record's lock is
/// released.
fn flush(record: &mut Record) -> Option<ToldRequest> {
    record.answer(CallOutcome::Cancelled);
    let mut told = None;
    if !record.is_apart && (record.asked.is_some() || record.refused.is_some()) {
        access::tell(record);
        told = activity::is_watched().then(|| record.told());
    }
    record.clear_message();
    told
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

/// Notes the beginning of a request on this thread.
pub fn begin(incoming: Incoming<'_>) -> Served {
    let begun =
        CURRENT.try_with(|current| lock(current.get_or_init(registered)).begin(incoming));
    Served { name: begun.unwrap_or_else(|_| RequestName::random()) }
}

impl Drop for Served {
    fn drop(&mut self) {
        let told = with(|record| {
            let told = flush(record);
            record.is_in_work = false;
            told
        });
        activity::tell(told.flatten());
    }
}

/// Notes the request's key or user: the name for people, and the text that no two have.
pub fn principal(name: Option<&str>, whose: Option<&str>) {
    with(|record| {
        set(&mut record.key, name.unwrap_or_default(), ACCESS_TEXT_CHARS_MAX);
        record.whose.clear();
        record.whose.push_str(whose.unwrap_or_default());
    });
}

/// Notes the client's name, as it gives it itself.
pub fn client(name: &str) {
    with(|record| set(&mut record.client, name, ACCESS_TEXT_CHARS_MAX));
}

/// Notes the beginning of a message: later notes belong to it. `params` are its parameters, for
/// their `_meta.traceparent`.
pub fn ask(door: Door, method: &str, params: Option<&str>) {
    let before = with(|record| {
        let before = flush(record);
        let method = Method::parse(method);
        record.asked =
            Some(RequestedMethod { door, method, began: Instant::now(), took: None });
        record.trace.ask(params);
        before
    });
    activity::tell(before.flatten());
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

/// Notes a failed call before its error is put into words. `word` is the reason of the refusal,
/// if the failure is not the server's.
pub fn failed(error: &CallError, word: Option<&'static str>) {
    with(|record| {
        record.outcome = Some(CallOutcome::of_failure(error));
        record.is_hidden &=
            matches!(error, CallError::Unknown { .. } | CallError::UnknownServer { .. });
        record.refused = record.refused.or(word);
        set(&mut record.error, &error.for_operators(), ACCESS_ERROR_CHARS_MAX);
        if let Some(server) = error.server() {
            set(&mut record.server, server.as_str(), ACCESS_TEXT_CHARS_MAX);
        }
    });
}

/// Counts a refusal of the request that this thread serves: its line and `/status` show the
/// reason, as `word` where that says more, and the client's text.
pub fn turned_away(reason: Reason, word: Option<&'static str>, message: &str) {
    rejected::count(reason);
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

/// Begins a request to a server: its `_meta` carries the parent, and so will its head. A trace
/// that is not recorded here is passed on unchanged.
pub fn ask_upstream(meta: &mut Option<RawObject<'_>>) -> Asking {
    with(|record| record.trace.ask_upstream(meta)).unwrap_or_else(|| Asking::begin(None))
}

/// Calls `set` with the name and value of each header that tells a server the request's id and
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
    whose: String,
    asked: Option<RequestedMethod>,
    trace: Trace,
}

/// The part of this thread's record for another thread, see [`Carried`].
pub fn carried() -> Option<Carried> {
    with(|record| Carried {
        id: record.id,
        key: record.key.clone(),
        whose: record.whose.clone(),
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
            (record.key, record.whose, record.trace) = (self.key, self.whose, self.trace);
            // The request itself counts the message.
            record.asked =
                self.asked.map(|asked| RequestedMethod { took: Some(Duration::ZERO), ..asked });
            (record.is_in_work, record.is_apart) = (true, true);
        });
        entered.ok().map(|()| Served { name })
    }
}

/// The requests in work, the oldest first, at most `max`, and the number of all of them.
pub fn in_work(max: usize) -> (Vec<ToldRequest>, usize) {
    let all: Vec<Shared> = {
        let all = ALL.lock();
        all.iter().filter_map(Weak::upgrade).collect()
    };
    let is_in_work = |record: &Record| {
        let is_unanswered = record.asked.is_some_and(|asked| asked.took.is_none());
        is_unanswered && record.is_in_work && !record.is_apart
    };
    let told = |record: &Shared| {
        let record = lock(record);
        is_in_work(&record)
            .then(|| ToldRequest { took: record.began.elapsed(), ..record.told() })
    };
    let mut calls: Vec<ToldRequest> = all.iter().filter_map(told).collect();
    let n = calls.len();
    calls.sort_by_key(|call| std::cmp::Reverse(call.took));
    calls.truncate(max);
    (calls, n)
}
