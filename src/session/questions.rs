//! Requests of upstreams to clients that wait for an answer. Pure: time is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{Pending, SessionId};
use crate::protocol::jsonrpc::{RequestId, RpcError, code};

/// Questions that one session may have open.
pub(super) const QUESTIONS_PER_SESSION_MAX: usize = 32;

struct Open {
    /// The upstream's id for it.
    upstream_id: RequestId,
    pending: Pending,
    expires: Instant,
}

/// Every open question, under the id that its client sees.
#[derive(Default)]
pub(super) struct Questions {
    open: HashMap<SessionId, HashMap<u64, Open>>,
    last_id: u64,
}

impl Questions {
    /// Opens a question; gives the id that its client sees. One over the bound is not opened:
    /// dropped, its place for an answer says so upstream.
    pub(super) fn ask(
        &mut self,
        expires: Instant,
        session: &SessionId,
        upstream_id: RequestId,
        pending: Pending,
    ) -> Option<u64> {
        let of_session = self.open.entry(session.clone()).or_default();
        if of_session.len() >= QUESTIONS_PER_SESSION_MAX {
            return None;
        }
        self.last_id += 1;
        of_session.insert(self.last_id, Open { upstream_id, pending, expires });
        Some(self.last_id)
    }

    /// Closes a question, for its answer.
    pub(super) fn take(&mut self, session: &str, id: u64) -> Option<Pending> {
        let of_session = self.open.get_mut(session)?;
        let open = of_session.remove(&id)?;
        if of_session.is_empty() {
            self.open.remove(session);
        }
        Some(open.pending)
    }

    /// Closes a question that the upstream no longer asks; gives the id that its client sees.
    pub(super) fn withdraw(&mut self, session: &str, upstream_id: &RequestId) -> Option<u64> {
        let of_session = self.open.get(session)?;
        let (id, _) = of_session.iter().find(|(_, open)| open.upstream_id == *upstream_id)?;
        let id = *id;
        self.take(session, id).map(|_| id)
    }

    /// Closes all questions of a session: nobody will answer them.
    pub(super) fn end(&mut self, session: &str) {
        self.open.remove(session);
    }

    /// Closes what has waited for too long.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.open.retain(|_, of_session| {
            for (_, open) in of_session.extract_if(|_, open| now >= open.expires) {
                let what = "The client gave no answer within limits.parked_ms.";
                open.pending.answer(Err(RpcError::new(code::INTERNAL_ERROR, what)));
            }
            !of_session.is_empty()
        });
    }
}

/// When a question that is asked now expires.
pub(super) fn expiry(now: Instant, life: Duration) -> Instant {
    now.checked_add(life).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::call::AnswerTo;
    use crate::protocol::raw::Raw;
    use std::sync::{Arc, Mutex};

    type Heard = Arc<Mutex<Vec<bool>>>;

    fn pending(heard: &Heard) -> Pending {
        let heard = heard.clone();
        let reply = AnswerTo::new(move |answer| heard.lock().unwrap().push(answer.is_ok()));
        Pending { reply, held: None }
    }

    #[test]
    fn an_answer_is_taken_once_and_by_its_own_session() {
        let (heard, now) = (Heard::default(), Instant::now());
        let mut questions = Questions::default();
        let session: SessionId = "s".into();
        let id = questions.ask(now, &session, RequestId::from(7), pending(&heard)).unwrap();
        assert!(questions.take("other", id).is_none());
        let taken = questions.take("s", id).unwrap();
        taken.reply.send(Ok(Raw::from_valid("{}".to_owned())));
        assert!(questions.take("s", id).is_none());
        assert_eq!(*heard.lock().unwrap(), [true]);
    }

    #[test]
    fn what_expires_is_withdrawn_or_ends_answers_with_an_error() {
        let (heard, now) = (Heard::default(), Instant::now());
        let mut questions = Questions::default();
        let session: SessionId = "s".into();
        let later = now + Duration::from_secs(1);
        questions.ask(later, &session, RequestId::from(1), pending(&heard)).unwrap();
        questions.sweep(now);
        assert_eq!(heard.lock().unwrap().len(), 0);
        questions.sweep(later);
        assert_eq!(*heard.lock().unwrap(), [false]);
        questions.ask(later, &session, RequestId::from(2), pending(&heard)).unwrap();
        assert!(questions.withdraw("s", &RequestId::from(2)).is_some());
        questions.ask(later, &session, RequestId::from(3), pending(&heard)).unwrap();
        questions.end("s");
        assert_eq!(*heard.lock().unwrap(), [false, false, false]);
    }

    #[test]
    fn a_session_has_so_many_questions_open_and_no_more() {
        let (heard, now) = (Heard::default(), Instant::now());
        let mut questions = Questions::default();
        let session: SessionId = "s".into();
        for _ in 0..QUESTIONS_PER_SESSION_MAX {
            assert!(
                questions.ask(now, &session, RequestId::from(1), pending(&heard)).is_some()
            );
        }
        assert!(questions.ask(now, &session, RequestId::from(1), pending(&heard)).is_none());
        assert_eq!(*heard.lock().unwrap(), [false]);
    }
}
