//! The remains of ended sessions: at servers, and their tokens, which must revive no session,
//! after a restart either.

use std::collections::{HashSet, VecDeque};
use std::fmt;

use super::SessionId;
use super::token::Claims;
use crate::limits::ENDED_IDS_MAX;
use crate::protocol::server_name::ServerName;
use crate::protocol::subscriber::Subscriber;
use crate::state::{Id, Writer, Written};

/// The subscriptions of an ended session, or of an open one at servers that it may see no more.
#[derive(Debug)]
pub struct Left {
    /// The session's id.
    pub session: SessionId,
    /// The session's identity at servers.
    pub subscriber: Subscriber,
    /// The server and the server's own URI of each resource that the session was subscribed to
    /// over a shared session.
    pub subscriptions: Vec<(ServerName, String)>,
    /// The servers that it may see no more; none where the session has ended.
    pub servers: Option<Vec<ServerName>>,
}

/// Receives what becomes of sessions. The session thread calls it, so no method may wait.
pub trait SessionEvents: fmt::Debug + Send + Sync {
    /// A session has ended, or may see less.
    fn left(&self, left: Left);

    /// The session thread has looked through all sessions, as it does once in a while.
    fn swept(&self);
}

/// The ids of ended sessions that earlier processes had opened. Ids of this process's sessions
/// are only written: the session table knows those itself.
#[derive(Debug)]
pub(super) struct EndedIds {
    known: HashSet<u128>,
    /// The ids, the oldest first.
    order: VecDeque<u128>,
    writer: Option<Writer>,
}

impl EndedIds {
    /// Starts with the ids that earlier processes have written. Without a writer, new ids are
    /// remembered as long as this process lives.
    pub(super) fn new(ids: &[Id], writer: Option<Writer>) -> EndedIds {
        let mut ended = EndedIds { known: HashSet::new(), order: VecDeque::new(), writer };
        for id in ids {
            ended.remember(id.number);
        }
        ended
    }

    /// True if the session, of another process, has ended.
    pub(super) fn has(&self, claims: &Claims) -> bool {
        number(claims).is_none_or(|number| self.known.contains(&number))
    }

    /// Notes the end of a session. Returns a signal of the write to disk, if there is one.
    pub(super) fn add(&mut self, claims: &Claims, boot: &str) -> Option<Written> {
        let number = number(claims)?;
        if claims.boot != boot && !self.remember(number) {
            return None;
        }
        let writer = self.writer.as_ref()?;
        Some(writer.keep(Id { number, expires: claims.expires }))
    }

    fn remember(&mut self, number: u128) -> bool {
        let is_new = self.known.insert(number);
        if is_new {
            self.order.push_back(number);
            if self.order.len() > ENDED_IDS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
        is_new
    }
}

/// A session's random id is 16 bytes in hexadecimal.
fn number(claims: &Claims) -> Option<u128> {
    u128::from_str_radix(&claims.id, 16).ok()
}

#[cfg(test)]
impl SessionEvents for std::sync::Mutex<Vec<Left>> {
    fn left(&self, left: Left) {
        self.lock().unwrap().push(left);
    }

    fn swept(&self) {}
}
