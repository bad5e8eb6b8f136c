//! `/metrics`: what it shows, to whom, and where.

use std::collections::BTreeMap;

use serde_json::json;

use crate::support::gateway::Gateway;
use crate::support::http::{Request, exchange};
use crate::support::modern::ModernClient;
use crate::support::upstream_http::HttpUpstream;
use crate::support::{wait_for, wait_until};

/// The samples of a scrape by their name with labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) =
            line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
        (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
    };
    lines.map(sample).collect()
}

fn scrape(gateway: &Gateway) -> BTreeMap<String, f64> {
    let answer = gateway.get("/metrics").expect(200);
    let kind = answer.header("Content-Type").unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    samples(answer.text())
}

#[test]
fn what_is_called_is_counted_by_server_tool_key_and_outcome() {
    let (good, dead) = (HttpUpstream::start(), HttpUpstream::absent());
    let gateway = Gateway::with(json!({
        "prefix": "always",
        "api_keys": [{ "name": "ops", "key": "key-of-the-ops", "admin": true }],
        "mcp_servers": {
            "good": { "url": good.url(), "transport": "http" },
            "dead": { "url": dead.url(), "transport": "http" },
        },
    }))
    .start();
    gateway.wait_until_well(&["good"]);
    let call = |tool: &str| {
        let call = Request::post("/mcp/tools/call", &json!({ "name": tool, "arguments": {} }));
        gateway.send(&call.header("x-api-key", "key-of-the-ops")).status()
    };
    assert_eq!([call("good-echo"), call("good-echo"), call("good-fail")], [200, 200, 200]);
    assert_eq!([call("good-rpc_error"), call("nothing-of-that-name")], [502, 404]);
    gateway.mcp().call("good-echo", &json!({}));
    ModernClient::to(&gateway).key("key-of-the-ops").call("good-echo", &json!({}));
    gateway.send(&Request::get("/mcp/tools/list")).expect(401);
    let samples = scrape(&gateway);
    let value =
        |name: &str| *samples.get(name).unwrap_or_else(|| panic!("{name}: {samples:#?}"));
    let tool = |tool: &str, outcome: &str| {
        value(&format!(
            "trunkline_tool_calls_total{{server=\"good\",tool=\"{tool}\",key=\"ops\",outcome=\"{outcome}\"}}"
        ))
    };
    assert_eq!((tool("echo", "ok"), tool("fail", "tool_error")), (4.0, 1.0));
    assert_eq!(tool("rpc_error", "upstream_error"), 1.0);
    let of = |door: &str, outcome: &str| {
        let labels = format!("door=\"{door}\",method=\"tools/call\",outcome=\"{outcome}\"");
        value(&format!("trunkline_requests_total{{{labels}}}"))
    };
    assert_eq!((of("rest", "ok"), of("rest", "client_error")), (2.0, 1.0));
    assert_eq!((of("streamable", "ok"), of("modern", "ok")), (1.0, 1.0));
    let seconds = "{door=\"rest\",method=\"tools/call\"}";
    assert_eq!(value(&format!("trunkline_request_seconds_count{seconds}")), 5.0);
    assert_eq!(value("trunkline_upstream_calls_total{server=\"good\",outcome=\"ok\"}"), 4.0);
    assert_eq!(value("trunkline_upstream_seconds_count{server=\"good\"}"), 6.0);
    assert_eq!(value("trunkline_upstream_up{server=\"good\"}"), 1.0);
    assert_eq!(value("trunkline_upstream_up{server=\"dead\"}"), 0.0);
    assert_eq!(value("trunkline_rejected_total{reason=\"unauthorized\"}"), 1.0);
    assert!(value("trunkline_catalogue_tools{server=\"good\"}") > 5.0);
    assert_eq!(value("trunkline_sessions{door=\"streamable\"}"), 1.0);
    assert!(value("trunkline_limit_used{limit=\"connections\"}") >= 1.0);
    assert_eq!(value("trunkline_limit_max{limit=\"sessions\"}"), 10_000.0);
    assert_eq!(value("trunkline_config_last_reload_successful"), 1.0);
    assert!(value("trunkline_config_last_reload_success_timestamp_seconds") > 1e9);
    assert!(value("process_resident_memory_bytes") > 1e6 && value("process_open_fds") > 3.0);
    assert!(samples.keys().all(|name| !name.contains("nothing-of-that-name")), "{samples:#?}");
}

#[test]
fn a_failed_reload_and_a_restarted_child_are_seen() {
    let config = json!({ "mcp_servers": {
        "child": { "command": crate::support::gateway::scripted_child() },
    } });
    let gateway = Gateway::started(config);
    gateway.call("exit", &json!({}));
    wait_until("the child is started again", || {
        scrape(&gateway)["trunkline_upstream_restarts_total{server=\"child\"}"] >= 1.0
    });
    gateway.reload(&json!({ "nonsense": 1, "mcp_servers": {} }));
    wait_until("the reload is seen to have failed", || {
        scrape(&gateway)["trunkline_config_last_reload_successful"] == 0.0
    });
}

#[test]
fn only_an_admin_sees_them_and_the_admin_listener_is_its_own() {
    let upstream = HttpUpstream::start();
    let config = json!({
        "admin_listen": "127.0.0.1:0",
        "api_keys": [
            { "name": "ops", "key": "key-of-the-ops", "admin": true },
            { "name": "app", "key": "key-of-the-app" },
        ],
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    });
    let gateway = Gateway::started(config);
    let get = |path: &str, key: &str| Request::get(path).header("x-api-key", key);
    gateway.send(&get("/metrics", "key-of-the-ops")).expect(200);
    gateway.send(&get("/metrics", "key-of-the-app")).expect_error(403);
    gateway.send(&Request::get("/metrics")).expect_error(401);
    let address = wait_for("the listener says where it is", || {
        let text = gateway.stderr();
        let line = text.lines().find(|line| line.contains("metrics and status at "))?;
        line.rsplit(' ').next().map(str::to_owned)
    });
    let status = exchange(&address, &Request::get("/status")).expect(200).json();
    assert!(status["limits"].is_object(), "everything is told: {status}");
    exchange(&address, &Request::get("/metrics")).expect(200);
    exchange(&address, &Request::get("/healthz")).expect(200);
    exchange(&address, &Request::get("/mcp/tools/list")).expect_error(404);
    exchange(&address, &Request::post("/metrics", &json!({}))).expect_error(405);
    let rebound = Request::get("/status").host("rebound.example");
    exchange(&address, &rebound).expect_error(403);
    let page = Request::get("/status").header("Origin", "http://pages.example");
    exchange(&address, &page).expect_error(403);
}

#[test]
fn status_tells_what_is_in_work_and_what_was_refused() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(json!({
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }));
    let call = Request::post("/mcp/tools/call", &json!({ "name": "slow", "arguments": {} }));
    let mut connection = gateway.connect();
    connection.send(&call.header("X-Request-Id", "the-slow-one"));
    let found = wait_for("the call is told", || {
        let status = gateway.get("/status").expect(200).json();
        let calls = status["calls"]["oldest"].as_array().unwrap().clone();
        calls.into_iter().find(|call| call["id"] == "the-slow-one" && call["tool"] != "")
    });
    assert_eq!((&found["server"], &found["method"]), (&json!("s"), &json!("tools/call")));
    assert_eq!((&found["door"], &found["peer"]), (&json!("rest"), &json!("127.0.0.1")));
    connection.hang_up();
    wait_until("it is over", || {
        let status = gateway.get("/status").expect(200).json();
        status["calls"]["oldest"]
            .as_array()
            .unwrap()
            .iter()
            .all(|it| it["id"] != "the-slow-one")
    });
    let nothing = Request::get("/nothing?key=hidden").header("X-Request-Id", "lost");
    gateway.send(&nothing).expect(404);
    // It is told after its answer.
    let refusal = wait_for("the refusal is told", || {
        let status = gateway.get("/status").expect(200).json();
        let refusals = status["refusals"].as_array().unwrap().clone();
        refusals.into_iter().find(|it| it["id"] == "lost")
    });
    assert_eq!(refusal["reason"], "unknown_path");
    assert_eq!(
        (&refusal["status"], &refusal["request"]),
        (&json!(404), &json!("GET /nothing"))
    );
}
