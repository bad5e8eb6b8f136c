//! A server that is down: its calls fail at once and cost nothing, and it is used again as soon
//! as it is back; what is merely slow is not taken for down.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::gateway::{Directory, Gateway, scripted_child};
use crate::support::http::{Connection, Request, Response};
use crate::support::mcp::McpClient;
use crate::support::modern::ModernClient;
use crate::support::stopwatch::Stopwatch;
use crate::support::upstream_http::HttpUpstream;
use crate::support::upstream_sse::SseUpstream;
use crate::support::wait_for;

const CALL: &str = "/mcp/tools/call";
/// Much longer than a refusal takes, and much shorter than any attempt to reach a server.
const AT_ONCE: Duration = Duration::from_secs(1);

fn is_down(gateway: &Gateway) -> bool {
    gateway.status_of("s")["state"] == "down"
}

/// Calls until the server is known to be down; gives the first refusal.
#[track_caller]
fn wait_until_down(gateway: &Gateway) -> Response {
    wait_for("calls are told that it is down", || {
        let answer = gateway.call("echo", &json!({})).expect(502);
        answer.text().contains(" is down since ").then_some(answer)
    })
}

/// Waits until its supervisor leaves it alone for long.
#[track_caller]
fn wait_for_long_pause(gateway: &Gateway) {
    wait_for("the next try is far", || {
        (gateway.status_of("s")["next_try_ms"].as_u64() > Some(2700)).then_some(())
    });
}

#[test]
fn a_dead_server_is_refused_at_once_and_used_again_when_it_is_back() {
    let (http, sse) = (HttpUpstream::start(), SseUpstream::start());
    let die = || (http.die(), sse.die());
    let come = || (http.come(), sse.come());
    for (transport, url) in [("http", http.url()), ("sse", sse.url())] {
        let gateway = Gateway::started(json!({ "mcp_servers": {
            "s": { "url": url, "transport": transport, "timeout_ms": 5000 },
        }}));
        assert_eq!(gateway.status_of("s")["down_since"], Value::Null);
        let client = McpClient::open(gateway.address());
        let asked = json!({ "sampling": {} });
        let asked = McpClient::new(gateway.address()).declaring(asked).opened();
        asked.call("echo", &json!({}));
        die();
        // What was in flight may have failed otherwise.
        let refused = wait_for("connections are refused", || {
            let refused = wait_until_down(&gateway);
            refused.text().contains("(connect: connection refused)").then_some(refused)
        });
        let wait: u64 = refused.header("Retry-After").unwrap().parse().unwrap();
        assert!((1..=40).contains(&wait), "{refused}");
        let error = refused.expect_error(502);
        assert_eq!((&error["server"], &error["stage"]), (&json!("s"), &json!("connect")));
        let text = error["message"].as_str().unwrap();
        assert!(text.contains("(connect: connection refused)"), "{error}");
        assert!(text.contains("next try in") || text.contains("being tried now"), "{error}");
        assert!(text.contains(error["down_since"].as_str().unwrap()), "{error}");
        let status = gateway.status_of("s");
        assert_eq!(status["state"], "down", "{status}");
        assert!(status["down_since"].is_u64() && status["next_try_ms"].is_u64(), "{status}");
        assert!(status["failures_in_a_row"].as_u64() >= Some(1), "{status}");
        let call = json!({ "name": "echo", "arguments": {} });
        for client in [&client, &asked] {
            // All but one that sees whether it is back; that one fails at once, too.
            let error = client.request("tools/call", &call)["error"].clone();
            assert!(
                error["message"].as_str().unwrap().contains("connection refused"),
                "{error}"
            );
            assert_eq!(error["data"]["server"], "s", "{error}");
        }
        wait_for_long_pause(&gateway);
        come();
        // Sooner than its supervisor tries.
        let watch = Stopwatch::start(&gateway);
        watch.wait_within(Duration::from_secs(2), "it is called again", || {
            (gateway.call("echo", &json!({})).status() == 200).then_some(())
        });
        for client in [&client, &asked] {
            wait_for("it serves sessions again", || {
                client.request("tools/call", &call).get("result").map(|_| ())
            });
        }
        wait_for("it is well", || (gateway.status_of("s")["state"] == "ready").then_some(()));
        assert_eq!(gateway.status_of("s")["down_since"], Value::Null);
        assert_eq!(gateway.status_of("s")["failures_in_a_row"], 0);
    }
}

#[test]
fn a_stateless_client_that_can_be_asked_is_refused_before_its_call_has_a_thread() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = ModernClient::to(&gateway).declaring(json!({ "elicitation": {} }));
    client.call("echo", &json!({}));
    upstream.die();
    wait_until_down(&gateway);
    let watch = Stopwatch::start(&gateway);
    let refused = (0..50).filter(|_| {
        let answered = client.ask("echo", &json!({}));
        let text = answered.message["error"]["message"].as_str().unwrap().to_owned();
        assert!(text.contains("connection refused"), "{text}");
        text.contains(" is down since ")
    });
    // One now and then sees whether it is back.
    assert!(refused.count() > 25);
    watch.is_below("fifty refusals", 5 * AT_ONCE);
    upstream.come();
    let watch = Stopwatch::start(&gateway);
    watch.wait_within(Duration::from_secs(3), "it is called again", || {
        client.ask("echo", &json!({})).message.get("result").map(|_| ())
    });
}

#[test]
fn a_child_that_cannot_start_is_down_until_it_can() {
    let directory = Directory::new();
    let (now_well, starts) = (directory.path().join("well"), directory.path().join("starts"));
    let script = format!(
        "echo x >> '{}'; test -e '{}' || exit 9; exec '{}'",
        starts.display(),
        now_well.display(),
        scripted_child()
    );
    std::fs::write(&now_well, "").unwrap();
    let gateway = Gateway::started(json!({ "mcp_servers": {
        "s": { "command": "sh", "args": ["-c", script] },
    }}));
    std::fs::remove_file(&now_well).unwrap();
    gateway.call("exit", &json!({})).expect_error(502);
    let error = wait_until_down(&gateway).expect_error(502);
    let text = error["message"].as_str().unwrap().to_owned();
    assert!(text.contains("exited with status") && text.contains("next try in"), "{error}");
    wait_for_long_pause(&gateway);
    std::fs::write(&now_well, "").unwrap();
    // A call shortens the wait by half at most, because an attempt starts a process.
    let watch = Stopwatch::start(&gateway);
    watch.wait_within(Duration::from_secs(5), "it is called again", || {
        (gateway.call("echo", &json!({})).status() == 200).then_some(())
    });
    // Calls made it start no more often than one in a second does.
    assert!(std::fs::read_to_string(&starts).unwrap().len() < 2 * 20);
}

#[test]
fn a_server_that_appears_late_is_looked_for_when_it_is_wanted() {
    let late = HttpUpstream::absent();
    let gateway = Gateway::with(json!({ "mcp_servers": {
        "s": { "url": late.url(), "transport": "http" },
    }}))
    .start();
    wait_for_long_pause(&gateway);
    late.come();
    let watch = Stopwatch::start(&gateway);
    watch.wait_within(Duration::from_secs(2), "it is called", || {
        (gateway.call("echo", &json!({})).status() == 200).then_some(())
    });
}

#[test]
fn a_server_that_hangs_is_refused_at_once() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(json!({ "mcp_servers": {
        "s": { "url": upstream.url(), "transport": "http", "timeout_ms": 1500 },
    }}));
    upstream.listener.hang();
    let calls: Vec<Connection> = (0..6)
        .map(|_| {
            let mut connection = gateway.connect();
            connection.send(&Request::post(CALL, &json!({ "name": "echo" })));
            connection
        })
        .collect();
    for mut call in calls {
        let status = call.answer().status();
        assert!([502, 504].contains(&status), "{status}");
    }
    let watch = Stopwatch::start(&gateway);
    let error = gateway.call("echo", &json!({})).expect_error(502);
    watch.is_below("a refusal", AT_ONCE);
    assert!(error["message"].as_str().unwrap().contains("down since"), "{error}");
    assert!(is_down(&gateway));
    assert_eq!(gateway.status_of("s")["in_flight"], 0);
    upstream.listener.resume();
    wait_for("it is called again", || {
        (gateway.call("echo", &json!({})).status() == 200).then_some(())
    });
}

#[test]
fn a_slow_tool_closes_nobody_out() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(json!({ "mcp_servers": {
        "s": { "url": upstream.url(), "transport": "http", "timeout_ms": 500 },
    }}));
    for _ in 0..8 {
        gateway.call("slow", &json!({})).expect_error(504);
        gateway.call("echo", &json!({})).expect(200);
    }
    // Alone it looks like a server that hangs, until that answers its supervisor.
    for _ in 0..8 {
        let status = gateway.call("slow", &json!({})).status();
        assert!([502, 504].contains(&status), "{status}");
    }
    let watch = Stopwatch::start(&gateway);
    watch.wait_within(Duration::from_secs(5), "the others are served", || {
        (gateway.call("echo", &json!({})).status() == 200).then_some(())
    });
    let initialized = upstream.seen().n_initialize;
    assert_eq!(initialized, 1, "its session was well all the time");
}

#[test]
fn a_child_with_a_slow_tool_is_not_started_again() {
    let gateway = Gateway::started(json!({ "mcp_servers": {
        "s": { "command": scripted_child(), "timeout_ms": 100 },
    }}));
    for _ in 0..8 {
        let status = gateway.call("slow", &json!({})).status();
        assert!([502, 504].contains(&status), "{status}");
    }
    wait_for("the others are served", || {
        (gateway.call("echo", &json!({})).status() == 200).then_some(())
    });
    assert_eq!(gateway.status_of("s")["restarts"], 0);
}

#[test]
fn a_caller_in_a_hurry_closes_nobody_out() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    for _ in 0..12 {
        let body = json!({ "name": "slow", "timeout_ms": 20 });
        gateway.post(CALL, &body).expect_error(504);
    }
    gateway.call("echo", &json!({})).expect(200);
    assert_eq!(gateway.status_of("s")["failures_in_a_row"], 0);
}

#[test]
fn what_one_request_is_refused_closes_nobody_out() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    for status in [400, 403, 404, 429, 500, 503] {
        upstream.fail_with(Some(status));
        (0..3).for_each(|_| drop(gateway.call("echo", &json!({})).expect(502)));
    }
    upstream.fail_with(None);
    gateway.call("fail", &json!({})).expect(200);
    (0..12).for_each(|_| drop(gateway.call("rpc_error", &json!({})).expect(502)));
    gateway.call("echo", &json!({})).expect(200);
}

#[test]
#[expect(clippy::print_stdout, reason = "the figures are shown when they are asked for")]
fn a_dead_server_costs_its_callers_nothing() {
    const N_CALLS: u32 = 1000;
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    upstream.die();
    wait_until_down(&gateway);
    let mut connection = gateway.connect();
    let mut time = |body: &Value, status: u16| {
        let request = Request::post(CALL, body);
        let began = Instant::now();
        for _ in 0..N_CALLS {
            connection.exchange(&request).expect(status);
        }
        began.elapsed()
    };
    let trivial = time(&json!({ "name": "nothing-of-that-name" }), 404);
    let refused = time(&json!({ "name": "echo" }), 502);
    println!("{N_CALLS} calls: {trivial:?} for an unknown tool, {refused:?} for a dead server");
    assert!(refused < trivial * 10 + AT_ONCE, "{refused:?}, not {trivial:?}");
    let status = gateway.status_of("s");
    assert_eq!((&status["in_flight"], &status["waiting"]), (&json!(0), &json!(0)), "{status}");
}

#[test]
fn a_child_that_one_caller_makes_end_is_back_for_the_others_at_once() {
    let server = crate::support::gateway::stdio(&[]);
    let gateway = Gateway::started(json!({ "mcp_servers": { "s": server } }));
    gateway.wait_ready();
    let echo = || gateway.call("echo", &json!({ "message": "m" }));
    for _ in 0..8 {
        echo().expect(200);
        gateway.call("exit", &json!({})).expect(502);
        // It waits for the next child, which takes a moment.
        echo().expect(200);
    }
    // One that ends again and again without serving anybody is left alone for longer and longer.
    wait_for("calls are refused", || {
        let exits: Vec<_> = (0..4)
            .map(|_| {
                let address = gateway.address().to_owned();
                crate::support::in_background(move || {
                    let call = Request::post(CALL, &json!({ "name": "exit" }));
                    crate::support::http::exchange(&address, &call).text().to_owned()
                })
            })
            .collect();
        let mut answers = exits.into_iter().map(|it| it.join().unwrap());
        answers.any(|text| text.contains(" is down since ")).then_some(())
    });
}

#[test]
fn answers_that_break_off_close_nobody_out_and_are_logged_a_few_times() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    gateway.call("break_off", &json!({})).expect(502);
                }
            });
        }
        for _ in 0..200 {
            gateway.call("echo", &json!({ "message": "m" })).expect(200);
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let said = gateway.stderr();
    assert!(said.lines().count() < 30, "{said}");
}
