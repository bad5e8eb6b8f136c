//! The line of each request, what a refused one leaves, and by which name a request goes through.

use serde_json::{Value, json};

use crate::support::gateway::Gateway;
use crate::support::http::Request;
use crate::support::mcp::McpClient;
use crate::support::modern::ModernClient;
use crate::support::upstream_http::HttpUpstream;
use crate::support::upstream_modern::ModernUpstream;
use crate::support::{wait_for, wait_until};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn config(upstream: &HttpUpstream) -> Value {
    json!({
        "log": { "format": "json", "access": true },
        "prefix": "always",
        "api_keys": [{ "name": "laptop", "key": "key-of-the-laptop" }],
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    })
}

fn with_key(request: Request) -> Request {
    request.header("x-api-key", "key-of-the-laptop")
}

/// The lines that have fields.
fn lines(gateway: &Gateway) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str::<Value>(line).ok();
    let text = gateway.stderr();
    text.lines().filter_map(parse).filter(|line| line["event"].is_string()).collect()
}

/// The one line that has these members.
fn line_with(gateway: &Gateway, members: &Value) -> Value {
    let members = members.as_object().unwrap();
    let fits = |line: &Value| members.iter().all(|(key, value)| line[key] == *value);
    let found = wait_for(&format!("a line has {members:?}"), || {
        lines(gateway).into_iter().find(|line| fits(line))
    });
    assert_eq!(lines(gateway).iter().filter(|line| fits(line)).count(), 1, "{members:?}");
    found
}

#[test]
fn a_call_has_a_line_with_its_fields_by_every_door() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(config(&upstream));
    let call = Request::post("/mcp/tools/call", &json!({ "name": "s-add", "arguments": {} }));
    let call = call.header("X-Request-Id", "req-1").header("User-Agent", "curl/8");
    let answer = gateway.send(&with_key(call));
    assert_eq!(answer.header("X-Request-Id"), Some("req-1"));
    let line = line_with(&gateway, &json!({ "id": "req-1" }));
    for (key, value) in [
        ("event", json!("call")),
        ("peer", json!("127.0.0.1")),
        ("key", json!("laptop")),
        ("door", json!("rest")),
        ("method", json!("tools/call")),
        ("tool", json!("s-add")),
        ("server", json!("s")),
        ("outcome", json!("ok")),
        ("status", json!(200)),
        ("client", json!("curl/8")),
    ] {
        assert_eq!(line[key], value, "{key}: {line}");
    }
    assert!(line["ms"].as_f64().is_some_and(|ms| ms > 0.0), "{line}");
    assert!(line["bytes_in"].as_u64() > Some(10) && line["bytes_out"].as_u64() > Some(10));
    assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
    let mcp = McpClient::new(gateway.address()).with_key("key-of-the-laptop").opened();
    mcp.call("s-fail", &json!({}));
    let failed = line_with(&gateway, &json!({ "tool": "s-fail" }));
    assert_eq!(failed["outcome"], "tool_error", "{failed}");
    assert_eq!((&failed["door"], &failed["era"]), (&json!("streamable"), &json!("legacy")));
    let id = failed["id"].as_str().unwrap();
    assert_eq!(id.len(), 32, "one of our own: {id}");
    mcp.request("tools/call", &json!({ "name": "s-rpc_error", "arguments": {} }));
    let failed = line_with(&gateway, &json!({ "tool": "s-rpc_error" }));
    assert_eq!(failed["outcome"], "upstream_error", "{failed}");
    let modern = ModernClient::to(&gateway).key("key-of-the-laptop");
    modern.call("s-echo", &json!({}));
    let line = line_with(&gateway, &json!({ "tool": "s-echo" }));
    assert_eq!((&line["door"], &line["era"]), (&json!("modern"), &json!("modern")));
}

#[test]
fn a_refused_request_leaves_why_without_the_access_log_too() {
    let upstream = HttpUpstream::start();
    let mut config = config(&upstream);
    config["log"]["access"] = json!(false);
    let gateway = Gateway::started(config);
    let refused = |reason: &str, status: u16| {
        let line = line_with(&gateway, &json!({ "event": "refused", "reason": reason }));
        assert_eq!(line["status"], json!(status), "{line}");
        line
    };
    let call = |tool: &str| Request::post("/mcp/tools/call", &json!({ "name": tool }));
    gateway.send(&call("s-echo")).expect(401);
    refused("missing_key", 401);
    gateway.send(&call("s-echo").header("x-api-key", "wrong")).expect(401);
    let line = refused("wrong_key", 401);
    assert_eq!(line["path"], "/mcp/tools/call", "{line}");
    gateway.send(&with_key(call("nothing"))).expect(404);
    refused("unknown_tool", 404);
    // A few a second for each peer.
    wait_until("the next second has come", || {
        let path = format!("/nothing/{}", lines(&gateway).len());
        gateway.send(&with_key(Request::get(&path))).expect(404);
        lines(&gateway).iter().any(|line| line["reason"] == "unknown_path")
    });
    gateway.send(&with_key(call("s-echo"))).expect(200);
    assert!(lines(&gateway).iter().all(|line| line["event"] == "refused"));
}

#[test]
fn a_flood_of_refused_requests_has_a_few_lines_and_is_counted() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(config(&upstream));
    for _ in 0..100 {
        gateway.send(&Request::get("/mcp/tools/list")).expect(401);
    }
    wait_until("more of them are told", || {
        gateway.send(&Request::get("/mcp/tools/list")).expect(401);
        lines(&gateway).iter().any(|line| line["left_out"].as_u64() > Some(0))
    });
    let n_lines = lines(&gateway).len();
    assert!(n_lines < 60, "{n_lines} lines of more than 100 requests");
}

#[test]
fn text_lines_read_well_and_bodies_say_whose_they_are() {
    let upstream = HttpUpstream::start();
    let mut config = config(&upstream);
    config["log"] = json!({ "access": true, "bodies": true });
    let gateway = Gateway::started(config);
    let call = json!({ "name": "s-add", "arguments": { "a": 1, "b": 2 } });
    let call = Request::post("/mcp/tools/call", &call).header("X-Request-Id", "req-7");
    gateway.send(&with_key(call)).expect(200);
    let has = |parts: &[&str]| {
        let text = gateway.stderr();
        text.lines().any(|line| parts.iter().all(|part| line.contains(part)))
    };
    wait_until("the call is told", || {
        has(&["access: laptop s-add ok 200 ", " ms rest from 127.0.0.1 id=req-7"])
            && has(&["bodies: laptop s-add is called with {\"a\":1,\"b\":2} id=req-7"])
            && has(&["bodies: laptop s-add gave {", "id=req-7"])
    });
    let bad = Request::get("/nothing").header("X-Request-Id", "a b");
    gateway.send(&with_key(bad)).expect(404);
    wait_until("the refusal is told", || {
        has(&["access: laptop GET /nothing refused 404 ", "(unknown_path)"])
    });
}

#[test]
fn a_request_goes_upstream_under_its_name_and_in_its_trace() {
    let (legacy, modern) = (HttpUpstream::start(), ModernUpstream::start());
    let gateway = Gateway::started(json!({ "mcp_servers": {
        "old": { "url": legacy.url(), "transport": "http" },
        "new": { "url": modern.url(), "transport": "http" },
    } }));
    let call = |tool: &str| {
        let call = json!({ "name": tool, "arguments": {} });
        let call = Request::post("/mcp/tools/call", &call).header("X-Request-Id", "req-9");
        let call = call.header("traceparent", TRACE).header("tracestate", "vendor=1");
        gateway.send(&call).expect(200);
    };
    call("old-echo");
    let of = |headers: &[(String, String)], name: &str| {
        let found = headers.iter().find(|(it, _)| it.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let headers = legacy.last_headers();
    assert_eq!(of(&headers, "x-request-id"), "req-9");
    assert_eq!(of(&headers, "traceparent"), TRACE);
    assert_eq!(of(&headers, "tracestate"), "vendor=1");
    call("new-echo");
    let requests = modern.requests_of("tools/call");
    let request = requests.last().unwrap();
    assert_eq!(request.message["params"]["_meta"]["traceparent"], TRACE);
    assert_eq!(request.message["params"]["_meta"]["tracestate"], "vendor=1");
}

#[test]
fn a_trusted_proxy_says_where_a_request_came_from() {
    let upstream = HttpUpstream::start();
    let mut config = config(&upstream);
    let list = |id: &str, from: &str| {
        let request = with_key(Request::get("/mcp/tools/list")).header("X-Request-Id", id);
        request.header("X-Forwarded-For", from)
    };
    let gateway = Gateway::started(config.clone());
    gateway.send(&list("one", "192.0.2.7")).expect(200);
    line_with(&gateway, &json!({ "id": "one", "peer": "127.0.0.1" }));
    config["trusted_proxies"] = json!(["127.0.0.0/8", "10.0.0.0/8"]);
    gateway.reload(&config);
    gateway.send(&list("two", "192.0.2.66, 192.0.2.7, 10.0.0.1")).expect(200);
    line_with(&gateway, &json!({ "id": "two", "peer": "192.0.2.7" }));
}
