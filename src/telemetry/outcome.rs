//! Pure: the words by which lines, metrics and spans tell requests apart. Fixed sets: nothing of a
//! client's text becomes a label.

use crate::error::CallError;
use crate::protocol::jsonrpc::code;

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// A result.
    Ok,
    /// A result of a tool that says of itself that it is an error.
    ToolError,
    /// The client asked for what cannot be.
    ClientError,
    /// The upstream failed, or is down.
    UpstreamError,
    /// The upstream did not answer in time.
    Timeout,
    /// A bound is reached, or the gateway could not.
    Overloaded,
    /// The client no longer wanted it.
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

    /// The word for it.
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

    /// What a failure of a call is.
    pub fn of_failure(error: &CallError) -> CallOutcome {
        match error {
            CallError::Invalid(_)
            | CallError::Unknown { .. }
            | CallError::UnknownServer { .. }
            | CallError::Ambiguous { .. }
            | CallError::RateLimited { .. } => Self::ClientError,
            CallError::Withheld { .. }
            | CallError::UpstreamFailed { .. }
            | CallError::UpstreamDown { .. } => Self::UpstreamError,
            CallError::UpstreamTimeout { .. } => Self::Timeout,
            CallError::Overloaded { .. } | CallError::ShuttingDown | CallError::Internal => {
                Self::Overloaded
            }
            CallError::Cancelled => Self::Cancelled,
        }
    }

    /// What an error is that an upstream answered with: wrong arguments are the client's fault.
    pub fn of_answer(rpc_code: i64) -> CallOutcome {
        if rpc_code == code::INVALID_PARAMS { Self::ClientError } else { Self::UpstreamError }
    }

    /// Its place among [`CallOutcome::ALL`].
    pub(super) fn index(self) -> usize {
        Self::ALL.iter().position(|it| *it == self).unwrap_or_default()
    }
}

/// How a request came in.
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

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Sse => "sse",
            Self::Streamable => "streamable",
            Self::Modern => "modern",
            Self::Stdio => "stdio",
        }
    }

    /// The era of who comes by it; REST has none, and on standard input come both.
    pub fn era(self) -> Option<&'static str> {
        match self {
            Self::Rest | Self::Stdio => None,
            Self::Sse | Self::Streamable => Some("legacy"),
            Self::Modern => Some("modern"),
        }
    }

    /// Its place among [`Door::ALL`].
    pub(super) fn index(self) -> usize {
        Self::ALL.iter().position(|it| *it == self).unwrap_or_default()
    }
}
