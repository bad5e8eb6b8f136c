//! Requests that two readers could take apart differently, or that never end: each is refused or
//! served once, and no call hidden in one reaches the server.

use serde_json::json;

use super::{Rig, SMUGGLED, WANTED, call, call_body, post};

/// What is sent, the statuses that come, and how many calls of the wanted tool are made.
struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    statuses: &'static [u16],
    n_wanted: usize,
}

fn refused(name: &'static str, bytes: Vec<u8>, status: &'static [u16]) -> Case {
    Case { name, bytes, statuses: status, n_wanted: 0 }
}

fn served(name: &'static str, bytes: Vec<u8>, statuses: &'static [u16]) -> Case {
    let n_wanted = statuses.iter().filter(|status| **status == 200).count();
    Case { name, bytes, statuses, n_wanted }
}

fn rest(lines: &str, body: &str) -> Vec<u8> {
    post("/mcp/tools/call", lines, body)
}

/// A call of the wanted tool as one chunk, with `end` behind it.
fn chunked(end: &str) -> String {
    let body = call_body(WANTED);
    format!("{:x}\r\n{body}\r\n{end}", body.len())
}

fn hidden() -> String {
    String::from_utf8(call(SMUGGLED)).unwrap()
}

fn lengths() -> Vec<Case> {
    let wanted = call_body(WANTED);
    let n = wanted.len();
    let with = |lines: String| rest(&lines, &format!("{wanted}{}", hidden()));
    vec![
        refused("one packet, 16 TiB", rest("Content-Length: 17592186044416\r\n", "x"), &[413]),
        refused("2^64", rest("Content-Length: 18446744073709551616\r\n", "x"), &[413]),
        refused("one over the bound", rest("Content-Length: 4194305\r\n", "x"), &[413]),
        refused(
            "the same length twice",
            with(format!("Content-Length: {n}\r\nContent-Length: {n}\r\n")),
            &[400],
        ),
        refused(
            "two lengths",
            with(format!("Content-Length: {n}\r\nContent-Length: 0\r\n")),
            &[400],
        ),
        refused("a list of lengths", with(format!("Content-Length: {n}, {n}\r\n")), &[400]),
        refused("+ before the length", with(format!("Content-Length: +{n}\r\n")), &[400]),
        refused("- before the length", with(format!("Content-Length: -{n}\r\n")), &[400]),
        refused("a hexadecimal length", with(format!("Content-Length: {n:#x}\r\n")), &[400]),
        refused("a space in the name", with(format!("Content-Length : {n}\r\n")), &[400]),
        // What follows a whole body is the next request, and this is none.
        served(
            "junk behind the body",
            rest(&format!("Content-Length: {n}\r\n"), &format!("{wanted}\0\0\0\0")),
            &[200, 400],
        ),
        // Another one may read no body in a GET, and take it for the next request.
        refused(
            "a call as the body of a GET",
            format!(
                "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                 Content-Length: {}\r\n\r\n{}",
                hidden().len(),
                hidden()
            )
            .into_bytes(),
            &[200],
        ),
    ]
}

fn codings() -> Vec<Case> {
    let n = call_body(WANTED).len();
    let te = "Transfer-Encoding: chunked\r\n";
    let smuggle = |lines: &str| rest(lines, &format!("0\r\n\r\n{}", hidden()));
    let close = format!("{te}Connection: close\r\n");
    vec![
        refused("length and coding", smuggle(&format!("Content-Length: {n}\r\n{te}")), &[400]),
        refused("coding and length", smuggle(&format!("{te}Content-Length: {n}\r\n")), &[400]),
        refused("coding twice", smuggle(&format!("{te}{te}")), &[400]),
        refused("gzip, chunked", smuggle("Transfer-Encoding: gzip, chunked\r\n"), &[501]),
        refused("identity", smuggle("Transfer-Encoding: identity\r\n"), &[501]),
        refused("xchunked", smuggle("Transfer-Encoding: xchunked\r\n"), &[501]),
        refused("coding after VT", smuggle("Transfer-Encoding: \x0bchunked\r\n"), &[400]),
        refused("folded coding", smuggle("Transfer-Encoding:\r\n chunked\r\n"), &[400]),
        refused("a chunk of 2^64", rest(te, "10000000000000000\r\n"), &[413]),
        refused("a chunk over the bound", rest(te, "400001\r\n"), &[413]),
        refused("a negative chunk", rest(te, "-1\r\n"), &[400]),
        refused("a chunk after a bare LF", rest(te, "1\nx\n0\n\n"), &[400]),
        refused(
            "endless chunk extensions",
            rest(te, &format!("1;{}\r\nx\r\n", "x".repeat(20_000))),
            &[413],
        ),
        refused(
            "endless trailers",
            rest(te, &chunked(&format!("0\r\n{}", "A: b\r\n".repeat(3000)))),
            &[431],
        ),
        served("chunks", rest(&close, &chunked("0\r\n\r\n")), &[200]),
        served(
            "trailers that frame",
            rest(
                &close,
                &chunked(&format!(
                    "0\r\nContent-Length: {n}\r\nTransfer-Encoding: gzip\r\n\r\n{}",
                    hidden()
                )),
            ),
            &[200],
        ),
    ]
}

fn heads() -> Vec<Case> {
    let get = |lines: &str| {
        format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n").into_bytes()
    };
    let line = |line: &str| format!("{line}\r\nHost: localhost\r\n\r\n").into_bytes();
    vec![
        refused("a folded line", get("A: b\r\n c\r\n"), &[400]),
        refused("a bare LF", get("A: b\nC: d\r\n"), &[400]),
        refused("a bare CR", get("A: b\rC: d\r\n"), &[400]),
        refused("NUL in a value", get("A: \0\r\n"), &[400]),
        refused("NUL in a name", get("A\0: b\r\n"), &[400]),
        refused("two Hosts", get("Host: localhost\r\n"), &[400]),
        refused("another host as target", line("GET http://evil/healthz HTTP/1.1"), &[400]),
        refused("101 fields", get(&"A: b\r\n".repeat(100)), &[431]),
        refused("one huge field", get(&format!("A: {}\r\n", "b".repeat(40_000))), &[431]),
        refused(
            "an endless head",
            [b"GET / HTTP/1.1\r\n".as_slice(), &b"A: bcdefgh\r\n".repeat(100_000)].concat(),
            &[431],
        ),
        refused("an endless URL", [b"GET /".as_slice(), &[b'a'; 1_000_000]].concat(), &[431]),
        refused("empty lines without end", b"\r\n".repeat(10_000), &[400]),
        refused("HTTP/2.0", line("GET /healthz HTTP/2.0"), &[505]),
        refused("HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), &[505]),
        refused("HTTP/0.9", b"GET /healthz\r\n\r\n".to_vec(), &[400]),
        refused("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), &[400]),
        refused("a body cut off", rest("Content-Length: 100\r\n", "{"), &[]),
        refused("chunks cut off", rest("Transfer-Encoding: chunked\r\n", &chunked("")), &[]),
        refused("a head cut off", b"GET /healthz HTTP/1.1\r\nHo".to_vec(), &[]),
    ]
}

#[test]
fn what_could_be_read_in_two_ways_is_refused_and_nothing_is_smuggled() {
    let rig = Rig::with(&json!({}));
    rig.attack(|rig| {
        for case in [lengths(), codings(), heads()].into_iter().flatten() {
            let before = rig.n_wanted();
            let mut hostile = rig.connect();
            // A refusal may come before all is sent.
            hostile.send(&case.bytes);
            if case.statuses.is_empty() {
                hostile.end();
            }
            let reply = hostile.reply();
            assert_eq!(reply.statuses(), case.statuses, "{}: {reply:?}", case.name);
            assert_eq!(rig.n_wanted() - before, case.n_wanted, "{}", case.name);
        }
    });
}

#[test]
fn endless_input_is_not_read_to_its_end() {
    let rig = Rig::with(&json!({}));
    rig.attack(|rig| {
        for (what, begin, more) in [
            ("a head", &b"GET / HTTP/1.1\r\n"[..], &b"A: b\r\n".repeat(10_000)[..]),
            ("a URL", b"GET /", &[b'a'; 60_000]),
            (
                "a body in chunks",
                &post("/mcp/tools/call", "Transfer-Encoding: chunked\r\n", ""),
                &[b"ea60\r\n".as_slice(), &[b' '; 60_000], b"\r\n"].concat(),
            ),
        ] {
            let mut hostile = rig.connect();
            hostile.send(begin);
            // Far more than any bound; the gateway ends it before.
            let sent = (0..2000).take_while(|_| hostile.send(more)).count();
            assert!(sent < 2000, "{what}: {sent} pieces were taken");
        }
    });
}
