//! When a question to a client ends without its answer: with the call in which it was asked, or
//! because its own server takes it back.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::behind::{Behind, TRANSPORTS, Transport, answers};
use crate::support::duplex::{DOORS, Door, Duplex, Heard, Say, all_capabilities};
use crate::support::gateway::Gateway;
use crate::support::{stays_so, wait_for};

const CANCELLED: &str = "notifications/cancelled";

/// More than one session may have open at once.
const N_QUESTIONS: usize = 40;

/// A client that can be asked everything and says nothing.
fn silent(gateway: &Gateway, door: Door, revision: &str) -> Duplex {
    Duplex::to(gateway, door)
        .speaking(revision)
        .declaring(all_capabilities())
        .answering(|_| Say::Nothing)
        .open()
}

fn params(tool: &str) -> Value {
    json!({ "name": tool, "arguments": {} })
}

/// The question has ended, and both sides know.
#[track_caller]
fn check_ended(client: &Duplex, asked: &Heard, behind: &Behind, at: &str) {
    let told = client.wait_for("that no answer is needed", |heard| {
        let is_it = heard.message["params"]["requestId"] == asked.message["id"];
        (heard.tells(CANCELLED) && is_it).then_some(heard.via)
    });
    assert_eq!(told, asked.via, "{at}");
    let answer = behind.wait_received("an error", |received| answers(received).pop());
    assert_eq!(answer.message["error"]["code"], -32603, "{at}: {}", answer.text);
    assert!(answer.text.contains("call"), "the reason is not told: {at}: {}", answer.text);
}

#[test]
fn a_cancelled_call_ends_its_question() {
    for transport in TRANSPORTS {
        for door in DOORS {
            for revision in ["2024-11-05", "2025-11-25"] {
                let at = format!("{transport:?} {door:?} {revision}");
                let behind = Behind::start(transport);
                let gateway = behind.gateway(&json!({}));
                let client = silent(&gateway, door, revision);
                let id = json!("mine");
                let _call = client.begin_as(&id, "tools/call", &params("ask_sampling"));
                let asked = client.wait_asked("sampling/createMessage");
                client.notify(CANCELLED, &json!({ "requestId": id }));
                check_ended(&client, &asked, &behind, &at);
            }
        }
    }
}

#[test]
fn a_call_that_fails_ends_its_question() {
    for transport in TRANSPORTS {
        let behind = Behind::start(transport);
        let mut server = behind.config();
        server["timeout_ms"] = json!(500);
        server["timeout_max_ms"] = json!(500);
        let gateway = Gateway::started(json!({ "mcp_servers": { "s": server } }));
        for door in DOORS {
            let at = format!("{transport:?} {door:?}");
            let client = silent(&gateway, door, "2025-11-25");
            let ended = client.begin_call("ask_sampling", &json!({})).join().unwrap();
            assert!(ended["error"].is_object(), "{at}: {ended}");
            let asked = client.wait_asked("sampling/createMessage");
            check_ended(&client, &asked, &behind, &at);
        }
    }
}

#[test]
fn calls_that_were_cancelled_leave_room_for_questions() {
    for door in DOORS {
        let behind = Behind::start(Transport::Http);
        let gateway = behind.gateway(&json!({}));
        let client = silent(&gateway, door, "2025-11-25");
        for n in 1..=N_QUESTIONS {
            let id = json!(format!("call {n}"));
            let _call = client.begin_as(&id, "tools/call", &params("ask_roots"));
            wait_for(&format!("question {n}, {door:?}"), || {
                (client.questions().len() == n).then_some(())
            });
            client.notify(CANCELLED, &json!({ "requestId": id }));
        }
        client.wait_told_times(CANCELLED, N_QUESTIONS);
    }
}

#[test]
fn an_answered_call_ends_what_was_asked_on_its_stream_alone() {
    for transport in TRANSPORTS {
        for door in DOORS {
            let at = format!("{transport:?} {door:?}");
            let behind = Behind::start(transport);
            let gateway = behind.gateway(&json!({}));
            let client = silent(&gateway, door, "2025-11-25");
            client.call("ask_roots", &json!({ "leave": true }));
            let asked = client.wait_asked("roots/list");
            if transport == Transport::Http {
                check_ended(&client, &asked, &behind, &at);
                continue;
            }
            // On a stream of all calls, it may be about none of them.
            stays_so("nobody takes it back", Duration::from_millis(200), || {
                client.told(CANCELLED).is_empty() && answers(&behind.received()).is_empty()
            });
            let result = json!({ "roots": [{ "uri": "file:///late" }] });
            let id = &asked.message["id"];
            client.post(&json!({ "jsonrpc": "2.0", "id": id, "result": result })).expect(202);
            let answer = behind.wait_received("the answer", |it| answers(it).pop());
            assert_eq!(answer.message["result"], result, "{at}");
        }
    }
}

#[test]
fn a_server_takes_back_no_question_of_another() {
    for transport in TRANSPORTS {
        for door in DOORS {
            let at = format!("{transport:?} {door:?}");
            let (asking, other) = (Behind::start(Transport::Http), Behind::start(transport));
            let servers = json!({ "a": asking.config(), "b": other.config() });
            let gateway = Gateway::started(json!({ "mcp_servers": servers }));
            let client = silent(&gateway, door, "2025-11-25");
            let call = client.begin_call("a-ask_roots", &json!({ "id": "both" }));
            let asked = client.wait_asked("roots/list");
            let taken_back = json!({ "method": CANCELLED, "params": { "requestId": "both" } });
            client.call("b-emit", &taken_back);
            stays_so("the question stays open", Duration::from_millis(300), || {
                client.told(CANCELLED).is_empty()
            });
            let result = json!({ "roots": [{ "uri": "file:///mine" }] });
            let id = &asked.message["id"];
            client.post(&json!({ "jsonrpc": "2.0", "id": id, "result": result })).expect(202);
            let message = call.join().unwrap();
            let answer = &message["result"]["structuredContent"]["answers"][0];
            assert_eq!(answer["result"], result, "{at}: {message}");
        }
    }
}
