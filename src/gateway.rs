//! Puts the parts together, and takes them apart in order.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, RwLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use ring::rand::{SecureRandom, SystemRandom};

use crate::access::authenticate::KnownKey;
use crate::access::glob::ToolGlobs;
use crate::access::origin::{HostCheck, Origins};
use crate::access::policy::{Nearness, Policy, Principal};
use crate::access::proxies::TrustedProxies;
use crate::catalogue;
use crate::catalogue::pins::Pins;
use crate::catalogue::refresher::{Configure, Refresher};
use crate::catalogue::store::Store;
use crate::config::{ApiKey, Changes, Config, Listen, Naming, UpstreamConfig};
use crate::downstream::event_stream::Streams;
use crate::downstream::parked::{Bounds, ParkedCalls};
use crate::downstream::{AdminListener, Admission, Front, UsedStates};
use crate::http::{self, Running, Server};
use crate::limits::{
    ADMIN_CONNECTIONS_MAX, CATALOGUE_INBOX_CHANGES_MAX, ENDED_SESSIONS_QUEUE_MAX,
    LIST_WAITERS_DIVISOR, Limits,
};
use crate::pipeline::{Owners, Patience, Pipeline, ToSessions, Told};
use crate::protocol::call::Kind;
use crate::protocol::jsonrpc::notification;
use crate::protocol::revision::Era;
use crate::protocol::sealed::Sealer;
use crate::protocol::server_name::ServerName;
use crate::protocol::view::ViewId;
use crate::reload::{self, Reloading, Source};
use crate::session::{
    self, Audience, Ended, EventLogBounds, EventLogs, Sessions, SessionsConfig,
};
use crate::state::{self, StateDir, Writer};
use crate::telemetry;
use crate::telemetry::log::LogControl;
use crate::telemetry::otlp::{self, Exporting};
use crate::thread::{self, StopReason};
use crate::tidy;
use crate::upstream::{Collector, Report, Upstreams};

/// How long the catalogue's thread may take to take a configuration over.
const CONFIGURE_TIMEOUT: Duration = Duration::from_secs(10);
/// Reasons to stop that may wait; one is enough.
const STOP_REASONS_MAX: usize = 8;
/// How often a drain looks whether it must end at once.
const DRAIN_TICK: Duration = Duration::from_millis(50);
/// How long what was interrupted at the end of the drain may take to answer.
const INTERRUPTED_TIMEOUT: Duration = Duration::from_secs(1);

/// The running program. Fields are in shutdown order: Rust drops them top to bottom.
#[derive(Debug)]
pub struct Gateway {
    /// 1. Accept no more; the connections end. Their handler holds clones of what follows.
    running: Arc<Running>,
    /// What tells operators of it: the admin listener, whose handler holds the same, and spans.
    _telling: (Option<Running>, Option<Exporting>),
    front: Arc<Front>,
    /// 2. End what the upstreams hold: sessions, children, threads. That ends the events too.
    upstreams: Arc<Upstreams>,
    /// 3. The catalogue's thread has nobody left to listen to.
    _catalogue: thread::Joined,
    /// 4. The stream thread, once nobody can open a stream.
    streams: Streams,
    _streams_thread: thread::Joined,
    /// 5. The last handle of the session thread, and the thread.
    sessions: Sessions,
    _session_thread: thread::Joined,
    /// 6. What removes the traces of ended sessions, once none can end any more.
    _tidying: thread::Joined,
    /// 7. What writes, once nobody has anything to be written.
    _writing: Option<thread::Joined>,
    drain: Duration,
    stopped: Receiver<StopReason>,
    configure: Sender<Configure>,
}

impl Gateway {
    /// Starts everything; when this returns, the gateway serves. The session thread is there
    /// before anything can reach it.
    ///
    /// # Errors
    /// The address or `state_dir` is taken, or the system refuses threads or descriptors.
    pub fn start(
        config: Config,
        stop: Sender<StopReason>,
        stopped: Receiver<StopReason>,
    ) -> io::Result<Gateway> {
        let limits = Arc::new(config.limits.clone());
        // Locals are dropped last to first: the thread that writes ends with the last who could
        // have something written, so it is waited for after all of them, also on an error.
        let (writing, state) = open_state(&config)?.unzip();
        let server = Server::bind(&listen(&config.listen, &config), limits.clone())?;
        let key = session_key(&config, state.as_ref())?;
        let (left, ended) = bounded(ENDED_SESSIONS_QUEUE_MAX);
        let (sessions, session_thread) =
            start_sessions(&config, key, left, state.as_ref(), &stop)?;
        let (streams, streams_thread) = Streams::start(limits.clone(), stop.clone())?;
        let shared =
            catalogue::Shared::new(limits.connections / LIST_WAITERS_DIVISOR, server.budget());
        let (reports, changes) = bounded(CATALOGUE_INBOX_CHANGES_MAX);
        let (configure, wanted) = bounded(1);
        let kept = state.map(|state| kept(state, &key));
        let refresher = refresher(&config, shared.clone(), sessions.clone(), kept);
        let catalogue = start_catalogue(refresher, changes, wanted, &stop)?;
        let owners = Owners::default();
        let unasked = Arc::new(ToSessions::new(sessions.clone(), owners.clone()));
        let upstreams = Arc::new(Upstreams::start(
            &config.upstreams,
            limits.clone(),
            server.budget(),
            reports,
            unasked.clone(),
            known_eras(&shared),
        )?);
        unasked.know(&upstreams);
        let address = server.local_addr_text();
        let pipeline =
            Arc::new(pipeline(&config, shared, upstreams.clone(), owners, sessions.clone()));
        let tidying = tidy::start(ended, pipeline.clone())?;
        let parked = parked_calls(&limits)?;
        let front = Arc::new(Front {
            admission: RwLock::new(Arc::new(admission(&config))),
            anonymous: Arc::new(Principal::without_key(Nearness::Remote)),
            operator: Arc::new(Principal::without_key(Nearness::Local)),
            pipeline: pipeline.clone(),
            cursors: Sealer::new(&key, "cursor"),
            states: Sealer::new(&key, "request-state"),
            used_states: UsedStates::new(parked.boot()),
            parked,
            sessions: sessions.clone(),
            streams: streams.clone(),
            event_logs: event_logs(&limits),
            limits: limits.clone(),
            buffered: server.budget(),
            started: Instant::now(),
            stopping: AtomicBool::new(false),
            engine: OnceLock::new(),
        });
        let telling = (admin_listener(&config, &front, &stop)?, export(&config)?);
        let running = Arc::new(server.start(front.clone(), stop)?);
        // Weak, because the engine holds its handler.
        front.engine.get_or_init(|| Arc::downgrade(&running));
        let scheme = if address.starts_with("unix:") { "" } else { "http://" };
        log::info!("listening on {scheme}{address}");
        Ok(Gateway {
            running,
            _telling: telling,
            front,
            upstreams,
            _catalogue: catalogue,
            streams,
            _streams_thread: streams_thread,
            sessions,
            _session_thread: session_thread,
            _tidying: tidying,
            _writing: writing,
            drain: limits.drain,
            stopped,
            configure,
        })
    }

    /// What a reload changes.
    pub fn parts(&self) -> Parts {
        Parts {
            front: self.front.clone(),
            upstreams: self.upstreams.clone(),
            configure: self.configure.clone(),
        }
    }

    /// Waits for a reason to stop.
    pub fn wait(&self) -> StopReason {
        self.stopped.recv().unwrap_or(StopReason::Signal)
    }

    /// Stops in order: readiness off, no new work, calls in flight finish or are cut off at
    /// the deadline, streams end properly, then everything that is dropped with the gateway.
    /// A second signal cuts every wait short.
    pub fn stop(self, reloading: Reloading) {
        let hurry = self.upstreams.hurry();
        let second = SecondSignal::watch(self.stopped.clone(), hurry.clone());
        if let Err(error) = &second {
            log::warn!("a second signal will not be heard: {error}");
        }
        self.front.stopping.store(true, Ordering::Relaxed);
        reloading.end();
        self.front.pipeline.end_waits();
        let deadline = Instant::now() + self.drain;
        while !self.running.drain(deadline.min(Instant::now() + DRAIN_TICK)) {
            if hurry.load(Ordering::Relaxed) {
                break;
            }
            if Instant::now() >= deadline {
                log::warn!("limits.drain_ms is over: what is left is cut off");
                break;
            }
        }
        self.upstreams.interrupt();
        self.front.parked.stop();
        let patience = || {
            if hurry.load(Ordering::Relaxed) { Duration::ZERO } else { INTERRUPTED_TIMEOUT }
        };
        self.running.drain(Instant::now() + patience());
        // Answers that go out on streams are queued by now.
        self.sessions.end_listening();
        // It has been done when the next word is answered.
        self.sessions.is_alive();
        self.streams.close_all(None, Instant::now() + patience());
        // By word, and not by letting handles go: a handler that will not end holds some.
        self.upstreams.stop();
        self.sessions.stop();
        drop(self);
        drop(second);
    }
}

/// What a reload changes.
#[derive(Debug)]
pub struct Parts {
    front: Arc<Front>,
    upstreams: Arc<Upstreams>,
    configure: Sender<Configure>,
}

impl Parts {
    /// Goes over from one configuration to the one that follows it. Nothing waits for an
    /// upstream.
    ///
    /// # Errors
    /// The system refuses a thread or a descriptor, or the program ends meanwhile; the text says
    /// which. A part of it may have been taken over before that.
    pub fn configure(
        &self,
        old: &Config,
        new: &Config,
        changes: Changes,
    ) -> Result<(), String> {
        // What is narrowed is so before there is more to see.
        let readmitted = self.front.readmit(admission(new), |key| changes.ends(key));
        let pipeline = &self.front.pipeline;
        pipeline.configure(quotas(new), told(new));
        // Before the next snapshot shows them, so that whatever that shows can be called.
        self.upstreams.configure(&new.upstreams).map_err(|error| error.to_string())?;
        let (done, shown) = bounded(1);
        let wanted =
            Configure { naming: new.naming.clone(), upstreams: new.upstreams.clone(), done };
        self.configure
            .send_timeout(wanted, CONFIGURE_TIMEOUT)
            .map_err(|_| "the catalogue's thread takes no more")?;
        shown
            .recv_timeout(CONFIGURE_TIMEOUT)
            .map_err(|_| "the catalogue's thread gives no answer")?;
        for server in &old.upstreams {
            let is_there = |it: &&Arc<UpstreamConfig>| {
                it.name == server.name && it.target.is_same_server(&server.target)
            };
            if !new.upstreams.iter().any(|it| is_there(&it)) {
                pipeline.forget_tasks(&server.name);
            }
        }
        self.front
            .rescope(readmitted, move |key| changes.ends(key))
            .map_err(|error| error.to_string())
    }
}

/// Listens for a second signal while the gateway stops.
struct SecondSignal {
    /// Dropped first, which ends the thread.
    _stopped: Sender<()>,
    _joined: thread::Joined,
}

impl SecondSignal {
    fn watch(
        reasons: Receiver<StopReason>,
        hurry: Arc<AtomicBool>,
    ) -> io::Result<SecondSignal> {
        let (stopped, end) = bounded(1);
        let joined = thread::spawn("second-signal", move || {
            loop {
                crossbeam_channel::select! {
                    recv(reasons) -> reason => match reason {
                        Ok(StopReason::Signal) => hurry.store(true, Ordering::Relaxed),
                        Ok(StopReason::OwnerEnded(_)) => (),
                        Err(_) => return,
                    },
                    recv(end) -> _ => return,
                }
            }
        })?;
        Ok(SecondSignal { _stopped: stopped, _joined: joined })
    }
}

fn listen(at: &Listen, config: &Config) -> http::Listen {
    match at {
        Listen::Tcp(address) => http::Listen::Tcp(*address),
        Listen::Unix(path) => {
            http::Listen::Unix { path: path.clone(), mode: config.socket_mode }
        }
    }
}

/// `admin_listen`, if it is configured.
fn admin_listener(
    config: &Config,
    front: &Arc<Front>,
    stop: &Sender<StopReason>,
) -> io::Result<Option<Running>> {
    let Some(at) = &config.admin_listen else { return Ok(None) };
    let limits = Limits { connections: ADMIN_CONNECTIONS_MAX, ..config.limits.clone() };
    let server = Server::bind(&listen(at, config), Arc::new(limits))?;
    log::info!("metrics and status at {}", server.local_addr_text());
    let handler = AdminListener::new(front.clone(), at.is_local());
    server.start(Arc::new(handler), stop.clone()).map(Some)
}

/// Spans go to a collector from here on.
fn export(config: &Config) -> io::Result<Option<Exporting>> {
    let Some(config) = &config.otlp else { return Ok(None) };
    let (sampling, service) = (config.sampling, config.service.as_str().into());
    otlp::start(Box::new(Collector::new(config.clone())), sampling, service).map(Some)
}

/// What outlives the process.
#[derive(Debug)]
struct State {
    directory: Arc<StateDir>,
    writer: Writer,
}

fn open_state(config: &Config) -> io::Result<Option<(thread::Joined, State)>> {
    let Some(path) = &config.state_dir else { return Ok(None) };
    let directory = Arc::new(StateDir::open(path)?);
    let (writer, joined) = state::start(directory.clone())?;
    Ok(Some((joined, State { directory, writer })))
}

/// What of the catalogue outlives the process.
fn kept(state: State, key: &[u8; 32]) -> (Store, Pins) {
    let State { directory, writer } = state;
    let pins = Pins::load(directory.clone(), writer.clone());
    (Store::new(directory, writer, key), pins)
}

/// The key that session ids and cursors are made with.
fn session_key(config: &Config, state: Option<&State>) -> io::Result<[u8; 32]> {
    if let Some(key) = config.session_key {
        return Ok(key);
    }
    if let Some(state) = state {
        return state.directory.session_key();
    }
    let mut key = [0; 32];
    SystemRandom::new()
        .fill(&mut key)
        .map_err(|_| io::Error::other("the system gives no randomness"))?;
    Ok(key)
}

fn start_sessions(
    config: &Config,
    key: [u8; 32],
    left: Sender<Ended>,
    state: Option<&State>,
    stop: &Sender<StopReason>,
) -> io::Result<(Sessions, thread::Joined)> {
    let sessions = SessionsConfig {
        key,
        sessions: config.limits.sessions,
        sessions_per_key: config.limits.sessions_per_key,
        idle: config.limits.session_idle,
        parked: config.limits.parked,
        left,
        ended: state.map(|state| state.directory.ids()).unwrap_or_default(),
        writer: state.map(|state| state.writer.clone()),
    };
    session::start(sessions, stop.clone())
}

fn parked_calls(limits: &Limits) -> io::Result<ParkedCalls> {
    let bounds = Bounds {
        calls: limits.parked_calls,
        calls_per_key: limits.parked_calls_per_key,
        life: limits.parked,
    };
    let mut boot = [0; 8];
    SystemRandom::new()
        .fill(&mut boot)
        .map_err(|_| io::Error::other("the system gives no randomness"))?;
    Ok(ParkedCalls::new(bounds, u64::from_ne_bytes(boot)))
}

fn event_logs(limits: &Limits) -> EventLogs {
    let bounds =
        EventLogBounds { events: limits.event_log_events, bytes: limits.event_log_bytes };
    EventLogs::new(bounds)
}

fn refresher(
    config: &Config,
    shared: catalogue::Shared,
    sessions: Sessions,
    kept: Option<(Store, Pins)>,
) -> Refresher {
    let some = sessions.clone();
    let tell = move |server: &ServerName, kind: Kind| {
        let message = notification(kind.changed(), None);
        if sessions.notify(Audience::Hearing(server.clone()), message).is_err() {
            log::warn!(target: "catalogue", "a change of the list could not be told to sessions");
        }
    };
    let tell_view = move |server: &ServerName, kind: Kind, view: ViewId| {
        let message = notification(kind.changed(), None);
        if some.notify(Audience::Seeing(server.clone(), view), message).is_err() {
            log::warn!(target: "catalogue", "a change of the list could not be told to sessions");
        }
    };
    let (store, pins) = kept.unzip();
    let naming = config.naming.clone();
    Refresher::new(naming, &config.upstreams, shared, Box::new(tell), store, pins)
        .with_views(config.limits.views, Box::new(tell_view))
}

fn start_catalogue(
    refresher: Refresher,
    changes: Receiver<Report>,
    wanted: Receiver<Configure>,
    stop: &Sender<StopReason>,
) -> io::Result<thread::Joined> {
    let panicked = stop.clone();
    thread::spawn("catalogue", move || {
        // Its end is ordinary when the upstreams have gone, and the process's when it panics.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            refresher.run(&changes, &wanted)
        }));
        if result.is_err() {
            panicked.try_send(StopReason::OwnerEnded("catalogue")).ok();
        }
    })
}

/// Which era each upstream spoke when its lists were stored: a child is not asked again.
fn known_eras(shared: &catalogue::Shared) -> BTreeMap<ServerName, Era> {
    let servers = &shared.current().servers;
    let era = |server: &catalogue::Server| Some(server.initialized.as_ref()?.revision.era());
    servers.iter().filter_map(|(name, server)| Some((name.clone(), era(server)?))).collect()
}

fn pipeline(
    config: &Config,
    shared: catalogue::Shared,
    upstreams: Arc<Upstreams>,
    owners: Owners,
    sessions: Sessions,
) -> Pipeline {
    let patience =
        Patience { first_list: config.first_list, heartbeat: config.limits.heartbeat };
    Pipeline::new(shared, upstreams, quotas(config), owners, sessions, told(config), patience)
}

fn quotas(config: &Config) -> impl Iterator<Item = (Arc<str>, u32)> {
    let keys = config.api_keys.iter();
    keys.filter_map(|key| Some((Arc::from(key.name.as_str()), key.calls_per_minute?)))
}

fn told(config: &Config) -> Told {
    telemetry::access::tell_calls(config.log.access);
    Told { bodies: config.log.bodies }
}

fn admission(config: &Config) -> Admission {
    Admission {
        origins: origins(config),
        proxies: TrustedProxies::new(config.trusted_proxies.clone()),
        keys: config.api_keys.iter().map(|key| known_key(key, &config.naming)).collect(),
        transports: config.transports,
        tolerance: config.tolerance,
        generation: 0,
    }
}

fn known_key(key: &ApiKey, naming: &Naming) -> KnownKey {
    let policy = Policy {
        servers: key.servers.clone(),
        tools: ToolGlobs::new(key.tools.as_deref().unwrap_or_default(), &naming.owners),
    };
    let name = Some(key.name.as_str().into());
    let principal = Principal { name, policy, is_admin: key.admin };
    KnownKey { sha256: key.sha256, principal: Arc::new(principal) }
}

fn origins(config: &Config) -> Origins {
    let mut hosts = config.allowed_hosts.clone().unwrap_or_default();
    let is_told = config.allowed_hosts.is_some();
    let check_host = match &config.listen {
        Listen::Tcp(address) => {
            if !address.ip().is_unspecified() {
                hosts.push(address.to_string());
            }
            // A page of a name that was bound to this address has no key: the check is against
            // what reads and calls without one.
            let is_anonymous = config.allow_anonymous && config.api_keys.is_empty();
            match (config.listen.is_local(), is_anonymous) {
                (true, _) => HostCheck::Names,
                (false, true) => HostCheck::NamesOrAddresses,
                (false, false) if is_told => HostCheck::Names,
                (false, false) => HostCheck::Off,
            }
        }
        // No page reaches it.
        Listen::Unix(_) if is_told => HostCheck::Names,
        Listen::Unix(_) => HostCheck::Off,
    };
    Origins { check_host, hosts, origins: config.allowed_origins.clone() }
}

/// Serves until there is a reason to stop, then stops in order.
///
/// # Errors
/// The gateway cannot be started.
pub fn run(config: Config, source: Source, log: LogControl) -> io::Result<StopReason> {
    let (stop, stopped) = bounded(STOP_REASONS_MAX);
    // One wish that waits is enough: what is read then is what there is then.
    let (wish, wishes) = bounded(1);
    let _signals = thread::watch_signals(stop.clone(), Some(wish))?;
    let gateway = Gateway::start(config.clone(), stop.clone(), stopped)?;
    let reloading = reload::start(source, config, gateway.parts(), log, wishes, stop)?;
    let reason = gateway.wait();
    match reason {
        StopReason::Signal => log::info!("stopping"),
        StopReason::OwnerEnded(name) => log::error!("the thread {name} has ended; stopping"),
    }
    gateway.stop(reloading);
    Ok(reason)
}
