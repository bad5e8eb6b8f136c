//! Tokens that are bound to a key of their client (DPoP, RFC 9449).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::{config, echo, gateway, rules};
use crate::support::gateway::Gateway;
use crate::support::http::Request;
use crate::support::issuer::{Issuer, SigningKey};
use crate::support::upstream_http::HttpUpstream;

fn bound(issuer: &Issuer, key: &SigningKey) -> String {
    let mut claims = issuer.claims("alice", 3600);
    claims["groups"] = json!(["staff"]);
    claims["cnf"] = json!({ "jkt": key.thumbprint() });
    issuer.sign(&claims)
}

fn url(gateway: &Gateway, path: &str) -> String {
    format!("http://{}{path}", gateway.address())
}

fn with_proof(request: Request, token: &str, proof: &str) -> Request {
    request.header("Authorization", &format!("DPoP {token}")).header("DPoP", proof)
}

#[test]
fn a_bound_token_needs_a_new_proof_for_each_request() {
    let (upstream, issuer) = (HttpUpstream::start(), Issuer::start());
    let gateway = gateway(&upstream, &[&issuer]);
    let call = url(&gateway, "/mcp/tools/call");
    for key in [SigningKey::p256(), SigningKey::ed25519()] {
        let token = bound(&issuer, &key);
        let proof = key.proof("POST", &call, &token);
        gateway.send(&with_proof(echo(), &token, &proof)).expect(200);
        let refused = |request: Request| {
            let answer = gateway.send(&request).expect(401);
            let told = answer.header("WWW-Authenticate").unwrap_or_default().to_owned();
            assert!(told.starts_with("DPoP ") && told.contains("algs=\""), "{told}");
            assert!(told.contains("invalid_dpop_proof"), "{told}");
        };
        // The same proof again, one for another request, one of another key, none.
        refused(with_proof(echo(), &token, &proof));
        refused(with_proof(echo(), &token, &key.proof("GET", &call, &token)));
        let elsewhere = key.proof("POST", &url(&gateway, "/mcp"), &token);
        refused(with_proof(echo(), &token, &elsewhere));
        let thief = SigningKey::p256().proof("POST", &call, &token);
        refused(with_proof(echo(), &token, &thief));
        refused(echo().header("Authorization", &format!("DPoP {token}")));
        // As if it were not bound.
        let told = gateway.send(&super::with(echo(), &token)).expect(401);
        let told = told.header("WWW-Authenticate").unwrap_or_default().to_owned();
        assert!(told.starts_with("DPoP ") && told.contains("invalid_token"), "{told}");
    }
}

/// The head of a large request is looked at before its body, and again with it.
#[test]
fn a_proof_is_used_once_by_a_large_request() {
    let (upstream, issuer, key) = (HttpUpstream::start(), Issuer::start(), SigningKey::p256());
    let gateway = gateway(&upstream, &[&issuer]);
    let (token, call) = (bound(&issuer, &key), url(&gateway, "/mcp/tools/call"));
    let large = json!({ "name": "s-echo", "arguments": { "message": "x".repeat(300_000) } });
    let proof = key.proof("POST", &call, &token);
    let request = || with_proof(Request::post("/mcp/tools/call", &large), &token, &proof);
    gateway.send(&request()).expect(200);
    gateway.send(&request()).expect(401);
    // Nor by a connection that is kept.
    let mut connection = gateway.connect();
    let proof = key.proof("POST", &call, &token);
    let request = || with_proof(Request::post("/mcp/tools/call", &large), &token, &proof);
    connection.exchange(&request()).expect(200);
    connection.exchange(&request()).expect(401);
}

/// The proof of a request that ends before its body is used up all the same.
#[test]
fn a_proof_of_a_request_that_was_aborted_is_good_for_no_other() {
    let (upstream, issuer, key) = (HttpUpstream::start(), Issuer::start(), SigningKey::p256());
    let gateway = gateway(&upstream, &[&issuer]);
    let (token, url) = (bound(&issuer, &key), url(&gateway, "/mcp"));
    for _ in 0..6 {
        let proof = key.proof("POST", &url, &token);
        let request = || with_proof(Request::new("POST", "/mcp"), &token, &proof);
        let begun = request().header("Content-Length", "1000").header("Expect", "100-continue");
        let mut connection = TcpStream::connect(gateway.address()).unwrap();
        connection.write_all(&begun.to_bytes(gateway.address())).unwrap();
        let mut told = [0; 12];
        connection.read_exact(&mut told).unwrap();
        assert_eq!(&told, b"HTTP/1.1 100", "{}", String::from_utf8_lossy(&told));
        drop(connection);
        std::thread::sleep(Duration::from_millis(20));
        for _ in 0..3 {
            gateway.send(&request().header("Content-Length", "0")).expect(401);
        }
    }
}

/// The challenge names the scheme that is good for the token, whichever it came with.
#[test]
fn a_challenge_names_the_scheme_of_the_token() {
    let (upstream, issuer, key) = (HttpUpstream::start(), Issuer::start(), SigningKey::p256());
    let mut config = config(&upstream, &[issuer.config()], &rules());
    config["public_url"] = json!("https://gateway.example");
    let gateway = Gateway::started(config);
    let challenge = |change: &dyn Fn(&mut Value)| {
        let mut claims = issuer.claims("alice", 3600);
        claims["groups"] = json!(["staff"]);
        claims["cnf"] = json!({ "jkt": key.thumbprint() });
        change(&mut claims);
        let token = issuer.sign(&claims);
        let proof = key.proof("POST", "https://gateway.example/mcp/tools/call", &token);
        let answer = gateway.send(&with_proof(echo(), &token, &proof)).expect(401);
        let told = answer.header("WWW-Authenticate").unwrap_or_default().to_owned();
        assert!(told.contains("error=\"invalid_token\""), "{told}");
        told.split(' ').next().unwrap_or_default().to_owned()
    };
    assert_eq!(challenge(&|it| it["exp"] = json!(1)), "DPoP");
    let elsewhere = "https://gateway.example/s/mcp";
    assert_eq!(challenge(&|it| it["aud"] = json!(elsewhere)), "DPoP");
    let unbound = |it: &mut Value| drop(it.as_object_mut().unwrap().remove("cnf"));
    assert_eq!(challenge(&unbound), "Bearer");
}
