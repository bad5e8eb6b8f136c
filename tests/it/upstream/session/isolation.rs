//! Many clients on one upstream: each is asked and told what is its own, and upstream sessions
//! are shared or a client's own as the design says.

use std::collections::BTreeSet;
use std::sync::{Arc, Barrier};

use serde_json::{Value, json};

use crate::support::behind::{Behind, TRANSPORTS, Transport, of_method, params_of};
use crate::support::duplex::{DOORS, Door, Duplex, all_capabilities};
use crate::support::gateway::{Gateway, is_alive};
use crate::support::upstream_http::HttpUpstream;
use crate::support::upstream_sse::SseUpstream;
use crate::support::{in_background, wait_until};

const N_CLIENTS: usize = 20;

fn peer(client: &Duplex) -> String {
    client.call("whoami", &json!({}))["content"][0]["text"].as_str().unwrap().to_owned()
}

/// Asks the client everything at once and checks that every answer is its own, and that it was
/// asked nothing else.
fn check_own(client: &Duplex, name: &str) {
    let prompt = format!("for {name}");
    let arguments = json!({ "prompt": prompt });
    let calls = [
        client.begin_call("ask_sampling", &arguments),
        client.begin_call("ask_elicitation", &arguments),
        client.begin_call("ask_twice", &arguments),
    ];
    for call in calls {
        let message = call.join().unwrap();
        let answers = message["result"]["structuredContent"]["answers"].clone();
        for answer in answers.as_array().unwrap_or_else(|| panic!("{name}: {message}")) {
            let said = answer["result"].to_string();
            let is_own = [format!("model of {name}\""), format!(":\"{name}\"")];
            let is_own = is_own.iter().any(|own| said.contains(own))
                || said.contains(&format!("file:///{name}\""));
            assert!(is_own, "{name} sees the answer {said}");
        }
    }
    let message = json!({ "level": "emergency", "data": name });
    client.call("log", &json!({ "messages": [message] }));
    client.wait_told("notifications/message");
}

/// What a client heard all in all is its own.
fn check_heard(client: &Duplex, name: &str) {
    let asked = client.questions();
    assert_eq!(asked.len(), 4, "{name}: {asked:?}");
    for question in &asked {
        let is_own =
            question.asks("roots/list") || question.text.contains(&format!("\"for {name}\""));
        assert!(is_own, "{name} was asked {}", question.text);
    }
    let told = client.told("notifications/message");
    assert_eq!(told, [json!({ "level": "emergency", "data": name })], "{name}");
}

fn run(transport: Transport) {
    let behind = Behind::start(transport);
    let mut server = behind.config();
    server["max_sessions"] = json!(N_CLIENTS + 2);
    let gateway = Gateway::started(json!({ "mcp_servers": { "s": server } }));
    let start = Arc::new(Barrier::new(N_CLIENTS));
    let threads: Vec<_> = (0..N_CLIENTS)
        .map(|n| {
            let name = format!("client-{n:02}");
            let client = Duplex::to(&gateway, DOORS[n % 2]).named(&name).open();
            let start = start.clone();
            in_background(move || {
                start.wait();
                check_own(&client, &name);
                (client, name)
            })
        })
        .collect();
    // Nobody ends before all have been asked.
    let ended: Vec<_> = threads.into_iter().map(std::thread::JoinHandle::join).collect();
    let clients: Vec<(Duplex, String)> = ended.into_iter().map(Result::unwrap).collect();
    clients.iter().for_each(|(client, name)| check_heard(client, name));
    let peers: BTreeSet<String> = clients.iter().map(|(client, _)| peer(client)).collect();
    assert_eq!(peers.len(), N_CLIENTS, "each client has an upstream session of its own");
}

#[test]
fn twenty_clients_on_one_http_server_see_their_own_alone() {
    run(Transport::Http);
}

#[test]
fn twenty_clients_on_one_sse_server_see_their_own_alone() {
    run(Transport::Sse);
}

#[test]
fn twenty_clients_on_one_child_s_program_see_their_own_alone() {
    run(Transport::Stdio);
}

#[test]
fn clients_without_features_share_one_upstream_session() {
    for transport in TRANSPORTS {
        let behind = Behind::start(transport);
        let gateway = behind.gateway(&json!({}));
        let clients: Vec<Duplex> =
            (0..6).map(|n| Duplex::to(&gateway, DOORS[n % 2]).open()).collect();
        let mut peers: Vec<String> = clients.iter().map(peer).collect();
        peers.dedup();
        assert_eq!(peers.len(), 1, "{transport:?}");
        let opened = params_of(&behind.received(), "initialize");
        assert_eq!(opened.len(), 1, "{transport:?}");
        assert_eq!(opened[0]["capabilities"], json!({}), "{transport:?}");
    }
}

#[test]
fn a_session_of_its_own_is_opened_on_first_need_and_declares_what_its_client_does() {
    for transport in TRANSPORTS {
        let behind = Behind::start(transport);
        let gateway = behind.gateway(&json!({}));
        let declared = [
            json!({ "sampling": { "tools": {} } }),
            json!({ "elicitation": { "url": {} } }),
            json!({ "roots": { "listChanged": true }, "experimental": { "x.example/y": { "z": 1 } } }),
        ];
        let n_opened = || of_method(&behind.received(), "initialize").len();
        for (n, capabilities) in declared.iter().enumerate() {
            let builder = Duplex::to(&gateway, DOORS[n % 2]);
            let client = builder.declaring(capabilities.clone()).open();
            client.list("tools/list", "tools");
            assert_eq!(n_opened(), n + 2, "{transport:?}: its lists are read there");
            let me = client.call("whoami", &json!({}))["structuredContent"].clone();
            assert_eq!(n_opened(), n + 2, "{transport:?}");
            assert_eq!(me["initialize"]["capabilities"], *capabilities, "{transport:?}");
            assert_eq!(me["peer"], peer(&client), "it is kept: {transport:?}");
            assert_eq!(n_opened(), n + 2, "{transport:?}");
        }
    }
}

#[test]
fn sessions_can_be_shared_by_all_or_each_client_s_own() {
    let upstream = HttpUpstream::start();
    for (mode, plain_shares, named_shares) in
        [("shared", true, true), ("per_client", false, false), ("auto", true, false)]
    {
        let server = json!({ "url": upstream.url(), "transport": "http", "session": mode });
        let gateway = Gateway::started(json!({ "mcp_servers": { "s": server } }));
        let open = || Duplex::to(&gateway, Door::Streamable);
        let (first, second) = (open().open(), open().open());
        assert_eq!(peer(&first) == peer(&second), plain_shares, "{mode}");
        let (alice, bob) = (open().named("alice").open(), open().named("bob").open());
        assert_eq!(peer(&alice) == peer(&bob), named_shares, "{mode}");
    }
}

#[test]
fn an_upstream_session_ends_with_its_client_s() {
    for door in DOORS {
        let upstream = HttpUpstream::start();
        let gateway = Gateway::before(&upstream.url());
        let (alice, bob) = (
            Duplex::to(&gateway, door).named("alice").open(),
            Duplex::to(&gateway, door).named("bob").open(),
        );
        assert_ne!(peer(&alice), peer(&bob));
        assert_eq!(upstream.n_deleted(), 0);
        alice.end();
        wait_until("the session is deleted", || upstream.n_deleted() == 1);
        bob.call("ask_roots", &json!({}));
        assert_eq!(upstream.n_deleted(), 1);

        let upstream = SseUpstream::start();
        let server = json!({ "url": upstream.url(), "transport": "sse" });
        let gateway = Gateway::started(json!({ "mcp_servers": { "s": server } }));
        let alice = Duplex::to(&gateway, door).named("alice").open();
        peer(&alice);
        let n_before = upstream.n_ended();
        alice.end();
        wait_until("the stream is closed", || upstream.n_ended() == n_before + 1);

        let behind = Behind::start(Transport::Stdio);
        let gateway = behind.gateway(&json!({}));
        let alice = Duplex::to(&gateway, door).named("alice").open();
        let child: u32 = peer(&alice).parse().unwrap();
        assert!(is_alive(child));
        alice.end();
        wait_until("the child has ended", || !is_alive(child));
        let plain = Duplex::to(&gateway, door).open();
        assert!(is_alive(peer(&plain).parse().unwrap()), "the shared one lives on");
    }
}

#[test]
fn a_session_that_idles_makes_room_at_the_bound() {
    let upstream = HttpUpstream::start();
    let server = json!({ "url": upstream.url(), "transport": "http", "max_sessions": 3 });
    let gateway = Gateway::started(json!({ "mcp_servers": { "s": server } }));
    let names: Vec<String> = (0..6).map(|n| format!("client-{n}")).collect();
    let clients: Vec<Duplex> = names
        .iter()
        .map(|name| Duplex::to(&gateway, Door::Streamable).named(name).open())
        .collect();
    // Twice round: who lost its session gets another one.
    for _ in 0..2 {
        for (client, name) in clients.iter().zip(&names) {
            let answer = client.call("ask_roots", &json!({}))["structuredContent"].clone();
            let uri = answer["answers"][0]["result"]["roots"][0]["uri"].clone();
            assert_eq!(uri, format!("file:///{name}"));
        }
    }
    wait_until("three are open at the most", || {
        upstream.seen().n_initialize - upstream.n_deleted() <= 3
    });
    let log = gateway.stop().stderr;
    assert!(log.contains("to make room for another client's (max_sessions is 3)"), "{log}");
}

#[test]
fn more_clients_than_sessions_take_turns() {
    for transport in TRANSPORTS {
        let behind = Behind::start(transport);
        let mut server = behind.config();
        server["max_sessions"] = json!(3);
        let gateway = Gateway::started(json!({ "mcp_servers": { "s": server } }));
        let clients: Vec<Duplex> = (0..8)
            .map(|n| {
                Duplex::to(&gateway, Door::Streamable).named(&format!("client-{n}")).open()
            })
            .collect();
        let calls: Vec<_> =
            clients.iter().map(|client| client.begin_call("ask_roots", &json!({}))).collect();
        for (n, call) in calls.into_iter().enumerate() {
            let message = call.join().unwrap();
            assert!(message.to_string().contains(&format!("file:///client-{n}")), "{message}");
        }
    }
}

#[test]
fn a_client_s_lists_and_session_stay_its_own_when_the_upstream_forgets() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = Duplex::to(&gateway, Door::Streamable).named("alice").open();
    let before = peer(&client);
    upstream.forget_sessions();
    let after = peer(&client);
    assert_ne!(before, after);
    let me = client.call("whoami", &json!({}))["structuredContent"]["initialize"].clone();
    assert_eq!(me["capabilities"], all_capabilities());
    let roots: Value = client.call("ask_roots", &json!({}))["structuredContent"].clone();
    assert!(roots.to_string().contains("file:///alice"), "{roots}");
}
