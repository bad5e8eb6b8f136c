//! The way to an open session: exactly one thread opens it, without a lock, while the others
//! wait on their bells.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::error::Stage;
use crate::wait::{Interrupted, Wait};

use crate::upstream::failure::{Failure, FailureKind};

/// Who opens a session that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenedBy {
    /// Whoever needs it: what opens it ends with the wait of a call.
    Calls,
    /// The thread that looks after it, always.
    Supervisor,
    /// The thread that looks after it, once a call wants it.
    SupervisorOnDemand,
}

/// Who wants the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    Call,
    /// The thread that looks after it.
    Supervisor,
}

/// A session that may be open, and whoever wants it.
pub(super) struct SingleFlight<T> {
    opener: OpenedBy,
    /// True of a session that nobody can use any more, until its supervisor has seen that.
    is_dead: fn(&T) -> bool,
    /// Counted over all sessions of one owner, so that a later one always has a higher number.
    generations: Arc<AtomicU64>,
    state: Mutex<State<T>>,
}

/// An open session and its generation.
pub(super) type Opened<T> = (u64, Arc<T>);

struct State<T> {
    phase: Phase<T>,
    attempts: u64,
    waiting: Vec<Arc<Wait>>,
}

enum Phase<T> {
    /// It is not wanted.
    Closed,
    /// It is opened, or its supervisor is about to.
    Opening {
        since: Instant,
    },
    Open(Opened<T>),
    /// The last attempt has failed.
    Down {
        failure: Failure,
        next_try: Instant,
        attempt: u64,
    },
    /// None is opened any more.
    Ended,
}

enum Turn<T> {
    Open(Opened<T>),
    Mine {
        attempt: u64,
        generation: u64,
    },
    /// Somebody else opens it, for the first time wanted by this one if so.
    Theirs {
        attempt: u64,
        is_wanted: bool,
    },
}

impl<T> SingleFlight<T> {
    pub(super) fn new(
        opener: OpenedBy,
        is_dead: fn(&T) -> bool,
        generations: Arc<AtomicU64>,
    ) -> SingleFlight<T> {
        let state = State { phase: unopened(opener), attempts: 0, waiting: Vec::new() };
        SingleFlight { opener, is_dead, generations, state: Mutex::new(state) }
    }

    pub(super) fn opener(&self) -> OpenedBy {
        self.opener
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open session and its generation. If there is none, and it is for the caller to open
    /// one and nobody else is at it, `make` does, which is told the generation to be. Else this
    /// waits, after `want` where the supervisor must be told.
    ///
    /// # Errors
    /// The wait has ended, the attempt that was waited for has failed, or none is to be made yet.
    pub(super) fn open(
        &self,
        who: For,
        wait: &Arc<Wait>,
        want: impl Fn(),
        make: impl FnOnce(u64) -> Result<T, Failure>,
    ) -> Result<Opened<T>, Failure> {
        let mut waited_for = None;
        loop {
            match self.turn(who, wait, waited_for)? {
                Turn::Open(open) => return Ok(open),
                Turn::Mine { attempt, generation } => {
                    let attempt = Attempt { flight: self, attempt, outcome: None };
                    return attempt.finish(generation, make(generation));
                }
                Turn::Theirs { attempt, is_wanted } => {
                    waited_for = Some(attempt);
                    if is_wanted {
                        want();
                    }
                }
            }
            if let Err(reason) = wait.until(None, None) {
                return Err(self.given_up(wait, reason));
            }
        }
    }

    fn turn(
        &self,
        who: For,
        wait: &Arc<Wait>,
        waited_for: Option<u64>,
    ) -> Result<Turn<T>, Failure> {
        let mut state = self.lock();
        let now = Instant::now();
        let may_open = self.opener == OpenedBy::Calls || who == For::Supervisor;
        let on_demand = self.opener == OpenedBy::SupervisorOnDemand;
        let is_wanted = match &state.phase {
            Phase::Ended => {
                return Err(Failure::interrupted(Interrupted::Stopping, self.stage(), false));
            }
            Phase::Open((_, session)) if !may_open && (self.is_dead)(session) => false,
            Phase::Open(open) => return Ok(Turn::Open(open.clone())),
            Phase::Opening { .. } if may_open && self.opener != OpenedBy::Calls => {
                return Ok(self.begin(&mut state));
            }
            Phase::Opening { .. } => false,
            Phase::Closed if may_open => return Ok(self.begin(&mut state)),
            Phase::Closed => true,
            // If only the one who opened was interrupted, the next one tries.
            Phase::Down { failure, attempt, .. } if self.opener == OpenedBy::Calls => {
                let is_shared = waited_for == Some(*attempt)
                    && !matches!(failure.kind, FailureKind::Interrupted(_));
                return if is_shared {
                    Err(failure.clone())
                } else {
                    Ok(self.begin(&mut state))
                };
            }
            Phase::Down { failure, next_try, .. } => {
                let is_early = *next_try > now && (on_demand || !may_open);
                // One attempt is enough for a call.
                if is_early || !may_open && on_demand && waited_for.is_some() {
                    return Err(down(failure));
                }
                if may_open {
                    return Ok(self.begin(&mut state));
                }
                // Else the supervisor is about to try.
                on_demand
            }
        };
        if is_wanted {
            state.phase = opening();
        }
        if !state.waiting.iter().any(|other| Arc::ptr_eq(other, wait)) {
            state.waiting.push(wait.clone());
        }
        Ok(Turn::Theirs { attempt: state.attempts, is_wanted })
    }

    fn begin(&self, state: &mut State<T>) -> Turn<T> {
        state.phase = opening();
        state.attempts += 1;
        Turn::Mine { attempt: state.attempts, generation: self.next_generation() }
    }

    /// Why one that waited for somebody else has no session.
    fn given_up(&self, wait: &Arc<Wait>, reason: Interrupted) -> Failure {
        let mut state = self.lock();
        state.waiting.retain(|other| !Arc::ptr_eq(other, wait));
        let mut failure = Failure::interrupted(reason, self.stage(), false);
        if let Phase::Opening { since } = &state.phase
            && self.opener != OpenedBy::Calls
        {
            failure.starting = Some(since.elapsed());
        }
        failure
    }

    fn stage(&self) -> Stage {
        match self.opener {
            OpenedBy::Calls => Stage::Handshake,
            OpenedBy::Supervisor | OpenedBy::SupervisorOnDemand => Stage::Spawn,
        }
    }

    /// The open session, if there is one.
    pub(super) fn current(&self) -> Option<Opened<T>> {
        let Phase::Open(open) = &self.lock().phase else { return None };
        Some(open.clone())
    }

    /// Enters a phase and wakes whoever waited for it; gives back the session that was open,
    /// which must be ended or dropped where no lock is held.
    fn enter(&self, next: impl FnOnce(&Phase<T>) -> Option<Phase<T>>) -> Option<Opened<T>> {
        let (before, waiting) = {
            let mut state = self.lock();
            if matches!(state.phase, Phase::Ended) {
                return None;
            }
            let next = next(&state.phase)?;
            let before = std::mem::replace(&mut state.phase, next);
            (before, std::mem::take(&mut state.waiting))
        };
        waiting.iter().for_each(|wait| wait.bell().ring());
        let Phase::Open(open) = before else { return None };
        Some(open)
    }

    /// Lets go of the session of this generation. `rest`: why the next one is not to be opened
    /// at once, and when it is.
    pub(super) fn forget(
        &self,
        generation: u64,
        rest: impl FnOnce(&T) -> Option<(Failure, Instant)>,
    ) -> Option<Opened<T>> {
        self.enter(|phase| {
            let Phase::Open((open, session)) = phase else { return None };
            (*open == generation).then(|| match rest(session) {
                Some((failure, next_try)) => down_until(failure, next_try),
                None => unopened(self.opener),
            })
        })
    }

    /// The generation of a session that is opened besides the one that is open.
    pub(super) fn next_generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// True if another session than the one of this generation is open, or is to be opened.
    pub(super) fn is_replaced(&self, generation: u64) -> bool {
        self.current().is_none_or(|(open, _)| open != generation)
    }

    /// Puts a session in the place of the one of generation `old`, which is given back and must
    /// be dropped where no lock is held.
    ///
    /// # Errors
    /// That one is not open any more; the session that was to take its place is given back.
    pub(super) fn replace(&self, old: u64, generation: u64, session: T) -> Result<Arc<T>, T> {
        let mut state = self.lock();
        if let Phase::Open(open) = &mut state.phase
            && open.0 == old
        {
            return Ok(std::mem::replace(open, (generation, Arc::new(session))).1);
        }
        Err(session)
    }

    /// It could not be opened, or is of no use: the next attempt is made then. Gives back what was
    /// open.
    pub(super) fn wait_until(&self, failure: Failure, next_try: Instant) -> Option<Opened<T>> {
        self.enter(|_| Some(down_until(failure, next_try)))
    }

    /// When the next attempt is made, after one that failed.
    pub(super) fn next_try(&self) -> Option<Instant> {
        let Phase::Down { next_try, .. } = &self.lock().phase else { return None };
        Some(*next_try)
    }

    /// The next attempt is made now.
    pub(super) fn hasten(&self) {
        if let Phase::Down { next_try, .. } = &mut self.lock().phase {
            *next_try = Instant::now();
        }
    }

    /// Lets go of the session; none is opened any more.
    pub(super) fn close(&self) -> Option<Opened<T>> {
        self.enter(|_| Some(Phase::Ended))
    }
}

fn opening<T>() -> Phase<T> {
    Phase::Opening { since: Instant::now() }
}

/// Where there is no session and nobody opens one.
fn unopened<T>(opener: OpenedBy) -> Phase<T> {
    match opener {
        OpenedBy::Calls | OpenedBy::SupervisorOnDemand => Phase::Closed,
        OpenedBy::Supervisor => opening(),
    }
}

fn down_until<T>(failure: Failure, next_try: Instant) -> Phase<T> {
    Phase::Down { failure, next_try, attempt: 0 }
}

/// What a call is told while there is no session.
fn down(failure: &Failure) -> Failure {
    if failure.is_stateless() {
        return failure.clone();
    }
    Failure::new(FailureKind::Broke, failure.stage, failure.message.clone())
}

/// An attempt to open; whatever way it ends, those who wait are woken.
struct Attempt<'a, T> {
    flight: &'a SingleFlight<T>,
    attempt: u64,
    outcome: Option<Result<Opened<T>, Failure>>,
}

impl<T> Attempt<'_, T> {
    fn finish(
        mut self,
        generation: u64,
        made: Result<T, Failure>,
    ) -> Result<Opened<T>, Failure> {
        let outcome = made.map(|session| (generation, Arc::new(session)));
        self.outcome = Some(outcome.clone());
        outcome
    }
}

impl<T> Drop for Attempt<'_, T> {
    fn drop(&mut self) {
        let (outcome, attempt, opener) =
            (self.outcome.take(), self.attempt, self.flight.opener);
        let replaced = self.flight.enter(|_| match outcome {
            Some(Ok(open)) => Some(Phase::Open(open)),
            Some(Err(failure)) if opener == OpenedBy::Calls => {
                Some(Phase::Down { failure, next_try: Instant::now(), attempt })
            }
            // Its supervisor says when it tries again.
            Some(Err(_)) => None,
            // The opener panicked; the next one tries.
            None => Some(unopened(opener)),
        });
        drop(replaced);
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

    fn flight<T>(opener: OpenedBy) -> SingleFlight<T> {
        SingleFlight::new(opener, |_| false, Arc::default())
    }

    fn refused() -> Failure {
        Failure::new(FailureKind::Broke, Stage::Connect, "refused")
    }

    /// Opens `flight` for a call, which must find it open or open it.
    fn open<T>(flight: &SingleFlight<T>, session: T) -> Result<Opened<T>, Failure> {
        flight.open(For::Call, &wait(), || (), |_| Ok(session))
    }

    #[test]
    fn one_opens_and_all_others_get_the_same() {
        let flight = flight(OpenedBy::Calls);
        let opened = AtomicUsize::new(0);
        let sum: usize = std::thread::scope(|scope| {
            let open = || {
                let make = |_| {
                    opened.fetch_add(1, Ordering::SeqCst);
                    Ok(7_usize)
                };
                *flight.open(For::Call, &wait(), || (), make).unwrap().1
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((sum, opened.into_inner()), (56, 1));
    }

    #[test]
    fn those_who_waited_share_the_failure_and_later_ones_try_again() {
        let flight = flight::<()>(OpenedBy::Calls);
        let result = flight.open(For::Call, &wait(), || (), |_| Err(refused()));
        assert_eq!(result.unwrap_err(), refused());
        let (generation, _) = open(&flight, ()).unwrap();
        assert_eq!(generation, 2);
        assert!(flight.forget(1, |()| None).is_none());
        assert!(flight.forget(2, |()| None).is_some());
    }

    #[test]
    fn what_has_ended_opens_no_more() {
        for opener in [OpenedBy::Calls, OpenedBy::Supervisor, OpenedBy::SupervisorOnDemand] {
            let flight = flight::<()>(opener);
            assert!(flight.close().is_none());
            assert!(open(&flight, ()).is_err());
        }
    }

    #[test]
    fn a_session_that_its_supervisor_opens_is_waited_for_or_wanted() {
        let late = || Wait::plain(Duration::from_millis(20)).unwrap();
        for (opener, n_wanted) in [(OpenedBy::Supervisor, 0), (OpenedBy::SupervisorOnDemand, 1)]
        {
            let (flight, wanted) = (flight(opener), AtomicUsize::new(0));
            let want = || {
                wanted.fetch_add(1, Ordering::SeqCst);
            };
            let call = |wait: &Arc<Wait>| {
                flight.open(For::Call, wait, want, |_| panic!("it is not for a call"))
            };
            let failure = call(&late()).unwrap_err();
            assert_eq!(failure.kind, FailureKind::Interrupted(Interrupted::Deadline));
            assert!(failure.starting.is_some());
            std::thread::scope(|scope| {
                let waits = scope.spawn(|| call(&wait()).unwrap());
                flight.open(For::Supervisor, &wait(), || (), |_| Ok(7)).unwrap();
                assert_eq!(*waits.join().unwrap().1, 7);
            });
            assert_eq!(wanted.load(Ordering::SeqCst), n_wanted);
            let next_try = Instant::now() + Duration::from_secs(60);
            flight.wait_until(refused(), next_try);
            assert_eq!(call(&wait()).unwrap_err().message, refused().message);
            flight.hasten();
            assert!(
                call(&late()).unwrap_err().kind != FailureKind::Broke,
                "it is about to be opened"
            );
        }
    }
}
