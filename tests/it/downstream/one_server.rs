//! What a client gets of the only server behind an endpoint: how that is shown to people, and in
//! which words it refuses.

use serde_json::{Value, json};

use crate::support::duplex::{DOORS, Door, Duplex};
use crate::support::gateway::Gateway;
use crate::support::listener::{Incoming, Listener};
use crate::support::modern::ModernClient;
use crate::support::script::{MODERN, meta};
use crate::support::upstream_http::{HttpUpstream, respond};

const MISSING: &str = "Missing required arguments: {'name'}";

fn shown() -> Value {
    json!({
        "name": "both", "version": "9", "title": "Both Eras", "description": "knows two",
        "websiteUrl": "https://example.org/both",
        "icons": [{ "src": "https://example.org/i.png", "mimeType": "image/png" }],
        "x-vendor": 1,
    })
}

/// A server of both eras that says what went wrong in sessions alone, as the Python SDK does.
fn of_both_eras() -> Listener {
    let listener = Listener::absent(|request: &Incoming, out| {
        let message: Value = serde_json::from_str(&request.body).unwrap_or_default();
        let Some(id) = message.get("id").filter(|_| request.method == "POST") else {
            let status = if request.method == "POST" { "202 Accepted" } else { "405 No" };
            return respond(out, status, &[], "");
        };
        let is_modern = message["params"]["_meta"].get(meta("protocolVersion")).is_some();
        let prompts = json!([{ "name": "hello", "arguments": [{ "name": "name" }] }]);
        let mut answer = match message["method"].as_str().unwrap() {
            "initialize" => json!({ "result": {
                "protocolVersion": "2025-11-25", "capabilities": { "prompts": {} },
                "serverInfo": shown(),
            } }),
            "server/discover" => json!({ "result": {
                "supportedVersions": [MODERN], "capabilities": { "prompts": {} },
                "_meta": { meta("serverInfo"): shown() },
            } }),
            "prompts/list" => json!({ "result": { "prompts": prompts } }),
            "prompts/get" if is_modern => {
                json!({ "error": { "code": -32603, "message": "Internal server error" } })
            }
            "prompts/get" => json!({ "error": { "code": 0, "message": MISSING } }),
            _ => json!({ "error": { "code": -32601, "message": "Method not found" } }),
        };
        if is_modern && answer.get("result").is_some() {
            answer["result"]["resultType"] = json!("complete");
            answer["result"]["ttlMs"] = json!(0);
            answer["result"]["cacheScope"] = json!("private");
        }
        (answer["jsonrpc"], answer["id"]) = (json!("2.0"), id.clone());
        let headers = [("Content-Type", "application/json"), ("Mcp-Session-Id", "one")];
        let n = if is_modern { 1 } else { 2 };
        respond(out, "200 OK", &headers[..n], &answer.to_string())
    });
    listener.start();
    listener
}

fn behind(listener: &Listener) -> Value {
    json!({ "url": format!("http://127.0.0.1:{}/mcp", listener.port()), "transport": "http" })
}

#[test]
fn a_server_of_both_eras_refuses_each_client_in_its_own_words() {
    let server = of_both_eras();
    let gateway = Gateway::started(json!({ "mcp_servers": { "s": behind(&server) } }));
    gateway.wait_until_well(&["s"]);
    let get = json!({ "name": "hello" });
    for door in DOORS {
        let plain = Duplex::to(&gateway, door).open();
        let asked = Duplex::to(&gateway, door).declaring(json!({ "roots": {} })).open();
        for client in [plain, asked] {
            let error = client.refused("prompts/get", &get);
            assert_eq!(error, json!({ "code": 0, "message": MISSING }), "{door:?}");
        }
    }
    let error = &ModernClient::to(&gateway).request("prompts/get", &get).message["error"];
    assert_eq!(error["message"], "Internal server error");
}

#[test]
fn the_only_server_in_scope_is_shown_as_it_wants_to_be() {
    let server = of_both_eras();
    let other = HttpUpstream::with_tools(&["echo"]);
    let gateway = Gateway::started(json!({ "mcp_servers": {
        "s": behind(&server), "t": { "url": other.url(), "transport": "http" },
    } }));
    gateway.wait_until_well(&["s", "t"]);
    let at = |path: &str, revision: &str| {
        let client = Duplex::to(&gateway, Door::Streamable).at(path).speaking(revision).open();
        client.initialized()["serverInfo"].clone()
    };
    let (all, version) = (at("/mcp", "2025-11-25"), crate::support::program::version());
    assert_eq!(all, json!({ "name": "trunkline", "version": version }));
    assert_eq!(at("/mcp/s", "2025-03-26"), all);
    let mut titled = all.clone();
    titled["title"] = json!("Both Eras");
    assert_eq!(at("/mcp/s", "2025-06-18"), titled);
    let mut whole = titled;
    for key in ["description", "websiteUrl", "icons"] {
        whole[key] = shown()[key].clone();
    }
    assert_eq!(at("/mcp/s", "2025-11-25"), whole);
    let info = |path: &str| {
        let found = ModernClient::to(&gateway).at(path).result("server/discover", &json!({}));
        found["_meta"][meta("serverInfo")].clone()
    };
    assert_eq!((info("/mcp/s"), info("/mcp")), (whole, all));
}
