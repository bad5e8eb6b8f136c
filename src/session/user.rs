//! The credentials with which a session's client reaches servers, where they are each user's own.
//! They may be renewed while the session is open.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Session, Sessions};
use crate::protocol::credentials::UserCredentials;
use crate::protocol::credentials_id::CredentialsId;
use crate::protocol::server_name::ServerName;

impl Session {
    /// The credentials with which the client reaches that server, if it has any of its own.
    pub fn user_at(&self, server: &ServerName) -> Option<CredentialsId> {
        self.user.read().as_ref().and_then(|user| user.own_id(server))
    }

    /// Notes the credentials of a request in the session. Returns those before, where they were
    /// others. A request without any changes nothing.
    pub fn renew_user(
        &self,
        user: Option<&Arc<UserCredentials>>,
    ) -> Option<Arc<UserCredentials>> {
        let user = user?;
        if self.user.read().as_ref().is_some_and(|known| known.is_same(user)) {
            return None;
        }
        self.user.write().replace(user.clone())
    }

    /// The URIs of a server's resources to which the session is subscribed over a session with
    /// the server that clients share.
    pub fn subscribed_at(&self, server: &ServerName) -> Vec<String> {
        self.subscriptions.shared_at(server)
    }
}

impl Sessions {
    /// The credentials with which clients of open sessions reach servers, where they are each
    /// user's own.
    pub fn users_there(&self) -> HashSet<(ServerName, CredentialsId)> {
        let sessions: Vec<_> = self.view.read().values().cloned().collect();
        let users = sessions.iter().filter_map(|session| session.user.read().clone());
        let mut there = HashSet::new();
        for user in users {
            for server in user.own_servers() {
                there.extend(user.own_id(server).map(|id| (server.clone(), id)));
            }
        }
        there
    }
}
