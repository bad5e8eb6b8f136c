//! The credentials of one owner at one server: what requests carry, and how they are renewed.

use std::sync::Arc;

use super::{BegunSignIn, SignInError, SignInStatus, SignedOut};
use crate::wait::Wait;

/// The credentials of one owner at one server.
#[derive(Debug)]
pub struct ServerAuthorization {}

impl ServerAuthorization {
    /// Begins a sign-in: finds the authorization server, registers if need be, and makes the URL of
    /// its page. A sign-in that is under way already stays good. `redirect_uri`: where the browser
    /// comes back to, if that is not [`Setup::redirect_uri`](super::Setup::redirect_uri).
    ///
    /// # Errors
    /// The server does not want OAuth, its authorization server cannot be used or reached, or the
    /// grant of the configuration needs no person.
    pub fn begin_sign_in(
        self: &Arc<ServerAuthorization>,
        redirect_uri: Option<&str>,
        wait: &Arc<Wait>,
    ) -> Result<BegunSignIn, SignInError> {
        let _ = (redirect_uri, wait);
        Err(SignInError::Failed("not yet".to_owned()))
    }

    /// Waits until there are credentials, or a sign-in that is under way has failed; a sign-in made
    /// by another process (`trunkline login`) counts too. The caller bounds the wait, and holds its
    /// timeout ([`Wait::hold`]) where a person may take their time.
    ///
    /// # Errors
    /// No sign-in is under way any more, and nobody is signed in; or the wait ended first.
    pub fn wait_until_signed_in(&self, wait: &Arc<Wait>) -> Result<(), SignInError> {
        let _ = wait;
        Err(SignInError::Failed("not yet".to_owned()))
    }

    /// How the sign-in is at present. Looks for a sign-in that another process has made.
    pub fn status(&self) -> SignInStatus {
        SignInStatus::Unknown
    }

    /// Forgets the credentials here, in memory and on disk, and revokes them at the authorization
    /// server where that offers it.
    ///
    /// # Errors
    /// The file cannot be removed, or the wait ended first.
    pub fn sign_out(
        self: &Arc<ServerAuthorization>,
        wait: &Arc<Wait>,
    ) -> Result<SignedOut, SignInError> {
        let _ = wait;
        Ok(SignedOut::NothingThere)
    }
}
