//! The specification's own example messages.

use serde_json::{Value, json};

use super::published::{Checked, are_here, examples};
use crate::support::gateway::Gateway;
use crate::support::modern::ModernClient;
use crate::support::script::MODERN;
use crate::support::upstream_modern::ModernUpstream;

/// The schemas are read as they are meant: their own examples hold.
#[test]
fn every_example_holds() {
    if !are_here() {
        return;
    }
    let mut checked = Checked::against(MODERN);
    let examples = examples(MODERN);
    for (definition, _, example) in &examples {
        checked.holds(definition, example);
    }
    checked.done(&[]);
    assert!(examples.len() > 50, "{}", examples.len());
}

/// What is not as it should be is noticed, wherever it is.
#[test]
fn a_spoilt_message_does_not_hold() {
    if !are_here() {
        return;
    }
    let examples = examples(MODERN);
    for (definition, member, spoilt) in [
        (
            "ListToolsRequest",
            "/params/_meta/io.modelcontextprotocol~1protocolVersion",
            json!(7),
        ),
        ("ListToolsResultResponse", "/result/ttlMs", json!("long")),
        ("ListToolsResultResponse", "/result/cacheScope", json!("nobody")),
        ("ListToolsResultResponse", "/result/tools/0/inputSchema", json!("any")),
        ("HeaderMismatchError", "/error/code", json!(-32000)),
        ("UnsupportedProtocolVersionError", "/error/data", json!({ "requested": "x" })),
        ("SubscriptionsAcknowledgedNotification", "/params/notifications", json!([])),
        ("ProgressNotification", "/params/progress", json!("much")),
    ] {
        let example = examples.iter().find(|(name, ..)| name == definition).unwrap();
        let mut message = example.2.clone();
        *message.pointer_mut(member).expect(member) = spoilt;
        let mut checked = Checked::against(MODERN);
        checked.holds(definition, &message);
        assert_eq!(checked.n_violations(), 1, "{definition}: {member}");
    }
}

/// A server that has what the examples ask for.
fn upstream() -> ModernUpstream {
    let upstream = ModernUpstream::start();
    upstream.add_tool("get_weather");
    upstream.set_prompts(&["code_review"]);
    upstream.set_resources(&["file:///project/src/main.rs", "file:///project/config.json"]);
    upstream
}

/// Every example that is a client's request is taken as such by the gateway: answered by it, or
/// by the server that it was handed to, byte for byte in what the client has said.
#[test]
fn every_request_among_them_is_served() {
    if !are_here() {
        return;
    }
    let upstream = upstream();
    let gateway = Gateway::before(&upstream.url());
    let client = ModernClient::to(&gateway);
    let mut served = Vec::new();
    for (definition, file, example) in examples(MODERN) {
        // What a server asks stands in results and has no envelope.
        if !definition.ends_with("Request") || example.get("jsonrpc").is_none() {
            continue;
        }
        let method = example["method"].as_str().unwrap();
        let request = client.post_request(&example);
        let first = match method {
            "subscriptions/listen" => {
                let mut connection = crate::support::http::Connection::open(gateway.address());
                connection.send(&request);
                connection.into_events().expect_open().next_message()
            }
            _ => client.send(&request).message,
        };
        let passes = matches!(
            method,
            "tools/call" | "prompts/get" | "resources/read" | "completion/complete"
        );
        if passes {
            let sent = upstream.requests_of(method).pop().unwrap_or_else(|| panic!("{first}"));
            check_same(&sent.message["params"], &example["params"]);
        } else {
            assert!(first.get("error").is_none(), "{file}: {first}");
        }
        served.push(method.to_owned());
    }
    served.sort();
    assert_eq!(
        served,
        [
            "completion/complete",
            "prompts/get",
            "prompts/list",
            "resources/list",
            "resources/read",
            "resources/templates/list",
            "server/discover",
            "subscriptions/listen",
            "tools/call",
            "tools/list",
        ]
    );
}

/// The parameters are the client's.
#[track_caller]
fn check_same(sent: &Value, example: &Value) {
    let (mut sent, mut example) = (sent.clone(), example.clone());
    sent["_meta"] = json!(null);
    example["_meta"] = json!(null);
    assert_eq!(sent, example);
}
