//! The built-in MCP server, to try the gateway with: a few tools, resources and prompts.
//!
//! [`Demo`] takes and returns values; the transports around it carry its messages. Time is an
//! argument, and the transports do the waiting (for the tool `slow`).

mod arguments;
pub mod http;
mod prompts;
mod resources;
mod slow;
pub mod stdio;
#[cfg(test)]
mod tests;
mod tools;

use std::time::SystemTime;

use serde_json::{Map, Value, json};

pub use slow::SlowCall;

use crate::limits::BATCH_MESSAGES_MAX;
use crate::protocol::jsonrpc::{self, Malformed, Message, RequestId, RpcError, code};
use crate::protocol::{legacy, method::notification, raw, revision::Revision};

/// The reaction to a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Send this text.
    Text(String),
    /// Send the call's progress and result when they are due.
    Slow(SlowCall),
    /// End the slow call of this request, if there is one, without an answer.
    Cancel(RequestId),
}

/// The demo server of one client.
#[derive(Debug, Clone, Default)]
pub struct Demo {
    /// The revision that `initialize` settles. Clients that leave it out are served as well.
    revision: Option<Revision>,
}

/// The result of a request.
enum Reply {
    Now(Value),
    Later(SlowCall),
}

impl Demo {
    /// A server for a client that has sent nothing yet.
    pub fn new() -> Demo {
        Demo::default()
    }

    /// Answers one message, or a batch where the revision has batches.
    pub fn answer(&mut self, text: &str, now: SystemTime) -> Vec<Answer> {
        let has_batches = self.revision.is_some_and(Revision::allows_batches);
        if has_batches && text.trim_start().starts_with('[') {
            return self.batch(text, now);
        }
        self.message(text, now).into_iter().collect()
    }

    /// Answers a batch. Slow calls of a batch are answered on their own, when they are done.
    fn batch(&mut self, text: &str, now: SystemTime) -> Vec<Answer> {
        let elements = match raw::first_elements(text, BATCH_MESSAGES_MAX + 1) {
            Ok(elements) if elements.len() > BATCH_MESSAGES_MAX => {
                let what = format!("The batch has more than {BATCH_MESSAGES_MAX} messages.");
                return vec![refusal(None, code::INVALID_REQUEST, &what)];
            }
            Ok(elements) if !elements.is_empty() => elements,
            Ok(_) => return vec![refusal(None, code::INVALID_REQUEST, "The batch is empty.")],
            Err(error) => {
                let what = format!("The message is no JSON: {error}.");
                return vec![refusal(None, code::PARSE_ERROR, &what)];
            }
        };
        let mut texts = Vec::new();
        let mut answers = Vec::new();
        for element in elements {
            match self.message(element, now) {
                Some(Answer::Text(text)) => texts.push(text),
                Some(other) => answers.push(other),
                None => (),
            }
        }
        if !texts.is_empty() {
            answers.push(Answer::Text(format!("[{}]", texts.join(","))));
        }
        answers
    }

    fn message(&mut self, text: &str, now: SystemTime) -> Option<Answer> {
        match Message::parse(text) {
            Ok(Message::Request { id, method, params }) => {
                let reply = match self.request(&id, &method, params.as_deref(), now) {
                    Ok(Reply::Later(call)) => return Some(Answer::Slow(call)),
                    Ok(Reply::Now(result)) => jsonrpc::response(&id, &result.to_string()),
                    Err(error) => jsonrpc::error_response(Some(&id), &error),
                };
                Some(Answer::Text(reply))
            }
            Ok(Message::Notification { method, params }) => {
                let cancelled = method == notification::CANCELLED;
                cancelled.then(|| cancelled_id(params.as_deref()).map(Answer::Cancel)).flatten()
            }
            // The demo asks its clients no questions, so no response is expected.
            Ok(Message::Response { .. }) => None,
            Err(Malformed { id, error }) => {
                Some(Answer::Text(jsonrpc::error_response(id.as_ref(), &error)))
            }
        }
    }

    fn request(
        &mut self,
        id: &RequestId,
        method: &str,
        params: Option<&str>,
        now: SystemTime,
    ) -> Result<Reply, RpcError> {
        let fields = || -> Result<Map<String, Value>, RpcError> {
            serde_json::from_str(params.unwrap_or("{}"))
                .map_err(|error| wrong(format!("The parameters cannot be read: {error}.")))
        };
        let result = match method {
            "initialize" => self.initialize(params)?,
            "ping" => json!({}),
            "tools/list" => json!({ "tools": tools::list() }),
            "tools/call" => return tools::call(id, &fields()?, now),
            "resources/list" => json!({ "resources": resources::list() }),
            "resources/templates/list" => {
                json!({ "resourceTemplates": resources::templates() })
            }
            "resources/read" => resources::read(&fields()?)?,
            "prompts/list" => json!({ "prompts": prompts::list() }),
            "prompts/get" => prompts::get(&fields()?)?,
            other => {
                let what = format!("The demo server has no method {other:?}.");
                return Err(RpcError::new(code::METHOD_NOT_FOUND, what));
            }
        };
        Ok(Reply::Now(result))
    }

    fn initialize(&mut self, params: Option<&str>) -> Result<Value, RpcError> {
        let revision = legacy::read_initialize(params)?.caller.revision;
        self.revision = Some(revision);
        Ok(json!({
            "protocolVersion": revision.as_str(),
            "capabilities": { "tools": {}, "resources": {}, "prompts": {} },
            "serverInfo": {
                "name": "trunkline-demo",
                "title": "Trunkline demo",
                "version": env!("CARGO_PKG_VERSION"),
            },
            "instructions": "A server to try MCP clients and gateways with. Its tools change \
                             nothing; start with the tool `echo` or the resource \
                             demo://readme.",
        }))
    }
}

/// The request that a `notifications/cancelled` names.
fn cancelled_id(params: Option<&str>) -> Option<RequestId> {
    let fields = raw::RawObject::parse(params?).ok()?;
    RequestId::parse(fields.get("requestId")?)
}

fn wrong(what: impl Into<String>) -> RpcError {
    RpcError::new(code::INVALID_PARAMS, what)
}

/// The result of a tool that gives a text.
fn text_result(text: &str) -> Value {
    json!({ "content": [{ "type": "text", "text": text }], "isError": false })
}

fn refusal(id: Option<&RequestId>, code: i64, what: &str) -> Answer {
    Answer::Text(jsonrpc::error_response(id, &RpcError::new(code, what)))
}
