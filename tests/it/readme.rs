//! The README against the program: its tables, its configurations, its commands.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use trunkline::config::{
    API_KEY_KEYS, Config, KEYS, LOG_KEYS, OTLP_KEYS, Overrides, SERVER_KEYS, TRANSPORT_KEYS,
    limit_keys,
};
use trunkline::limits::Limits;

use crate::support::gateway::Gateway;

const README: &str = include_str!("../../README.md");

/// Accepted keys that have no effect in this version, and which the README therefore leaves out.
const WITHOUT_EFFECT: [&str; 1] = ["forward_headers"];

/// The rows below the heading of the table whose first column is called so, cell by cell.
#[track_caller]
fn table(first_column: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        let inner = line.trim().trim_matches('|');
        inner.split(" | ").map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
    };
    let mut lines = README.lines();
    let found = lines.any(|line| line.starts_with('|') && cells(line)[0] == first_column);
    assert!(found, "the README has no table {first_column:?}");
    lines.skip(1).take_while(|line| line.starts_with('|')).map(cells).collect()
}

/// The texts between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The keys that a table names in its first column.
fn keys_in(table: &[Vec<String>]) -> Vec<String> {
    table.iter().flat_map(|row| quoted(&row[0])).map(str::to_owned).collect()
}

#[track_caller]
fn check_keys(mut told: Vec<String>, accepted: &[&str]) {
    let mut accepted: Vec<_> =
        accepted.iter().filter(|key| !WITHOUT_EFFECT.contains(key)).copied().collect();
    told.sort_unstable();
    accepted.sort_unstable();
    assert_eq!(told, accepted);
}

#[test]
fn every_key_with_an_effect_is_in_the_tables_and_no_other() {
    let mut top = keys_in(&table("key"));
    for key in &mut top {
        let name = key.trim_end_matches("[]").trim_end_matches(".NAME").to_owned();
        *key = name;
    }
    // Told beside LiteLLM's keys: the same key by another name.
    assert!(README.contains("`mcpServers` is read as the same key"));
    top.push("mcpServers".to_owned());
    check_keys(top, KEYS);
    check_keys(keys_in(&table("`mcp_servers.NAME.`")), SERVER_KEYS);
    check_keys(keys_in(&table("`limits.`")), limit_keys());
}

#[test]
fn the_exceptions_are_accepted_keys() {
    let accepted = [KEYS, SERVER_KEYS, limit_keys()].concat();
    for key in WITHOUT_EFFECT {
        assert!(accepted.contains(&key), "{key}");
    }
}

#[test]
fn the_keys_inside_of_keys_are_named() {
    let rows = table("key");
    let row = |key: &str| {
        let row = rows.iter().find(|row| quoted(&row[0]).contains(&key));
        row.unwrap_or_else(|| panic!("no row {key:?}")).join(" ")
    };
    for key in API_KEY_KEYS {
        assert!(row("api_keys[]").contains(&format!("`{key}`")), "{key}");
    }
    let inside = [("transports", TRANSPORT_KEYS), ("log", LOG_KEYS), ("otlp", OTLP_KEYS)];
    for (name, keys) in inside {
        for key in keys {
            assert!(row(name).contains(&format!("\"{key}\"")), "{name}: {key}");
        }
    }
}

/// The default of a bound, by its key.
fn default_of(key: &str) -> u128 {
    let limits = Limits::default();
    let counts = [
        ("connections", limits.connections),
        ("connections_per_address", limits.connections_per_address),
        ("buffered_bytes", limits.buffered_bytes),
        ("head_bytes", limits.head_bytes),
        ("headers", limits.headers),
        ("body_bytes", limits.body_bytes),
        ("sessions", limits.sessions),
        ("sessions_per_key", limits.sessions_per_key),
        ("page_items", limits.page_items),
        ("parked_calls", limits.parked_calls),
        ("parked_calls_per_key", limits.parked_calls_per_key),
        ("streams", limits.streams),
        ("stream_queue_bytes", limits.stream_queue_bytes),
        ("event_log_events", limits.event_log_events),
        ("event_log_bytes", limits.event_log_bytes),
        ("upstream_result_bytes", limits.upstream_result_bytes),
        ("upstream_event_bytes", limits.upstream_event_bytes),
        ("upstream_tools", limits.upstream_tools),
        ("views", limits.views),
        ("child_stderr_lines", limits.child_stderr_lines),
    ];
    let times = [
        ("head_ms", limits.head),
        ("body_ms", limits.body),
        ("idle_ms", limits.idle),
        ("write_ms", limits.write),
        ("session_idle_ms", limits.session_idle),
        ("parked_ms", limits.parked),
        ("heartbeat_ms", limits.heartbeat),
        ("drain_ms", limits.drain),
    ];
    let count = counts.into_iter().find(|(name, _)| *name == key);
    let time = times.into_iter().find(|(name, _)| *name == key);
    match (count, time) {
        (Some((_, count)), None) => u128::try_from(count).unwrap(),
        (None, Some((_, time))) => time.as_millis(),
        _ => panic!("no bound {key:?}"),
    }
}

#[test]
fn the_bounds_have_the_defaults_that_are_told() {
    for row in table("`limits.`") {
        let told: Vec<u128> =
            row[1].split(", ").map(|number| number.parse().unwrap()).collect();
        let keys = quoted(&row[0]);
        let defaults: Vec<u128> = keys.iter().map(|key| default_of(key)).collect();
        assert_eq!(told, defaults, "{keys:?}");
    }
}

fn check(config: &str) -> Result<Config, String> {
    let any = |_: &str| Some("v".repeat(32));
    Config::parse(config, &any, &Overrides::default())
        .map_err(|problems| format!("{config}: {problems:#?}"))
}

#[test]
fn a_server_has_the_defaults_that_are_told() {
    let config = r#"{"mcp_servers":{
        "h":{"url":"http://h/mcp"},
        "s":{"command":"c"}
    }}"#;
    let config = check(config).unwrap();
    let (http, stdio) = (&config.upstreams[0], &config.upstreams[1]);
    let rows = table("`mcp_servers.NAME.`");
    let told = |key: &str| {
        let row = rows.iter().find(|row| quoted(&row[0])[0] == key).unwrap();
        row[1].clone()
    };
    let times = [http.timeout, http.timeout_max, http.connect_timeout].map(|t| t.as_millis());
    assert_eq!(told("timeout_ms"), times.map(|time| time.to_string()).join(", "));
    assert_eq!(told("start_timeout_ms"), stdio.start_timeout.as_millis().to_string());
    let calls = format!("{}, {}", http.max_in_flight, http.max_waiting);
    assert_eq!(told("max_in_flight"), calls);
    let sessions = format!("{} (stdio {}), `auto`", http.max_sessions, stdio.max_sessions);
    assert_eq!(told("max_sessions"), sessions);
    assert_eq!(told("required"), http.required.to_string());
    let listen = table("key").into_iter().find(|row| row[0] == "`listen`").unwrap();
    assert_eq!(listen[1], format!("`{}`", config.listen));
}

/// The fenced blocks of one language.
fn blocks(language: &str) -> Vec<String> {
    let opening = format!("```{language}");
    let mut found = Vec::new();
    let mut lines = README.lines();
    while lines.any(|line| line == opening) {
        let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
        found.push(block.join("\n"));
    }
    found
}

#[test]
fn every_configuration_is_valid() {
    let configurations: Vec<_> =
        blocks("json").into_iter().filter(|block| block.contains("\"mcp_servers\"")).collect();
    assert!(!configurations.is_empty());
    for configuration in configurations {
        let config = check(&configuration).unwrap_or_else(|problem| panic!("{problem}"));
        assert!(config.warnings.is_empty(), "{configuration}: {:?}", config.warnings);
    }
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

/// The commands of "Two minutes" that begin with `curl`, in their order.
fn curl_commands() -> Vec<Vec<String>> {
    let commands = blocks("sh").join("\n").replace("\\\n", " ");
    let curls = commands.lines().filter(|line| line.starts_with("curl "));
    curls.map(words).collect()
}

/// Runs a command of the README against this address; gives what it prints.
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
#[expect(clippy::print_stderr, reason = "a test that is left out must be seen")]
fn the_commands_of_two_minutes_work_with_the_shipped_configuration() {
    let commands = curl_commands();
    let [list, call, initialize, stateless] = commands.as_slice() else {
        panic!("{commands:#?}")
    };
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("LEFT OUT: there is no curl to run the README's commands with");
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.json");
    let mut config: Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(config["listen"], "127.0.0.1:4000");
    config["listen"] = json!("127.0.0.1:0");
    let gateway = Gateway::started(config);
    let listed: Value = serde_json::from_str(&run(list, gateway.address())).unwrap();
    let names: Vec<_> =
        listed["tools"].as_array().unwrap().iter().map(|t| &t["name"]).collect();
    assert!(names.contains(&&json!("echo")), "{names:?}");
    let called: Value = serde_json::from_str(&run(call, gateway.address())).unwrap();
    assert_eq!(called["content"][0]["text"], "hello");
    let opened = run(initialize, gateway.address());
    assert!(opened.to_ascii_lowercase().contains("mcp-session-id: "), "{opened}");
    assert!(opened.contains("\"protocolVersion\""), "{opened}");
    let called: Value = serde_json::from_str(&run(stateless, gateway.address())).unwrap();
    assert_eq!(called["result"]["content"][0]["text"], "hello", "{called}");
    assert_eq!(called["result"]["resultType"], "complete");
}

/// The text of all Rust files below a folder.
fn sources_below(folder: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text.push_str(&sources_below(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
    text
}

#[test]
fn every_defence_is_where_the_table_says_and_has_its_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources: String = ["src", "tests", "fuzz/targets"]
        .map(|folder| sources_below(&root.join(folder)))
        .concat();
    let rows = table("attack");
    assert!(rows.len() > 10);
    for row in rows.iter().skip(1) {
        let (places, tests) = (quoted(&row[2]), quoted(&row[3]));
        assert!(!places.is_empty() && !tests.is_empty(), "{row:?}");
        for place in places {
            assert!(root.join(place).exists(), "{place} is not there");
        }
        for test in tests {
            assert!(sources.contains(&format!("fn {test}()")), "there is no test {test}");
        }
    }
}
