//! The gateway on tiny_http: what works there, and what it answers where it does not.

use serde_json::{Value, json};

use crate::support::gateway::Gateway;
use crate::support::http::Request;
use crate::support::upstream_http::HttpUpstream;

fn started(upstream: &HttpUpstream) -> Gateway {
    Gateway::started(json!({
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }))
}

#[test]
fn rest_lists_and_calls() {
    let upstream = HttpUpstream::start();
    let gateway = started(&upstream);
    assert!(gateway.tool_names().contains(&"echo".to_owned()));
    assert_eq!(gateway.call_text("echo", &json!({"message": "hello"})), "hello");
    gateway.get("/nowhere").expect(404);
}

#[test]
fn a_session_opens_calls_and_ends() {
    let upstream = HttpUpstream::start();
    let gateway = started(&upstream);
    let client = gateway.mcp();
    let result: Value = client.call("echo", &json!({"message": "hello"}));
    assert_eq!(result["content"][0]["text"], "hello");
    client.end().expect(204);
}

#[test]
fn streams_are_refused_with_405() {
    let upstream = HttpUpstream::start();
    let gateway = started(&upstream);
    let client = gateway.mcp();
    gateway.send(&client.listen_request()).expect(405);
    let stream = Request::get("/sse").header("Accept", "text/event-stream");
    gateway.send(&stream).expect(405);
}

#[test]
fn it_listens_on_loopback_alone() {
    let config = json!({
        "listen": "0.0.0.0:0",
        "allow_anonymous": true,
        "mcp_servers": { "s": { "url": "http://127.0.0.1:9/mcp", "transport": "http" } },
    });
    let ended = Gateway::with(config).try_start().unwrap_err();
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("tiny_http"), "{}", ended.stderr);
}
