//! How this OAuth client is known to an authorization server: by the configuration, by its metadata
//! document, or by a registration, which is kept.

use crate::config::TokenEndpointAuthMethod;
use crate::limits::{LOGINS_UNFINISHED_MAX, OAUTH_REQUEST_TIMEOUT, PAGES_UNFINISHED_MAX};
use crate::oauth::client_authentication::{AuthenticationMethod, ClientCredentials};
use crate::oauth::fetch::{FetchContent, FetchRequest};
use crate::oauth::registration::{
    self, ClientMetadata, ConfiguredClient, RegisteredClient, RegistrationWay,
};
use crate::oauth::web_url::WebUrl;
use crate::protocol::server_name::ServerName;

use super::discovery::Discovered;
use super::flow_error::{FlowError, FlowStep, Remedy};
use super::kept::{Client, Registrations};
use super::refusal;
use super::store::{FileName, Store};
use super::token_endpoint::{Asker, configured_credentials};

/// The name that authorization servers show to people.
const CLIENT_NAME: &str = "Trunkline";

/// Who is led to the authorization server with a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Led {
    /// A person, by a page of the gateway.
    ByGateway,
    /// A person, by `trunkline login`.
    ByCommand,
    /// Nobody: the gateway has tokens by itself.
    Nobody,
}

impl Led {
    /// After so many sign-ins that nobody has finished, a registration is believed no longer. An
    /// authorization server that has lost it shows that to the person alone: it sends no browser
    /// back for an OAuth client that it does not know (RFC 6749, section 4.1.2.1).
    fn unfinished_max(self) -> Option<u32> {
        match self {
            Self::ByGateway => Some(PAGES_UNFINISHED_MAX),
            Self::ByCommand => Some(LOGINS_UNFINISHED_MAX),
            Self::Nobody => None,
        }
    }
}

/// What a registration is for.
pub(super) struct Registration<'a> {
    pub(super) asker: &'a Asker<'a>,
    pub(super) store: &'a Store,
    pub(super) server: &'a ServerName,
    /// Where browsers come back to.
    pub(super) redirect_uri: &'a str,
    /// The URL of this OAuth client's metadata document, where it has one.
    pub(super) document: Option<&'a WebUrl>,
    pub(super) dpop_bound: bool,
    pub(super) led: Led,
}

impl From<TokenEndpointAuthMethod> for AuthenticationMethod {
    fn from(method: TokenEndpointAuthMethod) -> AuthenticationMethod {
        match method {
            TokenEndpointAuthMethod::ClientSecretBasic => Self::ClientSecretBasic,
            TokenEndpointAuthMethod::ClientSecretPost => Self::ClientSecretPost,
            TokenEndpointAuthMethod::PrivateKeyJwt => Self::PrivateKeyJwt,
            TokenEndpointAuthMethod::None => Self::None,
        }
    }
}

impl Registration<'_> {
    /// The client as the authorization server knows it, which is registered if need be.
    ///
    /// # Errors
    /// There is no way, or the authorization server refuses.
    pub(super) fn client(&self, found: &Discovered) -> Result<Client, FlowError> {
        let with = found.with();
        let unusable = |error| FlowError::unusable(FlowStep::Registration, &with, error);
        let configured = match &self.asker.config.client_id {
            Some(_) => ConfiguredClient::Present,
            None => ConfiguredClient::Absent,
        };
        let way = registration::choose(configured, self.document, &found.server);
        match way.map_err(unusable)? {
            RegistrationWay::Configured => self.configured(found),
            RegistrationWay::MetadataDocument(url) => Ok(Client {
                id: url.as_str().to_owned(),
                secret: None,
                method: AuthenticationMethod::None,
            }),
            RegistrationWay::Dynamic(endpoint) => self.dynamic(found, &endpoint),
        }
    }

    fn failed(&self, found: &Discovered, what: String, remedy: Remedy) -> FlowError {
        FlowError::new(FlowStep::Registration, found.with(), what, remedy)
    }

    /// The client of the configuration: it belongs to the authorization server with which it was
    /// used first (client registration, Authorization Server Binding).
    fn configured(&self, found: &Discovered) -> Result<Client, FlowError> {
        let config = self.asker.config;
        let id = config.client_id.clone().unwrap_or_default();
        let first =
            self.with_registrations(found, |all| all.issuer_of_configured(&id, &found.with()))?;
        if first != found.with() {
            let what = format!(
                "client_id {id:?} belongs to the authorization server {first}, and the server \
                 names this one now: configure the client that is registered there"
            );
            return Err(self.failed(found, what, Remedy::Nothing));
        }
        let credentials = configured_credentials(config)
            .map_err(|what| self.failed(found, what, Remedy::Nothing))?;
        let method = match config.token_endpoint_auth_method {
            Some(method) => method.into(),
            None => AuthenticationMethod::choose(&id, &credentials, &found.server).map_err(
                |error| FlowError::unusable(FlowStep::Registration, &found.with(), error),
            )?,
        };
        let secret = match credentials {
            ClientCredentials::Secret(secret) => Some(secret),
            ClientCredentials::Public | ClientCredentials::PrivateKey(_) => None,
        };
        Ok(Client { id, secret, method })
    }

    fn dynamic(&self, found: &Discovered, endpoint: &WebUrl) -> Result<Client, FlowError> {
        let issuer = found.with();
        let known = self.with_registrations(found, |all| {
            let client = all.client(&issuer, self.redirect_uri, self.asker.now)?;
            let n_unfinished = self.begins(all, &issuer, &client);
            Some((client, n_unfinished))
        })?;
        let doubted = match (known, self.led.unfinished_max()) {
            (Some((client, n)), Some(max)) if n >= max => Some(client),
            (Some((client, _)), _) => return Ok(client),
            (None, _) => None,
        };
        let registered = match (self.register(found, endpoint), doubted) {
            (Ok(registered), _) => registered,
            // It may be good after all.
            (Err(_), Some(doubted)) => return Ok(doubted),
            (Err(error), None) => return Err(error),
        };
        // Many an answer names the method that was asked for, and gives no secret for it.
        let method = match (registered.authentication_method, &registered.client_secret) {
            (
                AuthenticationMethod::ClientSecretBasic
                | AuthenticationMethod::ClientSecretPost,
                None,
            ) => AuthenticationMethod::None,
            (method, _) => method,
        };
        let (id, secret) = (registered.client_id, registered.client_secret);
        let client = Client { id, secret, method };
        let ends = registered.client_secret_expires_at;
        self.with_registrations(found, |all| {
            all.add(&issuer, self.redirect_uri, &client, ends);
            self.begins(all, &issuer, &client);
        })?;
        Ok(client)
    }

    /// Notes that a person is led to the authorization server, and returns how many were before who
    /// have not finished.
    fn begins(&self, all: &mut Registrations, issuer: &str, client: &Client) -> u32 {
        match self.led {
            Led::ByGateway | Led::ByCommand => all.sign_in_begins(issuer, &client.id),
            Led::Nobody => 0,
        }
    }

    fn register(
        &self,
        found: &Discovered,
        endpoint: &WebUrl,
    ) -> Result<RegisteredClient, FlowError> {
        let with = found.with();
        let asked = match self.asker.config.token_endpoint_auth_method {
            Some(method) => method.into(),
            None => AuthenticationMethod::for_registration(&found.server),
        };
        let redirect_uris = [self.redirect_uri.to_owned()];
        let metadata = ClientMetadata {
            client_name: CLIENT_NAME,
            client_uri: None,
            redirect_uris: &redirect_uris,
            authentication_method: asked,
            refreshes: found.server.refreshes(),
            dpop_bound: self.dpop_bound,
        };
        let answer = self.asker.fetch.fetch(&FetchRequest {
            url: endpoint,
            content: FetchContent::Json(&metadata.registration_request()),
            headers: &[],
            reach: self.asker.reach,
            timeout: OAUTH_REQUEST_TIMEOUT,
        });
        let answer = answer
            .map_err(|error| FlowError::unanswered(FlowStep::Registration, &with, error))?;
        if refusal::is_unwell(answer.status) {
            let what = format!("it answered with status {}", answer.status);
            return Err(self.failed(found, what, Remedy::TryLater));
        }
        RegisteredClient::read(&answer, asked).map_err(|error| {
            FlowError::unusable(FlowStep::Registration, &with, error)
                .without(&self.asker.whose.secrets)
        })
    }

    /// Reads the registrations of the server, and writes them again if `change` has changed them.
    fn with_registrations<T>(
        &self,
        found: &Discovered,
        change: impl FnOnce(&mut Registrations) -> T,
    ) -> Result<T, FlowError> {
        with_registrations(self.store, self.server, change)
            .map_err(|error| self.failed(found, error.to_string(), Remedy::TryLater))
    }
}

/// Reads the registrations of a server, and writes them again if `change` has changed them.
///
/// # Errors
/// The disk refuses.
pub(super) fn with_registrations<T>(
    store: &Store,
    server: &ServerName,
    change: impl FnOnce(&mut Registrations) -> T,
) -> std::io::Result<T> {
    let name = FileName::of_registrations(server);
    let _locked = store.lock(&name)?;
    let before = store.read(&name)?;
    let read = before.as_deref().and_then(Registrations::from_json);
    let mut all = read.unwrap_or_default();
    let done = change(&mut all);
    let after = all.to_json();
    if before.as_deref() != Some(after.as_str()) {
        store.write(&name, &after)?;
    }
    Ok(done)
}
