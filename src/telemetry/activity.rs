//! Calls and refusals as they happen, for a watcher. Without a watcher a request costs one read
//! of a flag.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use super::access::{self, Refusal};
use super::request::Record;

/// An event for the watcher.
#[derive(Debug, Clone)]
pub enum Activity {
    /// A message was answered.
    Call(DoneCall),
    /// A request was refused.
    Refusal(Refusal),
}

/// A message that was answered.
#[derive(Debug, Clone)]
pub struct DoneCall {
    /// The time of the answer.
    pub at: SystemTime,
    /// The request's id.
    pub id: String,
    /// The address of the peer.
    pub peer: String,
    /// The name of the request's key; empty without one.
    pub key: String,
    /// The name that the client gives itself.
    pub client: String,
    /// The door by which the request came in.
    pub door: &'static str,
    /// The method's name.
    pub method: &'static str,
    /// The tool's offered name, or empty.
    pub tool: String,
    /// The server's name, or empty.
    pub server: String,
    /// The outcome's word.
    pub outcome: &'static str,
    /// The status of the answer; 0 where there was none.
    pub status: u16,
    /// The time that the call took.
    pub took: Duration,
    /// The failure, or empty.
    pub message: String,
}

impl Activity {
    /// The key's name; empty without a known key.
    pub fn key(&self) -> &str {
        match self {
            Activity::Call(call) => &call.key,
            Activity::Refusal(refusal) => &refusal.key,
        }
    }
}

/// Receives all activities.
pub trait Watcher: Debug + Send + Sync {
    /// Takes an activity, without a wait.
    fn told(&self, activity: &Activity);
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

/// The activity of an answered message or a refused request.
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

/// Gives the activity to the watcher. This thread's record is not locked, since the watcher may
/// log.
pub(super) fn tell(activity: Option<Activity>) {
    let Some(activity) = activity else { return };
    let told = watcher().as_ref().and_then(Weak::upgrade);
    if let Some(told) = told {
        told.told(&activity);
    }
}
