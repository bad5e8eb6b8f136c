//! HTTP+SSE, the transport of 2024-11-05: one stream to the client, messages by POST.

use std::sync::Arc;

use super::dispatch::SessionRequest;
use super::response::Response;
use super::streamable_http::accept_of;
use crate::access::policy::Scope;
use crate::downstream::answer::{Answer, MessageSink};
use crate::downstream::event_stream::Place;
use crate::downstream::posted_message::{Body, Posted, read_body};
use crate::downstream::rest::query_value;
use crate::downstream::status_codes::{self, Problem, STREAM_HEADERS};
use crate::downstream::{Front, TransportSwitch, request_telemetry};
use crate::http::{Head, Request, Responder};
use crate::protocol::headers::{self, EVENT_STREAM};
use crate::protocol::jsonrpc::{self, Message, error_response};
use crate::protocol::legacy;
use crate::protocol::method::Method;
use crate::protocol::sse;
use crate::session::{self, EncodedEvent, EventSink, Session};
use crate::telemetry::outcome::Door;
use crate::wait::ClientWatch;

impl Front {
    /// Opens the stream; its first event gives the path for messages.
    pub(crate) fn open_sse(&self, head: &Head, scope: &Scope, responder: Responder) {
        let session = self.switched_on(TransportSwitch::Sse).and_then(|()| {
            if !headers::accepts(accept_of(head).as_deref(), EVENT_STREAM) {
                return Err(Problem::not_acceptable(EVENT_STREAM));
            }
            let place = self.place(scope)?;
            let session =
                self.sessions.open(session::Transport::HttpSse, self.owner(scope), None);
            session.map(|session| (session, place)).map_err(|error| Problem::from_call(&error))
        });
        let (session, place) = match session {
            Ok(opened) => opened,
            Err(problem) => {
                problem.send_rpc(responder, None).ok();
                return;
            }
        };
        let prefix = self.admission().prefix_for(head).to_owned();
        if !self.attach_sse(&session, place, (scope, &prefix), responder) {
            self.sessions.close_soon(&session.id);
        }
    }

    fn attach_sse(
        &self,
        session: &Arc<Session>,
        place: Place,
        (scope, prefix): (&Scope, &str),
        responder: Responder,
    ) -> bool {
        let number = session.next_stream();
        let Ok(stream) = responder.into_stream(status_codes::OK, &STREAM_HEADERS, b"") else {
            return false;
        };
        let (sessions, id) = (self.sessions.clone(), session.id.clone());
        let on_end = Box::new(move || sessions.close_soon(&id));
        let Ok(handle) = place.open("HTTP+SSE", stream, on_end) else { return false };
        let handle: Arc<dyn EventSink> = Arc::new(handle);
        // The client can send nothing before it has read the path, so the session is complete by
        // then.
        if !matches!(self.sessions.attach(&session.id, number, handle.clone()), Ok(true)) {
            handle.close();
            return false;
        }
        let server = scope.only.as_ref().map(|only| format!("/{only}")).unwrap_or_default();
        let path = format!("{prefix}/mcp{server}/sse/messages?session_id={}", session.id);
        handle.send(sse::event("endpoint", &path).into())
    }

    /// Takes a message: answers 202 at once, and serves the message after that.
    pub(crate) fn sse_message(&self, request: &Request, scope: Scope, responder: Responder) {
        let session = match self.sse_session(&request.head, &scope) {
            Ok(session) => session,
            Err(problem) => {
                problem.send_rpc(responder, None).ok();
                return;
            }
        };
        let revision = session.caller().map(|caller| caller.revision);
        let mut posted = Posted::read(&request.head, &request.body, self.tolerance());
        let bytes = std::mem::take(&mut posted.body);
        let body = match read_body(&bytes, revision) {
            Ok(body) => body,
            Err(malformed) => {
                let problem = Problem::malformed(&malformed.error);
                problem.send_rpc(responder, malformed.id.as_ref()).ok();
                return;
            }
        };
        let params = match &body {
            Body::One(Message::Request { params, .. }) => params.as_deref(),
            Body::One(_) | Body::Batch(_) => None,
        };
        posted.count(Some(&session), params);
        // With the connection closed, a client that keeps one connection only is free to
        // answer or cancel while its call goes on.
        if responder.respond_and_close(status_codes::ACCEPTED, &[], &[b"Accepted"]).is_err() {
            log::debug!(target: "sse", "a client left before its message was accepted");
        }
        let scope = Front::scope_in(&session, scope);
        match body {
            Body::One(message) => self.serve_sse(&session, &scope, &message),
            Body::Batch(messages) => {
                for message in messages {
                    match message {
                        Ok(message) => self.serve_sse(&session, &scope, &message),
                        Err(malformed) => {
                            let id = malformed.id.as_ref();
                            send(&session, &error_response(id, &malformed.error));
                        }
                    }
                }
            }
        }
    }

    fn sse_session(&self, head: &Head, scope: &Scope) -> Result<Arc<Session>, Problem> {
        self.switched_on(TransportSwitch::Sse)?;
        if !head.headers.get("content-type").is_some_and(headers::is_json) {
            return Err(Problem::not_json());
        }
        let id = query_value(head.query.as_deref(), "session_id")
            .filter(|id| !id.is_empty())
            .ok_or_else(|| {
            Problem::bad_transport("\"session_id\" is missing in the query.")
        })?;
        self.session(&id, scope, session::Transport::HttpSse)
            .ok_or_else(Problem::unknown_session)
    }

    fn serve_sse(&self, session: &Arc<Session>, scope: &Scope, message: &Message<'_>) {
        let Message::Request { id, method, params } = message else {
            return self.take(session, scope, message);
        };
        let params = params.as_deref();
        let answer = if method == Method::Initialize.as_str() && session.caller().is_none() {
            request_telemetry::initializes(Door::Sse, id, params);
            let answer = self.introduce(session, scope, params);
            request_telemetry::answered(&answer);
            answer
        } else {
            let request = SessionRequest { id, method, params };
            let sink = SseSink { session };
            self.answer(session, scope, &request, &sink)
        };
        // The POST was answered before its message was served, so all messages go on the stream.
        if let Some(response) = Response::to(id, &answer) {
            queue(session, response.to_event());
        }
    }

    fn introduce(&self, session: &Session, scope: &Scope, params: Option<&str>) -> Answer {
        let read = match legacy::read_initialize(params) {
            Ok(read) => read,
            Err(error) => return Answer::Error(error),
        };
        let revision = read.caller.revision;
        match self.sessions.introduce(&session.id, read.caller) {
            Ok(true) => {
                self.log_level_unsaid(session, scope);
                Answer::Result(self.initialize_result(scope, revision, None))
            }
            Ok(false) => Answer::error(
                jsonrpc::code::INVALID_REQUEST,
                "The session is initialized already, or has ended.",
            ),
            Err(error) => Answer::Error(Problem::from_call(&error).to_rpc()),
        }
    }
}

/// Queues one message on the session's stream.
fn send(session: &Session, message: &str) {
    queue(session, EncodedEvent::of(message));
}

fn queue(session: &Session, event: EncodedEvent) {
    if let Some(stream) = session.stream() {
        // A stream that has ended has ended its session too: the event is not missed.
        stream.send(event);
    }
}

struct SseSink<'a> {
    session: &'a Session,
}

impl MessageSink for SseSink<'_> {
    fn message(&self, text: &str) {
        send(self.session, text);
    }

    /// The POST was answered before its message was served.
    fn client(&self) -> Option<ClientWatch> {
        None
    }
}
