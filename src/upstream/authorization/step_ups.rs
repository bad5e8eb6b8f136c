//! Pure: the tokens with more scopes that a server has wanted.

use std::collections::VecDeque;
use std::time::Instant;

use crate::limits::{STEP_UP_WINDOW, STEP_UPS_MAX};

/// The step-ups of one owner at one server.
#[derive(Debug, Default)]
pub(super) struct StepUps {
    /// When tokens with more scopes were asked for.
    times: VecDeque<Instant>,
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
}
