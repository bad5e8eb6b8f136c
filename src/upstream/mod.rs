//! Faces MCP servers: the only folder that names ureq and `std::process`.
//!
//! A call's thread enters through [`Upstream::request`] and makes the upstream call itself,
//! holding one of that upstream's bounded slots. Everything else that must happen to an
//! upstream (connecting, reading its lists, restarting its child) is done by its supervisor's
//! thread, which tells of it by [`Event`]s.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use std::{fmt, io};

use crossbeam_channel::Sender;
use ureq::unversioned::transport::RustlsConnector;

use crate::config::{SessionSharing, UpstreamConfig};
use crate::error::CallError;
use crate::limits::Limits;
use crate::protocol::call::{CallSink, Client, Kind, Notice, Outcome, Outgoing, Question};
use crate::protocol::jsonrpc;
use crate::protocol::legacy::Initialized;
use crate::protocol::raw::Raw;
use crate::protocol::server_name::ServerName;
use crate::thread::{Joined, spawn};
use crate::wait::{Interrupted, Wait};

use child::StderrRing;
use exchange::Lane;
use health::Vitals;
use link::{Core, Link};
use links::Links;
use lists::Lists;
use members::Members;
use resolve::Names;
use slots::{Budget, Slots};
use standing::Standing;
use supervisor::Supervisor;

mod attendant;
mod auto;
mod child;
mod connection;
mod control;
mod correlation;
mod door;
mod exchange;
mod health;
mod hearing;
mod held;
mod http;
mod http_sse;
mod inbox;
mod link;
mod links;
mod listening;
mod lists;
mod members;
mod pace;
mod pipes;
mod post_stream;
mod resolve;
mod slots;
mod standing;
mod stdio;
mod streamable_http;
mod subscribing;
mod supervisor;
mod transport;
mod unusable;
mod watch;

pub use health::{Failure, State, Status};
pub use subscribing::Subscribing;

/// What a supervisor tells.
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
        /// The lists that were read, each item's object as the upstream wrote it, in its order.
        /// Those that are not here stand as they were.
        lists: Vec<(Kind, Vec<Raw>)>,
        /// Items of all its lists left out at `limits.upstream_tools` or
        /// `limits.upstream_result_bytes`.
        left_out: usize,
        /// Whether the upstream has said that one of them changed, or is told of for the first
        /// time. Else they were read because of a refresh or a new session.
        announced: bool,
    },
    /// The upstream cannot be used at present. What it listed last is still known.
    Failed {
        /// Which one.
        server: ServerName,
        /// Why.
        failure: Failure,
    },
}

/// Who hears what upstreams say outside of calls. Nothing here may wait.
pub trait Unasked: Send + Sync {
    /// A notification, on the session of `client` or on the shared one.
    fn notice(&self, server: &ServerName, client: Option<&Arc<str>>, notice: Notice);
    /// A request on the session of `client`.
    fn ask(&self, server: &ServerName, client: &Arc<str>, question: Question);
}

/// One upstream: what a call's thread enters through.
pub struct Upstream {
    core: Arc<Core>,
    /// Of the shared session.
    link: Arc<dyn Link>,
    members: Arc<Members>,
    standing: Arc<Standing>,
    slots: Slots<Lane>,
    /// Shared by all upstreams.
    budget: Arc<Budget>,
    vitals: Arc<Vitals>,
    stderr: Arc<StderrRing>,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("name", self.name()).finish_non_exhaustive()
    }
}

impl Upstream {
    /// Its key in the configuration.
    pub fn name(&self) -> &ServerName {
        self.core.name()
    }

    /// How it was configured.
    pub fn config(&self) -> &UpstreamConfig {
        &self.core.config
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
        let failed = |trouble: connection::Trouble| {
            self.core.scrubbed(trouble).into_error(self.name(), outgoing.is_safe_to_repeat)
        };
        let _place = self.budget.enter().map_err(failed)?;
        let tick = self.core.limits.heartbeat;
        let mut slot = self.slots.take(wait, tick, &mut || sink.silence()).map_err(failed)?;
        let through = through.filter(|_| self.config().session != SessionSharing::Shared);
        let seat = through
            .map(|client| self.members.enter(client, wait, tick, &mut || sink.silence()));
        let seat = seat.transpose().map_err(failed)?;
        let link = seat.as_ref().map_or(&*self.link, |seat| seat.link());
        let began = Instant::now();
        let outcome = link.request(slot.get(), outgoing, wait, sink);
        drop((seat, slot));
        if outcome.is_ok() {
            self.vitals.lock().latency = Some(began.elapsed());
        }
        outcome.map_err(|trouble| match (&trouble.kind, wait.interrupted()) {
            // Not the gateway ends, but the client's session.
            (connection::Kind::Interrupted(Interrupted::Stopping), None) => {
                CallError::Cancelled
            }
            _ => failed(trouble),
        })
    }

    /// Sends a notification over a client's own session. False if it has none.
    pub fn notify(&self, session: &str, method: &str, params: Option<&str>) -> bool {
        self.members.tell(session, &jsonrpc::notification(method, params))
    }

    /// Sends a notification over the shared session, if that is open.
    pub fn notify_shared(&self, method: &str, params: Option<&str>) {
        self.link.tell(jsonrpc::notification(method, params));
    }

    /// Ends a client's own session, some time soon.
    pub fn close_client(&self, session: &str) {
        self.members.close(session);
    }

    /// Sets the level of the shared session's log messages, some time soon, and again whenever
    /// that session is opened anew. The last one set counts.
    pub fn set_log_level(&self, level: &str) {
        self.standing.set_level(level);
        self.core.nudge.idle.bell().ring();
    }

    /// How it is at present.
    pub fn status(&self) -> Status {
        let (in_flight, waiting) = self.slots.counts();
        let sessions = self.members.count_open() + usize::from(self.link.is_open());
        let vitals = self.vitals.lock();
        let initialized = vitals.initialized.as_ref();
        Status {
            state: vitals.state.state(),
            transport: self.link.transport(),
            revision: initialized.map(|it| it.revision),
            capabilities: initialized.map(|it| it.capabilities.clone()),
            server_info: initialized.and_then(|it| it.server_info.clone()),
            last_failure: vitals.last_failure.clone(),
            latency: vitals.latency,
            in_flight,
            waiting,
            sessions,
            restarts: vitals.opened.saturating_sub(1),
            stderr: self.stderr.lines(),
        }
    }
}

/// All upstreams by name. Dropping it ends their sessions and children, and waits for that, in
/// bounded time.
pub struct Upstreams {
    by_name: BTreeMap<ServerName, Arc<Upstream>>,
    /// Joined when the upstreams were told to stop.
    supervisors: Mutex<Vec<Joined>>,
    hurry: Arc<AtomicBool>,
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

impl Upstreams {
    /// Starts to make contact with every upstream, and returns at once. What comes of it is told
    /// by `events`, and `unasked` hears what they say outside of calls. Large results count
    /// against `buffered` until they are dropped.
    ///
    /// # Errors
    /// The process has no thread or descriptor left.
    pub fn start(
        configs: Vec<UpstreamConfig>,
        limits: Arc<Limits>,
        buffered: crate::budget::Budget,
        events: Sender<Event>,
        unasked: Arc<dyn Unasked>,
    ) -> io::Result<Upstreams> {
        let shared = Shared {
            names: Names::start()?,
            tls: Arc::new(RustlsConnector::default()),
            budget: Arc::new(Budget::new(limits.connections)),
            limits,
            buffered,
            hurry: Arc::default(),
            unasked,
        };
        // Dropped on the way out if a later one cannot be started.
        let mut upstreams = Upstreams {
            by_name: BTreeMap::new(),
            supervisors: Mutex::default(),
            hurry: shared.hurry.clone(),
        };
        for (index, config) in configs.into_iter().enumerate() {
            let upstream = Arc::new(shared.upstream(config, index)?);
            let supervisor = Supervisor {
                core: upstream.core.clone(),
                link: upstream.link.clone(),
                vitals: upstream.vitals.clone(),
                events: events.clone(),
                lane: Lane::default(),
                generation: None,
                logged: 0,
                standing: upstream.standing.clone(),
                level: None,
                subscribed: None,
                lists: Lists::default(),
            };
            let thread = spawn(&upstream.core.thread_name("sup"), move || supervisor.run())?;
            upstreams.supervisors().push(thread);
            upstreams.by_name.insert(upstream.name().clone(), upstream);
        }
        Ok(upstreams)
    }

    /// The upstream of that name.
    pub fn get(&self, name: &ServerName) -> Option<&Arc<Upstream>> {
        self.by_name.get(name)
    }

    /// All of them, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.by_name.values()
    }

    /// Ends every call that still waits or reads; from here on there are no others.
    pub fn interrupt(&self) {
        for upstream in self.iter() {
            upstream.slots.interrupt();
        }
    }

    /// Ends every session and child, and waits for that, in bounded time. Nothing is opened
    /// afterwards. Whoever still holds an upstream keeps nothing alive by that.
    pub fn stop(&self) {
        self.interrupt();
        for upstream in self.iter() {
            upstream.core.nudge.stop();
            upstream.members.stop();
        }
        // Each ends its own session or child meanwhile, so this takes as long as the slowest.
        let supervisors = std::mem::take(&mut *self.supervisors());
        drop(supervisors);
        self.iter().for_each(|upstream| upstream.members.join());
    }

    fn supervisors(&self) -> MutexGuard<'_, Vec<Joined>> {
        self.supervisors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What makes the end a quick one once it is set: children are killed instead of asked.
    pub fn hurry(&self) -> Arc<AtomicBool> {
        self.hurry.clone()
    }
}

impl Drop for Upstreams {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What all upstreams share.
struct Shared {
    names: Arc<Names>,
    tls: Arc<RustlsConnector>,
    budget: Arc<Budget>,
    limits: Arc<Limits>,
    buffered: crate::budget::Budget,
    hurry: Arc<AtomicBool>,
    unasked: Arc<dyn Unasked>,
}

impl Shared {
    fn upstream(&self, config: UpstreamConfig, index: usize) -> io::Result<Upstream> {
        let (limits, buffered) = (self.limits.clone(), self.buffered.clone());
        let (hurry, unasked) = (self.hurry.clone(), self.unasked.clone());
        let core = Arc::new(Core::new(config, limits, buffered, index, hurry, unasked)?);
        let stderr = Arc::new(StderrRing::new(self.limits.child_stderr_lines));
        let links = Links::new(&core, &stderr, self.names.clone(), &self.tls);
        let link = links.link(core.clone());
        let slots =
            Slots::new(core.name().clone(), core.config.max_in_flight, core.config.max_waiting);
        Ok(Upstream {
            members: Arc::new(Members::new(core.clone(), links)),
            standing: Arc::default(),
            core,
            link,
            slots,
            budget: self.budget.clone(),
            vitals: Arc::default(),
            stderr,
        })
    }
}
