//! Pure: the tokens with more scopes that a server has wanted.

use std::collections::VecDeque;
use std::time::Instant;

use crate::limits::{STEP_UP_WINDOW, STEP_UPS_MAX};
use crate::oauth::scope::Scopes;

/// The step-ups of one owner at one server.
#[derive(Debug, Default)]
pub(super) struct StepUps {
    /// When tokens with more scopes were asked for.
    times: VecDeque<Instant>,
    /// The scopes that the last token was asked for and is not good for.
    denied: Option<(Scopes, Instant)>,
}

impl StepUps {
    /// True if there were as many of late as there may be.
    pub(super) fn are_too_many(&mut self, now: Instant) -> bool {
        self.times.retain(|at| now.saturating_duration_since(*at) < STEP_UP_WINDOW);
        self.times.len() >= STEP_UPS_MAX
    }

    /// A token with more scopes is asked for.
    pub(super) fn begun(&mut self, now: Instant) {
        self.times.push_back(now);
    }

    /// A token was asked for with the scopes that a request wanted, and has come. A renewal, which
    /// wants none, says nothing of those that were asked for before.
    pub(super) fn ended(&mut self, wanted: &Scopes, granted: &Scopes, now: Instant) {
        if wanted.is_empty() {
            return;
        }
        let denied: Scopes = wanted.iter().filter(|scope| !granted.contains(scope)).collect();
        self.denied = (!denied.is_empty()).then_some((denied, now));
    }

    /// True if a token with these scopes was asked for a short time ago, and did not get them: it
    /// would not get them now.
    pub(super) fn were_denied(&self, wanted: &Scopes, now: Instant) -> bool {
        self.denied.as_ref().is_some_and(|(denied, at)| {
            let is_fresh = now.saturating_duration_since(*at) < STEP_UP_WINDOW;
            is_fresh && wanted.iter().any(|scope| denied.contains(scope))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_ups_are_few_in_a_while() {
        let (mut step_ups, now) = (StepUps::default(), Instant::now());
        for _ in 0..STEP_UPS_MAX {
            assert!(!step_ups.are_too_many(now));
            step_ups.begun(now);
        }
        assert!(step_ups.are_too_many(now));
        assert!(!step_ups.are_too_many(now + STEP_UP_WINDOW));
    }

    #[test]
    fn scopes_that_were_asked_for_and_not_granted_are_not_asked_for_again_at_once() {
        let (mut step_ups, now) = (StepUps::default(), Instant::now());
        let scopes = Scopes::parse;
        assert!(!step_ups.were_denied(&scopes("write"), now));
        step_ups.ended(&scopes("write admin"), &scopes("read write"), now);
        for (wanted, is_denied) in [("write", false), ("admin", true), ("admin more", true)] {
            assert_eq!(step_ups.were_denied(&scopes(wanted), now), is_denied, "{wanted}");
        }
        assert!(!step_ups.were_denied(&scopes("admin"), now + STEP_UP_WINDOW));
        step_ups.ended(&Scopes::default(), &scopes("read write"), now);
        assert!(step_ups.were_denied(&scopes("admin"), now), "a renewal changes nothing");
        step_ups.ended(&scopes("admin"), &scopes("admin"), now);
        assert!(!step_ups.were_denied(&scopes("admin"), now));
    }
}
