//! The credentials of one owner at one server: what requests carry, and what is known of how
//! further ones are had.

use std::fmt;
use std::sync::{Arc, MutexGuard, Weak};
use std::time::{Instant, SystemTime};

use crate::config::{Grant, HttpTarget, JwtBearer, OAuthClientConfig, Secret};
use crate::error::{HttpRefusal, Stage};
use crate::oauth::signing_key::SigningKey;
use crate::oauth::token::TokenType;
use crate::oauth::web_url::WebUrl;
use crate::protocol::server_name::ServerName;
use crate::sync::Mutex;
use crate::telemetry::log as log_lines;
use crate::telemetry::redact::{Secrets, SecretsInUse};
use crate::upstream::failure::{Failure, FailureKind, Unauthorized};
use crate::upstream::http_client::fetcher::Fetcher;
use crate::wait::Wait;

use super::flow_error::FlowError;
use super::holder::Holder;
use super::kept::Kept;
use super::refusal;
use super::shared::Shared;
use super::state::{Moment, Need, Origin, Reason, Renewal, State, Step, TokenSource};
use super::store::FileName;
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
    pub(super) target: HttpTarget,
    pub(super) config: Box<OAuthClientConfig>,
    /// The client metadata document of the configuration.
    pub(super) document: Option<WebUrl>,
    pub(super) fetcher: Fetcher,
    pub(super) file: FileName,
    /// The secrets that were sent or came, which others may repeat in their texts.
    pub(super) secrets: Secrets,
    /// Those of the present credentials.
    in_use: Arc<SecretsInUse>,
    state: Mutex<State>,
    listeners: Mutex<Vec<Weak<dyn AuthorizationListener>>>,
}

/// Who uses the credentials, and hears of them. Nothing here may wait.
pub(crate) trait AuthorizationListener: Send + Sync {
    /// A secret is sent to the server from here on, which must be told to nobody.
    fn learned(&self, secret: &Secret);
    /// The secrets of the present credentials, whatever they are, must be told to nobody.
    fn uses(&self, in_use: &Arc<SecretsInUse>);
    /// There are credentials now, or other ones.
    fn signed_in(&self);
}

/// What a request carries.
pub(super) struct Carried {
    pub(super) kept: Arc<Kept>,
    /// The key that signs its proof, if the token is bound to one.
    pub(super) key: Option<Arc<SigningKey>>,
    /// The nonce of the proof, if the server wants one.
    pub(super) nonce: Option<String>,
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
        let in_use = Arc::<SecretsInUse>::default();
        let secrets = Secrets::new(&configured_secrets(&config));
        secrets.heed(&in_use);
        log_lines::heed(&in_use);
        Ok(Arc::new_cyclic(|me| ServerAuthorization {
            me: me.clone(),
            shared,
            file: FileName::of_credentials(server, owner),
            server: server.clone(),
            owner,
            holder,
            url,
            target: target.clone(),
            secrets,
            in_use,
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

    /// By whom access tokens are had.
    pub(super) fn token_source(&self) -> TokenSource {
        match (&self.config.grant, self.owner) {
            (Grant::ClientCredentials | Grant::JwtBearer(_), _) => TokenSource::Machine,
            (Grant::AuthorizationCode, Owner::Gateway) => TokenSource::Gateway,
            (Grant::AuthorizationCode, Owner::User(_)) => TokenSource::User,
        }
    }

    /// Has somebody hear of credentials, for as long as they hold it.
    pub(crate) fn listen(&self, listener: &Arc<dyn AuthorizationListener>) {
        listener.uses(&self.in_use);
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

    fn failure_of(&self, reason: &Reason) -> Failure {
        self.failure(reason.kind, &reason.why)
    }

    fn moment(&self) -> Moment {
        Moment { now: Instant::now(), time: self.shared.now() }
    }

    /// The number of the token for the next request; none while the server has not asked for one.
    pub(super) fn number(&self, wait: &Arc<Wait>) -> Result<Option<u64>, Failure> {
        let mut has_renewed = false;
        loop {
            self.look_at_file();
            let step = self.lock().step(self.token_source(), self.moment(), has_renewed);
            match step {
                Step::Use { number, is_due } => {
                    if is_due {
                        self.submit(Want::Renewal);
                    }
                    return Ok(Some(number));
                }
                Step::Ask => return Ok(None),
                Step::Fail(reason) => return Err(self.failure_of(&reason)),
                Step::Renew(want) => {
                    has_renewed = true;
                    self.submit(want);
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
        want: &Want,
        wait: &Arc<Wait>,
    ) -> Result<(), Failure> {
        let mut has_asked = false;
        loop {
            let renewal = self.lock().another(number, self.moment(), has_asked);
            match renewal {
                Renewal::IsThere | Renewal::TryAgain => return Ok(()),
                Renewal::Fail(reason) => return Err(self.failure_of(&reason)),
                Renewal::Wait => self.settled(wait)?,
                Renewal::Submit => {
                    has_asked = true;
                    self.submit(want.clone());
                    self.settled(wait)?;
                }
            }
        }
    }

    /// Waits until no authorization server is asked.
    fn settled(&self, wait: &Arc<Wait>) -> Result<(), Failure> {
        loop {
            if !self.lock_to_wait(wait, |state| state.is_asking) {
                return Ok(());
            }
            if let Err(reason) = wait.until(None, None) {
                self.leave(wait);
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
            drop(state);
            self.leave(wait);
            return false;
        }
        if !state.waiting.iter().any(|other| Arc::ptr_eq(other, wait)) {
            state.waiting.push(wait.clone());
        }
        true
    }

    /// Takes a wait that has ended out of those that are woken.
    pub(super) fn leave(&self, wait: &Arc<Wait>) {
        self.lock().waiting.retain(|other| !Arc::ptr_eq(other, wait));
    }

    /// Wakes everybody who waits.
    pub(super) fn wake(&self) {
        let waiting = std::mem::take(&mut self.lock().waiting);
        waiting.iter().for_each(|wait| wait.bell().ring());
    }

    /// Uses these credentials from here on.
    pub(super) fn adopt(&self, kept: Kept, origin: Origin) {
        let listeners = self.listeners();
        let secrets: Vec<Secret> = secrets_of(&kept).cloned().collect();
        // Those of before may still stand in texts, and these once nobody uses them any more.
        let before = self.in_use.replace(&secrets);
        before.iter().chain(&secrets).for_each(|secret| self.learn(secret));
        let is_signed_in;
        {
            let mut state = self.lock();
            if state.unrefused().is_some_and(|present| **present == kept) {
                return;
            }
            let key =
                kept.grantor.dpop_key.as_ref().filter(|_| kept.token_type == TokenType::DPoP);
            let key = key.and_then(|key| SigningKey::from_pkcs8(&key.0).ok());
            state.adopt(kept, key.map(Arc::new));
            is_signed_in = state.is_signed_in();
        }
        // A renewal is not what the person on the page has come for.
        if origin == Origin::SignIn && is_signed_in {
            self.shared.sign_ins.forget(self);
        }
        self.wake();
        listeners.iter().for_each(|listener| listener.signed_in());
    }

    /// There are no credentials any more.
    pub(super) fn forget(&self) {
        self.lock().forget();
        self.wake();
    }

    /// A person must sign in.
    pub(super) fn need_sign_in(&self, why: &str, need: Need) {
        let is_news = self.lock().need_sign_in(why, need, Instant::now());
        if is_news && self.owner == Owner::Gateway {
            log::warn!(target: "oauth", "{}: {why}: it needs a sign-in (trunkline login {})",
                self.server, self.server);
        }
        self.wake();
    }

    /// No token could be had.
    pub(super) fn failed(&self, error: &FlowError) {
        let why = error.to_string();
        self.lock().failed(&why, error.remedy, Instant::now());
        log::warn!(target: "oauth", "{}: no access token: {why}", self.server);
        self.wake();
    }

    /// When the access token is due to be renewed, for whoever looks after the server.
    pub(crate) fn renew_at(&self) -> Option<Instant> {
        self.lock().renew_at(self.token_source(), self.moment())
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
        let until = self.shared.sign_ins.left_to(self).map(|left| SystemTime::now() + left);
        self.lock().status(self.token_source(), self.shared.now(), until)
    }

    /// True if somebody is signed in, and no request has wanted more scopes since. Looks for a
    /// sign-in that another process has made.
    pub fn has_enough(&self) -> bool {
        self.look_at_file();
        self.lock().has_enough(self.shared.now())
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
