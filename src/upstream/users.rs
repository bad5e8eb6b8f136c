//! The upstreams of users, where a server's credentials are each user's own: one for each set of
//! credentials, made when its user first needs it, with sessions, connections, children, permits
//! and a supervisor of its own. So nothing that was made with one user's credentials can serve
//! another.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use crate::access::policy::OptionalLease;
use crate::config::UpstreamConfig;
use crate::error::{CallError, Stage};
use crate::fair_shares::{NotTaken, Shares};
use crate::limits::{
    UNUSABLE_USER_TOLD_INTERVAL, USER_UPSTREAMS_MAX, USER_UPSTREAMS_OF_PRINCIPAL_MAX,
};
use crate::protocol::call::{Kind, Notice, PrincipalId};
use crate::protocol::credentials::UserCredentials;
use crate::protocol::credentials_id::CredentialsId;
use crate::protocol::legacy::Initialized;
use crate::protocol::question::Question;
use crate::protocol::server_name::ServerName;
use crate::protocol::subscriber::Subscriber;
use crate::sync::Mutex;
use crate::thread::Joined;

use super::authorization::SignInStatus;
use super::session::context::Mailbox;
use super::session::user::User;
use super::{FailureReport, ServerEvents, State, Upstream, Wire};

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

    pub(super) fn charged(&self) -> Option<&PrincipalId> {
        self.user()?.charged.as_ref()
    }
}

/// The upstreams of all users at all servers.
pub(super) struct UserUpstreams(Mutex<All>);

struct All {
    entries: HashMap<Key, UserUpstream>,
    shares: Shares<PrincipalId>,
    /// When it was told last that a server cannot be reached for some user.
    told: HashMap<ServerName, Instant>,
    /// True once everything ends: none is made any more.
    is_over: bool,
}

type Key = (ServerName, CredentialsId);

impl Default for UserUpstreams {
    fn default() -> UserUpstreams {
        let shares = Shares::new(USER_UPSTREAMS_MAX);
        let (entries, told) = (HashMap::new(), HashMap::new());
        UserUpstreams(Mutex::new(All { entries, shares, told, is_over: false }))
    }
}

impl All {
    /// The upstream under that key, if it was made for this configuration of its server. That
    /// counts as a use, with that access token.
    fn find(
        &mut self,
        key: &Key,
        registered: &Arc<UpstreamConfig>,
        lease: &OptionalLease,
    ) -> Option<Arc<Upstream>> {
        let entry = self.entries.get_mut(key)?;
        let user = entry.user().filter(|it| Arc::ptr_eq(&it.registered, registered))?;
        let now = Instant::now();
        user.note_use(now, lease);
        entry.used = now;
        Some(entry.upstream.clone())
    }

    /// What a wish for the upstream under that key comes to without making one.
    fn decided(
        &mut self,
        key: &Key,
        registered: &Arc<UpstreamConfig>,
        lease: &OptionalLease,
    ) -> Option<Result<Arc<Upstream>, CallError>> {
        match self.find(key, registered, lease) {
            None if self.is_over => Some(Err(CallError::ShuttingDown)),
            found => found.map(Ok),
        }
    }

    fn remove(&mut self, key: &Key) -> Option<UserUpstream> {
        let removed = self.entries.remove(key)?;
        self.shares.give_back_of(removed.charged(), 1);
        Some(removed)
    }

    fn remove_where(
        &mut self,
        wanted: impl Fn(&Key, &UserUpstream) -> bool,
    ) -> Vec<UserUpstream> {
        let wanted = self.entries.iter().filter(|(key, entry)| wanted(key, entry));
        let keys: Vec<_> = wanted.map(|(key, _)| key.clone()).collect();
        keys.iter().filter_map(|key| self.remove(key)).collect()
    }

    /// Takes a place in the share of `charged`. At the bound, one that is idle makes room.
    ///
    /// # Errors
    /// None that is idle may make room.
    fn make_room(
        &mut self,
        charged: Option<&PrincipalId>,
        removed: &mut Vec<UserUpstream>,
    ) -> Result<(), CallError> {
        let Err(why) = self.take(charged) else { return Ok(()) };
        let idle = self.entries.iter().filter(|(_, entry)| entry.is_idle());
        let idle =
            idle.map(|(key, entry)| Idle { key, charged: entry.charged(), used: entry.used });
        let victim = victim(idle, charged, why).cloned();
        removed.extend(victim.and_then(|key| self.remove(&key)));
        self.take(charged).map_err(|why| CallError::Overloaded { what: not_taken(why) })
    }

    /// Takes a place in the share of `charged`.
    fn take(&mut self, charged: Option<&PrincipalId>) -> Result<(), NotTaken> {
        let held = charged.map_or(0, |who| self.shares.held(who));
        if held >= USER_UPSTREAMS_OF_PRINCIPAL_MAX {
            return Err(NotTaken::ShareHeld);
        }
        self.shares.take_of(charged, 1)
    }
}

fn not_taken(why: NotTaken) -> String {
    match why {
        NotTaken::Full => {
            format!("{USER_UPSTREAMS_MAX} sets of users' own credentials are in use at once")
        }
        NotTaken::ShareHeld => format!(
            "your key or user has its share of users' own credentials in use: at most \
             {USER_UPSTREAMS_OF_PRINCIPAL_MAX} sets at once"
        ),
    }
}

/// An upstream that nobody uses at present.
struct Idle<'a, K> {
    key: K,
    charged: Option<&'a PrincipalId>,
    used: Instant,
}

/// The one that makes room for another one of the principal `charged`: of those of that principal
/// the one that was idle for longest. Where it has none, and its share is not what is full, of all.
fn victim<'a, K: Copy>(
    idle: impl Iterator<Item = Idle<'a, K>>,
    charged: Option<&PrincipalId>,
    why: NotTaken,
) -> Option<K> {
    let (own, others): (Vec<_>, Vec<_>) = idle.partition(|it| it.charged == charged);
    let oldest = |of: Vec<Idle<'a, K>>| of.into_iter().min_by_key(|it| it.used);
    let victim = oldest(own).or_else(|| match why {
        NotTaken::Full => oldest(others),
        NotTaken::ShareHeld => None,
    });
    victim.map(|it| it.key)
}

/// What came of a wish for a user's upstream.
pub(super) struct Found {
    pub(super) upstream: Result<Arc<Upstream>, CallError>,
    /// Those that had to make room, or whose server is another one since: they are to end.
    pub(super) removed: Vec<UserUpstream>,
}

impl UserUpstreams {
    /// The upstream of that user at a server, if there is one. That counts as a use, with that
    /// access token.
    pub(super) fn find(
        &self,
        registered: &Arc<UpstreamConfig>,
        user: CredentialsId,
        lease: &OptionalLease,
    ) -> Option<Arc<Upstream>> {
        self.0.lock().find(&(registered.name.clone(), user), registered, lease)
    }

    /// The upstream of that user at a server, if there is one. That counts as no use.
    pub(super) fn known(
        &self,
        server: &ServerName,
        user: CredentialsId,
    ) -> Option<Arc<Upstream>> {
        let key = (server.clone(), user);
        self.0.lock().entries.get(&key).map(|entry| entry.upstream.clone())
    }

    /// Makes the upstream of a user, unless there is one by now. `build` is given the one whose
    /// place it takes, which was made for the server as it was configured before. Nothing is
    /// locked meanwhile, since `build` reads files: of two that are built at once, the second is
    /// dropped before `start`.
    pub(super) fn make(
        &self,
        user: User,
        build: impl FnOnce(User, Option<&Arc<Upstream>>) -> Result<Arc<Upstream>, CallError>,
        start: impl FnOnce(&Arc<Upstream>, Option<&Arc<Upstream>>) -> Result<Joined, CallError>,
    ) -> Found {
        let key = (user.registered.name.clone(), user.id);
        let (registered, charged) = (user.registered.clone(), user.charged.clone());
        let lease = user.lease();
        let mut removed = Vec::new();
        let old = {
            let mut state = self.0.lock();
            if let Some(upstream) = state.decided(&key, &registered, &lease) {
                return Found { upstream, removed };
            }
            state.entries.get(&key).map(|it| it.upstream.clone())
        };
        let built = match build(user, old.as_ref()) {
            Ok(built) => built,
            Err(error) => return Found { upstream: Err(error), removed },
        };
        let mut state = self.0.lock();
        if let Some(upstream) = state.decided(&key, &registered, &lease) {
            return Found { upstream, removed };
        }
        removed.extend(state.remove(&key));
        let upstream = state.make_room(charged.as_ref(), &mut removed).and_then(|()| {
            let supervisor = start(&built, old.as_ref()).inspect_err(|_| {
                state.shares.give_back_of(charged.as_ref(), 1);
            })?;
            let entry =
                UserUpstream { upstream: built.clone(), supervisor, used: Instant::now() };
            state.entries.insert(key, entry);
            Ok(built)
        });
        Found { upstream, removed }
    }

    /// Tells operators, now and then for each server, that it cannot be reached for a user.
    pub(super) fn tell_unusable(
        &self,
        server: &ServerName,
        user: &UserCredentials,
        what: &str,
    ) {
        let now = Instant::now();
        let mut state = self.0.lock();
        let is_late = |at: &Instant| now.duration_since(*at) >= UNUSABLE_USER_TOLD_INTERVAL;
        if !state.told.get(server).is_none_or(is_late) {
            return;
        }
        state.told.insert(server.clone(), now);
        drop(state);
        let whom = user.name.as_deref().unwrap_or("a caller without a name");
        log::warn!(target: "upstream", "{server}: it cannot be reached for {whom:?}: {what}");
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

    /// Takes out those that were idle since `before`, and are none of those that `awaited` gives,
    /// which is asked while nothing is locked.
    pub(super) fn take_idle(
        &self,
        before: Instant,
        awaited: impl FnOnce() -> HashSet<Key>,
    ) -> Vec<UserUpstream> {
        let is_idle = |entry: &UserUpstream| entry.used < before && entry.is_idle();
        let mut idle: Vec<Key> = {
            let state = self.0.lock();
            let idle = state.entries.iter().filter(|(_, entry)| is_idle(entry));
            idle.map(|(key, _)| key.clone()).collect()
        };
        if idle.is_empty() {
            return Vec::new();
        }
        let awaited = awaited();
        idle.retain(|key| !awaited.contains(key));
        self.0.lock().remove_where(|key, entry| is_idle(entry) && idle.contains(key))
    }

    /// Takes out those that were made for configurations for which `stays` is not true.
    pub(super) fn take_unless(
        &self,
        stays: impl Fn(&Arc<UpstreamConfig>) -> bool,
    ) -> Vec<UserUpstream> {
        let ends = |entry: &UserUpstream| entry.user().is_none_or(|it| !stays(&it.registered));
        self.0.lock().remove_where(|_, entry| ends(entry))
    }

    /// Takes out those of principals for which `ends` is true.
    pub(super) fn take_of(&self, ends: impl Fn(&PrincipalId) -> bool) -> Vec<UserUpstream> {
        let is_its = |entry: &UserUpstream| {
            let principal = entry.user().and_then(|user| user.credentials.principal.as_ref());
            principal.is_some_and(&ends)
        };
        self.0.lock().remove_where(|_, entry| is_its(entry))
    }

    /// Takes out those whose user came last with an access token that the present configuration gives
    /// no rights any more, which is asked while nothing is locked.
    pub(super) fn take_without_rights(&self) -> Vec<UserUpstream> {
        let mut ended = self.all();
        ended.retain(|it| {
            let lease = it.context.user.as_ref().and_then(|user| user.lease());
            lease.is_some_and(|lease| lease.present().is_none())
        });
        let is_one =
            |entry: &UserUpstream| ended.iter().any(|it| Arc::ptr_eq(it, &entry.upstream));
        self.0.lock().remove_where(|_, entry| is_one(entry))
    }

    /// Those that were made for configurations for which `stays` is not true.
    pub(super) fn stale(
        &self,
        stays: impl Fn(&Arc<UpstreamConfig>) -> bool,
    ) -> Vec<Arc<Upstream>> {
        let state = self.0.lock();
        let is_stale =
            |entry: &&UserUpstream| entry.user().is_none_or(|it| !stays(&it.registered));
        let stale = state.entries.values().filter(is_stale);
        stale.map(|entry| entry.upstream.clone()).collect()
    }

    /// Takes all of them out. From here on none is made.
    pub(super) fn end(&self) -> Vec<UserUpstream> {
        let mut state = self.0.lock();
        state.is_over = true;
        state.remove_where(|_, _| true)
    }

    /// The number of upstreams, and the most that there may be.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.0.lock().entries.len(), USER_UPSTREAMS_MAX)
    }
}

/// Hears what a server says on the sessions of one user, and tells nobody else.
pub(super) struct EventsOfUser {
    pub(super) inner: Arc<dyn ServerEvents>,
    pub(super) user: CredentialsId,
}

impl ServerEvents for EventsOfUser {
    fn notice(&self, server: &ServerName, client: Option<&Arc<str>>, notice: Notice, _: Wire) {
        self.inner.notice_of_user(server, client, self.user, notice);
    }

    fn notice_of_user(
        &self,
        server: &ServerName,
        client: Option<&Arc<str>>,
        user: CredentialsId,
        notice: Notice,
    ) {
        self.inner.notice_of_user(server, client, user, notice);
    }

    fn unattributed(&self, server: &ServerName) {
        self.inner.unattributed(server);
    }

    fn ask(&self, server: &ServerName, client: &Arc<str>, question: Question) {
        self.inner.ask(server, client, question);
    }

    fn users_there(&self) -> HashSet<(ServerName, CredentialsId)> {
        self.inner.users_there()
    }
}

/// [`Upstream::list_again`] of that user's upstream, which has this mailbox.
pub(super) fn list_again(user: &User, mailbox: &Mailbox) {
    if user.wants_lists_again() {
        // As if the server had said so: then it is not asked again and again.
        Kind::ALL.into_iter().for_each(|kind| mailbox.list_changed(kind));
    }
}

impl Upstream {
    /// Has the lists of a user read again that are no longer known, or are old, unless they are
    /// being read.
    pub fn list_again(&self) {
        if let Some(user) = &self.context.user {
            list_again(user, &self.context.mailbox);
        }
    }

    /// The failure that keeps a user from the server at present, where it is that user's own.
    pub fn failure_of_user(&self) -> Option<FailureReport> {
        self.context.user.as_ref()?.failure()
    }

    /// The name of the user whose own it is, if it has one.
    pub fn name_of_user(&self) -> Option<Arc<str>> {
        self.context.user.as_ref()?.credentials.name.clone()
    }

    /// The number of calls that hold a slot, of those that wait for one, and of open sessions.
    pub fn in_use(&self) -> (usize, usize, usize) {
        let (in_flight, waiting) = self.concurrency.counts();
        let sessions = self.pool.count_open() + usize::from(self.session.is_open());
        (in_flight, waiting, sessions)
    }

    /// Its last introduction.
    pub fn initialized(&self) -> Option<Arc<Initialized>> {
        self.health.lock().initialized.clone()
    }

    /// At present.
    pub fn state(&self) -> State {
        if self.awaits_person() {
            return State::NeedsSignIn;
        }
        self.health.lock().breaker.state(Instant::now())
    }

    /// True if contact, of which the catalogue knows that it has failed for want of a sign-in, has
    /// been made since or is being made: somebody has signed in, maybe in another process and just
    /// now.
    pub fn is_tried_after_sign_in(&self) -> bool {
        let Some(authorization) = self.authorization() else { return false };
        authorization.look_for_sign_in();
        match self.state() {
            State::Starting { .. } | State::Ready => true,
            State::NeedsSignIn | State::BackingOff { .. } | State::Down { .. } => false,
        }
    }

    /// True if the user must sign in first, or is about to.
    pub(super) fn awaits_person(&self) -> bool {
        self.authorization().is_some_and(|it| match it.status() {
            SignInStatus::NeedsSignIn { .. } | SignInStatus::UnderWay { .. } => true,
            SignInStatus::SignedIn { .. } => self.is_refused_to_user() && !it.has_enough(),
            SignInStatus::Unknown | SignInStatus::Failing { .. } => false,
        })
    }

    /// True if the user has signed in since contact failed for want of that: it is made anew.
    pub fn is_signed_in_since(&self) -> bool {
        self.is_refused_to_user() && self.authorization().is_some_and(|it| it.has_enough())
    }

    /// True if contact has failed for want of credentials that are good enough.
    fn is_refused_to_user(&self) -> bool {
        self.failure_of_user().is_some_and(|it| it.stage == Stage::Authorization)
    }

    /// Subscribes to a resource for one who was subscribed to it with other credentials. The
    /// supervisor tells the server some time soon.
    pub fn take_over_subscription(
        &self,
        uri: &str,
        subscriber: Subscriber,
        charged: Option<PrincipalId>,
    ) {
        self.desired.take_over(uri, subscriber, charged);
    }

    /// True if clients were served without the lists of a user, which have not come since.
    pub fn has_missed_lists(&self) -> bool {
        self.context.user.as_ref().is_some_and(|it| it.is_missed())
    }

    /// Notes that clients were served without the lists of a user: they are notified of them
    /// once these are known.
    pub fn missed_lists(&self) {
        if let Some(user) = &self.context.user {
            user.missed();
        }
    }

    /// Notes that clients were served the gateway's own tool for signing in: they are notified
    /// when the user's lists are read, which do not have it.
    pub fn offered_sign_in(&self) {
        if let Some(user) = &self.context.user {
            user.offered_sign_in();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_principal_has_only_a_part_of_all() {
        let (alice, bob) = (PrincipalId::Key("alice".into()), PrincipalId::Key("bob".into()));
        let users = UserUpstreams::default();
        let mut all = users.0.lock();
        for _ in 0..USER_UPSTREAMS_OF_PRINCIPAL_MAX {
            all.make_room(Some(&alice), &mut Vec::new()).unwrap();
        }
        let error = all.make_room(Some(&alice), &mut Vec::new()).unwrap_err();
        let CallError::Overloaded { what } = error else { panic!("{error}") };
        assert!(what.contains("share") && what.contains("128"), "{what}");
        all.make_room(Some(&bob), &mut Vec::new()).unwrap();
        all.make_room(None, &mut Vec::new()).unwrap();
    }

    #[test]
    fn whoever_waits_for_a_file_keeps_nobody_waiting() {
        let config = crate::config::Config::parse(
            r#"{"mcp_servers":{"a":{"url":"http://a/","forward_headers":["x-token"]}}}"#,
            &|_: &str| None,
            &crate::config::Overrides::default(),
        );
        let registered = config.unwrap().upstreams[0].clone();
        let user = || User::new(Arc::default(), None, None, registered.clone());
        let users = UserUpstreams::default();
        let found = users.make(
            user(),
            |user, old| {
                assert!(
                    old.is_none() && users.find(&user.registered, user.id, &None).is_none()
                );
                users.end();
                Err(CallError::Internal)
            },
            |_, _| unreachable!("nothing is built"),
        );
        assert!(matches!(found.upstream, Err(CallError::Internal)));
        let found = users.make(
            user(),
            |_, _| unreachable!("all has ended"),
            |_, _| unreachable!("nothing is built"),
        );
        assert!(matches!(found.upstream, Err(CallError::ShuttingDown)));
    }

    #[test]
    fn one_that_is_idle_makes_room_and_never_because_of_another_s_full_share() {
        let (alice, bob) = (PrincipalId::Key("alice".into()), PrincipalId::Key("bob".into()));
        let now = Instant::now();
        let victim_of = |all: Vec<(&'static str, Option<&'static str>, u64)>, who, why| {
            let all = all.into_iter().map(|(key, charged, used)| Idle {
                key,
                charged: match charged {
                    Some("alice") => Some(&alice),
                    Some(_) => Some(&bob),
                    None => None,
                },
                used: now + Duration::from_secs(used),
            });
            victim(all, who, why)
        };
        let all =
            vec![("b", Some("bob"), 1), ("a2", Some("alice"), 3), ("a1", Some("alice"), 2)];
        for why in [NotTaken::Full, NotTaken::ShareHeld] {
            assert_eq!(victim_of(all.clone(), Some(&alice), why), Some("a1"));
            assert_eq!(victim_of(all.clone(), Some(&bob), why), Some("b"));
        }
        let others = vec![("a2", Some("alice"), 3), ("a1", Some("alice"), 2)];
        assert_eq!(victim_of(others.clone(), Some(&bob), NotTaken::Full), Some("a1"));
        assert_eq!(victim_of(others.clone(), None, NotTaken::Full), Some("a1"));
        assert_eq!(victim_of(others, Some(&bob), NotTaken::ShareHeld), None);
        assert_eq!(victim_of(Vec::new(), Some(&bob), NotTaken::Full), None);
    }
}
