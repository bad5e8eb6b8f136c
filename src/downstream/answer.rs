//! Answers to requests of either era, and the receiver of messages that come before an answer.

use std::sync::Weak;

use super::list_pages::ListPage;
use super::status_codes::Problem;
use crate::protocol::jsonrpc::RpcError;
use crate::protocol::raw::Raw;
use crate::wait::{ClientWatch, KeepAlive, Wait};

/// The answer to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A result.
    Result(Raw),
    /// The result of a list.
    List(ListPage),
    /// An error.
    Error(RpcError),
    /// An error with its own status and headers, for a transport that has not answered
    /// yet.
    Refused(Problem),
    /// No answer: the client has cancelled the request (basic/utilities/cancellation) or has gone.
    None,
    /// No answer: the session has just ended.
    Gone,
}

impl Answer {
    /// An error of the given code.
    pub fn error(code: i64, message: impl Into<String>) -> Answer {
        Answer::Error(RpcError::new(code, message))
    }
}

/// The receiver of messages to a request's client while the request is served: a transport's
/// stream.
pub(crate) trait MessageSink {
    /// One message.
    fn message(&self, text: &str);
    /// The part that keeps the client's connection alive while no message is sent; none where
    /// none is needed.
    fn keep_alive(&self) -> Option<Weak<dyn KeepAlive>> {
        None
    }
    /// A watch that reports that the client has gone, where no connection could carry the answer
    /// then.
    fn client(&self) -> Option<ClientWatch>;
    /// Is called when the call is in its session and can be cancelled.
    fn entered(&self, _wait: &Wait) {}
}
