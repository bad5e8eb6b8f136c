//! Pure: how Trunkline signs in to a server as OAuth client, as checked values.

use std::path::PathBuf;

use super::Secret;

/// The credentials that calls to a server carry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Credentials {
    /// The gateway's own, the same for all clients.
    #[default]
    Gateway,
    /// Each user's own.
    PerUser,
}

impl Credentials {
    /// The word of the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::PerUser => "per_user",
        }
    }
}

/// How an access token for a server is had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OAuthClientConfig {
    /// The grant.
    pub grant: Grant,
    /// The identifier with which Trunkline is registered at the authorization server; without one
    /// it registers itself.
    pub client_id: Option<String>,
    /// The secret that belongs to `client_id`.
    pub client_secret: Option<Secret>,
    /// A private key (PEM), with which Trunkline signs assertions in place of a secret.
    pub private_key_file: Option<PathBuf>,
    /// An https URL of a client metadata document, which is the client's identifier where the
    /// authorization server reads such documents.
    pub client_metadata_url: Option<String>,
    /// The scopes to ask for; without a list, those that the server names.
    pub scopes: Option<Vec<String>>,
    /// How the client authenticates at the token endpoint; without a method, as the authorization
    /// server and the credentials allow.
    pub token_endpoint_auth_method: Option<TokenEndpointAuthMethod>,
    /// How access tokens are bound to a key.
    pub dpop: Dpop,
}

/// How a token request shows that somebody may have an access token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Grant {
    /// A person signs in with a browser, and the authorization server gives a code.
    #[default]
    AuthorizationCode,
    /// The client's own credentials are enough.
    ClientCredentials,
    /// An assertion (RFC 7523) that another party has signed.
    JwtBearer(JwtBearer),
}

impl Grant {
    /// True if a person signs in.
    pub fn wants_person(&self) -> bool {
        match self {
            Self::AuthorizationCode => true,
            Self::ClientCredentials | Self::JwtBearer(_) => false,
        }
    }

    /// The word of the configuration.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::AuthorizationCode => "authorization_code",
            Self::ClientCredentials => "client_credentials",
            Self::JwtBearer(_) => "jwt_bearer",
        }
    }
}

/// The assertion of the JWT bearer grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtBearer {
    /// The file in which the assertion is, which is read for each token request. With
    /// `identity_provider` it is that provider's ID token.
    pub assertion_file: PathBuf,
    /// The provider that gives an identity assertion (ID-JAG) for the file's ID token; without
    /// one, the file's content is itself what the authorization server takes.
    pub identity_provider: Option<IdentityProvider>,
}

/// The identity provider of an enterprise, at which an ID token is exchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityProvider {
    /// Its token endpoint, an `https` URL, or an `http` one on this machine.
    pub token_endpoint: String,
    /// The identifier with which Trunkline is registered there, if it needs one.
    pub client_id: Option<String>,
    /// The secret that belongs to that identifier.
    pub client_secret: Option<Secret>,
}

/// How access tokens are bound to a key that the gateway makes (RFC 9449).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dpop {
    /// They are bearer tokens.
    #[default]
    Off,
    /// Each request carries a proof.
    On,
}

/// The methods of client authentication at a token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenEndpointAuthMethod {
    /// Identifier and secret in the `Authorization` header.
    ClientSecretBasic,
    /// Identifier and secret in the body.
    ClientSecretPost,
    /// An assertion that the client signs (RFC 7523, section 2.2).
    PrivateKeyJwt,
    /// The identifier alone.
    None,
}

impl TokenEndpointAuthMethod {
    /// Every method.
    pub const ALL: [TokenEndpointAuthMethod; 4] =
        [Self::ClientSecretBasic, Self::ClientSecretPost, Self::PrivateKeyJwt, Self::None];

    /// The word of the configuration, and of the authorization server's metadata.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretPost => "client_secret_post",
            Self::PrivateKeyJwt => "private_key_jwt",
            Self::None => "none",
        }
    }
}
