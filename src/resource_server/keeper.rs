//! The thread `identity`: reads the keys of issuers before they are too old, and asks again about
//! introspected tokens that are in use.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::accepted::Accepted;
use super::issuer::Issuer;
use super::presented::Now;
use crate::limits::RECHECKS_MAX;
use crate::sync::{Condvar, Mutex};
use crate::thread::{self, Joined};

/// The longest sleep: clocks of suspended machines jump.
const SLEEP_MAX: Duration = Duration::from_secs(30);

/// Whoever has accepted a token, and asks about it again.
pub(super) trait Recheck: std::fmt::Debug + Send + Sync {
    /// Asks the issuer of an introspected token if it is still active.
    fn recheck(&self, accepted: &Arc<Accepted>, now: Now);
}

/// What the thread has to do. Requests and streams add to it.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    work: Mutex<Work>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Work {
    issuers: Vec<Arc<Issuer>>,
    rechecks: VecDeque<(Weak<dyn Recheck>, Weak<Accepted>)>,
    is_stopping: bool,
    /// True if something was added since the thread has looked.
    is_new: bool,
}

impl Keeper {
    /// Starts the thread.
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

    /// Asks about a token again. Past the bound it is asked about when it comes again.
    pub(super) fn recheck(&self, verifier: Weak<dyn Recheck>, accepted: &Arc<Accepted>) {
        let Some(introspection) = &accepted.news.introspected else { return };
        let was_queued = std::mem::replace(&mut introspection.last.lock().is_queued, true);
        if was_queued {
            return;
        }
        let mut work = self.work.lock();
        if work.rechecks.len() < RECHECKS_MAX {
            work.rechecks.push_back((verifier, Arc::downgrade(accepted)));
            self.told(&mut work);
        } else {
            introspection.last.lock().is_queued = false;
        }
    }

    /// Wakes the thread to look for work.
    pub(super) fn wake(&self) {
        self.told(&mut self.work.lock());
    }

    /// Ends the thread and all waits for issuers.
    pub(super) fn stop(&self) {
        let mut work = self.work.lock();
        work.is_stopping = true;
        work.rechecks.clear();
        let issuers = work.issuers.clone();
        self.told(&mut work);
        drop(work);
        issuers.iter().for_each(|issuer| issuer.stop());
    }

    fn told(&self, work: &mut Work) {
        work.is_new = true;
        self.wake.notify_all();
    }

    fn run(&self) {
        loop {
            let mut sleep = SLEEP_MAX;
            for issuer in self.issuers() {
                sleep = sleep.min(issuer.refresh(Instant::now()));
                if self.work.lock().is_stopping {
                    return;
                }
            }
            let mut work = self.work.lock();
            if work.is_stopping {
                return;
            }
            if let Some((verifier, accepted)) = work.rechecks.pop_front() {
                drop(work);
                if let (Some(verifier), Some(accepted)) =
                    (verifier.upgrade(), accepted.upgrade())
                {
                    verifier.recheck(&accepted, Now::read());
                }
                continue;
            }
            if !std::mem::take(&mut work.is_new) {
                drop(self.wake.wait_timeout(work, sleep));
            }
        }
    }
}
