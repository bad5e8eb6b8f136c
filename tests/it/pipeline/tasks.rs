//! Tasks of 2025-11-25: they belong to the upstream that made them, and their ids say so.

use serde_json::{Value, json};

use crate::support::behind::{Behind, TRANSPORTS, Transport, params_of};
use crate::support::duplex::{DOORS, Door, Duplex, Say, all_capabilities};
use crate::support::gateway::Gateway;
use crate::support::mcp::LATEST;
use crate::support::script::RELATED_TASK;
use crate::support::upstream_http::HttpUpstream;

/// Begins a task with that tool; gives the task.
#[track_caller]
fn begin(client: &Duplex, tool: &str, finished: bool) -> Value {
    let params = json!({
        "name": tool, "arguments": { "finished": finished }, "task": { "ttl": 60000 },
    });
    let result = client.result("tools/call", &params);
    assert_eq!(result["_meta"], json!({ "x-note": "kept" }), "{result}");
    result["task"].clone()
}

fn id_of(task: &Value) -> String {
    task["taskId"].as_str().unwrap_or_else(|| panic!("{task}")).to_owned()
}

fn of(id: &str) -> Value {
    json!({ "taskId": id })
}

#[track_caller]
fn expect_unknown(client: &Duplex, id: &str) {
    for method in ["tasks/get", "tasks/result", "tasks/cancel"] {
        let error = client.refused(method, &of(id));
        assert_eq!(error["code"], -32602, "{method} {id}: {error}");
    }
}

fn two(extra: &Value) -> (HttpUpstream, HttpUpstream, Gateway) {
    let (a, b) = (HttpUpstream::labelled("A"), HttpUpstream::labelled("B"));
    let server =
        |upstream: &HttpUpstream| json!({ "url": upstream.url(), "transport": "http" });
    let mut config = json!({ "mcp_servers": { "a": server(&a), "b": server(&b) } });
    for (key, value) in extra.as_object().unwrap() {
        config[key] = value.clone();
    }
    let gateway = Gateway::started(config);
    (a, b, gateway)
}

#[test]
fn every_transport_and_door_carries_tasks() {
    for transport in TRANSPORTS {
        let behind = Behind::start(transport);
        let gateway = behind.gateway(&json!({}));
        for door in DOORS {
            let at = format!("{transport:?} {door:?}");
            let client = Duplex::to(&gateway, door).open();
            let task = begin(&client, "long", false);
            assert_eq!(task["status"], "working", "{at}");
            assert_eq!(task["x-unknown"], json!({ "z": 1, "a": [] }), "{at}");
            let sent = params_of(&behind.received(), "tools/call").pop().unwrap();
            assert_eq!(sent["task"], json!({ "ttl": 60000 }), "{at}");
            let id = id_of(&task);
            assert_eq!(client.result("tasks/get", &of(&id)), task, "{at}");
            assert_eq!(client.result("tasks/cancel", &of(&id))["status"], "cancelled", "{at}");
            assert_eq!(client.refused("tasks/cancel", &of(&id))["code"], -32602, "{at}");

            let finished = id_of(&begin(&client, "long", true));
            assert_ne!(finished, id);
            let result = client.result("tasks/result", &of(&finished));
            let text = result["content"][0]["text"].as_str().unwrap();
            assert!(text.starts_with("scripted finished task-"), "{at}: {result}");
            let related = &result["_meta"][RELATED_TASK]["taskId"];
            assert_eq!(*related, json!(finished), "{at}: {result}");
            assert_eq!(result["_meta"]["x-note"], "kept", "{at}");
            let listed = client.names("tasks/list", "tasks", "taskId");
            assert!(listed.contains(&id) && listed.contains(&finished), "{at}: {listed:?}");
            expect_unknown(&client, "nobody");
        }
    }
}

#[test]
fn equal_ids_of_two_upstreams_are_told_apart() {
    let (a, b, gateway) = two(&json!({}));
    for (n, door) in DOORS.into_iter().enumerate() {
        let own = format!("task-{}", n + 1);
        let client = Duplex::to(&gateway, door).open();
        let of_a = id_of(&begin(&client, "a-long", true));
        let of_b = id_of(&begin(&client, "b-long", false));
        assert_ne!(of_a, of_b, "both servers call it {own}");
        let result = client.result("tasks/result", &of(&of_a));
        assert_eq!(result["content"][0]["text"], format!("A finished {own}"));
        assert_eq!(result["_meta"][RELATED_TASK]["taskId"], json!(of_a));
        assert_eq!(client.result("tasks/get", &of(&of_a))["taskId"], json!(of_a));
        let cancelled = client.result("tasks/cancel", &of(&of_b));
        assert_eq!(
            (&cancelled["taskId"], &cancelled["status"]),
            (&json!(of_b), &json!("cancelled"))
        );
        assert_eq!(client.result("tasks/get", &of(&of_a))["status"], "completed");
        // Each upstream is asked under its own id.
        assert_eq!(params_of(&a.received(), "tasks/result").pop(), Some(of(&own)));
        assert_eq!(params_of(&b.received(), "tasks/cancel").pop(), Some(of(&own)));
        assert!(!params_of(&a.received(), "tasks/cancel").contains(&of(&own)));
        assert!(!params_of(&b.received(), "tasks/result").contains(&of(&own)));
        let listed = client.names("tasks/list", "tasks", "taskId");
        assert!(listed.contains(&of_a) && listed.contains(&of_b), "{listed:?}");
        assert_eq!(listed.len(), 2, "without keys, a session's tasks are its own: {listed:?}");
        // What only looks like an id is none.
        for wrong in [own.as_str(), "a", "", &format!("{of_a}x"), &format!("c{of_a}")] {
            expect_unknown(&client, wrong);
        }
        assert_eq!(client.refused("tasks/get", &json!({}))["code"], -32602);
    }
}

#[test]
fn lists_of_tasks_are_walked_over_all_upstreams() {
    let (a, b, gateway) = two(&json!({ "limits": { "page_items": 2 } }));
    a.set_page_items(2);
    b.set_page_items(2);
    let client = Duplex::to(&gateway, Door::Streamable).open();
    let mut begun: Vec<String> = ["a-long", "b-long"]
        .iter()
        .flat_map(|tool| [(); 5].map(|()| id_of(&begin(&client, tool, true))))
        .collect();
    let mut listed = client.names("tasks/list", "tasks", "taskId");
    begun.sort();
    listed.sort();
    assert_eq!(listed, begun);
    let error = client.refused("tasks/list", &json!({ "cursor": "nonsense" }));
    assert_eq!(error["code"], -32602);
}

#[test]
fn a_result_is_waited_for_and_its_coming_is_told() {
    for transport in [Transport::Http, Transport::Sse] {
        let behind = Behind::start(transport);
        let gateway = behind.gateway(&json!({}));
        for (n, door) in DOORS.into_iter().enumerate() {
            let client = Duplex::to(&gateway, door).named("alice").open();
            let id = id_of(&begin(&client, "long", false));
            let result = client.begin("tasks/result", &of(&id));
            behind.wait_received("the request for the result", |received| {
                (params_of(received, "tasks/result").len() == n + 1).then_some(())
            });
            behind.script().unwrap().finish_task(&format!("task-{}", n + 1));
            let status = client.wait_told("notifications/tasks/status");
            assert_eq!(status["taskId"], json!(id), "{transport:?} {door:?}");
            assert_eq!(status["status"], "completed");
            let result = result.join().unwrap();
            let text = format!("scripted finished task-{}", n + 1);
            assert_eq!(result["result"]["content"][0]["text"], text, "{transport:?} {door:?}");
        }
    }
}

#[test]
fn the_status_of_a_task_is_told_under_its_offered_id() {
    let (_a, b, gateway) = two(&json!({}));
    let client = Duplex::to(&gateway, Door::Streamable).named("alice").open();
    let of_a = id_of(&begin(&client, "a-long", false));
    let of_b = id_of(&begin(&client, "b-long", false));
    b.finish_task("task-1");
    let status = client.wait_told("notifications/tasks/status");
    assert_eq!(status["taskId"], json!(of_b));
    assert_eq!(client.result("tasks/get", &of(&of_b))["status"], "completed");
    assert_eq!(client.result("tasks/get", &of(&of_a))["status"], "working");
}

#[test]
fn a_key_reaches_the_tasks_of_its_servers_alone() {
    let (a, _b, gateway) = two(&json!({ "api_keys": [
        { "name": "all", "key": "key-of-all-1" },
        { "name": "only-b", "key": "key-of-b-12", "servers": ["b"] },
    ]}));
    let all = Duplex::to(&gateway, Door::Streamable).key("key-of-all-1").open();
    let of_a = id_of(&begin(&all, "a-long", true));
    let narrow = Duplex::to(&gateway, Door::Streamable).key("key-of-b-12").open();
    expect_unknown(&narrow, &of_a);
    assert!(narrow.names("tasks/list", "tasks", "taskId").is_empty());
    let reached = a.received();
    for method in ["tasks/get", "tasks/result", "tasks/cancel", "tasks/list"] {
        assert!(params_of(&reached, method).is_empty(), "{method}");
    }
    assert_eq!(all.result("tasks/get", &of(&of_a))["status"], "completed");
}

#[test]
fn what_is_asked_and_logged_about_a_task_names_it_as_its_client_knows_it() {
    let about = |id: &str| json!({ RELATED_TASK: { "taskId": id, "x": 1 } });
    for transport in TRANSPORTS {
        let behind = Behind::start(transport);
        let gateway = behind.gateway(&json!({}));
        for door in DOORS {
            let client = Duplex::to(&gateway, door)
                .declaring(all_capabilities())
                .answering(|question| {
                    Say::Result(json!({ "roots": [], "_meta": question["params"]["_meta"] }))
                })
                .open();
            let id = id_of(&begin(&client, "long", false));
            let own = id.strip_prefix("s+").unwrap();
            for via in ["call", "stream"] {
                let at = format!("{transport:?} {door:?} {via}");
                let n = client.questions().len();
                let params = json!({ "_meta": about(own), "taskId": own });
                let asked = client.call("ask_roots", &json!({ "params": params, "via": via }));
                let questions = client.questions();
                let question = &questions[n].message["params"];
                assert_eq!(question["_meta"], about(&id), "{at}");
                assert_eq!(question["taskId"], own, "{at}: an id of the client's");
                let answer = &asked["structuredContent"]["answers"][0]["result"];
                assert_eq!(answer["_meta"], about(own), "{at}");
                let said = json!({ "level": "info", "data": via, "_meta": about(own) });
                client.call("log", &json!({ "messages": [said], "via": via }));
                client.wait_for(&at, |heard| {
                    let params = &heard.message["params"];
                    (params["data"] == via && params["_meta"] == about(&id)).then_some(())
                });
            }
        }
    }
}

#[test]
fn revisions_without_tasks_have_none() {
    let behind = Behind::start(Transport::Http);
    let gateway = behind.gateway(&json!({}));
    for door in DOORS {
        for revision in ["2024-11-05", "2025-03-26", "2025-06-18", LATEST] {
            let at = format!("{door:?} {revision}");
            let client = Duplex::to(&gateway, door).speaking(revision).open();
            let capabilities = &client.initialized()["capabilities"];
            assert_eq!(capabilities["tasks"].is_object(), revision == LATEST, "{at}");
            assert!(capabilities["tools"].is_object(), "{at}");
            if revision == LATEST {
                continue;
            }
            let params = json!({
                "name": "long", "arguments": { "finished": true }, "task": { "ttl": 1000 },
            });
            let result = client.result("tools/call", &params);
            assert!(
                result["content"].is_array() && result.get("task").is_none(),
                "{at} {result}"
            );
            for method in ["tasks/get", "tasks/result", "tasks/cancel", "tasks/list"] {
                assert_eq!(client.refused(method, &of("s+task-1"))["code"], -32601, "{at}");
            }
        }
    }
    let received = behind.received();
    assert!(received.iter().all(|it| it.message["params"].get("task").is_none()));
}
