//! Streamable HTTP with sessions (2025-11-25, basic/transports): a POST for every message, its
//! answer as JSON or as a stream, and one further stream for what the server says server_events.

use std::sync::{Arc, Mutex, PoisonError};

use ureq::http::{HeaderMap, HeaderValue, Method as HttpMethod};

use crate::config::secrets;
use crate::limits::CONTROL_TIMEOUT;
use crate::protocol::call::{Outcome, PrincipalId};
use crate::protocol::headers::SESSION_ID;
use crate::protocol::jsonrpc::RequestId;
use crate::protocol::legacy::Initialized;
use crate::wait::Wait;

use super::answer::{Ear, Exchange, InSession, Response};
use super::get_stream;
use super::http::{HttpContext, StreamThread, Wire, session_headers, with_session};
use super::refused_status::{Phase, SentRequest, error_text, is_success, refusal};
use super::{Channel, Closing, RequestAttempt};
use crate::upstream::backoff::{Range, SharedRetry};
use crate::upstream::failure::{Failure, FailureKind, Refusal};
use crate::upstream::handshake;
use crate::upstream::http_client::{HttpConnection, HttpRequest, HttpResponse};
use crate::upstream::session::context::Opener;
use crate::upstream::session::correlation::Interest;
use crate::upstream::session::pending::PendingRequests;

/// One POST that wants a response.
#[derive(Clone, Copy)]
struct Post<'a> {
    sent: SentRequest,
    body: &'a str,
    wire: &'a Arc<Wire>,
    /// Headers of the GET that takes a broken stream up again.
    get: &'a HeaderMap,
}

/// The response, and the session that it opened.
struct Posted {
    session_id: Option<HeaderValue>,
    outcome: Response,
}

/// An open session.
struct StreamableHttp {
    http: Arc<HttpContext>,
    initialized: Arc<Initialized>,
    /// With what every later POST carries.
    wire: Arc<Wire>,
    /// What every later GET and DELETE carries.
    get: HeaderMap,
    has_id: bool,
    /// For what comes on the session's own stream but belongs to a call.
    pending: Arc<PendingRequests>,
    /// When the stream that has ended is asked for again.
    retry: SharedRetry,
    /// The stream of what the server says server_events; it ends with the session.
    stream: Mutex<Option<StreamThread>>,
}

/// Opens sessions, one after the other.
pub(super) struct Opening {
    pub(super) http: Arc<HttpContext>,
    /// Of the streams of all of them.
    streams: SharedRetry,
}

impl Opening {
    pub(super) fn new(http: Arc<HttpContext>) -> Opening {
        Opening { http, streams: SharedRetry::new(Range::STREAM) }
    }

    /// Initializes a session.
    pub(super) fn connect(
        &self,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
    ) -> Result<Box<dyn Channel>, Failure> {
        let http = &self.http;
        let id = http.context.next_id();
        let post = Post {
            sent: SentRequest { id, phase: Phase::Opening, is_replay: false },
            body: &handshake::initialize(id, http.context.capabilities()),
            wire: &wire(http, http.post.clone()),
            get: &http.get,
        };
        let sink = Opener(&http.context);
        let posted = post_request(http, connection, post, &Ear::new(&sink, wait, None))?;
        let initialized = handshake::read_handshake(posted.outcome).inspect_err(|_| {
            // The server keeps a session that nobody is going to use.
            if let Some(id) = &posted.session_id {
                http.end_session(&with_session(&http.get, id));
            }
        })?;
        let session = StreamableHttp {
            wire: wire(http, session_headers(&http.post, &initialized, &posted.session_id)),
            get: session_headers(&http.get, &initialized, &posted.session_id),
            http: http.clone(),
            initialized: Arc::new(initialized),
            has_id: posted.session_id.is_some(),
            pending: Arc::default(),
            retry: self.streams.clone(),
            stream: Mutex::new(None),
        };
        session
            .say_initialized(connection, wait)
            .inspect_err(|_| session.close(Closing::Unused))?;
        Ok(Box::new(session))
    }
}

fn wire(http: &Arc<HttpContext>, post: HeaderMap) -> Arc<Wire> {
    let (http, endpoint) = (http.clone(), http.endpoint.clone());
    Arc::new(Wire { http, endpoint, post: Arc::new(post) })
}

fn post_request(
    http: &Arc<HttpContext>,
    connection: &mut HttpConnection,
    post: Post<'_>,
    ear: &Ear<'_>,
) -> Result<Posted, Failure> {
    let (method, endpoint, headers) = (&HttpMethod::POST, &*http.endpoint, &*post.wire.post);
    let ask = HttpRequest { method, endpoint, headers, body: Some(post.body) };
    let answer = connection.client(&http.factory).run_heeding_bell(ear.wait, ask, ear)?;
    let session_id = answer.headers.get(SESSION_ID).cloned();
    // It is as good as a key there.
    let known =
        session_id.as_ref().and_then(|id| id.to_str().ok()).and_then(secrets::session_id);
    known.into_iter().for_each(|id| http.context.secrets.learn(id));
    // What is said while the session is opened belongs to it already.
    let opening = match &session_id {
        Some(id) if post.sent.phase == Phase::Opening => {
            Some((wire(http, with_session(&post.wire.post, id)), with_session(post.get, id)))
        }
        Some(_) | None => None,
    };
    let post = match &opening {
        Some((wire, get)) => Post { wire, get, ..post },
        None => post,
    };
    let outcome = read_answer(http, connection, answer, post, ear).inspect_err(|_| {
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
    http: &HttpContext,
    connection: &mut HttpConnection,
    mut answer: HttpResponse<'a>,
    post: Post<'_>,
    ear: &'a Ear<'_>,
) -> Result<Response, Failure> {
    if !is_success(answer.status) {
        let text = error_text(&mut answer);
        return refusal(http, &answer, &text, post.sent);
    }
    let Post { sent, wire, get, .. } = post;
    let session = Some(InSession { wire, get, has_id: sent.phase == Phase::WithId });
    Exchange { http, id: sent.id, ear, session }.read(connection, answer)
}

impl StreamableHttp {
    fn say_initialized(
        &self,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
    ) -> Result<(), Failure> {
        let (http, headers) = (&self.http, &*self.wire.post);
        let (method, endpoint) = (&HttpMethod::POST, &*http.endpoint);
        let body = handshake::initialized();
        let ask = HttpRequest { method, endpoint, headers, body: Some(&body) };
        let mut answer = connection.client(&http.factory).run(wait, ask)?;
        if is_success(answer.status) {
            // There should be no body, and some servers leave a stream open here.
            connection.keep(answer.into_rest());
            return Ok(());
        }
        let text = error_text(&mut answer);
        Err(http.refused(FailureKind::Refused(Refusal::Plain), &answer, &text))
    }

    /// Tells the server that the session has ended (2025-11-25, basic/transports, Session
    /// Management); whether it cares is its own affair.
    fn delete(&self) {
        let Ok(wait) = Wait::plain(CONTROL_TIMEOUT) else { return };
        let (method, endpoint) = (&HttpMethod::DELETE, &*self.http.endpoint);
        let ask = HttpRequest { method, endpoint, headers: &self.get, body: None };
        if let Err(failure) = self.http.factory.client().run(&wait, ask) {
            log::debug!(target: "upstream", "{}: a session could not be ended: {}",
                self.http.context.name(), self.http.context.scrubbed(failure).message);
        }
    }
}

impl Channel for StreamableHttp {
    fn initialized(&self) -> &Arc<Initialized> {
        &self.initialized
    }

    fn begin(&self, generation: u64, opener: &Wait) {
        let sources = get_stream::Sources {
            http: self.http.clone(),
            get: self.get.clone(),
            wire: self.wire.clone(),
            pending: self.pending.clone(),
            generation,
            has_session_id: self.has_id,
            retry: self.retry.clone(),
        };
        let stream = get_stream::start(sources, opener);
        *self.stream.lock().unwrap_or_else(PoisonError::into_inner) = stream;
    }

    fn request(
        &self,
        connection: &mut HttpConnection,
        attempt: RequestAttempt<'_>,
    ) -> Result<Outcome, Failure> {
        let RequestAttempt { outgoing, wait, sink, is_replay } = attempt;
        let id = self.http.context.next_id();
        let phase = if self.has_id { Phase::WithId } else { Phase::WithoutId };
        let post = Post {
            sent: SentRequest { id, phase, is_replay },
            body: &outgoing.to_message(&RequestId::from(id)),
            wire: &self.wire,
            get: &self.get,
        };
        let charged = outgoing.charged.as_ref();
        let waiting = self.pending.enter(id, wait, Interest::of(sink))?;
        let ear = Ear::new(sink, wait, Some(&waiting)).charged(charged);
        let failure = match post_request(&self.http, connection, post, &ear) {
            Ok(posted) => return self.http.context.outcome(posted.outcome),
            Err(failure) => failure,
        };
        if !matches!(failure.kind, FailureKind::SessionGone | FailureKind::Refused(_)) {
            connection.reset();
        }
        self.wire.cancel_if_sent(&failure, id, charged);
        Err(failure)
    }

    fn notify(&self, whose: &PrincipalId, text: String) {
        self.wire.notify(whose, text);
    }

    fn close(&self, why: Closing) {
        match why {
            // Its stream goes on for the calls that are still on it.
            Closing::Forgotten => (),
            Closing::Unused if self.has_id => self.http.end_session(&self.get),
            Closing::Unused => (),
            Closing::Ended => {
                drop(self.stream.lock().unwrap_or_else(PoisonError::into_inner).take());
                if self.has_id {
                    self.delete();
                }
            }
        }
    }

    fn word(&self) -> &'static str {
        "http"
    }

    fn may_be_forgotten(&self) -> bool {
        true
    }
}
