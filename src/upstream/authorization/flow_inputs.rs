//! The inputs of flows: how authorization servers are asked, which one it is, and as which OAuth client
//! and for which scopes.

use std::time::Instant;

use crate::config::Dpop;
use crate::limits::{OAUTH_METADATA_LIFE, STEP_UP_WINDOW, STEP_UPS_MAX};
use crate::oauth::challenge::TokenChallenge;
use crate::oauth::fetch::Reach;
use crate::oauth::scope::{self, Refreshes, ScopeSources, Scopes};
use crate::oauth::signing_key::SigningKey;
use crate::oauth::token::TokenType;
use crate::oauth::web_url::WebUrl;

use super::discovery::{Discovered, Discovery, Others};
use super::flow_error::{FlowError, FlowStep};
use super::kept::{Algorithms, Client, DpopKey, Grantor, Kept};
use super::registration::{Led, Registration};
use super::server_authorization::ServerAuthorization;
use super::token_endpoint::{Asker, with_configured_client};

impl ServerAuthorization {
    /// How far away what the server names may be.
    fn reach(&self) -> Reach {
        let Some(found) = self.fetcher.reach_of(&self.url) else { return Reach::PublicOnly };
        self.lock().reach.narrowed(found, Instant::now())
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
            others: match &self.config.client_id {
                // It is registered with one of them, and shown to no other.
                Some(_) => Others::AfterRefusal,
                None => Others::AfterFailure,
            },
        };
        let found = discovery.run(challenge.as_ref())?;
        self.lock().found_at = Some(Instant::now());
        Ok(found)
    }

    /// The authorization server as it is now, for a renewal; none while its metadata were read a
    /// short time ago, or if they cannot be had.
    pub(super) fn found_for_renewal(&self) -> Option<Discovered> {
        let found_at = self.lock().found_at;
        let is_known = found_at.is_some_and(|at| at.elapsed() < OAUTH_METADATA_LIFE);
        if is_known { None } else { self.discovered().ok() }
    }

    /// The grantor of a renewal. What is kept of its metadata has a life, since an authorization
    /// server may move its endpoints. Where the metadata cannot be had, or are another issuer's,
    /// the old endpoints count: if the server belongs to another authorization server by now, it
    /// refuses the token. The client is that of the configuration as it is now.
    pub(super) fn grantor_of_now(&self, kept: &Kept, found: Option<&Discovered>) -> Grantor {
        let old = &kept.grantor;
        let found = found.filter(|found| found.with() == old.with());
        let now = found.and_then(|it| self.grantor(it, old.client.clone(), Some(old)).ok());
        with_configured_client(now.unwrap_or_else(|| old.clone()), &self.config)
    }

    /// The scopes of the configuration: where there are any, no others are asked for.
    pub(super) fn configured_scopes(&self) -> Option<Scopes> {
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
        let mut state = self.lock();
        if state.step_ups.are_too_many(Instant::now()) && !state.is_asking {
            let minutes = STEP_UP_WINDOW.as_secs() / 60;
            return Err(format!(
                "the server wants another scope ({wanted}), after more scopes were asked for \
                 {STEP_UPS_MAX} times in {minutes} minutes"
            ));
        }
        Ok(())
    }

    /// The scopes to ask for: those of the configuration; or else those that the server names, those
    /// that were granted before by the same authorization server, and those that a request needed.
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
        match &state.kept {
            Some(kept) => chosen.union(&kept.wanted),
            None => chosen,
        }
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
            .and_then(|url| WebUrl::parse(url).ok());
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
        let token_endpoint = found.server.check_token_endpoint();
        let token_endpoint = token_endpoint
            .map_err(|error| FlowError::unusable(FlowStep::Discovery, &with, error))?
            .clone();
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
            grant: Some(self.config.grant.as_str().to_owned()),
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
