//! Subscriptions of sessions to resources.

use std::sync::Arc;

use crate::access::policy::Scope;
use crate::downstream::Front;
use crate::error::CallError;
use crate::pipeline::{CallOptions, Subscribing};
use crate::protocol::call::{Call, Outcome, PrincipalId};
use crate::protocol::method::Method;
use crate::protocol::raw::Raw;
use crate::protocol::server_name::ServerName;
use crate::protocol::session_route::SessionKind;
use crate::protocol::subscriber::Subscriber;
use crate::session::{Refused, Session};
use crate::wait::Wait;

/// One subscription of a session, with the URI that its client wrote.
pub(crate) struct OfSession<'a> {
    pub(crate) session: &'a Session,
    pub(crate) server: &'a ServerName,
    pub(crate) own: &'a str,
    pub(crate) asked: &'a str,
    pub(crate) over: SessionKind,
}

impl Subscribing for OfSession<'_> {
    fn subscriber(&self) -> Subscriber {
        self.session.subscriber
    }

    fn charged(&self) -> Option<PrincipalId> {
        self.session.charged()
    }

    fn note(&self) -> Result<(), CallError> {
        self.session.subscribe(self.server, self.own, self.asked, self.over).map_err(
            |refused| {
                match refused {
                    // Every call of a session that has ended gets this error.
                    Refused::Ended => CallError::Cancelled,
                    Refused::NotHeard => CallError::Overloaded {
                        what: "what this session may see is changing".to_owned(),
                    },
                    Refused::TooMany | Refused::IdInUse => CallError::Overloaded {
                        what: "too many subscriptions in this session".to_owned(),
                    },
                }
            },
        )
    }

    fn is_noted(&self) -> bool {
        self.session.is_subscribed(self.server, self.own)
    }

    fn forget(&self) -> bool {
        self.session.unsubscribe(self.server, self.own)
    }
}

/// Answers `resources/subscribe` and `resources/unsubscribe`. A client that has a session of
/// its own with the server subscribes over that session.
pub(crate) fn subscription(
    front: &Front,
    session: &Session,
    options: CallOptions<'_>,
    scope: &Scope,
    call: &Call<'_>,
    wait: &Arc<Wait>,
) -> Result<Outcome, CallError> {
    let (server, own) = front.pipeline.owner_of_uri(scope, options, call, wait)?;
    let asked = call.params.string("uri").ok().flatten().unwrap_or_default();
    let mut route = front.pipeline.session_route(&server, options.client, scope);
    loop {
        let over = route.kind();
        let who = OfSession { session, server: &server, own: &own, asked: &asked, over };
        if call.method == Method::ResourcesUnsubscribe && !who.is_noted() {
            // A subscription that does not exist need not be cancelled.
            return Ok(Outcome::Complete(Raw::from_valid("{}".to_owned())));
        }
        let outcome =
            front.pipeline.subscription(scope, (&server, &own), call.method, &who, route, wait);
        route = front.pipeline.session_route(&server, options.client, scope);
        let is_rerouted = over == SessionKind::Own && route.is_shared();
        if !is_rerouted || call.method == Method::ResourcesUnsubscribe {
            return outcome;
        }
        // The server has just been found to keep no sessions.
        who.forget();
    }
}
