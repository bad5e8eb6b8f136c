//! What a client hears and has on sessions of its own with servers, and nobody else.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::behind::{Behind, TRANSPORTS};
use crate::support::duplex::{DOORS, Door, Duplex};
use crate::support::gateway::Gateway;
use crate::support::stays_so;

const MESSAGE: &str = "notifications/message";

/// Lets the server say something on the session of this client's calls, outside of calls.
fn emit(client: &Duplex, method: &str, params: &Value) {
    client.call("emit", &json!({ "method": method, "params": params }));
}

fn says(data: &str) -> Value {
    json!({ "level": "info", "data": data })
}

/// What the log messages hold that a client was told.
fn logged(client: &Duplex) -> Vec<Value> {
    client.told(MESSAGE).iter().map(|params| params["data"].clone()).collect()
}

/// Everything behind every transport, through every door.
fn everywhere(check: impl Fn(&str, &Behind, &Gateway, Door)) {
    for transport in TRANSPORTS {
        let behind = Behind::start(transport);
        let gateway = behind.gateway(&json!({}));
        for door in DOORS {
            check(&format!("{transport:?} {door:?}"), &behind, &gateway, door);
        }
    }
}

#[test]
fn a_client_with_a_session_of_its_own_hears_nothing_of_the_shared_one() {
    const VENDOR: &str = "notifications/vendor/news";
    everywhere(|at, _, gateway, door| {
        let alice = Duplex::to(gateway, door).named("alice").open();
        let plain = Duplex::to(gateway, door).open();
        alice.call("whoami", &json!({}));
        emit(&plain, MESSAGE, &says("shared"));
        emit(&plain, VENDOR, &json!({ "of": "shared" }));
        plain.wait_told(VENDOR);
        emit(&alice, MESSAGE, &says("own"));
        emit(&alice, VENDOR, &json!({ "of": "own" }));
        alice.wait_told(VENDOR);
        stays_so("each hears of its own session", Duration::from_millis(100), || {
            logged(&alice) == ["own"] && logged(&plain) == ["shared"]
        });
        assert_eq!(alice.told(VENDOR), [json!({ "of": "own" })], "{at}");
        assert_eq!(plain.told(VENDOR), [json!({ "of": "shared" })], "{at}");
        // Lists are the same for all.
        plain.call("add_tool", &json!({ "name": format!("added_by_{door:?}") }));
        alice.wait_told("notifications/tools/list_changed");
    });
}

#[test]
fn one_that_shares_by_configuration_hears_the_shared_session() {
    let behind = Behind::start(TRANSPORTS[0]);
    let mut server = behind.config();
    server["session"] = json!("shared");
    let gateway = Gateway::started(json!({ "mcp_servers": { "s": server } }));
    let alice = Duplex::to(&gateway, Door::Streamable).named("alice").open();
    let plain = Duplex::to(&gateway, Door::Streamable).open();
    emit(&plain, MESSAGE, &says("shared"));
    alice.wait_told(MESSAGE);
    plain.wait_told(MESSAGE);
}
