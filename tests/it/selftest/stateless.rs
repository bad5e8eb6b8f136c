//! The modern client and the modern scripted server against each other, without a gateway.

use serde_json::{Value, json};

use crate::support::http::Request;
use crate::support::mcp::{BOTH, initialize_message};
use crate::support::modern::ModernClient;
use crate::support::script::{LEVELS, TEXT_URI};
use crate::support::upstream_http::Answers;
use crate::support::upstream_modern::ModernUpstream;
use crate::support::wait_until;

fn pair() -> (ModernUpstream, ModernClient) {
    let upstream = ModernUpstream::start();
    let client = ModernClient::of(&upstream.address());
    (upstream, client)
}

#[test]
fn it_tells_what_it_is_and_what_it_has() {
    let (upstream, client) = pair();
    let found = client.result("server/discover", &json!({}));
    assert_eq!(found["supportedVersions"], json!(["2026-07-28"]));
    assert!(found["capabilities"].get("tasks").is_none());
    assert!(client.tool_names().contains(&"echo".to_owned()));
    upstream.set_freshness(7, "private");
    let read = client.result("resources/read", &json!({ "uri": TEXT_URI }));
    assert_eq!((&read["ttlMs"], &read["cacheScope"]), (&json!(7), &json!("private")));
    assert_eq!(client.call("echo", &json!({ "message": "m" }))["content"][0]["text"], "m");
    let error = client.request("resources/read", &json!({ "uri": "no://x" }));
    assert_eq!(error.refused(400, -32602)["data"]["uri"], "no://x");
    client.request("ping", &json!({})).refused(404, -32601);
}

#[test]
fn it_refuses_what_is_not_of_its_revision() {
    let (upstream, client) = pair();
    let send = |request: Request| client.send(&request);
    let initialize = initialize_message(1, "2025-11-25");
    let old = Request::post("/mcp", &initialize).header("Accept", BOTH);
    send(old.clone()).refused(400, -32020);
    let error = send(old.header("MCP-Protocol-Version", "2025-11-25")).refused(400, -32022);
    assert_eq!(error["data"]["supported"], json!(["2026-07-28"]));
    assert_eq!(send(Request::get("/mcp")).status(), 405);
    let message = client.message(&json!(1), "tools/list", &json!({}));
    let other = client.post_request(&client.message(&json!(2), "prompts/list", &json!({})));
    send(other.body(&message.to_string())).refused(400, -32020);
    assert_eq!(upstream.requests().len(), 4);
}

#[test]
fn it_asks_in_rounds_and_wants_its_state_back() {
    let (upstream, client) = pair();
    let client = client.named("alice");
    for answers in [Answers::Json, Answers::EventStream] {
        upstream.answer_with(answers);
        let run = client.run_call("ask_twice", &json!({ "rounds": 2 }));
        let both = ["sampling/createMessage", "roots/list"].map(str::to_owned).to_vec();
        assert_eq!(run.asked(), [both.clone(), both]);
        let answers = run.message["result"]["structuredContent"]["answers"].clone();
        assert_eq!(answers.as_array().unwrap().len(), 4, "{answers}");
        assert_eq!(answers[3]["result"]["roots"][0]["uri"], "file:///alice");
    }
    let run = client.run_call("ask_roots", &json!({ "stateless": true }));
    assert!(run.rounds[0].message["result"].get("requestState").is_none());
    assert!(run.message.to_string().contains("file:///alice"), "{}", run.message);
    let run = client.run_call("ask_roots", &json!({ "state_only": true }));
    assert_eq!(run.asked(), [Vec::<String>::new()]);
    let run = client.run("prompts/get", &json!({ "name": "asking" }));
    assert!(run.message.to_string().contains("alice"), "{}", run.message);

    let params = json!({ "name": "ask_twice", "arguments": {} });
    let first = client.request("tools/call", &params);
    let mut half = client.responses_to(&first);
    half.as_object_mut().unwrap().retain(|key, _| key.starts_with("q0.0"));
    let again = client.retry("tools/call", &params, &first, &half);
    assert_eq!(again.requests()[0].1["method"], "roots/list");
    client.retry("tools/call", &params, &first, &half).refused(400, -32602);
    let other = json!({ "name": "ask_twice", "arguments": { "rounds": 3 } });
    client.retry("tools/call", &other, &again, &json!({})).refused(400, -32602);
    let plain = ModernClient::of(&upstream.address());
    let error = plain.ask("ask_roots", &json!({})).refused(400, -32021);
    assert_eq!(error["data"], json!({ "requiredCapabilities": { "roots": {} } }));
    assert!(plain.ask("ask_roots", &json!({ "brazen": true })).wants_input());
}

#[test]
fn it_tells_what_is_wanted_and_no_more() {
    let (_upstream, client) = pair();
    let messages = LEVELS.map(|level| json!({ "level": level, "data": level }));
    let arguments = json!({ "messages": messages });
    assert!(client.run_call("log", &arguments).told.is_empty());
    let run = client.clone().logging("alert").run_call("log", &arguments);
    assert_eq!(run.told("notifications/message").len(), 2);
    let params = json!({ "name": "count", "_meta": { "progressToken": "p" } });
    let run = client.run("tools/call", &params);
    let steps: Vec<Value> = run.told("notifications/progress");
    assert_eq!(steps.len(), 3);
    assert_eq!(steps[2]["progressToken"], "p");
}

#[test]
fn it_keeps_subscriptions_and_ends_them() {
    let (upstream, client) = pair();
    let wanted = json!({ "toolsListChanged": true, "resourceSubscriptions": [TEXT_URI] });
    let mut listening = client.listen_as(&json!("own"), &wanted);
    assert_eq!(listening.honoured, wanted);
    upstream.change("prompts", "p");
    upstream.change("tools", "t");
    assert_eq!(listening.next()["method"], "notifications/tools/list_changed");
    assert_eq!(upstream.touch(TEXT_URI), 1);
    assert_eq!(listening.next()["params"]["uri"], TEXT_URI);
    upstream.end_listens();
    assert_eq!(listening.next()["result"]["resultType"], "complete");
    listening.stream.expect_end();
    let other = client.listen(&wanted);
    other.stream.hang_up();
    wait_until("the subscription is over", || upstream.listens().is_empty());
    assert!(upstream.requests().last().unwrap().is_closed);
}

#[test]
fn it_notices_who_hangs_up() {
    let (upstream, client) = pair();
    let params = json!({ "name": "slow", "arguments": { "label": "a" } });
    let connection = client.start("tools/call", &params);
    upstream.wait_for_slow(1);
    connection.hang_up();
    wait_until("it is cancelled", || upstream.seen().cancelled.contains(&"a".to_owned()));
    let request = &upstream.requests_of("tools/call")[0];
    assert!(request.is_closed && request.head.header("Mcp-Name") == Some("slow"));
}
