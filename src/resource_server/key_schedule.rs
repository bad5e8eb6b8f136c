//! Pure: when the keys of an issuer are read, by the thread that keeps them or by a request that
//! needs one that nobody has seen yet.

use std::time::{Duration, Instant};

use crate::limits::{KEYS_FETCH_INTERVAL_MIN, KEYS_REFRESH_INTERVAL, KEYS_RETRY_INTERVAL_MAX};

/// When the keys of one issuer were read, and when they are to be read again.
#[derive(Debug)]
pub(super) struct Schedule {
    /// The time between two readings that go well.
    refresh: Duration,
    is_reading: bool,
    /// The beginning of the last reading.
    begun: Option<Instant>,
    /// The beginning of the last reading that went well.
    succeeded: Option<Instant>,
    /// The end of the last reading, if that failed.
    failed: Option<Instant>,
    /// The readings that have failed since one went well.
    failures: u32,
    is_wanted: bool,
    /// Why the last reading began.
    cause: Cause,
}

/// Why keys are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// It is time.
    InTurn,
    /// A token names a key that is not among them, or the key that it names has not signed it.
    ForToken,
}

impl Schedule {
    /// Keys that hold for `max_age`, and were read at that time.
    pub(super) fn new(max_age: Duration, read_at: Option<Instant>) -> Schedule {
        Schedule {
            refresh: KEYS_REFRESH_INTERVAL.min(max_age / 2).max(KEYS_FETCH_INTERVAL_MIN),
            is_reading: false,
            begun: read_at,
            succeeded: read_at,
            failed: None,
            failures: 0,
            is_wanted: false,
            cause: Cause::InTurn,
        }
    }

    /// Checks that a reading may begin.
    ///
    /// # Errors
    /// One is under way, or the last one began too short a while ago, or ended so if it failed,
    /// which may have taken long: the time to wait.
    pub(super) fn may_begin(&self, now: Instant) -> Result<(), Duration> {
        if self.is_reading {
            // The end of it is told.
            return Err(KEYS_FETCH_INTERVAL_MIN);
        }
        let left = self.left(self.begun.max(self.failed), KEYS_FETCH_INTERVAL_MIN, now);
        if left.is_zero() { Ok(()) } else { Err(left) }
    }

    /// Notes that a reading begins. One that was wanted is for a token.
    pub(super) fn begin(&mut self, cause: Cause, now: Instant) {
        self.cause = if self.is_wanted { Cause::ForToken } else { cause };
        (self.is_reading, self.is_wanted, self.begun) = (true, false, Some(now));
    }

    /// True if a reading for a token has gone well a moment ago: another token with an unknown key
    /// id is no reason to wait for the next one.
    pub(super) fn was_just_read_for_token(&self, now: Instant) -> bool {
        self.cause == Cause::ForToken
            && !self.is_reading
            && self.failed.is_none()
            && self.may_begin(now).is_err()
    }

    /// Notes the end of a reading; `read_at` is when keys were read last.
    pub(super) fn end(&mut self, read_at: Option<Instant>, now: Instant) {
        self.is_reading = false;
        if read_at.is_some() && read_at >= self.begun {
            (self.succeeded, self.failed, self.failures) = (self.begun, None, 0);
        } else {
            self.failed = Some(now);
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// Wants a reading as soon as one may begin. Returns true if none was wanted yet.
    pub(super) fn want(&mut self) -> bool {
        !std::mem::replace(&mut self.is_wanted, true)
    }

    /// True if a reading that began after that time went well: what it has not found is not there.
    pub(super) fn has_succeeded_since(&self, then: Instant) -> bool {
        self.succeeded.is_some_and(|at| at >= then)
    }

    /// True if the last reading failed, and it is too early for another one.
    pub(super) fn has_failed(&self, now: Instant) -> bool {
        self.failed.is_some() && self.rests(now)
    }

    /// True if no reading is under way, and it is too early for another one.
    pub(super) fn rests(&self, now: Instant) -> bool {
        !self.is_reading && self.may_begin(now).is_err()
    }

    /// The time until the keys should be read again.
    pub(super) fn due_in(&self, now: Instant) -> Duration {
        let Some(last) = self.begun.max(self.failed) else { return Duration::ZERO };
        let doubled = 1_u32 << self.failures.saturating_sub(1).min(8);
        let pause = match (self.is_wanted, self.failures) {
            (true, _) => KEYS_FETCH_INTERVAL_MIN,
            (false, 0) => self.refresh,
            (false, _) => (KEYS_FETCH_INTERVAL_MIN * doubled).min(KEYS_RETRY_INTERVAL_MAX),
        };
        self.left(Some(last), pause, now)
    }

    fn left(&self, since: Option<Instant>, pause: Duration, now: Instant) -> Duration {
        let passed = since.map(|at| now.saturating_duration_since(at));
        passed.map_or(Duration::ZERO, |passed| pause.saturating_sub(passed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn keys_are_read_at_once_then_now_and_then_and_seldom_where_that_fails() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Duration::from_secs(86_400), None);
        assert_eq!(schedule.due_in(start), Duration::ZERO);
        schedule.begin(Cause::InTurn, start);
        assert!(schedule.may_begin(start + SECOND).is_err());
        schedule.end(Some(start + SECOND), start + SECOND);
        assert_eq!(schedule.due_in(start), KEYS_REFRESH_INTERVAL);
        assert!(schedule.want() && !schedule.want());
        assert_eq!(schedule.due_in(start + SECOND), KEYS_FETCH_INTERVAL_MIN - SECOND);
        assert_eq!(schedule.may_begin(start + SECOND), Err(KEYS_FETCH_INTERVAL_MIN - SECOND));
        let mut now = start + KEYS_FETCH_INTERVAL_MIN;
        let mut pauses = Vec::new();
        for _ in 0..6 {
            assert_eq!(schedule.may_begin(now), Ok(()));
            schedule.begin(Cause::InTurn, now);
            schedule.end(Some(start + SECOND), now);
            assert!(schedule.has_failed(now) && !schedule.has_succeeded_since(now));
            pauses.push(schedule.due_in(now).as_secs());
            now += schedule.due_in(now);
            assert!(!schedule.has_failed(now));
        }
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
        schedule.begin(Cause::InTurn, now);
        schedule.end(Some(now), now);
        assert!(schedule.has_succeeded_since(now));
        assert_eq!(schedule.due_in(now), KEYS_REFRESH_INTERVAL);
    }

    #[test]
    fn an_issuer_that_hangs_has_failed_when_the_reading_is_given_up() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Duration::from_secs(86_400), None);
        schedule.begin(Cause::InTurn, start);
        let end = start + 2 * KEYS_FETCH_INTERVAL_MIN;
        assert!(!schedule.has_failed(end));
        schedule.end(None, end);
        assert!(schedule.has_failed(end));
        assert_eq!(schedule.may_begin(end), Err(KEYS_FETCH_INTERVAL_MIN));
        assert_eq!(schedule.due_in(end), KEYS_FETCH_INTERVAL_MIN);
        assert_eq!(schedule.may_begin(end + KEYS_FETCH_INTERVAL_MIN), Ok(()));
    }

    #[test]
    fn keys_that_hold_a_short_while_are_read_more_often() {
        let now = Instant::now();
        let schedule = Schedule::new(Duration::from_secs(60), Some(now));
        assert_eq!(schedule.due_in(now), Duration::from_secs(30));
        let schedule = Schedule::new(SECOND, Some(now));
        assert_eq!(schedule.due_in(now), KEYS_FETCH_INTERVAL_MIN);
    }

    #[test]
    fn after_a_reading_for_a_token_others_need_not_wait_for_a_while() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Duration::from_secs(86_400), Some(start));
        assert!(!schedule.was_just_read_for_token(start + SECOND));
        let mut now = start + KEYS_FETCH_INTERVAL_MIN;
        schedule.begin(Cause::ForToken, now);
        assert!(!schedule.was_just_read_for_token(now), "it is under way");
        schedule.end(Some(now), now);
        assert!(schedule.was_just_read_for_token(now + SECOND));
        assert!(!schedule.was_just_read_for_token(now + KEYS_FETCH_INTERVAL_MIN));
        // One that was wanted meanwhile is for a token, too; one that fails tells nothing.
        schedule.want();
        now += KEYS_FETCH_INTERVAL_MIN;
        schedule.begin(Cause::InTurn, now);
        schedule.end(Some(now), now);
        assert!(schedule.was_just_read_for_token(now + SECOND));
        now += KEYS_FETCH_INTERVAL_MIN;
        schedule.begin(Cause::ForToken, now);
        schedule.end(Some(start), now);
        assert!(!schedule.was_just_read_for_token(now + SECOND));
        now += KEYS_FETCH_INTERVAL_MIN;
        schedule.begin(Cause::InTurn, now);
        schedule.end(Some(now), now);
        assert!(!schedule.was_just_read_for_token(now + SECOND));
    }
}
