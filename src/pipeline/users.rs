//! Servers whose credentials are each user's own: which upstream serves a caller, and the lists
//! that only its user sees.

use std::sync::Arc;

use super::Pipeline;
use crate::access::policy::Scope;
use crate::error::CallError;
use crate::limits::VIEW_TIMEOUT;
use crate::protocol::credentials::{UserCredentials, forwarded};
use crate::protocol::server_name::ServerName;
use crate::protocol::view::ViewId;
use crate::upstream::{State, Upstream};
use crate::wait::Wait;

impl Pipeline {
    /// True if some server may be reached with users' own credentials.
    pub fn has_users(&self) -> bool {
        self.upstreams.has_users()
    }

    /// The server and the header that a request header `x-mcp-{server}-{header}` stands for.
    pub fn forwarded(&self, field: &str) -> Option<(ServerName, String)> {
        let upstreams = self.upstreams.all();
        let configured =
            upstreams.iter().map(|(name, it)| (name, it.config().forward_headers()));
        forwarded(field, configured).map(|(server, header)| (server.clone(), header))
    }

    /// The upstream that serves the caller: its user's own, where the server's credentials are
    /// each user's own.
    ///
    /// # Errors
    /// There is no such server, or it cannot be reached for that user.
    pub(super) fn upstream_for(
        &self,
        scope: &Scope,
        server: &ServerName,
    ) -> Result<Arc<Upstream>, CallError> {
        let base = self.upstream(server)?;
        if scope.user.is_none() && !base.config().is_per_user() {
            return Ok(base);
        }
        self.upstreams.of_user(base, scope.user.as_deref(), scope.charged.as_ref())
    }

    /// The view with the lists that the user of a scope sees of a server.
    pub(super) fn user_view(&self, scope: &Scope, server: &ServerName) -> Option<ViewId> {
        let user = scope.user.as_deref()?;
        self.is_own_of(user, server).then(|| ViewId::of_user(user.id(server)))
    }

    fn is_own_of(&self, user: &UserCredentials, server: &ServerName) -> bool {
        self.upstreams.get(server).is_some_and(|it| it.config().is_own_of(user))
    }

    /// Has the lists read that only the user of the scope sees, where they are not known yet, and
    /// waits for them: [`VIEW_TIMEOUT`] at most, and no longer than on `wait`. Returns true if
    /// there was a wait.
    pub(super) fn await_user_lists(
        &self,
        scope: &Scope,
        server: Option<&ServerName>,
        wait: Option<&Arc<Wait>>,
    ) -> bool {
        let Some(user) = scope.user.as_deref() else { return false };
        let is_meant = |name: &ServerName| {
            scope.sees_server(name) && server.is_none_or(|server| server == name)
        };
        let all = self.upstreams.all();
        let own: Vec<&ServerName> =
            all.keys().filter(|name| is_meant(name) && self.is_own_of(user, name)).collect();
        if own.iter().all(|name| !self.is_coming(scope, user, name)) {
            return false;
        }
        let plain = if wait.is_none() { Wait::plain(VIEW_TIMEOUT).ok() } else { None };
        let Some(wait) = wait.or(plain.as_ref()) else { return false };
        let _within = wait.within(VIEW_TIMEOUT);
        let Some(_place) = self.catalogue.waiting().enter(scope.charged.as_ref(), wait) else {
            return false;
        };
        while own.iter().any(|name| self.is_coming(scope, user, name)) {
            if wait.until(None, None).is_err() {
                break;
            }
        }
        true
    }

    /// True if the lists of a user are not known, and may come soon. Looking starts contact.
    fn is_coming(&self, scope: &Scope, user: &UserCredentials, server: &ServerName) -> bool {
        if self.catalogue.is_view_old(server, ViewId::of_user(user.id(server))).is_some() {
            return false;
        }
        let Ok(upstream) = self.upstream_for(scope, server) else { return false };
        match upstream.status().state {
            State::Starting { .. } => true,
            // They were known, and had to make room for others.
            State::Ready => upstream.list_again(),
            State::NeedsSignIn | State::BackingOff { .. } | State::Down { .. } => false,
        }
    }
}
