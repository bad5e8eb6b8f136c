//! What is said of a `state_dir` that is not as it should be, and what a full disk leaves there.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;

use super::State;
use crate::support::gateway::{Gateway, stdio};
use crate::support::mcp::McpClient;
use crate::support::upstream_http::HttpUpstream;

#[test]
fn a_path_in_the_way_is_named_and_what_is_wrong_with_it() {
    let state = State::new();
    fs::write(state.path(), "a file").unwrap();
    let mut child = stdio(&[]);
    child["env"] = json!({ "DATA": state.path() });
    let config = state.config(&json!({ "c": child }), &json!({}));
    let ended = Gateway::with(config).try_start().expect_err("a file is in the way");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let named = format!("state_dir {}: it is not a directory", state.path().display());
    assert!(ended.stderr.contains(&named), "{ended:?}");
}

#[test]
fn a_start_that_fails_at_a_file_names_it_and_what_was_tried() {
    let state = State::new();
    fs::create_dir_all(state.path().join("lock")).unwrap();
    let ended = Gateway::with(state.config(&json!({}), &json!({}))).try_start();
    let ended = ended.expect_err("the lock is a folder");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let named = format!("state_dir {}: lock in it cannot be opened", state.path().display());
    assert!(ended.stderr.contains(&named), "{ended:?}");
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn a_session_key_that_others_may_read_is_taken_from_them_with_a_warning() {
    let (state, upstream) = (State::new(), HttpUpstream::with_tools(&["one"]));
    let config = state.before(&upstream.url());
    let first = Gateway::started(config.clone());
    let session = first.mcp().session().to_owned();
    assert!(!first.kill().contains("open to others"));
    let key = state.path().join("session-key");
    for wide in [0o666, 0o640, 0o604] {
        fs::set_permissions(&key, Permissions::from_mode(wide)).unwrap();
        let second = Gateway::started(config.clone());
        assert_eq!(mode(&key), 0o600);
        McpClient::new(second.address()).in_session(&session).call("one", &json!({}));
        let told = second.kill();
        let said = format!("session-key was open to others (mode {wide:o})");
        assert!(told.contains(&said), "{told}");
    }
}

#[test]
fn what_is_lost_with_a_file_that_is_set_aside_is_said() {
    let (state, upstream) = (State::new(), HttpUpstream::with_tools(&["one"]));
    let config = state.before(&upstream.url());
    let first = Gateway::started(config.clone());
    first.mcp().end().expect(204);
    first.kill();
    for name in ["session-key", "ended-sessions"] {
        fs::write(state.path().join(name), "garbage").unwrap();
    }
    let told = Gateway::started(config).kill();
    for (name, lost) in [
        ("session-key", "all sessions of before are lost"),
        ("ended-sessions", "are valid again until they expire"),
    ] {
        let is_said =
            |line: &str| line.contains(&format!("{name} is set aside")) && line.contains(lost);
        assert!(told.lines().any(is_said), "{name}: {told}");
    }
}

#[test]
fn an_empty_list_of_ended_sessions_is_none() {
    let (state, upstream) = (State::new(), HttpUpstream::with_tools(&["one"]));
    let config = state.before(&upstream.url());
    fs::create_dir_all(state.path()).unwrap();
    fs::write(state.path().join("ended-sessions"), "").unwrap();
    let first = Gateway::started(config.clone());
    let client = first.mcp();
    client.end().expect(204);
    assert!(!first.kill().contains("ended-sessions"));
    let second = Gateway::started(config);
    McpClient::new(second.address()).in_session(client.session()).end().expect(404);
    assert!(!second.kill().contains("set aside"));
}

/// A file may have one block of 512 bytes, or of 1024 where the shell counts so.
#[test]
fn a_disk_that_is_full_in_the_middle_of_a_line_leaves_no_half_of_it() {
    let (state, upstream) = (State::new(), HttpUpstream::with_tools(&["one"]));
    let config = state.before(&upstream.url());
    let first = Gateway::with(config.clone()).with_file_blocks(1).start();
    first.wait_ready();
    let path = state.path().join("ended-sessions");
    let mut ended = Vec::new();
    for _ in 0..30 {
        let client = first.mcp();
        client.end().expect(204);
        ended.push(client);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.ends_with('\n'), "{text}");
    }
    first.kill();
    let kept = fs::read_to_string(&path).unwrap();
    assert!((2..ended.len()).contains(&kept.lines().count()), "it was never full: {kept}");
    let second = Gateway::started(config);
    let go_on = |client: &McpClient| {
        let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
        McpClient::new(second.address()).in_session(client.session()).post(&ping).status()
    };
    assert_eq!(go_on(&ended[0]), 404);
    assert!(!second.kill().contains("set aside"));
}
