//! What waits to be written to a child that does not read.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use trunkline::config::UpstreamConfig;
use trunkline::error::CallError;
use trunkline::limits::{CHILD_OUTBOX_BYTES_MAX, Limits};
use trunkline::protocol::call::{About, Outcome, Outgoing};
use trunkline::protocol::raw::RawObject;
use trunkline::protocol::session_route::SessionRoute;
use trunkline::wait::Wait;

use crate::upstream::rig::*;
use crate::upstream::transport::stdio::{OK, script};

/// A call whose message has at least so many bytes.
fn call_of(rig: &Rig, bytes: usize, wait: &Arc<Wait>) -> Result<Outcome, CallError> {
    let arguments = format!("{{\"filling\":\"{}\"}}", "x".repeat(bytes));
    let mut params = RawObject::parse(r#"{"name":"echo"}"#).unwrap();
    params.set("arguments", arguments);
    let outgoing = Outgoing {
        method: "tools/call",
        is_safe_to_repeat: false,
        params,
        meta: None,
        wants_progress: false,
        about: About::default(),
        charged: None,
        mirrored: Vec::new(),
    };
    rig.upstream.request(SessionRoute::Shared, &outgoing, wait, &Sink::default())
}

fn count(rig: &Rig, line: &str) -> usize {
    rig.upstream.status().stderr.iter().filter(|kept| *kept == line).count()
}

#[test]
fn a_line_that_nobody_waits_for_any_more_is_not_written() {
    let call = format!("echo call >&2; case $late in 1) ;; *) late=1; sleep 1 ;; esac; {OK}");
    let rig = Rig::ready_with(script("", &call), Limits::default());
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| rig.call());
        eventually("it does not read any more", || count(&rig, "call") == 1);
        // More than a pipe holds.
        let large = scope.spawn(|| call_of(&rig, 100_000, &wait(5000)));
        std::thread::sleep(Duration::from_millis(50));
        let late = rig.call_with(&wait(200), &Sink::default());
        assert!(matches!(late, Err(CallError::UpstreamTimeout { .. })), "{late:?}");
        text(busy.join().unwrap());
        text(large.join().unwrap());
    });
    text(rig.call());
    eventually("three calls came", || count(&rig, "call") == 3);
    assert_eq!(count(&rig, "cancelled"), 0);
}

#[test]
fn what_waits_is_bounded_in_bytes() {
    let _heavy = crate::support::heavy();
    let config = script("", "echo call >&2; sleep 100");
    let rig = Rig::ready_with(UpstreamConfig { max_in_flight: 8, ..config }, Limits::default());
    std::thread::scope(|scope| {
        scope.spawn(|| rig.call());
        eventually("it does not read any more", || count(&rig, "call") == 1);
        // One is being written, three wait.
        for _ in 0..4 {
            scope.spawn(|| call_of(&rig, CHILD_OUTBOX_BYTES_MAX / 3 - 1000, &wait(8000)));
            std::thread::sleep(Duration::from_millis(400));
        }
        match call_of(&rig, 4000, &wait(5000)) {
            Err(CallError::Overloaded { what }) => assert!(what.contains("bytes"), "{what}"),
            other => panic!("{other:?}"),
        }
        let fits = call_of(&rig, 1000, &wait(100));
        assert!(matches!(fits, Err(CallError::UpstreamTimeout { .. })), "{fits:?}");
        rig.upstreams.interrupt();
    });
    rig.upstreams.hurry().store(true, Ordering::SeqCst);
}
