//! Whose turn it is to ask an issuer about a token. A bounded number of requests asks at once, and a
//! bounded number waits for its turn, shared by the addresses of their clients, so that a flood of
//! made-up tokens neither floods the issuer nor keeps the others out. Requests with one token ask
//! once.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Instant;

use super::issuer_metadata::Authentication;
use super::token_digest::TokenDigest;
use super::waiters::{Place, Waiters};
use crate::limits::{
    INTROSPECTION_TIMEOUT, INTROSPECTIONS_AT_ONCE_MAX, INTROSPECTIONS_WAITING_MAX,
};
use crate::sync::{Condvar, Mutex};

/// Why nobody waits for an issuer any more.
pub(super) const STOPPED: &str = "the gateway stops, or has another configuration by now";

/// The questions to one issuer that are under way.
#[derive(Debug)]
pub(super) struct Introspecting {
    waiting: Waiters,
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    asking: HashSet<TokenDigest>,
    /// The time of the last question that was not answered, if none was since.
    failed_at: Option<Instant>,
    /// The way in which the gateway authenticates, where the issuer does not say which.
    authentication: Authentication,
    is_stopping: bool,
}

impl Default for Introspecting {
    fn default() -> Introspecting {
        Introspecting {
            waiting: Waiters::new(INTROSPECTIONS_WAITING_MAX),
            state: Mutex::default(),
            ended: Condvar::new(),
        }
    }
}

/// What came of the wait for a turn.
pub(super) enum Turn<'a> {
    /// The request asks the issuer. Others with its token wait until this is dropped.
    Ask(Asking<'a>),
    /// Another request has asked about the same token meanwhile.
    Answered,
}

/// A request that asks an issuer.
pub(super) struct Asking<'a> {
    of: &'a Introspecting,
    digest: TokenDigest,
    _place: Place<'a>,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.of.state.lock().asking.remove(&self.digest);
        self.of.ended.notify_all();
    }
}

impl Introspecting {
    /// Waits for the turn of a token, until `deadline` at most.
    ///
    /// # Errors
    /// Too many wait, the turn does not come in time, or the gateway stops; the cause as text.
    pub(super) fn turn(
        &self,
        digest: TokenDigest,
        peer: Option<IpAddr>,
        deadline: Instant,
    ) -> Result<Turn<'_>, &'static str> {
        let place = self.waiting.place(peer);
        let place = place.ok_or("too many requests wait for its introspections")?;
        let deadline = deadline.min(Instant::now() + INTROSPECTION_TIMEOUT);
        // Another request with the token may have its turn first, while this one waits for its own.
        let may_go_on = |state: &State| {
            state.is_stopping
                || state.asking.len() < INTROSPECTIONS_AT_ONCE_MAX
                || state.asking.contains(&digest)
        };
        let (mut state, mut is_in_time) =
            self.ended.wait_until(self.state.lock(), deadline, may_go_on);
        let is_asked = state.asking.contains(&digest);
        if is_asked {
            let is_over = |state: &State| state.is_stopping || !state.asking.contains(&digest);
            (state, is_in_time) = self.ended.wait_until(state, deadline, is_over);
        }
        if state.is_stopping {
            return Err(STOPPED);
        }
        if !is_in_time {
            return Err("it answers slowly");
        }
        if is_asked {
            return Ok(Turn::Answered);
        }
        state.asking.insert(digest);
        drop(state);
        Ok(Turn::Ask(Asking { of: self, digest, _place: place }))
    }

    /// True if the issuer did not answer a short while ago: nobody who could do without asks now.
    pub(super) fn has_failed_lately(&self, now: Instant) -> bool {
        let failed_at = self.state.lock().failed_at;
        failed_at.is_some_and(|at| now.saturating_duration_since(at) < INTROSPECTION_TIMEOUT)
    }

    /// True if the last question was not answered, or so many are under way that another one would
    /// have to wait.
    pub(super) fn is_in_trouble(&self) -> bool {
        let state = self.state.lock();
        state.failed_at.is_some() || state.asking.len() >= INTROSPECTIONS_AT_ONCE_MAX
    }

    /// Notes when a question was not answered; none where it was.
    pub(super) fn note(&self, has_failed: Option<Instant>) {
        self.state.lock().failed_at = has_failed;
    }

    /// The way in which the gateway authenticates, where the issuer does not say which.
    pub(super) fn authentication(&self) -> Authentication {
        self.state.lock().authentication
    }

    /// Notes the way that the issuer takes.
    pub(super) fn note_authentication(&self, taken: Authentication) {
        self.state.lock().authentication = taken;
    }

    /// Ends all waits.
    pub(super) fn stop(&self) {
        self.state.lock().is_stopping = true;
        self.ended.notify_all();
    }
}
