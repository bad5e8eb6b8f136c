//! Upstreams of the modern era (2026-07-28): no session, every request whole in itself.

use crate::wait::Wait;
use std::sync::Arc;

use crate::budget::room_for_copy;
use crate::protocol::call::{Kind as ListKind, Outcome, Outgoing};
use crate::protocol::jsonrpc::{RpcError, code};
use crate::protocol::method::Method;
use crate::protocol::modern::{self, Read};
use crate::protocol::raw::Raw;

use super::context::SessionContext;
use crate::upstream::failure::{Failure, FailureKind, Refusal, cut};
use crate::upstream::http_client::message_bytes::exhausted;

/// What the gateway answers in a modern server's place: requests that only sessions have. What
/// is subscribed to has `renew` ask the server for what is wanted then.
pub(crate) fn answered_here(
    context: &SessionContext,
    outgoing: &Outgoing<'_>,
    wait: &Arc<Wait>,
    renew: &dyn Fn(),
) -> Result<Option<Outcome>, Failure> {
    let Some(method) = Method::parse(outgoing.method) else { return Ok(None) };
    let uri = || outgoing.params.string("uri").ok().flatten().unwrap_or_default();
    let refused = match method {
        // A request says from which level on it wants log messages.
        Method::Ping | Method::LoggingSetLevel => None,
        Method::ResourcesSubscribe => context.subscriptions.add(&uri(), wait, renew)?,
        Method::ResourcesUnsubscribe => {
            context.subscriptions.remove(&uri(), renew);
            None
        }
        Method::Initialize | Method::TasksResult | Method::TasksList => {
            let what = format!("The server has no {:?}.", cut(outgoing.method));
            Some(RpcError::new(code::METHOD_NOT_FOUND, what))
        }
        Method::ToolsList
        | Method::ToolsCall
        | Method::PromptsList
        | Method::PromptsGet
        | Method::ResourcesList
        | Method::ResourcesTemplatesList
        | Method::ResourcesRead
        | Method::CompletionComplete
        | Method::TasksGet
        | Method::TasksCancel
        | Method::TasksUpdate
        | Method::ServerDiscover
        | Method::SubscriptionsListen => return Ok(None),
    };
    Ok(Some(match refused {
        None => Outcome::Complete(Raw::from_valid("{}".to_owned())),
        Some(error) => context.refused(error),
    }))
}

/// What came of a request to a modern server.
pub(crate) fn outcome(
    context: &SessionContext,
    answer: Result<Raw, RpcError>,
) -> Result<Outcome, Failure> {
    let server = context.name().clone();
    match answer {
        // What stands there instead is not to be quoted.
        Ok(result) if !result.get().starts_with('{') => {
            Err(Failure::nonsense("its result is no object"))
        }
        Ok(result) => match room_for_copy(&result)
            .map_err(|_| exhausted())
            .map(|_room| modern::read_result(&result))?
        {
            Ok(Read::Complete(whole)) => Ok(Outcome::Complete(whole)),
            Ok(Read::InputRequired { requests, state }) => {
                Ok(Outcome::InputRequired { server, requests, state })
            }
            Err(what) => {
                Err(Failure::nonsense(format!("its answer is no result: {}", cut(&what))))
            }
        },
        Err(error) if error.code == code::UNSUPPORTED_PROTOCOL_VERSION => {
            Err(other_era(format!("it refused the revision: {}", cut(&error.message))))
        }
        Err(error) => {
            if error.code == code::HEADER_MISMATCH {
                // The tool may want other parameters mirrored than it did when it was listed
                // (basic/transports/streamable-http, Client Behavior).
                context.list_changed(ListKind::Tool);
            }
            Ok(context.refused(error))
        }
    }
}

/// The upstream refused as one of the other era does.
pub(crate) fn other_era(what: impl Into<String>) -> Failure {
    let kind = FailureKind::Refused(Refusal::OtherEra);
    Failure { sent: true, ..Failure::new(kind, crate::error::Stage::Answer, what) }
}
