//! Upstreams that are children of the gateway: started, restarted, and never left behind.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::support::gateway::{
    Directory, Gateway, is_alive, scripted_child, signal_process, stdio,
};
use crate::support::http::Request;
use crate::support::stopwatch::Stopwatch;
use crate::support::{wait_for, wait_until};

fn before_child(args: &[&str]) -> Gateway {
    Gateway::started(json!({ "mcp_servers": { "child": stdio(args) } }))
}

fn child_pid(gateway: &Gateway) -> u32 {
    gateway.call_text("pid", &json!({})).parse().unwrap()
}

#[test]
fn a_child_that_is_killed_is_started_again() {
    let gateway = before_child(&[]);
    let first = child_pid(&gateway);
    signal_process(first, Signal::KILL);
    let second = wait_for("a new child answers", || {
        let answer = gateway.call("pid", &json!({}));
        (answer.status() == 200).then(|| child_pid(&gateway)).filter(|pid| *pid != first)
    });
    assert!(is_alive(second));
    assert!(!is_alive(first));
}

#[test]
fn a_child_that_exits_in_a_call_fails_that_call_alone() {
    let gateway = before_child(&[]);
    let first = child_pid(&gateway);
    let error = gateway.call("exit", &json!({})).expect_error(502);
    assert_eq!(error["server"], "child", "{error}");
    wait_for("a new child answers", || {
        let answer = gateway.call("echo", &json!({}));
        (answer.status() == 200).then_some(())
    });
    assert_ne!(child_pid(&gateway), first);
}

#[test]
fn noise_between_messages_is_passed_over() {
    let gateway = before_child(&[]);
    assert_eq!(gateway.call_text("noise", &json!({})), "after the noise");
    assert_eq!(gateway.call_text("echo", &json!({"message": "m"})), "m");
}

#[test]
fn standard_error_is_kept_for_status() {
    let gateway = before_child(&[]);
    gateway.call("stderr", &json!({"lines": 500})).expect(200);
    let status = wait_for("the last line is there", || {
        let status = gateway.status_of("child");
        status.to_string().contains("scripted stderr line 499").then_some(status)
    });
    let kept = status.to_string().matches("scripted stderr line").count();
    assert!(kept <= 200, "{kept} lines kept");
    assert_eq!(gateway.call_text("echo", &json!({"message": "m"})), "m");
}

#[test]
fn a_childs_environment_is_minimal() {
    let gateway = Gateway::with(json!({ "mcp_servers": { "child": {
        "transport": "stdio", "command": scripted_child(),
        "env": { "GIVEN": "${SECRET_OF_PARENT}" },
    }}}))
    .env("SECRET_OF_PARENT", "s3")
    .env("LANG", "C.UTF-8")
    .start();
    gateway.wait_ready();
    let result = gateway.call("env", &json!({})).expect(200).json();
    let variables = result["structuredContent"].as_object().unwrap();
    assert_eq!(variables["GIVEN"], "s3");
    for name in variables.keys() {
        let allowed = ["PATH", "HOME", "LANG", "TZ", "GIVEN"];
        assert!(allowed.contains(&name.as_str()), "{name} was passed on");
    }
}

#[test]
fn a_child_runs_where_it_is_told() {
    let directory = Directory::new();
    let gateway = Gateway::started(json!({ "mcp_servers": { "child": {
        "transport": "stdio", "command": scripted_child(),
        "args": ["--pid-file=pid"], "cwd": directory.path(),
    }}}));
    let written = std::fs::read_to_string(directory.path().join("pid")).unwrap();
    assert_eq!(written, child_pid(&gateway).to_string());
}

#[test]
fn a_child_that_cannot_start_costs_only_itself() {
    let gateway = Gateway::with(json!({ "mcp_servers": {
        "child": stdio(&[]),
        "ends": stdio(&["--exit-at-start"]),
        "missing": { "transport": "stdio", "command": "/no/such/program" },
    }}))
    .start();
    gateway.wait_until_well(&["child"]);
    assert_eq!(gateway.call_text("child-echo", &json!({"message": "m"})), "m");
    for server in ["ends", "missing"] {
        let failure = wait_for("the failure is told", || {
            let status = gateway.status_of(server);
            status["last_failure"].is_object().then(|| status["last_failure"].clone())
        });
        assert!(failure["stage"].is_string(), "{failure}");
    }
    assert_eq!(gateway.status_of("missing")["last_failure"]["stage"], "spawn");
}

#[test]
fn no_child_is_left_after_a_stop() {
    let gateway = before_child(&[]);
    let pid = child_pid(&gateway);
    assert_eq!(gateway.stop().code, Some(0));
    assert!(!is_alive(pid));
}

#[test]
fn a_child_that_will_not_go_is_killed() {
    let gateway = before_child(&["--ignore-term", "--ignore-stdin-end"]);
    let pid = child_pid(&gateway);
    assert_eq!(gateway.stop().code, Some(0));
    assert!(!is_alive(pid));
}

#[test]
fn a_child_sees_the_end_of_its_input_when_the_gateway_is_killed() {
    let gateway = before_child(&[]);
    let pid = child_pid(&gateway);
    gateway.signal(Signal::KILL);
    gateway.wait_for_end();
    wait_until("the child has ended", || !is_alive(pid));
}

#[test]
fn a_hang_up_cancels_in_the_child_too() {
    let gateway = Gateway::started(json!({ "mcp_servers": { "child": {
        "transport": "stdio", "command": scripted_child(), "max_in_flight": 1,
    }}}));
    let mut connection = gateway.connect();
    connection.send(&Request::post("/mcp/tools/call", &json!({"name": "slow"})));
    let in_flight = || gateway.status_of("child")["in_flight"].as_u64();
    wait_until("the call runs", || in_flight() == Some(1));
    connection.hang_up();
    Stopwatch::start(&gateway).wait_within(Duration::from_secs(1), "the slot is free", || {
        (in_flight() == Some(0)).then_some(())
    });
    assert_eq!(gateway.call_text("echo", &json!({"message": "m"})), "m");
}

#[test]
fn many_calls_share_one_child() {
    let gateway = before_child(&[]);
    let first = child_pid(&gateway);
    let mut connections: Vec<_> = (0..20).map(|_| gateway.connect()).collect();
    for (n, connection) in connections.iter_mut().enumerate() {
        let body = json!({"name": "echo", "arguments": {"message": n.to_string()}});
        connection.send(&Request::post("/mcp/tools/call", &body));
    }
    for (n, connection) in connections.iter_mut().enumerate() {
        let answer = connection.answer().expect(200).json();
        assert_eq!(answer["content"][0]["text"], n.to_string());
    }
    assert_eq!(child_pid(&gateway), first);
}

#[test]
fn changes_announced_by_a_child_are_heard() {
    let gateway = before_child(&[]);
    let client = gateway.mcp();
    let mut stream = client.listen();
    client.call("add_tool", &json!({"name": "later"}));
    let message = stream.next_message();
    assert_eq!(message["method"], "notifications/tools/list_changed", "{message}");
    assert_eq!(gateway.call_text("later", &json!({})), "later");
}
