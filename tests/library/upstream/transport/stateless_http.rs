//! Requests to modern upstreams: what they carry, and what becomes of the answers.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use trunkline::config::HttpKind;
use trunkline::error::CallError;
use trunkline::limits::Limits;
use trunkline::protocol::call::{About, Kind, Notice, Outcome};
use trunkline::protocol::log_level::LogLevel;
use trunkline::protocol::modern::Freshness;
use trunkline::protocol::raw::RawObject;
use trunkline::protocol::session_route::SessionRoute;
use trunkline::upstream::Event;
use trunkline::wait::Interrupted;

use crate::upstream::rig::*;
use crate::upstream::stateless_rig::*;

#[test]
fn what_a_request_is_about_stands_in_its_headers() {
    let server = Server::start(modern);
    let rig = Rig::ready(&server);
    let params = r#"{"name":"größe","arguments":{"region":"eu","text":" x "}}"#;
    let mirrored = [("Region", "eu"), ("Text", " x "), ("Empty", "")];
    let outgoing = trunkline::protocol::call::Outgoing {
        mirrored: mirrored.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        about: About {
            capabilities: r#"{"roots":{}}"#,
            log_level: Some(LogLevel::Info),
            is_level_told: true,
        },
        wants_progress: true,
        ..outgoing("tools/call", params)
    };
    let outcome =
        rig.upstream.request(SessionRoute::Shared, &outgoing, &wait(5000), &Sink::default());
    assert_eq!(text(outcome), r#"{"content":[]}"#);
    let seen = server.seen().into_iter().find(|seen| seen.rpc() == "tools/call").unwrap();
    for (name, value) in [
        ("mcp-protocol-version", MODERN),
        ("mcp-method", "tools/call"),
        ("mcp-name", "=?base64?Z3LDtsOfZQ==?="),
        ("mcp-param-region", "eu"),
        ("mcp-param-text", "=?base64?IHgg?="),
        ("mcp-param-empty", "=?base64??="),
        ("x-secret", "hush"),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    let body = RawObject::parse(&seen.body).unwrap();
    let params = RawObject::parse(body.get("params").unwrap()).unwrap();
    let meta = RawObject::parse(params.get("_meta").unwrap()).unwrap();
    assert_eq!(meta.get("io.modelcontextprotocol/clientCapabilities"), Some(r#"{"roots":{}}"#));
    assert_eq!(meta.get("io.modelcontextprotocol/logLevel"), Some("\"info\""));
    assert_eq!(meta.get("progressToken"), Some(seen.id().as_str()));
    rig.ask("resources/list", "{}");
    let last = server.seen().pop().unwrap();
    assert_eq!((last.header("mcp-name"), last.header("mcp-param-region")), (None, None));
}

#[test]
fn an_answer_that_wants_input_is_no_result() {
    let server = modern_calls(|seen| {
        Reply::json(seen.result(r#"{"resultType":"input_required","inputRequests":{"a":{"method":"roots/list"}},"requestState":"s\u0031"}"#))
    });
    let rig = Rig::ready(&server);
    match rig.call().unwrap() {
        Outcome::InputRequired { server, requests, state } => {
            assert_eq!(server.as_str(), "up");
            assert_eq!(requests.unwrap().get(), r#"{"a":{"method":"roots/list"}}"#);
            assert_eq!(state.as_deref(), Some("s1"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_error_response_is_the_upstreams_own_whatever_the_status() {
    for (status, code) in [(200, -32602), (400, -32602), (404, -32601), (400, -32021), (500, 7)]
    {
        let server = modern_calls(move |seen| error(seen, status, code, r#"{"x":1}"#));
        let rig = Rig::ready(&server);
        match rig.call().unwrap() {
            Outcome::Error { error, .. } => {
                assert_eq!((error.code, error.data.unwrap().get()), (code, r#"{"x":1}"#));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(server.count("server/discover"), 1);
    }
}

#[test]
fn a_header_mismatch_lets_the_tools_be_listed_again() {
    let server = modern_calls(|seen| error(seen, 400, -32020, "null"));
    let rig = Rig::ready(&server);
    assert!(
        matches!(rig.call().unwrap(), Outcome::Error { error, .. } if error.code == -32020)
    );
    assert_eq!(rig.tools(), ["fresh"]);
    assert_eq!(server.count("tools/list"), 2);
}

#[test]
fn what_such_a_server_has_not_is_answered_for_it() {
    let server = Server::start(modern);
    let rig = Rig::ready(&server);
    for method in ["ping", "logging/setLevel"] {
        assert!(
            matches!(rig.ask(method, "{}"), Outcome::Complete(result) if result.get() == "{}")
        );
    }
    for method in ["tasks/result", "tasks/list", "initialize"] {
        let refused = rig.ask(method, "{}");
        assert!(matches!(&refused, Outcome::Error { error, .. } if error.code == -32601));
    }
    for method in ["ping", "logging/setLevel", "tasks/result", "tasks/list", "initialize"] {
        assert_eq!(server.count(method), 0, "{method}");
    }
}

#[test]
fn the_stream_of_a_call_tells_that_call_and_asks_nothing() {
    let server = modern_calls(|seen| {
        let (id, answer) = (seen.id(), seen.result(r#"{"content":[]}"#));
        let progress = |token: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":1}}}}"#
            )
        };
        Reply::events(&[
            progress(&id),
            progress("999"),
            r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}"#.to_owned(),
            r#"{"jsonrpc":"2.0","id":"q","method":"roots/list"}"#.to_owned(),
            answer,
        ])
    });
    let rig = Rig::ready(&server);
    let sink = Sink::asked(|_| panic!("it was asked"));
    assert_eq!(text(rig.call_with(&wait(5000), &sink)), r#"{"content":[]}"#);
    assert!(matches!(sink.notices()[..], [Notice::Progress(_), Notice::Log(_)]));
    assert!(rig.unasked.notices.lock().unwrap().is_empty());
    // Its connection is used again, and nothing was said but the call.
    text(rig.call());
    assert!(server.seen().iter().all(|seen| seen.method == "POST"));
}

#[test]
fn a_retry_has_an_id_of_its_own() {
    let is_first = AtomicBool::new(true);
    let server = Server::start(move |seen| match seen.rpc().as_str() {
        "prompts/get" if is_first.swap(false, Ordering::SeqCst) => Reply::stream(|_| ()),
        "prompts/get" => Reply::json(seen.result("{}")),
        _ => modern(seen),
    });
    let rig = Rig::ready(&server);
    rig.ask("prompts/get", r#"{"name":"p"}"#);
    let seen: Vec<String> =
        server.seen().iter().filter(|seen| seen.rpc() == "prompts/get").map(Seen::id).collect();
    assert_eq!(seen.len(), 2, "{seen:?}");
    let mut ids: Vec<String> = server.seen().iter().map(Seen::id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), server.seen().len());
}

#[test]
fn a_stream_that_breaks_off_says_that_the_tool_may_have_run() {
    let server = modern_calls(|_| Reply::stream(|out| event(out, "")));
    let rig = Rig::ready(&server);
    let failed = rig.call().unwrap_err().to_string();
    assert!(failed.contains("the tool may have run"), "{failed}");
    assert_eq!(server.count("tools/call"), 1);
    assert!(server.seen().iter().all(|seen| seen.header("last-event-id").is_none()));
}

#[test]
fn whoever_no_longer_wants_an_answer_closes_the_connection() {
    // Before the head, and after it; also after the client was kept alive.
    for (is_begun, heartbeat_ms) in [(false, 15_000), (false, 50), (true, 15_000), (true, 50)] {
        let (closed, is_closed) = bounded(1);
        let server = modern_calls(move |_| {
            let closed = closed.clone();
            let wait_for_end = move |out: &mut std::net::TcpStream| {
                out.read_to_end(&mut Vec::new()).ok();
                closed.send(()).unwrap();
            };
            if is_begun {
                Reply::stream(wait_for_end)
            } else {
                Reply::Raw(Box::new(wait_for_end))
            }
        });
        let mut config = http(server.address, HttpKind::StreamableHttp);
        config.max_in_flight = 1;
        let rig = Rig::ready_with(config, Limits::default());
        let client = Arc::<Beaten>::default();
        let wait = beating(&client, 5000, heartbeat_ms);
        std::thread::scope(|scope| {
            let call = scope.spawn(|| rig.call_with(&wait, &Sink::default()));
            eventually("it is called", || server.count("tools/call") == 1);
            std::thread::sleep(Duration::from_millis(200));
            let began = Instant::now();
            wait.interrupt(Interrupted::Cancelled);
            is_closed.recv_timeout(Duration::from_secs(1)).unwrap();
            assert_eq!(call.join().unwrap(), Err(CallError::Cancelled));
            assert!(began.elapsed() < Duration::from_secs(1));
        });
        assert_eq!(rig.upstream.status().in_flight, 0);
        assert!(server.seen().iter().all(|seen| seen.rpc() != "notifications/cancelled"));
    }
}

#[test]
fn a_child_is_spoken_to_in_the_same_way() {
    let call = r#"say "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":$id,\"progress\":1}}"
        say '{"jsonrpc":"2.0","id":"q","method":"roots/list"}'
        case "$line" in *'"io.modelcontextprotocol/protocolVersion":"2026-07-28"'*) answer '{"resultType":"complete","ok":1}';; esac"#;
    let rig = Rig::ready_with(modern_child("", call, "refuse -32601"), Limits::default());
    let sink = Sink::asked(|_| panic!("it was asked"));
    assert_eq!(text(rig.call_with(&wait(5000), &sink)), r#"{"ok":1}"#);
    assert!(matches!(sink.notices()[..], [Notice::Progress(_)]));
    assert!(matches!(rig.ask("ping", "{}"), Outcome::Complete(_)));
}

#[test]
fn a_child_is_told_what_is_cancelled() {
    let rig = Rig::ready_with(modern_child("", ":", "refuse -32601"), Limits::default());
    assert!(rig.call_with(&wait(100), &Sink::default()).is_err());
    eventually("it is told", || rig.upstream.status().stderr.contains(&"cancelled".into()));
}

/// A log message of a child names no call.
#[test]
fn a_log_message_goes_to_the_only_call_that_wants_any() {
    let call = r#"say '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}'
        case "$line" in *'"hang"'*) hung=$id; id=;; esac
        case "$line" in *'"release"'*) now=$id; id=$hung; answer '{}'; id=$now;; esac
        [ -n "$id" ] && answer '{}'"#;
    let rig = Rig::ready_with(modern_child("", call, "refuse -32601"), Limits::default());
    let ask = |name: &str, level: Option<LogLevel>, wait_ms: u64| {
        let params = format!(r#"{{"name":"{name}"}}"#);
        let outgoing = trunkline::protocol::call::Outgoing {
            about: About { capabilities: "{}", log_level: level, is_level_told: true },
            ..outgoing("tools/call", &params)
        };
        let sink = Sink::default();
        let outcome =
            rig.upstream.request(SessionRoute::Shared, &outgoing, &wait(wait_ms), &sink);
        (outcome, sink.notices().len())
    };
    let level = Some(LogLevel::Debug);
    assert_eq!(ask("a", level, 5000).1, 1);
    assert_eq!(ask("a", None, 5000).1, 0);
    // Two want some: it could be for either.
    std::thread::scope(|scope| {
        let first = scope.spawn(|| ask("hang", level, 5000));
        eventually("it is there", || rig.upstream.status().in_flight == 1);
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(ask("release", level, 5000).1, 0);
        let (outcome, n) = first.join().unwrap();
        assert_eq!((text(outcome).as_str(), n), ("{}", 1));
    });
    // One was cancelled a moment ago: it could be for that.
    assert!(ask("hang", level, 100).0.is_err());
    assert_eq!(ask("a", level, 5000).1, 0);
    assert!(rig.unasked.notices.lock().unwrap().is_empty());
}

#[test]
fn a_list_is_as_fresh_as_its_least_fresh_page() {
    fn server(is_modern: bool) -> Server {
        Server::start(move |seen| match seen.rpc().as_str() {
            "tools/list" if seen.body.contains("cursor") => {
                Reply::json(seen.result(r#"{"tools":[],"ttlMs":5000,"cacheScope":"public"}"#))
            }
            "tools/list" => Reply::json(seen.result(
                r#"{"tools":[],"nextCursor":"2","ttlMs":9000,"cacheScope":"private"}"#,
            )),
            _ if is_modern => modern(seen),
            _ => legacy(seen),
        })
    }
    for (is_modern, ttl_ms) in [(true, 5000), (false, 0)] {
        let server = server(is_modern);
        let config = http(server.address, HttpKind::StreamableHttp);
        let rig = Rig::start(config, Limits::default());
        let freshness = loop {
            if let Event::Lists { freshness, .. } =
                rig.reports.recv_timeout(PATIENCE).unwrap().event
            {
                break freshness;
            }
        };
        let tools = (Kind::Tool, Freshness { ttl_ms, is_private: true });
        assert!(freshness.contains(&tools), "{freshness:?}");
    }
}
