//! The bytes that the logs of all streams hold, by principal. Each byte is counted once, however
//! many logs and queues hold it, and for as long as one of them does.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use super::EncodedEvent;
use super::event_log::Bounds;
use super::resumable::State;
use crate::fair_shares::Shares;
use crate::limits::EVENT_LOGS_BYTES_MAX;
use crate::protocol::call::PrincipalId;
use crate::sync::Mutex;

/// The bounds of every log, and the bytes that all logs hold. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EventLogs {
    pub(super) bounds: Bounds,
    /// This lock is taken behind a stream's state and behind [`Counted::by`], never before them:
    /// no event may be dropped while it is held.
    held: Arc<Mutex<Holding>>,
}

/// The bytes of all logs, by principal.
#[derive(Debug)]
struct Holding {
    bytes: Shares<PrincipalId>,
    /// The logs that hold events, in the order in which they began to.
    logs: HashMap<PrincipalId, BTreeMap<u64, Weak<Mutex<State>>>>,
    last_turn: u64,
}

/// The count of an event's text while logs hold it.
#[derive(Debug)]
pub(super) struct Counted {
    held: Arc<Mutex<Holding>>,
    bytes: usize,
    by: Mutex<Holders>,
}

#[derive(Debug, Default)]
struct Holders {
    /// The principal in whose share the text counts; none where no log holds it.
    payer: Option<PrincipalId>,
    places: HashMap<PrincipalId, usize>,
}

/// An event's place in one log. A queue that has the event keeps the place after the log has
/// dropped it.
#[derive(Debug)]
pub(super) struct Place {
    counted: Arc<Counted>,
    holder: PrincipalId,
    /// Bytes of the event that only this log holds.
    own_bytes: usize,
}

impl Counted {
    /// A place in a log of `holder`. None where there is no room.
    fn place(self: &Arc<Counted>, holder: &PrincipalId, own_bytes: usize) -> Option<Place> {
        let mut by = self.by.lock();
        let said_bytes = if by.payer.is_none() { self.bytes } else { 0 };
        self.held.lock().bytes.take_for_now(holder, own_bytes + said_bytes).ok()?;
        by.payer.get_or_insert_with(|| holder.clone());
        *by.places.entry(holder.clone()).or_default() += 1;
        Some(Place { counted: self.clone(), holder: holder.clone(), own_bytes })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Place { counted, holder, own_bytes } = self;
        let mut by = counted.by.lock();
        let n_places = by.places.get_mut(holder).map_or(0, |n| {
            *n -= 1;
            *n
        });
        let mut holding = counted.held.lock();
        holding.bytes.give_back(holder, *own_bytes);
        if n_places > 0 {
            return;
        }
        by.places.remove(holder);
        if by.payer.as_ref() == Some(holder) {
            // The text counts for a principal that still holds it.
            by.payer = by.places.keys().next().cloned();
            holding.bytes.give_back(holder, counted.bytes);
            if let Some(payer) = &by.payer {
                let taken = holding.bytes.take_for_now(payer, counted.bytes);
                debug_assert!(taken.is_ok(), "as much was given back before");
            }
        }
    }
}

impl EventLogs {
    /// Logs with these bounds.
    pub fn new(bounds: Bounds) -> EventLogs {
        let bytes = Shares::new(EVENT_LOGS_BYTES_MAX);
        let held = Arc::new(Mutex::new(Holding { bytes, logs: HashMap::new(), last_turn: 0 }));
        EventLogs { bounds, held }
    }

    /// True if no event can be kept, so that events need no ids.
    pub fn are_off(&self) -> bool {
        self.bounds.events == 0 || self.bounds.bytes == 0
    }

    /// Bytes of the events in all logs, and of those in queues that were in logs.
    pub fn held_bytes(&self) -> usize {
        self.held.lock().bytes.taken()
    }

    #[cfg(test)]
    pub(super) fn is_any_log(&self) -> bool {
        !self.held.lock().logs.is_empty()
    }

    /// Drops the oldest events of the principal that holds most, until `who` may keep so many
    /// bytes more; those of `who` where it would hold most. The caller holds no stream's lock.
    pub(super) fn make_room(&self, who: &PrincipalId, bytes: usize) {
        loop {
            let oldest = {
                let holding = self.held.lock();
                let from = holding.bytes.in_the_way_of(who, bytes);
                from.and_then(|from| holding.logs.get(&from)?.values().next().cloned())
            };
            let Some(state) = oldest.and_then(|state| state.upgrade()) else { return };
            let mut state = state.lock();
            state.log.drop_oldest();
            self.enlist(&mut state);
        }
    }

    /// True if there is room for so many bytes.
    pub(super) fn have_room(&self, bytes: usize) -> bool {
        self.held.lock().bytes.may_take_of(None, bytes).is_ok()
    }

    /// The event with its place in a log of `holder`. None where there is no room.
    pub(super) fn keep(
        &self,
        holder: &PrincipalId,
        event: &EncodedEvent,
    ) -> Option<EncodedEvent> {
        let event = event.for_log();
        let new = || {
            let (held, by) = (self.held.clone(), Mutex::default());
            Arc::new(Counted { held, bytes: event.said_bytes(), by })
        };
        let counted = event.counted(new);
        let place = counted.place(holder, event.len() - event.said_bytes())?;
        Some(event.in_place(place))
    }

    /// Enters the log in the list of logs that hold events, or takes it out when it is empty.
    pub(super) fn enlist(&self, state: &mut State) {
        let mut holding = self.held.lock();
        let holding = &mut *holding;
        let logs = holding.logs.entry(state.holder.clone()).or_default();
        match (state.turn, state.log.bytes()) {
            (Some(turn), 0) => {
                logs.remove(&turn);
                state.turn = None;
            }
            (None, 1..) => {
                holding.last_turn += 1;
                logs.insert(holding.last_turn, state.own.clone());
                state.turn = Some(holding.last_turn);
            }
            (Some(_), 1..) | (None, 0) => (),
        }
        if logs.is_empty() {
            holding.logs.remove(&state.holder);
        }
    }
}
