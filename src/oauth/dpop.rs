//! Pure: proofs that a request's sender has the key to which its token is bound (RFC 9449).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::SecureRandom;
use serde_json::{Map, Value};

use super::random::random_id;
use super::signing_key::{Algorithm, SigningKey};
use super::unusable::Unusable;
use super::web_url::WebUrl;
use crate::secret::Secret;

/// The request that a proof is about.
#[derive(Debug, Clone, Copy)]
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

/// Makes a proof (RFC 9449 section 4.2): the value of the `DPoP` header. Its `jti` is 16 random
/// bytes.
///
/// # Errors
/// If the algorithm is not one of the key, or if there is no randomness.
pub fn proof(
    key: &SigningKey,
    algorithm: Algorithm,
    request: &ProofRequest<'_>,
    random: &dyn SecureRandom,
) -> Result<Secret, Unusable> {
    let mut header = Map::new();
    header.insert("typ".to_owned(), "dpop+jwt".into());
    header.insert("jwk".to_owned(), Value::from(key.public_jwk()));
    let mut claims = Map::new();
    claims.insert("jti".to_owned(), random_id(random)?.into());
    claims.insert("htm".to_owned(), request.method.into());
    claims.insert("htu".to_owned(), target(request.url).into());
    claims.insert("iat".to_owned(), request.now.into());
    if let Some(token) = request.access_token {
        let hash = digest(&SHA256, token.expose().as_bytes());
        claims.insert("ath".to_owned(), URL_SAFE_NO_PAD.encode(hash).into());
    }
    if let Some(nonce) = request.nonce {
        claims.insert("nonce".to_owned(), nonce.into());
    }
    key.sign(algorithm, header, &claims, random).map(Secret::new)
}

/// The URL without query, in the form in which receivers compare it (RFC 9449 section 4.3, RFC
/// 3986 section 6.2.2 and 6.2.3).
fn target(url: &WebUrl) -> String {
    let path = if url.path().is_empty() { "/" } else { url.path() };
    format!("{}{path}", url.origin())
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;

    fn claims(proof: &Secret) -> (Value, Value) {
        let mut parts = proof.expose().split('.').map(|part| {
            let bytes = URL_SAFE_NO_PAD.decode(part).unwrap();
            serde_json::from_slice::<Value>(&bytes).unwrap_or_default()
        });
        (parts.next().unwrap(), parts.next().unwrap())
    }

    #[test]
    fn a_proof_has_what_the_rfc_wants() {
        let random = SystemRandom::new();
        let der = SigningKey::generate(&random).unwrap();
        let key = SigningKey::from_pkcs8(&der).unwrap();
        let url = WebUrl::parse("HTTPS://Server.Example:443/resource?a=b").unwrap();
        // The access token and its hash are those of RFC 9449 section 7.1.
        let token = Secret::new("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU".to_owned());
        let request = ProofRequest {
            method: "POST",
            url: &url,
            now: 1_562_262_618,
            access_token: Some(&token),
            nonce: Some("n\"1"),
        };
        let first = proof(&key, Algorithm::Es256, &request, &random).unwrap();
        let (header, payload) = claims(&first);
        assert_eq!(header["typ"], "dpop+jwt");
        assert_eq!(header["alg"], "ES256");
        assert_eq!(header["jwk"], Value::from(key.public_jwk()));
        assert!(header["jwk"].get("d").is_none());
        assert_eq!(payload["htm"], "POST");
        assert_eq!(payload["htu"], "https://server.example/resource");
        assert_eq!(payload["iat"], 1_562_262_618);
        assert_eq!(payload["ath"], "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo");
        assert_eq!(payload["nonce"], "n\"1");
        let bare = ProofRequest { access_token: None, nonce: None, ..request };
        let (_, second) = claims(&proof(&key, Algorithm::Es256, &bare, &random).unwrap());
        assert_ne!(second["jti"], payload["jti"]);
        assert!(second.get("ath").is_none() && second.get("nonce").is_none());
        assert!(proof(&key, Algorithm::Rs256, &bare, &random).is_err());
        let root = WebUrl::parse("https://h").unwrap();
        assert_eq!(target(&root), "https://h/");
    }
}
