//! The grants and the places of authorization servers, and what must be refused.

use std::time::Duration;

use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};

use super::upstream_sign_in::{call, configured, signing_in};
use crate::support::authorization_server::{AuthorizationServer, Browser, claims};
use crate::support::gateway::{Directory, Gateway};
use crate::support::upstream_http::HttpUpstream;
use crate::support::{wait_for, wait_until};

/// A private key in a file, as PEM.
fn private_key(folder: &Directory) -> String {
    use std::fmt::Write as _;
    let random = ring::rand::SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
    let text = base64(key.as_ref());
    let mut pem = "-----BEGIN PRIVATE KEY-----\n".to_owned();
    for line in text.as_bytes().chunks(64) {
        writeln!(pem, "{}", std::str::from_utf8(line).unwrap()).unwrap();
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    let path = folder.path().join("key.pem");
    std::fs::write(&path, pem).unwrap();
    path.display().to_string()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] =
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let n = (0..3).fold(0_u32, |n, at| n << 8 | u32::from(*three.get(at).unwrap_or(&0)));
        for at in 0..4 {
            let digit = DIGITS[usize::try_from(n >> (18 - 6 * at) & 63).unwrap()];
            out.push(if at <= three.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

/// Waits until the server fails in this way; gives its entry in `/status`.
#[track_caller]
fn failing(gateway: &Gateway, said: &str) -> Value {
    wait_for(said, || {
        let told = gateway.status_of("s");
        told.to_string().contains(said).then_some(told)
    })
}

#[test]
fn a_client_with_a_private_key_signs_assertions_for_the_issuer() {
    let (auth, upstream) = (AuthorizationServer::start(), HttpUpstream::start());
    auth.protect(&upstream);
    auth.set_metadata("token_endpoint_auth_methods_supported", json!(["private_key_jwt"]));
    let state = Directory::new();
    let oauth = json!({
        "grant": "client_credentials", "client_id": "me", "private_key_file": private_key(&state),
    });
    let gateway = configured(&upstream.url(), oauth, &state).start();
    gateway.wait_until_well(&["s"]);
    call(&gateway);
    let asked = &auth.seen_of("POST /token")[0];
    let assertion = claims(asked.field("client_assertion"));
    assert_eq!(assertion["aud"], auth.issuer());
    assert_eq!((&assertion["iss"], &assertion["sub"]), (&json!("me"), &json!("me")));
}

#[test]
fn an_assertion_is_read_anew_for_each_token() {
    let (auth, upstream) = (AuthorizationServer::start(), HttpUpstream::start());
    auth.protect(&upstream);
    let state = Directory::new();
    let file = state.path().join("jwt");
    std::fs::write(&file, "YQ.YQ.YQ\n").unwrap();
    let oauth = json!({
        "grant": "jwt_bearer", "client_id": "me", "assertion_file": file,
    });
    let gateway = configured(&upstream.url(), oauth, &state).start();
    gateway.wait_until_well(&["s"]);
    std::fs::write(&file, "Yg.Yg.Yg").unwrap();
    auth.end_access_tokens();
    call(&gateway);
    let of: Vec<_> = auth.seen_of("POST /token");
    let assertions: Vec<&str> = of.iter().map(|it| it.field("assertion")).collect();
    assert_eq!(assertions, ["YQ.YQ.YQ", "Yg.Yg.Yg"]);
    assert!(!gateway.stderr().contains("Yg.Yg"));
}

#[test]
fn tokens_that_are_bound_to_a_key_carry_proofs_with_the_nonce() {
    let (auth, upstream) = (AuthorizationServer::start(), HttpUpstream::start());
    auth.protect(&upstream);
    auth.want_dpop(Some("nonce-1"));
    let (state, browser) = (Directory::new(), Browser::start());
    let gateway = signing_in(&upstream.url(), json!({ "dpop": true }), &state, &browser);
    gateway.wait_until_well(&["s"]);
    call(&gateway);
    // The nonce changes: the request is sent again, and nobody signs in for that.
    auth.want_dpop(Some("nonce-2"));
    call(&gateway);
    assert_eq!(auth.seen_of("GET /authorize").len(), 1);
    assert_eq!(auth.seen_of("POST /token").len(), 2, "once more for the nonce");
    let jkt = auth.seen_of("GET /authorize")[0].field("dpop_jkt").to_owned();
    assert_eq!(jkt.len(), 43);
}

#[test]
fn a_server_that_moves_to_another_authorization_server_is_followed_with_another_registration() {
    let (one, two, upstream) =
        (AuthorizationServer::start(), AuthorizationServer::start(), HttpUpstream::start());
    let protection = one.protect(&upstream);
    let (state, browser) = (Directory::new(), Browser::start());
    let gateway = signing_in(&upstream.url(), json!(true), &state, &browser);
    gateway.wait_until_well(&["s"]);
    protection.migrate_to(&two);
    call(&gateway);
    assert_eq!(two.seen_of("POST /register").len(), 1);
    let of_one = one.seen_of("GET /authorize")[0].field("client_id").to_owned();
    assert!(two.seen().iter().all(|it| it.field("client_id") != of_one));
    // No refresh token of the first goes to the second, nor is it asked any more.
    let grants: Vec<String> =
        two.seen_of("POST /token").iter().map(|it| it.field("grant_type").to_owned()).collect();
    assert_eq!(grants, ["authorization_code"]);
}

#[test]
fn a_configured_client_is_not_shown_to_another_authorization_server() {
    let (one, two, upstream) =
        (AuthorizationServer::start(), AuthorizationServer::start(), HttpUpstream::start());
    let protection = one.protect(&upstream);
    let (state, browser) = (Directory::new(), Browser::start());
    let oauth = json!({ "client_id": "mine" });
    let gateway = signing_in(&upstream.url(), oauth, &state, &browser);
    gateway.wait_until_well(&["s"]);
    protection.migrate_to(&two);
    let answer = gateway.call("echo", &json!({ "text": "hi" }));
    assert_eq!(answer.status(), 502, "{answer}");
    assert!(answer.to_string().contains("belongs to the authorization server"), "{answer}");
    assert!(two.seen().iter().all(|it| it.field("client_id") != "mine"));
}

#[test]
fn what_must_not_be_used_is_refused_before_anybody_signs_in() {
    for (name, value, said) in [
        ("resource", json!("https://evil.example/mcp"), "evil.example"),
        ("authorization_servers", json!(["http://10.255.255.1/"]), "discovery"),
        ("authorization_servers", json!(["https://169.254.169.254/"]), "169.254.169.254"),
    ] {
        let (auth, upstream) = (AuthorizationServer::start(), HttpUpstream::start());
        auth.protect(&upstream).set_metadata(name, value.clone());
        let (state, browser) = (Directory::new(), Browser::start());
        let gateway = signing_in(&upstream.url(), json!(true), &state, &browser);
        let told = failing(&gateway, said);
        assert!(browser.pages().is_empty(), "{value}: {told}");
    }
    let (auth, upstream) = (AuthorizationServer::start(), HttpUpstream::start());
    auth.protect(&upstream);
    auth.set_metadata("issuer", json!("https://attacker.example"));
    let (state, browser) = (Directory::new(), Browser::start());
    let gateway = signing_in(&upstream.url(), json!(true), &state, &browser);
    failing(&gateway, "issuer");
    assert!(auth.seen_of("POST /register").is_empty() && browser.pages().is_empty());
}

#[test]
fn an_authorization_server_that_is_down_is_named_and_the_old_token_serves_until_its_end() {
    let (auth, upstream) = (AuthorizationServer::start(), HttpUpstream::start());
    auth.protect(&upstream);
    auth.set_lifetime(Some(Duration::from_secs(12)));
    let (state, browser) = (Directory::new(), Browser::start());
    let gateway = signing_in(&upstream.url(), json!(true), &state, &browser);
    gateway.wait_until_well(&["s"]);
    auth.fail_with(Some((503, json!({}))));
    wait_until("a renewal has failed", || {
        auth.seen_of("POST /token").iter().any(|it| it.field("grant_type") == "refresh_token")
    });
    call(&gateway);
    auth.end_access_tokens();
    let answer = gateway.call("echo", &json!({ "text": "hi" }));
    assert_eq!(answer.status(), 502, "{answer}");
    assert!(answer.to_string().contains("token request at http://127.0.0.1"), "{answer}");
    auth.fail_with(None);
    wait_until("it is back", || gateway.call("echo", &json!({ "text": "hi" })).status() == 200);
    assert_eq!((auth.n_reused(), browser.pages().len()), (0, 1));
}

#[test]
fn a_server_of_the_first_revision_with_authorization_is_its_own_authorization_server() {
    let upstream = HttpUpstream::start();
    let auth = AuthorizationServer::start();
    // The guard serves no metadata; the other server stands for the endpoints of the default paths.
    let protection = auth.protect(&upstream);
    protection.name_no_metadata();
    protection.is_its_own_authorization_server();
    let (state, browser) = (Directory::new(), Browser::start());
    let gateway = signing_in(&upstream.url(), json!(true), &state, &browser);
    gateway.wait_until_well(&["s"]);
    call(&gateway);
    assert_eq!(auth.seen_of("POST /register").len(), 1);
    assert_eq!(browser.pages().len(), 1);
}

#[test]
fn no_secret_is_in_logs_status_or_on_disk() {
    let (auth, upstream) = (AuthorizationServer::start(), HttpUpstream::start());
    auth.protect(&upstream);
    let (state, browser) = (Directory::new(), Browser::start());
    let gateway = signing_in(&upstream.url(), json!(true), &state, &browser);
    gateway.wait_until_well(&["s"]);
    call(&gateway);
    auth.end_access_tokens();
    call(&gateway);
    let mut told = gateway.get("/status").expect(200).to_string();
    told.push_str(&gateway.stderr());
    for entry in std::fs::read_dir(state.path()).unwrap() {
        let path = entry.unwrap().path();
        told.push_str(&String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()));
        use std::os::unix::fs::PermissionsExt as _;
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{}", path.display());
    }
    for part in ["access-token", "refresh-token"] {
        assert!(!told.contains(part), "{part}");
    }
    let answers = browser.answers().join("\n");
    assert!(!answers.contains("access-token") && answers.contains("200"), "{answers}");
}

#[test]
fn secrets_that_an_authorization_server_repeats_are_in_no_log_status_or_page() {
    let (auth, upstream) = (AuthorizationServer::start(), HttpUpstream::start());
    auth.protect(&upstream);
    let (state, browser) = (Directory::new(), Browser::start());
    let oauth = json!({ "client_id": "known", "client_secret": "hush-of-the-client" });
    let gateway = signing_in(&upstream.url(), oauth, &state, &browser);
    gateway.wait_until_well(&["s"]);
    let said = "BAD $refresh_token/$code/$code_verifier/hush-of-the-client";
    let failing = json!({ "error": "invalid_grant", "error_description": said });
    auth.fail_with(Some((400, failing)));
    auth.end_access_tokens();
    let answer = gateway.call("echo", &json!({ "text": "hi" }));
    assert_ne!(answer.status(), 200);
    let answers = wait_for("the page tells of it", || {
        let answers = browser.answers().join("\n");
        answers.contains("BAD").then_some(answers)
    });
    let mut told = gateway.get("/status").expect(200).to_string();
    told.push_str(&gateway.stderr());
    assert!(told.matches("BAD").count() > 1, "{told}");
    told.push_str(&answers);
    let mut n_secrets = 0;
    for seen in auth.seen_of("POST /token") {
        for name in ["refresh_token", "code", "code_verifier", "client_secret"] {
            let secret = seen.field(name);
            assert!(secret.is_empty() || !told.contains(secret), "{name}: {told}");
            n_secrets += usize::from(!secret.is_empty());
        }
    }
    assert!(n_secrets > 4, "{n_secrets}");
    assert!(!told.contains("hush-of-the-client"), "{told}");
}

#[test]
fn an_access_token_in_the_bodies_of_calls_is_not_in_the_log() {
    let (auth, upstream) = (AuthorizationServer::start(), HttpUpstream::start());
    auth.protect(&upstream);
    auth.set_metadata("token_endpoint_auth_methods_supported", json!(["client_secret_basic"]));
    let state = Directory::new();
    let oauth = json!({ "grant": "client_credentials", "client_id": "me", "client_secret": "hush hush" });
    let gateway = Gateway::with(json!({
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http", "oauth": oauth } },
        "state_dir": state.path(),
        "first_list_ms": 100,
        "log": { "level": "trace", "bodies": true, "access": true },
    }))
    .start();
    gateway.wait_until_well(&["s"]);
    let call = |text: &str| gateway.call("echo", &json!({ "text": text })).expect(200);
    call("hi there");
    let headers = upstream.last_headers();
    let is_it = |name: &str| name.eq_ignore_ascii_case("authorization");
    let (_, sent) = headers.into_iter().find(|(name, _)| is_it(name)).unwrap();
    let token = sent.strip_prefix("Bearer ").unwrap();
    call(token);
    let told = gateway.stop().stderr;
    assert!(told.contains("hi there") && told.contains("[secret]"), "{told}");
    assert!(!told.contains(token), "{told}");
}
