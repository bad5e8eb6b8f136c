//! HTTP+SSE: one stream for everything, and `auto`, which finds it.

use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use trunkline::config::HttpKind;
use trunkline::error::CallError;
use trunkline::limits::Limits;
use trunkline::protocol::call::Notice;

use crate::upstream::rig::*;

/// The stream of the session that is open, once there is one.
type Shared = Arc<(Mutex<Option<TcpStream>>, Condvar)>;

fn say(shared: &Shared, text: &str) {
    let mut stream = shared.0.lock().unwrap();
    while stream.is_none() {
        stream = shared.1.wait(stream).unwrap();
    }
    event(stream.as_mut().unwrap(), text);
}

/// A server of the older transport; `script` says what comes on the stream for a `tools/call`.
fn older(script: impl Fn(&Seen, &Shared) + Send + Sync + 'static) -> (Server, Shared) {
    let shared: Shared = Arc::default();
    let mine = shared.clone();
    let server = Server::start(move |seen| {
        if seen.method == "GET" {
            let shared = mine.clone();
            return Reply::stream(move |stream| {
                std::io::Write::write_all(
                    stream,
                    b"event: endpoint\ndata: /messages?session_id=1\n\n",
                )
                .unwrap();
                *shared.0.lock().unwrap() = Some(stream.try_clone().unwrap());
                shared.1.notify_all();
                std::io::Read::read(stream, &mut [0]).ok();
            });
        }
        if !seen.path.starts_with("/messages") {
            return Reply::status(405, "");
        }
        match seen.rpc().as_str() {
            "initialize" => {
                say(&mine, &seen.result(&INITIALIZED.replace("2025-11-25", "2024-11-05")))
            }
            "tools/list" => say(&mine, &seen.result(r#"{"tools":[{"name":"old"}]}"#)),
            "tools/call" => script(seen, &mine),
            _ => (),
        }
        Reply::status(202, "Accepted")
    });
    (server, shared)
}

fn rig(server: &Server, kind: HttpKind) -> Rig {
    Rig::start(http(server.address, kind), Limits::default())
}

#[test]
fn answers_and_progress_find_their_call() {
    let (server, _) = older(|seen, shared| {
        let notice = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{},"progress":1}}}}"#,
            seen.id()
        );
        say(shared, &notice);
        say(shared, r#"{"jsonrpc":"2.0","id":4711,"result":{"stranger":1}}"#);
        say(shared, &seen.result(&format!("{{\"id\":{}}}", seen.id())));
    });
    let rig = rig(&server, HttpKind::HttpSse);
    assert_eq!(rig.tools(), ["old"]);
    let sink = Sink::default();
    assert!(text(rig.call_with(&wait(5000), &sink)).starts_with("{\"id\":"));
    assert!(matches!(sink.notices()[..], [Notice::Progress(_)]));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| text(rig.call()));
        }
    });
    assert_eq!(rig.upstream.status().transport, "sse");
}

#[test]
fn auto_finds_it() {
    let (server, _) = older(|seen, shared| say(shared, &seen.result("{}")));
    let rig = rig(&server, HttpKind::Auto);
    assert_eq!(rig.tools(), ["old"]);
    assert_eq!(rig.upstream.status().transport, "sse");
    assert_eq!(text(rig.call()), "{}");
}

#[test]
fn auto_finds_streamable_http_too() {
    let server = Server::start(well);
    let rig = rig(&server, HttpKind::Auto);
    assert_eq!(rig.tools(), ["echo"]);
    assert_eq!(rig.upstream.status().transport, "http");
    text(rig.call());
}

#[test]
fn a_lost_stream_fails_its_calls_at_once_and_is_opened_again() {
    let (server, _) = older(|_, shared| {
        let stream = shared.0.lock().unwrap().take().unwrap();
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    });
    let rig = rig(&server, HttpKind::HttpSse);
    rig.tools();
    match rig.call() {
        Err(CallError::UpstreamFailed { message, .. }) => {
            assert!(message.contains("may have run"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(server.count("tools/call"), 1);
    rig.tools();
    assert!(server.count("initialize") >= 2);
}

#[test]
fn a_call_that_hangs_ends_at_its_deadline_and_is_cancelled() {
    let (server, _) = older(|_, _| ());
    let rig = rig(&server, HttpKind::HttpSse);
    rig.tools();
    let began = std::time::Instant::now();
    let outcome = rig.call_with(&wait(200), &Sink::default());
    assert!(matches!(outcome, Err(CallError::UpstreamTimeout { .. })), "{outcome:?}");
    assert!(began.elapsed() < Duration::from_millis(300));
    eventually("it is cancelled", || server.count("notifications/cancelled") == 1);
}

/// A server whose stream begins with this, at `/mcp`.
fn beginning(head: &'static str) -> Server {
    Server::start(move |seen| match seen.method.as_str() {
        "GET" => Reply::stream(move |stream| {
            let head = head.replace("HOST", &stream.local_addr().unwrap().to_string());
            std::io::Write::write_all(stream, head.as_bytes()).unwrap();
            std::io::Read::read(stream, &mut [0]).ok();
        }),
        _ => Reply::status(202, ""),
    })
}

#[test]
fn an_endpoint_elsewhere_is_refused() {
    for (head, told) in [
        ("event: endpoint\ndata: http://127.0.0.1:1/m?x=y\n\n", "http://127.0.0.1:1/m"),
        ("event: endpoint\ndata: //127.0.0.1:1/m\n\n", "//127.0.0.1:1/m"),
        ("event: endpoint\ndata: https://HOST/m\n\n", "https://127.0.0.1"),
        ("event: endpoint\ndata: http://me:secret@HOST/m\n\n", "http://127.0.0.1"),
        ("event: endpoint\ndata: no url\n\n", "no url"),
    ] {
        let server = beginning(head);
        let rig = rig(&server, HttpKind::HttpSse);
        let message = rig.failure().message;
        assert!(message.contains("same origin") && message.contains(told), "{message}");
        assert!(!message.contains("x=y") && !message.contains("secret"), "{message}");
        assert!(server.seen().iter().all(|seen| seen.method == "GET"));
    }
}

#[test]
fn an_endpoint_is_resolved_as_a_reference() {
    for (endpoint, path) in [
        ("../messages?s=1", "/messages?s=1"),
        ("./m/../n", "/n"),
        ("//HOST/m", "/m"),
        ("http://HOST/m", "/m"),
        ("?s=1", "/mcp?s=1"),
        ("/caf\u{e9}/m?q=\u{1f600}", "/caf%C3%A9/m?q=%F0%9F%98%80"),
        ("/m#there", "/m"),
    ] {
        let head = format!("event: endpoint\ndata: {endpoint}\n\n");
        let server = beginning(head.leak());
        let _rig = rig(&server, HttpKind::HttpSse);
        let is_posted = |seen: &Seen| seen.rpc() == "initialize" && seen.path == path;
        eventually(endpoint, || server.seen().iter().any(is_posted));
    }
}

#[test]
fn what_comes_before_the_endpoint_is_passed_over() {
    for before in [
        "retry: 3000\n\n",
        "id: 0\n\n",
        ": hello\n\n",
        "event: endpoint\nid: 1\n\n",
        "event: endpoint\ndata:\n\n",
        "event: ping\ndata: 1\n\n",
        "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n",
        "data: not json\n\n",
    ] {
        let server = beginning(format!("{before}event: endpoint\ndata: /m\n\n").leak());
        let rig = rig(&server, HttpKind::HttpSse);
        eventually(before, || server.count("initialize") == 1);
        assert_eq!(rig.upstream.status().last_failure, None, "{before:?}");
    }
}

#[test]
fn blocks_without_data_and_other_events_are_no_messages() {
    let (server, _) = older(|seen, shared| {
        {
            let mut stream = shared.0.lock().unwrap();
            let text = format!(
                "id: 4\n\nretry: 1000\n\nevent: other\ndata: {}\n\nevent: endpoint\ndata: /x\n\n",
                seen.result(r#"{"is":"wrong"}"#)
            );
            std::io::Write::write_all(stream.as_mut().unwrap(), text.as_bytes()).unwrap();
        }
        say(shared, &seen.result(r#"{"is":"right"}"#));
    });
    let rig = rig(&server, HttpKind::HttpSse);
    rig.tools();
    assert_eq!(text(rig.call()), r#"{"is":"right"}"#);
    assert_eq!(text(rig.call()), r#"{"is":"right"}"#);
}
