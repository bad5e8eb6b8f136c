//! The answer to a POST over Streamable HTTP: plain JSON, or an event stream that can be resumed.

use std::borrow::Cow;
use std::sync::Arc;

use super::listed::ListPage;
use super::reply::{self, Problem, STREAM_HEADERS};
use super::requests::{Answer, MessageSink};
use crate::http::{OpenResponse, Responder, Share};
use crate::limits::{RESULT_BYTES_COUNTED_FROM, STREAM_RETRY};
use crate::protocol::jsonrpc::{RequestId, RpcError, around_result, code, error_response};
use crate::protocol::raw::Raw;
use crate::protocol::sse;
use crate::session::{Delivery, EncodedEvent, EventLogs, Origin, Resumable, Session};
use crate::wait::ClientWatch;

/// One response in pieces. It holds its result, or the items of a list, and no copy of it, so that
/// what waits for the rest of a batch still counts against `limits.buffered_bytes`.
pub(super) struct Response {
    before: String,
    result: Option<Raw>,
    after: Cow<'static, str>,
}

impl Response {
    /// The response to a request; none where it is not answered.
    pub(super) fn to(id: &RequestId, answer: &Answer) -> Option<Response> {
        match answer {
            Answer::Result(result) => Some(Response::with_result(id, result)),
            Answer::List(page) => Some(Response::with_page(id, page)),
            Answer::Error(error) => Some(Response::error(Some(id), error)),
            Answer::Refused(problem) => Some(Response::error(Some(id), &problem.to_rpc())),
            Answer::None | Answer::Gone => None,
        }
    }

    pub(super) fn with_result(id: &RequestId, result: &Raw) -> Response {
        let (before, after) = around_result(id);
        Response { before, result: Some(result.clone()), after: after.into() }
    }

    pub(super) fn with_page(id: &RequestId, page: &ListPage) -> Response {
        let (before, after) = around_result(id);
        let (begin, end) = page.around();
        let after = (end + after).into();
        Response { before: before + &begin, result: Some(page.items.clone()), after }
    }

    pub(super) fn error(id: Option<&RequestId>, error: &RpcError) -> Response {
        Response { before: error_response(id, error), result: None, after: "".into() }
    }

    /// The event that carries it.
    pub(super) fn to_event(&self) -> EncodedEvent {
        match &self.result {
            Some(result) => EncodedEvent::message(&self.before, result, &self.after),
            None => EncodedEvent::of(&self.before),
        }
    }

    pub(super) fn pieces(&self) -> [&str; 3] {
        [&self.before, self.result.as_ref().map_or("", Raw::get), &self.after]
    }

    /// Bytes of it that are not counted where they came from.
    pub(super) fn own_bytes(&self) -> usize {
        let result = self.result.as_ref().filter(|result| result.keeper().is_none());
        let result = result.map_or(0, |result| result.get().len());
        self.before.len() + result + self.after.len()
    }
}

/// The responses to a batch, which wait for the last of them.
pub(super) struct Responses {
    list: Vec<Response>,
    own_bytes: usize,
    share: Share,
}

impl Responses {
    /// None yet; `share` grows with them.
    pub(super) fn new(share: Share, n_messages: usize) -> Responses {
        Responses { list: Vec::with_capacity(n_messages), own_bytes: 0, share }
    }

    /// Adds the response to the request of that id, if it has one; an error where it would be too
    /// much.
    pub(super) fn extend(&mut self, id: Option<&RequestId>, response: Option<Response>) {
        let Some(response) = response else { return };
        let own_bytes = self.own_bytes + response.own_bytes();
        // What is small is not looked at.
        let is_counted = own_bytes > RESULT_BYTES_COUNTED_FROM;
        if is_counted && self.share.grow_to(own_bytes).is_err() {
            let problem = Problem::overloaded("bodies and results fill limits.buffered_bytes");
            self.list.push(Response::error(id, &problem.to_rpc()));
            return;
        }
        self.own_bytes = own_bytes;
        self.list.push(response);
    }

    /// All of them as an array's text; none where there are none.
    pub(super) fn to_array(&self) -> Option<String> {
        if self.list.is_empty() {
            return None;
        }
        let all: Vec<String> = self.list.iter().map(|it| it.pieces().concat()).collect();
        Some(format!("[{}]", all.join(",")))
    }
}

/// The answer to a POST: plain JSON, or an event stream once something comes before the result.
pub(super) struct PostStream<'a> {
    session: &'a Session,
    logs: &'a EventLogs,
    responder: Option<Responder>,
    open: Option<OpenResponse>,
    /// The stream, if its events are kept.
    kept: Option<Arc<Resumable>>,
}

impl<'a> PostStream<'a> {
    /// An answer that has not begun.
    pub(super) fn new(
        session: &'a Session,
        logs: &'a EventLogs,
        responder: Responder,
    ) -> PostStream<'a> {
        PostStream { session, logs, responder: Some(responder), open: None, kept: None }
    }

    /// Makes the answer a stream that can be resumed, if it is none yet.
    fn begin(&mut self) {
        let Some(responder) = self.responder.take() else { return };
        let Ok(open) = responder.open(reply::OK, &STREAM_HEADERS) else { return };
        self.open = Some(open);
        self.kept = self.session.kept.begin(Origin::Post, self.logs);
        if let Some(priming) = self.kept.as_ref().and_then(|kept| priming(self.session, kept)) {
            self.write(&[priming.as_bytes()]);
        }
    }

    fn write(&mut self, pieces: &[&[u8]]) {
        if self.open.as_mut().is_some_and(|open| open.write(pieces).is_err()) {
            // The client has lost its connection, which cancels nothing: the call goes on.
            self.open = None;
            if let Some(kept) = &self.kept {
                kept.lost();
            }
        }
    }

    /// Ends this connection: the stream goes on where its client has resumed it.
    fn leave(&mut self) {
        if let Some(open) = self.open.take() {
            open.finish().ok();
        }
    }

    fn push(&mut self, event: &EncodedEvent, stand_in: Option<&dyn Fn() -> String>) {
        self.begin();
        let delivery = self.kept.as_ref().map(|kept| kept.push(event, stand_in));
        let id = match delivery {
            Some(Delivery::Elsewhere) => return self.leave(),
            Some(Delivery::Own(id)) => id,
            None => String::new(),
        };
        let mut pieces = vec![id.as_bytes()];
        event.add_to(&mut pieces);
        self.write(&pieces);
    }

    /// Gives the answer to one request.
    pub(super) fn finish(mut self, id: &RequestId, answer: &Answer) {
        if *answer == Answer::Gone {
            if let Some(responder) = self.responder.take() {
                Problem::unknown_session().send_rpc(responder, Some(id)).ok();
            }
            return;
        }
        if let Answer::Refused(problem) = answer
            && let Some(responder) = self.responder.take()
        {
            // Stock clients that keep sessions take any other status for the end of all (the 1.x
            // line of the official Python SDK ends its whole connection).
            let problem = Problem { status: reply::OK, ..problem.clone() };
            problem.send_rpc(responder, Some(id)).ok();
            return;
        }
        let Some(response) = Response::to(id, answer) else { return self.end_unanswered() };
        match self.responder.take() {
            Some(responder) => {
                let body = response.pieces().map(str::as_bytes);
                reply::send_counted_json(responder, &body, response.own_bytes()).ok();
            }
            None => {
                let event = response.to_event();
                self.push(&event, Some(&|| not_kept(id)));
                self.end();
            }
        }
    }

    /// Gives the answers to a batch, which are counted.
    pub(super) fn finish_batch(mut self, responses: &Responses) {
        let responses = &responses.list;
        match self.responder.take() {
            Some(responder) if responses.is_empty() => {
                responder.respond(reply::ACCEPTED, &[], &[]).ok();
            }
            Some(responder) => {
                let mut body: Vec<&[u8]> = Vec::with_capacity(4 * responses.len() + 1);
                for response in responses {
                    body.push(if body.is_empty() { b"[" } else { b"," });
                    body.extend(response.pieces().map(str::as_bytes));
                }
                body.push(b"]");
                reply::send_counted_json(responder, &body, 0).ok();
            }
            None if responses.is_empty() => self.end_unanswered(),
            None => {
                for response in responses {
                    self.push(&response.to_event(), None);
                }
                self.end();
            }
        }
    }

    /// Ends the stream, which holds its response.
    fn end(mut self) {
        if let Some(kept) = &self.kept
            && !kept.complete()
        {
            self.session.kept.forget(kept);
        }
        self.leave();
    }

    /// Ends a stream that holds no response: whoever resumed it would wait in vain, again and
    /// again. One that holds nothing at all says that there is no answer.
    fn end_unanswered(mut self) {
        if let Some(responder) = self.responder.take() {
            self.open = responder.open(reply::OK, &STREAM_HEADERS).ok();
        }
        if let Some(kept) = &self.kept {
            kept.complete();
            self.session.kept.forget(kept);
        }
        self.leave();
    }
}

impl MessageSink for PostStream<'_> {
    fn message(&mut self, text: &str) {
        self.push(&EncodedEvent::of(text), None);
    }

    fn silence(&mut self) {
        self.begin();
        if self.kept.as_ref().is_none_or(|kept| kept.is_own()) {
            self.write(&[sse::HEARTBEAT]);
        } else {
            self.leave();
        }
    }

    /// A stream that has begun can be resumed; of one that has not the client knows nothing.
    fn client(&self) -> Option<ClientWatch> {
        self.responder.as_ref().map(Responder::client)
    }
}

/// The event that a stream of this session begins with, if it begins with any.
pub(super) fn priming(session: &Session, stream: &Resumable) -> Option<String> {
    let revision = session.caller()?.revision;
    revision.primes_streams().then(|| stream.priming(STREAM_RETRY))
}

/// What a client is told that resumes a stream whose result was too large to be kept, so that
/// it does not wait for ever.
fn not_kept(id: &RequestId) -> String {
    let what = "The connection broke while the result was sent, and the result, larger than \
                limits.event_log_bytes, was not kept.";
    let error = RpcError::new(code::INTERNAL_ERROR, what);
    sse::event("", &error_response(Some(id), &error))
}
