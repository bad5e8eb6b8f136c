//! The bounded slots of one upstream and the bounded wait for one; and the budget that all
//! upstreams share.
//!
//! A slot that comes free is handed to whoever has waited longest; without anybody waiting, the
//! slot used last is the first to be used again, because its connection is warm.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::Stage;
use crate::limits::POOL_RESERVE_DIVISOR;
use crate::protocol::server_name::ServerName;
use crate::wait::{Interrupted, Wait, Woken};

use super::connection::{Kind, Trouble};

/// The slots of one upstream, each of which owns a `T`.
pub(super) struct Slots<T> {
    server: ServerName,
    max_in_flight: usize,
    max_waiting: usize,
    state: Mutex<State<T>>,
}

struct State<T> {
    /// Used last is last.
    free: Vec<T>,
    /// Who holds a slot, by ticket.
    held: Vec<(u64, Arc<Wait>)>,
    /// Who waits for one, longest first.
    waiting: VecDeque<(u64, Arc<Wait>)>,
    /// Slots handed to waiters that have not looked yet.
    handed: Vec<(u64, T)>,
    tickets: u64,
    stopped: bool,
}

/// A slot that is held; dropping it gives it back.
pub(super) struct Slot<'a, T: Default> {
    slots: &'a Slots<T>,
    ticket: u64,
    value: Option<T>,
}

impl<T: Default> Slots<T> {
    pub(super) fn new(
        server: ServerName,
        max_in_flight: usize,
        max_waiting: usize,
    ) -> Slots<T> {
        let state = State {
            free: Vec::new(),
            held: Vec::new(),
            waiting: VecDeque::new(),
            handed: Vec::new(),
            tickets: 0,
            stopped: false,
        };
        Slots {
            server,
            max_in_flight: max_in_flight.max(1),
            max_waiting,
            state: Mutex::new(state),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Slots held, and calls that wait for one.
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.held.len(), state.waiting.len())
    }

    /// Ends every wait, of those who hold a slot and of those who wait for one; nobody gets a
    /// slot any more.
    pub(super) fn interrupt(&self) {
        let mut state = self.lock();
        state.stopped = true;
        for (_, wait) in state.held.iter().chain(&state.waiting) {
            wait.interrupt(Interrupted::Stopping);
        }
    }

    /// Takes a slot; waits for one if all are held. `idle` is called every `tick` meanwhile.
    pub(super) fn take(
        &self,
        wait: &Arc<Wait>,
        tick: Duration,
        idle: &mut dyn FnMut(),
    ) -> Result<Slot<'_, T>, Trouble> {
        let ticket = {
            let mut state = self.lock();
            if state.stopped {
                return Err(Trouble::interrupted(Interrupted::Stopping, Stage::Slot, false));
            }
            state.tickets += 1;
            let ticket = state.tickets;
            if state.held.len() < self.max_in_flight {
                state.held.push((ticket, wait.clone()));
                let value = state.free.pop().unwrap_or_default();
                return Ok(Slot { slots: self, ticket, value: Some(value) });
            }
            if state.waiting.len() >= self.max_waiting {
                let what = format!(
                    "{} calls are in flight to {} and {} wait (max_in_flight, max_waiting)",
                    self.max_in_flight, self.server, self.max_waiting
                );
                return Err(Trouble::new(Kind::Overloaded, Stage::Slot, what));
            }
            state.waiting.push_back((ticket, wait.clone()));
            ticket
        };
        loop {
            let woken = wait.until(None, Some(tick));
            if let Some(value) = self.collect(ticket) {
                // If the wait has ended, dropping the slot passes it on.
                let slot = Slot { slots: self, ticket, value: Some(value) };
                return match woken {
                    Ok(_) => Ok(slot),
                    Err(reason) => Err(Trouble::interrupted(reason, Stage::Slot, false)),
                };
            }
            match woken {
                Ok(Woken::Tick) => idle(),
                Ok(Woken::Ready | Woken::Bell) => (),
                Err(reason) => {
                    // A slot that was handed over meanwhile goes to the next in the queue.
                    drop(self.give_up(ticket));
                    return Err(Trouble::interrupted(reason, Stage::Slot, false));
                }
            }
        }
    }

    fn collect(&self, ticket: u64) -> Option<T> {
        let mut state = self.lock();
        let at = state.handed.iter().position(|(t, _)| *t == ticket)?;
        Some(state.handed.swap_remove(at).1)
    }

    /// Leaves the queue; gives the slot that was handed over in the meantime.
    fn give_up(&self, ticket: u64) -> Option<Slot<'_, T>> {
        {
            let mut state = self.lock();
            state.waiting.retain(|(t, _)| *t != ticket);
        }
        let value = self.collect(ticket)?;
        Some(Slot { slots: self, ticket, value: Some(value) })
    }

    fn give_back(&self, ticket: u64, value: T) {
        let next = {
            let mut state = self.lock();
            state.held.retain(|(t, _)| *t != ticket);
            match state.waiting.pop_front() {
                Some((next, wait)) => {
                    state.held.push((next, wait.clone()));
                    state.handed.push((next, value));
                    Some(wait)
                }
                None => {
                    state.free.push(value);
                    None
                }
            }
        };
        if let Some(wait) = next {
            wait.bell().ring();
        }
    }
}

impl<T: Default> Slot<'_, T> {
    /// What the slot owns.
    pub(super) fn get(&mut self) -> &mut T {
        self.value.get_or_insert_default()
    }
}

impl<T: Default> Drop for Slot<'_, T> {
    fn drop(&mut self) {
        let value = self.value.take().unwrap_or_default();
        self.slots.give_back(self.ticket, value);
    }
}

/// How many calls may wait for upstreams at once, over all of them: a part of the pool is never
/// held by such calls, so that lists, health and new sessions are always served.
pub(super) struct Budget {
    max: usize,
    used: AtomicUsize,
}

/// A place in the budget; dropping it gives it back.
pub(super) struct Place<'a>(&'a Budget);

impl Budget {
    pub(super) fn new(connections: usize) -> Budget {
        let max = connections - connections / POOL_RESERVE_DIVISOR;
        Budget { max: max.max(1), used: AtomicUsize::new(0) }
    }

    pub(super) fn enter(&self) -> Result<Place<'_>, Trouble> {
        let more = |used: usize| (used < self.max).then_some(used + 1);
        match self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) {
            Ok(_) => Ok(Place(self)),
            Err(_) => {
                let what = format!(
                    "{} calls wait for servers, which is what limits.connections allows",
                    self.max
                );
                Err(Trouble::new(Kind::Overloaded, Stage::Slot, what))
            }
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::AcqRel);
    }
}
