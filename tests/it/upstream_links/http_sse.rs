//! HTTP+SSE: one stream for everything, and `auto`, which finds it.

use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use trunkline::config::HttpKind;
use trunkline::error::CallError;
use trunkline::limits::Limits;
use trunkline::protocol::call::Notice;

use super::rig::*;

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
    let mut sink = Sink::default();
    assert!(text(rig.call_with(&wait(5000), &mut sink)).starts_with("{\"id\":"));
    assert!(matches!(sink.notices[..], [Notice::Progress(_)]));
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
    let outcome = rig.call_with(&wait(200), &mut Sink::default());
    assert!(matches!(outcome, Err(CallError::UpstreamTimeout { .. })), "{outcome:?}");
    assert!(began.elapsed() < Duration::from_millis(300));
    eventually("it is cancelled", || server.count("notifications/cancelled") == 1);
}

#[test]
fn an_endpoint_elsewhere_is_refused() {
    let server = Server::start(|seen| match seen.method.as_str() {
        "GET" => Reply::stream(|stream| {
            let text = b"event: endpoint\ndata: http://127.0.0.1:1/messages\n\n";
            std::io::Write::write_all(stream, text).unwrap();
            std::io::Read::read(stream, &mut [0]).ok();
        }),
        _ => Reply::status(405, ""),
    });
    let rig = rig(&server, HttpKind::HttpSse);
    assert!(rig.failure().message.contains("same origin"));
}
