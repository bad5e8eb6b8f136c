//! What a server says of its lists reaches clients where what they are offered has changed.

use serde_json::json;

use crate::support::duplex::{DOORS, Duplex};
use crate::support::gateway::Gateway;
use crate::support::modern::ModernClient;
use crate::support::upstream_http::HttpUpstream;

#[test]
fn a_list_that_is_offered_as_before_is_no_news() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(json!({ "mcp_servers": { "s": {
        "url": upstream.url(), "transport": "http", "tools": ["echo", "seen*"],
    }}}));
    let clients = DOORS.map(|door| Duplex::to(&gateway, door).open());
    let filter = json!({ "toolsListChanged": true, "promptsListChanged": true });
    let mut stream = ModernClient::to(&gateway).listen(&filter);
    let n_read = upstream.seen().n_list;
    // The list that is known, and one that differs in what nobody here is offered.
    upstream.emit("notifications/tools/list_changed", &json!({}));
    upstream.wait_until("the list is read", |seen| seen.n_list == n_read + 1);
    upstream.add_text("tools", "seen", r#"{"name":"seen","inputSchema":null}"#);
    upstream.change("tools", "hidden");
    upstream.wait_until("the list is read again", |seen| seen.n_list == n_read + 2);
    upstream.change("prompts", "new");
    for client in &clients {
        client.wait_told("notifications/prompts/list_changed");
        assert_eq!(client.told("notifications/tools/list_changed"), [json!(null); 0]);
    }
    assert_eq!(stream.next()["method"], "notifications/prompts/list_changed");
    upstream.change("tools", "seen_too");
    for client in &clients {
        client.wait_told("notifications/tools/list_changed");
    }
    assert_eq!(stream.next()["method"], "notifications/tools/list_changed");
}
