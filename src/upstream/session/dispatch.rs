//! What becomes of an upstream's messages that are no answers: a change of lists is for the
//! supervisor, a notification for a call or for nobody in particular, and a request for the
//! client whose own session it came on.

use std::sync::Arc;

use crate::limits::INPUT_REQUEST_BYTES_MAX;
use crate::protocol::call::{Client, Notice};
use crate::protocol::from_server::may_be_asked;
use crate::protocol::jsonrpc::{self, RequestId, RpcError, code};
use crate::protocol::method::{Method, notification};
use crate::protocol::question::{AnswerTo, Question};
use crate::protocol::raw::Raw;

use super::context::SessionContext;
use super::correlation::Arrival;
use super::pending::PendingRequests;
use super::subscriptions::listen_filter::without_id;
use crate::upstream::Wire;
use crate::upstream::call::EVERYBODY;
use crate::upstream::message::Incoming;

impl SessionContext {
    /// A notification that belongs to no call, on a stream that brings no answers.
    pub(crate) fn notice(&self, notice: Notice) {
        self.notice_on(self.client.as_ref(), notice, Wire::Apart);
    }

    /// The same, on that client's own session or on the shared one.
    pub(crate) fn notice_on(&self, client: Option<&Client>, notice: Notice, wire: Wire) {
        // What stateless clients subscribe to, they do over the shared session.
        let as_shared = self.is_exclusive() && matches!(notice, Notice::ResourceUpdated(_));
        let client = client.filter(|_| !as_shared);
        if client.is_some_and(|client| *client.session == *EVERYBODY)
            && matches!(notice, Notice::Log(_) | Notice::Other { .. })
        {
            return self.unattributed();
        }
        self.server_events.notice(
            self.name(),
            client.map(|client| &client.session),
            notice,
            wire,
        );
    }

    /// A message names no call, and nobody can be said to be meant.
    pub(crate) fn unattributed(&self) {
        self.server_events.unattributed(self.name());
    }

    /// Whether this session is one client's alone.
    pub(crate) fn is_of_one_client(&self) -> bool {
        self.client.as_ref().is_some_and(|client| *client.session != *EVERYBODY)
    }

    /// A question that belongs to no call. Of the shared session nobody can be said to be its
    /// client.
    pub(crate) fn ask(&self, question: Question) {
        match &self.client {
            Some(client) => self.ask_on(client, question),
            None => question.refuse(),
        }
    }

    /// The same, on that client's own session.
    pub(crate) fn ask_on(&self, client: &Client, question: Question) {
        self.server_events.ask(self.name(), &client.session, question);
    }
}

/// The way back to an upstream.
pub(crate) trait MessageSender: Send + Sync + 'static {
    /// Queues a message that wants no answer; never waits.
    fn say(&self, text: String);
}

/// A message, once what the gateway does with it by itself is done.
pub(crate) enum Sorted {
    Done,
    /// For whom it may concern.
    Notice(Notice),
    /// For the client of this session, or of the call on whose own stream it came.
    Ask(Question),
    /// An answer, progress, or nonsense.
    Rest(Incoming),
}

/// Answers what is for the gateway, tells the supervisor of changes, and counts what must not be
/// sent. `sender`: the way back to the server; none if it is of the stateless era, where it may
/// send notifications only, and its requests come in results (2026-07-28, basic/patterns/mrtr).
pub(crate) fn sort<M: MessageSender>(
    context: &SessionContext,
    incoming: Incoming,
    sender: Option<&Arc<M>>,
) -> Sorted {
    match (incoming, sender) {
        (Incoming::ListChanged(kind), _) => context.list_changed(kind),
        (Incoming::Ask { id, method, params }, Some(sender)) => {
            return answer_or_ask(context, (id, method, params), sender);
        }
        (Incoming::Ask { method, .. }, None) | (Incoming::Misread { method }, _) => {
            context.dropped.count(context.name(), &method);
        }
        // Only the stream that a subscription opened acknowledges anything.
        (Incoming::Notice(Notice::Other { method, .. }), _)
            if method == notification::SUBSCRIPTIONS_ACKNOWLEDGED =>
        {
            context.dropped.count(context.name(), &method);
        }
        (Incoming::Withdrawn(id), Some(_)) => {
            return Sorted::Notice(Notice::Withdrawn { server: context.name().clone(), id });
        }
        // What would be withdrawn was never asked.
        (Incoming::Withdrawn(_), None) => (),
        (Incoming::Notice(Notice::ResourceUpdated(params)), None) => {
            context.notice(Notice::ResourceUpdated(without_id(params)));
        }
        // Stateless clients are subscribed by streams of their own, not by their calls' sessions.
        (Incoming::Notice(notice @ Notice::ResourceUpdated(_)), Some(_))
            if context.is_exclusive() =>
        {
            context.notice(notice);
        }
        (Incoming::Notice(notice), _) => return Sorted::Notice(notice),
        (
            incoming @ (Incoming::Answer { .. }
            | Incoming::Progress { .. }
            | Incoming::Malformed { .. }
            | Incoming::Nonsense(_)),
            _,
        ) => return Sorted::Rest(incoming),
    }
    Sorted::Done
}

/// Answers a request of the server's that no client is asked; gives back any other.
fn answer_or_ask<M: MessageSender>(
    context: &SessionContext,
    (id, method, params): (RequestId, String, Option<Raw>),
    sender: &Arc<M>,
) -> Sorted {
    let refuse = |code, what| {
        sender.say(jsonrpc::error_response(Some(&id), &RpcError::new(code, what)));
    };
    let is_large = |it: &Raw| it.get().len() > INPUT_REQUEST_BYTES_MAX;
    if method == Method::Ping.as_str() {
        sender.say(jsonrpc::response(&id, "{}"));
    } else if !may_be_asked(&method) {
        context.dropped.count(context.name(), &method);
        refuse(code::METHOD_NOT_FOUND, "No client serves this.".to_owned());
    } else if params.as_ref().is_some_and(is_large) {
        let what = format!("The request has more than {INPUT_REQUEST_BYTES_MAX} bytes.");
        refuse(code::INVALID_PARAMS, what);
    } else {
        let (sender, to, server) = (sender.clone(), id.clone(), context.name().clone());
        let reply = AnswerTo::new(move |answer| {
            sender.say(match answer {
                Ok(result) => jsonrpc::response(&to, result.get()),
                Err(error) => jsonrpc::error_response(Some(&to), &error),
            });
        });
        return Sorted::Ask(Question { server, id, is_of_call: false, method, params, reply });
    }
    Sorted::Done
}

/// Takes a message on a stream that belongs to no call.
pub(crate) fn hear_unasked<M: MessageSender>(
    context: &SessionContext,
    incoming: Incoming,
    sender: &Arc<M>,
) {
    match sort(context, incoming, Some(sender)) {
        Sorted::Notice(notice) => context.notice(notice),
        Sorted::Ask(question) => context.ask(question),
        Sorted::Rest(_) | Sorted::Done => (),
    }
}

/// Takes a message on a wire that all calls of a session share; gives back what makes no sense
/// there.
pub(crate) fn hear_shared<M: MessageSender>(
    context: &SessionContext,
    pending: &PendingRequests,
    incoming: Incoming,
    sender: &Arc<M>,
) -> Option<Incoming> {
    match sort(context, pending.take_in(incoming)?, Some(sender)) {
        Sorted::Done => None,
        Sorted::Notice(notice) => {
            // A client's own session has mostly one call in flight, and then this is about it. On
            // one that several share it may be about anybody's.
            let about_a_call = match &notice {
                Notice::ResourceUpdated(_) => false,
                Notice::Progress(_)
                | Notice::Log(_)
                | Notice::Withdrawn { .. }
                | Notice::Other { .. } => context.is_of_one_client(),
            };
            let left = if about_a_call {
                pending.give(Arrival::Notice(notice))
            } else {
                Some(Arrival::Notice(notice))
            };
            tell(context, left);
            None
        }
        Sorted::Ask(question) if !context.is_of_one_client() => {
            question.refuse();
            None
        }
        Sorted::Ask(question) => {
            tell(context, pending.give(Arrival::Ask(question)));
            None
        }
        Sorted::Rest(incoming) => Some(incoming),
    }
}

/// What no call took.
fn tell(context: &SessionContext, left: Option<Arrival>) {
    match left {
        Some(Arrival::Notice(notice)) => {
            context.notice_on(context.client.as_ref(), notice, Wire::OfAnswers);
        }
        Some(Arrival::Ask(question)) => context.ask(question),
        Some(Arrival::Answer(_) | Arrival::Lost(_)) | None => (),
    }
}
