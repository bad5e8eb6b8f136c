//! When users' upstreams begin and end, and what becomes of their lists and subscriptions.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Client, Via, bearer, key_of, keys, of_users};
use crate::support::behind::{Era, Transport};
use crate::support::duplex::{DOORS, Door, Duplex};
use crate::support::gateway::{Gateway, is_alive};
use crate::support::issuer::Issuer;
use crate::support::upstream_http::HttpUpstream;
use crate::support::{wait_for, wait_until};

const TOOLS_CHANGED: &str = "notifications/tools/list_changed";
const UPDATED: &str = "notifications/resources/updated";

#[test]
fn two_users_who_share_a_key_are_two() {
    let upstream = HttpUpstream::start();
    upstream.tell_users_by("X-Token");
    let gateway = Gateway::started(json!({
        "api_keys": keys(&["team"]),
        "mcp_servers": { "s": {
            "url": upstream.url(), "transport": "http", "forward_headers": ["X-Token"],
        }},
    }));
    for door in DOORS {
        let open = |user: &str| {
            let client = Duplex::to(&gateway, door).key(&key_of("team"));
            client.header("x-mcp-s-x-token", user).open()
        };
        let (alice, bob) = (open("alice"), open("bob"));
        let plain = Duplex::to(&gateway, door).key(&key_of("team")).open();
        let whoami = |client: &Duplex| {
            let result = client.call("whoami", &json!({}));
            result["structuredContent"]["user"].as_str().unwrap().to_owned()
        };
        assert_eq!((whoami(&alice), whoami(&bob)), ("alice".into(), "bob".into()));
        assert_eq!(whoami(&plain), "nobody");
        // A task is whose credentials began it.
        let task = alice.result(
            "tools/call",
            &json!({
                "name": "long", "arguments": { "finished": false }, "task": { "ttl": 60_000 },
            }),
        )["task"]["taskId"]
            .clone();
        alice.result("tasks/get", &json!({ "taskId": task }));
        for other in [&bob, &plain] {
            let refused = other.refused("tasks/get", &json!({ "taskId": task }));
            assert_eq!(refused["code"], -32602, "{refused}");
            assert_eq!(other.names("tasks/list", "tasks", "taskId"), [""; 0]);
        }
        let own = alice.names("tasks/list", "tasks", "taskId");
        assert!(own.contains(&task.as_str().unwrap().to_owned()), "{own:?}");
        // So is what it is told of.
        for client in [&alice, &bob] {
            let user = whoami(client);
            client.result(
                "resources/subscribe",
                &json!({ "uri": format!("user://{user}/notes") }),
            );
        }
        let uri = json!({ "uri": "user://alice/notes" });
        wait_until("alice is told", || {
            upstream.tell_user("alice", UPDATED, &uri);
            !alice.told(UPDATED).is_empty()
        });
        assert!(bob.told(UPDATED).is_empty() && plain.told(UPDATED).is_empty());
    }
    assert_eq!(upstream.mixed(), []);
}

#[test]
fn a_session_goes_on_with_renewed_credentials() {
    let upstream = HttpUpstream::start();
    upstream.tell_users_by("X-Token");
    let gateway = Gateway::started(json!({ "mcp_servers": { "s": {
        "url": upstream.url(), "transport": "http", "forward_headers": ["X-Token"],
    }}}));
    let before = Duplex::to(&gateway, Door::Streamable).header("x-mcp-s-x-token", "old").open();
    before.call("whoami", &json!({}));
    before.result("resources/subscribe", &json!({ "uri": "file:///notes/plain.txt" }));
    let session = before.session();
    let after = crate::support::mcp::McpClient::new(gateway.address())
        .with_header("x-mcp-s-x-token", "new")
        .in_session(&session);
    let result = after.call("whoami", &json!({}));
    assert_eq!(result["structuredContent"]["user"], "new", "{result}");
    // The subscription comes along.
    wait_until("the new one is subscribed", || {
        let received = upstream.received();
        let subscribed =
            received.iter().filter(|it| it.message["method"] == "resources/subscribe");
        let users: Vec<_> = subscribed.filter_map(|it| upstream.user_of(&it.peer)).collect();
        users == ["old", "new"]
    });
    wait_until("what the new one hears is told", || {
        upstream.tell_user("new", UPDATED, &json!({ "uri": "file:///notes/plain.txt" }));
        !before.told(UPDATED).is_empty()
    });
    wait_for("the old one is unsubscribed", || {
        let received = upstream.received();
        received.iter().any(|it| it.message["method"] == "resources/unsubscribe").then_some(())
    });
}

#[test]
fn a_list_that_takes_long_is_told_of_later_to_its_user_alone() {
    let (behind, config) = of_users(Era::Legacy, Transport::Http);
    let script = behind.script().unwrap();
    let config = json!({ "api_keys": keys(&["alice", "bob"]), "mcp_servers": { "s": config } });
    let gateway = Gateway::with(config).start();
    let open = |user: &str| Duplex::to(&gateway, Door::Streamable).key(&key_of(user)).open();
    let bob = open("bob");
    assert!(bob.names("tools/list", "tools", "name").contains(&"of_bob".to_owned()));
    script.hold(Some("tools/list"));
    let began = Instant::now();
    let alice = open("alice");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(alice.names("tools/list", "tools", "name"), [""; 0]);
    let began = Instant::now();
    assert_eq!(alice.names("tools/list", "tools", "name"), [""; 0]);
    assert!(began.elapsed() < Duration::from_secs(3), "waited again: {:?}", began.elapsed());
    script.hold(None);
    alice.wait_told(TOOLS_CHANGED);
    assert!(alice.names("tools/list", "tools", "name").contains(&"of_alice".to_owned()));
    assert!(bob.told(TOOLS_CHANGED).is_empty());
    alice.call("of_alice", &json!({}));
}

#[test]
fn a_key_that_ends_ends_its_sessions_with_servers() {
    let (http, mut config) = of_users(Era::Legacy, Transport::Http);
    config["description"] = json!("d");
    let (child, of_child) = of_users(Era::Legacy, Transport::Stdio);
    let whole = |names: &[&str]| {
        json!({ "listen": "127.0.0.1:0", "api_keys": keys(names),
            "mcp_servers": { "http": config, "child": of_child } })
    };
    let gateway = Gateway::with(whole(&["root", "alice", "bob"])).start();
    let clients = ["alice", "bob"]
        .map(|it| Client::of(&gateway, Via::Rest, &[("Authorization", &bearer(it))]));
    for (client, user) in clients.iter().zip(["alice", "bob"]) {
        assert_eq!(client.whoami("http-whoami"), user);
        assert_eq!(client.whoami("child-whoami"), user);
    }
    let script = http.script().unwrap();
    let pid_of = |user: &str| {
        let client = Client::of(&gateway, Via::Rest, &[("Authorization", &bearer(user))]);
        let answer = client.call("child-pid", &json!({}));
        u32::try_from(answer["structuredContent"]["pid"].as_u64().unwrap()).unwrap()
    };
    let (alice, bob) = (pid_of("alice"), pid_of("bob"));
    assert_ne!(alice, bob);
    let initialized = script.seen().n_initialize;
    gateway.reload(&whole(&["root", "bob"]));
    wait_until("alice's child ends", || !is_alive(alice));
    assert!(is_alive(bob));
    assert_eq!(pid_of("bob"), bob);
    assert_eq!(clients[1].whoami("http-whoami"), "bob");
    assert_eq!(script.seen().n_initialize, initialized, "bob's session is the same");
    drop(child);
}

#[test]
fn what_a_user_without_rights_has_at_servers_ends() {
    let issuer = Issuer::start();
    let (child, of_child) = of_users(Era::Legacy, Transport::Stdio);
    let whole = |groups: &[&str]| {
        json!({
            "listen": "127.0.0.1:0",
            "oauth": {
                "issuers": [issuer.config()],
                "rules": [{ "claim": "groups", "any": groups }],
            },
            "mcp_servers": { "child": of_child },
        })
    };
    let gateway = Gateway::with(whole(&["staff", "ops"])).start();
    let [alice, bob] = [("alice", "staff"), ("bob", "ops")].map(|(user, group)| {
        let token = format!("Bearer {}", issuer.token(user, &[group]));
        let client = Client::of(&gateway, Via::Rest, &[("Authorization", &token)]);
        let answer = client.call("pid", &json!({}));
        let pid = answer["structuredContent"]["pid"].as_u64();
        u32::try_from(pid.unwrap_or_else(|| panic!("{answer}"))).unwrap()
    });
    assert_ne!(alice, bob);
    gateway.reload(&whole(&["ops"]));
    wait_until("alice's child ends", || !is_alive(alice));
    assert!(is_alive(bob));
    drop(child);
}

#[test]
fn a_session_hears_of_a_server_that_has_become_its_user_s_own() {
    let ((one, of_one), (two, of_two)) =
        (of_users(Era::Legacy, Transport::Http), of_users(Era::Legacy, Transport::Http));
    let whole = |servers: serde_json::Value| {
        json!({ "listen": "127.0.0.1:0", "prefix": "always", "api_keys": keys(&["alice"]),
            "mcp_servers": servers })
    };
    let gateway = Gateway::with(whole(json!({ "one": of_one }))).start();
    let alice = Duplex::to(&gateway, Door::Streamable).key(&key_of("alice")).open();
    alice.call("one-whoami", &json!({}));
    gateway.reload(&whole(json!({ "one": of_one, "two": of_two })));
    wait_for("the second server is called", || {
        let answer = alice.request("tools/call", &json!({ "name": "two-whoami" }));
        (answer["result"]["structuredContent"]["user"] == "alice").then_some(())
    });
    const LOG: &str = "notifications/message";
    wait_until("alice is told", || {
        two.script().unwrap().tell_user("alice", LOG, &json!({ "level": "error", "data": 2 }));
        !alice.told(LOG).is_empty()
    });
    drop(one);
}

#[test]
fn what_a_user_no_longer_uses_ends() {
    let (http, config) = of_users(Era::Legacy, Transport::Http);
    let gateway = Gateway::with(json!({
        "api_keys": keys(&["alice", "bob"]),
        "limits": { "session_idle_ms": 500 },
        "mcp_servers": { "s": config },
    }))
    .start();
    // Bob has a stream open, and must hear of changes.
    let bob = Duplex::to(&gateway, Door::Sse).key(&key_of("bob")).open();
    assert!(bob.names("tools/list", "tools", "name").contains(&"of_bob".to_owned()));
    let alice = Client::of(&gateway, Via::Rest, &[("Authorization", &bearer("alice"))]);
    assert_eq!(alice.whoami("whoami"), "alice");
    let script = http.script().unwrap();
    wait_until("alice's session with the server ends", || {
        script.tell_user("alice", "x", &json!({})) == 0
    });
    assert!(script.tell_user("bob", TOOLS_CHANGED, &json!({})) > 0);
    bob.call("whoami", &json!({}));
    assert_eq!(alice.whoami("whoami"), "alice", "it begins anew");
}

#[test]
fn a_reload_takes_users_subscriptions_along() {
    let (http, mut config) = of_users(Era::Legacy, Transport::Http);
    let script = http.script().unwrap();
    let whole = |server: &serde_json::Value| json!({ "listen": "127.0.0.1:0", "api_keys": keys(&["alice"]), "mcp_servers": { "s": server } });
    let gateway = Gateway::with(whole(&config)).start();
    let alice = Duplex::to(&gateway, Door::Streamable).key(&key_of("alice")).open();
    alice.names("tools/list", "tools", "name");
    alice.result("resources/subscribe", &json!({ "uri": "user://alice/notes" }));
    let subscribed = || {
        let received = script.received();
        received.iter().filter(|it| it.message["method"] == "resources/subscribe").count()
    };
    assert_eq!(subscribed(), 1);
    config["headers"]["X-Other"] = json!("new");
    gateway.reload(&whole(&config));
    wait_until("it is subscribed to again", || subscribed() == 2);
    wait_until("alice is told", || {
        script.tell_user("alice", UPDATED, &json!({ "uri": "user://alice/notes" }));
        !alice.told(UPDATED).is_empty()
    });
    assert!(alice.names("tools/list", "tools", "name").contains(&"of_alice".to_owned()));
}

#[test]
fn twenty_users_end_with_the_gateway_in_time() {
    let (http, config) = of_users(Era::Legacy, Transport::Http);
    let (_child, of_child) = of_users(Era::Legacy, Transport::Stdio);
    let names: Vec<String> = (0..20).map(|n| format!("u{n:02}u")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let gateway = Gateway::with(json!({
        "api_keys": keys(&names),
        "limits": { "drain_ms": 2000 },
        "mcp_servers": { "http": config, "child": of_child },
    }))
    .start();
    let mut children = Vec::new();
    for name in &names {
        let client = Client::of(&gateway, Via::Rest, &[("Authorization", &bearer(name))]);
        assert_eq!(client.whoami("http-whoami"), *name);
        let answer = client.call("child-pid", &json!({}));
        children.push(answer["structuredContent"]["pid"].as_u64().unwrap());
    }
    assert_eq!(http.script().unwrap().users().len(), 20);
    let began = Instant::now();
    let ended = gateway.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    // Twice the drain, because the machine may be busy.
    assert!(began.elapsed() < Duration::from_secs(4 + 4), "{:?}", began.elapsed());
    for child in children {
        assert!(!is_alive(u32::try_from(child).unwrap()), "{child}");
    }
}
