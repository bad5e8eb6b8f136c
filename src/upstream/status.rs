//! How an upstream is: as `/status` tells it, and as its supervisor last saw it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::error::{HttpRefusal, Stage};
use crate::protocol::call::Kind;
use crate::protocol::legacy::Initialized;
use crate::protocol::raw::Raw;
use crate::protocol::revision::Revision;
use crate::protocol::server_name::ServerName;
use crate::telemetry::Seldom;

use super::call::circuit_breaker::Breaker;
use super::failure::cut;

/// A failure as `/status` tells it. The message never holds a secret.
#[derive(Debug, Clone, PartialEq)]
pub struct FailureReport {
    /// How far the attempt came.
    pub stage: Stage,
    /// What was seen.
    pub message: String,
    /// When.
    pub at: SystemTime,
    /// What a refusal over HTTP says besides, without secrets as well.
    pub refusal: Option<Box<HttpRefusal>>,
}

/// A list that cannot be read.
#[derive(Debug, Clone)]
pub struct Unread {
    /// Which one.
    pub kind: Kind,
    /// Why not, the last time.
    pub failure: FailureReport,
    /// When it is tried again.
    pub next_try: Instant,
}

/// How an upstream is at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// First contact is being made, or a child is being started.
    Starting {
        /// Time since it began.
        taken: Duration,
    },
    /// It has answered and can be called.
    Ready,
    /// It failed; the next attempt comes by itself, and calls make attempts too.
    BackingOff {
        /// Time until then.
        next_try: Duration,
    },
    /// Somebody must sign in there first.
    NeedsSignIn,
    /// It failed again and again, or nothing but the next attempt can bring it back: calls are
    /// refused at once.
    Down {
        /// Time until the next attempt; zero while it is made.
        next_try: Duration,
    },
}

/// What `/status` tells of an upstream.
#[derive(Debug, Clone)]
pub struct Status {
    /// At present.
    pub state: State,
    /// For how long it has been starting, if it is; also where it is down meanwhile.
    pub starting: Option<Duration>,
    /// Attempts that failed in a row, calls and the supervisor's own.
    pub failures: u32,
    /// When it failed first since it was well, if it is down.
    pub down_since: Option<SystemTime>,
    /// `http`, `sse` or `stdio`; for `auto` what was found, or `auto`.
    pub transport: &'static str,
    /// Where its URL leads, if it redirects to elsewhere within its origin.
    pub redirected_to: Option<String>,
    /// Spoken with it, once it has answered.
    pub revision: Option<Revision>,
    /// What it declared, an object's text.
    pub capabilities: Option<Raw>,
    /// Its name and version, an object's text.
    pub server_info: Option<Raw>,
    /// The last failure, although it may be well by now.
    pub last_failure: Option<FailureReport>,
    /// Its lists that cannot be read, although it may be well.
    pub unread: Vec<Unread>,
    /// Of the last answer.
    pub latency: Option<Duration>,
    /// Calls that hold a slot.
    pub in_flight: usize,
    /// Calls that wait for one.
    pub waiting: usize,
    /// Sessions that are open: the shared one, and clients' own.
    pub sessions: usize,
    /// How often its child was started again, or its session opened again.
    pub restarts: u64,
    /// Messages that were not what their methods say, and were dropped.
    pub dropped_messages: u64,
    /// The last lines of its standard error.
    pub stderr: Vec<String>,
}

/// Messages of an upstream's that were not handed on, because the specification reserves their
/// names and they are not what these say.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    count: AtomicU64,
    lines: Seldom,
}

impl Dropped {
    pub(super) fn count(&self, server: &ServerName, method: &str) {
        self.count.fetch_add(1, Ordering::Relaxed);
        if let Some(more) = self.lines.turn() {
            log::warn!(target: "upstream", "{server}: a message is dropped, because it is not what \
                its method says: {}{more}", cut(method));
        }
    }

    pub(super) fn so_far(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// What the supervisor last saw.
#[derive(Debug)]
pub(super) struct Health {
    pub(super) breaker: Breaker,
    pub(super) initialized: Option<Arc<Initialized>>,
    pub(super) last_failure: Option<FailureReport>,
    pub(super) unread: Vec<Unread>,
    /// What another gateway said last of servers behind it that are not well, an array's text.
    pub(super) unwell_behind: Option<String>,
    pub(super) latency: Option<Duration>,
    pub(super) opened: u64,
}

/// [`Health`] where the calls and the supervisor both reach it.
pub(super) struct SharedHealth(Mutex<Health>);

impl SharedHealth {
    pub(super) fn new(breaker: Breaker) -> SharedHealth {
        SharedHealth(Mutex::new(Health {
            breaker,
            initialized: None,
            last_failure: None,
            unread: Vec::new(),
            unwell_behind: None,
            latency: None,
            opened: 0,
        }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Health> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
