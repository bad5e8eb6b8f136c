//! Tokens, good and bad, at every door.

use serde_json::json;

use super::{KEY, config, echo, gateway, rules, with};
use crate::support::gateway::Gateway;
use crate::support::http::{Request, Response};
use crate::support::issuer::{AUDIENCE, Issuer, SigningKey, now};
use crate::support::mcp::initialize_message;
use crate::support::mcp_sse::SseClient;
use crate::support::modern::ModernClient;
use crate::support::upstream_http::HttpUpstream;
use crate::support::wait_for;

fn doors() -> Vec<Request> {
    vec![
        Request::get("/mcp/tools/list"),
        echo(),
        Request::get("/mcp-rest/tools/list"),
        Request::post("/mcp-rest/tools/call", &json!({ "name": "s-echo" })),
        Request::get("/mcp"),
        Request::get("/sse"),
        Request::get("/mcp/sse"),
        Request::get("/mcp/s"),
        Request::post("/mcp/sse/messages?session_id=x", &json!({})),
        Request::post("/mcp", &initialize_message(1, "2025-11-25")),
        Request::post("/s/mcp", &initialize_message(1, "2025-11-25")),
        Request::new("DELETE", "/mcp"),
        Request::get("/status"),
        Request::get("/status/events"),
        Request::get("/status/pins"),
        Request::get("/metrics"),
        Request::get("/openapi.json"),
        Request::post("/reload", &json!({})),
    ]
}

/// The challenge of a refusal by 401.
#[track_caller]
fn challenge(answer: Response) -> String {
    let answer = answer.expect(401);
    answer.header("WWW-Authenticate").unwrap_or_default().to_owned()
}

#[test]
fn a_token_is_good_wherever_a_key_is() {
    let (upstream, issuer) = (HttpUpstream::start(), Issuer::start());
    let gateway = gateway(&upstream, &[&issuer]);
    let token = issuer.token("alice", &["ops"]);
    let call = gateway.send(&with(echo(), &token)).expect(200);
    assert_eq!(call.json()["content"][0]["text"], "hello");
    for path in
        ["/mcp/tools/list", "/mcp-rest/tools/list", "/status", "/metrics", "/openapi.json"]
    {
        gateway.send(&with(Request::get(path), &token)).expect(200);
    }
    gateway.send(&with(Request::post("/reload", &json!({})), &token)).expect(200);
    let mcp = super::client(&gateway, &token).opened();
    assert!(mcp.tool_names().contains(&"s-echo".to_owned()));
    drop(mcp.listen());
    mcp.end().expect(204);
    let of_server = super::client(&gateway, &token).at("/mcp/s").opened();
    assert_eq!(of_server.call("s-echo", &json!({ "message": "x" }))["content"][0]["text"], "x");
    let header = [("Authorization".to_owned(), format!("Bearer {token}"))];
    let mut sse = SseClient::connect_with(gateway.address(), "/sse", &header);
    sse.initialize();
    assert!(sse.tool_names().contains(&"s-echo".to_owned()));
    let modern = ModernClient::to(&gateway).header("Authorization", &format!("Bearer {token}"));
    assert!(modern.tool_names().contains(&"s-echo".to_owned()));
    // Keys go on as before, and first.
    gateway.send(&with(echo(), KEY)).expect(200);
    gateway.send(&echo().header("x-api-key", KEY)).expect(200);
}

#[test]
fn no_token_is_told_where_to_get_one() {
    let (upstream, issuer) = (HttpUpstream::start(), Issuer::start());
    let gateway = gateway(&upstream, &[&issuer]);
    for door in doors() {
        let told = challenge(gateway.send(&door));
        assert!(told.starts_with("Bearer "), "{told}");
        let path = String::from_utf8(door.to_bytes(gateway.address())).unwrap();
        let path = path.split([' ', '?']).nth(1).unwrap().to_owned();
        let url =
            format!("http://{}/.well-known/oauth-protected-resource{path}", gateway.address());
        assert!(told.contains(&format!("resource_metadata=\"{url}\"")), "{told}");
        assert!(told.contains("scope=\"tools:read\""), "{told}");
        assert!(!told.contains("error"), "{told}");
        // What is told is there.
        let metadata = gateway.send(&Request::get(&url[7 + gateway.address().len()..]));
        assert_eq!(metadata.expect(200).json()["authorization_servers"], json!([issuer.url()]));
    }
    // Nobody is asked at these.
    for path in ["/healthz", "/readyz", "/", "/console.js"] {
        gateway.send(&Request::get(path)).expect(200);
    }
    assert_eq!(upstream.seen().n_calls("echo"), 0);
}

#[test]
fn a_token_that_is_not_good_opens_no_door() {
    let (upstream, issuer, stranger) =
        (HttpUpstream::start(), Issuer::start(), Issuer::start());
    let gateway = gateway(&upstream, &[&issuer]);
    let good = issuer.claims("alice", 3600);
    let claims = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut claims = good.clone();
        claims["groups"] = json!(["ops"]);
        change(&mut claims);
        claims
    };
    let signed = |change: &dyn Fn(&mut serde_json::Value)| issuer.sign(&claims(change));
    let none = |header: serde_json::Value| {
        let of_stranger = SigningKey::p256().sign(&header, &claims(&|_| ()));
        let (rest, _) = of_stranger.rsplit_once('.').unwrap();
        format!("{rest}.")
    };
    let whole = signed(&|_| ());
    gateway.send(&with(echo(), &whole)).expect(200);
    let flipped = {
        let (rest, signature) = whole.rsplit_once('.').unwrap();
        let first = if signature.starts_with('A') { 'B' } else { 'A' };
        format!("{rest}.{first}{}", &signature[1..])
    };
    let bad = [
        ("expired", signed(&|it| it["exp"] = json!(now() - 3600))),
        ("not yet good", signed(&|it| it["nbf"] = json!(now() + 3600))),
        ("without an end", signed(&|it| drop(it.as_object_mut().unwrap().remove("exp")))),
        ("for others", signed(&|it| it["aud"] = json!("https://other.example/mcp"))),
        ("for nobody", signed(&|it| drop(it.as_object_mut().unwrap().remove("aud")))),
        ("of nobody", signed(&|it| drop(it.as_object_mut().unwrap().remove("iss")))),
        ("of a stranger", stranger.token("alice", &["ops"])),
        ("a stranger's signature", stranger.sign(&claims(&|_| ()))),
        ("changed", flipped),
        ("unsigned", none(json!({ "alg": "none", "typ": "at+jwt" }))),
        ("symmetric", none(json!({ "alg": "HS256", "typ": "at+jwt", "kid": "one" }))),
        ("an ID token", {
            let key = SigningKey::p256();
            issuer.rotate_to("two", key);
            signed(&|it| it["nonce"] = json!("n")).replace("at+jwt", "jwt")
        }),
        ("no token at all", "garbage".to_owned()),
    ];
    for (what, token) in &bad[..11] {
        for door in doors() {
            let told = challenge(gateway.send(&with(door, token)));
            assert!(told.contains("error=\"invalid_token\""), "{what}: {told}");
            assert!(told.contains("error_description=\""), "{what}: {told}");
            assert!(told.contains("resource_metadata=\""), "{what}: {told}");
        }
    }
    let told = challenge(gateway.send(&with(echo(), &bad[12].1)));
    assert!(told.contains("invalid_token"), "{told}");
    // A token is one in `Authorization` alone.
    let elsewhere = [
        echo().header("x-api-key", &whole),
        echo().header("x-litellm-api-key", &format!("Bearer {whole}")),
        Request::get(&format!("/mcp/tools/list?access_token={whole}")),
    ];
    for request in &elsewhere {
        challenge(gateway.send(request));
    }
    let log = gateway.stderr();
    assert!(!log.contains(&whole) && !log.contains(whole.rsplit('.').next().unwrap()), "{log}");
    assert_eq!(upstream.seen().n_calls("echo"), 1);
}

#[test]
fn whom_no_rule_knows_is_told_the_scopes_that_would_help() {
    let (upstream, issuer) = (HttpUpstream::start(), Issuer::start());
    let gateway = gateway(&upstream, &[&issuer]);
    let nobody = issuer.token("mallory", &["guests"]);
    for door in doors() {
        let answer = gateway.send(&with(door, &nobody)).expect(403);
        let told = answer.header("WWW-Authenticate").unwrap_or_default();
        assert!(told.contains("error=\"insufficient_scope\""), "{answer}");
        assert!(told.contains("scope=\"tools:read\""), "{answer}");
        assert!(told.contains("resource_metadata=\""), "{answer}");
    }
    // REST's errors have the forms of their dialects.
    let plain = gateway.send(&with(echo(), &nobody)).expect_error(403);
    assert_eq!(plain["code"], "insufficient_scope");
    let list = Request::get("/mcp-rest/tools/list");
    let litellm = gateway.send(&with(list, &nobody)).expect(403).json();
    assert_eq!(litellm["detail"]["error"], "insufficient_scope");
    let post = Request::post("/mcp", &initialize_message(1, "2025-11-25"));
    let mcp = gateway.send(&with(post, &nobody)).expect(403).json();
    assert_eq!(mcp["jsonrpc"], "2.0");
}

#[test]
fn rules_give_what_keys_can_have() {
    let (upstream, issuer) = (HttpUpstream::start(), Issuer::start());
    let gateway = gateway(&upstream, &[&issuer]);
    let mut claims = issuer.claims("reader", 3600);
    claims["scope"] = json!("openid tools:read");
    let reader = issuer.sign(&claims);
    let list = gateway.send(&with(Request::get("/mcp/tools/list"), &reader)).expect(200).json();
    let names: Vec<_> =
        list["tools"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, [json!("s-echo")]);
    let other = Request::post("/mcp/tools/call", &json!({ "name": "s-fail" }));
    gateway.send(&with(other, &reader)).expect_error(404);
    let staff = issuer.token("bob", &["staff"]);
    for path in ["/metrics", "/status/pins"] {
        gateway.send(&with(Request::get(path), &staff)).expect_error(403);
    }
    let seen = gateway.send(&with(Request::get("/status"), &staff)).expect(200).json();
    assert!(seen.get("sessions").is_none() && seen["upstreams"][0]["server"] == "s", "{seen}");
}

#[test]
fn an_address_of_others_may_be_listened_on_with_issuers_alone() {
    let (upstream, issuer) = (HttpUpstream::start(), Issuer::start());
    let mut open = config(&upstream, &[issuer.config()], &rules());
    open["listen"] = json!("0.0.0.0:0");
    open.as_object_mut().unwrap().remove("api_keys");
    let gateway = Gateway::with(open).start();
    // A client's own word for the gateway's address is not repeated, where nobody checks it.
    let told = gateway.send(&echo().host("evil.example")).expect(401);
    assert!(!told.header("www-authenticate").unwrap().contains("evil"));
    let metadata = "/.well-known/oauth-protected-resource/mcp";
    let told = gateway.send(&Request::get(metadata).host("evil.example"));
    assert!(!told.text().contains("evil"), "{}", told.text());
    let token = issuer.token("alice", &["staff"]);
    let called = wait_for("the server is there", || {
        let answer = gateway.send(&with(echo(), &token));
        (answer.status() == 200).then_some(answer)
    });
    assert_eq!(called.json()["content"][0]["text"], "hello");
    assert_eq!(AUDIENCE, "https://mcp.example.org/mcp");
}

#[test]
fn an_admin_listener_of_others_takes_an_admin_s_token() {
    let (upstream, issuer) = (HttpUpstream::start(), Issuer::start());
    let port = crate::support::listener::free_port();
    let mut config = config(&upstream, &[issuer.config()], &rules());
    config["admin_listen"] = json!(format!("0.0.0.0:{port}"));
    let gateway = Gateway::started(config);
    let at = format!("127.0.0.1:{port}");
    let get = |token: Option<&str>| {
        let request = Request::get("/metrics");
        let request = token.into_iter().fold(request, with);
        crate::support::http::exchange(&at, &request).status()
    };
    assert_eq!(get(None), 401);
    assert_eq!(get(Some(&issuer.token("bob", &["staff"]))), 403);
    assert_eq!(get(Some("garbage")), 401);
    assert_eq!(get(Some(&issuer.token("alice", &["ops"]))), 200);
    drop(gateway);
}

/// RFC 8707: what a user has agreed to for one endpoint is good there alone.
#[test]
fn a_token_for_one_endpoint_is_good_there_and_below() {
    let (upstream, issuer) = (HttpUpstream::start(), Issuer::start());
    let mut config = config(&upstream, &[issuer.config()], &rules());
    config["public_url"] = json!("https://gateway.example/trunk");
    let gateway = Gateway::started(config);
    let status = |audience: serde_json::Value, path: &str| {
        let mut claims = issuer.claims("alice", 3600);
        (claims["groups"], claims["aud"]) = (json!(["staff"]), audience);
        let token = issuer.sign(&claims);
        gateway
            .send(&with(Request::post(path, &initialize_message(1, "2025-11-25")), &token))
            .status()
    };
    let url = |path: &str| json!(format!("https://gateway.example/trunk{path}"));
    for path in ["/mcp", "/mcp/s", "/s/mcp", "/trunk/mcp"] {
        assert_eq!(status(json!(AUDIENCE), path), 200, "the configured audience at {path}");
        assert_eq!(status(url(""), path), 200, "the whole gateway at {path}");
        assert_eq!(status(json!(["https://other.example", AUDIENCE]), path), 200, "{path}");
    }
    assert_eq!(
        [status(url("/mcp/s"), "/mcp/s"), status(url("/mcp/s"), "/trunk/mcp/s")],
        [200, 200]
    );
    assert_eq!([status(url("/mcp"), "/mcp/s"), status(url("/s/mcp"), "/s/mcp")], [200, 200]);
    for (audience, path) in [
        (url("/mcp/s"), "/mcp"),
        (url("/mcp/s"), "/s/mcp"),
        (url("/mcp/s2"), "/mcp/s"),
        (url("/mcp/../s/mcp"), "/s/mcp"),
        (json!("https://gateway.example/other"), "/mcp"),
        (json!("https://gateway.example"), "/mcp"),
        (json!("https://gateway.example/trunk.evil"), "/mcp"),
        (json!("https://evil.example/trunk/mcp"), "/mcp"),
        (json!(format!("http://{}/mcp", gateway.address())), "/mcp"),
    ] {
        assert_eq!(status(audience.clone(), path), 401, "{audience} at {path}");
    }
}
