//! The calls that wait for an answer which another thread reads: a [`Table`] under a lock, and
//! the bells of those who wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::error::Stage;
use crate::limits::STRAY_LOG_TIME;
use crate::protocol::call::{CallSink, Notice};
use crate::protocol::jsonrpc::RpcError;
use crate::protocol::raw::Raw;
use crate::wait::Wait;

use super::correlation::{Arrival, Delivered, Inbox, Interest, Table};
use crate::upstream::failure::{Failure, malformed};
use crate::upstream::message::Incoming;

/// The waiting calls of one channel.
#[derive(Default)]
pub(crate) struct PendingRequests {
    table: Mutex<Table<Arc<Wait>>>,
    /// Until then a log message may be of a call that was cancelled.
    stray_logs_until: Mutex<Option<Instant>>,
    answered: AtomicUsize,
}

/// A call that waits; dropping it leaves the table.
pub(crate) struct Waiting<'a> {
    pending: &'a PendingRequests,
    id: u64,
}

impl PendingRequests {
    fn lock(&self) -> MutexGuard<'_, Table<Arc<Wait>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// The channel is dead.
    pub(crate) fn enter(
        &self,
        id: u64,
        wait: &Arc<Wait>,
        interest: Interest,
    ) -> Result<Waiting<'_>, Failure> {
        self.register(id, wait, interest)?;
        Ok(Waiting { pending: self, id })
    }

    /// [`PendingRequests::enter`] for whoever leaves the table by [`PendingRequests::leave`].
    ///
    /// # Errors
    /// The channel is dead.
    pub(crate) fn register(
        &self,
        id: u64,
        wait: &Arc<Wait>,
        interest: Interest,
    ) -> Result<(), Failure> {
        self.lock().enter(id, wait.clone(), interest)
    }

    /// What comes for that call from here on is for nobody.
    pub(crate) fn leave(&self, id: u64) {
        let left = self.lock().leave(id);
        if left.as_ref().is_some_and(Inbox::still_wants_logs) {
            let until = Instant::now() + STRAY_LOG_TIME;
            let stray = self.stray_logs_until.lock();
            *stray.unwrap_or_else(PoisonError::into_inner) = Some(until);
        }
        // Questions that nobody took up are answered by being dropped, so without the lock.
        drop(left);
    }

    /// What has come so far for a call goes to `sink`; gives the answer, if it was among it.
    pub(crate) fn look(
        &self,
        id: u64,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Option<Result<Result<Raw, RpcError>, Failure>> {
        loop {
            let arrival = self.lock().take(id)?;
            match arrival {
                Arrival::Answer(outcome) => return Some(Ok(outcome)),
                Arrival::Lost(failure) => {
                    return Some(Err(Failure { sent: true, ..failure }));
                }
                Arrival::Notice(notice) => {
                    if matches!(notice, Notice::Progress(_)) {
                        wait.progressed();
                    }
                    sink.notice(notice);
                }
                Arrival::Ask(question) => sink.ask(question),
            }
        }
    }

    fn deliver(&self, id: u64, arrival: Arrival) {
        let is_answer = matches!(arrival, Arrival::Answer(_));
        let delivered = self.lock().deliver(id, arrival);
        if is_answer && delivered.waker.is_some() {
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
        settle(delivered);
    }

    /// Answers so far that somebody waited for.
    pub(crate) fn n_answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Takes a message that belongs to a call; gives back any other.
    pub(crate) fn take_in(&self, incoming: Incoming) -> Option<Incoming> {
        match incoming {
            Incoming::Answer { id: Some(id), outcome } => {
                self.deliver(id, Arrival::Answer(outcome));
                None
            }
            Incoming::Malformed { id, what } => {
                self.deliver(id, Arrival::Lost(malformed(&what)));
                None
            }
            Incoming::Progress { id, params } => {
                self.deliver(id, Arrival::Notice(Notice::Progress(params)));
                None
            }
            other @ (Incoming::Answer { id: None, .. }
            | Incoming::ListChanged(_)
            | Incoming::Withdrawn(_)
            | Incoming::Notice(_)
            | Incoming::Misread { .. }
            | Incoming::Ask { .. }
            | Incoming::Nonsense(_)) => Some(other),
        }
    }

    /// Takes what names no call for one that is in flight; gives it back if none is.
    pub(crate) fn give(&self, arrival: Arrival) -> Option<Arrival> {
        let delivered = {
            let mut table = self.lock();
            let Some(id) = table.whose(&arrival) else { return Some(arrival) };
            table.deliver(id, arrival)
        };
        settle(delivered);
        None
    }

    /// Takes a modern server's log message, which names no call: it is for the one that wants
    /// any, or for nobody.
    pub(crate) fn give_log(&self, params: Raw) {
        let until = *self.stray_logs_until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        let delivered = {
            let mut table = self.lock();
            let Some(id) = table.only_logged() else { return };
            table.deliver(id, Arrival::Notice(Notice::Log(params)))
        };
        settle(delivered);
    }

    /// One call's answer cannot be had; all that wait, if it is not known whose.
    pub(crate) fn fail(&self, id: Option<u64>, failure: &Failure) {
        let Some(id) = id else {
            let waiters = self.lock().fail_all(failure);
            return waiters.iter().for_each(|wait| wait.bell().ring());
        };
        self.deliver(id, Arrival::Lost(failure.clone()));
    }

    /// Whether the channel is dead.
    pub(crate) fn is_lost(&self) -> bool {
        self.lock().is_lost()
    }

    /// The channel is dead.
    pub(crate) fn lose(&self, failure: &Failure) {
        let waiters = self.lock().lose(failure);
        waiters.iter().for_each(|wait| wait.bell().ring());
    }
}

/// Wakes who is to be woken. What is left over is dropped here, where no lock is held, because
/// a question that is dropped is answered.
fn settle(delivered: Delivered<Arc<Wait>>) {
    if let Some(wait) = delivered.waker {
        wait.bell().ring();
    }
    drop(delivered.left_over);
}

impl Waiting<'_> {
    /// What has come so far goes to `sink`; gives the answer, if it was among it.
    pub(crate) fn look(
        &self,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Option<Result<Result<Raw, RpcError>, Failure>> {
        self.pending.look(self.id, wait, sink)
    }

    /// Waits for the answer, and hands everything before it to `sink`.
    pub(crate) fn answer(
        &self,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Result<Raw, RpcError>, Failure> {
        loop {
            if let Some(answer) = self.look(wait, sink) {
                return answer;
            }
            wait.until(None, None)
                .map_err(|reason| Failure::interrupted(reason, Stage::Answer, true))?;
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.pending.leave(self.id);
    }
}
