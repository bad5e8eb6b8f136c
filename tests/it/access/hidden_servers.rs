//! A key reads the same, byte by byte, whether or not there is a server that it may not see, how
//! ever that server is and whatever it lists: one that may use one tool, and one that sees two
//! servers which list the same as the hidden one.

use serde_json::{Value, json};

use crate::support::gateway::Gateway;
use crate::support::http::{Request, Response};
use crate::support::mcp::{
    McpClient, initialize_message, notification_message, request_message,
};
use crate::support::mcp_sse::SseClient;
use crate::support::modern::ModernClient;
use crate::support::script::TEXT_URI;
use crate::support::upstream_http::HttpUpstream;
use crate::support::{wait_for, wait_until};

/// The server that is hidden stands first in the configuration under this name.
const HIDDEN: &str = "hidden";
const SESSION: &str = "Mcp-Session-Id";
/// 32 bytes, so that what is sealed is the same for two processes.
const SESSION_KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
const REVISIONS: [&str; 2] = ["2025-11-25", "2025-03-26"];

const NARROW: &str = "key-narrow-12";
const BY_TOOL: &str = "key-by-tool-1";
const KEYS: [&str; 2] = [NARROW, BY_TOOL];
const PAIR: &str = "key-pair-1234";
const ADMIN: &str = "key-of-all-12";

/// What is told under each heading.
type Told = Vec<(String, String)>;

/// Servers `a` and `also`, of which keys see the first or both, and perhaps another one before them.
fn gateway(
    a: &HttpUpstream,
    also: &HttpUpstream,
    hidden: Option<&HttpUpstream>,
    prefix: &str,
) -> Gateway {
    let http = |it: &HttpUpstream| json!({ "url": it.url(), "transport": "http" });
    let mut servers = serde_json::Map::new();
    if let Some(hidden) = hidden {
        servers.insert(HIDDEN.to_owned(), http(hidden));
    }
    servers.insert("a".to_owned(), http(a));
    servers.insert("also".to_owned(), http(also));
    let gateway = Gateway::with(json!({
        "session_key": SESSION_KEY,
        "prefix": prefix,
        "limits": { "page_items": 2 },
        "api_keys": [
            { "name": "all", "key": ADMIN, "admin": true },
            { "name": "pair", "key": PAIR, "servers": ["a", "also"] },
            { "name": "narrow", "key": NARROW, "servers": ["a"], "tools": ["a-echo"] },
            { "name": "by-tool", "key": BY_TOOL, "tools": ["a-echo"] },
        ],
        "mcp_servers": servers,
    }))
    .start();
    gateway.wait_until_well(&["a", "also"]);
    if hidden.is_some() {
        wait_for("it has answered, or has failed", || {
            let state = gateway.status_of(HIDDEN)["state"].clone();
            (state != "starting").then_some(())
        });
    }
    gateway
}

/// An answer without what differs from one to the next.
fn written(answer: &Response) -> String {
    let session = answer.header(SESSION).unwrap_or_default().to_owned();
    let body = without_times(answer.text().to_owned());
    let mut text = format!("{}\n", answer.status());
    for (name, value) in &answer.head.headers {
        // A time that runs has more digits by and by.
        let is_length = name.eq_ignore_ascii_case("content-length");
        let length = body.len().to_string();
        let value = if is_length && body != answer.text() { &length } else { value };
        // Neither says anything of what was asked for: one is the time, the other random.
        if !["date", "x-request-id"].iter().any(|it| name.eq_ignore_ascii_case(it)) {
            text.push_str(&format!("{name}: {value}\n"));
        }
    }
    text.push_str(&body);
    if session.is_empty() {
        return text;
    }
    text.replace(&session, &format!("<{} characters>", session.len()))
}

/// Numbers of milliseconds and seconds, which run.
fn without_times(mut text: String) -> String {
    for key in ["\"uptime_ms\":", "\"seconds_ago\":", "\"next_try_ms\":", "\"at\":"] {
        let mut from = 0;
        while let Some(at) = text[from..].find(key).map(|at| from + at + key.len()) {
            let n_digits = text[at..].bytes().take_while(u8::is_ascii_digit).count();
            if n_digits > 0 {
                text.replace_range(at..at + n_digits, "0");
            }
            from = at;
        }
    }
    text
}

fn rest_requests() -> Vec<(String, Request)> {
    let mut all = Vec::new();
    let mut add = |request: Request, what: String| all.push((what, request));
    for path in ["/mcp/tools/list", "/mcp-rest/tools/list"] {
        add(Request::get(path), path.to_owned());
        for server in ["a", HIDDEN, "hiden", "nothing", "al"] {
            for key in ["server", "server_id", "mcp_server_name"] {
                let path = format!("{path}?{key}={server}");
                add(Request::get(&path), path);
            }
            let narrowed = Request::get(path).header("x-mcp-servers", server);
            add(narrowed, format!("{path} narrowed to {server}"));
        }
        let both = Request::get(path).header("x-mcp-servers", "hidden,a");
        add(both, format!("{path} narrowed to two"));
    }
    for path in ["/mcp/tools/call", "/mcp-rest/tools/call"] {
        for name in TOOLS {
            add(Request::post(path, &json!({ "name": name })), format!("{path} {name}"));
            for server in ["a", HIDDEN, "hiden", "nothing"] {
                for key in ["server", "server_id"] {
                    let body = json!({ "name": name, key: server });
                    add(Request::post(path, &body), format!("{path} {body}"));
                }
            }
        }
        add(Request::post_text(path, "{"), format!("{path} nonsense"));
    }
    for path in [
        "/status",
        "/readyz",
        "/healthz",
        "/metrics",
        "/",
        "/nothing",
        "/hidden",
        "/mcp/hidden",
        "/hidden/mcp",
        "/hidden/sse",
        "/mcp/hidden/sse",
        "/mcp/a,hidden",
        "/mcp/hiden",
        "/mcp/hidden/nothing",
        "/mcp/nothing",
        "/config.schema.json",
        "/openapi.json",
        "/mcp/hidden/sse/messages?session_id=x",
        "/mcp/nothing/sse/messages?session_id=x",
    ] {
        for method in ["GET", "POST", "DELETE", "OPTIONS", "PUT"] {
            // An answer to this is a stream.
            if (method, path) != ("GET", "/mcp/a,hidden") {
                add(Request::new(method, path), format!("{method} {path}"));
            }
        }
        let narrowed = Request::get(path).header("x-mcp-servers", HIDDEN);
        add(narrowed, format!("{path} narrowed to {HIDDEN}"));
    }
    all
}

/// Names of tools: their own, one that is there and not theirs, and those of a server that may
/// be hidden or is none.
const TOOLS: [&str; 9] = [
    "a-echo",
    "echo",
    "a-add",
    "add",
    "hidden-echo",
    "hidden-only",
    "only",
    "hiden-echo",
    "nothing-echo",
];

/// What is asked of any door for MCP.
fn mcp_requests() -> Vec<(&'static str, Value)> {
    let mut all = vec![
        ("ping", json!({})),
        ("tools/list", json!({})),
        ("prompts/list", json!({})),
        ("resources/list", json!({})),
        ("resources/templates/list", json!({})),
        ("tasks/list", json!({})),
        ("logging/setLevel", json!({ "level": "info" })),
        ("vendor/method", json!({})),
        ("tools/list", json!({ "cursor": "nonsense" })),
    ];
    all.extend(TOOLS.map(|name| ("tools/call", json!({ "name": name, "arguments": {} }))));
    for name in ["a-greet", "greet", "hidden-greet", "hidden-only", "only", "nothing-greet"] {
        all.push(("prompts/get", json!({ "name": name, "arguments": { "name": "x" } })));
        let reference = json!({ "type": "ref/prompt", "name": name });
        let argument = json!({ "name": "name", "value": "x" });
        let params = json!({ "ref": reference, "argument": argument });
        all.push(("completion/complete", params));
    }
    for uri in [
        TEXT_URI,
        "a+file:///notes/plain.txt",
        "hidden+file:///notes/plain.txt",
        "hidden://only",
        "hidden+hidden://only",
        "hidden://of/7",
        "nothing+file:///notes/plain.txt",
        "nothing://at/all",
        "vendor://items/7",
        "hidden+vendor://items/7",
    ] {
        for method in ["resources/read", "resources/subscribe", "resources/unsubscribe"] {
            all.push((method, json!({ "uri": uri })));
        }
        let reference = json!({ "type": "ref/resource", "uri": uri });
        let argument = json!({ "name": "id", "value": "x" });
        let params = json!({ "ref": reference, "argument": argument });
        all.push(("completion/complete", params));
    }
    for task in ["a+task-1", "hidden+task-1", "nothing+task-1"] {
        for method in ["tasks/get", "tasks/result", "tasks/cancel"] {
            all.push((method, json!({ "taskId": task })));
        }
    }
    all
}

fn with_key(request: Request, key: &str) -> Request {
    request.header("Authorization", &format!("Bearer {key}"))
}

fn by_rest(gateway: &Gateway, key: &str, told: &mut Told) {
    for (what, request) in rest_requests() {
        told.push((what, written(&gateway.send(&with_key(request, key)))));
    }
    for (what, request) in rest_requests() {
        told.push((format!("{what} without a key"), written(&gateway.send(&request))));
    }
}

fn next_cursor(answer: &str) -> Option<String> {
    let message: Value = serde_json::from_str(answer.lines().last()?).ok()?;
    Some(message["result"]["nextCursor"].as_str()?.to_owned())
}

/// Every list to its end, whatever carries a request.
fn pages(told: &mut Told, at: &str, mut ask: impl FnMut(&str, &Value) -> String) {
    for (method, mut params) in mcp_requests() {
        loop {
            let answer = ask(method, &params);
            let next = next_cursor(&answer);
            told.push((format!("{at} {method} {params}"), answer));
            let Some(next) = next else { break };
            params = json!({ "cursor": next });
        }
    }
}

fn by_streamable_http(gateway: &Gateway, key: &str, told: &mut Told) {
    for (path, narrowed) in [
        ("/mcp", None),
        ("/mcp", Some("hidden")),
        ("/mcp", Some("nothing")),
        ("/mcp", Some("a,hidden,hidden,nothing")),
        ("/mcp/a", None),
        ("/a/mcp", Some("hidden")),
        ("/mcp/hidden", None),
        ("/nothing/mcp", None),
    ] {
        for revision in REVISIONS {
            let at = format!("{path} {narrowed:?} {revision}");
            let post = |body: &Value| {
                let request = Request::post(path, body)
                    .header("Accept", "application/json, text/event-stream");
                let request = match narrowed {
                    Some(servers) => request.header("x-mcp-servers", servers),
                    None => request,
                };
                with_key(request, key)
            };
            let opened = gateway.send(&post(&initialize_message(1, revision)));
            told.push((format!("{at} initialize"), written(&opened)));
            let Some(session) = opened.header(SESSION) else { continue };
            let in_session = |body: &Value| {
                post(body).header(SESSION, session).header("MCP-Protocol-Version", revision)
            };
            let initialized = notification_message("notifications/initialized", &json!({}));
            gateway.send(&in_session(&initialized)).expect(202);
            pages(told, &at, |method, params| {
                let message = request_message(&json!(7), method, params);
                written(&gateway.send(&in_session(&message)))
            });
            let end = Request::new("DELETE", path).header(SESSION, session);
            told.push((format!("{at} DELETE"), written(&gateway.send(&with_key(end, key)))));
        }
    }
}

fn by_http_sse(gateway: &Gateway, key: &str, told: &mut Told) {
    for (path, narrowed) in
        [("/sse", None), ("/mcp/sse", Some("hidden")), ("/mcp/a/sse", None), ("/mcp", None)]
    {
        let mut headers = vec![("Authorization".to_owned(), format!("Bearer {key}"))];
        headers.extend(narrowed.map(|it: &str| ("x-mcp-servers".to_owned(), it.to_owned())));
        let mut client = SseClient::connect_with(gateway.address(), path, &headers);
        let at = format!("{path} {narrowed:?}");
        told.push((format!("{at} endpoint"), client.endpoint.len().to_string()));
        told.push((format!("{at} initialize"), client.initialize().to_string()));
        pages(told, &at, |method, params| {
            let message = request_message(&json!(7), method, params);
            let answer = client.post(&message);
            if answer.status() == 202 {
                client.answer_to(&json!(7)).to_string()
            } else {
                written(&answer)
            }
        });
    }
}

fn by_stateless_requests(gateway: &Gateway, key: &str, told: &mut Told) {
    for (path, narrowed) in [
        ("/mcp", None),
        ("/mcp", Some("hidden")),
        ("/mcp", Some("nothing")),
        ("/mcp/a", None),
        ("/mcp/hidden", None),
        ("/nothing/mcp", None),
    ] {
        let mut client = ModernClient::to(gateway).key(key).at(path);
        if let Some(narrowed) = narrowed {
            client = client.header("x-mcp-servers", narrowed);
        }
        let at = format!("{path} {narrowed:?} stateless");
        let ask = |method: &str, params: &Value| {
            let message = client.message(&json!(7), method, params);
            written(&gateway.send(&client.post_request(&message)))
        };
        told.push((format!("{at} discover"), ask("server/discover", &json!({}))));
        pages(told, &at, ask);
    }
    let wanted = json!({
        "toolsListChanged": true, "resourcesListChanged": true,
        "resourceSubscriptions": [TEXT_URI, "hidden://only", "nothing://at/all"],
    });
    let listening = ModernClient::to(gateway).key(key).listen(&wanted);
    told.push(("listen".to_owned(), listening.honoured.to_string()));
}

fn everything(gateway: &Gateway, key: &str) -> Told {
    let mut told = Told::new();
    by_rest(gateway, key, &mut told);
    by_streamable_http(gateway, key, &mut told);
    by_http_sse(gateway, key, &mut told);
    by_stateless_requests(gateway, key, &mut told);
    told
}

/// A server whose lists have nothing that others list.
fn stranger() -> HttpUpstream {
    let upstream = HttpUpstream::with_tools(&["only", "other"]);
    upstream.set_prompts(&["only"]);
    upstream.set_resources(&["hidden://only"]);
    upstream.set_templates(&["hidden://of/{id}"]);
    let lists = json!({ "listChanged": true });
    upstream.set_capabilities(json!({ "tools": lists, "prompts": lists, "resources": lists }));
    upstream
}

#[track_caller]
fn expect_same(told: &Told, known: &Told, what: &str) {
    assert_eq!(told.len(), known.len(), "{what}: as much is told");
    let differing: Vec<String> = told
        .iter()
        .zip(known)
        .filter(|(told, known)| told != known)
        .map(|(told, known)| {
            format!("== {}\n-- with:\n{}\n-- without:\n{}", told.0, told.1, known.1)
        })
        .collect();
    assert!(
        differing.is_empty(),
        "{what}: {} of {} differ:\n{}",
        differing.len(),
        told.len(),
        differing.join("\n"),
    );
}

#[test]
fn whether_there_is_a_server_that_it_may_not_see_is_told_to_no_key() {
    let _heavy = crate::support::heavy();
    let (a, also) = (HttpUpstream::labelled("a"), HttpUpstream::with_tools(&["other"]));
    let without = gateway(&a, &also, None, "auto");
    let known = KEYS.map(|key| everything(&without, key));
    drop(without);
    for (what, hidden) in [
        ("it lists what nobody else does", stranger()),
        ("it lists the same", HttpUpstream::labelled("hidden")),
        ("it cannot be reached", HttpUpstream::absent()),
    ] {
        let with = gateway(&a, &also, Some(&hidden), "auto");
        for (key, known) in KEYS.iter().zip(&known) {
            let told = everything(&with, key);
            expect_same(&told, known, &format!("{what}, {key}"));
        }
    }
}

/// A server that lists what the two others list, and tools that link to it.
fn twin(label: &str) -> HttpUpstream {
    let upstream = HttpUpstream::labelled(label);
    for (name, uri) in [
        ("shows", TEXT_URI),
        ("shows_template", "vendor://items/7"),
        ("shows_hidden", "hidden+file:///notes/plain.txt"),
        ("shows_own", "ui://app/main"),
    ] {
        let meta = json!({ "ui": { "resourceUri": uri } });
        let schema = json!({ "type": "object" });
        let tool = json!({ "name": name, "inputSchema": schema, "_meta": meta });
        upstream.add_text("tools", name, &tool.to_string());
    }
    for uri in ["hidden+vendor://marked", "ui://app/main"] {
        upstream.add_text("resources", uri, &json!({ "uri": uri, "name": "n" }).to_string());
    }
    upstream
}

#[test]
fn that_a_hidden_server_lists_the_same_is_told_to_nobody_who_sees_two_others() {
    let (a, also) = (HttpUpstream::labelled("a"), HttpUpstream::labelled("also"));
    let hidden = stranger();
    let gateway = gateway(&a, &also, Some(&hidden), "auto");
    let client = |key: &str| McpClient::new(gateway.address()).with_key(key).opened();
    let (pair, admin) = (client(PAIR), client(ADMIN));
    let (mut heard, mut told) = (pair.listen(), admin.listen());
    wait_until("the servers are heard", || hidden.n_streams() > 0 && a.n_streams() > 0);
    hidden.change("resources", TEXT_URI);
    let changed = json!("notifications/resources/list_changed");
    assert_eq!(told.next_message()["method"], changed, "whoever sees it is told");
    let marked = format!("a+{TEXT_URI}");
    let list = |client: &McpClient| client.result("resources/list", &json!({})).to_string();
    wait_until("its mark is there", || list(&admin).contains(&marked));
    assert!(!list(&pair).contains(&marked));
    // What comes first is of another kind.
    a.change("prompts", "later");
    assert_eq!(heard.next_message()["method"], "notifications/prompts/list_changed");
}

/// What calls of tools under these names are answered.
fn calls(gateway: &Gateway, names: &[String]) -> Told {
    let call = |name: &String| {
        let body = json!({ "name": name, "arguments": { "text": "x" } });
        let request = with_key(Request::post("/mcp/tools/call", &body), PAIR);
        (format!("call {name}"), written(&gateway.send(&request)))
    };
    names.iter().map(call).collect()
}

#[test]
fn clashes_with_a_server_that_it_may_not_see_are_told_to_no_key_that_sees_two_others() {
    let _heavy = crate::support::heavy();
    let (a, also, hidden) = (twin("a"), twin("also"), twin("hidden"));
    for prefix in ["auto", "never"] {
        let with = gateway(&a, &also, Some(&hidden), prefix);
        let request = with_key(Request::get("/mcp/tools/list"), ADMIN);
        let list = with.send(&request).expect(200).json();
        let all = list["tools"].as_array().unwrap().iter();
        let named = all.map(|tool| tool["name"].as_str().unwrap().to_owned());
        let names: Vec<String> = named.filter(|name| name.contains("echo")).collect();
        assert!(names.len() >= 3, "{names:?}");
        let (told, called) = (everything(&with, PAIR), calls(&with, &names));
        drop(with);
        let without = gateway(&a, &also, None, prefix);
        expect_same(&told, &everything(&without, PAIR), prefix);
        expect_same(&called, &calls(&without, &names), prefix);
    }
}
