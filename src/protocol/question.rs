//! Pure: the requests of servers to clients (sampling, elicitation, roots), which of them a client
//! is asked, and the place for its answer.

use super::capabilities::{have, lacking};
use super::for_revision::{self, Fit};
use super::jsonrpc::{RequestId, RpcError, code};
use super::raw::Raw;
use super::revision::Revision;
use super::server_name::ServerName;

/// A request of a server to the client: sampling, elicitation, roots, or one of a method that
/// the gateway does not know.
#[derive(Debug)]
pub struct Question {
    /// The server that asks.
    pub server: ServerName,
    /// The server's id for the request.
    pub id: RequestId,
    /// True if the question came on the stream that answers a call: then it belongs to that call
    /// and ends with it. A question on a stream that all calls of a session share may belong to
    /// none.
    pub is_of_call: bool,
    /// The request's method.
    pub method: String,
    /// The request's parameters, an object's text.
    pub params: Option<Raw>,
    /// The place for the client's answer.
    pub reply: AnswerTo,
}

impl Question {
    /// Returns the question as a client of that revision knows it, if the client has declared the
    /// capability that it needs. Else answers it with an error: a client must not be asked what
    /// it did not declare (2025-11-25, basic/lifecycle, Operation).
    pub fn if_served(mut self, client: Revision, capabilities: &str) -> Option<Question> {
        let Some(needed) = self.lacking(capabilities) else {
            let params = self.params.as_ref().map(Raw::get);
            match for_revision::question(client, &self.method, params) {
                Fit::AsItIs => (),
                Fit::With(params) => self.params = Some(Raw::from_valid(params)),
                Fit::Refused(error) => {
                    self.reply.send(Err(error));
                    return None;
                }
            }
            return Some(self);
        };
        let error = if have(capabilities, needed) {
            // 2025-11-25, client/elicitation, Error Handling.
            let what = format!("The client has not declared this mode of {needed}.");
            RpcError::new(code::INVALID_PARAMS, what)
        } else {
            let what = format!("The client has not declared {needed}.");
            RpcError::new(code::METHOD_NOT_FOUND, what)
        };
        self.reply.send(Err(error));
        None
    }
}

impl Question {
    /// The capability that the question needs and that is not among `capabilities`.
    pub fn lacking(&self, capabilities: &str) -> Option<&'static str> {
        lacking(capabilities, &self.method, self.params.as_ref().map(Raw::get))
    }

    /// Answers with an error, because there is no client that could be asked.
    pub fn refuse(self) {
        let method: String = self.method.chars().take(100).collect();
        let what = format!("The gateway does not serve {method:?}.");
        self.reply.send(Err(RpcError::new(code::METHOD_NOT_FOUND, what)));
    }
}

type Answer = Result<Raw, RpcError>;

/// The place for one answer to a [`Question`]. Sending the answer never waits. If the place is
/// dropped without an answer, the server gets an error, so that no server waits for ever.
pub struct AnswerTo(Option<Box<dyn FnOnce(Answer) + Send>>);

impl AnswerTo {
    /// `give` must only queue the answer.
    pub fn new(give: impl FnOnce(Answer) + Send + 'static) -> AnswerTo {
        AnswerTo(Some(Box::new(give)))
    }

    /// Sends the answer.
    pub fn send(mut self, answer: Answer) {
        if let Some(give) = self.0.take() {
            give(answer);
        }
    }
}

impl Drop for AnswerTo {
    fn drop(&mut self) {
        if let Some(give) = self.0.take() {
            give(Err(RpcError::new(code::INTERNAL_ERROR, "The client gave no answer.")));
        }
    }
}

impl std::fmt::Debug for AnswerTo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AnswerTo")
    }
}
