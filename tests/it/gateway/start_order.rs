//! The start: whoever comes first, at whatever moment, gets a right answer or no connection.

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request, Response};
use crate::support::in_background;
use crate::support::listener::free_port;
use crate::support::mcp::{BOTH, initialize_message};
use crate::support::upstream_http::HttpUpstream;

const CLIENTS: usize = 64;

/// Knocks until a connection is accepted, then asks once on it.
fn first_answer(address: &str, request: &Request) -> Response {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Ok(mut connection) = Connection::try_open(address) {
            connection.send(request);
            return connection.answer();
        }
        assert!(Instant::now() < deadline, "nobody ever listened at {address}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

fn request_of(client: usize) -> Request {
    match client % 4 {
        0 => Request::get("/mcp/tools/list"),
        1 => Request::post("/mcp", &initialize_message(1, "2025-11-25")).header("Accept", BOTH),
        2 => Request::get("/healthz"),
        _ => Request::get("/status"),
    }
}

#[track_caller]
fn expect_right(client: usize, answer: Response) {
    let answer = answer.expect(200);
    match client % 4 {
        0 => assert!(answer.json()["tools"].is_array(), "{answer}"),
        1 => {
            assert_eq!(answer.message()["result"]["protocolVersion"], "2025-11-25", "{answer}");
            assert!(answer.header("Mcp-Session-Id").is_some(), "{answer}");
        }
        2 => (),
        _ => assert!(answer.json()["upstreams"].to_string().contains('s'), "{answer}"),
    }
}

#[test]
fn the_first_requests_of_all_are_answered_right() {
    let upstream = HttpUpstream::start();
    for _ in 0..4 {
        let address = format!("127.0.0.1:{}", free_port());
        let together = Arc::new(Barrier::new(CLIENTS + 1));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (address, together) = (address.clone(), together.clone());
                in_background(move || {
                    together.wait();
                    first_answer(&address, &request_of(client))
                })
            })
            .collect();
        together.wait();
        let gateway = Gateway::with(json!({
            "listen": address,
            "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
        }))
        .start();
        for (client, answer) in clients.into_iter().enumerate() {
            expect_right(client, answer.join().unwrap());
        }
        assert_eq!(gateway.address(), address);
    }
}

#[test]
fn a_session_opened_at_the_first_moment_serves() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::with(json!({
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }))
    .start();
    let client = gateway.mcp();
    gateway.wait_ready();
    assert!(client.tool_names().contains(&"echo".to_owned()));
    client.call("echo", &json!({}));
}

#[test]
fn it_starts_without_standard_input_and_without_upstreams() {
    let gateway = Gateway::with(json!({ "mcp_servers": {} })).without_stdin().start();
    gateway.get("/healthz").expect(200);
    gateway.get("/readyz").expect(200);
    assert!(gateway.tool_names().is_empty());
    assert!(gateway.mcp().tool_names().is_empty());
    assert_eq!(gateway.stop().code, Some(0));
}

#[test]
fn the_address_may_come_from_the_command_line() {
    let config = json!({ "listen": "127.0.0.1:1", "mcp_servers": {} });
    let gateway = Gateway::with(config).arg("--listen").arg("127.0.0.1:0").start();
    assert_ne!(gateway.address(), "127.0.0.1:1");
    gateway.get("/healthz").expect(200);
}

#[test]
fn a_port_that_is_taken_is_a_failure_at_run_time() {
    let first = Gateway::with(json!({ "mcp_servers": {} })).start();
    let config = json!({ "listen": first.address(), "mcp_servers": {} });
    let ended = Gateway::with(config).try_start().expect_err("the port is taken");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(first.address()), "{ended:?}");
}
