//! Streamable HTTP downstream, at every revision that has sessions.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::events::EventStream;
use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request};
use crate::support::mcp::{BOTH, LATEST, McpClient, initialize_message, request_message};
use crate::support::upstream_http::HttpUpstream;
use crate::support::{stays_so, wait_for};

const REVISIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

fn post(body: &str) -> Request {
    Request::post_text("/mcp", body).header("Accept", BOTH)
}

#[test]
fn every_revision_opens_a_session_and_serves() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    for revision in REVISIONS {
        let mut client = McpClient::new(gateway.address()).speaking(revision);
        let answer = client.initialize().expect(200);
        let result = &answer.message()["result"];
        assert_eq!(result["protocolVersion"], revision, "{answer}");
        assert_eq!(result["serverInfo"]["name"], "trunkline", "{answer}");
        assert_eq!(result["capabilities"]["tools"]["listChanged"], true, "{answer}");
        let session = client.session();
        assert!(!session.is_empty() && session.bytes().all(|b| (0x21..=0x7e).contains(&b)));
        client.notify("notifications/initialized", &json!({})).expect(202);
        assert!(client.tool_names().contains(&"echo".to_owned()), "{revision}");
        let result = client.call("echo", &json!({"message": revision}));
        assert_eq!(result["content"][0]["text"], revision);
    }
    assert_eq!(upstream.seen().n_initialize, 1, "the sessions share one upstream session");
}

#[test]
fn an_unknown_revision_is_answered_with_the_latest() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    for asked in ["2099-01-01", "1.0", ""] {
        let mut client = McpClient::new(gateway.address()).speaking(asked);
        let answer = client.initialize().expect(200);
        assert_eq!(answer.message()["result"]["protocolVersion"], LATEST, "{asked:?}");
    }
}

#[test]
fn session_ids_are_never_the_same() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let (first, second) = (gateway.mcp(), gateway.mcp());
    assert_ne!(first.session(), second.session());
}

#[test]
fn a_request_needs_a_session_that_is_known() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let missing = gateway.send(&post(list).header("MCP-Protocol-Version", LATEST)).expect(400);
    assert!(missing.json()["error"]["code"].is_i64(), "{missing}");
    for unknown in ["nope", "00000000-0000-0000-0000-000000000000", "a.b.c"] {
        let answer = gateway.send(&post(list).header("Mcp-Session-Id", unknown)).expect(404);
        assert!(answer.json()["error"]["code"].is_i64(), "{answer}");
        let get = Request::get("/mcp").header("Accept", "text/event-stream");
        gateway.send(&get.header("Mcp-Session-Id", unknown)).expect(404);
        let delete = Request::new("DELETE", "/mcp");
        gateway.send(&delete.header("Mcp-Session-Id", unknown)).expect(404);
    }
    gateway.send(&Request::new("DELETE", "/mcp")).expect(400);
}

#[test]
fn a_session_that_was_ended_is_unknown() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let (client, other) = (gateway.mcp(), gateway.mcp());
    let mut stream = client.listen();
    let answer = client.end();
    assert!([200, 204].contains(&answer.status()), "{answer}");
    client.post(PING).expect(404);
    client.end().expect(404);
    stream.expect_end();
    other.post(PING).expect(200);
}

#[test]
fn notifications_and_responses_are_accepted_without_a_body() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = gateway.mcp();
    for message in [
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed","params":{}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"never"}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/unheard_of"}"#,
        r#"{"jsonrpc":"2.0","id":99,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":"x","error":{"code":-1,"message":"no"}}"#,
    ] {
        let answer = client.post(message).expect(202);
        assert!(answer.body.is_empty(), "{message}: {answer}");
    }
    assert!(upstream.seen().cancellations.is_empty());
}

#[test]
fn accept_and_content_type_are_held_to() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = gateway.mcp();
    let session = client.session();
    let with_accept = |accept: &str| {
        let request = Request::post_text("/mcp", PING).header("Accept", accept);
        gateway.send(&request.header("Mcp-Session-Id", session))
    };
    with_accept("text/html").expect(406);
    with_accept("application/json;q=0, text/html").expect(406);
    with_accept("*/*").expect(200);
    with_accept("application/*, text/*").expect(200);
    let get = Request::get("/mcp").header("Mcp-Session-Id", session);
    gateway.send(&get.header("Accept", "application/json")).expect(406);
    let untyped = Request::new("POST", "/mcp").header("Accept", BOTH).body(PING);
    gateway.send(&untyped.clone().header("Mcp-Session-Id", session)).expect(415);
    let plain = untyped.header("Content-Type", "text/plain");
    gateway.send(&plain.header("Mcp-Session-Id", session)).expect(415);
}

#[test]
fn other_methods_are_405() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    for method in ["PUT", "PATCH"] {
        let answer = gateway.send(&Request::new(method, "/mcp")).expect(405);
        let allow = answer.header("Allow").unwrap_or_default();
        for right in ["GET", "POST", "DELETE"] {
            assert!(allow.contains(right), "{answer}");
        }
    }
}

#[test]
fn a_bad_revision_header_is_400() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = gateway.mcp();
    for bad in ["banana", "1999-01-01", ""] {
        let request = post(PING).header("Mcp-Session-Id", client.session());
        gateway.send(&request.header("MCP-Protocol-Version", bad)).expect(400);
    }
    // Clients of 2025-03-26 know of no such header.
    gateway.send(&post(PING).header("Mcp-Session-Id", client.session())).expect(200);
}

#[test]
fn batches_belong_to_one_revision() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"notifications/initialized"},{"jsonrpc":"2.0","id":"two","method":"tools/call","params":{"name":"echo","arguments":{"message":"m"}}}]"#;
    for revision in REVISIONS {
        let client = McpClient::new(gateway.address()).speaking(revision).opened();
        let answer = client.post(batch);
        if revision != "2025-03-26" {
            answer.expect(400);
            continue;
        }
        let answers = answer.expect(200).json();
        let answers = answers.as_array().unwrap();
        assert_eq!(answers.len(), 2, "{answers:?}");
        let by_id = |id: Value| answers.iter().find(|a| a["id"] == id).unwrap();
        assert_eq!(by_id(json!(1))["result"], json!({}));
        assert_eq!(by_id(json!("two"))["result"]["content"][0]["text"], "m");
        let quiet = r#"[{"jsonrpc":"2.0","method":"notifications/initialized"}]"#;
        assert!(client.post(quiet).expect(202).body.is_empty());
        client.post("[]").expect(400);
    }
}

#[test]
fn a_batch_of_large_results_is_answered_in_turn() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(json!({
        "limits": {
            "buffered_bytes": 2_500_000, "body_bytes": 100_000,
            "upstream_result_bytes": 2_000_000,
        },
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }));
    let client = McpClient::new(gateway.address()).speaking("2025-03-26").opened();
    let calls = |n: u64| {
        let call = |id| {
            let params = json!({ "name": "big", "arguments": { "megabytes": 1 } });
            request_message(&json!(id), "tools/call", &params)
        };
        json!((1..=n).map(call).collect::<Vec<Value>>())
    };
    // More than there is room for, one after the other.
    let mut stream = client.start(&calls(6)).into_events().expect_open();
    for id in 1..=6 {
        let answer = stream.next_message();
        assert_eq!(answer["id"], id);
        let text = answer["result"]["content"][0]["text"].as_str();
        assert!(text.is_some_and(|text| text.len() >= 1_000_000), "{answer:.200}");
    }
    stream.expect_end();
    // One that is alone, and several that are small, are no stream.
    let answers = client.post(&calls(1).to_string()).expect(200).json();
    assert_eq!(answers[0]["id"], 1);
}

#[test]
fn messages_that_are_none_are_told_so() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = gateway.mcp();
    for (body, code) in
        [("{", -32700), ("", -32700), ("nonsense", -32700), ("{}", -32600), ("1", -32600)]
    {
        let answer = client.post(body).expect(400);
        assert_eq!(answer.json()["error"]["code"], code, "{body}: {answer}");
        assert!(answer.json()["id"].is_null(), "{body}: {answer}");
    }
    assert_eq!(client.request("unheard/of", &json!({}))["error"]["code"], -32601);
    assert_eq!(client.request("ping", &json!({}))["result"], json!({}));
    let id = json!("a \"string\" id");
    let answer = client.post(&request_message(&id, "ping", &json!({})).to_string());
    assert_eq!(answer.expect(200).message()["id"], id);
}

#[test]
fn failures_of_calls_are_errors_of_json_rpc() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = gateway.mcp();
    let call = |tool: &str| client.request("tools/call", &json!({"name": tool}));
    let unknown = call("ecko");
    assert_eq!(unknown["error"]["code"], -32602, "{unknown}");
    assert!(unknown["error"]["message"].as_str().unwrap().contains("echo"), "{unknown}");
    let own = call("rpc_error");
    assert_eq!(own["error"]["code"], -32001, "{own}");
    assert_eq!(own["error"]["message"], "Not today.", "{own}");
    assert_eq!(own["error"]["data"], json!({"zulu": 1.5, "alpha": [null]}), "{own}");
    let garbage = call("garbage");
    assert!(garbage["error"]["message"].as_str().unwrap().contains('s'), "{garbage}");
    assert!(call("fail")["result"]["isError"].as_bool().unwrap());
    let nameless = client.request("tools/call", &json!({}));
    assert_eq!(nameless["error"]["code"], -32602, "{nameless}");
}

#[test]
fn an_answer_with_nothing_before_it_is_json() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = gateway.mcp();
    let params = json!({"name": "echo", "_meta": {"progressToken": "t"}});
    let answer = client.post(&request_message(&json!(5), "tools/call", &params).to_string());
    let kind = answer.header("Content-Type").unwrap_or_default();
    assert!(kind.starts_with("application/json"), "{answer}");
}

#[test]
fn progress_comes_before_the_result_with_the_clients_own_token() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = gateway.mcp();
    for token in [json!("7"), json!(7), json!("töken")] {
        let call = client.start_call_with_token(&json!("id-1"), "slow", &json!({}), &token);
        upstream.wait_for_slow(1);
        upstream.step_slow(1, 2);
        let mut stream = call.into_events().expect_open();
        for step in 1..=2 {
            let message = stream.next_message();
            assert_eq!(message["method"], "notifications/progress", "{message}");
            assert_eq!(message["params"]["progressToken"], token, "{message}");
            assert_eq!(message["params"]["progress"], step, "{message}");
            assert_eq!(message["params"]["total"], 2, "{message}");
            if step == 1 {
                upstream.step_slow(2, 2);
            }
        }
        upstream.release_slow();
        let answer = stream.next_message();
        assert_eq!(answer["id"], "id-1", "{answer}");
        assert!(answer["result"].is_object(), "{answer}");
        stream.expect_end();
    }
}

#[test]
fn progress_goes_to_its_own_call_alone() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let (first, second) = (gateway.mcp(), gateway.mcp());
    // The same id and the same token in two sessions.
    let start = |client: &McpClient, label: &str| {
        let arguments = json!({ "label": label });
        client.start_call_with_token(&json!(1), "slow", &arguments, &json!(1))
    };
    let calls = [start(&first, "one"), start(&second, "two")];
    upstream.wait_for_slow(2);
    upstream.step_slow(1, 1);
    for (call, label) in calls.into_iter().zip(["one", "two"]) {
        let mut stream = call.into_events().expect_open();
        assert_eq!(stream.next_message()["params"]["progress"], 1);
        upstream.release_labelled(label);
        let text = stream.next_message()["result"]["content"][0]["text"].clone();
        assert_eq!(text, format!("slow {label}"));
        stream.expect_end();
    }
}

#[test]
fn the_sessions_stream_tells_of_changes() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = gateway.mcp();
    let mut stream = client.listen();
    wait_for("the gateway listens upstream", || (upstream.n_streams() > 0).then_some(()));
    upstream.add_tool("later");
    upstream.announce_change();
    let changed = stream.next_message();
    assert_eq!(changed["method"], "notifications/tools/list_changed", "{changed}");
    assert!(changed.get("id").is_none(), "{changed}");
    assert!(client.tool_names().contains(&"later".to_owned()), "the list is new when told so");
    client.call("later", &json!({}));
}

/// Waits until a message comes on either stream; gives which one.
fn first_to_hear(streams: &mut [EventStream; 2]) -> usize {
    wait_for("a message on one of the streams", || {
        streams.iter_mut().position(|stream| {
            matches!(stream.try_next(Duration::from_millis(20)), Ok(Some(e)) if !e.data.is_empty())
        })
    })
}

#[test]
fn two_streams_of_a_session_share_the_messages() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = gateway.mcp();
    let mut streams = [client.listen(), client.listen()];
    wait_for("the gateway listens upstream", || (upstream.n_streams() > 0).then_some(()));
    upstream.add_tool("later");
    upstream.announce_change();
    let heard = first_to_hear(&mut streams);
    let other = &mut streams[1 - heard];
    // A message goes to one of them (2025-11-25, basic/transports, Multiple Connections).
    assert!(other.is_silent_for(Duration::from_millis(200)), "told twice");
    client.post(PING).expect(200);
}

#[test]
fn a_cancellation_reaches_the_right_call_once() {
    let (first, second) = (HttpUpstream::start(), HttpUpstream::start());
    let gateway = Gateway::started(json!({ "mcp_servers": {
        "a": { "url": first.url(), "transport": "http" },
        "b": { "url": second.url(), "transport": "http" },
    }}));
    let client = gateway.mcp();
    let other = gateway.mcp();
    let _doomed = client.start_call(&json!(1), "a-slow", &json!({"label": "doomed"}));
    let mut same_server = client.start_call(&json!(2), "a-slow", &json!({"label": "kept"}));
    let mut other_server = client.start_call(&json!("1"), "b-slow", &json!({}));
    let mut other_session = other.start_call(&json!(1), "a-slow", &json!({"label": "foreign"}));
    first.wait_for_slow(3);
    second.wait_for_slow(1);
    client.cancel(&json!(1));
    first.wait_until("the cancelled call ends", |seen| {
        seen.slow.len() == 2 && seen.cancellations.len() == 1
    });
    client.cancel(&json!(1));
    client.cancel(&json!("unknown"));
    first.release_slow();
    second.release_slow();
    for call in [&mut same_server, &mut other_server, &mut other_session] {
        assert!(call.answer().expect(200).message()["result"].is_object());
    }
    assert_eq!(first.seen().cancelled, ["doomed"]);
    assert_eq!(first.seen().cancellations.len(), 1);
    assert!(second.seen().cancellations.is_empty());
}

#[test]
fn a_client_that_drops_its_connection_has_cancelled_nothing() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = gateway.mcp();
    let call = client.start_call(&json!(1), "slow", &json!({}));
    upstream.wait_for_slow(1);
    call.hang_up();
    stays_so("nobody cancels", Duration::from_millis(600), || {
        let seen = upstream.seen();
        seen.cancellations.is_empty() && seen.slow.len() == 1
    });
    upstream.release_slow();
    upstream.wait_until("it ran to its end", |seen| seen.n_finished("slow") == 1);
    client.post(PING).expect(200);
    client.call("echo", &json!({}));
    assert!(upstream.seen().cancellations.is_empty());
}

#[test]
fn foreign_origins_and_hosts_are_403_with_every_method() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = gateway.mcp();
    let evil = "http://evil.example";
    let initialize = initialize_message(1, LATEST).to_string();
    gateway.send(&post(&initialize).header("Origin", evil)).expect(403);
    gateway.send(&client.post_request(PING).header("Origin", evil)).expect(403);
    gateway.send(&client.listen_request().header("Origin", evil)).expect(403);
    let delete = Request::new("DELETE", "/mcp").header("Mcp-Session-Id", client.session());
    gateway.send(&delete.header("Origin", evil)).expect(403);
    gateway.send(&post(&initialize).host("evil.example")).expect(403);
    client.post(PING).expect(200);
}

#[test]
fn switched_off_it_is_501_and_names_what_serves() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(json!({
        "transports": { "streamable_http": false },
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }));
    let answer = gateway.send(&post(&initialize_message(1, LATEST).to_string())).expect(501);
    for endpoint in ["/mcp/tools/list", "/mcp/tools/call", "/mcp/sse"] {
        assert!(answer.text().contains(endpoint), "{endpoint}: {answer}");
    }
}

#[test]
fn a_connection_serves_many_calls() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = gateway.mcp();
    let mut connection = Connection::open(gateway.address());
    for n in 0..20 {
        let params = json!({"name": "echo", "arguments": {"message": n.to_string()}});
        let message = request_message(&json!(n), "tools/call", &params).to_string();
        let answer = connection.exchange(&client.post_request(&message)).expect(200);
        assert_eq!(answer.message()["result"]["content"][0]["text"], n.to_string());
    }
}

#[test]
fn paths_with_a_trailing_slash_are_the_same() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = McpClient::new(gateway.address()).at("/mcp/").opened();
    assert!(client.tool_names().contains(&"echo".to_owned()));
    drop(client.listen());
    let answer = client.end();
    assert!([200, 204].contains(&answer.status()), "{answer}");
}
