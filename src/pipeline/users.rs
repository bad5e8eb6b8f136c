//! Servers whose credentials are each user's own: how they are for a caller, and the lists that
//! only its user sees.

use std::sync::Arc;

use super::Pipeline;
use crate::access::policy::Scope;
use crate::catalogue::Health;
use crate::error::{CallError, Stage};
use crate::limits::VIEW_TIMEOUT;
use crate::protocol::credentials::{PerUser, UserCredentials};
use crate::protocol::credentials_id::CredentialsId;
use crate::protocol::server_name::ServerName;
use crate::protocol::view::ViewId;
use crate::session::Session;
use crate::upstream::{State, Upstream};
use crate::wait::Wait;

/// The lists of a server that only one user sees.
enum OfUser {
    Known,
    /// They may be known soon.
    Coming(Arc<Upstream>),
    /// They cannot be read at present.
    Missing,
}

impl Pipeline {
    /// The servers that may be reached with users' own credentials; none where there is none.
    pub fn per_user(&self) -> Option<Arc<PerUser>> {
        self.upstreams.per_user()
    }

    /// The view with the lists that the user of a scope sees of a server.
    pub(super) fn user_view(&self, scope: &Scope, server: &ServerName) -> Option<ViewId> {
        own_id(scope, server).map(ViewId::of_user)
    }

    /// The upstream of the scope's user at a server, where it has one by now.
    pub(super) fn known_of_user(
        &self,
        scope: &Scope,
        server: &ServerName,
    ) -> Option<Arc<Upstream>> {
        self.upstreams.known_of_user(server, own_id(scope, server)?)
    }

    /// How a server is for the user of the scope, where that user reaches it with credentials of
    /// its own.
    pub(super) fn health_of_user(&self, scope: &Scope, server: &ServerName) -> Option<Health> {
        let id = own_id(scope, server)?;
        let Some(upstream) = self.upstreams.known_of_user(server, id) else {
            let error = self.upstream_for(scope, server).err();
            return Some(error.map_or(Health::Connecting, |error| {
                let message = error.to_string();
                let message = message.strip_prefix(&format!("{server}: ")).unwrap_or(&message);
                let message = message.to_owned();
                Health::Failed { stage: Stage::Handshake, message, refusal: None }
            }));
        };
        if let Some(failure) = upstream.failure_of_user() {
            let (stage, message, refusal) = (failure.stage, failure.message, failure.refusal);
            return Some(Health::Failed { stage, message, refusal });
        }
        let is_known = self.catalogue.is_view_old(server, ViewId::of_user(id)).is_some();
        Some(if is_known { Health::Well } else { Health::Connecting })
    }

    /// The reason why nothing of a server is known for the user of the scope, which reaches it
    /// with credentials of its own.
    pub(super) fn unreached_by_user(
        &self,
        scope: &Scope,
        server: &ServerName,
    ) -> Option<CallError> {
        own_id(scope, server)?;
        let upstream = match self.upstream_for(scope, server) {
            Ok(upstream) => upstream,
            Err(error) => return Some(error),
        };
        if upstream.state() == State::NeedsSignIn || upstream.is_signed_in_since() {
            // The caller is asked to sign in, or waits for the lists after that.
            return None;
        }
        let failure = upstream.failure_of_user()?;
        let (stage, message, refusal) = (failure.stage, failure.message, failure.refusal);
        Some(CallError::UpstreamFailed { server: server.clone(), stage, message, refusal })
    }

    /// The error of a call to a server with which contact is still being made for the user of the
    /// scope.
    pub(super) fn starting_for_user(
        &self,
        scope: &Scope,
        server: &ServerName,
    ) -> Option<CallError> {
        match self.known_of_user(scope, server)?.state() {
            State::Starting { taken } => Some(CallError::UpstreamTimeout {
                server: server.clone(),
                stage: Stage::Handshake,
                allowed: None,
                starting: Some(taken),
                may_have_run: false,
            }),
            State::Ready
            | State::NeedsSignIn
            | State::BackingOff { .. }
            | State::Down { .. } => None,
        }
    }

    /// Has the lists read that only the user of the scope sees, where they are not known yet, and
    /// waits for them: [`VIEW_TIMEOUT`] at most, and no longer than on `wait`. The user's clients
    /// are notified when they come later. Returns true if there was a wait.
    pub(super) fn await_user_lists(
        &self,
        scope: &Scope,
        server: Option<&ServerName>,
        wait: Option<&Arc<Wait>>,
    ) -> bool {
        let Some(user) = scope.user.as_deref() else { return false };
        let is_meant = |name: &&ServerName| {
            scope.sees_server(name) && server.is_none_or(|server| server == *name)
        };
        let own: Vec<&ServerName> = user.own_servers().filter(is_meant).collect();
        let coming = || -> Vec<Arc<Upstream>> {
            let each = own.iter().map(|name| self.lists_of_user(scope, user, name));
            let coming = each.filter_map(|lists| match lists {
                OfUser::Coming(upstream) => Some(upstream),
                OfUser::Known | OfUser::Missing => None,
            });
            coming.collect()
        };
        let mut awaited = coming();
        // No list is waited for twice.
        if awaited.is_empty()
            || wait.is_none() && awaited.iter().all(|it| it.has_missed_lists())
        {
            return false;
        }
        let missed =
            |awaited: &[Arc<Upstream>]| awaited.iter().for_each(|it| it.missed_lists());
        let plain = if wait.is_none() { Wait::plain(VIEW_TIMEOUT).ok() } else { None };
        let Some(wait) = wait.or(plain.as_ref()) else {
            missed(&awaited);
            return false;
        };
        let _within = wait.within(VIEW_TIMEOUT);
        let Some(_place) = self.catalogue.waiting().enter(scope.charged.as_ref(), wait) else {
            missed(&awaited);
            return false;
        };
        loop {
            // What has come before there was a place rang no bell.
            awaited = coming();
            if awaited.is_empty() {
                return true;
            }
            if wait.until(None, None).is_err() {
                missed(&awaited);
                return true;
            }
        }
    }

    /// Waits as for a list, so that the introduction of servers is known that only users reach.
    pub fn await_introductions(&self, scope: &Scope) {
        self.await_user_lists(scope, scope.only.as_ref(), None);
    }

    /// Looks for the lists of a user. That starts contact, and counts as a use.
    fn lists_of_user(
        &self,
        scope: &Scope,
        user: &UserCredentials,
        server: &ServerName,
    ) -> OfUser {
        let Ok(upstream) = self.upstream_for(scope, server) else { return OfUser::Missing };
        match self.catalogue.is_view_old(server, ViewId::of_user(user.id(server))) {
            Some(false) => return OfUser::Known,
            Some(true) => {
                upstream.list_again();
                return OfUser::Known;
            }
            None => (),
        }
        match upstream.state() {
            _ if upstream.is_signed_in_since() => OfUser::Coming(upstream),
            State::Starting { .. } => OfUser::Coming(upstream),
            State::Ready if upstream.failure_of_user().is_none() => {
                upstream.list_again();
                OfUser::Coming(upstream)
            }
            State::Ready
            | State::NeedsSignIn
            | State::BackingOff { .. }
            | State::Down { .. } => {
                upstream.missed_lists();
                OfUser::Missing
            }
        }
    }

    /// Takes what a session is subscribed to over to its user's renewed credentials.
    pub fn renewed_user(&self, scope: &Scope, session: &Session, before: &UserCredentials) {
        for server in before.own_servers() {
            let (old, new) = (before.id(server), own_id(scope, server));
            if new.is_none_or(|new| new == old) {
                continue;
            }
            let uris = session.subscribed_at(server);
            let Some(old) = self.upstreams.known_of_user(server, old) else { continue };
            if uris.is_empty() {
                continue;
            }
            let Ok(new) = self.upstream_for(scope, server) else { continue };
            for uri in uris {
                let subscriber = session.subscriber;
                new.take_over_subscription(&uri, subscriber, scope.charged.clone());
                old.forget_subscription(&uri, subscriber);
            }
        }
    }
}

/// The credentials of the scope's user at a server that is reached with these.
pub(super) fn own_id(scope: &Scope, server: &ServerName) -> Option<CredentialsId> {
    scope.user.as_ref()?.own_id(server)
}
