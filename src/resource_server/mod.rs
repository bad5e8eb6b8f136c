//! Trunkline as an OAuth resource server (RFC 6750): verifies the access tokens with which clients
//! come, and says what they allow.
//!
//! [`ResourceServer`] lives as long as the gateway: it has the keys of issuers, and one thread,
//! `identity`, which reads them anew. A [`Verifier`] is that for one configuration, and is swapped
//! at a reload with the rest of the admission; it remembers whom it has accepted.
//!
//! ```text
//! ResourceServer::new(fetch_of)         once, with the gateway
//!   .verifier(&config.oauth, &owners)   at the start and at each reload -> Arc<Verifier>
//!     .verify(&presented, now)          each request                    -> Arc<Accepted> or Denied
//!     .standing(&accepted, now)         every half minute or so, for each open stream
//!     .present(&accepted, now)          after a reload, for what is open
//!   .rest()                             where a reload takes `oauth` away
//!   .stop()                             at the end
//! ```

mod accepted;
mod decisions;
mod denied;
mod introspect;
mod introspection_turns;
mod issuer;
mod issuer_metadata;
mod keeper;
mod kept_keys;
mod key_schedule;
mod opaque_tokens;
mod presented;
mod reading;
mod rules;
#[cfg(test)]
mod tests;
mod token_digest;
mod token_issuers;
mod users;
mod verifier;
mod waiters;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

pub use accepted::{Accepted, Standing};
pub use denied::{Denied, ErrorCode, WrongProof, WrongToken};
pub use issuer::IssuerStatus;
pub use presented::{Now, Presented, Token, token_in};
pub use verifier::Verifier;

use issuer::{Issuer, Means};
use kept_keys::KeptKeys;
use rules::Rules;
use verifier::Shared;
use waiters::Waiters;

use crate::config::{IssuerConfig, OAuthConfig};
use crate::limits::{ISSUERS_WAITERS_DIVISOR, ISSUERS_WAITERS_MAX, SHARES_MIN};
use crate::oauth::fetch::Fetch;
use crate::oauth::issuer_name::issuer_name;
use crate::protocol::owners::Owners;
use crate::state::{StateDir, Writer};
use crate::sync::Mutex;
use crate::thread::Joined;

/// Gives what sends requests to an issuer.
pub type FetchOf = dyn Fn(&IssuerConfig) -> Arc<dyn Fetch> + Send + Sync;

/// The keys of issuers, and the thread that keeps them.
pub struct ResourceServer {
    means: Means,
    shared: Arc<Shared>,
    /// None before the first verifier.
    thread: Mutex<Option<Joined>>,
}

impl std::fmt::Debug for ResourceServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResourceServer").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl ResourceServer {
    /// Nothing runs before the first verifier.
    pub fn new(fetch_of: Arc<FetchOf>) -> ResourceServer {
        let waiting = Arc::new(Waiters::new(ISSUERS_WAITERS_MAX));
        let shared = Arc::<Shared>::default();
        let keeper = Arc::downgrade(&shared.keeper);
        let means = Means { fetch_of, kept: None, keeper, waiting };
        ResourceServer { means, shared, thread: Mutex::default() }
    }

    /// Lets fewer requests wait for issuers at once where there are few connections, each of which
    /// holds a thread.
    #[must_use]
    pub fn with_connections(mut self, connections: usize) -> ResourceServer {
        let places = connections / ISSUERS_WAITERS_DIVISOR;
        let places = places.clamp(SHARES_MIN, ISSUERS_WAITERS_MAX);
        self.means.waiting = Arc::new(Waiters::new(places));
        self
    }

    /// Keeps the keys of issuers in the state directory too, for the next start.
    #[must_use]
    pub fn with_kept_keys(
        mut self,
        directory: Arc<StateDir>,
        writer: Writer,
    ) -> ResourceServer {
        self.means.kept = Some(KeptKeys::new(directory, writer));
        self
    }

    /// The verifier of a configuration, whose issuers' keys are kept from now on, and no others'.
    /// Issuers that an earlier one had keep their keys, and users what is left of their calls per
    /// minute; what the earlier one had accepted is decided anew. The thread starts with the first
    /// verifier.
    ///
    /// # Errors
    /// The system refuses the thread.
    pub fn verifier(&self, config: &OAuthConfig, owners: &Owners) -> io::Result<Arc<Verifier>> {
        let mut thread = self.thread.lock();
        if thread.is_none() {
            *thread = Some(self.shared.keeper.start()?);
        }
        // The files of keys are read without it.
        drop(thread);
        let before = self.shared.keeper.issuers();
        let issuers = config.issuers.iter().map(|of| {
            let name = issuer_name(&of.issuer);
            let same = before.iter().find(|it| it.config.issuer == of.issuer);
            if let Some(same) = same.filter(|it| it.is_of(of, &name, config.jwks_max_age)) {
                return same.clone();
            }
            let same = same.map(|it| &**it);
            Arc::new(Issuer::new(of, name, config.jwks_max_age, &self.means, same))
        });
        let issuers: Vec<_> = issuers.collect();
        if let Some(kept) = &self.means.kept {
            kept.forget_others(&config.issuers);
        }
        self.shared.keeper.keep(issuers.clone());
        Ok(Arc::new_cyclic(|this| Verifier {
            issuers,
            rules: Rules::new(&config.rules, owners),
            shared: self.shared.clone(),
            decisions: Default::default(),
            refusals: Default::default(),
            number: self.shared.n_verifiers.fetch_add(1, Ordering::Relaxed),
            this: this.clone(),
        }))
    }

    /// Notes that no verifier is wanted any more: no issuer is asked from now on, and no keys stay
    /// on the disk.
    pub fn rest(&self) {
        self.shared.keeper.keep(Vec::new());
        if let Some(kept) = &self.means.kept {
            kept.forget_others(&[]);
        }
    }

    /// The state of each issuer, for operators.
    pub fn status(&self) -> Vec<IssuerStatus> {
        let now = Instant::now();
        self.shared.keeper.issuers().iter().map(|issuer| issuer.status(now)).collect()
    }

    /// Ends the thread, and the waits of requests for issuers.
    pub fn stop(&self) {
        self.shared.keeper.stop();
        let thread = self.thread.lock().take();
        drop(thread);
        if let Some(kept) = &self.means.kept {
            kept.stop();
        }
    }
}

impl Drop for ResourceServer {
    fn drop(&mut self) {
        self.stop();
    }
}
