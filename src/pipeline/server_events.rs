//! Messages and questions of servers outside of calls, on their way to sessions.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use super::callers::{Callers, Whose};
use super::session_route::shared_by;
use super::task_owners::{TaskKey, TaskOwners};
use super::{Owners, tasks};
use crate::protocol::call::{Notice, PrincipalId};
use crate::protocol::credentials_id::CredentialsId;
use crate::protocol::jsonrpc::notification;
use crate::protocol::log_level::LogLevel;
use crate::protocol::method::notification as names;
use crate::protocol::question::Question;
use crate::protocol::raw::Raw;
use crate::protocol::server_name::ServerName;
use crate::session::{Audience, HeardOver, LogWish, Sessions, Shared, SharedBy};
use crate::telemetry::Seldom;
use crate::upstream::{ServerEvents, Upstream, Upstreams, Wire};

/// Passes messages that servers send outside of calls on to sessions.
#[derive(Debug)]
pub struct ToSessions {
    sessions: Sessions,
    tasks: Arc<TaskOwners>,
    callers: Arc<Callers>,
    /// Set once the upstreams are started, which need this value first. There are no sessions
    /// before.
    upstreams: OnceLock<Weak<Upstreams>>,
    /// Limits the log lines about messages that no session could be told.
    untold: Seldom,
}

impl ToSessions {
    /// Passes on to `sessions`: a message about a task only to the task's owner, and a message on
    /// a shared session only to the one client that it can be about.
    pub fn new(sessions: Sessions, owners: Owners) -> ToSessions {
        let Owners { tasks, callers } = owners;
        let untold = Seldom::default();
        ToSessions { sessions, tasks, callers, upstreams: OnceLock::new(), untold }
    }

    /// Sets the upstreams whose messages come here, for their configuration and their found eras.
    pub fn know(&self, upstreams: &Arc<Upstreams>) {
        self.upstreams.get_or_init(|| Arc::downgrade(upstreams));
    }

    fn upstream(&self, server: &ServerName) -> Option<Arc<Upstream>> {
        self.upstreams.get().and_then(Weak::upgrade)?.get(server)
    }

    /// The sessions that are told of a notification, on the session of `client` or on the shared
    /// one; none, if it is about another principal's task. A client's own session may be told of
    /// a task before the call that begins it is answered; on the shared one the task could be any
    /// client's.
    fn audience(
        &self,
        server: &ServerName,
        client: Option<&Arc<str>>,
        level: Option<LogLevel>,
        task: Option<String>,
        wire: Wire,
    ) -> Option<Audience> {
        let now = Instant::now();
        let key = task.map(|id| TaskKey { server: server.clone(), id });
        if let Some(client) = client {
            if let Some(key) = key {
                let principal = self.sessions.principal_id(client)?;
                if self.tasks.is_of_others(now, &principal, &key) {
                    return None;
                }
            }
            return Some(Audience::One(client.clone(), server.clone()));
        }
        let upstream = self.upstream(server);
        let shared = shared(server, upstream.as_deref());
        let is_set = upstream.is_some_and(|upstream| upstream.log_level().is_some());
        let log = LogWish { level, unsaid: is_set.then_some(LogLevel::USUAL) };
        if let Some(key) = key {
            let principal = self.tasks.of_shared(now, &key)?;
            return Some(Audience::Of(shared, log, principal));
        }
        match self.callers.whose(now, server, wire) {
            Whose::Of(principal) => Some(Audience::Of(shared, log, principal)),
            Whose::OfNoCall(caller) => {
                let unattributed = self.callers.unattributed(server);
                Some(Audience::Only { shared, log, caller, unattributed })
            }
            Whose::Unknown => {
                self.unattributed(server);
                None
            }
        }
    }
}

/// The session with a server that clients share, and the clients that share it.
pub(super) fn shared(server: &ServerName, upstream: Option<&Upstream>) -> Shared {
    let unknown = SharedBy::ClientsThatCannotBeAsked;
    let by =
        upstream.map_or(unknown, |it| shared_by(it.session_support(), it.config().session));
    Shared { server: server.clone(), by }
}

impl ToSessions {
    /// Tells sessions what a server says outside of calls: on the session of `client`, or `over`
    /// one that clients share. `audience`: who is told of a message with a level, or without one.
    fn tell(
        &self,
        server: &ServerName,
        (client, over): (Option<&Arc<str>>, HeardOver),
        notice: Notice,
        audience: impl FnOnce(Option<LogLevel>) -> Option<Audience>,
    ) {
        let sessions = &self.sessions;
        let (level, message) = match tasks::owned_notice(server, notice) {
            Notice::Log(params) => {
                let level = LogLevel::of_message(params.get());
                if client.is_some_and(|client| !sessions.wants_log(client, level)) {
                    return;
                }
                (level, notification(names::MESSAGE, Some(params.get())))
            }
            Notice::ResourceUpdated(params) => {
                let over = client.cloned().map_or(over, HeardOver::Own);
                let updated = sessions.updated(server.clone(), over, params);
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
            // This is the progress of a call that has ended.
            Notice::Progress(_) => return,
        };
        if let Some(to) = audience(level) {
            told(&self.untold, server, sessions.notify(to, message).is_ok());
        }
    }
}

impl ServerEvents for ToSessions {
    fn notice(
        &self,
        server: &ServerName,
        client: Option<&Arc<str>>,
        notice: Notice,
        wire: Wire,
    ) {
        let task = tasks::told_of(&notice);
        self.tell(server, (client, HeardOver::Shared), notice, |level| {
            self.audience(server, client, level, task, wire)
        });
    }

    fn notice_of_user(
        &self,
        server: &ServerName,
        client: Option<&Arc<str>>,
        user: CredentialsId,
        notice: Notice,
    ) {
        if let Some(id) = tasks::told_of(&notice) {
            let key = TaskKey { server: server.clone(), id };
            let principal = PrincipalId::Credentials(user);
            if self.tasks.is_of_others(Instant::now(), &principal, &key) {
                return;
            }
        }
        self.tell(server, (client, HeardOver::User(user)), notice, |level| {
            let log = LogWish { level, unsaid: None };
            Some(match client {
                Some(client) => Audience::One(client.clone(), server.clone()),
                None => Audience::User(server.clone(), user, log),
            })
        });
    }

    fn users_there(&self) -> HashSet<(ServerName, CredentialsId)> {
        self.sessions.users_there()
    }

    fn unattributed(&self, server: &ServerName) {
        self.callers.unattributed(server).fetch_add(1, Ordering::Relaxed);
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
