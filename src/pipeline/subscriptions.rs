//! Subscriptions to resources: the server of a resource, and the sessions that are subscribed.

use std::sync::Arc;

use super::{CallOptions, Pipeline};
use crate::access::policy::Scope;
use crate::error::CallError;
use crate::limits::CONTROL_TIMEOUT;
use crate::protocol::call::{Call, Outcome, PrincipalId};
use crate::protocol::method::Method;
use crate::protocol::server_name::ServerName;
use crate::protocol::session_route::SessionRoute;
use crate::protocol::subscriber::Subscriber;
use crate::upstream::Subscribing;
use crate::wait::Wait;

impl Pipeline {
    /// The server of a resource, and the server's own URI for it; waits where a list may bring it
    /// soon. Costs a call.
    ///
    /// # Errors
    /// The key has no call left, the URI is missing, or the scope sees no such resource.
    pub fn owner_of_uri(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        call: &Call<'_>,
        wait: &Arc<Wait>,
    ) -> Result<(ServerName, String), CallError> {
        self.pay(scope, options, call)?;
        let route = self.find(scope, options, call, wait)?;
        let own = serde_json::from_str(&route.value).unwrap_or_default();
        Ok((route.server, own))
    }

    /// Subscribes a session to a resource, or unsubscribes it: over the client's own session with
    /// the server, or over the shared one.
    ///
    /// # Errors
    /// Any failure that kept the server from answering, or the subscriber from subscribing.
    pub fn subscription(
        &self,
        server: &ServerName,
        uri: &str,
        method: Method,
        who: &dyn Subscribing,
        route: SessionRoute<'_>,
        wait: &Arc<Wait>,
    ) -> Result<Outcome, CallError> {
        let upstream = self.upstream(server)?;
        let config = upstream.config();
        wait.set_timeout(config.timeout, config.timeout_max);
        if method == Method::ResourcesSubscribe {
            upstream.subscribe(uri, who, route, wait)
        } else {
            upstream.unsubscribe(uri, who, route, wait)
        }
    }

    /// Unsubscribes for a subscriber that has ended, unless `is_wanted` says that the
    /// subscription is wanted again; takes [`CONTROL_TIMEOUT`] at most. The gateway forgets the
    /// subscription even if the server fails.
    ///
    /// # Errors
    /// Any failure that kept the server from answering.
    pub fn take_back(
        &self,
        server: &ServerName,
        uri: &str,
        subscriber: Subscriber,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<Outcome, CallError> {
        let Ok(wait) = Wait::plain(CONTROL_TIMEOUT) else {
            self.forget_subscription(server, uri, subscriber);
            let what = "no descriptor is left".to_owned();
            return Err(CallError::Overloaded { what });
        };
        let who = Gone { subscriber, is_wanted };
        self.upstream(server)?.unsubscribe(uri, &who, SessionRoute::Shared, &wait)
    }

    /// Forgets a subscription of a subscriber that has ended, without a message to the server.
    pub fn forget_subscription(&self, server: &ServerName, uri: &str, subscriber: Subscriber) {
        if let Ok(upstream) = self.upstream(server) {
            upstream.forget_subscription(uri, subscriber);
        }
    }
}

/// A subscriber that has ended, whose subscription is to be cancelled unless it is wanted again.
struct Gone<'a> {
    subscriber: Subscriber,
    is_wanted: &'a dyn Fn() -> bool,
}

impl Subscribing for Gone<'_> {
    fn subscriber(&self) -> Subscriber {
        self.subscriber
    }

    fn charged(&self) -> Option<PrincipalId> {
        None
    }

    fn note(&self) -> Result<(), CallError> {
        Err(CallError::Cancelled)
    }

    fn is_noted(&self) -> bool {
        (self.is_wanted)()
    }

    fn forget(&self) -> bool {
        !(self.is_wanted)()
    }
}
