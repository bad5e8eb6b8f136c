//! Calls and refusals as they happen, for a watcher. Without a watcher a request costs one read
//! of a flag.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{MutexGuard, Weak};

use super::record::ToldRequest;
use crate::sync::Mutex;

/// Receives all activities.
pub trait Watcher: Debug + Send + Sync {
    /// Takes a report, without a wait.
    fn told(&self, request: &ToldRequest);
}

static IS_WATCHED: AtomicBool = AtomicBool::new(false);
static WATCHER: Mutex<Option<Weak<dyn Watcher>>> = Mutex::new(None);

fn watcher() -> MutexGuard<'static, Option<Weak<dyn Watcher>>> {
    WATCHER.lock()
}

/// Sets the watcher, or none.
pub fn watch(by: Option<Weak<dyn Watcher>>) {
    let mut watcher = watcher();
    IS_WATCHED.store(by.is_some(), Ordering::Relaxed);
    *watcher = by;
}

pub(super) fn is_watched() -> bool {
    IS_WATCHED.load(Ordering::Relaxed)
}

/// Gives a report to the watcher. This thread's record is not locked, since the watcher may log.
pub(super) fn tell(request: Option<ToldRequest>) {
    let Some(request) = request else { return };
    let told = watcher().as_ref().and_then(Weak::upgrade);
    if let Some(told) = told {
        told.told(&request);
    }
}
