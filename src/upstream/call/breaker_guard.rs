//! The gate before an upstream: calls are refused there at once while it is down, and what comes
//! of the others is told to its breaker.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::error::CallError;
use crate::protocol::call::Outcome;
use crate::protocol::session_route::SessionKind;
use crate::telemetry::timestamp::rfc3339;

use super::circuit_breaker::{Admission, DeadlineOwner, Down, FailureClass};
use crate::upstream::Upstream;
use crate::upstream::failure::{Failure, FailureKind};

/// A call that was let through.
pub(crate) struct BreakerGuard<'a> {
    upstream: &'a Upstream,
    session: SessionKind,
    is_probe: bool,
    /// The upstream has said something about it: it may be slow, but does not hang.
    is_heard: Cell<bool>,
}

impl Drop for BreakerGuard<'_> {
    fn drop(&mut self) {
        if self.is_probe {
            self.upstream.health.lock().breaker.probe_left();
        }
    }
}

impl Upstream {
    /// Lets a call through, or refuses it because the upstream is down.
    pub(crate) fn admit(&self, session: SessionKind) -> Result<BreakerGuard<'_>, CallError> {
        let now = Instant::now();
        let (is_probe, is_hastened) = {
            let breaker = &mut self.health.lock().breaker;
            match breaker.admit(now, session) {
                Admission::Passed => (false, false),
                Admission::Probe => {
                    let waits =
                        session == SessionKind::Shared && breaker.is_left_to_supervisor();
                    (true, waits && breaker.hasten(now))
                }
                Admission::Refused(down) => return Err(self.is_down(*down)),
            }
        };
        if is_hastened {
            self.hasten();
        }
        Ok(BreakerGuard { upstream: self, session, is_probe, is_heard: Cell::new(false) })
    }

    /// Whether a call made now would be let through, for whoever does something costly before.
    ///
    /// # Errors
    /// It is down.
    pub fn check(&self) -> Result<(), CallError> {
        let now = Instant::now();
        let down = {
            let breaker = &self.health.lock().breaker;
            breaker.down(now, SessionKind::Own).filter(|_| !breaker.is_probe_due(now))
        };
        down.map_or(Ok(()), |down| Err(self.is_down(down)))
    }

    /// Somebody wants what the upstream may have, and cannot call it before its supervisor has
    /// made contact: that tries soon. Gives what is to be told meanwhile, if it is down.
    pub fn knock(&self) -> Option<CallError> {
        let now = Instant::now();
        let (down, is_hastened) = {
            let breaker = &mut self.health.lock().breaker;
            let down = breaker.down(now, SessionKind::Shared);
            (down, breaker.knock(now))
        };
        if is_hastened {
            self.hasten();
        }
        down.map(|down| self.is_down(down))
    }

    fn hasten(&self) {
        self.session.hasten();
        self.context.mailbox.wanted();
    }

    fn is_down(&self, down: Down) -> CallError {
        CallError::UpstreamDown {
            server: self.name().clone(),
            stage: down.last.stage,
            message: down.last.message,
            since: rfc3339(down.first.at),
            next_try: down.next_try,
        }
    }
}

impl BreakerGuard<'_> {
    /// After the call has waited for its turn: the upstream may have gone down meanwhile.
    pub(crate) fn look_again(&self) -> Result<(), CallError> {
        let down = self.upstream.health.lock().breaker.down(Instant::now(), self.session);
        match down {
            Some(down) if !self.is_probe => Err(self.upstream.is_down(down)),
            Some(_) | None => Ok(()),
        }
    }

    /// The upstream has said something about the call.
    pub(crate) fn heard(&self) {
        if !self.is_heard.replace(true) {
            self.went_well(None);
        }
    }

    fn went_well(&self, took: Option<Duration>) {
        let Upstream { context, health, .. } = self.upstream;
        let is_waited_for = {
            let mut health = health.lock();
            health.latency = took.or(health.latency);
            health.breaker.call_went_well(Instant::now())
        };
        if is_waited_for {
            context.mailbox.wanted();
        }
    }

    /// Tells what came of the call since `began`.
    pub(crate) fn report(&self, outcome: &Result<Outcome, Failure>, began: Instant) {
        let Upstream { context, health, .. } = self.upstream;
        let now = Instant::now();
        let took = now.saturating_duration_since(began);
        let Err(failure) = outcome else { return self.went_well(Some(took)) };
        // What was waited for before the call is not the upstream's time.
        let is_full = took >= context.config.timeout.mul_f32(0.9) && !self.is_heard.get();
        let patience = if is_full { DeadlineOwner::Full } else { DeadlineOwner::Short };
        match FailureClass::of(failure, patience) {
            FailureClass::Nothing => (),
            FailureClass::Answered => health.lock().breaker.answered(now),
            FailureClass::Failed
                if failure.kind == FailureKind::Broke
                    && health.lock().breaker.leaves_to_supervisor(self.session) =>
            {
                let failure = context.report(failure);
                if health.lock().breaker.broke_off(now, failure) {
                    context.mailbox.stale();
                }
            }
            FailureClass::Failed => {
                let failure = context.report(failure);
                let what = (failure.stage, failure.message.clone());
                let (opens, has_contact) = {
                    let breaker = &mut health.lock().breaker;
                    let opens = breaker.failed(now, took, failure);
                    (opens, breaker.has_contact())
                };
                if opens && let Some(more) = context.told.turn() {
                    log::warn!(target: "upstream", "{} is down: its calls are refused until it \
                        answers again ({}: {}){more}", context.name(), what.0, what.1);
                }
                if opens && has_contact {
                    // The supervisor finds out whether it is the server or a tool of it.
                    context.mailbox.stale();
                }
            }
        }
    }
}
