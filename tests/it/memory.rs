//! What has been held for clients goes back to the system when they have gone.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request};
use crate::support::upstream_http::HttpUpstream;

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
