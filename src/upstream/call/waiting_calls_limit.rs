//! How many calls may wait for upstreams at once, over all of them, and whose they are.

use std::cell::Cell;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Stage;
use crate::fair_shares::{NotTaken, Shares};
use crate::limits::POOL_RESERVE_DIVISOR;
use crate::protocol::call::PrincipalId;

use crate::upstream::failure::{Failure, FailureKind};

/// What those calls share: a part of the pool is never held by them, so that lists, health and
/// new sessions are always served.
pub(crate) struct WaitingCallsLimit {
    shares: Mutex<Shares<PrincipalId>>,
}

/// The place of a call that waits; dropping it gives it back.
pub(crate) struct Place<'a> {
    limit: &'a WaitingCallsLimit,
    charged: Option<&'a PrincipalId>,
    is_given_up: Cell<bool>,
}

impl Place<'_> {
    /// Leaves the place to another call.
    pub(crate) fn give_up(&self) {
        if !self.is_given_up.replace(true) {
            self.limit.lock().give_back_of(self.charged, 1);
        }
    }
}

impl WaitingCallsLimit {
    pub(crate) fn new(connections: usize) -> WaitingCallsLimit {
        let max = connections - connections / POOL_RESERVE_DIVISOR;
        WaitingCallsLimit { shares: Mutex::new(Shares::long_held(max.max(1))) }
    }

    fn lock(&self) -> MutexGuard<'_, Shares<PrincipalId>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn enter<'a>(
        &'a self,
        charged: Option<&'a PrincipalId>,
    ) -> Result<Place<'a>, Failure> {
        let (entered, max, share) = {
            let mut shares = self.lock();
            (shares.take_of(charged, 1), shares.max(), shares.share_of(charged))
        };
        let what = match entered {
            Ok(()) => {
                return Ok(Place { limit: self, charged, is_given_up: Cell::new(false) });
            }
            Err(NotTaken::Full) => {
                format!("{max} calls wait for servers, which is what limits.connections allows")
            }
            Err(NotTaken::ShareHeld) => format!(
                "so many calls wait for servers as one caller may have waiting: {share} now (its \
                 share of {max}, which is what limits.connections allows)"
            ),
        };
        Err(Failure::new(FailureKind::Overloaded, Stage::Slot, what))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.give_up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_leaves_a_part_of_the_pool() {
        let limit = WaitingCallsLimit::new(16);
        let places: Vec<_> = (0..14).map(|_| limit.enter(None).ok().unwrap()).collect();
        assert!(limit.enter(None).is_err());
        drop(places);
        assert!(limit.enter(None).is_ok());
    }

    #[test]
    fn one_that_floods_leaves_the_others_a_part() {
        let limit = WaitingCallsLimit::new(16);
        let (hog, victim) = (PrincipalId::Key("hog".into()), PrincipalId::Key("victim".into()));
        let all_of =
            |who| std::iter::from_fn(|| limit.enter(Some(who)).ok()).collect::<Vec<_>>();
        let held = all_of(&hog);
        assert_eq!(held.len(), 11);
        held[0].give_up();
        assert_eq!(all_of(&victim).len(), 3);
        drop(held);
        assert_eq!(limit.lock().taken(), 0);
    }
}
