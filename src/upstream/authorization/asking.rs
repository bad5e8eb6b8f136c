//! Has tokens of authorization servers, one question at a time for the credentials of one owner at
//! one server, on the threads `oauth-N`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Dpop, Grant as ConfiguredGrant, JwtBearer};
use crate::limits::{
    BROWSER_REST, OAUTH_METADATA_LIFE, REFUSALS_PARDON_INTERVAL, STEP_UP_WINDOW, STEP_UPS_MAX,
};
use crate::oauth::challenge::TokenChallenge;
use crate::oauth::fetch::Reach;
use crate::oauth::scope::{self, Refreshes, ScopeSources, Scopes};
use crate::oauth::signing_key::SigningKey;
use crate::oauth::token::{Grant, TokenAnswer, TokenType};

use super::discovery::{Discovered, Discovery};
use super::flow_error::{FlowError, FlowStep, Remedy};
use super::kept::{Algorithms, Client, DpopKey, Grantor, Kept, Registrations};
use super::registration::{Led, Registration, with_registrations};
use super::server_authorization::{NOBODY_HAS_SIGNED_IN, ServerAuthorization, Trouble};
use super::store::FileName;
use super::token_endpoint::Asker;
use super::want::Want;

/// The pause after a question for which there was no thread.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// What came of a question.
enum Had {
    /// A token, which is used from here on.
    Token,
    /// Only a person can have one, because of this.
    NeedsPerson(String),
}

/// The end of a question wakes whoever waits for it, whatever way it ends.
struct Asked<'a>(&'a ServerAuthorization);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.lock().is_asking = false;
        self.0.wake();
    }
}

impl ServerAuthorization {
    /// Has an authorization server asked, unless one is asked already. Returns at once.
    pub(super) fn submit(&self, want: Want) {
        let Some(me) = self.me.upgrade() else { return };
        {
            let mut state = self.lock();
            if state.is_asking {
                return;
            }
            state.is_asking = true;
            match &want {
                Want::Renewal => (),
                Want::Refused(number) if *number == Some(state.number) => {
                    state.n_refused += u32::from(!state.is_refused);
                    state.is_refused = true;
                }
                Want::Refused(_) => (),
                Want::Scopes(scopes) => {
                    state.wanted_scopes = Some(scopes.clone());
                    state.step_ups.push_back(Instant::now());
                }
            }
        }
        let job = Box::new(move || {
            let _asked = Asked(&me);
            match me.had(&want) {
                Ok(Had::Token) => (),
                Ok(Had::NeedsPerson(why)) => me.ask_person(&why),
                Err(error) => me.failed(&error),
            }
        });
        if !self.shared.workers.submit(job) {
            {
                let mut state = self.lock();
                state.is_asking = false;
                let why = "too many sign-ins and renewals wait".to_owned();
                let until = Instant::now() + BUSY_PAUSE;
                state.trouble = Trouble::Failing { why, until };
            }
            self.wake();
        }
    }

    fn had(&self, want: &Want) -> Result<Had, FlowError> {
        // Another gateway, or a command, may renew the same token: only one of them does.
        let _locked = self.shared.store.lock(&self.file).map_err(not_kept)?;
        let mut before = self.lock().kept.clone();
        match self.read_file().map_err(not_kept)? {
            Some(newest) if before.as_deref() != Some(&newest) => {
                self.adopt_from_file(newest);
                return Ok(Had::Token);
            }
            Some(_) => (),
            // Somebody has signed out.
            None if before.is_some() => {
                self.forget();
                before = None;
            }
            None => (),
        }
        if self.is_of_machines() {
            return self.had_by_machine(want, before.as_deref());
        }
        match (want, before) {
            (Want::Scopes(scopes), Some(_)) => {
                Ok(Had::NeedsPerson(format!("a request needs more rights ({scopes})")))
            }
            (_, None) => Ok(Had::NeedsPerson(NOBODY_HAS_SIGNED_IN.to_owned())),
            (Want::Renewal, Some(kept)) => self.refreshed(&kept),
            (Want::Refused(_), Some(kept)) => self.had_after_refusal(&kept),
        }
    }

    /// Uses credentials that another process has written. Nobody here has had them for a refused
    /// token's sake, so the first refusal of theirs is answered with a renewal like any other's;
    /// but not all the time, or two processes would renew in turn for a server that refuses all.
    pub(super) fn adopt_from_file(&self, kept: Kept) {
        {
            let now = Instant::now();
            let mut state = self.lock();
            let rests = state
                .pardoned_at
                .is_some_and(|at| now.saturating_duration_since(at) < REFUSALS_PARDON_INTERVAL);
            if state.n_refused > 0 && !rests {
                (state.n_refused, state.pardoned_at) = (0, Some(now));
            }
        }
        self.adopt(kept);
    }

    /// The server has refused the token of a person's sign-in.
    fn had_after_refusal(&self, kept: &Kept) -> Result<Had, FlowError> {
        if self.refuses_all() {
            self.lock().no_page_until = Some(Instant::now() + BROWSER_REST);
            let what =
                "the server refuses the access tokens that its authorization server gives";
            return Ok(Had::NeedsPerson(what.to_owned()));
        }
        if kept.refresh_token.is_none() {
            return Ok(Had::NeedsPerson("the access token has ended".to_owned()));
        }
        // The server may have another authorization server by now.
        match self.discovered() {
            Ok(found) if found.with() != kept.grantor.with() => {
                let what =
                    format!("the server has another authorization server: {}", found.with());
                Ok(Had::NeedsPerson(what))
            }
            Ok(_) => self.refreshed(kept),
            Err(error) if error.remedy == Remedy::TryLater => self.refreshed(kept),
            Err(error) => Err(error),
        }
    }

    /// True if the server refuses one token after the other: the next one will not be better.
    fn refuses_all(&self) -> bool {
        self.lock().n_refused > 1
    }

    fn refreshed(&self, kept: &Kept) -> Result<Had, FlowError> {
        let Some(refresh_token) = &kept.refresh_token else {
            return Ok(Had::NeedsPerson("the access token has ended".to_owned()));
        };
        let _exchange = self.shared.exchanges.begin().ok_or_else(ending)?;
        let grant = Grant::RefreshToken(refresh_token);
        let grantor = self.grantor_of_now(kept);
        let answer = self.asker().token(&grantor, grant, &Scopes::default());
        match answer {
            Ok(answer) => {
                let scopes = kept.scopes.clone();
                self.keep(answer, grantor, &scopes, Some(kept)).map(|()| Had::Token)
            }
            Err(error) if error.remedy == Remedy::TryLater => Err(error),
            Err(error) => {
                if error.remedy == Remedy::RegisterAnew {
                    self.forget_registration(&grantor);
                }
                // It is good for nothing any more; the access token may be, until it ends.
                let spent = Kept { refresh_token: None, ..kept.clone() };
                self.write_file(&spent).map_err(not_kept)?;
                let mut state = self.lock();
                if state.kept.as_deref() == Some(kept) {
                    state.kept = Some(Arc::new(spent));
                }
                Ok(Had::NeedsPerson(format!("the sign-in has ended ({error})")))
            }
        }
    }

    /// A registration that the authorization server does not know any more.
    pub(super) fn forget_registration(&self, grantor: &Grantor) {
        self.note_of_registration(|all| all.forget(&grantor.with(), &grantor.client.id));
    }

    /// A registration with which somebody has signed in.
    pub(super) fn registration_works(&self, grantor: &Grantor) {
        self.note_of_registration(|all| {
            all.sign_in_finished(&grantor.with(), &grantor.client.id);
        });
    }

    fn note_of_registration(&self, note: impl FnOnce(&mut Registrations)) {
        if let Err(error) = with_registrations(&self.shared.store, &self.server, note) {
            log::warn!(target: "oauth", "{}: its registrations cannot be kept: {error}",
                self.server);
        }
    }

    /// The ports of this machine to which browsers have come back from sign-ins by a command, the
    /// newest first: the registration of one of them serves again, whatever the authorization
    /// server thinks of another port (RFC 8252, section 7.3).
    pub fn loopback_ports(&self) -> Vec<u16> {
        let name = FileName::of_registrations(&self.server);
        let text = self.shared.store.read(&name).ok().flatten();
        let all = text.as_deref().and_then(Registrations::from_json);
        all.map(|all| all.loopback_ports()).unwrap_or_default()
    }

    /// Keeps the tokens of an answer, and uses them from there on.
    pub(super) fn keep(
        &self,
        answer: TokenAnswer,
        grantor: Grantor,
        requested: &Scopes,
        before: Option<&Kept>,
    ) -> Result<(), FlowError> {
        if answer.token_type == TokenType::DPoP && grantor.dpop_key.is_none() {
            let what = "the access token is bound to a key that was not given";
            return Err(FlowError::new(FlowStep::Token, grantor.with(), what, Remedy::Nothing));
        }
        let kept = Kept::of(answer, grantor, requested, before, self.shared.now());
        if let Err(error) = self.write_file(&kept) {
            // The old refresh token may be used up: what is not kept is better used than lost.
            log::warn!(target: "oauth", "{}: its tokens cannot be kept, and are lost when the \
                gateway ends: {error}", self.server);
        }
        self.adopt(kept);
        Ok(())
    }

    /// The token of a client that asks on its own behalf.
    fn had_by_machine(&self, want: &Want, before: Option<&Kept>) -> Result<Had, FlowError> {
        let refused = matches!(want, Want::Refused(_));
        if let Some(kept) = before.filter(|_| refused && self.refuses_all()) {
            let what =
                "the server refuses the access tokens that its authorization server gives";
            let with = kept.grantor.with();
            return Err(FlowError::new(FlowStep::Token, with, what, Remedy::Nothing));
        }
        let (grantor, mut scopes) = match (want, before) {
            (Want::Renewal, Some(kept)) => (self.grantor_of_now(kept), kept.scopes.clone()),
            (Want::Renewal | Want::Refused(_) | Want::Scopes(_), _) => {
                let found = self.discovered()?;
                let scopes = self.scopes(&found, Refreshes::No);
                let redirect_uri = self.shared.setup().redirect_uri.clone();
                let redirect_uri = redirect_uri.unwrap_or_default();
                let client = self.client(&found, &redirect_uri, Led::Nobody)?;
                let known = before.map(|kept| &kept.grantor);
                (self.grantor(&found, client, known)?, scopes)
            }
        };
        if let (Want::Scopes(wanted), Some(kept)) = (want, before) {
            scopes = scope::step_up(&kept.scopes.union(&scopes), Some(wanted));
        }
        let scopes = self.configured_scopes().unwrap_or(scopes);
        let asker = self.asker();
        let answer = match &self.config.grant {
            // It has been excluded above.
            ConfiguredGrant::AuthorizationCode | ConfiguredGrant::ClientCredentials => {
                asker.token(&grantor, Grant::ClientCredentials, &scopes)?
            }
            ConfiguredGrant::JwtBearer(JwtBearer { assertion_file, identity_provider }) => {
                let mut assertion = asker.assertion(assertion_file)?;
                if let Some(provider) = identity_provider {
                    assertion = asker.id_jag(provider, &assertion, &grantor, &scopes)?;
                }
                let grant = Grant::JwtBearer { assertion: &assertion };
                asker.token(&grantor, grant, &scopes)?
            }
        };
        self.keep(answer, grantor, &scopes, None).map(|()| Had::Token)
    }

    /// How far away what the server names may be. It is the narrowest that the server's name has
    /// ever led to: else whoever owns the name could let it lead to this machine later, and have
    /// the gateway ask what only this machine reaches (DNS rebinding).
    fn reach(&self) -> Reach {
        let Some(now) = self.fetcher.reach_of(&self.url) else { return Reach::PublicOnly };
        let mut state = self.lock();
        let reach = state.reach.map_or(now, |before| before.min(now));
        state.reach = Some(reach);
        reach
    }

    /// How authorization servers are asked.
    pub(super) fn asker(&self) -> Asker<'_> {
        Asker {
            fetch: &self.fetcher,
            reach: self.reach(),
            random: &self.shared.random,
            now: self.shared.now(),
            config: &self.config,
            whose: self,
        }
    }

    /// The authorization server as it is now.
    pub(super) fn discovered(&self) -> Result<Discovered, FlowError> {
        let (challenge, known) = {
            let state = self.lock();
            let known = state.kept.as_ref().map(|kept| kept.grantor.issuer.clone());
            (state.challenge.clone(), known)
        };
        let discovery = Discovery {
            fetch: &self.fetcher,
            reach: self.reach(),
            server: &self.url,
            known_issuer: known.as_deref(),
        };
        let found = discovery.run(challenge.as_ref())?;
        self.lock().found_at = Some(Instant::now());
        Ok(found)
    }

    /// The grantor of a renewal. What is kept of its metadata has a life, since an authorization
    /// server may move its endpoints. Where the metadata cannot be had, or are another issuer's,
    /// the old endpoints count: if the server belongs to another authorization server by now, it
    /// refuses the token.
    fn grantor_of_now(&self, kept: &Kept) -> Grantor {
        let found_at = self.lock().found_at;
        let old = &kept.grantor;
        if found_at.is_some_and(|at| at.elapsed() < OAUTH_METADATA_LIFE) {
            return old.clone();
        }
        let found = self.discovered().ok().filter(|found| found.with() == old.with());
        let now = found.and_then(|it| self.grantor(&it, old.client.clone(), Some(old)).ok());
        now.unwrap_or_else(|| old.clone())
    }

    /// The scopes of the configuration: where there are any, no others are asked for.
    fn configured_scopes(&self) -> Option<Scopes> {
        let configured = self.config.scopes.as_deref()?;
        Some(configured.iter().map(String::as_str).collect())
    }

    /// Checks that a token with these scopes may be asked for.
    ///
    /// # Errors
    /// The text says why not.
    pub(super) fn may_step_up(&self, wanted: &str) -> Result<(), String> {
        if let Some(configured) = self.configured_scopes() {
            let wanted = Scopes::parse(wanted);
            let beside: Vec<_> = wanted.iter().filter(|it| !configured.contains(it)).collect();
            if !beside.is_empty() {
                let beside = beside.join(" ");
                return Err(format!(
                    "the server wants the scope {beside:?}, which is not among the \
                     configured \"scopes\" ({configured})"
                ));
            }
        }
        let now = Instant::now();
        let mut state = self.lock();
        state.step_ups.retain(|at| now.saturating_duration_since(*at) < STEP_UP_WINDOW);
        if state.step_ups.len() >= STEP_UPS_MAX && !state.is_asking {
            let minutes = STEP_UP_WINDOW.as_secs() / 60;
            return Err(format!(
                "the server wants another scope ({wanted}), after more scopes were asked for \
                 {STEP_UPS_MAX} times in {minutes} minutes"
            ));
        }
        Ok(())
    }

    /// The scopes to ask for: those of the configuration, or else those of before too, where they were granted by the same
    /// authorization server, and those that a request needed.
    pub(super) fn scopes(&self, found: &Discovered, refreshes: Refreshes) -> Scopes {
        let state = self.lock();
        let challenged = state.challenge.as_ref().and_then(|it| it.scope.as_deref());
        let of_resource = found.metadata.as_ref().and_then(|it| it.scopes_supported.as_deref());
        let sources = ScopeSources {
            configured: self.config.scopes.as_deref(),
            challenged,
            of_resource,
            of_authorization_server: found.server.scopes_supported.as_deref(),
        };
        let chosen = scope::select(sources, refreshes);
        if self.config.scopes.is_some() {
            return chosen;
        }
        let before = state.kept.as_ref().filter(|kept| kept.grantor.with() == found.with());
        let chosen = match before {
            Some(kept) => kept.scopes.union(&chosen),
            None => chosen,
        };
        scope::step_up(&chosen, state.wanted_scopes.as_deref())
    }

    /// True if tokens are to be bound to a key.
    fn wants_dpop(&self, found: &Discovered) -> bool {
        let is_required =
            found.metadata.as_ref().is_some_and(|it| it.dpop_bound_access_tokens_required);
        let is_asked = |it: &TokenChallenge| it.token_type == TokenType::DPoP;
        let is_asked = self.lock().challenge.as_ref().is_some_and(is_asked);
        self.config.dpop == Dpop::On || is_required || is_asked
    }

    /// This OAuth client as the authorization server knows it.
    pub(super) fn client(
        &self,
        found: &Discovered,
        redirect_uri: &str,
        led: Led,
    ) -> Result<Client, FlowError> {
        let asker = self.asker();
        let setup = &self.shared.setup();
        // The gateway's own document names the gateway's own address.
        let own = setup
            .client_document_url
            .as_deref()
            .filter(|_| setup.redirect_uri.as_deref() == Some(redirect_uri))
            .and_then(|url| crate::oauth::web_url::WebUrl::parse(url).ok());
        let registration = Registration {
            asker: &asker,
            store: &self.shared.store,
            server: &self.server,
            redirect_uri,
            document: self.document.as_ref().or(own.as_ref()),
            dpop_bound: self.wants_dpop(found),
            led,
        };
        registration.client(found)
    }

    /// The one who is asked for tokens. The key of before serves on.
    pub(super) fn grantor(
        &self,
        found: &Discovered,
        client: Client,
        before: Option<&Grantor>,
    ) -> Result<Grantor, FlowError> {
        let with = found.with();
        let unusable = |what: &str| {
            FlowError::new(FlowStep::Discovery, with.clone(), what, Remedy::Nothing)
        };
        let token_endpoint = found.server.token_endpoint.clone();
        let token_endpoint =
            token_endpoint.ok_or_else(|| unusable("it has no token_endpoint"))?;
        let dpop_key = match before.and_then(|before| before.dpop_key.clone()) {
            Some(key) => Some(key),
            None if self.wants_dpop(found) => {
                let key = SigningKey::generate(&self.shared.random);
                let key =
                    key.map_err(|error| FlowError::unusable(FlowStep::Token, &with, error))?;
                Some(DpopKey(key))
            }
            None => None,
        };
        Ok(Grantor {
            server: self.url.as_str().to_owned(),
            issuer: found.server.issuer.clone(),
            token_endpoint,
            revocation_endpoint: found.server.revocation_endpoint.clone(),
            algorithms: Algorithms {
                assertions: found
                    .server
                    .token_endpoint_auth_signing_alg_values_supported
                    .clone(),
                proofs: found.server.dpop_signing_alg_values_supported.clone(),
            },
            resource: found.resource.clone(),
            client,
            dpop_key,
        })
    }
}

/// An exchange that is not begun any more.
pub(super) fn ending() -> FlowError {
    FlowError::new(FlowStep::Token, "", "the gateway is stopping", Remedy::TryLater)
}

/// Credentials that cannot be read or written.
pub(super) fn not_kept(error: std::io::Error) -> FlowError {
    FlowError::new(FlowStep::Keeping, "", error.to_string(), Remedy::TryLater)
}
