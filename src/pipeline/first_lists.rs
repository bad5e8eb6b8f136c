//! At the start of the process, answers made of all servers' lists wait for the servers' first
//! answers: most clients list once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Health, Pipeline};
use crate::access::policy::Scope;
use crate::catalogue::Server;
use crate::limits::REQUIRED_LISTS_TIMEOUT;
use crate::protocol::server_name::ServerName;
use crate::wait::{ClientWatch, Wait};

/// The time until which the first lists are awaited.
#[derive(Debug)]
pub(super) struct FirstLists {
    /// The time for any server.
    until: Instant,
    /// The time for a required server that has neither answered nor failed.
    until_required: Instant,
    /// True once no request waits for them any more.
    are_over: AtomicBool,
}

impl FirstLists {
    /// Waits begin now and last for `patience`.
    pub(super) fn new(patience: Duration) -> FirstLists {
        let now = Instant::now();
        FirstLists {
            until: now + patience,
            until_required: now + patience.max(REQUIRED_LISTS_TIMEOUT),
            are_over: AtomicBool::new(false),
        }
    }

    /// The time until which that server is awaited; none if it is not.
    fn wanted(&self, server: &Server, is_required: bool) -> Option<Instant> {
        // Its lists may be those of an earlier process.
        if server.has_answered || server.is_stale() {
            return None;
        }
        match (&server.health, is_required) {
            (Health::Connecting, true) => Some(self.until_required),
            // A required server that fails at first may need only a moment more.
            (Health::Connecting, false) | (Health::Failed { .. }, true) => Some(self.until),
            (Health::Failed { .. }, false) | (Health::Well, _) => None,
        }
    }
}

impl Pipeline {
    /// Waits until every server that the scope sees (only `server`, if one is named) has answered
    /// or failed once, or has stored lists: `first_list_ms` from the start at most,
    /// [`REQUIRED_LISTS_TIMEOUT`] for required servers. The hang-up of `client` ends the wait.
    pub fn await_first_lists(
        &self,
        scope: &Scope,
        server: Option<&str>,
        client: Option<ClientWatch>,
    ) {
        if self.first_lists.are_over.load(Ordering::Relaxed)
            || self.first_lists_until(scope, server).is_none()
        {
            return;
        }
        let last = self.first_lists.until_required;
        let patience = last.saturating_duration_since(Instant::now());
        let Ok(wait) = Wait::new(patience, patience, client) else { return };
        let Some(_place) = self.catalogue.waiting().enter(scope.charged.as_ref(), &wait) else {
            return;
        };
        while let Some(until) = self.first_lists_until(scope, server) {
            let left = until.saturating_duration_since(Instant::now());
            if wait.until(None, Some(left)).is_err() {
                return;
            }
        }
    }

    fn first_lists_until(&self, scope: &Scope, server: Option<&str>) -> Option<Instant> {
        let (now, catalogue) = (Instant::now(), self.catalogue.current());
        let until = |(name, known): (&ServerName, &Server)| {
            let is_required = self.upstreams.get(name).is_some_and(|it| it.config().required);
            let until = self.first_lists.wanted(known, is_required)?;
            (now < until).then_some((name.clone(), until))
        };
        let all: Vec<(ServerName, Instant)> =
            catalogue.servers.iter().filter_map(until).collect();
        if all.is_empty() {
            self.first_lists.are_over.store(true, Ordering::Relaxed);
        }
        let is_meant = |name: &ServerName| {
            scope.sees_server(name) && server.is_none_or(|server| name.as_str() == server)
        };
        let meant = all.into_iter().filter(|(name, _)| is_meant(name));
        meant.map(|(_, until)| until).max()
    }
}
