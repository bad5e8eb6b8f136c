//! What a session has been told for good, and is told again whenever it is opened anew: the
//! level of its log messages, where clients share it, and the resources that somebody has
//! subscribed to.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::Stage;
use crate::limits::{SUBSCRIPTION_URI_BYTES_MAX, UPSTREAM_SUBSCRIPTIONS_MAX};
use crate::protocol::subscriber::Subscriber;
use crate::wait::{Wait, Woken};

use super::connection::{Kind, Trouble};

/// See above.
#[derive(Default)]
pub(super) struct Standing {
    level: Mutex<Option<String>>,
    subscriptions: Mutex<BTreeMap<String, Subscription>>,
}

#[derive(Default)]
struct Subscription {
    /// Who wants to hear of the resource. Each subscriber bounds its subscriptions itself
    /// (`SUBSCRIPTIONS_PER_SESSION_MAX`), and `limits.sessions` bounds the sessions.
    subscribers: HashSet<Subscriber>,
    /// Somebody is telling the upstream about it.
    busy: bool,
    waiting: Vec<Arc<Wait>>,
}

/// The right to tell the upstream about one resource; without it, a subscription and the end of
/// another one could overtake each other. Dropping it lets the next one in.
pub(super) struct Turn<'a> {
    standing: &'a Standing,
    uri: &'a str,
}

impl Standing {
    pub(super) fn set_level(&self, level: &str) {
        let mut known = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some(level.to_owned());
    }

    pub(super) fn level(&self) -> Option<String> {
        self.level.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Subscription>> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is subscribed to.
    pub(super) fn uris(&self) -> Vec<String> {
        self.those(|it| !it.subscribers.is_empty())
    }

    /// The same and what somebody is telling the upstream about, which may be subscribed to when
    /// that turn is over: a session opened meanwhile has not been told.
    pub(super) fn uris_or_coming(&self) -> Vec<String> {
        self.those(|it| it.busy || !it.subscribers.is_empty())
    }

    fn those(&self, are: impl Fn(&Subscription) -> bool) -> Vec<String> {
        let subscriptions = self.lock();
        let those = subscriptions.iter().filter(|(_, it)| are(it));
        those.map(|(uri, _)| uri.clone()).collect()
    }

    /// Whether there is no subscription, and nobody is at one.
    pub(super) fn has_no_subscriptions(&self) -> bool {
        self.lock().is_empty()
    }

    /// Forgets a subscriber out of turn: for one that cannot wait until the upstream is told.
    pub(super) fn forget(&self, uri: &str, subscriber: Subscriber) {
        let mut subscriptions = self.lock();
        let Some(subscription) = subscriptions.get_mut(uri) else { return };
        subscription.subscribers.remove(&subscriber);
        if subscription.subscribers.is_empty() && !subscription.busy {
            subscriptions.remove(uri);
        }
    }

    /// Waits until nobody else tells the upstream about this resource.
    pub(super) fn turn<'a>(
        &'a self,
        uri: &'a str,
        wait: &Arc<Wait>,
        tick: Duration,
    ) -> Result<Turn<'a>, Trouble> {
        loop {
            {
                let mut subscriptions = self.lock();
                let full = subscriptions.len() >= UPSTREAM_SUBSCRIPTIONS_MAX
                    && !subscriptions.contains_key(uri);
                if full || uri.len() > SUBSCRIPTION_URI_BYTES_MAX {
                    let what = if full {
                        format!("{UPSTREAM_SUBSCRIPTIONS_MAX} resources are subscribed to")
                    } else {
                        format!("the URI is longer than {SUBSCRIPTION_URI_BYTES_MAX} bytes")
                    };
                    return Err(Trouble::new(Kind::Overloaded, Stage::Slot, what));
                }
                let subscription = subscriptions.entry(uri.to_owned()).or_default();
                if !subscription.busy {
                    subscription.busy = true;
                    return Ok(Turn { standing: self, uri });
                }
                if !subscription.waiting.iter().any(|other| Arc::ptr_eq(other, wait)) {
                    subscription.waiting.push(wait.clone());
                }
            }
            match wait.until(None, Some(tick)) {
                Ok(Woken::Tick | Woken::Bell | Woken::Ready) => (),
                Err(reason) => {
                    if let Some(subscription) = self.lock().get_mut(uri) {
                        subscription.waiting.retain(|other| !Arc::ptr_eq(other, wait));
                    }
                    return Err(Trouble::interrupted(reason, Stage::Slot, false));
                }
            }
        }
    }
}

impl Turn<'_> {
    /// Whether anybody wants to hear of the resource.
    pub(super) fn is_wanted(&self) -> bool {
        self.standing.lock().get(self.uri).is_some_and(|it| !it.subscribers.is_empty())
    }

    /// This one does. Once is enough.
    pub(super) fn add(&self, subscriber: Subscriber) {
        if let Some(subscription) = self.standing.lock().get_mut(self.uri) {
            subscription.subscribers.insert(subscriber);
        }
    }

    /// This one does not, however often that is said.
    pub(super) fn remove(&self, subscriber: Subscriber) {
        if let Some(subscription) = self.standing.lock().get_mut(self.uri) {
            subscription.subscribers.remove(&subscriber);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let waiting = {
            let mut subscriptions = self.standing.lock();
            let Some(subscription) = subscriptions.get_mut(self.uri) else { return };
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

    const TICK: Duration = Duration::from_secs(1);

    fn wait(timeout_ms: u64) -> Arc<Wait> {
        Wait::plain(Duration::from_millis(timeout_ms)).unwrap()
    }

    #[test]
    fn what_nobody_wants_is_forgotten() {
        let (standing, one) = (Standing::default(), Subscriber::fresh());
        drop(standing.turn("a:", &wait(5000), TICK).unwrap());
        assert!(standing.lock().is_empty());
        standing.turn("a:", &wait(5000), TICK).unwrap().add(one);
        assert_eq!(standing.uris(), ["a:"]);
        standing.turn("a:", &wait(5000), TICK).unwrap().remove(one);
        assert!(standing.lock().is_empty());
        standing.turn("a:", &wait(5000), TICK).unwrap().add(one);
        standing.forget("a:", one);
        assert!(standing.lock().is_empty());
    }

    #[test]
    fn a_new_session_hears_of_what_is_being_subscribed_to() {
        let standing = Standing::default();
        let turn = standing.turn("a:", &wait(5000), TICK).unwrap();
        assert_eq!(standing.uris_or_coming(), ["a:"]);
        assert!(standing.uris().is_empty(), "it may be refused, or be on its way out");
        turn.add(Subscriber::fresh());
        drop(turn);
        assert_eq!(standing.uris_or_coming(), ["a:"]);
        let turn = standing.turn("b:", &wait(5000), TICK).unwrap();
        drop(turn);
        assert_eq!(standing.uris_or_coming(), ["a:"]);
    }

    #[test]
    fn one_that_goes_twice_takes_nobody_along() {
        let standing = Standing::default();
        let (goes, stays) = (Subscriber::fresh(), Subscriber::fresh());
        let turn = standing.turn("a:", &wait(5000), TICK).unwrap();
        turn.add(goes);
        turn.add(stays);
        turn.remove(goes);
        turn.remove(goes);
        standing.forget("a:", goes);
        assert!(turn.is_wanted());
        standing.forget("a:", stays);
        assert!(!turn.is_wanted());
        assert_eq!(standing.lock().len(), 1, "while it is somebody's turn");
        drop(turn);
        assert!(standing.lock().is_empty());
    }

    #[test]
    fn one_at_a_time_has_the_turn() {
        let standing = Standing::default();
        let first = standing.turn("a:", &wait(5000), TICK).unwrap();
        let late = standing.turn("a:", &wait(20), TICK).map(drop).unwrap_err();
        assert_eq!(late.kind, Kind::Interrupted(Interrupted::Deadline));
        drop(standing.turn("b:", &wait(5000), TICK).unwrap());
        std::thread::scope(|scope| {
            let next =
                scope.spawn(|| standing.turn("a:", &wait(5000), TICK).unwrap().is_wanted());
            first.add(Subscriber::fresh());
            drop(first);
            assert!(next.join().unwrap());
        });
    }

    #[test]
    fn a_bound_is_named() {
        let standing = Standing::default();
        let long = "x".repeat(SUBSCRIPTION_URI_BYTES_MAX + 1);
        let refused = standing.turn(&long, &wait(5000), TICK).map(drop).unwrap_err();
        assert!(refused.message.contains("bytes"));
    }
}
