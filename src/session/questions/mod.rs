//! The open questions of a session, and those of one call, which end with the call.

mod open;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Session;
use crate::limits::SESSION_SWEEP_INTERVAL;
use crate::protocol::jsonrpc::{RequestId, RpcError};
use crate::protocol::question::{AnswerTo, Question};
use crate::protocol::raw::Raw;
use crate::protocol::server_name::ServerName;
use crate::wait::{Held, Wait};

pub(super) use open::OpenQuestions;

/// A question that waits for its answer. If it is dropped, it answers itself with an error.
#[derive(Debug)]
pub struct Pending {
    /// The server that asks.
    pub server: ServerName,
    /// The question's method.
    pub method: String,
    /// The place for the answer.
    pub reply: AnswerTo,
    /// Holds the call's timeout while the question is open.
    pub(super) held: Option<Held>,
}

impl Pending {
    /// Gives the server the client's answer.
    pub fn answer(self, answer: Result<Raw, RpcError>) {
        drop(self.held);
        self.reply.send(answer);
    }
}

impl Session {
    /// Closes a question because its client answers; returns the place for the answer.
    pub fn answered(&self, question: &RequestId) -> Option<Pending> {
        self.questions.take(question.as_u64()?)
    }

    /// Closes a question that its server no longer asks; returns the id that the client sees.
    pub fn withdraw(&self, server: &ServerName, upstream_id: &RequestId) -> Option<RequestId> {
        self.questions.withdraw(server, upstream_id).map(RequestId::from)
    }
}

/// The time at which a question that is asked now expires.
pub(super) fn expiry(now: Instant, life: Duration) -> Instant {
    now.checked_add(life).unwrap_or(now)
}

/// The questions of one call to its client. Questions that are open when this is dropped are
/// closed, and their servers get an error.
pub struct CallQuestions<'a> {
    session: &'a Session,
    wait: &'a Arc<Wait>,
    /// The time for which a question stays open.
    life: Duration,
    /// Questions that may be open, so no more than a session may have.
    asked: Vec<Asked>,
}

struct Asked {
    id: u64,
    is_of_call: bool,
}

impl std::fmt::Debug for CallQuestions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallQuestions")
            .field("asked", &self.asked.len())
            .finish_non_exhaustive()
    }
}

impl<'a> CallQuestions<'a> {
    pub(super) fn new(
        session: &'a Session,
        wait: &'a Arc<Wait>,
        life: Duration,
    ) -> CallQuestions<'a> {
        CallQuestions { session, wait, life, asked: Vec::new() }
    }

    /// Opens a question; returns the id that the client is to see. The call's timeout stands
    /// still while the question is open.
    pub fn ask(&mut self, question: Question) -> Option<RequestId> {
        let open = &self.session.questions;
        self.asked.retain(|asked| open.has(asked.id));
        let is_of_call = question.is_of_call;
        // The wait is held longer than the question lives, so that the question's end is told
        // before the call's.
        let held = self.wait.hold(self.life + 3 * SESSION_SWEEP_INTERVAL);
        let id = open.open(question, expiry(Instant::now(), self.life), Some(held))?;
        self.asked.push(Asked { id, is_of_call });
        Some(RequestId::from(id))
    }

    /// Notes that the server has answered the call: questions that may belong to another call
    /// outlive this one.
    pub fn leave_others(&mut self) {
        self.asked.retain(|asked| asked.is_of_call);
    }

    /// Closes the questions that are open, and returns the ids that the client sees.
    pub fn close(&mut self) -> Vec<RequestId> {
        let open = &self.session.questions;
        let given_up = self.asked.drain(..).filter(|asked| open.give_up(asked.id));
        given_up.map(|asked| RequestId::from(asked.id)).collect()
    }
}

impl Drop for CallQuestions<'_> {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::call::Caller;
    use crate::protocol::question::AnswerTo;
    use crate::protocol::raw::Raw;
    use crate::protocol::server_name::ServerName;
    use crate::session::{Owner, Sessions, SessionsConfig, Transport, start};
    use crossbeam_channel::{Receiver, bounded};
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn session() -> (Sessions, Arc<Session>) {
        let config = SessionsConfig {
            key: [1; 32],
            sessions: 10,
            sessions_per_key: 10,
            idle: 10 * PATIENCE,
            parked: 10 * PATIENCE,
            events: Arc::<std::sync::Mutex<Vec<crate::session::Left>>>::default(),
            ended: Vec::new(),
            writer: None,
        };
        let (sessions, joined) = start(config, bounded(1).0).unwrap();
        joined.detach();
        let visible_servers = [].into();
        let owner = Owner {
            principal: None,
            only: None,
            narrowed: None,
            visible_servers,
            admission: 0,
            charged: None,
            lease: None,
            user: None,
        };
        let session =
            sessions.open(Transport::StreamableHttp, owner, Some(Caller::plain())).unwrap();
        (sessions, session)
    }

    fn server() -> ServerName {
        ServerName::parse("a").unwrap()
    }

    fn question(is_of_call: bool, reply: AnswerTo) -> Question {
        let (id, method) = (RequestId::from(7), "roots/list".to_owned());
        Question { server: server(), id, is_of_call, method, params: None, reply }
    }

    /// A question, and the receiver that tells if it was answered with a result.
    fn heard(is_of_call: bool) -> (Question, Receiver<bool>) {
        let (told, answers) = bounded(1);
        let reply = AnswerTo::new(move |answer| told.try_send(answer.is_ok()).unwrap());
        (question(is_of_call, reply), answers)
    }

    #[test]
    fn what_is_open_is_closed_with_the_call_unless_it_may_be_of_another() {
        let (sessions, session) = session();
        let wait = Wait::plain(PATIENCE).unwrap();
        let mut questions = sessions.questions(&session, &wait);
        let (own, of_own) = heard(true);
        let (other, of_other) = heard(false);
        let (answered, of_answered) = heard(true);
        let own = questions.ask(own).unwrap();
        let other = questions.ask(other).unwrap();
        let answered = questions.ask(answered).unwrap();
        let raw = Raw::from_valid("{}".to_owned());
        session.answered(&answered).unwrap().answer(Ok(raw.clone()));
        assert_eq!(of_answered.recv_timeout(PATIENCE), Ok(true));
        questions.leave_others();
        assert_eq!(questions.close(), [own]);
        assert_eq!(of_own.recv_timeout(PATIENCE), Ok(false));
        drop(questions);
        session.answered(&other).unwrap().answer(Ok(raw));
        assert_eq!(of_other.recv_timeout(PATIENCE), Ok(true));
    }

    #[test]
    fn a_call_asks_and_gives_up_while_the_session_thread_is_held_up() {
        let (sessions, session) = session();
        let wait = Wait::plain(10 * PATIENCE).unwrap();
        let mut questions = sessions.questions(&session, &wait);
        // The end of this question holds the session thread up.
        let (go, gone) = bounded::<()>(0);
        let holds_up = AnswerTo::new(move |_| {
            gone.recv_timeout(PATIENCE).ok();
        });
        questions.ask(question(true, holds_up)).unwrap();
        sessions.withdraw_unasked(&session.id, server(), RequestId::from(7));
        while session.questions.has(1) {
            std::thread::yield_now();
        }
        let (next, of_next) = heard(true);
        let next = questions.ask(next).unwrap();
        assert_eq!(questions.close().last(), Some(&next));
        assert_eq!(of_next.recv_timeout(PATIENCE), Ok(false));
        drop(go);
    }

    #[test]
    fn the_end_of_a_session_closes_its_questions() {
        let (sessions, session) = session();
        let wait = Wait::plain(PATIENCE).unwrap();
        let mut questions = sessions.questions(&session, &wait);
        let (open, of_open) = heard(true);
        questions.ask(open).unwrap();
        sessions.close(&session.id).unwrap();
        assert_eq!(of_open.recv_timeout(PATIENCE), Ok(false));
        let (late, of_late) = heard(true);
        assert_eq!(questions.ask(late), None);
        assert_eq!(of_late.recv_timeout(PATIENCE), Ok(false));
        assert_eq!(questions.close(), []);
    }
}
