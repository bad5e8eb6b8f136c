//! Children that take their time, of every era: asked once, waited for, and remembered. And
//! children that end again and again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::support::gateway::{Directory, Gateway, scripted_child, stdio};
use crate::support::{wait_for, wait_until, wait_within};

/// A process's messages, as `server/discover`, `initialize` and so on.
fn journal(path: &Path) -> BTreeMap<u32, Vec<String>> {
    let mut processes = BTreeMap::<u32, Vec<String>>::new();
    for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
        let (pid, message) = line.split_once(' ').unwrap();
        let message: Value = serde_json::from_str(message).unwrap();
        let method = message["method"].as_str().unwrap_or("answer").to_owned();
        processes.entry(pid.parse().unwrap()).or_default().push(method);
    }
    processes
}

struct Slow {
    name: String,
    journal: PathBuf,
    /// The process reads nothing while it waits.
    is_deaf: bool,
    answers_discover: bool,
    args: Vec<String>,
}

fn slow(folder: &Path) -> Vec<Slow> {
    let mut all = Vec::new();
    let mut add = |era: &str, wait_ms: u64, more: &[&str]| {
        let name = format!("{era}-{wait_ms}{}", more.concat().replace("--", "-"));
        let journal = folder.join(&name);
        let mut args = vec![
            format!("--journal={}", journal.display()),
            format!("--wait-ms={wait_ms}"),
            format!("--era={era}"),
        ];
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        let is_deaf = !more.contains(&"--read-early");
        let answers_discover = !more.contains(&"--ignore-discover");
        all.push(Slow { name, journal, is_deaf, answers_discover, args });
    };
    for era in ["legacy", "modern", "both"] {
        add(era, 2000, &["--banner"]);
        add(era, 6000, &[]);
        add(era, 12_000, &["--banner"]);
        add(era, 40_000, &[]);
        // The question is read, and answered later than another one is asked.
        add(era, 6000, &["--read-early", "--banner"]);
        add(era, 8000, &["--read-early"]);
    }
    add("legacy", 0, &["--ignore-discover"]);
    add("legacy", 2000, &["--ignore-discover", "--banner"]);
    all
}

#[test]
fn a_slow_child_of_any_era_is_waited_for_and_its_era_is_remembered() {
    let folder = Directory::new();
    let all = slow(folder.path());
    let mut servers = Map::new();
    for child in &all {
        let args: Vec<&str> = child.args.iter().map(String::as_str).collect();
        servers.insert(child.name.clone(), stdio(&args));
    }
    let state = folder.path().join("state");
    let config = json!({ "mcp_servers": servers, "state_dir": state });
    let gateway = Gateway::with(config.clone()).start();
    starting_is_told(&gateway);
    for child in &all {
        wait_within(Duration::from_secs(75), &child.name, || {
            (gateway.status_of(&child.name)["state"] == "ready").then_some(())
        });
    }
    for child in &all {
        let name = &child.name;
        let said = gateway.call_text(&format!("{name}-echo"), &json!({ "message": name }));
        assert_eq!(&said, name);
        let status = gateway.status_of(name);
        assert_eq!(status["restarts"], 0, "{status}");
        assert!(status["starting_ms"].is_null(), "{status}");
        let is_modern = name.starts_with("modern") || name.starts_with("both");
        if child.is_deaf || !is_modern {
            assert_eq!(status["era"], if is_modern { "modern" } else { "legacy" }, "{status}");
        }
        was_asked_properly(child);
    }
    let stored = |name: &str| state.join(format!("catalogue.{name}"));
    wait_until("all is stored", || all.iter().all(|child| stored(&child.name).exists()));
    let eras: Vec<Value> =
        all.iter().map(|child| gateway.status_of(&child.name)["era"].clone()).collect();
    assert_eq!(gateway.stop().code, Some(0));

    // The next start asks what they speak, and not which era that is.
    all.iter().for_each(|child| std::fs::remove_file(&child.journal).unwrap());
    let _gateway = Gateway::with(config).start();
    for (child, era) in all.iter().zip(eras).filter(|(child, _)| child.name.contains("2000")) {
        let first = wait_for(&child.name, || journal(&child.journal).into_values().next());
        let question = if era == "modern" { "server/discover" } else { "initialize" };
        assert_eq!(first.first().map(String::as_str), Some(question), "{}", child.name);
    }
}

fn was_asked_properly(child: &Slow) {
    let processes = journal(&child.journal);
    if child.is_deaf && child.answers_discover {
        assert_eq!(processes.len(), 1, "{}: {processes:?}", child.name);
    }
    for messages in processes.values() {
        let asked: Vec<&str> = messages
            .iter()
            .map(String::as_str)
            .filter(|it| ["server/discover", "initialize"].contains(it))
            .collect();
        let is_legacy = child.name.starts_with("legacy") && child.answers_discover;
        let may_be_both = is_legacy && asked == ["server/discover", "initialize"];
        assert!(asked.len() == 1 || may_be_both, "{}: {messages:?}", child.name);
    }
}

/// While the slowest ones start.
fn starting_is_told(gateway: &Gateway) {
    let status = gateway.status_of("modern-40000");
    assert_eq!(status["state"], "starting", "{status}");
    wait_until("it has been starting for a while", || {
        gateway.status_of("modern-40000")["starting_ms"].as_u64() > Some(1000)
    });
}

#[test]
fn a_call_to_a_child_that_starts_waits_for_its_own_time_and_says_so() {
    let state = Directory::new();
    // Its tools are known from before, when it was quick.
    let config = |wait: &str| {
        let script = format!("sleep $$WAIT; exec '{}'", scripted_child());
        json!({ "state_dir": state.path(), "mcp_servers": { "s": {
            "command": "sh", "args": ["-c", script], "env": { "WAIT": wait }, "timeout_ms": 300,
        }}})
    };
    let gateway = Gateway::started(config("0"));
    let stored = state.path().join("catalogue.s");
    wait_until("its tools are stored", || stored.exists());
    assert_eq!(gateway.stop().code, Some(0));
    let gateway = Gateway::with(config("30")).start();
    for _ in 0..6 {
        let began = Instant::now();
        let error = gateway.call("echo", &json!({})).expect_error(504);
        assert!(began.elapsed() < Duration::from_secs(5));
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("is starting, for "), "{message}");
        assert!(message.contains("300 ms were allowed by its timeout_ms"), "{message}");
    }
    // Such calls say nothing of the server.
    let status = gateway.status_of("s");
    assert_eq!(status["state"], "starting", "{status}");
    assert_eq!(status["failures_in_a_row"], 0, "{status}");
}

#[test]
fn a_child_that_never_answers_is_given_up_at_start_timeout_ms() {
    let gateway = Gateway::with(json!({ "mcp_servers": { "s": {
        "command": "sleep", "args": ["100"], "start_timeout_ms": 700,
    }}}))
    .start();
    let failure = wait_for("it is given up", || {
        Some(gateway.status_of("s")["last_failure"].clone()).filter(Value::is_object)
    });
    assert_eq!(failure["stage"], "handshake", "{failure}");
    assert!(failure["message"].as_str().unwrap().contains("start_timeout_ms (700 ms)"));
}

/// A gateway before a child that does this, and where it notes its starts.
fn crashing(does: &str) -> (Gateway, Directory) {
    let folder = Directory::new();
    let starts = folder.path().join("starts");
    let script =
        format!("echo x >> '{}'; echo \"Traceback of $$$$\" >&2; {does}", starts.display());
    let gateway = Gateway::with(json!({ "mcp_servers": { "s": {
        "command": "sh", "args": ["-c", script],
    }}}))
    .start();
    (gateway, folder)
}

#[test]
fn a_crash_loop_slows_down_whoever_calls_and_is_logged_once() {
    // The second one ends because of what it was asked, as far as can be told: that costs one
    // more start, once.
    for (does, more) in [("exit 1", 0), ("read -r line; exit 1", 1)] {
        let (gateway, folder) = crashing(does);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(9) {
            drop(gateway.call("s-echo", &json!({})));
            drop(gateway.list());
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let starts = std::fs::read_to_string(folder.path().join("starts")).unwrap();
        let n = starts.lines().count();
        // At once, and after a half, one, two and four seconds, less a quarter, at the soonest.
        assert!((3..=6 + more).contains(&n), "{n} starts: {does}");
        let status = gateway.status_of("s");
        assert!(status["stderr"].as_array().unwrap().len() >= 3, "{status}");
        let log = gateway.stop().stderr;
        let logged = log.lines().filter(|line| line.contains("Traceback")).count();
        assert!((1..=1 + more).contains(&logged), "{log}");
    }
}

#[test]
fn a_clients_own_child_in_a_crash_loop_slows_down_too() {
    let folder = Directory::new();
    let starts = folder.path().join("starts");
    let script = format!(
        "echo x >> '{0}'; test $(wc -l < '{0}') = 1 || exit 1; exec '{1}'",
        starts.display(),
        scripted_child()
    );
    let gateway = Gateway::started(json!({ "mcp_servers": { "s": {
        "command": "sh", "args": ["-c", script.replace('$', "$$")],
    }}}));
    let client = crate::support::mcp::McpClient::new(gateway.address())
        .declaring(json!({ "sampling": {} }))
        .opened();
    let began = Instant::now();
    let mut told = String::new();
    while began.elapsed() < Duration::from_secs(4) {
        let call = json!({ "name": "echo", "arguments": {} });
        told = client.request("tools/call", &call)["error"]["message"].to_string();
    }
    assert!(told.contains("exited with status 1"), "{told}");
    let n = std::fs::read_to_string(&starts).unwrap().lines().count();
    // That of the shared session, two at once, and those after a second and two.
    assert!((3..=6).contains(&n), "{n} starts");
}

#[test]
fn a_malformed_answer_fails_its_call_at_once_and_nothing_of_it_is_logged() {
    let malformed = [
        r#"{"jsonrpc":"2.0","id":ID,"error":"hunter2"}"#,
        r#"{"jsonrpc":"2.0","id":ID,"error":{"code":-1,"hint":"hunter2"}}"#,
        r#"{"jsonrpc":"2.0","id":ID,"error":{"message":"hunter2"}}"#,
        r#"{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"text","text":"hunter2"}],"x":NaN}}"#,
        r#"{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"text","text":"hunter2 ¿"}]}}"#,
        r#"{"jsonrpc":"2.0","result":{"content":[{"type":"text","text":"hunter2 ¿"}]},"id":ID}"#,
        r#"{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"text","text":"hunter2"}]}"#,
        r#"{"jsonrpc":"2.0","id":ID,"result":"hunter2"}"#,
        r#"{"jsonrpc":"2.0","id":ID}"#,
        r#"{"id":ID,"result":{"content":[{"type":"text","text":"hunter2"}]}}"#,
    ];
    for era in ["legacy", "modern"] {
        let era = format!("--era={era}");
        let gateway = Gateway::started(json!({ "mcp_servers": { "s": stdio(&[&era]) } }));
        for text in malformed {
            let began = Instant::now();
            let error = gateway.call("raw", &json!({ "text": text })).expect_error(502);
            assert!(began.elapsed() < Duration::from_secs(5), "{text}");
            assert_eq!(error["stage"], "parse", "{text}: {error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        // An answer in several lines names no call, and must not stand in the log either.
        let body = json!({ "name": "raw", "timeout_ms": 300, "arguments": {
            "text": "{\n\"jsonrpc\": \"2.0\",\n\"result\": {\"x\": \"hunter2\"},\n\"id\": ID\n}",
        }});
        gateway.post("/mcp/tools/call", &body).expect_error(504);
        assert_eq!(gateway.call_text("echo", &json!({ "message": "m" })), "m");
        let status = gateway.status_of("s");
        assert_eq!((&status["state"], &status["restarts"]), (&json!("ready"), &json!(0)));
        let log = gateway.stop().stderr;
        assert!(!log.contains("hunter2"), "{log}");
    }
}

#[test]
fn a_stop_warns_of_nothing_that_it_causes() {
    for args in [
        ["--era=modern", "--refuse-listens-at-end"].as_slice(),
        &["--era=legacy"],
        &["--wait-ms=60000"],
    ] {
        let gateway = Gateway::with(json!({ "mcp_servers": { "s": stdio(args) } })).start();
        if args.len() > 1 || args[0] == "--era=legacy" {
            gateway.wait_until_well(&["s"]);
        }
        let ended = gateway.stop();
        assert_eq!(ended.code, Some(0));
        assert!(!ended.stderr.contains("WARN"), "{}", ended.stderr);
    }
}
