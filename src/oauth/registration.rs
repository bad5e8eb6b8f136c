//! Pure: how this OAuth client comes to be known to an authorization server: the choice of the
//! way, the client metadata document, and dynamic registration (RFC 7591).

use super::client_authentication::AuthenticationMethod;
use super::json_document::JsonDocument;
use super::scope::Scopes;
use super::server_metadata::ServerMetadata;
use super::unusable::Unusable;
use super::web_url::WebUrl;
use crate::secret::Secret;

/// How this OAuth client is known to an authorization server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistrationWay {
    /// By the `client_id` of the configuration.
    Configured,
    /// By the URL of its metadata document, which is its `client_id`.
    MetadataDocument(WebUrl),
    /// By dynamic registration at this endpoint.
    Dynamic(WebUrl),
}

/// Tells if the configuration has a `client_id` for the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfiguredClient {
    /// It has one.
    Present,
    /// It has none.
    Absent,
}

/// Chooses the way in the order of the specification (client registration). `document` is the URL
/// of this OAuth client's metadata document, where it has one.
///
/// # Errors
/// If there is no way: the text says what to configure.
pub fn choose(
    configured: ConfiguredClient,
    document: Option<&WebUrl>,
    server: &ServerMetadata,
) -> Result<RegistrationWay, Unusable> {
    let _ = (configured, document, server);
    unimplemented!()
}

/// What this OAuth client says of itself.
#[derive(Debug, Clone)]
pub struct ClientMetadata<'a> {
    /// `client_name`, which authorization servers show to people.
    pub client_name: &'a str,
    /// `client_uri`.
    pub client_uri: Option<&'a str>,
    /// `redirect_uris`.
    pub redirect_uris: &'a [String],
    /// `scope`, in a registration only.
    pub scopes: &'a Scopes,
    /// `token_endpoint_auth_method`.
    pub authentication_method: AuthenticationMethod,
    /// `dpop_bound_access_tokens`, where wanted (RFC 9449 section 5.2).
    pub dpop_bound: bool,
}

impl ClientMetadata<'_> {
    /// The client metadata document, for its own URL. It is that of a public OAuth client.
    pub fn document(&self, client_id: &WebUrl) -> String {
        let _ = client_id;
        unimplemented!()
    }

    /// The body of a registration request.
    pub fn registration_request(&self) -> Secret {
        unimplemented!()
    }
}

/// An OAuth client as an authorization server has registered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredClient {
    /// `client_id`.
    pub client_id: String,
    /// `client_secret`.
    pub client_secret: Option<Secret>,
    /// `client_secret_expires_at`, in seconds since 1970; none if it does not end.
    pub client_secret_expires_at: Option<u64>,
    /// `token_endpoint_auth_method`.
    pub authentication_method: AuthenticationMethod,
    /// `registration_client_uri` (RFC 7592).
    pub registration_client_uri: Option<WebUrl>,
    /// `registration_access_token` (RFC 7592).
    pub registration_access_token: Option<Secret>,
}

impl RegisteredClient {
    /// Reads the successful answer to a registration request that asked for `asked`.
    ///
    /// # Errors
    /// If it has no `client_id`, or if a member has the wrong type.
    pub fn read(
        document: &JsonDocument,
        asked: AuthenticationMethod,
    ) -> Result<RegisteredClient, Unusable> {
        let _ = (document, asked);
        unimplemented!()
    }
}
