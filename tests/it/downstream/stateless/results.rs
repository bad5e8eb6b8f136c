//! What results carry: their type and freshness for modern clients, nothing of it for legacy
//! ones, and all that their server wrote for both.

use serde_json::{Value, json};

use super::{UPSTREAMS, behind};
use crate::support::behind::{Era, Transport};
use crate::support::duplex::{DOORS, Duplex};
use crate::support::gateway::Gateway;
use crate::support::modern::ModernClient;
use crate::support::script::{ODD_URI, TEXT_URI};
use crate::support::upstream_http::HttpUpstream;
use crate::support::upstream_modern::ModernUpstream;

const LISTS: [&str; 4] =
    ["tools/list", "prompts/list", "resources/list", "resources/templates/list"];

/// Every method that gives a result at once.
fn requests() -> Vec<(&'static str, Value)> {
    let reference = json!({ "type": "ref/prompt", "name": "greet" });
    let argument = json!({ "name": "name", "value": "v" });
    let mut requests = vec![
        ("server/discover", json!({})),
        ("tools/call", json!({ "name": "rich", "arguments": {} })),
        ("tools/call", json!({ "name": "fail", "arguments": {} })),
        ("prompts/get", json!({ "name": "rich" })),
        ("resources/read", json!({ "uri": TEXT_URI })),
        ("resources/read", json!({ "uri": ODD_URI })),
        ("completion/complete", json!({ "ref": reference, "argument": argument })),
    ];
    requests.extend(LISTS.map(|method| (method, json!({}))));
    requests
}

/// The client checks what every result must carry.
#[test]
fn every_result_says_what_it_is_and_how_long_it_is_fresh() {
    for (era, transport) in UPSTREAMS {
        let (_behind, gateway) = behind(era, transport, &json!({}));
        let client = ModernClient::to(&gateway);
        for (method, params) in requests() {
            let result = client.result(method, &params);
            assert_eq!(result["resultType"], "complete", "{method} {era:?} {transport:?}");
        }
    }
}

#[test]
fn legacy_clients_see_nothing_of_it() {
    for (era, transport) in UPSTREAMS {
        let (_behind, gateway) = behind(era, transport, &json!({}));
        for door in DOORS {
            let client = Duplex::to(&gateway, door).open();
            for (method, params) in requests() {
                if method == "server/discover" {
                    continue;
                }
                let result = client.result(method, &params).to_string();
                for word in ["resultType", "ttlMs", "cacheScope", "serverInfo"] {
                    assert!(!result.contains(word), "{method} {era:?} {transport:?}: {result}");
                }
            }
        }
    }
}

#[test]
fn what_the_server_wrote_stays_as_it_was_written() {
    for (era, transport) in UPSTREAMS {
        let (_behind, gateway) = behind(era, transport, &json!({}));
        let client = ModernClient::to(&gateway);
        for (method, params, parts) in [
            (
                "tools/call",
                json!({ "name": "rich", "arguments": {} }),
                [
                    r#""structuredContent":{"zeta":1.50,"alpha":"a","big":12345678901234567890123,"tiny":1e-7,"exp":1E+2},"x-later-field":{"b":[],"a":{}}"#,
                    r#""example.org/trace":"t-1","zz":0"#,
                ],
            ),
            (
                "prompts/get",
                json!({ "name": "rich" }),
                [r#""x-later":{"b":[],"a":1.0}"#, r#""annotations":{"priority":0.50}"#],
            ),
            (
                "resources/read",
                json!({ "uri": ODD_URI }),
                [r#""x-later":1.0,"contents":[{"text":"caf\u00e9""#, r#""zz":0.10"#],
            ),
        ] {
            let answered = client.request(method, &params);
            for part in parts {
                assert!(answered.text.contains(part), "{method} {era:?}: {}", answered.text);
            }
        }
    }
}

#[test]
fn an_error_of_a_tool_s_server_passes_as_it_was_written() {
    for (era, transport) in UPSTREAMS {
        let (_behind, gateway) = behind(era, transport, &json!({}));
        let answered = ModernClient::to(&gateway).ask("rpc_error", &json!({}));
        let error = answered.message["error"].clone();
        assert_eq!(error["code"], -32001, "{era:?} {transport:?}: {error}");
        assert!(answered.text.contains(r#""data":{"zulu":1.50,"alpha":[null]}"#), "{era:?}");
    }
}

fn two(a: &ModernUpstream, b: &ModernUpstream) -> Gateway {
    Gateway::started(json!({ "mcp_servers": {
        "a": { "url": a.url(), "transport": "http" },
        "b": { "url": b.url(), "transport": "http" },
    }}))
}

#[test]
fn of_several_servers_the_shortest_time_and_the_strictest_scope_hold() {
    for (scopes, wanted) in [
        (["public", "public"], "public"),
        (["public", "private"], "private"),
        (["private", "public"], "private"),
    ] {
        let (a, b) = (ModernUpstream::start(), ModernUpstream::start());
        a.set_freshness(90_000, scopes[0]);
        b.set_freshness(40_000, scopes[1]);
        let gateway = two(&a, &b);
        for method in LISTS {
            let result = ModernClient::to(&gateway).result(method, &json!({}));
            let ttl = result["ttlMs"].as_u64().unwrap();
            assert!(ttl <= 40_000, "{method}: {ttl}");
            assert!(ttl > 0, "{method}: nothing is left of it");
            assert_eq!(result["cacheScope"], wanted, "{method} {scopes:?}");
        }
    }
}

#[test]
fn a_server_that_says_nothing_of_freshness_has_none_to_pass_on() {
    let (legacy, modern) = (HttpUpstream::start(), ModernUpstream::start());
    let gateway = Gateway::started(json!({ "mcp_servers": {
        "a": { "url": legacy.url(), "transport": "http" },
        "b": { "url": modern.url(), "transport": "http" },
    }}));
    let result = ModernClient::to(&gateway).result("tools/list", &json!({}));
    assert_eq!(result["ttlMs"], 0, "{}", result["ttlMs"]);
    assert_eq!(result["cacheScope"], "private");
}

#[test]
fn a_read_carries_what_its_server_said() {
    let upstream = ModernUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = ModernClient::to(&gateway);
    for (ttl, scope) in [(7, "private"), (123_456, "public")] {
        upstream.set_freshness(ttl, scope);
        let read = client.result("resources/read", &json!({ "uri": TEXT_URI }));
        assert_eq!((&read["ttlMs"], &read["cacheScope"]), (&json!(ttl), &json!(scope)));
    }
}

#[test]
fn a_list_that_depends_on_the_key_is_private() {
    let upstream = ModernUpstream::start();
    upstream.set_freshness(60_000, "public");
    let gateway = Gateway::started(json!({
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
        "api_keys": [
            { "name": "all", "key": "key-of-all-1" },
            { "name": "few", "key": "key-of-few-1", "tools": ["s-e*"] },
        ],
    }));
    let few = ModernClient::to(&gateway).key("key-of-few-1");
    assert_eq!(few.tool_names(), ["echo", "emit"]);
    assert_eq!(few.result("tools/list", &json!({}))["cacheScope"], "private");
}

#[test]
fn lists_come_in_pages_that_agree() {
    let (_behind, gateway) =
        behind(Era::Modern, Transport::Http, &json!({ "limits": { "page_items": 5 } }));
    let client = ModernClient::to(&gateway);
    let first = client.result("tools/list", &json!({}));
    assert_eq!(first["tools"].as_array().unwrap().len(), 5);
    let next = client.result("tools/list", &json!({ "cursor": first["nextCursor"] }));
    assert_eq!(first["cacheScope"], next["cacheScope"]);
    let legacy = Duplex::to(&gateway, DOORS[0]).open();
    assert_eq!(client.tool_names(), legacy.names("tools/list", "tools", "name"));
}

#[test]
fn a_server_without_a_list_says_nothing_of_its_freshness() {
    let (legacy, modern) = (HttpUpstream::with_tools(&["echo"]), ModernUpstream::start());
    modern.set_freshness(90_000, "public");
    let gateway = Gateway::started(json!({ "mcp_servers": {
        "a": { "url": legacy.url(), "transport": "http" },
        "b": { "url": modern.url(), "transport": "http" },
    }}));
    gateway.wait_until_well(&["a", "b"]);
    let client = ModernClient::to(&gateway);
    let result = client.result("prompts/list", &json!({}));
    assert!(result["ttlMs"].as_u64().unwrap() > 0, "{}", result["ttlMs"]);
    assert_eq!(result["cacheScope"], "public");
    assert_eq!(client.result("tools/list", &json!({}))["ttlMs"], 0);
}
