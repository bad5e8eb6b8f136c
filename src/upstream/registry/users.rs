//! Upstreams of users: which one serves a user at a server, made when it is first needed, made
//! anew when its server is configured otherwise, and ended when nobody needs it any more.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::{Made, Upstreams, supervisor};
use crate::access::policy::OptionalLease;
use crate::config::{Config, UpstreamConfig};
use crate::error::CallError;
use crate::limits::USER_UPSTREAMS_SWEEP;
use crate::protocol::call::PrincipalId;
use crate::protocol::credentials::{PerUser, UserCredentials};
use crate::protocol::credentials_id::CredentialsId;
use crate::protocol::server_name::ServerName;
use crate::thread::{Joined, spawn};
use crate::upstream::session::user::User;
use crate::upstream::users::Found;
use crate::upstream::{Report, Upstream};

impl Upstreams {
    /// True if some server may be reached with users' own credentials.
    pub fn has_users(&self) -> bool {
        self.has_users.load(Ordering::Relaxed)
    }

    /// The servers that may be reached with users' own credentials; none where there is none.
    pub fn per_user(&self) -> Option<Arc<PerUser>> {
        let read = || self.per_user.read().unwrap_or_else(PoisonError::into_inner).clone();
        self.has_users().then(read)
    }

    /// The upstream of a user at a server whose credentials are each user's own, made if there is
    /// none; for another server, that server's. `charged`: in whose share it counts; `lease`: the
    /// access token with which the user comes, if it is one.
    ///
    /// # Errors
    /// Something of the user is not known that the server's configuration names, or too many
    /// users' credentials are in use.
    pub fn of_user(
        self: &Arc<Self>,
        base: Arc<Upstream>,
        user: &Arc<UserCredentials>,
        charged: Option<&PrincipalId>,
        lease: &OptionalLease,
    ) -> Result<Arc<Upstream>, CallError> {
        if !base.may_be_per_user {
            return Ok(base);
        }
        let registered = &base.context.config;
        if !registered.is_own_of(user) {
            return Ok(base);
        }
        if let Some(known) = self.users.find(registered, user.id(&registered.name), lease) {
            return Ok(known);
        }
        self.sweep_users(base.name())?;
        let registered = registered.clone();
        let user = User::new(user.clone(), charged.cloned(), lease.clone(), registered);
        self.make_of_user(&base, user)
    }

    /// Makes the upstream of a user, unless there is one by now.
    fn make_of_user(&self, base: &Upstream, user: User) -> Result<Arc<Upstream>, CallError> {
        // Not locked below the upstreams of users: there, only the locks of the upstream that is
        // made and of its authorization are taken.
        let reports = self.running().reports.clone().ok_or(CallError::ShuttingDown)?;
        let name = base.name();
        let config = user.registered.for_user(&user.credentials);
        let config = config.map_err(|what| {
            self.users.tell_unusable(name, &user.credentials, &what);
            CallError::Invalid(format!("{name}: {what}."))
        })?;
        let index = base.context.index;
        let failed = |error: io::Error| {
            log::error!(target: "upstream", "{name}: a user's sessions cannot be opened: {error}");
            CallError::Internal
        };
        let build = |user, old: Option<&Arc<Upstream>>| {
            let made = Made { index, old, user: Some(Arc::new(user)) };
            let built = self.shared.upstream(Arc::new(config), made, reports.clone());
            built.map(Arc::new).map_err(failed)
        };
        let start = |upstream: &Arc<Upstream>, old: Option<&Arc<Upstream>>| {
            start_user(upstream, old, reports.clone()).map_err(failed)
        };
        let Found { upstream, removed } = self.users.make(user, build, start);
        if !removed.is_empty() {
            self.running().retire_users(removed, self.shared.limits.drain);
        }
        upstream
    }

    /// Starts the thread that ends upstreams of users, unless it runs.
    fn sweep_users(self: &Arc<Self>, server: &ServerName) -> Result<(), CallError> {
        let mut running = self.running();
        if running.sweeping.is_some() || running.reports.is_none() {
            return Ok(());
        }
        let (stop, stopped) = bounded(0);
        let upstreams = Arc::downgrade(self);
        let thread =
            spawn("up-users", move || sweep(&upstreams, &stopped)).map_err(|error| {
                log::error!(target: "upstream", "{server}: users cannot be served: {error}");
                CallError::Internal
            })?;
        running.sweeping = Some((stop, thread));
        Ok(())
    }

    /// Makes users' upstreams at servers that are configured otherwise now: those that somebody
    /// needs are made anew, so that subscriptions go on, and the others end.
    pub(super) fn configure_users(&self, configs: &[Arc<UpstreamConfig>]) {
        let stays =
            |config: &Arc<UpstreamConfig>| configs.iter().any(|it| Arc::ptr_eq(it, config));
        let stale = self.users.stale(stays);
        let there = if stale.is_empty() {
            HashSet::new()
        } else {
            self.shared.server_events.users_there()
        };
        for old in stale {
            let (server, Some(user)) = (old.name(), &old.context.user) else { continue };
            let is_needed =
                old.desired.has_subscriptions() || there.contains(&(server.clone(), user.id));
            let base = self.get(server);
            let base = base.filter(|it| it.context.config.is_own_of(&user.credentials));
            let Some(base) = base.filter(|_| is_needed) else { continue };
            let (credentials, charged) = (user.credentials.clone(), user.charged.clone());
            let (lease, registered) = (user.lease(), base.context.config.clone());
            let user = User::new(credentials, charged, lease, registered);
            if let Err(error) = self.make_of_user(&base, user) {
                log::warn!(target: "upstream", "{server}: a user's subscriptions end: {error}");
            }
        }
        let ended = self.users.take_unless(stays);
        self.running().retire_users(ended, self.shared.limits.drain);
    }

    /// The upstream of a user at a server, if there is one.
    pub fn known_of_user(
        &self,
        server: &ServerName,
        user: CredentialsId,
    ) -> Option<Arc<Upstream>> {
        self.users.known(server, user)
    }

    /// The number of users' upstreams, and the most that there may be.
    pub fn count_users(&self) -> (usize, usize) {
        self.users.counts()
    }

    /// Those of a server's users.
    pub fn users_of(&self, name: &ServerName) -> Vec<Arc<Upstream>> {
        if self.has_users() { self.users.at(name) } else { Vec::new() }
    }

    /// The upstream of that name, and those of its users.
    pub fn with_users(&self, name: &ServerName) -> Vec<Arc<Upstream>> {
        let mut all: Vec<_> = self.get(name).into_iter().collect();
        all.extend(self.users_of(name));
        all
    }

    /// All upstreams, and those of users.
    pub fn all_with_users(&self) -> Vec<Arc<Upstream>> {
        let mut all: Vec<_> = self.all().values().cloned().collect();
        all.extend(self.users.all());
        all
    }

    /// Ends the upstreams of principals for which `ends` is true, once their calls have ended.
    pub fn end_users(&self, ends: impl Fn(&PrincipalId) -> bool) {
        let ended = self.users.take_of(ends);
        self.running().retire_users(ended, self.shared.limits.drain);
    }

    /// Ends the upstreams of users to whom the present configuration gives no rights any more,
    /// once their calls have ended.
    pub fn end_users_without_rights(&self) {
        let ended = self.users.take_without_rights();
        self.running().retire_users(ended, self.shared.limits.drain);
    }

    /// Ends the sign-ins of users at servers whose key is not in this configuration. Returns at once.
    pub fn end_sign_ins_without_key(&self, config: &Config) {
        let keys = config.api_keys.iter().map(|key| key.sha256).collect();
        self.shared.authorizations.end_without_key(&config.upstreams, keys);
    }

    /// Ends users' upstreams which nobody needs any more: no call has come for
    /// `limits.session_idle`, and no client with their credentials is there; or their server is
    /// configured otherwise since, or their user has lost all rights, which a call that came before
    /// may not have known.
    fn end_unused(&self) {
        let limits = &self.shared.limits;
        let all = self.all();
        let stays = |config: &Arc<UpstreamConfig>| {
            all.get(&config.name).is_some_and(|it| Arc::ptr_eq(&it.context.config, config))
        };
        let mut ended = self.users.take_unless(stays);
        ended.extend(self.users.take_without_rights());
        if let Some(before) = Instant::now().checked_sub(limits.session_idle) {
            let events = &self.shared.server_events;
            ended.extend(self.users.take_idle(before, || events.users_there()));
        }
        self.running().retire_users(ended, limits.drain);
    }
}

/// Starts to make contact for a user. `old`: the upstream whose place it takes.
fn start_user(
    upstream: &Arc<Upstream>,
    old: Option<&Arc<Upstream>>,
    reports: Sender<Report>,
) -> io::Result<Joined> {
    let supervisor = supervisor(upstream, reports);
    let name = upstream.context.thread_name("sup");
    let thread = spawn(&name, move || supervisor.run())?;
    if let Some(old) = old {
        upstream.pool.adopt(&old.pool);
        // The catalogue has dropped its lists.
        upstream.missed_lists();
    }
    Ok(thread)
}

/// The thread that ends users' upstreams which nobody needs, until it is told to stop.
fn sweep(upstreams: &Weak<Upstreams>, stopped: &Receiver<()>) {
    while stopped.recv_timeout(USER_UPSTREAMS_SWEEP) == Err(RecvTimeoutError::Timeout) {
        let Some(upstreams) = upstreams.upgrade() else { return };
        upstreams.end_unused();
    }
}
