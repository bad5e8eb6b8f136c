//! `server/discover`, and how a client's era is told.

use serde_json::json;

use super::{UPSTREAMS, behind};
use crate::support::behind::{Behind, Transport};
use crate::support::duplex::{DOORS, Duplex};
use crate::support::mcp::McpClient;
use crate::support::modern::ModernClient;
use crate::support::script::meta;
use crate::support::upstream_http::HttpUpstream;

const REVISIONS: [&str; 5] =
    ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"];

#[test]
fn discovery_says_what_the_gateway_is_and_what_is_behind_it() {
    for (era, transport) in UPSTREAMS {
        let (_behind, gateway) = behind(era, transport, &json!({}));
        let found = ModernClient::to(&gateway).result("server/discover", &json!({}));
        let at = format!("{era:?} {transport:?}: {found}");
        let versions = found["supportedVersions"].as_array().unwrap();
        for revision in REVISIONS {
            assert!(versions.contains(&json!(revision)), "{revision} {at}");
        }
        assert_eq!(found["_meta"][meta("serverInfo")]["name"], "trunkline", "{at}");
        let capabilities = &found["capabilities"];
        for (capability, member) in [
            ("tools", "listChanged"),
            ("prompts", "listChanged"),
            ("resources", "listChanged"),
            ("resources", "subscribe"),
        ] {
            assert_eq!(capabilities[capability][member], true, "{capability} {member} {at}");
        }
        assert!(capabilities["completions"].is_object(), "{at}");
        assert!(capabilities["logging"].is_object(), "{at}");
        // Tasks of 2025-11-25 are not those of the extension.
        assert!(capabilities.get("tasks").is_none(), "{at}");
    }
}

#[test]
fn discovery_tells_no_more_than_there_is() {
    let upstream = HttpUpstream::with_tools(&["echo"]);
    upstream.set_instructions("Mind the gap.");
    let gateway = crate::support::gateway::Gateway::before(&upstream.url());
    let found = ModernClient::to(&gateway).result("server/discover", &json!({}));
    assert!(found["capabilities"]["tools"].is_object(), "{found}");
    for absent in ["prompts", "resources", "completions", "logging"] {
        assert!(found["capabilities"].get(absent).is_none(), "{absent}: {found}");
    }
    let instructions = found["instructions"].as_str().unwrap_or_default();
    assert!(instructions.contains("Mind the gap."), "{found}");
}

#[test]
fn a_server_s_own_path_is_discovered_alone() {
    let behind = Behind::start(Transport::Http);
    let other = HttpUpstream::with_tools(&["only"]);
    let gateway = crate::support::gateway::Gateway::started(json!({ "mcp_servers": {
        "s": behind.config(), "o": { "url": other.url(), "transport": "http" },
    }}));
    for path in ["/mcp/o", "/o/mcp"] {
        let client = ModernClient::to(&gateway).at(path);
        let found = client.result("server/discover", &json!({}));
        assert!(found["capabilities"].get("prompts").is_none(), "{path}: {found}");
        assert_eq!(client.tool_names(), ["only"], "{path}");
    }
    let narrowed = ModernClient::to(&gateway).header("x-mcp-servers", "o");
    assert_eq!(narrowed.tool_names().len(), 1);
}

#[test]
fn legacy_sessions_have_no_discovery() {
    let behind = Behind::start(Transport::Http);
    let gateway = behind.gateway(&json!({}));
    for door in DOORS {
        let client = Duplex::to(&gateway, door).open();
        assert_eq!(client.refused("server/discover", &json!({}))["code"], -32601, "{door:?}");
        let listen = json!({ "notifications": { "toolsListChanged": true } });
        assert_eq!(client.refused("subscriptions/listen", &listen)["code"], -32601);
    }
}

#[test]
fn a_client_that_asks_for_a_session_of_the_modern_revision_gets_one_of_the_latest_legacy() {
    let behind = Behind::start(Transport::Http);
    let gateway = behind.gateway(&json!({}));
    let mut client = McpClient::new(gateway.address()).speaking("2026-07-28");
    let answer = client.initialize().expect(200);
    assert_eq!(answer.message()["result"]["protocolVersion"], "2025-11-25");
    client.notify("notifications/initialized", &json!({})).expect(202);
    assert_eq!(client.call("echo", &json!({ "message": "m" }))["content"][0]["text"], "m");
    for door in DOORS {
        let client = Duplex::to(&gateway, door).speaking("2026-07-28").open();
        assert_eq!(client.initialized()["protocolVersion"], "2025-11-25", "{door:?}");
    }
}

#[test]
fn an_initialize_that_is_whole_in_itself_is_refused_and_told_what_is_served() {
    let behind = Behind::start(Transport::Http);
    let gateway = behind.gateway(&json!({}));
    let client = ModernClient::to(&gateway);
    let params = json!({
        "protocolVersion": "2026-07-28", "capabilities": {},
        "clientInfo": { "name": "c", "version": "1" },
    });
    let message = client.message(&json!(1), "initialize", &params);
    let error = client.send(&client.post_request(&message)).refused(404, -32601);
    let text = error["message"].as_str().unwrap();
    for revision in ["2025-11-25", "2026-07-28"] {
        assert!(text.contains(revision), "{text}");
    }
}

#[test]
fn both_eras_share_an_endpoint_request_by_request() {
    let behind = Behind::start(Transport::Http);
    let gateway = behind.gateway(&json!({}));
    let (legacy, modern) = (gateway.mcp(), ModernClient::to(&gateway));
    for n in 0..3 {
        let message = json!({ "message": format!("m{n}") });
        assert_eq!(
            legacy.call("echo", &message),
            json!({ "content": [
            { "type": "text", "text": format!("m{n}") } ] })
        );
        assert_eq!(super::text_of(&modern.call("echo", &message)), format!("m{n}"));
    }
    // What only sessions have means nothing to a request without one.
    let odd = modern.header("Mcp-Session-Id", "no-such-session").header("Last-Event-ID", "1-1");
    assert_eq!(super::text_of(&odd.call("echo", &json!({ "message": "m" }))), "m");
}

#[test]
fn a_session_begins_whatever_revision_the_header_names() {
    let behind = Behind::start(Transport::Http);
    let gateway = behind.gateway(&json!({}));
    let message = json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {
            "protocolVersion": "2026-07-28", "capabilities": {},
            "clientInfo": { "name": "c", "version": "1" },
        },
    });
    let request = ModernClient::to(&gateway).post_request(&message);
    let answer = gateway.send(&request).expect(200);
    assert_eq!(answer.message()["result"]["protocolVersion"], "2025-11-25");
    assert!(answer.header("Mcp-Session-Id").is_some(), "{}", answer.text());
}
