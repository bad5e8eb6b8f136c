//! Streamable HTTP without sessions (2026-07-28, basic/transports/streamable-http): a POST for
//! every request, with what it is about mirrored into headers, answered as JSON or as a stream.
//! Whoever no longer wants an answer closes the connection.

use std::sync::Arc;
use std::time::Instant;

use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method as HttpMethod};

use crate::error::Stage;
use crate::limits::UPSTREAM_DRAIN_BYTES_MAX;
use crate::protocol::call::{CallSink, Notice, Outcome, Outgoing, PrincipalId};
use crate::protocol::headers::{
    METHOD, NAME, PARAM_PREFIX, PROTOCOL_VERSION, encode_value, is_event_stream, is_json,
};
use crate::protocol::jsonrpc::{RequestId, RpcError, code};
use crate::protocol::legacy::Initialized;
use crate::protocol::method::Method;
use crate::protocol::modern::is_modern_error;
use crate::protocol::raw::{Keeper, Raw};
use crate::protocol::revision::Revision;
use crate::protocol::sse::Event;
use crate::upstream::handshake;
use crate::wait::Wait;

use super::http::{HttpContext, Next, StreamEnd, header_name, read_events};
use super::listen_stream::Listening;
use super::message_bytes::Held;
use super::post_stream::{Ear, broke_off, not_ours};
use crate::upstream::failure::{Failure, FailureKind, Refusal, cut, may_replay};
use crate::upstream::http_client::{HttpConnection, HttpRequest, HttpResponse};
use crate::upstream::message::{self, Incoming, Stopped};
use crate::upstream::session::context::{Opened, Opener, Transport};
use crate::upstream::session::single_flight::SingleFlight;
use crate::upstream::session::stateless::{answered_here, outcome};
use crate::upstream::session::stateless_dispatch::{Heard, hear};

/// The transport of one upstream.
pub(crate) struct StatelessHttp {
    http: Arc<HttpContext>,
    /// The configured headers, and those of every POST.
    post: HeaderMap,
    single_flight: SingleFlight<Contact>,
    listening: Arc<Listening>,
}

/// First contact was made. Requests need nothing of it.
struct Contact {
    initialized: Arc<Initialized>,
}

/// One POST.
struct Post<'a> {
    id: u64,
    body: &'a str,
    headers: &'a HeaderMap,
}

type Response = Result<Raw, RpcError>;

impl StatelessHttp {
    pub(crate) fn new(http: Arc<HttpContext>) -> StatelessHttp {
        let mut post = http.post.clone();
        let version = HeaderValue::from_static(Revision::LATEST_MODERN.as_str());
        post.insert(header_name(PROTOCOL_VERSION), version);
        let single_flight = SingleFlight::new(http.context.generations.clone());
        let mut headers = post.clone();
        let method = HeaderValue::from_static(Method::SubscriptionsListen.as_str());
        headers.insert(header_name(METHOD), method);
        let listening = Listening::new(http.clone(), headers);
        StatelessHttp { http, post, single_flight, listening }
    }

    /// Asks the server what it is.
    pub(crate) fn discover(
        &self,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
    ) -> Result<Initialized, Failure> {
        let id = self.http.context.next_id();
        let mut headers = self.post.clone();
        let method = HeaderValue::from_static(Method::ServerDiscover.as_str());
        headers.insert(header_name(METHOD), method);
        let post = Post { id, body: &handshake::discover(id), headers: &headers };
        let sink = Opener(&self.http.context);
        let ear = Ear::new(&sink, wait, None);
        let answer = match self.post(connection, &post, &ear) {
            Ok(answer) => answer,
            Err(failure) => {
                connection.reset();
                let is_answer = matches!(
                    failure.kind,
                    FailureKind::Refused(Refusal::Plain | Refusal::MaybeHttpSse)
                );
                let kind = if is_answer {
                    FailureKind::Refused(Refusal::OtherEra)
                } else {
                    failure.kind
                };
                return Err(Failure { kind, ..failure });
            }
        };
        handshake::read_discovery(answer)
    }

    /// Makes contact, with what is known of the server already, or asks for it.
    pub(crate) fn enter(
        &self,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
        known: Option<Initialized>,
    ) -> Result<Opened, Failure> {
        if let Some((generation, contact)) = self.single_flight.current() {
            return Ok(Opened { generation, initialized: contact.initialized.clone() });
        }
        let opened = self.single_flight.open(wait, |generation| {
            let initialized = match known {
                Some(known) => known,
                None => self.discover(connection, wait).map_err(Failure::in_handshake)?,
            };
            self.http.context.subscriptions.begin(&initialized);
            self.listening.begin(generation);
            self.http.context.mailbox.opened(generation);
            Ok(Contact { initialized: Arc::new(initialized) })
        });
        let (generation, contact) = opened?;
        Ok(Opened { generation, initialized: contact.initialized.clone() })
    }

    /// What every POST carries, and what this one is about (basic/transports/streamable-http,
    /// Request Metadata).
    fn headers(&self, outgoing: &Outgoing<'_>) -> Result<HeaderMap, Failure> {
        let unusable = |what: &str| {
            Failure::new(
                FailureKind::Nonsense,
                Stage::Send,
                format!("{what} fits into no header"),
            )
        };
        let value = |text: &str| HeaderValue::from_str(&encode_value(text));
        let mut headers = self.post.clone();
        let method = value(outgoing.method).map_err(|_| unusable("the method's name"))?;
        headers.insert(header_name(METHOD), method);
        let about = Method::parse(outgoing.method)
            .and_then(Method::mirrored_name)
            .and_then(|key| outgoing.params.string(key).ok().flatten());
        if let Some(about) = about {
            let about = value(&about).map_err(|_| unusable("what the request is about"))?;
            headers.insert(header_name(NAME), about);
        }
        for (name, parameter) in &outgoing.mirrored {
            let name = format!("{PARAM_PREFIX}{name}");
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable(&name))?;
            let parameter = value(parameter).map_err(|_| unusable("a parameter"))?;
            headers.insert(name, parameter);
        }
        Ok(headers)
    }

    /// Sends a request once.
    fn attempt(
        &self,
        connection: &mut HttpConnection,
        outgoing: &Outgoing<'_>,
        headers: &HeaderMap,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Outcome, Failure> {
        let context = &self.http.context;
        let id = context.next_id();
        let body = outgoing.to_modern_message(&RequestId::from(id));
        let post = Post { id, body: &body, headers };
        let ear = Ear::new(sink, wait, None);
        let ear = ear.charged(outgoing.charged.as_ref());
        let answer = self.post(connection, &post, &ear);
        answer.and_then(|answer| outcome(context, answer)).inspect_err(|failure| {
            if !matches!(failure.kind, FailureKind::Refused(_)) {
                // Also what tells the server that nobody wants the answer any more.
                connection.reset();
            }
            if failure.kind == FailureKind::Broke && !failure.sent {
                let generation = context.generation();
                self.forget(generation);
                context.mailbox.lost(generation, failure.clone());
            }
        })
    }

    fn post(
        &self,
        connection: &mut HttpConnection,
        post: &Post<'_>,
        ear: &Ear<'_>,
    ) -> Result<Response, Failure> {
        let http = &self.http;
        let (method, endpoint) = (&HttpMethod::POST, &*http.endpoint);
        let ask =
            HttpRequest { method, endpoint, headers: post.headers, body: Some(post.body) };
        let mut answer = connection.client(&http.factory).run(ear.wait, ask)?;
        let content_type = answer.header("content-type").unwrap_or_default();
        if !(200..300).contains(&answer.status) {
            let body = answer.read_to_end(UPSTREAM_DRAIN_BYTES_MAX, "a bound");
            let text = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
            return match answer_to(&text, post.id) {
                // What its head says would be lost. It is an answer, and no sign of another era.
                Some(Err(error)) if answer.refusal().says_more() => {
                    let kind = FailureKind::Refused(Refusal::Plain);
                    Err(http.refused(kind, &answer, &error.message))
                }
                Some(Err(error)) => Ok(Err(error)),
                Some(Ok(_)) | None => Err(refusal(http, &answer, &text)),
            };
        }
        if is_event_stream(content_type) {
            return self.read_stream(connection, answer, post.id, ear);
        }
        if is_json(content_type) {
            let max = http.context.limits.upstream_result_bytes;
            let bound = "limits.upstream_result_bytes";
            let mut held = Held::new(&http.context.buffered, ear.charged);
            let body = answer.read_whole(max, bound, &mut held)?;
            return self.find_answer(body, &held.take(), post.id, ear);
        }
        let what = format!("its answer is neither JSON nor a stream: {content_type:?}");
        Err(Failure::nonsense(cut(&what)))
    }

    /// Finds our answer in a JSON body.
    fn find_answer(
        &self,
        body: Vec<u8>,
        keeper: &Option<Keeper>,
        id: u64,
        ear: &Ear<'_>,
    ) -> Result<Response, Failure> {
        let text = String::from_utf8(body)
            .map_err(|_| Failure::nonsense("its answer is not UTF-8"))?;
        let mut found = None;
        let go_on = || ear.wait.check().is_ok();
        let read = message::read_kept(&Arc::new(text), keeper, &go_on, |incoming| {
            take(&self.http, incoming, id, ear, &mut found);
        });
        read.map_err(|Stopped| ear.stopped())?;
        found.unwrap_or_else(|| Err(Failure::nonsense("its answer holds no response")))
    }

    /// Reads a stream until our answer has come.
    fn read_stream(
        &self,
        connection: &mut HttpConnection,
        mut answer: HttpResponse<'_>,
        id: u64,
        ear: &Ear<'_>,
    ) -> Result<Response, Failure> {
        let context = &self.http.context;
        let mut found = None;
        let ended = read_events(&mut answer, context, ear.charged, &mut |event, keeper| {
            self.take_event(event, &keeper, id, ear, &mut found)
        });
        match (found, ended) {
            (Some(found), _) => {
                // Its end is on the way; the slot's next user reads it.
                connection.keep(answer.into_rest());
                found
            }
            (None, Ok(StreamEnd::Eof | StreamEnd::Done)) => {
                Err(broke_off("the stream ended without an answer"))
            }
            (None, Err(failure)) => Err(failure),
        }
    }

    fn take_event(
        &self,
        event: Event,
        keeper: &Option<Keeper>,
        id: u64,
        ear: &Ear<'_>,
        found: &mut Option<Result<Response, Failure>>,
    ) -> Next {
        // Events of other names are none of MCP's, whatever they hold.
        if event.data.is_empty() || !matches!(event.name.as_str(), "" | "message") {
            return Next::More;
        }
        let max = self.http.context.limits.upstream_result_bytes;
        if event.data.len() > max {
            let what =
                format!("its answer is larger than limits.upstream_result_bytes ({max} bytes)");
            *found = Some(Err(Failure { stage: Stage::Read, ..Failure::nonsense(what) }));
            return Next::Done;
        }
        let go_on = || ear.wait.check().is_ok();
        let text = Arc::new(event.data);
        let read = message::read_kept(&text, keeper, &go_on, |incoming| match incoming {
            Incoming::Nonsense(what) => {
                log::debug!(target: "upstream", "{}: an event is no message: {}",
                    self.http.context.name(), cut(&what));
            }
            incoming @ (Incoming::Answer { .. }
            | Incoming::Malformed { .. }
            | Incoming::Progress { .. }
            | Incoming::ListChanged(_)
            | Incoming::Notice(_)
            | Incoming::Withdrawn(_)
            | Incoming::Misread { .. }
            | Incoming::Ask { .. }) => take(&self.http, incoming, id, ear, found),
        });
        if let Err(Stopped) = read {
            *found = Some(Err(ear.stopped()));
        }
        if found.is_some() { Next::Done } else { Next::More }
    }
}

/// Takes one message of the answer to the request of that id.
fn take(
    http: &HttpContext,
    incoming: Incoming,
    id: u64,
    ear: &Ear<'_>,
    found: &mut Option<Result<Response, Failure>>,
) {
    match incoming {
        Incoming::Progress { id: to, params } => {
            if to == id {
                ear.notice(Notice::Progress(params));
            }
        }
        Incoming::Answer { id: to, outcome } if to == Some(id) => *found = Some(Ok(outcome)),
        incoming @ (Incoming::Answer { .. }
        | Incoming::Malformed { .. }
        | Incoming::Nonsense(_)) => {
            found.get_or_insert(Err(not_ours(&incoming)));
        }
        incoming @ (Incoming::ListChanged(_)
        | Incoming::Notice(_)
        | Incoming::Withdrawn(_)
        | Incoming::Misread { .. }
        | Incoming::Ask { .. }) => {
            // Whatever comes on a request's own stream is about that request.
            match hear(&http.context, incoming) {
                Heard::Notice(notice) => ear.notice(notice),
                Heard::Nothing => (),
            }
        }
    }
}

/// The answer to the request of that id in a small body. An error may stand there without an id
/// if only a modern server gives it; one that speaks of a session is none of such a server.
pub(crate) fn answer_to(text: &str, id: u64) -> Option<Response> {
    let mut found = None;
    let read = message::read(&Arc::new(text.to_owned()), &|| true, |incoming| {
        let Incoming::Answer { id: to, outcome } = incoming else { return };
        let is_ours = match &outcome {
            Ok(_) => to == Some(id),
            Err(error) if to.is_none() => is_modern_error(error.code),
            Err(error) => to == Some(id) && !speaks_of_session(error),
        };
        if is_ours {
            found = Some(outcome);
        }
    });
    read.ok().and(found)
}

/// What an answer without success or sense means: a sign that the server is of the other era,
/// or a failure.
pub(crate) fn refusal(http: &HttpContext, answer: &HttpResponse<'_>, text: &str) -> Failure {
    let refused = http.refused(FailureKind::Refused(Refusal::Plain), answer, text);
    let is_other_era = matches!(answer.status, 400 | 404 | 405 | 406 | 415);
    let kind =
        if is_other_era { FailureKind::Refused(Refusal::OtherEra) } else { refused.kind };
    Failure { kind, ..refused }
}

/// Whether an error says that a session is missing, which no modern server would.
fn speaks_of_session(error: &RpcError) -> bool {
    let codes = [code::BAD_REQUEST, code::SESSION_NOT_FOUND, code::INVALID_REQUEST];
    let message = error.message.to_ascii_lowercase();
    codes.contains(&error.code)
        && ["session", "initialize", "protocol version"].iter().any(|it| message.contains(it))
}

impl Transport for StatelessHttp {
    fn open(
        &self,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
    ) -> Result<Opened, Failure> {
        self.enter(connection, wait, None)
    }

    fn request(
        &self,
        connection: &mut HttpConnection,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Outcome, Failure> {
        let context = &self.http.context;
        let renew = || self.listening.renew();
        if let Some(outcome) = answered_here(context, outgoing, wait, &renew)? {
            return Ok(outcome);
        }
        let headers = self.headers(outgoing)?;
        let mut replayed = false;
        loop {
            let failure = match self.attempt(connection, outgoing, &headers, wait, sink) {
                Ok(outcome) => return Ok(outcome),
                Err(failure) => failure,
            };
            if replayed || !may_replay(&failure, outgoing.is_safe_to_repeat) {
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
        let context = &self.http.context;
        let renew = || self.listening.renew();
        if let Some(outcome) = answered_here(context, outgoing, wait, &renew)? {
            return Ok(outcome);
        }
        let headers = self.headers(outgoing)?;
        self.attempt(connection, outgoing, &headers, wait, sink)
    }

    fn forget(&self, generation: u64) {
        if self.single_flight.forget(generation).is_some() {
            self.listening.end();
        }
    }

    fn leave(&self) {
        if let Some((generation, _)) = self.single_flight.current() {
            self.forget(generation);
        }
    }

    fn backing_off(&self, _: &Failure, _: Instant) {}

    // No notification of a client's is left in this revision, and to cancel is to close.
    fn tell(&self, _: &PrincipalId, _: String) {}

    fn is_open(&self) -> bool {
        self.single_flight.current().is_some()
    }

    fn is_stateless(&self) -> bool {
        true
    }

    fn close(&self) {
        drop(self.single_flight.close());
        self.listening.end();
        self.http.close_control();
    }

    fn transport(&self) -> &'static str {
        "http"
    }
}
