//! An upstream hears of the credentials at its server: it keeps them from everybody, and tries again
//! once somebody has signed in.

use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::config::Secret;
use crate::error::Stage;
use crate::telemetry::redact::Secrets;

use super::authorization::AuthorizationListener;
use super::session::context::{Mailbox, SessionContext};
use super::status::SharedHealth;

/// The one who uses the credentials at a server.
struct CredentialsUser {
    mailbox: Weak<Mailbox>,
    secrets: Weak<Secrets>,
    health: Weak<SharedHealth>,
}

impl AuthorizationListener for CredentialsUser {
    fn learned(&self, secret: &Secret) {
        if let Some(secrets) = self.secrets.upgrade() {
            secrets.learn(secret.clone());
        }
    }

    fn signed_in(&self) {
        // What has failed for want of a sign-in is no failure any more.
        if let Some(health) = self.health.upgrade() {
            let mut health = health.lock();
            if health.last_failure.as_ref().is_some_and(|it| it.stage == Stage::Authorization) {
                health.breaker.begins_anew(Instant::now());
            }
        }
        if let Some(mailbox) = self.mailbox.upgrade() {
            mailbox.wanted();
        }
    }
}

/// Has an upstream hear of the credentials of its requests.
pub(super) fn listener(
    context: &SessionContext,
    health: &Arc<SharedHealth>,
) -> Option<Arc<dyn AuthorizationListener>> {
    let authorization = context.authorization.as_ref()?;
    let (mailbox, secrets) =
        (Arc::downgrade(&context.mailbox), Arc::downgrade(&context.secrets));
    let listener: Arc<dyn AuthorizationListener> =
        Arc::new(CredentialsUser { mailbox, secrets, health: Arc::downgrade(health) });
    authorization.listen(&listener);
    Some(listener)
}
