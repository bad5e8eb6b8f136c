//! What a session-keeping client may ask, whichever transport it came by: messages in, answers
//! out. The doors bring their own streams.

use std::sync::Arc;

use super::Front;
use super::reply::Problem;
use crate::access::policy::Scope;
use crate::error::CallError;
use crate::limits::{BATCH_MESSAGES_MAX, CALL_TIMEOUT_MAX, JSON_DEPTH_MAX};
use crate::pipeline::{Health, ToolList, Wish};
use crate::protocol::call::{CallSink, Caller, Notice, Outcome};
use crate::protocol::jsonrpc::{Malformed, Message, RequestId, RpcError, code};
use crate::protocol::legacy;
use crate::protocol::method::{Method, notification};
use crate::protocol::raw::{self, Raw, RawObject, push_string};
use crate::protocol::revision::Revision;
use crate::session::{Refused, Session};
use crate::wait::Wait;

/// The key under which lists name servers that are not well.
pub const UPSTREAMS_META: &str = "trunkline/upstreams";

/// What a request is answered with.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A result.
    Result(Raw),
    /// An error.
    Error(RpcError),
    /// Nothing: the client has cancelled it (basic/utilities/cancellation).
    None,
    /// Its session has just ended.
    Gone,
}

impl Answer {
    /// An error of the given code.
    pub fn error(code: i64, message: impl Into<String>) -> Answer {
        Answer::Error(RpcError::new(code, message))
    }
}

/// A body: one message, or a batch where the revision has them.
#[derive(Debug, PartialEq)]
pub enum Body<'a> {
    /// One message.
    One(Message<'a>),
    /// Several, each with what may be wrong with it.
    Batch(Vec<Result<Message<'a>, Malformed>>),
}

/// Reads a body.
///
/// # Errors
/// What is wrong with it as a whole.
pub fn read_body(body: &[u8], revision: Option<Revision>) -> Result<Body<'_>, Malformed> {
    let refuse = |code, what: &str| Malformed { id: None, error: RpcError::new(code, what) };
    let text = std::str::from_utf8(body)
        .map_err(|_| refuse(code::PARSE_ERROR, "The body is not UTF-8."))?;
    if raw::is_deeper_than(text, JSON_DEPTH_MAX) {
        return Err(refuse(code::INVALID_REQUEST, "The body nests too deep."));
    }
    if !text.trim_start().starts_with('[') {
        return Message::parse(text).map(Body::One);
    }
    let elements = raw::elements(text).map_err(|error| {
        refuse(code::PARSE_ERROR, &format!("The body is no JSON: {error}."))
    })?;
    if !revision.is_some_and(Revision::allows_batches) {
        return Err(refuse(
            code::INVALID_REQUEST,
            "This revision has no batches; send one message a request.",
        ));
    }
    if elements.is_empty() || elements.len() > BATCH_MESSAGES_MAX {
        let what = format!("A batch holds 1 to {BATCH_MESSAGES_MAX} messages.");
        return Err(refuse(code::INVALID_REQUEST, &what));
    }
    Ok(Body::Batch(elements.into_iter().map(Message::parse).collect()))
}

/// The result of `initialize`.
pub fn initialize_result(revision: Revision) -> Raw {
    let capabilities = r#"{"tools":{"listChanged":true}}"#;
    Raw::from_valid(legacy::initialize_result(revision, capabilities, None))
}

impl Front {
    /// Takes a notification or a response: nothing is answered.
    pub(super) fn take(session: &Session, message: &Message<'_>) {
        session.touch();
        let Message::Notification { method, params: Some(params) } = message else { return };
        if method != notification::CANCELLED {
            return;
        }
        let id = RawObject::parse(params)
            .ok()
            .and_then(|params| params.get("requestId").and_then(RequestId::parse));
        if let Some(id) = id {
            // It may have ended just now; then the cancellation came too late, as it may.
            session.cancel(&id);
        }
    }

    /// Answers a request of an open session.
    pub(super) fn answer(
        &self,
        session: &Arc<Session>,
        scope: &Scope,
        request: &SessionRequest<'_>,
        sink: &mut dyn CallSink,
    ) -> Answer {
        session.touch();
        let method = Method::parse(request.method);
        if method == Some(Method::Ping) {
            return Answer::Result(Raw::from_valid("{}".to_owned()));
        }
        let Some(caller) = session.caller() else {
            return Answer::error(code::INVALID_REQUEST, "initialize comes first.");
        };
        match method {
            Some(Method::ToolsList) => self.answer_list(scope, request.params),
            Some(Method::ToolsCall) => self.answer_call(session, scope, caller, request, sink),
            Some(Method::Initialize) => {
                Answer::error(code::INVALID_REQUEST, "The session is initialized already.")
            }
            Some(Method::Ping) | None => Answer::error(
                code::METHOD_NOT_FOUND,
                format!("Method not found: {}", request.method),
            ),
        }
    }

    fn answer_list(&self, scope: &Scope, params: Option<&str>) -> Answer {
        let cursor =
            params.and_then(|text| RawObject::parse(text).ok()?.get("cursor").map(str::len));
        if cursor.is_some() {
            return Answer::error(
                code::INVALID_PARAMS,
                "The cursor is none of this gateway's.",
            );
        }
        match self.pipeline.list_tools(scope, None) {
            Ok(list) => Answer::Result(Raw::from_valid(list_result(&list))),
            Err(error) => Answer::Error(Problem::from_call(&error).to_rpc()),
        }
    }

    fn answer_call(
        &self,
        session: &Arc<Session>,
        scope: &Scope,
        caller: Arc<Caller>,
        request: &SessionRequest<'_>,
        sink: &mut dyn CallSink,
    ) -> Answer {
        let call = match legacy::read_call(caller, Method::ToolsCall, request.params) {
            Ok(call) => call,
            Err(error) => return Answer::Error(error),
        };
        // A session-keeping client that loses its connection has cancelled nothing
        // (2025-11-25, basic/transports, Sending Messages), so the wait has no client to watch.
        let Ok(wait) = Wait::new(CALL_TIMEOUT_MAX, CALL_TIMEOUT_MAX, None) else {
            let error = CallError::Overloaded { what: "no descriptor is left".to_owned() };
            return Answer::Error(Problem::from_call(&error).to_rpc());
        };
        let entered = session.enter(request.id, &wait);
        let _in_flight = match entered {
            Ok(in_flight) => in_flight,
            Err(refused) => return refused_entry(refused),
        };
        let token = call.progress_token.clone();
        let mut sink = UnderToken { token, inner: sink };
        match self.pipeline.call_tool(scope, Wish::default(), call, &wait, &mut sink) {
            Ok(Outcome::Complete(result)) => Answer::Result(result),
            Ok(Outcome::Error { error, .. }) => Answer::Error(error),
            Err(CallError::Cancelled) => Answer::None,
            Err(error) => Answer::Error(Problem::from_call(&error).to_rpc()),
        }
    }
}

/// Gives progress the token that the client chose.
struct UnderToken<'a> {
    token: Option<String>,
    inner: &'a mut dyn CallSink,
}

impl CallSink for UnderToken<'_> {
    fn notice(&mut self, notice: Notice) {
        let Notice::Progress(params) = &notice else { return self.inner.notice(notice) };
        let Some(token) = &self.token else { return };
        if let Ok(params) = legacy::with_progress_token(params.get(), token) {
            self.inner.notice(Notice::Progress(Raw::from_valid(params)));
        }
    }

    fn silence(&mut self) {
        self.inner.silence();
    }
}

/// A request inside a session.
#[derive(Debug, Clone, Copy)]
pub struct SessionRequest<'a> {
    /// The client's id for it.
    pub id: &'a RequestId,
    /// Its method.
    pub method: &'a str,
    /// Its parameters.
    pub params: Option<&'a str>,
}

fn refused_entry(refused: Refused) -> Answer {
    match refused {
        Refused::IdInUse => {
            Answer::error(code::INVALID_REQUEST, "A request with this id is in flight already.")
        }
        Refused::TooMany => {
            Answer::error(code::INTERNAL_ERROR, "Too many calls are in flight in this session.")
        }
        Refused::Ended => Answer::Gone,
    }
}

/// The result of `tools/list`.
fn list_result(list: &ToolList) -> String {
    let size: usize = list.tools.iter().map(|tool| list.object(tool).len() + 1).sum();
    let mut out = String::with_capacity(size + 64);
    out.push_str("{\"tools\":");
    push_tools(&mut out, list);
    let unwell: Vec<_> = list.servers.iter().filter(|(_, h)| *h != Health::Well).collect();
    if !unwell.is_empty() {
        out.push_str(",\"_meta\":{");
        push_string(&mut out, UPSTREAMS_META);
        out.push(':');
        let told =
            unwell.iter().map(|(server, health)| server_outcome(server.as_str(), health));
        out.push_str(&serde_json::Value::Array(told.collect()).to_string());
        out.push('}');
    }
    out.push('}');
    out
}

/// Appends the list's tool objects as an array.
pub fn push_tools(out: &mut String, list: &ToolList) {
    out.push('[');
    for (index, tool) in list.tools.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(list.object(tool));
    }
    out.push(']');
}

/// How a server is, as lists tell it.
pub fn server_outcome(server: &str, health: &Health) -> serde_json::Value {
    match health {
        Health::Well => serde_json::json!({ "server": server, "outcome": "ok" }),
        Health::Connecting => serde_json::json!({ "server": server, "outcome": "connecting" }),
        Health::Failed { stage, message } => serde_json::json!({
            "server": server,
            "outcome": "failed",
            "stage": stage.as_str(),
            "message": message,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_read_in_their_revision_only() {
        let batch = br#" [{"jsonrpc":"2.0","id":1,"method":"ping"},7]"#;
        let read = read_body(batch, Some(Revision::V2025_03_26)).unwrap();
        assert!(matches!(read, Body::Batch(list) if list[0].is_ok() && list[1].is_err()));
        for revision in [None, Some(Revision::V2025_06_18), Some(Revision::V2025_11_25)] {
            let error = read_body(batch, revision).unwrap_err().error;
            assert_eq!(error.code, code::INVALID_REQUEST);
        }
        assert!(read_body(b"[]", Some(Revision::V2025_03_26)).is_err());
    }

    #[test]
    fn nesting_is_bounded_before_it_is_parsed() {
        let deep = "[".repeat(100_000);
        let error = read_body(deep.as_bytes(), None).unwrap_err().error;
        assert_eq!(error.code, code::INVALID_REQUEST);
    }
}
