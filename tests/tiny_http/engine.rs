//! The same handler seam on tiny_http.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use trunkline::http::{Answer, Handler, Head, Listen, Request, Responder, Running, Server};
use trunkline::limits::Limits;
use trunkline::protocol::call::PrincipalId;

use crate::support::wait_until;

struct Smoke;

impl Handler for Smoke {
    fn admit(&self, head: &Head) -> Result<Option<PrincipalId>, Answer> {
        match head.path.as_str() {
            "/denied" => Err(Answer { status: 401, headers: Vec::new(), body: b"no".to_vec() }),
            _ => Ok(None),
        }
    }

    fn handle(&self, request: Request, responder: Responder) {
        assert!(!responder.client_gone());
        match request.head.path.as_str() {
            "/panic" => panic!("on purpose"),
            "/stream" => {
                let error = responder.into_stream(200, &[], b"").unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Unsupported);
            }
            "/open" => {
                let mut open = responder.open(200, &[]).unwrap();
                open.write(&[b"one ", b"two"]).unwrap();
                open.finish().unwrap();
            }
            _ => responder.respond(200, &[("X-A", "b\r\nc")], &[&request.body]).unwrap(),
        }
    }

    fn refusal(&self, status: u16, reason: &str) -> Vec<u8> {
        format!("{status} {reason}").into_bytes()
    }
}

fn start(listen: &Listen) -> (Running, u16) {
    let limits = Limits { body_bytes: 1000, ..Limits::default() };
    let server = Server::bind(listen, Arc::new(limits)).unwrap();
    let port = server.local_port().unwrap_or(0);
    (server.start(Arc::new(Smoke), bounded(1).0).unwrap(), port)
}

fn ask(mut socket: impl Read + Write, line: &str, fields: &str, body: &str) -> (u16, String) {
    let request =
        format!("{line} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{fields}\r\n{body}");
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn requests_are_served_through_the_same_seam() {
    let (running, port) = start(&Listen::Tcp("127.0.0.1:0".parse().unwrap()));
    let ask = |line: &str, fields: &str, body: &str| {
        ask(TcpStream::connect(("127.0.0.1", port)).unwrap(), line, fields, body)
    };
    assert_eq!(ask("POST /echo", "Content-Length: 2\r\n", "hi"), (200, "hi".to_owned()));
    assert_eq!(ask("GET /open", "", ""), (200, "one two".to_owned()));
    assert_eq!(ask("GET /stream", "", "").0, 405);
    assert_eq!(ask("GET /panic", "", "").0, 500);
    assert_eq!(ask("POST /denied", "Content-Length: 2\r\n", "hi"), (401, "no".to_owned()));
    let long = "x".repeat(1001);
    assert_eq!(ask("POST /echo", "Content-Length: 1001\r\n", &long).0, 413);
    // It is counted once its thread has told of it, which may be after the answer.
    wait_until("the panic is counted", || running.counters().panics > 0);
    assert_eq!(running.counters().panics, 1);
    assert!(running.drain(Instant::now() + Duration::from_secs(5)));
}

#[test]
fn only_this_machine_is_served() {
    let listen = Listen::Tcp("0.0.0.0:0".parse().unwrap());
    let error = Server::bind(&listen, Arc::default()).unwrap_err().to_string();
    assert!(error.contains("loopback and Unix sockets only"), "{error}");
    let path = std::env::temp_dir().join(format!("trunkline-tiny-{}.sock", std::process::id()));
    let (running, _) = start(&Listen::Unix { path: path.clone(), mode: 0o660, group: None });
    let socket = UnixStream::connect(&path).unwrap();
    assert_eq!(ask(socket, "GET /echo", "", "").0, 200);
    drop(running);
    assert!(!path.exists());
}
