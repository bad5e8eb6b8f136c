//! Tests of framing, one for each rule.

use std::net::{IpAddr, Ipv4Addr};

use super::*;

fn scan(bytes: &[u8]) -> Result<Option<(usize, usize)>, Refusal> {
    HeadScan::default().find(bytes, 1000)
}

fn read(raw: &str) -> Result<Parsed, Refusal> {
    let limits = Limits { headers: 60, body_bytes: 1000, ..Limits::default() };
    let whole = scan(raw.as_bytes())?.expect("a whole head");
    let peer = Peer::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    parse(&raw.as_bytes()[whole.0..whole.1], &limits, peer).map_err(|rejected| rejected.refusal)
}

#[track_caller]
fn check_status(raw: &str, status: u16) {
    match read(raw) {
        Err(refusal) => assert_eq!(refusal.status, status, "{raw:?}: {}", refusal.reason),
        Ok(parsed) => panic!("{raw:?} was accepted: {parsed:?}"),
    }
}

/// A POST with these header lines beside Host.
#[track_caller]
fn check_fields(fields: &str, status: u16) {
    check_status(&format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n"), status);
}

#[track_caller]
fn fields(fields: &str) -> Parsed {
    read(&format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n")).unwrap()
}

#[test]
fn a_plain_request_is_read() {
    let parsed =
        read("POST /a%20b?c=d?e HTTP/1.1\r\nHost: h:1\r\nContent-Length: 5\r\nX:  y \r\n\r\n")
            .unwrap();
    assert_eq!(parsed.head.method, "POST");
    assert_eq!(parsed.head.path, "/a%20b");
    assert_eq!(parsed.head.query.as_deref(), Some("c=d?e"));
    assert_eq!(parsed.head.headers.get("x"), Some("y"));
    assert_eq!(parsed.body, BodyFraming::Length(5));
    assert_eq!(parsed.manner, Manner { head_only: false, http10: false, keep_alive: true });
    assert!(!parsed.expects_continue);
}

#[test]
fn the_head_is_found_wherever_it_is_cut() {
    let raw = b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\nrest";
    for cut in 0..raw.len() {
        let mut scan = HeadScan::default();
        let first = scan.find(&raw[..cut], 1000).unwrap();
        let found = first.or_else(|| scan.find(raw, 1000).unwrap());
        assert_eq!(found, Some((2, raw.len() - 4)), "cut at {cut}");
    }
}

#[test]
fn what_no_head_can_have_is_refused_at_its_byte() {
    for raw in [
        &b"GET / HTTP/1.1\n"[..],
        b"GET / HTTP/1.1\rX",
        b"GET / HTTP/1.1\r\nHost: h\r\n folded",
        b"GET / HTTP/1.1\r\nHost: h\r\n\tfolded",
        b"GET / HTTP/1.1\r\nA: \0",
        b"GET / HTTP/1.1\r\nA: \x7f",
        b"GET / HTTP/1.1\r\nA: \x0b",
        b"\x16\x03\x01\x02",
        b" GET",
        b"\n",
        b"\r\n\r\n\r\n",
    ] {
        assert_eq!(scan(raw).map_err(|r| r.status), Err(400), "{raw:?}");
    }
}

#[test]
fn a_head_may_be_as_long_as_the_bound_and_no_longer() {
    let raw = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    assert!(HeadScan::default().find(raw, raw.len()).unwrap().is_some());
    assert_eq!(HeadScan::default().find(raw, raw.len() - 1), Err(TOO_LONG));
    assert_eq!(HeadScan::default().find(&raw[..20], 19), Err(TOO_LONG));
}

#[test]
fn other_versions_are_refused() {
    check_status("PRI * HTTP/2.0\r\n\r\n", 505);
    check_status("GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505);
    check_status("GET / HTTP/1.2\r\nHost: h\r\n\r\n", 505);
    check_status("GET / HTTP/0.9\r\nHost: h\r\n\r\n", 505);
    check_status("GET / FTP/1.1\r\nHost: h\r\n\r\n", 400);
    check_status("GET / http/1.1\r\nHost: h\r\n\r\n", 400);
    check_status("GET /\r\nHost: h\r\n\r\n", 400);
    check_status("GET / HTTP/1.1 \r\nHost: h\r\n\r\n", 400);
    check_status("GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    check_status("GET / HTTP/1.10\r\nHost: h\r\n\r\n", 400);
}

#[test]
fn the_target_has_one_of_three_forms() {
    let read = |line: &str| read(&format!("{line} HTTP/1.1\r\nHost: h:80\r\n\r\n"));
    assert_eq!(read("OPTIONS *").unwrap().head.path, "*");
    assert_eq!(read("GET http://H:80/x?y").unwrap().head.path, "/x");
    assert_eq!(read("GET http://h:80").unwrap().head.path, "/");
    assert_eq!(read("GET http://h:80?y").unwrap().head.query.as_deref(), Some("y"));
    for line in [
        "GET *",
        "GET x",
        "GET http://other/",
        "GET http:///x",
        "GET https://h:80/",
        "CONNECT h:80",
        "GET /a#b",
    ] {
        assert_eq!(read(line).map(|_| ()).map_err(|r| r.status), Err(400), "{line}");
    }
    check_status("GET /\u{e9} HTTP/1.1\r\nHost: h\r\n\r\n", 400);
}

#[test]
fn host_is_needed_once() {
    check_status("GET / HTTP/1.1\r\n\r\n", 400);
    check_fields("Host: h\r\n", 400);
    check_fields("hOST: i\r\n", 400);
    check_status("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400);
    check_status("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400);
    check_status("GET / HTTP/1.1\r\nHost: u@b\r\n\r\n", 400);
    assert!(read("GET / HTTP/1.0\r\n\r\n").is_ok());
    assert!(read("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n").is_ok());
}

#[test]
fn a_length_is_digits_once() {
    check_fields("Content-Length: 5\r\nContent-Length: 5\r\n", 400);
    for length in ["", "+5", "-5", "5, 5", "0x5", "5 5", "5\t", "\u{663}"] {
        let status = if length == "5\t" { continue } else { 400 };
        check_fields(&format!("Content-Length: {length}\r\n"), status);
    }
    check_fields("Content-Length: 1001\r\n", 413);
    check_fields("Content-Length: 17592186044416\r\n", 413);
    check_fields("Content-Length: 99999999999999999999999\r\n", 413);
    assert_eq!(fields("Content-Length: 1000\r\n").body, BodyFraming::Length(1000));
    assert_eq!(fields("Content-Length: 0\r\n").body, BodyFraming::Empty);
    assert_eq!(fields("").body, BodyFraming::Empty);
}

#[test]
fn the_only_coding_is_chunked_and_alone() {
    check_fields("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400);
    check_fields("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 400);
    check_fields("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400);
    check_fields("Transfer-Encoding: gzip, chunked\r\n", 501);
    check_fields("Transfer-Encoding: chunked, chunked\r\n", 501);
    check_fields("Transfer-Encoding: identity\r\n", 501);
    check_fields("Transfer-Encoding: xchunked\r\n", 501);
    check_fields("Transfer-Encoding:\r\n", 501);
    check_status("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400);
    assert_eq!(fields("transfer-encoding: CHUNKED\r\n").body, BodyFraming::Chunked);
}

#[test]
fn names_are_tokens_and_stand_before_the_colon() {
    check_fields("Transfer-Encoding : chunked\r\n", 400);
    check_fields("A B: c\r\n", 400);
    check_fields("no colon\r\n", 400);
    check_fields(": no name\r\n", 400);
    check_fields("A\u{e9}: c\r\n", 400);
}

#[test]
fn more_fields_than_allowed_are_refused() {
    assert_eq!(fields(&"A: b\r\n".repeat(59)).head.headers.len(), 60);
    check_fields(&"A: b\r\n".repeat(60), 431);
    check_fields(&"A: b\r\n".repeat(99), 431);
}

#[test]
fn values_are_utf8() {
    let raw = b"GET / HTTP/1.1\r\nHost: h\r\nA: \xff\r\n\r\n";
    let refusal = parse(raw, &Limits::default(), Peer::Unix).unwrap_err();
    assert_eq!(refusal.refusal.status, 400);
    assert_eq!(fields("A: \u{e9}\r\n").head.headers.get("a"), Some("\u{e9}"));
}

#[test]
fn only_100_continue_may_be_expected() {
    check_fields("Expect: tea\r\n", 417);
    assert!(fields("Expect: 100-Continue\r\n").expects_continue);
    let old = read("POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").unwrap();
    assert!(!old.expects_continue);
}

#[test]
fn connections_live_as_the_version_and_the_client_say() {
    let keeps = |raw: &str| read(raw).unwrap().manner.keep_alive;
    assert!(fields("").manner.keep_alive);
    assert!(fields("Connection: Upgrade\r\nUpgrade: h2c\r\n").manner.keep_alive);
    assert!(!fields("Connection: x, Close\r\n").manner.keep_alive);
    assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
    assert!(keeps("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
}

#[test]
fn a_request_without_body_is_told_from_head() {
    assert!(read("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap().manner.head_only);
}
