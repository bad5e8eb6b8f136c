//! Pure: identifiers and states of random bytes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SecureRandom;

use super::unusable::Unusable;

/// An identifier of 16 random bytes, in base64url.
///
/// # Errors
/// If there is no randomness.
pub fn random_id(random: &dyn SecureRandom) -> Result<String, Unusable> {
    random_bytes::<16>(random).map(|bytes| URL_SAFE_NO_PAD.encode(bytes))
}

/// Random bytes, for [`super::pkce::Pkce::from_random`] and for a state.
///
/// # Errors
/// If there is no randomness.
pub fn random_bytes<const N: usize>(random: &dyn SecureRandom) -> Result<[u8; N], Unusable> {
    let mut bytes = [0; N];
    random.fill(&mut bytes).map_err(|_| Unusable::new("the system gives no random bytes"))?;
    Ok(bytes)
}
