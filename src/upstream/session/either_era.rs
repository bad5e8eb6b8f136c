//! An upstream over HTTP whose era is found out: a modern request first, `initialize` if it is
//! answered by none (2026-07-28, basic/transports/streamable-http, Backward Compatibility).
//! What was found holds until it turns out wrong.

use std::sync::Arc;
use std::time::Instant;

use crate::error::Stage;
use crate::protocol::call::{CallSink, Outcome, Outgoing, PrincipalId};
use crate::protocol::legacy::Initialized;
use crate::protocol::revision::Era;
use crate::wait::Wait;

use super::context::{Opened, SessionContext, Transport, no_session};
use super::era::{Found, is_answer_of_legacy, is_legacy_sign, probe_time};
use super::single_flight::SingleFlight;
use crate::upstream::failure::{Failure, FailureKind, Refusal};
use crate::upstream::http_client::HttpConnection;
use crate::upstream::transport::http::HttpContext;
use crate::upstream::transport::stateless_http::StatelessHttp;

/// Both eras, and which one it is.
pub(crate) struct EitherEra {
    context: Arc<SessionContext>,
    modern: StatelessHttp,
    legacy: Arc<dyn Transport>,
    /// Shared by all sessions to the upstream.
    found: Arc<Found>,
    /// Those who find no era here wait for the one who asks.
    asking: SingleFlight<EraFound>,
}

impl EitherEra {
    pub(crate) fn new(
        http: Arc<HttpContext>,
        legacy: Arc<dyn Transport>,
        found: Arc<Found>,
    ) -> EitherEra {
        let (context, asking) = (http.context.clone(), SingleFlight::new(Arc::default()));
        if context.client.is_some() {
            found.enter_own(&legacy);
        }
        EitherEra { context, modern: StatelessHttp::new(http), legacy, found, asking }
    }

    /// Whether this is the session of a client that keeps sessions itself: it is served in its own
    /// era wherever the upstream knows that.
    fn is_mirrored(&self) -> bool {
        self.context.client.as_ref().is_some_and(|client| !client.is_exclusive)
    }

    /// What came of using sessions with a server that is modern, perhaps among others.
    fn mirrored<T>(&self, outcome: Result<T, Failure>) -> Result<T, Failure> {
        match outcome {
            Err(failure) if self.found.is_modern() && failure.refuses_sessions() => {
                self.found.has_refused_a_session();
                self.legacy.leave();
                Err(stateless())
            }
            outcome => outcome,
        }
    }

    fn of(&self, era: Era) -> Result<&dyn Transport, Failure> {
        match era {
            Era::Legacy => Ok(&*self.legacy),
            Era::Modern if self.context.client.is_some() => Err(stateless()),
            Era::Modern => Ok(&self.modern),
        }
    }

    /// Asks the server what it is; none if it fails as a legacy one does, by what that is here.
    fn ask(
        &self,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
        is_legacy: fn(&Failure, &Wait) -> bool,
    ) -> Result<Option<Initialized>, Failure> {
        let discovered = {
            let _bound = wait.within(probe_time(wait));
            self.modern.discover(connection, wait)
        };
        match discovered {
            Ok(initialized) => Ok(Some(initialized)),
            Err(failure) if is_legacy(&failure, wait) => {
                log::debug!(target: "upstream", "{}: it is a server with sessions: {}",
                    self.context.name(), self.context.scrubbed(failure).message);
                Ok(None)
            }
            Err(failure) => Err(failure.in_handshake()),
        }
    }

    /// The link of the upstream's era; found out if it is not known, and open then.
    fn find(
        &self,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
    ) -> Result<&dyn Transport, Failure> {
        if let Some(era) = self.found.get() {
            return self.known(era, connection, wait);
        }
        let asked = self.asking.open(wait, |_| match self.found.get() {
            // Found between two looks.
            Some(_) => Ok(EraFound::ByAnother),
            None => {
                let asked = self.ask(connection, wait, is_legacy_sign)?;
                Ok(asked.map_or(EraFound::Legacy, EraFound::Modern))
            }
        });
        let (asking, asked) = match asked {
            Ok(asked) => asked,
            Err(failure) => {
                if !matches!(failure.kind, FailureKind::Interrupted(_)) {
                    self.context.mailbox.lost(self.context.generation(), failure.clone());
                }
                return Err(failure);
            }
        };
        let found = match &*asked {
            EraFound::ByAnother => {
                self.found.get().map_or_else(|| Err(gone()), |era| self.of(era))
            }
            EraFound::Legacy => self.settle(Era::Legacy, None, connection, wait),
            EraFound::Modern(it) => {
                self.settle(Era::Modern, Some(it.clone()), connection, wait)
            }
        };
        // Only those who waited meanwhile share the answer.
        drop(self.asking.forget(asking));
        found
    }

    /// The link of an era that was found before, perhaps on another session.
    fn known(
        &self,
        era: Era,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
    ) -> Result<&dyn Transport, Failure> {
        let transport = self.of(era)?;
        match era {
            // First contact shows what changed with the era.
            Era::Modern if !self.modern.is_open() => {
                self.legacy.leave();
                self.modern.enter(connection, wait, None)?;
            }
            Era::Modern | Era::Legacy => (),
        }
        Ok(transport)
    }

    /// Takes the upstream for one of that era once contact is made.
    fn settle(
        &self,
        era: Era,
        known: Option<Initialized>,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
    ) -> Result<&dyn Transport, Failure> {
        let opened = match era {
            Era::Legacy => Some(self.legacy.open(connection, wait)?),
            Era::Modern if self.context.client.is_some() => None,
            Era::Modern => {
                // Its discovery is contact; whoever is told of it below looks at the era.
                self.found.set(era);
                Some(self.modern.enter(connection, wait, known)?)
            }
        };
        self.found.set(era);
        if let Some(opened) = opened {
            // Whoever looked before has not seen it.
            self.context.mailbox.opened(opened.generation);
        }
        match era {
            Era::Legacy => self.modern.leave(),
            Era::Modern => self.legacy.leave(),
        }
        self.of(era)
    }

    /// The upstream refused as one of the other era does. Asks again which it speaks; false if
    /// that is the same as before, and `failure` is just a refusal. Only an answer changes what
    /// was found: silence and a connection that breaks say nothing of an era.
    fn reconsider(
        &self,
        era: Era,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
    ) -> Result<bool, Failure> {
        if self.found.get() != Some(era) {
            return Ok(true);
        }
        let asked = self.ask(connection, wait, is_answer_of_legacy)?;
        if asked.is_some() == (era == Era::Modern) {
            return Ok(false);
        }
        match self.settle(era.other(), asked, connection, wait) {
            Ok(_) => Ok(true),
            // The call goes on over the shared link.
            Err(failure) if failure.is_stateless() => Ok(true),
            Err(failure) => Err(failure),
        }
    }
}

/// What came of asking the server which era it speaks.
enum EraFound {
    ByAnother,
    Legacy,
    Modern(Initialized),
}

/// The era was found and forgotten while somebody waited for it.
fn gone() -> Failure {
    Failure::new(FailureKind::Broke, Stage::Handshake, "what it speaks is not known any more")
}

/// Whether the era may not be what it was taken for.
fn is_doubtful(era: Era, failure: &Failure) -> bool {
    match (era, &failure.kind) {
        (_, FailureKind::Refused(Refusal::OtherEra)) => true,
        // A modern server refuses `initialize` in one way or another.
        (Era::Legacy, FailureKind::Refused(Refusal::Plain | Refusal::MaybeHttpSse)) => {
            failure.stage == Stage::Handshake
        }
        (_, _) => false,
    }
}

/// What a call over a client's own session is told: it goes over the shared link.
pub(crate) fn stateless() -> Failure {
    let what = "the server keeps no sessions";
    Failure::new(FailureKind::Refused(Refusal::Stateless), Stage::Handshake, what)
}

impl Transport for EitherEra {
    fn open(
        &self,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
    ) -> Result<Opened, Failure> {
        if self.is_mirrored() && self.found.is_modern() {
            if self.found.refuses_sessions() {
                return Err(stateless());
            }
            return self.mirrored(self.legacy.open(connection, wait));
        }
        let era = self.found.get();
        let opened =
            self.find(connection, wait).and_then(|transport| transport.open(connection, wait));
        match (opened, era) {
            (Err(failure), Some(era)) if is_doubtful(era, &failure) => {
                if !self.reconsider(era, connection, wait)? {
                    return Err(failure);
                }
                self.find(connection, wait)?.open(connection, wait)
            }
            (opened, _) => opened,
        }
    }

    fn request(
        &self,
        connection: &mut HttpConnection,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Outcome, Failure> {
        if self.is_mirrored() && self.found.is_modern() {
            if self.found.refuses_sessions() {
                return Err(stateless());
            }
            return self.mirrored(self.legacy.request(connection, outgoing, wait, sink));
        }
        let mut era = self.found.get();
        let transport = self.find(connection, wait);
        let outcome = transport.and_then(|transport| {
            era = Some(if transport.is_stateless() { Era::Modern } else { Era::Legacy });
            transport.request(connection, outgoing, wait, sink)
        });
        match (outcome, era) {
            (Err(failure), Some(era)) if is_doubtful(era, &failure) => {
                if !self.reconsider(era, connection, wait)? {
                    return Err(failure);
                }
                // What was refused has not reached the tool.
                let transport = self.find(connection, wait)?;
                transport.request(connection, outgoing, wait, sink)
            }
            (outcome, _) => outcome,
        }
    }

    fn request_open(
        &self,
        connection: &mut HttpConnection,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Outcome, Failure> {
        if self.is_mirrored() && self.found.is_modern() {
            return self.mirrored(self.legacy.request_open(connection, outgoing, wait, sink));
        }
        let era = self.found.get().ok_or_else(no_session)?;
        self.of(era)?.request_open(connection, outgoing, wait, sink)
    }

    fn probe(
        &self,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
        why: &Failure,
    ) -> Result<(), Failure> {
        if self.is_mirrored() && self.found.is_modern() {
            return self.mirrored(self.legacy.probe(connection, wait, why));
        }
        match self.found.get().ok_or_else(no_session)? {
            Era::Legacy if !is_doubtful(Era::Legacy, why) => {
                self.legacy.probe(connection, wait, why)
            }
            // Contact with the other era is made at once, if that is what it speaks now.
            era @ (Era::Legacy | Era::Modern) => {
                self.reconsider(era, connection, wait).map(drop)
            }
        }
    }

    fn forget(&self, generation: u64) {
        // Generations are counted over both.
        self.modern.forget(generation);
        self.legacy.forget(generation);
    }

    fn leave(&self) {
        self.modern.leave();
        self.legacy.leave();
    }

    fn backing_off(&self, failure: &Failure, next_try: Instant) {
        // Whether it is gone, the supervisor says.
        if self.context.client.is_none() {
            self.found.forget_unless_in_use();
        }
        self.context.redirected.forget();
        self.legacy.backing_off(failure, next_try);
    }

    fn tell(&self, whose: &PrincipalId, text: String) {
        if self.is_mirrored() || !self.found.is_modern() {
            self.legacy.tell(whose, text);
        }
    }

    fn is_open(&self) -> bool {
        self.modern.is_open() || self.legacy.is_open()
    }

    fn is_stateless(&self) -> bool {
        self.found.is_modern()
    }

    fn refuses_sessions(&self) -> bool {
        self.found.refuses_sessions()
    }

    fn refresh(&self) {
        self.modern.refresh();
        self.legacy.refresh();
    }

    fn close(&self) {
        self.modern.close();
        self.legacy.close();
    }

    fn transport(&self) -> &'static str {
        if self.found.is_modern() { self.modern.transport() } else { self.legacy.transport() }
    }
}
