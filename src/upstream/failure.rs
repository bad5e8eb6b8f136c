//! Pure: why an attempt to use a server failed, whose fault that is, and which failures may be
//! followed by a second attempt.

use std::time::Duration;

use crate::error::{CallError, HttpRefusal, MAY_HAVE_RUN, RETIRED, STOPPED, Stage};
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
    /// True if a byte of the request has been sent.
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
    /// There is no access token with which the upstream could be asked; it has not done what was
    /// asked.
    Unauthorized(Unauthorized),
    /// The answer makes no sense, or is larger than a bound.
    Nonsense,
    /// A bound of the gateway's own was reached; the message names it.
    Overloaded,
}

/// Why there is no access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unauthorized {
    /// A person must sign in.
    NeedsSignIn,
    /// A person is signing in.
    SigningIn,
    /// The authorization server gives none at present.
    Unavailable,
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

    /// Its answer is larger than `limits.upstream_result_bytes`, which is so many.
    pub(crate) fn too_large(bytes_max: usize) -> Failure {
        let what = format!(
            "its answer is larger than limits.upstream_result_bytes ({bytes_max} bytes)"
        );
        Failure { stage: Stage::Read, ..Failure::nonsense(what) }
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
            Stage::Resolve
            | Stage::Spawn
            | Stage::Connect
            | Stage::Tls
            | Stage::Authorization => self.stage,
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

    /// True if a person is signing in, and the same may go well soon.
    pub(crate) fn is_of_sign_in_under_way(&self) -> bool {
        self.kind == FailureKind::Unauthorized(Unauthorized::SigningIn)
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
            | FailureKind::Unauthorized(_)
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
            FailureKind::Unauthorized(
                kind @ (Unauthorized::NeedsSignIn | Unauthorized::SigningIn),
            ) => {
                return CallError::NeedsSignIn {
                    server: server.clone(),
                    message: self.message,
                    page: None,
                    is_under_way: kind == Unauthorized::SigningIn,
                };
            }
            FailureKind::Broke if self.sent && !is_safe_to_repeat => format!(
                "the connection broke off after the request was sent; the tool may have run \
                 ({})",
                self.message
            ),
            FailureKind::SessionGone
            | FailureKind::Broke
            | FailureKind::Refused(_)
            | FailureKind::Unauthorized(Unauthorized::Unavailable)
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
