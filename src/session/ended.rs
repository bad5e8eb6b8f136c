//! What is left of sessions that have ended: at servers, and of their tokens, which must revive
//! nothing, after a restart either.

use std::collections::{HashSet, VecDeque};
use std::fmt;

use super::SessionId;
use super::token::Claims;
use crate::limits::ENDED_IDS_MAX;
use crate::protocol::server_name::ServerName;
use crate::protocol::subscriber::Subscriber;
use crate::state::{Id, Writer, Written};

/// What a session wants no more of servers.
#[derive(Debug)]
pub struct Left {
    /// Its id.
    pub session: SessionId,
    /// Who it was to upstreams.
    pub subscriber: Subscriber,
    /// Servers and their own URIs that it was subscribed to over shared sessions.
    pub subscriptions: Vec<(ServerName, String)>,
    /// The servers that it may see no more; none where the session has ended.
    pub servers: Option<Vec<ServerName>>,
}

/// Hears what becomes of sessions. Called by the session thread, so nothing here may wait.
pub trait SessionEvents: fmt::Debug + Send + Sync {
    /// A session has ended, or may see less.
    fn left(&self, left: Left);

    /// The sessions were looked through, as once in a while.
    fn swept(&self);
}

/// The ids of sessions of earlier processes that were ended, then or in this one. Those of this
/// process are only written: it knows its sessions by itself.
#[derive(Debug)]
pub(super) struct EndedIds {
    known: HashSet<u128>,
    /// Oldest first.
    order: VecDeque<u128>,
    writer: Option<Writer>,
}

impl EndedIds {
    /// With those that earlier processes have written. Without a writer they are remembered as
    /// long as this process lives.
    pub(super) fn new(ids: &[Id], writer: Option<Writer>) -> EndedIds {
        let mut ended = EndedIds { known: HashSet::new(), order: VecDeque::new(), writer };
        for id in ids {
            ended.remember(id.number);
        }
        ended
    }

    /// Whether a session of another process has ended.
    pub(super) fn has(&self, claims: &Claims) -> bool {
        number(claims).is_none_or(|number| self.known.contains(&number))
    }

    /// A session has ended. Gives when that is on the disk, if it comes there.
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
