//! How an upstream is, as its supervisor last saw it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::protocol::legacy::Initialized;

use super::{Failure, State};

/// See above.
#[derive(Debug)]
pub(super) struct Health {
    pub(super) state: Seen,
    pub(super) initialized: Option<Arc<Initialized>>,
    pub(super) last_failure: Option<Failure>,
    pub(super) latency: Option<Duration>,
    pub(super) opened: u64,
}

/// [`State`] with a point in time instead of a duration.
#[derive(Debug, Clone, Copy)]
pub(super) enum Seen {
    Probing,
    Ready,
    BackingOff { next_try: Instant },
}

impl Seen {
    pub(super) fn state(self) -> State {
        match self {
            Self::Probing => State::Probing,
            Self::Ready => State::Ready,
            Self::BackingOff { next_try } => State::BackingOff {
                next_try: next_try.saturating_duration_since(Instant::now()),
            },
        }
    }
}

/// [`Health`] where the calls and the supervisor both reach it.
pub(super) struct Vitals(Mutex<Health>);

impl Default for Vitals {
    fn default() -> Vitals {
        Vitals(Mutex::new(Health {
            state: Seen::Probing,
            initialized: None,
            last_failure: None,
            latency: None,
            opened: 0,
        }))
    }
}

impl Vitals {
    pub(super) fn lock(&self) -> MutexGuard<'_, Health> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
