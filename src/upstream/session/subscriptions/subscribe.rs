//! Subscriptions, over a client's own session or over the shared one: that one subscribes to a
//! resource with the first who wants to hear of it, and takes that back with the last.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use crate::config::UpstreamConfig;
use crate::error::CallError;
use crate::limits::CONTROL_TIMEOUT;
use crate::protocol::call::{CallSink, Notice, Outcome, Outgoing, PrincipalId};
use crate::protocol::question::Question;
use crate::protocol::raw::{Raw, RawObject, string};
use crate::protocol::session_route::SessionRoute;
use crate::protocol::subscriber::Subscriber;
use crate::wait::Wait;

use super::next_step::Step;
use super::{DesiredSubscriptions, UriLock};
use crate::upstream::{Upstream, Wire};

/// A subscriber's own side of one subscription: what it remembers of it. Changed in the
/// resource's turn, so that both sides agree whatever is asked for at once. Nothing here may
/// wait.
pub trait Subscribing {
    /// Whose it is.
    fn subscriber(&self) -> Subscriber;

    /// Whose share of what is bounded it takes; none where nobody else can come.
    fn charged(&self) -> Option<PrincipalId>;

    /// Remembers the subscription; once is enough.
    ///
    /// # Errors
    /// The subscriber has ended, or has too many.
    fn note(&self) -> Result<(), CallError>;

    /// Whether it is remembered. Not, once the subscriber has ended.
    fn is_noted(&self) -> bool;

    /// Forgets it. False if there is nothing to take back.
    fn forget(&self) -> bool;
}

impl Upstream {
    /// Subscribes a session to a resource, if nobody on it has: the client's own one, or the
    /// shared one. Not noted if the upstream refuses, and taken back if the subscriber forgets
    /// it, or ends, meanwhile. On a client's own session it ends with the client's. The caller
    /// tells the server itself, as a call: it takes its place among those, and no other caller
    /// waits for the supervisor behind it.
    ///
    /// # Errors
    /// As [`Upstream::request`] and [`Subscribing::note`].
    pub fn subscribe(
        &self,
        uri: &str,
        who: &dyn Subscribing,
        route: SessionRoute<'_>,
        wait: &Arc<Wait>,
    ) -> Result<Outcome, CallError> {
        let session = self.subscriber_session(route, who.charged());
        let turn = session.turn(uri, wait)?;
        who.note()?;
        let mut outcome = Ok(nothing());
        if !turn.is_wanted() {
            outcome = session.tell(Step::Subscribe, uri, wait);
            if !matches!(outcome, Ok(Outcome::Complete(_))) {
                who.forget();
                return outcome;
            }
            turn.told(Step::Subscribe, session.told_over.get());
        }
        turn.add(who.subscriber(), session.charged.clone());
        // Looked at last: whoever forgets out of turn from here on finds the subscriber above.
        if !who.is_noted()
            && let Ok(wait) = Wait::plain(CONTROL_TIMEOUT)
            && let Err(error) = session.leave(&turn, uri, who.subscriber(), &wait)
        {
            log::debug!(target: "upstream", "a subscription could not be taken back: {error}");
        }
        outcome
    }

    /// Takes a subscription back; the last one ends the upstream's. It is forgotten here
    /// whatever the upstream says.
    ///
    /// # Errors
    /// As [`Upstream::request`].
    pub fn unsubscribe(
        &self,
        uri: &str,
        who: &dyn Subscribing,
        route: SessionRoute<'_>,
        wait: &Arc<Wait>,
    ) -> Result<Outcome, CallError> {
        let session = self.subscriber_session(route, who.charged());
        let turn = match session.turn(uri, wait) {
            Ok(turn) => turn,
            Err(error) => {
                if who.forget() {
                    session.desired.forget(uri, who.subscriber());
                }
                return Err(error);
            }
        };
        if who.forget() {
            session.leave(&turn, uri, who.subscriber(), wait)
        } else {
            Ok(nothing())
        }
    }

    /// Forgets a subscription over the shared session without waiting. If it was the last, the
    /// supervisor unsubscribes some time soon.
    pub fn forget_subscription(&self, uri: &str, subscriber: Subscriber) {
        self.desired.forget(uri, subscriber);
    }

    fn subscriber_session<'a>(
        &'a self,
        route: SessionRoute<'a>,
        charged: Option<PrincipalId>,
    ) -> SubscriberSession<'a> {
        let client = route.client();
        let desired = client
            .map_or_else(|| self.desired.clone(), |client| self.pool.desired(&client.session));
        let told_over = Cell::new(0);
        SubscriberSession { upstream: self, route, charged, desired, told_over }
    }
}

/// The session over which somebody subscribes.
struct SubscriberSession<'a> {
    upstream: &'a Upstream,
    route: SessionRoute<'a>,
    charged: Option<PrincipalId>,
    desired: Arc<DesiredSubscriptions>,
    /// The generation of the session over which the server was told last.
    told_over: Cell<u64>,
}

impl Drop for SubscriberSession<'_> {
    fn drop(&mut self) {
        if let Some(client) = self.route.client() {
            self.upstream.pool.forget_unused(&client.session);
        }
    }
}

/// The gateway as a caller on that session: what is said besides the answer is for no call.
struct Aside<'a>(&'a SubscriberSession<'a>);

impl CallSink for Aside<'_> {
    fn notice(&self, notice: Notice) {
        let SubscriberSession { upstream, route, .. } = self.0;
        if !matches!(notice, Notice::Progress(_)) {
            upstream.context.notice_on(route.client(), notice, Wire::Apart);
        }
    }

    fn ask(&self, question: Question) {
        if let Some(client) = self.0.route.client() {
            self.0.upstream.context.ask_on(client, question);
        }
    }

    fn has_client(&self) -> bool {
        false
    }

    fn sent_over(&self, session: u64) {
        self.0.told_over.set(session);
    }
}

impl SubscriberSession<'_> {
    /// Tells the upstream where nobody is left, also of one that was not counted: its
    /// subscription may have been cancelled after it was sent.
    fn leave(
        &self,
        turn: &UriLock<'_>,
        uri: &str,
        subscriber: Subscriber,
        wait: &Arc<Wait>,
    ) -> Result<Outcome, CallError> {
        turn.remove(subscriber);
        if turn.is_wanted() {
            return Ok(nothing());
        }
        let outcome = self.tell(Step::Unsubscribe, uri, wait);
        turn.told(Step::Unsubscribe, self.told_over.get());
        outcome
    }

    fn turn(&self, uri: &str, wait: &Arc<Wait>) -> Result<UriLock<'_>, CallError> {
        // What is subscribed to over a session of its own is shared with nobody.
        let charged = self.charged.as_ref().filter(|_| self.route.is_shared());
        let turn = self.desired.turn(uri, charged, wait);
        turn.map_err(|failure| failure.into_error(self.upstream.name(), true))
    }

    fn tell(&self, step: Step, uri: &str, wait: &Arc<Wait>) -> Result<Outcome, CallError> {
        let outgoing = Outgoing { charged: self.charged.clone(), ..about(step, uri) };
        self.upstream.request(self.route, &outgoing, wait, &Aside(self))
    }
}

impl Step {
    /// How long a supervisor waits for the answer. Nobody waits for the end of a subscription.
    pub(crate) fn patience(self, config: &UpstreamConfig) -> Duration {
        match self {
            Step::Subscribe => config.timeout,
            Step::Unsubscribe => config.timeout.min(CONTROL_TIMEOUT),
        }
    }
}

/// The request of one step.
pub(crate) fn about(step: Step, uri: &str) -> Outgoing<'static> {
    let mut params = RawObject::default();
    params.set("uri", string(uri));
    Outgoing::own(step.method(), params)
}

/// The result of what needs none.
fn nothing() -> Outcome {
    Outcome::Complete(Raw::from_valid("{}".to_owned()))
}
