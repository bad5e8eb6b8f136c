//! Clients that take their time: one byte now and then, half a request, nothing at all.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Hostile, Reply, Rig, call, post};
use crate::support::DEADLINE;

/// Between two bytes: far below each bound, so that only a bound on the whole ends it.
const DRIP: Duration = Duration::from_millis(20);
const N_CLIENTS: usize = 40;
const BOUND_MS: u64 = 600;

fn rig() -> Rig {
    Rig::with(&json!({
        "head_ms": BOUND_MS, "body_ms": BOUND_MS, "idle_ms": BOUND_MS, "write_ms": BOUND_MS,
    }))
}

/// Sends `begin` on many connections, then `drip` byte by byte for ever; what each is told, and
/// when the last one was.
fn dripped(rig: &Rig, begin: &[u8], drip: u8) -> (Vec<Reply>, Duration) {
    let begun = Instant::now();
    let mut open: Vec<(Hostile, Vec<u8>)> = (0..N_CLIENTS)
        .map(|_| {
            let mut hostile = rig.connect();
            hostile.send(begin);
            (hostile, Vec::new())
        })
        .collect();
    let mut replies = Vec::new();
    while !open.is_empty() {
        assert!(begun.elapsed() < DEADLINE, "{} connections are still open", open.len());
        let mut left = Vec::new();
        for (mut hostile, mut seen) in open {
            let over = hostile.is_ended(&mut seen) || !hostile.send(&[drip]);
            if over {
                hostile.is_ended(&mut seen);
                replies.push(Reply(String::from_utf8_lossy(&seen).into_owned()));
            } else {
                left.push((hostile, seen));
            }
        }
        open = left;
        std::thread::park_timeout(DRIP);
    }
    (replies, begun.elapsed())
}

#[track_caller]
fn expect(replies: &[Reply], statuses: &[u16]) {
    assert_eq!(replies.len(), N_CLIENTS);
    for reply in replies {
        assert_eq!(reply.statuses(), statuses, "{reply:?}");
    }
}

#[test]
fn heads_and_bodies_that_drip_are_ended_at_their_time() {
    let rig = rig();
    rig.attack(|rig| {
        let before = rig.rejected("timeout");
        for begin in [
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nA: ".to_vec(),
            post("/mcp/tools/call", "Content-Length: 4000000\r\n", "{\"name\":\""),
            // One chunk that never ends.
            post("/mcp/tools/call", "Transfer-Encoding: chunked\r\n", "100000\r\n{\"name\":\""),
        ] {
            let (replies, took) = dripped(rig, &begin, b'x');
            expect(&replies, &[408]);
            assert!(took >= Duration::from_millis(BOUND_MS), "{took:?}");
        }
        let n = u64::try_from(3 * N_CLIENTS).unwrap();
        assert_eq!(rig.rejected("timeout") - before, n);
    });
}

#[test]
fn half_requests_are_ended_at_their_time() {
    let rig = rig();
    rig.attack(|rig| {
        let halves = [
            &b"G"[..],
            b"GET /healthz HTTP/1.1\r\nHost: local",
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n",
            &post("/mcp/tools/call", "Content-Length: 100\r\n", "{"),
            &post("/mcp/tools/call", "Transfer-Encoding: chunked\r\n", "1\r\n{\r\n"),
        ];
        let mut open: Vec<Hostile> = Vec::new();
        for half in halves.into_iter().cycle().take(N_CLIENTS) {
            let mut hostile = rig.connect();
            assert!(hostile.send(half));
            open.push(hostile);
        }
        for mut hostile in open {
            let reply = hostile.reply();
            assert_eq!(reply.statuses(), [408], "{reply:?}");
        }
    });
}

#[test]
fn connections_that_say_nothing_are_closed_without_a_word() {
    let rig = rig();
    rig.attack(|rig| {
        let mut silent: Vec<Hostile> = (0..N_CLIENTS).map(|_| rig.connect()).collect();
        let mut used = rig.connect();
        assert!(used.send(&call(super::WANTED)));
        let reply = used.reply();
        assert_eq!(reply.statuses(), [200], "{reply:?}");
        for hostile in &mut silent {
            assert_eq!(hostile.reply().0, "");
        }
    });
}
