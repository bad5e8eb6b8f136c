//! The supervisors' part in making a server equal to what is wanted of it: subscriptions, and the
//! level of log messages. What the server does not take is told again, with pauses.

use std::time::{Duration, Instant};

use crate::limits::SUBSCRIPTIONS_A_TURN;
use crate::protocol::call::Outcome;
use crate::protocol::jsonrpc::code;

use super::DesiredSubscriptions;
use super::next_step::Step;
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

/// Tells the session one step about a resource.
type Tell<'a> = &'a mut dyn FnMut(Step, &str) -> Result<Outcome, Failure>;

/// The supervisor's part: when it tells its server what is due, and what failed again.
#[derive(Default)]
pub(crate) struct Reconciling {
    retry: Retry,
    /// The server has not answered: until the next try nothing is told.
    is_silent: bool,
    /// What was logged last.
    noted: Option<String>,
}

impl Reconciling {
    /// True if the server is to be told something now.
    pub(crate) fn is_due(&self, desired: &DesiredSubscriptions, now: Instant) -> bool {
        match self.retry.at() {
            Some(at) if at <= now => true,
            Some(_) if self.is_silent => false,
            Some(_) | None => desired.has_due(),
        }
    }

    /// When the server is to be told something next; none where it has taken all.
    pub(crate) fn at(&self, desired: &DesiredSubscriptions, now: Instant) -> Option<Instant> {
        if self.is_due(desired, now) { Some(now) } else { self.retry.at() }
    }

    /// Tells the session of that generation what is due, but no more than [`SUBSCRIPTIONS_A_TURN`]: the supervisor has
    /// other duties. Gives what is to be logged of a resource that could not be subscribed to.
    pub(crate) fn run(
        &mut self,
        desired: &DesiredSubscriptions,
        generation: u64,
        now: Instant,
        tell: Tell<'_>,
    ) -> Option<String> {
        if !self.retry.is_waiting(now) {
            self.retry.give_up();
            self.is_silent = false;
            desired.resume();
        }
        let (mut has_failed, mut failed, mut pause) = (false, None, None);
        for _ in 0..SUBSCRIPTIONS_A_TURN {
            let Some((turn, step)) = desired.next() else { break };
            let (what, is_answered, asked) = match Taken::of(tell(step, turn.uri())) {
                Taken::Failed { what, is_answered, asked }
                    if step == Step::Subscribe || !is_answered =>
                {
                    (what, is_answered, asked)
                }
                // What the server does not end when it is asked to, it will not end later either.
                Taken::Failed { .. } | Taken::Settled => {
                    turn.told(step, generation);
                    continue;
                }
            };
            turn.put_off();
            has_failed = true;
            pause = pause.max(asked);
            match step {
                Step::Subscribe => drop(failed.get_or_insert(what)),
                Step::Unsubscribe => {
                    log::debug!(target: "upstream", "a subscription could not be taken back: {what}");
                }
            }
            if !is_answered {
                self.is_silent = true;
                break;
            }
        }
        let now = Instant::now();
        if has_failed && (!self.retry.is_waiting(now) || pause.is_some()) {
            self.retry.failed(now, pause);
        } else if !desired.has_steps() {
            self.retry.went_well();
            self.noted = None;
        }
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
    use crate::error::Stage;
    use crate::limits::BACKOFF_MIN;
    use crate::protocol::jsonrpc::RpcError;
    use crate::protocol::raw::Raw;
    use crate::protocol::server_name::ServerName;
    use crate::protocol::subscriber::Subscriber;
    use crate::upstream::failure::FailureKind;
    use crate::wait::Wait;

    /// A set of these resources, one a subscriber, on a session that was just opened anew.
    fn wanted(uris: &[String]) -> (DesiredSubscriptions, Vec<Subscriber>) {
        let desired = DesiredSubscriptions::default();
        let wait = Wait::plain(Duration::from_secs(5)).unwrap();
        let subscribe = |uri: &String| {
            let who = Subscriber::fresh();
            let turn = desired.turn(uri, None, &wait).unwrap();
            turn.add(who, None);
            turn.told(Step::Subscribe, 0);
            who
        };
        let subscribers = uris.iter().map(subscribe).collect();
        desired.opened(1, &wait);
        (desired, subscribers)
    }

    fn named(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn ok() -> Result<Outcome, Failure> {
        Ok(Outcome::Complete(Raw::from_valid("{}".to_owned())))
    }

    fn silent() -> Result<Outcome, Failure> {
        Err(Failure::new(FailureKind::Broke, Stage::Read, "no answer"))
    }

    #[test]
    fn so_many_are_told_a_turn_and_then_the_next_ones() {
        let n_more = 3;
        let uris: Vec<_> =
            (0..SUBSCRIPTIONS_A_TURN + n_more).map(|n| format!("{n}:")).collect();
        let (desired, _) = wanted(&uris);
        let (mut reconciling, now) = (Reconciling::default(), Instant::now());
        for n in [SUBSCRIPTIONS_A_TURN, n_more] {
            assert_eq!(reconciling.at(&desired, now), Some(now));
            let mut n_told = 0;
            let told = reconciling.run(&desired, 1, now, &mut |_, _| {
                n_told += 1;
                ok()
            });
            assert_eq!((told, n_told), (None, n));
        }
        assert_eq!(reconciling.at(&desired, now), None);
    }

    #[test]
    fn a_server_that_does_not_answer_is_left_alone_for_a_while_and_told_all_then() {
        let (desired, subscribers) = wanted(&named(&["a:", "b:"]));
        let (mut reconciling, mut told) = (Reconciling::default(), Vec::new());
        let now = Instant::now();
        reconciling.run(&desired, 1, now, &mut |_, _| ok());
        for (uri, who) in ["a:", "b:"].into_iter().zip(&subscribers) {
            desired.forget(uri, *who);
        }
        reconciling.run(&desired, 1, now, &mut |step, uri| {
            told.push((step, uri.to_owned()));
            silent()
        });
        assert_eq!(told, [(Step::Unsubscribe, "a:".to_owned())]);
        assert!(desired.has_due() && !reconciling.is_due(&desired, now));
        let at = reconciling.at(&desired, now).unwrap();
        assert!(at > now && reconciling.is_due(&desired, at));
        let mut n_told = 0;
        reconciling.run(&desired, 1, at, &mut |_, _| {
            n_told += 1;
            ok()
        });
        assert_eq!(
            (n_told, desired.has_steps(), reconciling.at(&desired, at)),
            (2, false, None)
        );
    }

    #[test]
    fn what_the_server_refuses_holds_up_nothing_else_and_is_logged_once() {
        let (desired, subscribers) = wanted(&named(&["a:", "b:"]));
        let mut reconciling = Reconciling::default();
        let refuse_a = |_: Step, uri: &str| {
            if uri != "a:" {
                return ok();
            }
            let server = ServerName::parse("s").unwrap();
            Ok(Outcome::Error { server, error: RpcError::new(-32000, "not this one") })
        };
        let now = Instant::now();
        assert!(reconciling.run(&desired, 1, now, &mut { refuse_a }).is_some());
        assert!(!reconciling.is_due(&desired, now));
        // The other one is told of at once, also while that is waited for.
        desired.forget("b:", subscribers[1]);
        assert!(reconciling.is_due(&desired, now));
        assert_eq!(reconciling.run(&desired, 1, now, &mut { refuse_a }), None);
        let at = reconciling.at(&desired, now).unwrap();
        assert_eq!(reconciling.run(&desired, 1, at, &mut { refuse_a }), None, "it is known");
    }

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
