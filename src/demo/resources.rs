//! The demo's resources.

use serde_json::{Map, Value, json};

use super::arguments::parameter;
use super::wrong;
use crate::protocol::jsonrpc::RpcError;

const README_URI: &str = "demo://readme";
const GREETING_PREFIX: &str = "demo://greeting/";
const README: &str = "This is Trunkline's built-in demo server.\n\
    Tools: add, echo, fail, slow, time.\n\
    Resources: demo://readme, and demo://greeting/{name} for any name.\n\
    Prompts: greet.\n";

pub(super) fn list() -> Value {
    json!([{
        "uri": README_URI,
        "name": "readme",
        "title": "Read me",
        "description": "What the demo server offers.",
        "mimeType": "text/plain",
        "size": README.len(),
    }])
}

pub(super) fn templates() -> Value {
    json!([{
        "uriTemplate": "demo://greeting/{name}",
        "name": "greeting",
        "title": "Greeting",
        "description": "A greeting for whoever is named.",
        "mimeType": "text/plain",
    }])
}

pub(super) fn read(params: &Map<String, Value>) -> Result<Value, RpcError> {
    let uri = parameter(params, "resources/read", "uri")?;
    let text = match uri.strip_prefix(GREETING_PREFIX).and_then(percent_decode) {
        Some(name) if !name.is_empty() => format!("Hello, {name}!"),
        _ if uri == README_URI => README.to_owned(),
        _ => return Err(wrong(format!("resources/read: there is no resource {uri:?}."))),
    };
    Ok(json!({ "contents": [{ "uri": uri, "mimeType": "text/plain", "text": text }] }))
}

/// Decodes one segment of a path (RFC 3986, 2.1). None for an invalid one.
fn percent_decode(text: &str) -> Option<String> {
    if text.contains(['/', '?', '#']) {
        return None;
    }
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::percent_decode;

    #[test]
    fn a_segment_is_decoded_or_refused() {
        assert_eq!(percent_decode("J%C3%BCrgen%20B").as_deref(), Some("Jürgen B"));
        for bad in ["%", "%4", "%zz", "%ff", "a/b", "a?b"] {
            assert_eq!(percent_decode(bad), None, "{bad}");
        }
    }
}
