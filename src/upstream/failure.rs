//! Pure: first contact as values, in both eras, why an attempt failed, and which failures may be
//! followed by a second attempt.

use std::time::Duration;

use crate::error::{CallError, HttpRefusal, MAY_HAVE_RUN, RETIRED, STOPPED, Stage};
use crate::protocol::call::{About, Outgoing};
use crate::protocol::jsonrpc::{self, RequestId, RpcError, code};
use crate::protocol::legacy::{self, Initialized};
use crate::protocol::method::{Method, notification};
use crate::protocol::modern;
use crate::protocol::raw::{Raw, RawObject};
use crate::protocol::revision::{Era, Revision};
use crate::protocol::server_name::ServerName;
use crate::telemetry::redact::excerpt;
use crate::wait::Interrupted;

use super::transport::refused_status::is_of_the_moment;

/// Why one attempt to use an upstream failed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) stage: Stage,
    /// For people; ends without a full stop. May quote the upstream, and with that a secret:
    /// see `SessionContext::scrubbed`.
    pub(crate) message: String,
    /// Whether a byte of the request has left.
    pub(crate) sent: bool,
    /// For how long what was waited for had been starting, where the wait ended during that.
    pub(crate) starting: Option<Duration>,
    /// What a refusal over HTTP says besides. May quote a secret, too.
    pub(crate) refusal: Option<Box<HttpRefusal>>,
}

/// What a failure means for what comes next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FailureKind {
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

/// What a refusal says of the upstream itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// `initialize` was refused in a way that hints at the older transport (2025-11-25,
    /// basic/transports, Backwards Compatibility).
    MaybeHttpSse,
    /// As one of the other era refuses: the request has not reached what it was for
    /// (2026-07-28, basic/versioning, Backward Compatibility).
    OtherEra,
    /// The upstream has turned out to keep no sessions: nothing was sent over a client's own.
    Stateless,
    Plain,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, stage: Stage, message: impl Into<String>) -> Failure {
        let mut message = message.into();
        // What others say may end with one.
        if message.ends_with('.') && !message.ends_with("..") {
            message.pop();
        }
        Failure { kind, stage, message, sent: false, starting: None, refusal: None }
    }

    pub(crate) fn nonsense(message: impl Into<String>) -> Failure {
        Failure { sent: true, ..Failure::new(FailureKind::Nonsense, Stage::Parse, message) }
    }

    pub(crate) fn interrupted(reason: Interrupted, stage: Stage, sent: bool) -> Failure {
        let message = match reason {
            Interrupted::Deadline => "no answer in time",
            Interrupted::Cancelled | Interrupted::ClientGone => "cancelled",
            Interrupted::Stopping => STOPPED,
            Interrupted::Retired => RETIRED,
        };
        Failure { sent, ..Failure::new(FailureKind::Interrupted(reason), stage, message) }
    }

    /// What it is when it happens while a session is opened: how far the opening came is told,
    /// and nothing of the call itself was sent.
    pub(crate) fn in_handshake(self) -> Failure {
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
        Failure { stage, sent: false, ..self }
    }

    /// See [`HttpRefusal::asked_pause`].
    pub(crate) fn asked_pause(&self) -> Option<Duration> {
        self.refusal.as_ref()?.asked_pause()
    }

    /// Whether a refusal over HTTP is about who asks, or how often, or about how the server is at
    /// present.
    pub(crate) fn is_of_the_moment(&self) -> bool {
        self.refusal.as_ref().is_some_and(|refusal| {
            refusal.retry_after.is_some() || is_of_the_moment(refusal.status)
        })
    }

    /// Whether a server that was asked for a session refused it as one that has none.
    pub(crate) fn refuses_sessions(&self) -> bool {
        match self.kind {
            FailureKind::Refused(Refusal::OtherEra | Refusal::MaybeHttpSse) => {
                !self.is_of_the_moment()
            }
            FailureKind::Refused(Refusal::Plain | Refusal::Stateless)
            | FailureKind::Interrupted(_)
            | FailureKind::SessionGone
            | FailureKind::Broke
            | FailureKind::Nonsense
            | FailureKind::Overloaded => false,
        }
    }

    /// Whether the request went nowhere, because the upstream keeps no session for a client.
    pub(crate) fn is_stateless(&self) -> bool {
        self.kind == FailureKind::Refused(Refusal::Stateless)
    }

    /// Whether it is the end of a call that has waited for a session, and not for an answer.
    pub(crate) fn is_late_start(&self) -> bool {
        let is_late = self.kind == FailureKind::Interrupted(Interrupted::Deadline);
        is_late && !self.sent && self.stage != Stage::Slot
    }

    /// What the caller of `method` is told.
    pub(crate) fn into_error(self, server: &ServerName, is_safe_to_repeat: bool) -> CallError {
        let message = match self.kind {
            FailureKind::Interrupted(Interrupted::Deadline) => {
                return CallError::UpstreamTimeout {
                    server: server.clone(),
                    stage: self.stage,
                    allowed: None,
                    starting: self.starting,
                    may_have_run: self.sent && !is_safe_to_repeat,
                };
            }
            FailureKind::Interrupted(Interrupted::Retired | Interrupted::Stopping)
                if self.sent && !is_safe_to_repeat =>
            {
                format!("{}; {MAY_HAVE_RUN}", self.message)
            }
            // Whoever was told that nothing was begun would be right to ask again.
            FailureKind::Interrupted(Interrupted::Stopping) if self.sent => {
                format!("{}; the request was sent", self.message)
            }
            FailureKind::Interrupted(Interrupted::Retired) => self.message,
            FailureKind::Interrupted(reason) => {
                return CallError::interrupted(reason, server, self.stage);
            }
            FailureKind::Overloaded => return CallError::Overloaded { what: self.message },
            FailureKind::Broke if self.sent && !is_safe_to_repeat => format!(
                "the connection broke off after the request was sent; the tool may have run \
                 ({})",
                self.message
            ),
            FailureKind::SessionGone
            | FailureKind::Broke
            | FailureKind::Refused(_)
            | FailureKind::Nonsense => self.message,
        };
        let (server, stage, refusal) = (server.clone(), self.stage, self.refusal);
        CallError::UpstreamFailed { server, stage, message, refusal }
    }
}

/// What was meant as an answer, and is none.
pub(crate) fn malformed(what: &str) -> Failure {
    Failure::nonsense(format!("its answer is no message: {}", cut(what)))
}

/// Whether a request that failed may be sent a second time: only if it never reached the tool,
/// or does no more when it is done twice.
pub(crate) fn may_replay(failure: &Failure, is_safe_to_repeat: bool) -> bool {
    match failure.kind {
        FailureKind::SessionGone => true,
        FailureKind::Broke => !failure.sent || is_safe_to_repeat,
        FailureKind::Interrupted(_)
        | FailureKind::Refused(_)
        | FailureKind::Nonsense
        | FailureKind::Overloaded => false,
    }
}

/// The text of `initialize` as the gateway sends it, for a client with these capabilities.
pub(crate) fn initialize(id: u64, capabilities: &str) -> String {
    let params = legacy::initialize_params(Revision::LATEST_LEGACY, capabilities);
    jsonrpc::request(&RequestId::from(id), Method::Initialize.as_str(), Some(&params))
}

/// The text that ends the handshake.
pub(crate) fn initialized() -> String {
    jsonrpc::notification(notification::INITIALIZED, None)
}

/// The text that tells an upstream that nobody wants the answer to `id` any more.
pub(crate) fn cancelled(id: u64, reason: Interrupted) -> String {
    let reason = match reason {
        Interrupted::Cancelled => "the client cancelled the request",
        Interrupted::ClientGone => "the client has gone",
        Interrupted::Deadline => "the time for the call is over",
        Interrupted::Stopping => "the gateway is stopping",
        Interrupted::Retired => "the configuration of this server has changed",
    };
    let params = format!("{{\"requestId\":{id},\"reason\":\"{reason}\"}}");
    jsonrpc::notification(notification::CANCELLED, Some(&params))
}

/// The text that ends a `subscriptions/listen` request in whose place another one is.
pub(crate) fn superseded(id: u64) -> String {
    let params = format!("{{\"requestId\":{id},\"reason\":\"another one is in its place\"}}");
    jsonrpc::notification(notification::CANCELLED, Some(&params))
}

/// Reads the answer to `initialize`.
pub(crate) fn read_handshake(outcome: Result<Raw, RpcError>) -> Result<Initialized, Failure> {
    match outcome {
        Ok(result) => legacy::read_initialize_result(result.get()).map_err(|what| {
            Failure::nonsense(format!("its answer to initialize is not acceptable: {what}"))
        }),
        Err(error) => {
            let what =
                format!("it refused initialize: {} ({})", cut(&error.message), error.code);
            let is_other_era = knows_no_initialize(&error);
            let refusal = if is_other_era { Refusal::OtherEra } else { Refusal::Plain };
            Err(Failure::new(FailureKind::Refused(refusal), Stage::Handshake, what))
        }
    }
}

/// Whether only a server without sessions refuses `initialize` so: it does not know the method or
/// the revision, or misses the `_meta` that its own requests have.
fn knows_no_initialize(error: &RpcError) -> bool {
    let names_meta = |words: &str| error.message.contains(words);
    let misses_meta = error.code == code::INVALID_PARAMS
        && ["io.modelcontextprotocol/", "_meta"].into_iter().any(names_meta);
    let codes = [code::METHOD_NOT_FOUND, code::UNSUPPORTED_PROTOCOL_VERSION];
    misses_meta || codes.contains(&error.code)
}

/// The text of `server/discover` as the gateway sends it.
pub(crate) fn discover(id: u64) -> String {
    let outgoing = Outgoing {
        method: Method::ServerDiscover.as_str(),
        is_safe_to_repeat: true,
        params: RawObject::default(),
        meta: None,
        wants_progress: false,
        about: About::default(),
        charged: None,
        mirrored: Vec::new(),
    };
    outgoing.to_modern_message(&RequestId::from(id))
}

/// What is assumed of a modern server that does not say what it has.
const ASSUMED: &str = r#"{"tools":{},"prompts":{},"resources":{},"completions":{}}"#;

/// Reads the answer to `server/discover`. Whatever only a modern server says means that it is
/// one (2026-07-28, basic/versioning, Backward Compatibility).
pub(crate) fn read_discovery(outcome: Result<Raw, RpcError>) -> Result<Initialized, Failure> {
    let other_era = |what: String| {
        Failure::new(FailureKind::Refused(Refusal::OtherEra), Stage::Handshake, what)
    };
    let error = match outcome {
        Ok(result) => {
            let read = modern::read_discover_result(result.get());
            return match read {
                Ok(Some(initialized)) => Ok(initialized),
                Ok(None) => Err(other_era(format!(
                    "it does not speak {}",
                    Revision::LATEST_MODERN.as_str()
                ))),
                Err(what) => Err(other_era(format!(
                    "its answer to server/discover is not acceptable: {what}"
                ))),
            };
        }
        Err(error) => error,
    };
    let what = format!("it refused server/discover: {} ({})", cut(&error.message), error.code);
    if !modern::is_modern_error(error.code) {
        return Err(other_era(what));
    }
    if error.code == code::UNSUPPORTED_PROTOCOL_VERSION {
        let supported = supported(&error);
        let lists = |revision: Revision| supported.iter().any(|it| it == revision.as_str());
        if Revision::ALL.into_iter().any(|it| it.era() == Era::Legacy && lists(it)) {
            return Err(other_era(what));
        }
        if !lists(Revision::LATEST_MODERN) {
            return Err(Failure::new(
                FailureKind::Refused(Refusal::Plain),
                Stage::Handshake,
                what,
            ));
        }
    }
    Ok(Initialized {
        revision: Revision::LATEST_MODERN,
        capabilities: Raw::from_valid(ASSUMED.to_owned()),
        server_info: None,
        instructions: None,
        cut: Vec::new(),
    })
}

/// The revisions that a refusal says are served.
fn supported(error: &RpcError) -> Vec<String> {
    let data = error.data.as_ref().and_then(|data| RawObject::parse(data.get()).ok());
    let list = data.and_then(|data| serde_json::from_str(data.get("supported")?).ok());
    list.unwrap_or_default()
}

/// Whether the server declares a capability.
pub(crate) fn declares(initialized: &Initialized, capability: &str) -> bool {
    crate::protocol::raw::RawObject::parse(initialized.capabilities.get())
        .is_ok_and(|capabilities| capabilities.get(capability).is_some())
}

/// What it says of itself, with tools declared.
pub(crate) fn with_tools(initialized: &Initialized) -> Initialized {
    let mut declared = initialized.clone();
    if let Ok(mut capabilities) = RawObject::parse(initialized.capabilities.get()) {
        capabilities.set("tools", "{}".to_owned());
        declared.capabilities = Raw::from_valid(capabilities.to_text());
    }
    declared
}

/// The beginning of an upstream's text, on one line, for an error or a log line.
pub(crate) fn cut(text: &str) -> String {
    excerpt(text, crate::limits::UPSTREAM_TEXT_CHARS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::RetryAfter;

    fn failure(kind: FailureKind, sent: bool) -> Failure {
        Failure { sent, ..Failure::new(kind, Stage::Read, "reset") }
    }

    #[test]
    fn only_what_never_reached_the_tool_is_replayed() {
        let call = false;
        assert!(may_replay(&failure(FailureKind::SessionGone, true), call));
        assert!(may_replay(&failure(FailureKind::Broke, false), call));
        assert!(!may_replay(&failure(FailureKind::Broke, true), call));
        assert!(may_replay(&failure(FailureKind::Broke, true), true));
        assert!(!may_replay(&failure(FailureKind::Nonsense, true), true));
        let late = FailureKind::Interrupted(Interrupted::Deadline);
        assert!(!may_replay(&failure(late, true), true));
    }

    #[test]
    fn a_call_that_broke_off_midway_says_that_the_tool_may_have_run() {
        let server = ServerName::parse("s").unwrap();
        let error = failure(FailureKind::Broke, true).into_error(&server, false);
        assert!(error.to_string().contains("the tool may have run"), "{error}");
        let error = failure(FailureKind::Broke, false).into_error(&server, false);
        assert!(!error.to_string().contains("may have run"), "{error}");
    }

    #[test]
    fn a_failure_while_connecting_keeps_its_stage_in_a_handshake() {
        let refused =
            Failure::new(FailureKind::Broke, Stage::Connect, "refused").in_handshake();
        assert_eq!(refused.stage, Stage::Connect);
        assert_eq!(failure(FailureKind::Broke, true).in_handshake().stage, Stage::Handshake);
        assert!(!failure(FailureKind::Broke, true).in_handshake().sent);
    }

    #[test]
    fn a_refused_handshake_says_why() {
        let error = RpcError::new(-32602, "Unsupported protocol version");
        let failure = read_handshake(Err(error)).unwrap_err();
        assert!(failure.message.contains("Unsupported protocol version"));
        assert!(!failure.refuses_sessions(), "it may be about this client");
        let unknown = RpcError::new(code::METHOD_NOT_FOUND, "no such method");
        assert!(read_handshake(Err(unknown)).unwrap_err().refuses_sessions());
        let raw = Raw::from_valid(r#"{"protocolVersion":"1999-01-01"}"#.to_owned());
        assert!(read_handshake(Ok(raw)).unwrap_err().message.contains("1999-01-01"));
    }

    #[test]
    fn only_refusals_that_stay_so_say_that_there_are_no_sessions() {
        let refused = |refusal, status, retry_after| {
            let head = HttpRefusal { status, www_authenticate: None, retry_after };
            let failure = failure(FailureKind::Refused(refusal), true);
            Failure { refusal: Some(Box::new(head)), ..failure }.refuses_sessions()
        };
        assert!(refused(Refusal::MaybeHttpSse, 405, None));
        assert!(refused(Refusal::OtherEra, 400, None));
        for status in [401, 429, 503] {
            assert!(!refused(Refusal::Plain, status, None));
            assert!(!refused(Refusal::OtherEra, status, None));
        }
        assert!(!refused(Refusal::MaybeHttpSse, 400, Some(RetryAfter::Seconds(1))));
    }

    #[test]
    fn what_server_discover_is_answered_with_tells_the_era() {
        let revision = |outcome| read_discovery(outcome).map(|it| it.revision);
        let result = |versions: &str| {
            let text = format!(r#"{{"supportedVersions":{versions},"capabilities":{{}}}}"#);
            Ok(Raw::from_valid(text))
        };
        let refused = |code: i64, supported: &str| {
            let data = format!(r#"{{"supported":{supported}}}"#);
            Err(RpcError { data: Some(Raw::from_valid(data)), ..RpcError::new(code, "no") })
        };
        let (old, new) = (Revision::LATEST_LEGACY, Revision::LATEST_MODERN);
        let (both, only_old) = (format!("[\"{new}\",\"{old}\"]"), format!("[\"{old}\"]"));
        let unsupported = code::UNSUPPORTED_PROTOCOL_VERSION;
        for modern in [
            result(&both),
            refused(code::HEADER_MISMATCH, "[]"),
            refused(code::MISSING_CLIENT_CAPABILITY, "[]"),
            refused(unsupported, &format!("[\"{new}\"]")),
        ] {
            assert_eq!(revision(modern), Ok(new));
        }
        for legacy in [
            result(&only_old),
            result("7"),
            refused(unsupported, &only_old),
            refused(code::METHOD_NOT_FOUND, "[]"),
            refused(code::INVALID_PARAMS, "[]"),
            refused(code::BAD_REQUEST, "[]"),
        ] {
            let kind = revision(legacy).unwrap_err().kind;
            assert_eq!(kind, FailureKind::Refused(Refusal::OtherEra));
        }
        let neither = revision(refused(unsupported, "[\"2099-01-01\"]")).unwrap_err();
        assert_eq!(neither.kind, FailureKind::Refused(Refusal::Plain));
    }

    #[test]
    fn long_texts_are_cut_and_stay_on_one_line() {
        assert_eq!(cut(" a\nb "), "a b");
        assert_eq!(cut(&"x".repeat(300)).chars().count(), 201);
    }

    #[test]
    fn only_what_was_sent_may_have_run_and_a_sentence_ends_once() {
        let server = ServerName::parse("s").unwrap();
        let told = |reason, sent, is_safe| {
            let failure = Failure::interrupted(reason, Stage::Answer, sent);
            failure.into_error(&server, is_safe).to_string()
        };
        for reason in [Interrupted::Deadline, Interrupted::Retired, Interrupted::Stopping] {
            assert!(told(reason, true, false).ends_with("the tool may have run."));
            assert!(!told(reason, false, false).contains("may have run"));
            assert!(!told(reason, true, true).contains("may have run"));
        }
        let stopped = |sent, is_safe| {
            let failure = Failure::interrupted(Interrupted::Stopping, Stage::Answer, sent);
            failure.into_error(&server, is_safe)
        };
        for is_safe in [true, false] {
            assert_eq!(stopped(false, is_safe), CallError::ShuttingDown);
            assert!(matches!(stopped(true, is_safe), CallError::UpstreamFailed { .. }));
        }
        let quoted = Failure::nonsense("no message: The message is no JSON: line 1 column 11.");
        let told = quoted.into_error(&server, false).to_string();
        assert!(told.ends_with("column 11."), "{told}");
    }
}
