//! Lists of a server that is down are said to be old ones, without a restart of the gateway.

use serde_json::json;

use crate::support::gateway::{Gateway, META_UPSTREAMS, entry_of};
use crate::support::upstream_http::HttpUpstream;
use crate::support::wait_until;

#[test]
fn lists_are_stale_while_their_server_is_down() {
    let upstream = HttpUpstream::with_tools(&["one"]);
    let gateway = Gateway::before(&upstream.url());
    let outcome = || entry_of(&gateway.list()["upstreams"], "s").unwrap();
    assert_eq!(outcome(), json!({ "server": "s", "outcome": "ok" }));
    assert_eq!(gateway.status_of("s")["stale"], false);

    upstream.die();
    gateway.call("one", &json!({})).expect(502);
    wait_until("its failure is known", || outcome()["outcome"] == "failed");
    assert_eq!(outcome()["stale"], true, "{}", outcome());
    assert_eq!(gateway.tool_names(), ["one"]);
    assert_eq!(gateway.status_of("s")["stale"], true);
    let listed = gateway.mcp().result("tools/list", &json!({}));
    assert_eq!(listed["_meta"][META_UPSTREAMS][0]["stale"], true, "{listed}");

    upstream.come();
    wait_until("it has listed again", || outcome()["outcome"] == "ok");
    assert_eq!(outcome().get("stale"), None, "{}", outcome());
    assert_eq!(gateway.status_of("s")["stale"], false);
    let listed = gateway.mcp().result("tools/list", &json!({}));
    assert_eq!(listed.get("_meta"), None, "{listed}");
}

#[test]
fn a_server_that_never_listed_has_no_lists_that_could_be_old() {
    let absent = HttpUpstream::absent();
    let gateway = Gateway::with(json!({
        "mcp_servers": { "s": { "url": absent.url(), "transport": "http" } },
    }))
    .start();
    let outcome = || entry_of(&gateway.list()["upstreams"], "s").unwrap();
    wait_until("its failure is known", || outcome()["outcome"] == "failed");
    assert_eq!(outcome().get("stale"), None, "{}", outcome());
    assert_eq!(gateway.status_of("s")["stale"], false);
}
