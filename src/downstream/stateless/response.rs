//! The answer to a stateless request. To a POST it is plain JSON, or an event stream once a
//! message comes before the result; the stream cannot be resumed, and its end by the client
//! cancels the request (2026-07-28, basic/transports/streamable-http, Receiving Messages). On a
//! transport of lines the answer is a line, and so is each message before it
//! (basic/transports/stdio).

use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::downstream::answer::{Answer, MessageSink};
use crate::downstream::event_stream::{OnEnd, Place};
use crate::downstream::keep_alive::{Beating, KeptAlive};
use crate::downstream::legacy::response::Response;
use crate::downstream::status_codes::{self, STREAM_HEADERS};
use crate::downstream::stdio::line_sinks::LineAnswer;
use crate::http::{OpenResponse, Responder};
use crate::protocol::headers::JSON;
use crate::protocol::jsonrpc::{RequestId, error_response};
use crate::protocol::modern::error_for;
use crate::protocol::sse;
use crate::session::{EncodedEvent, EventSink};
use crate::wait::{ClientWatch, KeepAlive};

/// An answer that may have begun.
pub(crate) enum StatelessResponse {
    /// The response to a POST, which may have begun.
    Posted(Arc<KeptAlive<Posted>>),
    /// A line to the client.
    Lines(LineAnswer),
}

/// The answer to a POST.
pub(crate) struct Posted {
    responder: Option<Responder>,
    open: Option<OpenResponse>,
    /// The time of the last bytes to the client.
    sent_at: Option<Instant>,
}

impl Posted {
    fn write(&mut self, pieces: &[&[u8]]) {
        self.sent_at = Some(Instant::now());
        if let Some(responder) = self.responder.take() {
            self.open = responder.open(status_codes::OK, &STREAM_HEADERS).ok();
        }
        if self.open.as_mut().is_some_and(|open| open.write(pieces).is_err()) {
            // The client has gone, which the call's wait notices too.
            self.open = None;
        }
    }

    fn event(&mut self, before: &str, data: &str, after: &str) {
        let event = sse::message("", [before, data, after]);
        self.write(&event.each_ref().map(|piece| piece.as_bytes()));
    }

    fn finish(mut self, status: u16, response: &Response) {
        if let Some(responder) = self.responder.take() {
            let (headers, own_bytes) = ([("Content-Type", JSON)], response.own_bytes());
            let body = response.pieces().map(str::as_bytes);
            // If the client has gone, the answer is not missed.
            responder.respond_counted(status, &headers, &body, own_bytes).ok();
            return;
        }
        let [before, data, after] = response.pieces();
        self.event(before, data, after);
        if let Some(open) = self.open.take() {
            open.finish().ok();
        }
    }
}

impl Beating for Posted {
    fn sent_at(&self) -> Option<Instant> {
        self.sent_at
    }

    fn beat(&mut self) {
        self.write(&[sse::HEARTBEAT]);
    }
}

impl StatelessResponse {
    /// An answer that has not begun.
    pub(crate) fn new(responder: Responder) -> StatelessResponse {
        let posted = Posted { responder: Some(responder), open: None, sent_at: None };
        StatelessResponse::Posted(Arc::new(KeptAlive::new(posted)))
    }

    /// An answer among the lines of its client.
    pub(crate) fn on_lines(answer: LineAnswer) -> StatelessResponse {
        StatelessResponse::Lines(answer)
    }

    /// Turns the answer into a long-lived stream in that place; `on_end` is called once it has
    /// ended. None if the answer has begun, or its client has gone.
    pub(crate) fn into_sink(
        self,
        door: &'static str,
        place: Place,
        on_end: OnEnd,
    ) -> Option<Arc<dyn EventSink>> {
        match self {
            StatelessResponse::Posted(posted) => {
                let responder = posted.take()?.responder?;
                let stream =
                    responder.into_stream(status_codes::OK, &STREAM_HEADERS, b"").ok()?;
                Some(Arc::new(place.open(door, stream, on_end).ok()?))
            }
            StatelessResponse::Lines(answer) => answer.into_sink(place, on_end),
        }
    }

    /// Sends the answer.
    pub(crate) fn finish(self, id: &RequestId, answer: &Answer) {
        let mut posted = match &self {
            StatelessResponse::Posted(posted) => posted.take(),
            StatelessResponse::Lines(_) => None,
        };
        let (status, response) = match answer {
            Answer::Result(result) => (status_codes::OK, Response::with_result(id, result)),
            Answer::List(page) => (status_codes::OK, Response::with_page(id, page)),
            Answer::Error(error) => {
                (status_codes::modern_status(error.code), Response::error(Some(id), error))
            }
            Answer::Refused(problem) => {
                let error = error_for(problem.to_rpc());
                if let Some(responder) = posted.as_mut().and_then(|it| it.responder.take()) {
                    // If the client has gone, the answer is not missed.
                    problem.send(responder, &error_response(Some(id), &error)).ok();
                    return;
                }
                (problem.status, Response::error(Some(id), &error))
            }
            // Dropped unfinished, the connection ends; on lines nothing more is sent.
            Answer::None | Answer::Gone => return,
        };
        match (&self, posted) {
            (StatelessResponse::Lines(answer), _) => answer.give(response.to_event()),
            (StatelessResponse::Posted(_), Some(posted)) => posted.finish(status, &response),
            (StatelessResponse::Posted(_), None) => (),
        }
    }
}

impl MessageSink for StatelessResponse {
    fn message(&self, text: &str) {
        match self {
            StatelessResponse::Posted(posted) => {
                posted.with(|posted| posted.event("", text, ""));
            }
            StatelessResponse::Lines(answer) => answer.give(EncodedEvent::of(text)),
        }
    }

    fn keep_alive(&self) -> Option<Weak<dyn KeepAlive>> {
        match self {
            StatelessResponse::Posted(posted) => {
                let posted: Arc<dyn KeepAlive> = posted.clone();
                Some(Arc::downgrade(&posted))
            }
            // Lines need nothing to keep them alive.
            StatelessResponse::Lines(_) => None,
        }
    }

    fn client(&self) -> Option<ClientWatch> {
        match self {
            StatelessResponse::Posted(posted) => posted.with(|posted| {
                let responder = posted.responder.as_ref().map(Responder::client);
                responder.or_else(|| posted.open.as_ref().map(OpenResponse::client))
            })?,
            StatelessResponse::Lines(answer) => Some(answer.client()),
        }
    }
}
