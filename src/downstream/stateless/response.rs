//! The answer to a stateless request. To a POST it is plain JSON, or an event stream once a
//! message comes before the result; the stream cannot be resumed, and its end by the client
//! cancels the request (2026-07-28, basic/transports/streamable-http, Receiving Messages). On a
//! transport of lines the answer is a line, and so is each message before it
//! (basic/transports/stdio).

use std::sync::Arc;

use crate::downstream::event_stream::{OnEnd, Place};
use crate::downstream::legacy::dispatch::MessageSink;
use crate::downstream::legacy::response::Response;
use crate::downstream::list_pages::ListPage;
use crate::downstream::reply::{self, Problem, STREAM_HEADERS};
use crate::downstream::stdio::line_sinks::LineAnswer;
use crate::http::{OpenResponse, Responder};
use crate::protocol::headers::JSON;
use crate::protocol::jsonrpc::{RequestId, RpcError, error_response};
use crate::protocol::modern::error_for;
use crate::protocol::raw::Raw;
use crate::protocol::sse;
use crate::session::{EncodedEvent, EventSink};
use crate::wait::ClientWatch;

/// The answer to a stateless request.
#[derive(Debug)]
pub(crate) enum StatelessAnswer {
    /// A result.
    Result(Raw),
    /// The result of a list.
    List(ListPage),
    /// An error.
    Error(RpcError),
    /// An error with its own status and headers, where the answer has not begun.
    Refused(Problem),
    /// No answer: the client has gone.
    None,
}

/// An answer that may have begun.
pub(crate) struct StatelessResponse(Way);

/// The way of an answer.
#[expect(clippy::large_enum_variant, reason = "nearly all are the large one; no box for each")]
enum Way {
    /// The response to a POST, which may have begun.
    Posted { responder: Option<Responder>, open: Option<OpenResponse> },
    /// A line to the client.
    Lines(LineAnswer),
}

impl StatelessResponse {
    /// An answer that has not begun.
    pub(crate) fn new(responder: Responder) -> StatelessResponse {
        StatelessResponse(Way::Posted { responder: Some(responder), open: None })
    }

    /// An answer among the lines of its client.
    pub(crate) fn on_lines(answer: LineAnswer) -> StatelessResponse {
        StatelessResponse(Way::Lines(answer))
    }

    /// A watch that reports that the client has gone.
    pub(crate) fn client(&self) -> Option<ClientWatch> {
        match &self.0 {
            Way::Posted { responder, open } => {
                let responder = responder.as_ref().map(Responder::client);
                responder.or_else(|| open.as_ref().map(OpenResponse::client))
            }
            Way::Lines(answer) => Some(answer.client()),
        }
    }

    /// Turns the answer into a long-lived stream in that place; `on_end` is called once it has
    /// ended. None if the answer has begun, or its client has gone.
    pub(crate) fn into_sink(
        self,
        door: &'static str,
        place: Place,
        on_end: OnEnd,
    ) -> Option<Arc<dyn EventSink>> {
        match self.0 {
            Way::Posted { responder, .. } => {
                let stream = responder?.into_stream(reply::OK, &STREAM_HEADERS, b"").ok()?;
                Some(Arc::new(place.open(door, stream, on_end).ok()?))
            }
            Way::Lines(answer) => answer.into_sink(place, on_end),
        }
    }

    fn write(&mut self, pieces: &[&[u8]]) {
        let Way::Posted { responder, open } = &mut self.0 else { return };
        if let Some(responder) = responder.take() {
            *open = responder.open(reply::OK, &STREAM_HEADERS).ok();
        }
        if open.as_mut().is_some_and(|open| open.write(pieces).is_err()) {
            // The client has gone, which the call's wait notices too.
            *open = None;
        }
    }

    fn event(&mut self, before: &str, data: &str, after: &str) {
        let event = sse::message("", [before, data, after]);
        self.write(&event.each_ref().map(|piece| piece.as_bytes()));
    }

    /// Sends the answer.
    pub(crate) fn finish(mut self, id: &RequestId, answer: &StatelessAnswer) {
        let (status, response) = match answer {
            StatelessAnswer::Result(result) => (reply::OK, Response::with_result(id, result)),
            StatelessAnswer::List(page) => (reply::OK, Response::with_page(id, page)),
            StatelessAnswer::Error(error) => {
                (reply::modern_status(error.code), Response::error(Some(id), error))
            }
            StatelessAnswer::Refused(problem) => {
                let error = error_for(problem.to_rpc());
                if let Some(responder) = self.take_responder() {
                    // If the client has gone, the answer is not missed.
                    problem.send(responder, &error_response(Some(id), &error)).ok();
                    return;
                }
                (problem.status, Response::error(Some(id), &error))
            }
            // Dropped unfinished, the connection ends; on lines nothing more is sent.
            StatelessAnswer::None => return,
        };
        if let Some(responder) = self.take_responder() {
            let (headers, own_bytes) = ([("Content-Type", JSON)], response.own_bytes());
            let body = response.pieces().map(str::as_bytes);
            // If the client has gone, the answer is not missed.
            responder.respond_counted(status, &headers, &body, own_bytes).ok();
            return;
        }
        if let Way::Lines(answer) = &self.0 {
            return answer.give(response.to_event());
        }
        let [before, data, after] = response.pieces();
        self.event(before, data, after);
        if let Way::Posted { open, .. } = &mut self.0
            && let Some(open) = open.take()
        {
            open.finish().ok();
        }
    }

    /// The right to answer a POST, if the answer has not begun.
    fn take_responder(&mut self) -> Option<Responder> {
        match &mut self.0 {
            Way::Posted { responder, .. } => responder.take(),
            Way::Lines(_) => None,
        }
    }
}

impl MessageSink for StatelessResponse {
    fn message(&mut self, text: &str) {
        match &self.0 {
            Way::Posted { .. } => self.event("", text, ""),
            Way::Lines(answer) => answer.give(EncodedEvent::of(text)),
        }
    }

    fn silence(&mut self) {
        self.write(&[sse::HEARTBEAT]);
    }

    fn client(&self) -> Option<ClientWatch> {
        StatelessResponse::client(self)
    }
}
