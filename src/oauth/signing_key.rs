//! Pure: private keys, and JSON Web Signatures with them (RFC 7515, RFC 7518, RFC 8037).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::SecureRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Map, Value};

use super::unusable::Unusable;
use crate::limits::PRIVATE_KEY_BYTES_MAX;

/// A private key: RSA of 2048 bits or more, P-256, or Ed25519.
pub struct SigningKey {
    pair: Box<Pair>,
    /// The public key as a JWK, with the required members alone, sorted (RFC 7638 section 3.2).
    jwk: Map<String, Value>,
    thumbprint: String,
}

enum Pair {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
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

/// The version of a PKCS#8 document (RFC 5958): zero.
const PKCS8_VERSION: [u8; 3] = [0x02, 0x01, 0x00];
/// The algorithm of a P-256 key in PKCS#8 (RFC 5480): id-ecPublicKey, and the curve.
const P256_ALGORITHM: [u8; 21] = [
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
];
/// The name of the curve alone, which a SEC1 key has in it.
const P256_CURVE: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

impl SigningKey {
    /// Reads the first private key of a PEM text: PKCS#8, PKCS#1 (RSA) or SEC1 (P-256).
    ///
    /// # Errors
    /// If there is none, if it is encrypted, or if it is of another kind.
    pub fn from_pem(pem: &str) -> Result<SigningKey, Unusable> {
        if pem.len() > PRIVATE_KEY_BYTES_MAX {
            return Err(Unusable::new(format!("it has over {PRIVATE_KEY_BYTES_MAX} bytes")));
        }
        match PrivateKeyDer::from_pem_slice(pem.as_bytes()) {
            Ok(PrivateKeyDer::Pkcs8(der)) => Self::from_pkcs8(der.secret_pkcs8_der()),
            Ok(PrivateKeyDer::Pkcs1(der)) => {
                let pair = RsaKeyPair::from_der(der.secret_pkcs1_der());
                pair.map(Self::of_rsa).map_err(|error| refused(&error))
            }
            Ok(PrivateKeyDer::Sec1(der)) if !has(der.secret_sec1_der(), &P256_CURVE) => {
                Err(Unusable::new("it is a key of an elliptic curve other than P-256"))
            }
            Ok(PrivateKeyDer::Sec1(der)) => {
                Self::from_pkcs8(&pkcs8_of_sec1(der.secret_sec1_der()))
            }
            Ok(_) => Err(Unusable::new("it is a private key of an unknown form")),
            Err(_) if pem.contains("ENCRYPTED") => {
                Err(Unusable::new("the private key is encrypted: give one without a password"))
            }
            Err(_) => Err(Unusable::new("it has no private key in PEM form")),
        }
    }

    /// Makes a new P-256 key, as PKCS#8.
    ///
    /// # Errors
    /// If there is no randomness.
    pub fn generate(random: &dyn SecureRandom) -> Result<Vec<u8>, Unusable> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, random);
        let document =
            document.map_err(|_| Unusable::new("the system gives no random bytes"))?;
        Ok(document.as_ref().to_vec())
    }

    /// Reads a private key in PKCS#8 (DER).
    ///
    /// # Errors
    /// If it is none, or of another kind. Elliptic curve keys must have their public half in them,
    /// as all usual tools write them.
    pub fn from_pkcs8(der: &[u8]) -> Result<SigningKey, Unusable> {
        // ring's generator of random numbers blinds the check of the key.
        let random = ring::rand::SystemRandom::new();
        let signing = &ECDSA_P256_SHA256_FIXED_SIGNING;
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(signing, der, &random) {
            return Ok(Self::of_p256(pair));
        }
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            return Ok(Self::of_ed25519(pair));
        }
        if has(der, &P256_ALGORITHM) {
            return Err(Unusable::new(
                "the P-256 key lacks its public half, which `openssl pkey` adds",
            ));
        }
        let pair = RsaKeyPair::from_pkcs8(der);
        pair.map(Self::of_rsa).map_err(|error| refused(&error))
    }

    fn of_rsa(pair: RsaKeyPair) -> SigningKey {
        let public = PublicKeyComponents::<Vec<u8>>::from(pair.public());
        let jwk = [
            ("e", URL_SAFE_NO_PAD.encode(&public.e)),
            ("kty", "RSA".to_owned()),
            ("n", URL_SAFE_NO_PAD.encode(&public.n)),
        ];
        Self::of(Pair::Rsa(pair), jwk)
    }

    fn of_p256(pair: EcdsaKeyPair) -> SigningKey {
        // The uncompressed form: 4, x, y (SEC1 section 2.3.3).
        let point = pair.public_key().as_ref().to_vec();
        let coordinate = |from: usize| point.get(from..from + 32).unwrap_or_default();
        let jwk = [
            ("crv", "P-256".to_owned()),
            ("kty", "EC".to_owned()),
            ("x", URL_SAFE_NO_PAD.encode(coordinate(1))),
            ("y", URL_SAFE_NO_PAD.encode(coordinate(33))),
        ];
        Self::of(Pair::P256(pair), jwk)
    }

    fn of_ed25519(pair: Ed25519KeyPair) -> SigningKey {
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        let jwk = [("crv", "Ed25519".to_owned()), ("kty", "OKP".to_owned()), ("x", x)];
        Self::of(Pair::Ed25519(pair), jwk)
    }

    /// `members` are those of RFC 7638 section 3.2, sorted.
    fn of<const N: usize>(pair: Pair, members: [(&str, String); N]) -> SigningKey {
        let jwk: Map<String, Value> =
            members.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        let text = Value::from(jwk.clone()).to_string();
        let thumbprint = URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()));
        SigningKey { pair: Box::new(pair), jwk, thumbprint }
    }

    /// The algorithms of this key, the preferred one first.
    pub fn algorithms(&self) -> &'static [Algorithm] {
        match *self.pair {
            Pair::Rsa(_) => &[Algorithm::Rs256, Algorithm::Ps256],
            Pair::P256(_) => &[Algorithm::Es256],
            Pair::Ed25519(_) => &[Algorithm::EdDsa],
        }
    }

    /// The first algorithm of this key that is among the names of `supported`; the preferred one
    /// where that is absent or empty.
    ///
    /// # Errors
    /// If none is.
    pub fn choose_algorithm(
        &self,
        supported: Option<&[String]>,
    ) -> Result<Algorithm, Unusable> {
        let supported = supported.unwrap_or_default();
        let is_supported = |algorithm: &&Algorithm| {
            supported.is_empty() || supported.iter().any(|name| name == algorithm.as_str())
        };
        self.algorithms().iter().find(is_supported).copied().ok_or_else(|| {
            let own: Vec<_> = self.algorithms().iter().map(|it| it.as_str()).collect();
            let own = own.join(" and ");
            Unusable::new(format!("the authorization server does not take {own} of this key"))
        })
    }

    /// The public key as a JWK (RFC 7517), without `kid`.
    pub fn public_jwk(&self) -> Map<String, Value> {
        self.jwk.clone()
    }

    /// The thumbprint of the public key, in base64url (RFC 7638).
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// Signs claims: the compact form of a JWS. `alg` is added to the header.
    ///
    /// # Errors
    /// If the algorithm is not one of this key, or if there is no randomness.
    pub fn sign(
        &self,
        algorithm: Algorithm,
        mut header: Map<String, Value>,
        claims: &Map<String, Value>,
        random: &dyn SecureRandom,
    ) -> Result<String, Unusable> {
        header.insert("alg".to_owned(), algorithm.as_str().into());
        let part = |members: &Map<String, Value>| {
            let text = serde_json::to_string(members);
            text.map(|text| URL_SAFE_NO_PAD.encode(text))
                .map_err(|_| Unusable::new("a claim cannot be written"))
        };
        let mut jws = format!("{}.{}", part(&header)?, part(claims)?);
        let signature = self.signature(algorithm, jws.as_bytes(), random)?;
        jws.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut jws);
        Ok(jws)
    }

    fn signature(
        &self,
        algorithm: Algorithm,
        message: &[u8],
        random: &dyn SecureRandom,
    ) -> Result<Vec<u8>, Unusable> {
        let rsa = |pair: &RsaKeyPair, encoding: &'static dyn RsaEncoding| {
            let mut signature = vec![0; pair.public().modulus_len()];
            let signed = pair.sign(encoding, random, message, &mut signature);
            signed.map(|()| signature).map_err(|_| Unusable::new("the key did not sign"))
        };
        match (algorithm, &*self.pair) {
            (Algorithm::Rs256, Pair::Rsa(pair)) => rsa(pair, &RSA_PKCS1_SHA256),
            (Algorithm::Ps256, Pair::Rsa(pair)) => rsa(pair, &RSA_PSS_SHA256),
            // Fixed form: r and s side by side (RFC 7518 section 3.4).
            (Algorithm::Es256, Pair::P256(pair)) => {
                let signed = pair.sign(random, message);
                let signed = signed.map_err(|_| Unusable::new("the key did not sign"))?;
                Ok(signed.as_ref().to_vec())
            }
            (Algorithm::EdDsa, Pair::Ed25519(pair)) => Ok(pair.sign(message).as_ref().to_vec()),
            (
                Algorithm::Rs256 | Algorithm::Ps256 | Algorithm::Es256 | Algorithm::EdDsa,
                Pair::Rsa(_) | Pair::P256(_) | Pair::Ed25519(_),
            ) => {
                let name = algorithm.as_str();
                Err(Unusable::new(format!("{name} is no algorithm of this key")))
            }
        }
    }
}

/// Why ring takes none of the three kinds of keys. Its text for RSA is shown, such as that the key
/// is too short.
fn refused(error: &ring::error::KeyRejected) -> Unusable {
    Unusable::new(format!(
        "it is no RSA key of 2048 to 4096 bits, P-256 or Ed25519 key ({error})"
    ))
}

/// A P-256 key as SEC1 has it, in PKCS#8.
fn pkcs8_of_sec1(sec1: &[u8]) -> Vec<u8> {
    let mut inner = [&PKCS8_VERSION[..], &P256_ALGORITHM].concat();
    push_der(&mut inner, 0x04, sec1);
    let mut out = Vec::with_capacity(inner.len() + 4);
    push_der(&mut out, 0x30, &inner);
    out
}

/// True if the bytes have `part` in them.
fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Writes a value in DER. One whose length has no place in two bytes is left out, since no key has
/// it.
fn push_der(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    let Ok(length) = u16::try_from(value.len()) else { return };
    let [high, low] = length.to_be_bytes();
    match length {
        0..=0x7f => out.extend([tag, low]),
        0x80..=0xff => out.extend([tag, 0x81, low]),
        _ => out.extend([tag, 0x82, high, low]),
    }
    out.extend(value);
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[private key]")
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{
        ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
        UnparsedPublicKey, VerificationAlgorithm,
    };

    use super::*;

    // Keys that were made for these tests and sign nothing else.
    const RSA: &str = "\
-----BEGIN RSA PRIVATE KEY-----
MIIEogIBAAKCAQEAxrd52jl4VtNQ8AC9qzSjk/EPHc733SLwI0IDpsjDkNuKyomL
N26QQ71wMOf97W0OifLHtGUQF2Wo+5DtA9vOcpb72DriZtolxcYQO0Fs3ID1MwSf
5AoYEanDjCeRBidhHyvfxo/vCi1lkdic4RtU0Et8I8ca1dEmaoAJWjZt/veXnbi1
9G/Md21YS9lesw464GNEAk2shSjPZBp0lD4y51MyLVSvgeeV1YeaJ+9aX/ywbJsM
hDblblZX/c0vHiCa3DKg1roe6qodmnSY7Av30EfXh1JT3gc15EAGDTsHpG8TXXdN
UhFyJD0cbrMGuYkfatZ3OlnH5mZQWSlnerLfbQIDAQABAoIBABTbAb9no7EdHtP+
3T51g6t4Xm6cSlhGR+9eCMsS1q+X0wextXo9BjK4fuirGHPi1mafo9pTdwO1nYLA
MZfjlFW4xzgTlK+tunl4xuWpLAHdHkmF9Tqg3T4mqTQcR59ejQC8ATwyM/4cne8s
zZOJ46C0I2m6hkmlg0N51OwdD/X1GpXegjMVIPxptTB0antYxDteRIfbXj0HMabW
oMD+qmMjV4F8CKZAIlNOplUZrpB6GomJ3N/Hzw7PNEdoEt/Xh1vGIm9hUVMXlexb
KX/OH3RzhOM8EJN6L7ZET7Ipoz3cADE47NdywXakloNRwRiOrrktOsuc6Hj8AZaN
IbqzNkMCgYEA7ApPU2iTi6wGBVkTNYxCoJ1g1H0ML+VuV5dv7zlFeiBJn0DQubb5
Lhl7DYQsnooUhWyeUXbfeM0JPU89SVqcSdttYRrQY9OUbCmGiDe8hLaWA5EiOj9G
UVBvLJpayium462dmwVYjige48YWC9K6Tgn+Ze+KE36bbuUbFt0zUn8CgYEA14Uz
7FWuiG8Mn4iCX99ktpyQr18lp9uhCMq9KHn3PMbMom6h5E0uiYzn1WgHjVlb42Dw
2TzercWPwrQ0z8bKIEJmkWFLHQ30+6olJhzhINybQRqSSpryhhxN1TtFOcMsluMz
y66EsAyXg1FRZ0W5osqRJCMgyjBa8odTyVq8QBMCgYA6gxvC+2uH9i7P6JLgdVKW
6ix0wELjJKbDw+CVlsboTVSyy6hyQS9oBB0C7r741hXcNV7RpvwiwAEIV7pDktin
XmOw7Kq39F0YqvqUjeyHoZNycunfMoxF4ACPN/xFnaiTTBiDs0GOi9eMczBH4gcZ
DVUpA8ZgqsPxK44ZjuAIFQKBgBj58+GAsIBZNkJKxKktr3NGQ7I/OZLxbgEh1bga
Il/lvhNY9OQLWchRDxD5RF7KK073jhHu7vN+gMGUtsYZiJUifNZ+SwEr++cqebGo
CSMQzeFGnguNV2vZXd/HRaeDCejWncsOB4yLeQeb5e4s8219QkLI22TzI6cVrc0Y
+dYHAoGAD0eXFVlwCkh/N7kHfzQX2qO2BdQyedQSzWgg9eieZqVCjXnKz4PTi/Aw
Y32DN4/6O31AgJAgcAPXDi0vOv2BXgY9MGFHAsHmHtQtYrVe+vNGvkXEk1BM0cb7
l7+Gnk4qyc0rZqXlBJYZWRh7M6OmnwOnpnzLbilTq0RNdUVG2u0=
-----END RSA PRIVATE KEY-----
";
    const SEC1: &str = "\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIKKRV1S9hMwgab00zMhybZHPDC2wLZyM/BeMA4dEiGBtoAoGCCqGSM49
AwEHoUQDQgAEdcZknFA8+RAD3NV7YKP7pRY7F+E6cEksHyNOXYuVbkRjT3KpZMBW
CUSfuOjqwK6NzOBDcLdh83oHaljAi0V9OA==
-----END EC PRIVATE KEY-----
";
    /// The same key in PKCS#8.
    const P256: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgopFXVL2EzCBpvTTM
yHJtkc8MLbAtnIz8F4wDh0SIYG2hRANCAAR1xmScUDz5EAPc1Xtgo/ulFjsX4Tpw
SSwfI05di5VuRGNPcqlkwFYJRJ+46OrAro3M4ENwt2HzegdqWMCLRX04
-----END PRIVATE KEY-----
";
    const ED25519_PEM: &str = "\
-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIMUTIRjcci+Fty73jkCF6mVk3gWbxmArSoqWiJXrGlZM
-----END PRIVATE KEY-----
";
    const ENCRYPTED: &str = "\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAio6FpVis4+4QICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEHoxtbMbvM+TU04eJ+7AjawEgZCE
RnViHo7pFDCHeJavSMPcRcMDTVgnz0KH8zJwLbEies3v2DgJGcahy6BOnS2pnlyV
bQsqM6l4p4ZUdSEBAhxbPBNK3Hkk9dglz8xL8fsXjs8/VA+x11/ltUV1wN0CDZK1
ojXnylB5OBYVprGmMWJZxrwD8+Bzo6iNNhdIdCaqFhKnUs1yLGAlhnH5jNxbXns=
-----END ENCRYPTED PRIVATE KEY-----
";
    const P384: &str = "\
-----BEGIN EC PRIVATE KEY-----
MIGkAgEBBDDny6Q/PYr8KtmD7nULwNkzqU4+YDhhPVTNK19p5D9KlsX3wwNvGSMv
JHvY9txqXYugBwYFK4EEACKhZANiAATc3zYtRxYxsXR5NXv1kF0lwI10F4clUKA2
xBvft/hrXrwBXhBPU/3izWEvdU16O2Ub9x9IztRPTudvQ7lxI466Z1M1gXEZNcuX
Rz+ftQOiBTihW76qCWluVrkGfCYllcM=
-----END EC PRIVATE KEY-----
";

    fn key(pem: &str) -> SigningKey {
        SigningKey::from_pem(pem).unwrap()
    }

    fn bytes(jwk: &Map<String, Value>, name: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap()
    }

    /// Checks a signature with the public key of the JWK alone.
    fn verifies(jws: &str, jwk: &Map<String, Value>, algorithm: Algorithm) -> bool {
        let (message, signature) = jws.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let unparsed = |with: &'static dyn VerificationAlgorithm, point: Vec<u8>| {
            UnparsedPublicKey::new(with, point).verify(message.as_bytes(), &signature).is_ok()
        };
        let rsa = |with| {
            let public = PublicKeyComponents { n: bytes(jwk, "n"), e: bytes(jwk, "e") };
            public.verify(with, message.as_bytes(), &signature).is_ok()
        };
        match algorithm {
            Algorithm::Rs256 => rsa(&RSA_PKCS1_2048_8192_SHA256),
            Algorithm::Ps256 => rsa(&RSA_PSS_2048_8192_SHA256),
            Algorithm::Es256 => {
                assert_eq!(signature.len(), 64);
                let point = [vec![4], bytes(jwk, "x"), bytes(jwk, "y")].concat();
                unparsed(&ECDSA_P256_SHA256_FIXED, point)
            }
            Algorithm::EdDsa => unparsed(&ED25519, bytes(jwk, "x")),
        }
    }

    #[test]
    fn every_kind_of_key_signs_what_its_public_half_verifies() {
        let random = SystemRandom::new();
        let mut claims = Map::new();
        claims.insert("a".to_owned(), "é".into());
        let mut header = Map::new();
        header.insert("typ".to_owned(), "JWT".into());
        for (pem, algorithms) in [
            (RSA, vec![Algorithm::Rs256, Algorithm::Ps256]),
            (SEC1, vec![Algorithm::Es256]),
            (P256, vec![Algorithm::Es256]),
            (ED25519_PEM, vec![Algorithm::EdDsa]),
        ] {
            let key = key(pem);
            assert_eq!(key.algorithms(), algorithms);
            for algorithm in Algorithm::ALL {
                let signed = key.sign(algorithm, header.clone(), &claims, &random);
                if !algorithms.contains(&algorithm) {
                    assert!(signed.is_err());
                    continue;
                }
                let jws = signed.unwrap();
                assert!(verifies(&jws, &key.public_jwk(), algorithm), "{algorithm:?}");
                let start = jws.split('.').next().unwrap();
                let start = String::from_utf8(URL_SAFE_NO_PAD.decode(start).unwrap()).unwrap();
                let name = algorithm.as_str();
                assert_eq!(start, format!(r#"{{"typ":"JWT","alg":"{name}"}}"#));
                let other = jws.replacen('.', "A.", 1);
                assert!(!verifies(&other, &key.public_jwk(), algorithm), "{algorithm:?}");
            }
        }
        assert_eq!(key(SEC1).thumbprint(), key(P256).thumbprint());
    }

    #[test]
    fn a_generated_key_is_kept_and_read_again() {
        let random = SystemRandom::new();
        let der = SigningKey::generate(&random).unwrap();
        let (one, again) =
            (SigningKey::from_pkcs8(&der).unwrap(), SigningKey::from_pkcs8(&der).unwrap());
        assert_eq!(one.public_jwk(), again.public_jwk());
        let other = SigningKey::from_pkcs8(&SigningKey::generate(&random).unwrap()).unwrap();
        assert_ne!(one.thumbprint(), other.thumbprint());
        assert_eq!(format!("{one:?}"), "[private key]");
    }

    #[test]
    fn the_thumbprint_is_that_of_the_rfc() {
        // RFC 8037 appendix A.3 has this key and its thumbprint.
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let d = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let pair = Ed25519KeyPair::from_seed_unchecked(&d).unwrap();
        let key = SigningKey::of_ed25519(pair);
        assert_eq!(key.public_jwk()["x"], x);
        assert_eq!(key.thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn the_algorithm_is_one_that_the_other_side_takes() {
        let names = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let rsa = key(RSA);
        assert_eq!(rsa.choose_algorithm(None), Ok(Algorithm::Rs256));
        assert_eq!(rsa.choose_algorithm(Some(&[])), Ok(Algorithm::Rs256));
        let supported = names(&["ES256", "PS256"]);
        assert_eq!(rsa.choose_algorithm(Some(&supported)), Ok(Algorithm::Ps256));
        let error = rsa.choose_algorithm(Some(&names(&["ES256", "none"]))).unwrap_err();
        assert!(error.as_str().contains("RS256 and PS256"), "{error}");
    }

    #[test]
    fn what_is_no_usable_key_is_refused_with_the_reason() {
        let public = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
        for (pem, why) in [
            ("", "no private key"),
            ("sekrit", "no private key"),
            (public, "no private key"),
            (ENCRYPTED, "is encrypted"),
            (P384, "other than P-256"),
            (&RSA.replace("MII", "MIJ"), "RSA key of 2048"),
            (&"x".repeat(PRIVATE_KEY_BYTES_MAX + 1), "it has over"),
        ] {
            let error = SigningKey::from_pem(pem).unwrap_err();
            assert!(
                error.as_str().contains(why) && !error.as_str().contains("sekrit"),
                "{error}"
            );
        }
        for at in (0..SEC1.len()).step_by(7) {
            assert!(SigningKey::from_pem(&SEC1[..at]).is_err(), "{at}");
        }
        assert_eq!(pkcs8_of_sec1(&[7; 300])[..4], [0x30, 0x82, 1, 0x48]);
        // The version, and 32 bytes of the private half.
        let mut alone = vec![0x30, 0x25, 0x02, 0x01, 0x01, 0x04, 0x20];
        alone.extend([7; 32]);
        let error = SigningKey::from_pkcs8(&pkcs8_of_sec1(&alone)).unwrap_err();
        assert!(error.as_str().contains("public half"), "{error}");
    }
}
