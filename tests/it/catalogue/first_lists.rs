//! The first seconds: what lists show and what calls do while servers make first contact.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, META_UPSTREAMS, entry_of};
use crate::support::http::{Connection, Request};
use crate::support::mcp::{McpClient, request_message};
use crate::support::mcp_sse::SseClient;
use crate::support::modern::ModernClient;
use crate::support::stopwatch::Stopwatch;
use crate::support::upstream_http::HttpUpstream;
use crate::support::{in_background, wait_for, wait_until};

const CALL: &str = "/mcp/tools/call";

/// A server that is there and does not answer `initialize` yet.
fn held(label: &str) -> HttpUpstream {
    let upstream = HttpUpstream::absent();
    upstream.set_label(label);
    upstream.hold(Some("initialize"));
    upstream.come();
    upstream
}

fn let_go(upstream: &HttpUpstream) {
    upstream.hold(None);
}

fn server(upstream: &HttpUpstream) -> Value {
    json!({ "url": upstream.url(), "transport": "http" })
}

/// A gateway that makes nobody wait for first lists, before a server `ready` with one tool, and
/// `late`, which makes first contact.
fn before(late: &HttpUpstream, ready: &HttpUpstream) -> Gateway {
    let gateway = Gateway::with(json!({
        "first_list_ms": 0,
        "mcp_servers": { "late": server(late), "ready": server(ready) },
    }))
    .start();
    gateway.wait_until_well(&["ready"]);
    late.wait_until("first contact is made", |seen| !seen.last_initialize.is_empty());
    gateway
}

/// Requests that wait for lists.
fn n_waiting(gateway: &Gateway) -> u64 {
    let status = gateway.get("/status").expect(200).json();
    status["limits"]["list_waiters"]["used"].as_u64().unwrap()
}

fn read_text(result: &Value) -> &str {
    result["contents"][0]["text"].as_str().unwrap()
}

#[test]
fn a_call_at_any_door_waits_for_a_server_that_makes_first_contact() {
    let (late, ready) = (held("late"), HttpUpstream::labelled("ready"));
    ready.set_tools(&["one"]);
    ready.set_prompts(&[]);
    ready.set_resources(&["ready:1"]);
    ready.set_templates(&[]);
    let gateway = before(&late, &ready);
    let mut rest = gateway.connect();
    rest.send(&Request::post(
        CALL,
        &json!({"name": "late-echo", "arguments": {"message": "r"}}),
    ));
    let mut of_server = gateway.connect();
    let body = json!({"name": "echo", "server": "late", "arguments": {"message": "s"}});
    of_server.send(&Request::post(CALL, &body));
    // Both servers may have that one.
    let mut bare = gateway.connect();
    bare.send(&Request::post(CALL, &json!({"name": "echo", "arguments": {"message": "b"}})));
    let (legacy, modern) = (gateway.mcp(), ModernClient::to(&gateway));
    let alone = McpClient::new(gateway.address()).at("/mcp/late").opened();
    let echo = json!({ "name": "late-echo", "arguments": { "message": "m" } });
    let mut legacy_call = legacy.start(&request_message(&json!("c"), "tools/call", &echo));
    let own = json!({ "name": "echo", "arguments": { "message": "o" } });
    let mut own_call = alone.start(&request_message(&json!("o"), "tools/call", &own));
    let mut modern_call = modern.start("tools/call", &echo);
    let greet = json!({ "name": "late-greet", "arguments": { "name": "you" } });
    let mut prompt = legacy.start(&request_message(&json!("p"), "prompts/get", &greet));
    let mut modern_prompt = modern.start("prompts/get", &greet);
    let notes = json!({ "uri": "file:///notes/plain.txt" });
    let mut read = legacy.start(&request_message(&json!("r"), "resources/read", &notes));
    let mut subscribed =
        legacy.start(&request_message(&json!("s"), "resources/subscribe", &notes));
    let argument = json!({ "name": "style", "value": "f" });
    let of_prompt = json!({
        "ref": { "type": "ref/prompt", "name": "late-greet" }, "argument": argument,
    });
    let mut completed =
        legacy.start(&request_message(&json!("k"), "completion/complete", &of_prompt));
    let mut sse = SseClient::open(gateway.address(), "/sse");
    let id = json!(sse.fresh_id());
    let post = sse.post_request(&request_message(&id, "tools/call", &echo));
    let mut sse_post = gateway.connect();
    sse_post.send(&post);
    assert_eq!(gateway.call_text("ready-one", &json!({})), "one", "others are served");
    wait_until("all wait", || n_waiting(&gateway) == 12);
    assert!(late.seen().calls.is_empty(), "nothing is called before first contact");

    let_go(&late);
    let text = |connection: &mut Connection| {
        let answer = connection.answer().expect(200);
        answer.json()["content"][0]["text"].as_str().unwrap().to_owned()
    };
    assert_eq!([&mut rest, &mut of_server, &mut bare].map(text), ["r", "s", "b"]);
    let result = |connection: &mut Connection| {
        let message = connection.answer().expect(200).message();
        assert!(message.get("result").is_some(), "{message}");
        message["result"].clone()
    };
    assert_eq!(result(&mut legacy_call)["content"][0]["text"], "m");
    assert_eq!(result(&mut modern_call)["content"][0]["text"], "m");
    assert_eq!(result(&mut own_call)["content"][0]["text"], "o");
    for prompt in [&mut prompt, &mut modern_prompt] {
        let text = result(prompt)["messages"][0]["content"]["text"].to_string();
        assert!(text.contains("late: plain greetings, you!"), "{text}");
    }
    assert_eq!(read_text(&result(&mut read)), "late has file:///notes/plain.txt");
    result(&mut subscribed);
    assert_eq!(result(&mut completed)["completion"]["values"][0], "late");
    assert_eq!(sse.answer_to(&id)["result"]["content"][0]["text"], "m");
}

#[test]
fn a_call_waits_as_long_as_it_may_and_is_told_for_how_long_its_server_is_starting() {
    let (late, ready) = (held("late"), HttpUpstream::with_tools(&["one"]));
    let mut config = json!({
        "first_list_ms": 0,
        "mcp_servers": { "late": server(&late), "ready": server(&ready) },
    });
    config["mcp_servers"]["late"]["timeout_ms"] = json!(1000);
    let gateway = Gateway::with(config).start();
    gateway.wait_until_well(&["ready"]);
    late.wait_until("first contact is made", |seen| !seen.last_initialize.is_empty());
    for name in ["late-echo", "echo"] {
        let began = Instant::now();
        let body = json!({"name": name, "timeout_ms": 300});
        let error = gateway.post(CALL, &body).expect_error(504);
        assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
        assert_eq!(error["server"], "late", "{error}");
        assert_eq!(error["stage"], "handshake", "{error}");
        let message = error["message"].as_str().unwrap();
        for told in ["starting, for ", " s so far", "300 ms", "the caller's timeout_ms"] {
            assert!(message.contains(told), "{message}");
        }
    }
    // What belongs to another server by its name is not waited for, nor is what is hidden.
    let watch = Stopwatch::start(&gateway);
    gateway.post(CALL, &json!({"name": "ready-two"})).expect_error(404);
    watch.is_below("the other's name", Duration::from_secs(3));
    let_go(&late);
}

#[test]
fn a_client_that_gives_up_waits_no_more() {
    let (late, ready) = (held("late"), HttpUpstream::with_tools(&["one"]));
    let gateway = before(&late, &ready);
    let client = gateway.mcp();
    let id = json!("given up");
    let _waiting = client.start_call(&id, "late-echo", &json!({"message": "m"}));
    let mut hung_up = gateway.connect();
    hung_up.send(&Request::post(CALL, &json!({"name": "late-echo"})));
    let modern = ModernClient::to(&gateway);
    let modern = modern.start("tools/call", &json!({ "name": "late-echo" }));
    wait_until("all calls wait", || n_waiting(&gateway) == 3);
    client.cancel(&id);
    hung_up.hang_up();
    modern.hang_up();
    wait_until("nobody waits", || n_waiting(&gateway) == 0);
    let_go(&late);
    gateway.wait_until_well(&["late"]);
    assert_eq!(gateway.call_text("late-echo", &json!({"message": "m"})), "m");
    assert_eq!(late.seen().n_calls("echo"), 1, "what was given up was not called");
}

/// Servers that answer one after the other once the gateway has begun to connect.
fn staggered(n: usize) -> Vec<HttpUpstream> {
    (0..n).map(|n| held(&format!("s{n}"))).collect()
}

fn configured(upstreams: &[HttpUpstream], first_list_ms: u64) -> Value {
    let servers: serde_json::Map<String, Value> = upstreams
        .iter()
        .enumerate()
        .map(|(n, upstream)| (format!("s{n:02}"), server(upstream)))
        .collect();
    json!({ "first_list_ms": first_list_ms, "mcp_servers": servers })
}

/// Lets them answer, each a moment after the one before.
fn come_one_by_one(upstreams: &[HttpUpstream]) {
    for upstream in upstreams {
        std::thread::park_timeout(Duration::from_millis(20));
        let_go(upstream);
    }
}

#[test]
fn the_first_list_has_the_tools_of_all_who_come_in_time() {
    for n in [14, 34] {
        let upstreams = staggered(n);
        let gateway = Gateway::with(configured(&upstreams, 60_000)).start();
        gateway.get("/healthz").expect(200);
        let address = gateway.address().to_owned();
        let legacy = in_background(move || {
            let client = McpClient::open(&address);
            client.result("tools/list", &json!({}))
        });
        let modern = ModernClient::to(&gateway);
        let modern = in_background(move || modern.result("tools/list", &json!({})));
        come_one_by_one(&upstreams);
        let echoes = |list: &Value| {
            assert_eq!(list.get("_meta").and_then(|meta| meta.get(META_UPSTREAMS)), None);
            let tools = list["tools"].as_array().unwrap().iter();
            tools.filter(|tool| tool["name"].as_str().unwrap().ends_with("-echo")).count()
        };
        assert_eq!(echoes(&gateway.list()), n);
        assert_eq!(echoes(&legacy.join().unwrap()), n);
        assert_eq!(echoes(&modern.join().unwrap()), n);
    }
}

#[test]
fn a_session_of_the_first_moment_hears_of_late_servers_and_calls_them() {
    for n in [14, 34] {
        let upstreams = staggered(n);
        upstreams[n - 1].set_instructions("Ask politely.");
        let gateway = Gateway::with(configured(&upstreams, 0)).start();
        let mut client = McpClient::new(gateway.address());
        let introduced = client.initialize().expect(200).message();
        let capabilities = &introduced["result"]["capabilities"];
        for kind in ["tools", "prompts", "resources"] {
            assert_eq!(capabilities[kind]["listChanged"], true, "{introduced}");
        }
        assert!(client.tool_names().is_empty(), "nobody has answered yet");
        let mut stream = client.listen();
        let modern = ModernClient::to(&gateway);
        let early = modern.result("server/discover", &json!({}));
        assert!(!early["instructions"].to_string().contains("politely"), "{early}");
        let mut listening = modern.listen(&json!({ "toolsListChanged": true }));
        // Each is called by a thread of its own before it has answered.
        let waiting: Vec<_> = (0..n)
            .map(|n| {
                let echo = json!({ "message": n.to_string() });
                client.start_call(&json!(format!("call {n}")), &format!("s{n:02}-echo"), &echo)
            })
            .collect();
        come_one_by_one(&upstreams);
        for (n, mut connection) in waiting.into_iter().enumerate() {
            let message = connection.answer().expect(200).message();
            assert_eq!(message["result"]["content"][0]["text"], n.to_string(), "{message}");
        }
        let changed = |message: &Value| message["method"] == "notifications/tools/list_changed";
        stream.next_message_where(changed);
        wait_for("it is told too", || changed(&listening.next()).then_some(()));
        let n_echoes =
            |names: Vec<String>| names.iter().filter(|it| it.ends_with("-echo")).count();
        wait_until("all are listed", || n_echoes(client.tool_names()) == n);
        assert_eq!(n_echoes(modern.tool_names()), n);
        let late = modern.result("server/discover", &json!({}));
        assert!(late["instructions"].to_string().contains("politely"), "{late}");
    }
}

#[test]
fn the_first_list_is_waited_for_so_long_and_no_longer() {
    let (late, ready) = (held("late"), HttpUpstream::with_tools(&["one"]));
    let config = json!({
        "first_list_ms": 1000,
        "mcp_servers": { "late": server(&late), "ready": server(&ready) },
    });
    let began = Instant::now();
    let gateway = Gateway::with(config).start();
    gateway.get("/healthz").expect(200);
    gateway.get("/mcp/tools/list?server=ready").expect(200);
    let list = gateway.list();
    assert!(began.elapsed() >= Duration::from_millis(1000), "{:?}", began.elapsed());
    assert_eq!(entry_of(&list["upstreams"], "late").unwrap()["outcome"], "connecting");
    let watch = Stopwatch::start(&gateway);
    gateway.list();
    gateway.mcp().tool_names();
    watch.is_below("later lists", Duration::from_millis(900));
    let_go(&late);
}

#[test]
fn required_servers_are_waited_for_and_only_where_they_are_seen() {
    let (late, ready) = (held("late"), HttpUpstream::with_tools(&["one"]));
    let mut config = json!({
        "first_list_ms": 0,
        "mcp_servers": { "late": server(&late), "ready": server(&ready) },
    });
    config["mcp_servers"]["late"]["required"] = json!(true);
    let gateway = Gateway::with(config).start();
    let mut waiting = gateway.connect();
    waiting.send(&Request::get("/mcp/tools/list"));
    let ready = McpClient::new(gateway.address()).at("/mcp/ready").opened();
    wait_until("the other is listed", || ready.tool_names() == ["one"]);
    gateway.get("/healthz").expect(200);
    gateway.get("/readyz").expect(503);
    let_go(&late);
    let list = waiting.answer().expect(200).json();
    assert_eq!(entry_of(&list["upstreams"], "late").unwrap()["outcome"], "ok", "{list}");
    gateway.get("/readyz").expect(200);
}

#[test]
fn a_stop_does_not_wait_for_servers_that_make_first_contact() {
    let (late, ready) = (held("late"), HttpUpstream::with_tools(&["one"]));
    let mut config = json!({
        "first_list_ms": 60_000,
        "mcp_servers": { "late": server(&late), "ready": server(&ready) },
    });
    config["mcp_servers"]["late"]["required"] = json!(true);
    let gateway = Gateway::with(config).start();
    let mut list = gateway.connect();
    list.send(&Request::get("/mcp/tools/list"));
    let mut call = gateway.connect();
    call.send(&Request::post(CALL, &json!({"name": "late-echo"})));
    late.wait_until("first contact is made", |seen| !seen.last_initialize.is_empty());
    wait_until("both requests wait", || n_waiting(&gateway) == 2);
    let began = Instant::now();
    let ended = gateway.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    call.answer().expect_error(503);
    list.answer().expect(200);
    let_go(&late);
}

#[test]
fn what_a_server_in_first_contact_may_have_too_is_nobody_s_before_it_has_answered() {
    let (late, ready) = (held("late"), HttpUpstream::labelled("ready"));
    let gateway = before(&late, &ready);
    let echo = json!({ "name": "echo", "arguments": { "message": "secret" } });
    let mut rest = gateway.connect();
    rest.send(&Request::post(CALL, &echo));
    let legacy = gateway.mcp().start(&request_message(&json!("c"), "tools/call", &echo));
    let modern = ModernClient::to(&gateway).start("tools/call", &echo);
    wait_until("all wait", || n_waiting(&gateway) == 3);
    // Whose these are is certain.
    assert_eq!(gateway.call_text("ready-echo", &json!({"message": "m"})), "m");
    let own = json!({"name": "echo", "server": "ready", "arguments": {"message": "m"}});
    gateway.post(CALL, &own).expect(200);
    let_go(&late);
    let error = rest.answer().expect_error(409);
    assert!(error.to_string().contains("late-echo"), "{error}");
    for mut door in [legacy, modern] {
        let message = door.answer().message();
        assert!(message["error"]["message"].to_string().contains("late-echo"), "{message}");
    }
    assert_eq!((late.seen().n_calls("echo"), ready.seen().n_calls("echo")), (0, 2));
}

#[test]
fn a_plain_name_is_the_first_server_s_though_a_later_one_answers_earlier() {
    for late_is_first in [true, false] {
        let (late, ready) = (held("late"), HttpUpstream::labelled("ready"));
        let mut servers = json!({ "late": server(&late), "ready": server(&ready) });
        if !late_is_first {
            servers = json!({ "ready": server(&ready), "late": server(&late) });
        }
        let config = json!({ "prefix": "never", "first_list_ms": 0, "mcp_servers": servers });
        let gateway = Gateway::with(config).start();
        gateway.wait_until_well(&["ready"]);
        late.wait_until("first contact is made", |seen| !seen.last_initialize.is_empty());
        let mut call = gateway.connect();
        let echo = json!({ "name": "echo", "arguments": { "message": "m" } });
        call.send(&Request::post(CALL, &echo));
        let notes = json!({ "uri": "file:///notes/plain.txt" });
        let mut read =
            gateway.mcp().start(&request_message(&json!("r"), "resources/read", &notes));
        if late_is_first {
            wait_until("both wait", || n_waiting(&gateway) == 2);
            let_go(&late);
        }
        call.answer().expect(200);
        let owner = if late_is_first { "late" } else { "ready" };
        let message = read.answer().expect(200).message();
        let text = read_text(&message["result"]);
        assert_eq!(text, format!("{owner} has file:///notes/plain.txt"));
        let n_calls = [&late, &ready].map(|it| it.seen().n_calls("echo"));
        assert_eq!(n_calls, if late_is_first { [1, 0] } else { [0, 1] });
        let_go(&late);
    }
}

#[test]
fn a_template_s_uri_is_the_server_s_that_lists_it_though_that_answers_later() {
    let (late, ready) = (held("late"), HttpUpstream::labelled("ready"));
    ready.set_resources(&["ready:1"]);
    ready.set_templates(&["{+any}"]);
    let config = json!({
        "first_list_ms": 0,
        "mcp_servers": { "ready": server(&ready), "late": server(&late) },
    });
    let gateway = Gateway::with(config).start();
    gateway.wait_until_well(&["ready"]);
    late.wait_until("first contact is made", |seen| !seen.last_initialize.is_empty());
    let client = gateway.mcp();
    let notes = json!({ "uri": "file:///notes/plain.txt" });
    let mut read = client.start(&request_message(&json!("r"), "resources/read", &notes));
    wait_until("it waits", || n_waiting(&gateway) == 1);
    // What the server lists itself waits for nobody that comes after it.
    client.result("resources/read", &json!({ "uri": "ready:1" }));
    let_go(&late);
    let message = read.answer().expect(200).message();
    assert_eq!(read_text(&message["result"]), "late has file:///notes/plain.txt");
}

#[test]
fn a_server_that_hangs_keeps_a_name_from_another_only_so_long() {
    let (late, ready) = (held("late"), HttpUpstream::labelled("ready"));
    let gateway = before(&late, &ready);
    let began = Instant::now();
    let body = json!({"name": "echo", "arguments": {"message": "m"}, "timeout_ms": 300});
    gateway.post(CALL, &body);
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    // One that has failed is not waited for.
    late.die();
    wait_until("it has failed", || {
        let list = gateway.list();
        entry_of(&list["upstreams"], "late").unwrap()["outcome"] == "failed"
    });
    assert_eq!(gateway.call_text("echo", &json!({"message": "m"})), "m");
}

#[test]
fn a_client_that_hangs_up_during_initialize_waits_for_no_lists() {
    let late = held("late");
    let mut config = json!({ "mcp_servers": { "late": server(&late) } });
    config["mcp_servers"]["late"]["required"] = json!(true);
    let gateway = Gateway::with(config).start();
    let params = json!({
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": { "name": "c", "version": "1" },
    });
    let message = request_message(&json!(1), "initialize", &params);
    let mut connection = gateway.connect();
    let request = Request::post("/mcp", &message);
    connection.send(&request.header("Accept", "application/json, text/event-stream"));
    wait_until("it waits", || n_waiting(&gateway) == 1);
    connection.hang_up();
    wait_until("nobody waits", || n_waiting(&gateway) == 0);
    let_go(&late);
}
