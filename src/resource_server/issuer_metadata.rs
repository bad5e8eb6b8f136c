//! Pure: what a resource server reads of an issuer's metadata (RFC 8414; OpenID Connect Discovery).
//! Issuers that only sign, such as those of workloads, have no token endpoint.

use crate::oauth::json_document::JsonDocument;
use crate::oauth::unusable::Unusable;
use crate::oauth::web_url::WebUrl;

/// The endpoints of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IssuerMetadata {
    /// `jwks_uri`
    pub(super) jwks_uri: Option<WebUrl>,
    /// `introspection_endpoint`
    pub(super) introspection_endpoint: Option<WebUrl>,
    /// How the gateway authenticates there; none where the metadata does not say.
    pub(super) authentication: Option<Authentication>,
}

/// How the gateway sends its client's secret to an introspection endpoint (RFC 6749, section
/// 2.3.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Authentication {
    /// `client_secret_basic`, which every issuer that gives secrets must take.
    #[default]
    Basic,
    /// `client_secret_post`, where the issuer lists that alone, or refuses the other one.
    Post,
}

impl Authentication {
    /// The other way.
    pub(super) fn other(self) -> Authentication {
        match self {
            Self::Basic => Self::Post,
            Self::Post => Self::Basic,
        }
    }
}

impl IssuerMetadata {
    /// Reads the metadata of that issuer.
    ///
    /// # Errors
    /// It is another issuer's (RFC 8414, section 3.3), or an endpoint is no secure URL.
    pub(super) fn read(
        document: &JsonDocument,
        issuer: &str,
    ) -> Result<IssuerMetadata, Unusable> {
        let said = document.needed_text("issuer", issuer.len().max(256))?;
        if said != issuer {
            return Err(Unusable::new(format!("its issuer is {said:?}, not {issuer:?}")));
        }
        let methods = document.texts("introspection_endpoint_auth_methods_supported")?;
        let has = |name: &str| methods.iter().flatten().any(|it| it == name);
        let authentication = match (has("client_secret_basic"), has("client_secret_post")) {
            (true, _) => Some(Authentication::Basic),
            (false, true) => Some(Authentication::Post),
            (false, false) => None,
        };
        Ok(IssuerMetadata {
            jwks_uri: document.secure_url("jwks_uri")?,
            introspection_endpoint: document.secure_url("introspection_endpoint")?,
            authentication,
        })
    }
}
