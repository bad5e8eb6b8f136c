//! The demo's prompts.

use serde_json::{Map, Value, json};

use super::arguments::{Arguments, parameter};
use super::wrong;
use crate::protocol::jsonrpc::RpcError;

pub(super) fn list() -> Value {
    json!([{
        "name": "greet",
        "title": "Greet somebody",
        "description": "Asks the model to greet somebody by name.",
        "arguments": [{ "name": "name", "description": "Whom to greet.", "required": true }],
    }])
}

pub(super) fn get(params: &Map<String, Value>) -> Result<Value, RpcError> {
    let prompt = parameter(params, "prompts/get", "name")?;
    if prompt != "greet" {
        return Err(wrong(format!("prompts/get: there is no prompt {prompt:?}.")));
    }
    let arguments = Arguments::read(prompt, params, &["name"])?;
    let text = format!("Please greet {} in one friendly sentence.", arguments.text("name")?);
    Ok(json!({
        "description": "A request for a greeting.",
        "messages": [{ "role": "user", "content": { "type": "text", "text": text } }],
    }))
}
