//! `oauth`: the authorization servers whose access tokens clients may use, and the rights that the
//! tokens give.

use std::path::PathBuf;
use std::time::Duration;

use crate::protocol::server_name::ServerName;
use crate::secret::Secret;

/// `oauth`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthConfig {
    /// The authorization servers, in the order of the file. No two have the same issuer.
    pub issuers: Vec<IssuerConfig>,
    /// The rules, of which the first that matches counts.
    pub rules: Vec<RuleConfig>,
    /// The time for which keys may be used after they were read, while their issuer cannot be
    /// reached.
    pub jwks_max_age: Duration,
}

/// An authorization server whose access tokens clients may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerConfig {
    /// The issuer, exactly as tokens have it in `iss` (RFC 8414, section 2).
    pub issuer: String,
    /// The audience that a token must be for: the gateway's resource identifier.
    pub audience: String,
    /// The URL below which all resources are the gateway's: a token may be for one of them
    /// instead.
    pub base: Option<String>,
    /// The URL of the issuer's keys, where its metadata is not to be asked for it.
    pub jwks_uri: Option<String>,
    /// Certificates (PEM) that are trusted beside the public authorities when it is asked.
    pub ca_file: Option<PathBuf>,
    /// The OAuth clients that get tokens for themselves alone, and never for a person: their
    /// tokens need no subject.
    pub machine_clients: Vec<String>,
    /// The access to the issuer's introspection endpoint, where tokens are asked about there.
    pub introspection: Option<IntrospectionConfig>,
}

/// The access to an introspection endpoint (RFC 7662).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntrospectionConfig {
    /// The gateway's own client id at the issuer.
    pub client_id: String,
    /// The secret of that client.
    pub client_secret: Secret,
    /// The URL of the endpoint, where the issuer's metadata is not to be asked for it.
    pub endpoint: Option<String>,
    /// The tokens that are asked about.
    pub tokens: IntrospectedTokens,
}

/// The tokens of an issuer that are introspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntrospectedTokens {
    /// Those that are no JWT. A JWT is verified by the issuer's keys alone.
    Opaque,
    /// All: a JWT is introspected too, so that its revocation is noticed.
    All,
}

/// One rule: the tokens that it is about, and the rights of whoever comes with such a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleConfig {
    /// The claim that a token must have. A rule without one is about every token.
    pub claim: Option<ClaimConfig>,
    /// The servers that it allows; without a list, those of which it allows a tool. `*` in the
    /// file stands for the NAMEs of all servers.
    pub servers: Option<Vec<ServerName>>,
    /// Globs over tools, as in [`super::ApiKey::tools`]. Without a list, all tools.
    pub tools: Option<Vec<String>>,
    /// The calls that each user may make in a minute.
    pub calls_per_minute: Option<u32>,
    /// True if `/status` and `/readyz` tell such a user everything.
    pub admin: bool,
}

/// A claim that a rule wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimConfig {
    /// The claim's name. A name that no claim has is a path with dots into nested objects, such as
    /// `realm_access.roles`. `scope` and `scp` are both the scopes of the token, in whichever of
    /// the two claims its issuer has them.
    pub name: String,
    /// The values of which the token must have one.
    pub any: Vec<String>,
}
