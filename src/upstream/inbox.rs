//! The calls that wait for an answer which another thread reads: a [`Table`] under a lock, and
//! the bells of those who wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::Stage;
use crate::protocol::call::{CallSink, Notice};
use crate::protocol::jsonrpc::RpcError;
use crate::protocol::raw::Raw;
use crate::wait::{Wait, Woken};

use super::connection::Trouble;
use super::correlation::{Arrival, Incoming, Table};

/// The waiting calls of one link.
#[derive(Default)]
pub(super) struct Inboxes(Mutex<Table<Arc<Wait>>>);

/// A call that waits; dropping it leaves the table.
pub(super) struct Waiting<'a> {
    inboxes: &'a Inboxes,
    id: u64,
}

impl Inboxes {
    fn lock(&self) -> MutexGuard<'_, Table<Arc<Wait>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// The link is dead.
    pub(super) fn enter(&self, id: u64, wait: &Arc<Wait>) -> Result<Waiting<'_>, Trouble> {
        self.lock().enter(id, wait.clone())?;
        Ok(Waiting { inboxes: self, id })
    }

    fn deliver(&self, id: u64, arrival: Arrival) {
        let waiter = self.lock().deliver(id, arrival);
        if let Some(wait) = waiter {
            wait.bell().ring();
        }
    }

    /// Takes a message that belongs to a call; gives back any other.
    pub(super) fn take_in(&self, incoming: Incoming) -> Option<Incoming> {
        match incoming {
            Incoming::Answer { id: Some(id), outcome } => {
                self.deliver(id, Arrival::Answer(outcome));
                None
            }
            Incoming::Progress { id, params } => {
                self.deliver(id, Arrival::Progress(params));
                None
            }
            other @ (Incoming::Answer { id: None, .. }
            | Incoming::ToolsListChanged
            | Incoming::Ask { .. }
            | Incoming::Other
            | Incoming::Nonsense(_)) => Some(other),
        }
    }

    /// One call's answer cannot be had; all that wait, if it is not known whose.
    pub(super) fn fail(&self, id: Option<u64>, trouble: &Trouble) {
        let Some(id) = id else {
            let waiters = self.lock().fail_all(trouble);
            return waiters.iter().for_each(|wait| wait.bell().ring());
        };
        self.deliver(id, Arrival::Lost(trouble.clone()));
    }

    /// The link is dead.
    pub(super) fn lose(&self, trouble: &Trouble) {
        let waiters = self.lock().lose(trouble);
        waiters.iter().for_each(|wait| wait.bell().ring());
    }
}

impl Waiting<'_> {
    /// Waits for the answer, hands progress to `sink`, and lets it know of silence.
    pub(super) fn answer(
        &self,
        wait: &Arc<Wait>,
        tick: Duration,
        sink: &mut dyn CallSink,
    ) -> Result<Result<Raw, RpcError>, Trouble> {
        loop {
            let arrival = self.inboxes.lock().take(self.id);
            match arrival {
                Some(Arrival::Answer(outcome)) => return Ok(outcome),
                Some(Arrival::Lost(trouble)) => return Err(Trouble { sent: true, ..trouble }),
                Some(Arrival::Progress(params)) => {
                    wait.progressed();
                    sink.notice(Notice::Progress(params));
                    continue;
                }
                None => (),
            }
            match wait.until(None, Some(tick)) {
                Ok(Woken::Tick) => sink.silence(),
                Ok(Woken::Bell | Woken::Ready) => (),
                Err(reason) => return Err(Trouble::interrupted(reason, Stage::Answer, true)),
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.inboxes.lock().leave(self.id);
    }
}
