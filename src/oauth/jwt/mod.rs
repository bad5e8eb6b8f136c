//! Pure: access tokens that are signed texts (JWT, RFC 7519; RFC 9068), verified as RFC 8725 advises.
//!
//! The order is that of the costs: what the token says of itself is held against what is wanted
//! first, then its signature is checked. Nothing that it says is used before.

use super::jwk::{JwkSet, Thumbprint};
use super::jws::{Jws, UnusableJws, told};
use crate::limits::{
    ACCESS_TOKEN_BYTES_MAX, OAUTH_LIST_ELEMENTS_MAX, SUBJECT_BYTES_MAX, TOKEN_LEEWAY,
    TOKEN_SCOPES_MAX,
};
use crate::protocol::raw::{self, RawObject};

/// Seconds since the epoch beyond which a time in a token is nonsense.
const TIME_MAX: f64 = 9e15;

/// What is wrong with a token. `Display` is for operators; [`WrongToken::description`] is for the
/// client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WrongToken {
    /// It is no JWS, and nothing else that is taken.
    Form(UnusableJws),
    /// `typ` says that it is another kind of token (RFC 8725, section 3.11).
    Type(String),
    /// It is an ID token, or a token about logging out: made for the OAuth client, not for a
    /// resource server.
    NotAnAccessToken,
    /// A claim is missing.
    Missing(&'static str),
    /// A claim is no value of its type, or too long.
    Claim(&'static str),
    /// It has no `sub`, and its OAuth client, which is told, is none of those that get tokens for
    /// themselves alone: if the client were the subject, all people who use it would be one.
    NoSubject(String),
    /// It has no `sub` and its OAuth client gets tokens for itself alone, and yet this claim tells
    /// of a person.
    OfPerson(&'static str),
    /// This claim is not what its issuer says when it is asked about the token.
    Contradiction(&'static str),
    /// It is of an issuer that is not configured.
    Issuer(String),
    /// It is for another audience.
    Audience,
    /// `exp` is past.
    Expired,
    /// `nbf` is to come.
    NotYet,
    /// `iat` is to come.
    FromTheFuture,
    /// The issuer has no key of that id and kind.
    UnknownKey(Option<String>),
    /// The signature is not by the issuer's key.
    Signature,
    /// It is bound to its client by a way that cannot be checked here (RFC 7800), such as a
    /// certificate of TLS.
    Confirmation,
    /// Its issuer says that it is not active (RFC 7662).
    Inactive,
}

impl WrongToken {
    /// The text for the client.
    pub fn description(&self) -> &'static str {
        match self {
            Self::Form(_) => "the token has no form that is accepted",
            Self::Type(_) | Self::NotAnAccessToken => "the token is no access token",
            Self::Missing(_) => "a claim of the token is missing",
            Self::Claim(_) => "a claim of the token is malformed",
            Self::NoSubject(_) | Self::OfPerson(_) => {
                "the token has no subject, which would say whose it is"
            }
            Self::Contradiction(_) => "the issuer of the token says something else of it",
            Self::Issuer(_) => "the issuer of the token is not accepted",
            Self::Audience => "the token is for another audience",
            Self::Expired => "the token has expired",
            Self::NotYet | Self::FromTheFuture => "the token is not valid yet",
            Self::UnknownKey(_) => "the key that signed the token is not known",
            Self::Signature => "the signature of the token is wrong",
            Self::Confirmation => "the token is bound in a way that is not supported",
            Self::Inactive => "the token is not active",
        }
    }
}

impl std::fmt::Display for WrongToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Form(form) => write!(f, "the token cannot be read: {form}"),
            Self::Type(typ) => write!(f, "the token has the type {typ:?}, not at+jwt or JWT"),
            Self::Missing(claim) => write!(f, "the token has no {claim:?}"),
            Self::Claim(claim) => write!(f, "{claim:?} of the token is malformed"),
            Self::NoSubject(client) => write!(
                f,
                "the token has no \"sub\", by which the users of its OAuth client {client:?} are \
                 told apart; a client that has no users belongs among \"machine_clients\""
            ),
            Self::OfPerson(claim) => write!(
                f,
                "the token has no \"sub\", and {claim:?} tells of a person, though its OAuth \
                 client is one of \"machine_clients\""
            ),
            Self::Contradiction(claim) => {
                write!(f, "{claim:?} of the token is not what its issuer says of it")
            }
            Self::Issuer(issuer) => write!(f, "no issuer {issuer:?} is configured"),
            Self::UnknownKey(Some(kid)) => {
                write!(f, "its issuer has no key {kid:?} for the token's algorithm")
            }
            Self::UnknownKey(None) => {
                f.write_str("the token names no key, and its issuer has none for its algorithm")
            }
            Self::NotAnAccessToken
            | Self::Audience
            | Self::Expired
            | Self::NotYet
            | Self::FromTheFuture
            | Self::Signature
            | Self::Confirmation
            | Self::Inactive => f.write_str(self.description()),
        }
    }
}

/// The issuer and the audience that a token must have.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Compared exactly (RFC 8725, section 3.8).
    pub issuer: &'a str,
    /// One of `aud` must be equal, and the token is good for everything.
    pub audience: &'a str,
    /// The URL below which all resources are the resource server's own: one of `aud` may be one
    /// of them instead, and the token is good for that alone. Where it ends with a slash, the URL
    /// itself is none of them.
    pub base: Option<&'a str>,
    /// The OAuth clients that get tokens for themselves alone: one of them is the subject of a
    /// token that has none.
    pub machine_clients: &'a [String],
}

/// Who a token is about. A user and an OAuth client are never the same, even where their texts are:
/// whoever can register clients chooses their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// `sub`.
    User(String),
    /// The OAuth client itself, of a token without `sub` that is nobody else's.
    Client(String),
}

/// The claims of a token that matter here. They are true if the token was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Who it is about.
    pub subject: Subject,
    /// The end of the token, in seconds since the epoch.
    pub expires_at: u64,
    /// The scopes, from `scope` or `scp`.
    pub scopes: Vec<String>,
    /// The thumbprint of the client's key to which the token is bound (RFC 9449, section 6).
    pub bound_to: Option<Thumbprint>,
    /// The resources that the token is for; empty if it is for all.
    pub resources: Vec<String>,
    /// All claims, a JSON object's text.
    pub text: String,
}

/// A JWT that was read, and not verified.
#[derive(Debug)]
pub struct Unverified<'a> {
    jws: Jws<'a>,
    issuer: String,
}

impl<'a> Unverified<'a> {
    /// Reads a token as far as its issuer, which says by whose keys it is to be verified.
    ///
    /// # Errors
    /// It is no access token of any issuer.
    pub fn read(token: &'a str) -> Result<Unverified<'a>, WrongToken> {
        let jws = Jws::parse(token, ACCESS_TOKEN_BYTES_MAX).map_err(WrongToken::Form)?;
        // RFC 9068, section 2.1. Many issuers write JWT, or nothing.
        match jws.typ.as_deref() {
            None | Some("at+jwt" | "jwt") => (),
            Some(other) => return Err(WrongToken::Type(told(other))),
        }
        let claims = object(&jws.payload)?;
        let issuer = text(&claims, "iss")?.ok_or(WrongToken::Missing("iss"))?;
        Ok(Unverified { jws, issuer })
    }

    /// `iss`.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The id of the key that the token names.
    pub fn kid(&self) -> Option<&str> {
        self.jws.kid.as_deref()
    }

    /// Checks what the token says of itself, without its signature: whoever sees this only may
    /// refuse the token, but not accept it.
    ///
    /// # Errors
    /// It would not be accepted, whoever has signed it.
    pub fn check(&self, wanted: Wanted<'_>, now: u64) -> Result<Claims, WrongToken> {
        if self.issuer != wanted.issuer {
            return Err(WrongToken::Issuer(told(&self.issuer)));
        }
        let claims = object(&self.jws.payload)?;
        if is_for_clients(&claims) {
            return Err(WrongToken::NotAnAccessToken);
        }
        read_claims(&claims, &self.jws.payload, wanted, now)
    }

    /// Checks the signature, and returns the thumbprint of the key that has signed.
    ///
    /// # Errors
    /// No key fits, or the signature is by none of them.
    pub fn signed_by(&self, keys: &JwkSet) -> Result<Thumbprint, WrongToken> {
        let Jws { signed, algorithm, signature, .. } = &self.jws;
        let mut is_known = false;
        for key in keys.candidates(self.kid(), *algorithm) {
            is_known = true;
            if key.verifies(*algorithm, signed.as_bytes(), signature) {
                return Ok(key.thumbprint());
            }
        }
        if is_known {
            return Err(WrongToken::Signature);
        }
        Err(WrongToken::UnknownKey(self.kid().map(told)))
    }
}

/// Reads the claims of a token, or the members of the answer of an introspection, which have the
/// same names and meanings (RFC 7662, section 2.2).
pub(super) fn read_claims(
    claims: &RawObject<'_>,
    whole: &str,
    wanted: Wanted<'_>,
    now: u64,
) -> Result<Claims, WrongToken> {
    let resources = resources(claims, wanted)?;
    let leeway = TOKEN_LEEWAY.as_secs();
    let expires_at = time(claims, "exp")?.ok_or(WrongToken::Missing("exp"))?;
    if now >= expires_at.saturating_add(leeway) {
        return Err(WrongToken::Expired);
    }
    let is_to_come = |at: Option<u64>| at.is_some_and(|at| at > now.saturating_add(leeway));
    if is_to_come(time(claims, "nbf")?) {
        return Err(WrongToken::NotYet);
    }
    if is_to_come(time(claims, "iat")?) {
        return Err(WrongToken::FromTheFuture);
    }
    Ok(Claims {
        subject: subject(claims, wanted.machine_clients)?,
        expires_at,
        scopes: scopes(claims)?,
        bound_to: bound_to(claims)?,
        resources,
        text: whole.to_owned(),
    })
}

fn object(text: &str) -> Result<RawObject<'_>, WrongToken> {
    RawObject::parse(text)
        .map_err(|_| WrongToken::Form(UnusableJws::Malformed("its payload is no JSON object")))
}

/// A claim that must be a string; one that is `null` counts as absent.
fn text(claims: &RawObject<'_>, name: &'static str) -> Result<Option<String>, WrongToken> {
    if claims.get(name) == Some("null") {
        return Ok(None);
    }
    claims.string(name).map_err(|_| WrongToken::Claim(name))
}

/// A NumericDate (RFC 7519, section 2), in whole seconds.
fn time(claims: &RawObject<'_>, name: &'static str) -> Result<Option<u64>, WrongToken> {
    let Some(text) = claims.get(name).filter(|text| *text != "null") else { return Ok(None) };
    let wrong = WrongToken::Claim(name);
    if let Ok(whole) = text.parse() {
        return Ok(Some(whole));
    }
    let Ok(number) = serde_json::from_str::<f64>(text) else { return Err(wrong) };
    // The number is printed without its fraction and read back: without `as` there is no other
    // way.
    let whole = (0.0..TIME_MAX).contains(&number).then(|| format!("{:.0}", number.floor()));
    whole.and_then(|text| text.parse().ok()).map(Some).ok_or(wrong)
}

/// A claim that is a string or a list of strings.
fn texts(claims: &RawObject<'_>, name: &'static str) -> Result<Vec<String>, WrongToken> {
    let wrong = |_| WrongToken::Claim(name);
    match claims.get(name).filter(|text| *text != "null") {
        None => Ok(Vec::new()),
        Some(text) if text.starts_with('[') => {
            let elements = raw::elements(text).map_err(wrong)?;
            if elements.len() > OAUTH_LIST_ELEMENTS_MAX {
                return Err(WrongToken::Claim(name));
            }
            elements.into_iter().map(|it| serde_json::from_str(it).map_err(wrong)).collect()
        }
        Some(text) => Ok(vec![serde_json::from_str(text).map_err(wrong)?]),
    }
}

/// The resources of a token that is for some of the resource server's own (RFC 8707, section 2);
/// empty for a token that is for all of them.
fn resources(claims: &RawObject<'_>, wanted: Wanted<'_>) -> Result<Vec<String>, WrongToken> {
    let mut named = texts(claims, "aud")?;
    if named.iter().any(|it| is_same_audience(it, wanted.audience)) {
        return Ok(Vec::new());
    }
    let is_own = |it: &str, base: &str| {
        let is_base_itself = it.trim_end_matches('/') == base.trim_end_matches('/');
        is_at_or_below(it, base) && !(base.ends_with('/') && is_base_itself)
    };
    named.retain(|it| wanted.base.is_some_and(|base| is_own(it, base)));
    if named.is_empty() { Err(WrongToken::Audience) } else { Ok(named) }
}

/// True if a URL is another one, or has a path below it. Nothing is resolved: a URL with dots that
/// lead up, or with a query, is none of these.
pub fn is_at_or_below(url: &str, base: &str) -> bool {
    let base = base.strip_suffix('/').unwrap_or(base);
    let Some(rest) = url.strip_prefix(base) else { return false };
    let leads_up = rest.split('/').any(|part| matches!(part, "." | ".."));
    (rest.is_empty() || rest.starts_with('/')) && !leads_up && !rest.contains(['?', '#', '%'])
}

/// Texts are compared exactly. Only the address of a host alone is the same with and without its
/// slash (RFC 3986, section 6.2.3): clients differ in how they write it.
fn is_same_audience(one: &str, other: &str) -> bool {
    let of_host = |text: &str| {
        let bare = text.strip_suffix('/')?;
        let host = bare.split_once("://")?.1;
        (!host.is_empty() && !host.contains(['/', '?', '#'])).then(|| bare.to_owned())
    };
    one == other
        || of_host(one).is_some_and(|it| it == other)
        || of_host(other).is_some_and(|it| it == one)
}

/// Claims that only tokens of people have: names of the user, and facts of how the user signed in.
const CLAIMS_OF_PEOPLE: [&str; 10] = [
    "username",
    "preferred_username",
    "user_name",
    "unique_name",
    "upn",
    "email",
    "sid",
    "auth_time",
    "amr",
    "nonce",
];

/// The subject (RFC 7519, section 4.1.2). A JWT must have one, be it a client's own (RFC 9068,
/// section 2.2), and the answer of an introspection may have one (RFC 7662, section 2.2). Some
/// issuers leave it out where an OAuth client got the token for itself. Since others leave it out
/// for people, the client is the subject only where the configuration names it.
fn subject(claims: &RawObject<'_>, machine_clients: &[String]) -> Result<Subject, WrongToken> {
    let named = |name: &'static str| {
        let text = text(claims, name)?.filter(|text| !text.is_empty());
        if text.as_ref().is_some_and(|it| it.len() > SUBJECT_BYTES_MAX) {
            return Err(WrongToken::Claim(name));
        }
        Ok(text)
    };
    if let Some(subject) = named("sub")? {
        return Ok(Subject::User(subject));
    }
    let client = match named("client_id")? {
        Some(client) => Some(client),
        None => named("azp")?,
    };
    let client = client.ok_or(WrongToken::Missing("sub"))?;
    if !machine_clients.contains(&client) {
        return Err(WrongToken::NoSubject(told(&client)));
    }
    let own_name = raw::string(&client);
    let tells = |name: &&&str| {
        claims.get(name).is_some_and(|value| value != "null" && *value != own_name)
    };
    match CLAIMS_OF_PEOPLE.iter().find(tells) {
        Some(claim) => Err(WrongToken::OfPerson(claim)),
        None => Ok(Subject::Client(client)),
    }
}

/// The scopes: `scope` with spaces between them (RFC 8693, section 4.2), which some issuers write
/// as a list, and some of them as `scp`.
fn scopes(claims: &RawObject<'_>) -> Result<Vec<String>, WrongToken> {
    let mut scopes: Vec<String> = Vec::new();
    for name in ["scope", "scp"] {
        for text in texts(claims, name)? {
            let new = text.split(' ').filter(|scope| !scope.is_empty());
            for scope in new {
                if !scopes.iter().any(|it| it == scope) {
                    scopes.push(scope.to_owned());
                }
                if scopes.len() > TOKEN_SCOPES_MAX {
                    return Err(WrongToken::Claim(name));
                }
            }
        }
    }
    Ok(scopes)
}

/// The key to which the token is bound. Any other confirmation is one that nobody would check.
fn bound_to(claims: &RawObject<'_>) -> Result<Option<Thumbprint>, WrongToken> {
    let Some(text) = claims.get("cnf").filter(|text| *text != "null") else { return Ok(None) };
    let confirmation = RawObject::parse(text).map_err(|_| WrongToken::Claim("cnf"))?;
    if confirmation.iter().any(|(name, _)| name != "jkt") {
        return Err(WrongToken::Confirmation);
    }
    let thumbprint = confirmation.string("jkt").map_err(|_| WrongToken::Claim("cnf"))?;
    let thumbprint = thumbprint.ok_or(WrongToken::Confirmation)?;
    Thumbprint::parse(&thumbprint).map(Some).ok_or(WrongToken::Claim("cnf"))
}

/// True for a token that was made for an OAuth client. `at_hash` and `c_hash` stand in ID tokens
/// alone (OpenID Connect Core, section 3), `events` in logout tokens; Keycloak and Cognito say the
/// kind in a claim of their own.
pub(super) fn is_for_clients(claims: &RawObject<'_>) -> bool {
    let is = |name: &str, kinds: &[&str]| {
        let kind = claims.string(name).ok().flatten();
        kind.is_some_and(|kind| kinds.iter().any(|it| it.eq_ignore_ascii_case(&kind)))
    };
    ["at_hash", "c_hash", "events"].iter().any(|name| claims.get(name).is_some())
        || is("typ", &["id", "refresh", "offline", "logout"])
        || is("token_use", &["id"])
}

#[cfg(test)]
mod tests;
