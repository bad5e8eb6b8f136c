//! How many calls are parked, and what becomes of those whose gateway is gone.

use serde_json::{Value, json};

use super::parking::is_cancelled;
use super::{answers_in, asked, behind, two_keys};
use crate::support::behind::{Behind, Era, TRANSPORTS, Transport, of_method};
use crate::support::gateway::Gateway;
use crate::support::modern::ModernClient;
use crate::support::upstream_http::HttpUpstream;
use crate::support::wait_until;

/// The newest call upstream is cancelled because there was no room to park it.
#[track_caller]
fn check_newest_is_cancelled(behind: &Behind) {
    let call = of_method(&behind.received(), "tools/call").pop().unwrap();
    wait_until("it is cancelled upstream", || is_cancelled(behind, &call));
}

#[track_caller]
fn refused_at(client: &ModernClient, bound: &str) {
    let answered = client.ask("ask_roots", &json!({}));
    let error = &answered.message["error"];
    assert_eq!(error["code"], -32603, "{}", answered.text);
    let words = error["message"].as_str().unwrap();
    let names = |name: &str| {
        words.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == name)
    };
    assert!(names(bound), "the bound is not named: {words}");
}

#[test]
fn only_so_many_calls_are_parked() {
    for transport in TRANSPORTS {
        let (behind, gateway) =
            behind(Era::Legacy, transport, &json!({ "limits": { "parked_calls": 2 } }));
        let client = ModernClient::to(&gateway).named("alice");
        let parked = [0, 1].map(|_| asked(&client, "ask_roots", &json!({})));
        refused_at(&client, "parked_calls");
        check_newest_is_cancelled(&behind);
        // Room comes free when a call ends, and those that were parked are whole.
        for (params, first) in &parked {
            let responses = client.responses_to(first);
            let last = client.retry("tools/call", params, first, &responses);
            assert_eq!(answers_in(&last.message).len(), 1, "{transport:?}");
            asked(&client, "ask_roots", &json!({}));
        }
        refused_at(&client, "parked_calls");
    }
}

#[test]
fn only_so_many_calls_of_a_key_are_parked() {
    for transport in TRANSPORTS {
        let extra = json!({ "api_keys": two_keys(), "limits": { "parked_calls_per_key": 1 } });
        let (behind, gateway) = behind(Era::Legacy, transport, &extra);
        let alice = ModernClient::to(&gateway).named("alice").key("key-of-alice");
        let bob = ModernClient::to(&gateway).named("bob").key("key-of-bob-1");
        let (params, first) = asked(&alice, "ask_roots", &json!({}));
        refused_at(&alice, "parked_calls_per_key");
        check_newest_is_cancelled(&behind);
        asked(&bob, "ask_roots", &json!({}));
        let responses = alice.responses_to(&first);
        let last = alice.retry("tools/call", &params, &first, &responses);
        assert!(last.text.contains("file:///alice"), "{transport:?}: {}", last.text);
        asked(&alice, "ask_roots", &json!({}));
    }
}

#[test]
fn a_parked_call_whose_server_dies_is_an_error_of_its_retry() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = ModernClient::to(&gateway).named("alice");
    let (params, first) = asked(&client, "ask_roots", &json!({}));
    upstream.die();
    let responses = client.responses_to(&first);
    let answered = client.retry("tools/call", &params, &first, &responses);
    assert!(answered.message["error"]["code"].is_i64(), "{}", answered.text);
    assert_eq!(upstream.seen().n_calls("ask_roots"), 1, "nothing runs a second time");
}

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
fn a_call_lost_by_a_restart_runs_again_only_where_that_does_no_harm() {
    for (annotations, runs_again) in [
        (json!({}), false),
        (json!({ "readOnlyHint": false }), false),
        (json!({ "destructiveHint": false }), false),
        (json!({ "readOnlyHint": true }), true),
        (json!({ "idempotentHint": true }), true),
    ] {
        let upstream = annotated(&annotations);
        let config = json!({
            "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
            "session_key": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        });
        let gateway = Gateway::started(config.clone());
        let client = ModernClient::to(&gateway).named("alice");
        let (params, first) = asked(&client, "ask_roots", &json!({}));
        drop(gateway);
        let gateway = Gateway::started(config);
        let client = ModernClient::to(&gateway).named("alice");
        let responses = client.responses_to(&first);
        let answered = client.retry("tools/call", &params, &first, &responses);
        let n_calls = upstream.seen().n_calls("ask_roots");
        if runs_again {
            assert!(answered.wants_input(), "{annotations}: {}", answered.text);
            let responses = client.responses_to(&answered);
            let last = client.retry("tools/call", &params, &answered, &responses);
            assert_eq!(answers_in(&last.message).len(), 1, "{annotations}: {}", last.text);
            assert_eq!(n_calls, 2, "{annotations}");
        } else {
            let error = &answered.message["error"];
            assert_eq!(error["code"], -32603, "{annotations}: {}", answered.text);
            let words = error["message"].as_str().unwrap();
            assert!(words.contains("may have run"), "{words}");
            assert_eq!(n_calls, 1, "{annotations}");
        }
    }
}

#[test]
fn without_a_key_that_lasts_a_restart_makes_every_state_a_foreign_one() {
    let behind = Behind::start(Transport::Http);
    let gateway = behind.gateway(&json!({}));
    let client = ModernClient::to(&gateway).named("alice");
    let (params, first) = asked(&client, "ask_roots", &json!({}));
    drop(gateway);
    let gateway = behind.gateway(&json!({}));
    let client = ModernClient::to(&gateway).named("alice");
    let responses = client.responses_to(&first);
    client.retry("tools/call", &params, &first, &responses).refused(400, -32602);
}
