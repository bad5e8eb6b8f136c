//! Pure: requests to a token endpoint, and their answers (RFC 6749 section 5, RFC 7523, RFC 8693).

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use super::fetch::FetchAnswer;
use super::form::Form;
use super::json_document::JsonDocument;
use super::scope::Scopes;
use super::unusable::{Unusable, plain, shown};
use crate::limits::{ACCESS_TOKEN_LIFE_MAX, OAUTH_TEXT_BYTES_MAX, OAUTH_TOKEN_BYTES_MAX};
use crate::secret::Secret;

/// The token type of an ID-JAG (Identity Assertion JWT Authorization Grant).
const ID_JAG: &str = "urn:ietf:params:oauth:token-type:id-jag";

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

/// The grant of a token request.
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

/// The values of `grant_type` by which this OAuth client asks for access tokens.
pub mod grant_type {
    /// RFC 6749, section 4.1.3.
    pub const AUTHORIZATION_CODE: &str = "authorization_code";
    /// RFC 6749, section 6.
    pub const REFRESH_TOKEN: &str = "refresh_token";
    /// RFC 6749, section 4.4.2.
    pub const CLIENT_CREDENTIALS: &str = "client_credentials";
    /// RFC 7523, section 2.1.
    pub const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
}

impl Grant<'_> {
    /// The fields of the request, without those that authenticate the OAuth client. `scope` is
    /// left out where a code is redeemed, because the code has its scopes (RFC 6749 section
    /// 4.1.3).
    pub fn form(&self, resource: Option<&str>, scopes: &Scopes) -> Form {
        let mut form = Form::new();
        let mut scope = scopes.parameter();
        match *self {
            Self::AuthorizationCode { code, redirect_uri, verifier } => {
                form.push("grant_type", grant_type::AUTHORIZATION_CODE);
                form.push("code", code.expose());
                form.push("redirect_uri", redirect_uri);
                form.push("code_verifier", verifier.expose());
                scope = None;
            }
            Self::RefreshToken(token) => {
                form.push("grant_type", grant_type::REFRESH_TOKEN);
                form.push("refresh_token", token.expose());
            }
            Self::ClientCredentials => {
                form.push("grant_type", grant_type::CLIENT_CREDENTIALS);
            }
            Self::JwtBearer { assertion } => {
                form.push("grant_type", grant_type::JWT_BEARER);
                form.push("assertion", assertion.expose());
            }
            Self::IdJag { id_token, audience } => {
                form.push("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange");
                form.push("requested_token_type", ID_JAG);
                form.push("audience", audience);
                form.push("subject_token", id_token.expose());
                form.push("subject_token_type", "urn:ietf:params:oauth:token-type:id_token");
            }
        }
        form.push_some("resource", resource);
        form.push_some("scope", scope.as_deref());
        form
    }
}

/// A successful answer of a token endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenAnswer {
    /// `access_token`.
    pub access_token: Secret,
    /// `token_type`; `Bearer` where it is absent.
    pub token_type: TokenType,
    /// `expires_in`, at most [`ACCESS_TOKEN_LIFE_MAX`]. A value that is no number counts as
    /// absent.
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
    /// The kind, from which the way on follows.
    pub kind: TokenErrorKind,
    /// The words of the authorization server, in plain text without control characters.
    pub text: String,
}

/// The errors of a token endpoint, by the way on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenErrorKind {
    /// `invalid_grant`: the code, the refresh token or the assertion is used up; sign in anew.
    InvalidGrant,
    /// `invalid_client`: the registration does not count any more; register anew.
    InvalidClient,
    /// `unauthorized_client` or `unsupported_grant_type`: another grant or registration.
    UnauthorizedClient,
    /// `access_denied`, or one of those by which OpenID Connect Core, section 3.1.2.6, asks for the
    /// person: the same may be granted once somebody has signed in.
    WantsPerson,
    /// `invalid_scope`: ask for others.
    InvalidScope,
    /// `invalid_target`: the resource is not one for which this server gives tokens (RFC 8707).
    InvalidTarget,
    /// `use_dpop_nonce`: once more, with the nonce of the answer (RFC 9449 section 8).
    UseDpopNonce,
    /// Another error that comes again if the same is asked again.
    Refused,
    /// The authorization server is not well for the moment: see [`FetchAnswer::is_unavailable`],
    /// `temporarily_unavailable` or `server_error`.
    Unavailable,
    /// An answer that is none: no JSON, no token, the wrong type.
    Unreadable,
}

impl TokenErrorKind {
    fn parse(error: &str) -> Option<TokenErrorKind> {
        Some(match error {
            // The others are not registered, and some authorization servers have them.
            "invalid_grant"
            | "bad_refresh_token"
            | "invalid_refresh_token"
            | "expired_token" => Self::InvalidGrant,
            "invalid_client" => Self::InvalidClient,
            "unauthorized_client" | "unsupported_grant_type" => Self::UnauthorizedClient,
            "access_denied"
            | "consent_required"
            | "interaction_required"
            | "login_required" => Self::WantsPerson,
            "invalid_scope" => Self::InvalidScope,
            "invalid_target" => Self::InvalidTarget,
            "use_dpop_nonce" => Self::UseDpopNonce,
            "temporarily_unavailable" | "server_error" | "slow_down" => Self::Unavailable,
            _ => return None,
        })
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for TokenError {}

impl From<Unusable> for TokenError {
    fn from(why: Unusable) -> TokenError {
        let text = format!("the answer of the token endpoint is unusable: {why}");
        TokenError { kind: TokenErrorKind::Unreadable, text }
    }
}

impl TokenAnswer {
    /// Reads the answer of a token endpoint.
    ///
    /// # Errors
    /// If it is an error or unreadable.
    pub fn read(answer: &FetchAnswer) -> Result<TokenAnswer, TokenError> {
        let document = successful(answer)?;
        let access_token = needed_token(&document, "access_token")?;
        let token_type = match document.text("token_type", OAUTH_TEXT_BYTES_MAX)? {
            None | Some("") => TokenType::Bearer,
            Some(name) => TokenType::parse(name)
                .ok_or_else(|| Unusable::new(format!("its token_type is {}", shown(name))))?,
        };
        let scope = document.text("scope", OAUTH_TOKEN_BYTES_MAX).unwrap_or_default();
        Ok(TokenAnswer {
            access_token,
            token_type,
            expires_in: document.value("expires_in").and_then(seconds),
            scopes: scope.map(Scopes::parse).filter(|scopes| !scopes.is_empty()),
            refresh_token: token(&document, "refresh_token")?,
            id_token: token(&document, "id_token")?,
        })
    }
}

/// Reads the answer of an identity provider to [`Grant::IdJag`]: the ID-JAG, which is the
/// `assertion` of the request that follows.
///
/// # Errors
/// If it is an error, or if the token is of another type.
pub fn read_id_jag(answer: &FetchAnswer) -> Result<Secret, TokenError> {
    let document = successful(answer)?;
    let issued = document.text("issued_token_type", OAUTH_TEXT_BYTES_MAX)?;
    if issued != Some(ID_JAG) {
        let issued = shown(issued.unwrap_or_default());
        let what = format!("its issued_token_type is {issued}, not that of an ID-JAG");
        return Err(Unusable::new(what).into());
    }
    needed_token(&document, "access_token").map_err(TokenError::from)
}

/// The document of an answer that is no error.
fn successful(answer: &FetchAnswer) -> Result<JsonDocument, TokenError> {
    let document = answer.document();
    // Some servers send their errors with 200.
    let error = document.as_ref().ok().and_then(|it| it.value("error")).and_then(Value::as_str);
    if let Some(error) = error.filter(|error| !error.is_empty()) {
        let otherwise = if answer.is_unavailable() {
            TokenErrorKind::Unavailable
        } else {
            TokenErrorKind::Refused
        };
        let described = document.as_ref().ok().and_then(|it| it.value("error_description"));
        let text = match described.and_then(Value::as_str) {
            None | Some("") => plain(error),
            Some(description) => format!("{}: {}", plain(error), plain(description)),
        };
        return Err(TokenError {
            kind: TokenErrorKind::parse(error).unwrap_or(otherwise),
            text,
        });
    }
    if answer.is_success() {
        return document.map_err(TokenError::from);
    }
    let kind = if answer.is_unavailable() {
        TokenErrorKind::Unavailable
    } else {
        TokenErrorKind::Refused
    };
    let status = answer.status;
    Err(TokenError { kind, text: format!("the token endpoint answers HTTP {status}") })
}

fn needed_token(document: &JsonDocument, name: &str) -> Result<Secret, Unusable> {
    let found = token(document, name)?;
    found.ok_or_else(|| Unusable::new(format!("it has no {name}")))
}

/// A token as RFC 6749 appendix A.12 has it, which may therefore stand in a header.
fn token(document: &JsonDocument, name: &str) -> Result<Option<Secret>, Unusable> {
    match document.text(name, OAUTH_TOKEN_BYTES_MAX)? {
        None | Some("") => Ok(None),
        Some(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(Some(Secret::new(text.to_owned())))
        }
        Some(_) => Err(Unusable::new(format!("{name} has characters that no header can have"))),
    }
}

/// Seconds as a number, or as a text with one as some servers have it.
fn seconds(value: &Value) -> Option<Duration> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }?;
    // Not a number, or below zero: over already.
    let seconds = number.max(0.0).min(ACCESS_TOKEN_LIFE_MAX.as_secs_f64());
    Duration::try_from_secs_f64(seconds).ok()
}

/// The fields of a revocation request (RFC 7009 section 2.1), without those that authenticate the
/// OAuth client.
pub fn revocation_form(token: &Secret, revoked: RevokedToken) -> Form {
    let mut form = Form::new();
    form.push("token", token.expose());
    form.push(
        "token_type_hint",
        match revoked {
            RevokedToken::Refresh => "refresh_token",
            RevokedToken::Access => "access_token",
        },
    );
    form
}

/// The error in the answer to a revocation (RFC 7009 section 2.2.1), as a text for people; none if it
/// names none.
pub fn revocation_error(answer: &FetchAnswer) -> Option<String> {
    let document = answer.document().ok()?;
    let error = document.value("error").and_then(Value::as_str).filter(|it| !it.is_empty())?;
    Some(match error {
        "unsupported_token_type" => {
            format!("{error}: such tokens cannot be revoked")
        }
        _ => plain(error),
    })
}

/// The token that is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevokedToken {
    /// A refresh token, and with it the access tokens of its grant.
    Refresh,
    /// An access token.
    Access,
}

/// Checks that a text that somebody wrote into a file can be an assertion: three parts of
/// base64url.
///
/// # Errors
/// Says why the text is none.
pub fn check_assertion(text: &str) -> Result<(), Unusable> {
    if text.len() > OAUTH_TOKEN_BYTES_MAX {
        let what = format!("the assertion has over {OAUTH_TOKEN_BYTES_MAX} bytes");
        return Err(Unusable::new(what));
    }
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(is_digit);
    if text.split('.').count() == 3 && text.split('.').all(is_part) {
        return Ok(());
    }
    Err(Unusable::new(
        "the assertion is no JWT: three parts of base64url with dots between them",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    fn answer(status: u16, body: &str) -> FetchAnswer {
        FetchAnswer { status, body: body.as_bytes().to_vec(), ..FetchAnswer::default() }
    }

    #[test]
    fn every_grant_has_its_fields() {
        let (code, verifier, token) = (secret("c&d"), secret("v"), secret("a.b.c"));
        let scopes = Scopes::parse("x y");
        let of = |grant: Grant<'_>| grant.form(Some("https://m/mcp"), &scopes).query();
        let code = Grant::AuthorizationCode {
            code: &code,
            redirect_uri: "http://l/cb",
            verifier: &verifier,
        };
        assert_eq!(
            of(code),
            "grant_type=authorization_code&code=c%26d&redirect_uri=http%3A%2F%2Fl%2Fcb\
             &code_verifier=v&resource=https%3A%2F%2Fm%2Fmcp"
        );
        assert_eq!(
            of(Grant::RefreshToken(&token)),
            "grant_type=refresh_token&refresh_token=a.b.c&resource=https%3A%2F%2Fm%2Fmcp&scope=x+y"
        );
        assert_eq!(
            Grant::ClientCredentials.form(None, &Scopes::default()).query(),
            "grant_type=client_credentials"
        );
        assert_eq!(
            of(Grant::JwtBearer { assertion: &token }),
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=a.b.c\
             &resource=https%3A%2F%2Fm%2Fmcp&scope=x+y"
        );
        assert_eq!(
            of(Grant::IdJag { id_token: &token, audience: "https://as" }),
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange\
             &requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aid-jag\
             &audience=https%3A%2F%2Fas&subject_token=a.b.c\
             &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aid_token\
             &resource=https%3A%2F%2Fm%2Fmcp&scope=x+y"
        );
        assert_eq!(
            revocation_form(&token, RevokedToken::Refresh).query(),
            "token=a.b.c&token_type_hint=refresh_token"
        );
        assert!(!format!("{code:?}").contains("c&d"));
    }

    #[test]
    fn a_token_is_read_in_the_forms_that_servers_send() {
        let json = r#"{"access_token":"sekrit","token_type":"bearer","expires_in":3600,
            "scope":"a b","refresh_token":"sekrit2","id_token":"x.y.z","other":[1]}"#;
        let read = TokenAnswer::read(&answer(200, json)).unwrap();
        assert_eq!(read.access_token.expose(), "sekrit");
        assert_eq!(read.token_type, TokenType::Bearer);
        assert_eq!(read.expires_in, Some(Duration::from_secs(3600)));
        assert_eq!(read.scopes, Some(Scopes::parse("a b")));
        assert_eq!(read.refresh_token.as_ref().unwrap().expose(), "sekrit2");
        assert!(!format!("{read:?}").contains("sekrit"));
        let of = |members: &str| {
            let json = format!(r#"{{"access_token":"t"{members}}}"#);
            TokenAnswer::read(&answer(200, &json)).unwrap()
        };
        assert_eq!(of("").token_type, TokenType::Bearer);
        assert_eq!(of(r#","token_type":"dpop""#).token_type, TokenType::DPoP);
        assert_eq!(of(r#","refresh_token":"","scope":"""#).refresh_token, None);
        assert_eq!(of(r#","scope":["a"]"#).scopes, None);
        for (value, expected) in [
            ("3600", Some(3600)),
            ("\"3600\"", Some(3600)),
            ("3600.0", Some(3600)),
            ("0", Some(0)),
            ("-5", Some(0)),
            ("1e300", Some(ACCESS_TOKEN_LIFE_MAX.as_secs())),
            ("99999999999999999999", Some(ACCESS_TOKEN_LIFE_MAX.as_secs())),
            ("\"soon\"", None),
            ("null", None),
            ("[]", None),
        ] {
            let read = of(&format!(r#","expires_in":{value}"#)).expires_in;
            assert_eq!(read, expected.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn an_error_says_what_follows_from_it() {
        use TokenErrorKind as Kind;
        for (status, body, kind, text) in [
            (400, r#"{"error":"invalid_grant"}"#, Kind::InvalidGrant, "invalid_grant"),
            (500, r#"{"error":"invalid_grant"}"#, Kind::InvalidGrant, "invalid_grant"),
            (
                200,
                r#"{"error":"invalid_client","error_description":"no\u001b[1m"}"#,
                Kind::InvalidClient,
                "invalid_client: no [1m",
            ),
            (400, r#"{"error":"use_dpop_nonce"}"#, Kind::UseDpopNonce, "use_dpop_nonce"),
            (400, r#"{"error":"invalid_target"}"#, Kind::InvalidTarget, "invalid_target"),
            (400, r#"{"error":"odd"}"#, Kind::Refused, "odd"),
            (503, r#"{"error":"odd"}"#, Kind::Unavailable, "odd"),
            (400, r#"{"error":"slow_down"}"#, Kind::Unavailable, "slow_down"),
            (503, "<html>", Kind::Unavailable, "the token endpoint answers HTTP 503"),
            (429, "", Kind::Unavailable, "the token endpoint answers HTTP 429"),
            (404, "", Kind::Refused, "the token endpoint answers HTTP 404"),
            (302, "", Kind::Refused, "the token endpoint answers HTTP 302"),
        ] {
            let error = TokenAnswer::read(&answer(status, body)).unwrap_err();
            assert_eq!((error.kind, error.text.as_str()), (kind, text), "{status} {body}");
        }
    }

    #[test]
    fn what_is_no_token_is_not_used() {
        let long = format!(r#"{{"access_token":"{}"}}"#, "x".repeat(OAUTH_TOKEN_BYTES_MAX + 1));
        for body in [
            "",
            "[]",
            "{}",
            r#"{"access_token":""}"#,
            r#"{"access_token":null}"#,
            r#"{"access_token":7}"#,
            r#"{"access_token":"a b"}"#,
            r#"{"access_token":"a\r\nX-Evil: 1"}"#,
            r#"{"access_token":"é"}"#,
            r#"{"access_token":"a","access_token":"b"}"#,
            r#"{"access_token":"t","token_type":"mac"}"#,
            r#"{"access_token":"t","token_type":1}"#,
            r#"{"access_token":"t","refresh_token":{}}"#,
            &long,
        ] {
            let error = TokenAnswer::read(&answer(200, body)).unwrap_err();
            assert_eq!(error.kind, TokenErrorKind::Unreadable, "{body:.60}");
        }
    }

    #[test]
    fn a_token_s_answer_that_is_cut_anywhere_is_unreadable() {
        let whole = r#"{"access_token":"t","token_type":"Bearer","expires_in":1}"#;
        for at in 0..whole.len() {
            let error = TokenAnswer::read(&answer(200, &whole[..at])).unwrap_err();
            assert_eq!(error.kind, TokenErrorKind::Unreadable, "{at}");
        }
    }

    #[test]
    fn an_id_jag_is_of_its_own_type() {
        let with = |kind: &str| {
            let json = format!(
                r#"{{"access_token":"a.b.c","issued_token_type":"{kind}","token_type":"N_A"}}"#
            );
            read_id_jag(&answer(200, &json)).map(|it| it.expose().to_owned())
        };
        assert_eq!(with(ID_JAG).as_deref(), Ok("a.b.c"));
        assert!(with("urn:ietf:params:oauth:token-type:access_token").is_err());
        assert!(read_id_jag(&answer(200, r#"{"access_token":"a.b.c"}"#)).is_err());
        let refused = read_id_jag(&answer(400, r#"{"error":"invalid_grant"}"#)).unwrap_err();
        assert_eq!(refused.kind, TokenErrorKind::InvalidGrant);
    }

    #[test]
    fn an_assertion_has_three_parts() {
        assert!(check_assertion("a-_.b.c").is_ok());
        for text in ["", "a.b", "a.b.c.d", "a..c", "a.b.c\n", "a.b.c=", "-----BEGIN"] {
            assert!(check_assertion(text).is_err(), "{text}");
        }
    }
}
