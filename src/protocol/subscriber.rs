//! Who subscribes to resources.

use std::sync::atomic::{AtomicU64, Ordering};

/// One that wants to hear of resources, whatever it is told through: a session, or a stream.
///
/// A number and not a session's id, so that a set of many is small and holds no secret. No
/// number is given twice, so what is taken back late in the name of one that has gone takes
/// nothing from anybody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subscriber(u64);

impl Subscriber {
    /// One that differs from all others of this process.
    pub fn fresh() -> Subscriber {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Subscriber(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}
