//! Tests of the resource server with a scripted issuer.

mod introspection;
mod keys;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::config::{
    ClaimConfig, IntrospectedTokens, IntrospectionConfig, IssuerConfig, RuleConfig,
};
use crate::limits::{
    DECISIONS_BYTES_MAX, DECISIONS_PER_USER_MAX, INTROSPECTION_FRESH, INTROSPECTION_LIFE,
    INTROSPECTION_TIMEOUT, INTROSPECTIONS_AT_ONCE_MAX, INTROSPECTIONS_WAITING_MAX,
    KEYS_FETCH_INTERVAL_MIN, REFUSAL_LIFE,
};
use crate::oauth::fetch::{FetchAnswer, FetchContent, FetchError, FetchRequest, Reach};
use crate::oauth::form::Form;
use crate::oauth::test_issuer::{TestKey, jwks};
use crate::oauth::token::TokenType;
use crate::protocol::server_name::ServerName;
use crate::secret::Secret;
use crate::sync::RwLock;

const ISSUER: &str = "https://idp.example";
const OTHER: &str = "https://other.example/tenant";

const AUDIENCE: &str = "https://mcp.example/mcp";
const DAY: Duration = Duration::from_secs(86_400);

/// Issuers behind one door.
#[derive(Default)]
struct Scripted {
    /// Documents by URL.
    documents: Mutex<HashMap<String, String>>,
    /// What is said of tokens at `…/introspect`.
    tokens: Mutex<HashMap<String, String>>,
    is_down: Mutex<bool>,
    /// An issuer that does not answer questions about tokens.
    hangs: Mutex<Option<&'static str>>,
    /// Questions about tokens are not answered while this is held.
    gate: RwLock<()>,
    /// The time that an introspection takes.
    delay: Mutex<Duration>,
    /// The time that every other answer takes, and then does not come.
    hang: Mutex<Duration>,
    /// True for an issuer that wants the secret of the OAuth client in the form.
    wants_post: Mutex<bool>,
    /// True for the next request to panic.
    panics: Mutex<bool>,
    asked: Mutex<Vec<(String, Reach)>>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl Scripted {
    fn set(&self, url: &str, document: impl Into<String>) {
        self.documents.lock().insert(url.to_owned(), document.into());
    }

    fn say(&self, token: &str, answer: impl Into<String>) {
        self.tokens.lock().insert(token.to_owned(), answer.into());
    }

    /// What one issuer says of a token that others do not know.
    fn say_at(&self, issuer: &str, token: &str, answer: impl Into<String>) {
        self.say(&format!("{issuer}/introspect {token}"), answer);
    }

    /// An issuer that has these keys.
    fn issuer(&self, issuer: &str, keys: &[&str]) {
        let metadata = format!(
            r#"{{"issuer":"{issuer}","jwks_uri":"{issuer}/jwks","introspection_endpoint":"{issuer}/introspect"}}"#
        );
        self.set(&metadata_url(issuer), metadata);
        self.set(&format!("{issuer}/jwks"), jwks(keys));
    }

    fn n_asked(&self, end: &str) -> usize {
        self.asked.lock().iter().filter(|(url, _)| url.ends_with(end)).count()
    }

    fn introspect(&self, url: &str, form: &Secret) -> String {
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        drop(self.gate.read());
        let delay = *self.delay.lock();
        std::thread::sleep(delay);
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        let form = Form::parse(form.expose()).unwrap();
        let token = form.once("token").unwrap().unwrap().to_owned();
        let tokens = self.tokens.lock();
        let answer =
            tokens.get(&format!("{url} {token}")).or_else(|| tokens.get(&token)).cloned();
        answer.unwrap_or_else(|| r#"{"active":false}"#.to_owned())
    }
}

impl Fetch for Scripted {
    fn fetch(&self, request: &FetchRequest<'_>) -> Result<FetchAnswer, FetchError> {
        let url = request.url.as_str().to_owned();
        self.asked.lock().push((url.clone(), request.reach));
        assert!(!std::mem::take(&mut *self.panics.lock()), "on purpose");
        let hang = *self.hang.lock();
        if !hang.is_zero() {
            std::thread::sleep(hang.min(request.timeout));
            return Err(FetchError::Failed("no answer".to_owned()));
        }
        if *self.is_down.lock() {
            return Err(FetchError::Failed("refused".to_owned()));
        }
        let body = match request.content {
            FetchContent::Form(form) => {
                if form.expose().contains("token=malformed") {
                    return Ok(FetchAnswer { status: 400, ..FetchAnswer::default() });
                }
                if *self.wants_post.lock() {
                    if !request.headers.is_empty() {
                        return Ok(FetchAnswer { status: 401, ..FetchAnswer::default() });
                    }
                    assert!(form.expose().contains("client_secret=s%2B"), "{}", form.expose());
                    return Ok(FetchAnswer {
                        status: 200,
                        body: self.introspect(&url, form).into_bytes(),
                        ..FetchAnswer::default()
                    });
                }
                let (name, value) = &request.headers[0];
                assert_eq!((*name, value.expose()), ("authorization", "Basic Z3c6cyUyQg=="));
                let hangs = *self.hangs.lock();
                if hangs.is_some_and(|issuer| url.starts_with(issuer)) {
                    return Err(FetchError::Failed("it hangs".to_owned()));
                }
                Some(self.introspect(&url, form))
            }
            FetchContent::Get | FetchContent::Json(_) => {
                self.documents.lock().get(&url).cloned()
            }
        };
        let status = if body.is_some() { 200 } else { 404 };
        let body = body.unwrap_or_default().into_bytes();
        Ok(FetchAnswer { status, body, ..FetchAnswer::default() })
    }
}

fn metadata_url(issuer: &str) -> String {
    let url = crate::oauth::web_url::WebUrl::parse(issuer).unwrap();
    crate::oauth::server_metadata::locations(&url)[1].as_str().to_owned()
}

fn issuer(issuer: &str) -> IssuerConfig {
    IssuerConfig {
        issuer: issuer.to_owned(),
        audience: AUDIENCE.to_owned(),
        base: None,
        jwks_uri: None,
        ca_file: None,
        machine_clients: Vec::new(),
        introspection: None,
    }
}

fn introspecting(tokens: IntrospectedTokens) -> IssuerConfig {
    let introspection = IntrospectionConfig {
        client_id: "gw".to_owned(),
        client_secret: Secret::new("s+".to_owned()),
        endpoint: None,
        tokens,
    };
    IssuerConfig { introspection: Some(introspection), ..issuer(ISSUER) }
}

fn rule(claim: Option<(&str, &str)>) -> RuleConfig {
    let claim = claim.map(|(name, value)| ClaimConfig {
        name: name.to_owned(),
        any: vec![value.to_owned()],
    });
    RuleConfig { claim, servers: None, tools: None, calls_per_minute: Some(5), admin: false }
}

fn config(issuers: Vec<IssuerConfig>, rules: Vec<RuleConfig>) -> OAuthConfig {
    OAuthConfig { issuers, rules, jwks_max_age: DAY }
}

fn owners() -> Owners {
    let name = ServerName::parse("a").unwrap();
    Owners::new("-", [(&name, None)])
}

struct Rig {
    scripted: Arc<Scripted>,
    server: ResourceServer,
    verifier: Arc<Verifier>,
}

fn always(scripted: &Arc<Scripted>) -> Arc<FetchOf> {
    let scripted = scripted.clone();
    Arc::new(move |_| scripted.clone())
}

impl Rig {
    fn new(scripted: Scripted, config: &OAuthConfig) -> Rig {
        let scripted = Arc::new(scripted);
        let server = ResourceServer::new(always(&scripted));
        let verifier = server.verifier(config, &owners()).unwrap();
        Rig { scripted, server, verifier }
    }

    fn verify(&self, token: &str) -> Result<Arc<Accepted>, Denied> {
        self.verifier.verify(&presented(token), Now::read())
    }

    fn verify_at(&self, token: &str, now: Now) -> Result<Arc<Accepted>, Denied> {
        self.verifier.verify(&presented(token), now)
    }
}

fn n_remembered(verifier: &Verifier) -> usize {
    verifier.decisions.read().len()
}

fn presented(token: &str) -> Presented<'_> {
    Presented {
        scheme: TokenType::Bearer,
        token: Token(token),
        method: "POST",
        url: AUDIENCE,
        proofs: &[],
        peer: None,
    }
}

fn later(by: Duration) -> Now {
    let now = Now::read();
    Now { instant: now.instant + by, unix: now.unix + by.as_secs() }
}

fn claims(issuer: &str, subject: &str, more: &str) -> String {
    let exp = Now::read().unix + 2 * DAY.as_secs();
    format!(r#"{{"iss":"{issuer}","sub":"{subject}","aud":"{AUDIENCE}","exp":{exp}{more}}}"#)
}

fn active(subject: &str, more: &str) -> String {
    format!(r#"{{"active":true,"sub":"{subject}","aud":"{AUDIENCE}"{more}}}"#)
}

fn wrong(result: Result<Arc<Accepted>, Denied>) -> WrongToken {
    match result {
        Err(Denied::Token(wrong)) => wrong,
        other => panic!("{other:?}"),
    }
}

fn is_unavailable(result: &Result<Arc<Accepted>, Denied>) -> bool {
    matches!(result, Err(Denied::Unavailable { .. }))
}

/// A rig with one issuer that has one key `k`, and one rule for everybody.
fn simple() -> (Rig, TestKey) {
    let (scripted, key) = (Scripted::default(), TestKey::p256());
    scripted.issuer(ISSUER, &[&key.jwk("k")]);
    (Rig::new(scripted, &config(vec![issuer(ISSUER)], vec![rule(None)])), key)
}

fn opaque() -> Rig {
    let scripted = Scripted::default();
    scripted.issuer(ISSUER, &[]);
    let issuers = vec![introspecting(IntrospectedTokens::Opaque)];
    Rig::new(scripted, &config(issuers, vec![rule(None)]))
}

#[test]
fn an_accepted_token_is_remembered() {
    let (rig, key) = simple();
    let token = key.token("k", &claims(ISSUER, "alice", r#","email":"a@x""#));
    let accepted = rig.verify(&token).unwrap();
    let principal = &accepted.principal;
    assert_eq!(principal.name.as_deref(), Some("alice@idp.example"));
    assert_eq!(principal.label().map(|it| &**it), Some("idp.example"));
    let user = principal.user.as_ref().unwrap();
    assert_eq!(user.claim("email").as_deref(), Some("a@x"));
    let again = rig.verify(&token).unwrap();
    assert!(Arc::ptr_eq(&accepted, &again));
    // Another token of the same user has the same bucket.
    let other = rig.verify(&key.token("k", &claims(ISSUER, "alice", ""))).unwrap();
    let bucket = |it: &Accepted| it.principal.user.as_ref().unwrap().quota.clone().unwrap();
    assert!(Arc::ptr_eq(&bucket(&accepted), &bucket(&other)));
    assert_eq!((n_remembered(&rig.verifier), rig.scripted.n_asked("/jwks")), (2, 1));
    let end = Now { unix: accepted.expires_at + 30, ..Now::read() };
    assert_eq!(wrong(rig.verify_at(&token, end)), WrongToken::Expired);
    assert_eq!(rig.verifier.standing(&accepted, end), Standing::Ended);
    assert_eq!(accepted.time_left(end), Duration::ZERO);
    let before = Now { unix: accepted.expires_at + 29, ..Now::read() };
    assert_eq!(rig.verifier.standing(&accepted, before), Standing::Good);
    assert!(!format!("{accepted:?}").contains(&token));
}

#[test]
fn issuers_do_not_speak_for_each_other() {
    let (scripted, ours, theirs) = (Scripted::default(), TestKey::p256(), TestKey::p256());
    scripted.issuer(ISSUER, &[&ours.jwk("k")]);
    scripted.issuer(OTHER, &[&theirs.jwk("k")]);
    let machine_clients = vec!["alice".to_owned()];
    let issuers = vec![IssuerConfig { machine_clients, ..issuer(ISSUER) }, issuer(OTHER)];
    let rig = Rig::new(scripted, &config(issuers, vec![rule(None)]));
    let one = rig.verify(&ours.token("k", &claims(ISSUER, "alice", ""))).unwrap();
    let two = rig.verify(&theirs.token("k", &claims(OTHER, "alice", ""))).unwrap();
    assert_ne!(one.principal.id, two.principal.id);
    let user = |it: &Accepted| it.principal.user.as_ref().unwrap().issuer.clone();
    assert_eq!((&*user(&one), &*user(&two)), (ISSUER, OTHER));
    let forged = theirs.token("k", &claims(ISSUER, "alice", ""));
    assert_eq!(wrong(rig.verify(&forged)), WrongToken::Signature);
    let nobody = ours.token("k", &claims("https://evil.example", "alice", ""));
    assert!(matches!(wrong(rig.verify(&nobody)), WrongToken::Issuer(_)));
    // A client without a user is nobody else's user.
    let client = claims(ISSUER, "alice", "").replace("\"sub\"", "\"client_id\"");
    let client = rig.verify(&ours.token("k", &client)).unwrap();
    assert_ne!(client.principal.id, one.principal.id);
}

#[test]
fn a_token_without_a_rule_is_denied_with_the_scopes_that_would_help() {
    let (scripted, key) = (Scripted::default(), TestKey::p256());
    scripted.issuer(ISSUER, &[&key.jwk("k")]);
    let rules = vec![rule(Some(("groups", "ops"))), rule(Some(("scope", "mcp:call")))];
    let rig = Rig::new(scripted, &config(vec![issuer(ISSUER)], rules));
    let denied = rig.verify(&key.token("k", &claims(ISSUER, "a", ""))).unwrap_err();
    assert_eq!(denied.error().as_str(), "insufficient_scope");
    assert!(matches!(denied, Denied::NoRule { scopes, .. } if *scopes == ["mcp:call".into()]));
    assert_eq!(rig.verifier.scopes(), ["mcp:call".into()]);
    assert!(
        rig.verify(&key.token("k", &claims(ISSUER, "a", r#","scp":"x mcp:call""#))).is_ok()
    );
    assert_eq!(rig.verifier.issuers().collect::<Vec<_>>(), [ISSUER]);
}

#[test]
fn a_reload_gives_other_rights_and_keeps_the_keys() {
    let (rig, key) = simple();
    let token = key.token("k", &claims(ISSUER, "alice", r#","groups":["ops"]"#));
    let accepted = rig.verify(&token).unwrap();
    let mut ops = rule(Some(("groups", "ops")));
    ops.admin = true;
    let again =
        rig.server.verifier(&config(vec![issuer(ISSUER)], vec![ops]), &owners()).unwrap();
    assert_eq!(n_remembered(&again), 0);
    let present = again.present(&accepted, Now::read()).unwrap();
    assert!(present.is_admin && !accepted.principal.is_admin);
    assert_eq!(present.id, accepted.principal.id);
    assert_eq!(again.standing(&accepted, Now::read()), Standing::Good);
    assert!(again.admits(&accepted, Now::read()));
    assert_eq!(accepted.admitted_by.load(Ordering::Relaxed), again.number);
    assert_eq!(rig.scripted.n_asked("/jwks"), 1);
    // No rule, another audience, and no such issuer any more.
    let audience = IssuerConfig { audience: "https://b.example".to_owned(), ..issuer(ISSUER) };
    for (issuer, rule) in [
        (issuer(ISSUER), rule(Some(("groups", "dev")))),
        (audience, rule(None)),
        (issuer(OTHER), rule(None)),
    ] {
        let other = rig.server.verifier(&config(vec![issuer], vec![rule]), &owners()).unwrap();
        assert!(other.present(&accepted, Now::read()).is_none());
        assert!(!other.admits(&accepted, Now::read()));
    }
}

#[test]
fn an_oauth_client_that_a_reload_takes_out_of_the_machine_clients_loses_what_is_open() {
    let (scripted, key) = (Scripted::default(), TestKey::p256());
    scripted.issuer(ISSUER, &[&key.jwk("k")]);
    let with = |clients: &[&str]| {
        let machine_clients = clients.iter().map(|it| (*it).to_owned()).collect();
        let of = IssuerConfig { machine_clients, ..issuer(ISSUER) };
        config(vec![of], vec![rule(None)])
    };
    let rig = Rig::new(scripted, &with(&["batch"]));
    let of_client = claims(ISSUER, "batch", "").replace("\"sub\"", "\"client_id\"");
    let client = rig.verify(&key.token("k", &of_client)).unwrap();
    let user = rig.verify(&key.token("k", &claims(ISSUER, "batch", ""))).unwrap();
    for (clients, is_admitted) in [(&["batch", "other"][..], true), (&["other"], false)] {
        let after = rig.server.verifier(&with(clients), &owners()).unwrap();
        assert_eq!(after.admits(&client, Now::read()), is_admitted, "{clients:?}");
        assert!(after.admits(&user, Now::read()));
    }
}

#[test]
fn a_token_that_was_not_accepted_before_is_not_known() {
    let (rig, key) = simple();
    let token = key.token("k", &claims(ISSUER, "alice", ""));
    let known = || rig.verifier.verify_known(&presented(&token), Now::read()).is_some();
    assert!(!known());
    rig.verify(&token).unwrap();
    assert!(known());
    let with_proof = Presented { scheme: TokenType::DPoP, ..presented(&token) };
    assert!(rig.verifier.verify_known(&with_proof, Now::read()).is_none());
}

#[test]
fn few_large_tokens_are_remembered() {
    let (rig, key) = simple();
    let one = rig.verify(&key.token("k", &claims(ISSUER, "alice", ""))).unwrap();
    let insert = |n: u64, claims: &Arc<str>| {
        let user = crate::access::user::User {
            issuer: ISSUER.into(),
            issuer_name: "idp".into(),
            subject: n.to_string().into(),
            kind: crate::access::user::SubjectKind::Subject,
            claims: claims.clone(),
            quota: None,
        };
        let principal = crate::access::policy::Principal {
            name: None,
            id: Some(n.to_string().into()),
            policy: Default::default(),
            is_admin: false,
            key: None,
            user: Some(user),
        };
        let accepted = Accepted {
            principal: Arc::new(principal),
            expires_at: u64::MAX,
            digest: token_digest::TokenDigest::of(&n.to_string()),
            issuer: one.issuer.clone(),
            subject: one.subject.clone(),
            scopes: Box::default(),
            resources: Box::default(),
            bound_to: None,
            signed_by: None,
            news: accepted::News::new(None),
            admitted_by: 0.into(),
        };
        let mut decisions = rig.verifier.decisions.write();
        decisions.insert(Arc::new(accepted), n);
        assert!(decisions.bytes <= DECISIONS_BYTES_MAX, "{n}: {}", decisions.bytes);
        decisions.len()
    };
    // Small ones that were used long ago, then large ones.
    let (small, large): (Arc<str>, Arc<str>) = ("{}".into(), "x".repeat(256 * 1024).into());
    let small = (0..500).fold(0, |_, n| insert(n, &small));
    let most = (500..700).fold(0, |_, n| insert(n, &large));
    assert_eq!(small, 501, "with that of the rig");
    assert!((32..=64).contains(&most), "{most}");
}

#[test]
fn refused_tokens_are_remembered_for_a_while() {
    let rig = opaque();
    assert_eq!(wrong(rig.verify("bad")), WrongToken::Inactive);
    assert_eq!(wrong(rig.verify("bad")), WrongToken::Inactive);
    assert_eq!(rig.scripted.n_asked("/introspect"), 1);
    rig.scripted.say("bad", active("alice", ""));
    rig.verify_at("bad", later(REFUSAL_LIFE)).unwrap();
    for no_token in ["", "a b", "a\"b", "é"] {
        assert!(matches!(wrong(rig.verify(no_token)), WrongToken::Form(_)), "{no_token}");
    }
    assert_eq!(rig.scripted.n_asked("/introspect"), 2);
    let long = "a".repeat(crate::limits::ACCESS_TOKEN_BYTES_MAX + 1);
    assert!(matches!(wrong(rig.verify(&long)), WrongToken::Form(_)));
}

#[test]
fn few_connections_let_few_requests_wait() {
    let scripted = Arc::new(Scripted::default());
    scripted.issuer(ISSUER, &[]);
    let gate = scripted.gate.write();
    let server = ResourceServer::new(always(&scripted)).with_connections(64);
    let issuers = vec![introspecting(IntrospectedTokens::Opaque)];
    let verifier = server.verifier(&config(issuers, vec![rule(None)]), &owners()).unwrap();
    wait_until(|| server.status()[0].keys_age.is_some());
    let tokens: Vec<_> = (0..64).map(|n| format!("t{n}")).collect();
    let n_refused_at_once = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for token in &tokens {
            scope.spawn(|| {
                let began = Instant::now();
                let denied = verifier.verify(&presented(token), Now::read());
                if is_unavailable(&denied) && began.elapsed() < INTROSPECTION_TIMEOUT {
                    n_refused_at_once.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        // Of 64 connections an eighth may wait, and one address leaves a share of that to others.
        wait_until(|| n_refused_at_once.load(Ordering::SeqCst) >= 64 - 8);
        drop(gate);
    });
    assert!(scripted.most_at_once.load(Ordering::SeqCst) <= 6);
}

#[test]
fn a_bound_token_needs_a_new_proof_each_time() {
    let (rig, key) = simple();
    let client = TestKey::ed25519(3);
    let jkt = crate::oauth::jwk::Jwk::parse(&client.jwk("c")).unwrap().thumbprint().encode();
    let bound = format!(r#","cnf":{{"jkt":"{jkt}"}}"#);
    let token = key.token("k", &claims(ISSUER, "alice", &bound));
    let proof = |token: &str, jti: &str| {
        let ath = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
        use base64::Engine;
        let ath = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(ath);
        let iat = Now::read().unix;
        let header =
            format!(r#"{{"typ":"dpop+jwt","alg":"EdDSA","jwk":{{{}}}}}"#, client.members());
        let claims = format!(
            r#"{{"jti":"{jti}","htm":"POST","htu":"{AUDIENCE}","iat":{iat},"ath":"{ath}"}}"#
        );
        client.sign(&header, &claims)
    };
    let with = |token: &str, scheme, proofs: &[&str]| {
        let presented = Presented { scheme, proofs, ..presented(token) };
        rig.verifier.verify(&presented, Now::read()).map(|_| ())
    };
    let (one, two) = (proof(&token, "1"), proof(&token, "2"));
    let wrong = |why| Err(Denied::Proof(why));
    assert_eq!(with(&token, TokenType::Bearer, &[&one]), wrong(WrongProof::Scheme));
    assert_eq!(with(&token, TokenType::DPoP, &[]), wrong(WrongProof::Missing));
    assert_eq!(with(&token, TokenType::DPoP, &[&one, &two]), wrong(WrongProof::Several));
    assert_eq!(with(&token, TokenType::DPoP, &[&one]), Ok(()));
    assert_eq!(with(&token, TokenType::DPoP, &[&one]), wrong(WrongProof::Replayed));
    assert_eq!(with(&token, TokenType::DPoP, &[&two]), Ok(()));
    // A reload forgets no proof.
    let again = config(vec![issuer(ISSUER)], vec![rule(None)]);
    let again = rig.server.verifier(&again, &owners()).unwrap();
    let replay = Presented { scheme: TokenType::DPoP, proofs: &[&one], ..presented(&token) };
    let replay = again.verify(&replay, Now::read()).map(|_| ());
    assert_eq!(replay, wrong(WrongProof::Replayed));
    let plain = key.token("k", &claims(ISSUER, "alice", ""));
    let unbound = proof(&plain, "3");
    assert_eq!(with(&plain, TokenType::DPoP, &[&unbound]), wrong(WrongProof::NotBound));
    assert_eq!(with(&plain, TokenType::Bearer, &[]), Ok(()));
}

#[test]
fn one_user_pushes_out_own_tokens_alone() {
    let (rig, key) = simple();
    let bob = key.token("k", &claims(ISSUER, "bob", ""));
    let of_bob = rig.verify(&bob).unwrap();
    let first = key.token("k", &claims(ISSUER, "alice", ""));
    let of_alice = rig.verify(&first).unwrap();
    for n in 0..DECISIONS_PER_USER_MAX {
        rig.verify(&key.token("k", &claims(ISSUER, "alice", &format!(r#","n":{n}"#)))).unwrap();
    }
    assert_eq!(n_remembered(&rig.verifier), DECISIONS_PER_USER_MAX + 1);
    assert!(Arc::ptr_eq(&rig.verify(&bob).unwrap(), &of_bob));
    assert!(!Arc::ptr_eq(&rig.verify(&first).unwrap(), &of_alice));
}

#[test]
fn a_stop_ends_the_thread_and_all_waits() {
    let (rig, key) = simple();
    rig.verify(&key.token("k", &claims(ISSUER, "alice", ""))).unwrap();
    let unknown = key.token("unknown", &claims(ISSUER, "alice", ""));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| rig.verify(&unknown));
        std::thread::sleep(Duration::from_millis(200));
        let began = Instant::now();
        rig.server.stop();
        let denied = waiting.join().unwrap().unwrap_err();
        assert!(
            matches!(&denied, Denied::Unavailable { why, .. } if &**why == introspection_turns::STOPPED)
        );
        assert!(began.elapsed() < Duration::from_secs(4));
    });
}

fn wait_until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "it does not come about");
        std::thread::sleep(Duration::from_millis(10));
    }
}
