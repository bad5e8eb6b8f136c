//! The real program: its commands, exit codes and streams.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use serde_json::{Value, json};

use crate::support::gateway::binary;
use crate::support::in_background;
use crate::support::mcp::LATEST;
use crate::support::program::version;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(arguments: &[&str], input: &str) -> Output {
    let mut child = program(arguments).spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A program that ends without reading its input is tested for other things.
    stdin.write_all(input.as_bytes()).ok();
    drop(stdin);
    child.wait_with_output().expect("the program ends")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// A file that holds `content`, under a name of its own.
fn file(name: &str, content: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, content).expect("the file is written");
    path.to_str().expect("a path in UTF-8").to_owned()
}

#[track_caller]
fn check_refused(arguments: &[&str], code: i32, parts: &[&str]) {
    let output = run(arguments, "");
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    assert_eq!(text(&output.stdout), "", "{arguments:?}");
    for part in parts {
        assert!(errors.contains(part), "{arguments:?}: {part:?} is not in {errors}");
    }
}

#[test]
fn version_and_help_go_to_standard_output() {
    for word in ["--version", "-V"] {
        let output = run(&[word], "");
        assert!(output.status.success());
        let expected = format!("trunkline {}\n", version());
        assert_eq!(text(&output.stdout), expected);
    }
    for (arguments, part) in [
        (&["--help"][..], "Exit codes"),
        (&["-h"], "hash-key"),
        (&["serve", "--help"], "--listen"),
        (&["demo", "-h"], "Usage: trunkline demo"),
        (&["hash-key", "--help"], "sha256"),
    ] {
        let output = run(arguments, "");
        assert!(output.status.success(), "{arguments:?}");
        assert!(text(&output.stdout).contains(part), "{arguments:?}");
        assert_eq!(text(&output.stderr), "");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut child = program(&["--help"]).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));

    let mut child = program(&["demo"]).spawn().unwrap();
    drop(child.stdout.take());
    let mut input = child.stdin.take().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() && Instant::now() < deadline {
        writeln!(input, r#"{{"jsonrpc":"2.0","id":1,"method":"ping"}}"#).ok();
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn wrong_arguments_are_named_and_exit_2() {
    check_refused(&["frobnicate"], 2, &["frobnicate", "--help"]);
    check_refused(&["--colour"], 2, &["--colour", "--help"]);
    check_refused(&["call"], 2, &["call", "which tool"]);
    check_refused(&["serve", "--listen", "nowhere"], 2, &["--listen", "nowhere"]);
    check_refused(&["demo", "--http", "nowhere"], 2, &["--http", "nowhere"]);
}

#[test]
fn a_bad_configuration_exits_78_with_every_problem_on_a_line() {
    let content = r#"{"listen":"x","colour":1,"mcp_servers":{"a":{}}}"#;
    let path = file("bad.json", content);
    let output = run(&["serve", "--config", &path], "");
    assert_eq!(output.status.code(), Some(78));
    let errors = text(&output.stderr);
    for at in ["/listen: ", "/colour: ", "/mcp_servers/a: "] {
        let lines = errors.lines().filter(|line| line.contains(&path) && line.contains(at));
        assert_eq!(lines.count(), 1, "{at}: {errors}");
    }
    // Each with the line of the file, and a mark below it.
    assert_eq!(errors.lines().count(), 9, "{errors}");
    for line in errors.lines().filter(|line| !line.contains(&path)) {
        assert!(line.contains("colour") || line.contains('^'), "{line}");
    }
    check_refused(&["--config", "no/such/file.json"], 78, &["no/such/file.json"]);
}

#[test]
fn warnings_and_the_last_line_before_the_end_are_logged() {
    let socket = "unix:/no/such/folder/x.sock";
    for (name, format) in [("text.json", "text"), ("json.json", "json")] {
        let content = json!({ "log": { "format": format }, "mcp_servers": {} });
        let path = file(name, &content.to_string());
        let output = run(&["--config", &path, "--listen", socket], "");
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains("/mcp_servers: no server is configured"), "{errors}");
        assert!(errors.contains("/no/such/folder/x.sock"), "{errors}");
        let is_json = |line: &str| serde_json::from_str::<Value>(line).is_ok();
        assert_eq!(errors.lines().all(is_json), format == "json", "{errors}");
    }
}

#[test]
fn a_key_is_hashed_without_its_line_end() {
    // `printf %s test | sha256sum`
    let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\n";
    for input in ["test", "test\n", "test\r\n"] {
        let output = run(&["hash-key"], input);
        assert!(output.status.success());
        assert_eq!(text(&output.stdout), hash, "{input:?}");
    }
    for input in ["", "\n", "a\nb", " a"] {
        assert_eq!(run(&["hash-key"], input).status.code(), Some(2), "{input:?}");
    }
}

/// The demo server as a child.
struct Demo {
    child: Child,
    input: ChildStdin,
    output: Receiver<Value>,
    _reader: JoinHandle<()>,
}

impl Demo {
    fn start() -> Demo {
        let mut child = program(&["demo"]).spawn().expect("the program starts");
        let input = child.stdin.take().expect("a pipe");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let (lines, output) = bounded(10_000);
        let reader = in_background(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).expect("a line is one JSON value");
                lines.send(value).ok();
            }
        });
        Demo { child, input, output, _reader: reader }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the program reads");
    }

    fn hear(&self) -> Value {
        self.output.recv_timeout(PATIENCE).expect("the program answers")
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        let id = json!("test");
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        self.say(&request.to_string());
        let answer = self.hear();
        assert_eq!(answer.get("id"), Some(&id), "{answer}");
        answer
    }

    /// Ends the input, and returns what was still said.
    fn end(mut self) -> Vec<Value> {
        drop(self.input);
        let deadline = Instant::now() + PATIENCE;
        let rest: Vec<_> =
            std::iter::from_fn(|| self.output.recv_deadline(deadline).ok()).collect();
        assert!(Instant::now() < deadline, "the program goes on after the end of its input");
        assert_eq!(self.child.wait().expect("the program ends").code(), Some(0));
        rest
    }
}

fn slow(id: &str, seconds: u32, steps: u32) -> String {
    json!({
        "jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": {
            "name": "slow",
            "arguments": { "seconds": seconds, "steps": steps },
            "_meta": { "progressToken": 7 },
        },
    })
    .to_string()
}

#[test]
fn the_demo_serves_a_client_from_handshake_to_end() {
    let mut demo = Demo::start();
    let revision = LATEST;
    let hello = json!({
        "protocolVersion": revision, "capabilities": {},
        "clientInfo": { "name": "test", "version": "1" },
    });
    assert_eq!(demo.ask("initialize", &hello)["result"]["protocolVersion"], revision);
    demo.say(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    assert_eq!(demo.ask("ping", &json!({}))["result"], json!({}));
    let tools = demo.ask("tools/list", &json!({}));
    assert_eq!(tools["result"]["tools"].as_array().map(Vec::len), Some(5));
    let echo = json!({ "name": "echo", "arguments": { "message": "a\nb" } });
    let answer = demo.ask("tools/call", &echo);
    assert_eq!(answer["result"]["content"][0]["text"], "a\nb");
    let add = json!({ "name": "add", "arguments": { "a": 2, "b": 3 } });
    assert_eq!(demo.ask("tools/call", &add)["result"]["structuredContent"]["sum"], 5);
    let unknown = demo.ask("tools/call", &json!({ "name": "nope" }));
    assert_eq!(unknown["error"]["code"], -32602);
    assert!(demo.end().is_empty());
}

#[test]
fn a_line_that_is_no_message_does_not_end_the_demo() {
    let mut demo = Demo::start();
    demo.say("{garbage");
    let answer = demo.hear();
    assert_eq!((&answer["error"]["code"], answer.get("id")), (&json!(-32700), None));
    demo.input.write_all(b"\xff\xfe\n\r\n\n").unwrap();
    assert_eq!(demo.hear()["error"]["code"], -32700);
    // One byte more than a line may have.
    demo.input.write_all(&vec![b'x'; 4 * 1024 * 1024]).unwrap();
    demo.say("x");
    assert_eq!(demo.hear()["error"]["code"], -32700);
    assert_eq!(demo.ask("ping", &json!({}))["result"], json!({}));
    // The last line need not be ended.
    write!(demo.input, r#"{{"jsonrpc":"2.0","id":1,"method":"ping"}}"#).unwrap();
    assert_eq!(demo.end().len(), 1);
}

#[test]
fn a_slow_call_reports_progress_and_blocks_nobody() {
    let mut demo = Demo::start();
    demo.say(&slow("s", 1, 4));
    demo.say(r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#);
    let mut steps = Vec::new();
    let mut ids = Vec::new();
    while ids.len() < 2 {
        let message = demo.hear();
        if message["method"] == "notifications/progress" {
            assert_eq!(message["params"]["progressToken"], 7);
            steps.push(message["params"]["progress"].clone());
        } else {
            assert!(message.get("result").is_some(), "{message}");
            ids.push(message["id"].clone());
        }
    }
    assert_eq!(ids, ["p", "s"]);
    assert_eq!(steps, [1, 2, 3, 4]);
    assert!(demo.end().is_empty());
}

#[test]
fn a_cancelled_slow_call_says_nothing_more() {
    let mut demo = Demo::start();
    demo.say(&slow("s", 600, 1000));
    assert_eq!(demo.hear()["params"]["progress"], 1);
    demo.say(
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"s"}}"#,
    );
    // The same id is free again, which it is not while the call runs.
    demo.say(&slow("s", 0, 1));
    let answer = loop {
        let message = demo.hear();
        if message.get("id").is_some() {
            break message;
        }
    };
    assert!(answer["result"]["content"][0]["text"].as_str().unwrap().contains("1 step"));
    assert!(demo.end().is_empty());
}

#[test]
fn slow_calls_are_bounded_and_end_with_the_input() {
    let mut demo = Demo::start();
    for index in 0..33 {
        demo.say(&slow(&index.to_string(), 600, 1));
    }
    let refused = demo.hear();
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!("32"), &json!(-32603)));
    demo.say(&slow("0", 600, 1));
    assert_eq!(demo.hear()["error"]["code"], -32600);
    let start = Instant::now();
    assert!(demo.end().is_empty());
    assert!(start.elapsed() < PATIENCE);
}
