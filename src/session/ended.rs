//! The remains of ended sessions: at servers, and their tokens, which must revive no session,
//! after a restart either.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::token::Claims;
use super::{Session, SessionId};
use crate::limits::{ENDED_IDS_MAX, ENDED_SESSIONS_QUEUE_MAX};
use crate::protocol::call::PrincipalId;
use crate::protocol::server_name::ServerName;
use crate::protocol::subscriber::Subscriber;
use crate::shares::Shares;
use crate::state::{Id, Writer, Written};
use crate::sync::Mutex;
use crate::turns::Turns;

/// The subscriptions and upstream sessions of an ended session, or of an open one at servers that
/// it may see no more.
#[derive(Debug)]
pub struct Ended {
    /// The session's id.
    pub session: SessionId,
    /// The session's identity at servers.
    pub subscriber: Subscriber,
    /// The server and the server's own URI of each resource that the session was subscribed to.
    pub subscriptions: Vec<(ServerName, String)>,
    /// Set where the session itself has not ended.
    pub narrowed: Option<Narrowed>,
    /// The principal in whose share the session counted.
    pub charged: Option<PrincipalId>,
    /// The place among those that `tidy` works on, where it has one.
    pub place: Option<Box<TidyPlace>>,
}

/// The remains of ended sessions that `tidy` has not taken yet, in turns of their principals.
#[derive(Debug)]
pub(super) struct LeftBehind {
    left: Turns<PrincipalId, Ended>,
    /// The number of places that each principal has at `tidy`; none has all of them.
    taken: Arc<Mutex<Shares<PrincipalId>>>,
}

/// A place among those that `tidy` works on; dropping it gives it back.
#[derive(Debug)]
pub struct TidyPlace {
    taken: Arc<Mutex<Shares<PrincipalId>>>,
    charged: Option<PrincipalId>,
}

impl Drop for TidyPlace {
    fn drop(&mut self) {
        self.taken.lock().give_back_of(self.charged.as_ref(), 1);
    }
}

impl LeftBehind {
    pub(super) fn new() -> LeftBehind {
        let taken = Arc::new(Mutex::new(Shares::new(ENDED_SESSIONS_QUEUE_MAX)));
        LeftBehind { left: Turns::default(), taken }
    }

    pub(super) fn push(&mut self, ended: Ended) {
        self.left.push(ended.charged.clone().as_ref(), ended);
    }

    pub(super) fn len(&self) -> usize {
        self.left.len()
    }

    /// Gives all remains away that find a place, and tells `given` the principal of each. False
    /// where `give` has handed one back.
    pub(super) fn hand_over(
        &mut self,
        give: &impl Fn(Ended) -> Result<(), Ended>,
        mut given: impl FnMut(Option<&PrincipalId>),
    ) -> bool {
        loop {
            let next = {
                let mut taken = self.taken.lock();
                let next = self.left.pop_of(|who| taken.may_take_of(who, 1).is_ok());
                let taken = next.as_ref().map(|(who, _)| taken.take_of(who.as_ref(), 1));
                next.filter(|_| taken.is_some_and(|taken| taken.is_ok()))
            };
            let Some((charged, mut ended)) = next else { return true };
            let taken = self.taken.clone();
            ended.place = Some(Box::new(TidyPlace { taken, charged: charged.clone() }));
            if let Err(mut ended) = give(ended) {
                ended.place = None;
                self.left.put_back(charged.as_ref(), ended);
                return false;
            }
            given(charged.as_ref());
        }
    }
}

/// A session that goes on without servers that it could see.
#[derive(Debug)]
pub struct Narrowed {
    pub(super) session: Arc<Session>,
    pub(super) servers: Vec<ServerName>,
}

impl Narrowed {
    /// The servers, without those that the session may see again meanwhile.
    pub fn servers(&self) -> impl Iterator<Item = &ServerName> {
        self.servers.iter().filter(|server| !self.session.hears_of(server))
    }
}

impl Ended {
    /// True if the session goes on and has subscribed again meanwhile.
    pub fn is_wanted(&self, server: &ServerName, uri: &str) -> bool {
        let narrowed = self.narrowed.as_ref();
        narrowed.is_some_and(|narrowed| narrowed.session.is_subscribed(server, uri))
    }
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
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn one_whose_sessions_end_in_floods_leaves_the_others_a_place() {
        let ended = |name: &str| Ended {
            session: name.into(),
            subscriber: Subscriber::fresh(),
            subscriptions: Vec::new(),
            narrowed: None,
            charged: Some(PrincipalId::Key(name.into())),
            place: None,
        };
        let (mut left, tidied) = (LeftBehind::new(), RefCell::new(Vec::new()));
        (0..2 * ENDED_SESSIONS_QUEUE_MAX).for_each(|_| left.push(ended("hog")));
        let give = |ended: Ended| {
            tidied.borrow_mut().push(ended);
            Ok(())
        };
        assert!(left.hand_over(&give, |_| ()));
        let n_hog = tidied.borrow().len();
        assert!(n_hog < ENDED_SESSIONS_QUEUE_MAX, "{n_hog}");
        left.push(ended("victim"));
        assert!(left.hand_over(&give, |_| ()));
        assert_eq!(
            tidied.borrow().last().map(|last| last.session.to_string()),
            Some("victim".into())
        );
        // Each finished entry lets another one in, and an entry that is handed back is not lost.
        tidied.borrow_mut().truncate(10);
        assert!(!left.hand_over(&Err, |_| panic!("none was given")));
        assert!(left.hand_over(&give, |_| ()));
        assert_eq!(tidied.borrow().len(), n_hog);
        assert_eq!(left.len(), 2 * ENDED_SESSIONS_QUEUE_MAX - (n_hog - 10) - n_hog);
    }
}
