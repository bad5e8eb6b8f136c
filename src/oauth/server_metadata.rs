//! Pure: the metadata of an authorization server (RFC 8414, OpenID Connect Discovery 1.0).

use super::json_document::JsonDocument;
use super::unusable::Unusable;
use super::web_url::WebUrl;

/// What an authorization server says of itself. All endpoints are secure URLs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerMetadata {
    /// `issuer`, identical to the one that was asked. Empty for [`ServerMetadata::fallback`].
    pub issuer: String,
    /// `authorization_endpoint`.
    pub authorization_endpoint: Option<WebUrl>,
    /// `token_endpoint`.
    pub token_endpoint: Option<WebUrl>,
    /// `registration_endpoint` (RFC 7591).
    pub registration_endpoint: Option<WebUrl>,
    /// `revocation_endpoint` (RFC 7009).
    pub revocation_endpoint: Option<WebUrl>,
    /// `introspection_endpoint` (RFC 7662).
    pub introspection_endpoint: Option<WebUrl>,
    /// `jwks_uri`.
    pub jwks_uri: Option<WebUrl>,
    /// `scopes_supported`.
    pub scopes_supported: Option<Vec<String>>,
    /// `grant_types_supported`.
    pub grant_types_supported: Option<Vec<String>>,
    /// `code_challenge_methods_supported`.
    pub code_challenge_methods_supported: Option<Vec<String>>,
    /// `token_endpoint_auth_methods_supported`.
    pub token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// `token_endpoint_auth_signing_alg_values_supported`.
    pub token_endpoint_auth_signing_alg_values_supported: Option<Vec<String>>,
    /// `dpop_signing_alg_values_supported` (RFC 9449 section 5.1).
    pub dpop_signing_alg_values_supported: Option<Vec<String>>,
    /// `client_id_metadata_document_supported`.
    pub client_id_metadata_document_supported: bool,
    /// `authorization_response_iss_parameter_supported` (RFC 9207 section 3).
    pub authorization_response_iss_parameter_supported: bool,
}

/// Where the metadata of an issuer are, in the order in which they are tried.
pub fn locations(issuer: &WebUrl) -> Vec<WebUrl> {
    let _ = issuer;
    unimplemented!()
}

impl ServerMetadata {
    /// Reads the metadata of the authorization server with this issuer.
    ///
    /// # Errors
    /// If `issuer` in the document is another one, if there is no `token_endpoint`, if an endpoint
    /// is not secure, or if a member has the wrong type.
    pub fn read(document: &JsonDocument, issuer: &str) -> Result<ServerMetadata, Unusable> {
        let _ = (document, issuer);
        unimplemented!()
    }

    /// The metadata of an authorization server that has none: the default endpoints of the first
    /// revision with authorization, at the origin of the MCP server.
    pub fn fallback(server: &WebUrl) -> ServerMetadata {
        let _ = server;
        unimplemented!()
    }

    /// Checks what the authorization code grant needs: an authorization endpoint, and PKCE with
    /// S256 (security considerations, Authorization Code Protection).
    ///
    /// # Errors
    /// Says what is missing.
    pub fn check_authorization_code(&self) -> Result<&WebUrl, Unusable> {
        unimplemented!()
    }
}
