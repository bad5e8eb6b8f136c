//! The hub of long-lived responses, on connections of a real server.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use serde_json::json;
use trunkline::downstream::event_stream::{Full, Gone, StreamHandle, Streams};
use trunkline::limits::Limits;
use trunkline::thread::Joined;

use crate::http::engine::{Client, Event, PATIENCE, TestServer, eventually};
use crate::support::gateway::Gateway;
use crate::support::mcp_sse::SseClient;
use crate::support::script::TEXT_URI;
use crate::support::upstream_http::HttpUpstream;
use crate::support::wait_until;

/// A server and a hub. Fields are dropped in this order: the hub's thread ends with `streams`.
struct Fixture {
    server: TestServer,
    streams: Streams,
    hub: Joined,
}

/// One stream from both sides.
struct Open {
    client: Client,
    handle: StreamHandle,
    ended: Receiver<()>,
}

impl Fixture {
    fn start(limits: Limits) -> Fixture {
        let server = TestServer::start(limits.clone());
        let (streams, hub) = Streams::start(Arc::new(limits), bounded(1).0).unwrap();
        Fixture { server, streams, hub }
    }

    fn try_open(&self) -> (Client, Result<StreamHandle, Full>, Receiver<()>) {
        let mut client = self.server.connect();
        client.send("GET /stream HTTP/1.1\r\nHost: h\r\n\r\n");
        let stream = loop {
            if let Event::Detached(stream) = self.server.next() {
                break stream;
            }
        };
        assert_eq!(client.try_head().unwrap().status, 200);
        let mut first = [0; 9];
        client.0.read_exact(&mut first).unwrap();
        assert_eq!(&first, b": first\n\n");
        let (tell, ended) = bounded(2);
        let on_end = Box::new(move || {
            tell.send(()).ok();
        });
        (client, self.streams.open("test", stream, on_end), ended)
    }

    fn open(&self) -> Open {
        let (client, handle, ended) = self.try_open();
        Open { client, handle: handle.unwrap(), ended }
    }
}

fn event(text: &str) -> Arc<[u8]> {
    Arc::from(format!("data: {text}\n\n").into_bytes())
}

#[track_caller]
fn check_next(client: &mut Client, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    client.0.read_exact(&mut got).unwrap();
    assert_eq!(got, expected);
}

#[test]
fn a_client_that_does_not_read_is_dropped_and_costs_nobody_else() {
    let fixture = Fixture::start(Limits::default());
    let mut open: Vec<_> = (0..200).map(|_| fixture.open()).collect();
    assert_eq!(fixture.streams.count(), 200);
    let slow = fixture.open();
    // More than both kernels' buffers and the queue hold.
    let padding = event(&"x".repeat(60_000));
    let mut sent = 0;
    while slow.handle.send(Arc::clone(&padding)).is_ok() {
        sent += 1;
        assert!(sent < 1000, "never dropped");
    }
    assert!(!slow.handle.is_open());
    for (number, event) in [event("one"), event("two")].into_iter().enumerate() {
        let begun = Instant::now();
        for one in &open {
            assert_eq!(one.handle.send(Arc::clone(&event)), Ok(()));
        }
        for one in &mut open {
            check_next(&mut one.client, &event);
        }
        assert!(begun.elapsed() < Duration::from_secs(1), "round {number}");
    }
    slow.ended.recv_timeout(PATIENCE).unwrap();
    assert_eq!(fixture.streams.count(), 200);
    assert!(open.iter().all(|one| one.ended.is_empty()));
}

#[test]
fn one_event_of_any_size_enters_an_empty_queue() {
    let fixture = Fixture::start(Limits { stream_queue_bytes: 100, ..Limits::default() });
    let mut open = fixture.open();
    let large = event(&"y".repeat(5_000_000));
    assert_eq!(open.handle.send(Arc::clone(&large)), Ok(()));
    // It cannot be out yet: the client has not begun to read.
    assert_eq!(open.handle.send(event("behind")), Ok(()));
    check_next(&mut open.client, &large);
    check_next(&mut open.client, &event("behind"));
    // So does one that comes right behind a small one which the hub has not come to.
    assert_eq!(open.handle.send(event("small")), Ok(()));
    assert_eq!(open.handle.send(Arc::clone(&large)), Ok(()));
    check_next(&mut open.client, &event("small"));
    // Behind what the client does not take, only so much may wait.
    let fit = (0..4).filter(|_| open.handle.send(event(&"z".repeat(101))).is_ok()).count();
    assert!(fit < 3, "{fit}");
    open.ended.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn a_client_that_stalls_within_the_bounds_is_dropped_in_time() {
    let write = Duration::from_millis(60);
    let fixture = Fixture::start(Limits { write, ..Limits::default() });
    let open = fixture.open();
    let begun = Instant::now();
    open.handle.send(event(&"y".repeat(20_000_000))).unwrap();
    open.ended.recv_timeout(PATIENCE).unwrap();
    assert!(begun.elapsed() >= write);
}

#[test]
fn a_silent_stream_gets_heartbeats_and_a_busy_one_none() {
    let heartbeat = Duration::from_millis(50);
    let fixture = Fixture::start(Limits { heartbeat, ..Limits::default() });
    let mut open = fixture.open();
    let begun = Instant::now();
    check_next(&mut open.client, b":\n\n:\n\n");
    assert!(begun.elapsed() >= heartbeat);
    open.handle.send(event("x")).unwrap();
    check_next(&mut open.client, &event("x"));
}

#[test]
fn a_client_that_goes_is_noticed_at_once_and_told_once() {
    let fixture = Fixture::start(Limits::default());
    let open = fixture.open();
    let begun = Instant::now();
    drop(open.client);
    open.ended.recv_timeout(PATIENCE).unwrap();
    assert!(begun.elapsed() < Duration::from_millis(250));
    assert_eq!(open.handle.send(event("x")), Err(Gone));
    open.handle.close();
    assert_eq!(fixture.streams.count(), 0);
    drop(fixture);
    assert!(open.ended.try_recv().is_err(), "told twice");
}

#[test]
fn what_clients_send_is_thrown_away_within_a_bound() {
    let fixture = Fixture::start(Limits::default());
    let mut open = fixture.open();
    for _ in 0..100 {
        open.client.send("GET /hello HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    open.handle.send(event("x")).unwrap();
    check_next(&mut open.client, &event("x"));
    let waste = vec![b'a'; 1 << 20];
    while open.client.0.get_mut().write_all(&waste).is_ok() {}
    open.ended.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn a_closed_stream_ends_after_what_is_queued() {
    let fixture = Fixture::start(Limits::default());
    let mut open = fixture.open();
    let large = event(&"y".repeat(1_000_000));
    open.handle.send(Arc::clone(&large)).unwrap();
    open.handle.send(event("last")).unwrap();
    open.handle.close();
    assert_eq!(open.handle.send(event("late")), Err(Gone));
    assert_eq!(open.client.rest(), [&large[..], &event("last")].concat());
    open.ended.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn streams_are_bounded() {
    let fixture = Fixture::start(Limits { streams: 2, ..Limits::default() });
    let open = [fixture.open(), fixture.open()];
    assert_ne!(open[0].handle.id(), open[1].handle.id());
    let (mut refused, handle, ended) = fixture.try_open();
    assert_eq!(handle.err(), Some(Full::Streams));
    assert!(refused.rest().is_empty() && ended.recv().is_err());
    assert_eq!(fixture.streams.reserve().err(), Some(Full::Streams));
    open[0].handle.close();
    eventually("a place", || fixture.streams.reserve().is_ok());
    fixture.open();
}

#[test]
fn all_streams_end_in_order() {
    let fixture = Fixture::start(Limits::default());
    let mut open: Vec<_> = (0..20).map(|_| fixture.open()).collect();
    let stalled = fixture.open();
    stalled.handle.send(event(&"y".repeat(20_000_000))).unwrap();
    for one in &open {
        one.handle.send(event("x")).unwrap();
    }
    let begun = Instant::now();
    fixture.streams.close_all(Some(event("bye")), begun + Duration::from_millis(100));
    assert!(begun.elapsed() < Duration::from_secs(1));
    for one in &mut open {
        assert_eq!(one.client.rest(), [event("x"), event("bye")].concat());
        one.ended.recv_timeout(PATIENCE).unwrap();
    }
    stalled.ended.recv_timeout(PATIENCE).unwrap();
    assert_eq!(fixture.streams.count(), 0);
    assert_eq!(fixture.streams.reserve().err(), Some(Full::Streams));
    eventually("the hub's thread ends", || fixture.hub.is_finished());
}

#[test]
fn the_hub_ends_with_its_last_handle() {
    let fixture = Fixture::start(Limits::default());
    let mut open = fixture.open();
    let Fixture { streams, hub, server: _server } = fixture;
    drop(streams);
    drop(hub);
    assert!(open.client.rest().is_empty());
    open.ended.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn that_a_client_was_dropped_is_told_once_with_its_door_and_the_bound() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(json!({
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
        "limits": { "stream_queue_bytes": 4096 },
    }));
    wait_until("the gateway listens upstream", || upstream.n_streams() > 0);
    // Neither reads.
    let client = gateway.mcp();
    let streamable = client.listen();
    let mut sse = SseClient::open(gateway.address(), "/mcp/sse");
    let wanted = json!({ "uri": TEXT_URI });
    client.result("resources/subscribe", &wanted);
    sse.request("resources/subscribe", &wanted);
    let updated = json!({ "uri": TEXT_URI, "_meta": { "data": "x".repeat(200_000) } });
    for _ in 0..100 {
        upstream.emit("notifications/resources/updated", &updated);
    }
    wait_until("both are dropped", || {
        upstream.emit("notifications/resources/updated", &wanted);
        gateway.get("/status").expect(200).json()["streams"] == 0
    });
    drop((streamable, sse));
    let log = gateway.stop().stderr;
    for door in ["HTTP+SSE", "Streamable HTTP"] {
        let told: Vec<&str> = log
            .lines()
            .filter(|line| line.contains(&format!("{door} stream was dropped")))
            .collect();
        assert_eq!(told.len(), 1, "{log}");
        assert!(told[0].contains("limits.stream_queue_bytes (4096 bytes)"), "{told:?}");
    }
    assert!(!log.contains(client.session()), "{log}");
}
