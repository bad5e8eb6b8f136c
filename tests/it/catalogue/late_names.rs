//! Names that a server has and its list, as it was read last, has not.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::gateway::Gateway;
use crate::support::http::Request;
use crate::support::in_background;
use crate::support::modern::ModernClient;
use crate::support::stopwatch::Stopwatch;
use crate::support::upstream_http::HttpUpstream;

fn before(upstream: &HttpUpstream) -> Gateway {
    let gateway = Gateway::before(&upstream.url());
    gateway.wait_for_tool("echo");
    gateway
}

#[test]
fn what_a_server_adds_without_a_word_is_found_when_it_is_called() {
    let upstream = HttpUpstream::labelled("s");
    let gateway = before(&upstream);
    let (client, modern) = (gateway.mcp(), ModernClient::to(&gateway));
    let n_list = upstream.seen().n_list;
    for n in 0..3 {
        // One after the other, at once.
        let name = format!("added_{n}");
        upstream.add_tool(&name);
        match n {
            0 => drop(gateway.call(&name, &json!({})).expect(200)),
            1 => drop(client.call(&name, &json!({}))),
            _ => drop(modern.call(&name, &json!({}))),
        }
    }
    assert_eq!(upstream.seen().n_list, n_list + 3);
    assert!(gateway.tool_names().contains(&"added_0".to_owned()), "it is listed, too");

    upstream.set_prompts(&["greet", "added"]);
    let added = json!({ "name": "added", "arguments": { "name": "you" } });
    client.result("prompts/get", &added);
    upstream.add_text("resources", "new://1", r#"{"uri":"new://1","name":"one"}"#);
    client.result("resources/read", &json!({ "uri": "new://1" }));
}

#[test]
fn unknown_names_have_a_list_read_once_and_are_answered_at_once_after_that() {
    let (upstream, other) = (HttpUpstream::labelled("s"), HttpUpstream::labelled("o"));
    let gateway = Gateway::started(json!({ "mcp_servers": {
        "s": { "url": upstream.url(), "transport": "http" },
        "other": { "url": other.url(), "transport": "http" },
    }}));
    let (n_list, n_other) = (upstream.seen().n_list, other.seen().n_list);
    let began = Instant::now();
    let asking: Vec<_> = (0..8)
        .map(|thread| {
            let (client, key) = (gateway.mcp(), thread);
            in_background(move || {
                for n in 0..20 {
                    let params = json!({ "name": format!("s-nothing_{key}_{n}") });
                    let message = client.request("tools/call", &params);
                    assert_eq!(message["error"]["code"], -32602, "{message}");
                }
            })
        })
        .collect();
    asking.into_iter().for_each(|thread| thread.join().unwrap());
    let n_read = upstream.seen().n_list - n_list;
    let n_most = 1 + usize::try_from(began.elapsed().as_secs() / 5).unwrap();
    assert!((1..=n_most).contains(&n_read), "read {n_read} times for 160 unknown names");
    assert_eq!(other.seen().n_list, n_other, "the name belongs to another server");
}

#[test]
fn an_unknown_name_waits_for_a_list_that_hangs_no_longer_than_two_seconds() {
    let upstream = HttpUpstream::labelled("s");
    let gateway = before(&upstream);
    upstream.hang_on(Some("tools/list"));
    upstream.add_tool("added");
    let began = Instant::now();
    gateway.call("added", &json!({})).expect_error(404);
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(8), "{took:?}");
    assert_eq!(gateway.call_text("echo", &json!({"message": "m"})), "m");
    upstream.hang_on(None);
}

#[test]
fn a_list_that_is_refused_keeps_nobody_waiting() {
    let upstream = HttpUpstream::labelled("s");
    let gateway = before(&upstream);
    upstream.refuse(Some("tools/list"));
    let watch = Stopwatch::start(&gateway);
    gateway.call("added", &json!({})).expect_error(404);
    watch.is_below("a refused list", Duration::from_millis(1500));
}

#[test]
fn a_tool_that_was_just_announced_is_called_at_once() {
    let upstream = HttpUpstream::labelled("s");
    let gateway = before(&upstream);
    let client = gateway.mcp();
    crate::support::wait_until("it is listened to", || upstream.n_streams() > 0);
    // The second change comes while a further reading is put off.
    for n in 0..4 {
        let name = format!("announced_{n}");
        upstream.change("tools", &name);
        let result: Value = client.call(&name, &json!({}));
        assert!(result["content"].is_array(), "{result}");
    }
}

#[test]
fn what_a_key_may_not_use_has_nothing_read() {
    let upstream = HttpUpstream::labelled("s");
    let gateway = Gateway::started(json!({
        "api_keys": [{ "name": "few", "key": "few-few-few-few", "tools": ["s-echo"] }],
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }));
    let n_list = upstream.seen().n_list;
    upstream.add_tool("added");
    for name in ["added", "s-added", "log"] {
        gateway.call(name, &json!({})).expect_error(404);
    }
    assert_eq!(upstream.seen().n_list, n_list);
    assert_eq!(gateway.call_text("echo", &json!({"message": "m"})), "m");
}

#[test]
fn a_name_is_found_in_whatever_list_comes_while_another_is_waited_for() {
    let (upstream, other) = (HttpUpstream::labelled("s"), HttpUpstream::labelled("o"));
    let gateway = Gateway::started(json!({ "mcp_servers": {
        "s": { "url": upstream.url(), "transport": "http" },
        "other": { "url": other.url(), "transport": "http" },
    }}));
    crate::support::wait_until("it is listened to", || upstream.n_streams() > 0);
    other.hang_on(Some("tools/list"));
    let n_list = upstream.seen().n_list;
    let mut call = gateway.connect();
    let watch = Stopwatch::start(&gateway);
    call.send(&Request::post("/mcp/tools/call", &json!({"name": "added", "arguments": {}})));
    upstream.wait_until("the list is read again", |seen| seen.n_list > n_list);
    upstream.change("tools", "added");
    call.answer().expect(200);
    watch.is_below("the call", Duration::from_secs(2));
    other.hang_on(None);
}
