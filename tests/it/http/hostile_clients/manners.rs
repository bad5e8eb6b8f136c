//! What HTTP allows and few clients do: pipelining, asking before the body is sent, asking for
//! another protocol.

use std::time::Instant;

use serde_json::json;

use super::{Rig, WANTED, call, call_body, post};
use crate::support::DEADLINE;
use crate::support::http::Wire;

#[test]
fn requests_in_one_packet_are_answered_one_by_one_in_their_order() {
    let rig = Rig::with(&json!({}));
    rig.attack(|rig| {
        let before = rig.n_wanted();
        let mut bytes = Vec::new();
        for _ in 0..50 {
            bytes.extend_from_slice(&call(WANTED));
            bytes.extend_from_slice(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n");
        }
        bytes.extend_from_slice(
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        );
        // What follows a close is nobody's.
        bytes.extend_from_slice(&call(super::SMUGGLED));
        let statuses = rig.send(&bytes).statuses();
        let mut expected = [200, 404].repeat(50);
        expected.push(200);
        assert_eq!(statuses, expected);
        assert_eq!(rig.n_wanted() - before, 50);
    });
}

#[test]
fn a_body_is_asked_for_only_where_it_is_wanted() {
    let rig = Rig::configured(json!({ "api_keys": [{ "name": "k", "key": "key-of-k" }] }));
    let body = call_body(WANTED);
    let lines = |rest: &str| {
        format!("Content-Length: {}\r\nExpect: 100-continue\r\n{rest}", body.len())
    };
    let before = rig.n_wanted();
    let mut client = rig.connect();
    client.send(&post("/mcp/tools/call", &lines("x-api-key: key-of-k\r\n"), ""));
    let deadline = Instant::now() + DEADLINE;
    let mut wire = Wire::new(client.0.try_clone().unwrap());
    assert_eq!(wire.head(deadline).unwrap().unwrap().status(), 100);
    client.send(body.as_bytes());
    assert_eq!(wire.head(deadline).unwrap().unwrap().status(), 200);
    assert_eq!(rig.n_wanted() - before, 1);
    // Without a key, at no path, with a body that is too long, or expecting something else.
    let call = "/mcp/tools/call";
    let long = "Content-Length: 4194305\r\nExpect: 100-continue\r\n".to_owned();
    let tea = format!("Content-Length: {}\r\nExpect: tea\r\n", body.len());
    for (target, lines, status) in [
        (call, lines("x-api-key: wrong\r\n"), 401),
        (call, lines(""), 401),
        ("/nowhere", lines("x-api-key: key-of-k\r\n"), 404),
        (call, lines("x-api-key: key-of-k\r\nOrigin: http://evil.example\r\n"), 403),
        (call, long, 413),
        (call, tea, 417),
    ] {
        let reply = rig.send(&post(target, &lines, ""));
        assert_eq!(reply.statuses(), [status], "{reply:?}");
    }
    assert_eq!(rig.n_wanted() - before, 1);
}

#[test]
fn another_protocol_is_not_spoken() {
    let rig = Rig::with(&json!({}));
    rig.attack(|rig| {
        for lines in [
            "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n\
             HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
            "Connection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        ] {
            let request = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
            let frames = [request.into_bytes(), call(super::SMUGGLED)].concat();
            let reply = rig.send(&frames);
            assert_eq!(reply.statuses(), [200], "{reply:?}");
            assert!(!reply.0.to_ascii_lowercase().contains("upgrade"), "{reply:?}");
        }
        let connect = b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n";
        assert_eq!(rig.send(connect).statuses(), [400]);
        let trace = b"TRACE /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        assert_eq!(rig.send(trace).statuses(), [405]);
    });
}
