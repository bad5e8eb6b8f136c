//! Lists that are too long, too heavy, or hold what cannot be shown.

use serde_json::{Value, json};

use super::faulty::{At, Faulty, Speech};
use crate::support::gateway::{Gateway, entry_of, names_in};
use crate::support::listener::Next;
use crate::support::upstream_http::HttpUpstream;

fn with_tools(tools: String) -> Faulty {
    Faulty::with_tools(Speech::Sessions, At::Call, |_| Ok(Next::Close), tools).well()
}

fn tool(name: &str, description: &str) -> String {
    json!({ "name": name, "description": description, "inputSchema": { "type": "object" } })
        .to_string()
}

fn before(server: &Faulty, good: &HttpUpstream, limits: Value) -> Gateway {
    let gateway = Gateway::with(json!({
        "mcp_servers": {
            "good": { "url": good.url(), "transport": "http" },
            "bad": server.config(15_000),
        },
        "limits": limits,
    }))
    .start();
    gateway.wait_until_well(&["good", "bad"]);
    gateway
}

fn listed_of_bad(gateway: &Gateway) -> usize {
    let entry = entry_of(&gateway.status_of("bad")["tools"], "bad");
    assert!(entry.is_none(), "{entry:?}");
    let list = gateway.list();
    names_in(&list).iter().filter(|name| name.starts_with("bad-")).count()
}

#[test]
fn of_a_hundred_thousand_tools_the_rest_is_left_out_and_status_says_so() {
    let _heavy = crate::support::heavy();
    let tools: Vec<String> = (0..100_000).map(|n| tool(&format!("tool_{n}"), "")).collect();
    let (good, server) = (HttpUpstream::start(), with_tools(format!("[{}]", tools.join(","))));
    let gateway = before(&server, &good, json!({}));
    assert_eq!(listed_of_bad(&gateway), 20_000);
    assert_eq!(gateway.status_of("bad")["left_out"], 80_000);
    assert_eq!(gateway.call_text("bad-tool_19999", &json!({})), "well");
    gateway.call("bad-tool_20000", &json!({})).expect_error(404);
    assert_eq!(gateway.call_text("good-echo", &json!({"message": "m"})), "m");
    assert!(gateway.peak_rss_bytes() < 400 * 1024 * 1024, "{}", gateway.peak_rss_bytes());
}

#[test]
fn of_large_descriptions_as_many_are_kept_as_the_bound_lets() {
    let _heavy = crate::support::heavy();
    let heavy = "d".repeat(250 * 1024);
    let tools: Vec<String> = (0..6).map(|n| tool(&format!("tool_{n}"), &heavy)).collect();
    let (good, server) = (HttpUpstream::start(), with_tools(format!("[{}]", tools.join(","))));
    let gateway = before(&server, &good, json!({}));
    assert_eq!(listed_of_bad(&gateway), 6);
    assert_eq!(gateway.call_text("bad-tool_5", &json!({})), "well");
    drop(gateway);
    // The same, where one list may not have so much.
    let limits = json!({ "upstream_result_bytes": 1024 * 1024 });
    let gateway = Gateway::with(json!({
        "mcp_servers": {
            "good": { "url": good.url(), "transport": "http" },
            "bad": server.config(15_000),
        },
        "limits": limits,
    }))
    .start();
    gateway.wait_until_well(&["good"]);
    let failure = crate::support::wait_for("the failure is told", || {
        Some(gateway.status_of("bad")["last_failure"].clone()).filter(Value::is_object)
    });
    assert_eq!(failure["stage"], "list", "{failure}");
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains("limits.upstream_result_bytes"), "{message}");
    assert_eq!(gateway.call_text("good-echo", &json!({"message": "m"})), "m");
}

/// Control characters and what turns the direction of text, in C0, DEL, C1 and Unicode's own.
const UNUSABLE: [&str; 8] = [
    "bell\u{7}",
    "esc\u{1b}[2J",
    "line\r\nX-Injected: yes",
    "nul\0",
    "del\u{7f}",
    "csi\u{9b}2J",
    "sep\u{2028}",
    "rtl\u{202e}gnp.exe",
];
/// Names of other scripts, and what only looks like one of another server.
const USABLE: [&str; 5] =
    ["\u{435}cho", "na\u{efff}me", "t\u{f6}\u{f6}l", "\u{1f980}", "a b/c?d#e%00"];

#[test]
fn items_beyond_the_bytes_of_one_list_are_left_out_and_what_is_held_is_told() {
    let _heavy = crate::support::heavy();
    const ITEM: usize = 200 * 1024;
    const BYTES_MAX: usize = 16 * 1024 * 1024;
    let heavy = "d".repeat(ITEM);
    let tools: Vec<String> = (0..100).map(|n| tool(&format!("tool_{n}"), &heavy)).collect();
    let n_kept = BYTES_MAX / tools[50].len();
    let (good, server) = (HttpUpstream::start(), with_tools(format!("[{}]", tools.join(","))));
    let gateway = before(&server, &good, json!({}));
    assert_eq!(gateway.status_of("bad")["left_out"], 100 - n_kept);
    assert_eq!(gateway.call_text(&format!("bad-tool_{}", n_kept - 1), &json!({})), "well");
    gateway.call(&format!("bad-tool_{n_kept}"), &json!({})).expect_error(404);
    let held = &gateway.get("/status").expect(200).json()["limits"]["lists_bytes"];
    // Each as the server wrote it and as it is offered.
    assert!(held["used"].as_u64().unwrap() > 2 * u64::try_from(n_kept * ITEM).unwrap());
    assert!(held["used"].as_u64() < held["max"].as_u64(), "{held}");
}

#[test]
fn a_name_that_cannot_be_shown_is_left_out_and_others_pass_as_they_are() {
    let names = UNUSABLE.iter().chain(&USABLE).chain(["", "plain"].iter());
    let tools: Vec<String> = names.map(|name| tool(name, "\u{1b}[31m\u{202e}red")).collect();
    for speech in [Speech::Sessions, Speech::Modern] {
        let (good, server) = (
            HttpUpstream::start(),
            Faulty::with_tools(
                speech,
                At::Contact,
                |_| Ok(Next::Close),
                format!("[{}]", tools.join(",")),
            )
            .well(),
        );
        let gateway = before(&server, &good, json!({}));
        assert_eq!(listed_of_bad(&gateway), USABLE.len() + 1);
        assert_eq!(gateway.status_of("bad")["left_out"], UNUSABLE.len() + 1);
        for name in USABLE {
            // In the modern revision the name is a header, too.
            assert_eq!(gateway.call_text(&format!("bad-{name}"), &json!({})), "well", "{name}");
        }
        for name in UNUSABLE {
            let unknown = gateway.call(&format!("bad-{name}"), &json!({}));
            let error = unknown.expect_error(404);
            assert!(
                !error["message"].as_str().unwrap().chars().any(char::is_control),
                "{error}"
            );
        }
        // A lookalike is another name, not the one that it looks like.
        gateway.call("bad-echo", &json!({})).expect_error(404);
        let stderr = gateway.stop().stderr;
        let is_raw =
            |c: char| (c.is_control() && c != '\n') || c == '\u{202e}' || c == '\u{2028}';
        assert!(!stderr.chars().any(is_raw), "{stderr:?}");
        assert!(stderr.contains("left out"), "{stderr}");
    }
}

#[test]
fn what_is_no_list_is_told() {
    for tools in ["{}", "7", "[[[]]]", "[1,null,\"x\",{\"name\":7},{\"name\":null}]", "null"] {
        let (good, server) = (HttpUpstream::start(), with_tools(tools.to_owned()));
        let gateway = Gateway::with(json!({ "mcp_servers": {
            "good": { "url": good.url(), "transport": "http" },
            "bad": server.config(5000),
        }}))
        .start();
        gateway.wait_until_well(&["good"]);
        crate::support::wait_until(tools, || {
            let status = gateway.status_of("bad");
            status["last_failure"]["stage"] == "list" || status["left_out"].as_u64() > Some(0)
        });
        assert_eq!(gateway.call_text("good-echo", &json!({"message": "m"})), "m");
    }
}
