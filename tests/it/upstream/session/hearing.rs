//! What a server says on a session that clients share and that names no call: it reaches the one
//! principal whom it can be about, else nobody. And what one client wants logged makes no other
//! client hear more, or less.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::behind::{Behind, TRANSPORTS, Transport, params_of};
use crate::support::duplex::{DOORS, Door, Duplex};
use crate::support::gateway::Gateway;
use crate::support::script::LEVELS;
use crate::support::{stays_so, wait_until};

const MESSAGE: &str = "notifications/message";
const UNKNOWN: &str = "notifications/x/told";
const CHANGED: &str = "notifications/tools/list_changed";
/// So long nothing more comes.
const QUIET: Duration = Duration::from_millis(200);

fn two_keys() -> Value {
    json!({ "api_keys": [
        { "name": "a", "key": "key-of-a", "admin": true },
        { "name": "b", "key": "key-of-b" },
    ]})
}

fn log(data: &str) -> Value {
    json!({ "level": "emergency", "data": data })
}

/// What the client was told, of log messages and of those that nobody knows.
fn told(client: &Duplex) -> Vec<Value> {
    let both = [MESSAGE, UNKNOWN].map(|method| client.told(method));
    both.concat().iter().map(|params| params["data"].clone()).collect()
}

fn unattributed(gateway: &Gateway) -> u64 {
    gateway.status_of("s")["unattributed_messages"].as_u64().unwrap()
}

/// Says both kinds of what names no call.
fn say(behind: &Behind, data: &str) {
    let script = behind.script().unwrap();
    script.emit(MESSAGE, &log(data));
    script.emit(UNKNOWN, &json!({ "data": data }));
}

fn begin_slow(client: &Duplex, behind: &Behind, label: &str) -> std::thread::JoinHandle<Value> {
    let call = client.begin_call("slow", &json!({ "label": label }));
    let is_there = |labels: &[String]| labels.iter().any(|it| it == label);
    behind.script().unwrap().wait_until("it is there", |seen| is_there(&seen.slow));
    call
}

/// A gateway before a server, whose shared session is listened to.
fn listened_to(behind: &Behind) -> Gateway {
    let gateway = behind.gateway(&two_keys());
    if let Some(script) = behind.script() {
        wait_until("the gateway listens", || script.n_streams() > 0);
    }
    gateway
}

#[test]
fn what_names_no_call_reaches_the_only_one_who_has_calls_there() {
    for transport in [Transport::Http, Transport::Sse] {
        for door in DOORS {
            let behind = Behind::start(transport);
            let gateway = listened_to(&behind);
            let script = behind.script().unwrap();
            let open = |key: &str| Duplex::to(&gateway, door).key(key).open();
            let (a, also_a, b) = (open("key-of-a"), open("key-of-a"), open("key-of-b"));
            let before = unattributed(&gateway);
            say(&behind, "nobody's");
            wait_until("what is about no call is counted, and nobody's", || {
                unattributed(&gateway) >= before + 2
            });

            let of_a = begin_slow(&a, &behind, "a");
            say(&behind, "a's");
            for client in [&a, &also_a] {
                wait_until("whose call it is hears it", || told(client) == ["a's", "a's"]);
            }
            let of_b = begin_slow(&b, &behind, "b");
            let before = unattributed(&gateway);
            say(&behind, "either's");
            wait_until("it is counted", || unattributed(&gateway) >= before + 2);

            script.release_labelled("a");
            of_a.join().unwrap();
            wait_until("the one who is left hears it", || {
                say(&behind, "b's");
                told(&b).len() >= 2
            });
            script.release_labelled("b");
            of_b.join().unwrap();
            stays_so("nobody hears another one's", QUIET, || {
                told(&b).iter().all(|data| data == "b's")
                    && told(&a) == ["a's", "a's"]
                    && told(&also_a) == told(&a)
            });
            // That lists have changed is everybody's.
            script.change("tools", &format!("new-{transport:?}-{door:?}"));
            for client in [&a, &also_a, &b] {
                client.wait_told(CHANGED);
            }
        }
    }
}

#[test]
fn a_call_logs_to_its_caller_whatever_the_server_is_spoken_to_over() {
    for transport in TRANSPORTS {
        let behind = Behind::start(transport);
        let gateway = listened_to(&behind);
        for door in DOORS {
            let open = |key: &str| Duplex::to(&gateway, door).key(key).open();
            let (a, b) = (open("key-of-a"), open("key-of-b"));
            for (caller, name) in [(&a, "a"), (&b, "b"), (&a, "a")] {
                caller.call("log", &json!({ "messages": [log(name)] }));
                caller.wait_told(MESSAGE);
            }
            wait_until("all have come", || told(&a).len() == 2 && told(&b).len() == 1);
            stays_so("each hears its own", QUIET, || {
                told(&a) == ["a", "a"] && told(&b) == ["b"]
            });
        }
    }
}

#[test]
fn a_call_that_was_given_up_may_still_be_meant() {
    let behind = Behind::start(Transport::Sse);
    let gateway = listened_to(&behind);
    let open = |key: &str| Duplex::to(&gateway, Door::Streamable).key(key).open();
    let (a, b) = (open("key-of-a"), open("key-of-b"));
    let params = json!({ "name": "slow", "arguments": { "label": "a" } });
    a.start_as(&json!("given-up"), "tools/call", &params);
    behind.script().unwrap().wait_for_slow(1);
    a.notify("notifications/cancelled", &json!({ "requestId": "given-up" }));
    wait_until("it is given up", || behind.has_cancelled("a"));
    let of_b = begin_slow(&b, &behind, "b");
    let before = unattributed(&gateway);
    say(&behind, "perhaps a's");
    wait_until("it is counted", || unattributed(&gateway) >= before + 2);
    behind.script().unwrap().release_slow();
    of_b.join().unwrap();
    stays_so("nobody hears it", QUIET, || told(&a).is_empty() && told(&b).is_empty());
}

#[test]
fn where_one_principal_is_alone_its_sessions_hear_what_is_about_no_call() {
    let behind = Behind::start(Transport::Http);
    let gateway = listened_to(&behind);
    let open = || Duplex::to(&gateway, Door::Streamable).key("key-of-a").open();
    let clients = [open(), open()];
    for client in &clients {
        wait_until("it hears it", || {
            say(&behind, "a's");
            told(client).len() >= 2
        });
    }
    // Somebody else who has no session calls, and may be meant from there on.
    let call = |key: &str| {
        let call = crate::support::http::Request::post(
            "/mcp/tools/call",
            &json!({ "name": "echo", "arguments": { "message": "m" } }),
        );
        gateway.send(&call.header("x-api-key", key)).expect(200);
    };
    call("key-of-b");
    let before = unattributed(&gateway);
    wait_until("it is nobody's, although its call has ended long ago", || {
        say(&behind, "perhaps b's");
        unattributed(&gateway) >= before + 2
    });
    let hears = |client: &Duplex| told(client).iter().any(|data| data == "perhaps b's");
    stays_so("nobody hears it", QUIET, || !clients.iter().any(hears));
}

#[test]
fn without_keys_every_session_is_somebody_else() {
    let behind = Behind::start(Transport::Http);
    let gateway = behind.gateway(&json!({}));
    wait_until("the gateway listens", || behind.script().unwrap().n_streams() > 0);
    let first = Duplex::to(&gateway, Door::Streamable).open();
    wait_until("who is alone hears it", || {
        say(&behind, "the first's");
        told(&first).len() >= 2
    });
    let second = Duplex::to(&gateway, Door::Sse).open();
    let before = unattributed(&gateway);
    say(&behind, "either's");
    wait_until("it is counted", || unattributed(&gateway) >= before + 2);
    let hears = |client: &Duplex| told(client).iter().any(|data| data == "either's");
    stays_so("nobody hears it", QUIET, || !hears(&first) && !hears(&second));
}

fn set_level(client: &Duplex, level: &str) {
    assert_eq!(client.result("logging/setLevel", &json!({ "level": level })), json!({}));
}

fn one_of_each() -> Value {
    let messages = LEVELS.map(|level| json!({ "level": level, "data": level }));
    json!({ "messages": messages })
}

fn wait_for_level(behind: &Behind, level: &str) {
    behind.wait_received(&format!("the level {level} is set"), |received| {
        let set = params_of(received, "logging/setLevel");
        set.last().is_some_and(|params| params["level"] == level).then_some(())
    });
}

#[test]
fn nobody_hears_more_or_less_because_of_what_another_wants() {
    for transport in TRANSPORTS {
        let behind = Behind::start(transport);
        let gateway = behind.gateway(&two_keys());
        for door in DOORS {
            let open = |key: &str| Duplex::to(&gateway, door).key(key).open();
            let (wants, unsaid) = (open("key-of-a"), open("key-of-b"));
            for level in ["debug", "emergency"] {
                set_level(&wants, level);
                wait_for_level(&behind, if level == "debug" { "debug" } else { "info" });
                let before = told(&unsaid).len();
                unsaid.call("log", &one_of_each());
                let heard = || told(&unsaid).split_off(before);
                wait_until("the last one comes", || {
                    heard().last().is_some_and(|it| it == LEVELS[7])
                });
                assert_eq!(heard(), LEVELS[1..], "{transport:?} {door:?} {level}");
            }
            wants.end();
            unsaid.end();
        }
    }
}

#[test]
fn the_shared_level_is_the_lowest_that_is_wanted_there() {
    let behind = Behind::start(Transport::Http);
    let gateway = behind.gateway(&two_keys());
    let open = |key: &str| Duplex::to(&gateway, Door::Streamable).key(key);
    let first = open("key-of-a").open();
    set_level(&first, "error");
    wait_for_level(&behind, "error");
    // One that has not said wants what is usual.
    let second = open("key-of-b").open();
    wait_for_level(&behind, "info");
    set_level(&second, "debug");
    wait_for_level(&behind, "debug");
    // A client with a session of its own wants nothing there.
    let own = open("key-of-b").named("own").open();
    second.end();
    wait_for_level(&behind, "error");
    set_level(&own, "debug");
    set_level(&first, "alert");
    wait_for_level(&behind, "alert");
    let set = params_of(&behind.received(), "logging/setLevel");
    let shared: Vec<&Value> = set.iter().map(|params| &params["level"]).collect();
    assert_eq!(shared.iter().filter(|it| **it == "debug").count(), 2, "{shared:?}");
}
