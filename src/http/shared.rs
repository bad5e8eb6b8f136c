//! The values that the threads of one server share: bounds, the pool, the handler and the
//! counters.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::pool::Pool;
use super::{Budget, Handler};
use crate::limits::Limits;
use crate::wait::Bell;

/// The text for a connection over a bound of connections, or one that was evicted.
pub(crate) const TOO_MANY: &str = "too many connections";
/// The text for a principal whose requests hold its share of the connections.
pub(crate) const SHARE_HELD: &str = "your requests in work hold your share of the connections";

/// The values that the threads of one server share.
pub(crate) struct Shared {
    pub(crate) limits: Arc<Limits>,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) budget: Budget,
    pub(crate) pool: Pool,
    /// True once no connection is accepted any more, and answers end their connections.
    pub(crate) leaving: AtomicBool,
    /// True if, besides, connections that wait for a request end soon.
    pub(crate) draining: AtomicBool,
    pub(crate) wake_accept: Bell,
    pub(crate) threads_started: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) panics: AtomicU64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("draining", &self.draining).finish_non_exhaustive()
    }
}

impl Shared {
    /// True if answers end their connections.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    /// True if connections that wait for a request end.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }
}
