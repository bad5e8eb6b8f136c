//! The questions that wait for an answer, and those that are asked in one call: they end with it.

pub(super) mod table;

use std::sync::Arc;

use super::{Command, SessionId, Sessions};
use crate::protocol::call::{AnswerTo, Question};
use crate::protocol::jsonrpc::{RequestId, RpcError};
use crate::protocol::raw::Raw;
use crate::protocol::server_name::ServerName;
use crate::wait::{Held, Wait};
use table::Tie;

/// A question that waits for its answer. Dropped, it answers itself with an error.
#[derive(Debug)]
pub struct Pending {
    /// Whose question it is.
    pub server: ServerName,
    /// Its method.
    pub method: String,
    /// Where the answer goes.
    pub reply: AnswerTo,
    /// Holds the call's timeout meanwhile.
    pub(super) held: Option<Held>,
}

impl Pending {
    /// Gives the client's answer.
    pub fn answer(self, answer: Result<Raw, RpcError>) {
        drop(self.held);
        self.reply.send(answer);
    }
}

struct OpenQuestion {
    /// What the client sees.
    id: RequestId,
    is_of_call: bool,
    tie: Arc<Tie>,
}

/// The questions to a client in one call. Those that are open when this is dropped are closed,
/// and their servers told that there is no answer.
pub struct CallQuestions<'a> {
    sessions: &'a Sessions,
    session: &'a SessionId,
    wait: &'a Arc<Wait>,
    /// Those that may be open, so no more than a session may have.
    asked: Vec<OpenQuestion>,
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
        sessions: &'a Sessions,
        session: &'a SessionId,
        wait: &'a Arc<Wait>,
    ) -> CallQuestions<'a> {
        CallQuestions { sessions, session, wait, asked: Vec::new() }
    }

    /// Opens a question, for whoever can send it: gives the id that the client is to see. The
    /// call's timeout stands still while it is open.
    pub fn ask(&mut self, question: Question) -> Option<RequestId> {
        self.asked.retain(|asked| asked.tie.is_open());
        let (is_of_call, tie) = (question.is_of_call, Arc::new(Tie::default()));
        let (id, wait) = (self.session.clone(), self.wait.clone());
        let tied = tie.clone();
        let ask = |reply| Command::Ask { id, question, wait, tie: tied, reply };
        let Ok(number) = self.sessions.ask(ask) else {
            // Opened later than this, nobody would send it, and the call would stand still.
            tie.give_up();
            self.tell_given_up();
            return None;
        };
        let id = RequestId::from(number?);
        self.asked.push(OpenQuestion { id: id.clone(), is_of_call, tie });
        Some(id)
    }

    /// The server has answered the call: what may be about something else outlives it.
    pub fn leave_others(&mut self) {
        self.asked.retain(|asked| asked.is_of_call);
    }

    /// Closes those that are open, and gives the ids that the client sees. Never waits.
    pub fn close(&mut self) -> Vec<RequestId> {
        self.asked.retain(|asked| asked.tie.is_open());
        if self.asked.is_empty() {
            return Vec::new();
        }
        self.asked.iter().for_each(|asked| asked.tie.give_up());
        self.tell_given_up();
        self.asked.drain(..).map(|asked| asked.id).collect()
    }

    fn tell_given_up(&self) {
        // If the inbox is full, a sweep finds them.
        self.sessions.tell(Command::GivenUp { id: self.session.clone() }).ok();
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
    use crate::protocol::call::{AnswerTo, Caller};
    use crate::protocol::raw::Raw;
    use crate::protocol::server_name::ServerName;
    use crate::session::{Owner, SessionsConfig, Transport, start};
    use crossbeam_channel::{Receiver, bounded};
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn session() -> (Sessions, SessionId) {
        let config = SessionsConfig {
            key: [1; 32],
            sessions: 10,
            sessions_per_key: 10,
            idle: 10 * PATIENCE,
            parked: 10 * PATIENCE,
            left: bounded(8).0,
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
        };
        let session =
            sessions.open(Transport::StreamableHttp, owner, Some(Caller::plain())).unwrap();
        (sessions, session.id.clone())
    }

    fn server() -> ServerName {
        ServerName::parse("a").unwrap()
    }

    fn question(is_of_call: bool, reply: AnswerTo) -> Question {
        let (id, method) = (RequestId::from(7), "roots/list".to_owned());
        Question { server: server(), id, is_of_call, method, params: None, reply }
    }

    /// A question, and whether it was answered with a result.
    fn heard(is_of_call: bool) -> (Question, Receiver<bool>) {
        let (told, answers) = bounded(1);
        let reply = AnswerTo::new(move |answer| told.try_send(answer.is_ok()).unwrap());
        (question(is_of_call, reply), answers)
    }

    #[test]
    fn what_is_open_is_closed_with_the_call_unless_it_may_be_of_another() {
        let (sessions, id) = session();
        let wait = Wait::plain(PATIENCE).unwrap();
        let mut questions = sessions.questions(&id, &wait);
        let (own, of_own) = heard(true);
        let (other, of_other) = heard(false);
        let (answered, of_answered) = heard(true);
        let own = questions.ask(own).unwrap();
        let other = questions.ask(other).unwrap();
        let answered = questions.ask(answered).unwrap();
        let raw = Raw::from_valid("{}".to_owned());
        sessions.answered(&id, &answered).unwrap().answer(Ok(raw.clone()));
        assert_eq!(of_answered.recv_timeout(PATIENCE), Ok(true));
        questions.leave_others();
        assert_eq!(questions.close(), [own]);
        assert_eq!(of_own.recv_timeout(PATIENCE), Ok(false));
        drop(questions);
        sessions.answered(&id, &other).unwrap().answer(Ok(raw));
        assert_eq!(of_other.recv_timeout(PATIENCE), Ok(true));
    }

    #[test]
    fn a_question_that_is_opened_too_late_for_its_call_is_closed_at_once() {
        let (sessions, id) = session();
        let wait = Wait::plain(10 * PATIENCE).unwrap();
        let mut questions = sessions.questions(&id, &wait);
        // Whoever hears of this one's end holds the session thread up.
        let (go, gone) = bounded::<()>(0);
        let holds_up = AnswerTo::new(move |_| {
            gone.recv_timeout(PATIENCE).ok();
        });
        questions.ask(question(true, holds_up)).unwrap();
        sessions.withdraw_unasked(&id, server(), RequestId::from(7));
        let (late, of_late) = heard(true);
        assert_eq!(questions.ask(late), None);
        drop(go);
        assert_eq!(of_late.recv_timeout(PATIENCE), Ok(false));
        assert_eq!(questions.close(), []);
    }
}
