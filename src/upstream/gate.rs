//! The gate before an upstream: calls are refused there at once while it is down, and what comes
//! of the others is told to its breaker.

use std::time::Instant;

use crate::error::CallError;
use crate::protocol::call::Outcome;
use crate::telemetry::timestamp::rfc3339;

use super::Upstream;
use super::breaker::{Admission, Down, Patience, Sign};
use super::connection::Trouble;

/// A call that was let through.
pub(super) struct Passage<'a> {
    upstream: &'a Upstream,
    is_probe: bool,
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        if self.is_probe {
            self.upstream.vitals.lock().breaker.probe_left();
        }
    }
}

impl Upstream {
    /// Lets a call through, or refuses it because the upstream is down.
    pub(super) fn pass(&self) -> Result<Passage<'_>, CallError> {
        let now = Instant::now();
        let (is_probe, is_hastened) = {
            let breaker = &mut self.vitals.lock().breaker;
            match breaker.admit(now) {
                Admission::Passed => (false, false),
                Admission::Probe => {
                    (true, breaker.is_left_to_supervisor() && breaker.hasten(now))
                }
                Admission::Refused(down) => return Err(self.is_down(*down)),
            }
        };
        if is_hastened {
            self.hasten();
        }
        Ok(Passage { upstream: self, is_probe })
    }

    /// Whether a call made now would be let through, for whoever does something costly before.
    ///
    /// # Errors
    /// It is down.
    pub fn check(&self) -> Result<(), CallError> {
        let now = Instant::now();
        let down = {
            let breaker = &self.vitals.lock().breaker;
            breaker.down(now).filter(|_| !breaker.is_probe_due(now))
        };
        down.map_or(Ok(()), |down| Err(self.is_down(down)))
    }

    /// Somebody wants what the upstream may have, and cannot call it before its supervisor has
    /// made contact: that tries soon. Gives what is to be told meanwhile, if it is down.
    pub fn knock(&self) -> Option<CallError> {
        let now = Instant::now();
        let (down, is_hastened) = {
            let breaker = &mut self.vitals.lock().breaker;
            let down = breaker.down(now);
            (down, breaker.knock(now))
        };
        if is_hastened {
            self.hasten();
        }
        down.map(|down| self.is_down(down))
    }

    fn hasten(&self) {
        self.link.hasten();
        self.core.nudge.wanted();
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

impl Passage<'_> {
    /// After the call has waited for its turn: the upstream may have gone down meanwhile.
    pub(super) fn look_again(&self) -> Result<(), CallError> {
        let down = self.upstream.vitals.lock().breaker.down(Instant::now());
        match down {
            Some(down) if !self.is_probe => Err(self.upstream.is_down(down)),
            Some(_) | None => Ok(()),
        }
    }

    /// Tells what came of the call since `began`. `is_heard`: the upstream said something about
    /// it meanwhile, so that it is slow and does not hang.
    pub(super) fn report(
        &self,
        outcome: &Result<Outcome, Trouble>,
        began: Instant,
        is_heard: bool,
    ) {
        let Upstream { core, vitals, .. } = self.upstream;
        let now = Instant::now();
        let took = now.saturating_duration_since(began);
        // What was waited for before the call is not the upstream's time.
        let is_full = took >= core.config.timeout.mul_f32(0.9) && !is_heard;
        let patience = if is_full { Patience::Full } else { Patience::Short };
        let trouble = match outcome {
            Ok(_) => {
                let is_waited_for = {
                    let mut health = vitals.lock();
                    health.latency = Some(took);
                    health.breaker.well();
                    health.breaker.hasten(now)
                };
                if is_waited_for {
                    core.nudge.wanted();
                }
                return;
            }
            Err(trouble) => trouble,
        };
        match Sign::of(trouble, patience) {
            Sign::Nothing => (),
            Sign::Answered => vitals.lock().breaker.answered(now),
            Sign::Failed => {
                let failure = core.failure(trouble);
                let what = (failure.stage, failure.message.clone());
                let (opens, has_contact) = {
                    let breaker = &mut vitals.lock().breaker;
                    let opens = breaker.failed(now, took, failure);
                    (opens, breaker.has_contact())
                };
                if opens {
                    log::warn!(target: "upstream", "{} is down: its calls are refused until it \
                        answers again ({}: {})", core.name(), what.0, what.1);
                }
                if opens && has_contact {
                    // The supervisor finds out whether it is the server or a tool of it.
                    core.nudge.stale();
                }
            }
        }
    }
}
