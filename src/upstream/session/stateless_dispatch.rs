//! What becomes of a modern server's messages that are no answers. It may send notifications
//! only; requests come in results (2026-07-28, basic/patterns/mrtr).

use crate::protocol::call::Notice;
use crate::protocol::jsonrpc::code;
use crate::protocol::method::notification;

use super::context::SessionContext;
use super::listen_filter::{acknowledged, without_id};

use crate::upstream::message::{Incoming, superseded};
use crate::upstream::transport::stdio::process::ChildLink;

/// A message, once what the gateway does with it by itself is done.
pub(crate) enum Heard {
    /// For the call that it belongs to.
    Notice(Notice),
    /// Nothing is left to do.
    Nothing,
}

/// Tells the supervisor of changes, and passes over what must not be sent.
pub(crate) fn hear(context: &SessionContext, incoming: Incoming) -> Heard {
    match incoming {
        Incoming::ListChanged(kind) => context.list_changed(kind),
        Incoming::Notice(Notice::ResourceUpdated(params)) => {
            context.notice(Notice::ResourceUpdated(without_id(params)));
        }
        // On any stream but the one that a subscription opened it acknowledges nothing.
        Incoming::Notice(Notice::Other { method, .. })
            if method == notification::SUBSCRIPTIONS_ACKNOWLEDGED =>
        {
            context.dropped.count(context.name(), &method);
        }
        Incoming::Notice(notice) => return Heard::Notice(notice),
        Incoming::Ask { method, .. } | Incoming::Misread { method } => {
            context.dropped.count(context.name(), &method);
        }
        // What would be withdrawn was never asked.
        Incoming::Withdrawn(_)
        | Incoming::Answer { .. }
        | Incoming::Progress { .. }
        | Incoming::Malformed { .. }
        | Incoming::Nonsense(_) => (),
    }
    Heard::Nothing
}

/// Takes a message on the wire that all calls to a child share; gives back what makes no sense
/// there.
pub(crate) fn hear_child(transport: &ChildLink, incoming: Incoming) -> Option<Incoming> {
    let (context, pending) = (&transport.context, &transport.pending);
    let answered = match &incoming {
        Incoming::Answer { id: Some(id), outcome } => {
            let refusal = outcome.as_ref().err();
            let is_unknown = refusal.is_some_and(|error| error.code == code::METHOD_NOT_FOUND);
            let refusal = refusal.map(|error| format!("{} ({})", error.message, error.code));
            Some((*id, refusal, is_unknown))
        }
        Incoming::Malformed { id, what } => Some((*id, Some(what.clone()), false)),
        Incoming::Answer { id: None, .. }
        | Incoming::Progress { .. }
        | Incoming::ListChanged(_)
        | Incoming::Withdrawn(_)
        | Incoming::Notice(_)
        | Incoming::Ask { .. }
        | Incoming::Misread { .. }
        | Incoming::Nonsense(_) => None,
    };
    if let Some((id, refusal, is_unknown)) = answered
        && let Some(version) = context.subscriptions.version_of(id)
    {
        // At its end it may refuse because of that.
        if let Some(what) = refusal.filter(|_| !transport.is_ending()) {
            log::warn!(target: "upstream", "{}: it refused to be listened to: {}",
                context.name(), context.secrets.scrub_for_operator(&what));
            context.subscriptions.refused(version);
            if is_unknown {
                context.subscriptions.unserved();
            }
        }
        // The supervisor asks again by and by.
        context.subscriptions.leave(id);
        context.mailbox.idle.bell().ring();
        return None;
    }
    match pending.take_in(incoming)? {
        Incoming::Notice(Notice::Other { method, params })
            if method == notification::SUBSCRIPTIONS_ACKNOWLEDGED =>
        {
            if let Some((id, filter)) = acknowledged(params.as_ref())
                && let Some(version) = context.subscriptions.version_of(id)
            {
                for old in context.subscriptions.older(id) {
                    transport.say(superseded(old)).ok();
                }
                context.subscriptions.agreed(version, filter);
            }
        }
        Incoming::Notice(Notice::Log(params)) => pending.give_log(params),
        left @ (Incoming::Answer { .. }
        | Incoming::Malformed { .. }
        | Incoming::Nonsense(_)) => return Some(left),
        other @ (Incoming::Progress { .. }
        | Incoming::ListChanged(_)
        | Incoming::Notice(_)
        | Incoming::Withdrawn(_)
        | Incoming::Misread { .. }
        | Incoming::Ask { .. }) => {
            if let Heard::Notice(_) = hear(context, other) {
                context.unattributed();
                log::debug!(target: "upstream", "{}: a notification names no call", context.name());
            }
        }
    }
    None
}
