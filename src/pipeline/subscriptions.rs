//! Subscriptions to resources: the server of a resource, and the sessions that are subscribed.

use std::sync::Arc;

use super::{CallOptions, Pipeline};
use crate::access::policy::Scope;
use crate::error::CallError;
use crate::protocol::call::{Call, Outcome};
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
        scope: &Scope,
        (server, uri): (&ServerName, &str),
        method: Method,
        who: &dyn Subscribing,
        route: SessionRoute<'_>,
        wait: &Arc<Wait>,
    ) -> Result<Outcome, CallError> {
        let upstream = self.upstream_for(scope, server)?;
        let config = upstream.config();
        wait.set_timeout(config.timeout, config.timeout_max);
        if method == Method::ResourcesSubscribe {
            upstream.subscribe(uri, who, route, wait)
        } else {
            upstream.unsubscribe(uri, who, route, wait)
        }
    }

    /// Forgets a subscription over the shared session without waiting; the server is told of that
    /// some time soon.
    pub fn forget_subscription(&self, server: &ServerName, uri: &str, subscriber: Subscriber) {
        for upstream in self.upstreams.with_users(server) {
            upstream.forget_subscription(uri, subscriber);
        }
    }
}
