//! What is cut off at the end of the drain: whoever was served hears whether the tool may have
//! run, and only what was not begun is said to be worth another try.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::duplex::{DOORS, Duplex, Say, all_capabilities};
use crate::support::gateway::Gateway;
use crate::support::host::Host;
use crate::support::http::{Request, Response};
use crate::support::mcp::{LATEST, request_message};
use crate::support::mcp_sse::SseClient;
use crate::support::modern::ModernClient;
use crate::support::upstream_http::HttpUpstream;
use crate::support::upstream_modern::ModernUpstream;
use crate::support::wait_until;

const RAN: &str = "the request was sent, the tool may have run.";

fn config(url: &str) -> Value {
    json!({
        "limits": { "drain_ms": 300 },
        "log": { "format": "json", "access": true },
        "mcp_servers": { "s": { "url": url, "transport": "http", "max_in_flight": 8 } },
    })
}

fn slow() -> Value {
    json!({ "name": "slow", "arguments": {} })
}

#[track_caller]
fn check_rest(answer: &Response) {
    assert_eq!(answer.status(), 502, "{answer}");
    assert_eq!(answer.header("retry-after"), None, "{answer}");
    let error = &answer.json()["error"];
    assert_eq!(error["code"], "upstream_failed", "{error}");
    assert_eq!(error["server"], "s", "{error}");
    assert!(error["message"].as_str().unwrap().ends_with(RAN), "{error}");
}

#[track_caller]
fn check_rpc(message: &Value) {
    let error = &message["error"];
    assert_eq!(error["data"]["server"], "s", "{message}");
    assert!(error["message"].as_str().unwrap().ends_with(RAN), "{message}");
    assert!(!message.to_string().contains("retry_after"), "{message}");
}

/// The lines of the log that tell of calls of this tool.
fn lines_of(stderr: &str, tool: &str) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str::<Value>(line).ok();
    stderr.lines().filter_map(parse).filter(|line| line["tool"] == tool).collect()
}

#[test]
fn what_was_sent_may_have_run_by_every_door() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(config(&upstream.url()));
    let mut rest = gateway.connect();
    rest.send(&Request::post("/mcp/tools/call", &slow()));
    let client = gateway.mcp();
    let mut streamable = client.start_call(&json!(1), "slow", &json!({}));
    let mut sse = SseClient::open(gateway.address(), "/sse");
    let id = json!(sse.fresh_id());
    sse.post(&request_message(&id, "tools/call", &slow())).expect(202);
    let mut modern = ModernClient::to(&gateway).start("tools/call", &slow());
    upstream.wait_for_slow(4);
    gateway.signal(Signal::TERM);
    check_rest(&rest.answer());
    check_rpc(&streamable.answer().message());
    check_rpc(&sse.answer_to(&id));
    check_rpc(&modern.answer().message());
    let ended = gateway.wait_for_end();
    assert_eq!(ended.code, Some(0));
    let lines = lines_of(&ended.stderr, "s-slow");
    assert_eq!(lines.len(), 4, "{lines:#?}");
    for line in lines {
        assert_eq!(line["event"], "call", "{line}");
        assert_eq!(line["outcome"], "upstream_error", "{line}");
        assert_eq!(line["reason"], Value::Null, "{line}");
    }
}

/// A call with a thread of its own, and one over a session of its client's own.
#[test]
fn what_was_sent_for_clients_that_can_be_asked_may_have_run() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(config(&upstream.url()));
    let modern = ModernClient::to(&gateway).declaring(all_capabilities());
    let mut apart = modern.start("tools/call", &slow());
    let own = Duplex::to(&gateway, DOORS[0]).declaring(all_capabilities()).open();
    let own = own.begin_call("slow", &json!({}));
    upstream.wait_for_slow(2);
    gateway.signal(Signal::TERM);
    check_rpc(&apart.answer().message());
    check_rpc(&own.join().unwrap());
    assert_eq!(gateway.wait_for_end().code, Some(0));
}

/// The server has answered that it wants more, so its tool has begun, and no server has the call.
#[test]
fn a_call_whose_client_thinks_may_have_run() {
    for door in DOORS {
        let upstream = ModernUpstream::start();
        let gateway = Gateway::started(config(&upstream.url()));
        let client = Duplex::to(&gateway, door)
            .declaring(all_capabilities())
            .answering(|_| Say::Nothing)
            .open();
        let call = client.begin_call("ask_elicitation", &json!({}));
        client.wait_asked("elicitation/create");
        gateway.signal(Signal::TERM);
        check_rpc(&call.join().unwrap());
        assert_eq!(gateway.wait_for_end().code, Some(0), "{door:?}");
    }
}

#[test]
fn what_waited_for_its_turn_may_be_tried_again() {
    let upstream = HttpUpstream::start();
    let mut config = config(&upstream.url());
    config["mcp_servers"]["s"]["max_in_flight"] = json!(1);
    let gateway = Gateway::started(config);
    let call = || {
        let mut connection = gateway.connect();
        connection.send(&Request::post("/mcp/tools/call", &slow()));
        connection
    };
    let mut first = call();
    upstream.wait_for_slow(1);
    let mut second = call();
    wait_until("it waits", || gateway.status_of("s")["waiting"] == 1);
    gateway.signal(Signal::TERM);
    check_rest(&first.answer());
    let answer = second.answer().expect(503);
    assert!(answer.header("retry-after").is_some(), "{answer}");
    assert_eq!(answer.json()["error"]["code"], "shutting_down");
    let ended = gateway.wait_for_end();
    let lines = lines_of(&ended.stderr, "s-slow");
    let of = |status: u16| lines.iter().find(|line| line["status"] == status).unwrap();
    assert_eq!((&of(502)["event"], &of(503)["event"]), (&json!("call"), &json!("refused")));
}

/// Of a server that a reload has ended, and whose calls may go on meanwhile.
#[test]
fn what_was_sent_to_a_server_of_before_a_reload_may_have_run() {
    let upstream = HttpUpstream::start();
    let mut config = config(&upstream.url());
    config["limits"]["drain_ms"] = json!(1500);
    let gateway = Gateway::started(config.clone());
    let mut call = gateway.connect();
    call.send(&Request::post("/mcp/tools/call", &slow()));
    upstream.wait_for_slow(1);
    config["mcp_servers"]["s"]["description"] = json!("another");
    gateway.reload(&config);
    gateway.signal(Signal::TERM);
    check_rest(&call.answer());
    assert_eq!(gateway.wait_for_end().code, Some(0));
}

#[test]
fn what_was_sent_for_a_host_may_have_run() {
    let upstream = HttpUpstream::start();
    let mut host = Host::of(&config(&upstream.url())).opened(LATEST);
    let legacy = host.begin("tools/call", &slow());
    let modern = host.begin_stateless("tools/call", &slow());
    upstream.wait_for_slow(2);
    host.end_input();
    check_rpc(&host.answer_to(&legacy));
    check_rpc(&host.answer_to(&modern));
    assert_eq!(host.wait_for_end().0, Some(0));
}
