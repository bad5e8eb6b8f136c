//! Pure: the metadata of a protected resource (RFC 9728): where they are, read, and written for
//! Trunkline itself.

use super::json_document::JsonDocument;
use super::unusable::Unusable;
use super::web_url::WebUrl;

/// The path under which the metadata of an origin's resources are.
pub const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// What a protected resource says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceMetadata {
    /// `resource`: the identifier, as it is written. It is the `resource` parameter of requests
    /// for this resource.
    pub resource: String,
    /// `authorization_servers`: issuers, at most
    /// [`crate::limits::AUTHORIZATION_SERVERS_MAX`]. Read ones have been taken by [`WebUrl`] and
    /// are secure; the others are left out. Not empty.
    pub authorization_servers: Vec<String>,
    /// `scopes_supported`.
    pub scopes_supported: Option<Vec<String>>,
    /// `resource_name`, which is shown to people.
    pub resource_name: Option<String>,
    /// `dpop_bound_access_tokens_required`.
    pub dpop_bound_access_tokens_required: bool,
    /// `dpop_signing_alg_values_supported`.
    pub dpop_signing_alg_values_supported: Option<Vec<String>>,
}

/// Where the metadata of a server are where no challenge says so: at the server's path, then at
/// the root of its origin, in the order of the specification.
pub fn locations(server: &WebUrl) -> Vec<WebUrl> {
    let _ = server;
    unimplemented!()
}

/// The well-known URL of one resource (RFC 9728 section 3.1).
pub fn location(resource: &WebUrl) -> WebUrl {
    let _ = resource;
    unimplemented!()
}

/// The `resource` parameter of a server without metadata: its canonical URI (authorization,
/// Canonical Server URI).
pub fn canonical_resource(server: &WebUrl) -> String {
    let _ = server;
    unimplemented!()
}

impl ResourceMetadata {
    /// Reads the metadata of `server`.
    ///
    /// # Errors
    /// If `resource` is missing or is not this server's, if no authorization server is usable, or
    /// if a member has the wrong type.
    pub fn read(
        document: &JsonDocument,
        server: &WebUrl,
    ) -> Result<ResourceMetadata, Unusable> {
        let _ = (document, server);
        unimplemented!()
    }

    /// The document.
    pub fn to_json(&self) -> String {
        unimplemented!()
    }
}
