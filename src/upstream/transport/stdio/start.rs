//! Starts a child and makes contact with it: what [`crate::upstream::session::negotiate`] decides is done here, with
//! one process or two that are waited for together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::StdioTarget;
use crate::error::Stage;
use crate::limits::{
    CHILD_START_LOOK_INTERVAL, CHILD_START_NONSENSE_LINES_MAX, ERA_PROBE_TIMEOUT,
    ERA_RECHECK_TIMEOUT,
};
use crate::protocol::jsonrpc::RequestId;
use crate::protocol::jsonrpc::RpcError;
use crate::protocol::legacy::Initialized;
use crate::protocol::raw::Raw;
use crate::upstream::handshake;
use crate::wait::{Interrupted, Wait};

use super::process::Child;
use super::stderr::StderrRing;
use crate::upstream::failure::{Failure, FailureKind, Refusal};
use crate::upstream::session::context::{NoSink, SessionContext};
use crate::upstream::session::correlation::Interest;
use crate::upstream::session::negotiate::{ChildNegotiation, Heard, Probe, Process, Step};

/// A child that has answered.
pub(crate) struct Started {
    pub(crate) child: Arc<Child>,
    pub(crate) question: Probe,
    pub(crate) initialized: Initialized,
    /// Other processes of the same start, to be ended.
    pub(crate) left: Vec<Arc<Child>>,
}

/// What a start needs.
pub(crate) struct Starter<'a> {
    pub(crate) context: &'a Arc<SessionContext>,
    pub(crate) target: &'a StdioTarget,
    pub(crate) stderr: &'a Arc<StderrRing>,
    pub(crate) wait: &'a Arc<Wait>,
}

/// A process that was asked.
struct Asking {
    child: Arc<Child>,
    question: Probe,
    id: u64,
    /// Since when it is known to have read the question.
    read_at: Option<Instant>,
    was_silent: bool,
}

/// What a process has come to.
enum Seen {
    Nothing,
    Agreed(Initialized),
    Other(Heard, Failure),
}

impl Starter<'_> {
    /// Starts the first process, and does what is to be done until one is taken.
    ///
    /// # Errors
    /// What the last process has failed of; none of them runs any more.
    pub(crate) fn run(&self, negotiation: &mut ChildNegotiation) -> Result<Started, Failure> {
        let mut asked = [Some(self.start(negotiation.first())?), None];
        let result = self.wait_for_one(&mut asked, negotiation);
        let left: Vec<Arc<Child>> =
            asked.into_iter().flatten().map(|asking| asking.child).collect();
        match result {
            Ok((taken, initialized)) => {
                taken.child.is_in_contact();
                let Asking { child, question, .. } = taken;
                Ok(Started { child, question, initialized, left })
            }
            Err(failure) => {
                left.iter().for_each(|child| child.end());
                Err(failure)
            }
        }
    }

    fn wait_for_one(
        &self,
        asked: &mut [Option<Asking>; 2],
        negotiation: &mut ChildNegotiation,
    ) -> Result<(Asking, Initialized), Failure> {
        loop {
            for (process, permit) in [(Process::First, 0), (Process::Second, 1)] {
                let Some(asking) = asked.get_mut(permit).and_then(Option::as_mut) else {
                    continue;
                };
                let (heard, failure) = match self.look(asking, negotiation) {
                    Seen::Nothing => continue,
                    Seen::Agreed(initialized) => {
                        if negotiation.next(process, Heard::Agrees) == Step::Take
                            && let Some(taken) = asked.get_mut(permit).and_then(Option::take)
                        {
                            return Ok((taken, initialized));
                        }
                        continue;
                    }
                    Seen::Other(heard, failure) => (heard, failure),
                };
                let step = negotiation.next(process, heard);
                log::debug!(target: "upstream", "{}: {process:?} child: {heard:?}, {step:?}: {}",
                    self.context.name(), self.context.scrubbed(failure.clone()).message);
                self.act(asked, permit, heard, step, failure, negotiation)?;
            }
            let until = self.wait.until(None, Some(CHILD_START_LOOK_INTERVAL));
            until.map_err(|reason| self.interrupted(reason))?;
        }
    }

    /// Does what is to be done about what was seen of the process in that place.
    fn act(
        &self,
        asked: &mut [Option<Asking>; 2],
        permit: usize,
        heard: Heard,
        step: Step,
        failure: Failure,
        negotiation: &mut ChildNegotiation,
    ) -> Result<(), Failure> {
        let place = asked.get_mut(permit);
        match step {
            Step::Ask(question) => {
                let Some(asking) = place.and_then(Option::as_mut) else { return Ok(()) };
                asking.child.shared.pending.leave(asking.id);
                (asking.question, asking.read_at, asking.was_silent) = (question, None, false);
                // One that cannot be asked has ended, which is seen next.
                if let Ok(id) = self.ask(&asking.child, question) {
                    asking.id = id;
                }
                return Ok(());
            }
            Step::Start(_) | Step::Wait | Step::GiveUp if heard == Heard::Silent => (),
            Step::Take | Step::Start(_) | Step::Wait | Step::GiveUp => {
                if let Some(over) = place.and_then(Option::take) {
                    over.child.end();
                }
            }
        }
        match step {
            // It has a place of its own, also where the first one has left one.
            Step::Start(question) => match (self.start(question), asked) {
                (Ok(fresh), [_, second]) => {
                    *second = Some(fresh);
                    Ok(())
                }
                (Err(failure), _) => match negotiation.next(Process::Second, Heard::Fails) {
                    Step::GiveUp => Err(failure),
                    Step::Take | Step::Ask(_) | Step::Start(_) | Step::Wait => Ok(()),
                },
            },
            Step::GiveUp => Err(failure),
            Step::Take | Step::Ask(_) | Step::Wait => Ok(()),
        }
    }

    fn start(&self, question: Probe) -> Result<Asking, Failure> {
        let child = Child::start(self.context, self.target, self.stderr)?;
        let id = self.ask(&child, question)?;
        Ok(Asking { child, question, id, read_at: None, was_silent: false })
    }

    fn ask(&self, child: &Child, question: Probe) -> Result<u64, Failure> {
        let id = self.context.next_id();
        let text = match question {
            Probe::Discover => {
                child.shared.noise.expect();
                handshake::discovery().to_modern_message(&RequestId::from(id))
            }
            Probe::Initialize | Probe::EventStream => {
                handshake::initialize(id, self.context.capabilities())
            }
        };
        child.ask(id, text, Interest::Shut, self.wait)?;
        Ok(id)
    }

    /// What has come of a process since the last look.
    fn look(&self, asking: &mut Asking, negotiation: &ChildNegotiation) -> Seen {
        let shared = &asking.child.shared;
        match shared.pending.look(asking.id, self.wait, &NoSink) {
            Some(Ok(answer)) => return read(asking.question, answer),
            Some(Err(failure)) => {
                let heard = match failure.kind {
                    // It is there, and its answer to the question is malformed.
                    FailureKind::Nonsense if failure.stage == Stage::Parse => Heard::Declines,
                    // A line that is too long: if it is not the answer, that one may still come,
                    // and a second question must not follow before.
                    FailureKind::Nonsense => Heard::Fails,
                    FailureKind::Broke => Heard::Ends { has_read: asking.child.has_read() },
                    FailureKind::Interrupted(_)
                    | FailureKind::SessionGone
                    | FailureKind::Refused(_)
                    | FailureKind::Unauthorized(_)
                    | FailureKind::Overloaded => Heard::Fails,
                };
                return Seen::Other(heard, failure);
            }
            None => {
                if let Some(failure) = asking.child.death() {
                    let has_read = asking.child.has_read();
                    return Seen::Other(Heard::Ends { has_read }, failure);
                }
            }
        }
        if shared.nonsense_lines() > CHILD_START_NONSENSE_LINES_MAX {
            let what = format!(
                "it writes to its standard output what is no message, {} lines by now",
                shared.nonsense_lines()
            );
            return Seen::Other(Heard::Fails, Failure::nonsense(what));
        }
        let now = Instant::now();
        if !asking.child.has_read() {
            asking.read_at = None;
            return Seen::Nothing;
        }
        let read_at = *asking.read_at.get_or_insert(now);
        if asking.was_silent || now.duration_since(read_at) < self.patience(negotiation) {
            return Seen::Nothing;
        }
        asking.was_silent = true;
        Seen::Other(
            Heard::Silent,
            Failure::interrupted(Interrupted::Deadline, Stage::Answer, true),
        )
    }

    /// How long a child that has read a question may be silent before another one is asked the
    /// other question; there must be time left for that one.
    fn patience(&self, negotiation: &ChildNegotiation) -> Duration {
        let patience =
            if negotiation.is_known() { ERA_RECHECK_TIMEOUT } else { ERA_PROBE_TIMEOUT };
        patience.min(self.context.config.start_timeout / 2)
    }

    fn interrupted(&self, reason: Interrupted) -> Failure {
        let mut failure = Failure::interrupted(reason, Stage::Answer, true);
        if reason == Interrupted::Deadline {
            let time = self.context.config.start_timeout.as_millis();
            failure.message =
                format!("it has given no answer within start_timeout_ms ({time} ms)");
        }
        failure
    }
}

fn read(question: Probe, answer: Result<Raw, RpcError>) -> Seen {
    let read = match question {
        Probe::Discover => handshake::read_discovery(answer),
        Probe::Initialize | Probe::EventStream => handshake::read_handshake(answer),
    };
    let failure = match read {
        Ok(initialized) => return Seen::Agreed(initialized),
        Err(failure) => failure,
    };
    let is_of_the_other_era = match question {
        Probe::Discover => failure.kind == FailureKind::Refused(Refusal::OtherEra),
        // A modern server refuses `initialize` in one way or another.
        Probe::Initialize | Probe::EventStream => {
            matches!(failure.kind, FailureKind::Refused(_))
        }
    };
    let heard = if is_of_the_other_era { Heard::Declines } else { Heard::Fails };
    Seen::Other(heard, failure)
}
