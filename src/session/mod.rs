//! Sessions of clients: the session thread owns every session and alone changes them, by
//! messages; requests read the sessions in a view that this thread publishes. The thread holds
//! senders, not sockets.

mod audience;
mod call_in_session;
mod command;
mod encoded_event;
mod ended;
mod entry;
pub(crate) mod event_log;
mod event_logs;
mod kept_streams;
mod lease;
mod leaving;
mod manager;
mod questions;
mod rescope;
mod resumable;
mod subscriptions;
mod table;
pub(crate) mod token;
mod transport;
mod user;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, SendTimeoutError, Sender, TrySendError, bounded};

use crate::access::policy::{OptionalLease, Policy};
use crate::error::CallError;
use crate::limits::{
    ENDED_ID_WRITE_TIMEOUT, SESSION_CALLS_MAX, SESSION_INBOX_UNASKED_MAX, SESSION_REPLY_TIMEOUT,
};
use crate::protocol::call::{Caller, PrincipalId};
use crate::protocol::capabilities::{can_be_asked, of_client_for_legacy, of_client_for_modern};
use crate::protocol::credentials::UserCredentials;
use crate::protocol::jsonrpc::RequestId;
use crate::protocol::log_level::LogLevel;
use crate::protocol::question::Question;
use crate::protocol::raw::Raw;
use crate::protocol::server_name::ServerName;
use crate::protocol::session_route::SessionKind;
use crate::protocol::subscriber::Subscriber;
use crate::protocol::view::ViewId;
use crate::sync::{Mutex, RwLock};
use crate::wait::{Interrupted, Wait};

use command::{Command, Reply};

pub use audience::{Audience, HeardOver, LogWish, Shared, SharedBy};
pub use call_in_session::CallInSession;
pub use encoded_event::EncodedEvent;
pub use ended::{Left, SessionEvents};
pub use event_log::{Bounds as EventLogBounds, EventId, Origin};
pub use event_logs::EventLogs;
pub use kept_streams::KeptStreams;
pub use manager::{SessionsConfig, start, withdrawal};
pub use questions::{CallQuestions, Pending};
pub use rescope::{Rescope, Rescoped, Sees};
pub use resumable::{Delivery, Resumable};
pub use transport::{
    Counts, EventSink, Listening, Owner, Refused, Requester, SessionId, Transport,
};

use questions::OpenQuestions;
use subscriptions::Subscriptions;

/// One session, as the view shows it. Other threads than the session thread change only its time
/// of last use, its calls in flight, its subscriptions and its resumable streams.
pub struct Session {
    /// The session's id.
    pub id: SessionId,
    /// The transport over which the session was opened.
    pub door: Transport,
    /// The session's owner.
    pub owner: Owner,
    /// The identity under which the session subscribes to resources at servers.
    pub subscriber: Subscriber,
    /// The streams over Streamable HTTP, kept for clients that resume them.
    pub kept: KeptStreams,
    /// The servers whose changes the client is told of.
    visible_servers: RwLock<Arc<[ServerName]>>,
    charged: RwLock<Option<PrincipalId>>,
    /// The access token with which the client came last.
    lease: RwLock<OptionalLease>,
    /// What its access token allowed when the client was last notified of its lists.
    told: Mutex<Option<Policy>>,
    /// The credentials of the last request that had any, for servers whose credentials are each
    /// user's own.
    user: RwLock<Option<Arc<UserCredentials>>>,
    caller: OnceLock<Arc<Caller>>,
    /// The filter of a stateless client's `subscriptions/listen` stream.
    listening: OnceLock<Listening>,
    /// The result of [`Session::can_be_asked`], once it is known.
    asked: OnceLock<bool>,
    /// The result of [`Session::stateless_capabilities`], once it is known.
    stateless: OnceLock<String>,
    /// The result of [`Session::views`], once it is known.
    views: OnceLock<[ViewId; 2]>,
    /// The stream of a session that lives as long as its stream.
    stream: OnceLock<Arc<dyn EventSink>>,
    /// The last number given by [`Session::next_stream`].
    last_stream: AtomicU64,
    opened: Instant,
    last_used_ms: AtomicU64,
    ended: AtomicBool,
    /// The level from which the client wants log messages: its place among [`LogLevel::ALL`],
    /// plus one; 0 while the client has set none.
    log_level: AtomicU8,
    subscriptions: Subscriptions,
    calls: Mutex<HashMap<RequestId, Arc<Wait>>>,
    /// The open questions of servers to the client.
    questions: OpenQuestions,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("door", &self.door).finish_non_exhaustive()
    }
}

impl Session {
    /// The caller that `initialize` described; none before it.
    pub fn caller(&self) -> Option<Arc<Caller>> {
        self.caller.get().cloned()
    }

    /// Sets the filter of the session's stream.
    pub fn listen(&self, listening: Listening) {
        // The filter is set once, by the request that opened the session.
        drop(self.listening.set(listening));
    }

    /// True if the client declares a capability by which servers may ask it questions.
    pub fn can_be_asked(&self) -> bool {
        let Some(caller) = self.caller.get() else { return false };
        *self.asked.get_or_init(|| can_be_asked(caller.capabilities.get()))
    }

    /// The client's capabilities for servers without sessions, an object's text; empty before
    /// `initialize`.
    pub fn stateless_capabilities(&self) -> &str {
        let Some(caller) = self.caller.get() else { return "{}" };
        self.stateless.get_or_init(|| of_client_for_modern(caller.capabilities.get()))
    }

    /// True if the client sees the lists of this view of a server, which depends on its
    /// capabilities, or on its credentials.
    fn sees(&self, server: &ServerName, view: ViewId) -> bool {
        if view.is_of_user() {
            return self.user_at(server).map(ViewId::of_user) == Some(view);
        }
        let caller = self.caller.get();
        caller.is_some_and(|it| self.door.is_for_any_request(it.capabilities.get()))
            || self.views().is_some_and(|views| views.contains(&view))
    }

    /// The views whose lists the client may see: on sessions that declare its capabilities, and
    /// in answer to requests that declare them. None before `initialize`.
    pub fn views(&self) -> Option<[ViewId; 2]> {
        let caller = self.caller.get()?;
        let views = self.views.get_or_init(|| match self.door {
            Transport::HttpSse | Transport::StreamableHttp | Transport::Stdio => [
                ViewId::of_session(caller.capabilities.get()),
                ViewId::of_request(self.stateless_capabilities()),
            ],
            Transport::Listen => [
                ViewId::of_session(&of_client_for_legacy(caller.capabilities.get())),
                ViewId::of_request(caller.capabilities.get()),
            ],
        });
        Some(*views)
    }

    /// True if the client is one of those that share the session with a server; else it is told
    /// nothing of that session.
    fn shares(&self, by: SharedBy) -> bool {
        match (self.door, by) {
            // Such a session stands for subscriptions alone, which are the shared session's.
            (Transport::Listen, _) | (_, SharedBy::EveryClient) => true,
            (_, SharedBy::ClientsThatCannotBeAsked) => !self.can_be_asked(),
            (_, SharedBy::NoClient) => false,
        }
    }

    fn hears_of(&self, server: &ServerName) -> bool {
        self.visible_servers.read().contains(server)
    }

    fn hears(&self) -> Arc<[ServerName]> {
        self.visible_servers.read().clone()
    }

    fn hear(&self, servers: Arc<[ServerName]>) {
        *self.visible_servers.write() = servers;
    }

    /// The principal to which things that outlast a request belong.
    pub fn principal_id(&self) -> PrincipalId {
        PrincipalId::new(self.owner.principal.as_ref(), &self.id)
    }

    /// A number for a stream that is about to be opened: the newer of two has the higher number,
    /// whichever is attached first. It is taken before the client can know of the stream.
    pub fn next_stream(&self) -> u64 {
        self.last_stream.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The stream of a session that lives as long as its stream, once it is attached.
    pub fn stream(&self) -> Option<&Arc<dyn EventSink>> {
        self.stream.get()
    }

    /// Sets the level from which the client wants log messages.
    pub fn set_log_level(&self, level: LogLevel) {
        let place = LogLevel::ALL.iter().position(|it| *it == level);
        let number = place.and_then(|place| u8::try_from(place + 1).ok()).unwrap_or_default();
        self.log_level.store(number, Ordering::Relaxed);
    }

    /// The level from which the client wants log messages, if it has set one.
    pub fn log_level(&self) -> Option<LogLevel> {
        let number = usize::from(self.log_level.load(Ordering::Relaxed));
        LogLevel::ALL.get(number.checked_sub(1)?).copied()
    }

    /// True if the client wants such a log message; without a level it wants every one.
    pub fn wants_log(&self, level: Option<LogLevel>) -> bool {
        match (self.log_level(), level) {
            (Some(wanted), Some(level)) => level >= wanted,
            (None, _) | (_, None) => true,
        }
    }

    /// As `wants_log`, on a session with a server that clients share.
    fn wants(&self, log: LogWish) -> bool {
        match (self.log_level().or(log.unsaid), log.level) {
            (Some(wanted), Some(level)) => level >= wanted,
            (None, _) | (_, None) => true,
        }
    }

    /// Notes a subscription; a second one to the same resource changes nothing. Subscriptions
    /// over a shared session are among the session's remains when it ends.
    ///
    /// # Errors
    /// There are too many, the session has ended, or it may not see the server.
    pub fn subscribe(
        &self,
        server: &ServerName,
        own: &str,
        asked: &str,
        over: SessionKind,
    ) -> Result<(), Refused> {
        let resource = (server.clone(), own.to_owned());
        self.subscriptions.add(resource, asked, over, |server| self.hears_of(server))
    }

    /// True if the session is subscribed to the resource.
    pub fn is_subscribed(&self, server: &ServerName, own: &str) -> bool {
        self.subscriptions.has(&(server.clone(), own.to_owned()))
    }

    /// Forgets a subscription; false if there was none.
    pub fn unsubscribe(&self, server: &ServerName, own: &str) -> bool {
        self.subscriptions.remove(&(server.clone(), own.to_owned()))
    }

    /// Notes that the session is in use.
    pub fn touch(&self) {
        let ms = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_used_ms.fetch_max(ms, Ordering::Relaxed);
    }

    /// Enters a call, so that the client can cancel it. Dropping the guard removes the call.
    ///
    /// # Errors
    /// The id is in use, or too many calls are in flight.
    pub fn enter(
        self: &Arc<Session>,
        id: &RequestId,
        wait: &Arc<Wait>,
    ) -> Result<CallInSession, Refused> {
        self.touch();
        let mut calls = self.calls.lock();
        if self.ended.load(Ordering::Acquire) {
            return Err(Refused::Ended);
        }
        if calls.contains_key(id) {
            return Err(Refused::IdInUse);
        }
        if calls.len() >= SESSION_CALLS_MAX {
            return Err(Refused::TooMany);
        }
        calls.insert(id.clone(), wait.clone());
        Ok(CallInSession { session: self.clone(), id: id.clone() })
    }

    /// Cancels the call of that id. False if there is none: the call may just have ended.
    pub fn cancel(&self, id: &RequestId) -> bool {
        self.touch();
        let calls = self.calls.lock();
        calls.get(id).map(|wait| wait.interrupt(Interrupted::Cancelled)).is_some()
    }

    fn end(&self) {
        self.questions.end();
        let calls = self.calls.lock();
        self.ended.store(true, Ordering::Release);
        for wait in calls.values() {
            wait.interrupt(Interrupted::Cancelled);
        }
        drop(calls);
        if let Some(stream) = self.stream.get() {
            stream.close();
        }
        self.kept.end();
    }

    fn has_calls(&self) -> bool {
        !self.calls.lock().is_empty()
    }

    fn last_used(&self) -> Instant {
        self.opened + Duration::from_millis(self.last_used_ms.load(Ordering::Relaxed))
    }
}

type View = Arc<RwLock<HashMap<SessionId, Arc<Session>>>>;

/// The handle of the session thread, and the only way to it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sessions {
    inbox: Sender<Command>,
    view: View,
    /// The time for which a question to a client stays open.
    parked: Duration,
}

type Opened = Result<Arc<Session>, CallError>;

impl Sessions {
    /// Opens a session. For HTTP+SSE the caller comes later, with `initialize`.
    ///
    /// # Errors
    /// A bound on sessions is reached, or the session thread does not answer in time.
    pub fn open(&self, door: Transport, owner: Owner, caller: Option<Caller>) -> Opened {
        self.ask(|reply| Command::Open { door, owner, caller, reply })?
    }

    /// The session of that id if it is open and belongs to `requester`. A valid id that an earlier
    /// process issued is revived; its session may then see the servers that `may_hear` gives.
    pub fn find(
        &self,
        id: &str,
        requester: Requester,
        door: Transport,
        may_hear: impl FnOnce() -> Vec<ServerName>,
    ) -> Option<Arc<Session>> {
        let known = self.view.read().get(id).cloned();
        let session = match known {
            Some(session) => session,
            // Only tokens have a dot, so that a random text costs the session thread nothing.
            None if door == Transport::StreamableHttp && id.contains('.') => {
                let id = SessionId::from(id);
                let (requester, may_hear) = (requester.clone(), may_hear());
                self.ask(|reply| Command::Revive { id, requester, may_hear, reply }).ok()??
            }
            None => return None,
        };
        let theirs = session.owner.principal == requester.principal && session.door == door;
        theirs.then_some(session)
    }

    /// Stores the caller that an HTTP+SSE client's `initialize` described. False if the session
    /// is gone or has a caller already.
    ///
    /// # Errors
    /// The session thread does not answer in time.
    pub fn introduce(&self, id: &SessionId, caller: Caller) -> Result<bool, CallError> {
        let id = id.clone();
        self.ask(|reply| Command::Introduce { id, caller, reply })
    }

    /// Gives a session a stream. False if the session is gone.
    ///
    /// # Errors
    /// The session thread does not answer in time.
    pub fn attach(
        &self,
        id: &SessionId,
        number: u64,
        stream: Arc<dyn EventSink>,
    ) -> Result<bool, CallError> {
        let id = id.clone();
        self.ask(|reply| Command::Attach { id, number, stream, reply })
    }

    /// Ends a session: its calls are cancelled and its streams closed. When this returns, its end
    /// is on the disk too, if there is a state directory and the disk is not slow.
    ///
    /// # Errors
    /// The session thread does not answer in time.
    pub fn close(&self, id: &SessionId) -> Result<(), CallError> {
        let written =
            self.ask(|reply| Command::Close { id: id.clone(), reply: Some(reply) })?;
        if let Some(written) = written {
            written.wait(ENDED_ID_WRITE_TIMEOUT);
        }
        Ok(())
    }

    /// As [`Sessions::close`], for a session of an earlier process for which there is no room.
    /// False if the id is not that of such a session, or the session belongs to others.
    ///
    /// # Errors
    /// The session thread does not answer in time.
    pub fn forget(
        &self,
        id: &str,
        principal: Option<&str>,
        only: Option<&ServerName>,
    ) -> Result<bool, CallError> {
        if !id.contains('.') {
            return Ok(false);
        }
        let (id, principal, only) = (id.into(), principal.map(Arc::from), only.cloned());
        let forgotten = self.ask(|reply| Command::Forget { id, principal, only, reply })?;
        if let Some(Some(written)) = &forgotten {
            written.wait(ENDED_ID_WRITE_TIMEOUT);
        }
        Ok(forgotten.is_some())
    }

    /// As [`Sessions::close`], but returns at once: for the end of a stream, which a thread
    /// notices that may not wait. If the inbox is full, a sweep ends the session.
    pub fn close_soon(&self, id: &SessionId) {
        self.tell(Command::Close { id: id.clone(), reply: None }).ok();
    }

    /// Sends one message to every session of the audience, on one stream of each.
    ///
    /// # Errors
    /// The inbox is full.
    pub fn notify(&self, to: Audience, message: String) -> Result<(), CallError> {
        self.tell_unasked(Command::Tell { to, message })
    }

    /// Tells subscribed sessions that a resource has changed: `params` are those of
    /// `notifications/resources/updated` as the server wrote them, heard over that session with
    /// the server.
    ///
    /// # Errors
    /// The inbox is full.
    pub fn updated(
        &self,
        server: ServerName,
        over: HeardOver,
        params: Raw,
    ) -> Result<(), CallError> {
        self.tell_unasked(Command::Updated { server, over, params })
    }

    /// The questions of one call to the client of a session, none at first. `wait` is the call's.
    pub fn questions<'a>(
        &self,
        session: &'a Session,
        wait: &'a Arc<Wait>,
    ) -> CallQuestions<'a> {
        CallQuestions::new(session, wait, self.parked)
    }

    /// Asks the client of a session a question that belongs to no call, on its newest stream. If
    /// there is no stream, the server gets an error. Never waits.
    pub fn ask_unasked(&self, id: &SessionId, question: Question) {
        // If the inbox is full, the dropped question answers itself with an error.
        self.tell_unasked(Command::AskUnasked { id: id.clone(), question }).ok();
    }

    /// As [`Session::withdraw`], and tells the client on its newest stream. Never waits.
    pub fn withdraw_unasked(&self, id: &SessionId, server: ServerName, upstream_id: RequestId) {
        self.tell(Command::WithdrawUnasked { id: id.clone(), server, upstream_id }).ok();
    }

    /// True if the client of a session wants such a log message.
    pub fn wants_log(&self, id: &str, level: Option<LogLevel>) -> bool {
        let view = self.view.read();
        view.get(id).is_some_and(|session| session.wants_log(level))
    }

    /// The principal of an open session.
    pub fn principal_id(&self, id: &str) -> Option<PrincipalId> {
        let view = self.view.read();
        view.get(id).map(|session| session.principal_id())
    }

    /// The lowest log level of the clients that share a session with a server, with the usual
    /// level for those that have set none. None where no client has set one.
    pub fn lowest_log_level(&self, shared: &Shared) -> Option<LogLevel> {
        let view = self.view.read();
        let sharing = view.values().filter(|session| match session.door {
            Transport::HttpSse | Transport::StreamableHttp | Transport::Stdio => {
                session.caller.get().is_some()
                    && session.hears_of(&shared.server)
                    && session.shares(shared.by)
            }
            // Such a stream carries no log messages.
            Transport::Listen => false,
        });
        let wanted: Vec<Option<LogLevel>> = sharing.map(|it| it.log_level()).collect();
        let has_said = wanted.iter().any(Option::is_some);
        let each = wanted.into_iter().map(|level| level.unwrap_or(LogLevel::USUAL));
        each.min().filter(|_| has_said)
    }

    /// Gives every session the servers that `rescope` gives for its owner, and ends sessions for
    /// which it gives none. It holds also for sessions that open later with an older admission.
    ///
    /// # Errors
    /// The inbox stays full.
    pub fn rescope(&self, rescope: Rescope) -> Result<(), CallError> {
        let command = Command::Rescope(rescope);
        self.inbox.send_timeout(command, SESSION_REPLY_TIMEOUT).map_err(|error| match error {
            SendTimeoutError::Timeout(_) => overloaded(),
            SendTimeoutError::Disconnected(_) => CallError::ShuttingDown,
        })
    }

    /// Ends every `subscriptions/listen` stream gracefully: after its response.
    pub fn end_listening(&self) {
        // A full inbox belongs to a thread that has died, or will end with the process.
        self.tell(Command::EndListening).ok();
    }

    /// Ends the session thread after the commands before, while handles may still exist.
    pub fn stop(&self) {
        // A full inbox belongs to a thread that has died, or will end with the process.
        self.tell(Command::Stop).ok();
    }

    /// True if the session thread answers.
    pub fn is_alive(&self) -> bool {
        self.ask(|reply| Command::Alive { reply }).is_ok()
    }

    /// The numbers of open sessions.
    pub fn counts(&self) -> Counts {
        let view = self.view.read();
        let count = |door| view.values().filter(|session| session.door == door).count();
        Counts {
            http_sse: count(Transport::HttpSse),
            streamable_http: count(Transport::StreamableHttp),
            stdio: count(Transport::Stdio),
            listening: count(Transport::Listen),
        }
    }

    fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, CallError> {
        let (reply, answer) = bounded(1);
        self.tell(command(Reply(reply)))?;
        answer.recv_timeout(SESSION_REPLY_TIMEOUT).map_err(|error| match error {
            RecvTimeoutError::Timeout => overloaded(),
            RecvTimeoutError::Disconnected => CallError::ShuttingDown,
        })
    }

    /// Sends a command that a server caused; such commands leave room in the inbox for clients'.
    fn tell_unasked(&self, command: Command) -> Result<(), CallError> {
        if self.inbox.len() >= SESSION_INBOX_UNASKED_MAX {
            return Err(overloaded());
        }
        self.tell(command)
    }

    fn tell(&self, command: Command) -> Result<(), CallError> {
        self.inbox.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => overloaded(),
            TrySendError::Disconnected(_) => CallError::ShuttingDown,
        })
    }
}

fn overloaded() -> CallError {
    CallError::Overloaded { what: "the session thread's inbox is full".to_owned() }
}
