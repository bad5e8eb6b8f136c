//! Streamable HTTP: servers that have no stream of their own, and streams that end with their
//! session.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::upstream::rig::*;

#[test]
fn a_server_without_the_stream_is_left_alone() {
    // What a server does that has a route for POST alone.
    let server = Server::start(|seen| match seen.method.as_str() {
        "GET" => Reply::status(404, "Cannot GET /mcp"),
        _ => well(seen),
    });
    let rig = Rig::ready(&server);
    let asked = || server.seen().iter().filter(|seen| seen.method == "GET").count();
    eventually("the stream is asked for", || asked() == 1);
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!((server.count("initialize"), server.count("tools/list"), asked()), (1, 1, 1));
    text(rig.call());
}

#[test]
fn a_stream_that_was_open_tells_of_its_sessions_end() {
    let ended = Arc::new(AtomicBool::new(false));
    let flag = ended.clone();
    let server = Server::start(move |seen| match seen.method.as_str() {
        "GET" if flag.swap(true, Ordering::SeqCst) => Reply::status(404, "no such session"),
        "GET" => Reply::stream(|stream| event(stream, "{}")),
        _ => well(seen),
    });
    let rig = Rig::ready(&server);
    eventually("the session is opened again", || server.count("initialize") == 2);
    assert_eq!(rig.tools(), ["echo"]);
}
