//! Access tokens, DPoP proofs, documents of keys and answers of introspections. Nothing is accepted
//! but what says, for any other reader too, what it must say, and no signature is made up.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::Value;

use crate::limits::{JWKS_KEYS_MAX, TOKEN_LEEWAY};
use crate::oauth::dpop_proof_check::{self, Expected};
use crate::oauth::introspection::{self, Introspected};
use crate::oauth::jwk::{Jwk, JwkSet, Thumbprint};
use crate::oauth::jwt::{Claims, Unverified, Wanted};
use crate::oauth::signing_key::Algorithm;

const NOW: u64 = 1_800_000_000;
const WANTED: Wanted<'_> =
    Wanted { issuer: "https://i", audience: "https://a/mcp", base: None, machine_clients: &[] };

struct Key {
    pair: Ed25519KeyPair,
    jwk: String,
}

impl Key {
    fn new(seed: u8) -> Key {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let x = URL_SAFE_NO_PAD.encode(pair.public_key());
        Key { pair, jwk: format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","kid":"k"}}"#) }
    }

    fn set(&self) -> JwkSet {
        JwkSet::parse(format!(r#"{{"keys":[{}]}}"#, self.jwk).as_bytes()).unwrap()
    }

    fn thumbprint(&self) -> Thumbprint {
        Jwk::parse(&self.jwk).unwrap().thumbprint()
    }

    fn sign(&self, header: &str, payload: &str) -> String {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let signed = format!("{}.{}", encode(header), encode(payload));
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

pub(super) fn tokens(data: &[u8]) {
    keys(data);
    answers(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Nobody has signed anything by this key.
    let unused = Key::new(9);
    if let Ok(token) = Unverified::read(text) {
        token.signed_by(&unused.set()).unwrap_err();
    }
    let key = Key::new(5);
    let (header, payload) = text.split_once('\n').unwrap_or((r#"{"alg":"EdDSA"}"#, text));
    signed(&key, header, payload);
    proof(&key, &header.replace("\"JWK\"", &key.jwk), payload);
}

/// A token of any header and payload, signed as it should be.
fn signed(key: &Key, header: &str, payload: &str) {
    let token = key.sign(header, payload);
    let Ok(read) = Unverified::read(&token) else { return };
    read.signed_by(&Key::new(9).set()).unwrap_err();
    let Ok(claims) = read.check(WANTED, NOW) else { return };
    let header: Value = serde_json::from_str(header).unwrap();
    let is_signed = read.signed_by(&key.set()).is_ok();
    let is_named = header.get("kid").is_none_or(|kid| kid == "k");
    let is_ours = header["alg"] == "EdDSA" || header["alg"] == "Ed25519";
    assert_eq!(is_signed, is_named && is_ours, "{header}");
    assert!(header.get("crit").is_none(), "{header}");
    let typ = header.get("typ").map(|typ| typ.as_str().unwrap().to_lowercase());
    let typ = typ.as_deref().unwrap_or("jwt");
    let typ = typ.strip_prefix("application/").unwrap_or(typ);
    assert!(["jwt", "at+jwt"].contains(&typ), "{header}");
    let said: Value = serde_json::from_str(payload).unwrap();
    assert_eq!(said["iss"], WANTED.issuer);
    hold(&claims, &said);
    // Another issuer, another audience, another time.
    let other = Wanted { issuer: "https://I", ..WANTED };
    read.check(other, NOW).unwrap_err();
    let other = Wanted { audience: "https://a/mcp/", ..WANTED };
    if !said["aud"].to_string().contains("https://a/mcp/") {
        read.check(other, NOW).unwrap_err();
    }
    let end = claims.expires_at.saturating_add(TOKEN_LEEWAY.as_secs());
    read.check(WANTED, end).unwrap_err();
}

/// What was accepted, as another reader sees it.
fn hold(claims: &Claims, said: &Value) {
    let is_audience = |it: &Value| it == WANTED.audience;
    let is_for_us = match &said["aud"] {
        Value::Array(all) => all.iter().any(is_audience),
        one => is_audience(one),
    };
    assert!(is_for_us, "{said}");
    let leeway = TOKEN_LEEWAY.as_secs();
    assert!(claims.expires_at.saturating_add(leeway) > NOW, "{said}");
    for name in ["nbf", "iat"] {
        let at = said[name].as_f64().unwrap_or_default();
        assert!(at < (NOW + leeway + 1) as f64, "{said}");
    }
    assert_eq!(serde_json::from_str::<Value>(&claims.text).unwrap(), *said);
    if let Some(confirmation) = said.get("cnf").filter(|it| !it.is_null()) {
        let key = claims.bound_to.map(|key| key.encode());
        assert_eq!(confirmation["jkt"].as_str(), key.as_deref(), "{said}");
    }
}

/// A proof of any header and payload, signed as it should be.
fn proof(key: &Key, header: &str, payload: &str) {
    let expected = Expected {
        method: "POST",
        url: "https://a/mcp",
        token: "t",
        key: key.thumbprint(),
        now: NOW,
    };
    let proof = key.sign(header, payload);
    let other = Expected { key: Key::new(9).thumbprint(), ..expected };
    dpop_proof_check::check(&proof, &other).unwrap_err();
    if dpop_proof_check::check(&proof, &expected).is_err() {
        return;
    }
    let said: Value = serde_json::from_str(payload).unwrap();
    assert_eq!(said["htm"], "POST");
    assert!(said["htu"].as_str().unwrap().to_lowercase().starts_with("https://a"), "{said}");
    let at = said["iat"].as_f64().unwrap();
    assert!(((NOW - 60) as f64..(NOW + 31) as f64).contains(&at), "{said}");
    for other in [
        Expected { method: "GET", ..expected },
        Expected { url: "https://b/mcp", ..expected },
        Expected { token: "u", ..expected },
        Expected { now: NOW + 200, ..expected },
    ] {
        dpop_proof_check::check(&proof, &other).unwrap_err();
    }
}

fn keys(data: &[u8]) {
    let Ok(set) = JwkSet::parse(data) else { return };
    assert!(set.keys().len() + set.left_out().len() <= JWKS_KEYS_MAX);
    for key in set.keys() {
        assert!(set.has_key(&key.thumbprint()));
        let again = Thumbprint::parse(&key.thumbprint().encode());
        assert_eq!(again, Some(key.thumbprint()));
        let fitting = Algorithm::ALL.into_iter().filter(|it| key.is_for(*it)).count();
        assert!((1..=2).contains(&fitting));
        for algorithm in Algorithm::ALL {
            assert!(!key.verifies(algorithm, b"nobody has signed this", data));
        }
    }
}

fn answers(data: &[u8]) {
    let Ok(answer) = introspection::read(data, WANTED, None, NOW) else { return };
    let said: Value = serde_json::from_slice(data).unwrap();
    match answer {
        Introspected::Active(claims) => {
            assert_eq!(said["active"], true);
            hold(&claims, &said);
        }
        Introspected::Refused(_) => assert!(said["active"].is_boolean()),
    }
}
