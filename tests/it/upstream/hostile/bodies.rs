//! Answers whose head is fine and whose body is not.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};

use super::faulty::{At, Peer, Speech};
use super::rounds::{Holdings, Round, Row, SMALL_BOUND};
use crate::support::listener::Next;
use crate::support::upstream_http::respond;

const JSON: &str = "application/json";

fn json_answer(peer: &mut Peer<'_>, body: &str) -> io::Result<Next> {
    peer.answer("200 OK", JSON, body)
}

fn begin(peer: &mut Peer<'_>, length: usize) -> io::Result<()> {
    peer.write(&format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\nContent-Length: {length}\r\n\r\n"
    ))
}

fn begin_chunks(peer: &mut Peer<'_>) -> io::Result<()> {
    peer.write(&format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\nTransfer-Encoding: chunked\r\n\r\n"
    ))
}

const FAULTS: &[Row] = &[
    Row {
        name: "html",
        status: 502,
        fault: |peer| {
            peer.answer("200 OK", "text/html", "<html><body>Welcome to the hotel</body></html>")
        },
    },
    Row {
        name: "html_as_json",
        status: 502,
        fault: |peer| json_answer(peer, "<html><body>Welcome to the hotel</body></html>"),
    },
    Row {
        name: "wrong_type",
        status: 502,
        fault: |peer| {
            let body = peer.result("{}");
            peer.answer("200 OK", "text/plain\t; \"\u{e9}", &body)
        },
    },
    Row {
        name: "no_type",
        status: 502,
        fault: |peer| {
            let body = peer.result("{}");
            respond(peer.out, "200 OK", &[], &body)
        },
    },
    Row {
        name: "accepted",
        status: 502,
        fault: |peer| respond(peer.out, "202 Accepted", &[], ""),
    },
    Row {
        name: "no_content",
        status: 502,
        fault: |peer| {
            peer.write("HTTP/1.1 204 No Content\r\n\r\n")?;
            Ok(Next::Keep)
        },
    },
    Row { name: "empty", status: 502, fault: |peer| json_answer(peer, "") },
    Row {
        name: "wrong_id",
        status: 502,
        fault: |peer| {
            json_answer(peer, r#"{"jsonrpc":"2.0","id":123456789,"result":{"content":[]}}"#)
        },
    },
    Row {
        name: "no_id",
        status: 502,
        fault: |peer| json_answer(peer, r#"{"jsonrpc":"2.0","result":{"content":[]}}"#),
    },
    Row {
        name: "null_id",
        status: 502,
        fault: |peer| {
            json_answer(
                peer,
                r#"{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"no\u0000\u001b[2J"}}"#,
            )
        },
    },
    Row {
        name: "no_object",
        status: 502,
        fault: |peer| {
            let body = peer.result("[1,2]");
            json_answer(peer, &body)
        },
    },
    Row {
        name: "result_and_error",
        status: 502,
        fault: |peer| {
            let body = peer.result(r#"{},"error":{"code":1,"message":"both"}"#);
            json_answer(peer, &body)
        },
    },
    Row {
        name: "half_json",
        status: 502,
        fault: |peer| {
            let body = peer.result(r#"{"content":[{"type":"te"#);
            json_answer(peer, &body[..body.len() - 1])
        },
    },
    Row {
        name: "not_utf8",
        status: 502,
        fault: |peer| {
            begin(peer, 4)?;
            io::Write::write_all(peer.out, b"\"\xff\xfe\"")?;
            Ok(Next::Keep)
        },
    },
    Row {
        name: "half_a_body",
        status: 502,
        fault: |peer| {
            begin(peer, 1000)?;
            peer.write(r#"{"jsonrpc":"2.0","#)?;
            Ok(Next::Close)
        },
    },
    Row {
        name: "half_a_chunk",
        status: 502,
        fault: |peer| {
            begin_chunks(peer)?;
            peer.write("100\r\n{\"jsonrpc\":")?;
            Ok(Next::Close)
        },
    },
    Row {
        name: "no_last_chunk",
        status: 502,
        fault: |peer| {
            let body = peer.result("{}");
            begin_chunks(peer)?;
            peer.write(&format!("{:x}\r\n{body}\r\n", body.len()))?;
            Ok(Next::Close)
        },
    },
    Row {
        name: "hangs_in_body",
        status: 504,
        fault: |peer| {
            begin(peer, 1000)?;
            peer.write(r#"{"jsonrpc":"2.0","#)?;
            peer.hang()
        },
    },
    Row {
        name: "slow_body",
        status: 504,
        fault: |peer| {
            begin(peer, 1000)?;
            peer.flood(" ", Duration::from_millis(100))
        },
    },
    Row {
        name: "endless_body",
        status: 502,
        fault: |peer| {
            peer.write(&format!("HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\n\r\n"))?;
            peer.flood(&" ".repeat(16 * 1024), Duration::ZERO)
        },
    },
    Row {
        name: "endless_chunks",
        status: 502,
        fault: |peer| {
            begin_chunks(peer)?;
            peer.flood(&format!("4000\r\n{}\r\n", " ".repeat(0x4000)), Duration::ZERO)
        },
    },
    Row {
        name: "chunk_extension",
        status: 502,
        fault: |peer| {
            begin_chunks(peer)?;
            peer.write("1;")?;
            peer.flood(&"x".repeat(16 * 1024), Duration::ZERO)
        },
    },
    Row {
        name: "declared_too_large",
        status: 502,
        fault: |peer| {
            begin(peer, SMALL_BOUND + 1)?;
            peer.hang()
        },
    },
    Row {
        name: "deep",
        status: 502,
        fault: |peer| {
            let depth = 200_000;
            let body =
                peer.result(&format!("{{\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth)));
            json_answer(peer, &body)
        },
    },
    Row {
        name: "a_batch_of_strangers",
        status: 502,
        fault: |peer| {
            let one = r#"{"jsonrpc":"2.0","id":99999999,"result":{}}"#;
            json_answer(peer, &format!("[{}]", vec![one; 10_000].join(",")))
        },
    },
];

fn calls_are_answered(speech: Speech, statuses: fn(&Row) -> Vec<u16>) {
    let round = Round::start(FAULTS, speech, At::Call).listed();
    round.call_all(statuses);
    let holdings = Holdings::of(&round.gateway);
    for _ in 0..2 {
        round.call_all(statuses);
    }
    holdings.are_back(&round.gateway, FAULTS.len());
}

#[test]
fn a_fault_in_a_body_is_one_clear_error() {
    calls_are_answered(Speech::Sessions, |row| vec![row.status]);
}

#[test]
fn so_it_is_without_sessions() {
    calls_are_answered(Speech::Modern, |row| vec![row.status]);
}

#[test]
fn over_http_sse_a_body_is_passed_over_and_the_answer_missed() {
    calls_are_answered(Speech::HttpSse, |_| vec![502, 504]);
}

#[test]
fn a_fault_at_first_contact_or_in_a_list_is_told_and_costs_nobody_else() {
    for speech in [Speech::Sessions, Speech::Modern] {
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

#[test]
fn an_answer_with_anothers_session_changes_nothing() {
    const ROWS: &[Row] = &[Row {
        name: "other",
        status: 200,
        fault: |peer| {
            let body = peer.result(r#"{"content":[{"type":"text","text":"well"}]}"#);
            let headers = [("Content-Type", JSON), ("Mcp-Session-Id", "of-somebody-else")];
            respond(peer.out, "200 OK", &headers, &body)
        },
    }];
    let round = Round::start(ROWS, Speech::Sessions, At::Call).listed();
    let before = round.gateway.status_of("other")["sessions"].clone();
    for _ in 0..3 {
        assert_eq!(round.gateway.call_text("other-echo", &json!({})), "well");
    }
    assert_eq!(round.gateway.status_of("other")["sessions"], before);
}

/// A large result within the bounds passes whole, however deep it is.
#[test]
fn a_deep_result_within_the_bound_of_depth_passes() {
    const ROWS: &[Row] = &[Row {
        name: "deep",
        status: 200,
        fault: |peer| {
            let depth = 100;
            let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            let body =
                peer.result(&format!(r#"{{"content":[],"structuredContent":{{"x":{deep}}}}}"#));
            json_answer(peer, &body)
        },
    }];
    let round = Round::start(ROWS, Speech::Sessions, At::Call).listed();
    let result = round.gateway.call("deep-echo", &json!({})).expect(200);
    let mut value: Value = result.json()["structuredContent"]["x"].take();
    let mut depth = 0;
    while let Some(inner) = value.get_mut(0).map(Value::take) {
        value = inner;
        depth += 1;
    }
    assert_eq!(depth, 99);
}
