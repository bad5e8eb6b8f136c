//! What a server speaks, as far as it is known: one cell for all sessions with it.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::limits::ERA_PROBE_TIMEOUT;
use crate::protocol::revision::Era;
use crate::protocol::session_route::SessionSupport;
use crate::wait::{Interrupted, Wait};

use super::Session;
use super::negotiate::{Heard, HttpTransport, Known, Probe, Trust};
use crate::upstream::failure::{Failure, FailureKind, Refusal};

const UNKNOWN: u8 = 0;
const LEGACY: u8 = 1;
const MODERN: u8 = 2;
const STREAMABLE_HTTP: u8 = 1;
const HTTP_SSE: u8 = 2;

/// The era and the transport of a server. What was found holds until it turns out wrong.
#[derive(Default)]
pub(crate) struct FoundEra {
    era: AtomicU8,
    /// It is not to be found out.
    is_fixed: bool,
    transport: AtomicU8,
    /// A server of the stateless era was asked for a session and has none.
    refuses_sessions: AtomicBool,
    /// What the next start of a child assumes; it outlives failures.
    assumed: Mutex<Known>,
    /// Clients' own sessions with a server over HTTP, which may be open: as many as
    /// `max_sessions` lets there be.
    own: Mutex<Vec<Weak<Session>>>,
}

impl FoundEra {
    /// Of a child that was of that era when it was last spoken with.
    pub(crate) fn assuming(era: Option<Era>) -> FoundEra {
        FoundEra { assumed: Mutex::new(Known::new(era)), ..FoundEra::default() }
    }

    /// Of a server whose configured transport only one era has.
    pub(crate) fn fixed(era: Era) -> FoundEra {
        let found = FoundEra { is_fixed: true, ..FoundEra::default() };
        found.set(era);
        found
    }

    pub(crate) fn is_fixed(&self) -> bool {
        self.is_fixed
    }

    pub(crate) fn assumed(&self) -> Known {
        *self.assumed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn assume(&self, known: Known) {
        *self.assumed.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }

    pub(crate) fn get(&self) -> Option<Era> {
        match self.era.load(Ordering::Acquire) {
            LEGACY => Some(Era::Legacy),
            MODERN => Some(Era::Modern),
            _ => None,
        }
    }

    pub(crate) fn is_modern(&self) -> bool {
        self.get() == Some(Era::Modern)
    }

    pub(crate) fn set(&self, era: Era) {
        let value = match era {
            Era::Legacy => LEGACY,
            Era::Modern => MODERN,
        };
        if self.era.swap(value, Ordering::AcqRel) != value {
            self.refuses_sessions.store(false, Ordering::Release);
        }
    }

    /// The transport that was found on the last session over HTTP.
    pub(crate) fn transport(&self) -> Option<HttpTransport> {
        match self.transport.load(Ordering::Acquire) {
            STREAMABLE_HTTP => Some(HttpTransport::StreamableHttp),
            HTTP_SSE => Some(HttpTransport::HttpSse),
            _ => None,
        }
    }

    pub(crate) fn set_transport(&self, transport: HttpTransport) {
        let value = match transport {
            HttpTransport::StreamableHttp => STREAMABLE_HTTP,
            HttpTransport::HttpSse => HTTP_SSE,
        };
        self.transport.store(value, Ordering::Release);
    }

    pub(crate) fn forget_transport(&self) {
        self.transport.store(UNKNOWN, Ordering::Release);
    }

    /// What is known of the server's sessions. A server of the stateless era that keeps them
    /// besides gives clients that have a session of their own what its tools do in one.
    pub(crate) fn session_support(&self) -> SessionSupport {
        if !self.is_modern() {
            SessionSupport::Required
        } else if self.refuses_sessions.load(Ordering::Acquire) {
            SessionSupport::Refused
        } else {
            SessionSupport::Possible
        }
    }

    /// The server was asked for a session and refused it.
    pub(crate) fn has_refused_a_session(&self) {
        self.refuses_sessions.store(true, Ordering::Release);
    }

    /// A client may have this session of its own.
    pub(crate) fn enter_own(&self, session: &Arc<Session>) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.retain(|session| session.strong_count() > 0);
        own.push(Arc::downgrade(session));
    }

    /// The shared session has failed: the server may be another one when it is back. Not where a
    /// client's own session is open: then it is there, and what it speaks is known.
    pub(crate) fn forget_unless_in_use(&self) {
        let own: Vec<Arc<Session>> = {
            let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
            own.iter().filter_map(Weak::upgrade).collect()
        };
        if !self.is_fixed && !own.iter().any(|session| session.is_open()) {
            self.era.store(UNKNOWN, Ordering::Release);
            self.refuses_sessions.store(false, Ordering::Release);
        }
    }
}

/// How long `server/discover` may go unanswered: there must be time left for `initialize`.
pub(crate) fn probe_time(wait: &Wait) -> Duration {
    ERA_PROBE_TIMEOUT.min(wait.left() / 2)
}

/// What a question over HTTP has come to that failed so. `wait` is the one that was waited with;
/// `trust`: what is known of a server that is asked `server/discover`.
pub(crate) fn heard(question: Probe, trust: Trust, failure: &Failure, wait: &Wait) -> Heard {
    match question {
        Probe::Discover => heard_of_discovery(trust, failure, wait),
        Probe::Initialize | Probe::EventStream => match failure.kind {
            FailureKind::Refused(Refusal::MaybeHttpSse) => Heard::DeclinesTransport,
            // A server without sessions refuses `initialize` in one way or another.
            FailureKind::Refused(Refusal::OtherEra | Refusal::Stateless | Refusal::Plain) => {
                Heard::Declines
            }
            FailureKind::Interrupted(_)
            | FailureKind::Unauthorized(_)
            | FailureKind::SessionGone
            | FailureKind::Broke
            | FailureKind::Nonsense
            | FailureKind::Overloaded => Heard::Fails,
        },
    }
}

/// A server with sessions declines `server/discover` by any answer that is none, by silence, or
/// because it was too much for it. Of one whose era was found before, only an answer says that;
/// and what is only so at the moment says nothing of an era.
fn heard_of_discovery(trust: Trust, failure: &Failure, wait: &Wait) -> Heard {
    let is_unknown = trust == Trust::Unknown;
    match failure.kind {
        FailureKind::Refused(Refusal::OtherEra)
            if is_unknown || !failure.is_of_the_moment() =>
        {
            Heard::Declines
        }
        FailureKind::SessionGone | FailureKind::Nonsense
            if is_unknown || trust == Trust::Doubted && !failure.is_of_the_moment() =>
        {
            Heard::Declines
        }
        FailureKind::Broke if is_unknown && failure.sent => Heard::Declines,
        FailureKind::Interrupted(Interrupted::Deadline)
            if is_unknown && wait.interrupted().is_none() && !wait.left().is_zero() =>
        {
            Heard::Silent
        }
        FailureKind::Refused(_)
        | FailureKind::Unauthorized(_)
        | FailureKind::SessionGone
        | FailureKind::Broke
        | FailureKind::Nonsense
        | FailureKind::Interrupted(_)
        | FailureKind::Overloaded => Heard::Fails,
    }
}
