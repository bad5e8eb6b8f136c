//! Whose tasks are: a key's, and without keys a session's. Everybody else's are unknown.

use serde_json::{Value, json};

use crate::support::behind::{Behind, TRANSPORTS, Transport, params_of};
use crate::support::duplex::{DOORS, Door, Duplex};
use crate::support::gateway::Gateway;
use crate::support::script::{RELATED_TASK, Script};
use crate::support::{unique, wait_for};

const STATUS: &str = "notifications/tasks/status";
const ABOUT: [&str; 3] = ["tasks/get", "tasks/result", "tasks/cancel"];

const ANNS: &str = "key-of-ann-123";
const BOBS: &str = "key-of-bob-123";

/// Two keys, of which the second may not use the tool that begins tasks.
fn keys() -> Value {
    json!({ "api_keys": [
        { "name": "ann", "key": ANNS },
        { "name": "bob", "key": BOBS, "tools": ["!s-long"] },
        { "name": "cyd", "key": "key-of-cyd-123" },
    ]})
}

#[track_caller]
fn begin(client: &Duplex, finished: bool) -> String {
    let params = json!({
        "name": "long", "arguments": { "finished": finished }, "task": { "ttl": 60000 },
    });
    let result = client.result("tools/call", &params);
    result["task"]["taskId"].as_str().unwrap_or_else(|| panic!("{result}")).to_owned()
}

fn of(id: &str) -> Value {
    json!({ "taskId": id })
}

fn listed(client: &Duplex) -> Vec<String> {
    client.names("tasks/list", "tasks", "taskId")
}

/// The task does not exist for that client, and the server is not even asked.
#[track_caller]
fn expect_unknown(client: &Duplex, behind: &Behind, id: &str) {
    let asked = |id: &str| ABOUT.map(|method| client.refused(method, &of(id)));
    let n_received = behind.received().len();
    let never_was = "s+task-999";
    let unknown = asked(never_was);
    let theirs = asked(id);
    for (theirs, unknown) in theirs.iter().zip(&unknown) {
        assert_eq!(theirs.to_string().replace(id, never_was), unknown.to_string());
        assert_eq!(theirs["code"], -32602);
    }
    let received = behind.received();
    for method in ABOUT {
        assert!(params_of(&received[n_received..], method).is_empty(), "{method} {id}");
    }
    assert!(!listed(client).contains(&id.to_owned()), "{id}");
}

/// What is said to everybody is heard by this client, so it has heard what was said before.
#[track_caller]
fn catch_up(script: &Script, client: &Duplex) {
    const CHANGED: &str = "notifications/tools/list_changed";
    let before = client.told(CHANGED).len();
    script.change("tools", &unique("mark"));
    client.wait_told_times(CHANGED, before + 1);
}

#[test]
fn a_keys_tasks_are_unknown_to_every_other_key() {
    for transport in TRANSPORTS {
        let behind = Behind::start(transport);
        let gateway = behind.gateway(&keys());
        for door in DOORS {
            let open = |key: &str| Duplex::to(&gateway, door).key(key).open();
            let (ann, bob, cyd) = (open(ANNS), open(BOBS), open("key-of-cyd-123"));
            let (working, finished) = (begin(&ann, false), begin(&ann, true));
            let of_cyd = begin(&cyd, true);
            for client in [&bob, &cyd] {
                expect_unknown(client, &behind, &working);
                expect_unknown(client, &behind, &finished);
            }
            expect_unknown(&ann, &behind, &of_cyd);
            assert!(listed(&bob).is_empty(), "{transport:?} {door:?}");
            assert_eq!(listed(&cyd).last(), Some(&of_cyd), "{transport:?} {door:?}");

            // Another session of the key has them all.
            let again = open(ANNS);
            let all = listed(&again);
            assert!(all.contains(&working) && all.contains(&finished), "{all:?}");
            assert_eq!(again.result("tasks/get", &of(&finished))["status"], "completed");
            assert!(again.result("tasks/result", &of(&finished))["content"].is_array());
            assert_eq!(again.result("tasks/cancel", &of(&working))["status"], "cancelled");
        }
    }
}

#[test]
fn without_keys_tasks_are_their_sessions() {
    let behind = Behind::start(Transport::Http);
    let gateway = behind.gateway(&json!({}));
    for door in DOORS {
        let open = || Duplex::to(&gateway, door).open();
        let (ann, bob) = (open(), open());
        let (of_ann, of_bob) = (begin(&ann, false), begin(&bob, true));
        expect_unknown(&bob, &behind, &of_ann);
        expect_unknown(&ann, &behind, &of_bob);
        assert_eq!((listed(&ann), listed(&bob)), (vec![of_ann.clone()], vec![of_bob]));
        assert_eq!(ann.result("tasks/get", &of(&of_ann))["status"], "working");
    }
}

#[test]
fn sessions_of_ones_own_with_a_server_open_no_way_to_others_tasks() {
    let behind = Behind::start(Transport::Http);
    let gateway = behind.gateway(&keys());
    let open = |key: &str, name: &str| {
        Duplex::to(&gateway, Door::Streamable).key(key).named(name).open()
    };
    let (ann, bob) = (open(ANNS, "ann"), open(BOBS, "bob"));
    let of_ann = begin(&ann, true);
    expect_unknown(&bob, &behind, &of_ann);
    // Of the key's sessions it is all the same which one asks.
    let plain = Duplex::to(&gateway, Door::Sse).key(ANNS).open();
    assert_eq!(listed(&plain), std::slice::from_ref(&of_ann));
    assert_eq!(open(ANNS, "amy").result("tasks/get", &of(&of_ann))["status"], "completed");
}

#[test]
fn equal_ids_of_two_children_are_told_apart() {
    let behind = Behind::start(Transport::Stdio);
    let gateway = behind.gateway(&json!({}));
    let open = |name: &str| Duplex::to(&gateway, Door::Streamable).named(name).open();
    let (ann, bob) = (open("ann"), open("bob"));
    let (of_ann, of_bob) = (begin(&ann, true), begin(&bob, false));
    assert_eq!(of_ann, of_bob, "each has a child of its own, which counts from 1");
    assert_eq!(ann.result("tasks/get", &of(&of_ann))["status"], "completed");
    assert_eq!(bob.result("tasks/get", &of(&of_bob))["status"], "working");
    // That of the child that all others share would be neither.
    expect_unknown(&Duplex::to(&gateway, Door::Sse).open(), &behind, &of_ann);
}

#[test]
fn the_status_of_a_task_is_told_to_its_key_alone() {
    for transport in [Transport::Http, Transport::Sse] {
        let behind = Behind::start(transport);
        let script = behind.script().unwrap();
        let gateway = behind.gateway(&keys());
        wait_for("the stream of the shared session", || (script.n_streams() > 0).then_some(()));
        for door in DOORS {
            let open = |key: &str| Duplex::to(&gateway, door).key(key).open();
            let (ann, also_ann, bob) = (open(ANNS), open(ANNS), open(BOBS));
            let id = begin(&ann, false);
            script.finish_task(id.strip_prefix("s+").unwrap());
            for client in [&ann, &also_ann] {
                assert_eq!(client.wait_told(STATUS)["taskId"], json!(id));
            }
            catch_up(script, &bob);
            assert!(bob.told(STATUS).is_empty(), "{transport:?} {door:?}: {:?}", bob.heard());
        }
    }
}

#[test]
fn what_else_is_said_about_a_task_is_for_its_key_alone() {
    let behind = Behind::start(Transport::Http);
    let script = behind.script().unwrap();
    let gateway = behind.gateway(&keys());
    wait_for("the stream of the shared session", || (script.n_streams() > 0).then_some(()));
    let open = |key: &str| Duplex::to(&gateway, Door::Streamable).key(key).open();
    let (ann, bob) = (open(ANNS), open(BOBS));
    let id = begin(&ann, false);
    let own = id.strip_prefix("s+").unwrap();
    let about = |what: &str| json!({ "level": "error", "data": what, "_meta": { RELATED_TASK: { "taskId": own } } });
    script.emit("notifications/message", &about("outside"));
    script.emit("notifications/vendor/x", &about("outside"));
    assert_eq!(ann.wait_told("notifications/message")["data"], "outside");
    assert_eq!(ann.wait_told("notifications/vendor/x")["data"], "outside");
    // A server that says it during the call of somebody else.
    let other = json!({ "level": "error", "data": "mine" });
    bob.call("log", &json!({ "messages": [about("inside"), other] }));
    bob.wait_for("its own message", |heard| {
        (heard.message["params"]["data"] == "mine").then_some(())
    });
    ann.call("log", &json!({ "messages": [about("inside")] }));
    ann.wait_for("what is said of its task during its call", |heard| {
        (heard.message["params"]["data"] == "inside").then_some(())
    });
    catch_up(script, &bob);
    let told = [bob.told("notifications/message"), bob.told("notifications/vendor/x")].concat();
    assert_eq!(told.len(), 1, "{told:?}");
}

#[test]
fn after_a_restart_tasks_are_unknown() {
    let behind = Behind::start(Transport::Http);
    let open = |gateway: &Gateway| Duplex::to(gateway, Door::Streamable).key(ANNS).open();
    let gateway = behind.gateway(&keys());
    let id = begin(&open(&gateway), true);
    drop(gateway);
    let gateway = behind.gateway(&keys());
    let ann = open(&gateway);
    expect_unknown(&ann, &behind, &id);
    let next = begin(&ann, true);
    assert_eq!(listed(&ann), [next]);
}
