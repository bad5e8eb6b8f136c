//! Streamable HTTP: POST, GET and DELETE of revisions with sessions.

use std::borrow::Cow;
use std::sync::Arc;

use super::dispatch::SessionRequest;
use super::response::{PostStream, Response, Responses, priming};
use crate::access::policy::Scope;
use crate::downstream::event_stream::Place;
use crate::downstream::posted_message::{Body, Posted, read_body};
use crate::downstream::status_codes::{self, Problem, STREAM_HEADERS};
use crate::downstream::{Front, TransportSwitch, request_telemetry};
use crate::http::{Head, Request, Responder};
use crate::protocol::headers::{self, EVENT_STREAM, JSON};
use crate::protocol::jsonrpc::{self, Malformed, Message, RequestId, error_response};
use crate::protocol::legacy;
use crate::protocol::method::Method;
use crate::protocol::modern;
use crate::protocol::quirks;
use crate::protocol::revision::{Era, Revision};
use crate::session::{self, EventId, EventLogs, Origin, Resumable, Session};
use crate::telemetry;
use crate::telemetry::outcome::{CallOutcome, Door};

impl Front {
    /// Answers a POST: one message, or a batch where the revision has batches.
    pub(crate) fn post(&self, request: &Request, scope: Scope, responder: Responder) {
        let head = &request.head;
        if let Err(problem) = self.may_post(head) {
            problem.send_rpc(responder, None).ok();
            return;
        }
        let mut posted = Posted::read(head, &request.body, self.tolerance());
        if posted.is_modern() {
            return self.post_modern(posted, &scope, responder);
        }
        let session_id = head.headers.get(headers::SESSION_ID);
        if session_id.is_none() {
            return self.post_without_session(posted, &scope, responder);
        }
        let session = session_id
            .and_then(|id| self.session(id, &scope, session::Transport::StreamableHttp));
        let revision = session.as_ref().and_then(|s| s.caller()).map(|c| c.revision);
        let bytes = std::mem::take(&mut posted.body);
        let body = match read_body(&bytes, revision) {
            Ok(body) => body,
            Err(malformed) => return refuse_malformed(&malformed, responder),
        };
        if is_initialize(&body) {
            // A client that begins anew may still carry the id of an earlier session.
            posted.count(None, params_of(&body));
            return self.initialize(&body, &scope, responder);
        }
        let (Some(session), Some(revision)) = (session, revision) else {
            if declares_revision(&body) {
                // The request is stateless, and its headers that name a session are the fault.
                drop(body);
                posted.body = bytes;
                return self.post_modern(posted, &scope, responder);
            }
            Problem::unknown_session().send_rpc(responder, id_of(&body)).ok();
            return;
        };
        if let Err(problem) = check_version(&mut posted, revision) {
            problem.send_rpc(responder, id_of(&body)).ok();
            return;
        }
        posted.count(Some(&session), None);
        let scope = Front::scope_in(&session, scope);
        match body {
            Body::One(message) => self.take_one(&session, &scope, &message, responder),
            Body::Batch(messages) => self.take_batch(&session, &scope, messages, responder),
        }
    }

    fn may_post(&self, head: &Head) -> Result<(), Problem> {
        self.switched_on(TransportSwitch::StreamableHttp)?;
        if !head.headers.get("content-type").is_some_and(headers::is_json) {
            return Err(Problem::not_json());
        }
        // The client MUST list both (2025-11-25, basic/transports, Sending Messages).
        let accept = accept_of(head);
        let both = [JSON, EVENT_STREAM];
        if !both.iter().all(|kind| headers::accepts(accept.as_deref(), kind)) {
            return Err(Problem::not_acceptable(&both.join(" and ")));
        }
        Ok(())
    }

    fn post_without_session(
        &self,
        mut posted: Posted<'_>,
        scope: &Scope,
        responder: Responder,
    ) {
        let bytes = std::mem::take(&mut posted.body);
        let body = match read_body(&bytes, None) {
            Ok(body) => body,
            Err(malformed) => return refuse_malformed(&malformed, responder),
        };
        if is_initialize(&body) {
            posted.count(None, params_of(&body));
            return self.initialize(&body, scope, responder);
        }
        let unknown = |version: &&str| Revision::parse_legacy(version).is_none();
        let problem = match posted.version.filter(unknown) {
            Some(version) => unsupported_version(version),
            None => Problem::bad_transport(
                "Bad Request: the Mcp-Session-Id header is missing. Open a session with \
                 initialize.",
            ),
        };
        problem.send_rpc(responder, id_of(&body)).ok();
    }

    fn initialize(&self, body: &Body<'_>, scope: &Scope, responder: Responder) {
        let Body::One(Message::Request { id, params, .. }) = body else { return };
        request_telemetry::initializes(Door::Streamable, id, params.as_deref());
        if self.is_stopping() {
            let problem = Problem::from_call(&crate::error::CallError::ShuttingDown);
            problem.send_rpc(responder, Some(id)).ok();
            return;
        }
        let read = match legacy::read_initialize(params.as_deref()) {
            Ok(read) => read,
            Err(error) => {
                telemetry::request::answered(CallOutcome::ClientError);
                let text = error_response(Some(id), &error);
                status_codes::send_json(responder, &[text.as_bytes()]).ok();
                return;
            }
        };
        let revision = read.caller.revision;
        if let Some(client) = &read.caller.client {
            telemetry::request::client(client);
        }
        let owner = self.owner(scope);
        match self.sessions.open(session::Transport::StreamableHttp, owner, Some(read.caller)) {
            Ok(session) => {
                self.log_level_unsaid(&session, scope);
                let client = Some(responder.client());
                let result = self.initialize_result(scope, revision, client);
                let text = jsonrpc::response(id, result.get());
                telemetry::request::answered(CallOutcome::Ok);
                let headers = [("Content-Type", JSON), (headers::SESSION_ID, &session.id)];
                if responder.respond(status_codes::OK, &headers, &[text.as_bytes()]).is_err() {
                    // No client knows the session's id.
                    self.sessions.close_soon(&session.id);
                }
            }
            Err(error) => {
                Problem::from_call(&error).send_rpc(responder, Some(id)).ok();
            }
        }
    }

    fn take_one(
        &self,
        session: &Arc<Session>,
        scope: &Scope,
        message: &Message<'_>,
        responder: Responder,
    ) {
        let Message::Request { id, method, params } = message else {
            self.take(session, scope, message);
            responder.respond(status_codes::ACCEPTED, &[], &[]).ok();
            return;
        };
        let stream = PostStream::new(session, &self.event_logs, responder);
        let request = SessionRequest { id, method, params: params.as_deref() };
        let answer = self.answer(session, scope, &request, &stream);
        stream.finish(id, &answer);
    }

    fn take_batch(
        &self,
        session: &Arc<Session>,
        scope: &Scope,
        messages: Vec<Result<Message<'_>, Malformed>>,
        responder: Responder,
    ) {
        let stream = PostStream::new(session, &self.event_logs, responder);
        let mut waiting = Responses::default();
        for message in &messages {
            stream.before_next(&mut waiting);
            match message {
                Ok(Message::Request { id, method, params }) => {
                    let request = SessionRequest { id, method, params: params.as_deref() };
                    let answer = self.answer(session, scope, &request, &stream);
                    let response = Response::to(id, &answer);
                    stream.answer_in_turn(&mut waiting, Some(id), response);
                }
                Ok(message) => self.take(session, scope, message),
                Err(malformed) => {
                    let id = malformed.id.as_ref();
                    let response = Some(Response::error(id, &malformed.error));
                    stream.answer_in_turn(&mut waiting, id, response);
                }
            }
        }
        stream.finish_batch(waiting);
    }

    /// Answers a GET: the stream of a session, or the HTTP+SSE transport.
    pub(crate) fn get(&self, head: &Head, scope: Scope, responder: Responder) {
        let version = head.headers.get(headers::PROTOCOL_VERSION);
        let Some(id) = head.headers.get(headers::SESSION_ID) else {
            if version.is_some() {
                let what = "Bad Request: the Mcp-Session-Id header is missing.";
                Problem::bad_transport(what).send_rpc(responder, None).ok();
                return;
            }
            return self.open_sse(head, &scope, responder);
        };
        let session = self.switched_on(TransportSwitch::StreamableHttp).and_then(|()| {
            let accept = accept_of(head);
            if !headers::accepts(accept.as_deref(), EVENT_STREAM) {
                return Err(Problem::not_acceptable(EVENT_STREAM));
            }
            let session = self.session(id, &scope, session::Transport::StreamableHttp);
            let session = session.ok_or_else(Problem::unknown_session)?;
            let revision = session.caller().map_or(Revision::ASSUMED, |c| c.revision);
            let mut posted = Posted::head(head, self.tolerance());
            check_version(&mut posted, revision)?;
            posted.count(Some(&session), None);
            let listening = listening(&session, head, &self.event_logs)?;
            Ok((session, listening, self.place(&scope)?))
        });
        match session {
            Ok((session, listening, place)) => {
                self.open_stream(&session, listening, place, responder);
            }
            Err(problem) => {
                problem.send_rpc(responder, None).ok();
            }
        }
    }

    fn open_stream(
        &self,
        session: &Arc<Session>,
        listening: Listening,
        place: Place,
        responder: Responder,
    ) {
        session.touch();
        if let Listening::Resumed(stream, _) = &listening {
            // The old connection is detached before the client reads that it has the stream, so
            // that no event goes to both connections (2025-11-25, basic/transports, Multiple
            // Connections).
            stream.detach();
        }
        // The stream is known before the client reads that it is open: messages that the client
        // then causes find it.
        let (kept, first, sequence, is_fresh) = match listening {
            Listening::Resumed(stream, last) => (Some(stream), None, last.sequence, false),
            Listening::Fresh => {
                let stream = session.kept.begin(Origin::Get, &self.event_logs);
                let first = stream.as_ref().and_then(|stream| priming(session, stream));
                (stream, first, 0, true)
            }
        };
        let number = session.next_stream();
        let touched = session.clone();
        // The idle time begins when the stream ends, not when it was opened.
        let on_end = Box::new(move || touched.touch());
        let opened = responder.into_stream(status_codes::OK, &STREAM_HEADERS, b"").ok();
        let Some(handle) =
            opened.and_then(|stream| place.open("Streamable HTTP", stream, on_end).ok())
        else {
            // No client knows the id of a fresh stream, so none would resume it.
            if is_fresh && let Some(stream) = &kept {
                session.kept.forget(stream);
            }
            return;
        };
        let handle = Arc::new(handle);
        match kept {
            Some(stream) => {
                if !is_fresh {
                    session.kept.renew(&stream);
                }
                let first = first.unwrap_or_default();
                stream.attach(handle, first.as_bytes(), sequence);
            }
            None => {
                if !matches!(
                    self.sessions.attach(&session.id, number, handle.clone()),
                    Ok(true)
                ) {
                    handle.close();
                }
            }
        }
    }

    /// Answers a DELETE: the client ends its session.
    pub(crate) fn delete(&self, head: &Head, scope: &Scope, responder: Responder) {
        let ended = self.switched_on(TransportSwitch::StreamableHttp).and_then(|()| {
            let id = head.headers.get(headers::SESSION_ID).ok_or_else(|| {
                Problem::bad_transport("Bad Request: the Mcp-Session-Id header is missing.")
            })?;
            let ended = match self.session(id, scope, session::Transport::StreamableHttp) {
                Some(session) => self.sessions.close(&session.id).map(|()| true),
                None => {
                    let principal = scope.principal.id.as_deref();
                    self.sessions.forget(id, principal, scope.only.as_ref())
                }
            };
            match ended {
                Ok(true) => Ok(()),
                Ok(false) => Err(Problem::unknown_session()),
                Err(error) => Err(Problem::from_call(&error)),
            }
        });
        match ended {
            Ok(()) => responder.respond(status_codes::NO_CONTENT, &[], &[]).ok(),
            Err(problem) => problem.send_rpc(responder, None).ok(),
        };
    }
}

/// The `Accept` value; several headers are one list.
pub(crate) fn accept_of(head: &Head) -> Option<Cow<'_, str>> {
    let mut values = head.headers.get_all("accept");
    let first = values.next()?;
    Some(values.fold(Cow::Borrowed(first), |all, value| Cow::Owned(format!("{all}, {value}"))))
}

fn refuse_malformed(malformed: &Malformed, responder: Responder) {
    Problem::malformed(&malformed.error).send_rpc(responder, malformed.id.as_ref()).ok();
}

fn is_initialize(body: &Body<'_>) -> bool {
    matches!(body, Body::One(Message::Request { method, .. })
        if method == Method::Initialize.as_str())
}

/// True if the body declares that it is a stateless request.
fn declares_revision(body: &Body<'_>) -> bool {
    matches!(body, Body::One(Message::Request { params, .. })
        if modern::declared_version(params.as_deref()).is_some())
}

fn params_of<'a>(body: &'a Body<'_>) -> Option<&'a str> {
    match body {
        Body::One(Message::Request { params, .. }) => params.as_deref(),
        Body::One(_) | Body::Batch(_) => None,
    }
}

fn id_of<'a>(body: &'a Body<'_>) -> Option<&'a RequestId> {
    match body {
        Body::One(Message::Request { id, .. }) => Some(id),
        Body::One(_) | Body::Batch(_) => None,
    }
}

/// Checks the revision in the header: it must be one that is spoken, and the session's where the
/// session's revision has the header (2025-11-25, basic/transports, Protocol Version Header);
/// another one is a known quirk. Clients of revisions without the header may send any that has
/// sessions.
fn check_version(posted: &mut Posted<'_>, revision: Revision) -> Result<(), Problem> {
    let Some(version) = posted.version else { return Ok(()) };
    let Some(said) = Revision::parse(version) else {
        return Err(unsupported_version(version));
    };
    let is_legacy = said.era() == Era::Legacy;
    if said == revision || (is_legacy && !revision.has_version_header()) {
        return Ok(());
    }
    if posted.tolerates(quirks::of_session_header(said)) {
        return Ok(());
    }
    Err(if is_legacy {
        Problem::bad_transport(format!(
            "Bad Request: MCP-Protocol-Version is {said}, but this session speaks {revision}."
        ))
    } else {
        unsupported_version(version)
    })
}

fn unsupported_version(version: &str) -> Problem {
    let supported: Vec<&str> = Revision::ALL.into_iter().map(Revision::as_str).collect();
    let version: String = version.chars().take(40).collect();
    Problem::bad_transport(format!(
        "Bad Request: Unsupported protocol version {version:?}. Supported: {}.",
        supported.join(", ")
    ))
}

/// The stream that a GET asks for.
enum Listening {
    /// A new stream.
    Fresh,
    /// This stream, with the events after this one.
    Resumed(Arc<Resumable>, EventId),
}

/// The stream of a GET.
///
/// # Errors
/// The id is invalid, or no event is kept of the call's stream that it names.
fn listening(session: &Session, head: &Head, logs: &EventLogs) -> Result<Listening, Problem> {
    let last = head.headers.get(headers::LAST_EVENT_ID).map(str::trim);
    let Some(last) = last.filter(|id| !id.is_empty() && !logs.are_off()) else {
        return Ok(Listening::Fresh);
    };
    let id = EventId::parse(last).ok_or_else(|| {
        Problem::bad_transport("Bad Request: Last-Event-ID is no id of this gateway's events.")
    })?;
    match (session.kept.find(id.stream), id.stream.origin) {
        (Some(stream), _) => Ok(Listening::Resumed(stream, id)),
        (None, Origin::Get) => Ok(Listening::Fresh),
        // A fresh stream would never bring the response that the client waits for.
        (None, Origin::Post) => Err(Problem::bad_transport(
            "Bad Request: nothing is left to resume of the stream that Last-Event-ID names.",
        )),
    }
}
