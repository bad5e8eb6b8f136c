//! Pure: the legacy handshake as values, why an attempt failed, and which failures may be
//! followed by a second attempt.

use crate::error::{CallError, Stage};
use crate::protocol::jsonrpc::{self, RequestId, RpcError};
use crate::protocol::legacy::{self, Initialized};
use crate::protocol::method::{Method, notification};
use crate::protocol::raw::Raw;
use crate::protocol::revision::Revision;
use crate::protocol::server_name::ServerName;
use crate::wait::Interrupted;

/// Why one attempt to use an upstream failed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Trouble {
    pub(super) kind: Kind,
    pub(super) stage: Stage,
    /// For people; ends without a full stop. May quote the upstream, and with that a secret:
    /// see `Core::scrubbed`.
    pub(super) message: String,
    /// Whether a byte of the request has left.
    pub(super) sent: bool,
}

/// What a failure means for what comes next.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// The wait ended first.
    Interrupted(Interrupted),
    /// The upstream does not know the session any more; it has not looked at the request.
    SessionGone,
    /// The connection failed; whether before or after the request, `sent` tells.
    Broke,
    /// The upstream answered with a refusal.
    Refused(Refusal),
    /// The answer makes no sense, or is larger than a bound.
    Nonsense,
    /// A bound of the gateway's own was reached; the message names it.
    Overloaded,
}

/// Whether a refusal of `initialize` hints at the older transport (2025-11-25,
/// basic/transports, Backwards Compatibility).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    MaybeHttpSse,
    Plain,
}

impl Trouble {
    pub(super) fn new(kind: Kind, stage: Stage, message: impl Into<String>) -> Trouble {
        Trouble { kind, stage, message: message.into(), sent: false }
    }

    pub(super) fn nonsense(message: impl Into<String>) -> Trouble {
        Trouble { sent: true, ..Trouble::new(Kind::Nonsense, Stage::Parse, message) }
    }

    pub(super) fn interrupted(reason: Interrupted, stage: Stage, sent: bool) -> Trouble {
        let message = match reason {
            Interrupted::Deadline => "no answer in time",
            Interrupted::Cancelled | Interrupted::ClientGone => "cancelled",
            Interrupted::Stopping => "the gateway is stopping",
        };
        Trouble { sent, ..Trouble::new(Kind::Interrupted(reason), stage, message) }
    }

    /// What it is when it happens while a session is opened: how far the opening came is told,
    /// and nothing of the call itself was sent.
    pub(super) fn in_handshake(self) -> Trouble {
        let stage = match self.stage {
            Stage::Resolve | Stage::Spawn | Stage::Connect | Stage::Tls => self.stage,
            Stage::Handshake
            | Stage::Slot
            | Stage::Send
            | Stage::Answer
            | Stage::Read
            | Stage::Parse
            | Stage::List => Stage::Handshake,
        };
        Trouble { stage, sent: false, ..self }
    }

    /// What the caller of `method` is told.
    pub(super) fn into_error(self, server: &ServerName, is_safe_to_repeat: bool) -> CallError {
        let message = match self.kind {
            Kind::Interrupted(reason) => {
                return CallError::interrupted(reason, server, self.stage);
            }
            Kind::Overloaded => return CallError::Overloaded { what: self.message },
            Kind::Broke if self.sent && !is_safe_to_repeat => format!(
                "the connection broke off after the request was sent; the tool may have run \
                 ({})",
                self.message
            ),
            Kind::SessionGone | Kind::Broke | Kind::Refused(_) | Kind::Nonsense => self.message,
        };
        CallError::UpstreamFailed { server: server.clone(), stage: self.stage, message }
    }
}

/// Whether a request that failed may be sent a second time: only if it never reached the tool,
/// or does no more when it is done twice.
pub(super) fn may_replay(trouble: &Trouble, is_safe_to_repeat: bool) -> bool {
    match trouble.kind {
        Kind::SessionGone => true,
        Kind::Broke => !trouble.sent || is_safe_to_repeat,
        Kind::Interrupted(_) | Kind::Refused(_) | Kind::Nonsense | Kind::Overloaded => false,
    }
}

/// The text of `initialize` as the gateway sends it, for a client with these capabilities.
pub(super) fn initialize(id: u64, capabilities: &str) -> String {
    let params = legacy::initialize_params(Revision::LATEST_LEGACY, capabilities);
    jsonrpc::request(&RequestId::from(id), Method::Initialize.as_str(), Some(&params))
}

/// The text that ends the handshake.
pub(super) fn initialized() -> String {
    jsonrpc::notification(notification::INITIALIZED, None)
}

/// The text that tells an upstream that nobody wants the answer to `id` any more.
pub(super) fn cancelled(id: u64, reason: Interrupted) -> String {
    let reason = match reason {
        Interrupted::Cancelled => "the client cancelled the request",
        Interrupted::ClientGone => "the client has gone",
        Interrupted::Deadline => "the time for the call is over",
        Interrupted::Stopping => "the gateway is stopping",
    };
    let params = format!("{{\"requestId\":{id},\"reason\":\"{reason}\"}}");
    jsonrpc::notification(notification::CANCELLED, Some(&params))
}

/// Reads the answer to `initialize`.
pub(super) fn read_handshake(outcome: Result<Raw, RpcError>) -> Result<Initialized, Trouble> {
    match outcome {
        Ok(result) => legacy::read_initialize_result(result.get()).map_err(|what| {
            Trouble::nonsense(format!("its answer to initialize is not acceptable: {what}"))
        }),
        Err(error) => Err(Trouble::new(
            Kind::Refused(Refusal::Plain),
            Stage::Handshake,
            format!("it refused initialize: {} ({})", cut(&error.message), error.code),
        )),
    }
}

/// Whether the server declares a capability.
pub(super) fn declares(initialized: &Initialized, capability: &str) -> bool {
    crate::protocol::raw::RawObject::parse(initialized.capabilities.get())
        .is_ok_and(|capabilities| capabilities.get(capability).is_some())
}

/// The beginning of an upstream's text, on one line, for an error or a log line.
pub(super) fn cut(text: &str) -> String {
    let max = crate::limits::UPSTREAM_TEXT_CHARS_MAX;
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut out: String = text.trim().chars().take(max).map(plain).collect();
    if text.trim().chars().nth(max).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(kind: Kind, sent: bool) -> Trouble {
        Trouble { sent, ..Trouble::new(kind, Stage::Read, "reset") }
    }

    #[test]
    fn only_what_never_reached_the_tool_is_replayed() {
        let call = false;
        assert!(may_replay(&trouble(Kind::SessionGone, true), call));
        assert!(may_replay(&trouble(Kind::Broke, false), call));
        assert!(!may_replay(&trouble(Kind::Broke, true), call));
        assert!(may_replay(&trouble(Kind::Broke, true), true));
        assert!(!may_replay(&trouble(Kind::Nonsense, true), true));
        let late = Kind::Interrupted(Interrupted::Deadline);
        assert!(!may_replay(&trouble(late, true), true));
    }

    #[test]
    fn a_call_that_broke_off_midway_says_that_the_tool_may_have_run() {
        let server = ServerName::parse("s").unwrap();
        let error = trouble(Kind::Broke, true).into_error(&server, false);
        assert!(error.to_string().contains("the tool may have run"), "{error}");
        let error = trouble(Kind::Broke, false).into_error(&server, false);
        assert!(!error.to_string().contains("may have run"), "{error}");
    }

    #[test]
    fn a_failure_while_connecting_keeps_its_stage_in_a_handshake() {
        let refused = Trouble::new(Kind::Broke, Stage::Connect, "refused").in_handshake();
        assert_eq!(refused.stage, Stage::Connect);
        assert_eq!(trouble(Kind::Broke, true).in_handshake().stage, Stage::Handshake);
        assert!(!trouble(Kind::Broke, true).in_handshake().sent);
    }

    #[test]
    fn a_refused_handshake_says_why() {
        let error = RpcError::new(-32602, "Unsupported protocol version");
        let trouble = read_handshake(Err(error)).unwrap_err();
        assert!(trouble.message.contains("Unsupported protocol version"));
        let raw = Raw::from_valid(r#"{"protocolVersion":"1999-01-01"}"#.to_owned());
        assert!(read_handshake(Ok(raw)).unwrap_err().message.contains("1999-01-01"));
    }

    #[test]
    fn long_texts_are_cut_and_stay_on_one_line() {
        assert_eq!(cut(" a\nb "), "a b");
        assert_eq!(cut(&"x".repeat(300)).chars().count(), 201);
    }
}
