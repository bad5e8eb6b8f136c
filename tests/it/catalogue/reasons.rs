//! A client is told why a server offers nothing, wherever it looks.

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, META_UPSTREAMS, entry_of};
use crate::support::mcp::McpClient;
use crate::support::modern::ModernClient;
use crate::support::upstream_http::HttpUpstream;
use crate::support::wait_until;

const KEY: &str = "sees-all-sees-all";
const FEW: &str = "sees-few-sees-few";
const SECRET: &str = "hunter2-hunter2";

fn instructions(result: &Value) -> String {
    result["instructions"].as_str().unwrap_or_default().to_owned()
}

/// What both kinds of clients with that key are told at first.
fn told(gateway: &Gateway, key: &str) -> [String; 2] {
    let mut client = McpClient::new(gateway.address()).with_key(key);
    let legacy = client.initialize().expect(200).message()["result"].clone();
    let modern = ModernClient::to(gateway).key(key).result("server/discover", &json!({}));
    [instructions(&legacy), instructions(&modern)]
}

#[test]
fn a_client_of_a_failed_server_is_told_the_reason() {
    let (there, gone) = (HttpUpstream::with_tools(&["one"]), HttpUpstream::absent());
    there.set_instructions("Ask politely.");
    let gateway = Gateway::with(json!({
        "api_keys": [
            { "name": "all", "key": KEY },
            { "name": "few", "key": FEW, "servers": ["there"] },
        ],
        "mcp_servers": {
            "there": { "url": there.url(), "transport": "http" },
            "gone": { "url": format!("{}?token=${{TOKEN}}", gone.url()), "transport": "http" },
        },
    }))
    .env("TOKEN", SECRET)
    .start();
    gateway.wait_until_well(&["there"]);
    wait_until("its failure is known", || {
        entry_of(&gateway.list()["upstreams"], "gone").unwrap()["outcome"] == "failed"
    });
    for text in told(&gateway, KEY) {
        assert!(text.contains("# there\n\nAsk politely."), "{text}");
        assert!(
            text.contains("The server gone cannot be used at present (connect: "),
            "{text}"
        );
        assert!(!text.contains(SECRET), "{text}");
    }
    for text in told(&gateway, FEW) {
        assert_eq!(text, "Ask politely.", "it may not know of the other");
    }
    let client = McpClient::new(gateway.address()).with_key(KEY).opened();
    let list = client.result("tools/list", &json!({}));
    assert_eq!(list["_meta"][META_UPSTREAMS][0]["server"], "gone", "{list}");
    assert!(list["_meta"][META_UPSTREAMS][0]["message"].is_string(), "{list}");
    let error = client.request("tools/call", &json!({ "name": "gone-echo" }))["error"].clone();
    assert!(error["message"].as_str().unwrap().contains("gone"), "{error}");
    assert_eq!(error["data"]["stage"], "connect", "{error}");

    gone.come();
    gateway.wait_until_well(&["gone"]);
    for text in told(&gateway, KEY) {
        assert!(!text.contains("gone"), "{text}");
    }
    // What it has listed stands, and a call says what is wrong.
    gone.die();
    gateway.call("gone-echo", &json!({})).expect_error(502);
    for text in told(&gateway, KEY) {
        assert!(!text.contains("gone"), "{text}");
    }
}

#[test]
fn a_client_of_a_server_that_is_starting_is_told_so() {
    let late = HttpUpstream::absent();
    late.set_instructions("Ask politely.");
    late.hold(Some("initialize"));
    late.come();
    let gateway = Gateway::with(json!({
        "first_list_ms": 0,
        "mcp_servers": { "late": { "url": late.url(), "transport": "http" } },
    }))
    .start();
    let modern = ModernClient::to(&gateway);
    let early = instructions(&modern.result("server/discover", &json!({})));
    assert_eq!(
        early,
        "The server late is starting: what it offers is listed once it has answered."
    );
    late.hold(None);
    gateway.wait_until_well(&["late"]);
    let now = instructions(&modern.result("server/discover", &json!({})));
    assert_eq!(now, "Ask politely.");
}
