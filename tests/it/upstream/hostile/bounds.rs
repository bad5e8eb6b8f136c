//! What is no result is bounded in kilobytes: what a server says of itself, one item of a list, an
//! error. However large a server makes it, it costs memory in proportion to its bytes at most, and
//! its client is told what is missing.

use std::io;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::faulty::{At, Fault, Faulty, Peer, Speech};
use crate::support::gateway::{Directory, Gateway};
use crate::support::http::Request;
use crate::support::listener::Next;
use crate::support::modern::ModernClient;
use crate::support::upstream_http::HttpUpstream;
use crate::support::{DEADLINE, wait_until, wait_within};

const JSON: &str = "application/json";
const MEGABYTE: usize = 1024 * 1024;

/// An array of so many bytes that costs far more where a tree is made of it.
fn zeros(bytes: usize) -> String {
    format!("[{}0]", "0,".repeat(bytes / 2))
}

/// That what is done costs no more memory than so many times the bytes that came.
#[track_caller]
fn costs_at_most(gateway: &Gateway, bytes: usize, done: impl FnOnce()) {
    let before = gateway.peak_rss_bytes();
    done();
    let grown = usize::try_from(gateway.peak_rss_bytes() - before).unwrap();
    assert!(grown < bytes, "{} MiB for {} MiB", grown / MEGABYTE, bytes / MEGABYTE);
}

fn before(server: &Faulty) -> Gateway {
    let gateway = Gateway::with(json!({ "mcp_servers": { "s": server.config(30_000) } }));
    let gateway = gateway.start();
    gateway.wait_until_well_within(3 * DEADLINE, &["s"]);
    gateway
}

const DATA: usize = 8 * MEGABYTE;

fn large_error(peer: &mut Peer<'_>) -> io::Result<Next> {
    let error = format!(r#"{{"code":-32000,"message":"no","data":{}}}"#, zeros(DATA));
    let body = format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, peer.id);
    peer.answer("200 OK", JSON, &body)
}

#[test]
fn large_data_of_an_error_is_left_out_and_costs_little() {
    let _heavy = crate::support::heavy();
    let server = Faulty::start(Speech::Sessions, At::Call, large_error);
    let gateway = before(&server);
    let told = "(The error's data has more than 65536 bytes and is left out.)";
    costs_at_most(&gateway, 6 * DATA, || {
        let error = gateway.call("echo", &json!({})).expect_error(502);
        assert!(error["message"].as_str().unwrap().contains(told), "{error}");
        assert!(error.get("data").is_none());
        let answer = gateway.mcp().post(
            &json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
                "params": { "name": "echo", "arguments": {} } })
            .to_string(),
        );
        let error = &answer.message()["error"];
        assert_eq!((error["code"].as_i64(), error.get("data")), (Some(-32000), None));
        assert_eq!(error["message"], format!("no {told}"));
        let params = json!({ "name": "echo", "arguments": {} });
        let answered = ModernClient::to(&gateway).request("tools/call", &params);
        assert_eq!(answered.message["error"]["message"], format!("no {told}"));
    });
}

const SAID: usize = 2 * MEGABYTE;

fn large_introduction(peer: &mut Peer<'_>) -> io::Result<Next> {
    let (large, text) = (zeros(SAID), "use it ".repeat(SAID / 7));
    let result = format!(
        r#"{{"protocolVersion":"2025-06-18","instructions":"{text}",
            "capabilities":{{"tools":{{"listChanged":true,"x":{large}}},"experimental":{{"y":{large}}}}},
            "serverInfo":{{"name":"faulty","version":"1","title":"T","x":{large}}}}}"#
    );
    let body = peer.result(&result.replace('\n', " "));
    peer.answer("200 OK", JSON, &body)
}

#[test]
fn what_a_server_says_of_itself_is_cut_and_its_status_costs_little() {
    let _heavy = crate::support::heavy();
    let server = Faulty::start(Speech::Sessions, At::Contact, large_introduction);
    let gateway = before(&server);
    costs_at_most(&gateway, 4 * SAID, || {
        for _ in 0..3 {
            let status = gateway.get("/status").expect(200);
            assert!(status.text().len() < 100_000, "{}", status.text().len());
            let info = &status.json()["upstreams"][0]["server_info"];
            assert_eq!(info, &json!({ "name": "faulty", "version": "1", "title": "T" }));
        }
        let open = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": { "name": "c", "version": "1" } } });
        let open = Request::post("/mcp", &open)
            .header("Accept", "application/json, text/event-stream");
        let opened = gateway.send(&open).expect(200).message();
        let instructions = opened["result"]["instructions"].as_str().unwrap();
        assert!(instructions.starts_with("use it use it"), "{instructions:.40}");
        let note = "(The instructions have more than 65536 bytes and are cut.)";
        assert!(instructions.len() <= 65_536 && instructions.ends_with(note));
        // What it can do is still known.
        let capabilities = &opened["result"]["capabilities"];
        assert_eq!(capabilities["tools"]["listChanged"], true, "{capabilities}");
    });
    assert_eq!(gateway.tool_names(), ["echo"]);
    let told = "s: more is said than is kept in: capabilities, serverInfo, instructions";
    assert!(gateway.stop().stderr.contains(told));
}

#[test]
fn a_tool_over_its_bound_is_left_out_and_named() {
    let _heavy = crate::support::heavy();
    let tool = |name: &str, n: usize| {
        let properties: Vec<String> = (0..n)
            .map(|n| format!(r#""p{n}":{{"type":"string","x-mcp-header":"H-{n}"}}"#))
            .collect();
        let schema =
            format!(r#"{{"type":"object","properties":{{{}}}}}"#, properties.join(","));
        format!(r#"{{"name":"{name}","inputSchema":{schema}}}"#)
    };
    let large = tool("large", 100_000);
    let (bytes, tools) = (large.len(), format!("[{},{large},{}]", tool("a", 3), tool("b", 0)));
    let fault = |_: &mut Peer<'_>| Ok(Next::Close);
    let server = Faulty::with_tools(Speech::Sessions, At::Call, fault, tools).well();
    let gateway = before(&server);
    assert_eq!(gateway.tool_names(), ["a", "b"]);
    let status = gateway.status_of("s");
    assert_eq!(status["left_out"], 1);
    let item = &status["left_out_items"][0];
    assert_eq!((&item["kind"], &item["name"]), (&json!("tool"), &json!("large")));
    let reason = item["reason"].as_str().unwrap();
    assert!(reason.contains("more than 262144 bytes"), "{reason}");
    let peak = usize::try_from(gateway.peak_rss_bytes()).unwrap();
    assert!(peak < 48 * MEGABYTE + 5 * bytes, "{} MiB", peak / MEGABYTE);
}

fn many_elements(peer: &mut Peer<'_>) -> io::Result<Next> {
    peer.answer("200 OK", JSON, &zeros(DATA))
}

fn many_messages(peer: &mut Peer<'_>) -> io::Result<Next> {
    let notice = r#"{"jsonrpc":"2.0","method":"notifications/x"}"#;
    let many = vec![notice; DATA / notice.len()].join(",");
    let answer = peer.result(r#"{"content":[]}"#);
    peer.answer("200 OK", JSON, &format!("[{many},{answer}]"))
}

#[test]
fn an_answer_of_many_elements_is_read_no_further_than_it_makes_sense() {
    let _heavy = crate::support::heavy();
    let faults: [(Fault, &str); 2] =
        [(many_elements, "no object"), (many_messages, "too many messages")];
    for (fault, told) in faults {
        let server = Faulty::start(Speech::Sessions, At::Call, fault);
        let gateway = before(&server);
        costs_at_most(&gateway, 4 * DATA, || {
            let began = Instant::now();
            let error = gateway.call("echo", &json!({})).expect_error(502);
            assert!(error["message"].as_str().unwrap().contains(told), "{error}");
            // To read all of them took a debug build more than a minute.
            assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
        });
    }
}

fn many_items(peer: &mut Peer<'_>) -> io::Result<Next> {
    let body = peer.result(&format!(r#"{{"tools":{}}}"#, zeros(DATA)));
    peer.answer("200 OK", JSON, &body)
}

#[test]
fn a_list_of_millions_of_items_costs_what_is_kept_of_it() {
    let _heavy = crate::support::heavy();
    let good = HttpUpstream::start();
    let server = Faulty::start(Speech::Sessions, At::List, many_items);
    let gateway = Gateway::with(json!({ "mcp_servers": {
        "good": { "url": good.url(), "transport": "http" }, "s": server.config(30_000),
    } }))
    .start();
    gateway.wait_until_well_within(3 * DEADLINE, &["good", "s"]);
    let left_out = gateway.status_of("s")["left_out"].as_u64().unwrap();
    assert_eq!(left_out, u64::try_from(DATA / 2 + 1).unwrap());
    assert!(gateway.peak_rss_bytes() < 64 * 1024 * 1024, "{}", gateway.peak_rss_bytes());
}

#[test]
fn the_status_of_thousands_of_changed_tools_costs_little_more_than_that_of_none() {
    let _heavy = crate::support::heavy();
    const TOOLS: usize = 3000;
    let state = Directory::new();
    let names: Vec<String> = (0..TOOLS).map(|n| format!("tool-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let upstream = HttpUpstream::with_tools(&names);
    let gateway = Gateway::started(json!({
        "state_dir": state.path().join("state"),
        "api_keys": [
            { "name": "all", "key": "key-of-all", "admin": true },
            { "name": "few", "key": "key-of-few", "tools": ["s-*", "!s-tool-1*"] },
        ],
        "mcp_servers": {
            "s": { "url": upstream.url(), "transport": "http", "pin": "warn" },
        },
    }));
    let took = |key: &str| {
        let request = Request::get("/status").header("x-api-key", key);
        let took = |_| {
            let began = Instant::now();
            gateway.send(&request).expect(200);
            began.elapsed()
        };
        (0..3).map(took).min().unwrap()
    };
    let pinned = || gateway.status_of("s")["pins"]["pinned"] == TOOLS;
    wait_until("its tools are pinned", pinned);
    let unchanged = took("key-of-few").max(took("key-of-all"));
    upstream.set_tools(&[]);
    for name in &names {
        let text = format!(
            r#"{{"name":"{name}","description":"changed","inputSchema":{{"type":"object"}}}}"#
        );
        upstream.add_text("tools", name, &text);
    }
    upstream.announce_change();
    let all_changed = || {
        let changed = &gateway.status_of("s")["pins"]["changed"];
        changed.as_array().map(Vec::len) == Some(TOOLS) || changed == &Value::from(TOOLS)
    };
    wait_within(Duration::from_secs(60), "its tools have changed", || {
        all_changed().then_some(())
    });
    // To look each changed tool up among all took a hundred times as long.
    for key in ["key-of-few", "key-of-all"] {
        let changed = took(key);
        let most = 20 * unchanged + Duration::from_secs(2);
        assert!(changed < most, "{key}: {changed:?} after {unchanged:?}");
    }
}
