//! Failures of calls, and who is to blame.

use std::fmt;
use std::time::Duration;

use crate::protocol::call::Kind;
use crate::protocol::server_name::ServerName;
use crate::wait::Interrupted;

/// The side that is to blame for a failure. It decides the metric's label and the log level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client asked for something invalid.
    Downstream,
    /// A server behind the gateway failed.
    Upstream,
    /// The gateway failed.
    Gateway,
}

/// The stage that an attempt to use a server reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Looking up the host's address.
    Resolve,
    /// Starting the child.
    Spawn,
    /// Opening the connection.
    Connect,
    /// Securing the connection.
    Tls,
    /// Getting an access token.
    Authorization,
    /// Opening a session.
    Handshake,
    /// Waiting for a permit of the server's bounded calls.
    Slot,
    /// Sending the request.
    Send,
    /// Waiting for the answer to begin.
    Answer,
    /// Reading the answer.
    Read,
    /// Parsing the answer.
    Parse,
    /// Reading the server's lists.
    List,
}

impl Stage {
    /// The word for logs, errors and `/status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Spawn => "spawn",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Authorization => "authorization",
            Self::Handshake => "handshake",
            Self::Slot => "slot",
            Self::Send => "send",
            Self::Answer => "answer",
            Self::Read => "read",
            Self::Parse => "parse",
            Self::List => "list",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The time that a call was allowed to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// The time.
    pub time: Duration,
    /// The source of that time: a key of the configuration, or the caller.
    pub by: &'static str,
}

/// The head of a server's refusal for the client, without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRefusal {
    /// The HTTP status.
    pub status: u16,
    /// The `WWW-Authenticate` header, which asks for credentials.
    pub www_authenticate: Option<String>,
    /// The `Retry-After` header.
    pub retry_after: Option<RetryAfter>,
}

impl HttpRefusal {
    /// True if the refusal holds more than a JSON-RPC error does.
    pub fn says_more(&self) -> bool {
        self.www_authenticate.is_some() || self.retry_after.is_some()
    }

    /// The pause that the server asks for, if it is given in seconds. A date is for people and
    /// clients: it would have to be compared with a clock that is not the server's.
    pub fn asked_pause(&self) -> Option<Duration> {
        match self.retry_after.as_ref()? {
            RetryAfter::Seconds(seconds) => Some(Duration::from_secs(u64::from(*seconds))),
            RetryAfter::Date(_) => None,
        }
    }
}

/// The time to ask again (RFC 9110, section 10.2.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetryAfter {
    /// This many seconds from now.
    Seconds(u32),
    /// A date as HTTP writes it.
    Date(String),
}

impl RetryAfter {
    /// Reads the header's value; none if it is invalid.
    pub fn parse(text: &str) -> Option<RetryAfter> {
        let text = text.trim();
        if let Ok(seconds) = text.parse() {
            return Some(Self::Seconds(seconds));
        }
        // The form is that of `Sun, 06 Nov 1994 08:49:37 GMT`.
        let is_date = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | ',' | ':');
        let is_date = text.len() == 29 && text.ends_with(" GMT") && text.chars().all(is_date);
        is_date.then(|| Self::Date(text.to_owned()))
    }
}

impl fmt::Display for RetryAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seconds(seconds) => write!(f, "{seconds}"),
            Self::Date(date) => f.write_str(date),
        }
    }
}

/// The reason why an item with a pin is withheld.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinCause {
    /// The item has changed.
    Changed,
    /// The item is not accepted yet.
    NotAccepted,
    /// The pin was lost.
    Lost,
    /// The server has more items than can be pinned.
    TooMany,
}

impl fmt::Display for PinCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Changed => "its definition has changed since it was pinned",
            Self::NotAccepted => "it is new, and not pinned yet",
            Self::Lost => "what was pinned of this server is lost",
            Self::TooMany => "its server has more than can be pinned",
        })
    }
}

/// The reason why a call has no outcome.
#[derive(Debug, Clone, PartialEq)]
pub enum CallError {
    /// The request itself is wrong; the text gives the reason.
    Invalid(String),
    /// There is no item of that name or URI for this caller.
    Unknown {
        /// The kind of the item.
        kind: Kind,
        /// The name as the client wrote it.
        name: String,
        /// Offered names that are close to it.
        near: Vec<String>,
    },
    /// There is no server of that name for this caller.
    UnknownServer {
        /// The name as the client wrote it.
        name: String,
        /// Names that are close to it.
        near: Vec<String>,
    },
    /// Several servers have the bare name.
    Ambiguous {
        /// The kind of the item.
        kind: Kind,
        /// The name as the client wrote it.
        name: String,
        /// The offered names to choose from.
        candidates: Vec<String>,
    },
    /// The key's calls for this minute are spent.
    RateLimited {
        /// The time until the next call.
        retry_after: Duration,
    },
    /// The item has changed since it was pinned, or waits to be pinned.
    Withheld {
        /// The item's server.
        server: ServerName,
        /// The item's kind.
        kind: Kind,
        /// The item's own name.
        name: String,
        /// The reason.
        cause: PinCause,
    },
    /// The server refused, broke off or answered nonsense.
    UpstreamFailed {
        /// The server.
        server: ServerName,
        /// The stage of the failure.
        stage: Stage,
        /// The failure.
        message: String,
        /// The details of a refusal over HTTP.
        refusal: Option<Box<HttpRefusal>>,
    },
    /// Somebody must sign in at the server first; it has not done what was asked.
    NeedsSignIn {
        /// The server.
        server: ServerName,
        /// Why, and what to do.
        message: String,
        /// The URL in `message` of the page where the caller signs in, if it has one: it is the
        /// caller's alone.
        page: Option<String>,
        /// True if a person is signing in, so that the same call may go well soon.
        is_under_way: bool,
    },
    /// The server has failed again and again: the request was not sent.
    UpstreamDown {
        /// The server.
        server: ServerName,
        /// The stage of the last failure.
        stage: Stage,
        /// The last failure.
        message: String,
        /// The time since when the server is down, in RFC 3339.
        since: String,
        /// Time until the next attempt; zero while it is made.
        next_try: Duration,
    },
    /// The server did not answer in time.
    UpstreamTimeout {
        /// The server.
        server: ServerName,
        /// The stage that the call reached.
        stage: Stage,
        /// The time that the call was allowed, where that is known.
        allowed: Option<Allowed>,
        /// The time for which the server had been starting, if it was.
        starting: Option<Duration>,
        /// True if the request was sent, and sending it twice does more than sending it once.
        may_have_run: bool,
    },
    /// A bound was reached; the text names it.
    Overloaded {
        /// The bound and, where it belongs to one, the server.
        what: String,
    },
    /// The process is stopping, and nothing was begun.
    ShuttingDown,
    /// The client no longer wants the answer.
    Cancelled,
    /// A bug.
    Internal,
}

impl CallError {
    /// The error's text for operators: without what only the caller may be told.
    pub fn for_operators(&self) -> String {
        let text = self.to_string();
        match self {
            Self::NeedsSignIn { page: Some(page), .. } => {
                text.replace(page, "the page [secret]")
            }
            Self::NeedsSignIn { page: None, .. }
            | Self::Invalid(_)
            | Self::Unknown { .. }
            | Self::UnknownServer { .. }
            | Self::Ambiguous { .. }
            | Self::RateLimited { .. }
            | Self::Withheld { .. }
            | Self::UpstreamFailed { .. }
            | Self::UpstreamDown { .. }
            | Self::UpstreamTimeout { .. }
            | Self::Overloaded { .. }
            | Self::ShuttingDown
            | Self::Cancelled
            | Self::Internal => text,
        }
    }

    /// The side that is to blame.
    pub fn side(&self) -> Side {
        match self {
            Self::Invalid(_)
            | Self::Unknown { .. }
            | Self::UnknownServer { .. }
            | Self::Ambiguous { .. }
            | Self::RateLimited { .. }
            | Self::Cancelled => Side::Downstream,
            Self::Withheld { .. }
            | Self::UpstreamFailed { .. }
            | Self::NeedsSignIn { .. }
            | Self::UpstreamDown { .. }
            | Self::UpstreamTimeout { .. } => Side::Upstream,
            Self::Overloaded { .. } | Self::ShuttingDown | Self::Internal => Side::Gateway,
        }
    }

    /// The server of the failure, if there is one.
    pub fn server(&self) -> Option<&ServerName> {
        match self {
            Self::Withheld { server, .. }
            | Self::UpstreamFailed { server, .. }
            | Self::NeedsSignIn { server, .. }
            | Self::UpstreamDown { server, .. }
            | Self::UpstreamTimeout { server, .. } => Some(server),
            Self::Invalid(_)
            | Self::Unknown { .. }
            | Self::UnknownServer { .. }
            | Self::Ambiguous { .. }
            | Self::RateLimited { .. }
            | Self::Overloaded { .. }
            | Self::ShuttingDown
            | Self::Cancelled
            | Self::Internal => None,
        }
    }

    /// The error of a wait on `server` that ended early, before the server was asked.
    pub fn interrupted(reason: Interrupted, server: &ServerName, stage: Stage) -> CallError {
        match reason {
            Interrupted::Cancelled | Interrupted::ClientGone => CallError::Cancelled,
            Interrupted::Deadline => {
                let (allowed, starting, may_have_run) = (None, None, false);
                CallError::UpstreamTimeout {
                    server: server.clone(),
                    stage,
                    allowed,
                    starting,
                    may_have_run,
                }
            }
            Interrupted::Stopping => CallError::ShuttingDown,
            Interrupted::Retired => {
                let message = RETIRED.to_owned();
                let (server, refusal) = (server.clone(), None);
                CallError::UpstreamFailed { server, stage, message, refusal }
            }
        }
    }
}

/// The reason why a reload cuts off a server's calls.
pub const RETIRED: &str = "a reload has changed or removed its configuration";
/// The reason why calls are cut off when the process stops.
pub const STOPPED: &str = "the gateway is stopping";
/// The note on a call that is cut off after its request was sent: a second call may do the work
/// twice.
pub const MAY_HAVE_RUN: &str = "the request was sent, the tool may have run";

/// A wait for clients: in whole seconds, rounded up, and at least one.
pub fn whole_seconds(wait: Duration) -> u64 {
    let begun = u64::from(wait.subsec_nanos() > 0);
    wait.as_secs().saturating_add(begun).max(1)
}

fn list(f: &mut fmt::Formatter<'_>, before: &str, names: &[String]) -> fmt::Result {
    if names.is_empty() { Ok(()) } else { write!(f, "{before}{}.", names.join(", ")) }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(what) => f.write_str(what),
            Self::Unknown { kind, name, near } => {
                write!(f, "There is no {} {name:?}.", kind.noun())?;
                list(f, " Close to it: ", near)
            }
            Self::UnknownServer { name, near } => {
                write!(f, "There is no server {name:?}.")?;
                list(f, " Close to it: ", near)
            }
            Self::Ambiguous { kind, name, candidates } => {
                write!(f, "Several servers have a {} {name:?}.", kind.noun())?;
                list(f, " Use one of: ", candidates)
            }
            Self::RateLimited { retry_after } => {
                let seconds = whole_seconds(*retry_after);
                write!(f, "This key's calls are spent; the next is due in {seconds} s.")
            }
            Self::Withheld { server, kind, name, cause } => {
                let noun = kind.noun();
                write!(
                    f,
                    "The {noun} {name:?} of the server {server} is withheld, because {cause}."
                )?;
                match cause {
                    PinCause::Changed | PinCause::NotAccepted | PinCause::Lost => write!(
                        f,
                        " To accept it as it is now, run: trunkline pins accept {server} {name:?}"
                    ),
                    PinCause::TooMany => Ok(()),
                }
            }
            Self::UpstreamFailed { server, stage, message, .. } => {
                write!(f, "The server {server} failed ({stage}): {message}.")
            }
            Self::NeedsSignIn { server, message, .. } => {
                write!(f, "The server {server} needs a sign-in: {message}.")
            }
            Self::UpstreamDown { server, stage, message, since, next_try } => {
                write!(f, "The server {server} is down since {since} ({stage}: {message}); ")?;
                match next_try.as_millis().div_ceil(1000) {
                    0 => f.write_str("it is being tried now."),
                    seconds => write!(f, "next try in {seconds} s."),
                }
            }
            Self::UpstreamTimeout { server, stage, allowed, starting, may_have_run } => {
                match starting {
                    Some(taken) => write!(
                        f,
                        "The server {server} is starting, for {} s so far, and did not answer in \
                         time ({stage})",
                        taken.as_secs()
                    )?,
                    None => write!(f, "The server {server} did not answer in time ({stage})")?,
                }
                if let Some(Allowed { time, by }) = allowed {
                    write!(f, ": {} ms were allowed by {by}", time.as_millis())?;
                }
                f.write_str(if *may_have_run { "; the tool may have run." } else { "." })
            }
            Self::Overloaded { what } => write!(f, "Too much at once: {what}."),
            Self::ShuttingDown => f.write_str("The gateway is shutting down."),
            Self::Cancelled => f.write_str("The request was cancelled."),
            Self::Internal => f.write_str("The gateway made a mistake; its log has more."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_ask_again_is_read_or_left_out() {
        assert_eq!(RetryAfter::parse(" 30 "), Some(RetryAfter::Seconds(30)));
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(RetryAfter::parse(date), Some(RetryAfter::Date(date.to_owned())));
        let long = format!("{} GMT", "x".repeat(40));
        for text in [
            "",
            "-1",
            "1.5",
            "soon",
            "99999999999",
            "\u{1}; GMT",
            "Sun, 06 Nov 1994 08:49:3\r\n GMT",
            &long,
        ] {
            assert_eq!(RetryAfter::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_wait_is_rounded_up() {
        for (ms, seconds) in [(0, 1), (1, 1), (999, 1), (1000, 1), (1001, 2), (59_001, 60)] {
            assert_eq!(whole_seconds(Duration::from_millis(ms)), seconds, "{ms} ms");
        }
    }
}
