//! `trunkline import`: what it prints is a configuration that serves.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::gateway::{Directory, Gateway, binary};
use crate::support::http::Request;
use crate::support::upstream_http::HttpUpstream;

fn import(file: &str, input: &str) -> Output {
    let mut command = Command::new(binary());
    command.args(["import", file]).stdin(Stdio::piped());
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // It may refuse its input without reading it.
    stdin.write_all(input.as_bytes()).ok();
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[track_caller]
fn imported(input: &str) -> (Value, String) {
    let output = import("-", input);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    let config = text(&output.stdout);
    assert!(config.ends_with("}\n"), "{config}");
    (serde_json::from_str(config).expect("JSON alone"), errors.to_owned())
}

#[test]
fn what_litellm_has_serves_with_its_key() {
    let upstream = HttpUpstream::start();
    upstream.require_header("Authorization", "Bearer upstream-secret");
    let yaml = format!(
        "general_settings:\n  master_key: os.environ/IMPORT_MASTER\nmcp_servers:\n  my_mcp_server:\n    \
         url: {:?}\n    description: My custom MCP server\n    auth_type: bearer_token\n    \
         auth_value: os.environ/IMPORT_TOKEN\n    allowed_tools: [echo]\n    spec_version: x\n",
        upstream.url()
    );
    let (config, errors) = imported(&yaml);
    for part in ["${IMPORT_MASTER} is to be set", "${IMPORT_TOKEN} is to be set"] {
        assert!(errors.contains(part), "{errors}");
    }
    assert!(errors.lines().all(|line| line.starts_with("trunkline: import: ")), "{errors}");
    let gateway = Gateway::with(config)
        .env("IMPORT_MASTER", "sk-of-the-environment")
        .env("IMPORT_TOKEN", "upstream-secret")
        .start();
    let list = Request::get("/mcp-rest/tools/list");
    gateway.send(&list.clone()).expect(401);
    let list = gateway.send(&list.header("Authorization", "Bearer sk-of-the-environment"));
    let list = list.expect(200).json();
    assert_eq!(list["tools"].as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!(list["tools"][0]["name"], "echo");
    assert_eq!(list["tools"][0]["mcp_info"]["description"], "My custom MCP server");
}

#[test]
fn what_a_host_has_serves() {
    let upstream = HttpUpstream::start();
    let text = format!(
        "{{ // of VS Code\n \"inputs\": [],\n \"servers\": {{ \"My Server\": {{ \"type\": \"http\", \
         \"url\": {:?}, }}, \"demo\": {{ \"command\": \"trunkline\", \"args\": [\"demo\"] }} }} }}",
        upstream.url()
    );
    let directory = Directory::new();
    let path = directory.path().join("mcp.json");
    std::fs::write(&path, text).unwrap();
    let output = import(path.to_str().unwrap(), "");
    assert_eq!(output.status.code(), Some(0));
    let config: Value = serde_json::from_slice(&output.stdout).unwrap();
    let gateway = Gateway::started(config);
    let names = gateway.tool_names();
    for name in ["My_Server-echo", "demo-echo"] {
        assert!(names.contains(&name.to_owned()), "{names:?}");
    }
}

#[test]
fn what_cannot_be_read_is_said_and_nothing_printed() {
    for (file, input, code, part) in [
        ("-", "{\"a\": 1}", 78, "nothing in it is known"),
        ("-", "{\"mcpServers\": {\"a\" 1}}", 78, "line 1"),
        ("no/such/file.json", "", 1, "no/such/file.json"),
    ] {
        let output = import(file, input);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{errors}");
        assert!(errors.contains(part), "{errors}");
        assert_eq!(text(&output.stdout), "");
    }
    let config = json!({ "mcp_servers": { "a": { "url": "http://127.0.0.1:9/" } } });
    let output = import("-", &config.to_string());
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("already"));
}
