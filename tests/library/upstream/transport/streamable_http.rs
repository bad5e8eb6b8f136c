//! Streamable HTTP: connections, sessions, failures and bounds.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use trunkline::config::HttpKind;
use trunkline::error::{CallError, Stage};
use trunkline::limits::Limits;
use trunkline::protocol::call::Outcome;
use trunkline::upstream::State;
use trunkline::wait::{Interrupted, Wait};

use crate::upstream::rig::*;

fn streamable(server: &Server) -> trunkline::config::UpstreamConfig {
    http(server.address, HttpKind::StreamableHttp)
}

#[track_caller]
fn failed(outcome: Result<Outcome, CallError>) -> (Stage, String) {
    match outcome {
        Err(CallError::UpstreamFailed { stage, message, .. }) => (stage, message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn warm_calls_share_one_connection_and_carry_the_session() {
    let server = calls(|seen| Reply::json(seen.result(r#"{"content":[]}"#)));
    let rig = Rig::ready(&server);
    eventually("the stream is asked for", || server.seen().iter().any(|s| s.method == "GET"));
    let before = server.accepted();
    for _ in 0..5 {
        assert_eq!(text(rig.call()), r#"{"content":[]}"#);
    }
    assert_eq!(server.accepted(), before + 1);
    let seen = server.seen();
    let call = seen.iter().find(|seen| seen.rpc() == "tools/call").unwrap();
    assert_eq!(call.header("mcp-session-id"), Some("s1"));
    assert_eq!(call.header("mcp-protocol-version"), Some("2025-11-25"));
    assert_eq!(call.header("accept"), Some("application/json, text/event-stream"));
    assert_eq!(call.header("x-secret"), Some("hush"));
    let mut ids: Vec<_> =
        seen.iter().filter(|s| s.body.contains("\"id\"")).map(Seen::id).collect();
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all, "an id was used twice");
    assert_eq!(rig.upstream.status().state, State::Ready);
    drop(rig);
    assert!(server.seen().iter().any(|s| s.method == "DELETE"), "the session was not ended");
}

#[test]
fn a_forgotten_session_is_opened_again_and_the_call_replayed_once() {
    let forgotten = Arc::new(AtomicBool::new(false));
    let flag = forgotten.clone();
    let server = Server::start(move |seen| {
        let old = seen.header("mcp-session-id") == Some("s1");
        match seen.rpc().as_str() {
            "tools/call" if old && flag.load(Ordering::SeqCst) => {
                let body = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Session not found"}}"#;
                Reply::Body(404, String::new(), "application/json", body.to_owned())
            }
            "initialize" if flag.load(Ordering::SeqCst) => Reply::Body(
                200,
                "mcp-session-id: s2\r\n".to_owned(),
                "application/json",
                seen.result(INITIALIZED),
            ),
            _ => well(seen),
        }
    });
    let rig = Rig::ready(&server);
    forgotten.store(true, Ordering::SeqCst);
    assert_eq!(text(rig.call()), r#"{"content":[]}"#);
    assert_eq!((server.count("tools/call"), server.count("initialize")), (2, 2));
    // The supervisor notices the new session and reads its list anew.
    assert_eq!(rig.tools(), ["echo"]);
    assert_eq!(rig.upstream.status().restarts, 1);
}

#[test]
fn a_session_that_cannot_be_used_is_ended() {
    let server = Server::start(|seen| match seen.rpc().as_str() {
        "initialize" => Reply::Body(
            200,
            "mcp-session-id: s1\r\n".to_owned(),
            "application/json",
            seen.result(r#"{"protocolVersion":"1999-01-01"}"#),
        ),
        _ => well(seen),
    });
    let rig = Rig::start(streamable(&server), Limits::default());
    assert!(rig.failure().message.contains("1999-01-01"));
    eventually("the session is ended", || {
        server.seen().iter().any(|seen| seen.method == "DELETE" && seen.session() == "s1")
    });
}

#[test]
fn a_handshake_does_not_wait_for_a_stream_that_nobody_asked_for() {
    let server = Server::start(|seen| match seen.rpc().as_str() {
        "notifications/initialized" => Reply::stream(|stream| {
            stream.read_to_end(&mut Vec::new()).ok();
        }),
        _ => well(seen),
    });
    let began = Instant::now();
    let rig = Rig::ready(&server);
    assert_eq!(text(rig.call()), r#"{"content":[]}"#);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(server.count("initialize"), 1);
}

#[test]
fn a_session_that_is_refused_for_ever_is_replayed_once_only() {
    let server = calls(|_| Reply::status(404, "no such session"));
    let rig = Rig::ready(&server);
    let (_, message) = failed(rig.call());
    assert!(message.contains("404"), "{message}");
    assert_eq!(server.count("tools/call"), 2);
}

#[test]
fn a_call_that_broke_off_midway_is_not_sent_again() {
    let server = calls(|_| Reply::Close);
    let rig = Rig::ready(&server);
    let (stage, message) = failed(rig.call());
    assert_eq!(stage, Stage::Answer);
    assert!(message.contains("the tool may have run"), "{message}");
    assert_eq!(server.count("tools/call"), 1);
}

#[test]
fn a_connection_closed_while_idle_is_replaced_without_a_word() {
    let server = calls(|seen| {
        // One answer a connection, without saying so.
        let body = seen.result("{}");
        Reply::stream(move |stream| event(stream, &body))
    });
    let rig = Rig::ready(&server);
    text(rig.call());
    text(rig.call());
    assert_eq!(server.count("tools/call"), 2);
}

#[test]
fn refused_is_told_with_its_stage_and_back_again_works_by_itself() {
    let server = Server::start(well);
    let address = server.address;
    let rig = Rig::ready(&server);
    text(rig.call());
    drop(server);
    eventually("calls fail", || rig.call().is_err());
    let began = Instant::now();
    let (stage, message) = failed(rig.call());
    assert_eq!(stage, Stage::Connect);
    assert!(message.contains("refused"), "{message}");
    assert!(began.elapsed() < Duration::from_secs(1));
    let server = Server::start_at(address, well);
    text(rig.call());
    assert_eq!(server.count("tools/call"), 1);
}

#[test]
fn an_absent_upstream_appears_by_itself() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let rig = Rig::start(http(address, HttpKind::StreamableHttp), Limits::default());
    let failure = rig.failure();
    assert_eq!(failure.stage, Stage::Connect);
    assert!(!failure.message.contains("hush"));
    let _server = Server::start_at(address, well);
    assert_eq!(rig.tools(), ["echo"]);
}

#[test]
fn a_hanging_call_ends_at_its_deadline_and_gives_its_slot_back() {
    let server = calls(|seen| if seen.id().len() > 5 { Reply::Close } else { Reply::Hang });
    let config = trunkline::config::UpstreamConfig { max_in_flight: 1, ..streamable(&server) };
    let rig = Rig::ready_with(config, Limits::default());
    for _ in 0..2 {
        let began = Instant::now();
        let outcome = rig.call_with(&wait(200), &Sink::default());
        let took = began.elapsed();
        assert!(matches!(
            outcome,
            Err(CallError::UpstreamTimeout { stage: Stage::Answer, .. })
        ));
        assert!(
            took >= Duration::from_millis(200) && took < Duration::from_secs(1),
            "{took:?}"
        );
    }
    eventually("both are cancelled", || server.count("notifications/cancelled") == 2);
    let seen = server.seen();
    let call = seen.iter().find(|seen| seen.rpc() == "tools/call").unwrap();
    let cancelled = seen.iter().find(|seen| seen.rpc() == "notifications/cancelled").unwrap();
    assert!(cancelled.body.contains(&format!("\"requestId\":{}", call.id())));
    assert_eq!(cancelled.header("mcp-session-id"), Some("s1"));
    assert_eq!(rig.upstream.status().in_flight, 0);
}

/// Starts a call that hangs, ends it by `end` once the server has it, and gives what came of it.
fn ended_by(end: impl FnOnce(&Wait) + Send, wait: &Arc<Wait>) -> Result<Outcome, CallError> {
    let server = calls(|_| Reply::Hang);
    let rig = Rig::ready(&server);
    let outcome = std::thread::scope(|scope| {
        let call = scope.spawn(|| rig.call_with(wait, &Sink::default()));
        eventually("the call arrives", || server.count("tools/call") == 1);
        end(wait);
        call.join().unwrap()
    });
    eventually("it is cancelled", || server.count("notifications/cancelled") == 1);
    assert_eq!(rig.upstream.status().in_flight, 0);
    outcome
}

#[test]
fn a_cancelled_call_is_cancelled_upstream() {
    let outcome = ended_by(|wait| wait.interrupt(Interrupted::Cancelled), &wait(5000));
    assert_eq!(outcome, Err(CallError::Cancelled));
}

#[test]
fn a_client_that_hangs_up_cancels_its_call() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let patience = Duration::from_secs(5);
    let wait = Wait::new(patience, patience, Some(Arc::new(ours))).unwrap();
    let outcome = ended_by(move |_| drop(theirs), &wait);
    assert_eq!(outcome, Err(CallError::Cancelled));
}

#[test]
fn interrupting_ends_what_waits() {
    let server = calls(|_| Reply::Hang);
    let rig = Rig::ready(&server);
    let outcome = std::thread::scope(|scope| {
        let call = scope.spawn(|| rig.call());
        eventually("the call arrives", || server.count("tools/call") == 1);
        rig.upstreams.interrupt();
        call.join().unwrap()
    });
    // What was sent may have run, and what comes later is not begun.
    let Err(CallError::UpstreamFailed { message, .. }) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(message.ends_with("the tool may have run"), "{message}");
    assert_eq!(rig.call(), Err(CallError::ShuttingDown));
}

#[test]
fn more_calls_than_slots_and_places_are_refused_and_those_who_wait_are_served() {
    let release = Arc::new(AtomicBool::new(false));
    let flag = release.clone();
    let server = calls(move |seen| {
        eventually("release", || flag.load(Ordering::SeqCst));
        Reply::json(seen.result("{}"))
    });
    let config = trunkline::config::UpstreamConfig {
        max_in_flight: 1,
        max_waiting: 1,
        ..streamable(&server)
    };
    let rig = Rig::ready_with(config, Limits::default());
    std::thread::scope(|scope| {
        let first = scope.spawn(|| rig.call());
        eventually("one is in flight", || rig.upstream.status().in_flight == 1);
        let second = scope.spawn(|| rig.call());
        eventually("one waits", || rig.upstream.status().waiting == 1);
        match rig.call() {
            Err(CallError::Overloaded { what }) => {
                assert!(what.contains("max_waiting") && what.contains("up"), "{what}");
            }
            other => panic!("{other:?}"),
        }
        release.store(true, Ordering::SeqCst);
        text(first.join().unwrap());
        text(second.join().unwrap());
    });
}

#[test]
fn the_budget_of_all_upstreams_is_bounded() {
    let server = calls(|_| Reply::Hang);
    let limits = Limits { connections: 1, ..Limits::default() };
    let rig = Rig::ready_with(streamable(&server), limits);
    let wait = wait(5000);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| rig.call_with(&wait, &Sink::default()));
        eventually("one is in flight", || rig.upstream.status().in_flight == 1);
        assert!(
            matches!(rig.call(), Err(CallError::Overloaded { what }) if what.contains("connections"))
        );
        wait.interrupt(Interrupted::Cancelled);
        first.join().unwrap().unwrap_err();
    });
}

#[test]
fn nonsense_is_told_as_it_is() {
    let turn = AtomicUsize::new(0);
    let server = calls(move |seen| match turn.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::Body(200, String::new(), "text/html", "<html>".to_owned()),
        1 => Reply::json("{\"half\":"),
        2 => Reply::json(r#"{"jsonrpc":"2.0","id":99999,"result":{}}"#),
        3 => Reply::status(500, "Traceback: hush: everything is wrong"),
        4 => Reply::status(202, ""),
        5 => Reply::events(&["not json".to_owned()]),
        6 => Reply::Body(
            200,
            "content-encoding: x\r\n".into(),
            "application/json",
            seen.result(r#"{"n":6}"#),
        ),
        7 => Reply::Body(
            200,
            "content-encoding: identity\r\n".into(),
            "application/json",
            seen.result(r#"{"n":7}"#),
        ),
        _ => Reply::Close,
    });
    let rig = Rig::ready(&server);
    for expected in [
        "text/html",
        "no message",
        "another request",
        "everything is wrong",
        "no answer",
        "without an answer",
        "coded (x)",
    ] {
        let (_, message) = failed(rig.call());
        assert!(message.contains(expected), "{message:?} has no {expected:?}");
        assert!(!message.contains("hush"));
    }
    assert_eq!(text(rig.call()), r#"{"n":7}"#);
}

#[test]
fn an_error_response_is_the_upstreams_own_whatever_the_status() {
    for status in [200, 400, 404] {
        let server = calls(move |seen| {
            let body = format!(
                r#"{{"jsonrpc":"2.0","id":{},"error":{{"code":-32602,"message":"No such tool"}}}}"#,
                seen.id()
            );
            Reply::Body(status, String::new(), "application/json", body)
        });
        let rig = Rig::ready(&server);
        match rig.call().unwrap() {
            Outcome::Error { error, .. } => assert_eq!(error.code, -32602),
            other @ (Outcome::Complete(_) | Outcome::InputRequired { .. }) => {
                panic!("{other:?}")
            }
        }
        assert_eq!(server.count("tools/call"), 1);
    }
}

#[test]
fn a_result_over_the_bound_names_the_bound() {
    let large = format!(r#"{{"content":"{}"}}"#, "x".repeat(5000));
    for streamed in [false, true] {
        let large = large.clone();
        let server = calls(move |seen| {
            let body = seen.result(&large);
            if streamed { Reply::events(&[body]) } else { Reply::json(body) }
        });
        let limits = Limits { upstream_result_bytes: 4000, ..Limits::default() };
        let rig = Rig::ready_with(streamable(&server), limits);
        let (_, message) = failed(rig.call());
        assert!(message.contains("upstream_result_bytes"), "{message}");
        let limits = Limits { upstream_event_bytes: 4000, ..Limits::default() };
        let rig = Rig::ready_with(streamable(&server), limits);
        match rig.call() {
            Err(CallError::UpstreamFailed { message, .. }) if streamed => {
                assert!(message.contains("upstream_event_bytes"), "{message}");
            }
            other => drop(text(other)),
        }
    }
}

#[test]
fn fifty_megabytes_pass() {
    let _heavy = crate::support::heavy();
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(50 * 1024 * 1024));
    let length = large.len();
    let streamed = AtomicBool::new(false);
    let server = calls(move |seen| {
        let body = seen.result(&large);
        if streamed.fetch_xor(true, Ordering::SeqCst) {
            Reply::events(&[body])
        } else {
            Reply::json(body)
        }
    });
    let mut config = streamable(&server);
    // A busy machine reads them in seconds.
    (config.timeout, config.timeout_max) = (Duration::from_secs(60), Duration::from_secs(60));
    let rig = Rig::ready_with(config, Limits::default());
    assert_eq!(text(rig.call()).len(), length);
    assert_eq!(text(rig.call()).len(), length);
}

#[test]
fn https_to_a_server_that_does_not_speak_it_fails_at_tls() {
    let server = Server::start(well);
    let mut config = streamable(&server);
    if let trunkline::config::Target::Http(target) = &mut config.target {
        target.url = target.url.replace("http://", "https://");
    }
    let rig = Rig::start(config, Limits::default());
    assert_eq!(rig.failure().stage, Stage::Tls);
}

#[test]
fn a_name_without_an_address_fails_at_resolve() {
    let server = Server::start(well);
    let mut config = streamable(&server);
    if let trunkline::config::Target::Http(target) = &mut config.target {
        target.url = "http://no-such-host.invalid/mcp".to_owned();
    }
    let rig = Rig::start(config, Limits::default());
    assert_eq!(rig.failure().stage, Stage::Resolve);
    let (stage, _) = failed(rig.call());
    assert_eq!(stage, Stage::Resolve);
}

#[test]
fn every_page_of_the_list_is_read() {
    let server = Server::start(|seen| {
        if seen.rpc() != "tools/list" {
            return well(seen);
        }
        let page = match seen.body.split("\"cursor\":\"").nth(1).and_then(|c| c.chars().next())
        {
            None => r#"{"tools":[{"name":"a"},{"name":"b"}],"nextCursor":"2"}"#,
            Some('2') => r#"{"tools":[{"name":"c"}],"nextCursor":"3"}"#,
            Some(_) => r#"{"tools":[{"name":"d"}]}"#,
        };
        Reply::json(seen.result(page))
    });
    let rig = Rig::start(streamable(&server), Limits::default());
    assert_eq!(rig.tools(), ["a", "b", "c", "d"]);
    let limits = Limits { upstream_tools: 3, ..Limits::default() };
    let rig = Rig::start(streamable(&server), limits);
    assert_eq!(rig.tools(), ["a", "b", "c"]);
}

#[test]
fn a_proxy_is_asked_for_the_connection() {
    let server = calls(|seen| Reply::json(seen.result("{}")));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let (count, target) = (asked.clone(), server.address);
    trunkline::thread::spawn("test-proxy", move || {
        for mut client in listener.incoming().flatten() {
            let count = count.clone();
            let tunnel = move || {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if client.read(&mut byte).unwrap_or(0) == 0 {
                        return;
                    }
                    head.extend_from_slice(&byte);
                }
                assert!(head.starts_with(format!("CONNECT {target} ").as_bytes()));
                count.fetch_add(1, Ordering::SeqCst);
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                let mut server = TcpStream::connect(target).unwrap();
                let (mut from, mut to) =
                    (client.try_clone().unwrap(), server.try_clone().unwrap());
                let up = trunkline::thread::spawn("test-up", move || {
                    std::io::copy(&mut from, &mut to).ok();
                    to.shutdown(std::net::Shutdown::Both).ok();
                });
                std::io::copy(&mut server, &mut client).ok();
                client.shutdown(std::net::Shutdown::Both).ok();
                drop(up);
            };
            trunkline::thread::spawn("test-tunnel", tunnel).unwrap().detach();
        }
    })
    .unwrap()
    .detach();
    let mut config = streamable(&server);
    if let trunkline::config::Target::Http(target) = &mut config.target {
        target.proxy = Some(trunkline::config::Secret::new(format!("http://{proxy}")));
    }
    let rig = Rig::ready_with(config, Limits::default());
    let client = Arc::<Beaten>::default();
    for _ in 0..2 {
        text(rig.call_with(&beating(&client, 5000, 50), &Sink::default()));
    }
    assert!(asked.load(Ordering::SeqCst) >= 2);
}
