//! What is turned away is counted by reason, and `/status` tells.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Rig, call, post};
use crate::support::gateway::Gateway;
use crate::support::http::Request;
use crate::support::wait_until;

fn counts(gateway: &Gateway) -> Value {
    gateway.get("/status").expect(200).json()["rejected"].clone()
}

/// The reasons whose number has changed, and by how much.
fn changes(before: &Value, after: &Value) -> Vec<(String, u64)> {
    let number = |counts: &Value, reason: &str| counts[reason].as_u64().unwrap();
    let reasons = after.as_object().unwrap().keys();
    reasons
        .map(|reason| (reason.clone(), number(after, reason) - number(before, reason)))
        .filter(|(_, more)| *more > 0)
        .collect()
}

#[test]
fn every_refusal_is_counted_once_under_its_reason() {
    let rig = Rig::configured(json!({
        "limits": { "head_ms": 300 },
        "api_keys": [
            { "name": "k", "key": "key-of-k", "admin": true },
            { "name": "slow", "key": "key-of-slow", "calls_per_minute": 1 },
        ],
    }));
    let key = "x-api-key: key-of-k\r\nConnection: close\r\n";
    let get = |target: &str, lines: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{lines}{key}\r\n").into_bytes()
    };
    let long = "Content-Length: 4194305\r\n";
    for (reason, status, bytes) in [
        ("bad_request", 400, b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("bad_request", 501, post("/mcp", "Transfer-Encoding: gzip\r\n", "")),
        ("bad_request", 405, get("/mcp/tools/call", "")),
        ("bad_request", 400, post("/mcp", &format!("Content-Length: 1\r\n{key}"), "{")),
        ("bad_request", 400, get("/healthz", "x-api-key: key-of-k\r\n")),
        ("head_too_large", 431, get("/healthz", &"A: b\r\n".repeat(200))),
        ("body_too_large", 413, post("/mcp", &format!("{long}{key}"), "")),
        ("timeout", 408, b"GET / HT".to_vec()),
        ("origin", 403, get("/healthz", "Origin: http://evil.example\r\n")),
        (
            "unauthorized",
            401,
            b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_vec(),
        ),
        // Before its body is there.
        ("unauthorized", 401, post("/mcp", "Content-Length: 5\r\n", "")),
        ("unknown_path", 404, get("/nowhere", "")),
        (
            "unknown_session",
            404,
            get("/mcp", "Mcp-Session-Id: x\r\nAccept: text/event-stream\r\n"),
        ),
    ] {
        let before = counts(&rig.gateway);
        let reply = rig.send(&bytes);
        assert_eq!(reply.statuses(), [status], "{reason}: {reply:?}");
        let changed = changes(&before, &counts(&rig.gateway));
        assert_eq!(changed, [(reason.to_owned(), 1)], "{reply:?}");
    }
    let before = counts(&rig.gateway);
    let slow = || {
        let body = json!({ "name": "wanted", "arguments": {} });
        rig.gateway
            .send(&Request::post("/mcp/tools/call", &body).header("x-api-key", "key-of-slow"))
    };
    wait_until("its rate is spent", || slow().status() == 429);
    assert_eq!(changes(&before, &counts(&rig.gateway)), [("rate".to_owned(), 1)]);
}

#[test]
fn what_is_served_is_not_counted() {
    let rig = Rig::with(&json!({ "idle_ms": 200 }));
    let before = counts(&rig.gateway);
    let mut hostile = rig.connect();
    hostile.send(&call(super::WANTED));
    // Then it is silent, which a kept connection may be.
    assert_eq!(hostile.reply().statuses(), [200]);
    // A tool that fails, and one that is not there, are answers.
    rig.gateway.call("rpc_error", &json!({}));
    rig.gateway.call("no_such_tool", &json!({})).expect(404);
    std::thread::park_timeout(Duration::from_millis(50));
    assert_eq!(changes(&before, &counts(&rig.gateway)), []);
}
