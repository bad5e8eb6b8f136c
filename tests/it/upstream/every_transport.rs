//! Upstreams of every transport: together, absent, dying, hanging, forgetting, and their calls
//! when nothing is wrong.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, OUTCOME_OK, entry_of, names_in, stdio};
use crate::support::http::Request;
use crate::support::stopwatch::Stopwatch;
use crate::support::upstream_http::{Answers, HttpUpstream, Sessions};
use crate::support::upstream_sse::SseUpstream;
use crate::support::{stays_so, wait_for};

const CALL: &str = "/mcp/tools/call";

#[test]
fn every_transport_serves_in_one_list() {
    let (http, sse) = (HttpUpstream::start(), SseUpstream::start());
    let gateway = Gateway::started(json!({ "mcp_servers": {
        "http": { "url": http.url(), "transport": "http" },
        "old": { "url": sse.url(), "transport": "sse" },
        "child": stdio(&[]),
        "found": { "url": http.url() },
        "found_old": { "url": sse.url(), "transport": "auto" },
    }}));
    let names = gateway.tool_names();
    for server in ["http", "old", "child", "found", "found_old"] {
        assert!(names.contains(&format!("{server}-echo")), "{server}: {names:?}");
        let text = gateway.call_text(&format!("{server}-echo"), &json!({"message": server}));
        assert_eq!(text, server);
        assert_eq!(gateway.call(&format!("{server}-rpc_error"), &json!({})).status(), 502);
        let status = gateway.status_of(server);
        assert!(status["state"].to_string().contains("ready"), "{status}");
    }
}

#[test]
fn every_revision_is_spoken_upstream() {
    for revision in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        for sessions in [Sessions::Kept, Sessions::None] {
            let upstream = HttpUpstream::absent();
            upstream.set_revisions(&[revision]);
            upstream.keep_sessions(sessions);
            upstream.come();
            let gateway = Gateway::before(&upstream.url());
            assert_eq!(gateway.call_text("echo", &json!({"message": "m"})), "m");
            assert_eq!(gateway.status_of("s")["revision"], revision);
            let sent = upstream.last_headers();
            let version =
                sent.iter().find(|(k, _)| k.eq_ignore_ascii_case("MCP-Protocol-Version"));
            match version {
                Some((_, value)) => assert_eq!(value, revision),
                None => assert!(revision < "2025-06-18", "{sent:?}"),
            }
        }
    }
}

#[test]
fn answers_may_come_as_json_or_as_events() {
    let upstream = HttpUpstream::start();
    for answers in [Answers::Json, Answers::PrettyJson, Answers::EventStream] {
        upstream.answer_with(answers);
        let gateway = Gateway::before(&upstream.url());
        assert_eq!(gateway.call_text("echo", &json!({"message": "a\nb"})), "a\nb");
    }
}

#[test]
fn lists_are_read_to_their_last_page() {
    let upstream = HttpUpstream::with_tools(&["e", "d", "c", "b", "a"]);
    upstream.set_page_items(2);
    let gateway = Gateway::before(&upstream.url());
    assert_eq!(gateway.tool_names(), ["e", "d", "c", "b", "a"]);
}

#[test]
fn an_absent_server_costs_only_itself_and_appears_by_itself() {
    let (present, absent) = (HttpUpstream::start(), HttpUpstream::absent());
    let gateway = Gateway::with(json!({ "mcp_servers": {
        "here": { "url": present.url(), "transport": "http" },
        "gone": { "url": absent.url(), "transport": "http", "required": true },
    }}))
    .start();
    gateway.wait_until_well(&["here"]);
    assert_eq!(gateway.call_text("here-echo", &json!({"message": "m"})), "m");
    let failed = wait_for("the failure is told", || {
        let list = gateway.list();
        let entry = entry_of(&list["upstreams"], "gone")?;
        assert!(names_in(&list).iter().all(|name| name.starts_with("here-")));
        let status = gateway.status_of("gone");
        (status["last_failure"].is_object() && entry["outcome"].is_string())
            .then_some((entry, status))
    });
    assert_ne!(failed.0["outcome"], OUTCOME_OK, "{failed:?}");
    assert_eq!(failed.1["last_failure"]["stage"], "connect", "{failed:?}");
    assert!(failed.1["last_failure"]["message"].is_string(), "{failed:?}");
    let unready = gateway.get("/readyz").expect(503);
    assert!(unready.text().contains("gone") && !unready.text().contains("here"), "{unready}");
    gateway.get("/healthz").expect(200);
    absent.come();
    gateway.wait_for_tool("gone-echo");
    assert_eq!(gateway.call_text("gone-echo", &json!({"message": "m"})), "m");
    gateway.get("/readyz").expect(200);
}

#[test]
fn a_server_that_dies_is_502_and_recovers() {
    let (http, sse) = (HttpUpstream::start(), SseUpstream::start());
    let gateway = Gateway::started(json!({ "mcp_servers": {
        "http": { "url": http.url(), "transport": "http" },
        "old": { "url": sse.url(), "transport": "sse" },
    }}));
    http.die();
    sse.die();
    for server in ["http", "old"] {
        let error = gateway.call(&format!("{server}-echo"), &json!({})).expect_error(502);
        assert_eq!(error["server"], server, "{error}");
    }
    http.come();
    sse.come();
    for server in ["http", "old"] {
        wait_for("it is called again", || {
            (gateway.call(&format!("{server}-echo"), &json!({})).status() == 200).then_some(())
        });
    }
}

#[test]
fn a_call_that_breaks_off_is_never_run_twice() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    gateway.call("echo", &json!({})).expect(200);
    gateway.call("break_off", &json!({})).expect_error(502);
    gateway.call("echo", &json!({})).expect(200);
    assert_eq!(upstream.seen().n_calls("break_off"), 1);
}

#[test]
fn an_idle_connection_that_was_closed_is_no_failure() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    for answers in [Answers::Json, Answers::EventStream, Answers::EventStream] {
        upstream.answer_with(answers);
        gateway.call("echo", &json!({})).expect(200);
        upstream.listener.break_off_connections();
        // A connection that was used this very moment is not looked at again before it is used,
        // and a call that breaks off is never run twice. So this one must be idle for a while.
        let idle = Duration::from_millis(200);
        stays_so("nothing is asked meanwhile", idle, || upstream.listener.n_requests() > 0);
    }
    gateway.call("echo", &json!({})).expect(200);
    assert_eq!(upstream.seen().n_calls("echo"), 4);
}

#[test]
fn a_hanging_server_costs_only_itself() {
    let (hanging, well) = (HttpUpstream::start(), HttpUpstream::start());
    let gateway = Gateway::started(json!({ "mcp_servers": {
        "hanging": { "url": hanging.url(), "transport": "http", "timeout_ms": 30_000, "max_in_flight": 4 },
        "well": { "url": well.url(), "transport": "http" },
    }}));
    hanging.listener.hang();
    let before = hanging.listener.n_requests();
    let mut waiting: Vec<_> = (0..4).map(|_| gateway.connect()).collect();
    for connection in &mut waiting {
        connection.send(&Request::post(CALL, &json!({"name": "hanging-echo"})));
    }
    wait_for("the calls hang", || (hanging.listener.n_requests() >= before + 4).then_some(()));
    let watch = Stopwatch::start(&gateway);
    for n in 0..20 {
        let message = n.to_string();
        assert_eq!(gateway.call_text("well-echo", &json!({ "message": message })), message);
        gateway.get("/mcp/tools/list").expect(200);
    }
    gateway.get("/status").expect(200);
    watch.is_below("calls of the other", Duration::from_secs(3));
    let body = json!({"name": "hanging-echo", "timeout_ms": 200});
    gateway.post(CALL, &body).expect_error(504);
    hanging.listener.resume();
}

#[test]
fn a_server_that_hangs_from_the_start_delays_nobody() {
    let (hanging, well) = (HttpUpstream::absent(), HttpUpstream::start());
    hanging.listener.hang();
    hanging.come();
    let started = Instant::now();
    let gateway = Gateway::with(json!({ "mcp_servers": {
        "hanging": { "url": hanging.url(), "transport": "http" },
        "well": { "url": well.url(), "transport": "http" },
    }}))
    .start();
    gateway.wait_until_well(&["well"]);
    assert_eq!(gateway.call_text("well-echo", &json!({"message": "m"})), "m");
    let watch = Stopwatch::since_before(&gateway, started);
    watch.is_below("the start and a call", Duration::from_secs(3));
}

#[test]
fn forgotten_sessions_are_opened_again_and_the_tool_runs_once() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = gateway.mcp();
    for n in 1..=3 {
        let before = upstream.seen();
        upstream.forget_sessions();
        assert_eq!(gateway.call_text("echo", &json!({"message": "m"})), "m");
        let seen = upstream.seen();
        assert_eq!(seen.n_initialize, before.n_initialize + 1, "round {n}");
        assert_eq!(seen.n_calls("echo"), before.n_calls("echo") + 1, "round {n}");
    }
    client.call("echo", &json!({}));
}

#[test]
fn warm_calls_cost_one_request_each() {
    let (http, sse) = (HttpUpstream::start(), SseUpstream::start());
    let gateway = Gateway::started(json!({ "mcp_servers": {
        "http": { "url": http.url(), "transport": "http" },
        "old": { "url": sse.url(), "transport": "sse" },
    }}));
    let client = gateway.mcp();
    let call = |server: &str| {
        gateway.call(&format!("{server}-echo"), &json!({})).expect(200);
        client.call(&format!("{server}-echo"), &json!({}));
        gateway.list();
        client.tool_names();
    };
    call("http");
    call("old");
    let (seen, connections) = (http.seen(), http.listener.n_connections());
    let (old_seen, streams) = (sse.seen(), sse.n_event_streams());
    for _ in 0..20 {
        call("http");
        call("old");
    }
    assert_eq!(http.seen().n_list, seen.n_list, "no list on the way of a call");
    assert_eq!(http.seen().n_initialize, seen.n_initialize);
    assert_eq!(http.listener.n_connections(), connections, "no new connection");
    assert_eq!(http.seen().n_calls("echo"), seen.n_calls("echo") + 40);
    assert_eq!(sse.seen().n_list, old_seen.n_list);
    assert_eq!(sse.n_event_streams(), streams);
}

#[test]
fn a_rest_client_that_hangs_up_has_cancelled() {
    let (http, sse) = (HttpUpstream::start(), SseUpstream::start());
    let gateway = Gateway::started(json!({ "mcp_servers": {
        "http": { "url": http.url(), "transport": "http", "max_in_flight": 1 },
        "old": { "url": sse.url(), "transport": "sse", "max_in_flight": 1 },
    }}));
    let scripts: [(&str, &crate::support::script::Script); 2] =
        [("http", &http), ("old", &sse)];
    for (server, script) in scripts {
        let mut connection = gateway.connect();
        let body = json!({ "name": format!("{server}-slow") });
        connection.send(&Request::post(CALL, &body));
        script.wait_for_slow(1);
        connection.hang_up();
        let limit = Duration::from_secs(1);
        Stopwatch::start(&gateway).wait_within(limit, "the upstream hears of it", || {
            let seen = script.seen();
            (seen.cancellations.len() == 1 && seen.slow.is_empty()).then_some(())
        });
        // The only slot is free again.
        assert_eq!(gateway.call_text(&format!("{server}-echo"), &json!({"message": "m"})), "m");
    }
}

#[test]
fn headers_of_the_configuration_go_upstream() {
    let upstream = HttpUpstream::start();
    upstream.require_header("X-Token", "from-the-environment");
    let gateway = Gateway::with(json!({ "mcp_servers": { "s": {
        "url": upstream.url(), "transport": "http",
        "headers": { "X-Token": "${SCRIPTED_TOKEN}", "X-Other": "${UNSET:-plain}" },
    }}}))
    .env("SCRIPTED_TOKEN", "from-the-environment")
    .start();
    gateway.wait_ready();
    assert_eq!(gateway.call_text("echo", &json!({"message": "m"})), "m");
    let sent = upstream.last_headers();
    assert!(sent.iter().any(|(k, v)| k.eq_ignore_ascii_case("x-other") && v == "plain"));
}

#[test]
fn clients_own_headers_do_not_leak_upstream() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let request = Request::post(CALL, &json!({"name": "echo"}))
        .header("Authorization", "Bearer of-the-client")
        .header("Cookie", "of-the-client")
        .header("X-Api-Key", "of-the-client");
    gateway.send(&request).expect(200);
    let sent = upstream.last_headers();
    assert!(sent.iter().all(|(_, value)| !value.contains("of-the-client")), "{sent:?}");
}

#[test]
fn results_over_the_bound_are_502_naming_it() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(json!({
        "limits": { "upstream_result_bytes": 500_000, "upstream_event_bytes": 500_000 },
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }));
    for (answers, bound) in
        [(Answers::Json, "upstream_result_bytes"), (Answers::EventStream, "upstream_")]
    {
        upstream.answer_with(answers);
        let error = gateway.call("big", &json!({"megabytes": 1})).expect_error(502);
        assert!(error.to_string().contains(bound), "{error}");
        gateway.call("echo", &json!({})).expect(200);
    }
}

#[test]
fn disabled_servers_are_not_there() {
    let (first, second) = (HttpUpstream::start(), HttpUpstream::start());
    let gateway = Gateway::started(json!({ "mcp_servers": {
        "on": { "url": first.url(), "transport": "http" },
        "off": { "url": second.url(), "transport": "http", "disabled": true },
    }}));
    assert!(gateway.tool_names().contains(&"echo".to_owned()), "one server, no prefix");
    gateway.post(CALL, &json!({"name": "echo", "server": "off"})).expect_error(404);
    assert_eq!(second.listener.n_connections(), 0);
}

#[test]
fn status_tells_of_calls_in_flight() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let mut call = gateway.connect();
    call.send(&Request::post(CALL, &json!({"name": "slow"})));
    upstream.wait_for_slow(1);
    let status = gateway.get("/status").expect(200).json();
    assert!(status["version"].is_string(), "{status}");
    for key in ["upstreams", "sessions", "streams"] {
        assert!(status.get(key).is_some(), "{key}: {status}");
    }
    let entry = gateway.status_of("s");
    let in_flight = |entry: &Value| entry["in_flight"].as_u64();
    assert_eq!(in_flight(&entry), Some(1), "{entry}");
    upstream.release_slow();
    call.answer().expect(200);
    wait_for("the slot is free", || {
        (in_flight(&gateway.status_of("s")) == Some(0)).then_some(())
    });
}

#[test]
fn a_tool_of_a_server_that_never_answered_is_its_failure_and_not_unknown() {
    let (there, absent) = (HttpUpstream::start(), HttpUpstream::absent());
    let gateway = Gateway::with(json!({ "mcp_servers": {
        "there": { "url": there.url(), "transport": "http" },
        "absent": { "url": absent.url(), "transport": "http" },
    }}))
    .start();
    gateway.wait_until_well(&["there"]);
    for body in [json!({"name": "absent-echo"}), json!({"name": "echo", "server": "absent"})] {
        let answer = gateway.post(CALL, &body).expect_error(502);
        assert_eq!(answer["server"], "absent", "{answer}");
        assert_eq!(answer["stage"], "connect", "{answer}");
    }
    gateway.post(CALL, &json!({"name": "there-nothing"})).expect_error(404);
    gateway.post(CALL, &json!({"name": "nothing", "server": "there"})).expect_error(404);
}
