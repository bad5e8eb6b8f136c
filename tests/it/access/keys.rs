//! Keys: who may come in, what a key may use, and that no secret is ever told.

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, entry_of, names_in, scripted_child};
use crate::support::http::{Request, Response};
use crate::support::mcp::{McpClient, initialize_message};
use crate::support::mcp_sse::SseClient;
use crate::support::modern::ModernClient;
use crate::support::upstream_http::HttpUpstream;
use crate::support::{wait_for, wait_until};

const KEY: &str = "key-number-one";

fn sha256(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bearer(request: Request, key: &str) -> Request {
    request.header("Authorization", &format!("Bearer {key}"))
}

fn list() -> Request {
    Request::get("/mcp/tools/list")
}

#[track_caller]
fn expect_challenge(answer: Response) {
    let answer = answer.expect(401);
    let challenge = answer.header("WWW-Authenticate").unwrap_or_default();
    assert!(challenge.starts_with("Bearer"), "{answer}");
}

#[test]
fn an_empty_list_of_tools_gives_none() {
    let upstream = HttpUpstream::with_tools(&["x"]);
    let gateway = Gateway::started(json!({
        "api_keys": [{ "name": "all", "key": "0123456789abcdef-all" },
                     { "name": "none", "key": "0123456789abcdef-none", "tools": [] }],
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }));
    let list = |key: &str| {
        gateway.send(&bearer(Request::get("/mcp/tools/list"), key)).expect(200).json()
    };
    assert_eq!(list("0123456789abcdef-all")["tools"][0]["name"], "x");
    assert_eq!(list("0123456789abcdef-none")["tools"], json!([]));
}

#[test]
fn a_key_comes_in_three_headers() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(json!({
        "api_keys": [{ "name": "k", "key": KEY }],
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }));
    gateway.send(&bearer(list(), KEY)).expect(200);
    gateway.send(&list().header("authorization", &format!("bearer {KEY}"))).expect(200);
    gateway.send(&list().header("x-litellm-api-key", &format!("Bearer {KEY}"))).expect(200);
    gateway.send(&list().header("x-api-key", KEY)).expect(200);
}

#[test]
fn a_key_may_be_configured_as_its_hash() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::with(json!({
        "api_keys": [{ "name": "k", "sha256": sha256(KEY) }],
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }))
    .start();
    gateway.send(&bearer(list(), KEY)).expect(200);
    expect_challenge(gateway.send(&bearer(list(), &sha256(KEY))));
}

#[test]
fn every_door_wants_a_key() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(json!({
        "api_keys": [{ "name": "k", "key": KEY }],
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }));
    let doors = || {
        [
            list(),
            Request::post("/mcp/tools/call", &json!({"name": "echo"})),
            Request::get("/mcp-rest/tools/list"),
            Request::post("/mcp-rest/tools/call", &json!({"name": "echo"})),
            Request::get("/mcp"),
            Request::get("/sse"),
            Request::get("/mcp/s"),
            Request::post("/mcp/sse/messages?session_id=x", &json!({})),
            Request::post("/mcp", &initialize_message(1, "2025-11-25")),
            Request::post("/s/mcp", &initialize_message(1, "2025-11-25")),
            Request::new("DELETE", "/mcp"),
            Request::get("/status"),
            Request::get("/metrics"),
        ]
    };
    for door in doors() {
        expect_challenge(gateway.send(&door));
    }
    for wrong in ["wrong", "", "key-number-onE", "key-number-one "] {
        for door in doors() {
            expect_challenge(
                gateway.send(
                    &door
                        .header("x-api-key", wrong.trim_end())
                        .header("Authorization", &format!("Bearer {}x", wrong.trim_end())),
                ),
            );
        }
    }
    gateway.send(&Request::get("/healthz")).expect(200);
    gateway.send(&Request::get("/readyz")).expect(200);
    assert_eq!(upstream.seen().n_calls("echo"), 0);
}

fn two_servers_and_keys(first: &HttpUpstream, second: &HttpUpstream) -> Value {
    json!({
        "api_keys": [
            { "name": "all", "key": KEY },
            { "name": "one", "key": "key-of-one", "servers": ["a"] },
            { "name": "globs", "key": "key-of-globs", "tools": ["*-echo", "b-*", "!b-add"] },
        ],
        "mcp_servers": {
            "a": { "url": first.url(), "transport": "http" },
            "b": { "url": second.url(), "transport": "http" },
        },
    })
}

#[test]
fn a_key_sees_only_what_it_may_use() {
    let first = HttpUpstream::with_tools(&["echo", "add"]);
    let second = HttpUpstream::with_tools(&["echo", "add", "x"]);
    let gateway = Gateway::started(two_servers_and_keys(&first, &second));
    let names = |key: &str| names_in(&gateway.send(&bearer(list(), key)).expect(200).json());
    assert_eq!(names(KEY), ["a-add", "a-echo", "b-add", "b-echo", "b-x"]);
    assert_eq!(names("key-of-one"), ["a-echo", "a-add"], "one server, its own order");
    assert_eq!(names("key-of-globs"), ["a-echo", "b-echo", "b-x"]);
    let told = gateway.send(&bearer(list(), "key-of-one")).expect(200).json();
    assert!(entry_of(&told["upstreams"], "b").is_none(), "{told}");
    let status =
        gateway.send(&bearer(Request::get("/status"), "key-of-one")).expect(200).json();
    assert!(entry_of(&status["upstreams"], "b").is_none(), "{status}");
    let client = McpClient::new(gateway.address()).with_key("key-of-globs").opened();
    assert_eq!(client.tool_names(), ["a-echo", "b-echo", "b-x"]);
    // The header narrows and never widens.
    let wide = bearer(list(), "key-of-one").header("x-mcp-servers", "a,b");
    assert_eq!(names_in(&gateway.send(&wide).expect(200).json()), ["a-echo", "a-add"]);
    // A bare name that is ambiguous for others is not for this key.
    let bare = Request::post("/mcp/tools/call", &json!({"name": "echo"}));
    gateway.send(&bearer(bare, "key-of-one")).expect(200);
    assert_eq!(second.seen().n_calls("echo"), 0);
}

#[test]
fn hidden_and_unknown_look_the_same() {
    let (first, second) = (HttpUpstream::start(), HttpUpstream::start());
    let gateway = Gateway::started(two_servers_and_keys(&first, &second));
    let same = |hidden: Response, unknown: Response, names: (&str, &str)| {
        assert_eq!(hidden.status(), 404, "{hidden}");
        assert_eq!(unknown.status(), 404, "{unknown}");
        assert_eq!(hidden.text().replace(names.0, names.1), unknown.text());
        let headers = |answer: &Response| -> Vec<(String, String)> {
            // Each request has a name of its own.
            let is_own = |name: &str| ["date", "x-request-id"].contains(&name);
            let headers = answer.head.headers.iter();
            headers.filter(|(k, _)| !is_own(&k.to_ascii_lowercase())).cloned().collect()
        };
        assert_eq!(headers(&hidden), headers(&unknown));
    };
    let call = |tool: &str| {
        let request = Request::post("/mcp/tools/call", &json!({ "name": tool }));
        gateway.send(&bearer(request, "key-of-one"))
    };
    same(call("b-echo"), call("c-echo"), ("b-echo", "c-echo"));
    let listed = |server: &str| {
        let request = Request::get(&format!("/mcp/tools/list?server={server}"));
        gateway.send(&bearer(request, "key-of-one"))
    };
    same(listed("b"), listed("c"), ("\\\"b\\\"", "\\\"c\\\""));
    let door = |server: &str| {
        let request =
            Request::post(&format!("/mcp/{server}"), &initialize_message(1, "2025-11-25"));
        let request = request.header("Accept", "application/json, text/event-stream");
        gateway.send(&bearer(request, "key-of-one"))
    };
    same(door("b"), door("c"), ("\\\"b\\\"", "\\\"c\\\""));
    assert_eq!(second.seen().n_calls("echo"), 0);
}

#[test]
fn globs_of_a_key_match_names_with_the_servers_own_name() {
    let upstream = HttpUpstream::with_tools(&["echo", "add"]);
    // Neither the alias nor the missing prefix changes what the glob is held against.
    let gateway = Gateway::started(json!({
        "prefix": "never",
        "api_keys": [{ "name": "k", "key": KEY, "tools": ["long_name-echo"] }],
        "mcp_servers": {
            "long_name": { "url": upstream.url(), "transport": "http", "alias": "short" },
        },
    }));
    assert_eq!(gateway.tool_names(), ["echo"]);
    gateway.call("echo", &json!({})).expect(200);
    gateway.call("add", &json!({})).expect_error(404);
    let client = McpClient::new(gateway.address()).with_key(KEY).at("/mcp/long_name").opened();
    assert_eq!(client.tool_names(), ["echo"]);
}

#[test]
fn a_session_belongs_to_its_key() {
    let (first, second) = (HttpUpstream::start(), HttpUpstream::start());
    let gateway = Gateway::started(two_servers_and_keys(&first, &second));
    let client = McpClient::new(gateway.address()).with_key(KEY).opened();
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let foreign = |request: Request| {
        let request = request.header("Accept", "application/json, text/event-stream");
        let request = request.header("Mcp-Session-Id", client.session());
        gateway.send(&bearer(request, "key-of-one"))
    };
    foreign(Request::post_text("/mcp", ping)).expect(404);
    foreign(Request::get("/mcp")).expect(404);
    foreign(Request::new("DELETE", "/mcp")).expect(404);
    client.post(ping).expect(200);
    let own = [("Authorization".to_owned(), format!("Bearer {KEY}"))];
    let mut old = SseClient::connect_with(gateway.address(), "/sse", &own);
    old.initialize();
    let taken = Request::post_text(&old.endpoint, ping);
    gateway.send(&bearer(taken, "key-of-one")).expect(404);
    assert_eq!(old.request("ping", &json!({}))["result"], json!({}));
}

#[test]
fn beyond_loopback_it_needs_keys() {
    let servers = json!({ "s": { "url": "http://127.0.0.1:9/mcp", "transport": "http" } });
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let config = json!({ "listen": listen, "mcp_servers": servers });
        let ended = Gateway::with(config).try_start().expect_err("it must not start");
        assert_eq!(ended.code, Some(78), "{ended:?}");
        assert!(ended.stderr.contains("api_keys"), "{ended:?}");
    }
    let open =
        json!({ "listen": "0.0.0.0:0", "allow_anonymous": true, "mcp_servers": servers });
    foreign_hosts_are_refused(&open);
    let keyed = json!({
        "listen": "0.0.0.0:0", "api_keys": [{ "name": "k", "key": KEY }], "mcp_servers": servers,
    });
    // Whoever has no key reads nothing, under whatever name: any Host is admitted, also where
    // keys have come to a gateway that was open.
    for allow_anonymous in [false, true] {
        let mut keyed = keyed.clone();
        keyed["allow_anonymous"] = json!(allow_anonymous);
        let gateway = Gateway::with(keyed).start();
        let send = |request: Request| gateway.send(&request.host("rebound.example"));
        send(bearer(list(), KEY)).expect(200);
        expect_challenge(send(list()));
        let told = gateway.stop().stderr;
        let warned = told
            .contains("/allow_anonymous: has no effect where keys or issuers are configured");
        assert_eq!(warned, allow_anonymous, "{told}");
    }
}

#[test]
fn a_foreign_host_is_quoted_with_the_key_that_admits_it() {
    let gateway = Gateway::with(json!({ "mcp_servers": {} })).start();
    let refused = |request: Request| gateway.send(&request).expect(403).text().to_owned();
    let told = refused(Request::get("/mcp/tools/list").host("edge.example:4000"));
    assert!(told.contains(r#"\"edge.example:4000\""#), "{told}");
    assert!(told.contains("allowed_hosts") && !told.contains("allowed_origins"), "{told}");
    let long = format!("{}.example", "x".repeat(5000));
    let told = refused(Request::get("/mcp/tools/list").host(&long));
    assert!(told.contains("xxx…") && told.len() < 1000, "{told}");
    let page = Request::get("/mcp/tools/list").header("Origin", "https://page.example");
    let told = refused(page);
    assert!(
        told.contains("https://page.example") && told.contains("allowed_origins"),
        "{told}"
    );
}

#[test]
fn a_method_that_nobody_knows_is_not_for_a_key_with_some_tools_only() {
    let upstream = HttpUpstream::start();
    let limited = "key-limited-12";
    let gateway = Gateway::started(json!({
        "api_keys": [
            { "name": "whole", "key": KEY, "servers": ["s"] },
            { "name": "limited", "key": limited, "servers": ["s"], "tools": ["s-echo"] },
        ],
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }));
    let ask = |key: &str| {
        let client = McpClient::new(gateway.address()).with_key(key).opened();
        client.notify(&format!("notifications/vendor/{key}"), &json!({})).expect(202);
        client.request("vendor/echo", &json!({ "n": 1 }))
    };
    let refused = ask(limited);
    assert_eq!(refused["error"]["code"], -32601, "{refused}");
    let modern = ModernClient::to(&gateway).key(limited);
    let refused = modern.request("vendor/echo", &json!({ "n": 1 })).message;
    assert_eq!(refused["error"]["code"], -32601, "{refused}");
    let passed = ask(KEY);
    assert_eq!(passed["result"]["echo"]["n"], 1, "{passed}");
    let noted = |key: &str| {
        let seen = upstream.seen().notifications;
        seen.iter().any(|it| it.ends_with(&format!("vendor/{key}")))
    };
    wait_until("what the other key says has come", || noted(KEY));
    assert!(!noted(limited));
}

/// A page of a name that was bound to this machine's address would else read everything.
fn foreign_hosts_are_refused(open: &Value) {
    let mut config = open.clone();
    let gateway = Gateway::with(config.clone()).start();
    let list = |host: &str| gateway.send(&Request::get("/mcp/tools/list").host(host));
    for host in ["192.0.2.7:4000", "[2001:db8::1]", "localhost:1", "127.0.0.1"] {
        list(host).expect(200);
    }
    for path in ["/mcp/tools/list", "/status", "/mcp/sse", "/readyz"] {
        gateway.send(&Request::get(path).host("rebound.example")).expect(403);
    }
    // That it lives is told to whoever asks, and nothing else.
    gateway.send(&Request::get("/healthz").host("rebound.example")).expect(200);
    list("edge.example").expect(403);
    // Its own page posts too; another machine's does not.
    let call = |origin: &str| {
        let body = json!({ "name": "none", "arguments": {} });
        let request = Request::post("/mcp/tools/call", &body).host("192.0.2.7:4000");
        gateway.send(&request.header("Origin", origin))
    };
    call("http://192.0.2.7:4000").expect(502);
    call("http://192.0.2.8:4000").expect(403);
    config["allowed_hosts"] = json!(["edge.example"]);
    gateway.reload(&config);
    list("edge.example").expect(200);
    list("rebound.example").expect(403);
    list("192.0.2.7").expect(200);
}

/// Everything that is secret in the run below.
const SECRETS: [&str; 9] = [
    "sekrit-key-plain",
    "sekrit-key-from-env",
    "sekrit-upstream-header",
    "sekrit-child-env",
    "sekrit-in-query",
    "sekrit-wrong-key",
    "sekrit-proxy",
    "sekrit-env-header",
    "sekrit-in-path",
];

fn config_full_of_secrets(upstream: &HttpUpstream, dead: &HttpUpstream) -> Value {
    let dead_url = format!("http://{}/mcp?token=sekrit-in-query", dead.address());
    let live_url = format!("http://{}/mcp?token=sekrit-in-query", upstream.address());
    json!({
        "log": { "level": "trace", "access": true, "bodies": true },
        "api_keys": [
            { "name": "one", "key": "sekrit-key-plain", "admin": true },
            { "name": "two", "key": "${TEST_KEY}", "calls_per_minute": 1 },
        ],
        "mcp_servers": {
            "live": { "url": live_url, "transport": "http",
                "headers": { "Authorization": "Bearer sekrit-upstream-header", "X-K": "${TEST_HEADER}" } },
            "dead": { "url": dead_url.replace("/mcp", "/sekrit-in-path/mcp"), "transport": "http",
                "headers": { "X-Api-Key": "sekrit-upstream-header" } },
            "found": { "url": dead_url },
            "proxied": { "url": "http://unresolvable.invalid/mcp", "transport": "http",
                "proxy": format!("http://u:sekrit-proxy@{}", dead.address()) },
            "child": { "transport": "stdio", "command": scripted_child(),
                "env": { "TOKEN": "sekrit-child-env" } },
            "broken": { "transport": "stdio", "command": "/no/such/program",
                "env": { "TOKEN": "sekrit-child-env" } },
        },
    })
}

#[test]
fn no_secret_is_ever_told() {
    let (upstream, dead) = (HttpUpstream::start(), HttpUpstream::absent());
    let gateway = Gateway::with(config_full_of_secrets(&upstream, &dead))
        .env("TEST_KEY", "sekrit-key-from-env")
        .env("TEST_HEADER", "sekrit-env-header")
        .start();
    gateway.wait_until_well(&["live", "child"]);
    wait_until("the failures are told", || {
        ["dead", "broken", "found"]
            .iter()
            .all(|server| gateway.status_of(server)["last_failure"].is_object())
    });
    let own = |request: Request| bearer(request, "sekrit-key-plain");
    let mut told = String::new();
    let mut ask = |request: Request| {
        let answer = gateway.send(&request);
        told.push_str(&answer.to_string());
    };
    let call = |tool: &str| Request::post("/mcp/tools/call", &json!({ "name": tool }));
    for tool in
        ["live-echo", "live-garbage", "live-break_off", "live-rpc_error", "nothing", "dead-x"]
    {
        ask(own(call(tool)));
    }
    ask(bearer(call("live-echo"), "sekrit-wrong-key"));
    ask(call("live-echo").header("x-api-key", "sekrit-wrong-key"));
    ask(bearer(call("live-echo"), "sekrit-key-from-env"));
    ask(bearer(call("live-echo"), "sekrit-key-from-env"));
    ask(own(Request::post_text("/mcp/tools/call", "{")));
    for path in ["/mcp/tools/list", "/status", "/metrics", "/readyz", "/", "/nothing"] {
        ask(own(Request::get(path)));
    }
    ask(own(Request::post("/mcp", &initialize_message(1, "2025-11-25"))
        .header("Accept", "application/json, text/event-stream")));
    upstream.die();
    ask(own(call("live-echo")));
    wait_for("the failure is told", || {
        gateway.status_of("live")["last_failure"].is_object().then_some(())
    });
    ask(own(Request::get("/status")));
    let ended = gateway.stop();
    for secret in SECRETS {
        assert!(!told.contains(secret), "{secret} is in an answer: {told}");
        assert!(!ended.stderr.contains(secret), "{secret} is in the log: {}", ended.stderr);
    }
    // Nor as a dump of bytes: all of them begin alike.
    let hex: String = SECRETS[0].bytes().take(4).map(|byte| format!("{byte:02x}")).collect();
    for line in ended.stderr.lines() {
        assert!(!line.replace(' ', "").contains(&hex), "bytes of a secret: {line}");
    }
    assert_eq!(ended.code, Some(0));
}

/// What a server says stays whole for clients where it has only words of its URL in common; a token
/// in the URL is told to nobody.
#[test]
fn words_of_a_url_s_path_are_left_in_what_clients_are_told() {
    const TOKEN: &str = "9f86d081884c7d659a2feaa0c55ad015";
    let upstream = HttpUpstream::start();
    upstream.set_instructions(&format!("Ask not-today-please about {TOKEN}."));
    let url = upstream.serve_below(&format!("/not-today-please/{TOKEN}"));
    let gateway =
        Gateway::with(json!({ "mcp_servers": { "s": { "url": url, "transport": "http" } } }))
            .start();
    gateway.wait_until_well(&["s"]);
    let opened = gateway.send(
        &Request::post("/mcp", &initialize_message(1, "2025-11-25"))
            .header("Accept", "application/json, text/event-stream"),
    );
    let told = opened.json()["result"]["instructions"].clone();
    assert_eq!(told, "Ask not-today-please about [secret].");
    let ended = gateway.stop();
    for hidden in ["not-today-please", TOKEN] {
        assert!(!ended.stderr.contains(hidden), "{hidden}: {}", ended.stderr);
    }
}

#[test]
fn a_url_with_a_password_is_refused_without_telling_it() {
    let ended = Gateway::with(json!({ "mcp_servers": {
        "s": { "url": "http://user:sekrit-in-url@127.0.0.1:9/mcp", "transport": "http" },
    }}))
    .try_start()
    .expect_err("credentials belong into headers");
    assert_eq!(ended.code, Some(78), "{ended:?}");
    assert!(ended.stderr.contains("/mcp_servers/s/url"), "{ended:?}");
    assert!(!ended.stderr.contains("sekrit-in-url"), "{ended:?}");
}

#[test]
fn no_secret_is_told_of_a_bad_configuration() {
    let ended = Gateway::with(json!({
        "api_keys": [{ "name": "k", "key": "sekrit-key-plain", "unknown": 1 }],
        "mcp_servers": { "s": {
            "url": "nonsense://user:sekrit-in-query@host", "headers": { "X": "sekrit-upstream-header" },
            "timeout_ms": "soon",
        }},
    }))
    .try_start()
    .expect_err("it must not start");
    assert_eq!(ended.code, Some(78), "{ended:?}");
    for secret in &SECRETS[..5] {
        assert!(!ended.stderr.contains(secret), "{secret}: {}", ended.stderr);
    }
}
