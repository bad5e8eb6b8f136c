//! The principals that have calls in flight on the session with a server that clients share, so
//! that a server's message that names no call reaches only clients whom it is about. Time is an
//! argument.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use crate::limits::{
    CALLERS_REMEMBERED_MAX, LATE_MESSAGE_TIME, LATELY_TIME, UNANSWERED_CALL_TIME,
};
use crate::protocol::call::PrincipalId;
use crate::protocol::server_name::ServerName;
use crate::sync::Mutex;
use crate::upstream::Wire;

/// The principal that a message may be about, if the message names no call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whose {
    /// Only this principal has calls in flight.
    Of(PrincipalId),
    /// No principal has calls in flight. This one was the only one lately, or none was.
    OfNoCall(Option<PrincipalId>),
    /// The message may be about one of several principals, or about one that is unknown.
    Unknown,
}

/// The end of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The server has answered.
    Answered,
    /// The server may still work on the call.
    Unanswered,
}

/// The callers of all servers.
#[derive(Debug, Default)]
pub(super) struct Callers {
    servers: Mutex<BTreeMap<ServerName, OfServer>>,
}

#[derive(Debug, Default)]
struct OfServer {
    /// By principal; None stands for callers that cannot be told apart.
    callers: HashMap<Option<PrincipalId>, Uses>,
    /// The time until which a forgotten principal counts as a caller.
    forgotten_until: Option<Instant>,
    /// The number of messages that reached no client.
    unattributed: Arc<AtomicU64>,
}

/// The use of a server's shared session by one principal.
#[derive(Debug, Clone, Copy)]
struct Uses {
    n_in_flight: usize,
    /// The time at which the first of the calls in flight began.
    began: Instant,
    /// The time at which its last call ended, or began.
    last: Instant,
    /// The time until which the server may still work on a call that it has not answered.
    busy_until: Option<Instant>,
}

impl Uses {
    fn is_in_flight(&self, now: Instant) -> bool {
        self.n_in_flight > 0 || self.busy_until.is_some_and(|until| now < until)
    }

    /// True if a message sent during its last call may only come now.
    fn is_late(&self, now: Instant) -> bool {
        now < self.last + LATE_MESSAGE_TIME
    }

    fn is_recent(&self, now: Instant) -> bool {
        now < self.last + LATELY_TIME
    }
}

/// A guard of a call in flight.
#[derive(Debug)]
pub(super) struct InFlight<'a> {
    callers: &'a Callers,
    server: ServerName,
    principal: Option<PrincipalId>,
    pub(super) end: End,
}

impl Callers {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ServerName, OfServer>> {
        self.servers.lock()
    }

    /// Notes the beginning of a call. Dropping the guard ends the call, unanswered unless the guard
    /// was told otherwise.
    pub(super) fn enter(
        &self,
        now: Instant,
        server: &ServerName,
        principal: Option<PrincipalId>,
    ) -> InFlight<'_> {
        let mut servers = self.lock();
        match servers.get_mut(server) {
            Some(of_server) => of_server.enter(now, &principal),
            None => servers.entry(server.clone()).or_default().enter(now, &principal),
        }
        drop(servers);
        InFlight { callers: self, server: server.clone(), principal, end: End::Unanswered }
    }

    fn leave(&self, now: Instant, server: &ServerName, who: &Option<PrincipalId>, end: End) {
        let mut servers = self.lock();
        let uses = servers.get_mut(server).and_then(|it| it.callers.get_mut(who));
        let Some(uses) = uses else { return };
        uses.n_in_flight = uses.n_in_flight.saturating_sub(1);
        uses.last = now;
        if end == End::Unanswered {
            uses.busy_until = Some(now + UNANSWERED_CALL_TIME);
        }
    }

    /// The principal that a message may be about that comes now and names no call.
    pub(super) fn whose(&self, now: Instant, server: &ServerName, wire: Wire) -> Whose {
        self.lock().get(server).map_or(Whose::OfNoCall(None), |it| it.whose(now, wire))
    }

    /// The counter of a server's messages that reached no client.
    pub(super) fn unattributed(&self, server: &ServerName) -> Arc<AtomicU64> {
        self.lock().entry(server.clone()).or_default().unattributed.clone()
    }

    /// The number of a server's messages that reached no client so far.
    pub(super) fn n_unattributed(&self, server: &ServerName) -> u64 {
        self.lock().get(server).map_or(0, |it| it.unattributed.load(Ordering::Relaxed))
    }

    /// Forgets a server that was removed.
    pub(super) fn forget(&self, server: &ServerName) {
        self.lock().remove(server);
    }
}

impl OfServer {
    fn enter(&mut self, now: Instant, principal: &Option<PrincipalId>) {
        let uses = match self.callers.get_mut(principal) {
            Some(uses) => uses,
            None => {
                if self.callers.len() >= CALLERS_REMEMBERED_MAX {
                    self.make_room(now);
                }
                let fresh = Uses { n_in_flight: 0, began: now, last: now, busy_until: None };
                self.callers.entry(principal.clone()).or_insert(fresh)
            }
        };
        if !uses.is_in_flight(now) {
            uses.began = now;
        }
        uses.n_in_flight += 1;
        uses.last = now;
    }

    /// Forgets principals that have not called lately, else the one whose last call is longest
    /// ago. A principal with calls in flight is never forgotten: their number is bounded by that
    /// of calls.
    fn make_room(&mut self, now: Instant) {
        let is_done = |uses: &Uses| uses.n_in_flight == 0;
        self.callers.retain(|_, uses| !is_done(uses) || uses.is_recent(now));
        if self.callers.len() < CALLERS_REMEMBERED_MAX {
            return;
        }
        let done = self.callers.iter().filter(|(_, uses)| is_done(uses));
        if let Some((oldest, _)) = done.min_by_key(|(_, uses)| uses.last) {
            let oldest = oldest.clone();
            self.callers.remove(&oldest);
            self.forgotten_until = Some(now + LATELY_TIME);
        }
    }

    fn whose(&self, now: Instant, wire: Wire) -> Whose {
        let mut meant = self.callers.iter().filter(|(_, uses)| match wire {
            // A message behind an answer on the answers' stream was sent after it.
            Wire::OfAnswers => uses.is_in_flight(now),
            Wire::Apart => self.may_be_meant_apart(now, uses),
        });
        match (meant.next(), meant.next()) {
            (Some((Some(one), _)), None) => return Whose::Of(one.clone()),
            (Some(_), _) => return Whose::Unknown,
            (None, _) => (),
        }
        let is_forgotten = self.forgotten_until.is_some_and(|until| now < until);
        let mut lately = self.callers.iter().filter(|(_, uses)| uses.is_recent(now));
        match (lately.next(), lately.next()) {
            (None, _) if !is_forgotten => Whose::OfNoCall(None),
            (Some((Some(one), _)), None) if !is_forgotten => Whose::OfNoCall(Some(one.clone())),
            (None | Some(_), _) => Whose::Unknown,
        }
    }

    /// True if a message on another stream than the answers' may be about this caller: also where
    /// its call has just ended, unless another caller has begun after that.
    fn may_be_meant_apart(&self, now: Instant, uses: &Uses) -> bool {
        if uses.is_in_flight(now) || !uses.is_late(now) {
            return uses.is_in_flight(now);
        }
        let mut others = self.callers.values().filter(|it| !std::ptr::eq(*it, uses));
        let is_next =
            |it: &Uses| it.began >= uses.last && (it.is_in_flight(now) || it.is_late(now));
        !others.any(is_next)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.callers.leave(Instant::now(), &self.server, &self.principal, self.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const TICK: Duration = Duration::from_millis(1);

    fn key(name: &str) -> Option<PrincipalId> {
        Some(PrincipalId::Key(name.into()))
    }

    fn server() -> ServerName {
        ServerName::parse("s").unwrap()
    }

    /// A call of `who` that ended at `now`.
    fn called(callers: &Callers, now: Instant, who: Option<PrincipalId>, end: End) {
        let mut call = callers.enter(now, &server(), who.clone());
        // The guard that is dropped below then counts for another principal.
        call.principal = key("nobody");
        callers.leave(now, &server(), &who, end);
    }

    #[test]
    fn a_message_is_the_only_caller_s_or_nobody_s() {
        let (callers, now) = (Callers::default(), Instant::now());
        let whose = |wire| callers.whose(now, &server(), wire);
        assert_eq!(whose(Wire::OfAnswers), Whose::OfNoCall(None));
        let a = callers.enter(now, &server(), key("a"));
        let again = callers.enter(now, &server(), key("a"));
        assert_eq!(whose(Wire::OfAnswers), Whose::Of(key("a").unwrap()));
        let b = callers.enter(now, &server(), key("b"));
        assert_eq!(whose(Wire::OfAnswers), Whose::Unknown);
        let other = ServerName::parse("t").unwrap();
        assert_eq!(callers.whose(now, &other, Wire::OfAnswers), Whose::OfNoCall(None));
        drop((a, again, b));
    }

    #[test]
    fn who_cannot_be_told_apart_is_never_heard_for() {
        let (callers, now) = (Callers::default(), Instant::now());
        let call = callers.enter(now, &server(), None);
        assert_eq!(callers.whose(now, &server(), Wire::OfAnswers), Whose::Unknown);
        drop(call);
        let later = Instant::now() + UNANSWERED_CALL_TIME;
        assert_eq!(callers.whose(later, &server(), Wire::OfAnswers), Whose::Unknown);
        let later = Instant::now() + LATELY_TIME;
        assert_eq!(callers.whose(later, &server(), Wire::OfAnswers), Whose::OfNoCall(None));
    }

    #[test]
    fn what_comes_behind_an_answer_on_another_stream_may_still_be_about_it() {
        let (callers, now) = (Callers::default(), Instant::now());
        let whose = |now, wire| callers.whose(now, &server(), wire);
        let [of_a, of_b] = ["a", "b"].map(|name| Whose::Of(key(name).unwrap()));
        let b = callers.enter(now, &server(), key("b"));
        called(&callers, now + TICK, key("a"), End::Answered);
        assert_eq!(whose(now + TICK, Wire::OfAnswers), of_b);
        assert_eq!(whose(now + TICK, Wire::Apart), Whose::Unknown);
        assert_eq!(whose(now + TICK + LATE_MESSAGE_TIME, Wire::Apart), of_b);
        drop(b);
        // Without calls in flight, the message is about the last caller.
        let now = now + LATELY_TIME;
        called(&callers, now, key("b"), End::Answered);
        called(&callers, now + TICK, key("a"), End::Answered);
        assert_eq!(whose(now + TICK, Wire::Apart), of_a);
        assert_eq!(whose(now + TICK, Wire::OfAnswers), Whose::Unknown);
        // A principal that begins after that is meant.
        let b = callers.enter(now + 2 * TICK, &server(), key("b"));
        assert_eq!(whose(now + 2 * TICK, Wire::Apart), of_b);
        drop(b);
    }

    #[test]
    fn a_call_without_an_answer_goes_on_for_a_while() {
        let (callers, now) = (Callers::default(), Instant::now());
        called(&callers, now, key("a"), End::Unanswered);
        let b = callers.enter(now, &server(), key("b"));
        let before = now + UNANSWERED_CALL_TIME - TICK;
        assert_eq!(callers.whose(before, &server(), Wire::OfAnswers), Whose::Unknown);
        let then = now + UNANSWERED_CALL_TIME;
        let whose = callers.whose(then, &server(), Wire::OfAnswers);
        assert_eq!(whose, Whose::Of(key("b").unwrap()));
        drop(b);
    }

    #[test]
    fn whoever_called_lately_may_be_meant_and_those_before_not() {
        let (callers, now) = (Callers::default(), Instant::now());
        called(&callers, now, key("a"), End::Answered);
        let whose = |now| callers.whose(now, &server(), Wire::OfAnswers);
        assert_eq!(whose(now), Whose::OfNoCall(key("a")));
        let later = now + LATELY_TIME / 2;
        called(&callers, later, key("b"), End::Answered);
        assert_eq!(whose(later), Whose::Unknown);
        assert_eq!(whose(now + LATELY_TIME), Whose::OfNoCall(key("b")));
    }

    #[test]
    fn only_so_many_are_remembered_and_those_forgotten_count() {
        let (callers, now) = (Callers::default(), Instant::now());
        for n in 0..=CALLERS_REMEMBERED_MAX {
            called(&callers, now, key(&n.to_string()), End::Answered);
        }
        let n = |callers: &Callers| callers.lock()[&server()].callers.len();
        assert_eq!(n(&callers), CALLERS_REMEMBERED_MAX);
        callers.lock().get_mut(&server()).unwrap().callers.clear();
        assert_eq!(callers.whose(now, &server(), Wire::Apart), Whose::Unknown);
        let later = now + LATELY_TIME;
        assert_eq!(callers.whose(later, &server(), Wire::Apart), Whose::OfNoCall(None));
    }
}
