//! Clients that want to bring the gateway down, against the whole of it: a real process with a
//! scripted server behind it. Beside each attack a well-behaved client is served as usual, and
//! afterwards the process holds what it held before.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request};
use crate::support::upstream_http::HttpUpstream;
use crate::support::{DEADLINE, wait_for, wait_until};

mod contradictions;
mod floods;
mod framing;
mod json;
mod manners;
mod readers;
mod rejected;
mod resets;
mod slow;

/// The tool that the neighbour calls, and nobody else.
const NEIGHBOURS: &str = "neighbours";
/// A tool whose calls a test expects.
const WANTED: &str = "wanted";
/// A tool that is called only by a request hidden inside another one.
const SMUGGLED: &str = "smuggled";

/// Calls at once to one server: each place keeps the connection that it had.
const MAX_IN_FLIGHT: usize = 32;
/// Descriptors that may be open in addition: a refused client's, and what `/proc` itself shows.
const SPARE_DESCRIPTORS: usize = 4;
/// A round of an attack after which the process is not larger than before by more than this has
/// left nothing behind. The allocator keeps some of what it is given back, so the first rounds
/// may.
const GROWTH_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// One of so many rounds must be such a one.
const ROUNDS_MAX: usize = 6;
/// How long the end of a connection is waited for: large bodies take their time where the
/// machine is busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// An answer that takes longer is not as usual, however busy the machine is.
const WORST: Duration = Duration::from_secs(8);
/// The median may be so many times the usual one,
const TIMES_USUAL: u32 = 20;
/// or so long.
const MEDIAN_FLOOR: Duration = Duration::from_millis(400);

/// A gateway before one scripted server.
struct Rig {
    upstream: HttpUpstream,
    gateway: Gateway,
    connections_max: usize,
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Footprint {
    descriptors: usize,
    /// Of the pool, which keeps them for a while.
    pool_threads: usize,
    other_threads: usize,
    bytes: u64,
}

impl Rig {
    /// A gateway with these limits, ready.
    fn with(limits: &Value) -> Rig {
        Rig::configured(json!({ "limits": limits }))
    }

    /// A gateway with this configuration, but for its server; ready.
    fn configured(mut config: Value) -> Rig {
        let upstream = HttpUpstream::start();
        [NEIGHBOURS, WANTED, SMUGGLED].iter().for_each(|tool| upstream.add_tool(tool));
        config["mcp_servers"] = json!({ "s": { "url": upstream.url(), "transport": "http" } });
        let connections_max = config["limits"]["connections"].as_u64().unwrap_or(1024);
        let gateway = Gateway::with(config).start();
        gateway.wait_ready();
        let connections_max = usize::try_from(connections_max).unwrap();
        Rig { upstream, gateway, connections_max }
    }

    fn footprint(&self) -> Footprint {
        let process = format!("/proc/{}", self.gateway.process_id());
        let entries = |what: &str| std::fs::read_dir(format!("{process}/{what}")).unwrap();
        let names = entries("task").flatten().map(|task| {
            // A thread that has ended meanwhile has no name.
            std::fs::read_to_string(task.path().join("comm")).unwrap_or_default()
        });
        let (pool, others): (Vec<_>, Vec<_>) =
            names.filter(|name| !name.is_empty()).partition(|name| name.starts_with("http-"));
        let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kilobytes: u64 = rss.split_whitespace().next().unwrap().parse().unwrap();
        Footprint {
            descriptors: entries("fd").count(),
            pool_threads: pool.len(),
            other_threads: others.len(),
            bytes: kilobytes * 1024,
        }
    }

    /// Has as many calls at once as there may be, and cancels some of them, so that every
    /// connection to the server and every thread that stays is there.
    fn warm_up(&self) {
        let body = json!({ "name": "slow", "arguments": {} }).to_string();
        let lines = format!("Content-Length: {}\r\nConnection: close\r\n", body.len());
        let mut open: Vec<Hostile> = (0..MAX_IN_FLIGHT)
            .map(|_| {
                let mut hostile = self.connect();
                hostile.send(&post("/mcp/tools/call", &lines, &body));
                hostile
            })
            .collect();
        self.upstream.wait_for_slow(MAX_IN_FLIGHT);
        open.drain(..8).for_each(Hostile::reset);
        self.upstream.wait_for_slow(MAX_IN_FLIGHT - 8);
        self.upstream.release_slow();
        open.iter_mut().for_each(|hostile| _ = hostile.reply());
        wait_until("no call is left", || self.gateway.status_of("s")["in_flight"] == 0);
    }

    /// Runs an attack at least twice beside a well-behaved client, which must be served as
    /// usual, and checks that nothing of it stays: descriptors and threads are what they were,
    /// and a later round finds the memory that the ones before it needed.
    #[track_caller]
    fn attack(&self, attack: impl Fn(&Rig)) {
        self.warm_up();
        let mut neighbour = Neighbour::new(self);
        let usual = median((0..20).map(|_| neighbour.call()).collect());
        let before = self.footprint();
        let round = || {
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let mut beside = Neighbour::new(self);
                let over = &over;
                let served = scope.spawn(move || {
                    let mut took = vec![beside.call()];
                    while !over.load(Ordering::Relaxed) {
                        took.push(beside.call());
                        std::thread::park_timeout(Duration::from_millis(2));
                    }
                    took
                });
                {
                    // Also when the attack's own checks fail.
                    let _end = SetOnDrop(over);
                    attack(self);
                }
                check_as_usual(usual, served.join().unwrap());
            });
            self.wait_as_before(before)
        };
        let mut seen = vec![round()];
        loop {
            let now = round();
            let last = seen[seen.len() - 1];
            seen.push(now);
            if now.bytes <= last.bytes + GROWTH_BYTES_MAX {
                break;
            }
            assert!(seen.len() < ROUNDS_MAX, "it grows with every round: {before:?}, {seen:?}");
        }
        assert_eq!(self.upstream.seen().n_calls(SMUGGLED), 0, "a request was smuggled");
    }

    /// Waits until descriptors and threads are what they were.
    #[track_caller]
    fn wait_as_before(&self, before: Footprint) -> Footprint {
        let mut last = before;
        let deadline = Instant::now() + DEADLINE;
        loop {
            let now = self.footprint();
            // A thread of the pool stays for its next connection, 20 s at most.
            if now.descriptors <= before.descriptors + SPARE_DESCRIPTORS
                && now.other_threads <= before.other_threads
                && now.pool_threads <= self.connections_max
            {
                return now;
            }
            assert!(Instant::now() < deadline, "{before:?} before, {last:?} now");
            last = now;
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// One number of `/status`.
    #[track_caller]
    fn status(&self, pointer: &str) -> u64 {
        let status = self.gateway.get("/status").expect(200).json();
        status.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{status}"))
    }

    fn rejected(&self, reason: &str) -> u64 {
        self.status(&format!("/rejected/{reason}"))
    }

    fn connect(&self) -> Hostile {
        Hostile::to(self.gateway.address())
    }

    /// Sends these bytes on a connection of their own; gives all that comes until its end.
    fn send(&self, bytes: &[u8]) -> Reply {
        let mut hostile = self.connect();
        hostile.send(bytes);
        hostile.reply()
    }

    fn n_wanted(&self) -> usize {
        self.upstream.seen().n_calls(WANTED)
    }
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn median(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[took.len() / 2]
}

#[track_caller]
fn check_as_usual(usual: Duration, took: Vec<Duration>) {
    let worst = *took.iter().max().unwrap();
    let n = took.len();
    let median = median(took);
    assert!(worst < WORST, "one of {n} answers took {worst:?}");
    let most = MEDIAN_FLOOR.max(usual * TIMES_USUAL);
    assert!(median < most, "{median:?} in the median of {n}, usually {usual:?}");
}

/// A well-behaved client: one call after another on a kept connection.
struct Neighbour {
    address: String,
    connection: Connection,
    request: Request,
}

impl Neighbour {
    fn new(rig: &Rig) -> Neighbour {
        let address = rig.gateway.address().to_owned();
        let body = json!({ "name": NEIGHBOURS, "arguments": { "message": "as usual" } });
        let connection = Connection::open(&address);
        Neighbour { address, connection, request: Request::post("/mcp/tools/call", &body) }
    }

    /// How long a call took, which must succeed. An idle connection may be closed at any time,
    /// which a client answers with a new one.
    #[track_caller]
    fn call(&mut self) -> Duration {
        let begun = Instant::now();
        let answer = self.connection.try_send(&self.request);
        let answer = answer.and_then(|()| self.connection.try_answer());
        let answer = answer.unwrap_or_else(|_| {
            self.connection = Connection::open(&self.address);
            self.connection.exchange(&self.request)
        });
        let answer = answer.expect(200);
        assert_eq!(answer.json()["content"][0]["text"], "as usual", "{answer}");
        begun.elapsed()
    }
}

/// A connection that obeys nothing.
struct Hostile(TcpStream);

impl Hostile {
    #[track_caller]
    fn to(address: &str) -> Hostile {
        let stream = wait_for("a connection", || TcpStream::connect(address).ok());
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Hostile(stream)
    }

    /// Sends; false if the gateway takes no more.
    fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    /// Sends nothing more, and says so.
    fn end(&self) {
        self.0.shutdown(Shutdown::Write).ok();
    }

    /// Leaves with a reset instead of a proper end.
    fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.0, Some(Duration::ZERO)).unwrap();
    }

    /// All that comes until the gateway ends the connection, which it must.
    #[track_caller]
    fn reply(&mut self) -> Reply {
        let deadline = Instant::now() + PATIENCE;
        let mut all = Vec::new();
        let mut piece = [0; 16 * 1024];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            self.0.set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
            match self.0.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => all.extend_from_slice(&piece[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => (),
                Err(error) if crate::support::http::is_timeout(&error) => {
                    let text = String::from_utf8_lossy(&all).into_owned();
                    panic!("the connection was not ended after {:?}", Reply(text));
                }
                // A reset is an end, too.
                Err(_) => break,
            }
        }
        Reply(String::from_utf8_lossy(&all).into_owned())
    }

    /// Whether the gateway has ended the connection; what has come is added to `seen`.
    fn is_ended(&self, seen: &mut Vec<u8>) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let mut piece = [0; 4096];
        loop {
            match (&self.0).read(&mut piece) {
                Ok(0) => return true,
                Ok(n) => seen.extend_from_slice(&piece[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => (),
                Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
            }
        }
    }
}

/// What came on a connection.
struct Reply(String);

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut: String = self.0.chars().take(600).collect();
        write!(f, "{cut:?} ({} bytes)", self.0.len())
    }
}

impl Reply {
    /// The status of every answer in it.
    fn statuses(&self) -> Vec<u16> {
        let answers = self.0.split("HTTP/1.1 ").skip(1);
        answers.filter_map(|answer| answer.get(..3)?.parse().ok()).collect()
    }
}

/// A POST to `target` with these header lines in addition; `body` is sent as it is.
fn post(target: &str, lines: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\n{lines}\r\n{body}"
    )
    .into_bytes()
}

/// REST's body of a call.
fn call_body(tool: &str) -> String {
    json!({ "name": tool, "arguments": {} }).to_string()
}

/// A whole REST call, the last one on its connection.
fn last_call(tool: &str) -> Vec<u8> {
    let body = call_body(tool);
    let lines = format!("Content-Length: {}\r\nConnection: close\r\n", body.len());
    post("/mcp/tools/call", &lines, &body)
}

/// A whole REST call.
fn call(tool: &str) -> Vec<u8> {
    let body = call_body(tool);
    post("/mcp/tools/call", &format!("Content-Length: {}\r\n", body.len()), &body)
}
