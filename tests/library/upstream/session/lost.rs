//! Streamable HTTP: a server that has forgotten its sessions works again, however it says so; one
//! that refuses for another reason is not opened anew at each call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use trunkline::config::HttpKind;
use trunkline::limits::Limits;
use trunkline::protocol::call::Outcome;

use crate::upstream::rig::*;

/// What a server says to a session that it does not know; `ID` is the request's own id.
const REFUSALS: [(u16, &str); 18] = [
    (401, "Unauthorized: Session not found"),
    (400, NOT_INITIALIZED),
    (400, r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32602,"message":"no such client"}}"#),
    (400, "nothing of the kind"),
    (401, ""),
    (404, ""),
    (404, r#"{"jsonrpc":"2.0","id":ID,"error":{"code":-32602,"message":"Invalid session"}}"#),
    (410, "gone"),
    (422, "expected initialize"),
    (500, "KeyError"),
    (503, "no worker has it"),
    (200, r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Invalid request"}}"#),
    (200, r#"{"jsonrpc":"2.0","id":ID,"error":{"code":-32001,"message":"Session not found"}}"#),
    (200, r#"{"jsonrpc":"2.0","id":ID,"error":{"code":-32005,"message":"Session expired"}}"#),
    (200, EXPIRED),
    (400, EXPIRED),
    (401, EXPIRED),
    (503, NOT_INITIALIZED),
];
const NOT_INITIALIZED: &str = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Bad Request: Server not initialized"}}"#;
const EXPIRED: &str = r#"{"jsonrpc":"2.0","id":ID,"error":{"code":-32602,"message":"Invalid or expired session"}}"#;

/// A server whose sessions `forget` ends; what else is asked in one of them is refused.
fn forgetting(status: u16, text: &'static str) -> (Server, Arc<AtomicUsize>) {
    let era = Arc::new(AtomicUsize::new(1));
    let mine = era.clone();
    let server = Server::start(move |seen| {
        let session = format!("s{}", mine.load(Ordering::SeqCst));
        match (seen.method.as_str(), seen.rpc().as_str()) {
            ("GET" | "DELETE", _) => well(seen),
            (_, "initialize") => Reply::Body(
                200,
                format!("Mcp-Session-Id: {session}\r\n"),
                "application/json",
                seen.result(INITIALIZED),
            ),
            _ if seen.session() == session => well(seen),
            _ if text.starts_with('{') => {
                let body = text.replace("ID", &seen.id());
                Reply::Body(status, String::new(), "application/json", body)
            }
            _ => Reply::status(status, text),
        }
    });
    (server, era)
}

#[test]
fn a_server_that_forgot_its_sessions_works_again_however_it_refuses_them() {
    std::thread::scope(|scope| {
        for (status, text) in REFUSALS {
            scope.spawn(move || {
                let (server, era) = forgetting(status, text);
                let rig = Rig::ready(&server);
                for n in 2..4 {
                    era.store(n, Ordering::SeqCst);
                    eventually(&format!("{status} {text}: a call works again"), || {
                        matches!(rig.call(), Ok(Outcome::Complete(_)))
                    });
                    let session = format!("s{n}");
                    let of =
                        |seen: &Seen| seen.rpc() == "tools/call" && seen.session() == session;
                    assert_eq!(server.seen().iter().filter(|seen| of(seen)).count(), 1);
                }
                let opened = server.count("initialize");
                assert!((3..6).contains(&opened), "{status} {text}: {opened}");
            });
        }
    });
}

#[test]
fn a_client_s_own_session_that_was_forgotten_works_again() {
    for (status, message) in [(401, "Unauthorized: Session not found"), (503, "busy")] {
        let (server, era) = forgetting(status, message);
        let rig = Rig::ready(&server);
        let anna = client("anna");
        text(rig.call_through(&anna, "echo"));
        era.store(2, Ordering::SeqCst);
        eventually("its call works again", || {
            matches!(rig.call_through(&anna, "echo"), Ok(Outcome::Complete(_)))
        });
    }
}

#[test]
fn a_request_that_was_refused_before_its_execution_is_sent_again_at_once() {
    for (status, message) in [(401, "Unauthorized: Session not found"), (400, NOT_INITIALIZED)]
    {
        let (server, era) = forgetting(status, message);
        let rig = Rig::ready(&server);
        era.store(2, Ordering::SeqCst);
        assert_eq!(text(rig.call()), r#"{"content":[]}"#);
        assert_eq!((server.count("tools/call"), server.count("initialize")), (2, 2));
    }
}

#[test]
fn a_server_that_refuses_calls_for_reasons_of_its_own_keeps_its_session() {
    for status in [401, 403, 429, 503] {
        let server = calls(move |_| Reply::status(status, "you shall not pass"));
        let rig = Rig::ready(&server);
        // Its lists are read, so that its session has worked.
        for _ in 0..50 {
            rig.call().unwrap_err();
        }
        eventually("the status says so", || {
            let failure = rig.upstream.status().last_failure;
            failure.is_some_and(|it| it.message.contains("you shall not pass"))
        });
        assert_eq!(server.count("initialize"), 1, "{status}");
    }
}

#[test]
fn a_server_that_refuses_everything_but_initialize_is_opened_anew_at_the_pace_of_the_backoff() {
    for message in ["no", "no such session"] {
        let refuses = Arc::new(AtomicBool::new(false));
        let flag = refuses.clone();
        let server = Server::start(move |seen| match seen.rpc().as_str() {
            "ping" | "tools/list" | "tools/call" if flag.load(Ordering::SeqCst) => {
                Reply::status(401, message)
            }
            _ => well(seen),
        });
        let rig = Rig::ready(&server);
        refuses.store(true, Ordering::SeqCst);
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            rig.call().unwrap_err();
        }
        let opened = server.count("initialize");
        assert!((2..=12).contains(&opened), "{message}: {opened}");
    }
}

#[test]
fn a_stream_that_is_refused_after_it_was_given_has_the_session_looked_at() {
    let era = Arc::new(AtomicUsize::new(1));
    let mine = era.clone();
    let server = Server::start(move |seen| {
        let now = mine.load(Ordering::SeqCst);
        let session = format!("s{now}");
        let is_known = seen.session() == session;
        match (seen.method.as_str(), seen.rpc().as_str()) {
            (_, "initialize") => Reply::Body(
                200,
                format!("Mcp-Session-Id: {session}\r\n"),
                "application/json",
                seen.result(INITIALIZED),
            ),
            ("GET", _) if is_known => {
                let mine = mine.clone();
                Reply::stream(move |_| {
                    eventually("the next era", || mine.load(Ordering::SeqCst) > now);
                })
            }
            _ if is_known => well(seen),
            _ => Reply::status(401, "who is it?"),
        }
    });
    let rig =
        Rig::ready_with(http(server.address, HttpKind::StreamableHttp), Limits::default());
    eventually("a stream", || server.seen().iter().any(|seen| seen.method == "GET"));
    era.store(2, Ordering::SeqCst);
    let is_listened_to = |seen: &Seen| seen.method == "GET" && seen.session() == "s2";
    eventually("another stream", || server.seen().iter().any(is_listened_to));
    assert_eq!(text(rig.call()), r#"{"content":[]}"#);
    era.store(3, Ordering::SeqCst);
}
