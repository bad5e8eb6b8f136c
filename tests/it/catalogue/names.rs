//! Under which names tools are offered, and how a name finds its tool.

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, META_UPSTREAMS, OUTCOME_OK, entry_of, names_in};
use crate::support::http::Request;
use crate::support::mcp::{McpClient, initialize_message};
use crate::support::upstream_http::HttpUpstream;
use crate::support::wait_for;

fn http(upstream: &HttpUpstream) -> Value {
    json!({ "url": upstream.url(), "transport": "http" })
}

/// `base` with `_` and eight characters of a hash behind it.
#[track_caller]
fn expect_hashed(name: &str, base: &str) {
    let hash = name.strip_prefix(base).and_then(|rest| rest.strip_prefix('_'));
    let is_hash =
        |hash: &str| hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_alphanumeric());
    assert!(hash.is_some_and(is_hash), "{name:?} is not {base:?}, `_` and a hash");
}

#[test]
fn one_server_has_no_prefix_and_several_have() {
    let (first, second) = (HttpUpstream::with_tools(&["x"]), HttpUpstream::with_tools(&["y"]));
    let gateway = Gateway::started(json!({ "mcp_servers": { "a": http(&first) } }));
    assert_eq!(gateway.tool_names(), ["x"]);
    let gateway =
        Gateway::started(json!({ "mcp_servers": { "b": http(&first), "a": http(&second) } }));
    assert_eq!(gateway.tool_names(), ["a-y", "b-x"]);
    assert_eq!(gateway.call_text("a-y", &json!({})), "y");
    assert_eq!(gateway.call_text("y", &json!({})), "y", "a bare name that one server has");
    gateway.call("b-y", &json!({})).expect_error(404);
}

#[test]
fn the_prefix_is_always_or_never_there_when_told_so() {
    let (first, second) = (HttpUpstream::with_tools(&["x"]), HttpUpstream::with_tools(&["y"]));
    let gateway =
        Gateway::started(json!({ "prefix": "always", "mcp_servers": { "a": http(&first) } }));
    assert_eq!(gateway.tool_names(), ["a-x"]);
    let gateway = Gateway::started(json!({
        "prefix": "never", "mcp_servers": { "a": http(&first), "b": http(&second) },
    }));
    assert_eq!(gateway.tool_names(), ["x", "y"]);
}

#[test]
fn the_separator_is_configurable() {
    let upstream = HttpUpstream::with_tools(&["x-y", "z"]);
    let gateway = Gateway::started(json!({
        "prefix": "always", "prefix_separator": "__", "mcp_servers": { "a": http(&upstream) },
    }));
    assert_eq!(gateway.tool_names(), ["a__x-y", "a__z"]);
    assert_eq!(gateway.call_text("a__x-y", &json!({})), "x-y");
    gateway.call("a-x-y", &json!({})).expect_error(404);
}

#[test]
fn an_alias_replaces_the_name_in_offered_names_alone() {
    let upstream = HttpUpstream::with_tools(&["x"]);
    let mut server = http(&upstream);
    server["alias"] = json!("short");
    let gateway =
        Gateway::started(json!({ "prefix": "always", "mcp_servers": { "long_name": server } }));
    assert_eq!(gateway.tool_names(), ["short-x"]);
    assert_eq!(gateway.call_text("short-x", &json!({})), "x");
    let list = gateway.get("/mcp/tools/list?server=long_name").expect(200).json();
    assert_eq!(names_in(&list), ["short-x"]);
    gateway.get("/mcp/tools/list?server=short").expect_error(404);
    let client = McpClient::new(gateway.address()).at("/mcp/long_name").opened();
    assert_eq!(client.tool_names(), ["x"]);
}

#[test]
fn equal_names_differ_by_a_hash_that_stays() {
    let (first, second) =
        (HttpUpstream::with_tools(&["b-c"]), HttpUpstream::with_tools(&["c"]));
    let config = json!({ "mcp_servers": { "a": http(&first), "a-b": http(&second) } });
    let gateway = Gateway::started(config.clone());
    let names = gateway.tool_names();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(names[0], "a-b-c");
    expect_hashed(&names[1], "a-b-c");
    assert_eq!(gateway.call_text("a-b-c", &json!({})), "c", "the longest NAME has it");
    assert_eq!(gateway.call_text(&names[1], &json!({})), "b-c");
    drop(gateway);
    assert_eq!(Gateway::started(config).tool_names(), names, "the same after a restart");
}

#[test]
fn without_prefixes_equal_names_differ_by_a_hash() {
    let (first, second) = (HttpUpstream::with_tools(&["x"]), HttpUpstream::with_tools(&["x"]));
    let gateway = Gateway::started(json!({
        "prefix": "never", "mcp_servers": { "b": http(&second), "a": http(&first) },
    }));
    let names = gateway.tool_names();
    assert_eq!(names[0], "x");
    expect_hashed(&names[1], "x");
    gateway.call("x", &json!({})).expect(200);
    let n_calls = || (first.seen().n_calls("x"), second.seen().n_calls("x"));
    assert_eq!(n_calls(), (0, 1), "the first of the configuration");
    gateway.call(&names[1], &json!({})).expect(200);
    assert_eq!(n_calls(), (1, 1));
}

#[test]
fn a_bare_name_that_is_another_servers_is_offered_under_its_hash_form() {
    let (first, second) =
        (HttpUpstream::with_tools(&["x"]), HttpUpstream::with_tools(&["a-x"]));
    let gateway =
        Gateway::started(json!({ "mcp_servers": { "a": http(&first), "b": http(&second) } }));
    let names = gateway.tool_names();
    assert_eq!(names[0], "a-x");
    expect_hashed(&names[1], "b-a-x");
    assert_eq!(gateway.call_text("a-x", &json!({})), "x");
    assert_eq!(gateway.call_text(&names[1], &json!({})), "a-x");
    assert_eq!(gateway.call_text("b-a-x", &json!({})), "a-x", "the full name, which is b's");
}

#[test]
fn long_names_are_cut_and_end_in_a_hash() {
    let long = "t".repeat(80);
    let other = format!("{}u", "t".repeat(79));
    let exact = "e".repeat(62);
    let upstream = HttpUpstream::with_tools(&[&long, &other, &exact]);
    let config = json!({ "prefix": "always", "mcp_servers": { "a": http(&upstream) } });
    let gateway = Gateway::started(config.clone());
    let names = gateway.tool_names();
    assert_eq!(names[2], format!("a-{exact}"), "64 characters stay whole");
    for name in &names[..2] {
        assert_eq!(name.chars().count(), 64, "{name}");
        expect_hashed(name, &name[..64 - 9]);
        assert!(name.starts_with("a-ttt"), "{name}");
    }
    assert_ne!(names[0], names[1]);
    let texts: Vec<String> =
        names[..2].iter().map(|name| gateway.call_text(name, &json!({}))).collect();
    assert!(texts.contains(&long) && texts.contains(&other), "{texts:?}");
    assert_eq!(gateway.call_text(&long, &json!({})), long, "the bare name");
    drop(gateway);
    assert_eq!(Gateway::started(config).tool_names(), names);
}

#[test]
fn lists_are_sorted_and_always_the_same() {
    let first = HttpUpstream::with_tools(&["z", "a", "M", "m-1"]);
    let second = HttpUpstream::with_tools(&["q", "B"]);
    let gateway =
        Gateway::started(json!({ "mcp_servers": { "y": http(&first), "x": http(&second) } }));
    let names = gateway.tool_names();
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(names, sorted);
    let client = gateway.mcp();
    for _ in 0..3 {
        assert_eq!(gateway.tool_names(), names);
        assert_eq!(client.tool_names(), names);
    }
}

#[test]
fn globs_choose_among_a_servers_own_names() {
    let upstream = HttpUpstream::with_tools(&["get_a", "get_b", "set_a", "drop"]);
    let mut server = http(&upstream);
    server["tools"] = json!(["get_*", "set_?", "!*_b"]);
    let gateway = Gateway::started(json!({ "mcp_servers": { "s": server } }));
    assert_eq!(gateway.tool_names(), ["get_a", "set_a"]);
    gateway.call("drop", &json!({})).expect_error(404);
    gateway.call("get_b", &json!({})).expect_error(404);
    assert_eq!(upstream.seen().n_calls("drop"), 0);
    let mut server = http(&upstream);
    server["tools"] = json!(["!drop"]);
    let gateway = Gateway::started(json!({ "mcp_servers": { "s": server } }));
    assert_eq!(gateway.tool_names(), ["get_a", "get_b", "set_a"]);
}

#[test]
fn a_header_narrows_requests_and_sessions() {
    let (first, second) = (HttpUpstream::with_tools(&["x"]), HttpUpstream::with_tools(&["x"]));
    let third = HttpUpstream::with_tools(&["x"]);
    let gateway = Gateway::started(json!({ "mcp_servers": {
        "a": http(&first), "b": http(&second), "c": http(&third),
    }}));
    let list = |servers: &str| {
        let request = Request::get("/mcp/tools/list").header("x-mcp-servers", servers);
        names_in(&gateway.send(&request).expect(200).json())
    };
    assert_eq!(list("b"), ["b-x"]);
    assert_eq!(list("c, a"), ["a-x", "c-x"]);
    let call = |tool: &str, servers: &str| {
        let request = Request::post("/mcp/tools/call", &json!({ "name": tool }));
        gateway.send(&request.header("x-mcp-servers", servers))
    };
    call("b-x", "b").expect(200);
    call("x", "b").expect(200);
    call("a-x", "b").expect_error(404);
    call("x", "a,b").expect_error(409);
    let client = McpClient::new(gateway.address()).with_header("x-mcp-servers", "a,b").opened();
    assert_eq!(client.tool_names(), ["a-x", "b-x"]);
    let hidden = client.request("tools/call", &json!({"name": "c-x"}));
    assert_eq!(hidden["error"]["code"], -32602, "{hidden}");
    assert_eq!(third.seen().n_calls("x"), 0);
}

#[test]
fn a_path_of_several_names_narrows_as_the_header_does() {
    let (first, second) = (HttpUpstream::with_tools(&["x"]), HttpUpstream::with_tools(&["x"]));
    let third = HttpUpstream::with_tools(&["x"]);
    let gateway = Gateway::started(json!({
        "api_keys": [{ "name": "all", "key": "0123456789abcdef-all" },
                     { "name": "k", "key": "0123456789abcdef-k", "servers": ["a", "b"] }],
        "mcp_servers": { "a": http(&first), "b": http(&second), "c": http(&third) },
    }));
    let at = |path: &str, key: &str| McpClient::new(gateway.address()).at(path).with_key(key);
    let all = "0123456789abcdef-all";
    for path in ["/mcp/c,a", "/mcp/a,c/", "/a,c/mcp"] {
        let client = at(path, all).opened();
        assert_eq!(client.tool_names(), ["a-x", "c-x"], "{path}");
        let hidden = client.request("tools/call", &json!({"name": "b-x"}));
        assert_eq!(hidden["error"]["code"], -32602, "{hidden}");
    }
    let both = at("/mcp/a,c", all).with_header("x-mcp-servers", "b, c").opened();
    assert_eq!(both.tool_names(), ["c-x"]);
    // One that the key may not see is as one that is not there.
    for name in ["nope", "c", ""] {
        let refused = at(&format!("/mcp/a,{name}"), "0123456789abcdef-k").initialize();
        assert_eq!(refused.status(), 404, "{name}");
        let told = format!("There is no server \\\"{name}\\\"");
        assert!(refused.text().contains(&told), "{}", refused.text());
    }
    assert_eq!(at("/mcp/a,b", "0123456789abcdef-k").opened().tool_names(), ["a-x", "b-x"]);
}

#[test]
fn a_server_has_doors_of_its_own_with_its_own_names() {
    let (first, second) = (HttpUpstream::with_tools(&["x"]), HttpUpstream::with_tools(&["y"]));
    let gateway = Gateway::started(json!({
        "prefix": "always", "mcp_servers": { "a": http(&first), "b": http(&second) },
    }));
    for path in ["/mcp/b", "/mcp/b/", "/b/mcp", "/b/mcp/"] {
        let client = McpClient::new(gateway.address()).at(path).opened();
        assert_eq!(client.tool_names(), ["y"], "{path}");
        client.call("y", &json!({}));
        let foreign = client.request("tools/call", &json!({"name": "x"}));
        assert_eq!(foreign["error"]["code"], -32602, "{path}: {foreign}");
    }
    assert_eq!(first.seen().n_calls("x"), 0);
    for path in ["/mcp/nobody", "/nobody/mcp"] {
        let request = Request::post(path, &initialize_message(1, "2025-11-25"));
        let request = request.header("Accept", "application/json, text/event-stream");
        gateway.send(&request).expect(404);
    }
}

#[test]
fn a_session_of_one_door_is_not_known_at_another() {
    let (first, second) = (HttpUpstream::with_tools(&["x"]), HttpUpstream::with_tools(&["y"]));
    let gateway =
        Gateway::started(json!({ "mcp_servers": { "a": http(&first), "b": http(&second) } }));
    let client = McpClient::new(gateway.address()).at("/mcp/a").opened();
    let crossed = client.at("/mcp/b");
    let answer = crossed.post(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    if answer.status() != 404 {
        // Whatever it answers, the narrowing of the session holds.
        assert!(!answer.text().contains("\"y\""), "{answer}");
    }
}

#[test]
fn lists_name_each_server_that_is_not_well() {
    let (well, absent) = (HttpUpstream::with_tools(&["x"]), HttpUpstream::absent());
    let gateway = Gateway::with(json!({ "mcp_servers": {
        "well": http(&well), "gone": http(&absent),
    }}))
    .start();
    gateway.wait_until_well(&["well"]);
    let list = wait_for("the failure is told", || {
        let list = gateway.list();
        let has_failed = gateway.status_of("gone")["last_failure"].is_object();
        (has_failed && entry_of(&list["upstreams"], "gone").is_some()).then_some(list)
    });
    let outcome =
        |server: &str| entry_of(&list["upstreams"], server).unwrap()["outcome"].clone();
    assert_eq!(outcome("well"), OUTCOME_OK);
    assert_ne!(outcome("gone"), OUTCOME_OK);
    let client = gateway.mcp();
    let result = client.result("tools/list", &json!({}));
    let told = &result["_meta"][META_UPSTREAMS];
    let entry = entry_of(told, "gone").unwrap_or_else(|| panic!("not named: {result}"));
    assert_eq!(entry["outcome"], outcome("gone"));
}

#[test]
fn what_is_wrong_in_names_is_refused_at_the_start() {
    let url = "http://127.0.0.1:9/mcp";
    for servers in [
        json!({ "a": { "url": url }, "A": { "url": url } }),
        json!({ "a": { "url": url, "alias": "b" }, "B": { "url": url } }),
        json!({ "tools": { "url": url } }),
        json!({ "mcp": { "url": url } }),
        json!({ "a b": { "url": url } }),
        json!({ "my.server": { "url": url } }),
        json!({ "@scope/server": { "url": url } }),
        json!({ "": { "url": url } }),
    ] {
        let ended = Gateway::with(json!({ "mcp_servers": servers })).try_start();
        let ended = ended.err().unwrap_or_else(|| panic!("it started: {servers}"));
        assert_eq!(ended.code, Some(78), "{servers}: {ended:?}");
        assert!(ended.stderr.contains("mcp_servers"), "names the place: {ended:?}");
        if ended.stderr.contains("my.server") {
            for told in ["letters, digits, \"_\" and \"-\"", "\"my_server\" would do"] {
                assert!(ended.stderr.contains(told), "{told}: {ended:?}");
            }
        }
    }
}
