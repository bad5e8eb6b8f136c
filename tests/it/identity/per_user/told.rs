//! What is told of users' credentials: never the credentials themselves.

use serde_json::json;

use super::{Client, VIAS, Via, bearer, keys};
use crate::support::gateway::Gateway;
use crate::support::http::Request;
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
            { "name": "alice", "key": super::key_of("alice") },
            { "name": "root", "key": super::key_of("root"), "admin": true },
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
