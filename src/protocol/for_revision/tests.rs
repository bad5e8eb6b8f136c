use super::*;
use crate::protocol::revision::Revision as R;
use serde_json::json;

fn raw(value: &Value) -> Raw {
    Raw::from_valid(value.to_string())
}

fn value(raw: &Raw) -> Value {
    serde_json::from_str(raw.get()).unwrap()
}

#[test]
fn a_structured_result_of_any_type_is_wrapped_for_revisions_of_objects() {
    for client in R::ALL {
        for (output, structure, expected) in [
            (Output::Any, json!([1, 2]), Some(json!({ "result": [1, 2] }))),
            (Output::Any, json!("x"), Some(json!({ "result": "x" }))),
            (Output::Any, json!(null), Some(json!({ "result": null }))),
            // The schema is wrapped, so each value is.
            (Output::Any, json!({ "a": 1 }), Some(json!({ "result": { "a": 1 } }))),
            (Output::Object, json!({ "a": 1 }), None),
            (Output::Object, json!(7), Some(json!({ "result": 7 }))),
        ] {
            let result = json!({ "content": [{ "type": "text", "text": "t" }], "structuredContent": structure });
            let found = call_result(client, || output, &raw(&result)).map(|it| value(&it));
            let expected = expected.filter(|_| !client.has_any_output());
            let found_structure = found.as_ref().map(|it| it["structuredContent"].clone());
            assert_eq!(found_structure, expected, "{client} {output:?} {structure}");
            if let Some(found) = found {
                assert_eq!(found["content"], result["content"]);
            }
        }
    }
}

#[test]
fn what_is_only_structured_is_told_in_words_too() {
    let result = json!({ "content": [], "structuredContent": [1] });
    let found = call_result(R::V2025_03_26, || Output::Any, &raw(&result)).unwrap();
    assert_eq!(value(&found)["content"], json!([{ "type": "text", "text": "[1]" }]));
    // No structured result is announced, and there is none.
    let nothing = json!({ "content": [], "structuredContent": null });
    let found = call_result(R::LATEST_LEGACY, || Output::Object, &raw(&nothing)).unwrap();
    assert_eq!(value(&found), json!({ "content": [] }));
}

#[test]
fn nothing_is_asked_of_the_tool_where_nothing_is_structured() {
    let result = json!({ "content": [{ "type": "text", "text": "structuredContent" }] });
    let output = || panic!("it was looked up");
    assert_eq!(call_result(R::LATEST_LEGACY, output, &raw(&result)), None);
}

#[test]
fn an_object_is_not_taken_apart() {
    let first = |text: &str| structures(text).collect::<Vec<u8>>();
    assert_eq!(first(r#"{"structuredContent" : [1],"x":{"structuredContent":{}}}"#), b"[{");
    assert_eq!(first(r#"{"text":"structuredContent","t":"\"structuredContent\":1"}"#), b"");
    // A text that is no result of a call is left as it is, and not parsed.
    let text = r#"{"structuredContent":{"a":1},"structuredContent":{"b":2}}"#;
    let result = Raw::from_valid(text.to_owned());
    assert_eq!(call_result(R::LATEST_LEGACY, || Output::Object, &result), None);
    let nested = json!({ "structuredContent": { "structuredContent": 1 }, "content": [] });
    assert_eq!(call_result(R::LATEST_LEGACY, || Output::Object, &raw(&nested)), None);
}

#[test]
fn a_schema_that_cannot_be_wrapped_is_told_to_nobody_who_wants_an_object_s() {
    let tool = r#"{"name":"t","outputSchema":{"type":"number","maximum":1e999}}"#;
    let output = Output::of(tool);
    assert_eq!(output, Output::Untold);
    for client in R::ALL {
        let told = output.told(client, tool);
        let expected = (!client.has_any_output()).then(|| r#"{"name":"t"}"#.to_owned());
        assert_eq!(told, expected, "{client}");
        let object = json!({ "content": [], "structuredContent": { "a": 1 } });
        assert_eq!(call_result(client, || output, &raw(&object)), None);
    }
    let sampling = format!("{{\"messages\":[],\"tools\":[{tool}]}}");
    let Fit::With(told) = question(R::LATEST_LEGACY, "sampling/createMessage", Some(&sampling))
    else {
        panic!("it is told");
    };
    assert!(!told.contains("outputSchema"), "{told}");
    let array = r#"{"name":"t","outputSchema":{"type":"array"}}"#;
    assert_eq!(Output::of(array), Output::Any);
}

#[test]
fn content_of_later_kinds_becomes_text() {
    let audio = json!({ "type": "audio", "data": "AAAA", "mimeType": "audio/wav" });
    let link = json!({ "type": "resource_link", "uri": "a:b", "name": "n", "title": "T", "annotations": { "priority": 1 } });
    let text = json!({ "type": "text", "text": "\"audio\"" });
    for client in R::ALL {
        let result = json!({ "content": [audio, link, text], "isError": true });
        let found = call_result(client, || Output::Object, &raw(&result));
        let found = found.map_or_else(|| result.clone(), |it| value(&it));
        let kinds: Vec<&str> = found["content"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["type"].as_str().unwrap())
            .collect();
        let expected = match (client.has_audio(), client.has_resource_links()) {
            (true, true) => ["audio", "resource_link", "text"],
            (true, false) => ["audio", "text", "text"],
            _ => ["text", "text", "text"],
        };
        assert_eq!(kinds, expected, "{client}");
        assert_eq!(found["isError"], true);
        if !client.has_resource_links() {
            assert_eq!(found["content"][1]["text"], "T: a:b");
            assert_eq!(found["content"][1]["annotations"]["priority"], 1);
        }
        let prompt = json!({ "messages": [
            { "role": "user", "content": audio }, { "role": "assistant", "content": link } ] });
        let found = prompt_result(client, &raw(&prompt));
        let found = found.map_or_else(|| prompt.clone(), |it| value(&it));
        assert_eq!(found["messages"][0]["content"]["type"], expected[0], "{client}");
        assert_eq!(found["messages"][1]["content"]["type"], expected[1], "{client}");
        assert_eq!(found["messages"][1]["role"], "assistant");
    }
}

#[test]
fn a_completion_has_so_many_values() {
    let values: Vec<String> = (0..150).map(|n| n.to_string()).collect();
    let result = raw(&json!({ "completion": { "values": values, "total": 150 } }));
    assert_eq!(completion_result(R::LATEST_LEGACY, &result), None);
    let found = value(&completion_result(R::LATEST_MODERN, &result).unwrap());
    let completion = &found["completion"];
    assert_eq!(completion["values"].as_array().unwrap().len(), COMPLETION_VALUES_MAX);
    assert_eq!((&completion["hasMore"], &completion["total"]), (&json!(true), &json!(150)));
    let few = raw(&json!({ "completion": { "values": ["a"] } }));
    assert_eq!(completion_result(R::LATEST_MODERN, &few), None);
}

fn asked(client: R, method: &str, params: &Value) -> Result<Value, RpcError> {
    match question(client, method, Some(&params.to_string())) {
        Fit::AsItIs => Ok(params.clone()),
        Fit::With(text) => Ok(serde_json::from_str(&text).unwrap()),
        Fit::Refused(error) => Err(error),
    }
}

#[test]
fn an_elicitation_has_what_its_revision_has() {
    let params = json!({ "mode": "url", "url": "https://e.x", "message": "m", "elicitationId": "e", "task": {} });
    for client in R::ALL {
        let found = asked(client, "elicitation/create", &params).unwrap();
        assert_eq!(
            found.get("elicitationId").is_some(),
            client.has_elicitation_ids(),
            "{client}"
        );
        assert_eq!(found.get("task").is_some(), client.has_tasks(), "{client}");
        assert_eq!(found["url"], "https://e.x");
    }
}

#[test]
fn titled_choices_have_their_titles_beside_them_where_there_are_no_others() {
    let choices = json!([{ "const": "a", "title": "A" }, { "const": "b", "title": "B" }]);
    let form = |property: Value| json!({ "message": "m", "requestedSchema": { "type": "object", "properties": { "p": property }, "required": ["p"] } });
    let titled = form(json!({ "type": "string", "oneOf": choices, "default": "a" }));
    let several =
        form(json!({ "type": "array", "items": { "type": "string", "enum": ["a"] } }));
    let plain = form(json!({ "type": "string", "enum": ["a"], "enumNames": ["A"] }));
    for client in R::ALL {
        let found = asked(client, "elicitation/create", &titled).unwrap();
        let property = &found["requestedSchema"]["properties"]["p"];
        if client.has_choices_and_blocks() {
            assert_eq!(found, titled, "{client}");
            assert_eq!(asked(client, "elicitation/create", &several), Ok(several.clone()));
        } else {
            let expected = json!({ "type": "string", "default": "a", "enum": ["a", "b"], "enumNames": ["A", "B"] });
            assert_eq!(property, &expected, "{client}");
            let error = asked(client, "elicitation/create", &several).unwrap_err();
            assert_eq!(error.code, code::INVALID_PARAMS, "{client}");
            let mut optional = several.clone();
            optional["requestedSchema"]["required"] = json!([]);
            let found = asked(client, "elicitation/create", &optional).unwrap();
            assert_eq!(found["requestedSchema"]["properties"], json!({}), "{client}");
        }
        assert_eq!(asked(client, "elicitation/create", &plain), Ok(plain.clone()));
    }
}

#[test]
fn messages_for_sampling_have_one_block_where_there_are_no_more() {
    let text = |text: &str| json!({ "type": "text", "text": text });
    let params = json!({ "maxTokens": 1, "messages": [
        { "role": "user", "content": [text("a"), text("b")] },
        { "role": "assistant", "content": text("c") } ] });
    for client in R::ALL {
        let found = asked(client, "sampling/createMessage", &params).unwrap();
        if client.has_choices_and_blocks() {
            assert_eq!(found, params, "{client}");
            continue;
        }
        assert_eq!(
            found["messages"],
            json!([
                { "role": "user", "content": text("a") },
                { "role": "user", "content": text("b") },
                { "role": "assistant", "content": text("c") },
            ]),
            "{client}"
        );
    }
}

#[test]
fn tools_in_sampling_have_structured_results_of_the_revision() {
    let params = json!({ "maxTokens": 1,
        "tools": [{ "name": "t", "inputSchema": { "type": "object" }, "outputSchema": { "type": "array" } }],
        "messages": [{ "role": "user", "content": [
            { "type": "tool_result", "toolUseId": "1", "content": [], "structuredContent": [1] } ] }] });
    assert_eq!(asked(R::V2026_07_28, "sampling/createMessage", &params), Ok(params.clone()));
    let found = asked(R::V2025_11_25, "sampling/createMessage", &params).unwrap();
    assert_eq!(found["tools"][0]["outputSchema"]["type"], "object");
    let result = &found["messages"][0]["content"][0];
    assert_eq!(result["structuredContent"], json!({ "result": [1] }));
    let error = asked(R::V2025_06_18, "sampling/createMessage", &params).unwrap_err();
    assert_eq!(error.code, code::INVALID_PARAMS);
    // Audio becomes a text, as in tools' results.
    let audio = json!({ "maxTokens": 1, "messages": [
        { "role": "user", "content": { "type": "audio", "data": "", "mimeType": "audio/wav" } } ] });
    let found = asked(R::V2024_11_05, "sampling/createMessage", &audio).unwrap();
    assert_eq!(found["messages"][0]["content"]["type"], "text");
    assert_eq!(asked(R::V2025_03_26, "sampling/createMessage", &audio), Ok(audio));
}

#[test]
fn notifications_of_one_revision_are_heard_in_that_alone() {
    for client in R::ALL {
        for (method, heard) in [
            ("notifications/elicitation/complete", client == R::V2025_11_25),
            ("notifications/tasks/status", client == R::V2025_11_25),
            ("notifications/message", true),
            ("notifications/tasks", true),
            ("notifications/elicitation/complete/x", true),
        ] {
            assert_eq!(hears(client, method), heard, "{client} {method}");
            let text = crate::protocol::jsonrpc::notification(method, Some("{}"));
            assert_eq!(hears_text(client, &text), heard, "{client} {text}");
        }
    }
}

#[test]
fn errors_of_earlier_revisions_are_not_given_on() {
    for (code, given) in [
        (code::URL_ELICITATION_REQUIRED, code::INTERNAL_ERROR),
        (code::HEADER_MISMATCH, code::INTERNAL_ERROR),
        (code::RESOURCE_NOT_FOUND, code::INVALID_PARAMS),
        (code::MISSING_CLIENT_CAPABILITY, code::MISSING_CLIENT_CAPABILITY),
        (-32001, -32001),
    ] {
        let given_on = crate::protocol::modern::error_for(RpcError::new(code, "m"));
        assert_eq!(given_on.code, given);
    }
}
