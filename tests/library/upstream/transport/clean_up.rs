//! Streamable HTTP: the end of a session whose handshake failed holds nobody up.

use std::time::{Duration, Instant};

use trunkline::config::HttpKind;
use trunkline::limits::Limits;

use crate::upstream::rig::*;

#[test]
fn a_session_that_is_ended_slowly_holds_nobody_up() {
    let server = Server::start(|seen| match (seen.method.as_str(), seen.rpc().as_str()) {
        ("DELETE", _) => Reply::Hang,
        (_, "notifications/initialized") => Reply::status(500, "not today"),
        _ => well(seen),
    });
    let began = Instant::now();
    let rig = Rig::start(http(server.address, HttpKind::StreamableHttp), Limits::default());
    assert!(rig.failure().message.contains("not today"));
    assert!(rig.call().unwrap_err().to_string().contains("not today"));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let ended =
        |seen: &Seen| seen.method == "DELETE" && seen.header("mcp-session-id") == Some("s1");
    eventually("the session is ended", || server.seen().iter().any(ended));
}

#[test]
fn a_session_whose_initialize_is_not_answered_is_ended() {
    let server = Server::start(|seen| match seen.rpc().as_str() {
        "initialize" => Reply::Body(
            200,
            "Mcp-Session-Id: s1\r\n".to_owned(),
            "application/json",
            "<html>".to_owned(),
        ),
        _ => well(seen),
    });
    let rig = Rig::start(http(server.address, HttpKind::StreamableHttp), Limits::default());
    rig.failure();
    eventually("the session is ended", || {
        server.seen().iter().any(|seen| seen.method == "DELETE" && seen.session() == "s1")
    });
}
