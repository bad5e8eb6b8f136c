//! Streams of events that never come to the point, say too much, or speak to nobody.

use std::io;
use std::time::{Duration, Instant};

use serde_json::json;

use super::faulty::{At, Faulty, Peer, Speech};
use super::rounds::{FAR_TOO_LATE, Holdings, Round, Row, SMALL_BOUND, TIMEOUT_MS};
use crate::support::gateway::Gateway;
use crate::support::listener::Next;
use crate::support::upstream_http::{HttpUpstream, begin_stream, respond, write_event};
use crate::support::{in_background, wait_for};

fn begin(peer: &mut Peer<'_>) -> io::Result<()> {
    peer.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
}

const NOBODYS: &str = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":\"x\"}}\n\n";
const UNKNOWN_UPDATE: &str = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/resources/updated\",\"params\":{\"uri\":\"a:b\"}}\n\n";
const CHANGED: &str =
    "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n";
const ASKS: &str = "data: {\"jsonrpc\":\"2.0\",\"id\":\"q\",\"method\":\"sampling/createMessage\",\"params\":{}}\n\n";
const STRANGER: &str = "data: {\"jsonrpc\":\"2.0\",\"id\":123456789,\"result\":{}}\n\n";

fn floods(peer: &mut Peer<'_>, event: &str) -> io::Result<Next> {
    begin(peer)?;
    peer.flood(&event.repeat(200), Duration::ZERO)
}

const FAULTS: &[Row] = &[
    Row {
        name: "ends",
        status: 502,
        fault: |peer| {
            begin(peer)?;
            Ok(Next::Close)
        },
    },
    Row {
        name: "ends_in_event",
        status: 502,
        fault: |peer| {
            begin(peer)?;
            let body = peer.result("{}");
            peer.write(&format!("data: {body}\n"))?;
            Ok(Next::Close)
        },
    },
    Row {
        name: "resets",
        status: 502,
        fault: |peer| {
            begin(peer)?;
            peer.write(": here\n\n")?;
            rustix::net::connect_unspec(&*peer.out)?;
            Ok(Next::Close)
        },
    },
    Row {
        name: "silent",
        status: 504,
        fault: |peer| {
            begin(peer)?;
            peer.hang()
        },
    },
    Row {
        name: "slow",
        status: 504,
        fault: |peer| {
            begin(peer)?;
            peer.write("data: ")?;
            peer.flood("x", Duration::from_millis(100))
        },
    },
    Row {
        name: "beats",
        status: 504,
        fault: |peer| {
            begin(peer)?;
            peer.flood(": still here\n\n", Duration::from_millis(20))
        },
    },
    Row {
        name: "invalid_json",
        status: 504,
        fault: |peer| {
            begin(peer)?;
            peer.write(
                "data: {\"jsonrpc\":\n\ndata: nonsense\u{1b}[2J\n\ndata: {}\n\ndata: []\n\n",
            )?;
            peer.hang()
        },
    },
    Row {
        name: "not_utf8",
        status: 502,
        fault: |peer| {
            begin(peer)?;
            io::Write::write_all(peer.out, b"data: \"\xff\xfe\"\n\n")?;
            peer.hang()
        },
    },
    Row {
        name: "too_large",
        status: 502,
        fault: |peer| {
            begin(peer)?;
            peer.write("data: ")?;
            peer.write(&"x".repeat(SMALL_BOUND + 2))?;
            peer.hang()
        },
    },
    Row {
        name: "endless_event",
        status: 502,
        fault: |peer| {
            begin(peer)?;
            peer.flood(&format!("data: {}\n", "x".repeat(16 * 1024)), Duration::ZERO)
        },
    },
    Row {
        name: "endless_name",
        status: 502,
        fault: |peer| {
            begin(peer)?;
            peer.flood(&"x".repeat(16 * 1024), Duration::ZERO)
        },
    },
    // Those that are never silent: at the deadline, or where a bound is reached.
    Row { name: "endless_comments", status: 0, fault: |peer| floods(peer, ": x\n") },
    Row { name: "endless_lines", status: 0, fault: |peer| floods(peer, "\n\n\n\n") },
    Row { name: "endless_notices", status: 0, fault: |peer| floods(peer, NOBODYS) },
    Row { name: "endless_updates", status: 0, fault: |peer| floods(peer, UNKNOWN_UPDATE) },
    Row { name: "endless_changes", status: 0, fault: |peer| floods(peer, CHANGED) },
    Row { name: "endless_asking", status: 0, fault: |peer| floods(peer, ASKS) },
    Row { name: "endless_strangers", status: 0, fault: |peer| floods(peer, STRANGER) },
    Row { name: "endless_nonsense", status: 0, fault: |peer| floods(peer, "data: what\n\n") },
];

fn statuses(row: &Row) -> Vec<u16> {
    if row.status == 0 { vec![502, 504] } else { vec![row.status] }
}

#[test]
fn a_stream_that_never_answers_ends_with_the_call() {
    for speech in [Speech::Sessions, Speech::Modern] {
        let statuses = |row: &Row| match (speech, row.name) {
            // A modern server's answer to a request holds nothing of others.
            (Speech::Modern, "invalid_json") => vec![502, 504],
            _ => statuses(row),
        };
        let round = Round::start(FAULTS, speech, At::Call).listed();
        round.call_all(statuses);
        let holdings = Holdings::of(&round.gateway);
        for _ in 0..2 {
            round.call_all(statuses);
        }
        holdings.are_back(&round.gateway, FAULTS.len());
        assert!(round.gateway.peak_rss_bytes() < 300 * 1024 * 1024);
        round.gateway.stop();
    }
}

#[test]
fn a_stream_at_first_contact_or_in_a_list_is_told_and_costs_nobody_else() {
    for speech in [Speech::Sessions, Speech::Modern, Speech::HttpSse] {
        for (at, stages) in
            [(At::Contact, ["handshake"].as_slice()), (At::List, &["list", "handshake"])]
        {
            let round = Round::start(FAULTS, speech, at);
            round.good_answers("at once");
            round.all_failed_at(stages);
            round.good_answers("still");
            round.gateway.stop();
        }
    }
}

/// A server that keeps saying the same on the stream of its session, while it serves calls as
/// any other does.
struct Babbler {
    upstream: crate::support::listener::Listener,
    transport: &'static str,
}

impl Babbler {
    /// On the stream of a GET, of either transport.
    fn start(speech: Speech, event: &'static str) -> Babbler {
        let (transport, url) = match speech {
            Speech::HttpSse => ("sse", "/mcp/messages"),
            Speech::Sessions | Speech::Modern => ("http", ""),
        };
        let stream: std::sync::Arc<std::sync::Mutex<Option<std::net::TcpStream>>> =
            std::sync::Arc::default();
        let serve = move |request: &crate::support::listener::Incoming,
                          out: &mut std::net::TcpStream| {
            let message: serde_json::Value =
                serde_json::from_str(&request.body).unwrap_or_default();
            if request.method == "GET" {
                out.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")?;
                if !url.is_empty() {
                    out.write_all(format!("event: endpoint\ndata: {url}\n\n").as_bytes())?;
                    *stream.lock().unwrap() = Some(out.try_clone()?);
                }
                let piece = event.repeat(200);
                loop {
                    // Answers come between two pieces, whole.
                    let _turn = stream.lock().unwrap();
                    out.write_all(piece.as_bytes())?;
                }
            }
            if request.method != "POST" {
                return respond(out, "200 OK", &[], "");
            }
            let result = match message["method"].as_str().unwrap_or_default() {
                "initialize" => json!({
                    "protocolVersion": "2025-06-18",
                    "capabilities": {"tools": {"listChanged": true}, "logging": {},
                        "resources": {"subscribe": true}},
                    "serverInfo": {"name": "babbler", "version": "1"},
                }),
                "tools/list" => json!({"tools": [
                    {"name": "echo", "inputSchema": {"type": "object"}}
                ]}),
                "resources/list" => json!({"resources": []}),
                "resources/templates/list" => json!({"resourceTemplates": []}),
                "tools/call" => json!({"content": [{"type": "text", "text": "well"}]}),
                "ping" | "logging/setLevel" => json!({}),
                _ if message["id"].is_null() => return respond(out, "202 Accepted", &[], ""),
                _ => {
                    let error = json!({"code": -32601, "message": "Method not found"});
                    let body = json!({"jsonrpc": "2.0", "id": message["id"], "error": error});
                    let kind = [("Content-Type", "application/json")];
                    return respond(out, "400 Bad Request", &kind, &body.to_string());
                }
            };
            let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
            let stream = stream.lock().unwrap();
            if let Some(mut stream) = stream.as_ref() {
                stream.write_all(format!("data: {answer}\n\n").as_bytes())?;
                return respond(out, "202 Accepted", &[], "");
            }
            let headers = [("Content-Type", "application/json"), ("Mcp-Session-Id", "b")];
            respond(out, "200 OK", &headers, &answer.to_string())
        };
        let upstream = crate::support::listener::Listener::absent(serve);
        upstream.start();
        Babbler { upstream, transport }
    }

    fn config(&self) -> serde_json::Value {
        json!({
            "url": format!("http://127.0.0.1:{}/mcp", self.upstream.port()),
            "transport": self.transport,
            "timeout_ms": TIMEOUT_MS,
        })
    }
}

use std::io::Write as _;

#[test]
fn a_server_that_never_stops_talking_takes_no_place_from_others() {
    let _heavy = crate::support::heavy();
    let streams = [
        (Speech::Sessions, NOBODYS),
        (Speech::Sessions, UNKNOWN_UPDATE),
        (Speech::Sessions, ASKS),
        (Speech::Sessions, ": x\n"),
        (Speech::HttpSse, NOBODYS),
        (Speech::HttpSse, ASKS),
        (Speech::HttpSse, "data: what\u{1b}[2J\n\n"),
    ];
    for (speech, event) in streams {
        let good = HttpUpstream::start();
        let babbler = Babbler::start(speech, event);
        let gateway = Gateway::with(json!({ "mcp_servers": {
            "good": { "url": good.url(), "transport": "http" },
            "babbler": babbler.config(),
        }}))
        .start();
        gateway.wait_until_well(&["good"]);
        // Clients with streams of their own, who would hear what is said.
        let listening: Vec<_> = (0..3).map(|_| gateway.mcp()).collect();
        let _ears: Vec<_> = listening.iter().map(|client| client.listen()).collect();
        for n in 0..60 {
            // Each is a command to the thread that owns all sessions.
            let client = gateway.mcp();
            let answer = client.call("good-echo", &json!({"message": n.to_string()}));
            let text = &answer["content"][0]["text"];
            assert_eq!(*text, n.to_string(), "{event}: {answer}");
            client.end().expect(204);
        }
        // Its own calls stand behind what it says, over HTTP+SSE even its first answers do.
        let began = Instant::now();
        let own = gateway.call("babbler-echo", &json!({}));
        assert!([200, 404, 502, 504].contains(&own.status()), "{event}: {own}");
        assert!(began.elapsed() < FAR_TOO_LATE, "{event}: {:?}", began.elapsed());
        assert!(gateway.peak_rss_bytes() < 300 * 1024 * 1024, "{event}");
        let ended = gateway.stop();
        assert_eq!(ended.code, Some(0), "{event}");
        let lines = ended.stderr.lines().count();
        assert!(lines < 1000, "{event}: {lines} lines are logged");
        assert!(!ended.stderr.contains('\u{1b}'), "{event}");
    }
}

#[test]
fn of_two_answers_the_first_counts() {
    const ROWS: &[Row] = &[Row {
        name: "twice",
        status: 200,
        fault: |peer| {
            let answer = |text: &str| {
                peer.result(&format!(r#"{{"content":[{{"type":"text","text":"{text}"}}]}}"#))
            };
            let (first, second) = (answer("first"), answer("second"));
            if let Some(stream) = peer.stream.as_mut() {
                write_event(stream, "message", &first)?;
                for _ in 0..300 {
                    write_event(stream, "message", &second)?;
                }
                return respond(peer.out, "202 Accepted", &[], "");
            }
            begin_stream(peer.out, &[])?;
            write_event(peer.out, "message", &first)?;
            for _ in 0..50 {
                write_event(peer.out, "message", &second)?;
            }
            peer.write("0\r\n\r\n")?;
            Ok(Next::Keep)
        },
    }];
    for speech in [Speech::Sessions, Speech::HttpSse] {
        let round = Round::start(ROWS, speech, At::Call).listed();
        for _ in 0..5 {
            assert_eq!(round.gateway.call_text("twice-echo", &json!({})), "first");
        }
        round.good_answers("still");
    }
}

#[test]
fn requests_that_nobody_serves_are_refused_by_the_thousand() {
    const ROWS: &[Row] = &[Row {
        name: "asks",
        status: 200,
        fault: |peer| {
            begin_stream(peer.out, &[])?;
            for n in 0..1000 {
                let ask = format!(
                    r#"{{"jsonrpc":"2.0","id":"q{n}","method":"sampling/createMessage","params":{{}}}}"#
                );
                write_event(peer.out, "message", &ask)?;
            }
            let answer = peer.result(r#"{"content":[{"type":"text","text":"well"}]}"#);
            write_event(peer.out, "message", &answer)?;
            peer.write("0\r\n\r\n")?;
            Ok(Next::Keep)
        },
    }];
    let round = Round::start(ROWS, Speech::Sessions, At::Call).listed();
    for _ in 0..3 {
        assert_eq!(round.gateway.call_text("asks-echo", &json!({})), "well");
        round.good_answers("still");
    }
    let ended = round.gateway.stop();
    let lines = ended.stderr.lines().count();
    assert!(lines < 200, "{lines} lines are logged");
}

#[test]
fn a_stream_of_http_sse_that_breaks_fails_the_calls_on_it() {
    const ROWS: &[Row] = &[
        Row {
            name: "breaks",
            status: 502,
            fault: |peer| {
                if let Some(stream) = &peer.stream {
                    stream.shutdown(std::net::Shutdown::Both)?;
                }
                respond(peer.out, "202 Accepted", &[], "")
            },
        },
        Row {
            name: "too_large",
            status: 502,
            fault: |peer| {
                if let Some(mut stream) = peer.stream.take() {
                    stream
                        .write_all(format!("{:x}\r\ndata: ", SMALL_BOUND * 2 + 6).as_bytes())?;
                    stream.write_all(&vec![b'x'; SMALL_BOUND * 2])?;
                }
                respond(peer.out, "202 Accepted", &[], "")
            },
        },
        Row {
            name: "silent",
            status: 504,
            fault: |peer| respond(peer.out, "202 Accepted", &[], ""),
        },
    ];
    let faulty: Vec<Faulty> =
        ROWS.iter().map(|row| Faulty::start(Speech::HttpSse, At::Call, row.fault)).collect();
    let mut servers = serde_json::Map::new();
    for (row, server) in ROWS.iter().zip(&faulty) {
        servers.insert(row.name.to_owned(), server.config(TIMEOUT_MS));
    }
    let gateway = Gateway::started(json!({
        "mcp_servers": servers,
        "limits": { "upstream_event_bytes": SMALL_BOUND },
    }));
    for row in ROWS {
        // A stream that was lost is opened again.
        wait_for(&format!("{} is called again", row.name), || {
            let error = gateway.call(&format!("{}-echo", row.name), &json!({}));
            (error.status() == row.status).then_some(())
        });
    }
    let stopping = in_background(move || gateway.stop());
    assert_eq!(stopping.join().unwrap().code, Some(0));
}
