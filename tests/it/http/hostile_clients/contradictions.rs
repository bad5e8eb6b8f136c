//! Requests that say two things at once: a header that stands twice, headers of one era around a
//! body of the other, arguments with two values for what a header mirrors.

use serde_json::{Value, json};

use super::{Rig, WANTED};
use crate::support::http::{Request, Response};
use crate::support::mcp::{LATEST, McpClient};
use crate::support::modern::ModernClient;
use crate::support::script::MODERN;

const HEADER_MISMATCH: i64 = -32020;

#[track_caller]
fn refused(answer: Response, code: i64) {
    let answer = answer.expect(400);
    assert_eq!(answer.json()["error"]["code"], code, "{answer}");
}

fn modern_call(modern: &ModernClient, arguments: &Value) -> Value {
    let params = json!({ "name": WANTED, "arguments": arguments });
    modern.message(&modern.fresh_id(), "tools/call", &params)
}

#[test]
fn a_header_that_may_stand_once_is_refused_when_it_stands_twice() {
    let rig = Rig::with(&json!({}));
    let legacy = McpClient::open(rig.gateway.address());
    let modern = ModernClient::to(&rig.gateway);
    let call = || modern.post_request(&modern_call(&modern, &json!({})));
    rig.gateway.send(&call()).expect(200);
    let before = rig.n_wanted();
    // The same value twice is no better: what stands between may see another one.
    for (name, value, code) in [
        ("Mcp-Method", "tools/list", HEADER_MISMATCH),
        ("Mcp-Method", "tools/call", HEADER_MISMATCH),
        ("mcp-name", "other", HEADER_MISMATCH),
        ("MCP-Protocol-Version", LATEST, HEADER_MISMATCH),
        ("Content-Type", "application/json", -32000),
    ] {
        refused(rig.gateway.send(&call().header(name, value)), code);
    }
    let ping = || legacy.post_request(r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#);
    rig.gateway.send(&ping()).expect(200);
    for (name, value) in [("Mcp-Session-Id", "x"), ("Mcp-Session-Id", legacy.session())] {
        refused(rig.gateway.send(&ping().header(name, value)), -32000);
        refused(rig.gateway.send(&legacy.listen_request().header(name, value)), -32000);
    }
    let origin = "http://localhost";
    let twice = Request::get("/healthz").header("Origin", origin);
    let twice = twice.header("Origin", "http://evil.example");
    assert!([400, 403].contains(&rig.gateway.send(&twice).status()));
    assert_eq!(rig.n_wanted(), before);
    assert!(rig.rejected("bad_request") >= 9);
    // A list may come in lines.
    let narrowed = Request::get("/mcp/tools/list").header("x-mcp-servers", "nobody");
    let narrowed = narrowed.header("x-mcp-servers", "s");
    let list = rig.gateway.send(&narrowed).expect(200).json();
    assert!(!list["tools"].as_array().unwrap().is_empty(), "{list}");
}

#[test]
fn a_stateless_body_in_the_headers_of_a_session_is_a_mismatch() {
    // Without tolerance; with it, the body decides (`quirks`).
    let rig = Rig::configured(json!({ "strict_clients": true }));
    let modern = ModernClient::to(&rig.gateway);
    let body = modern_call(&modern, &json!({})).to_string();
    let before = rig.n_wanted();
    for version in [Some(LATEST), Some("2024-11-05"), None] {
        let request = modern.bare_request(&body).header("Mcp-Session-Id", "no-session-of-ours");
        let request = request.header("Mcp-Method", "tools/call").header("Mcp-Name", WANTED);
        let request = match version {
            Some(version) => request.header("MCP-Protocol-Version", version),
            None => request,
        };
        refused(rig.gateway.send(&request), HEADER_MISMATCH);
    }
    // One that says the same in both is served, and the session is nothing to it.
    let request = modern.post_request(&modern_call(&modern, &json!({})));
    let request = request.header("Mcp-Session-Id", "no-session-of-ours");
    rig.gateway.send(&request).expect(200);
    assert_eq!(rig.n_wanted() - before, 1);
    // A request of a session that has ended is still that.
    let ping = Request::post_text("/mcp", r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#)
        .header("Accept", "application/json, text/event-stream")
        .header("Mcp-Session-Id", "no-session-of-ours")
        .header("MCP-Protocol-Version", LATEST);
    rig.gateway.send(&ping).expect(404);
}

#[test]
fn a_mirrored_parameter_has_one_value() {
    let rig = Rig::with(&json!({}));
    let schema = json!({ "type": "object", "properties": {
        "region": { "type": "string", "x-mcp-header": "Region" },
    }});
    let tool = json!({ "name": "mirrored", "inputSchema": schema }).to_string();
    rig.upstream.add_text("tools", "mirrored", &tool);
    rig.upstream.announce_change();
    rig.gateway.wait_for_tool("mirrored");
    let modern = ModernClient::to(&rig.gateway);
    let send = |arguments: &str, regions: &[&str]| {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"mirrored",
            "arguments":{arguments},"_meta":{}}}}}"#,
            modern.message(&json!(1), "tools/call", &Value::Null)["params"]["_meta"]
        );
        let mut request = modern
            .bare_request(&body)
            .header("MCP-Protocol-Version", MODERN)
            .header("Mcp-Method", "tools/call")
            .header("Mcp-Name", "mirrored");
        for region in regions {
            request = request.header("Mcp-Param-Region", region);
        }
        rig.gateway.send(&request)
    };
    send(r#"{"region":"eu"}"#, &["eu"]).expect(200);
    let n_calls = || rig.upstream.seen().n_calls("mirrored");
    let before = n_calls();
    for (arguments, regions) in [
        (r#"{"region":"us"}"#, &["eu"][..]),
        (r#"{"region":"us","region":"eu"}"#, &["eu"]),
        (r#"{"region":"eu","region":"us"}"#, &["eu"]),
        (r#"{"region":"eu"}"#, &["eu", "us"]),
        // What cannot be read as a whole is no reason not to look.
        (r#"{"region":"us","big":1e999999}"#, &[]),
    ] {
        refused(send(arguments, regions), HEADER_MISMATCH);
    }
    assert_eq!(n_calls(), before);
}
