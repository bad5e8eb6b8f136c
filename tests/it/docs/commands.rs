//! The README and `docs/` are run: each command, configuration and program in a fenced block,
//! the commands that the text names, and the links.

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::{Map, Value, json};

use crate::support::gateway::{Directory, Gateway, binary, signal_process};
use crate::support::http::Request;
use crate::support::markdown::{Block, Document, commands, documents};
use crate::support::mcp::{LATEST, initialize_message};
use crate::support::program::root;
use crate::support::wait_until;

/// Nobody reads a longer one to its end.
const README_WORDS_MAX: usize = 1500;

/// The commands that no test runs here, by their first words, and why. `make` is held against
/// the Makefile. Each row is about some command: another one is taken out.
const NOT_RUN: &[(&str, &str)] = &[
    ("cargo install", "it builds the program for minutes, as the tests have been built"),
    ("cargo run", "it builds the program for minutes, as the tests have been built"),
    ("cargo test", "it is what runs this"),
    ("claude mcp add", "Claude Code cannot be installed here; make interop has other clients"),
    ("cp target/dist/trunkline-*-x86_64-linux/trunkline", "it copies what make dist makes"),
    ("docker build", "it needs Docker"),
    ("docker run", "it needs Docker"),
    ("npx @modelcontextprotocol/inspector", "it is fetched; make interop runs the inspector"),
    ("openssl req", "not every machine has openssl"),
    ("rc-service trunkline", "it needs OpenRC"),
    ("rc-update add", "it needs OpenRC"),
    ("sudo systemctl", "it needs systemd, and the package installed"),
];

/// The languages of snippets that `tests/interop/readme_snippets.py` runs with stock SDKs.
const SNIPPETS: [&str; 3] = ["python", "js", "ts"];

/// The address that the documents name.
const ADDRESSES: [&str; 2] = ["localhost:4000", "127.0.0.1:4000"];

/// A key as `trunkline new-key` makes them.
const KEY: &str = "trunkline_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// LiteLLM's configuration, of which a user comes.
const LITELLM: &str = r#"mcp_servers:
  my_mcp_server:
    url: "http://localhost:8001/mcp"
    transport: "http"
    description: "My custom MCP server"
"#;

fn all_blocks() -> Vec<Block> {
    documents().iter().flat_map(Document::blocks).collect()
}

fn blocks_of(kind: &str) -> Vec<Block> {
    all_blocks().into_iter().filter(|block| block.kind == kind).collect()
}

#[test]
fn the_readme_is_short() {
    let words = documents()[0].text.split_whitespace().count();
    assert!(words <= README_WORDS_MAX, "the README has {words} words");
}

#[test]
fn every_block_is_of_a_kind_that_is_tested() {
    let blocks = all_blocks();
    for kind in ["sh", "json", "python", "ts"] {
        assert!(blocks.iter().any(|block| block.kind == kind), "there is no {kind} block");
    }
    for Block { place, kind, text } in blocks {
        match kind.as_str() {
            "sh" | "json" | "yaml" => {}
            snippet if SNIPPETS.contains(&snippet) => {}
            "json answer" => {
                let answer = serde_json::from_str::<Value>(&text);
                assert!(answer.is_ok(), "{place}: {answer:?}");
            }
            // What is printed, and files of other programs.
            "text" => {
                let is_command = |line: &&str| {
                    ["$ ", "curl ", "trunkline "].iter().any(|start| line.starts_with(start))
                };
                let found = text.lines().find(is_command);
                assert_eq!(found, None, "{place}: a command stands in a block of sh");
            }
            other => panic!("{place}: no test runs a block of {other:?}"),
        }
    }
}

/// A gateway as the documents have it, and the files that lie beside a user's terminal.
struct Desk {
    gateway: Gateway,
    key: Option<&'static str>,
    /// Has the commands that scripts find first.
    bin: Directory,
}

impl Desk {
    /// With the shipped configuration, and what else the documents' commands ask of it.
    fn new(key: Option<&'static str>) -> Desk {
        let shipped = std::fs::read_to_string(root().join("config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&shipped).unwrap();
        assert_eq!(config["listen"], "127.0.0.1:4000");
        config["listen"] = json!("127.0.0.1:0");
        config["state_dir"] = json!("state");
        config["mcp_servers"]["demo"]["pin"] = json!("warn");
        if key.is_some() {
            let admin = json!({ "name": "ops", "key": "${TRUNKLINE_KEY}", "admin": true });
            config["api_keys"] = json!([admin]);
        }
        let gateway = Gateway::with(config).env("TRUNKLINE_KEY", KEY).start();
        if key.is_none() {
            gateway.wait_ready();
        }
        let bin = Directory::new();
        symlink(binary(), bin.path().join("trunkline")).unwrap();
        // Neither a proxy nor a file of the machine's may have a say, and what fails, fails.
        let curl = "#!/bin/sh\nPATH=${PATH#*:}\nexec curl -q --silent --show-error \
            --fail-with-body --noproxy '*' --max-time 20 \"$@\"\n";
        let path = bin.path().join("curl");
        std::fs::write(&path, curl).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        Desk { gateway, key, bin }
    }

    /// A folder with the files that the commands name.
    fn folder(&self) -> Directory {
        let folder = Directory::new();
        let of_gateway = self.gateway.directory();
        let text = std::fs::read_to_string(of_gateway.join("config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config["listen"] = json!(self.gateway.address());
        config["state_dir"] = json!(of_gateway.join("state"));
        let desktop = json!({ "mcpServers": config["mcp_servers"] });
        let files = [
            ("config.json", config.to_string()),
            ("litellm.yaml", LITELLM.to_owned()),
            ("claude_desktop_config.json", desktop.to_string()),
        ];
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    /// A shell that finds the program, in this folder.
    fn shell(&self, script: &str, folder: &Directory) -> Command {
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new("timeout");
        command.args(["60", "sh", "-eu", "-c", script]).current_dir(folder.path());
        command.env_clear().env("PATH", format!("{}:{path}", self.bin.path().display()));
        command.env("HOME", folder.path()).envs(self.key.map(|key| ("TRUNKLINE_KEY", key)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The command with the address at which the gateway is here. Its port may begin with the
    /// digits of the documents' one.
    fn addressed(&self, text: &str) -> String {
        ADDRESSES.iter().fold(text.to_owned(), |text, address| {
            let mut parts = text.split(address);
            let first = parts.next().unwrap_or_default().to_owned();
            parts.fold(first, |before, after| {
                let is_longer = after.starts_with(|next: char| next.is_ascii_digit());
                let here = if is_longer { address } else { self.gateway.address() };
                before + here + after
            })
        })
    }

    fn run(&self, script: &str, folder: &Directory) -> Output {
        self.shell(&self.addressed(script), folder).output().unwrap()
    }
}

/// What a script that failed has printed.
fn failure(place: &str, script: &str, output: &Output) -> Option<String> {
    let [stdout, stderr] =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    let status = output.status;
    (!status.success()).then(|| format!("{place}: {status}\n{script}\n{stdout}\n{stderr}"))
}

#[track_caller]
fn check_success(place: &str, script: &str, output: &Output) {
    assert_eq!(failure(place, script, output), None);
}

/// Whether this command runs until it is stopped.
fn stays(command: &str) -> bool {
    let words: Vec<_> = command.split_whitespace().collect();
    match words.as_slice() {
        ["trunkline"] | ["trunkline", "serve", ..] | ["trunkline", "-c" | "--config", _] => {
            true
        }
        ["trunkline", "demo", rest @ ..] => rest.contains(&"--http"),
        ["trunkline", file] => file.ends_with(".json"),
        _ => false,
    }
}

/// Starts what stays, on a free port, until it serves, and stops it.
#[track_caller]
fn check_start(place: &str, command: &str) {
    let folder = Directory::new();
    std::fs::copy(root().join("config.json"), folder.path().join("config.json")).unwrap();
    let mut words: Vec<_> = command.split_whitespace().skip(1).collect();
    if let Some(at) = words.iter().position(|word| ["--listen", "--http"].contains(word)) {
        words[at + 1] = "127.0.0.1:0";
    } else {
        if words.first() != Some(&"serve") {
            words.insert(0, "serve");
        }
        if let Some(file) = words.get_mut(1).filter(|word| word.ends_with(".json")) {
            *file = "--config=config.json";
        }
        words.push("--listen=127.0.0.1:0");
    }
    let log = folder.path().join("log");
    let mut child = Command::new(binary())
        .args(&words)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    wait_until(&format!("{place}: {command} serves"), || {
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(child.try_wait().unwrap().is_none(), "{place}: {command} ended: {said}");
        said.contains("listening on http://")
    });
    signal_process(child.id(), Signal::TERM);
    let status = child.wait().unwrap();
    assert!(status.success(), "{place}: {command}: {status}");
}

/// The targets of the Makefile.
fn make_targets() -> Vec<String> {
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    let rules = makefile.lines().filter_map(|line| line.strip_prefix(".PHONY: "));
    rules.map(str::to_owned).collect()
}

/// Whether the command is one of another machine; it is held against what there is to hold it
/// against, and the row that excepts it is noted.
fn is_excepted(place: &str, command: &str, used: &mut BTreeSet<&'static str>) -> bool {
    if let Some(target) = command.strip_prefix("make ") {
        let target = target.split_whitespace().next().unwrap();
        assert!(make_targets().iter().any(|known| known == target), "{place}: make {target}");
        return true;
    }
    let row = NOT_RUN.iter().find(|(start, why)| {
        assert!(!why.is_empty());
        command == *start
            || command.strip_prefix(start).is_some_and(|rest| rest.starts_with(' '))
    });
    used.extend(row.map(|(start, _)| *start));
    row.is_some()
}

#[test]
fn every_command_in_a_block_runs() {
    if Command::new("curl").arg("--version").output().is_err() {
        crate::support::left_out(
            module_path!(),
            "there is no curl to run the documents' commands with",
        );
        return;
    }
    let (open, keyed) = (Desk::new(None), Desk::new(Some(KEY)));
    let mut used = BTreeSet::new();
    let mut failures = Vec::new();
    let is_recipe = |block: &Block| block.place.contains(super::identity::PAGE);
    // Recipes need servers that want tokens: identity.rs follows them.
    for Block { place, text, .. } in blocks_of("sh").into_iter().filter(|it| !is_recipe(it)) {
        let desk = if text.contains("TRUNKLINE_KEY") { &keyed } else { &open };
        let folder = desk.folder();
        // Commands of one block see each other's variables.
        let mut script = String::new();
        let mut ran = 0;
        for command in commands(&text) {
            ran += 1;
            if stays(&command) {
                check_start(&place, &command);
            } else if is_excepted(&place, &command, &mut used) {
                let words = command.split_whitespace();
                let urls = words.filter(|word| word.starts_with("http://"));
                urls.for_each(|url| check_url(&open, &place, url));
            } else {
                script.push_str(&command);
                script.push('\n');
            }
        }
        assert!(ran > 0, "{place}: the block has no command");
        failures.extend(failure(&place, &script, &desk.run(&script, &folder)));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let unused: Vec<_> = NOT_RUN.iter().filter(|(start, _)| !used.contains(start)).collect();
    assert!(unused.is_empty(), "no document has these commands: {unused:?}");
}

#[test]
fn what_two_minutes_promises_comes() {
    let desk = Desk::new(None);
    let readme = &documents()[0];
    let blocks = readme.blocks();
    let curls = blocks.iter().find(|block| block.text.starts_with("curl ")).unwrap();
    let [list, call] = &commands(&curls.text)[..] else { panic!("{curls:?}") };
    let folder = desk.folder();
    let answer = |command: &str| {
        let output = desk.run(command, &folder);
        check_success(&curls.place, command, &output);
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    assert!(answer(list)["tools"].as_array().unwrap().len() > 2);
    assert_eq!(answer(call)["content"][0]["text"], "hello");
}

/// Holds a configuration against the program, as it reads files. Every variable that it names has
/// a value of its own, and the files of each server are there.
#[track_caller]
fn check_configuration(place: &str, configuration: &Value) {
    let folder = Directory::new();
    let text = configuration.to_string();
    std::fs::write(folder.path().join("config.json"), &text).unwrap();
    for server in configuration["mcp_servers"].as_object().into_iter().flat_map(Map::values) {
        let oauth = &server["oauth"];
        let files = [&server["ca_file"], &oauth["private_key_file"], &oauth["assertion_file"]];
        for name in files.iter().filter_map(|name| name.as_str()) {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
    }
    let issuers = configuration["oauth"]["issuers"].as_array().into_iter().flatten();
    for name in issuers.filter_map(|issuer| issuer["ca_file"].as_str()) {
        std::fs::write(folder.path().join(name), "").unwrap();
    }
    let names = text.split("${").skip(1).filter_map(|rest| rest.split(['}', ':']).next());
    let output = Command::new(binary())
        .args(["check", "--no-connect", "--json", "--config", "config.json"])
        .envs(names.map(|name| (name, format!("{name:v<32}"))))
        .current_dir(folder.path())
        .output()
        .unwrap();
    check_success(place, &text, &output);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["warnings"], json!([]), "{place}: {told}");
}

#[test]
fn every_configuration_is_valid_and_every_host_is_served() {
    let desk = Desk::new(None);
    for Block { place, text, .. } in blocks_of("json") {
        let json: Value =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{place}: {e}"));
        let object = json.as_object().unwrap_or_else(|| panic!("{place}: no object"));
        let hosts = ["mcpServers", "servers"].iter().find_map(|key| object.get(*key));
        if let Some(servers) = hosts {
            check_host(&desk, &place, servers);
            let imported = desk.folder();
            std::fs::write(imported.path().join("host.json"), &text).unwrap();
            let script = "trunkline import host.json";
            check_success(&place, script, &desk.run(script, &imported));
            continue;
        }
        let mut whole = json.clone();
        if !object.contains_key("mcp_servers") {
            whole["mcp_servers"] =
                json!({ "demo": { "command": "trunkline", "args": ["demo"] } });
        }
        check_configuration(&place, &whole);
    }
}

/// What is told to connect there finds the gateway.
#[track_caller]
fn check_url(desk: &Desk, place: &str, url: &str) {
    let path = ADDRESSES
        .iter()
        .find_map(|address| url.strip_prefix(&format!("http://{address}")))
        .unwrap_or_else(|| panic!("{place}: {url} is not the gateway"));
    let hello = initialize_message(1, LATEST);
    let accepted = "application/json, text/event-stream";
    let answer = desk.gateway.send(&Request::post(path, &hello).header("Accept", accepted));
    assert_eq!(answer.status(), 200, "{place}: {url}: {answer}");
    assert_eq!(answer.message()["result"]["protocolVersion"], LATEST, "{place}: {url}");
}

/// A host with these servers, each of which is the gateway, gets an answer from it.
#[track_caller]
fn check_host(desk: &Desk, place: &str, servers: &Value) {
    for (name, server) in servers.as_object().unwrap() {
        if let Some(url) = server["url"].as_str() {
            check_url(desk, &format!("{place}: {name}"), url);
            continue;
        }
        let command = Path::new(server["command"].as_str().unwrap()).file_name().unwrap();
        assert_eq!(command, "trunkline", "{place}: {name}");
        let arguments = server["args"].as_array().unwrap().iter().map(|argument| {
            let argument = desk.addressed(argument.as_str().unwrap());
            if argument.ends_with(".json") { "config.json".to_owned() } else { argument }
        });
        let words: Vec<_> = arguments.collect();
        let hello = initialize_message(1, LATEST);
        let script = format!("echo '{hello}' | trunkline {}", words.join(" "));
        let output = desk.run(&script, &desk.folder());
        check_success(place, &script, &output);
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["result"]["protocolVersion"], LATEST, "{place}: {name}");
    }
}

#[test]
fn every_file_of_litellm_is_imported() {
    let desk = Desk::new(None);
    for Block { place, text, .. } in blocks_of("yaml") {
        let folder = desk.folder();
        std::fs::write(folder.path().join("host.yaml"), text).unwrap();
        let script = "trunkline import host.yaml";
        let output = desk.run(script, &folder);
        check_success(&place, script, &output);
        check_configuration(&place, &serde_json::from_slice(&output.stdout).unwrap());
    }
}

#[test]
fn every_program_is_run_by_the_interoperability_run() {
    let listed = Command::new("python3")
        .args(["tests/interop/readme_snippets.py", "--list"])
        .current_dir(root())
        .output();
    let Ok(listed) = listed else {
        crate::support::left_out(
            module_path!(),
            "there is no python3 to read the documents' programs with",
        );
        return;
    };
    check_success("readme_snippets.py", "--list", &listed);
    let listed = String::from_utf8(listed.stdout).unwrap();
    let told: Vec<_> = listed.lines().collect();
    let snippets = all_blocks().into_iter().filter(|b| SNIPPETS.contains(&b.kind.as_str()));
    let mine: Vec<_> =
        snippets.map(|block| format!("{} {}", block.place, block.kind)).collect();
    assert_eq!(told, mine);
    assert!(mine.len() >= 4, "{mine:?}");
}

#[test]
fn every_command_that_the_text_names_is_there() {
    let targets = make_targets();
    for (place, code) in documents().iter().flat_map(Document::code) {
        let words: Vec<_> = code.split_whitespace().collect();
        match words.as_slice() {
            ["make", target, ..] => {
                assert!(targets.iter().any(|known| known == target), "{place}: {code}");
            }
            ["trunkline", command, ..] if command.starts_with(|c: char| c.is_lowercase()) => {
                let help = Command::new(binary()).args(["help", command]).output().unwrap();
                check_success(&place, &code, &help);
                let help = String::from_utf8(help.stdout).unwrap();
                let options = words.iter().filter(|word| word.starts_with("--"));
                for option in options.map(|option| option.trim_end_matches(['.', ','])) {
                    assert!(help.contains(option), "{place}: {code}: no {option}");
                }
            }
            _ => {}
        }
    }
}

#[test]
fn every_link_leads_somewhere() {
    let security = ".github/SECURITY.md";
    let mut documents = documents();
    let text = std::fs::read_to_string(root().join(security)).unwrap();
    documents.push(Document { name: security.to_owned(), text });
    for document in &documents {
        for (place, target) in document.links() {
            if target.starts_with("https://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let folder = Path::new(&document.name).parent().unwrap();
            let path = if file.is_empty() {
                root().join(&document.name)
            } else {
                root().join(folder).join(file)
            };
            assert!(path.exists(), "{place}: {target} is not there");
            if !anchor.is_empty() {
                let text = std::fs::read_to_string(&path).unwrap();
                let anchors = Document { name: file.to_owned(), text }.anchors();
                assert!(anchors.iter().any(|known| known == anchor), "{place}: {target}");
            }
        }
    }
}
