//! The commands that talk to servers and gateways: `tools`, `call`, `status`, `reload`; and those
//! that talk to nobody.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::gateway::{Directory, Gateway, binary};
use crate::support::upstream_http::HttpUpstream;

const KEY: &str = "a-key-of-an-admin-of-tests";

struct Shell(Directory);

impl Shell {
    fn with(config: &Value) -> Shell {
        let directory = Directory::new();
        std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
        Shell(directory)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, "")
    }

    fn run_with(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new(binary())
            .args(arguments)
            .current_dir(self.0.path())
            .env("TRUNKLINE_KEY", KEY)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Some commands do not read it.
        child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
        child.wait_with_output().unwrap()
    }

    /// Runs a command that ends with this code; gives what it prints, and what it says besides.
    #[track_caller]
    fn ends(&self, code: i32, arguments: &[&str]) -> (String, String) {
        texts(code, &self.run(arguments))
    }
}

#[track_caller]
fn texts(code: i32, output: &Output) -> (String, String) {
    let [out, err] =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert_eq!(output.status.code(), Some(code), "{out}{err}");
    (out, err)
}

fn config(url: &str) -> Value {
    json!({ "mcp_servers": {
        "one": { "url": url, "transport": "http" },
        "two": { "command": "trunkline", "args": ["demo"] },
    } })
}

#[test]
fn tools_are_listed_with_their_arguments() {
    let upstream = HttpUpstream::start();
    let shell = Shell::with(&config(&upstream.url()));
    let (all, _) = shell.ends(0, &["tools"]);
    assert!(all.contains("one-echo([message: string])\n"), "{all}");
    assert!(all.contains("two-echo(message: string)\n"), "{all}");
    let (two, _) = shell.ends(0, &["tools", "two", "--json"]);
    let two: Value = serde_json::from_str(&two).unwrap();
    let names =
        two["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap());
    assert!(names.clone().count() > 3 && names.clone().all(|name| name.starts_with("two-")));
    let (_, err) = shell.ends(2, &["tools", "three"]);
    assert!(err.contains("there is: one, two"), "{err}");
    // What does not answer is named, and costs the others nothing.
    upstream.die();
    let (all, err) = shell.ends(69, &["tools"]);
    assert!(all.contains("two-echo") && !all.contains("one-"), "{all}");
    assert!(err.contains("one: failed (connect)"), "{err}");
}

#[test]
fn a_tool_is_called_with_arguments_in_every_form() {
    let upstream = HttpUpstream::start();
    let shell = Shell::with(&config(&upstream.url()));
    for arguments in
        [&["message=5"][..], &[r#"{"message":"5"}"#], &[r#"{"message":"4"}"#, "message=5"]]
    {
        let (out, _) = shell.ends(0, &[&["call", "two-echo"], arguments].concat());
        assert_eq!(out, "5\n", "{arguments:?}");
    }
    let output = shell.run_with(&["call", "two-echo", "-"], r#"{"message":"typed"}"#);
    assert_eq!(texts(0, &output).0, "typed\n");
    let (out, _) = shell.ends(0, &["call", "--json", "two-add", "a=1", "b=2.5"]);
    let result: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(result["content"][0]["text"], "3.5");

    let (out, err) = shell.ends(2, &["call", "two-add", "a=one", "c=1"]);
    assert_eq!(out, "");
    for part in
        ["b: is missing (number)", "a: must be number, and is string", "c: is not known"]
    {
        assert!(err.contains(part), "{part}: {err}");
    }
    let (_, err) = shell.ends(69, &["call", "two-ech"]);
    assert!(err.contains("two-echo"), "{err}");
    let (out, err) = shell.ends(1, &["call", "two-fail", "message=broken"]);
    assert!(out.contains("broken") && err.contains("the tool reports an error"), "{out}{err}");
    let (out, err) = shell.ends(0, &["call", "one-count", "steps=2"]);
    assert!(err.contains("50 % step 1\n") && err.contains("100 % step 2\n"), "{err}");
    assert!(!out.contains("step 1"), "{out}");
    // Nobody is there to be asked.
    let (out, _) = shell.ends(0, &["call", "one-ask_elicitation"]);
    assert!(out.contains("error"), "{out}");
}

#[test]
fn a_running_gateway_is_asked_in_place_of_servers() {
    let upstream = HttpUpstream::start();
    let mut config = config(&upstream.url());
    config["api_keys"] = json!([{ "name": "admin", "key": KEY, "admin": true }]);
    let gateway = Gateway::started(config);
    gateway.wait_until_well(&["one", "two"]);
    let url = format!("http://{}", gateway.address());
    let shell = Shell::with(&json!({}));
    let (all, _) = shell.ends(0, &["tools", "--url", &url]);
    assert!(all.contains("two-echo(message: string)\n"), "{all}");
    let (two, _) = shell.ends(0, &["tools", "two", "--url", &url]);
    assert!(two.contains("echo(message: string)\n") && !two.contains("two-"), "{two}");
    let (out, _) = shell.ends(0, &["call", "two-echo", "message=x", "--url", &url]);
    assert_eq!(out, "x\n");
    let (_, err) = shell.ends(69, &["call", "two-ech", "--url", &url]);
    assert!(err.contains("two-echo"), "{err}");
    let (_, err) = shell.ends(2, &["call", "two-echo", "--url", &url]);
    assert!(err.contains("message: is missing"), "{err}");
    let (_, err) = shell.ends(69, &["tools", "--url", "http://127.0.0.1:9"]);
    assert!(err.contains("http://127.0.0.1:9: failed (connect)"), "{err}");
    shell.ends(2, &["tools", "--url", "nonsense"]);
}

#[test]
fn a_running_gateway_says_how_it_is_and_reads_its_configuration_again() {
    let upstream = HttpUpstream::start();
    let mut config = config(&upstream.url());
    config["api_keys"] = json!([{ "name": "admin", "key": KEY, "admin": true },
        { "name": "user", "key": "a-key-of-a-user-of-tests" }]);
    let gateway = Gateway::started(config.clone());
    gateway.wait_until_well(&["one", "two"]);
    let address = gateway.address().to_owned();
    let url = format!("http://{address}");
    let mut of_file = config.clone();
    of_file["listen"] = json!(address);
    let shell = Shell::with(&of_file);
    for arguments in [&["status"][..], &["status", "--url", &url]] {
        let (out, _) = shell.ends(0, arguments);
        assert!(
            out.starts_with(&format!("trunkline {}", crate::support::program::version())),
            "{out}"
        );
        assert!(out.contains("  one  ready  http 2025-11-25"), "{out}");
    }
    let (out, _) = shell.ends(0, &["status", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["upstreams"][0]["server"], "one");

    let (out, _) = shell.ends(0, &["reload"]);
    assert_eq!(out, "nothing differs\n");
    let mut changed = config.clone();
    changed["mcp_servers"]["three"] = json!({ "command": "trunkline", "args": ["demo"] });
    gateway.write_config(&changed);
    let (out, _) = shell.ends(0, &["reload", "--url", &url]);
    assert!(out.contains("servers added: three"), "{out}");
    gateway.write_config_text(r#"{"colour":1}"#);
    let (out, err) = shell.ends(78, &["reload"]);
    assert!(out.is_empty() && err.contains("/colour: "), "{out}{err}");

    // Everybody else is refused.
    let as_user = |arguments: &[&str], key: Option<&str>| {
        let mut command = Command::new(binary());
        command.args(arguments).env_remove("TRUNKLINE_KEY").current_dir(shell.0.path());
        command.envs(key.map(|key| ("TRUNKLINE_KEY", key))).output().unwrap()
    };
    let refused = as_user(&["reload"], Some("a-key-of-a-user-of-tests"));
    assert!(texts(1, &refused).1.contains("\"admin\": true"));
    let keyless = texts(1, &as_user(&["reload"], None)).1;
    assert!(keyless.contains("needs a key") && keyless.contains("$TRUNKLINE_KEY"), "{keyless}");
    let lives = as_user(&["status"], None);
    assert!(texts(0, &lives).0.contains("lives"));
    assert!(texts(1, &as_user(&["status"], Some("wrong"))).1.contains("none of the gateway's"));
    gateway.stop();
    assert!(shell.ends(1, &["status"]).1.contains(&address));
}

#[test]
fn a_new_key_goes_with_its_hash() {
    let shell = Shell::with(&json!({}));
    let (text, _) = shell.ends(0, &["new-key"]);
    let words: Vec<&str> = text.split_whitespace().collect();
    let ["key", key, "sha256", hash] = words[..] else { panic!("{text}") };
    assert!(key.len() > 40);
    let hashed = shell.run_with(&["hash-key"], key);
    assert_eq!(texts(0, &hashed).0.trim_end(), hash);
    let other: Value = serde_json::from_str(&shell.ends(0, &["new-key", "--json"]).0).unwrap();
    assert_ne!(other["key"], key);
    assert_eq!(other["sha256"].as_str().unwrap().len(), 64);
}

#[test]
fn what_the_program_says_of_itself() {
    let shell = Shell::with(&json!({}));
    assert_eq!(shell.ends(0, &["help"]).0, shell.ends(0, &["--help"]).0);
    assert_eq!(shell.ends(0, &["help", "call"]).0, shell.ends(0, &["call", "--help"]).0);
    assert!(shell.ends(2, &["help", "nothing"]).1.contains("\"nothing\""));
    assert!(shell.ends(0, &["man"]).0.starts_with(".TH TRUNKLINE 1"));
    shell.ends(2, &["completions", "tcsh"]);
    for shell_name in ["zsh", "fish"] {
        assert!(shell.ends(0, &["completions", shell_name]).0.contains("hash-key"));
    }
    let (script, _) = shell.ends(0, &["completions", "bash"]);
    let complete = format!(
        "{script}\nCOMP_WORDS=(trunkline call x --j)\nCOMP_CWORD=3\n_trunkline\n\
         echo \"${{COMPREPLY[*]}}\"\nCOMP_WORDS=(trunkline tools --url '')\nCOMP_CWORD=3\n_trunkline\n\
         echo \"url:${{COMPREPLY[*]}}\"\nCOMP_WORDS=(trunkline sta)\nCOMP_CWORD=1\n_trunkline\n\
         echo \"${{COMPREPLY[*]}}\""
    );
    let bash = Command::new("bash").args(["-c", &complete]).output();
    let Ok(bash) = bash else {
        return crate::support::left_out(module_path!(), "there is no bash to complete words");
    };
    assert_eq!(String::from_utf8_lossy(&bash.stdout), "--json\nurl:\nstatus\n");
}
