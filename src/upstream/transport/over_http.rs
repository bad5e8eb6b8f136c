//! A server over HTTP: it is asked what it speaks, each question over the transport that it
//! belongs to ([`HttpNegotiation`]).

use std::sync::Arc;

use crate::config::HttpKind;
use crate::error::Stage;
use crate::protocol::revision::Era;
use crate::wait::{Interrupted, Wait};

use super::http::HttpContext;
use super::http_sse;
use super::stateless_http::StatelessHttp;
use super::streamable_http;
use super::{Channel, ConnectAttempt, Connected, Transport};
use crate::upstream::failure::{Failure, FailureKind};
use crate::upstream::http_client::HttpConnection;
use crate::upstream::session::era::{FoundEra, heard, probe_time};
use crate::upstream::session::negotiate::{
    Heard, HttpNegotiation, HttpTransport, Probe, Purpose, Step, Trust,
};

/// See above.
pub(crate) struct OverHttp {
    http: Arc<HttpContext>,
    kind: HttpKind,
    /// Of all sessions with the server.
    era: Arc<FoundEra>,
    stateless: Arc<StatelessHttp>,
    streamable: streamable_http::Opening,
}

impl OverHttp {
    pub(crate) fn new(http: Arc<HttpContext>, kind: HttpKind, era: Arc<FoundEra>) -> OverHttp {
        let stateless = Arc::new(StatelessHttp::new(http.clone()));
        let streamable = streamable_http::Opening::new(http.clone());
        OverHttp { http, kind, era, stateless, streamable }
    }

    fn ask(
        &self,
        negotiation: &HttpNegotiation,
        connecting: &ConnectAttempt<'_>,
        connection: &mut HttpConnection,
    ) -> Result<Box<dyn Channel>, Failure> {
        let wait = connecting.wait;
        match negotiation.asked() {
            Probe::Discover if negotiation.trust() == Trust::Modern => {
                self.stateless.connect(connection, wait)
            }
            Probe::Discover => self.discover(connection, wait),
            Probe::Initialize => self.streamable.connect(connection, wait),
            Probe::EventStream => {
                http_sse::connect(&self.http, connection, wait, connecting.generation)
            }
        }
    }

    /// Asks the server what it is. Where `initialize` may follow, there must be time left for it; but
    /// an authorization server that lets wait for a token says nothing of the server's era.
    fn discover(
        &self,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
    ) -> Result<Box<dyn Channel>, Failure> {
        loop {
            self.http.factory.await_credentials(wait)?;
            let answer = {
                let _bound = wait.within(probe_time(wait));
                self.stateless.connect(connection, wait)
            };
            match answer {
                Err(failure)
                    if failure.stage == Stage::Authorization
                        && failure.kind == FailureKind::Interrupted(Interrupted::Deadline)
                        && wait.check().is_ok() =>
                {
                    connection.reset();
                }
                answer => return answer,
            }
        }
    }

    /// Notes what the server agreed to.
    fn agreed(
        &self,
        question: Probe,
        purpose: Purpose,
        channel: Box<dyn Channel>,
    ) -> Connected {
        match question {
            Probe::Discover => {
                if matches!(purpose, Purpose::Recheck(Era::Modern, _)) {
                    return Connected::AsKnown;
                }
            }
            Probe::Initialize => self.era.set_transport(HttpTransport::StreamableHttp),
            Probe::EventStream => self.era.set_transport(HttpTransport::HttpSse),
        }
        Connected::New(channel)
    }
}

impl Transport for OverHttp {
    fn connect(
        &self,
        connecting: &ConnectAttempt<'_>,
        connection: &mut HttpConnection,
    ) -> Result<Connected, Failure> {
        let (purpose, wait) = (connecting.purpose, connecting.wait);
        let (era, transport) = (self.era.get(), self.era.transport());
        let mut negotiation = HttpNegotiation::new(purpose, self.kind, era, transport);
        let mut refused = None;
        loop {
            let question = negotiation.asked();
            let failure = match self.ask(&negotiation, connecting, connection) {
                Ok(channel) => return Ok(self.agreed(question, purpose, channel)),
                Err(failure) => failure,
            };
            connection.reset();
            let heard = heard(question, negotiation.trust(), &failure, wait);
            let is_declined =
                question == Probe::Discover && matches!(heard, Heard::Declines | Heard::Silent);
            if is_declined {
                let context = &self.http.context;
                log::debug!(target: "upstream", "{}: it is a server with sessions: {}",
                    context.name(), context.scrubbed(failure.clone()).message);
            }
            let step = negotiation.next(heard);
            if is_declined && matches!(purpose, Purpose::Recheck(Era::Legacy, _)) {
                return Ok(Connected::AsKnown);
            }
            let told = match (question, refused.take()) {
                // How it refused what it was taken for tells more.
                (Probe::Discover, Some(before)) if is_declined => before,
                (Probe::EventStream, Some(before)) => as_both(before, failure),
                (_, _) => failure,
            };
            if !matches!(step, Step::Ask(_)) {
                return Err(told);
            }
            // Refused as Streamable HTTP; that it declined to be without sessions is no failure.
            refused = (!is_declined).then_some(told);
        }
    }

    fn word(&self) -> Option<&'static str> {
        let found = match self.kind {
            HttpKind::StreamableHttp => Some(HttpTransport::StreamableHttp),
            HttpKind::HttpSse => Some(HttpTransport::HttpSse),
            HttpKind::Auto => self.era.transport(),
        };
        match found {
            Some(HttpTransport::HttpSse) if !self.era.is_modern() => Some("sse"),
            Some(HttpTransport::StreamableHttp | HttpTransport::HttpSse) => Some("http"),
            None => self.era.is_modern().then_some("http"),
        }
    }

    fn close(&self) {
        self.http.close_control();
    }
}

/// What is told of a server that speaks neither transport. Where the path is wrong, both are told
/// the same.
fn as_both(streamable: Failure, sse: Failure) -> Failure {
    let (as_streamable, as_sse) = (streamable.message, &sse.message);
    let message = if as_streamable == *as_sse {
        as_streamable
    } else {
        format!("as Streamable HTTP: {as_streamable}; as HTTP+SSE: {as_sse}")
    };
    Failure { message, ..sse }
}
