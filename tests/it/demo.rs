//! `trunkline demo --http`: the built-in server over Streamable HTTP, as a real process.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::gateway::binary;
use crate::support::http::{Connection, Request, Response, exchange};
use crate::support::mcp::{
    BOTH, LATEST, McpClient, initialize_message, notification_message, request_message,
};
use crate::support::wait_for;

/// How soon something counts as prompt.
const PROMPT: Duration = Duration::from_secs(5);

/// A running demo server. Dropping it kills it.
struct Demo {
    child: Child,
    address: String,
    /// Held open, so that the server may go on writing.
    _stderr: BufReader<ChildStderr>,
}

impl Demo {
    #[track_caller]
    fn start() -> Demo {
        let mut child = Command::new(binary())
            .args(["demo", "--http", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on http://");
        let address = address.and_then(|rest| rest.strip_suffix("/mcp"));
        let address = address.unwrap_or_else(|| panic!("{line:?}")).to_owned();
        assert!(address.starts_with("127.0.0.1:"), "{address}");
        Demo { child, address, _stderr: stderr }
    }

    #[track_caller]
    fn client(&self) -> McpClient {
        McpClient::open(&self.address)
    }

    #[track_caller]
    fn send(&self, request: &Request) -> Response {
        exchange(&self.address, request)
    }

    /// Sends a signal, and waits for the end.
    #[track_caller]
    fn end_by(&mut self, signal: Signal) -> Option<i32> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
        wait_for("the demo server ends", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn post(message: &Value) -> Request {
    Request::post("/mcp", message).header("Accept", BOTH)
}

fn ping() -> Value {
    request_message(&json!(1), "ping", &json!({}))
}

fn slow(seconds: f64, steps: u32) -> Value {
    json!({ "seconds": seconds, "steps": steps })
}

#[test]
fn a_client_is_served_from_handshake_to_calls() {
    let demo = Demo::start();
    for path in ["/mcp", "/mcp/", "/"] {
        let mut client = McpClient::new(&demo.address).at(path);
        let answer = client.initialize().expect(200);
        assert_eq!(answer.header("Content-Type"), Some("application/json"));
        assert_eq!(answer.json()["result"]["serverInfo"]["name"], "trunkline-demo");
        client.notify("notifications/initialized", &json!({})).expect(202);
        assert_eq!(client.tool_names(), ["add", "echo", "fail", "slow", "time"]);
        let result = client.call("echo", &json!({ "message": "a\nb \"é\"" }));
        assert_eq!(result["content"][0]["text"], "a\nb \"é\"");
        let failed = client.call("fail", &json!({ "message": "no" }));
        assert_eq!(failed["isError"], true);
        let unknown = client.request("nope/list", &json!({}));
        assert_eq!(unknown["error"]["code"], -32601);
    }
}

#[test]
fn progress_comes_as_events_and_then_the_result_and_the_end() {
    let demo = Demo::start();
    let client = demo.client();
    let call = client.start_call_with_token(&json!("s"), "slow", &slow(0.4, 4), &json!(7));
    let mut events = call.into_events().expect_open();
    for step in 1..=4 {
        let progress = events.next_message();
        assert_eq!(progress["method"], "notifications/progress");
        assert_eq!(progress["params"]["progressToken"], 7);
        assert_eq!(progress["params"]["progress"], step);
    }
    let result = events.next_message();
    assert_eq!(result["id"], "s");
    assert!(result["result"]["content"][0]["text"].as_str().unwrap().contains("4 steps"));
    events.expect_end();
}

#[test]
fn a_slow_call_without_a_token_is_answered_plainly() {
    let demo = Demo::start();
    let client = demo.client();
    let started = Instant::now();
    let answer = client.start_call(&json!(1), "slow", &slow(0.3, 2)).answer().expect(200);
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    assert_eq!(answer.json()["id"], 1);
    assert!(started.elapsed() >= Duration::from_millis(300));
}

#[test]
fn a_cancelled_call_ends_at_once_and_unanswered() {
    let demo = Demo::start();
    let (client, other) = (demo.client(), demo.client());
    let (id, token) = (json!("s"), json!("t"));
    let call = client.start_call_with_token(&id, "slow", &slow(600.0, 1000), &token);
    let mut events = call.into_events().expect_open();
    assert_eq!(events.next_message()["params"]["progress"], 1);
    // The same id in another session is another request.
    other.cancel(&id);
    assert_eq!(events.next_message()["params"]["progress"], 2);
    let started = Instant::now();
    client.cancel(&id);
    while let Some(event) = events.try_next(PROMPT).unwrap() {
        assert_eq!(event.json()["method"], "notifications/progress");
    }
    assert!(started.elapsed() < PROMPT, "{:?}", started.elapsed());
}

#[test]
fn a_client_that_hangs_up_ends_its_call() {
    let demo = Demo::start();
    let client = demo.client();
    let id = json!("s");
    // Nothing is written before the first step is over, so no failed write tells.
    let call = wait_for("the call runs", || {
        let call = client.start_call(&id, "slow", &slow(600.0, 1));
        // The one that tells may come first: then the call itself is refused, and made again.
        let again = instant_call(&client, &id);
        (again["error"]["code"] == -32600).then_some(call)
    });
    let started = Instant::now();
    call.hang_up();
    wait_for("its id is free", || {
        let again = instant_call(&client, &id);
        again["result"].is_object().then_some(())
    });
    assert!(started.elapsed() < PROMPT, "{:?}", started.elapsed());
}

/// A slow call that takes no time: refused while another one of this id runs.
#[track_caller]
fn instant_call(client: &McpClient, id: &Value) -> Value {
    client.start_call(id, "slow", &slow(0.0, 1)).answer().expect(200).json()
}

#[test]
fn slow_calls_are_bounded() {
    let demo = Demo::start();
    let client = demo.client();
    let start = |id: u32| client.start_call(&json!(id), "slow", &slow(600.0, 1));
    let calls: Vec<_> = (0..65).map(start).collect();
    let refused = wait_for("one is refused", || {
        instant_call(&client, &json!("x"))["error"]["code"].as_i64()
    });
    assert_eq!(refused, -32603);
    // Whoever asks for something else is served meanwhile.
    client.result("ping", &json!({}));
    calls.into_iter().for_each(Connection::hang_up);
}

#[test]
fn a_session_is_required_and_must_be_known() {
    let demo = Demo::start();
    let missing = demo.send(&post(&ping())).expect(400);
    assert!(missing.json()["error"]["message"].as_str().unwrap().contains("Mcp-Session-Id"));
    for id in ["nonsense", "00000000000000000000000000000000"] {
        let unknown = demo.send(&post(&ping()).header("Mcp-Session-Id", id)).expect(404);
        assert_eq!(unknown.json()["error"]["code"], -32001);
    }
    let (one, other) = (demo.client(), demo.client());
    assert_ne!(one.session(), other.session());
    // A refused handshake opens none.
    let wrong = request_message(&json!(1), "initialize", &json!({}));
    let refused = demo.send(&post(&wrong)).expect(200);
    assert_eq!(refused.json()["error"]["code"], -32602);
    assert_eq!(refused.header("Mcp-Session-Id"), None);
}

#[test]
fn a_request_that_cannot_be_taken_says_why() {
    let demo = Demo::start();
    let hello = initialize_message(1, LATEST);
    for (header, value) in [
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
        ("Origin", "https://localhost.evil"),
    ] {
        demo.send(&post(&hello).header(header, value)).expect(403);
    }
    demo.send(&post(&hello).host("evil.example")).expect(403);
    demo.send(&post(&hello).header("Origin", "http://localhost:6274")).expect(200);
    for method in ["GET", "DELETE", "PUT", "OPTIONS"] {
        let answer = demo.send(&Request::new(method, "/mcp")).expect(405);
        assert_eq!(answer.header("Allow"), Some("POST"), "{method}");
    }
    demo.send(&Request::post("/elsewhere", &hello)).expect(404);
    let plain = Request::new("POST", "/mcp").header("Content-Type", "text/plain");
    demo.send(&plain.body(&hello.to_string())).expect(415);
    let garbage = demo.send(&Request::post_text("/mcp", "{oops")).expect(400);
    assert_eq!(garbage.json()["error"]["code"], -32700);
    let client = demo.client();
    let version = Request::post("/mcp", &ping())
        .header("Mcp-Session-Id", client.session())
        .header("MCP-Protocol-Version", "1999-01-01");
    demo.send(&version).expect(400);
}

#[test]
fn batches_are_served_in_the_one_revision_that_has_them() {
    let demo = Demo::start();
    let call = request_message(
        &json!("s"),
        "tools/call",
        &json!({ "name": "slow", "arguments": slow(0.0, 1) }),
    );
    let note = notification_message("notifications/initialized", &json!({}));
    let old = McpClient::new(&demo.address).speaking("2025-03-26").opened();
    let answer = old.post(&json!([ping(), note]).to_string()).expect(200);
    assert_eq!(answer.json().as_array().map(Vec::len), Some(1), "{answer}");
    old.post(&json!([note]).to_string()).expect(202);
    let mixed = old.post(&json!([ping(), call]).to_string()).expect(200);
    assert_eq!(mixed.header("Content-Type"), Some("text/event-stream"));
    assert_eq!(mixed.message()["id"], "s");
    let refused = demo.client().post(&json!([ping()]).to_string());
    assert_eq!(refused.json()["error"]["code"], -32600);
}

#[test]
fn it_listens_on_loopback_alone() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let output = Command::new(binary()).args(["demo", "--http", address]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(address) && told.contains("loopback"), "{told}");
    }
    let demo = Demo::start();
    let args = ["demo", "--http", &demo.address];
    let output = Command::new(binary()).args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(&demo.address), "{output:?}");
}

#[test]
fn a_signal_ends_it_whatever_runs() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut demo = Demo::start();
        let client = demo.client();
        let idle = client.start(&ping());
        let mut plain = client.start_call(&json!("p"), "slow", &slow(600.0, 1));
        let call =
            client.start_call_with_token(&json!("s"), "slow", &slow(600.0, 600), &json!(1));
        let mut events = call.into_events().expect_open();
        wait_for("the plain call runs", || {
            let again = instant_call(&client, &json!("p"));
            (again["error"]["code"] == -32600).then_some(())
        });
        let started = Instant::now();
        assert_eq!(demo.end_by(signal), Some(0));
        assert!(started.elapsed() < PROMPT, "{:?}", started.elapsed());
        let answer = events.next_message_where(|message| message.get("id").is_some());
        assert_eq!(answer["error"]["code"], -32603);
        events.expect_end();
        assert_eq!(plain.answer().expect(200).json()["error"]["code"], -32603);
        drop(idle);
    }
}
