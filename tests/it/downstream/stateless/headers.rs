//! Parameters that tools want mirrored into headers: checked towards clients, written towards
//! servers, and tools whose annotations are not as they must be.

use serde_json::{Value, json};

use super::text_of;
use crate::support::behind::{Behind, Era, Transport};
use crate::support::duplex::{DOORS, Duplex};
use crate::support::gateway::Gateway;
use crate::support::modern::ModernClient;
use crate::support::script::Script;
use crate::support::upstream_modern::ModernUpstream;

fn tool(name: &str, properties: &Value) -> String {
    let schema = json!({ "type": "object", "properties": properties });
    json!({ "name": name, "inputSchema": schema }).to_string()
}

fn mirroring() -> Value {
    json!({
        "region": { "type": "string", "x-mcp-header": "Region" },
        "count": { "type": "integer", "x-mcp-header": "Count" },
        "dry": { "type": "boolean", "x-mcp-header": "Dry" },
        "inner": { "type": "object", "properties": {
            "zone": { "type": "string", "x-mcp-header": "Zone" },
        }},
        "query": { "type": "string" },
    })
}

/// Tools that no client of the revision may be offered.
const INVALID: [&str; 6] =
    ["bad_empty", "bad_space", "bad_number", "bad_twice", "bad_items", "bad_object"];

fn add_tools(script: &Script) {
    let string = |header: &str| json!({ "type": "string", "x-mcp-header": header });
    let add = |name: &str, properties: Value| {
        script.add_text("tools", name, &tool(name, &properties));
    };
    add("query", mirroring());
    add("bad_empty", json!({ "a": string("") }));
    add("bad_space", json!({ "a": string("My Region") }));
    add("bad_number", json!({ "a": { "type": "number", "x-mcp-header": "A" } }));
    add("bad_twice", json!({ "a": string("Same"), "b": string("same") }));
    add("bad_items", json!({ "a": { "type": "array", "items": string("A") } }));
    add("bad_object", json!({ "a": { "type": "object", "x-mcp-header": "A" } }));
}

/// Servers over HTTP, where the test can give them tools of its own.
fn over_http() -> Vec<(Era, Behind, Gateway)> {
    [
        (Era::Legacy, Transport::Http),
        (Era::Legacy, Transport::Sse),
        (Era::Modern, Transport::Http),
    ]
    .into_iter()
    .map(|(era, transport)| {
        let behind = Behind::of(era, transport, "scripted");
        add_tools(behind.script().unwrap());
        let gateway = behind.gateway(&json!({}));
        (era, behind, gateway)
    })
    .collect()
}

#[test]
fn a_client_s_headers_must_say_what_its_arguments_say() {
    for (era, _behind, gateway) in over_http() {
        let client = ModernClient::to(&gateway);
        let status = |arguments: &Value, headers: &[(&str, &str)]| {
            let params = json!({ "name": "query", "arguments": arguments });
            let message = client.message(&json!(1), "tools/call", &params);
            let mut request = client.post_request(&message);
            for (name, value) in headers {
                request = request.header(&format!("Mcp-Param-{name}"), value);
            }
            let answered = client.send(&request);
            if answered.status() != 200 {
                answered.refused(400, -32020);
            }
            answered.status()
        };
        let region = json!({ "region": "eu", "query": "q" });
        let count = json!({ "count": 42 });
        for (arguments, headers, wanted) in [
            (&region, vec![("Region", "eu")], 200),
            (&region, vec![("region", "eu")], 200),
            (&region, vec![("Region", "=?base64?ZXU=?=")], 200),
            (&region, vec![], 400),
            (&region, vec![("Region", "us")], 400),
            (&region, vec![("Region", "EU")], 400),
            (&region, vec![("Region", "=?base64?dXM=?=")], 400),
            (&region, vec![("Region", "=?base64?*?=")], 400),
            // What nobody asked for is nobody's business.
            (&region, vec![("Region", "eu"), ("Other", "x")], 200),
            (&count, vec![("Count", "42")], 200),
            (&count, vec![("Count", "42.0")], 200),
            (&count, vec![("Count", "43")], 400),
            (&count, vec![("Count", "forty-two")], 400),
            (&json!({ "count": 42.0 }), vec![("Count", "42")], 200),
            (&json!({ "dry": true }), vec![("Dry", "true")], 200),
            (&json!({ "dry": true }), vec![("Dry", "false")], 400),
            (&json!({ "inner": { "zone": "z" } }), vec![("Zone", "z")], 200),
            (&json!({ "inner": { "zone": "z" } }), vec![], 400),
            // Not there, or null: no header.
            (&json!({ "region": null, "query": "q" }), vec![], 200),
            (&json!({}), vec![], 200),
            (
                &json!({ "region": " padded " }),
                vec![("Region", "=?base64?IHBhZGRlZCA=?=")],
                200,
            ),
            (
                &json!({ "region": "Hello, \u{4e16}\u{754c}" }),
                vec![("Region", "=?base64?SGVsbG8sIOS4lueVjA==?=")],
                200,
            ),
        ] {
            if era == Era::Modern && arguments["count"].is_f64() {
                // The scripted server compares texts.
                continue;
            }
            assert_eq!(status(arguments, &headers), wanted, "{era:?} {arguments} {headers:?}");
        }
    }
}

#[test]
fn a_modern_server_gets_its_headers_whoever_calls() {
    let upstream = ModernUpstream::start();
    add_tools(&upstream);
    let gateway = Gateway::before(&upstream.url());
    let arguments =
        json!({ "region": "\u{fc}ber", "count": -7, "dry": false, "inner": { "zone": " z " } });
    let headers = [
        ("Mcp-Param-Region", "=?base64?w7xiZXI=?="),
        ("Mcp-Param-Count", "-7"),
        ("Mcp-Param-Dry", "false"),
        ("Mcp-Param-Zone", "=?base64?IHog?="),
    ];
    for door in DOORS {
        let client = Duplex::to(&gateway, door).open();
        assert_eq!(text_of(&client.call("query", &arguments)), "query", "{door:?}");
    }
    assert_eq!(gateway.call_text("query", &arguments), "query");
    let calls = upstream.requests_of("tools/call");
    assert_eq!(calls.len(), 3);
    for call in calls {
        for (name, value) in headers {
            assert_eq!(call.head.header(name), Some(value));
        }
        assert_eq!(call.head.header("Mcp-Name"), Some("query"));
        assert_eq!(call.head.header("Mcp-Method"), Some("tools/call"));
    }
    let client = gateway.mcp();
    client.call("query", &json!({ "region": null, "query": "q" }));
    let call = upstream.requests_of("tools/call").pop().unwrap();
    let mirrored = call
        .head
        .headers
        .iter()
        .filter(|(name, _)| name.to_ascii_lowercase().starts_with("mcp-param-"));
    assert_eq!(mirrored.count(), 0, "{:?}", call.head);
}

#[test]
fn tools_with_wrong_annotations_are_for_legacy_clients_alone() {
    for (era, behind, gateway) in over_http() {
        let modern = ModernClient::to(&gateway).tool_names();
        assert!(modern.contains(&"query".to_owned()), "{era:?}");
        for door in DOORS {
            let client = Duplex::to(&gateway, door).open();
            let legacy = client.names("tools/list", "tools", "name");
            for name in INVALID {
                assert!(!modern.contains(&name.to_owned()), "{era:?}: {name}");
                assert!(legacy.contains(&name.to_owned()), "{era:?} {door:?}: {name}");
            }
            assert_eq!(legacy.len(), modern.len() + INVALID.len(), "{era:?}");
        }
        // The annotations themselves pass as they are.
        let tools = ModernClient::to(&gateway).list("tools/list", "tools");
        let query = tools.iter().find(|tool| tool["name"] == "query").unwrap();
        assert_eq!(query["inputSchema"]["properties"], mirroring());
        let log = gateway.stop().stderr;
        for name in INVALID {
            assert!(log.contains(name), "{name} is not in the log: {log}");
        }
        drop(behind);
    }
}
