//! The stdio transport: one client, whose messages and answers are a line each, in both eras. The
//! client belongs to the user who started the process, so it needs no key and may see everything.
//!
//! Each request is served by a thread of its own, as requests over HTTP are by their connections'
//! threads. The reader of the lines goes on meanwhile, so that answers and cancellations reach
//! the calls that wait for them. `initialize` opens a session; stateless requests need none.

pub mod line_pump;
pub mod line_queue;
pub(super) mod line_sinks;

use std::collections::HashMap;
use std::fmt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, OnceLock};
use std::time::Instant;

use super::answer::Answer;
use super::legacy::dispatch::SessionRequest;
use super::legacy::response::Response;
use super::posted_message::{Body, read_body};
use super::stateless::response::StatelessResponse;
use super::status_codes::Problem;
use super::{Front, request_telemetry};
use crate::access::policy::Scope;
use crate::error::CallError;
use crate::limits::STDIO_REQUESTS_MAX;
use crate::protocol::jsonrpc::{Malformed, Message, RequestId, RpcError, code};
use crate::protocol::legacy;
use crate::protocol::method::{Method, notification};
use crate::protocol::modern;
use crate::protocol::quirks::{self, Tolerance};
use crate::protocol::raw::{Raw, RawObject};
use crate::protocol::revision::{Era, Revision};
use crate::session::{EncodedEvent, Session, Transport};
use crate::sync::{Condvar, Mutex};
use crate::telemetry;
use crate::telemetry::outcome::CallOutcome;
use crate::telemetry::request::{Incoming, Served};
use crate::thread::{self, Joined};
use crate::wait::ClientWatch;
use line_queue::LineQueue;
use line_sinks::{LineAnswer, LineSink, Subscribed, UnsolicitedSink};

/// Bytes of a response that waits for the others of its batch.
const BATCHED_BYTES_MAX: usize = 64 * 1024;

/// The program at the other end of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// Another program: log lines, metrics and spans record its requests.
    Other,
    /// A command of this program, which reports on its requests itself.
    Command,
}

/// The client of the lines.
pub struct LineClient {
    front: Arc<Front>,
    host: Host,
    out: Arc<LineQueue>,
    session: OnceLock<Arc<Session>>,
    requests: Mutex<Requests>,
    /// Notified when a request has been answered.
    answered: Condvar,
    n_threads: AtomicU64,
}

impl fmt::Debug for LineClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineClient").finish_non_exhaustive()
    }
}

/// Requests that are not answered yet.
#[derive(Default)]
struct Requests {
    by_id: HashMap<RequestId, Request>,
    /// An `initialize` in work: later requests wait for it.
    opening: Option<RequestId>,
    threads: Vec<Joined>,
}

/// The sort of a line with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    /// A request of a revision without sessions.
    Stateless,
    /// `initialize`.
    Opening,
    /// Requests in a session.
    OfSession,
}

/// An unanswered request, by the way in which it is cancelled.
enum Request {
    /// A request of a session: cancelled in the session, once the call has entered it.
    OfSession(Arc<AtomicBool>),
    /// A stateless request: cancelled by the end of the socket that stands for its client.
    Stateless { _ends: UnixStream },
    /// An open `subscriptions/listen`.
    Listening(Arc<Subscribed>),
}

impl LineClient {
    /// A client that has sent nothing yet.
    pub fn new(front: Arc<Front>, host: Host) -> LineClient {
        let out = Arc::new(LineQueue::new(front.limits.stream_queue_bytes));
        LineClient {
            front,
            host,
            out,
            session: OnceLock::new(),
            requests: Mutex::default(),
            answered: Condvar::new(),
            n_threads: AtomicU64::new(0),
        }
    }

    /// The longest line that the client may send.
    pub fn line_bytes_max(&self) -> usize {
        self.front.limits.body_bytes
    }

    /// The lines to write to the client.
    pub fn out(&self) -> &Arc<LineQueue> {
        &self.out
    }

    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock()
    }

    /// The client's scope: all present servers.
    fn scope(&self) -> Scope {
        let (principal, admission) =
            (self.front.operator.clone(), self.front.admission().generation);
        let per_user = self.front.pipeline.per_user();
        let user = per_user.and_then(|it| it.credentials(principal.user(), |_| None, []));
        let user = user.map(Arc::new);
        let (only, narrowed, charged, lease) = (None, None, None, None);
        Scope { principal, only, narrowed, admission, charged, lease, user }
    }

    /// Answers a line that cannot be read with an error.
    pub fn refuse(&self, what: &str) {
        self.put_response(&Response::error(None, &RpcError::new(code::PARSE_ERROR, what)));
    }

    fn put_response(&self, response: &Response) {
        self.out.put(response.to_event());
    }

    /// Takes a line. Its requests are answered later.
    pub fn take(self: &Arc<Self>, line: &[u8]) {
        let Ok(text) = std::str::from_utf8(line) else {
            return self.refuse("The line is not UTF-8.");
        };
        let text = text.trim();
        if text.is_empty() {
            return;
        }
        let mended = match self.front.tolerance() {
            Tolerance::Known => quirks::without_nulls(text),
            Tolerance::Nothing => None,
        };
        let (text, quirks) = mended.unwrap_or_else(|| (text.to_owned(), Vec::new()));
        let caller = self.session.get().and_then(|session| session.caller());
        let revision = caller.as_ref().map(|caller| caller.revision);
        let body = match read_body(text.as_bytes(), revision) {
            Ok(body) => body,
            Err(malformed) => {
                let id = malformed.id.as_ref();
                return self.put_response(&Response::error(id, &malformed.error));
            }
        };
        if !quirks.is_empty() {
            let known = caller.and_then(|caller| caller.client.clone());
            let named = known.or_else(|| modern::client_name(params_of(&body)));
            telemetry::quirks::tolerated(&quirks, named.as_deref());
        }
        match &body {
            Body::One(Message::Request { id, method, params }) => {
                let sort = match is_stateless(params.as_deref()) {
                    true => Sort::Stateless,
                    false if Method::parse(method) == Some(Method::Initialize) => Sort::Opening,
                    false => Sort::OfSession,
                };
                let ids = vec![id.clone()];
                drop(body);
                self.start(text, ids, sort);
            }
            Body::One(message) => self.hear(message),
            Body::Batch(messages) => {
                let ids = messages.iter().filter_map(|message| match message {
                    Ok(Message::Request { id, .. }) => Some(id.clone()),
                    Ok(Message::Notification { .. } | Message::Response { .. }) | Err(_) => {
                        None
                    }
                });
                let ids = ids.collect();
                drop(body);
                self.start(text, ids, Sort::OfSession);
            }
        }
    }

    /// Takes a notification or a response.
    fn hear(&self, message: &Message<'_>) {
        if let Message::Notification { method, params } = message
            && method == notification::CANCELLED
        {
            let fields = params.as_deref().and_then(|params| RawObject::parse(params).ok());
            let id = fields.and_then(|it| it.get("requestId").and_then(RequestId::parse));
            if let Some(id) = id {
                self.cancel(&id);
            }
        }
        if let Some(session) = self.session.get() {
            self.front.take(session, &self.scope(), message);
        }
    }

    /// Cancels a request, which is not answered any more (2026-07-28, basic/transports/stdio,
    /// Cancellation).
    fn cancel(&self, id: &RequestId) {
        let ended = {
            let mut requests = self.lock();
            match requests.by_id.get(id) {
                // The session is told besides, and may not have the call yet.
                Some(Request::OfSession(is_cancelled)) => {
                    is_cancelled.store(true, Ordering::SeqCst);
                    None
                }
                Some(Request::Stateless { .. } | Request::Listening(_)) => {
                    requests.by_id.remove(id)
                }
                None => None,
            }
        };
        if let Some(Request::Listening(subscribed)) = ended {
            subscribed.end();
        }
    }

    /// True if a request has been neither answered nor cancelled.
    pub(super) fn awaits(&self, id: &RequestId) -> bool {
        self.lock().by_id.contains_key(id)
    }

    /// Notes that a request has become a subscription; false where it was cancelled meanwhile.
    pub(super) fn listens(&self, id: &RequestId, subscribed: &Arc<Subscribed>) -> bool {
        match self.lock().by_id.get_mut(id) {
            Some(request) => {
                *request = Request::Listening(subscribed.clone());
                true
            }
            None => false,
        }
    }

    /// Starts a thread that answers a message, or a batch, with requests of those ids.
    fn start(self: &Arc<Self>, text: String, ids: Vec<RequestId>, sort: Sort) {
        let refuse = |error: &RpcError| {
            for id in &ids {
                self.put_response(&Response::error(Some(id), error));
            }
        };
        let mut requests = self.lock();
        let in_use = ids.iter().any(|id| requests.by_id.contains_key(id));
        if in_use {
            drop(requests);
            let what = "A request with this id is in flight already.";
            let error = RpcError::new(code::INVALID_REQUEST, what);
            return refuse(&error);
        }
        requests.threads.retain(|thread| !thread.is_finished());
        if requests.by_id.len() + ids.len() > STDIO_REQUESTS_MAX {
            drop(requests);
            let what = format!("more than {STDIO_REQUESTS_MAX} requests are in flight");
            return refuse(&Problem::overloaded(&what).to_rpc());
        }
        let (watch, is_cancelled) = match self.enter(&mut requests, &ids, sort) {
            Ok(entered) => entered,
            Err(error) => {
                drop(requests);
                return refuse(&Problem::from_call(&error).to_rpc());
            }
        };
        // Only an admitted `initialize` counts: later requests wait for its answer.
        if let (Sort::Opening, [id]) = (sort, ids.as_slice()) {
            requests.opening.get_or_insert_with(|| id.clone());
        }
        let number = self.n_threads.fetch_add(1, Ordering::Relaxed) % 10_000;
        let (client, entered) = (self.clone(), ids.clone());
        let serve = move || {
            let _left = Left { client: &client, ids: &entered };
            let _served = client.begin(text.len());
            match watch {
                Some(watch) => client.serve_stateless(&text, watch),
                None => client.serve_of_session(&text, &is_cancelled),
            }
        };
        match thread::spawn(&format!("stdio-{number:03}"), serve) {
            Ok(thread) => requests.threads.push(thread),
            Err(_) => {
                ids.iter().for_each(|id| drop(requests.by_id.remove(id)));
                requests.opening.take_if(|id| ids.contains(id));
                drop(requests);
                self.answered.notify_all();
                refuse(&Problem::overloaded("the system refuses a thread").to_rpc());
            }
        }
    }

    /// Notes the beginning of the request in this thread's record.
    fn begin(&self, bytes_in: usize) -> Option<Served> {
        match self.host {
            Host::Other => Some(telemetry::request::begin(Incoming {
                id: None,
                traceparent: None,
                tracestate: None,
                agent: None,
                method: "",
                path: "",
                peer: None,
                bytes_in,
            })),
            Host::Command => None,
        }
    }

    fn enter(
        &self,
        requests: &mut Requests,
        ids: &[RequestId],
        sort: Sort,
    ) -> Result<(Option<ClientWatch>, Arc<AtomicBool>), CallError> {
        let is_cancelled = Arc::new(AtomicBool::new(false));
        if let (Sort::Stateless, [id]) = (sort, ids) {
            let (here, there) = UnixStream::pair().map_err(|_| CallError::Overloaded {
                what: "no descriptor is left".to_owned(),
            })?;
            requests.by_id.insert(id.clone(), Request::Stateless { _ends: there });
            let watch: ClientWatch = Arc::new(here);
            return Ok((Some(watch), is_cancelled));
        }
        for id in ids {
            requests.by_id.insert(id.clone(), Request::OfSession(is_cancelled.clone()));
        }
        Ok((None, is_cancelled))
    }

    fn serve_stateless(self: &Arc<Self>, text: &str, watch: ClientWatch) {
        let Ok(Message::Request { id, method, params }) = Message::parse(text) else { return };
        let (params, scope) = (params.as_deref(), self.scope());
        let answer = LineAnswer { client: self.clone(), id: id.clone(), watch };
        let stream = StatelessResponse::on_lines(answer);
        request_telemetry::stateless(telemetry::outcome::Door::Stdio, &id, &method, params);
        let answer = match modern::read_envelope(params) {
            Err(error) => Answer::Error(error),
            Ok(envelope) if Method::parse(&method) == Some(Method::SubscriptionsListen) => {
                self.front.listen(&scope, &id, &envelope, stream);
                return telemetry::request::answered(CallOutcome::Ok);
            }
            Ok(envelope) => {
                if let Some(client) = &envelope.caller.client {
                    telemetry::request::client(client);
                }
                let request = (None, method.as_ref(), params);
                self.front.answer_modern(request, &scope, envelope, &stream)
            }
        };
        request_telemetry::answered(&answer);
        stream.finish(&id, &answer);
    }

    fn serve_of_session(self: &Arc<Self>, text: &str, is_cancelled: &Arc<AtomicBool>) {
        let caller = self.session.get().and_then(|session| session.caller());
        // The text was read before, so it reads again.
        let Ok(body) = read_body(text.as_bytes(), caller.map(|it| it.revision)) else {
            return;
        };
        match body {
            Body::One(Message::Request { id, method, params }) => {
                let request =
                    SessionRequest { id: &id, method: &method, params: params.as_deref() };
                if let Some(response) = self.answer(&request, is_cancelled) {
                    self.put_response(&response);
                }
            }
            Body::One(_) => (),
            Body::Batch(messages) => self.serve_batch(&messages, is_cancelled),
        }
    }

    fn serve_batch(
        self: &Arc<Self>,
        messages: &[Result<Message<'_>, Malformed>],
        is_cancelled: &Arc<AtomicBool>,
    ) {
        let mut small = Vec::new();
        for message in messages {
            let response = match message {
                Ok(Message::Request { id, method, params }) => {
                    let request = SessionRequest { id, method, params: params.as_deref() };
                    self.answer(&request, is_cancelled)
                }
                Ok(message) => {
                    self.hear(message);
                    None
                }
                Err(malformed) => {
                    let id = malformed.id.as_ref();
                    Some(Response::error(id, &malformed.error))
                }
            };
            let Some(response) = response else { continue };
            let text = response.pieces();
            // A large response does not wait for the others.
            if text.iter().map(|piece| piece.len()).sum::<usize>() > BATCHED_BYTES_MAX {
                self.put_response(&response);
            } else {
                small.push(text.concat());
            }
        }
        if !small.is_empty() {
            self.out.put(EncodedEvent::of(&format!("[{}]", small.join(","))));
        }
    }

    fn answer(
        self: &Arc<Self>,
        request: &SessionRequest<'_>,
        is_cancelled: &Arc<AtomicBool>,
    ) -> Option<Response> {
        let (scope, method) = (self.scope(), Method::parse(request.method));
        if !matches!(method, Some(Method::Initialize | Method::Ping)) {
            self.await_opening();
        }
        let answer = match self.session.get() {
            Some(session) => {
                let sink = LineSink { out: &self.out, is_cancelled };
                self.front.answer(session, &scope, request, &sink)
            }
            None => match method {
                Some(Method::Initialize) => {
                    let door = telemetry::outcome::Door::Stdio;
                    request_telemetry::initializes(door, request.id, request.params);
                    let answer = self.initialize(&scope, request.params);
                    request_telemetry::answered(&answer);
                    answer
                }
                Some(Method::Ping) => Answer::Result(Raw::from_valid("{}".to_owned())),
                Some(_) | None => {
                    Answer::error(code::INVALID_REQUEST, "initialize comes first.")
                }
            },
        };
        Response::to(request.id, &answer)
    }

    /// Waits for an earlier `initialize`: some programs write several lines at once.
    fn await_opening(&self) {
        let mut requests = self.lock();
        while requests.opening.is_some() {
            requests = self.answered.wait(requests);
        }
    }

    /// Opens the session. Messages that belong to no request go to the client from here on.
    fn initialize(&self, scope: &Scope, params: Option<&str>) -> Answer {
        let read = match legacy::read_initialize(params) {
            Ok(read) => read,
            Err(error) => return Answer::Error(error),
        };
        let revision = read.caller.revision;
        let front = &self.front;
        let session =
            front.sessions.open(Transport::Stdio, front.owner(scope), Some(read.caller));
        let session = match session {
            Ok(session) => session,
            Err(error) => return Answer::Error(Problem::from_call(&error).to_rpc()),
        };
        front.log_level_unsaid(&session, scope);
        let result = front.initialize_result(scope, revision, None);
        let sink = Arc::new(UnsolicitedSink { out: self.out.clone() });
        let attached = front.sessions.attach(&session.id, session.next_stream(), sink);
        if !matches!(attached, Ok(true)) || self.session.set(session.clone()).is_err() {
            front.sessions.close_soon(&session.id);
            let what = "The session is initialized already, or has ended.";
            return Answer::error(code::INVALID_REQUEST, what);
        }
        Answer::Result(result)
    }

    /// Waits until every request is answered, except for subscriptions; true if that is so.
    pub fn drain(&self, deadline: Instant) -> bool {
        let is_open = |request: &Request| match request {
            Request::OfSession(_) | Request::Stateless { .. } => true,
            Request::Listening(_) => false,
        };
        let is_done = |requests: &Requests| !requests.by_id.values().any(is_open);
        self.answered.wait_until(self.lock(), deadline, is_done).1
    }

    /// Cancels the requests in flight, and ends the client's session and its output.
    pub fn end(&self) {
        if let Some(session) = self.session.get() {
            self.front.sessions.close_soon(&session.id);
        }
        let (ended, threads) = {
            let mut requests = self.lock();
            requests.opening = None;
            (std::mem::take(&mut requests.by_id), std::mem::take(&mut requests.threads))
        };
        drop(ended);
        self.answered.notify_all();
        self.out.close();
        // A call that waits for a server is told of the end, and one that waits for room of the
        // queue's end.
        drop(threads);
    }
}

/// Takes requests out when their thread ends in any way.
struct Left<'a> {
    client: &'a LineClient,
    ids: &'a [RequestId],
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        let mut requests = self.client.lock();
        for id in self.ids {
            // A request that has become a subscription goes on.
            if !matches!(requests.by_id.get(id), Some(Request::Listening(_))) {
                requests.by_id.remove(id);
            }
            if requests.opening.as_ref() == Some(id) {
                requests.opening = None;
            }
        }
        drop(requests);
        self.client.answered.notify_all();
    }
}

/// True if a request declares a revision without sessions (2026-07-28, basic/versioning). An
/// unknown revision gets its error in that era's form.
fn is_stateless(params: Option<&str>) -> bool {
    let Some(declared) = modern::declared_version(params) else { return false };
    Revision::parse(&declared).map(Revision::era) != Some(Era::Legacy)
}

fn params_of<'a>(body: &'a Body<'_>) -> Option<&'a str> {
    match body {
        Body::One(Message::Request { params, .. }) => params.as_deref(),
        Body::One(_) | Body::Batch(_) => None,
    }
}
