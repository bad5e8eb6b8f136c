//! What a request says of itself to the verification: its token and the facts that a proof of
//! possession is about.

use std::net::IpAddr;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::oauth::token::TokenType;

/// An access token as a request carries it, and the request's own facts.
#[derive(Debug, Clone, Copy)]
pub struct Presented<'a> {
    /// The scheme of `Authorization`.
    pub scheme: TokenType,
    /// The token behind it.
    pub token: Token<'a>,
    /// The request's method.
    pub method: &'a str,
    /// The request's URL as its client has it: scheme, host and path, with or without a query. Host
    /// and scheme are those of the configuration, or of a `Host` that was checked: a proof is good
    /// at the URL that it was made for, and whoever got one elsewhere chooses `Host` freely. Nobody
    /// looks at it where the scheme is Bearer.
    pub url: &'a str,
    /// The values of all `DPoP` headers.
    pub proofs: &'a [&'a str],
    /// The client's address, by which the places of those who wait for an issuer are shared; none
    /// for a Unix socket.
    pub peer: Option<IpAddr>,
}

/// The text of an access token, which is never shown.
#[derive(Clone, Copy)]
pub struct Token<'a>(pub &'a str);

impl std::fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// The scheme and the token of an `Authorization` header; none for a scheme that carries no access
/// tokens.
pub fn token_in(value: &str) -> Option<(TokenType, Token<'_>)> {
    let (scheme, token) = value.trim().split_once(' ')?;
    Some((TokenType::parse(scheme)?, Token(token.trim())))
}

/// The present time, by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For times that the gateway keeps itself.
    pub instant: Instant,
    /// Seconds since the epoch, for times that tokens have.
    pub unix: u64,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Now { instant: Instant::now(), unix }
    }
}
