//! What sessions may see after a change of who is admitted, or of the servers.

use std::collections::hash_map;

use super::table::Table;
use super::{Ended, Narrowed, Owner, SessionId};
use crate::protocol::call::Kind;
use crate::protocol::jsonrpc::notification;
use crate::protocol::server_name::ServerName;

/// What sessions may see from an admission on.
pub struct Rescope {
    /// Which admission that is, counted from 0.
    pub admission: u64,
    /// What one session may see; none where it must end.
    pub sees: Box<dyn Fn(&Owner) -> Option<Rescoped> + Send>,
}

impl std::fmt::Debug for Rescope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rescope").field("admission", &self.admission).finish_non_exhaustive()
    }
}

/// What one session may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rescoped {
    /// The servers that it hears of.
    pub servers: Vec<ServerName>,
    /// Whether its lists may differ even where the servers do not.
    pub differs: bool,
}

impl Rescope {
    /// Whose a session is that opens now, though the request for it was admitted earlier. None
    /// where it may not open any more.
    pub(super) fn late(&self, owner: Owner) -> Option<Owner> {
        if owner.admission >= self.admission {
            return Some(owner);
        }
        // Which keys have ended in between is not known here: this knows the last change.
        if owner.admission + 1 < self.admission {
            return None;
        }
        let hears = (self.sees)(&owner)?.servers.into();
        Some(Owner { hears, admission: self.admission, ..owner })
    }
}

impl Table {
    /// Lets every session hear of what `rescope` says, and tells those whose lists may differ
    /// now. What they had at servers of which they hear no more is left behind. The sessions of
    /// which `rescope` says nothing.
    pub(super) fn rescope(&mut self, rescope: &Rescope) -> Vec<SessionId> {
        let mut ends = Vec::new();
        let mut told = Vec::new();
        for (id, session) in self.sessions() {
            let Some(rescoped) = (rescope.sees)(&session.owner) else {
                ends.push(id.clone());
                continue;
            };
            let old = session.hears();
            let lost: Vec<ServerName> =
                old.iter().filter(|it| !rescoped.servers.contains(it)).cloned().collect();
            let gained = rescoped.servers.iter().any(|it| !old.contains(it));
            if rescoped.differs || gained || !lost.is_empty() {
                told.push(id.clone());
            }
            session.hear(rescoped.servers.into());
            if !lost.is_empty() {
                let subscriptions = session.subscriptions.narrow(|it| session.hears_of(it));
                self.leave(Ended {
                    session: id,
                    subscriber: session.subscriber,
                    subscriptions,
                    narrowed: Some(Narrowed { session, servers: lost }),
                });
            }
        }
        let kinds = [Kind::Tool, Kind::Prompt, Kind::Resource];
        let messages = kinds.map(|kind| notification(kind.changed(), None));
        for id in told {
            messages.iter().for_each(|message| self.tell_one(&id, message));
        }
        ends
    }

    /// Keeps what a session has left at servers until somebody takes it: one entry a session,
    /// so that there are never more than sessions.
    fn leave(&mut self, ended: Ended) {
        match self.narrowed.entry(ended.session.clone()) {
            hash_map::Entry::Vacant(entry) => drop(entry.insert(ended)),
            hash_map::Entry::Occupied(mut entry) => entry.get_mut().add(ended),
        }
    }
}

impl Ended {
    /// What the same session has left before or after.
    pub(super) fn add(&mut self, other: Ended) {
        for resource in other.subscriptions {
            if !self.subscriptions.contains(&resource) {
                self.subscriptions.push(resource);
            }
        }
        if let (Some(mine), Some(theirs)) = (&mut self.narrowed, other.narrowed) {
            for server in theirs.servers {
                if !mine.servers.contains(&server) {
                    mine.servers.push(server);
                }
            }
        }
    }
}
