//! Faults of HTTP itself, in the answer to each request of a contact.

use std::io;
use std::time::Duration;

use super::faulty::{At, Faulty, Peer, Speech};
use super::rounds::{FAR_TOO_LATE, Holdings, Round, Row, TIMEOUT_MS};
use crate::support::gateway::Gateway;
use crate::support::listener::Next;
use crate::support::upstream_http::{HttpUpstream, respond};
use crate::support::wait_for;
use serde_json::json;

const JSON: &str = "application/json";

fn status(peer: &mut Peer<'_>, status: &str) -> io::Result<Next> {
    peer.answer(status, "text/html", "<h1>\u{1b}[31mgo away</h1>\r\n\0")
}

fn slow(peer: &mut Peer<'_>, text: &str) -> io::Result<Next> {
    for byte in text.chars() {
        peer.write(&byte.to_string())?;
        std::thread::park_timeout(Duration::from_millis(100));
    }
    peer.hang()
}

/// Every one is a fault wherever it comes.
const FAULTS: &[Row] = &[
    Row {
        name: "resets",
        status: 502,
        fault: |peer| {
            rustix::net::connect_unspec(&*peer.out)?;
            Ok(Next::Close)
        },
    },
    Row { name: "closes", status: 502, fault: |_| Ok(Next::Close) },
    Row { name: "hangs", status: 504, fault: |peer| peer.hang() },
    Row {
        name: "hangs_in_head",
        status: 504,
        fault: |peer| {
            peer.write("HTTP/1.1 200 OK\r\nContent-Ty")?;
            peer.hang()
        },
    },
    Row {
        name: "closes_in_head",
        status: 502,
        fault: |peer| {
            peer.write("HTTP/1.1 200 OK\r\nContent-Ty")?;
            Ok(Next::Close)
        },
    },
    Row {
        name: "slow_head",
        status: 504,
        fault: |peer| slow(peer, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"),
    },
    Row {
        name: "garbage",
        status: 502,
        fault: |peer| {
            peer.write("\0\u{1}\u{fffd} what?\u{1b}[2J\r\n\r\n")?;
            peer.hang()
        },
    },
    Row {
        name: "tls",
        status: 502,
        fault: |peer| {
            peer.write("\u{15}\u{3}\u{1}\0\u{2}\u{2}\u{16}\r\n\r\n")?;
            Ok(Next::Close)
        },
    },
    Row {
        name: "http_09",
        status: 502,
        fault: |peer| {
            peer.write("<html>hello</html>\r\n\r\n")?;
            Ok(Next::Close)
        },
    },
    Row {
        name: "endless_head",
        status: 502,
        fault: |peer| {
            peer.write("HTTP/1.1 200 OK\r\n")?;
            peer.flood(&"X-Header: yes\r\n".repeat(100), Duration::ZERO)
        },
    },
    Row {
        name: "endless_line",
        status: 502,
        fault: |peer| {
            peer.write("HTTP/1.1 200 OK\r\nX-Header: ")?;
            peer.flood(&"yes".repeat(1000), Duration::ZERO)
        },
    },
    Row {
        name: "length_of_two",
        status: 502,
        fault: |peer| {
            let body = peer.result("{}");
            let n = body.len();
            peer.write(&format!("HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\nContent-Length: 7\r\nContent-Length: {n}\r\n\r\n{body}"))?;
            peer.hang()
        },
    },
    Row {
        name: "length_of_minus",
        status: 502,
        fault: |peer| {
            peer.write(&format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\nContent-Length: -1\r\n\r\n{{}}"
            ))?;
            Ok(Next::Close)
        },
    },
    Row {
        name: "length_of_all",
        status: 502,
        fault: |peer| {
            peer.write(&format!("HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\nContent-Length: 18446744073709551615\r\n\r\n{{"))?;
            peer.hang()
        },
    },
    Row {
        name: "bad_chunk",
        status: 502,
        fault: |peer| {
            peer.write(&format!("HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{{}}\r\n"))?;
            peer.hang()
        },
    },
    Row {
        name: "redirects",
        status: 502,
        fault: |peer| {
            peer.write("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n")?;
            Ok(Next::Keep)
        },
    },
    Row {
        name: "redirects_post",
        status: 502,
        fault: |peer| {
            peer.write("HTTP/1.1 308 Permanent Redirect\r\nLocation: /mcp\r\nContent-Length: 0\r\n\r\n")?;
            Ok(Next::Keep)
        },
    },
    Row { name: "says_401", status: 502, fault: |peer| status(peer, "401 Unauthorized") },
    Row { name: "says_403", status: 502, fault: |peer| status(peer, "403 Forbidden") },
    Row { name: "says_404", status: 502, fault: |peer| status(peer, "404 Not Found") },
    Row { name: "says_410", status: 502, fault: |peer| status(peer, "410 Gone") },
    Row { name: "says_429", status: 502, fault: |peer| status(peer, "429 Too Many Requests") },
    Row { name: "says_500", status: 502, fault: |peer| status(peer, "500 Oops") },
    Row { name: "says_503", status: 502, fault: |peer| status(peer, "503 Later") },
    Row { name: "says_999", status: 502, fault: |peer| status(peer, "999 What") },
    Row {
        name: "error_hangs",
        status: 502,
        fault: |peer| {
            peer.write("HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\nwai")?;
            peer.hang()
        },
    },
    Row {
        name: "error_endless",
        status: 502,
        fault: |peer| {
            peer.write("HTTP/1.1 500 Oops\r\n\r\n")?;
            peer.flood(&"no ".repeat(5000), Duration::ZERO)
        },
    },
    Row {
        name: "endless_100",
        status: 504,
        fault: |peer| peer.flood(&"HTTP/1.1 100 Continue\r\n\r\n".repeat(100), Duration::ZERO),
    },
    Row {
        name: "slow_100",
        status: 504,
        fault: |peer| peer.flood("HTTP/1.1 103 Early Hints\r\n\r\n", Duration::from_millis(50)),
    },
    Row {
        name: "upgrades",
        status: 502,
        fault: |peer| {
            peer.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n")?;
            peer.hang()
        },
    },
    Row {
        name: "redirects_away",
        status: 502,
        fault: |peer| redirect(peer, "http://127.0.0.1:9/mcp", "0"),
    },
    Row { name: "redirects_round", status: 502, fault: |peer| redirect(peer, "/mcp", "0") },
    Row {
        name: "redirects_endlessly",
        status: 502,
        fault: |peer| {
            redirect(peer, "/mcp", "99999999999")?;
            peer.flood(&"x".repeat(8192), Duration::ZERO)
        },
    },
    Row {
        // The rest of its answer is not waited for, and its redirects lead in a circle.
        name: "redirects_and_hangs",
        status: 502,
        fault: |peer| {
            redirect(peer, "/elsewhere", "10")?;
            peer.hang()
        },
    },
    Row {
        name: "codes",
        status: 502,
        fault: |peer| {
            let head = [("Content-Type", JSON), ("Content-Encoding", "gzip")];
            respond(peer.out, "200 OK", &head, "\u{1f}\u{8b}\u{8}\0")
        },
    },
];

fn redirect(peer: &mut Peer<'_>, to: &str, length: &str) -> io::Result<Next> {
    peer.write(&format!(
        "HTTP/1.1 307 Elsewhere\r\nLocation: {to}\r\nContent-Length: {length}\r\n\r\n"
    ))?;
    Ok(Next::Keep)
}

/// What is right for one door may be late for another: over HTTP+SSE an answer comes apart from
/// the one to the POST, and the time for it may be over first.
fn either(_: &Row) -> Vec<u16> {
    vec![502, 504]
}

#[test]
fn a_fault_in_the_answer_to_a_call_is_one_clear_error() {
    let round = Round::start(FAULTS, Speech::Sessions, At::Call).listed();
    round.call_all(|row| vec![row.status]);
    let holdings = Holdings::of(&round.gateway);
    for _ in 0..2 {
        round.call_all(|row| vec![row.status]);
    }
    holdings.are_back(&round.gateway, FAULTS.len());
}

#[test]
fn so_it_is_over_http_sse() {
    let round = Round::start(FAULTS, Speech::HttpSse, At::Call).listed();
    round.call_all(either);
    let holdings = Holdings::of(&round.gateway);
    for _ in 0..2 {
        round.call_all(either);
    }
    holdings.are_back(&round.gateway, FAULTS.len());
}

#[test]
fn so_it_is_without_sessions() {
    let round = Round::start(FAULTS, Speech::Modern, At::Call).listed();
    round.call_all(either);
    let holdings = Holdings::of(&round.gateway);
    for _ in 0..2 {
        round.call_all(either);
    }
    holdings.are_back(&round.gateway, FAULTS.len());
}

#[test]
fn a_fault_at_first_contact_is_told_and_costs_nobody_else() {
    for speech in [Speech::Sessions, Speech::HttpSse, Speech::Modern] {
        let round = Round::start(FAULTS, speech, At::Contact);
        round.good_answers("at once");
        round.all_failed_at(&["connect", "handshake"]);
        round.good_answers("still");
        round.gateway.stop();
    }
}

#[test]
fn a_fault_in_a_list_is_told_and_costs_nobody_else() {
    for speech in [Speech::Sessions, Speech::HttpSse, Speech::Modern] {
        let round = Round::start(FAULTS, speech, At::List);
        round.good_answers("at once");
        round.all_failed_at(&["list", "handshake"]);
        round.good_answers("still");
        round.gateway.stop();
    }
}

#[test]
fn a_call_that_must_open_the_session_anew_tells_how_that_failed() {
    let round = Round::well(FAULTS, Speech::Sessions, At::Contact).listed();
    round.faulty.iter().for_each(Faulty::turn);
    round.call_all(either);
    for row in FAULTS {
        let failure = round.gateway.status_of(row.name)["last_failure"].clone();
        let stage = failure["stage"].as_str();
        // That a call's time was over says nothing of the server.
        let is_told = stage.is_some_and(|stage| ["connect", "handshake"].contains(&stage));
        assert!(is_told || failure.is_null(), "{}: {failure}", row.name);
    }
}

#[test]
fn a_refused_connection_is_told_at_once() {
    let (good, gone) = (HttpUpstream::start(), HttpUpstream::start());
    let gateway = Gateway::started(json!({ "mcp_servers": {
        "good": { "url": good.url(), "transport": "http" },
        "gone": { "url": gone.url(), "transport": "http", "timeout_ms": 20_000 },
    }}));
    gone.die();
    let error = wait_for("the end of the connection has come", || {
        let began = std::time::Instant::now();
        let error = gateway.call("gone-echo", &json!({})).expect_error(502);
        assert!(began.elapsed() < FAR_TOO_LATE, "{:?}", began.elapsed());
        // A connection whose end is still on its way is used once more.
        (error["stage"] != "answer").then_some(error)
    });
    assert_eq!((&error["server"], &error["stage"]), (&json!("gone"), &json!("connect")));
    assert_eq!(gateway.call_text("good-echo", &json!({"message": "m"})), "m");
}

#[test]
fn a_server_that_never_finishes_tls_is_told() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let talker = Faulty::start(Speech::Sessions, At::Contact, |_| Ok(Next::Close));
    let good = HttpUpstream::start();
    let gateway = Gateway::with(json!({ "mcp_servers": {
        "good": { "url": good.url(), "transport": "http" },
        "silent": {
            "url": format!("https://{}/mcp", silent.local_addr().unwrap()),
            "transport": "http", "timeout_ms": TIMEOUT_MS,
        },
        "talker": {
            "url": format!("https://127.0.0.1:{}/mcp", talker.listener.port()),
            "transport": "http", "timeout_ms": TIMEOUT_MS,
        },
    }}))
    .start();
    gateway.wait_until_well(&["good"]);
    for server in ["silent", "talker"] {
        let failure = wait_for("the failure is told", || {
            let failure = gateway.status_of(server)["last_failure"].clone();
            failure.is_object().then_some(failure)
        });
        assert_eq!(failure["stage"], "tls", "{server}: {failure}");
    }
    assert_eq!(gateway.call_text("good-echo", &json!({"message": "m"})), "m");
    assert_eq!(gateway.stop().code, Some(0));
}
