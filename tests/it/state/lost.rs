//! What a kill loses, and what is said of it then.

use serde_json::{Value, json};

use super::State;
use crate::support::gateway::Gateway;
use crate::support::modern::ModernClient;
use crate::support::upstream_http::HttpUpstream;

/// A server whose tool `ask_roots` has these annotations.
fn annotated(annotations: &Value) -> HttpUpstream {
    let upstream = HttpUpstream::start();
    upstream.set_tools(&["echo"]);
    let tool = json!({
        "name": "ask_roots", "inputSchema": { "type": "object" }, "annotations": annotations,
    });
    upstream.add_text("tools", "ask_roots", &tool.to_string());
    upstream
}

#[test]
fn a_parked_call_that_is_lost_runs_again_only_where_that_does_no_harm() {
    for (annotations, runs_again) in
        [(json!({}), false), (json!({ "readOnlyHint": true }), true)]
    {
        let (state, upstream) = (State::new(), annotated(&annotations));
        let config = state.before(&upstream.url());
        let gateway = Gateway::started(config.clone());
        let client = ModernClient::to(&gateway).named("alice");
        let params = json!({ "name": "ask_roots", "arguments": {} });
        let first = client.request("tools/call", &params);
        assert!(first.wants_input(), "{}", first.text);
        gateway.kill();
        let gateway = Gateway::started(config);
        let client = ModernClient::to(&gateway).named("alice");
        let responses = client.responses_to(&first);
        let answered = client.retry("tools/call", &params, &first, &responses);
        let n_calls = upstream.seen().n_calls("ask_roots");
        if runs_again {
            assert!(answered.wants_input(), "{}", answered.text);
            assert_eq!(n_calls, 2);
        } else {
            let error = &answered.message["error"];
            assert_eq!(error["code"], -32603, "{}", answered.text);
            assert!(error["message"].as_str().unwrap().contains("may have run"), "{error}");
            assert_eq!(n_calls, 1);
        }
    }
}

#[test]
fn a_listener_s_stream_begins_anew_and_a_call_s_does_not() {
    use crate::support::http::exchange;
    use crate::support::mcp::McpClient;

    let (state, upstream) = (State::new(), HttpUpstream::start());
    let config = state.before(&upstream.url());
    let gateway = Gateway::started(config.clone());
    let client = gateway.mcp();
    let mut listening = client.listen();
    let heard = listening.next().id.unwrap();
    let call = client.start_call(&json!(7), "slow", &json!({ "progress": 1 }));
    let mut call = call.into_events().expect_open();
    let called = call.next().id.unwrap();
    gateway.kill();
    let gateway = super::listening(&upstream, config);
    let client = McpClient::new(gateway.address()).in_session(client.session());
    let mut fresh = client.resume(&heard);
    assert_ne!(fresh.next().id.unwrap(), heard);
    upstream.change("tools", "news");
    fresh.next_message_where(|it| it["method"] == "notifications/tools/list_changed");
    let request = client.listen_request().header("Last-Event-ID", &called);
    let refused = exchange(gateway.address(), &request).expect(400);
    assert!(refused.text().contains("nothing is left"), "{}", refused.text());
}
