//! Pure: the words by which lines, metrics and spans classify requests. The sets are fixed: no
//! part of a client's text becomes a label.

use crate::error::CallError;
use crate::protocol::jsonrpc::code;

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// A result.
    Ok,
    /// A result of a tool that is marked as an error.
    ToolError,
    /// The client asked for something invalid.
    ClientError,
    /// The server failed, or is down.
    UpstreamError,
    /// The server did not answer in time.
    Timeout,
    /// A bound is reached, or the gateway failed.
    Overloaded,
    /// The client cancelled the request.
    Cancelled,
}

impl CallOutcome {
    /// Every outcome.
    pub const ALL: [CallOutcome; 7] = [
        Self::Ok,
        Self::ToolError,
        Self::ClientError,
        Self::UpstreamError,
        Self::Timeout,
        Self::Overloaded,
        Self::Cancelled,
    ];

    /// The outcome's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ToolError => "tool_error",
            Self::ClientError => "client_error",
            Self::UpstreamError => "upstream_error",
            Self::Timeout => "timeout",
            Self::Overloaded => "overloaded",
            Self::Cancelled => "cancelled",
        }
    }

    /// The outcome of a call that failed.
    pub fn of_failure(error: &CallError) -> CallOutcome {
        match error {
            CallError::Invalid(_)
            | CallError::Unknown { .. }
            | CallError::UnknownServer { .. }
            | CallError::Ambiguous { .. }
            | CallError::RateLimited { .. } => Self::ClientError,
            CallError::Withheld { .. }
            | CallError::UpstreamFailed { .. }
            | CallError::NeedsSignIn { .. }
            | CallError::UpstreamDown { .. } => Self::UpstreamError,
            CallError::UpstreamTimeout { .. } => Self::Timeout,
            CallError::Overloaded { .. } | CallError::ShuttingDown | CallError::Internal => {
                Self::Overloaded
            }
            CallError::Cancelled => Self::Cancelled,
        }
    }

    /// The outcome for a server's error: wrong arguments are the client's fault.
    pub fn of_answer(rpc_code: i64) -> CallOutcome {
        if rpc_code == code::INVALID_PARAMS { Self::ClientError } else { Self::UpstreamError }
    }

    /// The index in [`CallOutcome::ALL`].
    pub(super) fn index(self) -> usize {
        Self::ALL.iter().position(|it| *it == self).unwrap_or_default()
    }
}

/// The way by which a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// REST, either dialect.
    Rest,
    /// HTTP+SSE.
    Sse,
    /// Streamable HTTP with a session.
    Streamable,
    /// A stateless request.
    Modern,
    /// Standard input.
    Stdio,
}

impl Door {
    /// Every door.
    pub const ALL: [Door; 5] =
        [Self::Rest, Self::Sse, Self::Streamable, Self::Modern, Self::Stdio];

    /// The door's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Sse => "sse",
            Self::Streamable => "streamable",
            Self::Modern => "modern",
            Self::Stdio => "stdio",
        }
    }

    /// The era of requests by this door; REST has none, and on standard input come both.
    pub fn era(self) -> Option<&'static str> {
        match self {
            Self::Rest | Self::Stdio => None,
            Self::Sse | Self::Streamable => Some("legacy"),
            Self::Modern => Some("modern"),
        }
    }

    /// The index in [`Door::ALL`].
    pub(super) fn index(self) -> usize {
        Self::ALL.iter().position(|it| *it == self).unwrap_or_default()
    }
}
