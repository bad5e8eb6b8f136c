//! The subscriptions that clients want over a session with a server, and the level of its log
//! messages where clients share it: callers and supervisors make the server equal to that, also
//! when the session is opened anew, or another configuration takes its place.

pub(in crate::upstream) mod listen_filter;
pub(in crate::upstream) mod next_step;
pub(in crate::upstream) mod reconcile;
pub(in crate::upstream) mod subscribe;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Stage;
use crate::fair_shares::NotTaken;
use crate::limits::{SUBSCRIPTION_URI_BYTES_MAX, UPSTREAM_SUBSCRIPTIONS_MAX};
use crate::protocol::call::PrincipalId;
use crate::protocol::subscriber::Subscriber;
use crate::wait::Wait;

use crate::upstream::failure::{Failure, FailureKind};
use next_step::{SessionNumber, Step, Subscriptions};

/// What is wanted over the session of one upstream. The upstream that takes its place shares the
/// set ([`DesiredSubscriptions::successor`]).
#[derive(Default)]
pub(crate) struct DesiredSubscriptions {
    /// Its place among those that share the set.
    ordinal: u64,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    level: Mutex<Option<String>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    set: Subscriptions,
    /// Callers that wait until somebody else has told the server about a resource.
    waiting: Vec<(String, Arc<Wait>)>,
    /// How many upstreams have shared the set.
    n_shared: u64,
    /// The newest of them whose session was opened: its server is made equal to the set.
    ordinal: u64,
    /// Wakes the supervisor of that session.
    supervisor: Option<Arc<Wait>>,
}

impl State {
    /// The supervisor, where it has something to tell its server.
    fn concerned(&self) -> Option<Arc<Wait>> {
        self.supervisor.clone().filter(|_| self.set.has_due())
    }
}

/// The right to tell the server about one resource. Dropping it lets the next one in.
pub(crate) struct UriLock<'a> {
    desired: &'a DesiredSubscriptions,
    uri: String,
}

impl DesiredSubscriptions {
    pub(crate) fn set_level(&self, level: &str) {
        let mut known = self.shared.level.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some(level.to_owned());
    }

    pub(crate) fn level(&self) -> Option<String> {
        self.shared.level.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same set for the upstream that takes the place of this one. This one tells its server
    /// until the other one's session is opened.
    pub(crate) fn successor(&self) -> DesiredSubscriptions {
        let mut state = self.lock();
        state.n_shared += 1;
        DesiredSubscriptions { ordinal: state.n_shared, shared: self.shared.clone() }
    }

    /// The session of that generation was opened anew: its server knows of nothing but what it was
    /// told since. `supervisor` is woken from here on when the server is to be told something.
    pub(crate) fn opened(&self, generation: u64, supervisor: &Arc<Wait>) {
        let mut state = self.lock();
        if self.ordinal >= state.ordinal {
            state.ordinal = self.ordinal;
            let before = state.supervisor.replace(supervisor.clone());
            state.set.opened(SessionNumber { upstream: self.ordinal, generation });
            // The pauses are the former supervisor's, and end with it.
            if !before.is_some_and(|before| Arc::ptr_eq(&before, supervisor)) {
                state.set.resume();
            }
        }
    }

    /// What is subscribed to.
    pub(crate) fn uris(&self) -> Vec<String> {
        self.lock().set.wanted().cloned().collect()
    }

    /// True if anything is subscribed to.
    pub(crate) fn has_subscriptions(&self) -> bool {
        self.lock().set.wanted().next().is_some()
    }

    /// True if nothing is subscribed to, and nobody is about to.
    pub(crate) fn has_no_subscriptions(&self) -> bool {
        self.lock().set.is_idle()
    }

    /// Forgets a subscriber without waiting; the supervisor tells the server where it was the last.
    pub(crate) fn forget(&self, uri: &str, subscriber: Subscriber) {
        self.change(|set| set.unwant(uri, subscriber));
    }

    /// Subscribes one who was subscribed to the resource elsewhere, without waiting; the supervisor
    /// tells the server. Nothing changes where that one's share is full.
    pub(crate) fn take_over(
        &self,
        uri: &str,
        subscriber: Subscriber,
        charged: Option<PrincipalId>,
    ) {
        self.change(|set| {
            let Ok(is_alone) = set.enter(uri, charged.as_ref()) else { return };
            set.want(uri, subscriber, charged);
            if is_alone {
                set.leave(uri);
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Subscriptions)) {
        let supervisor = {
            let mut state = self.lock();
            change(&mut state.set);
            state.concerned()
        };
        if let Some(supervisor) = supervisor {
            supervisor.bell().ring();
        }
    }

    /// Waits until nobody else tells the server about this resource. `charged`: whose share it
    /// takes, where it is not known yet.
    pub(crate) fn turn(
        &self,
        uri: &str,
        charged: Option<&PrincipalId>,
        wait: &Arc<Wait>,
    ) -> Result<UriLock<'_>, Failure> {
        if uri.len() > SUBSCRIPTION_URI_BYTES_MAX {
            let what = format!("the URI is longer than {SUBSCRIPTION_URI_BYTES_MAX} bytes");
            return Err(Failure::new(FailureKind::Overloaded, Stage::Slot, what));
        }
        let is_mine = |(_, other): &(String, Arc<Wait>)| Arc::ptr_eq(other, wait);
        loop {
            {
                let mut state = self.lock();
                let entered = state.set.enter(uri, charged);
                let entered =
                    entered.map_err(|why| refused(why, state.set.share_of(charged)))?;
                if entered {
                    return Ok(UriLock { desired: self, uri: uri.to_owned() });
                }
                if !state.waiting.iter().any(is_mine) {
                    state.waiting.push((uri.to_owned(), wait.clone()));
                }
            }
            if let Err(reason) = wait.until(None, None) {
                self.lock().waiting.retain(|it| !is_mine(it));
                return Err(Failure::interrupted(reason, Stage::Slot, false));
            }
        }
    }

    /// For the supervisor: what its server is to be told next, and the right to tell it.
    pub(crate) fn next(&self) -> Option<(UriLock<'_>, Step)> {
        let mut state = self.lock();
        if state.ordinal != self.ordinal {
            return None;
        }
        let (uri, step) = state.set.enter_next()?;
        Some((UriLock { desired: self, uri }, step))
    }

    /// For the supervisor: what was put off is told again.
    pub(crate) fn resume(&self) {
        let mut state = self.lock();
        if state.ordinal == self.ordinal {
            state.set.resume();
        }
    }

    /// For the supervisor: true if its server is to be told something now.
    pub(crate) fn has_due(&self) -> bool {
        let state = self.lock();
        state.ordinal == self.ordinal && state.set.has_due()
    }

    /// For the supervisor: true if its server is to be told something, now or later.
    pub(crate) fn has_steps(&self) -> bool {
        let state = self.lock();
        state.ordinal == self.ordinal && state.set.has_steps()
    }
}

impl UriLock<'_> {
    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// True if anybody wants to hear of the resource.
    pub(crate) fn is_wanted(&self) -> bool {
        self.desired.lock().set.is_wanted(&self.uri)
    }

    /// This one does. Once is enough.
    pub(crate) fn add(&self, subscriber: Subscriber, charged: Option<PrincipalId>) {
        self.desired.lock().set.want(&self.uri, subscriber, charged);
    }

    /// This one does not, however often that is said.
    pub(crate) fn remove(&self, subscriber: Subscriber) {
        self.desired.lock().set.unwant(&self.uri, subscriber);
    }

    /// The server has taken what it was told on the session of that generation.
    pub(crate) fn told(&self, step: Step, generation: u64) {
        let session = SessionNumber { upstream: self.desired.ordinal, generation };
        self.desired.lock().set.told(&self.uri, step, session);
    }

    /// The server has not taken it: it is told again when the supervisor resumes.
    pub(crate) fn put_off(&self) {
        self.desired.lock().set.put_off(&self.uri);
    }
}

fn refused(why: NotTaken, share: usize) -> Failure {
    let what = match why {
        NotTaken::Full => format!("{UPSTREAM_SUBSCRIPTIONS_MAX} resources are subscribed to"),
        NotTaken::ShareHeld => format!(
            "so many resources are subscribed to as one caller may be: {share} now (its share of \
             {UPSTREAM_SUBSCRIPTIONS_MAX})"
        ),
    };
    Failure::new(FailureKind::Overloaded, Stage::Slot, what)
}

impl Drop for UriLock<'_> {
    fn drop(&mut self) {
        let (mut woken, supervisor) = {
            let mut state = self.desired.lock();
            state.set.leave(&self.uri);
            let of_uri = |(uri, _): &mut (String, Arc<Wait>)| *uri == self.uri;
            let woken: Vec<_> = state.waiting.extract_if(.., of_uri).collect();
            (woken, state.concerned())
        };
        let woken = woken.drain(..).map(|(_, wait)| wait).chain(supervisor);
        woken.for_each(|wait| wait.bell().ring());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::{Interrupted, Woken};
    use std::time::Duration;

    fn wait(timeout_ms: u64) -> Arc<Wait> {
        Wait::plain(Duration::from_millis(timeout_ms)).unwrap()
    }

    #[test]
    fn one_at_a_time_has_the_turn() {
        let desired = DesiredSubscriptions::default();
        let first = desired.turn("a:", None, &wait(5000)).unwrap();
        let late = desired.turn("a:", None, &wait(20)).map(drop).unwrap_err();
        assert_eq!(late.kind, FailureKind::Interrupted(Interrupted::Deadline));
        drop(desired.turn("b:", None, &wait(5000)).unwrap());
        std::thread::scope(|scope| {
            let next =
                scope.spawn(|| desired.turn("a:", None, &wait(5000)).unwrap().is_wanted());
            first.add(Subscriber::fresh(), None);
            drop(first);
            assert!(next.join().unwrap());
        });
    }

    #[test]
    fn the_supervisor_is_woken_when_the_last_subscriber_is_forgotten() {
        let (desired, one) = (DesiredSubscriptions::default(), Subscriber::fresh());
        let supervisor = wait(5000);
        desired.opened(1, &supervisor);
        let turn = desired.turn("a:", None, &wait(5000)).unwrap();
        turn.told(Step::Subscribe, 1);
        turn.add(one, None);
        drop(turn);
        assert!(!desired.has_due() && !desired.has_no_subscriptions());
        desired.forget("a:", one);
        assert_eq!(supervisor.until(None, None), Ok(Woken::Bell));
        let (turn, step) = desired.next().unwrap();
        assert_eq!((turn.uri(), step), ("a:", Step::Unsubscribe));
        turn.told(step, 1);
        drop(turn);
        assert!(!desired.has_steps());
    }

    #[test]
    fn of_those_that_share_a_set_the_newest_with_a_session_tells_its_server() {
        let (old, one, supervisor) =
            (DesiredSubscriptions::default(), Subscriber::fresh(), wait(5000));
        old.opened(1, &supervisor);
        let turn = old.turn("a:", None, &wait(5000)).unwrap();
        turn.told(Step::Subscribe, 1);
        turn.add(one, None);
        drop(turn);
        let new = old.successor();
        assert_eq!(new.uris(), ["a:"]);
        assert!(!old.has_steps() && !new.has_steps());
        let late = old.turn("b:", None, &wait(5000)).unwrap();
        new.opened(1, &supervisor);
        late.told(Step::Subscribe, 1);
        late.add(one, None);
        drop(late);
        old.opened(1, &supervisor);
        assert!(old.next().is_none() && !old.has_steps());
        let told: Vec<_> = std::iter::from_fn(|| {
            let (turn, step) = new.next()?;
            turn.told(step, 1);
            Some((turn.uri().to_owned(), step))
        })
        .collect();
        assert_eq!(told, ["a:", "b:"].map(|uri| (uri.to_owned(), Step::Subscribe)));
    }

    #[test]
    fn the_pauses_of_one_supervisor_are_not_those_of_the_next() {
        let (old, one) = (DesiredSubscriptions::default(), Subscriber::fresh());
        let (former, next) = (wait(5000), wait(5000));
        old.opened(1, &former);
        let turn = old.turn("a:", None, &wait(5000)).unwrap();
        turn.add(one, None);
        turn.put_off();
        drop(turn);
        old.opened(2, &former);
        assert!(!old.has_due() && old.has_steps(), "the same supervisor waits");
        let new = old.successor();
        new.opened(1, &next);
        assert!(new.has_due());
    }

    #[test]
    fn a_bound_is_named() {
        let desired = DesiredSubscriptions::default();
        let long = "x".repeat(SUBSCRIPTION_URI_BYTES_MAX + 1);
        let refused = desired.turn(&long, None, &wait(5000)).map(drop).unwrap_err();
        assert!(refused.message.contains("bytes"));
    }
}
