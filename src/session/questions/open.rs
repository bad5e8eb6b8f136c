//! Pure: the questions of servers to the client of one session that wait for an answer, under the
//! ids that this client sees. Time is an argument.

use std::collections::BTreeMap;
use std::sync::MutexGuard;
use std::time::Instant;

use super::Pending;
use crate::limits::QUESTIONS_PER_SESSION_MAX;
use crate::protocol::jsonrpc::{RequestId, RpcError, code};
use crate::protocol::question::Question;
use crate::protocol::server_name::ServerName;
use crate::sync::Mutex;
use crate::wait::Held;

/// The open questions of one session. The thread of its call enters a question, or the session
/// thread where the question belongs to no call. None once the session has ended: by this one
/// lock a question is either closed by that end or refused.
pub(in crate::session) struct OpenQuestions(Mutex<Option<ById>>);

#[derive(Default)]
struct ById {
    questions: BTreeMap<u64, OpenQuestion>,
    last_id: u64,
}

struct OpenQuestion {
    pending: Pending,
    /// The server's id for the question.
    upstream_id: RequestId,
    expires: Instant,
}

impl OpenQuestion {
    /// Closes the question without an answer of the client.
    fn fail(self, what: &str) {
        self.pending.answer(Err(RpcError::new(code::INTERNAL_ERROR, what)));
    }
}

impl OpenQuestions {
    pub(in crate::session) fn new() -> OpenQuestions {
        OpenQuestions(Mutex::new(Some(ById::default())))
    }

    fn lock(&self) -> MutexGuard<'_, Option<ById>> {
        self.0.lock()
    }

    /// Opens a question; returns the id that the client is to see. A question over the bound of
    /// the session, or after the session's end, is not opened: when it is dropped, it answers
    /// itself with an error. `held` holds the timeout of the question's call, if it has one.
    pub(in crate::session) fn open(
        &self,
        question: Question,
        expires: Instant,
        held: Option<Held>,
    ) -> Option<u64> {
        let Question { server, id: upstream_id, method, reply, .. } = question;
        let pending = Pending { server, method, reply, held };
        // The question is declared before the lock is taken, so that it is dropped after the
        // lock.
        let question = OpenQuestion { pending, upstream_id, expires };
        let mut open = self.lock();
        let open = open.as_mut()?;
        if open.questions.len() >= QUESTIONS_PER_SESSION_MAX {
            return None;
        }
        open.last_id += 1;
        open.questions.insert(open.last_id, question);
        Some(open.last_id)
    }

    fn remove(&self, id: u64) -> Option<OpenQuestion> {
        self.lock().as_mut()?.questions.remove(&id)
    }

    /// True if the question is still open.
    pub(super) fn has(&self, id: u64) -> bool {
        self.lock().as_ref().is_some_and(|open| open.questions.contains_key(&id))
    }

    /// Closes a question for its answer.
    pub(in crate::session) fn take(&self, id: u64) -> Option<Pending> {
        self.remove(id).map(|question| question.pending)
    }

    /// Closes a question whose call has ended. False if it was closed before.
    pub(super) fn give_up(&self, id: u64) -> bool {
        let question = self.remove(id);
        let ended = "The call in which this was asked has ended.";
        question.map(|question| question.fail(ended)).is_some()
    }

    /// Closes a question that its server no longer asks, the newest if the server has used the id
    /// twice; returns the id that the client sees.
    pub(in crate::session) fn withdraw(
        &self,
        server: &ServerName,
        upstream_id: &RequestId,
    ) -> Option<u64> {
        let is_it = |question: &OpenQuestion| {
            question.pending.server == *server && question.upstream_id == *upstream_id
        };
        let mut open = self.lock();
        let questions = &mut open.as_mut()?.questions;
        let id = *questions.iter().rfind(|(_, question)| is_it(question))?.0;
        let withdrawn = questions.remove(&id);
        drop(open);
        withdrawn.map(|_| id)
    }

    /// Closes the questions that have waited for too long.
    pub(in crate::session) fn sweep(&self, now: Instant) {
        let expired: Vec<OpenQuestion> = match self.lock().as_mut() {
            Some(open) => {
                let is_over = |_: &u64, question: &mut OpenQuestion| now >= question.expires;
                open.questions.extract_if(.., is_over).map(|(_, question)| question).collect()
            }
            None => return,
        };
        for question in expired {
            question.fail("The client gave no answer within limits.parked_ms.");
        }
    }

    /// Closes all questions, which get no answer any more. None is opened afterwards.
    pub(in crate::session) fn end(&self) {
        // The questions have a name here, so that they are dropped after the lock is released.
        let _closed = self.lock().take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::question::AnswerTo;
    use crate::protocol::raw::Raw;
    use std::sync::Arc;
    use std::time::Duration;

    type Heard = Arc<Mutex<Vec<Result<Raw, RpcError>>>>;

    fn server(name: &str) -> ServerName {
        ServerName::parse(name).unwrap()
    }

    /// A question of server `a`.
    fn question(heard: &Heard, upstream_id: u64) -> Question {
        let heard = heard.clone();
        let reply = AnswerTo::new(move |answer| heard.lock().push(answer));
        let (id, method) = (RequestId::from(upstream_id), "roots/list".to_owned());
        Question { server: server("a"), id, is_of_call: true, method, params: None, reply }
    }

    /// The messages of the errors that servers were told, in their order.
    fn errors(heard: &Heard) -> Vec<String> {
        let heard = heard.lock();
        heard.iter().map(|answer| answer.clone().unwrap_err().message).collect()
    }

    #[test]
    fn an_answer_is_taken_once_and_by_its_own_session() {
        let (heard, now) = (Heard::default(), Instant::now());
        let [session, other] = [OpenQuestions::new(), OpenQuestions::new()];
        let id = session.open(question(&heard, 7), now, None).unwrap();
        assert!(other.take(id).is_none());
        let taken = session.take(id).unwrap();
        assert_eq!((taken.server.as_str(), taken.method.as_str()), ("a", "roots/list"));
        taken.answer(Ok(Raw::from_valid("{}".to_owned())));
        assert!(session.take(id).is_none());
        assert!(heard.lock()[0].is_ok() && heard.lock().len() == 1);
    }

    #[test]
    fn what_expires_is_withdrawn_or_ends_answers_with_an_error() {
        let (heard, now) = (Heard::default(), Instant::now());
        let session = OpenQuestions::new();
        let later = now + Duration::from_secs(1);
        session.open(question(&heard, 1), later, None).unwrap();
        session.sweep(now);
        assert_eq!(heard.lock().len(), 0);
        session.sweep(later);
        session.open(question(&heard, 2), later, None).unwrap();
        assert!(session.withdraw(&server("a"), &RequestId::from(2)).is_some());
        session.open(question(&heard, 3), later, None).unwrap();
        session.end();
        assert_eq!(session.open(question(&heard, 4), later, None), None);
        let (late, none) = (
            "The client gave no answer within limits.parked_ms.",
            "The client gave no answer.",
        );
        assert_eq!(errors(&heard), [late, none, none, none]);
    }

    #[test]
    fn a_session_has_so_many_questions_open_and_no_more() {
        let (heard, now) = (Heard::default(), Instant::now());
        let session = OpenQuestions::new();
        for _ in 0..QUESTIONS_PER_SESSION_MAX {
            assert!(session.open(question(&heard, 1), now, None).is_some());
        }
        assert!(session.open(question(&heard, 1), now, None).is_none());
        assert_eq!(errors(&heard), ["The client gave no answer."]);
    }

    #[test]
    fn a_server_withdraws_its_own_question_alone() {
        let (heard, now) = (Heard::default(), Instant::now());
        let session = OpenQuestions::new();
        let older = session.open(question(&heard, 1), now, None).unwrap();
        let newer = session.open(question(&heard, 1), now, None).unwrap();
        let id = RequestId::from(1);
        assert_eq!(session.withdraw(&server("b"), &id), None);
        assert_eq!(heard.lock().len(), 0);
        assert_eq!(session.withdraw(&server("a"), &id), Some(newer));
        assert_eq!(session.withdraw(&server("a"), &id), Some(older));
    }

    #[test]
    fn what_a_call_gives_up_is_closed_alone() {
        let (heard, now) = (Heard::default(), Instant::now());
        let later = now + Duration::from_secs(1);
        let session = OpenQuestions::new();
        let ids = [1, 2, 3].map(|n| session.open(question(&heard, n), later, None).unwrap());
        assert!(session.give_up(ids[0]));
        assert!(!session.give_up(ids[0]), "it is closed already");
        assert_eq!(ids.map(|id| session.has(id)), [false, true, true]);
        assert_eq!(errors(&heard), ["The call in which this was asked has ended."]);
        session.sweep(now);
        assert_eq!(heard.lock().len(), 1);
        drop(session.take(ids[1]).unwrap());
        assert_eq!(ids.map(|id| session.has(id)), [false, false, true]);
    }
}
