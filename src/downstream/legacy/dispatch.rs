//! Requests of clients with sessions, over any transport: messages in, answers out. The
//! transports bring their own streams.

use std::sync::Arc;

use super::call_sink::{LegacyCallSink, about, client_of};
use super::input_required;
use super::input_required::Elicited;
use super::outcome::for_session;
use super::subscriptions::subscription;
use crate::access::policy::Scope;
use crate::downstream::answer::{Answer, MessageSink};
use crate::downstream::authentication::bound;
use crate::downstream::list_pages::{NotListed, cursor_of, list_page};
use crate::downstream::rest::NoSink;
use crate::downstream::status_codes::Problem;
use crate::downstream::{Front, request_telemetry};
use crate::error::CallError;
use crate::limits::{CALL_TIMEOUT_MAX, INPUT_ROUNDS_MAX, UPSTREAM_TEXT_CHARS_MAX};
use crate::pipeline::CallOptions;
use crate::protocol::call::{Call, CallSink, Caller, Kind, Outcome};
use crate::protocol::capabilities::without_tasks;
use crate::protocol::jsonrpc::{Message, RequestId, RpcError, code};
use crate::protocol::legacy;
use crate::protocol::log_level::LogLevel;
use crate::protocol::method::{Method, notification};
use crate::protocol::modern::RETRY_MEMBERS;
use crate::protocol::raw::{self, Raw, RawObject};
use crate::protocol::revision::Revision;
use crate::session::{self, Pending, Refused, Session};
use crate::telemetry;
use crate::telemetry::outcome::Door;
use crate::wait::{ClientWatch, Heartbeat, Wait};

impl Front {
    /// The heartbeat of a call's wait, for the connection of its client.
    pub(crate) fn heartbeat(&self, sink: &dyn MessageSink) -> Option<Heartbeat> {
        Some(Heartbeat { every: self.limits.heartbeat, client: sink.keep_alive()? })
    }

    /// The result of `initialize`: the servers behind the endpoint, for this key. The hang-up of
    /// `client` ends the wait for first lists.
    pub(crate) fn initialize_result(
        &self,
        scope: &Scope,
        revision: Revision,
        client: Option<ClientWatch>,
    ) -> Raw {
        self.pipeline.await_first_lists(scope, None, client);
        self.pipeline.await_introductions(scope);
        let mut capabilities = self.pipeline.capabilities(scope, revision);
        if !revision.has_tasks() {
            capabilities = without_tasks(&capabilities);
        }
        let instructions = self.pipeline.instructions(scope);
        let behind = self.pipeline.only_server_info(scope);
        let (instructions, behind) = (instructions.as_deref(), behind.as_ref());
        let text = legacy::initialize_result(revision, &capabilities, instructions, behind);
        Raw::from_valid(text)
    }

    /// Notes a new session whose client has set no level of log messages.
    pub(crate) fn log_level_unsaid(&self, session: &Session, scope: &Scope) {
        if let Some(caller) = session.caller() {
            self.pipeline.log_level_unsaid(scope, &client_of(session, &caller));
        }
    }

    /// Takes a notification or a response, neither of which has an answer.
    pub(crate) fn take(&self, session: &Session, scope: &Scope, message: &Message<'_>) {
        session.touch();
        match message {
            Message::Notification { method, params } => {
                self.take_notification(session, scope, method, params.as_deref());
            }
            Message::Response { id: Some(id), outcome } => {
                // An answer to no open question is ignored.
                if let Some(pending) = session.answered(id) {
                    if let Err(error) = outcome {
                        tell_of_refusal(session, &pending, error);
                    }
                    let raw =
                        |text: &std::borrow::Cow<'_, str>| Raw::from_valid(text.to_string());
                    pending.answer(outcome.as_ref().map(raw).map_err(Clone::clone));
                }
            }
            Message::Response { id: None, .. } | Message::Request { .. } => (),
        }
    }

    fn take_notification(
        &self,
        session: &Session,
        scope: &Scope,
        method: &str,
        params: Option<&str>,
    ) {
        match method {
            notification::INITIALIZED => (),
            notification::CANCELLED => {
                let fields = params.and_then(|params| RawObject::parse(params).ok());
                let id = fields.and_then(|it| it.get("requestId").and_then(RequestId::parse));
                if let Some(id) = id {
                    // The call may have ended just now; then the cancellation came too late,
                    // which is allowed.
                    session.cancel(&id);
                }
            }
            // These are changed roots, progress of a question, and unknown notifications.
            _ => self.pipeline.notify(scope, &session.id, method, params),
        }
    }

    /// Answers a request of an open session.
    pub(crate) fn answer(
        &self,
        session: &Arc<Session>,
        scope: &Scope,
        asked: &SessionRequest<'_>,
        sink: &dyn MessageSink,
    ) -> Answer {
        let door = match session.door {
            session::Transport::HttpSse => Door::Sse,
            session::Transport::StreamableHttp | session::Transport::Listen => Door::Streamable,
            session::Transport::Stdio => Door::Stdio,
        };
        telemetry::request::ask(door, asked.method, asked.params);
        telemetry::request::in_session(asked.id.as_json(), Some(&session.id));
        if let Some(client) = session.caller().and_then(|caller| caller.client.clone()) {
            telemetry::request::client(&client);
        }
        let answer = self.answer_asked(session, scope, asked, sink);
        request_telemetry::answered(&answer);
        answer
    }

    /// Answers a request of an open session, after it is noted for telemetry.
    fn answer_asked(
        &self,
        session: &Arc<Session>,
        scope: &Scope,
        request: &SessionRequest<'_>,
        sink: &dyn MessageSink,
    ) -> Answer {
        session.touch();
        let method = Method::parse(request.method);
        if method == Some(Method::Ping) {
            return nothing();
        }
        let Some(caller) = session.caller() else {
            return Answer::error(code::INVALID_REQUEST, "initialize comes first.");
        };
        let client = client_of(session, &caller);
        let (about, views) = (about(session), session.views());
        let options =
            CallOptions { client: Some(&client), about, views, ..CallOptions::default() };
        let list = |kind| {
            let client = sink.client();
            self.answer_list(scope, options, (caller.revision, kind), request.params, client)
        };
        match method {
            Some(Method::ToolsList) => list(Kind::Tool),
            Some(Method::PromptsList) => list(Kind::Prompt),
            Some(Method::ResourcesList) => list(Kind::Resource),
            Some(Method::ResourcesTemplatesList) => list(Kind::Template),
            Some(Method::Initialize) => {
                Answer::error(code::INVALID_REQUEST, "The session is initialized already.")
            }
            // These belong to revisions that have no sessions.
            Some(
                Method::ServerDiscover | Method::SubscriptionsListen | Method::TasksUpdate,
            ) => not_found(request.method),
            Some(
                Method::ToolsCall
                | Method::PromptsGet
                | Method::ResourcesRead
                | Method::ResourcesSubscribe
                | Method::ResourcesUnsubscribe
                | Method::CompletionComplete
                | Method::LoggingSetLevel
                | Method::TasksGet
                | Method::TasksResult
                | Method::TasksList
                | Method::TasksCancel
                | Method::Ping,
            )
            | None => self.answer_by_upstream(session, scope, options, &caller, request, sink),
        }
    }

    fn answer_list(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        kind: (Revision, Kind),
        params: Option<&str>,
        client: Option<ClientWatch>,
    ) -> Answer {
        self.pipeline.await_first_lists(scope, None, client);
        match list_page(self, scope, options, kind, params, |_| true) {
            Ok(page) => Answer::List(page),
            Err(NotListed::Asked(error)) => Answer::Error(error),
            Err(NotListed::Call(error)) => answer_of(Err(error)),
        }
    }

    /// Sets the level of a session: on the shared sessions with servers the lowest level of any
    /// session, on the client's own sessions its own.
    fn log_level(
        &self,
        session: &Session,
        scope: &Scope,
        request: &SessionRequest<'_>,
        options: CallOptions<'_>,
        wait: &Arc<Wait>,
    ) -> Answer {
        let fields = request.params.and_then(|params| RawObject::parse(params).ok());
        let level = fields.and_then(|fields| fields.string("level").ok().flatten());
        let Some(level) = level.as_deref().and_then(LogLevel::parse) else {
            let what = "\"level\" must be one of debug, info, notice, warning, error, critical, \
                        alert and emergency.";
            return Answer::error(code::INVALID_PARAMS, what);
        };
        let servers = self.pipeline.servers_with(scope, "logging");
        if servers.is_empty() {
            return not_found(request.method);
        }
        session.set_log_level(level);
        if let Some(client) = options.client {
            self.pipeline.said_log_level(scope, client, level);
        }
        for server in servers {
            if !self.pipeline.session_route(&server, options.client, scope).is_shared() {
                let only = Scope { only: Some(server), ..scope.clone() };
                let mut params = RawObject::default();
                params.set("level", raw::string(level.as_str()));
                let method = request.method;
                let told = self
                    .pipeline
                    .forward_unknown(&only, options, method, params, wait, &NoSink);
                if let Some(Err(error)) = told {
                    log::debug!(target: "sessions", "a level could not be set: {error}");
                }
            }
        }
        nothing()
    }

    /// Answers a request that needs a server.
    fn answer_by_upstream(
        &self,
        session: &Arc<Session>,
        scope: &Scope,
        options: CallOptions<'_>,
        caller: &Arc<Caller>,
        request: &SessionRequest<'_>,
        sink: &dyn MessageSink,
    ) -> Answer {
        // A client with a session that loses its connection has cancelled nothing
        // (basic/transports, Sending Messages), so the wait has no client to watch.
        let (time, heartbeat) = (CALL_TIMEOUT_MAX, self.heartbeat(sink));
        let Ok(wait) = Wait::with_heartbeat(time, time, None, heartbeat) else {
            let error = CallError::Overloaded { what: "no descriptor is left".to_owned() };
            return Answer::Error(Problem::from_call(&error).to_rpc());
        };
        bound(&wait, scope);
        let _in_flight = match session.enter(request.id, &wait) {
            Ok(in_flight) => in_flight,
            Err(refused) => return refused_entry(refused),
        };
        sink.entered(&wait);
        let mut sink = LegacyCallSink::new(&self.sessions, session, &wait, sink);
        let method = Method::parse(request.method);
        let outcome = match method {
            Some(Method::LoggingSetLevel) => {
                return self.log_level(session, scope, request, options, &wait);
            }
            None => match self.forward_unknown(scope, options, request, &wait, &sink) {
                Some(outcome) => outcome,
                None => return not_found(request.method),
            },
            Some(
                Method::TasksGet
                | Method::TasksResult
                | Method::TasksList
                | Method::TasksCancel,
            ) if !caller.revision.has_tasks() => return not_found(request.method),
            Some(Method::TasksList) => {
                match self.list_tasks(scope, options, request, &wait, &sink) {
                    Ok(outcome) => outcome,
                    Err(answer) => return answer,
                }
            }
            Some(method) => {
                let call = match read_call(caller, method, request.params) {
                    Ok(call) => call,
                    Err(error) => return Answer::Error(error),
                };
                sink.wants_progress(call.progress_token.as_deref());
                if matches!(method, Method::ResourcesSubscribe | Method::ResourcesUnsubscribe) {
                    subscription(self, session, options, scope, &call, &wait)
                } else {
                    match self.call_with_input(scope, options, call, request, &wait, &sink) {
                        Ok(outcome) => outcome,
                        Err(answer) => return answer,
                    }
                }
            }
        };
        if outcome.is_ok() {
            sink.answered();
        }
        answer_of(outcome)
    }

    /// Makes a call, again for each round of input that its server needs.
    fn call_with_input(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        call: Call<'_>,
        request: &SessionRequest<'_>,
        wait: &Arc<Wait>,
        sink: &LegacyCallSink<'_>,
    ) -> Result<Result<Outcome, CallError>, Answer> {
        let (caller, method) = (call.caller.clone(), call.method);
        let key = if method == Method::TasksResult { "taskId" } else { "name" };
        let name = call.params.string(key).ok().flatten();
        let mut elicited = Elicited::of(&caller, self.parked.boot());
        let mut outcome = self.pipeline.call(scope, options, call, wait, sink);
        for _ in 0..INPUT_ROUNDS_MAX {
            let Ok(Outcome::InputRequired { server, requests, state }) = outcome else { break };
            let asked = (&server, requests.as_ref());
            let responses = input_required::gather(sink, asked, &mut elicited, wait)?;
            let mut call = read_call(&caller, method, request.params).map_err(Answer::Error)?;
            if let Some(responses) = responses {
                call.params.set("inputResponses", responses);
            }
            if let Some(state) = state {
                call.params.set("requestState", raw::string(&state));
            }
            let options = CallOptions { is_paid: true, ..options };
            outcome = self.pipeline.call(scope, options, call, wait, sink);
        }
        if let Ok(Outcome::InputRequired { server, .. }) = &outcome {
            let what = format!(
                "The server {server} wants input more often than {INPUT_ROUNDS_MAX} times for \
                 one call."
            );
            return Err(Answer::error(code::INTERNAL_ERROR, what));
        }
        if let Ok(outcome) = &mut outcome {
            elicited.end(sink);
            let asked = (caller.revision, method, name.as_deref());
            if let Err(full) = for_session(self, scope, options, asked, outcome) {
                return Ok(Err(full));
            }
        }
        Ok(outcome)
    }

    fn forward_unknown(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        request: &SessionRequest<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Option<Result<Outcome, CallError>> {
        let params = match request.params.map(RawObject::parse).transpose() {
            Ok(params) => params.unwrap_or_default(),
            Err(error) => return Some(Err(CallError::Invalid(error.to_string()))),
        };
        self.pipeline.forward_unknown(scope, options, request.method, params, wait, sink)
    }

    /// Answers `tasks/list`, where any server in scope has tasks.
    fn list_tasks(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        request: &SessionRequest<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Result<Outcome, CallError>, Answer> {
        if self.pipeline.servers_with(scope, "tasks").is_empty() {
            return Err(not_found(request.method));
        }
        match cursor_of(request.params).map_err(Answer::Error)? {
            // The list has one page, so no cursor was ever given.
            None => Ok(self.tasks(scope, options, wait, sink)),
            Some(_) => {
                let what = "The cursor is none of this list.";
                Err(Answer::error(code::INVALID_PARAMS, what))
            }
        }
    }

    /// The tasks of every server in scope that has tasks, in one list.
    fn tasks(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Outcome, CallError> {
        let mut tasks = Vec::new();
        for server in self.pipeline.servers_with(scope, "tasks") {
            let only = Scope { only: Some(server), ..scope.clone() };
            tasks.extend(self.pipeline.tasks(&only, options, wait, sink)?);
        }
        let text = format!("{{\"tasks\":[{}]}}", tasks.join(","));
        Ok(Outcome::Complete(Raw::from_valid(text)))
    }
}

fn answer_of(outcome: Result<Outcome, CallError>) -> Answer {
    match outcome {
        Ok(Outcome::Complete(result)) => Answer::Result(result),
        Ok(Outcome::Error { error, .. }) => Answer::Error(error),
        Ok(Outcome::InputRequired { server, .. }) => {
            Answer::Error(Problem::wants_input(&server).to_rpc())
        }
        Err(CallError::Cancelled) => Answer::None,
        Err(error) => {
            let problem = Problem::from_call(&error);
            // An error with headers keeps them.
            if problem.headers.is_empty() {
                Answer::Error(problem.to_rpc())
            } else {
                Answer::Refused(problem)
            }
        }
    }
}

/// Logs why a client did not answer a question: its server may only be told that the question was
/// cancelled.
fn tell_of_refusal(session: &Session, pending: &Pending, error: &RpcError) {
    let cut = |text: &str| text.chars().take(UPSTREAM_TEXT_CHARS_MAX).collect::<String>();
    let client = session.caller().and_then(|caller| caller.client.clone());
    let client = client.as_deref().unwrap_or("without a name");
    let (method, message) = (cut(&pending.method), cut(&error.message));
    log::info!(
        target: "sessions",
        "the client {client:?} answered {method} of {} with the error {}: {message:?}",
        pending.server, error.code
    );
}

/// Reads a request, without parameters that the caller's revision does not know: they have no
/// meaning in it.
fn read_call<'a>(
    caller: &Arc<Caller>,
    method: Method,
    params: Option<&'a str>,
) -> Result<Call<'a>, RpcError> {
    let mut call = legacy::read_call(caller.clone(), method, params)?;
    if !caller.revision.has_tasks() {
        call.params.remove("task");
    }
    // These parameters belong to a retry of a stateless client.
    RETRY_MEMBERS.into_iter().for_each(|name| drop(call.params.remove(name)));
    Ok(call)
}

fn not_found(method: &str) -> Answer {
    Answer::error(code::METHOD_NOT_FOUND, format!("Method not found: {method}"))
}

/// A result without content.
fn nothing() -> Answer {
    Answer::Result(Raw::from_valid("{}".to_owned()))
}

/// A request inside a session.
#[derive(Debug, Clone, Copy)]
pub struct SessionRequest<'a> {
    /// The client's id for the request.
    pub id: &'a RequestId,
    /// The request's method.
    pub method: &'a str,
    /// The request's parameters.
    pub params: Option<&'a str>,
}

fn refused_entry(refused: Refused) -> Answer {
    match refused {
        Refused::IdInUse => {
            Answer::error(code::INVALID_REQUEST, "A request with this id is in flight already.")
        }
        Refused::TooMany => {
            Answer::error(code::INTERNAL_ERROR, "Too many calls are in flight in this session.")
        }
        Refused::Ended | Refused::NotHeard => Answer::Gone,
    }
}
