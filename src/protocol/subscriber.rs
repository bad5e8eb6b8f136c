//! The identity of a subscriber to resources.

use std::sync::atomic::{AtomicU64, Ordering};

/// A session or a stream that wants notifications of updated resources.
///
/// The identity is a number and not a session's id, so that a set of many is small and holds no
/// secret. No number is given twice, so that a late removal in the name of a subscriber that has
/// gone takes nothing from another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subscriber(u64);

impl Subscriber {
    /// An identity that differs from all others of this process.
    pub fn fresh() -> Subscriber {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Subscriber(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}
