//! Pure: public keys as issuers and DPoP proofs have them (JWK, RFC 7517 and 7518), and the check of
//! a signature by one of them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};

use super::sha256::sha256;
use super::signing_key::Algorithm;
use crate::limits::{JWKS_BYTES_MAX, JWKS_KEYS_MAX, KEY_ID_BYTES_MAX, KEYS_TRIED_MAX};
use crate::protocol::raw::{self, RawObject};

/// Bits of the modulus of an RSA key (RFC 7518, section 3.3, and what ring verifies).
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Bytes of the exponent of an RSA key, as far as ring verifies by it.
const RSA_EXPONENT_BYTES_MAX: usize = 5;
/// Bytes of a coordinate of P-256, and of a public key of Ed25519.
const COORDINATE_BYTES: usize = 32;
/// Members that only a private or a symmetric key has (RFC 7518, section 6; RFC 8037, section 2).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// The algorithm of a name in `alg`: one with a public key, never `none` or one with a shared
/// secret. `Ed25519` is another name of `EdDSA` with that curve (RFC 9864).
pub(super) fn algorithm_named(name: &str) -> Option<Algorithm> {
    if name == "Ed25519" { Some(Algorithm::EdDsa) } else { Algorithm::parse(name) }
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum PublicKey {
    Rsa {
        /// Without zeros at the beginning.
        modulus: Box<[u8]>,
        exponent: Box<[u8]>,
    },
    /// Uncompressed: 4, and the two coordinates.
    P256([u8; 1 + 2 * COORDINATE_BYTES]),
    Ed25519([u8; COORDINATE_BYTES]),
}

/// The SHA-256 of a key's required members (RFC 7638): the same for every way to write the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Thumbprint([u8; 32]);

impl Thumbprint {
    /// Reads a thumbprint in base64url, as `jkt` has it.
    pub fn parse(text: &str) -> Option<Thumbprint> {
        Some(Thumbprint(URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?))
    }

    /// The thumbprint in base64url.
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }
}

/// A key that verifies signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwk {
    kid: Option<Box<str>>,
    /// The one algorithm of the key, where its issuer says which.
    algorithm: Option<Algorithm>,
    key: PublicKey,
    thumbprint: Thumbprint,
}

/// Why a text is no key of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnusableKey {
    /// It is no JSON object, or a member stands in it twice.
    NoObject,
    /// It is of a kind or a curve that is not known here, or for another algorithm.
    OtherKind,
    /// It is not for signatures (`use`, `key_ops`).
    OtherUse,
    /// It has private parts: whoever read it could sign.
    Private,
    /// A member that the kind needs is missing or no such value.
    Malformed,
    /// An RSA key of fewer than 2048 or more than 8192 bits.
    Size,
}

impl Jwk {
    /// Reads a key.
    ///
    /// # Errors
    /// The key is of no use for verifying signatures.
    pub fn parse(text: &str) -> Result<Jwk, UnusableKey> {
        let object = RawObject::parse(text).map_err(|_| UnusableKey::NoObject)?;
        let member = |name: &str| object.string(name).map_err(|_| UnusableKey::Malformed);
        if PRIVATE_MEMBERS.iter().any(|name| object.get(name).is_some()) {
            return Err(UnusableKey::Private);
        }
        let key = match member("kty")?.as_deref() {
            Some("RSA") => rsa(&object)?,
            Some("EC") if member("crv")?.as_deref() == Some("P-256") => p256(&object)?,
            Some("OKP") if member("crv")?.as_deref() == Some("Ed25519") => {
                PublicKey::Ed25519(coordinate(&object, "x")?)
            }
            Some(_) => return Err(UnusableKey::OtherKind),
            None => return Err(UnusableKey::Malformed),
        };
        if !is_for_verifying(&object)? {
            return Err(UnusableKey::OtherUse);
        }
        let algorithm = match member("alg")? {
            Some(name) => Some(algorithm_named(&name).ok_or(UnusableKey::OtherKind)?),
            None => None,
        };
        if algorithm.is_some_and(|it| !key.is_of(it)) {
            return Err(UnusableKey::OtherKind);
        }
        let kid = member("kid")?.map(String::into_boxed_str);
        if kid.as_ref().is_some_and(|it| it.len() > KEY_ID_BYTES_MAX) {
            return Err(UnusableKey::Malformed);
        }
        let thumbprint = key.thumbprint();
        Ok(Jwk { kid, algorithm, key, thumbprint })
    }

    /// The key's id.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The key's thumbprint.
    pub fn thumbprint(&self) -> Thumbprint {
        self.thumbprint
    }

    /// True if a signature by this algorithm may be checked by the key: the algorithm is of the
    /// key's kind, and the key is not for another one (RFC 8725, section 3.1).
    pub fn is_for(&self, algorithm: Algorithm) -> bool {
        self.key.is_of(algorithm) && self.algorithm.is_none_or(|it| it == algorithm)
    }

    /// True if `signature` is that of `message` by this key and algorithm.
    pub fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if !self.is_for(algorithm) {
            return false;
        }
        let result = match (&self.key, algorithm) {
            (PublicKey::Rsa { modulus, exponent }, Algorithm::Rs256) => {
                let key = RsaPublicKeyComponents { n: modulus, e: exponent };
                key.verify(&signature::RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            (PublicKey::Rsa { modulus, exponent }, Algorithm::Ps256) => {
                let key = RsaPublicKeyComponents { n: modulus, e: exponent };
                key.verify(&signature::RSA_PSS_2048_8192_SHA256, message, signature)
            }
            (PublicKey::P256(point), Algorithm::Es256) => {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point)
                    .verify(message, signature)
            }
            (PublicKey::Ed25519(key), Algorithm::EdDsa) => {
                UnparsedPublicKey::new(&signature::ED25519, key).verify(message, signature)
            }
            (PublicKey::Rsa { .. } | PublicKey::P256(_) | PublicKey::Ed25519(_), _) => {
                return false;
            }
        };
        result.is_ok()
    }
}

impl PublicKey {
    fn is_of(&self, algorithm: Algorithm) -> bool {
        match algorithm {
            Algorithm::Rs256 | Algorithm::Ps256 => matches!(self, Self::Rsa { .. }),
            Algorithm::Es256 => matches!(self, Self::P256(_)),
            Algorithm::EdDsa => matches!(self, Self::Ed25519(_)),
        }
    }

    /// RFC 7638, section 3.2, and RFC 8037, appendix A.3: the required members in the order of the
    /// alphabet, without white space.
    fn thumbprint(&self) -> Thumbprint {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let text = match self {
            Self::Rsa { modulus, exponent } => {
                let (e, n) = (encode(exponent), encode(modulus));
                format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#)
            }
            Self::P256(point) => {
                let (x, y) = point.split_at(1 + COORDINATE_BYTES);
                let (x, y) = (encode(x.get(1..).unwrap_or_default()), encode(y));
                format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#)
            }
            Self::Ed25519(key) => {
                let x = encode(key);
                format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#)
            }
        };
        Thumbprint(sha256(&text))
    }
}

/// RFC 7517, sections 4.2 and 4.3: a key that says nothing of its use may be used.
fn is_for_verifying(object: &RawObject<'_>) -> Result<bool, UnusableKey> {
    let purpose = object.string("use").map_err(|_| UnusableKey::Malformed)?;
    let operations: Option<Vec<String>> = match object.get("key_ops") {
        Some(text) => Some(serde_json::from_str(text).map_err(|_| UnusableKey::Malformed)?),
        None => None,
    };
    Ok(purpose.is_none_or(|it| it == "sig")
        && operations.is_none_or(|all| all.iter().any(|it| it == "verify")))
}

fn rsa(object: &RawObject<'_>) -> Result<PublicKey, UnusableKey> {
    let (modulus, exponent) = (number(object, "n")?, number(object, "e")?);
    let first = modulus.first().copied().unwrap_or(0);
    let bits =
        (modulus.len() * 8).saturating_sub(usize::try_from(first.leading_zeros()).unwrap_or(8));
    if !RSA_BITS.contains(&bits) {
        return Err(UnusableKey::Size);
    }
    let is_usable = |e: &[u8]| match e {
        [] => false,
        [one] => *one >= 3 && one % 2 == 1,
        [.., last] => e.len() <= RSA_EXPONENT_BYTES_MAX && last % 2 == 1,
    };
    if !is_usable(&exponent) {
        return Err(UnusableKey::Malformed);
    }
    Ok(PublicKey::Rsa { modulus, exponent })
}

/// A number in base64url. RFC 7518, section 2, has no zeros at its beginning; some issuers write
/// one, as their libraries print the sign.
fn number(object: &RawObject<'_>, name: &str) -> Result<Box<[u8]>, UnusableKey> {
    let bytes = bytes(object, name)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    Ok(bytes.get(zeros..).unwrap_or_default().into())
}

fn bytes(object: &RawObject<'_>, name: &str) -> Result<Vec<u8>, UnusableKey> {
    let text = object.string(name).ok().flatten().ok_or(UnusableKey::Malformed)?;
    // Some issuers pad.
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| UnusableKey::Malformed)
}

fn p256(object: &RawObject<'_>) -> Result<PublicKey, UnusableKey> {
    let (x, y) = (coordinate(object, "x")?, coordinate(object, "y")?);
    let point = [&[4_u8][..], &x, &y].concat();
    Ok(PublicKey::P256(point.try_into().map_err(|_| UnusableKey::Malformed)?))
}

/// RFC 7518, section 6.2.1.2: of full length, with zeros where the number is small.
fn coordinate(
    object: &RawObject<'_>,
    name: &str,
) -> Result<[u8; COORDINATE_BYTES], UnusableKey> {
    bytes(object, name)?.try_into().map_err(|_| UnusableKey::Malformed)
}

/// The keys of an issuer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JwkSet {
    keys: Vec<Jwk>,
    /// The keys that were left out, with the reasons.
    left_out: Vec<UnusableKey>,
}

impl JwkSet {
    /// Reads the keys of a document (RFC 7517, section 5). Keys that are of no use are left out;
    /// so are those past [`JWKS_KEYS_MAX`].
    ///
    /// # Errors
    /// The document is too large, or no set of keys; the fault as text.
    pub fn parse(document: &[u8]) -> Result<JwkSet, &'static str> {
        if document.len() > JWKS_BYTES_MAX {
            return Err("the document of keys is too large");
        }
        let text =
            std::str::from_utf8(document).map_err(|_| "the document of keys is no text")?;
        let object =
            RawObject::parse(text).map_err(|_| "the document of keys is no JSON object")?;
        let list = object.get("keys").ok_or("the document of keys has no \"keys\"")?;
        let list = raw::elements(list).map_err(|_| "\"keys\" is no list")?;
        let mut set = JwkSet::default();
        for key in list {
            if set.keys.len() + set.left_out.len() == JWKS_KEYS_MAX {
                break;
            }
            match Jwk::parse(key) {
                Ok(key) => set.keys.push(key),
                Err(why) => set.left_out.push(why),
            }
        }
        Ok(set)
    }

    /// The keys.
    pub fn keys(&self) -> &[Jwk] {
        &self.keys
    }

    /// Why keys were left out, one reason a key.
    pub fn left_out(&self) -> &[UnusableKey] {
        &self.left_out
    }

    /// True if a key has that id.
    pub fn has(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid() == Some(kid))
    }

    /// True if a key has that thumbprint.
    pub fn has_key(&self, thumbprint: &Thumbprint) -> bool {
        self.keys.iter().any(|key| key.thumbprint == *thumbprint)
    }

    /// The keys by which a token may be signed: those of its key id and algorithm; for one without
    /// a key id the keys of its algorithm. At most [`KEYS_TRIED_MAX`], since each costs a
    /// signature.
    pub fn candidates(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &Jwk> {
        let fits = move |key: &&Jwk| kid.is_none_or(|kid| key.kid() == Some(kid));
        self.keys
            .iter()
            .filter(fits)
            .filter(move |key| key.is_for(algorithm))
            .take(KEYS_TRIED_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::test_issuer::{TestKey, jwks};

    /// RFC 7638, section 3.1.
    const RFC_7638: &str = concat!(
        r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aP"#,
        r#"FFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v"#,
        r#"-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-b"#,
        r#"FTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"A"#,
        r#"QAB","alg":"RS256","kid":"2011-04-29"}"#
    );

    #[test]
    fn thumbprints_are_those_of_the_rfcs() {
        let key = Jwk::parse(RFC_7638).unwrap();
        assert_eq!(key.thumbprint().encode(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        assert_eq!(Thumbprint::parse(&key.thumbprint().encode()), Some(key.thumbprint()));
        // RFC 8037, appendix A.3.
        let text = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let key = Jwk::parse(text).unwrap();
        assert_eq!(key.thumbprint().encode(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn each_kind_verifies_its_own_algorithms_alone() {
        for key in [TestKey::p256(), TestKey::ed25519(1), TestKey::rsa()] {
            let jwk = Jwk::parse(&key.jwk("k")).unwrap();
            for algorithm in Algorithm::ALL {
                let signature = key.signature(algorithm, b"text");
                let is_its_own = jwk.is_for(algorithm);
                assert_eq!(jwk.verifies(algorithm, b"text", &signature), is_its_own);
                assert!(!jwk.verifies(algorithm, b"texu", &signature));
                let mut other = signature.clone();
                other[5] ^= 1;
                assert!(!jwk.verifies(algorithm, b"text", &other));
                assert!(!jwk.verifies(algorithm, b"text", &signature[1..]));
                assert!(!jwk.verifies(algorithm, b"text", b""));
            }
        }
    }

    #[test]
    fn a_key_for_one_algorithm_is_for_no_other_one() {
        let text = format!(r#"{{{},"alg":"PS256"}}"#, TestKey::rsa().members());
        let jwk = Jwk::parse(&text).unwrap();
        assert!(jwk.is_for(Algorithm::Ps256) && !jwk.is_for(Algorithm::Rs256));
    }

    #[test]
    fn keys_that_are_of_no_use_are_left_out() {
        use UnusableKey::{Malformed, NoObject, OtherKind, OtherUse, Private, Size};
        let (ec, rsa) = (TestKey::p256().members(), TestKey::rsa().members());
        let short = "x".repeat(172);
        let long_kid = "k".repeat(KEY_ID_BYTES_MAX + 1);
        let cases: &[(String, UnusableKey)] = &[
            ("7".into(), NoObject),
            (format!("{{{ec},\"kty\":\"EC\"}}"), NoObject),
            ("{}".into(), Malformed),
            (r#"{"kty":7}"#.into(), Malformed),
            (r#"{"kty":"oct","k":"c2VjcmV0"}"#.into(), Private),
            (r#"{"kty":"oct"}"#.into(), OtherKind),
            (r#"{"kty":"EC","crv":"P-384","x":"","y":""}"#.into(), OtherKind),
            (r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#.into(), Malformed),
            (r#"{"kty":"OKP","crv":"X25519","x":""}"#.into(), OtherKind),
            (r#"{"kty":"OKP","crv":"Ed25519","x":"!"}"#.into(), Malformed),
            (format!(r#"{{{ec},"d":"AA"}}"#), Private),
            (format!(r#"{{{ec},"use":"enc"}}"#), OtherUse),
            (format!(r#"{{{ec},"key_ops":["sign"]}}"#), OtherUse),
            (format!(r#"{{{ec},"key_ops":"verify"}}"#), Malformed),
            (format!(r#"{{{ec},"alg":"RS256"}}"#), OtherKind),
            (format!(r#"{{{rsa},"alg":"HS256"}}"#), OtherKind),
            (format!(r#"{{{rsa},"alg":"RS384"}}"#), OtherKind),
            (format!(r#"{{{rsa},"alg":"none"}}"#), OtherKind),
            (format!(r#"{{{ec},"kid":"{long_kid}"}}"#), Malformed),
            (format!(r#"{{"kty":"RSA","n":"{short}","e":"AQAB"}}"#), Size),
            (rsa.replace("AQAB", "AQ").replacen('"', "{\"", 1) + "}", Malformed),
            (rsa.replace("AQAB", "AQAA").replacen('"', "{\"", 1) + "}", Malformed),
        ];
        for (text, why) in cases {
            assert_eq!(Jwk::parse(text).unwrap_err(), *why, "{text}");
        }
        for good in [r#","use":"sig""#, r#","key_ops":["sign","verify"]"#, r#","x5c":["a"]"#] {
            assert!(Jwk::parse(&format!("{{{ec}{good}}}")).is_ok(), "{good}");
        }
        // With the zero before the number that some libraries print.
        let plain = URL_SAFE_NO_PAD.decode(rsa.split('"').nth(7).unwrap()).unwrap();
        let zero = URL_SAFE_NO_PAD.encode([&[0], &plain[..]].concat());
        let padded =
            Jwk::parse(&format!(r#"{{"kty":"RSA","n":"{zero}","e":"AQAB"}}"#)).unwrap();
        assert_eq!(padded, Jwk::parse(&format!("{{{rsa}}}")).unwrap());
    }

    #[test]
    fn a_set_keeps_what_is_of_use_and_is_bounded() {
        let (one, two) = (TestKey::p256().jwk("a"), TestKey::ed25519(1).jwk("b"));
        let set = jwks(&[&one, r#"{"kty":"oct","k":"AA","kid":"c"}"#, "7", &two]);
        let set = JwkSet::parse(set.as_bytes()).unwrap();
        assert_eq!(set.keys().len(), 2);
        assert_eq!(set.left_out(), [UnusableKey::Private, UnusableKey::NoObject]);
        assert!(set.has("a") && !set.has("c"));
        assert_eq!(set.candidates(Some("a"), Algorithm::Es256).count(), 1);
        assert_eq!(set.candidates(Some("a"), Algorithm::EdDsa).count(), 0);
        assert_eq!(set.candidates(None, Algorithm::EdDsa).count(), 1);
        let many = vec![one.as_str(); 1000];
        let many = JwkSet::parse(jwks(&many).as_bytes()).unwrap();
        assert_eq!(many.keys().len(), JWKS_KEYS_MAX);
        assert_eq!(many.candidates(None, Algorithm::Es256).count(), KEYS_TRIED_MAX);
        assert!(JwkSet::parse(&vec![b' '; JWKS_BYTES_MAX + 1]).is_err());
        for bad in
            ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#, "{\"keys\":[}"]
        {
            assert!(JwkSet::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let whole = jwks(&[&TestKey::rsa().jwk("r"), &one]);
        for end in 0..whole.len() {
            assert!(JwkSet::parse(&whole.as_bytes()[..end]).is_err(), "cut at {end}");
        }
    }
}
