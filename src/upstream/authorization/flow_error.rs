//! Pure: why an access token could not be had: the step, with whom, and what follows.

use std::fmt;

use crate::oauth::fetch::FetchError;
use crate::oauth::token::{TokenError, TokenErrorKind};
use crate::oauth::unusable::Unusable;
use crate::telemetry::redact::Secrets;

/// The steps to an access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FlowStep {
    /// Finding the authorization server.
    Discovery,
    /// Becoming known to it.
    Registration,
    /// The sign-in of a person.
    Authorization,
    /// The token request.
    Token,
    /// Keeping what was given.
    Keeping,
}

impl FlowStep {
    fn as_str(self) -> &'static str {
        match self {
            Self::Discovery => "discovery",
            Self::Registration => "registration",
            Self::Authorization => "authorization",
            Self::Token => "token request",
            Self::Keeping => "keeping the tokens",
        }
    }
}

/// The way on after a failed step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// The same may work later.
    TryLater,
    /// A person must sign in anew: what was kept is used up.
    SignInAnew,
    /// A person may have more by a sign-in; what was kept is not used up.
    AskPerson,
    /// The registration does not count any more.
    RegisterAnew,
    /// Somebody must change the configuration or a server.
    Nothing,
}

/// Why an access token could not be had. The text holds no secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FlowError {
    pub(super) step: FlowStep,
    /// The authorization server or the server, by its origin.
    pub(super) with: String,
    pub(super) what: String,
    pub(super) remedy: Remedy,
}

impl FlowError {
    pub(super) fn new(
        step: FlowStep,
        with: impl Into<String>,
        what: impl Into<String>,
        remedy: Remedy,
    ) -> FlowError {
        FlowError { step, with: with.into(), what: what.into(), remedy }
    }

    /// The error without secrets that its text may repeat.
    pub(super) fn without(self, secrets: &Secrets) -> FlowError {
        FlowError { what: secrets.scrub_cut(&self.what).into_owned(), ..self }
    }

    /// A request that had no answer.
    pub(super) fn unanswered(step: FlowStep, with: &str, error: FetchError) -> FlowError {
        match error {
            FetchError::Refused(what) => FlowError::new(step, with, what, Remedy::Nothing),
            FetchError::Failed(what) => FlowError::new(step, with, what, Remedy::TryLater),
        }
    }

    /// Something that cannot be used.
    pub(super) fn unusable(step: FlowStep, with: &str, error: Unusable) -> FlowError {
        FlowError::new(step, with, error.to_string(), Remedy::Nothing)
    }

    /// An error of a token endpoint.
    pub(super) fn of_token(with: &str, error: TokenError) -> FlowError {
        let remedy = match error.kind {
            TokenErrorKind::InvalidGrant => Remedy::SignInAnew,
            TokenErrorKind::InvalidClient => Remedy::RegisterAnew,
            TokenErrorKind::Unavailable => Remedy::TryLater,
            TokenErrorKind::UnauthorizedClient | TokenErrorKind::WantsPerson => {
                Remedy::AskPerson
            }
            TokenErrorKind::InvalidScope
            | TokenErrorKind::InvalidTarget
            | TokenErrorKind::UseDpopNonce
            | TokenErrorKind::Refused
            | TokenErrorKind::Unreadable => Remedy::Nothing,
        };
        FlowError::new(FlowStep::Token, with, error.text, remedy)
    }
}

impl fmt::Display for FlowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FlowError { step, with, what, .. } = self;
        if with.is_empty() {
            return write!(f, "{}: {what}", step.as_str());
        }
        write!(f, "{} at {with}: {what}", step.as_str())
    }
}
