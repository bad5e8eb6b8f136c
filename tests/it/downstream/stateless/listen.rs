//! `subscriptions/listen` towards clients.

use std::time::Duration;

use serde_json::{Value, json};

use super::{UPSTREAMS, behind};
use crate::support::behind::{Behind, Era, TRANSPORTS, Transport, of_method, params_of};
use crate::support::duplex::{Door, Duplex};
use crate::support::gateway::Gateway;
use crate::support::http::Connection;
use crate::support::modern::ModernClient;
use crate::support::script::{BLOB_URI, TEXT_URI, meta};
use crate::support::upstream_http::HttpUpstream;
use crate::support::wait_until;

fn all() -> Value {
    json!({
        "toolsListChanged": true, "promptsListChanged": true, "resourcesListChanged": true,
        "resourceSubscriptions": [TEXT_URI],
    })
}

/// Waits until what the server says unasked reaches the gateway, of these resources too. A modern
/// server is asked anew when they change, and while both subscriptions are open it may tell
/// something twice: here only one is left.
fn wait_for_ears(behind: &Behind, era: Era, uris: &[&str]) {
    let wants_all = |params: &Value| {
        let wanted = params["notifications"]["resourceSubscriptions"].as_array();
        uris.iter().all(|uri| wanted.is_some_and(|wanted| wanted.contains(&json!(uri))))
    };
    if era == Era::Modern {
        behind.wait_received("one subscription", |received| {
            let listens = params_of(received, "subscriptions/listen");
            let n_open = match behind.script() {
                Some(script) => script.listens().len(),
                None => listens.len() - of_method(received, "notifications/cancelled").len(),
            };
            (n_open == 1 && listens.last().is_some_and(wants_all)).then_some(())
        });
        return;
    }
    if let Some(script) = behind.script() {
        wait_until("a stream is open", || script.n_streams() > 0);
    }
    behind.wait_received("resources/subscribe", |received| {
        let asked = params_of(received, "resources/subscribe");
        let is_asked = |uri: &&str| asked.iter().any(|params| params["uri"] == **uri);
        uris.iter().all(is_asked).then_some(())
    });
}

#[test]
fn the_acknowledgement_comes_first_and_names_what_is_honoured() {
    for (era, transport) in UPSTREAMS {
        let (_behind, gateway) = behind(era, transport, &json!({}));
        let client = ModernClient::to(&gateway);
        for wanted in [
            all(),
            json!({ "toolsListChanged": true }),
            json!({ "resourceSubscriptions": [TEXT_URI, BLOB_URI] }),
            json!({}),
        ] {
            assert_eq!(client.listen(&wanted).honoured, wanted, "{era:?} {transport:?}");
        }
        // What is not wanted need not be named.
        let none = json!({ "toolsListChanged": false, "promptsListChanged": true });
        let honoured = client.listen(&none).honoured;
        assert_ne!(honoured["toolsListChanged"], true);
        assert_eq!(honoured["promptsListChanged"], true);
    }
}

#[test]
fn only_what_some_server_can_tell_is_honoured() {
    let upstream = HttpUpstream::with_tools(&["echo"]);
    let gateway = Gateway::before(&upstream.url());
    let honoured = ModernClient::to(&gateway).listen(&all()).honoured;
    assert_eq!(honoured["toolsListChanged"], true, "{honoured}");
    for absent in ["promptsListChanged", "resourcesListChanged"] {
        assert_ne!(honoured[absent], true, "{honoured}");
    }
}

#[test]
fn a_subscription_s_id_keeps_its_type() {
    for (era, transport) in UPSTREAMS {
        let (behind, gateway) = behind(era, transport, &json!({}));
        let client = ModernClient::to(&gateway);
        let wanted = json!({ "toolsListChanged": true });
        // Each checks its own id in all that it hears.
        let mut listening = [json!(5001), json!("5001"), json!("a/\u{fc}")]
            .map(|id| client.listen_as(&id, &wanted));
        wait_for_ears(&behind, era, &[]);
        client.call("change", &json!({ "kind": "tools", "name": "fresh" }));
        for listening in &mut listening {
            let told = listening.next();
            assert_eq!(told["method"], "notifications/tools/list_changed", "{transport:?}");
            assert!(told.get("id").is_none());
        }
    }
}

#[test]
fn each_hears_what_it_wants_and_nothing_else() {
    for (era, transport) in UPSTREAMS {
        let (behind, gateway) = behind(era, transport, &json!({}));
        let client = ModernClient::to(&gateway).logging("debug");
        let mut everything = client.listen(&all());
        let mut prompts = client.listen(&json!({ "promptsListChanged": true }));
        let mut nothing = client.listen(&json!({}));
        wait_for_ears(&behind, era, &[TEXT_URI]);
        for (kind, name, told) in [
            ("tools", "t", "notifications/tools/list_changed"),
            ("resources", "file:///r", "notifications/resources/list_changed"),
            ("prompts", "p", "notifications/prompts/list_changed"),
        ] {
            // The child that everybody shares lists it; one for the log of a call is another.
            let shared = ModernClient::to(&gateway);
            shared.call("change", &json!({ "kind": kind, "name": name }));
            assert_eq!(everything.next()["method"], told, "{era:?} {transport:?}");
        }
        assert_eq!(prompts.next()["method"], "notifications/prompts/list_changed");
        // Log messages and progress belong to calls.
        let messages = json!([{ "level": "error", "data": "d" }]);
        client.run_call("log", &json!({ "messages": messages }));
        let params = json!({ "name": "count", "_meta": { "progressToken": "p" } });
        client.run("tools/call", &params);
        for listening in [&mut everything, &mut prompts, &mut nothing] {
            let time = Duration::from_millis(100);
            assert!(listening.stream.is_silent_for(time), "{era:?} {transport:?}");
        }
    }
}

#[test]
fn a_resource_is_told_of_to_those_who_named_it() {
    for (era, transport) in UPSTREAMS {
        let (behind, gateway) = behind(era, transport, &json!({}));
        let client = ModernClient::to(&gateway);
        let of = |uri: &str| json!({ "resourceSubscriptions": [uri] });
        let (mut text, mut blob) = (client.listen(&of(TEXT_URI)), client.listen(&of(BLOB_URI)));
        wait_for_ears(&behind, era, &[TEXT_URI, BLOB_URI]);
        for uri in [TEXT_URI, BLOB_URI] {
            let n = client.call("touch", &json!({ "uri": uri }));
            assert_eq!(super::text_of(&n), "1", "{era:?} {transport:?}");
        }
        assert_eq!(text.next()["params"]["uri"], TEXT_URI, "{era:?} {transport:?}");
        assert_eq!(blob.next()["params"]["uri"], BLOB_URI, "{era:?} {transport:?}");
        let more = text.stream.try_next(Duration::from_millis(100));
        assert!(more.is_err(), "{era:?} {transport:?}: {more:?}");
    }
}

#[test]
fn a_gateway_that_stops_ends_subscriptions_in_order() {
    let (_behind, gateway) = behind(Era::Legacy, Transport::Http, &json!({}));
    let client = ModernClient::to(&gateway);
    let mut listening = [json!(77), json!("own")].map(|id| client.listen_as(&id, &all()));
    let stopping = crate::support::in_background(move || gateway.stop());
    for listening in &mut listening {
        let last = listening.next();
        assert_eq!(last["id"], listening.id, "{last}");
        assert_eq!(last["result"]["resultType"], "complete", "{last}");
        assert!(last["result"]["_meta"][meta("serverInfo")].is_object(), "{last}");
        listening.stream.expect_end();
    }
    assert_eq!(stopping.join().unwrap().code, Some(0));
}

#[test]
fn a_silent_subscription_is_kept_alive() {
    let (_behind, gateway) =
        behind(Era::Legacy, Transport::Http, &json!({ "limits": { "heartbeat_ms": 50 } }));
    let mut listening = ModernClient::to(&gateway).listen(&json!({ "toolsListChanged": true }));
    wait_until("a comment comes", || {
        assert!(listening.stream.is_silent_for(Duration::from_millis(50)));
        listening.stream.n_comments() > 1
    });
    let buffering = listening.stream.head.header("X-Accel-Buffering");
    assert_eq!(buffering, Some("no"), "{:?}", listening.stream.head);
}

#[test]
fn a_subscription_must_say_what_it_wants() {
    let (_behind, gateway) = behind(Era::Legacy, Transport::Http, &json!({}));
    let client = ModernClient::to(&gateway);
    for params in [
        json!({}),
        json!({ "notifications": [] }),
        json!({ "notifications": { "toolsListChanged": "yes" } }),
        json!({ "notifications": { "resourceSubscriptions": TEXT_URI } }),
        json!({ "notifications": { "resourceSubscriptions": [7] } }),
    ] {
        client.request("subscriptions/listen", &params).refused(400, -32602);
    }
}

#[test]
fn subscriptions_of_one_client_end_one_by_one() {
    let (_behind, gateway) = behind(Era::Legacy, Transport::Http, &json!({}));
    let client = ModernClient::to(&gateway);
    let wanted = json!({ "toolsListChanged": true });
    let (first, mut second) = (client.listen(&wanted), client.listen(&wanted));
    first.stream.hang_up();
    client.call("change", &json!({ "kind": "tools", "name": "fresh" }));
    assert_eq!(second.next()["method"], "notifications/tools/list_changed");
    // A connection that ends in the middle of the request is nobody's subscription.
    let mut half = Connection::open(gateway.address());
    half.send_bytes(b"POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{");
    half.hang_up();
    assert_eq!(super::text_of(&client.call("echo", &json!({ "message": "m" }))), "m");
}

#[test]
fn a_resource_is_subscribed_to_once_for_all_clients_of_both_eras() {
    for transport in TRANSPORTS {
        let (behind, gateway) = behind(Era::Legacy, transport, &json!({}));
        let of = json!({ "uri": TEXT_URI });
        let count = |method: &str| params_of(&behind.received(), method).len();
        let client = ModernClient::to(&gateway);
        let wanted = json!({ "resourceSubscriptions": [TEXT_URI] });
        let (mut first, mut second) = (client.listen(&wanted), client.listen(&wanted));
        let session = Duplex::to(&gateway, Door::Streamable).open();
        session.result("resources/subscribe", &of);
        wait_until("it is subscribed", || count("resources/subscribe") == 1);
        assert_eq!(super::text_of(&client.call("touch", &of)), "1", "{transport:?}");
        first.next();
        second.next();
        assert_eq!(session.wait_told("notifications/resources/updated"), of, "{transport:?}");
        first.stream.hang_up();
        session.result("resources/unsubscribe", &of);
        client.call("touch", &of);
        assert_eq!(second.next()["params"]["uri"], TEXT_URI, "one is left: {transport:?}");
        assert_eq!(count("resources/unsubscribe"), 0, "{transport:?}");
        second.stream.hang_up();
        wait_until("nobody is left", || count("resources/unsubscribe") == 1);
        assert_eq!(count("resources/subscribe"), 1, "{transport:?}");
    }
}

#[test]
fn changes_are_told_of_though_the_server_itself_tells_nothing() {
    let upstream = HttpUpstream::with_tools(&["echo"]);
    upstream.set_capabilities(json!({ "tools": { "listChanged": false } }));
    let gateway = Gateway::before(&upstream.url());
    let client = ModernClient::to(&gateway);
    let found = client.result("server/discover", &json!({}));
    assert_eq!(found["capabilities"]["tools"]["listChanged"], true, "{found}");
    let honoured = client.listen(&all()).honoured;
    assert_eq!(honoured["toolsListChanged"], true, "{honoured}");
    assert_ne!(honoured["promptsListChanged"], true, "{honoured}");
}
