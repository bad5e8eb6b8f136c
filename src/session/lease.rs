//! The access token with which a session's client came last: what the session may see follows it.

use std::sync::Arc;

use super::command::Command;
use super::rescope::Rescoped;
use super::table::Table;
use super::{Left, Owner, Session, Sessions};
use crate::access::policy::OptionalLease;
use crate::error::CallError;

impl Session {
    /// True if this is another access token than the one with which the client came before.
    pub fn is_renewed_by(&self, lease: &OptionalLease) -> bool {
        let Some(lease) = lease else { return false };
        let is_known = |known: &OptionalLease| {
            known.as_ref().is_some_and(|it| Arc::ptr_eq(it.principal(), lease.principal()))
        };
        !is_known(&self.lease.read())
    }

    /// The session's owner, with the access token with which the client came last.
    pub(super) fn present_owner(&self) -> Owner {
        Owner { lease: self.lease.read().clone(), ..self.owner.clone() }
    }
}

impl Sessions {
    /// Gives a session the rights of another access token of its user: `owner` is that of a
    /// session which the token would open.
    ///
    /// # Errors
    /// The session thread does not answer in time.
    pub fn renew(&self, session: &Session, owner: Owner) -> Result<(), CallError> {
        let id = session.id.clone();
        self.ask(|reply| Command::Renew { id, owner, reply })
    }
}

impl Table {
    /// Gives a session the rights and the access token of that owner, and notifies its client
    /// where its lists may differ now. Returns the remains at servers that it may see no more.
    pub(super) fn renew(&mut self, id: &str, owner: Owner) -> Option<Left> {
        let session = self.session(id)?.clone();
        let Owner { visible_servers, charged, lease, .. } = owner;
        let policy = lease.as_ref().map(|it| it.principal().policy.clone());
        let before = std::mem::replace(&mut *session.lease.write(), lease);
        // The rules may have changed since the token before came.
        let before = before.and_then(|it| it.present()).map(|it| it.policy.clone());
        let (servers, differs) = (visible_servers.to_vec(), policy != before);
        self.give(&session, Rescoped { servers, differs, charged })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::access::glob::ToolGlobs;
    use crate::access::policy::{Lease, Nearness, Policy, Principal};
    use crate::protocol::server_name::ServerName;
    use crate::session::rescope::testing::{count, name, owner, table};
    use crate::session::{Audience, Rescope};

    #[derive(Debug)]
    struct Token(Arc<Principal>);

    impl Lease for Token {
        fn principal(&self) -> &Arc<Principal> {
            &self.0
        }
        fn present(&self) -> Option<Arc<Principal>> {
            Some(self.0.clone())
        }
        fn is_good(&self) -> bool {
            true
        }
        fn ends(&self) -> Instant {
            Instant::now()
        }
    }

    /// The owner of a session that a token for these servers opens.
    fn with_token(servers: &[&str]) -> Owner {
        let servers: Vec<ServerName> = servers.iter().map(|it| name(it)).collect();
        let policy = Policy { servers: Some(servers.clone()), tools: ToolGlobs::default() };
        let principal = Principal { policy, ..Principal::without_key(Nearness::Remote) };
        let lease: OptionalLease = Some(Arc::new(Token(Arc::new(principal))));
        Owner { visible_servers: servers.into(), lease, ..owner(0) }
    }

    #[test]
    fn a_session_may_see_what_its_client_s_last_token_allows() {
        let (mut table, session, sink) = table();
        let narrow = with_token(&["b"]);
        assert!(session.is_renewed_by(&narrow.lease) && !session.is_renewed_by(&None));
        table.renew("x", narrow.clone());
        assert!(!session.is_renewed_by(&narrow.lease));
        assert_eq!(count(&sink, "list_changed"), 3);
        let say = |table: &mut Table, server: &str| {
            let to = Audience::Hearing(name(server));
            table.tell(&to, "\"said\"", Instant::now());
        };
        say(&mut table, "a");
        assert_eq!(count(&sink, "said"), 0);
        // Nor does a reload go by the token that opened the session.
        let rescope = Rescope {
            admission: 1,
            sees: Box::new(|owner| {
                let policy = &owner.lease.as_ref()?.principal().policy;
                let servers = policy.servers.clone()?;
                Some(Rescoped { servers, differs: false, charged: None })
            }),
        };
        assert!(table.rescope(&rescope).1.is_empty());
        say(&mut table, "a");
        say(&mut table, "b");
        assert_eq!((count(&sink, "said"), count(&sink, "list_changed")), (1, 3));
        // A token with the same rights changes nothing, and one with more does.
        table.renew("x", with_token(&["b"]));
        assert_eq!(count(&sink, "list_changed"), 3);
        table.renew("x", with_token(&["a", "b"]));
        say(&mut table, "a");
        assert_eq!((count(&sink, "said"), count(&sink, "list_changed")), (2, 6));
    }
}
