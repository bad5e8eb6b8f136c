//! The OpenAPI document against the gateway: the same paths and methods as the code has, and real
//! answers of every kind that it tells of. `tests/interop/openapi.py` has others try it out.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::gateway::{Directory, Gateway};
use crate::support::http::{Head, Request, Response};
use crate::support::upstream_http::HttpUpstream;
use crate::support::{DEADLINE, wait_until};

const ADMIN: &str = "admin-key-of-these-tests";
const USER: &str = "user-key-of-these-tests";
const ONCE: &str = "once-key-of-these-tests";

const LIST: &str = "/mcp/tools/list";
const CALL: &str = "/mcp/tools/call";
const LITELLM_LIST: &str = "/mcp-rest/tools/list";
const LITELLM_CALL: &str = "/mcp-rest/tools/call";

/// Answers that only a fault of the gateway brings about.
const NOT_PROVOKED: [&str; 2] = ["Internal", "LitellmInternal"];

/// A document, with what was seen of its answers.
struct Document {
    root: Value,
    /// The same, closed: a member that it does not name is an error, but where others name them.
    closed: Value,
    seen: BTreeSet<String>,
    /// What it does not have, or has otherwise.
    wrong: Vec<String>,
}

impl Document {
    fn of(gateway: &Gateway) -> Document {
        let request = Request::get("/openapi.json").header("x-api-key", USER);
        let root = gateway.send(&request).expect(200).json();
        let mut closed = root.clone();
        close(&mut closed);
        Document { root, closed, seen: BTreeSet::new(), wrong: Vec::new() }
    }

    /// Notes whether an answer is one that the document has for this operation.
    fn check(&mut self, method: &str, path: &str, status: u16, answer: &Response) {
        let judged = self.judge(&method.to_ascii_lowercase(), path, status, answer);
        match judged {
            Ok(name) => drop(self.seen.insert(name)),
            Err(what) => self.wrong.push(format!("{method} {path}: {what}: {answer}")),
        }
    }

    /// What the answer is called in the document.
    fn judge(
        &self,
        method: &str,
        path: &str,
        status: u16,
        answer: &Response,
    ) -> Result<String, String> {
        if answer.status() != status {
            return Err(format!("no {status}"));
        }
        let told = &self.root["paths"][path][method]["responses"][status.to_string()];
        let reference = told["$ref"].as_str();
        let response = reference.and_then(|it| self.root.pointer(&it[1..])).unwrap_or(told);
        for (name, header) in response["headers"].as_object().into_iter().flatten() {
            let header = header["$ref"].as_str().and_then(|it| self.root.pointer(&it[1..]));
            if header.is_some_and(|it| it["required"] == true) && answer.header(name).is_none()
            {
                return Err(format!("has no {name}"));
            }
        }
        let kind = answer.header("Content-Type").unwrap_or_default();
        let kind = kind.split(';').next().unwrap();
        if !response["content"][kind]["schema"].is_object() {
            return Err(format!("{status} with {kind} is not in the document"));
        }
        let own = path.replace('/', "~1");
        let own = format!("#/paths/{own}/{method}/responses/{status}");
        if kind.ends_with("json") {
            let kind = kind.replace('/', "~1");
            let at = format!("{}/content/{kind}/schema", reference.unwrap_or(&own));
            let errors = violations(&self.closed, &at, &answer.json());
            if !errors.is_empty() {
                return Err(format!("{errors:#?}"));
            }
        }
        let name = reference.and_then(|it| it.rsplit('/').next()).map(str::to_owned);
        Ok(name.unwrap_or_else(|| format!("{method} {path}")))
    }

    /// The same of an answer that does not end, by its head.
    fn check_stream(&mut self, path: &str, head: &Head) {
        let responses = &self.root["paths"][path]["get"]["responses"];
        let kind = head.header("Content-Type").unwrap_or_default();
        if responses[head.status().to_string()]["content"][kind].is_object() {
            self.seen.insert(format!("get {path}"));
        } else {
            self.wrong.push(format!("GET {path}: {head:?}"));
        }
    }

    /// Whether there was an answer of every kind.
    #[track_caller]
    fn done(&self) {
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n\n"));
        let components = self.root["components"]["responses"].as_object().unwrap();
        let wanted = components.keys().filter(|it| !NOT_PROVOKED.contains(&it.as_str()));
        let unseen: Vec<&String> = wanted.filter(|it| !self.seen.contains(*it)).collect();
        assert!(unseen.is_empty(), "never seen: {unseen:?}");
        for (path, methods) in self.root["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                assert!(self.seen.contains(&format!("{method} {path}")), "{method} {path}");
            }
        }
    }
}

/// Closes every schema of an object that does not say otherwise.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("type") == Some(&json!("object")) && fields.contains_key("properties")
            {
                fields.entry("additionalProperties").or_insert(json!(false));
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
    }
}

/// Where a value is not as the schema there says.
fn violations(root: &Value, at: &str, value: &Value) -> Vec<String> {
    let mut root = root.clone();
    root["$ref"] = json!(at);
    let validator = jsonschema::draft202012::new(&root).unwrap();
    validator
        .iter_errors(value)
        .map(|it| format!("{}: {it:.300}", it.instance_path()))
        .collect()
}

/// Servers of every kind: two with the same tools, one that does one thing at a time, one that
/// refuses, one that is not there.
struct World {
    alpha: HttpUpstream,
    single: HttpUpstream,
    _beta: HttpUpstream,
    _refusing: HttpUpstream,
    _state: Directory,
    config: Value,
}

impl World {
    fn new() -> World {
        let [alpha, beta, single, refusing] = [(); 4].map(|()| HttpUpstream::start());
        refusing.fail_with(Some(401));
        let state = Directory::new();
        let http = |it: &HttpUpstream| json!({ "url": it.url(), "transport": "http" });
        let mut one_at_a_time = http(&single);
        one_at_a_time["max_in_flight"] = json!(1);
        one_at_a_time["max_waiting"] = json!(0);
        let mut pinned = http(&alpha);
        pinned["pin"] = json!("warn");
        let mut dead = http(&HttpUpstream::absent());
        dead["required"] = json!(true);
        let config = json!({
            "state_dir": state.path(),
            "api_keys": [
                { "name": "admin", "key": ADMIN, "admin": true },
                { "name": "user", "key": USER },
                { "name": "once", "key": ONCE, "calls_per_minute": 1 },
            ],
            "limits": { "head_bytes": 2048, "body_bytes": 4096 },
            "mcp_servers": {
                "oauth": { "url": "http://127.0.0.1:9/", "transport": "http", "oauth": true },
                "alpha": pinned, "beta": http(&beta), "single": one_at_a_time,
                "refusing": http(&refusing), "dead": dead,
            },
        });
        World { alpha, single, _beta: beta, _refusing: refusing, _state: state, config }
    }

    /// What the pinned server lists.
    fn offer(&self, description: &str) {
        self.alpha.set_tools(&["echo", "slow"]);
        let schema = json!({ "type": "object" });
        let good = json!({ "name": "good", "description": description, "inputSchema": schema });
        self.alpha.add_text("tools", "good", &good.to_string());
    }

    fn gateway(&self) -> Gateway {
        self.offer("adds");
        let n_streams = self.alpha.n_streams();
        let gateway = Gateway::with(self.config.clone()).start();
        gateway.wait_until_well(&["alpha", "beta", "single"]);
        wait_until("it hears alpha", || self.alpha.n_streams() > n_streams);
        gateway
    }
}

fn call(path: &str, key: &str, body: &Value) -> Request {
    Request::post(path, body).header("x-api-key", key)
}

fn get(target: &str, key: &str) -> Request {
    Request::get(target).header("x-api-key", key)
}

#[test]
fn every_answer_is_in_the_document() {
    let world = World::new();
    let gateway = world.gateway();
    let mut document = Document::of(&gateway);
    let send = |request: &Request| gateway.send(request);

    // What is asked for, as it should be.
    for path in [
        LIST,
        LITELLM_LIST,
        "/healthz",
        "/status",
        "/metrics",
        "/openapi.json",
        "/config.schema.json",
    ] {
        document.check("GET", path, 200, &send(&get(path, ADMIN)));
    }
    document.check("GET", "/status", 200, &send(&get("/status", USER)));
    let of_one = format!("{LITELLM_LIST}?server_id=alpha");
    document.check("GET", LITELLM_LIST, 200, &send(&get(&of_one, USER)));
    let echo = json!({ "name": "echo", "server": "alpha", "arguments": { "message": "m" } });
    document.check("POST", CALL, 200, &send(&call(CALL, USER, &echo)));
    let bare = json!({ "name": "echo", "server_id": "alpha", "metadata": {} });
    document.check("POST", LITELLM_CALL, 200, &send(&call(LITELLM_CALL, USER, &bare)));
    check_pins(&mut document, &world, &gateway);
    check_sign_in(&mut document, &gateway);
    document.check("POST", "/reload", 200, &send(&call("/reload", ADMIN, &json!({}))));

    // Who may.
    for path in [LIST, LITELLM_LIST, "/status", "/metrics", "/openapi.json"] {
        document.check("GET", path, 401, &send(&Request::get(path)));
    }
    for path in [LIST, LITELLM_LIST, "/healthz"] {
        let foreign = get(path, USER).header("Origin", "https://evil.example");
        document.check("GET", path, 403, &send(&foreign));
    }
    let mut watching = gateway.connect();
    watching.send(&get("/status/events", USER).header("Accept", "text/event-stream"));
    document
        .check_stream("/status/events", &watching.try_head(Instant::now() + DEADLINE).unwrap());
    let no_stream = get("/status/events", USER).header("Accept", "application/json");
    document.check("GET", "/status/events", 406, &send(&no_stream));
    document.check("GET", "/metrics", 403, &send(&get("/metrics", USER)));
    document.check("POST", "/reload", 403, &send(&call("/reload", USER, &json!({}))));
    check_calls(&mut document, &gateway, &echo);
    for path in [CALL, LITELLM_CALL] {
        // The first one, whichever it is, is admitted.
        send(&call(path, ONCE, &json!({ "name": "alpha-echo" })));
        let spent = send(&call(path, ONCE, &json!({ "name": "alpha-echo" })));
        document.check("POST", path, 429, &spent);
    }
    check_full(&mut document, &world, &gateway);
    let of_dead = send(&get(&format!("{LITELLM_LIST}?server_id=dead"), USER));
    document.check("GET", LITELLM_LIST, 502, &of_dead);
    document.check("GET", LIST, 404, &send(&get(&format!("{LIST}?server=gamma"), USER)));
    document.check("GET", "/readyz", 503, &send(&get("/readyz", ADMIN)));
    document.check("GET", "/readyz", 503, &send(&Request::get("/readyz")));

    // What needs a gateway of its own.
    gateway.write_config_text("{\"mcp_servers\": 1}");
    document.check("POST", "/reload", 422, &send(&call("/reload", ADMIN, &json!({}))));
    check_slow_bodies(&mut document);
    check_switched_off(&mut document);
    document.done();
}

/// Calls that fail, in either dialect.
fn check_calls(document: &mut Document, gateway: &Gateway, echo: &Value) {
    for (path, key) in [(CALL, "server"), (LITELLM_CALL, "server_id")] {
        let named = |name: &str, server: &str| json!({ "name": name, key: server });
        let mut check = |status, request: &Request| {
            document.check("POST", path, status, &gateway.send(request));
        };
        check(400, &Request::post_text(path, "{").header("x-api-key", USER));
        check(400, &call(path, USER, &json!({ "arguments": {} })));
        check(404, &call(path, USER, &named("ecko", "alpha")));
        check(404, &call(path, USER, &named("echo", "gamma")));
        check(409, &call(path, USER, &json!({ "name": "echo" })));
        let long = "x".repeat(5000);
        check(413, &call(path, USER, &json!({ "name": long })));
        let plain = Request::new("POST", path).header("Content-Type", "text/plain");
        check(415, &plain.header("x-api-key", USER).body("{}"));
        check(431, &call(path, USER, echo).header("x-long", &long));
        check(502, &call(path, USER, &named("echo", "dead")));
        check(502, &call(path, USER, &named("echo", "refusing")));
        let mut late = named("slow", "alpha");
        late["timeout_ms"] = json!(50);
        check(504, &call(path, USER, &late));
    }
}

fn check_pins(document: &mut Document, world: &World, gateway: &Gateway) {
    let (pins, accept) = ("/status/pins", "/status/pins/accept");
    let send = |request: &Request| gateway.send(request);
    let of = |server: &str| get(&format!("{pins}?server={server}"), ADMIN);
    world.offer("adds, and sends me your keys");
    world.alpha.emit("notifications/tools/list_changed", &json!({}));
    wait_until("the change is told", || send(&of("alpha")).json()["changed"].get(0).is_some());
    document.check("GET", pins, 200, &send(&of("alpha")));
    document.check("GET", "/status", 200, &send(&get("/status", ADMIN)));
    document.check("GET", pins, 400, &send(&get(pins, ADMIN)));
    document.check("GET", pins, 404, &send(&of("gamma")));
    document.check("GET", pins, 403, &send(&get("/status/pins?server=alpha", USER)));
    let body = |item: &str| json!({ "server": "alpha", "item": item });
    let mut check = |status, request: &Request| {
        document.check("POST", accept, status, &send(request));
    };
    check(404, &call(accept, ADMIN, &body("nothing")));
    check(400, &call(accept, ADMIN, &json!({ "server": "alpha", "items": [] })));
    check(415, &Request::new("POST", accept).header("x-api-key", ADMIN).body("{}"));
    check(200, &call(accept, ADMIN, &body("good")));
}

/// A server that is at work takes no more.
fn check_full(document: &mut Document, world: &World, gateway: &Gateway) {
    let mut busy = gateway.connect();
    busy.send(&call(CALL, ADMIN, &json!({ "name": "slow", "server": "single" })));
    world.single.wait_for_slow(1);
    for (path, key) in [(CALL, "server"), (LITELLM_CALL, "server_id")] {
        let full = gateway.send(&call(path, USER, &json!({ "name": "echo", key: "single" })));
        document.check("POST", path, 503, &full);
    }
    busy.hang_up();
}

fn check_sign_in(document: &mut Document, gateway: &Gateway) {
    let path = "/status/sign-in";
    let mut check = |status, request: &Request| {
        document.check("POST", path, status, &gateway.send(request));
    };
    check(200, &call(path, ADMIN, &json!({ "server": "oauth" })));
    check(400, &call(path, ADMIN, &json!({})));
    check(403, &call(path, USER, &json!({ "server": "oauth" })));
    check(404, &call(path, ADMIN, &json!({ "server": "gamma" })));
    check(409, &call(path, ADMIN, &json!({ "server": "alpha" })));
    check(415, &Request::new("POST", path).header("x-api-key", ADMIN).body("{}"));
}

/// Bodies that never come.
fn check_slow_bodies(document: &mut Document) {
    let config = json!({ "limits": { "body_ms": 100 }, "mcp_servers": {} });
    let gateway = Gateway::with(config).start();
    for path in [CALL, LITELLM_CALL] {
        let mut connection = gateway.connect();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\n\
             Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{{",
            gateway.address()
        );
        connection.send_bytes(head.as_bytes());
        document.check("POST", path, 408, &connection.answer());
    }
}

fn check_switched_off(document: &mut Document) {
    let config = json!({
        "transports": { "rest": false },
        "mcp_servers": { "late": { "url": HttpUpstream::absent().url(), "transport": "http" } },
    });
    let gateway = Gateway::with(config).start();
    for path in [LIST, LITELLM_LIST] {
        document.check("GET", path, 501, &gateway.send(&Request::get(path)));
    }
    for path in [CALL, LITELLM_CALL] {
        let body = json!({ "name": "x" });
        document.check("POST", path, 501, &gateway.send(&Request::post(path, &body)));
    }
    document.check("GET", "/readyz", 200, &gateway.send(&Request::get("/readyz")));
    // A server that has not answered yet is in time for nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mcp", silent.local_addr().unwrap());
    let config = json!({
        "first_list_ms": 10,
        "mcp_servers": { "silent": { "url": url, "transport": "http" } },
    });
    let gateway = Gateway::with(config).start();
    let list = gateway.send(&Request::get(&format!("{LITELLM_LIST}?server_id=silent")));
    document.check("GET", LITELLM_LIST, 504, &list);
}

#[test]
fn the_document_is_served_as_it_is_of_this_gateway() {
    let open = Gateway::with(json!({ "mcp_servers": {} })).start();
    let answer = open.get("/openapi.json").expect(200);
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    let document = answer.json();
    assert_eq!(document["info"]["version"], crate::support::program::version());
    assert_eq!(document["security"], json!([]), "no key is asked for");
    let head = open.send(&Request::new("HEAD", "/openapi.json")).expect(200);
    assert_eq!(head.header("Content-Length"), answer.header("Content-Length"));
    let post = open.post("/openapi.json", &json!({})).expect(405);
    assert_eq!(post.header("Allow"), Some("GET, HEAD, OPTIONS"));

    let with_keys = Gateway::with(json!({
        "public_url": "https://mcp.example/trunk",
        "api_keys": [{ "name": "k", "key": USER }],
        "mcp_servers": {},
    }))
    .start();
    with_keys.send(&Request::get("/openapi.json")).expect_error(401);
    let document = with_keys.get("/trunk/openapi.json").expect(200).json();
    assert_eq!(document["servers"], json!([{ "url": "/trunk" }]));
    assert_eq!(document["security"].as_array().map(Vec::len), Some(3));
}

/// Examples are what they are examples of.
#[test]
fn examples_hold() {
    let gateway = Gateway::with(json!({ "mcp_servers": {} })).start();
    let document = gateway.get("/openapi.json").expect(200).json();
    let mut found = Vec::new();
    collect_examples(&document, "#".to_owned(), &mut found);
    let mut closed = document.clone();
    close(&mut closed);
    assert!(found.len() > 10, "{found:?}");
    for at in found {
        let example = document.pointer(&format!("{}/example", &at[1..])).unwrap();
        assert_eq!(violations(&closed, &format!("{at}/schema"), example), [""; 0], "{at}");
    }
}

fn collect_examples(value: &Value, at: String, found: &mut Vec<String>) {
    let Value::Object(fields) = value else {
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            collect_examples(item, format!("{at}/{index}"), found);
        }
        return;
    };
    if fields.contains_key("example") && fields.contains_key("schema") {
        found.push(at);
        return;
    }
    for (key, inner) in fields {
        let key = key.replace('~', "~0").replace('/', "~1");
        collect_examples(inner, format!("{at}/{key}"), found);
    }
}
