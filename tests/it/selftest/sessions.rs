//! The support code proved without a gateway: the client with both directions open, directly
//! before the scripted server.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::behind::{answers, of_method, params_of};
use crate::support::duplex::{Door, Duplex, Say, Via, all_capabilities, answer_of};
use crate::support::gateway::{Directory, scripted_child};
use crate::support::mcp::request_message;
use crate::support::script::{
    BLOB, BLOB_URI, FORM, ODD_CONTENTS, ODD_RESOURCE, ODD_URI, RELATED_TASK, RICH_PROMPT,
    RICH_PROMPT_RESULT, RICH_TEMPLATE, Script, TEXT_URI,
};
use crate::support::stays_so;
use crate::support::upstream_http::HttpUpstream;
use crate::support::upstream_sse::SseUpstream;

/// Runs the same check over both transports.
#[track_caller]
fn over_both(check: impl Fn(&Script, &dyn Fn(&str) -> Duplex, Door)) {
    let http = HttpUpstream::start();
    let open = |name: &str| Duplex::of(&http.address(), Door::Streamable).named(name).open();
    check(&http, &open, Door::Streamable);
    let sse = SseUpstream::start();
    let open = |name: &str| Duplex::of(&sse.address(), Door::Sse).at("/sse").named(name).open();
    check(&sse, &open, Door::Sse);
}

#[test]
fn lists_and_what_they_name_are_served() {
    over_both(|script, open, _| {
        script.set_label("me");
        script.set_page_items(1);
        let client = open("alice");
        assert_eq!(client.names("prompts/list", "prompts", "name"), ["greet", "rich"]);
        let uris = client.names("resources/list", "resources", "uri");
        assert_eq!(uris, [TEXT_URI, BLOB_URI, ODD_URI]);
        let templates =
            client.names("resources/templates/list", "resourceTemplates", "uriTemplate");
        assert_eq!(templates, ["vendor://items/{id}", "file:///logs/{+path}{?from,to}"]);
        let get = json!({ "name": "greet", "arguments": { "name": "Bo" } });
        let text = &client.result("prompts/get", &get)["messages"][0]["content"]["text"];
        assert_eq!(text, "me: plain greetings, Bo!");
        assert_eq!(client.refused("prompts/get", &json!({"name": "no"}))["code"], -32602);
        let read = |uri: &str| client.result("resources/read", &json!({ "uri": uri }));
        assert_eq!(read(TEXT_URI)["contents"][0]["text"], format!("me has {TEXT_URI}"));
        assert_eq!(read(BLOB_URI)["contents"][0]["blob"], BLOB);
        let text = &read("vendor://items/7")["contents"][0]["text"];
        assert_eq!(text, "me has vendor://items/7");
        let error = client.refused("resources/read", &json!({ "uri": "vendor://items/" }));
        assert_eq!(
            (&error["code"], &error["data"]["uri"]),
            (&json!(-32002), &json!("vendor://items/"))
        );
        let complete = json!({
            "ref": { "type": "ref/prompt", "name": "greet" },
            "argument": { "name": "name", "value": "al" },
            "context": { "arguments": { "style": "warm" } },
        });
        let values =
            client.result("completion/complete", &complete)["completion"]["values"].clone();
        assert_eq!(values, json!(["me", "greet", "name=al", "style=warm"]));
    });
}

#[test]
fn the_rich_texts_are_json() {
    let texts =
        [RICH_PROMPT, RICH_PROMPT_RESULT, ODD_RESOURCE, ODD_CONTENTS, RICH_TEMPLATE, FORM];
    for text in texts {
        assert!(serde_json::from_str::<Value>(text).unwrap().is_object());
    }
}

#[test]
fn levels_subscriptions_and_who_is_there_are_recorded() {
    over_both(|script, open, _| {
        let client = open("alice");
        client.result("logging/setLevel", &json!({ "level": "warning" }));
        assert_eq!(
            client.refused("logging/setLevel", &json!({ "level": "loud" }))["code"],
            -32602
        );
        client.result("resources/subscribe", &json!({ "uri": TEXT_URI }));
        assert_eq!(script.touch(BLOB_URI), 0);
        assert_eq!(script.touch(TEXT_URI), 1);
        assert_eq!(
            client.wait_told("notifications/resources/updated"),
            json!({"uri": TEXT_URI})
        );
        client.result("resources/unsubscribe", &json!({ "uri": TEXT_URI }));
        assert_eq!(script.touch(TEXT_URI), 0);
        let received = script.received();
        assert_eq!(params_of(&received, "logging/setLevel")[0], json!({ "level": "warning" }));
        assert_eq!(of_method(&received, "resources/unsubscribe").len(), 1);
        let declared = &params_of(&received, "initialize")[0]["capabilities"];
        assert_eq!(*declared, all_capabilities());
        let me = client.call("whoami", &json!({}))["structuredContent"].clone();
        assert_eq!(me["initialize"]["capabilities"], all_capabilities());
        let peer = me["peer"].as_str().unwrap();
        assert_eq!(of_method(&received, "initialize")[0].peer, peer);
    });
}

#[test]
fn log_messages_and_notifications_come_in_calls_and_outside() {
    over_both(|script, open, door| {
        let client = open("alice");
        let message = json!({ "level": "info", "data": { "n": 1 }, "x": 1.5 });
        client.call("log", &json!({ "messages": [message] }));
        let in_call = if door == Door::Streamable { Via::Call } else { Via::Stream };
        let via = client.wait_for("the message", |heard| {
            heard.tells("notifications/message").then_some(heard.via)
        });
        assert_eq!((via, client.told("notifications/message")), (in_call, vec![message]));
        client.call(
            "emit",
            &json!({ "method": "notifications/vendor/ping", "params": {"n": 1} }),
        );
        assert_eq!(client.wait_told("notifications/vendor/ping"), json!({ "n": 1 }));
        for kind in ["tools", "prompts", "resources"] {
            client.call("change", &json!({ "kind": kind, "name": "later" }));
            client.wait_told(&format!("notifications/{kind}/list_changed"));
            script.change(kind, "even-later");
        }
        assert!(client.names("prompts/list", "prompts", "name").contains(&"later".to_owned()));
        let echoed = client.result("vendor/echo", &json!({ "a": [1] }));
        assert_eq!(echoed, json!({ "x": 1.5, "echo": { "a": [1] } }));
        client.notify("notifications/vendor/ping", &json!({ "n": 2 }));
        script.wait_until("the notification", |seen| {
            seen.notifications.contains(&"notifications/vendor/ping".to_owned())
        });
    });
}

#[test]
fn questions_are_asked_in_calls_and_outside() {
    over_both(|script, open, door| {
        let client = open("alice");
        for (tool, said) in [
            ("ask_sampling", "model of alice"),
            ("ask_elicitation", "alice"),
            ("ask_roots", "file:///alice"),
        ] {
            let result = client.call(tool, &json!({}));
            let answers = &result["structuredContent"]["answers"];
            assert_eq!(answers.as_array().unwrap().len(), 1, "{result}");
            assert!(answers.to_string().contains(said), "{result}");
        }
        let both = client.call("ask_twice", &json!({}))["structuredContent"]["answers"].clone();
        assert_eq!(both[0]["result"]["content"]["text"], "model of alice");
        assert_eq!(both[1]["result"]["roots"][0]["uri"], "file:///alice");
        let in_call = if door == Door::Streamable { Via::Call } else { Via::Stream };
        assert!(client.questions().iter().all(|question| question.via == in_call));
        let url = json!({ "mode": "url", "id": "own", "via": "stream" });
        client.call("ask_elicitation", &url);
        let complete = client.wait_told("notifications/elicitation/complete");
        assert_eq!(complete, json!({ "elicitationId": "e-1" }));
        let last = client.questions().pop().unwrap();
        assert_eq!((last.via, &last.message["id"]), (Via::Stream, &json!("own")));
        let peer = of_method(&script.received(), "initialize")[0].peer.clone();
        let pong = script.ask_outside(&peer, "ping", &Value::Null);
        assert_eq!(pong["result"], json!({}));
        client.call("ask_roots", &json!({ "withdraw": true, "id": 77 }));
        assert_eq!(client.wait_told("notifications/cancelled")["requestId"], 77);
    });
}

#[test]
fn errors_and_silence_are_answers_too() {
    let upstream = HttpUpstream::start();
    let client = Duplex::of(&upstream.address(), Door::Streamable).open();
    let answer =
        client.call("ask_roots", &json!({}))["structuredContent"]["answers"][0].clone();
    assert_eq!(answer["error"]["code"], -32601);
    let silent = Duplex::of(&upstream.address(), Door::Streamable)
        .answering(|_| Say::Nothing)
        .without_stream()
        .open();
    let call = silent.begin("tools/call", &json!({ "name": "ask_roots" }));
    silent.wait_asked("roots/list");
    stays_so("the call waits", Duration::from_millis(50), || !call.is_finished());
    assert_eq!(answers(&upstream.received()).len(), 1);
    upstream.die();
    assert!(call.join().is_err());
}

#[test]
fn tasks_go_their_way() {
    over_both(|script, open, _| {
        let client = open("alice");
        let begin = |finished: bool| {
            let params = json!({
                "name": "long", "arguments": { "finished": finished }, "task": { "ttl": 60000 },
            });
            client.result("tools/call", &params)["task"].clone()
        };
        let first = begin(false);
        assert_eq!((&first["taskId"], &first["status"]), (&json!("task-1"), &json!("working")));
        let of_task = |id: &str| json!({ "taskId": id });
        let result = client.begin("tasks/result", &of_task("task-1"));
        script.finish_task("task-1");
        let status = client.wait_told("notifications/tasks/status");
        assert_eq!(
            (&status["taskId"], &status["status"]),
            (&json!("task-1"), &json!("completed"))
        );
        let result = result.join().unwrap()["result"].clone();
        assert_eq!(result["content"][0]["text"], "scripted finished task-1");
        assert_eq!(result["_meta"][RELATED_TASK]["taskId"], "task-1");
        assert_eq!(begin(true)["status"], "completed");
        begin(false);
        assert_eq!(client.result("tasks/cancel", &of_task("task-3"))["status"], "cancelled");
        assert_eq!(client.refused("tasks/cancel", &of_task("task-3"))["code"], -32602);
        assert_eq!(client.refused("tasks/get", &of_task("task-9"))["code"], -32602);
        let ids = client.names("tasks/list", "tasks", "taskId");
        assert_eq!(ids, ["task-1", "task-2", "task-3"]);
        // Without `task` it is a call like any other.
        assert_eq!(client.call("long", &json!({}))["content"][0]["text"], "long");
    });
}

#[test]
fn the_end_of_a_session_is_seen() {
    let upstream = HttpUpstream::start();
    let client = Duplex::of(&upstream.address(), Door::Streamable).named("alice").open();
    assert_eq!(upstream.n_streams(), 1);
    client.end();
    assert_eq!((upstream.n_streams(), upstream.n_deleted()), (0, 1));
    let upstream = SseUpstream::start();
    let client = Duplex::of(&upstream.address(), Door::Sse).at("/sse").named("alice").open();
    assert_eq!(upstream.n_streams(), 1);
    client.end();
    crate::support::wait_until("the session has ended", || upstream.n_ended() == 1);
}

#[test]
fn a_child_writes_down_what_comes_and_asks_after_its_answer() {
    let directory = Directory::new();
    let journal = directory.path().join("journal");
    let mut child = Command::new(scripted_child())
        .args([&format!("--journal={}", journal.display()), "--label=me"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next =
        || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let mut say = |message: &Value| writeln!(stdin, "{message}").unwrap();
    let call = |id: u64, tool: &str, arguments: Value| {
        request_message(
            &json!(id),
            "tools/call",
            &json!({ "name": tool, "arguments": arguments }),
        )
    };
    say(&call(1, "ask_after", json!({ "method": "roots/list" })));
    assert_eq!(next()["id"], 1);
    let asked = next();
    assert_eq!(asked["method"], "roots/list");
    let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": { "roots": [] } });
    say(&answer);
    say(&call(2, "whoami", json!({})));
    let peer = next()["result"]["content"][0]["text"].clone();
    assert_eq!(peer, child.id().to_string());
    let journal = std::fs::read_to_string(journal).unwrap();
    let expected = format!("{} {answer}", child.id());
    assert_eq!(journal.lines().nth(1), Some(expected.as_str()));
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_client_says_its_own_name_whatever_it_is_asked() {
    for (method, said) in [
        ("sampling/createMessage", "model of bo"),
        ("elicitation/create", "bo"),
        ("roots/list", "file:///bo"),
    ] {
        let Say::Result(answer) = answer_of("bo", &json!({ "method": method })) else {
            panic!("no result of {method}");
        };
        assert!(answer.to_string().contains(said), "{answer}");
    }
}
