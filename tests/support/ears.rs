//! What a client hears and how it answers: shared by all threads that read for it.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use serde_json::{Value, json};

use super::http::{Request, Response, exchange};
use super::mcp::{McpClient, request_message};
use super::{DEADLINE, in_background};

/// Where a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// On the stream that answers a POST.
    Call,
    /// On the stream of the session: a GET's, or that of HTTP+SSE.
    Stream,
}

/// A message that was said to the client.
#[derive(Debug, Clone)]
pub struct Heard {
    pub via: Via,
    pub message: Value,
    /// The message as it came.
    pub text: String,
}

impl Heard {
    /// Whether it is a request of the server of that method.
    pub fn asks(&self, method: &str) -> bool {
        self.message["method"] == method && self.message.get("id").is_some()
    }

    /// Whether it is a notification of that method.
    pub fn tells(&self, method: &str) -> bool {
        self.message["method"] == method && self.message.get("id").is_none()
    }

    pub(super) fn answers(&self, id: &Value) -> bool {
        self.message["id"] == *id && self.message.get("method").is_none()
    }
}

/// What the client says when it is asked something.
#[derive(Debug, Clone)]
pub enum Say {
    /// A result.
    Result(Value),
    /// A result, as text.
    Text(&'static str),
    /// An error, a code and a message.
    Error(i64, &'static str),
    /// Nothing, ever.
    Nothing,
}

pub(super) type Answering = Arc<dyn Fn(&Value) -> Say + Send + Sync>;

/// Everything that a client can be asked for.
pub fn all_capabilities() -> Value {
    json!({
        "sampling": {},
        "elicitation": { "form": {}, "url": {} },
        "roots": { "listChanged": true },
    })
}

/// What a client of that name says: its name, whatever it is asked.
pub fn answer_of(name: &str, question: &Value) -> Say {
    let said = match question["method"].as_str() {
        Some("sampling/createMessage") => json!({
            "role": "assistant", "model": "by-hand", "stopReason": "endTurn",
            "content": { "type": "text", "text": format!("model of {name}") },
        }),
        Some("elicitation/create") => {
            json!({ "action": "accept", "content": { "zulu": name } })
        }
        Some("roots/list") => json!({ "roots": [{ "uri": format!("file:///{name}") }] }),
        Some("ping") => json!({}),
        _ => return Say::Error(-32601, "Method not found"),
    };
    Say::Result(said)
}

/// How messages go out.
#[derive(Debug)]
pub(super) enum Line {
    Streamable(McpClient),
    Sse { address: String, endpoint: String, headers: Vec<(String, String)> },
}

/// What all threads of a client share.
pub(super) struct Ears {
    pub(super) line: Line,
    pub(super) answering: Answering,
    pub(super) heard: Mutex<Vec<Heard>>,
    pub(super) changed: Condvar,
}

impl Ears {
    #[track_caller]
    pub(super) fn post(&self, message: &Value) -> Response {
        self.post_text(&message.to_string())
    }

    #[track_caller]
    pub(super) fn post_text(&self, text: &str) -> Response {
        match &self.line {
            Line::Streamable(client) => client.post(text),
            Line::Sse { address, endpoint, headers } => {
                exchange(address, &Request::post_text(endpoint, text).headers(headers))
            }
        }
    }

    #[track_caller]
    pub(super) fn request(self: &Arc<Ears>, id: &Value, method: &str, params: &Value) -> Value {
        let message = request_message(id, method, params);
        let Line::Streamable(client) = &self.line else {
            self.post(&message).expect(202);
            return self.wait_for_answer(id);
        };
        let mut stream = client.start(&message).into_events();
        assert_eq!(stream.head.status(), 200, "{method}: {:?}", stream.head);
        if !stream.is_event_stream() {
            let text = String::from_utf8(stream.rest()).unwrap();
            let message = serde_json::from_str(&text).unwrap();
            self.hear(Via::Call, text);
            return message;
        }
        loop {
            let event = stream.next();
            if event.data.is_empty() {
                continue;
            }
            let heard = self.hear(Via::Call, event.data);
            if heard.answers(id) {
                return heard.message;
            }
        }
    }

    /// Sends a request and hears what comes, until its stream ends, with an answer or without.
    pub(super) fn start(self: &Arc<Ears>, message: &Value) {
        let Line::Streamable(client) = &self.line else {
            self.post(message).expect(202);
            return;
        };
        let mut stream = client.start(message).into_events();
        while let Ok(Some(event)) = stream.try_next(DEADLINE) {
            if !event.data.is_empty() {
                self.hear(Via::Call, event.data);
            }
        }
    }

    /// Notes a message, and answers it on a thread of its own if it is a request.
    pub(super) fn hear(self: &Arc<Ears>, via: Via, text: String) -> Heard {
        let message: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let heard = Heard { via, message, text };
        self.heard.lock().unwrap().push(heard.clone());
        self.changed.notify_all();
        if heard.message.get("method").is_some() && heard.message.get("id").is_some() {
            let (ears, question) = (self.clone(), heard.message.clone());
            drop(in_background(move || ears.answer(&question)));
        }
        heard
    }

    pub(super) fn answer(&self, question: &Value) {
        let id = &question["id"];
        let text = match (self.answering)(question) {
            Say::Result(result) => {
                json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string()
            }
            Say::Text(text) => format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{text}}}"),
            Say::Error(code, message) => {
                let error = json!({ "code": code, "message": message });
                json!({ "jsonrpc": "2.0", "id": id, "error": error }).to_string()
            }
            Say::Nothing => return,
        };
        self.post_text(&text).expect(202);
    }

    #[track_caller]
    pub(super) fn wait_for_answer(&self, id: &Value) -> Value {
        let answer = |heard: &Heard| heard.answers(id).then(|| heard.message.clone());
        self.wait_for(&format!("an answer to {id}"), answer)
    }

    #[track_caller]
    pub(super) fn wait_for<T>(&self, what: &str, pick: impl Fn(&Heard) -> Option<T>) -> T {
        self.wait_for_all(what, |heard| heard.iter().find_map(&pick))
    }

    /// Waits until `pick` finds what it looks for in all that was heard.
    #[track_caller]
    pub(super) fn wait_for_all<T>(
        &self,
        what: &str,
        pick: impl Fn(&[Heard]) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + DEADLINE;
        let mut heard = self.heard.lock().unwrap();
        loop {
            if let Some(found) = pick(&heard) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not heard: {what}; heard: {heard:#?}");
            heard = self.changed.wait_timeout(heard, left).unwrap().0;
        }
    }
}
