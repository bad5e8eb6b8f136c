//! Reads `oauth` of one server: true, or an object.

use super::Placed;
use super::json::Json;
use super::reader::{Fields, Text};
use crate::config::TokenEndpointAuthMethod;

/// The keys of `oauth` of one server.
pub const OAUTH_KEYS: &[&str] = &[
    "grant",
    "client_id",
    "client_secret",
    "private_key_file",
    "assertion_file",
    "identity_provider",
    "client_metadata_url",
    "scopes",
    "token_endpoint_auth_method",
    "dpop",
];

/// The keys of `identity_provider` of `oauth`.
pub const IDENTITY_PROVIDER_KEYS: &[&str] = &["token_endpoint", "client_id", "client_secret"];

/// The word of `grant`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RawGrant {
    AuthorizationCode,
    ClientCredentials,
    JwtBearer,
}

/// `oauth` as it is written.
pub(crate) struct RawOAuth {
    pub(crate) at: String,
    /// The keys that are present, even with unusable values.
    pub(crate) given: Vec<&'static str>,
    pub(crate) grant: RawGrant,
    pub(crate) client_id: Option<Text>,
    pub(crate) client_secret: Option<Text>,
    pub(crate) private_key_file: Option<Text>,
    pub(crate) assertion_file: Option<Text>,
    pub(crate) identity_provider: Option<RawIdentityProvider>,
    pub(crate) client_metadata_url: Option<Text>,
    pub(crate) scopes: Option<Vec<Placed>>,
    pub(crate) method: Option<TokenEndpointAuthMethod>,
    pub(crate) dpop: bool,
}

/// `identity_provider` as it is written.
pub(crate) struct RawIdentityProvider {
    pub(crate) at: String,
    pub(crate) token_endpoint: Option<Text>,
    pub(crate) client_id: Option<Text>,
    pub(crate) client_secret: Option<Text>,
}

fn read_provider(oauth: &Fields<'_>) -> Option<RawIdentityProvider> {
    let fields = oauth.object("identity_provider", IDENTITY_PROVIDER_KEYS)?;
    if !fields.has("token_endpoint") {
        oauth.reader.problem(&fields.at, "has no \"token_endpoint\"");
    }
    Some(RawIdentityProvider {
        token_endpoint: fields.text("token_endpoint"),
        client_id: fields.text("client_id"),
        client_secret: fields.text("client_secret"),
        at: fields.at.clone(),
    })
}

/// Reads the value. None without it, and for `false`.
pub(super) fn read(server: &Fields<'_>) -> Option<RawOAuth> {
    let at = server.at("oauth");
    let fields = match server.get("oauth")? {
        Json::Bool(false) => return None,
        Json::Bool(true) => None,
        Json::Object(_) => Some(server.object("oauth", OAUTH_KEYS)?),
        other @ (Json::Null
        | Json::Whole(_)
        | Json::Number(_)
        | Json::Text(_)
        | Json::Array(_)) => {
            return server.reader.wrong(&at, "true, false or an object", other);
        }
    };
    let fields = fields.as_ref();
    let text = |key: &str| fields.and_then(|fields| fields.text(key));
    let grants = [
        ("authorization_code", RawGrant::AuthorizationCode),
        ("client_credentials", RawGrant::ClientCredentials),
        ("jwt_bearer", RawGrant::JwtBearer),
    ];
    // The registered names of the grants, which other programs write.
    let others = [
        ("urn:ietf:params:oauth:grant-type:jwt-bearer", RawGrant::JwtBearer),
        ("jwt-bearer", RawGrant::JwtBearer),
    ];
    let grant = fields.and_then(|it| it.choice_with_others("grant", &grants, &others));
    let methods = TokenEndpointAuthMethod::ALL.map(|method| (method.as_str(), method));
    let is_given = |key: &&'static str| fields.is_some_and(|fields| fields.has(key));
    Some(RawOAuth {
        given: OAUTH_KEYS.iter().copied().filter(is_given).collect(),
        grant: grant.unwrap_or(RawGrant::AuthorizationCode),
        client_id: text("client_id"),
        client_secret: text("client_secret"),
        private_key_file: text("private_key_file"),
        assertion_file: text("assertion_file"),
        identity_provider: fields.and_then(read_provider),
        client_metadata_url: text("client_metadata_url"),
        scopes: fields.and_then(|fields| fields.texts("scopes")),
        method: fields.and_then(|it| it.choice("token_endpoint_auth_method", &methods)),
        dpop: fields.is_some_and(|fields| fields.flag("dpop", false)),
        at,
    })
}
