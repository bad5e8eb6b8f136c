//! A scripted authorization server, as a resource server sees it: metadata, keys that it signs
//! access tokens with, and introspection.

use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use serde_json::{Value, json};

use super::listener::{Incoming, Listener, Next};
use super::upstream_http::respond;

/// The audience of the tokens of [`Issuer::token`].
pub const AUDIENCE: &str = "https://mcp.example.org/mcp";

/// A key with which tokens or proofs are signed.
pub enum SigningKey {
    P256(Box<EcdsaKeyPair>),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// A new P-256 key.
    pub fn p256() -> SigningKey {
        let random = SystemRandom::new();
        let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(kind, pkcs8.as_ref(), &random).unwrap();
        SigningKey::P256(Box::new(key))
    }

    /// A new Ed25519 key.
    pub fn ed25519() -> SigningKey {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        SigningKey::Ed25519(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::P256(_) => "ES256",
            Self::Ed25519(_) => "EdDSA",
        }
    }

    /// The public key as a JWK without further members.
    pub fn jwk(&self) -> Value {
        match self {
            Self::P256(key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                json!({ "crv": "P-256", "kty": "EC", "x": encode(x), "y": encode(y) })
            }
            Self::Ed25519(key) => {
                json!({ "crv": "Ed25519", "kty": "OKP", "x": encode(key.public_key().as_ref()) })
            }
        }
    }

    /// RFC 7638: the digest of the required members, in their order.
    pub fn thumbprint(&self) -> String {
        encode(&sha256(self.jwk().to_string().as_bytes()))
    }

    /// A JWS of that header and payload.
    pub fn sign(&self, header: &Value, payload: &Value) -> String {
        self.sign_text(header, &payload.to_string())
    }

    fn sign_text(&self, header: &Value, payload: &str) -> String {
        let signed =
            format!("{}.{}", encode(header.to_string().as_bytes()), encode(payload.as_bytes()));
        let signature = match self {
            Self::P256(key) => {
                key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap().as_ref().to_vec()
            }
            Self::Ed25519(key) => key.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", encode(&signature))
    }

    /// A DPoP proof for one request with a token (RFC 9449, section 4.2).
    pub fn proof(&self, method: &str, url: &str, token: &str) -> String {
        let mut jti = [0; 16];
        SystemRandom::new().fill(&mut jti).unwrap();
        let header = json!({ "typ": "dpop+jwt", "alg": self.algorithm(), "jwk": self.jwk() });
        let payload = json!({ "jti": encode(&jti), "htm": method, "htu": url,
            "iat": now(), "ath": encode(&sha256(token.as_bytes())) });
        self.sign(&header, &payload)
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().to_vec()
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[derive(Default)]
struct State {
    url: String,
    /// The key id and the key of each key that is published.
    keys: Vec<(String, Arc<SigningKey>)>,
    /// What is said of opaque tokens; others are not active.
    opaque: HashMap<String, Value>,
    n_asked: HashMap<String, usize>,
    /// The `Authorization` of the last introspection.
    introspected_by: Option<String>,
    delay: Duration,
}

/// The server.
pub struct Issuer {
    state: Arc<Mutex<State>>,
    pub listener: Listener,
}

impl Issuer {
    /// A server with one key, `one`.
    pub fn start() -> Issuer {
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = state.clone();
        let listener = Listener::absent(move |request, out| serve(&shared, request, out));
        let mut locked = state.lock().unwrap();
        locked.url = format!("http://127.0.0.1:{}", listener.port());
        locked.keys = vec![("one".to_owned(), Arc::new(SigningKey::p256()))];
        drop(locked);
        listener.start();
        Issuer { state, listener }
    }

    /// The issuer, as tokens have it.
    pub fn url(&self) -> String {
        self.state.lock().unwrap().url.clone()
    }

    /// The configuration of this issuer.
    pub fn config(&self) -> Value {
        json!({ "issuer": self.url(), "audience": AUDIENCE })
    }

    /// The same with introspection.
    pub fn config_with_introspection(&self) -> Value {
        let mut config = self.config();
        config["introspection"] =
            json!({ "client_id": "gateway", "client_secret": "introspection-secret" });
        config
    }

    /// Replaces the published keys by a new one of that id.
    pub fn rotate_to(&self, kid: &str, key: SigningKey) {
        self.state.lock().unwrap().keys = vec![(kid.to_owned(), Arc::new(key))];
    }

    /// The claims of a user's token that ends in that many seconds.
    pub fn claims(&self, subject: &str, seconds: i64) -> Value {
        let end = i64::try_from(now()).unwrap() + seconds;
        json!({ "iss": self.url(), "sub": subject, "aud": AUDIENCE, "exp": end,
            "iat": now(), "client_id": "a-client" })
    }

    /// A token with these claims, signed with the newest key.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_text(&claims.to_string())
    }

    /// The same of claims that are an object's text, in their order.
    pub fn sign_text(&self, claims: &str) -> String {
        let (kid, key) = self.state.lock().unwrap().keys.last().cloned().unwrap();
        let header = json!({ "typ": "at+jwt", "alg": key.algorithm(), "kid": kid });
        key.sign_text(&header, claims)
    }

    /// A token of a user of these groups, good for an hour.
    pub fn token(&self, subject: &str, groups: &[&str]) -> String {
        self.token_for(subject, groups, 3600)
    }

    /// The same, good for that many seconds.
    pub fn token_for(&self, subject: &str, groups: &[&str], seconds: i64) -> String {
        let mut claims = self.claims(subject, seconds);
        claims["groups"] = json!(groups);
        self.sign(&claims)
    }

    /// An opaque token, of which introspection tells these claims.
    pub fn opaque(&self, token: &str, claims: Value) -> String {
        let mut claims = claims;
        claims["active"] = json!(true);
        self.state.lock().unwrap().opaque.insert(token.to_owned(), claims);
        token.to_owned()
    }

    /// The token is not active from now on.
    pub fn revoke(&self, token: &str) {
        self.state.lock().unwrap().opaque.remove(token);
    }

    /// Every answer comes so much later.
    pub fn delay(&self, delay: Duration) {
        self.state.lock().unwrap().delay = delay;
    }

    /// The number of requests of that path.
    pub fn n_asked(&self, path: &str) -> usize {
        self.state.lock().unwrap().n_asked.get(path).copied().unwrap_or_default()
    }

    /// The `Authorization` of the last introspection.
    pub fn introspected_by(&self) -> Option<String> {
        self.state.lock().unwrap().introspected_by.clone()
    }
}

fn serve(
    state: &Mutex<State>,
    request: &Incoming,
    out: &mut TcpStream,
) -> std::io::Result<Next> {
    let path = request.path().to_owned();
    let (status, body, delay): (&str, Value, Duration) = {
        let mut state = state.lock().unwrap();
        *state.n_asked.entry(path.clone()).or_default() += 1;
        let (status, body) = match path.as_str() {
            "/.well-known/oauth-authorization-server" => ("200 OK", metadata(&state.url)),
            "/jwks" => {
                let key = |(kid, key): &(String, Arc<SigningKey>)| {
                    let mut jwk = key.jwk();
                    jwk["kid"] = json!(kid);
                    jwk
                };
                ("200 OK", json!({ "keys": state.keys.iter().map(key).collect::<Vec<_>>() }))
            }
            "/introspect" => {
                state.introspected_by = request.head.header("Authorization").map(str::to_owned);
                let token = request.body.split('&').find_map(|it| it.strip_prefix("token="));
                let said = token.and_then(|token| state.opaque.get(token)).cloned();
                ("200 OK", said.unwrap_or_else(|| json!({ "active": false })))
            }
            _ => ("404 Not Found", json!({})),
        };
        (status, body, state.delay)
    };
    std::thread::sleep(delay);
    respond(out, status, &[("Content-Type", "application/json")], &body.to_string())?;
    Ok(Next::Keep)
}

fn metadata(url: &str) -> Value {
    json!({
        "issuer": url,
        "authorization_endpoint": format!("{url}/authorize"),
        "token_endpoint": format!("{url}/token"),
        "jwks_uri": format!("{url}/jwks"),
        "introspection_endpoint": format!("{url}/introspect"),
        "response_types_supported": ["code"],
        "code_challenge_methods_supported": ["S256"],
    })
}
