//! Clients that reset their connection, at every point of a request.

use serde_json::json;

use super::{Hostile, Rig, WANTED, call, post};
use crate::support::mcp::{LATEST, McpClient};
use crate::support::wait_until;

const TIMES: usize = 20;

/// Waits for a first byte of the answer, and leaves the rest.
fn begun(hostile: &Hostile) {
    wait_until("the answer begins", || hostile.0.peek(&mut [0]).is_ok_and(|n| n > 0));
}

#[test]
fn a_reset_before_the_answer_costs_nothing() {
    let rig = Rig::with(&json!({}));
    rig.attack(|rig| {
        let whole = call(WANTED);
        let body_begins = whole.windows(4).position(|part| part == b"\r\n\r\n").unwrap() + 4;
        let pipelined = [whole.clone(), whole[..body_begins + 3].to_vec()].concat();
        let cuts = [0, 1, 20, body_begins - 2, body_begins, body_begins + 5];
        for _ in 0..TIMES {
            for cut in cuts {
                let mut hostile = rig.connect();
                hostile.send(&whole[..cut]);
                hostile.reset();
            }
            let chunked = post("/mcp/tools/call", "Transfer-Encoding: chunked\r\n", "5\r\n{");
            for bytes in [&chunked, &pipelined] {
                let mut hostile = rig.connect();
                hostile.send(bytes);
                hostile.reset();
            }
        }
    });
}

#[test]
fn a_reset_while_a_call_waits_cancels_it() {
    let rig = Rig::with(&json!({}));
    rig.attack(|rig| {
        let body = json!({ "name": "slow", "arguments": {} }).to_string();
        let lines = format!("Content-Length: {}\r\n", body.len());
        let request = post("/mcp/tools/call", &lines, &body);
        let waiting: Vec<Hostile> = (0..TIMES)
            .map(|_| {
                let mut hostile = rig.connect();
                hostile.send(&request);
                hostile
            })
            .collect();
        rig.upstream.wait_for_slow(TIMES);
        waiting.into_iter().for_each(Hostile::reset);
        rig.upstream.wait_for_slow(0);
        wait_until("the slots are free", || rig.gateway.status_of("s")["in_flight"] == 0);
    });
}

#[test]
fn a_reset_in_the_middle_of_an_answer_costs_nothing() {
    let _heavy = crate::support::heavy();
    let rig = Rig::with(&json!({}));
    rig.attack(|rig| {
        let body = json!({ "name": "big", "arguments": { "megabytes": 3 } }).to_string();
        let lines = format!("Content-Length: {}\r\n", body.len());
        let request = post("/mcp/tools/call", &lines, &body);
        for _ in 0..TIMES {
            let mut hostile = rig.connect();
            rustix::net::sockopt::set_socket_recv_buffer_size(&hostile.0, 4096).unwrap();
            hostile.send(&request);
            begun(&hostile);
            hostile.reset();
        }
        wait_until("nothing is buffered", || rig.status("/limits/buffered_bytes/used") == 0);
    });
}

#[test]
fn a_reset_of_a_stream_gives_its_place_back() {
    let rig = Rig::with(&json!({}));
    rig.attack(|rig| {
        let client = McpClient::open(rig.gateway.address());
        let get = format!(
            "GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\
             Mcp-Session-Id: {}\r\nMCP-Protocol-Version: {LATEST}\r\n\r\n",
            client.session()
        );
        for target in [get, "GET /sse HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned()] {
            for _ in 0..TIMES {
                let mut hostile = rig.connect();
                hostile.send(target.as_bytes());
                begun(&hostile);
                hostile.reset();
            }
        }
        wait_until("no stream is left", || rig.status("/streams") == 0);
        client.end().expect(204);
        wait_until("no session is left", || {
            rig.status("/sessions/sse") == 0 && rig.status("/sessions/streamable") == 0
        });
    });
}
