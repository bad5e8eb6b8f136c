//! Pure: the pace at which one file may be written. A server whose lists change every second must
//! not wear out the disk, and one that changes once must not wait.

use std::time::{Duration, Instant};

use crate::limits::{STATE_RETRY_INTERVAL, STATE_WRITE_DELAY, STATE_WRITE_INTERVAL_MAX};

/// The pace of one file, from its first write on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// The time between the last write and the next.
    interval: Duration,
    written: Instant,
    /// The time at which the disk refused, if it did the last time.
    refused: Option<Instant>,
}

impl Pace {
    /// The time at which a file that waits since `since` is to be written.
    pub(super) fn due(known: Option<&Pace>, since: Instant) -> Instant {
        // Several changes in a row become one file.
        let gathered = since + STATE_WRITE_DELAY;
        let Some(pace) = known else { return gathered };
        let retry = pace.refused.map(|at| at + STATE_RETRY_INTERVAL);
        gathered.max(pace.written + pace.interval).max(retry.unwrap_or(gathered))
    }

    /// The pace after a write: twice the interval for a file that goes on changing, half of it
    /// for each longest interval without a change.
    pub(super) fn after_write(known: Option<&Pace>, now: Instant) -> Pace {
        let interval = known.map_or(STATE_WRITE_DELAY, |pace| {
            match pace.quiet_for(now) {
                0 => pace.interval.saturating_mul(2),
                n => pace.interval / 2_u32.saturating_pow(n),
            }
            .clamp(STATE_WRITE_DELAY, STATE_WRITE_INTERVAL_MAX)
        });
        Pace { interval, written: now, refused: None }
    }

    /// The pace after a write that the disk refused.
    pub(super) fn after_refusal(known: Option<&Pace>, now: Instant) -> Pace {
        let interval = known.map_or(STATE_WRITE_DELAY, |pace| pace.interval);
        let written = known.map_or(now, |pace| pace.written);
        Pace { interval, written, refused: Some(now) }
    }

    /// True if the disk refused the last time.
    pub(super) fn is_failing(&self) -> bool {
        self.refused.is_some()
    }

    /// True if a file without a known pace would be treated alike.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let n = self.quiet_for(now);
        !self.is_failing()
            && n > 0
            && self.interval / 2_u32.saturating_pow(n) < STATE_WRITE_DELAY
    }

    /// The number of whole longest intervals since the file was due.
    fn quiet_for(&self, now: Instant) -> u32 {
        let quiet = now.saturating_duration_since(self.written + self.interval).as_secs();
        let max = STATE_WRITE_INTERVAL_MAX.as_secs().max(1);
        u32::try_from(quiet / max).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of writes of a file that changes each `every`, over the time `over`.
    fn n_writes(every: Duration, over: Duration) -> u32 {
        let start = Instant::now();
        let (mut pace, mut n) = (None::<Pace>, 0);
        let mut now = start;
        while now < start + over {
            now = Pace::due(pace.as_ref(), now);
            pace = Some(Pace::after_write(pace.as_ref(), now));
            n += 1;
            now += every;
        }
        n
    }

    #[test]
    fn what_goes_on_changing_is_written_ever_more_rarely() {
        let day = Duration::from_secs(24 * 3600);
        for every in [1, 50, 1000, 60_000, 310_000, 620_000] {
            let n = n_writes(Duration::from_millis(every), day);
            assert!((100..=320).contains(&n), "every {every} ms: {n}");
        }
    }

    #[test]
    fn what_changes_now_and_then_is_written_at_once_and_so_is_what_was_quiet() {
        let start = Instant::now();
        assert_eq!(Pace::due(None, start), start + STATE_WRITE_DELAY);
        let mut pace = Pace::after_write(None, start);
        for _ in 0..30 {
            pace = Pace::after_write(Some(&pace), pace.written + pace.interval);
        }
        let last = pace.written;
        assert_eq!(Pace::due(Some(&pace), last), last + STATE_WRITE_INTERVAL_MAX);
        assert!(!pace.is_over(last + STATE_WRITE_INTERVAL_MAX));
        let later = last + 20 * STATE_WRITE_INTERVAL_MAX;
        assert!(pace.is_over(later));
        assert_eq!(Pace::due(Some(&pace), later), later + STATE_WRITE_DELAY);
        let pace = Pace::after_write(Some(&pace), later);
        assert_eq!(Pace::due(Some(&pace), later), later + STATE_WRITE_DELAY);
    }

    #[test]
    fn what_the_disk_refused_waits_by_itself() {
        let now = Instant::now();
        let pace = Pace::after_refusal(None, now);
        assert!(pace.is_failing() && !pace.is_over(now + 50 * STATE_WRITE_INTERVAL_MAX));
        assert_eq!(Pace::due(Some(&pace), now), now + STATE_RETRY_INTERVAL);
        assert!(!Pace::after_write(Some(&pace), now).is_failing());
    }
}
