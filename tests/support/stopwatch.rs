//! How long a gateway took, without the time for which a busy machine let it wait for a core.
//!
//! A promise about time is about what the gateway waits for: no server, no client and no lock. How
//! long it waits for a core says nothing of that, and may be seconds where compilers run beside
//! the tests.

use std::time::{Duration, Instant};

use super::gateway::Gateway;
use super::{DEADLINE, threads};

/// Runs from when it was made.
#[derive(Debug)]
pub struct Stopwatch<'a> {
    gateway: &'a Gateway,
    began: Instant,
    waited_before: Duration,
}

impl<'a> Stopwatch<'a> {
    pub fn start(gateway: &'a Gateway) -> Stopwatch<'a> {
        Stopwatch { gateway, waited_before: waited(gateway), began: Instant::now() }
    }

    /// Runs from a moment before the gateway was there.
    pub fn since_before(gateway: &'a Gateway, began: Instant) -> Stopwatch<'a> {
        Stopwatch { gateway, waited_before: threads::has_waited_for_cores(), began }
    }

    /// The time that has passed, as a clock shows it.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// How long the gateway, its children and the thread that looks have been without a core.
    pub fn waited(&self) -> Duration {
        waited(self.gateway).saturating_sub(self.waited_before)
    }

    /// Fails unless less than this has passed, without the time for which there was no core; tells
    /// how much it was.
    #[track_caller]
    #[expect(clippy::print_stdout, reason = "the figures are shown when they are asked for")]
    pub fn is_below(&self, what: &str, limit: Duration) {
        let (elapsed, waited) = (self.elapsed(), self.waited());
        let took = elapsed.saturating_sub(waited);
        println!("{what}: {took:?} of {limit:?}, besides {waited:?} without a core");
        assert!(took < limit, "{what}: {took:?}, besides {waited:?} without a core");
    }

    /// [`super::wait_within`], by this watch's time.
    #[track_caller]
    pub fn wait_within<T>(
        &self,
        limit: Duration,
        what: &str,
        look: impl FnMut() -> Option<T>,
    ) -> T {
        let found = super::wait_within(limit.max(DEADLINE), what, look);
        self.is_below(what, limit);
        found
    }
}

/// Of the gateway, its children, and the thread that looks.
fn waited(gateway: &Gateway) -> Duration {
    threads::waited_for_cores(gateway.process_id()) + threads::has_waited_for_cores()
}
