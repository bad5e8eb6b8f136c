//! `subscriptions/listen`: a stateless client's stream of notifications (2026-07-28,
//! basic/patterns/subscriptions).

use std::sync::Arc;
use std::time::Instant;

use super::call_sink::{client_of, options_of};
use super::response::StatelessResponse;
use crate::access::policy::Scope;
use crate::downstream::Front;
use crate::downstream::answer::{Answer, MessageSink};
use crate::downstream::event_stream::Place;
use crate::downstream::legacy::subscriptions::OfSession;
use crate::downstream::status_codes::Problem;
use crate::error::CallError;
use crate::limits::{
    CALL_TIMEOUT_MAX, LISTEN_SUBSCRIBE_TIMEOUT, SUBSCRIPTIONS_PER_SESSION_MAX,
};
use crate::protocol::call::{Call, Outcome};
use crate::protocol::capabilities::{can_subscribe, have};
use crate::protocol::jsonrpc::{RequestId, RpcError, code};
use crate::protocol::listening::Filter;
use crate::protocol::method::Method;
use crate::protocol::modern::Envelope;
use crate::protocol::raw::{RawObject, string};
use crate::protocol::session_route::SessionRoute;
use crate::session::{Listening, Session, Transport};
use crate::wait::Wait;

impl Front {
    /// Opens the stream: its first event shows the part of the filter that is honoured.
    pub(crate) fn listen(
        &self,
        scope: &Scope,
        id: &RequestId,
        envelope: &Envelope<'_>,
        stream: StatelessResponse,
    ) {
        let place = match self.place(scope) {
            Ok(place) => place,
            Err(problem) => return stream.finish(id, &Answer::Refused(problem)),
        };
        match self.subscribe_listener(scope, id, envelope, &stream) {
            Ok(session) => self.open_listener(&session, place, stream),
            Err(refusal) => stream.finish(id, &refusal),
        }
    }

    /// A session that stands for the stream, with as many of its subscriptions as possible.
    fn subscribe_listener(
        &self,
        scope: &Scope,
        id: &RequestId,
        envelope: &Envelope<'_>,
        stream: &StatelessResponse,
    ) -> Result<Arc<Session>, Answer> {
        let failed = |error: &CallError| Answer::Refused(Problem::from_call(error));
        if self.is_stopping() {
            return Err(failed(&CallError::ShuttingDown));
        }
        let wanted = Filter::read(&envelope.params).map_err(Answer::Error)?;
        if wanted.uris.len() > SUBSCRIPTIONS_PER_SESSION_MAX {
            let what = format!(
                "\"resourceSubscriptions\" has more than {SUBSCRIPTIONS_PER_SESSION_MAX} URIs."
            );
            return Err(Answer::Error(RpcError::new(code::INVALID_PARAMS, what)));
        }
        let capabilities = self.pipeline.capabilities(scope, envelope.caller.revision);
        // The gateway's lists change with the servers behind it, whether or not these notify.
        let mut honoured = Filter {
            tools: wanted.tools && have(&capabilities, "tools"),
            prompts: wanted.prompts && have(&capabilities, "prompts"),
            resources: wanted.resources && have(&capabilities, "resources"),
            uris: Vec::new(),
        };
        let owner = self.owner(scope);
        let caller = (*envelope.caller).clone();
        let session = self.sessions.open(Transport::Listen, owner, Some(caller));
        let session = session.map_err(|error| failed(&error))?;
        // The session exists before any subscription, so that no update is missed; no message is
        // sent before the stream is attached.
        let client = stream.client();
        if can_subscribe(&capabilities) {
            let until = Instant::now() + LISTEN_SUBSCRIBE_TIMEOUT;
            for uri in wanted.uris {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                let Ok(wait) = Wait::new(CALL_TIMEOUT_MAX, CALL_TIMEOUT_MAX, client.clone())
                else {
                    break;
                };
                let _bound = wait.within(left);
                match self.subscribe_uri(&session, scope, &uri, &wait) {
                    Ok(Outcome::Complete(_)) => honoured.uris.push(uri),
                    // A resource that cannot be had is left out of the honoured filter.
                    Ok(Outcome::Error { .. } | Outcome::InputRequired { .. }) => (),
                    // Each subscription costs a call. If there is none left for the first, the
                    // stream is refused; else the rest is left out.
                    Err(error @ CallError::RateLimited { .. }) if honoured.uris.is_empty() => {
                        self.sessions.close_soon(&session.id);
                        return Err(failed(&error));
                    }
                    Err(error) => {
                        log::debug!(target: "sessions", "a resource is not listened to: {error}");
                    }
                }
            }
        }
        session.listen(Listening { id: id.clone(), filter: honoured });
        Ok(session)
    }

    fn subscribe_uri(
        &self,
        session: &Session,
        scope: &Scope,
        uri: &str,
        wait: &Arc<Wait>,
    ) -> Result<Outcome, CallError> {
        let mut params = RawObject::default();
        params.set("uri", string(uri));
        let caller = session.caller().ok_or(CallError::Cancelled)?;
        let method = Method::ResourcesSubscribe;
        let call = Call { caller, method, params, meta: None, progress_token: None };
        let client = client_of(scope, &call.caller);
        let options = options_of(&client, &call.caller);
        let (server, own) = self.pipeline.owner_of_uri(scope, options, &call, wait)?;
        let route = SessionRoute::Shared;
        let over = route.kind();
        let who = OfSession { session, server: &server, own: &own, asked: uri, over };
        self.pipeline.subscription(scope, (&server, &own), method, &who, route, wait)
    }

    fn open_listener(&self, session: &Arc<Session>, place: Place, stream: StatelessResponse) {
        let number = session.next_stream();
        let (sessions, session_id) = (self.sessions.clone(), session.id.clone());
        let on_end = Box::new(move || sessions.close_soon(&session_id));
        let handle = stream.into_sink("subscriptions/listen", place, on_end);
        let Some(handle) = handle else { return self.sessions.close_soon(&session.id) };
        if !matches!(self.sessions.attach(&session.id, number, handle.clone()), Ok(true)) {
            handle.close();
            self.sessions.close_soon(&session.id);
        }
    }
}
