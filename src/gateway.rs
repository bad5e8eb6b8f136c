//! Starts the parts of the gateway, and stops them in order.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use ring::rand::{SecureRandom, SystemRandom};

use crate::access::policy::{Nearness, Principal};
use crate::catalogue;
use crate::catalogue::pins::{Pins, Review};
use crate::catalogue::refresher::{Configure, Refresher};
use crate::catalogue::store::Store;
use crate::config::Config;
use crate::downstream::event_stream::Streams;
use crate::downstream::stateless::parked_calls::{Bounds, ParkedCalls};
use crate::downstream::stdio::LineClient;
use crate::downstream::{Front, Tokens, UsedStates};
use crate::handover::{self, Estate, Inheritance, NotFollowed};
use crate::http::Running;
use crate::limits::{CATALOGUE_INBOX_CHANGES_MAX, LEAVE_TICK, LIST_WAITERS_DIVISOR, Limits};
use crate::listening::{Bound, Clients, Serving, admission, bind};
use crate::pipeline::{AccessLog, Owners, Pipeline, ToServers, ToSessions};
use crate::protocol::call::Kind;
use crate::protocol::jsonrpc::notification;
use crate::protocol::revision::Era;
use crate::protocol::sealed::Sealer;
use crate::protocol::server_name::ServerName;
use crate::protocol::view::ViewId;
use crate::reload::{Parts, Reloading, end_sign_ins_without_key};
use crate::resource_server::{FetchOf, ResourceServer};
use crate::session::{self, Audience, EventLogBounds, EventLogs, Sessions, SessionsConfig};
use crate::state::{self, StateDir, Writer};
use crate::sync::RwLock;
use crate::telemetry::otlp::{self, Exporting};
use crate::thread::{self, StopReason};
use crate::upstream::authorization::{Authorizations, Setup};
use crate::upstream::{Collector, Report, Upstreams};

/// The time between two checks that a drain must end at once.
const DRAIN_TICK: Duration = Duration::from_millis(50);
/// The time for interrupted calls to answer at the end of the drain.
const INTERRUPTED_TIMEOUT: Duration = Duration::from_secs(1);

/// The running program. Fields are in shutdown order: Rust drops them top to bottom.
#[derive(Debug)]
pub struct Gateway {
    /// 1. Accepts no more; the connections end. Their handler holds clones of the fields below.
    serving: Serving,
    /// For operators: the admin listener, whose handler holds the same clones, and the export of
    /// spans.
    telling: (Option<Running>, Option<Exporting>),
    front: Arc<Front>,
    /// 2. The upstreams end their sessions, children and threads. That ends their events too.
    upstreams: Arc<Upstreams>,
    /// 3. The catalogue's thread, whose events have ended.
    _catalogue: thread::Joined,
    /// The keys of issuers, and their thread, which writes to the disk too.
    resource_server: Arc<ResourceServer>,
    /// 4. The stream thread, once no stream can be opened.
    streams: Streams,
    _streams_thread: thread::Joined,
    /// 5. The last handle of the session thread, and the thread.
    sessions: Sessions,
    _session_thread: thread::Joined,
    /// 6. The thread that writes to the disk, once no other thread has anything to write.
    _writing: Option<thread::Joined>,
    drain: Duration,
    /// The parts for a process that replaces this one; the lock of the state directory is one of
    /// them.
    estate: (Estate, Option<Arc<StateDir>>),
    stopped: Receiver<StopReason>,
    configure: Sender<Configure>,
}

impl Gateway {
    /// Starts all parts; when this returns, the gateway serves. The session thread runs before
    /// any request can reach it.
    ///
    /// # Errors
    /// The address or `state_dir` is taken, or the system refuses threads or descriptors.
    pub fn start(
        config: Config,
        clients: Clients,
        inherited: Inheritance,
        stop: Sender<StopReason>,
        stopped: Receiver<StopReason>,
    ) -> io::Result<Gateway> {
        let limits = Arc::new(config.limits.clone());
        // Locals are dropped last to first: the writing thread ends with the last holder of its
        // handle, so it is waited for after all of them, also on an error.
        let (writing, state) = open_state(&config, clients, inherited.lock)?.unzip();
        let bound = bind(&config, clients, inherited.listener, inherited.admin_listener)?;
        let key = session_key(&config, state.as_ref(), inherited.session_key)?;
        let estate = estate(&config, &bound, state.as_ref(), key)?;
        let to_servers = Arc::new(ToServers::default());
        let (sessions, session_thread) =
            start_sessions(&config, key, to_servers.clone(), state.as_ref(), &stop)?;
        let (streams, streams_thread) = Streams::start(limits.clone(), stop.clone())?;
        let shared = shared_catalogue(&limits, &bound);
        let (reports, changes) = bounded(CATALOGUE_INBOX_CHANGES_MAX);
        let (configure, wanted) = bounded(1);
        let keys_kept = keys_kept(state.as_ref(), clients);
        let kept = state.map(|state| kept(state, &key, clients)).unzip();
        let refresher = refresher(&config, shared.clone(), sessions.clone(), kept);
        let catalogue = start_catalogue(refresher, changes, wanted, &stop)?;
        let owners = Owners::default();
        let unasked = Arc::new(ToSessions::new(sessions.clone(), owners.clone()));
        let (upstreams, fetch_of) =
            start_upstreams(&config, &bound, reports, unasked.clone(), known_eras(&shared))?;
        unasked.know(&upstreams);
        let pipeline =
            Arc::new(pipeline(&config, shared, upstreams.clone(), owners, sessions.clone()));
        to_servers.know(&pipeline);
        let parked = parked_calls(&limits)?;
        let resource_server = Arc::new(resource_server(&limits, fetch_of, keys_kept));
        let front = Arc::new(Front {
            resource_server: resource_server.clone(),
            tokens: Arc::new(Tokens::default()),
            admission: RwLock::new(Arc::new(admission(&config, &resource_server)?)),
            anonymous: Arc::new(Principal::without_key(Nearness::Remote)),
            operator: Arc::new(Principal::without_key(Nearness::Local)),
            pipeline: pipeline.clone(),
            cursors: Sealer::new(&key, "cursor"),
            states: Sealer::new(&key, "request-state"),
            used_states: UsedStates::new(parked.boot()),
            parked,
            sessions: sessions.clone(),
            streams: streams.clone(),
            watchers: Arc::default(),
            event_logs: event_logs(&limits),
            limits: limits.clone(),
            buffered: bound.budget.clone(),
            review: Review::of(config.state_dir.as_deref()),
            started: Instant::now(),
            stopping: AtomicBool::new(false),
            engine: OnceLock::new(),
            reload: OnceLock::new(),
        });
        front.tokens.set(front.admission.read().verifier.clone());
        end_sign_ins_without_key(&config, clients, &upstreams);
        let exporting = export(&config, clients)?;
        let (serving, admin) = bound.serve(&config, clients, &front, stop)?;
        Ok(Gateway {
            serving,
            telling: (admin, exporting),
            front,
            upstreams,
            _catalogue: catalogue,
            streams,
            _streams_thread: streams_thread,
            sessions,
            _session_thread: session_thread,
            _writing: writing,
            drain: limits.drain,
            estate,
            stopped,
            configure,
            resource_server,
        })
    }

    /// The parts that a reload changes.
    pub fn parts(&self) -> Parts {
        Parts {
            clients: self.serving.clients(),
            front: self.front.clone(),
            upstreams: self.upstreams.clone(),
            resource_server: self.resource_server.clone(),
            configure: self.configure.clone(),
        }
    }

    /// The client whose lines are given to it, where clients do not come over HTTP.
    pub fn line_client(&self) -> Option<&Arc<LineClient>> {
        match &self.serving {
            Serving::Lines(client) => Some(client),
            Serving::Http(_) => None,
        }
    }

    /// Waits for a reason to stop.
    pub fn wait(&self) -> StopReason {
        self.stopped.recv().unwrap_or(StopReason::Signal)
    }

    /// Starts the program anew to replace this process: the new process serves the same address
    /// with the same sessions. Then all calls and streams here are served to their end, and no
    /// new ones come.
    ///
    /// # Errors
    /// The reason why nothing has changed.
    pub fn be_followed(&mut self) -> Result<(), NotFollowed> {
        handover::start(&self.estate.0, || match self.stopped.try_recv() {
            Ok(StopReason::Upgrade) => {
                log::info!("SIGUSR2: another process is being started already");
                None
            }
            Ok(
                reason @ (StopReason::Signal
                | StopReason::InputEnded
                | StopReason::OwnerEnded(_)),
            ) => Some(reason),
            Err(_) => None,
        })?;
        self.give_up();
        self.leave();
        Ok(())
    }

    /// Returns a check that this process can do its work.
    pub fn is_well(&self) -> impl Fn() -> bool + Send + use<> {
        let sessions = self.sessions.clone();
        move || sessions.is_alive()
    }

    /// Notes that the addresses of another process are this one's: it removes the files of its
    /// Unix sockets at the end.
    pub fn takes_over(&self) {
        let listeners = [&self.estate.0.listener, &self.estate.0.admin_listener];
        listeners.into_iter().flatten().for_each(|it| it.taken_over());
    }

    /// Gives up the parts that belong to the new process: when that one ends, its address is not
    /// held by this one, which accepts no connections, and another gateway can have `state_dir`.
    fn give_up(&mut self) {
        (self.estate.0.listener, self.estate.0.admin_listener) = (None, None);
        self.estate.0.lock = None;
        if let Some(state_dir) = &self.estate.1 {
            state_dir.give_lock_up();
        }
    }

    /// Serves the present connections and streams until none is left, or there is a reason to
    /// stop.
    fn leave(&self) {
        self.serving.leave();
        if let Some(admin) = &self.telling.0 {
            admin.leave();
        }
        self.sessions.end_listening();
        let deadline = Instant::now() + self.estate.0.leave;
        while Instant::now() < deadline {
            self.sessions.close_idle_streams();
            if self.serving.wait_empty(Instant::now() + LEAVE_TICK) {
                return;
            }
            match self.stopped.try_recv() {
                Ok(StopReason::Signal | StopReason::InputEnded) => return,
                // The accepting thread has done its work.
                Ok(StopReason::OwnerEnded("accept") | StopReason::Upgrade) | Err(_) => (),
                Ok(StopReason::OwnerEnded(_)) => return,
            }
        }
    }

    /// Stops in order: readiness off, no new work, calls in flight finish or are cut off at
    /// the deadline, streams end properly, then everything that is dropped with the gateway.
    /// A second signal cuts every wait short.
    pub fn stop(mut self, reloading: Option<Reloading>) {
        // While the socket is held, connections that no process accepts would wait instead of
        // being refused.
        (self.estate.0.listener, self.estate.0.admin_listener) = (None, None);
        let hurry = self.upstreams.hurry();
        let second = SecondSignal::watch(self.stopped.clone(), hurry.clone());
        if let Err(error) = &second {
            log::warn!("a second signal will not be heard: {error}");
        }
        self.front.stopping.store(true, Ordering::Relaxed);
        // A watcher opens its stream anew at the new process, if there is one.
        self.front.watchers.end_before(u64::MAX);
        if let Some(reloading) = reloading {
            reloading.end();
        }
        self.front.pipeline.end_waits();
        self.resource_server.stop();
        let deadline = Instant::now() + self.drain;
        while !self.serving.drain(deadline.min(Instant::now() + DRAIN_TICK)) {
            if hurry.load(Ordering::Relaxed) {
                break;
            }
            if Instant::now() >= deadline {
                log::warn!("limits.drain_ms is over: what is left is cut off");
                break;
            }
        }
        self.upstreams.interrupt();
        self.sessions.interrupt_calls();
        self.front.parked.stop();
        let patience = || {
            if hurry.load(Ordering::Relaxed) { Duration::ZERO } else { INTERRUPTED_TIMEOUT }
        };
        self.serving.drain(Instant::now() + patience());
        // Answers that go out on streams are queued by now.
        self.sessions.end_listening();
        // The reply to this command shows that the one before is done.
        self.sessions.is_alive();
        self.streams.close_all(None, Instant::now() + patience());
        // The threads are told to stop: dropping handles would not do, because a handler that
        // does not end holds some.
        self.upstreams.stop();
        self.sessions.stop();
        drop(self);
        drop(second);
    }
}

/// Where the keys of issuers are kept, if they are.
type KeysKept = Option<(Arc<StateDir>, Writer)>;

fn keys_kept(state: Option<&State>, clients: Clients) -> KeysKept {
    // One client of lines brings no token.
    let state = state.filter(|_| clients == Clients::OverHttp);
    state.map(|it| (it.directory.clone(), it.writer.clone()))
}

fn resource_server(
    limits: &Limits,
    fetch_of: Arc<FetchOf>,
    keys_kept: KeysKept,
) -> ResourceServer {
    let resource_server = ResourceServer::new(fetch_of).with_connections(limits.connections);
    match keys_kept {
        Some((directory, writer)) => resource_server.with_kept_keys(directory, writer),
        None => resource_server,
    }
}

/// Starts the servers, and gives the HTTP by which keys of issuers are had.
fn start_upstreams(
    config: &Config,
    bound: &Bound,
    reports: Sender<Report>,
    unasked: Arc<ToSessions>,
    eras: BTreeMap<ServerName, Era>,
) -> io::Result<(Arc<Upstreams>, Arc<FetchOf>)> {
    let authorizations = Authorizations::start(authorization_setup(config, bound))?;
    let issuers = authorizations.clone();
    let fetch_of: Arc<FetchOf> =
        Arc::new(move |issuer| issuers.fetch_from_issuer(issuer.ca_file.as_deref()));
    let upstreams = Upstreams::start(
        &config.upstreams,
        Arc::new(config.limits.clone()),
        bound.budget.clone(),
        reports,
        unasked,
        eras,
        authorizations,
    )?;
    Ok((Arc::new(upstreams), fetch_of))
}

/// Listens for a second signal while the gateway stops.
struct SecondSignal {
    /// This field is dropped first, which ends the thread.
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
                        Ok(
                            StopReason::InputEnded
                            | StopReason::Upgrade
                            | StopReason::OwnerEnded(_),
                        ) => (),
                        Err(_) => return,
                    },
                    recv(end) -> _ => return,
                }
            }
        })?;
        Ok(SecondSignal { _stopped: stopped, _joined: joined })
    }
}

/// The part of the catalogue that its thread shares with calls.
fn shared_catalogue(limits: &Limits, bound: &Bound) -> catalogue::Shared {
    let max_waiting = limits.connections / LIST_WAITERS_DIVISOR;
    catalogue::Shared::new(max_waiting, bound.budget.clone())
}

/// Starts the export of spans to a collector.
fn export(config: &Config, clients: Clients) -> io::Result<Option<Exporting>> {
    let config = match clients {
        Clients::OverHttp | Clients::OneOfLines => config.otlp.as_ref(),
        Clients::OneOfFewLines => None,
    };
    let Some(config) = config else { return Ok(None) };
    let (sampling, service) = (config.sampling, config.service.as_str().into());
    otlp::start(Box::new(Collector::new(config.clone())), sampling, service).map(Some)
}

/// The state directory, and the handle of its writing thread.
#[derive(Debug)]
struct State {
    directory: Arc<StateDir>,
    writer: Writer,
}

/// The parts for a process that replaces this one.
fn estate(
    config: &Config,
    bound: &Bound,
    state: Option<&State>,
    session_key: [u8; 32],
) -> io::Result<(Estate, Option<Arc<StateDir>>)> {
    let longest = config.upstreams.iter().map(|it| it.timeout_max).max();
    let estate = Estate {
        listener: bound.pass_on()?,
        admin_listener: bound.pass_admin_on()?,
        lock: state.map(|state| state.directory.lock()).transpose()?.flatten(),
        session_key,
        // A connection waits for its last request, and that request for its answer.
        leave: config.limits.idle + longest.unwrap_or_default(),
    };
    Ok((estate, state.map(|state| state.directory.clone())))
}

fn open_state(
    config: &Config,
    clients: Clients,
    lock: Option<OwnedFd>,
) -> io::Result<Option<(thread::Joined, State)>> {
    let Some(path) = &config.state_dir else { return Ok(None) };
    let directory = Arc::new(match clients {
        Clients::OverHttp => StateDir::open_after(path, lock)?,
        Clients::OneOfLines => StateDir::open_or_read(path)?,
        Clients::OneOfFewLines => StateDir::read_only(path),
    });
    let (writer, joined) = state::start(directory.clone())?;
    Ok(Some((joined, State { directory, writer })))
}

/// The stored lists and the pins of the catalogue.
fn kept(state: State, key: &[u8; 32], clients: Clients) -> (Option<Store>, Pins) {
    let State { directory, writer } = state;
    let pins = Pins::load(directory.clone(), writer.clone());
    let store = match clients {
        Clients::OverHttp | Clients::OneOfLines => Some(Store::new(directory, writer, key)),
        // Such a command asks for the present lists.
        Clients::OneOfFewLines => None,
    };
    (store, pins)
}

/// How people come back from sign-ins at servers.
fn authorization_setup(config: &Config, bound: &Bound) -> Setup {
    Setup::of(config, bound.address().as_deref(), std::env::var("BROWSER").ok())
}

/// The key with which session ids and cursors are made.
fn session_key(
    config: &Config,
    state: Option<&State>,
    left: Option<[u8; 32]>,
) -> io::Result<[u8; 32]> {
    if let Some(key) = config.session_key {
        return Ok(key);
    }
    if let Some(state) = state {
        return state.directory.session_key();
    }
    if let Some(key) = left {
        return Ok(key);
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
    events: Arc<ToServers>,
    state: Option<&State>,
    stop: &Sender<StopReason>,
) -> io::Result<(Sessions, thread::Joined)> {
    let sessions = SessionsConfig {
        key,
        sessions: config.limits.sessions,
        sessions_per_key: config.limits.sessions_per_key,
        idle: config.limits.session_idle,
        parked: config.limits.parked,
        events,
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
    (store, pins): (Option<Option<Store>>, Option<Pins>),
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
    let naming = config.naming.clone();
    Refresher::new(naming, &config.upstreams, shared, Box::new(tell), store.flatten(), pins)
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
        // The thread's end is ordinary when the upstreams have gone; after a panic the process
        // ends too.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            refresher.run(&changes, &wanted)
        }));
        if result.is_err() {
            panicked.try_send(StopReason::OwnerEnded("catalogue")).ok();
        }
    })
}

/// The era of each upstream when its lists were stored: a child is not asked again.
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
    let told = AccessLog::of(config.log);
    Pipeline::new(shared, upstreams, config.quotas(), owners, sessions, told, config.first_list)
}
