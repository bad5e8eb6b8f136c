//! The bounded slots of one upstream and the bounded wait for one.
//!
//! Both are shared by principals (`fair_shares.rs`): none holds all slots, nor all places of the queue.
//! A slot that comes free is handed to the principal whose turn it is, and to the call of it that
//! has waited longest; without anybody waiting, the slot used last is the first to be used again,
//! because its connection is warm.

use std::cell::Cell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Stage;
use crate::fair_shares::{NotTaken, Shares};
use crate::protocol::call::PrincipalId;
use crate::protocol::server_name::ServerName;
use crate::wait::{Interrupted, Wait};

use crate::upstream::failure::{Failure, FailureKind};
use crate::upstream::fair_queue::FairQueue;

/// The slots of one upstream, each of which owns a `T`.
pub(crate) struct ConcurrencyLimit<T> {
    server: ServerName,
    max_in_flight: usize,
    max_waiting: usize,
    state: Mutex<State<T>>,
}

struct State<T> {
    /// Used last is last.
    free: Vec<T>,
    /// How many of those, the first ones, nobody has used since the last sweep.
    unused: usize,
    /// Whose share of the slots the calls take that hold one.
    shares: Shares<PrincipalId>,
    /// Who holds a slot.
    held: Vec<Holder>,
    /// Who goes on without one: a client's answer is waited for.
    lent: Vec<(u64, Arc<Wait>)>,
    /// Who waits for one.
    waiting: FairQueue<PrincipalId, (u64, Arc<Wait>)>,
    /// ConcurrencyLimit handed to waiters that have not looked yet.
    handed: Vec<(u64, T)>,
    tickets: u64,
    /// Why nobody gets a slot any more.
    stopped: Option<Interrupted>,
}

/// A call that holds a slot.
struct Holder {
    ticket: u64,
    wait: Arc<Wait>,
    charged: Option<PrincipalId>,
}

/// A slot that is held; dropping it gives it back.
pub(crate) struct Permit<'a, T: Default> {
    concurrency: &'a ConcurrencyLimit<T>,
    ticket: u64,
    value: Option<T>,
}

/// The place of a slot whose value is in use elsewhere. Lending it lets another call in, with a
/// value of its own.
pub(crate) struct HeldPermit<'a, T: Default> {
    concurrency: &'a ConcurrencyLimit<T>,
    ticket: u64,
    kept: Cell<Kept>,
}

/// What has become of a held place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    Held,
    Lent,
    Left,
}

impl<T: Default> HeldPermit<'_, T> {
    /// Lends the place to the next call; the value it came with is not given back any more.
    pub(crate) fn lend(&self) {
        if self.kept.get() == Kept::Held {
            self.kept.set(Kept::Lent);
            self.concurrency.lend(self.ticket);
            self.concurrency.give_back(self.ticket, T::default());
        }
    }

    /// Gives the value back, if the place was kept.
    pub(crate) fn leave(self, value: T) {
        if self.kept.get() == Kept::Held {
            self.kept.set(Kept::Left);
            self.concurrency.give_back(self.ticket, value);
        }
    }
}

impl<T: Default> Drop for HeldPermit<'_, T> {
    fn drop(&mut self) {
        match self.kept.get() {
            Kept::Held => self.concurrency.give_back(self.ticket, T::default()),
            Kept::Lent => {
                self.concurrency.lock().lent.retain(|(ticket, _)| *ticket != self.ticket);
            }
            Kept::Left => (),
        }
    }
}

impl<T: Default> ConcurrencyLimit<T> {
    pub(crate) fn new(
        server: ServerName,
        max_in_flight: usize,
        max_waiting: usize,
    ) -> ConcurrencyLimit<T> {
        let state = State {
            free: Vec::new(),
            unused: 0,
            shares: Shares::long_held(max_in_flight.max(1)),
            held: Vec::new(),
            lent: Vec::new(),
            waiting: FairQueue::new(max_waiting),
            handed: Vec::new(),
            tickets: 0,
            stopped: None,
        };
        ConcurrencyLimit {
            server,
            max_in_flight: max_in_flight.max(1),
            max_waiting,
            state: Mutex::new(state),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// ConcurrencyLimit held, and calls that wait for one.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.held.len(), state.waiting.len())
    }

    /// Lets go of what no slot has used since the last time: connections, which nobody looks
    /// after while they are kept.
    pub(crate) fn sweep(&self) {
        let unused: Vec<T> = {
            let mut state = self.lock();
            let n_unused = state.unused;
            let unused = state.free.drain(..n_unused).collect();
            state.unused = state.free.len();
            unused
        };
        // Where no lock is held: it may close what is open.
        drop(unused);
    }

    /// Ends every wait, of those who hold a slot and of those who wait for one; nobody gets a
    /// slot any more. The first reason stands.
    pub(crate) fn interrupt(&self, reason: Interrupted) {
        let mut state = self.lock();
        state.stopped.get_or_insert(reason);
        let held = state.held.iter().map(|holder| &holder.wait);
        let others = state.lent.iter().chain(state.waiting.iter());
        for wait in held.chain(others.map(|(_, wait)| wait)) {
            wait.interrupt(reason);
        }
    }

    /// Takes a slot for a call, and for whoever is charged for it; waits for one if all are held,
    /// or what is left is kept for others.
    pub(crate) fn take(
        &self,
        charged: Option<&PrincipalId>,
        wait: &Arc<Wait>,
    ) -> Result<Permit<'_, T>, Failure> {
        let ticket = {
            let mut state = self.lock();
            if let Some(reason) = state.stopped {
                wait.interrupt(reason);
                return Err(Failure::interrupted(reason, Stage::Slot, false));
            }
            state.tickets += 1;
            let ticket = state.tickets;
            if let Some(value) = state.enter(charged, ticket, wait) {
                return Ok(Permit { concurrency: self, ticket, value: Some(value) });
            }
            let queued = state.waiting.push(charged, (ticket, wait.clone()));
            queued.map_err(|why| self.refused(why, state.waiting.share(charged)))?;
            ticket
        };
        loop {
            let woken = wait.until(None, None);
            if let Some(value) = self.collect(ticket) {
                // If the wait has ended, dropping the slot passes it on.
                let permit = Permit { concurrency: self, ticket, value: Some(value) };
                return match woken {
                    Ok(_) => Ok(permit),
                    Err(reason) => Err(Failure::interrupted(reason, Stage::Slot, false)),
                };
            }
            if let Err(reason) = woken {
                // A slot that was handed over meanwhile goes to the next in the queue.
                drop(self.give_up(charged, ticket));
                return Err(Failure::interrupted(reason, Stage::Slot, false));
            }
        }
    }

    fn refused(&self, why: NotTaken, share: usize) -> Failure {
        let (max, waiting, server) = (self.max_in_flight, self.max_waiting, &self.server);
        let what = match why {
            NotTaken::Full => format!(
                "{server} takes no more calls of this caller now (max_in_flight is {max}, max_waiting \
                 {waiting}; of each a caller has its share)"
            ),
            NotTaken::ShareHeld => format!(
                "so many calls to {server} wait as one caller may have waiting there: {share} now \
                 (its share of max_waiting, which is {waiting})"
            ),
        };
        Failure::new(FailureKind::Overloaded, Stage::Slot, what)
    }

    fn collect(&self, ticket: u64) -> Option<T> {
        let mut state = self.lock();
        let at = state.handed.iter().position(|(t, _)| *t == ticket)?;
        Some(state.handed.swap_remove(at).1)
    }

    /// Leaves the queue; gives the slot that was handed over in the meantime.
    fn give_up(&self, charged: Option<&PrincipalId>, ticket: u64) -> Option<Permit<'_, T>> {
        self.lock().waiting.remove(charged, |(t, _)| *t == ticket);
        let value = self.collect(ticket)?;
        Some(Permit { concurrency: self, ticket, value: Some(value) })
    }

    /// Notes that whoever holds a slot goes on without it.
    fn lend(&self, ticket: u64) {
        let mut state = self.lock();
        let held = state.held.iter().find(|holder| holder.ticket == ticket);
        let held = held.map(|holder| (ticket, holder.wait.clone()));
        state.lent.extend(held);
    }

    fn give_back(&self, ticket: u64, value: T) {
        let next = {
            let mut state = self.lock();
            state.leave(ticket);
            state.free.push(value);
            state.hand_over()
        };
        next.iter().for_each(|wait| wait.bell().ring());
    }
}

impl<T: Default> State<T> {
    /// Gives a call a slot, if one is left for it. Whoever has calls in the queue is not
    /// overtaken by another one of its own.
    fn enter(
        &mut self,
        charged: Option<&PrincipalId>,
        ticket: u64,
        wait: &Arc<Wait>,
    ) -> Option<T> {
        if !self.waiting.is_empty() && self.waiting.has(charged) {
            return None;
        }
        self.hold(charged.cloned(), ticket, wait)
    }

    fn hold(
        &mut self,
        charged: Option<PrincipalId>,
        ticket: u64,
        wait: &Arc<Wait>,
    ) -> Option<T> {
        self.shares.take_of(charged.as_ref(), 1).ok()?;
        self.held.push(Holder { ticket, wait: wait.clone(), charged });
        let value = self.free.pop().unwrap_or_default();
        self.unused = self.unused.min(self.free.len());
        Some(value)
    }

    fn leave(&mut self, ticket: u64) {
        if let Some(at) = self.held.iter().position(|holder| holder.ticket == ticket) {
            let holder = self.held.swap_remove(at);
            self.shares.give_back_of(holder.charged.as_ref(), 1);
        }
    }

    /// Hands slots over to those in the queue who may have one. Mostly it is the one that has
    /// come free; more where whoever has left makes the shares of the others larger.
    fn hand_over(&mut self) -> Vec<Arc<Wait>> {
        let mut handed = Vec::new();
        while let Some((charged, (ticket, wait))) =
            self.waiting.pop_of(|who| self.shares.may_take_of(who, 1).is_ok())
        {
            let Some(value) = self.hold(charged, ticket, &wait) else { break };
            self.handed.push((ticket, value));
            handed.push(wait);
        }
        handed
    }
}

impl<'a, T: Default> Permit<'a, T> {
    /// The value and its place, apart.
    pub(crate) fn apart(mut self) -> (T, HeldPermit<'a, T>) {
        let value = self.value.take().unwrap_or_default();
        (
            value,
            HeldPermit {
                concurrency: self.concurrency,
                ticket: self.ticket,
                kept: Cell::new(Kept::Held),
            },
        )
    }

    /// What the slot owns.
    #[cfg(test)]
    pub(crate) fn get(&mut self) -> &mut T {
        self.value.get_or_insert_default()
    }
}

impl<T: Default> Drop for Permit<'_, T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            self.concurrency.give_back(self.ticket, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    fn concurrency(max_in_flight: usize, max_waiting: usize) -> ConcurrencyLimit<Vec<u32>> {
        ConcurrencyLimit::new(ServerName::parse("s").unwrap(), max_in_flight, max_waiting)
    }

    fn wait(timeout_ms: u64) -> Arc<Wait> {
        Wait::plain(Duration::from_millis(timeout_ms)).unwrap()
    }

    #[test]
    fn what_nobody_has_used_between_two_sweeps_is_let_go() {
        let concurrency = concurrency(4, 4);
        let n_free = || concurrency.lock().free.len();
        let hold = |n: usize| {
            let held: Vec<_> =
                (0..n).map(|_| take(&concurrency, &wait(1000)).unwrap()).collect();
            drop(held);
        };
        hold(3);
        concurrency.sweep();
        assert_eq!(n_free(), 3, "they were used since the last time");
        hold(1);
        concurrency.sweep();
        assert_eq!(n_free(), 1);
        concurrency.sweep();
        assert_eq!(n_free(), 0);
        hold(2);
        assert_eq!(n_free(), 2);
    }

    fn take<'a>(
        concurrency: &'a ConcurrencyLimit<Vec<u32>>,
        wait: &Arc<Wait>,
    ) -> Result<Permit<'a, Vec<u32>>, Failure> {
        concurrency.take(None, wait)
    }

    #[test]
    fn a_place_that_is_given_up_lets_another_in_and_is_ended_at_a_stop() {
        let concurrency = concurrency(1, 0);
        let waiting = wait(5000);
        let (value, hold) = take(&concurrency, &waiting).unwrap().apart();
        assert!(take(&concurrency, &wait(10)).is_err());
        hold.lend();
        drop(take(&concurrency, &wait(10)).unwrap());
        hold.leave(value);
        assert_eq!(concurrency.counts(), (0, 0));
        let (_, hold) = take(&concurrency, &waiting).unwrap().apart();
        hold.lend();
        concurrency.interrupt(Interrupted::Stopping);
        assert_eq!(waiting.interrupted(), Some(Interrupted::Stopping));
        drop(hold);
    }

    #[test]
    fn the_slot_used_last_is_used_first() {
        let concurrency = concurrency(3, 0);
        let (mut one, mut two) =
            (take(&concurrency, &wait(100)).unwrap(), take(&concurrency, &wait(100)).unwrap());
        one.get().push(1);
        two.get().push(2);
        drop(one);
        drop(two);
        assert_eq!(take(&concurrency, &wait(100)).unwrap().get(), &vec![2]);
    }

    #[test]
    fn more_than_may_wait_are_refused_and_the_bound_is_named() {
        let concurrency = concurrency(1, 0);
        let held = take(&concurrency, &wait(100)).unwrap();
        let failure = take(&concurrency, &wait(100)).err().unwrap();
        assert_eq!(failure.kind, FailureKind::Overloaded);
        assert!(failure.message.contains("max_waiting"), "{}", failure.message);
        drop(held);
        assert!(take(&concurrency, &wait(100)).is_ok());
    }

    #[test]
    fn a_wait_that_ends_leaves_the_queue() {
        let concurrency = concurrency(1, 1);
        let held = take(&concurrency, &wait(100)).unwrap();
        let failure = take(&concurrency, &wait(20)).err().unwrap();
        assert_eq!(failure.kind, FailureKind::Interrupted(Interrupted::Deadline));
        assert_eq!(concurrency.counts(), (1, 0));
        drop(held);
        assert_eq!(concurrency.counts(), (0, 0));
    }

    #[test]
    fn a_slot_handed_to_one_who_has_gone_is_passed_on() {
        let concurrency = concurrency(1, 2);
        let held = take(&concurrency, &wait(1000)).unwrap();
        let gone = wait(1000);
        std::thread::scope(|scope| {
            let first = scope.spawn(|| take(&concurrency, &gone).map(drop));
            while concurrency.counts().1 < 1 {
                std::thread::yield_now();
            }
            let second = scope.spawn(|| take(&concurrency, &wait(5000)).map(drop));
            while concurrency.counts().1 < 2 {
                std::thread::yield_now();
            }
            // Whichever of the two the first one sees first, the second gets the slot.
            gone.interrupt(Interrupted::Cancelled);
            drop(held);
            first.join().unwrap().ok();
            assert_eq!(second.join().unwrap(), Ok(()));
        });
        assert_eq!(concurrency.counts(), (0, 0));
    }

    #[test]
    fn no_slot_is_lost_whatever_the_waits_do() {
        let concurrency = concurrency(3, 16);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for seed in 0..8_u64 {
                let (concurrency, over) = (&concurrency, &over);
                scope.spawn(move || {
                    let mut n = seed;
                    while !over.load(Ordering::Relaxed) {
                        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let taken = take(concurrency, &wait(n >> 62));
                        if n >> 40 & 3 == 0 {
                            std::thread::yield_now();
                        }
                        drop(taken);
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(300));
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!(concurrency.counts(), (0, 0));
        let all: Vec<_> = (0..3).map(|_| take(&concurrency, &wait(100)).unwrap()).collect();
        assert_eq!(concurrency.counts(), (3, 0));
        drop(all);
    }

    #[test]
    fn an_interruption_ends_all_and_nobody_gets_a_slot_afterwards() {
        let concurrency = concurrency(1, 1);
        let holder = wait(1000);
        let held = take(&concurrency, &holder).unwrap();
        concurrency.interrupt(Interrupted::Stopping);
        assert_eq!(holder.interrupted(), Some(Interrupted::Stopping));
        drop(held);
        assert!(take(&concurrency, &wait(100)).is_err());
    }

    fn key(name: &str) -> PrincipalId {
        PrincipalId::Key(name.into())
    }

    /// Calls that hold a slot, or wait for one on a thread until theirs comes and note then whose
    /// turn it was.
    #[test]
    fn one_that_floods_keeps_nobody_out_and_is_served_in_turn() {
        let concurrency = concurrency(8, 16);
        let (hog, victim) = (key("hog"), key("victim"));
        let of = |who| concurrency.take(Some(who), &wait(5000));
        let mut held: Vec<_> = (0..6).map(|_| of(&hog).unwrap()).collect();
        let served = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            // So many calls wait one after the other.
            let queue = |who, name: &'static str, n: usize| {
                for _ in 0..n {
                    let (before, of, served) = (concurrency.counts().1, &of, &served);
                    scope.spawn(move || {
                        let permit = of(who).unwrap();
                        served.lock().unwrap().push(name);
                        drop(permit);
                    });
                    while concurrency.counts().1 == before {
                        std::thread::yield_now();
                    }
                }
            };
            queue(&hog, "hog", 12);
            let refused = of(&hog).err().unwrap();
            assert_eq!(refused.kind, FailureKind::Overloaded);
            assert!(refused.message.contains("max_waiting"), "{}", refused.message);
            // A share of the slots is free, and one of the places in the queue.
            held.extend((0..2).map(|_| of(&victim).unwrap()));
            queue(&victim, "victim", 4);
            assert_eq!(of(&victim).err().unwrap().kind, FailureKind::Overloaded, "it is full");
            // What comes free is for those who hold no more than their share.
            held.truncate(6);
            while served.lock().unwrap().len() < 4 {
                std::thread::yield_now();
            }
            held.clear();
        });
        let served = served.into_inner().unwrap();
        assert!(served.len() == 16, "{served:?}");
        assert_eq!(served[..4], ["victim"; 4]);
        assert_eq!(concurrency.counts(), (0, 0));
    }

    #[test]
    fn a_third_finds_a_slot_where_two_hold_all_they_get() {
        let concurrency = concurrency(32, 0);
        let all_of = |who: &str| {
            let who = key(who);
            let one = || concurrency.take(Some(&who), &wait(20)).ok();
            std::iter::from_fn(one).collect::<Vec<_>>()
        };
        let held = ["hog", "victim", "third"].map(all_of);
        assert_eq!(held.each_ref().map(Vec::len), [24, 7, 1]);
    }

    #[test]
    fn a_place_that_is_lent_takes_nothing_of_its_principal_s_share() {
        let concurrency = concurrency(4, 0);
        let who = key("one");
        let of = || concurrency.take(Some(&who), &wait(20));
        let held: Vec<_> = (0..3).map(|_| of().unwrap().apart().1).collect();
        assert!(of().is_err());
        held.iter().for_each(HeldPermit::lend);
        drop((0..3).map(|_| of().unwrap()).collect::<Vec<_>>());
        drop(held);
        assert_eq!(concurrency.counts(), (0, 0));
    }
}
