//! A session that worked and whose server refuses now may be one that the server has forgotten,
//! however it says that. Whoever looks after the session finds out, and opens one new session at
//! the pace of a backoff; where that works, it takes the place of the old one.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Stage;
use crate::protocol::call::{Outcome, Outgoing};
use crate::protocol::jsonrpc::RpcError;
use crate::protocol::method::Method;
use crate::protocol::raw::RawObject;
use crate::wait::Wait;

use super::context::{NoSink, no_session, unless_answered};
use crate::upstream::backoff::Retry;
use crate::upstream::failure::{Failure, FailureKind, Refusal, cut};
use crate::upstream::http_client::HttpConnection;
use crate::upstream::transport::refused_status::is_certain;
use crate::upstream::transport::streamable_http::{Over, Session, StreamableHttp};

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
    pub(crate) fn helped(&self) {
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
pub(crate) fn doubt_of(error: &RpcError) -> Option<Failure> {
    if !speaks_of_session(&error.message) {
        return None;
    }
    let what = format!("it refused a request: {} ({})", cut(&error.message), error.code);
    let kind = FailureKind::Refused(Refusal::Plain);
    Some(Failure { sent: true, ..Failure::new(kind, Stage::Answer, what) })
}

impl StreamableHttp {
    /// Tells whoever looks after a session that it was refused, unless it has never worked.
    pub(crate) fn doubt(&self, over: Over<'_>, why: Failure) {
        if over.session.has_worked.load(Ordering::Relaxed) {
            self.http.context.mailbox.doubted(over.generation, why);
        }
    }

    /// What an answer under the request's own id says of the session.
    pub(crate) fn answered(&self, over: Over<'_>, outcome: &Outcome) {
        let doubt = match outcome {
            Outcome::Error { error, .. } => doubt_of(error),
            Outcome::Complete(_) | Outcome::InputRequired { .. } => None,
        };
        match doubt {
            Some(why) => self.doubt(over, why),
            None => over.session.has_worked.store(true, Ordering::Relaxed),
        }
    }

    /// Sees whether the open session is well, and opens another one if it is refused.
    ///
    /// # Errors
    /// The server hangs or cannot be reached, or the session is gone for certain and no other is
    /// to be had.
    pub(crate) fn look(
        &self,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
    ) -> Result<(), Failure> {
        let (generation, session) = self.single_flight.current().ok_or_else(no_session)?;
        let Some(refused) = self.refused_over(connection, generation, &session, wait)? else {
            return Ok(());
        };
        let now = Instant::now();
        if !self.renewals.is_due(now) {
            return Ok(());
        }
        self.renewals.tried(now, refused.asked_pause());
        let renewed = if is_certain(&refused) {
            // A call that hears the same opens it together with this.
            drop(self.single_flight.forget(generation));
            self.session(connection, wait).map(drop)
        } else {
            self.renew(connection, generation, wait)
        };
        let Err(failure) = renewed else { return Ok(()) };
        log::debug!(target: "upstream", "{}: a session that is refused could not be replaced: {}",
            self.http.context.name(), self.http.context.scrubbed(failure.clone()).message);
        match refused.kind {
            FailureKind::SessionGone => Err(refused),
            FailureKind::Interrupted(_)
            | FailureKind::Broke
            | FailureKind::Refused(_)
            | FailureKind::Nonsense
            | FailureKind::Overloaded => unless_answered(failure),
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
        if self.is_replaced(old) {
            return Ok(());
        }
        let session = self.handshake(connection, wait).map_err(Failure::in_handshake)?;
        let generation = self.single_flight.next_generation();
        let is_refused = self.refused_over(connection, generation, &session, wait);
        if let Some(refused) = is_refused.unwrap_or_else(Some) {
            self.end(&session);
            return Err(refused);
        }
        self.listen(&session, generation, wait);
        match self.single_flight.replace(old, generation, session) {
            // Its stream ends here, where no lock is held.
            Ok(old) => drop(old),
            // Another one was opened meanwhile.
            Err(unused) => {
                self.end(&unused);
                return Ok(());
            }
        }
        self.http.context.mailbox.opened(generation);
        Ok(())
    }

    /// Whether another session than the one of this generation is open, or is to be opened.
    pub(crate) fn is_replaced(&self, generation: u64) -> bool {
        self.single_flight.current().is_none_or(|(open, _)| open != generation)
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
        session: &Session,
        wait: &Arc<Wait>,
    ) -> Result<Option<Failure>, Failure> {
        // A list that cannot be had says nothing of the session.
        let outgoing = Outgoing::own(Method::Ping, RawObject::default());
        let over = Over { generation, session, again: false };
        match self.send(connection, over, &outgoing, wait, &NoSink) {
            Ok(Outcome::Error { error, .. }) => Ok(doubt_of(&error)),
            Ok(Outcome::Complete(_) | Outcome::InputRequired { .. }) => {
                session.has_worked.store(true, Ordering::Relaxed);
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
