//! Changes of what sessions may see, after a change of the keys, or of the servers.

use super::table::Table;
use super::{Left, Owner, Session, SessionId};
use crate::access::policy::Policy;
use crate::protocol::call::{Kind, PrincipalId};
use crate::protocol::jsonrpc::notification;
use crate::protocol::server_name::ServerName;

/// The servers that sessions may see, from an admission on.
pub struct Rescope {
    /// The number of that admission, counted from 0.
    pub admission: u64,
    /// Returns what one session may see.
    pub sees: Box<Sees>,
}

/// Returns what a session of that owner may see; none where it must end.
pub type Sees = dyn Fn(&Owner) -> Option<Rescoped> + Send;

impl std::fmt::Debug for Rescope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rescope").field("admission", &self.admission).finish_non_exhaustive()
    }
}

/// The rights of one session after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rescoped {
    /// The servers that the session may see.
    pub servers: Vec<ServerName>,
    /// True if its lists may differ even where the servers do not.
    pub differs: bool,
    /// What the user of an access token may do; none for whoever came without one. The lists may
    /// differ if this does.
    pub policy: Option<Policy>,
    /// The principal in whose share the session counts from then on.
    pub charged: Option<PrincipalId>,
}

impl Session {
    /// Notes what the client's access token allows. True if it is not what it was when the client
    /// was last notified of its lists.
    fn is_news(&self, policy: Policy) -> bool {
        let mut told = self.told.lock();
        let is_news = told.as_ref() != Some(&policy);
        *told = Some(policy);
        is_news
    }

    /// Forgets the subscriptions at servers that the session may not see, of which it has just
    /// lost these. Returns its remains there.
    fn leave(&self, lost: Vec<ServerName>) -> Option<Left> {
        let subscriptions = self.subscriptions.narrow(|it| self.hears_of(it));
        if lost.is_empty() && subscriptions.is_empty() {
            return None;
        }
        let (session, subscriber) = (self.id.clone(), self.subscriber);
        Some(Left { session, subscriber, subscriptions, servers: Some(lost) })
    }

    /// The principal in whose share the session counts; none where no other principal can come.
    pub fn charged(&self) -> Option<PrincipalId> {
        self.charged.read().clone()
    }
}

impl Rescope {
    /// The owner of a session that opens now with an earlier admission's rights, changed to the
    /// present rights. None where the session may not open any more.
    pub(super) fn late(&self, owner: Owner) -> Option<Owner> {
        if owner.admission >= self.admission {
            return Some(owner);
        }
        // Only the last change is known here, not which keys have ended before it.
        if owner.admission + 1 < self.admission {
            return None;
        }
        let Rescoped { servers, charged, differs: _, policy: _ } = (self.sees)(&owner)?;
        let visible_servers = servers.into();
        Some(Owner { visible_servers, admission: self.admission, charged, ..owner })
    }
}

impl Table {
    /// Gives every session the rights that `rescope` gives, and notifies clients whose lists may
    /// differ now. Returns the remains at servers that they may see no more, and the sessions for
    /// which `rescope` gives none.
    pub(super) fn rescope(&mut self, rescope: &Rescope) -> (Vec<Left>, Vec<SessionId>) {
        let (mut left, mut ends) = (Vec::new(), Vec::new());
        for (id, session) in self.sessions() {
            match (rescope.sees)(&session.present_owner()) {
                Some(rescoped) => {
                    let lost = self.give(&session, rescoped);
                    left.extend(session.leave(lost));
                }
                None => ends.push(id),
            }
        }
        (left, ends)
    }

    /// Gives a session these rights, and notifies its client where its lists may differ now.
    /// Returns the servers that it may see no more.
    pub(super) fn give(&mut self, session: &Session, rescoped: Rescoped) -> Vec<ServerName> {
        let old = session.hears();
        let lost: Vec<ServerName> =
            old.iter().filter(|it| !rescoped.servers.contains(it)).cloned().collect();
        let gained = rescoped.servers.iter().any(|it| !old.contains(it));
        session.hear(rescoped.servers.into());
        self.charge(session, rescoped.charged);
        let is_other = rescoped.policy.is_some_and(|policy| session.is_news(policy));
        if is_other || rescoped.differs || gained || !lost.is_empty() {
            for kind in [Kind::Tool, Kind::Prompt, Kind::Resource] {
                self.tell_one(&session.id, &notification(kind.changed(), None));
            }
        }
        lost
    }

    /// Moves a session's place into another principal's share, even if that is used up.
    fn charge(&mut self, session: &Session, whose: Option<PrincipalId>) {
        let before = session.charged();
        if before == whose {
            return;
        }
        self.shares.give_back_of(before.as_ref(), 1);
        let taken = match &whose {
            Some(whose) => self.shares.take_for_now(whose, 1),
            None => self.shares.take_for_nobody(1),
        };
        debug_assert!(taken.is_ok(), "the place was given back before");
        *session.charged.write() = whose;
    }
}

/// A session with a stream, for tests.
#[cfg(test)]
pub(super) mod testing {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::super::table::Bounds;
    use super::super::{EncodedEvent, EventSink, Transport};
    use super::*;
    use crate::protocol::call::Caller;
    use crate::sync::Mutex;

    #[derive(Default)]
    pub(crate) struct Sink(Mutex<Vec<String>>);

    impl EventSink for Sink {
        fn send(&self, event: EncodedEvent) -> bool {
            self.0.lock().push(event.to_text());
            true
        }
        fn close(&self) {}
        fn is_open(&self) -> bool {
            true
        }
    }

    pub(crate) fn name(text: &str) -> ServerName {
        ServerName::parse(text).unwrap()
    }

    pub(crate) fn owner(admission: u64) -> Owner {
        let visible_servers = [name("a"), name("b")].into();
        Owner {
            principal: Some("k".into()),
            only: None,
            narrowed: None,
            visible_servers,
            admission,
            charged: None,
            lease: None,
            user: None,
        }
    }

    /// A table with one session, `x`, that may see `a` and `b`, and the session's stream.
    pub(crate) fn table() -> (Table, Arc<Session>, Arc<Sink>) {
        let idle = Duration::from_secs(60);
        let mut table = Table::new(Bounds { sessions: 3, sessions_per_key: 3, idle });
        let (door, caller) = (Transport::StreamableHttp, Some(Caller::plain()));
        let session = table.open(Instant::now(), "x".into(), door, owner(0), caller).unwrap();
        let sink = Arc::new(Sink::default());
        assert!(table.attach("x", 1, sink.clone()));
        (table, session, sink)
    }

    pub(crate) fn count(sink: &Sink, what: &str) -> usize {
        sink.0.lock().iter().filter(|event| event.contains(what)).count()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::{Audience, Refused};
    use super::testing::{count, name, owner, table};
    use super::*;
    use crate::protocol::raw::Raw;
    use crate::protocol::session_route::SessionKind;
    use crate::session::HeardOver;

    fn to(servers: &[&str], differs: bool) -> Rescope {
        let servers = servers.iter().map(|server| name(server)).collect();
        let rescoped = Rescoped { servers, differs, policy: None, charged: None };
        Rescope { admission: 1, sees: Box::new(move |_| Some(rescoped.clone())) }
    }

    #[test]
    fn nothing_of_a_server_that_was_lost_reaches_the_client() {
        let (mut table, session, sink) = table();
        for (uri, over) in [("s:", SessionKind::Shared), ("o:", SessionKind::Own)] {
            session.subscribe(&name("a"), uri, uri, over).unwrap();
        }
        session.subscribe(&name("b"), "s:", "s:", SessionKind::Shared).unwrap();
        let say = |table: &mut Table| {
            let x: SessionId = "x".into();
            for server in ["a", "b"].map(name) {
                table.tell(
                    &Audience::One("x".into(), server.clone()),
                    "\"own\"",
                    Instant::now(),
                );
                let of = |uri: &str| Raw::from_valid(format!("{{\"uri\":\"{uri}\"}}"));
                table.updated(&server, &HeardOver::Shared, &of("s:"));
                table.updated(&server, &HeardOver::Own(x.clone()), &of("o:"));
            }
        };
        say(&mut table);
        assert_eq!((count(&sink, "own"), count(&sink, "updated")), (2, 3));
        assert!(table.rescope(&to(&["b"], false)).1.is_empty());
        say(&mut table);
        assert_eq!((count(&sink, "own"), count(&sink, "updated")), (3, 4));
        assert!(!table.hears("x", &name("a")));
        // A request that was admitted before the change cannot bring the subscription back.
        let late = session.subscribe(&name("a"), "s:", "s:", SessionKind::Shared);
        assert_eq!(late, Err(Refused::NotHeard));
    }

    #[test]
    fn a_session_takes_the_share_of_whoever_it_is_by_the_present_configuration() {
        let (mut table, session, _) = table();
        let who = PrincipalId::Key("k".into());
        assert_eq!((session.charged(), table.shares.held(&who)), (None, 0));
        let of = |charged: Option<&PrincipalId>| {
            let (servers, charged) = (vec![name("a")], charged.cloned());
            let rescoped = Rescoped { servers, differs: false, policy: None, charged };
            Rescope { admission: 1, sees: Box::new(move |_| Some(rescoped.clone())) }
        };
        table.rescope(&of(Some(&who)));
        assert_eq!((session.charged(), table.shares.held(&who)), (Some(who.clone()), 1));
        assert_eq!(of(Some(&who)).late(owner(0)).unwrap().charged, Some(who.clone()));
        table.rescope(&of(None));
        assert_eq!((session.charged(), table.shares.held(&who)), (None, 0));
        assert_eq!(table.shares.taken(), 1);
        table.rescope(&of(Some(&who)));
        assert!(table.close("x").is_some());
        assert_eq!(table.shares.taken(), 0);
    }

    #[test]
    fn what_was_lost_is_left_once_and_what_is_wanted_again_is_left_again() {
        let (mut table, session, _) = table();
        let (a, b, s) = (name("a"), name("b"), "s:".to_owned());
        let mut rescope = |servers: &[&str]| {
            let (left, ends) = table.rescope(&to(servers, false));
            assert!(ends.is_empty());
            left.into_iter().map(|it| (it.subscriptions, it.servers)).collect::<Vec<_>>()
        };
        for _ in 0..2 {
            session.subscribe(&a, "s:", "s:", SessionKind::Shared).unwrap();
            session.subscribe(&a, "o:", "o:", SessionKind::Own).unwrap();
            let lost = (vec![(a.clone(), s.clone())], Some(vec![a.clone()]));
            assert_eq!(rescope(&["b"]), [lost]);
            assert_eq!(rescope(&["b"]), []);
            assert_eq!(rescope(&["a", "b"]), []);
        }
        session.subscribe(&b, "s:", "s:", SessionKind::Shared).unwrap();
        rescope(&["b"]);
        // At its end there is only what it has not lost.
        let left = table.close("x").unwrap();
        assert_eq!((left.subscriptions, left.servers), (vec![(b, s)], None));
    }

    #[test]
    fn only_a_session_whose_view_differs_is_told() {
        let (mut table, _, sink) = table();
        for (servers, differs, told) in [
            (&["b", "a"][..], false, 0),
            (&["a", "b"][..], true, 3),
            (&["a", "b", "c"][..], false, 6),
            (&["a"][..], true, 9),
        ] {
            table.rescope(&to(servers, differs));
            assert_eq!(count(&sink, "list_changed"), told, "{servers:?}");
        }
    }

    #[test]
    fn a_session_of_an_older_admission_opens_with_the_newer_rights_or_not_at_all() {
        let rescope = |ends: bool| Rescope {
            admission: 2,
            sees: Box::new(move |_| {
                let Rescope { sees, .. } = to(&["b"], false);
                sees(&owner(0)).filter(|_| !ends)
            }),
        };
        let heard = |ends: bool, admission: u64| {
            rescope(ends).late(owner(admission)).map(|owner| owner.visible_servers.len())
        };
        assert_eq!([0, 1, 2, 3].map(|at| heard(false, at)), [None, Some(1), Some(2), Some(2)]);
        assert_eq!([0, 1, 2, 3].map(|at| heard(true, at)), [None, None, Some(2), Some(2)]);
    }
}
