//! An upstream hears of the credentials at its server: it keeps them from everybody, and tries again
//! once somebody has signed in.

use std::sync::{Arc, Weak};

use crate::config::Secret;
use crate::telemetry::redact::{Secrets, SecretsInUse};

use super::authorization::AuthorizationListener;
use super::session::context::{Mailbox, SessionContext};

/// The one who uses the credentials at a server.
struct CredentialsUser {
    mailbox: Weak<Mailbox>,
    secrets: Weak<Secrets>,
}

impl AuthorizationListener for CredentialsUser {
    fn learned(&self, secret: &Secret) {
        if let Some(secrets) = self.secrets.upgrade() {
            secrets.learn(secret.clone());
        }
    }

    fn uses(&self, in_use: &Arc<SecretsInUse>) {
        if let Some(secrets) = self.secrets.upgrade() {
            secrets.heed(in_use);
        }
    }

    fn signed_in(&self) {
        if let Some(mailbox) = self.mailbox.upgrade() {
            mailbox.wanted();
        }
    }
}

/// Has an upstream hear of the credentials of its requests.
pub(super) fn listener(context: &SessionContext) -> Option<Arc<dyn AuthorizationListener>> {
    let authorization = context.authorization.as_ref()?;
    let (mailbox, secrets) =
        (Arc::downgrade(&context.mailbox), Arc::downgrade(&context.secrets));
    let listener: Arc<dyn AuthorizationListener> =
        Arc::new(CredentialsUser { mailbox, secrets });
    authorization.listen(&listener);
    Some(listener)
}
