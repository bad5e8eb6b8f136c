//! Messages and questions of a server during a call, for the client of that call.

use std::cell::RefCell;
use std::sync::Arc;

use crate::downstream::answer::MessageSink;
use crate::protocol::call::{About, CallSink, Caller, Client, Notice};
use crate::protocol::for_revision;
use crate::protocol::jsonrpc;
use crate::protocol::legacy;
use crate::protocol::log_level::LogLevel;
use crate::protocol::method::notification;
use crate::protocol::question::Question;
use crate::protocol::raw::Raw;
use crate::session::{self, CallQuestions, Session, Sessions};
use crate::wait::Wait;

/// The client of a session, as servers know it.
pub(crate) fn client_of(session: &Session, caller: &Caller) -> Client {
    Client {
        session: session.id.clone(),
        is_exclusive: false,
        capabilities: caller.capabilities.clone(),
        can_be_asked: session.can_be_asked(),
        charged: session.charged(),
    }
}

/// The caller of a session's call, as requests to servers without sessions tell of it.
pub(crate) fn about(session: &Session) -> About<'_> {
    // Servers with sessions send any log messages until a level is set; others send none unless
    // each request asks for them.
    let log_level = Some(session.log_level().unwrap_or(LogLevel::USUAL));
    About { capabilities: session.stateless_capabilities(), log_level, is_level_told: true }
}

/// Turns a server's messages during a call into messages for the call's client. When it is
/// dropped, the call ends: the client is told of questions that need no answer any more.
pub(crate) struct LegacyCallSink<'a> {
    sessions: &'a Sessions,
    session: &'a Session,
    questions: RefCell<CallQuestions<'a>>,
    /// The token with which the client wants progress.
    token: Option<String>,
    inner: &'a dyn MessageSink,
}

impl<'a> LegacyCallSink<'a> {
    /// A sink for the client behind `inner`, whose call waits on `wait`.
    pub(crate) fn new(
        sessions: &'a Sessions,
        session: &'a Session,
        wait: &'a Arc<Wait>,
        inner: &'a dyn MessageSink,
    ) -> LegacyCallSink<'a> {
        let questions = RefCell::new(sessions.questions(session, wait));
        LegacyCallSink { sessions, session, questions, token: None, inner }
    }

    /// Sets the token, a JSON text, with which the client wants progress, if it wants any.
    pub(crate) fn wants_progress(&mut self, token: Option<&str>) {
        self.token = token.map(str::to_owned);
    }

    /// Sends the client a notification that comes from no server.
    pub(crate) fn tell(&self, method: &str, params: &str) {
        self.inner.message(&jsonrpc::notification(method, Some(params)));
    }

    /// Notes that the server has answered the call.
    pub(crate) fn answered(&self) {
        self.questions.borrow_mut().leave_others();
    }
}

impl CallSink for LegacyCallSink<'_> {
    fn notice(&self, notice: Notice) {
        let message = match notice {
            Notice::Progress(params) => self.token.as_ref().and_then(|token| {
                let params = legacy::with_progress_token(params.get(), token).ok()?;
                Some(jsonrpc::notification(notification::PROGRESS, Some(&params)))
            }),
            Notice::Log(params) => {
                let wanted = self.session.wants_log(LogLevel::of_message(params.get()));
                let message = jsonrpc::notification(notification::MESSAGE, Some(params.get()));
                wanted.then_some(message)
            }
            // Subscribed sessions are told of it, outside of calls.
            Notice::ResourceUpdated(_) => None,
            Notice::Withdrawn { server, id } => {
                let withdrawn = self.session.withdraw(&server, &id);
                if withdrawn.is_none() {
                    // Outside of calls the session thread asks questions; it may not have asked
                    // this one yet.
                    self.sessions.withdraw_unasked(&self.session.id, server, id);
                }
                withdrawn.map(|id| session::withdrawal(&id))
            }
            Notice::Other { method, params } => {
                let caller = self.session.caller();
                caller
                    .is_some_and(|caller| for_revision::hears(caller.revision, &method))
                    .then(|| jsonrpc::notification(&method, params.as_ref().map(Raw::get)))
            }
        };
        if let Some(message) = message {
            self.inner.message(&message);
        }
    }

    fn ask(&self, question: Question) {
        let caller = self.session.caller().unwrap_or_else(|| Arc::new(Caller::plain()));
        let capabilities = caller.capabilities.get();
        let Some(question) = question.if_served(caller.revision, capabilities) else { return };
        let (method, params) = (question.method.clone(), question.params.clone());
        let id = self.questions.borrow_mut().ask(question);
        if let Some(id) = id {
            let params = params.as_ref().map(Raw::get);
            self.inner.message(&jsonrpc::request(&id, &method, params));
        }
    }
}

impl Drop for LegacyCallSink<'_> {
    fn drop(&mut self) {
        let closed = self.questions.get_mut().close();
        // The panic may have come from the way to the client.
        if std::thread::panicking() {
            return;
        }
        // Every revision with sessions has this notification, in both directions.
        for id in closed {
            self.inner.message(&session::withdrawal(&id));
        }
    }
}
