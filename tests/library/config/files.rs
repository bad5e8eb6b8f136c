//! Configurations that must be refused, as data: `fixtures/*.json` hold each a
//! configuration, the environment, and every problem as pointer and part of the text.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;
use trunkline::config::{Config, Overrides, Problem, Target, hash_key};

use crate::support::gateway::Directory;
use crate::support::program::root;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    #[serde(default)]
    env: HashMap<String, String>,
    /// The configuration as it stands: keys that stand twice must survive.
    config: Option<Box<RawValue>>,
    /// Instead of `config`, for what is no JSON.
    text: Option<String>,
    problems: Vec<(String, String)>,
}

#[test]
fn every_problem_is_found_and_no_other() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/library/config/fixtures");
    let mut n_cases = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let case: Case =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        check(&path, case);
        n_cases += 1;
    }
    assert!(n_cases > 20, "{n_cases}");
}

fn check(path: &Path, case: Case) {
    let path = path.display();
    let config = case.config.as_deref().map(RawValue::get);
    let text = case.text.as_deref().or(config).expect("a case has a configuration or a text");
    let environment = |name: &str| case.env.get(name).cloned();
    let found = Config::parse(text, &environment, &Overrides::default())
        .expect_err(&format!("{path} is accepted"));
    let mut got: Vec<_> = found.iter().map(|problem| problem.at.as_str()).collect();
    let mut expected: Vec<_> = case.problems.iter().map(|(at, _)| at.as_str()).collect();
    got.sort_unstable();
    expected.sort_unstable();
    assert_eq!(got, expected, "{path}: {found:#?}");
    for (at, part) in &case.problems {
        let named =
            found.iter().any(|problem| problem.at == *at && problem.what.contains(part));
        assert!(named, "{path}: no problem at {at:?} says {part:?}: {found:#?}");
    }
    for problem in &found {
        // The marker of every secret in these files.
        let told = problem.with_line("config.json");
        assert!(!told.contains("hunter2"), "{path}: {told}");
        assert!(
            problem.place.is_some() || text.len() < 20 || problem.what == "is missing",
            "{path}: {told}"
        );
    }
}

/// A folder with a configuration, read as every command reads it.
fn load(folder: &Directory, text: &str) -> Result<Config, Vec<Problem>> {
    let path = folder.path().join("config.json");
    std::fs::write(&path, text).unwrap();
    Config::load(&path, &Overrides::default())
}

#[test]
fn the_line_is_shown_with_a_mark_under_the_place() {
    let folder = Directory::new();
    let text = "{\n  \"mcp_servers\": {\n    \"a\": { \"url\": \"http://a/mcp\", \"timeout_ms\": \"5\" }\n  }\n}";
    let problems = load(&folder, text).unwrap_err();
    let [problem] = problems.as_slice() else { panic!("{problems:?}") };
    assert_eq!(
        problem.with_line("config.json"),
        "config.json:3:49: /mcp_servers/a/timeout_ms: must be a whole number between 1 and \
         86400000, not a string\n     \
         3 |     \"a\": { \"url\": \"http://a…\", \"timeout_ms\": \"5\" }\n       \
         |                                              ^^^"
    );
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let folder = Directory::new();
    std::fs::write(folder.path().join("secret"), "from-a-file-0123456789\r\n").unwrap();
    let config = load(
        &folder,
        r#"{"state_dir":"state","api_keys":[{"name":"a","key":"${file:secret}"}],"mcp_servers":{
            "a":{"command":"./server","cwd":"work"},"b":{"command":"npx","args":["x.js"]},
            "c":{"url":"https://c/","ca_file":"ca.pem"}},
            "oauth":{"issuers":[{"issuer":"https://i.example","audience":"a","ca_file":"i.pem"}],
            "rules":[{}]}}"#,
    )
    .unwrap();
    let at = |name: &str| folder.path().join(name);
    assert_eq!(config.state_dir, Some(at("state")));
    assert_eq!(Some(config.api_keys[0].sha256), hash_key("from-a-file-0123456789"));
    let [a, b, c] = config.upstreams.as_slice() else { panic!("{:?}", config.upstreams) };
    let (Target::Stdio(a), Target::Stdio(b), Target::Http(c)) =
        (&a.target, &b.target, &c.target)
    else {
        panic!("{config:?}")
    };
    assert_eq!((Path::new(&a.command), a.cwd.clone()), (&*at("server"), Some(at("work"))));
    // Its arguments may be paths, too.
    assert_eq!((b.command.as_str(), b.folder.as_deref()), ("npx", Some(folder.path())));
    assert_eq!(c.ca_file, Some(at("ca.pem")));
    assert_eq!(config.oauth.unwrap().issuers[0].ca_file, Some(at("i.pem")));
    // What is not there may come.
    let told: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    for (key, noun) in [
        ("mcp_servers/a/command", "file"),
        ("mcp_servers/a/cwd", "folder"),
        ("mcp_servers/c/ca_file", "file"),
        ("oauth/issuers/0/ca_file", "file"),
    ] {
        let line = format!("/{key}: there is no such {noun}");
        assert!(told.iter().any(|told| told.starts_with(&line)), "{line}: {told:?}");
    }
}

#[test]
fn a_file_of_a_secret_that_is_of_no_use_is_named() {
    let folder = Directory::new();
    std::fs::write(folder.path().join("empty"), "\n").unwrap();
    std::fs::write(folder.path().join("lines"), "hunter2\nhunter2\n").unwrap();
    let text = r#"{"mcp_servers":{"a":{"url":"http://a/","headers":{
        "A":"${file:missing}","B":"${file:empty}","C":"Bearer ${file:lines}","D":"${file:.}"}}}}"#;
    let problems = load(&folder, text).unwrap_err();
    let told: Vec<String> = problems.iter().map(|it| it.with_line("f")).collect();
    for (told, part) in told.iter().zip([
        "the file missing cannot be read: No such file",
        "the file empty is empty",
        "the file lines has a line break",
        "the file . cannot be read: it is no file",
    ]) {
        assert!(told.contains(part) && !told.contains("hunter2"), "{part}: {told}");
    }
    assert_eq!(told.len(), 4, "{told:?}");
}

#[test]
fn what_is_no_error_but_hardly_meant_is_a_warning() {
    let folder = Directory::new();
    let text = r#"{"api_keys":[{"name":"a","key":"short","tools":["nobody-*"]}],"mcp_servers":{
        "a":{"command":"x","args":["~/documents"],"tools":["a-get_*"],"disabled":true}}}"#;
    let config = load(&folder, text).unwrap();
    let told: Vec<String> = config.warnings.iter().map(|it| it.in_file("f")).collect();
    for part in [
        "f:1:32: /api_keys/0/key: the key has 5 characters",
        "/api_keys/0/tools/0: \"nobody-*\" is about no server",
        "/mcp_servers/a/args/0: no shell reads this",
        "/mcp_servers/a/tools/0: globs here match",
        "/mcp_servers: no server is configured that is not disabled",
    ] {
        assert!(told.iter().any(|line| line.contains(part)), "{part}: {told:#?}");
    }
    assert_eq!(told.len(), 5, "{told:#?}");
}

#[test]
fn a_second_issuer_that_is_asked_about_opaque_tokens_is_warned_of() {
    let introspection = r#""introspection":{"client_id":"c","client_secret":"s"}"#;
    let text = format!(
        r#"{{"mcp_servers":{{}},"oauth":{{"rules":[{{}}],"issuers":[
            {{"issuer":"https://a.example","audience":"a",{introspection}}},
            {{"issuer":"https://b.example","audience":"a"}},
            {{"issuer":"https://c.example","audience":"a",{introspection}}}]}}}}"#
    );
    let config = load(&Directory::new(), &text).unwrap();
    let told: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    let about = |at: &str| told.iter().filter(|it| it.starts_with(at)).collect::<Vec<_>>();
    assert_eq!(about("/oauth/issuers/0").len(), 0, "{told:?}");
    let [second] = about("/oauth/issuers/2/introspection")[..] else { panic!("{told:?}") };
    assert!(second.contains("/oauth/issuers/0/introspection is shown"), "{second}");
}

#[test]
fn globs_and_servers_of_a_key_that_give_nothing_are_warnings() {
    let folder = Directory::new();
    let text = r#"{"api_keys":[
        {"name":"a","key":"0123456789abcdef","servers":["github"],"tools":["files-*","get_*"]},
        {"name":"b","key":"0123456789abcdeg","servers":[]},
        {"name":"c","key":"0123456789abcdeh","tools":[]},
        {"name":"d","key":"0123456789abcdei","servers":["github"],"tools":["github_get_*"]}],
        "mcp_servers":{"github":{"command":"x"},"files":{"command":"x"}}}"#;
    let config = load(&folder, text).unwrap();
    let told: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    for part in [
        "/api_keys/0/tools/0: \"files-*\" matches nothing: it is about tools of files",
        "/api_keys/0/tools/1: \"get_*\" is about no server: globs of keys match NAME-name; did you \
         mean \"github-get_*\"?",
        "/api_keys/1/servers: this key may use no server",
        "/api_keys/2/tools: this key may use no tool",
        "/api_keys/3/tools/0: \"github_get_*\" is about no server: globs of keys match NAME-name; did \
         you mean \"github-get_*\"?",
    ] {
        assert!(told.iter().any(|line| line.contains(part)), "{part}: {told:#?}");
    }
    assert_eq!(told.len(), 5, "{told:#?}");
}

#[test]
fn a_reference_without_braces_is_no_key() {
    let folder = Directory::new();
    let text = r#"{"api_keys":[
        {"name":"a","key":"file:/etc/trunkline/keys/admin"},{"name":"b","key":"$TRUNKLINE_KEY"}],
        "mcp_servers":{}}"#;
    let told: Vec<String> =
        load(&folder, text).unwrap_err().iter().map(ToString::to_string).collect();
    for part in [
        "/api_keys/0/key: is the key itself as it stands; did you mean \"${file:/etc",
        "/api_keys/1/key: is the key itself as it stands; did you mean \"${TRUNKLINE_KEY}\"?",
    ] {
        assert!(told.iter().any(|line| line.contains(part)), "{part}: {told:#?}");
    }
}

#[test]
fn a_key_that_belongs_elsewhere_in_the_file_says_where() {
    let folder = Directory::new();
    let text = r#"{"limits":{"max_in_flight":3},"drain_ms":1,
        "mcp_servers":{"a":{"command":"x","sessions_per_key":1,"watch":true}}}"#;
    let told: Vec<String> =
        load(&folder, text).unwrap_err().iter().map(ToString::to_string).collect();
    for part in [
        "/limits/max_in_flight: unknown key here; it is a key of a server",
        "/drain_ms: unknown key here; it is a key of \"limits\"",
        "/mcp_servers/a/sessions_per_key: unknown key here; it is a key of \"limits\"",
        "/mcp_servers/a/watch: unknown key here; it is a key of the file itself",
    ] {
        assert!(told.iter().any(|line| line.contains(part)), "{part}: {told:#?}");
    }
}

#[test]
fn the_shipped_configuration_is_valid() {
    let path = root().join("config.json");
    let overrides = Overrides::default();
    let config = Config::load(&path, &overrides).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:4000");
    assert_eq!(config.upstreams.len(), 1);
    assert!(config.warnings.is_empty());
}
