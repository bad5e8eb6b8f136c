//! How often a server is asked again for what it does not give, whoever calls it meanwhile and
//! whatever it says: counted at the server.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use trunkline::config::HttpKind;
use trunkline::limits::{BACKOFF_MIN, Limits, STREAM_LASTED};
use trunkline::upstream::State;

use crate::support::figures::tries_max;
use crate::upstream::rig::*;
use crate::upstream::session::subscriptions::one;
use crate::upstream::stateless_rig::modern;
use crate::upstream::supervisor::lists_and_level::full;

const INITIALIZED_WITH_RESOURCES: &str = r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{},"resources":{"subscribe":true}},"serverInfo":{"name":"t","version":"1"}}"#;

/// A server whose shared session is lost for good once that is set: the shared one is opened
/// without capabilities. `head` is of its refusal.
fn loses_the_shared_session(head: &'static str) -> (Server, Arc<AtomicBool>) {
    let lost: Arc<AtomicBool> = Arc::default();
    let is_lost = lost.clone();
    let server = Server::start(move |seen| {
        let is_lost = is_lost.load(Ordering::SeqCst);
        match (seen.rpc().as_str(), seen.session().as_str()) {
            ("initialize", _) => {
                let is_shared = !seen.body.contains("elicitation");
                if is_shared && is_lost {
                    let (kind, what) = ("text/plain", "not now".to_owned());
                    return Reply::Body(503, head.to_owned(), kind, what);
                }
                let head = if is_shared { "shared" } else { "own" };
                let head = format!("Mcp-Session-Id: {head}\r\n");
                Reply::Body(200, head, "application/json", seen.result(INITIALIZED))
            }
            ("server/discover", _) => Reply::status(404, "no such page"),
            (_, "shared") if is_lost => Reply::status(404, "Session not found"),
            _ => well(seen),
        }
    });
    (server, lost)
}

#[test]
fn calls_over_a_clients_own_session_do_not_hasten_the_shared_one() {
    for (head, max) in [("", None), ("Retry-After: 30\r\n", Some(1))] {
        let (server, lost) = loses_the_shared_session(head);
        let rig = Rig::ready(&server);
        let anna = client("anna");
        text(rig.call_through(&anna, "echo"));
        text(rig.call());
        let counts = || ["initialize", "server/discover"].map(|method| server.count(method));
        let before = counts();
        lost.store(true, Ordering::SeqCst);
        // What finds that it is lost opens one itself, in vain.
        rig.call().unwrap_err();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(4) {
            text(rig.call_through(&anna, "echo"));
            std::thread::sleep(Duration::from_millis(2));
        }
        let max = max.unwrap_or(tries_max(began.elapsed()) + 1);
        for (after, before) in counts().into_iter().zip(before) {
            assert!(after - before <= max + 1, "{} times, not {max}", after - before);
        }
    }
}

#[test]
fn a_clients_own_session_that_its_server_forgets_is_opened_without_a_call() {
    let (last, gone) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let none = gone.clone();
    let subscribed: Arc<Mutex<Vec<usize>>> = Arc::default();
    let noted = subscribed.clone();
    let server = Server::start(move |seen| {
        let session = seen.session().parse::<usize>().ok();
        if session.is_some_and(|session| session <= none.load(Ordering::SeqCst)) {
            return Reply::status(404, "Session not found");
        }
        match seen.rpc().as_str() {
            "initialize" => {
                let is_own = seen.body.contains("elicitation");
                // The shared one is never lost.
                let add = usize::from(is_own);
                let id = if is_own { last.fetch_add(add, Ordering::SeqCst) + 1 } else { 1000 };
                let head = format!("mcp-session-id: {id}\r\n");
                let result = seen.result(INITIALIZED_WITH_RESOURCES);
                Reply::Body(200, head, "application/json", result)
            }
            "resources/list" => Reply::json(seen.result(r#"{"resources":[]}"#)),
            "resources/templates/list" => {
                Reply::json(seen.result(r#"{"resourceTemplates":[]}"#))
            }
            "resources/subscribe" => match session.unwrap_or_default() {
                // It is lost just after it was opened, and nothing but this shows that.
                2 => Reply::status(404, "Session not found"),
                id => {
                    noted.lock().unwrap().push(id);
                    Reply::json(seen.result("{}"))
                }
            },
            _ => well(seen),
        }
    });
    let rig = Rig::ready(&server);
    let (anna, who) = (client("anna"), one());
    text(rig.upstream.subscribe("a:b", &who, rig.route(Some(&anna)), &wait(5000)));
    gone.store(1, Ordering::SeqCst);
    text(rig.call_through(&anna, "echo"));
    eventually("another one is subscribed", || subscribed.lock().unwrap().contains(&3));
    let lost = server.seen().into_iter().filter(|it| it.session() == "2");
    let lost = lost.filter(|it| it.rpc() == "resources/subscribe").count();
    assert!((1..=2).contains(&lost), "{lost}");
}

#[test]
fn a_shared_session_that_its_server_forgets_is_opened_when_it_is_told_its_level() {
    let full = full(|seen| {
        let is_forgotten = seen.rpc() == "logging/setLevel" || seen.rpc() == "ping";
        (is_forgotten && seen.session() == "1").then(|| Reply::status(404, "Session not found"))
    });
    let rig = full.rig();
    rig.lists();
    rig.upstream.set_log_level("info");
    eventually("the next session has its level", || {
        let seen = full.server.seen();
        seen.iter().any(|seen| seen.rpc() == "logging/setLevel" && seen.session() == "2")
    });
}

/// When streams were asked for, and when they were answered.
type Times = Arc<Mutex<Vec<(Instant, Instant)>>>;

/// Servers of both eras that refuse their stream after `time` with that head.
fn refuse_streams(time: Duration, head: &'static str) -> [(Rig, Server, Times); 2] {
    [false, true].map(|is_modern| {
        let times = Times::default();
        let mine = times.clone();
        let server = Server::start(move |seen| {
            let is_stream = match is_modern {
                true => seen.rpc() == "subscriptions/listen",
                false => seen.method == "GET",
            };
            if !is_stream {
                return if is_modern { modern(seen) } else { well(seen) };
            }
            let asked_at = Instant::now();
            std::thread::sleep(time);
            mine.lock().unwrap().push((asked_at, Instant::now()));
            Reply::Body(503, head.to_owned(), "text/plain", "not now".to_owned())
        });
        (Rig::ready(&server), server, times)
    })
}

/// The pauses between `n` requests for a stream.
fn pauses(times: &Times, n: usize) -> Vec<Duration> {
    let until = Instant::now() + 3 * PATIENCE;
    while times.lock().unwrap().len() < n {
        assert!(Instant::now() < until, "{times:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    let times = times.lock().unwrap();
    times.windows(2).map(|pair| pair[1].0.duration_since(pair[0].1)).collect()
}

#[test]
fn a_stream_that_is_refused_late_has_not_been_well_so_long() {
    for (_rig, _server, times) in refuse_streams(STREAM_LASTED + BACKOFF_MIN, "") {
        let pauses = pauses(&times, 3);
        assert!(pauses[1] >= BACKOFF_MIN * 3 / 2, "{pauses:?}");
    }
}

#[test]
fn a_stream_is_asked_for_when_its_server_wants_to_be_asked() {
    for (_rig, _server, times) in refuse_streams(Duration::ZERO, "Retry-After: 2\r\n") {
        let pauses = pauses(&times, 2);
        assert!(pauses[0] >= Duration::from_secs(2), "{pauses:?}");
    }
}

#[test]
fn a_server_cannot_have_its_stream_asked_for_all_the_time() {
    let asked: Arc<AtomicUsize> = Arc::default();
    let count = asked.clone();
    let server = Server::start(move |seen| match seen.method.as_str() {
        "GET" => {
            count.fetch_add(1, Ordering::SeqCst);
            Reply::stream(|stream| {
                let said = r#"{"jsonrpc":"2.0","method":"notifications/x"}"#;
                stream.write_all(format!("retry: 1\ndata: {said}\n\n").as_bytes()).ok();
            })
        }
        _ => well(seen),
    });
    let _rig = Rig::ready(&server);
    let began = Instant::now();
    eventually("it is asked for again and again", || asked.load(Ordering::SeqCst) >= 4);
    let least = Duration::from_millis(2500);
    assert!(began.elapsed() >= least, "{:?}", began.elapsed());
}

#[test]
fn a_first_handshake_that_is_slow_closes_nobody_out() {
    let (is_slow, stay) = (Arc::new(AtomicBool::new(true)), Duration::from_millis(5));
    let slow = is_slow.clone();
    let server = Server::start(move |seen| {
        while seen.rpc() == "initialize" && slow.load(Ordering::SeqCst) {
            std::thread::sleep(stay);
        }
        well(seen)
    });
    let mut config = http(server.address, HttpKind::StreamableHttp);
    config.timeout = Duration::from_millis(200);
    let rig = Rig::start(config, Limits::default());
    for _ in 0..6 {
        let late = rig.call_with(&wait(200), &Sink::default()).unwrap_err().to_string();
        assert!(!late.contains("is down"), "{late}");
    }
    let status = rig.upstream.status();
    assert!(matches!(status.state, State::Starting { .. }), "{:?}", status.state);
    assert_eq!(status.failures, 0);
    is_slow.store(false, Ordering::SeqCst);
    text(rig.call());
}
