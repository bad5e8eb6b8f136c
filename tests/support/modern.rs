//! A client that speaks 2026-07-28: every request is a POST that is whole in itself, and what
//! the server wants to know first comes in results, which the client answers by asking again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::ears::{Answering, Say, all_capabilities, answer_of};
use super::events::EventStream;
use super::gateway::Gateway;
use super::http::{Connection, Head, Request};
use super::in_background;
use super::mcp::{BOTH, request_message};
use super::script::{MODERN, meta};

/// A request is made again so often before a test gives up.
const ROUNDS_MAX: usize = 8;

/// The client. A clone is the same one: ids go on.
#[derive(Clone)]
pub struct ModernClient {
    address: String,
    path: String,
    headers: Vec<(String, String)>,
    capabilities: Value,
    log_level: Option<String>,
    answering: Answering,
    next_id: Arc<AtomicU64>,
}

/// An answer, and what came before it on its stream.
#[derive(Debug, Clone)]
pub struct Answered {
    pub head: Head,
    pub told: Vec<Value>,
    pub message: Value,
    /// The message as it came.
    pub text: String,
}

/// A request to its end, through all its rounds.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// The answers that wanted input, in their order.
    pub rounds: Vec<Answered>,
    /// What came on the streams of all rounds.
    pub told: Vec<Value>,
    /// The last answer.
    pub message: Value,
}

/// An open `subscriptions/listen`.
pub struct Listening {
    pub stream: EventStream,
    pub id: Value,
    /// The filter of the acknowledgement.
    pub honoured: Value,
}

/// A header's value as the revision writes it.
pub fn encoded(value: &str) -> String {
    if value.is_empty() || value.trim() != value || value.starts_with("=?base64?") {
        return format!("=?base64?{}?=", STANDARD.encode(value));
    }
    if value.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) {
        return value.to_owned();
    }
    format!("=?base64?{}?=", STANDARD.encode(value))
}

impl Answered {
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    pub fn wants_input(&self) -> bool {
        self.message["result"]["resultType"] == "input_required"
    }

    /// The requests by key.
    pub fn requests(&self) -> Vec<(String, Value)> {
        let requests = self.message["result"]["inputRequests"].as_object();
        requests.into_iter().flatten().map(|(key, it)| (key.clone(), it.clone())).collect()
    }

    #[track_caller]
    pub fn state(&self) -> &str {
        let state = self.message["result"]["requestState"].as_str();
        state.unwrap_or_else(|| panic!("no requestState: {}", self.text))
    }

    /// Fails unless it is a refusal with that status and code; gives the error.
    #[track_caller]
    pub fn refused(&self, status: u16, code: i64) -> Value {
        let error = self.message["error"].clone();
        assert_eq!(
            (self.status(), error["code"].as_i64()),
            (status, Some(code)),
            "{}",
            self.text
        );
        assert!(error["message"].as_str().is_some_and(|it| !it.is_empty()), "{error}");
        error
    }
}

impl Run {
    /// The methods that were asked for in each round.
    pub fn asked(&self) -> Vec<Vec<String>> {
        let methods = |round: &Answered| {
            let requests = round.requests();
            requests.iter().map(|(_, it)| it["method"].as_str().unwrap().to_owned()).collect()
        };
        self.rounds.iter().map(methods).collect()
    }

    /// The parameters of the notifications of that method.
    pub fn told(&self, method: &str) -> Vec<Value> {
        let told = self.told.iter().filter(|message| message["method"] == method);
        told.map(|message| message["params"].clone()).collect()
    }
}

impl ModernClient {
    /// A client of the gateway that can be asked nothing.
    pub fn to(gateway: &Gateway) -> ModernClient {
        ModernClient::of(gateway.address())
    }

    /// A client of the server at that address.
    pub fn of(address: &str) -> ModernClient {
        ModernClient {
            address: address.to_owned(),
            path: "/mcp".to_owned(),
            headers: Vec::new(),
            capabilities: json!({}),
            log_level: None,
            answering: Arc::new(|_| Say::Nothing),
            next_id: Arc::new(AtomicU64::new(1)),
        }
    }

    pub fn at(mut self, path: &str) -> ModernClient {
        path.clone_into(&mut self.path);
        self
    }

    /// Sends this header with every request.
    pub fn header(mut self, name: &str, value: &str) -> ModernClient {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn key(self, key: &str) -> ModernClient {
        self.header("Authorization", &format!("Bearer {key}"))
    }

    pub fn declaring(mut self, capabilities: Value) -> ModernClient {
        self.capabilities = capabilities;
        self
    }

    /// Wants log messages from that level on.
    pub fn logging(mut self, level: &str) -> ModernClient {
        self.log_level = Some(level.to_owned());
        self
    }

    /// How it answers what it is asked; what it says nothing to is left out of the responses.
    pub fn answering(
        mut self,
        answering: impl Fn(&Value) -> Say + Send + Sync + 'static,
    ) -> ModernClient {
        self.answering = Arc::new(answering);
        self
    }

    /// Declares everything and answers with its name.
    pub fn named(self, name: &str) -> ModernClient {
        let name = name.to_owned();
        let answering = move |question: &Value| answer_of(&name, question);
        self.declaring(all_capabilities()).answering(answering)
    }

    pub fn fresh_id(&self) -> Value {
        json!(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// A request with all that it must carry.
    pub fn message(&self, id: &Value, method: &str, params: &Value) -> Value {
        let mut params = if params.is_null() { json!({}) } else { params.clone() };
        let own = &mut params["_meta"];
        own[meta("protocolVersion")] = json!(MODERN);
        own[meta("clientInfo")] = json!({ "name": "by-hand-modern", "version": "1" });
        own[meta("clientCapabilities")] = self.capabilities.clone();
        if let Some(level) = &self.log_level {
            own[meta("logLevel")] = json!(level);
        }
        request_message(id, method, &params)
    }

    /// The POST of any text with the headers of this client and no others.
    pub fn bare_request(&self, body: &str) -> Request {
        Request::post_text(&self.path, body).header("Accept", BOTH).headers(&self.headers)
    }

    /// The POST of a message with the headers that it must have.
    pub fn post_request(&self, message: &Value) -> Request {
        let method = message["method"].as_str().unwrap();
        let mut request = self
            .bare_request(&message.to_string())
            .header("MCP-Protocol-Version", MODERN)
            .header("Mcp-Method", method);
        let name = match method {
            "tools/call" | "prompts/get" => message["params"]["name"].as_str(),
            "resources/read" => message["params"]["uri"].as_str(),
            _ => None,
        };
        if let Some(name) = name {
            request = request.header("Mcp-Name", &encoded(name));
        }
        request
    }

    /// Sends any request and reads its answer to the end.
    #[track_caller]
    pub fn send(&self, request: &Request) -> Answered {
        let mut connection = Connection::open(&self.address);
        connection.send(request);
        let mut stream = connection.into_events();
        let head = stream.head.clone();
        assert!(head.header("Mcp-Session-Id").is_none(), "a session: {head:?}");
        if !stream.is_event_stream() {
            let text = String::from_utf8(stream.rest()).unwrap();
            let message = serde_json::from_str(&text).unwrap_or_default();
            return Answered { head, told: Vec::new(), message, text };
        }
        let mut told = Vec::new();
        loop {
            let event = stream.next();
            assert!(event.id.is_none(), "nothing is resumable: {event:?}");
            if event.data.is_empty() {
                continue;
            }
            let message = event.json();
            if message.get("method").is_none() {
                stream.expect_end();
                return Answered { head, told, message, text: event.data };
            }
            assert!(message.get("id").is_none(), "a modern client is asked: {message}");
            told.push(message);
        }
    }

    /// A request under a fresh id.
    #[track_caller]
    pub fn request(&self, method: &str, params: &Value) -> Answered {
        let message = self.message(&self.fresh_id(), method, params);
        let answered = self.send(&self.post_request(&message));
        assert_eq!(answered.message["id"], message["id"], "{}", answered.text);
        let asked_for_logs = message["params"]["_meta"].get(meta("logLevel")).is_some();
        let has_logs = answered.told.iter().any(|it| it["method"] == "notifications/message");
        assert!(asked_for_logs || !has_logs, "nobody asked for logs: {:?}", answered.told);
        if answered.message.get("result").is_some() {
            assert_eq!(answered.status(), 200, "{}", answered.text);
            check_result(method, &answered.message["result"]);
        }
        answered
    }

    /// A request that must succeed at once; gives its result.
    #[track_caller]
    pub fn result(&self, method: &str, params: &Value) -> Value {
        let answered = self.request(method, params);
        assert!(answered.message.get("error").is_none(), "{}", answered.text);
        assert!(!answered.wants_input(), "{}", answered.text);
        answered.message["result"].clone()
    }

    /// `tools/call`, which must succeed at once; gives its result.
    #[track_caller]
    pub fn call(&self, tool: &str, arguments: &Value) -> Value {
        self.result("tools/call", &json!({ "name": tool, "arguments": arguments }))
    }

    /// `tools/call`, once; gives what was answered, which may want input.
    #[track_caller]
    pub fn ask(&self, tool: &str, arguments: &Value) -> Answered {
        self.request("tools/call", &json!({ "name": tool, "arguments": arguments }))
    }

    /// Makes a request again with what its answer wanted; `responses` by key.
    #[track_caller]
    pub fn retry(
        &self,
        method: &str,
        params: &Value,
        answered: &Answered,
        responses: &Value,
    ) -> Answered {
        self.request(method, &retry_params(params, answered, responses))
    }

    /// What this client says to what an answer wants, by key.
    pub fn responses_to(&self, answered: &Answered) -> Value {
        let mut responses = json!({});
        for (key, question) in answered.requests() {
            match (self.answering)(&question) {
                Say::Result(result) => responses[key] = result,
                Say::Text(text) => responses[key] = serde_json::from_str(text).unwrap(),
                Say::Nothing => (),
                Say::Error(..) => panic!("a response is a result"),
            }
        }
        responses
    }

    /// A request through all its rounds.
    #[track_caller]
    pub fn run(&self, method: &str, params: &Value) -> Run {
        let mut run = Run::default();
        let mut answered = self.request(method, params);
        for _ in 0..ROUNDS_MAX {
            run.told.extend(answered.told.clone());
            if !answered.wants_input() {
                run.message = answered.message;
                return run;
            }
            let responses = self.responses_to(&answered);
            let next = self.retry(method, params, &answered, &responses);
            run.rounds.push(answered);
            answered = next;
        }
        panic!("no end after {ROUNDS_MAX} rounds: {}", answered.text);
    }

    /// `tools/call` through all its rounds.
    #[track_caller]
    pub fn run_call(&self, tool: &str, arguments: &Value) -> Run {
        self.run("tools/call", &json!({ "name": tool, "arguments": arguments }))
    }

    /// [`ModernClient::run_call`] on a thread of its own.
    pub fn begin_call(&self, tool: &str, arguments: &Value) -> JoinHandle<Run> {
        let (client, tool, arguments) = (self.clone(), tool.to_owned(), arguments.clone());
        in_background(move || client.run_call(&tool, &arguments))
    }

    /// Sends a request and leaves the answer unread.
    #[track_caller]
    pub fn start(&self, method: &str, params: &Value) -> Connection {
        let message = self.message(&self.fresh_id(), method, params);
        let mut connection = Connection::open(&self.address);
        connection.send(&self.post_request(&message));
        connection
    }

    /// All pages of a list; `key` is the member that holds the items.
    #[track_caller]
    pub fn list(&self, method: &str, key: &str) -> Vec<Value> {
        let (mut items, mut params) = (Vec::new(), json!({}));
        loop {
            let page = self.result(method, &params);
            items.extend(page[key].as_array().unwrap_or_else(|| panic!("{page}")).clone());
            match page.get("nextCursor") {
                Some(cursor) => params = json!({ "cursor": cursor }),
                None => return items,
            }
        }
    }

    /// The offered names.
    #[track_caller]
    pub fn tool_names(&self) -> Vec<String> {
        let tools = self.list("tools/list", "tools");
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Opens a subscription and reads its acknowledgement.
    #[track_caller]
    pub fn listen(&self, filter: &Value) -> Listening {
        self.listen_as(&self.fresh_id(), filter)
    }

    /// [`ModernClient::listen`] under an id of the test's own.
    #[track_caller]
    pub fn listen_as(&self, id: &Value, filter: &Value) -> Listening {
        let params = json!({ "notifications": filter });
        let message = self.message(id, "subscriptions/listen", &params);
        let mut connection = Connection::open(&self.address);
        connection.send(&self.post_request(&message));
        let mut stream = connection.into_events().expect_open();
        let first = stream.next_message();
        assert_eq!(first["method"], "notifications/subscriptions/acknowledged", "{first}");
        let honoured = first["params"]["notifications"].clone();
        let listening = Listening { stream, id: id.clone(), honoured };
        listening.check_id(&first);
        listening
    }
}

impl Listening {
    #[track_caller]
    fn check_id(&self, message: &Value) {
        let holder = message.get("params").or(message.get("result")).unwrap();
        assert_eq!(holder["_meta"][meta("subscriptionId")], self.id, "{message}");
    }

    /// The next message on it, which must carry the subscription's id.
    #[track_caller]
    pub fn next(&mut self) -> Value {
        let message = self.stream.next_message();
        self.check_id(&message);
        message
    }
}

/// The parameters of a retry.
pub fn retry_params(params: &Value, answered: &Answered, responses: &Value) -> Value {
    let mut params = params.clone();
    let result = &answered.message["result"];
    if result.get("inputRequests").is_some() {
        params["inputResponses"] = responses.clone();
    }
    if let Some(state) = result.get("requestState") {
        params["requestState"] = state.clone();
    }
    params
}

/// What every result of the gateway to a modern client must carry.
#[track_caller]
fn check_result(method: &str, result: &Value) {
    let kind = result["resultType"].as_str().unwrap_or_else(|| panic!("no type: {result}"));
    let server = &result["_meta"][meta("serverInfo")];
    assert!(server["name"].is_string() && server["version"].is_string(), "{result}");
    let can_be_cached = matches!(
        method,
        "server/discover"
            | "tools/list"
            | "prompts/list"
            | "resources/list"
            | "resources/templates/list"
            | "resources/read"
    );
    if can_be_cached && kind == "complete" {
        assert!(result["ttlMs"].is_u64(), "{method}: {result}");
        let scope = result["cacheScope"].as_str();
        assert!(matches!(scope, Some("public" | "private")), "{method}: {result}");
    } else {
        assert!(result.get("cacheScope").is_none(), "{method}: {result}");
        assert!(result.get("ttlMs").is_none(), "{method}: {result}");
    }
    match kind {
        "complete" => {
            assert!(result.get("inputRequests").is_none(), "{result}");
            assert!(result.get("requestState").is_none(), "{result}");
        }
        "input_required" => {
            let has_either =
                result.get("inputRequests").is_some() || result.get("requestState").is_some();
            assert!(has_either, "{result}");
        }
        other => panic!("{other}: {result}"),
    }
}
