//! The same with children, which are shell scripts that count what they read.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::{PATIENCE, TIMEOUT_MS, WINDOW};
use crate::support::figures::{starts_max, tries_max};
use crate::support::gateway::{Directory, Gateway, entry_of};
use crate::support::wait_within;

/// A pattern of the line at which the child fails, and what it does then in a shell's words.
struct Row {
    name: &'static str,
    is_modern: bool,
    at: &'static str,
    does: &'static str,
    /// What is counted.
    counted: &'static str,
    /// Whether the child is ready, and its calls go through.
    is_well: bool,
    is_tried_again: bool,
}

const fn list(name: &'static str, is_modern: bool, does: &'static str) -> Row {
    Row {
        name,
        is_modern,
        at: r#"*'"method":"tools/list"'*"#,
        does,
        counted: "tools/list",
        is_well: true,
        is_tried_again: true,
    }
}

const fn listen(name: &'static str, does: &'static str, is_tried_again: bool) -> Row {
    Row {
        name,
        is_modern: true,
        at: r#"*'"method":"subscriptions/listen"'*"#,
        does,
        counted: "subscriptions/listen",
        is_well: true,
        is_tried_again,
    }
}

const fn start(
    name: &'static str,
    is_modern: bool,
    at: &'static str,
    does: &'static str,
) -> Row {
    Row { name, is_modern, at, does, counted: "start", is_well: false, is_tried_again: true }
}

const REFUSES: &str = r#"error -32603"#;

const ROWS: &[Row] = &[
    list("list_is_null", false, r#"answer '{"tools":null}'"#),
    list("list_is_none", false, "answer '{}'"),
    list("list_has_a_numeric_cursor", false, r#"answer '{"tools":[],"nextCursor":7}'"#),
    list("list_is_refused", false, REFUSES),
    list("list_is_never_answered", false, ":"),
    list("modern_list_is_null", true, r#"answer '{"resultType":"complete","tools":null}'"#),
    list("modern_list_is_refused", true, REFUSES),
    list("modern_list_is_never_answered", true, ":"),
    listen("listening_is_refused", REFUSES, true),
    listen("listening_ends", r#"answer '{"resultType":"complete"}'"#, true),
    listen("listening_is_unknown", "error -32601", false),
    start("ends_at_its_list", false, r#"*'"method":"tools/list"'*"#, "exit 3"),
    start("ends_at_its_start", false, "*", "exit 3"),
    start("modern_ends_at_its_list", true, r#"*'"method":"tools/list"'*"#, "exit 3"),
    start("refuses_to_begin", false, r#"*'"method":"initialize"'*"#, REFUSES),
];

const SERVER: &str = r#"
count() { echo "$1" >> COUNTS; }
answer() { printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$1"; }
error() { printf '{"jsonrpc":"2.0","id":%s,"error":{"code":%s,"message":"not now"}}\n' "$id" "$1"; }
count start
while IFS= read -r line; do
  id="${line#*\"id\":}"; id="${id%%[,\}]*}"
  method="${line#*\"method\":\"}"; count "${method%%\"*}"
  case "$line" in
    AT) DOES ;;
    BEGINS
    *'"method":"ping"'*) answer '{}' ;;
    *'"method":"prompts/list"'*) answer '{"resultType":"complete","ttlMs":600000,"cacheScope":"public","prompts":[]}' ;;
    *'"method":"tools/list"'*) answer '{"resultType":"complete","ttlMs":600000,"cacheScope":"public","tools":[{"name":"echo","inputSchema":{"type":"object"}}]}' ;;
    *'"method":"tools/call"'*) answer '{"resultType":"complete","content":[{"type":"text","text":"well"}]}' ;;
    *'"id":'*) error -32601 ;;
  esac
done
"#;

const LEGACY: &str = r#"*'"method":"initialize"'*) answer '{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"sh","version":"1"}}' ;;"#;
const MODERN: &str = r#"*'"method":"server/discover"'*) answer '{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{"listChanged":true}},"ttlMs":60000,"cacheScope":"public"}' ;;"#;

fn counts(directory: &Path, row: &Row) -> HashMap<String, usize> {
    let text = std::fs::read_to_string(directory.join(row.name)).unwrap_or_default();
    let mut counts = HashMap::new();
    for line in text.lines() {
        *counts.entry(line.to_owned()).or_default() += 1;
    }
    counts
}

/// The configuration of children like these, which declare `capability`.
fn configured(directory: &Path, rows: &[Row], capability: &str) -> Value {
    let mut servers = Map::new();
    for row in rows {
        let begins = if row.is_modern { MODERN } else { LEGACY };
        let script = SERVER
            .replace("COUNTS", &format!("'{}'", directory.join(row.name).display()))
            .replace("AT)", &format!("{})", row.at))
            .replace("DOES", row.does)
            .replace("BEGINS", &begins.replace("\"tools\":", &format!("\"{capability}\":")));
        let file = directory.join(format!("{}.sh", row.name));
        std::fs::write(&file, script).unwrap();
        let args = json!([file.to_str().unwrap()]);
        let entry = json!({ "command": "sh", "args": args, "timeout_ms": TIMEOUT_MS, "start_timeout_ms": TIMEOUT_MS });
        servers.insert(row.name.to_owned(), entry);
    }
    json!({ "mcp_servers": servers })
}

#[test]
fn children_are_asked_and_started_by_and_by() {
    let directory = Directory::new();
    let began = Instant::now();
    let gateway = Gateway::with(configured(directory.path(), ROWS, "tools")).start();
    while began.elapsed() < WINDOW {
        std::thread::park_timeout(Duration::from_millis(500));
    }
    for row in ROWS {
        let counts = counts(directory.path(), row);
        let max = match (row.counted, row.does) {
            // It may refuse only because it was asked the other question before, so that each try
            // asks a fresh process too.
            ("start", REFUSES) => 2 * starts_max(began.elapsed()),
            // Its first question may have been too much for it, so that the first try starts two.
            ("start", _) => starts_max(began.elapsed()) + 1,
            _ => tries_max(began.elapsed()) + 1,
        };
        let n = counts.get(row.counted).copied().unwrap_or_default();
        let least = if row.is_tried_again { 2 } else { 1 };
        assert!((least..=max).contains(&n), "{}: {counts:?}, not {max}", row.name);
        let status: Value = gateway.status_of(row.name);
        if row.is_well {
            assert_eq!(counts["start"], 1, "{}: {counts:?}", row.name);
            assert_eq!(status["state"], "ready", "{}: {status}", row.name);
        }
    }
}

/// Children that declare no tools, at what they make of being asked for some.
const UNDECLARED: &[Row] = &[
    list(
        "lists",
        false,
        r#"answer '{"tools":[{"name":"echo","inputSchema":{"type":"object"}}]}'"#,
    ),
    list("has_none", false, r#"answer '{"tools":[]}'"#),
    list("is_unknown", false, "error -32601"),
    list("is_refused", false, REFUSES),
    list("is_nonsense", false, "answer '[]'"),
    list("is_never_answered", false, ":"),
    list("modern_is_unknown", true, "error -32601"),
    list("modern_is_never_answered", true, ":"),
    list("ends_when_asked", false, "exit 3"),
];

#[test]
fn a_child_that_declares_no_tools_is_asked_for_them_once() {
    let directory = Directory::new();
    let gateway = Gateway::with(configured(directory.path(), UNDECLARED, "prompts")).start();
    for row in UNDECLARED {
        let counted = || counts(directory.path(), row);
        wait_within(PATIENCE, row.name, || {
            let is_ready = gateway.status_of(row.name)["state"] == "ready";
            (is_ready && counted().contains_key("prompts/list")).then_some(())
        });
        wait_within(PATIENCE, row.name, || {
            // Until what it has listed is known, its last failure is all that is known of it.
            let list = gateway.list();
            let entry = entry_of(&list["upstreams"], row.name)?;
            (entry["outcome"] == "ok").then_some(())
        });
        let name = format!("{}-echo", row.name);
        if row.name == "lists" {
            gateway.wait_for_tool(&name);
            assert_eq!(gateway.call_text(&name, &json!({})), "well");
        } else {
            // It waits until the list is read again, where it is.
            assert_eq!(gateway.call(&name, &json!({})).status(), 404, "{name}");
        }
        let (counts, status) = (counted(), gateway.status_of(row.name));
        assert_eq!(counts["tools/list"], 1, "{}: {counts:?}", row.name);
        assert_eq!(status["state"], "ready", "{}: {status}", row.name);
        let is_well = row.name != "ends_when_asked";
        assert_eq!(counts["start"], if is_well { 1 } else { 2 }, "{}: {counts:?}", row.name);
        if is_well {
            assert!(status["last_failure"].is_null(), "{}: {status}", row.name);
        }
    }
}
