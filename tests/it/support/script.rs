//! What a scripted MCP server does, whatever transport carries it: messages in, messages out,
//! switches that a test turns at run time, and counters of what was seen.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use serde_json::{Value, json};

/// The fields of an object whose values are still text.
type Fields = BTreeMap<String, Box<RawValue>>;

/// The revisions that a scripted server speaks unless it is told otherwise.
const REVISIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// How long a test waits for something that a server must see.
const PATIENCE: Duration = Duration::from_secs(20);

/// A tool with everything that a gateway must pass on untouched: keys in odd order, numbers in
/// odd spellings, fields that nobody knows.
pub(crate) const RICH_TOOL: &str = r#"{"x-vendor":{"z":1.50,"a":[1E2,0.10,-0.0]},"outputSchema":{"type":"object","required":["zeta"],"properties":{"zeta":{"type":"number"},"alpha":{"type":"string"}}},"name":"rich","icons":[{"src":"data:image/png;base64,AAAA","mimeType":"image/png","sizes":["48x48"],"theme":"dark"}],"title":"Rich Tool","annotations":{"readOnlyHint":true,"x-unknown":null,"idempotentHint":false},"description":"Ünïcödé \u00e9 \/ slash","inputSchema":{"type":"object","properties":{"zulu":{"type":"integer","maximum":9007199254740993},"alpha":{"type":"number","default":1.0}},"additionalProperties":false},"_meta":{"example.org/tag":"kept"},"execution":{"taskSupport":"forbidden"}}"#;

/// The result of that tool.
pub(crate) const RICH_RESULT: &str = r#"{"structuredContent":{"zeta":1.50,"alpha":"a","big":12345678901234567890123,"tiny":1e-7,"exp":1E+2},"x-later-field":{"b":[],"a":{}},"content":[{"type":"text","text":"caf\u00e9 \/ \ud83d\ude00","annotations":{"priority":0.50,"audience":["user"]},"x-extra":[1.0,2.00]},{"type":"resource_link","uri":"file:///a b","name":"n","size":1e3}],"_meta":{"example.org/trace":"t-1","zz":0},"isError":false}"#;

/// The error of the tool `rpc_error`, an object's text.
pub(crate) const RPC_ERROR: &str =
    r#"{"code":-32001,"message":"Not today.","data":{"zulu":1.50,"alpha":[null]}}"#;

/// What a message leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
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
pub(crate) struct Seen {
    pub(crate) n_initialize: usize,
    pub(crate) n_list: usize,
    pub(crate) n_ping: usize,
    /// Calls begun, by tool.
    pub(crate) calls: BTreeMap<String, usize>,
    /// Calls answered, by tool.
    pub(crate) finished: BTreeMap<String, usize>,
    /// The `requestId` of every cancellation, as text.
    pub(crate) cancellations: Vec<String>,
    /// Labels of the `slow` calls that were cancelled.
    pub(crate) cancelled: Vec<String>,
    /// Labels of the `slow` calls in progress.
    pub(crate) slow: Vec<String>,
    /// Methods of all notifications.
    pub(crate) notifications: Vec<String>,
    /// The whole text of the last call.
    pub(crate) last_call: String,
    /// The whole text of the last `initialize`.
    pub(crate) last_initialize: String,
}

impl Seen {
    /// Calls begun of one tool.
    pub(crate) fn n_calls(&self, tool: &str) -> usize {
        self.calls.get(tool).copied().unwrap_or(0)
    }

    /// Calls answered of one tool.
    pub(crate) fn n_finished(&self, tool: &str) -> usize {
        self.finished.get(tool).copied().unwrap_or(0)
    }

    /// The arguments' text of the last call.
    pub(crate) fn last_arguments(&self) -> String {
        let fields = |text: &str| serde_json::from_str::<Fields>(text).unwrap();
        let call = fields(&self.last_call);
        fields(call["params"].get())["arguments"].get().to_owned()
    }
}

#[derive(Debug)]
struct Tool {
    name: String,
    text: String,
}

#[derive(Debug)]
struct Slow {
    key: u64,
    peer: String,
    id: String,
    label: String,
    token: Option<String>,
    steps: VecDeque<String>,
    released: bool,
    cancelled: bool,
}

#[derive(Debug)]
struct State {
    tools: Vec<Tool>,
    page_items: usize,
    revisions: Vec<String>,
    ending: bool,
    next_key: u64,
    slow: Vec<Slow>,
    streams: Vec<Sender<String>>,
    seen: Seen,
}

/// A scripted server without its transport.
#[derive(Debug)]
pub(crate) struct Script {
    state: Mutex<State>,
    changed: Condvar,
}

fn tool_text(name: &str, properties: &Value) -> String {
    json!({
        "name": name,
        "description": format!("The scripted tool {name}."),
        "inputSchema": { "type": "object", "properties": properties },
    })
    .to_string()
}

fn usual_tools() -> Vec<Tool> {
    let mut tools: Vec<Tool> = [
        ("echo", json!({ "message": { "type": "string" } })),
        ("add", json!({ "a": { "type": "number" }, "b": { "type": "number" } })),
        ("slow", json!({ "label": { "type": "string" } })),
        ("release", json!({})),
        ("fail", json!({})),
        ("mirror", json!({})),
        ("big", json!({ "megabytes": { "type": "integer" } })),
        ("rpc_error", json!({})),
        ("garbage", json!({})),
        ("break_off", json!({})),
        ("add_tool", json!({ "name": { "type": "string" } })),
    ]
    .iter()
    .map(|(name, properties)| Tool {
        name: (*name).to_owned(),
        text: tool_text(name, properties),
    })
    .collect();
    tools.push(Tool { name: "rich".to_owned(), text: RICH_TOOL.to_owned() });
    tools
}

impl Script {
    /// A server with the usual tools.
    pub(crate) fn new() -> Script {
        Script {
            state: Mutex::new(State {
                tools: usual_tools(),
                page_items: 0,
                revisions: REVISIONS.map(str::to_owned).to_vec(),
                ending: false,
                next_key: 0,
                slow: Vec::new(),
                streams: Vec::new(),
                seen: Seen::default(),
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    // Switches.

    /// Only these tools from now on; each takes anything. Says nothing to anybody.
    pub(crate) fn set_tools(&self, names: &[&str]) {
        let tool = |name: &&str| {
            let text = if *name == "rich" {
                RICH_TOOL.to_owned()
            } else {
                tool_text(name, &json!({}))
            };
            Tool { name: (*name).to_owned(), text }
        };
        self.lock().tools = names.iter().map(tool).collect();
    }

    /// One more tool. Says nothing to anybody.
    pub(crate) fn add_tool(&self, name: &str) {
        let text = tool_text(name, &json!({}));
        self.lock().tools.push(Tool { name: name.to_owned(), text });
    }

    /// Lists come in pages of so many; 0 is one page.
    pub(crate) fn set_page_items(&self, n: usize) {
        self.lock().page_items = n;
    }

    /// Speaks only these revisions; another one is answered with the last of them.
    pub(crate) fn set_revisions(&self, revisions: &[&str]) {
        self.lock().revisions = revisions.iter().map(|text| (*text).to_owned()).collect();
    }

    /// Tells every open stream that the tools have changed.
    pub(crate) fn announce_change(&self) {
        self.tell_streams(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#);
    }

    fn tell_streams(&self, message: &str) {
        self.lock().streams.retain(|stream| stream.send(message.to_owned()).is_ok());
    }

    /// A stream for messages that belong to no request.
    pub(crate) fn open_stream(&self) -> Receiver<String> {
        let (sender, receiver) = channel();
        self.lock().streams.push(sender);
        self.changed.notify_all();
        receiver
    }

    /// Streams opened and not known to be closed.
    pub(crate) fn n_streams(&self) -> usize {
        self.lock().streams.len()
    }

    /// Everything that waits gives up.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.ending = true;
        state.streams.clear();
        self.changed.notify_all();
    }

    /// Undoes [`Script::end`].
    pub(crate) fn begin(&self) {
        self.lock().ending = false;
    }

    // Slow calls.

    /// Every `slow` call in progress answers.
    pub(crate) fn release_slow(&self) {
        self.lock().slow.iter_mut().for_each(|call| call.released = true);
        self.changed.notify_all();
    }

    /// The `slow` call of that label answers.
    pub(crate) fn release_labelled(&self, label: &str) {
        for call in self.lock().slow.iter_mut().filter(|call| call.label == label) {
            call.released = true;
        }
        self.changed.notify_all();
    }

    /// Every `slow` call in progress whose caller gave a token tells how far it has come.
    pub(crate) fn step_slow(&self, progress: u32, total: u32) {
        for call in &mut self.lock().slow {
            let Some(token) = &call.token else { continue };
            call.steps.push_back(format!(
                "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":\
                 {{\"progressToken\":{token},\"progress\":{progress},\"total\":{total},\
                 \"message\":\"step {progress}\"}}}}"
            ));
        }
        self.changed.notify_all();
    }

    /// Waits until so many `slow` calls are in progress.
    #[track_caller]
    pub(crate) fn wait_for_slow(&self, n: usize) {
        self.wait_until(&format!("{n} slow calls in progress"), |seen| seen.slow.len() == n);
    }

    // What was seen.

    /// The counters at this moment.
    pub(crate) fn seen(&self) -> Seen {
        snapshot(&self.lock())
    }

    /// Waits until the counters satisfy `is_so`, and gives them.
    #[track_caller]
    pub(crate) fn wait_until(&self, what: &str, is_so: impl Fn(&Seen) -> bool) -> Seen {
        self.wait_within(PATIENCE, what, is_so)
    }

    /// [`Script::wait_until`] with a deadline of its own.
    #[track_caller]
    pub(crate) fn wait_within(
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
    pub(crate) fn handle(&self, peer: &str, text: &str, notify: &mut dyn FnMut(&str)) -> Reply {
        let Ok(message) = serde_json::from_str::<Fields>(text) else {
            return Reply::Answer(error_answer("null", -32700, "Parse error"));
        };
        let part = |key: &str| message.get(key).map(|value| value.get().to_owned());
        let params: Value =
            part("params").and_then(|p| serde_json::from_str(&p).ok()).unwrap_or_default();
        let method: Option<String> =
            part("method").and_then(|text| serde_json::from_str(&text).ok());
        let reply = match (method, part("id")) {
            (None, _) => Reply::Accepted,
            (Some(method), None) => {
                self.note_notification(peer, &method, &params, part("params").as_deref());
                Reply::Accepted
            }
            (Some(method), Some(id)) => match method.as_str() {
                "initialize" => Reply::Answer(answer(&id, &self.initialize(&params, text))),
                "ping" => {
                    self.lock().seen.n_ping += 1;
                    Reply::Answer(answer(&id, "{}"))
                }
                "tools/list" => Reply::Answer(answer(&id, &self.list(&params))),
                "tools/call" => {
                    self.call(peer, &id, &params, part("params").as_deref(), text, notify)
                }
                other => Reply::Answer(error_answer(
                    &id,
                    -32601,
                    &format!("Method not found: {other}"),
                )),
            },
        };
        self.changed.notify_all();
        reply
    }

    fn initialize(&self, params: &Value, text: &str) -> String {
        let mut state = self.lock();
        state.seen.n_initialize += 1;
        text.clone_into(&mut state.seen.last_initialize);
        let asked = params["protocolVersion"].as_str().unwrap_or_default();
        let known = state.revisions.iter().any(|revision| revision == asked);
        let spoken = if known { asked } else { state.revisions.last().unwrap() };
        json!({
            "protocolVersion": spoken,
            "capabilities": { "tools": { "listChanged": true } },
            "serverInfo": { "name": "scripted", "version": "1.0.0" },
        })
        .to_string()
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
        let State { slow, seen, .. } = &mut *state;
        for call in slow.iter_mut().filter(|call| call.peer == peer && call.id == id) {
            call.cancelled = true;
            seen.cancelled.push(call.label.clone());
        }
        seen.cancellations.push(id);
    }

    fn list(&self, params: &Value) -> String {
        let mut state = self.lock();
        state.seen.n_list += 1;
        let start: usize =
            params["cursor"].as_str().and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
        let n = if state.page_items == 0 { state.tools.len() } else { state.page_items };
        let page: Vec<&str> =
            state.tools.iter().skip(start).take(n).map(|tool| tool.text.as_str()).collect();
        let next = start + page.len();
        let cursor = if next < state.tools.len() {
            format!(",\"nextCursor\":\"{next}\"")
        } else {
            String::new()
        };
        format!("{{\"tools\":[{}]{cursor}}}", page.join(","))
    }

    fn call(
        &self,
        peer: &str,
        id: &str,
        params: &Value,
        raw_params: Option<&str>,
        text: &str,
        notify: &mut dyn FnMut(&str),
    ) -> Reply {
        let name = params["name"].as_str().unwrap_or_default().to_owned();
        {
            let mut state = self.lock();
            *state.seen.calls.entry(name.clone()).or_default() += 1;
            text.clone_into(&mut state.seen.last_call);
            if !state.tools.iter().any(|tool| tool.name == name) {
                return Reply::Answer(error_answer(
                    id,
                    -32602,
                    &format!("Unknown tool: {name}"),
                ));
            }
        }
        let raw: Fields =
            raw_params.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let arguments = raw.get("arguments").map_or("{}", |value| value.get());
        let meta: Fields = raw
            .get("_meta")
            .and_then(|value| serde_json::from_str(value.get()).ok())
            .unwrap_or_default();
        let token = meta.get("progressToken").map(|value| value.get().to_owned());
        let values = params["arguments"].clone();
        let reply = match name.as_str() {
            "slow" => self.slow(peer, id, &values, token, notify),
            "rpc_error" => Reply::Answer(format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{RPC_ERROR}}}"
            )),
            "garbage" => Reply::Garbage,
            "break_off" => Reply::BreakOff,
            "exit" | "noise" | "stderr" | "env" | "pid" => Reply::OfTheTransport {
                id: id.to_owned(),
                tool: name.clone(),
                arguments: values,
            },
            _ => Reply::Answer(answer(id, &self.result_of(&name, &values, arguments))),
        };
        *self.lock().seen.finished.entry(name).or_default() += 1;
        reply
    }

    fn result_of(&self, name: &str, values: &Value, arguments: &str) -> String {
        match name {
            "add" => {
                let number = |key: &str| values[key].as_f64().unwrap_or_default();
                let sum = number("a") + number("b");
                let mut result = content(&sum.to_string());
                result["structuredContent"] = json!({ "sum": sum });
                result.to_string()
            }
            "fail" => {
                let mut result = content("It went wrong.");
                result["isError"] = json!(true);
                result.to_string()
            }
            "rich" => RICH_RESULT.to_owned(),
            "mirror" => format!(
                "{{\"content\":[{{\"type\":\"text\",\"text\":\"mirror\"}}],\
                 \"structuredContent\":{{\"arguments\":{arguments}}}}}"
            ),
            "big" => {
                let megabytes = values["megabytes"].as_u64().unwrap_or(1);
                let filling = "x".repeat(usize::try_from(megabytes).unwrap() * 1_000_000);
                format!("{{\"content\":[{{\"type\":\"text\",\"text\":\"{filling}\"}}]}}")
            }
            "release" => {
                self.release_slow();
                content("released").to_string()
            }
            "add_tool" => {
                self.add_tool(values["name"].as_str().unwrap_or("added"));
                self.announce_change();
                content("added").to_string()
            }
            // `echo`, and every tool that a test invents.
            _ => {
                let message = values["message"].as_str().unwrap_or(name);
                content(message).to_string()
            }
        }
    }

    fn slow(
        &self,
        peer: &str,
        id: &str,
        arguments: &Value,
        token: Option<String>,
        notify: &mut dyn FnMut(&str),
    ) -> Reply {
        let mut state = self.lock();
        let key = state.next_key;
        state.next_key += 1;
        let label = arguments["label"].as_str().unwrap_or_default().to_owned();
        state.slow.push(Slow {
            key,
            peer: peer.to_owned(),
            id: id.to_owned(),
            label: label.clone(),
            token,
            steps: VecDeque::new(),
            released: false,
            cancelled: false,
        });
        self.changed.notify_all();
        loop {
            let ending = state.ending;
            let at = state.slow.iter().position(|call| call.key == key).unwrap();
            let call = &mut state.slow[at];
            if let Some(step) = call.steps.pop_front() {
                drop(state);
                notify(&step);
                state = self.lock();
                continue;
            }
            if call.cancelled || call.released || ending {
                let call = state.slow.remove(at);
                self.changed.notify_all();
                return if call.cancelled || !call.released {
                    Reply::Nothing
                } else {
                    Reply::Answer(answer(id, &content(&format!("slow {label}")).to_string()))
                };
            }
            state = self.changed.wait(state).unwrap();
        }
    }
}

fn snapshot(state: &State) -> Seen {
    let mut seen = state.seen.clone();
    seen.slow = state.slow.iter().map(|call| call.label.clone()).collect();
    seen
}

/// A result with one text.
pub(crate) fn content(text: &str) -> Value {
    json!({ "content": [{ "type": "text", "text": text }] })
}

/// A response; `id` and `result` are JSON texts.
pub(crate) fn answer(id: &str, result: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}")
}

/// An error response; `id` is a JSON text.
pub(crate) fn error_answer(id: &str, code: i64, message: &str) -> String {
    let message = json!(message);
    format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":{code},\"message\":{message}}}}}"
    )
}
