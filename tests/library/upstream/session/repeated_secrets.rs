//! What a server repeats of our secrets in its errors and in what it says of itself, through the
//! whole gateway: to REST and MCP clients, and in `/status`.

use serde_json::{Value, json};

use crate::support::gateway::Gateway;
use crate::upstream::rig::*;

/// What the server below puts into all that it says; the second is in its JSON escaped.
const TOKEN: &str = "hush-token";
const KEY: &str = "hush\"key";

/// Repeats the credentials in its introduction and in the error of every call.
fn talkative() -> Server {
    Server::start(|seen| {
        let token = seen.header("authorization").unwrap_or_default();
        let key = seen.header("x-key").unwrap_or_default();
        match (seen.method.as_str(), seen.rpc().as_str()) {
            ("POST", "initialize") => {
                let result = json!({
                    "protocolVersion": "2025-11-25",
                    "capabilities": { "tools": {} },
                    "serverInfo": { "name": format!("for {token}"), "version": key },
                    "instructions": format!("Say {key} and {token}, quoted \u{e9}."),
                });
                Reply::json(seen.result(&result.to_string()))
            }
            ("POST", "tools/call") => {
                let message = format!("bad {token} \u{1b}[31m\r\n{key} {}", "x".repeat(9000));
                let data = json!({ "said": [token, 1.50], key: { "deep": key } });
                let error = json!({ "code": -32001, "message": message, "data": data });
                let id = seen.id();
                Reply::json(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#))
            }
            _ => well(seen),
        }
    })
}

#[track_caller]
fn expect_scrubbed(what: &str, told: &Value) {
    let text = told.to_string();
    assert!(text.contains("[secret]"), "{what}: {text}");
    assert!(!text.contains("hush"), "{what}: {text}");
}

#[test]
fn what_a_server_repeats_in_errors_and_of_itself_is_in_no_answer() {
    let server = talkative();
    let gateway = Gateway::started(json!({ "mcp_servers": { "s": {
        "url": format!("http://{}/mcp", server.address),
        "transport": "http",
        "headers": { "Authorization": format!("Bearer {TOKEN}"), "X-Key": KEY },
    } } }));
    let rest = gateway.call("echo", &json!({})).expect_error(502);
    assert_eq!(rest["code"], "upstream_error", "{rest}");
    expect_scrubbed("REST", &rest);
    let message = rest["message"].as_str().unwrap();
    assert!(!message.contains(char::is_control), "{message:?}");
    assert!(message.chars().count() < 5000 && message.ends_with('…'), "{message:?}");

    let answer = gateway.mcp().request("tools/call", &json!({ "name": "echo" }));
    let error = &answer["error"];
    expect_scrubbed("MCP's message", &error["message"]);
    expect_scrubbed("MCP's data", &error["data"]);
    assert_eq!(error["code"], -32001, "{error}");
    assert_eq!(error["data"]["[secret]"]["deep"], "[secret]", "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("\u{1b}[31m\r\n"), "whole to MCP clients: {message:?}");
    assert!(message.ends_with(&"x".repeat(9000)), "{message:?}");

    let status = gateway.status_of("s");
    expect_scrubbed("the name", &status["server_info"]["name"]);
    expect_scrubbed("the version", &status["server_info"]["version"]);
    let introduced = crate::support::mcp::McpClient::new(gateway.address()).initialize().json();
    let instructions = &introduced["result"]["instructions"];
    expect_scrubbed("the instructions", instructions);
    assert!(instructions.as_str().unwrap().contains("quoted \u{e9}."), "{instructions}");
    assert!(!gateway.stop().stderr.contains("hush"));
}

#[test]
fn what_a_child_repeats_of_its_environment_in_an_error_is_in_no_answer() {
    let script = r#"
        while read -r line; do
            id=${line#*\"id\":}; id=${id%%,*}; id=${id%%\}*}
            say() { printf '{"jsonrpc":"2.0","id":%s,%s}\n' "$id" "$1"; }
            case "$line" in
            *\"initialize\"*) say '"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"t","version":"1"}}';;
            *\"tools/list\"*) say '"result":{"tools":[{"name":"echo","inputSchema":{"type":"object"}}]}';;
            *\"tools/call\"*) say "\"error\":{\"code\":-1,\"message\":\"not with $TOKEN\",\"data\":\"$TOKEN\"}";;
            *\"id\"*) say '"error":{"code":-32601,"message":"no"}';;
            esac
        done"#;
    // A dollar is doubled in a configuration.
    let script = script.replace('$', "$$");
    let gateway = Gateway::started(json!({ "mcp_servers": { "s": {
        "command": "sh", "args": ["-c", script], "env": { "TOKEN": "hush-in-env" },
    } } }));
    let rest = gateway.call("echo", &json!({})).expect_error(502);
    assert!(rest["message"].as_str().unwrap().ends_with("not with [secret]"), "{rest}");
    assert_eq!(rest["data"], "[secret]", "{rest}");
    let answer = gateway.mcp().request("tools/call", &json!({ "name": "echo" }));
    assert_eq!(answer["error"]["message"], "not with [secret]", "{answer}");
    assert_eq!(answer["error"]["data"], "[secret]", "{answer}");
}
