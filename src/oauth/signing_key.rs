//! Pure: private keys, and JSON Web Signatures with them (RFC 7515, RFC 7518, RFC 8037).

use std::fmt;

use ring::rand::SecureRandom;
use serde_json::{Map, Value};

use super::unusable::Unusable;

/// A private key: RSA of 2048 bits or more, P-256, or Ed25519.
pub struct SigningKey {
    _private: (),
}

/// Algorithms of signatures (RFC 7518 section 3.1, RFC 8037 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// All.
    pub const ALL: [Algorithm; 4] = [Self::Rs256, Self::Ps256, Self::Es256, Self::EdDsa];

    /// The registered name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of this registered name.
    pub fn parse(name: &str) -> Option<Algorithm> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }
}

impl SigningKey {
    /// Reads the first private key of a PEM text: PKCS#8, PKCS#1 (RSA) or SEC1 (P-256).
    ///
    /// # Errors
    /// If there is none, if it is encrypted, or if it is of another kind.
    pub fn from_pem(pem: &str) -> Result<SigningKey, Unusable> {
        let _ = pem;
        unimplemented!()
    }

    /// Makes a new P-256 key, as PKCS#8.
    ///
    /// # Errors
    /// If there is no randomness.
    pub fn generate(random: &dyn SecureRandom) -> Result<Vec<u8>, Unusable> {
        let _ = random;
        unimplemented!()
    }

    /// Reads a private key in PKCS#8 (DER).
    ///
    /// # Errors
    /// If it is none, or of another kind.
    pub fn from_pkcs8(der: &[u8]) -> Result<SigningKey, Unusable> {
        let _ = der;
        unimplemented!()
    }

    /// The algorithms of this key, the preferred one first.
    pub fn algorithms(&self) -> &'static [Algorithm] {
        unimplemented!()
    }

    /// The first algorithm of this key that is among the names of `supported`; the preferred one
    /// where that is absent.
    ///
    /// # Errors
    /// If none is.
    pub fn choose_algorithm(
        &self,
        supported: Option<&[String]>,
    ) -> Result<Algorithm, Unusable> {
        let _ = supported;
        unimplemented!()
    }

    /// The public key as a JWK (RFC 7517), without `kid`.
    pub fn public_jwk(&self) -> Map<String, Value> {
        unimplemented!()
    }

    /// The thumbprint of the public key, in base64url (RFC 7638). It is the `kid` of what this key
    /// signs where no other one is given.
    pub fn thumbprint(&self) -> String {
        unimplemented!()
    }

    /// Signs claims: the compact form of a JWS. `alg` is added to the header.
    ///
    /// # Errors
    /// If the algorithm is not one of this key, or if there is no randomness.
    pub fn sign(
        &self,
        algorithm: Algorithm,
        header: Map<String, Value>,
        claims: &Map<String, Value>,
        random: &dyn SecureRandom,
    ) -> Result<String, Unusable> {
        let _ = (algorithm, header, claims, random);
        unimplemented!()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[private key]")
    }
}
