//! The threads `identity`, which reads the keys of issuers before they are too old, and
//! `identity-N`, which ask again about introspected tokens that are in use: few, started on demand,
//! with a bounded queue.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::accepted::{Accepted, Introspection};
use super::issuer::Issuer;
use super::presented::Now;
use crate::limits::{KEYS_FETCH_INTERVAL_MIN, KEYS_SLEEP_MAX, RECHECKERS_MAX, RECHECKS_MAX};
use crate::sync::{Condvar, Mutex};
use crate::thread::{self, Joined};

/// Whoever has accepted a token, and asks about it again.
pub(super) trait Recheck: std::fmt::Debug + Send + Sync {
    /// Asks the issuer of an introspected token about it again.
    fn ask_again(&self, accepted: &Arc<Accepted>, now: Now);
}

/// What the threads have to do. Requests and streams add to it.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    work: Mutex<Work>,
    /// Wakes the thread that reads keys.
    wake: Condvar,
    /// Wakes those that ask about tokens.
    queued: Condvar,
    askers: Mutex<Vec<Joined>>,
}

#[derive(Debug, Default)]
struct Work {
    issuers: Vec<Arc<Issuer>>,
    rechecks: VecDeque<(Weak<dyn Recheck>, Weak<Accepted>)>,
    /// The threads that ask about tokens, and those of them that wait for one.
    n_askers: usize,
    n_idle: usize,
    is_stopping: bool,
    /// True if something was added since the thread that reads keys has looked.
    is_new: bool,
}

impl Keeper {
    /// Starts the thread that reads keys.
    ///
    /// # Errors
    /// The system refuses it.
    pub(super) fn start(self: &Arc<Keeper>) -> io::Result<Joined> {
        let keeper = self.clone();
        thread::spawn("identity", move || keeper.run())
    }

    /// Keeps the keys of these issuers, and of no others.
    pub(super) fn keep(&self, issuers: Vec<Arc<Issuer>>) {
        let mut work = self.work.lock();
        let before = std::mem::replace(&mut work.issuers, issuers);
        self.told(&mut work);
        let ended: Vec<_> = before
            .into_iter()
            .filter(|old| !work.issuers.iter().any(|new| Arc::ptr_eq(old, new)))
            .collect();
        drop(work);
        ended.iter().for_each(|issuer| issuer.stop());
    }

    /// The issuers whose keys are kept.
    pub(super) fn issuers(&self) -> Vec<Arc<Issuer>> {
        self.work.lock().issuers.clone()
    }

    /// Has a token asked about again, if that is not so already. Past the bound it is asked about
    /// when it comes again.
    pub(super) fn recheck(
        self: &Arc<Keeper>,
        verifier: Weak<dyn Recheck>,
        accepted: &Arc<Accepted>,
        now: Instant,
    ) {
        let Some(introspection) = &accepted.news.introspected else { return };
        let mut last = introspection.last.lock();
        last.wanted_at.get_or_insert(now);
        if std::mem::replace(&mut last.is_queued, true) {
            return;
        }
        drop(last);
        let mut work = self.work.lock();
        if work.is_stopping || work.rechecks.len() >= RECHECKS_MAX {
            introspection.last.lock().is_queued = false;
            return;
        }
        work.rechecks.push_back((verifier, Arc::downgrade(accepted)));
        self.queued.notify_one();
        if work.rechecks.len() > work.n_idle && work.n_askers < RECHECKERS_MAX {
            work.n_askers += 1;
            let number = work.n_askers;
            drop(work);
            self.start_asker(number);
        }
    }

    fn start_asker(self: &Arc<Keeper>, number: usize) {
        let keeper = self.clone();
        match thread::spawn(&format!("identity-{number}"), move || keeper.ask()) {
            Ok(thread) => self.askers.lock().push(thread),
            Err(error) => {
                // The token waits for another thread, or for the next one that waits.
                log::warn!(target: "identity", "no thread to ask about tokens: {error}");
                self.work.lock().n_askers -= 1;
            }
        }
    }

    /// Wakes the thread that reads keys.
    pub(super) fn wake(&self) {
        self.told(&mut self.work.lock());
    }

    /// Ends the threads and all waits for issuers.
    pub(super) fn stop(&self) {
        let mut work = self.work.lock();
        work.is_stopping = true;
        work.rechecks.clear();
        let issuers = work.issuers.clone();
        self.told(&mut work);
        self.queued.notify_all();
        drop(work);
        issuers.iter().for_each(|issuer| issuer.stop());
        let askers = std::mem::take(&mut *self.askers.lock());
        drop(askers);
    }

    fn told(&self, work: &mut Work) {
        work.is_new = true;
        self.wake.notify_all();
    }

    /// Reads keys until the end.
    fn run(&self) {
        loop {
            let mut sleep = KEYS_SLEEP_MAX;
            for issuer in self.issuers() {
                // The hook has told of a panic; the keys of the others are read all the same, and
                // those of this one the next time.
                let due_in = catch_unwind(AssertUnwindSafe(|| issuer.refresh(Instant::now())));
                sleep = sleep.min(due_in.unwrap_or(KEYS_FETCH_INTERVAL_MIN));
                if self.work.lock().is_stopping {
                    return;
                }
            }
            let mut work = self.work.lock();
            if work.is_stopping {
                return;
            }
            if !std::mem::take(&mut work.is_new) {
                drop(self.wake.wait_timeout(work, sleep));
            }
        }
    }

    /// Asks about tokens until the end.
    fn ask(&self) {
        while let Some((verifier, accepted)) = self.next_recheck() {
            let Some(accepted) = accepted.upgrade() else { continue };
            let Some(introspection) = &accepted.news.introspected else { continue };
            // If it panics, or its verifier has gone with a reload, the token is asked about again
            // when somebody looks at it.
            let _queued = Queued(introspection);
            let Some(verifier) = verifier.upgrade() else { continue };
            let ask = || verifier.ask_again(&accepted, Now::read());
            drop(catch_unwind(AssertUnwindSafe(ask)));
        }
    }

    /// The next token to ask about; none at the end.
    fn next_recheck(&self) -> Option<(Weak<dyn Recheck>, Weak<Accepted>)> {
        let mut work = self.work.lock();
        work.n_idle += 1;
        loop {
            if work.is_stopping {
                return None;
            }
            if let Some(next) = work.rechecks.pop_front() {
                work.n_idle -= 1;
                return Some(next);
            }
            work = self.queued.wait(work);
        }
    }
}

/// A token that is asked about. When this is dropped it may be queued again.
struct Queued<'a>(&'a Introspection);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.last.lock().is_queued = false;
    }
}
