//! Pure: what a list that could not be read says of its session.

use crate::error::Stage;
use crate::upstream::failure::{Failure, FailureKind, Refusal};
use crate::wait::Interrupted;

/// Whether it may only be this list that cannot be had.
pub(super) fn is_bearable(failure: &Failure) -> bool {
    match failure.kind {
        FailureKind::Refused(_)
        | FailureKind::Overloaded
        | FailureKind::Nonsense
        | FailureKind::Interrupted(Interrupted::Deadline) => true,
        FailureKind::Interrupted(
            Interrupted::Cancelled
            | Interrupted::ClientGone
            | Interrupted::Stopping
            | Interrupted::Retired,
        )
        | FailureKind::Unauthorized(_)
        | FailureKind::SessionGone
        | FailureKind::Broke => false,
    }
}

/// Whether the session itself may be gone, or the upstream hang: a refusal, or an answer that
/// makes no sense, is an answer.
pub(super) fn is_unclear(failure: &Failure) -> bool {
    match failure.kind {
        FailureKind::Refused(Refusal::OtherEra)
        | FailureKind::Interrupted(_)
        | FailureKind::SessionGone
        | FailureKind::Broke => true,
        FailureKind::Refused(Refusal::MaybeHttpSse | Refusal::Stateless | Refusal::Plain)
        | FailureKind::Unauthorized(_)
        | FailureKind::Nonsense
        | FailureKind::Overloaded => false,
    }
}

/// The failure as one of reading a list, unless it came before anything was sent.
pub(super) fn in_list(failure: Failure) -> Failure {
    let stage = match failure.stage {
        Stage::Resolve
        | Stage::Spawn
        | Stage::Connect
        | Stage::Tls
        | Stage::Authorization
        | Stage::Handshake => failure.stage,
        Stage::Slot
        | Stage::Send
        | Stage::Answer
        | Stage::Read
        | Stage::Parse
        | Stage::List => Stage::List,
    };
    Failure { stage, ..failure }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_no_answer_casts_doubt_on_the_session() {
        let of = |kind| is_unclear(&Failure::new(kind, Stage::Answer, "x"));
        let late = Interrupted::Deadline;
        assert!(of(FailureKind::Interrupted(late)) && of(FailureKind::SessionGone));
        assert!(of(FailureKind::Refused(Refusal::OtherEra)));
        assert!(!of(FailureKind::Nonsense) && !of(FailureKind::Refused(Refusal::Plain)));
    }
}
