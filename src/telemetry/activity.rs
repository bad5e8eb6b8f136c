//! Calls and refusals as they happen, for whoever watches. While nobody does, a request costs one
//! look at a flag.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use super::access::{self, Refusal};
use super::request::Record;

/// What has happened.
#[derive(Debug, Clone)]
pub enum Activity {
    /// A message was answered.
    Call(DoneCall),
    /// Something was turned away.
    Refusal(Refusal),
}

/// A message that was answered.
#[derive(Debug, Clone)]
pub struct DoneCall {
    /// When.
    pub at: SystemTime,
    /// What its request is called.
    pub id: String,
    /// Who sent it.
    pub peer: String,
    /// Whose key it had; empty without one.
    pub key: String,
    /// The client, as it calls itself.
    pub client: String,
    /// How it came in.
    pub door: &'static str,
    /// What it asked for.
    pub method: &'static str,
    /// The tool's offered name, or empty.
    pub tool: String,
    /// The server's name, or empty.
    pub server: String,
    /// What came of it.
    pub outcome: &'static str,
    /// The status of the answer; 0 where there was none.
    pub status: u16,
    /// How long it took.
    pub took: Duration,
    /// What went wrong, or empty.
    pub message: String,
}

impl Activity {
    /// Whose key it was; empty where there was none that is known.
    pub fn key(&self) -> &str {
        match self {
            Activity::Call(call) => &call.key,
            Activity::Refusal(refusal) => &refusal.key,
        }
    }
}

/// Is told of all that happens.
pub trait Watcher: Debug + Send + Sync {
    /// Never waits.
    fn told(&self, activity: &Activity);
}

static IS_WATCHED: AtomicBool = AtomicBool::new(false);
static WATCHER: Mutex<Option<Weak<dyn Watcher>>> = Mutex::new(None);

fn watcher() -> MutexGuard<'static, Option<Weak<dyn Watcher>>> {
    WATCHER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From here on this one is told, or nobody.
pub fn watch(by: Option<Weak<dyn Watcher>>) {
    let mut watcher = watcher();
    IS_WATCHED.store(by.is_some(), Ordering::Relaxed);
    *watcher = by;
}

pub(super) fn is_watched() -> bool {
    IS_WATCHED.load(Ordering::Relaxed)
}

/// What is told of a request of which a message is answered, or that was turned away.
pub(super) fn of(record: &Record) -> Option<Activity> {
    if !is_watched() {
        return None;
    }
    if let Some(reason) = record.reason() {
        return Some(Activity::Refusal(access::refusal(record, reason, 0)));
    }
    let asked = record.asked?;
    Some(Activity::Call(DoneCall {
        at: SystemTime::now(),
        id: access::id_of(record).to_owned(),
        peer: access::peer_text(record.peer),
        key: record.key.clone(),
        client: record.client.clone(),
        door: asked.door.as_str(),
        method: asked.method_text(),
        tool: record.tool.clone(),
        server: record.server.clone(),
        outcome: record.outcome.map_or("", |outcome| outcome.as_str()),
        status: record.status,
        took: record.took(),
        message: record.error.clone(),
    }))
}

/// Tells it. The lock of this thread's record is not held, since whoever is told may log.
pub(super) fn tell(activity: Option<Activity>) {
    let Some(activity) = activity else { return };
    let told = watcher().as_ref().and_then(Weak::upgrade);
    if let Some(told) = told {
        told.told(&activity);
    }
}
