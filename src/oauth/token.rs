//! Pure: requests to a token endpoint, and their answers (RFC 6749 section 5, RFC 7523, RFC 8693).

use std::fmt;
use std::time::Duration;

use super::fetch::FetchAnswer;
use super::form::Form;
use super::scope::Scopes;
use super::unusable::Unusable;
use crate::secret::Secret;

/// The type of an access token, which is the scheme of the `authorization` header too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenType {
    /// Whoever has it may use it (RFC 6750).
    Bearer,
    /// Bound to a key (RFC 9449).
    DPoP,
}

impl TokenType {
    /// The scheme in its usual case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bearer => "Bearer",
            Self::DPoP => "DPoP",
        }
    }

    /// The type of this name, in any case (RFC 6749 section 5.1).
    pub fn parse(name: &str) -> Option<TokenType> {
        [Self::Bearer, Self::DPoP].into_iter().find(|it| it.as_str().eq_ignore_ascii_case(name))
    }
}

/// What a token endpoint is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Grant<'a> {
    /// An authorization code (RFC 6749 section 4.1.3, RFC 7636 section 4.5).
    AuthorizationCode {
        /// `code`.
        code: &'a Secret,
        /// `redirect_uri`, the one of the authorization request.
        redirect_uri: &'a str,
        /// `code_verifier`.
        verifier: &'a Secret,
    },
    /// A refresh token (RFC 6749 section 6).
    RefreshToken(&'a Secret),
    /// The OAuth client's own credentials (RFC 6749 section 4.4).
    ClientCredentials,
    /// An assertion of who asks (RFC 7523 section 2.1): of a workload, or an ID-JAG.
    JwtBearer {
        /// `assertion`.
        assertion: &'a Secret,
    },
    /// An ID token for an ID-JAG (RFC 8693; enterprise-managed authorization). It is asked of the
    /// identity provider.
    IdJag {
        /// `subject_token`: the ID token.
        id_token: &'a Secret,
        /// `audience`: the issuer of the MCP server's authorization server.
        audience: &'a str,
    },
}

impl Grant<'_> {
    /// The fields of the request, without those that authenticate the OAuth client.
    pub fn form(&self, resource: Option<&str>, scopes: &Scopes) -> Form {
        let _ = (resource, scopes);
        unimplemented!()
    }
}

/// A successful answer of a token endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenAnswer {
    /// `access_token`.
    pub access_token: Secret,
    /// `token_type`.
    pub token_type: TokenType,
    /// `expires_in`, at most [`crate::limits::ACCESS_TOKEN_LIFE_MAX`].
    pub expires_in: Option<Duration>,
    /// `scope`; where it is absent, the requested scopes were granted (RFC 6749 section 5.1).
    pub scopes: Option<Scopes>,
    /// `refresh_token`; where it is absent in the answer to a refresh, the old one stays.
    pub refresh_token: Option<Secret>,
    /// `id_token` (OpenID Connect Core section 3.1.3.3).
    pub id_token: Option<Secret>,
}

/// Why a token endpoint gives no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenError {
    /// What follows from it.
    pub kind: TokenErrorKind,
    /// What the authorization server says, in plain text without control characters.
    pub text: String,
}

/// What follows from an error of a token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenErrorKind {
    /// `invalid_grant`: the code, the refresh token or the assertion is used up; sign in anew.
    InvalidGrant,
    /// `invalid_client`: the registration does not count any more; register anew.
    InvalidClient,
    /// `unauthorized_client` or `unsupported_grant_type`: another grant or registration.
    UnauthorizedClient,
    /// `invalid_scope`: ask for others.
    InvalidScope,
    /// `invalid_target`: the resource is not one for which this server gives tokens (RFC 8707).
    InvalidTarget,
    /// `use_dpop_nonce`: once more, with the nonce of the answer (RFC 9449 section 8).
    UseDpopNonce,
    /// Another error that comes again if the same is asked again.
    Refused,
    /// The authorization server is not well for the moment: a status from 500 on, 429,
    /// `temporarily_unavailable` or `server_error`.
    Unavailable,
    /// An answer that is none: no JSON, no token, the wrong type.
    Unreadable,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for TokenError {}

impl TokenAnswer {
    /// Reads the answer of a token endpoint.
    ///
    /// # Errors
    /// If it is an error or unreadable.
    pub fn read(answer: &FetchAnswer) -> Result<TokenAnswer, TokenError> {
        let _ = answer;
        unimplemented!()
    }
}

/// Reads the answer of an identity provider to [`Grant::IdJag`]: the ID-JAG, which is the
/// `assertion` of the request that follows.
///
/// # Errors
/// If it is an error, or if the token is of another type.
pub fn read_id_jag(answer: &FetchAnswer) -> Result<Secret, TokenError> {
    let _ = answer;
    unimplemented!()
}

/// The fields of a revocation request (RFC 7009 section 2.1), without those that authenticate the
/// OAuth client.
pub fn revocation_form(token: &Secret, hint: RevokedToken) -> Form {
    let _ = (token, hint);
    unimplemented!()
}

/// What is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevokedToken {
    /// A refresh token, and with it the access tokens of its grant.
    Refresh,
    /// An access token.
    Access,
}

/// Checks that a subject's own assertion can be one: three parts of base64url.
///
/// # Errors
/// Says why the text is none.
pub fn check_assertion(text: &str) -> Result<(), Unusable> {
    let _ = text;
    unimplemented!()
}
