//! Error answers to stateless requests.

use crate::downstream::answer::Answer;
use crate::downstream::status_codes::{self, Problem};
use crate::error::CallError;
use crate::protocol::capabilities::lacking;
use crate::protocol::jsonrpc::{RpcError, code};
use crate::protocol::modern;
use crate::protocol::raw::{Raw, RawObject};

/// The text to a client whose `requestState` is none of this gateway's.
pub(super) const INVALID_STATE: &str = "\"requestState\" is not valid for this request: it was changed, has \
                             been used, has expired, or was made for another one.";

/// The answer to a retry whose state is not valid.
pub(super) fn invalid_state() -> Answer {
    invalid(INVALID_STATE)
}

/// The answer to a request with wrong parameters.
pub(super) fn invalid(what: &str) -> Answer {
    Answer::Error(RpcError::new(code::INVALID_PARAMS, what))
}

/// The answer to an unknown method.
pub(super) fn not_found(method: &str) -> Answer {
    let what = format!("Method not found: {method}");
    Answer::Error(RpcError::new(code::METHOD_NOT_FOUND, what))
}

/// The answer to a call that failed.
pub(super) fn failed(error: &CallError) -> Answer {
    let problem = Problem::from_call(error);
    if matches!(error, CallError::RateLimited { .. }) {
        return Answer::Refused(problem);
    }
    if problem.headers.is_empty() {
        return Answer::Error(modern::error_for(problem.to_rpc()));
    }
    // An error with headers keeps them.
    Answer::Refused(Problem {
        status: status_codes::modern_status(problem.rpc_code),
        ..problem
    })
}

/// Capabilities that a server's input requests need and a client has not declared.
pub(super) fn missing(requests: Option<&Raw>, capabilities: &str) -> Vec<&'static str> {
    let requests = requests.and_then(|requests| RawObject::parse(requests.get()).ok());
    let requests = requests.unwrap_or_default();
    let lacking = |request: &str| {
        let fields = RawObject::parse(request).ok()?;
        let method = fields.string("method").ok()??;
        lacking(capabilities, &method, fields.get("params"))
    };
    requests.iter().filter_map(|(_, request)| lacking(request)).collect()
}
