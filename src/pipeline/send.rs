//! Sends a call over the session with the server that its client should have, within the
//! server's times.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::callers::{Callers, End};
use super::session_route::{may_ask_in_session, route_session};
use super::task_owners::{TaskKey, TaskOwners};
use super::{CallOptions, Pipeline, tasks};
use crate::access::policy::Scope;
use crate::error::{Allowed, CallError};
use crate::protocol::call::{CallSink, Client, Notice, Outcome, Outgoing, PrincipalId};
use crate::protocol::for_revision::Output;
use crate::protocol::jsonrpc::code;
use crate::protocol::log_level::LogLevel;
use crate::protocol::question::Question;
use crate::protocol::raw::Raw;
use crate::protocol::server_name::ServerName;
use crate::protocol::session_route::SessionRoute;
use crate::telemetry::outcome::CallOutcome;
use crate::upstream::Upstream;
use crate::wait::{RanOut, Wait};

/// The principal, the session and the options with which a request goes to a server.
pub(super) struct Asker<'a> {
    upstream: Arc<Upstream>,
    owners: &'a TaskOwners,
    /// None where callers cannot be told apart: REST without keys.
    principal: Option<PrincipalId>,
    /// The session that carries the request.
    route: SessionRoute<'a>,
    options: CallOptions<'a>,
    callers: &'a Callers,
}

/// The session with a server that carries the calls of a client; see [`route_session`].
pub(super) fn route_to<'a>(
    upstream: &Upstream,
    client: Option<&'a Client>,
    log_level: Option<LogLevel>,
) -> SessionRoute<'a> {
    route_session(client, log_level, upstream.session_support(), upstream.config().session)
}

impl Pipeline {
    /// The session with that server that carries the calls of a client that keeps a session; the
    /// shared one where there is no such server.
    pub fn session_route<'a>(
        &self,
        server: &ServerName,
        client: Option<&'a Client>,
        scope: &Scope,
    ) -> SessionRoute<'a> {
        let upstream = self.upstream_for(scope, server);
        upstream.map_or(SessionRoute::Shared, |upstream| route_to(&upstream, client, None))
    }

    /// The asker of a request to that server.
    ///
    /// # Errors
    /// There is no such server.
    pub(super) fn asker<'a>(
        &'a self,
        scope: &Scope,
        options: CallOptions<'a>,
        server: &ServerName,
    ) -> Result<Asker<'a>, CallError> {
        let upstream = self.upstream_for(scope, server)?;
        let key = scope.principal.id.as_ref();
        let principal = match options.client {
            Some(client) => Some(PrincipalId::new(key, &client.session)),
            None => key.cloned().map(PrincipalId::Key),
        };
        // Users who share a key may have credentials of their own.
        let principal = upstream.user_id().map(PrincipalId::Credentials).or(principal);
        let route = route_to(&upstream, options.client, options.about.log_level);
        let (owners, callers) = (&*self.tasks, &*self.callers);
        Ok(Asker { upstream, owners, principal, route, options, callers })
    }
}

impl Asker<'_> {
    fn key(&self, id: String) -> TaskKey {
        TaskKey { server: self.upstream.name().clone(), id }
    }

    /// The server, where it is the caller's own.
    pub(super) fn of_user(&self) -> Option<&Upstream> {
        Some(&*self.upstream).filter(|it| it.user_id().is_some())
    }

    /// True if the task with the server's own id `id` belongs to the principal. A task whose
    /// beginning is unknown belongs to none, even on a session of the client's own: that the
    /// server would give it proves nothing, because all sessions come from one gateway.
    pub(super) fn owns(&self, id: String) -> bool {
        let key = self.key(id);
        let owns =
            |principal| self.owners.owns(Instant::now(), principal, &key, self.route.kind());
        self.principal.as_ref().is_some_and(owns)
    }

    /// The announced type of the result of the task with the server's own id `id`.
    pub(super) fn task_output(&self, id: String) -> Output {
        let key = self.key(id);
        let of = |principal| self.owners.output(Instant::now(), principal, &key);
        self.principal.as_ref().and_then(of).unwrap_or(Output::Object)
    }

    /// Binds the task that a result names to the principal, with the announced type of the task's
    /// own result.
    pub(super) fn has_begun(&self, result: &Raw, output: Output) {
        if let (Some(principal), Some((id, ttl))) = (&self.principal, tasks::begun(result)) {
            let key = self.key(id);
            self.owners.bind(Instant::now(), principal, key, self.route.kind(), ttl, output);
        }
    }

    /// True if a log message on a shared session was sent only because other clients want it: the
    /// caller wants its own level, or the usual one.
    fn is_too_quiet(&self, level: Option<LogLevel>) -> bool {
        let wanted = self.options.about.log_level.unwrap_or(LogLevel::USUAL);
        self.route.is_shared()
            && self.upstream.log_level().is_some()
            && level.is_some_and(|level| level < wanted)
    }

    /// True if the caller may be told of a task during its own call. `begins`: an unknown task
    /// may be the one that this call begins.
    fn may_hear(&self, id: String, begins: bool) -> bool {
        let (now, key) = (Instant::now(), self.key(id.clone()));
        let others = |it| self.owners.is_of_others(now, it, &key);
        self.owns(id) || (begins && !self.principal.as_ref().is_some_and(others))
    }

    /// Counts a call that is over.
    pub(super) fn count(&self, outcome: CallOutcome, took: Duration) {
        self.upstream.counted().count(outcome, took);
    }

    fn may_ask_in_session(&self) -> bool {
        let (client, sharing) = (self.options.client, self.upstream.config().session);
        may_ask_in_session(client, self.route, self.upstream.session_support(), sharing)
    }

    /// Sends a request within the server's times.
    ///
    /// # Errors
    /// Any failure that kept the server from answering.
    pub(super) fn send(
        &self,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Outcome, CallError> {
        let config = self.upstream.config();
        let wanted = self.options.timeout.filter(|wanted| *wanted < config.timeout);
        let timeout =
            wanted.map_or(config.timeout, |it| it.saturating_sub(self.options.waited));
        wait.set_call_timeout(timeout, config.timeout_max);
        let begins = outgoing.params.get("task").is_some();
        let sink = OfServer { asker: self, begins, inner: sink };
        // What a user's own server says is its user's, whoever calls.
        let is_shared = self.route.is_shared() && self.upstream.user_id().is_none();
        let mut in_flight = is_shared.then(|| {
            let (now, server) = (Instant::now(), self.upstream.name());
            self.callers.enter(now, server, self.principal.clone())
        });
        let mut outcome = self.upstream.request(self.route, outgoing, wait, &sink);
        if let (Some(in_flight), Ok(_)) = (&mut in_flight, &outcome) {
            in_flight.end = End::Answered;
        }
        drop(in_flight);
        if let Ok(Outcome::Error { error, .. }) = &outcome
            && error.code == code::INTERNAL_ERROR
            && outgoing.is_safe_to_repeat
            && self.may_ask_in_session()
            && let Some(said) = self.upstream.ask_in_session(outgoing, wait, &sink)
        {
            outcome = Ok(said);
        }
        if let Err(CallError::UpstreamTimeout { allowed, .. }) = &mut outcome {
            *allowed = wait.ran_out().map(|(what, time)| match (what, wanted) {
                (RanOut::Timeout, Some(time)) => {
                    Allowed { time, by: "the caller's timeout_ms" }
                }
                (RanOut::Timeout, None) => Allowed { time, by: "its timeout_ms" },
                (RanOut::Latest, _) => Allowed { time, by: "its timeout_max_ms" },
                (RanOut::Patience, _) => Allowed { time, by: "limits.parked_ms" },
            });
        }
        outcome
    }
}

/// Gives a server's messages during a call the names that clients know, and keeps back messages
/// about others' tasks.
struct OfServer<'a> {
    asker: &'a Asker<'a>,
    /// True if the call asks for a task.
    begins: bool,
    inner: &'a dyn CallSink,
}

impl CallSink for OfServer<'_> {
    fn notice(&self, notice: Notice) {
        if let Some(id) = tasks::told_of(&notice)
            && !self.asker.may_hear(id, self.begins)
        {
            return;
        }
        if let Notice::Log(params) = &notice
            && self.asker.is_too_quiet(LogLevel::of_message(params.get()))
        {
            return;
        }
        self.inner.notice(tasks::owned_notice(self.asker.upstream.name(), notice));
    }

    fn ask(&self, question: Question) {
        self.inner.ask(tasks::owned_question(question));
    }

    fn has_client(&self) -> bool {
        self.inner.has_client()
    }
}
