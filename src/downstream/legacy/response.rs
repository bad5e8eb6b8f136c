//! The answer to a POST over Streamable HTTP: plain JSON, or an event stream that can be resumed.

use std::borrow::Cow;
use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::downstream::answer::{Answer, MessageSink};
use crate::downstream::keep_alive::{Beating, KeptAlive};
use crate::downstream::list_pages::ListPage;
use crate::downstream::status_codes::{self, Problem, STREAM_HEADERS};
use crate::http::{OpenResponse, Responder};
use crate::limits::{RESULT_BYTES_COUNTED_FROM, STREAM_RETRY};
use crate::protocol::jsonrpc::{RequestId, RpcError, around_result, code, error_response};
use crate::protocol::raw::Raw;
use crate::protocol::sse;
use crate::session::{Delivery, EncodedEvent, EventLogs, Origin, Resumable, Session};
use crate::wait::{ClientWatch, KeepAlive};

/// One response in pieces. It holds its result, or the items of a list, without a copy, so that
/// the result still counts against `limits.buffered_bytes` until it is written.
pub(crate) struct Response {
    before: String,
    result: Option<Raw>,
    after: Cow<'static, str>,
}

impl Response {
    /// The response to a request; none for an answer that is not sent.
    pub(crate) fn to(id: &RequestId, answer: &Answer) -> Option<Response> {
        match answer {
            Answer::Result(result) => Some(Response::with_result(id, result)),
            Answer::List(page) => Some(Response::with_page(id, page)),
            Answer::Error(error) => Some(Response::error(Some(id), error)),
            Answer::Refused(problem) => Some(Response::error(Some(id), &problem.to_rpc())),
            Answer::None | Answer::Gone => None,
        }
    }

    pub(crate) fn with_result(id: &RequestId, result: &Raw) -> Response {
        let (before, after) = around_result(id);
        Response { before, result: Some(result.clone()), after: after.into() }
    }

    pub(crate) fn with_page(id: &RequestId, page: &ListPage) -> Response {
        let (before, after) = around_result(id);
        let (begin, end) = page.around();
        let after = (end + after).into();
        Response { before: before + &begin, result: Some(page.items.clone()), after }
    }

    pub(crate) fn error(id: Option<&RequestId>, error: &RpcError) -> Response {
        Response { before: error_response(id, error), result: None, after: "".into() }
    }

    /// The event that carries the response.
    pub(crate) fn to_event(&self) -> EncodedEvent {
        match &self.result {
            Some(result) => EncodedEvent::message(&self.before, result, &self.after),
            None => EncodedEvent::of(&self.before),
        }
    }

    pub(crate) fn pieces(&self) -> [&str; 3] {
        [&self.before, self.result.as_ref().map_or("", Raw::get), &self.after]
    }

    /// Bytes of the response that are not counted where they came from.
    pub(crate) fn own_bytes(&self) -> usize {
        let result = self.result.as_ref().filter(|result| result.keeper().is_none());
        let result = result.map_or(0, |result| result.get().len());
        self.before.len() + result + self.after.len()
    }
}

/// Responses to a batch that wait for the others. Together they are small, except for the last.
#[derive(Default)]
pub(crate) struct Responses {
    list: Vec<(Option<RequestId>, Response)>,
    bytes: usize,
}

impl Responses {
    fn add(&mut self, id: Option<&RequestId>, response: Response) {
        self.bytes += response.pieces().iter().map(|piece| piece.len()).sum::<usize>();
        self.list.push((id.cloned(), response));
    }

    /// True if they are too large to wait for one more.
    fn are_large(&self) -> bool {
        self.bytes > RESULT_BYTES_COUNTED_FROM
    }
}

/// The answer to a POST: plain JSON, or an event stream once a message comes before the result.
pub(crate) struct PostStream(Arc<KeptAlive<PostAnswer>>);

/// The state of the answer to a POST.
struct PostAnswer {
    session: Arc<Session>,
    logs: EventLogs,
    responder: Option<Responder>,
    open: Option<OpenResponse>,
    /// The time of the last bytes to the client.
    sent_at: Option<Instant>,
    /// The stream, if its events are kept.
    kept: Option<Arc<Resumable>>,
    /// True if some of a batch's responses are on the stream.
    has_answered: bool,
}

impl PostStream {
    /// An answer that has not begun.
    pub(crate) fn new(
        session: &Arc<Session>,
        logs: &EventLogs,
        responder: Responder,
    ) -> PostStream {
        PostStream(Arc::new(KeptAlive::new(PostAnswer {
            session: session.clone(),
            logs: logs.clone(),
            responder: Some(responder),
            open: None,
            sent_at: None,
            kept: None,
            has_answered: false,
        })))
    }

    /// Sends the answer to one request.
    pub(crate) fn finish(self, id: &RequestId, answer: &Answer) {
        if let Some(post) = self.0.take() {
            post.finish(id, answer);
        }
    }

    /// Is called before the next message of a batch is answered: large waiting responses are
    /// written first, so that a batch of large answers holds one of them at a time.
    pub(crate) fn before_next(&self, waiting: &mut Responses) {
        if waiting.are_large() {
            self.0.with(|post| post.push_all(waiting));
        }
    }

    /// Sends one of a batch's responses, if there is one: at once where the stream has begun,
    /// else with the others. (2025-03-26, basic/transports, Sending Messages to the Server:
    /// "These responses MAY be batched.")
    pub(crate) fn answer_in_turn(
        &self,
        waiting: &mut Responses,
        id: Option<&RequestId>,
        response: Option<Response>,
    ) {
        response.into_iter().for_each(|response| waiting.add(id, response));
        self.0.with(|post| {
            if post.responder.is_none() {
                post.push_all(waiting);
            }
        });
    }

    /// Sends the remaining responses of a batch.
    pub(crate) fn finish_batch(self, waiting: Responses) {
        if let Some(post) = self.0.take() {
            post.finish_batch(waiting);
        }
    }
}

impl PostAnswer {
    /// Makes the answer a stream that can be resumed, if it is not one yet.
    fn begin(&mut self) {
        let Some(responder) = self.responder.take() else { return };
        let Ok(open) = responder.open(status_codes::OK, &STREAM_HEADERS) else { return };
        self.open = Some(open);
        self.kept = self.session.kept.begin(Origin::Post, &self.logs);
        if let Some(priming) = self.kept.as_ref().and_then(|kept| priming(&self.session, kept))
        {
            self.write(&[priming.as_bytes()]);
        }
    }

    fn write(&mut self, pieces: &[&[u8]]) {
        self.sent_at = Some(Instant::now());
        if self.open.as_mut().is_some_and(|open| open.write(pieces).is_err()) {
            // The client has lost its connection, which cancels nothing: the call goes on.
            self.open = None;
            if let Some(kept) = &self.kept {
                kept.lost();
            }
        }
    }

    /// Ends this connection; the stream goes on where its client has resumed it.
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

    fn finish(mut self, id: &RequestId, answer: &Answer) {
        if *answer == Answer::Gone {
            if let Some(responder) = self.responder.take() {
                Problem::unknown_session().send_rpc(responder, Some(id)).ok();
            }
            return;
        }
        if let Answer::Refused(problem) = answer
            && let Some(responder) = self.responder.take()
        {
            // Stock clients with sessions take any other status for the end of the whole
            // connection (the 1.x line of the official Python SDK ends it).
            let problem = Problem { status: status_codes::OK, ..problem.clone() };
            problem.send_rpc(responder, Some(id)).ok();
            return;
        }
        let Some(response) = Response::to(id, answer) else { return self.end_unanswered() };
        match self.responder.take() {
            Some(responder) => {
                let body = response.pieces().map(str::as_bytes);
                status_codes::send_counted_json(responder, &body, response.own_bytes()).ok();
            }
            None => {
                let event = response.to_event();
                self.push(&event, Some(&|| not_kept(id)));
                self.end();
            }
        }
    }

    fn push_all(&mut self, waiting: &mut Responses) {
        for (id, response) in std::mem::take(waiting).list {
            let told = id.as_ref().map(|id| move || not_kept(id));
            let stand_in: Option<&dyn Fn() -> String> = match &told {
                Some(told) => Some(told),
                None => None,
            };
            self.push(&response.to_event(), stand_in);
            self.has_answered = true;
        }
    }

    fn finish_batch(mut self, mut waiting: Responses) {
        match self.responder.take() {
            Some(responder) if waiting.list.is_empty() => {
                responder.respond(status_codes::ACCEPTED, &[], &[]).ok();
            }
            Some(responder) => {
                let responses = || waiting.list.iter().map(|(_, response)| response);
                let mut body: Vec<&[u8]> = Vec::with_capacity(4 * waiting.list.len() + 1);
                for response in responses() {
                    body.push(if body.is_empty() { b"[" } else { b"," });
                    body.extend(response.pieces().map(str::as_bytes));
                }
                body.push(b"]");
                let own_bytes = responses().map(Response::own_bytes).sum();
                status_codes::send_counted_json(responder, &body, own_bytes).ok();
            }
            None => {
                self.push_all(&mut waiting);
                if self.has_answered { self.end() } else { self.end_unanswered() }
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

    /// Ends a stream that holds no response: a client that resumed it would wait in vain, again
    /// and again. A stream without any event tells the client that there is no answer.
    fn end_unanswered(mut self) {
        if let Some(responder) = self.responder.take() {
            self.open = responder.open(status_codes::OK, &STREAM_HEADERS).ok();
        }
        if let Some(kept) = &self.kept {
            kept.complete();
            self.session.kept.forget(kept);
        }
        self.leave();
    }
}

impl Beating for PostAnswer {
    fn sent_at(&self) -> Option<Instant> {
        self.sent_at
    }

    fn beat(&mut self) {
        self.begin();
        if self.kept.as_ref().is_none_or(|kept| kept.is_own()) {
            self.write(&[sse::HEARTBEAT]);
        } else {
            self.leave();
        }
    }
}

impl MessageSink for PostStream {
    fn message(&self, text: &str) {
        self.0.with(|post| post.push(&EncodedEvent::of(text), None));
    }

    fn keep_alive(&self) -> Option<Weak<dyn KeepAlive>> {
        let stream: Arc<dyn KeepAlive> = self.0.clone();
        Some(Arc::downgrade(&stream))
    }

    /// A stream that has begun can be resumed; before that, the client knows of no stream.
    fn client(&self) -> Option<ClientWatch> {
        self.0.with(|post| post.responder.as_ref().map(Responder::client))?
    }
}

/// The event with which a stream of this session begins, if its revision has one.
pub(crate) fn priming(session: &Session, stream: &Resumable) -> Option<String> {
    let revision = session.caller()?.revision;
    revision.primes_streams().then(|| stream.priming(STREAM_RETRY))
}

/// The answer for a client that resumes a stream whose result was too large to be kept, so that
/// the client does not wait for ever.
fn not_kept(id: &RequestId) -> String {
    let what = "The connection broke while the result was sent, and the result, larger than \
                limits.event_log_bytes, was not kept.";
    let error = RpcError::new(code::INTERNAL_ERROR, what);
    sse::event("", &error_response(Some(id), &error))
}
