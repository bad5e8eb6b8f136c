//! Pure: proofs that a request's sender has the key to which its token is bound (RFC 9449).

use ring::rand::SecureRandom;

use super::signing_key::{Algorithm, SigningKey};
use super::unusable::Unusable;
use super::web_url::WebUrl;
use crate::secret::Secret;

/// What a proof is about.
pub struct ProofRequest<'a> {
    /// `htm`: the method of the HTTP request.
    pub method: &'a str,
    /// `htu`: its URL; the query does not count.
    pub url: &'a WebUrl,
    /// `iat`: the time, in seconds since 1970.
    pub now: u64,
    /// `ath`: the access token that goes with it, none at the token endpoint.
    pub access_token: Option<&'a Secret>,
    /// `nonce`: the last one that this server gave.
    pub nonce: Option<&'a str>,
}

/// Makes a proof: the value of the `DPoP` header. Its `jti` is 16 random bytes.
///
/// # Errors
/// If the algorithm is not one of the key, or if there is no randomness.
pub fn proof(
    key: &SigningKey,
    algorithm: Algorithm,
    request: &ProofRequest<'_>,
    random: &dyn SecureRandom,
) -> Result<Secret, Unusable> {
    let _ = (key, algorithm, request, random);
    unimplemented!()
}
