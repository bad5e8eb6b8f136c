//! How many calls may wait for upstreams at once, over all of them, and whose they are.

use std::cell::Cell;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Stage;
use crate::limits::POOL_RESERVE_DIVISOR;
use crate::protocol::call::PrincipalId;
use crate::shares::{NotTaken, Shares};

use super::connection::{Kind, Trouble};

/// What those calls share: a part of the pool is never held by them, so that lists, health and
/// new sessions are always served.
pub(super) struct Budget {
    shares: Mutex<Shares<PrincipalId>>,
}

/// A place in the budget; dropping it gives it back.
pub(super) struct Place<'a> {
    budget: &'a Budget,
    charged: Option<&'a PrincipalId>,
    is_given_up: Cell<bool>,
}

impl Place<'_> {
    /// Leaves the place to another call.
    pub(super) fn give_up(&self) {
        if !self.is_given_up.replace(true) {
            self.budget.lock().give_back_of(self.charged, 1);
        }
    }
}

impl Budget {
    pub(super) fn new(connections: usize) -> Budget {
        let max = connections - connections / POOL_RESERVE_DIVISOR;
        Budget { shares: Mutex::new(Shares::new(max.max(1))) }
    }

    fn lock(&self) -> MutexGuard<'_, Shares<PrincipalId>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter<'a>(
        &'a self,
        charged: Option<&'a PrincipalId>,
    ) -> Result<Place<'a>, Trouble> {
        let (entered, max) = {
            let mut shares = self.lock();
            (shares.take_of(charged, 1), shares.max())
        };
        let what = match entered {
            Ok(()) => {
                return Ok(Place { budget: self, charged, is_given_up: Cell::new(false) });
            }
            Err(NotTaken::Full) => {
                format!("{max} calls wait for servers, which is what limits.connections allows")
            }
            Err(NotTaken::ShareHeld) => format!(
                "so many calls wait for servers as one caller may have waiting (its share of \
                 {max}, which is what limits.connections allows)"
            ),
        };
        Err(Trouble::new(Kind::Overloaded, Stage::Slot, what))
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
    fn the_budget_leaves_a_part_of_the_pool() {
        let budget = Budget::new(16);
        let places: Vec<_> = (0..14).map(|_| budget.enter(None).ok().unwrap()).collect();
        assert!(budget.enter(None).is_err());
        drop(places);
        assert!(budget.enter(None).is_ok());
    }

    #[test]
    fn one_that_floods_leaves_the_others_a_part() {
        let budget = Budget::new(16);
        let (hog, victim) = (PrincipalId::Key("hog".into()), PrincipalId::Key("victim".into()));
        let all_of =
            |who| std::iter::from_fn(|| budget.enter(Some(who)).ok()).collect::<Vec<_>>();
        let held = all_of(&hog);
        assert_eq!(held.len(), 11);
        held[0].give_up();
        assert_eq!(all_of(&victim).len(), 3);
        drop(held);
        assert_eq!(budget.lock().taken(), 0);
    }
}
