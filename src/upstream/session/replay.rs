//! Pure: what a request that failed means for its session, and what is done about it.

use crate::upstream::failure::{Failure, FailureKind, Refusal};
use crate::upstream::transport::refused_status::is_certain;

/// What is known where a request has failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// Sending the request twice does no more than sending it once.
    pub(super) is_safe_to_repeat: bool,
    /// It was sent before, and has failed.
    pub(super) is_replay: bool,
    /// The server may forget the session although it can be reached.
    pub(super) may_be_forgotten: bool,
    /// A new session in place of one that is refused may be tried now, or is open already.
    pub(super) may_renew: bool,
    /// The server may be asked anew which era it is of.
    pub(super) may_recheck: bool,
}

/// What is done about a request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its caller is told.
    Tell,
    /// Its caller is told that it was refused; whoever looks after the session sees whether that
    /// is no more.
    TellAndDoubt,
    /// Its caller is told; the session is no more.
    TellAndForget,
    /// It is sent once more, over whatever session is open then.
    Replay,
    /// The same; the session is no more.
    ForgetAndReplay,
    /// The server is asked which era it is of. If it is another one than it was taken for, the
    /// request has not reached what it was for, and is sent once more.
    AskEra,
}

impl Verdict {
    pub(super) fn of(failure: &Failure, facts: Facts) -> Verdict {
        let may_replay = !facts.is_replay && may_replay(failure, facts.is_safe_to_repeat);
        match failure.kind {
            // Another session has not helped a moment ago.
            FailureKind::SessionGone
                if facts.may_be_forgotten
                    && !is_certain(failure)
                    && !facts.is_replay
                    && !facts.may_renew =>
            {
                Verdict::TellAndDoubt
            }
            FailureKind::SessionGone if may_replay => Verdict::ForgetAndReplay,
            FailureKind::SessionGone => Verdict::TellAndForget,
            FailureKind::Refused(Refusal::OtherEra) if facts.may_recheck => Verdict::AskEra,
            FailureKind::Refused(Refusal::Plain) if facts.may_be_forgotten => {
                Verdict::TellAndDoubt
            }
            FailureKind::Broke if may_replay => Verdict::Replay,
            FailureKind::Broke
            | FailureKind::Refused(_)
            | FailureKind::Unauthorized(_)
            | FailureKind::Interrupted(_)
            | FailureKind::Nonsense
            | FailureKind::Overloaded => Verdict::Tell,
        }
    }
}

/// Whether a request that failed may be sent a second time: only if it never reached the tool,
/// or does no more when it is done twice.
pub(crate) fn may_replay(failure: &Failure, is_safe_to_repeat: bool) -> bool {
    match failure.kind {
        FailureKind::SessionGone => true,
        FailureKind::Broke => !failure.sent || is_safe_to_repeat,
        FailureKind::Interrupted(_)
        | FailureKind::Refused(_)
        | FailureKind::Unauthorized(_)
        | FailureKind::Nonsense
        | FailureKind::Overloaded => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{HttpRefusal, Stage};
    use crate::wait::Interrupted;

    const FACTS: Facts = Facts {
        is_safe_to_repeat: false,
        is_replay: false,
        may_be_forgotten: true,
        may_renew: true,
        may_recheck: true,
    };

    fn failure(kind: FailureKind, sent: bool) -> Failure {
        Failure { sent, ..Failure::new(kind, Stage::Answer, "it failed") }
    }

    fn gone(status: u16) -> Failure {
        let refusal = HttpRefusal { status, www_authenticate: None, retry_after: None };
        Failure { refusal: Some(Box::new(refusal)), ..failure(FailureKind::SessionGone, true) }
    }

    #[test]
    fn a_session_that_is_gone_is_replaced_once_and_at_the_pace_of_a_backoff_where_that_is_a_guess()
     {
        let replay = Facts { is_replay: true, ..FACTS };
        let not_now = Facts { may_renew: false, ..FACTS };
        for status in [400, 404] {
            assert_eq!(Verdict::of(&gone(status), FACTS), Verdict::ForgetAndReplay);
            assert_eq!(Verdict::of(&gone(status), replay), Verdict::TellAndForget);
        }
        assert_eq!(Verdict::of(&gone(400), not_now), Verdict::TellAndDoubt);
        assert_eq!(Verdict::of(&gone(404), not_now), Verdict::ForgetAndReplay);
        let lasts = Facts { may_be_forgotten: false, ..not_now };
        assert_eq!(Verdict::of(&gone(400), lasts), Verdict::ForgetAndReplay);
    }

    #[test]
    fn only_what_never_reached_the_tool_or_does_no_harm_is_sent_again_and_that_once() {
        let safe = Facts { is_safe_to_repeat: true, ..FACTS };
        let replay = Facts { is_replay: true, ..safe };
        let broke = |sent| failure(FailureKind::Broke, sent);
        assert_eq!(Verdict::of(&broke(false), FACTS), Verdict::Replay);
        assert_eq!(Verdict::of(&broke(true), FACTS), Verdict::Tell);
        assert_eq!(Verdict::of(&broke(true), safe), Verdict::Replay);
        assert_eq!(Verdict::of(&broke(false), replay), Verdict::Tell);
        let late = failure(FailureKind::Interrupted(Interrupted::Deadline), true);
        for failure in [
            late,
            failure(FailureKind::Nonsense, true),
            failure(FailureKind::Overloaded, false),
        ] {
            assert_eq!(Verdict::of(&failure, safe), Verdict::Tell);
        }
    }

    #[test]
    fn a_refusal_casts_doubt_on_the_session_or_on_the_era() {
        let refused = |refusal| failure(FailureKind::Refused(refusal), true);
        let other_era = refused(Refusal::OtherEra);
        assert_eq!(Verdict::of(&other_era, FACTS), Verdict::AskEra);
        let asked = Facts { may_recheck: false, ..FACTS };
        assert_eq!(Verdict::of(&other_era, asked), Verdict::Tell);
        let plain = refused(Refusal::Plain);
        assert_eq!(Verdict::of(&plain, FACTS), Verdict::TellAndDoubt);
        let lasts = Facts { may_be_forgotten: false, ..FACTS };
        assert_eq!(Verdict::of(&plain, lasts), Verdict::Tell);
    }

    #[test]
    fn only_what_never_reached_the_tool_is_replayed() {
        let call = false;
        assert!(may_replay(&failure(FailureKind::SessionGone, true), call));
        assert!(may_replay(&failure(FailureKind::Broke, false), call));
        assert!(!may_replay(&failure(FailureKind::Broke, true), call));
        assert!(may_replay(&failure(FailureKind::Broke, true), true));
        assert!(!may_replay(&failure(FailureKind::Nonsense, true), true));
        let late = FailureKind::Interrupted(Interrupted::Deadline);
        assert!(!may_replay(&failure(late, true), true));
    }
}
