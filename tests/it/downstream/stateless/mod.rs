//! What clients and servers of 2026-07-28 are owed, besides the table in `protocol/eras.rs`.

use serde_json::{Value, json};

use crate::support::behind::{Behind, Era, Transport};
use crate::support::gateway::Gateway;
use crate::support::modern::{Answered, ModernClient};

mod discover;
mod headers;
mod listen;
mod mixed;
mod parking;
mod parking_bounds;
mod parking_refusals;
mod passing;
mod refusals;
mod results;

/// A modern server over both of its transports, and a legacy one over all of its own.
const UPSTREAMS: [(Era, Transport); 5] = [
    (Era::Legacy, Transport::Http),
    (Era::Legacy, Transport::Sse),
    (Era::Legacy, Transport::Stdio),
    (Era::Modern, Transport::Http),
    (Era::Modern, Transport::Stdio),
];

/// The first text of a result.
#[track_caller]
fn text_of(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{result}"))
}

/// The answers that the tool's server got, as the tool's result tells them.
#[track_caller]
fn answers_in(message: &Value) -> Vec<Value> {
    let answers = &message["result"]["structuredContent"]["answers"];
    answers.as_array().unwrap_or_else(|| panic!("{message}")).clone()
}

/// A server with a gateway before it.
fn behind(era: Era, transport: Transport, extra: &Value) -> (Behind, Gateway) {
    let behind = Behind::of(era, transport, "scripted");
    let gateway = behind.gateway(extra);
    (behind, gateway)
}

/// `api_keys` of two principals.
fn two_keys() -> Value {
    json!([
        { "name": "alice", "key": "key-of-alice" },
        { "name": "bob", "key": "key-of-bob-1" },
    ])
}

/// A client that declares everything, and its call of a tool that asks, which must want input.
#[track_caller]
fn asked(client: &ModernClient, tool: &str, arguments: &Value) -> (Value, Answered) {
    let params = json!({ "name": tool, "arguments": arguments });
    let answered = client.request("tools/call", &params);
    assert!(answered.wants_input(), "{}", answered.text);
    (params, answered)
}
