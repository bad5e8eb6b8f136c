//! The credentials that a request brings for servers whose credentials are each user's own.

use std::sync::Arc;

use super::Front;
use super::status_codes::Problem;
use crate::access::policy::{Principal, Scope};
use crate::http::Head;
use crate::protocol::credentials::UserCredentials;

impl Front {
    /// The credentials of a request's user, where some server is reached with them.
    pub(super) fn user(
        &self,
        head: &Head,
        principal: &Principal,
    ) -> Option<Arc<UserCredentials>> {
        let per_user = self.pipeline.per_user()?;
        let claim = |name: &str| principal.claim(name);
        per_user.credentials(principal.user(), claim, head.headers.iter()).map(Arc::new)
    }
}

/// Checks that a client gives each header for a server that it may see once. It is told nothing of
/// other servers.
pub(super) fn check_forwarded(scope: &Scope) -> Result<(), Problem> {
    let Some(user) = &scope.user else { return Ok(()) };
    match user.repeated(|server| scope.sees_server(server)) {
        Some(again) => {
            let server = again.server.as_str().to_lowercase();
            Err(Problem::repeated(&format!("x-mcp-{server}-{}", again.name)))
        }
        None => Ok(()),
    }
}
