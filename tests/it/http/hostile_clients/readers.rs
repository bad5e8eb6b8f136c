//! Clients that never read what they have asked for.

use std::time::Duration;

use serde_json::json;

use super::{Hostile, Rig, post};
use crate::support::mcp::{LATEST, McpClient};
use crate::support::script::TEXT_URI;
use crate::support::{wait_for, wait_until};

const N_CLIENTS: usize = 12;

fn rig() -> Rig {
    Rig::with(&json!({ "write_ms": 500, "heartbeat_ms": 200 }))
}

/// A connection into which little fits.
fn unread(rig: &Rig, bytes: &[u8]) -> Hostile {
    let mut hostile = rig.connect();
    rustix::net::sockopt::set_socket_recv_buffer_size(&hostile.0, 4096).unwrap();
    hostile.send(bytes);
    hostile
}

/// The attack's connections must end by the gateway's doing, each for this reason.
fn all_dropped(rig: &Rig, attack: impl Fn() -> Vec<Hostile>) {
    let before = rig.rejected("not_reading");
    let open = attack();
    let n = u64::try_from(open.len()).unwrap();
    wait_until("all are dropped", || rig.rejected("not_reading") >= before + n);
    drop(open);
}

fn with_length(target: &str, lines: &str, body: &str) -> Vec<u8> {
    post(target, &format!("Content-Length: {}\r\n{lines}", body.len()), body)
}

fn of_session(client: &McpClient) -> String {
    format!("Mcp-Session-Id: {}\r\nMCP-Protocol-Version: {LATEST}\r\n", client.session())
}

#[test]
fn large_answers_that_nobody_reads_are_given_up() {
    let rig = rig();
    rig.attack(|rig| {
        let body = json!({ "name": "big", "arguments": { "megabytes": 3 } }).to_string();
        let request = with_length("/mcp/tools/call", "", &body);
        all_dropped(rig, || (0..N_CLIENTS).map(|_| unread(rig, &request)).collect());
        wait_until("nothing is buffered", || rig.status("/limits/buffered_bytes/used") == 0);
    });
}

#[test]
fn answers_to_pipelined_requests_that_nobody_reads_are_given_up() {
    let rig = rig();
    rig.attack(|rig| {
        let requests = b"GET /mcp/tools/list HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(500);
        all_dropped(rig, || (0..N_CLIENTS).map(|_| unread(rig, &requests)).collect());
    });
}

#[test]
fn the_stream_of_a_call_that_nobody_reads_is_given_up() {
    let rig = rig();
    rig.attack(|rig| {
        let client = McpClient::open(rig.gateway.address());
        all_dropped(rig, || {
            let call = |id: usize| {
                let params = json!({
                    "name": "count", "arguments": { "steps": 4000 },
                    "_meta": { "progressToken": id },
                });
                let body =
                    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params });
                unread(rig, &with_length("/mcp", &of_session(&client), &body.to_string()))
            };
            (0..N_CLIENTS).map(call).collect()
        });
        wait_until("the slots are free", || {
            rig.gateway.status_of("s")["in_flight"] == 0
        });
        client.end().expect(204);
    });
}

#[test]
fn streams_that_nobody_reads_are_dropped() {
    let rig = rig();
    rig.attack(|rig| {
        let clients: Vec<McpClient> =
            (0..N_CLIENTS).map(|_| McpClient::open(rig.gateway.address())).collect();
        let open: Vec<Hostile> = clients
            .iter()
            .map(|client| {
                client.result("resources/subscribe", &json!({ "uri": TEXT_URI }));
                let get = format!(
                    "GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{}\r\n",
                    of_session(client)
                );
                unread(rig, get.as_bytes())
            })
            .collect();
        let n = u64::try_from(N_CLIENTS).unwrap();
        let before = rig.rejected("not_reading");
        wait_until("all are open", || rig.status("/streams") == n);
        wait_until("the server's stream is open", || rig.upstream.n_streams() > 0);
        let updated = json!({ "uri": TEXT_URI, "_meta": { "data": "x".repeat(200_000) } });
        wait_for("all are dropped", || {
            rig.upstream.emit("notifications/resources/updated", &updated);
            std::thread::park_timeout(Duration::from_millis(50));
            (rig.status("/streams") == 0).then_some(())
        });
        assert_eq!(rig.rejected("not_reading") - before, n);
        drop(open);
        for client in clients {
            client.end().expect(204);
        }
    });
}
