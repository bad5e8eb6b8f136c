//! An issuer: its keys as they were read last, when they are read again, and who waits for them.
//!
//! Keys are read by the thread `identity` before they are too old. A request reads them itself only
//! where its token names a key that nobody has seen yet: one at a time, at most once in
//! [`KEYS_FETCH_INTERVAL_MIN`], while the others wait for what comes of it. Until the next reading
//! may begin, further tokens with unknown key ids are refused at once: made-up ones must not hold
//! threads.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use super::FetchOf;
use super::denied::Denied;
use super::introspection_turns::{Introspecting, STOPPED};
use super::issuer_metadata::IssuerMetadata;
use super::kept_keys::KeptKeys;
use super::key_schedule::{Cause, Schedule};
use super::presented::Now;
use super::reading::{Known, Read, Reading, read_keys, read_metadata};
use super::waiters::{Place, Waiters};
use crate::config::IssuerConfig;
use crate::limits::{
    KEY_WAIT_TIMEOUT, KEY_WAITERS_MAX, KEYS_AWAITED_TIME, KEYS_FETCH_INTERVAL_MIN,
    KEYS_KEPT_INTERVAL, KEYS_READING_TIME_MIN, KEYS_SLEEP_MIN, UNKNOWN_KEY_ID_LIFE,
    UNKNOWN_KEY_IDS_MAX,
};
use crate::oauth::fetch::Fetch;
use crate::oauth::jwk::{JwkSet, Thumbprint};
use crate::oauth::jwt::Wanted;
use crate::sync::{Condvar, Mutex, RwLock};

/// An issuer of one configuration, and what is known of it.
pub(super) struct Issuer {
    pub(super) config: IssuerConfig,
    /// The issuer in names and labels.
    pub(super) name: Arc<str>,
    pub(super) fetch: Arc<dyn Fetch>,
    kept: Option<KeptKeys>,
    /// Wakes the thread that reads keys when they are due.
    wake: Arc<dyn Fn() + Send + Sync>,
    /// The requests that wait for any issuer.
    pub(super) all_waiting: Arc<Waiters>,
    /// The requests that wait for its keys.
    waiting: Waiters,
    /// The questions about its tokens that are under way.
    pub(super) introspecting: Introspecting,
    /// The time for which keys hold after they were read.
    max_age: Duration,
    /// The time since which the configuration is as it is.
    since: Instant,
    keys: RwLock<Arc<Keys>>,
    state: Mutex<State>,
    /// Rung when a reading ends, and when the gateway stops.
    ended: Condvar,
    stopping: AtomicBool,
}

/// What issuers share.
pub(super) struct Means {
    pub(super) fetch_of: Arc<FetchOf>,
    pub(super) kept: Option<KeptKeys>,
    /// Wakes the thread that reads keys.
    pub(super) wake: Arc<dyn Fn() + Send + Sync>,
    pub(super) waiting: Arc<Waiters>,
}

/// The keys of an issuer, as they were read at one time.
#[derive(Debug, Default)]
pub(super) struct Keys {
    pub(super) set: JwkSet,
    /// The time at which they were read; none if they never were.
    pub(super) read_at: Option<Instant>,
    /// The number of readings before that took a key away: what was signed by a key must be looked
    /// at again only where this has changed.
    pub(super) withdrawals: u64,
}

#[derive(Debug)]
struct State {
    schedule: Schedule,
    metadata: Known,
    /// The time at which the keys were given to the disk.
    kept_at: Option<Instant>,
    /// Why the last reading failed.
    fault: Option<Arc<str>>,
    /// Key ids that the last readings did not find.
    unknown: VecDeque<(Box<str>, Instant)>,
}

/// The state of an issuer for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerStatus {
    /// The issuer, as the configuration has it.
    pub issuer: String,
    /// The keys that may be used.
    pub keys: usize,
    /// The age of these keys; none if they were never read.
    pub keys_age: Option<Duration>,
    /// Why they could not be read again, if that is so.
    pub fault: Option<Arc<str>>,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Issuer {
    /// An issuer whose keys are those of `before`, if that is the same one of an earlier
    /// configuration, else those on the disk.
    pub(super) fn new(
        config: &IssuerConfig,
        name: Arc<str>,
        max_age: Duration,
        means: &Means,
        before: Option<&Issuer>,
    ) -> Issuer {
        let same = before.filter(|it| it.config.jwks_uri == config.jwks_uri);
        let keys = same.map(|it| it.keys.read().clone());
        let metadata = same.and_then(|it| it.state.lock().metadata.clone());
        let needs_metadata =
            config.introspection.as_ref().is_some_and(|it| it.endpoint.is_none());
        let is_whole = metadata.is_some() || !needs_metadata;
        let read_at = keys.as_ref().and_then(|keys| keys.read_at).filter(|_| is_whole);
        let on_disk = || {
            let (set, read_at) = means.kept.as_ref()?.load(config, max_age, Now::read())?;
            Some(Arc::new(Keys { set, read_at: Some(read_at), withdrawals: 0 }))
        };
        let keys = keys.filter(|keys| keys.read_at.is_some()).or_else(on_disk);
        let state = State {
            // Keys that were on the disk are read anew at once.
            schedule: Schedule::new(max_age, read_at),
            metadata,
            kept_at: None,
            fault: None,
            unknown: VecDeque::new(),
        };
        Issuer {
            config: config.clone(),
            name,
            fetch: (means.fetch_of)(config),
            kept: means.kept.clone(),
            wake: means.wake.clone(),
            all_waiting: means.waiting.clone(),
            waiting: Waiters::new(KEY_WAITERS_MAX),
            introspecting: Introspecting::default(),
            max_age,
            since: Instant::now(),
            keys: RwLock::new(keys.unwrap_or_default()),
            state: Mutex::new(state),
            ended: Condvar::new(),
            stopping: AtomicBool::new(false),
        }
    }

    /// What its tokens must say.
    pub(super) fn wanted(&self) -> Wanted<'_> {
        let IssuerConfig { issuer, audience, base, machine_clients, .. } = &self.config;
        Wanted { issuer, audience, base: base.as_deref(), machine_clients }
    }

    /// True if this is the issuer of that configuration, unchanged.
    pub(super) fn is_of(&self, config: &IssuerConfig, name: &str, max_age: Duration) -> bool {
        self.config == *config && *self.name == *name && self.max_age == max_age
    }

    /// The keys as they were read last; none if that was too long ago, or never was.
    pub(super) fn usable_keys(&self, now: Instant) -> Option<Arc<Keys>> {
        let keys = self.keys.read();
        self.is_usable(&keys, now).then(|| keys.clone())
    }

    fn is_usable(&self, keys: &Keys, now: Instant) -> bool {
        keys.read_at.is_some_and(|at| now.saturating_duration_since(at) < self.max_age)
    }

    /// True if a key that has signed an accepted token is still one of the issuer's; `withdrawals`
    /// is what [`Keys`] said when that was looked at last.
    pub(super) fn still_has(
        &self,
        key: &Thumbprint,
        withdrawals: u64,
        now: Instant,
    ) -> StillThere {
        let keys = self.keys.read();
        if !self.is_usable(&keys, now) {
            // Where the configuration says anew where the keys are, nothing is known against it
            // before the first reading; an issuer that does not answer there has none.
            let is_awaited = keys.read_at.is_none()
                && now.saturating_duration_since(self.since) < KEYS_AWAITED_TIME;
            return if is_awaited { StillThere::Yes } else { StillThere::No };
        }
        if keys.withdrawals == withdrawals {
            return StillThere::Yes;
        }
        if keys.set.has_key(key) { StillThere::Since(keys.withdrawals) } else { StillThere::No }
    }

    /// The keys for a token of that key id, read anew where nobody has seen the id yet.
    ///
    /// # Errors
    /// There are no usable keys, or it cannot be told in time if the issuer has that key.
    pub(super) fn keys_for(
        &self,
        kid: Option<&str>,
        peer: Option<IpAddr>,
        now: Instant,
    ) -> Result<Arc<Keys>, Denied> {
        let has = |keys: &Keys| kid.is_none_or(|kid| keys.set.has(kid));
        if let Some(keys) = self.usable_keys(now)
            && (has(&keys) || kid.is_some_and(|kid| self.is_unknown(kid, now)))
        {
            return Ok(keys);
        }
        self.wait_for(Needed::Key(kid), peer, now)
    }

    /// Waits until the metadata were read, where the introspection endpoint stands in them.
    /// [`Issuer::metadata`] has what was read.
    ///
    /// # Errors
    /// They cannot be read in time.
    pub(super) fn await_metadata(
        &self,
        peer: Option<IpAddr>,
        now: Instant,
    ) -> Result<(), Denied> {
        if self.metadata().is_some() {
            return Ok(());
        }
        self.wait_for(Needed::Metadata, peer, now).map(|_| ())
    }

    fn wait_for(
        &self,
        needed: Needed<'_>,
        peer: Option<IpAddr>,
        now: Instant,
    ) -> Result<Arc<Keys>, Denied> {
        let _places = self
            .places(peer)
            .ok_or_else(|| self.unavailable("too many requests wait for its keys"))?;
        let deadline = now + KEY_WAIT_TIMEOUT;
        loop {
            let mut state = self.state.lock();
            let present = Instant::now();
            if self.stopping.load(Ordering::Relaxed) {
                return Err(self.unavailable(STOPPED));
            }
            let keys = self.usable_keys(present);
            let has_keys = keys.is_some();
            let found = match needed {
                Needed::Key(kid) => {
                    keys.clone().filter(|keys| kid.is_none_or(|kid| keys.set.has(kid)))
                }
                // They are of use without keys, too.
                Needed::Metadata => {
                    state.metadata.as_ref().map(|_| keys.clone().unwrap_or_default())
                }
            };
            if let Some(keys) = found {
                return Ok(keys);
            }
            if state.schedule.has_succeeded_since(now)
                && let Some(keys) = keys
            {
                state.note_unknown(needed, present);
                return Ok(keys);
            }
            if matches!(needed, Needed::Key(Some(_)))
                && state.schedule.was_just_read_for_token(present)
                && let Some(keys) = self.usable_keys(present)
            {
                // A key that has come this moment is found by the next reading.
                self.want(state);
                return Ok(keys);
            }
            if state.has_failed(needed, present) || present >= deadline {
                let fault = state.fault.clone();
                return Err(self.unavailable(fault.as_deref().unwrap_or("it does not answer")));
            }
            match state.schedule.may_begin(present) {
                // A reading without time would only seem to fail.
                Ok(())
                    if deadline.saturating_duration_since(present) < KEYS_READING_TIME_MIN =>
                {
                    return Err(self.unavailable("it answers slowly"));
                }
                Ok(()) => {
                    let cause = match needed {
                        Needed::Key(Some(_)) if has_keys => Cause::ForToken,
                        Needed::Key(_) | Needed::Metadata => Cause::InTurn,
                    };
                    state.schedule.begin(cause, present);
                    drop(state);
                    self.read(present, deadline);
                }
                Err(wait) => {
                    let wait = wait.min(deadline.saturating_duration_since(present));
                    drop(self.ended.wait_timeout(state, wait));
                }
            }
        }
    }

    /// Asks the thread `identity` to read the keys soon: a signature is wrong, and the issuer may
    /// have put another key under the same id.
    pub(super) fn doubt_keys(&self) {
        self.want(self.state.lock());
    }

    fn want(&self, mut state: MutexGuard<'_, State>) {
        let is_new = state.schedule.want();
        drop(state);
        // The thread sleeps for as long as nothing was wanted.
        if is_new {
            (self.wake)();
        }
    }

    /// Reads the keys if that is due. Returns the time until it will be due.
    pub(super) fn refresh(&self, now: Instant) -> Duration {
        let mut state = self.state.lock();
        let wait = state.schedule.due_in(now);
        if !wait.is_zero() || state.schedule.may_begin(now).is_err() {
            return wait.max(KEYS_SLEEP_MIN);
        }
        state.schedule.begin(Cause::InTurn, now);
        drop(state);
        self.read(now, now + KEY_WAIT_TIMEOUT);
        self.state.lock().schedule.due_in(Instant::now())
    }

    /// The metadata, if they were read and the issuer has any.
    pub(super) fn metadata(&self) -> Option<Arc<IssuerMetadata>> {
        self.state.lock().metadata.as_ref().map(|(metadata, _)| metadata.clone())
    }

    /// Ends all waits.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let state = self.state.lock();
        self.ended.notify_all();
        drop(state);
        self.introspecting.stop();
    }

    /// The state for operators.
    pub(super) fn status(&self, now: Instant) -> IssuerStatus {
        let keys = self.keys.read().clone();
        let is_usable = self.is_usable(&keys, now);
        IssuerStatus {
            issuer: self.config.issuer.clone(),
            keys: if is_usable { keys.set.keys().len() } else { 0 },
            keys_age: keys.read_at.map(|at| now.saturating_duration_since(at)),
            fault: self.state.lock().fault.clone(),
        }
    }

    /// A refusal for want of an answer of this issuer.
    pub(super) fn unavailable(&self, why: &str) -> Denied {
        Denied::Unavailable {
            issuer: self.name.clone(),
            why: why.into(),
            retry_after: KEYS_FETCH_INTERVAL_MIN,
        }
    }

    /// Reads the keys until `deadline`, without a lock, and tells all who wait. The schedule knows
    /// that it began.
    fn read(&self, now: Instant, deadline: Instant) {
        // If the reading panics, the next one may begin all the same.
        let ended = EndOfReading(self);
        let state = self.state.lock();
        // Where a reading failed, the keys may have moved.
        let known = state.metadata.clone().filter(|_| state.fault.is_none());
        drop(state);
        let reading = Reading {
            issuer: &self.config.issuer,
            jwks_uri: self.config.jwks_uri.as_deref(),
            introspection: self.config.introspection.as_ref(),
            known,
            deadline,
        };
        let metadata = read_metadata(&*self.fetch, &reading, now);
        let found = metadata.as_ref().ok().and_then(|known| known.as_ref());
        let keys = match (&metadata, reading.jwks_uri) {
            (Err(fault), None) => Err(fault.clone()),
            (Ok(_) | Err(_), _) => {
                read_keys(&*self.fetch, &reading, found.map(|(metadata, _)| &**metadata))
            }
        };
        let mut state = self.state.lock();
        let mut fault = None;
        match metadata {
            Ok(metadata) => state.metadata = metadata,
            Err(why) => fault = Some(why),
        }
        match keys {
            Ok(Read { keys, document }) => {
                self.publish(keys, &mut state);
                self.keep(document, &mut state);
            }
            Err(why) => fault = Some(why),
        }
        if let Some(fault) = fault.as_ref().filter(|_| state.fault.is_none()) {
            log::warn!(target: "identity", "{}: it cannot be read: {fault}", self.name);
        }
        state.fault = fault.map(|fault| fault.as_str().into());
        drop(state);
        drop(ended);
    }

    /// Gives the keys to the disk where they have changed, and now and then in any case, because
    /// their age counts from there after a restart.
    fn keep(&self, document: Option<Vec<u8>>, state: &mut State) {
        let (Some(kept), Some(document)) = (&self.kept, document) else { return };
        let now = Now::read();
        let interval = KEYS_KEPT_INTERVAL.min(self.max_age / 4);
        let is_old = |at: Instant| now.instant.saturating_duration_since(at) >= interval;
        if state.kept_at.is_none_or(is_old) {
            state.kept_at = Some(now.instant);
            kept.keep(&self.config, &document, now);
        }
    }

    fn publish(&self, set: JwkSet, state: &mut State) {
        let mut keys = self.keys.write();
        let is_new = keys.set != set;
        let is_withdrawn = keys.set.keys().iter().any(|key| !set.has_key(&key.thumbprint()));
        if is_new {
            state.kept_at = None;
        }
        if is_new || state.fault.is_some() {
            let (n, left_out) = (set.keys().len(), set.left_out().len());
            let behind =
                if left_out == 0 { String::new() } else { format!(", {left_out} of no use") };
            log::info!(target: "identity", "{}: {n} keys{behind}", self.name);
        }
        let withdrawals = keys.withdrawals + u64::from(is_withdrawn);
        *keys = Arc::new(Keys { set, read_at: Some(Instant::now()), withdrawals });
    }

    fn is_unknown(&self, kid: &str, now: Instant) -> bool {
        let mut state = self.state.lock();
        let is_over = |at: &Instant| now.saturating_duration_since(*at) >= UNKNOWN_KEY_ID_LIFE;
        while state.unknown.pop_front_if(|(_, at)| is_over(at)).is_some() {}
        state.unknown.iter().any(|(it, _)| **it == *kid)
    }

    fn places(&self, peer: Option<IpAddr>) -> Option<[Place<'_>; 2]> {
        Some([self.all_waiting.place(peer)?, self.waiting.place(peer)?])
    }
}

impl State {
    /// True if what is needed could not be read, and it is too early for another reading.
    fn has_failed(&self, needed: Needed<'_>, now: Instant) -> bool {
        // The keys may have been read without metadata, where the configuration has their URL.
        let lacks_metadata = matches!(needed, Needed::Metadata) && self.fault.is_some();
        self.schedule.has_failed(now) || (lacks_metadata && self.schedule.rests(now))
    }

    fn note_unknown(&mut self, needed: Needed<'_>, now: Instant) {
        let Needed::Key(Some(kid)) = needed else { return };
        if self.unknown.iter().any(|(it, _)| **it == *kid) {
            return;
        }
        if self.unknown.len() >= UNKNOWN_KEY_IDS_MAX {
            self.unknown.pop_front();
        }
        self.unknown.push_back((kid.into(), now));
    }
}

/// What a request waits for.
#[derive(Debug, Clone, Copy)]
enum Needed<'a> {
    /// The key of that id, or any keys.
    Key(Option<&'a str>),
    /// The metadata.
    Metadata,
}

/// Tells if a key is still one of an issuer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StillThere {
    /// It is, and no key was withdrawn since that was looked at last.
    Yes,
    /// It is, though others were withdrawn: so many times by now.
    Since(u64),
    /// It is not, or it cannot be told because the keys are too old.
    No,
}

/// Ends a reading when it is dropped.
struct EndOfReading<'a>(&'a Issuer);

impl Drop for EndOfReading<'_> {
    fn drop(&mut self) {
        let Issuer { keys, state, ended, .. } = self.0;
        let read_at = keys.read().read_at;
        state.lock().schedule.end(read_at, Instant::now());
        ended.notify_all();
    }
}
