//! The level of log messages on the session with a server that clients share: the lowest level
//! that a client has set.
//!
//! A lower level is set at once. A search of all sessions finds out if a level is still needed
//! that one client no longer wants; it runs only once in a while, however often clients change
//! their levels or end.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use super::send::route_to;
use super::{Pipeline, server_events};
use crate::access::policy::Scope;
use crate::limits::LOG_LEVEL_LOOK_INTERVAL;
use crate::protocol::call::Client;
use crate::protocol::log_level::LogLevel;
use crate::protocol::server_name::ServerName;
use crate::sync::Mutex;
use crate::upstream::Upstream;

/// The time at which all sessions were searched for each server.
#[derive(Debug, Default)]
pub(super) struct LogLevels(Mutex<HashMap<ServerName, Look>>);

#[derive(Debug)]
struct Look {
    at: Instant,
    /// True if a level has changed since.
    is_due: bool,
}

impl LogLevels {
    fn lock(&self) -> MutexGuard<'_, HashMap<ServerName, Look>> {
        self.0.lock()
    }

    /// True if the sessions may be searched now for that server; else they will be later.
    fn may_look(&self, server: &ServerName, now: Instant) -> bool {
        let mut looks = self.lock();
        match looks.get_mut(server) {
            Some(look) if now.saturating_duration_since(look.at) < LOG_LEVEL_LOOK_INTERVAL => {
                look.is_due = true;
                false
            }
            Some(_) | None => {
                looks.insert(server.clone(), Look { at: now, is_due: false });
                true
            }
        }
    }

    /// The servers for which a search is due, and may run now.
    fn due(&self, now: Instant) -> Vec<ServerName> {
        let is_due = |look: &Look| {
            look.is_due && now.saturating_duration_since(look.at) >= LOG_LEVEL_LOOK_INTERVAL
        };
        let looks = self.lock();
        looks.iter().filter(|(_, it)| is_due(it)).map(|(server, _)| server.clone()).collect()
    }

    fn forget(&self, server: &ServerName) {
        self.lock().remove(server);
    }
}

impl Pipeline {
    /// Notes the level of a session: the servers in scope with which it shares a session are sent
    /// the lowest level of the clients that share it.
    pub fn said_log_level(&self, scope: &Scope, client: &Client, level: LogLevel) {
        for server in self.servers_with(scope, "logging") {
            let Some(upstream) = self.shared_with(scope, &server, client) else { continue };
            match upstream.log_level() {
                Some(known) if level < known => upstream.set_log_level(level.as_str()),
                Some(known) if level == known => (),
                _ if upstream.user_id().is_some() => upstream.set_log_level(level.as_str()),
                Some(_) | None => self.look_at_log_level(&upstream),
            }
        }
    }

    /// Notes a new session without a level: where others want few messages, it wants the usual
    /// ones.
    pub fn log_level_unsaid(&self, scope: &Scope, client: &Client) {
        for server in self.servers(scope) {
            let Some(upstream) = self.shared_with(scope, &server, client) else { continue };
            if upstream.log_level() > Some(LogLevel::USUAL) {
                upstream.set_log_level(LogLevel::USUAL.as_str());
            }
        }
    }

    /// The server, where the client's calls go over the session that is shared.
    fn shared_with(
        &self,
        scope: &Scope,
        server: &ServerName,
        client: &Client,
    ) -> Option<Arc<Upstream>> {
        let is_shared = |it: &Arc<Upstream>| route_to(it, Some(client), None).is_shared();
        self.upstream_for(scope, server).ok().filter(is_shared)
    }

    /// Notes that the levels of the clients that share a session may have changed: the server is
    /// told soon.
    pub(super) fn look_at_log_level(&self, upstream: &Upstream) {
        // At a user's own server, the level is the one that was set last.
        if upstream.user_id().is_some() {
            return;
        }
        if !self.log_levels.may_look(upstream.name(), Instant::now()) {
            return;
        }
        let known = upstream.log_level();
        let shared = server_events::shared(upstream.name(), Some(upstream));
        let lowest = self.sessions.lowest_log_level(&shared);
        // A server's default level is unknown once it was told another one.
        let wanted = lowest.or_else(|| known.map(|_| LogLevel::USUAL));
        if let Some(wanted) = wanted.filter(|wanted| known != Some(*wanted)) {
            upstream.set_log_level(wanted.as_str());
        }
    }

    /// Searches for the servers that are due.
    pub fn look_at_log_levels(&self) {
        for server in self.log_levels.due(Instant::now()) {
            match self.upstreams.get(&server) {
                Some(upstream) => self.look_at_log_level(&upstream),
                None => self.log_levels.forget(&server),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn however_often_something_changes_it_is_looked_at_once_in_a_while_and_at_last() {
        let (levels, begun) = (LogLevels::default(), Instant::now());
        let [one, two] = ["one", "two"].map(|name| ServerName::parse(name).unwrap());
        let changes = |from: Duration| {
            let at = |n: u32| begun + from + LOG_LEVEL_LOOK_INTERVAL * n / 1000;
            (0..1000).filter(|n| levels.may_look(&one, at(*n))).count()
        };
        assert_eq!(changes(Duration::ZERO), 1);
        assert!(levels.may_look(&two, begun), "it has times of its own");
        assert!(levels.due(begun + LOG_LEVEL_LOOK_INTERVAL / 2).is_empty(), "it may not yet");
        let later = begun + LOG_LEVEL_LOOK_INTERVAL;
        assert_eq!(levels.due(later), std::slice::from_ref(&one));
        assert!(levels.may_look(&one, later));
        assert!(levels.due(later + LOG_LEVEL_LOOK_INTERVAL).is_empty(), "nothing has changed");
    }
}
