//! What a session has been told for good, and is told again whenever it is opened anew: the
//! level of its log messages, where clients share it, and the resources that somebody has
//! subscribed to.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Stage;
use crate::limits::{SUBSCRIPTION_URI_BYTES_MAX, UPSTREAM_SUBSCRIPTIONS_MAX};
use crate::protocol::call::PrincipalId;
use crate::protocol::subscriber::Subscriber;
use crate::shares::{NotTaken, Shares};
use crate::wait::Wait;

use crate::upstream::failure::{Failure, FailureKind};

/// See above.
#[derive(Default)]
pub(crate) struct DesiredSubscriptions {
    level: Mutex<Option<String>>,
    subscriptions: Mutex<Subscriptions>,
}

struct Subscriptions {
    by_uri: BTreeMap<String, Subscription>,
    /// Whose share of [`UPSTREAM_SUBSCRIPTIONS_MAX`] they take.
    shares: Shares<PrincipalId>,
}

impl Default for Subscriptions {
    fn default() -> Self {
        let shares = Shares::long_held(UPSTREAM_SUBSCRIPTIONS_MAX);
        Subscriptions { by_uri: BTreeMap::new(), shares }
    }
}

#[derive(Default)]
struct Subscription {
    /// Who wants to hear of the resource, each with whoever is charged for it. Each subscriber
    /// bounds its subscriptions itself (`SUBSCRIPTIONS_PER_SESSION_MAX`), and `limits.sessions`
    /// bounds the sessions.
    subscribers: HashMap<Subscriber, Option<PrincipalId>>,
    /// Whose share the resource takes: that of one of them, once there is one.
    charged: Option<PrincipalId>,
    /// Somebody is telling the upstream about it.
    busy: bool,
    waiting: Vec<Arc<Wait>>,
}

/// The right to tell the upstream about one resource; without it, a subscription and the end of
/// another one could overtake each other. Dropping it lets the next one in.
pub(crate) struct UriLock<'a> {
    desired: &'a DesiredSubscriptions,
    uri: &'a str,
}

impl Subscriptions {
    fn remove(&mut self, uri: &str) {
        if let Some(gone) = self.by_uri.remove(uri) {
            self.shares.give_back_of(gone.charged.as_ref(), 1);
        }
    }

    fn add_subscriber(&mut self, uri: &str, who: Subscriber, charged: Option<PrincipalId>) {
        let Some(it) = self.by_uri.get_mut(uri) else { return };
        it.subscribers.insert(who, charged);
        it.charge_one_of_them(&mut self.shares);
    }

    fn remove_subscriber(&mut self, uri: &str, who: Subscriber) {
        let Some(it) = self.by_uri.get_mut(uri) else { return };
        it.subscribers.remove(&who);
        it.charge_one_of_them(&mut self.shares);
        if it.subscribers.is_empty() && !it.busy {
            self.remove(uri);
        }
    }
}

impl Subscription {
    /// Where whoever is charged wants to hear of it no more, another one who does is.
    fn charge_one_of_them(&mut self, shares: &mut Shares<PrincipalId>) {
        if self.subscribers.values().any(|charged| *charged == self.charged) {
            return;
        }
        if let Some(next) = self.subscribers.values().next() {
            shares.hand_over(self.charged.as_ref(), next.as_ref(), 1);
            self.charged.clone_from(next);
        }
    }
}

impl DesiredSubscriptions {
    pub(crate) fn set_level(&self, level: &str) {
        let mut known = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some(level.to_owned());
    }

    pub(crate) fn level(&self) -> Option<String> {
        self.level.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock(&self) -> MutexGuard<'_, Subscriptions> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is subscribed to.
    pub(crate) fn uris(&self) -> Vec<String> {
        self.those(|it| !it.subscribers.is_empty())
    }

    /// The same and what somebody is telling the upstream about, which may be subscribed to when
    /// that turn is over: a session opened meanwhile has not been told.
    pub(crate) fn uris_or_coming(&self) -> Vec<String> {
        self.those(|it| it.busy || !it.subscribers.is_empty())
    }

    fn those(&self, are: impl Fn(&Subscription) -> bool) -> Vec<String> {
        let subscriptions = self.lock();
        let those = subscriptions.by_uri.iter().filter(|(_, it)| are(it));
        those.map(|(uri, _)| uri.clone()).collect()
    }

    /// Whether there is no subscription, and nobody is at one.
    pub(crate) fn has_no_subscriptions(&self) -> bool {
        self.lock().by_uri.is_empty()
    }

    /// Forgets a subscriber out of turn: for one that cannot wait until the upstream is told.
    pub(crate) fn forget(&self, uri: &str, subscriber: Subscriber) {
        self.lock().remove_subscriber(uri, subscriber);
    }

    /// Waits until nobody else tells the upstream about this resource. `charged`: whose share it
    /// takes, where it is not known yet.
    pub(crate) fn turn<'a>(
        &'a self,
        uri: &'a str,
        charged: Option<&PrincipalId>,
        wait: &Arc<Wait>,
    ) -> Result<UriLock<'a>, Failure> {
        loop {
            {
                let mut subscriptions = self.lock();
                if uri.len() > SUBSCRIPTION_URI_BYTES_MAX {
                    let what =
                        format!("the URI is longer than {SUBSCRIPTION_URI_BYTES_MAX} bytes");
                    return Err(Failure::new(FailureKind::Overloaded, Stage::Slot, what));
                }
                let Subscriptions { by_uri, shares } = &mut *subscriptions;
                if !by_uri.contains_key(uri) {
                    let taken = shares.take_of(charged, 1);
                    taken.map_err(|why| refused(why, shares.share_of(charged)))?;
                    let charged = charged.cloned();
                    by_uri.insert(
                        uri.to_owned(),
                        Subscription { charged, ..Subscription::default() },
                    );
                }
                let Some(subscription) = by_uri.get_mut(uri) else { continue };
                if !subscription.busy {
                    subscription.busy = true;
                    return Ok(UriLock { desired: self, uri });
                }
                if !subscription.waiting.iter().any(|other| Arc::ptr_eq(other, wait)) {
                    subscription.waiting.push(wait.clone());
                }
            }
            if let Err(reason) = wait.until(None, None) {
                if let Some(subscription) = self.lock().by_uri.get_mut(uri) {
                    subscription.waiting.retain(|other| !Arc::ptr_eq(other, wait));
                }
                return Err(Failure::interrupted(reason, Stage::Slot, false));
            }
        }
    }
}

impl UriLock<'_> {
    /// Whether anybody wants to hear of the resource.
    pub(crate) fn is_wanted(&self) -> bool {
        self.desired.lock().by_uri.get(self.uri).is_some_and(|it| !it.subscribers.is_empty())
    }

    /// This one does. Once is enough.
    pub(crate) fn add(&self, subscriber: Subscriber, charged: Option<PrincipalId>) {
        self.desired.lock().add_subscriber(self.uri, subscriber, charged);
    }

    /// This one does not, however often that is said.
    pub(crate) fn remove(&self, subscriber: Subscriber) {
        // It stays while the turn lasts.
        self.desired.lock().remove_subscriber(self.uri, subscriber);
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
        let waiting = {
            let mut subscriptions = self.desired.lock();
            let Some(subscription) = subscriptions.by_uri.get_mut(self.uri) else { return };
            subscription.busy = false;
            let waiting = std::mem::take(&mut subscription.waiting);
            if subscription.subscribers.is_empty() {
                subscriptions.remove(self.uri);
            }
            waiting
        };
        waiting.iter().for_each(|wait| wait.bell().ring());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::Interrupted;
    use std::time::Duration;

    fn wait(timeout_ms: u64) -> Arc<Wait> {
        Wait::plain(Duration::from_millis(timeout_ms)).unwrap()
    }

    #[test]
    fn what_nobody_wants_is_forgotten() {
        let (desired, one) = (DesiredSubscriptions::default(), Subscriber::fresh());
        drop(desired.turn("a:", None, &wait(5000)).unwrap());
        assert!(desired.lock().by_uri.is_empty());
        desired.turn("a:", None, &wait(5000)).unwrap().add(one, None);
        assert_eq!(desired.uris(), ["a:"]);
        desired.turn("a:", None, &wait(5000)).unwrap().remove(one);
        assert!(desired.lock().by_uri.is_empty());
        desired.turn("a:", None, &wait(5000)).unwrap().add(one, None);
        desired.forget("a:", one);
        assert!(desired.lock().by_uri.is_empty());
    }

    #[test]
    fn a_new_session_hears_of_what_is_being_subscribed_to() {
        let desired = DesiredSubscriptions::default();
        let turn = desired.turn("a:", None, &wait(5000)).unwrap();
        assert_eq!(desired.uris_or_coming(), ["a:"]);
        assert!(desired.uris().is_empty(), "it may be refused, or be on its way out");
        turn.add(Subscriber::fresh(), None);
        drop(turn);
        assert_eq!(desired.uris_or_coming(), ["a:"]);
        let turn = desired.turn("b:", None, &wait(5000)).unwrap();
        drop(turn);
        assert_eq!(desired.uris_or_coming(), ["a:"]);
    }

    #[test]
    fn one_that_goes_twice_takes_nobody_along() {
        let desired = DesiredSubscriptions::default();
        let (goes, stays) = (Subscriber::fresh(), Subscriber::fresh());
        let turn = desired.turn("a:", None, &wait(5000)).unwrap();
        turn.add(goes, None);
        turn.add(stays, None);
        turn.remove(goes);
        turn.remove(goes);
        desired.forget("a:", goes);
        assert!(turn.is_wanted());
        desired.forget("a:", stays);
        assert!(!turn.is_wanted());
        assert_eq!(desired.lock().by_uri.len(), 1, "while it is somebody's turn");
        drop(turn);
        assert!(desired.lock().by_uri.is_empty());
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
    fn one_that_subscribes_to_everything_leaves_the_others_their_share() {
        let desired = DesiredSubscriptions::default();
        let of = |name: &str| Some(PrincipalId::Key(name.into()));
        let (hog, victim) = (of("hog"), of("victim"));
        let one = Subscriber::fresh();
        let subscribe = |who: &Option<PrincipalId>, n: usize| {
            let uri = format!("{}:{n}", if *who == hog { "hog" } else { "victim" });
            let turn = desired.turn(&uri, who.as_ref(), &wait(5000))?;
            turn.add(one, who.clone());
            Ok::<_, Failure>(())
        };
        let n_hog = (0..).take_while(|n| subscribe(&hog, *n).is_ok()).count();
        let n_victim = (0..).take_while(|n| subscribe(&victim, *n).is_ok()).count();
        let share = UPSTREAM_SUBSCRIPTIONS_MAX / crate::limits::SHARES_MIN;
        assert_eq!(n_hog, UPSTREAM_SUBSCRIPTIONS_MAX - share);
        // A part of its own share it leaves to whoever comes then.
        assert!((share * 3 / 4..share).contains(&n_victim), "{n_victim}");
        for n in 0..n_victim {
            desired.forget(&format!("victim:{n}"), one);
        }
        assert!(subscribe(&hog, n_hog).is_err());
        subscribe(&victim, 0).unwrap();
    }

    #[test]
    fn a_resource_takes_the_share_of_one_who_wants_to_hear_of_it() {
        let desired = DesiredSubscriptions::default();
        let of = |name: &str| Some(PrincipalId::Key(name.into()));
        let (a, b) = (of("a"), of("b"));
        let (first, second) = (Subscriber::fresh(), Subscriber::fresh());
        let held =
            |who: &Option<PrincipalId>| desired.lock().shares.held(who.as_ref().unwrap());
        let turn = desired.turn("x:", a.as_ref(), &wait(5000)).unwrap();
        turn.add(first, a.clone());
        turn.add(second, b.clone());
        assert_eq!((held(&a), held(&b)), (1, 0));
        turn.remove(first);
        assert_eq!((held(&a), held(&b)), (0, 1));
        drop(turn);
        desired.forget("x:", second);
        assert_eq!((held(&a), held(&b), desired.lock().shares.taken()), (0, 0, 0));
    }

    #[test]
    fn a_bound_is_named() {
        let desired = DesiredSubscriptions::default();
        let long = "x".repeat(SUBSCRIPTION_URI_BYTES_MAX + 1);
        let refused = desired.turn(&long, None, &wait(5000)).map(drop).unwrap_err();
        assert!(refused.message.contains("bytes"));
    }
}
