//! Pure: keys of issuers and clients for tests, and what is signed with them.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};

use super::signing_key::Algorithm;

/// A key pair.
pub(crate) enum TestKey {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl TestKey {
    /// A new P-256 key.
    pub(crate) fn p256() -> TestKey {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key of a test");
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random)
            .expect("a key of a test");
        TestKey::P256(pair)
    }

    /// The Ed25519 key that these bytes are the seed of.
    pub(crate) fn ed25519(seed: u8) -> TestKey {
        TestKey::Ed25519(
            Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a key of a test"),
        )
    }

    /// The RSA key of the fixture, made with `openssl genpkey`.
    pub(crate) fn rsa() -> TestKey {
        let pem = include_str!("../../tests/library/rsa_test_key.pem");
        let lines = pem.lines().filter(|line| !line.starts_with('-'));
        let der = STANDARD.decode(lines.collect::<String>()).expect("a key of a test");
        TestKey::Rsa(RsaKeyPair::from_pkcs8(&der).expect("a key of a test"))
    }

    /// The members of the public key as a JWK, without braces.
    pub(crate) fn members(&self) -> String {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::P256(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                format!(r#""kty":"EC","crv":"P-256","x":"{}","y":"{}""#, encode(x), encode(y))
            }
            Self::Ed25519(pair) => {
                let x = encode(pair.public_key().as_ref());
                format!(r#""kty":"OKP","crv":"Ed25519","x":"{x}""#)
            }
            Self::Rsa(pair) => {
                let key = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public());
                let (n, e) = (encode(&key.n), encode(&key.e));
                format!(r#""kty":"RSA","n":"{n}","e":"{e}""#)
            }
        }
    }

    /// The public key as a JWK with that id.
    pub(crate) fn jwk(&self, kid: &str) -> String {
        format!(r#"{{{},"kid":"{kid}"}}"#, self.members())
    }

    /// The algorithm that goes with the key.
    pub(crate) fn algorithm(&self) -> Algorithm {
        match self {
            Self::P256(_) => Algorithm::Es256,
            Self::Ed25519(_) => Algorithm::EdDsa,
            Self::Rsa(_) => Algorithm::Rs256,
        }
    }

    /// The signature of a text; an RSA key signs by PSS where that is wanted.
    pub(crate) fn signature(&self, algorithm: Algorithm, text: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::P256(pair) => {
                pair.sign(&random, text).expect("a key of a test").as_ref().to_vec()
            }
            Self::Ed25519(pair) => pair.sign(text).as_ref().to_vec(),
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let padding: &dyn ring::signature::RsaEncoding = match algorithm {
                    Algorithm::Ps256 => &RSA_PSS_SHA256,
                    Algorithm::Rs256 | Algorithm::Es256 | Algorithm::EdDsa => &RSA_PKCS1_SHA256,
                };
                pair.sign(padding, &random, text, &mut signature).expect("a key of a test");
                signature
            }
        }
    }

    /// A JWS of any header and payload.
    pub(crate) fn sign(&self, header: &str, payload: &str) -> String {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let signed = format!("{}.{}", encode(header), encode(payload));
        let algorithm =
            if header.contains("PS256") { Algorithm::Ps256 } else { self.algorithm() };
        let signature = self.signature(algorithm, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// An access token with that key id.
    pub(crate) fn token(&self, kid: &str, payload: &str) -> String {
        let algorithm = self.algorithm().as_str();
        let header = format!(r#"{{"alg":"{algorithm}","kid":"{kid}","typ":"at+jwt"}}"#);
        self.sign(&header, payload)
    }
}

/// A document of keys.
pub(crate) fn jwks(keys: &[&str]) -> String {
    format!(r#"{{"keys":[{}]}}"#, keys.join(","))
}
