//! What the process tells its caller: exit codes, and which stream a text goes to.

use std::process::{Command, Output, Stdio};

use crate::support::gateway::{Directory, binary};

fn run(args: &[&str], input: &str) -> Output {
    use std::io::Write as _;
    let mut child = Command::new(binary())
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that does not read its input is as good.
    drop(stdin.write_all(input.as_bytes()));
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

#[test]
fn version_and_help_are_results() {
    let version = run(&["--version"], "");
    assert_eq!(code(&version), Some(0));
    let text = String::from_utf8(version.stdout).unwrap();
    assert!(text.contains(crate::support::program::version()), "{text:?}");
    let help = run(&["--help"], "");
    assert_eq!(code(&help), Some(0));
    let text = String::from_utf8(help.stdout).unwrap();
    for command in ["serve", "demo", "hash-key"] {
        assert!(text.contains(command), "{command}: {text}");
    }
}

#[test]
fn wrong_arguments_are_2() {
    for args in [&["nonsense"][..], &["--nonsense"], &["serve", "--port", "1"], &["call"]] {
        let output = run(args, "");
        assert_eq!(code(&output), Some(2), "{args:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{args:?}: {output:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn a_bad_configuration_is_78_with_all_its_problems() {
    let directory = Directory::new();
    let path = directory.path().join("config.json");
    let path = path.to_str().unwrap();
    for (text, words) in [
        ("{", &["config.json"][..]),
        ("[]", &["object"]),
        ("{}", &["mcp_servers"]),
        (r#"{"mcp_servers":{},"nonsense":1}"#, &["nonsense"]),
        (
            r#"{"listen":"nowhere","mcp_servers":{"s":{"url":"http://h/","timeout_ms":"x"},"t":{}}}"#,
            &["/listen", "/mcp_servers/s/timeout_ms", "/mcp_servers/t"],
        ),
        (r#"{"mcp_servers":{"s":{"url":"${NOT_SET_ANYWHERE}"}}}"#, &["NOT_SET_ANYWHERE"]),
        (r#"{"mcp_servers":{},"limits":{"nonsense":1}}"#, &["/limits"]),
    ] {
        std::fs::write(path, text).unwrap();
        let output = run(&["serve", "--config", path], "");
        assert_eq!(code(&output), Some(78), "{text}: {output:?}");
        let told = String::from_utf8_lossy(&output.stderr);
        for word in words {
            assert!(told.contains(word), "{text}: {word} is not in {told}");
        }
    }
    let output = run(&["serve", "--config", "/no/such/config.json"], "");
    assert_eq!(code(&output), Some(78), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/config.json"));
}

#[test]
fn a_key_is_hashed() {
    let output = run(&["hash-key"], "test\n");
    assert_eq!(code(&output), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    assert!(text.contains(hash), "{text:?}");
}
