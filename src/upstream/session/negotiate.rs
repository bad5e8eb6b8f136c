//! Pure: which question finds out the era of a child, and when another child is asked the other
//! question (2026-07-28, basic/transports/stdio, Backward Compatibility).
//!
//! A process is never asked a second question while the first one is unanswered: it may only be
//! slow, and a server that has answered `server/discover` may refuse `initialize` in the same
//! process. What a process says, however late, is taken for the answer that it is.
//!
//! | asked | heard | step |
//! |---|---|---|
//! | either | it agrees | take it |
//! | `server/discover` | it declines | `initialize` in the same process |
//! | `initialize`, having declined the other | it declines, or ends | `initialize` in a fresh process |
//! | `initialize` | it declines | `server/discover` in a fresh process |
//! | either | it has read the question and is silent | the other question in a fresh process; both are waited for |
//! | `server/discover` | it has read the question and ends | `initialize` in a fresh process, unless it is known to be modern |
//! | either | it ends without having read the question, or fails otherwise | nothing more of this process |
//!
//! There are two processes at most in one start, and one where the start before ended so.

use crate::protocol::revision::Era;

/// What a child is asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EraProbe {
    /// `server/discover`
    Discover,
    /// `initialize`
    Initialize,
}

impl EraProbe {
    /// What one of that era agrees to.
    pub(crate) fn of(era: Era) -> EraProbe {
        match era {
            Era::Modern => EraProbe::Discover,
            Era::Legacy => EraProbe::Initialize,
        }
    }

    fn other(self) -> EraProbe {
        match self {
            EraProbe::Discover => EraProbe::Initialize,
            EraProbe::Initialize => EraProbe::Discover,
        }
    }
}

/// One of the two processes that a start may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Process {
    First,
    Second,
}

/// What is seen of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It answers as a server of the era that it was asked for.
    Agrees,
    /// It answers as a server of the other era may.
    Declines,
    /// It has read the question, and nothing has come for a while.
    Silent,
    /// It has ended.
    Ends { has_read: bool },
    /// It is of no use, whichever era it is of.
    Fails,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is the one.
    Take,
    /// The same process is asked.
    Ask(EraProbe),
    /// A fresh process is asked; the one that was heard is ended, unless it is silent.
    Start(EraProbe),
    /// The other process may still answer.
    Wait,
    /// None is left.
    GiveUp,
}

/// What is known of a server's era from one start to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    /// What it was found to be.
    pub(crate) era: Option<Era>,
    /// What the next start asks.
    first: EraProbe,
    /// The last start ended after it had read a question: a crash is more likely by now than
    /// dislike of the question, and one process a start is enough.
    is_suspect: bool,
}

impl Default for Known {
    fn default() -> Known {
        Known::new(None)
    }
}

impl Known {
    pub(crate) fn new(era: Option<Era>) -> Known {
        let first = era.map_or(EraProbe::Discover, EraProbe::of);
        Known { era, first, is_suspect: false }
    }
}

#[derive(Debug, Clone, Copy)]
struct ProbedProcess {
    question: EraProbe,
    has_declined: bool,
    is_over: bool,
}

/// One start.
#[derive(Debug)]
pub(crate) struct Negotiation {
    known: Known,
    /// Only the first question counts.
    is_single: bool,
    first: ProbedProcess,
    second: Option<ProbedProcess>,
    /// The era that was assumed has turned out to be doubtful.
    is_doubtful: bool,
    /// A process ended after it had read a question.
    has_ended_reading: bool,
}

impl Negotiation {
    pub(crate) fn new(known: Known) -> Negotiation {
        let first =
            ProbedProcess { question: known.first, has_declined: false, is_over: false };
        Negotiation {
            known,
            is_single: false,
            first,
            second: None,
            is_doubtful: false,
            has_ended_reading: false,
        }
    }

    /// A start that asks this and nothing else.
    pub(crate) fn only(question: EraProbe) -> Negotiation {
        let known = Known { era: None, first: question, is_suspect: false };
        Negotiation { is_single: true, ..Negotiation::new(known) }
    }

    /// What the first process is asked.
    pub(crate) fn first(&self) -> EraProbe {
        self.first.question
    }

    /// Whether the era is only to be confirmed.
    pub(crate) fn is_known(&self) -> bool {
        self.known.era.is_some() || self.is_single
    }

    fn asked(&mut self, process: Process) -> Option<&mut ProbedProcess> {
        match process {
            Process::First => Some(&mut self.first),
            Process::Second => self.second.as_mut(),
        }
    }

    /// What is to be done about what was seen of a process.
    pub(crate) fn next(&mut self, process: Process, heard: Heard) -> Step {
        let era = self.known.era;
        let Some(asked) = self.asked(process) else { return Step::Wait };
        let (question, has_declined) = (asked.question, asked.has_declined);
        asked.is_over = !matches!(heard, Heard::Silent | Heard::Agrees);
        if let Heard::Declines | Heard::Silent | Heard::Ends { has_read: true } = heard {
            self.is_doubtful = true;
        }
        match (heard, question) {
            (Heard::Agrees, _) => Step::Take,
            (Heard::Declines, EraProbe::Discover) if !self.is_single => {
                if let Some(asked) = self.asked(process) {
                    let question = EraProbe::Initialize;
                    *asked = ProbedProcess { question, has_declined: true, is_over: false };
                }
                Step::Ask(EraProbe::Initialize)
            }
            (Heard::Declines | Heard::Ends { .. }, EraProbe::Initialize) if has_declined => {
                self.start(EraProbe::Initialize)
            }
            (Heard::Declines, EraProbe::Discover | EraProbe::Initialize) => {
                self.start(question.other())
            }
            (Heard::Silent, _) if has_declined => Step::Wait,
            (Heard::Silent, _) => self.start(question.other()),
            (Heard::Ends { has_read }, _) => {
                self.has_ended_reading |= has_read;
                let may_dislike = question == EraProbe::Discover && era != Some(Era::Modern);
                if has_read && may_dislike && !self.known.is_suspect {
                    self.start(EraProbe::Initialize)
                } else {
                    self.rest()
                }
            }
            (Heard::Fails, _) => self.rest(),
        }
    }

    /// A fresh process, unless there has been one.
    fn start(&mut self, question: EraProbe) -> Step {
        if self.second.is_some() || self.is_single {
            return self.rest();
        }
        self.second = Some(ProbedProcess { question, has_declined: false, is_over: false });
        Step::Start(question)
    }

    /// Whether anything is left to wait for.
    fn rest(&self) -> Step {
        let is_asked = |asked: &ProbedProcess| !asked.is_over;
        if is_asked(&self.first) || self.second.as_ref().is_some_and(is_asked) {
            Step::Wait
        } else {
            Step::GiveUp
        }
    }

    /// What is known after a start that came to nothing. A process that ends without having read
    /// anything says nothing of its era.
    pub(crate) fn failed(&self) -> Known {
        if self.is_single || !self.is_doubtful {
            return self.known;
        }
        let first = self.known.first.other();
        Known { era: None, first, is_suspect: self.has_ended_reading }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use EraProbe::{Discover, Initialize};
    use Heard::{Agrees, Declines, Fails, Silent};
    use Process::{First, Second};
    use Step::{Ask, GiveUp, Start, Take, Wait};

    const CRASHES: Heard = Heard::Ends { has_read: false };
    const CHOKES: Heard = Heard::Ends { has_read: true };

    fn check(era: Option<Era>, first: EraProbe, seen: &[(Process, Heard, Step)]) -> Known {
        let mut negotiation = Negotiation::new(Known::new(era));
        assert_eq!(negotiation.first(), first);
        for (n, (process, heard, step)) in seen.iter().enumerate() {
            assert_eq!(negotiation.next(*process, *heard), *step, "{era:?}, step {n}");
        }
        negotiation.failed()
    }

    #[test]
    fn the_table_is_followed() {
        let (modern, legacy) = (Some(Era::Modern), Some(Era::Legacy));
        check(None, Discover, &[(First, Agrees, Take)]);
        check(None, Discover, &[(First, Declines, Ask(Initialize)), (First, Agrees, Take)]);
        let again = [
            (First, Declines, Ask(Initialize)),
            (First, Declines, Start(Initialize)),
            (Second, Declines, GiveUp),
        ];
        check(None, Discover, &again);
        check(None, Discover, &[(First, CHOKES, Start(Initialize)), (Second, Agrees, Take)]);
        check(None, Discover, &[(First, CRASHES, GiveUp)]);
        check(None, Discover, &[(First, Fails, GiveUp)]);
        check(modern, Discover, &[(First, CHOKES, GiveUp)]);
        check(modern, Discover, &[(First, Declines, Ask(Initialize)), (First, Agrees, Take)]);
        check(legacy, Initialize, &[(First, Agrees, Take)]);
        check(
            legacy,
            Initialize,
            &[(First, Declines, Start(Discover)), (Second, Agrees, Take)],
        );
        check(legacy, Initialize, &[(First, CHOKES, GiveUp)]);
    }

    #[test]
    fn both_are_waited_for_and_the_first_that_agrees_is_taken_in_either_order() {
        let silent = (First, Silent, Start(Initialize));
        check(None, Discover, &[silent, (First, Agrees, Take)]);
        check(None, Discover, &[silent, (Second, Agrees, Take)]);
        check(None, Discover, &[silent, (Second, Silent, Wait), (First, Agrees, Take)]);
        let late_refusal = [silent, (First, Declines, Ask(Initialize)), (Second, Agrees, Take)];
        check(None, Discover, &late_refusal);
        check(None, Discover, &[silent, (Second, Declines, Wait), (First, Agrees, Take)]);
        check(None, Discover, &[silent, (Second, CHOKES, Wait), (First, CRASHES, GiveUp)]);
        check(None, Discover, &[silent, (First, CRASHES, Wait), (Second, Agrees, Take)]);
        let known = (First, Silent, Start(Discover));
        check(Some(Era::Legacy), Initialize, &[known, (First, Agrees, Take)]);
    }

    #[test]
    fn a_start_has_two_processes_at_most() {
        let seen = [
            (First, Silent, Start(Initialize)),
            (First, Silent, Wait),
            (Second, Declines, Wait),
            (First, Declines, Ask(Initialize)),
            (First, Declines, GiveUp),
        ];
        check(None, Discover, &seen);
    }

    #[test]
    fn an_assumption_that_failed_is_no_more_and_a_crash_says_nothing() {
        let legacy = Some(Era::Legacy);
        assert_eq!(check(legacy, Initialize, &[(First, CRASHES, GiveUp)]).era, legacy);
        let choked = check(legacy, Initialize, &[(First, CHOKES, GiveUp)]);
        assert_eq!((choked.era, choked.first), (None, Discover));
        // From there on a start has one process, and the questions take turns.
        let mut next = Negotiation::new(choked);
        assert_eq!(next.next(First, CHOKES), GiveUp);
        let mut next = Negotiation::new(next.failed());
        assert_eq!((next.first(), next.next(First, CHOKES)), (Initialize, GiveUp));
        assert_eq!(next.failed().first, Discover);
    }

    #[test]
    fn what_is_asked_one_thing_only_is_asked_nothing_else() {
        for heard in [Declines, Fails, CHOKES, CRASHES] {
            assert_eq!(Negotiation::only(Initialize).next(First, heard), GiveUp);
        }
        assert_eq!(Negotiation::only(Initialize).next(First, Silent), Wait);
    }
}
