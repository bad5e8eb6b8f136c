//! The JSON Schema of the configuration against the program: the same keys, defaults, ranges and
//! words, and the same judgement of whatever stands in a configuration, as far as a schema can tell.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use jsonschema::Validator;
use jsonschema::error::{ValidationError, ValidationErrorKind};
use serde_json::{Value, json};
use trunkline::config::{
    ACCESS_TOKEN_KEYS, API_KEY_KEYS, Config, IDENTITY_PROVIDER_KEYS, INTROSPECTION_KEYS,
    ISSUER_KEYS, KEYS, LOG_KEYS, OAUTH_KEYS, OTLP_KEYS, Overrides, Problem, RULE_KEYS, SCHEMA,
    SERVER_KEYS, TRANSPORT_KEYS, limit_keys,
};

use crate::support::gateway::Gateway;
use crate::support::http::Request;

/// Where the keys of the file itself stand in the schema, and those of each object in it.
const SECTIONS: [&str; 13] = [
    "",
    "/$defs/apiKey",
    ACCESS_TOKENS,
    ISSUER,
    INTROSPECTION,
    RULE,
    "/$defs/otlp",
    "/$defs/transports",
    SERVER,
    OAUTH,
    PROVIDER,
    LIMITS,
    "/$defs/log",
];
const SERVER: &str = "/$defs/server";
const OAUTH: &str = "/$defs/oauth";
const PROVIDER: &str = "/$defs/identityProvider";
const LIMITS: &str = "/$defs/limits";

const ACCESS_TOKENS: &str = "/$defs/accessTokens";
const ISSUER: &str = "/$defs/issuer";
const INTROSPECTION: &str = "/$defs/introspection";
const RULE: &str = "/$defs/rule";

/// Keys without a default: what they do without a value is told in their descriptions.
const WITHOUT_DEFAULT: [&str; 49] = [
    "$schema",
    "admin_listen",
    "alias",
    "allowed_hosts",
    "any",
    "assertion_file",
    "audience",
    "ca_file",
    "calls_per_minute",
    "claim",
    "client_id",
    "client_metadata_url",
    "client_secret",
    "command",
    "cwd",
    "description",
    "endpoint",
    "headers",
    "identity_provider",
    "introspection",
    "issuer",
    "issuers",
    "jwks_uri",
    "key",
    "limits",
    "log",
    "max_sessions",
    "mcpServers",
    "mcp_servers",
    "name",
    "oauth",
    "otlp",
    "private_key_file",
    "proxy",
    "public_url",
    "sampling",
    "scopes",
    "servers",
    "session_key",
    "sha256",
    "socket_group",
    "state_dir",
    "token_endpoint",
    "token_endpoint_auth_method",
    "tools",
    "transport",
    "transports",
    "type",
    "url",
];

/// What only the program can know, by a part of its words, and why.
const ONLY_THE_PROGRAM: [(&str, &str); 14] = [
    ("stands twice", "readers of JSON keep one of the two"),
    ("stands here twice, apart from case", "names are compared"),
    ("apart from case", "names are compared"),
    ("is the name of", "names are compared"),
    ("is the same key as /", "keys are compared"),
    ("no server has this name", "names are compared"),
    ("is more than", "numbers are compared"),
    ("needs \"", "another key is looked for"),
    ("cannot stand beside \"", "keys are compared with each other"),
    ("is that of /oauth", "issuers are compared"),
    ("tell their users apart", "names of issuers are compared"),
    ("has no \"audience\"", "another key is looked for, several objects further up"),
    ("must begin with https://", "the address is looked at"),
    ("others than this machine", "the address is looked at, and another key"),
];

/// What the one variable holds that is set.
const VARIABLE: &str = "v0123456789012345678901234567890";

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

fn validator() -> Validator {
    jsonschema::validator_for(&schema()).unwrap()
}

fn properties(schema: &Value, section: &str) -> serde_json::Map<String, Value> {
    schema.pointer(section).unwrap()["properties"].as_object().unwrap().clone()
}

fn oauth() -> Value {
    json!({
        "issuers": [{
            "issuer": "https://idp.example",
            "audience": "https://mcp.example/mcp",
            "introspection": { "client_id": "c", "client_secret": "s" },
        }],
        "rules": [{ "claim": "groups", "any": ["ops"] }],
    })
}

/// The object of `oauth` in which the keys of a section stand.
fn object_of_oauth<'a>(config: &'a mut Value, section: &str) -> &'a mut Value {
    match section {
        ACCESS_TOKENS => &mut config["oauth"],
        ISSUER => &mut config["oauth"]["issuers"][0],
        INTROSPECTION => &mut config["oauth"]["issuers"][0]["introspection"],
        _ => &mut config["oauth"]["rules"][0],
    }
}

fn parse(config: &str) -> Result<Config, Vec<Problem>> {
    let environment = |name: &str| (name == "X").then(|| VARIABLE.to_owned());
    Config::parse(config, &environment, &Overrides::default())
}

/// A configuration in which a key of a section has that value.
fn with(section: &str, server: &Value, key: &str, value: &Value) -> Value {
    let sha256 = "ab".repeat(32);
    let mut config = json!({
        "state_dir": "/tmp/state",
        "api_keys": [{ "name": "k", "sha256": sha256 }],
        "mcp_servers": { "s": server },
    });
    let at = match section {
        "" => &mut config,
        "/$defs/apiKey" => {
            let object = &mut config["api_keys"][0];
            if key == "key" {
                object.as_object_mut().unwrap().remove("sha256");
            }
            object
        }
        SERVER => &mut config["mcp_servers"]["s"],
        ACCESS_TOKENS | ISSUER | INTROSPECTION | RULE => {
            config["oauth"] = oauth();
            object_of_oauth(&mut config, section)
        }
        OAUTH => {
            config["mcp_servers"]["s"] = json!({ "url": "http://a/", "oauth": {} });
            &mut config["mcp_servers"]["s"]["oauth"]
        }
        PROVIDER => {
            let oauth = json!({
                "grant": "jwt_bearer",
                "assertion_file": "a",
                "identity_provider": { "token_endpoint": "https://i/" },
            });
            config["mcp_servers"]["s"] = json!({ "url": "http://a/", "oauth": oauth });
            &mut config["mcp_servers"]["s"]["oauth"]["identity_provider"]
        }
        "/$defs/otlp" => {
            config["otlp"] = json!({ "endpoint": "http://c:4318" });
            &mut config["otlp"]
        }
        other => {
            let name = other.rsplit('/').next().unwrap();
            config[name] = json!({});
            &mut config[name]
        }
    };
    at[key] = value.clone();
    if key == "mcpServers" {
        config.as_object_mut().unwrap().remove("mcp_servers");
    }
    config
}

fn pointer(at: &str, key: &str) -> String {
    format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// Where the program would tell what the schema tells: at the value, or at the key that is
/// missing, unknown or misspelt.
fn places(error: &ValidationError<'_>) -> Vec<String> {
    let at = error.instance_path().as_str().to_owned();
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            unexpected.iter().map(|key| pointer(&at, key)).collect()
        }
        ValidationErrorKind::Required { property } => {
            vec![pointer(&at, property.as_str().unwrap()), at]
        }
        ValidationErrorKind::PropertyNames { error } => {
            vec![pointer(&at, error.instance().as_str().unwrap())]
        }
        _ => vec![at],
    }
}

/// How the schema judges otherwise than the program. Nothing where the text is no JSON.
fn differences(validator: &Validator, text: &str, found: &[Problem]) -> Vec<String> {
    let Ok(config) = serde_json::from_str::<Value>(text) else { return Vec::new() };
    if found.iter().any(|problem| problem.what.contains("stands twice")) {
        return Vec::new();
    }
    let told: Vec<Vec<String>> = validator.iter_errors(&config).map(|it| places(&it)).collect();
    let all: BTreeSet<&String> = told.iter().flatten().collect();
    let is_told_by_it = |problem: &&Problem| {
        // What stands for something else may be anything.
        let written = config.pointer(&problem.at).and_then(Value::as_str);
        all.contains(&problem.at)
            || written.is_some_and(|text| text.contains('$'))
            || ONLY_THE_PROGRAM.iter().any(|(part, _)| problem.what.contains(part))
    };
    let untold = found.iter().filter(|problem| !is_told_by_it(problem));
    let untold = untold.map(|problem| format!("accepted by the schema: {problem}"));
    // What stands in a key that has no meaning where it stands is not looked at.
    let is_in = |at: &str, of: &str| at.strip_prefix(of).is_some_and(|it| it.starts_with('/'));
    let is_problem = |at: &String| {
        found.iter().any(|it| it.at == *at || (!it.at.is_empty() && is_in(at, &it.at)))
    };
    let unfounded = told.iter().filter(|places| !places.iter().any(is_problem));
    untold.chain(unfounded.map(|at| format!("refused by the schema alone: {at:?}"))).collect()
}

#[track_caller]
fn check(validator: &Validator, what: &str, text: &str) {
    let found = parse(text).err().unwrap_or_default();
    let differ = differences(validator, text, &found);
    assert!(differ.is_empty(), "{what}: {differ:#?}\n{text}");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_in(folder: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root().join(folder)) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn the_schema_has_every_key_and_no_other() {
    let schema = schema();
    let keys = [
        KEYS,
        API_KEY_KEYS,
        ACCESS_TOKEN_KEYS,
        ISSUER_KEYS,
        INTROSPECTION_KEYS,
        RULE_KEYS,
        OTLP_KEYS,
        TRANSPORT_KEYS,
        SERVER_KEYS,
        OAUTH_KEYS,
        IDENTITY_PROVIDER_KEYS,
        limit_keys(),
        LOG_KEYS,
    ];
    for (section, accepted) in SECTIONS.into_iter().zip(keys) {
        let properties = properties(&schema, section);
        let told: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
        assert_eq!(told, accepted.iter().copied().collect(), "{section}");
        let closed = &schema.pointer(section).unwrap()["additionalProperties"];
        assert_eq!(closed, &json!(false), "{section}");
        for (key, property) in properties {
            let of_def = property["$ref"].as_str().and_then(|it| schema.pointer(&it[1..]));
            let told = [Some(&property), of_def];
            let mut told = told.iter().flatten().filter_map(|it| it["description"].as_str());
            assert!(told.any(|it| it.ends_with('.')), "{section}/{key} has no description");
        }
    }
    // A definition that nothing refers to would not be found out by anything.
    for name in schema["$defs"].as_object().unwrap().keys() {
        assert!(SCHEMA.contains(&format!("\"#/$defs/{name}\"")), "{name}");
    }
    jsonschema::meta::validate(&schema).unwrap();
}

#[test]
fn defaults_are_the_programs() {
    let schema = schema();
    let mut without = BTreeSet::new();
    for server in [json!({ "url": "http://a/" }), json!({ "command": "x" })] {
        for section in SECTIONS {
            for (key, property) in properties(&schema, section) {
                let Some(default) = property.get("default") else {
                    without.insert(key);
                    continue;
                };
                let config = with(section, &server, &key, default);
                // Those of the other kind of server.
                if section == SERVER && parse(&config.to_string()).is_err() {
                    continue;
                }
                let mut plain = config.clone();
                let object = match section {
                    "" => &mut plain,
                    "/$defs/apiKey" => &mut plain["api_keys"][0],
                    SERVER => &mut plain["mcp_servers"]["s"],
                    ACCESS_TOKENS | ISSUER | INTROSPECTION | RULE => {
                        object_of_oauth(&mut plain, section)
                    }
                    OAUTH => &mut plain["mcp_servers"]["s"]["oauth"],
                    other => &mut plain[other.rsplit('/').next().unwrap()],
                };
                object.as_object_mut().unwrap().remove(&key);
                let [said, unsaid] = [config, plain].map(|it| parse(&it.to_string()).unwrap());
                let [said, unsaid] = [said, unsaid].map(|it| format!("{it:?}"));
                assert_eq!(said, unsaid, "{section}/{key}");
            }
        }
    }
    assert_eq!(without.iter().map(String::as_str).collect::<Vec<_>>(), WITHOUT_DEFAULT);
}

#[test]
fn ranges_and_words_are_the_programs() {
    let schema = schema();
    let mut n_ranges = 0;
    let mut n_words = 0;
    for section in SECTIONS {
        for (key, property) in properties(&schema, section) {
            let told = |value: Value| {
                let config = with(section, &json!({ "url": "http://a/" }), &key, &value);
                let found = parse(&config.to_string()).unwrap_err();
                found.iter().map(|it| it.what.clone()).collect::<Vec<_>>().join("\n")
            };
            if property["type"] == "integer" {
                let (least, most) = (&property["minimum"], &property["maximum"]);
                let what = told(json!(u64::MAX));
                assert!(
                    what.contains(&format!("between {least} and {most},")),
                    "{key}: {what}"
                );
                n_ranges += 1;
            }
            let of_def = property["$ref"].as_str().and_then(|it| schema.pointer(&it[1..]));
            let either = of_def.unwrap_or(&property)["anyOf"].as_array();
            let Some(words) = either.and_then(|it| it[0]["enum"].as_array()) else { continue };
            let what = told(json!("nobody's"));
            let line = what.lines().find(|it| it.starts_with("must be one of")).unwrap();
            let (of_program, _) = line.split_once(", not ").unwrap();
            for word in of_program.split('"').skip(1).step_by(2) {
                assert!(words.contains(&json!(word)), "{section}/{key}: {word}");
            }
            n_words += 1;
        }
    }
    assert!(n_ranges > 30 && n_words >= 7, "{n_ranges} {n_words}");
}

/// The configurations that must be refused are refused by the schema at the same places.
#[test]
fn what_the_program_refuses_the_schema_refuses() {
    let validator = validator();
    for path in files_in("tests/library/config/fixtures") {
        let text = std::fs::read_to_string(&path).unwrap();
        let case: Value = serde_json::from_str(&text).unwrap();
        // A key that stands twice is lost here; that case is skipped anyhow.
        let Some(config) = case.get("config") else { continue };
        let environment =
            |name: &str| case["env"].get(name).and_then(Value::as_str).map(str::to_owned);
        let text = config.to_string();
        let found = Config::parse(&text, &environment, &Overrides::default());
        let found = found.err().unwrap_or_default();
        let differ = differences(&validator, &text, &found);
        assert!(differ.is_empty(), "{}: {differ:#?}", path.display());
    }
}

/// The shipped configuration, those in the documentation, and whatever the fuzzer has found.
#[test]
fn what_the_program_accepts_the_schema_accepts() {
    let validator = validator();
    let shipped = std::fs::read_to_string(root().join("config.json")).unwrap();
    parse(&shipped).unwrap();
    check(&validator, "config.json", &shipped);
    let documents = [root().join("README.md")].into_iter().chain(files_in("docs"));
    let mut n_told = 0;
    for path in documents.filter(|path| path.extension().is_some_and(|it| it == "md")) {
        let text = std::fs::read_to_string(&path).unwrap();
        for block in text.split("```json\n").skip(1) {
            let block = block.split("```").next().unwrap();
            let Ok(Value::Object(mut config)) = serde_json::from_str(block) else { continue };
            // The files of other hosts, and what the gateway answers.
            if !config.keys().all(|key| KEYS.contains(&key.as_str())) {
                continue;
            }
            if !config.contains_key("mcpServers") {
                let demo = json!({ "demo": { "command": "trunkline", "args": ["demo"] } });
                config.entry("mcp_servers").or_insert(demo);
            }
            check(&validator, &path.display().to_string(), &Value::Object(config).to_string());
            n_told += 1;
        }
    }
    assert!(n_told > 5, "{n_told}");
    for path in files_in("fuzz/corpus/config") {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        check(&validator, &path.display().to_string(), &text);
    }
}

/// What a key may be set to, and must not.
const VALUES: &str = include_str!("values.json");

#[test]
fn whatever_a_key_is_set_to_is_judged_alike() {
    let _heavy = crate::support::heavy();
    let (schema, validator) = (schema(), validator());
    let values: Vec<Value> = serde_json::from_str(VALUES).unwrap();
    let mut differ = Vec::new();
    for section in SECTIONS {
        for server in [json!({ "url": "http://a/" }), json!({ "command": "x" })] {
            for key in properties(&schema, section).keys().map(String::as_str).chain(["colour"])
            {
                for value in &values {
                    let text = with(section, &server, key, value).to_string();
                    let found = parse(&text).err().unwrap_or_default();
                    for line in differences(&validator, &text, &found) {
                        differ.push(format!("{section}/{key} = {value}: {line}"));
                    }
                }
            }
        }
    }
    differ.dedup();
    assert!(differ.is_empty(), "{} differ:\n{}", differ.len(), differ.join("\n"));
}

#[test]
fn the_gateway_serves_the_schema() {
    let gateway = Gateway::with(json!({
        "$schema": "http://127.0.0.1:4000/config.schema.json",
        "api_keys": [{ "name": "k", "key": "a-key-of-the-tests" }],
        "mcp_servers": {},
    }))
    .start();
    for path in ["/config.schema.json", "/config.schema.json/"] {
        let answer = gateway.get(path).expect(200);
        assert_eq!(answer.header("Content-Type"), Some("application/schema+json"));
        assert_eq!(answer.json(), schema());
        assert!(answer.text().ends_with("}\n") && answer.text().len() < SCHEMA.len());
        gateway.send(&Request::get(path)).expect_error(401);
    }
    let post = gateway.post("/config.schema.json", &json!({})).expect(405);
    assert_eq!(post.header("Allow"), Some("GET, HEAD, OPTIONS"));
}
