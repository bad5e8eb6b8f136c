//! The commands to the session thread.

use std::sync::Arc;

use crossbeam_channel::Sender;

use super::{
    Audience, Bearer, EventSink, HeardOver, Opened, Owner, Rescope, Session, SessionId,
    Transport,
};
use crate::protocol::call::Caller;
use crate::protocol::jsonrpc::RequestId;
use crate::protocol::question::Question;
use crate::protocol::raw::Raw;
use crate::protocol::server_name::ServerName;
use crate::state::Written;

/// A command to the session thread. A variant with a reply carries the place for it.
pub(super) enum Command {
    Open {
        door: Transport,
        owner: Owner,
        caller: Option<Caller>,
        reply: Reply<Opened>,
    },
    Revive {
        id: SessionId,
        bearer: Bearer,
        may_hear: Vec<ServerName>,
        reply: Reply<Option<Arc<Session>>>,
    },
    Introduce {
        id: SessionId,
        caller: Caller,
        reply: Reply<bool>,
    },
    Attach {
        id: SessionId,
        number: u64,
        stream: Arc<dyn EventSink>,
        reply: Reply<bool>,
    },
    Close {
        id: SessionId,
        reply: Option<Reply<Option<Written>>>,
    },
    /// Replies none if the id is not that of a session which could be revived.
    Forget {
        id: SessionId,
        principal: Option<Arc<str>>,
        only: Option<ServerName>,
        reply: Reply<Option<Option<Written>>>,
    },
    Tell {
        to: Audience,
        message: String,
    },
    Updated {
        server: ServerName,
        over: HeardOver,
        params: Raw,
    },
    AskUnasked {
        id: SessionId,
        question: Question,
    },
    WithdrawUnasked {
        id: SessionId,
        server: ServerName,
        upstream_id: RequestId,
    },
    Rescope(Rescope),
    /// The client of a session came with another access token: the rights of a session that it
    /// would open now.
    Renew {
        id: SessionId,
        owner: Owner,
        reply: Reply<()>,
    },
    EndListening,
    Alive {
        reply: Reply<()>,
    },
    Stop,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Command")
    }
}

/// The place for one reply. It is consumed by sending, so that there is one reply at most.
pub(super) struct Reply<T>(pub(super) Sender<T>);

impl<T> Reply<T> {
    pub(super) fn send(self, value: T) {
        // The asking thread may have given up; then the reply is not needed.
        self.0.try_send(value).ok();
    }
}
