//! Calls and refusals as they happen, for a watcher. Without a watcher a request costs one read
//! of a flag.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use super::record::ToldRequest;

/// Receives all activities.
pub trait Watcher: Debug + Send + Sync {
    /// Never waits.
    fn told(&self, request: &ToldRequest);
}

static IS_WATCHED: AtomicBool = AtomicBool::new(false);
static WATCHER: Mutex<Option<Weak<dyn Watcher>>> = Mutex::new(None);

fn watcher() -> MutexGuard<'static, Option<Weak<dyn Watcher>>> {
    WATCHER.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Tells the watcher, if there is anything to tell. The lock of this thread's record is not held, since whoever is told may log.
pub(super) fn tell(request: Option<ToldRequest>) {
    let Some(request) = request else { return };
    let told = watcher().as_ref().and_then(Weak::upgrade);
    if let Some(told) = told {
        told.told(&request);
    }
}
