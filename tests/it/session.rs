//! The session thread: its bounds, its sweep, and what its death means.

use serde_json::{Value, json};

use crate::support::gateway::Gateway;
use crate::support::mcp::{McpClient, initialize_message};
use crate::support::upstream_http::HttpUpstream;
use crate::support::wait_until;

fn config(upstream: &HttpUpstream, extra: &Value) -> Value {
    let mut config = json!({
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    });
    for (key, value) in extra.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

#[test]
fn an_idle_session_ends_and_one_in_use_does_not() {
    let upstream = HttpUpstream::start();
    let extra = json!({ "limits": { "session_idle_ms": 4000 } });
    let gateway = Gateway::started(config(&upstream, &extra));
    let (idle, used, streaming) = (gateway.mcp(), gateway.mcp(), gateway.mcp());
    let _stream = streaming.listen();
    let list = |client: &McpClient| {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
        client.post(&body).status()
    };
    wait_until("the idle session has ended", || {
        assert_eq!(list(&used), 200, "a session in use ended");
        let status: Value = gateway.get("/status").expect(200).json();
        status["sessions"]["streamable"] == 2
    });
    assert_eq!(list(&idle), 404);
    assert_eq!(list(&streaming), 200, "a session with an open stream ended");
}

#[test]
fn the_bounds_on_sessions_are_answered_with_503() {
    let upstream = HttpUpstream::start();
    let extra = json!({
        "limits": { "sessions": 3, "sessions_per_key": 2 },
        "api_keys": [{ "name": "a", "key": "key-a-1234" }, { "name": "b", "key": "key-b-1234" }],
    });
    let gateway = Gateway::started(config(&upstream, &extra));
    let open = |key: &str| McpClient::new(gateway.address()).with_key(key).initialize();
    open("key-a-1234").expect(200);
    open("key-a-1234").expect(200);
    let refused = open("key-a-1234").expect(503);
    assert!(refused.header("Retry-After").is_some());
    assert!(refused.text().contains("sessions_per_key"), "{}", refused.text());
    open("key-b-1234").expect(200);
    assert!(open("key-b-1234").expect(503).text().contains("limits.sessions is"));
}

#[test]
fn sessions_of_before_a_second_key_came_count_for_the_first() {
    let upstream = HttpUpstream::start();
    let with = |keys: &Value| {
        let limits = json!({ "sessions": 8, "sessions_per_key": 8 });
        config(&upstream, &json!({ "limits": limits, "api_keys": keys }))
    };
    let (a, b) = (
        json!({ "name": "a", "key": "key-a-1234" }),
        json!({ "name": "b", "key": "key-b-1234" }),
    );
    let gateway = Gateway::started(with(&json!([a])));
    let open = |key: &str| McpClient::new(gateway.address()).with_key(key).initialize();
    for _ in 0..6 {
        open("key-a-1234").expect(200);
    }
    gateway.reload(&with(&json!([a, b])));
    // What is left is the other one's share.
    open("key-a-1234").expect(503);
    open("key-b-1234").expect(200);
    open("key-b-1234").expect(200);
}

#[test]
fn a_session_signed_with_a_configured_key_outlives_the_process() {
    let upstream = HttpUpstream::start();
    let extra = json!({ "session_key": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=" });
    let first = Gateway::started(config(&upstream, &extra));
    let session = first.mcp().session().to_owned();
    assert_eq!(first.stop().code, Some(0));
    let second = Gateway::started(config(&upstream, &extra));
    let client = McpClient::new(second.address()).with_header("Mcp-Session-Id", &session);
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
    client.post(&ping).expect(200);
    let stranger = format!("{session}x");
    let client = McpClient::new(second.address()).with_header("Mcp-Session-Id", &stranger);
    client.post(&ping).expect(404);
}

/// The fault is compiled into debug builds only.
#[cfg(debug_assertions)]
#[test]
fn the_death_of_the_session_thread_is_the_process_s() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::with(config(&upstream, &json!({})))
        .env("TRUNKLINE_FAULT", "session-open")
        .start();
    let request =
        crate::support::http::Request::post("/mcp", &initialize_message(1, "2025-11-25"))
            .header("Accept", "application/json, text/event-stream");
    // The client sees a refusal or a broken connection, never a hang.
    drop(crate::support::http::try_exchange(gateway.address(), &request));
    let ended = gateway.wait_for_end();
    assert_eq!(ended.code, Some(1));
    let last = ended.stderr.lines().last().unwrap_or_default().to_owned();
    assert!(last.contains("sessions"), "the last line was {last:?}");
}

#[test]
fn a_session_keeps_little_of_what_its_client_says() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(config(&upstream, &json!({})));
    for key in ["clientInfo", "capabilities"] {
        let mut message = initialize_message(1, "2025-11-25");
        message["params"][key]["padding"] = "x".repeat(20_000).into();
        let request = crate::support::http::Request::post("/mcp", &message)
            .header("Accept", "application/json, text/event-stream");
        let answer = gateway.send(&request).expect(200).json();
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
        assert!(answer["error"]["message"].to_string().contains(key), "{answer}");
    }
    assert_eq!(gateway.get("/status").expect(200).json()["sessions"]["streamable"], 0);
}

#[test]
fn a_body_of_many_keys_is_answered_like_any_other_and_one_of_too_many_is_refused() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(config(&upstream, &json!({})));
    let keys = |n: usize| (0..n).map(|n| format!("\"{n}\":0")).collect::<Vec<_>>().join(",");
    let send = |body: &str, status: u16| {
        let request = crate::support::http::Request::post_text("/mcp/tools/call", body);
        gateway.send(&request).expect(status).text().to_owned()
    };
    send(&format!("{{\"name\":\"echo\",\"arguments\":{{{}}}}}", keys(9000)), 200);
    // It is read, and members that nobody knows are told.
    let told = send(&format!("{{\"name\":\"echo\",{}}}", keys(9000)), 400);
    assert!(told.contains("unknown members"), "{told}");
    let told = send(&format!("{{\"name\":\"echo\",{}}}", keys(300_000)), 400);
    assert!(!told.contains("unknown members"), "{told}");
}

#[test]
fn a_session_whose_client_has_hung_up_before_it_is_told_ends() {
    let upstream = HttpUpstream::start();
    upstream.set_instructions(&"x".repeat(60_000));
    // Together more than both kernels hold for a client that does not read.
    let server = json!({ "url": upstream.url(), "transport": "http", "required": true });
    let servers: serde_json::Map<String, Value> =
        (0..150).map(|n| (format!("s{n}"), server.clone())).collect();
    let gateway = Gateway::started(json!({ "mcp_servers": servers }));
    gateway.wait_ready();
    let count = || gateway.get("/status").expect(200).json()["sessions"]["streamable"].clone();
    let message = initialize_message(1, "2025-11-25");
    let connection = McpClient::new(gateway.address()).start(&message);
    wait_until("it is opened", || count() == 1);
    drop(connection);
    wait_until("it is closed", || count() == 0);
}
