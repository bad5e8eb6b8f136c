//! The answer to a stateless request: plain JSON, or an event stream once something comes before
//! the result. It cannot be resumed, and its end by the client cancels the request (2026-07-28,
//! basic/transports/streamable-http, Receiving Messages).

use super::listed::ListPage;
use super::post_stream::Response;
use super::reply::{self, Problem, STREAM_HEADERS};
use super::requests::MessageSink;
use crate::http::{OpenResponse, Responder};
use crate::protocol::headers::JSON;
use crate::protocol::jsonrpc::{RequestId, RpcError, error_response};
use crate::protocol::modern::error_for;
use crate::protocol::raw::Raw;
use crate::protocol::sse;
use crate::wait::ClientWatch;

/// What a stateless request is answered with.
#[derive(Debug)]
pub(super) enum ModernAnswer {
    /// A result.
    Result(Raw),
    /// The result of a list.
    List(ListPage),
    /// An error.
    Error(RpcError),
    /// An error with a status and headers of its own, where the answer has not begun.
    Refused(Problem),
    /// Nothing: the client has gone.
    None,
}

/// An answer that may have begun.
pub(super) struct ModernStream {
    responder: Option<Responder>,
    open: Option<OpenResponse>,
}

impl ModernStream {
    /// An answer that has not begun.
    pub(super) fn new(responder: Responder) -> ModernStream {
        ModernStream { responder: Some(responder), open: None }
    }

    /// What reports that the client has gone.
    pub(super) fn client(&self) -> Option<ClientWatch> {
        let responder = self.responder.as_ref().map(Responder::client);
        responder.or_else(|| self.open.as_ref().map(OpenResponse::client))
    }

    /// The right to answer, for a stream of another kind. None if the answer has begun.
    pub(super) fn into_responder(self) -> Option<Responder> {
        self.responder
    }

    fn write(&mut self, pieces: &[&[u8]]) {
        if let Some(responder) = self.responder.take() {
            self.open = responder.open(reply::OK, &STREAM_HEADERS).ok();
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

    /// Gives the answer.
    pub(super) fn finish(mut self, id: &RequestId, answer: &ModernAnswer) {
        let (status, response) = match answer {
            ModernAnswer::Result(result) => (reply::OK, Response::with_result(id, result)),
            ModernAnswer::List(page) => (reply::OK, Response::with_page(id, page)),
            ModernAnswer::Error(error) => {
                (reply::modern_status(error.code), Response::error(Some(id), error))
            }
            ModernAnswer::Refused(problem) => {
                let error = error_for(problem.to_rpc());
                if let Some(responder) = self.responder.take() {
                    // A client that is gone needs no answer.
                    problem.send(responder, &error_response(Some(id), &error)).ok();
                    return;
                }
                (problem.status, Response::error(Some(id), &error))
            }
            // Dropped unfinished, the connection ends.
            ModernAnswer::None => return,
        };
        let [before, data, after] = response.pieces();
        if let Some(responder) = self.responder.take() {
            let (headers, own_bytes) = ([("Content-Type", JSON)], response.own_bytes());
            let body = [before, data, after].map(str::as_bytes);
            // A client that is gone needs no answer.
            responder.respond_counted(status, &headers, &body, own_bytes).ok();
            return;
        }
        self.event(before, data, after);
        if let Some(open) = self.open.take() {
            open.finish().ok();
        }
    }
}

impl MessageSink for ModernStream {
    fn message(&mut self, text: &str) {
        self.event("", text, "");
    }

    fn silence(&mut self) {
        self.write(&[sse::HEARTBEAT]);
    }

    fn client(&self) -> Option<ClientWatch> {
        ModernStream::client(self)
    }
}
