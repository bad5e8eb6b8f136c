//! How many views of one server are read at once. What is being read, or waits for the thread
//! that rebuilds the snapshot, has no place among the views yet, so that their bound does not
//! hold it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::fair_shares::Shares;
use crate::limits::VIEW_READINGS_MAX;
use crate::protocol::call::PrincipalId;

use crate::upstream::session::context::Mailbox;

/// The readings of one server's views, over all sessions with it.
#[derive(Clone)]
pub(crate) struct ViewReadings(Arc<Mutex<State>>);

struct State {
    taken: Shares<PrincipalId>,
    /// They look again when a reading is over.
    waiting: Vec<Arc<Mailbox>>,
}

impl Default for ViewReadings {
    fn default() -> ViewReadings {
        let state = State { taken: Shares::new(VIEW_READINGS_MAX), waiting: Vec::new() };
        ViewReadings(Arc::new(Mutex::new(state)))
    }
}

impl ViewReadings {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing between two changes can panic, so a poisoned value is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reading for whoever wants the view. There is none while there are as many as may be, or
    /// as many as that principal may have; then the thread of `nudge` is rung when one is over.
    pub(crate) fn begin(
        &self,
        by: Option<&PrincipalId>,
        mailbox: &Arc<Mailbox>,
    ) -> Option<ViewReading> {
        let mut state = self.lock();
        if state.taken.take_of(by, 1).is_err() {
            if !state.waiting.iter().any(|other| Arc::ptr_eq(other, mailbox)) {
                state.waiting.push(mailbox.clone());
            }
            return None;
        }
        Some(ViewReading { of: self.clone(), by: by.cloned() })
    }
}

/// A view that is being read, and what was read of it until it is among the views. It is over
/// when this is dropped.
pub struct ViewReading {
    of: ViewReadings,
    by: Option<PrincipalId>,
}

impl ViewReading {
    /// Who wanted the view first, if anybody did.
    pub fn by(&self) -> Option<&PrincipalId> {
        self.by.as_ref()
    }
}

impl fmt::Debug for ViewReading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ViewReading").field("by", &self.by).finish_non_exhaustive()
    }
}

impl Drop for ViewReading {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.of.lock();
            state.taken.give_back_of(self.by.as_ref(), 1);
            std::mem::take(&mut state.waiting)
        };
        waiting.iter().for_each(|mailbox| mailbox.idle.bell().ring());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_principal_leaves_a_reading_to_the_others_and_whoever_waits_is_rung() {
        let (readings, mailbox) = (ViewReadings::default(), Arc::new(Mailbox::new().unwrap()));
        let [hog, victim] = ["hog", "victim"].map(|name| PrincipalId::Key(name.into()));
        let mut begun: Vec<ViewReading> =
            std::iter::from_fn(|| readings.begin(Some(&hog), &mailbox)).collect();
        assert_eq!(begun.len(), VIEW_READINGS_MAX - 1);
        assert_eq!(readings.lock().waiting.len(), 1);
        assert!(readings.begin(Some(&hog), &mailbox).is_none());
        assert_eq!(readings.lock().waiting.len(), 1, "it waits once");
        assert!(readings.begin(Some(&victim), &mailbox).is_some());
        begun.pop();
        assert!(readings.lock().waiting.is_empty());
        assert!(readings.begin(Some(&hog), &mailbox).is_some());
    }
}
