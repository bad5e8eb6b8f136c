//! Subscriptions of the shared session: it subscribes with the first who wants to hear of a
//! resource, and ends that with the last.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use trunkline::error::CallError;
use trunkline::protocol::call::{Outcome, PrincipalId};
use trunkline::protocol::session_route::SessionRoute;
use trunkline::protocol::subscriber::Subscriber;
use trunkline::upstream::Subscribing;

use crate::upstream::rig::*;
use crate::upstream::supervisor::lists_and_level::{Full, full};

/// One who subscribes to one resource.
pub(crate) struct One {
    subscriber: Subscriber,
    is_noted: Arc<AtomicBool>,
}

pub(crate) fn one() -> One {
    One { subscriber: Subscriber::fresh(), is_noted: Arc::default() }
}

impl Subscribing for One {
    fn subscriber(&self) -> Subscriber {
        self.subscriber
    }

    fn charged(&self) -> Option<PrincipalId> {
        None
    }

    fn note(&self) -> Result<(), CallError> {
        self.is_noted.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn is_noted(&self) -> bool {
        self.is_noted.load(Ordering::SeqCst)
    }

    fn forget(&self) -> bool {
        self.is_noted.swap(false, Ordering::SeqCst)
    }
}

impl Rig {
    #[track_caller]
    fn subscribe(&self, uri: &str, who: &One) {
        assert_eq!(
            text(self.upstream.subscribe(uri, who, SessionRoute::Shared, &wait(5000))),
            "{}"
        );
    }

    #[track_caller]
    fn unsubscribe(&self, uri: &str, who: &One) {
        assert_eq!(
            text(self.upstream.unsubscribe(uri, who, SessionRoute::Shared, &wait(5000))),
            "{}"
        );
    }
}

/// What the server was asked to subscribe to, and to unsubscribe from.
fn asked_for(full: &Full) -> (Vec<String>, Vec<String>) {
    (full.told("resources/subscribe", "uri"), full.told("resources/unsubscribe", "uri"))
}

#[test]
fn the_first_subscribes_the_last_unsubscribes_and_a_new_session_is_told_again() {
    let full = full(|_| None);
    let rig = full.rig();
    rig.lists();
    let (anna, bert, of_c) = (one(), one(), one());
    rig.subscribe("a:b", &anna);
    rig.subscribe("a:b", &bert);
    rig.subscribe("c:d", &of_c);
    rig.unsubscribe("a:b", &anna);
    rig.unsubscribe("c:d", &of_c);
    rig.unsubscribe("c:d", &of_c);
    let list = |uris: &[&str]| uris.iter().map(|uri| (*uri).to_owned()).collect::<Vec<_>>();
    assert_eq!(asked_for(&full), (list(&["a:b", "c:d"]), list(&["c:d"])));
    full.forget(&rig);
    eventually("it is renewed", || asked_for(&full).0 == ["a:b", "c:d", "a:b"]);
    rig.unsubscribe("a:b", &bert);
    assert_eq!(asked_for(&full).1, ["c:d", "a:b"]);
}

#[test]
fn a_refused_subscription_is_not_counted() {
    let full = full(|_| None);
    let rig = full.rig();
    rig.lists();
    let (anna, bert) = (one(), one());
    full.refuse.store(true, Ordering::SeqCst);
    let outcome =
        rig.upstream.subscribe("a:b", &anna, SessionRoute::Shared, &wait(5000)).unwrap();
    assert!(matches!(outcome, Outcome::Error { .. }), "{outcome:?}");
    assert!(!anna.is_noted());
    full.refuse.store(false, Ordering::SeqCst);
    rig.subscribe("a:b", &bert);
    assert_eq!(full.server.count("resources/subscribe"), 2);
}

#[test]
fn what_is_taken_back_is_forgotten_even_if_the_server_refuses() {
    let full = full(|_| None);
    let rig = full.rig();
    rig.lists();
    let (anna, bert) = (one(), one());
    rig.subscribe("a:b", &anna);
    full.refuse.store(true, Ordering::SeqCst);
    let outcome =
        rig.upstream.unsubscribe("a:b", &anna, SessionRoute::Shared, &wait(5000)).unwrap();
    assert!(matches!(outcome, Outcome::Error { .. }), "{outcome:?}");
    assert!(!anna.is_noted());
    full.refuse.store(false, Ordering::SeqCst);
    rig.subscribe("a:b", &bert);
    assert_eq!(full.server.count("resources/subscribe"), 2);
    // Anna tries again, and what ends her session does it once more.
    rig.unsubscribe("a:b", &anna);
    anna.is_noted.store(true, Ordering::SeqCst);
    rig.unsubscribe("a:b", &anna);
    rig.upstream.forget_subscription("a:b", anna.subscriber);
    assert_eq!(full.server.count("resources/unsubscribe"), 1, "Bert still hears of it");
    rig.unsubscribe("a:b", &bert);
    assert_eq!(full.server.count("resources/unsubscribe"), 2);
}

#[test]
fn one_that_ends_while_the_server_is_told_leaves_nothing_behind() {
    let anna = one();
    let is_noted = anna.is_noted.clone();
    let full = full(move |seen| {
        if seen.rpc() == "resources/subscribe" {
            is_noted.store(false, Ordering::SeqCst);
        }
        None
    });
    let rig = full.rig();
    rig.lists();
    rig.subscribe("a:b", &anna);
    assert_eq!(full.told("resources/unsubscribe", "uri"), ["a:b"]);
    rig.subscribe("a:b", &one());
    assert_eq!(full.server.count("resources/subscribe"), 2, "nobody was counted");
}

#[test]
fn many_who_subscribe_at_once_subscribe_once() {
    let full = full(|_| None);
    let rig = full.rig();
    rig.lists();
    let many: Vec<One> = (0..8).map(|_| one()).collect();
    std::thread::scope(|scope| {
        for who in &many {
            scope.spawn(|| rig.subscribe("a:b", who));
        }
    });
    assert_eq!(full.server.count("resources/subscribe"), 1);
    std::thread::scope(|scope| {
        for who in &many {
            scope.spawn(|| rig.unsubscribe("a:b", who));
            scope.spawn(|| rig.unsubscribe("a:b", who));
        }
    });
    assert_eq!(full.server.count("resources/unsubscribe"), 1);
}
