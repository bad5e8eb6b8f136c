//! The used states of [`crate::downstream::stateless::request_state`]. A retry costs its key no
//! call, so each state is good for one free retry; a second one is a call like any other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::fair_shares::Shares;
use crate::limits::USED_STATES_MAX;
use crate::protocol::call::PrincipalId;
use crate::sync::Mutex;

/// The states that have come back and have not expired.
#[derive(Debug)]
pub struct UsedStates {
    last_serial: AtomicU64,
    used: Mutex<Used>,
}

#[derive(Debug)]
struct Used {
    /// The time until which each is remembered, and its principal.
    states: HashMap<u64, (Instant, Option<PrincipalId>)>,
    shares: Shares<PrincipalId>,
}

impl Used {
    fn expire(&mut self, now: Instant) {
        for (_, (_, charged)) in self.states.extract_if(|_, (expires, _)| now >= *expires) {
            self.shares.give_back_of(charged.as_ref(), 1);
        }
    }
}

impl UsedStates {
    /// No states yet. `boot` is random, so that no two processes give the same serial numbers.
    pub fn new(boot: u64) -> UsedStates {
        let used = Used { states: HashMap::new(), shares: Shares::new(USED_STATES_MAX) };
        UsedStates { last_serial: AtomicU64::new(boot), used: Mutex::new(used) }
    }

    /// A number for a new state that no other state has.
    pub(crate) fn serial(&self) -> u64 {
        self.last_serial.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// True if the state of that number comes back for the first time. It is remembered for
    /// `life`, after which it has expired; a state that cannot be remembered counts as used.
    pub(crate) fn is_first_use(
        &self,
        serial: u64,
        charged: Option<&PrincipalId>,
        now: Instant,
        life: Duration,
    ) -> bool {
        let mut used = self.used.lock();
        if used.states.contains_key(&serial) {
            return false;
        }
        if used.shares.may_take_of(charged, 1).is_err() {
            used.expire(now);
        }
        if used.shares.take_of(charged, 1).is_err() {
            return false;
        }
        // A state's own expiry counts in whole seconds.
        let expires = now + life + Duration::from_secs(1);
        used.states.insert(serial, (expires, charged.cloned()));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(300);

    #[test]
    fn a_state_is_new_once() {
        let (states, now) = (UsedStates::new(u64::MAX), Instant::now());
        let (first, second) = (states.serial(), states.serial());
        assert_ne!(first, second);
        assert!(states.is_first_use(first, None, now, LIFE));
        assert!(states.is_first_use(second, None, now, LIFE));
        assert!(!states.is_first_use(first, None, now + LIFE, LIFE));
    }

    #[test]
    fn what_cannot_be_remembered_counts_as_used() {
        let (states, now) = (UsedStates::new(0), Instant::now());
        for _ in 0..USED_STATES_MAX {
            assert!(states.is_first_use(states.serial(), None, now, LIFE));
        }
        assert!(!states.is_first_use(states.serial(), None, now, LIFE));
        // Expired states make room.
        let later = now + LIFE + Duration::from_secs(2);
        assert!(states.is_first_use(states.serial(), None, later, LIFE));
        assert_eq!(states.used.lock().states.len(), 1);
    }

    #[test]
    fn one_principal_leaves_room_for_the_states_of_others() {
        let (states, now) = (UsedStates::new(0), Instant::now());
        let [hog, victim] = ["hog", "victim"].map(|name| PrincipalId::Key(name.into()));
        let first_use = |of| states.is_first_use(states.serial(), Some(of), now, LIFE);
        let n_remembered = (0..USED_STATES_MAX).filter(|_| first_use(&hog)).count();
        assert_eq!(n_remembered, USED_STATES_MAX / 4 * 3);
        assert!(first_use(&victim));
    }
}
