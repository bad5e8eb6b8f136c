//! Tests of the resource server with a scripted issuer.

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
fn a_new_key_is_found_and_made_up_ones_cost_the_issuer_nothing() {
    let (rig, key) = simple();
    let good = key.token("k", &claims(ISSUER, "alice", ""));
    rig.verify(&good).unwrap();
    let began = Instant::now();
    let new = TestKey::p256();
    rig.scripted.set(&format!("{ISSUER}/jwks"), jwks(&[&key.jwk("k"), &new.jwk("n")]));
    let made_up: Vec<_> =
        (0..200).map(|n| new.token(&format!("x{n}"), &claims(ISSUER, "mallory", ""))).collect();
    std::thread::scope(|scope| {
        for token in &made_up {
            scope.spawn(|| assert!(rig.verify(token).is_err()));
        }
        // While they wait, a known key costs nothing, and others find room to wait.
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            let other = key.token("k", &claims(ISSUER, "bob", ""));
            let began = Instant::now();
            rig.verify(&other).unwrap();
            assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
            let elsewhere = Some("192.0.2.7".parse().unwrap());
            let fresh = new.token("n", &claims(ISSUER, "carol", ""));
            let fresh = Presented { peer: elsewhere, ..presented(&fresh) };
            rig.verifier.verify(&fresh, Now::read()).unwrap();
        });
    });
    assert!(began.elapsed() + Duration::from_millis(500) >= KEYS_FETCH_INTERVAL_MIN / 2);
    assert_eq!(rig.scripted.n_asked("/jwks"), 2);
    // An id that was looked for is refused at once.
    let waited = made_up.iter().filter(|token| {
        let began = Instant::now();
        let wrong = wrong_or_busy(rig.verify(token));
        assert!(began.elapsed() < KEYS_FETCH_INTERVAL_MIN * 2);
        matches!(wrong, Some(WrongToken::UnknownKey(_)))
    });
    assert!(waited.take(3).count() == 3);
}

fn wrong_or_busy(result: Result<Arc<Accepted>, Denied>) -> Option<WrongToken> {
    match result {
        Err(Denied::Token(wrong)) => Some(wrong),
        Err(Denied::Unavailable { .. }) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn keys_hold_while_their_issuer_is_down_but_not_for_ever() {
    let (rig, key) = simple();
    rig.verify(&key.token("k", &claims(ISSUER, "alice", ""))).unwrap();
    *rig.scripted.is_down.lock() = true;
    let bob = key.token("k", &claims(ISSUER, "bob", ""));
    let accepted = rig.verify_at(&bob, later(DAY - Duration::from_secs(60))).unwrap();
    assert_eq!(rig.server.status()[0].keys, 1);
    // Past their age, what was accepted is over too.
    let end = later(DAY + Duration::from_secs(60));
    assert_eq!(rig.verifier.standing(&accepted, end), Standing::Ended);
    let keys = &accepted.issuer;
    assert!(keys.usable_keys(end.instant).is_none());
}

#[test]
fn keys_outlive_a_restart_while_their_issuer_is_down() {
    let path = std::env::temp_dir().join(format!("trunkline-keys-{}", std::process::id()));
    let directory = Arc::new(crate::state::StateDir::open(&path).unwrap());
    let (writer, writing) = crate::state::start(directory.clone()).unwrap();
    let start = |scripted: &Arc<Scripted>, config: &OAuthConfig| {
        let server = ResourceServer::new(always(scripted));
        let server = server.with_kept_keys(directory.clone(), writer.clone());
        let verifier = server.verifier(config, &owners()).unwrap();
        (server, verifier)
    };
    let (scripted, key) = (Arc::new(Scripted::default()), TestKey::p256());
    scripted.issuer(ISSUER, &[&key.jwk("k")]);
    let everybody = config(vec![issuer(ISSUER)], vec![rule(None)]);
    let token = key.token("k", &claims(ISSUER, "alice", ""));
    let (server, verifier) = start(&scripted, &everybody);
    verifier.verify(&presented(&token), Now::read()).unwrap();
    drop(server);
    let files = || {
        let names = directory.names().into_iter();
        names.filter(|name| name.starts_with("issuer-keys.") && !name.ends_with(".tmp")).count()
    };
    wait_until(|| files() == 1);
    *scripted.is_down.lock() = true;
    let (_server, verifier) = start(&scripted, &everybody);
    verifier.verify(&presented(&token), Now::read()).unwrap();
    // Too old, or found elsewhere by now.
    let short = OAuthConfig { jwks_max_age: Duration::ZERO, ..everybody.clone() };
    let (_server, verifier) = start(&scripted, &short);
    assert!(is_unavailable(&verifier.verify(&presented(&token), Now::read())));
    let moved =
        IssuerConfig { jwks_uri: Some("https://x.example".to_owned()), ..issuer(ISSUER) };
    let (_server, verifier) = start(&scripted, &config(vec![moved], vec![rule(None)]));
    assert!(is_unavailable(&verifier.verify(&presented(&token), Now::read())));
    // Those of an issuer that is not configured any more are removed.
    let (_server, _) = start(&scripted, &config(vec![issuer(OTHER)], vec![rule(None)]));
    wait_until(|| files() == 0);
    // So are all once no issuer is configured.
    *scripted.is_down.lock() = false;
    let (server, _) = start(&scripted, &everybody);
    wait_until(|| files() == 1);
    server.rest();
    wait_until(|| files() == 0);
    drop((_server, server, writer));
    writing.detach();
    std::fs::remove_dir_all(&path).unwrap();
}

#[test]
fn an_issuer_that_is_down_or_lies_has_no_keys() {
    let (scripted, key) = (Scripted::default(), TestKey::p256());
    let evil = r#"{"issuer":"https://evil.example","jwks_uri":"https://evil.example/jwks"}"#;
    scripted.set(&metadata_url(ISSUER), evil);
    let rig = Rig::new(scripted, &config(vec![issuer(ISSUER)], vec![rule(None)]));
    let token = key.token("k", &claims(ISSUER, "alice", ""));
    let denied = rig.verify(&token);
    assert!(is_unavailable(&denied), "{denied:?}");
    assert_eq!(denied.unwrap_err().error(), ErrorCode::TemporarilyUnavailable);
    assert_eq!(rig.scripted.n_asked("/jwks"), 0);
    assert!(rig.server.status()[0].fault.as_deref().unwrap().contains("evil"));
    // As long as it is so, nobody waits.
    let began = Instant::now();
    assert!(is_unavailable(&rig.verify(&token)));
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn metadata_lead_to_the_issuers_own_host_or_to_public_ones() {
    let (scripted, key) = (Scripted::default(), TestKey::p256());
    let metadata = format!(r#"{{"issuer":"{ISSUER}","jwks_uri":"https://keys.example/jwks"}}"#);
    scripted.set(&metadata_url(ISSUER), metadata);
    scripted.set("https://keys.example/jwks", jwks(&[&key.jwk("k")]));
    let rig = Rig::new(scripted, &config(vec![issuer(ISSUER)], vec![rule(None)]));
    rig.verify(&key.token("k", &claims(ISSUER, "alice", ""))).unwrap();
    let asked = rig.scripted.asked.lock();
    let reach = |end: &str| asked.iter().find(|(url, _)| url.ends_with(end)).unwrap().1;
    assert_eq!(reach("/openid-configuration"), Reach::Loopback);
    assert_eq!(reach("/jwks"), Reach::PublicOnly);
}

#[test]
fn a_withdrawn_key_ends_what_it_has_signed() {
    let (rig, key) = simple();
    let token = key.token("k", &claims(ISSUER, "alice", ""));
    let accepted = rig.verify(&token).unwrap();
    let new = TestKey::p256();
    rig.scripted.set(&format!("{ISSUER}/jwks"), jwks(&[&new.jwk("n"), &key.jwk("k2")]));
    let read = |after: Duration| accepted.issuer.refresh(later(after).instant);
    read(Duration::from_secs(400));
    // The same key under another id is the same key.
    assert_eq!(rig.verifier.standing(&accepted, Now::read()), Standing::Good);
    rig.scripted.set(&format!("{ISSUER}/jwks"), jwks(&[&new.jwk("n")]));
    read(Duration::from_secs(800));
    assert_eq!(rig.verifier.standing(&accepted, Now::read()), Standing::Ended);
    assert!(rig.verify(&token).is_err());
    assert!(rig.verify(&new.token("n", &claims(ISSUER, "alice", ""))).is_ok());
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

fn opaque() -> Rig {
    let scripted = Scripted::default();
    scripted.issuer(ISSUER, &[]);
    let issuers = vec![introspecting(IntrospectedTokens::Opaque)];
    Rig::new(scripted, &config(issuers, vec![rule(None)]))
}

#[test]
fn opaque_tokens_are_introspected_once_and_asked_about_again() {
    let rig = opaque();
    rig.scripted.say("t1", active("alice", ""));
    *rig.scripted.delay.lock() = Duration::from_millis(100);
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| rig.verify("t1").unwrap());
        }
    });
    assert_eq!(rig.scripted.n_asked("/introspect"), 1);
    let accepted = rig.verify("t1").unwrap();
    assert_eq!((accepted.expires_at, n_remembered(&rig.verifier)), (u64::MAX, 1));
    // What has grown old is served, and asked about by the thread.
    let asks = || rig.scripted.n_asked("/introspect");
    rig.verify_at("t1", later(INTROSPECTION_FRESH)).unwrap();
    wait_until(|| asks() == 2);
    // Past the answer's life, the request asks itself.
    rig.verify_at("t1", later(INTROSPECTION_LIFE + Duration::from_secs(1))).unwrap();
    assert_eq!(asks(), 3);
}

#[test]
fn a_revoked_token_ends_what_is_open() {
    let rig = opaque();
    rig.scripted.say("t1", active("alice", ""));
    let accepted = rig.verify("t1").unwrap();
    let standing = |after| rig.verifier.standing(&accepted, later(after));
    assert_eq!(standing(Duration::ZERO), Standing::Good);
    rig.scripted.say("t1", r#"{"active":false}"#);
    assert_eq!(standing(INTROSPECTION_FRESH), Standing::Good);
    wait_until(|| standing(Duration::ZERO) == Standing::Ended);
    assert_eq!(wrong(rig.verify("t1")), WrongToken::Inactive);
}

#[test]
fn what_was_accepted_before_a_reload_hears_of_a_revocation_after_it() {
    let rig = opaque();
    rig.scripted.say("t1", active("alice", ""));
    let before = rig.verify("t1").unwrap();
    let issuers = vec![introspecting(IntrospectedTokens::Opaque)];
    let after = rig.server.verifier(&config(issuers, vec![rule(None)]), &owners()).unwrap();
    rig.scripted.say("t1", r#"{"active":false}"#);
    assert_eq!(after.standing(&before, later(INTROSPECTION_FRESH)), Standing::Good);
    wait_until(|| after.standing(&before, Now::read()) == Standing::Ended);
    assert_eq!(n_remembered(&after), 0);
}

#[test]
fn a_token_that_waited_to_be_asked_about_at_a_reload_is_asked_about_later() {
    let rig = opaque();
    rig.scripted.say("t1", active("alice", ""));
    let accepted = rig.verify("t1").unwrap();
    let gone = std::sync::Weak::<Verifier>::new();
    let old = later(INTROSPECTION_FRESH);
    rig.server.shared.keeper.recheck(gone, &accepted, old.instant);
    rig.scripted.say("t1", r#"{"active":false}"#);
    wait_until(|| rig.verifier.standing(&accepted, old) == Standing::Ended);
}

fn is_queued(accepted: &Accepted) -> bool {
    accepted.news.introspected.as_ref().unwrap().last.lock().is_queued
}

#[test]
fn a_token_that_its_issuer_cannot_read_stops_no_questions_about_others() {
    let rig = opaque();
    rig.scripted.say("t1", active("alice", ""));
    let accepted = rig.verify("t1").unwrap();
    assert!(is_unavailable(&rig.verify("malformed")));
    rig.scripted.say("t1", r#"{"active":false}"#);
    assert_eq!(rig.verifier.standing(&accepted, later(INTROSPECTION_FRESH)), Standing::Good);
    wait_until(|| !is_queued(&accepted));
    assert_eq!(rig.verifier.standing(&accepted, Now::read()), Standing::Ended);
}

#[test]
fn a_question_that_was_not_asked_is_no_failure_of_its_token() {
    let rig = opaque();
    rig.scripted.say("t1", active("alice", ""));
    let accepted = rig.verify("t1").unwrap();
    *rig.scripted.is_down.lock() = true;
    assert!(is_unavailable(&rig.verify("t2")));
    *rig.scripted.is_down.lock() = false;
    for after in [Duration::ZERO, Duration::from_secs(1)] {
        let now = later(INTROSPECTION_LIFE + after);
        assert_eq!(rig.verifier.standing(&accepted, now), Standing::Good, "{after:?}");
        wait_until(|| !is_queued(&accepted));
    }
}

#[test]
fn an_answer_that_cannot_be_had_holds_no_longer_than_a_minute() {
    let rig = opaque();
    rig.scripted.say("t1", active("alice", ""));
    let accepted = rig.verify("t1").unwrap();
    *rig.scripted.is_down.lock() = true;
    assert_eq!(rig.verifier.standing(&accepted, later(INTROSPECTION_FRESH)), Standing::Good);
    let old = later(INTROSPECTION_LIFE);
    wait_until(|| rig.verifier.standing(&accepted, old) == Standing::Ended);
    assert!(is_unavailable(&rig.verify_at("t1", old)));
    assert!(is_unavailable(&rig.verify("t2")));
}

#[test]
fn rights_that_a_user_loses_end_with_the_next_answer() {
    let scripted = Scripted::default();
    scripted.issuer(ISSUER, &[]);
    let mut ops = rule(Some(("groups", "ops")));
    ops.admin = true;
    let issuers = vec![introspecting(IntrospectedTokens::Opaque)];
    let rig = Rig::new(scripted, &config(issuers, vec![ops, rule(None)]));
    rig.scripted.say("t", active("alice", r#","groups":["ops"],"n":1"#));
    let first = rig.verify("t").unwrap();
    assert!(first.principal.is_admin);
    // Other claims, which change no rights, are those of the next calls.
    rig.scripted.say("t", active("alice", r#","groups":["ops"],"n":2"#));
    rig.verify_at("t", later(INTROSPECTION_FRESH)).unwrap();
    let n = |it: &Accepted| it.principal.user.as_ref().unwrap().claim("n");
    wait_until(|| n(&rig.verify("t").unwrap()).as_deref() == Some("2"));
    assert_eq!(rig.verifier.standing(&first, Now::read()), Standing::Good);
    // A stream that began before that change makes none of its own.
    let changed = rig.verify("t").unwrap();
    assert_eq!(rig.verifier.standing(&first, later(INTROSPECTION_FRESH)), Standing::Good);
    wait_until(|| !is_queued(&first));
    assert!(Arc::ptr_eq(&rig.verify("t").unwrap(), &changed));
    // Fewer rights end what is open with the old ones.
    rig.scripted.say("t", active("alice", ""));
    let of_now = rig.verify("t").unwrap();
    rig.verify_at("t", later(INTROSPECTION_FRESH)).unwrap();
    wait_until(|| !rig.verify("t").unwrap().principal.is_admin);
    for old in [&first, &of_now] {
        assert_eq!(rig.verifier.standing(old, Now::read()), Standing::Ended);
    }
}

#[test]
fn a_token_that_nobody_gets_to_ask_about_ends() {
    let rig = opaque();
    let tokens = ["t1", "t2", "t3", "t4", "t5"];
    tokens.iter().for_each(|token| rig.scripted.say(token, active("alice", "")));
    let all: Vec<_> = tokens.iter().map(|token| rig.verify(token).unwrap()).collect();
    *rig.scripted.delay.lock() = Duration::from_secs(2);
    let standing = |after| {
        let of_one = |it| rig.verifier.standing(it, later(after));
        all.iter().map(of_one).collect::<Vec<_>>()
    };
    // Nobody has looked for long, and the answer is on its way.
    let old = INTROSPECTION_LIFE + Duration::from_secs(100);
    assert_eq!(standing(old), [Standing::Good; 5]);
    let look = crate::limits::LEASE_CHECK_INTERVAL;
    assert_eq!(standing(old + look), [Standing::Ended; 5]);
    wait_until(|| standing(Duration::ZERO) == [Standing::Good; 5]);
    wait_until(|| rig.scripted.n_asked("/introspect") == 10);
    let most = rig.scripted.most_at_once.load(Ordering::SeqCst);
    assert_eq!(most, crate::limits::RECHECKERS_MAX);
}

#[test]
fn an_issuer_that_hangs_is_waited_for_once() {
    let scripted = Scripted::default();
    *scripted.hang.lock() = Duration::from_secs(60);
    let of = IssuerConfig { jwks_uri: Some("https://h/jwks".to_owned()), ..issuer(ISSUER) };
    let rig = Rig::new(scripted, &config(vec![of], vec![rule(None)]));
    let token = TestKey::p256().token("k", &claims(ISSUER, "alice", ""));
    let began = Instant::now();
    assert!(is_unavailable(&rig.verify(&token)));
    assert!(began.elapsed() < crate::limits::KEY_WAIT_TIMEOUT, "{:?}", began.elapsed());
    // It has failed, and is not asked again at once.
    assert!(is_unavailable(&rig.verify(&token)));
    assert!(began.elapsed() < crate::limits::KEY_WAIT_TIMEOUT, "{:?}", began.elapsed());
    assert_eq!(rig.scripted.n_asked("/jwks"), 1);
}

#[test]
fn keys_that_moved_end_what_the_old_ones_signed_where_the_new_ones_cannot_be_had() {
    let (rig, key) = simple();
    let token = key.token("k", &claims(ISSUER, "alice", ""));
    let accepted = rig.verify(&token).unwrap();
    let moved = Some("https://elsewhere.example/nothing".to_owned());
    let moved = IssuerConfig { jwks_uri: moved, ..issuer(ISSUER) };
    let after = rig.server.verifier(&config(vec![moved], vec![rule(None)]), &owners()).unwrap();
    assert_eq!(after.standing(&accepted, Now::read()), Standing::Good);
    let end = later(crate::limits::KEYS_AWAITED_TIME);
    assert_eq!(after.standing(&accepted, end), Standing::Ended);
}

#[test]
fn an_issuer_that_wants_the_secret_in_the_form_gets_it_there() {
    let scripted = Scripted::default();
    *scripted.wants_post.lock() = true;
    // Nobody reads its metadata, which would say so.
    let mut of = introspecting(IntrospectedTokens::Opaque);
    of.jwks_uri = Some(format!("{ISSUER}/jwks"));
    of.introspection.as_mut().unwrap().endpoint = Some(format!("{ISSUER}/introspect"));
    scripted.set(&format!("{ISSUER}/jwks"), jwks(&[]));
    let rig = Rig::new(scripted, &config(vec![of], vec![rule(None)]));
    for token in ["t1", "t2"] {
        rig.scripted.say(token, active("alice", ""));
        rig.verify(token).unwrap();
    }
    // The first question finds out.
    assert_eq!(rig.scripted.n_asked("/introspect"), 3);
}

#[test]
fn a_key_that_comes_right_after_a_reading_is_read_without_another_request() {
    let (rig, key) = simple();
    wait_until(|| rig.server.status()[0].keys == 1);
    let unknown = key.token("made-up", &claims(ISSUER, "alice", ""));
    assert!(matches!(wrong(rig.verify(&unknown)), WrongToken::UnknownKey(_)));
    let new = TestKey::p256();
    rig.scripted.set(&format!("{ISSUER}/jwks"), jwks(&[&new.jwk("n"), &key.jwk("k")]));
    let token = new.token("n", &claims(ISSUER, "alice", ""));
    assert!(matches!(wrong(rig.verify(&token)), WrongToken::UnknownKey(_)));
    wait_until(|| rig.server.status()[0].keys == 2);
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
fn keys_are_read_again_after_a_panic() {
    let scripted = Scripted::default();
    *scripted.panics.lock() = true;
    scripted.issuer(ISSUER, &[&TestKey::p256().jwk("k")]);
    let rig = Rig::new(scripted, &config(vec![issuer(ISSUER)], vec![rule(None)]));
    wait_until(|| rig.server.status()[0].keys == 1);
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

/// Two issuers that are asked about opaque tokens, in this order.
fn two_that_introspect(scripted: &Scripted) -> Vec<IssuerConfig> {
    scripted.issuer(ISSUER, &[]);
    scripted.issuer(OTHER, &[]);
    let first = introspecting(IntrospectedTokens::Opaque);
    let second = IssuerConfig { issuer: OTHER.to_owned(), ..first.clone() };
    vec![first, second]
}

fn issuer_of(accepted: &Accepted) -> &str {
    &accepted.issuer.config.issuer
}

#[test]
fn an_opaque_token_is_shown_to_no_other_issuer_once_one_has_known_it() {
    let scripted = Scripted::default();
    let issuers = two_that_introspect(&scripted);
    let rig = Rig::new(scripted, &config(issuers.clone(), vec![rule(None)]));
    let asked = |issuer: &str| rig.scripted.n_asked(&format!("{issuer}/introspect"));
    rig.scripted.say_at(ISSUER, "t1", active("alice", ""));
    rig.scripted.say_at(OTHER, "t2", active("alice", ""));
    assert_eq!(issuer_of(&rig.verify("t1").unwrap()), ISSUER);
    assert_eq!((asked(ISSUER), asked(OTHER)), (1, 0));
    assert_eq!(issuer_of(&rig.verify("t2").unwrap()), OTHER);
    assert_eq!((asked(ISSUER), asked(OTHER)), (2, 1));
    // When the answer is too old, after a reload, and at the end of the token, the other issuer
    // neither sees it nor is believed.
    rig.scripted.say_at(ISSUER, "t2", active("mallory", ""));
    let old = later(INTROSPECTION_LIFE + Duration::from_secs(1));
    assert_eq!(issuer_of(&rig.verify_at("t2", old).unwrap()), OTHER);
    let after = rig.server.verifier(&config(issuers, vec![rule(None)]), &owners()).unwrap();
    let verify = || after.verify(&presented("t2"), Now::read());
    assert_eq!(issuer_of(&verify().unwrap()), OTHER);
    *rig.scripted.hangs.lock() = Some(OTHER);
    let older = later(INTROSPECTION_LIFE * 2);
    assert!(is_unavailable(&after.verify(&presented("t2"), older)));
    *rig.scripted.hangs.lock() = None;
    rig.scripted.say_at(OTHER, "t2", r#"{"active":false}"#);
    assert_eq!(wrong(verify()), WrongToken::Inactive);
    assert_eq!(asked(ISSUER), 2);
}

#[test]
fn an_issuer_speaks_for_its_own_opaque_tokens_alone() {
    let scripted = Scripted::default();
    let issuers = two_that_introspect(&scripted);
    let rig = Rig::new(scripted, &config(issuers, vec![rule(None)]));
    // It says itself that the token is another's.
    rig.scripted.say_at(ISSUER, "t1", active("admin", &format!(r#","iss":"{OTHER}""#)));
    assert!(matches!(wrong(rig.verify("t1")), WrongToken::Issuer(_)));
    rig.scripted.say_at(OTHER, "t1", active("alice", ""));
    assert_eq!(issuer_of(&rig.verify_at("t1", later(REFUSAL_LIFE)).unwrap()), OTHER);
    // What is its own, and not for the gateway, is nobody else's.
    rig.scripted.say_at(ISSUER, "t2", r#"{"active":true,"sub":"s","aud":"https://b.example"}"#);
    rig.scripted.say_at(OTHER, "t2", active("alice", ""));
    assert_eq!(wrong(rig.verify("t2")), WrongToken::Audience);
    assert_eq!(wrong(rig.verify_at("t2", later(REFUSAL_LIFE))), WrongToken::Audience);
    // What nobody knows costs each one question.
    let asked = rig.scripted.n_asked("/introspect");
    assert_eq!(wrong(rig.verify("t3")), WrongToken::Inactive);
    assert_eq!(wrong(rig.verify("t3")), WrongToken::Inactive);
    assert_eq!(rig.scripted.n_asked("/introspect"), asked + 2);
}

#[test]
fn an_issuer_that_hangs_holds_up_another_ones_opaque_tokens_once() {
    let scripted = Scripted::default();
    let issuers = two_that_introspect(&scripted);
    let rig = Rig::new(scripted, &config(issuers, vec![rule(None)]));
    for n in 0..6 {
        rig.scripted.say_at(OTHER, &format!("t{n}"), active("alice", ""));
    }
    rig.scripted.say_at(ISSUER, "mine", active("alice", ""));
    // The issuer of a token, and how often the first issuer was asked until that was known.
    let verified = |token: &str| {
        let n_asked = || rig.scripted.n_asked(&format!("{ISSUER}/introspect"));
        let before = n_asked();
        let issuer = issuer_of(&rig.verify(token).unwrap()).to_owned();
        (issuer, n_asked() - before)
    };
    *rig.scripted.hangs.lock() = Some(ISSUER);
    assert_eq!(verified("t0"), (OTHER.to_owned(), 1));
    for n in 1..5 {
        assert_eq!(verified(&format!("t{n}")), (OTHER.to_owned(), 0), "{n}");
    }
    // Its own tokens cannot be decided, whatever the other one says of them.
    assert!(is_unavailable(&rig.verify("mine")));
    // Once it answers, it is asked in its turn again.
    *rig.scripted.hangs.lock() = None;
    assert_eq!(verified("mine").0, ISSUER);
    assert_eq!(verified("t5"), (OTHER.to_owned(), 1));
}

#[test]
fn one_opaque_token_in_many_requests_at_once_is_asked_about_once_at_each_issuer() {
    let scripted = Scripted::default();
    let issuers = two_that_introspect(&scripted);
    let rig = Rig::new(scripted, &config(issuers, vec![rule(None)]));
    rig.scripted.say_at(OTHER, "good", active("alice", ""));
    *rig.scripted.delay.lock() = Duration::from_millis(100);
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| rig.verify("good").unwrap());
            scope.spawn(|| assert_eq!(wrong(rig.verify("bad")), WrongToken::Inactive));
        }
    });
    assert_eq!(rig.scripted.n_asked("/introspect"), 4);
}

#[test]
fn requests_with_one_opaque_token_share_its_answer_where_all_turns_were_taken() {
    let rig = opaque();
    let others: Vec<_> = (0..INTROSPECTIONS_AT_ONCE_MAX).map(|n| format!("t{n}")).collect();
    others.iter().for_each(|token| rig.scripted.say(token, active("alice", "")));
    rig.scripted.say("new", active("bob", ""));
    wait_until(|| rig.server.status()[0].keys_age.is_some());
    let gate = rig.scripted.gate.write();
    let asked = || rig.scripted.n_asked("/introspect");
    std::thread::scope(|scope| {
        for token in &others {
            scope.spawn(|| rig.verify(token).unwrap());
        }
        wait_until(|| asked() == INTROSPECTIONS_AT_ONCE_MAX);
        for _ in 0..4 {
            scope.spawn(|| rig.verify("new").unwrap());
            scope.spawn(|| assert_eq!(wrong(rig.verify("bad")), WrongToken::Inactive));
        }
        std::thread::sleep(Duration::from_millis(300));
        *rig.scripted.delay.lock() = Duration::from_millis(100);
        drop(gate);
    });
    assert_eq!(asked(), INTROSPECTIONS_AT_ONCE_MAX + 2);
}

#[test]
fn a_flood_of_made_up_tokens_keeps_nobody_out() {
    let rig = opaque();
    rig.scripted.say("known", active("alice", ""));
    rig.scripted.say("new", active("bob", ""));
    rig.verify("known").unwrap();
    let gate = rig.scripted.gate.write();
    let flood: Vec<String> = (0..200).map(|n| format!("made-up-{n}")).collect();
    let (n_answered, n_refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for token in &flood {
            scope.spawn(|| {
                let denied = rig.verify(token);
                let count = if is_unavailable(&denied) { &n_refused } else { &n_answered };
                count.fetch_add(1, Ordering::SeqCst);
                assert!(denied.is_err());
            });
        }
        let most = flood.len() - INTROSPECTIONS_WAITING_MAX;
        wait_until(|| n_refused.load(Ordering::SeqCst) >= most);
        // It could not wait: no question is answered at present.
        rig.verify("known").unwrap();
        let elsewhere =
            Presented { peer: Some("192.0.2.7".parse().unwrap()), ..presented("new") };
        let elsewhere = scope.spawn({
            let verifier = &rig.verifier;
            move || verifier.verify(&elsewhere, Now::read()).unwrap()
        });
        std::thread::sleep(Duration::from_millis(100));
        drop(gate);
        elsewhere.join().unwrap();
    });
    let at_once = rig.scripted.most_at_once.load(Ordering::SeqCst);
    assert!(at_once <= INTROSPECTIONS_AT_ONCE_MAX, "{at_once}");
    // Those that found no room cost the issuer nothing.
    let known_ones = 2;
    let asked = rig.scripted.n_asked("/introspect");
    assert_eq!(asked, n_answered.load(Ordering::SeqCst) + known_ones);
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
fn introspection_that_a_reload_adds_works_at_once() {
    let (rig, key) = simple();
    rig.verify(&key.token("k", &claims(ISSUER, "alice", ""))).unwrap();
    rig.scripted.say("t1", active("alice", ""));
    let issuers = vec![introspecting(IntrospectedTokens::Opaque)];
    let after = rig.server.verifier(&config(issuers, vec![rule(None)]), &owners()).unwrap();
    after.verify(&presented("t1"), Now::read()).unwrap();
}

#[test]
fn keys_and_introspection_do_not_wait_for_each_other() {
    // The metadata lead to keys that are not there.
    let (scripted, key) = (Scripted::default(), TestKey::p256());
    scripted.issuer(ISSUER, &[]);
    scripted.documents.lock().remove(&format!("{ISSUER}/jwks"));
    scripted.say("t1", active("alice", ""));
    let issuers = vec![introspecting(IntrospectedTokens::Opaque)];
    let rig = Rig::new(scripted, &config(issuers, vec![rule(None)]));
    rig.verify("t1").unwrap();
    assert!(is_unavailable(&rig.verify(&key.token("k", &claims(ISSUER, "alice", "")))));
    // There are no metadata, and the configuration says where the keys are.
    let scripted = Scripted::default();
    scripted.set("https://keys.example", jwks(&[&key.jwk("k")]));
    let mut of = introspecting(IntrospectedTokens::Opaque);
    of.jwks_uri = Some("https://keys.example".to_owned());
    let rig = Rig::new(scripted, &config(vec![of], vec![rule(None)]));
    rig.verify(&key.token("k", &claims(ISSUER, "alice", ""))).unwrap();
    let began = Instant::now();
    assert!(is_unavailable(&rig.verify("t1")));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    // An issuer that signs nothing.
    let scripted = Scripted::default();
    let metadata =
        format!(r#"{{"issuer":"{ISSUER}","introspection_endpoint":"{ISSUER}/introspect"}}"#);
    scripted.set(&metadata_url(ISSUER), metadata);
    scripted.say("t1", active("alice", ""));
    let issuers = vec![introspecting(IntrospectedTokens::Opaque)];
    let rig = Rig::new(scripted, &config(issuers, vec![rule(None)]));
    rig.verify("t1").unwrap();
}

#[test]
fn a_jwt_may_be_introspected_besides() {
    let (scripted, key) = (Scripted::default(), TestKey::p256());
    scripted.issuer(ISSUER, &[&key.jwk("k")]);
    let issuers = vec![introspecting(IntrospectedTokens::All)];
    let rig = Rig::new(scripted, &config(issuers, vec![rule(None)]));
    let token = key.token("k", &claims(ISSUER, "alice", ""));
    assert_eq!(wrong(rig.verify(&token)), WrongToken::Inactive);
    let other = key.token("k", &claims(ISSUER, "alice", r#","jti":"2""#));
    rig.scripted.say(&other, active("alice", ""));
    rig.verify(&other).unwrap();
    // One with a wrong signature is not asked about.
    let asks = rig.scripted.n_asked("/introspect");
    let forged = TestKey::p256().token("k", &claims(ISSUER, "alice", ""));
    assert_eq!(wrong(rig.verify(&forged)), WrongToken::Signature);
    assert_eq!(rig.scripted.n_asked("/introspect"), asks);
}

#[test]
fn what_a_jwt_says_holds_where_the_introspection_is_silent() {
    let (scripted, key) = (Scripted::default(), TestKey::p256());
    scripted.issuer(ISSUER, &[&key.jwk("k")]);
    let issuers = vec![introspecting(IntrospectedTokens::All)];
    let rig = Rig::new(scripted, &config(issuers, vec![rule(None)]));
    let terse = |more: &str| format!(r#"{{"active":true{more}}}"#);
    let verify = |claims: &str, answer: String| {
        let token = key.token("k", claims);
        rig.scripted.say(&token, answer);
        rig.verify(&token)
    };
    // People of one OAuth client stay apart, and their tokens end when they say so.
    let client = format!(r#","aud":"{AUDIENCE}","client_id":"desktop","username":"a@x""#);
    let alice = verify(&claims(ISSUER, "alice", ""), terse(&client)).unwrap();
    let bob = verify(&claims(ISSUER, "bob", ""), terse("")).unwrap();
    assert_eq!(alice.principal.name.as_deref(), Some("alice@idp.example"));
    assert_eq!(bob.principal.name.as_deref(), Some("bob@idp.example"));
    assert!(alice.time_left(Now::read()) <= 2 * DAY + Duration::from_secs(30));
    // A key to which the token is bound is not forgotten.
    let jkt = crate::oauth::jwk::Jwk::parse(&key.jwk("c")).unwrap().thumbprint().encode();
    let bound = claims(ISSUER, "alice", &format!(r#","cnf":{{"jkt":"{jkt}"}}"#));
    let denied = verify(&bound, terse(&client)).unwrap_err();
    assert_eq!(denied, Denied::Proof(WrongProof::Scheme));
    // Another subject is no answer about this token.
    let other = verify(&claims(ISSUER, "carol", ""), active("alice", ""));
    assert!(matches!(other, Err(Denied::Token(_))), "{other:?}");
}

#[test]
fn people_whose_tokens_do_not_say_who_they_are_are_not_taken_for_their_client() {
    let rig = opaque();
    let of_client = |more: &str| {
        format!(r#"{{"active":true,"aud":"{AUDIENCE}","client_id":"desktop"{more}}}"#)
    };
    rig.scripted.say("alice", of_client(r#","username":"alice""#));
    rig.scripted.say("bob", of_client(""));
    for token in ["alice", "bob"] {
        let result = rig.verify(token);
        assert!(matches!(result, Err(Denied::Token(_))), "{token}: {result:?}");
    }
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
fn tokens_with_made_up_key_ids_are_refused_at_once() {
    let (rig, key) = simple();
    rig.verify(&key.token("k", &claims(ISSUER, "alice", ""))).unwrap();
    let made_up = |n: usize| key.token(&format!("made-up-{n}"), &claims(ISSUER, "alice", ""));
    // The first one waits until the keys may be read again, and reads them.
    assert!(matches!(rig.verify(&made_up(0)), Err(Denied::Token(_))));
    let began = Instant::now();
    for n in 1..20 {
        assert!(matches!(rig.verify(&made_up(n)), Err(Denied::Token(_))), "{n}");
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(rig.scripted.n_asked("/jwks"), 2);
    // A key that comes meanwhile is found by the next reading.
    let new = TestKey::p256();
    rig.scripted.issuer(ISSUER, &[&key.jwk("k"), &new.jwk("new")]);
    let token = new.token("new", &claims(ISSUER, "alice", ""));
    wait_until(|| rig.verify(&token).is_ok());
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

/// `cargo test --release --lib -- --ignored --nocapture a_remembered_token_costs`
#[test]
#[ignore = "measures"]
#[expect(clippy::print_stdout, reason = "a measurement is for whoever starts it")]
fn a_remembered_token_costs_a_few_microseconds() {
    let (rig, key) = simple();
    let pad = format!(r#","groups":["a","b"],"pad":"{}""#, "p".repeat(500));
    let tokens: Vec<_> = (0..1000)
        .map(|n| key.token("k", &claims(ISSUER, &format!("user-{n}"), &pad)))
        .collect();
    tokens.iter().for_each(|token| drop(rig.verify(token).unwrap()));
    let rounds = 200;
    let began = Instant::now();
    for _ in 0..rounds {
        for token in &tokens {
            std::hint::black_box(rig.verify(token).unwrap());
        }
    }
    let each = began.elapsed() / (rounds * 1000);
    println!("{each:?} for a token of {} bytes", tokens[0].len());
}
