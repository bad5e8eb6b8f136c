//! Requests to token endpoints: authenticated, with a proof where tokens are bound to a key, and
//! once more where the proof needs another nonce.

use ring::rand::SecureRandom;

use crate::config::{IdentityProvider, OAuthClientConfig, Secret};
use crate::limits::OAUTH_REQUEST_TIMEOUT;
use crate::oauth::client_authentication::{
    AssertionInputs, AuthenticationMethod, ClientCredentials, OAuthClient,
};
use crate::oauth::dpop::{self, ProofRequest};
use crate::oauth::fetch::{Fetch, FetchAnswer, FetchContent, FetchRequest, Reach};
use crate::oauth::form::Form;
use crate::oauth::scope::Scopes;
use crate::oauth::signing_key::SigningKey;
use crate::oauth::token::{
    self, Grant, RevokedToken, TokenAnswer, TokenError, TokenErrorKind, read_id_jag,
    revocation_form,
};
use crate::oauth::web_url::WebUrl;

use super::files::read_text;
use super::flow_error::{FlowError, FlowStep, Remedy};
use super::kept::{Client, Grantor};
use super::server_authorization::ServerAuthorization;

/// How authorization servers are asked, and with what.
pub(super) struct Asker<'a> {
    pub(super) fetch: &'a dyn Fetch,
    pub(super) reach: Reach,
    pub(super) random: &'a dyn SecureRandom,
    /// Seconds since 1970.
    pub(super) now: u64,
    pub(super) config: &'a OAuthClientConfig,
    /// Whose secrets are sent and come.
    pub(super) whose: &'a ServerAuthorization,
}

/// The fields of requests that are secrets.
const SECRET_FIELDS: [&str; 8] = [
    "code",
    "code_verifier",
    "refresh_token",
    "assertion",
    "subject_token",
    "client_secret",
    "client_assertion",
    "token",
];

/// The credentials that the configuration gives this OAuth client.
pub(super) fn configured_credentials(
    config: &OAuthClientConfig,
) -> Result<ClientCredentials, String> {
    if let Some(file) = &config.private_key_file {
        let pem = read_text(file)?;
        let key = SigningKey::from_pem(pem.expose());
        return key
            .map(ClientCredentials::PrivateKey)
            .map_err(|error| format!("private_key_file {}: {error}", file.display()));
    }
    Ok(match &config.client_secret {
        Some(secret) => ClientCredentials::Secret(secret.clone()),
        None => ClientCredentials::Public,
    })
}

impl Asker<'_> {
    fn credentials(&self, client: &Client, with: &str) -> Result<ClientCredentials, FlowError> {
        let failed =
            |what: String| FlowError::new(FlowStep::Token, with, what, Remedy::Nothing);
        match client.method {
            AuthenticationMethod::PrivateKeyJwt => {
                configured_credentials(self.config).map_err(failed)
            }
            AuthenticationMethod::None => Ok(ClientCredentials::Public),
            AuthenticationMethod::ClientSecretBasic
            | AuthenticationMethod::ClientSecretPost => Ok(client
                .secret
                .clone()
                .map_or(ClientCredentials::Public, ClientCredentials::Secret)),
        }
    }

    /// Asks the token endpoint of a grantor.
    ///
    /// # Errors
    /// It gives no token.
    pub(super) fn token(
        &self,
        grantor: &Grantor,
        grant: Grant<'_>,
        scopes: &Scopes,
    ) -> Result<TokenAnswer, FlowError> {
        let with = grantor.with();
        let form = grant.form(Some(&grantor.resource), scopes);
        let unusable = |error| FlowError::unusable(FlowStep::Token, &with, error);
        let key = grantor.dpop_key.as_ref().map(|key| SigningKey::from_pkcs8(&key.0));
        let key = key.transpose().map_err(unusable)?;
        let mut nonce = None;
        loop {
            let mut headers = Vec::new();
            if let Some(key) = &key {
                let supported = grantor.algorithms.proofs.as_deref();
                let proof =
                    self.proof(key, supported, &grantor.token_endpoint, nonce.as_deref());
                headers.push(("dpop", proof.map_err(unusable)?));
            }
            let endpoint = &grantor.token_endpoint;
            let answer =
                self.post(endpoint, grantor, form.clone(), headers, FlowStep::Token)?;
            match TokenAnswer::read(&answer) {
                Ok(token) => {
                    let others = [&token.refresh_token, &token.id_token];
                    let tokens = others.into_iter().flatten().chain([&token.access_token]);
                    tokens.for_each(|it| self.whose.learn(it));
                    return Ok(token);
                }
                Err(error)
                    if error.kind == TokenErrorKind::UseDpopNonce
                        && nonce.is_none()
                        && answer.dpop_nonce.is_some() =>
                {
                    nonce = answer.dpop_nonce;
                }
                Err(error) => return Err(self.refused(&with, error)),
            }
        }
    }

    /// The error of a token endpoint, without the secrets that it was sent: it may repeat them.
    fn refused(&self, with: &str, error: TokenError) -> FlowError {
        FlowError::of_token(with, error).without(&self.whose.secrets)
    }

    fn proof(
        &self,
        key: &SigningKey,
        supported: Option<&[String]>,
        url: &WebUrl,
        nonce: Option<&str>,
    ) -> Result<Secret, crate::oauth::unusable::Unusable> {
        let request =
            ProofRequest { method: "POST", url, now: self.now, access_token: None, nonce };
        dpop::proof(key, key.choose_algorithm(supported)?, &request, self.random)
    }

    /// Sends a form that authenticates this OAuth client.
    fn post(
        &self,
        url: &WebUrl,
        grantor: &Grantor,
        mut form: Form,
        mut headers: Vec<(&'static str, Secret)>,
        step: FlowStep,
    ) -> Result<FetchAnswer, FlowError> {
        let with = grantor.with();
        let client = &grantor.client;
        let credentials = self.credentials(client, &with)?;
        let oauth_client =
            OAuthClient { id: &client.id, credentials: &credentials, method: client.method };
        let audience = if grantor.issuer.is_empty() {
            grantor.token_endpoint.as_str()
        } else {
            &grantor.issuer
        };
        let algorithms = grantor.algorithms.assertions.as_deref();
        let inputs =
            AssertionInputs { audience, algorithms, now: self.now, random: self.random };
        let authorization = oauth_client.authenticate(&mut form, &inputs);
        let authorization =
            authorization.map_err(|error| FlowError::unusable(step, &with, error))?;
        headers.extend(authorization.map(|value| ("authorization", value)));
        self.send(url, self.reach, &form, &headers)
            .map_err(|error| FlowError::unanswered(step, &with, error))
    }

    fn send(
        &self,
        url: &WebUrl,
        reach: Reach,
        form: &Form,
        headers: &[(&'static str, Secret)],
    ) -> Result<FetchAnswer, crate::oauth::fetch::FetchError> {
        let fields =
            SECRET_FIELDS.into_iter().filter_map(|name| form.once(name).ok().flatten());
        // Of `authorization`, what stands behind the scheme.
        let values = headers.iter().filter(|(name, _)| *name == "authorization");
        let values = values.filter_map(|(_, value)| value.expose().rsplit(' ').next());
        for secret in fields.chain(values) {
            self.whose.learn(&Secret::new(secret.to_owned()));
        }
        self.fetch.fetch(&FetchRequest {
            url,
            content: FetchContent::Form(&form.encoded()),
            headers,
            reach,
            timeout: OAUTH_REQUEST_TIMEOUT,
        })
    }

    /// Exchanges the ID token of an enterprise's user for an assertion that the authorization
    /// server takes (enterprise-managed authorization).
    ///
    /// # Errors
    /// The identity provider gives none.
    pub(super) fn id_jag(
        &self,
        provider: &IdentityProvider,
        id_token: &Secret,
        grantor: &Grantor,
        scopes: &Scopes,
    ) -> Result<Secret, FlowError> {
        let unusable =
            |error| FlowError::unusable(FlowStep::Token, "the identity provider", error);
        let url = WebUrl::parse(&provider.token_endpoint).map_err(unusable)?;
        let with = url.origin();
        let grant = Grant::IdJag { id_token, audience: &grantor.issuer };
        let mut form = grant.form(Some(&grantor.resource), scopes);
        let id = provider.client_id.clone().unwrap_or_default();
        let client = Client {
            id,
            secret: provider.client_secret.clone(),
            method: match provider.client_secret {
                Some(_) => AuthenticationMethod::ClientSecretBasic,
                None => AuthenticationMethod::None,
            },
        };
        let mut headers = Vec::new();
        if provider.client_id.is_some() {
            let credentials = self.credentials(&client, &with)?;
            let oauth_client = OAuthClient {
                id: &client.id,
                credentials: &credentials,
                method: client.method,
            };
            let (audience, algorithms) = (url.as_str(), None);
            let inputs =
                AssertionInputs { audience, algorithms, now: self.now, random: self.random };
            let value = oauth_client.authenticate(&mut form, &inputs).map_err(unusable)?;
            headers.extend(value.map(|value| ("authorization", value)));
        }
        // The operator has named it, wherever it is.
        let answer = self
            .send(&url, Reach::Loopback, &form, &headers)
            .map_err(|error| FlowError::unanswered(FlowStep::Token, &with, error))?;
        let assertion = read_id_jag(&answer).map_err(|error| self.refused(&with, error))?;
        self.whose.learn(&assertion);
        Ok(assertion)
    }

    /// Revokes tokens.
    ///
    /// # Errors
    /// The authorization server does not answer, or refuses.
    pub(super) fn revoke(
        &self,
        url: &WebUrl,
        grantor: &Grantor,
        token: &Secret,
        hint: RevokedToken,
    ) -> Result<(), FlowError> {
        let form = revocation_form(token, hint);
        let answer = self.post(url, grantor, form, Vec::new(), FlowStep::Token)?;
        if answer.is_success() {
            return Ok(());
        }
        let what = match token::revocation_error(&answer) {
            Some(error) => format!("the revocation was answered with {error}"),
            None => format!("the revocation was answered with status {}", answer.status),
        };
        let error = FlowError::new(FlowStep::Token, grantor.with(), what, Remedy::Nothing);
        Err(error.without(&self.whose.secrets))
    }

    /// The assertion of the configuration, as its file has it now.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub(super) fn assertion(&self, file: &std::path::Path) -> Result<Secret, FlowError> {
        let failed = |what: String| FlowError::new(FlowStep::Token, "", what, Remedy::TryLater);
        let text = read_text(file).map_err(failed)?;
        let text = text.expose().trim().to_owned();
        token::check_assertion(&text)
            .map_err(|error| failed(format!("assertion_file {}: {error}", file.display())))?;
        Ok(Secret::new(text))
    }
}

impl Grantor {
    /// The authorization server as errors name it.
    pub(super) fn with(&self) -> String {
        if self.issuer.is_empty() { self.token_endpoint.origin() } else { self.issuer.clone() }
    }
}
