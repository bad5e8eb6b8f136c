//! An upstream over HTTP whose era is found out: a modern request first, `initialize` if it is
//! answered by none (2026-07-28, basic/transports/streamable-http, Backward Compatibility).
//! What was found holds until it turns out wrong.

use std::sync::Arc;
use std::time::Instant;

use crate::error::Stage;
use crate::protocol::call::{CallSink, Outcome, Outgoing};
use crate::protocol::legacy::Initialized;
use crate::protocol::revision::Era;
use crate::wait::Wait;

use super::super::connection::{Kind, Refusal, Trouble};
use super::super::door::Door;
use super::super::exchange::Lane;
use super::super::http::HttpCore;
use super::super::link::{Core, Link, Opened};
use super::found::{Found, is_legacy_sign, probe_time};
use super::http::ModernHttp;

/// Both eras, and which one it is.
pub(in super::super) struct EitherEra {
    core: Arc<Core>,
    modern: ModernHttp,
    legacy: Box<dyn Link>,
    /// Shared by all sessions to the upstream.
    found: Arc<Found>,
    /// Those who find no era here wait for the one who asks.
    asking: Door<Option<Initialized>>,
}

impl EitherEra {
    pub(in super::super) fn new(
        http: Arc<HttpCore>,
        legacy: Box<dyn Link>,
        found: Arc<Found>,
    ) -> EitherEra {
        let (core, asking) = (http.core.clone(), Door::new(Arc::default()));
        EitherEra { core, modern: ModernHttp::new(http), legacy, found, asking }
    }

    fn of(&self, era: Era) -> Result<&dyn Link, Trouble> {
        match era {
            Era::Legacy => Ok(&*self.legacy),
            Era::Modern if self.core.client.is_some() => Err(stateless()),
            Era::Modern => Ok(&self.modern),
        }
    }

    /// Asks the server what it is; none if it answers as a legacy one does.
    fn ask(
        &self,
        lane: &mut Lane,
        wait: &Arc<Wait>,
        idle: &mut dyn FnMut(),
    ) -> Result<Option<Initialized>, Trouble> {
        let discovered = {
            let _bound = wait.within(probe_time(wait));
            self.modern.discover(lane, wait, idle)
        };
        match discovered {
            Ok(initialized) => Ok(Some(initialized)),
            Err(trouble) if is_legacy_sign(&trouble, wait) => {
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
            return self.of(era);
        }
        let tick = self.core.limits.heartbeat;
        let asked = self.asking.open(wait, tick, idle, |_, idle| self.ask(lane, wait, idle));
        let (asking, initialized) = match asked {
            Ok(asked) => asked,
            Err(trouble) => {
                if !matches!(trouble.kind, Kind::Interrupted(_)) {
                    self.core.nudge.lost(self.core.generation(), trouble.clone());
                }
                return Err(trouble);
            }
        };
        // Only those who waited meanwhile share the answer.
        drop(self.asking.forget(asking));
        match (*initialized).clone() {
            Some(_) if self.core.client.is_some() => self.settle(Era::Modern),
            Some(initialized) => {
                self.modern.enter(lane, wait, Some(initialized))?;
                self.settle(Era::Modern)
            }
            None => {
                self.legacy.open(lane, wait)?;
                self.settle(Era::Legacy)
            }
        }
    }

    fn settle(&self, era: Era) -> Result<&dyn Link, Trouble> {
        self.found.set(era);
        match era {
            Era::Legacy => self.modern.leave(),
            Era::Modern => self.legacy.leave(),
        }
        self.of(era)
    }

    /// The upstream refused as one of the other era does. Asks again which it speaks; false if
    /// that is the same as before, and `trouble` is just a refusal.
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
        match (era, self.ask(lane, wait, idle)?) {
            (Era::Modern, Some(_)) | (Era::Legacy, None) => Ok(false),
            (Era::Modern, None) => {
                self.legacy.open(lane, wait)?;
                self.settle(Era::Legacy).map(|_| true)
            }
            (Era::Legacy, Some(_)) if self.core.client.is_some() => {
                self.settle(Era::Modern).map(|_| true)
            }
            (Era::Legacy, Some(initialized)) => {
                self.modern.enter(lane, wait, Some(initialized))?;
                self.settle(Era::Modern).map(|_| true)
            }
        }
    }
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
pub(in super::super) fn stateless() -> Trouble {
    let what = "the server keeps no sessions";
    Trouble::new(Kind::Refused(Refusal::Stateless), Stage::Handshake, what)
}

impl Link for EitherEra {
    fn open(&self, lane: &mut Lane, wait: &Arc<Wait>) -> Result<Opened, Trouble> {
        let link = self.find(lane, wait, &mut || ())?;
        let trouble = match (link.open(lane, wait), self.found.get()) {
            (Err(trouble), Some(era)) if is_doubtful(era, &trouble) => trouble,
            (opened, _) => return opened,
        };
        let era = self.found.get().unwrap_or(Era::Modern);
        match self.reconsider(era, lane, wait, &mut || ()) {
            Ok(true) => self.find(lane, wait, &mut || ())?.open(lane, wait),
            Ok(false) => Err(trouble),
            Err(trouble) => Err(trouble),
        }
    }

    fn request(
        &self,
        lane: &mut Lane,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &mut dyn CallSink,
    ) -> Result<Outcome, Trouble> {
        let mut replayed = false;
        loop {
            let link = self.find(lane, wait, &mut || sink.silence())?;
            let era = if link.is_stateless() { Era::Modern } else { Era::Legacy };
            let trouble = match link.request(lane, outgoing, wait, sink) {
                Ok(outcome) => return Ok(outcome),
                Err(trouble) => trouble,
            };
            if replayed || !is_doubtful(era, &trouble) {
                return Err(trouble);
            }
            if !self.reconsider(era, lane, wait, &mut || sink.silence())? {
                return Err(trouble);
            }
            replayed = true;
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
        // It may be another one when it is back.
        self.found.forget();
        self.legacy.backing_off(trouble, next_try);
    }

    fn tell(&self, text: String) {
        if !self.found.is_modern() {
            self.legacy.tell(text);
        }
    }

    fn is_open(&self) -> bool {
        self.modern.is_open() || self.legacy.is_open()
    }

    fn is_stateless(&self) -> bool {
        self.found.is_modern()
    }

    fn close(&self) {
        self.modern.close();
        self.legacy.close();
    }

    fn transport(&self) -> &'static str {
        if self.found.is_modern() { self.modern.transport() } else { self.legacy.transport() }
    }
}
