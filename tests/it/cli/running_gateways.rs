//! What the command line says of a running gateway: wherever its address stands, whatever has
//! become of its file, and however it is at the moment.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::gateway::{Directory, Gateway, binary, stdio};
use crate::support::host::Host;
use crate::support::listener::free_port;
use crate::support::upstream_http::HttpUpstream;

const KEY: &str = "a-key-of-an-admin-of-tests";

fn run(folder: &Path, key: Option<&str>, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(folder).env_remove("TRUNKLINE_KEY");
    command.envs(key.map(|key| ("TRUNKLINE_KEY", key))).output().unwrap()
}

/// Runs a command that ends with this code; gives what it prints, and what it says besides.
#[track_caller]
fn ends(code: i32, output: &Output) -> (String, String) {
    let [out, err] =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert_eq!(output.status.code(), Some(code), "{out}{err}");
    (out, err)
}

fn with_key(mut config: Value) -> Value {
    config["api_keys"] = json!([{ "name": "admin", "key": KEY, "admin": true }]);
    config
}

#[test]
fn of_a_file_the_address_alone_is_needed() {
    let upstream = HttpUpstream::start();
    let servers = json!({ "one": { "url": upstream.url(), "transport": "http" } });
    let gateway = Gateway::started(with_key(json!({ "mcp_servers": servers })));
    let (folder, address) = (Directory::new(), gateway.address());
    let write = |text: &str| std::fs::write(folder.path().join("config.json"), text).unwrap();
    for text in [
        format!(r#"{{"listen":"{address}","api_keys":[{{"name":"a","key":"${{NOT_SET}}"}}]}}"#),
        format!(r#"{{"listen":"{address}","colour":1,"mcp_servers":{{"a b":7}}}}"#),
        format!(
            "{{\"mcp_servers\": {{\n  \"listen\": 1\n  }},\n  \"listen\": \"{address}\" \"log\""
        ),
    ] {
        write(&text);
        let (out, _) = ends(0, &run(folder.path(), Some(KEY), &["status"]));
        assert!(out.contains("  one  ready"), "{text}: {out}");
        // The health check of the image.
        let (out, _) = ends(0, &run(folder.path(), None, &["status", "-c", "config.json"]));
        assert!(out.contains("lives"), "{text}: {out}");
        ends(0, &run(folder.path(), Some(""), &["status"]));
        let (out, _) = ends(0, &run(folder.path(), Some(KEY), &["reload"]));
        assert_eq!(out, "nothing differs\n", "{text}");
    }
    // The default may be another gateway's.
    write("{\"mcp_servers\": {");
    let (_, err) = ends(78, &run(folder.path(), Some(KEY), &["status"]));
    assert!(err.contains("no JSON") && err.contains("--url"), "{err}");
    for text in [r#"{"listen":"${NOT_SET}:1"}"#, r#"{"listen":"nowhere"}"#] {
        write(text);
        let (_, err) = ends(78, &run(folder.path(), Some(KEY), &["status"]));
        assert!(err.contains("/listen") && err.contains("--url"), "{err}");
    }
    let elsewhere = format!("127.0.0.1:{}", free_port());
    write(&json!({ "listen": elsewhere }).to_string());
    for command in ["status", "reload"] {
        let (_, err) = ends(1, &run(folder.path(), Some(KEY), &[command]));
        assert!(err.contains(&elsewhere) && err.contains("--url"), "{err}");
        let url = format!("http://{elsewhere}");
        let (_, err) = ends(1, &run(folder.path(), Some(KEY), &[command, "--url", &url]));
        assert!(!err.contains("--url"), "{err}");
    }
}

#[test]
fn the_listener_of_operators_tells_how_a_gateway_is() {
    let folder = Directory::new();
    let socket = format!("unix:{}", folder.path().join("admin").display());
    let config = json!({ "mcp_servers": {}, "admin_listen": socket });
    let _gateway = Gateway::started(with_key(config));
    // The gateway listens elsewhere than its file says, as with a socket unit.
    for listen in [format!("127.0.0.1:{}", free_port()), "${NOT_SET}:1".to_owned()] {
        let file = json!({ "listen": listen, "admin_listen": socket }).to_string();
        std::fs::write(folder.path().join("config.json"), file).unwrap();
        let (out, _) = ends(0, &run(folder.path(), None, &["status"]));
        assert!(out.starts_with("trunkline ") && out.contains(&socket), "{out}");
    }
}

#[test]
fn what_is_not_well_is_told_with_what_to_do() {
    let folder = Directory::new();
    let upstream = HttpUpstream::with_tools(&["a", "b"]);
    let config = json!({
        "state_dir": folder.path().join("state"),
        "mcp_servers": {
            "pinned": { "url": upstream.url(), "transport": "http", "pin": "locked" },
            "gone": { "url": format!("http://127.0.0.1:{}/mcp", free_port()) },
        },
    });
    let gateway = Gateway::with(with_key(config)).start();
    gateway.wait_until_well(&["pinned"]);
    let url = format!("http://{}", gateway.address());
    let told = crate::support::wait_for("all is told", || {
        let (out, _) = ends(0, &run(folder.path(), Some(KEY), &["status", "--url", &url]));
        let is_all = ["down since 2", "next try", "trunkline pins diff pinned"];
        let is_all = is_all.iter().all(|part| out.contains(part));
        is_all.then_some(out)
    });
    for part in ["2 pinned items changed or new and withheld", "→ nothing listens at"] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn another_gateway_decides_which_names_there_are() {
    let upstream = HttpUpstream::with_tools(&["a", "b"]);
    let slow = Directory::new();
    let journal = format!("--journal={}", slow.path().join("journal").display());
    let gateway = Gateway::with(json!({ "mcp_servers": {
        "one": { "url": upstream.url(), "transport": "http" },
        "two": { "command": "trunkline", "args": ["demo"] },
        "late": stdio(&[&journal, "--wait-ms=3000"]),
    } }))
    .start();
    let url = format!("http://{}", gateway.address());
    let call = |name: &str, argument: &str| {
        run(slow.path(), None, &["call", name, argument, "--url", &url])
    };
    // Its server has not answered yet.
    let (out, _) = ends(0, &call("late-echo", "message=soon"));
    assert_eq!(out, "soon\n");
    // A name that it does not list.
    gateway.wait_until_well(&["one", "two", "late"]);
    let (out, _) = ends(0, &call("time", "{}"));
    assert!(out.starts_with("20"), "{out}");
    let (_, err) = ends(69, &call("two-ad", "a=1"));
    assert!(err.contains("two-add"), "{err}");
    // Names are found near by their own name, too.
    let (_, err) = ends(69, &call("adde", "a=1"));
    assert!(err.contains("two-add"), "{err}");
}

#[test]
fn a_server_that_is_still_starting_behind_another_gateway_is_named() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = silent.local_addr().unwrap();
    let gateway = Gateway::with(json!({ "first_list_ms": 0, "mcp_servers": {
        "mine": { "url": format!("http://{at}/mcp"), "transport": "http" },
    } }))
    .start();
    let url = format!("http://{}", gateway.address());
    let folder = Directory::new();
    let (out, err) = ends(69, &run(folder.path(), None, &["tools", "--url", &url]));
    assert_eq!(out, "");
    assert!(err.contains("mine: connecting"), "{err}");
}

#[test]
fn why_another_gateway_refuses_is_told_in_words() {
    let gateway = Gateway::started(with_key(json!({ "mcp_servers": {} })));
    let folder = Directory::new();
    let url = format!("http://{}", gateway.address());
    for key in [None, Some("some-other-key-of-tests")] {
        for command in [&["tools"][..], &["call", "x"]] {
            let arguments = [command, &["--url", &url]].concat();
            let (out, err) = ends(69, &run(folder.path(), key, &arguments));
            assert_eq!(out, "");
            assert!(err.contains("status 401") && err.contains("$TRUNKLINE_KEY"), "{err}");
            assert!(err.contains(&url) && !err.contains(['{', '}']), "{err}");
        }
    }
    let mut host = Host::before(&url, "some-other-key-of-tests").opened("2025-11-25");
    let listed = host.request("tools/list", &json!({})).to_string();
    assert!(listed.contains("$TRUNKLINE_KEY") && !listed.contains("remote"), "{listed}");
    host.end_input();
    let (_, err) = host.wait_for_end();
    assert!(err.contains("$TRUNKLINE_KEY") && !err.contains(['{', '}']), "{err}");
}

#[test]
fn a_wrong_url_is_told_once() {
    let gateway = Gateway::started(json!({ "mcp_servers": {
        "two": { "command": "trunkline", "args": ["demo"] },
    } }));
    let folder = Directory::new();
    let run = |arguments: &[&str]| run(folder.path(), None, arguments);
    let url = format!("http://{}", gateway.address());
    let (_, err) = ends(69, &run(&["tools", "--url", &format!("{url}/foo")]));
    assert_eq!(err.matches("404").count(), 1, "{err}");
    assert!(err.lines().count() == 1 && !err.contains('{'), "{err}");
    let (_, err) = ends(2, &run(&["tools", "nope", "--url", &url]));
    assert!(err.contains("there is no server \"nope\"") && !err.contains('{'), "{err}");
    let secure = url.replace("http:", "https:");
    for command in [&["tools"][..], &["call", "x"]] {
        let (_, err) = ends(69, &run(&[command, &["--url", &secure]].concat()));
        assert!(err.contains("does it speak http, and not https?"), "{err}");
    }
}

#[test]
fn what_a_tool_cannot_ask_is_told() {
    let folder = Directory::new();
    let upstream = HttpUpstream::start();
    let config = json!({ "mcp_servers": {
        "one": stdio(&[]), "two": { "url": upstream.url(), "transport": "http" },
    } });
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    for (arguments, why) in [
        (&["call", "one-ask_elicitation"][..], "there is no terminal here"),
        (&["call", "two-ask_elicitation"], "there is no terminal here"),
        (&["call", "one-ask_elicitation", "--no-ask"], "--no-ask is given"),
    ] {
        let output = run(folder.path(), None, arguments);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(err.contains("the tool asks for something") && err.contains(why), "{output:?}");
    }
    let (_, err) = ends(0, &run(folder.path(), None, &["call", "one-echo", "message=x"]));
    assert_eq!(err, "");
}

#[test]
fn an_address_that_is_taken_is_told_with_the_option_for_another() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let folder = Directory::new();
    std::fs::write(folder.path().join("config.json"), r#"{"mcp_servers":{}}"#).unwrap();
    let (_, err) = ends(1, &run(folder.path(), None, &["serve", "--listen", &listen]));
    assert!(err.contains(&listen) && err.contains("--listen ADDRESS"), "{err}");
}
