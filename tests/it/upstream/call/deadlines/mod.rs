//! A call ends at its deadline, whatever its server does, and its slot is free then.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::gateway::{Directory, Gateway, scripted_child};
use crate::support::http::{Connection, Request, Response};
use crate::support::mcp::{McpClient, request_message};
use crate::support::relay::{Fault, Relay, Unanswered};
use crate::support::stopwatch::Stopwatch;
use crate::support::upstream_http::HttpUpstream;
use crate::support::upstream_modern::ModernUpstream;
use crate::support::upstream_sse::SseUpstream;
use crate::support::{wait_for, wait_until};

const CALL: &str = "/mcp/tools/call";
const TIMEOUT: Duration = Duration::from_millis(400);
/// What the work itself may add. Without the deadline it would be several seconds, or for ever.
const SLACK: Duration = Duration::from_secs(1);

#[track_caller]
fn in_time(what: &str, watch: &Stopwatch<'_>) {
    watch.is_below(what, TIMEOUT + SLACK);
}

fn config(url: &str, transport: &str) -> Value {
    json!({ "limits": { "body_bytes": 16 * 1024 * 1024 }, "mcp_servers": { "s": {
        "url": url, "transport": transport, "timeout_ms": TIMEOUT.as_millis(), "max_in_flight": 1,
    }}})
}

/// A call that must end, at its deadline at the latest: its time begins when the gateway has it.
#[track_caller]
fn ends_in_time(gateway: &Gateway, what: &str, arguments: &Value) -> Response {
    let call = json!({ "name": "echo", "arguments": arguments });
    let mut connection = gateway.connect();
    connection.send(&Request::post(CALL, &call));
    let watch = Stopwatch::start(gateway);
    let answer = connection.answer();
    in_time(what, &watch);
    answer
}

/// A call that must fail, at its deadline at the latest.
#[track_caller]
fn fails_in_time(gateway: &Gateway, what: &str, arguments: &Value) -> Value {
    let answer = ends_in_time(gateway, what, arguments);
    let status = answer.status();
    assert!([502, 504].contains(&status), "{what}: {answer}");
    let error = answer.expect_error(status);
    assert_eq!(error["server"], "s", "{what}: {error}");
    error
}

/// The slot is free at once, and then the server is used again.
#[track_caller]
fn is_free(gateway: &Gateway, what: &str) {
    Stopwatch::start(gateway).wait_within(SLACK, &format!("{what}: the slot is free"), || {
        (gateway.status_of("s")["in_flight"] == 0).then_some(())
    });
}

#[track_caller]
fn is_served(gateway: &Gateway, what: &str) {
    wait_for(&format!("{what}: the next call is served"), || {
        (gateway.call("echo", &json!({})).status() == 200).then_some(())
    });
}

/// More than the kernel keeps for a connection.
fn large() -> Value {
    json!({ "message": "x".repeat(6 * 1024 * 1024) })
}

const IN_THE_ANSWER: [(&str, Fault); 6] = [
    ("nothing is read", Fault::Unread),
    ("no head", Fault::Silent),
    ("half a head", Fault::HalfHead),
    ("half a body", Fault::AllButTheEnd),
    ("a byte at a time", Fault::Drips),
    ("an endless stream", Fault::Floods),
];

#[test]
fn whatever_happens_to_the_call_itself() {
    let _heavy = crate::support::heavy();
    let upstream = HttpUpstream::start();
    let relay = Relay::to(&upstream.address());
    let gateway = Gateway::started(config(&relay.url("/mcp"), "http"));
    for (what, fault) in IN_THE_ANSWER {
        relay.spoil("tools/call", fault);
        let arguments = if fault == Fault::Unread { large() } else { json!({}) };
        let error = fails_in_time(&gateway, what, &arguments);
        let stages: &[&str] = match fault {
            Fault::Unread => &["send", "answer"],
            Fault::Silent | Fault::HalfHead => &["answer"],
            Fault::Drips => &["answer", "read"],
            Fault::AllButTheEnd | Fault::Floods => &["read"],
        };
        assert!(stages.contains(&error["stage"].as_str().unwrap()), "{what}: {error}");
        assert!(error["message"].as_str().unwrap().contains("in time"), "{what}: {error}");
        is_free(&gateway, what);
        relay.heal();
        is_served(&gateway, what);
    }
}

#[test]
fn whatever_happens_to_the_call_of_a_modern_server() {
    let _heavy = crate::support::heavy();
    let upstream = ModernUpstream::start();
    let relay = Relay::to(&upstream.address());
    let gateway = Gateway::started(config(&relay.url("/mcp"), "http"));
    for (what, fault) in IN_THE_ANSWER {
        relay.spoil("tools/call", fault);
        let arguments = if fault == Fault::Unread { large() } else { json!({}) };
        fails_in_time(&gateway, what, &arguments);
        is_free(&gateway, what);
        relay.heal();
        is_served(&gateway, what);
    }
}

#[test]
fn whatever_happens_while_its_session_is_opened_again() {
    let _heavy = crate::support::heavy();
    let upstream = HttpUpstream::start();
    let relay = Relay::to(&upstream.address());
    let gateway = Gateway::started(config(&relay.url("/mcp"), "http"));
    for trigger in ["\"initialize\"", "notifications/initialized"] {
        for (what, fault) in IN_THE_ANSWER {
            let what = format!("{trigger}: {what}");
            relay.spoil(trigger, fault);
            upstream.forget_sessions();
            let answer = ends_in_time(&gateway, &what, &json!({}));
            // The answer to what is no request holds nothing, so that its end is not waited for.
            let is_told = trigger.contains("notifications") && fault == Fault::Floods;
            assert_eq!(answer.status() == 200, is_told, "{what}: {answer}");
            is_free(&gateway, &what);
            relay.heal();
            is_served(&gateway, &what);
        }
    }
}

#[test]
fn whatever_happens_over_http_sse() {
    let _heavy = crate::support::heavy();
    let upstream = SseUpstream::start();
    let relay = Relay::to(&upstream.address());
    let gateway = Gateway::started(config(&relay.url("/sse"), "sse"));
    for trigger in ["GET /sse", "\"initialize\"", "tools/call"] {
        for (what, fault) in IN_THE_ANSWER {
            let what = format!("{trigger}: {what}");
            // This cuts the stream, and with it the session.
            relay.spoil(trigger, fault);
            let arguments = if fault == Fault::Unread { large() } else { json!({}) };
            let answer = ends_in_time(&gateway, &what, &arguments);
            // An answer to the POST is not needed where the result is on the stream.
            assert!([200, 502, 504].contains(&answer.status()), "{what}: {answer}");
            is_free(&gateway, &what);
            relay.heal();
            is_served(&gateway, &what);
        }
    }
}

#[test]
fn a_question_of_the_era_that_is_not_answered() {
    let upstream = HttpUpstream::start();
    let relay = Relay::to(&upstream.address());
    let gateway = Gateway::started(config(&relay.url("/mcp"), "auto"));
    // A server that was away may be of the other era.
    upstream.die();
    relay.spoil("server/discover", Fault::Silent);
    wait_for("its supervisor waits", || {
        gateway.call("echo", &json!({}));
        (gateway.status_of("s")["state"] != "ready").then_some(())
    });
    upstream.come();
    wait_for("it is taken for what it is", || {
        let answer = ends_in_time(&gateway, "era", &json!({}));
        (answer.status() == 200).then_some(())
    });
    relay.heal();
    is_free(&gateway, "era");
    is_served(&gateway, "era");
}

/// The answer to a `tools/call` of an MCP client, in time.
#[track_caller]
fn session_call_in_time(gateway: &Gateway, client: &McpClient, what: &str) -> Value {
    let watch = Stopwatch::start(gateway);
    let call = json!({ "name": "echo", "arguments": {} });
    let message = client.request("tools/call", &call);
    in_time(what, &watch);
    message
}

#[test]
fn a_session_of_a_client_s_own_that_does_not_open() {
    let upstream = HttpUpstream::start();
    let relay = Relay::to(&upstream.address());
    let gateway = Gateway::started(config(&relay.url("/mcp"), "http"));
    for (what, trigger, fault) in [
        ("initialize", "\"initialize\"", Fault::Silent),
        ("initialized", "notifications/initialized", Fault::Silent),
        ("its stream", "GET /mcp", Fault::Silent),
        ("a flood on its stream", "GET /mcp", Fault::Floods),
    ] {
        let asked = json!({ "sampling": {} });
        let client = McpClient::new(gateway.address()).declaring(asked).opened();
        relay.spoil(trigger, fault);
        let message = session_call_in_time(&gateway, &client, what);
        assert!(message.get("error").is_some() || trigger.starts_with("GET"), "{message}");
        is_free(&gateway, what);
        relay.heal();
        wait_for(&format!("{what}: it is served"), || {
            let call = json!({ "name": "echo", "arguments": {} });
            client.request("tools/call", &call).get("result").map(|_| ())
        });
        client.end();
    }
}

#[test]
fn a_connection_that_is_never_answered() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(config(&upstream.url(), "http"));
    upstream.die();
    let unanswered = Unanswered::at(upstream.listener.port());
    // What is in flight at that moment may still be refused.
    let error = wait_for("a connection is attempted", || {
        let error = fails_in_time(&gateway, "connect", &json!({}));
        (!error["message"].as_str().unwrap().contains("refused")).then_some(error)
    });
    assert_eq!(error["stage"], "connect", "{error}");
    is_free(&gateway, "connect");
    drop(unanswered);
    upstream.come();
    is_served(&gateway, "connect");
}

#[test]
fn those_who_wait_for_another_one_s_attempt() {
    let upstream = HttpUpstream::start();
    let relay = Relay::to(&upstream.address());
    let mut config = config(&relay.url("/mcp"), "http");
    config["mcp_servers"]["s"]["timeout_ms"] = json!(20_000);
    config["mcp_servers"]["s"]["max_in_flight"] = json!(4);
    let gateway = Gateway::started(config);
    relay.spoil("\"initialize\"", Fault::Silent);
    upstream.forget_sessions();
    let mut opener = gateway.connect();
    opener.send(&Request::post(CALL, &json!({ "name": "echo" })));
    wait_for("the session is being opened", || {
        (gateway.status_of("s")["in_flight"] == 1).then_some(())
    });
    let call = json!({ "name": "echo", "timeout_ms": TIMEOUT.as_millis() });
    let watch = Stopwatch::start(&gateway);
    let mut waiting: Vec<Connection> = (0..3).map(|_| gateway.connect()).collect();
    waiting.iter_mut().for_each(|it| it.send(&Request::post(CALL, &call)));
    // And one for a slot.
    let mut answers: Vec<Response> = vec![gateway.post(CALL, &call)];
    answers.extend(waiting.iter_mut().map(Connection::answer));
    in_time("waiting for others", &watch);
    answers.into_iter().for_each(|answer| drop(answer.expect_error(504)));
    relay.heal();
    drop(opener.answer());
    is_free(&gateway, "waiting for others");
    is_served(&gateway, "waiting for others");
}

#[test]
fn a_call_with_progress_ends_at_the_latest() {
    let upstream = HttpUpstream::start();
    let mut config = config(&upstream.url(), "http");
    config["mcp_servers"]["s"]["timeout_max_ms"] = json!(1200);
    let gateway = Gateway::started(config);
    let client = McpClient::open(gateway.address());
    let (id, watch) = (json!("long"), Stopwatch::start(&gateway));
    let mut call = client.start_call_with_token(&id, "slow", &json!({}), &json!("t"));
    upstream.wait_for_slow(1);
    let mut step = 0;
    while gateway.status_of("s")["in_flight"] == 1 {
        step += 1;
        upstream.step_slow(step, 1000);
        std::thread::park_timeout(Duration::from_millis(50));
        watch.is_below("progress", Duration::from_millis(1200) + SLACK);
    }
    assert!(watch.elapsed() > TIMEOUT * 2, "progress let its time start anew");
    assert!(call.answer().text().contains("in time"));
}

#[test]
fn a_server_that_wants_a_retry_again_and_again() {
    let upstream = ModernUpstream::start();
    let mut config = config(&upstream.url(), "http");
    config["mcp_servers"]["s"]["timeout_max_ms"] = json!(TIMEOUT.as_millis());
    let gateway = Gateway::started(config);
    let client = McpClient::open(gateway.address());
    let arguments = json!({ "state_only": true, "rounds": 1000 });
    let watch = Stopwatch::start(&gateway);
    let call = json!({ "name": "ask_roots", "arguments": arguments });
    let message = client.request("tools/call", &call);
    in_time("retries", &watch);
    assert!(message.to_string().contains("in time"), "{message}");
}

#[test]
fn a_child_that_does_not_read() {
    let script = r#"
        while read line; do
            id="${line#*\"id\":}"; id="${id%%[,\}]*}"
            case "$line" in
                *'"initialize"'*) echo '{"jsonrpc":"2.0","id":'$id',"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"n","version":"1"}}}';;
                *tools/list*) echo '{"jsonrpc":"2.0","id":'$id',"result":{"tools":[{"name":"echo","inputSchema":{"type":"object"}}]}}'; exec sleep 100;;
            esac
        done"#;
    // In a configuration a dollar is two.
    let script = script.replace('$', "$$");
    // The first question, which of the eras it speaks, is refused with silence.
    let gateway = Gateway::started(json!({ "mcp_servers": { "s": {
        "command": "sh", "args": ["-c", script],
        "start_timeout_ms": 2000, "timeout_ms": TIMEOUT.as_millis(), "max_in_flight": 1,
    }}}));
    for what in ["a full pipe", "a pipe that is full already"] {
        let error =
            fails_in_time(&gateway, what, &json!({ "message": "x".repeat(1024 * 1024) }));
        assert!(error["message"].as_str().unwrap().contains("in time"), "{what}: {error}");
        is_free(&gateway, what);
    }
}

#[test]
fn a_child_that_never_answers_initialize() {
    let directory = Directory::new();
    let hangs = directory.path().join("hangs");
    let script =
        format!("test -e '{}' && exec sleep 100; exec '{}'", hangs.display(), scripted_child());
    let gateway = Gateway::started(json!({ "mcp_servers": { "s": {
        "command": "sh", "args": ["-c", script],
        "start_timeout_ms": 2000, "timeout_ms": TIMEOUT.as_millis(), "max_in_flight": 1,
    }}}));
    std::fs::write(&hangs, "").unwrap();
    let asked = json!({ "sampling": {} });
    let client = McpClient::new(gateway.address()).declaring(asked).opened();
    let error =
        session_call_in_time(&gateway, &client, "a client's own child")["error"].clone();
    assert_eq!(error["data"]["server"], "s", "{error}");
    is_free(&gateway, "a client's own child");
    gateway.call("exit", &json!({})).expect_error(502);
    let late = (0..3).any(|_| {
        fails_in_time(&gateway, "the shared child", &json!({}));
        is_free(&gateway, "the shared child");
        gateway.call("echo", &json!({})).status() == 504
    });
    // Between two attempts it is down, and during one it is starting; who calls may see first
    // that the child has ended.
    wait_until("it is not called ready", || {
        let state = gateway.status_of("s")["state"].clone();
        late || state == "down" || state == "starting"
    });
    std::fs::remove_file(&hangs).unwrap();
    is_served(&gateway, "the shared child");
}

#[test]
fn what_is_cancelled_at_the_deadline_is_told_to_the_server() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(config(&upstream.url(), "http"));
    let client = McpClient::open(gateway.address());
    let message = request_message(&json!(7), "tools/call", &json!({ "name": "slow" }));
    let watch = Stopwatch::start(&gateway);
    let mut call = client.start(&message);
    assert!(call.answer().text().contains("in time"));
    in_time("a slow tool", &watch);
    Stopwatch::start(&gateway).wait_within(SLACK, "the server hears of it", || {
        (upstream.seen().cancellations.len() == 1).then_some(())
    });
}
