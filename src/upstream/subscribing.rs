//! Subscriptions over the shared session: it subscribes to a resource with the first who wants
//! to hear of it, and takes that back with the last.

use std::sync::Arc;

use crate::error::CallError;
use crate::limits::CONTROL_TIMEOUT;
use crate::protocol::call::{Outcome, Outgoing};
use crate::protocol::method::Method;
use crate::protocol::raw::{Raw, RawObject, string};
use crate::protocol::subscriber::Subscriber;
use crate::wait::Wait;

use super::Upstream;
use super::link::Own;
use super::standing::Turn;

/// A subscriber's own side of one subscription: what it remembers of it. Changed in the
/// resource's turn, so that both sides agree whatever is asked for at once. Nothing here may
/// wait.
pub trait Subscribing {
    /// Whose it is.
    fn subscriber(&self) -> Subscriber;

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
    /// Subscribes the shared session to a resource, if nobody has. Not noted if the upstream
    /// refuses, and taken back if the subscriber forgets it, or ends, meanwhile.
    ///
    /// # Errors
    /// As [`Upstream::request`] and [`Subscribing::note`].
    pub fn subscribe(
        &self,
        uri: &str,
        who: &dyn Subscribing,
        wait: &Arc<Wait>,
    ) -> Result<Outcome, CallError> {
        let turn = self.turn(uri, wait)?;
        who.note()?;
        let outcome = if turn.is_wanted() {
            Ok(nothing())
        } else {
            self.about(Method::ResourcesSubscribe, uri, wait)
        };
        if !matches!(outcome, Ok(Outcome::Complete(_))) {
            who.forget();
            return outcome;
        }
        turn.add(who.subscriber());
        // Looked at last: whoever forgets out of turn from here on finds the subscriber above.
        if !who.is_noted()
            && let Ok(wait) = Wait::plain(CONTROL_TIMEOUT)
            && let Err(error) = self.leave(&turn, uri, who.subscriber(), &wait)
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
        wait: &Arc<Wait>,
    ) -> Result<Outcome, CallError> {
        let turn = match self.turn(uri, wait) {
            Ok(turn) => turn,
            Err(error) => {
                if who.forget() {
                    self.forget_subscription(uri, who.subscriber());
                }
                return Err(error);
            }
        };
        if who.forget() {
            self.leave(&turn, uri, who.subscriber(), wait)
        } else {
            Ok(nothing())
        }
    }

    /// Forgets a subscription without a word to the upstream. If it was the last, what the
    /// upstream goes on to tell reaches nobody.
    pub fn forget_subscription(&self, uri: &str, subscriber: Subscriber) {
        self.standing.forget(uri, subscriber);
    }

    /// Tells the upstream where nobody is left, also of one that was not counted: its
    /// subscription may have been cancelled after it was sent.
    fn leave(
        &self,
        turn: &Turn<'_>,
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

    fn turn<'a>(&'a self, uri: &'a str, wait: &Arc<Wait>) -> Result<Turn<'a>, CallError> {
        let turn = self.standing.turn(uri, wait, self.core.limits.heartbeat);
        turn.map_err(|trouble| trouble.into_error(self.name(), true))
    }

    fn about(&self, method: Method, uri: &str, wait: &Arc<Wait>) -> Result<Outcome, CallError> {
        let mut params = RawObject::default();
        params.set("uri", string(uri));
        let outgoing = Outgoing {
            method: method.as_str(),
            is_safe_to_repeat: true,
            params,
            meta: None,
            wants_progress: false,
        };
        self.request(None, &outgoing, wait, &mut Own(&self.core))
    }
}

/// The result of what needs none.
fn nothing() -> Outcome {
    Outcome::Complete(Raw::from_valid("{}".to_owned()))
}
