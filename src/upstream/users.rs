//! The upstreams of users, where a server's credentials are each user's own: one for each set of
//! credentials, made when its user first needs it, with sessions, connections, children, permits
//! and a supervisor of its own. So nothing that was made with one user's credentials can serve
//! another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::config::UpstreamConfig;
use crate::error::CallError;
use crate::fair_shares::Shares;
use crate::limits::USER_UPSTREAMS_MAX;
use crate::protocol::call::{Notice, PrincipalId};
use crate::protocol::credentials::UserCredentials;
use crate::protocol::credentials_id::CredentialsId;
use crate::protocol::question::Question;
use crate::protocol::server_name::ServerName;
use crate::sync::Mutex;
use crate::thread::Joined;

use super::session::user::User;
use super::{ServerEvents, Upstream, Wire};

/// One user's upstream, and its supervisor.
pub(super) struct UserUpstream {
    pub(super) upstream: Arc<Upstream>,
    pub(super) supervisor: Joined,
    used: Instant,
}

impl UserUpstream {
    /// True if no call runs or waits there, and nobody is subscribed to anything.
    fn is_idle(&self) -> bool {
        self.upstream.concurrency.counts() == (0, 0)
            && self.upstream.desired.has_no_subscriptions()
    }

    fn user(&self) -> Option<&User> {
        self.upstream.context.user.as_deref()
    }

    fn charged(&self) -> Option<&PrincipalId> {
        self.user()?.charged.as_ref()
    }
}

/// The upstreams of all users at all servers.
pub(super) struct UserUpstreams(Mutex<State>);

struct State {
    entries: HashMap<(ServerName, CredentialsId), UserUpstream>,
    shares: Shares<PrincipalId>,
}

impl Default for UserUpstreams {
    fn default() -> UserUpstreams {
        let shares = Shares::new(USER_UPSTREAMS_MAX);
        UserUpstreams(Mutex::new(State { entries: HashMap::new(), shares }))
    }
}

impl State {
    fn remove(&mut self, key: &(ServerName, CredentialsId)) -> Option<UserUpstream> {
        let removed = self.entries.remove(key)?;
        self.shares.give_back_of(removed.charged(), 1);
        Some(removed)
    }

    fn remove_where(&mut self, wanted: impl Fn(&UserUpstream) -> bool) -> Vec<UserUpstream> {
        let keys: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| wanted(entry))
            .map(|(key, _)| key.clone())
            .collect();
        keys.iter().filter_map(|key| self.remove(key)).collect()
    }

    /// At the bound, the upstream that was idle for longest makes room: of the same principal
    /// where its share is full.
    fn make_room(
        &mut self,
        charged: Option<&PrincipalId>,
    ) -> Result<Option<UserUpstream>, CallError> {
        if self.shares.take_of(charged, 1).is_ok() {
            return Ok(None);
        }
        let of_it = |entry: &UserUpstream| entry.charged() == charged;
        let has_own = self.entries.values().any(|it| of_it(it) && it.is_idle());
        let idle = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.is_idle() && (!has_own || of_it(entry)))
            .min_by_key(|(_, entry)| entry.used)
            .map(|(key, _)| key.clone());
        let removed = idle.and_then(|key| self.remove(&key));
        if removed.is_some() && self.shares.take_of(charged, 1).is_ok() {
            return Ok(removed);
        }
        let what = format!(
            "{USER_UPSTREAMS_MAX} sets of users' own credentials are in use at once, or your share \
             of them is"
        );
        Err(CallError::Overloaded { what })
    }
}

impl UserUpstreams {
    /// The upstream of that user at a server, made by `start` if there is none. The other value
    /// had to make room, and ends.
    pub(super) fn of(
        &self,
        registered: &Arc<UpstreamConfig>,
        user: &UserCredentials,
        charged: Option<&PrincipalId>,
        start: impl FnOnce(User) -> Result<(Arc<Upstream>, Joined), CallError>,
    ) -> Result<(Arc<Upstream>, Option<UserUpstream>), CallError> {
        let (now, id) = (Instant::now(), user.id(&registered.name));
        let key = (registered.name.clone(), id);
        let mut state = self.0.lock();
        let mut removed = None;
        match state.entries.get_mut(&key) {
            Some(entry)
                if entry.user().is_some_and(|it| Arc::ptr_eq(&it.registered, registered)) =>
            {
                entry.used = now;
                if let Some(user) = entry.user() {
                    user.note_use(now);
                }
                return Ok((entry.upstream.clone(), None));
            }
            // The server is another one since.
            Some(_) => removed = state.remove(&key),
            None => (),
        }
        let made_room = state.make_room(charged)?;
        let user = User::new(id, user.principal.clone(), charged.cloned(), registered.clone());
        let (upstream, supervisor) = start(user).inspect_err(|_| {
            state.shares.give_back_of(charged, 1);
        })?;
        state
            .entries
            .insert(key, UserUpstream { upstream: upstream.clone(), supervisor, used: now });
        Ok((upstream, removed.or(made_room)))
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<Upstream>> {
        self.0.lock().entries.values().map(|entry| entry.upstream.clone()).collect()
    }

    /// Those at one server.
    pub(super) fn at(&self, server: &ServerName) -> Vec<Arc<Upstream>> {
        let state = self.0.lock();
        let at = state.entries.iter().filter(|((of, _), _)| of == server);
        at.map(|(_, entry)| entry.upstream.clone()).collect()
    }

    /// Takes out those that were idle since `before`.
    pub(super) fn take_idle(&self, before: Instant) -> Vec<UserUpstream> {
        self.0.lock().remove_where(|entry| entry.used < before && entry.is_idle())
    }

    /// Takes out those of servers of which this is not the configuration.
    pub(super) fn take_unless(
        &self,
        stays: impl Fn(&Arc<UpstreamConfig>) -> bool,
    ) -> Vec<UserUpstream> {
        let ends = |entry: &UserUpstream| entry.user().is_none_or(|it| !stays(&it.registered));
        self.0.lock().remove_where(ends)
    }

    /// Takes out those of principals for which `ends` is true.
    pub(super) fn take_of(&self, ends: impl Fn(&PrincipalId) -> bool) -> Vec<UserUpstream> {
        let is_its = |entry: &UserUpstream| {
            entry.user().and_then(|user| user.principal.as_ref()).is_some_and(&ends)
        };
        self.0.lock().remove_where(is_its)
    }
}

/// Hears what a server says on the sessions of one user, and tells nobody else.
pub(super) struct EventsOfUser {
    pub(super) inner: Arc<dyn ServerEvents>,
    pub(super) user: CredentialsId,
}

impl ServerEvents for EventsOfUser {
    fn notice(
        &self,
        server: &ServerName,
        client: Option<&Arc<str>>,
        notice: Notice,
        wire: Wire,
    ) {
        match client {
            Some(_) => self.inner.notice(server, client, notice, wire),
            None => self.inner.notice_of_user(server, self.user, notice),
        }
    }

    fn notice_of_user(&self, server: &ServerName, user: CredentialsId, notice: Notice) {
        self.inner.notice_of_user(server, user, notice);
    }

    fn unattributed(&self, server: &ServerName) {
        self.inner.unattributed(server);
    }

    fn ask(&self, server: &ServerName, client: &Arc<str>, question: Question) {
        self.inner.ask(server, client, question);
    }
}

impl Upstream {
    /// Has the lists of a user read again that are no longer known. Returns true if they may come
    /// soon.
    pub fn list_again(&self) -> bool {
        let Some(user) = &self.context.user else { return false };
        if user.forgets_lists() {
            self.context.mailbox.stale();
        }
        true
    }
}
