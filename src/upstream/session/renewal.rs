//! What takes the place of an open session. One that worked and whose server refuses now may be
//! one that the server has forgotten, however it says that: whoever looks after the session finds
//! out, and opens one new session at the pace of a backoff. Or the server is of the other era by
//! now, which it is asked. Where that works, what was opened takes the place of the old one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Stage;
use crate::protocol::call::{Outcome, Outgoing};
use crate::protocol::jsonrpc::RpcError;
use crate::protocol::method::Method;
use crate::protocol::raw::RawObject;
use crate::protocol::revision::Era;
use crate::wait::Wait;

use super::context::{NoSink, unless_answered};
use super::negotiate::{Purpose, Trust};
use super::single_flight::For;
use super::{Open, Session};
use crate::upstream::backoff::Retry;
use crate::upstream::failure::{Failure, FailureKind, Refusal, cut};
use crate::upstream::http_client::HttpConnection;
use crate::upstream::transport::refused_status::is_certain;
use crate::upstream::transport::{Closing, ConnectAttempt, Connected, RequestAttempt};

/// When a session that is refused may be looked at, or replaced by a new one.
#[derive(Default)]
pub(crate) struct Pace(Mutex<Retry>);

impl Pace {
    fn lock(&self) -> MutexGuard<'_, Retry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether that may be tried now.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        !self.lock().is_waiting(now)
    }

    /// It was tried; whether that helps is not known, or it did not. `asked`: how long
    /// the server wants to be left alone.
    pub(crate) fn tried(&self, now: Instant, asked: Option<Duration>) {
        let mut retry = self.lock();
        // Only time in which it was not wanted counts as health: not the wait itself.
        let unwanted = retry.at().map(|at| now.saturating_duration_since(at));
        retry.backoff.lasted(unwanted.unwrap_or_default());
        retry.failed(now, asked);
    }

    /// A new session has served what the old one was refused.
    pub(super) fn helped(&self) {
        self.lock().went_well();
    }
}

/// Whether a refusal of a whole request says that its session is not known. The second is what
/// a server says that serves one session per process and has been started anew.
pub(crate) fn speaks_of_session(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["session", "not initialized", "uninitialized"].iter().any(|words| text.contains(words))
}

/// An error that a request was answered with, as a reason to look at its session; none if it
/// does not speak of that.
pub(super) fn doubt_of(error: &RpcError) -> Option<Failure> {
    if !speaks_of_session(&error.message) {
        return None;
    }
    let what = format!("it refused a request: {} ({})", cut(&error.message), error.code);
    let kind = FailureKind::Refused(Refusal::Plain);
    Some(Failure { sent: true, ..Failure::new(kind, Stage::Answer, what) })
}

/// What came of asking a server again which era it is of.
#[derive(PartialEq, Eq)]
pub(super) enum Recheck {
    /// It is of the one that it was taken for.
    Same,
    /// It is of the other one, over which requests go from here on.
    Other,
}

impl Session {
    /// Asks the open session what every server answers, because of `why`; any answer will do.
    ///
    /// # Errors
    /// It is gone, or its server hangs.
    pub(crate) fn probe(
        &self,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
        why: &Failure,
    ) -> Result<(), Failure> {
        let (generation, open) = self.usable()?;
        let era = open.era();
        let is_era_doubted = match why.kind {
            FailureKind::Refused(Refusal::OtherEra) => true,
            FailureKind::Refused(_) => why.stage == Stage::Handshake,
            FailureKind::Interrupted(_)
            | FailureKind::Unauthorized(_)
            | FailureKind::SessionGone
            | FailureKind::Broke
            | FailureKind::Nonsense
            | FailureKind::Overloaded => false,
        };
        let may_recheck =
            self.is_opened_by_calls() && !self.is_mirrored() && !self.era.is_fixed();
        if may_recheck && (era == Era::Modern || is_era_doubted) {
            // Contact with the other era is made at once, if that is what it speaks now.
            return self.recheck(generation, (era, Trust::Doubted), connection, wait).map(drop);
        }
        if open.channel.may_be_forgotten() {
            return self
                .look(connection, generation, &open, wait)
                .map_err(|it| self.unless_mirrored(it));
        }
        let method = match era {
            Era::Legacy => Method::Ping,
            Era::Modern => Method::ServerDiscover,
        };
        let outgoing = Outgoing::own(method, RawObject::default());
        let attempt =
            RequestAttempt { outgoing: &outgoing, wait, sink: &NoSink, is_replay: false };
        self.send(connection, generation, &open, attempt).map(drop).or_else(unless_answered)
    }

    /// Asks the server again which era it is of: over the session of that generation, which is of
    /// that era, it has refused as one of the other era does, or it was away.
    ///
    /// # Errors
    /// It gives no answer, or the client's requests go over the shared session from here on.
    pub(super) fn recheck(
        &self,
        generation: u64,
        (era, trust): (Era, Trust),
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
    ) -> Result<Recheck, Failure> {
        if self.era.get().is_some_and(|found| found != era) {
            return Ok(Recheck::Other);
        }
        let next = self.flight.next_generation();
        let purpose = Purpose::Recheck(era, trust);
        let connecting = ConnectAttempt { purpose, generation: next, wait };
        let connected = self.transport.connect(&connecting, connection);
        let channel = match connected.map_err(Failure::in_handshake)? {
            Connected::New(channel) => channel,
            Connected::AsKnown => {
                self.era.set(era);
                return Ok(Recheck::Same);
            }
        };
        let open = self.begin(channel, &connecting).inspect_err(|_| self.forget(generation))?;
        self.take_place(generation, next, open);
        Ok(Recheck::Other)
    }

    /// Puts a session in the place of the one of generation `old`, if that is still open.
    fn take_place(&self, old: u64, generation: u64, open: Open) {
        match self.flight.replace(old, generation, open) {
            // Where no lock is held: what is listened to over it ends.
            Ok(old) => {
                old.channel.close(Closing::Forgotten);
                self.context.mailbox.opened(generation);
            }
            // Another one was opened meanwhile.
            Err(unused) => unused.channel.close(Closing::Unused),
        }
    }

    /// Tells whoever looks after a session that it was refused, unless it has never worked, or
    /// lasts as long as its channel.
    pub(super) fn doubt(&self, generation: u64, open: &Open, why: Failure) {
        if open.channel.may_be_forgotten() && open.has_worked.load(Ordering::Relaxed) {
            self.context.mailbox.doubted(generation, why);
        }
    }

    /// What an answer under the request's own id says of the session.
    pub(super) fn answered(&self, generation: u64, open: &Open, outcome: &Outcome) {
        let doubt = match outcome {
            Outcome::Error { error, .. } => doubt_of(error),
            Outcome::Complete(_) | Outcome::InputRequired { .. } => None,
        };
        match doubt {
            Some(why) => self.doubt(generation, open, why),
            None => open.has_worked.store(true, Ordering::Relaxed),
        }
    }

    /// Sees whether the open session is well, and opens another one if it is refused.
    ///
    /// # Errors
    /// The server hangs or cannot be reached, or the session is gone for certain and no other is
    /// to be had.
    pub(super) fn look(
        &self,
        connection: &mut HttpConnection,
        generation: u64,
        open: &Open,
        wait: &Arc<Wait>,
    ) -> Result<(), Failure> {
        let Some(refused) = self.refused_over(connection, generation, open, wait)? else {
            return Ok(());
        };
        let now = Instant::now();
        if !self.renewals.is_due(now) {
            return Ok(());
        }
        self.renewals.tried(now, refused.asked_pause());
        let renewed = if is_certain(&refused) {
            // A call that hears the same opens it together with this.
            self.forget(generation);
            self.current(For::Call, connection, wait).map(drop)
        } else {
            self.renew(connection, generation, wait)
        };
        let Err(failure) = renewed else { return Ok(()) };
        log::debug!(target: "upstream", "{}: a session that is refused could not be replaced: {}",
            self.context.name(), self.context.scrubbed(failure.clone()).message);
        if refused.kind == FailureKind::SessionGone {
            Err(refused)
        } else {
            unless_answered(failure)
        }
    }

    /// Opens a session in place of the one of this generation, if that is still open.
    ///
    /// # Errors
    /// There is none to be had, or it is refused like the old one, which stays.
    fn renew(
        &self,
        connection: &mut HttpConnection,
        old: u64,
        wait: &Arc<Wait>,
    ) -> Result<(), Failure> {
        if self.flight.is_replaced(old) {
            return Ok(());
        }
        let generation = self.flight.next_generation();
        let connecting = ConnectAttempt { purpose: Purpose::WithSession, generation, wait };
        let connected =
            self.transport.connect(&connecting, connection).map_err(Failure::in_handshake);
        let Connected::New(channel) = connected? else { return Ok(()) };
        let open = Open { channel, has_worked: AtomicBool::new(false) };
        let is_refused = self.refused_over(connection, generation, &open, wait);
        if let Some(refused) = is_refused.unwrap_or_else(Some) {
            open.channel.close(Closing::Unused);
            return Err(refused);
        }
        open.channel.begin(generation, wait);
        self.take_place(old, generation, open);
        Ok(())
    }

    /// Asks what a server with sessions answers in each of them; gives the refusal, if it is one
    /// that may concern the session.
    ///
    /// # Errors
    /// There was no answer.
    fn refused_over(
        &self,
        connection: &mut HttpConnection,
        generation: u64,
        open: &Open,
        wait: &Arc<Wait>,
    ) -> Result<Option<Failure>, Failure> {
        // A list that cannot be had says nothing of the session.
        let outgoing = Outgoing::own(Method::Ping, RawObject::default());
        let attempt =
            RequestAttempt { outgoing: &outgoing, wait, sink: &NoSink, is_replay: false };
        match self.send(connection, generation, open, attempt) {
            Ok(Outcome::Error { error, .. }) => Ok(doubt_of(&error)),
            Ok(Outcome::Complete(_) | Outcome::InputRequired { .. }) => {
                open.has_worked.store(true, Ordering::Relaxed);
                Ok(None)
            }
            Err(failure)
                if matches!(
                    failure.kind,
                    FailureKind::SessionGone | FailureKind::Refused(_)
                ) =>
            {
                Ok(Some(failure))
            }
            Err(failure) => unless_answered(failure).map(|()| None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{BACKOFF_MIN, BACKOFF_RESET_AFTER};

    #[test]
    fn a_dozen_new_sessions_a_minute_are_tried_at_most() {
        let (start, pace) = (Instant::now(), Pace::default());
        let minute = Duration::from_secs(60);
        let mut tried: Vec<Duration> = Vec::new();
        for ms in (0..600_000).step_by(50) {
            let at = Duration::from_millis(ms);
            if pace.is_due(start + at) {
                pace.tried(start + at, None);
                tried.push(at);
            }
        }
        for (n, from) in tried.iter().enumerate() {
            let within = tried.iter().skip(n).take_while(|at| **at < *from + minute).count();
            assert!(within <= 12, "{within} within a minute from {from:?}");
        }
    }

    #[test]
    fn the_pace_is_the_servers_and_ends_with_a_session_that_helps() {
        let (now, pace) = (Instant::now(), Pace::default());
        pace.tried(now, Some(BACKOFF_RESET_AFTER));
        assert!(!pace.is_due(now + BACKOFF_RESET_AFTER / 2));
        pace.helped();
        assert!(pace.is_due(now));
        pace.tried(now, None);
        assert!(pace.is_due(now + BACKOFF_MIN * 5 / 4));
    }

    #[test]
    fn only_words_about_sessions_speak_of_one() {
        for text in ["Unauthorized: Session not found", "Bad Request: Server not initialized"] {
            assert!(speaks_of_session(text), "{text}");
        }
        assert!(!speaks_of_session("Unauthorized") && !speaks_of_session("too many requests"));
    }
}
