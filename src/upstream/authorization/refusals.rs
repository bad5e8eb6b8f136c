//! Pure: the access tokens that a server has refused in a row.

use std::time::Instant;

use crate::limits::{REFUSALS_BELIEVED, REFUSALS_PARDON_INTERVAL};

/// The refusals of an owner's access tokens at one server.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// The server has refused the present token.
    is_refused: bool,
    /// Tokens in a row that the server has refused before it has taken one.
    n_refused: u32,
    /// When the last of them was refused.
    refused_at: Option<Instant>,
    /// When such a row was broken off last for a token that another process has brought.
    pardoned_at: Option<Instant>,
}

impl Refusals {
    /// True if the server has refused the present token.
    pub(super) fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// True if the server refuses one token after the other: the next one will not be better. After
    /// a while it may be, because the server may have been unable to check tokens.
    pub(super) fn refuses_all(&self, now: Instant) -> bool {
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < REFUSALS_BELIEVED;
        self.n_refused > 1 && self.refused_at.is_some_and(is_fresh)
    }

    /// The server has refused the present token.
    pub(super) fn refused(&mut self, now: Instant) {
        if !self.is_refused {
            self.n_refused = self.n_refused.saturating_add(1);
            self.refused_at = Some(now);
        }
        self.is_refused = true;
    }

    /// The server has taken the present token.
    pub(super) fn passed(&mut self) {
        self.n_refused = 0;
    }

    /// Another token takes the place of the present one.
    pub(super) fn replaced(&mut self) {
        self.is_refused = false;
    }

    /// Another process has brought the next token, and nobody here has had it for a refused one's
    /// sake: its first refusal is answered with a renewal like any other's. But not all the time, or
    /// two processes would renew in turn for a server that refuses all.
    pub(super) fn pardoned(&mut self, now: Instant) {
        let rests = self
            .pardoned_at
            .is_some_and(|at| now.saturating_duration_since(at) < REFUSALS_PARDON_INTERVAL);
        if self.n_refused > 0 && !rests {
            (self.n_refused, self.pardoned_at) = (0, Some(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens to the tokens of an owner.
    enum Event {
        Refused,
        Passed,
        Replaced,
        Brought,
        /// So much time passes that it may be better.
        Rested,
    }

    #[test]
    fn two_refusals_in_a_row_mean_that_the_server_refuses_all() {
        use Event::{Brought, Passed, Refused, Replaced, Rested};
        for (events, is_refused, refuses_all) in [
            (&[][..], false, false),
            (&[Refused], true, false),
            (&[Refused, Refused], true, false),
            (&[Refused, Replaced], false, false),
            (&[Refused, Replaced, Refused], true, true),
            (&[Refused, Replaced, Passed, Refused], true, false),
            (&[Refused, Replaced, Refused, Brought, Replaced], false, false),
            (&[Refused, Brought, Replaced, Refused, Brought, Replaced, Refused], true, true),
            (&[Refused, Replaced, Refused, Rested], true, false),
            // One more token is tried then, and not two.
            (&[Refused, Replaced, Refused, Rested, Replaced, Refused], true, true),
            (&[Refused, Replaced, Refused, Rested, Replaced, Passed, Refused], true, false),
        ] {
            let (mut refusals, mut now) = (Refusals::default(), Instant::now());
            for event in events {
                match event {
                    Refused => refusals.refused(now),
                    Passed => refusals.passed(),
                    Replaced => refusals.replaced(),
                    Brought => refusals.pardoned(now),
                    Rested => now += REFUSALS_BELIEVED,
                }
            }
            let n = events.len();
            assert_eq!(refusals.is_refused(), is_refused, "{n} events");
            assert_eq!(refusals.refuses_all(now), refuses_all, "{n} events");
        }
    }
}
