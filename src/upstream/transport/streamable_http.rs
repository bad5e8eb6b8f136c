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
use crate::wait::Wait;

use super::get_stream;
use super::http::{HttpCore, StreamThread, Wire, session_headers, with_session};
use super::message_bytes::Held;
use super::post_stream::{Ear, Phase, Post, PostStream, Seen, broke_off, not_ours};
use super::refused_status::{error_text, is_certain, is_success, refusal};
use crate::upstream::backoff::{Range, SharedRetry};
use crate::upstream::failure::{self, Kind, Refusal, Trouble, cut, may_replay};
use crate::upstream::http_client::{Answer, Ask, Lane};
use crate::upstream::message::{self, Incoming, Stopped};
use crate::upstream::session::context::{Link, Opened, Opener, no_session};
use crate::upstream::session::correlation::Ears;
use crate::upstream::session::dispatch::{Sorted, sort};
use crate::upstream::session::pending::Inboxes;
use crate::upstream::session::renewal::Pace;
use crate::upstream::session::single_flight::Door;

/// Takes a broken stream up behind the event of this id.
pub(crate) const LAST_EVENT_ID: &str = "last-event-id";

/// The transport of one upstream.
pub(crate) struct StreamableHttp {
    pub(crate) http: Arc<HttpCore>,
    pub(crate) door: Door<Session>,
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
    inboxes: Arc<Inboxes>,
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
    pub(crate) fn new(http: Arc<HttpCore>) -> StreamableHttp {
        let door = Door::new(http.core.generations.clone());
        let streams = SharedRetry::new(Range::STREAM);
        let (hints_at_http_sse, renewals) = (AtomicBool::new(false), Pace::default());
        StreamableHttp { http, door, hints_at_http_sse, streams, renewals }
    }

    /// Whether the server refused `initialize` as one that speaks HTTP+SSE does.
    pub(crate) fn hints_at_http_sse(&self) -> bool {
        self.hints_at_http_sse.load(Ordering::Relaxed)
    }

    pub(crate) fn session(
        &self,
        lane: &mut Lane,
        wait: &Arc<Wait>,
        idle: &mut dyn FnMut(),
    ) -> Result<(u64, Arc<Session>), Trouble> {
        if let Some(open) = self.door.current() {
            return Ok(open);
        }
        let tick = self.http.core.limits.heartbeat;
        self.door.open(wait, tick, idle, |generation, idle| {
            let session = self.handshake(lane, wait, idle).map_err(|trouble| {
                lane.reset();
                self.http.core.not_opened(generation, trouble.in_handshake())
            })?;
            self.listen(&session, generation, wait);
            self.http.core.nudge.opened(generation);
            Ok(session)
        })
    }

    fn wire(&self, post: HeaderMap) -> Arc<Wire> {
        let (http, endpoint) = (self.http.clone(), self.http.endpoint.clone());
        Arc::new(Wire { http, endpoint, post: Arc::new(post) })
    }

    pub(crate) fn handshake(
        &self,
        lane: &mut Lane,
        wait: &Arc<Wait>,
        idle: &mut dyn FnMut(),
    ) -> Result<Session, Trouble> {
        let id = self.http.core.next_id();
        let post = Post {
            id,
            body: &failure::initialize(id, self.http.core.capabilities()),
            wire: &self.wire(self.http.post.clone()),
            get: &self.http.get,
            phase: Phase::Opening,
            again: false,
        };
        let mut sink = Opener { core: &self.http.core, idle };
        let ear = Ear::new(&mut sink, wait, None, self.http.core.limits.heartbeat);
        let posted = self.post(lane, post, &ear);
        let hints =
            matches!(&posted, Err(Trouble { kind: Kind::Refused(Refusal::MaybeHttpSse), .. }));
        self.hints_at_http_sse.store(hints, Ordering::Relaxed);
        let posted = posted?;
        let initialized = failure::read_handshake(posted.outcome).inspect_err(|_| {
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
            inboxes: Arc::default(),
            stream: Mutex::new(None),
        };
        let told = self.notify(lane, &session.wire.post, wait, &failure::initialized());
        if let Err(trouble) = told {
            self.end(&session);
            return Err(trouble);
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
        lane: &mut Lane,
        headers: &HeaderMap,
        wait: &Arc<Wait>,
        body: &str,
    ) -> Result<(), Trouble> {
        let http = &self.http;
        let (method, endpoint) = (&HttpMethod::POST, &*http.endpoint);
        let ask = Ask { method, endpoint, headers, body: Some(body) };
        let mut answer = lane.client(&http.factory).run(wait, ask, &mut || ())?;
        if is_success(answer.status) {
            // There should be no body, and some servers leave a stream open here.
            lane.keep(answer.into_rest());
            return Ok(());
        }
        let text = error_text(&mut answer);
        Err(http.refused(Kind::Refused(Refusal::Plain), &answer, &text))
    }

    pub(crate) fn listen(&self, session: &Session, generation: u64, opener: &Wait) {
        let sources = get_stream::Sources {
            http: self.http.clone(),
            get: session.get.clone(),
            wire: session.wire.clone(),
            inboxes: session.inboxes.clone(),
            generation,
            has_session_id: session.has_id,
            retry: self.streams.clone(),
        };
        let stream = get_stream::start(sources, opener);
        *session.stream.lock().unwrap_or_else(PoisonError::into_inner) = stream;
    }

    fn post(&self, lane: &mut Lane, post: Post<'_>, ear: &Ear<'_>) -> Result<Posted, Trouble> {
        let http = &self.http;
        let ask = Ask {
            method: &HttpMethod::POST,
            endpoint: &http.endpoint,
            headers: &post.wire.post,
            body: Some(post.body),
        };
        let mut idle = || ear.pause();
        let client = lane.client(&http.factory);
        let answer = client.run_heeding_bell(ear.wait, ask, &mut idle)?;
        let session_id = answer.headers.get(SESSION_ID).cloned();
        // It is as good as a key there.
        let known =
            session_id.as_ref().and_then(|id| id.to_str().ok()).and_then(secrets::session_id);
        known.into_iter().for_each(|id| http.core.secrets.learn(id));
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
        let outcome = self.read_answer(lane, answer, post, ear).inspect_err(|_| {
            // The server keeps a session that nobody is going to use.
            if let Some((_, get)) = &opening {
                http.end_session(get);
            }
        })?;
        // Progress that came on the session's stream just before the answer.
        ear.look();
        Ok(Posted { session_id, outcome })
    }

    fn read_answer(
        &self,
        lane: &mut Lane,
        mut answer: Answer,
        post: Post<'_>,
        ear: &Ear<'_>,
    ) -> Result<Result<Raw, RpcError>, Trouble> {
        let http = &self.http;
        let content_type = answer.header("content-type").unwrap_or_default();
        if !is_success(answer.status) {
            let text = error_text(&mut answer);
            return refusal(http, &answer, &text, post);
        }
        if is_event_stream(content_type) {
            return self.read_stream(lane, answer, post, ear);
        }
        if is_json(content_type) {
            let max = http.core.limits.upstream_result_bytes;
            let bound = "limits.upstream_result_bytes";
            let mut held = Held::new(&http.core.buffered, ear.charged);
            let body = answer.read_whole(max, bound, &mut held, &mut || ear.pause())?;
            return self.find_answer(body, held.take(), post, ear);
        }
        if answer.status == 202 {
            return Err(Trouble::nonsense("it accepted the request but gave no answer"));
        }
        let what = format!("its answer is neither JSON nor a stream: {content_type:?}");
        Err(Trouble::nonsense(cut(&what)))
    }

    /// Finds our answer in a JSON body.
    fn find_answer(
        &self,
        body: Vec<u8>,
        keeper: Option<Keeper>,
        post: Post<'_>,
        ear: &Ear<'_>,
    ) -> Result<Result<Raw, RpcError>, Trouble> {
        let text = String::from_utf8(body)
            .map_err(|_| Trouble::nonsense("its answer is not UTF-8"))?;
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
        found.unwrap_or_else(|| Err(Trouble::nonsense("its answer holds no response")))
    }

    /// Deals with what is no answer; gives back what is, or makes no sense.
    pub(crate) fn overhear(
        &self,
        incoming: Incoming,
        wire: &Arc<Wire>,
        ear: &Ear<'_>,
    ) -> Option<Incoming> {
        match sort(&self.http.core, incoming, wire) {
            Sorted::Done => (),
            // It concerns whoever is subscribed, whatever call it was said in.
            Sorted::Notice(notice @ Notice::ResourceUpdated(_)) => {
                self.http.core.notice(notice);
            }
            Sorted::Notice(notice) => ear.notice(notice),
            Sorted::Ask(question) => ear.ask(Question { is_of_call: true, ..question }),
            Sorted::Rest(incoming) => return Some(incoming),
        }
        None
    }

    /// Reads a stream until our answer has come; takes it up again where the server lets it.
    fn read_stream(
        &self,
        lane: &mut Lane,
        mut answer: Answer,
        post: Post<'_>,
        ear: &Ear<'_>,
    ) -> Result<Result<Raw, RpcError>, Trouble> {
        let mut stream = PostStream { link: self, post, ear };
        let mut seen = Seen::default();
        loop {
            let began = Instant::now();
            let ended = stream.read(&mut answer, &mut seen);
            if let Some(found) = seen.found.take() {
                // Its end is on the way; the slot's next user reads it.
                lane.keep(answer.into_rest());
                return found;
            }
            let trouble = match ended {
                Ok(_) => broke_off("the stream ended without an answer"),
                Err(trouble) => trouble,
            };
            let Some(last) = seen.last_id.clone() else { return Err(trouble) };
            if trouble.kind != Kind::Broke {
                return Err(trouble);
            }
            answer = stream.resume(lane, &last, began.elapsed(), &mut seen, trouble)?;
        }
    }

    /// Sends a request over a session, once. What comes of it may cast doubt on the session.
    fn attempt(
        &self,
        lane: &mut Lane,
        over: Over<'_>,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &mut dyn CallSink,
    ) -> Result<Outcome, Trouble> {
        let outcome = self.send(lane, over, outgoing, wait, sink);
        match &outcome {
            Ok(outcome) => self.answered(over, outcome),
            Err(why) if why.kind == Kind::Refused(Refusal::Plain) => {
                self.doubt(over, why.clone());
            }
            Err(_) => (),
        }
        outcome
    }

    pub(crate) fn send(
        &self,
        lane: &mut Lane,
        over: Over<'_>,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &mut dyn CallSink,
    ) -> Result<Outcome, Trouble> {
        let Over { generation, session, again } = over;
        let id = self.http.core.next_id();
        let post = Post {
            id,
            body: &outgoing.to_message(&RequestId::from(id)),
            wire: &session.wire,
            get: &session.get,
            phase: if session.has_id { Phase::WithId } else { Phase::WithoutId },
            again,
        };
        let waiting = session.inboxes.enter(id, wait, Ears::of(sink))?;
        let tick = self.http.core.limits.heartbeat;
        let ear = Ear::new(sink, wait, Some(&waiting), tick);
        let ear = ear.charged(outgoing.charged.as_ref());
        let posted = self.post(lane, post, &ear);
        let trouble = match posted {
            Ok(posted) => return self.http.core.outcome(posted.outcome),
            Err(trouble) => trouble,
        };
        if !matches!(trouble.kind, Kind::SessionGone | Kind::Refused(_)) {
            lane.reset();
        }
        self.after(&trouble, generation, session, (id, outgoing.charged.as_ref()));
        Err(trouble)
    }

    /// What a failed request means for the session and for the upstream.
    fn after(
        &self,
        trouble: &Trouble,
        generation: u64,
        session: &Session,
        (id, charged): (u64, Option<&PrincipalId>),
    ) {
        match &trouble.kind {
            Kind::Broke if !trouble.sent => {
                drop(self.door.forget(generation));
                self.http.core.nudge.lost(generation, trouble.clone());
            }
            Kind::Interrupted(reason) if trouble.sent => {
                session.wire.cancel(id, *reason, charged);
            }
            Kind::SessionGone
            | Kind::Broke
            | Kind::Interrupted(_)
            | Kind::Refused(_)
            | Kind::Nonsense
            | Kind::Overloaded => (),
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
        let ask = Ask { method, endpoint, headers: &session.get, body: None };
        if let Err(trouble) = self.http.factory.client().run(&wait, ask, &mut || ()) {
            log::debug!(target: "upstream", "{}: a session could not be ended: {}",
                self.http.core.name(), self.http.core.scrubbed(trouble).message);
        }
    }
}

impl Link for StreamableHttp {
    fn open(&self, lane: &mut Lane, wait: &Arc<Wait>) -> Result<Opened, Trouble> {
        let (generation, session) = self.session(lane, wait, &mut || ())?;
        Ok(Opened { generation, initialized: session.initialized.clone() })
    }

    fn request(
        &self,
        lane: &mut Lane,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &mut dyn CallSink,
    ) -> Result<Outcome, Trouble> {
        let mut replayed = false;
        loop {
            let (generation, session) = self.session(lane, wait, &mut || sink.silence())?;
            let over = Over { generation, session: &session, again: replayed };
            let trouble = match self.attempt(lane, over, outgoing, wait, sink) {
                Ok(outcome) => {
                    if replayed {
                        self.renewals.helped();
                    }
                    return Ok(outcome);
                }
                Err(trouble) => trouble,
            };
            if trouble.kind == Kind::SessionGone {
                let now = Instant::now();
                if replayed {
                    self.renewals.tried(now, trouble.asked_pause());
                } else if !is_certain(&trouble)
                    && !self.renewals.is_due(now)
                    && !self.is_replaced(generation)
                {
                    // Another session has not helped a moment ago.
                    let trouble = Trouble { kind: Kind::Refused(Refusal::Plain), ..trouble };
                    self.doubt(over, trouble.clone());
                    return Err(trouble);
                }
                drop(self.door.forget(generation));
            }
            if replayed || !may_replay(&trouble, outgoing.is_safe_to_repeat) {
                if trouble.kind == Kind::SessionGone {
                    // Whoever looks after the session opens another.
                    self.http.core.nudge.lost(generation, trouble.clone());
                }
                return Err(trouble);
            }
            replayed = true;
        }
    }

    fn request_open(
        &self,
        lane: &mut Lane,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &mut dyn CallSink,
    ) -> Result<Outcome, Trouble> {
        let (generation, session) = self.door.current().ok_or_else(no_session)?;
        let over = Over { generation, session: &session, again: false };
        self.attempt(lane, over, outgoing, wait, sink)
    }

    fn probe(&self, lane: &mut Lane, wait: &Arc<Wait>, _: &Trouble) -> Result<(), Trouble> {
        self.look(lane, wait)
    }

    fn forget(&self, generation: u64) {
        drop(self.door.forget(generation));
    }

    fn leave(&self) {
        if let Some((generation, _)) = self.door.current() {
            drop(self.door.forget(generation));
        }
    }

    fn backing_off(&self, _: &Trouble, _: Instant) {}

    fn tell(&self, whose: &PrincipalId, text: String) {
        if let Some((_, session)) = self.door.current() {
            session.wire.notify(whose, text);
        }
    }

    fn is_open(&self) -> bool {
        self.door.current().is_some()
    }

    fn close(&self) {
        let session = self.door.close();
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
