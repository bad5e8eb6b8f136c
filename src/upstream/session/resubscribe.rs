//! Tells a session that was opened anew of what is subscribed to over it, and goes on with that
//! until the session has taken it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::limits::CONTROL_TIMEOUT;
use crate::protocol::call::Outcome;
use crate::protocol::jsonrpc::code;
use crate::wait::Wait;

use super::desired_subscriptions::DesiredSubscriptions;
use crate::upstream::backoff::Retry;
use crate::upstream::failure::{Failure, cut};

/// What came of one request of the gateway's own.
pub(crate) enum Taken {
    /// The upstream has done it, or has no such method: there is nothing to try again.
    Settled,
    /// It is tried again.
    Failed {
        what: String,
        /// The upstream answered, and may answer others.
        is_answered: bool,
        /// How long the upstream wants to be left alone.
        asked: Option<Duration>,
    },
}

impl Taken {
    pub(crate) fn of(answer: Result<Outcome, Failure>) -> Taken {
        match answer {
            Ok(Outcome::Complete(_)) => Taken::Settled,
            Ok(Outcome::Error { error, .. }) if error.code == code::METHOD_NOT_FOUND => {
                Taken::Settled
            }
            Ok(Outcome::Error { error, .. }) => Taken::Failed {
                what: format!("{} ({})", cut(&error.message), error.code),
                is_answered: true,
                asked: None,
            },
            Ok(Outcome::InputRequired { .. }) => Taken::Failed {
                what: "it wants input for what takes none".to_owned(),
                is_answered: true,
                asked: None,
            },
            Err(failure) => {
                let asked = failure.asked_pause();
                Taken::Failed { what: failure.message, is_answered: false, asked }
            }
        }
    }
}

/// Subscribes the session to one resource.
type Subscribe<'a> = &'a mut dyn FnMut(&str, &Arc<Wait>) -> Result<Outcome, Failure>;

/// How far that is.
#[derive(Default)]
pub(crate) struct Resubscribing {
    /// The session that is told.
    generation: u64,
    /// What it has taken.
    told: HashSet<String>,
    is_over: bool,
    retry: Retry,
    /// What was logged last.
    noted: Option<String>,
}

impl Resubscribing {
    /// This session need not be told: whoever subscribes from here on tells it, or a later one.
    pub(crate) fn settle(&mut self, generation: u64) {
        self.begin(generation);
        self.is_over = true;
        self.retry.give_up();
    }

    fn begin(&mut self, generation: u64) {
        if self.generation != generation {
            (self.generation, self.is_over) = (generation, false);
            self.told.clear();
        }
    }

    /// Whether the session is to be told now.
    pub(crate) fn is_due(&self, generation: u64, now: Instant) -> bool {
        let is_over = self.generation == generation && self.is_over;
        !is_over && !self.retry.is_waiting(now)
    }

    /// When the session is to be told again; none where it has taken all.
    pub(crate) fn at(&self) -> Option<Instant> {
        self.retry.at()
    }

    /// Tells the session what it has not taken yet; gives what is to be logged, if anything.
    pub(crate) fn run(
        &mut self,
        generation: u64,
        desired: &DesiredSubscriptions,
        busy: &dyn Fn() -> Result<Arc<Wait>, Failure>,
        subscribe: Subscribe<'_>,
    ) -> Option<String> {
        self.begin(generation);
        let (mut failed, mut pause) = (None, None);
        let mut is_complete = true;
        for uri in desired.uris_or_coming() {
            if self.told.contains(&uri) {
                continue;
            }
            let Ok(wait) = busy() else {
                is_complete = false;
                break;
            };
            // Not for long: the one whose turn it is may be waiting for this thread, or be
            // telling another session.
            let bound = wait.within(CONTROL_TIMEOUT);
            let turn = desired.turn(&uri, None, &wait);
            drop(bound);
            let Ok(turn) = turn else {
                is_complete = false;
                continue;
            };
            // The last subscriber may have gone meanwhile.
            if !turn.is_wanted() {
                continue;
            }
            match Taken::of(subscribe(&uri, &wait)) {
                Taken::Settled => drop(self.told.insert(uri.clone())),
                Taken::Failed { what, is_answered, asked } => {
                    is_complete = false;
                    pause = pause.max(asked);
                    failed.get_or_insert(what);
                    if !is_answered {
                        break;
                    }
                }
            }
        }
        if is_complete {
            self.is_over = true;
            self.retry.went_well();
            self.noted = None;
            return None;
        }
        self.retry.failed(Instant::now(), pause);
        failed.filter(|what| self.noted.as_ref() != Some(what)).inspect(|what| {
            self.noted = Some(what.clone());
        })
    }
}

/// The level of log messages that a session has been told.
#[derive(Default)]
pub(crate) struct LogLevelTold {
    told: Option<(u64, String)>,
    retry: Retry,
}

impl LogLevelTold {
    /// Whether this session is to be told that level now. One that has it waits for nothing,
    /// also where it has refused another one in between.
    pub(crate) fn is_due(&mut self, generation: u64, level: &str, now: Instant) -> bool {
        if self.told.as_ref().is_some_and(|(of, told)| *of == generation && told == level) {
            self.retry.give_up();
            return false;
        }
        !self.retry.is_waiting(now)
    }

    /// The session has no log messages.
    pub(crate) fn give_up(&mut self) {
        self.retry.give_up();
    }

    /// When a session that has not taken it is told again.
    pub(crate) fn at(&self) -> Option<Instant> {
        self.retry.at()
    }

    /// What came of telling it; gives what is to be logged, if anything.
    pub(crate) fn told(
        &mut self,
        generation: u64,
        level: &str,
        taken: Taken,
    ) -> Option<String> {
        match taken {
            Taken::Settled => {
                self.told = Some((generation, level.to_owned()));
                self.retry.went_well();
                None
            }
            Taken::Failed { what, asked, .. } => {
                let is_first = self.retry.is_first();
                self.retry.failed(Instant::now(), asked);
                is_first.then_some(what)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::BACKOFF_MIN;

    fn refused(asked: Option<Duration>) -> Taken {
        Taken::Failed { what: "no such level".to_owned(), is_answered: true, asked }
    }

    #[test]
    fn a_level_that_is_told_is_waited_for_no_more_although_another_was_refused_since() {
        let (mut level, now) = (LogLevelTold::default(), Instant::now());
        assert!(level.is_due(1, "info", now));
        assert_eq!(level.told(1, "info", Taken::Settled), None);
        assert!(level.is_due(1, "debug", now));
        assert!(level.told(1, "debug", refused(None)).is_some());
        assert!(!level.is_due(1, "debug", now) && level.at().is_some());
        // Its first choice again.
        assert!(!level.is_due(1, "info", now + BACKOFF_MIN * 2));
        assert_eq!(level.at(), None, "there is nothing to wait for");
        assert!(level.is_due(2, "info", now), "another session does not know it");
    }

    #[test]
    fn a_level_is_told_again_when_the_server_wants_to_be_asked() {
        let (mut level, now) = (LogLevelTold::default(), Instant::now());
        let asked = Duration::from_secs(20);
        level.told(1, "info", refused(Some(asked)));
        assert!(level.at().is_some_and(|at| at >= now + asked));
    }
}
