//! What goes wrong is told with what somebody needs to set it right: the bound that was reached,
//! whether the tool may have run, when to come back, who is let in.

use serde_json::{Value, json};

use crate::support::gateway::{Directory, Gateway};
use crate::support::http::{Request, exchange};
use crate::support::upstream_http::HttpUpstream;
use crate::support::{wait_for, wait_until};

fn http(upstream: &HttpUpstream) -> Value {
    json!({ "url": upstream.url(), "transport": "http" })
}

#[test]
fn a_timeout_names_what_allowed_how_long() {
    let upstream = HttpUpstream::start();
    let (mut usual, mut longest) = (http(&upstream), http(&upstream));
    usual["timeout_ms"] = json!(900);
    longest["timeout_ms"] = json!(1000);
    longest["timeout_max_ms"] = json!(1000);
    let gateway = Gateway::started(json!({
        "prefix": "always", "mcp_servers": { "usual": usual, "longest": longest },
    }));
    for (call, server, allowed) in [
        (json!({ "name": "usual-slow" }), "usual", "900 ms were allowed by its timeout_ms"),
        (
            json!({ "name": "usual-slow", "timeout_ms": 500 }),
            "usual",
            "500 ms were allowed by the caller's timeout_ms",
        ),
        (
            json!({ "name": "longest-slow" }),
            "longest",
            "1000 ms were allowed by its timeout_max_ms",
        ),
    ] {
        let error = gateway.post("/mcp/tools/call", &call).expect_error(504);
        let told = format!(
            "The server {server} did not answer in time (answer): {allowed}; the tool may have \
             run."
        );
        assert_eq!(error["message"], told.as_str(), "{call}");
    }
    let told = gateway.mcp().request("tools/call", &json!({ "name": "usual-slow" }));
    let told = told["error"]["message"].as_str().unwrap().to_owned();
    assert!(told.contains("900 ms were allowed by its timeout_ms"), "{told}");
}

#[test]
fn an_mcp_error_says_when_a_server_that_is_down_is_tried_next() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(json!({ "mcp_servers": { "s": http(&upstream) } }));
    let client = gateway.mcp();
    upstream.die();
    let data = wait_for("calls are told that it is down", || {
        let error = client.request("tools/call", &json!({ "name": "echo", "arguments": {} }));
        let data = error["error"]["data"].clone();
        data["down_since"].is_string().then_some(data)
    });
    assert!(data["retry_after_s"].as_u64() >= Some(1), "{data}");
}

#[test]
fn the_end_of_all_keys_is_a_warning() {
    let upstream = HttpUpstream::start();
    let servers = json!({ "a": http(&upstream) });
    let keys = json!([{ "name": "k", "key": "k" }]);
    let gateway = Gateway::started(json!({ "api_keys": keys, "mcp_servers": servers }));
    let list = || exchange(gateway.address(), &Request::get("/mcp/tools/list")).status();
    assert_eq!(list(), 401);
    let warned = || {
        let is_warning = |line: &&str| line.contains("everybody who reaches 127.0.0.1");
        gateway.stderr().lines().filter(is_warning).count()
    };
    assert_eq!(warned(), 0);
    gateway.reload(&json!({ "mcp_servers": servers }));
    assert_eq!((list(), warned()), (200, 1), "{}", gateway.stderr());
    gateway.reload(&json!({ "mcp_servers": servers }));
    assert_eq!(warned(), 1, "what was open before is no news");
}

#[test]
fn a_call_that_is_refused_for_its_quota_has_its_line() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(json!({
        "log": { "access": true },
        "api_keys": [{ "name": "k", "key": "k", "calls_per_minute": 1 }],
        "mcp_servers": { "s": http(&upstream) },
    }));
    let call = Request::post("/mcp/tools/call", &json!({ "name": "echo", "arguments": {} }));
    let call = call.header("x-api-key", "k");
    gateway.send(&call).expect(200);
    gateway.send(&call).expect(429);
    let is_line = |line: &str| line.contains("k s-echo ") && line.contains("calls are spent");
    wait_until("the refusal is logged", || gateway.stderr().lines().any(is_line));
}

#[test]
fn one_is_not_told_as_several() {
    let (upstream, state) = (HttpUpstream::with_tools(&["one"]), Directory::new());
    let mut server = http(&upstream);
    server["pin"] = json!("warn");
    let gateway = Gateway::started(json!({
        "state_dir": state.path().join("state"), "mcp_servers": { "s": server },
    }));
    let is_told = |what: &str| gateway.stderr().contains(what);
    wait_until("its tool is pinned", || is_told("s: items pinned as they are now: "));
    gateway.reload(&json!({ "nonsense": 1, "mcp_servers": {} }));
    wait_until("the file is refused", || is_told("stays as it was (problems: 1)"));
}
