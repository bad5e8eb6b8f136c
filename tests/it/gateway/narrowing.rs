//! A key that may see less after a reload: what its sessions had at the servers that are no longer
//! theirs goes, and nobody else notices.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::behind::{Behind, Transport, params_of};
use crate::support::duplex::{DOORS, Door, Duplex};
use crate::support::gateway::Gateway;
use crate::support::modern::ModernClient;
use crate::support::script::{Script, TEXT_URI};
use crate::support::upstream_http::HttpUpstream;
use crate::support::{stays_so, wait_until};

const UPDATED: &str = "notifications/resources/updated";
const LISTS: [&str; 3] = [
    "notifications/tools/list_changed",
    "notifications/prompts/list_changed",
    "notifications/resources/list_changed",
];

/// Servers `a`, which has everything, and `b`; keys `less` and `all`, of which the first may see
/// these.
struct Narrowing {
    a: HttpUpstream,
    b: HttpUpstream,
}

impl Narrowing {
    fn new() -> Narrowing {
        let (a, b) = (HttpUpstream::labelled("a"), HttpUpstream::with_tools(&["echo"]));
        Narrowing { a, b }
    }

    fn config(&self, less: &Value) -> Value {
        let http =
            |upstream: &HttpUpstream| json!({ "url": upstream.url(), "transport": "http" });
        json!({
            "prefix": "always",
            "mcp_servers": { "a": http(&self.a), "b": http(&self.b) },
            "api_keys": [
                { "name": "less", "key": "less", "servers": less },
                { "name": "all", "key": "all" },
            ],
        })
    }

    fn started(&self) -> Gateway {
        Gateway::started(self.config(&json!(["a", "b"])))
    }
}

fn subscribe(client: &Duplex) {
    assert_eq!(client.result("resources/subscribe", &json!({ "uri": TEXT_URI })), json!({}));
}

fn touch(client: &Duplex) {
    client.call("a-touch", &json!({ "uri": TEXT_URI }));
}

fn n_unsubscribed(script: &Script) -> usize {
    params_of(&script.received(), "resources/unsubscribe").len()
}

#[test]
fn what_was_subscribed_to_is_heard_of_no_more() {
    for door in DOORS {
        let servers = Narrowing::new();
        let gateway = servers.started();
        let open = |key: &str| Duplex::to(&gateway, door).key(key).open();
        let (less, all) = (open("less"), open("all"));
        let mut listening = ModernClient::to(&gateway)
            .key("less")
            .listen(&json!({ "toolsListChanged": true, "resourceSubscriptions": [TEXT_URI] }));
        assert_eq!(listening.honoured["resourceSubscriptions"], json!([TEXT_URI]));
        [&less, &all].into_iter().for_each(subscribe);
        touch(&all);
        for client in [&less, &all] {
            client.wait_told(UPDATED);
        }
        assert_eq!(listening.next()["method"], UPDATED);

        gateway.reload(&servers.config(&json!(["b"])));
        less.wait_told(LISTS[0]);
        assert_eq!(listening.next()["method"], LISTS[0]);
        touch(&all);
        all.wait_told_times(UPDATED, 2);
        stays_so("it hears nothing", Duration::from_millis(200), || {
            less.told(UPDATED).len() == 1
        });
        // The other one's is left.
        assert_eq!(n_unsubscribed(&servers.a), 0);

        // Given the server again, it is told so, and is subscribed to nothing.
        gateway.reload(&servers.config(&json!(["a", "b"])));
        less.wait_told_times(LISTS[0], 2);
        assert_eq!(listening.next()["method"], LISTS[0]);
        touch(&all);
        all.wait_told_times(UPDATED, 3);
        stays_so("it hears nothing", Duration::from_millis(200), || {
            less.told(UPDATED).len() == 1
        });
        subscribe(&less);
        touch(&all);
        less.wait_told_times(UPDATED, 2);
    }
}

#[test]
fn the_last_subscription_and_the_clients_own_session_are_taken_back() {
    let servers = Narrowing::new();
    let gateway = servers.started();
    let open = || Duplex::to(&gateway, Door::Streamable).key("less");
    let (plain, asked) = (open().open(), open().named("asked").open());
    subscribe(&plain);
    asked.call("a-whoami", &json!({}));
    let other = Duplex::to(&gateway, Door::Sse).key("all").named("other").open();
    other.call("a-whoami", &json!({}));
    gateway.reload(&servers.config(&json!(["b"])));
    wait_until("it is unsubscribed", || n_unsubscribed(&servers.a) == 1);
    wait_until("its session is ended", || servers.a.n_deleted() == 1);
    stays_so("no other is", Duration::from_millis(300), || servers.a.n_deleted() == 1);
    let n_initialize = servers.a.seen().n_initialize;
    other.call("a-whoami", &json!({}));
    assert_eq!(servers.a.seen().n_initialize, n_initialize);
    // It begins anew where it may again.
    gateway.reload(&servers.config(&json!(["a", "b"])));
    asked.wait_told_times(LISTS[0], 2);
    asked.call("a-whoami", &json!({}));
    assert_eq!(servers.a.seen().n_initialize, n_initialize + 1);
}

#[test]
fn a_server_that_comes_again_is_subscribed_to_by_nobody() {
    let servers = Narrowing::new();
    let both = servers.config(&json!(["a", "b"]));
    let gateway = Gateway::started(both.clone());
    let open = |key: &str| Duplex::to(&gateway, Door::Streamable).key(key).open();
    let (before, after) = (open("less"), open("all"));
    subscribe(&before);
    let mut without = both.clone();
    without["mcp_servers"].as_object_mut().unwrap().remove("a");
    without["api_keys"][0]["servers"] = json!(["b"]);
    gateway.reload(&without);
    gateway.reload(&both);
    let touched = |client: &Duplex| {
        let answer = client.request(
            "tools/call",
            &json!({
                "name": "a-touch", "arguments": { "uri": TEXT_URI },
            }),
        );
        answer["result"]["content"][0]["text"].as_str().map(str::to_owned)
    };
    // Nobody is told, since nobody is subscribed.
    // The session that was before is ended a moment later.
    wait_until("the server is there, and tells nobody", || {
        touched(&after).as_deref() == Some("0")
    });
    subscribe(&after);
    touch(&after);
    after.wait_told(UPDATED);
    stays_so("what was before counts no more", Duration::from_millis(200), || {
        before.told(UPDATED).is_empty()
    });
}

#[test]
fn only_those_whose_lists_may_differ_are_told_and_once() {
    let servers = Narrowing::new();
    let gateway = servers.started();
    for less in [json!(["b"]), json!(["a", "b"])] {
        let open = |key: &str| Duplex::to(&gateway, Door::Streamable).key(key).open();
        let (concerned, other) = (open("less"), open("all"));
        gateway.reload(&servers.config(&less));
        for list in LISTS {
            concerned.wait_told(list);
        }
        stays_so("each is told once", Duration::from_millis(200), || {
            let told = |client: &Duplex| LISTS.map(|list| client.told(list).len());
            told(&concerned) == [1; 3] && told(&other) == [0; 3]
        });
    }
}

#[test]
fn another_key_of_the_same_name_has_none_of_the_tasks() {
    let behind = Behind::start(Transport::Http);
    let config = |key: &str| {
        json!({
            "mcp_servers": { "s": behind.config() },
            "api_keys": [{ "name": "k", "key": key }, { "name": "other", "key": "other" }],
        })
    };
    let gateway = Gateway::started(config("first"));
    let open = |key: &str| Duplex::to(&gateway, Door::Streamable).key(key).open();
    let begin = |client: &Duplex| {
        let params = json!({ "name": "long", "arguments": { "finished": true }, "task": { "ttl": 60000 } });
        client.result("tools/call", &params)["task"]["taskId"].clone()
    };
    let other = open("other");
    let (theirs, of_other) = (begin(&open("first")), begin(&other));
    gateway.reload(&config("second"));
    let second = open("second");
    assert!(second.list("tasks/list", "tasks").is_empty());
    second.refused("tasks/get", &json!({ "taskId": theirs }));
    assert_eq!(
        other.result("tasks/get", &json!({ "taskId": of_other }))["status"],
        "completed"
    );
}
