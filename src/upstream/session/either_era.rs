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

use super::context::{Core, Link, Opened, no_session};
use super::era::{Found, is_answer_of_legacy, is_legacy_sign, probe_time};
use super::single_flight::Door;
use crate::upstream::failure::{Kind, Refusal, Trouble};
use crate::upstream::http_client::Lane;
use crate::upstream::transport::http::HttpCore;
use crate::upstream::transport::stateless_http::ModernHttp;

/// Both eras, and which one it is.
pub(crate) struct EitherEra {
    core: Arc<Core>,
    modern: ModernHttp,
    legacy: Arc<dyn Link>,
    /// Shared by all sessions to the upstream.
    found: Arc<Found>,
    /// Those who find no era here wait for the one who asks.
    asking: Door<Asked>,
}

impl EitherEra {
    pub(crate) fn new(
        http: Arc<HttpCore>,
        legacy: Arc<dyn Link>,
        found: Arc<Found>,
    ) -> EitherEra {
        let (core, asking) = (http.core.clone(), Door::new(Arc::default()));
        if core.client.is_some() {
            found.enter_own(&legacy);
        }
        EitherEra { core, modern: ModernHttp::new(http), legacy, found, asking }
    }

    /// Whether this is the session of a client that keeps sessions itself: it is served in its own
    /// era wherever the upstream knows that.
    fn is_mirrored(&self) -> bool {
        self.core.client.as_ref().is_some_and(|client| !client.is_exclusive)
    }

    /// What came of using sessions with a server that is modern, perhaps among others.
    fn mirrored<T>(&self, outcome: Result<T, Trouble>) -> Result<T, Trouble> {
        match outcome {
            Err(trouble) if self.found.is_modern() && trouble.refuses_sessions() => {
                self.found.has_refused_a_session();
                self.legacy.leave();
                Err(stateless())
            }
            outcome => outcome,
        }
    }

    fn of(&self, era: Era) -> Result<&dyn Link, Trouble> {
        match era {
            Era::Legacy => Ok(&*self.legacy),
            Era::Modern if self.core.client.is_some() => Err(stateless()),
            Era::Modern => Ok(&self.modern),
        }
    }

    /// Asks the server what it is; none if it fails as a legacy one does, by what that is here.
    fn ask(
        &self,
        lane: &mut Lane,
        wait: &Arc<Wait>,
        idle: &mut dyn FnMut(),
        is_legacy: fn(&Trouble, &Wait) -> bool,
    ) -> Result<Option<Initialized>, Trouble> {
        let discovered = {
            let _bound = wait.within(probe_time(wait));
            self.modern.discover(lane, wait, idle)
        };
        match discovered {
            Ok(initialized) => Ok(Some(initialized)),
            Err(trouble) if is_legacy(&trouble, wait) => {
                log::debug!(target: "upstream", "{}: it is a server with sessions: {}",
                    self.core.name(), self.core.scrubbed(trouble).message);
                Ok(None)
            }
            Err(trouble) => Err(trouble.in_handshake()),
        }
    }

    /// The link of the upstream's era; found out if it is not known, and open then.
    fn find(
        &self,
        lane: &mut Lane,
        wait: &Arc<Wait>,
        idle: &mut dyn FnMut(),
    ) -> Result<&dyn Link, Trouble> {
        if let Some(era) = self.found.get() {
            return self.known(era, lane, wait);
        }
        let tick = self.core.limits.heartbeat;
        let asked = self.asking.open(wait, tick, idle, |_, idle| match self.found.get() {
            // Found between two looks.
            Some(_) => Ok(Asked::ByAnother),
            None => {
                let asked = self.ask(lane, wait, idle, is_legacy_sign)?;
                Ok(asked.map_or(Asked::Legacy, Asked::Modern))
            }
        });
        let (asking, asked) = match asked {
            Ok(asked) => asked,
            Err(trouble) => {
                if !matches!(trouble.kind, Kind::Interrupted(_)) {
                    self.core.nudge.lost(self.core.generation(), trouble.clone());
                }
                return Err(trouble);
            }
        };
        let found = match &*asked {
            Asked::ByAnother => {
                self.found.get().map_or_else(|| Err(gone()), |era| self.of(era))
            }
            Asked::Legacy => self.settle(Era::Legacy, None, lane, wait),
            Asked::Modern(it) => self.settle(Era::Modern, Some(it.clone()), lane, wait),
        };
        // Only those who waited meanwhile share the answer.
        drop(self.asking.forget(asking));
        found
    }

    /// The link of an era that was found before, perhaps on another session.
    fn known(&self, era: Era, lane: &mut Lane, wait: &Arc<Wait>) -> Result<&dyn Link, Trouble> {
        let link = self.of(era)?;
        match era {
            // First contact shows what changed with the era.
            Era::Modern if !self.modern.is_open() => {
                self.legacy.leave();
                self.modern.enter(lane, wait, None)?;
            }
            Era::Modern | Era::Legacy => (),
        }
        Ok(link)
    }

    /// Takes the upstream for one of that era once contact is made.
    fn settle(
        &self,
        era: Era,
        known: Option<Initialized>,
        lane: &mut Lane,
        wait: &Arc<Wait>,
    ) -> Result<&dyn Link, Trouble> {
        let opened = match era {
            Era::Legacy => Some(self.legacy.open(lane, wait)?),
            Era::Modern if self.core.client.is_some() => None,
            Era::Modern => {
                // Its discovery is contact; whoever is told of it below looks at the era.
                self.found.set(era);
                Some(self.modern.enter(lane, wait, known)?)
            }
        };
        self.found.set(era);
        if let Some(opened) = opened {
            // Whoever looked before has not seen it.
            self.core.nudge.opened(opened.generation);
        }
        match era {
            Era::Legacy => self.modern.leave(),
            Era::Modern => self.legacy.leave(),
        }
        self.of(era)
    }

    /// The upstream refused as one of the other era does. Asks again which it speaks; false if
    /// that is the same as before, and `trouble` is just a refusal. Only an answer changes what
    /// was found: silence and a connection that breaks say nothing of an era.
    fn reconsider(
        &self,
        era: Era,
        lane: &mut Lane,
        wait: &Arc<Wait>,
        idle: &mut dyn FnMut(),
    ) -> Result<bool, Trouble> {
        if self.found.get() != Some(era) {
            return Ok(true);
        }
        let asked = self.ask(lane, wait, idle, is_answer_of_legacy)?;
        if asked.is_some() == (era == Era::Modern) {
            return Ok(false);
        }
        match self.settle(era.other(), asked, lane, wait) {
            Ok(_) => Ok(true),
            // The call goes on over the shared link.
            Err(trouble) if trouble.is_stateless() => Ok(true),
            Err(trouble) => Err(trouble),
        }
    }
}

/// What came of asking the server which era it speaks.
enum Asked {
    ByAnother,
    Legacy,
    Modern(Initialized),
}

/// The era was found and forgotten while somebody waited for it.
fn gone() -> Trouble {
    Trouble::new(Kind::Broke, Stage::Handshake, "what it speaks is not known any more")
}

/// Whether the era may not be what it was taken for.
fn is_doubtful(era: Era, trouble: &Trouble) -> bool {
    match (era, &trouble.kind) {
        (_, Kind::Refused(Refusal::OtherEra)) => true,
        // A modern server refuses `initialize` in one way or another.
        (Era::Legacy, Kind::Refused(Refusal::Plain | Refusal::MaybeHttpSse)) => {
            trouble.stage == Stage::Handshake
        }
        (_, _) => false,
    }
}

/// What a call over a client's own session is told: it goes over the shared link.
pub(crate) fn stateless() -> Trouble {
    let what = "the server keeps no sessions";
    Trouble::new(Kind::Refused(Refusal::Stateless), Stage::Handshake, what)
}

impl Link for EitherEra {
    fn open(&self, lane: &mut Lane, wait: &Arc<Wait>) -> Result<Opened, Trouble> {
        if self.is_mirrored() && self.found.is_modern() {
            if self.found.refuses_sessions() {
                return Err(stateless());
            }
            return self.mirrored(self.legacy.open(lane, wait));
        }
        let era = self.found.get();
        let opened = self.find(lane, wait, &mut || ()).and_then(|link| link.open(lane, wait));
        match (opened, era) {
            (Err(trouble), Some(era)) if is_doubtful(era, &trouble) => {
                if !self.reconsider(era, lane, wait, &mut || ())? {
                    return Err(trouble);
                }
                self.find(lane, wait, &mut || ())?.open(lane, wait)
            }
            (opened, _) => opened,
        }
    }

    fn request(
        &self,
        lane: &mut Lane,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &mut dyn CallSink,
    ) -> Result<Outcome, Trouble> {
        if self.is_mirrored() && self.found.is_modern() {
            if self.found.refuses_sessions() {
                return Err(stateless());
            }
            return self.mirrored(self.legacy.request(lane, outgoing, wait, sink));
        }
        let mut era = self.found.get();
        let link = self.find(lane, wait, &mut || sink.silence());
        let outcome = link.and_then(|link| {
            era = Some(if link.is_stateless() { Era::Modern } else { Era::Legacy });
            link.request(lane, outgoing, wait, sink)
        });
        match (outcome, era) {
            (Err(trouble), Some(era)) if is_doubtful(era, &trouble) => {
                if !self.reconsider(era, lane, wait, &mut || sink.silence())? {
                    return Err(trouble);
                }
                // What was refused has not reached the tool.
                let link = self.find(lane, wait, &mut || sink.silence())?;
                link.request(lane, outgoing, wait, sink)
            }
            (outcome, _) => outcome,
        }
    }

    fn request_open(
        &self,
        lane: &mut Lane,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &mut dyn CallSink,
    ) -> Result<Outcome, Trouble> {
        if self.is_mirrored() && self.found.is_modern() {
            return self.mirrored(self.legacy.request_open(lane, outgoing, wait, sink));
        }
        let era = self.found.get().ok_or_else(no_session)?;
        self.of(era)?.request_open(lane, outgoing, wait, sink)
    }

    fn probe(&self, lane: &mut Lane, wait: &Arc<Wait>, why: &Trouble) -> Result<(), Trouble> {
        if self.is_mirrored() && self.found.is_modern() {
            return self.mirrored(self.legacy.probe(lane, wait, why));
        }
        match self.found.get().ok_or_else(no_session)? {
            Era::Legacy if !is_doubtful(Era::Legacy, why) => self.legacy.probe(lane, wait, why),
            // Contact with the other era is made at once, if that is what it speaks now.
            era @ (Era::Legacy | Era::Modern) => {
                self.reconsider(era, lane, wait, &mut || ()).map(drop)
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

    fn backing_off(&self, trouble: &Trouble, next_try: Instant) {
        // Whether it is gone, the supervisor says.
        if self.core.client.is_none() {
            self.found.forget_unless_in_use();
        }
        self.core.redirected.forget();
        self.legacy.backing_off(trouble, next_try);
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
