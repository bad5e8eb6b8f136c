//! The credentials of one owner at one server: what requests carry, and what is known of how
//! further ones are had.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, MutexGuard, Weak};
use std::time::{Duration, Instant, SystemTime};

use crate::config::{Grant, HttpTarget, JwtBearer, OAuthClientConfig, Secret};
use crate::error::{HttpRefusal, Stage};
use crate::limits::{NEED_BELIEVED, OAUTH_PAUSE_MAX, OAUTH_PAUSE_MIN};
use crate::oauth::challenge::TokenChallenge;
use crate::oauth::fetch::Reach;
use crate::oauth::signing_key::SigningKey;
use crate::oauth::token::TokenType;
use crate::oauth::web_url::WebUrl;
use crate::protocol::server_name::ServerName;
use crate::sync::Mutex;
use crate::telemetry::log as log_lines;
use crate::telemetry::redact::Secrets;
use crate::upstream::failure::{Failure, FailureKind, Unauthorized};
use crate::upstream::http_client::fetcher::Fetcher;
use crate::wait::Wait;

use super::flow_error::{FlowError, Remedy};
use super::holder::Holder;
use super::kept::Kept;
use super::refusal;
use super::shared::Shared;
use super::store::{FileName, Stamp};
use super::want::Want;
use super::{Owner, SignInStatus};

/// The credentials of one owner at one server.
pub struct ServerAuthorization {
    pub(super) me: Weak<ServerAuthorization>,
    pub(super) shared: Arc<Shared>,
    pub(super) server: ServerName,
    pub(super) owner: Owner,
    pub(super) holder: Holder,
    pub(super) url: WebUrl,
    target: HttpTarget,
    pub(super) config: Box<OAuthClientConfig>,
    /// The client metadata document of the configuration.
    pub(super) document: Option<WebUrl>,
    pub(super) fetcher: Fetcher,
    pub(super) file: FileName,
    /// The secrets that were sent or came, which others may repeat in their texts.
    pub(super) secrets: Secrets,
    state: Mutex<State>,
    listeners: Mutex<Vec<Weak<dyn AuthorizationListener>>>,
}

/// Who uses the credentials, and hears of them. Nothing here may wait.
pub(crate) trait AuthorizationListener: Send + Sync {
    /// A secret is sent to the server from here on, which must be told to nobody.
    fn learned(&self, secret: &Secret);
    /// There are credentials now, or other ones.
    fn signed_in(&self);
}

/// What is known at present.
#[derive(Default)]
pub(super) struct State {
    /// The narrowest reach that the server's name has led to.
    pub(super) reach: Option<Reach>,
    pub(super) kept: Option<Arc<Kept>>,
    /// Of `kept`: each other one has another number.
    pub(super) number: u64,
    /// The key of `kept`, if it is bound to one.
    key: Option<Arc<SigningKey>>,
    /// The server has refused `kept`.
    pub(super) is_refused: bool,
    /// Access tokens in a row that the server has refused before it has taken one.
    pub(super) n_refused: u32,
    /// When such a row was broken off last, see `adopt_from_file`.
    pub(super) pardoned_at: Option<Instant>,
    /// The file as it was read last, and when it was looked at.
    pub(super) seen: Option<Stamp>,
    pub(super) looked_at: Option<Instant>,
    /// An authorization server is asked.
    pub(super) is_asking: bool,
    /// Who waits for the end of that, or of a sign-in.
    waiting: Vec<Arc<Wait>>,
    pub(super) trouble: Trouble,
    /// Failures in a row.
    n_failed: u32,
    /// Calls wait for the person at this machine until then.
    pub(super) signing_in_until: Option<Instant>,
    /// When pages were opened by themselves.
    pub(super) pages: VecDeque<Instant>,
    /// Pages in a row that led to no sign-in.
    pub(super) n_unfinished: u32,
    /// No page is opened by itself before that.
    pub(super) no_page_until: Option<Instant>,
    /// The scopes that a request needed and the token was not good for.
    pub(super) wanted_scopes: Option<String>,
    /// When tokens with more scopes were asked for.
    pub(super) step_ups: VecDeque<Instant>,
    /// The nonce that the server wants in proofs.
    nonce: Option<String>,
    /// How the server asked for credentials last.
    pub(super) challenge: Option<TokenChallenge>,
    /// When the authorization server's metadata were read last; none after a failure.
    pub(super) found_at: Option<Instant>,
}

/// Why there are no usable credentials.
#[derive(Debug, Clone, Default)]
pub(super) enum Trouble {
    /// It is not known yet.
    #[default]
    None,
    /// A person must sign in.
    NeedsSignIn { why: String, since: Instant },
    /// The same is tried again then, not before.
    Failing { why: String, until: Instant },
}

/// What a request carries.
pub(super) struct Carried {
    pub(super) kept: Arc<Kept>,
    /// The key that signs its proof, if the token is bound to one.
    pub(super) key: Option<Arc<SigningKey>>,
    /// The nonce of the proof, if the server wants one.
    pub(super) nonce: Option<String>,
}

/// What a request does next.
enum Step {
    Use { number: u64, renews: bool },
    Renew,
    Wait,
    Ask,
    Fail(Failure),
}

impl fmt::Debug for ServerAuthorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ServerAuthorization");
        debug.field("server", &self.server).field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl ServerAuthorization {
    /// # Errors
    /// The configuration is not usable after all; the text says why.
    pub(super) fn new(
        shared: Arc<Shared>,
        server: &ServerName,
        (owner, holder): (Owner, Holder),
        target: &HttpTarget,
        fetcher: Fetcher,
    ) -> Result<Arc<ServerAuthorization>, String> {
        let unusable = |what: &str, error: &dyn fmt::Display| format!("{what}: {error}");
        let config = target.oauth.clone().unwrap_or_default();
        // The error could hold the URL, and the URL a secret.
        let url = WebUrl::parse(&target.url)
            .map_err(|_| "its URL is not one for OAuth".to_owned())?;
        let document = config.client_metadata_url.as_deref().map(WebUrl::parse).transpose();
        let document = document.map_err(|error| unusable("client_metadata_url", &error))?;
        Ok(Arc::new_cyclic(|me| ServerAuthorization {
            me: me.clone(),
            shared,
            file: FileName::of_credentials(server, owner),
            server: server.clone(),
            owner,
            holder,
            url,
            target: target.clone(),
            secrets: Secrets::new(&configured_secrets(&config)),
            config,
            document,
            fetcher,
            state: Mutex::default(),
            listeners: Mutex::default(),
        }))
    }

    /// True if it is for this configuration.
    pub(super) fn is_for(&self, target: &HttpTarget) -> bool {
        self.target == *target
    }

    /// Whose credentials these are.
    pub fn owner(&self) -> Owner {
        self.owner
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// True if no person has to do with it.
    pub(super) fn is_of_machines(&self) -> bool {
        match self.config.grant {
            Grant::AuthorizationCode => false,
            Grant::ClientCredentials | Grant::JwtBearer(_) => true,
        }
    }

    /// Has somebody hear of credentials, for as long as they hold it.
    pub(crate) fn listen(&self, listener: &Arc<dyn AuthorizationListener>) {
        if let Some(kept) = self.lock().kept.clone() {
            secrets_of(&kept).for_each(|secret| listener.learned(secret));
        }
        let mut listeners = self.listeners.lock();
        listeners.retain(|it| it.strong_count() > 0);
        listeners.push(Arc::downgrade(listener));
    }

    /// Keeps a secret out of the log, of errors and of what others are told: whoever knows it, too,
    /// may repeat it in a text.
    pub(super) fn learn(&self, secret: &Secret) {
        self.secrets.learn(secret.clone());
        log_lines::learn(secret);
        self.listeners().iter().for_each(|listener| listener.learned(secret));
    }

    fn listeners(&self) -> Vec<Arc<dyn AuthorizationListener>> {
        self.listeners.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// The failure of a request for which there are no credentials.
    pub(super) fn failure(&self, kind: Unauthorized, why: &str) -> Failure {
        let message = match (kind, self.owner) {
            (Unauthorized::NeedsSignIn, Owner::Gateway) => {
                format!("{why}; run: trunkline login {}", self.server)
            }
            (Unauthorized::SigningIn, _) => format!("{why}; a sign-in is under way"),
            (Unauthorized::NeedsSignIn, Owner::User(_)) | (Unauthorized::Unavailable, _) => {
                why.to_owned()
            }
        };
        let (www_authenticate, retry_after) = (None, None);
        let refusal =
            HttpRefusal { status: refusal::UNAUTHORIZED, www_authenticate, retry_after };
        let kind = FailureKind::Unauthorized(kind);
        Failure {
            refusal: Some(Box::new(refusal)),
            ..Failure::new(kind, Stage::Authorization, message)
        }
    }

    /// The failure of a request for which somebody must sign in.
    pub(crate) fn needed(&self, why: &str) -> Failure {
        self.failure(Unauthorized::NeedsSignIn, why)
    }

    /// The failure that present trouble means for a request; none if nothing is known.
    fn failure_of(&self, state: &State, now: Instant) -> Option<Failure> {
        match &state.trouble {
            Trouble::None => None,
            Trouble::NeedsSignIn { why, .. } => {
                let is_signing_in = state.signing_in_until.is_some_and(|until| now < until);
                let kind = match is_signing_in {
                    true => Unauthorized::SigningIn,
                    false => Unauthorized::NeedsSignIn,
                };
                Some(self.failure(kind, why))
            }
            Trouble::Failing { why, .. } => Some(self.failure(Unauthorized::Unavailable, why)),
        }
    }

    /// The present token for a request, and what is to be done besides or before.
    fn step(&self, has_renewed: bool) -> Step {
        self.look_at_file();
        let (now, time) = (Instant::now(), self.shared.now());
        let state = self.lock();
        if let Some(kept) = state.kept.as_ref().filter(|_| !state.is_refused) {
            let can_renew = kept.refresh_token.is_some() || self.is_of_machines();
            let is_paused =
                matches!(&state.trouble, Trouble::Failing { until, .. } if now < *until);
            if !kept.is_over(time) {
                let is_due = kept.renew_at().is_some_and(|at| time >= at);
                let renews = is_due && can_renew && !state.is_asking && !is_paused;
                return Step::Use { number: state.number, renews };
            }
            if can_renew && !is_paused && !has_renewed {
                return if state.is_asking { Step::Wait } else { Step::Renew };
            }
        }
        if state.is_asking {
            return Step::Wait;
        }
        let is_known = match &state.trouble {
            Trouble::None => false,
            Trouble::NeedsSignIn { since, .. } => {
                let is_signing_in = state.signing_in_until.is_some_and(|until| now < until);
                is_signing_in || now.saturating_duration_since(*since) < NEED_BELIEVED
            }
            Trouble::Failing { until, .. } => now < *until,
        };
        if is_known && let Some(failure) = self.failure_of(&state, now) {
            return Step::Fail(failure);
        }
        match self.owner {
            // The server is asked, and says if it wants credentials, and which.
            Owner::Gateway => Step::Ask,
            Owner::User(_) => {
                Step::Fail(self.failure(Unauthorized::NeedsSignIn, NOBODY_HAS_SIGNED_IN))
            }
        }
    }

    /// The number of the token for the next request; none while the server has not asked for one.
    pub(super) fn number(&self, wait: &Arc<Wait>) -> Result<Option<u64>, Failure> {
        let mut has_renewed = false;
        loop {
            match self.step(has_renewed) {
                Step::Use { number, renews } => {
                    if renews {
                        self.submit(Want::Renewal);
                    }
                    return Ok(Some(number));
                }
                Step::Ask => return Ok(None),
                Step::Fail(failure) => return Err(failure),
                Step::Renew => {
                    has_renewed = true;
                    self.submit(Want::Renewal);
                    self.settled(wait)?;
                }
                Step::Wait => self.settled(wait)?,
            }
        }
    }

    /// Has a token in place of the one of this number, or one that is good for more.
    pub(super) fn another(
        &self,
        number: Option<u64>,
        want: Want,
        wait: &Arc<Wait>,
    ) -> Result<(), Failure> {
        let mut want = Some(want);
        loop {
            let is_asking = {
                let state = self.lock();
                let is_there = state.kept.is_some() && !state.is_refused;
                if is_there && number != Some(state.number) {
                    return Ok(());
                }
                if want.is_none() && !state.is_asking {
                    let failure = self.failure_of(&state, Instant::now());
                    return failure.map_or(Ok(()), Err);
                }
                state.is_asking
            };
            // What is asked for at present may be something else.
            if !is_asking && let Some(want) = want.take() {
                self.submit(want);
            }
            self.settled(wait)?;
        }
    }

    /// Waits until no authorization server is asked.
    fn settled(&self, wait: &Arc<Wait>) -> Result<(), Failure> {
        loop {
            if !self.lock_to_wait(wait, |state| state.is_asking) {
                return Ok(());
            }
            if let Err(reason) = wait.until(None, None) {
                self.lock().waiting.retain(|other| !Arc::ptr_eq(other, wait));
                return Err(Failure::interrupted(reason, Stage::Authorization, false));
            }
        }
    }

    /// Enters a wait among those that are woken, if it is to wait at all.
    pub(super) fn lock_to_wait(
        &self,
        wait: &Arc<Wait>,
        waits: impl FnOnce(&State) -> bool,
    ) -> bool {
        let mut state = self.lock();
        if !waits(&state) {
            state.waiting.retain(|other| !Arc::ptr_eq(other, wait));
            return false;
        }
        if !state.waiting.iter().any(|other| Arc::ptr_eq(other, wait)) {
            state.waiting.push(wait.clone());
        }
        true
    }

    /// Wakes everybody who waits.
    pub(super) fn wake(&self) {
        let waiting = std::mem::take(&mut self.lock().waiting);
        waiting.iter().for_each(|wait| wait.bell().ring());
    }

    /// Uses these credentials from here on.
    pub(super) fn adopt(&self, kept: Kept) {
        let listeners = self.listeners();
        secrets_of(&kept).for_each(|secret| self.learn(secret));
        {
            let mut state = self.lock();
            if state.kept.as_deref() == Some(&kept) && !state.is_refused {
                return;
            }
            let key =
                kept.grantor.dpop_key.as_ref().filter(|_| kept.token_type == TokenType::DPoP);
            let key = key.and_then(|key| SigningKey::from_pkcs8(&key.0).ok());
            state.key = key.map(Arc::new);
            state.kept = Some(Arc::new(kept));
            state.number += 1;
            state.is_refused = false;
            (state.trouble, state.n_failed, state.n_unfinished) = (Trouble::None, 0, 0);
            (state.signing_in_until, state.wanted_scopes) = (None, None);
        }
        self.shared.sign_ins.forget(self);
        self.wake();
        listeners.iter().for_each(|listener| listener.signed_in());
    }

    /// There are no credentials any more.
    pub(super) fn forget(&self) {
        {
            let mut state = self.lock();
            state.kept = None;
            state.key = None;
            state.number += 1;
            state.seen = None;
        }
        self.wake();
    }

    /// A person must sign in.
    pub(super) fn need_sign_in(&self, why: &str) {
        let is_news = {
            let mut state = self.lock();
            let is_known = matches!(&state.trouble, Trouble::NeedsSignIn { why: known, .. } if known == why);
            let (why, since) = (why.to_owned(), Instant::now());
            state.trouble = Trouble::NeedsSignIn { why, since };
            !is_known
        };
        if is_news && self.owner == Owner::Gateway {
            log::warn!(target: "oauth", "{}: {why}: it needs a sign-in (trunkline login {})",
                self.server, self.server);
        }
        self.wake();
    }

    /// No token could be had.
    pub(super) fn failed(&self, error: &FlowError) {
        let why = error.to_string();
        {
            let mut state = self.lock();
            state.n_failed = state.n_failed.saturating_add(1);
            state.found_at = None;
            let doubled = OAUTH_PAUSE_MIN * 2_u32.saturating_pow(state.n_failed.min(16) - 1);
            let pause = match error.remedy {
                Remedy::TryLater => doubled.min(OAUTH_PAUSE_MAX),
                Remedy::SignInAnew | Remedy::RegisterAnew | Remedy::Nothing => OAUTH_PAUSE_MAX,
            };
            let until = Instant::now() + pause;
            state.trouble = Trouble::Failing { why: why.clone(), until };
        }
        log::warn!(target: "oauth", "{}: no access token: {why}", self.server);
        self.wake();
    }

    /// When the access token is due to be renewed, for whoever looks after the server.
    pub(crate) fn renew_at(&self) -> Option<Instant> {
        let state = self.lock();
        let kept = state.kept.as_ref().filter(|_| !state.is_refused)?;
        if kept.refresh_token.is_none() && !self.is_of_machines() {
            return None;
        }
        let left = kept.renew_at()?.saturating_sub(self.shared.now());
        let due = Instant::now() + Duration::from_secs(left);
        Some(match &state.trouble {
            Trouble::Failing { until, .. } => due.max(*until),
            Trouble::None | Trouble::NeedsSignIn { .. } => due,
        })
    }

    /// Renews the access token if that is due. Returns at once.
    pub(crate) fn renew_if_due(&self) {
        if self.renew_at().is_some_and(|at| at <= Instant::now()) {
            self.submit(Want::Renewal);
        }
    }

    /// How the sign-in is at present. Looks for a sign-in that another process has made.
    pub fn status(&self) -> SignInStatus {
        self.look_at_file();
        let left = self.shared.sign_ins.left_to(self);
        let state = self.lock();
        if let Some(kept) = state.kept.as_ref().filter(|_| !state.is_refused) {
            let is_over = kept.is_over(self.shared.now()) && kept.refresh_token.is_none();
            if !is_over {
                let until =
                    kept.expires_at.map(|at| SystemTime::UNIX_EPOCH + Duration::from_secs(at));
                let (issuer, scopes) = (kept.grantor.with(), kept.scopes.to_string());
                return SignInStatus::SignedIn { until, issuer, scopes };
            }
        }
        if let Some(left) = left {
            return SignInStatus::UnderWay { until: SystemTime::now() + left };
        }
        match &state.trouble {
            Trouble::NeedsSignIn { why, .. } => SignInStatus::NeedsSignIn { why: why.clone() },
            Trouble::Failing { why, .. } => SignInStatus::Failing { why: why.clone() },
            Trouble::None => match self.owner {
                Owner::Gateway => SignInStatus::Unknown,
                Owner::User(_) => {
                    SignInStatus::NeedsSignIn { why: NOBODY_HAS_SIGNED_IN.to_owned() }
                }
            },
        }
    }

    /// Takes a nonce from the server's answer.
    pub(super) fn heard_nonce(&self, nonce: &str) {
        let mut state = self.lock();
        if state.nonce.as_deref() != Some(nonce) {
            state.nonce = Some(nonce.to_owned());
        }
    }

    /// What a request carries: the token, and what its proof is made with.
    pub(super) fn carried(&self) -> Option<Carried> {
        let state = self.lock();
        let kept = state.kept.clone()?;
        Some(Carried { kept, key: state.key.clone(), nonce: state.nonce.clone() })
    }
}

/// Why a sign-in is needed where there never was one.
pub(super) const NOBODY_HAS_SIGNED_IN: &str = "nobody has signed in yet";

fn configured_secrets(config: &OAuthClientConfig) -> Vec<Secret> {
    let of_provider = match &config.grant {
        Grant::JwtBearer(JwtBearer { identity_provider: Some(it), .. }) => &it.client_secret,
        Grant::JwtBearer(_) | Grant::AuthorizationCode | Grant::ClientCredentials => &None,
    };
    config.client_secret.iter().chain(of_provider).cloned().collect()
}

fn secrets_of(kept: &Kept) -> impl Iterator<Item = &Secret> {
    let others = [&kept.refresh_token, &kept.grantor.client.secret];
    std::iter::once(&kept.access_token).chain(others.into_iter().flatten())
}
