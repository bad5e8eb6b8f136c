//! `trunkline check`: the configuration, and every server as the gateway sees it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::gateway::{Directory, binary, scripted_child, signal_process};
use crate::support::listener::{Listener, free_port};
use crate::support::upstream_http::{HttpUpstream, respond};

fn check(folder: &Directory, config: &Value, arguments: &[&str]) -> Output {
    let path = folder.path().join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    let mut command = Command::new(binary());
    command.arg("check").arg("-c").arg(path).args(arguments);
    command.env("TOKEN", "hunter2-hunter2").stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// What is told of each server, by name.
fn servers(output: &Output) -> Value {
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut by_name = json!({});
    for server in result["servers"].as_array().unwrap() {
        by_name[server["server"].as_str().unwrap()] = server.clone();
    }
    by_name
}

/// A web server that knows nothing of MCP.
fn web_page() -> Listener {
    let listener = Listener::absent(|_, out| {
        let headers = [("Content-Type", "text/html; charset=utf-8")];
        respond(out, "200 OK", &headers, "<!doctype html><title>Hi</title>")
    });
    listener.start();
    listener
}

#[test]
fn servers_that_are_well_are_told_with_era_counts_and_times() {
    let upstream = HttpUpstream::with_tools(&["a", "b"]);
    let folder = Directory::new();
    let config = json!({ "mcp_servers": {
        "demo": { "command": "trunkline", "args": ["demo"] },
        "web": { "url": upstream.url(), "tools": ["a", "!nothing"] },
    }});
    let output = check(&folder, &config, &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let told = text(&output.stdout);
    let line = |name: &str| told.lines().find(|line| line.starts_with(name)).unwrap();
    for part in ["ok", "stdio", "(legacy)", "5 tools", "1 prompt", "contact in", "answers in"] {
        assert!(line("demo").contains(part), "{part}: {told}");
    }
    assert!(told.contains("note: \"!nothing\" in tools matches none"), "{told}");
    for part in ["ok", "http", "2 tools", "1 of the tools"] {
        assert!(line("web").contains(part), "{part}: {told}");
    }
    assert!(told.ends_with("2 of 2 servers well\n"), "{told}");
    // Nothing is drawn where nobody looks.
    assert_eq!(text(&output.stderr), "");
    let output = check(&folder, &config, &["--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let demo = &servers(&output)["demo"];
    assert_eq!(
        (&demo["ok"], &demo["tools"], &demo["era"]),
        (&json!(true), &json!(5), &json!("legacy"))
    );
    assert!(demo["latency_ms"].is_number() && demo["contact_ms"].is_number(), "{demo}");
    assert!(upstream.n_deleted() >= 2, "its sessions are ended");
}

#[test]
fn each_failure_has_its_stage_and_what_to_do() {
    let refusing = HttpUpstream::start();
    refusing.require_header("Authorization", "Bearer right");
    let absent = HttpUpstream::start();
    absent.fail_with(Some(404));
    let broken = HttpUpstream::start();
    broken.fail_with(Some(500));
    let (page, closed) = (web_page(), free_port());
    let page_at = |scheme: &str| format!("{scheme}://127.0.0.1:{}/", page.port());
    let folder = Directory::new();
    let config = json!({ "mcp_servers": {
        "missing": { "command": "no-such-command" },
        "nofile": { "command": "./no-such-file" },
        "nofolder": { "command": "true", "cwd": "no-such-folder" },
        "ends": { "command": scripted_child(), "args": ["--exit-at-start"] },
        "says": { "command": "sh", "args": ["-c", "echo API_KEY is missing >&2; exit 1"] },
        "page": { "url": page_at("http") },
        "plain": { "url": page_at("https") },
        "closed": { "url": format!("http://127.0.0.1:{closed}/mcp") },
        "noname": { "url": "http://no-such-host.invalid/mcp" },
        "anonymous": { "url": refusing.url() },
        "wrong": { "url": refusing.url(), "headers": { "Authorization": "Bearer ${TOKEN}" } },
        "nopath": { "url": absent.url() },
        "broken": { "url": broken.url() },
    }});
    let output = check(&folder, &config, &["--json"]);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(!text(&output.stdout).contains("hunter2"), "{output:?}");
    let servers = servers(&output);
    for (name, stage, message, advice) in [
        ("missing", "start", "not found in PATH=", "PATH in env"),
        ("nofile", "start", "no such file", "relative to the folder"),
        ("nofolder", "start", "no-such-folder is no folder", "cwd"),
        ("ends", "start", "exited with status 3", "variable"),
        ("says", "start", "exited with status 1", "variable"),
        ("page", "http", "text/html", "is the path right?"),
        ("plain", "tls", "", "http:// instead of https://"),
        ("closed", "connect", "refused", "is the server started"),
        ("noname", "resolve", "no address", "spelled right"),
        ("anonymous", "credentials", "401", "\"headers\": {\"Authorization\""),
        ("wrong", "credentials", "401", "refuses the credential in headers"),
        ("nopath", "http", "404", "no MCP server at this path"),
        ("broken", "http", "500", "its own log"),
    ] {
        let server = &servers[name];
        assert_eq!(
            (&server["stage"], &server["ok"]),
            (&json!(stage), &json!(false)),
            "{server}"
        );
        assert!(server["message"].as_str().unwrap().contains(message), "{server}");
        assert!(
            server["advice"].to_string().contains(&advice.replace('"', "\\\"")),
            "{server}"
        );
    }
    assert!(servers["says"]["stderr"].to_string().contains("API_KEY is missing"), "{servers}");
    let reached = json!(["resolve", "connect", "http"]);
    assert_eq!(servers["anonymous"]["reached"], reached);
    assert_eq!(servers["plain"]["reached"], json!(["resolve", "connect"]));
}

#[test]
fn a_server_that_hangs_holds_up_no_other_and_lines_come_at_once() {
    let listener = web_page();
    listener.hang();
    let folder = Directory::new();
    let config = json!({ "mcp_servers": {
        "hangs": { "url": format!("http://127.0.0.1:{}/mcp", listener.port()), "start_timeout_ms": 60_000 },
        "demo": { "command": "trunkline", "args": ["demo"] },
        "gone": { "command": "no-such-command" },
    }});
    let path = folder.path().join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    let mut child = Command::new(binary())
        .arg("check")
        .arg(path)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let line = lines.next().unwrap().unwrap();
        let name = line.split(' ').next().unwrap().to_owned();
        seen.extend(Some(name).filter(|name| !name.is_empty()));
    }
    seen.sort();
    assert_eq!(seen, ["demo", "gone"]);
    assert!(began.elapsed() < Duration::from_secs(30), "they wait for the one that hangs");
    signal_process(child.id(), Signal::INT);
    // It ends its children, and says that nothing came of it.
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn a_configuration_alone_is_checked_without_contact() {
    let upstream = HttpUpstream::start();
    let folder = Directory::new();
    let config = json!({
        "api_keys": [{ "name": "a", "key": "0123456789abcdef" }],
        "mcp_servers": { "web": { "url": upstream.url() }, "gone": { "command": "no-such" } },
    });
    let output = check(&folder, &config, &["--no-connect"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stdout).contains("is right (servers: 2, keys: 1"), "{output:?}");
    assert_eq!(upstream.n_deleted(), 0);
    let wrong = json!({ "mcp_servers": { "web": { "url": upstream.url(), "timeout": 5 } } });
    let output = check(&folder, &wrong, &["--no-connect"]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert_eq!(text(&output.stdout), "");
    let told = text(&output.stderr);
    assert!(told.contains("timeout_ms") && told.contains("^^^^^^^^^"), "{told}");
    let output = check(&folder, &wrong, &["--json"]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&result["ok"], &result["problems"][0]["line"]), (&json!(false), &json!(1)));
    assert_eq!(result["problems"][0]["at"], "/mcp_servers/web/timeout");
}

#[test]
fn a_glob_of_a_key_that_matches_no_tool_is_a_warning() {
    let upstream = HttpUpstream::with_tools(&["get_a", "get_b"]);
    let folder = Directory::new();
    let gone = format!("http://127.0.0.1:{}/mcp", free_port());
    let config = json!({
        "api_keys": [{ "name": "me", "key": "a-key-of-somebody", "tools":
            ["web-get_*", "web-gte_*", "!web-get_c", "*-get_a", "gone-x", "*-x"] }],
        "mcp_servers": {
            "web": { "url": upstream.url(), "transport": "http" },
            "gone": { "url": gone, "transport": "http" },
        },
    });
    let output = check(&folder, &config, &[]);
    let told: Vec<&str> = text(&output.stderr)
        .lines()
        .filter(|line| line.contains("none of the tools"))
        .collect();
    let [first, second] = told.as_slice() else { panic!("{output:?}") };
    assert!(first.contains("/api_keys/0/tools/1: \"web-gte_*\" matches none"), "{first}");
    assert!(second.contains("/api_keys/0/tools/2: \"!web-get_c\" matches none"), "{second}");
    let output = check(&folder, &config, &["--json"]);
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let warnings = result["warnings"].as_array().unwrap();
    let all = warnings.iter().filter(|it| it["at"] == "/api_keys/0/tools/1");
    assert_eq!(all.count(), 1, "{result}");
}
