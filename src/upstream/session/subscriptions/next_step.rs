//! Pure: who wants to hear of which resource of a server, what the server has confirmed on the
//! session that is open now, and so what it is to be told next.

use std::collections::HashMap;
use std::collections::btree_map::{BTreeMap, Entry};

use crate::fair_shares::{NotTaken, Shares};
use crate::limits::UPSTREAM_SUBSCRIPTIONS_MAX;
use crate::protocol::call::PrincipalId;
use crate::protocol::method::Method;
use crate::protocol::subscriber::Subscriber;
use crate::round_robin::Turns;

/// What a server is told of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Subscribe,
    Unsubscribe,
}

impl Step {
    pub(crate) fn method(self) -> Method {
        match self {
            Step::Subscribe => Method::ResourcesSubscribe,
            Step::Unsubscribe => Method::ResourcesUnsubscribe,
        }
    }
}

/// The subscriptions over one session with a server: the desired set, and what is confirmed of it.
/// One at a time tells the server about a resource ([`Subscriptions::enter`]); without that, a
/// subscription and the end of another one could overtake each other.
pub(crate) struct Subscriptions {
    by_uri: BTreeMap<String, Subscription>,
    /// Whose share of [`UPSTREAM_SUBSCRIPTIONS_MAX`] the resources take.
    shares: Shares<PrincipalId>,
    /// The resources of which the server is to be told something, in turns of those whose share
    /// they take: one who wants or leaves very many does not hold up the others.
    due: Turns<PrincipalId, String>,
    /// The session that is open now, or was open last.
    session: SessionNumber,
}

/// The number of one session, which grows with each: that of the upstream among those that share
/// the set, and the session's generation there.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionNumber {
    pub(crate) upstream: u64,
    pub(crate) generation: u64,
}

#[derive(Default)]
struct Subscription {
    /// Who wants to hear of the resource, each with whoever is charged for it. Each subscriber
    /// bounds its subscriptions itself (`SUBSCRIPTIONS_PER_SESSION_MAX`), and `limits.sessions`
    /// bounds the sessions.
    subscribers: HashMap<Subscriber, Option<PrincipalId>>,
    /// Whose share the resource takes: that of one of them, once there is one.
    charged: Option<PrincipalId>,
    /// The session on which the server has agreed to the subscription last. A later one does not
    /// know of it.
    confirmed: Option<SessionNumber>,
    /// Somebody is telling the server about it.
    is_busy: bool,
    queued: Queued,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Queued {
    #[default]
    No,
    /// It is in [`Subscriptions::due`].
    Due,
    /// The server did not take what it was told: it is told again later.
    PutOff,
}

impl Default for Subscriptions {
    fn default() -> Self {
        Subscriptions {
            by_uri: BTreeMap::new(),
            shares: Shares::long_held(UPSTREAM_SUBSCRIPTIONS_MAX),
            due: Turns::default(),
            session: SessionNumber::default(),
        }
    }
}

impl Subscription {
    fn is_wanted(&self) -> bool {
        !self.subscribers.is_empty()
    }

    /// What the server of that session, or of a later one, is to be told.
    fn step(&self, session: SessionNumber) -> Option<Step> {
        let is_confirmed = self.confirmed.is_some_and(|confirmed| confirmed >= session);
        match (self.is_wanted(), is_confirmed) {
            (true, false) => Some(Step::Subscribe),
            (false, true) => Some(Step::Unsubscribe),
            (true, true) | (false, false) => None,
        }
    }

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

impl Subscriptions {
    /// A session was opened anew: its server knows of what it was told meanwhile, and of nothing
    /// else.
    pub(crate) fn opened(&mut self, session: SessionNumber) {
        self.session = session;
        self.due = Turns::default();
        for it in self.by_uri.values_mut() {
            if it.queued == Queued::Due {
                it.queued = Queued::No;
            }
        }
        self.settle_all();
    }

    /// Lets the caller alone tell the server about a resource, until it leaves. False where
    /// somebody else does it. `charged`: whose share the resource takes where it is not known yet.
    ///
    /// # Errors
    /// There is no share left.
    pub(crate) fn enter(
        &mut self,
        uri: &str,
        charged: Option<&PrincipalId>,
    ) -> Result<bool, NotTaken> {
        let it = match self.by_uri.entry(uri.to_owned()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                self.shares.take_of(charged, 1)?;
                let charged = charged.cloned();
                entry.insert(Subscription { charged, ..Subscription::default() })
            }
        };
        Ok(!std::mem::replace(&mut it.is_busy, true))
    }

    /// The share of somebody of all that can be subscribed to.
    pub(crate) fn share_of(&self, charged: Option<&PrincipalId>) -> usize {
        self.shares.share_of(charged)
    }

    /// Enters the next resource of which the server is to be told something; gives what.
    pub(crate) fn enter_next(&mut self) -> Option<(String, Step)> {
        loop {
            let (_, uri) = self.due.pop()?;
            let Some(it) = self.by_uri.get_mut(&uri) else { continue };
            it.queued = Queued::No;
            match it.step(self.session) {
                Some(step) if !it.is_busy => {
                    it.is_busy = true;
                    return Some((uri, step));
                }
                // Whoever is at it puts it back into the queue, if anything is left to do.
                Some(_) | None => self.settle(&uri),
            }
        }
    }

    /// The server has taken what it was told on that session, of whose opening the set may not have
    /// heard yet.
    pub(crate) fn told(&mut self, uri: &str, step: Step, session: SessionNumber) {
        if let Some(it) = self.by_uri.get_mut(uri) {
            it.confirmed = (step == Step::Subscribe).then_some(session);
        }
    }

    /// The server has not taken what it was told: the resource is due at [`Subscriptions::resume`].
    pub(crate) fn put_off(&mut self, uri: &str) {
        if let Some(it) = self.by_uri.get_mut(uri) {
            it.queued = Queued::PutOff;
        }
    }

    /// What was put off is due.
    pub(crate) fn resume(&mut self) {
        for it in self.by_uri.values_mut().filter(|it| it.queued == Queued::PutOff) {
            it.queued = Queued::No;
        }
        self.settle_all();
    }

    /// Whoever has entered a resource has told the server, or given that up.
    pub(crate) fn leave(&mut self, uri: &str) {
        if let Some(it) = self.by_uri.get_mut(uri) {
            it.is_busy = false;
        }
        self.settle(uri);
    }

    /// This one wants to hear of the resource. Once is enough.
    pub(crate) fn want(&mut self, uri: &str, who: Subscriber, charged: Option<PrincipalId>) {
        if let Some(it) = self.by_uri.get_mut(uri) {
            it.subscribers.insert(who, charged);
            it.charge_one_of_them(&mut self.shares);
        }
    }

    /// This one does not, however often that is said.
    pub(crate) fn unwant(&mut self, uri: &str, who: Subscriber) {
        if let Some(it) = self.by_uri.get_mut(uri) {
            it.subscribers.remove(&who);
            it.charge_one_of_them(&mut self.shares);
        }
        self.settle(uri);
    }

    /// True if anybody wants to hear of the resource.
    pub(crate) fn is_wanted(&self, uri: &str) -> bool {
        self.by_uri.get(uri).is_some_and(Subscription::is_wanted)
    }

    /// The resources that somebody wants to hear of.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = &String> {
        self.by_uri.iter().filter(|(_, it)| it.is_wanted()).map(|(uri, _)| uri)
    }

    /// True if nobody wants to hear of anything, and nobody is telling the server.
    pub(crate) fn is_idle(&self) -> bool {
        !self.by_uri.values().any(|it| it.is_busy || it.is_wanted())
    }

    /// True if the server is to be told something now.
    pub(crate) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// True if the server is to be told something, now or later.
    pub(crate) fn has_steps(&self) -> bool {
        self.has_due() || self.by_uri.values().any(|it| it.queued != Queued::No)
    }

    fn settle_all(&mut self) {
        let uris: Vec<String> = self.by_uri.keys().cloned().collect();
        uris.iter().for_each(|uri| self.settle(uri));
    }

    /// Puts a resource that is to be told of into the queue, and forgets one that nobody wants and
    /// the server does not know of. One that is in the queue leaves it at its turn.
    fn settle(&mut self, uri: &str) {
        let Some(it) = self.by_uri.get_mut(uri) else { return };
        if it.is_busy || it.queued == Queued::Due {
            return;
        }
        if it.step(self.session).is_some() {
            if it.queued == Queued::No {
                it.queued = Queued::Due;
                self.due.push(it.charged.as_ref(), uri.to_owned());
            }
            return;
        }
        it.queued = Queued::No;
        if !it.is_wanted()
            && let Some(gone) = self.by_uri.remove(uri)
        {
            self.shares.give_back_of(gone.charged.as_ref(), 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(generation: u64) -> SessionNumber {
        SessionNumber { upstream: 0, generation }
    }

    /// A later session than all before.
    fn open_another(set: &mut Subscriptions) {
        set.opened(session(set.session.generation + 1));
    }

    fn key(name: &str) -> Option<PrincipalId> {
        Some(PrincipalId::Key(name.into()))
    }

    /// One more who wants a resource, which the server confirms.
    fn subscribed(set: &mut Subscriptions, uri: &str, who: Subscriber) {
        assert!(set.enter(uri, None).unwrap());
        set.told(uri, Step::Subscribe, set.session);
        set.want(uri, who, None);
        set.leave(uri);
    }

    /// What the server is told now, and takes.
    fn steps(set: &mut Subscriptions) -> Vec<(String, Step)> {
        let next = || {
            let (uri, step) = set.enter_next()?;
            set.told(&uri, step, set.session);
            set.leave(&uri);
            Some((uri, step))
        };
        std::iter::from_fn(next).collect()
    }

    fn step(uri: &str, step: Step) -> (String, Step) {
        (uri.to_owned(), step)
    }

    #[test]
    fn the_last_who_goes_is_the_one_of_whom_the_server_is_told() {
        let mut set = Subscriptions::default();
        let (goes, stays) = (Subscriber::fresh(), Subscriber::fresh());
        for who in [goes, stays] {
            subscribed(&mut set, "a:", who);
        }
        assert_eq!(steps(&mut set), [], "the server has confirmed it");
        for _ in 0..2 {
            set.unwant("a:", goes);
        }
        assert!(steps(&mut set).is_empty() && set.is_wanted("a:"));
        set.unwant("a:", stays);
        assert!(set.is_idle() && set.has_due());
        assert_eq!(steps(&mut set), [step("a:", Step::Unsubscribe)]);
        assert!(set.by_uri.is_empty() && set.shares.taken() == 0);
    }

    #[test]
    fn what_nobody_wants_and_the_server_does_not_know_of_is_forgotten() {
        let (mut set, who) = (Subscriptions::default(), Subscriber::fresh());
        assert!(set.enter("a:", None).unwrap());
        assert!(!set.is_idle(), "somebody is at it");
        set.leave("a:");
        assert!(set.by_uri.is_empty() && !set.has_steps());
        subscribed(&mut set, "a:", who);
        open_another(&mut set);
        set.unwant("a:", who);
        assert_eq!(steps(&mut set), []);
        assert!(set.by_uri.is_empty());
        // Told of by somebody while the server is asked again: that is the last word.
        subscribed(&mut set, "a:", who);
        assert!(set.enter("a:", None).unwrap());
        set.unwant("a:", who);
        set.told("a:", Step::Unsubscribe, set.session);
        set.leave("a:");
        assert!(set.by_uri.is_empty());
    }

    #[test]
    fn a_new_session_is_told_of_all_that_is_wanted_and_of_nothing_else() {
        let (mut set, who) = (Subscriptions::default(), Subscriber::fresh());
        for uri in ["a:", "b:", "c:"] {
            subscribed(&mut set, uri, who);
        }
        set.unwant("b:", who);
        open_another(&mut set);
        assert_eq!(steps(&mut set), [step("a:", Step::Subscribe), step("c:", Step::Subscribe)]);
        // What an older session was told says nothing of this one.
        let older = set.session;
        assert!(set.enter("d:", None).unwrap());
        open_another(&mut set);
        assert_eq!(steps(&mut set).len(), 2);
        set.told("d:", Step::Subscribe, older);
        set.want("d:", who, None);
        set.leave("d:");
        assert_eq!(steps(&mut set), [step("d:", Step::Subscribe)]);
    }

    #[test]
    fn a_session_is_told_once_although_the_set_hears_late_that_it_is_open() {
        let (mut set, who) = (Subscriptions::default(), Subscriber::fresh());
        // The caller's own request opens the session.
        assert!(set.enter("a:", None).unwrap());
        set.told("a:", Step::Subscribe, session(1));
        set.want("a:", who, None);
        set.leave("a:");
        assert!(!set.has_due());
        set.opened(session(1));
        assert_eq!(steps(&mut set), []);
        set.opened(session(2));
        assert_eq!(steps(&mut set), [step("a:", Step::Subscribe)]);
        // Another upstream that shares the set counts its sessions anew.
        set.opened(SessionNumber { upstream: 1, generation: 1 });
        assert_eq!(steps(&mut set), [step("a:", Step::Subscribe)]);
    }

    #[test]
    fn one_at_a_time_tells_the_server_of_a_resource() {
        let (mut set, who) = (Subscriptions::default(), Subscriber::fresh());
        subscribed(&mut set, "a:", who);
        assert!(set.enter("a:", None).unwrap() && !set.enter("a:", None).unwrap());
        assert!(set.enter("b:", None).unwrap());
        set.leave("b:");
        open_another(&mut set);
        assert_eq!(set.enter_next(), None, "somebody is at it");
        set.leave("a:");
        assert_eq!(steps(&mut set), [step("a:", Step::Subscribe)]);
    }

    #[test]
    fn what_was_put_off_is_due_later_and_not_on_another_session_at_once() {
        let (mut set, who) = (Subscriptions::default(), Subscriber::fresh());
        for uri in ["a:", "b:"] {
            subscribed(&mut set, uri, who);
        }
        open_another(&mut set);
        let (uri, _) = set.enter_next().unwrap();
        set.put_off(&uri);
        set.leave(&uri);
        assert_eq!(steps(&mut set), [step("b:", Step::Subscribe)]);
        open_another(&mut set);
        assert_eq!(steps(&mut set), [step("b:", Step::Subscribe)]);
        assert!(!set.has_due() && set.has_steps());
        set.resume();
        assert_eq!(steps(&mut set), [step("a:", Step::Subscribe)]);
        assert!(!set.has_steps());
        // One that nobody wants meanwhile is not waited for.
        open_another(&mut set);
        let (uri, _) = set.enter_next().unwrap();
        set.put_off(&uri);
        set.leave(&uri);
        set.unwant(&uri, who);
        assert_eq!(set.by_uri.len(), 1);
    }

    #[test]
    fn one_who_leaves_very_many_holds_up_nobody_else_s() {
        let (mut set, who) = (Subscriptions::default(), Subscriber::fresh());
        for n in 0..1000 {
            for name in ["hog", "victim"].into_iter().take(if n < 10 { 2 } else { 1 }) {
                let uri = format!("{name}:{n}");
                assert!(set.enter(&uri, key(name).as_ref()).unwrap());
                set.told(&uri, Step::Subscribe, set.session);
                set.want(&uri, who, key(name));
                set.leave(&uri);
            }
        }
        (0..1000).for_each(|n| set.unwant(&format!("hog:{n}"), who));
        (0..10).for_each(|n| set.unwant(&format!("victim:{n}"), who));
        let told = steps(&mut set);
        let last = told.iter().rposition(|(uri, _)| uri.starts_with("victim")).unwrap();
        assert!(told.len() == 1010 && last < 20, "{last}");
    }

    #[test]
    fn one_that_subscribes_to_everything_leaves_the_others_their_share() {
        let (mut set, one) = (Subscriptions::default(), Subscriber::fresh());
        let mut subscribe = |name: &str, n: usize| {
            let uri = format!("{name}:{n}");
            let entered = set.enter(&uri, key(name).as_ref());
            if let Ok(true) = entered {
                set.told(&uri, Step::Subscribe, set.session);
                set.want(&uri, one, key(name));
                set.leave(&uri);
            }
            entered.is_ok()
        };
        let n_hog = (0..).take_while(|n| subscribe("hog", *n)).count();
        let n_victim = (0..).take_while(|n| subscribe("victim", *n)).count();
        let share = UPSTREAM_SUBSCRIPTIONS_MAX / crate::limits::SHARES_MIN;
        assert_eq!(n_hog, UPSTREAM_SUBSCRIPTIONS_MAX - share);
        // A part of its own share it leaves to whoever comes then.
        assert!((share * 3 / 4..share).contains(&n_victim), "{n_victim}");
        (0..n_victim).for_each(|n| set.unwant(&format!("victim:{n}"), one));
        assert_eq!(steps(&mut set).len(), n_victim);
        assert!(set.enter(&format!("hog:{n_hog}"), key("hog").as_ref()).is_err());
        assert!(set.enter("victim:0", key("victim").as_ref()).is_ok());
    }

    #[test]
    fn a_resource_takes_the_share_of_one_who_wants_to_hear_of_it() {
        let (mut set, a, b) = (Subscriptions::default(), key("a"), key("b"));
        let (first, second) = (Subscriber::fresh(), Subscriber::fresh());
        let held =
            |set: &Subscriptions| [&a, &b].map(|who| set.shares.held(who.as_ref().unwrap()));
        set.enter("x:", a.as_ref()).unwrap();
        set.want("x:", first, a.clone());
        set.want("x:", second, b.clone());
        assert_eq!(held(&set), [1, 0]);
        set.unwant("x:", first);
        assert_eq!(held(&set), [0, 1]);
        set.unwant("x:", second);
        set.leave("x:");
        assert_eq!((held(&set), set.shares.taken()), ([0, 0], 0));
    }
}
