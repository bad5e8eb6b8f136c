//! Calls of each server behind the gateway. A server that a reload changes keeps its counts,
//! because they belong to its name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::histogram::{Counted, Histogram};
use crate::protocol::server_name::ServerName;
use crate::sync::Mutex;
use crate::telemetry::outcome::CallOutcome;

/// The counters of one server.
#[derive(Debug, Default)]
pub struct OfServer {
    outcomes: [AtomicU64; CallOutcome::ALL.len()],
    seconds: Histogram,
}

static SERVERS: Mutex<BTreeMap<ServerName, Arc<OfServer>>> = Mutex::new(BTreeMap::new());

/// The counters of that server, for callers that keep them at hand.
pub fn of(server: &ServerName) -> Arc<OfServer> {
    let mut servers = SERVERS.lock();
    servers.entry(server.clone()).or_default().clone()
}

impl OfServer {
    /// Counts a call that is over.
    pub fn count(&self, outcome: CallOutcome, took: Duration) {
        if let Some(count) = self.outcomes.get(outcome.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.seconds.add(took);
    }

    /// The number of each outcome, and the times that calls took.
    pub fn counted(&self) -> (Vec<(CallOutcome, u64)>, Counted) {
        let outcomes = CallOutcome::ALL.into_iter().zip(&self.outcomes);
        let outcomes = outcomes.map(|(it, count)| (it, count.load(Ordering::Relaxed)));
        (outcomes.collect(), self.seconds.counted())
    }
}
