//! Conversations as data: each file under `fixtures/<revision>/` is sent step by step to a
//! gateway in front of one scripted server, and the answers must match. Adding a case needs no
//! Rust.
//!
//! A file holds `about`, `session` (whether the handshake goes before) and `steps` of `send`
//! (`method`, `path`, `headers`, and `body` as JSON or `text` as it is) and `expect` (`status`,
//! `headers`, `body`). `{session}` in a header is the session's id, `{ended}` that of one which
//! has ended. An expected object names the keys that must be there; an expected array is whole.
//! The placeholders `<any>`, `<string>`, `<number>`, `<object>`, `<array>` stand for any value of
//! the kind, `<absent>` for none, `<none>` for none or null, `<empty>` as a body for no bytes, `<contains:TEXT>` for a string
//! with that text.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::gateway::Gateway;
use crate::support::http::Request;
use crate::support::mcp::{BOTH, McpClient};
use crate::support::upstream_http::HttpUpstream;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// Where `seen` differs from `wanted`; nothing if it does not.
fn difference(wanted: &Value, seen: Option<&Value>, at: &str) -> Option<String> {
    let wrong = || Some(format!("{at}: wanted {wanted}, saw {seen:?}"));
    if wanted == "<absent>" {
        return seen.and_then(|_| wrong());
    }
    if wanted == "<none>" {
        return seen.filter(|value| !value.is_null()).and_then(|_| wrong());
    }
    let Some(value) = seen else { return wrong() };
    match wanted {
        Value::String(text) if text.starts_with('<') && text.ends_with('>') => {
            let fits = match text.as_str() {
                "<any>" => true,
                "<string>" => value.is_string(),
                "<number>" => value.is_number(),
                "<object>" => value.is_object(),
                "<array>" => value.is_array(),
                other => {
                    let part =
                        other.strip_prefix("<contains:").and_then(|t| t.strip_suffix('>'));
                    let part = part.unwrap_or_else(|| panic!("no placeholder: {other}"));
                    value.as_str().is_some_and(|text| text.contains(part))
                }
            };
            if fits { None } else { wrong() }
        }
        Value::Object(fields) => fields.iter().find_map(|(key, wanted)| {
            difference(wanted, value.get(key), &format!("{at}/{key}"))
        }),
        Value::Array(items) => {
            let same_length = value.as_array().is_some_and(|seen| seen.len() == items.len());
            if !same_length {
                return wrong();
            }
            items
                .iter()
                .enumerate()
                .find_map(|(n, wanted)| difference(wanted, value.get(n), &format!("{at}/{n}")))
        }
        _ if wanted == value => None,
        _ => wrong(),
    }
}

struct Ids {
    session: String,
    ended: String,
}

fn request(send: &Value, ids: &Ids) -> Request {
    let method = send["method"].as_str().unwrap_or("POST");
    let mut request = Request::new(method, send["path"].as_str().unwrap_or("/mcp"));
    let mut headers = json!({ "Accept": BOTH });
    if method == "POST" {
        headers["Content-Type"] = json!("application/json");
    }
    for (name, value) in send["headers"].as_object().into_iter().flatten() {
        headers[name] = value.clone();
    }
    // A null takes away what is sent by itself.
    for (name, value) in headers.as_object().unwrap() {
        let Some(value) = value.as_str() else { continue };
        let value = value.replace("{session}", &ids.session).replace("{ended}", &ids.ended);
        request = request.header(name, &value);
    }
    match (send.get("body"), send.get("text")) {
        (Some(body), _) => request.body(&body.to_string()),
        (None, Some(text)) => request.body(text.as_str().unwrap()),
        (None, None) => request,
    }
}

fn run_step(gateway: &Gateway, step: &Value, ids: &Ids) -> Result<(), String> {
    let answer = gateway.send(&request(&step["send"], ids));
    let expect = &step["expect"];
    if expect["status"] != json!(answer.status()) {
        return Err(format!("wanted status {}: {answer}", expect["status"]));
    }
    for (name, wanted) in expect["headers"].as_object().into_iter().flatten() {
        let seen = answer.header(name).map(|value| json!(value));
        if let Some(difference) = difference(wanted, seen.as_ref(), name) {
            return Err(format!("{difference} in {answer}"));
        }
    }
    match expect.get("body") {
        None => Ok(()),
        Some(wanted) if wanted == "<empty>" => {
            if answer.body.is_empty() {
                Ok(())
            } else {
                Err(format!("a body: {answer}"))
            }
        }
        Some(wanted) => match difference(wanted, Some(&answer.message()), "body") {
            None => Ok(()),
            Some(difference) => Err(format!("{difference} in {answer}")),
        },
    }
}

fn run_file(gateway: &Gateway, path: &Path, revision: &str, failures: &mut Vec<String>) {
    let text = std::fs::read_to_string(path).unwrap();
    let file: Value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let open = || McpClient::new(gateway.address()).speaking(revision).opened();
    let ids = if file["session"] == json!(true) {
        let ended = open();
        ended.end();
        Ids { session: open().session().to_owned(), ended: ended.session().to_owned() }
    } else {
        Ids { session: String::new(), ended: String::new() }
    };
    for (n, step) in file["steps"].as_array().unwrap().iter().enumerate() {
        if let Err(failure) = run_step(gateway, step, &ids) {
            failures.push(format!("{}, step {}: {failure}", path.display(), n + 1));
        }
    }
}

#[track_caller]
fn run_all_of(revision: &str) {
    let upstream = HttpUpstream::with_tools(&["echo", "add", "fail", "rpc_error"]);
    let gateway = Gateway::before(&upstream.url());
    let mut paths: Vec<PathBuf> = std::fs::read_dir(fixtures().join(revision))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no conversations of {revision}");
    let mut failures = Vec::new();
    for path in paths {
        run_file(&gateway, &path, revision, &mut failures);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn conversations_of_2024_11_05() {
    run_all_of("2024-11-05");
}

#[test]
fn conversations_of_2025_03_26() {
    run_all_of("2025-03-26");
}

#[test]
fn conversations_of_2025_06_18() {
    run_all_of("2025-06-18");
}

#[test]
fn conversations_of_2025_11_25() {
    run_all_of("2025-11-25");
}

#[test]
fn placeholders_match_what_they_say() {
    let seen = json!({"a": "text", "b": [1, {"c": null}], "d": 1.5});
    for (wanted, fits) in [
        (json!({"a": "<string>", "d": "<number>", "e": "<absent>"}), true),
        (json!({"b": [1, {"c": null}]}), true),
        (json!({"b": [1]}), false),
        (json!({"a": "<contains:ex>"}), true),
        (json!({"a": "<contains:zz>"}), false),
        (json!({"d": "<absent>"}), false),
        (json!({"e": "<any>"}), false),
        (json!({"b": "<object>"}), false),
    ] {
        assert_eq!(difference(&wanted, Some(&seen), "").is_none(), fits, "{wanted}");
    }
}
