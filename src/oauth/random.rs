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
    let mut bytes = [0; 16];
    random.fill(&mut bytes).map_err(|_| Unusable::new("the system gives no random bytes"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
