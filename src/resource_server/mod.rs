//! Trunkline as an OAuth resource server (RFC 6750): verifies the access tokens with which clients
//! come, and says what they allow.
//!
//! [`ResourceServer`] lives as long as the gateway: it has the keys of issuers, and one thread,
//! `identity`, which reads them anew. A [`Verifier`] is that for one configuration, and is swapped
//! at a reload with the rest of the admission; it remembers whom it has accepted.
//!
//! ```text
//! ResourceServer::new(fetch)            once, with the gateway
//!   .verifier(&config.oauth, &owners)   at the start and at each reload -> Arc<Verifier>
//!     .verify(&presented, now)          each request                    -> Arc<Accepted> or Denied
//!     .standing(&accepted, now)         every half minute or so, for each open stream
//!     .reconsider(&accepted, now)       after a reload, for what is open
//!   .stop()                             at the end
//! ```

mod accepted;
mod denied;
mod presented;

use std::io;
use std::sync::Arc;

pub use accepted::{Accepted, Standing};
pub use denied::{Denied, ErrorCode, WrongProof, WrongToken};
pub use presented::{Now, Presented, Scheme, Token};

use crate::config::OAuthConfig;
use crate::protocol::owners::Owners;

/// The keys of issuers, and the thread that keeps them.
#[derive(Debug, Default)]
pub struct ResourceServer {}

impl ResourceServer {
    /// The verifier of a configuration. Issuers that an earlier one had keep their keys, and users
    /// what is left of their calls per minute. The thread starts with the first verifier.
    ///
    /// # Errors
    /// The system refuses the thread.
    pub fn verifier(&self, config: &OAuthConfig, owners: &Owners) -> io::Result<Arc<Verifier>> {
        let _ = (config, owners);
        Ok(Arc::new(Verifier {}))
    }

    /// Ends the thread, and the waits of requests for issuers.
    pub fn stop(&self) {}
}

/// Verifies tokens under one configuration.
#[derive(Debug)]
pub struct Verifier {}

impl Verifier {
    /// Verifies a request's token. What was accepted before is remembered, so that this costs a
    /// few microseconds; a new JWT costs a signature; one of an unknown key id, or one that is
    /// introspected, waits for its issuer, at most [`crate::limits::KEY_WAIT_TIMEOUT`] or
    /// [`crate::limits::INTROSPECTION_TIMEOUT`].
    ///
    /// # Errors
    /// The request is not served.
    pub fn verify(&self, presented: &Presented<'_>, now: Now) -> Result<Arc<Accepted>, Denied> {
        let _ = (presented, now);
        Err(Denied::Unavailable {
            issuer: "".into(),
            why: "not there yet".into(),
            retry_after: std::time::Duration::from_secs(1),
        })
    }

    /// True if the token is still good. It never waits: an introspected token whose answer has
    /// grown old is asked about again by the thread `identity`, and what comes of it is told the
    /// next time.
    pub fn standing(&self, accepted: &Arc<Accepted>, now: Now) -> Standing {
        let is_over = now.unix >= accepted.expires_at;
        if is_over { Standing::Ended } else { Standing::Good }
    }

    /// A token that an earlier verifier accepted, under this one's configuration: the same user,
    /// maybe with other rights.
    ///
    /// # Errors
    /// Its issuer or audience is not accepted any more, or no rule matches it.
    pub fn reconsider(
        &self,
        accepted: &Arc<Accepted>,
        now: Now,
    ) -> Result<Arc<Accepted>, Denied> {
        let _ = now;
        Ok(accepted.clone())
    }

    /// The issuers in the order of the configuration, for the metadata of the protected resource
    /// (RFC 9728, `authorization_servers`).
    pub fn issuers(&self) -> impl Iterator<Item = &str> {
        std::iter::empty()
    }

    /// The scopes of which rules speak, each once, in their order: for `scopes_supported` and for
    /// the `scope` of a 401 (MCP authorization, scope selection).
    pub fn scopes(&self) -> &[Arc<str>] {
        &[]
    }
}
