//! The subscriptions and own sessions of a client at servers end with its session, or when it may
//! see a server no more.

use std::sync::{Arc, OnceLock, Weak};

use super::Pipeline;
use crate::session::{Left, SessionEvents};

/// Takes back at servers what sessions leave there. Nothing of it waits: supervisors tell the
/// servers.
#[derive(Debug, Default)]
pub struct ToServers {
    /// Known once it is there, which needs the sessions. None have anything at servers before.
    pipeline: OnceLock<Weak<Pipeline>>,
}

impl ToServers {
    /// The way to the servers.
    pub fn know(&self, pipeline: &Arc<Pipeline>) {
        self.pipeline.get_or_init(|| Arc::downgrade(pipeline));
    }

    fn pipeline(&self) -> Option<Arc<Pipeline>> {
        self.pipeline.get().and_then(Weak::upgrade)
    }
}

impl SessionEvents for ToServers {
    fn left(&self, left: Left) {
        let Some(pipeline) = self.pipeline() else { return };
        let Left { session, subscriber, subscriptions, servers } = left;
        for (server, uri) in subscriptions {
            pipeline.forget_subscription(&server, &uri, subscriber);
        }
        match servers {
            None => pipeline.close_client(&session),
            Some(servers) => {
                servers.iter().for_each(|server| pipeline.close_client_at(&session, server));
            }
        }
    }

    fn swept(&self) {
        if let Some(pipeline) = self.pipeline() {
            pipeline.look_at_log_levels();
        }
    }
}
