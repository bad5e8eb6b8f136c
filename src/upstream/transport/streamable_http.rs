//! Streamable HTTP with sessions (2025-11-25, basic/transports): a POST for every message, its
//! answer as JSON or as a stream, and one further stream for what the server says unasked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use ureq::http::{HeaderMap, HeaderValue, Method as HttpMethod};

use crate::config::secrets;
use crate::limits::CONTROL_TIMEOUT;
use crate::protocol::call::{CallSink, Notice, Outcome, Outgoing, PrincipalId, Question};
use crate::protocol::headers::{SESSION_ID, is_event_stream, is_json};
use crate::protocol::jsonrpc::{RequestId, RpcError};
use crate::protocol::legacy::Initialized;
use crate::protocol::raw::{Keeper, Raw};
use crate::upstream::handshake;
use crate::wait::Wait;

use super::get_stream;
use super::http::{HttpContext, StreamThread, Wire, session_headers, with_session};
use super::message_bytes::Held;
use super::post_stream::{Ear, Phase, Post, PostStream, Seen, broke_off, not_ours};
use super::refused_status::{error_text, is_certain, is_success, refusal};
use crate::upstream::backoff::{Range, SharedRetry};
use crate::upstream::failure::{Failure, FailureKind, Refusal, cut, may_replay};
use crate::upstream::http_client::{HttpConnection, HttpRequest, HttpResponse};
use crate::upstream::message::{self, Incoming, Stopped};
use crate::upstream::session::context::{Opened, Opener, Transport, no_session};
use crate::upstream::session::correlation::Interest;
use crate::upstream::session::dispatch::{Sorted, sort};
use crate::upstream::session::pending::PendingRequests;
use crate::upstream::session::renewal::Pace;
use crate::upstream::session::single_flight::SingleFlight;

/// Takes a broken stream up behind the event of this id.
pub(crate) const LAST_EVENT_ID: &str = "last-event-id";

/// The transport of one upstream.
pub(crate) struct StreamableHttp {
    pub(crate) http: Arc<HttpContext>,
    pub(crate) single_flight: SingleFlight<Session>,
    /// The last `initialize` was refused in a way that hints at HTTP+SSE.
    hints_at_http_sse: AtomicBool,
    /// When a stream that has ended is asked for again.
    streams: SharedRetry,
    /// When a session that is refused is replaced.
    pub(crate) renewals: Pace,
}

/// An open session.
pub(crate) struct Session {
    pub(crate) initialized: Arc<Initialized>,
    /// With what every later POST carries.
    wire: Arc<Wire>,
    /// What every later GET and DELETE carries.
    get: HeaderMap,
    has_id: bool,
    /// It has answered a request.
    pub(crate) has_worked: AtomicBool,
    /// For what comes on the session's own stream but belongs to a call.
    pending: Arc<PendingRequests>,
    /// The stream of what the server says unasked; it ends with the session.
    stream: Mutex<Option<StreamThread>>,
}

/// The session that a request goes over.
#[derive(Clone, Copy)]
pub(crate) struct Over<'a> {
    pub(crate) generation: u64,
    pub(crate) session: &'a Session,
    /// The request was refused before, on a session that seemed to be lost.
    pub(crate) again: bool,
}

/// The response, and the session that it opened.
struct Posted {
    session_id: Option<HeaderValue>,
    outcome: Result<Raw, RpcError>,
}

impl StreamableHttp {
    pub(crate) fn new(http: Arc<HttpContext>) -> StreamableHttp {
        let single_flight = SingleFlight::new(http.context.generations.clone());
        let streams = SharedRetry::new(Range::STREAM);
        let (hints_at_http_sse, renewals) = (AtomicBool::new(false), Pace::default());
        StreamableHttp { http, single_flight, hints_at_http_sse, streams, renewals }
    }

    /// Whether the server refused `initialize` as one that speaks HTTP+SSE does.
    pub(crate) fn hints_at_http_sse(&self) -> bool {
        self.hints_at_http_sse.load(Ordering::Relaxed)
    }

    pub(crate) fn session(
        &self,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
    ) -> Result<(u64, Arc<Session>), Failure> {
        if let Some(open) = self.single_flight.current() {
            return Ok(open);
        }
        self.single_flight.open(wait, |generation| {
            let session = self.handshake(connection, wait).map_err(|failure| {
                connection.reset();
                self.http.context.not_opened(generation, failure.in_handshake())
            })?;
            self.listen(&session, generation, wait);
            self.http.context.mailbox.opened(generation);
            Ok(session)
        })
    }

    fn wire(&self, post: HeaderMap) -> Arc<Wire> {
        let (http, endpoint) = (self.http.clone(), self.http.endpoint.clone());
        Arc::new(Wire { http, endpoint, post: Arc::new(post) })
    }

    pub(crate) fn handshake(
        &self,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
    ) -> Result<Session, Failure> {
        let id = self.http.context.next_id();
        let post = Post {
            id,
            body: &handshake::initialize(id, self.http.context.capabilities()),
            wire: &self.wire(self.http.post.clone()),
            get: &self.http.get,
            phase: Phase::Opening,
            again: false,
        };
        let sink = Opener(&self.http.context);
        let ear = Ear::new(&sink, wait, None);
        let posted = self.post(connection, post, &ear);
        let hints = matches!(
            &posted,
            Err(Failure { kind: FailureKind::Refused(Refusal::MaybeHttpSse), .. })
        );
        self.hints_at_http_sse.store(hints, Ordering::Relaxed);
        let posted = posted?;
        let initialized = handshake::read_handshake(posted.outcome).inspect_err(|_| {
            // The server keeps a session that nobody is going to use.
            if let Some(id) = &posted.session_id {
                self.http.end_session(&with_session(&self.http.get, id));
            }
        })?;
        let session = Session {
            wire: self.wire(session_headers(&self.http.post, &initialized, &posted.session_id)),
            get: session_headers(&self.http.get, &initialized, &posted.session_id),
            initialized: Arc::new(initialized),
            has_id: posted.session_id.is_some(),
            has_worked: AtomicBool::new(false),
            pending: Arc::default(),
            stream: Mutex::new(None),
        };
        let told = self.notify(connection, &session.wire.post, wait, &handshake::initialized());
        if let Err(failure) = told {
            self.end(&session);
            return Err(failure);
        }
        Ok(session)
    }

    /// Ends a session that nobody is going to use.
    pub(crate) fn end(&self, session: &Session) {
        if session.has_id {
            self.http.end_session(&session.get);
        }
    }

    /// POSTs a message that wants no response.
    fn notify(
        &self,
        connection: &mut HttpConnection,
        headers: &HeaderMap,
        wait: &Arc<Wait>,
        body: &str,
    ) -> Result<(), Failure> {
        let http = &self.http;
        let (method, endpoint) = (&HttpMethod::POST, &*http.endpoint);
        let ask = HttpRequest { method, endpoint, headers, body: Some(body) };
        let mut answer = connection.client(&http.factory).run(wait, ask)?;
        if is_success(answer.status) {
            // There should be no body, and some servers leave a stream open here.
            connection.keep(answer.into_rest());
            return Ok(());
        }
        let text = error_text(&mut answer);
        Err(http.refused(FailureKind::Refused(Refusal::Plain), &answer, &text))
    }

    pub(crate) fn listen(&self, session: &Session, generation: u64, opener: &Wait) {
        let sources = get_stream::Sources {
            http: self.http.clone(),
            get: session.get.clone(),
            wire: session.wire.clone(),
            pending: session.pending.clone(),
            generation,
            has_session_id: session.has_id,
            retry: self.streams.clone(),
        };
        let stream = get_stream::start(sources, opener);
        *session.stream.lock().unwrap_or_else(PoisonError::into_inner) = stream;
    }

    fn post(
        &self,
        connection: &mut HttpConnection,
        post: Post<'_>,
        ear: &Ear<'_>,
    ) -> Result<Posted, Failure> {
        let http = &self.http;
        let ask = HttpRequest {
            method: &HttpMethod::POST,
            endpoint: &http.endpoint,
            headers: &post.wire.post,
            body: Some(post.body),
        };
        let answer = connection.client(&http.factory).run_heeding_bell(ear.wait, ask, ear)?;
        let session_id = answer.headers.get(SESSION_ID).cloned();
        // It is as good as a key there.
        let known =
            session_id.as_ref().and_then(|id| id.to_str().ok()).and_then(secrets::session_id);
        known.into_iter().for_each(|id| http.context.secrets.learn(id));
        // What is said while the session is opened belongs to it already.
        let opening = match &session_id {
            Some(id) if post.phase == Phase::Opening => {
                Some((self.wire(with_session(&post.wire.post, id)), with_session(post.get, id)))
            }
            Some(_) | None => None,
        };
        let post = match &opening {
            Some((wire, get)) => Post { wire, get, ..post },
            None => post,
        };
        let outcome = self.read_answer(connection, answer, post, ear).inspect_err(|_| {
            // The server keeps a session that nobody is going to use.
            if let Some((_, get)) = &opening {
                http.end_session(get);
            }
        })?;
        // Progress that came on the session's stream just before the answer.
        ear.look();
        Ok(Posted { session_id, outcome })
    }

    fn read_answer<'a>(
        &self,
        connection: &mut HttpConnection,
        mut answer: HttpResponse<'a>,
        post: Post<'_>,
        ear: &'a Ear<'_>,
    ) -> Result<Result<Raw, RpcError>, Failure> {
        let http = &self.http;
        let content_type = answer.header("content-type").unwrap_or_default();
        if !is_success(answer.status) {
            let text = error_text(&mut answer);
            return refusal(http, &answer, &text, post);
        }
        if is_event_stream(content_type) {
            return self.read_stream(connection, answer, post, ear);
        }
        if is_json(content_type) {
            let max = http.context.limits.upstream_result_bytes;
            let bound = "limits.upstream_result_bytes";
            let mut held = Held::new(&http.context.buffered, ear.charged);
            let body = answer.read_whole(max, bound, &mut held)?;
            return self.find_answer(body, held.take(), post, ear);
        }
        if answer.status == 202 {
            return Err(Failure::nonsense("it accepted the request but gave no answer"));
        }
        let what = format!("its answer is neither JSON nor a stream: {content_type:?}");
        Err(Failure::nonsense(cut(&what)))
    }

    /// Finds our answer in a JSON body.
    fn find_answer(
        &self,
        body: Vec<u8>,
        keeper: Option<Keeper>,
        post: Post<'_>,
        ear: &Ear<'_>,
    ) -> Result<Result<Raw, RpcError>, Failure> {
        let text = String::from_utf8(body)
            .map_err(|_| Failure::nonsense("its answer is not UTF-8"))?;
        let text = Arc::new(text);
        let mut found = None;
        let go_on = || ear.wait.check().is_ok();
        let read = message::read_kept(&text, &keeper, &go_on, |incoming| {
            match self.overhear(incoming, post.wire, ear) {
                Some(Incoming::Answer { id, outcome }) if id == Some(post.id) => {
                    found = Some(Ok(outcome));
                }
                Some(incoming) => {
                    found.get_or_insert(Err(not_ours(&incoming)));
                }
                None => (),
            }
        });
        read.map_err(|Stopped| ear.stopped())?;
        found.unwrap_or_else(|| Err(Failure::nonsense("its answer holds no response")))
    }

    /// Deals with what is no answer; gives back what is, or makes no sense.
    pub(crate) fn overhear(
        &self,
        incoming: Incoming,
        wire: &Arc<Wire>,
        ear: &Ear<'_>,
    ) -> Option<Incoming> {
        match sort(&self.http.context, incoming, wire) {
            Sorted::Done => (),
            // It concerns whoever is subscribed, whatever call it was said in.
            Sorted::Notice(notice @ Notice::ResourceUpdated(_)) => {
                self.http.context.notice(notice);
            }
            Sorted::Notice(notice) => ear.notice(notice),
            Sorted::Ask(question) => ear.ask(Question { is_of_call: true, ..question }),
            Sorted::Rest(incoming) => return Some(incoming),
        }
        None
    }

    /// Reads a stream until our answer has come; takes it up again where the server lets it.
    fn read_stream<'a>(
        &'a self,
        connection: &mut HttpConnection,
        mut answer: HttpResponse<'a>,
        post: Post<'a>,
        ear: &'a Ear<'_>,
    ) -> Result<Result<Raw, RpcError>, Failure> {
        let mut stream = PostStream { transport: self, post, ear };
        let mut seen = Seen::default();
        loop {
            let began = Instant::now();
            let ended = stream.read(&mut answer, &mut seen);
            if let Some(found) = seen.found.take() {
                // Its end is on the way; the slot's next user reads it.
                connection.keep(answer.into_rest());
                return found;
            }
            let failure = match ended {
                Ok(_) => broke_off("the stream ended without an answer"),
                Err(failure) => failure,
            };
            let Some(last) = seen.last_id.clone() else { return Err(failure) };
            if failure.kind != FailureKind::Broke {
                return Err(failure);
            }
            answer = stream.resume(connection, &last, began.elapsed(), &mut seen, failure)?;
        }
    }

    /// Sends a request over a session, once. What comes of it may cast doubt on the session.
    fn attempt(
        &self,
        connection: &mut HttpConnection,
        over: Over<'_>,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Outcome, Failure> {
        let outcome = self.send(connection, over, outgoing, wait, sink);
        match &outcome {
            Ok(outcome) => self.answered(over, outcome),
            Err(why) if why.kind == FailureKind::Refused(Refusal::Plain) => {
                self.doubt(over, why.clone());
            }
            Err(_) => (),
        }
        outcome
    }

    pub(crate) fn send(
        &self,
        connection: &mut HttpConnection,
        over: Over<'_>,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Outcome, Failure> {
        let Over { generation, session, again } = over;
        let id = self.http.context.next_id();
        let post = Post {
            id,
            body: &outgoing.to_message(&RequestId::from(id)),
            wire: &session.wire,
            get: &session.get,
            phase: if session.has_id { Phase::WithId } else { Phase::WithoutId },
            again,
        };
        let waiting = session.pending.enter(id, wait, Interest::of(sink))?;
        let ear = Ear::new(sink, wait, Some(&waiting));
        let ear = ear.charged(outgoing.charged.as_ref());
        let posted = self.post(connection, post, &ear);
        let failure = match posted {
            Ok(posted) => return self.http.context.outcome(posted.outcome),
            Err(failure) => failure,
        };
        if !matches!(failure.kind, FailureKind::SessionGone | FailureKind::Refused(_)) {
            connection.reset();
        }
        self.after(&failure, generation, session, (id, outgoing.charged.as_ref()));
        Err(failure)
    }

    /// What a failed request means for the session and for the upstream.
    fn after(
        &self,
        failure: &Failure,
        generation: u64,
        session: &Session,
        (id, charged): (u64, Option<&PrincipalId>),
    ) {
        match &failure.kind {
            FailureKind::Broke if !failure.sent => {
                drop(self.single_flight.forget(generation));
                self.http.context.mailbox.lost(generation, failure.clone());
            }
            FailureKind::Interrupted(reason) if failure.sent => {
                session.wire.cancel(id, *reason, charged);
            }
            FailureKind::SessionGone
            | FailureKind::Broke
            | FailureKind::Interrupted(_)
            | FailureKind::Refused(_)
            | FailureKind::Nonsense
            | FailureKind::Overloaded => (),
        }
    }

    /// Tells the server that the session has ended (2025-11-25, basic/transports, Session
    /// Management); whether it cares is its own affair.
    fn delete(&self, session: &Session) {
        if !session.has_id {
            return;
        }
        let Ok(wait) = Wait::plain(CONTROL_TIMEOUT) else { return };
        let (method, endpoint) = (&HttpMethod::DELETE, &*self.http.endpoint);
        let ask = HttpRequest { method, endpoint, headers: &session.get, body: None };
        if let Err(failure) = self.http.factory.client().run(&wait, ask) {
            log::debug!(target: "upstream", "{}: a session could not be ended: {}",
                self.http.context.name(), self.http.context.scrubbed(failure).message);
        }
    }
}

impl Transport for StreamableHttp {
    fn open(
        &self,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
    ) -> Result<Opened, Failure> {
        let (generation, session) = self.session(connection, wait)?;
        Ok(Opened { generation, initialized: session.initialized.clone() })
    }

    fn request(
        &self,
        connection: &mut HttpConnection,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Outcome, Failure> {
        let mut replayed = false;
        loop {
            let (generation, session) = self.session(connection, wait)?;
            let over = Over { generation, session: &session, again: replayed };
            let failure = match self.attempt(connection, over, outgoing, wait, sink) {
                Ok(outcome) => {
                    if replayed {
                        self.renewals.helped();
                    }
                    return Ok(outcome);
                }
                Err(failure) => failure,
            };
            if failure.kind == FailureKind::SessionGone {
                let now = Instant::now();
                if replayed {
                    self.renewals.tried(now, failure.asked_pause());
                } else if !is_certain(&failure)
                    && !self.renewals.is_due(now)
                    && !self.is_replaced(generation)
                {
                    // Another session has not helped a moment ago.
                    let failure =
                        Failure { kind: FailureKind::Refused(Refusal::Plain), ..failure };
                    self.doubt(over, failure.clone());
                    return Err(failure);
                }
                drop(self.single_flight.forget(generation));
            }
            if replayed || !may_replay(&failure, outgoing.is_safe_to_repeat) {
                if failure.kind == FailureKind::SessionGone {
                    // Whoever looks after the session opens another.
                    self.http.context.mailbox.lost(generation, failure.clone());
                }
                return Err(failure);
            }
            replayed = true;
        }
    }

    fn request_open(
        &self,
        connection: &mut HttpConnection,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Outcome, Failure> {
        let (generation, session) = self.single_flight.current().ok_or_else(no_session)?;
        let over = Over { generation, session: &session, again: false };
        self.attempt(connection, over, outgoing, wait, sink)
    }

    fn probe(
        &self,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
        _: &Failure,
    ) -> Result<(), Failure> {
        self.look(connection, wait)
    }

    fn forget(&self, generation: u64) {
        drop(self.single_flight.forget(generation));
    }

    fn leave(&self) {
        if let Some((generation, _)) = self.single_flight.current() {
            drop(self.single_flight.forget(generation));
        }
    }

    fn backing_off(&self, _: &Failure, _: Instant) {}

    fn tell(&self, whose: &PrincipalId, text: String) {
        if let Some((_, session)) = self.single_flight.current() {
            session.wire.notify(whose, text);
        }
    }

    fn is_open(&self) -> bool {
        self.single_flight.current().is_some()
    }

    fn close(&self) {
        let session = self.single_flight.close();
        if let Some(session) = &session {
            let stream = session.stream.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(stream);
            self.delete(session);
        }
        self.http.close_control();
    }

    fn transport(&self) -> &'static str {
        "http"
    }
}
