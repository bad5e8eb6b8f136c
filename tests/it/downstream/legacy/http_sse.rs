//! HTTP+SSE (2024-11-05) downstream.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::gateway::Gateway;
use crate::support::http::Request;
use crate::support::mcp::request_message;
use crate::support::mcp_sse::SseClient;
use crate::support::upstream_http::HttpUpstream;
use crate::support::{stays_so, wait_for};

fn call_message(id: &Value, tool: &str) -> Value {
    request_message(id, "tools/call", &json!({ "name": tool }))
}

#[test]
fn the_first_event_names_the_endpoint_at_every_door() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    for (path, endpoint) in [
        ("/mcp", "/mcp/sse/messages"),
        ("/mcp/", "/mcp/sse/messages"),
        ("/mcp/sse", "/mcp/sse/messages"),
        ("/mcp/sse/", "/mcp/sse/messages"),
        ("/sse", "/mcp/sse/messages"),
        ("/sse/", "/mcp/sse/messages"),
        ("/mcp/s", "/mcp/s/sse/messages"),
        ("/mcp/s/sse", "/mcp/s/sse/messages"),
        ("/s/mcp", "/mcp/s/sse/messages"),
    ] {
        let client = SseClient::connect(gateway.address(), path);
        let id = client.endpoint.strip_prefix(&format!("{endpoint}?session_id="));
        assert!(id.is_some_and(|id| !id.is_empty()), "{path}: {:?}", client.endpoint);
    }
}

#[test]
fn a_get_with_a_revision_but_no_session_is_400() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let get = Request::get("/mcp").header("Accept", "text/event-stream");
    gateway.send(&get.header("MCP-Protocol-Version", "2025-11-25")).expect(400);
}

#[test]
fn a_session_initializes_lists_and_calls() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let mut client = SseClient::connect(gateway.address(), "/mcp/");
    let result = client.initialize();
    assert_eq!(result["protocolVersion"], "2024-11-05", "{result}");
    assert_eq!(result["serverInfo"]["name"], "trunkline", "{result}");
    assert!(client.tool_names().contains(&"echo".to_owned()));
    assert_eq!(client.call("echo", &json!({"message": "m"}))["content"][0]["text"], "m");
    assert_eq!(client.call("fail", &json!({}))["isError"], true);
    assert_eq!(client.request("ping", &json!({}))["result"], json!({}));
    assert_eq!(client.request("unheard/of", &json!({}))["error"]["code"], -32601);
    let error = client.request("tools/call", &json!({"name": "rpc_error"}));
    assert_eq!(error["error"]["code"], -32001, "{error}");
}

#[test]
fn one_servers_door_offers_its_own_names() {
    let (first, second) = (HttpUpstream::start(), HttpUpstream::with_tools(&["one"]));
    let gateway = Gateway::started(json!({ "mcp_servers": {
        "a": { "url": first.url(), "transport": "http" },
        "b": { "url": second.url(), "transport": "http" },
    }}));
    let mut client = SseClient::open(gateway.address(), "/mcp/b/sse");
    assert_eq!(client.tool_names(), ["one"]);
    client.call("one", &json!({}));
}

#[test]
fn a_post_is_answered_before_its_call_ends() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let mut client = SseClient::open(gateway.address(), "/sse");
    let answer = client.post(&call_message(&json!("slow-1"), "slow")).expect(202);
    let connection = answer.header("Connection").unwrap_or_default();
    assert!(connection.eq_ignore_ascii_case("close"), "{answer}");
    upstream.wait_for_slow(1);
    upstream.release_slow();
    assert!(client.answer_to(&json!("slow-1"))["result"].is_object());
}

#[test]
fn messages_without_a_known_session_are_refused() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let ping = request_message(&json!(1), "ping", &json!({}));
    gateway.send(&Request::post("/mcp/sse/messages", &ping)).expect(400);
    gateway.send(&Request::post("/mcp/sse/messages?session_id=", &ping)).expect(400);
    gateway.send(&Request::post("/mcp/sse/messages?session_id=nope", &ping)).expect(404);
    let answer = gateway.send(&Request::get("/mcp/sse/messages")).expect(405);
    assert!(answer.header("Allow").unwrap_or_default().contains("POST"), "{answer}");
}

#[test]
fn bodies_that_are_no_message_are_400() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let mut client = SseClient::open(gateway.address(), "/sse");
    for body in ["", "{", "nonsense", "[]"] {
        gateway.send(&Request::post_text(&client.endpoint, body)).expect(400);
    }
    let plain = Request::new("POST", &client.endpoint).header("Content-Type", "text/plain");
    gateway.send(&plain.body("{}")).expect(415);
    assert_eq!(client.request("ping", &json!({}))["result"], json!({}));
}

#[test]
fn progress_comes_before_the_result() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let mut client = SseClient::open(gateway.address(), "/sse");
    for token in [json!("t"), json!(5)] {
        let params = json!({"name": "slow", "_meta": {"progressToken": token}});
        client.post(&request_message(&json!(9), "tools/call", &params)).expect(202);
        upstream.wait_for_slow(1);
        upstream.step_slow(1, 1);
        let progress = client.stream.next_message();
        assert_eq!(progress["method"], "notifications/progress", "{progress}");
        assert_eq!(progress["params"]["progressToken"], token, "{progress}");
        upstream.release_slow();
        assert_eq!(client.stream.next_message()["id"], 9);
    }
}

#[test]
fn the_end_of_the_stream_ends_the_session_and_its_calls() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = SseClient::open(gateway.address(), "/sse");
    client.post(&call_message(&json!(1), "slow")).expect(202);
    upstream.wait_for_slow(1);
    let ping = client.post_request(&request_message(&json!(2), "ping", &json!({})));
    client.hang_up();
    wait_for("the session has ended", || (gateway.send(&ping).status() == 404).then_some(()));
    upstream.wait_until("its call is cancelled", |seen| seen.cancellations.len() == 1);
}

#[test]
fn a_cancellation_reaches_the_call() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let mut client = SseClient::open(gateway.address(), "/sse");
    client.post(&call_message(&json!("a"), "slow")).expect(202);
    upstream.wait_for_slow(1);
    let params = json!({"requestId": "a"});
    let cancel =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params});
    client.post(&cancel).expect(202);
    let seen = upstream.wait_until("cancelled", |seen| seen.slow.is_empty());
    assert_eq!(seen.cancellations.len(), 1);
    assert_eq!(client.request("ping", &json!({}))["result"], json!({}));
}

#[test]
fn a_client_with_one_connection_is_not_stuck_behind_its_own_call() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let mut client = SseClient::open(gateway.address(), "/sse");
    // One connection for all messages, as a pool of one has it: taken up again until it closes.
    let mut connection = gateway.connect();
    let started = Instant::now();
    let accepted = connection.exchange(&client.post_request(&call_message(&json!(1), "slow")));
    accepted.expect(202);
    assert!(connection.is_closed_by_peer(Duration::from_secs(5)), "it was said to close");
    let mut connection = gateway.connect();
    let echo = client.post_request(&call_message(&json!(2), "echo"));
    connection.exchange(&echo).expect(202);
    assert!(client.answer_to(&json!(2))["result"].is_object());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    // It may have been overtaken.
    upstream.wait_for_slow(1);
    upstream.release_slow();
    assert!(client.answer_to(&json!(1))["result"].is_object());
}

#[test]
fn changes_are_told_on_the_stream() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let mut client = SseClient::open(gateway.address(), "/sse");
    wait_for("the gateway listens upstream", || (upstream.n_streams() > 0).then_some(()));
    upstream.add_tool("later");
    upstream.announce_change();
    let message = client.stream.next_message();
    assert_eq!(message["method"], "notifications/tools/list_changed", "{message}");
    assert!(client.tool_names().contains(&"later".to_owned()));
}

#[test]
fn two_sessions_do_not_hear_each_other() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let mut first = SseClient::open(gateway.address(), "/sse");
    let mut second = SseClient::open(gateway.address(), "/sse");
    assert_ne!(first.endpoint, second.endpoint);
    first.post(&call_message(&json!(1), "slow")).expect(202);
    upstream.wait_for_slow(1);
    upstream.release_slow();
    assert!(first.answer_to(&json!(1))["result"].is_object());
    assert!(second.hears_nothing_for(Duration::from_millis(100)));
}

#[test]
fn a_foreign_origin_is_403() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = SseClient::open(gateway.address(), "/sse");
    let evil = ("Origin", "http://evil.example");
    gateway.send(&Request::get("/sse").header(evil.0, evil.1)).expect(403);
    let ping = client.post_request(&request_message(&json!(1), "ping", &json!({})));
    gateway.send(&ping.header(evil.0, evil.1)).expect(403);
    gateway.send(&Request::get("/sse").host("evil.example")).expect(403);
}

#[test]
fn switched_off_it_is_501_and_names_what_serves() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(json!({
        "transports": { "sse": false },
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }));
    for path in ["/sse", "/mcp/sse", "/mcp/"] {
        let get = Request::get(path).header("Accept", "text/event-stream");
        let answer = gateway.send(&get).expect(501);
        assert!(answer.text().contains("/mcp/tools/list"), "{answer}");
    }
    gateway.mcp();
}

#[test]
fn an_idle_stream_stays_open() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(json!({
        "limits": { "heartbeat_ms": 100, "idle_ms": 200, "head_ms": 200 },
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }));
    let mut client = SseClient::open(gateway.address(), "/sse");
    assert!(client.hears_nothing_for(Duration::from_millis(700)), "no event, only comments");
    assert!(client.stream.n_comments() >= 3, "{}", client.stream.n_comments());
    stays_so("the gateway serves", Duration::from_millis(50), || {
        gateway.get("/healthz").status() == 200
    });
    assert_eq!(client.request("ping", &json!({}))["result"], json!({}));
}
