//! All upstreams: started together, replaced one by one while the others go on, ended together.

mod users;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use std::{fmt, io};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use crate::budget::Budget;
use crate::config::user::per_user;
use crate::config::{Credentials, UpstreamConfig};
use crate::limits::{Limits, RETIRING_UPSTREAMS_MAX};
use crate::protocol::credentials::PerUser;
use crate::protocol::revision::Era;
use crate::protocol::server_name::ServerName;
use crate::telemetry::counters;
use crate::thread::{Joined, spawn};
use crate::wait::Interrupted;

use super::authorization::{Authorizations, Holder, Owner};
use super::backoff::Retry;
use super::call::circuit_breaker::Breaker;
use super::call::concurrency::ConcurrencyLimit;
use super::call::waiting_calls_limit::WaitingCallsLimit;
use super::credentials_user::listener;
use super::http_client::HttpConnection;
use super::http_client::dns::DnsCache;
use super::http_client::tls::Tls;
use super::session::context::SessionContext;
use super::session::factory::SessionFactory;
use super::session::pool::SessionPool;
use super::session::subscriptions::reconcile::{LogLevelTold, Reconciling};
use super::session::user::User;
use super::status::SharedHealth;
use super::supervisor::Supervisor;
use super::supervisor::list_times::Lists;
use super::supervisor::lists::UndeclaredTools;
use super::transport::stdio::stderr::StderrRing;
use super::users::{EventsOfUser, UserUpstream, UserUpstreams};
use super::{Report, ServerEvents, Upstream};

/// How often an upstream that is to end looks whether anybody still uses it.
const RETIRING_TICK: Duration = Duration::from_millis(20);

/// Upstreams by name, at one moment.
type ByName = Arc<BTreeMap<ServerName, Arc<Upstream>>>;

/// All upstreams by name. Dropping it ends their sessions and children, and waits for that, in
/// bounded time.
pub struct Upstreams {
    by_name: RwLock<ByName>,
    shared: Shared,
    /// Those of users, at servers whose credentials are each user's own.
    users: UserUpstreams,
    /// True if some server may be reached with users' own credentials.
    has_users: AtomicBool,
    /// Those servers.
    per_user: RwLock<Arc<PerUser>>,
    /// How many were started.
    started: AtomicUsize,
    /// What ends with [`Upstreams::stop`].
    running: Mutex<Running>,
}

/// Threads, joined when the upstreams were told to stop.
struct Running {
    /// Where supervisors tell what they find; none once everything has ended.
    reports: Option<Sender<Report>>,
    supervisors: BTreeMap<ServerName, Joined>,
    /// Takes upstreams that are no more; none once everything has ended.
    retiring: Option<Sender<Retiring>>,
    /// Ends them.
    ending: Option<Joined>,
    /// Looks for users' upstreams that are no longer used, once there is one; the sender ends it.
    sweeping: Option<(Sender<()>, Joined)>,
}

/// An upstream that is no more: it ends when its calls have.
struct Retiring {
    upstream: Arc<Upstream>,
    /// None where nobody looks after it, since only users' own upstreams make contact.
    supervisor: Option<Joined>,
    /// When it ends at the latest.
    until: Instant,
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.all().keys()).finish()
    }
}

impl Upstreams {
    /// Starts to make contact with every upstream, and returns at once. What comes of it is told
    /// by `reports`, and `unasked` hears what they say outside of calls. Large results count
    /// against `buffered` until they are dropped. `eras`: what upstreams spoke when they were
    /// last spoken with. `authorizations`: how access tokens are had.
    ///
    /// # Errors
    /// The process has no thread or descriptor left.
    pub fn start(
        configs: &[Arc<UpstreamConfig>],
        limits: Arc<Limits>,
        buffered: Budget,
        reports: Sender<Report>,
        server_events: Arc<dyn ServerEvents>,
        eras: BTreeMap<ServerName, Era>,
        authorizations: Arc<Authorizations>,
    ) -> io::Result<Upstreams> {
        let shared = Shared {
            names: DnsCache::start()?,
            tls: Tls::Public(Arc::default()),
            waiting_calls: Arc::new(WaitingCallsLimit::new(limits.connections)),
            limits,
            buffered,
            hurry: Arc::default(),
            server_events,
            eras,
            authorizations,
        };
        let (retiring, retired) = bounded(RETIRING_UPSTREAMS_MAX);
        let running = Running {
            reports: Some(reports),
            supervisors: BTreeMap::new(),
            retiring: Some(retiring),
            ending: Some(spawn("up-ending", move || end_all(&retired))?),
            sweeping: None,
        };
        // Dropped on the way out if one cannot be started.
        let upstreams = Upstreams {
            by_name: RwLock::default(),
            shared,
            users: UserUpstreams::default(),
            has_users: AtomicBool::new(false),
            per_user: RwLock::default(),
            started: AtomicUsize::new(0),
            running: Mutex::new(running),
        };
        upstreams.configure(configs)?;
        Ok(upstreams)
    }

    /// Makes these the upstreams: one whose configuration is the very same goes on as it is, one
    /// that is new is started, and one that is no more, or another under its name, ends when its
    /// calls have, `limits.drain` from now at the latest. What is subscribed to at one that
    /// changes is subscribed to again. Returns at once.
    ///
    /// # Errors
    /// The process has no thread or descriptor left; then nothing has changed.
    pub fn configure(&self, configs: &[Arc<UpstreamConfig>]) -> io::Result<()> {
        let mut running = self.running();
        let Some(reports) = running.reports.clone() else { return Ok(()) };
        let before = self.all();
        let mut after = BTreeMap::new();
        let mut started = Vec::new();
        for config in configs {
            let old = before.get(&config.name);
            let upstream = match old.filter(|it| Arc::ptr_eq(&it.context.config, config)) {
                Some(same) => same.clone(),
                None => {
                    let index = self.started.fetch_add(1, Ordering::Relaxed);
                    let made = Made { index, old, user: None };
                    let upstream =
                        self.shared.upstream(config.clone(), made, reports.clone())?;
                    let upstream = Arc::new(upstream);
                    started.push((upstream.clone(), old));
                    upstream
                }
            };
            after.insert(config.name.clone(), upstream);
        }
        let mut supervisors = Vec::new();
        for (upstream, _) in started.iter().filter(|(it, _)| !it.config().is_per_user()) {
            let supervisor = supervisor(upstream, reports.clone());
            let thread = spawn(&upstream.context.thread_name("sup"), move || supervisor.run());
            match thread {
                Ok(thread) => supervisors.push((upstream.name().clone(), thread)),
                Err(error) => {
                    started.iter().for_each(|(upstream, _)| upstream.context.mailbox.stop());
                    return Err(error);
                }
            }
        }
        let adopt = || {
            for (upstream, old) in &started {
                if let Some(old) = old {
                    upstream.pool.adopt(&old.pool);
                }
            }
        };
        // Before any call comes; and what a call has still left at the old one meanwhile.
        adopt();
        // Requests bring credentials for what is reached with them from here on.
        let per_user = per_user(configs.iter().map(Arc::as_ref));
        let has_users = !per_user.is_none();
        *self.per_user.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(per_user);
        self.has_users.store(has_users, Ordering::Relaxed);
        let after = Arc::new(after);
        *self.by_name.write().unwrap_or_else(PoisonError::into_inner) = after.clone();
        adopt();
        for (name, old) in before.iter() {
            if after.get(name).is_some_and(|it| Arc::ptr_eq(it, old)) {
                continue;
            }
            let supervisor = running.supervisors.remove(name);
            running.retire(old.clone(), supervisor, self.shared.limits.drain);
        }
        running.supervisors.extend(supervisors);
        drop(running);
        self.configure_users(configs);
        Ok(())
    }

    /// How access tokens are had, for all servers.
    pub fn authorizations(&self) -> &Arc<Authorizations> {
        &self.shared.authorizations
    }

    /// The upstream of that name.
    pub fn get(&self, name: &ServerName) -> Option<Arc<Upstream>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// All of them, sorted by name.
    pub fn all(&self) -> Arc<BTreeMap<ServerName, Arc<Upstream>>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends every call that still waits or reads, those of upstreams too that a reload has ended;
    /// from here on there are no others.
    pub fn interrupt(&self) {
        // Nobody waits for those any longer.
        self.running().retiring = None;
        for upstream in self.all_with_users() {
            upstream.concurrency.interrupt(Interrupted::Stopping);
        }
        // Calls that wait for a sign-in hold nothing of an upstream's.
        self.shared.authorizations.stop();
    }

    /// Ends every session and child, and waits for that, in bounded time. Nothing is opened
    /// afterwards. Whoever still holds an upstream keeps nothing alive by that.
    pub fn stop(&self) {
        self.interrupt();
        // No user's upstream is made from here on.
        let (supervisors, ending, sweeping) = {
            let mut running = self.running();
            running.reports = None;
            let supervisors = std::mem::take(&mut running.supervisors);
            (supervisors, running.ending.take(), running.sweeping.take())
        };
        if let Some((stop, thread)) = sweeping {
            drop(stop);
            drop(thread);
        }
        let of_users = self.users.end();
        let all = self.all();
        let of_users_too = of_users.iter().map(|it| &it.upstream);
        all.values().chain(of_users_too).for_each(|upstream| upstream.end());
        // Each ends its own session or child meanwhile, so this takes as long as the slowest.
        drop(supervisors);
        drop(ending);
        all.values().for_each(|upstream| upstream.pool.join());
        for UserUpstream { upstream, supervisor, .. } in of_users {
            drop(supervisor);
            upstream.pool.join();
        }
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What makes the end a quick one once it is set: children are killed instead of asked.
    pub fn hurry(&self) -> Arc<AtomicBool> {
        self.shared.hurry.clone()
    }
}

impl Drop for Upstreams {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Running {
    /// Lets an upstream end once its calls have.
    fn retire(&self, upstream: Arc<Upstream>, supervisor: Option<Joined>, drain: Duration) {
        let retiring = Retiring { upstream, supervisor, until: Instant::now() + drain };
        let refused = match &self.retiring {
            Some(thread) => thread.try_send(retiring).err().map(TrySendError::into_inner),
            None => Some(retiring),
        };
        if let Some(Retiring { upstream, supervisor, .. }) = refused {
            log::warn!(target: "upstream", "{}: too many servers end at once: its calls are cut off",
                upstream.name());
            upstream.concurrency.interrupt(Interrupted::Retired);
            upstream.end();
            // It ends by itself; to wait for it could hold up all others.
            if let Some(supervisor) = supervisor {
                supervisor.detach();
            }
        }
    }

    fn retire_users(&self, users: Vec<UserUpstream>, drain: Duration) {
        for UserUpstream { upstream, supervisor, .. } in users {
            self.retire(upstream, Some(supervisor), drain);
        }
    }
}

/// The thread that ends upstreams which are no more, each when nobody uses it any longer; all of
/// them at once when nobody can add another one.
fn end_all(retired: &Receiver<Retiring>) {
    let mut waiting: Vec<Retiring> = Vec::new();
    let mut has_patience = true;
    while has_patience || !waiting.is_empty() {
        let next = if waiting.is_empty() {
            retired.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            retired.recv_timeout(RETIRING_TICK)
        };
        match next {
            Ok(retiring) if waiting.len() < RETIRING_UPSTREAMS_MAX => waiting.push(retiring),
            // The one that waits for longest makes room.
            Ok(retiring) => {
                if let Some(first) = waiting.first_mut() {
                    first.until = Instant::now();
                }
                waiting.push(retiring);
            }
            Err(RecvTimeoutError::Timeout) => (),
            Err(RecvTimeoutError::Disconnected) => has_patience = false,
        }
        let now = Instant::now();
        let is_over = |it: &mut Retiring| {
            // Calls hold their upstream as long as they last.
            !has_patience || now >= it.until || Arc::strong_count(&it.upstream) == 1
        };
        let over: Vec<Retiring> = waiting.extract_if(.., is_over).collect();
        let reason = if has_patience { Interrupted::Retired } else { Interrupted::Stopping };
        // Told together, so that they end together.
        for Retiring { upstream, .. } in &over {
            upstream.concurrency.interrupt(reason);
            upstream.end();
        }
        for Retiring { upstream, supervisor, .. } in over {
            drop(supervisor);
            upstream.pool.join();
        }
    }
}

fn supervisor(upstream: &Upstream, reports: Sender<Report>) -> Supervisor {
    Supervisor {
        context: upstream.context.clone(),
        session: upstream.session.clone(),
        health: upstream.health.clone(),
        concurrency: upstream.concurrency.clone(),
        reports,
        connection: HttpConnection::default(),
        generation: None,
        logged: 0,
        desired: upstream.desired.clone(),
        level: LogLevelTold::default(),
        reconciling: Reconciling::default(),
        lists: Lists::default(),
        undeclared: UndeclaredTools::default(),
        probing: Retry::default(),
        listening: Retry::default(),
        listened_at: None,
    }
}

/// For whom an upstream is made.
struct Made<'a> {
    /// Its place among the upstreams.
    index: usize,
    /// The one whose place it takes.
    old: Option<&'a Arc<Upstream>>,
    /// The user whose own it is.
    user: Option<Arc<User>>,
}

/// What all upstreams share.
struct Shared {
    names: Arc<DnsCache>,
    tls: Tls,
    waiting_calls: Arc<WaitingCallsLimit>,
    limits: Arc<Limits>,
    buffered: Budget,
    hurry: Arc<AtomicBool>,
    server_events: Arc<dyn ServerEvents>,
    /// Of the upstreams that were known before the start.
    eras: BTreeMap<ServerName, Era>,
    authorizations: Arc<Authorizations>,
}

impl Shared {
    /// An upstream that nobody looks after yet. It takes over what is subscribed to at the one
    /// whose place it takes.
    fn upstream(
        &self,
        config: Arc<UpstreamConfig>,
        made: Made<'_>,
        reports: Sender<Report>,
    ) -> io::Result<Upstream> {
        let Made { index, old, user } = made;
        let (limits, buffered) = (self.limits.clone(), self.buffered.clone());
        let (hurry, inner) = (self.hurry.clone(), self.server_events.clone());
        let server_events: Arc<dyn ServerEvents> = match &user {
            Some(user) => Arc::new(EventsOfUser { inner, user: user.id }),
            None => inner,
        };
        let is_of_user = user.is_some();
        let desired = Arc::new(old.map(|old| old.desired.successor()).unwrap_or_default());
        let owner = match (config.credentials, &user) {
            (Credentials::Gateway, _) => Some(Owner::Gateway),
            (Credentials::PerUser, Some(user)) => Some(Owner::User(user.id)),
            // Nobody connects with it.
            (Credentials::PerUser, None) => None,
        };
        let holder = user.as_ref().map(|user| Holder::of(&user.credentials));
        let of = |owner| self.authorizations.of(&config, owner, holder.unwrap_or_default());
        let authorization = owner.map(of).transpose();
        let authorization = authorization
            .map_err(|what| io::Error::new(io::ErrorKind::InvalidInput, what))?
            .flatten();
        let context = SessionContext::new(
            config,
            limits,
            buffered,
            index,
            hurry,
            server_events,
            desired.clone(),
        )?;
        let context = context.with_user(user).with_authorization(authorization);
        context.views.begin(reports);
        let context = Arc::new(context);
        let stderr = Arc::new(StderrRing::new(self.limits.child_stderr_lines));
        let era = match old {
            Some(old) if old.config().target.is_same_server(&context.config.target) => {
                old.era()
            }
            Some(_) => None,
            None => self.eras.get(context.name()).copied(),
        };
        let sessions =
            SessionFactory::new(&context, &stderr, self.names.clone(), &self.tls, era);
        let session = sessions.session(context.clone());
        let health =
            Arc::new(SharedHealth::new(Breaker::new(session.opener(), Instant::now())));
        let (max_in_flight, max_waiting) =
            (context.config.max_in_flight, context.config.max_waiting);
        let concurrency =
            Arc::new(ConcurrencyLimit::new(context.name().clone(), max_in_flight, max_waiting));
        let counted = counters::servers::of(context.name());
        if context.config.is_per_user() && !is_of_user {
            // Nobody connects to it but its users' upstreams, of which each knows how it is.
            health.lock().breaker.made_contact();
        }
        let listener = listener(&context, &health);
        Ok(Upstream {
            counted,
            may_be_per_user: context.config.may_be_per_user() && !is_of_user,
            _listener: listener,
            pool: Arc::new(SessionPool::new(context.clone(), sessions)),
            desired,
            context,
            session,
            concurrency,
            waiting_calls: self.waiting_calls.clone(),
            health,
            stderr,
        })
    }
}
