//! What one key may take: calls a minute, sessions, streams, and retries of what it has paid for.

use serde_json::{Value, json};

use crate::support::behind::{Behind, Era, Transport};
use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request, Response};
use crate::support::mcp::{McpClient, initialize_message, request_message};
use crate::support::mcp_sse::SseClient;
use crate::support::modern::{Answered, ModernClient, retry_params};

use crate::support::script::{BLOB_URI, TEXT_URI};
use crate::support::upstream_http::HttpUpstream;
use crate::support::upstream_modern::ModernUpstream;
use crate::support::wait_until;

/// The ways of a tool call into the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Rest,
    Litellm,
    Streamable,
    Batch,
    HttpSse,
    Stateless,
    /// Stateless, of a client that can be asked: such a call is made by a thread of its own.
    Apart,
}

const DOORS: [Door; 7] = [
    Door::Rest,
    Door::Litellm,
    Door::Streamable,
    Door::Batch,
    Door::HttpSse,
    Door::Stateless,
    Door::Apart,
];

/// A call's answer: the status, `Retry-After`, and the body or the message.
#[derive(Debug)]
struct Called {
    status: u16,
    retry_after: Option<String>,
    body: Value,
}

impl Called {
    fn of(answer: &Response) -> Called {
        let retry_after = answer.header("Retry-After").map(str::to_owned);
        Called { status: answer.status(), retry_after, body: answer.message() }
    }

    fn of_stateless(answered: Answered) -> Called {
        let retry_after = answered.head.header("Retry-After").map(str::to_owned);
        Called { status: answered.status(), retry_after, body: answered.message }
    }
}

fn key_of(name: &str) -> String {
    format!("key-of-{name}")
}

fn call_params() -> Value {
    json!({ "name": "echo", "arguments": { "text": "x" } })
}

fn bearer(request: Request, key: &str) -> Request {
    request.header("Authorization", &format!("Bearer {key}"))
}

fn headers_of(key: &str) -> [(String, String); 1] {
    [("Authorization".to_owned(), format!("Bearer {key}"))]
}

/// A client of one door that has all it needs to make calls.
enum Caller<'a> {
    Rest(&'a Gateway, &'static str, String),
    Streamable(McpClient),
    Batch(McpClient),
    HttpSse(SseClient),
    Stateless(ModernClient),
}

impl Caller<'_> {
    #[track_caller]
    fn open<'a>(gateway: &'a Gateway, door: Door, key: &str) -> Caller<'a> {
        let mcp = || McpClient::new(gateway.address()).with_key(key);
        match door {
            Door::Rest => Caller::Rest(gateway, "/mcp/tools/call", key.to_owned()),
            Door::Litellm => Caller::Rest(gateway, "/mcp-rest/tools/call", key.to_owned()),
            Door::Streamable => Caller::Streamable(mcp().opened()),
            Door::Batch => Caller::Batch(mcp().speaking("2025-03-26").opened()),
            Door::HttpSse => {
                let mut client =
                    SseClient::connect_with(gateway.address(), "/sse", &headers_of(key));
                client.initialize();
                Caller::HttpSse(client)
            }
            Door::Stateless => Caller::Stateless(ModernClient::to(gateway).key(key)),
            Door::Apart => Caller::Stateless(ModernClient::to(gateway).key(key).named("it")),
        }
    }

    #[track_caller]
    fn call(&mut self) -> Called {
        let message = request_message(&json!("c"), "tools/call", &call_params());
        match self {
            Caller::Rest(gateway, path, key) => {
                Called::of(&gateway.send(&bearer(Request::post(path, &call_params()), key)))
            }
            Caller::Streamable(client) => Called::of(&client.post(&message.to_string())),
            Caller::Batch(client) => {
                let ping = request_message(&json!("p"), "ping", &Value::Null);
                let answer = client.post(&json!([message, ping]).to_string());
                let mut called = Called::of(&answer);
                let of_call = called.body.as_array().unwrap().iter().find(|it| it["id"] == "c");
                called.body = of_call.unwrap().clone();
                called
            }
            Caller::HttpSse(client) => {
                let body = client.request("tools/call", &call_params());
                Called { status: 202, retry_after: None, body }
            }
            Caller::Stateless(client) => {
                Called::of_stateless(client.request("tools/call", &call_params()))
            }
        }
    }
}

/// That a refusal looks as its door's refusals do, and when it says the next call is due.
#[track_caller]
fn check_refused(door: Door, called: &Called) -> u64 {
    // A stream and a batch have begun to answer already.
    let (status, is_told_by_head) = match door {
        Door::HttpSse => (202, false),
        Door::Batch => (200, false),
        // Clients that keep sessions take an error's status for the end of their connection.
        Door::Streamable => (200, true),
        Door::Rest | Door::Litellm | Door::Stateless | Door::Apart => (429, true),
    };
    assert_eq!(called.status, status, "{door:?}: {called:?}");
    let error = match door {
        Door::Litellm => &called.body["detail"],
        _ => &called.body["error"],
    };
    let in_body = match door {
        Door::Rest => {
            assert_eq!(error["code"], "rate_limited", "{called:?}");
            &error["retry_after_s"]
        }
        Door::Litellm => {
            assert_eq!(error["error"], "rate_limited", "{called:?}");
            &error["retry_after_s"]
        }
        _ => {
            assert_eq!(error["code"], -32603, "{door:?}: {called:?}");
            assert!(!called.body["id"].is_null(), "{door:?}: {called:?}");
            &error["data"]["retry_after_s"]
        }
    };
    let seconds = in_body.as_u64().unwrap_or_else(|| panic!("{door:?}: {called:?}"));
    let in_head = called.retry_after.as_deref().map(|it| it.parse::<u64>().unwrap());
    assert_eq!(in_head, is_told_by_head.then_some(seconds), "{door:?}: {called:?}");
    seconds
}

#[test]
fn calls_a_minute_count_at_every_door() {
    let upstream = HttpUpstream::start();
    let keys = DOORS.map(|door| {
        let name = format!("{door:?}");
        json!({ "name": name, "key": key_of(&name), "calls_per_minute": 1 })
    });
    let gateway = Gateway::started(json!({
        "api_keys": keys.to_vec(),
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }));
    for (n, door) in DOORS.into_iter().enumerate() {
        let mut caller = Caller::open(&gateway, door, &key_of(&format!("{door:?}")));
        let first = caller.call();
        assert!(first.status < 300, "{door:?}: {first:?}");
        assert!(first.body.get("error").is_none(), "{door:?}: {first:?}");
        let seconds = check_refused(door, &caller.call());
        assert!((1..=60).contains(&seconds), "{door:?}: {seconds} s");
        // What was refused has reached nobody.
        assert_eq!(upstream.seen().n_calls("echo"), n + 1, "{door:?}");
    }
}

#[test]
fn a_key_is_spent_at_all_doors_at_once_and_for_itself_alone() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(json!({
        "api_keys": [
            { "name": "few", "key": "key-of-few", "calls_per_minute": 2 },
            { "name": "many", "key": "key-of-many" },
        ],
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }));
    let open = |key: &str| DOORS.map(|door| (door, Caller::open(&gateway, door, key)));
    let mut few = open("key-of-few");
    for (_, caller) in few.iter_mut().take(2) {
        assert_eq!(caller.call().status, 200);
    }
    for (door, caller) in &mut few {
        check_refused(*door, &caller.call());
    }
    for (door, caller) in &mut open("key-of-many") {
        let called = caller.call();
        assert!(called.body.get("error").is_none(), "{door:?}: {called:?}");
    }
    assert_eq!(upstream.seen().n_calls("echo"), 2 + DOORS.len());
    // A name that nobody has is not even looked for, and lists are the gateway's own.
    gateway.call("nothing", &json!({})).expect_error(429);
    assert!(!gateway.tool_names().is_empty());
}

#[test]
fn what_nobody_has_costs_a_call_at_every_door() {
    let upstream = HttpUpstream::start();
    let keys: Vec<Value> = DOORS
        .iter()
        .map(|door| {
            let name = format!("{door:?}");
            json!({ "name": name, "key": key_of(&name), "calls_per_minute": 1 })
        })
        .collect();
    let gateway = Gateway::started(json!({
        "api_keys": keys,
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }));
    for door in DOORS {
        let key = key_of(&format!("{door:?}"));
        let mut caller = Caller::open(&gateway, door, &key);
        match &mut caller {
            Caller::Rest(gateway, path, key) => {
                let body = json!({ "name": "nothing", "arguments": {} });
                gateway.send(&bearer(Request::post(path, &body), key)).expect(404);
            }
            Caller::Streamable(client) | Caller::Batch(client) => {
                let message =
                    request_message(&json!("n"), "prompts/get", &json!({ "name": "nothing" }));
                client.post(&message.to_string());
            }
            Caller::HttpSse(client) => {
                client.request("tools/call", &json!({ "name": "nothing" }));
            }
            Caller::Stateless(client) => {
                client.request("resources/read", &json!({ "uri": "no:thing" }));
            }
        }
        check_refused(door, &caller.call());
    }
    assert_eq!(upstream.seen().n_calls("echo"), 0);
}

#[test]
fn all_that_a_server_does_for_a_key_costs_a_call() {
    let upstream = HttpUpstream::start();
    upstream.set_prompts(&["plain"]);
    let asked = [
        ("prompts/get", json!({ "name": "plain" })),
        ("resources/subscribe", json!({ "uri": TEXT_URI })),
        ("resources/unsubscribe", json!({ "uri": TEXT_URI })),
        ("x/unknown", json!({})),
        ("tools/call", call_params()),
    ];
    let keys: Vec<Value> = asked
        .iter()
        .map(|(method, _)| {
            json!({ "name": method, "key": key_of(method), "calls_per_minute": 1 })
        })
        .collect();
    let gateway = Gateway::started(json!({
        "api_keys": keys,
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }));
    for (method, params) in &asked {
        let client = McpClient::new(gateway.address()).with_key(&key_of(method)).opened();
        for list in ["tools/list", "prompts/list", "ping"] {
            client.result(list, &json!({}));
        }
        let message = request_message(&json!(7), method, params).to_string();
        let first = client.post(&message).expect(200);
        assert!(!first.text().contains("retry_after_s"), "{method}: {first}");
        let second = Called::of(&client.post(&message));
        check_refused(Door::Streamable, &second);
        client.result("tools/list", &json!({}));
    }
}

/// Of what a stream names, the key gets as much as it can pay for; without any it is told.
#[test]
fn each_resource_that_a_stream_listens_to_costs_a_call() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(json!({
        "api_keys": [{ "name": "few", "key": "key-of-few", "calls_per_minute": 1 }],
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }));
    let client = ModernClient::to(&gateway).key("key-of-few");
    let listen = |id: u64| {
        let uris = json!([TEXT_URI, BLOB_URI]);
        let params = json!({ "notifications": { "resourceSubscriptions": uris } });
        let message = client.message(&json!(id), "subscriptions/listen", &params);
        let mut connection = Connection::open(gateway.address());
        connection.send(&client.post_request(&message));
        connection
    };
    let mut stream = listen(1).into_events().expect_open();
    let honoured = stream.next_message()["params"]["notifications"].clone();
    assert_eq!(honoured["resourceSubscriptions"], json!([TEXT_URI]), "{honoured}");
    assert!(listen(2).answer().expect(429).header("Retry-After").is_some());
}

#[test]
fn a_key_has_so_many_sessions_and_others_have_theirs() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(json!({
        "api_keys": [
            { "name": "alice", "key": "key-of-alice" }, { "name": "bob", "key": "key-of-bob" },
        ],
        "limits": { "sessions_per_key": 2 },
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }));
    let of = |key: &str| McpClient::new(gateway.address()).with_key(key);
    let first = of("key-of-alice").opened();
    let mut second =
        SseClient::connect_with(gateway.address(), "/sse", &headers_of("key-of-alice"));
    second.initialize();
    let open = Request::post("/mcp", &initialize_message(1, "2025-11-25"))
        .header("Accept", "application/json, text/event-stream");
    let stream = Request::get("/sse").header("Accept", "text/event-stream");
    let alice = ModernClient::to(&gateway).key("key-of-alice");
    let params = json!({ "notifications": { "toolsListChanged": true } });
    let listen = alice.message(&json!(1), "subscriptions/listen", &params);
    let refused = |request: &Request| {
        let answer = gateway.send(request).expect(503);
        assert_eq!(answer.header("Retry-After"), Some("1"), "{answer}");
        assert!(answer.text().contains("sessions_per_key"), "{answer}");
    };
    refused(&bearer(open.clone(), "key-of-alice"));
    refused(&bearer(stream.clone(), "key-of-alice"));
    refused(&alice.post_request(&listen));
    // What there is goes on, and others have theirs.
    first.call("echo", &json!({}));
    let _bob = [of("key-of-bob").opened(), of("key-of-bob").opened()];
    refused(&bearer(open.clone(), "key-of-bob"));
    // Stateless requests need none.
    alice.call("echo", &json!({}));
    first.end().expect(204);
    gateway.send(&bearer(open, "key-of-alice")).expect(200);
    second.hang_up();
    wait_until("the stream's session has ended", || {
        let mut connection = Connection::open(gateway.address());
        connection.send(&bearer(stream.clone(), "key-of-alice"));
        connection.into_events().head.status() == 200
    });
}

fn with_streams(upstream: &HttpUpstream, keys: &[&str], streams: usize) -> Gateway {
    let keys: Vec<Value> =
        keys.iter().map(|name| json!({ "name": name, "key": key_of(name) })).collect();
    Gateway::started(json!({
        "api_keys": keys,
        "limits": { "streams": streams },
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }))
}

#[test]
fn no_key_takes_all_streams() {
    let upstream = HttpUpstream::start();
    let gateway = with_streams(&upstream, &["alice", "bob", "carol"], 8);
    let of = |name: &str| McpClient::new(gateway.address()).with_key(&key_of(name)).opened();
    let alice = of("alice");
    let modern = ModernClient::to(&gateway).key(&key_of("alice"));
    let filter = json!({ "toolsListChanged": true });
    let held = (alice.listen(), alice.listen(), modern.listen(&filter));
    let _more = (alice.listen(), alice.listen());
    let old = SseClient::connect_with(gateway.address(), "/sse", &headers_of("key-of-alice"));
    let sse =
        bearer(Request::get("/sse"), "key-of-alice").header("Accept", "text/event-stream");
    let params = json!({ "notifications": filter });
    let listen = modern.message(&json!(1), "subscriptions/listen", &params);
    let listen = modern.post_request(&listen);
    // All but a quarter may be the key's, whichever door it comes by.
    for request in [&alice.listen_request(), &sse, &listen] {
        let answer = gateway.send(request).expect(503);
        assert_eq!(answer.header("Retry-After"), Some("1"), "{answer}");
        assert!(answer.text().contains("share of limits.streams, which is "), "{answer}");
    }
    let bob = of("bob");
    let _of_bob = [bob.listen(), bob.listen()];
    gateway.send(&bob.listen_request()).expect(503);
    // What ends is free again, for whoever comes, and not for whoever has more than a share.
    held.0.hang_up();
    old.hang_up();
    let carol = of("carol");
    wait_until("carol has a place", || {
        let mut connection = Connection::open(gateway.address());
        connection.send(&carol.listen_request());
        connection.into_events().head.status() == 200
    });
    gateway.send(&alice.listen_request()).expect(503);
}

#[test]
fn the_only_key_may_have_all_streams() {
    let upstream = HttpUpstream::start();
    let gateway = with_streams(&upstream, &["alice"], 2);
    let client = gateway.mcp();
    let _held = [client.listen(), client.listen()];
    let answer = gateway.send(&client.listen_request()).expect(503);
    assert!(answer.text().contains("limits.streams is reached"), "{answer}");
}

/// A modern server behind a gateway with one key that has so many calls a minute.
fn metered(upstream: &ModernUpstream, calls: u32) -> Gateway {
    Gateway::started(json!({
        "api_keys": [{ "name": "k", "key": "key-of-k", "calls_per_minute": calls }],
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }))
}

#[test]
fn retries_of_a_paid_call_cost_nothing() {
    let upstream = ModernUpstream::start();
    let gateway = metered(&upstream, 1);
    let client = ModernClient::to(&gateway).key("key-of-k").named("alice");
    let run = client.run_call("ask_twice", &json!({ "rounds": 3 }));
    assert_eq!(run.rounds.len(), 3);
    assert!(run.message.get("result").is_some(), "{}", run.message);
    check_refused(Door::Stateless, &Called::of_stateless(client.ask("ask_twice", &json!({}))));
}

#[test]
fn a_state_that_comes_back_again_costs_a_call_each_time() {
    let upstream = ModernUpstream::start();
    let gateway = metered(&upstream, 2);
    let client = ModernClient::to(&gateway).key("key-of-k").named("alice");
    let params = json!({ "name": "ask_roots", "arguments": {} });
    let first = client.request("tools/call", &params);
    assert!(first.wants_input(), "{}", first.text);
    let again = retry_params(&params, &first, &client.responses_to(&first));
    // Once free, once paid for; the server takes a state once, which is its own affair.
    assert_eq!(client.request("tools/call", &again).status(), 200);
    client.request("tools/call", &again).refused(400, -32602);
    let n_before = upstream.requests_of("tools/call").len();
    for _ in 0..3 {
        let called = Called::of_stateless(client.request("tools/call", &again));
        check_refused(Door::Stateless, &called);
    }
    assert_eq!(upstream.requests_of("tools/call").len(), n_before);
}

#[test]
fn one_call_pays_for_so_many_rounds_and_no_more() {
    let upstream = ModernUpstream::start();
    let gateway = metered(&upstream, 1);
    let client = ModernClient::to(&gateway).key("key-of-k").named("alice");
    let params = json!({ "name": "ask_twice", "arguments": { "rounds": 100 } });
    let mut answered = client.request("tools/call", &params);
    let mut n_free = 0;
    while answered.wants_input() {
        let responses = client.responses_to(&answered);
        answered = client.retry("tools/call", &params, &answered, &responses);
        n_free += 1;
        assert!(n_free < 100, "{}", answered.text);
    }
    check_refused(Door::Stateless, &Called::of_stateless(answered));
    assert_eq!(n_free, crate::support::figures::INPUT_ROUNDS_MAX + 1);
}

#[test]
fn taking_a_parked_call_up_costs_nothing() {
    let behind = Behind::of(Era::Legacy, Transport::Http, "scripted");
    let gateway = behind.gateway(&json!({
        "api_keys": [{ "name": "k", "key": "key-of-k", "calls_per_minute": 1 }],
    }));
    let client = ModernClient::to(&gateway).key("key-of-k").named("alice");
    let params = json!({ "name": "ask_roots", "arguments": {} });
    let first = client.request("tools/call", &params);
    assert!(first.wants_input(), "{}", first.text);
    let responses = client.responses_to(&first);
    let last = client.retry("tools/call", &params, &first, &responses);
    assert!(last.text.contains("file:///alice"), "{}", last.text);
    // It was taken up; what comes again is refused before anything is done for it.
    client.retry("tools/call", &params, &first, &responses).refused(400, -32602);
    let called = Called::of_stateless(client.request("tools/call", &params));
    check_refused(Door::Apart, &called);
}
