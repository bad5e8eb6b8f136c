//! Pure: the one backoff. Whatever of an upstream is tried again after a failure waits as long as
//! this says: each time for longer, up to a bound, and never for less than the server asks for.
//! Calls, and what a call has the supervisor look at, are not tried by this.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};

use crate::limits::{
    BACKOFF_ASKED_MAX, BACKOFF_MAX, BACKOFF_MIN, BACKOFF_RESET_AFTER, CHILD_BACKOFF_MAX,
    CHILD_BACKOFF_MIN, CHILD_BACKOFF_RESET_AFTER, STREAM_LASTED, STREAM_POLL_MIN,
    STREAM_RESUME_MAX, STREAM_RESUME_MIN,
};

/// Between which waits a backoff grows, and what ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    min: Duration,
    max: Duration,
    /// What was well for so long begins anew.
    reset_after: Duration,
}

impl Range {
    /// Reaching an upstream, and what is asked of it besides calls.
    pub(super) const UPSTREAM: Range =
        Range { min: BACKOFF_MIN, max: BACKOFF_MAX, reset_after: BACKOFF_RESET_AFTER };
    /// Starting a child.
    pub(super) const CHILD: Range = Range {
        min: CHILD_BACKOFF_MIN,
        max: CHILD_BACKOFF_MAX,
        reset_after: CHILD_BACKOFF_RESET_AFTER,
    };
    /// Asking for the stream on which a server speaks unasked.
    pub(super) const STREAM: Range =
        Range { min: BACKOFF_MIN, max: BACKOFF_MAX, reset_after: STREAM_LASTED };
    /// Taking up the stream of a call whose client waits for it.
    pub(super) const STREAM_OF_CALL: Range =
        Range { min: STREAM_RESUME_MIN, max: STREAM_RESUME_MAX, reset_after: STREAM_LASTED };
}

/// How long is waited before the next try of one thing.
#[derive(Debug)]
pub(super) struct Backoff {
    range: Range,
    next: Duration,
    /// What the server asks for between any two tries.
    asked: Duration,
}

impl Backoff {
    pub(super) const fn new(range: Range) -> Backoff {
        Backoff { range, next: range.min, asked: Duration::ZERO }
    }

    /// The wait after another try that failed.
    pub(super) fn next(&mut self) -> Duration {
        self.next_asked(None)
    }

    /// The same where the server has said how long it wants to be left alone this time.
    pub(super) fn next_asked(&mut self, asked: Option<Duration>) -> Duration {
        let base = self.next;
        self.next = base.saturating_mul(2).min(self.range.max);
        let asked = self.asked.max(asked.unwrap_or_default()).min(BACKOFF_ASKED_MAX);
        let jitter = jitter();
        // Between three quarters and five quarters; never shorter than what was asked for.
        let own = base * 3 / 4 + base / 2 * jitter / 255;
        own.max(asked + asked / 8 * jitter / 255)
    }

    /// From now on the server wants so long a wait between any two tries (`retry` of an event
    /// stream).
    pub(super) fn ask(&mut self, asked: Duration) {
        self.asked = asked;
    }

    /// The server has said something before it ended a stream. If it has also said how long to
    /// wait, it means to be asked again then (2025-11-25, basic/transports, Sending Messages to
    /// the Server), but no word of its makes that more often than once in [`STREAM_POLL_MIN`].
    pub(super) fn bore_fruit(&mut self) {
        if !self.asked.is_zero() {
            self.asked = self.asked.max(STREAM_POLL_MIN);
            self.reset();
        }
    }

    /// It went well: what fails later is tried soon.
    pub(super) fn reset(&mut self) {
        self.next = self.range.min;
    }

    /// It was well for so long before it failed.
    pub(super) fn lasted(&mut self, time: Duration) {
        if time >= self.range.reset_after {
            self.reset();
        }
    }
}

/// Keeps many gateways from coming back at once.
fn jitter() -> u32 {
    let mut byte = [128_u8];
    // Without randomness the middle does.
    SystemRandom::new().fill(&mut byte).ok();
    let [byte] = byte;
    u32::from(byte)
}

/// When one thing that failed is tried again.
#[derive(Debug)]
pub(super) struct Retry {
    pub(super) backoff: Backoff,
    at: Option<Instant>,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry::new(Range::UPSTREAM)
    }
}

impl Retry {
    pub(super) const fn new(range: Range) -> Retry {
        Retry { backoff: Backoff::new(range), at: None }
    }

    /// Another try has failed; `asked`: what the server wants to be left alone for.
    pub(super) fn failed(&mut self, now: Instant, asked: Option<Duration>) {
        self.at = Some(now + self.backoff.next_asked(asked));
    }

    /// It went well.
    pub(super) fn went_well(&mut self) {
        self.at = None;
        self.backoff.reset();
    }

    /// It is not tried again; if it fails another time, the wait is the longer one still.
    pub(super) fn give_up(&mut self) {
        self.at = None;
    }

    /// Whether nothing has failed since it went well.
    pub(super) fn is_first(&self) -> bool {
        self.backoff.next == self.backoff.range.min
    }

    /// When it is tried again; none if it has not failed.
    pub(super) fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Whether it has failed, and is not to be tried yet.
    pub(super) fn is_waiting(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| at > now)
    }
}

/// A [`Retry`] of what several threads do one after the other.
#[derive(Clone)]
pub(super) struct SharedRetry(Arc<Mutex<Retry>>);

impl SharedRetry {
    pub(super) fn new(range: Range) -> SharedRetry {
        SharedRetry(Arc::new(Mutex::new(Retry::new(range))))
    }

    fn lock(&self) -> MutexGuard<'_, Retry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long is to be waited before the next try.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.lock().at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }

    /// What was there for so long has ended; for no time where it was not to be had. `asked`: as
    /// in [`Retry::failed`].
    pub(super) fn failed(&self, now: Instant, lasted: Duration, asked: Option<Duration>) {
        let mut retry = self.lock();
        retry.backoff.lasted(lasted);
        retry.failed(now, asked);
    }

    /// See [`Backoff::ask`].
    pub(super) fn ask(&self, asked: Duration) {
        self.lock().backoff.ask(asked);
    }

    /// See [`Backoff::bore_fruit`].
    pub(super) fn bore_fruit(&self) {
        self.lock().backoff.bore_fruit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    /// Tries of one thing that may reach a server in the first minute.
    const TRIES_MAX: usize = 12;

    fn about(delay: Duration, base: Duration) -> bool {
        delay >= base * 3 / 4 && delay <= base * 5 / 4
    }

    #[test]
    fn a_backoff_grows_to_its_bound_and_begins_anew_when_it_went_well() {
        for range in [Range::UPSTREAM, Range::CHILD, Range::STREAM, Range::STREAM_OF_CALL] {
            let mut backoff = Backoff::new(range);
            for n in 0..4 {
                assert!(about(backoff.next(), (range.min * 2_u32.pow(n)).min(range.max)));
            }
            (0..100).for_each(|_| assert!(!backoff.next().is_zero()));
            assert!(about(backoff.next(), range.max));
            backoff.lasted(range.reset_after - Duration::from_millis(1));
            assert!(about(backoff.next(), range.max));
            backoff.lasted(range.reset_after);
            assert!(about(backoff.next(), range.min));
        }
    }

    #[test]
    fn a_dozen_tries_at_most_fall_into_the_first_minute() {
        for range in [Range::UPSTREAM, Range::CHILD, Range::STREAM] {
            for _ in 0..100 {
                let (mut backoff, mut at, mut n) = (Backoff::new(range), Duration::ZERO, 0);
                while at < MINUTE {
                    n += 1;
                    at += backoff.next();
                }
                assert!((5..=TRIES_MAX).contains(&n), "{n}");
            }
        }
    }

    #[test]
    fn a_server_is_given_the_time_that_it_asks_for_where_that_is_longer() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(Range::UPSTREAM);
        let delay = backoff.next_asked(Some(20 * second));
        assert!(delay >= 20 * second && delay <= 23 * second, "{delay:?}");
        assert!(about(backoff.next(), BACKOFF_MIN * 2), "it was asked for once");
        backoff.ask(3 * second);
        assert!(backoff.next() >= 3 * second);
        (0..20).for_each(|_| assert!(!backoff.next().is_zero()));
        assert!(backoff.next() >= BACKOFF_MAX * 3 / 4);
        backoff.reset();
        backoff.ask(Duration::ZERO);
        assert!(about(backoff.next(), BACKOFF_MIN));
        backoff.ask(Duration::MAX);
        assert!(backoff.next_asked(Some(Duration::MAX)) <= BACKOFF_ASKED_MAX * 9 / 8);
    }

    #[test]
    fn a_stream_that_bears_fruit_is_asked_for_as_its_server_says_but_not_all_the_time() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(Range::STREAM);
        for _ in 0..20 {
            backoff.ask(Duration::from_millis(1));
            backoff.bore_fruit();
            let delay = backoff.next();
            assert!(delay >= STREAM_POLL_MIN && delay <= 2 * STREAM_POLL_MIN, "{delay:?}");
        }
        backoff.ask(3 * second);
        backoff.bore_fruit();
        let delay = backoff.next();
        assert!(delay >= 3 * second && delay <= 4 * second, "{delay:?}");
        // Who does not say when is asked by and by.
        let mut backoff = Backoff::new(Range::STREAM);
        (0..20).for_each(|_| {
            backoff.bore_fruit();
            backoff.next();
        });
        assert!(about(backoff.next(), BACKOFF_MAX));
    }

    #[test]
    fn a_stream_that_was_not_to_be_had_has_not_lasted() {
        let (now, retry) = (Instant::now(), SharedRetry::new(Range::STREAM));
        (0..20).for_each(|_| retry.failed(now, Duration::ZERO, None));
        assert!(retry.left(now) >= BACKOFF_MAX * 3 / 4);
        retry.failed(now, STREAM_LASTED, Some(Duration::from_secs(20)));
        assert!(retry.left(now) >= Duration::from_secs(20), "it was asked for");
        retry.failed(now, STREAM_LASTED, None);
        assert!(retry.left(now) <= BACKOFF_MIN * 5 / 4);
    }

    #[test]
    fn what_failed_waits_until_it_went_well() {
        let (now, mut retry) = (Instant::now(), Retry::default());
        assert!(retry.at().is_none() && !retry.is_waiting(now));
        retry.failed(now, None);
        assert!(retry.is_waiting(now) && !retry.is_waiting(now + BACKOFF_MIN * 5 / 4));
        retry.give_up();
        assert!(!retry.is_waiting(now));
        retry.failed(now, None);
        assert!(retry.is_waiting(now + BACKOFF_MIN * 5 / 4));
        retry.went_well();
        retry.failed(now, None);
        assert!(!retry.is_waiting(now + BACKOFF_MIN * 5 / 4));
    }
}
