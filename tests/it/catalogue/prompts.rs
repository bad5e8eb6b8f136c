//! Prompts and completion: lists, arguments, names, and who may see them.

use serde_json::{Value, json};

use crate::support::behind::{Behind, TRANSPORTS, params_of};
use crate::support::duplex::{DOORS, Door, Duplex};
use crate::support::gateway::Gateway;
use crate::support::script::{ITEMS_TEMPLATE, RICH_PROMPT, RICH_PROMPT_RESULT};
use crate::support::upstream_http::HttpUpstream;

fn http(upstream: &HttpUpstream) -> Value {
    json!({ "url": upstream.url(), "transport": "http" })
}

fn names(client: &Duplex) -> Vec<String> {
    client.names("prompts/list", "prompts", "name")
}

#[track_caller]
fn greeting(client: &Duplex, prompt: &str) -> Value {
    let params = json!({ "name": prompt, "arguments": { "name": "Bo", "style": "warm" } });
    let result = client.result("prompts/get", &params);
    result["messages"][0]["content"]["text"].clone()
}

#[track_caller]
fn completed(client: &Duplex, reference: &Value) -> Value {
    let params = json!({
        "ref": reference,
        "argument": { "name": "name", "value": "al" },
        "context": { "arguments": { "style": "warm" } },
    });
    client.result("completion/complete", &params)["completion"]["values"].clone()
}

fn two(extra: &Value) -> (HttpUpstream, HttpUpstream, Gateway) {
    let (a, b) = (HttpUpstream::labelled("A"), HttpUpstream::labelled("B"));
    b.set_prompts(&["greet", "only-b"]);
    b.set_templates(&["tb://{name}"]);
    let mut config = json!({ "mcp_servers": { "a": http(&a), "b": http(&b) } });
    for (key, value) in extra.as_object().unwrap() {
        config[key] = value.clone();
    }
    let gateway = Gateway::started(config);
    (a, b, gateway)
}

#[test]
fn every_transport_and_door_carries_prompts_and_completion() {
    for transport in TRANSPORTS {
        let behind = Behind::start(transport);
        let gateway = behind.gateway(&json!({}));
        for door in DOORS {
            let client = Duplex::to(&gateway, door).open();
            assert_eq!(names(&client), ["greet", "rich"], "{transport:?} {door:?}");
            assert_eq!(greeting(&client, "greet"), "scripted: warm greetings, Bo!");
            let error = client.refused("prompts/get", &json!({ "name": "greet" }));
            assert_eq!(error["message"], "Missing argument: name", "the upstream's own error");
            let values = completed(&client, &json!({ "type": "ref/prompt", "name": "greet" }));
            assert_eq!(values, json!(["scripted", "greet", "name=al", "style=warm"]));
            let reference = json!({ "type": "ref/resource", "uri": ITEMS_TEMPLATE });
            let values = completed(&client, &reference);
            assert_eq!(values, json!(["scripted", ITEMS_TEMPLATE, "name=al", "style=warm"]));
        }
    }
}

#[test]
fn what_nobody_knows_passes_as_it_was_written() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    for door in DOORS {
        let client = Duplex::to(&gateway, door).open();
        let last = || client.heard().pop().unwrap().text;
        client.result("prompts/list", &json!({}));
        assert!(last().contains(RICH_PROMPT), "{}", last());
        client.result("prompts/get", &json!({ "name": "rich" }));
        assert!(last().contains(RICH_PROMPT_RESULT), "{}", last());
        let params = json!({
            "ref": { "type": "ref/prompt", "name": "greet", "title": "x" },
            "argument": { "name": "name", "value": "" },
        });
        client.result("completion/complete", &params);
        assert!(last().contains("\"x-later\":1.50"), "{}", last());
        let asked = params_of(&upstream.received(), "completion/complete");
        assert_eq!(asked.last(), Some(&params));
    }
}

#[test]
fn several_servers_prompts_carry_their_names() {
    let (_a, b, gateway) = two(&json!({}));
    let client = Duplex::to(&gateway, Door::Streamable).open();
    assert_eq!(names(&client), ["a-greet", "a-rich", "b-greet", "b-only-b"]);
    assert_eq!(greeting(&client, "a-greet"), "A: warm greetings, Bo!");
    assert_eq!(greeting(&client, "b-greet"), "B: warm greetings, Bo!");
    assert_eq!(greeting(&client, "only-b"), "B: warm greetings, Bo!", "the bare name");
    // The upstream is asked for its own name, with the arguments as they are.
    let asked = params_of(&b.received(), "prompts/get").pop().unwrap();
    assert_eq!(asked["name"], "only-b");
    assert_eq!(asked["arguments"], json!({ "name": "Bo", "style": "warm" }));
    for unknown in ["a-only-b", "c-greet", "greet", ""] {
        let error = client.refused("prompts/get", &json!({ "name": unknown }));
        assert_eq!(error["code"], -32602, "{unknown}: {error}");
    }
}

#[test]
fn completion_goes_where_its_reference_belongs() {
    let (a, b, gateway) = two(&json!({}));
    let client = Duplex::to(&gateway, Door::Streamable).open();
    for (reference, label, own) in [
        (json!({ "type": "ref/prompt", "name": "a-greet" }), "A", "greet"),
        (json!({ "type": "ref/prompt", "name": "b-greet" }), "B", "greet"),
        (json!({ "type": "ref/prompt", "name": "only-b" }), "B", "only-b"),
        (json!({ "type": "ref/resource", "uri": ITEMS_TEMPLATE }), "A", ITEMS_TEMPLATE),
        (json!({ "type": "ref/resource", "uri": "tb://{name}" }), "B", "tb://{name}"),
    ] {
        let values = completed(&client, &reference);
        assert_eq!(values, json!([label, own, "name=al", "style=warm"]), "{reference}");
    }
    let n_asked =
        |upstream: &HttpUpstream| params_of(&upstream.received(), "completion/complete").len();
    assert_eq!((n_asked(&a), n_asked(&b)), (2, 3));
    for reference in [
        json!({ "type": "ref/prompt", "name": "nobody" }),
        json!({ "type": "ref/resource", "uri": "nobody://{x}" }),
        json!({ "type": "ref/other", "name": "greet" }),
        json!({}),
        Value::Null,
    ] {
        let params = json!({ "ref": reference, "argument": { "name": "name", "value": "" } });
        let error = client.refused("completion/complete", &params);
        assert_eq!(error["code"], -32602, "{reference}: {error}");
    }
}

#[test]
fn a_key_sees_the_prompts_of_its_servers_alone() {
    let (a, _b, gateway) = two(&json!({ "api_keys": [
        { "name": "all", "key": "key-of-all-1" },
        { "name": "only-b", "key": "key-of-b-12", "servers": ["b"] },
    ]}));
    let client = Duplex::to(&gateway, Door::Streamable).key("key-of-b-12").open();
    assert_eq!(names(&client), ["b-greet", "b-only-b"]);
    assert_eq!(greeting(&client, "greet"), "B: warm greetings, Bo!", "bare: it sees only one");
    let complete = |reference: Value| {
        let params = json!({ "ref": reference, "argument": { "name": "name", "value": "" } });
        client.refused("completion/complete", &params)["code"].clone()
    };
    assert_eq!(client.refused("prompts/get", &json!({ "name": "a-rich" }))["code"], -32602);
    assert_eq!(complete(json!({ "type": "ref/prompt", "name": "a-greet" })), -32602);
    assert_eq!(complete(json!({ "type": "ref/resource", "uri": ITEMS_TEMPLATE })), -32602);
    let reached = a.received();
    assert!(params_of(&reached, "prompts/get").is_empty());
    assert!(params_of(&reached, "completion/complete").is_empty());
}

#[test]
fn a_changed_list_is_announced_and_listed() {
    for transport in TRANSPORTS {
        let behind = Behind::start(transport);
        let gateway = behind.gateway(&json!({}));
        for door in DOORS {
            let client = Duplex::to(&gateway, door).open();
            let name = format!("later-{door:?}");
            client.call("change", &json!({ "kind": "prompts", "name": name }));
            client.wait_told("notifications/prompts/list_changed");
            assert!(names(&client).contains(&name), "{transport:?} {door:?}");
            assert_eq!(greeting(&client, &name), "scripted: warm greetings, Bo!");
        }
    }
}
