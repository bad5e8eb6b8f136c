//! Tests of imports: each source in its program's form, and the resulting valid configuration.

use serde_json::{Value, json};

use super::import;
use crate::config::{Config, Overrides};

/// The value of every variable here.
const SECRET: &str = "a-value-of-the-environment";

struct Imported {
    servers: Value,
    keys: Value,
    notes: String,
}

/// Imports, and checks the result as `serve` would.
#[track_caller]
fn imported(text: &str) -> Imported {
    let (config, notes) = import(text).unwrap_or_else(|what| panic!("{what}\n{text}"));
    let environment = |name: &str| (name != "GITHUB_URL").then(|| format!("{SECRET}-{name}"));
    let checked = Config::parse(&config.to_string(), &environment, &Overrides::default());
    assert!(checked.is_ok(), "{:?}\n{config:#}", checked.err());
    assert!(!config.to_string().contains(SECRET));
    let (servers, keys) = (config["mcp_servers"].clone(), config["api_keys"].clone());
    Imported { servers, keys, notes: notes.join("\n") }
}

impl Imported {
    /// Checks that a note with these parts exists.
    #[track_caller]
    fn says(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.notes.contains(part), "{part:?} is not in:\n{}", self.notes);
        }
    }
}

#[test]
fn claude_desktop_and_claude_code() {
    let made = imported(
        r#"{
          "globalShortcut": "",
          "mcpServers": {
            "filesystem": { "command": "npx", "args": ["-y", "@modelcontextprotocol/server-filesystem", "/data"] },
            "My GitHub": {
              "type": "http", "url": "${GITHUB_URL:-https://api.example.com/mcp}",
              "headers": { "Authorization": "Bearer ${GITHUB_TOKEN}", "X-Team": "a" },
              "headersHelper": "/bin/helper", "oauth": { "clientId": "x" }
            },
            "events": { "type": "sse", "url": "https://example.com/sse" },
            "socket": { "type": "ws", "url": "wss://example.com" },
            "db": { "type": "stdio", "command": "db", "args": ["--dsn", "${DSN}"], "env": { "API_KEY": "clear", "N": 1 } }
          }
        }"#,
    );
    let servers = json!({
        "filesystem": { "command": "npx", "args": ["-y", "@modelcontextprotocol/server-filesystem", "/data"] },
        "My_GitHub": {
            "transport": "http", "url": "${GITHUB_URL:-https://api.example.com/mcp}",
            "headers": { "Authorization": "Bearer ${GITHUB_TOKEN}", "X-Team": "a" },
        },
        "events": { "transport": "sse", "url": "https://example.com/sse" },
        "db": { "command": "db", "args": ["--dsn", "${DSN}"], "env": { "API_KEY": "clear", "N": "1" } },
    });
    // A default is used in place of a variable that is not set.
    assert_eq!(made.servers, servers);
    made.says(&[
        "mcpServers.My GitHub: is called \"My_GitHub\"",
        "mcpServers.My GitHub.headersHelper: left out: no program",
        "mcpServers.My GitHub.oauth: left out",
        "mcpServers.socket: left out: its transport",
        "mcpServers.db.env.API_KEY: is written out",
        "${GITHUB_TOKEN} is to be set",
        "${DSN} is to be set",
    ]);
    assert!(!made.notes.contains("clear"), "no value is told: {}", made.notes);
}

#[test]
fn the_projects_of_claude_code() {
    let made = imported(
        r#"{ "numStartups": 3, "mcpServers": { "a": { "command": "a" } }, "projects": {
            "/p": { "mcpServers": { "a": { "command": "b" } } }, "/q": { "mcpServers": {} } } }"#,
    );
    let servers = json!({ "a": { "command": "a" }, "a_2": { "command": "b" } });
    assert_eq!(made.servers, servers);
    made.says(&["projects./p.a: is called \"a_2\""]);
}

#[test]
fn cursor_and_windsurf() {
    let made = imported(
        r#"{ "mcpServers": {
            "one": { "command": "uvx mcp-server-time", "env": { "KEY": "${env:TIME_KEY}" }, "envFile": ".env" },
            "two": { "serverUrl": "https://example.com/mcp", "headers": { "Authorization": "${env:TWO}" },
                     "disabledTools": ["drop_*"], "disabled": true },
            "three": { "httpUrl": "https://example.com/x", "timeout": 30, "trust": true },
            "win": { "command": "cmd", "args": ["/c", "npx", "-y", "x"], "cwd": "${workspaceFolder}/x" }
        } }"#,
    );
    let servers = json!({
        "one": { "command": "uvx", "args": ["mcp-server-time"], "env": { "KEY": "${TIME_KEY}" } },
        "two": { "url": "https://example.com/mcp", "headers": { "Authorization": "${TWO}" },
                 "tools": ["!drop_*"], "disabled": true },
        "three": { "transport": "http", "url": "https://example.com/x" },
        "win": { "command": "npx", "args": ["-y", "x"], "cwd": "${WORKSPACE_FOLDER}/x" },
    });
    assert_eq!(made.servers, servers);
    made.says(&[
        "one: the command was split",
        "one.envFile: left out",
        "three.timeout: left out",
    ]);
    assert!(!made.notes.contains("trust"), "{}", made.notes);
}

#[test]
fn vs_code_with_inputs_and_comments() {
    let text = r#"{
        // VS Code asks for these when a server starts.
        "inputs": [ { "type": "promptString", "id": "perplexity-key", "description": "Perplexity API Key", "password": true }, ],
        "servers": {
            "Perplexity": { "type": "stdio", "command": "npx", "args": ["-y", "server-perplexity"],
                "env": { "PERPLEXITY_API_KEY": "${input:perplexity-key}" } /* a secret */ },
            "fetch": { "type": "http", "url": "http://localhost:3000/mcp", "gallery": true, },
        },
    }"#;
    let made = imported(text);
    let servers = json!({
        "Perplexity": { "command": "npx", "args": ["-y", "server-perplexity"],
            "env": { "PERPLEXITY_API_KEY": "${PERPLEXITY_KEY}" } },
        "fetch": { "transport": "http", "url": "http://localhost:3000/mcp" },
    });
    assert_eq!(made.servers, servers);
    assert_eq!(
        made.notes,
        "${PERPLEXITY_KEY} is to be set in the gateway's environment (Perplexity API Key)"
    );
    // The same servers in VS Code's settings.
    let settings = format!("{{ \"editor.fontSize\": 12, \"mcp\": {text} }}");
    assert_eq!(imported(&settings).servers, servers);
}

#[test]
fn litellm() {
    let made = imported(LITELLM);
    let servers = json!({
        "my_mcp_server": {
            "url": "http://localhost:8001/mcp", "transport": "http",
            "description": "My custom MCP server",
        },
        "github": {
            "url": "https://api.example.com/mcp/", "transport": "http",
            "headers": { "Authorization": "Bearer ${GITHUB_TOKEN}", "X-Team": "a" },
            "forward_headers": ["X-Request-Source"],
            "alias": "gh", "tools": ["list_repos", "get_repo", "!drop_repo"],
            "timeout_ms": 30000, "max_in_flight": 4,
        },
        "keyed": {
            "url": "https://example.com/sse", "transport": "sse",
            "headers": { "X-API-Key": "${KEYED}" },
        },
        "basic": {
            "url": "https://example.com/mcp", "transport": "http",
            "headers": { "Authorization": "Basic dXNlcjpwYXNz" },
        },
        "own": {
            "url": "https://example.com/own", "transport": "http",
            "forward_headers": ["Authorization"],
        },
        "local": {
            "command": "python3", "args": ["server.py"],
            "env": { "TOKEN": "${TOKEN}", "PORT": "8080" }, "alias": "l",
        },
    });
    assert_eq!(made.servers, servers);
    let keys = json!([
        { "name": "master", "key": "${LITELLM_MASTER_KEY}", "admin": true },
        { "name": "dev-group", "key": "${TRUNKLINE_KEY_DEV_GROUP}", "servers": ["github", "local"] },
        { "name": "ops", "key": "${TRUNKLINE_KEY_OPS}", "servers": ["local", "github"] },
    ]);
    assert_eq!(made.keys, keys);
    made.says(&[
        "mcp_servers.github.client_id: left out: it is used with",
        "mcp_servers.github.extra_headers: is written as \"forward_headers\": clients give",
        "mcp_servers.openapi: left out: tools are not made",
        "mcp_servers.basic.auth_value: is written out",
        "mcp_servers.own.auth_value: there is none: clients give their own as x-mcp-",
        "general_settings: left out: database_url, store_model_in_db",
        "model_list: left out",
        "litellm_settings: left out: drop_params",
        "environment_variables: left out; set in the gateway's environment: OTHER",
        "listen: ",
        "${GITHUB_TOKEN} is to be set",
    ]);
    assert!(!made.notes.contains("user:pass") && !made.notes.contains("other-value"));
}

const LITELLM: &str = r#"
model_list:
  - model_name: gpt
    litellm_params: { model: openai/gpt, api_key: os.environ/OPENAI_API_KEY }
environment_variables:
  OTHER: other-value
litellm_settings:
  drop_params: true
  mcp_aliases: { "l": "local" }
general_settings:
  master_key: os.environ/LITELLM_MASTER_KEY
  database_url: "postgres://x"
  store_model_in_db: yes
mcp_servers:
  my_mcp_server:
    url: "http://localhost:8001/mcp"
    transport: "http"
    description: "My custom MCP server"
  github: &github
    url: https://api.example.com/mcp/
    alias: gh
    auth_type: bearer_token
    auth_value: os.environ/GITHUB_TOKEN
    static_headers: { X-Team: a }
    extra_headers: ["X-Request-Source"]
    allowed_tools: [list_repos, gh-get_repo]
    disallowed_tools: [github-drop_repo]
    access_groups: ["dev-group"]
    timeout: 30
    max_concurrent_requests: 4
    client_id: os.environ/CLIENT
    allow_all_keys: true
  keyed:
    url: "https://example.com/sse"
    transport: sse
    auth_type: api_key
    authentication_token: os.environ/KEYED
  basic:
    url: https://example.com/mcp
    auth_type: basic
    auth_value: "user:pass"
  own:
    url: https://example.com/own
    auth_type: bearer_token
  openapi:
    url: https://example.com
    spec_path: ./openapi.json
  local:
    transport: stdio
    command: python3
    args: ["server.py"]
    env:
      TOKEN: os.environ/TOKEN
      PORT: 8080
    access_groups: [dev-group, ops]
"#;

#[test]
fn sign_ins_of_litellm_and_of_hosts() {
    let made = imported(
        "mcp_servers:\n  users: {url: 'https://u/', auth_type: oauth2, scopes: [read, write], \
         authorization_url: 'https://as/a', token_url: 'https://as/t'}\n  plain: {url: \
         'https://p/', auth_type: oauth2}\n  machine: {url: 'https://m/', auth_type: oauth2, \
         client_id: me, client_secret: os.environ/SECRET, token_url: 'https://as/t'}\n  flow: \
         {url: 'https://f/', auth_type: oauth2, oauth2_flow: client_credentials, client_id: me, \
         client_secret: written}\n",
    );
    let of = |name: &str| made.servers[name].clone();
    assert_eq!(of("users")["oauth"], json!({ "scopes": ["read", "write"] }));
    assert_eq!(of("users")["credentials"], "per_user");
    assert_eq!(of("plain")["oauth"], true);
    let machine = json!({
        "grant": "client_credentials", "client_id": "me", "client_secret": "${SECRET}",
    });
    assert_eq!((&of("machine")["oauth"], of("machine").get("credentials")), (&machine, None));
    assert_eq!(of("flow")["oauth"]["grant"], "client_credentials");
    made.says(&[
        "mcp_servers.users.token_url: left out: the server itself says",
        "mcp_servers.users.auth_type: each user signs in",
        "mcp_servers.flow.client_secret: is written out",
        "\"state_dir\": \"state\" is where",
    ]);
    assert!(!made.notes.contains("written;") && !made.notes.contains("https://as"));
    let made = imported(
        r#"{ "mcpServers": {
            "a": { "url": "https://a/", "oauth": { "clientId": "id", "scope": "x y", "callbackPort": 1 } },
            "b": { "url": "https://b/", "auth": { "CLIENT_ID": "${env:ID}", "CLIENT_SECRET": "${env:S}" } },
            "c": { "url": "https://c/", "oauth": false }, "d": { "url": "https://d/", "oauth": {} }
        } }"#,
    );
    let of = |name: &str| made.servers[name]["oauth"].clone();
    assert_eq!(of("a"), json!({ "client_id": "id", "scopes": ["x", "y"] }));
    assert_eq!(of("b"), json!({ "client_id": "${ID}", "client_secret": "${S}" }));
    assert_eq!((of("c"), of("d")), (json!(null), json!(true)));
    made.says(&["mcpServers.a.oauth.callbackPort: left out", "trunkline login"]);
}

#[test]
fn an_alias_takes_no_servers_name() {
    let made = imported(
        "mcp_servers:\n  a: {url: 'http://h/', alias: B}\n  b: {url: 'http://h/', alias: 'x y'}\n  \
         c: {url: 'http://h/', alias: d}\n",
    );
    let url = json!({ "url": "http://h/", "transport": "http" });
    let mut aliased = url.clone();
    aliased["alias"] = "d".into();
    assert_eq!(made.servers, json!({ "a": url, "b": url, "c": aliased }));
    made.says(&["mcp_servers.a.alias: left out", "mcp_servers.b.alias: left out"]);
}

#[test]
fn keys_have_names_and_variables_of_their_own() {
    let made = imported(
        "general_settings: {master_key: os.environ/M}\nmcp_servers:\n  \
         a: {url: 'http://h/', access_groups: [a-b, a_b, master], server_id: x, \
         static_headers: ['X: y']}\n",
    );
    let all = made.keys.as_array().unwrap();
    let of = |at: &str| all.iter().map(|key| key[at].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(of("name"), ["master", "a-b", "a_b", "master_2"]);
    let mut variables = of("key");
    variables.sort_unstable();
    variables.dedup();
    assert_eq!(variables.len(), 4);
    made.says(&[
        "mcp_servers.a.server_id: left out: the server's name",
        "mcp_servers.a.static_headers: left out: it is no object",
    ]);
}

#[test]
fn what_all_keys_may_use_is_every_groups() {
    let made = imported(
        "mcp_servers:\n  a: {url: 'http://h/', allow_all_keys: true}\n  \
         b: {url: 'http://h/', access_groups: [g]}\n  \
         c: {url: 'http://h/', access_groups: [h], allow_all_keys: true}\n",
    );
    let of = |n: usize| (made.keys[n]["name"].clone(), made.keys[n]["servers"].clone());
    assert_eq!(of(0), (json!("g"), json!(["b", "a", "c"])));
    assert_eq!(of(1), (json!("h"), json!(["c", "a"])));
}

#[test]
fn a_master_key_in_clear_becomes_its_hash() {
    let made = imported(
        "general_settings: {master_key: sk-1234}\nmcp_servers: {a: {url: 'http://h/'}}",
    );
    let hash = "c7d9ba00fb9d3eb6ea3a1fcd9d3f5a8b";
    assert_eq!(made.keys[0]["sha256"].as_str().map(str::len), Some(64), "{hash}");
    assert_eq!(made.keys[0].get("key"), None);
    made.says(&["general_settings.master_key: was written out"]);
}

#[test]
fn a_server_of_the_registry() {
    let made = imported(
        r#"{ "$schema": "https://static.example.org/server.schema.json",
          "name": "io.github.someone/weather-mcp", "description": "Weather ${now}", "version": "1.2.0",
          "packages": [ {
            "registryType": "npm", "identifier": "@someone/weather-mcp", "version": "1.2.0",
            "transport": { "type": "stdio" },
            "runtimeArguments": [ { "type": "named", "name": "-y" } ],
            "packageArguments": [
              { "type": "positional", "value": "serve" },
              { "type": "named", "name": "--dir", "value": "{home}/data",
                "variables": { "home": { "description": "Where", "isRequired": true } } },
              { "type": "named", "name": "--units", "default": "metric" }
            ],
            "environmentVariables": [
              { "name": "WEATHER_API_KEY", "description": "The key", "isRequired": true, "isSecret": true },
              { "name": "LOG_LEVEL", "default": "info" },
              { "name": "CACHE" }
            ]
          }, { "registryType": "oci", "identifier": "docker.io/someone/weather", "version": "1.2.0" } ]
        }"#,
    );
    let servers = json!({ "weather-mcp": {
        "command": "npx",
        "args": ["-y", "@someone/weather-mcp@1.2.0", "serve", "--dir", "${HOME}/data", "--units", "metric"],
        "env": { "WEATHER_API_KEY": "${WEATHER_API_KEY}", "LOG_LEVEL": "info" },
        "description": "Weather $${now}",
    }});
    assert_eq!(made.servers, servers);
    made.says(&[
        "packages[1]: left out: another way",
        "packages[0].env.CACHE: left out",
        "${WEATHER_API_KEY} is to be set in the gateway's environment (The key)",
    ]);
}

#[test]
fn remotes_come_before_packages_and_containers_are_run() {
    let made = imported(
        r#"{ "server": { "name": "com.example/x", "packages": [ { "registryType": "pypi", "identifier": "x" } ],
          "remotes": [ { "type": "websocket", "url": "wss://x" },
            { "type": "streamable-http", "url": "https://{region}.example.com/mcp",
              "variables": { "region": { "default": "eu" } },
              "headers": [ { "name": "Authorization", "value": "Bearer {token}",
                "variables": { "token": { "isSecret": true } } } ] } ] }, "_meta": {} }"#,
    );
    let servers = json!({ "x": {
        "url": "https://eu.example.com/mcp", "transport": "http",
        "headers": { "Authorization": "Bearer ${TOKEN}" },
    }});
    assert_eq!(made.servers, servers);
    made.says(&["remotes[0]: left out: its transport", "packages[0]: left out: another way"]);
    let made = imported(
        r#"{ "servers": [ { "server": { "name": "a/box", "packages": [ { "registryType": "oci",
          "identifier": "ghcr.io/a/box:1", "version": "1", "environmentVariables": [
            { "name": "KEY", "isSecret": true } ] } ] } } ] }"#,
    );
    let args = json!(["run", "-i", "--rm", "-e", "KEY", "ghcr.io/a/box:1"]);
    assert_eq!(made.servers["box"]["args"], args);
    assert_eq!(made.servers["box"]["env"], json!({ "KEY": "${KEY}" }));
}

#[test]
fn what_is_none_of_these_is_said() {
    for (text, part) in [
        ("", "no object"),
        ("[1]", "no object"),
        ("{\"a\": 1}", "nothing in it is known"),
        ("{\"mcpServers\": {}}", "no server"),
        ("{\"mcpServers\": {\"a\": {\"type\": \"ws\", \"url\": \"x\"}}}", "its transport"),
        ("{\"mcpServers\": {\"a\" {}}}", "no JSON"),
        ("mcp_servers: {a: [}", "no YAML: line 1"),
        ("{\"mcp_servers\": {\"a\": {\"url\": \"http://h/\"}}}", "already"),
    ] {
        let error = import(text).expect_err(text);
        assert!(error.contains(part), "{text}: {error}");
    }
    // A bare map, as documentation shows it.
    assert_eq!(
        imported("{\"a\": {\"command\": \"b\"}}").servers,
        json!({"a": {"command": "b"}})
    );
}

#[test]
fn cut_anywhere_it_ends() {
    for end in (0..LITELLM.len()).step_by(7) {
        // Any result is right, as long as there is no panic.
        drop(import(&LITELLM[..end]));
    }
}
