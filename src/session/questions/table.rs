//! Pure: requests of upstreams to clients that wait for an answer. Time is an argument.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::protocol::jsonrpc::{RequestId, RpcError, code};
use crate::protocol::server_name::ServerName;
use crate::session::{Pending, SessionId};

/// Questions that one session may have open.
pub(crate) const QUESTIONS_PER_SESSION_MAX: usize = 32;

/// What a question's two ends know of each other: the session thread may close it before its
/// call ends, and the call may end before that.
#[derive(Debug, Default)]
pub(crate) struct Tie {
    closed: AtomicBool,
    given_up: AtomicBool,
}

impl Tie {
    /// Whether the session thread still waits for an answer, or is yet to begin.
    pub(crate) fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }

    /// The call no longer waits: the question is to be closed.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }
}

/// The session thread's end of a tie. It goes with its question, however that is closed.
#[derive(Debug)]
struct Tied(Arc<Tie>);

impl Drop for Tied {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
    }
}

/// A question that waits for its answer.
#[derive(Debug)]
pub(crate) struct Open {
    server: ServerName,
    /// The server's id for it.
    upstream_id: RequestId,
    pending: Pending,
    expires: Instant,
    /// To the call that it ends with; none where it belongs to no call.
    tied: Option<Tied>,
}

impl Open {
    /// A question that belongs to no call.
    pub(crate) fn new(
        expires: Instant,
        server: ServerName,
        upstream_id: RequestId,
        pending: Pending,
    ) -> Open {
        Open { server, upstream_id, pending, expires, tied: None }
    }

    /// The question as one that ends with its call.
    pub(crate) fn tied(self, tie: Arc<Tie>) -> Open {
        Open { tied: Some(Tied(tie)), ..self }
    }

    fn is_given_up(&self) -> bool {
        self.tied.as_ref().is_some_and(|tied| tied.0.is_given_up())
    }

    /// Closes it without an answer of the client.
    fn fail(self, what: &str) {
        self.pending.answer(Err(RpcError::new(code::INTERNAL_ERROR, what)));
    }
}

/// Every open question, under the id that its client sees.
#[derive(Default)]
pub(crate) struct Questions {
    open: HashMap<SessionId, HashMap<u64, Open>>,
    last_id: u64,
}

impl Questions {
    /// Opens a question; gives the id that its client sees. One over the bound, or whose call
    /// has ended meanwhile, is not opened: dropped, its place for an answer says so upstream.
    pub(crate) fn ask(&mut self, session: &SessionId, open: Open) -> Option<u64> {
        if open.is_given_up() {
            return None;
        }
        let of_session = self.open.entry(session.clone()).or_default();
        if of_session.len() >= QUESTIONS_PER_SESSION_MAX {
            return None;
        }
        self.last_id += 1;
        of_session.insert(self.last_id, open);
        Some(self.last_id)
    }

    /// Closes a question, for its answer.
    pub(crate) fn take(&mut self, session: &str, id: u64) -> Option<Pending> {
        let of_session = self.open.get_mut(session)?;
        let open = of_session.remove(&id)?;
        if of_session.is_empty() {
            self.open.remove(session);
        }
        Some(open.pending)
    }

    /// Closes a question that its server no longer asks, the newest if it has used the id
    /// twice; gives the id that its client sees.
    pub(crate) fn withdraw(
        &mut self,
        session: &str,
        server: &ServerName,
        upstream_id: &RequestId,
    ) -> Option<u64> {
        let is_it = |open: &Open| open.server == *server && open.upstream_id == *upstream_id;
        let of_session = self.open.get(session)?.iter();
        let id = of_session.filter(|(_, open)| is_it(open)).map(|(id, _)| *id).max()?;
        self.take(session, id).map(|_| id)
    }

    /// Closes the questions of a session whose calls have given them up.
    pub(crate) fn close_given_up(&mut self, session: &str) {
        let Some(of_session) = self.open.get_mut(session) else { return };
        close_given_up(of_session);
        if of_session.is_empty() {
            self.open.remove(session);
        }
    }

    /// Closes all questions of a session: nobody will answer them.
    pub(crate) fn end(&mut self, session: &str) {
        self.open.remove(session);
    }

    /// Closes what has waited for too long, and what was given up without a word.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.open.retain(|_, of_session| {
            close_given_up(of_session);
            for (_, open) in of_session.extract_if(|_, open| now >= open.expires) {
                open.fail("The client gave no answer within limits.parked_ms.");
            }
            !of_session.is_empty()
        });
    }
}

fn close_given_up(of_session: &mut HashMap<u64, Open>) {
    for (_, open) in of_session.extract_if(|_, open| open.is_given_up()) {
        open.fail("The call in which this was asked has ended.");
    }
}

/// When a question that is asked now expires.
pub(crate) fn expiry(now: Instant, life: Duration) -> Instant {
    now.checked_add(life).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::call::AnswerTo;
    use crate::protocol::raw::Raw;
    use crate::sync::Mutex;

    type Heard = Arc<Mutex<Vec<bool>>>;

    fn server(name: &str) -> ServerName {
        ServerName::parse(name).unwrap()
    }

    fn pending(reply: AnswerTo) -> Pending {
        let method = "roots/list".to_owned();
        Pending { server: server("a"), method, reply, held: None }
    }

    /// A question of server `a`.
    fn open(heard: &Heard, expires: Instant, upstream_id: u64) -> Open {
        let heard = heard.clone();
        let reply = AnswerTo::new(move |answer| heard.lock().push(answer.is_ok()));
        let (upstream_id, pending) = (RequestId::from(upstream_id), pending(reply));
        Open::new(expires, server("a"), upstream_id, pending)
    }

    #[test]
    fn an_answer_is_taken_once_and_by_its_own_session() {
        let (heard, now) = (Heard::default(), Instant::now());
        let mut questions = Questions::default();
        let session: SessionId = "s".into();
        let id = questions.ask(&session, open(&heard, now, 7)).unwrap();
        assert!(questions.take("other", id).is_none());
        let taken = questions.take("s", id).unwrap();
        taken.reply.send(Ok(Raw::from_valid("{}".to_owned())));
        assert!(questions.take("s", id).is_none());
        assert_eq!(*heard.lock(), [true]);
    }

    #[test]
    fn what_expires_is_withdrawn_or_ends_answers_with_an_error() {
        let (heard, now) = (Heard::default(), Instant::now());
        let mut questions = Questions::default();
        let session: SessionId = "s".into();
        let later = now + Duration::from_secs(1);
        questions.ask(&session, open(&heard, later, 1)).unwrap();
        questions.sweep(now);
        assert_eq!(heard.lock().len(), 0);
        questions.sweep(later);
        assert_eq!(*heard.lock(), [false]);
        questions.ask(&session, open(&heard, later, 2)).unwrap();
        assert!(questions.withdraw("s", &server("a"), &RequestId::from(2)).is_some());
        questions.ask(&session, open(&heard, later, 3)).unwrap();
        questions.end("s");
        assert_eq!(*heard.lock(), [false, false, false]);
    }

    #[test]
    fn a_session_has_so_many_questions_open_and_no_more() {
        let (heard, now) = (Heard::default(), Instant::now());
        let mut questions = Questions::default();
        let session: SessionId = "s".into();
        for _ in 0..QUESTIONS_PER_SESSION_MAX {
            assert!(questions.ask(&session, open(&heard, now, 1)).is_some());
        }
        assert!(questions.ask(&session, open(&heard, now, 1)).is_none());
        assert_eq!(*heard.lock(), [false]);
    }

    #[test]
    fn a_server_withdraws_its_own_question_alone() {
        let (heard, now) = (Heard::default(), Instant::now());
        let mut questions = Questions::default();
        let session: SessionId = "s".into();
        let older = questions.ask(&session, open(&heard, now, 1)).unwrap();
        let newer = questions.ask(&session, open(&heard, now, 1)).unwrap();
        let id = RequestId::from(1);
        assert_eq!(questions.withdraw("s", &server("b"), &id), None);
        assert_eq!(heard.lock().len(), 0);
        assert_eq!(questions.withdraw("s", &server("a"), &id), Some(newer));
        assert_eq!(questions.withdraw("s", &server("a"), &id), Some(older));
    }

    #[test]
    fn what_a_call_gives_up_is_closed_alone_and_at_the_latest_by_a_sweep() {
        let (heard, now) = (Heard::default(), Instant::now());
        let later = now + Duration::from_secs(1);
        let mut questions = Questions::default();
        let session: SessionId = "s".into();
        let ties = [(); 3].map(|()| Arc::new(Tie::default()));
        let ids = ties.each_ref().map(|tie| {
            questions.ask(&session, open(&heard, later, 1).tied(tie.clone())).unwrap()
        });
        questions.ask(&session, open(&heard, later, 2)).unwrap();
        ties[0].give_up();
        questions.close_given_up("other");
        assert!(ties[0].is_open());
        questions.close_given_up("s");
        assert_eq!(ties.each_ref().map(|tie| tie.is_open()), [false, true, true]);
        ties[1].give_up();
        questions.sweep(now);
        assert_eq!(ties.each_ref().map(|tie| tie.is_open()), [false, false, true]);
        assert_eq!(*heard.lock(), [false, false]);
        drop(questions.take("s", ids[2]).unwrap());
        assert!(!ties[2].is_open());
    }

    #[test]
    fn what_was_given_up_before_it_was_opened_is_not_opened() {
        let (heard, now) = (Heard::default(), Instant::now());
        let mut questions = Questions::default();
        let tie = Arc::new(Tie::default());
        tie.give_up();
        assert_eq!(questions.ask(&"s".into(), open(&heard, now, 1).tied(tie)), None);
        assert_eq!(*heard.lock(), [false]);
    }
}
