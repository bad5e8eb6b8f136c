//! Pure: which question finds out what a server speaks, and what follows its answer: its era
//! (2026-07-28, basic/versioning, Backward Compatibility; basic/transports/stdio), and over HTTP
//! its transport (2025-11-25, basic/transports, Backwards Compatibility).
//!
//! Over HTTP every question is a request of its own, and each is asked once in one opening.
//!
//! | asked over HTTP | heard | step |
//! |---|---|---|
//! | any | it agrees | take it |
//! | `server/discover` | it declines or is silent | `initialize`, or HTTP+SSE's stream where that is known to be its transport |
//! | `initialize` | it declines as one that speaks HTTP+SSE may | the stream, where the transport is to be found out |
//! | `initialize`, the stream | it declines | `server/discover`, if it was only taken for a server with sessions |
//! | any | it fails otherwise | nothing more |
//!
//! A child's process is never asked a second question while the first one is unanswered: it may
//! only be slow, and a server that has answered `server/discover` may refuse `initialize` in the
//! same process. What a process says, however late, is taken for the answer that it is.
//!
//! | asked of a child | heard | step |
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

use crate::config::HttpKind;
use crate::protocol::revision::Era;

/// What a server can be asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// `server/discover`
    Discover,
    /// `initialize`, over HTTP as a POST of Streamable HTTP.
    Initialize,
    /// The GET that opens the stream of HTTP+SSE, with `initialize` behind it.
    EventStream,
}

/// A transport over HTTP on which a server keeps sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HttpTransport {
    StreamableHttp,
    /// That of 2024-11-05.
    HttpSse,
}

/// Why a session is opened, or its server is asked what it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// None is open.
    Open,
    /// A client keeps a session of its own with a server that is known to need none.
    WithSession,
    /// A session of this era is open, and its server may be of the other one: it has refused a
    /// request so, or was away and may be another server.
    Recheck(Era, Trust),
}

impl Probe {
    /// What one of that era agrees to.
    pub(crate) fn of(era: Era) -> Probe {
        match era {
            Era::Modern => Probe::Discover,
            Era::Legacy => Probe::Initialize,
        }
    }

    fn other(self) -> Probe {
        match self {
            Probe::Discover => Probe::Initialize,
            Probe::Initialize | Probe::EventStream => Probe::Discover,
        }
    }
}

/// One of the two processes that a start may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Process {
    First,
    Second,
}

/// What came of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It answers as a server of the era that it was asked for.
    Agrees,
    /// It answers as a server of the other era may.
    Declines,
    /// It refuses `initialize` as a server does that speaks HTTP+SSE, or as one of the other era.
    DeclinesTransport,
    /// It has read the question, and nothing has come for a while.
    Silent,
    /// It has ended.
    Ends { has_read: bool },
    /// It is of no use, whichever era it is of.
    Fails,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is the one.
    Take,
    /// The server is asked this, a child in the same process.
    Ask(Probe),
    /// A fresh process is asked; the one that was heard is ended, unless it is silent.
    Start(Probe),
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
    first: Probe,
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
        let first = era.map_or(Probe::Discover, Probe::of);
        Known { era, first, is_suspect: false }
    }
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    question: Probe,
    has_declined: bool,
    is_over: bool,
}

/// The questions of one start of a child.
#[derive(Debug)]
pub(crate) struct ChildNegotiation {
    known: Known,
    /// Only the first question counts.
    is_single: bool,
    first: Asked,
    second: Option<Asked>,
    /// The era that was assumed has turned out to be doubtful.
    is_doubtful: bool,
    /// A process ended after it had read a question.
    has_ended_reading: bool,
}

impl ChildNegotiation {
    pub(crate) fn new(known: Known) -> ChildNegotiation {
        let first = Asked { question: known.first, has_declined: false, is_over: false };
        ChildNegotiation {
            known,
            is_single: false,
            first,
            second: None,
            is_doubtful: false,
            has_ended_reading: false,
        }
    }

    /// A start that asks this and nothing else.
    pub(crate) fn only(question: Probe) -> ChildNegotiation {
        let known = Known { era: None, first: question, is_suspect: false };
        ChildNegotiation { is_single: true, ..ChildNegotiation::new(known) }
    }

    /// What the first process is asked.
    pub(crate) fn first(&self) -> Probe {
        self.first.question
    }

    /// Whether the era is only to be confirmed.
    pub(crate) fn is_known(&self) -> bool {
        self.known.era.is_some() || self.is_single
    }

    fn asked(&mut self, process: Process) -> Option<&mut Asked> {
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
            (Heard::Declines | Heard::DeclinesTransport, Probe::Discover)
                if !self.is_single =>
            {
                if let Some(asked) = self.asked(process) {
                    let question = Probe::Initialize;
                    *asked = Asked { question, has_declined: true, is_over: false };
                }
                Step::Ask(Probe::Initialize)
            }
            (
                Heard::Declines | Heard::DeclinesTransport | Heard::Ends { .. },
                Probe::Initialize | Probe::EventStream,
            ) if has_declined => self.start(Probe::Initialize),
            (Heard::Declines | Heard::DeclinesTransport, _) => self.start(question.other()),
            (Heard::Silent, _) if has_declined => Step::Wait,
            (Heard::Silent, _) => self.start(question.other()),
            (Heard::Ends { has_read }, _) => {
                self.has_ended_reading |= has_read;
                let may_dislike = question == Probe::Discover && era != Some(Era::Modern);
                if has_read && may_dislike && !self.known.is_suspect {
                    self.start(Probe::Initialize)
                } else {
                    self.rest()
                }
            }
            (Heard::Fails, _) => self.rest(),
        }
    }

    /// A fresh process, unless there has been one.
    fn start(&mut self, question: Probe) -> Step {
        if self.second.is_some() || self.is_single {
            return self.rest();
        }
        self.second = Some(Asked { question, has_declined: false, is_over: false });
        Step::Start(question)
    }

    /// Whether anything is left to wait for.
    fn rest(&self) -> Step {
        let is_asked = |asked: &Asked| !asked.is_over;
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

/// What is known of a server's era when it is asked `server/discover`: how much it takes to be
/// taken for a server with sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Nothing: silence, or an answer that makes no sense, is enough.
    Unknown,
    /// It was found to need no sessions.
    Modern,
    /// What was found is in doubt: an answer is needed.
    Doubted,
}

/// The questions of one opening over HTTP.
#[derive(Debug)]
pub(crate) struct HttpNegotiation {
    asked: Probe,
    trust: Trust,
    /// What a server with sessions is asked.
    sessions: Option<Probe>,
    /// The other thing that it may be asked, where its transport is to be found out.
    stream: Option<Probe>,
    /// What a server is asked that was only taken for one with sessions.
    discover: Option<Probe>,
}

impl HttpNegotiation {
    /// `known`: the era and, where it is to be found out, the transport that was found before.
    pub(crate) fn new(
        purpose: Purpose,
        kind: HttpKind,
        era: Option<Era>,
        transport: Option<HttpTransport>,
    ) -> HttpNegotiation {
        let (sessions, stream) = match (kind, transport) {
            (HttpKind::HttpSse, _) | (HttpKind::Auto, Some(HttpTransport::HttpSse)) => {
                (Probe::EventStream, None)
            }
            (HttpKind::StreamableHttp, _)
            | (HttpKind::Auto, Some(HttpTransport::StreamableHttp)) => {
                (Probe::Initialize, None)
            }
            (HttpKind::Auto, None) => (Probe::Initialize, Some(Probe::EventStream)),
        };
        // No server without sessions speaks HTTP+SSE.
        let discover = (kind != HttpKind::HttpSse).then_some(Probe::Discover);
        let (asked, trust) = match (purpose, era) {
            (Purpose::Open, None) => (discover, Trust::Unknown),
            (Purpose::Open, Some(Era::Modern)) => (discover, Trust::Modern),
            (Purpose::Recheck(_, trust), _) => (discover, trust),
            (Purpose::Open, Some(Era::Legacy)) | (Purpose::WithSession, _) => {
                (None, Trust::Doubted)
            }
        };
        let is_only_taken_for = (purpose, era) == (Purpose::Open, Some(Era::Legacy));
        let is_open = matches!(purpose, Purpose::Recheck(Era::Legacy, _));
        HttpNegotiation {
            asked: asked.unwrap_or(sessions),
            trust,
            sessions: asked.and(Some(sessions)).filter(|_| !is_open),
            stream,
            discover: discover.filter(|_| is_only_taken_for),
        }
    }

    /// What the server is asked at present.
    pub(crate) fn asked(&self) -> Probe {
        self.asked
    }

    /// What is known of it, if that is `server/discover`.
    pub(crate) fn trust(&self) -> Trust {
        self.trust
    }

    /// What is to be done about what came of that.
    pub(crate) fn next(&mut self, heard: Heard) -> Step {
        let next = match (self.asked, heard) {
            (_, Heard::Agrees) => return Step::Take,
            (_, Heard::Fails | Heard::Ends { .. }) => None,
            (Probe::Discover, Heard::Declines | Heard::DeclinesTransport | Heard::Silent) => {
                self.sessions.take()
            }
            (Probe::Initialize | Probe::EventStream, Heard::Silent) => None,
            (Probe::Initialize, Heard::DeclinesTransport) => {
                self.stream.take().or_else(|| self.discover.take())
            }
            (Probe::Initialize, Heard::Declines)
            | (Probe::EventStream, Heard::Declines | Heard::DeclinesTransport) => {
                self.discover.take()
            }
        };
        let Some(next) = next else { return Step::GiveUp };
        self.asked = next;
        Step::Ask(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Heard::{Agrees, Declines, Fails, Silent};
    use Probe::{Discover, EventStream, Initialize};
    use Process::{First, Second};
    use Step::{Ask, GiveUp, Start, Take, Wait};

    const CRASHES: Heard = Heard::Ends { has_read: false };
    const CHOKES: Heard = Heard::Ends { has_read: true };

    fn check(era: Option<Era>, first: Probe, seen: &[(Process, Heard, Step)]) -> Known {
        let mut negotiation = ChildNegotiation::new(Known::new(era));
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
        let mut next = ChildNegotiation::new(choked);
        assert_eq!(next.next(First, CHOKES), GiveUp);
        let mut next = ChildNegotiation::new(next.failed());
        assert_eq!((next.first(), next.next(First, CHOKES)), (Initialize, GiveUp));
        assert_eq!(next.failed().first, Discover);
    }

    #[test]
    fn what_is_asked_one_thing_only_is_asked_nothing_else() {
        for heard in [Declines, Fails, CHOKES, CRASHES] {
            assert_eq!(ChildNegotiation::only(Initialize).next(First, heard), GiveUp);
        }
        assert_eq!(ChildNegotiation::only(Initialize).next(First, Silent), Wait);
    }

    /// Asks what the table says until it says no more; the questions in their order.
    #[track_caller]
    fn over_http(
        (purpose, kind): (Purpose, HttpKind),
        known: (Option<Era>, Option<HttpTransport>),
        heard: &[Heard],
        asked: &[Probe],
    ) {
        let mut negotiation = HttpNegotiation::new(purpose, kind, known.0, known.1);
        let mut all = vec![negotiation.asked()];
        for heard in heard {
            match negotiation.next(*heard) {
                Ask(question) => all.push(question),
                step @ (Take | Start(_) | Wait | GiveUp) => {
                    assert_eq!(step, if *heard == Agrees { Take } else { GiveUp });
                }
            }
        }
        assert_eq!(all, asked);
    }

    #[test]
    fn over_http_a_server_without_sessions_is_looked_for_first_and_the_oldest_transport_last() {
        let (open, none) = ((Purpose::Open, HttpKind::Auto), (None, None));
        let hints = Heard::DeclinesTransport;
        over_http(open, none, &[Agrees], &[Discover]);
        over_http(open, none, &[Fails], &[Discover]);
        over_http(open, none, &[Declines, Agrees], &[Discover, Initialize]);
        over_http(open, none, &[Silent, Declines], &[Discover, Initialize]);
        let all = [Discover, Initialize, EventStream];
        over_http(open, none, &[Declines, hints, Agrees], &all);
        over_http(open, none, &[Declines, hints, Declines], &all);
        let streamable = (Purpose::Open, HttpKind::StreamableHttp);
        over_http(streamable, none, &[Declines, hints], &[Discover, Initialize]);
        let sse = (Purpose::Open, HttpKind::HttpSse);
        over_http(sse, (Some(Era::Legacy), None), &[Declines], &[EventStream]);
    }

    #[test]
    fn over_http_what_was_found_is_asked_first_and_doubted_where_it_is_declined() {
        let open = (Purpose::Open, HttpKind::Auto);
        let known = |era, transport| (Some(era), transport);
        let hints = Heard::DeclinesTransport;
        let legacy = known(Era::Legacy, Some(HttpTransport::StreamableHttp));
        over_http(open, legacy, &[hints, Declines], &[Initialize, Discover]);
        over_http(open, legacy, &[Fails], &[Initialize]);
        let sse = known(Era::Legacy, Some(HttpTransport::HttpSse));
        over_http(open, sse, &[Declines, Agrees], &[EventStream, Discover]);
        let all = [Initialize, EventStream, Discover];
        over_http(open, known(Era::Legacy, None), &[hints, Declines, Declines], &all);
        let modern = known(Era::Modern, Some(HttpTransport::HttpSse));
        over_http(open, modern, &[Declines, Declines], &[Discover, EventStream]);
        let own = (Purpose::WithSession, HttpKind::StreamableHttp);
        over_http(own, known(Era::Modern, None), &[Declines], &[Initialize]);
    }

    #[test]
    fn over_http_an_open_session_is_asked_for_the_other_era_only() {
        for trust in [Trust::Unknown, Trust::Doubted] {
            let legacy = (Purpose::Recheck(Era::Legacy, trust), HttpKind::Auto);
            over_http(legacy, (Some(Era::Legacy), None), &[Declines], &[Discover]);
            let modern = (Purpose::Recheck(Era::Modern, trust), HttpKind::Auto);
            over_http(modern, (None, None), &[Declines, Agrees], &[Discover, Initialize]);
        }
    }
}
