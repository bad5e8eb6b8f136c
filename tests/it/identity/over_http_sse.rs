//! Sign-ins at servers over HTTP+SSE: one for all who use the gateway, and each user's own.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::asked_to_sign_in::{sign_in, text_of, url_of};
use super::upstream_sign_in::call;
use crate::support::authorization_server::{AuthorizationServer, Browser};
use crate::support::duplex::{DOORS, Duplex};
use crate::support::gateway::{Directory, Gateway};
use crate::support::upstream_sse::SseUpstream;
use crate::support::{wait_for, wait_until};

const ALICE: &str = "key-of-alice-00000";
const BOB: &str = "key-of-bob-0000000";

fn config(upstream: &SseUpstream, transport: &str, state: &Directory) -> Value {
    json!({
        "mcp_servers": { "s": { "url": upstream.url(), "transport": transport, "oauth": true } },
        "state_dir": state.path(),
        "first_list_ms": 100,
    })
}

#[test]
fn one_sign_in_opens_the_stream_and_every_message_carries_its_token() {
    for (transport, nonce) in [("sse", None), ("auto", None), ("sse", Some("nonce-1"))] {
        let (auth, upstream) = (AuthorizationServer::start(), SseUpstream::start());
        auth.protect(&upstream);
        if nonce.is_some() {
            // Each message has a proof of its own, for the URL of messages.
            auth.want_dpop(nonce);
            auth.set_metadata("dpop_signing_alg_values_supported", json!(["ES256"]));
        }
        let (state, browser) = (Directory::new(), Browser::start());
        let alone = Gateway::with(config(&upstream, transport, &state)).start();
        let told = wait_for("it needs a sign-in", || {
            let told = alone.status_of("s");
            (told["state"] == "needs_sign_in").then_some(told)
        });
        assert!(told.to_string().contains("trunkline login s"), "{transport}: {told}");
        assert_eq!(upstream.n_event_streams(), 0, "{transport}");
        alone.stop();
        let gateway = Gateway::with(config(&upstream, transport, &state))
            .env("BROWSER", &browser.command())
            .start();
        gateway.wait_until_well(&["s"]);
        call(&gateway);
        assert_eq!(auth.seen_of("GET /authorize")[0].field("resource"), upstream.url());
        let refreshes = || {
            let of = auth.seen_of("POST /token");
            let of = of.iter().filter(|it| it.field("grant_type") == "refresh_token");
            of.map(|it| it.field("refresh_token").to_owned()).collect::<HashSet<_>>().len()
        };
        // A message that is refused is sent again, on the stream that is open.
        auth.end_access_tokens();
        call(&gateway);
        assert_eq!((refreshes(), upstream.n_event_streams()), (1, 1), "{transport}");
        // So is the request for another stream.
        auth.end_access_tokens();
        upstream.listener.break_off_connections();
        wait_until("there is another stream", || upstream.n_event_streams() == 2);
        gateway.wait_until_well(&["s"]);
        call(&gateway);
        assert_eq!(refreshes(), 2, "{transport}");
        // A call waits for the person.
        auth.end_access_tokens();
        auth.end_refresh_tokens();
        call(&gateway);
        assert_eq!((auth.n_reused(), browser.pages().len()), (0, 2), "{transport}");
        gateway.stop();
        // Another process finds what is kept.
        let gateway = Gateway::with(config(&upstream, transport, &state)).start();
        gateway.wait_until_well(&["s"]);
        call(&gateway);
        assert_eq!(auth.seen_of("GET /authorize").len(), 2, "{transport}");
    }
}

#[test]
fn each_user_signs_in_and_has_a_stream_with_a_token_of_their_own() {
    let (auth, upstream) = (AuthorizationServer::start(), SseUpstream::start());
    auth.protect(&upstream);
    // By the token.
    upstream.tell_users_by("Authorization");
    let state = Directory::new();
    let mut config = config(&upstream, "sse", &state);
    config["mcp_servers"]["s"]["credentials"] = json!("per_user");
    config["api_keys"] =
        json!([{ "name": "alice", "key": ALICE }, { "name": "bob", "key": BOB }]);
    let gateway = Gateway::with(config).start();
    let echo = json!({ "message": "hello" });
    let clients: Vec<_> = DOORS
        .into_iter()
        .zip([("alice", ALICE), ("bob", BOB)])
        .map(|(door, (name, key))| {
            let client = Duplex::to(&gateway, door).key(key).named(name).open();
            let call = client.begin_call("echo", &echo);
            let asked = client.wait_asked("elicitation/create");
            sign_in(gateway.address(), &url_of(&asked.message["params"]), key);
            let answer = call.join().unwrap();
            assert_eq!(text_of(&answer["result"]), "hello", "{answer}");
            client
        })
        .collect();
    let tokens = upstream.users();
    assert_eq!(tokens.len(), 2, "{tokens:?}");
    assert!(upstream.mixed().is_empty());
    // Each is renewed on its own, where its user goes on.
    auth.end_access_tokens();
    for client in &clients {
        assert_eq!(text_of(&client.call("echo", &echo)), "hello");
    }
    let renewed = upstream.mixed();
    let streams: HashSet<_> = renewed.iter().map(|(stream, ..)| stream).collect();
    let new: HashSet<_> = renewed.iter().map(|(_, _, new)| new).collect();
    assert_eq!((streams.len(), new.len(), upstream.users().len()), (2, 2, 4), "{renewed:?}");
    assert_eq!(auth.seen_of("GET /authorize").len(), 2);
}
