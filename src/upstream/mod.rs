//! Faces MCP servers: the only folder that names ureq and `std::process`.
//!
//! A call's thread enters through [`Upstream::request`] and makes the upstream call itself,
//! holding one of that upstream's bounded slots. Everything else that must happen to an
//! upstream (connecting, reading its lists, restarting its child) is done by its supervisor's
//! thread, which tells of it by [`Event`]s.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::config::UpstreamConfig;
use crate::protocol::call::{Kind, Notice, PrincipalId};
use crate::protocol::credentials_id::CredentialsId;
use crate::protocol::jsonrpc;
use crate::protocol::legacy::Initialized;
use crate::protocol::listed_item::ReadItem;
use crate::protocol::log_level::LogLevel;
use crate::protocol::modern::Freshness;
use crate::protocol::question::Question;
use crate::protocol::revision::Era;
use crate::protocol::server_name::ServerName;
use crate::protocol::session_route::{SessionKind, SessionSupport};
use crate::protocol::view::{LastUse, Untold, ViewId};
use crate::telemetry::counters::servers::OfServer;

use authorization::{AuthorizationListener, ServerAuthorization, SignInStatus};
use call::concurrency::ConcurrencyLimit;
use call::waiting_calls_limit::WaitingCallsLimit;
use http_client::HttpConnection;
use session::Session;
use session::context::SessionContext;
use session::pool::SessionPool;
use session::subscriptions::DesiredSubscriptions;
use status::SharedHealth;
use transport::stdio::stderr::StderrRing;

pub mod advice;
pub mod authorization;
mod backoff;
mod call;
mod credentials_user;
mod failure;
mod fair_queue;
mod handshake;
mod http_client;
mod message;
mod registry;
mod session;
mod status;
mod supervisor;
mod transport;
mod users;

pub use http_client::collector::Collector;
pub use registry::Upstreams;
pub use session::subscriptions::subscribe::Subscribing;
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
    /// A notification on one user's session with a server, where its credentials are each user's
    /// own: on the session of `client`, or on the one that the user's clients share.
    fn notice_of_user(
        &self,
        server: &ServerName,
        client: Option<&Arc<str>>,
        user: CredentialsId,
        notice: Notice,
    );
    /// The credentials with which clients that are there reach servers, where they are each
    /// user's own.
    fn users_there(&self) -> HashSet<(ServerName, CredentialsId)>;
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

/// One upstream: what a call's thread enters through.
pub struct Upstream {
    context: Arc<SessionContext>,
    /// Of the shared session.
    session: Arc<Session>,
    pool: Arc<SessionPool>,
    desired: Arc<DesiredSubscriptions>,
    concurrency: Arc<ConcurrencyLimit<HttpConnection>>,
    /// Shared by all upstreams.
    waiting_calls: Arc<WaitingCallsLimit>,
    health: Arc<SharedHealth>,
    stderr: Arc<StderrRing>,
    counted: Arc<OfServer>,
    /// Users may reach the server with credentials of their own.
    may_be_per_user: bool,
    /// Hears of credentials as long as it is held.
    _listener: Option<Arc<dyn AuthorizationListener>>,
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

    /// True if users may reach the server with credentials of their own, and it is nobody's own.
    pub fn may_be_per_user(&self) -> bool {
        self.may_be_per_user
    }

    /// The user whose own it is, where the server's credentials are each user's own.
    pub fn user(&self) -> Option<CredentialsId> {
        self.context.user.as_ref().map(|user| user.id)
    }

    /// The credentials of its requests; none where it wants no OAuth.
    pub fn authorization(&self) -> Option<&Arc<ServerAuthorization>> {
        self.context.authorization.as_ref()
    }

    /// How it was configured.
    pub fn config(&self) -> &UpstreamConfig {
        &self.context.config
    }

    /// What is known of its sessions.
    pub fn session_support(&self) -> SessionSupport {
        self.session.session_support()
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
        self.session.notify(whose, jsonrpc::notification(method, params));
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

    /// Why a person must sign in at it, if the gateway's calls have no other credentials.
    fn needs_sign_in(&self) -> Option<FailureReport> {
        let authorization = self.authorization()?;
        let SignInStatus::NeedsSignIn { why } = authorization.status() else { return None };
        let failure = authorization.needed(&why);
        Some(self.context.for_operator(&self.context.report(&failure)))
    }

    /// How it is at present.
    pub fn status(&self) -> Status {
        let (in_flight, waiting) = self.concurrency.counts();
        let sessions = self.pool.count_open() + usize::from(self.session.is_open());
        let now = Instant::now();
        let (needs, awaits_person) = (self.needs_sign_in(), self.awaits_person());
        let health = self.health.lock();
        let initialized = health.initialized.as_ref();
        let for_operator = |failure: &FailureReport| self.context.for_operator(failure);
        let unread = health
            .unread
            .iter()
            .map(|list| Unread { failure: for_operator(&list.failure), ..list.clone() });
        let state = if awaits_person { State::NeedsSignIn } else { health.breaker.state(now) };
        let last_failure = health.last_failure.as_ref().map(for_operator);
        Status {
            state,
            starting: health.breaker.starting(now),
            failures: health.breaker.failures(),
            down_since: health.breaker.down(now, SessionKind::Shared).map(|down| down.first.at),
            transport: self.session.transport(),
            redirected_to: self.context.redirected.told(),
            revision: initialized.map(|it| it.revision),
            capabilities: initialized.map(|it| it.capabilities.clone()),
            server_info: initialized.and_then(|it| it.server_info.clone()),
            last_failure: needs.or(last_failure),
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
