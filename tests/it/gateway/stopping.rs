//! How a run ends: what is in flight finishes, streams end properly, nothing waits for ever.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::gateway::{Directory, Gateway};
use crate::support::http::{Request, try_exchange};
use crate::support::mcp_sse::SseClient;
use crate::support::modern::ModernClient;
use crate::support::upstream_http::HttpUpstream;
use crate::support::{DEADLINE, in_background, wait_until, wait_within};

fn config(upstream: &HttpUpstream, drain_ms: u64) -> Value {
    json!({
        "limits": { "drain_ms": drain_ms },
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    })
}

fn slow_call() -> Request {
    Request::post("/mcp/tools/call", &json!({"name": "slow"}))
}

/// Waits until new work is refused: by the system, or with 503.
#[track_caller]
fn wait_until_it_drains(address: &str) {
    wait_until("new work is refused", || {
        let call = Request::post("/mcp/tools/call", &json!({"name": "echo"}));
        try_exchange(address, &call).map_or(true, |answer| answer.status() == 503)
    });
}

#[test]
fn calls_in_flight_finish() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(config(&upstream, 20_000));
    let client = gateway.mcp();
    let mut rest = gateway.connect();
    rest.send(&slow_call());
    let mut mcp = client.start_call(&json!(1), "slow", &json!({}));
    upstream.wait_for_slow(2);
    gateway.signal(Signal::TERM);
    wait_until_it_drains(gateway.address());
    upstream.release_slow();
    assert_eq!(rest.answer().expect(200).json()["content"][0]["text"], "slow ");
    assert!(mcp.answer().expect(200).message()["result"].is_object());
    assert_eq!(gateway.wait_for_end().code, Some(0));
    assert!(upstream.seen().cancellations.is_empty());
}

/// A head that is arriving when the stop comes is served if its end comes soon, and told if not.
#[test]
fn a_head_that_is_arriving_is_not_cut_off_without_a_word() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(config(&upstream, 20_000));
    let half = || {
        let mut stream = TcpStream::connect(gateway.address()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: local").unwrap();
        stream
    };
    let (mut goes_on, mut stays, mut silent) = (half(), half(), gateway.connect());
    let mut slow = gateway.connect();
    slow.send(&slow_call());
    upstream.wait_for_slow(1);
    wait_until("the heads have begun", || {
        let status = gateway.get("/status").expect(200).json();
        status["limits"]["connections"]["used"].as_u64() >= Some(4)
    });
    gateway.signal(Signal::TERM);
    goes_on.write_all(b"host\r\n\r\n").unwrap();
    let answer = |stream: &mut TcpStream| {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let served = answer(&mut goes_on);
    assert!(
        served.starts_with("HTTP/1.1 200 ") || served.starts_with("HTTP/1.1 503 "),
        "{served}"
    );
    let told = answer(&mut stays);
    assert!(told.starts_with("HTTP/1.1 503 ") && told.contains("Retry-After: "), "{told}");
    assert!(silent.is_closed_by_peer(DEADLINE));
    upstream.release_slow();
    slow.answer().expect(200);
    assert_eq!(gateway.wait_for_end().code, Some(0));
}

/// Whoever uses a connection while the stop comes has every request answered, the last one with
/// word that the connection ends.
#[test]
fn a_connection_in_use_is_told_before_it_ends() {
    const CLIENTS: usize = 24;
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(config(&upstream, 20_000));
    let echo = || Request::post("/mcp/tools/call", &json!({"name": "echo"}));
    let (used, n_used) = std::sync::mpsc::channel();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (mut connection, used) = (gateway.connect(), used.clone());
            in_background(move || {
                loop {
                    let sent = connection.try_send(&echo());
                    let answer = sent.and_then(|()| connection.try_answer());
                    let answer = answer.expect("a request is not lost").expect(200);
                    used.send(()).ok();
                    if answer.header("connection") == Some("close") {
                        return;
                    }
                    // Mostly the connection is idle. A client that does not come to use it for
                    // long sees that it has ended.
                    if connection.is_closed_by_peer(Duration::from_millis(5)) {
                        return;
                    }
                }
            })
        })
        .collect();
    // All are at it.
    for _ in 0..4 * CLIENTS {
        n_used.recv_timeout(DEADLINE).unwrap();
    }
    gateway.signal(Signal::TERM);
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(gateway.wait_for_end().code, Some(0));
}

#[test]
fn an_interrupt_drains_as_well() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(config(&upstream, 20_000));
    gateway.signal(Signal::INT);
    assert_eq!(gateway.wait_for_end().code, Some(0));
}

#[test]
fn open_streams_end_properly_and_soon() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(config(&upstream, 20_000));
    let client = gateway.mcp();
    let mut stream = client.listen();
    let mut old = SseClient::open(gateway.address(), "/sse");
    let idle = gateway.connect();
    let started = Instant::now();
    gateway.signal(Signal::TERM);
    stream.expect_end();
    old.stream.expect_end();
    assert_eq!(gateway.wait_for_end().code, Some(0));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    drop(idle);
}

#[test]
fn upstream_sessions_are_ended() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(config(&upstream, 5000));
    gateway.call("echo", &json!({})).expect(200);
    assert_eq!(gateway.stop().code, Some(0));
    assert_eq!(upstream.n_deleted(), 1);
}

#[test]
fn a_hung_upstream_is_cut_off_at_the_bound() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(config(&upstream, 500));
    let mut call = gateway.connect();
    call.send(&slow_call());
    upstream.wait_for_slow(1);
    let started = Instant::now();
    gateway.signal(Signal::TERM);
    // Whoever waited is told so or cut off, but does not wait on.
    if let Ok(answer) = call.try_answer() {
        assert_eq!(answer.status(), 502, "{answer}");
    }
    assert_eq!(gateway.wait_for_end().code, Some(0));
    let elapsed = started.elapsed();
    assert!(elapsed >= Duration::from_millis(450), "{elapsed:?}");
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
}

#[test]
fn an_upstream_that_never_answers_does_not_keep_the_process() {
    let upstream = HttpUpstream::absent();
    upstream.listener.hang();
    upstream.come();
    let gateway = Gateway::with(config(&upstream, 500)).start();
    wait_until("it is asked", || upstream.listener.n_requests() > 0);
    let started = Instant::now();
    assert_eq!(gateway.stop().code, Some(0));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn a_second_signal_ends_at_once() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(config(&upstream, 60_000));
    let mut call = gateway.connect();
    call.send(&slow_call());
    upstream.wait_for_slow(1);
    gateway.signal(Signal::TERM);
    wait_until_it_drains(gateway.address());
    let started = Instant::now();
    gateway.signal(Signal::TERM);
    gateway.wait_for_end();
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[test]
fn a_stop_before_anything_was_asked_is_clean() {
    let absent = HttpUpstream::absent();
    let gateway = Gateway::with(config(&absent, 5000)).start();
    let started = Instant::now();
    assert_eq!(gateway.stop().code, Some(0));
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[test]
fn a_hang_up_of_the_terminal_ends_nothing() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(config(&upstream, 5000));
    gateway.wait_for_reload(|| gateway.signal(Signal::HUP));
    assert_eq!(gateway.call_text("echo", &json!({"message": "m"})), "m");
    gateway.signal(Signal::QUIT);
    let ended = gateway.wait_for_end();
    assert_eq!(ended.code, Some(0));
    assert!(ended.stderr.contains("nothing differs"), "{}", ended.stderr);
}

/// Many servers with long lists: to merge them once takes a debug build a second or so, and once
/// for each of them more than a minute.
struct Many {
    upstream: HttpUpstream,
    state: Directory,
}

/// To end, once what it was at is left alone. Generous: the machine may be busy.
const END_WITHIN: Duration = Duration::from_secs(12);

impl Many {
    const SERVERS: usize = 40;
    const TOOLS: usize = 400;

    fn new() -> Many {
        let names: Vec<String> = (0..Many::TOOLS).map(|n| format!("tool_{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Many { upstream: HttpUpstream::with_tools(&names), state: Directory::new() }
    }

    /// `kept`: what is kept of each server, and how.
    fn config(&self, description: &str, kept: Option<&str>) -> Value {
        let server = |n: usize| {
            let server = json!({
                "url": self.upstream.url(), "transport": "http",
                "description": description, "pin": kept.unwrap_or("off"),
            });
            (format!("server_{n}"), server)
        };
        let servers: Value =
            (0..Many::SERVERS).map(server).collect::<serde_json::Map<_, _>>().into();
        let mut config = json!({ "limits": { "drain_ms": 500 }, "mcp_servers": servers });
        if kept.is_some() {
            config["state_dir"] = json!(self.state.path().join("state"));
        }
        config
    }

    /// Waits until some of them have listed.
    #[track_caller]
    fn wait_until_some_have_listed(gateway: &Gateway) {
        wait_until("some have listed", || {
            let listed = gateway.get("/mcp/tools/list?server=server_0").expect(200).json();
            !listed["tools"].as_array().unwrap().is_empty()
        });
    }
}

#[track_caller]
fn expect_end_in_time(gateway: Gateway, during: &str) {
    let started = Instant::now();
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait_for_end().code, Some(0), "{during}");
    assert!(started.elapsed() < END_WITHIN, "{during}: {:?}", started.elapsed());
}

#[test]
fn an_end_while_lists_are_merged_is_bounded() {
    let _heavy = crate::support::heavy();
    let many = Many::new();
    let gateway = Gateway::with(many.config("", None)).start();
    wait_until("they are asked", || many.upstream.seen().n_list > 3);
    expect_end_in_time(gateway, "while lists come");
    let gateway = Gateway::with(many.config("", None)).start();
    Many::wait_until_some_have_listed(&gateway);
    // All at once list anew.
    many.upstream.add_tool("another");
    many.upstream.announce_change();
    // A thousand servers on a busy machine.
    wait_within(3 * DEADLINE, "they are asked again", || {
        (many.upstream.seen().n_list > 2 * Many::SERVERS).then_some(())
    });
    expect_end_in_time(gateway, "while all list anew");
}

#[test]
fn an_end_while_pins_and_lists_are_kept_is_bounded() {
    let _heavy = crate::support::heavy();
    let many = Many::new();
    for kept in ["warn", "enforce"] {
        let gateway = Gateway::with(many.config("", Some(kept))).start();
        Many::wait_until_some_have_listed(&gateway);
        expect_end_in_time(gateway, kept);
        // What had been kept by then is whole.
        let gateway = Gateway::with(many.config("", Some(kept))).start();
        assert!(!gateway.stderr().contains("set aside"), "{}", gateway.stderr());
        expect_end_in_time(gateway, "while what is kept is read");
    }
}

#[test]
fn an_end_in_the_middle_of_a_reload_is_bounded() {
    let _heavy = crate::support::heavy();
    let many = Many::new();
    let gateway = Gateway::with(many.config("", None)).start();
    Many::wait_until_some_have_listed(&gateway);
    gateway.write_config(&many.config("another", None));
    gateway.signal(Signal::HUP);
    expect_end_in_time(gateway, "in the middle of a reload");
}

#[test]
fn an_end_while_what_some_see_is_read_is_bounded() {
    let _heavy = crate::support::heavy();
    let many = Many::new();
    many.upstream.offer_by_capability();
    let gateway = Gateway::with(many.config("", None)).start();
    Many::wait_until_some_have_listed(&gateway);
    let client = ModernClient::to(&gateway).declaring(json!({ "sampling": {} }));
    let list = client.message(&json!(1), "tools/list", &json!({}));
    let mut connection = gateway.connect();
    connection.send(&client.post_request(&list));
    expect_end_in_time(gateway, "while what some see is read");
}

#[test]
fn an_end_while_sessions_are_tidied_up_after_is_bounded() {
    const SERVERS: usize = 12;
    let upstream = HttpUpstream::start();
    upstream.set_resources(&["test://a"]);
    let server = |n: usize| {
        (format!("server_{n}"), json!({ "url": upstream.url(), "transport": "http" }))
    };
    let servers: serde_json::Map<_, _> = (0..SERVERS).map(server).collect();
    let names: Vec<&str> = servers.keys().map(String::as_str).collect();
    let config = json!({ "limits": { "drain_ms": 500 }, "mcp_servers": servers });
    let gateway = Gateway::with(config).start();
    gateway.wait_until_well(&names);
    let client = gateway.mcp();
    for name in names {
        client.result("resources/subscribe", &json!({ "uri": format!("{name}+test://a") }));
    }
    upstream.hang_on(Some("resources/unsubscribe"));
    let n_asked = upstream.listener.n_requests();
    client.end().expect(204);
    // Each of them would hold it up for two seconds.
    wait_until("the first is asked", || upstream.listener.n_requests() > n_asked);
    expect_end_in_time(gateway, "while sessions are tidied up after");
}
