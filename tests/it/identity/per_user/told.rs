//! What is told of users' credentials: never the credentials themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::{Client, VIAS, Via, bearer, key_of, keys};
use crate::support::authorization_server::Guarded;
use crate::support::gateway::Gateway;
use crate::support::http::Request;
use crate::support::modern::ModernClient;
use crate::support::upstream_http::HttpUpstream;
use crate::support::wait_for;

const SECRET: &str = "s3cr3t-of-alice-0123456789";

#[test]
fn a_credential_that_a_server_repeats_is_told_nowhere() {
    let upstream = HttpUpstream::start();
    upstream.fail_with(Some(401));
    upstream.fail_with_echo_of("Authorization");
    let gateway = Gateway::with(json!({
        "log": { "level": "debug", "bodies": true },
        "api_keys": [
            { "name": "alice", "key": key_of("alice") },
            { "name": "root", "key": key_of("root"), "admin": true },
        ],
        "mcp_servers": { "s": {
            "url": upstream.url(), "transport": "http", "forward_headers": ["Authorization"],
        }},
    }))
    .start();
    let header = format!("Bearer {SECRET}");
    for via in VIAS {
        let client = Client::of(
            &gateway,
            via,
            &[("Authorization", &bearer("alice")), ("x-mcp-s-authorization", &header)],
        );
        let refused = client.call("s-echo", &json!({})).to_string();
        assert!(refused.contains("401"), "{via:?}: {refused}");
        assert!(!refused.contains(SECRET), "{via:?}: {refused}");
    }
    let status = |user: &str| {
        let request = Request::get("/status").header("Authorization", &bearer(user));
        gateway.send(&request.header("x-mcp-s-authorization", &header)).expect(200).json()
    };
    let told = wait_for("the failure is told", || {
        let status = status("root");
        let users = status["upstreams"][0]["users"].clone();
        (users["failing"].as_u64() > Some(0)).then_some(users)
    });
    assert_eq!(told["failures"][0]["key"], "alice", "{told}");
    let failure = told["failures"][0]["last_failure"].to_string();
    assert!(failure.contains("401"), "{failure}");
    let own = status("alice");
    assert!(own["upstreams"][0].get("users").is_none(), "{own}");
    for text in [told.to_string(), own.to_string(), status("root").to_string()] {
        assert!(!text.contains(SECRET), "{text}");
    }
    assert!(!gateway.stderr().contains(SECRET), "{}", gateway.stderr());
}

#[test]
fn a_list_says_why_it_lacks_what_only_a_user_sees() {
    let upstream = HttpUpstream::start();
    upstream.fail_with(Some(401));
    let gateway = Gateway::with(json!({
        "api_keys": keys(&["alice"]),
        "mcp_servers": { "s": {
            "url": upstream.url(), "transport": "http", "headers": { "X-User": "${user.name}" },
        }},
    }))
    .start();
    let request = || Request::get("/mcp/tools/list").header("Authorization", &bearer("alice"));
    let entry = wait_for("the failure is told", || {
        let list = gateway.send(&request()).expect(200).json();
        let entry = crate::support::gateway::entry_of(&list["upstreams"], "s").unwrap();
        entry.to_string().contains("401").then_some(entry)
    });
    assert_ne!(entry["outcome"], "ok", "{entry}");
    // Once the server serves the user, the rest is there.
    upstream.fail_with(None);
    let client = Client::of(&gateway, Via::Rest, &[("Authorization", &bearer("alice"))]);
    wait_for("it is called", || {
        let answer = client.call("echo", &json!({ "message": "m" }));
        answer.to_string().contains("\"m\"").then_some(())
    });
}

/// Whoever brings nothing of its own, or something wrong, is told so; nobody else contacts such a
/// server.
#[test]
fn a_server_of_users_is_contacted_with_their_headers_alone() {
    let (upstream, other) = (HttpUpstream::start(), HttpUpstream::with_tools(&["echo"]));
    let without = Arc::new(AtomicUsize::new(0));
    let counted = without.clone();
    upstream.guard(move |request| {
        let given = request.head.header("Authorization");
        counted.fetch_add(usize::from(given.is_none()), Ordering::Relaxed);
        let challenge = [("WWW-Authenticate", "Bearer realm=\"tickets\"")];
        (given != Some("Bearer good"))
            .then(|| Guarded::new("401 Unauthorized", &challenge, "no such ticket holder"))
    });
    let gateway = Gateway::with(json!({
        "api_keys": keys(&["alice"]),
        "mcp_servers": {
            "tickets": {
                "url": upstream.url(), "transport": "http",
                "forward_headers": ["Authorization"], "credentials": "per_user",
            },
            "other": { "url": other.url(), "transport": "http" },
        },
    }))
    .start();
    gateway.wait_until_well(&["other"]);
    let alice = bearer("alice");
    let key = ("Authorization", &*alice);
    let header = |value| ("x-mcp-tickets-authorization", value);
    for via in VIAS {
        let plain = Client::of(&gateway, via, &[key]);
        let refused = plain.call("tickets-echo", &json!({})).to_string();
        assert!(refused.contains("gives no header x-mcp-tickets-authorization"), "{refused}");
        plain.own_tools();
        let wrong = Client::of(&gateway, via, &[key, header("Bearer wrong")]);
        let refused = wrong.call("tickets-echo", &json!({})).to_string();
        for told in ["status 401", "no such ticket holder", "realm="] {
            assert!(refused.contains(told), "{via:?}: {refused}");
        }
        let good = Client::of(&gateway, via, &[key, header("Bearer good")]);
        let answer = good.call("tickets-echo", &json!({ "message": "m" }));
        assert!(answer.to_string().contains("\"m\""), "{via:?}: {answer}");
    }
    // One that cannot be asked would have a view of its own.
    let modern = ModernClient::to(&gateway).key(&key_of("alice")).declaring(json!({}));
    let _listening = modern.listen(&json!({ "toolsListChanged": true }));
    assert_eq!(modern.tool_names(), ["other-echo"]);
    assert_eq!(without.load(Ordering::Relaxed), 0, "{}", gateway.stderr());
}
