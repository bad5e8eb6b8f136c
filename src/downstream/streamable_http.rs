//! Streamable HTTP: POST, GET and DELETE of session-keeping revisions.

use std::borrow::Cow;
use std::sync::Arc;

use super::event_stream::Place;
use super::reply::{self, Problem, STREAM_HEADERS};
use super::requests::{self, Answer, Body, MessageSink, SessionRequest};
use super::{Front, Transport};
use crate::access::policy::Scope;
use crate::http::{Head, OpenResponse, Request, Responder};
use crate::protocol::headers::{self, EVENT_STREAM, JSON};
use crate::protocol::jsonrpc::{
    self, Malformed, Message, RequestId, around_result, error_response,
};
use crate::protocol::legacy;
use crate::protocol::method::Method;
use crate::protocol::raw::on_one_line;
use crate::protocol::revision::Revision;
use crate::protocol::sse;
use crate::session::{Door, Session};

impl Front {
    /// A POST: one message, or a batch where the revision has them.
    pub(super) fn post(&self, request: &Request, scope: Scope, responder: Responder) {
        let head = &request.head;
        if let Err(problem) = self.may_post(head) {
            problem.send_rpc(responder, None).ok();
            return;
        }
        let session_id = head.headers.get(headers::SESSION_ID);
        if session_id.is_none() {
            return self.post_without_session(request, &scope, responder);
        }
        let session = session_id.and_then(|id| self.session(id, &scope, Door::StreamableHttp));
        let revision = session.as_ref().and_then(|s| s.caller()).map(|c| c.revision);
        let body = match requests::read_body(&request.body, revision) {
            Ok(body) => body,
            Err(malformed) => return refuse_malformed(&malformed, responder),
        };
        if is_initialize(&body) {
            // A client that begins anew may still carry the id of a session it had.
            return self.initialize(&body, &scope, responder);
        }
        let (Some(session), Some(revision)) = (session, revision) else {
            Problem::unknown_session().send_rpc(responder, id_of(&body)).ok();
            return;
        };
        if let Err(problem) = check_version(head, revision) {
            problem.send_rpc(responder, id_of(&body)).ok();
            return;
        }
        let scope = Front::scope_in(&session, scope);
        match body {
            Body::One(message) => self.take_one(&session, &scope, &message, responder),
            Body::Batch(messages) => self.take_batch(&session, &scope, messages, responder),
        }
    }

    fn may_post(&self, head: &Head) -> Result<(), Problem> {
        self.switched_on(Transport::StreamableHttp)?;
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

    fn post_without_session(&self, request: &Request, scope: &Scope, responder: Responder) {
        let body = match requests::read_body(&request.body, None) {
            Ok(body) => body,
            Err(malformed) => return refuse_malformed(&malformed, responder),
        };
        if is_initialize(&body) {
            return self.initialize(&body, scope, responder);
        }
        let version = request.head.headers.get(headers::PROTOCOL_VERSION);
        let problem = match version.filter(|version| Revision::parse(version).is_none()) {
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
        if self.is_stopping() {
            let problem = Problem::from_call(&crate::error::CallError::ShuttingDown);
            problem.send_rpc(responder, Some(id)).ok();
            return;
        }
        let read = match legacy::read_initialize(params.as_deref()) {
            Ok(read) => read,
            Err(error) => {
                let text = error_response(Some(id), &error);
                reply::send_json(responder, &[text.as_bytes()]).ok();
                return;
            }
        };
        let revision = read.caller.revision;
        let owner = self.owner(scope);
        match self.sessions.open(Door::StreamableHttp, owner, Some(read.caller)) {
            Ok(session) => {
                let text = jsonrpc::response(id, self.initialize_result(scope, revision).get());
                let headers = [("Content-Type", JSON), (headers::SESSION_ID, &session.id)];
                responder.respond(reply::OK, &headers, &[text.as_bytes()]).ok();
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
            responder.respond(reply::ACCEPTED, &[], &[]).ok();
            return;
        };
        let mut stream = PostStream::new(responder);
        let request = SessionRequest { id, method, params: params.as_deref() };
        let answer = self.answer(session, scope, &request, &mut stream);
        stream.finish(id, &answer);
    }

    fn take_batch(
        &self,
        session: &Arc<Session>,
        scope: &Scope,
        messages: Vec<Result<Message<'_>, Malformed>>,
        responder: Responder,
    ) {
        let mut stream = PostStream::new(responder);
        let mut texts = Vec::with_capacity(messages.len());
        for message in &messages {
            match message {
                Ok(Message::Request { id, method, params }) => {
                    let request = SessionRequest { id, method, params: params.as_deref() };
                    match self.answer(session, scope, &request, &mut stream) {
                        Answer::Result(result) => {
                            texts.push(jsonrpc::response(id, result.get()));
                        }
                        Answer::Error(error) => texts.push(error_response(Some(id), &error)),
                        Answer::None | Answer::Gone => (),
                    }
                }
                Ok(message) => self.take(session, scope, message),
                Err(malformed) => {
                    texts.push(error_response(malformed.id.as_ref(), &malformed.error));
                }
            }
        }
        stream.finish_batch(&texts);
    }

    /// A GET: the stream of a session, or the HTTP+SSE transport.
    pub(super) fn get(&self, head: &Head, scope: Scope, responder: Responder) {
        let version = head.headers.get(headers::PROTOCOL_VERSION);
        let Some(id) = head.headers.get(headers::SESSION_ID) else {
            if version.is_some() {
                let what = "Bad Request: the Mcp-Session-Id header is missing.";
                Problem::bad_transport(what).send_rpc(responder, None).ok();
                return;
            }
            return self.open_sse(head, &scope, responder);
        };
        let session = self.switched_on(Transport::StreamableHttp).and_then(|()| {
            let accept = accept_of(head);
            if !headers::accepts(accept.as_deref(), EVENT_STREAM) {
                return Err(Problem::not_acceptable(EVENT_STREAM));
            }
            let session = self.session(id, &scope, Door::StreamableHttp);
            let session = session.ok_or_else(Problem::unknown_session)?;
            let revision = session.caller().map_or(Revision::ASSUMED, |c| c.revision);
            check_version(head, revision)?;
            Ok((session, self.place()?))
        });
        match session {
            Ok((session, place)) => self.open_stream(&session, place, responder),
            Err(problem) => {
                problem.send_rpc(responder, None).ok();
            }
        }
    }

    fn open_stream(&self, session: &Arc<Session>, place: Place, responder: Responder) {
        session.touch();
        let Ok(stream) = responder.into_stream(reply::OK, &STREAM_HEADERS, b"") else { return };
        let touched = session.clone();
        // The idle time begins when the stream ends, not when it was opened.
        let on_end = Box::new(move || touched.touch());
        let Ok(handle) = place.open(stream, on_end) else { return };
        if !matches!(self.sessions.attach(&session.id, Arc::new(handle.clone())), Ok(true)) {
            handle.close();
        }
    }

    /// A DELETE: the client ends its session.
    pub(super) fn delete(&self, head: &Head, scope: &Scope, responder: Responder) {
        let ended = self.switched_on(Transport::StreamableHttp).and_then(|()| {
            let id = head.headers.get(headers::SESSION_ID).ok_or_else(|| {
                Problem::bad_transport("Bad Request: the Mcp-Session-Id header is missing.")
            })?;
            let session = self.session(id, scope, Door::StreamableHttp);
            let session = session.ok_or_else(Problem::unknown_session)?;
            self.sessions.close(&session.id).map_err(|error| Problem::from_call(&error))
        });
        match ended {
            Ok(()) => responder.respond(reply::NO_CONTENT, &[], &[]).ok(),
            Err(problem) => problem.send_rpc(responder, None).ok(),
        };
    }
}

/// Several `Accept` headers are one list.
pub(super) fn accept_of(head: &Head) -> Option<Cow<'_, str>> {
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

fn id_of<'a>(body: &'a Body<'_>) -> Option<&'a RequestId> {
    match body {
        Body::One(Message::Request { id, .. }) => Some(id),
        Body::One(_) | Body::Batch(_) => None,
    }
}

/// The revision in the header must be one that is spoken, and the session's where the header
/// belongs to its revision (2025-11-25, basic/transports, Protocol Version Header). Clients of
/// revisions without the header may send any that is spoken.
fn check_version(head: &Head, revision: Revision) -> Result<(), Problem> {
    let Some(version) = head.headers.get(headers::PROTOCOL_VERSION) else { return Ok(()) };
    match Revision::parse(version.trim()) {
        Some(said) if said == revision || !revision.has_version_header() => Ok(()),
        Some(said) => Err(Problem::bad_transport(format!(
            "Bad Request: MCP-Protocol-Version is {said}, but this session speaks {revision}."
        ))),
        None => Err(unsupported_version(version)),
    }
}

fn unsupported_version(version: &str) -> Problem {
    let supported: Vec<&str> = Revision::ALL.into_iter().map(Revision::as_str).collect();
    let version: String = version.chars().take(40).collect();
    Problem::bad_transport(format!(
        "Bad Request: Unsupported protocol version {version:?}. Supported: {}.",
        supported.join(", ")
    ))
}

/// The answer to a POST: plain JSON, or an event stream once something comes before the result.
struct PostStream {
    responder: Option<Responder>,
    open: Option<OpenResponse>,
}

impl PostStream {
    fn new(responder: Responder) -> PostStream {
        PostStream { responder: Some(responder), open: None }
    }

    /// Makes the answer a stream, if it is none yet.
    fn stream(&mut self) -> Option<&mut OpenResponse> {
        if let Some(responder) = self.responder.take() {
            self.open = responder.open(reply::OK, &STREAM_HEADERS).ok();
        }
        self.open.as_mut()
    }

    fn write(&mut self, pieces: &[&[u8]]) {
        if self.stream().is_some_and(|open| open.write(pieces).is_err()) {
            // The client has lost its connection, which cancels nothing: the call goes on.
            self.open = None;
        }
    }

    fn event(&mut self, before: &str, data: &str, after: &str) {
        let (name, data) = (sse::before_data(""), on_one_line(data));
        let pieces = [&name, before, &data, after, sse::AFTER_DATA];
        self.write(&pieces.map(str::as_bytes));
    }

    fn finish(mut self, id: &RequestId, answer: &Answer) {
        let text;
        let (before, data, after) = match answer {
            Answer::Result(result) => {
                let (before, after) = around_result(id);
                (before, result.get(), after)
            }
            Answer::Error(error) => {
                text = error_response(Some(id), error);
                (String::new(), text.as_str(), "")
            }
            Answer::None => return self.end(),
            Answer::Gone => {
                if let Some(responder) = self.responder.take() {
                    Problem::unknown_session().send_rpc(responder, Some(id)).ok();
                }
                return;
            }
        };
        match self.responder.take() {
            Some(responder) => {
                let pieces = [before.as_str(), data, after];
                reply::send_json(responder, &pieces.map(str::as_bytes)).ok();
            }
            None => {
                self.event(&before, data, after);
                self.end();
            }
        }
    }

    fn finish_batch(mut self, texts: &[String]) {
        match self.responder.take() {
            Some(responder) if texts.is_empty() => {
                responder.respond(reply::ACCEPTED, &[], &[]).ok();
            }
            Some(responder) => {
                let text = format!("[{}]", texts.join(","));
                reply::send_json(responder, &[text.as_bytes()]).ok();
            }
            None => {
                for text in texts {
                    self.event("", text, "");
                }
                self.end();
            }
        }
    }

    /// Ends the stream; one that holds nothing says that there is no answer.
    fn end(mut self) {
        self.stream();
        if let Some(open) = self.open.take() {
            open.finish().ok();
        }
    }
}

impl MessageSink for PostStream {
    fn message(&mut self, text: &str) {
        self.event("", text, "");
    }

    fn silence(&mut self) {
        self.write(&[sse::HEARTBEAT]);
    }
}
