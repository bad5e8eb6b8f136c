//! Results count against the memory that all bodies and results share.

use std::io::Write;

use serde_json::json;
use trunkline::config::{HttpKind, UpstreamConfig};
use trunkline::error::CallError;
use trunkline::limits::Limits;

use crate::support::gateway::Gateway;
use crate::support::upstream_http::{Answers, HttpUpstream};
use crate::upstream::rig::*;
use crate::upstream::transport::stdio::script;

/// More than half of what there is.
const RESULT_BYTES: usize = 600_000;

fn start(config: UpstreamConfig) -> Rig {
    Rig::ready_with(config, Limits { buffered_bytes: 1_000_000, ..Limits::default() })
}

/// Two results do not fit; one does again as soon as the other is gone.
#[track_caller]
fn check(rig: &Rig) {
    let first = rig.call().unwrap();
    let (before, all) = (RESULT_BYTES, 1_000_000);
    assert!((before..=all).contains(&rig.buffered.taken()), "{}", rig.buffered.taken());
    match rig.call() {
        Err(CallError::Overloaded { what }) => {
            assert!(what.contains("limits.buffered_bytes"), "{what}");
        }
        other => panic!("{:?}", other.map(|_| "a result")),
    }
    drop(first);
    eventually("it is given back", || rig.buffered.taken() == 0);
    assert!(text(rig.call()).len() > RESULT_BYTES);
    eventually("it is given back again", || rig.buffered.taken() == 0);
}

fn large() -> String {
    filled(RESULT_BYTES)
}

/// A result of so many bytes and a few more.
fn filled(bytes: usize) -> String {
    format!("{{\"x\":\"{}\"}}", "x".repeat(bytes))
}

#[test]
fn a_body_is_counted() {
    let server = calls(|seen| Reply::json(seen.result(&large())));
    check(&start(http(server.address, HttpKind::StreamableHttp)));
}

#[test]
fn a_body_of_unknown_length_is_counted_while_it_is_read() {
    let server = calls(|seen| {
        let body = seen.result(&large());
        Reply::Raw(Box::new(move |stream| {
            let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n";
            stream.write_all(head).and_then(|()| stream.write_all(body.as_bytes())).ok();
        }))
    });
    // Its memory doubles as it grows, so it takes more than it has bytes.
    let config = http(server.address, HttpKind::StreamableHttp);
    let limits = Limits { buffered_bytes: 1_100_000, ..Limits::default() };
    let rig = Rig::ready_with(config, limits);
    let first = rig.call().unwrap();
    assert!(matches!(rig.call(), Err(CallError::Overloaded { .. })));
    drop(first);
    assert!(text(rig.call()).len() > RESULT_BYTES);
    assert_eq!(rig.buffered.taken(), 0);
}

#[test]
fn an_event_is_counted() {
    let server = calls(|seen| Reply::events(&[seen.result(&large())]));
    check(&start(http(server.address, HttpKind::StreamableHttp)));
}

#[test]
fn a_line_of_a_child_is_counted() {
    let call = format!(
        r#"printf '{{"jsonrpc":"2.0","id":%s,"result":{{"x":"' $id; head -c {RESULT_BYTES} /dev/zero | tr '\0' x; echo '"}}}}'"#
    );
    check(&start(script("", &call)));
}

#[test]
fn small_results_are_not_counted() {
    let server = calls(|seen| Reply::json(seen.result(&filled(60_000))));
    let config = http(server.address, HttpKind::StreamableHttp);
    let rig = Rig::ready_with(config, Limits { buffered_bytes: 1, ..Limits::default() });
    let first = rig.call().unwrap();
    assert_eq!(rig.buffered.taken(), 0);
    text(rig.call());
    drop(first);
}

#[test]
fn the_gateway_gives_bodies_and_results_one_budget() {
    let upstream = HttpUpstream::start();
    upstream.answer_with(Answers::EventStream);
    let gateway = Gateway::started(json!({
        "limits": {
            "buffered_bytes": 2_100_000, "body_bytes": 100_000,
            "upstream_result_bytes": 2_000_000,
        },
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }));
    gateway.call("big", &json!({ "megabytes": 1 })).expect(200);
    let refused = gateway.call("big", &json!({ "megabytes": 3 })).expect_error(503);
    assert!(refused.to_string().contains("limits.buffered_bytes"), "{refused}");
    gateway.call("big", &json!({ "megabytes": 1 })).expect(200);
}
