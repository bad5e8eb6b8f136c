//! What has been held for clients goes back to the system when they have gone.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request};
use crate::support::mcp::request_message;
use crate::support::mcp_sse::SseClient;
use crate::support::modern::ModernClient;
use crate::support::upstream_http::HttpUpstream;
use crate::support::wait_until;

/// Within so long after the last connection's end.
const REST: Duration = Duration::from_secs(10);
/// What may stay of a burst, beside what the gateway had before it.
const STAYS_BYTES_MAX: u64 = 16 * 1024 * 1024;
const CLIENTS: usize = 24;
const ROUNDS: usize = 4;

/// Waits until the resident set is as small as it shall be.
#[track_caller]
fn wait_rested(gateway: &Gateway, before: u64) {
    let until = Instant::now() + REST;
    loop {
        let stays = gateway.rss_bytes().saturating_sub(before);
        if stays < STAYS_BYTES_MAX {
            return;
        }
        assert!(Instant::now() < until, "{stays} bytes stay");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn kept_connections_hold_nothing_of_the_answers_that_went_over_them() {
    let _heavy = crate::support::heavy();
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let before = gateway.rss_bytes();
    let mut connections: Vec<_> =
        (0..CLIENTS).map(|_| Connection::open(gateway.address())).collect();
    for round in 0..ROUNDS {
        for (number, connection) in connections.iter_mut().enumerate() {
            let arguments = json!({ "megabytes": 1 + (round + number) % ROUNDS });
            let call = json!({ "name": "big", "arguments": arguments });
            connection.send(&Request::post("/mcp/tools/call", &call));
        }
        for connection in &mut connections {
            assert_eq!(connection.answer().status(), 200);
        }
    }
    // Also while they are kept: what is idle has no use for it.
    wait_rested(&gateway, before);
    drop(connections);
    wait_rested(&gateway, before);
}

#[test]
fn the_allocator_is_set_by_the_program_itself_unless_the_environment_does() {
    let upstream = HttpUpstream::start();
    let config =
        json!({ "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } } });
    let theirs = "glibc.malloc.arena_max=3";
    for (theirs, expected) in
        [(None, Some("glibc.malloc.arena_max=2")), (Some(theirs), Some(theirs))]
    {
        let gateway = Gateway::with(config.clone());
        let gateway = match theirs {
            Some(theirs) => gateway.env("GLIBC_TUNABLES", theirs).start(),
            None => gateway.start(),
        };
        let process = format!("/proc/{}", gateway.process_id());
        let environment = std::fs::read(format!("{process}/environ")).unwrap();
        let environment = String::from_utf8(environment).unwrap();
        // The C library cuts the variable into its parts where it lies.
        let tunables =
            environment.split(['\0', ':']).find_map(|it| it.strip_prefix("GLIBC_TUNABLES="));
        assert_eq!(tunables, expected);
        // It is the very process that was started, under its own name.
        let command = std::fs::read_to_string(format!("{process}/comm")).unwrap();
        assert_eq!(command.trim(), "trunkline");
        assert_eq!(gateway.stop().code, Some(0));
    }
}

/// How much of a bound is used, as `/status` says.
fn used(gateway: &Gateway, bound: &str) -> u64 {
    let status = gateway.get("/status").expect(200).json();
    status["limits"][bound]["used"].as_u64().unwrap()
}

fn buffered_bytes(gateway: &Gateway) -> u64 {
    used(gateway, "buffered_bytes")
}

#[test]
fn a_result_is_counted_until_its_stream_has_taken_it() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = SseClient::open(gateway.address(), "/sse");
    let call = json!({ "name": "big", "arguments": { "megabytes": 8 } });
    client.post(&request_message(&json!(7), "tools/call", &call)).expect(202);
    // The client reads nothing. The thread that made the call has nothing more to do with it once
    // its connection has ended; the one that is left is the one that asks.
    wait_until("the call is over", || {
        upstream.seen().n_finished("big") == 1 && used(&gateway, "connections") == 1
    });
    let held = buffered_bytes(&gateway);
    assert!(held > 8_000_000, "{held} bytes are counted");
    client.hang_up();
    wait_until("it is given back", || buffered_bytes(&gateway) == 0);
}

#[test]
fn the_arguments_of_a_parked_call_are_counted() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = ModernClient::to(&gateway).named("alice");
    let arguments = json!({ "padding": "x".repeat(1_000_000) });
    let params = json!({ "name": "ask_roots", "arguments": arguments });
    let first = client.ask("ask_roots", &arguments);
    assert!(first.wants_input(), "{}", first.text);
    let held = buffered_bytes(&gateway);
    assert!(held > 1_000_000, "{held} bytes are counted");
    let responses = client.responses_to(&first);
    client.retry("tools/call", &params, &first, &responses);
    wait_until("it is given back", || buffered_bytes(&gateway) == 0);
}
