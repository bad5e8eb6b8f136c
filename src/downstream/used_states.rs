//! Which states of [`super::request_state`] have come back. A retry costs its key no call, so each
//! state is good for one retry that is free; made again, it is a call like any other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::USED_STATES_MAX;

/// The states that have come back and have not expired.
#[derive(Debug)]
pub struct UsedStates {
    last_serial: AtomicU64,
    /// Until when each is remembered.
    used: Mutex<HashMap<u64, Instant>>,
}

impl UsedStates {
    /// None yet. `boot` is random, so that no two processes give the same serial numbers.
    pub fn new(boot: u64) -> UsedStates {
        UsedStates { last_serial: AtomicU64::new(boot), used: Mutex::default() }
    }

    /// A number for a new state, unlike all others.
    pub(super) fn serial(&self) -> u64 {
        self.last_serial.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// Whether the state of that number comes back for the first time. It is remembered for
    /// `life`, by when it has expired; one that cannot be remembered counts as used.
    pub(super) fn is_first_use(&self, serial: u64, now: Instant, life: Duration) -> bool {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= USED_STATES_MAX {
            used.retain(|_, expires| now < *expires);
        }
        if used.len() >= USED_STATES_MAX || used.contains_key(&serial) {
            return false;
        }
        // A state's own time counts in whole seconds.
        used.insert(serial, now + life + Duration::from_secs(1));
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
        assert!(states.is_first_use(first, now, LIFE));
        assert!(states.is_first_use(second, now, LIFE));
        assert!(!states.is_first_use(first, now + LIFE, LIFE));
    }

    #[test]
    fn what_cannot_be_remembered_counts_as_used() {
        let (states, now) = (UsedStates::new(0), Instant::now());
        for _ in 0..USED_STATES_MAX {
            assert!(states.is_first_use(states.serial(), now, LIFE));
        }
        assert!(!states.is_first_use(states.serial(), now, LIFE));
        // Expired ones make room.
        let later = now + LIFE + Duration::from_secs(2);
        assert!(states.is_first_use(states.serial(), later, LIFE));
        assert_eq!(states.used.lock().unwrap().len(), 1);
    }
}
