//! The session thread: receive, apply, publish, sweep. The rules are in `table.rs`.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use ring::rand::{SecureRandom, SystemRandom};

use super::ended::EndedIds;
use super::questions::expiry;
use super::table::{Bounds, Full, Table};
use super::token::{Claims, Signer};
use super::{
    Command, Opened, Owner, Requester, Rescope, Session, SessionEvents, SessionId, Sessions,
    Transport, View,
};
use crate::error::CallError;
use crate::limits::{SESSION_INBOX_COMMANDS_MAX, SESSION_SWEEP_INTERVAL, SESSION_TOKEN_LIFE};
use crate::protocol::call::Caller;
use crate::protocol::jsonrpc::{RequestId, notification, request};
use crate::protocol::method::notification::CANCELLED;
use crate::protocol::question::Question;
use crate::protocol::raw::Raw;
use crate::protocol::server_name::ServerName;
use crate::state::{Id, Writer, Written};
use crate::thread::{self, StopReason};

/// The settings and channels of the session thread.
#[derive(Debug)]
pub struct SessionsConfig {
    /// The key that signs session ids.
    pub key: [u8; 32],
    /// The most sessions that are open at once.
    pub sessions: usize,
    /// The most sessions that are open at once under one key.
    pub sessions_per_key: usize,
    /// The time without use after which a session ends.
    pub idle: Duration,
    /// The time for which a server's question to a client stays open.
    pub parked: Duration,
    /// Receives the remains of sessions.
    pub events: Arc<dyn SessionEvents>,
    /// The ids of sessions that were ended before this process, the oldest first.
    pub ended: Vec<Id>,
    /// Writes the ids of sessions that end from here on.
    pub writer: Option<Writer>,
}

/// Starts the thread. It serves before this returns, so no request can come too early.
///
/// # Errors
/// The system refuses a thread or random bytes.
pub fn start(
    config: SessionsConfig,
    stop: Sender<StopReason>,
) -> io::Result<(Sessions, thread::Joined)> {
    let (inbox, commands) = bounded(SESSION_INBOX_COMMANDS_MAX);
    let view = View::default();
    let parked = config.parked;
    let manager = Manager::new(config, view.clone())?;
    let joined = thread::spawn_owner("sessions", stop, move || manager.run(&commands))?;
    let sessions = Sessions { inbox, view, parked };
    if sessions.is_alive() {
        Ok((sessions, joined))
    } else {
        Err(io::Error::other("the session thread does not answer"))
    }
}

struct Manager {
    table: Table,
    parked: Duration,
    events: Arc<dyn SessionEvents>,
    view: View,
    signer: Signer,
    random: SystemRandom,
    boot: String,
    ended: EndedIds,
    /// The last change of the servers that sessions may see.
    rescoped: Option<Rescope>,
    /// A fault that a test asks for; see [`fault`].
    fault: Option<String>,
}

impl Manager {
    fn new(config: SessionsConfig, view: View) -> io::Result<Manager> {
        let random = SystemRandom::new();
        let bounds = Bounds {
            sessions: config.sessions,
            sessions_per_key: config.sessions_per_key,
            idle: config.idle,
        };
        Ok(Manager {
            table: Table::new(bounds),
            parked: config.parked,
            events: config.events,
            view,
            signer: Signer::new(&config.key),
            boot: hex(&random_bytes::<8>(&random)?),
            random,
            ended: EndedIds::new(&config.ended, config.writer),
            rescoped: None,
            fault: fault(),
        })
    }

    fn run(mut self, commands: &Receiver<Command>) {
        let mut swept = Instant::now();
        loop {
            match commands.recv_timeout(SESSION_SWEEP_INTERVAL) {
                Ok(Command::Stop) => return,
                Ok(command) => self.apply(command),
                Err(RecvTimeoutError::Timeout) => (),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // This also runs when the inbox is never empty: a busy inbox must not starve the
            // sweep.
            if swept.elapsed() >= SESSION_SWEEP_INTERVAL {
                swept = Instant::now();
                // The session is unpublished first, as in `close`.
                for id in self.table.over(swept) {
                    self.unpublish(&id);
                    self.end(&id);
                }
                self.events.swept();
            }
        }
    }

    fn apply(&mut self, command: Command) {
        match command {
            Command::Open { door, owner, caller, reply } => {
                self.fail_if_asked("session-open");
                reply.send(self.open(door, owner, caller));
            }
            Command::Revive { id, requester, may_hear, reply } => {
                reply.send(self.revive(id, requester, may_hear));
            }
            Command::Introduce { id, caller, reply } => {
                reply.send(self.table.introduce(&id, caller));
            }
            Command::Attach { id, number, stream, reply } => {
                reply.send(self.table.attach(&id, number, stream));
            }
            Command::Close { id, reply } => {
                let written = self.close(&id);
                if let Some(reply) = reply {
                    reply.send(written);
                }
            }
            Command::Forget { id, principal, only, reply } => {
                reply.send(self.forget(&id, principal.as_deref(), only.as_ref()));
            }
            Command::Tell { to, message } => self.table.tell(&to, &message, Instant::now()),
            Command::Updated { server, over, params } => {
                self.table.updated(&server, &over, &params);
            }
            Command::AskUnasked { id, question } => self.ask_on_stream(&id, question),
            Command::WithdrawUnasked { id, server, upstream_id } => {
                let session = self.table.session(&id);
                if let Some(question) =
                    session.and_then(|it| it.withdraw(&server, &upstream_id))
                {
                    self.table.send(&id, &withdrawal(&question));
                }
            }
            Command::Rescope(rescope) => {
                let (left, ends) = self.table.rescope(&rescope);
                left.into_iter().for_each(|left| self.events.left(left));
                for id in ends {
                    self.close(&id);
                }
                self.rescoped = Some(rescope);
            }
            Command::Renew { id, owner, reply } => {
                // The request may have been admitted before the last change of admissions.
                let owner = match &self.rescoped {
                    Some(rescope) => rescope.late(owner),
                    None => Some(owner),
                };
                if let Some(owner) = owner {
                    self.table.renew(&id, owner);
                }
                reply.send(());
            }
            Command::EndListening => self.table.end_listening(),
            Command::Alive { reply } => reply.send(()),
            Command::Stop => (),
        }
    }

    fn open(&mut self, door: Transport, owner: Owner, caller: Option<Caller>) -> Opened {
        let random = random_bytes::<16>(&self.random).map_err(|_| CallError::Internal)?;
        let id: SessionId = match (door, &caller) {
            (Transport::StreamableHttp, Some(caller)) => {
                let claims = self.claims(hex(&random), &owner, caller);
                self.signer.sign(&claims).into()
            }
            // A session that cannot outlive its stream has an id that carries no claims.
            (
                Transport::HttpSse
                | Transport::StreamableHttp
                | Transport::Stdio
                | Transport::Listen,
                _,
            ) => hex(&random).into(),
        };
        self.add(id, door, owner, caller)
    }

    fn claims(&self, id: String, owner: &Owner, caller: &Caller) -> Claims {
        Claims {
            id,
            boot: self.boot.clone(),
            principal: owner.principal.as_deref().map(str::to_owned),
            revision: caller.revision,
            capabilities: Some(caller.capabilities.get().to_owned()),
            only: owner.only.clone(),
            narrowed: owner.narrowed.as_deref().map(<[ServerName]>::to_vec),
            expires: now_seconds() + SESSION_TOKEN_LIFE.as_secs(),
        }
    }

    fn add(
        &mut self,
        id: SessionId,
        door: Transport,
        owner: Owner,
        caller: Option<Caller>,
    ) -> Opened {
        let full = |what: &str| CallError::Overloaded { what: what.to_owned() };
        // The request may have been admitted before the last change of admissions.
        let owner = match &self.rescoped {
            Some(rescope) => rescope.late(owner),
            None => Some(owner),
        };
        let owner = owner.ok_or_else(|| full("who is admitted has just changed"))?;
        let session = self
            .table
            .open(Instant::now(), id.clone(), door, owner, caller)
            .map_err(|bound| match bound {
                Full::Sessions => full("limits.sessions is reached"),
                Full::SessionsPerKey => full("limits.sessions_per_key is reached"),
                Full::Share(share) => full(&format!(
                    "your sessions are your share of limits.sessions, which is {share} now"
                )),
            })?;
        let mut view = self.view.write();
        view.insert(id, session.clone());
        Ok(session)
    }

    /// Revives a session that an earlier process opened, under the same id. A session of this
    /// process that is not in the table has ended.
    fn revive(
        &mut self,
        id: SessionId,
        requester: Requester,
        may_hear: Vec<ServerName>,
    ) -> Option<Arc<Session>> {
        let published = self.view.read().get(&id).cloned();
        if published.is_some() {
            return published;
        }
        let Requester { principal, admission, charged, lease, user } = requester;
        let claims = self.revivable(&id, principal.as_deref())?;
        let caller = claims.caller()?;
        let is_visible = |server: &ServerName| {
            claims.only.as_ref().is_none_or(|only| only == server)
                && claims.narrowed.as_ref().is_none_or(|list| list.contains(server))
        };
        let owner = Owner {
            principal: claims.principal.as_deref().map(Into::into),
            only: claims.only.clone(),
            narrowed: claims.narrowed.clone().map(Into::into),
            visible_servers: may_hear.into_iter().filter(is_visible).collect(),
            admission,
            charged,
            lease,
            user,
        };
        self.add(id, Transport::StreamableHttp, owner, Some(caller)).ok()
    }

    /// The claims of an earlier process's session id, unless that session has ended.
    fn revivable(&self, id: &str, principal: Option<&str>) -> Option<Claims> {
        let claims = self.signer.read(id, now_seconds())?;
        let is_theirs = claims.principal.as_deref() == principal;
        let may_live = claims.boot != self.boot && !self.ended.has(&claims);
        (is_theirs && may_live).then_some(claims)
    }

    /// Ends a session of an earlier process that this one has not revived, maybe for want of
    /// room.
    fn forget(
        &mut self,
        id: &SessionId,
        principal: Option<&str>,
        only: Option<&ServerName>,
    ) -> Option<Option<Written>> {
        let claims = self.revivable(id, principal)?;
        (claims.only.as_ref() == only).then(|| self.close(id))
    }

    /// Asks a client a question that belongs to no call. A question that is dropped here answers
    /// itself with an error.
    fn ask_on_stream(&mut self, id: &SessionId, question: Question) {
        let Some(session) = self.table.session(id).cloned() else { return };
        // Before `initialize` the client has no capabilities, and cannot be asked.
        let caller = session.caller().unwrap_or_else(|| Arc::new(Caller::plain()));
        if !session.hears_of(&question.server) {
            return;
        }
        let capabilities = caller.capabilities.get();
        let Some(question) = question.if_served(caller.revision, capabilities) else { return };
        let (method, params) = (question.method.clone(), question.params.clone());
        let expires = expiry(Instant::now(), self.parked);
        let Some(number) = session.questions.open(question, expires, None) else { return };
        let params = params.as_ref().map(Raw::get);
        let message = request(&RequestId::from(number), &method, params);
        if !self.table.send(id, &message) {
            // There is no stream, so the client cannot be asked.
            drop(session.questions.take(number));
        }
    }

    /// Ends a session that is no longer in the view.
    fn end(&mut self, id: &SessionId) {
        if let Some(left) = self.table.close(id) {
            self.events.left(left);
        }
    }

    /// Ends a session for good. A session that was idle for too long is not ended so: after a
    /// restart, which forgets how long that was, its token is good until it expires.
    fn close(&mut self, id: &SessionId) -> Option<Written> {
        let claims = self.signer.read(id, now_seconds());
        let written = claims.and_then(|claims| self.ended.add(&claims, &self.boot));
        // The session is unpublished first: a session that is found in the view is alive.
        self.unpublish(id);
        self.end(id);
        written
    }

    fn unpublish(&self, id: &SessionId) {
        self.view.write().remove(id);
    }

    fn fail_if_asked(&self, at: &str) {
        assert!(self.fault.as_deref() != Some(at), "a fault was asked for at {at}");
    }
}

/// The notification to a client that a question need not be answered.
pub fn withdrawal(question: &RequestId) -> String {
    let params = format!("{{\"requestId\":{}}}", question.as_json());
    notification(CANCELLED, Some(&params))
}

/// The fault that a test asks for by `TRUNKLINE_FAULT`. A release build has none.
fn fault() -> Option<String> {
    if cfg!(debug_assertions) { std::env::var("TRUNKLINE_FAULT").ok() } else { None }
}

fn random_bytes<const N: usize>(random: &SystemRandom) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    random.fill(&mut bytes).map_err(|_| io::Error::other("the system gives no randomness"))?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::Left;
    use super::*;

    fn started(key: [u8; 32]) -> Sessions {
        started_with(key, Arc::default())
    }

    fn started_with(key: [u8; 32], events: Arc<Mutex<Vec<Left>>>) -> Sessions {
        let (stop, _) = bounded(1);
        let config = SessionsConfig {
            key,
            sessions: 10,
            sessions_per_key: 10,
            idle: Duration::from_secs(60),
            parked: Duration::from_secs(60),
            events,
            ended: Vec::new(),
            writer: None,
        };
        let (sessions, joined) = start(config, stop).unwrap();
        joined.detach();
        sessions
    }

    fn owner() -> Owner {
        let principal = Some("laptop".into());
        Owner {
            principal,
            only: None,
            narrowed: None,
            visible_servers: [].into(),
            admission: 0,
            charged: None,
            lease: None,
            user: None,
        }
    }

    fn open(sessions: &Sessions) -> SessionId {
        let caller = Some(Caller::plain());
        sessions.open(Transport::StreamableHttp, owner(), caller).unwrap().id.clone()
    }

    fn requester(principal: &str) -> Requester {
        let principal = Some(principal.into());
        Requester { principal, admission: 0, charged: None, lease: None, user: None }
    }

    fn finds(sessions: &Sessions, id: &str, principal: &str) -> bool {
        sessions.find(id, requester(principal), Transport::StreamableHttp, Vec::new).is_some()
    }

    #[test]
    fn a_session_is_found_by_its_owner_until_it_is_closed() {
        let sessions = started([1; 32]);
        let id = open(&sessions);
        assert!(finds(&sessions, &id, "laptop"));
        assert!(!finds(&sessions, &id, "other"));
        assert!(
            sessions.find(&id, requester("laptop"), Transport::HttpSse, Vec::new).is_none()
        );
        sessions.close(&id).unwrap();
        assert!(!finds(&sessions, &id, "laptop"));
    }

    #[test]
    fn what_a_session_leaves_is_told_when_it_has_ended() {
        let events = Arc::<Mutex<Vec<Left>>>::default();
        let sessions = started_with([4; 32], events.clone());
        let ids = [(); 3].map(|()| open(&sessions));
        ids.iter().for_each(|id| sessions.close(id).unwrap());
        let left = events.lock().unwrap();
        assert!(left.iter().map(|left| &left.session).eq(&ids));
    }

    #[test]
    fn no_session_opens_or_is_revived_with_rights_of_before_the_last_change() {
        let id = open(&started([5; 32]));
        let sessions = started([5; 32]);
        let sees = Box::new(|_: &Owner| None);
        sessions.rescope(Rescope { admission: 1, sees }).unwrap();
        for door in [Transport::StreamableHttp, Transport::HttpSse, Transport::Listen] {
            let opened = sessions.open(door, owner(), Some(Caller::plain()));
            assert!(matches!(opened, Err(CallError::Overloaded { .. })), "{opened:?}");
        }
        assert!(!finds(&sessions, &id, "laptop"));
        let owner = Owner { admission: 1, ..owner() };
        sessions.open(Transport::StreamableHttp, owner, Some(Caller::plain())).unwrap();
    }

    #[test]
    fn another_process_with_the_same_key_revives_a_session_until_it_is_ended() {
        let id = open(&started([2; 32]));
        let next = started([2; 32]);
        assert!(!finds(&next, &id, "other"));
        assert!(finds(&next, &id, "laptop"));
        next.close(&id).unwrap();
        assert!(!finds(&next, &id, "laptop"));
        assert!(!finds(&started([3; 32]), &id, "laptop"));
    }
}
