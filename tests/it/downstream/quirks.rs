//! Known quirks of clients: tolerated, counted in `/status` and told of once a client; refused
//! where `strict_clients` says so.

use serde_json::{Value, json};

use crate::support::behind::{Behind, Era, Transport};
use crate::support::duplex::{DOORS, Duplex};
use crate::support::gateway::Gateway;
use crate::support::http::{Request, Response};
use crate::support::mcp::{BOTH, LATEST, McpClient};
use crate::support::modern::ModernClient;
use crate::support::script::MODERN;
use crate::support::upstream_http::HttpUpstream;
use crate::support::wait_for;

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
const VERSION: &str = "MCP-Protocol-Version";

/// The gateway before one server, with and without tolerance.
fn gateways() -> (HttpUpstream, Gateway, Gateway) {
    let upstream = HttpUpstream::start();
    let with = |strict: bool| {
        Gateway::started(json!({
            "strict_clients": strict,
            "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
        }))
    };
    let (tolerant, strict) = (with(false), with(true));
    (upstream, tolerant, strict)
}

fn n_tolerated(gateway: &Gateway, quirk: &str) -> u64 {
    let status = gateway.get("/status").expect(200).json();
    status["quirks"][quirk].as_u64().unwrap_or_else(|| panic!("no {quirk}: {status}"))
}

/// Fails unless both gateways answer as they should, and the tolerant one counts the quirk.
#[track_caller]
fn hold(
    (tolerant, strict): (&Gateway, &Gateway),
    quirk: &str,
    refused: u16,
    send: impl Fn(&Gateway) -> Response,
) {
    let before = n_tolerated(tolerant, quirk);
    let answer = send(tolerant);
    assert!([200, 202].contains(&answer.status()), "{quirk}: {answer}");
    if answer.status() == 200 {
        let message = answer.message();
        assert!(message.get("error").is_none(), "{quirk}: {answer}");
    }
    assert_eq!(n_tolerated(tolerant, quirk), before + 1, "{quirk}: {answer}");
    let answer = send(strict);
    assert_eq!(answer.status(), refused, "{quirk}: {answer}");
    assert_eq!(n_tolerated(strict, quirk), 0);
}

#[test]
fn a_header_of_an_earlier_revision_around_a_stateless_body_is_passed_over() {
    let (upstream, tolerant, strict) = gateways();
    let both = (&tolerant, &strict);
    for path in ["/mcp", "/mcp/s", "/s/mcp"] {
        for header in [LATEST, "2025-06-18", "2025-03-26", "2024-11-05"] {
            // A stale session is nothing to a request that is whole in itself.
            for session in [None, Some("no-session-of-ours")] {
                hold(both, "revision_header_not_of_body", 400, |gateway| {
                    let client = ModernClient::to(gateway).at(path);
                    let params = json!({ "name": "echo", "arguments": { "message": "m" } });
                    let message = client.message(&json!(1), "tools/call", &params);
                    let mut request = client
                        .bare_request(&message.to_string())
                        .header(VERSION, header)
                        .header("Mcp-Method", "tools/call")
                        .header("Mcp-Name", "echo");
                    if let Some(session) = session {
                        request = request.header("Mcp-Session-Id", session);
                    }
                    let answer = gateway.send(&request);
                    if answer.status() == 200 {
                        let result = answer.message()["result"].clone();
                        assert_eq!(result["resultType"], "complete", "served by its body");
                    } else {
                        assert_eq!(answer.json()["error"]["code"], -32020, "{answer}");
                    }
                    answer
                });
            }
        }
    }
    assert!(upstream.seen().n_calls("echo") > 0);
}

#[test]
fn a_stateless_body_in_the_headers_of_an_open_session_is_stateless() {
    let (_upstream, tolerant, _strict) = gateways();
    let session = tolerant.mcp();
    let client = ModernClient::to(&tolerant);
    let message = client.message(&json!(1), "tools/list", &json!({}));
    let request = session.post_request(&message.to_string());
    let answer = tolerant.send(&request.header("Mcp-Method", "tools/list")).expect(200);
    assert_eq!(answer.message()["result"]["resultType"], "complete", "{answer}");
    assert_eq!(n_tolerated(&tolerant, "revision_header_not_of_body"), 1);
    // One that names its own revision there is the session's.
    let params = json!({ "_meta": { "io.modelcontextprotocol/protocolVersion": LATEST } });
    let list = session.result("tools/list", &params);
    assert!(list["tools"].is_array() && list.get("resultType").is_none(), "{list}");
}

#[test]
fn what_headers_say_besides_is_held_against_the_body() {
    let (_upstream, tolerant, _strict) = gateways();
    let client = ModernClient::to(&tolerant);
    let params = json!({ "name": "echo", "arguments": { "message": "m" } });
    let call = client.message(&json!(1), "tools/call", &params).to_string();
    let unknown = call.replace(MODERN, "2099-01-01");
    let method = ("Mcp-Method", "tools/call");
    let name = ("Mcp-Name", "echo");
    for (body, headers) in [
        (&call, vec![(VERSION, LATEST), method, ("Mcp-Name", "add")]),
        (&call, vec![(VERSION, LATEST), ("Mcp-Method", "tools/list"), name]),
        (&call, vec![(VERSION, LATEST), method]),
        (&call, vec![(VERSION, LATEST), name]),
        (&call, vec![method, name]),
        (&call, vec![(VERSION, "2099-01-01"), method, name]),
        (&call, vec![(VERSION, "2025-11-25, 2026-07-28"), method, name]),
        (&call, vec![(VERSION, LATEST), (VERSION, MODERN), method, name]),
        (&unknown, vec![(VERSION, MODERN), method, name]),
        (&unknown, vec![(VERSION, LATEST), method, name]),
    ] {
        let mut request = client.bare_request(body);
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        client.send(&request).refused(400, -32020);
    }
    assert_eq!(n_tolerated(&tolerant, "revision_header_repeated"), 0);
}

#[test]
fn a_header_that_is_repeated_counts_once() {
    let (_upstream, tolerant, strict) = gateways();
    let both = (&tolerant, &strict);
    let twice = format!("{LATEST}, {LATEST}");
    let ping = |gateway: &Gateway, values: &[&str]| {
        let client = McpClient::open(gateway.address());
        let mut request = Request::post_text("/mcp", PING).header("Accept", BOTH);
        request = request.header("Mcp-Session-Id", client.session());
        for value in values {
            request = request.header(VERSION, value);
        }
        gateway.send(&request)
    };
    for values in [&[twice.as_str()][..], &[LATEST, LATEST], &[LATEST, LATEST, LATEST]] {
        hold(both, "revision_header_repeated", 400, |gateway| ping(gateway, values));
    }
    for values in [
        &["2025-11-25, 2025-06-18"][..],
        &[LATEST, "2025-06-18"],
        &[LATEST, ""],
        &["banana", "banana"],
        &["2025-11-25,"],
    ] {
        ping(&tolerant, values).expect(400);
    }
    // Stateless, with the one value that the body has too.
    hold(both, "revision_header_repeated", 400, |gateway| {
        let client = ModernClient::to(gateway);
        let message = client.message(&json!(1), "tools/list", &json!({}));
        gateway.send(&client.post_request(&message).header(VERSION, MODERN))
    });
    // A stream too.
    let client = tolerant.mcp();
    let mut connection = tolerant.connect();
    connection.send(&client.listen_request().header(VERSION, LATEST));
    connection.into_events().expect_open();
}

#[test]
fn inside_a_session_its_revision_counts() {
    let (_upstream, tolerant, strict) = gateways();
    let both = (&tolerant, &strict);
    let with = |gateway: &Gateway, revision: &str, header: &str, body: &str| {
        let client = McpClient::new(gateway.address()).speaking(revision).opened();
        let request = Request::post_text("/mcp", body).header("Accept", BOTH);
        let request = request.header("Mcp-Session-Id", client.session());
        gateway.send(&request.header(VERSION, header))
    };
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"message":"m"}}}"#;
    for (revision, header, quirk) in [
        (LATEST, MODERN, "stateless_header_in_session"),
        ("2025-06-18", MODERN, "stateless_header_in_session"),
        ("2024-11-05", MODERN, "stateless_header_in_session"),
        (LATEST, "2025-06-18", "revision_header_not_of_session"),
        (LATEST, "2024-11-05", "revision_header_not_of_session"),
        ("2025-06-18", LATEST, "revision_header_not_of_session"),
    ] {
        for body in [
            call,
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":{}}"#,
        ] {
            if header == MODERN && body != call {
                // Without tolerance such a notification is a stateless client's.
                let before = n_tolerated(&tolerant, quirk);
                with(&tolerant, revision, header, body).expect(202);
                assert_eq!(n_tolerated(&tolerant, quirk), before + 1);
                continue;
            }
            hold(both, quirk, 400, |gateway| with(gateway, revision, header, body));
        }
    }
    for unknown in ["banana", "1999-01-01", ""] {
        with(&tolerant, LATEST, unknown, PING).expect(400);
    }
    // A session that has ended is unknown, so that its client begins anew.
    let request = Request::post_text("/mcp", PING).header("Accept", BOTH);
    let request = request.header("Mcp-Session-Id", "gone").header(VERSION, MODERN);
    tolerant.send(&request).expect(404);
    // The stream of a session whose client names another revision.
    let client = tolerant.mcp();
    let request = Request::get("/mcp").header("Accept", "text/event-stream");
    let request = request.header("Mcp-Session-Id", client.session()).header(VERSION, MODERN);
    let mut connection = tolerant.connect();
    connection.send(&request);
    connection.into_events().expect_open();
}

/// Bodies with nulls, and which quirk each shows.
const NULLS: [(&str, &str); 9] = [
    (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":null}"#, "null_params"),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":null}}"#,
        "null_cursor",
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{},"_meta":null}}"#,
        "null_meta",
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{},"_meta":{"progressToken":null}}}"#,
        "null_meta",
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":null}}"#,
        "null_arguments",
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"rich","arguments":null}}"#,
        "null_arguments",
    ),
    (
        r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"greet"},"argument":{"name":"name","value":""},"context":null}}"#,
        "null_member",
    ),
    (r#"{"jsonrpc":"2.0","method":"notifications/initialized","params":null}"#, "null_params"),
    (r#"{"jsonrpc":"2.0","id":null,"method":"notifications/initialized"}"#, "null_id"),
];

#[test]
fn nulls_for_absent_members_are_read_as_absent() {
    let (upstream, tolerant, strict) = gateways();
    for (body, quirk) in NULLS {
        let before = n_tolerated(&tolerant, quirk);
        let answer = tolerant.mcp().post(body);
        assert!([200, 202].contains(&answer.status()), "{body}: {answer}");
        if answer.status() == 200 {
            assert!(answer.message()["result"].is_object(), "{body}: {answer}");
        }
        assert_eq!(n_tolerated(&tolerant, quirk), before + 1, "{body}");
        assert_eq!(n_tolerated(&strict, quirk), 0);
    }
    let strict = strict.mcp();
    for body in [NULLS[0].0, NULLS[7].0, NULLS[8].0] {
        strict.post(body).expect(400);
    }
    for body in [NULLS[2].0, NULLS[3].0] {
        let error = strict.post(body).expect(200).message()["error"].clone();
        assert_eq!(error["code"], -32602, "{error}");
    }
    // What is absent is not asked of a server as null.
    let call = upstream.seen().last_call;
    assert!(call.contains("echo") && !call.contains("null"), "{call}");
    // What a request must have is missed by its name, and a key that stands twice is no message.
    let client = tolerant.mcp();
    for (body, status) in [
        (r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":null}}"#, 200),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, 400),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":null,"params":{}}"#, 400),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#, 400),
    ] {
        let answer = client.post(body).expect(status);
        assert!(answer.message()["error"].is_object(), "{body}: {answer}");
    }
}

#[test]
fn nulls_are_tolerated_at_every_door_and_of_stateless_clients() {
    for (era, transport) in [(Era::Legacy, Transport::Http), (Era::Modern, Transport::Http)] {
        let behind = Behind::of(era, transport, "scripted");
        let gateway = behind.gateway(&json!({}));
        for door in DOORS {
            let client = Duplex::to(&gateway, door).open();
            let params = json!({ "name": "echo", "arguments": null, "_meta": null });
            let answer = client.request("tools/call", &params);
            assert!(answer["result"].is_object(), "{era:?} {door:?}: {answer}");
            let list = client.request("tools/list", &json!({ "cursor": null }));
            assert!(list["result"]["tools"].is_array(), "{era:?} {door:?}: {list}");
            let list = client.request("tools/list", &Value::Null);
            assert!(list["result"]["tools"].is_array(), "{era:?} {door:?}: {list}");
        }
        let client = ModernClient::to(&gateway);
        let result = client.result("tools/list", &json!({ "cursor": null }));
        assert!(result["tools"].is_array(), "{result}");
        let params = json!({ "name": "echo", "arguments": null, "requestState": null });
        let result = client.result("tools/call", &params);
        assert!(result["content"].is_array(), "{result}");
        assert!(n_tolerated(&gateway, "null_arguments") >= 3);
        assert!(n_tolerated(&gateway, "null_params") >= 2);
    }
}

#[test]
fn a_capability_that_is_null_is_not_declared() {
    let (upstream, tolerant, _strict) = gateways();
    let capabilities = json!({ "sampling": null, "elicitation": null, "roots": null });
    let client = McpClient::new(tolerant.address()).declaring(capabilities).opened();
    client.call("echo", &json!({ "message": "m" }));
    // It shares the session of those who can be asked nothing.
    assert_eq!(upstream.seen().n_initialize, 2, "one of each gateway");
    assert_eq!(n_tolerated(&tolerant, "null_capability"), 3);
}

#[test]
fn each_client_s_quirk_is_told_of_once() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = ModernClient::to(&gateway);
    let message = client.message(&json!(1), "tools/list", &json!({}));
    for _ in 0..3 {
        let request = client.bare_request(&message.to_string()).header(VERSION, LATEST);
        client.send(&request.header("Mcp-Method", "tools/list"));
    }
    let legacy = gateway.mcp();
    for _ in 0..3 {
        legacy.post(NULLS[0].0).expect(200);
    }
    let told = |what: &str| {
        let log = gateway.stderr();
        log.lines().filter(|line| line.contains(what)).count()
    };
    wait_for("both lines", || {
        (told("names an earlier revision") == 1 && told("\"params\": null") == 1).then_some(())
    });
    let log = gateway.stop().stderr;
    let line = |what: &str| log.lines().find(|line| line.contains(what)).unwrap().to_owned();
    assert!(line("names an earlier revision").contains("by-hand-modern"), "{log}");
    assert_eq!(log.lines().filter(|line| line.contains("\"params\": null")).count(), 1);
}

#[test]
fn a_reload_switches_tolerance() {
    let upstream = HttpUpstream::start();
    let config = |strict: bool| {
        json!({
            "strict_clients": strict,
            "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
        })
    };
    let gateway = Gateway::started(config(false));
    let client = gateway.mcp();
    client.post(NULLS[0].0).expect(200);
    gateway.reload(&config(true));
    client.post(NULLS[0].0).expect(400);
}
