//! Tests of messages and their answers.

use std::time::{Duration, UNIX_EPOCH};

use super::*;

fn ask_of(demo: &mut Demo, text: &str) -> Value {
    match demo.answer(text, UNIX_EPOCH).as_slice() {
        [Answer::Text(answer)] => serde_json::from_str(answer).unwrap(),
        other => panic!("{text}: {other:?}"),
    }
}

fn ask(method: &str, params: &str) -> Value {
    let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
    ask_of(&mut Demo::new(), &text)
}

#[track_caller]
fn check_refused(method: &str, params: &str, code: i64, part: &str) {
    let answer = ask(method, params);
    let (got, message) = (&answer["error"]["code"], answer["error"]["message"].as_str());
    assert_eq!(got, code, "{answer}");
    assert!(message.is_some_and(|message| message.contains(part)), "{answer}");
}

#[test]
fn every_revision_is_negotiated() {
    for revision in Revision::ALL
        .into_iter()
        .filter(|it| it.era() == crate::protocol::revision::Era::Legacy)
    {
        let params = format!(r#"{{"protocolVersion":"{revision}","capabilities":{{}}}}"#);
        let answer = ask("initialize", &params);
        assert_eq!(answer["result"]["protocolVersion"], revision.as_str());
        assert_eq!(answer["result"]["serverInfo"]["name"], "trunkline-demo");
    }
    let unknown = r#"{"protocolVersion":"1999-01-01","capabilities":{}}"#;
    let answer = ask("initialize", unknown);
    assert_eq!(answer["result"]["protocolVersion"], Revision::LATEST_LEGACY.as_str());
}

#[test]
fn every_tool_says_what_it_is_and_answers() {
    let listed = ask("tools/list", "{}");
    let tools = listed["result"]["tools"].as_array().unwrap();
    let names: Vec<_> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["add", "echo", "fail", "slow", "time"]);
    for tool in tools {
        assert_eq!(tool["inputSchema"]["type"], "object", "{tool}");
        assert_eq!(tool["annotations"]["readOnlyHint"], true, "{tool}");
        assert!(tool["title"].is_string() && tool["description"].is_string(), "{tool}");
    }
    let text = |params: &str| ask("tools/call", params)["result"]["content"][0]["text"].clone();
    assert_eq!(text(r#"{"name":"echo","arguments":{"message":"hi \"é\""}}"#), "hi \"é\"");
    assert_eq!(text(r#"{"name":"time"}"#), "1970-01-01T00:00:00.000Z");
    let failed = ask("tools/call", r#"{"name":"fail","arguments":{"message":"no"}}"#);
    assert_eq!(failed["result"]["isError"], true);
}

#[test]
fn sums_keep_their_kind() {
    let sum = |a: &str, b: &str| {
        let params = format!(r#"{{"name":"add","arguments":{{"a":{a},"b":{b}}}}}"#);
        ask("tools/call", &params)["result"].clone()
    };
    assert_eq!(sum("1", "2")["structuredContent"]["sum"].to_string(), "3");
    assert_eq!(sum("1", "0.5")["structuredContent"], json!({ "sum": 1.5 }));
    assert_eq!(sum("9223372036854775807", "1")["isError"], false);
    assert_eq!(sum("1.7e308", "1.7e308")["isError"], true);
}

#[test]
fn what_is_wrong_is_said_by_name() {
    let call = "tools/call";
    check_refused("nope/list", "{}", code::METHOD_NOT_FOUND, "nope/list");
    let invalid = code::INVALID_PARAMS;
    check_refused(call, "{}", invalid, "\"name\"");
    check_refused(call, r#"{"name":"x"}"#, invalid, "no tool \"x\"");
    check_refused(call, r#"{"name":"echo"}"#, invalid, "\"message\" is missing");
    check_refused(call, r#"{"name":"echo","arguments":[]}"#, invalid, "arguments");
    check_refused(call, r#"{"name":"add","arguments":{"a":1,"b":"2"}}"#, invalid, "\"b\" must");
    check_refused(call, r#"{"name":"time","arguments":{"tz":1}}"#, invalid, "\"tz\"");
    check_refused(call, r#"{"name":"slow","arguments":{"seconds":-1}}"#, invalid, "seconds");
    let steps = r#"{"name":"slow","arguments":{"seconds":1,"steps":0}}"#;
    check_refused(call, steps, invalid, "\"steps\"");
    check_refused("resources/read", r#"{"uri":"demo://x"}"#, invalid, "demo://x");
    check_refused("resources/read", r#"{"uri":"demo://greeting/"}"#, invalid, "greeting");
    check_refused("prompts/get", r#"{"name":"x"}"#, invalid, "no prompt \"x\"");
    check_refused("prompts/get", r#"{"name":"greet"}"#, invalid, "\"name\" is missing");
    check_refused("initialize", "{}", invalid, "protocolVersion");
}

#[test]
fn resources_and_prompts_are_listed_and_read() {
    let uri = ask("resources/list", "{}")["result"]["resources"][0]["uri"].clone();
    let read = ask("resources/read", &json!({ "uri": uri }).to_string());
    assert!(read["result"]["contents"][0]["text"].as_str().unwrap().contains("demo server"));
    let templates = ask("resources/templates/list", "{}");
    let template = &templates["result"]["resourceTemplates"][0]["uriTemplate"];
    assert_eq!(template, "demo://greeting/{name}");
    let read = ask("resources/read", r#"{"uri":"demo://greeting/Ada%20L"}"#);
    assert_eq!(read["result"]["contents"][0]["text"], "Hello, Ada L!");
    assert_eq!(ask("prompts/list", "{}")["result"]["prompts"][0]["name"], "greet");
    let prompt = ask("prompts/get", r#"{"name":"greet","arguments":{"name":"Ada"}}"#);
    let text = prompt["result"]["messages"][0]["content"]["text"].as_str().unwrap();
    assert!(text.contains("Ada"), "{text}");
}

#[test]
fn a_slow_call_is_a_plan_and_a_cancellation_names_it() {
    let mut demo = Demo::new();
    let text = r#"{"jsonrpc":"2.0","id":"s","method":"tools/call","params":{"name":"slow",
        "arguments":{"seconds":1,"steps":4},"_meta":{"progressToken":"t"}}}"#;
    let answers = demo.answer(text, UNIX_EPOCH);
    let [Answer::Slow(call)] = answers.as_slice() else { panic!("{answers:?}") };
    assert_eq!((call.steps(), call.step_time()), (4, Duration::from_millis(250)));
    let progress: Value = serde_json::from_str(&call.progress(3).unwrap()).unwrap();
    assert_eq!(progress["method"], "notifications/progress");
    assert_eq!(progress["params"]["progressToken"], "t");
    assert_eq!(
        (&progress["params"]["progress"], &progress["params"]["total"]),
        (&json!(3), &json!(4))
    );
    assert!(call.result().contains("4 steps"));
    let cancel =
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"s"}}"#;
    assert_eq!(demo.answer(cancel, UNIX_EPOCH), [Answer::Cancel(call.id().clone())]);
}

#[test]
fn what_wants_no_answer_gets_none() {
    for text in [
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/unheard_of"}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":[]}}"#,
        r#"{"jsonrpc":"2.0","id":9,"result":{}}"#,
    ] {
        assert_eq!(Demo::new().answer(text, UNIX_EPOCH), [], "{text}");
    }
    let garbage = ask_of(&mut Demo::new(), "{oops");
    assert_eq!((&garbage["error"]["code"], garbage.get("id")), (&json!(-32700), None));
}

#[test]
fn batches_are_answered_in_the_one_revision_that_has_them() {
    let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},
        {"jsonrpc":"2.0","method":"notifications/initialized"},
        {"jsonrpc":"2.0","id":2,"method":"ping"}]"#;
    for revision in Revision::ALL {
        let mut demo = Demo { revision: Some(revision) };
        let answer = ask_of(&mut demo, batch);
        if revision.allows_batches() {
            assert_eq!(answer.as_array().map(Vec::len), Some(2), "{answer}");
            assert_eq!(ask_of(&mut demo, "[]")["error"]["code"], -32600);
            let long = format!("[{}]", vec!["1"; 65].join(","));
            assert_eq!(ask_of(&mut demo, &long)["error"]["code"], -32600);
        } else {
            assert_eq!(answer["error"]["code"], -32600, "{answer}");
        }
    }
}
