//! Pure: how often one file may be written. A server whose lists change every second must not
//! wear out the disk, and one that changes once must not wait.

use std::time::{Duration, Instant};

use crate::limits::{STATE_RETRY_INTERVAL, STATE_WRITE_DELAY, STATE_WRITE_INTERVAL_MAX};

/// Of one file, from its first write on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Between the last write and the next.
    interval: Duration,
    written: Instant,
    /// The disk refused the last time.
    refused: Option<Instant>,
}

impl Pace {
    /// When a file that waits since then is to be written.
    pub(super) fn due(known: Option<&Pace>, since: Instant) -> Instant {
        // Several changes in a row become one file.
        let gathered = since + STATE_WRITE_DELAY;
        let Some(pace) = known else { return gathered };
        let retry = pace.refused.map(|at| at + STATE_RETRY_INTERVAL);
        gathered.max(pace.written + pace.interval).max(retry.unwrap_or(gathered))
    }

    /// After a write: twice the time for one that goes on changing, half for each longest
    /// interval that it has been quiet.
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

    /// After a write that the disk refused.
    pub(super) fn after_refusal(known: Option<&Pace>, now: Instant) -> Pace {
        let interval = known.map_or(STATE_WRITE_DELAY, |pace| pace.interval);
        let written = known.map_or(now, |pace| pace.written);
        Pace { interval, written, refused: Some(now) }
    }

    /// Whether the disk refused the last time.
    pub(super) fn is_failing(&self) -> bool {
        self.refused.is_some()
    }

    /// Whether a file that nobody knows would be treated as this one.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let n = self.quiet_for(now);
        !self.is_failing()
            && n > 0
            && self.interval / 2_u32.saturating_pow(n) < STATE_WRITE_DELAY
    }

    /// Whole longest intervals since it was due, beyond the one that it had to wait.
    fn quiet_for(&self, now: Instant) -> u32 {
        let quiet = now.saturating_duration_since(self.written + self.interval).as_secs();
        let max = STATE_WRITE_INTERVAL_MAX.as_secs().max(1);
        u32::try_from(quiet / max).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes of a file that changes every so often, over so long.
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
