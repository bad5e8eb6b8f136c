//! The requests that wait for the next snapshot: bounded in number, by principal, and each woken
//! by the bell of its own wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard};

use crate::fair_shares::Shares;
use crate::protocol::call::PrincipalId;
use crate::sync::Mutex;
use crate::wait::{Interrupted, Wait};

/// The waits of requests that the next snapshot may answer.
#[derive(Debug)]
pub struct Waiting {
    state: Mutex<State>,
    /// A copy of the state's `ended`, for a thread that reads it often.
    is_ended: AtomicBool,
}

#[derive(Debug)]
struct State {
    waits: Vec<Arc<Wait>>,
    /// The number of waits of each principal.
    shares: Shares<PrincipalId>,
    /// The reason why no request may wait any more.
    ended: Option<Interrupted>,
}

/// A wait that is woken by every snapshot, until this is dropped.
#[derive(Debug)]
pub struct Place<'a> {
    waiting: &'a Waiting,
    wait: Arc<Wait>,
    charged: Option<PrincipalId>,
    /// False for a wait that came after the end, which takes no place.
    is_taken: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.waiting.lock();
        if let Some(index) = state.waits.iter().position(|wait| Arc::ptr_eq(wait, &self.wait)) {
            state.waits.swap_remove(index);
        }
        if self.is_taken {
            state.shares.give_back_of(self.charged.as_ref(), 1);
        }
    }
}

impl Waiting {
    /// At most `max` requests wait at once.
    pub(super) fn new(max: usize) -> Waiting {
        let shares = Shares::new(max.max(1));
        let state = Mutex::new(State { waits: Vec::new(), shares, ended: None });
        Waiting { state, is_ended: AtomicBool::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// A place among the waiting requests. Its holder must look at the current snapshot before it
    /// waits, because an earlier snapshot rang no bell. None where the number of waits is
    /// reached, of all or of the principal that is charged.
    pub fn enter(&self, charged: Option<&PrincipalId>, wait: &Arc<Wait>) -> Option<Place<'_>> {
        let mut state = self.lock();
        let is_taken = state.ended.is_none();
        if let Some(reason) = state.ended {
            wait.interrupt(reason);
        } else {
            state.shares.take_of(charged, 1).ok()?;
        }
        state.waits.push(wait.clone());
        Some(Place { waiting: self, wait: wait.clone(), charged: charged.cloned(), is_taken })
    }

    /// The number of waits, and the most that may be at once.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.waits.len(), state.shares.max())
    }

    /// Wakes all waits, because there is another snapshot.
    pub(super) fn wake(&self) {
        self.lock().waits.iter().for_each(|wait| wait.bell().ring());
    }

    /// True if no request waits any more, because the process ends.
    pub(super) fn is_ended(&self) -> bool {
        self.is_ended.load(Ordering::Relaxed)
    }

    /// Ends all these waits; no request waits here any more, and no further snapshot is made.
    pub fn end(&self, reason: Interrupted) {
        self.is_ended.store(true, Ordering::Relaxed);
        let mut state = self.lock();
        state.ended = Some(reason);
        state.waits.iter().for_each(|wait| wait.interrupt(reason));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::Woken;
    use std::time::Duration;

    const SOON: Duration = Duration::from_millis(1);

    fn wait() -> Arc<Wait> {
        Wait::plain(Duration::from_secs(5)).unwrap()
    }

    #[test]
    fn a_snapshot_wakes_those_who_wait_and_nobody_else() {
        let waiting = Waiting::new(2);
        let (first, second) = (wait(), wait());
        let place = waiting.enter(None, &first).unwrap();
        drop(waiting.enter(None, &second).unwrap());
        waiting.wake();
        assert_eq!(first.until(None, Some(SOON)), Ok(Woken::Bell));
        assert_eq!(second.until(None, Some(SOON)), Ok(Woken::Tick));
        drop(place);
        waiting.wake();
        assert_eq!(first.until(None, Some(SOON)), Ok(Woken::Tick));
    }

    #[test]
    fn only_so_many_wait_at_once() {
        let waiting = Waiting::new(1);
        let place = waiting.enter(None, &wait());
        assert!(place.is_some() && waiting.enter(None, &wait()).is_none());
        assert_eq!(waiting.counts(), (1, 1));
        drop(place);
        assert!(waiting.enter(None, &wait()).is_some());
    }

    #[test]
    fn one_that_asks_for_what_is_not_there_leaves_the_others_their_share() {
        let waiting = Waiting::new(8);
        let (hog, victim) = (PrincipalId::Key("hog".into()), PrincipalId::Key("victim".into()));
        let all_of = |who: &PrincipalId| -> Vec<_> {
            std::iter::from_fn(|| waiting.enter(Some(who), &wait())).collect()
        };
        let held = all_of(&hog);
        assert_eq!((held.len(), all_of(&victim).len()), (6, 2));
        drop(held);
        assert_eq!(all_of(&victim).len(), 6);
    }

    #[test]
    fn a_stop_ends_all_waits_and_those_that_come_later() {
        let waiting = Waiting::new(1);
        let first = wait();
        let _place = waiting.enter(None, &first);
        waiting.end(Interrupted::Stopping);
        assert_eq!(first.until(None, None), Err(Interrupted::Stopping));
        let later = wait();
        let _place = waiting.enter(None, &later);
        assert_eq!(later.until(None, None), Err(Interrupted::Stopping));
    }
}
