//! Pure: how long is waited before a stream that has ended is asked for again.

use std::time::Duration;

use crate::limits::{BACKOFF_MAX, STREAM_LASTED, STREAM_RESUME_MIN};

/// Of one stream: what its server asks for, and longer each time that nothing came of it.
pub(super) struct Pace {
    usual: Duration,
    max: Duration,
    retry: Option<Duration>,
    fruitless: u32,
}

impl Pace {
    /// `usual` where the server does not say; `max`, unless the server asks for longer.
    pub(super) fn new(usual: Duration, max: Duration) -> Pace {
        Pace { usual, max, retry: None, fruitless: 0 }
    }

    /// What the server asks for.
    pub(super) fn set_retry(&mut self, retry_ms: u64) {
        self.retry = Some(Duration::from_millis(retry_ms));
    }

    /// A message has come.
    pub(super) fn bore_fruit(&mut self) {
        self.fruitless = 0;
    }

    /// The wait after a stream that lasted so long, or an attempt that brought none.
    pub(super) fn next(&mut self, lasted: Duration) -> Duration {
        if lasted >= STREAM_LASTED {
            self.fruitless = 0;
        }
        let base = self.retry.unwrap_or(self.usual).clamp(STREAM_RESUME_MIN, BACKOFF_MAX);
        let factor = 1_u32.checked_shl(self.fruitless).unwrap_or(u32::MAX);
        self.fruitless += 1;
        base.saturating_mul(factor).min(self.max.max(base))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_stream_that_brings_nothing_is_asked_for_ever_later() {
        let mut pace = Pace::new(ms(200), ms(1500));
        let mut next = |lasted| pace.next(lasted).as_millis();
        assert_eq!([(); 5].map(|()| next(ms(0))), [200, 400, 800, 1500, 1500]);
        assert_eq!(next(STREAM_LASTED), 200);
        assert_eq!(next(ms(0)), 400);
        pace.bore_fruit();
        assert_eq!(pace.next(ms(0)), ms(200));
        for _ in 0..100 {
            assert!(pace.next(ms(0)) <= ms(1500));
        }
    }

    #[test]
    fn a_server_is_given_the_time_that_it_asks_for() {
        let mut pace = Pace::new(ms(200), ms(1500));
        pace.set_retry(1000);
        assert_eq!([(); 3].map(|()| pace.next(ms(0))), [ms(1000), ms(1500), ms(1500)]);
        pace.bore_fruit();
        pace.set_retry(4000);
        assert_eq!([(); 2].map(|()| pace.next(ms(0))), [ms(4000), ms(4000)]);
        pace.set_retry(0);
        pace.bore_fruit();
        assert_eq!(pace.next(ms(0)), STREAM_RESUME_MIN);
        pace.set_retry(u64::MAX);
        assert_eq!(pace.next(ms(0)), BACKOFF_MAX);
    }
}
