//! The sessions that requests open and name, and what they may see there.

use std::sync::Arc;

use super::{Front, in_both};
use crate::access::policy::Scope;
use crate::session::{Bearer, Owner, Session, Transport};

impl Front {
    /// The owner of a session that opens now.
    pub(super) fn owner(&self, scope: &Scope) -> Owner {
        Owner {
            principal: scope.principal.id.clone(),
            only: scope.only.clone(),
            narrowed: scope.narrowed.clone(),
            visible_servers: self.pipeline.servers(scope).into(),
            admission: scope.admission,
            charged: scope.charged.clone(),
            lease: scope.lease.clone(),
            user: scope.user.clone(),
        }
    }

    /// The session of that id, if it belongs to this principal and was opened at this endpoint.
    pub(super) fn session(
        &self,
        id: &str,
        scope: &Scope,
        door: Transport,
    ) -> Option<Arc<Session>> {
        let bearer = Bearer {
            principal: scope.principal.id.clone(),
            admission: scope.admission,
            charged: scope.charged.clone(),
            lease: scope.lease.clone(),
            user: scope.user.clone(),
        };
        let whole = Scope { only: None, narrowed: None, ..scope.clone() };
        let may_hear = || self.pipeline.servers(&whole);
        let session = self.sessions.find(id, bearer, door, may_hear)?;
        if session.owner.only != scope.only {
            return None;
        }
        if session.is_renewed_by(&scope.lease) {
            let (only, narrowed) = (scope.only.clone(), session.owner.narrowed.clone());
            let whole = Scope { only, narrowed, ..scope.clone() };
            // Where the session thread does not answer, the next request tries again.
            self.sessions.renew(&session, self.owner(&whole)).ok();
        }
        if let Some(before) = session.renew_user(scope.user.as_ref()) {
            self.pipeline.renewed_user(scope, &session, &before);
        }
        Some(session)
    }

    /// The scope of a request in an open session: the session's, narrowed further if the request
    /// asks for it.
    pub(super) fn scope_in(session: &Session, mut scope: Scope) -> Scope {
        scope.narrowed = in_both(session.owner.narrowed.as_ref(), scope.narrowed);
        scope
    }
}
