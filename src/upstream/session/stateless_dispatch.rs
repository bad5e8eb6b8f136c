//! What becomes of the messages of a child that keeps no session: all calls to it share its pipes,
//! and so do the requests by which it is listened to.

use crate::protocol::call::Notice;
use crate::protocol::jsonrpc::code;
use crate::protocol::method::notification;

use super::dispatch::{Sorted, sort};
use super::subscriptions::listen_filter::acknowledged;
use crate::upstream::message::{Incoming, superseded};
use crate::upstream::transport::stdio::process::ChildShared;

/// Takes a message on the wire that all calls to a child share; gives back what makes no sense
/// there.
pub(crate) fn hear_child(shared: &ChildShared, incoming: Incoming) -> Option<Incoming> {
    let (context, pending) = (&shared.context, &shared.pending);
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
        if let Some(what) = refusal.filter(|_| !shared.is_ending()) {
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
                    shared.say(superseded(old)).ok();
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
            if let Sorted::Notice(_) = sort::<ChildShared>(context, other, None) {
                context.unattributed();
                log::debug!(target: "upstream", "{}: a notification names no call", context.name());
            }
        }
    }
    None
}
