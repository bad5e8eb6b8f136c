//! Many at once: connections, streams.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Hostile, Neighbour, Rig, WANTED, last_call};
use crate::support::http::Wire;
use crate::support::mcp::McpClient;
use crate::support::script::TEXT_URI;
use crate::support::{DEADLINE, wait_until, wait_within};

const WAVES: usize = 4;
const CONNECTIONS_A_WAVE: usize = 500;
/// Longer than a thread of the pool waits for its next connection.
const SPARE_THREADS_GO_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn two_thousand_connections_come_and_go() {
    let _heavy = crate::support::heavy();
    let rig = Rig::with(&json!({}));
    let before = rig.footprint();
    rig.attack(|rig| {
        for wave in 0..WAVES / 2 {
            let mut open: Vec<Hostile> =
                (0..CONNECTIONS_A_WAVE).map(|_| rig.connect()).collect();
            if wave % 2 == 1 {
                for hostile in &mut open {
                    hostile.send(b"GET /healthz HTTP/1.1\r\nHost: local");
                }
            }
            // Half of them leave properly.
            for hostile in open.split_off(CONNECTIONS_A_WAVE / 2) {
                hostile.reset();
            }
            drop(open);
        }
    });
    // The pool keeps its threads for a while, and no longer.
    wait_within(SPARE_THREADS_GO_WITHIN, "spare threads end", || {
        (rig.footprint().pool_threads <= before.pool_threads + 2).then_some(())
    });
}

#[test]
fn more_connections_than_there_may_be_are_refused_until_one_ends() {
    let _heavy = crate::support::heavy();
    const MAX: usize = 32;
    let rig = Rig::with(&json!({ "connections": MAX }));
    let before = rig.footprint();
    let mut busy: Vec<Hostile> = Vec::new();
    // They are at work: none of them is idle, so none makes room.
    let refused = loop {
        let mut hostile = rig.connect();
        hostile.send(
            b"POST /mcp/tools/call HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\
              Content-Type: application/json\r\nContent-Length: 9\r\n\r\n",
        );
        // One that is served is asked for its body.
        let mut wire = Wire::new(hostile.0.try_clone().unwrap());
        let head = wire.head(Instant::now() + DEADLINE).unwrap().unwrap();
        if head.status() != 100 {
            break head;
        }
        hostile.send(b"half");
        busy.push(hostile);
        assert!(busy.len() <= MAX + 8, "{} are served", busy.len());
    };
    assert_eq!(refused.status(), 503, "{refused:?}");
    assert!(refused.header("Retry-After").is_some(), "{refused:?}");
    // What was refused by the bound is told to many, and costs no thread.
    for _ in 0..100 {
        let mut hostile = rig.connect();
        hostile.end();
        let reply = hostile.reply();
        assert_eq!(reply.statuses(), [503], "{reply:?}");
    }
    let now = rig.footprint();
    assert!(now.pool_threads <= MAX, "{now:?}");
    drop(busy);
    let reply = wait_until_served(&rig);
    assert_eq!(reply, [200]);
    assert!(rig.rejected("connections") >= 101);
    rig.wait_as_before(before);
}

/// The statuses of a call, once it is not refused for the number of connections.
fn wait_until_served(rig: &Rig) -> Vec<u16> {
    wait_within(DEADLINE, "it is served again", || {
        let mut hostile = rig.connect();
        hostile.send(&last_call(WANTED));
        let statuses = hostile.reply().statuses();
        (statuses != [503]).then_some(statuses)
    })
}

/// An address of this machine that is not loopback. No packet is sent to find it.
fn own_address() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then(|| ip.to_string())
}

#[test]
fn one_address_may_have_so_many_connections_and_others_are_served() {
    const MAX: usize = 4;
    // A machine without a network has loopback alone, which is exempt; `http/pool` has the
    // rule's own tests.
    let Some(address) = own_address() else { return };
    let rig = Rig::configured(json!({
        "listen": "0.0.0.0:0",
        "allow_anonymous": true,
        "limits": { "connections_per_address": MAX },
    }));
    let port = rig.gateway.address().rsplit_once(':').unwrap().1.to_owned();
    let outside = format!("{address}:{port}");
    let mut held: Vec<Hostile> = Vec::new();
    for _ in 0..MAX {
        let mut hostile = Hostile::to(&outside);
        hostile.send(b"GET /healthz HTTP/1.1\r\nHost: local");
        held.push(hostile);
    }
    let mut refused = Hostile::to(&outside);
    refused.end();
    assert_eq!(refused.reply().statuses(), [503]);
    // Loopback is another address, and exempt.
    let mut neighbours: Vec<Neighbour> = (0..2 * MAX).map(|_| Neighbour::new(&rig)).collect();
    neighbours.iter_mut().for_each(|neighbour| _ = neighbour.call());
    assert_eq!(rig.rejected("connections"), 1);
    drop(held);
    wait_until("its places are free again", || {
        let mut hostile = Hostile::to(&outside);
        hostile.send(&last_call(WANTED));
        hostile.reply().statuses() == [200]
    });
}

/// One session's streams are bounded, with or without a memory of their events; the newest one
/// is served.
#[test]
fn one_session_cannot_take_all_streams() {
    const MAX: u64 = 16;
    for events in [256, 0] {
        let rig = Rig::with(&json!({ "event_log_events": events, "streams": 100 }));
        rig.attack(|rig| {
            let client = McpClient::open(rig.gateway.address());
            client.result("resources/subscribe", &json!({ "uri": TEXT_URI }));
            let mut open: Vec<_> = (0..40).map(|_| client.listen()).collect();
            wait_until("the oldest have gone", || rig.status("/streams") <= MAX);
            open[0].expect_end();
            let updated = json!({ "uri": TEXT_URI, "_meta": { "is": "for the newest" } });
            wait_until("the server's stream is open", || rig.upstream.n_streams() > 0);
            // It goes to one of them; to the newest, once that is known to be open.
            wait_until("the newest is told", || {
                rig.upstream.emit("notifications/resources/updated", &updated);
                let newest = open.last_mut().unwrap();
                let told = newest.try_next(Duration::from_millis(100));
                matches!(told, Ok(Some(event)) if event.data.contains("for the newest"))
            });
            client.end().expect(204);
            wait_until("no stream is left", || rig.status("/streams") == 0);
        });
    }
}

#[test]
fn more_streams_than_there_may_be_are_refused() {
    const MAX: usize = 8;
    let rig = Rig::with(&json!({ "streams": MAX }));
    rig.attack(|rig| {
        let clients: Vec<McpClient> =
            (0..MAX).map(|_| McpClient::open(rig.gateway.address())).collect();
        let open: Vec<_> = clients.iter().map(McpClient::listen).collect();
        for target in ["/sse", "/mcp/sse", "/mcp"] {
            let get = format!(
                "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            );
            let reply = rig.send(get.as_bytes());
            assert_eq!(reply.statuses(), [503], "{reply:?}");
        }
        assert!(rig.rejected("overloaded") >= 3);
        drop(open);
        wait_until("no stream is left", || rig.status("/streams") == 0);
        drop(clients[0].listen());
        clients.iter().for_each(|client| _ = client.end().expect(204));
    });
}
