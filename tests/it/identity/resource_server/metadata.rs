//! Where a client learns which authorization server the gateway trusts.

use serde_json::{Value, json};

use super::{config, gateway, rules};
use crate::support::gateway::Gateway;
use crate::support::http::Request;
use crate::support::issuer::Issuer;
use crate::support::upstream_http::HttpUpstream;

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// The endpoints that are resources.
const RESOURCES: [&str; 13] = [
    "/mcp",
    "/mcp/",
    "/mcp/s",
    "/s/mcp",
    "/mcp/sse",
    "/sse",
    "/s/sse",
    "/mcp/s/sse",
    "/mcp/tools/list",
    "/mcp-rest/tools/call",
    "/mcp/a,b",
    "/status",
    "/metrics",
];

#[track_caller]
fn metadata(gateway: &Gateway, path: &str) -> Value {
    gateway.send(&Request::get(path)).expect(200).json()
}

#[test]
fn every_endpoint_has_its_own_and_other_paths_have_none() {
    let (upstream, one, two) = (HttpUpstream::start(), Issuer::start(), Issuer::start());
    let gateway = gateway(&upstream, &[&one, &two]);
    let base = format!("http://{}", gateway.address());
    for path in RESOURCES {
        let found = metadata(&gateway, &format!("{WELL_KNOWN}{path}"));
        assert_eq!(found["resource"], format!("{base}{path}"), "{found}");
        assert_eq!(found["authorization_servers"], json!([one.url(), two.url()]));
        assert_eq!(found["bearer_methods_supported"], json!(["header"]));
        assert_eq!(found["scopes_supported"], json!(["tools:read"]));
        assert_eq!(found["resource_name"], "Trunkline");
        let algorithms = found["dpop_signing_alg_values_supported"].as_array().unwrap();
        assert!(algorithms.contains(&json!("ES256")), "{found}");
    }
    assert_eq!(metadata(&gateway, WELL_KNOWN)["resource"], base);
    for path in ["/nothing", "/mcp/a/b/c", "/healthz", "/.well-known", "mcp", "/mcp/../status"]
    {
        gateway.send(&Request::get(&format!("{WELL_KNOWN}{path}"))).expect(if path == "mcp" {
            401
        } else {
            404
        });
    }
    gateway.send(&Request::post(WELL_KNOWN, &json!({}))).expect(405);
    // Without a key, and with one that is wrong.
    let wrong = Request::get(WELL_KNOWN).header("Authorization", "Bearer wrong");
    gateway.send(&wrong).expect(200);
}

#[test]
fn every_page_may_read_them_and_admitted_ones_the_challenge() {
    let (upstream, issuer) = (HttpUpstream::start(), Issuer::start());
    let gateway = gateway(&upstream, &[&issuer]);
    let path = format!("{WELL_KNOWN}/mcp");
    let foreign = "https://inspector.example";
    for method in ["GET", "HEAD", "OPTIONS"] {
        let request = Request::new(method, &path).header("Origin", foreign);
        let answer = gateway.send(&request);
        assert_eq!(answer.header("Access-Control-Allow-Origin"), Some("*"), "{answer}");
    }
    // Once only, also for an origin that is admitted.
    let own = Request::get(&path).header("Origin", "http://localhost:6274");
    let answer = gateway.send(&own).expect(200);
    let all = answer.head.headers.iter();
    let allowed: Vec<_> = all
        .filter(|(name, _)| name.eq_ignore_ascii_case("access-control-allow-origin"))
        .collect();
    assert_eq!(allowed.len(), 1, "{answer}");
    gateway.send(&Request::get("/mcp").header("Origin", foreign)).expect(403);
    // A large body is refused before it is read; a page may read why.
    for body in ["{}".to_owned(), "x".repeat(200_000)] {
        let post = Request::post_text("/mcp", &body).header("Origin", "http://localhost:6274");
        let refused = gateway.send(&post).expect(401);
        let exposed = refused.header("Access-Control-Expose-Headers").unwrap_or_default();
        assert!(exposed.contains("WWW-Authenticate"), "{refused}");
        let origin = refused.header("Access-Control-Allow-Origin");
        assert_eq!(origin, Some("http://localhost:6274"), "{refused}");
    }
    // The names of hosts are still checked.
    gateway.send(&Request::get(&path).host("evil.example")).expect(403);
}

#[test]
fn behind_a_proxy_they_are_what_the_client_used() {
    let (upstream, issuer) = (HttpUpstream::start(), Issuer::start());
    let mut config = config(&upstream, &[issuer.config()], &rules());
    config["public_url"] = json!("https://example.org/trunk");
    let gateway = Gateway::started(config);
    for path in [
        // RFC 9728, section 3.1: as it is, and without the prefix that a proxy takes away.
        format!("{WELL_KNOWN}/trunk/mcp/s"),
        format!("{WELL_KNOWN}/mcp/s"),
        // Below the path that a proxy passes on, taken away or not.
        format!("/trunk{WELL_KNOWN}/mcp/s"),
        format!("/trunk{WELL_KNOWN}/trunk/mcp/s"),
    ] {
        let found = metadata(&gateway, &path);
        assert_eq!(found["resource"], "https://example.org/trunk/mcp/s", "{path}");
    }
    for path in
        [WELL_KNOWN.to_owned(), format!("{WELL_KNOWN}/trunk"), format!("/trunk{WELL_KNOWN}")]
    {
        assert_eq!(
            metadata(&gateway, &path)["resource"],
            "https://example.org/trunk",
            "{path}"
        );
    }
    for path in ["/mcp/s", "/trunk/mcp/s"] {
        let told = gateway.send(&Request::get(path)).expect(401);
        let told = told.header("WWW-Authenticate").unwrap_or_default().to_owned();
        let url = "https://example.org/trunk/.well-known/oauth-protected-resource/mcp/s";
        assert!(told.contains(&format!("resource_metadata=\"{url}\"")), "{told}");
    }
}

#[test]
fn without_issuers_there_are_none() {
    let upstream = HttpUpstream::start();
    for keys in [json!([]), json!([{ "name": "k", "key": super::KEY }])] {
        let gateway = Gateway::with(json!({
            "api_keys": keys,
            "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
        }))
        .start();
        for path in [WELL_KNOWN.to_owned(), format!("{WELL_KNOWN}/mcp")] {
            gateway.send(&Request::get(&path)).expect(404);
        }
    }
}
