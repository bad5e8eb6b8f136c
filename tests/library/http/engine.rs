//! The HTTP engine on a real port: answers, bounds, deadlines, drain.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use trunkline::http::{
    Answer, Handler, Head, Listen, Peer, Request, Responder, Running, Server, Stream,
};
use trunkline::limits::Limits;
use trunkline::protocol::call::PrincipalId;

use crate::support::wait_until;

/// Longer than anything here takes; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What a handler tells its test.
pub(crate) enum Event {
    /// A request is with its handler.
    Entered,
    /// The handler saw its client go.
    ClientGone,
    /// A connection has left the pool.
    Detached(Stream),
    /// What a write or another step in the handler ended with.
    Ended(Result<(), ErrorKind>),
}

struct TestHandler {
    events: Sender<Event>,
    gate: Receiver<()>,
}

impl TestHandler {
    fn tell(&self, event: Event) {
        // A test that does not listen does not care.
        drop(self.events.try_send(event));
    }

    /// Until the test lets one handler through.
    fn wait_at_gate(&self) {
        self.tell(Event::Entered);
        self.gate.recv_timeout(PATIENCE).ok();
    }
}

impl Handler for TestHandler {
    fn admit(&self, head: &Head) -> Result<Option<PrincipalId>, Answer> {
        match head.path.as_str() {
            "/denied" => Err(Answer {
                status: 401,
                headers: vec![("WWW-Authenticate", "Bearer".to_owned())],
                body: b"no".to_vec(),
            }),
            "/admit-panics" => panic!("on purpose"),
            _ => Ok(None),
        }
    }

    fn handle(&self, request: Request, responder: Responder) {
        let query = request.head.query.as_deref().unwrap_or("");
        let ended = match request.head.path.as_str() {
            // The body is the request's, and counted as such.
            "/echo" => {
                let headers = [("X-A", "b\r\nEvil: c")];
                responder.respond_counted(200, &headers, &[&request.body], 0)
            }
            "/peer" => responder.respond(200, &[], &[request.head.peer.to_string().as_bytes()]),
            "/big" => {
                let piece = vec![b'x'; query.parse().unwrap_or(0)];
                self.tell(Event::Entered);
                responder.respond(200, &[], &[&piece, b"end"])
            }
            "/panic" => panic!("on purpose"),
            "/panic-late" => {
                responder.respond(200, &[], &[b"fine"]).unwrap();
                panic!("on purpose");
            }
            "/drop" => return drop(responder),
            "/hold" => {
                self.wait_at_gate();
                responder.respond(200, &[], &[b"held"])
            }
            "/close" => {
                let ended = responder.respond_and_close(202, &[], &[b"bye"]);
                self.wait_at_gate();
                ended
            }
            "/wait" => {
                self.tell(Event::Entered);
                let watch = responder.client();
                let mut fds = [PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::RDHUP)];
                let ready = poll(&mut fds, Some(&Timespec { tv_sec: 10, tv_nsec: 0 }));
                assert!(ready.unwrap() == 1 && responder.client_gone());
                return self.tell(Event::ClientGone);
            }
            "/open" => responder.open(200, &[]).and_then(|mut open| {
                open.write(&[b"one ", b"two "])?;
                open.write(&[])?;
                open.write(&[b"three"])?;
                open.finish()
            }),
            "/open-half" => {
                responder.open(200, &[]).and_then(|mut open| open.write(&[b"half"]))
            }
            "/stream" => responder
                .into_stream(200, &[("Content-Type", "text/event-stream")], b": first\n\n")
                .map(|stream| self.tell(Event::Detached(stream))),
            _ => responder.respond(200, &[], &[b"hello"]),
        };
        self.tell(Event::Ended(ended.map_err(|error| error.kind())));
    }

    fn refusal(&self, status: u16, reason: &str) -> Vec<u8> {
        format!("{{\"status\":{status},\"error\":\"{reason}\"}}").into_bytes()
    }
}

/// A server on a free port, with a handler that does as the path says.
pub(crate) struct TestServer {
    pub(crate) running: Running,
    pub(crate) port: u16,
    pub(crate) events: Receiver<Event>,
    pub(crate) gate: Sender<()>,
}

impl TestServer {
    pub(crate) fn start(limits: Limits) -> TestServer {
        TestServer::listen(&Listen::Tcp("127.0.0.1:0".parse().unwrap()), limits)
    }

    fn listen(listen: &Listen, limits: Limits) -> TestServer {
        let server = Server::bind(listen, Arc::new(limits)).unwrap();
        let port = server.local_port().unwrap_or(0);
        let (tell, events) = bounded(1000);
        let (open_gate, gate) = bounded(1000);
        let (stop, _) = bounded(1);
        let handler = Arc::new(TestHandler { events: tell, gate });
        let running = server.start(handler, stop).unwrap();
        TestServer { running, port, events, gate: open_gate }
    }

    pub(crate) fn connect(&self) -> Client {
        let socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Client(BufReader::new(socket))
    }

    /// A well-behaved request on a connection of its own.
    #[track_caller]
    pub(crate) fn check_alive(&self) {
        let reply = self.connect().get("/hello");
        assert_eq!((reply.status, reply.body.as_slice()), (200, &b"hello"[..]));
    }

    #[track_caller]
    pub(crate) fn next(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("the handler tells something")
    }

    /// Until `count` handlers have begun.
    #[track_caller]
    fn entered(&self, count: usize) {
        let mut left = count;
        while left > 0 {
            if let Event::Entered = self.next() {
                left -= 1;
            }
        }
    }

    #[track_caller]
    fn eventually(&self, what: &str, is_so: impl Fn(&TestServer) -> bool) {
        eventually(what, || is_so(self));
    }
}

/// Waits until a condition holds.
#[track_caller]
pub(crate) fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

pub(crate) struct Client<S = TcpStream>(pub(crate) BufReader<S>);

impl<S: Read + Write> Client<S> {
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    #[track_caller]
    pub(crate) fn get(&mut self, target: &str) -> Reply {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        self.reply()
    }

    #[track_caller]
    fn post(&mut self, target: &str, body: &[u8]) -> Reply {
        let length = body.len();
        self.send(format!(
            "POST {target} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n"
        ));
        self.send(body);
        self.reply()
    }

    /// A head, or nothing at the connection's end.
    pub(crate) fn try_head(&mut self) -> Option<Reply> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match self.0.read_line(&mut head) {
                Ok(0) => return None,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Ok(_) => (),
                Err(error) => panic!("no answer: {error}"),
            }
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Some(Reply { status, head, body: Vec::new() })
    }

    #[track_caller]
    fn head(&mut self) -> Reply {
        self.try_head().expect("an answer")
    }

    #[track_caller]
    pub(crate) fn reply(&mut self) -> Reply {
        let mut reply = self.head();
        if let Some(length) = reply.field("Content-Length") {
            reply.body = vec![0; length.parse().unwrap()];
            self.0.read_exact(&mut reply.body).unwrap();
        } else if reply.field("Transfer-Encoding").is_some() {
            while let Some(chunk) = self.chunk() {
                reply.body.extend(chunk);
            }
        }
        reply
    }

    #[track_caller]
    fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let size = usize::from_str_radix(line.trim_end(), 16).expect("a chunk's size");
        let mut data = vec![0; size + 2];
        self.0.read_exact(&mut data).unwrap();
        assert_eq!(data.split_off(size), b"\r\n");
        (size > 0).then_some(data)
    }

    /// Everything to the connection's end, which must come.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => rest,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => rest,
            Err(error) => panic!("not closed: {error}"),
        }
    }
}

fn short() -> Limits {
    let millis = Duration::from_millis;
    Limits {
        head: millis(80),
        body: millis(80),
        idle: millis(80),
        write: millis(80),
        ..Limits::default()
    }
}

#[test]
fn a_connection_serves_many_requests_in_order() {
    let server = TestServer::start(Limits::default());
    let mut client = server.connect();
    for body in [&b"one"[..], b"", &[7; 3000], &[8; 300_000]] {
        let reply = client.post("/echo", body);
        assert_eq!((reply.status, reply.body.as_slice()), (200, body));
        assert!(reply.field("Date").is_some() && reply.field("Evil").is_none());
    }
    assert_eq!(client.get("/peer").body, b"127.0.0.1");
    assert_eq!(server.running.counters().accepted, 1);
    // As one packet, with chunks between lengths, and cut anywhere.
    let piped = "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\na\
                 POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
                 1\r\nb\r\n0\r\n\r\n\r\nGET /hello HTTP/1.1\r\nHost: h\r\n\r\n";
    for cut in 0..piped.len() {
        let (first, second) = piped.split_at(cut);
        client.send(first);
        client.send(second);
        for expected in [&b"a"[..], b"b", b"hello"] {
            assert_eq!(client.reply().body, expected, "cut at {cut}");
        }
    }
}

#[test]
fn a_body_that_comes_with_the_next_request_leaves_that_whole() {
    let server = TestServer::start(Limits::default());
    let mut client = server.connect();
    let body = vec![b'y'; 100_000];
    let mut wire = b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n".to_vec();
    wire.extend(&body);
    wire.extend(b"GET /hello HTTP/1.1\r\nHost: h\r\n\r\n");
    client.send(&wire);
    assert_eq!(client.reply().body, body);
    assert_eq!(client.reply().body, b"hello");
}

#[test]
fn head_has_no_body_and_http10_closes_unless_asked() {
    let server = TestServer::start(Limits::default());
    let mut client = server.connect();
    client.send("HEAD /hello HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.head().field("Content-Length"), Some("5"));
    client.send("HEAD /open HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.head().field("Transfer-Encoding"), Some("chunked"));
    client.send("GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let reply = client.reply();
    assert_eq!(
        (reply.field("Connection"), reply.body.as_slice()),
        (Some("keep-alive"), &b"hello"[..])
    );
    client.send("GET /hello HTTP/1.0\r\n\r\n");
    assert_eq!(client.reply().field("Connection"), Some("close"));
    assert!(client.rest().is_empty());
    let mut client = server.connect();
    client.send("GET /open HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(client.head().field("Connection"), Some("close"));
    assert_eq!(client.rest(), b"one two three");
    let mut client = server.connect();
    client.send("GET /hello HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_eq!(client.reply().body, b"hello");
    assert!(client.rest().is_empty());
}

#[test]
fn an_open_answer_keeps_the_connection_only_when_it_was_finished() {
    let server = TestServer::start(Limits::default());
    let mut client = server.connect();
    assert_eq!(client.get("/open").body, b"one two three");
    assert_eq!(client.get("/hello").body, b"hello");
    client.send("GET /open-half HTTP/1.1\r\nHost: h\r\n\r\n");
    client.head();
    assert_eq!(client.rest(), b"4\r\nhalf\r\n");
}

#[test]
fn a_bug_in_one_request_spares_the_next() {
    let server = TestServer::start(Limits::default());
    for path in ["/panic", "/drop"] {
        let mut client = server.connect();
        let reply = client.get(path);
        assert_eq!((reply.status, reply.field("Connection")), (500, Some("close")), "{path}");
        assert!(client.rest().is_empty());
    }
    let mut client = server.connect();
    assert_eq!(client.get("/panic-late").body, b"fine");
    assert!(client.rest().is_empty());
    let mut client = server.connect();
    client.send("POST /admit-panics HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n");
    assert_eq!(client.reply().status, 500);
    server.check_alive();
    // A panic is counted once its thread has told of it, which may be after the answer.
    wait_until("the panics are counted", || server.running.counters().panics >= 3);
    assert_eq!(server.running.counters().panics, 3);
}

#[test]
fn an_answer_that_closes_is_whole_before_its_handler_ends() {
    let server = TestServer::start(Limits::default());
    let mut client = server.connect();
    let reply = client.get("/close");
    assert_eq!((reply.status, reply.body.as_slice()), (202, &b"bye"[..]));
    assert!(client.rest().is_empty());
    server.entered(1);
    server.gate.send(()).unwrap();
}

#[test]
fn a_client_is_asked_for_its_body_only_when_it_is_admitted() {
    let server = TestServer::start(Limits::default());
    let expect = "HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let mut client = server.connect();
    client.send(format!("POST /echo {expect}"));
    assert_eq!(client.head().status, 100);
    client.send("body");
    assert_eq!(client.reply().body, b"body");
    // Whole already: nobody waits.
    client.send(format!("POST /echo {expect}body"));
    assert_eq!(client.reply().status, 200);
    client.send(format!("POST /denied {expect}"));
    let reply = client.reply();
    assert_eq!((reply.status, reply.field("WWW-Authenticate")), (401, Some("Bearer")));
    assert!(client.rest().is_empty());
    // Without `Expect`, what is on its way is not read either.
    let mut client = server.connect();
    client
        .send("POST /denied HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbo");
    assert_eq!(client.reply().status, 401);
    assert!(client.rest().is_empty());
}

#[test]
fn many_connections_at_once_are_all_served() {
    let server = TestServer::start(Limits::default());
    for count in [64, 100, 300] {
        let mut clients: Vec<_> = (0..count).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.send("GET /hello HTTP/1.1\r\nHost: h\r\n\r\n");
        }
        for client in &mut clients {
            assert_eq!(client.reply().body, b"hello");
        }
    }
    server.eventually("all closed", |server| server.running.counters().open == 0);
    // Threads are used again.
    assert!(server.running.counters().threads <= 464);
}

#[test]
fn half_sent_requests_hold_nobody_else() {
    let server = TestServer::start(Limits::default());
    let mut held = Vec::new();
    for _ in 0..100 {
        let mut client = server.connect();
        client.send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf");
        held.push(client);
    }
    let begun = Instant::now();
    server.check_alive();
    assert!(begun.elapsed() < Duration::from_secs(1));
    for client in &mut held {
        client.send(" more");
        assert_eq!(client.reply().body, b"half more");
    }
}

#[test]
fn slow_heads_and_bodies_end_at_their_total_deadlines() {
    let server = TestServer::start(short());
    for begin in [
        "GET /hello HTTP/1.1\r\nX: ",
        "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n",
    ] {
        let mut client = server.connect();
        let begun = Instant::now();
        client.send(begin);
        // Each byte comes long before the deadline, but all together do not.
        let mut dripper = client.0.get_ref().try_clone().unwrap();
        let answered = std::thread::scope(|scope| {
            let (stop, stopped) = bounded::<()>(0);
            scope.spawn(move || {
                while stopped
                    .recv_timeout(Duration::from_millis(10))
                    .is_err_and(|e| e.is_timeout())
                {
                    if dripper.write_all(b"a").is_err() {
                        break;
                    }
                }
            });
            let reply = client.reply();
            drop(stop);
            (reply.status, begun.elapsed())
        });
        assert_eq!(answered.0, 408, "{begin:?}");
        assert!(answered.1 >= short().head && answered.1 < Duration::from_secs(2));
    }
    server.check_alive();
}

#[test]
fn silent_connections_are_closed_without_a_word() {
    let server = TestServer::start(short());
    let mut fresh = server.connect();
    let mut used = server.connect();
    used.get("/hello");
    assert!(fresh.rest().is_empty());
    assert!(used.rest().is_empty());
}

#[test]
fn readers_that_never_read_cost_nobody_else() {
    let server =
        TestServer::start(Limits { write: Duration::from_millis(300), ..Limits::default() });
    let mut stalled = Vec::new();
    for _ in 0..8 {
        let mut client = server.connect();
        client.send("GET /big?20000000 HTTP/1.1\r\nHost: h\r\n\r\n");
        stalled.push(client);
    }
    let mut begun = Instant::now();
    let (mut entered, mut cut) = (0, 0);
    while cut < 8 {
        match server.next() {
            Event::Entered => {
                entered += 1;
                if entered == 8 {
                    begun = Instant::now();
                    server.check_alive();
                    assert!(begun.elapsed() < Duration::from_millis(250));
                }
            }
            Event::Ended(Err(kind)) => {
                assert_eq!(kind, ErrorKind::TimedOut);
                cut += 1;
            }
            Event::Ended(Ok(())) | Event::ClientGone | Event::Detached(_) => (),
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(3));
    let reply = server.connect().get("/big?20000000");
    assert_eq!(reply.body.len(), 20_000_003);
    assert!(reply.body.ends_with(b"xend"));
}

#[test]
fn a_full_pool_closes_the_longest_idle_connection_before_it_refuses() {
    let server = TestServer::start(Limits { connections: 3, ..Limits::default() });
    let mut clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.get("/hello");
        server.eventually("idle", |server| {
            let counters = server.running.counters();
            counters.idle == counters.open
        });
    }
    server.check_alive();
    assert!(clients[0].rest().is_empty());
    server.eventually("room", |server| server.running.counters().open < 3);
    let mut fourth = server.connect();
    for client in clients[1..].iter_mut().chain([&mut fourth]) {
        client.send("GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    server.entered(3);
    let mut refused = server.connect();
    refused.send("GET /hello HTTP/1.1\r\nHost: h\r\n\r\n");
    let reply = refused.reply();
    assert_eq!((reply.status, reply.field("Retry-After")), (503, Some("1")));
    assert!(refused.rest().is_empty());
    let counters = server.running.counters();
    assert_eq!((counters.open, counters.refused, counters.evicted), (3, 1, 1));
    for client in clients[1..].iter_mut().chain([&mut fourth]) {
        server.gate.send(()).unwrap();
        client.send("");
    }
    for client in clients[1..].iter_mut().chain([&mut fourth]) {
        assert_eq!(client.reply().body, b"held");
    }
    server.eventually("idle", |server| server.running.counters().idle > 0);
    server.check_alive();
}

#[test]
fn a_client_that_goes_is_noticed_at_once() {
    let server = TestServer::start(Limits::default());
    let mut client = server.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
    server.entered(1);
    let begun = Instant::now();
    drop(client);
    assert!(matches!(server.next(), Event::ClientGone));
    assert!(begun.elapsed() < Duration::from_millis(250));
    server.check_alive();
}

#[test]
fn bodies_share_one_budget() {
    let server = TestServer::start(Limits { buffered_bytes: 100_000, ..Limits::default() });
    let mut first = server.connect();
    first.send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 90000\r\n\r\n");
    first.send(vec![b'a'; 80_000]);
    server.eventually("80,000 bytes", |s| s.running.counters().buffered_bytes >= 80_000);
    let mut second = server.connect();
    second.send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 90000\r\n\r\n");
    second.send(vec![b'b'; 90_000]);
    assert_eq!(second.reply().status, 503);
    first.send(vec![b'a'; 10_000]);
    assert_eq!(first.reply().body.len(), 90_000);
    server.eventually("all given back", |s| s.running.counters().buffered_bytes == 0);
    assert_eq!(server.connect().post("/echo", &[b'c'; 90_000]).status, 200);
}

#[test]
fn a_stream_leaves_the_pool() {
    let server = TestServer::start(Limits { connections: 1, ..Limits::default() });
    let mut client = server.connect();
    client.send("GET /stream HTTP/1.1\r\nHost: h\r\n\r\n");
    let Event::Detached(stream) = server.next() else { panic!("no stream") };
    let reply = client.head();
    assert_eq!(reply.field("Content-Type"), Some("text/event-stream"));
    assert_eq!(reply.field("Connection"), Some("close"));
    server.eventually("room", |server| server.running.counters().open == 0);
    server.check_alive();
    assert!(!stream.client_gone());
    stream.write_now(&[std::io::IoSlice::new(b"data: x\n\n")]).unwrap();
    drop(stream);
    assert_eq!(client.rest(), b": first\n\ndata: x\n\n");
}

#[test]
fn a_drain_ends_idle_connections_and_lets_requests_in_work_be_answered() {
    let server = TestServer::start(Limits::default());
    let mut idle = server.connect();
    idle.get("/hello");
    let mut fresh = server.connect();
    let mut at_work = server.connect();
    at_work.send("GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    server.entered(1);
    server.eventually("accepted", |server| server.running.counters().accepted == 3);
    // Long enough for connections that were used a moment ago (limits::DRAINED_IDLE).
    assert!(!server.running.drain(Instant::now() + Duration::from_secs(2)));
    assert!(idle.rest().is_empty());
    assert!(fresh.rest().is_empty());
    assert!(TcpStream::connect(("127.0.0.1", server.port)).is_err());
    server.gate.send(()).unwrap();
    let reply = at_work.reply();
    assert_eq!(
        (reply.field("Connection"), reply.body.as_slice()),
        (Some("close"), &b"held"[..])
    );
    drop(at_work);
    assert!(server.running.drain(Instant::now() + PATIENCE));
    assert_eq!(server.running.counters().open, 0);
}

#[test]
fn a_stalled_reader_does_not_hold_the_end_up() {
    let server = TestServer::start(Limits::default());
    let mut stalled = server.connect();
    stalled.send("GET /big?20000000 HTTP/1.1\r\nHost: h\r\n\r\n");
    server.entered(1);
    let begun = Instant::now();
    assert!(!server.running.drain(Instant::now() + Duration::from_millis(30)));
    drop(server);
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_server_may_listen_on_a_socket_file() {
    let path = std::env::temp_dir().join(format!("trunkline-it-{}.sock", std::process::id()));
    let server = TestServer::listen(
        &Listen::Unix { path: path.clone(), mode: 0o660, group: None },
        Limits::default(),
    );
    let mut client = Client(BufReader::new(UnixStream::connect(&path).unwrap()));
    assert_eq!(client.get("/peer").body, Peer::Unix.to_string().as_bytes());
    assert_eq!(client.post("/echo", &[b'z'; 500_000]).body.len(), 500_000);
    drop(server);
    assert!(!path.exists());
}

/// In a process of its own, because the bound on descriptors is the process's.
#[test]
fn accepting_outlives_a_lack_of_descriptors() {
    const INSIDE: &str = "TRUNKLINE_TEST_WITHOUT_DESCRIPTORS";
    if std::env::var_os(INSIDE).is_none() {
        let name = "http::engine::accepting_outlives_a_lack_of_descriptors";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name]).env(INSIDE, "1").output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && told.contains("1 passed"), "{told}");
        return;
    }
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let server = TestServer::start(Limits::default());
    let few = Rlimit { current: Some(64), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, few).unwrap();
    let address = ("127.0.0.1", server.port);
    let mut clients: Vec<_> =
        std::iter::repeat_with(|| TcpStream::connect(address)).map_while(Result::ok).collect();
    assert!(clients.len() > 10);
    // There are no descriptors now, and connections wait that cannot be accepted.
    clients.truncate(clients.len() / 2);
    server.check_alive();
    drop(clients);
    server.check_alive();
}
