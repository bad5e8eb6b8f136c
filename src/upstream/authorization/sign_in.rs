//! The sign-in of a person: begun, answered at the callback, and waited for.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SecureRandom as _;

use crate::config::Secret;
use crate::limits::{CREDENTIALS_LOOK_INTERVAL, OAUTH_REQUEST_TIMEOUT, SIGN_IN_LIFE};
use crate::oauth::authorization::{
    AnswerError, AuthorizationAnswer, AuthorizationRequest, ExpectedAnswer,
};
use crate::oauth::challenge::TokenChallenge;
use crate::oauth::fetch::{Fetch as _, FetchContent, FetchRequest, Reach};
use crate::oauth::pkce::Pkce;
use crate::oauth::scope::Refreshes;
use crate::oauth::signing_key::SigningKey;
use crate::oauth::token::Grant;
use crate::sync::Mutex;
use crate::wait::{Interrupted, Wait};

use super::asking::Requested;
use super::flow_error::{FlowError, FlowStep, Remedy};
use super::kept::Grantor;
use super::registration::Led;
use super::server_authorization::ServerAuthorization;
use super::sign_ins::Begun;
use super::state::{Need, TokenSource};
use super::workers::Purpose;
use super::{BegunSignIn, Owner, SignInError};

/// A request that every server answers, and one that wants credentials refuses.
const PROBE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
/// The error of an authorization server that does not let this client ask (the same section as
/// [`INVALID_SCOPE`]).
const UNAUTHORIZED_CLIENT: &str = "unauthorized_client";
/// The error of an authorization server that does not know a scope, or gives this client none of it
/// (RFC 6749, section 4.1.2.1).
const INVALID_SCOPE: &str = "invalid_scope";
/// The time between two looks for a job that ended without a word.
const JOB_TICK: Duration = Duration::from_secs(1);

/// Rings when a job has ended in any way.
struct RingOnDrop(Arc<Wait>);

impl Drop for RingOnDrop {
    fn drop(&mut self) {
        self.0.bell().ring();
    }
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
        let begun = self.on_worker(Purpose::Person, wait, move |this| {
            this.begin(redirect_uri.as_deref(), SIGN_IN_LIFE)
        })?;
        begun.map_err(|error| SignInError::Failed(error.to_string()))
    }

    /// Waits until somebody is signed in, with the scopes for which a request was refused; a sign-in
    /// that another process has made counts too. Returns none then, or what `given_up` has given
    /// before: it is asked at each ring of the wait's bell. The caller bounds the wait, and holds
    /// its timeout ([`Wait::hold`]), since people take their time.
    ///
    /// # Errors
    /// The wait ended first.
    pub fn wait_until_signed_in<T>(
        &self,
        wait: &Arc<Wait>,
        given_up: impl Fn() -> Option<T>,
    ) -> Result<Option<T>, Interrupted> {
        loop {
            self.look_at_file();
            let time = self.shared.now();
            if !self.lock_to_wait(wait, |state| !state.has_enough(time)) {
                return Ok(None);
            }
            let given_up = given_up();
            let waited = match given_up {
                Some(_) => Ok(given_up),
                None => wait.until(None, Some(CREDENTIALS_LOOK_INTERVAL)).map(|_| None),
            };
            if !matches!(waited, Ok(None)) {
                self.leave(wait);
                return waited;
            }
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
            let waits = self.lock_to_wait(wait, |state| state.pages.is_waited_for(now));
            if !waits {
                return Ok(());
            }
            let ended = if self.shared.running.is_stopped() {
                Err(Interrupted::Stopping)
            } else if is_over() {
                Err(Interrupted::Retired)
            } else {
                wait.until(None, Some(CREDENTIALS_LOOK_INTERVAL)).map(drop)
            };
            if ended.is_err() {
                self.leave(wait);
                return ended;
            }
        }
    }

    /// Does something on a thread of its own, so that it is finished although the one who waits for
    /// it goes away.
    pub(super) fn on_worker<T: Send + 'static>(
        self: &Arc<ServerAuthorization>,
        purpose: Purpose,
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
        if !self.shared.workers.submit(&self.server, purpose, job) {
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
        if self.token_source() == TokenSource::Machine {
            return Err(refused("nobody has to sign in with the grant of the configuration"));
        }
        let led = if redirect_uri.is_some() { Led::ByCommand } else { Led::ByGateway };
        let setup = self.shared.setup();
        let redirect_uri = redirect_uri.or(setup.redirect_uri.as_deref());
        let redirect_uri = redirect_uri.ok_or_else(|| {
            refused(
                "this gateway has no address that a browser can come back to, by https or on its own \
                 machine: set public_url to an https one",
            )
        })?;
        // What was granted before is asked for again, with what a request has wanted since: the
        // gateway may know of it and this process not yet (authorization, Step-Up Authorization
        // Flow).
        self.look_at_file();
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
    pub(super) fn probe(&self) -> Result<(), FlowError> {
        if self.lock().challenge.is_some() {
            return Ok(());
        }
        let accept = Secret::new("application/json, text/event-stream".to_owned());
        // What stands before the server may let nobody pass without them.
        let configured = self.target.headers.iter();
        let configured = configured.map(|(name, value)| (name.as_str(), value.clone()));
        let headers: Vec<_> = configured.chain([("accept", accept)]).collect();
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
    pub(super) fn ask_person(&self, why: &str, need: Need) {
        self.need_sign_in(why, need);
        let setup = &self.shared.setup();
        let Some(browser) = setup.browser.as_deref().filter(|_| self.may_open_page()) else {
            return;
        };
        let begun = match self.begin(None, setup.patience) {
            Ok(begun) => begun,
            Err(error) => return self.failed(&error),
        };
        self.lock().pages.opened(Instant::now(), setup.patience);
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
        self.lock().pages.may_open(Instant::now())
    }

    /// A sign-in has come to nothing: calls wait for it no longer.
    fn sign_in_failed(&self, why: &str) {
        let need = {
            let mut state = self.lock();
            state.pages.failed(Instant::now());
            state.need()
        };
        self.need_sign_in(why, need);
    }

    /// The answer of a page has led to nothing. Calls wait on while another page is open.
    fn answer_failed(&self, why: &str) {
        if self.shared.sign_ins.left_to(self).is_none() {
            return self.sign_in_failed(why);
        }
        let need = self.lock().need();
        self.need_sign_in(why, need);
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
        let code = answer.code(expected);
        if let Err(AnswerError::Refused { error, .. }) = &code {
            let (error, grantor) = (error.clone(), begun.grantor.clone());
            self.on_worker(Purpose::Code, wait, move |this| this.refused(&error, &grantor))?;
        }
        let code = code.map_err(|error| {
            let with = begun.grantor.with();
            let error = error.to_string();
            let error = self.secrets.scrub_cut(&error);
            let what = format!("the sign-in at {with} was refused: {error}");
            self.answer_failed(&what);
            SignInError::Refused(what)
        })?;
        self.on_worker(Purpose::Code, wait, move |this| this.exchange(&begun, &code))?
    }

    /// The page has led back with this error.
    fn refused(&self, error: &str, grantor: &Grantor) {
        match error {
            UNAUTHORIZED_CLIENT => return,
            INVALID_SCOPE => self.want_no_more_scopes(),
            _ => (),
        }
        // It knows the client: one that it does not know is never sent back.
        self.registration_works(grantor);
    }

    fn exchange(&self, begun: &Begun, code: &Secret) -> Result<(), SignInError> {
        let grant = Grant::AuthorizationCode {
            code,
            redirect_uri: &begun.redirect_uri,
            verifier: &begun.verifier,
        };
        let exchange = || {
            let _exchange = self.shared.exchanges.begin().ok_or_else(super::asking::ending)?;
            // The file is not locked yet: a code is good for a short time, and a renewal that waits
            // for its authorization server may hold the lock for longer.
            let answer = self.asker().token(&begun.grantor, grant, &begun.scopes)?;
            // The code is used up. Tokens that somebody else's may replace are better than none.
            let _locked = self.shared.store.lock(&self.file).ok();
            let before = self.lock().kept.clone();
            let wanted = before.map(|kept| kept.wanted.clone()).unwrap_or_default();
            let requested = Requested { scopes: &begun.scopes, wanted: &wanted, before: None };
            self.keep(answer, begun.grantor.clone(), &requested)
        };
        let exchanged: Result<(), FlowError> = exchange();
        exchanged.map_err(|error| {
            if error.remedy == Remedy::RegisterAnew {
                self.forget_client(&begun.grantor);
            }
            let what = format!("the sign-in failed: {error}");
            self.answer_failed(&what);
            SignInError::Failed(what)
        })?;
        self.lock().pages.finished();
        self.registration_works(&begun.grantor);
        log::info!(target: "oauth", "{}: signed in at {}", self.server, begun.grantor.with());
        Ok(())
    }
}
