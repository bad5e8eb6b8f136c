//! Children that do what no child may. They are shell scripts that serve until the moment of
//! their fault.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::faulty::At;
use super::rounds::{
    FAR_TOO_LATE, Holdings, SMALL_BOUND, TIME_ENOUGH_MS, TIMEOUT_MS, assert_readable,
};
use crate::support::gateway::{Gateway, is_alive, stdio};
use crate::support::{wait_for, wait_until};

/// A fault in a shell's words; the statuses of a call during which it comes.
struct Fault {
    name: &'static str,
    statuses: &'static [u16],
    does: &'static str,
}

const FAULTS: &[Fault] = &[
    Fault { name: "exits", statuses: &[502], does: "exit 3" },
    Fault { name: "is_killed", statuses: &[502], does: "kill -9 $$" },
    Fault { name: "is_deaf", statuses: &[504], does: "exec sleep 20" },
    Fault { name: "babbles", statuses: &[504], does: "exec yes 'still \u{1b}[31mhere'" },
    Fault { name: "blank", statuses: &[504], does: "exec yes ''" },
    Fault { name: "no_newline", statuses: &[502, 504], does: "exec cat /dev/zero" },
    Fault { name: "not_utf8", statuses: &[504], does: r"printf '\377\376\n'; exec sleep 20" },
    Fault {
        name: "notices",
        statuses: &[504],
        does: r#"exec yes '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}'"#,
    },
    Fault {
        name: "changes",
        statuses: &[504],
        does: r#"exec yes '{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}'"#,
    },
    Fault {
        name: "asks",
        statuses: &[504],
        does: r#"exec yes '{"jsonrpc":"2.0","id":"q","method":"sampling/createMessage","params":{}}'"#,
    },
    Fault {
        name: "strangers",
        statuses: &[504],
        does: r#"exec yes '{"jsonrpc":"2.0","id":99999999,"result":{}}'"#,
    },
    Fault {
        name: "complains",
        statuses: &[504],
        does: "yes 'oh \u{1b}[31mno' >&2 & exec sleep 20",
    },
    Fault { name: "complains_on", statuses: &[504], does: "cat /dev/zero >&2 & exec sleep 20" },
    Fault { name: "closes_output", statuses: &[502], does: "exec >&-; exec sleep 20" },
    Fault { name: "closes_input", statuses: &[502, 504], does: "exec <&-; exec sleep 20" },
    Fault { name: "closes_all", statuses: &[502], does: "exec <&- >&- 2>&-; exec sleep 20" },
    Fault { name: "leaves_one", statuses: &[502], does: "sleep 20 & exit 3" },
    Fault { name: "leaves_one_far", statuses: &[502], does: "setsid sleep 20 & exit 3" },
    Fault { name: "leaves_a_talker", statuses: &[502], does: "setsid yes x & exit 3" },
    Fault {
        name: "ignores_term",
        statuses: &[504],
        does: "trap '' TERM HUP INT; while :; do sleep 1; done",
    },
    Fault {
        name: "ignores_all",
        statuses: &[504],
        does: "trap '' TERM HUP INT; sleep 20 & sleep 20 & while :; do sleep 1; done",
    },
];

const SERVER: &str = r#"
answer() { printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$1"; }
while IFS= read -r line; do
  id="${line#*\"id\":}"; id="${id%%[,\}]*}"
  case "$line" in
    AT) FAULT ;;
    *'"method":"initialize"'*) answer '{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"sh","version":"1"}}' ;;
    *'"method":"tools/list"'*) answer '{"tools":[{"name":"echo","inputSchema":{"type":"object"}}]}' ;;
    *'"method":"tools/call"'*) answer '{"content":[{"type":"text","text":"well"}]}' ;;
    *'"method":"notifications/'*) ;;
    *'"method"'*) printf '{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"Method not found"}}\n' "$id" ;;
  esac
done
"#;

fn child(fault: &Fault, at: At) -> Value {
    let at = match at {
        At::Contact => r#"*'"method":"initialize"'* | *'"method":"server/discover"'*"#,
        At::List => r#"*'"method":"tools/list"'*"#,
        At::Call => r#"*'"method":"tools/call"'*"#,
    };
    let script = SERVER.replace("AT)", &format!("{at})")).replace("FAULT", fault.does);
    let timeout_ms = if fault.statuses == [502] { TIME_ENOUGH_MS } else { TIMEOUT_MS };
    // In a configuration a dollar is two.
    let script = script.replace('$', "$$");
    json!({
        "transport": "stdio", "command": "sh", "args": ["-c", script],
        "start_timeout_ms": TIMEOUT_MS, "timeout_ms": timeout_ms,
    })
}

fn before_all(at: At) -> Gateway {
    let mut servers = Map::new();
    servers.insert("good".to_owned(), stdio(&[]));
    for fault in FAULTS {
        servers.insert(fault.name.to_owned(), child(fault, at));
    }
    let limits = json!({ "upstream_event_bytes": SMALL_BOUND });
    let gateway = Gateway::with(json!({ "mcp_servers": servers, "limits": limits })).start();
    gateway.wait_until_well(&["good"]);
    gateway
}

fn good_answers(gateway: &Gateway, message: &str) {
    let began = Instant::now();
    let text = gateway.call_text("good-echo", &json!({ "message": message }));
    assert_eq!(text, message);
    assert!(began.elapsed() < FAR_TOO_LATE, "{:?}", began.elapsed());
}

fn call_all(gateway: &Gateway, statuses: impl Fn(&Fault) -> Vec<u16> + Sync) {
    std::thread::scope(|scope| {
        let mut calls = Vec::new();
        for fault in FAULTS {
            let statuses = &statuses;
            calls.push(scope.spawn(move || {
                let began = Instant::now();
                let answer = gateway.call(&format!("{}-echo", fault.name), &json!({}));
                let took = began.elapsed();
                assert!(took < FAR_TOO_LATE, "{} took {took:?}: {answer}", fault.name);
                let status = answer.status();
                assert!(statuses(fault).contains(&status), "{}: {answer}", fault.name);
                let error = answer.expect_error(status);
                assert_eq!(error["server"], fault.name, "{error}");
                assert!(error["stage"].is_string(), "{}: {error}", fault.name);
                assert_readable(&error["message"]);
            }));
        }
        calls.push(scope.spawn(|| {
            for n in 0..20 {
                good_answers(gateway, &n.to_string());
            }
        }));
        for call in calls {
            call.join().unwrap();
        }
    });
}

/// The processes whose parent is the gateway, dead ones among them.
fn children(gateway: &Gateway) -> Vec<u32> {
    let parent = gateway.process_id().to_string();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1))
            == Some(&*parent)
    })
    .collect()
}

fn stops_in_time(gateway: Gateway) {
    let children = children(&gateway);
    let began = Instant::now();
    let ended = gateway.stop();
    assert_eq!(ended.code, Some(0));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    for id in children {
        assert!(!is_alive(id), "{id} was left behind");
    }
    assert!(!ended.stderr.contains('\u{1b}'));
    let lines = ended.stderr.lines().count();
    assert!(lines < 3000, "{lines} lines are logged");
}

#[test]
fn a_fault_in_a_call_is_one_clear_error() {
    let gateway = before_all(At::Call);
    for fault in FAULTS {
        gateway.wait_until_well(&[fault.name]);
    }
    let holdings = Holdings::of(&gateway);
    call_all(&gateway, |fault| fault.statuses.to_vec());
    // Some are being started again by now, and say so.
    for _ in 0..2 {
        call_all(&gateway, |_| vec![502, 504]);
    }
    holdings.are_back(&gateway, FAULTS.len());
    wait_until("each has one child", || children(&gateway).len() <= FAULTS.len() + 1);
    assert!(gateway.peak_rss_bytes() < 300 * 1024 * 1024, "{}", gateway.peak_rss_bytes());
    stops_in_time(gateway);
}

#[test]
fn a_fault_at_first_contact_or_in_a_list_is_told_and_costs_nobody_else() {
    for (at, stages) in [
        (At::Contact, ["handshake", "spawn"].as_slice()),
        (At::List, &["list", "handshake", "spawn"]),
    ] {
        let gateway = before_all(at);
        good_answers(&gateway, "at once");
        for fault in FAULTS {
            let failure = wait_for(&format!("{} has failed", fault.name), || {
                Some(gateway.status_of(fault.name)["last_failure"].clone())
                    .filter(Value::is_object)
            });
            let stage = failure["stage"].as_str().unwrap();
            assert!(stages.contains(&stage), "{}: {failure}", fault.name);
            assert_readable(&failure["message"]);
        }
        good_answers(&gateway, "still");
        wait_until("each has one child", || children(&gateway).len() <= FAULTS.len() + 1);
        stops_in_time(gateway);
    }
}

#[test]
fn a_line_without_end_ends_the_child_and_not_its_successor() {
    let fault = FAULTS.iter().find(|fault| fault.name == "no_newline").unwrap();
    let limits = json!({ "upstream_event_bytes": SMALL_BOUND });
    let mut server = child(fault, At::Call);
    server["timeout_ms"] = json!(15_000);
    let gateway =
        Gateway::started(json!({ "mcp_servers": { "child": server }, "limits": limits }));
    let error = gateway.call("echo", &json!({})).expect_error(502);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("limits.upstream_event_bytes"), "{message}");
    // Another process serves the lists again.
    gateway.wait_ready();
    wait_until("it is ready", || gateway.status_of("child")["state"] == "ready");
    assert!(gateway.peak_rss_bytes() < 100 * 1024 * 1024, "{}", gateway.peak_rss_bytes());
}

#[test]
fn a_child_that_does_not_read_costs_its_callers_and_nobody_else() {
    let fault = FAULTS.iter().find(|fault| fault.name == "is_deaf").unwrap();
    let gateway = Gateway::started(json!({ "mcp_servers": {
        "good": stdio(&[]),
        "child": child(fault, At::Call),
    }}));
    // More than a pipe holds, and more than waits for it.
    let heavy = json!({ "x": "x".repeat(1024 * 1024) });
    std::thread::scope(|scope| {
        let gateway = &gateway;
        let heavy = &heavy;
        let calls: Vec<_> = (0..16)
            .map(|_| scope.spawn(move || gateway.call("child-echo", heavy).status()))
            .collect();
        for n in 0..10 {
            good_answers(gateway, &n.to_string());
        }
        for call in calls {
            let status = call.join().unwrap();
            assert!([502, 503, 504].contains(&status), "{status}");
        }
    });
    good_answers(&gateway, "still");
    assert!(gateway.peak_rss_bytes() < 200 * 1024 * 1024, "{}", gateway.peak_rss_bytes());
}
