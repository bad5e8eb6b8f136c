//! Whoever waits for the next snapshot: bounded in number, and woken by the bell of its own wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::wait::{Interrupted, Wait};

/// The waits of requests that the next snapshot may answer.
#[derive(Debug)]
pub struct Waiting {
    max: usize,
    state: Mutex<State>,
    /// The same as in the state, for who looks often.
    is_ended: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    waits: Vec<Arc<Wait>>,
    /// Why nobody may wait any more.
    ended: Option<Interrupted>,
}

/// A wait that is woken by every snapshot, until this is dropped.
#[derive(Debug)]
pub struct Place<'a> {
    waiting: &'a Waiting,
    wait: Arc<Wait>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let waits = &mut self.waiting.lock().waits;
        if let Some(index) = waits.iter().position(|wait| Arc::ptr_eq(wait, &self.wait)) {
            waits.swap_remove(index);
        }
    }
}

impl Waiting {
    /// At most `max` requests wait at once.
    pub(super) fn new(max: usize) -> Waiting {
        Waiting { max: max.max(1), state: Mutex::default(), is_ended: AtomicBool::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place among those who wait. Whoever has it must look at the current snapshot before it
    /// waits, because an earlier one rang no bell. None where as many wait as may.
    pub fn enter(&self, wait: &Arc<Wait>) -> Option<Place<'_>> {
        let mut state = self.lock();
        if let Some(reason) = state.ended {
            wait.interrupt(reason);
        } else if state.waits.len() >= self.max {
            return None;
        }
        state.waits.push(wait.clone());
        Some(Place { waiting: self, wait: wait.clone() })
    }

    /// How many wait, and how many may at once.
    pub fn counts(&self) -> (usize, usize) {
        (self.lock().waits.len(), self.max)
    }

    /// There is another snapshot.
    pub(super) fn wake(&self) {
        self.lock().waits.iter().for_each(|wait| wait.bell().ring());
    }

    /// Whether nobody waits any more, because the process ends.
    pub(super) fn is_ended(&self) -> bool {
        self.is_ended.load(Ordering::Relaxed)
    }

    /// Ends all these waits; nobody waits here any more, and no further snapshot is made.
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
        let place = waiting.enter(&first).unwrap();
        drop(waiting.enter(&second).unwrap());
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
        let place = waiting.enter(&wait());
        assert!(place.is_some() && waiting.enter(&wait()).is_none());
        assert_eq!(waiting.counts(), (1, 1));
        drop(place);
        assert!(waiting.enter(&wait()).is_some());
    }

    #[test]
    fn a_stop_ends_all_waits_and_those_that_come_later() {
        let waiting = Waiting::new(1);
        let first = wait();
        let _place = waiting.enter(&first);
        waiting.end(Interrupted::Stopping);
        assert_eq!(first.until(None, None), Err(Interrupted::Stopping));
        let later = wait();
        let _place = waiting.enter(&later);
        assert_eq!(later.until(None, None), Err(Interrupted::Stopping));
    }
}
