//! What is legal in one revision and not in another: between clients and servers of different
//! ones, each is given what its own schema has. The rows are those of
//! `protocol/revision_differences.rs`.

use serde_json::{Value, json};

use super::{Checked, are_here};
use crate::support::behind::{Behind, Era, Transport, params_of};
use crate::support::duplex::{DOORS, Door, Duplex, Say, all_capabilities};
use crate::support::gateway::Gateway;
use crate::support::mcp::LATEST;
use crate::support::modern::ModernClient;
use crate::support::script::MODERN;
use crate::support::wait_until;

const OLDER: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", LATEST];

/// Holds a value against a definition, where the schemas are here.
#[track_caller]
fn hold(revision: &str, definition: &str, value: &Value) {
    if are_here() {
        let mut checked = Checked::against(revision);
        checked.holds(definition, value);
        checked.done(&[]);
    }
}

/// A modern server over HTTP, and one of sessions of the newest such revision.
fn behind(era: Era) -> (Behind, Gateway) {
    let behind = Behind::of(era, Transport::Http, "scripted");
    behind.script().unwrap().add_tool("odd_result");
    let gateway = behind.gateway(&json!({}));
    (behind, gateway)
}

/// The result that the server gives for `result`, as the client has it.
fn odd(client: &Duplex, tool: &str, result: &Value) -> Value {
    client.result("tools/call", &json!({ "name": tool, "arguments": { "result": result } }))
}

fn odd_modern(client: &ModernClient, tool: &str, result: &Value) -> Value {
    client.result("tools/call", &json!({ "name": tool, "arguments": { "result": result } }))
}

fn text(text: &str) -> Value {
    json!({ "type": "text", "text": text })
}

/// Tools whose structured results are of these types, by the name of the tool.
fn outputs() -> Vec<(&'static str, Value, Value)> {
    let node = json!({
        "type": "array",
        "items": { "$ref": "#/$defs/node" },
        "$defs": { "node": { "type": "object", "properties": {
            "children": { "$ref": "#" }, "name": { "type": "string" },
        }, "required": ["name"] } },
    });
    let any = json!({ "anyOf": [{ "type": "string" }, { "type": "object" }] });
    let tree = json!([{ "name": "a", "children": [{ "name": "b" }] }]);
    vec![
        ("odd_result_tree", node, tree),
        ("odd_result_text", json!({ "type": "string" }), json!("x")),
        ("odd_result_any", any.clone(), json!({ "a": 1 })),
        ("odd_result_any2", any, json!("y")),
        ("odd_result_null", json!({ "type": "null" }), json!(null)),
    ]
}

#[test]
fn structured_results_of_any_type_are_wrapped_for_clients_of_sessions() {
    let (behind, gateway) = behind(Era::Modern);
    for (name, schema, _) in outputs() {
        let tool = json!({
            "name": name, "inputSchema": { "type": "object" }, "outputSchema": schema,
        });
        behind.script().unwrap().add_text("tools", name, &tool.to_string());
    }
    behind.script().unwrap().announce_change();
    gateway.wait_for_tool("odd_result_null");
    let modern = ModernClient::to(&gateway);
    let listed = modern.list("tools/list", "tools");
    for (name, schema, value) in outputs() {
        let tool = listed.iter().find(|tool| tool["name"] == name).unwrap();
        assert_eq!(tool["outputSchema"], schema, "{name}: as it is");
        let result = json!({ "content": [text("t")], "structuredContent": value });
        let found = odd_modern(&modern, name, &result);
        assert_eq!(found["structuredContent"], value, "{name}");
        hold(MODERN, "CallToolResult", &found);
        // REST gives the result whole.
        let found = gateway.call(name, &json!({ "result": result })).expect(200).json();
        assert_eq!(found["structuredContent"], value, "{name}");
    }
    for revision in OLDER {
        for door in DOORS {
            let client = Duplex::to(&gateway, door).speaking(revision).open();
            let page = client.result("tools/list", &json!({}));
            hold(revision, "ListToolsResult", &page);
            for (name, _, value) in outputs() {
                let tools = page["tools"].as_array().unwrap();
                let tool = tools.iter().find(|tool| tool["name"] == name).unwrap();
                let schema = &tool["outputSchema"];
                assert_eq!(schema["type"], "object", "{schema}");
                let result = json!({ "content": [text("t")], "structuredContent": value });
                let found = odd(&client, name, &result);
                hold(revision, "CallToolResult", &found);
                let structure = &found["structuredContent"];
                assert_eq!(*structure, json!({ "result": value }), "{revision} {name}");
                // The one is what the other announces, references and all.
                let validator = jsonschema::validator_for(schema).unwrap();
                assert!(validator.is_valid(structure), "{schema} {structure}");
                let wrong = json!({ "result": [{ "children": [{}] }] });
                assert!(name != "odd_result_tree" || !validator.is_valid(&wrong), "{schema}");
            }
            // What is announced as an object stays one.
            let found = odd(
                &client,
                "odd_result",
                &json!({ "content": [], "structuredContent": { "a": 1 } }),
            );
            assert_eq!(found, json!({ "content": [], "structuredContent": { "a": 1 } }));
            // A value that nothing tells in words is told.
            let found = odd(
                &client,
                "odd_result_text",
                &json!({ "content": [], "structuredContent": "x" }),
            );
            assert_eq!(found["content"], json!([text("\"x\"")]));
        }
    }
}

#[test]
fn content_of_later_revisions_becomes_text() {
    let audio = json!({ "type": "audio", "data": "AAAA", "mimeType": "audio/wav" });
    let link = json!({ "type": "resource_link", "uri": "file:///a", "name": "n" });
    let result = json!({ "content": [audio, link, text("t")] });
    let prompt = json!({ "messages": [
        { "role": "user", "content": audio }, { "role": "user", "content": link },
    ]});
    for era in [Era::Legacy, Era::Modern] {
        let (_behind, gateway) = behind(era);
        let get = json!({ "name": "greet", "arguments": { "name": "n", "result": prompt.to_string() } });
        for revision in OLDER {
            let client = Duplex::to(&gateway, Door::Streamable).speaking(revision).open();
            let found = odd(&client, "odd_result", &result);
            hold(revision, "CallToolResult", &found);
            let kinds: Vec<&Value> =
                found["content"].as_array().unwrap().iter().map(|it| &it["type"]).collect();
            let expected = match revision {
                "2024-11-05" => ["text", "text", "text"],
                "2025-03-26" => ["audio", "text", "text"],
                _ => ["audio", "resource_link", "text"],
            };
            assert_eq!(kinds, expected, "{era:?} {revision}");
            let found = client.result("prompts/get", &get);
            hold(revision, "GetPromptResult", &found);
            assert_eq!(found["messages"][0]["content"]["type"], expected[0], "{revision}");
            assert_eq!(found["messages"][1]["content"]["type"], expected[1], "{revision}");
        }
        let modern = ModernClient::to(&gateway);
        let found = odd_modern(&modern, "odd_result", &result);
        assert_eq!(found["content"], result["content"]);
        hold(MODERN, "GetPromptResult", &modern.result("prompts/get", &get));
    }
}

#[test]
fn a_completion_has_no_more_values_than_its_revision_allows() {
    let (_behind, gateway) = behind(Era::Legacy);
    let params = json!({
        "ref": { "type": "ref/prompt", "name": "greet" },
        "argument": { "name": "name", "value": "many" },
    });
    let modern = ModernClient::to(&gateway).result("completion/complete", &params);
    assert_eq!(modern["completion"]["values"].as_array().unwrap().len(), 100);
    assert_eq!(modern["completion"]["hasMore"], true);
    hold(MODERN, "CompleteResult", &modern);
    let client = Duplex::to(&gateway, Door::Streamable).open();
    let legacy = client.result("completion/complete", &params);
    assert!(legacy["completion"]["values"].as_array().unwrap().len() > 100);
    hold(LATEST, "CompleteResult", &legacy);
}

#[test]
fn a_task_is_asked_for_in_the_revision_that_has_them_alone() {
    let (_behind, gateway) = behind(Era::Legacy);
    let params = json!({ "name": "long", "arguments": {}, "task": { "ttl": 60_000 } });
    let modern = ModernClient::to(&gateway).result("tools/call", &params);
    hold(MODERN, "CallToolResult", &modern);
    for revision in OLDER {
        let client = Duplex::to(&gateway, Door::Streamable).speaking(revision).open();
        let found = client.result("tools/call", &params);
        let definition = if revision == LATEST { "CreateTaskResult" } else { "CallToolResult" };
        hold(revision, definition, &found);
        assert_eq!(found.get("task").is_some(), revision == LATEST, "{revision}: {found}");
    }
}

/// A client that accepts URLs and forms.
fn accepting(gateway: &Gateway, door: Door, revision: &str) -> Duplex {
    let accept = |question: &Value| match question["method"].as_str() {
        Some("elicitation/create") => Say::Result(json!({ "action": "accept" })),
        _ => Say::Error(-32601, "Method not found"),
    };
    Duplex::to(gateway, door)
        .speaking(revision)
        .declaring(all_capabilities())
        .answering(accept)
        .open()
}

const URL: &str = "https://example.org/connect?e=1";

#[test]
fn the_elicitation_of_a_url_has_an_id_and_an_end_where_its_revision_wants_them() {
    let (_behind, gateway) = behind(Era::Modern);
    let url = json!({ "mode": "url", "url": URL, "message": "Go there" });
    let arguments = json!({ "method": "elicitation/create", "params": url, "rounds": 2 });
    let call = json!({ "name": "ask", "arguments": arguments });
    for door in DOORS {
        let client = accepting(&gateway, door, LATEST);
        let result = client.result("tools/call", &call);
        hold(LATEST, "CallToolResult", &result);
        let asked: Vec<Value> =
            client.questions().iter().map(|it| it.message.clone()).collect();
        assert_eq!(asked.len(), 2, "{asked:?}");
        for question in &asked {
            hold(LATEST, "ElicitRequest", question);
        }
        // The same interaction, however often it is asked for; and it ends with the call.
        let id = &asked[0]["params"]["elicitationId"];
        assert!(id.as_str().is_some_and(|id| !id.is_empty()), "{asked:?}");
        assert_eq!(asked[1]["params"]["elicitationId"], *id);
        let told = client.told("notifications/elicitation/complete");
        assert_eq!(told, [json!({ "elicitationId": id })], "{door:?}");
        let heard = client.heard();
        let at = |what: &dyn Fn(&Value) -> bool| {
            heard.iter().position(|it| what(&it.message)).unwrap()
        };
        let end = at(&|it| it["method"] == "notifications/elicitation/complete");
        assert!(end < at(&|it| it["result"]["content"].is_array()), "before the answer");
        hold(LATEST, "ElicitationCompleteNotification", &heard[end].message);
        // Another call is another interaction.
        client.result("tools/call", &call);
        let last = client.questions().pop().unwrap().message;
        assert_ne!(last["params"]["elicitationId"], *id);
    }
    // What is declined was never begun.
    let decline = |_: &Value| Say::Result(json!({ "action": "decline" }));
    let client = Duplex::to(&gateway, Door::Streamable)
        .declaring(all_capabilities())
        .answering(decline)
        .open();
    client.result("tools/call", &call);
    assert!(client.told("notifications/elicitation/complete").is_empty());
}

#[test]
fn a_stateless_client_has_neither_the_id_nor_the_end() {
    let (_behind, gateway) = behind(Era::Legacy);
    let client = ModernClient::to(&gateway).named("alice");
    let arguments = json!({ "method": "elicitation/create", "mode": "url" });
    let run = client.run_call("ask", &arguments);
    let (_, request) = run.rounds[0].requests().remove(0);
    assert_eq!(request["params"]["mode"], "url");
    assert!(request["params"].get("elicitationId").is_none(), "{request}");
    hold(MODERN, "ElicitRequest", &request);
    assert!(run.told("notifications/elicitation/complete").is_empty());
    // The server's own id passes to clients that have such.
    let client = accepting(&gateway, Door::Streamable, LATEST);
    client.result("tools/call", &json!({ "name": "ask", "arguments": arguments }));
    assert_eq!(client.questions()[0].message["params"]["elicitationId"], "e-1");
    assert_eq!(client.told("notifications/elicitation/complete").len(), 1);
}

#[test]
fn a_form_has_choices_as_its_client_s_revision_has_them() {
    let choices = json!([{ "const": "a", "title": "A" }, { "const": "b", "title": "B" }]);
    let form = |property: Value| {
        let schema =
            json!({ "type": "object", "properties": { "p": property }, "required": ["p"] });
        let params = json!({ "message": "m", "requestedSchema": schema });
        json!({ "name": "ask", "arguments": { "method": "elicitation/create", "params": params } })
    };
    let titled = form(json!({ "type": "string", "oneOf": choices }));
    let several =
        form(json!({ "type": "array", "items": { "type": "string", "enum": ["a"] } }));
    for era in [Era::Legacy, Era::Modern] {
        let (_behind, gateway) = behind(era);
        for revision in ["2025-06-18", LATEST] {
            let client = accepting(&gateway, Door::Streamable, revision);
            client.result("tools/call", &titled);
            let asked = client.questions().pop().unwrap().message;
            hold(revision, "ElicitRequest", &asked);
            let property = &asked["params"]["requestedSchema"]["properties"]["p"];
            let expected = if revision == LATEST {
                json!({ "type": "string", "oneOf": choices })
            } else {
                json!({ "type": "string", "enum": ["a", "b"], "enumNames": ["A", "B"] })
            };
            assert_eq!(*property, expected, "{era:?} {revision}");
            let answer = client.result("tools/call", &several);
            let n_asked = client.questions().len();
            if revision == LATEST {
                assert_eq!(n_asked, 2);
                hold(revision, "ElicitRequest", &client.questions()[1].message);
            } else {
                assert_eq!(n_asked, 1, "nothing that its revision does not have");
                let said = if era == Era::Modern { "cancel" } else { "-32602" };
                assert!(answer.to_string().contains(said), "{era:?}: {answer}");
            }
        }
    }
}

#[test]
fn messages_for_sampling_are_those_of_the_client_s_revision() {
    let ask = |params: Value| {
        let arguments = json!({ "method": "sampling/createMessage", "params": params });
        json!({ "name": "ask", "arguments": arguments })
    };
    let blocks = ask(json!({ "maxTokens": 9, "messages": [
        { "role": "user", "content": [text("a"), text("b")] },
    ]}));
    let tools = ask(json!({
        "maxTokens": 9,
        "tools": [{
            "name": "t", "inputSchema": { "type": "object" }, "outputSchema": { "type": "array" },
        }],
        "messages": [{ "role": "user", "content": {
            "type": "tool_result", "toolUseId": "1", "content": [], "structuredContent": [1],
        }}],
    }));
    for era in [Era::Legacy, Era::Modern] {
        let (_behind, gateway) = behind(era);
        for revision in OLDER {
            let client =
                Duplex::to(&gateway, Door::Streamable).speaking(revision).named("alice").open();
            client.result("tools/call", &blocks);
            let asked = client.questions().pop().unwrap().message;
            hold(revision, "CreateMessageRequest", &asked);
            let n_messages = asked["params"]["messages"].as_array().unwrap().len();
            assert_eq!(n_messages, if revision == LATEST { 1 } else { 2 }, "{revision}");
            // It has not declared that the model may use tools.
            client.request("tools/call", &tools);
            assert_eq!(client.questions().len(), 1, "{era:?} {revision}");
        }
        let client = Duplex::to(&gateway, Door::Streamable)
            .named("alice")
            .declaring(json!({ "sampling": { "tools": {} } }))
            .open();
        client.result("tools/call", &tools);
        let asked = client.questions().pop().unwrap().message;
        hold(LATEST, "CreateMessageRequest", &asked);
        let result = &asked["params"]["messages"][0]["content"]["structuredContent"];
        assert_eq!(*result, json!({ "result": [1] }), "{asked}");
        let modern = ModernClient::to(&gateway)
            .named("alice")
            .declaring(json!({ "sampling": { "tools": {} } }));
        let run = modern.run("tools/call", &tools);
        let (_, request) = run.rounds[0].requests().remove(0);
        hold(MODERN, "CreateMessageRequest", &request);
        let result = &request["params"]["messages"][0]["content"]["structuredContent"];
        assert_eq!(*result, json!([1]));
    }
}

#[test]
fn notifications_of_one_revision_reach_clients_of_that_alone() {
    let (behind, _) = behind(Era::Legacy);
    // Of one principal, so that what names no call is for all its sessions.
    let gateway = behind.gateway(&json!({ "api_keys": [{ "name": "k", "key": "key-of-k" }] }));
    let clients: Vec<(&str, Duplex)> = OLDER
        .into_iter()
        .map(|revision| {
            let client = Duplex::to(&gateway, Door::Streamable).key("key-of-k");
            (revision, client.speaking(revision).open())
        })
        .collect();
    let script = behind.script().unwrap();
    wait_until("the server's stream is open", || script.n_streams() > 0);
    for (method, params) in [
        ("notifications/elicitation/complete", json!({ "elicitationId": "x" })),
        ("notifications/vendor/anything", json!({ "n": 1 })),
    ] {
        script.emit(method, &params);
    }
    for (revision, client) in &clients {
        // It came after the other.
        client.wait_told("notifications/vendor/anything");
        let n_told = client.told("notifications/elicitation/complete").len();
        assert_eq!(n_told, usize::from(*revision == LATEST), "{revision}");
    }
}

#[test]
fn what_only_a_retry_carries_is_not_taken_from_a_session() {
    let (behind, gateway) = behind(Era::Modern);
    let client = Duplex::to(&gateway, Door::Streamable).open();
    let params = json!({
        "name": "echo", "arguments": { "message": "m" },
        "requestState": "mine", "inputResponses": { "a": {} }, "task": {},
    });
    client.result("tools/call", &params);
    let sent = params_of(&behind.received(), "tools/call").pop().unwrap();
    hold(MODERN, "CallToolRequestParams", &sent);
    for name in ["requestState", "inputResponses"] {
        assert!(sent.get(name).is_none(), "{sent}");
    }
}

#[test]
fn an_error_as_an_answer_is_told_to_operators() {
    for era in [Era::Legacy, Era::Modern] {
        let (_behind, gateway) = behind(era);
        for door in DOORS {
            let client = Duplex::to(&gateway, door)
                .declaring(all_capabilities())
                .answering(|_| Say::Error(-32000, "My form is broken"))
                .open();
            let form = json!({ "type": "object", "properties": {} });
            let params = json!({ "message": "m", "requestedSchema": form });
            let arguments = json!({ "method": "elicitation/create", "params": params });
            client.request("tools/call", &json!({ "name": "ask", "arguments": arguments }));
        }
        let log = gateway.stop().stderr;
        let lines: Vec<&str> =
            log.lines().filter(|line| line.contains("My form is broken")).collect();
        assert_eq!(lines.len(), 2, "{era:?}: {log}");
        assert!(
            lines[0].contains("elicitation/create") && lines[0].contains("-32000"),
            "{log}"
        );
    }
}

/// The text of all sources below a folder.
fn sources(folder: &std::path::Path) -> String {
    let mut all = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.push_str(&sources(&path));
        } else if path.extension().is_some_and(|it| it == "rs") {
            all.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
    all
}

#[test]
fn each_row_of_the_table_is_held_by_tests_that_there_are() {
    let root = crate::support::program::root();
    let table = root.join("src/protocol/revision_differences.rs");
    let table = std::fs::read_to_string(table).unwrap();
    let tests = sources(&root.join("tests")) + &sources(&root.join("src"));
    let rows = table.lines().filter(|line| line.starts_with("//! | "));
    let cells = rows.filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next());
    let names: Vec<&str> = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert!(names.len() > 40, "{names:?}");
    for name in names {
        assert!(tests.contains(&format!("fn {name}(")), "there is no {name}");
    }
}
