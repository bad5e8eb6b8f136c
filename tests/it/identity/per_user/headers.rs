//! Headers that clients forward, and what the configuration says of users.

use serde_json::json;

use super::{Client, OVER_HTTP, VIAS, Via, bearer, key_of, keys, of_users};
use crate::support::behind::{Behind, Era, Transport};
use crate::support::ears::all_capabilities;
use crate::support::gateway::{Directory, Gateway};
use crate::support::http::Request;
use crate::support::modern::ModernClient;
use crate::support::upstream_http::HttpUpstream;

#[test]
fn a_forwarded_header_arrives_where_it_is_listed_by_every_door() {
    for (era, transport) in OVER_HTTP {
        let behind = Behind::of(era, transport, "a");
        let script = behind.script().unwrap();
        script.tell_users_by("Authorization");
        let mut config = behind.config();
        config["forward_headers"] = json!(["Authorization", "X-Tenant"]);
        config["headers"] = json!({ "X-Fixed": "fixed", "x-tenant": "of all" });
        let config = json!({ "api_keys": keys(&["k"]), "mcp_servers": { "s": config } });
        let gateway = Gateway::started(config);
        for (n, via) in VIAS.into_iter().enumerate() {
            let (user, tenant) = (format!("user{n}"), format!("tenant{n}"));
            let client = Client::of(
                &gateway,
                via,
                &[
                    ("Authorization", &bearer("k")),
                    ("X-MCP-S-AUTHORIZATION", &format!("Bearer {user}")),
                    ("x-mcp-s-x-tenant", &format!("  {tenant} ")),
                    ("x-mcp-s-x-other", "unlisted"),
                    ("x-mcp-t-authorization", "unlisted"),
                    ("x-tenant", "unlisted"),
                ],
            );
            assert_eq!(client.whoami("whoami"), user, "{era:?} {transport:?} {via:?}");
        }
        let heads = script.heads();
        for head in &heads {
            let of = |name: &str| {
                let is_it = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
                let values = head.headers.iter().filter(is_it).map(|(_, value)| value.as_str());
                values.collect::<Vec<_>>()
            };
            for (name, value) in &head.headers {
                assert!(!value.contains(&key_of("k")), "the gateway's key: {head:?}");
                assert!(!name.to_ascii_lowercase().starts_with("x-mcp-"), "{head:?}");
                assert!(!value.contains("unlisted"), "{head:?}");
            }
            assert_eq!(of("X-Fixed"), ["fixed"], "{head:?}");
            match of("Authorization")[..] {
                [] => assert_eq!(of("X-Tenant"), ["of all"], "{head:?}"),
                [user] => {
                    let n = user.strip_prefix("Bearer user").unwrap();
                    assert_eq!(of("X-Tenant"), [format!("tenant{n}")], "{head:?}");
                }
                _ => panic!("{head:?}"),
            }
        }
        assert_eq!(script.mixed(), [], "{era:?} {transport:?}");
        let users: Vec<String> = script.users().into_iter().collect();
        assert_eq!(users, ["nobody", "user0", "user1", "user2", "user3"]);
    }
}

#[test]
fn the_server_with_the_longest_name_gets_a_header() {
    let (git, hub) = (HttpUpstream::start(), HttpUpstream::start());
    let server = |it: &HttpUpstream, forwarded: &[&str]| json!({ "url": it.url(), "transport": "http", "forward_headers": forwarded });
    let gateway = Gateway::started(json!({ "mcp_servers": {
        "Git": server(&git, &["hub-x-key", "x-key", "authorization"]),
        "Git-Hub": server(&hub, &["x-key"]),
    }}));
    let client = Client::of(
        &gateway,
        Via::Rest,
        &[
            ("x-mcp-git-hub-x-key", "hub's"),
            ("x-mcp-git-x-key", "git's"),
            ("x-mcp-git-hub-authorization", "nobody's"),
        ],
    );
    client.call("Git-whoami", &json!({}));
    client.call("Git-Hub-whoami", &json!({}));
    let values = |upstream: &HttpUpstream, name: &str| {
        let heads = upstream.heads();
        let mut values: Vec<_> =
            heads.iter().filter_map(|head| head.header(name).map(str::to_owned)).collect();
        values.sort();
        values.dedup();
        values
    };
    assert_eq!(values(&hub, "x-key"), ["hub's"]);
    assert_eq!(values(&git, "x-key"), ["git's"]);
    for upstream in [&git, &hub] {
        assert_eq!(values(upstream, "hub-x-key"), [""; 0]);
        assert_eq!(values(upstream, "authorization"), [""; 0]);
    }
}

/// A server could read either of two values.
#[test]
fn a_header_for_a_server_stands_once() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(json!({
        "api_keys": [
            { "name": "k", "key": key_of("k") },
            { "name": "other", "key": key_of("other"), "servers": ["t"] },
        ],
        "mcp_servers": {
            "Own": { "url": upstream.url(), "transport": "http", "forward_headers": ["Authorization"] },
            "t": { "url": upstream.url(), "transport": "http" },
        },
    }));
    let call = json!({ "name": "t-echo", "arguments": { "message": "m" } });
    for path in ["/mcp/tools/call", "/mcp-rest/tools/call"] {
        let once = |key: &str| {
            Request::post(path, &call)
                .header("Authorization", &bearer(key))
                .header("x-mcp-own-authorization", "Bearer a")
        };
        gateway.send(&once("k")).expect(200);
        let told =
            gateway.send(&once("k").header("X-MCP-Own-Authorization", "Bearer b")).expect(400);
        assert!(
            told.text().contains("x-mcp-own-authorization header stands more than once"),
            "{}",
            told.text()
        );
        // That a server is there is told nobody who may not see it.
        gateway.send(&once("other").header("X-MCP-Own-Authorization", "Bearer b")).expect(200);
    }
}

#[test]
fn a_server_is_told_who_calls_by_every_transport() {
    let kinds = OVER_HTTP
        .into_iter()
        .chain([(Era::Legacy, Transport::Stdio), (Era::Modern, Transport::Stdio)]);
    for (era, transport) in kinds {
        let (behind, config) = of_users(era, transport);
        let config =
            json!({ "api_keys": keys(&["alice", "bob"]), "mcp_servers": { "s": config } });
        let gateway = Gateway::with(config).start();
        for user in ["alice", "bob", "alice"] {
            for via in VIAS {
                let client = Client::of(&gateway, via, &[("Authorization", &bearer(user))]);
                let at = format!("{era:?} {transport:?} {via:?}");
                assert_eq!(client.whoami("whoami"), user, "{at}");
                client.await_own_tools(&[&format!("of_{user}")]);
                let other = if user == "alice" { "of_bob" } else { "of_alice" };
                let refused = client.call(other, &json!({}));
                assert!(refused.get("error").is_some(), "{at}: {refused}");
            }
        }
        if let Some(script) = behind.script() {
            assert_eq!(script.users().into_iter().collect::<Vec<_>>(), ["alice", "bob"]);
            assert_eq!(script.mixed(), []);
        } else {
            let mut children: Vec<_> =
                behind.received().iter().map(|it| it.peer.clone()).collect();
            children.sort();
            children.dedup();
            assert_eq!(children.len(), 2, "a child each: {children:?}");
        }
    }
}

#[test]
fn a_caller_of_whom_too_little_is_known_is_told_so() {
    let upstream = HttpUpstream::start();
    let server = |header: &str| json!({ "url": upstream.url(), "transport": "http", "headers": { "X-User": header } });
    let gateway = Gateway::with(json!({ "mcp_servers": {
        "named": server("${user.name}"),
        "claimed": server("tenant ${user.claims.tenant}"),
    }}))
    .start();
    for via in VIAS {
        let client = Client::of(&gateway, via, &[]);
        let of = |tool: &str| client.call(tool, &json!({})).to_string();
        let named = of("named-echo");
        assert!(named.contains("X-User: the caller has no name"), "{via:?}: {named}");
        let claimed = of("claimed-echo");
        assert!(claimed.contains("no claim \\\"tenant\\\""), "{via:?}: {claimed}");
    }
    assert!(upstream.heads().is_empty(), "nobody is connected to it");
    let list = gateway.list();
    let entry = crate::support::gateway::entry_of(&list["upstreams"], "named").unwrap();
    assert!(entry.to_string().contains("no name"), "{entry}");
}

#[test]
fn a_browser_may_send_such_headers() {
    let upstream = HttpUpstream::start();
    let server =
        json!({ "url": upstream.url(), "transport": "http", "forward_headers": ["x-key"] });
    let gateway = Gateway::started(json!({
        "allowed_origins": ["https://app.example"], "mcp_servers": { "s": server },
    }));
    let request = Request::new("OPTIONS", "/mcp")
        .header("Origin", "https://app.example")
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", "content-type, x-mcp-s-x-key");
    let answer = gateway.send(&request);
    let allowed = answer.header("Access-Control-Allow-Headers").unwrap_or_default();
    assert!(allowed.contains("x-mcp-s-x-key"), "{answer}");
}

/// Those who share a key may each have credentials of their own.
#[test]
fn a_call_that_waits_for_answers_goes_on_with_the_credentials_that_began_it_alone() {
    for era in [Era::Legacy, Era::Modern] {
        let behind = Behind::of(era, Transport::Http, "a");
        let script = behind.script().unwrap();
        script.tell_users_by("Authorization");
        let mut config = behind.config();
        config["forward_headers"] = json!(["Authorization"]);
        let gateway = Gateway::started(json!({
            "api_keys": keys(&["k", "other"]), "mcp_servers": { "s": config },
        }));
        let client = |key: &str, user: Option<&str>| {
            let client = ModernClient::to(&gateway).key(&key_of(key));
            let client = client.declaring(all_capabilities());
            match user {
                Some(user) => client.header("x-mcp-s-authorization", &format!("Bearer {user}")),
                None => client,
            }
        };
        let rightful = client("k", Some("one"));
        let params = json!({ "name": "ask_elicitation", "arguments": { "prompt": "of one" } });
        let asked = rightful.request("tools/call", &params);
        assert!(asked.wants_input(), "{era:?}: {}", asked.text);
        let accept = json!({ "action": "accept", "content": { "zulu": "z" } });
        let said: serde_json::Value =
            asked.requests().into_iter().map(|(key, _)| (key, accept.clone())).collect();
        for other in [client("k", Some("two")), client("k", None), client("other", Some("one"))]
        {
            other.retry("tools/call", &params, &asked, &said).refused(400, -32602);
        }
        let done = rightful.retry("tools/call", &params, &asked, &said);
        assert!(done.message["result"]["content"].is_array(), "{era:?}: {}", done.text);
        assert_eq!(script.mixed(), [], "{era:?}");
    }
}

/// Nothing is known of the server then but what the retry brings: its call is not to be made twice.
#[test]
fn the_answers_for_a_user_s_server_arrive_also_after_a_restart() {
    let behind = Behind::of(Era::Modern, Transport::Http, "a");
    behind.script().unwrap().tell_users_by("Authorization");
    let state = Directory::new();
    let mut config = behind.config();
    config["forward_headers"] = json!(["Authorization"]);
    let config = json!({
        "api_keys": keys(&["k"]), "mcp_servers": { "s": config }, "state_dir": state.path(),
    });
    let client = |gateway: &Gateway| {
        let client = ModernClient::to(gateway).key(&key_of("k"));
        client.declaring(all_capabilities()).header("x-mcp-s-authorization", "Bearer one")
    };
    let params = json!({ "name": "ask_elicitation", "arguments": { "prompt": "of one" } });
    let gateway = Gateway::started(config.clone());
    let asked = client(&gateway).request("tools/call", &params);
    assert!(asked.wants_input(), "{}", asked.text);
    let accept = json!({ "action": "accept", "content": { "zulu": "z" } });
    let said = asked.requests().into_iter().map(|(key, _)| (key, accept.clone())).collect();
    gateway.stop();
    let gateway = Gateway::started(config);
    let done = client(&gateway).retry("tools/call", &params, &asked, &said);
    assert!(done.message["result"]["content"].is_array(), "{}", done.text);
}
