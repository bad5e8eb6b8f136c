//! An answer of the engine's own names the bound that was reached, as the configuration does.

use std::time::Duration;

use trunkline::limits::Limits;

use crate::http::engine::TestServer;

fn post(fields: &str, behind: &str) -> String {
    format!("POST /echo HTTP/1.1\r\nHost: h\r\n{fields}\r\n{behind}")
}

fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
}

#[test]
fn an_answer_names_the_bound_that_was_reached() {
    let usual = Limits::default;
    let short = Duration::from_millis(50);
    let chunked = "Transfer-Encoding: chunked\r\n";
    let cases = [
        (
            Limits { head_bytes: 1024, ..usual() },
            get(&format!("A: {}\r\n", "x".repeat(2000))),
            (431, "the head is too long (limits.head_bytes is 1024)"),
        ),
        (
            Limits { headers: 10, ..usual() },
            get(&"A: b\r\n".repeat(20)),
            (431, "too many header fields (limits.headers is 10)"),
        ),
        // More than are read without an allocation.
        (
            Limits { headers: 60, ..usual() },
            get(&"A: b\r\n".repeat(100)),
            (431, "too many header fields (limits.headers is 60)"),
        ),
        (
            Limits { body_bytes: 10, ..usual() },
            post("Content-Length: 11\r\n", ""),
            (413, "the body is too long (limits.body_bytes is 10)"),
        ),
        (
            Limits { body_bytes: 10, ..usual() },
            post("Content-Length: 9999999999999999999\r\n", ""),
            (413, "the body is too long (limits.body_bytes is 10)"),
        ),
        (
            Limits { body_bytes: 10, ..usual() },
            post(chunked, "b\r\n"),
            (413, "the body is too long (limits.body_bytes is 10)"),
        ),
        (
            Limits { body_bytes: 10, ..usual() },
            post(chunked, "100000000\r\n"),
            (413, "the chunk is too long (limits.body_bytes is 10)"),
        ),
        (
            Limits { head: short, ..usual() },
            "GET / HT".to_owned(),
            (408, "the head did not arrive in time (limits.head_ms is 50)"),
        ),
        (
            Limits { body: short, ..usual() },
            post("Content-Length: 5\r\n", "x"),
            (408, "the body did not arrive in time (limits.body_ms is 50)"),
        ),
        (
            Limits { body: short, ..usual() },
            post(chunked, "5\r\nx"),
            (408, "the body did not arrive in time (limits.body_ms is 50)"),
        ),
        (
            Limits { buffered_bytes: 1000, ..usual() },
            post("Content-Length: 2000\r\n", &"x".repeat(2000)),
            (503, "too many bytes are buffered (limits.buffered_bytes is 1000)"),
        ),
    ];
    for (limits, sent, (status, named)) in cases {
        let server = TestServer::start(limits);
        let mut client = server.connect();
        client.send(sent);
        let reply = client.reply();
        let told = String::from_utf8_lossy(&reply.body);
        assert!(reply.status == status && told.contains(named), "{named}: {reply:?}");
    }
}

#[test]
fn a_connection_too_many_is_told_how_many_there_may_be() {
    let server = TestServer::start(Limits { connections: 1, ..Limits::default() });
    let mut first = server.connect();
    first.send(get("").replace("GET /", "GET /hold"));
    server.next();
    let reply = server.connect().reply();
    let told = String::from_utf8_lossy(&reply.body);
    let named = "too many connections (limits.connections is 1)";
    assert!(reply.status == 503 && told.contains(named), "{reply:?}");
    server.gate.send(()).unwrap();
    assert_eq!(first.reply().status, 200);
}
