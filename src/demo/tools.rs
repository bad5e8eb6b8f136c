//! The demo's tools.

use std::time::SystemTime;

use serde_json::{Map, Number, Value, json};

use super::arguments::{Arguments, parameter};
use super::slow::{SECONDS_MAX, STEPS_MAX, SlowCall};
use super::{Reply, text_result, wrong};
use crate::protocol::jsonrpc::{RequestId, RpcError};
use crate::telemetry::timestamp;

/// Every tool's definition, sorted by name.
pub(super) fn list() -> Vec<Value> {
    vec![add(), echo(), fail(), slow(), time()]
}

/// Calls a tool.
pub(super) fn call(
    id: &RequestId,
    params: &Map<String, Value>,
    now: SystemTime,
) -> Result<Reply, RpcError> {
    let name = parameter(params, "tools/call", "name")?;
    let read = |known: &[&str]| Arguments::read(name, params, known);
    let result = match name {
        "add" => {
            let arguments = read(&["a", "b"])?;
            sum(arguments.number("a")?, arguments.number("b")?)
        }
        "echo" => text_result(read(&["message"])?.text("message")?),
        "fail" => error_result(read(&["message"])?.text("message")?),
        "slow" => return SlowCall::read(id, params).map(Reply::Later),
        "time" => {
            read(&[])?;
            text_result(&timestamp::rfc3339(now))
        }
        other => return Err(wrong(format!("tools/call: there is no tool {other:?}."))),
    };
    Ok(Reply::Now(result))
}

fn error_result(text: &str) -> Value {
    json!({ "content": [{ "type": "text", "text": text }], "isError": true })
}

fn sum(a: &Number, b: &Number) -> Value {
    let whole = a.as_i64().zip(b.as_i64()).and_then(|(a, b)| a.checked_add(b));
    let float = || Number::from_f64(a.as_f64()? + b.as_f64()?);
    let Some(sum) = whole.map(Number::from).or_else(float) else {
        return error_result("The sum is too large for a number.");
    };
    json!({
        "content": [{ "type": "text", "text": sum.to_string() }],
        "structuredContent": { "sum": sum },
        "isError": false,
    })
}

/// An input schema: every property is required unless it has a default.
fn input(properties: &Value) -> Value {
    let required: Vec<_> = properties
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, property)| property.get("default").is_none())
        .map(|(name, _)| name.clone())
        .collect();
    let mut schema = json!({ "type": "object", "properties": properties });
    if let Some(schema) = schema.as_object_mut() {
        if !required.is_empty() {
            schema.insert("required".to_owned(), json!(required));
        }
        schema.insert("additionalProperties".to_owned(), json!(false));
    }
    schema
}

/// The annotations of all these tools: they change nothing and reach nothing outside.
fn harmless(title: &str, idempotent: Idempotent) -> Value {
    json!({
        "title": title,
        "readOnlyHint": true,
        "destructiveHint": false,
        "idempotentHint": idempotent == Idempotent::Yes,
        "openWorldHint": false,
    })
}

/// Says if a second call has the result of the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Idempotent {
    Yes,
    No,
}

fn echo() -> Value {
    json!({
        "name": "echo",
        "title": "Echo",
        "description": "Returns the given message unchanged. Use it to see whether calls arrive.",
        "inputSchema": input(&json!({
            "message": { "type": "string", "description": "The text to return." },
        })),
        "annotations": harmless("Echo", Idempotent::Yes),
    })
}

fn add() -> Value {
    json!({
        "name": "add",
        "title": "Add two numbers",
        "description": "Adds two numbers. Returns the sum as text and as structured content.",
        "inputSchema": input(&json!({
            "a": { "type": "number", "description": "The first summand." },
            "b": { "type": "number", "description": "The second summand." },
        })),
        "outputSchema": {
            "type": "object",
            "properties": { "sum": { "type": "number", "description": "a + b" } },
            "required": ["sum"],
            "additionalProperties": false,
        },
        "annotations": harmless("Add two numbers", Idempotent::Yes),
    })
}

fn time() -> Value {
    json!({
        "name": "time",
        "title": "Current time",
        "description": "Returns the current time in UTC as text (RFC 3339 with milliseconds).",
        "inputSchema": input(&json!({})),
        "annotations": harmless("Current time", Idempotent::No),
    })
}

fn slow() -> Value {
    json!({
        "name": "slow",
        "title": "Slow call",
        "description": "Takes the given number of seconds, in equal steps. Reports progress \
                        after every step if the call carries a progress token, and ends at once \
                        when it is cancelled. Use it to try time limits, progress and \
                        cancellation.",
        "inputSchema": input(&json!({
            "seconds": {
                "type": "number", "minimum": 0, "maximum": SECONDS_MAX,
                "description": "How long the call takes.",
            },
            "steps": {
                "type": "integer", "minimum": 1, "maximum": STEPS_MAX, "default": 1,
                "description": "In how many steps.",
            },
        })),
        "annotations": harmless("Slow call", Idempotent::Yes),
    })
}

fn fail() -> Value {
    json!({
        "name": "fail",
        "title": "Fail",
        "description": "Always fails, with the given message: a result with isError true. Use \
                        it to see how errors of a tool are shown.",
        "inputSchema": input(&json!({
            "message": { "type": "string", "description": "What the error says." },
        })),
        "annotations": harmless("Fail", Idempotent::Yes),
    })
}
