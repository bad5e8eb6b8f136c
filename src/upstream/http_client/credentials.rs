//! What requests to a server with OAuth carry, and what is done where the server refuses that.

use std::sync::Arc;

use ureq::http::{HeaderMap, Method, Uri};

use super::HttpResponse;
use crate::upstream::failure::Failure;
use crate::wait::Wait;

/// An access token that a request carries, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenNumber(pub(crate) u64);

/// What a refused request is sent again for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Demand {
    /// The proof must have another nonce, which is known by now.
    Nonce,
    /// There must be an access token, or another one than the request has.
    Token,
    /// The access token must be good for more scopes.
    Scopes(String),
}

/// The credentials of all requests to one server.
pub(crate) trait RequestCredentials: Send + Sync {
    /// The access token for the next request. None while it is not known that one is needed.
    ///
    /// # Errors
    /// There is none, or the wait ended first.
    fn token(&self, wait: &Arc<Wait>) -> Result<Option<TokenNumber>, Failure>;

    /// Writes that token into the headers of a request, with a proof where it is bound to a key.
    ///
    /// # Errors
    /// The proof cannot be made.
    fn write(
        &self,
        token: TokenNumber,
        method: &Method,
        uri: &Uri,
        headers: &mut HeaderMap,
    ) -> Result<(), Failure>;

    /// What an answer demands before the request is sent again; none if it is the answer.
    fn demand(&self, token: Option<TokenNumber>, answer: &HttpResponse<'_>) -> Option<Demand>;

    /// Has what was demanded, or waits until somebody else has had it.
    ///
    /// # Errors
    /// It cannot be had, or the wait ended first.
    fn satisfy(
        &self,
        demand: &Demand,
        token: Option<TokenNumber>,
        wait: &Arc<Wait>,
    ) -> Result<(), Failure>;
}
