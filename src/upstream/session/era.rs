//! The era that an upstream speaks, as far as it is known: one cell for all sessions and
//! children of it.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::limits::ERA_PROBE_TIMEOUT;
use crate::protocol::revision::Era;
use crate::wait::{Interrupted, Wait};

use super::context::Transport;
use super::negotiate::Known;
use crate::upstream::failure::{Failure, FailureKind};

const UNKNOWN: u8 = 0;
const LEGACY: u8 = 1;
const MODERN: u8 = 2;

/// See above.
#[derive(Default)]
pub(crate) struct Found {
    era: AtomicU8,
    /// A modern server was asked for a session and has none: it is of that era alone.
    refuses_sessions: AtomicBool,
    /// What the next start of a child assumes; it outlives failures.
    assumed: Mutex<Known>,
    /// Clients' own sessions to an upstream over HTTP, which may be open: as many as
    /// `max_sessions` lets there be.
    own: Mutex<Vec<Weak<dyn Transport>>>,
}

impl Found {
    /// Of an upstream that was of that era when it was last spoken with.
    pub(crate) fn assuming(era: Option<Era>) -> Found {
        Found { assumed: Mutex::new(Known::new(era)), ..Found::default() }
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

    /// Whether the upstream is modern and was found to have no sessions besides. One that has
    /// both gives clients that have a session of their own what its tools do in one.
    pub(crate) fn refuses_sessions(&self) -> bool {
        self.is_modern() && self.refuses_sessions.load(Ordering::Acquire)
    }

    /// It was asked for a session and refused it.
    pub(crate) fn has_refused_a_session(&self) {
        self.refuses_sessions.store(true, Ordering::Release);
    }

    /// A client may have a session of its own over this link.
    pub(crate) fn enter_own(&self, transport: &Arc<dyn Transport>) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.retain(|transport| transport.strong_count() > 0);
        own.push(Arc::downgrade(transport));
    }

    /// The shared session has failed: the upstream may be another one when it is back. Not where
    /// a client's own session is open: then it is there, and what it speaks is known.
    pub(crate) fn forget_unless_in_use(&self) {
        let own: Vec<Arc<dyn Transport>> = {
            let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
            own.iter().filter_map(Weak::upgrade).collect()
        };
        if !own.iter().any(|transport| transport.is_open()) {
            self.forget();
        }
    }

    pub(crate) fn forget(&self) {
        self.era.store(UNKNOWN, Ordering::Release);
        self.refuses_sessions.store(false, Ordering::Release);
    }
}

/// How long the first question of a modern client may go unanswered: there must be time left
/// for the older one.
pub(crate) fn probe_time(wait: &Wait) -> Duration {
    ERA_PROBE_TIMEOUT.min(wait.left() / 2)
}

/// Whether `server/discover` was answered as a legacy server answers it, by one whose era was
/// found before. What is only so at the moment says nothing of an era, nor does what is no answer.
pub(crate) fn is_answer_of_legacy(failure: &Failure, wait: &Wait) -> bool {
    match failure.kind {
        FailureKind::Broke | FailureKind::Interrupted(_) => false,
        FailureKind::SessionGone
        | FailureKind::Refused(_)
        | FailureKind::Nonsense
        | FailureKind::Overloaded => {
            is_legacy_sign(failure, wait) && !failure.is_of_the_moment()
        }
    }
}

/// Whether `server/discover` failed as it does at a legacy server: by any answer that is none,
/// by silence, or because it was too much for it. `wait` is the one that was waited with.
pub(crate) fn is_legacy_sign(failure: &Failure, wait: &Wait) -> bool {
    use crate::upstream::failure::Refusal;
    match &failure.kind {
        FailureKind::Refused(Refusal::OtherEra)
        | FailureKind::SessionGone
        | FailureKind::Nonsense => true,
        FailureKind::Broke => failure.sent,
        FailureKind::Interrupted(Interrupted::Deadline) => {
            wait.interrupted().is_none() && !wait.left().is_zero()
        }
        FailureKind::Refused(Refusal::MaybeHttpSse | Refusal::Stateless | Refusal::Plain)
        | FailureKind::Interrupted(
            Interrupted::Cancelled
            | Interrupted::ClientGone
            | Interrupted::Stopping
            | Interrupted::Retired,
        )
        | FailureKind::Overloaded => false,
    }
}
