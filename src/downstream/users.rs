//! The credentials that a request brings for servers whose credentials are each user's own.

use std::sync::Arc;

use super::Front;
use crate::access::policy::Principal;
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
        let claims = || principal.claims();
        per_user.credentials(principal.user(), claims, head.headers.iter()).map(Arc::new)
    }
}
