//! Why a request with an access token is not served: what its client may be told, and what
//! operators are told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use crate::oauth::dpop_proof_check::WrongProof;
pub use crate::oauth::jwt::WrongToken;

use crate::oauth::token::TokenType;

/// A refusal. `Display` is for operators; [`Denied::error`] and [`Denied::description`] are for
/// the client. No text has the token, or a part of it but names of its claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// The token is not good.
    Token(WrongToken),
    /// The proof that the client has the key of its token is missing or not good.
    Proof(WrongProof),
    /// The token is good, and no rule gives rights to it.
    NoRule {
        /// The user's name for people.
        user: Arc<str>,
        /// The scopes of which one would give rights; empty where scopes would not help.
        scopes: Vec<Arc<str>>,
    },
    /// It cannot be told now, because the issuer cannot be asked.
    Unavailable {
        /// The issuer's name.
        issuer: Arc<str>,
        /// The cause, for operators.
        why: Arc<str>,
        /// The time after which the client may try again.
        retry_after: Duration,
    },
}

/// The error codes that clients are told (RFC 6750, section 3.1; RFC 9449, section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// 401: the token is expired, revoked, malformed or invalid for other reasons.
    InvalidToken,
    /// 401: the proof is.
    InvalidDpopProof,
    /// 403: the token does not give the rights that the request needs.
    InsufficientScope,
    /// 503: the issuer cannot be asked. It is no code of these RFCs and stands in the body alone.
    TemporarilyUnavailable,
}

impl ErrorCode {
    /// The code's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidToken => "invalid_token",
            Self::InvalidDpopProof => "invalid_dpop_proof",
            Self::InsufficientScope => "insufficient_scope",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
        }
    }
}

impl Denied {
    /// The code for the client.
    pub fn error(&self) -> ErrorCode {
        match self {
            Self::Token(_) => ErrorCode::InvalidToken,
            // RFC 9449, section 7.2: such a token is not valid with that scheme.
            Self::Proof(WrongProof::Scheme | WrongProof::NotBound) => ErrorCode::InvalidToken,
            Self::Proof(_) => ErrorCode::InvalidDpopProof,
            Self::NoRule { .. } => ErrorCode::InsufficientScope,
            Self::Unavailable { .. } => ErrorCode::TemporarilyUnavailable,
        }
    }

    /// The scheme of the challenge that answers a request whose token came with the scheme `used`:
    /// the one that is good for the token, where that is known.
    pub fn scheme(&self, used: TokenType) -> TokenType {
        match self {
            Self::Proof(WrongProof::NotBound) => TokenType::Bearer,
            Self::Proof(_) => TokenType::DPoP,
            Self::Token(_) | Self::NoRule { .. } | Self::Unavailable { .. } => used,
        }
    }

    /// The text for the client, good for `error_description`: it has neither quotes nor
    /// backslashes (RFC 6750, section 3).
    pub fn description(&self) -> &'static str {
        match self {
            Self::Token(wrong) => wrong.description(),
            Self::Proof(wrong) => wrong.description(),
            Self::NoRule { .. } => "no rule gives this user any rights",
            Self::Unavailable { .. } => "the issuer of the token cannot be asked at present",
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(wrong) => wrong.fmt(f),
            Self::Proof(wrong) => wrong.fmt(f),
            Self::NoRule { user, .. } => write!(f, "no rule of \"oauth\" matches {user}"),
            Self::Unavailable { issuer, why, .. } => write!(f, "{issuer}: {why}"),
        }
    }
}
