//! The sign-in of a person: begun, answered at the callback, and waited for.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SecureRandom as _;

use crate::config::Secret;
use crate::limits::{
    BROWSER_PAGES_MAX, BROWSER_REST, BROWSER_REST_MAX, BROWSER_WINDOW,
    CREDENTIALS_LOOK_INTERVAL, OAUTH_REQUEST_TIMEOUT, SIGN_IN_LIFE,
};
use crate::oauth::authorization::{AuthorizationAnswer, AuthorizationRequest, ExpectedAnswer};
use crate::oauth::challenge::TokenChallenge;
use crate::oauth::fetch::{Fetch as _, FetchContent, FetchRequest, Reach};
use crate::oauth::pkce::Pkce;
use crate::oauth::scope::Refreshes;
use crate::oauth::signing_key::SigningKey;
use crate::oauth::token::Grant;
use crate::sync::Mutex;
use crate::wait::{Interrupted, Wait};

use super::flow_error::{FlowError, FlowStep, Remedy};
use super::registration::Led;
use super::server_authorization::ServerAuthorization;
use super::sign_ins::Begun;
use super::{BegunSignIn, Owner, SignInError};

/// A request that every server answers, and one that wants credentials refuses.
const PROBE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
/// The time between two looks for a job that ended without a word.
const JOB_TICK: Duration = Duration::from_secs(1);

/// Rings when a job has ended in any way.
struct RingOnDrop(Arc<Wait>);

impl Drop for RingOnDrop {
    fn drop(&mut self) {
        self.0.bell().ring();
    }
}

/// So long no page is opened by itself after so many in a row that led to no sign-in.
fn rest_after(n_unfinished: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(n_unfinished.saturating_sub(1).min(16));
    BROWSER_REST.saturating_mul(doubled).min(BROWSER_REST_MAX)
}

impl ServerAuthorization {
    /// Begins a sign-in: finds the authorization server, registers if need be, and makes the URL of
    /// its page. A sign-in that is under way already stays good. `redirect_uri`: where the browser
    /// comes back to, if that is not [`Setup::redirect_uri`](super::Setup::redirect_uri).
    ///
    /// # Errors
    /// The authorization server cannot be found, used or reached, or the grant of the configuration
    /// needs no person.
    pub fn begin_sign_in(
        self: &Arc<ServerAuthorization>,
        redirect_uri: Option<&str>,
        wait: &Arc<Wait>,
    ) -> Result<BegunSignIn, SignInError> {
        let redirect_uri = redirect_uri.map(str::to_owned);
        let begun = self
            .on_worker(wait, move |this| this.begin(redirect_uri.as_deref(), SIGN_IN_LIFE))?;
        begun.map_err(|error| SignInError::Failed(error.to_string()))
    }

    /// Waits until there are credentials, and such as a request needs that was refused for its
    /// scopes; or until no sign-in is under way any more. A sign-in made by another process
    /// (`trunkline login`) counts too. The caller bounds the wait, and holds its timeout
    /// ([`Wait::hold`]) where a person may take their time.
    ///
    /// # Errors
    /// No sign-in is under way any more, and nobody is signed in; or the wait ended first.
    pub fn wait_until_signed_in(&self, wait: &Arc<Wait>) -> Result<(), SignInError> {
        loop {
            self.look_at_file();
            let is_under_way = self.shared.sign_ins.left_to(self).is_some();
            let mut is_there = false;
            let waits = self.lock_to_wait(wait, |state| {
                is_there =
                    state.kept.is_some() && !state.is_refused && state.wanted_scopes.is_none();
                !is_there && (is_under_way || state.is_asking)
            });
            if is_there {
                return Ok(());
            }
            if !waits {
                let what = "the sign-in was not finished".to_owned();
                return Err(SignInError::Failed(what));
            }
            wait.until(None, Some(CREDENTIALS_LOOK_INTERVAL))
                .map_err(SignInError::Interrupted)?;
        }
    }

    /// Waits while the person at this machine signs in, on the page that was opened by itself, unless
    /// `is_over`: the server is no more.
    ///
    /// # Errors
    /// The wait ended first, or all is over.
    pub(crate) fn wait_for_person(
        &self,
        wait: &Arc<Wait>,
        is_over: impl Fn() -> bool,
    ) -> Result<(), Interrupted> {
        let _held = wait.hold(self.shared.setup().patience);
        loop {
            self.look_at_file();
            let now = Instant::now();
            let waits = self.lock_to_wait(wait, |state| {
                state.signing_in_until.is_some_and(|until| now < until)
            });
            if !waits {
                return Ok(());
            }
            if self.shared.running.is_stopped() {
                return Err(Interrupted::Stopping);
            }
            if is_over() {
                return Err(Interrupted::Retired);
            }
            wait.until(None, Some(CREDENTIALS_LOOK_INTERVAL))?;
        }
    }

    /// Does something on a thread of its own, so that it is finished although the one who waits for
    /// it goes away.
    pub(super) fn on_worker<T: Send + 'static>(
        self: &Arc<ServerAuthorization>,
        wait: &Arc<Wait>,
        body: impl FnOnce(&Arc<ServerAuthorization>) -> T + Send + 'static,
    ) -> Result<T, SignInError> {
        let done = Arc::new(Mutex::new(None));
        let (me, place, ring) = (self.clone(), done.clone(), RingOnDrop(wait.clone()));
        let job = Box::new(move || {
            let outcome = body(&me);
            *place.lock() = Some(outcome);
            drop(place);
            drop(ring);
        });
        if !self.shared.workers.submit(job) {
            let what = "too many sign-ins and renewals wait".to_owned();
            return Err(SignInError::Failed(what));
        }
        loop {
            if let Some(outcome) = done.lock().take() {
                return Ok(outcome);
            }
            if Arc::strong_count(&done) == 1 {
                return Err(SignInError::Failed("the gateway made a mistake".to_owned()));
            }
            wait.until(None, Some(JOB_TICK)).map_err(SignInError::Interrupted)?;
        }
    }

    /// Begins a sign-in that is forgotten after `life`.
    pub(super) fn begin(
        &self,
        redirect_uri: Option<&str>,
        life: Duration,
    ) -> Result<BegunSignIn, FlowError> {
        let refused =
            |what: &str| FlowError::new(FlowStep::Authorization, "", what, Remedy::Nothing);
        if self.is_of_machines() {
            return Err(refused("nobody has to sign in with the grant of the configuration"));
        }
        let led = if redirect_uri.is_some() { Led::ByCommand } else { Led::ByGateway };
        let setup = self.shared.setup();
        let redirect_uri = redirect_uri.or(setup.redirect_uri.as_deref());
        let redirect_uri = redirect_uri.ok_or_else(|| {
            refused(
                "this gateway has no address that a browser can come back to: set public_url",
            )
        })?;
        self.probe()?;
        let found = self.discovered()?;
        let with = found.with();
        let unusable = |error| FlowError::unusable(FlowStep::Authorization, &with, error);
        let endpoint = found.server.check_authorization_code().map_err(unusable)?;
        let scopes = self.scopes(&found, Refreshes::Yes);
        let client = self.client(&found, redirect_uri, led)?;
        let grantor = self.grantor(&found, client, None)?;
        let (pkce, state) = (Pkce::from_random(self.random()?), Secret::new(self.token()?));
        let key = grantor.dpop_key.as_ref().map(|key| SigningKey::from_pkcs8(&key.0));
        let key = key.transpose().map_err(unusable)?;
        let request = AuthorizationRequest {
            endpoint,
            client_id: &grantor.client.id,
            redirect_uri,
            state: &state,
            code_challenge: &pkce.challenge,
            resource: Some(&found.resource),
            scopes: &scopes,
            dpop_jkt: key.as_ref().map(SigningKey::thumbprint),
        };
        let url = request.url();
        let whose = self.me.upgrade().ok_or_else(|| refused("the server is no more"))?;
        let begun = Begun {
            whose,
            grantor,
            names_issuer: found.server.authorization_response_iss_parameter_supported,
            redirect_uri: redirect_uri.to_owned(),
            verifier: pkce.verifier,
            scopes,
            until: Instant::now() + life,
        };
        self.shared.sign_ins.add(state.expose(), begun);
        let until = SystemTime::now() + life;
        Ok(BegunSignIn { url, state: state.expose().to_owned(), until })
    }

    fn random(&self) -> Result<[u8; 32], FlowError> {
        let mut bytes = [0; 32];
        self.shared.random.fill(&mut bytes).map_err(|_| {
            let what = "the system gives no randomness";
            FlowError::new(FlowStep::Authorization, "", what, Remedy::TryLater)
        })?;
        Ok(bytes)
    }

    fn token(&self) -> Result<String, FlowError> {
        Ok(URL_SAFE_NO_PAD.encode(self.random()?))
    }

    /// Asks the server how it wants credentials, where it has not said so yet.
    fn probe(&self) -> Result<(), FlowError> {
        if self.lock().challenge.is_some() {
            return Ok(());
        }
        let headers =
            [("accept", Secret::new("application/json, text/event-stream".to_owned()))];
        let answer = self.fetcher.fetch(&FetchRequest {
            url: &self.url,
            content: FetchContent::Json(&Secret::new(PROBE.to_owned())),
            headers: &headers,
            // The operator has named it.
            reach: Reach::Loopback,
            timeout: OAUTH_REQUEST_TIMEOUT,
        });
        let origin = self.url.origin();
        let answer = answer
            .map_err(|error| FlowError::unanswered(FlowStep::Discovery, &origin, error))?;
        let fields = answer.www_authenticate.iter().map(String::as_str);
        self.lock().challenge = TokenChallenge::read(fields);
        Ok(())
    }

    /// A person must sign in: the page is opened for the one at this machine, if there is one.
    pub(super) fn ask_person(&self, why: &str) {
        self.need_sign_in(why);
        let setup = &self.shared.setup();
        let Some(browser) = setup.browser.as_deref().filter(|_| self.may_open_page()) else {
            return;
        };
        let begun = match self.begin(None, setup.patience) {
            Ok(begun) => begun,
            Err(error) => return self.failed(&error),
        };
        {
            let mut state = self.lock();
            let now = Instant::now();
            state.signing_in_until = Some(now + setup.patience);
            state.n_unfinished = state.n_unfinished.saturating_add(1);
            state.no_page_until = Some(now + setup.patience + rest_after(state.n_unfinished));
            state.pages.push_back(now);
        }
        log::info!(target: "oauth", "{}: a page to sign in is opened in the browser", self.server);
        if let Err(what) = self.shared.browsers.open(browser, &begun.url) {
            self.sign_in_failed(&format!("{why}, and no page could be opened: {what}"));
        }
    }

    /// Pages are not opened all the time, and never beside another sign-in.
    fn may_open_page(&self) -> bool {
        let has_way_back = self.shared.setup().redirect_uri.is_some();
        let is_under_way = self.shared.sign_ins.left_to(self).is_some();
        if self.owner != Owner::Gateway || !has_way_back || is_under_way {
            return false;
        }
        let now = Instant::now();
        let mut state = self.lock();
        state.pages.retain(|at| now.saturating_duration_since(*at) < BROWSER_WINDOW);
        let rests = state.no_page_until.is_some_and(|until| now < until);
        !rests && state.pages.len() < BROWSER_PAGES_MAX
    }

    /// A sign-in has come to nothing: calls wait for it no longer.
    fn sign_in_failed(&self, why: &str) {
        {
            let mut state = self.lock();
            state.signing_in_until = None;
            state.no_page_until = Some(Instant::now() + rest_after(state.n_unfinished));
        }
        self.need_sign_in(why);
    }

    /// Takes the answer of the authorization server, and has the tokens.
    pub(super) fn finish(
        self: &Arc<ServerAuthorization>,
        begun: Begun,
        answer: &AuthorizationAnswer,
        wait: &Arc<Wait>,
    ) -> Result<(), SignInError> {
        let issuer = begun.grantor.issuer.as_str();
        let expected = ExpectedAnswer {
            issuer: (!issuer.is_empty()).then_some(issuer),
            names_issuer: begun.names_issuer,
        };
        self.learn(answer.state());
        let code = answer.code(expected).map_err(|error| {
            let with = begun.grantor.with();
            let error = error.to_string();
            let error = self.secrets.scrub_cut(&error);
            let what = format!("the sign-in at {with} was refused: {error}");
            self.sign_in_failed(&what);
            SignInError::Refused(what)
        })?;
        self.on_worker(wait, move |this| this.exchange(&begun, &code))?
    }

    fn exchange(&self, begun: &Begun, code: &Secret) -> Result<(), SignInError> {
        let grant = Grant::AuthorizationCode {
            code,
            redirect_uri: &begun.redirect_uri,
            verifier: &begun.verifier,
        };
        let exchanged = self.shared.store.lock(&self.file).map_err(super::asking::not_kept);
        let exchanged = exchanged.and_then(|_locked| {
            let _exchange = self.shared.exchanges.begin().ok_or_else(super::asking::ending)?;
            let answer = self.asker().token(&begun.grantor, grant, &begun.scopes)?;
            self.keep(answer, begun.grantor.clone(), &begun.scopes, None)
        });
        exchanged.map_err(|error| {
            if error.remedy == Remedy::RegisterAnew {
                self.forget_registration(&begun.grantor);
            }
            let what = format!("the sign-in failed: {error}");
            self.sign_in_failed(&what);
            SignInError::Failed(what)
        })?;
        self.lock().no_page_until = None;
        self.registration_works(&begun.grantor);
        log::info!(target: "oauth", "{}: signed in at {}", self.server, begun.grantor.with());
        Ok(())
    }
}
