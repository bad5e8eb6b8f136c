//! The support code proved against itself: what the other tests stand on must not give way.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::DEADLINE;
use crate::support::gateway::{Gateway, scripted_child};
use crate::support::http::{Connection, Request, exchange};
use crate::support::mcp::{McpClient, request_message};
use crate::support::mcp_sse::SseClient;
use crate::support::script::{RICH_RESULT, RICH_TOOL};
use crate::support::stopwatch::Stopwatch;
use crate::support::upstream_http::{Answers, HttpUpstream, Sessions, spread};
use crate::support::upstream_sse::SseUpstream;

#[test]
fn a_session_lists_and_calls() {
    let upstream = HttpUpstream::start();
    let client = McpClient::open(&upstream.address());
    assert!(client.tool_names().contains(&"echo".to_owned()));
    assert_eq!(client.call("echo", &json!({"message": "hi"}))["content"][0]["text"], "hi");
    assert_eq!(client.call("add", &json!({"a": 1, "b": 2}))["structuredContent"]["sum"], 3.0);
    assert_eq!(client.call("fail", &json!({}))["isError"], true);
    let error = client.request("tools/call", &json!({"name": "rpc_error"}));
    assert_eq!(error["error"]["code"], -32001);
    let seen = upstream.seen();
    assert_eq!((seen.n_initialize, seen.n_list, seen.n_calls("echo")), (1, 1, 1));
    client.end().expect(200);
    client.post(r#"{"jsonrpc":"2.0","id":9,"method":"ping"}"#).expect(404);
    assert_eq!(upstream.n_deleted(), 1);
}

#[test]
fn answers_come_as_json_pretty_json_and_events() {
    let upstream = HttpUpstream::start();
    for answers in [Answers::Json, Answers::PrettyJson, Answers::EventStream] {
        upstream.answer_with(answers);
        let client = McpClient::open(&upstream.address());
        assert_eq!(
            client.call("echo", &json!({"message": "a\nb"}))["content"][0]["text"],
            "a\nb"
        );
    }
}

#[test]
fn spreading_changes_no_value() {
    for text in [RICH_TOOL, RICH_RESULT] {
        let spread = spread(text);
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(value(&spread), value(text));
        assert!(spread.lines().count() > 20);
        assert!(spread.contains("1.50"));
    }
}

#[test]
fn lists_come_in_pages() {
    let upstream = HttpUpstream::with_tools(&["a", "b", "c", "d", "e"]);
    upstream.set_page_items(2);
    let client = McpClient::open(&upstream.address());
    assert_eq!(client.tool_names(), ["a", "b", "c", "d", "e"]);
    assert_eq!(upstream.seen().n_list, 3);
}

#[test]
fn a_slow_call_tells_progress_and_is_released() {
    let upstream = HttpUpstream::start();
    let client = McpClient::open(&upstream.address());
    let call = client.start_call_with_token(&json!(7), "slow", &json!({}), &json!("tok"));
    upstream.wait_for_slow(1);
    upstream.step_slow(1, 2);
    let mut stream = call.into_events().expect_open();
    let progress = stream.next_message();
    assert_eq!(progress["params"]["progressToken"], "tok");
    upstream.release_slow();
    assert_eq!(stream.next_message()["id"], 7);
    stream.expect_end();
}

#[test]
fn a_cancelled_call_is_counted_and_not_answered() {
    let upstream = HttpUpstream::start();
    let client = McpClient::open(&upstream.address());
    let mut call = client.start_call(&json!("x"), "slow", &json!({"label": "one"}));
    upstream.wait_for_slow(1);
    client.cancel(&json!("x"));
    let seen = upstream.wait_until("cancelled", |seen| seen.slow.is_empty());
    assert_eq!(
        (seen.cancellations, seen.cancelled),
        (vec!["\"x\"".to_owned()], vec!["one".into()])
    );
    assert!(call.is_closed_by_peer(Duration::from_secs(10)));
}

#[test]
fn changes_are_announced_on_the_stream() {
    let upstream = HttpUpstream::start();
    let client = McpClient::open(&upstream.address());
    let mut stream = client.listen();
    client.call("add_tool", &json!({"name": "later"}));
    assert_eq!(stream.next_message()["method"], "notifications/tools/list_changed");
    assert!(client.tool_names().contains(&"later".to_owned()));
}

#[test]
fn sessions_can_be_forgotten_or_never_kept() {
    let upstream = HttpUpstream::start();
    let client = McpClient::open(&upstream.address());
    upstream.forget_sessions();
    client.post(r#"{"jsonrpc":"2.0","id":9,"method":"ping"}"#).expect(404);
    upstream.keep_sessions(Sessions::None);
    let mut client = McpClient::new(&upstream.address());
    let answer = client.initialize().expect(200);
    assert_eq!(answer.header("Mcp-Session-Id"), None);
    assert_eq!(client.result("ping", &json!({})), json!({}));
}

#[test]
fn a_server_hangs_dies_and_comes_back_at_the_same_port() {
    let upstream = HttpUpstream::start();
    let address = upstream.address();
    drop(McpClient::open(&address));
    upstream.listener.hang();
    let mut hung = Connection::open(&address);
    hung.send(&Request::get("/mcp"));
    assert!(!hung.is_closed_by_peer(Duration::from_millis(50)));
    upstream.listener.resume();
    assert!(hung.is_closed_by_peer(Duration::from_secs(10)));
    upstream.die();
    assert!(Connection::try_open(&address).is_err());
    upstream.come();
    drop(McpClient::open(&address));
    assert_eq!(upstream.seen().n_initialize, 2);
}

#[test]
fn broken_answers_are_seen_as_such() {
    let upstream = HttpUpstream::start();
    let client = McpClient::open(&upstream.address());
    let call = |tool: &str| {
        let params = json!({ "name": tool });
        client.start(&request_message(&json!(1), "tools/call", &params)).try_answer()
    };
    assert!(call("break_off").is_err());
    assert!(serde_json::from_slice::<Value>(&call("garbage").unwrap().body).is_err());
    upstream.fail_with(Some(500));
    assert_eq!(call("echo").unwrap().status(), 500);
}

#[test]
fn a_required_header_is_required() {
    let upstream = HttpUpstream::start();
    upstream.require_header("X-Secret", "s3");
    let mut client = McpClient::new(&upstream.address());
    client.initialize().expect(401);
    let client = McpClient::new(&upstream.address()).with_header("X-Secret", "s3").opened();
    client.call("echo", &json!({"message": "m"}));
    assert!(upstream.last_headers().contains(&("X-Secret".to_owned(), "s3".to_owned())));
}

#[test]
fn revisions_are_negotiated() {
    let upstream = HttpUpstream::start();
    upstream.set_revisions(&["2025-03-26"]);
    let client = McpClient::new(&upstream.address()).opened();
    assert_eq!(client.revision(), "2025-03-26");
}

#[test]
fn a_connection_is_reused_and_large_bodies_are_read_fast() {
    let upstream = HttpUpstream::start();
    let client = McpClient::open(&upstream.address());
    let before = upstream.listener.n_connections();
    let mut connection = Connection::open(&upstream.address());
    let ping = client.post_request(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    connection.exchange(&ping).expect(200);
    connection.exchange(&ping).expect(200);
    let started = Instant::now();
    let big = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"big","arguments":{"megabytes":20}}}"#;
    let answer = connection.exchange(&client.post_request(big)).expect(200);
    assert!(answer.body.len() > 20_000_000);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(upstream.listener.n_connections(), before + 1);
}

#[test]
fn the_older_transport_works_as_well() {
    let upstream = SseUpstream::start();
    let mut client = SseClient::open(&upstream.address(), "/sse");
    assert!(client.endpoint.starts_with("/messages?session_id="));
    assert!(client.tool_names().contains(&"echo".to_owned()));
    assert_eq!(client.call("echo", &json!({"message": "hi"}))["content"][0]["text"], "hi");
    upstream.announce_change();
    let changed = "notifications/tools/list_changed";
    client.stream.next_message_where(|message| message["method"] == changed);
    exchange(&upstream.address(), &Request::post("/messages?session_id=no", &json!({})))
        .expect(404);
    assert_eq!(upstream.n_event_streams(), 1);
    client.hang_up();
    upstream.die();
    assert!(Connection::try_open(&upstream.address()).is_err());
    upstream.come();
    drop(SseClient::open(&upstream.address(), "/sse"));
}

#[test]
fn the_scripted_child_serves_over_its_pipes() {
    let mut child = Command::new(scripted_child())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut ask = |id: u64, tool: &str| {
        let params = json!({ "name": tool, "arguments": { "message": "hi" } });
        writeln!(stdin, "{}", request_message(&json!(id), "tools/call", &params)).unwrap();
        loop {
            let line = lines.next()?.unwrap();
            let message: Value = serde_json::from_str(&line).unwrap_or_default();
            if message["id"] == json!(id) {
                return Some(message);
            }
        }
    };
    assert_eq!(ask(1, "echo").unwrap()["result"]["content"][0]["text"], "hi");
    assert_eq!(ask(2, "noise").unwrap()["result"]["content"][0]["text"], "after the noise");
    let id = ask(3, "pid").unwrap()["result"]["structuredContent"]["pid"].clone();
    assert_eq!(ask(5, "exit"), None);
    assert_eq!(id, json!(child.id()));
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn a_stopwatch_leaves_out_nothing_that_a_gateway_waits_for_but_a_core() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let watch = Stopwatch::start(&gateway);
    let call = json!({ "name": "slow", "timeout_ms": 1000 });
    gateway.post("/mcp/tools/call", &call).expect_error(504);
    watch.is_below("a call that ends at its deadline", DEADLINE);
    let limit = Duration::from_millis(500);
    let fails = || watch.is_below("a call that waits for its server", limit);
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(fails)).is_err();
    // Where the machine gives no core for so long, nothing can be said.
    assert!(failed || watch.waited() > limit, "it waited for its server");
}

#[test]
fn what_an_idle_gateway_did_has_had_its_effects() {
    let gateway = Gateway::with(json!({ "mcp_servers": {} })).start();
    for n in 1..=3 {
        gateway.get(&format!("/nothing/{n}")).expect(404);
        gateway.wait_idle();
        // It is told after its answer.
        let status = gateway.get("/status").expect(200).json();
        assert_eq!(status["refusals"][0]["request"], format!("GET /nothing/{n}"), "{status}");
        let said = gateway.stderr();
        assert_eq!(said.matches("/nothing/").count(), n, "{said}");
    }
}
