//! Pure: Proof Key for Code Exchange (RFC 7636), with S256.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::secret::Secret;

/// A verifier, which is kept, and its challenge, which goes with the authorization request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pkce {
    /// `code_verifier`: 43 characters.
    pub verifier: Secret,
    /// `code_challenge` by the method S256.
    pub challenge: String,
}

impl Pkce {
    /// Makes both of 32 random bytes (RFC 7636 section 4.1).
    pub fn from_random(bytes: [u8; 32]) -> Pkce {
        let verifier = URL_SAFE_NO_PAD.encode(bytes);
        let challenge = challenge(&verifier);
        Pkce { verifier: Secret::new(verifier), challenge }
    }
}

/// The challenge of a verifier (RFC 7636 section 4.2).
pub fn challenge(verifier: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, verifier.as_bytes());
    URL_SAFE_NO_PAD.encode(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_7636_has_its_challenge() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(
            challenge(verifier),
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".to_owned()
        );
    }

    #[test]
    fn a_verifier_has_the_least_length_of_the_rfc_and_is_not_printed() {
        let pkce = Pkce::from_random([255; 32]);
        assert_eq!(pkce.verifier.expose().len(), 43);
        assert_eq!(pkce.challenge, challenge(pkce.verifier.expose()));
        assert!(!format!("{pkce:?}").contains(pkce.verifier.expose()));
    }
}
