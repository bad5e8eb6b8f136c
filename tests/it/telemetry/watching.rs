//! `/status/events`: each call and refusal as it happens, to whoever may know of it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::events::{Event, EventStream};
use crate::support::gateway::{Directory, Gateway, binary};
use crate::support::http::{Connection, Request};
use crate::support::upstream_http::HttpUpstream;
use crate::support::{DEADLINE, wait_until};

const ADMIN: &str = "key-of-the-admin";
const USER: &str = "key-of-the-first-user";
const OTHER: &str = "key-of-the-other-user";

fn config(upstream: &HttpUpstream, streams: usize) -> Value {
    json!({
        "limits": { "streams": streams },
        "api_keys": [
            { "name": "admin", "key": ADMIN, "admin": true },
            { "name": "user", "key": USER, "calls_per_minute": 2 },
            { "name": "other", "key": OTHER },
        ],
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    })
}

/// A gateway that has told of all that was asked of it until it was ready.
#[track_caller]
fn started(config: Value) -> Gateway {
    let gateway = Gateway::started(config);
    gateway.wait_idle();
    gateway
}

fn asked(key: &str) -> Request {
    let request = Request::get("/status/events").header("x-api-key", key);
    request.header("Accept", "text/event-stream")
}

/// A stream that has said what is told on it.
#[track_caller]
fn watch(gateway: &Gateway, key: &str) -> (EventStream, Value) {
    let mut connection = Connection::open(gateway.address());
    connection.send(&asked(key));
    let mut stream = connection.into_events().expect_open();
    let first = stream.next();
    assert_eq!(first.name, "open", "{first:?}");
    (stream, first.json())
}

fn call(gateway: &Gateway, key: &str, message: &str) -> u16 {
    let body = json!({ "name": "s-echo", "arguments": { "message": message } });
    gateway.send(&Request::post("/mcp/tools/call", &body).header("x-api-key", key)).status()
}

#[track_caller]
fn expect(event: &Event, name: &str, members: &[(&str, Value)]) {
    assert_eq!(event.name, name, "{event:?}");
    let told = event.json();
    for (member, value) in members {
        assert_eq!(told[member], *value, "{member}: {told}");
    }
}

#[test]
fn an_admin_is_told_of_each_call_and_refusal() {
    let upstream = HttpUpstream::start();
    let gateway = started(config(&upstream, 10));
    let (mut stream, first) = watch(&gateway, ADMIN);
    assert_eq!(first["everything"], true);
    assert_eq!(call(&gateway, USER, "one"), 200);
    let done = [
        ("key", json!("user")),
        ("tool", json!("s-echo")),
        ("server", json!("s")),
        ("method", json!("tools/call")),
        ("door", json!("rest")),
        ("outcome", json!("ok")),
        ("status", json!(200)),
        ("peer", json!("127.0.0.1")),
    ];
    let event = stream.next();
    expect(&event, "call", &done);
    let told = event.json();
    for member in ["at", "ms", "id", "client", "message"] {
        assert!(!told[member].is_null(), "{member}: {told}");
    }
    // A key that is not known, a path that is not, and calls that are used up.
    gateway.send(&Request::get("/status").header("x-api-key", "a-wrong-key-of-tests"));
    let wrong = [("reason", json!("wrong_key")), ("request", json!("GET /status"))];
    expect(&stream.next(), "refused", &wrong);
    gateway.send(&Request::get("/nothing").header("x-api-key", OTHER));
    let unknown = [("reason", json!("unknown_path")), ("key", json!("other"))];
    expect(&stream.next(), "refused", &unknown);
    assert_eq!(call(&gateway, USER, "two"), 200);
    expect(&stream.next(), "call", &done);
    assert_eq!(call(&gateway, USER, "three"), 429);
    expect(&stream.next(), "refused", &[("key", json!("user")), ("status", json!(429))]);
    // What never became a request.
    let mut broken = gateway.connect();
    broken.send_bytes(b"NONSENSE\r\n\r\n");
    expect(&stream.next(), "refused", &[("reason", json!("bad_request"))]);
}

#[test]
fn a_key_is_told_of_its_own_and_of_nobody_elses() {
    let upstream = HttpUpstream::start();
    let gateway = started(config(&upstream, 10));
    let (mut admin, _) = watch(&gateway, ADMIN);
    let (mut user, first) = watch(&gateway, USER);
    let (mut other, _) = watch(&gateway, OTHER);
    assert_eq!(first["everything"], false);
    call(&gateway, ADMIN, "of the admin");
    gateway.send(&Request::get("/status").header("x-api-key", "a-wrong-key-of-tests"));
    gateway.send(&Request::get("/status"));
    call(&gateway, OTHER, "of the other");
    gateway.send(&Request::get("/nothing").header("x-api-key", OTHER));
    call(&gateway, USER, "of the user");
    // All six are told, each once it has been answered, in whatever order; each key has its own.
    let key_of = |event: Event| event.json()["key"].as_str().unwrap().to_owned();
    let mut keys: Vec<String> = (0..6).map(|_| key_of(admin.next())).collect();
    keys.sort();
    assert_eq!(keys, ["", "", "admin", "other", "other", "user"]);
    expect(&user.next(), "call", &[("key", json!("user"))]);
    let mut names = [other.next(), other.next()].map(|event| {
        expect(&event, &event.name, &[("key", json!("other"))]);
        event.name
    });
    names.sort();
    assert_eq!(names, ["call", "refused"]);
    for stream in [&mut admin, &mut user, &mut other] {
        assert!(stream.is_silent_for(Duration::from_millis(200)), "there is more");
    }
}

#[test]
fn nobody_watches_who_cannot_be_told_from_others() {
    let upstream = HttpUpstream::start();
    let with_keys = started(config(&upstream, 10));
    with_keys.send(&Request::get("/status/events")).expect_error(401);
    let without = Gateway::before(&upstream.url());
    let (_stream, first) = watch(&without, "");
    assert_eq!(first["everything"], true, "whoever is on this machine");
    let forwarded = Request::get("/status/events").header("X-Forwarded-For", "192.0.2.1");
    without.send(&forwarded).expect_error(403);
    without.send(&Request::post("/status/events", &json!({}))).expect_error(405);
    without.send(&Request::get("/status/events").header("Accept", "text/html")).expect(406);
}

#[test]
fn a_stream_is_one_of_limits_streams() {
    let upstream = HttpUpstream::start();
    let gateway = started(config(&upstream, 1));
    let (stream, _) = watch(&gateway, ADMIN);
    let status = || gateway.get("/status").json();
    assert_eq!(status()["streams"], 1);
    gateway.send(&asked(ADMIN)).expect_error(503);
    // It is told after its answer, and not to whoever watches next.
    gateway.wait_idle();
    stream.hang_up();
    wait_until("the place is free", || status()["streams"] == 0);
    let (mut again, _) = watch(&gateway, ADMIN);
    // Nobody has watched in between.
    assert_eq!(call(&gateway, OTHER, "m"), 200);
    expect(&again.next(), "call", &[("key", json!("other"))]);
}

#[test]
fn streams_end_with_a_reload_and_with_the_gateway() {
    let upstream = HttpUpstream::start();
    let mut config = config(&upstream, 10);
    let gateway = started(config.clone());
    let (mut admin, _) = watch(&gateway, ADMIN);
    let (mut user, _) = watch(&gateway, USER);
    // A key that is no admin any more sees no more than its own.
    config["api_keys"][0]["admin"] = json!(false);
    gateway.reload(&config);
    admin.expect_end();
    user.expect_end();
    let (mut admin, first) = watch(&gateway, ADMIN);
    assert_eq!(first["everything"], false);
    assert_eq!(call(&gateway, OTHER, "m"), 200);
    assert_eq!(call(&gateway, ADMIN, "m"), 200);
    expect(&admin.next(), "call", &[("key", json!("admin"))]);
    gateway.signal(Signal::TERM);
    admin.expect_end();
    assert_eq!(gateway.wait_for_end().code, Some(0));
}

/// Reads the head of an answer and leaves the rest.
fn ask(socket: &mut UnixStream, request: &str) {
    socket.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
}

#[test]
fn whoever_does_not_read_is_dropped() {
    let directory = Directory::new();
    let path = directory.path().join("socket");
    let config = json!({
        "listen": format!("unix:{}", path.display()),
        "limits": { "stream_queue_bytes": 4096 },
        "mcp_servers": {},
    });
    let file = directory.path().join("config.json");
    std::fs::write(&file, config.to_string()).unwrap();
    let mut command = std::process::Command::new(binary());
    let quiet = std::process::Stdio::null;
    let mut gateway =
        command.arg("--config").arg(&file).stdin(quiet()).stderr(quiet()).spawn().unwrap();
    wait_until("it listens", || UnixStream::connect(&path).is_ok());
    let connect = || {
        let socket = UnixStream::connect(&path).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket
    };
    let mut slow = connect();
    ask(&mut slow, "GET /status/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let n_streams = || {
        let mut socket = connect();
        socket.write_all(b"GET /status HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned();
        serde_json::from_str::<Value>(&body).unwrap()["streams"].as_u64().unwrap()
    };
    // Each refusal tells as much as one may, until the kernel and the queue are full.
    let path_of_refused = "€".repeat(120);
    let refused = format!("GET /{path_of_refused} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut client = connect();
    let deadline = Instant::now() + DEADLINE;
    let mut n_sent = 0;
    while n_sent < 10 || n_streams() > 0 {
        assert!(Instant::now() < deadline, "{n_sent} events, and it is still there");
        for _ in 0..50 {
            client = connect();
            ask(&mut client, &refused);
            n_sent += 1;
        }
    }
    drop(client);
    gateway.kill().unwrap();
    gateway.wait().unwrap();
}
