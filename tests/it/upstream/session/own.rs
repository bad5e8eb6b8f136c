//! What a client hears and has on sessions of its own with servers, and nobody else.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::behind::{Behind, Era, TRANSPORTS, Transport, of_method};
use crate::support::duplex::{DOORS, Door, Duplex};
use crate::support::gateway::Gateway;
use crate::support::script::{BLOB_URI, TEXT_URI};
use crate::support::upstream_http::HttpUpstream;
use crate::support::{stays_so, wait_until};

const MESSAGE: &str = "notifications/message";
const UPDATED: &str = "notifications/resources/updated";

/// Lets the server say something on the session of this client's calls, outside of calls.
fn emit(client: &Duplex, method: &str, params: &Value) {
    client.call("emit", &json!({ "method": method, "params": params }));
}

fn says(data: &str) -> Value {
    json!({ "level": "info", "data": data })
}

/// What the log messages hold that a client was told.
fn logged(client: &Duplex) -> Vec<Value> {
    client.told(MESSAGE).iter().map(|params| params["data"].clone()).collect()
}

/// Everything behind every transport, through every door.
fn everywhere(check: impl Fn(&str, &Behind, &Gateway, Door)) {
    everywhere_with(&json!({}), check);
}

fn everywhere_with(extra: &Value, check: impl Fn(&str, &Behind, &Gateway, Door)) {
    for transport in TRANSPORTS {
        let behind = Behind::start(transport);
        let gateway = behind.gateway(extra);
        for door in DOORS {
            check(&format!("{transport:?} {door:?}"), &behind, &gateway, door);
        }
    }
}

#[test]
fn a_client_with_a_session_of_its_own_hears_nothing_of_the_shared_one() {
    const VENDOR: &str = "notifications/vendor/news";
    // Of one principal, so that whatever is said on the shared session is for all of it.
    let keys = json!({ "api_keys": [{ "name": "k", "key": "key-of-k" }] });
    everywhere_with(&keys, |at, _, gateway, door| {
        let open = || Duplex::to(gateway, door).key("key-of-k");
        let (alice, plain) = (open().named("alice").open(), open().open());
        alice.call("whoami", &json!({}));
        emit(&plain, MESSAGE, &says("shared"));
        emit(&plain, VENDOR, &json!({ "of": "shared" }));
        emit(&alice, MESSAGE, &says("own"));
        emit(&alice, VENDOR, &json!({ "of": "own" }));
        for (client, method) in [(&alice, MESSAGE), (&alice, VENDOR), (&plain, MESSAGE)] {
            client.wait_told(method);
        }
        plain.wait_told(VENDOR);
        stays_so("each hears of its own session", Duration::from_millis(100), || {
            logged(&alice) == ["own"] && logged(&plain) == ["shared"]
        });
        assert_eq!(alice.told(VENDOR), [json!({ "of": "own" })], "{at}");
        assert_eq!(plain.told(VENDOR), [json!({ "of": "shared" })], "{at}");
        // Lists are the same for all.
        plain.call("add_tool", &json!({ "name": format!("added_by_{door:?}") }));
        alice.wait_told("notifications/tools/list_changed");
    });
}

#[test]
fn one_that_shares_by_configuration_hears_the_shared_session() {
    let behind = Behind::start(TRANSPORTS[0]);
    let mut server = behind.config();
    server["session"] = json!("shared");
    // What names no call is for all sessions of one principal.
    let gateway = Gateway::started(json!({
        "api_keys": [{ "name": "k", "key": "key-of-k" }],
        "mcp_servers": { "s": server },
    }));
    let open = || Duplex::to(&gateway, Door::Streamable).key("key-of-k");
    let (alice, plain) = (open().named("alice").open(), open().open());
    emit(&plain, MESSAGE, &says("shared"));
    alice.wait_told(MESSAGE);
    plain.wait_told(MESSAGE);
}

fn of(uri: &str) -> Value {
    json!({ "uri": uri })
}

fn subscribe(client: &Duplex, uri: &str) {
    assert_eq!(client.result("resources/subscribe", &of(uri)), json!({}));
}

/// The session with the server that a client's calls come on.
fn peer(client: &Duplex) -> String {
    client.call("whoami", &json!({}))["content"][0]["text"].as_str().unwrap().to_owned()
}

/// The sessions that the server was asked on, in its order.
fn asked_on(behind: &Behind, method: &str) -> Vec<String> {
    of_method(&behind.received(), method).into_iter().map(|it| it.peer).collect()
}

#[test]
fn a_client_subscribes_over_its_own_session_and_hears_there() {
    everywhere(|at, behind, gateway, door| {
        let seen = asked_on(behind, "resources/subscribe").len();
        let alice = Duplex::to(gateway, door).named("alice").open();
        let plain = Duplex::to(gateway, door).open();
        let own = peer(&alice);
        assert_ne!(own, peer(&plain), "{at}");
        subscribe(&alice, TEXT_URI);
        assert_eq!(
            asked_on(behind, "resources/subscribe")[seen..],
            *std::slice::from_ref(&own),
            "{at}"
        );
        // Of several children each knows its own subscribers.
        assert_eq!(alice.call("touch", &of(TEXT_URI))["content"][0]["text"], "1", "{at}");
        assert_eq!(alice.wait_told(UPDATED), of(TEXT_URI), "{at}");
        // Told of on the shared session, it is for those who subscribed over that.
        subscribe(&plain, TEXT_URI);
        emit(&plain, UPDATED, &of(TEXT_URI));
        plain.wait_told(UPDATED);
        // And nobody hears of what it did not subscribe to.
        emit(&alice, UPDATED, &of(BLOB_URI));
        stays_so("each update comes once", Duration::from_millis(100), || {
            (alice.told(UPDATED).len(), plain.told(UPDATED).len()) == (1, 1)
        });
        assert_eq!(alice.result("resources/unsubscribe", &of(TEXT_URI)), json!({}));
        assert_eq!(asked_on(behind, "resources/unsubscribe").pop(), Some(own), "{at}");
        plain.result("resources/unsubscribe", &of(TEXT_URI));
    });
}

#[test]
fn a_subscription_that_opens_the_own_session_is_made_once() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    for door in DOORS {
        let n_before = of_method(&upstream.received(), "resources/subscribe").len();
        let alice = Duplex::to(&gateway, door).named("alice").open();
        subscribe(&alice, TEXT_URI);
        stays_so("it is subscribed once", Duration::from_millis(300), || {
            of_method(&upstream.received(), "resources/subscribe").len() == n_before + 1
        });
        alice.end();
    }
}

#[test]
fn a_session_that_made_room_is_subscribed_again_at_its_clients_next_call() {
    let upstream = HttpUpstream::start();
    // The shared one, and one of a client's own.
    let server = json!({ "url": upstream.url(), "transport": "http", "max_sessions": 2 });
    let gateway = Gateway::started(json!({ "mcp_servers": { "s": server } }));
    let alice = Duplex::to(&gateway, Door::Streamable).named("alice").open();
    let bob = Duplex::to(&gateway, Door::Streamable).named("bob").open();
    subscribe(&alice, TEXT_URI);
    let n_deleted = upstream.n_deleted();
    bob.call("ask_roots", &json!({}));
    wait_until("hers has made room", || upstream.n_deleted() > n_deleted);
    alice.call("ask_roots", &json!({}));
    wait_until("the new one is subscribed", || {
        of_method(&upstream.received(), "resources/subscribe").len() == 2
    });
    assert_eq!(upstream.touch(TEXT_URI), 1);
    alice.wait_told(UPDATED);
}

#[test]
fn what_is_subscribed_over_an_own_session_ends_with_it() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    for door in DOORS {
        let alice = Duplex::to(&gateway, door).named("alice").open();
        subscribe(&alice, TEXT_URI);
        let n_deleted = upstream.n_deleted();
        alice.end();
        wait_until("her session is ended", || upstream.n_deleted() > n_deleted);
        stays_so("nothing is taken back", Duration::from_millis(700), || {
            of_method(&upstream.received(), "resources/unsubscribe").is_empty()
        });
    }
}

#[test]
fn an_own_session_that_is_lost_is_opened_and_subscribed_again_while_its_client_waits() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let alice = Duplex::to(&gateway, Door::Streamable).named("alice").open();
    subscribe(&alice, TEXT_URI);
    wait_until("her session listens", || upstream.touch(TEXT_URI) == 1);
    alice.wait_told(UPDATED);
    upstream.forget_sessions();
    upstream.listener.break_off_connections();
    wait_until("another session is subscribed", || {
        let asked = of_method(&upstream.received(), "resources/subscribe");
        // Twice on the new one, where it was lost in the midst of being subscribed.
        asked.iter().any(|it| it.peer != asked[0].peer)
    });
    let n = alice.told(UPDATED).len();
    wait_until("her new session listens", || upstream.touch(TEXT_URI) == 1);
    alice.wait_told_times(UPDATED, n + 1);

    // The same where it is a process.
    let behind = Behind::start(Transport::Stdio);
    let gateway = behind.gateway(&json!({}));
    let alice = Duplex::to(&gateway, Door::Streamable).named("alice").open();
    subscribe(&alice, TEXT_URI);
    assert!(
        alice.request("tools/call", &json!({ "name": "exit", "arguments": {} }))["error"]
            .is_object()
    );
    behind.wait_received("another child is subscribed", |received| {
        let asked = of_method(received, "resources/subscribe");
        asked.iter().any(|it| it.peer != asked[0].peer).then_some(())
    });
    wait_until("it is subscribed", || {
        alice.call("touch", &of(TEXT_URI))["content"][0]["text"] == "1"
    });
    alice.wait_told(UPDATED);
}

#[test]
fn updates_carry_the_uri_that_the_client_subscribed_with() {
    let (a, b) = (HttpUpstream::labelled("A"), HttpUpstream::labelled("B"));
    a.set_resources(&["same://x", "same://y"]);
    b.set_resources(&["same://x", "same://y"]);
    let server =
        |upstream: &HttpUpstream| json!({ "url": upstream.url(), "transport": "http" });
    let gateway =
        Gateway::started(json!({ "mcp_servers": { "a": server(&a), "b": server(&b) } }));
    for door in DOORS {
        for client in [
            Duplex::to(&gateway, door).named("alice").open(),
            Duplex::to(&gateway, door).open(),
        ] {
            subscribe(&client, "b+same://x");
            assert_eq!(b.touch("same://x"), 1);
            client.wait_told_times(UPDATED, 1);
            // On a call's own stream too, once, and of nothing else.
            let messages = json!([of("same://x"), of("same://y")]);
            client.call("b-log", &json!({ "method": UPDATED, "messages": messages }));
            client.call("a-log", &json!({ "method": UPDATED, "messages": messages }));
            client.wait_told_times(UPDATED, 2);
            stays_so("that is all", Duration::from_millis(100), || {
                client.told(UPDATED) == [of("b+same://x"), of("b+same://x")]
            });
            client.result("resources/unsubscribe", &of("b+same://x"));
        }
    }
}

#[test]
fn of_a_server_without_sessions_all_clients_hear() {
    for transport in [Transport::Http, Transport::Stdio] {
        let behind = Behind::of(Era::Modern, transport, "scripted");
        let gateway = behind.gateway(&json!({}));
        for door in DOORS {
            let alice = Duplex::to(&gateway, door).named("alice").open();
            let plain = Duplex::to(&gateway, door).open();
            for client in [&alice, &plain] {
                subscribe(client, TEXT_URI);
            }
            alice.call("touch", &of(TEXT_URI));
            for client in [&alice, &plain] {
                client.wait_told(UPDATED);
            }
            stays_so("each update comes once", Duration::from_millis(100), || {
                (alice.told(UPDATED).len(), plain.told(UPDATED).len()) == (1, 1)
            });
            for client in [&alice, &plain] {
                client.result("resources/unsubscribe", &of(TEXT_URI));
            }
        }
    }
}
