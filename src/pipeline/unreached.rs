//! The error of a call for an item that no list has, where the server that would have it has not
//! listed anything yet.

use super::Pipeline;
use super::route::still_starting;
use crate::catalogue::{Catalogue, Health};
use crate::error::{CallError, Stage};
use crate::protocol::server_name::ServerName;
use crate::upstream::{State, Upstream};

impl Pipeline {
    /// The failure of a server that has never answered, if the item would belong to it: then it is
    /// not known that there is no such item. The server is tried soon, because a client needs it.
    pub(super) fn unreached(
        &self,
        catalogue: &Catalogue,
        name: &ServerName,
    ) -> Option<CallError> {
        let server = catalogue.servers.get(name).filter(|it| !it.has_answered)?;
        let starting = || still_starting(name, server, None);
        let error = match &server.health {
            Health::Failed { stage, message, refusal } => CallError::UpstreamFailed {
                server: name.clone(),
                stage: *stage,
                message: message.clone(),
                refusal: refusal.clone(),
            },
            Health::Connecting | Health::Well => starting(),
        };
        let Some(upstream) = self.upstreams.get(name) else { return Some(error) };
        if wants_credentials(&error) && upstream.is_tried_after_sign_in() {
            return Some(starting());
        }
        Some(upstream.knock().unwrap_or_else(|| wants_sign_in(error, &upstream)))
    }
}

/// True if contact with a server has failed for want of credentials.
fn wants_credentials(error: &CallError) -> bool {
    matches!(error, CallError::UpstreamFailed { stage: Stage::Authorization, .. })
}

/// The error where somebody must sign in at the server first.
fn wants_sign_in(error: CallError, upstream: &Upstream) -> CallError {
    if let CallError::UpstreamFailed { server, stage: Stage::Authorization, message, .. } =
        &error
        && upstream.status().state == State::NeedsSignIn
    {
        let (server, message) = (server.clone(), message.clone());
        return CallError::NeedsSignIn { server, message, is_under_way: false };
    }
    error
}
