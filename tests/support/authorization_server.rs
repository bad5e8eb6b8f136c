//! A scripted authorization server, which agrees to every sign-in at once, and the guard that makes
//! of a scripted MCP server one that wants its tokens.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use super::gateway::Directory;
use super::http::{Head, Request, try_exchange};
use super::listener::{Incoming, Listener, Next};
use super::upstream_http::{HttpUpstream, respond};
use super::upstream_modern::ModernUpstream;
use super::upstream_sse::SseUpstream;
use super::{in_background, unique};

/// What comes back from the page of the authorization server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consent {
    /// The person agrees.
    Grants,
    /// The person does not.
    Denies,
    /// The answer names this issuer, whatever the metadata say.
    AsIssuer(String),
    /// The answer names no issuer.
    WithoutIssuer,
    /// Nobody does anything.
    Nothing,
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `POST /token`.
    pub line: String,
    /// The fields of its query or its form, or its JSON object under `body`.
    pub fields: HashMap<String, String>,
    pub authorization: Option<String>,
    /// The proof of `DPoP`.
    pub proof: Option<String>,
}

impl Seen {
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

/// The server.
pub struct AuthorizationServer {
    shared: Arc<Shared>,
    pub listener: Listener,
}

struct Shared {
    port: Mutex<u16>,
    state: Mutex<State>,
}

struct Code {
    challenge: String,
    redirect_uri: String,
    scope: String,
    client_id: String,
}

/// An OAuth client that has registered itself with scopes is held to them.
fn exceeds(registered: &str, wanted: &str) -> bool {
    !registered.is_empty() && !covers(registered, wanted)
}

struct Token {
    scope: String,
    ends: Option<Instant>,
}

struct State {
    /// Members of the metadata in place of the usual ones; null takes one out.
    metadata: Map<String, Value>,
    /// Where the metadata are.
    place: String,
    consent: Consent,
    lifetime: Option<Duration>,
    /// The `expires_in` of answers, in place of the lifetime.
    told_lifetime_s: Option<i64>,
    /// The `scope` of answers and of tokens, in place of what was asked for.
    granted_scope: Option<String>,
    gives_refresh_tokens: bool,
    revokes_access_tokens: bool,
    rotates: bool,
    codes: HashMap<String, Code>,
    tokens: HashMap<String, Token>,
    refresh_tokens: HashMap<String, String>,
    /// The scopes of each registration that names some.
    registered: HashMap<String, String>,
    /// Those that were lost.
    lost: HashSet<String>,
    spent: HashSet<String>,
    /// A refresh token was used a second time.
    n_reused: usize,
    failing: Option<(u16, Value)>,
    refused_scope: Option<String>,
    has_moved: bool,
    slow: Duration,
    slow_to_answer: Duration,
    seen: Vec<Seen>,
    /// Proofs must have this nonce.
    nonce: Option<String>,
    wants_dpop: bool,
    /// Another issuer than its own origin.
    issuer: Option<String>,
}

impl Default for AuthorizationServer {
    fn default() -> Self {
        Self::start()
    }
}

impl AuthorizationServer {
    pub fn start() -> AuthorizationServer {
        let state = State {
            metadata: Map::new(),
            place: "/.well-known/oauth-authorization-server".to_owned(),
            consent: Consent::Grants,
            lifetime: Some(Duration::from_secs(3600)),
            told_lifetime_s: None,
            granted_scope: None,
            gives_refresh_tokens: true,
            revokes_access_tokens: true,
            rotates: true,
            codes: HashMap::new(),
            tokens: HashMap::new(),
            refresh_tokens: HashMap::new(),
            registered: HashMap::new(),
            lost: HashSet::new(),
            spent: HashSet::new(),
            n_reused: 0,
            failing: None,
            refused_scope: None,
            has_moved: false,
            slow: Duration::ZERO,
            slow_to_answer: Duration::ZERO,
            seen: Vec::new(),
            nonce: None,
            wants_dpop: false,
            issuer: None,
        };
        let shared = Arc::new(Shared { port: Mutex::new(0), state: Mutex::new(state) });
        let serving = shared.clone();
        let listener = Listener::absent(move |request, out| serving.serve(request, out));
        *shared.port.lock().unwrap() = listener.port();
        listener.start();
        AuthorizationServer { shared, listener }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    pub fn issuer(&self) -> String {
        self.shared.issuer()
    }

    /// A member of the metadata; null takes it out.
    pub fn set_metadata(&self, name: &str, value: Value) {
        self.state().metadata.insert(name.to_owned(), value);
    }

    /// The metadata are at this path only.
    pub fn serve_metadata_at(&self, path: &str) {
        path.clone_into(&mut self.state().place);
    }

    pub fn consent(&self, consent: Consent) {
        self.state().consent = consent;
    }

    /// Access tokens live so long from here on.
    pub fn set_lifetime(&self, lifetime: Option<Duration>) {
        self.state().lifetime = lifetime;
    }

    /// Answers say that access tokens live so many seconds, whatever is true.
    pub fn tell_lifetime(&self, seconds: i64) {
        self.state().told_lifetime_s = Some(seconds);
    }

    /// Tokens are granted this scope from here on, and answers say so; `None` ends it.
    pub fn grant_only(&self, scope: Option<&str>) {
        self.state().granted_scope = scope.map(str::to_owned);
    }

    pub fn give_no_refresh_tokens(&self) {
        self.state().gives_refresh_tokens = false;
    }

    /// As where access tokens are JWTs.
    pub fn revoke_no_access_tokens(&self) {
        self.state().revokes_access_tokens = false;
    }

    /// Token requests are answered with this from here on; `None` ends it. `$name` in a description
    /// of the error becomes the field of that name of the request.
    pub fn fail_with(&self, answer: Option<(u16, Value)>) {
        self.state().failing = answer;
    }

    /// The token endpoint is `/moved/token` from here on, and nothing is at the old place.
    pub fn move_token_endpoint(&self) {
        let moved = format!("{}/moved/token", self.issuer());
        self.set_metadata("token_endpoint", moved.into());
        self.state().has_moved = true;
    }

    /// Nobody is given this scope: pages that ask for it lead to an error.
    pub fn refuse_scope(&self, scope: &str) {
        self.state().refused_scope = Some(scope.to_owned());
    }

    /// Token requests take so long.
    pub fn be_slow(&self, time: Duration) {
        self.state().slow = time;
    }

    /// The answers to token requests are held back for so long: what they grant is granted before.
    pub fn be_slow_to_answer(&self, time: Duration) {
        self.state().slow_to_answer = time;
    }

    /// Access tokens that were given are good for nothing any more.
    pub fn end_access_tokens(&self) {
        self.state().tokens.clear();
    }

    /// Refresh tokens that were given are good for nothing any more.
    pub fn end_refresh_tokens(&self) {
        self.state().refresh_tokens.clear();
    }

    /// The clients that have registered are unknown from here on.
    pub fn lose_registrations(&self) {
        let mut state = self.state();
        let lost: Vec<String> = state.registered.drain().map(|(id, _)| id).collect();
        state.lost.extend(lost);
    }

    /// Tokens are bound to a key, and proofs have this nonce.
    pub fn want_dpop(&self, nonce: Option<&str>) {
        let mut state = self.state();
        state.wants_dpop = true;
        state.nonce = nonce.map(str::to_owned);
    }

    /// How often a refresh token was used that had been used before.
    pub fn n_reused(&self) -> usize {
        self.state().n_reused
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// The requests so far that begin so.
    pub fn seen_of(&self, line: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.line == line).collect()
    }

    /// True if a token is good for all of these scopes.
    pub fn admits(&self, token: &str, scopes: &str) -> bool {
        self.shared.scopes_of(token).is_some_and(|has| covers(&has, scopes))
    }

    /// Makes of an MCP server one that wants tokens of this authorization server.
    pub fn protect(&self, upstream: &impl Guardable) -> Arc<Protection> {
        let protection = Arc::new(Protection {
            shared: Mutex::new(self.shared.clone()),
            url: upstream.url(),
            scope: Mutex::default(),
            scopes_of_methods: Mutex::default(),
            metadata: Mutex::default(),
            names_metadata: Mutex::new(true),
            is_own: Mutex::new(false),
            n_refused: Mutex::new(0),
            n_admitted: Mutex::new(0),
            strangers: Mutex::default(),
            last_token: Mutex::default(),
        });
        let guard = protection.clone();
        upstream.guard(move |request| guard.judge(request));
        protection
    }
}

/// What a guard does with a request: it may answer in place of the server.
pub type Guard = dyn Fn(&Incoming) -> Option<Guarded> + Send + Sync;

/// A scripted MCP server before which a guard may stand.
pub trait Guardable {
    /// Where the server is reached.
    fn url(&self) -> String;

    /// Shows every request to this one first.
    fn guard(&self, guard: impl Fn(&Incoming) -> Option<Guarded> + Send + Sync + 'static);
}

impl Guardable for HttpUpstream {
    fn url(&self) -> String {
        self.url()
    }

    fn guard(&self, guard: impl Fn(&Incoming) -> Option<Guarded> + Send + Sync + 'static) {
        self.guard(guard);
    }
}

impl Guardable for ModernUpstream {
    fn url(&self) -> String {
        self.url()
    }

    fn guard(&self, guard: impl Fn(&Incoming) -> Option<Guarded> + Send + Sync + 'static) {
        self.guard(guard);
    }
}

impl Guardable for SseUpstream {
    fn url(&self) -> String {
        self.url()
    }

    fn guard(&self, guard: impl Fn(&Incoming) -> Option<Guarded> + Send + Sync + 'static) {
        self.guard(guard);
    }
}

/// What stands before a protected MCP server.
pub struct Protection {
    shared: Mutex<Arc<Shared>>,
    url: String,
    /// The scope that challenges name.
    scope: Mutex<String>,
    /// The scopes that requests of a method need.
    scopes_of_methods: Mutex<HashMap<String, String>>,
    /// Members of the resource's metadata in place of the usual ones.
    metadata: Mutex<Map<String, Value>>,
    names_metadata: Mutex<bool>,
    /// The server has no metadata, and the endpoints of an authorization server at its own origin.
    is_own: Mutex<bool>,
    n_refused: Mutex<usize>,
    n_admitted: Mutex<usize>,
    /// The requests without credentials that were let in; none where none are.
    strangers: Mutex<Option<Vec<(Head, String)>>>,
    /// What the last request that was admitted carried.
    last_token: Mutex<String>,
}

/// What a guard answers in place of the server.
pub struct Guarded {
    status: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Protection {
    /// Requests need this scope, and challenges name it.
    pub fn need(&self, scope: &str) {
        scope.clone_into(&mut self.scope.lock().unwrap());
    }

    /// Calls of tools need this scope besides.
    pub fn need_for_calls(&self, scope: &str) {
        self.need_for("tools/call", scope);
    }

    /// Requests of that method need this scope besides.
    pub fn need_for(&self, method: &str, scope: &str) {
        self.scopes_of_methods.lock().unwrap().insert(method.to_owned(), scope.to_owned());
    }

    /// A member of the metadata.
    pub fn set_metadata(&self, name: &str, value: Value) {
        self.metadata.lock().unwrap().insert(name.to_owned(), value);
    }

    /// Challenges do not say where the metadata are.
    pub fn name_no_metadata(&self) {
        *self.names_metadata.lock().unwrap() = false;
    }

    /// The server has no metadata, and the endpoints of an authorization server beside its own.
    pub fn is_its_own_authorization_server(&self) {
        *self.is_own.lock().unwrap() = true;
        let shared = self.shared.lock().unwrap();
        let issuer = self.parts().0.to_owned();
        shared.state.lock().unwrap().issuer = Some(issuer);
    }

    /// The server belongs to another authorization server from here on.
    pub fn migrate_to(&self, other: &AuthorizationServer) {
        *self.shared.lock().unwrap() = other.shared.clone();
    }

    /// Requests without credentials are let in, too.
    pub fn admit_strangers(&self) {
        *self.strangers.lock().unwrap() = Some(Vec::new());
    }

    /// The heads and bodies of those that were.
    pub fn strangers(&self) -> Vec<(Head, String)> {
        self.strangers.lock().unwrap().clone().unwrap_or_default()
    }

    pub fn n_refused(&self) -> usize {
        *self.n_refused.lock().unwrap()
    }

    pub fn n_admitted(&self) -> usize {
        *self.n_admitted.lock().unwrap()
    }

    /// True if the last request that was admitted had a token that does not end by itself.
    pub fn is_used_without_end(&self) -> bool {
        let shared = self.shared.lock().unwrap().clone();
        let token = self.last_token.lock().unwrap().clone();
        let state = shared.state.lock().unwrap();
        state.tokens.get(&token).is_some_and(|token| token.ends.is_none())
    }

    /// The origin of the server, and its path there.
    fn parts(&self) -> (&str, &str) {
        self.url.split_at(self.url.rfind('/').unwrap())
    }

    fn metadata_url(&self) -> String {
        let (origin, path) = self.parts();
        format!("{origin}/.well-known/oauth-protected-resource{path}")
    }

    fn judge(&self, request: &Incoming) -> Option<Guarded> {
        let shared = self.shared.lock().unwrap().clone();
        let is_own = *self.is_own.lock().unwrap();
        if is_own && matches!(request.path(), "/register" | "/authorize" | "/token") {
            return Some(shared.handled(request));
        }
        let (origin, path) = self.parts();
        if self.metadata_url() == format!("{origin}{}", request.path()) && !is_own {
            let mut document =
                json!({ "resource": self.url, "authorization_servers": [shared.issuer()] });
            for (name, value) in &*self.metadata.lock().unwrap() {
                document[name.as_str()] = value.clone();
            }
            return Some(Guarded::json("200 OK", &document));
        }
        // Messages to a server over HTTP+SSE have a place of their own.
        let is_message = path == "/sse" && request.path() == "/messages";
        if request.path() != path && !is_message {
            return Some(Guarded::json("404 Not Found", &json!({})));
        }
        let authorization = request.head.header("Authorization").unwrap_or_default();
        if authorization.is_empty()
            && let Some(strangers) = &mut *self.strangers.lock().unwrap()
        {
            strangers.push((request.head.clone(), request.body.clone()));
            return None;
        }
        let (scheme, token) = authorization.split_once(' ').unwrap_or_default();
        let (wants_dpop, nonce) = shared.dpop();
        let is_scheme = scheme == if wants_dpop { "DPoP" } else { "Bearer" };
        let has = shared.scopes_of(token).filter(|_| is_scheme);
        let scope = self.scope.lock().unwrap().clone();
        let Some(has) = has else {
            return Some(self.refusal("401 Unauthorized", "invalid_token", &scope, wants_dpop));
        };
        if wants_dpop {
            let proof = claims(request.head.header("DPoP").unwrap_or_default());
            if let Some(nonce) = nonce
                && proof["nonce"] != nonce.as_str()
            {
                let mut refusal =
                    self.refusal("401 Unauthorized", "use_dpop_nonce", &scope, true);
                refusal.headers.push(("DPoP-Nonce".to_owned(), nonce));
                return Some(refusal);
            }
            let url = format!("{origin}{}", request.path());
            if proof["htu"] != url.as_str() || proof["htm"] != request.method.as_str() {
                return Some(self.refusal("401 Unauthorized", "invalid_dpop_proof", "", true));
            }
        }
        let scopes = self.scopes_of_methods.lock().unwrap();
        let is_of = |method: &str| request.body.contains(&format!("\"method\":\"{method}\""));
        let mut lacking = scopes.iter().filter(|(it, scope)| is_of(it) && !covers(&has, scope));
        if let Some((_, lacking)) = lacking.next() {
            let (status, error) = ("403 Forbidden", "insufficient_scope");
            return Some(self.refusal(status, error, lacking, wants_dpop));
        }
        drop(scopes);
        *self.n_admitted.lock().unwrap() += 1;
        token.clone_into(&mut self.last_token.lock().unwrap());
        None
    }

    fn refusal(&self, status: &str, error: &str, scope: &str, dpop: bool) -> Guarded {
        *self.n_refused.lock().unwrap() += 1;
        let scheme = if dpop { "DPoP" } else { "Bearer" };
        let mut challenge = format!("{scheme} error=\"{error}\"");
        if !scope.is_empty() {
            challenge.push_str(&format!(", scope=\"{scope}\""));
        }
        if *self.names_metadata.lock().unwrap() {
            challenge.push_str(&format!(", resource_metadata=\"{}\"", self.metadata_url()));
        }
        let headers = vec![("WWW-Authenticate".to_owned(), challenge)];
        Guarded { status: status.to_owned(), headers, body: String::new() }
    }
}

impl Guarded {
    pub(crate) fn write(&self, out: &mut TcpStream) -> io::Result<Next> {
        let headers = self.headers.iter();
        let headers: Vec<(&str, &str)> =
            headers.map(|(name, value)| (name.as_str(), value.as_str())).collect();
        respond(out, &self.status, &headers, &self.body)
    }

    pub fn new(status: &str, headers: &[(&str, &str)], body: &str) -> Guarded {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let headers = headers.iter().map(owned).collect();
        Guarded { status: status.to_owned(), headers, body: body.to_owned() }
    }

    fn json(status: &str, body: &Value) -> Guarded {
        let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        Guarded { status: status.to_owned(), headers, body: body.to_string() }
    }
}

/// The claims of a JWS, unchecked.
pub fn claims(jws: &str) -> Value {
    let part = jws.split('.').nth(1).unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn covers(has: &str, wanted: &str) -> bool {
    wanted.split_whitespace().all(|scope| has.split_whitespace().any(|it| it == scope))
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let hex: String = rest.by_ref().take(2).map(char::from).collect();
                bytes.push(u8::from_str_radix(&hex, 16).unwrap());
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(
            |byte| {
                if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
            },
        )
        .collect()
}

/// The fields of a query or a form.
pub fn form(text: &str) -> HashMap<String, String> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

impl Shared {
    fn issuer(&self) -> String {
        let own = || format!("http://127.0.0.1:{}", self.port.lock().unwrap());
        self.state.lock().unwrap().issuer.clone().unwrap_or_else(own)
    }

    fn dpop(&self) -> (bool, Option<String>) {
        let state = self.state.lock().unwrap();
        (state.wants_dpop, state.nonce.clone())
    }

    fn scopes_of(&self, token: &str) -> Option<String> {
        let state = self.state.lock().unwrap();
        let token = state.tokens.get(token)?;
        token.ends.is_none_or(|ends| Instant::now() < ends).then(|| token.scope.clone())
    }

    fn serve(&self, request: &Incoming, out: &mut TcpStream) -> io::Result<Next> {
        self.handled(request).write(out)
    }

    fn handled(&self, request: &Incoming) -> Guarded {
        let query = request.target.split_once('?').map_or("", |(_, query)| query);
        let is_json = request.body.starts_with('{');
        let fields = match (request.method.as_str(), is_json) {
            ("POST", true) => HashMap::from([("body".to_owned(), request.body.clone())]),
            ("POST", false) => form(&request.body),
            _ => form(query),
        };
        let seen = Seen {
            line: format!("{} {}", request.method, request.path()),
            fields,
            authorization: request.head.header("Authorization").map(str::to_owned),
            proof: request.head.header("DPoP").map(str::to_owned),
        };
        let (place, has_moved) = {
            let mut state = self.state.lock().unwrap();
            state.seen.push(seen.clone());
            (state.place.clone(), state.has_moved)
        };
        match request.path() {
            "/token" if has_moved => Guarded::new("404 Not Found", &[], "it is elsewhere"),
            path if path == place => Guarded::json("200 OK", &self.metadata()),
            "/register" => self.register(&seen),
            "/authorize" => self.authorize(&seen),
            "/token" | "/moved/token" => self.token(&seen),
            "/revoke" => {
                let mut state = self.state.lock().unwrap();
                if !state.revokes_access_tokens
                    && seen.field("token_type_hint") == "access_token"
                {
                    let error = json!({ "error": "unsupported_token_type" });
                    return Guarded::json("400 Bad Request", &error);
                }
                state.tokens.remove(seen.field("token"));
                state.refresh_tokens.remove(seen.field("token"));
                drop(state);
                Guarded::new("200 OK", &[], "")
            }
            _ => Guarded::new("404 Not Found", &[], "no such page"),
        }
    }

    fn metadata(&self) -> Value {
        let issuer = self.issuer();
        let mut document = json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/authorize"),
            "token_endpoint": format!("{issuer}/token"),
            "registration_endpoint": format!("{issuer}/register"),
            "revocation_endpoint": format!("{issuer}/revoke"),
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": true,
            "token_endpoint_auth_methods_supported": ["none"],
        });
        for (name, value) in &self.state.lock().unwrap().metadata {
            document[name.as_str()] = value.clone();
        }
        let object = document.as_object_mut().unwrap();
        object.retain(|_, value| !value.is_null());
        document
    }

    fn register(&self, seen: &Seen) -> Guarded {
        let mut body: Value = serde_json::from_str(seen.field("body")).unwrap_or_default();
        let id = unique("client");
        let scope = body["scope"].as_str().unwrap_or_default().to_owned();
        self.state.lock().unwrap().registered.insert(id.clone(), scope);
        body["client_id"] = id.into();
        Guarded::json("201 Created", &body)
    }

    fn authorize(&self, seen: &Seen) -> Guarded {
        let mut state = self.state.lock().unwrap();
        if state.lost.contains(seen.field("client_id")) {
            return Guarded::new("400 Bad Request", &[], "this client is not known");
        }
        let code = unique("code");
        let redirect_uri = seen.field("redirect_uri").to_owned();
        let granted = Code {
            challenge: seen.field("code_challenge").to_owned(),
            redirect_uri: redirect_uri.clone(),
            scope: seen.field("scope").to_owned(),
            client_id: seen.field("client_id").to_owned(),
        };
        state.codes.insert(code.clone(), granted);
        let consent = state.consent.clone();
        let registered = state.registered.get(seen.field("client_id"));
        let exceeds = registered.is_some_and(|it| exceeds(it, seen.field("scope")))
            || state.refused_scope.as_deref().is_some_and(|it| covers(seen.field("scope"), it));
        drop(state);
        let issuer = match &consent {
            Consent::AsIssuer(issuer) => Some(issuer.clone()),
            Consent::WithoutIssuer => None,
            Consent::Grants | Consent::Denies | Consent::Nothing => Some(self.issuer()),
        };
        if consent == Consent::Nothing {
            return Guarded::new("200 OK", &[], "do you agree?");
        }
        let mut target = match consent {
            Consent::Denies => format!("{redirect_uri}?error=access_denied"),
            _ if exceeds => format!("{redirect_uri}?error=invalid_scope"),
            _ => format!("{redirect_uri}?code={code}"),
        };
        target.push_str(&format!("&state={}", encoded(seen.field("state"))));
        if let Some(issuer) = issuer {
            target.push_str(&format!("&iss={}", encoded(&issuer)));
        }
        Guarded::new("302 Found", &[("Location", &target)], "")
    }

    fn token(&self, seen: &Seen) -> Guarded {
        let (failing, slow) = {
            let state = self.state.lock().unwrap();
            (state.failing.clone(), state.slow)
        };
        std::thread::park_timeout(slow);
        if let Some((status, body)) = failing {
            let mut body = body;
            if let Some(Value::String(described)) = body.get_mut("error_description") {
                for name in ["refresh_token", "code_verifier", "code", "client_secret"] {
                    *described = described.replace(&format!("${name}"), seen.field(name));
                }
            }
            return Guarded::json(&format!("{status} Failing"), &body);
        }
        let (wants_dpop, nonce) = self.dpop();
        if wants_dpop {
            let proof = claims(seen.proof.as_deref().unwrap_or_default());
            if let Some(nonce) = nonce.as_deref()
                && proof["nonce"] != nonce
            {
                let head = [("DPoP-Nonce", nonce), ("Content-Type", "application/json")];
                let body = json!({ "error": "use_dpop_nonce" }).to_string();
                return Guarded::new("400 Bad Request", &head, &body);
            }
        }
        match self.granted(seen) {
            Ok(scope) => {
                let answer = self.issue(&scope, seen.field("grant_type"));
                let slow = self.state.lock().unwrap().slow_to_answer;
                std::thread::park_timeout(slow);
                Guarded::json("200 OK", &answer)
            }
            Err(error) => Guarded::json("400 Bad Request", &json!({ "error": error })),
        }
    }

    /// The scope that a token request is granted.
    fn granted(&self, seen: &Seen) -> Result<String, &'static str> {
        let mut state = self.state.lock().unwrap();
        match seen.field("grant_type") {
            "authorization_code" => {
                let code = state.codes.remove(seen.field("code")).ok_or("invalid_grant")?;
                let verifier = seen.field("code_verifier").as_bytes();
                let digest = ring::digest::digest(&ring::digest::SHA256, verifier);
                let challenge = URL_SAFE_NO_PAD.encode(digest);
                let is_theirs = code.challenge == challenge
                    && code.redirect_uri == seen.field("redirect_uri")
                    && code.client_id == client_id(seen);
                if is_theirs { Ok(code.scope) } else { Err("invalid_grant") }
            }
            "refresh_token" => {
                let token = seen.field("refresh_token").to_owned();
                let Some(scope) = state.refresh_tokens.get(&token).cloned() else {
                    state.n_reused += usize::from(state.spent.contains(&token));
                    return Err("invalid_grant");
                };
                if state.rotates {
                    state.refresh_tokens.remove(&token);
                    state.spent.insert(token);
                }
                Ok(scope)
            }
            "client_credentials" | "urn:ietf:params:oauth:grant-type:jwt-bearer" => {
                Ok(seen.field("scope").to_owned())
            }
            _ => Err("unsupported_grant_type"),
        }
    }

    fn issue(&self, scope: &str, grant: &str) -> Value {
        let mut state = self.state.lock().unwrap();
        let token = unique("access-token");
        let ends = state.lifetime.map(|life| Instant::now() + life);
        let granted = state.granted_scope.clone();
        let scope = granted.as_deref().unwrap_or(scope);
        state.tokens.insert(token.clone(), Token { scope: scope.to_owned(), ends });
        let kind = if state.wants_dpop { "DPoP" } else { "Bearer" };
        let mut answer = json!({ "access_token": token, "token_type": kind });
        let told = state.told_lifetime_s.map(Value::from);
        let life = state.lifetime.map(|life| Value::from(life.as_secs()));
        if let Some(life) = told.or(life) {
            answer["expires_in"] = life;
        }
        if granted.is_some() {
            answer["scope"] = scope.into();
        }
        let refreshes = matches!(grant, "authorization_code" | "refresh_token");
        if refreshes && state.gives_refresh_tokens {
            let token = unique("refresh-token");
            state.refresh_tokens.insert(token.clone(), scope.to_owned());
            answer["refresh_token"] = token.into();
        }
        answer
    }
}

/// Who asks for a token.
fn client_id(seen: &Seen) -> String {
    let basic = seen.authorization.as_deref().and_then(|it| it.strip_prefix("Basic "));
    let basic = basic.and_then(|it| STANDARD.decode(it).ok());
    match basic.and_then(|it| String::from_utf8(it).ok()) {
        Some(pair) => decoded(pair.split(':').next().unwrap_or_default()),
        None => seen.field("client_id").to_owned(),
    }
}

/// A program for `$BROWSER`, and the person before it, who agrees at once: it follows the page to
/// where that redirects.
pub struct Browser {
    directory: Directory,
    stop: Arc<AtomicBool>,
    following: Option<JoinHandle<()>>,
    answers: Answers,
    n_followed: Arc<AtomicUsize>,
}

/// What a person was shown.
type Answers = Arc<Mutex<Vec<String>>>;

impl Default for Browser {
    fn default() -> Self {
        Self::start()
    }
}

impl Browser {
    pub fn start() -> Browser {
        let directory = Directory::new();
        let script = directory.path().join("browser.sh");
        let text = "#!/bin/sh\nprintf '%s\\n' \"$1\" >> \"$(dirname \"$0\")/pages\"\n";
        std::fs::write(&script, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&script, mode).unwrap();
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Answers::default());
        let (path, stopped, told) =
            (directory.path().to_path_buf(), stop.clone(), answers.clone());
        let n_followed = Arc::new(AtomicUsize::new(0));
        let n_done = n_followed.clone();
        let following = Some(in_background(move || {
            while !stopped.load(Ordering::Relaxed) {
                for page in pages(&path).iter().skip(n_done.load(Ordering::SeqCst)) {
                    told.lock().unwrap().extend(follow(page));
                    n_done.fetch_add(1, Ordering::SeqCst);
                }
                std::thread::park_timeout(Duration::from_millis(10));
            }
        }));
        Browser { directory, stop, following, answers, n_followed }
    }

    /// The value of `$BROWSER`.
    pub fn command(&self) -> String {
        format!("{} %s", self.directory.path().join("browser.sh").display())
    }

    /// The pages that were opened.
    pub fn pages(&self) -> Vec<String> {
        pages(self.directory.path())
    }

    /// The pages that have led the person as far as they go.
    pub fn n_followed(&self) -> usize {
        self.n_followed.load(Ordering::SeqCst)
    }

    /// What the person was shown at the end of each sign-in.
    pub fn answers(&self) -> Vec<String> {
        self.answers.lock().unwrap().clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(following) = self.following.take() {
            drop(following.join());
        }
    }
}

fn pages(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("pages")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Follows a page to where it redirects. Gives the last answer, unless the page stays.
pub fn follow(page: &str) -> Option<String> {
    let split = |url: &str| {
        let rest = url.strip_prefix("http://")?.to_owned();
        let (address, target) = rest.split_once('/')?;
        Some((address.to_owned(), format!("/{target}")))
    };
    let (address, target) = split(page)?;
    let answer = try_exchange(&address, &Request::get(&target)).ok()?;
    let location = answer.head.header("Location")?.to_owned();
    let (address, target) = split(&location)?;
    Some(try_exchange(&address, &Request::get(&target)).ok()?.to_string())
}
