//! Log messages: levels per session, the lowest wanted one upstream, and whose call a message
//! belongs to.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::behind::{Behind, TRANSPORTS, Transport, params_of};
use crate::support::duplex::{DOORS, Door, Duplex};
use crate::support::gateway::Gateway;
use crate::support::script::LEVELS;
use crate::support::stays_so;
use crate::support::upstream_http::HttpUpstream;

const MESSAGE: &str = "notifications/message";

fn set_level(client: &Duplex, level: &str) {
    assert_eq!(client.result("logging/setLevel", &json!({ "level": level })), json!({}));
}

/// A message of each level.
fn one_of_each() -> Value {
    let messages = LEVELS.map(|level| json!({ "level": level, "logger": "l", "data": level }));
    json!({ "messages": messages })
}

fn levels(client: &Duplex) -> Vec<String> {
    let told = client.told(MESSAGE);
    told.iter().map(|params| params["level"].as_str().unwrap().to_owned()).collect()
}

/// Which levels the shared session was set to so far.
fn set_upstream(behind: &Behind) -> Vec<String> {
    let set = params_of(&behind.received(), "logging/setLevel");
    set.iter().map(|params| params["level"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_session_hears_its_level_and_above() {
    for transport in TRANSPORTS {
        let behind = Behind::start(transport);
        let gateway = behind.gateway(&json!({}));
        for door in DOORS {
            for (n, level) in LEVELS.iter().enumerate() {
                let client = Duplex::to(&gateway, door).open();
                set_level(&client, level);
                client.call("log", &one_of_each());
                // The most urgent message is the last one.
                client.wait_for("the last message", |heard| {
                    (heard.message["params"]["level"] == LEVELS[7]).then_some(())
                });
                assert_eq!(levels(&client), LEVELS[n..], "{transport:?} {door:?} {level}");
                client.end();
            }
        }
    }
}

#[test]
fn a_session_that_set_no_level_hears_what_its_calls_log() {
    let behind = Behind::start(Transport::Http);
    let gateway = behind.gateway(&json!({}));
    for door in DOORS {
        let client = Duplex::to(&gateway, door).open();
        client.call("log", &one_of_each());
        client.wait_for("the last message", |heard| {
            (heard.message["params"]["level"] == LEVELS[7]).then_some(())
        });
        assert_eq!(levels(&client), LEVELS, "{door:?}");
    }
}

#[test]
fn a_message_passes_as_it_was_written_and_before_the_answer() {
    let behind = Behind::start(Transport::Http);
    let gateway = behind.gateway(&json!({}));
    let client = Duplex::to(&gateway, Door::Streamable).without_stream().open();
    set_level(&client, "debug");
    let message =
        json!({ "data": { "z": [1.5, null], "a": "\u{e9}" }, "level": "notice", "x": 1 });
    client.call("log", &json!({ "messages": [message] }));
    let heard = client.heard();
    let texts: Vec<&Value> = heard.iter().rev().take(2).map(|heard| &heard.message).collect();
    assert!(texts[0].get("result").is_some(), "the answer is last: {texts:?}");
    assert_eq!((&texts[1]["method"], &texts[1]["params"]), (&json!(MESSAGE), &message));
}

#[test]
fn the_lowest_wanted_level_is_set_upstream() {
    for transport in TRANSPORTS {
        let behind = Behind::start(transport);
        let gateway = behind.gateway(&json!({}));
        let expect_set = |level: &str| {
            behind.wait_received(&format!("the level {level} is set"), |received| {
                let set = params_of(received, "logging/setLevel");
                set.last().is_some_and(|params| params["level"] == level).then_some(())
            });
        };
        let first = Duplex::to(&gateway, Door::Streamable).open();
        set_level(&first, "error");
        expect_set("error");
        let second = Duplex::to(&gateway, Door::Sse).open();
        set_level(&second, "info");
        expect_set("info");
        // Raised by the one that wanted less than the other: nothing changes upstream.
        set_level(&first, "critical");
        set_level(&first, "warning");
        second.call("log", &one_of_each());
        assert_eq!(set_upstream(&behind).last().unwrap(), "info", "{transport:?}");
        set_level(&first, "debug");
        expect_set("debug");
    }
}

#[test]
fn messages_of_a_call_come_to_its_caller_alone() {
    let behind = Behind::start(Transport::Http);
    let gateway = behind.gateway(&json!({}));
    let open = |door| {
        let client = Duplex::to(&gateway, door).open();
        set_level(&client, "debug");
        client
    };
    for door in DOORS {
        let (caller, other) = (open(door), open(door));
        caller.call("log", &json!({ "messages": [{ "level": "info", "data": "mine" }] }));
        caller.wait_told(MESSAGE);
        stays_so("the other hears nothing", Duration::from_millis(200), || {
            other.told(MESSAGE).is_empty()
        });
    }
}

#[test]
fn messages_that_belong_to_no_call_come_to_every_session_of_a_key_at_its_level() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(json!({
        "api_keys": [{ "name": "k", "key": "key-of-k" }],
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }));
    crate::support::wait_until("the gateway listens upstream", || upstream.n_streams() > 0);
    for door in DOORS {
        let open = || Duplex::to(&gateway, door).key("key-of-k").open();
        let (wants, does_not) = (open(), open());
        set_level(&wants, "info");
        set_level(&does_not, "alert");
        upstream.emit(MESSAGE, &json!({ "level": "debug", "data": "low" }));
        upstream.emit(MESSAGE, &json!({ "level": "warning", "data": "middle" }));
        upstream.emit(MESSAGE, &json!({ "level": "emergency", "data": "high" }));
        let high = |client: &Duplex| {
            client.wait_for("the last", |heard| {
                (heard.message["params"]["data"] == "high").then_some(())
            });
        };
        high(&wants);
        high(&does_not);
        assert_eq!(levels(&wants), ["warning", "emergency"], "{door:?}");
        assert_eq!(levels(&does_not), ["emergency"], "{door:?}");
    }
}

#[test]
fn an_unknown_level_is_refused_and_none_is_set() {
    let behind = Behind::start(Transport::Http);
    let gateway = behind.gateway(&json!({}));
    let client = Duplex::to(&gateway, Door::Streamable).open();
    for params in [json!({ "level": "loud" }), json!({ "level": 3 }), json!({})] {
        assert_eq!(client.refused("logging/setLevel", &params)["code"], -32602, "{params}");
    }
    assert!(set_upstream(&behind).is_empty());
}

#[test]
fn a_session_of_its_own_is_set_to_its_clients_level() {
    let behind = Behind::start(Transport::Http);
    let gateway = behind.gateway(&json!({}));
    let client = Duplex::to(&gateway, Door::Streamable).named("alice").open();
    let plain = Duplex::to(&gateway, Door::Streamable).open();
    set_level(&plain, "debug");
    set_level(&client, "error");
    client.call("log", &one_of_each());
    assert_eq!(levels(&client), LEVELS[4..]);
    plain.call("log", &one_of_each());
    assert_eq!(levels(&plain), LEVELS);
}
