//! How a server is reached. A [`Transport`] makes contact, and gives an open [`Channel`] over
//! which requests and notifications go. When a channel is opened, and what a failure means for it,
//! is decided in `session/`.

use std::sync::Arc;

use crate::error::Stage;
use crate::protocol::call::{CallSink, Outcome, Outgoing, PrincipalId};
use crate::protocol::legacy::Initialized;
use crate::wait::Wait;

use crate::upstream::failure::{Failure, FailureKind, Refusal};
use crate::upstream::http_client::HttpConnection;
use crate::upstream::session::negotiate::Purpose;
use crate::upstream::session::single_flight::OpenedBy;
use crate::upstream::supervisor::restarts::Lived;

pub(super) mod answer;
pub(super) mod get_stream;
pub(super) mod http;
mod http_sse;
pub(super) mod listen_stream;
pub(super) mod over_http;
pub(super) mod refused_status;
pub(super) mod stateless_http;
pub(super) mod stdio;
pub(super) mod streamable_http;
mod superseded_stream;
pub(super) mod throttle;

/// One attempt to make contact.
pub(crate) struct ConnectAttempt<'a> {
    pub(crate) purpose: Purpose,
    /// The number that the session is going to have.
    pub(crate) generation: u64,
    /// How long it may take.
    pub(crate) wait: &'a Arc<Wait>,
}

/// What came of an attempt to make contact.
pub(crate) enum Connected {
    New(Box<dyn Channel>),
    /// The server is of the era that was to be rechecked or confirmed.
    AsKnown,
}

/// A way to reach a server.
pub(crate) trait Transport: Send + Sync {
    /// Asks the server what it speaks, as far as that is not known, and makes contact.
    ///
    /// # Errors
    /// Why there is no contact. Where several questions were asked, the one that tells most.
    fn connect(
        &self,
        connecting: &ConnectAttempt<'_>,
        connection: &mut HttpConnection,
    ) -> Result<Connected, Failure>;

    /// Who opens a session that is missing.
    fn opener(&self) -> OpenedBy {
        OpenedBy::Calls
    }

    /// The word for `/status`; none while it is to be found out.
    fn word(&self) -> Option<&'static str>;

    /// Nothing is said to the server any more.
    fn close(&self) {}
}

/// Why a channel is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closing {
    /// It has failed, or another one has taken its place.
    Forgotten,
    /// It was opened, and nobody is going to use it.
    Unused,
    /// The session ends.
    Ended,
}

/// One request to be sent once.
#[derive(Clone, Copy)]
pub(crate) struct RequestAttempt<'a> {
    pub(crate) outgoing: &'a Outgoing<'a>,
    pub(crate) wait: &'a Arc<Wait>,
    /// What is said of the request besides its answer goes there.
    pub(crate) sink: &'a dyn CallSink,
    /// The request was refused before, on a session that seemed to be lost.
    pub(crate) is_replay: bool,
}

/// An open channel to a server, over which requests and notifications go.
pub(crate) trait Channel: Send + Sync {
    /// What the server has said of itself.
    fn initialized(&self) -> &Arc<Initialized>;

    /// It is used from here on, as the session of that number: what the server says by itself is
    /// listened to. `opener`: the wait of whoever opens it.
    fn begin(&self, generation: u64, opener: &Wait);

    /// It has taken its place: what its opening has left over ends.
    fn has_begun(&self) {}

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// It was not answered; where it was sent and nobody waits any more, the server is told.
    fn request(
        &self,
        connection: &mut HttpConnection,
        attempt: RequestAttempt<'_>,
    ) -> Result<Outcome, Failure>;

    /// Queues a client's notification, for which that one is charged.
    fn notify(&self, whose: &PrincipalId, text: String);

    /// Leaves the server, in bounded time.
    fn close(&self, why: Closing);

    /// The word for `/status`.
    fn word(&self) -> &'static str;

    /// True if the server may forget the session although it can be reached.
    fn may_be_forgotten(&self) -> bool {
        false
    }

    /// True if no answer can come any more.
    fn is_lost(&self) -> bool {
        false
    }

    /// The end of the process behind it, if it has one.
    fn death(&self) -> Option<Death> {
        None
    }

    /// True if what the server tells by itself is heard, as far as it can be.
    fn is_listening(&self) -> bool {
        true
    }

    /// Listens again where that has ended by itself.
    fn listen_again(&self) {}
}

/// The end of a process.
pub(crate) struct Death {
    pub(crate) failure: Failure,
    pub(crate) lived: Lived,
}

/// The transport of a server whose configuration turned out not to be usable, such as a file of
/// certificates that is not there: the text says what is wrong.
pub(crate) struct Unusable(pub(crate) String);

impl Transport for Unusable {
    fn connect(
        &self,
        _: &ConnectAttempt<'_>,
        _: &mut HttpConnection,
    ) -> Result<Connected, Failure> {
        let kind = FailureKind::Refused(Refusal::Plain);
        Err(Failure::new(kind, Stage::Connect, self.0.clone()))
    }

    fn word(&self) -> Option<&'static str> {
        Some("http")
    }
}
