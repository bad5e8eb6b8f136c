//! What a scripted MCP server does, whatever transport carries it: messages in, messages out,
//! switches that a test turns at run time, and counters of what was seen.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use serde_json::{Value, json};

use asking::Questions;
use listens::Listen;
use modern::Modern;
use offers::{Offers, usual, usual_capabilities};
use peers::{Peer, Stream};
use tasks::Task;
use tools::Slow;
use users::Users;

pub use asking::FORM;
pub use modern::{MODERN, meta};
pub use offers::*;
pub use peers::Received;
pub use tasks::RELATED_TASK;

mod asking;
mod listens;
mod modern;
mod offers;
mod peers;
mod tasks;
mod tools;
mod users;

/// The fields of an object whose values are still text.
type Fields = BTreeMap<String, Box<RawValue>>;

/// The revisions that a scripted server speaks unless it is told otherwise.
const REVISIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// The levels of log messages, the least urgent first.
pub const LEVELS: [&str; 8] =
    ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// How long a test waits for something that a server must see.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a message leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// This message.
    Answer(String),
    /// Taken; nothing to say (a notification or a response).
    Accepted,
    /// Nothing: the request was cancelled, or the server is ending.
    Nothing,
    /// Bytes that are no message.
    Garbage,
    /// The connection breaks in the middle of the answer.
    BreakOff,
    /// A tool that the transport must know about itself.
    OfTheTransport {
        /// The request's id, as text.
        id: String,
        /// The tool.
        tool: String,
        /// The arguments.
        arguments: Value,
    },
}

/// What was seen so far.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub n_initialize: usize,
    pub n_list: usize,
    pub n_ping: usize,
    /// Calls begun, by tool.
    pub calls: BTreeMap<String, usize>,
    /// Calls answered, by tool.
    pub finished: BTreeMap<String, usize>,
    /// The `requestId` of every cancellation, as text.
    pub cancellations: Vec<String>,
    /// Labels of the `slow` calls that were cancelled.
    pub cancelled: Vec<String>,
    /// Labels of the `slow` calls in progress.
    pub slow: Vec<String>,
    /// Methods of all notifications.
    pub notifications: Vec<String>,
    /// The whole text of the last call.
    pub last_call: String,
    /// The whole text of the last `initialize`.
    pub last_initialize: String,
}

impl Seen {
    /// Calls begun of one tool.
    pub fn n_calls(&self, tool: &str) -> usize {
        self.calls.get(tool).copied().unwrap_or(0)
    }

    /// Calls answered of one tool.
    pub fn n_finished(&self, tool: &str) -> usize {
        self.finished.get(tool).copied().unwrap_or(0)
    }

    /// The arguments' text of the last call.
    pub fn last_arguments(&self) -> String {
        let fields = |text: &str| serde_json::from_str::<Fields>(text).unwrap();
        let call = fields(&self.last_call);
        fields(call["params"].get())["arguments"].get().to_owned()
    }
}

/// An error that answers a request.
#[derive(Debug)]
struct Refusal(Value);

impl Refusal {
    fn new(code: i64, message: &str) -> Refusal {
        Refusal(json!({ "code": code, "message": message }))
    }

    fn with_data(mut self, data: Value) -> Refusal {
        self.0["data"] = data;
        self
    }
}

#[derive(Debug)]
struct State {
    label: String,
    offers: Offers,
    capabilities: Value,
    instructions: Option<String>,
    page_items: usize,
    refused: Option<String>,
    refusal: Option<String>,
    hanging: Option<String>,
    held: Option<String>,
    revisions: Vec<String>,
    ending: bool,
    next_key: u64,
    slow: Vec<Slow>,
    tasks: Vec<Task>,
    questions: Questions,
    peers: BTreeMap<String, Peer>,
    streams: Vec<Stream>,
    listens: Vec<Listen>,
    modern: Modern,
    users: Users,
    received: Vec<Received>,
    seen: Seen,
}

/// A scripted server without its transport.
#[derive(Debug)]
pub struct Script {
    state: Mutex<State>,
    changed: Condvar,
}

impl Script {
    /// A server with everything that a session can carry.
    pub fn new() -> Script {
        Script {
            state: Mutex::new(State {
                label: "scripted".to_owned(),
                offers: usual(),
                capabilities: usual_capabilities(),
                instructions: None,
                page_items: 0,
                refused: None,
                hanging: None,
                held: None,
                revisions: REVISIONS.map(str::to_owned).to_vec(),
                ending: false,
                next_key: 0,
                slow: Vec::new(),
                tasks: Vec::new(),
                questions: Questions::default(),
                peers: BTreeMap::new(),
                streams: Vec::new(),
                listens: Vec::new(),
                modern: Modern::default(),
                users: Users::default(),
                refusal: None,
                received: Vec::new(),
                seen: Seen::default(),
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    // Switches.

    /// What this server calls itself in what it gives, so that a test sees whose it is.
    pub fn set_label(&self, label: &str) {
        label.clone_into(&mut self.lock().label);
    }

    /// What sessions that begin from now on are told of its capabilities.
    pub fn set_capabilities(&self, capabilities: Value) {
        self.lock().capabilities = capabilities;
    }

    /// What sessions that begin from now on are told about its use.
    pub fn set_instructions(&self, instructions: &str) {
        self.lock().instructions = Some(instructions.to_owned());
    }

    /// Lists come in pages of so many; 0 is one page.
    pub fn set_page_items(&self, n: usize) {
        self.lock().page_items = n;
    }

    /// Speaks only these revisions; another one is answered with the last of them.
    pub fn set_revisions(&self, revisions: &[&str]) {
        self.lock().revisions = revisions.iter().map(|text| (*text).to_owned()).collect();
    }

    /// Requests of this method are refused; `None` ends it.
    pub fn refuse(&self, method: Option<&str>) {
        self.lock().refused = method.map(str::to_owned);
    }

    /// What refusals say from now on.
    pub fn refuse_with(&self, what: &str) {
        self.lock().refusal = Some(what.to_owned());
    }

    /// Requests of this method are not answered; `None` lets go of them.
    pub fn hang_on(&self, method: Option<&str>) {
        self.lock().hanging = method.map(str::to_owned);
        self.changed.notify_all();
    }

    /// Requests of this method are answered later, once this is called with `None`.
    pub fn hold(&self, method: Option<&str>) {
        self.lock().held = method.map(str::to_owned);
        self.changed.notify_all();
    }

    /// Everything that waits gives up.
    pub fn end(&self) {
        let mut state = self.lock();
        state.ending = true;
        state.streams.clear();
        state.listens.clear();
        self.changed.notify_all();
    }

    /// Undoes [`Script::end`].
    pub fn begin(&self) {
        self.lock().ending = false;
    }

    // What was seen.

    /// The counters at this moment.
    pub fn seen(&self) -> Seen {
        snapshot(&self.lock())
    }

    /// Waits until the counters satisfy `is_so`, and gives them.
    #[track_caller]
    pub fn wait_until(&self, what: &str, is_so: impl Fn(&Seen) -> bool) -> Seen {
        self.wait_within(PATIENCE, what, is_so)
    }

    /// [`Script::wait_until`] with a deadline of its own.
    #[track_caller]
    pub fn wait_within(
        &self,
        limit: Duration,
        what: &str,
        is_so: impl Fn(&Seen) -> bool,
    ) -> Seen {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            let seen = snapshot(&state);
            if is_so(&seen) {
                return seen;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not within {limit:?}: {what}; seen: {seen:#?}");
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    // Messages.

    /// Takes one message from `peer` (a session). Blocks as long as the call takes; what comes
    /// before the answer goes to `notify`.
    pub fn handle(&self, peer: &str, text: &str, notify: &mut dyn FnMut(&str)) -> Reply {
        let Ok(message) = serde_json::from_str::<Fields>(text) else {
            return Reply::Answer(error_answer("null", -32700, "Parse error"));
        };
        let part = |key: &str| message.get(key).map(|value| value.get().to_owned());
        let params: Value =
            part("params").and_then(|p| serde_json::from_str(&p).ok()).unwrap_or_default();
        let method: Option<String> =
            part("method").and_then(|text| serde_json::from_str(&text).ok());
        let raw_params = part("params");
        self.note_received(peer, text, method.as_deref(), &params);
        if self.ends_while_held(method.as_deref()) {
            return Reply::Nothing;
        }
        let reply = match (method, part("id")) {
            (None, None) => Reply::Accepted,
            (None, Some(id)) => {
                self.take_answer(peer, &id, &serde_json::from_str(text).unwrap());
                Reply::Accepted
            }
            (Some(method), None) => {
                self.note_notification(peer, &method, &params, raw_params.as_deref());
                Reply::Accepted
            }
            (Some(method), Some(id)) if method == "tools/call" => {
                self.call(peer, &id, &params, raw_params.as_deref(), text, notify)
            }
            (Some(method), Some(_)) if self.hangs_on(&method) => Reply::Nothing,
            (Some(method), Some(id)) => {
                let raw_params = raw_params.as_deref().unwrap_or("null");
                Reply::Answer(match self.request(peer, &method, &params, raw_params) {
                    Ok(result) => answer(&id, &result),
                    Err(Refusal(error)) => {
                        format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{error}}}")
                    }
                })
            }
        };
        self.changed.notify_all();
        reply
    }

    /// Waits while requests of this method are held; true if the server ends meanwhile, which
    /// then answers nothing.
    fn ends_while_held(&self, method: Option<&str>) -> bool {
        let mut state = self.lock();
        // Whoever waits for the request to come need not wait until it is answered.
        self.changed.notify_all();
        while method.is_some() && state.held.as_deref() == method {
            if state.ending {
                return true;
            }
            state = self.changed.wait(state).unwrap();
        }
        false
    }

    /// Whether a request of this method is not answered; waits until that is over.
    fn hangs_on(&self, method: &str) -> bool {
        let hangs = |state: &State| !state.ending && state.hanging.as_deref() == Some(method);
        let mut state = self.lock();
        let is_hung = hangs(&state);
        while hangs(&state) {
            state = self.changed.wait(state).unwrap();
        }
        is_hung
    }

    /// Every request but calls of tools.
    fn request(
        &self,
        peer: &str,
        method: &str,
        params: &Value,
        raw_params: &str,
    ) -> Result<String, Refusal> {
        if self.lock().refused.as_deref() == Some(method) {
            let state = self.lock();
            let what = state.refusal.as_deref().unwrap_or("Refused, as the test wants it");
            return Err(Refusal::new(-32603, what));
        }
        Ok(match method {
            "initialize" => self.initialize(params),
            "ping" => {
                self.lock().seen.n_ping += 1;
                "{}".to_owned()
            }
            "tools/list" => self.list(peer, "tools", params),
            "prompts/list" => self.list(peer, "prompts", params),
            "resources/list" => self.list(peer, "resources", params),
            "resources/templates/list" => self.list(peer, "resourceTemplates", params),
            "prompts/get" => return self.get_prompt(peer, params),
            "resources/read" => return self.read_resource(peer, params),
            "completion/complete" => return self.complete(params),
            "resources/subscribe" => self.subscribe(peer, params, true),
            "resources/unsubscribe" => self.subscribe(peer, params, false),
            "logging/setLevel" if LEVELS.contains(&params["level"].as_str().unwrap_or("")) => {
                "{}".to_owned()
            }
            "logging/setLevel" => return Err(Refusal::new(-32602, "Unknown level")),
            "vendor/echo" => format!("{{\"x\":1.50,\"echo\":{raw_params}}}"),
            "tasks/get" | "tasks/result" | "tasks/list" | "tasks/cancel" => {
                return self.task_request(method, params);
            }
            other => return Err(Refusal::new(-32601, &format!("Method not found: {other}"))),
        })
    }

    fn note_received(&self, peer: &str, text: &str, method: Option<&str>, params: &Value) {
        let mut state = self.lock();
        if method == Some("initialize") {
            text.clone_into(&mut state.seen.last_initialize);
            let peer = state.peers.entry(peer.to_owned()).or_default();
            peer.initialize = params.clone();
        }
        // A number may be larger than a reader can hold.
        let message = serde_json::from_str(text).unwrap_or_default();
        state.received.push(Received { peer: peer.to_owned(), message, text: text.to_owned() });
    }

    fn initialize(&self, params: &Value) -> String {
        let mut state = self.lock();
        state.seen.n_initialize += 1;
        let asked = params["protocolVersion"].as_str().unwrap_or_default();
        let known = state.revisions.iter().any(|revision| revision == asked);
        let spoken = if known { asked } else { state.revisions.last().unwrap() };
        let mut result = json!({
            "protocolVersion": spoken,
            "capabilities": state.capabilities,
            "serverInfo": { "name": "scripted", "version": "1.0.0" },
        });
        if let Some(instructions) = &state.instructions {
            result["instructions"] = json!(instructions);
        }
        result.to_string()
    }

    fn note_notification(
        &self,
        peer: &str,
        method: &str,
        params: &Value,
        raw_params: Option<&str>,
    ) {
        let mut state = self.lock();
        state.seen.notifications.push(method.to_owned());
        if method != "notifications/cancelled" {
            return;
        }
        let id = raw_params
            .and_then(|text| serde_json::from_str::<Fields>(text).ok())
            .and_then(|fields| fields.get("requestId").map(|id| id.get().to_owned()))
            .unwrap_or_else(|| params["requestId"].to_string());
        let State { slow, seen, listens, .. } = &mut *state;
        listens.retain(|listen| !listen.is_of(peer, &id));
        for call in slow.iter_mut().filter(|call| call.peer == peer && call.id == id) {
            call.cancelled = true;
            seen.cancelled.push(call.label.clone());
        }
        seen.cancellations.push(id.clone());
        state.questions.cancel(peer, &id);
    }
}

fn snapshot(state: &State) -> Seen {
    let mut seen = state.seen.clone();
    seen.slow = state.slow.iter().map(|call| call.label.clone()).collect();
    seen
}

/// A result with one text.
pub fn content(text: &str) -> Value {
    json!({ "content": [{ "type": "text", "text": text }] })
}

/// A response; `id` and `result` are JSON texts.
pub fn answer(id: &str, result: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}")
}

/// An error response; `id` is a JSON text.
pub fn error_answer(id: &str, code: i64, message: &str) -> String {
    let message = json!(message);
    format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":{code},\"message\":{message}}}}}"
    )
}
