//! One call on its way to a server: admitted by the circuit breaker, given a permit, sent over a
//! session, reported. Read this first.

use std::sync::Arc;
use std::time::Instant;

use crate::error::{CallError, RETIRED, STOPPED, Stage};
use crate::limits::SIGN_INS_OF_CALL_MAX;
use crate::protocol::call::{CallSink, Client, Notice, Outcome, Outgoing};
use crate::protocol::log_level::LogLevel;
use crate::protocol::method::Method;
use crate::protocol::question::Question;
use crate::protocol::raw::{Raw, RawObject, string};
use crate::protocol::session_route::SessionRoute;
use crate::upstream::Upstream;
use crate::upstream::failure::{Failure, FailureKind};
use crate::upstream::handshake;
use crate::upstream::http_client::HttpConnection;
use crate::upstream::http_client::message_bytes;
use crate::upstream::session::Session;
use crate::upstream::session::context::GatewaySink;
use crate::upstream::session::pool::Lease;
use crate::wait::{Interrupted, Wait};

use breaker_guard::BreakerGuard;
use concurrency::HeldPermit;
use waiting_calls_limit::Place;

pub(super) mod breaker_guard;
pub(super) mod circuit_breaker;
pub(super) mod concurrency;
pub(super) mod waiting_calls_limit;

/// The name under which clients that keep sessions and declare nothing share one session.
pub(super) const EVERYBODY: &str = "shared:";

impl Upstream {
    /// Sends a request and waits for its answer on the caller's thread, holding one of the
    /// bounded slots. It goes over the session of `route`, which is opened if need be, or over the
    /// shared one where that opening shows that the server keeps no sessions. What the upstream says and asks about this call goes to `sink`, and progress lets the
    /// call's timeout start anew.
    ///
    /// # Errors
    /// A bound was reached, the wait ended first, or the upstream failed; what broke off midway
    /// is never sent a second time unless that does no harm. While the person at this machine signs
    /// in at the server, the call waits, and holds nothing of the upstream's.
    pub fn request(
        &self,
        route: SessionRoute<'_>,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Outcome, CallError> {
        let mut n_sign_ins = 0;
        loop {
            match (self.request_now(route, outgoing, wait, sink), self.authorization()) {
                (
                    Err(CallError::NeedsSignIn { is_under_way: true, .. }),
                    Some(authorization),
                ) if n_sign_ins < SIGN_INS_OF_CALL_MAX => {
                    n_sign_ins += 1;
                    let is_over = || self.context.mailbox.is_stopped();
                    authorization.wait_for_person(wait, is_over).map_err(|reason| {
                        CallError::interrupted(reason, self.name(), Stage::Authorization)
                    })?;
                }
                (outcome, _) => return outcome,
            }
        }
    }

    fn request_now(
        &self,
        route: SessionRoute<'_>,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Outcome, CallError> {
        let failed = |mut failure: Failure| {
            let is_cut_off = failure.kind == FailureKind::Interrupted(Interrupted::Stopping);
            if is_cut_off && failure.sent {
                let drain = self.context.limits.drain.as_millis();
                failure.message =
                    format!("{STOPPED}, and waits no longer (limits.drain_ms is {drain})");
            }
            // Whatever it met with while it was cut off.
            if wait.interrupted() == Some(Interrupted::Retired) {
                let drain = self.context.limits.drain.as_millis();
                failure.message =
                    format!("{RETIRED}, and limits.drain_ms ({drain} ms) was over");
                failure.kind = FailureKind::Interrupted(Interrupted::Retired);
            }
            self.context.scrubbed(failure).into_error(self.name(), outgoing.is_safe_to_repeat)
        };
        let guard = self.admit(route.kind())?;
        let charged = outgoing.charged.as_ref();
        let place = self.waiting_calls.enter(charged).map_err(failed)?;
        let permit = self.concurrency.take(charged, wait).map_err(failed)?;
        guard.look_again()?;
        let lease = route.client().map(|client| self.pool.enter(client, wait));
        let mut lease = lease.transpose().map_err(failed)?;
        let session = lease.as_ref().map_or(&*self.session, |lease| lease.session());
        let (mut connection, in_flight) = permit.apart();
        if let Some(level) = outgoing.about.log_level.filter(|_| !outgoing.about.is_level_told)
        {
            self.set_level_of_call(session, route, &mut connection, level, wait);
        }
        let began = Instant::now();
        // Of a call that outlives its client's requests, no thread of the pool waits.
        let parks = lease.as_ref().filter(|_| matches!(route, SessionRoute::Exclusive(_)));
        let parks = parks.map(|lease| (lease, &place));
        let lending =
            Lending { in_flight: &in_flight, parks, wait, guard: &guard, inner: sink };
        let mut outcome = session.request(&mut connection, outgoing, wait, &lending);

        if let (Some(lease), Err(failure)) = (&mut lease, &outcome)
            && matches!(failure.kind, FailureKind::Interrupted(_))
            && failure.sent
        {
            lease.taint();
        }
        drop(lease);
        if matches!(&outcome, Err(failure) if failure.is_stateless()) {
            outcome = self.session.request(&mut connection, outgoing, wait, sink);
        }
        // Before it is told: that first contact is slow says nothing of the upstream.
        if let Err(failure) = &mut outcome
            && failure.is_late_start()
        {
            let starting = self.health.lock().breaker.starting(Instant::now());
            failure.starting = failure.starting.or(starting);
        }
        guard.report(&outcome, began);
        in_flight.leave(connection);
        if let Ok(Outcome::Complete(result)) = &outcome {
            message_bytes::charge(result, outgoing.charged.as_ref()).map_err(failed)?;
        }
        outcome.map_err(|failure| match (&failure.kind, wait.interrupted()) {
            // Not the gateway ends, but the client's session.
            (FailureKind::Interrupted(Interrupted::Stopping), None) => CallError::Cancelled,
            _ => failed(failure),
        })
    }

    /// Sends the request once more, in a session, to a server that needs none but may keep some: SDKs
    /// say there what went wrong, and without a session only that something did. That session is
    /// shared by all clients that keep sessions and declare nothing. None if it answers nothing.
    pub fn ask_in_session(
        &self,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Option<Outcome> {
        let (session, capabilities) = (Arc::from(EVERYBODY), Raw::from_valid("{}".to_owned()));
        let client = Client {
            session,
            is_exclusive: false,
            capabilities,
            can_be_asked: false,
            charged: None,
        };
        self.request(SessionRoute::Own(&client), outgoing, wait, sink).ok()
    }

    /// Tells a session the level of a call that says it anew each time. Log messages for others
    /// come too then, and are left out where nobody wants them.
    fn set_level_of_call(
        &self,
        session: &Session,
        route: SessionRoute<'_>,
        connection: &mut HttpConnection,
        level: LogLevel,
        wait: &Arc<Wait>,
    ) {
        let logs = self.health.lock().initialized.as_ref().is_some_and(|initialized| {
            initialized.revision.asks_during_calls()
                && handshake::declares(initialized, "logging")
        });
        if !logs {
            return;
        }
        if route.is_shared() {
            let known = self.desired.level().and_then(|known| LogLevel::parse(&known));
            if known.is_some_and(|known| known <= level) {
                return;
            }
            self.desired.set_level(level.as_str());
        }
        let mut params = RawObject::default();
        params.set("level", string(level.as_str()));
        let setting = Outgoing::own(Method::LoggingSetLevel, params);
        if let Err(failure) =
            session.request(connection, &setting, wait, &GatewaySink(&self.context))
        {
            log::debug!(target: "upstream", "{}: a level could not be set: {}",
                self.name(), self.context.scrubbed(failure).message);
        }
    }
}

/// Lets others in while a call's client is asked something: that may take minutes, and what
/// bounds it is not what bounds calls.
struct Lending<'a> {
    in_flight: &'a HeldPermit<'a, HttpConnection>,
    /// The call's place in its own session and among those that wait, where no thread of the pool makes
    /// the call.
    parks: Option<(&'a Lease<'a>, &'a Place<'a>)>,
    wait: &'a Arc<Wait>,
    guard: &'a BreakerGuard<'a>,
    inner: &'a dyn CallSink,
}

impl CallSink for Lending<'_> {
    fn notice(&self, notice: Notice) {
        self.guard.heard();
        self.inner.notice(notice);
    }

    fn ask(&self, question: Question) {
        self.guard.heard();
        self.in_flight.lend();
        let Some((lease, place)) = self.parks else { return self.inner.ask(question) };
        place.give_up();
        self.inner.ask(lease.parked(question, self.wait));
    }

    fn has_client(&self) -> bool {
        self.inner.has_client()
    }

    fn sent_over(&self, session: u64) {
        self.inner.sent_over(session);
    }
}
