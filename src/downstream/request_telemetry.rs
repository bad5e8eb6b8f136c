//! Notes the messages of requests and their outcomes for telemetry.

use std::sync::Arc;

use super::Front;
use super::legacy::dispatch::{Answer, MessageSink, SessionRequest};
use super::stateless::response::StatelessAnswer;
use crate::access::policy::Scope;
use crate::protocol::jsonrpc::RequestId;
use crate::protocol::method::Method;
use crate::session::{self, Session};
use crate::telemetry::outcome::{CallOutcome, Door};
use crate::telemetry::request;

impl Front {
    /// Answers a request of an open session.
    pub(super) fn answer(
        &self,
        session: &Arc<Session>,
        scope: &Scope,
        asked: &SessionRequest<'_>,
        sink: &dyn MessageSink,
    ) -> Answer {
        let door = match session.door {
            session::Transport::HttpSse => Door::Sse,
            session::Transport::StreamableHttp | session::Transport::Listen => Door::Streamable,
            session::Transport::Stdio => Door::Stdio,
        };
        request::ask(door, asked.method, asked.params);
        request::in_session(asked.id.as_json(), Some(&session.id));
        if let Some(client) = session.caller().and_then(|caller| caller.client.clone()) {
            request::client(&client);
        }
        let answer = self.answer_asked(session, scope, asked, sink);
        answered(&answer);
        answer
    }
}

/// Notes the begin of a request that opens a session.
pub(super) fn initializes(door: Door, id: &RequestId, params: Option<&str>) {
    request::ask(door, Method::Initialize.as_str(), params);
    request::in_session(id.as_json(), None);
}

/// Notes the begin of a stateless request.
pub(super) fn stateless(door: Door, id: &RequestId, method: &str, params: Option<&str>) {
    request::ask(door, method, params);
    request::in_session(id.as_json(), None);
}

/// Notes the outcome of a session's request, where none was noted before.
pub(super) fn answered(answer: &Answer) {
    request::answered(match answer {
        Answer::Result(_) | Answer::List(_) => CallOutcome::Ok,
        Answer::Error(_) | Answer::Refused(_) => CallOutcome::ClientError,
        Answer::None | Answer::Gone => CallOutcome::Cancelled,
    });
}

/// Notes the outcome of a stateless request, where none was noted before.
pub(super) fn answered_stateless(answer: &StatelessAnswer) {
    request::answered(match answer {
        StatelessAnswer::Result(_) | StatelessAnswer::List(_) => CallOutcome::Ok,
        StatelessAnswer::Error(_) | StatelessAnswer::Refused(_) => CallOutcome::ClientError,
        StatelessAnswer::None => CallOutcome::Cancelled,
    });
}
