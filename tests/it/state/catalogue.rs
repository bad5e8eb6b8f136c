//! The last good catalogue: served at start, before any server has answered, and said to be so.

use serde_json::{Value, json};

use super::{State, outcome, server};
use crate::support::gateway::{Gateway, META_UPSTREAMS, stdio};
use crate::support::upstream_http::HttpUpstream;
use crate::support::wait_until;

#[test]
fn lists_are_there_before_the_server_is() {
    let (state, upstream) = (State::new(), HttpUpstream::start());
    let config = state.before(&upstream.url());
    let first = Gateway::started(config.clone());
    assert!(outcome(&first, "s").get("stale").is_none(), "{}", outcome(&first, "s"));
    let (list, client) = (first.list()["tools"].clone(), first.mcp());
    let (prompts, resources) = (
        client.result("prompts/list", &json!({})),
        client.result("resources/list", &json!({})),
    );
    let introduced = client.result("tools/list", &json!({}));
    assert!(introduced.get("_meta").is_none(), "{introduced}");
    state.wait_stored("s", None);
    first.kill();
    upstream.die();

    let second = Gateway::with(config).start();
    assert_eq!(second.list()["tools"], list);
    assert_eq!(outcome(&second, "s")["stale"], true);
    assert_ne!(outcome(&second, "s")["outcome"], "ok");
    assert_eq!(second.status_of("s")["stale"], true);
    assert_eq!(second.status_of("s")["tools"], list.as_array().unwrap().len());
    let client = second.mcp();
    let told = client.result("tools/list", &json!({}));
    assert_eq!(told["_meta"][META_UPSTREAMS][0]["stale"], true, "{told}");
    assert_eq!(client.result("prompts/list", &json!({}))["prompts"], prompts["prompts"]);
    let found = client.result("resources/list", &json!({}));
    assert_eq!(found["resources"], resources["resources"]);
    let refused = second.call("echo", &json!({})).expect_error(502);
    assert_eq!(refused["server"], "s", "{refused}");

    upstream.come();
    second.wait_ready();
    wait_until("nothing is stale", || outcome(&second, "s").get("stale").is_none());
    assert_eq!(second.status_of("s")["stale"], false);
    second.call("echo", &json!({})).expect(200);
    assert_eq!(second.list()["tools"], list);
}

#[test]
fn a_server_that_hangs_keeps_nobody_waiting() {
    let (state, upstream) = (State::new(), HttpUpstream::with_tools(&["one", "two"]));
    let mut config = state.before(&upstream.url());
    config["mcp_servers"]["s"]["required"] = json!(true);
    let first = Gateway::started(config.clone());
    state.wait_stored("s", None);
    first.kill();
    upstream.listener.hang();
    let second = Gateway::with(config).start();
    // Had the start waited for it, it would have failed by now or be counted as silent.
    assert_eq!(second.tool_names(), ["one", "two"]);
    assert_eq!(outcome(&second, "s")["stale"], true);
    second.get("/readyz").expect(503);
    upstream.listener.resume();
    second.wait_ready();
    second.get("/readyz").expect(200);
}

#[test]
fn what_changed_meanwhile_is_what_is_listed_then() {
    let (state, upstream) = (State::new(), HttpUpstream::with_tools(&["one", "two"]));
    let config = state.before(&upstream.url());
    let first = Gateway::started(config.clone());
    let stored = state.wait_stored("s", None);
    first.kill();
    upstream.die();
    upstream.set_tools(&["three"]);
    let second = Gateway::with(config.clone()).start();
    assert_eq!(second.tool_names(), ["one", "two"]);
    upstream.come();
    second.wait_for_tool("three");
    assert_eq!(second.tool_names(), ["three"]);
    state.wait_stored("s", Some(&stored));
    second.kill();
    upstream.die();
    let third = Gateway::with(config).start();
    assert_eq!(third.tool_names(), ["three"]);
}

#[test]
fn a_server_that_is_elsewhere_now_gets_nothing_of_another_s() {
    let state = State::new();
    let (one, two) = (HttpUpstream::with_tools(&["one"]), HttpUpstream::with_tools(&["two"]));
    let first = Gateway::started(state.before(&one.url()));
    state.wait_stored("s", None);
    first.kill();
    two.die();
    for changed in [server(&two.url()), json!({ "s": stdio(&["--not-so"]) })] {
        let second = Gateway::with(state.config(&changed, &json!({}))).start();
        let names = second.tool_names();
        assert!(!names.contains(&"one".to_owned()), "{names:?}");
        second.kill();
    }
    // Nor is it left there for a server that is no longer configured.
    let third = Gateway::with(state.config(&json!({}), &json!({}))).start();
    third.kill();
    assert!(
        !state.names().iter().any(|name| name.starts_with("catalogue")),
        "{:?}",
        state.names()
    );
}

#[test]
fn no_secret_of_the_configuration_is_written() {
    let (state, upstream) = (State::new(), HttpUpstream::start());
    let mut config = state.before(&format!("{}?token=hunter2-in-url", upstream.url()));
    config["mcp_servers"]["s"]["headers"] = json!({ "Authorization": "Bearer hunter2-header" });
    config["mcp_servers"]["c"] = stdio(&["hunter2-argument"]);
    config["mcp_servers"]["c"]["env"] = json!({ "KEY": "hunter2-variable" });
    config["api_keys"] = json!([{ "name": "a", "key": "hunter2-key" }]);
    let gateway = Gateway::with(config).start();
    gateway.wait_until_well(&["s"]);
    gateway.mcp().end().expect(204);
    state.wait_stored("s", None);
    gateway.stop();
    for name in state.names() {
        let file = std::fs::read(state.path().join(&name)).unwrap();
        assert!(!String::from_utf8_lossy(&file).contains("hunter2"), "{name}");
    }
}

#[test]
fn many_servers_each_have_their_own() {
    let state = State::new();
    let upstreams: Vec<HttpUpstream> =
        (0..6).map(|n| HttpUpstream::with_tools(&[&format!("tool{n}")])).collect();
    let servers = upstreams.iter().enumerate();
    let servers: serde_json::Map<String, Value> = servers
        .map(|(n, it)| (format!("s{n}"), json!({ "url": it.url(), "transport": "http" })))
        .collect();
    let config = state.config(&servers.into(), &json!({}));
    let first = Gateway::started(config.clone());
    let list = first.list()["tools"].clone();
    for n in 0..6 {
        state.wait_stored(&format!("s{n}"), None);
    }
    first.kill();
    upstreams.iter().step_by(2).for_each(HttpUpstream::die);
    let second = Gateway::with(config).start();
    assert_eq!(second.list()["tools"], list);
    second.wait_until_well(&["s1", "s3", "s5"]);
    for n in 0..6 {
        let told = outcome(&second, &format!("s{n}"));
        assert_eq!(told.get("stale").is_some(), n % 2 == 0, "{told}");
    }
    second.call("s1-tool1", &json!({})).expect(200);
    second.call("s2-tool2", &json!({})).expect(502);
}
