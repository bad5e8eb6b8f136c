//! Issuers that are down or slow, and clients that want to cost much.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{config, echo, gateway, rules, with};
use crate::support::gateway::{Directory, Gateway};
use crate::support::http::{Request, exchange, try_exchange};
use crate::support::issuer::{Issuer, SigningKey};
use crate::support::stopwatch::Stopwatch;
use crate::support::upstream_http::HttpUpstream;
use crate::support::{DEADLINE, in_background, wait_for};
use crate::upstream::transport::tls::{fixture, secured_url};

#[test]
fn tokens_are_good_while_their_issuer_is_down() {
    let (upstream, issuer) = (HttpUpstream::start(), Issuer::start());
    let gateway = gateway(&upstream, &[&issuer]);
    let known = issuer.token("alice", &["staff"]);
    gateway.send(&with(echo(), &known)).expect(200);
    issuer.listener.stop();
    gateway.send(&with(echo(), &known)).expect(200);
    // Another token, by a key that is known.
    gateway.send(&with(echo(), &issuer.token("bob", &["staff"]))).expect(200);
    let n_asked = issuer.n_asked("/jwks");
    // A call never asks: neither before nor after.
    for _ in 0..20 {
        gateway.send(&with(echo(), &known)).expect(200);
    }
    assert_eq!(issuer.n_asked("/jwks"), n_asked);
}

#[test]
fn an_issuer_that_was_never_there_is_no_reason_to_refuse_the_others() {
    let (upstream, there, gone) = (HttpUpstream::start(), Issuer::start(), Issuer::start());
    let token = gone.token("alice", &["staff"]);
    gone.listener.stop();
    let issuers = [gone.config(), there.config()];
    let gateway = Gateway::started(config(&upstream, &issuers, &rules()));
    let answer = gateway.send(&with(echo(), &token)).expect(503);
    assert!(answer.header("Retry-After").is_some(), "{answer}");
    let watch = Stopwatch::start(&gateway);
    gateway.send(&with(echo(), &there.token("bob", &["staff"]))).expect(200);
    watch.is_below("a call of another issuer's user", Duration::from_secs(3));
}

/// Who looks after the gateway may send a token with everything.
#[test]
fn what_everybody_is_told_waits_for_no_issuer() {
    let (upstream, issuer) = (HttpUpstream::start(), Issuer::start());
    issuer.delay(Duration::from_secs(30));
    let gateway = gateway(&upstream, &[&issuer]);
    let token = issuer.token("alice", &["staff"]);
    let watch = Stopwatch::start(&gateway);
    for (path, status) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/", 200),
        ("/console.js", 200),
        ("/oauth/sign-in/none", 404),
    ] {
        gateway.send(&with(Request::get(path), &token)).expect(status);
        // One that no issuer knows is no reason to refuse a look, either.
        gateway.send(&with(Request::get(path), "made.up.token")).expect(status);
    }
    watch.is_below("ten answers for everybody", Duration::from_secs(3));
}

#[test]
fn an_issuer_with_a_certificate_of_a_companys_own_authority_is_trusted_by_its_ca_file() {
    let (upstream, issuer) = (HttpUpstream::start(), Issuer::start());
    let keys = secured_url(&format!("{}/jwks", issuer.url()), "signed");
    let folder = Directory::new();
    let file = folder.path().join("authority.pem");
    let mut of = issuer.config();
    of["jwks_uri"] = json!(keys);
    let token = issuer.token("alice", &["staff"]);
    // Without the file, and with one that is not there, nothing is believed.
    let gateway = Gateway::started(config(&upstream, &[of.clone()], &rules()));
    gateway.send(&with(echo(), &token)).expect(503);
    wait_for("the certificate is refused", || {
        gateway.stderr().contains("nobody whom the gateway trusts").then_some(())
    });
    of["ca_file"] = json!(file);
    let gateway = Gateway::started(config(&upstream, &[of], &rules()));
    gateway.send(&with(echo(), &token)).expect(503);
    wait_for("the file is named", || gateway.stderr().contains("authority.pem").then_some(()));
    // Once it is there, it is read without a restart.
    std::fs::copy(fixture("authority.pem"), &file).unwrap();
    wait_for("the token is good", || {
        (gateway.send(&with(echo(), &token)).status() == 200).then_some(())
    });
}

#[test]
fn an_opaque_token_is_asked_about_and_remembered() {
    let (upstream, issuer) = (HttpUpstream::start(), Issuer::start());
    let issuers = [issuer.config_with_introspection()];
    let gateway = Gateway::started(config(&upstream, &issuers, &rules()));
    let mut claims = issuer.claims("alice", 3600);
    claims["groups"] = json!(["staff"]);
    let token = issuer.opaque("opaque-token-1", claims);
    for _ in 0..10 {
        gateway.send(&with(echo(), &token)).expect(200);
    }
    assert_eq!(issuer.n_asked("/introspect"), 1);
    let by = issuer.introspected_by().unwrap_or_default();
    assert!(by.starts_with("Basic "), "{by}");
    for _ in 0..3 {
        gateway.send(&with(echo(), "opaque-token-2")).expect(401);
    }
    assert!(issuer.n_asked("/introspect") <= 3, "what is not active is remembered, too");
    for text in [gateway.stderr(), gateway.get("/status").expect(200).text().to_owned()] {
        assert!(
            !text.contains("introspection-secret") && !text.contains("opaque-token"),
            "{text}"
        );
    }
}

/// Many send tokens with made-up key ids and opaque ones; one user calls meanwhile.
#[test]
fn a_flood_of_garbage_costs_a_user_nothing() {
    let (upstream, issuer) = (HttpUpstream::start(), Issuer::start());
    let issuers = [issuer.config_with_introspection()];
    let gateway = Gateway::started(config(&upstream, &issuers, &rules()));
    let token = issuer.token("alice", &["staff"]);
    gateway.send(&with(echo(), &token)).expect(200);
    // What is asked from here on takes long.
    issuer.delay(Duration::from_millis(1500));
    let (stop, n_sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let stranger = Arc::new(SigningKey::p256());
    let mut claims = issuer.claims("mallory", 3600);
    claims["groups"] = json!(["ops"]);
    let floods: Vec<_> = (0..24)
        .map(|n| {
            let (address, claims) = (gateway.address().to_owned(), claims.clone());
            let (stop, n_sent, stranger) = (stop.clone(), n_sent.clone(), stranger.clone());
            in_background(move || {
                let mut round = 0;
                while !stop.load(Ordering::SeqCst) {
                    round += 1;
                    let garbage = if n % 2 == 0 {
                        let kid = format!("made-up-{n}-{round}");
                        let header = json!({ "typ": "at+jwt", "alg": "ES256", "kid": kid });
                        stranger.sign(&header, &claims)
                    } else {
                        format!("opaque-{n}-{round}")
                    };
                    let request = with(Request::get("/mcp/tools/list"), &garbage);
                    if let Ok(answer) = try_exchange(&address, &request) {
                        assert!(matches!(answer.status(), 401 | 503), "{answer}");
                        n_sent.fetch_add(1, Ordering::SeqCst);
                    }
                }
            })
        })
        .collect();
    let until = Instant::now() + Duration::from_secs(5);
    let mut n_calls = 0;
    while Instant::now() < until || n_calls <= 20 || n_sent.load(Ordering::SeqCst) <= 24 {
        let watch = Stopwatch::start(&gateway);
        exchange(gateway.address(), &with(echo(), &token)).expect(200);
        watch.is_below("a call beside the flood", Duration::from_millis(1400));
        n_calls += 1;
        assert!(Instant::now() < until + DEADLINE, "{n_calls} calls beside {n_sent:?}");
    }
    stop.store(true, Ordering::SeqCst);
    floods.into_iter().for_each(|flood| flood.join().unwrap());
    // Made-up key ids do not make the gateway flood the issuer.
    assert!(issuer.n_asked("/jwks") <= 8, "{}", issuer.n_asked("/jwks"));
}

#[test]
fn a_key_that_is_no_token_costs_its_client_no_issuer() {
    let (upstream, issuer) = (HttpUpstream::start(), Issuer::start());
    let gateway = gateway(&upstream, &[&issuer]);
    let n_asked = issuer.listener.n_requests();
    for _ in 0..20 {
        gateway.send(&with(echo(), super::KEY)).expect(200);
    }
    assert_eq!(issuer.listener.n_requests(), n_asked);
}
