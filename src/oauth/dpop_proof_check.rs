//! Pure: the check of a proof that a request's sender has the key to which its token is bound
//! (RFC 9449, section 4.3).

use std::collections::{BTreeMap, HashMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use iri_string::types::UriStr;

use super::jwk::{Jwk, Thumbprint};
use super::jws::{Jws, UnusableJws};
use super::sha256::sha256;
use super::web_url::WebUrl;
use crate::limits::{
    DPOP_JTI_BYTES_MAX, DPOP_KEYS_REMEMBERED_MAX, DPOP_PROOF_AGE_MAX, DPOP_PROOF_BYTES_MAX,
    DPOP_PROOFS_OF_KEY_MAX, DPOP_PROOFS_REMEMBERED_MAX, TOKEN_LEEWAY,
};
use crate::protocol::raw::RawObject;

/// What is wrong with a proof. `Display` is for operators; [`WrongProof::description`] is for the
/// client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WrongProof {
    /// The token is bound to a key, and the request has no proof.
    Missing,
    /// The request has several proofs.
    Several,
    /// The token is bound to a key and came with the scheme `Bearer` (RFC 9449, section 7.1).
    Scheme,
    /// The token is not bound to a key, and came with the scheme `DPoP`.
    NotBound,
    /// It is no JWS.
    Form(UnusableJws),
    /// Its type is not `dpop+jwt`.
    Type,
    /// It has no key, or one of no use.
    Key,
    /// The signature is not by the key in it.
    Signature,
    /// A claim is missing or malformed.
    Claim(&'static str),
    /// It is for another method.
    Method,
    /// It is for another URL.
    Url,
    /// It is too old, or of the future.
    Time,
    /// It is for another token.
    Token,
    /// The key in it is not the one to which the token is bound.
    OtherKey,
    /// It was used before.
    Replayed,
    /// Too many proofs are remembered to tell that it was not used before.
    NoRoom,
}

impl WrongProof {
    /// The text for the client.
    pub fn description(&self) -> &'static str {
        match self {
            Self::Missing => "the token needs a DPoP proof",
            Self::Several => "the request has several DPoP proofs",
            Self::Scheme => "the token is bound to a key and needs the scheme DPoP",
            Self::NotBound => "the token is not bound to a key and needs the scheme Bearer",
            Self::Form(_) => "the DPoP proof has no form that is accepted",
            Self::Type => "the DPoP proof does not have the type dpop+jwt",
            Self::Key => "the DPoP proof has no public key of use",
            Self::Signature => "the signature of the DPoP proof is wrong",
            Self::Claim(_) => "a claim of the DPoP proof is missing or malformed",
            Self::Method => "the DPoP proof is for another method",
            Self::Url => "the DPoP proof is for another URL",
            Self::Time => "the DPoP proof is too old or of the future",
            Self::Token => "the DPoP proof is for another token",
            Self::OtherKey => "the DPoP proof is by another key than the token's",
            Self::Replayed => "the DPoP proof was used before",
            Self::NoRoom => "too many DPoP proofs came at once",
        }
    }
}

impl std::fmt::Display for WrongProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Form(form) => write!(f, "the DPoP proof cannot be read: {form}"),
            Self::Claim(claim) => {
                write!(f, "{claim:?} of the DPoP proof is missing or malformed")
            }
            Self::Missing
            | Self::Several
            | Self::Scheme
            | Self::NotBound
            | Self::Type
            | Self::Key
            | Self::Signature
            | Self::Method
            | Self::Url
            | Self::Time
            | Self::Token
            | Self::OtherKey
            | Self::Replayed
            | Self::NoRoom => f.write_str(self.description()),
        }
    }
}

/// What a proof must be about.
#[derive(Clone, Copy)]
pub struct Expected<'a> {
    /// The method of the request.
    pub method: &'a str,
    /// The URL of the request.
    pub url: &'a str,
    /// The access token that the request has.
    pub token: &'a str,
    /// The key to which the token is bound.
    pub key: Thumbprint,
    /// Seconds since the epoch.
    pub now: u64,
}

/// A proof that is good, unless it was used before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    key: Thumbprint,
    /// A part of the SHA-256 of `jti`.
    id: [u8; 16],
    /// `iat`.
    issued_at: u64,
}

/// Checks all of a proof but that it is new.
///
/// # Errors
/// It is not good.
pub fn check(proof: &str, expected: &Expected<'_>) -> Result<Proof, WrongProof> {
    let jws = Jws::parse(proof, DPOP_PROOF_BYTES_MAX).map_err(WrongProof::Form)?;
    if jws.typ.as_deref() != Some("dpop+jwt") {
        return Err(WrongProof::Type);
    }
    let key = jws.jwk.as_deref().and_then(|text| Jwk::parse(text).ok());
    let key = key.filter(|key| key.is_for(jws.algorithm)).ok_or(WrongProof::Key)?;
    if key.thumbprint() != expected.key {
        return Err(WrongProof::OtherKey);
    }
    let claims = RawObject::parse(&jws.payload).map_err(|_| {
        WrongProof::Form(UnusableJws::Malformed("its payload is no JSON object"))
    })?;
    let text =
        |name: &'static str| claims.string(name).ok().flatten().ok_or(WrongProof::Claim(name));
    if text("htm")? != expected.method {
        return Err(WrongProof::Method);
    }
    let asked = normal_url(expected.url);
    if asked.is_none() || normal_url(&text("htu")?) != asked {
        return Err(WrongProof::Url);
    }
    let issued_at = issued_at(&claims)?;
    let (age, lead) = (DPOP_PROOF_AGE_MAX.as_secs(), TOKEN_LEEWAY.as_secs());
    if issued_at.saturating_add(age) < expected.now || issued_at > expected.now + lead {
        return Err(WrongProof::Time);
    }
    if text("ath")? != URL_SAFE_NO_PAD.encode(sha256(expected.token)) {
        return Err(WrongProof::Token);
    }
    let id = text("jti")?;
    if id.is_empty() || id.len() > DPOP_JTI_BYTES_MAX {
        return Err(WrongProof::Claim("jti"));
    }
    // The signature comes last, because it costs most.
    if !key.verifies(jws.algorithm, jws.signed.as_bytes(), &jws.signature) {
        return Err(WrongProof::Signature);
    }
    let id = sha256(&id).first_chunk().copied().unwrap_or_default();
    Ok(Proof { key: expected.key, id, issued_at })
}

fn issued_at(claims: &RawObject<'_>) -> Result<u64, WrongProof> {
    let text = claims.get("iat").ok_or(WrongProof::Claim("iat"))?;
    // Some clients write a fraction of a second.
    let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
    whole.parse().map_err(|_| WrongProof::Claim("iat"))
}

/// A URL without its query and fragment, in one spelling (RFC 3986, sections 6.2.2 and 6.2.3).
fn normal_url(text: &str) -> Option<String> {
    let end = text.find(['?', '#']).unwrap_or(text.len());
    let text = UriStr::new(text.get(..end)?).ok()?.normalize().to_string();
    let url = WebUrl::parse(&text).ok()?;
    let path = if url.path().is_empty() { "/" } else { url.path() };
    Some(format!("{}{path}", url.origin()))
}

/// The proofs that were used, until they are too old to be accepted again.
///
/// Each key has its own bound, so that a client that sends proof after proof wears out its own.
/// Where a bound makes the oldest proofs of a key be forgotten, its proofs of that age are refused
/// from then on.
#[derive(Debug, Default)]
pub struct UsedProofs {
    by_key: HashMap<Thumbprint, OfKey>,
    n_proofs: usize,
    swept_at: u64,
}

#[derive(Debug, Default)]
struct OfKey {
    n_proofs: usize,
    by_time: BTreeMap<u64, HashSet<[u8; 16]>>,
    /// Proofs that were issued before are refused.
    since: u64,
}

impl OfKey {
    /// Forgets the proofs of the oldest second.
    fn forget_oldest(&mut self) -> usize {
        let Some((at, ids)) = self.by_time.pop_first() else { return 0 };
        self.since = at + 1;
        self.n_proofs -= ids.len();
        ids.len()
    }
}

impl UsedProofs {
    /// Takes a proof that was checked.
    ///
    /// # Errors
    /// It was used before, or it cannot be told that it was not.
    pub fn enter(&mut self, proof: &Proof, now: u64) -> Result<(), WrongProof> {
        let oldest = now.saturating_sub(DPOP_PROOF_AGE_MAX.as_secs());
        if self.swept_at != now {
            self.swept_at = now;
            self.sweep(oldest);
        }
        if !self.by_key.contains_key(&proof.key)
            && self.by_key.len() >= DPOP_KEYS_REMEMBERED_MAX
        {
            return Err(WrongProof::NoRoom);
        }
        let of_key = self.by_key.entry(proof.key).or_default();
        if proof.issued_at < of_key.since {
            return Err(WrongProof::NoRoom);
        }
        if !of_key.by_time.entry(proof.issued_at).or_default().insert(proof.id) {
            return Err(WrongProof::Replayed);
        }
        of_key.n_proofs += 1;
        self.n_proofs += 1;
        if of_key.n_proofs > DPOP_PROOFS_OF_KEY_MAX {
            self.n_proofs -= of_key.forget_oldest();
        }
        if self.n_proofs > DPOP_PROOFS_REMEMBERED_MAX {
            let most = self.by_key.values_mut().max_by_key(|it| it.n_proofs);
            self.n_proofs -= most.map_or(0, OfKey::forget_oldest);
        }
        Ok(())
    }

    /// Forgets proofs that were issued before `oldest`, which are too old by themselves.
    fn sweep(&mut self, oldest: u64) {
        for of_key in self.by_key.values_mut() {
            while of_key.by_time.first_key_value().is_some_and(|(at, _)| *at < oldest) {
                self.n_proofs -= of_key.forget_oldest();
            }
        }
        self.by_key.retain(|_, of_key| of_key.n_proofs > 0 || of_key.since > oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::test_issuer::TestKey;

    const NOW: u64 = 1_800_000_000;
    const URL: &str = "https://mcp.example/mcp";

    fn thumbprint(key: &TestKey) -> Thumbprint {
        Jwk::parse(&key.jwk("k")).unwrap().thumbprint()
    }

    fn expected(key: &TestKey) -> Expected<'static> {
        Expected { method: "POST", url: URL, token: "token", key: thumbprint(key), now: NOW }
    }

    fn header(key: &TestKey) -> String {
        let algorithm = key.algorithm().as_str();
        format!(r#"{{"typ":"dpop+jwt","alg":"{algorithm}","jwk":{{{}}}}}"#, key.members())
    }

    /// The claims of a proof, one of them changed; a change to nothing leaves it out.
    fn claims(name: &str, value: &str) -> String {
        let ath = format!("{:?}", URL_SAFE_NO_PAD.encode(sha256("token")));
        let (iat, url) = (NOW.to_string(), format!("{URL:?}"));
        let all = [
            ("jti", "\"one\""),
            ("htm", "\"POST\""),
            ("htu", url.as_str()),
            ("iat", iat.as_str()),
            ("ath", ath.as_str()),
        ];
        let all = all.map(|(it, good)| (it, if it == name { value } else { good }));
        let all = all.iter().filter(|(_, value)| !value.is_empty());
        let members: Vec<_> = all.map(|(name, value)| format!("{name:?}:{value}")).collect();
        format!("{{{}}}", members.join(","))
    }

    fn changed(name: &str, value: &str) -> Result<(), WrongProof> {
        let key = TestKey::ed25519(1);
        check(&key.sign(&header(&key), &claims(name, value)), &expected(&key)).map(|_| ())
    }

    #[test]
    fn a_proof_is_about_its_request_and_its_token() {
        for key in [TestKey::p256(), TestKey::ed25519(1), TestKey::rsa()] {
            let proof = key.sign(&header(&key), &claims("", ""));
            assert!(check(&proof, &expected(&key)).is_ok());
            let other = expected(&TestKey::p256());
            assert_eq!(check(&proof, &other), Err(WrongProof::OtherKey));
            let mut other = expected(&key);
            other.token = "another";
            assert_eq!(check(&proof, &other), Err(WrongProof::Token));
            (other.token, other.method) = ("token", "GET");
            assert_eq!(check(&proof, &other), Err(WrongProof::Method));
        }
        assert_eq!(changed("htm", "\"post\""), Err(WrongProof::Method));
        for name in ["jti", "htm", "ath", "iat"] {
            for value in ["", "[]", "null", "true"] {
                assert_eq!(
                    changed(name, value),
                    Err(WrongProof::Claim(name)),
                    "{name} {value}"
                );
            }
        }
        assert_eq!(changed("jti", "\"\""), Err(WrongProof::Claim("jti")));
        let long = format!("\"{}\"", "j".repeat(DPOP_JTI_BYTES_MAX + 1));
        assert_eq!(changed("jti", &long), Err(WrongProof::Claim("jti")));
    }

    #[test]
    fn urls_are_compared_without_query_and_in_one_spelling() {
        for same in [
            "https://mcp.example/mcp",
            "HTTPS://MCP.example:443/mcp",
            "https://mcp.example/mcp?a=b",
            "https://mcp.example/mcp#f",
            "https://mcp.example/%6dcp",
            "https://mcp.example/a/../mcp",
        ] {
            assert_eq!(changed("htu", &format!("{same:?}")), Ok(()), "{same}");
        }
        for other in [
            "http://mcp.example/mcp",
            "https://mcp.example/mcp/",
            "https://mcp.example/MCP",
            "https://mcp.example:8443/mcp",
            "https://mcp.example.evil/mcp",
            "https://mcp.example",
            "/mcp",
            "",
        ] {
            assert_eq!(changed("htu", &format!("{other:?}")), Err(WrongProof::Url), "{other}");
        }
        assert_eq!(normal_url("https://h"), normal_url("https://h/"));
    }

    #[test]
    fn a_proof_is_good_for_a_minute() {
        let at = |at: u64| changed("iat", &at.to_string());
        assert_eq!(at(NOW - 60), Ok(()));
        assert_eq!(at(NOW - 61), Err(WrongProof::Time));
        assert_eq!(at(NOW + 30), Ok(()));
        assert_eq!(at(NOW + 31), Err(WrongProof::Time));
        assert_eq!(changed("iat", &format!("{NOW}.5")), Ok(()));
        for nonsense in [u64::MAX, 0] {
            assert_eq!(at(nonsense), Err(WrongProof::Time));
        }
    }

    #[test]
    fn the_key_in_a_proof_is_public_and_has_signed_it() {
        let (key, other) = (TestKey::p256(), TestKey::p256());
        let with = |header: &str, by: &TestKey| {
            check(&by.sign(header, &claims("", "")), &expected(&key))
        };
        assert_eq!(with(&header(&key), &other), Err(WrongProof::Signature));
        let of_type = |typ: &str| header(&key).replace("dpop+jwt", typ);
        assert_eq!(with(&of_type("JWT"), &key), Err(WrongProof::Type));
        assert_eq!(with(&of_type("at+jwt"), &key), Err(WrongProof::Type));
        let private = header(&key).replace("\"kty\"", "\"d\":\"AA\",\"kty\"");
        assert_eq!(with(&private, &key), Err(WrongProof::Key));
        assert_eq!(with(r#"{"typ":"dpop+jwt","alg":"ES256"}"#, &key), Err(WrongProof::Key));
        for algorithm in ["none", "HS256"] {
            let header = header(&key).replace("ES256", algorithm);
            assert!(matches!(with(&header, &key), Err(WrongProof::Form(_))), "{algorithm}");
        }
        let confused = header(&key).replace("ES256", "RS256");
        assert_eq!(with(&confused, &key), Err(WrongProof::Key));
        let proof = key.sign(&header(&key), &claims("", ""));
        for end in 0..proof.len() {
            assert!(check(&proof[..end], &expected(&key)).is_err(), "cut at {end}");
        }
        let long = claims("jti", &format!("\"{}\"", "j".repeat(DPOP_PROOF_BYTES_MAX)));
        let long = check(&key.sign(&header(&key), &long), &expected(&key));
        assert_eq!(long, Err(WrongProof::Form(UnusableJws::TooLong)));
    }

    fn proof(key: u8, id: u64, issued_at: u64) -> Proof {
        let key = thumbprint(&TestKey::ed25519(key));
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&id.to_be_bytes());
        Proof { key, id: bytes, issued_at }
    }

    #[test]
    fn a_proof_is_used_once() {
        let mut used = UsedProofs::default();
        assert_eq!(used.enter(&proof(1, 7, NOW), NOW), Ok(()));
        assert_eq!(used.enter(&proof(1, 7, NOW), NOW + 60), Err(WrongProof::Replayed));
        assert_eq!(used.enter(&proof(1, 8, NOW), NOW), Ok(()));
        assert_eq!(used.enter(&proof(2, 7, NOW), NOW), Ok(()));
        assert_eq!((used.n_proofs, used.by_key.len()), (3, 2));
        // What is too old by itself is forgotten.
        assert_eq!(used.enter(&proof(3, 7, NOW + 61), NOW + 61), Ok(()));
        assert_eq!(used.n_proofs, 1);
        used.enter(&proof(3, 8, NOW + 200), NOW + 200).unwrap();
        assert_eq!((used.n_proofs, used.by_key.len()), (1, 1));
    }

    #[test]
    fn a_key_wears_out_its_own_bound_alone_and_is_never_replayed() {
        let mut used = UsedProofs::default();
        let one = proof(1, 0, 0);
        let of = |id: u64, issued_at: u64| Proof {
            issued_at,
            ..{
                let mut proof = one.clone();
                proof.id[..8].copy_from_slice(&id.to_be_bytes());
                proof
            }
        };
        assert_eq!(used.enter(&proof(2, 0, NOW - 60), NOW), Ok(()));
        let max = u64::try_from(DPOP_PROOFS_OF_KEY_MAX).unwrap();
        for id in 0..=max {
            let at = if id < max / 2 { NOW - 10 } else { NOW };
            assert_eq!(used.enter(&of(id, at), NOW), Ok(()), "{id}");
        }
        // The older half was forgotten, so nothing of that age is taken any more.
        assert_eq!(used.enter(&of(1, NOW - 10), NOW), Err(WrongProof::NoRoom));
        assert_eq!(used.enter(&of(max, NOW), NOW), Err(WrongProof::Replayed));
        assert_eq!(used.enter(&of(max + 1, NOW), NOW), Ok(()));
        assert_eq!(used.enter(&proof(2, 0, NOW - 60), NOW), Err(WrongProof::Replayed));
        let held: usize = used.by_key.values().map(|it| it.n_proofs).sum();
        assert_eq!(used.n_proofs, held);
    }
}
