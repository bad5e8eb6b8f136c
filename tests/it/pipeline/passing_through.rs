//! What passes through is not rebuilt: keys keep their order, numbers their spelling, and what
//! nobody here knows stays.

use serde_json::{Value, json};

use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request};
use crate::support::mcp::{LATEST, request_message};
use crate::support::mcp_sse::SseClient;
use crate::support::script::{RICH_RESULT, RICH_TOOL, RPC_ERROR};
use crate::support::upstream_http::{Answers, HttpUpstream};
use crate::support::upstream_sse::SseUpstream;

/// Arguments in odd spellings, without white space.
const ARGUMENTS: &str = r#"{"zulu":1.50,"alpha":{"z":1E2,"a":[0.10,-0.0,12345678901234567890123]},"text":"caf\u00e9 \/ \ud83d\ude00 \u2028","x-unknown":null,"":[],"beta":{}}"#;

/// The JSON without white space between its parts.
fn packed(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for c in json.chars() {
        if !in_string && c.is_ascii_whitespace() {
            continue;
        }
        out.push(c);
        if in_string {
            in_string = escaped || c != '"';
            escaped = c == '\\' && !escaped;
        } else {
            in_string = c == '"';
        }
    }
    out
}

#[track_caller]
fn expect_inside(whole: &str, part: &str) {
    let whole = packed(whole);
    assert!(whole.contains(part), "\n{part}\nis not in\n{whole}");
}

#[test]
fn results_are_untouched_at_every_door() {
    let upstream = HttpUpstream::start();
    for answers in [Answers::Json, Answers::PrettyJson, Answers::EventStream] {
        upstream.answer_with(answers);
        let gateway = Gateway::before(&upstream.url());
        let rest = gateway.call("rich", &json!({})).expect(200);
        assert_eq!(packed(rest.text()), RICH_RESULT, "{answers:?}");
        let client = gateway.mcp();
        let call = request_message(&json!(1), "tools/call", &json!({"name": "rich"}));
        let streamed = client.post(&call.to_string()).expect(200);
        expect_inside(streamed.text(), RICH_RESULT);
        // Of a revision that has all that is in the result.
        let mut old = SseClient::connect(gateway.address(), "/sse");
        old.initialize_speaking(LATEST);
        old.post(&call).expect(202);
        let event = loop {
            let event = old.stream.next();
            if event.json()["id"] == 1 && event.json()["result"]["content"].is_array() {
                break event;
            }
        };
        expect_inside(&event.data, RICH_RESULT);
    }
}

#[test]
fn results_of_older_servers_are_untouched_too() {
    let upstream = SseUpstream::start();
    let gateway = Gateway::started(
        json!({ "mcp_servers": { "s": { "url": upstream.url(), "transport": "sse" } } }),
    );
    let rest = gateway.call("rich", &json!({})).expect(200);
    assert_eq!(packed(rest.text()), RICH_RESULT);
}

#[test]
fn listed_tools_are_untouched_but_for_their_name() {
    let upstream = HttpUpstream::with_tools(&["rich", "echo"]);
    for answers in [Answers::Json, Answers::PrettyJson, Answers::EventStream] {
        upstream.answer_with(answers);
        for (prefix, name) in [("never", "rich"), ("always", "s-rich")] {
            let gateway = Gateway::started(json!({
                "prefix": prefix,
                "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
            }));
            let tool = RICH_TOOL.replace("\"name\":\"rich\"", &format!("\"name\":\"{name}\""));
            expect_inside(gateway.get("/mcp/tools/list").expect(200).text(), &tool);
            let list = request_message(&json!(1), "tools/list", &json!({}));
            let streamed = gateway.mcp().post(&list.to_string()).expect(200);
            expect_inside(streamed.text(), &tool);
        }
    }
}

#[test]
fn arguments_are_untouched_from_every_door() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let body = format!("{{ \"arguments\" : {ARGUMENTS} , \"name\":\"mirror\"}}");
    let answer = gateway.send(&Request::post_text("/mcp/tools/call", &body)).expect(200);
    assert_eq!(packed(&upstream.seen().last_arguments()), ARGUMENTS);
    expect_inside(answer.text(), ARGUMENTS);
    let client = gateway.mcp();
    let message = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":\
         {{\"arguments\":{ARGUMENTS},\"name\":\"mirror\",\"x-later\":{{\"b\":1.0,\"a\":2}}}}}}"
    );
    let answer = client.post(&message).expect(200);
    assert_eq!(packed(&upstream.seen().last_arguments()), ARGUMENTS);
    expect_inside(&upstream.seen().last_call, "\"x-later\":{\"b\":1.0,\"a\":2}");
    expect_inside(answer.text(), ARGUMENTS);
    let old = SseClient::open(gateway.address(), "/sse");
    let before = upstream.seen().n_calls("mirror");
    gateway.send(&Request::post_text(&old.endpoint, &message)).expect(202);
    upstream.wait_until("the call came", |seen| seen.n_calls("mirror") > before);
    assert_eq!(packed(&upstream.seen().last_arguments()), ARGUMENTS);
}

#[test]
fn meta_of_a_call_goes_on_upstream() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = gateway.mcp();
    let params = json!({
        "name": "echo", "_meta": { "example.org/trace": "t-1", "progressToken": "mine" },
    });
    client.result("tools/call", &params);
    let sent: Value = serde_json::from_str(&upstream.seen().last_call).unwrap();
    let meta = &sent["params"]["_meta"];
    assert_eq!(meta["example.org/trace"], "t-1", "{sent}");
    assert!(!meta["progressToken"].is_null(), "{sent}");
    assert_eq!(sent["params"]["name"], "echo", "{sent}");
}

#[test]
fn the_offered_name_is_turned_back_for_the_upstream() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(json!({
        "prefix": "always",
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }));
    gateway.mcp().call("s-echo", &json!({}));
    let sent: Value = serde_json::from_str(&upstream.seen().last_call).unwrap();
    assert_eq!(sent["params"]["name"], "echo", "{sent}");
}

#[test]
fn errors_of_an_upstream_are_untouched() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = gateway.mcp();
    let call = request_message(&json!("e"), "tools/call", &json!({"name": "rpc_error"}));
    let answer = client.post(&call.to_string()).expect(200);
    expect_inside(answer.text(), RPC_ERROR);
    assert_eq!(answer.message()["id"], "e");
}

#[test]
fn unicode_and_control_characters_survive() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    for text in ["\u{0}\u{1}\r\n\t", "\u{2028}\u{feff}", "😀é", "data: x\n\nevent: y", "\"\\/"]
    {
        let message = json!({ "message": text });
        assert_eq!(gateway.call_text("echo", &message), text);
        let result = gateway.mcp().call("echo", &message);
        assert_eq!(result["content"][0]["text"], text);
    }
}

/// The bytes of the large result, and how many of it may be held at once.
const BIG_BYTES: u64 = 50_000_000;
const BIG_LENGTH: usize = 50_000_000;
const COPIES_MAX: u64 = 3;

#[test]
fn a_large_result_passes_without_many_copies() {
    let _heavy = crate::support::heavy();
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let before = gateway.peak_rss_bytes();
    let arguments = json!({"megabytes": BIG_BYTES / 1_000_000});
    let rest = gateway.call("big", &arguments).expect(200);
    assert!(rest.body.len() > BIG_LENGTH);
    assert!(rest.text().ends_with("xxx\"}]}\n"));
    drop(rest);
    let held = gateway.peak_rss_bytes() - before;
    assert!(held < COPIES_MAX * BIG_BYTES, "REST: {held} bytes held for {BIG_BYTES}");
    let client = gateway.mcp();
    let params = json!({"name": "big", "arguments": arguments});
    let call = request_message(&json!(1), "tools/call", &params).to_string();
    let mut connection = Connection::open(gateway.address());
    let answer = connection.exchange(&client.post_request(&call)).expect(200);
    assert!(answer.body.len() > BIG_LENGTH);
    let held = gateway.peak_rss_bytes() - before;
    assert!(held < COPIES_MAX * BIG_BYTES, "Streamable HTTP: {held} bytes held");
}
