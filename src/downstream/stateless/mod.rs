//! Stateless requests (2026-07-28), on the same endpoints as those of sessions.

pub(super) mod call_sink;
pub(super) mod detached_call;
pub(crate) mod headers;
mod input_required;
pub(super) mod listen;
pub mod parked_calls;
mod refusals;
pub(crate) mod request_state;
pub(super) mod response;

use std::cell::RefCell;
use std::sync::Arc;

use super::answer::{Answer, MessageSink};
use super::authentication::bound;
use super::counted_bytes::room_for_copy;
use super::legacy::outcome::adapted;
use super::list_pages::{NotListed, list_page};
use super::posted_message::{Body, Posted, read_body};
use super::status_codes::{self, Problem};
use super::{Front, request_telemetry};
use crate::access::policy::Scope;
use crate::error::CallError;
use crate::http::{Head, Responder};
use crate::pipeline::CallOptions;
use crate::protocol::call::{Call, CallSink, Kind, Outcome};
use crate::protocol::capabilities::can_be_asked;
use crate::protocol::for_revision::Output;
use crate::protocol::jsonrpc::{Message, RequestId, RpcError, code};
use crate::protocol::legacy;
use crate::protocol::method::Method;
use crate::protocol::modern::{self, Envelope, Freshness};
use crate::protocol::raw::{Raw, RawObject};
use crate::protocol::revision::Revision;
use crate::telemetry;
use crate::telemetry::outcome::{CallOutcome, Door};
use crate::wait::Wait;
use call_sink::{
    StatelessCallSink, StatelessRequest, client_of, options_of, with_list_changes,
};
use headers::{check_name, check_params, checked};
use refusals::{INVALID_STATE, failed, invalid, invalid_state, missing, not_found};
use request_state::digest::digest;
use request_state::{Sequel, States, give_back, without_added};
use response::StatelessResponse;

impl Front {
    /// Answers a POST of a stateless client.
    pub(super) fn post_modern(
        &self,
        mut posted: Posted<'_>,
        scope: &Scope,
        responder: Responder,
    ) {
        let refuse = |error: RpcError, id: Option<&RequestId>, responder| {
            Problem::malformed(&error).send_rpc(responder, id).ok();
        };
        let bytes = std::mem::take(&mut posted.body);
        let body = match read_body(&bytes, None) {
            Ok(body) => body,
            Err(malformed) => return refuse(malformed.error, malformed.id.as_ref(), responder),
        };
        match body {
            Body::One(Message::Request { id, method, params }) => {
                let stream = StatelessResponse::new(responder);
                let params = params.as_deref();
                request_telemetry::stateless(Door::Modern, &id, &method, params);
                let envelope = match checked(&mut posted, &method, params) {
                    Ok(envelope) => envelope,
                    Err(error) => {
                        let answer = Answer::Error(error);
                        request_telemetry::answered(&answer);
                        return stream.finish(&id, &answer);
                    }
                };
                if let Some(client) = &envelope.caller.client {
                    telemetry::request::client(client);
                }
                posted.count(None, params);
                if Method::parse(&method) == Some(Method::SubscriptionsListen) {
                    self.listen(scope, &id, &envelope, stream);
                    return telemetry::request::answered(CallOutcome::Ok);
                }
                let request = (Some(posted.head), method.as_str(), params);
                let answer = self.answer_modern(request, scope, envelope, &stream);
                request_telemetry::answered(&answer);
                stream.finish(&id, &answer);
            }
            // Closing the connection cancels a request; some clients send a notification besides.
            Body::One(Message::Notification { .. }) => {
                responder.respond(status_codes::ACCEPTED, &[], &[]).ok();
            }
            Body::One(Message::Response { .. }) | Body::Batch(_) => {
                let what = "This revision takes one request or notification a POST.";
                refuse(RpcError::new(code::INVALID_REQUEST, what), None, responder);
            }
        }
    }

    /// Answers a stateless request, which must agree with the head of its POST, if it has one.
    pub(super) fn answer_modern(
        &self,
        (head, name, params): (Option<&Head>, &str, Option<&str>),
        scope: &Scope,
        envelope: Envelope<'_>,
        stream: &StatelessResponse,
    ) -> Answer {
        let client = client_of(scope, &envelope.caller);
        let caller = envelope.caller.clone();
        let options = options_of(&client, &caller);
        let list = |kind| self.list_modern(scope, options, (caller.revision, kind), params);
        let Some(method) = Method::parse(name) else {
            return self.pass_modern(scope, name, envelope, stream);
        };
        if method.tells_of_all() {
            self.pipeline.await_first_lists(scope, None, stream.client());
        }
        match method {
            Method::ServerDiscover => self.discover(scope, options, envelope.caller.revision),
            Method::ToolsList => list(Kind::Tool),
            Method::PromptsList => list(Kind::Prompt),
            Method::ResourcesList => list(Kind::Resource),
            Method::ResourcesTemplatesList => list(Kind::Template),
            Method::ToolsCall | Method::PromptsGet | Method::ResourcesRead => {
                let named = head.map(|head| check_name(head, method, &envelope.params));
                if let Some(Err(error)) = named {
                    return Answer::Error(error);
                }
                self.call_modern(head, scope, method, envelope, stream)
            }
            Method::CompletionComplete => {
                self.call_modern(head, scope, method, envelope, stream)
            }
            Method::TasksGet | Method::TasksCancel | Method::TasksUpdate
                if self.pipeline.has_tasks_extension(scope) =>
            {
                self.call_modern(head, scope, method, envelope, stream)
            }
            Method::Initialize => {
                let supported: Vec<&str> =
                    Revision::ALL.into_iter().map(Revision::as_str).collect();
                let what = format!(
                    "initialize is not a method of this revision. Supported: {}; those before \
                     {} are asked for by initialize without this metadata.",
                    supported.join(", "),
                    Revision::LATEST_MODERN
                );
                Answer::Error(RpcError::new(code::METHOD_NOT_FOUND, what))
            }
            // These belong to revisions with sessions.
            Method::Ping
            | Method::ResourcesSubscribe
            | Method::ResourcesUnsubscribe
            | Method::LoggingSetLevel
            | Method::TasksGet
            | Method::TasksResult
            | Method::TasksList
            | Method::TasksCancel
            | Method::TasksUpdate
            | Method::SubscriptionsListen => not_found(name),
        }
    }

    /// The answer to a list request of a stateless client.
    fn list_modern(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        (revision, kind): (Revision, Kind),
        params: Option<&str>,
    ) -> Answer {
        let listed = (revision, kind);
        match list_page(self, scope, options, listed, params, |item| item.mirrors.is_ok()) {
            Ok(mut page) => {
                let freshness = self.pipeline.freshness(scope, options, kind);
                page.others = modern::write_result(&page.others, Some(freshness));
                Answer::List(page)
            }
            Err(NotListed::Asked(error)) => Answer::Error(error),
            Err(NotListed::Call(error)) => failed(&error),
        }
    }

    fn discover(&self, scope: &Scope, options: CallOptions<'_>, revision: Revision) -> Answer {
        self.pipeline.await_introductions(scope);
        let capabilities = self.pipeline.capabilities(scope, revision);
        let instructions = self.pipeline.instructions(scope);
        let capabilities = with_list_changes(&capabilities);
        let text = modern::discover_result(&capabilities, instructions.as_deref());
        let freshness = Kind::ALL
            .map(|kind| self.pipeline.freshness(scope, options, kind))
            .into_iter()
            .reduce(Freshness::and);
        let behind = self.pipeline.only_server_info(scope);
        let info = legacy::implementation(revision, behind.as_ref());
        let text = modern::write_result_of(info, &text, freshness);
        Answer::Result(Raw::from_valid(text))
    }

    fn check_mirrored(
        &self,
        head: Option<&Head>,
        scope: &Scope,
        options: CallOptions<'_>,
        method: Method,
        params: &RawObject<'_>,
    ) -> Result<(), RpcError> {
        let Some(head) = head.filter(|_| method == Method::ToolsCall) else { return Ok(()) };
        let Ok(Some(name)) = params.string("name") else { return Ok(()) };
        match self.pipeline.tool(scope, options, &name).as_deref().map(|item| &item.mirrors) {
            Some(Ok(mirrors)) => check_params(head, mirrors, params),
            Some(Err(_)) | None => Ok(()),
        }
    }

    /// Passes on a request with an unknown method.
    fn pass_modern(
        &self,
        scope: &Scope,
        method: &str,
        envelope: Envelope<'_>,
        stream: &StatelessResponse,
    ) -> Answer {
        let Envelope { caller, mut params, progress_token, .. } = envelope;
        let servers = self.pipeline.servers(scope);
        let [server] = servers.as_slice() else { return not_found(method) };
        let states = self.states(scope, method, &params);
        let sequel = match sequel(&states, &params) {
            Ok(sequel) => sequel,
            Err(error) => return Answer::Error(error),
        };
        let mut free_round = 0;
        match sequel {
            Some(Sequel::Server { server: whose, state, serial, round })
                if whose == server.as_str() =>
            {
                give_back(&mut params, state);
                free_round = self.free_round(scope, serial, round);
            }
            Some(_) => return invalid_state(),
            None => (),
        }
        // The method of the call does not matter where its answer is passed on.
        let method_of = Method::Ping;
        let (token, is_paid) = (progress_token, free_round > 0);
        let asked =
            StatelessRequest { scope, method: method_of, caller, token, free_round, is_paid };
        let mut outcome = None;
        let answer = self.inline(&asked, &states, stream, |options, wait, sink| {
            let passed =
                self.pipeline.forward_unknown(scope, options, method, params, wait, sink);
            outcome = Some(passed.is_some());
            passed.unwrap_or(Err(CallError::Internal))
        });
        if outcome == Some(true) { answer } else { not_found(method) }
    }

    fn call_modern(
        &self,
        head: Option<&Head>,
        scope: &Scope,
        method: Method,
        envelope: Envelope<'_>,
        stream: &StatelessResponse,
    ) -> Answer {
        let mut call = envelope.into_call(method);
        if !call.caller.revision.has_tasks() {
            // `task` would have a meaning for a server of the revision with tasks.
            call.params.remove("task");
        }
        let mut asked = StatelessRequest {
            scope,
            method,
            caller: call.caller.clone(),
            token: call.progress_token.clone(),
            free_round: 0,
            is_paid: true,
        };
        let states = self.states(scope, method.as_str(), &call.params);
        let sequel = match sequel(&states, &call.params) {
            Ok(sequel) => sequel,
            Err(error) => return Answer::Error(error),
        };
        let client = client_of(scope, &asked.caller);
        let caller = asked.caller.clone();
        let options = options_of(&client, &caller);
        asked.free_round = match self.pay(scope, options, &call, sequel.as_ref()) {
            Ok(free_round) => free_round,
            Err(error) => return failed(&error),
        };
        let (server, mut asks) = match self.owner_of(scope, options, &call, stream) {
            Ok(owner) => owner,
            Err(error) => return failed(&error),
        };
        if let Err(error) = self.check_mirrored(head, scope, options, method, &call.params) {
            return Answer::Error(error);
        }
        match sequel {
            Some(Sequel::Parked { boot, id, round, .. }) if boot == self.parked.boot() => {
                // This comes first: an invalid retry must not cost the client its call.
                let responses = call.params.get("inputResponses").unwrap_or("{}");
                let Ok(responses) = RawObject::parse(responses) else {
                    return invalid("\"inputResponses\" must be an object.");
                };
                let principal = scope.principal.id.as_ref();
                let Some(detached) = self.parked.take(id, round, principal) else {
                    return invalid_state();
                };
                detached.answer(&responses);
                return self.follow(&asked, &detached, round + 1, &states, stream);
            }
            Some(Sequel::Parked { .. }) if !self.may_begin_anew(scope, options, &call) => {
                let what = "The call was lost when the gateway was restarted; the tool may have \
                            run.";
                return Answer::Error(RpcError::new(code::INTERNAL_ERROR, what));
            }
            Some(Sequel::Server { server: whose, state, .. }) if whose == server.as_str() => {
                give_back(&mut call.params, state);
                // Where nothing else is known, its state tells how it asks.
                asks = self.pipeline.is_known_to_ask(scope, &server);
            }
            Some(Sequel::Server { .. }) => return invalid_state(),
            // The call begins anew, so the answers to the lost call answer nothing.
            Some(Sequel::Parked { .. }) => without_added(&mut call.params),
            None => (),
        }
        if asks {
            without_added(&mut call.params);
        }
        if asks && can_be_asked(asked.caller.capabilities.get()) {
            let started = self.pipeline.check(scope, &server);
            return match started.and_then(|()| self.start_apart(&asked, &call)) {
                Ok(detached) => self.follow(&asked, &detached, 0, &states, stream),
                Err(error) => failed(&error),
            };
        }
        self.inline(&asked, &states, stream, |options, wait, sink| {
            self.pipeline.call(scope, options, call, wait, sink)
        })
    }

    /// The sealer of states for this request of this principal.
    fn states<'a>(
        &'a self,
        scope: &'a Scope,
        method: &str,
        params: &RawObject<'_>,
    ) -> States<'a> {
        States {
            sealer: &self.states,
            principal: scope.principal.id.as_deref(),
            user: scope.user.as_deref(),
            digest: digest(method, params),
        }
    }

    /// True if a lost call may be made again: only if twice does no more than once.
    fn may_begin_anew(&self, scope: &Scope, options: CallOptions<'_>, call: &Call<'_>) -> bool {
        if call.method.is_safe_to_repeat() {
            return true;
        }
        let name = call.params.string("name").ok().flatten();
        let item = name.and_then(|name| self.pipeline.tool(scope, options, &name));
        item.is_some_and(|item| item.is_safe_to_repeat())
    }

    /// Makes a call on this thread; the end of the client's connection cancels it.
    fn inline(
        &self,
        asked: &StatelessRequest<'_>,
        states: &States<'_>,
        stream: &StatelessResponse,
        make: impl FnOnce(CallOptions<'_>, &Arc<Wait>, &dyn CallSink) -> Result<Outcome, CallError>,
    ) -> Answer {
        let wait = match self.stateless_wait(stream) {
            Ok(wait) => wait,
            Err(error) => return failed(&error),
        };
        bound(&wait, asked.scope);
        let client = client_of(asked.scope, &asked.caller);
        let options =
            CallOptions { is_paid: asked.is_paid, ..options_of(&client, &asked.caller) };
        let sink = StatelessCallSink {
            asked,
            wait: &wait,
            refused: RefCell::default(),
            inner: stream,
        };
        let outcome = make(options, &wait, &sink);
        match sink.refused.into_inner() {
            Some(error) => Answer::Error(error),
            None => self.conclude(asked, states, outcome),
        }
    }

    fn conclude(
        &self,
        asked: &StatelessRequest<'_>,
        states: &States<'_>,
        outcome: Result<Outcome, CallError>,
    ) -> Answer {
        match outcome {
            Ok(Outcome::Complete(result)) => {
                // Of the methods with `input_required`, only this one has cacheable results
                // (server/utilities/caching, Cacheable Results).
                let is_read = asked.method == Method::ResourcesRead;
                let freshness = is_read.then_some(Freshness::UNKNOWN);
                let (client, method) = (asked.caller.revision, asked.method);
                let _room = match room_for_copy(&result) {
                    Ok(room) => room,
                    Err(full) => return self.conclude(asked, states, Err(full)),
                };
                let result = adapted(client, method, || Output::Any, &result).unwrap_or(result);
                let text = modern::write_result(result.get(), freshness);
                Answer::Result(result.rewritten(text))
            }
            Ok(Outcome::Error { error, .. }) => Answer::Error(modern::error_for(error)),
            Ok(Outcome::InputRequired { server, requests, state }) => {
                let capabilities = asked.caller.capabilities.get();
                let missing = missing(requests.as_ref(), capabilities);
                if !missing.is_empty() {
                    return Answer::Error(modern::missing_capability(missing));
                }
                // A server that gave no state must get none (basic/patterns/mrtr, Client
                // Requirements).
                let state = state.map(|state| {
                    let server = server.as_str().to_owned();
                    let (serial, round) = (self.used_states.serial(), asked.free_round);
                    let sequel = Sequel::Server { server, state: Some(state), serial, round };
                    states.seal(sequel, self.parked.life())
                });
                let requests = requests.as_ref().map(Raw::get);
                let text = modern::input_required(requests, state.as_deref());
                Answer::Result(Raw::from_valid(text))
            }
            Err(CallError::Cancelled) => Answer::None,
            Err(error) => failed(&error),
        }
    }
}

/// The sequel that a retry's state stands for; none if the request is no retry.
fn sequel(states: &States<'_>, params: &RawObject<'_>) -> Result<Option<Sequel>, RpcError> {
    let wrong = |what: &str| RpcError::new(code::INVALID_PARAMS, what);
    let state = params
        .string("requestState")
        .map_err(|_| wrong("\"requestState\" must be a string."))?;
    match state {
        None => Ok(None),
        Some(state) => states.open(&state).map(Some).ok_or_else(|| wrong(INVALID_STATE)),
    }
}
