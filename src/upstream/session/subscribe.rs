//! Subscriptions, over a client's own session or over the shared one: that one subscribes to a
//! resource with the first who wants to hear of it, and takes that back with the last.

use std::sync::Arc;

use crate::error::CallError;
use crate::limits::CONTROL_TIMEOUT;
use crate::protocol::call::{CallSink, Notice, Outcome, Outgoing, PrincipalId, Question};
use crate::protocol::method::Method;
use crate::protocol::raw::{Raw, RawObject, string};
use crate::protocol::session_route::SessionRoute;
use crate::protocol::subscriber::Subscriber;
use crate::wait::Wait;

use super::desired_subscriptions::{DesiredSubscriptions, UriLock};
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
    /// it, or ends, meanwhile. On a client's own session it ends with the client's.
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
        let outcome = if turn.is_wanted() {
            Ok(nothing())
        } else {
            session.about(Method::ResourcesSubscribe, uri, wait)
        };
        if !matches!(outcome, Ok(Outcome::Complete(_))) {
            who.forget();
            return outcome;
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

    /// Forgets a subscription over the shared session without a word to the upstream. If it was
    /// the last, what the upstream goes on to tell reaches nobody.
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
        SubscriberSession { upstream: self, route, charged, desired }
    }
}

/// The session over which somebody subscribes.
struct SubscriberSession<'a> {
    upstream: &'a Upstream,
    route: SessionRoute<'a>,
    charged: Option<PrincipalId>,
    desired: Arc<DesiredSubscriptions>,
}

impl Drop for SubscriberSession<'_> {
    fn drop(&mut self) {
        if let Some(client) = self.route.client() {
            self.upstream.pool.tidy(&client.session);
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
        self.about(Method::ResourcesUnsubscribe, uri, wait)
    }

    fn turn<'a>(&'a self, uri: &'a str, wait: &Arc<Wait>) -> Result<UriLock<'a>, CallError> {
        // What is subscribed to over a session of its own is shared with nobody.
        let charged = self.charged.as_ref().filter(|_| self.route.is_shared());
        let turn = self.desired.turn(uri, charged, wait);
        turn.map_err(|failure| failure.into_error(self.upstream.name(), true))
    }

    fn about(&self, method: Method, uri: &str, wait: &Arc<Wait>) -> Result<Outcome, CallError> {
        let outgoing = Outgoing { charged: self.charged.clone(), ..about(method, uri) };
        self.upstream.request(self.route, &outgoing, wait, &Aside(self))
    }
}

/// A request about one resource.
pub(crate) fn about(method: Method, uri: &str) -> Outgoing<'static> {
    let mut params = RawObject::default();
    params.set("uri", string(uri));
    Outgoing::own(method, params)
}

/// The result of what needs none.
fn nothing() -> Outcome {
    Outcome::Complete(Raw::from_valid("{}".to_owned()))
}
