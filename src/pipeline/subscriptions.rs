//! Subscriptions to resources: whose resource it is, and who hears of it.

use std::sync::Arc;

use super::{CallOptions, Pipeline};
use crate::access::policy::Scope;
use crate::error::CallError;
use crate::protocol::call::{Call, Client, Outcome};
use crate::protocol::method::Method;
use crate::protocol::server_name::ServerName;
use crate::protocol::subscriber::Subscriber;
use crate::upstream::Subscribing;
use crate::wait::Wait;

impl Pipeline {
    /// Whose a resource is that is subscribed to or no more, and that server's own URI for it; waits
    /// where a list may bring it soon. Costs a call.
    ///
    /// # Errors
    /// The key has no call left, the URI is missing, or it is nothing that the scope sees.
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

    /// Subscribes somebody to a resource, or takes that back: over the client's own session with
    /// the server, or over the shared one.
    ///
    /// # Errors
    /// Whatever kept the upstream from answering, or the subscriber from subscribing.
    pub fn subscription(
        &self,
        server: &ServerName,
        uri: &str,
        method: Method,
        who: &dyn Subscribing,
        through: Option<&Client>,
        wait: &Arc<Wait>,
    ) -> Result<Outcome, CallError> {
        let upstream = self.upstream(server)?;
        let config = upstream.config();
        wait.set_timeout(config.timeout, config.timeout_max);
        if method == Method::ResourcesSubscribe {
            upstream.subscribe(uri, who, through, wait)
        } else {
            upstream.unsubscribe(uri, who, through, wait)
        }
    }

    /// Forgets a subscription over the shared session without waiting; the server is told of that
    /// some time soon.
    pub fn forget_subscription(&self, server: &ServerName, uri: &str, subscriber: Subscriber) {
        if let Ok(upstream) = self.upstream(server) {
            upstream.forget_subscription(uri, subscriber);
        }
    }
}
