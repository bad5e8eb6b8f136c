//! The access token that let a request in, for whatever outlives the request.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::policy::Principal;

/// A token that was accepted. A session, a stream or a call that goes on after its request asks
/// it what the token is worth by then.
pub trait Lease: fmt::Debug + Send + Sync {
    /// The principal that was let in.
    fn principal(&self) -> &Arc<Principal>;

    /// The same user's principal under the present configuration; none where the configuration
    /// gives the user no rights any more. A token that has ended makes no difference.
    fn present(&self) -> Option<Arc<Principal>>;

    /// True if the token has not ended, as far as is known, and still gives rights. Never waits.
    fn is_good(&self) -> bool;

    /// The time from which on the token is no longer accepted, whatever else happens.
    fn ends(&self) -> Instant;
}

/// A lease that may be shared; none for whoever came with a key, or without one.
pub type OptionalLease = Option<Arc<dyn Lease>>;
