//! Inputs that no honest client sends: each is answered or closed, and nothing else suffers.

use std::net::Shutdown;

use trunkline::limits::Limits;

use crate::http::engine::TestServer;

/// What the engine does with an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// This answer, and the end of the connection.
    Refused(u16),
    /// No answer, only the end.
    Closed,
    /// One answer from the handler, so that what follows must not have become a second.
    ServedOnce,
}

use Expected::{Closed, Refused, ServedOnce};

const HOST: &str = "Host: h\r\n";

/// A POST with these fields, and these bytes behind the head.
fn post(fields: &str, behind: &str) -> Vec<u8> {
    format!("POST /echo HTTP/1.1\r\n{HOST}{fields}\r\n{behind}").into_bytes()
}

/// A request that would be seen if body bytes were read as one.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

fn framings() -> Vec<(&'static str, Vec<u8>, Expected)> {
    let chunked = "Transfer-Encoding: chunked\r\n";
    let smuggle = |fields: &str| post(fields, &format!("0\r\n\r\n{SMUGGLED}"));
    vec![
        (
            "length and coding",
            smuggle(&format!("Content-Length: 5\r\n{chunked}")),
            Refused(400),
        ),
        (
            "coding and length",
            smuggle(&format!("{chunked}Content-Length: 5\r\n")),
            Refused(400),
        ),
        ("coding twice", smuggle(&format!("{chunked}{chunked}")), Refused(400)),
        ("coding with a space", smuggle("Transfer-Encoding : chunked\r\n"), Refused(400)),
        (
            "coding after a tab line",
            smuggle("X: y\r\n\tTransfer-Encoding: chunked\r\n"),
            Refused(400),
        ),
        ("coding with VT", smuggle("Transfer-Encoding: \x0bchunked\r\n"), Refused(400)),
        ("coding gzip, chunked", smuggle("Transfer-Encoding: gzip, chunked\r\n"), Refused(501)),
        (
            "coding chunked, identity",
            smuggle("Transfer-Encoding: chunked, identity\r\n"),
            Refused(501),
        ),
        ("coding xchunked", smuggle("Transfer-Encoding: xchunked\r\n"), Refused(501)),
        ("coding in quotes", smuggle("Transfer-Encoding: \"chunked\"\r\n"), Refused(501)),
        ("empty coding", smuggle("Transfer-Encoding:\r\n"), Refused(501)),
        (
            "same length twice",
            post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
            Refused(400),
        ),
        (
            "two lengths",
            post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"),
            Refused(400),
        ),
        ("list of lengths", post("Content-Length: 5, 5\r\n", "hello"), Refused(400)),
        ("length +5", post("Content-Length: +5\r\n", "hello"), Refused(400)),
        ("length -1", post("Content-Length: -1\r\n", "hello"), Refused(400)),
        ("length 0x5", post("Content-Length: 0x5\r\n", "hello"), Refused(400)),
        ("length 5 5", post("Content-Length: 5 5\r\n", "hello"), Refused(400)),
        ("empty length", post("Content-Length: \r\n", "hello"), Refused(400)),
        ("16 TiB", post("Content-Length: 17592186044416\r\n", ""), Refused(413)),
        ("2^64", post("Content-Length: 18446744073709551616\r\n", ""), Refused(413)),
        (
            "300 digits",
            post(&format!("Content-Length: {}\r\n", "9".repeat(300)), ""),
            Refused(413),
        ),
        ("one over the bound", post("Content-Length: 100001\r\n", ""), Refused(413)),
    ]
}

fn chunkings() -> Vec<(&'static str, Vec<u8>, Expected)> {
    let chunks = |behind: &str| post("Transfer-Encoding: chunked\r\n", behind);
    vec![
        ("chunk over the bound", chunks("186a1\r\n"), Refused(413)),
        ("chunk of 2^64", chunks("10000000000000000\r\n"), Refused(413)),
        ("negative chunk", chunks("-1\r\n"), Refused(400)),
        ("chunk 0x1", chunks("0x1\r\na\r\n0\r\n\r\n"), Refused(400)),
        ("chunk without size", chunks("\r\na\r\n0\r\n\r\n"), Refused(400)),
        ("chunk with space", chunks("1 \r\na\r\n0\r\n\r\n"), Refused(400)),
        ("chunk after LF", chunks("1\na\r\n0\r\n\r\n"), Refused(400)),
        ("chunk longer than said", chunks("1\r\nab\r\n0\r\n\r\n"), Refused(400)),
        ("chunk closed by LF", chunks("1\r\na\n0\r\n\r\n"), Refused(400)),
        ("NUL in an extension", chunks("1;\0\r\na\r\n0\r\n\r\n"), Refused(400)),
        ("long extension", chunks(&format!("1;{}\r\n", "x".repeat(20_000))), Refused(413)),
        (
            "long trailer",
            chunks(&format!("0\r\nA: {}\r\n\r\n", "x".repeat(20_000))),
            Refused(431),
        ),
        ("trailer with LF", chunks("0\r\nA: b\n\r\n"), Refused(400)),
        ("body cut off", post("Content-Length: 50\r\n", "hello"), Closed),
        ("chunks cut off", chunks("5\r\nhel"), Closed),
    ]
}

fn heads() -> Vec<(&'static str, Vec<u8>, Expected)> {
    let get = |fields: &str| format!("GET / HTTP/1.1\r\n{HOST}{fields}\r\n").into_bytes();
    let line = |line: &str| format!("{line}\r\n{HOST}\r\n").into_bytes();
    vec![
        ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), Refused(505)),
        ("HTTP/2.0", line("GET / HTTP/2.0"), Refused(505)),
        ("HTTP/3", line("GET / HTTP/3.0"), Refused(505)),
        ("HTTP/1.2", line("GET / HTTP/1.2"), Refused(505)),
        ("HTTP/0.9", b"GET /\r\n\r\n".to_vec(), Refused(400)),
        ("lower-case version", line("GET / http/1.1"), Refused(400)),
        ("no version", line("GET / "), Refused(400)),
        ("two spaces", line("GET  / HTTP/1.1"), Refused(400)),
        ("tab for space", line("GET\t/ HTTP/1.1"), Refused(400)),
        ("space behind", line("GET / HTTP/1.1 "), Refused(400)),
        ("space before", line(" GET / HTTP/1.1"), Refused(400)),
        ("method with (", line("GE(T / HTTP/1.1"), Refused(400)),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), Refused(400)),
        ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec(), Refused(400)),
        ("NULs", vec![0; 100], Refused(400)),
        ("high bytes", vec![0xff; 100], Refused(400)),
        ("bare LF", b"GET / HTTP/1.1\nHost: h\n\n".to_vec(), Refused(400)),
        ("bare LF in a field", get("A: b\nC: d\r\n"), Refused(400)),
        ("bare CR in a field", get("A: b\rC: d\r\n"), Refused(400)),
        ("folded field", get("A: b\r\n c\r\n"), Refused(400)),
        ("NUL in a field", get("A: \0\r\n"), Refused(400)),
        ("DEL in a field", get("A: \x7f\r\n"), Refused(400)),
        ("ESC in a field", get("A: \x1b[2J\r\n"), Refused(400)),
        ("NUL in a name", get("A\0: b\r\n"), Refused(400)),
        ("space in a name", get("A b: c\r\n"), Refused(400)),
        ("no name", get(": c\r\n"), Refused(400)),
        ("no colon", get("abc\r\n"), Refused(400)),
        ("not UTF-8", b"GET / HTTP/1.1\r\nHost: h\r\nA: \xff\r\n\r\n".to_vec(), Refused(400)),
        ("no Host", b"GET / HTTP/1.1\r\n\r\n".to_vec(), Refused(400)),
        ("two Hosts", get("Host: i\r\n"), Refused(400)),
        ("Host with a path", b"GET / HTTP/1.1\r\nHost: h/x\r\n\r\n".to_vec(), Refused(400)),
        ("Host with a user", b"GET / HTTP/1.1\r\nHost: u@h\r\n\r\n".to_vec(), Refused(400)),
        ("another host in the target", line("GET http://i/ HTTP/1.1"), Refused(400)),
        ("target without /", line("GET x HTTP/1.1"), Refused(400)),
        ("NUL in the target", line("GET /\0 HTTP/1.1"), Refused(400)),
        ("fragment", line("GET /#x HTTP/1.1"), Refused(400)),
        ("CONNECT", line("CONNECT h:443 HTTP/1.1"), Refused(400)),
        ("Expect: tea", get("Expect: tea\r\n"), Refused(417)),
        ("101 fields", get(&"A: b\r\n".repeat(100)), Refused(431)),
        ("long value", get(&format!("A: {}\r\n", "b".repeat(40_000))), Refused(431)),
        ("long name", get(&format!("{}: b\r\n", "a".repeat(40_000))), Refused(431)),
        ("long target", line(&format!("GET /{} HTTP/1.1", "a".repeat(40_000))), Refused(431)),
        (
            "endless head",
            [b"GET / HTTP/1.1\r\nA: ".as_slice(), &[b'b'; 400_000]].concat(),
            Refused(431),
        ),
        ("empty lines", b"\r\n".repeat(1000), Refused(400)),
        ("head cut off", b"GET / HTTP/1.1\r\nHo".to_vec(), Closed),
        ("nothing", Vec::new(), Closed),
        ("upgrade", get("Connection: Upgrade, close\r\nUpgrade: h2c\r\n"), ServedOnce),
        (
            "coding in HTTP/1.0",
            b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
            Refused(400),
        ),
        (
            "more behind a close",
            [get("Connection: close\r\n"), SMUGGLED.into()].concat(),
            ServedOnce,
        ),
        ("junk behind a request", [get(""), b"\0\0\0\0".to_vec()].concat(), ServedOnce),
    ]
}

#[test]
fn hostile_inputs_are_refused_and_nobody_else_suffers() {
    let server = TestServer::start(Limits { body_bytes: 100_000, ..Limits::default() });
    let inputs = [framings(), chunkings(), heads()].concat();
    assert!(inputs.len() > 45);
    let mut served = 0;
    for (name, bytes, expected) in &inputs {
        let mut client = server.connect();
        // A refusal may come before all is sent.
        drop(std::io::Write::write_all(client.0.get_mut(), bytes));
        client.0.get_ref().shutdown(Shutdown::Write).ok();
        match (expected, client.try_head()) {
            (Refused(status), Some(reply)) => {
                assert_eq!(reply.status, *status, "{name}: {}", reply.head);
                assert!(reply.head.contains("\r\nConnection: close\r\n"), "{name}");
                let body = client.rest();
                assert!(body.starts_with(b"{\"status\":"), "{name}: {body:?}");
                assert!(
                    !body.windows(6).any(|part| part == b"Date: "),
                    "{name}: answered twice"
                );
            }
            (ServedOnce, Some(reply)) => {
                assert_eq!(reply.status, 200, "{name}");
                let rest = String::from_utf8(client.rest()).unwrap();
                assert!(!rest.contains("HTTP/1.1 200"), "{name}: {rest}");
                served += 1;
            }
            (Closed, None) => (),
            (expected, reply) => panic!("{name}: expected {expected:?}, got {reply:?}"),
        }
        server.check_alive();
        served += 1;
        assert_eq!(server.running.counters().requests, served, "{name} reached the handler");
    }
}
