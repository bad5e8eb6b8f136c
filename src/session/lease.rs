//! The access token with which a session's client came last: what the session may see follows it.

use std::sync::Arc;

use super::command::Command;
use super::rescope::Rescoped;
use super::table::Table;
use super::{Owner, Session, Sessions};
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
    /// where its lists may differ now. Subscriptions at servers that it may not see are not told,
    /// but stay: the request may only be a late one with the token before, or that of another
    /// worker of the client, and the next one has the rights again.
    pub(super) fn renew(&mut self, id: &str, owner: Owner) {
        let Some(session) = self.session(id).cloned() else { return };
        let Owner { visible_servers, charged, lease, .. } = owner;
        let policy = lease.as_ref().map(|it| it.principal().policy.clone());
        *session.lease.write() = lease;
        let servers = visible_servers.to_vec();
        self.give(&session, Rescoped { servers, differs: false, policy, charged });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::access::glob::ToolGlobs;
    use crate::access::policy::{Lease, Nearness, Policy, Principal};
    use crate::protocol::raw::Raw;
    use crate::protocol::session_route::SessionKind;
    use crate::session::rescope::testing::{count, name, owner, table};
    use crate::session::{Audience, HeardOver, Rescope};

    /// A token with the rights that it gave, and those that it gives.
    #[derive(Debug)]
    struct Token(Arc<Principal>, Arc<Principal>);

    impl Lease for Token {
        fn principal(&self) -> &Arc<Principal> {
            &self.0
        }
        fn present(&self) -> Option<Arc<Principal>> {
            Some(self.1.clone())
        }
        fn is_good(&self) -> bool {
            true
        }
        fn ends(&self) -> Instant {
            Instant::now()
        }
    }

    fn policy(servers: &[&str]) -> Policy {
        let servers = servers.iter().map(|it| name(it)).collect();
        Policy { servers: Some(servers), tools: ToolGlobs::default() }
    }

    fn token(then: Policy, now: Policy) -> OptionalLease {
        let [then, now] = [then, now].map(|policy| {
            Arc::new(Principal { policy, ..Principal::without_key(Nearness::Remote) })
        });
        Some(Arc::new(Token(then, now)))
    }

    /// The owner of a session that a token for these servers opens.
    fn with_token(servers: &[&str]) -> Owner {
        let visible_servers = servers.iter().map(|it| name(it)).collect();
        let lease = token(policy(servers), policy(servers));
        Owner { visible_servers, lease, ..owner(0) }
    }

    /// A reload that gives each user the present rights.
    fn reload() -> Rescope {
        let sees = |owner: &Owner| {
            let present = owner.lease.as_ref()?.present()?;
            let (servers, policy) = (vec![name("a"), name("b")], Some(present.policy.clone()));
            Some(Rescoped { servers, differs: false, policy, charged: None })
        };
        Rescope { admission: 1, sees: Box::new(sees) }
    }

    #[test]
    fn a_client_is_notified_once_of_the_rights_that_a_reload_gives() {
        // They differ in more than the servers that the session may see.
        let (before, after) = (|| policy(&["a", "b"]), || policy(&["a", "b", "c"]));
        let with = |lease| Owner { lease, ..owner(0) };
        for is_request_first in [true, false] {
            let (mut table, _, sink) = table();
            table.renew("x", with(token(before(), before())));
            assert_eq!(count(&sink, "list_changed"), 3);
            *table.session("x").unwrap().lease.write() = token(before(), after());
            if is_request_first {
                table.renew("x", with(token(after(), after())));
                assert_eq!(count(&sink, "list_changed"), 6);
            }
            for _ in 0..2 {
                table.rescope(&reload());
                assert_eq!(count(&sink, "list_changed"), 6, "{is_request_first}");
            }
            table.renew("x", with(token(after(), after())));
            assert_eq!(count(&sink, "list_changed"), 6, "{is_request_first}");
        }
    }

    #[test]
    fn a_late_request_with_the_token_before_loses_no_subscription() {
        let (mut table, session, sink) = table();
        table.renew("x", with_token(&["a", "b"]));
        for server in ["a", "b"].map(name) {
            session.subscribe(&server, "s:", "s:", SessionKind::Shared).unwrap();
        }
        let updated = |table: &mut Table, server: &str| {
            let params = Raw::from_valid(r#"{"uri":"s:"}"#.to_owned());
            table.updated(&name(server), &HeardOver::Shared, &params);
            count(&sink, "resources/updated")
        };
        table.renew("x", with_token(&["b"]));
        assert_eq!((updated(&mut table, "a"), updated(&mut table, "b")), (0, 1));
        table.renew("x", with_token(&["a", "b"]));
        assert_eq!((updated(&mut table, "a"), updated(&mut table, "b")), (2, 3));
        // A reload asks which rights the client has for good.
        table.renew("x", with_token(&["b"]));
        let sees = |owner: &Owner| {
            let servers = owner.lease.as_ref()?.principal().policy.servers.clone()?;
            Some(Rescoped { servers, differs: false, policy: None, charged: None })
        };
        let (left, _) = table.rescope(&Rescope { admission: 1, sees: Box::new(sees) });
        assert_eq!(left[0].subscriptions, [(name("a"), "s:".to_owned())]);
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
                Some(Rescoped { servers, differs: false, policy: None, charged: None })
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
