//! Faces MCP servers: the only folder that names ureq and `std::process`.
//!
//! A call's thread enters through [`Upstream::request`] and makes the upstream call itself,
//! holding one of that upstream's bounded slots. Everything else that must happen to an
//! upstream (connecting, reading its lists, restarting its child) is done by its supervisor's
//! thread, which tells of it by [`Event`]s.

use crate::upstream::failure::FailureKind;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::config::{SessionSharing, UpstreamConfig};
use crate::error::{CallError, RETIRED, STOPPED};
use crate::protocol::call::{
    CallSink, Client, Kind, Notice, Outcome, Outgoing, PrincipalId, Question,
};
use crate::protocol::jsonrpc;
use crate::protocol::legacy::Initialized;
use crate::protocol::listed_item::ReadItem;
use crate::protocol::log_level::LogLevel;
use crate::protocol::method::Method;
use crate::protocol::modern::Freshness;
use crate::protocol::raw::{Raw, RawObject, string};
use crate::protocol::revision::Era;
use crate::protocol::server_name::ServerName;
use crate::protocol::view::{LastUse, Untold, ViewId};
use crate::telemetry::metrics::servers::OfServer;
use crate::wait::{Interrupted, Wait};

use call::breaker_guard::BreakerGuard;
use call::circuit_breaker::Over;
use call::concurrency::ConcurrencyLimit;
use call::waiting_calls::WaitingCallsLimit;
use http_client::HttpConnection;
use session::context::{GatewaySink, SessionContext, Transport};
use session::desired_subscriptions::DesiredSubscriptions;
use session::pool::SessionPool;
use status::SharedHealth;
use transport::stdio::stderr::StderrRing;

pub mod advice;
mod backoff;
mod call;
mod failure;
mod http_client;
mod message;
mod registry;
mod session;
mod status;
mod supervisor;
mod transport;

pub use http_client::collector::Collector;
pub use registry::Upstreams;
pub use session::subscribe::Subscribing;
pub use status::{FailureReport, State, Status, Unread};
pub use supervisor::view_readings::ViewReading;
pub use supervisor::views::Viewer;

/// What a supervisor tells.
#[derive(Debug)]
pub struct Report {
    /// By which configuration the upstream runs that it looks after: another may run by its name
    /// since.
    pub config: Arc<UpstreamConfig>,
    /// What it has found.
    pub event: Event,
}

/// What a supervisor has found.
#[derive(Debug)]
pub enum Event {
    /// The upstream has answered `initialize`.
    Ready {
        /// Which one.
        server: ServerName,
        /// What it said.
        initialized: Initialized,
    },
    /// Lists of the upstream, each whole; also sent when they are the same as before.
    Lists {
        /// Which one.
        server: ServerName,
        /// The lists that were read, each item as clients can be given it, in the upstream's
        /// order. Those that are not here stand as they were.
        lists: Vec<(Kind, Vec<ReadItem>)>,
        /// Those that were asked for and could not be had.
        unread: Vec<Kind>,
        /// How fresh those of them are that the upstream has: all pages together.
        freshness: Vec<(Kind, Freshness)>,
        /// When they were asked for.
        read_at: Instant,
        /// Items of all its lists left out at `limits.upstream_tools`,
        /// `limits.upstream_result_bytes` or [`LIST_BYTES_MAX`](crate::limits::LIST_BYTES_MAX).
        left_out: usize,
    },
    /// Lists as only those clients see them that declare the same; those that are not here could
    /// not be had.
    View {
        /// Who sees them.
        id: ViewId,
        /// When they were used last: whoever shows them notes it there.
        used: Arc<LastUse>,
        /// As in [`Event::Lists`].
        lists: Vec<(Kind, Vec<ReadItem>)>,
        /// As in [`Event::Lists`].
        freshness: Vec<(Kind, Freshness)>,
        /// When they were asked for.
        read_at: Instant,
        /// Items of these lists left out at the bounds.
        left_out: usize,
        /// Why clients are to be told of them.
        untold: Untold,
        /// It is over when they have their place among the others.
        reading: ViewReading,
    },
    /// Such lists could not be read this time.
    ViewFailed,
    /// There are no such lists any more.
    NoView {
        /// Who saw them.
        id: ViewId,
    },
    /// The upstream cannot be used at present. What it listed last is still known.
    Failed {
        /// Which one.
        server: ServerName,
        /// Why.
        failure: FailureReport,
    },
}

/// Who hears what upstreams say outside of calls. Nothing here may wait.
pub trait ServerEvents: Send + Sync {
    /// A notification, on the session of `client` or on the shared one.
    fn notice(
        &self,
        server: &ServerName,
        client: Option<&Arc<str>>,
        notice: Notice,
        wire: Wire,
    );
    /// A message named no call on a session that several share, and is for nobody.
    fn unattributed(&self, server: &ServerName);
    /// A request on the session of `client`.
    fn ask(&self, server: &ServerName, client: &Arc<str>, question: Question);
}

/// On which stream something was said outside of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// On the one that answers come on too, in their order.
    OfAnswers,
    /// On another one: an answer that was said later may have come before it.
    Apart,
}

/// What stands for the client of a session that all have who keep sessions and declare nothing.
const EVERYBODY: &str = "shared:";

/// One upstream: what a call's thread enters through.
pub struct Upstream {
    context: Arc<SessionContext>,
    /// Of the shared session.
    transport: Arc<dyn Transport>,
    pool: Arc<SessionPool>,
    desired: Arc<DesiredSubscriptions>,
    concurrency: Arc<ConcurrencyLimit<HttpConnection>>,
    /// Shared by all upstreams.
    waiting_calls: Arc<WaitingCallsLimit>,
    health: Arc<SharedHealth>,
    stderr: Arc<StderrRing>,
    counted: Arc<OfServer>,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("name", self.name()).finish_non_exhaustive()
    }
}

impl Upstream {
    /// Its key in the configuration.
    pub fn name(&self) -> &ServerName {
        self.context.name()
    }

    /// What was asked of it, in numbers.
    pub fn counted(&self) -> &OfServer {
        &self.counted
    }

    /// Lets its sessions and children end; nothing is opened afterwards.
    fn end(&self) {
        self.context.mailbox.stop();
        self.context.views.end();
        self.pool.stop();
    }

    /// Which era it speaks, once it has answered.
    fn era(&self) -> Option<Era> {
        self.health.lock().initialized.as_ref().map(|initialized| initialized.revision.era())
    }

    /// How it was configured.
    pub fn config(&self) -> &UpstreamConfig {
        &self.context.config
    }

    /// Whether a client may have a session of its own here.
    fn has_own(&self, client: &Client) -> bool {
        let is_served_otherwise = if client.is_exclusive {
            self.transport.is_stateless()
        } else {
            self.transport.refuses_sessions()
        };
        self.config().session != SessionSharing::Shared && !is_served_otherwise
    }

    /// Whether the upstream is known to keep no sessions.
    pub fn refuses_sessions(&self) -> bool {
        self.transport.refuses_sessions()
    }

    /// Sends a request and waits for its answer on the caller's thread, holding one of the
    /// bounded slots. It goes over the client's own session if there is a client and the
    /// configuration does not say otherwise, else over the shared one; either is opened if need
    /// be. What the upstream says and asks about this call goes to `sink`, and progress lets the
    /// call's timeout start anew.
    ///
    /// # Errors
    /// A bound was reached, the wait ended first, or the upstream failed; what broke off midway
    /// is never sent a second time unless that does no harm.
    pub fn request(
        &self,
        through: Option<&Client>,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &mut dyn CallSink,
    ) -> Result<Outcome, CallError> {
        let failed = |mut failure: failure::Failure| {
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
        let through = through.filter(|client| self.has_own(client));
        let over = if through.is_some() { Over::Own } else { Over::Shared };
        let guard = self.admit(over)?;
        let charged = outgoing.charged.as_ref();
        let place = self.waiting_calls.enter(charged).map_err(failed)?;
        let tick = self.context.limits.heartbeat;
        let permit = self.concurrency.take(charged, wait, tick, &mut || sink.silence());
        let permit = permit.map_err(failed)?;
        guard.look_again()?;
        let lease =
            through.map(|client| self.pool.enter(client, wait, tick, &mut || sink.silence()));
        let mut lease = lease.transpose().map_err(failed)?;
        let transport = lease.as_ref().map_or(&*self.transport, |lease| lease.transport());
        let (mut connection, in_flight) = permit.apart();
        if let Some(level) = outgoing.about.log_level.filter(|_| !outgoing.about.is_level_told)
        {
            self.set_level_of_call(transport, lease.is_some(), &mut connection, level, wait);
        }
        let began = Instant::now();
        // Of a call that outlives its client's requests, no thread of the pool waits.
        let parks =
            lease.as_ref().filter(|_| through.is_some_and(|client| client.is_exclusive));
        let parks = parks.map(|lease| (lease, &place));
        let mut lending =
            Lending { in_flight: &in_flight, parks, wait, guard: &guard, inner: sink };
        let mut outcome = transport.request(&mut connection, outgoing, wait, &mut lending);

        if let (Some(lease), Err(failure)) = (&mut lease, &outcome)
            && matches!(failure.kind, FailureKind::Interrupted(_))
            && failure.sent
        {
            lease.taint();
        }
        drop(lease);
        if matches!(&outcome, Err(failure) if failure.is_stateless()) {
            outcome = self.transport.request(&mut connection, outgoing, wait, sink);
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
            transport::message_bytes::charge(result, outgoing.charged.as_ref())
                .map_err(failed)?;
        }
        outcome.map_err(|failure| match (&failure.kind, wait.interrupted()) {
            // Not the gateway ends, but the client's session.
            (FailureKind::Interrupted(Interrupted::Stopping), None) => CallError::Cancelled,
            _ => failed(failure),
        })
    }

    /// What a server that needs no sessions, but may know them besides, answers in one: SDKs say
    /// there what went wrong, and only that something did where there is none. That session is
    /// shared by all clients that keep sessions and declare nothing.
    pub fn ask_in_session(
        &self,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &mut dyn CallSink,
    ) -> Option<Outcome> {
        let (session, capabilities) = (Arc::from(EVERYBODY), Raw::from_valid("{}".to_owned()));
        let client = Client { session, is_exclusive: false, capabilities, charged: None };
        // Without a session of that kind it would be the same request over the same link.
        if !self.transport.is_stateless() || !self.has_own(&client) {
            return None;
        }
        self.request(Some(&client), outgoing, wait, sink).ok()
    }

    /// Whether a client has a session of its own with it. `can_be_asked`: the client declares
    /// sampling, elicitation or roots.
    pub fn has_own_session(&self, can_be_asked: bool) -> bool {
        self.config().session.is_own(can_be_asked) && !self.refuses_sessions()
    }

    /// Tells a session the level of a call that says it anew each time. Log messages for others
    /// come too then, and are left out where nobody wants them.
    fn set_level_of_call(
        &self,
        transport: &dyn Transport,
        is_own: bool,
        connection: &mut HttpConnection,
        level: LogLevel,
        wait: &Arc<Wait>,
    ) {
        let logs = self.health.lock().initialized.as_ref().is_some_and(|initialized| {
            initialized.revision.asks_during_calls()
                && failure::declares(initialized, "logging")
        });
        if !logs {
            return;
        }
        if !is_own {
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
            transport.request(connection, &setting, wait, &mut GatewaySink(&self.context))
        {
            log::debug!(target: "upstream", "{}: a level could not be set: {}",
                self.name(), self.context.scrubbed(failure).message);
        }
    }

    /// Sends a client's notification over its own session. False if it has none. `whose`: of
    /// those that wait to be sent, each principal has a part only; more are dropped.
    pub fn notify(
        &self,
        whose: &PrincipalId,
        session: &str,
        method: &str,
        params: Option<&str>,
    ) -> bool {
        self.pool.tell(whose, session, &jsonrpc::notification(method, params))
    }

    /// The same over the shared session, if that is open.
    pub fn notify_shared(&self, whose: &PrincipalId, method: &str, params: Option<&str>) {
        self.transport.tell(whose, jsonrpc::notification(method, params));
    }

    /// Ends a client's own session, some time soon.
    pub fn close_client(&self, session: &str) {
        self.pool.close(session);
    }

    /// Sets the level of the shared session's log messages, some time soon, and again whenever
    /// that session is opened anew. The last one set counts.
    pub fn set_log_level(&self, level: &str) {
        self.desired.set_level(level);
        self.context.mailbox.idle.bell().ring();
    }

    /// The level of the shared session's log messages, if it was ever set.
    pub fn log_level(&self) -> Option<LogLevel> {
        LogLevel::parse(&self.desired.level()?)
    }

    /// What it, another gateway, says of servers behind it that are not well: an array's text.
    pub fn unwell_behind(&self) -> Option<String> {
        self.health.lock().unwell_behind.clone()
    }

    /// How it is at present.
    pub fn status(&self) -> Status {
        let (in_flight, waiting) = self.concurrency.counts();
        let sessions = self.pool.count_open() + usize::from(self.transport.is_open());
        let now = Instant::now();
        let health = self.health.lock();
        let initialized = health.initialized.as_ref();
        let for_operator = |failure: &FailureReport| self.context.for_operator(failure);
        let unread = health
            .unread
            .iter()
            .map(|list| Unread { failure: for_operator(&list.failure), ..list.clone() });
        Status {
            state: health.breaker.state(now),
            starting: health.breaker.starting(now),
            failures: health.breaker.failures(),
            down_since: health.breaker.down(now, Over::Shared).map(|down| down.first.at),
            transport: self.transport.transport(),
            redirected_to: self.context.redirected.told(),
            revision: initialized.map(|it| it.revision),
            capabilities: initialized.map(|it| it.capabilities.clone()),
            server_info: initialized.and_then(|it| it.server_info.clone()),
            last_failure: health.last_failure.as_ref().map(for_operator),
            unread: unread.collect(),
            latency: health.latency,
            in_flight,
            waiting,
            sessions,
            restarts: health.opened.saturating_sub(1),
            dropped_messages: self.context.dropped.so_far(),
            stderr: self.stderr.lines(),
        }
    }
}

/// Lets others in while a call's client is asked something: that may take minutes, and what
/// bounds it is not what bounds calls.
struct Lending<'a> {
    in_flight: &'a call::concurrency::HeldPermit<'a, HttpConnection>,
    /// The call's place in its own session and among those that wait, where no thread of the pool makes
    /// the call.
    parks: Option<(&'a session::pool::Lease<'a>, &'a call::waiting_calls::Place<'a>)>,
    wait: &'a Arc<Wait>,
    guard: &'a BreakerGuard<'a>,
    inner: &'a mut dyn CallSink,
}

impl CallSink for Lending<'_> {
    fn notice(&mut self, notice: Notice) {
        self.guard.heard();
        self.inner.notice(notice);
    }

    fn ask(&mut self, question: Question) {
        self.guard.heard();
        self.in_flight.lend();
        let Some((lease, place)) = self.parks else { return self.inner.ask(question) };
        place.give_up();
        self.inner.ask(lease.parked(question, self.wait));
    }

    fn silence(&mut self) {
        self.inner.silence();
    }

    fn has_client(&self) -> bool {
        self.inner.has_client()
    }
}
