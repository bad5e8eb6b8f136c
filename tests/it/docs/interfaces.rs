//! The pages about endpoints and commands against the program.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, binary};
use crate::support::http::Request;
use crate::support::pages::{blocks, page, quoted, source, table};

const ENDPOINTS: &str = "endpoints.md";

/// The methods of each path that the table names, of a server called `demo`.
fn endpoints() -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in table(ENDPOINTS, "method and path") {
        for endpoint in quoted(&row[0]) {
            let (method, path) = endpoint.split_once(' ').unwrap();
            let methods = all
                .entry(path.replace("{server}", "demo").replace("{id}", "demo"))
                .or_default();
            assert!(methods.insert(method.to_owned()), "{endpoint} stands there twice");
        }
    }
    all
}

#[test]
fn the_table_has_every_endpoint_with_its_methods() {
    let gateway = Gateway::started(
        json!({ "mcp_servers": { "demo": { "command": "trunkline", "args": ["demo"] } } }),
    );
    let told = endpoints();
    for (path, methods) in &told {
        let answer = gateway.send(&Request::new("OPTIONS", path));
        let allowed = answer.header("Allow").unwrap_or_else(|| panic!("{path}: nothing"));
        let allowed = allowed.split(", ").filter(|it| !["HEAD", "OPTIONS"].contains(it));
        let allowed: BTreeSet<_> = allowed.map(str::to_owned).collect();
        assert_eq!(*methods, allowed, "{path}");
    }
    // No path is served but those: all words of the code's paths stand in the table's.
    let code = source("src/downstream/endpoint.rs");
    let (code, _) = code.split_once("#[cfg(test)]").unwrap();
    let is_of_path = |line: &&str| line.contains("Some(") || line.contains("\"console");
    let routes: String = code.lines().filter(is_of_path).collect();
    let words = routes.split('"').skip(1).step_by(2).filter(|word| !["/", ""].contains(word));
    let served: BTreeSet<_> = words.map(str::to_owned).collect();
    let segments = told.keys().flat_map(|path| path.split('/').skip(1));
    let mut named: BTreeSet<_> = segments.map(str::to_owned).collect();
    assert!(named.remove("demo") && named.remove(""));
    assert_eq!(named, served);
}

/// The statuses and words of errors that `reply.rs` makes.
fn errors_made() -> BTreeSet<(u16, String)> {
    let files = ["status_codes", "token_problems"];
    let code = files.map(|name| source(&format!("src/downstream/{name}.rs"))).concat();
    let is_status = |text: &str| text.len() == 3 && matches!(text.as_bytes()[0], b'4' | b'5');
    let numbers = code.match_indices(|c: char| c.is_ascii_digit());
    let mut found = BTreeSet::new();
    for (at, _) in numbers {
        let Some(status) = code.get(at..at + 3).filter(|text| is_status(text)) else {
            continue;
        };
        let Ok(status) = status.parse() else { continue };
        let rest = code[at + 3..].trim_start();
        let rest = rest.strip_prefix(',').or_else(|| rest.strip_prefix("=>"));
        let Some(rest) = rest.and_then(|rest| rest.trim_start().strip_prefix('"')) else {
            continue;
        };
        let word = rest.split_once('"').unwrap().0;
        found.insert((status, word.to_owned()));
    }
    // Words that stand elsewhere than beside their status.
    for word in ["ambiguous_tool", "ambiguous_prompt", "ambiguous_resource"] {
        assert!(code.contains(&format!("\"{word}\"")), "{word}");
        found.insert((409, word.to_owned()));
    }
    assert!(code.contains("let word = \"not_admin\"") && code.contains("403, word"));
    found.insert((403, "not_admin".to_owned()));
    // A token that is not good is told in the words of the verification.
    let codes = source("src/resource_server/denied.rs");
    for word in ["invalid_token", "invalid_dpop_proof"] {
        assert!(codes.contains(&format!("\"{word}\"")), "{word}");
        found.insert((401, word.to_owned()));
    }
    found
}

#[test]
fn the_table_has_every_error_with_its_status() {
    let mut told = BTreeSet::new();
    for row in table(ENDPOINTS, "status") {
        let status: u16 = row[0].parse().unwrap();
        let words = quoted(&row[1]);
        assert!(!words.is_empty(), "{row:?}");
        told.extend(words.into_iter().map(|word| (status, word.to_owned())));
    }
    assert_eq!(told, errors_made());
}

#[test]
fn every_stage_is_told() {
    let code = source("src/error.rs");
    let (_, code) = code.split_once("impl Stage {").unwrap();
    let (code, _) = code.split_once("impl fmt::Display for Stage").unwrap();
    let stages: BTreeSet<_> = code.split('"').skip(1).step_by(2).collect();
    let text = page(ENDPOINTS);
    let line = text.lines().find(|line| line.starts_with("The words of `stage` are ")).unwrap();
    let told: BTreeSet<_> = quoted(line).into_iter().filter(|word| *word != "stage").collect();
    assert_eq!(told, stages);
}

/// What `--help` prints.
fn help() -> String {
    let output = Command::new(binary()).arg("--help").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_table_has_every_command() {
    let help = help();
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let commands = commands.lines().take_while(|line| !line.is_empty());
    let commands: Vec<_> =
        commands.map(|line| line.split_whitespace().next().unwrap()).collect();
    let rows = table("commands.md", "command");
    let told: Vec<_> =
        rows.iter().map(|row| quoted(&row[0])[0].strip_prefix("trunkline ").unwrap()).collect();
    assert_eq!(told, commands);
}

#[test]
fn the_table_has_every_exit_code() {
    let code = source("src/cli/mod.rs");
    let numbers =
        code.lines().filter(|line| line.contains("const ") && line.contains(": u8 = "));
    let mut numbers: Vec<u8> = numbers
        .map(|line| {
            line.split_once(": u8 = ").unwrap().1.trim_end_matches(';').parse().unwrap()
        })
        .collect();
    numbers.sort_unstable();
    let rows = table("commands.md", "code");
    let told: Vec<u8> = rows.iter().map(|row| row[0].parse().unwrap()).collect();
    assert_eq!(told, numbers);
}

/// The words of a command of a POSIX shell that has no expansions.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = None;
    let mut quote = None;
    for char in command.chars() {
        match (quote, char) {
            (Some(open), close) if open == close => quote = None,
            (Some(_), other) => word.get_or_insert_with(String::new).push(other),
            (None, '\'' | '"') => {
                quote = Some(char);
                word.get_or_insert_with(String::new);
            }
            (None, blank) if blank.is_whitespace() => words.extend(word.take()),
            (None, other) => word.get_or_insert_with(String::new).push(other),
        }
    }
    words.extend(word);
    words
}

/// The commands of the page of endpoints that begin with `curl`, need no key and print what they
/// get, in their order.
fn curl_commands() -> Vec<Vec<String>> {
    let commands = blocks(ENDPOINTS, "sh").join("\n").replace("\\\n", " ");
    let curls = commands.lines().filter(|line| line.starts_with("curl "));
    let shown = |line: &&str| !line.contains('$') && !line.contains(" -o ");
    curls.filter(shown).map(words).collect()
}

/// Runs a command of the page against this address; gives what it prints.
#[track_caller]
fn run(command: &[String], address: &str) -> String {
    let arguments = command[1..].iter().map(|word| word.replace("localhost:4000", address));
    // Neither a proxy nor a file of the machine's may have a say.
    let output = Command::new("curl")
        .args(["-q", "--silent", "--show-error", "--fail-with-body", "--noproxy", "*"])
        .args(["--max-time", "20"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_requests_of_the_page_work_with_the_shipped_configuration() {
    let commands = curl_commands();
    let [list, of_one, call, initialize, stateless] = commands.as_slice() else {
        panic!("{commands:#?}")
    };
    if Command::new("curl").arg("--version").output().is_err() {
        crate::support::left_out(
            module_path!(),
            "there is no curl to run the page's commands with",
        );
        return;
    }
    let mut config: Value = serde_json::from_str(&source("config.json")).unwrap();
    assert_eq!(config["listen"], "127.0.0.1:4000");
    config["listen"] = json!("127.0.0.1:0");
    let gateway = Gateway::started(config);
    for list in [list, of_one] {
        let listed: Value = serde_json::from_str(&run(list, gateway.address())).unwrap();
        let names: Vec<_> =
            listed["tools"].as_array().unwrap().iter().map(|t| &t["name"]).collect();
        assert!(names.contains(&&json!("echo")), "{names:?}");
    }
    let called: Value = serde_json::from_str(&run(call, gateway.address())).unwrap();
    assert_eq!(called["content"][0]["text"], "hello");
    let opened = run(initialize, gateway.address());
    assert!(opened.to_ascii_lowercase().contains("mcp-session-id: "), "{opened}");
    assert!(opened.contains("\"protocolVersion\""), "{opened}");
    let called: Value = serde_json::from_str(&run(stateless, gateway.address())).unwrap();
    assert_eq!(called["result"]["content"][0]["text"], "hello", "{called}");
    assert_eq!(called["result"]["resultType"], "complete");
}
