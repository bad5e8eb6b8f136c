//! Pure: whether calls are let through to an upstream, and what they are told if not.
//!
//! There is one for each upstream: its supervisor and all its calls tell it what they saw. It
//! opens when so many attempts in a row failed in transport that another one would too, and
//! where only the supervisor can bring the upstream back, while that waits for its next attempt.
//! Any answer of the upstream closes it.

use std::time::{Duration, Instant};

use crate::error::Stage;
use crate::limits::{BREAKER_FAILURES_MAX, PROBE_BY_CALL_INTERVAL, PROBE_PAUSE_FACTOR};
use crate::protocol::session_route::SessionKind;
use crate::wait::Interrupted;

use crate::upstream::failure::{Failure, FailureKind, Refusal};
use crate::upstream::session::single_flight::OpenedBy;
use crate::upstream::status::{FailureReport, State};

/// See above.
#[derive(Debug)]
pub(crate) struct Breaker {
    contact: Contact,
    /// Attempts that failed in a row.
    failures: u32,
    /// The first of what failed since the upstream was well, and the last.
    failed: Option<(FailureReport, FailureReport)>,
    /// Attempts of the supervisor without contact in a row, whatever they failed of.
    attempts: u32,
    /// Not sooner than then may a call see whether the upstream is back.
    probe_at: Option<Instant>,
    /// A call is let through to see whether the upstream is back.
    is_probed: bool,
    /// A call went well since the supervisor made contact.
    has_served: bool,
    /// When the supervisor was last asked to see whether the upstream is well.
    suspected: Option<Instant>,
    /// Who opens the shared session: who can bring the upstream back.
    opener: OpenedBy,
}

/// How the supervisor is with the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contact {
    /// It makes first contact, or starts again what only it can start.
    Making {
        since: Instant,
    },
    Made,
    /// It tries again then; it is at it when that has passed.
    Waiting {
        next_try: Instant,
    },
}

/// What an attempt without success says of the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureClass {
    /// Somebody is there, but that it does what it should is not known.
    Answered,
    /// Another attempt would fail in the same way.
    Failed,
    Nothing,
}

/// Whether a deadline that ended an attempt was the upstream's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeadlineOwner {
    /// It had all the time that the configuration gives, and said nothing.
    Full,
    /// The caller wanted to wait for less, or it was heard of meanwhile.
    Short,
}

/// An upstream that calls are not let through to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Down {
    pub(crate) first: FailureReport,
    pub(crate) last: FailureReport,
    /// Zero while it is being tried.
    pub(crate) next_try: Duration,
}

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Admission {
    Passed,
    /// It is let through to see whether the upstream is back; tell what came of it, or
    /// [`Breaker::probe_left`].
    Probe,
    Refused(Box<Down>),
}

impl FailureClass {
    /// What a failure says. Not what belongs to one request alone: a refusal, or a time that
    /// only its caller set.
    pub(crate) fn of(failure: &Failure, patience: DeadlineOwner) -> FailureClass {
        match failure.kind {
            FailureKind::Broke => FailureClass::Failed,
            FailureKind::Interrupted(Interrupted::Deadline)
                if patience == DeadlineOwner::Full
                    && failure.stage != Stage::Slot
                    && failure.starting.is_none() =>
            {
                FailureClass::Failed
            }
            FailureKind::SessionGone
            | FailureKind::Unauthorized(_)
            | FailureKind::Refused(
                Refusal::Plain | Refusal::OtherEra | Refusal::MaybeHttpSse,
            ) => FailureClass::Answered,
            FailureKind::Interrupted(
                Interrupted::Deadline
                | Interrupted::Cancelled
                | Interrupted::ClientGone
                | Interrupted::Stopping
                | Interrupted::Retired,
            )
            | FailureKind::Refused(Refusal::Stateless)
            | FailureKind::Nonsense
            | FailureKind::Overloaded => FailureClass::Nothing,
        }
    }
}

impl Breaker {
    pub(crate) fn new(opener: OpenedBy, now: Instant) -> Breaker {
        Breaker {
            contact: Contact::Making { since: now },
            failures: 0,
            failed: None,
            attempts: 0,
            probe_at: None,
            is_probed: false,
            has_served: false,
            suspected: None,
            opener,
        }
    }

    /// For `/status`.
    pub(crate) fn state(&self, now: Instant) -> State {
        if let Some(Down { next_try, .. }) = self.down(now, SessionKind::Shared) {
            return State::Down { next_try };
        }
        match self.contact {
            Contact::Making { since } => {
                State::Starting { taken: now.saturating_duration_since(since) }
            }
            Contact::Made => State::Ready,
            Contact::Waiting { next_try } => {
                State::BackingOff { next_try: next_try.saturating_duration_since(now) }
            }
        }
    }

    /// Attempts that failed in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether calls can do nothing but wait for the supervisor.
    pub(crate) fn is_left_to_supervisor(&self) -> bool {
        self.opener == OpenedBy::Supervisor
    }

    fn is_open(&self, now: Instant, session: SessionKind) -> bool {
        let is_waiting =
            matches!(self.contact, Contact::Waiting { next_try } if now < next_try);
        let is_left = self.is_left_to_supervisor() && session == SessionKind::Shared;
        self.failures >= BREAKER_FAILURES_MAX || is_left && is_waiting
    }

    /// What a call is told that is not let through; none where it is.
    pub(crate) fn down(&self, now: Instant, session: SessionKind) -> Option<Down> {
        let (first, last) = self.failed.as_ref().filter(|_| self.is_open(now, session))?;
        let next_try = match self.contact {
            Contact::Waiting { next_try } => next_try.saturating_duration_since(now),
            Contact::Making { .. } | Contact::Made => Duration::ZERO,
        };
        Some(Down { first: first.clone(), last: last.clone(), next_try })
    }

    /// Whether a call may see whether the upstream is back, although the supervisor does not try
    /// yet: one at a time, not too soon after the last attempt, and the later the longer that
    /// one took, so that few calls wait in vain.
    pub(crate) fn is_probe_due(&self, now: Instant) -> bool {
        !self.is_probed && self.probe_at.is_none_or(|at| now >= at)
    }

    /// A call wants to be let through.
    pub(crate) fn admit(&mut self, now: Instant, session: SessionKind) -> Admission {
        let Some(down) = self.down(now, session) else { return Admission::Passed };
        if !self.is_probe_due(now) {
            return Admission::Refused(Box::new(down));
        }
        self.is_probed = true;
        Admission::Probe
    }

    /// Nothing came of the call that was let through.
    pub(crate) fn probe_left(&mut self) {
        self.is_probed = false;
    }

    /// Whether the supervisor waits and should try now, because somebody wants the upstream; then
    /// its next attempt is due.
    pub(crate) fn hasten(&mut self, now: Instant) -> bool {
        let Contact::Waiting { next_try } = &mut self.contact else { return false };
        if *next_try <= now {
            return false;
        }
        *next_try = now;
        true
    }

    /// The same for somebody who does not wait for what comes of it.
    pub(crate) fn knock(&mut self, now: Instant) -> bool {
        self.is_probe_due(now) && self.hasten(now)
    }

    /// The supervisor makes an attempt.
    pub(crate) fn tries(&mut self, now: Instant) {
        let is_waiting = matches!(self.contact, Contact::Waiting { .. });
        if self.is_left_to_supervisor() && (is_waiting || self.has_contact()) {
            self.contact = Contact::Making { since: now };
        }
    }

    /// The supervisor, which waits, makes an attempt that has more prospect than the last one.
    pub(crate) fn begins_anew(&mut self, now: Instant) {
        if matches!(self.contact, Contact::Waiting { .. }) {
            self.contact = Contact::Making { since: now };
        }
    }

    /// For how long the upstream has been starting, if it is.
    pub(crate) fn starting(&self, now: Instant) -> Option<Duration> {
        match self.contact {
            Contact::Making { since } => Some(now.saturating_duration_since(since)),
            Contact::Made | Contact::Waiting { .. } => None,
        }
    }

    /// The supervisor has made contact.
    pub(crate) fn made_contact(&mut self) {
        self.contact = Contact::Made;
        self.well();
    }

    /// Whether the supervisor has contact, as far as it knows.
    pub(crate) fn has_contact(&self) -> bool {
        self.contact == Contact::Made
    }

    /// The supervisor waits until `next_try`, because of that failure; `took`: how long an
    /// attempt of its own took, if that is what failed.
    pub(crate) fn waits(
        &mut self,
        now: Instant,
        next_try: Instant,
        took: Option<Duration>,
        failure: FailureReport,
    ) {
        self.contact = Contact::Waiting { next_try };
        let halfway = now + next_try.saturating_duration_since(now) / 2;
        if let Some(took) = took {
            self.attempts = self.attempts.saturating_add(1);
            let mut at = probe_after(now, took);
            // Somebody is there who refuses again and again: that will hardly be otherwise in a
            // second, so that calls shorten the backoff, but do not replace it.
            if self.attempts > BREAKER_FAILURES_MAX && self.failures < BREAKER_FAILURES_MAX {
                at = at.max(halfway);
            }
            self.probe_at = Some(at);
        } else {
            self.probe_at.get_or_insert(probe_after(now, Duration::ZERO));
        }
        if self.is_left_to_supervisor() {
            // An attempt starts a process, which costs its machine more than its callers.
            self.probe_at = self.probe_at.max(Some(halfway));
        }
        self.note(failure);
    }

    /// The upstream did what it should.
    pub(crate) fn well(&mut self) {
        (self.failures, self.is_probed) = (0, false);
        // Another session may be well where the shared one is still to be opened.
        if !(self.is_left_to_supervisor() && matches!(self.contact, Contact::Waiting { .. })) {
            (self.failed, self.probe_at, self.attempts) = (None, None, 0);
        }
    }

    /// A call went well, or was heard of. True if calls were refused until now, and the
    /// supervisor, which waits, should look.
    pub(crate) fn call_went_well(&mut self, now: Instant) -> bool {
        let was_down = self.failures >= BREAKER_FAILURES_MAX;
        self.has_served = true;
        self.well();
        was_down && self.opener == OpenedBy::Calls && self.hasten(now)
    }

    /// Whether a call went well since the supervisor made contact, or this was asked last.
    pub(crate) fn take_served(&mut self) -> bool {
        std::mem::take(&mut self.has_served)
    }

    /// Whether the supervisor finds out by itself what a call means that broke off: it may be what
    /// the call asked for, and no reason to refuse others. Not while they are refused: then the
    /// call was let through to see.
    pub(crate) fn leaves_to_supervisor(&self, session: SessionKind) -> bool {
        let is_left = self.is_left_to_supervisor() && session == SessionKind::Shared;
        self.failures < BREAKER_FAILURES_MAX && (self.has_contact() || is_left)
    }

    /// A call broke off, and [`Breaker::leaves_to_supervisor`]. True if so many did in a row that
    /// that should see whether the upstream is well; what it finds opens the breaker, or closes it.
    pub(crate) fn broke_off(&mut self, now: Instant, failure: FailureReport) -> bool {
        self.failures = (self.failures + 1).min(BREAKER_FAILURES_MAX - 1);
        self.note(failure);
        let is_asked = self.suspected.is_some_and(|asked| now < asked + PROBE_BY_CALL_INTERVAL);
        if self.failures < BREAKER_FAILURES_MAX - 1 || is_asked {
            return false;
        }
        self.suspected = Some(now);
        true
    }

    /// Somebody is there. One that was down must do what it should before it is called again.
    pub(crate) fn answered(&mut self, now: Instant) {
        if !self.is_open(now, SessionKind::Own) {
            self.failures = 0;
        }
    }

    /// An attempt that took so long has failed. True if calls are refused from now on.
    pub(crate) fn failed(
        &mut self,
        now: Instant,
        took: Duration,
        failure: FailureReport,
    ) -> bool {
        let was_open = self.is_open(now, SessionKind::Own);
        self.failures = self.failures.saturating_add(1);
        self.probe_at = Some(probe_after(now, took));
        self.note(failure);
        !was_open && self.is_open(now, SessionKind::Own)
    }

    fn note(&mut self, failure: FailureReport) {
        match &mut self.failed {
            Some((_, last)) => *last = failure,
            None => self.failed = Some((failure.clone(), failure)),
        }
    }
}

/// When a call may try again, after an attempt that took so long and ended now.
fn probe_after(now: Instant, took: Duration) -> Instant {
    now + PROBE_BY_CALL_INTERVAL.max(took.saturating_mul(PROBE_PAUSE_FACTOR))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn failure(message: &str) -> FailureReport {
        FailureReport {
            stage: Stage::Connect,
            message: message.to_owned(),
            at: SystemTime::UNIX_EPOCH,
            refusal: None,
        }
    }

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(OpenedBy::Calls, Instant::now());
        breaker.made_contact();
        for n in 1..=BREAKER_FAILURES_MAX {
            let opens = breaker.failed(now, Duration::ZERO, failure(&n.to_string()));
            assert_eq!(opens, n == BREAKER_FAILURES_MAX);
        }
        breaker
    }

    fn is_refused(breaker: &mut Breaker, now: Instant) -> bool {
        matches!(breaker.admit(now, SessionKind::Shared), Admission::Refused(_))
    }

    #[test]
    fn it_opens_on_failures_in_a_row_and_tells_the_first_and_the_last() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let Admission::Refused(down) = breaker.admit(now, SessionKind::Shared) else {
            panic!("it is closed")
        };
        assert_eq!((down.first.message.as_str(), down.next_try), ("1", Duration::ZERO));
        assert_eq!(down.last.message, BREAKER_FAILURES_MAX.to_string());
        assert!(matches!(breaker.state(now), State::Down { .. }));
    }

    #[test]
    fn calls_that_break_off_have_the_supervisor_look_and_close_nobody_out() {
        let now = Instant::now();
        let mut breaker = Breaker::new(OpenedBy::Calls, Instant::now());
        breaker.made_contact();
        let asked = (0..100).filter(|_| breaker.broke_off(now, failure("reset"))).count();
        assert_eq!(asked, 1);
        assert!(!is_refused(&mut breaker, now));
        assert!(breaker.broke_off(now + PROBE_BY_CALL_INTERVAL, failure("reset")));
        // What it finds.
        assert!(breaker.failed(now, Duration::ZERO, failure("refused")));
        assert!(is_refused(&mut breaker, now));
    }

    #[test]
    fn a_call_that_breaks_off_does_not_close_what_is_open() {
        let now = Instant::now();
        let mut breaker = opened(now);
        for session in [SessionKind::Shared, SessionKind::Own] {
            assert!(!breaker.leaves_to_supervisor(session));
        }
        breaker.failed(now, Duration::ZERO, failure("reset"));
        assert!(is_refused(&mut breaker, now));
        breaker.well();
        assert!(breaker.leaves_to_supervisor(SessionKind::Own));
    }

    #[test]
    fn one_success_between_them_keeps_it_closed() {
        let now = Instant::now();
        let mut breaker = Breaker::new(OpenedBy::Calls, Instant::now());
        for n in 0..5 * BREAKER_FAILURES_MAX {
            assert!(!breaker.failed(now, SECOND, failure("slow")), "{n}");
            if n % (BREAKER_FAILURES_MAX - 1) == 0 {
                breaker.well();
            }
            assert_eq!(breaker.admit(now, SessionKind::Shared), Admission::Passed);
        }
    }

    #[test]
    fn one_call_at_a_time_sees_whether_it_is_back() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert!(is_refused(&mut breaker, now + PROBE_BY_CALL_INTERVAL / 2));
        let later = now + PROBE_BY_CALL_INTERVAL;
        assert_eq!(breaker.admit(later, SessionKind::Shared), Admission::Probe);
        assert!(is_refused(&mut breaker, later + SECOND));
        breaker.failed(later, Duration::ZERO, failure("still"));
        breaker.probe_left();
        assert!(is_refused(&mut breaker, later));
        assert_eq!(
            breaker.admit(later + PROBE_BY_CALL_INTERVAL, SessionKind::Shared),
            Admission::Probe
        );
        breaker.well();
        assert_eq!(
            breaker.admit(later + PROBE_BY_CALL_INTERVAL, SessionKind::Shared),
            Admission::Passed
        );
        assert_eq!(breaker.failures(), 0);
    }

    #[test]
    fn a_probe_that_was_given_up_lets_another_one_through() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let later = now + PROBE_BY_CALL_INTERVAL;
        assert_eq!(breaker.admit(later, SessionKind::Shared), Admission::Probe);
        breaker.probe_left();
        assert_eq!(breaker.admit(later, SessionKind::Shared), Admission::Probe);
    }

    #[test]
    fn a_server_that_hangs_is_seldom_tried_by_calls() {
        let now = Instant::now();
        let mut breaker = opened(now);
        breaker.failed(now, 5 * SECOND, failure("no connection in time"));
        assert!(is_refused(&mut breaker, now + 5 * SECOND));
        let later = now + PROBE_PAUSE_FACTOR * 5 * SECOND;
        assert_eq!(breaker.admit(later, SessionKind::Shared), Admission::Probe);
    }

    #[test]
    fn what_only_the_supervisor_opens_is_down_until_it_tries() {
        let now = Instant::now();
        let mut breaker = Breaker::new(OpenedBy::Supervisor, Instant::now());
        assert_eq!(breaker.admit(now, SessionKind::Shared), Admission::Passed);
        breaker.waits(now, now + SECOND / 5, Some(Duration::ZERO), failure("it ended"));
        let Admission::Refused(down) = breaker.admit(now, SessionKind::Shared) else {
            panic!("it is closed")
        };
        assert_eq!((down.last.message.as_str(), down.next_try), ("it ended", SECOND / 5));
        assert_eq!(
            breaker.admit(now, SessionKind::Own),
            Admission::Passed,
            "another child may be well"
        );
        assert_eq!(breaker.admit(now + SECOND / 5, SessionKind::Shared), Admission::Passed);
        let mut breaker = Breaker::new(OpenedBy::Calls, Instant::now());
        breaker.waits(now, now + SECOND / 5, Some(Duration::ZERO), failure("refused"));
        assert_eq!(breaker.admit(now, SessionKind::Shared), Admission::Passed);
        assert!(matches!(breaker.state(now), State::BackingOff { .. }));
    }

    #[test]
    fn a_supervisor_that_waits_is_hastened_but_not_too_often() {
        let now = Instant::now();
        let mut breaker = Breaker::new(OpenedBy::Supervisor, Instant::now());
        assert!(!breaker.knock(now), "it is making contact");
        breaker.failed(now, Duration::ZERO, failure("refused"));
        breaker.waits(now, now + 30 * SECOND, Some(Duration::ZERO), failure("refused"));
        assert!(!breaker.knock(now + 14 * SECOND), "each attempt starts a process");
        assert!(breaker.knock(now + 15 * SECOND));
        assert!(!breaker.hasten(now + 15 * SECOND), "it is at it");
        assert!(matches!(breaker.state(now + 15 * SECOND), State::BackingOff { .. }));
        breaker.tries(now + 15 * SECOND);
        let taken = 2 * SECOND;
        assert_eq!(breaker.state(now + 17 * SECOND), State::Starting { taken });
        breaker.made_contact();
        assert_eq!(breaker.state(now), State::Ready);
    }

    #[test]
    fn attempts_that_do_not_count_have_their_pace_too() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(OpenedBy::Calls, Instant::now());
        for n in 1..=BREAKER_FAILURES_MAX {
            let took = SECOND * n;
            breaker.waits(now, now + 30 * SECOND, Some(took), failure("no such token"));
            assert!(!breaker.knock(now + took * PROBE_PAUSE_FACTOR - SECOND), "{n}");
            now += took * PROBE_PAUSE_FACTOR;
            assert!(breaker.knock(now), "{n}");
        }
        breaker.waits(now, now + 30 * SECOND, Some(SECOND), failure("no such token"));
        assert!(!breaker.knock(now + 14 * SECOND), "it has been refused too often");
        assert!(breaker.knock(now + 15 * SECOND));
        breaker.made_contact();
        breaker.waits(now, now + 30 * SECOND, None, failure("lost"));
        assert!(breaker.knock(now + PROBE_BY_CALL_INTERVAL), "that is long ago");
    }

    #[test]
    fn a_call_that_closes_it_hastens_the_supervisor_once() {
        let now = Instant::now();
        let mut breaker = opened(now);
        breaker.waits(now, now + 30 * SECOND, Some(Duration::ZERO), failure("refused"));
        assert!(breaker.call_went_well(now));
        assert_eq!(breaker.admit(now, SessionKind::Shared), Admission::Passed);
        // It fails for a reason of its own, which calls do not meet.
        breaker.waits(
            now,
            now + 30 * SECOND,
            Some(Duration::ZERO),
            failure("its lists make no sense"),
        );
        assert!(!breaker.call_went_well(now));
    }

    #[test]
    fn an_answer_resets_the_count_but_does_not_close_it() {
        let now = Instant::now();
        let mut breaker = Breaker::new(OpenedBy::Calls, Instant::now());
        for _ in 0..5 * BREAKER_FAILURES_MAX {
            assert!(!breaker.failed(now, SECOND, failure("reset")));
            breaker.answered(now);
        }
        let mut breaker = opened(now);
        breaker.answered(now);
        assert!(is_refused(&mut breaker, now));
    }

    #[test]
    fn only_what_the_upstream_does_to_everybody_counts() {
        let of =
            |kind, stage, patience| FailureClass::of(&Failure::new(kind, stage, "x"), patience);
        let late = FailureKind::Interrupted(Interrupted::Deadline);
        let (full, short) = (DeadlineOwner::Full, DeadlineOwner::Short);
        assert_eq!(of(FailureKind::Broke, Stage::Connect, short), FailureClass::Failed);
        assert_eq!(of(late.clone(), Stage::Answer, full), FailureClass::Failed);
        assert_eq!(of(late.clone(), Stage::Answer, short), FailureClass::Nothing);
        assert_eq!(of(late, Stage::Slot, full), FailureClass::Nothing);
        let gone = FailureKind::Interrupted(Interrupted::Cancelled);
        assert_eq!(of(gone, Stage::Answer, full), FailureClass::Nothing);
        let refused = FailureKind::Refused(Refusal::Plain);
        assert_eq!(of(refused, Stage::Answer, full), FailureClass::Answered);
        assert_eq!(of(FailureKind::Overloaded, Stage::Slot, full), FailureClass::Nothing);
    }
}
