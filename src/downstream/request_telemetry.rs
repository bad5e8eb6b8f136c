//! Notes the messages of requests and their outcomes for telemetry.

use super::answer::Answer;
use crate::protocol::jsonrpc::RequestId;
use crate::protocol::method::Method;
use crate::telemetry::outcome::{CallOutcome, Door};
use crate::telemetry::request;

/// Notes the beginning of a request that opens a session.
pub(super) fn initializes(door: Door, id: &RequestId, params: Option<&str>) {
    request::ask(door, Method::Initialize.as_str(), params);
    request::in_session(id.as_json(), None);
}

/// Notes the beginning of a stateless request.
pub(super) fn stateless(door: Door, id: &RequestId, method: &str, params: Option<&str>) {
    request::ask(door, method, params);
    request::in_session(id.as_json(), None);
}

/// Notes the outcome of a request, where none was noted before.
pub(super) fn answered(answer: &Answer) {
    request::answered(match answer {
        Answer::Result(_) | Answer::List(_) => CallOutcome::Ok,
        Answer::Error(_) | Answer::Refused(_) => CallOutcome::ClientError,
        Answer::None | Answer::Gone => CallOutcome::Cancelled,
    });
}
