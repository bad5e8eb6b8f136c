//! The way to an upstream's shared session: exactly one thread opens it, without a lock, while
//! the others wait on their bells.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Stage;
use crate::wait::{Interrupted, Wait};

use crate::upstream::failure::{Failure, FailureKind};

/// A session that may be open, and whoever wants it.
pub(crate) struct SingleFlight<T> {
    /// Counted over all doors of an upstream, so that a later session always has a higher one.
    generations: Arc<AtomicU64>,
    inner: Mutex<Inner<T>>,
}

struct Inner<T> {
    open: Option<(u64, Arc<T>)>,
    /// The attempt that is being made.
    opening: bool,
    attempts: u64,
    /// The last attempt that failed, and why.
    failed: Option<(u64, Failure)>,
    waiting: Vec<Arc<Wait>>,
    closed: bool,
}

enum Turn<T> {
    Open(u64, Arc<T>),
    Mine { attempt: u64, generation: u64 },
    Theirs { attempt: u64 },
}

impl<T> SingleFlight<T> {
    pub(crate) fn new(generations: Arc<AtomicU64>) -> SingleFlight<T> {
        let inner = Inner {
            open: None,
            opening: false,
            attempts: 0,
            failed: None,
            waiting: Vec::new(),
            closed: false,
        };
        SingleFlight { generations, inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open session and its generation; opened by `make`, which is told the generation to
    /// be, if there is none and nobody else is at it.
    pub(crate) fn open(
        &self,
        wait: &Arc<Wait>,
        make: impl FnOnce(u64) -> Result<T, Failure>,
    ) -> Result<(u64, Arc<T>), Failure> {
        let mut waited_for = None;
        loop {
            match self.turn(wait, waited_for)? {
                Turn::Open(generation, session) => return Ok((generation, session)),
                Turn::Mine { attempt, generation } => {
                    let attempt = Attempt { single_flight: self, attempt, outcome: None };
                    return attempt.finish(generation, make(generation));
                }
                Turn::Theirs { attempt } => waited_for = Some(attempt),
            }
            wait.until(None, None)
                .map_err(|reason| Failure::interrupted(reason, Stage::Handshake, false))?;
        }
    }

    fn turn(&self, wait: &Arc<Wait>, waited_for: Option<u64>) -> Result<Turn<T>, Failure> {
        let mut inner = self.lock();
        if inner.closed {
            let reason = Interrupted::Stopping;
            return Err(Failure::interrupted(reason, Stage::Handshake, false));
        }
        if let Some((generation, session)) = &inner.open {
            return Ok(Turn::Open(*generation, session.clone()));
        }
        if inner.opening {
            if waited_for != Some(inner.attempts) {
                inner.waiting.push(wait.clone());
            }
            return Ok(Turn::Theirs { attempt: inner.attempts });
        }
        if let Some((attempt, failure)) = &inner.failed
            && waited_for == Some(*attempt)
            // If only the one who opened was interrupted, the next one tries.
            && !matches!(failure.kind, FailureKind::Interrupted(_))
        {
            return Err(failure.clone());
        }
        inner.opening = true;
        inner.attempts += 1;
        let generation = self.next_generation();
        Ok(Turn::Mine { attempt: inner.attempts, generation })
    }

    /// The open session, if there is one.
    pub(crate) fn current(&self) -> Option<(u64, Arc<T>)> {
        self.lock().open.clone()
    }

    /// Lets go of the session of this generation. What is given back must be dropped where no
    /// lock is held.
    pub(crate) fn forget(&self, generation: u64) -> Option<Arc<T>> {
        let mut inner = self.lock();
        let same = inner.open.as_ref().is_some_and(|(open, _)| *open == generation);
        if same { inner.open.take().map(|(_, session)| session) } else { None }
    }

    /// The generation of a session that is opened besides the one that is open.
    pub(crate) fn next_generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Puts a session in the place of the one of generation `old`, which is given back and must
    /// be dropped where no lock is held.
    ///
    /// # Errors
    /// That one is not open any more; the session that was to take its place is given back.
    pub(crate) fn replace(&self, old: u64, generation: u64, session: T) -> Result<Arc<T>, T> {
        let mut inner = self.lock();
        match inner.open.take() {
            Some((open, before)) if open == old && !inner.closed => {
                inner.open = Some((generation, Arc::new(session)));
                Ok(before)
            }
            other => {
                inner.open = other;
                Err(session)
            }
        }
    }

    /// Lets go of the session; none is opened any more.
    pub(crate) fn close(&self) -> Option<Arc<T>> {
        let (session, waiting) = {
            let mut inner = self.lock();
            inner.closed = true;
            (inner.open.take(), std::mem::take(&mut inner.waiting))
        };
        waiting.iter().for_each(|wait| wait.bell().ring());
        session.map(|(_, session)| session)
    }
}

/// An attempt to open; whatever way it ends, those who wait are woken.
struct Attempt<'a, T> {
    single_flight: &'a SingleFlight<T>,
    attempt: u64,
    outcome: Option<Result<(u64, Arc<T>), Failure>>,
}

impl<T> Attempt<'_, T> {
    fn finish(
        mut self,
        generation: u64,
        made: Result<T, Failure>,
    ) -> Result<(u64, Arc<T>), Failure> {
        let outcome = made.map(|session| (generation, Arc::new(session)));
        self.outcome = Some(outcome.clone());
        outcome
    }
}

impl<T> Drop for Attempt<'_, T> {
    fn drop(&mut self) {
        let waiting = {
            let mut inner = self.single_flight.lock();
            inner.opening = false;
            match self.outcome.take() {
                Some(Ok(open)) if !inner.closed => inner.open = Some(open),
                Some(Ok(_)) => (),
                Some(Err(failure)) => inner.failed = Some((self.attempt, failure)),
                // The opener panicked; the next one tries.
                None => inner.failed = None,
            }
            std::mem::take(&mut inner.waiting)
        };
        waiting.iter().for_each(|wait| wait.bell().ring());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    fn wait() -> Arc<Wait> {
        Wait::plain(Duration::from_secs(5)).unwrap()
    }

    #[test]
    fn one_opens_and_all_others_get_the_same() {
        let single_flight = SingleFlight::new(Arc::default());
        let opened = AtomicUsize::new(0);
        let sum: usize = std::thread::scope(|scope| {
            let open = || {
                let (_, session) = single_flight
                    .open(&wait(), |_| {
                        opened.fetch_add(1, Ordering::SeqCst);
                        Ok(7_usize)
                    })
                    .unwrap();
                *session
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((sum, opened.into_inner()), (56, 1));
    }

    #[test]
    fn those_who_waited_share_the_failure_and_later_ones_try_again() {
        let single_flight = SingleFlight::<()>::new(Arc::default());
        let refused = Failure::new(FailureKind::Broke, Stage::Connect, "refused");
        let result = single_flight.open(&wait(), |_| Err(refused.clone()));
        assert_eq!(result.unwrap_err(), refused);
        let (generation, _) = single_flight.open(&wait(), |_| Ok(())).unwrap();
        assert_eq!(generation, 2);
        assert!(single_flight.forget(1).is_none());
        assert!(single_flight.forget(2).is_some());
    }

    #[test]
    fn a_closed_door_opens_no_more() {
        let single_flight = SingleFlight::<()>::new(Arc::default());
        assert!(single_flight.close().is_none());
        assert!(single_flight.open(&wait(), |_| Ok(())).is_err());
    }
}
