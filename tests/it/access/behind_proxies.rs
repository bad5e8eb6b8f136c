//! Behind a reverse proxy: under a path, with another host; looked at by
//! what knows no name.

use serde_json::{Value, json};

use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request};
use crate::support::upstream_http::HttpUpstream;
use crate::support::wait_until;

fn gateway(upstream: &HttpUpstream, more: &Value) -> Gateway {
    let mut config = json!({ "mcp_servers": { "s": { "url": upstream.url() } } });
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    Gateway::started(config)
}

/// The first event of an HTTP+SSE stream: where messages go.
#[track_caller]
fn endpoint(gateway: &Gateway, request: &Request) -> String {
    let mut stream = Connection::open(gateway.address());
    stream.send(request);
    let event = stream.into_events().next();
    event.data
}

#[test]
fn whether_it_lives_is_told_whatever_the_host() {
    let upstream = HttpUpstream::start();
    let gateway = gateway(&upstream, &json!({}));
    let ask = |path: &str| gateway.send(&Request::get(path).host("10.0.0.7:4000")).status();
    assert_eq!(ask("/healthz"), 200);
    for path in ["/readyz", "/status", "/mcp/tools/list", "/nothing"] {
        assert_eq!(ask(path), 403, "{path}");
    }
}

#[test]
fn clients_under_a_path_are_sent_to_it() {
    let upstream = HttpUpstream::start();
    let gateway = gateway(
        &upstream,
        &json!({ "public_url": "https://example.org/trunk/", "trusted_proxies": ["127.0.0.1"] }),
    );
    for path in ["/sse", "/trunk/sse"] {
        let told = endpoint(&gateway, &Request::get(path));
        assert!(told.starts_with("/trunk/mcp/sse/messages?session_id="), "{told}");
    }
    let told = endpoint(&gateway, &Request::get("/sse").header("X-Forwarded-Prefix", "/a/b/"));
    assert!(told.starts_with("/a/b/mcp/sse/messages?session_id="), "{told}");
    let odd = Request::get("/sse").header("X-Forwarded-Prefix", "//evil.example");
    assert!(endpoint(&gateway, &odd).starts_with("/trunk/mcp/"));
    // With the path and without it, and under the host that the proxy passes on.
    for path in ["/trunk/mcp/tools/list", "/mcp/tools/list", "/trunk/healthz"] {
        gateway.send(&Request::get(path).host("example.org")).expect(200);
    }
    gateway.send(&Request::get("/trunkline/healthz")).expect(404);
    gateway.send(&Request::get("/mcp/tools/list").host("example.com")).expect(403);
}

#[test]
fn a_stranger_s_prefix_is_nothing() {
    let upstream = HttpUpstream::start();
    let gateway = gateway(&upstream, &json!({}));
    let request = Request::get("/sse").header("X-Forwarded-Prefix", "/evil");
    assert!(endpoint(&gateway, &request).starts_with("/mcp/sse/messages?"));
    // Whoever operates it learns why, once.
    gateway.send(&Request::get("/status").header("X-Forwarded-For", "192.0.2.7"));
    let n_told = || gateway.stderr().matches("counts for nothing").count();
    wait_until("it is told", || n_told() > 0);
    assert!(
        gateway.stderr().contains("x-forwarded-prefix of 127.0.0.1"),
        "{}",
        gateway.stderr()
    );
    gateway.send(&Request::get("/status").header("X-Forwarded-For", "192.0.2.7"));
    assert_eq!(n_told(), 1);
}

#[test]
fn a_foreign_host_is_told_what_admits_it_behind_a_proxy() {
    let upstream = HttpUpstream::start();
    let gateway = gateway(&upstream, &json!({}));
    let refused = gateway.send(&Request::get("/mcp/tools/list").host("example.org"));
    let error = refused.expect_error(403);
    let message = error["message"].as_str().unwrap();
    for key in ["\"public_url\"", "\"allowed_hosts\""] {
        assert!(message.contains(key), "{message}");
    }
}
