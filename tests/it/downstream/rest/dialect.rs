//! REST: tools as plain JSON in our own dialect, and every row of the table of refusals.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::behind::{Behind, Transport};
use crate::support::gateway::{Gateway, entry_of, names_in};
use crate::support::http::{Request, Response, exchange};
use crate::support::in_background;
use crate::support::upstream_http::HttpUpstream;

const LIST: &str = "/mcp/tools/list";
const CALL: &str = "/mcp/tools/call";

/// The words for how far a call came.
const STAGES: [&str; 11] = [
    "resolve",
    "spawn",
    "connect",
    "tls",
    "handshake",
    "slot",
    "send",
    "answer",
    "read",
    "parse",
    "list",
];

#[track_caller]
fn expect_upstream_failure(answer: Response, status: u16, server: &str) -> Value {
    let error = answer.expect_error(status);
    assert_eq!(error["server"], server, "{error}");
    let text = error.to_string();
    assert!(text.contains(server), "{error}");
    assert!(STAGES.iter().any(|stage| text.contains(stage)), "names no stage: {error}");
    error
}

fn two_servers(first: &HttpUpstream, second: &HttpUpstream) -> Value {
    json!({ "mcp_servers": {
        "alpha": { "url": first.url(), "transport": "http" },
        "beta": { "url": second.url(), "transport": "http" },
    }})
}

#[test]
fn tools_are_listed_with_the_state_of_each_server() {
    let (first, second) = (HttpUpstream::start(), HttpUpstream::with_tools(&["one"]));
    let gateway = Gateway::started(two_servers(&first, &second));
    let answer = gateway.get(LIST).expect(200);
    let kind = answer.header("Content-Type").unwrap_or_default();
    assert!(kind.starts_with("application/json"), "{answer}");
    let list = answer.json();
    assert!(names_in(&list).contains(&"alpha-echo".to_owned()), "{list}");
    assert!(names_in(&list).contains(&"beta-one".to_owned()), "{list}");
    for server in ["alpha", "beta"] {
        assert!(entry_of(&list["upstreams"], server).is_some(), "{list}");
    }
    let echo = list["tools"].as_array().unwrap().iter().find(|t| t["name"] == "alpha-echo");
    assert_eq!(echo.unwrap()["inputSchema"]["type"], "object");
}

#[test]
fn the_list_is_narrowed_to_one_server() {
    let (first, second) = (HttpUpstream::start(), HttpUpstream::with_tools(&["one"]));
    let gateway = Gateway::started(two_servers(&first, &second));
    let list = gateway.get("/mcp/tools/list?server=beta").expect(200).json();
    assert_eq!(names_in(&list), ["beta-one"]);
    let error = gateway.get("/mcp/tools/list?server=bet").expect_error(404);
    assert!(error.to_string().contains("beta"), "names what is near: {error}");
}

#[test]
fn a_call_answers_with_the_whole_result() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let result = gateway.call("add", &json!({"a": 2, "b": 3})).expect(200).json();
    assert_eq!(result["structuredContent"]["sum"], 5.0);
    assert_eq!(result["content"][0]["text"], "5");
    assert!(result.get("jsonrpc").is_none(), "no envelope: {result}");
    assert_eq!(upstream.seen().n_calls("add"), 1);
}

#[test]
fn a_call_needs_no_arguments() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    gateway.post(CALL, &json!({"name": "echo"})).expect(200);
    gateway.post(CALL, &json!({"name": "echo", "arguments": {}})).expect(200);
}

#[test]
fn a_call_may_name_its_server() {
    let (first, second) = (HttpUpstream::start(), HttpUpstream::start());
    let gateway = Gateway::started(two_servers(&first, &second));
    let body = json!({"name": "echo", "server": "beta", "arguments": {"message": "m"}});
    let result = gateway.post(CALL, &body).expect(200).json();
    assert_eq!(result["content"][0]["text"], "m");
    assert_eq!((first.seen().n_calls("echo"), second.seen().n_calls("echo")), (0, 1));
    gateway.post(CALL, &json!({"name": "echo", "server": "gamma"})).expect_error(404);
}

#[test]
fn a_tool_that_reports_an_error_has_run() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let result = gateway.call("fail", &json!({})).expect(200).json();
    assert_eq!(result["isError"], true);
}

#[test]
fn trailing_slashes_are_answered_in_place() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    gateway.get("/mcp/tools/list/").expect(200);
    gateway.post("/mcp/tools/call/", &json!({"name": "echo"})).expect(200);
    gateway.get("/mcp-rest/tools/list/").expect(200);
    gateway.post("/mcp-rest/tools/call/", &json!({"name": "echo"})).expect(200);
    gateway.get("/healthz/").expect(200);
    gateway.get("/status/").expect(200);
}

#[test]
fn what_is_no_call_is_400() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let deep = format!(
        "{{\"name\":\"echo\",\"arguments\":{{\"a\":{}1{}}}}}",
        "[".repeat(200),
        "]".repeat(200)
    );
    for body in [
        "",
        "{",
        "nonsense",
        "[]",
        "null",
        "\"echo\"",
        "{}",
        r#"{"arguments":{}}"#,
        r#"{"name":1}"#,
        r#"{"name":null}"#,
        r#"{"name":"echo","arguments":[]}"#,
        r#"{"name":"echo","arguments":"x"}"#,
        r#"{"name":"echo","server":1}"#,
        r#"{"name":"echo","timeout_ms":"soon"}"#,
        r#"{"name":"echo","timeout_ms":-1}"#,
        r#"{"name":"echo","server_id":"s"}"#,
        r#"{"name":"echo","argument":{"message":"m"}}"#,
        r#"{"name":"echo"} trailing"#,
        &deep,
    ] {
        let answer = gateway.send(&Request::post_text(CALL, body));
        assert_eq!(answer.status(), 400, "{body:.80}: {answer}");
        answer.expect_error(400);
    }
    assert_eq!(upstream.seen().n_calls("echo"), 0);
}

#[test]
fn members_that_nobody_reads_are_named() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let body = json!({"name": "echo", "message": "m", "args": {}});
    let error = gateway.post(CALL, &body).expect_error(400);
    let message = error["message"].as_str().unwrap();
    for part in ["\"message\"", "\"args\"", "\"arguments\""] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(upstream.seen().n_calls("echo"), 0);
}

#[test]
fn answers_end_their_line() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let litellm = json!({"name": "echo", "server_id": "s"});
    for answer in [
        gateway.get(LIST).expect(200),
        gateway.call("echo", &json!({"message": "m"})).expect(200),
        gateway.call("nothing", &json!({})).expect(404),
        gateway.get("/mcp-rest/tools/list").expect(200),
        gateway.post("/mcp-rest/tools/call", &litellm).expect(200),
        gateway.get("/healthz").expect(200),
        gateway.get("/status").expect(200),
        gateway.get("/nothing").expect(404),
        exchange(gateway.address(), &Request::get(LIST).host("evil.example")).expect(403),
    ] {
        let body = answer.text();
        assert!(body.ends_with("}\n") && !body.ends_with("\n\n"), "{answer}");
        answer.json();
    }
}

#[test]
fn a_body_must_be_declared_as_json() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let body = r#"{"name":"echo"}"#;
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp"] {
        let request = Request::new("POST", CALL).header("Content-Type", kind).body(body);
        gateway.send(&request).expect_error(415);
    }
    gateway.send(&Request::new("POST", CALL).body(body)).expect_error(415);
    for kind in ["application/json; charset=utf-8", "Application/JSON"] {
        let request = Request::new("POST", CALL).header("Content-Type", kind).body(body);
        gateway.send(&request).expect(200);
    }
}

#[test]
fn unknown_tools_are_404_with_near_names() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let error = gateway.call("ecko", &json!({})).expect_error(404);
    assert_eq!(error["code"], "unknown_tool");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("ecko") && message.contains("echo"), "{message}");
}

#[test]
fn unknown_paths_are_404() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    for path in ["/nothing", "/mcp/tools", "/mcp/tools/list/more", "/mcp/tools/lists"] {
        assert_eq!(gateway.get(path).status(), 404, "{path}");
    }
}

#[test]
fn a_wrong_method_is_405_and_says_which_are_right() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    for (method, path, right) in [
        ("POST", LIST, "GET"),
        ("DELETE", LIST, "GET"),
        ("GET", CALL, "POST"),
        ("PUT", CALL, "POST"),
        ("POST", "/healthz", "GET"),
        ("POST", "/status", "GET"),
        ("POST", "/mcp-rest/tools/list", "GET"),
        ("GET", "/mcp-rest/tools/call", "POST"),
    ] {
        let request = Request::new(method, path).header("Content-Type", "application/json");
        let answer = gateway.send(&request.body("{}")).expect(405);
        let allow = answer.header("Allow").unwrap_or_default();
        assert!(allow.split(", ").any(|name| name == right), "{method} {path}: {answer}");
        assert!(!allow.split(", ").any(|name| name == method), "{method} {path}: {answer}");
    }
}

#[test]
fn head_and_options_do_no_harm() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let mut connection = gateway.connect();
    let answer = connection.exchange(&Request::new("HEAD", LIST));
    assert!([200, 405].contains(&answer.status()), "{answer}");
    // A body after HEAD would be read as the next answer's head.
    connection.exchange(&Request::get("/healthz")).expect(200);
    let answer = gateway.send(&Request::new("OPTIONS", CALL));
    assert!([200, 204, 405].contains(&answer.status()), "{answer}");
    assert!(answer.header("Allow").is_some(), "{answer}");
    assert!(answer.header("Access-Control-Allow-Origin").is_none_or(|v| v != "*"), "{answer}");
}

#[test]
fn foreign_origins_and_hosts_are_403() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let call = || Request::post(CALL, &json!({"name": "echo"}));
    for origin in [
        "http://evil.example",
        "null",
        "http://127.0.0.1.evil.example",
        "https://localhost.evil",
    ] {
        gateway.send(&call().header("Origin", origin)).expect_error(403);
        gateway.send(&Request::get(LIST).header("Origin", origin)).expect_error(403);
    }
    for host in ["evil.example", "127.0.0.1.evil.example", "evil.example:4000"] {
        gateway.send(&call().host(host)).expect_error(403);
    }
    assert_eq!(upstream.seen().n_calls("echo"), 0);
    let port = gateway.address().rsplit(':').next().unwrap();
    for host in [format!("localhost:{port}"), format!("127.0.0.1:{port}")] {
        let origin = format!("http://{host}");
        gateway.send(&call().host(&host).header("Origin", &origin)).expect(200);
    }
}

#[test]
fn configured_origins_and_hosts_are_admitted() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(json!({
        "allowed_origins": ["https://app.example"],
        "allowed_hosts": ["mcp.example"],
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }));
    let list = || Request::get(LIST);
    gateway.send(&list().header("Origin", "https://app.example")).expect(200);
    gateway.send(&list().header("Origin", "http://app.example")).expect_error(403);
    gateway.send(&list().host("mcp.example")).expect(200);
    gateway.send(&list().host("other.example")).expect_error(403);
}

#[test]
fn a_bare_name_of_several_servers_is_409_with_the_qualified_names() {
    let (first, second) = (HttpUpstream::start(), HttpUpstream::start());
    let gateway = Gateway::started(two_servers(&first, &second));
    let error = gateway.call("echo", &json!({})).expect_error(409);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("alpha-echo") && message.contains("beta-echo"), "{message}");
    assert_eq!(first.seen().n_calls("echo") + second.seen().n_calls("echo"), 0);
}

#[test]
fn bodies_and_heads_over_the_limit_are_refused() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(json!({
        "limits": { "body_bytes": 2000, "head_bytes": 2000, "headers": 20 },
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }));
    let long = "x".repeat(3000);
    gateway.call("echo", &json!({ "message": long })).expect(413);
    let mut lying = gateway.connect();
    lying.send_bytes(
        b"POST /mcp/tools/call HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
          Content-Length: 17592186044416\r\n\r\n",
    );
    lying.answer().expect(413);
    gateway.send(&Request::get(LIST).header("X-Long", &long)).expect(431);
    let many = (0..40).fold(Request::get(LIST), |r, n| r.header(&format!("X-{n}"), "v"));
    gateway.send(&many).expect(431);
    gateway.get(LIST).expect(200);
}

#[test]
fn a_spent_rate_is_429() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(json!({
        "api_keys": [{ "name": "k", "key": "key-of-the-test", "calls_per_minute": 2 }],
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }));
    gateway.call("echo", &json!({})).expect(200);
    gateway.call("echo", &json!({})).expect(200);
    let answer = gateway.call("echo", &json!({}));
    let seconds: u64 = answer.header("Retry-After").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{answer}");
    answer.expect_error(429);
    assert_eq!(upstream.seen().n_calls("echo"), 2);
    gateway.get(LIST).expect(200);
}

#[test]
fn rest_switched_off_is_501_and_names_what_serves() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::with(json!({
        "transports": { "rest": false },
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }))
    .start();
    for answer in [gateway.get(LIST), gateway.call("echo", &json!({}))] {
        let error = answer.expect_error(501);
        assert!(error.to_string().contains("/mcp"), "{error}");
        assert!(!error.to_string().contains("/mcp/tools"), "names what is off: {error}");
    }
    gateway.mcp();
    gateway.get("/healthz").expect(200);
}

#[test]
fn a_failing_upstream_is_502_and_named_with_the_stage() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    expect_upstream_failure(gateway.call("garbage", &json!({})), 502, "s");
    expect_upstream_failure(gateway.call("break_off", &json!({})), 502, "s");
    assert_eq!(upstream.seen().n_calls("break_off"), 1, "what broke off is not run again");
    upstream.fail_with(Some(500));
    expect_upstream_failure(gateway.call("echo", &json!({})), 502, "s");
    upstream.fail_with(None);
    gateway.call("echo", &json!({})).expect(200);
    upstream.die();
    expect_upstream_failure(gateway.call("echo", &json!({})), 502, "s");
}

#[test]
fn a_result_that_is_no_object_is_nonsense_of_the_upstream() {
    for transport in [Transport::Http, Transport::Sse] {
        let behind = Behind::start(transport);
        behind.script().unwrap().add_tool("odd_result");
        let gateway = behind.gateway(&json!({}));
        let client = gateway.mcp();
        for result in [json!(null), json!([]), json!("text"), json!(7), json!(true)] {
            let arguments = json!({ "result": result });
            let error =
                expect_upstream_failure(gateway.call("odd_result", &arguments), 502, "s");
            assert!(error.to_string().contains("parse"), "{transport:?} {result}: {error}");
            let params = json!({ "name": "odd_result", "arguments": arguments });
            let error = client.request("tools/call", &params)["error"].clone();
            assert_eq!(error["code"], -32603, "{transport:?} {result}: {error}");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains("parse") && message.contains('s'), "{error}");
        }
        gateway.call("odd_result", &json!({ "result": {} })).expect(200);
    }
}

#[test]
fn an_error_of_the_upstreams_own_is_told_as_it_is() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let error = gateway.call("rpc_error", &json!({})).expect_error(502);
    assert_eq!(error["server"], "s", "{error}");
    assert!(error.to_string().contains("Not today."), "{error}");
}

#[test]
fn more_calls_than_may_wait_are_503() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(json!({ "mcp_servers": { "s": {
        "url": upstream.url(), "transport": "http", "max_in_flight": 1, "max_waiting": 1,
    }}}));
    let (tell, answers) = std::sync::mpsc::channel();
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let (tell, address) = (tell.clone(), gateway.address().to_owned());
            in_background(move || {
                let call = Request::post(CALL, &json!({"name": "slow"}));
                drop(tell.send(exchange(&address, &call)));
            })
        })
        .collect();
    let refused = answers.recv_timeout(crate::support::DEADLINE).unwrap();
    assert!(refused.header("Retry-After").is_some(), "{refused}");
    let error = refused.expect_error(503);
    assert!(error.to_string().contains('s'), "{error}");
    for _ in 0..2 {
        upstream.wait_for_slow(1);
        upstream.release_slow();
        answers.recv_timeout(crate::support::DEADLINE).unwrap().expect(200);
    }
    assert_eq!(upstream.seen().n_calls("slow"), 2);
    calls.into_iter().for_each(|call| call.join().unwrap());
}

#[test]
fn a_call_may_lower_its_time_and_never_raise_it() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(json!({ "mcp_servers": {
        "patient": { "url": upstream.url(), "transport": "http" },
        "short": { "url": upstream.url(), "transport": "http", "timeout_ms": 1000 },
    }}));
    for (server, timeout_ms) in [("patient", 1000), ("short", 60_000)] {
        let started = Instant::now();
        let body = json!({"name": "slow", "server": server, "timeout_ms": timeout_ms});
        expect_upstream_failure(gateway.post(CALL, &body), 504, server);
        let elapsed = started.elapsed();
        assert!(elapsed >= Duration::from_millis(950), "{server}: {elapsed:?}");
        assert!(elapsed < Duration::from_secs(5), "{server}: {elapsed:?}");
    }
    upstream.wait_until("what timed out is cancelled", |seen| seen.cancellations.len() == 2);
}

#[test]
fn a_connection_serves_many_requests() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let mut connection = gateway.connect();
    for n in 0..20 {
        let body = json!({"name": "echo", "arguments": {"message": n.to_string()}});
        let answer = connection.exchange(&Request::post(CALL, &body)).expect(200);
        assert_eq!(answer.json()["content"][0]["text"], n.to_string());
    }
    connection.exchange(&Request::post_text(CALL, "{")).expect(400);
    connection.exchange(&Request::get("/nothing")).expect(404);
    connection.exchange(&Request::get(LIST)).expect(200);
}
