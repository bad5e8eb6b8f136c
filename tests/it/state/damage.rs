//! State that cannot be used, or not be written: a warning, and everything else works.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;

use super::{State, names_in};
use crate::support::gateway::Gateway;
use crate::support::mcp::McpClient;
use crate::support::upstream_http::HttpUpstream;
use crate::support::wait_until;

type Damage = (&'static str, fn(&Path));

/// More than any file of the state may have.
const TOO_MANY_BYTES: u64 = 65 * 1024 * 1024;

const DAMAGES: [Damage; 8] = [
    ("cut short", |path| {
        let file = fs::read(path).unwrap();
        fs::write(path, &file[..file.len() / 2]).unwrap();
    }),
    ("empty", |path| fs::write(path, "").unwrap()),
    ("garbage", |path| fs::write(path, [0xff, 0, b'\n', 0x80, 7]).unwrap()),
    ("a byte changed", |path| {
        let mut file = fs::read(path).unwrap();
        let at = file.len() - 3;
        file[at] ^= 1;
        fs::write(path, file).unwrap();
    }),
    ("of a later version", |path| {
        let file = fs::read(path).unwrap();
        let end = file.iter().position(|byte| *byte == b'\n').unwrap();
        let head = String::from_utf8(file[..end].to_owned()).unwrap();
        let mut words: Vec<&str> = head.split(' ').collect();
        words[2] = "99";
        fs::write(path, [words.join(" ").as_bytes(), &file[end..]].concat()).unwrap();
    }),
    ("too large", |path| {
        File::options().write(true).open(path).unwrap().set_len(TOO_MANY_BYTES).unwrap();
    }),
    ("a folder", |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    }),
    ("a link", |path| {
        fs::remove_file(path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path).unwrap();
    }),
];

#[test]
fn a_file_that_cannot_be_used_is_set_aside() {
    let upstream = HttpUpstream::with_tools(&["one"]);
    for (what, damage) in DAMAGES {
        let state = State::new();
        let config = state.before(&upstream.url());
        let first = Gateway::started(config.clone());
        let kept = first.mcp().session().to_owned();
        first.mcp().end().expect(204);
        state.wait_stored("s", None);
        first.kill();
        for name in ["session-key", "ended-sessions", "catalogue.s"] {
            damage(&state.path().join(name));
        }
        let second = Gateway::started(config.clone());
        second.call("one", &json!({})).expect(200);
        let new = second.mcp();
        new.call("one", &json!({}));
        // Without the key nobody can say whose it was.
        McpClient::new(second.address()).in_session(&kept).end().expect(404);
        state.wait_stored("s", None);
        let told = second.kill();
        for name in ["session-key", "ended-sessions", "catalogue.s"] {
            // What a full disk leaves, and as good as none.
            if (what, name) == ("empty", "ended-sessions") {
                continue;
            }
            let is_told = |line: &str| line.contains(name) && line.contains("is set aside");
            assert!(told.lines().any(is_told), "{what}: {name}: {told}");
            let aside = format!("{name}.corrupt-");
            assert!(
                state.names().iter().any(|it| {
                    it.strip_prefix(&aside).is_some_and(|time| !time.starts_with('0'))
                }),
                "{what}: {name}"
            );
        }
        // All is as it should be again.
        let third = Gateway::started(config);
        McpClient::new(third.address()).in_session(new.session()).call("one", &json!({}));
        let told = third.kill();
        assert!(!told.contains("set aside"), "{what}: {told}");
    }
}

#[test]
fn a_torn_line_costs_no_other_its_end() {
    let (state, upstream) = (State::new(), HttpUpstream::with_tools(&["one"]));
    let config = state.before(&upstream.url());
    let first = Gateway::started(config.clone());
    let ended = [first.mcp(), first.mcp(), first.mcp()];
    for client in &ended {
        client.end().expect(204);
    }
    first.kill();
    let path = state.path().join("ended-sessions");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() - 20]).unwrap();
    let second = Gateway::started(config);
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
    let go_on = |id: &str| McpClient::new(second.address()).in_session(id).post(&ping).status();
    assert_eq!(go_on(ended[0].session()), 404);
    assert_eq!(go_on(ended[1].session()), 404);
}

#[test]
fn one_directory_serves_one_gateway() {
    let (state, upstream) = (State::new(), HttpUpstream::with_tools(&["one"]));
    let config = state.before(&upstream.url());
    let first = Gateway::started(config.clone());
    let second = Gateway::with(config.clone()).try_start().expect_err("it is taken");
    assert_eq!(second.code, Some(1), "{second:?}");
    let path = state.path();
    assert!(second.stderr.contains(path.to_str().unwrap()), "{second:?}");
    assert!(second.stderr.contains("another gateway"), "{second:?}");
    first.call("one", &json!({})).expect(200);
    first.kill();
    Gateway::started(config).call("one", &json!({})).expect(200);
}

#[test]
fn a_path_that_cannot_be_a_directory_is_said_to_be_so() {
    let state = State::new();
    fs::write(state.path(), "a file").unwrap();
    let config = state.config(&json!({}), &json!({}));
    let ended = Gateway::with(config).try_start().expect_err("a file is in the way");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("state_dir"), "{ended:?}");
    let ended = Gateway::with(json!({ "mcp_servers": {}, "state_dir": "" })).try_start();
    let ended = ended.expect_err("an empty path");
    assert_eq!(ended.code, Some(78), "{ended:?}");
}

#[test]
fn a_start_that_fails_lets_go_of_the_directory() {
    let (state, upstream) = (State::new(), HttpUpstream::with_tools(&["one"]));
    let taken = Gateway::with(json!({ "mcp_servers": {} })).start();
    let mut config = state.before(&upstream.url());
    config["listen"] = json!(taken.address());
    let ended = Gateway::with(config.clone()).try_start().expect_err("the port is taken");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    config["listen"] = json!("127.0.0.1:0");
    Gateway::started(config).call("one", &json!({})).expect(200);
}

#[test]
fn nobody_else_can_read_what_is_kept() {
    let (state, upstream) = (State::new(), HttpUpstream::with_tools(&["one"]));
    let gateway = Gateway::started(state.before(&upstream.url()));
    gateway.mcp().end().expect(204);
    state.wait_stored("s", None);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state.path()), 0o700);
    let names = state.names();
    assert_eq!(names, ["catalogue.s", "ended-sessions", "lock", "session-key"]);
    for name in names {
        assert_eq!(mode(&state.path().join(&name)), 0o600, "{name}");
    }
}

#[test]
fn without_a_state_nothing_is_written() {
    let upstream = HttpUpstream::with_tools(&["one"]);
    let gateway = Gateway::before(&upstream.url());
    let client = gateway.mcp();
    client.call("one", &json!({}));
    client.end().expect(204);
    assert_eq!(names_in(gateway.directory()), ["config.json"]);
}

#[test]
fn a_disk_that_refuses_is_a_warning() {
    let (state, upstream) = (State::new(), HttpUpstream::with_tools(&["one"]));
    let gateway = super::listening(&upstream, state.before(&upstream.url()));
    let client = gateway.mcp();
    state.wait_stored("s", None);
    fs::remove_dir_all(state.path()).unwrap();
    client.call("one", &json!({}));
    client.end().expect(204);
    gateway.mcp().end().expect(204);
    upstream.change("tools", "two");
    gateway.wait_for_tool("two");
    wait_until("it is told", || gateway.stderr().contains("cannot be written"));
    gateway.call("two", &json!({})).expect(200);
    assert_eq!(gateway.stop().code, Some(0));
}
