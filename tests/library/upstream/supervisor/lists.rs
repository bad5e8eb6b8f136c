//! When lists are read, and how much of them is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use trunkline::config::HttpKind;
use trunkline::limits::{Limits, RELIST_INTERVAL};
use trunkline::protocol::call::Kind;
use trunkline::upstream::Event;

use crate::upstream::rig::*;

const CHANGED: &str = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;

#[test]
fn the_bytes_of_a_list_are_bounded_and_the_rest_is_counted() {
    let server = Server::start(|seen| {
        if seen.rpc() != "tools/list" {
            return well(seen);
        }
        let page = seen.body.split("\"cursor\":\"").nth(1).and_then(|c| c.chars().next());
        let page = page.and_then(|digit| digit.to_digit(10)).unwrap_or(0);
        let filling = "x".repeat(1500);
        let next =
            if page < 4 { format!(",\"nextCursor\":\"{}\"", page + 1) } else { String::new() };
        Reply::json(seen.result(&format!(
            r#"{{"tools":[{{"name":"t{page}","description":"{filling}"}}]{next}}}"#
        )))
    });
    let limits = Limits { upstream_result_bytes: 4000, ..Limits::default() };
    let rig = Rig::start(http(server.address, HttpKind::StreamableHttp), limits);
    let until = Instant::now() + PATIENCE;
    loop {
        let event = rig.reports.recv_deadline(until).unwrap().event;
        if let Event::Lists { lists, left_out, .. } = event {
            let tools = lists.iter().find(|(kind, _)| *kind == Kind::Tool);
            return assert_eq!((tools.unwrap().1.len(), left_out), (2, 3));
        }
    }
}

#[test]
fn a_server_that_never_stops_changing_is_asked_once_a_second() {
    let over = Arc::new(AtomicBool::new(false));
    let flag = over.clone();
    let server = Server::start(move |seen| match (seen.method.as_str(), seen.rpc().as_str()) {
        ("GET", _) => {
            let flag = flag.clone();
            Reply::stream(move |stream| {
                let until = Instant::now() + RELIST_INTERVAL * 3 / 2;
                while Instant::now() < until {
                    event(stream, CHANGED);
                    std::thread::sleep(Duration::from_millis(10));
                }
                flag.store(true, Ordering::SeqCst);
                event(stream, CHANGED);
                std::io::Read::read(stream, &mut [0]).ok();
            })
        }
        (_, "tools/list") if flag.load(Ordering::SeqCst) => {
            Reply::json(seen.result(r#"{"tools":[{"name":"last"}]}"#))
        }
        _ => well(seen),
    });
    let rig = Rig::ready(&server);
    eventually("the last change is seen", || rig.tools() == ["last"]);
    assert!(server.count("tools/list") <= 4, "{}", server.count("tools/list"));
}

#[test]
fn a_list_that_failed_for_the_moment_is_asked_for_again_soon() {
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |seen| match seen.rpc().as_str() {
        "tools/list" if asked.fetch_add(1, Ordering::SeqCst) < 2 => {
            Reply::status(503, "warming up")
        }
        _ => well(seen),
    });
    let rig = Rig::start(http(server.address, HttpKind::StreamableHttp), Limits::default());
    assert!(rig.failure().message.contains("warming up"));
    assert_eq!(rig.tools(), ["echo"]);
    assert_eq!((server.count("initialize"), server.count("tools/list")), (1, 3));
}

#[test]
fn tools_that_are_not_declared_outlive_a_list_that_fails_in_a_new_session() {
    let (lost, is_bad) = (AtomicBool::new(false), Arc::new(AtomicBool::new(false)));
    let bad = is_bad.clone();
    let server = Server::start(move |seen| match seen.rpc().as_str() {
        "initialize" => {
            let declared = r#""capabilities":{"tools":{"listChanged":true}}"#;
            assert!(INITIALIZED.contains(declared));
            let undeclared = INITIALIZED.replace(declared, r#""capabilities":{}"#);
            Reply::Body(
                200,
                "Mcp-Session-Id: s1\r\n".to_owned(),
                "application/json",
                seen.result(&undeclared),
            )
        }
        "tools/call" if !lost.swap(true, Ordering::SeqCst) => {
            bad.store(true, Ordering::SeqCst);
            Reply::status(404, "no such session")
        }
        "tools/list" if bad.swap(false, Ordering::SeqCst) => Reply::Close,
        _ => well(seen),
    });
    let rig = Rig::ready(&server);
    text(rig.call());
    eventually("it is listed again", || server.count("initialize") == 2);
    // The failure is told, no list without tools is, and the next try has them.
    rig.failure();
    assert!(!is_bad.load(Ordering::SeqCst));
    assert_eq!(rig.tools(), ["echo"]);
}
