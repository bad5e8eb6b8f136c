//! Subscriptions to resources: which session hears of which, and what the upstream sees of it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::behind::{Behind, TRANSPORTS, params_of};
use crate::support::duplex::{DOORS, Door, Duplex};
use crate::support::gateway::Gateway;
use crate::support::script::{BLOB_URI, ODD_URI, Received, TEXT_URI};
use crate::support::stopwatch::Stopwatch;
use crate::support::upstream_http::HttpUpstream;
use crate::support::{stays_so, wait_until};

const UPDATED: &str = "notifications/resources/updated";
const URIS: [&str; 3] = [TEXT_URI, BLOB_URI, ODD_URI];

fn of(uri: &str) -> Value {
    json!({ "uri": uri })
}

fn subscribe(client: &Duplex, uri: &str) {
    assert_eq!(client.result("resources/subscribe", &of(uri)), json!({}));
}

fn unsubscribe(client: &Duplex, uri: &str) {
    assert_eq!(client.result("resources/unsubscribe", &of(uri)), json!({}));
}

/// How often the upstream was asked to subscribe to and unsubscribe from a URI.
fn asked_for(received: &[Received], uri: &str) -> (usize, usize) {
    let count = |method: &str| {
        params_of(received, method).iter().filter(|params| params["uri"] == uri).count()
    };
    (count("resources/subscribe"), count("resources/unsubscribe"))
}

#[track_caller]
fn wait_asked_for(behind: &Behind, uri: &str, wanted: (usize, usize)) {
    behind.wait_received(&format!("{wanted:?} for {uri}"), |received| {
        (asked_for(received, uri) == wanted).then_some(())
    });
}

/// The URIs that a client was told have changed, sorted.
fn told(client: &Duplex) -> Vec<String> {
    let told = client.told(UPDATED);
    let mut uris: Vec<String> =
        told.iter().map(|params| params["uri"].as_str().unwrap().to_owned()).collect();
    uris.sort();
    uris
}

#[test]
fn updates_come_to_those_who_subscribed_and_the_upstream_is_subscribed_once() {
    // Which of four sessions subscribes to which of three resources.
    let matrix: [[bool; 3]; 4] =
        [[true, true, false], [true, false, false], [true, false, true], [false, false, false]];
    for transport in TRANSPORTS {
        let behind = Behind::start(transport);
        let gateway = behind.gateway(&json!({}));
        let clients = [
            Duplex::to(&gateway, Door::Streamable).open(),
            Duplex::to(&gateway, Door::Sse).open(),
            Duplex::to(&gateway, Door::Streamable).open(),
            Duplex::to(&gateway, Door::Streamable).open(),
        ];
        for (client, row) in clients.iter().zip(matrix) {
            let wanted = URIS.iter().zip(row).filter(|(_, wanted)| *wanted);
            wanted.for_each(|(uri, _)| subscribe(client, uri));
        }
        for uri in URIS {
            assert_eq!(asked_for(&behind.received(), uri), (1, 0), "{transport:?} {uri}");
            let n = clients[3].call("touch", &of(uri))["content"][0]["text"].clone();
            assert_eq!(n, "1", "{transport:?} {uri}: the sessions that the upstream told");
        }
        for (client, row) in clients.iter().zip(matrix) {
            for (uri, _) in URIS.iter().zip(row).filter(|(_, wanted)| *wanted) {
                client.wait_for(&format!("an update of {uri}"), |heard| {
                    (heard.tells(UPDATED) && heard.message["params"]["uri"] == **uri)
                        .then_some(())
                });
            }
        }
        stays_so("each hears of its own alone, once", Duration::from_millis(200), || {
            clients.iter().zip(matrix).all(|(client, row)| {
                told(client).len() == row.iter().filter(|wanted| **wanted).count()
            })
        });
        // Dropped with the last, however it goes.
        unsubscribe(&clients[0], TEXT_URI);
        clients[1].end();
        let seen = || asked_for(&behind.received(), TEXT_URI);
        stays_so("one is left", Duration::from_millis(200), || seen() == (1, 0));
        clients[2].end();
        wait_asked_for(&behind, TEXT_URI, (1, 1));
        wait_asked_for(&behind, ODD_URI, (1, 1));
        assert_eq!(asked_for(&behind.received(), BLOB_URI), (1, 0));
        unsubscribe(&clients[0], BLOB_URI);
        wait_asked_for(&behind, BLOB_URI, (1, 1));
    }
}

#[test]
fn a_session_counts_once_however_often_it_subscribes() {
    let behind = Behind::start(TRANSPORTS[0]);
    let gateway = behind.gateway(&json!({}));
    for (n, door) in DOORS.into_iter().enumerate() {
        let client = Duplex::to(&gateway, door).open();
        subscribe(&client, TEXT_URI);
        subscribe(&client, TEXT_URI);
        assert_eq!(asked_for(&behind.received(), TEXT_URI), (n + 1, n));
        client.call("touch", &of(TEXT_URI));
        client.wait_told(UPDATED);
        unsubscribe(&client, TEXT_URI);
        wait_asked_for(&behind, TEXT_URI, (n + 1, n + 1));
        assert_eq!(client.call("touch", &of(TEXT_URI))["content"][0]["text"], "0");
        assert_eq!(told(&client), [TEXT_URI]);
    }
}

#[test]
fn a_session_that_unsubscribed_hears_no_more() {
    let behind = Behind::start(TRANSPORTS[0]);
    let gateway = behind.gateway(&json!({}));
    let stays = Duplex::to(&gateway, Door::Streamable).open();
    let leaves = Duplex::to(&gateway, Door::Sse).open();
    subscribe(&stays, TEXT_URI);
    subscribe(&leaves, TEXT_URI);
    unsubscribe(&leaves, TEXT_URI);
    stays.call("touch", &of(TEXT_URI));
    assert_eq!(stays.wait_told(UPDATED), of(TEXT_URI));
    stays_so("the other hears nothing", Duration::from_millis(200), || {
        told(&leaves).is_empty()
    });
    assert_eq!(asked_for(&behind.received(), TEXT_URI), (1, 0));
}

#[test]
fn an_unsubscribe_that_is_refused_and_tried_again_ends_nobody_elses() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let leaves = Duplex::to(&gateway, Door::Streamable).open();
    let stays = Duplex::to(&gateway, Door::Sse).open();
    subscribe(&leaves, TEXT_URI);
    upstream.refuse(Some("resources/unsubscribe"));
    assert_eq!(leaves.refused("resources/unsubscribe", &of(TEXT_URI))["code"], -32603);
    upstream.refuse(None);
    subscribe(&stays, TEXT_URI);
    unsubscribe(&leaves, TEXT_URI);
    leaves.end();
    stays_so("it is asked once", Duration::from_millis(500), || {
        asked_for(&upstream.received(), TEXT_URI).1 == 1
    });
    stays.call("touch", &of(TEXT_URI));
    assert_eq!(stays.wait_told(UPDATED), of(TEXT_URI));
    assert!(told(&leaves).is_empty());
}

#[test]
fn a_server_that_hangs_does_not_keep_what_ended_sessions_have_at_others() {
    let (hung, well) = (HttpUpstream::start(), HttpUpstream::start());
    hung.set_resources(&["hung://1", "hung://2", "hung://3"]);
    well.set_resources(&["well://1", "well://2", "well://3"]);
    let server =
        |upstream: &HttpUpstream| json!({ "url": upstream.url(), "transport": "http" });
    let gateway = Gateway::started(
        json!({ "mcp_servers": { "hung": server(&hung), "well": server(&well) } }),
    );
    let alice = Duplex::to(&gateway, Door::Streamable).named("alice").open();
    alice.call("hung-whoami", &json!({}));
    alice.call("well-whoami", &json!({}));
    let client = Duplex::to(&gateway, Door::Streamable).open();
    let uris = |server: &str| [1, 2, 3].map(|n| format!("{server}://{n}"));
    uris("hung").iter().chain(&uris("well")).for_each(|uri| subscribe(&client, uri));
    hung.hang_on(Some("resources/unsubscribe"));
    alice.end();
    client.end();
    let watch = Stopwatch::start(&gateway);
    watch.wait_within(Duration::from_secs(1), "her own sessions end", || {
        (hung.n_deleted() == 1 && well.n_deleted() == 1).then_some(())
    });
    // One wait for the hung server, which has two seconds.
    watch.wait_within(Duration::from_secs(6), "the others are unsubscribed", || {
        let received = well.received();
        uris("well").iter().all(|uri| asked_for(&received, uri) == (1, 1)).then_some(())
    });
    let asked = params_of(&hung.received(), "resources/unsubscribe");
    assert_eq!(asked.len(), 1, "{asked:?}");
    // Nobody is counted any more, so the next one is the first.
    hung.hang_on(None);
    let next = Duplex::to(&gateway, Door::Streamable).open();
    for uri in uris("hung") {
        subscribe(&next, &uri);
        assert_eq!(asked_for(&hung.received(), &uri).0, 2, "{uri}");
    }
}

#[test]
fn a_uri_that_two_servers_list_is_subscribed_by_its_offered_name() {
    let (a, b) = (HttpUpstream::labelled("A"), HttpUpstream::labelled("B"));
    a.set_resources(&["same://x"]);
    b.set_resources(&["same://x"]);
    let server =
        |upstream: &HttpUpstream| json!({ "url": upstream.url(), "transport": "http" });
    let gateway =
        Gateway::started(json!({ "mcp_servers": { "a": server(&a), "b": server(&b) } }));
    for door in DOORS {
        let client = Duplex::to(&gateway, door).open();
        subscribe(&client, "b+same://x");
        assert_eq!(asked_for(&a.received(), "same://x"), (0, 0));
        assert_eq!(a.touch("same://x"), 0);
        assert_eq!(b.touch("same://x"), 1);
        assert_eq!(client.wait_told(UPDATED), of("b+same://x"), "{door:?}");
        unsubscribe(&client, "b+same://x");
    }
    // Behind its own endpoint it has its own URI.
    let client = Duplex::to(&gateway, Door::Streamable).at("/mcp/b").open();
    let merged = Duplex::to(&gateway, Door::Streamable).open();
    subscribe(&client, "same://x");
    subscribe(&merged, "b+same://x");
    assert_eq!(b.touch("same://x"), 1, "one subscription for both endpoints");
    assert_eq!(client.wait_told(UPDATED), of("same://x"));
    assert_eq!(merged.wait_told(UPDATED), of("b+same://x"));
}

#[test]
fn what_cannot_be_subscribed_to_is_refused() {
    let (a, b) = (HttpUpstream::labelled("A"), HttpUpstream::labelled("B"));
    let c = HttpUpstream::labelled("C");
    b.set_resources(&["only://b"]);
    let server =
        |upstream: &HttpUpstream| json!({ "url": upstream.url(), "transport": "http" });
    let gateway = Gateway::started(json!({
        "mcp_servers": { "a": server(&a), "b": server(&b), "c": server(&c) },
        "api_keys": [
            { "name": "all", "key": "key-of-all-1" },
            // Two servers: one alone would be asked, because it may have what it does not list.
            { "name": "not-b", "key": "key-of-a-12", "servers": ["a", "c"] },
        ],
    }));
    let client = Duplex::to(&gateway, Door::Streamable).key("key-of-a-12").open();
    for uri in ["only://b", "b+only://b", "nobody://x"] {
        let error = client.refused("resources/subscribe", &of(uri));
        assert_eq!(error["code"], -32002, "{uri}: {error}");
        assert_eq!(error["data"]["uri"], uri);
    }
    assert_eq!(client.refused("resources/subscribe", &json!({}))["code"], -32602);
    assert!(params_of(&b.received(), "resources/subscribe").is_empty());
}

#[test]
fn an_upstream_session_that_is_opened_anew_is_subscribed_again() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = Duplex::to(&gateway, Door::Streamable).open();
    subscribe(&client, TEXT_URI);
    upstream.forget_sessions();
    upstream.listener.break_off_connections();
    client.call("echo", &json!({ "message": "m" }));
    let peer = client.call("whoami", &json!({}))["structuredContent"]["peer"].clone();
    wait_until("the new session is subscribed", || {
        upstream.received().iter().any(|received| {
            peer == received.peer && received.message["method"] == "resources/subscribe"
        })
    });
    client.call("touch", &of(TEXT_URI));
    assert_eq!(client.wait_told(UPDATED), of(TEXT_URI));
}

#[test]
fn updates_that_nobody_here_asked_for_reach_nobody() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    wait_until("the gateway listens upstream", || upstream.n_streams() > 0);
    let clients = DOORS.map(|door| Duplex::to(&gateway, door).open());
    upstream.emit(UPDATED, &of(TEXT_URI));
    stays_so("nobody hears of it", Duration::from_millis(200), || {
        clients.iter().all(|client| told(client).is_empty())
    });
}
