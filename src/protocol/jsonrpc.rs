//! JSON-RPC 2.0 envelopes. Parameters, results and error data stay text.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::raw::{Raw, RawObject, is_deeper_than, push_string, start_of, try_each_element};
use super::scan::{self, GoOn, NotRead};
use crate::limits::{
    ERROR_DATA_BYTES_MAX, ERROR_MESSAGE_BYTES_MAX, JSON_DEPTH_MAX, JSON_PIECE_BYTES,
};

/// Error codes that JSON-RPC and MCP define.
pub mod code {
    /// The text is no JSON.
    pub const PARSE_ERROR: i64 = -32700;
    /// The JSON is no request.
    pub const INVALID_REQUEST: i64 = -32600;
    /// The gateway has no such method.
    pub const METHOD_NOT_FOUND: i64 = -32601;
    /// Parameters are missing, wrong, or name something that does not exist.
    pub const INVALID_PARAMS: i64 = -32602;
    /// The gateway or a server behind it failed.
    pub const INTERNAL_ERROR: i64 = -32603;
    /// The resource does not exist (2025-11-25, server/resources, Error Handling).
    pub const RESOURCE_NOT_FOUND: i64 = -32002;
    /// The request cannot be served at the HTTP level: it has no session or a wrong header. The
    /// official SDKs' servers answer with this code.
    pub const BAD_REQUEST: i64 = -32000;
    /// The session is unknown or has ended. The official SDKs' servers answer with this code.
    pub const SESSION_NOT_FOUND: i64 = -32001;
    /// The user must be sent to a URL first (2025-11-25, client/elicitation).
    pub const URL_ELICITATION_REQUIRED: i64 = -32042;
    /// A header does not agree with the body (2026-07-28, basic/index, Error Codes).
    pub const HEADER_MISMATCH: i64 = -32020;
    /// The client has not declared a capability that the request needs (2026-07-28, basic/index,
    /// Error Codes).
    pub const MISSING_CLIENT_CAPABILITY: i64 = -32021;
    /// The revision is not served (2026-07-28, basic/index, Error Codes).
    pub const UNSUPPORTED_PROTOCOL_VERSION: i64 = -32022;
}

/// A request's id: a string or an integer, held as its JSON text, so that `"1"` and `1` differ.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Reads an id from its JSON text (2025-11-25, basic, Requests: string or integer, not null).
    pub fn parse(json: &str) -> Option<RequestId> {
        // This check comes before any copy, because the text may be as long as a body.
        if json.starts_with(['[', '{']) {
            return None;
        }
        let text = match serde_json::from_str(json).ok()? {
            serde_json::Value::Number(n) if n.is_i64() || n.is_u64() => n.to_string(),
            serde_json::Value::String(text) => super::raw::string(&text),
            serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Number(_)
            | serde_json::Value::Array(_)
            | serde_json::Value::Object(_) => return None,
        };
        Some(RequestId(text.into()))
    }

    /// The id's JSON text.
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// The id as a number, for ids that the gateway minted.
    pub fn as_u64(&self) -> Option<u64> {
        self.0.parse().ok()
    }
}

impl From<u64> for RequestId {
    fn from(number: u64) -> RequestId {
        RequestId(number.to_string().into())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An error object.
#[derive(Debug, Clone, PartialEq)]
pub struct RpcError {
    /// A code, of those in [`code`] or the server's own.
    pub code: i64,
    /// A sentence.
    pub message: String,
    /// The error's data, as the server wrote it.
    pub data: Option<Raw>,
}

impl RpcError {
    /// An error without data.
    pub fn new(code: i64, message: impl Into<String>) -> RpcError {
        RpcError { code, message: message.into(), data: None }
    }

    /// The error object's text.
    pub fn to_text(&self) -> String {
        let mut out = format!("{{\"code\":{},\"message\":", self.code);
        push_string(&mut out, &self.message);
        if let Some(data) = &self.data {
            out.push_str(",\"data\":");
            out.push_str(data.get());
        }
        out.push('}');
        out
    }
}

/// One message, borrowed from its text.
#[derive(Debug, Clone, PartialEq)]
pub enum Message<'a> {
    /// A message that wants a response.
    Request {
        /// The sender's id for it.
        id: RequestId,
        /// The method's name, see [`super::method::Method`].
        method: String,
        /// An object's text, if there is one.
        params: Option<Cow<'a, str>>,
    },
    /// A message that wants no response.
    Notification {
        /// The method's name, see [`super::method::notification`].
        method: String,
        /// An object's text, if there is one.
        params: Option<Cow<'a, str>>,
    },
    /// The response to a request.
    Response {
        /// The id of the request; none where the peer could not read it.
        id: Option<RequestId>,
        /// The result's text, or the error object.
        outcome: Result<Cow<'a, str>, RpcError>,
    },
}

/// A text that is no message.
#[derive(Debug, Clone, PartialEq)]
pub struct Malformed {
    /// The message's id, where one could be read: the error response carries it.
    pub id: Option<RequestId>,
    /// The error to answer with.
    pub error: RpcError,
}

impl Malformed {
    fn new(id: Option<RequestId>, code: i64, message: impl Into<String>) -> Malformed {
        Malformed { id, error: RpcError::new(code, message) }
    }
}

impl<'a> Message<'a> {
    /// Reads one message (not a batch).
    ///
    /// # Errors
    /// The error to answer with, which says what is wrong with the text.
    pub fn parse(text: &'a str) -> Result<Message<'a>, Malformed> {
        Message::of(RawObject::parse(text).map_err(|error| {
            if error.is_data() {
                let what = format!("The message is no JSON-RPC object: {error}.");
                Malformed::new(None, code::INVALID_REQUEST, what)
            } else {
                let what = format!("The message is no JSON: {error}.");
                Malformed::new(None, code::PARSE_ERROR, what)
            }
        })?)
    }

    /// Reads one message whose members are already split.
    ///
    /// # Errors
    /// The error to answer with, which says what is wrong with the message.
    pub fn of(mut fields: RawObject<'a>) -> Result<Message<'a>, Malformed> {
        let invalid = |id, what: &str| Malformed::new(id, code::INVALID_REQUEST, what);
        let id_text = fields.remove("id");
        let id = id_text.as_deref().and_then(RequestId::parse);
        if fields.get("jsonrpc") != Some("\"2.0\"") {
            return Err(invalid(id, "\"jsonrpc\" must be \"2.0\"."));
        }
        if fields.get("method").is_some() {
            let method = match fields.string("method") {
                Ok(Some(method)) => method,
                Ok(None) | Err(_) => return Err(invalid(id, "\"method\" must be a string.")),
            };
            let params = fields.remove("params");
            if params.as_deref().is_some_and(|params| !params.starts_with('{')) {
                return Err(Malformed::new(
                    id,
                    code::INVALID_PARAMS,
                    "\"params\" must be an object.",
                ));
            }
            return match (id_text, id) {
                (None, _) => Ok(Message::Notification { method, params }),
                (Some(_), Some(id)) => Ok(Message::Request { id, method, params }),
                (Some(_), None) => Err(invalid(None, "\"id\" must be a string or an integer.")),
            };
        }
        Message::response(fields, id)
    }

    fn response(mut fields: RawObject<'a>, id: Option<RequestId>) -> Result<Self, Malformed> {
        match (fields.remove("result"), fields.remove("error")) {
            (Some(result), None) if id.is_some() => {
                Ok(Message::Response { id, outcome: Ok(result) })
            }
            (None, Some(error)) => match parse_error(&error) {
                Some(error) => Ok(Message::Response { id, outcome: Err(error) }),
                None => Err(Malformed::new(
                    id,
                    code::INVALID_REQUEST,
                    "\"error\" must be an object with an integer \"code\" and a \"message\".",
                )),
            },
            _ => Err(Malformed::new(
                id,
                code::INVALID_REQUEST,
                "The message has no \"method\", and neither \"result\" nor \"error\" with an \"id\".",
            )),
        }
    }
}

/// The messages of a batch, each still text. The text behind the first element that cannot be a
/// message, or behind `most` messages, is not read.
///
/// # Errors
/// The text is no batch, or one of more messages, or no client waits for the answer any more.
pub fn batch<'a>(text: &'a str, most: usize, go_on: GoOn<'_>) -> Result<Vec<&'a str>, NotRead> {
    let mut messages = Vec::new();
    let mut take = |message: &'a str| {
        if !message.starts_with('{') {
            return Err("an element of its batch is no object");
        }
        if messages.len() == most {
            return Err("its batch has too many messages");
        }
        messages.push(message);
        Ok(())
    };
    if text.len() > JSON_PIECE_BYTES {
        scan::each_element(text, go_on, &mut take)?;
    } else {
        try_each_element(text, &mut take).map_err(|error| NotRead::Wrong(error.to_string()))?;
        if messages.iter().any(|it| is_deeper_than(it, JSON_DEPTH_MAX)) {
            return Err(NotRead::TooDeep);
        }
    }
    Ok(messages)
}

/// Reads an error object. It is told to people, parsed and written anew on its way, so it has
/// bounds that a result has not. A member over a bound is cut or left out, and the message says
/// so.
fn parse_error(text: &str) -> Option<RpcError> {
    let fields = RawObject::parse(text).ok()?;
    let code = serde_json::from_str(fields.get("code")?).ok()?;
    let mut message = fields.string("message").ok()??;
    if message.len() > ERROR_MESSAGE_BYTES_MAX {
        message = format!(
            "{}\u{2026} (The message has more than {ERROR_MESSAGE_BYTES_MAX} bytes and is cut.)",
            start_of(&message, ERROR_MESSAGE_BYTES_MAX)
        );
    }
    let data = fields.get("data");
    let kept = data.filter(|data| data.len() <= ERROR_DATA_BYTES_MAX);
    if data.is_some() && kept.is_none() {
        message.push_str(&format!(
            " (The error's data has more than {ERROR_DATA_BYTES_MAX} bytes and is left out.)"
        ));
    }
    Some(RpcError { code, message, data: kept.map(|data| Raw::from_valid(data.to_owned())) })
}

/// The text of a request.
pub fn request(id: &RequestId, method: &str, params: Option<&str>) -> String {
    message(Some(id), method, params)
}

/// The text of a notification.
pub fn notification(method: &str, params: Option<&str>) -> String {
    message(None, method, params)
}

fn message(id: Option<&RequestId>, method: &str, params: Option<&str>) -> String {
    let mut out = String::with_capacity(64 + method.len() + params.map_or(0, str::len));
    out.push_str("{\"jsonrpc\":\"2.0\",");
    if let Some(id) = id {
        out.push_str("\"id\":");
        out.push_str(id.as_json());
        out.push(',');
    }
    out.push_str("\"method\":");
    push_string(&mut out, method);
    if let Some(params) = params {
        out.push_str(",\"params\":");
        out.push_str(params);
    }
    out.push('}');
    out
}

/// The text before and behind a result in a response, so that the result itself need not be
/// copied.
pub fn around_result(id: &RequestId) -> (String, &'static str) {
    (format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":", id.as_json()), "}")
}

/// The text of a response with a result.
pub fn response(id: &RequestId, result: &str) -> String {
    let (mut out, end) = around_result(id);
    out.push_str(result);
    out.push_str(end);
    out
}

/// The text of an error response. It has no id where the request's could not be read: later
/// revisions' schemas have no `null` there.
pub fn error_response(id: Option<&RequestId>, error: &RpcError) -> String {
    let id = id.map_or_else(String::new, |id| format!("\"id\":{},", id.as_json()));
    format!("{{\"jsonrpc\":\"2.0\",{id}\"error\":{}}}", error.to_text())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(text: &str) -> (i64, Option<RequestId>) {
        let malformed = Message::parse(text).expect_err(text);
        (malformed.error.code, malformed.id)
    }

    #[test]
    fn requests_notifications_and_responses_are_told_apart() {
        let request = r#"{"jsonrpc":"2.0","id":"a","method":"ping","params":{"x":1}}"#;
        assert!(matches!(
            Message::parse(request),
            Ok(Message::Request { id, params: Some(p), .. })
                if id.as_json() == "\"a\"" && p == "{\"x\":1}"
        ));
        let notification = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        assert!(matches!(Message::parse(notification), Ok(Message::Notification { .. })));
        let response = r#"{"jsonrpc":"2.0","id":7,"result":{}}"#;
        assert!(matches!(
            Message::parse(response),
            Ok(Message::Response { outcome: Ok(_), .. })
        ));
        let error = r#"{"jsonrpc":"2.0","id":7,"error":{"code":-1,"message":"m","data":[1]}}"#;
        assert!(matches!(
            Message::parse(error),
            Ok(Message::Response { outcome: Err(e), .. }) if e.code == -1
        ));
    }

    #[test]
    fn what_is_no_message_says_why() {
        assert_eq!(code_of("{"), (code::PARSE_ERROR, None));
        assert_eq!(code_of("[]"), (code::INVALID_REQUEST, None));
        assert_eq!(code_of("7"), (code::INVALID_REQUEST, None));
        assert_eq!(
            code_of(r#"{"id":1,"method":"m"}"#),
            (code::INVALID_REQUEST, Some(1.into()))
        );
        let null_id = r#"{"jsonrpc":"2.0","id":null,"method":"m"}"#;
        assert_eq!(code_of(null_id), (code::INVALID_REQUEST, None));
        let half = r#"{"jsonrpc":"2.0","id":1.5,"method":"m"}"#;
        assert_eq!(code_of(half), (code::INVALID_REQUEST, None));
        let params = r#"{"jsonrpc":"2.0","id":1,"method":"m","params":[1]}"#;
        assert_eq!(code_of(params), (code::INVALID_PARAMS, Some(1.into())));
        let twice = r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"m"}"#;
        assert_eq!(code_of(twice), (code::INVALID_REQUEST, None));
    }

    #[test]
    fn a_batch_ends_at_its_first_element_that_is_no_message_or_one_too_many() {
        fn three(text: &str) -> Result<Vec<&str>, NotRead> {
            batch(text, 3, &|| true)
        }
        let what = |text: &str| format!("{:?}", three(text).unwrap_err());
        // The rest is not parsed: it is no JSON.
        assert!(what("[{},0,nonsense").contains("is no object"));
        assert!(what("[{},{},{},{},nonsense").contains("too many messages"));
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        assert!(what(&format!(r#"[{{}},{{"x":{deep}}}]"#)).contains("TooDeep"));
        assert!(what("[{}").contains("EOF"));
        assert_eq!(three(r#" [{"a":1}, {} ,{}]"#).unwrap(), [r#"{"a":1}"#, "{}", "{}"]);
        assert!(three("[]").unwrap().is_empty());
        // A large batch is read alike, as long as somebody waits.
        let zeros = "0,".repeat(JSON_PIECE_BYTES);
        assert!(what(&format!("[{{}},{zeros}0]")).contains("is no object"));
        let large = format!("[{{\"a\":[{zeros}0]}}]");
        assert_eq!(three(&large).unwrap(), [&large[1..large.len() - 1]]);
        assert_eq!(batch(&large, 3, &|| false), Err(NotRead::Stopped));
    }

    #[test]
    fn of_an_error_only_so_much_is_kept_and_it_says_so() {
        let error = |message: usize, data: usize| {
            let (message, data) = ("é".repeat(message / 2), "d".repeat(data - 2));
            let text = format!(
                r#"{{"jsonrpc":"2.0","id":7,"error":{{"code":-1,"message":"{message}","data":"{data}"}}}}"#
            );
            match Message::parse(&text) {
                Ok(Message::Response { outcome: Err(error), .. }) => error,
                other => panic!("{other:?}"),
            }
        };
        let kept = error(ERROR_MESSAGE_BYTES_MAX, ERROR_DATA_BYTES_MAX);
        assert_eq!(kept.message.len(), ERROR_MESSAGE_BYTES_MAX);
        assert_eq!(kept.data.unwrap().get().len(), ERROR_DATA_BYTES_MAX);
        let cut = error(ERROR_MESSAGE_BYTES_MAX + 2, ERROR_DATA_BYTES_MAX + 1);
        assert_eq!(cut.data, None);
        assert!(cut.message.len() < ERROR_MESSAGE_BYTES_MAX + 200);
        assert!(cut.message.contains("is cut.) (The error's data has more than 65536 bytes"));
    }

    #[test]
    fn a_text_id_and_a_number_id_differ() {
        assert_ne!(RequestId::parse("1"), RequestId::parse("\"1\""));
        assert_eq!(RequestId::parse("\"a\""), RequestId::parse("\"\\u0061\""));
        assert_eq!(RequestId::parse("1.0"), None);
    }
}
