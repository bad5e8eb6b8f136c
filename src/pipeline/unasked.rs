//! What upstreams say and ask outside of calls, on its way to the sessions that should hear it.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use super::task_owners::{TaskKey, TaskOwners};
use super::tasks;
use crate::config::SessionSharing;
use crate::protocol::call::{Notice, Question};
use crate::protocol::jsonrpc::notification;
use crate::protocol::log_level::LogLevel;
use crate::protocol::method::notification as names;
use crate::protocol::raw::Raw;
use crate::protocol::server_name::ServerName;
use crate::session::{Audience, Sessions, Shared};
use crate::telemetry::Seldom;
use crate::upstream::{Unasked, Upstreams};

/// Hands on what upstreams say unasked.
#[derive(Debug)]
pub struct ToSessions {
    sessions: Sessions,
    tasks: Arc<TaskOwners>,
    /// Known once they are started, which takes this. There are no sessions before.
    upstreams: OnceLock<Weak<Upstreams>>,
    /// Lines about what nobody could be told.
    untold: Seldom,
}

impl ToSessions {
    /// To these sessions, what is about a task only to whose it is, and what is said on a shared
    /// session only to those who share it.
    pub fn new(sessions: Sessions, tasks: Arc<TaskOwners>) -> ToSessions {
        let untold = Seldom::default();
        ToSessions { sessions, tasks, upstreams: OnceLock::new(), untold }
    }

    /// The upstreams that speak through this, for how they are configured and what is found out
    /// about them.
    pub fn know(&self, upstreams: &Arc<Upstreams>) {
        self.upstreams.get_or_init(|| Arc::downgrade(upstreams));
    }

    fn shared(&self, server: &ServerName) -> Shared {
        let upstreams = self.upstreams.get().and_then(Weak::upgrade);
        let upstream = upstreams.and_then(|all| all.get(server));
        let sharing = upstream.map_or(SessionSharing::Auto, |upstream| {
            // With a server without sessions nobody has one of its own.
            let refuses = upstream.refuses_sessions();
            if refuses { SessionSharing::Shared } else { upstream.config().session }
        });
        Shared { server: server.clone(), sharing }
    }

    /// Who hears a notification, on the session of `client` or on the shared one; nobody, if it
    /// is about a task of somebody else. A client's own session may be told of a task before
    /// the call that begins it is answered; on the shared one it could be anybody's.
    fn audience(
        &self,
        server: &ServerName,
        client: Option<&Arc<str>>,
        level: Option<LogLevel>,
        task: Option<String>,
    ) -> Option<Audience> {
        let now = Instant::now();
        let key = task.map(|id| TaskKey { server: server.clone(), id });
        let Some(client) = client else {
            let Some(key) = key else {
                return Some(Audience::Sharing(self.shared(server), level));
            };
            let principal = self.tasks.of_shared(now, &key)?;
            return Some(Audience::Of(self.shared(server), level, principal));
        };
        if let Some(key) = key {
            let principal = self.sessions.principal_id(client)?;
            if self.tasks.is_of_others(now, &principal, &key) {
                return None;
            }
        }
        Some(Audience::One(client.clone(), server.clone()))
    }
}

impl Unasked for ToSessions {
    fn notice(&self, server: &ServerName, client: Option<&Arc<str>>, notice: Notice) {
        let sessions = &self.sessions;
        let task = tasks::told_of(&notice);
        let (level, message) = match tasks::owned_notice(server, notice) {
            Notice::Log(params) => {
                let level = LogLevel::of_message(params.get());
                if client.is_some_and(|client| !sessions.wants_log(client, level)) {
                    return;
                }
                (level, notification(names::MESSAGE, Some(params.get())))
            }
            Notice::ResourceUpdated(params) => {
                let updated = sessions.updated(server.clone(), client.cloned(), params);
                return told(&self.untold, server, updated.is_ok());
            }
            Notice::Withdrawn { server, id } => {
                if let Some(client) = client {
                    sessions.withdraw_unasked(client, server, id);
                }
                return;
            }
            Notice::Other { method, params } => {
                (None, notification(&method, params.as_ref().map(Raw::get)))
            }
            // Of a call that has ended.
            Notice::Progress(_) => return,
        };
        if let Some(to) = self.audience(server, client, level, task) {
            told(&self.untold, server, sessions.notify(to, message).is_ok());
        }
    }

    fn ask(&self, _: &ServerName, client: &Arc<str>, question: Question) {
        self.sessions.ask_unasked(client, tasks::owned_question(question));
    }
}

fn told(untold: &Seldom, server: &ServerName, is_told: bool) {
    if !is_told && let Some(more) = untold.turn() {
        log::warn!(target: "sessions", "a message of {server} could not be told{more}");
    }
}
